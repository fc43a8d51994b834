package echov5_test

import (
	"log/slog"
	"net/http"
	"testing"

	"github.com/labstack/echo/v5"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/echosessiontest/adaptertest"
	"github.com/echosession/echosession/echov5"
)

func newEcho(cfg echo.Config) *echo.Echo {
	cfg.Logger = slog.New(slog.DiscardHandler)
	return echo.NewWithConfig(cfg)
}

func TestAdapter(t *testing.T) {
	adaptertest.Run(t, adaptertest.Adapter[*echo.Context, echo.MiddlewareFunc]{
		Serve: func(handler func(*echo.Context) error, middleware ...echo.MiddlewareFunc) http.Handler {
			e := newEcho(echo.Config{})
			e.Use(middleware...)
			e.Any("/:token", handler)
			return e
		},
		Around: func(around func(http.ResponseWriter, *http.Request, func(*http.Request) error) error) echo.MiddlewareFunc {
			return func(next echo.HandlerFunc) echo.HandlerFunc {
				return func(c *echo.Context) error {
					return around(c.Response(), c.Request(), func(r *http.Request) error {
						c.SetRequest(r)
						return next(c)
					})
				}
			}
		},
		Request: (*echo.Context).Request,
		Writer:  (*echo.Context).Response,
		Users:   sessionsOf[adaptertest.User](),
		Staff:   sessionsOf[adaptertest.Staff](),

		BlindToFlush: true,
		NoEarlyHints: true,
	})
}

func sessionsOf[T any]() adaptertest.Sessions[T, *echo.Context, echo.MiddlewareFunc] {
	return adaptertest.Sessions[T, *echo.Context, echo.MiddlewareFunc]{
		Middleware: func(m *echosession.Manager[T]) echo.MiddlewareFunc { return echov5.Install(m) },
		Require: func(m *echosession.Manager[T], opts ...echosession.RequireOption) echo.MiddlewareFunc {
			return echov5.Require[T](append([]echosession.RequireOption{echosession.RequestKey(m.RequestKey()), m.Only()}, opts...)...)
		},
		Get: echov5.Get[T],
		With: func(m *echosession.Manager[T], h func(*echo.Context, *echosession.Session[T]) error) func(*echo.Context) error {
			return echov5.With(h, m.RequestKey())
		},
		Configured: func(cfg echosession.Config, o adaptertest.Options) (*echosession.Manager[T], echo.MiddlewareFunc, error) {
			m, err := echosession.New[T](cfg)
			if err != nil {
				return nil, nil, err
			}
			if o.Skip != nil {
				return m, echov5.Install(m, echov5.WithSkipper(func(c *echo.Context) bool { return o.Skip(c.Request()) })), nil
			}
			return m, echov5.Install(m, echov5.WithErrorHandler(func(c *echo.Context, err error) error {
				o.OnError(c.Response(), c.Request(), err)
				return nil
			})), nil
		},
	}
}
