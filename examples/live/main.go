// Command live keeps connections open: server-sent events that end when the session
// ends, and a WebSocket whose first message is the token. It has its own module,
// because it needs a WebSocket library:
//
//	go -C examples/live run .
package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"golang.org/x/net/websocket"

	"github.com/echosession/echosession"
)

// Player is what a session holds.
type Player struct {
	Name  string `json:"name"`
	Score int64  `json:"score"`
}
type session = echosession.Session[Player]

func main() {
	secret := make([]byte, 32)
	rand.Read(secret)
	e, err := newGame(echosession.Config{Store: echosession.NewMemoryStore(), Secret: secret}, 10*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(e.Start("127.0.0.1:8080"))
}

// newGame returns a server that sends its listeners the points of all players at every
// interval.
func newGame(cfg echosession.Config, interval time.Duration) (*echo.Echo, error) {
	sessions, err := echosession.New[Player](cfg)
	if err != nil {
		return nil, err
	}
	var total atomic.Int64
	e := echo.New()
	e.Use(sessions.Middleware())
	e.POST("/login", sessions.With(func(c echo.Context, sess *session) error {
		token, err := sess.Create(c.Request().Context(), Player{Name: c.FormValue("name")})
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, map[string]string{"token": token})
	}))

	// An EventSource cannot set headers: the token is in a cookie or in the query.
	e.GET("/events", sessions.With(func(c echo.Context, sess *session) error {
		ctx, w := c.Request().Context(), c.Response()
		w.Header().Set("Content-Type", "text/event-stream")
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			// Check fails when the session has ended, or when the store does not answer and
			// nobody knows. Then the stream ends, too. It restarts no timeout: a page that
			// nobody looks at keeps no session alive.
			if err := sess.Check(ctx); err != nil {
				return err
			}
			if _, err := fmt.Fprintf(w, "data: %d\n\n", total.Load()); err != nil {
				return err
			}
			w.Flush()
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
			}
		}
	}), sessions.Require())

	// A browser cannot set the headers of a WebSocket either. When the token is in
	// the first message, it is in no URL and in no log. And the page of another site
	// cannot send it, because it does not know the token.
	e.GET("/play", func(c echo.Context) error {
		server := websocket.Server{Handler: func(ws *websocket.Conn) {
			// Do not send the error itself: it may say more than a client should know.
			answer := "log in again"
			if err := play(ws, sessions, &total); errors.Is(err, echosession.ErrStoreUnavailable) {
				answer = "try again later"
			}
			_ = websocket.JSON.Send(ws, map[string]string{"error": answer})
		}}
		server.ServeHTTP(c.Response(), c.Request())
		return nil
	})
	return e, nil
}

func play(ws *websocket.Conn, sessions *echosession.Manager[Player], total *atomic.Int64) error {
	ws.MaxPayloadBytes = 16 << 10
	ctx := ws.Request().Context()
	var token string
	if err := websocket.Message.Receive(ws, &token); err != nil {
		return err
	}
	sess, err := sessions.Open(ctx, token)
	if err != nil {
		return err
	}
	if !sess.Exists() {
		return sess.Reason()
	}
	for {
		var points int64
		if err := websocket.JSON.Receive(ws, &points); err != nil {
			return err
		}
		// Update fails when the session has ended meanwhile.
		err := sess.Update(ctx, func(p *Player) error { p.Score += points; return nil })
		if err != nil {
			return err
		}
		total.Add(points)
		if err := websocket.JSON.Send(ws, sess); err != nil {
			return err
		}
	}
}
