package echosession_test

import (
	"io"
	"net/http"
	"slices"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/echosessiontest/adaptertest"
)

func TestAdapter(t *testing.T) {
	adaptertest.Run(t, adaptertest.Adapter[echo.Context, echo.MiddlewareFunc]{
		Serve: func(handler func(echo.Context) error, middleware ...echo.MiddlewareFunc) http.Handler {
			e := echo.New()
			e.Logger.SetOutput(io.Discard)
			e.Use(middleware...)
			e.Any("/:token", handler)
			e.Add("PROPFIND", "/:token", handler)
			return e
		},
		Around: func(around func(http.ResponseWriter, *http.Request, func(*http.Request) error) error) echo.MiddlewareFunc {
			return func(next echo.HandlerFunc) echo.HandlerFunc {
				return func(c echo.Context) error {
					return around(c.Response(), c.Request(), func(r *http.Request) error {
						c.SetRequest(r)
						return next(c)
					})
				}
			}
		},
		Request: echo.Context.Request,
		Writer:  func(c echo.Context) http.ResponseWriter { return c.Response() },
		Users:   adapterSessions[adaptertest.User](),
		Staff:   adapterSessions[adaptertest.Staff](),

		BlindToFlush: true,
		NoEarlyHints: true,
	})
}

func adapterSessions[T any]() adaptertest.Sessions[T, echo.Context, echo.MiddlewareFunc] {
	return adaptertest.Sessions[T, echo.Context, echo.MiddlewareFunc]{
		Middleware: (*echosession.Manager[T]).Middleware,
		Require:    (*echosession.Manager[T]).Require,
		Get:        echosession.Get[T],
		Configured: func(cfg echosession.Config, o adaptertest.Options) (*echosession.Manager[T], echo.MiddlewareFunc, error) {
			if o.Skip != nil {
				cfg.Skipper = func(c echo.Context) bool { return o.Skip(c.Request()) }
			}
			if o.OnError != nil {
				cfg.ErrorHandler = func(c echo.Context, err error) error {
					o.OnError(c.Response(), c.Request(), err)
					return nil
				}
			}
			m, err := echosession.New[T](cfg)
			if err != nil {
				return nil, nil, err
			}
			return m, m.Middleware(), nil
		},
	}
}

// TestExampleAdapter checks the adapter that authors of others copy.
func TestExampleAdapter(t *testing.T) {
	adaptertest.Run(t, adaptertest.Adapter[*Context, Middleware]{
		Serve: func(handler func(*Context) error, middleware ...Middleware) http.Handler {
			h := Handler(handler)
			for _, m := range slices.Backward(middleware) {
				h = m(h)
			}
			mux := http.NewServeMux()
			mux.Handle("/{token}", h)
			return mux
		},
		Around: func(around func(http.ResponseWriter, *http.Request, func(*http.Request) error) error) Middleware {
			return func(next Handler) Handler {
				return func(c *Context) error {
					return around(controlled{c.Writer}, c.Request, func(r *http.Request) error {
						c.Request = r
						return next(c)
					})
				}
			}
		},
		Request: func(c *Context) *http.Request { return c.Request },
		Writer:  func(c *Context) http.ResponseWriter { return controlled{c.Writer} },
		Users:   exampleSessions[adaptertest.User](),
		Staff:   exampleSessions[adaptertest.Staff](),

		BlindToFlush: true,
	})
}

func exampleSessions[T any]() adaptertest.Sessions[T, *Context, Middleware] {
	return adaptertest.Sessions[T, *Context, Middleware]{
		Middleware: Install[T],
		Require: func(m *echosession.Manager[T], opts ...echosession.RequireOption) Middleware {
			return Require[T](append([]echosession.RequireOption{echosession.RequestKey(m.RequestKey()), m.Only()}, opts...)...)
		},
		Get: Get[T],
	}
}

// controlled is the example's Writer for a ResponseController.
type controlled struct{ *Writer }

func (w controlled) Unwrap() http.ResponseWriter { return w.ResponseWriter }
