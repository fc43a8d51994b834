// Package nethttp gives handlers of net/http, and of routers that build on it, the
// typed sessions of package echosession:
//
//	sessions, err := echosession.New[User](echosession.Config{Client: rdb, Secret: secret})
//	mux.Handle("GET /me", nethttp.HandlerFunc(me))
//	http.ListenAndServe(addr, nethttp.Middleware(sessions)(mux))
//
//	func me(w http.ResponseWriter, r *http.Request) error {
//		sess, err := nethttp.Get[User](r)
//		...
//	}
//
// [With] hands a handler its session. Everything else is in package [echosession]: the
// Config, the Manager and what a Session can do.
//
// A program that uses this package has Echo v4 as an indirect requirement, because
// the two lines of package echosession itself are for Echo v4. Echo v4 takes some
// 1,800 kB of its binary: 18.8 MB instead of 17.0 MB in a program with one handler,
// on linux/amd64, linked with -s -w.
package nethttp

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/echosession/echosession"
)

// An Option is an option of [Middleware].
type Option func(*options)

type options struct {
	skip   func(*http.Request) bool
	handle func(http.ResponseWriter, *http.Request, error)
}

// WithSkipper leaves out requests for which skip returns true: no session is
// installed, and [Get] returns [echosession.ErrNotInstalled]. Default: no request is
// left out.
func WithSkipper(skip func(r *http.Request) bool) Option {
	return func(o *options) { o.skip = skip }
}

// WithErrorHandler answers a request whose [HandlerFunc] returned an error, of
// package echosession or not, and one that [Require] refuses. Default: errors of
// package echosession get the status and header of [echosession.Manager.Answer],
// all others status 500, with a JSON object whose message says no word of the cause.
func WithErrorHandler(handle func(w http.ResponseWriter, r *http.Request, err error)) Option {
	return func(o *options) { o.handle = handle }
}

// Middleware installs a session of m in each request for [Get] to find. It does no
// I/O and rejects no request: the first Get reads the session, so a route that never
// asks for its session pays nothing for it. Installing the same Manager twice on a
// route does nothing more.
//
// The handler gets a ResponseWriter that has Flush, Hijack and ReadFrom, and an
// Unwrap for [http.ResponseController]. Put [http.TimeoutHandler] in front of
// Middleware: behind it, it has a header of its own, which replaces the cookie
// where the handler sets another one, and it answers while the handler still runs.
//
// It panics on a Manager whose Config sets Skipper or ErrorHandler: they are Echo
// v4's, and would have no effect here.
func Middleware[T any](m *echosession.Manager[T], opts ...Option) func(http.Handler) http.Handler {
	if fields := m.EchoV4Fields(); len(fields) > 0 {
		panic(fmt.Sprintf("nethttp: Echo v4 alone honours Config.%s; use nethttp.WithSkipper and nethttp.WithErrorHandler",
			strings.Join(fields, " and Config.")))
	}
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	key := m.RequestKey()
	answer := answerer(m, o.handle)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if o.skip != nil && o.skip(r) {
				next.ServeHTTP(w, r)
				return
			}
			// A handler may answer a request of its own making under this one's
			// context: that request needs a binding of its own.
			if outer := installed(r.Context(), key); outer != nil && outer.exchange.behind(w) {
				same, err := m.Installed(outer.binding)
				switch {
				case err != nil:
					answer(w, r, err)
					return
				case same:
					next.ServeHTTP(w, r)
					return
				}
			}
			in := &installation{Context: r.Context(), requestKey: key, answer: answer}
			in.exchange.ResponseWriter = w
			b := m.Bind(&in.exchange)
			defer b.Release()
			in.binding = b
			next.ServeHTTP(&in.exchange, r.WithContext(in))
		})
	}
}

// Get returns the session of a request, as [echosession.Get] does on Echo v4. A
// requestKey names one of several instances, see [echosession.Config.RequestKey].
//
// The token is looked for in the r of the first Get: hand in the request that the
// handler got, whose body nobody has read yet.
//
// It returns [echosession.ErrStoreUnavailable], [echosession.ErrNotInstalled] or
// [echosession.ErrTypeMismatch].
func Get[T any](r *http.Request, requestKey ...string) (*echosession.Session[T], error) {
	key := echosession.RequestKeyOf()
	if len(requestKey) > 0 {
		key = requestKey[0]
	}
	return find[T](r, key)
}

func find[T any](r *http.Request, key string, opts ...echosession.RequireOption) (*echosession.Session[T], error) {
	in := installed(r.Context(), key)
	if in == nil {
		return nil, fmt.Errorf("%w: nothing under request key %q; add nethttp.Middleware(sessions)", echosession.ErrNotInstalled, key)
	}
	// A later r.WithContext copies the request and not its body: what the first
	// Get puts back has to reach the handler that called it.
	in.exchange.request.CompareAndSwap(nil, r)
	return echosession.Find[T](in.binding, key, opts...)
}

// Require is middleware for routes that need a live session of m. A request without
// one does not reach the handler: it is answered with 401, or as its
// [echosession.Session.Reason] demands. It goes behind [Middleware].
func Require[T any](m *echosession.Manager[T], opts ...echosession.RequireOption) func(http.Handler) http.Handler {
	opts = append([]echosession.RequireOption{echosession.RequestKey(m.RequestKey()), m.Only()}, opts...)
	key := echosession.RequestKeyOf(opts...)
	return func(next http.Handler) http.Handler {
		return HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			sess, err := find[T](r, key, opts...)
			if err == nil {
				err = sess.Meets(opts...)
			}
			if err != nil {
				return err
			}
			next.ServeHTTP(w, r)
			return nil
		})
	}
}

// With makes a handler of a function that needs the session of m: a session of another
// Manager gets [echosession.ErrNotInstalled]. The session need not be live: put [Require]
// before routes where it must be. The function may return an error, as a [HandlerFunc].
//
//	mux.Handle("GET /me", nethttp.Require(sessions)(nethttp.With(sessions, me)))
//
//	func me(w http.ResponseWriter, r *http.Request, sess *echosession.Session[User]) error {
//		return json.NewEncoder(w).Encode(sess)
//	}
func With[T any](m *echosession.Manager[T], h func(w http.ResponseWriter, r *http.Request, sess *echosession.Session[T]) error) HandlerFunc {
	key := m.RequestKey()
	only := m.Only()
	return func(w http.ResponseWriter, r *http.Request) error {
		sess, err := find[T](r, key, only)
		if err != nil {
			return err
		}
		return h(w, r, sess)
	}
}

// A HandlerFunc is a handler that returns an error. The error is answered as the
// innermost [Middleware] around the handler says, and with status 500 where there is
// no Middleware. Once the header of the answer has been sent, an error changes
// nothing.
type HandlerFunc func(w http.ResponseWriter, r *http.Request) error

// ServeHTTP calls f and answers its error.
func (f HandlerFunc) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	err := f(w, r)
	if err == nil {
		return
	}
	in, _ := r.Context().Value(innermost{}).(*installation)
	switch {
	case in == nil:
		writeError(w, r, http.StatusInternalServerError, internalServerError)
	case !in.exchange.committed:
		in.answer(w, r, err)
	}
}

const internalServerError = "Internal Server Error"

// answerer returns what answers errors behind the Middleware of m.
func answerer[T any](m *echosession.Manager[T], handle func(http.ResponseWriter, *http.Request, error)) func(http.ResponseWriter, *http.Request, error) {
	if handle != nil {
		return handle
	}
	return func(w http.ResponseWriter, r *http.Request, err error) {
		a, ours := m.Answer(err)
		if !ours {
			a = echosession.Answer{Status: http.StatusInternalServerError, Message: internalServerError}
		}
		a.AddTo(w.Header())
		writeError(w, r, a.Status, a.Message)
	}
}

// writeError writes what Echo writes, so that clients need not know which of them
// answers.
func writeError(w http.ResponseWriter, r *http.Request, status int, message string) {
	if r.Method == http.MethodHead {
		w.WriteHeader(status)
		return
	}
	w.Header().Del("Content-Length") // that of what the handler meant to write
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": message}) // the client may have hung up
}

// An installation is what one Middleware leaves in a request: the context behind it.
type installation struct {
	context.Context // in front of it

	requestKey string
	exchange   exchange
	binding    any // a *echosession.Binding
	answer     func(http.ResponseWriter, *http.Request, error)
}

// innermost asks a context for the installation of the innermost Middleware.
type innermost struct{}

// Value implements [context.Context].
func (in *installation) Value(key any) any {
	if _, ok := key.(innermost); ok {
		return in
	}
	return in.Context.Value(key)
}

// installed returns the innermost installation under a request key, or nil.
func installed(ctx context.Context, requestKey string) *installation {
	for {
		in, _ := ctx.Value(innermost{}).(*installation)
		if in == nil || in.requestKey == requestKey {
			return in
		}
		ctx = in.Context
	}
}
