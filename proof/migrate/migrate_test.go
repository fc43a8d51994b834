package migrate

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alexedwards/scs/goredisstore"
	"github.com/alexedwards/scs/v2"
	"github.com/boj/redistore"
	"github.com/golang-jwt/jwt/v5"
	"github.com/gorilla/sessions"
	echojwt "github.com/labstack/echo-jwt/v4"
	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession/internal/redistest"
)

var (
	newSecret   = bytes.Repeat([]byte("n"), 32)
	carrySecret = bytes.Repeat([]byte("c"), 32)
	oldSecret   = bytes.Repeat([]byte("o"), 32)
)

// A library is one whose users are carried over: the service as it was, with /login,
// /me and /logout, and the middleware of the service that takes its place.
type library struct {
	cookie string
	old    func(t *testing.T, rdb *redis.Client) http.Handler
	carry  func(t *testing.T, rdb *redis.Client) (*carrier, echo.MiddlewareFunc)
	// stateless: the old library has no store, so it knows nothing of logouts.
	stateless bool
}

var libraries = map[string]library{
	"gorilla":  {"session-name", oldGorilla, carryGorilla, false},
	"scs":      {"session", oldSCS, carrySCS, false},
	"echo-jwt": {"token", oldEchoJWT, carryEchoJWT, true},
}

func newRedistore(t *testing.T, rdb *redis.Client) *redistore.RediStore {
	t.Helper()
	store, err := redistore.NewRediStore(10, "tcp", rdb.Options().Addr, "", "", oldSecret)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

func oldGorilla(t *testing.T, rdb *redis.Client) http.Handler {
	store := newRedistore(t, rdb)
	mux := http.NewServeMux()
	handle := func(path string, fn func(*sessions.Session) string) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			session, err := store.Get(r, "session-name")
			if err != nil {
				http.Error(w, "", http.StatusInternalServerError)
				return
			}
			answer := fn(session)
			if answer == "" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			if err := session.Save(r, w); err != nil {
				t.Error(err)
			}
			fmt.Fprint(w, answer)
		})
	}
	handle("/login", func(s *sessions.Session) string {
		s.Values["name"], s.Values["count"] = "Ada", 10
		return "in"
	})
	handle("/me", func(s *sessions.Session) string { name, _ := s.Values["name"].(string); return name })
	handle("/logout", func(s *sessions.Session) string { s.Options.MaxAge = -1; return "out" })
	return mux
}

func carryGorilla(t *testing.T, rdb *redis.Client) (*carrier, echo.MiddlewareFunc) {
	k, err := newCarrier(rdb, newSecret, carrySecret, "session-name", importRedistore())
	if err != nil {
		t.Fatal(err)
	}
	return k, k.moving(rdb, redistoreKey(newRedistore(t, rdb)))
}

func oldSCS(t *testing.T, rdb *redis.Client) http.Handler {
	manager := scs.New()
	manager.Store = goredisstore.New(rdb)
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(_ http.ResponseWriter, r *http.Request) {
		manager.Put(r.Context(), "name", "Ada")
		manager.Put(r.Context(), "count", 10)
	})
	mux.HandleFunc("/me", func(w http.ResponseWriter, r *http.Request) {
		if !manager.Exists(r.Context(), "name") {
			w.WriteHeader(http.StatusUnauthorized)
		}
		fmt.Fprint(w, manager.GetString(r.Context(), "name"))
	})
	mux.HandleFunc("/logout", func(_ http.ResponseWriter, r *http.Request) {
		if err := manager.Destroy(r.Context()); err != nil {
			t.Error(err)
		}
	})
	return manager.LoadAndSave(mux)
}

func carrySCS(t *testing.T, rdb *redis.Client) (*carrier, echo.MiddlewareFunc) {
	k, err := newCarrier(rdb, newSecret, carrySecret, "session", importSCS())
	if err != nil {
		t.Fatal(err)
	}
	return k, k.moving(rdb, scsKey())
}

func oldEchoJWT(t *testing.T, _ *redis.Client) http.Handler {
	e := echo.New()
	var logins atomic.Int64 // or two logins of one second would be one token
	e.POST("/login", func(c echo.Context) error {
		exp := time.Now().Add(time.Hour + time.Duration(logins.Add(1))*time.Second)
		token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, oldClaims{
			jwt.RegisteredClaims{Subject: "ada", ExpiresAt: jwt.NewNumericDate(exp)}, "Ada",
		}).SignedString(oldSecret)
		if err != nil {
			return err
		}
		c.SetCookie(&http.Cookie{Name: "token", Value: token, Path: "/"})
		return c.NoContent(http.StatusOK)
	})
	e.GET("/me", func(c echo.Context) error {
		return c.String(http.StatusOK, c.Get("user").(*jwt.Token).Claims.(*oldClaims).Name)
	}, echojwt.WithConfig(echojwt.Config{
		SigningKey: oldSecret, TokenLookup: "cookie:token",
		NewClaimsFunc: func(echo.Context) jwt.Claims { return new(oldClaims) },
	}))
	return e
}

func carryEchoJWT(t *testing.T, rdb *redis.Client) (*carrier, echo.MiddlewareFunc) {
	k, err := newCarrier(rdb, newSecret, carrySecret, "token", importJSON())
	if err != nil {
		t.Fatal(err)
	}
	return k, k.exchanging(rdb, oldSecret)
}

// A migration is the service as it was, the one that takes its place, and their Redis.
type migration struct {
	rdb      *redis.Client
	old, new *httptest.Server
	// hold is called between carry and the middleware of echosession.
	mu   sync.Mutex
	hold func()
}

func (m *migration) held() func() {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.hold
}

func (m *migration) setHold(hold func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hold = hold
}

func migrate(t *testing.T, lib library) *migration {
	t.Helper()
	rdb := redistest.Start(t).Client(t) // the keys are those of the libraries' defaults
	m := &migration{rdb: rdb}
	m.old = httptest.NewTLSServer(lib.old(t, rdb))
	t.Cleanup(m.old.Close)
	k, carry := lib.carry(t, rdb)
	e := echo.New()
	e.Use(carry, func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if hold := m.held(); hold != nil {
				hold()
			}
			return next(c)
		}
	}, k.sessions.Middleware(), k.rotate, k.sessions.Require())
	e.GET("/me", func(c echo.Context) error {
		sess, err := k.sessions.Get(c)
		if err != nil {
			return err
		}
		return c.String(http.StatusOK, fmt.Sprint(sess.Data().Name, " ", sess.Data().Count, " ", sess.Subject(), " ", sess.CreatedAt().Unix()))
	})
	e.POST("/count", func(c echo.Context) error {
		sess, err := k.sessions.Get(c)
		if err != nil {
			return err
		}
		return sess.Update(c.Request().Context(), func(u *User) error { u.Count++; return nil })
	})
	e.POST("/logout", func(c echo.Context) error {
		sess, err := k.sessions.Get(c)
		if err != nil {
			return err
		}
		return sess.Destroy(c.Request().Context())
	})
	m.new = httptest.NewTLSServer(e)
	t.Cleanup(m.new.Close)
	t.Cleanup(func() { redistest.AssertNoKeyWithoutTTL(t, rdb, "") })
	return m
}

// A browser keeps cookies, for both services are on one host.
type browser struct {
	t      *testing.T
	client *http.Client
	bearer string // sent in Authorization
}

func newBrowser(t *testing.T, cookies ...*http.Cookie) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	jar.SetCookies(&url.URL{Scheme: "https", Host: "127.0.0.1"}, cookies)
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(transport.CloseIdleConnections)
	return &browser{t: t, client: &http.Client{Jar: jar, Transport: transport, Timeout: 20 * time.Second}}
}

func (b *browser) cookies() map[string]*http.Cookie {
	cookies := make(map[string]*http.Cookie)
	for _, c := range b.client.Jar.Cookies(&url.URL{Scheme: "https", Host: "127.0.0.1"}) {
		c.Path, c.Secure = "/", true
		cookies[c.Name] = c
	}
	return cookies
}

func (b *browser) do(s *httptest.Server, method, path string) (status int, body string) {
	b.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, s.URL+path, nil)
	if err != nil {
		b.t.Error(err)
		return 0, ""
	}
	if b.bearer != "" {
		r.Header.Set("Authorization", "Bearer "+b.bearer)
	}
	resp, err := b.client.Do(r)
	if err != nil {
		b.t.Error(err)
		return 0, ""
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Error(err)
	}
	return resp.StatusCode, string(content)
}

// login logs in to the service as it was and returns the old cookie.
func (b *browser) login(m *migration, lib library) *http.Cookie {
	b.t.Helper()
	if status, body := b.do(m.old, http.MethodPost, "/login"); status != http.StatusOK {
		b.t.Fatal(status, body)
	}
	if status, body := b.do(m.old, http.MethodGet, "/me"); status != http.StatusOK || body != "Ada" {
		b.t.Fatal(status, body)
	}
	old := b.cookies()[lib.cookie]
	if old == nil {
		b.t.Fatal("no cookie")
	}
	return old
}

func eachLibrary(t *testing.T, test func(t *testing.T, lib library, m *migration)) {
	t.Helper()
	for name, lib := range libraries {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, lib, migrate(t, lib))
		})
	}
}

// graceOver waits until an old cookie leads nowhere: RotateGrace is 10 seconds.
func graceOver(t *testing.T, m *migration) {
	t.Helper()
	iter := m.rdb.Scan(t.Context(), 0, "sess:*", 0).Iterator()
	for iter.Next(t.Context()) {
		if ttl := m.rdb.PTTL(t.Context(), iter.Val()).Val(); ttl < 11*time.Second {
			m.rdb.Del(t.Context(), iter.Val()) // as Redis does in a moment
		}
	}
	if err := iter.Err(); err != nil {
		t.Fatal(err)
	}
}

// A user is carried over by the next request, and stays logged in. A copy of the old
// cookie is worth nothing then.
func TestCarriedOver(t *testing.T) {
	eachLibrary(t, func(t *testing.T, lib library, m *migration) {
		b := newBrowser(t)
		old := b.login(m, lib)
		want := "Ada 10  0"
		if lib.stateless {
			want = "Ada 0 ada 0"
		}
		for range 2 {
			if status, body := b.do(m.new, http.MethodGet, "/me"); status != http.StatusOK || body != want {
				t.Fatal(status, body)
			}
			if cookies := b.cookies(); cookies[lib.cookie] != nil || cookies["__Host-session"] == nil {
				t.Fatalf("cookies %v", cookies)
			}
		}
		if token := b.cookies()["__Host-session"].Value; !strings.Contains(decoded(t, token), `"session+jwt"`) {
			t.Errorf("the token is %s", decoded(t, token))
		}
		if !lib.stateless {
			if status, _ := newBrowser(t, old).do(m.old, http.MethodGet, "/me"); status != http.StatusUnauthorized {
				t.Errorf("the old service answers the old cookie with %d", status)
			}
		}
		if status, body := newBrowser(t, old).do(m.new, http.MethodGet, "/me"); status != http.StatusOK || body != want {
			t.Errorf("within the grace: %d %s", status, body)
		}
		graceOver(t, m)
		for range 2 {
			if status, _ := newBrowser(t, old).do(m.new, http.MethodGet, "/me"); status != http.StatusUnauthorized {
				t.Errorf("after the grace the old cookie gets %d", status)
			}
		}
		if status, body := b.do(m.new, http.MethodGet, "/me"); status != http.StatusOK || body != want {
			t.Error(status, body)
		}
	})
}

func decoded(t *testing.T, token string) string {
	t.Helper()
	header, _, _ := strings.Cut(token, ".")
	b, err := base64.RawURLEncoding.DecodeString(header)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Requests that run at the same time, with the old cookie alone, meet in one session, and
// no update is lost.
func TestRequestsAtOnce(t *testing.T) {
	eachLibrary(t, func(t *testing.T, lib library, m *migration) {
		b := newBrowser(t)
		old := b.login(m, lib)
		const requests = 8
		var arrived atomic.Int64
		all := make(chan struct{}) // closed when all of them have passed carry
		m.setHold(func() {
			if arrived.Add(1) == requests {
				close(all)
			}
			select {
			case <-all:
			case <-time.After(10 * time.Second):
				t.Error("a request did not come as far as this")
			}
		})
		var wg sync.WaitGroup
		browsers := make([]*browser, requests)
		for i := range browsers {
			browsers[i] = newBrowser(t, old)
			wg.Go(func() {
				if status, body := browsers[i].do(m.new, http.MethodPost, "/count"); status != http.StatusOK {
					t.Errorf("request %d: %d %s", i, status, body)
				}
			})
		}
		wg.Wait()
		m.setHold(nil)
		var winner *browser
		for _, b := range browsers {
			if b.cookies()["__Host-session"] == nil {
				continue
			}
			if winner != nil {
				t.Error("two requests have a cookie")
			}
			winner = b
		}
		if winner == nil {
			t.Fatal("no request has a cookie")
		}
		want := "Ada 18"
		if lib.stateless {
			want = "Ada 8"
		}
		if status, body := winner.do(m.new, http.MethodGet, "/me"); status != http.StatusOK || !strings.HasPrefix(body, want+" ") {
			t.Errorf("%d %s, want %s", status, body, want)
		}
		graceOver(t, m)
		if keys := m.rdb.Keys(t.Context(), "sess:*").Val(); len(keys) != 1 {
			t.Errorf("the sessions are %q", keys)
		}
	})
}

// A logout stays one: before a request with the old cookie, between its steps, and
// after it.
func TestALogoutIsNotUndone(t *testing.T) {
	eachLibrary(t, func(t *testing.T, lib library, m *migration) {
		gone := func(b *browser, when string) {
			t.Helper()
			if status, body := b.do(m.new, http.MethodGet, "/me"); status != http.StatusUnauthorized {
				t.Errorf("%s: %d %s", when, status, body)
			}
			graceOver(t, m)
			if status, body := b.do(m.new, http.MethodGet, "/me"); status != http.StatusUnauthorized {
				t.Errorf("%s and the grace: %d %s", when, status, body)
			}
			if keys := m.rdb.Keys(t.Context(), "sess:*").Val(); len(keys) != 0 {
				t.Errorf("%s the sessions are %q", when, keys)
			}
		}
		if !lib.stateless {
			b := newBrowser(t)
			old := b.login(m, lib)
			if status, _ := b.do(m.old, http.MethodPost, "/logout"); status != http.StatusOK {
				t.Fatal(status)
			}
			gone(newBrowser(t, old), "after a logout in the old service")
		}

		b := newBrowser(t)
		old := b.login(m, lib)
		if status, _ := b.do(m.new, http.MethodPost, "/logout"); status != http.StatusOK {
			t.Fatal(status)
		}
		if cookies := b.cookies(); len(cookies) != 0 {
			t.Errorf("cookies %v", cookies)
		}
		gone(newBrowser(t, old), "after a logout with the old cookie")

		b = newBrowser(t)
		old = b.login(m, lib)
		var once sync.Once
		m.setHold(func() { // a request beside this one carries the user over and logs out
			once.Do(func() {
				m.setHold(nil)
				if status, _ := b.do(m.new, http.MethodPost, "/logout"); status != http.StatusOK {
					t.Error(status)
				}
			})
		})
		gone(newBrowser(t, old), "after a logout between two steps")
		gone(newBrowser(t, old), "and later")
	})
}

// A cookie that the old library would refuse carries nobody over.
func TestForgedCookies(t *testing.T) {
	eachLibrary(t, func(t *testing.T, lib library, m *migration) {
		b := newBrowser(t)
		old := b.login(m, lib)
		for name, value := range map[string]string{
			"empty": "", "cut": old.Value[:len(old.Value)-2], "of another": strings.Repeat("A", 43), "longer": old.Value + "AA",
			"a key of Redis": "*", "another key": "../sess:x",
			"unsigned": base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"ada"}`)) + ".",
		} {
			forged := &http.Cookie{Name: lib.cookie, Value: value, Path: "/", Secure: true}
			if status, body := newBrowser(t, forged).do(m.new, http.MethodGet, "/me"); status != http.StatusUnauthorized {
				t.Errorf("%s: %d %s", name, status, body)
			}
		}
		if status, _ := b.do(m.new, http.MethodGet, "/me"); status != http.StatusOK {
			t.Errorf("the true one: %d", status)
		}
	})
}

// The signature of a JWT has unused bits: a token that is written in another way is the
// same token.
func TestATokenIsExchangedOnce(t *testing.T) {
	lib := libraries["echo-jwt"]
	m := migrate(t, lib)
	b := newBrowser(t)
	old := b.login(m, lib)
	if status, _ := b.do(m.new, http.MethodPost, "/logout"); status != http.StatusOK {
		t.Fatal(status)
	}
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	taken := 0
	last := strings.IndexByte(letters, old.Value[len(old.Value)-1])
	for bits := range 4 {
		twin := *old
		twin.Value = old.Value[:len(old.Value)-1] + letters[last&^3|bits:][:1]
		if status, _ := newBrowser(t, &twin).do(m.old, http.MethodGet, "/me"); status == http.StatusOK {
			taken++
		}
		if status, body := newBrowser(t, &twin).do(m.new, http.MethodGet, "/me"); status != http.StatusUnauthorized {
			t.Errorf("%d %s", status, body)
		}
	}
	if taken < 2 {
		t.Errorf("echo-jwt takes %d forms of a token: this test tests nothing", taken)
	}
	if marks := m.rdb.Keys(t.Context(), "exchanged:*").Val(); len(marks) != 1 {
		t.Errorf("the marks are %q", marks)
	}
}

// A client that keeps its JWT and sends it as a bearer token learns of nothing: the JWT
// opens the session until its exp or a logout.
func TestBearer(t *testing.T) {
	lib := libraries["echo-jwt"]
	m := migrate(t, lib)
	old := newBrowser(t).login(m, lib).Value
	send := func(method, path, token string) (status int, body string) {
		t.Helper()
		b := newBrowser(t)
		b.bearer = token
		status, body = b.do(m.new, method, path)
		if cookies := b.cookies(); len(cookies) != 0 {
			t.Errorf("cookies %v", cookies)
		}
		return status, body
	}
	const requests = 8
	var wg sync.WaitGroup
	for range requests {
		wg.Go(func() {
			if status, body := send(http.MethodPost, "/count", old); status != http.StatusOK {
				t.Errorf("%d %s", status, body)
			}
		})
	}
	wg.Wait()
	graceOver(t, m)
	if status, body := send(http.MethodGet, "/me", old); status != http.StatusOK || body != "Ada 8 ada 0" {
		t.Errorf("%d %s", status, body)
	}
	for _, bad := range []string{"", "x", old[:len(old)-2], old + "A"} {
		if status, body := send(http.MethodGet, "/me", bad); status != http.StatusUnauthorized {
			t.Errorf("%q: %d %s", bad, status, body)
		}
	}
	if status, body := send(http.MethodPost, "/logout", old); status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	for range 2 {
		if status, body := send(http.MethodGet, "/me", old); status != http.StatusUnauthorized {
			t.Errorf("after the logout: %d %s", status, body)
		}
	}
	if keys := m.rdb.Keys(t.Context(), "sess:*").Val(); len(keys) != 0 {
		t.Errorf("the sessions are %q", keys)
	}
}

// What the old service writes after a session was moved is not taken for it.
func TestALateWriteOfTheOldService(t *testing.T) {
	for _, name := range []string{"gorilla", "scs"} {
		t.Run(name, func(t *testing.T) {
			lib := libraries[name]
			m := migrate(t, lib)
			b := newBrowser(t)
			old := b.login(m, lib)
			key := m.rdb.Keys(t.Context(), "*").Val()[0]
			late := m.rdb.Get(t.Context(), key).Val()
			if status, _ := b.do(m.new, http.MethodPost, "/count"); status != http.StatusOK {
				t.Fatal(status)
			}
			m.rdb.Set(t.Context(), key, late, time.Hour)
			if status, body := newBrowser(t, old).do(m.new, http.MethodGet, "/me"); status != http.StatusOK || !strings.HasPrefix(body, "Ada 11 ") {
				t.Errorf("%d %s", status, body)
			}
			if n := m.rdb.Exists(t.Context(), key).Val(); n != 0 {
				t.Error("the late write is still there")
			}
		})
	}
}

// An outage is one, and logs nobody out.
func TestOutage(t *testing.T) {
	eachLibrary(t, func(t *testing.T, lib library, m *migration) {
		b := newBrowser(t)
		old := b.login(m, lib)
		m.rdb.ConfigSet(t.Context(), "maxmemory", "1")
		refused := newBrowser(t, old)
		if status, body := refused.do(m.new, http.MethodGet, "/me"); status != http.StatusServiceUnavailable {
			t.Errorf("%d %s", status, body)
		}
		m.rdb.ConfigSet(t.Context(), "maxmemory", "0")
		if !lib.stateless { // a mistake of the operator is not taken for a logout
			if err := m.rdb.Do(t.Context(), "ACL", "SETUSER", "default", "-renamenx").Err(); err != nil {
				t.Fatal(err)
			}
			if status, body := newBrowser(t, b.login(m, lib)).do(m.new, http.MethodGet, "/me"); status != http.StatusServiceUnavailable {
				t.Errorf("%d %s", status, body)
			}
			if err := m.rdb.Do(t.Context(), "ACL", "SETUSER", "default", "+renamenx").Err(); err != nil {
				t.Fatal(err)
			}
		}
		if status, body := newBrowser(t, old).do(m.new, http.MethodGet, "/me"); status != http.StatusOK {
			t.Errorf("%d %s", status, body)
		}
	})
}
