// Package echov5 gives handlers of Echo v5 the sessions of an echosession.Manager.
package echov5

import (
	"errors"
	"net/http"

	"github.com/labstack/echo/v5"

	"github.com/echosession/echosession"
)

// Middleware installs a session in each request for [Get] to find.
func Middleware[T any](m *echosession.Manager[T], requestKey ...string) echo.MiddlewareFunc {
	key := keyOf(requestKey)
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c *echo.Context) error {
			b := m.Bind(exchange{c})
			c.Set(key, b)
			defer b.Release()
			return answer(m, c, next(c))
		}
	}
}

// Get returns the session of a request.
func Get[T any](c *echo.Context, requestKey ...string) (*echosession.Session[T], error) {
	key := keyOf(requestKey)
	return echosession.Find[T](c.Get(key), key)
}

// Require is middleware for routes that need a live session.
func Require[T any](opts ...echosession.RequireOption) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c *echo.Context) error {
			sess, err := Get[T](c)
			if err == nil {
				err = sess.Meets(opts...)
			}
			if err != nil {
				return err
			}
			return next(c)
		}
	}
}

func keyOf(requestKey []string) string {
	if len(requestKey) > 0 {
		return requestKey[0]
	}
	return "session"
}

// exchange shows an Echo context as an Exchange.
type exchange struct{ c *echo.Context }

func (x exchange) Request() *http.Request   { return x.c.Request() }
func (x exchange) Header() http.Header      { return x.c.Response().Header() }
func (x exchange) Param(name string) string { return x.c.Param(name) }

func (x exchange) Committed() bool {
	r, err := echo.UnwrapResponse(x.c.Response())
	return err == nil && r.Committed
}

func answer[T any](m *echosession.Manager[T], c *echo.Context, err error) error {
	var has interface{ StatusCode() int }
	if err == nil || errors.As(err, &has) || (exchange{c}).Committed() {
		return err
	}
	a, ours := m.Answer(err)
	if !ours {
		return err
	}
	for name, values := range a.Header {
		for _, value := range values {
			c.Response().Header().Add(name, value)
		}
	}
	return echo.NewHTTPError(a.Status, a.Message).Wrap(err)
}
