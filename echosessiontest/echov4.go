package echosessiontest

import (
	"net/http"
	"net/http/httptest"

	"github.com/labstack/echo/v4"
)

// NewContext returns a context of Echo v4 in which [echosession.Get] finds the session
// of r, and the recorder of its answer. The session stays usable until the test ends.
//
// What a handler that is called with it returns is its own error: it gets its HTTP
// form in [Harness.Run].
func (h *Harness[T]) NewContext(r *http.Request) (echo.Context, *httptest.ResponseRecorder) {
	rec := httptest.NewRecorder()
	c := echo.New().NewContext(r, rec)
	b := h.Manager.Bind(echoExchange{c})
	h.tb.Cleanup(b.Release)
	c.Set(h.Manager.RequestKey(), b)
	return c, rec
}

// Run answers r with a handler of Echo v4 behind the Manager's middleware and then
// those given, as a server does: errors have their HTTP form.
func (h *Harness[T]) Run(handler echo.HandlerFunc, r *http.Request, middleware ...echo.MiddlewareFunc) *httptest.ResponseRecorder {
	e := echo.New()
	e.Use(h.Manager.Middleware())
	e.Use(middleware...)
	e.Any("/*", handler)
	return h.Serve(e, r)
}

// echoExchange shows an Echo context as an Exchange.
type echoExchange struct{ c echo.Context }

func (x echoExchange) Request() *http.Request   { return x.c.Request() }
func (x echoExchange) Header() http.Header      { return x.c.Response().Header() }
func (x echoExchange) Committed() bool          { return x.c.Response().Committed }
func (x echoExchange) BeforeHeader(f func())    { x.c.Response().Before(f) }
func (x echoExchange) Param(name string) string { return x.c.Param(name) }
