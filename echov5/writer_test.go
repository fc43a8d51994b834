package echov5_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v5"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/echov5"
)

type User struct{ Name string }

func newConfig() echosession.Config {
	return echosession.Config{
		Store:  echosession.NewMemoryStore(),
		Secret: make([]byte, 32),
		Cookie: &echosession.Cookie{Persistent: true},
	}
}

// create is a handler that begins with a Create.
func create(then ...func(c *echo.Context, sess *echosession.Session[User]) error) echo.HandlerFunc {
	return func(c *echo.Context) error {
		sess, err := echov5.Get[User](c)
		if err != nil {
			return err
		}
		if _, err := sess.Create(c.Request().Context(), User{"Ada"}); err != nil {
			return err
		}
		for _, do := range then {
			if err := do(c, sess); err != nil {
				return err
			}
		}
		return nil
	}
}

func writeText(c *echo.Context, _ *echosession.Session[User]) error {
	return c.String(http.StatusAccepted, "hello")
}

func setPublic(c *echo.Context, _ *echosession.Session[User]) error {
	c.Response().Header().Set("Cache-Control", "public")
	return nil
}

// createAgain fails, because the header has been sent.
func createAgain(t *testing.T) func(*echo.Context, *echosession.Session[User]) error {
	return func(c *echo.Context, sess *echosession.Session[User]) error {
		if _, err := sess.Create(c.Request().Context(), User{"Eve"}); !errors.Is(err, echosession.ErrRequestOver) {
			t.Errorf("Create after the header: %v", err)
		}
		return nil
	}
}

func returnConflict(*echo.Context, *echosession.Session[User]) error { return echosession.ErrConflict }

// TestAutoHandleHEAD checks HEAD where Echo answers it with the handler of GET: it
// marks the response as committed long before it sends the header.
func TestAutoHandleHEAD(t *testing.T) {
	for _, tt := range []struct {
		name         string
		handler      echo.HandlerFunc
		status       int
		length       string
		cacheControl string
	}{
		{"Create", create(writeText), 202, "5", "private, no-store"},
		{"Create, then Cache-Control", create(setPublic, writeText), 202, "5", "private, no-store"},
		{"Create, then Cache-Control after the text", create(writeText, setPublic), 202, "5", "private, no-store"},
		{"Create after the text", create(writeText, createAgain(t)), 202, "5", "private, no-store"},
		{"Create without a word", create(setPublic), 200, "", "private, no-store"},
		{"Create, then an error", create(setPublic, returnConflict), 409, "", "private, no-store"},
		{"an error after the text", create(writeText, returnConflict), 202, "5", "private, no-store"},
	} {
		for _, where := range []string{"before the router", "on the route"} {
			t.Run(tt.name+" "+where, func(t *testing.T) {
				e := newEcho(echo.Config{Router: echo.NewRouter(echo.RouterConfig{AutoHandleHEAD: true})})
				middleware := echov5.Middleware[User](newConfig())
				if where == "on the route" {
					e.GET("/", tt.handler, middleware)
				} else {
					e.Use(middleware)
					e.GET("/", tt.handler)
				}
				server := httptest.NewServer(e)
				defer server.Close()
				got, err := http.Head(server.URL)
				if err != nil {
					t.Fatal(err)
				}
				got.Body.Close()
				h := got.Header
				if got.StatusCode != tt.status || h.Get("Content-Length") != tt.length || h.Get("Cache-Control") != tt.cacheControl {
					t.Errorf("%d %v", got.StatusCode, h)
				}
				if cookies := got.Cookies(); len(cookies) != 1 || cookies[0].Value == "" {
					t.Errorf("cookies %v", cookies)
				}
			})
		}
	}
}

func TestAutoHandleHEADRenewsTheCookie(t *testing.T) {
	cfg := newConfig()
	cfg.TouchInterval = echosession.TouchAlways
	now := time.Now()
	cfg.Now = func() time.Time { return now }
	m, err := echosession.New[User](cfg)
	if err != nil {
		t.Fatal(err)
	}
	sess, err := m.Create(t.Context(), User{"Ada"})
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(3 * time.Hour) // over a tenth of the idle timeout
	e := newEcho(echo.Config{Router: echo.NewRouter(echo.RouterConfig{AutoHandleHEAD: true})})
	e.GET("/", func(c *echo.Context) error { return c.NoContent(http.StatusNoContent) }, echov5.Install(m), echov5.Require[User]())
	r := httptest.NewRequest(http.MethodHead, "/", nil)
	r.AddCookie(&http.Cookie{Name: "__Host-session", Value: sess.Token()})
	rec := httptest.NewRecorder()
	e.ServeHTTP(rec, r)
	cookies := rec.Result().Cookies()
	if rec.Code != http.StatusNoContent || len(cookies) != 1 || cookies[0].Value != sess.Token() || cookies[0].MaxAge < 86000 {
		t.Errorf("%d %v", rec.Code, cookies)
	}
}

// A visible writer shows what it writes to, a hidden one does not.
type (
	visible struct{ http.ResponseWriter }
	hidden  struct{ w http.ResponseWriter }
)

func (w visible) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w hidden) Header() http.Header         { return w.w.Header() }
func (w hidden) Write(p []byte) (int, error) { return w.w.Write(p) }
func (w hidden) WriteHeader(status int)      { w.w.WriteHeader(status) }

func TestReplacedWriter(t *testing.T) {
	replacing := func(replace func(http.ResponseWriter) http.ResponseWriter) echo.MiddlewareFunc {
		return func(next echo.HandlerFunc) echo.HandlerFunc {
			return func(c *echo.Context) error {
				c.SetResponse(replace(c.Response()))
				return next(c)
			}
		}
	}
	asVisible := replacing(func(w http.ResponseWriter) http.ResponseWriter { return visible{w} })
	asHidden := replacing(func(w http.ResponseWriter) http.ResponseWriter { return hidden{w} })
	install := echov5.Middleware[User](newConfig())
	for _, tt := range []struct {
		name       string
		middleware []echo.MiddlewareFunc
		knows      bool // when the header is sent
	}{
		{"with Unwrap, behind the middleware", []echo.MiddlewareFunc{install, asVisible}, true},
		{"with Unwrap, before the middleware", []echo.MiddlewareFunc{asVisible, install}, true},
		{"without Unwrap, behind the middleware", []echo.MiddlewareFunc{install, asHidden}, true},
		{"without Unwrap, before the middleware", []echo.MiddlewareFunc{asHidden, install}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var again error
			e := newEcho(echo.Config{})
			e.Use(tt.middleware...)
			e.POST("/", create(func(c *echo.Context, sess *echosession.Session[User]) error {
				if tt.knows {
					_ = setPublic(c, sess)
				}
				_, _ = io.WriteString(c.Response(), "hello")
				_, again = sess.Create(c.Request().Context(), User{"Eve"})
				return nil
			}))
			rec := httptest.NewRecorder()
			e.ServeHTTP(rec, httptest.NewRequest(http.MethodPost, "/", nil))
			if rec.Code != 200 || rec.Body.String() != "hello" || len(rec.Result().Cookies()) != 1 ||
				rec.Result().Header.Get("Cache-Control") != "private, no-store" {
				t.Errorf("%d %v %q", rec.Code, rec.Result().Header, rec.Body)
			}
			if errors.Is(again, echosession.ErrRequestOver) != tt.knows {
				t.Errorf("Create after the header: %v", again)
			}
		})
	}
}

func TestFieldsOfEchoV4(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(*echosession.Config)
		want string
	}{
		{"Skipper", setSkipper, "echov5: Echo v4 alone honours Config.Skipper; use echov5.WithSkipper and echov5.WithErrorHandler"},
		{"ErrorHandler", setErrorHandler, "echov5: Echo v4 alone honours Config.ErrorHandler; use echov5.WithSkipper and echov5.WithErrorHandler"},
		{"both", func(cfg *echosession.Config) { setSkipper(cfg); setErrorHandler(cfg) },
			"echov5: Echo v4 alone honours Config.Skipper and Config.ErrorHandler; use echov5.WithSkipper and echov5.WithErrorHandler"},
	} {
		cfg := newConfig()
		tt.set(&cfg)
		m, err := echosession.New[User](cfg)
		if err != nil {
			t.Fatal(err)
		}
		if got := panicOf(func() { echov5.Install(m) }); got != tt.want {
			t.Errorf("Install of a Manager with %s panics with %v", tt.name, got)
		}
		if got := panicOf(func() { echov5.Middleware[User](cfg) }); got != tt.want {
			t.Errorf("Middleware of a Config with %s panics with %v", tt.name, got)
		}
	}
	got, _ := panicOf(func() { echov5.Middleware[User](echosession.Config{}) }).(error)
	if got == nil || !strings.Contains(got.Error(), "Secret") {
		t.Errorf("Middleware of an empty Config panics with %v", got)
	}
}

func panicOf(f func()) (v any) {
	defer func() { v = recover() }()
	f()
	return nil
}

// An error that has a form already keeps it.
func TestFormedErrors(t *testing.T) {
	m, err := echosession.New[User](newConfig())
	if err != nil {
		t.Fatal(err)
	}
	e := newEcho(echo.Config{})
	e.Use(echov5.Install(m))
	e.GET("/", func(*echo.Context) error {
		return echo.NewHTTPError(http.StatusTeapot, "short and stout").Wrap(echosession.ErrConflict)
	})
	rec := httptest.NewRecorder()
	e.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/", nil))
	if rec.Code != http.StatusTeapot || rec.Body.String() != `{"message":"short and stout"}`+"\n" {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	// What Echo's error handler gets still matches the sentinel.
	var handled error
	e = newEcho(echo.Config{HTTPErrorHandler: func(_ *echo.Context, err error) { handled = err }})
	e.Use(echov5.Install(m))
	e.GET("/", func(*echo.Context) error { return echosession.ErrConflict })
	e.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	if !errors.Is(handled, echosession.ErrConflict) || echo.StatusCode(handled) != http.StatusConflict {
		t.Errorf("the error handler got %v", handled)
	}
}
