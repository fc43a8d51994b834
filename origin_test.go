package echosession_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

var crossSite = []string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}

// No place but the cookie itself can plant a session in the cookie.
func TestNoOtherPlacePlantsACookie(t *testing.T) {
	s, m := cookieServer(t, mistaken(func(*echosession.Config) {}))
	for name, send := range map[string]func(token string) *http.Request{
		"form": func(token string) *http.Request {
			return s.request(t, "POST", "/rotate", "accessToken="+token, append(crossSite, "Content-Type", formType)...)
		},
		"JSON": func(token string) *http.Request {
			return s.request(t, "POST", "/rotate", `{"accessToken":"`+token+`"}`, "Content-Type", jsonType)
		},
		"query": func(token string) *http.Request {
			return s.request(t, "POST", "/rotate?accessToken="+token, "", crossSite...)
		},
		"header": func(token string) *http.Request {
			return s.request(t, "POST", "/rotate", "", append(crossSite, "X-Access-Token", token)...)
		},
		"bearer": func(token string) *http.Request {
			return s.request(t, "POST", "/rotate", "", append(crossSite, "Authorization", "Bearer "+token)...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.do(t, send(newToken(t, m, "Mallory")))
			if a.StatusCode != http.StatusOK || a.body != "Mallory" || a.Header["Set-Cookie"] != nil {
				t.Errorf("%d %q, Set-Cookie: %q", a.StatusCode, a.body, a.Header["Set-Cookie"])
			}
			a = s.do(t, s.request(t, "POST", "/create", "", "Authorization", "Bearer "+newToken(t, m, "Mallory")))
			if a.StatusCode != http.StatusOK || a.body != "Ada" || a.Header["Set-Cookie"] != nil {
				t.Errorf("Create: %d %q, Set-Cookie: %q", a.StatusCode, a.body, a.Header["Set-Cookie"])
			}
		})
	}
}

// A cross-site request neither sets nor clears the cookie, whether or not the
// browser sent one along.
func TestCrossSiteWritesNoCookie(t *testing.T) {
	for _, path := range []string{"/create", "/create-destroy", "/create-rotate", "/rotate", "/destroy"} {
		for _, with := range []string{"the cookie", "no cookie", "the cookie of a session that is gone", "the same token in a header"} {
			if path == "/rotate" && strings.HasPrefix(with, "no cookie") {
				continue // there is nothing to rotate
			}
			t.Run(path+" with "+with, func(t *testing.T) {
				s, m := cookieServer(t, mistaken(func(c *echosession.Config) { c.SubjectIndex = true }))
				token := newToken(t, m, "Ada")
				headers := slices.Clone(crossSite)
				switch with {
				case "the cookie of a session that is gone":
					s.post(t, "/destroy", token)
					headers = append(headers, "Cookie", "__Host-session="+token)
				case "the same token in a header":
					headers = append(headers, "Authorization", "Bearer "+token, "Cookie", "__Host-session="+token)
				case "the cookie":
					headers = append(headers, "Cookie", "__Host-session="+token)
				}
				a := s.do(t, s.request(t, "POST", path, "", headers...))
				if a.StatusCode != http.StatusForbidden || a.Header["Set-Cookie"] != nil {
					t.Errorf("%d %q, Set-Cookie: %q", a.StatusCode, a.body, a.Header["Set-Cookie"])
				}
				if a := s.get(t, "/get", token); with != "the cookie of a session that is gone" && a.body != "Ada" {
					t.Errorf("the session of before: %q", a.body)
				}
			})
		}
	}
}

func TestRefusalIsLoggedWithAdvice(t *testing.T) {
	var log logBuffer
	clock := newClock()
	s, _ := cookieServer(t, mistaken(func(c *echosession.Config) { c.Logger, c.Now = log.logger(), clock.Now }))
	post := func(headers ...string) {
		t.Helper()
		if a := s.do(t, s.request(t, "POST", "/create", "", headers...)); a.StatusCode != http.StatusForbidden {
			t.Fatal(a.StatusCode, a.body)
		}
	}
	post("Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site")
	if log.String() != "" {
		t.Errorf("a browser's own word needs no advice: %s", log.String())
	}
	long := "https://" + strings.Repeat("x", 10_000)
	for range 3 {
		post("Origin", "https://public.example")
	}
	clock.Advance(time.Second)
	post("Origin", long)
	got := log.String()
	if n := strings.Count(got, "\n"); n != 2 || !strings.Contains(got, "TrustedOrigins") ||
		!strings.Contains(got, "origin=https://public.example") || !strings.Contains(got, "refused=3") || len(got) > 1500 {
		t.Errorf("%d lines:\n%s", n, got)
	}
}

func TestWebSocketIsUnsafeHoweverItAsks(t *testing.T) {
	s, m := cookieServer(t, mistaken(func(*echosession.Config) {}))
	cookie := []string{"Cookie", "__Host-session=" + newToken(t, m, "Ada"), "Sec-Fetch-Site", "cross-site"}
	for _, upgrade := range [][]string{{"websocket"}, {"WebSocket"}, {"h2c, websocket"}, {"websocket/13"}, {"h2c", "websocket"}, {"x,websocket/13 , y"}} {
		headers := slices.Clone(cookie)
		for _, v := range upgrade {
			headers = append(headers, "Upgrade", v)
		}
		if a := s.do(t, s.request(t, "GET", "/get", "", headers...)); a.body != "cross-origin" {
			t.Errorf("%q: %q", upgrade, a.body)
		}
	}
	for _, upgrade := range []string{"h2c", "websockets", "TLS/1.0"} {
		if a := s.do(t, s.request(t, "GET", "/get", "", append(cookie, "Upgrade", upgrade)...)); a.body != "Ada" {
			t.Errorf("%q: %q", upgrade, a.body)
		}
	}
}

func TestNoHostMatchesNoOrigin(t *testing.T) {
	m := newManager[User](t, mistaken(func(c *echosession.Config) { c.Cookie = &echosession.Cookie{} }))
	token := newToken(t, m, "Ada")
	for _, origin := range []string{"null", "file://", "about:blank", "https://evil.example"} {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.Host = "" // HTTP/1.0
		r.Header.Set("Origin", origin)
		r.Header.Set("Cookie", "__Host-session="+token)
		serve(t, m, r, func(_ echo.Context, sess *echosession.Session[User]) {
			if !errors.Is(sess.Reason(), echosession.ErrCrossOrigin) {
				t.Errorf("Origin %s: %v", origin, sess.Reason())
			}
		})
	}
}

// A panic in the first Get leaves a request without a session.
func TestPanicInTheFirstGetFailsClosed(t *testing.T) {
	type state struct {
		request func(token string) *http.Request
		broken  func(*echosession.Config)
	}
	withBearer := func(token string) *http.Request {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		return r
	}
	for name, tt := range map[string]state{
		"store": {withBearer, func(c *echosession.Config) { c.Store = panickingStore{c.Store} }},
		"logger": {withBearer, func(c *echosession.Config) {
			c.Store = corruptStore{c.Store}
			c.Logger = slog.New(panickingHandler{slog.DiscardHandler})
		}},
		"body": {func(string) *http.Request {
			r := httptest.NewRequest(http.MethodPost, "/", panickingReader{})
			r.Header.Set("Content-Type", jsonType)
			return r
		}, func(*echosession.Config) {}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := mistaken(func(*echosession.Config) {})
			token := newToken(t, newManager[User](t, cfg), "Ada")
			tt.broken(&cfg)
			m := newManager[User](t, cfg)
			e := echo.New()
			e.Use(m.Middleware(), func(next echo.HandlerFunc) echo.HandlerFunc {
				return func(c echo.Context) error {
					func() {
						defer func() {
							if recover() == nil {
								t.Error("Get did not panic")
							}
						}()
						_, _ = m.Get(c)
					}()
					return next(c)
				}
			})
			reached := false
			e.POST("/", func(c echo.Context) error { reached = true; return nil }, m.Require())
			rec := httptest.NewRecorder()
			e.ServeHTTP(rec, tt.request(token))
			if reached || rec.Code != http.StatusServiceUnavailable {
				t.Errorf("%d %s, handler reached: %v", rec.Code, rec.Body, reached)
			}
		})
	}
}

type panickingStore struct{ echosession.Store }

func (panickingStore) Load(context.Context, echosession.Ref, time.Duration) ([]byte, error) {
	panic("the store panics")
}

type corruptStore struct{ echosession.Store }

func (corruptStore) Load(context.Context, echosession.Ref, time.Duration) ([]byte, error) {
	return []byte("no record"), nil
}

type panickingHandler struct{ slog.Handler }

func (panickingHandler) Enabled(context.Context, slog.Level) bool { panic("the logger panics") }

type panickingReader struct{}

func (panickingReader) Read([]byte) (int, error) { panic("the body panics") }

// A token that was rotated away is not put into a cookie again: arriving last, it
// would take the place of its successor.
func TestRotatedTokenIsNotSetAgain(t *testing.T) {
	eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
		cfg.Cookie = &echosession.Cookie{Persistent: true}
		cfg.MaxAge, cfg.TouchInterval, cfg.RotateGrace = 100*time.Second, time.Second, 50*time.Second
		s, m := cookieServer(t, cfg)
		old := newToken(t, m, "Ada")
		cookie := []string{"Cookie", "__Host-session=" + old}
		if a := s.do(t, s.request(t, "POST", "/rotate", "", cookie...)); a.StatusCode != http.StatusOK || len(a.Cookies()) != 1 {
			t.Fatal(a.StatusCode, a.Cookies())
		}
		clock.Advance(20 * time.Second)
		for _, path := range []string{"/get", "/touch", "/update", "/reload"} {
			a := s.do(t, s.request(t, "POST", path, "", cookie...))
			if a.body != "Ada" || a.Header["Set-Cookie"] != nil {
				t.Errorf("%s: %q, Set-Cookie: %q", path, a.body, a.Header["Set-Cookie"])
			}
		}
	})
}

// An answer whose session ended after Get leaves the cookie alone: the browser may
// hold a newer one.
func TestNoCookieAfterTheSessionEnded(t *testing.T) {
	eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
		cfg.Cookie = &echosession.Cookie{Persistent: true}
		cfg.MaxAge, cfg.SubjectIndex = time.Hour, true
		m := newManager[User](t, cfg)
		s := newServer(t, m.Middleware())
		for name, call := range sessionCalls {
			route(s, m, "/"+name, func(c echo.Context, sess *echosession.Session[User]) error {
				ctx := c.Request().Context()
				if len(c.Response().Header()["Set-Cookie"]) != 1 {
					t.Error("Get did not renew the cookie")
				}
				if _, err := m.RevokeSubject(ctx, "ada"); err != nil {
					return err
				}
				if err := call(ctx, sess); !errors.Is(err, echosession.ErrSessionGone) {
					t.Errorf("after the revocation: %v", err)
				}
				return sess.Destroy(ctx)
			})
		}
		for name := range sessionCalls {
			sess, err := m.Create(t.Context(), User{Name: "Ada"}, echosession.WithSubject("ada"))
			if err != nil {
				t.Fatal(err)
			}
			clock.Advance(10 * time.Minute)
			a := s.do(t, s.request(t, "POST", "/"+name, "", "Cookie", "__Host-session="+sess.Token()))
			if a.StatusCode != http.StatusOK || a.Header["Set-Cookie"] != nil {
				t.Errorf("%s: %d %s, Set-Cookie: %q", name, a.StatusCode, a.body, a.Header["Set-Cookie"])
			}
		}
	})
}

// A body is searched for the configured fields alone, in bounded work.
func TestHostileBodiesCostLittle(t *testing.T) {
	m := newManager[User](t, mistaken(func(*echosession.Config) {}))
	e := echo.New()
	e.Use(m.Middleware())
	e.POST("/", func(c echo.Context) error {
		_, err := m.Get(c)
		return err
	})
	fill := func(unit string) string { return strings.Repeat(unit, (1<<20-100)/len(unit)) }
	part := "--b\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n"
	for name, tt := range map[string]struct {
		contentType, body string
		most              float64 // allocations; the race detector makes some 15 more
	}{
		"JSON of empty names":       {jsonType, "{" + fill(`"":0,`) + `"":0}`, 100},
		"JSON of escaped names":     {jsonType, "{" + fill(`"\u0061":0,`) + `"":0}`, 100},
		"JSON of distinct names":    {jsonType, "{" + distinct(`"%d":[],`, 80_000) + `"":0}`, 100},
		"JSON of nested objects":    {jsonType, `{"a":` + fill(`{"a":`), 100},
		"JSON of the field":         {jsonType, "{" + fill(`"accessToken":0,`) + `"":0}`, 100},
		"form of empty fields":      {formType, fill("a&"), 100},
		"form of distinct fields":   {formType, distinct("%d&", 100_000), 100},
		"form of escaped fields":    {formType, fill("%61=%61&"), 100},
		"multipart of small parts":  {"multipart/form-data; boundary=b", fill(part) + "--b--\r\n", 15_000},
		"multipart of a large file": {"multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=accessToken; filename=f\r\n\r\n" + fill("x") + "\r\n--b--\r\n", 200},
	} {
		t.Run(name, func(t *testing.T) {
			if len(tt.body) > 1<<20 {
				t.Fatalf("%d bytes are not looked at", len(tt.body))
			}
			body := bytes.NewReader(nil)
			send := func() {
				body.Reset([]byte(tt.body))
				r := httptest.NewRequest(http.MethodPost, "/", body)
				r.Header.Set("Content-Type", tt.contentType)
				e.ServeHTTP(httptest.NewRecorder(), r)
			}
			if got := leastAllocs(1, send); got > tt.most {
				t.Errorf("%.0f allocations, want at most %.0f", got, tt.most)
			}
		})
	}
}

// distinct fills a text with units that differ.
func distinct(unit string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, unit, i)
	}
	return b.String()
}

// A recipe for routes that need a recent login leaves unknown paths alone.
func TestStepUpLeavesUnknownPathsAlone(t *testing.T) {
	clock := newClock()
	m := newManager[User](t, mistaken(func(c *echosession.Config) { c.Now = clock.Now }))
	s := newServer(t, m.Middleware())
	private := s.Group("/account", m.Require())
	recent := m.Require(echosession.Fresh(5 * time.Minute))
	ok := func(c echo.Context) error { return c.NoContent(http.StatusNoContent) }
	private.GET("", ok)
	private.POST("/password", ok, recent)
	token := newToken(t, m, "Ada")
	clock.Advance(10 * time.Minute)
	for _, tt := range []struct {
		method, path, token string
		status              int
	}{
		{"GET", "/unknown", "", 404},
		{"GET", "/account", token, 204},
		{"GET", "/account", "", 401},
		{"POST", "/account/password", token, 401},
		{"POST", "/account/password", newToken(t, m, "Ada"), 204},
	} {
		r := s.request(t, tt.method, tt.path, "")
		if tt.token != "" {
			r.Header.Set("Authorization", "Bearer "+tt.token)
		}
		if a := s.do(t, r); a.StatusCode != tt.status {
			t.Errorf("%s %s: %d, want %d", tt.method, tt.path, a.StatusCode, tt.status)
		}
	}
}
