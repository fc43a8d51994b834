package echosession_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/echosession/echosession"
	"github.com/labstack/echo/v4"
)

// A handle that an old token opened works for the grace of the rotation and no
// longer, whatever it was used for meanwhile.
func TestAHandleIsNoStrongerThanItsToken(t *testing.T) {
	eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
		cfg.SubjectIndex, cfg.RotateGrace = true, 10*time.Second
		m := newManager[User](t, cfg)
		for name, use := range map[string]func(*echosession.Session[User]) error{
			"Reload": func(s *echosession.Session[User]) error { return s.Reload(t.Context()) },
			"Update": func(s *echosession.Session[User]) error {
				return s.Update(t.Context(), func(u *User) error { u.Count++; return nil })
			},
			"Touch": func(s *echosession.Session[User]) error { return s.Touch(t.Context()) },
		} {
			for _, later := range []string{"the grace is over", "rotated once more", "revoked but for the successor"} {
				t.Run(name+", "+later, func(t *testing.T) {
					sess, err := m.Create(t.Context(), User{}, echosession.WithSubject("ada "+name+later))
					if err != nil {
						t.Fatal(err)
					}
					old := open(t, m, sess.Token())
					if _, err := sess.Rotate(t.Context()); err != nil {
						t.Fatal(err)
					}
					for range 2 {
						if err := use(old); err != nil {
							t.Fatalf("in the grace: %v", err)
						}
					}
					clock.Advance(10 * time.Second)
					switch later {
					case "rotated once more":
						if _, err := sess.Rotate(t.Context()); err != nil {
							t.Fatal(err)
						}
					case "revoked but for the successor":
						if _, err := m.RevokeSubject(t.Context(), sess.Subject(), sess.ID()); err != nil {
							t.Fatal(err)
						}
					}
					if err := use(old); !errors.Is(err, echosession.ErrSessionGone) || old.Exists() {
						t.Errorf("after the grace: %v", err)
					}
					if err := use(sess); err != nil {
						t.Errorf("the successor's own handle: %v", err)
					}
				})
			}
		}
	})
}

// An update through an old handle starts from what is stored now.
func TestAnUpdateInTheGraceLosesNothing(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		m := newManager[User](t, cfg)
		sess, err := m.Create(t.Context(), User{})
		if err != nil {
			t.Fatal(err)
		}
		old := open(t, m, sess.Token())
		if _, err := sess.Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
		count := func(u *User) error { u.Count++; return nil }
		for i, s := range []*echosession.Session[User]{sess, old, sess, old} {
			if err := s.Update(t.Context(), count); err != nil {
				t.Fatal(i, err)
			}
		}
		if err := sess.Reload(t.Context()); err != nil || sess.Data().Count != 4 {
			t.Errorf("%d updates are stored, %v", sess.Data().Count, err)
		}
	})
}

func TestAnUpdateInsideAnUpdateEndsSoon(t *testing.T) {
	m := newManager[User](t, mistaken(func(*echosession.Config) {}))
	sess, err := m.Create(t.Context(), User{})
	if err != nil {
		t.Fatal(err)
	}
	rounds := 0
	err = sess.Update(t.Context(), func(u *User) error {
		rounds++
		u.Name = "outer"
		return sess.Update(t.Context(), func(u *User) error { u.Count++; return nil })
	})
	if !errors.Is(err, echosession.ErrConflict) || !strings.Contains(err.Error(), "does fn update the session itself?") {
		t.Errorf("%v", err)
	}
	if rounds > 8 {
		t.Errorf("fn ran %d times", rounds)
	}
	if u := sess.Data(); u.Name != "" || u.Count != rounds {
		t.Errorf("after %d inner updates the session holds %+v", rounds, u)
	}
}

func TestTheEmptySubjectIsRefused(t *testing.T) {
	m := newManager[User](t, mistaken(func(c *echosession.Config) { c.SubjectIndex = true }))
	if _, err := m.Create(t.Context(), User{}); err != nil {
		t.Errorf("a session without a subject: %v", err)
	}
	for name, call := range map[string]func() error{
		"WithSubject": func() error {
			_, err := m.Create(t.Context(), User{}, echosession.WithSubject(""))
			return err
		},
		"WithClaims": func() error {
			_, err := m.Create(t.Context(), User{}, echosession.WithClaims(echosession.Claims{"sub": ""}))
			return err
		},
		"List":          func() error { _, err := m.List(t.Context(), ""); return err },
		"RevokeSubject": func() error { _, err := m.RevokeSubject(t.Context(), ""); return err },
	} {
		if err := call(); err == nil {
			t.Errorf("%s takes it", name)
		}
	}
}

// A flood of failures of one kind is one line a second, and none of another kind is
// lost in it.
func TestFailuresAreReportedOnceASecond(t *testing.T) {
	log, clock := new(logBuffer), newClock()
	fault := &failing{err: fmt.Errorf("%w: %s", echosession.ErrStoreUnavailable, backendWords)}
	m := newManager[User](t, mistaken(func(c *echosession.Config) {
		fault.Store = c.Store
		c.Store, c.Logger, c.Now = fault, log.logger(), clock.Now
	}))
	fail := func(n int) {
		for range n {
			if _, err := m.Create(t.Context(), User{}); !errors.Is(err, echosession.ErrStoreUnavailable) {
				t.Fatal(err)
			}
		}
	}
	lines := func(want ...string) {
		t.Helper()
		said := log.String()
		if got := strings.Count(said, "\n"); got != len(want) {
			t.Errorf("%d lines, not %d:\n%s", got, len(want), said)
		}
		for _, w := range want {
			if !strings.Contains(said, w) {
				t.Errorf("no %q in\n%s", w, said)
			}
		}
		if strings.Contains(said, backendWords) {
			t.Errorf("the store's words are in\n%s", said)
		}
	}
	fail(1)
	lines("count=1")
	fail(500)
	lines("count=1")
	if _, err := m.Create(t.Context(), User{}, echosession.WithClaims(echosession.Claims{"jti": "mine"})); !errors.Is(err, echosession.ErrReservedClaim) {
		t.Error(err)
	}
	lines("count=1", "reserved claim")
	clock.Advance(time.Second)
	fail(1)
	lines("count=1", "reserved claim", "count=501")
	clock.Advance(-time.Hour)
	fail(1)
	lines("count=1", "reserved claim", "count=501", "operation=create")
}

// failing is a store that creates nothing.
type failing struct {
	echosession.Store
	err error
}

func (f *failing) Create(context.Context, echosession.Ref, []byte, time.Duration, echosession.Limit) ([]string, error) {
	return nil, f.err
}

// Whatever sentinel a store's error matches, its words stay within errors.As, and a
// sentinel that is none of a store's is a failure of the store.
func TestAStoresWordsNeverLeave(t *testing.T) {
	for _, tt := range []struct{ says, want error }{
		{echosession.ErrConflict, echosession.ErrConflict},
		{echosession.ErrCorrupt, echosession.ErrStoreUnavailable},
		{echosession.ErrTooLarge, echosession.ErrStoreUnavailable},
		{echosession.ErrInvalidToken, echosession.ErrStoreUnavailable},
		{echosession.ErrIndeterminate, echosession.ErrIndeterminate},
		{errors.New("no sentinel"), echosession.ErrStoreUnavailable},
	} {
		log := new(logBuffer)
		m := newManager[User](t, mistaken(func(c *echosession.Config) {
			c.Store, c.Logger = &failing{c.Store, fmt.Errorf("%w: %w", tt.says, errors.New(backendWords))}, log.logger()
		}))
		_, err := m.Create(t.Context(), User{})
		if !errors.Is(err, tt.want) || strings.Contains(err.Error(), backendWords) {
			t.Errorf("%v becomes %v, not %v", tt.says, err, tt.want)
		}
		if a, ok := m.Answer(err); !ok || strings.Contains(a.Message, backendWords) {
			t.Errorf("%v is answered %v", err, a)
		}
		if strings.Contains(log.String(), backendWords) {
			t.Errorf("the log says %s", log)
		}
	}
}

func TestAMissingMiddlewareIsLogged(t *testing.T) {
	log, before := new(logBuffer), slog.Default()
	slog.SetDefault(log.logger())
	defer slog.SetDefault(before)
	key := "no-middleware-" + rand.Text()
	c := echo.New().NewContext(httptest.NewRequest(http.MethodGet, "/", nil), httptest.NewRecorder())
	if _, err := echosession.Get[User](c, key); !errors.Is(err, echosession.ErrNotInstalled) {
		t.Error(err)
	}
	if said := log.String(); strings.Count(said, "\n") != 1 || !strings.Contains(said, key) {
		t.Errorf("the log says %q", said)
	}
}
