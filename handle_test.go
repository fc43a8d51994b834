package echosession_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

func TestCookieAfterTheHeaderWasSent(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		cfg.SubjectIndex, cfg.Cookie = true, &echosession.Cookie{Persistent: true}
		cfg.TouchInterval = echosession.TouchAlways
		m := newManager[User](t, cfg)
		s := newServer(t, m.Middleware())
		results := make(map[string]error)
		s.POST("/", func(c echo.Context) error {
			ctx := c.Request().Context()
			c.Response().WriteHeader(http.StatusOK)
			sess, err := m.Get(c)
			if err != nil {
				return err
			}
			_, results["Create"] = sess.Create(ctx, User{}, echosession.WithSubject("late"))
			_, results["Rotate"] = sess.Rotate(ctx)
			results["Touch"] = sess.Touch(ctx)
			results["Destroy"] = sess.Destroy(ctx)
			return nil
		})
		cookie := "__Host-session=" + newToken(t, m, "Ada")
		if a := s.do(t, s.request(t, "POST", "/", "", "Cookie", cookie)); a.Header["Set-Cookie"] != nil {
			t.Errorf("Set-Cookie: %q", a.Header["Set-Cookie"])
		}
		for method, err := range results {
			want := map[string]error{"Create": echosession.ErrRequestOver, "Rotate": echosession.ErrRequestOver}[method]
			if !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", method, err, want)
			}
		}
		if list, err := m.List(t.Context(), "late"); err != nil || len(list) != 0 {
			t.Errorf("Create stored a session that nobody can have: %v, %v", list, err)
		}
	})
}

// TestRequestOver lets goroutines go on with a session while Echo uses its
// contexts and responses for other requests.
// A cookie that comes too late is a mistake of the program, and is logged.
func TestALateCookieIsLogged(t *testing.T) {
	log := new(logBuffer)
	m := newManager[User](t, mistaken(func(c *echosession.Config) { c.Cookie, c.Logger = new(echosession.Cookie), log.logger() }))
	s := newServer(t, m.Middleware())
	route(s, m, "/", func(c echo.Context, sess *echosession.Session[User]) error {
		if err := c.NoContent(http.StatusNoContent); err != nil {
			return err
		}
		_, err := sess.Create(c.Request().Context(), User{})
		if !errors.Is(err, echosession.ErrRequestOver) {
			t.Error(err)
		}
		return err
	})
	s.get(t, "/", "")
	if said := log.String(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "the request is over") {
		t.Errorf("the log says %q", said)
	}
}

func TestRequestOver(t *testing.T) {
	cfg := mistaken(func(c *echosession.Config) {
		c.SubjectIndex, c.TouchInterval = true, echosession.TouchAlways
		c.Cookie = &echosession.Cookie{Persistent: true}
	})
	m := newManager[User](t, cfg)
	s := newServer(t, m.Middleware())
	var late sync.WaitGroup
	s.POST("/leak", func(c echo.Context) error {
		sess, err := m.Get(c)
		if err != nil {
			return err
		}
		over := c.Request().Context().Done()
		late.Go(func() {
			<-over
			ctx := context.Background()
			if _, err := sess.Create(ctx, User{}, echosession.WithSubject("late")); !errors.Is(err, echosession.ErrRequestOver) {
				t.Errorf("Create: %v", err)
			}
			if _, err := sess.Rotate(ctx); !errors.Is(err, echosession.ErrRequestOver) {
				t.Errorf("Rotate: %v", err)
			}
			if err := sess.Destroy(ctx); !errors.Is(err, echosession.ErrRequestOver) {
				t.Errorf("Destroy: %v", err)
			}
			// What writes no cookie goes on.
			if err := sess.Touch(ctx); err != nil {
				t.Errorf("Touch: %v", err)
			}
			if err := sess.Update(ctx, func(u *User) error { u.Count++; return nil }); err != nil {
				t.Errorf("Update: %v", err)
			}
		})
		return c.NoContent(http.StatusNoContent)
	})
	s.GET("/innocent", func(c echo.Context) error {
		for range 10 {
			c.Response().Header().Add("X-Innocent", "yes")
		}
		return c.NoContent(http.StatusNoContent)
	})
	const rounds = 200
	token := newToken(t, m, "Ada")
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for range rounds / 4 {
				s.do(t, s.request(t, "POST", "/leak", "", "Cookie", "__Host-session="+token))
				if a := s.get(t, "/innocent", ""); a.Header["Set-Cookie"] != nil || len(a.Header["X-Innocent"]) != 10 {
					t.Errorf("someone else's answer: %v", a.Header)
				}
			}
		})
	}
	clients.Wait()
	late.Wait()
	sess, err := m.Open(t.Context(), token)
	if err != nil || sess.Data().Count != rounds {
		t.Errorf("%d updates, want %d; %v", sess.Data().Count, rounds, err)
	}
	if list, err := m.List(t.Context(), "late"); err != nil || len(list) != 0 {
		t.Errorf("%d sessions that nobody knows, %v", len(list), err)
	}
}

// blocking is a store whose next Create or Rotate waits.
type blocking struct {
	echosession.Store
	begun, goOn chan struct{}
}

func (b blocking) Create(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
	b.begun <- struct{}{}
	<-b.goOn
	return b.Store.Create(ctx, ref, record, ttl, limit)
}

func TestHandlerReturnsInTheMiddleOfCreate(t *testing.T) {
	store := blocking{echosession.NewMemoryStore(), make(chan struct{}), make(chan struct{})}
	m := newManager[User](t, mistaken(func(c *echosession.Config) {
		c.Store, c.SubjectIndex, c.Cookie = store, true, &echosession.Cookie{}
	}))
	s := newServer(t, m.Middleware())
	result := make(chan error)
	route(s, m, "/", func(c echo.Context, sess *echosession.Session[User]) error {
		go func() {
			_, err := sess.Create(context.Background(), User{}, echosession.WithSubject("late"))
			result <- err
		}()
		<-store.begun
		return c.NoContent(http.StatusNoContent)
	})
	if a := s.post(t, "/", ""); a.Header["Set-Cookie"] != nil {
		t.Error(a.Header)
	}
	close(store.goOn)
	if err := <-result; !errors.Is(err, echosession.ErrRequestOver) {
		t.Error(err)
	}
	if list, err := m.List(t.Context(), "late"); err != nil || len(list) != 0 {
		t.Errorf("%d sessions that nobody knows, %v", len(list), err)
	}
}

func TestCreateTakesTheOldSessionAway(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		s, m := cookieServer(t, cfg)
		old := newToken(t, m, "Mallory")
		_, token := theCookie(t, s.do(t, s.request(t, "POST", "/create", "", "Cookie", "__Host-session="+old)))
		for _, tt := range []struct{ token, want string }{{old, "gone"}, {token, "Ada"}} {
			if a := s.get(t, "/get", tt.token); a.body != tt.want {
				t.Errorf("%q, want %q", a.body, tt.want)
			}
		}
		if token == old {
			t.Error("the token is the same: " + fmt.Sprint(len(token)))
		}
	})
}
