package echosession

import (
	"fmt"
	"net/http"
	"reflect"
)

// An Exchange is a request that is being answered, as a framework shows it. It is
// for adapters: handlers meet it nowhere.
type Exchange interface {
	// Request returns the request, as the middleware before left it.
	Request() *http.Request

	// Header returns the header of the answer.
	Header() http.Header

	// Committed reports whether that header has been sent.
	Committed() bool

	// Param returns a parameter of the request's path, or "".
	Param(name string) string
}

// Bound is the session of an Exchange that nobody has asked for yet. An adapter
// keeps it where the handler's Get finds it.
type Bound[T any] Session[T]

// Bind binds a session to an exchange. It looks at nothing; [Find] does.
func (m *Manager[T]) Bind(x Exchange) *Bound[T] {
	return &Bound[T]{manager: m, exchange: x, bound: true}
}

// Release ends the session's power over the answer. An adapter calls it when the
// handler has returned.
func (b *Bound[T]) Release() {
	b.mu.Lock()
	b.exchange = nil
	b.mu.Unlock()
}

func (*Bound[T]) dataType() reflect.Type { return reflect.TypeFor[T]() }

// Find returns the session of v, which an adapter found under key: a *Bound[T], or
// anything else when the middleware is not there.
func Find[T any](v any, key string) (*Session[T], error) {
	switch b := v.(type) {
	case *Bound[T]:
		return b.resolve()
	case interface{ dataType() reflect.Type }:
		return nil, fmt.Errorf("%w: request key %q holds sessions of %v, not of %v", ErrTypeMismatch, key, b.dataType(), reflect.TypeFor[T]())
	default:
		return nil, fmt.Errorf("%w: nothing under request key %q; add e.Use(echosession.Middleware[%v](cfg))", ErrNotInstalled, key, reflect.TypeFor[T]())
	}
}

// An Answer is the HTTP form of an error of this package.
type Answer struct {
	Status  int
	Message string
	Header  http.Header // WWW-Authenticate, Retry-After
}

// Answer returns the HTTP form of err, and false when it is not of this package.
func (m *Manager[T]) Answer(err error) (Answer, bool) {
	f, ok := answerTo(err)
	if !ok {
		return Answer{}, false
	}
	a := Answer{Status: f.status, Message: f.message, Header: make(http.Header)}
	if challenge := f.challenge(m.cfg.RequestKey, err); challenge != "" {
		a.Header.Set("WWW-Authenticate", challenge)
	}
	if f.status == http.StatusServiceUnavailable {
		a.Header.Set("Retry-After", "1")
	}
	return a, true
}
