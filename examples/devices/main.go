// Command devices shows a user on which devices they are logged in, and lets them
// log out all other devices. Before the most sensitive action it asks for a recent
// login.
package main

import (
	"crypto/rand"
	"log"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

// Login is what a session holds.
type Login struct {
	Device string
	Admin  bool
}

func main() {
	secret := make([]byte, 32)
	rand.Read(secret)
	e, err := newService(echosession.Config{Store: echosession.NewMemoryStore(), Secret: secret})
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(e.Start("127.0.0.1:8080"))
}

func newService(cfg echosession.Config) (*echo.Echo, error) {
	cfg.SubjectIndex = true
	cfg.MaxSessions = 3 // a login on a fourth device ends the oldest session
	sessions, err := echosession.New[Login](cfg)
	if err != nil {
		return nil, err
	}
	// handler gets the session of a request and hands it to h.
	handler := func(h func(echo.Context, *echosession.Session[Login]) error) echo.HandlerFunc {
		return func(c echo.Context) error {
			sess, err := sessions.Get(c)
			if err != nil {
				return err
			}
			return h(c, sess)
		}
	}

	e := echo.New()
	e.Use(sessions.Middleware())
	// A real login checks a password first.
	e.POST("/login", handler(func(c echo.Context, sess *echosession.Session[Login]) error {
		token, err := sess.Create(c.Request().Context(), Login{Device: c.Request().UserAgent()},
			echosession.WithSubject(c.FormValue("user")))
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, map[string]string{"token": token})
	}))

	// Middleware on each route, not on a Group without a prefix: the group would
	// answer every unknown path of the service, with 401 instead of 404.
	private := sessions.Require()
	e.GET("/devices", handler(func(c echo.Context, sess *echosession.Session[Login]) error {
		type device struct {
			ID      string
			Device  string
			Since   time.Time
			Current bool
		}
		devices := []device{}
		list, err := sessions.List(c.Request().Context(), sess.Subject())
		if err != nil {
			return err
		}
		for _, s := range list {
			devices = append(devices, device{s.ID(), s.Data().Device, s.CreatedAt(), s.ID() == sess.ID()})
		}
		return c.JSON(http.StatusOK, devices)
	}), private)
	e.POST("/logout-elsewhere", handler(func(c echo.Context, sess *echosession.Session[Login]) error {
		n, err := sessions.RevokeSubject(c.Request().Context(), sess.Subject(), sess.ID())
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, map[string]int{"ended": n})
	}), private)

	// These routes require a login within the last five minutes. Any other request
	// is answered with 401 and error="insufficient_user_authentication": the client
	// then asks the user to log in again.
	recent := sessions.Require(echosession.Fresh(5 * time.Minute))
	e.POST("/become-admin", handler(func(c echo.Context, sess *echosession.Session[Login]) error {
		// Someone else may know the old token, and must not become an admin with it.
		// After Rotate the old token ends when Config.RotateGrace is over.
		token, err := sess.Rotate(c.Request().Context())
		if err != nil {
			return err
		}
		err = sess.Update(c.Request().Context(), func(l *Login) error {
			l.Admin = true
			return nil
		})
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, map[string]string{"token": token})
	}), recent)
	return e, nil
}
