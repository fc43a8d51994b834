// Package nethttp gives handlers of net/http the sessions of an echosession.Manager.
package nethttp

import (
	"context"
	"net/http"
	"sync/atomic"

	"github.com/echosession/echosession"
)

// A Handler is an http.Handler whose errors [Middleware] answers.
type Handler func(w http.ResponseWriter, r *http.Request) error

type contextKey string

type entry struct {
	x     *exchange
	bound any
}

// Middleware installs a session in each request for [Get] to find.
func Middleware[T any](m *echosession.Manager[T], next http.Handler, requestKey ...string) http.Handler {
	key := keyOf(requestKey)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := &exchange{ResponseWriter: w}
		b := m.Bind(x)
		defer b.Release()
		next.ServeHTTP(x, r.WithContext(context.WithValue(r.Context(), contextKey(key), entry{x, b})))
	})
}

// Get returns the session of a request.
func Get[T any](r *http.Request, requestKey ...string) (*echosession.Session[T], error) {
	key := keyOf(requestKey)
	e, _ := r.Context().Value(contextKey(key)).(entry)
	if e.x != nil {
		e.x.r.CompareAndSwap(nil, r) // the first Get decides whose body is read
	}
	return echosession.Find[T](e.bound, key)
}

// Answer answers an error, and reports false when it is not echosession's.
func Answer[T any](m *echosession.Manager[T], w http.ResponseWriter, err error) bool {
	a, ours := m.Answer(err)
	if !ours {
		return false
	}
	for name, values := range a.Header {
		for _, value := range values {
			w.Header().Add(name, value)
		}
	}
	http.Error(w, a.Message, a.Status)
	return true
}

func keyOf(requestKey []string) string {
	if len(requestKey) > 0 {
		return requestKey[0]
	}
	return "session"
}

// exchange shows a request and its ResponseWriter, of which it remembers whether
// the header was sent.
type exchange struct {
	http.ResponseWriter
	r         atomic.Pointer[http.Request]
	committed bool
}

func (x *exchange) Request() *http.Request      { return x.r.Load() }
func (x *exchange) Committed() bool             { return x.committed }
func (x *exchange) Param(name string) string    { return x.r.Load().PathValue(name) }
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

func (x *exchange) WriteHeader(code int) {
	x.committed = x.committed || code >= 200
	x.ResponseWriter.WriteHeader(code)
}

func (x *exchange) Write(p []byte) (int, error) {
	x.committed = true
	return x.ResponseWriter.Write(p)
}
