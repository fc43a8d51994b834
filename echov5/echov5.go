// Package echov5 gives handlers of [Echo v5] the typed sessions of package
// echosession. One line in main and one line in a handler, as for Echo v4:
//
//	e.Use(echov5.Middleware[User](echosession.Config{Client: rdb, Secret: secret}))
//
//	sess, err := echov5.Get[User](c)
//
// [With] hands a handler its session. Everything else is in package [echosession]: the
// Config, the Manager and what a Session can do.
//
// A program that uses this package has Echo v4 as an indirect requirement, because
// the two lines of package echosession itself are for Echo v4. Echo v4 takes some
// 1,500 kB of its binary: 19.1 MB instead of 17.6 MB in a program with one handler,
// on linux/amd64, linked with -s -w.
//
// [Echo v5]: https://echo.labstack.com
package echov5

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/labstack/echo/v5"
	"github.com/labstack/echo/v5/middleware"

	"github.com/echosession/echosession"
)

// An Option is an option of [Middleware] and [Install].
type Option func(*options)

type options struct {
	skipper      middleware.Skipper
	errorHandler func(c *echo.Context, err error) error
}

// WithSkipper leaves out requests for which skip returns true: no session is
// installed, and [Get] returns [echosession.ErrNotInstalled]. It takes the place of
// [echosession.Config.Skipper], which is Echo v4's. Default: no request is left out.
func WithSkipper(skip middleware.Skipper) Option {
	return func(o *options) { o.skipper = skip }
}

// WithErrorHandler answers a request whose handler returned an error of package
// echosession. What handle returns goes on to Echo's HTTPErrorHandler. It takes the
// place of [echosession.Config.ErrorHandler], which is Echo v4's. Default: the error
// becomes an *echo.HTTPError with the status and header of
// [echosession.Manager.Answer].
func WithErrorHandler(handle func(c *echo.Context, err error) error) Option {
	return func(o *options) { o.errorHandler = handle }
}

// Middleware is [echosession.New] and [Install] in one line, for main. It panics on
// an invalid cfg, with the error of New, and on a cfg that sets Skipper or
// ErrorHandler.
func Middleware[T any](cfg echosession.Config, opts ...Option) echo.MiddlewareFunc {
	m, err := echosession.New[T](cfg)
	if err != nil {
		panic(err)
	}
	return Install(m, opts...)
}

// Install is middleware that installs a session of m in each request for [Get] to
// find. It does no I/O and rejects no request: the first Get reads the session, so a
// route that never asks for its session pays nothing for it. Installing the same
// Manager twice on a route does nothing more.
//
// It also gives the errors of package echosession that handlers return their HTTP
// form, see [WithErrorHandler].
//
// It panics on a Manager whose Config sets Skipper or ErrorHandler: they are Echo
// v4's, and would have no effect here.
func Install[T any](m *echosession.Manager[T], opts ...Option) echo.MiddlewareFunc {
	if fields := m.EchoV4Fields(); len(fields) > 0 {
		panic(fmt.Sprintf("echov5: Echo v4 alone honours Config.%s; use echov5.WithSkipper and echov5.WithErrorHandler",
			strings.Join(fields, " and Config.")))
	}
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	key := m.RequestKey()
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c *echo.Context) error {
			if o.skipper != nil && o.skipper(c) {
				return next(c)
			}
			x := exchangeOf(c)
			installed, err := m.Installed(c.Get(key))
			switch {
			case err != nil:
				return answer(m, x, err, o.errorHandler)
			case installed:
				return next(c)
			}
			b := m.Bind(x)
			c.Set(key, b)
			defer b.Release()
			return answer(m, x, next(c), o.errorHandler)
		}
	}
}

// Get returns the session of a request, as [echosession.Get] does on Echo v4. A
// requestKey names one of several instances, see [echosession.Config.RequestKey].
//
// It returns [echosession.ErrStoreUnavailable], [echosession.ErrNotInstalled] or
// [echosession.ErrTypeMismatch].
func Get[T any](c *echo.Context, requestKey ...string) (*echosession.Session[T], error) {
	key := echosession.RequestKeyOf()
	if len(requestKey) > 0 {
		key = requestKey[0]
	}
	return echosession.Find[T](c.Get(key), key)
}

// With makes a handler of a function that needs the session: it calls [Get], and returns
// its error where there is one. The session need not be live: put [Require] before routes
// where it must be. A requestKey names one of several instances.
//
//	e.GET("/me", echov5.With(func(c *echo.Context, sess *echosession.Session[User]) error {
//		return c.JSON(http.StatusOK, sess)
//	}), echov5.Require[User]())
func With[T any](h func(c *echo.Context, sess *echosession.Session[T]) error, requestKey ...string) echo.HandlerFunc {
	return func(c *echo.Context) error {
		sess, err := Get[T](c, requestKey...)
		if err != nil {
			return err
		}
		return h(c, sess)
	}
}

// Require is middleware for groups and routes that need a live session, as
// [echosession.Require] is on Echo v4. It goes behind [Middleware]. With
// [echosession.Manager.Only] it takes the sessions of one Manager alone.
func Require[T any](opts ...echosession.RequireOption) echo.MiddlewareFunc {
	key := echosession.RequestKeyOf(opts...)
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c *echo.Context) error {
			sess, err := echosession.Find[T](c.Get(key), key, opts...)
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

// exchange shows an Echo context as an Exchange.
type exchange struct {
	c *echo.Context

	// installed is the response of the time when the middleware ran. It speaks for
	// a writer that has taken its place and has no Unwrap.
	installed *echo.Response
}

func exchangeOf(c *echo.Context) exchange {
	r, _ := echo.UnwrapResponse(c.Response())
	return exchange{c, r}
}

func (x exchange) Request() *http.Request   { return x.c.Request() }
func (x exchange) Header() http.Header      { return x.c.Response().Header() }
func (x exchange) Param(name string) string { return x.c.Param(name) }

func (x exchange) Committed() bool {
	r := x.response()
	return r != nil && r.Committed
}

func (x exchange) BeforeHeader(f func()) {
	if r := x.response(); r != nil {
		r.Before(f)
	}
}

// response returns the Response behind the writer of the answer, or nil.
func (x exchange) response() *echo.Response {
	if r, err := echo.UnwrapResponse(x.c.Response()); err == nil {
		return r
	}
	return x.installed
}

// answer gives an error of package echosession its HTTP form. An error that has a
// form already, because a handler or another instance gave it one, keeps it.
func answer[T any](m *echosession.Manager[T], x exchange, err error, handle func(*echo.Context, error) error) error {
	if err == nil {
		return nil
	}
	var formed echo.HTTPStatusCoder
	if errors.As(err, &formed) {
		return err
	}
	a, ours := m.Answer(err)
	if !ours || x.Committed() {
		return err
	}
	if handle != nil {
		return handle(x.c, err)
	}
	a.AddTo(x.Header())
	return echo.NewHTTPError(a.Status, a.Message).Wrap(err)
}
