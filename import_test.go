package echosession_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// importing is the Config of somebody who replaces the Node predecessor.
func importing(cfg echosession.Config) echosession.Config {
	cfg.Secret, cfg.Keys = nil, []echosession.SigningKey{
		{ID: "new", Algorithm: "HS256", Key: testSecret},
		{Algorithm: "HS256", Key: legacySecret, VerifyOnly: true, Legacy: true},
	}
	if cfg.Import == nil {
		cfg.Import = json.Unmarshal
	}
	return cfg
}

// oldSession stores what the predecessor would, for an hour, and returns the session's
// ID and its token with the given claims.
func oldSession(t testing.TB, cfg echosession.Config, stored, claims string) (id, token string) {
	t.Helper()
	id = newID()
	if _, err := storeOf(t, cfg).Create(t.Context(), echosession.Ref{ID: id}, []byte(stored), time.Hour, echosession.Limit{}); err != nil {
		t.Fatal(err)
	}
	return id, hs256(`{"alg":"HS256","typ":"JWT"}`, `{"jti":"`+id+`"`+claims+`}`, legacySecret)
}

// storedUnder returns what is stored under an ID, nil for nothing and for a session that
// was renewed.
func storedUnder(t testing.TB, cfg echosession.Config, id string) []byte {
	t.Helper()
	record, err := storeOf(t, cfg).Load(context.Background(), echosession.Ref{ID: id}, 0)
	if err != nil && !errors.Is(err, echosession.ErrNotFound) && !errors.Is(err, echosession.ErrRenewed) {
		t.Fatal(err)
	}
	return record
}

// lifetimeOf returns how long the one record of a store will live.
func lifetimeOf(t testing.TB, cfg echosession.Config) time.Duration {
	t.Helper()
	var lifetimes []time.Duration
	for entry, err := range storeOf(t, cfg).Scan(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		lifetimes = append(lifetimes, entry.TTL)
	}
	if len(lifetimes) != 1 {
		t.Fatalf("the store holds records of the lifetimes %v", lifetimes)
	}
	return lifetimes[0]
}

// opened opens a session that must be there.
func opened[T any](t testing.TB, m *echosession.Manager[T], token string) *echosession.Session[T] {
	t.Helper()
	sess, err := m.Open(context.Background(), token)
	if err != nil || !sess.Exists() {
		t.Fatal(sess.Reason(), err)
	}
	return sess
}

// A session of the predecessor is opened, and from then on it is a session as any
// other.
func TestImport(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		var seen []string
		cfg.Import = func(stored []byte, v any) error {
			seen = append(seen, string(stored))
			return json.Unmarshal(stored, v)
		}
		cfg = importing(cfg)
		m := newManager[User](t, cfg)
		iat := time.Now().Add(-30 * time.Minute).Truncate(time.Second)
		id, token := oldSession(t, cfg, `{"name":"<Ada>","count":3,"jwt":"a.bearer.token","claims":{"jti":"x"}}`,
			fmt.Sprintf(`,"iat":%d,"sub":"ada","role":"admin"`, iat.Unix()))

		sess := opened(t, m, token)
		if sess.ID() != id || sess.Data().Name != "<Ada>" || sess.Data().Count != 3 || sess.Subject() != "ada" || sess.Claims()["role"] != "admin" {
			t.Errorf("%s: %+v of %q, claims %v", sess.ID(), sess.Data(), sess.Subject(), sess.Claims())
		}
		if !sess.CreatedAt().Equal(iat) {
			t.Errorf("created at %v, not %v", sess.CreatedAt(), iat)
		}
		if record := storedUnder(t, cfg, id); len(record) == 0 || record[0] == '{' || strings.Contains(string(record), "bearer") {
			t.Errorf("stored is %q", record)
		}
		if left := time.Until(sess.ExpiresAt()); left < 23*time.Hour {
			t.Errorf("it ends in %v", left)
		}

		ctx := t.Context()
		count := func(u *User) error { u.Count++; return nil }
		if err := sess.Update(ctx, count); err != nil {
			t.Fatal(err)
		}
		if err := sess.Reload(ctx); err != nil || sess.Data().Count != 4 {
			t.Fatal(sess.Data(), err)
		}
		rotated, err := sess.Rotate(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if header := tokenHeader(t, rotated); header["typ"] != "session+jwt" || header["kid"] != "new" {
			t.Errorf("the rotated token has the header %v", header)
		}
		again := opened(t, m, rotated)
		if again.Subject() != "ada" || again.Data().Count != 4 || again.Claims()["role"] != "admin" || !again.CreatedAt().Equal(iat) {
			t.Errorf("rotated: %+v of %q, claims %v, created at %v", again.Data(), again.Subject(), again.Claims(), again.CreatedAt())
		}
		if err := again.Destroy(ctx); err != nil {
			t.Fatal(err)
		}
		for _, token := range []string{token, rotated} {
			if sess, err := m.Open(ctx, token); err != nil || !errors.Is(sess.Reason(), echosession.ErrSessionGone) {
				t.Errorf("after the logout: %v, %v", sess.Reason(), err)
			}
		}
		if want := []string{`{"count":3,"name":"\u003cAda\u003e"}`}; !slices.Equal(seen, want) {
			t.Errorf("Import was handed %q, not %q", seen, want)
		}
	})
}

// What is not an object with the members claims or jwt reaches Import as it is stored.
func TestImportSeesWhatIsStored(t *testing.T) {
	for stored, want := range map[string]string{
		`{"b":1e2, "a":"<" }`:                          `{"b":1e2, "a":"<" }`,
		`{"b":1e2,"jwt":"x","a":12345678901234567890}`: `{"a":12345678901234567890,"b":1e2}`,
		`{"jwt":"x","claims":{"jwt":1}}`:               `{}`,
		`{"\u006awt":"x"}`:                             `{}`,
		`{"user":{"jwt":"x"}}`:                         `{"user":{"jwt":"x"}}`,
		`{"JWT":"x"}`:                                  `{"JWT":"x"}`,
		`["jwt"]`:                                      `["jwt"]`,
		`{"jwt":"x"`:                                   `{"jwt":"x"`,
		"\x00\xffgob":                                  "\x00\xffgob",
		"null":                                         "null",
	} {
		seen := ""
		cfg := importing(echosession.Config{Store: echosession.NewMemoryStore(), Import: func(stored []byte, v any) error {
			seen = string(stored)
			if u := v.(*User); u.Name != "" {
				return errors.New("v is not zero")
			}
			clear(stored) // it may: the store is compared with what it held
			v.(*User).Name = "Ada"
			return nil
		}})
		_, token := oldSession(t, cfg, stored, "")
		if sess := opened(t, newManager[User](t, cfg), token); seen != want || sess.Data().Name != "Ada" {
			t.Errorf("%q: Import saw %q, not %q; %+v", stored, seen, want, sess.Data())
		}
	}
}

// heldStore stops before each Replace until the test lets it go on.
type heldStore struct {
	echosession.Store
	before func(ctx context.Context, ref echosession.Ref) error
	asked  atomic.Int64 // Replaces
}

func (s *heldStore) Replace(ctx context.Context, ref echosession.Ref, old, record []byte, ttl time.Duration) error {
	s.asked.Add(1)
	if s.before != nil {
		if err := s.before(ctx, ref); err != nil {
			return err
		}
	}
	return s.Store.Replace(ctx, ref, old, record, ttl)
}

// Requests that find the same old session at the same time make one record of it: the
// first one's. No update is lost.
func TestImportsConverge(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		const requests = 8
		var arrived sync.WaitGroup
		arrived.Add(requests)
		var imports atomic.Int64
		store := &heldStore{Store: storeOf(t, cfg)}
		store.before = func(context.Context, echosession.Ref) error {
			if store.asked.Load() <= requests {
				arrived.Done()
				arrived.Wait() // all have read the old session
			}
			return nil
		}
		cfg.Import = func(stored []byte, v any) error {
			imports.Add(1)
			return json.Unmarshal(stored, v)
		}
		old := cfg
		cfg.Store, cfg.Client = store, nil
		cfg = importing(cfg)
		id, token := oldSession(t, old, `{"name":"Ada","count":10}`, "")
		var wg sync.WaitGroup
		for i := range requests {
			wg.Go(func() {
				m := newManager[User](t, cfg) // an instance of its own
				sess, err := m.Open(context.Background(), token)
				if err != nil || !sess.Exists() || sess.Data().Count < 10 {
					t.Errorf("request %d: %+v, %v, %v", i, sess.Data(), sess.Reason(), err)
					return
				}
				if err := sess.Update(context.Background(), func(u *User) error { u.Count++; return nil }); err != nil {
					t.Errorf("request %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		if n := imports.Load(); n != requests {
			t.Errorf("%d imports: the requests did not meet", n)
		}
		if sess := opened(t, newManager[User](t, cfg), token); sess.Data().Count != 10+requests || sess.ID() != id {
			t.Errorf("%+v", sess.Data())
		}
	})
}

// A session that is logged out while it is being imported stays logged out.
func TestNoImportAfterALogout(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		store := &heldStore{Store: storeOf(t, cfg)}
		store.before = func(ctx context.Context, ref echosession.Ref) error { return store.Delete(ctx, ref) }
		old := cfg
		cfg.Store, cfg.Client = store, nil
		cfg = importing(cfg)
		id, token := oldSession(t, old, `{"name":"Ada"}`, "")
		m := newManager[User](t, cfg)
		for range 2 {
			sess, err := m.Open(t.Context(), token)
			if err != nil || !errors.Is(sess.Reason(), echosession.ErrSessionGone) {
				t.Errorf("%v, %v", sess.Reason(), err)
			}
			if record := storedUnder(t, old, id); record != nil {
				t.Errorf("stored is %q", record)
			}
		}
		if n := store.asked.Load(); n != 1 {
			t.Errorf("%d writes", n)
		}
	})
}

// hookedStore calls a function before the second Load, or before a Check.
type hookedStore struct {
	echosession.Store
	loads       int
	secondLoad  func()
	beforeCheck func()
}

func (s *hookedStore) Load(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
	if s.loads++; s.loads == 2 && s.secondLoad != nil {
		s.secondLoad()
	}
	return s.Store.Load(ctx, ref, ttl)
}

func (s *hookedStore) Check(ctx context.Context, ref echosession.Ref) (time.Duration, error) {
	if s.beforeCheck != nil {
		s.beforeCheck()
	}
	return s.Store.Check(ctx, ref)
}

// Another instance, of a release whose Import can do more, imports the session and rotates
// it between two steps of this one.
func TestAnotherInstanceImportsAndRotates(t *testing.T) {
	store := echosession.NewMemoryStore()
	other := newManager[User](t, importing(echosession.Config{Store: store}))
	for name, steps := range map[string]func(s *hookedStore, rotate func()){
		"before what cannot be imported is read again": func(s *hookedStore, rotate func()) { s.secondLoad = rotate },
		"before the lifetime is asked for":             func(s *hookedStore, rotate func()) { s.beforeCheck = rotate },
	} {
		t.Run(name, func(t *testing.T) {
			hooked := &hookedStore{Store: store}
			fails := false
			cfg := importing(echosession.Config{Store: hooked, Import: func(stored []byte, v any) error {
				if fails {
					return errNotMine
				}
				return json.Unmarshal(stored, v)
			}})
			m := newManager[User](t, cfg)
			id, token := oldSession(t, cfg, `{"name":"Ada"}`, "")
			opened(t, m, token) // so that the next read restarts nothing
			if err := store.Delete(t.Context(), echosession.Ref{ID: id}); err != nil {
				t.Fatal(err)
			}
			if _, err := store.Create(t.Context(), echosession.Ref{ID: id}, []byte(`{"name":"Ada"}`), time.Hour, echosession.Limit{}); err != nil {
				t.Fatal(err)
			}
			rotated := ""
			steps(hooked, func() {
				sess, err := other.Open(t.Context(), token)
				if err == nil {
					rotated, err = sess.Rotate(t.Context())
				}
				if err != nil {
					t.Error(err)
				}
			})
			hooked.loads, fails = 0, hooked.secondLoad != nil
			sess := opened(t, m, token)
			if sess.Data().Name != "Ada" || rotated == "" {
				t.Errorf("%+v", sess.Data())
			}
			if sess.ID() != id && sess.ID() != opened(t, other, rotated).ID() {
				t.Errorf("ID %s", sess.ID())
			}
		})
	}
}

// loggingOutStore deletes what it is asked about.
type loggingOutStore struct{ echosession.Store }

func (s loggingOutStore) Check(ctx context.Context, ref echosession.Ref) (time.Duration, error) {
	if err := s.Delete(ctx, ref); err != nil {
		return 0, err
	}
	return s.Store.Check(ctx, ref)
}

// The same where the lifetime that is left was asked for in between.
func TestNoImportAfterALogoutInBetween(t *testing.T) {
	cfg := importing(echosession.Config{Store: loggingOutStore{echosession.NewMemoryStore()}})
	m := newManager[User](t, cfg)
	id, token := oldSession(t, cfg, `{"name":"Ada"}`, "")
	opened(t, m, token)
	ref := echosession.Ref{ID: id}
	if err := cfg.Store.Delete(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	if _, err := cfg.Store.Create(t.Context(), ref, []byte(`{"name":"Ada"}`), time.Hour, echosession.Limit{}); err != nil {
		t.Fatal(err)
	}
	if sess, err := m.Open(t.Context(), token); err != nil || !errors.Is(sess.Reason(), echosession.ErrSessionGone) {
		t.Errorf("%v, %v", sess.Reason(), err)
	}
	if record := storedUnder(t, cfg, id); record != nil {
		t.Errorf("stored is %q", record)
	}
}

// A session without a subject gets one from Renew, and with it a place in the index.
func TestAnImportedSessionIsRenewed(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		cfg.SubjectIndex = true
		cfg = importing(cfg)
		m := newManager[User](t, cfg)
		id, token := oldSession(t, cfg, `{"name":"Ada","count":3}`, `,"iat":1000000000`)
		sess := opened(t, m, token)
		keep := func(*User) error { return nil }
		if _, err := sess.Renew(t.Context(), keep, echosession.WithSubject("ada")); err != nil {
			t.Fatal(err)
		}
		list, err := m.List(t.Context(), "ada")
		if err != nil || len(list) != 1 || list[0].Data().Count != 3 || list[0].CreatedAt().Unix() != 1e9 || time.Since(list[0].AuthenticatedAt()) > time.Minute {
			t.Errorf("%v, %v", list, err)
		}
		if sess, err := m.Open(t.Context(), token); err != nil || sess.Exists() {
			t.Errorf("the token from before finds %s (%v)", sess.ID(), err)
		}
		if record := storedUnder(t, cfg, id); len(record) > 0 && record[0] == '{' {
			t.Errorf("stored is %q", record)
		}
	})
}

// When the predecessor changes the session between the read and the write, the import
// begins anew with what is stored then.
func TestImportStartsFromWhatIsStored(t *testing.T) {
	store := &heldStore{Store: echosession.NewMemoryStore()}
	cfg := importing(echosession.Config{Store: store})
	id, token := oldSession(t, cfg, `{"count":1}`, "")
	store.before = func(ctx context.Context, ref echosession.Ref) error {
		if store.asked.Load() > 1 {
			return nil
		}
		if err := store.Delete(ctx, ref); err != nil {
			return err
		}
		return errOf(store.Create(ctx, ref, []byte(`{"count":2}`), time.Hour, echosession.Limit{}))
	}
	m := newManager[User](t, cfg)
	sess := opened(t, m, token)
	if sess.Data().Count != 2 {
		t.Errorf("%+v", sess.Data())
	}
	// A Node process that is still running writes over the record. Its session, then, is
	// imported again, also by a handle that is open.
	if err := store.Delete(t.Context(), echosession.Ref{ID: id}); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Create(t.Context(), echosession.Ref{ID: id}, []byte(`{"count":7}`), time.Hour, echosession.Limit{}); err != nil {
		t.Fatal(err)
	}
	if err := sess.Update(t.Context(), func(u *User) error { u.Count++; return nil }); err != nil {
		t.Fatal(err)
	}
	if sess = opened(t, m, token); sess.Data().Count != 8 {
		t.Errorf("%+v", sess.Data())
	}
}

// What Node writes over an imported session is imported again, with the lifetime that it
// has: nothing restarts it, for this process has touched the session a moment ago.
func TestImportKeepsTheLifetimeThatIsLeft(t *testing.T) {
	eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
		cfg = importing(cfg)
		m := newManager[User](t, cfg)
		id, token := oldSession(t, cfg, `{"count":1}`, "")
		opened(t, m, token)
		if got := lifetimeOf(t, cfg); got != 24*time.Hour {
			t.Errorf("the first use leaves %v", got)
		}
		for _, tt := range []struct{ node, want time.Duration }{{time.Hour, time.Hour}, {48 * time.Hour, 24 * time.Hour}} {
			store := storeOf(t, cfg)
			if err := store.Delete(t.Context(), echosession.Ref{ID: id}); err != nil {
				t.Fatal(err)
			}
			if _, err := store.Create(t.Context(), echosession.Ref{ID: id}, []byte(`{"count":2}`), tt.node, echosession.Limit{}); err != nil {
				t.Fatal(err)
			}
			clock.Advance(time.Second)
			if sess := opened(t, m, token); sess.Data().Count != 2 {
				t.Errorf("%+v", sess.Data())
			}
			if got, want := lifetimeOf(t, cfg), min(tt.node-time.Second, tt.want); got != want {
				t.Errorf("%v is left of what Node wrote, not %v", got, want)
			}
		}
	})
}

// errNotMine is what Imports return here, with data that no log may have.
var errNotMine = errors.New(`invalid character 's' after "password"`)

// An Import that fails leaves everything as it was. Its error is ErrCorrupt with the
// cause, and the log has no word of the cause or the data.
func TestImportFails(t *testing.T) {
	for name, tt := range map[string]struct {
		fails func(stored []byte, v any) error
		cause error
		says  string
	}{
		"an error":                  {func([]byte, any) error { return fmt.Errorf("%w of %s", errNotMine, "Ada") }, errNotMine, "Import refused it"},
		"a panic with an error":     {func([]byte, any) error { panic(errNotMine) }, errNotMine, "Import panicked"},
		"a panic with a text":       {func([]byte, any) error { panic("password") }, nil, "Import panicked"},
		"a nil pointer":             {func([]byte, any) error { var u *User; u.Count++; return nil }, nil, "Import panicked"},
		"more than can be stored":   {func(_ []byte, v any) error { v.(*User).Name = strings.Repeat("password", 9000); return nil }, echosession.ErrTooLarge, "what Import made of it cannot be stored"},
		"json.Unmarshal of another": {json.Unmarshal, nil, "Import refused it"},
	} {
		t.Run(name, func(t *testing.T) {
			eachStore(t, func(t *testing.T, cfg echosession.Config) {
				var log logBuffer
				cfg.Import, cfg.Logger = tt.fails, log.logger()
				cfg = importing(cfg)
				m := newManager[User](t, cfg)
				const stored = `{"name":["password"]}`
				id, token := oldSession(t, cfg, stored, "")
				sess, err := m.Open(t.Context(), token)
				if err != nil || sess.Exists() || !errors.Is(sess.Reason(), echosession.ErrCorrupt) || tt.cause != nil && !errors.Is(sess.Reason(), tt.cause) ||
					echosession.CorruptReason(sess.Reason()) != "import" {
					t.Errorf("%v, %q, %v", sess.Reason(), echosession.CorruptReason(sess.Reason()), err)
				}
				if record := storedUnder(t, cfg, id); string(record) != stored {
					t.Errorf("stored is %q", record)
				}
				if got := log.String(); !strings.Contains(got, tt.says) || !strings.Contains(got, "operation=import") {
					t.Errorf("the log has %s", got)
				}
				s := newServer(t, m.Middleware())
				route(s, m, "/", func(c echo.Context, _ *echosession.Session[User]) error { return c.NoContent(http.StatusNoContent) }, m.Require())
				if a := s.get(t, "/", token); a.StatusCode != http.StatusUnauthorized || a.message(t) != "the session is invalid or has ended" {
					t.Errorf("%d %s", a.StatusCode, a.body)
				}
				for _, text := range []string{log.String(), sess.Reason().Error()} {
					if strings.Contains(text, "password") || strings.Contains(text, "Ada") || strings.Contains(text, id) {
						t.Errorf("a secret is in %s", text)
					}
				}
			})
		})
	}
}

// Import is called for what a valid token names and for nothing else.
func TestImportIsCalledForValidTokensAlone(t *testing.T) {
	imports := 0
	store := &countedStore{Store: echosession.NewMemoryStore()}
	cfg := importing(echosession.Config{Store: store, SubjectIndex: true, Import: func(stored []byte, v any) error {
		imports++
		return json.Unmarshal(stored, v)
	}})
	m := newManager[User](t, cfg)
	id, token := oldSession(t, cfg, `{"name":"Ada"}`, "")
	altered := alteredTokens(t, hs256(`{"alg":"HS256","typ":"session+jwt"}`, `{"jti":"`+id+`","iat":1}`, testSecret))
	for name, token := range altered {
		if sess, err := m.Open(t.Context(), token); err != nil || sess.Exists() {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, payload := range map[string]string{
		"another secret": token[:len(token)-3] + "AAA",
		"expired":        hs256(`{"alg":"HS256","typ":"JWT"}`, `{"jti":"`+id+`","exp":1}`, legacySecret),
		"not yet valid":  hs256(`{"alg":"HS256","typ":"JWT"}`, `{"jti":"`+id+`","nbf":9000000000}`, legacySecret),
	} {
		if sess, err := m.Open(t.Context(), payload); err != nil || !errors.Is(sess.Reason(), echosession.ErrInvalidToken) {
			t.Errorf("%s: %v, %v", name, sess.Reason(), err)
		}
	}
	if n := store.loads.Load(); n != 0 || imports != 0 {
		t.Errorf("%d reads and %d imports", n, imports)
	}
	corrupt := 0
	for _, err := range m.All(t.Context()) {
		if errors.Is(err, echosession.ErrCorrupt) {
			corrupt++
		}
	}
	if corrupt != 1 || imports != 0 || string(storedUnder(t, cfg, id)) != `{"name":"Ada"}` {
		t.Errorf("All finds %d old sessions and makes %d imports", corrupt, imports)
	}
	// With SubjectIndex the key of a session with a subject has another form.
	_, token = oldSession(t, cfg, `{"name":"Ada"}`, `,"sub":"ada"`)
	if sess, err := m.Open(t.Context(), token); err != nil || !errors.Is(sess.Reason(), echosession.ErrSessionGone) || imports != 0 {
		t.Errorf("%v, %v, %d imports", sess.Reason(), err, imports)
	}
}

// A record that is damaged, or sealed with another key, is no other library's.
func TestNoImportOfOurRecords(t *testing.T) {
	cfg := importing(echosession.Config{Store: echosession.NewMemoryStore(), Import: func(stored []byte, v any) error {
		t.Errorf("Import was handed %q", stored)
		return nil
	}})
	m := newManager[User](t, cfg)
	sess, err := m.Create(t.Context(), User{Name: "Ada"})
	if err != nil {
		t.Fatal(err)
	}
	record := storedUnder(t, cfg, sess.ID())
	for name, damaged := range map[string][]byte{
		"cut":     record[:len(record)-2],
		"changed": append(slices.Clone(record[:40]), 0xc1),
		"empty":   nil,
	} {
		store := &replyingStore{Store: cfg.Store, reply: damaged}
		cfg := cfg
		cfg.Store = store
		if sess, err := newManager[User](t, cfg).Open(t.Context(), sess.Token()); err != nil || !errors.Is(sess.Reason(), echosession.ErrCorrupt) {
			t.Errorf("%s: %v, %v", name, sess.Reason(), err)
		}
	}
}

// replyingStore answers each read with one reply.
type replyingStore struct {
	echosession.Store
	reply []byte
}

func (s *replyingStore) Load(context.Context, echosession.Ref, time.Duration) ([]byte, error) {
	return slices.Clone(s.reply), nil
}

// A reply that belongs to another command is never imported: what is put in the place of
// what is stored is compared with it, and an Import that fails is asked about what is
// read twice alone.
func TestImportOfAForeignReply(t *testing.T) {
	for name, reply := range map[string]string{"that can be read": `{"name":"Bob"}`, "that cannot": "PONG"} {
		t.Run(name, func(t *testing.T) {
			store := &outOfStepStore{Store: echosession.NewMemoryStore(), foreign: []byte(reply)}
			cfg := importing(echosession.Config{Store: store})
			_, token := oldSession(t, cfg, `{"name":"Ada"}`, "")
			store.left.Store(1)
			if sess := opened(t, newManager[User](t, cfg), token); sess.Data().Name != "Ada" {
				t.Errorf("%+v", sess.Data())
			}
		})
	}
}

// outOfStepStore answers the next reads with what belongs to others.
type outOfStepStore struct {
	echosession.Store
	foreign []byte
	left    atomic.Int64
}

func (s *outOfStepStore) Load(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
	if s.left.Add(-1) >= 0 {
		return slices.Clone(s.foreign), nil
	}
	return s.Store.Load(ctx, ref, ttl)
}

// A store that fails during an import is an outage, and no loss of the session.
func TestImportDuringAnOutage(t *testing.T) {
	for name, failure := range map[string]error{
		"unavailable": echosession.ErrStoreUnavailable, "unknown outcome": echosession.ErrIndeterminate, "its own": errors.New("disk full"),
	} {
		t.Run(name, func(t *testing.T) {
			store := &heldStore{Store: echosession.NewMemoryStore()}
			cfg := importing(echosession.Config{Store: store})
			id, token := oldSession(t, cfg, `{"name":"Ada"}`, "")
			store.before = func(context.Context, echosession.Ref) error { return failure }
			m := newManager[User](t, cfg)
			if _, err := m.Open(t.Context(), token); !errors.Is(err, echosession.ErrStoreUnavailable) {
				t.Error(err)
			}
			if record := storedUnder(t, cfg, id); string(record) != `{"name":"Ada"}` {
				t.Errorf("stored is %q", record)
			}
			store.before = nil
			if sess := opened(t, m, token); sess.Data().Name != "Ada" {
				t.Errorf("%+v", sess.Data())
			}
		})
	}
}

// inJSON is a Codec of its own.
type inJSON struct{}

func (inJSON) Marshal(v any) ([]byte, error)      { return json.Marshal(v) }
func (inJSON) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

// The record is in the form of Codec and EncryptionKeys.
func TestImportIsStoredAsTheRest(t *testing.T) {
	for name, change := range map[string]func(*echosession.Config){
		"sealed":       func(c *echosession.Config) { c.EncryptionKeys = [][]byte{testSecret[:32]} },
		"JSON":         func(c *echosession.Config) { c.Codec = inJSON{} },
		"JSON, sealed": func(c *echosession.Config) { c.Codec, c.EncryptionKeys = inJSON{}, [][]byte{testSecret[:32]} },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := importing(echosession.Config{Store: echosession.NewMemoryStore()})
			change(&cfg)
			id, token := oldSession(t, cfg, `{"name":"a name to look for"}`, "")
			opened(t, newManager[User](t, cfg), token)
			record := storedUnder(t, cfg, id)
			if sealed := len(cfg.EncryptionKeys) > 0; strings.Contains(string(record), "a name to look for") == sealed {
				t.Errorf("stored is %q", record)
			}
			cfg.Import = nil // the last old session has been imported
			m := newManager[User](t, cfg)
			if sess := opened(t, m, token); sess.Data().Name != "a name to look for" {
				t.Errorf("%+v", sess.Data())
			}
		})
	}
}

// Without Import, and for what is too large, the session is corrupt, as ever.
func TestWithoutImport(t *testing.T) {
	cfg := importing(echosession.Config{Store: echosession.NewMemoryStore(), MaxRecordSize: 200, Import: func([]byte, any) error {
		t.Error("Import is asked")
		return nil
	}})
	large := `{"name":"` + strings.Repeat("a", 190) + `"}`
	for stored, tt := range map[string]struct {
		m      *echosession.Manager[User]
		reason string
	}{
		large:            {newManager[User](t, cfg), "too_large"},
		`{"name":"Ada"}`: {newManager[User](t, func() echosession.Config { cfg := cfg; cfg.Import = nil; return cfg }()), "head"},
	} {
		id, token := oldSession(t, cfg, stored, "")
		sess, err := tt.m.Open(t.Context(), token)
		if err != nil || !errors.Is(sess.Reason(), echosession.ErrCorrupt) || echosession.CorruptReason(sess.Reason()) != tt.reason {
			t.Errorf("%.20s: %v, %q, %v", stored, sess.Reason(), echosession.CorruptReason(sess.Reason()), err)
		}
		if record := storedUnder(t, cfg, id); string(record) != stored {
			t.Errorf("stored is %q", record)
		}
	}
}

// A session that was found without its token is not imported, whatever is written over
// its record.
func TestNoImportWithoutAToken(t *testing.T) {
	cfg := importing(echosession.Config{Store: echosession.NewMemoryStore(), SubjectIndex: true})
	m := newManager[User](t, cfg)
	if _, err := m.Create(t.Context(), User{Name: "Ada"}, echosession.WithSubject("ada")); err != nil {
		t.Fatal(err)
	}
	list, err := m.List(t.Context(), "ada")
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	ref := echosession.Ref{ID: list[0].ID(), Subject: "ada"}
	if err := cfg.Store.Delete(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	if _, err := cfg.Store.Create(t.Context(), ref, []byte(`{"name":"Eve"}`), time.Hour, echosession.Limit{}); err != nil {
		t.Fatal(err)
	}
	err = list[0].Update(t.Context(), func(u *User) error { u.Count++; return nil })
	if record, _ := cfg.Store.Load(t.Context(), ref, 0); !errors.Is(err, echosession.ErrCorrupt) || string(record) != `{"name":"Eve"}` {
		t.Errorf("%v; stored is %q", err, record)
	}
}

// The times of an imported session are those of its token.
func TestImportTimes(t *testing.T) {
	for name, tt := range map[string]struct {
		claims   func(now time.Time) string
		created  time.Duration // from now
		lifetime time.Duration
	}{
		"iat":                 {func(now time.Time) string { return fmt.Sprintf(`,"iat":%d`, now.Unix()-600) }, -10 * time.Minute, 24 * time.Hour},
		"iat with a fraction": {func(now time.Time) string { return fmt.Sprintf(`,"iat":%d.25`, now.Unix()-1) }, -750 * time.Millisecond, 24 * time.Hour},
		"no iat":              {func(time.Time) string { return "" }, 0, 24 * time.Hour},
		"iat before 1970":     {func(time.Time) string { return `,"iat":-5` }, 0, 24 * time.Hour},
		"iat within the skew": {func(now time.Time) string { return fmt.Sprintf(`,"iat":%d`, now.Unix()+30) }, 0, 24 * time.Hour},
		"exp":                 {func(now time.Time) string { return fmt.Sprintf(`,"exp":%d`, now.Unix()+90) }, 0, 90 * time.Second},
		"exp beyond MaxAge":   {func(now time.Time) string { return fmt.Sprintf(`,"exp":%d`, now.Unix()+1e6) }, 0, 24 * time.Hour},
		"an idle of its own":  {func(time.Time) string { return `,"idle":1` }, 0, 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
				cfg.ClockSkew = time.Minute
				cfg = importing(cfg)
				now := clock.Now()
				_, token := oldSession(t, cfg, `{"name":"Ada"}`, tt.claims(now))
				sess := opened(t, newManager[User](t, cfg), token)
				if got := sess.CreatedAt().Sub(now); got != tt.created {
					t.Errorf("created %v from now, not %v", got, tt.created)
				}
				if got := sess.ExpiresAt().Sub(now); got != tt.lifetime {
					t.Errorf("it ends in %v, not %v", got, tt.lifetime)
				}
				if got := lifetimeOf(t, cfg); got != tt.lifetime {
					t.Errorf("the record lives for %v, not %v", got, tt.lifetime)
				}
			})
		})
	}
}

// What Node writes may have no end: it gets one when it is imported, also soon after the
// last use.
func TestImportOfWhatNeverEnds(t *testing.T) {
	client := redistest.Shared(t).Client(t)
	cfg := importing(echosession.Config{Client: client, Keyspace: newKeyspace()})
	m := newManager[User](t, cfg)
	id, token := oldSession(t, cfg, `{"count":1}`, "")
	opened(t, m, token)
	if err := client.Set(t.Context(), cfg.Keyspace+id, `{"count":2}`, 0).Err(); err != nil {
		t.Fatal(err)
	}
	if sess := opened(t, m, token); sess.Data().Count != 2 {
		t.Errorf("%+v", sess.Data())
	}
	redistest.AssertNoKeyWithoutTTL(t, client, cfg.Keyspace)
}
