package soak_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

// Account is the data of the sessions. Each says whose it is, so that an answer
// that belongs to someone else shows.
type Account struct {
	Owner string   `json:"owner"`
	Count int      `json:"count"`
	Roles []string `json:"roles"`
}

// newServer starts an Echo server whose sessions end when they are not used for
// maxAge.
func newServer(t *testing.T, client echosession.RedisClient, maxAge time.Duration) *httptest.Server {
	t.Helper()
	m, err := echosession.New[Account](echosession.Config{Client: client, Secret: secret, MaxAge: maxAge})
	if err != nil {
		t.Fatal(err)
	}
	e := echo.New()
	e.Use(m.Middleware())
	e.POST("/session", func(c echo.Context) error {
		sess, err := m.Get(c)
		if err != nil {
			return err
		}
		token, err := sess.Create(c.Request().Context(), Account{Owner: c.QueryParam("owner"), Roles: []string{"user", "editor"}})
		if err != nil {
			return err
		}
		return c.String(http.StatusCreated, token)
	})
	e.GET("/session", func(c echo.Context) error {
		sess, err := m.Get(c)
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, sess)
	}, m.Require())
	e.PUT("/session", func(c echo.Context) error {
		sess, err := m.Get(c)
		if err != nil {
			return err
		}
		err = sess.Update(c.Request().Context(), func(a *Account) error {
			a.Count++
			return nil
		})
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, sess)
	}, m.Require())
	e.POST("/guest", func(c echo.Context) error {
		sess, err := m.Get(c)
		if err != nil {
			return err
		}
		err = sess.UpdateOrCreate(c.Request().Context(), func(a *Account) error {
			a.Owner = c.QueryParam("owner")
			a.Count++
			return nil
		})
		if err != nil {
			return err
		}
		return c.String(http.StatusCreated, sess.Token())
	})
	e.PATCH("/session", func(c echo.Context) error {
		sess, err := m.Get(c)
		if err != nil {
			return err
		}
		token, err := sess.Renew(c.Request().Context(), func(a *Account) error {
			a.Count++
			return nil
		}, echosession.WithSubject(sess.Data().Owner))
		if err != nil {
			return err
		}
		return c.String(http.StatusOK, token)
	}, m.Require())
	e.DELETE("/session", func(c echo.Context) error {
		sess, err := m.Get(c)
		if err != nil {
			return err
		}
		if err := sess.Destroy(c.Request().Context()); err != nil {
			return err
		}
		return c.NoContent(http.StatusNoContent)
	}, m.Require())
	server := httptest.NewServer(e)
	t.Cleanup(server.Close)
	return server
}
