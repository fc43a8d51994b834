package nethttp_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/echosessiontest/adaptertest"
	"github.com/echosession/echosession/nethttp"
)

// A call is what a handler of net/http gets.
type call struct {
	w http.ResponseWriter
	r *http.Request
}

type middleware = func(http.Handler) http.Handler

func TestAdapter(t *testing.T) {
	adaptertest.Run(t, adaptertest.Adapter[call, middleware]{
		Serve: func(handler func(call) error, middleware ...middleware) http.Handler {
			var h http.Handler = nethttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
				return handler(call{w, r})
			})
			for _, m := range slices.Backward(middleware) {
				h = m(h)
			}
			mux := http.NewServeMux()
			mux.Handle("/{token}", h)
			return mux
		},
		Around: func(around func(http.ResponseWriter, *http.Request, func(*http.Request) error) error) middleware {
			return func(next http.Handler) http.Handler {
				return nethttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
					return around(w, r, func(r *http.Request) error {
						next.ServeHTTP(w, r)
						return nil
					})
				})
			}
		},
		Request: func(c call) *http.Request { return c.r },
		Writer:  func(c call) http.ResponseWriter { return c.w },
		Users:   sessionsOf[adaptertest.User](),
		Staff:   sessionsOf[adaptertest.Staff](),
	})
}

func sessionsOf[T any]() adaptertest.Sessions[T, call, middleware] {
	return adaptertest.Sessions[T, call, middleware]{
		Middleware: func(m *echosession.Manager[T]) middleware { return nethttp.Middleware(m) },
		Require:    nethttp.Require[T],
		Get: func(c call, requestKey ...string) (*echosession.Session[T], error) {
			return nethttp.Get[T](c.r, requestKey...)
		},
		With: func(m *echosession.Manager[T], h func(call, *echosession.Session[T]) error) func(call) error {
			with := nethttp.With(m, func(w http.ResponseWriter, r *http.Request, sess *echosession.Session[T]) error {
				return h(call{w, r}, sess)
			})
			return func(c call) error { return with(c.w, c.r) }
		},
		Configured: func(cfg echosession.Config, o adaptertest.Options) (*echosession.Manager[T], middleware, error) {
			m, err := echosession.New[T](cfg)
			if err != nil {
				return nil, nil, err
			}
			if o.Skip != nil {
				return m, nethttp.Middleware(m, nethttp.WithSkipper(o.Skip)), nil
			}
			return m, nethttp.Middleware(m, nethttp.WithErrorHandler(o.OnError)), nil
		},
	}
}
