package echosession

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"time"
)

// An Exchange is one HTTP request and its answer, as a web framework shows them.
// Whoever writes an adapter for a framework implements it; handlers never meet it.
// The example shows a whole adapter. Package echosessiontest/adaptertest checks one.
//
// An adapter calls [Manager.Bind] when a request arrives, keeps the [Binding]
// where the handler's Get finds it, calls [Binding.Release] when the handler has
// returned, and gives the handler's error its form with [Manager.Answer]. Get and
// Require are [Find] and [Session.Meets].
//
// The methods are called by one goroutine at a time, and none of them after
// Release.
type Exchange interface {
	// Request returns the request as the first Get finds it: middleware may have
	// replaced the one that the adapter saw.
	Request() *http.Request

	// Header returns the header of the answer. Changes have no effect once it has
	// been sent.
	Header() http.Header

	// Committed reports whether the header of the answer has been sent.
	Committed() bool

	// BeforeHeader arranges that f runs just before the header of the answer is
	// sent. It is called at most once, and only where the session was looked for
	// in a cookie, the answer gets one, or the session is stale. A framework that
	// cannot say when the header is sent may do nothing: then the handler can change
	// what f would set.
	BeforeHeader(f func())

	// Param returns a parameter of the request's path, and "" when the route has
	// none of this name.
	Param(name string) string
}

// A Binding is the session of an [Exchange] that nobody has asked for yet. It is
// for adapters, which keep it in the framework's context for [Find]. It is safe
// for concurrent use and must not be copied.
type Binding[T any] struct{ session Session[T] }

// Bind binds a session to an exchange. It does no I/O: [Find] does.
func (m *Manager[T]) Bind(x Exchange) *Binding[T] {
	b := new(Binding[T])
	h := &b.session.handle
	h.engine, h.exchange, h.bound = m.engine, x, true
	return b
}

// Release ends the power of the session over the answer, and over the exchange
// that it was bound to: frameworks use both again for other requests. An adapter
// calls it when the handler has returned. After it, methods that would set or
// clear a cookie return [ErrRequestOver].
func (b *Binding[T]) Release() { b.session.handle.release() }

// boundTo returns whose binding it is: the engine of its Manager, and its T.
func (b *Binding[T]) boundTo() (*engine, reflect.Type) {
	return b.session.handle.engine, reflect.TypeFor[T]()
}

// anyBinding is a Binding whatever its T.
type anyBinding interface {
	boundTo() (*engine, reflect.Type)
}

// Installed reports whether v, which an adapter found under
// [Manager.RequestKey], is a Binding of this Manager. Then its middleware ran
// already, and to run it once more does nothing. When another Manager has taken
// the key, Installed returns an error that matches [ErrNotInstalled].
func (m *Manager[T]) Installed(v any) (bool, error) {
	b, ok := v.(anyBinding)
	if !ok {
		return false, nil
	}
	if e, data := b.boundTo(); e != m.engine {
		return false, misused(m.engine.reports, fmt.Errorf("%w: request key %q is taken by another Manager, of %v; give each its own Config.RequestKey",
			ErrNotInstalled, m.RequestKey(), data))
	}
	return true, nil
}

// Find returns the session of v, which an adapter found under requestKey: a
// [Binding], or anything else where the middleware did not run. The first Find of
// a request reads the session from the store; later ones return the same handle.
// It returns the errors of [Get].
//
// A Require hands on its opts, which may restrict whose session it takes
// ([Manager.Only]), and then asks [Session.Meets].
func Find[T any](v any, requestKey string, opts ...RequireOption) (*Session[T], error) {
	r := requirementOf(opts)
	return find[T](v, requestKey, r.only, r.stale)
}

// find is Find for the sessions of one Manager, or of any with a nil engine. With stale it is
// that of [ServeStale].
func find[T any](v any, requestKey string, only *engine, stale bool) (*Session[T], error) {
	b, ok := v.(*Binding[T])
	if !ok {
		return nil, notFound(v, requestKey, reflect.TypeFor[T]())
	}
	if e := b.session.handle.engine; only != nil && only != e {
		return nil, misused(e.reports, fmt.Errorf("%w: request key %q holds a session of another Manager; give this one a Config.RequestKey of its own and install its Middleware",
			ErrNotInstalled, requestKey))
	}
	return b.resolve(stale)
}

// notFound says what v is, which is no Binding of sessions of t.
func notFound(v any, requestKey string, t reflect.Type) error {
	if b, ok := v.(anyBinding); ok {
		e, other := b.boundTo()
		return misused(e.reports, fmt.Errorf("%w: request key %q holds sessions of %v, not of %v", ErrTypeMismatch, requestKey, other, t))
	}
	return misused(noManager, fmt.Errorf("%w: nothing under request key %q; install the Middleware for %v in front of this route", ErrNotInstalled, requestKey, t))
}

// noManager reports where no Manager is at hand, and so no Logger: to the default one.
var noManager = newReporter(nil, time.Now)

// misused reports a mistake of the program. The text names types and keys of the
// program, and nothing of a request.
func misused(r *reporter, err error) error {
	r.report(slog.LevelError, failureKind{"session not available", "get", err.Error()})
	return err
}

// errInterrupted is what is left of a first Get that panicked before it found out whether
// the request has a session.
var errInterrupted = unavailable(errors.New("the first Get of the request panicked"))

// resolve finds the session of the request at the first call. A later call that may be
// served a copy tries that after a failure of the store, and asks the store no more.
func (b *Binding[T]) resolve(stale bool) (*Session[T], error) {
	h := &b.session.handle
	h.mu.Lock()
	defer h.mu.Unlock()
	if stale && h.engine.stale == nil {
		_ = misused(h.engine.reports, errNoStaleFor)
	}
	fresh := func() any { return new(T) }
	stale = stale && h.mayBeStale()
	if h.resolved && stale && h.missed != nil && h.err != nil && h.openStale(*h.missed, fresh, true) {
		h.err = nil
		h.looked()
	}
	if !h.resolved {
		h.resolved = true
		h.err, h.reason = errInterrupted, errInterrupted
		if h.exchange == nil {
			h.err = ErrRequestOver
		} else {
			var err error
			if token, ok := h.find(); ok {
				err = h.openFound(token, fresh, stale)
			}
			h.looked()
			h.err = err
		}
	}
	if h.err != nil {
		return nil, h.err
	}
	return &b.session, nil
}

// An Answer is the HTTP form of an error of this package.
type Answer struct {
	// Status is the status code.
	Status int

	// Message tells the client what happened, without a word of the cause.
	Message string

	// Header holds WWW-Authenticate (RFC 6750 §3) and Retry-After, where they
	// apply.
	Header http.Header
}

// AddTo adds the Header of the answer to h.
func (a Answer) AddTo(h http.Header) {
	for name, values := range a.Header {
		h[name] = append(h[name], values...)
	}
}

// Answer returns the HTTP form of err, and false when err is not an error of this
// package.
func (m *Manager[T]) Answer(err error) (Answer, bool) {
	f, ok := answerTo(err)
	if !ok {
		return Answer{}, false
	}
	if f.sentinel == ErrRequestOver {
		_ = m.engine.refused("answer", err)
	}
	a := Answer{Status: f.status, Message: f.message, Header: make(http.Header)}
	if challenge := f.challenge(m.engine.cfg.RequestKey, err); challenge != "" {
		a.Header.Set("WWW-Authenticate", challenge)
	}
	if f.status == http.StatusServiceUnavailable {
		a.Header.Set("Retry-After", "1")
	}
	return a, true
}

// RequestKey returns the key under which an adapter keeps the [Binding]:
// [Config.RequestKey] or its default.
func (m *Manager[T]) RequestKey() string { return m.engine.cfg.RequestKey }

// RequestKeyOf returns the key that opts name with [RequestKey], and otherwise the
// default of [Config.RequestKey]. It is for adapters.
func RequestKeyOf(opts ...RequireOption) string { return requirementOf(opts).requestKey }

// EchoV4Fields returns the names of those fields of the Config that are set and
// that only Echo v4 can honour: Skipper and ErrorHandler. An adapter for another
// framework refuses a Manager that has one.
func (m *Manager[T]) EchoV4Fields() []string {
	var fields []string
	if m.cfg.Skipper != nil {
		fields = append(fields, "Skipper")
	}
	if m.cfg.ErrorHandler != nil {
		fields = append(fields, "ErrorHandler")
	}
	return fields
}
