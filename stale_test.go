package echosession_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// A troubledStore is another store that fails or is slow when a test says so.
type troubledStore struct {
	echosession.Store

	mu    sync.Mutex
	err   error // of every call
	calls map[string]int
	gates map[string]*stopping
	tell  func(echosession.Hint) // of the subscription
	heard chan struct{}          // closed when there is one
}

// A stopping holds the next call of a method.
type stopping struct {
	after   bool          // the call is done, and its answer is on the way
	entered chan struct{} // closed when the call stands at it
	resume  chan error    // lets it go on; an error takes the place of its own
}

func newTroubledStore(store echosession.Store) *troubledStore {
	return &troubledStore{Store: store, calls: make(map[string]int), gates: make(map[string]*stopping), heard: make(chan struct{})}
}

// fail makes every call fail with err, until that is nil. What fails is not done.
func (s *troubledStore) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// pretend makes writes do nothing and succeed.
func (s *troubledStore) pretend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Store = pretending{s.Store}
}

// stop stops the next call of a method, before or after it is done.
func (s *troubledStore) stop(method string, after bool) *stopping {
	g := &stopping{after, make(chan struct{}), make(chan error, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gates[method] = g
	return g
}

// lose does the next call of a method and answers with err.
func (s *troubledStore) lose(method string, err error) { s.stop(method, true).resume <- err }

func (s *troubledStore) count(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[method]
}

// all is how many calls there were.
func (s *troubledStore) all() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, calls := range s.calls {
		n += calls
	}
	return n
}

func (s *troubledStore) do(ctx context.Context, method string, run func() error) error {
	s.mu.Lock()
	s.calls[method]++
	g := s.gates[method]
	delete(s.gates, method)
	s.mu.Unlock()
	perform := func() error {
		s.mu.Lock()
		err := s.err
		s.mu.Unlock()
		if err != nil {
			return err
		}
		return run()
	}
	if g == nil {
		return perform()
	}
	var err error
	if g.after {
		err = perform()
	}
	close(g.entered)
	select {
	case other := <-g.resume:
		if other != nil {
			return other
		}
		if !g.after {
			err = perform()
		}
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", echosession.ErrStoreUnavailable, ctx.Err())
	}
}

func (s *troubledStore) Load(ctx context.Context, ref echosession.Ref, ttl time.Duration) (record []byte, err error) {
	err = s.do(ctx, "Load", func() (err error) { record, err = s.Store.Load(ctx, ref, ttl); return err })
	if err != nil {
		record = nil
	}
	return record, err
}

func (s *troubledStore) Create(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) (evicted []string, err error) {
	err = s.do(ctx, "Create", func() (err error) {
		evicted, err = s.Store.Create(ctx, ref, record, ttl, limit)
		return err
	})
	return evicted, err
}

func (s *troubledStore) Check(ctx context.Context, ref echosession.Ref) (left time.Duration, err error) {
	err = s.do(ctx, "Check", func() (err error) { left, err = s.Store.Check(ctx, ref); return err })
	return left, err
}

func (s *troubledStore) Replace(ctx context.Context, ref echosession.Ref, old, record []byte, ttl time.Duration) error {
	return s.do(ctx, "Replace", func() error { return s.Store.Replace(ctx, ref, old, record, ttl) })
}

func (s *troubledStore) Touch(ctx context.Context, ref echosession.Ref, ttl time.Duration) error {
	return s.do(ctx, "Touch", func() error { return s.Store.Touch(ctx, ref, ttl) })
}

func (s *troubledStore) Delete(ctx context.Context, ref echosession.Ref) error {
	return s.do(ctx, "Delete", func() error { return s.Store.Delete(ctx, ref) })
}

func (s *troubledStore) Rotate(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl, grace time.Duration) error {
	return s.do(ctx, "Rotate", func() error { return s.Store.Rotate(ctx, from, to, old, record, ttl, grace) })
}

func (s *troubledStore) Renew(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) (evicted []string, err error) {
	err = s.do(ctx, "Renew", func() (err error) {
		evicted, err = s.Store.Renew(ctx, from, to, old, record, ttl, limit)
		return err
	})
	return evicted, err
}

func (s *troubledStore) DeleteSubject(ctx context.Context, subject string, except []string) (n int, err error) {
	err = s.do(ctx, "DeleteSubject", func() (err error) { n, err = s.Store.DeleteSubject(ctx, subject, except); return err })
	return n, err
}

// Watch implements [echosession.Watcher]: tests tell what they like.
func (s *troubledStore) Watch(ctx context.Context, tell func(echosession.Hint)) error {
	s.mu.Lock()
	s.tell = tell
	s.mu.Unlock()
	tell(echosession.Hint{All: true})
	select {
	case <-s.heard:
	default:
		close(s.heard)
	}
	<-ctx.Done()
	return ctx.Err()
}

// A staleSite is a service of two processes. Tests talk to one of them, whose store gets
// into trouble. Nothing happens to the store of the other one.
type staleSite struct {
	*server
	t     *testing.T
	clock *clock
	store *troubledStore
	m     *echosession.Manager[User]
	other *echosession.Manager[User]
	log   *logBuffer
}

const staleFor = 10 * time.Second

func newStaleSite(t *testing.T, opts ...func(*echosession.Config)) *staleSite {
	t.Helper()
	s := &staleSite{t: t, clock: newClock(), log: new(logBuffer)}
	memory := echosession.NewMemoryStore(echosession.WithClock(s.clock.Now))
	t.Cleanup(func() { memory.Close() })
	s.store = newTroubledStore(memory)
	cfg := echosession.Config{
		Store: memory, Secret: testSecret, Now: s.clock.Now, SubjectIndex: true, MaxAge: time.Hour,
		RotateGrace: time.Minute, TouchInterval: time.Minute,
	}
	for _, opt := range opts {
		opt(&cfg)
	}
	s.other = newManager[User](t, cfg)
	cfg.Store, cfg.StaleFor, cfg.Logger = s.store, staleFor, s.log.logger()
	for _, opt := range opts {
		opt(&cfg)
	}
	s.m = newManager[User](t, cfg)
	t.Cleanup(func() { s.m.Close() })
	s.server = newServer(t, s.m.Middleware())
	route(s.server, s.m, "/stale", show, s.m.Require(echosession.ServeStale()))
	route(s.server, s.m, "/plain", show)
	return s
}

// withStaleBytes is a Config that keeps less. Only the process of a staleSite that has
// StaleFor can have it.
func withStaleBytes(n int) func(*echosession.Config) {
	return func(cfg *echosession.Config) {
		if cfg.StaleFor > 0 {
			cfg.StaleBytes = n
		}
	}
}

func show(c echo.Context, sess *echosession.Session[User]) error {
	if !sess.Exists() {
		return c.String(http.StatusOK, "nobody")
	}
	c.Response().Header().Set("Cache-Control", "public, max-age=60")
	text := fmt.Sprint(sess.Data().Name, " ", sess.Data().Count)
	if sess.Stale() {
		text += " stale"
	}
	return c.String(http.StatusOK, text)
}

// login makes a session, which the process under test has then written, and not read.
func (s *staleSite) login(name string, opts ...echosession.CreateOption) *echosession.Session[User] {
	s.t.Helper()
	return created(s.t, s.m, name, opts...)
}

// loginElsewhere makes a session of which the process under test knows nothing.
func (s *staleSite) loginElsewhere(name string, opts ...echosession.CreateOption) *echosession.Session[User] {
	s.t.Helper()
	return created(s.t, s.other, name, opts...)
}

func created(t *testing.T, m *echosession.Manager[User], name string, opts ...echosession.CreateOption) *echosession.Session[User] {
	t.Helper()
	sess, err := m.Create(t.Context(), User{Name: name}, append([]echosession.CreateOption{echosession.WithSubject(name)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return sess
}

// at returns the status of a GET, and what a handler wrote.
func (s *staleSite) at(path, token string) string {
	s.t.Helper()
	got := s.get(s.t, path, token)
	if got.StatusCode != http.StatusOK {
		return fmt.Sprint(got.StatusCode)
	}
	return got.body
}

// expect compares the answer to a GET.
func (s *staleSite) expect(token, want string) {
	s.t.Helper()
	if got := s.at("/stale", token); got != want {
		s.t.Errorf("the answer is %q, not %q", got, want)
	}
}

// down is an outage of the store.
func (s *staleSite) down() { s.store.fail(echosession.ErrStoreUnavailable) }

// up ends it, and has the process notice.
func (s *staleSite) up() {
	s.t.Helper()
	s.store.fail(nil)
	if got := s.at("/plain", s.loginElsewhere("up").Token()); got != "up 0" {
		s.t.Fatalf("after the outage: %s", got)
	}
}

func countUp(u *User) error { u.Count++; return nil }

// background runs a call and returns its result.
func background[T any](call func() T) <-chan T {
	done := make(chan T, 1)
	go func() { done <- call() }()
	return done
}

// lost is the error of a write whose answer was lost.
var lost = echosession.ErrIndeterminate

func TestServeStale(t *testing.T) {
	s := newStaleSite(t)
	token := s.loginElsewhere("ada").Token()
	s.expect(token, "ada 0")
	s.down()
	s.expect(token, "ada 0 stale")

	head := s.do(t, s.request(t, http.MethodHead, "/stale", "", "Authorization", "Bearer "+token))
	if head.StatusCode != http.StatusOK {
		t.Errorf("HEAD is answered with %d", head.StatusCode)
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions} {
		got := s.do(t, s.request(t, method, "/stale", "", "Authorization", "Bearer "+token))
		if got.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%s is answered with %d", method, got.StatusCode)
		}
	}
	if got := s.at("/plain", token); got != "503" {
		t.Errorf("without ServeStale: %s", got)
	}
	s.up()
	s.expect(token, "ada 0")
}

func TestAStaleAnswerIsNotForCaches(t *testing.T) {
	for name, cookie := range map[string]*echosession.Cookie{"token": nil, "cookie": {Insecure: true, Name: "s"}} {
		t.Run(name, func(t *testing.T) {
			s := newStaleSite(t, func(cfg *echosession.Config) { cfg.Cookie = cookie })
			route(s.server, s.m, "/empty", func(echo.Context, *echosession.Session[User]) error { return nil }, s.m.Require(echosession.ServeStale()))
			token := s.login("ada").Token()
			header := []string{"Authorization", "Bearer " + token}
			if cookie != nil {
				header = []string{"Cookie", "s=" + token}
			}
			fresh := s.do(t, s.request(t, http.MethodGet, "/stale", "", header...))
			if got := fresh.Header.Get("Cache-Control"); got != "public, max-age=60" {
				t.Errorf("a fresh answer has Cache-Control %q", got)
			}
			s.down()
			for _, path := range []string{"/stale", "/empty"} {
				got := s.do(t, s.request(t, http.MethodGet, path, "", header...))
				if cc := got.Header["Cache-Control"]; got.StatusCode != http.StatusOK || !slices.Equal(cc, []string{"private, no-store"}) {
					t.Errorf("%s: status %d, Cache-Control %q", path, got.StatusCode, cc)
				}
			}
		})
	}
}

func TestAStaleAnswerRenewsNoCookie(t *testing.T) {
	s := newStaleSite(t, func(cfg *echosession.Config) {
		cfg.Cookie = &echosession.Cookie{Insecure: true, Name: "s", Persistent: true}
		cfg.MaxAge, cfg.TouchInterval = 30*time.Second, time.Second
	})
	token := s.login("ada").Token()
	s.clock.Advance(4 * time.Second) // more than a tenth of MaxAge
	s.down()
	if got := s.do(t, s.request(t, http.MethodGet, "/stale", "", "Cookie", "s="+token)); got.StatusCode != http.StatusOK || got.Header.Get("Set-Cookie") != "" {
		t.Errorf("status %d, Set-Cookie %q", got.StatusCode, got.Header.Get("Set-Cookie"))
	}
	s.up()
	if got := s.do(t, s.request(t, http.MethodGet, "/stale", "", "Cookie", "s="+token)); got.Header.Get("Set-Cookie") == "" {
		t.Error("a fresh answer renews no cookie either")
	}
}

// Only what this process has read itself, and only so lately.
func TestWhatIsServedStale(t *testing.T) {
	t.Run("nothing that was never read", func(t *testing.T) {
		s := newStaleSite(t)
		token := s.loginElsewhere("ada").Token()
		s.down()
		s.expect(token, "503")
	})
	t.Run("a session that was created here", func(t *testing.T) {
		s := newStaleSite(t)
		token := s.login("ada").Token()
		s.down()
		s.expect(token, "ada 0 stale")
	})
	t.Run("for StaleFor", func(t *testing.T) {
		s := newStaleSite(t)
		token := s.loginElsewhere("ada").Token()
		s.expect(token, "ada 0")
		s.down()
		s.clock.Advance(staleFor - 1)
		s.expect(token, "ada 0 stale")
		s.clock.Advance(1)
		s.expect(token, "503")
	})
	t.Run("from the start of the read", func(t *testing.T) {
		s := newStaleSite(t)
		token := s.loginElsewhere("ada").Token()
		g := s.store.stop("Load", true)
		read := background(func() string { return s.at("/stale", token) })
		<-g.entered
		s.clock.Advance(staleFor / 2)
		g.resume <- nil
		if got := <-read; got != "ada 0" {
			t.Fatal(got)
		}
		s.down()
		s.clock.Advance(staleFor/2 - 1)
		s.expect(token, "ada 0 stale")
		s.clock.Advance(1)
		s.expect(token, "503")
	})
	t.Run("from the start of the read, also after a later one", func(t *testing.T) {
		s := newStaleSite(t)
		ada, bob := s.loginElsewhere("ada").Token(), s.loginElsewhere("bob").Token()
		g := s.store.stop("Load", true)
		read := background(func() string { return s.at("/stale", ada) })
		<-g.entered
		s.clock.Advance(staleFor / 2)
		s.expect(bob, "bob 0")
		g.resume <- nil
		<-read
		s.down()
		s.clock.Advance(staleFor / 2)
		s.expect(ada, "503")
		s.expect(bob, "bob 0 stale")
	})
	t.Run("what was read last, however long another read takes", func(t *testing.T) {
		s := newStaleSite(t)
		sess := s.loginElsewhere("ada")
		token := sess.Token()
		g := s.store.stop("Load", true)
		read := background(func() string { return s.at("/stale", token) })
		<-g.entered
		s.clock.Advance(time.Second)
		if err := sess.Update(t.Context(), countUp); err != nil {
			t.Fatal(err)
		}
		s.expect(token, "ada 1")
		g.resume <- nil
		if got := <-read; got != "ada 0" {
			t.Fatal(got)
		}
		s.down()
		s.expect(token, "ada 1 stale")
	})
	t.Run("not before it was read, by a clock that was set back", func(t *testing.T) {
		s := newStaleSite(t, func(cfg *echosession.Config) { cfg.ClockSkew = time.Minute })
		s.clock.Advance(time.Minute)
		token := s.login("ada").Token()
		s.down()
		s.clock.Advance(-time.Second)
		s.expect(token, "503")
	})
	t.Run("by the whole token", func(t *testing.T) {
		s := newStaleSite(t)
		token := s.login("ada").Token()
		s.down()
		for _, wrong := range []string{token[:len(token)-1], token[:len(token)-2] + "AA", s.loginElsewhere("bob").Token()} {
			if got := s.at("/stale", wrong); got != "401" && got != "503" {
				t.Errorf("another token: %s", got)
			}
		}
	})
	t.Run("what was sealed stays sealed", func(t *testing.T) {
		s := newStaleSite(t, func(cfg *echosession.Config) { cfg.EncryptionKeys = [][]byte{bytes.Repeat([]byte("k"), 32)} })
		sess := s.loginElsewhere("ada")
		s.expect(sess.Token(), "ada 0")
		stored, err := s.store.Store.Load(t.Context(), echosession.Ref{ID: sess.ID(), Subject: "ada"}, 0)
		if kept := echosession.StaleRecord(s.m, sess.Token()); err != nil || !bytes.Equal(kept, stored) || bytes.Contains(kept, []byte("ada")) {
			t.Errorf("%v: kept %q, stored %q", err, kept, stored)
		}
		s.down()
		s.expect(sess.Token(), "ada 0 stale")
	})
	t.Run("what was imported", func(t *testing.T) {
		s := newStaleSite(t, func(cfg *echosession.Config) {
			cfg.SubjectIndex = false
			cfg.Import = func(_ []byte, v any) error { v.(*User).Name = "old"; return nil }
		})
		sess := s.loginElsewhere("ada")
		ref := echosession.Ref{ID: sess.ID()}
		if err := errors.Join(s.store.Store.Delete(t.Context(), ref), errOf(s.store.Store.Create(t.Context(), ref, []byte("{}"), time.Hour, echosession.Limit{}))); err != nil {
			t.Fatal(err)
		}
		s.expect(sess.Token(), "old 0")
		s.down()
		s.expect(sess.Token(), "old 0 stale")
	})
}

// A copy is never served beyond the times in its token and its record.
func TestStaleTimes(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(*clock) echosession.CreateOption
		want string
	}{
		{"exp", func(c *clock) echosession.CreateOption {
			return echosession.WithClaims(echosession.Claims{"exp": c.Now().Add(5 * time.Second)})
		}, "401"},
		{"idle timeout", func(*clock) echosession.CreateOption { return echosession.WithMaxAge(5 * time.Second) }, "503"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStaleSite(t)
			token := s.loginElsewhere("ada", tt.end(s.clock)).Token()
			s.expect(token, "ada 0")
			s.down()
			s.clock.Advance(5*time.Second - time.Millisecond)
			s.expect(token, "ada 0 stale")
			s.clock.Advance(time.Millisecond)
			s.expect(token, tt.want)
		})
	}
}

// Only "the store is unavailable" is a reason.
func TestWhatMakesNoStaleSession(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"gone", echosession.ErrNotFound, "401"},
		{"renewed", echosession.ErrRenewed, "401"},
		{"an unknown outcome", lost, "503"},
		{"unavailable", echosession.ErrStoreUnavailable, "ada 0 stale"},
		{"words of another store", errors.New("?"), "ada 0 stale"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStaleSite(t)
			token := s.login("ada").Token()
			s.store.fail(tt.err)
			s.expect(token, tt.want)
		})
	}
	t.Run("a record that cannot be read", func(t *testing.T) {
		s := newStaleSite(t)
		sess := s.login("ada")
		ref := echosession.Ref{ID: sess.ID(), Subject: "ada"}
		if err := errors.Join(s.store.Store.Delete(t.Context(), ref), errOf(s.store.Store.Create(t.Context(), ref, []byte("no record"), time.Hour, echosession.Limit{}))); err != nil {
			t.Fatal(err)
		}
		s.expect(sess.Token(), "401")
	})
	t.Run("a client that hung up", func(t *testing.T) {
		s := newStaleSite(t)
		token := s.login("ada").Token()
		s.down()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		c := echo.New().NewContext(s.request(t, http.MethodGet, "/stale", "", "Authorization", "Bearer "+token).WithContext(ctx), httptest.NewRecorder())
		err := s.m.Middleware()(func(c echo.Context) error {
			_, err := echosession.Find[User](c.Get(s.m.RequestKey()), s.m.RequestKey(), echosession.ServeStale())
			return err
		})(c)
		if err == nil {
			t.Error("it was served")
		}
	})
}

// What a read finds out counts for the outage after it.
func TestAnEndThatAReadHasMet(t *testing.T) {
	for name, end := range map[string]func(*staleSite, *echosession.Session[User]) error{
		"destroyed": func(s *staleSite, sess *echosession.Session[User]) error { return sess.Destroy(s.t.Context()) },
		"renewed": func(s *staleSite, sess *echosession.Session[User]) error {
			_, err := open(s.t, s.other, sess.Token()).Renew(s.t.Context(), nil)
			return err
		},
		"rotated": func(s *staleSite, sess *echosession.Session[User]) error {
			_, err := open(s.t, s.other, sess.Token()).Rotate(s.t.Context())
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			for by, meet := range map[string]func(*staleSite, *echosession.Session[User]) error{
				"a request": func(s *staleSite, here *echosession.Session[User]) error { s.at("/plain", here.Token()); return nil },
				"Check":     func(s *staleSite, sess *echosession.Session[User]) error { return sess.Check(t.Context()) },
				"Touch":     func(s *staleSite, sess *echosession.Session[User]) error { return sess.Touch(t.Context()) },
				"Update":    func(s *staleSite, sess *echosession.Session[User]) error { return sess.Update(t.Context(), countUp) },
				"Reload":    func(s *staleSite, sess *echosession.Session[User]) error { return sess.Reload(t.Context()) },
			} {
				t.Run(by, func(t *testing.T) {
					s := newStaleSite(t)
					sess := s.loginElsewhere("ada")
					s.expect(sess.Token(), "ada 0")
					token := sess.Token()
					here := open(t, s.m, token)
					if err := end(s, sess); err != nil {
						t.Fatal(err)
					}
					err := meet(s, here)
					if name == "rotated" && (by == "Check" || by == "Touch") {
						return // neither reads the record, nor finds an end
					}
					if name != "rotated" && by != "a request" && err == nil {
						t.Fatal("no end was met")
					}
					s.down()
					s.expect(token, "503")
				})
			}
		})
	}
}

// ownEnds are the calls that end the session of a token, by which another token may take its place.
var ownEnds = map[string]struct {
	method string // of the store
	call   func(ctx context.Context, s *staleSite, token string) (successor string, err error)
}{
	"Destroy": {"Delete", func(ctx context.Context, s *staleSite, token string) (string, error) {
		return "", open(s.t, s.m, token).Destroy(ctx)
	}},
	"Renew": {"Renew", func(ctx context.Context, s *staleSite, token string) (string, error) {
		return open(s.t, s.m, token).Renew(ctx, countUp)
	}},
	"Rotate": {"Rotate", func(ctx context.Context, s *staleSite, token string) (string, error) {
		return open(s.t, s.m, token).Rotate(ctx)
	}},
	"Create over it": {"Delete", func(ctx context.Context, s *staleSite, token string) (string, error) {
		return open(s.t, s.m, token).Create(ctx, User{Name: "ada", Count: 1}, echosession.WithSubject("ada"))
	}},
	"Revoke": {"Delete", func(ctx context.Context, s *staleSite, token string) (string, error) {
		_, err := s.m.Revoke(ctx, "ada", open(s.t, s.m, token).ID())
		return "", err
	}},
	"RevokeSubject": {"DeleteSubject", func(ctx context.Context, s *staleSite, _ string) (string, error) {
		_, err := s.m.RevokeSubject(ctx, "ada")
		return "", err
	}},
}

// What this process ended itself is never served, and what it could not end is.
func TestAnEndOfOurOwn(t *testing.T) {
	for name, end := range ownEnds {
		t.Run(name, func(t *testing.T) {
			t.Run("succeeds", func(t *testing.T) {
				s := newStaleSite(t)
				token := s.login("ada").Token()
				s.clock.Advance(time.Second)
				successor, err := end.call(t.Context(), s, token)
				if err != nil {
					t.Fatal(err)
				}
				s.down()
				s.expect(token, "503")
				if successor != "" {
					want := "ada 1 stale"
					if name == "Rotate" {
						want = "ada 0 stale"
					}
					s.expect(successor, want)
				}
			})
			t.Run("fails", func(t *testing.T) {
				s := newStaleSite(t)
				token := s.login("ada").Token()
				s.clock.Advance(time.Second)
				g := s.store.stop(end.method, false)
				g.resume <- echosession.ErrStoreUnavailable
				s.store.pretend()
				if _, err := end.call(t.Context(), s, token); !errors.Is(err, echosession.ErrStoreUnavailable) || errors.Is(err, echosession.ErrIndeterminate) {
					t.Fatal(err)
				}
				s.down()
				s.expect(token, "ada 0 stale")
			})
			t.Run("may have succeeded", func(t *testing.T) {
				s := newStaleSite(t)
				token := s.login("ada").Token()
				s.clock.Advance(time.Second)
				s.store.pretend()
				s.store.lose(end.method, lost)
				if _, err := end.call(t.Context(), s, token); !errors.Is(err, echosession.ErrIndeterminate) {
					t.Fatal(err)
				}
				// It is read again, as it was: the write may still be on its way.
				s.expect(token, "ada 0")
				s.down()
				s.expect(token, "503")
				s.up()
				// As long as a copy lives, and no longer.
				s.clock.Advance(staleFor)
				s.expect(token, "ada 0")
				s.down()
				s.expect(token, "ada 0 stale")
			})
			t.Run("while a read is under way", func(t *testing.T) {
				s := newStaleSite(t)
				token := s.loginElsewhere("ada").Token()
				s.clock.Advance(time.Second)
				g := s.store.stop("Load", true)
				read := background(func() string { return s.at("/stale", token) })
				<-g.entered
				if _, err := end.call(t.Context(), s, token); err != nil {
					t.Fatal(err)
				}
				g.resume <- nil
				if got := <-read; got != "ada 0" {
					t.Fatal(got)
				}
				s.down()
				s.expect(token, "503")
			})
			t.Run("is under way", func(t *testing.T) {
				s := newStaleSite(t)
				token := s.login("ada").Token()
				s.clock.Advance(time.Second)
				s.store.pretend()
				g := s.store.stop(end.method, false)
				call := background(func() error { _, err := end.call(t.Context(), s, token); return err })
				<-g.entered
				s.down()
				s.expect(token, "503")
				g.resume <- nil
				if err := <-call; !errors.Is(err, echosession.ErrStoreUnavailable) {
					t.Fatal(err)
				}
				s.expect(token, "ada 0 stale")
			})
		})
	}
}

// pretending is a store that ends nothing: what a [troubledStore] says of it is not true.
type pretending struct{ echosession.Store }

func (pretending) Delete(context.Context, echosession.Ref) error { return nil }
func (pretending) DeleteSubject(context.Context, string, []string) (int, error) {
	return 0, nil
}
func (pretending) Rotate(_ context.Context, _, _ echosession.Ref, _, _ []byte, _, _ time.Duration) error {
	return nil
}
func (pretending) Renew(_ context.Context, _, _ echosession.Ref, _, _ []byte, _ time.Duration, _ echosession.Limit) ([]string, error) {
	return nil, nil
}
func (pretending) Replace(context.Context, echosession.Ref, []byte, []byte, time.Duration) error {
	return nil
}

// An update is never taken back by an outage.
func TestAnUpdateOfOurOwn(t *testing.T) {
	t.Run("succeeds", func(t *testing.T) {
		s := newStaleSite(t)
		sess := s.login("ada")
		if err := sess.Update(t.Context(), countUp); err != nil {
			t.Fatal(err)
		}
		s.down()
		s.expect(sess.Token(), "ada 1 stale")
	})
	t.Run("fails", func(t *testing.T) {
		s := newStaleSite(t)
		sess := s.login("ada")
		s.down()
		if err := sess.Update(t.Context(), countUp); !errors.Is(err, echosession.ErrStoreUnavailable) {
			t.Fatal(err)
		}
		s.expect(sess.Token(), "ada 0 stale")
	})
	t.Run("may have succeeded", func(t *testing.T) {
		s := newStaleSite(t)
		sess := s.login("ada")
		s.store.lose("Replace", lost)
		if err := sess.Update(t.Context(), countUp); !errors.Is(err, echosession.ErrIndeterminate) {
			t.Fatal(err)
		}
		s.down()
		s.expect(sess.Token(), "503")
	})
	t.Run("panics", func(t *testing.T) {
		s := newStaleSite(t)
		sess := s.login("ada")
		s.store.Store = panickingWrites{s.store.Store}
		func() {
			defer func() { _ = recover() }()
			_ = sess.Update(t.Context(), countUp)
			t.Error("no panic")
		}()
		s.down()
		s.expect(sess.Token(), "503")
	})
	t.Run("while a read is under way", func(t *testing.T) {
		s := newStaleSite(t)
		sess := s.login("ada")
		g := s.store.stop("Load", true)
		read := background(func() string { return s.at("/stale", sess.Token()) })
		<-g.entered
		if err := sess.Update(t.Context(), countUp); err != nil {
			t.Fatal(err)
		}
		g.resume <- nil
		if got := <-read; got != "ada 0" {
			t.Fatal(got)
		}
		s.down()
		s.expect(sess.Token(), "ada 1 stale")
	})
	t.Run("fails, and a read that began before it ends after it", func(t *testing.T) {
		s := newStaleSite(t)
		sess := s.loginElsewhere("ada")
		here := open(t, s.m, sess.Token())
		s.clock.Advance(staleFor) // that copy is over
		g := s.store.stop("Load", true)
		read := background(func() string { return s.at("/stale", sess.Token()) })
		<-g.entered
		s.down()
		if err := here.Update(t.Context(), countUp); !errors.Is(err, echosession.ErrStoreUnavailable) {
			t.Fatal(err)
		}
		g.resume <- nil
		if got := <-read; got != "ada 0" {
			t.Fatal(got)
		}
		s.expect(sess.Token(), "ada 0 stale")
	})
	t.Run("of a listed session", func(t *testing.T) {
		s := newStaleSite(t)
		token := s.login("ada").Token()
		list, err := s.m.List(t.Context(), "ada")
		if err != nil || len(list) != 1 {
			t.Fatal(err)
		}
		if err := list[0].Update(t.Context(), countUp); err != nil {
			t.Fatal(err)
		}
		s.down()
		s.expect(token, "503") // its copy is older, and the list knows no token
	})
}

// panickingWrites is a store that panics when it is to write.
type panickingWrites struct{ echosession.Store }

func (panickingWrites) Replace(context.Context, echosession.Ref, []byte, []byte, time.Duration) error {
	panic("a mistake in the store")
}

// Two writes of one session at once: whatever the order in which they begin and end, nothing
// is served that is older than one of them.
func TestTwoWritesAtOnce(t *testing.T) {
	down := echosession.ErrStoreUnavailable
	for _, tt := range []struct {
		name          string
		first, second error // what the writes say, which are done if that is nil or lost
		want          string
	}{
		{"both fail", down, down, "ada 0 stale"},
		{"the first succeeds", nil, down, "ada 1 stale"},
		{"the second succeeds", down, nil, "ada 10 stale"},
		{"the first is unknown", lost, down, "503"},
		{"the second is unknown", down, lost, "503"},
		{"both succeed", nil, nil, "503"}, // which of them came first?
	} {
		for _, order := range []string{"in order", "the other way round"} {
			t.Run(tt.name+", "+order, func(t *testing.T) {
				s := newStaleSite(t)
				token := s.login("ada").Token()
				// Both are held at it, and refused there or let through to a store that
				// takes everything.
				s.store.pretend()
				begin := func(n int) (*stopping, <-chan error) {
					g := s.store.stop("Replace", false)
					sess := open(t, s.m, token)
					call := background(func() error {
						return sess.Update(t.Context(), func(u *User) error { u.Count += n; return nil })
					})
					<-g.entered
					return g, call
				}
				g1, call1 := begin(1)
				g2, call2 := begin(10)
				end := func(g *stopping, call <-chan error, verdict error) {
					g.resume <- verdict
					if err := <-call; !errors.Is(err, verdict) {
						t.Fatal(err)
					}
				}
				s.store.fail(nil)
				if order == "in order" {
					end(g1, call1, tt.first)
					hidden(s, token)
					end(g2, call2, tt.second)
				} else {
					end(g2, call2, tt.second)
					hidden(s, token)
					end(g1, call1, tt.first)
				}
				s.down()
				s.expect(token, tt.want)
			})
		}
	}
}

// hidden expects nothing while a write is under way.
func hidden(s *staleSite, token string) {
	s.t.Helper()
	s.down()
	s.expect(token, "503")
	s.store.fail(nil)
}

// A logout that is under way beside an update that succeeds.
func TestADestroyBesideAnUpdate(t *testing.T) {
	for verdict, want := range map[error]string{echosession.ErrStoreUnavailable: "ada 1 stale", lost: "503", nil: "503"} {
		t.Run(fmt.Sprint(verdict), func(t *testing.T) {
			s := newStaleSite(t)
			sess := s.login("ada")
			s.store.pretend()
			other := open(t, s.m, sess.Token())
			g := s.store.stop("Delete", false)
			call := background(func() error { return other.Destroy(t.Context()) })
			<-g.entered
			if err := sess.Update(t.Context(), countUp); err != nil {
				t.Fatal(err)
			}
			hidden(s, sess.Token())
			g.resume <- verdict
			if err := <-call; !errors.Is(err, verdict) {
				t.Fatal(err)
			}
			s.down()
			s.expect(sess.Token(), want)
		})
	}
}

// Several tokens of one session, of which this process does not know that they are one's.
func TestTokensOfOneSession(t *testing.T) {
	rotated := func(s *staleSite) (before, after string) {
		t.Helper()
		before = s.loginElsewhere("ada").Token()
		s.expect(before, "ada 0")
		after, err := open(t, s.other, before).Rotate(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.clock.Advance(time.Second)
		s.expect(after, "ada 0")
		return before, after
	}
	for name, end := range ownEnds {
		t.Run(name+" with the token after", func(t *testing.T) {
			s := newStaleSite(t)
			before, after := rotated(s)
			if _, err := end.call(t.Context(), s, after); err != nil {
				t.Fatal(err)
			}
			s.down()
			s.expect(before, "503")
			s.expect(after, "503")
		})
	}
	t.Run("an update with the token after", func(t *testing.T) {
		s := newStaleSite(t)
		before, after := rotated(s)
		if err := open(t, s.m, after).Update(t.Context(), countUp); err != nil {
			t.Fatal(err)
		}
		s.down()
		s.expect(before, "503")
		s.expect(after, "ada 1 stale")
	})
	t.Run("a handle from before a rotation ends what came after it", func(t *testing.T) {
		s := newStaleSite(t)
		before := s.loginElsewhere("ada").Token()
		handle := open(t, s.m, before)
		after, err := open(t, s.other, before).Rotate(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.expect(after, "ada 0")
		if err := handle.Destroy(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.down()
		s.expect(after, "503")
	})
	t.Run("and perhaps ends it", func(t *testing.T) {
		s := newStaleSite(t)
		before := s.loginElsewhere("ada").Token()
		handle := open(t, s.m, before)
		after, err := open(t, s.other, before).Rotate(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.store.pretend()
		s.store.lose("Delete", lost)
		if err := handle.Destroy(t.Context()); !errors.Is(err, echosession.ErrIndeterminate) {
			t.Fatal(err)
		}
		s.expect(after, "ada 0")
		s.down()
		s.expect(after, "503")
	})
	t.Run("a token in its grace", func(t *testing.T) {
		s := newStaleSite(t)
		before, _ := rotated(s)
		s.expect(before, "ada 0")
		s.down()
		s.expect(before, "503") // nobody here knows when the grace ends
	})
	t.Run("a token in its grace that is new here", func(t *testing.T) {
		s := newStaleSite(t)
		before := s.loginElsewhere("ada").Token()
		if _, err := open(t, s.other, before).Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.expect(before, "ada 0")
		s.down()
		s.expect(before, "503")
	})
	t.Run("by the ID of the token before", func(t *testing.T) {
		s := newStaleSite(t)
		old := s.loginElsewhere("ada")
		after, err := open(t, s.other, old.Token()).Rotate(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.expect(after, "ada 0")
		if ok, err := s.m.Revoke(t.Context(), "ada", old.ID()); !ok || err != nil {
			t.Fatal(ok, err)
		}
		s.down()
		s.expect(after, "503")
	})
	t.Run("by the ID of the token before, of a record that cannot be read then", func(t *testing.T) {
		s := newStaleSite(t)
		old := s.loginElsewhere("ada")
		after, err := open(t, s.other, old.Token()).Rotate(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.expect(after, "ada 0")
		s.store.stop("Load", false).resume <- echosession.ErrStoreUnavailable
		if ok, err := s.m.Revoke(t.Context(), "ada", old.ID()); !ok || err != nil {
			t.Fatal(ok, err)
		}
		s.down()
		s.expect(after, "503")
	})
}

// What ends sessions of a subject concerns them all, and no other.
func TestStaleSessionsOfASubject(t *testing.T) {
	t.Run("log out everywhere else", func(t *testing.T) {
		s := newStaleSite(t)
		mine, phone, bob := s.login("ada"), s.login("ada"), s.login("bob")
		s.clock.Advance(time.Second)
		if n, err := s.m.RevokeSubject(t.Context(), "ada", mine.ID()); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		s.down()
		s.expect(mine.Token(), "ada 0 stale")
		s.expect(phone.Token(), "503")
		s.expect(bob.Token(), "bob 0 stale")
	})
	t.Run("which a failover undoes", func(t *testing.T) {
		s := newStaleSite(t)
		phone := s.login("ada").Token()
		s.clock.Advance(time.Second)
		s.store.pretend()
		if _, err := s.m.RevokeSubject(t.Context(), "ada"); err != nil {
			t.Fatal(err)
		}
		s.expect(phone, "ada 0")
		s.down()
		s.expect(phone, "503")
	})
	t.Run("and then log in again", func(t *testing.T) {
		s := newStaleSite(t)
		s.login("ada")
		s.clock.Advance(time.Second)
		if _, err := s.m.RevokeSubject(t.Context(), "ada"); err != nil {
			t.Fatal(err)
		}
		here, elsewhere := s.login("ada"), s.loginElsewhere("ada")
		s.expect(elsewhere.Token(), "ada 0")
		s.down()
		s.expect(here.Token(), "ada 0 stale")
		s.expect(elsewhere.Token(), "ada 0 stale")
	})
	t.Run("perhaps everywhere else", func(t *testing.T) {
		s := newStaleSite(t)
		mine, phone := s.login("ada"), s.login("ada")
		s.store.pretend()
		s.store.lose("DeleteSubject", lost)
		if _, err := s.m.RevokeSubject(t.Context(), "ada", mine.ID()); !errors.Is(err, echosession.ErrIndeterminate) {
			t.Fatal(err)
		}
		s.expect(phone.Token(), "ada 0")
		s.down()
		s.expect(mine.Token(), "ada 0 stale")
		s.expect(phone.Token(), "503")
	})
	t.Run("one device", func(t *testing.T) {
		s := newStaleSite(t)
		mine := s.login("ada")
		s.clock.Advance(time.Second)
		phone := s.login("ada")
		if ok, err := s.m.Revoke(t.Context(), "ada", phone.ID()); !ok || err != nil {
			t.Fatal(ok, err)
		}
		s.down()
		s.expect(mine.Token(), "ada 0 stale")
		s.expect(phone.Token(), "503")
	})
	t.Run("one more than there can be", func(t *testing.T) {
		s := newStaleSite(t, func(cfg *echosession.Config) { cfg.MaxSessions = 2 })
		oldest := s.login("ada")
		s.clock.Advance(time.Second)
		mine := s.login("ada")
		s.clock.Advance(time.Second)
		newest := s.login("ada")
		s.down()
		s.expect(oldest.Token(), "503")
		s.expect(mine.Token(), "503") // nobody said which of them gave way
		s.expect(newest.Token(), "ada 0 stale")
		s.up()
		s.expect(mine.Token(), "ada 0")
		s.down()
		s.expect(mine.Token(), "ada 0 stale")
	})
	t.Run("one more, by a guest who logs in", func(t *testing.T) {
		s := newStaleSite(t, func(cfg *echosession.Config) { cfg.MaxSessions = 1 })
		oldest := s.login("ada")
		s.clock.Advance(time.Second)
		guest, err := s.m.Create(t.Context(), User{Name: "guest"})
		if err != nil {
			t.Fatal(err)
		}
		token, err := guest.Renew(t.Context(), countUp, echosession.WithSubject("ada"))
		if err != nil {
			t.Fatal(err)
		}
		s.down()
		s.expect(oldest.Token(), "503")
		s.expect(token, "guest 1 stale")
	})
}

// What the process hears of counts at once.
func TestAHintDuringAnOutage(t *testing.T) {
	s := newStaleSite(t)
	ada, bob, eve := s.login("ada"), s.login("bob"), s.login("eve")
	for _, sess := range []*echosession.Session[User]{ada, bob, eve} {
		s.expect(sess.Token(), sess.Data().Name+" 0")
	}
	select {
	case <-s.store.heard:
	case <-time.After(10 * time.Second):
		t.Fatal("nobody listens")
	}
	s.down()
	s.store.tell(echosession.Hint{All: true})
	s.expect(ada.Token(), "ada 0 stale")
	s.store.tell(echosession.Hint{IDs: []string{ada.ID()}})
	s.store.tell(echosession.Hint{Match: func(ref echosession.Ref) bool { return ref.Subject == "bob" }})
	s.expect(ada.Token(), "503")
	s.expect(bob.Token(), "503")
	s.expect(eve.Token(), "eve 0 stale")
	s.up()
	s.expect(bob.Token(), "bob 0")
	s.down()
	s.expect(bob.Token(), "bob 0 stale") // it was read after the hint
}

// A hint that comes while a read is under way.
func TestAHintDuringARead(t *testing.T) {
	for name, hint := range map[string]func(id string) echosession.Hint{
		"by ID": func(id string) echosession.Hint { return echosession.Hint{IDs: []string{id}} },
		"by match": func(id string) echosession.Hint {
			return echosession.Hint{Match: func(ref echosession.Ref) bool { return ref.ID == id }}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStaleSite(t)
			sess := s.loginElsewhere("ada")
			g := s.store.stop("Load", true)
			read := background(func() string { return s.at("/stale", sess.Token()) })
			<-g.entered
			<-s.store.heard
			s.store.tell(hint(sess.ID()))
			g.resume <- nil
			if got := <-read; got != "ada 0" {
				t.Fatal(got)
			}
			s.down()
			s.expect(sess.Token(), "503")
		})
	}
}

// ServeStale works for a request that somebody has asked for its session before.
func TestGetBeforeServeStale(t *testing.T) {
	s := newStaleSite(t)
	get := func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if _, err := s.m.Get(c); !errors.Is(err, echosession.ErrStoreUnavailable) {
				return fmt.Errorf("the first Get: %w", err)
			}
			return next(c)
		}
	}
	var first *echosession.Session[User]
	after := func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) (err error) {
			first, err = s.m.Get(c)
			return errors.Join(err, next(c))
		}
	}
	var again *echosession.Session[User]
	route(s.server, s.m, "/get", func(c echo.Context, sess *echosession.Session[User]) error {
		again = sess
		return show(c, sess)
	}, get, s.m.Require(echosession.ServeStale()), after)
	token := s.login("ada").Token()
	s.down()
	before := s.store.count("Load")
	if got := s.at("/get", token); got != "ada 0 stale" {
		t.Error(got)
	}
	if n := s.store.count("Load") - before; n != 1 {
		t.Errorf("%d loads", n)
	}
	if first == nil || first != again {
		t.Error("a Get after ServeStale returns another handle")
	}
}

// A stale session cannot be written, and no method asks the store for that.
func TestAStaleSessionIsNotWritten(t *testing.T) {
	s := newStaleSite(t)
	calls := map[string]func(context.Context, *echosession.Session[User]) error{
		"Create": func(ctx context.Context, sess *echosession.Session[User]) error {
			_, err := sess.Create(ctx, User{}, echosession.WithSubject("ada"))
			return err
		},
		"UpdateOrCreate": func(ctx context.Context, sess *echosession.Session[User]) error {
			return sess.UpdateOrCreate(ctx, countUp)
		},
		"Destroy": func(ctx context.Context, sess *echosession.Session[User]) error { return sess.Destroy(ctx) },
		"Fresh": func(_ context.Context, sess *echosession.Session[User]) error {
			return sess.Meets(echosession.Fresh(time.Hour))
		},
	}
	for name, call := range sessionCalls {
		if name != "Reload" && name != "Check" {
			calls[name] = call
		}
	}
	for name, call := range calls {
		route(s.server, s.m, "/"+name, func(c echo.Context, sess *echosession.Session[User]) error {
			if !sess.Stale() || !sess.Exists() || sess.Reason() != nil {
				return errors.New("it is not stale")
			}
			before := s.store.all()
			err := call(c.Request().Context(), sess)
			if !errors.Is(err, echosession.ErrStoreUnavailable) || errors.Is(err, echosession.ErrIndeterminate) {
				t.Errorf("%s: %v", name, err)
			}
			if n := s.store.all() - before; n != 0 {
				t.Errorf("%s: %d calls of the store", name, n)
			}
			return show(c, sess)
		}, s.m.Require(echosession.ServeStale()))
	}
	token := s.login("ada").Token()
	s.down()
	s.expect(token, "ada 0 stale")
	for name := range calls {
		time.Sleep(5 * time.Millisecond) // a probe that is under way is counted no more
		if got := s.at("/"+name, token); got != "ada 0 stale" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// Check and Reload ask the store, and a Reload makes the session fresh.
func TestAStaleSessionThatIsReadAgain(t *testing.T) {
	s := newStaleSite(t)
	sess := s.loginElsewhere("ada")
	route(s.server, s.m, "/again", func(c echo.Context, here *echosession.Session[User]) error {
		ctx := c.Request().Context()
		for name, call := range map[string]func(context.Context) error{"Check": here.Check, "Reload": here.Reload} {
			if err := call(ctx); !errors.Is(err, echosession.ErrStoreUnavailable) || !here.Stale() {
				t.Errorf("%s in the outage: %v", name, err)
			}
		}
		s.store.fail(nil)
		if err := here.Check(ctx); err != nil || !here.Stale() {
			t.Errorf("Check: %v, and the session is stale: %t", err, here.Stale())
		}
		if err := here.Reload(ctx); err != nil || here.Stale() {
			t.Errorf("Reload: %v, and the session is stale: %t", err, here.Stale())
		}
		if err := here.Update(ctx, countUp); err != nil {
			t.Error(err)
		}
		return show(c, here)
	}, s.m.Require(echosession.ServeStale()))
	s.expect(sess.Token(), "ada 0")
	if err := sess.Update(t.Context(), countUp); err != nil {
		t.Fatal(err)
	}
	s.down()
	got := s.get(t, "/again", sess.Token())
	if got.body != "ada 2" || got.Header.Get("Cache-Control") != "private, no-store" {
		t.Errorf("%q, Cache-Control %q", got.body, got.Header.Get("Cache-Control"))
	}
}

// A Check that was under way takes a Reload's word for it.
func TestACheckBesideAReload(t *testing.T) {
	s := newStaleSite(t)
	route(s.server, s.m, "/both", func(c echo.Context, here *echosession.Session[User]) error {
		ctx := c.Request().Context()
		s.store.fail(nil)
		g := s.store.stop("Check", false)
		check := background(func() error { return here.Check(ctx) })
		<-g.entered
		if err := here.Reload(ctx); err != nil {
			t.Error(err)
		}
		g.resume <- nil
		if err := <-check; err != nil {
			t.Error(err)
		}
		return show(c, here)
	}, s.m.Require(echosession.ServeStale()))
	token := s.login("ada").Token()
	s.down()
	if got := s.at("/both", token); got != "ada 0" {
		t.Error(got)
	}
}

// What is to be shown once stays for a request that can take it.
func TestTakeFromAStaleSession(t *testing.T) {
	s := newStaleSite(t)
	var taken []string
	route(s.server, s.m, "/take", func(c echo.Context, sess *echosession.Session[User]) (err error) {
		taken, err = echosession.Take(c.Request().Context(), sess, func(u *User) *[]string { return &u.Cart })
		return err
	}, s.m.Require(echosession.ServeStale()))
	sess := s.login("ada")
	if err := sess.Update(t.Context(), func(u *User) error { u.Cart = []string{"note"}; return nil }); err != nil {
		t.Fatal(err)
	}
	s.down()
	if got := s.at("/take", sess.Token()); got != "" || taken != nil {
		t.Errorf("%s: took %q", got, taken)
	}
	s.up()
	if got := s.at("/take", sess.Token()); got != "" || !slices.Equal(taken, []string{"note"}) {
		t.Errorf("%s: took %q", got, taken)
	}
}

func TestStaleConfig(t *testing.T) {
	store := newTroubledStore(nil)
	for _, tt := range []struct {
		name  string
		cfg   echosession.Config
		field string // that is refused
	}{
		{"a second", echosession.Config{Store: store, StaleFor: time.Second}, ""},
		{"a minute", echosession.Config{Store: store, StaleFor: time.Minute, StaleBytes: 1}, ""},
		{"less", echosession.Config{Store: store, StaleFor: time.Second - 1}, "StaleFor"},
		{"more", echosession.Config{Store: store, StaleFor: time.Minute + 1}, "StaleFor"},
		{"negative", echosession.Config{Store: store, StaleFor: -time.Second}, "StaleFor"},
		{"with the memory store", echosession.Config{Store: echosession.NewMemoryStore(), StaleFor: time.Second}, "StaleFor"},
		{"negative bytes", echosession.Config{Store: store, StaleFor: time.Second, StaleBytes: -1}, "StaleBytes"},
		{"bytes alone", echosession.Config{Store: store, StaleBytes: 1}, "StaleBytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.cfg.Secret = testSecret
			_, err := echosession.New[User](tt.cfg)
			if tt.field == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if mistake, ok := errors.AsType[*echosession.ConfigError](err); !ok || mistake.Field != tt.field {
				t.Errorf("the error is %v", err)
			}
		})
	}
	effective := echosession.Effective(echosession.Config{Store: store, Secret: testSecret, StaleFor: time.Second})
	if effective.StaleBytes != 64<<20 {
		t.Errorf("StaleBytes is %d", effective.StaleBytes)
	}
}

func TestServeStaleIsRefused(t *testing.T) {
	on := newStaleSite(t).m
	off := newManager[User](t, echosession.Config{Store: newTroubledStore(nil), Secret: testSecret})
	for name, require := range map[string]func(){
		"before Fresh":     func() { echosession.Require[User](echosession.ServeStale(), echosession.Fresh(time.Minute)) },
		"after Fresh":      func() { on.Require(echosession.Fresh(time.Minute), echosession.ServeStale()) },
		"without StaleFor": func() { off.Require(echosession.ServeStale()) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			require()
		})
	}
}

// Require does not know whose sessions it meets, and says later that ServeStale does nothing.
func TestServeStaleWithoutStaleFor(t *testing.T) {
	log := new(logBuffer)
	store := newTroubledStore(echosession.NewMemoryStore())
	m := newManager[User](t, echosession.Config{Store: store, Secret: testSecret, Logger: log.logger()})
	s := newServer(t, m.Middleware())
	route(s, m, "/", show, echosession.Require[User](echosession.ServeStale()))
	token := created(t, m, "ada").Token()
	if got := s.get(t, "/", token); got.body != "ada 0" {
		t.Fatal(got.StatusCode, got.body)
	}
	if !strings.Contains(log.String(), "set Config.StaleFor") {
		t.Errorf("the log is %s", log)
	}
	store.fail(echosession.ErrStoreUnavailable)
	if got := s.get(t, "/", token); got.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("status %d", got.StatusCode)
	}
}

// Every stale answer is counted in the log.
func TestStaleSessionsAreLogged(t *testing.T) {
	s := newStaleSite(t)
	token := s.login("ada").Token()
	s.down()
	for range 3 {
		s.expect(token, "ada 0 stale")
	}
	s.clock.Advance(time.Second)
	s.expect(token, "ada 0 stale")
	for _, line := range []string{`level=WARN msg="session served stale" operation=load cause="store unavailable" count=1`, `msg="session served stale" operation=load cause="store unavailable" count=3`} {
		if !strings.Contains(s.log.String(), line) {
			t.Errorf("no %s in\n%s", line, s.log)
		}
	}
	if strings.Contains(s.log.String(), token) {
		t.Error("a token is in the log")
	}
}

// Copies take no more memory than is allowed: the sessions that were read longest ago give way.
func TestStaleBytes(t *testing.T) {
	const room = 20
	s := newStaleSite(t, withStaleBytes(room*1000))
	var tokens []string
	for i := range 3 * room {
		tokens = append(tokens, s.loginElsewhere(fmt.Sprint("user", i)).Token())
		s.expect(tokens[i], fmt.Sprintf("user%d 0", i))
		if _, _, size := echosession.StaleHeld(s.m); size > room*1000 {
			t.Fatalf("%d bytes are kept", size)
		}
		s.expect(tokens[0], "user0 0") // it stays
	}
	copies, _, size := echosession.StaleHeld(s.m)
	if copies < room || copies >= 3*room || size < room*1000/2 {
		t.Errorf("%d copies of %d bytes are kept", copies, size)
	}
	s.down()
	s.expect(tokens[0], "user0 0 stale")
	s.expect(tokens[1], "503")
	s.expect(tokens[3*room-1], fmt.Sprintf("user%d 0 stale", 3*room-1))
}

// A record that has grown too large for a copy leaves no copy of what it was before.
func TestARecordTooLargeForACopy(t *testing.T) {
	s := newStaleSite(t, withStaleBytes(4<<10))
	sess := s.loginElsewhere("ada")
	s.expect(sess.Token(), "ada 0")
	err := sess.Update(t.Context(), func(u *User) error { u.Cart = []string{strings.Repeat("x", 5<<10)}; return nil })
	if err != nil {
		t.Fatal(err)
	}
	s.expect(sess.Token(), "ada 0")
	s.down()
	s.expect(sess.Token(), "503")
}

// More writes than can be remembered: then nothing is served, for what was written might be
// forgotten.
func TestMoreWritesThanStaleBytesHold(t *testing.T) {
	s := newStaleSite(t, withStaleBytes(8<<10))
	ada := s.login("ada")
	s.expect(ada.Token(), "ada 0")
	token, id := ada.Token(), ada.ID()
	if err := ada.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.store.Store = failover{s.store.Store, id, revivedRecord(t, s, id)}
	for i := range 40 {
		if err := s.login(fmt.Sprint("user", i)).Destroy(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, _, size := echosession.StaleHeld(s.m); size > 8<<10 {
			t.Fatalf("%d bytes are kept", size)
		}
	}
	s.expect(token, "ada 0") // a failover has brought it back
	s.down()
	s.expect(token, "503")
	if !strings.Contains(s.log.String(), "no session is kept for an outage") {
		t.Errorf("the log is %s", s.log)
	}
	s.up()
	s.clock.Advance(staleFor)
	bob := s.login("bob").Token()
	s.down()
	s.expect(bob, "bob 0 stale")
}

// failover is a store that has lost a logout.
type failover struct {
	echosession.Store
	id     string
	record []byte
}

func (s failover) Load(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
	if ref.ID == s.id {
		return s.record, nil
	}
	return s.Store.Load(ctx, ref, ttl)
}

// revivedRecord returns a record for the ID of a session that has ended.
func revivedRecord(t *testing.T, s *staleSite, id string) []byte {
	t.Helper()
	// The same session in a store of its own.
	memory := echosession.NewMemoryStore(echosession.WithClock(s.clock.Now))
	defer memory.Close()
	twin := &rememberingStore{Store: memory}
	m := newManager[User](t, echosession.Config{Store: twin, Secret: testSecret, Now: s.clock.Now, SubjectIndex: true})
	created(t, m, "ada")
	record := bytes.Clone(twin.record)
	return bytes.Replace(record, uuidBytes(twin.ref.ID), uuidBytes(id), 1)
}

func uuidBytes(id string) []byte {
	parsed := uuid.MustParse(id)
	return parsed[:]
}

type rememberingStore struct {
	echosession.Store
	ref    echosession.Ref
	record []byte
}

func (s *rememberingStore) Create(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
	s.ref, s.record = ref, bytes.Clone(record)
	return s.Store.Create(ctx, ref, record, ttl, limit)
}

// What a logout undone by a failover was, stays ended for those who knew.
func TestALogoutThatAFailoverUndoes(t *testing.T) {
	s := newStaleSite(t)
	ada := s.login("ada")
	s.expect(ada.Token(), "ada 0")
	token, id := ada.Token(), ada.ID()
	if err := ada.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.store.Store = failover{s.store.Store, id, revivedRecord(t, s, id)}
	s.expect(token, "ada 0")
	s.down()
	s.expect(token, "503")
}

// The bytes that are counted are the bytes that are taken.
func TestStaleMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("collects garbage")
	}
	const n = 20_000
	s := newStaleSite(t)
	tokens := make([]string, n)
	for i := range tokens {
		tokens[i] = s.loginElsewhere(fmt.Sprintf("user-%020d", i)).Token()
	}
	each := func(what string, do func(token string)) float64 {
		for _, token := range tokens {
			do(token)
		}
		_, _, before := echosession.StaleHeld(s.m)
		with := heap()
		s.clock.Advance(2 * staleFor)
		s.login("one more") // drops what is too old
		_, _, after := echosession.StaleHeld(s.m)
		without := heap()
		counted, taken := float64(before-after)/n, float64(int64(with)-int64(without))/n
		t.Logf("%s: %.0f bytes counted, %.0f taken", what, counted, taken)
		if taken > counted*1.05 || taken < counted*0.6 {
			t.Errorf("%s: %.0f bytes are counted and %.0f taken", what, counted, taken)
		}
		return taken
	}
	read := func(token string) {
		if sess, err := s.m.Open(t.Context(), token); err != nil || !sess.Exists() {
			t.Fatal(err)
		}
	}
	for _, token := range tokens {
		read(token) // fills the cache of tokens
	}
	s.clock.Advance(2 * staleFor)
	<-s.store.heard
	each("a copy", read)
	ids := 0
	each("a mark", func(string) {
		ids++
		s.store.tell(echosession.Hint{IDs: []string{fmt.Sprint("an ID of 36 characters, or so ", ids)}})
	})
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkStaleFor measures what keeping copies costs a read, from a store that costs next
// to nothing and from Redis.
func BenchmarkStaleFor(b *testing.B) {
	memory := echosession.NewMemoryStore()
	b.Cleanup(func() { memory.Close() })
	redis := newRedisStore(b, redistest.Shared(b).Client(b), newKeyspace())
	for _, store := range []struct {
		name  string
		store echosession.Store
	}{{"memory", otherStore{memory}}, {"redis", otherStore{redis}}} {
		for _, on := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/%t", store.name, on), func(b *testing.B) {
				cfg := echosession.Config{Store: store.store, Secret: testSecret}
				if on {
					cfg.StaleFor = time.Minute
				}
				m := newManager[account](b, cfg)
				b.Cleanup(func() { m.Close() })
				tokens := make([]string, 1000)
				for i := range tokens {
					sess, err := m.Create(b.Context(), anAccount())
					if err != nil {
						b.Fatal(err)
					}
					tokens[i] = sess.Token()
				}
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					if sess, err := m.Open(b.Context(), tokens[i%len(tokens)]); err != nil || !sess.Exists() {
						b.Fatal(err)
					}
					i++
				}
			})
		}
	}
}

// otherStore is a store of somebody else.
type otherStore struct{ echosession.Store }

// A message of another process comes in a goroutine that the program does not know.
func TestStaleCopiesSurviveALoggerThatPanics(t *testing.T) {
	inBubble(t, func(b *bubble) {
		sess := b.create()
		b.open(sess.Token())
		synctest.Wait() // it listens
		b.store.hint(ids(sess))
		ctx := b.watch(sess)
		b.must(b.open(sess.Token()).Destroy(b.Context()))
		b.store.hint(ids(sess))
		b.ends(ctx, time.Second, echosession.ErrSessionGone)
	}, func(c *echosession.Config) {
		c.StaleFor, c.StaleBytes = staleFor, 1
		c.Logger = slog.New(panickingHandler{slog.DiscardHandler})
	})
}

// What a write puts into a copy may end in another process, too.
func TestAWriteListensToEnds(t *testing.T) {
	inBubble(t, func(b *bubble) {
		listens := func(what string) {
			b.Helper()
			synctest.Wait()
			b.store.mu.Lock()
			defer b.store.mu.Unlock()
			if b.store.watching != 1 {
				b.Errorf("after %s ends are not heard of", what)
			}
		}
		sess := b.create()
		listens("Create")
		for what, write := range map[string]func() error{
			"Update": func() error { return sess.Update(b.Context(), countUp) },
			"Reload": func() error { return sess.Reload(b.Context()) },
			"Rotate": func() error { _, err := sess.Rotate(b.Context()); return err },
			"Renew":  func() error { _, err := sess.Renew(b.Context(), countUp); return err },
		} {
			time.Sleep(2 * time.Minute) // all has stopped
			b.must(write())
			listens(what)
		}
	}, func(c *echosession.Config) { c.StaleFor = staleFor })
}

// An inner Require does not take back what an outer one allows, but Fresh does.
func TestARequireInsideServeStale(t *testing.T) {
	s := newStaleSite(t)
	serveStale := s.m.Require(echosession.ServeStale())
	route(s.server, s.m, "/inside", show, serveStale, s.m.Require(echosession.Authenticated()))
	route(s.server, s.m, "/fresh", show, serveStale, s.m.Require(echosession.Fresh(time.Hour)))
	token := s.login("ada").Token()
	s.down()
	for path, want := range map[string]string{"/inside": "ada 0 stale", "/fresh": "503"} {
		if got := s.at(path, token); got != want {
			t.Errorf("%s answers %q, not %q", path, got, want)
		}
	}
}

// withTicketsToo is a Config that reads tickets. They have no outage of their own.
func withTicketsToo(cfg *echosession.Config) {
	cfg.TokenLookup = "bearer,ticket:ticket"
	if s, ok := cfg.Store.(*troubledStore); ok {
		cfg.Store = struct {
			*troubledStore
			echosession.TicketStore
		}{s, s.Store.(echosession.TicketStore)}
	}
}

// What is done with a ticket is done to the session of the token. No copy is for a ticket.
func TestTicketsAndCopies(t *testing.T) {
	s := newStaleSite(t, withTicketsToo)
	route(s.server, s.m, "/update", func(c echo.Context, sess *echosession.Session[User]) error {
		return sess.Update(c.Request().Context(), countUp)
	})
	route(s.server, s.m, "/destroy", func(c echo.Context, sess *echosession.Session[User]) error {
		return sess.Destroy(c.Request().Context())
	})
	ada := s.login("ada")
	with := func(path string) string {
		t.Helper()
		ticket, err := ada.Ticket(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		return path + "?ticket=" + ticket
	}
	s.expect(ada.Token(), "ada 0")
	stale := with("/stale")
	s.down()
	s.expect(ada.Token(), "ada 0 stale")
	if got := s.at(stale, ""); got != "503" {
		t.Errorf("a ticket is answered with %q", got)
	}
	s.up()
	if got := s.at(with("/update"), ""); got != "" {
		t.Fatal(got)
	}
	s.down()
	s.expect(ada.Token(), "503")
	s.up()
	s.expect(ada.Token(), "ada 1")
	if got := s.at(with("/destroy"), ""); got != "" {
		t.Fatal(got)
	}
	s.down()
	s.expect(ada.Token(), "503")
}
