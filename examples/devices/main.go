// Command devices shows a user on which devices they are logged in, and lets them log out
// one of these devices or all others. Before the most sensitive action it asks for a
// recent login.
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
type Login struct{ Admin bool }
type session = echosession.Session[Login]

// device is what a user sees of a session.
type device struct {
	ID, Device, Actor        string // Actor is who is logged in as the user, if it is somebody else
	Created, LogIn, LastUsed time.Time
	Current                  bool
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
	cfg.MaxSessions = 3 // a login on a fourth device ends the oldest session; see Config.WhenFull
	sessions, err := echosession.New[Login](cfg)
	if err != nil {
		return nil, err
	}

	e := echo.New()
	e.Use(sessions.Middleware())
	// A real login checks a password first. A second login of the user on the same
	// device keeps the session's data, and the token from before is worth nothing.
	e.POST("/login", sessions.With(func(c echo.Context, sess *session) error {
		ctx := c.Request().Context()
		token, err := sess.Renew(ctx, func(*Login) error { return nil },
			echosession.WithSubject(c.FormValue("user")), echosession.WithDevice(c.Request().UserAgent()))
		if err != nil {
			return err
		}
		n, err := sessions.Count(ctx, sess.Subject())
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, map[string]any{"token": token, "devices": n})
	}))

	// Middleware on each route, not on a Group without a prefix: the group would
	// answer every unknown path of the service, with 401 instead of 404.
	private := sessions.Require()
	e.GET("/devices", sessions.With(func(c echo.Context, sess *session) error {
		devices := []device{}
		list, err := sessions.List(c.Request().Context(), sess.Subject())
		if err != nil {
			return err
		}
		for _, s := range list {
			devices = append(devices, device{
				s.ID(), s.Device(), s.Actor(), s.CreatedAt(), s.AuthenticatedAt(), s.LastUsedAt(), s.ID() == sess.ID(),
			})
		}
		return c.JSON(http.StatusOK, devices)
	}), private)
	// Revoke ends no session of another user, whatever the ID is.
	e.DELETE("/devices/:id", sessions.With(func(c echo.Context, sess *session) error {
		found, err := sessions.Revoke(c.Request().Context(), sess.Subject(), c.Param("id"))
		if err != nil {
			return err
		}
		if !found {
			return echo.ErrNotFound
		}
		return c.NoContent(http.StatusNoContent)
	}), private)
	e.POST("/logout-elsewhere", sessions.With(func(c echo.Context, sess *session) error {
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
	e.POST("/become-admin", sessions.With(func(c echo.Context, sess *session) error {
		// Someone else may know the old token, and must not become an admin with it:
		// Renew, not Rotate and Update.
		token, err := sess.Renew(c.Request().Context(), func(l *Login) error {
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
