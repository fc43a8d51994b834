package outage_test

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

// Account is the data of the sessions. Ops are the updates that it has seen, by number.
type Account struct {
	Owner string `json:"owner"`
	Count int    `json:"count"`
	Ops   []int  `json:"ops"`
}

// site is the server and what its clients have in common.
type site struct {
	t     *testing.T
	url   string
	http  *http.Client
	tally *tally
	made  int // clients
}

const (
	staleHeader = "X-Stale"   // "true" where the session was stale
	doubtHeader = "X-Perhaps" // "done" where the outcome of a write is unknown
	readHeader  = "X-Read"    // "true" where a write has read the session before
)

func newSite(t *testing.T, cfg echosession.Config) *site {
	t.Helper()
	cfg.Secret = []byte("0123456789abcdef0123456789abcdef")
	cfg.Logger = slog.New(slog.DiscardHandler)
	m, err := echosession.New[Account](cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	e := echo.New()
	e.Use(tellDoubts, m.Middleware())
	e.POST("/session", m.With(create))
	e.GET("/session", m.With(show), m.Require(echosession.ServeStale()))
	e.GET("/fresh", m.With(show), m.Require())
	e.PUT("/session", m.With(update), m.Require())
	e.DELETE("/session", m.With(destroy), m.Require())
	server := httptest.NewServer(e)
	t.Cleanup(server.Close)
	transport := &http.Transport{MaxIdleConnsPerHost: 1000}
	t.Cleanup(transport.CloseIdleConnections)
	return &site{t: t, url: server.URL, http: &http.Client{Transport: transport}, tally: newTally()}
}

// tellDoubts tells the client where the outcome of a write is unknown.
func tellDoubts(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		err := next(c)
		if errors.Is(err, echosession.ErrIndeterminate) {
			c.Response().Header().Set(doubtHeader, "done")
		}
		return err
	}
}

func create(c echo.Context, sess *echosession.Session[Account]) error {
	token, err := sess.Create(c.Request().Context(), Account{Owner: c.QueryParam("owner")}, echosession.WithSubject(c.QueryParam("owner")))
	if err != nil {
		return err
	}
	return c.String(http.StatusCreated, token)
}

func show(c echo.Context, sess *echosession.Session[Account]) error {
	c.Response().Header().Set(staleHeader, strconv.FormatBool(sess.Stale()))
	return c.JSON(http.StatusOK, sess)
}

func update(c echo.Context, sess *echosession.Session[Account]) error {
	op, err := strconv.Atoi(c.QueryParam("op"))
	if err != nil {
		return err
	}
	c.Response().Header().Set(readHeader, "true")
	err = sess.Update(c.Request().Context(), func(a *Account) error {
		a.Count++
		a.Ops = append(slices.Clip(a.Ops), op)
		return nil
	})
	if err != nil {
		return err
	}
	return show(c, sess)
}

func destroy(c echo.Context, sess *echosession.Session[Account]) error {
	if err := sess.Destroy(c.Request().Context()); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}
