package echosessiontest_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/echosessiontest"
	"github.com/echosession/echosession/storetest"
)

func newRequest() *http.Request { return httptest.NewRequest(http.MethodGet, "/", nil) }

// showName answers the name of the session.
func showName(c echo.Context) error {
	sess, err := echosession.Get[User](c)
	if err != nil {
		return err
	}
	return c.String(http.StatusOK, sess.Data().Name)
}

func TestNew(t *testing.T) {
	for _, tt := range []struct {
		name  string
		opt   func(*echosession.Config)
		fatal string // part of what ends the test
	}{
		{"no option", func(*echosession.Config) {}, ""},
		{"a longer hash", func(cfg *echosession.Config) { cfg.Algorithm = "HS512" }, ""},
		{"a Secret", func(cfg *echosession.Config) { cfg.Secret = make([]byte, 32) }, ""},
		{"Keys", func(cfg *echosession.Config) {
			cfg.Keys = []echosession.SigningKey{{ID: "1", Algorithm: "HS256", Key: make([]byte, 32)}}
		}, ""},
		{"an invalid Config", func(cfg *echosession.Config) { cfg.MaxAge = -1 }, "MaxAge"},
		{"another Store", func(cfg *echosession.Config) { cfg.Store = echosession.NewMemoryStore() }, "brings its own"},
		{"another clock", func(cfg *echosession.Config) { cfg.Now = time.Now }, "brings its own"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fatal := fatality(func() { echosessiontest.New[User](newT(), tt.opt).Login(newRequest(), User{}) })
			if (fatal == "") != (tt.fatal == "") || !strings.Contains(fatal, tt.fatal) {
				t.Errorf("New ended the test with %q, not %q", fatal, tt.fatal)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	h := echosessiontest.New[User](t, func(cfg *echosession.Config) { cfg.Issuer = "shop" })
	cfg := h.Config()
	if cfg.Store != h.Store || !cfg.Now().Equal(h.Clock.Now()) || cfg.Issuer != "shop" {
		t.Errorf("the Config has another store, clock or issuer: %+v", cfg)
	}
	cfg.Cookie, cfg.SubjectIndex = &echosession.Cookie{}, true
	own, err := echosession.New[User](cfg)
	if err != nil {
		t.Fatal(err)
	}
	if h.Config().Cookie != nil {
		t.Error("a change of what Config returned changed the harness")
	}

	// A session of the one Manager is a session of the other.
	made, err := h.Manager.Create(t.Context(), User{Name: "Ada"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := own.Open(t.Context(), made.Token()); err != nil || got.Data().Name != "Ada" {
		t.Errorf("the application's Manager has %v, %v", got.Reason(), err)
	}

	// The harness goes by the application's Manager where it has one: this one
	// keeps an index, and has a cookie.
	h.Manager = own
	r := newRequest()
	h.Login(r, User{Name: "Ada"}, echosession.WithSubject("ada"))
	e := echo.New()
	e.Use(own.Middleware())
	e.GET("/", showName)
	if rec := h.Serve(e, r); rec.Body.String() != "Ada" || r.Header.Get("Cookie") == "" {
		t.Errorf("%v is answered with %s", r.Header, rec.Body)
	}
}

func TestLoginPutsTheTokenWhereItIsRead(t *testing.T) {
	cookie := new(echosession.Cookie)
	for _, tt := range []struct {
		name   string
		opt    func(*echosession.Config)
		header string
		value  string // the token is TOKEN
	}{
		{"by default", func(*echosession.Config) {}, "Authorization", "Bearer TOKEN"},
		{"a cookie", func(cfg *echosession.Config) { cfg.Cookie = cookie }, "Cookie", "other=1; __Host-session=TOKEN"},
		{"a cookie with a name", func(cfg *echosession.Config) { cfg.Cookie = &echosession.Cookie{Name: "id"} }, "Cookie", "other=1; id=TOKEN"},
		{"a cookie and nothing else", func(cfg *echosession.Config) {
			cfg.Cookie, cfg.TokenLookup = cookie, "cookie:__Host-session"
		}, "Cookie", "other=1; __Host-session=TOKEN"},
		{"a cookie that another service sets", func(cfg *echosession.Config) { cfg.TokenLookup = "query:t, cookie:sso" }, "Cookie", "other=1; sso=TOKEN"},
		{"a header", func(cfg *echosession.Config) { cfg.TokenLookup = "header:x-admin-token" }, "X-Admin-Token", "TOKEN"},
		{"a header beside tickets", func(cfg *echosession.Config) { cfg.TokenLookup = "ticket:ticket,header:X-Token" }, "X-Token", "TOKEN"},
		{"bearer beside tickets", func(cfg *echosession.Config) { cfg.TokenLookup = "ticket:Authorization,ticket:x,bearer" }, "Authorization", "Bearer TOKEN"},
		{"a header with a prefix", func(cfg *echosession.Config) { cfg.TokenLookup = "header:Authorization:Token " }, "Authorization", "Token TOKEN"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := echosessiontest.New[User](t, tt.opt, func(cfg *echosession.Config) { cfg.RequestKey = "account" })
			r := newRequest()
			r.Header.Set("Cookie", "other=1")
			for _, name := range []string{"Ada", "Bob"} { // the second Login replaces the first
				sess := h.Login(r, User{Name: name}, echosession.WithSubject(name))
				want := strings.Replace(tt.value, "TOKEN", sess.Token(), 1)
				if got := r.Header.Get(tt.header); got != want || sess.Subject() != name {
					t.Errorf("Login of %s wrote %q, not %q", sess.Subject(), got, want)
				}
				c, _ := h.NewContext(r)
				if got, err := h.Manager.Get(c); err != nil || got.ID() != sess.ID() || got.Data().Name != name {
					t.Errorf("the request has session %v, %v", got, err)
				}
			}
		})
	}
}

func TestLoginThatFails(t *testing.T) {
	for _, tt := range []struct {
		name  string
		opt   func(*echosession.Config)
		fault error
		fatal string // part of what ends the test
	}{
		{"the store is down", func(*echosession.Config) {}, echosession.ErrStoreUnavailable, "unavailable"},
		{"no place that Login knows", func(cfg *echosession.Config) { cfg.TokenLookup = "param:token" }, nil, "Manager.Create"},
		{"a place for tickets alone", func(cfg *echosession.Config) { cfg.TokenLookup = "ticket:Authorization" }, nil, "Manager.Create"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := echosessiontest.New[User](newT(), tt.opt)
			if tt.fault != nil {
				h.Store.Fail(tt.fault)
			}
			if got := fatality(func() { h.Login(newRequest(), User{}) }); !strings.Contains(got, tt.fatal) {
				t.Errorf("the test ended with %q, not with %q", got, tt.fatal)
			}
		})
	}
}

// The session that Login returns can do all that a session can.
func TestLoginReturnsAUsableSession(t *testing.T) {
	h := echosessiontest.New[User](t, func(cfg *echosession.Config) { cfg.Cookie = &echosession.Cookie{} })
	r := newRequest()
	sess := h.Login(r, User{Name: "Ada"})
	if err := sess.Update(t.Context(), func(u *User) error { u.Name = "Bob"; return nil }); err != nil {
		t.Fatal(err)
	}
	if rec := h.Run(showName, r); rec.Body.String() != "Bob" {
		t.Errorf("after Update: %s", rec.Body)
	}
	if _, err := sess.Rotate(t.Context()); err != nil {
		t.Error(err)
	}
	if err := sess.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
	if rec := h.Run(showName, r, h.Manager.Require()); rec.Code != http.StatusUnauthorized {
		t.Errorf("after Destroy: %d", rec.Code)
	}
}

// What sessions log belongs to the test that made them.
func TestLogGoesToTheTest(t *testing.T) {
	test := newT()
	h := echosessiontest.New[User](test)
	r := newRequest()
	h.Login(r, User{})
	h.Store.Fail(nil)
	h.Run(showName, r)
	if !strings.Contains(test.log.String(), "unavailable") {
		t.Errorf("the log of the test has %q", &test.log)
	}
}

// fatality returns what ended a test with newT, or "".
func fatality(f func()) (fatal string) {
	defer func() {
		if r := recover(); r != nil {
			fatal = fmt.Sprint(r)
		}
	}()
	f()
	return ""
}

func TestNewContext(t *testing.T) {
	t.Run("the session is usable until the test ends", func(t *testing.T) {
		test := newT()
		h := echosessiontest.New[User](test, func(cfg *echosession.Config) { cfg.Cookie = &echosession.Cookie{} })
		c, rec := h.NewContext(newRequest())
		sess, err := echosession.Get[User](c)
		if err != nil || !errors.Is(sess.Reason(), echosession.ErrNoToken) {
			t.Fatal(sess, err)
		}
		if _, err := sess.Create(t.Context(), User{}); err != nil {
			t.Error(err)
		}
		if cookies := rec.Result().Cookies(); len(cookies) != 1 {
			t.Errorf("Create set %v", cookies)
		}
		test.end()
		if err := sess.Destroy(t.Context()); err != echosession.ErrRequestOver {
			t.Errorf("after the test: %v", err)
		}
	})
	t.Run("the middleware leaves it alone", func(t *testing.T) {
		h := echosessiontest.New[User](t)
		r := newRequest()
		h.Login(r, User{Name: "Ada"})
		c, rec := h.NewContext(r)
		if err := h.Manager.Middleware()(showName)(c); err != nil || rec.Body.String() != "Ada" {
			t.Errorf("%q, %v", rec.Body, err)
		}
		if sess, err := echosession.Get[User](c); err != nil || sess.Destroy(t.Context()) != nil {
			t.Errorf("the session ended with the middleware: %v", err)
		}
	})
	t.Run("an answer with the cookie is private", func(t *testing.T) {
		h := echosessiontest.New[User](t, func(cfg *echosession.Config) { cfg.Cookie = &echosession.Cookie{} })
		c, rec := h.NewContext(newRequest())
		sess, err := echosession.Get[User](c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sess.Create(t.Context(), User{}); err != nil {
			t.Fatal(err)
		}
		c.Response().Header().Set("Cache-Control", "public")
		if err := c.NoContent(http.StatusNoContent); err != nil || rec.Header().Get("Cache-Control") != "private, no-store" {
			t.Errorf("%v, %v", rec.Header(), err)
		}
		if _, err := sess.Create(t.Context(), User{}); !errors.Is(err, echosession.ErrRequestOver) {
			t.Errorf("after the header: %v", err)
		}
	})
	t.Run("a parameter of the path", func(t *testing.T) {
		h := echosessiontest.New[User](t, func(cfg *echosession.Config) { cfg.TokenLookup = "param:token" })
		r := newRequest()
		made, err := h.Manager.Create(t.Context(), User{Name: "Ada"})
		if err != nil {
			t.Fatal(err)
		}
		c, rec := h.NewContext(r)
		c.SetParamNames("token")
		c.SetParamValues(made.Token())
		if err := showName(c); err != nil || rec.Body.String() != "Ada" {
			t.Errorf("%q, %v", rec.Body, err)
		}
	})
	t.Run("no goroutine outlives the test", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { // which waits for all of them
			h := echosessiontest.New[User](t)
			r := newRequest()
			h.Login(r, User{Name: "Ada"})
			c, rec := h.NewContext(r)
			if err := showName(c); err != nil || rec.Body.String() != "Ada" {
				t.Errorf("%q, %v", rec.Body, err)
			}
		})
	})
}

func TestRun(t *testing.T) {
	h := echosessiontest.New[User](t)
	r := newRequest()
	h.Login(r, User{Name: "Ada"})
	if rec := h.Run(showName, r); rec.Code != http.StatusOK || rec.Body.String() != "Ada" {
		t.Errorf("with a session: %d %s", rec.Code, rec.Body)
	}
	rec := h.Run(showName, newRequest(), h.Manager.Require())
	if rec.Code != http.StatusUnauthorized || rec.Header().Get("WWW-Authenticate") == "" {
		t.Errorf("without one behind Require: %d %v", rec.Code, rec.Header())
	}
	if rec := h.Run(showName, httptest.NewRequest(http.MethodPut, "/any/path?q", nil)); rec.Code != http.StatusOK {
		t.Errorf("another method and path: %d", rec.Code)
	}
}

func TestClock(t *testing.T) {
	h := echosessiontest.New[User](t, func(cfg *echosession.Config) { cfg.MaxAge = time.Hour })
	r := newRequest()
	h.Login(r, User{})
	start := h.Clock.Now()
	for _, step := range []struct {
		advance time.Duration
		code    int
	}{
		{time.Hour - time.Millisecond, http.StatusOK},
		{time.Hour - time.Millisecond, http.StatusOK}, // the use before restarted the hour
		{time.Hour, http.StatusUnauthorized},
	} {
		h.Clock.Advance(step.advance)
		if rec := h.Run(showName, r, h.Manager.Require()); rec.Code != step.code {
			t.Errorf("%v later: %d, not %d", step.advance, rec.Code, step.code)
		}
	}
	if got := h.Clock.Now().Sub(start); got != 3*time.Hour-2*time.Millisecond {
		t.Errorf("the clock moved by %v", got)
	}
}

// All that watches looks at once when the clock moves: no time passes.
func TestClockEndsWatches(t *testing.T) {
	const idle, deadline, grace = time.Hour, 3 * time.Hour, time.Minute
	for _, tt := range []struct {
		name string
		end  func(h *echosessiontest.Harness[User], sess, other *echosession.Session[User]) error
	}{
		{"the idle timeout", func(h *echosessiontest.Harness[User], _, _ *echosession.Session[User]) error {
			h.Clock.Advance(idle)
			return nil
		}},
		{"the absolute timeout", func(h *echosessiontest.Harness[User], sess, _ *echosession.Session[User]) (err error) {
			for range (deadline - idle) / (idle / 2) {
				h.Clock.Advance(idle / 2)
				err = errors.Join(err, sess.Touch(t.Context()))
			}
			h.Clock.Advance(time.Millisecond)
			return err
		}},
		{"the end of a grace", func(h *echosessiontest.Harness[User], _, other *echosession.Session[User]) error {
			_, err := other.Rotate(t.Context())
			h.Clock.Advance(grace)
			return err
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := echosessiontest.New[User](t, func(cfg *echosession.Config) {
					cfg.MaxAge, cfg.AbsoluteTimeout, cfg.RotateGrace = idle, deadline, grace
				})
				sess := h.Login(newRequest(), User{})
				other, err := h.Manager.Open(t.Context(), sess.Token())
				if err != nil {
					t.Fatal(err)
				}
				ctx, stop := sess.Watch(t.Context())
				defer stop()
				synctest.Wait()
				start := time.Now()
				h.Clock.Advance(idle - time.Millisecond)
				if err := sess.Touch(t.Context()); err != nil {
					t.Error(err)
				}
				if synctest.Wait(); ctx.Err() != nil {
					t.Fatalf("before its end: %v", context.Cause(ctx))
				}
				if err := tt.end(h, sess, other); err != nil {
					t.Error(err)
				}
				<-ctx.Done()
				if cause := context.Cause(ctx); !errors.Is(cause, echosession.ErrSessionGone) || !time.Now().Equal(start) {
					t.Errorf("the cause is %v, after %v", cause, time.Since(start))
				}
			})
		})
	}
}

// The Manager of the harness runs nothing when the test is over. That of the application is
// the application's to close.
func TestHarnessClosesItsManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		test := newT()
		h := echosessiontest.New[User](test)
		made := h.Manager
		app, err := echosession.New[User](h.Config())
		if err != nil {
			t.Fatal(err)
		}
		defer app.Close()
		watched := func(m *echosession.Manager[User]) context.Context {
			sess, err := m.Create(t.Context(), User{})
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := sess.Watch(t.Context())
			t.Cleanup(stop)
			return ctx
		}
		h.Manager = app
		own, others := watched(made), watched(app)
		synctest.Wait()
		test.end()
		if cause := context.Cause(own); !errors.Is(cause, echosession.ErrClosed) {
			t.Errorf("a watch of the harness' Manager: %v", cause)
		}
		if err := others.Err(); err != nil {
			t.Errorf("a watch of the application's Manager: %v", err)
		}
	}) // and it waits for all that was started
}

func TestFaultStoreConforms(t *testing.T) {
	storetest.Run(t, func(*testing.T) echosession.Store {
		return echosessiontest.NewFaultStore(echosession.NewMemoryStore())
	})
}

func TestFaultStore(t *testing.T) {
	var ref, to = echosession.Ref{ID: "8a0d4b51-55a8-4b6b-9c6c-1a3d2c5d1a01"}, echosession.Ref{ID: "8a0d4b51-55a8-4b6b-9c6c-1a3d2c5d1a02"}
	calls := []struct {
		name string
		call func(ctx context.Context, s echosession.Store) error
	}{
		{"Create", func(ctx context.Context, s echosession.Store) error {
			_, err := s.Create(ctx, ref, []byte("1"), time.Minute, echosession.Limit{})
			return err
		}},
		{"Load", func(ctx context.Context, s echosession.Store) error {
			_, err := s.Load(ctx, ref, 0)
			return err
		}},
		{"Replace", func(ctx context.Context, s echosession.Store) error {
			return s.Replace(ctx, ref, []byte("1"), []byte("2"), time.Minute)
		}},
		{"Touch", func(ctx context.Context, s echosession.Store) error { return s.Touch(ctx, ref, time.Minute) }},
		{"List", func(ctx context.Context, s echosession.Store) error {
			_, err := s.List(ctx, "ada")
			return err
		}},
		{"DeleteSubject", func(ctx context.Context, s echosession.Store) error {
			_, err := s.DeleteSubject(ctx, "ada", nil)
			return err
		}},
		{"Scan", func(ctx context.Context, s echosession.Store) error {
			for _, err := range s.Scan(ctx) {
				return err
			}
			return nil
		}},
		{"Rotate", func(ctx context.Context, s echosession.Store) error {
			return s.Rotate(ctx, ref, to, []byte("2"), []byte("3"), time.Minute, time.Minute)
		}},
		{"Delete", func(ctx context.Context, s echosession.Store) error { return s.Delete(ctx, ref) }},
	}
	other := errors.New("another error")
	s := echosessiontest.NewFaultStore(echosession.NewMemoryStore())
	for _, c := range calls {
		// Each succeeds in the end, so none that failed was done.
		s.Fail(nil)
		for range 3 {
			if err := c.call(t.Context(), s); err != echosession.ErrStoreUnavailable {
				t.Errorf("%s after Fail: %v", c.name, err)
			}
		}
		s.FailNext(2, other)
		for range 2 {
			if err := c.call(t.Context(), s); err != other {
				t.Errorf("%s after FailNext: %v", c.name, err)
			}
		}
		if err := c.call(t.Context(), s); err != nil {
			t.Errorf("%s after the failures that were asked for: %v", c.name, err)
		}
	}
	s.Fail(nil)
	s.Restore()
	if _, err := s.Load(t.Context(), ref, 0); err != echosession.ErrNotFound {
		t.Errorf("after Restore: %v", err)
	}
	s.Fail(nil)
	s.FailNext(-1, nil)
	if _, err := s.Load(t.Context(), ref, 0); err != echosession.ErrNotFound {
		t.Errorf("after FailNext(-1): %v", err)
	}
}
