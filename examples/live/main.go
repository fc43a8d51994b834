// Command live keeps connections open: server-sent events and a WebSocket, which end when
// the session ends, in whichever process that was. It has its own module, because it needs
// a WebSocket library:
//
//	go -C examples/live run .
//
// Open http://127.0.0.1:8080 in two windows, log in, and log out in one of them.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
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

//go:embed page.html
var page string

func main() {
	secret := make([]byte, 32)
	rand.Read(secret)
	g, err := newGame(echosession.Config{Store: echosession.NewMemoryStore(), Secret: secret}, time.Second)
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	go func() {
		if err := g.Start("127.0.0.1:8080"); !errors.Is(err, http.ErrServerClosed) {
			log.Fatal(err)
		}
	}()
	<-ctx.Done()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := g.stop(ctx); err != nil {
		log.Fatal(err)
	}
}

// A game is a server with players who play by WebSocket, and with listeners to the points of
// all of them.
type game struct {
	*echo.Echo
	sessions *echosession.Manager[Player]
	interval time.Duration // between two events
	total    atomic.Int64
	sockets  sync.WaitGroup
}

// newGame returns a game that sends its listeners the points of all players at every
// interval.
func newGame(cfg echosession.Config, interval time.Duration) (*game, error) {
	cfg.TokenLookup = "bearer,ticket:ticket"
	sessions, err := echosession.New[Player](cfg)
	if err != nil {
		return nil, err
	}
	g := &game{Echo: echo.New(), sessions: sessions, interval: interval}
	g.Use(sessions.Middleware())
	g.GET("/", func(c echo.Context) error { return c.HTML(http.StatusOK, page) })
	g.POST("/login", sessions.With(login))
	g.POST("/logout", sessions.With(logout))
	g.POST("/ticket", sessions.With(ticket), sessions.Require())
	g.GET("/events", sessions.With(g.events), sessions.Require())
	g.GET("/play", g.play)
	return g, nil
}

// stop ends the streams and the WebSockets, and then the server: Shutdown would wait for a
// stream that goes on, and does not wait for WebSockets.
func (g *game) stop(ctx context.Context) error {
	g.sessions.Close()
	err := g.Shutdown(ctx)
	g.sockets.Wait()
	return err
}

func login(c echo.Context, sess *session) error {
	token, err := sess.Create(c.Request().Context(), Player{Name: c.FormValue("name")})
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, map[string]string{"token": token})
}

func logout(c echo.Context, sess *session) error {
	if err := sess.Destroy(c.Request().Context()); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

// ticket makes what the page puts into the URL of its EventSource, which cannot set headers.
// The token itself would stay in logs.
func ticket(c echo.Context, sess *session) error {
	ticket, err := sess.Ticket(c.Request().Context(), "/events")
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, map[string]string{"ticket": ticket})
}

// events is a stream of server-sent events. It restarts no timeout: a page that nobody looks
// at keeps no session alive.
func (g *game) events(c echo.Context, sess *session) error {
	ctx, stop := sess.Watch(c.Request().Context())
	defer stop()
	w := c.Response()
	w.Header().Set("Content-Type", "text/event-stream")
	ticker := time.NewTicker(g.interval)
	defer ticker.Stop()
	for {
		if _, err := fmt.Fprintf(w, "data: %d\n\n", g.total.Load()); err != nil {
			return err
		}
		w.Flush()
		select {
		case <-ctx.Done():
			if sessionEnded(ctx) {
				// Why it ended is nobody else's business.
				fmt.Fprint(w, "event: ended\ndata:\n\n")
			}
			return nil // after ErrClosed the page connects again, perhaps to another process
		case <-ticker.C:
		}
	}
}

// sessionEnded reports whether a watch ended with its session. Otherwise the client is gone
// or the server stops.
func sessionEnded(ctx context.Context) bool {
	cause := context.Cause(ctx)
	return errors.Is(cause, echosession.ErrSessionGone) || errors.Is(cause, echosession.ErrRenewed)
}

// Status codes of WebSockets, RFC 6455 section 7.4.1.
const (
	goingAway       = 1001
	policyViolation = 1008
)

// play is a WebSocket whose first message is the token: so it is in no URL and in no log. And
// the page of another site cannot send it, because it does not know the token.
func (g *game) play(c echo.Context) error {
	g.sockets.Add(1)
	defer g.sockets.Done()
	server := websocket.Server{Handler: func(ws *websocket.Conn) {
		// Do not send the error itself: it may say more than a client should know.
		switch err := g.serve(ws); {
		case errors.Is(err, echosession.ErrSessionGone), errors.Is(err, echosession.ErrRenewed):
			_ = ws.WriteClose(policyViolation)
		case errors.Is(err, echosession.ErrClosed):
			_ = ws.WriteClose(goingAway)
		case errors.Is(err, echosession.ErrStoreUnavailable):
			_ = send(ws, map[string]string{"error": "try again later"})
		default:
			_ = send(ws, map[string]string{"error": "log in again"})
		}
	}}
	server.ServeHTTP(c.Response(), c.Request())
	return nil
}

// serve counts the points of one player, until the session ends.
func (g *game) serve(ws *websocket.Conn) error {
	ws.MaxPayloadBytes = 16 << 10
	var token string
	if err := websocket.Message.Receive(ws, &token); err != nil {
		return err
	}
	sess, err := g.sessions.Open(ws.Request().Context(), token)
	if err != nil {
		return err
	}
	if !sess.Exists() {
		return sess.Reason()
	}
	ctx, stop := sess.Watch(ws.Request().Context())
	defer stop()
	defer context.AfterFunc(ctx, func() { ws.SetReadDeadline(time.Unix(1, 0)) })() // Receive returns
	for {
		var points int64
		if err := websocket.JSON.Receive(ws, &points); err != nil {
			return cmp.Or(context.Cause(ctx), err)
		}
		err := sess.Update(ctx, func(p *Player) error { p.Score += points; return nil })
		if err != nil {
			return cmp.Or(context.Cause(ctx), err)
		}
		g.total.Add(points)
		if err := send(ws, sess); err != nil {
			return err
		}
	}
}

// send does not wait for a client that does not read.
func send(ws *websocket.Conn, v any) error {
	if err := ws.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	return websocket.JSON.Send(ws, v)
}
