package echosession_test

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/echosessiontest/adaptertest"
)

func TestLifeOfASession(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		cfg.SubjectIndex = true
		m := newManager[User](t, cfg)
		s := newServer(t, m.Middleware())
		route(s, m, "/login", func(c echo.Context, sess *echosession.Session[User]) error {
			token, err := sess.Create(c.Request().Context(), User{Name: "Ada"}, echosession.WithSubject("ada"))
			if err != nil {
				return err
			}
			return c.String(http.StatusOK, token)
		})
		route(s, m, "/me", func(c echo.Context, sess *echosession.Session[User]) error {
			return c.JSON(http.StatusOK, sess)
		}, m.Require())
		route(s, m, "/count", func(c echo.Context, sess *echosession.Session[User]) error {
			if err := sess.Update(c.Request().Context(), func(u *User) error { u.Count++; return nil }); err != nil {
				return err
			}
			return c.JSON(http.StatusOK, sess)
		}, m.Require())
		route(s, m, "/rotate", func(c echo.Context, sess *echosession.Session[User]) error {
			token, err := sess.Rotate(c.Request().Context())
			if err != nil {
				return err
			}
			return c.String(http.StatusOK, token)
		}, m.Require())
		route(s, m, "/logout", func(c echo.Context, sess *echosession.Session[User]) error {
			return sess.Destroy(c.Request().Context())
		}, m.Require())

		if a := s.get(t, "/me", ""); a.StatusCode != 401 || a.Header.Get("WWW-Authenticate") != `Bearer realm="session"` {
			t.Fatal(a.StatusCode, a.Header, a.body)
		}
		token := s.post(t, "/login", "").body
		if a := s.get(t, "/me", token); a.StatusCode != 200 || a.body != `{"name":"Ada","count":0}` {
			t.Fatal(a.StatusCode, a.body)
		}
		if a := s.post(t, "/count", token); a.StatusCode != 200 || a.body != `{"name":"Ada","count":1}` {
			t.Fatal(a.StatusCode, a.body)
		}
		rotated := s.post(t, "/rotate", token)
		if rotated.StatusCode != 200 {
			t.Fatal(rotated.StatusCode, rotated.body)
		}
		for range 2 {
			for _, token := range []string{token, rotated.body} {
				if a := s.post(t, "/count", token); a.StatusCode != 200 {
					t.Fatal(a.StatusCode, a.body)
				}
			}
		}
		if a := s.get(t, "/me", rotated.body); a.body != `{"name":"Ada","count":5}` {
			t.Fatal(a.body)
		}
		if list, err := m.List(t.Context(), "ada"); err != nil || len(list) != 1 || list[0].Data().Count != 5 {
			t.Fatal(list, err)
		}
		if a := s.post(t, "/logout", token); a.StatusCode != 200 {
			t.Fatal(a.StatusCode, a.body)
		}
		if a := s.get(t, "/me", rotated.body); a.StatusCode != 401 {
			t.Fatal(a.StatusCode, a.body)
		}
	})
}

// uuid4 is what session IDs look like.
var uuid4 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

func TestCreate(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		m := newManager[User](t, cfg)
		s := newServer(t, m.Middleware())
		var opts []echosession.CreateOption
		route(s, m, "/login", func(c echo.Context, sess *echosession.Session[User]) error {
			token, err := sess.Create(c.Request().Context(), User{Name: "Ada", Count: 3}, opts...)
			if err != nil {
				return err
			}
			if !sess.Exists() || sess.Reason() != nil || sess.Token() != token || sess.Data().Name != "Ada" {
				t.Errorf("the handle after Create: %v, %+v", sess.Reason(), sess.Data())
			}
			return c.String(http.StatusOK, token)
		})
		type view struct {
			ID     string
			Claims echosession.Claims
			Token  string
			Data   *echosession.Session[User]
		}
		route(s, m, "/view", func(c echo.Context, sess *echosession.Session[User]) error {
			return c.JSON(http.StatusOK, view{sess.ID(), sess.Claims(), sess.Token(), sess})
		})
		for name, tt := range map[string]struct {
			claims echosession.Claims
			want   string // without jti and iat
		}{
			"without claims": {nil, `{}`},
			"with claims": {
				echosession.Claims{"role": "admin", "level": 3, "tags": []string{"a", "b"}, "sub": "ada"},
				`{"level":3,"role":"admin","sub":"ada","tags":["a","b"]}`,
			},
		} {
			t.Run(name, func(t *testing.T) {
				opts = []echosession.CreateOption{echosession.WithClaims(tt.claims)}
				token := s.post(t, "/login", "").body
				a := s.get(t, "/view", token)
				var got struct {
					ID     string
					Claims map[string]any
					Token  string
					Data   json.RawMessage
				}
				if err := json.Unmarshal([]byte(a.body), &got); err != nil {
					t.Fatal(a.body, err)
				}
				if !uuid4.MatchString(got.ID) || got.Claims["jti"] != got.ID || got.Token != token {
					t.Errorf("ID %q, jti %v, token %q", got.ID, got.Claims["jti"], got.Token)
				}
				if iat, ok := got.Claims["iat"].(float64); !ok || time.Since(time.Unix(int64(iat), 0)).Abs() > time.Minute {
					t.Errorf("iat %v", got.Claims["iat"])
				}
				delete(got.Claims, "jti")
				delete(got.Claims, "iat")
				if rest, err := json.Marshal(got.Claims); err != nil || string(rest) != tt.want {
					t.Errorf("claims %s, want %s", rest, tt.want)
				}
				if string(got.Data) != `{"name":"Ada","count":3}` {
					t.Errorf("data %s", got.Data)
				}
			})
		}
	})
}

func TestUpdateReloadTouchDestroy(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		m := newManager[User](t, cfg)
		s := newServer(t, m.Middleware())
		ctx := t.Context()
		for path, fn := range map[string]func(*echosession.Session[User]) error{
			"/update": func(sess *echosession.Session[User]) error {
				return sess.Update(ctx, func(u *User) error { u.Count++; u.Cart = append(u.Cart, "pen"); return nil })
			},
			"/reload": func(sess *echosession.Session[User]) error {
				before := sess.Data().Count
				if err := open(t, m, sess.Token()).Update(ctx, func(u *User) error { u.Count = 100; return nil }); err != nil {
					return err
				}
				if sess.Data().Count != before {
					t.Error("the handle reads by itself")
				}
				return sess.Reload(ctx)
			},
			"/touch":   func(sess *echosession.Session[User]) error { return sess.Touch(ctx) },
			"/destroy": func(sess *echosession.Session[User]) error { return errors.Join(sess.Destroy(ctx), sess.Destroy(ctx)) },
		} {
			route(s, m, path, func(c echo.Context, sess *echosession.Session[User]) error {
				if err := fn(sess); err != nil {
					return err
				}
				return c.JSON(http.StatusOK, sess)
			})
		}
		token := newToken(t, m, "Ada")
		id := open(t, m, token).ID()
		for _, step := range []struct{ path, want string }{
			{"/update", `{"name":"Ada","count":1,"cart":["pen"]}`},
			{"/update", `{"name":"Ada","count":2,"cart":["pen","pen"]}`},
			{"/reload", `{"name":"Ada","count":100,"cart":["pen","pen"]}`},
			{"/touch", `{"name":"Ada","count":100,"cart":["pen","pen"]}`},
			{"/destroy", `null`},
		} {
			if a := s.post(t, step.path, token); a.StatusCode != 200 || a.body != step.want {
				t.Errorf("%s: %d %s, want %s", step.path, a.StatusCode, a.body, step.want)
			}
		}
		if stored(t, cfg, id) {
			t.Error("the record is still there")
		}
	})
}

func TestUpdateThatFailsStoresNothing(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		m := newManager[User](t, cfg)
		sess := open(t, m, newToken(t, m, "Ada"))
		no := errors.New("no")
		for range 2 {
			if err := sess.Update(t.Context(), func(u *User) error { u.Count++; return no }); err != no {
				t.Error(err)
			}
		}
		if sess.Data().Count != 0 {
			t.Error(sess.Data())
		}
		if err := sess.Reload(t.Context()); err != nil || sess.Data().Count != 0 {
			t.Error(sess.Data(), err)
		}
	})
}

func TestTokenInHeaderQueryAndBody(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		m := newManager[User](t, cfg)
		s := newServer(t, m.Middleware())
		route(s, m, "/", func(c echo.Context, sess *echosession.Session[User]) error {
			return c.String(http.StatusOK, outcome(sess))
		})
		token := newToken(t, m, "Ada")
		multi, multiBody := multipartBody(t, "accessToken", token)
		for name, r := range map[string]*http.Request{
			"header":        s.request(t, "GET", "/", "", "X-Access-Token", token),
			"Authorization": s.request(t, "GET", "/", "", "Authorization", "Bearer "+token),
			"query":         s.request(t, "GET", "/?accessToken="+token, ""),
			"form":          s.request(t, "POST", "/", "accessToken="+token, "Content-Type", formType),
			"multipart":     s.request(t, "POST", "/", multiBody, "Content-Type", multi),
			"JSON":          s.request(t, "POST", "/", `{"accessToken":"`+token+`"}`, "Content-Type", jsonType),
		} {
			if a := s.do(t, r); a.body != "Ada" {
				t.Errorf("%s: %d %s", name, a.StatusCode, a.body)
			}
		}
	})
}

func TestTwoInstancesSideBySide(t *testing.T) {
	type Admin struct{ Rank int }
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		users := newManager[User](t, cfg)
		cfg.RequestKey, cfg.RequestArg = "admin", "adminToken"
		cfg.Keyspace += "admin:"
		cfg.TokenLookup = "header:X-Admin-Token,query:adminToken"
		admins := newManager[Admin](t, cfg)
		s := newServer(t, users.Middleware(), admins.Middleware())
		s.GET("/", func(c echo.Context) error {
			user, err := echosession.Get[User](c)
			if err != nil {
				return err
			}
			admin, err := echosession.Get[Admin](c, "admin")
			if err != nil {
				return err
			}
			return c.String(http.StatusOK, fmt.Sprint(user.Data().Name, " ", admin.Data().Rank))
		})
		ok := func(c echo.Context) error { return c.NoContent(http.StatusNoContent) }
		s.GET("/user", ok, echosession.Require[User]())
		s.GET("/admin", ok, echosession.Require[Admin](echosession.RequestKey("admin")))
		userToken := newToken(t, users, "Ada")
		admin, err := admins.Create(t.Context(), Admin{Rank: 7})
		if err != nil {
			t.Fatal(err)
		}
		both := []string{"Authorization", "Bearer " + userToken, "X-Admin-Token", admin.Token()}
		for _, tt := range []struct {
			path    string
			headers []string
			status  int
			body    string
		}{
			{"/", both, 200, "Ada 7"},
			{"/", both[:2], 200, "Ada 0"},
			{"/", both[2:], 200, " 7"},
			{"/user", both, 204, ""},
			{"/admin", both, 204, ""},
			{"/user", both[2:], 401, ""},
			{"/admin", both[:2], 401, ""},
		} {
			a := s.do(t, s.request(t, "GET", tt.path, "", tt.headers...))
			if a.StatusCode != tt.status || tt.status == 200 && a.body != strings.TrimSpace(tt.body) {
				t.Errorf("%s %d: %d %q, want %d %q", tt.path, len(tt.headers), a.StatusCode, a.body, tt.status, tt.body)
			}
		}
	})
}

func TestTokenOfAnotherInstance(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		if cfg.Client == nil {
			t.Skip("a store of its own is another keyspace")
		}
		token := newToken(t, newManager[User](t, cfg), "Ada")
		cfg.Keyspace += "other:"
		if sess := open(t, newManager[User](t, cfg), token); !errors.Is(sess.Reason(), echosession.ErrSessionGone) {
			t.Errorf("another keyspace: %v", sess.Reason())
		}
		cfg.Secret = []byte(strings.Repeat("another ", 8))
		if sess := open(t, newManager[User](t, cfg), token); !errors.Is(sess.Reason(), echosession.ErrInvalidToken) {
			t.Errorf("another secret: %v", sess.Reason())
		}
	})
}

func TestAlgorithm(t *testing.T) {
	hashes := map[string]func() hash.Hash{"HS256": sha256.New, "HS384": sha512.New384, "HS512": sha512.New}
	store := echosession.NewMemoryStore()
	tokens := make(map[string]string)
	managers := make(map[string]*echosession.Manager[User])
	for alg, newHash := range hashes {
		cfg := echosession.Config{Store: store, Secret: testSecret, Algorithm: alg}
		managers[alg] = newManager[User](t, cfg)
		token := newToken(t, managers[alg], "Ada")
		tokens[alg] = token
		if header := tokenHeader(t, token); header["alg"] != alg || header["typ"] != "session+jwt" {
			t.Errorf("%s: header %v", alg, header)
		}
		dot := strings.LastIndexByte(token, '.')
		mac := hmac.New(newHash, testSecret)
		mac.Write([]byte(token[:dot]))
		if !hmac.Equal(mac.Sum(nil), unb64(t, token[dot+1:])) {
			t.Errorf("%s: the signature is another", alg)
		}
	}
	byDefault := newManager[User](t, echosession.Config{Store: store, Secret: testSecret})
	if sess := open(t, byDefault, tokens["HS256"]); !sess.Exists() {
		t.Errorf("the default is not HS256: %v", sess.Reason())
	}
	for mine, m := range managers {
		for other, token := range tokens {
			sess := open(t, m, token)
			if mine == other && !sess.Exists() || mine != other && !errors.Is(sess.Reason(), echosession.ErrInvalidToken) {
				t.Errorf("%s takes %s: %v, %v", mine, other, sess.Exists(), sess.Reason())
			}
		}
	}
}

// pttl returns the lifetime of a key: -1 ms when it has none, and -2 ms when there
// is no key.
func pttl(t testing.TB, client echosession.RedisClient, key string) time.Duration {
	t.Helper()
	cmd := redis.NewIntCmd(t.Context(), "pttl", key)
	if err := client.Process(t.Context(), cmd); err != nil {
		t.Fatal(err)
	}
	return time.Duration(cmd.Val()) * time.Millisecond
}

func TestKeyspace(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		if cfg.Client == nil {
			t.Skip("the memory store has no keys")
		}
		for _, keyspace := range []string{"", cfg.Keyspace + "own-"} {
			cfg.Keyspace = keyspace
			sess, err := newManager[User](t, cfg).Create(t.Context(), User{})
			if err != nil {
				t.Fatal(err)
			}
			key := keyspace + sess.ID()
			if keyspace == "" {
				key = "sess:" + sess.ID()
			}
			if life := pttl(t, cfg.Client, key); life > 24*time.Hour || life < 23*time.Hour {
				t.Errorf("%s lives for %v", key, life)
			}
			if err := sess.Destroy(t.Context()); err != nil || pttl(t, cfg.Client, key) != -2*time.Millisecond {
				t.Error("it is still there", err)
			}
		}
	})
}

func TestWithoutAGoodTokenTheHandlerGetsAnEmptySession(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		m := newManager[User](t, cfg)
		s := newServer(t, m.Middleware())
		route(s, m, "/", func(c echo.Context, sess *echosession.Session[User]) error {
			if sess.Exists() || sess.ID() != "" || sess.Data().Name != "" || sess.Reason() == nil {
				t.Errorf("%q %+v %v", sess.ID(), sess.Data(), sess.Reason())
			}
			return c.String(http.StatusOK, outcome(sess))
		})
		destroyed := open(t, m, newToken(t, m, "Ada"))
		token := destroyed.Token()
		if err := destroyed.Destroy(t.Context()); err != nil {
			t.Fatal(err)
		}
		for token, want := range map[string]string{"": "none", "bad": "invalid", token: "gone"} {
			if a := s.get(t, "/", token); a.StatusCode != 200 || a.body != want {
				t.Errorf("%d %s, want %s", a.StatusCode, a.body, want)
			}
		}
	})
}

func TestADestroyedSessionStaysDestroyed(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		m := newManager[User](t, cfg)
		for name, act := range sessionCalls {
			token := newToken(t, m, "Ada")
			here, there := open(t, m, token), open(t, m, token)
			id := here.ID()
			if err := there.Destroy(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := act(t.Context(), here); !errors.Is(err, echosession.ErrSessionGone) {
				t.Errorf("%s: %v", name, err)
			}
			if stored(t, cfg, id) || open(t, m, token).Exists() {
				t.Errorf("%s brings it back", name)
			}
			if err := act(t.Context(), there); !errors.Is(err, echosession.ErrNoSession) {
				t.Errorf("%s after the handle's own Destroy: %v", name, err)
			}
			if name != "Rotate" && here.Exists() {
				t.Errorf("%s: the handle still has it", name)
			}
		}
	})
}

func TestErrorsAreNotSwallowed(t *testing.T) {
	fake := newFakeRedis(t)
	m := newManager[User](t, echosession.Config{Client: fake, Secret: testSecret})
	ctx := t.Context()
	sess := open(t, m, newToken(t, m, "Ada"))
	cause := fakeReply("NOPERM no permissions")
	fake.onCommand(func([]string) error { return cause }, nil)
	for name, call := range apiCalls(ctx, m, sess) {
		err := call()
		var found fakeReply
		if !errors.Is(err, echosession.ErrStoreUnavailable) || !errors.As(err, &found) || found != cause {
			t.Errorf("%s: %v", name, err)
		}
		if !sess.Exists() {
			t.Errorf("%s: the handle lost its session", name)
		}
	}
}

func TestRequireFreshPanicsUnderASecond(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("Fresh takes it")
		}
	}()
	echosession.Fresh(time.Second - 1)
}

func TestGet(t *testing.T) {
	fake := newFakeRedis(t)
	m := newManager[User](t, echosession.Config{Client: fake, Secret: testSecret})
	other := newManager[int](t, echosession.Config{Client: fake, Secret: testSecret, RequestKey: "other"})
	skipping := newManager[User](t, echosession.Config{
		Client: fake, Secret: testSecret, RequestKey: "skipping", Skipper: func(echo.Context) bool { return true },
	})
	token := newToken(t, m, "Ada")
	if _, err := m.Open(t.Context(), token); err != nil { // the touch is done
		t.Fatal(err)
	}
	s := newServer(t, m.Middleware(), other.Middleware(), skipping.Middleware())
	s.GET("/never-asks", func(c echo.Context) error { return c.NoContent(http.StatusOK) })
	s.GET("/", func(c echo.Context) error {
		first, err := m.Get(c)
		if err != nil {
			t.Error(err)
		}
		for name, get := range map[string]func() (*echosession.Session[User], error){
			"again":           func() (*echosession.Session[User], error) { return m.Get(c) },
			"by the function": func() (*echosession.Session[User], error) { return echosession.Get[User](c) },
			"by the key":      func() (*echosession.Session[User], error) { return echosession.Get[User](c, "session") },
		} {
			if sess, err := get(); sess != first || err != nil {
				t.Errorf("%s: another handle, %v", name, err)
			}
		}
		for name, tt := range map[string]struct {
			get  func() error
			want error
		}{
			"another type":         {func() error { _, err := echosession.Get[int](c); return err }, echosession.ErrTypeMismatch},
			"another type, by key": {func() error { _, err := echosession.Get[User](c, "other"); return err }, echosession.ErrTypeMismatch},
			"a pointer":            {func() error { _, err := echosession.Get[*User](c); return err }, echosession.ErrTypeMismatch},
			"another key":          {func() error { _, err := echosession.Get[User](c, "nowhere"); return err }, echosession.ErrNotInstalled},
			"skipped":              {func() error { _, err := skipping.Get(c); return err }, echosession.ErrNotInstalled},
			"a value of the handler's": {func() error {
				c.Set("mine", "value")
				_, err := echosession.Get[User](c, "mine")
				return err
			}, echosession.ErrNotInstalled},
		} {
			if err := tt.get(); !errors.Is(err, tt.want) {
				t.Errorf("%s: %v, want %v", name, err, tt.want)
			}
		}
		if _, ok := c.Get("session").(*echosession.Session[User]); ok {
			t.Error("echo.Context.Get gets around Get")
		}
		return c.NoContent(http.StatusOK)
	})
	before := fake.count("")
	s.get(t, "/never-asks", token)
	if n := fake.count("") - before; n != 0 {
		t.Errorf("a route that never asks: %d commands", n)
	}
	s.get(t, "/", token)
	if n := fake.count("") - before; n != 1 {
		t.Errorf("all the Gets of a request: %d commands", n)
	}

	bare := newServer(t)
	bare.GET("/", func(c echo.Context) error { _, err := m.Get(c); return err })
	bare.GET("/required", func(c echo.Context) error { t.Error("let in"); return nil }, m.Require())
	for _, path := range []string{"/", "/required"} {
		if a := bare.get(t, path, token); a.StatusCode != http.StatusInternalServerError || a.message(t) != "Internal Server Error" {
			t.Errorf("without the middleware, %s: %d %s", path, a.StatusCode, a.body)
		}
	}
}

func TestStreamsAreUntouched(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		cfg.Cookie = &echosession.Cookie{}
		m := newManager[User](t, cfg)
		s := newServer(t, m.Middleware())
		received := make(chan struct{})
		route(s, m, "/events", func(c echo.Context, sess *echosession.Session[User]) error {
			w := c.Response()
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, "data: first\n\n")
			w.Flush()
			<-received // the client has the first event while the handler runs
			if err := sess.Update(c.Request().Context(), func(u *User) error { u.Count++; return nil }); err != nil {
				return err
			}
			fmt.Fprintf(w, "data: %d\n\n", sess.Data().Count)
			w.Flush()
			return nil
		})
		route(s, m, "/upgrade", func(c echo.Context, sess *echosession.Session[User]) error {
			conn, buf, err := c.Response().Hijack()
			if err != nil {
				return err
			}
			defer conn.Close()
			if err := sess.Touch(c.Request().Context()); err != nil {
				return err
			}
			fmt.Fprintf(buf, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n%s", sess.Data().Name)
			return buf.Flush()
		})
		token := newToken(t, m, "Ada")

		resp, err := http.DefaultClient.Do(s.request(t, "GET", "/events", "", "Authorization", "Bearer "+token))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		events := bufio.NewReader(resp.Body)
		if line, err := events.ReadString('\n'); line != "data: first\n" {
			t.Fatal(line, err)
		}
		close(received)
		if rest, err := io.ReadAll(events); string(rest) != "\ndata: 1\n\n" {
			t.Errorf("%q, %v", rest, err)
		}

		r := s.request(t, "GET", "/upgrade", "", "Authorization", "Bearer "+token, "Connection", "Upgrade", "Upgrade", "x")
		resp, err = http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusSwitchingProtocols || string(body) != "Ada" {
			t.Errorf("%d %q, %v", resp.StatusCode, body, err)
		}
	})
}

func TestResponseWriterIsNotWrapped(t *testing.T) {
	m := newManager[User](t, mistaken(func(c *echosession.Config) { c.Cookie = &echosession.Cookie{} }))
	e := echo.New()
	e.Use(m.Middleware())
	w := httptest.NewRecorder()
	e.GET("/", func(c echo.Context) error {
		if c.Response().Writer != http.ResponseWriter(w) {
			t.Errorf("the handler gets a %T", c.Response().Writer)
		}
		return nil
	})
	e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
}

// BenchmarkMiddleware measures what a request pays beside the store: the memory
// store's part is small. anonymous is a request without a token on a route that
// does not ask for its session.
func BenchmarkMiddleware(b *testing.B) {
	m := newManager[account](b, echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret})
	sess, err := m.Create(context.Background(), anAccount())
	if err != nil {
		b.Fatal(err)
	}
	read := func(c echo.Context) error {
		sess, err := m.Get(c)
		if err != nil {
			return err
		}
		if !sess.Exists() || sess.Data().Name != "Ada Lovelace" {
			return sess.Reason()
		}
		return nil
	}
	write := func(c echo.Context) error {
		sess, err := m.Get(c)
		if err != nil {
			return err
		}
		return sess.Update(c.Request().Context(), func(a *account) error { a.UserID++; return nil })
	}
	none := func(echo.Context) error { return nil }
	for _, bench := range []struct {
		name    string
		handler echo.HandlerFunc
		token   string
	}{
		{"bare", none, ""},
		{"anonymous", m.Middleware()(none), ""},
		{"read", m.Middleware()(read), sess.Token()},
		{"write", m.Middleware()(write), sess.Token()},
	} {
		b.Run(bench.name, func(b *testing.B) {
			e := echo.New()
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			if bench.token != "" {
				r.Header.Set("Authorization", "Bearer "+bench.token)
			}
			w := httptest.NewRecorder()
			b.ReportAllocs()
			for b.Loop() {
				c := e.AcquireContext()
				c.Reset(r, w)
				if err := bench.handler(c); err != nil {
					b.Fatal(err)
				}
				e.ReleaseContext(c)
			}
		})
	}
}

func TestAdapter(t *testing.T) {
	adaptertest.Run(t, adaptertest.Adapter[echo.Context, echo.MiddlewareFunc]{
		Serve: func(handler func(echo.Context) error, middleware ...echo.MiddlewareFunc) http.Handler {
			e := echo.New()
			e.Logger.SetOutput(io.Discard)
			e.Use(middleware...)
			e.Any("/:token", handler)
			e.Add("PROPFIND", "/:token", handler)
			return e
		},
		Around: func(around func(http.ResponseWriter, *http.Request, func(*http.Request) error) error) echo.MiddlewareFunc {
			return func(next echo.HandlerFunc) echo.HandlerFunc {
				return func(c echo.Context) error {
					return around(c.Response(), c.Request(), func(r *http.Request) error {
						c.SetRequest(r)
						return next(c)
					})
				}
			}
		},
		Request: echo.Context.Request,
		Writer:  func(c echo.Context) http.ResponseWriter { return c.Response() },
		Users:   adapterSessions[adaptertest.User](),
		Staff:   adapterSessions[adaptertest.Staff](),

		BlindToFlush: true,
		NoEarlyHints: true,
	})
}

func adapterSessions[T any]() adaptertest.Sessions[T, echo.Context, echo.MiddlewareFunc] {
	return adaptertest.Sessions[T, echo.Context, echo.MiddlewareFunc]{
		Middleware: (*echosession.Manager[T]).Middleware,
		Require:    (*echosession.Manager[T]).Require,
		Get:        echosession.Get[T],
		With: func(m *echosession.Manager[T], h func(echo.Context, *echosession.Session[T]) error) func(echo.Context) error {
			return m.With(h)
		},
		Configured: func(cfg echosession.Config, o adaptertest.Options) (*echosession.Manager[T], echo.MiddlewareFunc, error) {
			if o.Skip != nil {
				cfg.Skipper = func(c echo.Context) bool { return o.Skip(c.Request()) }
			}
			if o.OnError != nil {
				cfg.ErrorHandler = func(c echo.Context, err error) error {
					o.OnError(c.Response(), c.Request(), err)
					return nil
				}
			}
			m, err := echosession.New[T](cfg)
			if err != nil {
				return nil, nil, err
			}
			return m, m.Middleware(), nil
		},
	}
}

// TestExampleAdapter checks the adapter that authors of others copy.
func TestExampleAdapter(t *testing.T) {
	adaptertest.Run(t, adaptertest.Adapter[*Context, Middleware]{
		Serve: func(handler func(*Context) error, middleware ...Middleware) http.Handler {
			h := Handler(handler)
			for _, m := range slices.Backward(middleware) {
				h = m(h)
			}
			mux := http.NewServeMux()
			mux.Handle("/{token}", h)
			return mux
		},
		Around: func(around func(http.ResponseWriter, *http.Request, func(*http.Request) error) error) Middleware {
			return func(next Handler) Handler {
				return func(c *Context) error {
					return around(controlled{c.Writer}, c.Request, func(r *http.Request) error {
						c.Request = r
						return next(c)
					})
				}
			}
		},
		Request: func(c *Context) *http.Request { return c.Request },
		Writer:  func(c *Context) http.ResponseWriter { return controlled{c.Writer} },
		Users:   exampleSessions[adaptertest.User](),
		Staff:   exampleSessions[adaptertest.Staff](),

		BlindToFlush: true,
	})
}

func exampleSessions[T any]() adaptertest.Sessions[T, *Context, Middleware] {
	return adaptertest.Sessions[T, *Context, Middleware]{
		Middleware: Install[T],
		Require: func(m *echosession.Manager[T], opts ...echosession.RequireOption) Middleware {
			return Require[T](append([]echosession.RequireOption{echosession.RequestKey(m.RequestKey()), m.Only()}, opts...)...)
		},
		Get: Get[T],
		With: func(m *echosession.Manager[T], h func(*Context, *echosession.Session[T]) error) func(*Context) error {
			return With(h, m.RequestKey())
		},
	}
}

// controlled is the example's Writer for a ResponseController.
type controlled struct{ *Writer }

func (w controlled) Unwrap() http.ResponseWriter { return w.ResponseWriter }
