package echosession_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

// An eventRecorder keeps events, and knows sessions by names.
type eventRecorder struct {
	mu     sync.Mutex
	events []echosession.Event // since the last take
	every  []echosession.Event
	names  map[string]string // by LogID
}

func newEventRecorder() *eventRecorder { return &eventRecorder{names: make(map[string]string)} }

func (r *eventRecorder) observe(_ context.Context, e echosession.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
	r.every = append(r.every, e)
}

// all returns every event.
func (r *eventRecorder) all() []echosession.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.every)
}

// name names the session of a token.
func (r *eventRecorder) name(t testing.TB, token, name string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names[echosession.LogID(tokenID(t, token))] = name
}

// take returns the events since the last call, as text: without calls of the store, unless
// one of kinds is that.
func (r *eventRecorder) take(kinds ...echosession.EventKind) (lines []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if len(kinds) > 0 && !slices.Contains(kinds, e.Kind) || len(kinds) == 0 && e.Kind == echosession.EventStoreCall {
			continue
		}
		line := []string{string(e.Kind)}
		for _, word := range []string{e.Reason, e.Subject, r.nameOf(e.Before), r.nameOf(e.LogID)} {
			if word != "" {
				line = append(line, word)
			}
		}
		if e.Count != 1 && e.Kind != echosession.EventStoreCall {
			line = append(line, fmt.Sprint(e.Count))
		}
		lines = append(lines, strings.Join(line, " "))
	}
	r.events = nil
	return lines
}

func (r *eventRecorder) nameOf(id string) string {
	if name, ok := r.names[id]; ok || id == "" {
		return name
	}
	return "?"
}

// expect compares the events since the last call.
func (r *eventRecorder) expect(t testing.TB, want ...string) {
	t.Helper()
	if got := r.take(); !slices.Equal(got, want) {
		t.Errorf("the events are\n\t%s\nand not\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// eventually waits until an event has come, and returns it.
func (r *eventRecorder) eventually(t testing.TB, kind echosession.EventKind) echosession.Event {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		r.mu.Lock()
		for i, e := range r.events {
			if e.Kind == kind {
				r.events = slices.Delete(r.events, i, i+1)
				r.mu.Unlock()
				return e
			}
		}
		r.mu.Unlock()
		if time.Now().After(deadline) {
			t.Fatalf("no event %q has come", kind)
		}
	}
}

// tokenID returns the jti of a token.
func tokenID(t testing.TB, token string) string {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("%q is no token", token)
	}
	_, rest, _ := strings.Cut(string(unb64(t, parts[1])), `"jti":"`)
	return rest[:36]
}

// eventServer is a server whose routes do what sessions do.
func eventServer(t testing.TB, m *echosession.Manager[User]) *server {
	t.Helper()
	s := newServer(t, m.Middleware())
	answer := func(c echo.Context, token string, err error) error {
		if err != nil {
			return err
		}
		return c.String(http.StatusOK, token)
	}
	as := func(c echo.Context) echosession.CreateOption { return echosession.WithSubject(c.QueryParam("as")) }
	route(s, m, "/login", func(c echo.Context, sess *echosession.Session[User]) error {
		token, err := sess.Create(c.Request().Context(), User{Name: "Ada"}, as(c))
		return answer(c, token, err)
	})
	route(s, m, "/guest", func(c echo.Context, sess *echosession.Session[User]) error {
		err := sess.UpdateOrCreate(c.Request().Context(), func(u *User) error { u.Count++; return nil })
		return answer(c, sess.Token(), err)
	})
	route(s, m, "/renew", func(c echo.Context, sess *echosession.Session[User]) error {
		token, err := sess.Renew(c.Request().Context(), nil, as(c))
		return answer(c, token, err)
	})
	route(s, m, "/rotate", func(c echo.Context, sess *echosession.Session[User]) error {
		token, err := sess.Rotate(c.Request().Context())
		return answer(c, token, err)
	})
	route(s, m, "/logout", func(c echo.Context, sess *echosession.Session[User]) error {
		return answer(c, "", sess.Destroy(c.Request().Context()))
	})
	route(s, m, "/revoke", func(c echo.Context, sess *echosession.Session[User]) error {
		_, err := m.RevokeSubject(c.Request().Context(), sess.Subject())
		return answer(c, "", err)
	})
	route(s, m, "/revoke-one", func(c echo.Context, sess *echosession.Session[User]) error {
		_, err := m.Revoke(c.Request().Context(), sess.Subject(), sess.ID())
		return answer(c, "", err)
	})
	shown := func(c echo.Context) error { return c.String(http.StatusOK, "shown") }
	s.GET("/me", shown, m.Require())
	s.GET("/member", shown, m.Require(echosession.Authenticated()))
	s.GET("/fresh", shown, m.Require(echosession.Fresh(time.Second)))
	return s
}

// askFor makes a request that is to be answered with a status, and returns the body.
func askFor(t testing.TB, s *server, status int, path, token string, headers ...string) string {
	t.Helper()
	method := http.MethodPost
	if slices.Contains([]string{"/me", "/member", "/fresh"}, path) {
		method = http.MethodGet
	}
	if token != "" {
		headers = append(headers, "Authorization", "Bearer "+token)
	}
	a := s.do(t, s.request(t, method, path, "", headers...))
	if a.StatusCode != status {
		t.Fatalf("%s: %d %s", path, a.StatusCode, a.body)
	}
	return a.body
}

// The life of sessions, through real requests.
func TestEventsOfALife(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		rec := newEventRecorder()
		cfg.OnEvent, cfg.SubjectIndex, cfg.MaxSessions = rec.observe, true, 2
		m := newManager[User](t, cfg)
		s := eventServer(t, m)

		guest := askFor(t, s, 200, "/guest", "")
		rec.name(t, guest, "GUEST")
		rec.expect(t, "created guest GUEST")
		askFor(t, s, 200, "/guest", guest)
		rec.expect(t, "opened cached GUEST") // what this process made it need not verify
		phone := askFor(t, s, 200, "/renew?as=ada", guest)
		rec.name(t, phone, "PHONE")
		rec.expect(t, "opened cached GUEST", "renewed ada GUEST PHONE")
		askFor(t, s, 401, "/me", guest)
		rec.expect(t, "refused renewed GUEST")

		rotated := askFor(t, s, 200, "/rotate", phone)
		rec.name(t, rotated, "ROTATED")
		rec.expect(t, "opened cached ada PHONE", "rotated ada PHONE ROTATED")
		askFor(t, s, 200, "/me", phone)
		rec.expect(t, "opened cached ada ROTATED", "superseded ada PHONE")

		tablet := askFor(t, s, 200, "/login?as=ada", "")
		rec.name(t, tablet, "TABLET")
		laptop := askFor(t, s, 200, "/login?as=ada", "")
		rec.name(t, laptop, "LAPTOP")
		rec.expect(t, "created login ada TABLET", "evicted ada ROTATED", "created login ada LAPTOP")
		askFor(t, s, 401, "/me", rotated)
		rec.expect(t, "refused gone ada ROTATED")

		second := askFor(t, s, 200, "/login?as=ada", laptop)
		rec.name(t, second, "SECOND")
		rec.expect(t, "opened cached ada LAPTOP", "evicted ada TABLET", "created login ada SECOND", "destroyed replaced ada LAPTOP")
		askFor(t, s, 200, "/logout", second)
		rec.expect(t, "opened cached ada SECOND", "destroyed logout ada SECOND")

		one := askFor(t, s, 200, "/login?as=bob", "")
		rec.name(t, one, "ONE")
		two := askFor(t, s, 200, "/login?as=bob", "")
		rec.name(t, two, "TWO")
		rec.take()
		askFor(t, s, 200, "/revoke-one", one)
		rec.expect(t, "opened cached bob ONE", "revoked one bob ONE")
		three := askFor(t, s, 200, "/login?as=bob", "")
		rec.name(t, three, "THREE")
		rec.take()
		askFor(t, s, 200, "/revoke", two)
		rec.expect(t, "opened cached bob TWO", "revoked subject bob 2")
		askFor(t, s, 401, "/me", three)
		rec.expect(t, "refused gone bob THREE")
	})
}

// A session whose token cannot be handed out is gone, and that is told.
func TestEventOfADiscardedSession(t *testing.T) {
	rec, codec := newEventRecorder(), new(hastyCodec)
	m := newManager[User](t, echosession.Config{
		Store: echosession.NewMemoryStore(), Secret: testSecret, Cookie: new(echosession.Cookie), Codec: codec, OnEvent: rec.observe,
	})
	s := newServer(t, m.Middleware())
	var err error
	route(s, m, "/late", func(c echo.Context, sess *echosession.Session[User]) error {
		codec.c = c
		_, err = sess.Create(c.Request().Context(), User{})
		return nil
	})
	s.post(t, "/late", "")
	if !errors.Is(err, echosession.ErrRequestOver) {
		t.Fatal(err)
	}
	if got := rec.take(); len(got) != 2 || !strings.HasPrefix(got[0], "created login") || !strings.HasPrefix(got[1], "destroyed discarded") {
		t.Errorf("the events are %q", got)
	}
}

// A hastyCodec sends the header of the answer while a session is created.
type hastyCodec struct{ c echo.Context }

func (h *hastyCodec) Marshal(v any) ([]byte, error) {
	if h.c != nil {
		h.c.Response().WriteHeader(http.StatusOK)
	}
	return json.Marshal(v)
}

func (*hastyCodec) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

// Requests that are refused: each reason is told once, and of whom where that is known.
func TestEventsOfRefusals(t *testing.T) {
	eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
		rec := newEventRecorder()
		cfg.OnEvent, cfg.Cookie = rec.observe, new(echosession.Cookie)
		cfg.SubjectIndex, cfg.MaxSessions, cfg.WhenFull = true, 1, echosession.RefuseNew
		cfg.AbsoluteTimeout = time.Hour
		cfg.Issuer = "us"
		m := newManager[User](t, cfg)
		s := eventServer(t, m)
		good := askFor(t, s, 200, "/login?as=ada", "", "Authorization", "Basic eA==")
		rec.name(t, good, "ADA")
		guest := askFor(t, s, 200, "/guest", "", "Authorization", "Basic eA==")
		rec.name(t, guest, "GUEST")
		rec.take()
		head, rest, _ := strings.Cut(good, ".")
		payload, _, _ := strings.Cut(rest, ".")
		claims := string(unb64(t, payload))
		sign := func(header, claims string) string { return hs256(header, claims, testSecret) }
		header := string(unb64(t, head))
		for _, tt := range []struct {
			path, token string
			status      int
			headers     []string
			want        string
		}{
			{"/me", "", 401, nil, "refused no_token"},
			{"/me", "junk", 401, nil, "refused malformed"},
			{"/me", good[:len(good)-2] + "AA", 401, nil, "refused signature"},
			{"/me", hs256(header, claims, []byte(strings.Repeat("x", 64))), 401, nil, "refused signature"},
			{"/me", sign(strings.Replace(header, "HS256", "HS512", 1), claims), 401, nil, "refused algorithm"},
			{"/me", sign(strings.Replace(header, "HS256", "none", 1), claims), 401, nil, "refused algorithm"},
			{"/me", sign(header, strings.Replace(claims, `"us"`, `"them"`, 1)), 401, nil, "refused issuer"},
			{"/me", sign(header, strings.Replace(claims, `"jti":"`, `"jti":"x`, 1)), 401, nil, "refused claims"},
			{"/me", good, 400, []string{"X-Access-Token", "another"}, "refused ambiguous"},
			{"/logout", "", 403, []string{"Cookie", "__Host-session=" + good, "Sec-Fetch-Site", "cross-site"}, "refused cross_origin"},
			{"/login?as=ada", "", 403, []string{"Authorization", "Basic eA=="}, "refused too_many_sessions ada"},
		} {
			askFor(t, s, tt.status, tt.path, tt.token, tt.headers...)
			if got := rec.take(); !slices.Equal(got, []string{tt.want}) {
				t.Errorf("%s: the events are %q and not %q", tt.path, got, tt.want)
			}
		}
		askFor(t, s, 401, "/member", guest)
		rec.expect(t, "opened cached GUEST", "refused not_authenticated GUEST")
		clock.Advance(2 * time.Second)
		askFor(t, s, 401, "/fresh", good)
		rec.expect(t, "opened cached ada ADA", "refused not_fresh ada ADA")
		clock.Advance(time.Hour)
		askFor(t, s, 401, "/me", good)
		rec.expect(t, "refused expired")
	})
}

// While keys are replaced, the use of the old ones is told: of a token once, and of a record
// until it is written again.
func TestEventsOfOldKeys(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		signing := func(id string) echosession.SigningKey {
			return echosession.SigningKey{ID: id, Algorithm: "HS256", Key: []byte("a secret of thirty-two bytes: " + id + "!")}
		}
		sealing := func(name byte) []byte { return []byte(strings.Repeat(string(name), 32)) }
		rec := newEventRecorder()
		cfg.Secret, cfg.OnEvent = nil, rec.observe
		cfg.Keys, cfg.EncryptionKeys = []echosession.SigningKey{signing("1")}, [][]byte{sealing('1')}
		token := askFor(t, eventServer(t, newManager[User](t, cfg)), 200, "/guest", "")
		rec.name(t, token, "GUEST")
		rec.expect(t, "created guest GUEST")

		cfg.Keys = []echosession.SigningKey{signing("2"), signing("1")}
		s := eventServer(t, newManager[User](t, cfg))
		askFor(t, s, 200, "/me", token)
		rec.expect(t, "old_key signing GUEST", "opened verified GUEST")
		askFor(t, s, 200, "/me", token)
		rec.expect(t, "opened cached GUEST")

		cfg.EncryptionKeys = [][]byte{sealing('2'), sealing('1')}
		s = eventServer(t, newManager[User](t, cfg))
		askFor(t, s, 200, "/me", token)
		rec.expect(t, "old_key encryption GUEST", "old_key signing GUEST", "opened verified GUEST")
		askFor(t, s, 200, "/guest", token) // writes the record
		rec.expect(t, "old_key encryption GUEST", "opened cached GUEST")
		askFor(t, s, 200, "/me", token)
		rec.expect(t, "opened cached GUEST")
	})
}

// A record that cannot be read is told with the reason, and its session by its LogID.
func TestEventsOfUnreadableRecords(t *testing.T) {
	key := []byte(strings.Repeat("k", 32))
	other := []byte(strings.Repeat("o", 32))
	none := func(*echosession.Config) {}
	sealed := func(cfg *echosession.Config) { cfg.EncryptionKeys = [][]byte{key} }
	for _, tt := range []struct {
		reason        string
		writes, reads func(*echosession.Config)
		stored        string // what is put in the place of the record, if it is not ""
	}{
		{"codec", func(cfg *echosession.Config) { cfg.Codec = new(hastyCodec) }, none, ""},
		{"too_large", none, func(cfg *echosession.Config) { cfg.MaxRecordSize = 48 }, ""},
		{"sealed", sealed, none, ""},
		{"not_sealed", none, sealed, ""},
		{"key", sealed, func(cfg *echosession.Config) { cfg.EncryptionKeys = [][]byte{other} }, ""},
		{"head", none, none, "no record"},
		{"import", none, func(cfg *echosession.Config) {
			cfg.Import = func([]byte, any) error { return errNotMine }
		}, "no record"},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			eachStore(t, func(t *testing.T, cfg echosession.Config) {
				rec, writing := newEventRecorder(), cfg
				tt.writes(&writing)
				token := newToken(t, newManager[User](t, writing), "Ada")
				if tt.stored != "" {
					replaceStored(t, cfg, tokenID(t, token), tt.stored)
				}
				rec.name(t, token, "ADA")
				cfg.OnEvent = rec.observe
				tt.reads(&cfg)
				askFor(t, eventServer(t, newManager[User](t, cfg)), 401, "/me", token)
				rec.expect(t, "unreadable "+tt.reason+" ADA", "refused corrupt ADA")
			})
		})
	}
}

// replaceStored puts something in the place of the record of a session without a subject.
func replaceStored(t *testing.T, cfg echosession.Config, id, stored string) {
	t.Helper()
	store, ref := storeOf(t, cfg), echosession.Ref{ID: id}
	old, err := store.Load(t.Context(), ref, 0)
	if err == nil {
		err = store.Replace(t.Context(), ref, old, []byte(stored), time.Hour)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestEventErrIsASentinel(t *testing.T) {
	rec := newEventRecorder()
	store := newTroubledStore(echosession.NewMemoryStore())
	cfg := echosession.Config{Store: store, Secret: testSecret, OnEvent: rec.observe}
	m := newManager[User](t, cfg)
	s := eventServer(t, m)
	askFor(t, s, 401, "/me", "junk")
	e := rec.eventually(t, echosession.EventRefused)
	if e.Err != echosession.ErrInvalidToken {
		t.Errorf("Err is %v", e.Err)
	}
	token := askFor(t, s, 200, "/login?as=ada", "")
	store.fail(fmt.Errorf("%w: secret words of the store", echosession.ErrIndeterminate))
	askFor(t, s, 503, "/me", token)
	if e := rec.eventually(t, echosession.EventStoreDown); e.Err != echosession.ErrStoreUnavailable || e.Reason == "" {
		t.Errorf("%+v", e)
	}
	for _, e := range rec.all() {
		if e.Err != nil && errors.Unwrap(e.Err) != nil && e.Err != echosession.ErrIndeterminate {
			t.Errorf("%+v wraps something", e)
		}
	}
}

// The beginning and the end of an outage are told once each, however many calls fail.
func TestEventsOfAnOutage(t *testing.T) {
	rec, clock := newEventRecorder(), newClock()
	store := newTroubledStore(echosession.NewMemoryStore(echosession.WithClock(clock.Now)))
	m := newManager[User](t, echosession.Config{Store: store, Secret: testSecret, Now: clock.Now, OnEvent: rec.observe, StaleFor: time.Minute, TokenLookup: "bearer"})
	t.Cleanup(func() { m.Close() })
	s := eventServer(t, m)
	s.GET("/stale", func(c echo.Context) error { return c.NoContent(204) }, m.Require(echosession.ServeStale()))
	token := askFor(t, s, 200, "/login?as=ada", "")
	rec.name(t, token, "ADA")
	kinds := []echosession.EventKind{
		echosession.EventStoreDown, echosession.EventStoreUp, echosession.EventIndeterminate, echosession.EventStaleServed, echosession.EventOpened,
	}
	want := func(want ...string) {
		t.Helper()
		if got := rec.take(kinds...); !slices.Equal(got, want) {
			t.Errorf("the events are %q and not %q", got, want)
		}
	}
	store.fail(echosession.ErrStoreUnavailable)
	askFor(t, s, 503, "/me", token)
	askFor(t, s, 503, "/me", token)
	want("store_down unknown 0")
	if a := s.get(t, "/stale", token); a.StatusCode != 204 {
		t.Fatal(a.StatusCode)
	}
	want("stale_served ada ADA")
	store.fail(echosession.ErrIndeterminate)
	askFor(t, s, 503, "/login?as=bob", "")
	want("indeterminate unknown 0")
	store.fail(nil)
	askFor(t, s, 200, "/me", token)
	want("opened cached ada ADA") // a call failed a moment ago
	clock.Advance(3 * time.Second)
	askFor(t, s, 200, "/me", token)
	askFor(t, s, 200, "/me", token)
	want("store_up 0", "opened cached ada ADA", "opened cached ada ADA")
}

// A caller that gives the store no time is no outage, and one that waits for the whole
// StoreTimeout is.
func TestEventsOfACallersDeadline(t *testing.T) {
	rec := newEventRecorder()
	store := newTroubledStore(echosession.NewMemoryStore())
	m := newManager[User](t, echosession.Config{Store: store, Secret: testSecret, OnEvent: rec.observe, StoreTimeout: 400 * time.Millisecond})
	sess, err := m.Create(t.Context(), User{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		caller time.Duration
		want   []string
	}{
		{20 * time.Millisecond, nil},
		{time.Minute, []string{"store_down timeout 0"}},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), tt.caller)
		store.stop("Load", false)
		if _, err := m.Open(ctx, sess.Token()); !errors.Is(err, echosession.ErrStoreUnavailable) {
			t.Errorf("%v: %v", tt.caller, err)
		}
		cancel()
		if got := rec.take(echosession.EventStoreDown); !slices.Equal(got, tt.want) {
			t.Errorf("%v: the events are %q and not %q", tt.caller, got, tt.want)
		}
	}
}

// Each method of the store is told by its name, with how long it took.
func TestEventsOfTheStore(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		rec := newEventRecorder()
		cfg.OnEvent, cfg.SubjectIndex, cfg.TokenLookup = rec.observe, true, "bearer,ticket:ticket"
		m := newManager[User](t, cfg)
		ctx := t.Context()
		sess, err := m.Create(ctx, User{}, echosession.WithSubject("ada"))
		if err != nil {
			t.Fatal(err)
		}
		ping, missing := "store_call ping", error(nil)
		if cfg.Store != nil { // it is no Pinger, and asked for a session that is not there
			ping, missing = "store_call load", echosession.ErrNotFound
		}
		for _, step := range []struct {
			want string
			do   func() error
		}{
			{"store_call create", func() error { return nil }},
			{"store_call load", func() error { _, err := m.Open(ctx, sess.Token()); return err }},
			{"store_call replace", func() error { return sess.Update(ctx, func(u *User) error { u.Count++; return nil }) }},
			{"store_call touch", func() error { return sess.Touch(ctx) }},
			{"store_call check", func() error { return sess.Check(ctx) }},
			{"store_call rotate", func() error { _, err := sess.Rotate(ctx); return err }},
			{"store_call renew", func() error { _, err := sess.Renew(ctx, nil); return err }},
			{"store_call put_ticket", func() error { _, err := sess.Ticket(ctx, echosession.AnyPath); return err }},
			{"store_call list", func() error { _, err := m.List(ctx, "ada"); return err }},
			{"store_call count", func() error { _, err := m.Count(ctx, "ada"); return err }},
			{ping, func() error { return m.Ping(ctx) }},
			{"store_call delete_subject", func() error { _, err := m.RevokeSubject(ctx, "ada"); return err }},
			{"store_call delete", func() error { return sess.Destroy(ctx) }},
		} {
			if err := step.do(); err != nil {
				t.Fatalf("%s: %v", step.want, err)
			}
			for _, e := range rec.events {
				if e.Kind == echosession.EventStoreCall && (e.Duration <= 0 || e.Err != nil && e.Err != missing) {
					t.Errorf("%+v", e)
				}
			}
			if got := rec.take(echosession.EventStoreCall); !slices.Equal(got, []string{step.want}) {
				t.Errorf("the calls are %q and not %q", got, step.want)
			}
		}
	})
}

// To be told of a read costs it no allocation.
func TestEventsCostNoAllocation(t *testing.T) {
	cfg := echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret}
	read := func(cfg echosession.Config) float64 {
		m := newManager[User](t, cfg)
		sess, err := m.Create(t.Context(), User{})
		if err != nil {
			t.Fatal(err)
		}
		return leastAllocs(100, func() { _, _ = m.Open(t.Context(), sess.Token()) })
	}
	without, told := read(cfg), 0
	cfg.OnEvent = func(context.Context, echosession.Event) { told++ }
	if with := read(cfg); with > without || told < 1000 {
		t.Errorf("%v allocations with an observer, who is told %d times, and %v without", with, told, without)
	}
}

// A panic of the observer breaks nothing, and is logged.
func TestEventObserverPanics(t *testing.T) {
	var logged logBuffer
	m := newManager[User](t, echosession.Config{
		Store: echosession.NewMemoryStore(), Secret: testSecret, Logger: logged.logger(),
		OnEvent: func(context.Context, echosession.Event) { panic("secret words") },
	})
	s := eventServer(t, m)
	token := askFor(t, s, 200, "/login?as=ada", "")
	askFor(t, s, 200, "/me", token)
	if !strings.Contains(logged.String(), "session event not taken") || strings.Contains(logged.String(), "secret words") {
		t.Errorf("logged: %s", logged.String())
	}
}

func TestLogID(t *testing.T) {
	// printf 'echosession-log\0%s' 7f9c24e5-2f31-4b8f-9d0e-3a5b6c7d8e9f | openssl dgst -sha256 -binary | basenc --base64url | head -c 12
	const id, want = "7f9c24e5-2f31-4b8f-9d0e-3a5b6c7d8e9f", "RUPltaqE6NUO"
	if got := echosession.LogID(id); got != want {
		t.Errorf("LogID is %q, want %q", got, want)
	}
	m := newManager[User](t, echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret})
	sess, err := m.Create(t.Context(), User{})
	if err != nil {
		t.Fatal(err)
	}
	if got := sess.LogID(); got != echosession.LogID(sess.ID()) || len(got) != 12 {
		t.Errorf("the session's LogID is %q", got)
	}
	if err := sess.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := sess.LogID(); got != "" {
		t.Errorf("without a session it is %q", got)
	}
}

// eventKinds returns the constants of event.go.
func eventKinds(t testing.TB) (kinds []echosession.EventKind) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "event.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(spec.Names[0].Name, "Event") {
			kind, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			kinds = append(kinds, echosession.EventKind(kind))
		}
		return true
	})
	if len(kinds) < 20 {
		t.Fatalf("only %d kinds were found", len(kinds))
	}
	return kinds
}

// The guide for operators says of every kind what it means, and of every reason of a refusal
// and every other word that stands in quotes in event.go the documentation knows the same.
func TestOperateKnowsEveryEvent(t *testing.T) {
	guide := readFile(t, "docs/operate.md")
	_, table, _ := strings.Cut(guide, "## What each event means")
	for _, kind := range eventKinds(t) {
		if !strings.Contains(table, "`"+string(kind)+"`") {
			t.Errorf("docs/operate.md does not say what %q means", kind)
		}
	}
	known := readFile(t, "event.go")
	for _, row := range regexp.MustCompile("(?m)^\\| `.*$").FindAllString(table, -1) {
		for _, name := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(row, -1) {
			word := name[1]
			if !strings.Contains(known, `"`+word+`"`) && !slices.Contains([]string{"before", "count", "duration", "verified"}, word) {
				t.Errorf("docs/operate.md speaks of %q, which event.go does not have", word)
			}
		}
	}
}
