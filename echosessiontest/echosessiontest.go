// Package echosessiontest helps to test handlers that use sessions. Make a
// [Harness], give a request a session with [Harness.Authorize], and hand the
// request to your server with [Harness.Serve]. That works with every framework.
//
// For handlers of Echo v4 there is a shorter way: hand the request to
// [Harness.Run] or, with [Harness.NewContext], to a handler itself.
package echosessiontest

import (
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

// A Harness holds sessions in memory, with a clock that only the test moves and a
// store that fails when it is told to. Make one with [New].
type Harness[T any] struct {
	// Manager makes and opens the sessions. Hand it, or its Middleware, to what is
	// tested.
	Manager *echosession.Manager[T]

	// Clock is the time of the Manager and of the store.
	Clock *Clock

	// Store is the store of the Manager.
	Store *FaultStore

	tb testing.TB
}

// New returns a Harness. The opts change the Config of its Manager, but not its
// Store and its Now. A Secret is set unless they set one or Keys. A Config that
// [echosession.New] refuses ends the test.
func New[T any](tb testing.TB, opts ...func(*echosession.Config)) *Harness[T] {
	tb.Helper()
	clock := &Clock{now: time.Now()}
	store := NewFaultStore(echosession.NewMemoryStore(echosession.WithClock(clock.Now)))
	var cfg echosession.Config
	for _, opt := range opts {
		opt(&cfg)
	}
	if cfg.Store != nil || cfg.Client != nil || cfg.Now != nil {
		tb.Fatal("echosessiontest: the harness brings its own Store and Now")
	}
	cfg.Store, cfg.Now = store, clock.Now
	if cfg.Secret == nil && cfg.Keys == nil {
		cfg.Secret = make([]byte, 64) // enough for every algorithm
		rand.Read(cfg.Secret)
	}
	m, err := echosession.New[T](cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return &Harness[T]{Manager: m, Clock: clock, Store: store, tb: tb}
}

// Authorize creates a session and puts its token into r, as Authorization: Bearer.
// Where the Config has that looked for elsewhere, put [echosession.Session.Token]
// there. A failure ends the test.
//
// The session that it returns shows later changes after a
// [echosession.Session.Reload].
func (h *Harness[T]) Authorize(r *http.Request, data T, opts ...echosession.CreateOption) *echosession.Session[T] {
	h.tb.Helper()
	sess, err := h.Manager.Create(r.Context(), data, opts...)
	if err != nil {
		h.tb.Fatal(err)
	}
	r.Header.Set(echo.HeaderAuthorization, "Bearer "+sess.Token())
	return sess
}

// NewContext returns a context in which [echosession.Get] finds the session of r,
// and the recorder of its answer. The session stays usable until the test ends.
//
// What a handler that is called with it returns is its own error: it gets its HTTP
// form in [Harness.Run].
func (h *Harness[T]) NewContext(r *http.Request) (echo.Context, *httptest.ResponseRecorder) {
	rec := httptest.NewRecorder()
	c := echo.New().NewContext(r, rec)
	b := h.Manager.Bind(exchange{c})
	h.tb.Cleanup(b.Release)
	c.Set(h.Manager.RequestKey(), b)
	return c, rec
}

// exchange shows an Echo context as an Exchange.
type exchange struct{ c echo.Context }

func (x exchange) Request() *http.Request   { return x.c.Request() }
func (x exchange) Header() http.Header      { return x.c.Response().Header() }
func (x exchange) Committed() bool          { return x.c.Response().Committed }
func (x exchange) BeforeHeader(f func())    { x.c.Response().Before(f) }
func (x exchange) Param(name string) string { return x.c.Param(name) }

// Run answers r with handler behind the Manager's middleware and then those given,
// as a server does: errors have their HTTP form.
func (h *Harness[T]) Run(handler echo.HandlerFunc, r *http.Request, middleware ...echo.MiddlewareFunc) *httptest.ResponseRecorder {
	e := echo.New()
	e.Use(h.Manager.Middleware())
	e.Use(middleware...)
	e.Any("/*", handler)
	return h.Serve(e, r)
}

// Serve answers r with handler: a server of any framework, whose middleware for the
// Manager is already installed.
func (h *Harness[T]) Serve(handler http.Handler, r *http.Request) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	handler.ServeHTTP(rec, r)
	return rec
}

// A Clock stands still until it is advanced. It begins at the time of [New]. It is
// safe for concurrent use.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// Now returns the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the time on by d.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}
