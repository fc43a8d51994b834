package nethttp_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/nethttp"
)

type User struct{ Name string }

// key is a key of what a test puts into contexts.
type key struct{}

func newConfig() echosession.Config {
	return echosession.Config{Store: echosession.NewMemoryStore(), Secret: make([]byte, 32), Cookie: &echosession.Cookie{}}
}

func newManager(t *testing.T, cfg echosession.Config) *echosession.Manager[User] {
	t.Helper()
	m, err := echosession.New[User](cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// newToken returns the token of a new session.
func newToken(t *testing.T, m *echosession.Manager[User], name string) string {
	t.Helper()
	sess, err := m.Create(t.Context(), User{name})
	if err != nil {
		t.Fatal(err)
	}
	return sess.Token()
}

// serve answers a request with h and returns what was written.
func serve(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return rec
}

// get returns a GET with a token, if it is not "".
func get(path, token string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return r
}

// whoami writes the name of the user.
var whoami = nethttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
	sess, err := nethttp.Get[User](r)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, sess.Data().Name)
	return err
})

func TestBodyReachesAHandlerBehindWithContext(t *testing.T) {
	m, err := echosession.New[User](echosession.Config{Store: echosession.NewMemoryStore(), Secret: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.Create(t.Context(), User{"Ada"})
	if err != nil {
		t.Fatal(err)
	}
	body := "accessToken=" + s.Token()
	inner := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sess, err := nethttp.Get[User](r)
		if err != nil || !sess.Exists() {
			t.Error(err, sess.Reason())
		}
		got, _ := io.ReadAll(r.Body)
		if string(got) != body {
			t.Errorf("the handler reads %q", got)
		}
	})
	between := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inner.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), key{}, "v")))
	})
	r := httptest.NewRequest("POST", "/", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	nethttp.Middleware(m)(between).ServeHTTP(httptest.NewRecorder(), r)
}

// In front of a router the middleware cannot see the path's parameters, but the
// first Get can.
func TestMiddlewareBeforeTheRouter(t *testing.T) {
	cfg := newConfig()
	cfg.Cookie, cfg.TokenLookup = nil, "param:token"
	m := newManager(t, cfg)
	mux := http.NewServeMux()
	mux.Handle("GET /{token}", whoami)
	mux.Handle("GET /required/{token}", nethttp.Require(m)(whoami))
	token := newToken(t, m, "Ada")
	for _, path := range []string{"/", "/required/"} {
		if rec := serve(nethttp.Middleware(m)(mux), get(path+token, "")); rec.Code != 200 || rec.Body.String() != "Ada" {
			t.Errorf("%s: %d %s", path, rec.Code, rec.Body)
		}
	}
}

// A handler may answer a request of its own making: with its context and another
// writer.
func TestRequestMadeByAHandler(t *testing.T) {
	m := newManager(t, newConfig())
	ada, bob := newToken(t, m, "Ada"), newToken(t, m, "Bob")
	install := nethttp.Middleware(m)
	inner := install(nethttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		sess, err := nethttp.Get[User](r)
		if err != nil {
			return err
		}
		if _, err := sess.Rotate(r.Context()); err != nil {
			return err
		}
		return whoami(w, r)
	}))
	var made *httptest.ResponseRecorder
	outer := install(nethttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		own := httptest.NewRequest(http.MethodGet, "/", nil)
		own.AddCookie(&http.Cookie{Name: "__Host-session", Value: bob})
		made = serve(inner, own.WithContext(r.Context()))
		return whoami(w, r)
	}))
	rec := serve(outer, get("/", ada))
	if rec.Body.String() != "Ada" || len(rec.Result().Cookies()) != 0 {
		t.Errorf("the request: %s %v", rec.Body, rec.Header())
	}
	if made.Body.String() != "Bob" || len(made.Result().Cookies()) != 1 {
		t.Errorf("the request made by its handler: %s %v", made.Body, made.Header())
	}
}

func TestHandlerFuncWithoutMiddleware(t *testing.T) {
	h := nethttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return echosession.ErrConflict })
	rec := serve(h, get("/", ""))
	if rec.Code != 500 || rec.Body.String() != `{"message":"Internal Server Error"}`+"\n" || rec.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%d %s %v", rec.Code, rec.Body, rec.Header())
	}
}

func TestErrorHandlerGetsErrorsOfOthers(t *testing.T) {
	other := errors.New("another error")
	var got error
	h := nethttp.Middleware(newManager(t, newConfig()), nethttp.WithErrorHandler(func(w http.ResponseWriter, _ *http.Request, err error) {
		got = err
		w.WriteHeader(http.StatusTeapot)
	}))(nethttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return other }))
	if rec := serve(h, get("/", "")); rec.Code != http.StatusTeapot || got != other {
		t.Errorf("%d, and the error handler got %v", rec.Code, got)
	}
}

// The answer to an error has another length than the answer that the handler
// announced.
func TestErrorAfterContentLength(t *testing.T) {
	server := httptest.NewServer(nethttp.Middleware(newManager(t, newConfig()))(
		nethttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Set("Content-Length", "3")
			return echosession.ErrConflict
		})))
	defer server.Close()
	got, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	body, err := io.ReadAll(got.Body)
	if want := `{"message":"the session was changed by another request"}` + "\n"; err != nil || string(body) != want {
		t.Errorf("%q, %v", body, err)
	}
}

func TestFieldsOfEchoV4(t *testing.T) {
	skip := func(cfg *echosession.Config) { cfg.Skipper = func(echo.Context) bool { return false } }
	handle := func(cfg *echosession.Config) { cfg.ErrorHandler = func(_ echo.Context, err error) error { return err } }
	const use = "; use nethttp.WithSkipper and nethttp.WithErrorHandler"
	for _, tt := range []struct {
		set  []func(*echosession.Config)
		want any
	}{
		{nil, nil},
		{[]func(*echosession.Config){skip}, "nethttp: Echo v4 alone honours Config.Skipper" + use},
		{[]func(*echosession.Config){handle}, "nethttp: Echo v4 alone honours Config.ErrorHandler" + use},
		{[]func(*echosession.Config){skip, handle}, "nethttp: Echo v4 alone honours Config.Skipper and Config.ErrorHandler" + use},
	} {
		cfg := newConfig()
		for _, set := range tt.set {
			set(&cfg)
		}
		m := newManager(t, cfg)
		func() {
			defer func() {
				if got := recover(); got != tt.want {
					t.Errorf("Middleware panics with %v, not %v", got, tt.want)
				}
			}()
			nethttp.Middleware(m)
		}()
	}
}

// http.TimeoutHandler answers while its handler still runs, so it belongs in front
// of the middleware.
func TestTimeoutHandlerBeforeTheMiddleware(t *testing.T) {
	m := newManager(t, newConfig())
	over := make(chan struct{})
	ended := make(chan error, 1)
	h := nethttp.Middleware(m)(nethttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		sess, err := nethttp.Get[User](r)
		if err != nil {
			return err
		}
		if r.URL.Path == "/slow" {
			<-over
		}
		_, err = sess.Create(context.WithoutCancel(r.Context()), User{"Ada"})
		if r.URL.Path == "/slow" {
			ended <- err
		}
		return err
	}))
	rec := serve(http.TimeoutHandler(h, time.Minute, "too slow"), get("/", ""))
	if rec.Code != 200 || len(rec.Result().Cookies()) != 1 || rec.Header().Get("Cache-Control") != "private, no-store" {
		t.Errorf("in time: %d %v", rec.Code, rec.Header())
	}
	rec = serve(http.TimeoutHandler(h, time.Millisecond, "too slow"), get("/slow", ""))
	close(over)
	if err := <-ended; err != nil {
		t.Errorf("Create in a handler that was too slow: %v", err)
	}
	if rec.Code != 503 || len(rec.Result().Cookies()) != 0 {
		t.Errorf("too late: %d %v", rec.Code, rec.Header())
	}
}

func TestTimeoutHandlerBehindTheMiddleware(t *testing.T) {
	m := newManager(t, newConfig())
	left := make(chan *echosession.Session[User], 1)
	over := make(chan struct{})
	h := nethttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		sess, err := nethttp.Get[User](r)
		if err != nil {
			left <- nil
			return err
		}
		if r.URL.Path == "/slow" {
			left <- sess
			<-over
			return nil
		}
		if _, err := sess.Create(r.Context(), User{"Ada"}); err != nil {
			return err
		}
		return whoami(w, r)
	})
	rec := serve(nethttp.Middleware(m)(http.TimeoutHandler(h, time.Minute, "too slow")), get("/", ""))
	if rec.Code != 200 || rec.Body.String() != "Ada" || len(rec.Result().Cookies()) != 1 {
		t.Errorf("in time: %d %v", rec.Code, rec.Header())
	}
	// Without a cookie: whoever needs one puts TimeoutHandler in front, because here two
	// goroutines write one header.
	cfg := newConfig()
	cfg.Cookie = nil
	m = newManager(t, cfg)
	rec = serve(nethttp.Middleware(m)(http.TimeoutHandler(h, 100*time.Millisecond, "too slow")), get("/slow", ""))
	sess := <-left
	if sess == nil {
		t.Fatal("the handler has not begun in time")
	}
	if _, err := sess.Create(t.Context(), User{"Ada"}); !errors.Is(err, echosession.ErrRequestOver) {
		t.Errorf("Create in a handler that was too slow: %v", err)
	}
	close(over)
	if rec.Code != 503 || len(rec.Result().Cookies()) != 0 {
		t.Errorf("too late: %d %v", rec.Code, rec.Header())
	}
}

// With takes the sessions of its own Manager alone.
func TestWithOfAnotherManager(t *testing.T) {
	m, other := newManager(t, newConfig()), newManager(t, newConfig())
	called := false
	h := nethttp.With(other, func(http.ResponseWriter, *http.Request, *echosession.Session[User]) error {
		called = true
		return nil
	})
	rec := serve(nethttp.Middleware(m)(h), get("/", newToken(t, m, "Ada")))
	if rec.Code != 500 || called {
		t.Errorf("%d %s; the function was called: %v", rec.Code, rec.Body, called)
	}
	if rec := serve(nethttp.Middleware(other)(h), get("/", "")); rec.Code != 200 || !called {
		t.Errorf("its own: %d %s; the function was called: %v", rec.Code, rec.Body, called)
	}
}
