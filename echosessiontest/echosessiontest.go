// Package echosessiontest is a kit for tests of applications that use sessions:
// sessions in memory, a clock that the test moves, a store that fails on command,
// and a browser. It works with every framework, because what it tests is an
// [http.Handler].
//
// Make a [Harness]. Hand its Manager to the application, or its [Harness.Config]
// where the application makes the Manager. Then ask a handler one question with
// [Harness.Login] and [Harness.Serve], or walk through the application with a
// [Browser]:
//
//	h := echosessiontest.New[User](t)
//	server := newServer(h.Config())
//
//	r := httptest.NewRequest(http.MethodGet, "/me", nil)
//	h.Login(r, User{Name: "Ada"})
//	rec := h.Serve(server, r)
//
//	b := h.Browser(server)
//	page := b.PostForm("/login", url.Values{"name": {"Ada"}})
//
// [Harness.NewContext] and [Harness.Run] are shorter ways to call one handler of Echo
// v4.
package echosessiontest

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/echosession/echosession"
)

// A Harness holds sessions in memory, with a clock that only the test moves and a
// store that fails when it is told to. Make one with [New]. Its methods are safe for
// concurrent use once Manager is set.
type Harness[T any] struct {
	// Manager makes and opens the sessions. Hand it, or its Middleware, to what is
	// tested. When the application makes a Manager of [Harness.Config], put that one
	// here: then Login makes sessions with the application's settings, and puts the
	// token where the application looks for it.
	Manager *echosession.Manager[T]

	// Clock is the time of the Manager, of the store and of every Browser.
	Clock *Clock

	// Store is the store of the Manager.
	Store *FaultStore

	cfg echosession.Config
	tb  testing.TB
}

// New returns a Harness. The opts change the Config of its Manager, but not its
// Store and its Now. A Secret is set unless they set one or Keys, and a Logger that
// writes to the log of the test unless they set one. A Config that [echosession.New]
// refuses ends the test. When the test is over New closes the Manager that it has made, and
// not one that the application has made.
func New[T any](tb testing.TB, opts ...func(*echosession.Config)) *Harness[T] {
	tb.Helper()
	clock := &Clock{now: time.Now()}
	store := NewFaultStore(echosession.NewMemoryStore(echosession.WithClock(clock.Now)))
	clock.moved = store.look
	var cfg echosession.Config
	for _, opt := range opts {
		opt(&cfg)
	}
	if cfg.Store != nil || cfg.Client != nil || cfg.Now != nil {
		tb.Fatal("echosessiontest: the harness brings its own Store and Now")
	}
	cfg.Store, cfg.Now = store, clock.Now
	if cfg.Secret == nil && cfg.Keys == nil {
		cfg.Secret = make([]byte, 64) // enough for every algorithm
		rand.Read(cfg.Secret)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(tb.Output(), nil))
	}
	m, err := echosession.New[T](cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = m.Close() })
	return &Harness[T]{Manager: m, Clock: clock, Store: store, cfg: cfg, tb: tb}
}

// Config returns what the Manager was made of: the Store, the clock and the Secret of
// the harness, and what the opts of [New] set. It is for applications that make their
// own Manager. They may change the other fields; see [Harness.Manager].
func (h *Harness[T]) Config() echosession.Config { return h.cfg }

// Login creates a session and puts its token into r: into the cookie if the Config
// has one, and otherwise into Authorization: Bearer. Where neither is read, it goes
// where [echosession.Config.TokenLookup] says, if that is a header or a cookie. A
// second Login replaces the token. A failure ends the test.
//
// The session that it returns shows later changes after a
// [echosession.Session.Reload].
func (h *Harness[T]) Login(r *http.Request, data T, opts ...echosession.CreateOption) *echosession.Session[T] {
	h.tb.Helper()
	sess, cookie := h.create(r.Context(), nil, data, opts)
	for _, c := range h.carriers(cookie) {
		if h.finds(c) {
			c.put(r, sess.Token())
			return sess
		}
	}
	h.tb.Fatal("echosessiontest: Login knows no place where the Manager looks for a token; " +
		"make the session with Manager.Create and put its Token there")
	return nil
}

// Serve answers r with handler: a server of any framework, whose middleware for the
// Manager is already installed.
func (h *Harness[T]) Serve(handler http.Handler, r *http.Request) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	handler.ServeHTTP(rec, r)
	return rec
}

// create answers a request for a login, which sends cookies. It returns the session
// and the cookie that the answer sets, or nil.
func (h *Harness[T]) create(ctx context.Context, cookies []*http.Cookie, data T, opts []echosession.CreateOption) (*echosession.Session[T], *http.Cookie) {
	h.tb.Helper()
	x := newExchange(ctx)
	for _, c := range cookies {
		x.request.AddCookie(c)
	}
	sess, err := h.open(x)
	if err == nil {
		_, err = sess.Create(ctx, data, opts...)
	}
	if err != nil {
		h.tb.Fatal(err)
	}
	set := (&http.Response{Header: x.header}).Cookies()
	if i := slices.IndexFunc(set, func(c *http.Cookie) bool { return c.Value == sess.Token() }); i >= 0 {
		return sess, set[i]
	}
	return sess, nil
}

// open returns the session of an exchange.
func (h *Harness[T]) open(x *exchange) (*echosession.Session[T], error) {
	return echosession.Find[T](h.Manager.Bind(x), h.Manager.RequestKey())
}

// finds reports whether the Manager looks at a place for tokens. It does no I/O: what
// it finds is no token.
func (h *Harness[T]) finds(c carrier) bool {
	x := newExchange(context.Background())
	c.put(x.request, "x")
	sess, err := h.open(x)
	return err == nil && !errors.Is(sess.Reason(), echosession.ErrNoToken)
}

// A carrier is a place for a token in a request: a cookie, or a header and what
// stands before the token in it.
type carrier struct{ cookie, header, prefix string }

// carriers returns the places for tokens that Login tries, the best one first. The
// cookie is the one that the Manager sets, or nil.
func (h *Harness[T]) carriers(cookie *http.Cookie) []carrier {
	var all []carrier
	if cookie != nil {
		all = append(all, carrier{cookie: cookie.Name})
	}
	all = append(all, carrier{header: "Authorization", prefix: "Bearer "})
	for source := range strings.SplitSeq(h.cfg.TokenLookup, ",") {
		kind, name, _ := strings.Cut(strings.TrimLeft(source, " "), ":")
		switch kind {
		case "cookie":
			all = append(all, carrier{cookie: name})
		case "header":
			name, prefix, _ := strings.Cut(name, ":")
			all = append(all, carrier{header: name, prefix: prefix})
		}
	}
	return all
}

// put puts the token into r, in the place of another one.
func (c carrier) put(r *http.Request, token string) {
	if c.cookie == "" {
		r.Header.Set(c.header, c.prefix+token)
		return
	}
	others := slices.DeleteFunc(r.Cookies(), func(other *http.Cookie) bool { return other.Name == c.cookie })
	r.Header.Del("Cookie")
	for _, cookie := range append(others, &http.Cookie{Name: c.cookie, Value: token}) {
		r.AddCookie(cookie)
	}
}

// site is where requests go that name no host.
var site = &url.URL{Scheme: "https", Host: "example.com", Path: "/"}

// An exchange is a request that no server sees, and its answer.
type exchange struct {
	request *http.Request
	header  http.Header
}

func newExchange(ctx context.Context) *exchange {
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, site.String(), nil)
	return &exchange{r, make(http.Header)}
}

func (x *exchange) Request() *http.Request { return x.request }
func (x *exchange) Header() http.Header    { return x.header }
func (x *exchange) Committed() bool        { return false }
func (x *exchange) BeforeHeader(func())    {} // the header is never sent
func (x *exchange) Param(string) string    { return "" }
