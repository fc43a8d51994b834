package echosession_test

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

func TestMain(m *testing.M) {
	redistest.Parallel(16)
	redistest.Main(m)
}

// User is the data of most tests' sessions.
type User struct {
	Name  string   `json:"name"`
	Count int      `json:"count"`
	Cart  []string `json:"cart,omitempty"`
}

// account is larger: the data whose costs are measured.
type account = echosession.Account

var anAccount = echosession.AnAccount

var testSecret = []byte("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")

// eachStore runs a test over the memory store, the Redis store on the fake and
// the Redis store on a real server. Afterwards no key of the last two may be
// without expiry.
func eachStore(t *testing.T, test func(t *testing.T, cfg echosession.Config)) {
	t.Helper()
	t.Run("memory", func(t *testing.T) {
		store := echosession.NewMemoryStore()
		t.Cleanup(func() { store.Close() })
		test(t, echosession.Config{Store: store, Secret: testSecret})
	})
	t.Run("fake", func(t *testing.T) {
		fake := newFakeRedis(t)
		t.Cleanup(func() {
			if keys := fake.withoutExpiry(); len(keys) > 0 {
				t.Errorf("keys without expiry: %q", keys)
			}
		})
		test(t, echosession.Config{Client: fake, Secret: testSecret})
	})
	t.Run("redis", func(t *testing.T) {
		client := redistest.Shared(t).Client(t)
		keyspace := newKeyspace()
		t.Cleanup(func() { redistest.AssertNoKeyWithoutTTL(t, client, keyspace) })
		test(t, echosession.Config{Client: client, Secret: testSecret, Keyspace: keyspace})
	})
}

func newKeyspace() string { return "test-" + rand.Text() + ":" }

func newID() string { return uuid.NewString() }

// newManager returns a Manager that logs nothing unless cfg has a Logger.
func newManager[T any](t testing.TB, cfg echosession.Config) *echosession.Manager[T] {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := echosession.New[T](cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// storeOf returns the store of a Config, to look behind a Manager's back.
func storeOf(t testing.TB, cfg echosession.Config) echosession.Store {
	t.Helper()
	if cfg.Store != nil {
		return cfg.Store
	}
	return newRedisStore(t, cfg.Client, cfg.Keyspace)
}

// stored reports whether a store holds something under an ID.
func stored(t testing.TB, cfg echosession.Config, id string) bool {
	t.Helper()
	_, err := storeOf(t, cfg).Load(context.Background(), echosession.Ref{ID: id}, 0)
	if err != nil && !errors.Is(err, echosession.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

// clock is a clock that tests set.
type clock struct{ nanoseconds atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.nanoseconds.Store(time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) Now() time.Time          { return time.Unix(0, c.nanoseconds.Load()) }
func (c *clock) Advance(d time.Duration) { c.nanoseconds.Add(int64(d)) }

// eachClockedStore is eachStore without the real server, whose time nobody sets.
func eachClockedStore(t *testing.T, test func(t *testing.T, cfg echosession.Config, clock *clock)) {
	t.Helper()
	t.Run("memory", func(t *testing.T) {
		clock := newClock()
		store := echosession.NewMemoryStore(echosession.WithClock(clock.Now))
		test(t, echosession.Config{Store: store, Secret: testSecret, Now: clock.Now}, clock)
	})
	t.Run("fake", func(t *testing.T) {
		clock := newClock()
		fake := newFakeRedis(t)
		fake.now = clock.Now
		test(t, echosession.Config{Client: fake, Secret: testSecret, Now: clock.Now}, clock)
		if keys := fake.withoutExpiry(); len(keys) > 0 {
			t.Errorf("keys without expiry: %q", keys)
		}
	})
}

// logBuffer is where a Logger writes.
type logBuffer struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// route adds a handler that begins with a Get, for any method.
func route[T any](s *server, m *echosession.Manager[T], path string, fn func(echo.Context, *echosession.Session[T]) error, middleware ...echo.MiddlewareFunc) {
	s.Any(path, func(c echo.Context) error {
		sess, err := m.Get(c)
		if err != nil {
			return err
		}
		return fn(c, sess)
	}, middleware...)
}

// server is an Echo server with the middleware of a Manager and with the routes
// that tests add.
type server struct {
	*echo.Echo
	url string
}

func newServer(t testing.TB, middleware ...echo.MiddlewareFunc) *server {
	t.Helper()
	e := echo.New()
	e.Use(middleware...)
	ts := httptest.NewServer(e)
	t.Cleanup(ts.Close)
	return &server{e, ts.URL}
}

// answer is what a server said.
type answer struct {
	*http.Response
	body string
}

// message is the text of an error's JSON body.
func (a answer) message(t testing.TB) string {
	t.Helper()
	var body struct{ Message string }
	if err := json.Unmarshal([]byte(a.body), &body); err != nil {
		t.Fatalf("%d %s: %v", a.StatusCode, a.body, err)
	}
	return body.Message
}

func (s *server) do(t testing.TB, r *http.Request) answer {
	t.Helper()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp, strings.TrimSpace(string(body))}
}

// request makes a request with headers given as name, value, name, value.
func (s *server) request(t testing.TB, method, path, body string, headers ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

func (s *server) get(t testing.TB, path, token string) answer {
	t.Helper()
	r := s.request(t, http.MethodGet, path, "")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return s.do(t, r)
}

func (s *server) post(t testing.TB, path, token string) answer {
	t.Helper()
	r := s.request(t, http.MethodPost, path, "")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return s.do(t, r)
}

func unb64(t testing.TB, s string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// hs256 makes a token without the package's help.
func hs256(header, payload string, secret []byte) string {
	b64 := base64.RawURLEncoding.EncodeToString
	signed := b64([]byte(header)) + "." + b64([]byte(payload))
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(signed))
	return signed + "." + b64(mac.Sum(nil))
}

// sessionCalls are the methods of a session that use what is stored and do not
// end the session.
var sessionCalls = map[string]func(context.Context, *echosession.Session[User]) error{
	"Update": func(ctx context.Context, sess *echosession.Session[User]) error {
		return sess.Update(ctx, func(u *User) error { u.Count++; return nil })
	},
	"Touch":  func(ctx context.Context, sess *echosession.Session[User]) error { return sess.Touch(ctx) },
	"Reload": func(ctx context.Context, sess *echosession.Session[User]) error { return sess.Reload(ctx) },
	"Check":  func(ctx context.Context, sess *echosession.Session[User]) error { return sess.Check(ctx) },
	"Renew": func(ctx context.Context, sess *echosession.Session[User]) error {
		_, err := sess.Renew(ctx, func(u *User) error { u.Count++; return nil })
		return err
	},
	"Rotate": func(ctx context.Context, sess *echosession.Session[User]) error {
		_, err := sess.Rotate(ctx)
		return err
	},
}

// apiCalls returns the calls that need the store for one session, by name. While
// the store is down all of them fail.
func apiCalls(ctx context.Context, m *echosession.Manager[User], sess *echosession.Session[User]) map[string]func() error {
	calls := map[string]func() error{
		"Open":    func() error { _, err := m.Open(ctx, sess.Token()); return err },
		"Create":  func() error { _, err := m.Create(ctx, User{}); return err },
		"Destroy": func() error { return sess.Destroy(ctx) },
	}
	for name, call := range sessionCalls {
		calls[name] = func() error { return call(ctx, sess) }
	}
	return calls
}

// leastAllocs returns what a call of f allocates, whatever runs beside it: the clients
// of earlier tests, and the garbage collector, which empties pools. The least of some
// averages is what f needs.
func leastAllocs(runs int, f func()) float64 {
	least := testing.AllocsPerRun(runs, f)
	for range 4 {
		least = min(least, testing.AllocsPerRun(runs, f))
	}
	return least
}

// errOf returns the error of a call whose result does not matter.
func errOf[V any](_ V, err error) error { return err }
