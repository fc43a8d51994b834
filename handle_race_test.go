package echosession_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

// A meddler is a store that lets a test do something just before or after a call.
type meddler struct {
	echosession.Store
	before, after func(call string)
}

func (s *meddler) meddle(call string) func() {
	before, after := s.before, s.after
	if before != nil {
		s.before = nil
		before(call)
	}
	return func() {
		if after != nil {
			s.after = nil
			after(call)
		}
	}
}

func (s *meddler) Check(ctx context.Context, ref echosession.Ref) (time.Duration, error) {
	defer s.meddle("Check")()
	return s.Store.Check(ctx, ref)
}

func (s *meddler) Touch(ctx context.Context, ref echosession.Ref, ttl time.Duration) error {
	defer s.meddle("Touch")()
	return s.Store.Touch(ctx, ref, ttl)
}

func (s *meddler) Delete(ctx context.Context, ref echosession.Ref) error {
	defer s.meddle("Delete")()
	return s.Store.Delete(ctx, ref)
}

func (s *meddler) Renew(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
	defer s.meddle("Renew")()
	return s.Store.Renew(ctx, from, to, old, record, ttl, limit)
}

// A loadMeddler is a meddler that meddles with a Load, too.
type loadMeddler struct{ *meddler }

func (s loadMeddler) Load(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
	defer s.meddle("Load")()
	return s.Store.Load(ctx, ref, ttl)
}

// A fn that writes the session itself never comes first. Renew says so as Update does,
// and does not try for seconds.
func TestARenewThatWritesItself(t *testing.T) {
	cfg := echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret}
	m := newManager[User](t, cfg)
	sess := open(t, m, guest(t, m, User{Name: "cart"}))
	calls := 0
	_, err := sess.Renew(t.Context(), func(*User) error {
		calls++
		return sess.Update(t.Context(), count)
	}, echosession.WithSubject("ada"))
	if !errors.Is(err, echosession.ErrConflict) || !strings.Contains(err.Error(), "does fn update the session itself?") || calls > 16 {
		t.Errorf("%v after %d calls", err, calls)
	}
}

// What reads no data takes none away that the same handle has written meanwhile.
func TestNoOldDataAfterACheck(t *testing.T) {
	for name, call := range map[string]func(*echosession.Session[User]) error{
		"Check": func(sess *echosession.Session[User]) error { return sess.Check(t.Context()) },
		"Touch": func(sess *echosession.Session[User]) error { return sess.Touch(t.Context()) },
		// It reads data, but what it read is older by then: it reads again.
		"Reload": func(sess *echosession.Session[User]) error { return sess.Reload(t.Context()) },
	} {
		store := loadMeddler{&meddler{Store: echosession.NewMemoryStore()}}
		m := newManager[User](t, echosession.Config{Store: store, Secret: testSecret})
		sess, err := m.Create(t.Context(), User{})
		if err != nil {
			t.Fatal(err)
		}
		store.after = func(string) {
			if err := sess.Update(t.Context(), count); err != nil {
				t.Error(err)
			}
		}
		if err := call(sess); err != nil || sess.Data().Count != 1 {
			t.Errorf("%s: %v; the handle shows %+v", name, err, sess.Data())
		}
	}
}

// A Destroy that takes long does not clear the cookie of a session that another
// goroutine has put behind the handle meanwhile.
func TestALateDestroyOnASharedHandle(t *testing.T) {
	store := &meddler{Store: echosession.NewMemoryStore()}
	m := newManager[User](t, echosession.Config{Store: store, Secret: testSecret, Cookie: &echosession.Cookie{}})
	s := newServer(t, m.Middleware())
	route(s, m, "/", func(c echo.Context, sess *echosession.Session[User]) error {
		ctx := c.Request().Context()
		store.after = func(string) {
			if _, err := sess.Create(ctx, User{}, echosession.WithSubject("ada")); err != nil {
				t.Error(err)
			}
		}
		if err := sess.Destroy(ctx); err != nil {
			return err
		}
		return c.String(http.StatusOK, sess.Token())
	})
	old, err := m.Create(t.Context(), User{})
	if err != nil {
		t.Fatal(err)
	}
	r := s.request(t, http.MethodGet, "/", "", "Cookie", "__Host-session="+old.Token())
	got := s.do(t, r)
	if c := got.Cookies(); got.body == "" || len(c) != 1 || c[0].Value != got.body {
		t.Errorf("%q; the cookie is %v", got.body, c)
	}
}

// When the header was sent while the store was asked, no cookie can follow: the new
// session is not left for nobody.
func TestAHeaderThatIsSentMeanwhile(t *testing.T) {
	store := &meddler{Store: echosession.NewMemoryStore()}
	m := newManager[User](t, echosession.Config{Store: store, Secret: testSecret, Cookie: &echosession.Cookie{}})
	s := newServer(t, m.Middleware())
	route(s, m, "/", func(c echo.Context, sess *echosession.Session[User]) error {
		store.after = func(string) { c.Response().WriteHeader(http.StatusOK) }
		if _, err := sess.Renew(c.Request().Context(), keep, echosession.WithSubject("ada")); !errors.Is(err, echosession.ErrRequestOver) {
			t.Errorf("%v", err)
		}
		return nil
	})
	r := s.request(t, http.MethodGet, "/", "", "Cookie", "__Host-session="+guest(t, m, User{Name: "cart"}))
	s.do(t, r)
	if n := records(m); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}
