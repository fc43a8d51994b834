package echosession_test

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

func TestEveryUseRestartsTheLifetime(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		if cfg.Client == nil {
			t.Skip("the memory store has no keys")
		}
		cfg.MaxAge, cfg.TouchInterval = time.Hour, echosession.TouchAlways
		m := newManager[User](t, cfg)
		token := newToken(t, m, "Ada")
		sess := open(t, m, token)
		keyspace := echosession.Effective(cfg).Keyspace
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

func TestTouchInterval(t *testing.T) {
	for name, tt := range map[string]struct {
		interval time.Duration
		maxAge   time.Duration // of the session
		steps    map[time.Duration]bool
	}{
		"default":            {0, 0, map[time.Duration]bool{59 * time.Second: false, time.Minute: true}},
		"ten minutes":        {10 * time.Minute, 0, map[time.Duration]bool{10*time.Minute - 1: false, 10 * time.Minute: true}},
		"always":             {echosession.TouchAlways, 0, map[time.Duration]bool{0: true, time.Second: true}},
		"of a short session": {10 * time.Minute, 20 * time.Second, map[time.Duration]bool{999 * time.Millisecond: false, time.Second: true}},
	} {
		for step, touched := range tt.steps {
			t.Run(fmt.Sprint(name, " after ", step), func(t *testing.T) {
				clock := newClock()
				storeClock := newClock()
				store := echosession.NewMemoryStore(echosession.WithClock(storeClock.Now))
				m := newManager[User](t, echosession.Config{
					Store: store, Secret: testSecret, Now: clock.Now, TouchInterval: tt.interval, MaxAge: time.Hour,
				})
				var opts []echosession.CreateOption
				life := time.Hour
				if tt.maxAge > 0 {
					opts, life = append(opts, echosession.WithMaxAge(tt.maxAge)), tt.maxAge
				}
				sess, err := m.Create(t.Context(), User{}, opts...)
				if err != nil {
					t.Fatal(err)
				}
				// The store's own clock goes ahead half a life, so that a touch shows.
				storeClock.Advance(life / 2)
				clock.Advance(step)
				if sess, err := m.Open(t.Context(), sess.Token()); err != nil || !sess.Exists() {
					t.Fatal(sess.Reason(), err)
				}
				storeClock.Advance(life/2 + time.Millisecond)
				if got := stored(t, echosession.Config{Store: store}, sess.ID()); got != touched {
					t.Errorf("touched: %v, want %v", got, touched)
				}
			})
		}
	}
}

func TestAUseThatNeedsNoTouchIsOneGet(t *testing.T) {
	count := func(t *testing.T, client echosession.RedisClient, keyspace string, indexed bool, counts func() (gets, all int)) {
		clock := newClock()
		cfg := echosession.Config{
			Client: client, Keyspace: keyspace, Secret: testSecret, Now: clock.Now, SubjectIndex: indexed,
		}
		sess, err := newManager[User](t, cfg).Create(t.Context(), User{Name: "Ada"}, echosession.WithSubject("ada"))
		if err != nil {
			t.Fatal(err)
		}
		m := newManager[User](t, cfg) // a node that has written nothing
		s := newServer(t, m.Middleware())
		route(s, m, "/", func(c echo.Context, sess *echosession.Session[User]) error {
			return c.String(http.StatusOK, outcome(sess))
		})
		use := func() (gets, all int) {
			g, a := counts()
			if answer := s.get(t, "/", sess.Token()); answer.body != "Ada" {
				t.Fatal(answer.body)
			}
			gets, all = counts()
			return gets - g, all - a
		}
		use() // a node touches what it has not seen before
		for range 3 {
			clock.Advance(19 * time.Second)
			if gets, all := use(); gets != 1 || all != 1 {
				t.Errorf("%d commands, %d of them GET", all, gets)
			}
		}
		clock.Advance(3 * time.Second)
		if gets, all := use(); gets != 0 || all != 1 {
			t.Errorf("a touch: %d commands, %d of them GET", all, gets)
		}
	}
	for _, indexed := range []bool{false, true} {
		t.Run(fmt.Sprint("fake, indexed ", indexed), func(t *testing.T) {
			fake := newFakeRedis(t)
			count(t, fake, "", indexed, func() (int, int) { return fake.count("get"), fake.count("") })
		})
		t.Run(fmt.Sprint("redis, indexed ", indexed), func(t *testing.T) {
			proxy := redistest.NewProxy(t, redistest.Shared(t).Addr())
			client := redis.NewClient(&redis.Options{Addr: proxy.Addr(), ContextTimeoutEnabled: true})
			t.Cleanup(func() { client.Close() })
			count(t, client, newKeyspace(), indexed, func() (int, int) { return proxy.Count("GET"), proxy.Count() })
		})
	}
}

func TestAClockThatGoesBackwards(t *testing.T) {
	eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
		// iat is in the token, so skew must be allowed for a clock to go behind it.
		cfg.ClockSkew, cfg.MaxAge = 5*time.Minute, time.Hour
		m := newManager[User](t, cfg)
		token := newToken(t, m, "Ada")
		clock.Advance(-4 * time.Minute)
		sess, err := m.Open(t.Context(), token)
		if err != nil || !sess.Exists() {
			t.Fatal(sess.Reason(), err)
		}
		if want := clock.Now().Add(time.Hour); !sess.ExpiresAt().Equal(want) {
			t.Errorf("ExpiresAt %v, want %v: the use must touch", sess.ExpiresAt(), want)
		}
		clock.Advance(59 * time.Minute)
		if sess, err := m.Open(t.Context(), token); err != nil || !sess.Exists() {
			t.Error(sess.Reason(), err)
		}
		clock.Advance(-time.Hour - time.Minute)
		if sess, err := m.Open(t.Context(), token); err != nil || !errors.Is(sess.Reason(), echosession.ErrInvalidToken) {
			t.Error(sess.Reason(), err)
		}
	})
}

func TestWithMaxAgeHoldsOnEveryNode(t *testing.T) {
	eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
		cfg.MaxAge = time.Hour
		here := newManager[User](t, cfg)
		cfg.MaxAge = time.Minute
		there := newManager[User](t, cfg)
		sess, err := here.Create(t.Context(), User{}, echosession.WithMaxAge(30*24*time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			clock.Advance(29 * 24 * time.Hour)
			on, err := there.Open(t.Context(), sess.Token())
			if err != nil || !on.Exists() {
				t.Fatal(on.Reason(), err)
			}
			if want := clock.Now().Add(30 * 24 * time.Hour); !on.ExpiresAt().Equal(want) {
				t.Errorf("ExpiresAt %v, want %v", on.ExpiresAt(), want)
			}
			if err := on.Update(t.Context(), func(u *User) error { u.Count++; return nil }); err != nil {
				t.Error(err)
			}
			if _, err := on.Rotate(t.Context()); err != nil {
				t.Error(err)
			}
			sess = on
		}
		clock.Advance(30*24*time.Hour + time.Second)
		if on, err := there.Open(t.Context(), sess.Token()); err != nil || !errors.Is(on.Reason(), echosession.ErrSessionGone) {
			t.Error(on.Reason(), err)
		}
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
			key := echosession.Effective(cfg).Keyspace + sess.ID()
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

func TestAbsoluteTimeout(t *testing.T) {
	eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
		cfg.MaxAge, cfg.AbsoluteTimeout = time.Hour, 3*time.Hour
		m := newManager[User](t, cfg)
		sess, err := m.Create(t.Context(), User{})
		if err != nil {
			t.Fatal(err)
		}
		created := sess.CreatedAt()
		end := clock.Now().Add(3 * time.Hour)
		for range 4 {
			clock.Advance(40 * time.Minute)
			if sess, err = m.Open(t.Context(), sess.Token()); err != nil || !sess.Exists() {
				t.Fatal(sess.Reason(), err)
			}
			if _, err := sess.Rotate(t.Context()); err != nil {
				t.Fatal(err)
			}
			want := clock.Now().Add(time.Hour)
			if want.After(end) {
				want = end
			}
			if !sess.ExpiresAt().Equal(want) || !sess.CreatedAt().Equal(created) {
				t.Errorf("ExpiresAt %v, want %v; CreatedAt %v, want %v", sess.ExpiresAt(), want, sess.CreatedAt(), created)
			}
		}
		id := sess.ID()
		clock.Advance(20*time.Minute - time.Millisecond)
		if sess, err = m.Open(t.Context(), sess.Token()); err != nil || !sess.Exists() {
			t.Fatal(sess.Reason(), err)
		}
		clock.Advance(time.Millisecond)
		for method, err := range map[string]error{
			"Update": sess.Update(t.Context(), func(*User) error { return nil }),
			"Touch":  sess.Touch(t.Context()),
			"Reload": sess.Reload(t.Context()),
		} {
			if !errors.Is(err, echosession.ErrNoSession) && !errors.Is(err, echosession.ErrSessionGone) {
				t.Errorf("%s: %v", method, err)
			}
		}
		if late, err := m.Open(t.Context(), sess.Token()); err != nil || late.Exists() {
			t.Error(late.Reason(), err)
		}
		if stored(t, cfg, id) {
			t.Error("the record outlives the session")
		}
	})
}

func TestTheEarliestTimeoutEndsASession(t *testing.T) {
	clock := newClock()
	m := newManager[User](t, mistaken(func(c *echosession.Config) {
		c.Now, c.MaxAge, c.AbsoluteTimeout = clock.Now, 2*time.Hour, 3*time.Hour
	}))
	exp := func(d time.Duration) echosession.CreateOption {
		return echosession.WithClaims(echosession.Claims{"exp": clock.Now().Add(d)})
	}
	for name, tt := range map[string]struct {
		opts []echosession.CreateOption
		want time.Duration
	}{
		"MaxAge":                         {nil, 2 * time.Hour},
		"WithMaxAge":                     {[]echosession.CreateOption{echosession.WithMaxAge(time.Hour)}, time.Hour},
		"AbsoluteTimeout, WithMaxAge":    {[]echosession.CreateOption{echosession.WithMaxAge(9 * time.Hour)}, 3 * time.Hour},
		"AbsoluteTimeout, exp":           {[]echosession.CreateOption{exp(9 * time.Hour)}, 3 * time.Hour},
		"exp, beyond MaxAge":             {[]echosession.CreateOption{exp(150 * time.Minute)}, 150 * time.Minute},
		"exp, before all others":         {[]echosession.CreateOption{exp(time.Minute)}, time.Minute},
		"exp, before WithMaxAge":         {[]echosession.CreateOption{exp(time.Minute), echosession.WithMaxAge(time.Hour)}, time.Minute},
		"WithMaxAge, before exp":         {[]echosession.CreateOption{exp(time.Hour), echosession.WithMaxAge(time.Minute)}, time.Minute},
		"WithMaxAge, the last one given": {[]echosession.CreateOption{echosession.WithMaxAge(time.Minute), echosession.WithMaxAge(time.Hour)}, time.Hour},
	} {
		sess, err := m.Create(t.Context(), User{}, tt.opts...)
		if err != nil {
			t.Fatal(name, err)
		}
		if got := sess.ExpiresAt().Sub(clock.Now()); got != tt.want {
			t.Errorf("%s: it ends in %v, want %v", name, got, tt.want)
		}
	}
}

func TestATokenWhoseTimeIsOver(t *testing.T) {
	eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
		m := newManager[User](t, cfg)
		sess, err := m.Create(t.Context(), User{}, echosession.WithClaims(echosession.Claims{"exp": clock.Now().Add(time.Minute)}))
		if err != nil {
			t.Fatal(err)
		}
		token := sess.Token()
		clock.Advance(time.Minute - time.Second)
		if sess, err := m.Open(t.Context(), token); err != nil || !sess.Exists() {
			t.Fatal(sess.Reason(), err)
		}
		clock.Advance(time.Second)
		late, err := m.Open(t.Context(), token) // though this process has verified it
		if err != nil || !errors.Is(late.Reason(), echosession.ErrInvalidToken) {
			t.Error(late.Reason(), err)
		}
	})
}
