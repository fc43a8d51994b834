package echosession_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

// Every kind of event is driven through requests. No event and no line of a log holds a token,
// an ID, a key, data, or a word of the store.
func TestEventsAndLogsHoldNoSecret(t *testing.T) {
	var logged logBuffer
	rec, clock := newEventRecorder(), newClock()
	audit := echosession.SlogEvents(logged.logger())
	var planted secrets
	memory := echosession.NewMemoryStore(echosession.WithClock(clock.Now))
	t.Cleanup(func() { memory.Close() })
	store := plantedStore{newTroubledStore(memory), memory, make(chan error)}
	encryption := bytes.Repeat([]byte("E"), 32)
	cfg := echosession.Config{
		Store: store, Now: clock.Now, Logger: logged.logger(), Cookie: new(echosession.Cookie),
		Keys:           []echosession.SigningKey{{ID: "new", Algorithm: "HS256", Key: bytes.Repeat([]byte("N"), 32)}, {ID: "old", Algorithm: "HS256", Key: bytes.Repeat([]byte("O"), 32)}},
		EncryptionKeys: [][]byte{bytes.Repeat([]byte("F"), 32), encryption},
		SubjectIndex:   true, MaxSessions: 3, StaleFor: time.Minute, Keyspace: "planted-keyspace:",
		TokenLookup: "bearer,cookie,ticket:ticket",
		Import:      func(stored []byte, v any) error { return json.Unmarshal(stored, v) },
		OnEvent: func(ctx context.Context, e echosession.Event) {
			rec.observe(ctx, e)
			audit(ctx, e)
		},
	}
	planted.add("planted-keyspace", "planted-data", "planted-claim", "planted words of the store", "planted-device")
	for _, key := range cfg.EncryptionKeys {
		planted.add(string(key), base64.StdEncoding.EncodeToString(key), fmt.Sprintf("%x", key))
	}
	older := cfg
	older.Keys, older.EncryptionKeys, older.OnEvent, older.StaleFor = cfg.Keys[1:], [][]byte{encryption}, nil, 0
	m, before := newManager[User](t, cfg), newManager[User](t, older)
	t.Cleanup(func() { m.Close(); before.Close() })
	s := eventServer(t, m)
	s.GET("/stale", func(c echo.Context) error { return c.NoContent(204) }, m.Require(echosession.ServeStale()))

	create := func(m *echosession.Manager[User]) *echosession.Session[User] {
		t.Helper()
		sess, err := m.Create(t.Context(), User{Name: "planted-data"}, echosession.WithSubject("ada"),
			echosession.WithDevice("planted-device"), echosession.WithClaims(echosession.Claims{"role": "planted-claim"}))
		if err != nil {
			t.Fatal(err)
		}
		planted.session(sess)
		return sess
	}
	use := func(status int, path, token string, headers ...string) string {
		t.Helper()
		answer := askFor(t, s, status, path, token, headers...)
		if strings.Count(answer, ".") == 2 {
			planted.add(answer, tokenID(t, answer))
		}
		return answer
	}

	old := create(before)
	use(200, "/me", old.Token()) // two old keys
	use(200, "/guest", "")
	cookie := s.do(t, s.request(t, http.MethodPost, "/guest", "")).Header.Get("Set-Cookie")
	planted.add(strings.Split(strings.TrimPrefix(cookie, "__Host-session="), ";")[0])
	use(403, "/logout", "", "Cookie", strings.Split(cookie, ";")[0], "Origin", "https://evil.example")
	renewed := create(m)
	token := use(200, "/renew?as=ada", renewed.Token())
	use(401, "/me", renewed.Token())
	rotated := use(200, "/rotate", token)
	use(200, "/me", token) // in the grace
	for range 4 {
		create(m)
	}
	use(401, "/me", rotated)
	use(401, "/me", "planted.junk.token")
	planted.add("planted.junk.token")
	sess := create(m)
	ticket, err := sess.Ticket(t.Context(), "/me")
	if err != nil {
		t.Fatal(err)
	}
	planted.add(ticket)
	for _, want := range []int{200, 401} {
		if a := s.get(t, "/me?ticket="+ticket, ""); a.StatusCode != want {
			t.Fatalf("the ticket: %d %s", a.StatusCode, a.body)
		}
	}

	// A record that is damaged, and one of another library.
	damaged, foreign := create(m), create(m)
	putInPlace(t, memory, damaged, []byte("planted-data, damaged"))
	use(401, "/me", damaged.Token())
	putInPlace(t, memory, foreign, []byte(`{"name":"planted-data"}`))
	use(200, "/me", foreign.Token())

	// An outage, with words of the store.
	store.fail(fmt.Errorf("%w: planted words of the store, %s", echosession.ErrStoreUnavailable, foreign.ID()))
	use(503, "/me", foreign.Token())
	if a := s.get(t, "/stale", foreign.Token()); a.StatusCode != 204 {
		t.Fatal(a.StatusCode)
	}
	store.fail(fmt.Errorf("%w: planted words of the store, %s", echosession.ErrIndeterminate, foreign.ID()))
	use(503, "/login?as=ada", "")
	store.fail(nil)
	clock.Advance(5 * time.Second)
	use(200, "/me", foreign.Token())

	// Watches, an interruption, and an end that comes of itself.
	short, err := m.Create(t.Context(), User{}, echosession.WithSubject("eve"), echosession.WithMaxAge(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	planted.session(short)
	_, stop := short.Watch(t.Context())
	defer stop()
	waitForChecks(t, rec, 1)
	store.ends <- errors.New("planted words of the store")
	rec.eventually(t, echosession.EventWatchResumed)
	use(200, "/revoke", foreign.Token())
	if err := short.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	store.ends <- errors.New("planted words of the store")
	rec.eventually(t, echosession.EventWatchEnded)

	planted.check(t, "the log", logged.String())
	if logged.String() == "" {
		t.Error("nothing was logged")
	}
	for _, e := range rec.all() {
		text := fmt.Sprintf("%+v", e)
		for err := e.Err; err != nil; err = errors.Unwrap(err) {
			text += err.Error()
		}
		planted.check(t, "an event", text)
	}
	for _, kind := range eventKinds(t) {
		came := slices.ContainsFunc(rec.all(), func(e echosession.Event) bool { return e.Kind == kind })
		if !came && kind != echosession.EventExpired { // see TestEventOfAnExpiry
			t.Errorf("no %q came", kind)
		}
	}
}

// A plantedStore keeps tickets too, and its subscription ends when the test says so.
type plantedStore struct {
	*troubledStore
	echosession.TicketStore
	ends chan error
}

func (s plantedStore) Watch(ctx context.Context, tell func(echosession.Hint)) error {
	return deafStore{nil, s.ends}.Watch(ctx, tell)
}

// secrets are texts that nothing may show.
type secrets struct{ texts []string }

func (s *secrets) add(texts ...string) { s.texts = append(s.texts, texts...) }

func (s *secrets) session(sess *echosession.Session[User]) {
	s.add(sess.ID(), strings.ReplaceAll(sess.ID(), "-", ""), sess.Token())
	for _, part := range strings.Split(sess.Token(), ".")[1:] {
		s.add(part)
	}
}

func (s *secrets) check(t *testing.T, where, text string) {
	t.Helper()
	for _, secret := range s.texts {
		if secret != "" && strings.Contains(text, secret) {
			t.Errorf("%s shows %q: %.2000s", where, secret, text)
		}
	}
}

// putInPlace puts something else in the place of a session's record.
func putInPlace(t *testing.T, store echosession.Store, sess *echosession.Session[User], record []byte) {
	t.Helper()
	ref := echosession.Ref{ID: sess.ID(), Subject: sess.Subject()}
	old, err := store.Load(t.Context(), ref, 0)
	if err == nil {
		err = store.Replace(t.Context(), ref, old, record, time.Hour)
	}
	if err != nil {
		t.Fatal(err)
	}
}
