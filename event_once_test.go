package echosession_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

// A request from another origin is told of once, whatever its handler tries.
func TestAForeignRequestIsToldOfOnce(t *testing.T) {
	rec := newEventRecorder()
	m := newManager[User](t, echosession.Config{
		Store: echosession.NewMemoryStore(), Secret: testSecret, Cookie: new(echosession.Cookie), OnEvent: rec.observe,
	})
	s := eventServer(t, m)
	token := askFor(t, s, 200, "/login?as=ada", "", "Authorization", "Basic eA==")
	rec.take()
	for _, path := range []string{"/login?as=ada", "/guest", "/renew?as=ada", "/rotate", "/logout"} {
		askFor(t, s, 403, path, "", "Cookie", "__Host-session="+token, "Sec-Fetch-Site", "cross-site")
		if got := rec.take(); !slices.Equal(got, []string{"refused cross_origin"}) {
			t.Errorf("%s: the events are %q", path, got)
		}
	}
	askFor(t, s, 403, "/login?as=ada", "", "Sec-Fetch-Site", "cross-site")
	rec.expect(t, "refused cross_origin")
}

// A guest of whom a browser may have held the cookie back is refused, and that is told.
func TestEventOfACookieHeldBack(t *testing.T) {
	rec := newEventRecorder()
	m := newManager[User](t, echosession.Config{
		Store: echosession.NewMemoryStore(), Secret: testSecret, OnEvent: rec.observe,
		Cookie: &echosession.Cookie{SameSite: http.SameSiteStrictMode},
	})
	s := newServer(t, m.Middleware())
	s.GET("/guest", func(c echo.Context) error {
		sess, err := m.Get(c)
		if err != nil {
			return err
		}
		return sess.UpdateOrCreate(c.Request().Context(), func(u *User) error { u.Count++; return nil })
	})
	if a := s.do(t, s.request(t, "GET", "/guest", "", "Sec-Fetch-Site", "cross-site")); a.StatusCode != 403 {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	rec.expect(t, "refused cross_origin")
}

// An old key counts as in use where a token of it opens a session. Else the tokens of ended
// sessions would keep it for ever.
func TestOldKeyOfAnEndedSession(t *testing.T) {
	key := func(id string) echosession.SigningKey {
		return echosession.SigningKey{ID: id, Algorithm: "HS256", Key: []byte(strings.Repeat(id, 32))}
	}
	rec, store := newEventRecorder(), echosession.NewMemoryStore()
	old := newManager[User](t, echosession.Config{Store: store, Keys: []echosession.SigningKey{key("a")}})
	m := newManager[User](t, echosession.Config{Store: store, Keys: []echosession.SigningKey{key("b"), key("a")}, OnEvent: rec.observe})
	sess, err := old.Create(t.Context(), User{}, echosession.WithSubject("ada"))
	if err != nil {
		t.Fatal(err)
	}
	token := sess.Token()
	rec.name(t, token, "ADA")
	for range 2 {
		if _, err := m.Open(t.Context(), token); err != nil {
			t.Fatal(err)
		}
	}
	rec.expect(t, "old_key signing ada ADA", "opened verified ada ADA", "opened cached ada ADA")
	if err := sess.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := m.Open(t.Context(), token); err != nil {
			t.Fatal(err)
		}
	}
	rec.expect(t, "refused gone ada ADA", "refused gone ada ADA", "refused gone ada ADA")
}

// A watch whose context is over before it can begin has ended, too.
func TestEventOfAWatchThatNeverRuns(t *testing.T) {
	rec := newEventRecorder()
	m := newManager[User](t, echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret, OnEvent: rec.observe})
	t.Cleanup(func() { m.Close() })
	sess, err := m.Create(t.Context(), User{}, echosession.WithSubject("ada"))
	if err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	_, stop := sess.Watch(over)
	if got := rec.take(echosession.EventWatchBegan, echosession.EventWatchEnded); len(got) != 2 || !strings.HasPrefix(got[1], "watch_ended stopped ada") {
		t.Errorf("over at once: the events are %q", got)
	}
	stop()

	ctx, cancel := context.WithCancel(t.Context())
	_, stop = sess.Watch(ctx)
	cancel()
	if _, err := sess.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := rec.take(echosession.EventWatchBegan, echosession.EventWatchEnded); len(got) != 2 || !strings.HasPrefix(got[1], "watch_ended stopped ada") {
		t.Errorf("over during a rotation: the events are %q", got)
	}
	stop()
	if got := rec.take(); got != nil {
		t.Errorf("told again: %q", got)
	}
}

// A watched session that expires has the ID of its last rotation.
func TestEventOfAnExpiryAfterARotation(t *testing.T) {
	rec := newEventRecorder()
	m := newManager[User](t, echosession.Config{
		Store: echosession.NewMemoryStore(), Secret: testSecret, OnEvent: rec.observe, MaxAge: 200 * time.Millisecond,
	})
	t.Cleanup(func() { m.Close() })
	sess, err := m.Create(t.Context(), User{}, echosession.WithSubject("ada"))
	if err != nil {
		t.Fatal(err)
	}
	before := sess.LogID()
	_, stop := sess.Watch(t.Context())
	defer stop()
	if _, err := sess.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e := rec.eventually(t, echosession.EventExpired); e.LogID != sess.LogID() {
		t.Errorf("%+v, and the session is %s", e, sess.LogID())
	}
	if e := rec.eventually(t, echosession.EventWatchEnded); e.LogID != before {
		t.Errorf("%+v, and the watch began as %s", e, before)
	}
}

// A deadline of the request's own says nothing of the store, one of the store's time does.
func TestAHurriedRequestIsNoOutage(t *testing.T) {
	rec := newEventRecorder()
	store := &silentStore{Store: echosession.NewMemoryStore()}
	m := newManager[User](t, echosession.Config{Store: store, Secret: testSecret, OnEvent: rec.observe, StoreTimeout: 200 * time.Millisecond})
	sess, err := m.Create(t.Context(), User{}, echosession.WithSubject("ada"))
	if err != nil {
		t.Fatal(err)
	}
	store.silent = true
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := m.Open(ctx, sess.Token()); !errors.Is(err, echosession.ErrStoreUnavailable) {
		t.Fatal(err)
	}
	if got := rec.take(echosession.EventStoreDown); got != nil {
		t.Errorf("a hurried request: %q", got)
	}
	if _, err := m.Open(t.Context(), sess.Token()); !errors.Is(err, echosession.ErrStoreUnavailable) {
		t.Fatal(err)
	}
	if got := rec.take(echosession.EventStoreDown); !slices.Equal(got, []string{"store_down timeout 0"}) {
		t.Errorf("a silent store: %q", got)
	}
}

// A silentStore does not answer a Load.
type silentStore struct {
	echosession.Store
	silent bool
}

func (s *silentStore) Load(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
	if s.silent {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.Store.Load(ctx, ref, ttl)
}

// Where the first word of a server's error is no code, it is in no event.
func TestNoWordOfTheServerIsACode(t *testing.T) {
	for _, text := range []string{"pla_nted_secret", "planted secret", "\x1b[2Jplanted", "-", strings.Repeat("PLANTED", 20), "plantéd"} {
		rec := newEventRecorder()
		client := newFakeRedis(t)
		client.onCommand(func([]string) error { return fakeReply(text) }, nil)
		m := newManager[User](t, echosession.Config{Client: client, Secret: testSecret, OnEvent: rec.observe})
		_, _ = m.Create(t.Context(), User{})
		got := rec.take(echosession.EventStoreDown)
		if !slices.Equal(got, []string{"store_down refused: no code 0"}) {
			t.Errorf("%q: the events are %q", text, got)
		}
	}
}
