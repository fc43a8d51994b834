package echosession_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
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
		if header := tokenHeader(t, token); header["alg"] != alg || header["typ"] != "JWT" {
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

func TestEveryUseRestartsTheLifetime(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		if cfg.Client == nil {
			t.Skip("the memory store has no keys")
		}
		cfg.MaxAge, cfg.TouchInterval = time.Hour, echosession.TouchAlways
		m := newManager[User](t, cfg)
		token := newToken(t, m, "Ada")
		sess := open(t, m, token)
		keyspace := m.Effective().Keyspace
		for name, use := range map[string]func() error{
			"Open":   func() error { _, err := m.Open(t.Context(), token); return err },
			"Update": func() error { return sess.Update(t.Context(), func(u *User) error { return nil }) },
			"Touch":  func() error { return sess.Touch(t.Context()) },
			"Reload": func() error { return sess.Reload(t.Context()) },
		} {
			key := keyspace + sess.ID()
			if err := storeOf(t, cfg).Touch(t.Context(), echosession.Ref{ID: sess.ID()}, time.Minute); err != nil {
				t.Fatal(err)
			}
			if err := use(); err != nil {
				t.Fatal(name, err)
			}
			if life := pttl(t, cfg.Client, key); life > time.Hour || life < 59*time.Minute {
				t.Errorf("after %s it lives for %v", name, life)
			}
		}
	})
}

func TestASessionThatIsNotUsedEnds(t *testing.T) {
	eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
		cfg.MaxAge, cfg.TouchInterval = 20*time.Minute, echosession.TouchAlways
		m := newManager[User](t, cfg)
		token := newToken(t, m, "Ada")
		for range 5 {
			clock.Advance(19 * time.Minute)
			if sess := open(t, m, token); !sess.Exists() {
				t.Fatal(sess.Reason())
			}
		}
		clock.Advance(20 * time.Minute)
		if sess := open(t, m, token); !errors.Is(sess.Reason(), echosession.ErrSessionGone) {
			t.Error(sess.Reason())
		}
	})
	t.Run("redis keeps the time", func(t *testing.T) {
		eachStore(t, func(t *testing.T, cfg echosession.Config) {
			cfg.MaxAge = 300 * time.Millisecond
			m := newManager[User](t, cfg)
			s := newServer(t, m.Middleware())
			route(s, m, "/", func(c echo.Context, sess *echosession.Session[User]) error {
				return c.String(http.StatusOK, outcome(sess))
			})
			sess, err := m.Create(t.Context(), User{Name: "Ada"})
			if err != nil {
				t.Fatal(err)
			}
			created := time.Now()
			// Looking at the store is no use.
			for stored(t, cfg, sess.ID()) {
				if time.Since(created) > 10*time.Second {
					t.Fatal("it does not end")
				}
				time.Sleep(10 * time.Millisecond)
			}
			if lived := time.Since(created); lived < 250*time.Millisecond {
				t.Errorf("it lived for %v", lived)
			}
			if a := s.get(t, "/", sess.Token()); a.body != "gone" {
				t.Error(a.body)
			}
		})
	})
}

func TestTheCallersExpSupersedesTheIdleTimeout(t *testing.T) {
	eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
		cfg.MaxAge = time.Hour
		m := newManager[User](t, cfg)
		for name, exp := range map[string]any{
			"time":    clock.Now().Add(72 * time.Hour),
			"seconds": clock.Now().Add(72 * time.Hour).Unix(),
		} {
			sess, err := m.Create(t.Context(), User{}, echosession.WithClaims(echosession.Claims{"exp": exp}))
			if err != nil {
				t.Fatal(name, err)
			}
			end := clock.Now().Add(72 * time.Hour)
			if !sess.ExpiresAt().Equal(end) || sess.Claims()["exp"] != float64(end.Unix()) {
				t.Errorf("%s: ExpiresAt %v, exp %v", name, sess.ExpiresAt(), sess.Claims()["exp"])
			}
			clock.Advance(71 * time.Hour) // without any use
			used := open(t, m, sess.Token())
			if !used.Exists() {
				t.Fatal(name, used.Reason())
			}
			if err := used.Update(t.Context(), func(u *User) error { u.Count++; return nil }); err != nil {
				t.Error(name, err)
			}
			if _, err := used.Rotate(t.Context()); err != nil {
				t.Error(name, err)
			}
			clock.Advance(time.Hour)
			for _, token := range []string{sess.Token(), used.Token()} {
				if late := open(t, m, token); late.Exists() {
					t.Errorf("%s: it outlasts its exp", name)
				}
			}
			if stored(t, cfg, used.ID()) {
				t.Errorf("%s: the record outlasts its exp", name)
			}
			clock.Advance(-72 * time.Hour)
		}
	})
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		if cfg.Client == nil {
			t.Skip("the memory store has no keys")
		}
		cfg.MaxAge, cfg.TouchInterval = time.Hour, echosession.TouchAlways
		m := newManager[User](t, cfg)
		for name, tt := range map[string]struct {
			opts []echosession.CreateOption
			in   time.Duration
		}{
			"longer than MaxAge":       {nil, 72 * time.Hour},
			"shorter than MaxAge":      {nil, 10 * time.Minute},
			"shorter than its own":     {[]echosession.CreateOption{echosession.WithMaxAge(5 * time.Hour)}, 2 * time.Hour},
			"its own is shorter still": {[]echosession.CreateOption{echosession.WithMaxAge(time.Minute)}, 2 * time.Hour},
		} {
			exp := time.Now().Add(tt.in)
			sess, err := m.Create(t.Context(), User{}, append(tt.opts, echosession.WithClaims(echosession.Claims{"exp": exp}))...)
			if err != nil {
				t.Fatal(name, err)
			}
			want := tt.in
			if name == "its own is shorter still" {
				want = time.Minute
			}
			key := m.Effective().Keyspace + sess.ID()
			for step, use := range map[string]func() error{
				"Create": func() error { return nil },
				"Open":   func() error { _, err := m.Open(t.Context(), sess.Token()); return err },
				"Update": func() error { return sess.Update(t.Context(), func(*User) error { return nil }) },
				"Touch":  func() error { return sess.Touch(t.Context()) },
			} {
				if err := use(); err != nil {
					t.Fatal(name, step, err)
				}
				left := pttl(t, cfg.Client, key)
				if left > time.Until(exp) && left > want || left > want || left < want-10*time.Second {
					t.Errorf("%s, %s: the key lives for %v, want %v", name, step, left, want)
				}
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

func TestReservedClaims(t *testing.T) {
	for name, tt := range map[string]struct {
		change   func(*echosession.Config)
		reserved []string
		free     []string
	}{
		"plain":    {func(*echosession.Config) {}, []string{"jti", "iat", "idle"}, []string{"iss", "aud", "role"}},
		"issuer":   {func(c *echosession.Config) { c.Issuer = "us" }, []string{"jti", "iat", "idle", "iss"}, []string{"aud"}},
		"audience": {func(c *echosession.Config) { c.Audience = []string{"api"} }, []string{"jti", "iat", "idle", "aud"}, []string{"iss"}},
	} {
		t.Run(name, func(t *testing.T) {
			fake := newFakeRedis(t)
			m := newManager[User](t, mistaken(func(c *echosession.Config) {
				c.Store, c.Client = nil, fake
				tt.change(c)
			}))
			for _, claim := range tt.reserved {
				for _, value := range []any{newID(), 1, nil} {
					_, err := m.Create(t.Context(), User{}, echosession.WithClaims(echosession.Claims{claim: value}))
					if !errors.Is(err, echosession.ErrReservedClaim) || !strings.Contains(err.Error(), claim) {
						t.Errorf("%s: %v", claim, err)
					}
				}
			}
			if n := fake.count(""); n != 0 {
				t.Errorf("%d commands", n)
			}
			for _, claim := range tt.free {
				sess, err := m.Create(t.Context(), User{}, echosession.WithClaims(echosession.Claims{claim: "mine"}))
				if err != nil || sess.Claims()[claim] != "mine" {
					t.Errorf("%s: %v", claim, err)
				}
			}
		})
	}
}

func TestSubjectTwice(t *testing.T) {
	m := newManager[User](t, mistaken(func(*echosession.Config) {}))
	sub := echosession.WithClaims(echosession.Claims{"sub": "ada"})
	if sess, err := m.Create(t.Context(), User{}, sub); err != nil || sess.Subject() != "ada" {
		t.Error(err)
	}
	if sess, err := m.Create(t.Context(), User{}, sub, echosession.WithSubject("ada")); err != nil || sess.Subject() != "ada" {
		t.Error(err)
	}
	if _, err := m.Create(t.Context(), User{}, sub, echosession.WithSubject("eve")); !errors.Is(err, echosession.ErrReservedClaim) {
		t.Error(err)
	}
	for _, subject := range []string{strings.Repeat("x", 1<<10+1), "\xff"} {
		if _, err := m.Create(t.Context(), User{}, echosession.WithSubject(subject)); err == nil {
			t.Errorf("a subject of %d bytes is taken", len(subject))
		}
	}
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
