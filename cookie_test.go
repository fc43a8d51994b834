package echosession_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

// cookieServer has routes that are called like the methods that they call.
func cookieServer(t testing.TB, cfg echosession.Config) (*server, *echosession.Manager[User]) {
	t.Helper()
	if cfg.Cookie == nil {
		cfg.Cookie = &echosession.Cookie{}
	}
	m := newManager[User](t, cfg)
	s := newServer(t, m.Middleware())
	for path, fn := range map[string]func(context.Context, *echosession.Session[User]) error{
		"/get": func(context.Context, *echosession.Session[User]) error { return nil },
		"/create": func(ctx context.Context, sess *echosession.Session[User]) error {
			_, err := sess.Create(ctx, User{Name: "Ada"})
			return err
		},
		"/create-destroy": func(ctx context.Context, sess *echosession.Session[User]) error {
			if _, err := sess.Create(ctx, User{Name: "Ada"}); err != nil {
				return err
			}
			return sess.Destroy(ctx)
		},
		"/create-rotate": func(ctx context.Context, sess *echosession.Session[User]) error {
			if _, err := sess.Create(ctx, User{Name: "Ada"}); err != nil {
				return err
			}
			_, err := sess.Rotate(ctx)
			return err
		},
		"/rotate": func(ctx context.Context, sess *echosession.Session[User]) error {
			_, err := sess.Rotate(ctx)
			return err
		},
		"/destroy": func(ctx context.Context, sess *echosession.Session[User]) error { return sess.Destroy(ctx) },
		"/touch":   func(ctx context.Context, sess *echosession.Session[User]) error { return sess.Touch(ctx) },
		"/reload":  func(ctx context.Context, sess *echosession.Session[User]) error { return sess.Reload(ctx) },
		"/update": func(ctx context.Context, sess *echosession.Session[User]) error {
			return sess.Update(ctx, func(u *User) error { u.Count++; return nil })
		},
	} {
		route(s, m, path, func(c echo.Context, sess *echosession.Session[User]) error {
			if err := fn(c.Request().Context(), sess); err != nil {
				return err
			}
			return c.String(http.StatusOK, outcome(sess))
		})
	}
	return s, m
}

// theCookie returns the one Set-Cookie line of an answer, with TOKEN for the
// token, and the token.
func theCookie(t testing.TB, a answer) (line, token string) {
	t.Helper()
	lines := a.Header["Set-Cookie"]
	if len(lines) != 1 {
		t.Fatalf("%d %s: Set-Cookie: %q", a.StatusCode, a.body, lines)
	}
	token = a.Cookies()[0].Value
	if token == "" {
		return lines[0], ""
	}
	return strings.Replace(lines[0], token, "TOKEN", 1), token
}

func TestCookieAttributes(t *testing.T) {
	for name, tt := range map[string]struct {
		cookie          echosession.Cookie
		created, ending string
	}{
		"defaults": {
			created: "__Host-session=TOKEN; Path=/; HttpOnly; Secure; SameSite=Lax",
			ending:  "__Host-session=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax",
		},
		"persistent": {
			cookie:  echosession.Cookie{Persistent: true},
			created: "__Host-session=TOKEN; Path=/; Max-Age=86400; HttpOnly; Secure; SameSite=Lax",
			ending:  "__Host-session=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax",
		},
		"insecure": {
			cookie:  echosession.Cookie{Insecure: true},
			created: "session=TOKEN; Path=/; HttpOnly; SameSite=Lax",
			ending:  "session=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax",
		},
		"domain, path and strict": {
			cookie:  echosession.Cookie{Name: "sid", Domain: "example.com", Path: "/app", SameSite: http.SameSiteStrictMode},
			created: "sid=TOKEN; Path=/app; Domain=example.com; HttpOnly; Secure; SameSite=Strict",
			ending:  "sid=; Path=/app; Domain=example.com; Max-Age=0; HttpOnly; Secure; SameSite=Strict",
		},
		"none": {
			cookie:  echosession.Cookie{SameSite: http.SameSiteNoneMode},
			created: "__Host-session=TOKEN; Path=/; HttpOnly; Secure; SameSite=None",
			ending:  "__Host-session=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=None",
		},
	} {
		t.Run(name, func(t *testing.T) {
			clock := newClock()
			cfg := mistaken(func(c *echosession.Config) { c.Cookie, c.Now = &tt.cookie, clock.Now })
			s, _ := cookieServer(t, cfg)
			created, token := theCookie(t, s.post(t, "/create", ""))
			if created != tt.created {
				t.Errorf("Create sets %q, want %q", created, tt.created)
			}
			name, _, _ := strings.Cut(created, "=")
			post := func(path, token string) answer {
				return s.do(t, s.request(t, "POST", path, "", "Cookie", name+"="+token))
			}
			rotated, newToken := theCookie(t, post("/rotate", token))
			if rotated != tt.created || newToken == token {
				t.Errorf("Rotate sets %q, want %q", rotated, tt.created)
			}
			if ending, _ := theCookie(t, post("/destroy", newToken)); ending != tt.ending {
				t.Errorf("Destroy sets %q, want %q", ending, tt.ending)
			}
		})
	}
}

func TestCookieCarriesTheSession(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		s, _ := cookieServer(t, cfg)
		_, token := theCookie(t, s.post(t, "/create", ""))
		with := func(method, path, token string) answer {
			return s.do(t, s.request(t, method, path, "", "Cookie", "__Host-session="+token))
		}
		if a := with("GET", "/get", token); a.body != "Ada" {
			t.Error(a.StatusCode, a.body)
		}
		_, next := theCookie(t, with("POST", "/rotate", token))
		if a := with("GET", "/get", next); a.body != "Ada" {
			t.Error(a.StatusCode, a.body)
		}
		theCookie(t, with("POST", "/destroy", next))
		if a := with("GET", "/get", next); a.body != "gone" {
			t.Error(a.StatusCode, a.body)
		}
	})
}

func TestDestroyClearsTheCookieOfWhatIsGone(t *testing.T) {
	s, m := cookieServer(t, mistaken(func(*echosession.Config) {}))
	token := newToken(t, m, "Ada")
	const cleared = "__Host-session=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax"
	for _, value := range []string{token, token, "damaged", ""} {
		if line, _ := theCookie(t, s.do(t, s.request(t, "POST", "/destroy", "", "Cookie", "__Host-session="+value))); line != cleared {
			t.Errorf("%q: %q", value, line)
		}
	}
	double := "__Host-session=a; __Host-session=b"
	if line, _ := theCookie(t, s.do(t, s.request(t, "POST", "/destroy", "", "Cookie", double))); line != cleared {
		t.Errorf("two cookies: %q", line)
	}
}

func TestOneSetCookieLineForEachName(t *testing.T) {
	s, m := cookieServer(t, mistaken(func(*echosession.Config) {}))
	s.Pre(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			c.SetCookie(&http.Cookie{Name: "__Host-session2", Value: "of others"})
			c.SetCookie(&http.Cookie{Name: "theme", Value: "__Host-session="})
			return next(c)
		}
	})
	old := newToken(t, m, "Ada")
	for _, tt := range []struct {
		path  string
		alive bool
	}{{"/create", true}, {"/create-rotate", true}, {"/create-destroy", false}} {
		a := s.do(t, s.request(t, "POST", tt.path, "", "Cookie", "__Host-session="+old))
		lines := a.Header["Set-Cookie"]
		if len(lines) != 3 {
			t.Fatalf("%s: Set-Cookie: %q", tt.path, lines)
		}
		value := a.Cookies()[2].Value
		if (value != "") != tt.alive {
			t.Errorf("%s: %q", tt.path, value)
		}
		if tt.alive {
			if a := s.get(t, "/get", value); a.body != "Ada" {
				t.Errorf("%s: the last word is %q", tt.path, a.body)
			}
		}
	}
}

func TestPersistentCookieIsRenewed(t *testing.T) {
	eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
		cfg.Cookie = &echosession.Cookie{Persistent: true}
		cfg.MaxAge, cfg.TouchInterval = time.Hour, time.Minute
		s, m := cookieServer(t, cfg)
		token := newToken(t, m, "Ada")
		with := func(path string, headers ...string) []string {
			a := s.do(t, s.request(t, "POST", path, "", headers...))
			if a.body != "Ada" {
				t.Fatal(path, a.StatusCode, a.body)
			}
			return a.Header["Set-Cookie"]
		}
		inCookie := []string{"Cookie", "__Host-session=" + token}
		inHeader := []string{"Authorization", "Bearer " + token}
		renewed := "__Host-session=" + token + "; Path=/; Max-Age=3600; HttpOnly; Secure; SameSite=Lax"
		check := func(what string, got []string, renew bool) {
			t.Helper()
			if renew && (len(got) != 1 || got[0] != renewed) || !renew && got != nil {
				t.Errorf("%s: %q", what, got)
			}
		}
		clock.Advance(59 * time.Second)
		check("a use that needs no touch", with("/get", inCookie...), false)
		clock.Advance(time.Second)
		check("a use that touches", with("/get", inCookie...), false)
		clock.Advance(5 * time.Minute)
		check("a use after a tenth of the idle timeout", with("/get", inCookie...), true)
		check("another one", with("/get", inCookie...), false)
		check("a touch on demand", with("/touch", inCookie...), true)
		check("a touch on demand of a header's session", with("/touch", inHeader...), false)
		clock.Advance(6 * time.Minute)
		check("a use that touches, by header", with("/get", inHeader...), false)
		check("token in both places", with("/get", append(inCookie, inHeader...)...), true)
		clock.Advance(6 * time.Minute)
		check("token in both places, from another site", with("/get", slices.Concat(inCookie, inHeader, crossSite)...), false)
		check("and then from here", with("/get", inCookie...), true)
		// Uses that touch without telling the cookie must not keep it from being
		// renewed for ever.
		for range 3 {
			clock.Advance(30 * time.Second)
			with("/update", inHeader...)
			with("/reload", inHeader...)
		}
		check("after updates and reloads", with("/get", inCookie...), false)
		for _, path := range []string{"/update", "/reload"} {
			n := 0
			for range 8 {
				clock.Advance(90 * time.Second)
				n += len(with(path, inCookie...))
			}
			if n != 2 {
				t.Errorf("%s for twelve minutes: renewed %d times", path, n)
			}
		}
	})
}

func TestSessionCookieIsNotRenewed(t *testing.T) {
	s, m := cookieServer(t, mistaken(func(c *echosession.Config) { c.TouchInterval = echosession.TouchAlways }))
	cookie := "__Host-session=" + newToken(t, m, "Ada")
	for _, path := range []string{"/get", "/touch"} {
		if a := s.do(t, s.request(t, "POST", path, "", "Cookie", cookie)); a.body != "Ada" || a.Header["Set-Cookie"] != nil {
			t.Error(path, a.body, a.Header["Set-Cookie"])
		}
	}
}

func TestCookieLivesAsLongAsTheSession(t *testing.T) {
	clock := newClock()
	m := newManager[User](t, mistaken(func(c *echosession.Config) {
		c.Cookie, c.Now = &echosession.Cookie{Persistent: true}, clock.Now
		c.AbsoluteTimeout = 48 * time.Hour
	}))
	s := newServer(t, m.Middleware())
	var opts []echosession.CreateOption
	route(s, m, "/create", func(c echo.Context, sess *echosession.Session[User]) error {
		_, err := sess.Create(c.Request().Context(), User{}, opts...)
		return err
	})
	for _, tt := range []struct {
		opt  echosession.CreateOption
		want int
	}{
		{echosession.WithMaxAge(2 * time.Hour), 2 * 3600},
		{echosession.WithMaxAge(72 * time.Hour), 48 * 3600},
		{echosession.WithMaxAge(time.Millisecond), 1},
		{echosession.WithClaims(echosession.Claims{"exp": clock.Now().Add(time.Hour)}), 3600},
	} {
		opts = []echosession.CreateOption{tt.opt}
		if got := s.post(t, "/create", "").Cookies()[0].MaxAge; got != tt.want {
			t.Errorf("Max-Age=%d, want %d", got, tt.want)
		}
	}
}

func TestCrossOrigin(t *testing.T) {
	s, m := cookieServer(t, mistaken(func(c *echosession.Config) { c.TrustedOrigins = []string{"https://app.example"} }))
	token := newToken(t, m, "Ada")
	cookie := []string{"Cookie", "__Host-session=" + token}
	bearer := []string{"Authorization", "Bearer " + token}
	for name, tt := range map[string]struct {
		method  string
		carrier []string
		headers []string
		refused bool
	}{
		"POST from another site":            {"POST", cookie, []string{"Sec-Fetch-Site", "cross-site"}, true},
		"POST from a sibling":               {"POST", cookie, []string{"Sec-Fetch-Site", "same-site"}, true},
		"PUT from another origin":           {"PUT", cookie, []string{"Origin", "https://evil.example"}, true},
		"DELETE from a sandbox":             {"DELETE", cookie, []string{"Origin", "null"}, true},
		"POST from here":                    {"POST", cookie, []string{"Sec-Fetch-Site", "same-origin"}, false},
		"POST by the user":                  {"POST", cookie, []string{"Sec-Fetch-Site", "none"}, false},
		"POST from here, by Origin":         {"POST", cookie, []string{"Origin", s.url}, false},
		"POST of no browser":                {"POST", cookie, nil, false},
		"POST from a trusted origin":        {"POST", cookie, []string{"Origin", "https://app.example", "Sec-Fetch-Site", "cross-site"}, false},
		"POST from what looks trusted":      {"POST", cookie, []string{"Origin", "https://app.example.evil", "Sec-Fetch-Site", "cross-site"}, true},
		"GET from another site":             {"GET", cookie, []string{"Sec-Fetch-Site", "cross-site"}, false},
		"HEAD from another site":            {"HEAD", cookie, []string{"Sec-Fetch-Site", "cross-site"}, false},
		"bearer from another site":          {"POST", bearer, []string{"Sec-Fetch-Site", "cross-site"}, false},
		"both from another site":            {"POST", append(bearer, cookie...), []string{"Sec-Fetch-Site", "cross-site"}, false},
		"WebSocket from another site":       {"GET", cookie, []string{"Sec-Fetch-Site", "cross-site", "Upgrade", "websocket"}, true},
		"WebSocket from another origin":     {"GET", cookie, []string{"Origin", "https://evil.example", "Upgrade", "WebSocket"}, true},
		"WebSocket from here":               {"GET", cookie, []string{"Origin", s.url, "Upgrade", "websocket"}, false},
		"WebSocket from a trusted origin":   {"GET", cookie, []string{"Origin", "https://app.example", "Upgrade", "websocket"}, false},
		"WebSocket with bearer":             {"GET", bearer, []string{"Origin", "https://evil.example", "Upgrade", "websocket"}, false},
		"bad token in a cookie, cross-site": {"POST", []string{"Cookie", "__Host-session=bad"}, []string{"Sec-Fetch-Site", "cross-site"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			want := "Ada"
			if tt.refused {
				want = "cross-origin"
			}
			if tt.method == "HEAD" {
				want = ""
			}
			if a := s.do(t, s.request(t, tt.method, "/get", "", append(tt.carrier, tt.headers...)...)); a.body != want {
				t.Errorf("%d %q, want %q", a.StatusCode, a.body, want)
			}
		})
	}

	t.Run("no method acts on the session", func(t *testing.T) {
		for _, path := range []string{"/update", "/touch", "/rotate", "/reload", "/destroy"} {
			a := s.do(t, s.request(t, "POST", path, "", append(cookie, "Sec-Fetch-Site", "cross-site")...))
			if a.StatusCode != http.StatusForbidden || a.Header["Set-Cookie"] != nil {
				t.Errorf("%s: %d %q", path, a.StatusCode, a.Header["Set-Cookie"])
			}
		}
		if a := s.get(t, "/get", token); a.body != "Ada" {
			t.Errorf("afterwards: %q", a.body)
		}
	})
}

func TestTokenTooLargeForACookie(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		cfg.SubjectIndex = true
		cfg.StoreTimeout = 10 * time.Second
		cfg.Cookie = &echosession.Cookie{}
		m := newManager[User](t, cfg)
		claims := func(n int) echosession.CreateOption {
			return echosession.WithClaims(echosession.Claims{"pad": strings.Repeat("x", n)})
		}
		subject := echosession.WithSubject("ada")
		if _, err := m.Create(t.Context(), User{}, subject, claims(4<<10)); !errors.Is(err, echosession.ErrTooLarge) {
			t.Fatal(err)
		}
		if list, err := m.List(t.Context(), "ada"); err != nil || len(list) != 0 {
			t.Errorf("stored all the same: %v, %v", list, err)
		}
		// 4096 bytes of name and value are what browsers take.
		size := 0
		tooLarge := sort.Search(4<<10, func(n int) bool {
			sess, err := m.Create(t.Context(), User{}, subject, claims(n))
			if err == nil {
				size = max(size, len("__Host-session")+len(sess.Token()))
			}
			return err != nil
		})
		if size > 4096 || size < 4090 {
			t.Errorf("the largest cookie has %d bytes, with a claim of %d", size, tooLarge-1)
		}
		cfg.Cookie = nil
		if _, err := newManager[User](t, cfg).Create(t.Context(), User{}, claims(4<<10)); err != nil {
			t.Errorf("without a cookie: %v", err)
		}
		if _, err := newManager[User](t, cfg).Create(t.Context(), User{}, claims(9<<10)); !errors.Is(err, echosession.ErrTooLarge) {
			t.Errorf("over 8 KiB: %v", err)
		}
	})
}
