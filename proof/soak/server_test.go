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
	route := func(method, path string, fn func(echo.Context, *echosession.Session[Account]) error, require ...echo.MiddlewareFunc) {
		e.Add(method, path, func(c echo.Context) error {
			sess, err := m.Get(c)
			if err != nil {
				return err
			}
			return fn(c, sess)
		}, require...)
	}
	route(http.MethodPost, "/session", create)
	route(http.MethodPost, "/guest", guest)
	route(http.MethodGet, "/session", show, m.Require())
	route(http.MethodPut, "/session", update, m.Require())
	route(http.MethodPatch, "/session", renew, m.Require())
	route(http.MethodDelete, "/session", destroy, m.Require())
	server := httptest.NewServer(e)
	t.Cleanup(server.Close)
	return server
}

func create(c echo.Context, sess *echosession.Session[Account]) error {
	token, err := sess.Create(c.Request().Context(), Account{Owner: c.QueryParam("owner"), Roles: []string{"user", "editor"}})
	if err != nil {
		return err
	}
	return c.String(http.StatusCreated, token)
}

func guest(c echo.Context, sess *echosession.Session[Account]) error {
	err := sess.UpdateOrCreate(c.Request().Context(), func(a *Account) error {
		a.Owner = c.QueryParam("owner")
		a.Count++
		return nil
	})
	if err != nil {
		return err
	}
	return c.String(http.StatusCreated, sess.Token())
}

func show(c echo.Context, sess *echosession.Session[Account]) error {
	return c.JSON(http.StatusOK, sess)
}

func countUp(a *Account) error {
	a.Count++
	return nil
}

func update(c echo.Context, sess *echosession.Session[Account]) error {
	if err := sess.Update(c.Request().Context(), countUp); err != nil {
		return err
	}
	return show(c, sess)
}

func renew(c echo.Context, sess *echosession.Session[Account]) error {
	token, err := sess.Renew(c.Request().Context(), countUp, echosession.WithSubject(sess.Data().Owner))
	if err != nil {
		return err
	}
	return c.String(http.StatusOK, token)
}

func destroy(c echo.Context, sess *echosession.Session[Account]) error {
	if err := sess.Destroy(c.Request().Context()); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}
