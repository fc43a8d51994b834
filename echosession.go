// Package echosession gives [Echo] handlers typed sessions that live in Redis.
//
// The client holds a signed JSON Web Token. Its jti is a UUID that names a Redis
// key, and that key holds a struct of yours, in MessagePack. One line in main and
// one line in a handler:
//
//	e.Use(echosession.Middleware[User](echosession.Config{Client: rdb, Secret: secret}))
//
//	sess, err := echosession.Get[User](c)
//
// [Get] returns a [Session], a handle that always exists. [Session.Exists] tells
// whether a live session stands behind it: one whose token is valid and whose
// record is in the store. Put [Require] before routes that need one.
//
// [Session.Data] returns a copy of the struct, and [Session.Update] is the only
// way to change what is stored. It is atomic: of two requests that update one
// session at the same time neither loses its change.
//
// A session ends when it has not been used for [Config.MaxAge], at the time that
// its token's exp claim says, or at once with [Session.Destroy] and
// [Manager.RevokeSubject].
//
// A store that cannot answer is an error ([ErrStoreUnavailable], answered with
// 503) and never taken for a missing session.
//
// [Echo]: https://echo.labstack.com
package echosession

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
)

// Middleware is [New] and [Manager.Middleware] in one line, for main. It panics
// on an invalid cfg, with the error of New.
func Middleware[T any](cfg Config) echo.MiddlewareFunc {
	m, err := New[T](cfg)
	if err != nil {
		panic(err)
	}
	return m.Middleware()
}

// Middleware installs a session in each request for [Get] to find. It looks at
// nothing, talks to no store and rejects no request: the first Get does that, so
// a route that never asks for its session pays nothing for it.
//
// It also gives the errors of this package that handlers return their HTTP form,
// see [Config.ErrorHandler].
func (m *Manager[T]) Middleware() echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if skip := m.cfg.Skipper; skip != nil && skip(c) {
				return next(c)
			}
			b := m.Bind(exchange{c})
			c.Set(m.cfg.RequestKey, b)
			defer b.Release()
			return m.answer(c, next(c))
		}
	}
}

// Get returns the session of a request.
//
// That there is none is not an error: then [Session.Exists] is false and
// [Session.Reason] says why. An error means that the question could not be
// answered ([ErrStoreUnavailable]) or not be asked ([ErrNotInstalled],
// [ErrTypeMismatch]); a handler returns it as it is.
//
// The first Get of a request reads the session from the store, the others return
// the same handle. A requestKey names one of several instances, see
// [Config.RequestKey].
func Get[T any](c echo.Context, requestKey ...string) (*Session[T], error) {
	key := defaultRequestKey
	if len(requestKey) > 0 {
		key = requestKey[0]
	}
	return Find[T](c.Get(key), key)
}

// Get is the function [Get] for the sessions of this Manager.
func (m *Manager[T]) Get(c echo.Context) (*Session[T], error) {
	return Get[T](c, m.cfg.RequestKey)
}

// A RequireOption is an option of [Require] and [Manager.Require].
type RequireOption func(*requirement)

type requirement struct {
	requestKey string
	fresh      time.Duration
}

// Fresh demands a login that is at most so long ago, for what wants a password
// again: see [Session.CreatedAt], which [Session.Rotate] leaves as it is. Others
// get [ErrNotFresh], answered with 401 and the challenge of RFC 9470. It panics
// if maxAge is under a second.
func Fresh(maxAge time.Duration) RequireOption {
	if maxAge < time.Second {
		panic(fmt.Sprintf("echosession: Fresh(%v): at least a second", maxAge))
	}
	return func(r *requirement) { r.fresh = maxAge }
}

// RequestKey makes [Require] look for the instance with this
// [Config.RequestKey].
func RequestKey(key string) RequireOption {
	return func(r *requirement) { r.requestKey = key }
}

// Require is middleware for groups and routes that need a live session of the
// instance with the default [Config.RequestKey]. A request without one does not
// reach the handler: it is answered with 401, or as its [Session.Reason] demands.
// It goes behind [Middleware].
func Require[T any](opts ...RequireOption) echo.MiddlewareFunc {
	r := requirement{requestKey: defaultRequestKey}
	for _, opt := range opts {
		opt(&r)
	}
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			sess, err := Get[T](c, r.requestKey)
			if err != nil {
				return err
			}
			if err := sess.Meets(opts...); err != nil {
				return err
			}
			return next(c)
		}
	}
}

// Require is the function [Require] for the sessions of this Manager.
func (m *Manager[T]) Require(opts ...RequireOption) echo.MiddlewareFunc {
	return Require[T](append([]RequireOption{RequestKey(m.cfg.RequestKey)}, opts...)...)
}

// exchange shows an Echo context as an Exchange.
type exchange struct{ c echo.Context }

func (x exchange) Request() *http.Request   { return x.c.Request() }
func (x exchange) Header() http.Header      { return x.c.Response().Header() }
func (x exchange) Committed() bool          { return x.c.Response().Committed }
func (x exchange) Param(name string) string { return x.c.Param(name) }

// answer gives the errors of this package their HTTP form. One that has a form
// already, because a handler or another instance gave it one, keeps it.
func (m *Manager[T]) answer(c echo.Context, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*echo.HTTPError](err); ok {
		return err
	}
	a, ours := m.Answer(err)
	if !ours || c.Response().Committed {
		return err
	}
	if m.cfg.ErrorHandler != nil {
		return m.cfg.ErrorHandler(c, err)
	}
	for name, values := range a.Header {
		for _, value := range values {
			c.Response().Header().Add(name, value)
		}
	}
	return echo.NewHTTPError(a.Status, a.Message).SetInternal(err)
}
