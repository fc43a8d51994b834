package echosession_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

// A ticketSpy is a memory store whose tickets can be seen and changed.
type ticketSpy struct {
	*echosession.MemoryStore
	mu     sync.Mutex
	values map[string][]byte                                         // by key
	take   func(key string, value []byte, err error) ([]byte, error) // what TakeTicket says in place of that
}

func newTicketSpy() *ticketSpy {
	return &ticketSpy{MemoryStore: echosession.NewMemoryStore(), values: make(map[string][]byte)}
}

func (s *ticketSpy) PutTicket(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[key] = bytes.Clone(value)
	return s.MemoryStore.PutTicket(ctx, key, value, ttl)
}

func (s *ticketSpy) TakeTicket(ctx context.Context, key string) ([]byte, error) {
	value, err := s.MemoryStore.TakeTicket(ctx, key)
	if s.take != nil {
		return s.take(key, value, err)
	}
	return value, err
}

// keyOf is what the store has a ticket under.
func keyOf(ticket string) string { return ticketKeyOf("", ticket)[len("ticket:"):] }

// Whoever writes to the store makes no ticket: no value opens a session but the one that was
// made for this ticket.
func TestForgedTickets(t *testing.T) {
	spy := newTicketSpy()
	cfg := withTickets(echosession.Config{Store: spy, Keys: []echosession.SigningKey{
		{ID: "k", Algorithm: "HS256", Key: testSecret},
		{Algorithm: "HS256", Key: testSecret, Legacy: true, VerifyOnly: true},
	}})
	m := newManager[User](t, cfg)
	create := func(name string) *echosession.Session[User] {
		sess, err := m.Create(t.Context(), User{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		return sess
	}
	ada, mallory := create("Ada"), create("Mallory")
	elsewhere := newTicketSpy()
	cfg.Store, cfg.Keys = elsewhere, []echosession.SigningKey{{ID: "k", Algorithm: "HS256", Key: bytes.Repeat([]byte("x"), 32)}}
	other := newManager[User](t, cfg)
	ofOther, err := other.Create(t.Context(), User{})
	if err != nil {
		t.Fatal(err)
	}
	claims := func(key, id string) string {
		b, err := json.Marshal(map[string]any{"jti": key, "sid": id, "path": "*", "exp": 9e9})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	refused, foreign := echosession.ErrInvalidToken, echosession.ErrStoreUnavailable
	for name, tt := range map[string]struct {
		value func(key string, own []byte) []byte
		want  error // nil: it opens Mallory's own session
	}{
		"as it was made":      {func(_ string, own []byte) []byte { return own }, nil},
		"nothing":             {func(string, []byte) []byte { return nil }, foreign},
		"text":                {func(string, []byte) []byte { return []byte("hello") }, foreign},
		"the key alone":       {func(key string, _ []byte) []byte { return []byte(key) }, refused},
		"the key and a form":  {func(key string, _ []byte) []byte { return []byte(key + "p") }, refused},
		"sealed with nothing": {func(key string, _ []byte) []byte { return []byte(key + "s") }, refused},
		"sealed with no key":  {func(key string, _ []byte) []byte { return []byte(key + "s1234" + strings.Repeat("x", 60)) }, refused},
		"another ticket's":    {func(string, []byte) []byte { return spy.values[keyOf(ticketFor(t, ada, "*"))] }, foreign},
		"another's, under this key": {func(key string, _ []byte) []byte {
			return append([]byte(key), spy.values[keyOf(ticketFor(t, ada, "*"))][43:]...)
		}, foreign},
		"the victim's token":      {func(key string, _ []byte) []byte { return []byte(key + "p" + ada.Token()) }, refused},
		"the victim's bare token": {func(string, []byte) []byte { return []byte(ada.Token()) }, foreign},
		"another secret": {func(key string, _ []byte) []byte {
			return []byte(key + "p" + hs256(`{"alg":"HS256","kid":"k","typ":"ticket+jwt"}`, claims(key, ada.ID()), []byte("guessed")))
		}, refused},
		"another instance's": {func(key string, _ []byte) []byte {
			return append([]byte(key), elsewhere.values[keyOf(ticketFor(t, ofOther, "*"))][43:]...)
		}, refused},
		"unsigned": {func(key string, _ []byte) []byte { return []byte(key + "p" + claims(key, ada.ID())) }, refused},
		"a session's typ": {func(key string, _ []byte) []byte {
			return []byte(key + "p" + hs256(`{"alg":"HS256","kid":"k","typ":"session+jwt"}`, claims(key, ada.ID()), testSecret))
		}, refused},
		"a legacy typ": {func(key string, _ []byte) []byte {
			return []byte(key + "p" + hs256(`{"alg":"HS256","typ":"JWT"}`, claims(key, ada.ID()), testSecret))
		}, refused},
		"a session's record":         {func(string, []byte) []byte { return storedRecord(t, spy, ada.ID()) }, foreign},
		"with more behind it":        {func(_ string, own []byte) []byte { return append(slices.Clone(own), 'A') }, refused},
		"with less of the signature": {func(_ string, own []byte) []byte { return own[:len(own)-4] }, refused},
	} {
		t.Run(name, func(t *testing.T) {
			ticket := ticketFor(t, mallory, "/")
			key := keyOf(ticket)
			value := tt.value(key, spy.values[key])
			if err := spy.MemoryStore.PutTicket(t.Context(), key, value, time.Minute); err != nil {
				t.Fatal(err)
			}
			for _, again := range []bool{false, true} {
				got, err := redeem(t.Context(), m, "/?ticket="+ticket)
				switch {
				case again:
					if err != nil || !errors.Is(got.Reason(), refused) {
						t.Errorf("once more: %v", err)
					}
				case tt.want == foreign:
					if !errors.Is(err, foreign) {
						t.Errorf("%v", err)
					}
				case err != nil:
					t.Errorf("%v", err)
				case tt.want != nil:
					if !errors.Is(got.Reason(), refused) {
						t.Errorf("%v, want %v", got.Reason(), refused)
					}
				case got.ID() != mallory.ID():
					t.Errorf("session %q, %v", got.ID(), got.Reason())
				}
			}
		})
	}
}

// storedRecord returns what is stored for a session.
func storedRecord(t *testing.T, store echosession.Store, id string) []byte {
	t.Helper()
	record, err := store.Load(t.Context(), echosession.Ref{ID: id}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return record
}

// What is stored for a ticket is no token: whoever reads the store makes nothing of it.
func TestWhatIsStoredForATicketIsNoToken(t *testing.T) {
	spy := newTicketSpy()
	m := newManager[User](t, withTickets(echosession.Config{Store: spy, Secret: testSecret}))
	sess, err := m.Create(t.Context(), User{Name: "Ada"})
	if err != nil {
		t.Fatal(err)
	}
	ticket := ticketFor(t, sess, "/")
	value := string(spy.values[keyOf(ticket)])
	if strings.Contains(value, ticket) || strings.Contains(value, sess.Token()) {
		t.Errorf("%s holds the ticket or the token", value)
	}
	for _, s := range []string{value, value[43:], value[44:], keyOf(ticket), keyOf(ticket)[:22]} {
		if got, err := m.Open(t.Context(), s); err != nil || !errors.Is(got.Reason(), echosession.ErrInvalidToken) {
			t.Errorf("%.60s as a token: %v", s, got.Reason())
		}
		if got := redeemed(t, m, "/", "Authorization", "Bearer "+s); !errors.Is(got.Reason(), echosession.ErrInvalidToken) {
			t.Errorf("%.60s as a bearer token: %v", s, got.Reason())
		}
		if got := redeemed(t, m, "/?ticket="+s); got.Exists() {
			t.Errorf("%.60s is a ticket", s)
		}
	}
	if got := redeemed(t, m, "/?ticket="+ticket); !got.Exists() {
		t.Errorf("the ticket itself: %v", got.Reason())
	}
}

// With encryption keys, whoever reads the store learns neither the subject nor the path.
func TestTicketsAreSealed(t *testing.T) {
	old, next := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	spy := newTicketSpy()
	cfg := withTickets(echosession.Config{Store: spy, Secret: testSecret, EncryptionKeys: [][]byte{old}})
	sealing := newManager[User](t, cfg)
	sess, err := sealing.Create(t.Context(), User{Name: "Ada"}, echosession.WithSubject("ada"))
	if err != nil {
		t.Fatal(err)
	}
	value := func(ticket string) []byte { return spy.values[keyOf(ticket)] }
	ticket := ticketFor(t, sess, "/events")
	for _, part := range bytes.Split(value(ticket), []byte(".")) {
		if len(value(ticket)) < 200 || bytes.Contains(unb64Loosely(part), []byte("events")) {
			t.Errorf("%q names the path", value(ticket))
		}
	}
	if a, b := ticketFor(t, sess, "/"), ticketFor(t, sess, "/"); bytes.Equal(value(a)[43:90], value(b)[43:90]) {
		t.Error("two tickets are sealed alike")
	}
	if got := redeemed(t, sealing, "/events?ticket="+ticket); got.Data().Name != "Ada" {
		t.Errorf("%v", got.Reason())
	}
	manager := func(change func(*echosession.Config)) *echosession.Manager[User] {
		c := cfg
		change(&c)
		return newManager[User](t, c)
	}
	for name, tt := range map[string]struct {
		by    *echosession.Manager[User]
		opens bool
	}{
		"the key":                      {sealing, true},
		"the key, as the second":       {manager(func(c *echosession.Config) { c.EncryptionKeys = [][]byte{next, old} }), true},
		"another key":                  {manager(func(c *echosession.Config) { c.EncryptionKeys = [][]byte{next} }), false},
		"no key":                       {manager(func(c *echosession.Config) { c.EncryptionKeys = nil }), false},
		"the key in another instance":  {manager(func(c *echosession.Config) { c.Keyspace = "other:" }), false},
		"the key and another secret":   {manager(func(c *echosession.Config) { c.Secret = bytes.Repeat([]byte("s"), 32) }), false},
		"the key and another Issuer":   {manager(func(c *echosession.Config) { c.Issuer = "me" }), false},
		"the key and another Audience": {manager(func(c *echosession.Config) { c.Audience = []string{"us"} }), false},
	} {
		got := redeemed(t, tt.by, "/?ticket="+ticketFor(t, sess, "/"))
		if got.Exists() != tt.opens || got.Exists() == errors.Is(got.Reason(), echosession.ErrInvalidToken) {
			t.Errorf("%s: %v", name, got.Reason())
		}
	}
	// Sealed under one ticket's key, it is not opened under another's.
	one, two := ticketFor(t, sess, "/"), ticketFor(t, sess, "/")
	forged := append([]byte(keyOf(two)), value(one)[43:]...)
	if err := spy.MemoryStore.PutTicket(t.Context(), keyOf(two), forged, time.Minute); err != nil {
		t.Fatal(err)
	}
	if got := redeemed(t, sealing, "/?ticket="+two); !errors.Is(got.Reason(), echosession.ErrInvalidToken) {
		t.Errorf("another ticket's value: %v", got.Reason())
	}
	// While encryption is turned on, instances without keys make tickets too.
	plain := manager(func(c *echosession.Config) { c.EncryptionKeys = nil })
	bob, err := plain.Create(t.Context(), User{Name: "Bob"})
	if err != nil {
		t.Fatal(err)
	}
	turning := manager(func(c *echosession.Config) { c.AllowPlaintext = true })
	if got := redeemed(t, turning, "/?ticket="+ticketFor(t, bob, "/")); got.Data().Name != "Bob" {
		t.Errorf("a plain ticket of a plain session: %v", got.Reason())
	}
	if got := redeemed(t, sealing, "/?ticket="+ticketFor(t, bob, "/")); !errors.Is(got.Reason(), echosession.ErrCorrupt) {
		t.Errorf("a plain ticket of a plain session, without AllowPlaintext: %v", got.Reason())
	}
}

// unb64Loosely returns what base64url decodes of b.
func unb64Loosely(b []byte) []byte {
	b = bytes.TrimLeft(b, "sp")
	out := make([]byte, len(b))
	n, _ := base64.RawURLEncoding.Decode(out, b)
	return append(out[:n], b...)
}

// Instances whose keys, keyspaces or names differ do not take each other's tickets; what
// they have in common, they share as they do tokens.
func TestTicketsOfAnotherInstance(t *testing.T) {
	fake := newFakeRedis(t)
	cfg := withTickets(echosession.Config{Client: fake, Secret: testSecret})
	m := newManager[User](t, cfg)
	sess, err := m.Create(t.Context(), User{Name: "Ada"})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		change func(*echosession.Config)
		opens  bool
		spends bool
	}{
		"another process":    {func(*echosession.Config) {}, true, true},
		"another RequestKey": {func(c *echosession.Config) { c.RequestKey = "admin" }, true, true},
		"another keyspace":   {func(c *echosession.Config) { c.Keyspace = "admin:" }, false, false},
		"another secret":     {func(c *echosession.Config) { c.Secret = bytes.Repeat([]byte("s"), 32) }, false, true},
		"another issuer":     {func(c *echosession.Config) { c.Issuer = "me" }, false, true},
		"another audience":   {func(c *echosession.Config) { c.Audience = []string{"us"} }, false, true},
		"another algorithm":  {func(c *echosession.Config) { c.Algorithm = "HS512" }, false, true},
		"another parameter":  {func(c *echosession.Config) { c.TokenLookup = "bearer,ticket:t" }, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := cfg
			c.Cookie = nil
			c.TokenLookup = "bearer,ticket:ticket"
			tt.change(&c)
			ticket := ticketFor(t, sess, "/")
			other := newManager[User](t, c)
			if got := redeemed(t, other, "/?ticket="+ticket); got.Exists() != tt.opens {
				t.Errorf("there: %v", got.Reason())
			}
			if got := redeemed(t, m, "/?ticket="+ticket); got.Exists() == tt.spends {
				t.Errorf("afterwards here: %v", got.Reason())
			}
		})
	}
	// Two instances on one route: each looks for its own tickets.
	admins := newManager[User](t, echosession.Config{
		Client: fake, Keyspace: "admin:", Secret: bytes.Repeat([]byte("s"), 32), RequestKey: "admin", TokenLookup: "ticket:admin",
	})
	root, err := admins.Create(t.Context(), User{Name: "Root"})
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t, m.Middleware(), admins.Middleware())
	s.GET("/", func(c echo.Context) error {
		user, err := m.Get(c)
		if err != nil {
			return err
		}
		admin, err := admins.Get(c)
		if err != nil {
			return err
		}
		return c.String(http.StatusOK, user.Data().Name+" "+admin.Data().Name)
	})
	target := "/?ticket=" + ticketFor(t, sess, "/") + "&admin=" + ticketFor(t, root, "/")
	for _, want := range []string{"Ada Root", ""} {
		if a := s.get(t, target, ""); a.body != want {
			t.Errorf("%d %q, want %q", a.StatusCode, a.body, want)
		}
	}
}

// A store that hands out another ticket's value, or fails, is an outage: nobody is let in and
// nobody is told that his ticket is no good. Whoever failed is told the same as for a token.
func TestStoresThatFailTickets(t *testing.T) {
	spy := newTicketSpy()
	buf := new(logBuffer)
	m := newManager[User](t, withTickets(echosession.Config{Store: spy, Secret: testSecret, Logger: buf.logger()}))
	s := newServer(t, m.Middleware())
	route(s, m, "/", func(c echo.Context, sess *echosession.Session[User]) error { return sess.Meets() })
	sess, err := m.Create(t.Context(), User{Name: "Ada"})
	if err != nil {
		t.Fatal(err)
	}
	const words = "the words of the store"
	for name, tt := range map[string]struct {
		take   func(key string, value []byte, err error) ([]byte, error)
		status int
	}{
		"not found":            {func(string, []byte, error) ([]byte, error) { return nil, echosession.ErrNotFound }, http.StatusUnauthorized},
		"a failure of its own": {func(string, []byte, error) ([]byte, error) { return nil, errors.New(words) }, http.StatusServiceUnavailable},
		"an outage":            {func(string, []byte, error) ([]byte, error) { return nil, echosession.ErrStoreUnavailable }, http.StatusServiceUnavailable},
		"an outcome unknown":   {func(string, []byte, error) ([]byte, error) { return nil, echosession.ErrIndeterminate }, http.StatusServiceUnavailable},
		"not found, in doubt": {func(string, []byte, error) ([]byte, error) {
			return nil, errors.Join(echosession.ErrNotFound, echosession.ErrStoreUnavailable)
		}, http.StatusServiceUnavailable},
		"another key's value": {func(key string, value []byte, _ error) ([]byte, error) {
			return []byte(strings.ToUpper(key) + string(value[43:])), nil
		}, http.StatusServiceUnavailable},
		"no error and no value": {func(string, []byte, error) ([]byte, error) { return nil, nil }, http.StatusServiceUnavailable},
		"tickets are unknown":   {func(string, []byte, error) ([]byte, error) { return nil, echosession.ErrUnsupported }, http.StatusInternalServerError},
	} {
		t.Run(name, func(t *testing.T) {
			ticket := ticketFor(t, sess, "/")
			spy.take = tt.take
			a := s.get(t, "/?ticket="+ticket, "")
			spy.take = nil
			if a.StatusCode != tt.status || strings.Contains(a.body, words) || (a.Header.Get("WWW-Authenticate") != "") != (tt.status == http.StatusUnauthorized) {
				t.Errorf("%d %s %v", a.StatusCode, a.body, a.Header)
			}
			if a.Header.Get("Cache-Control") != "private, no-store" {
				t.Errorf("Cache-Control: %q", a.Header.Get("Cache-Control"))
			}
			if a := s.get(t, "/?ticket="+ticket, ""); a.StatusCode != http.StatusUnauthorized {
				t.Errorf("afterwards: %d %s", a.StatusCode, a.body)
			}
			for _, secret := range []string{ticket, keyOf(ticket), words, sess.ID()} {
				if strings.Contains(buf.String(), secret) {
					t.Errorf("the log holds %s:\n%s", secret, buf)
				}
			}
		})
	}
	if !strings.Contains(buf.String(), "reply of another command") || !strings.Contains(buf.String(), "ticket") {
		t.Errorf("the log does not name the cause:\n%s", buf)
	}
}

// What a session is not let in by without a ticket, it is not with one: an unreadable record,
// one of another subject, one that another library has stored.
func TestTicketsOfUnreadableSessions(t *testing.T) {
	store := echosession.NewMemoryStore()
	imported := 0
	m := newManager[User](t, withTickets(echosession.Config{Store: store, Secret: testSecret, Import: func(stored []byte, v any) error {
		imported++
		return json.Unmarshal(stored, v)
	}}))
	for name, record := range map[string]func(sess, other *echosession.Session[User]) []byte{
		"damaged":            func(sess, _ *echosession.Session[User]) []byte { return storedRecord(t, store, sess.ID())[:40] },
		"another session's":  func(_, other *echosession.Session[User]) []byte { return storedRecord(t, store, other.ID()) },
		"of another library": func(_, _ *echosession.Session[User]) []byte { return []byte(`{"name":"Eve"}`) },
		"of its own, changed": func(sess, _ *echosession.Session[User]) []byte {
			return append(slices.Clone(storedRecord(t, store, sess.ID())), 0)
		},
	} {
		sess, err := m.Create(t.Context(), User{Name: "Ada"})
		if err != nil {
			t.Fatal(err)
		}
		other, err := m.Create(t.Context(), User{Name: "Bob"})
		if err != nil {
			t.Fatal(err)
		}
		ticket := ticketFor(t, sess, "/")
		ref := echosession.Ref{ID: sess.ID()}
		if err := store.Replace(t.Context(), ref, storedRecord(t, store, sess.ID()), record(sess, other), time.Hour); err != nil {
			t.Fatal(err)
		}
		got, err := redeem(t.Context(), m, "/?ticket="+ticket)
		if err == nil && !errors.Is(got.Reason(), echosession.ErrCorrupt) || err != nil && !errors.Is(err, echosession.ErrStoreUnavailable) || imported != 0 {
			t.Errorf("%s: %v, %v, %d imports", name, err, got.Reason(), imported)
		}
		if _, err := store.Load(t.Context(), ref, 0); err != nil {
			t.Errorf("%s: the record: %v", name, err)
		}
	}
}

// The path is the one that the request of Get has: behind what cuts a prefix off or rewrites
// paths, it is what they left.
func TestTheServersViewOfAPath(t *testing.T) {
	m := newManager[User](t, withTickets(echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret}))
	sess, err := m.Create(t.Context(), User{Name: "Ada"})
	if err != nil {
		t.Fatal(err)
	}
	show := func(c echo.Context) error {
		sess, err := m.Get(c)
		if err != nil {
			return err
		}
		return c.String(http.StatusOK, sess.Data().Name)
	}
	e := echo.New()
	e.Use(m.Middleware())
	group := e.Group("/api/:version")
	group.Any("/*", show)
	rewritten := echo.New()
	rewritten.Pre(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			c.Request().URL.Path, c.Request().URL.RawPath = "/api/v1"+c.Request().URL.Path, ""
			return next(c)
		}
	})
	rewritten.Use(m.Middleware())
	rewritten.Any("/api/v1/*", show)
	servers := map[string]http.Handler{"echo": e, "StripPrefix": http.StripPrefix("/shop", e), "rewritten": rewritten}
	for _, tt := range []struct {
		server, bound, method, target string
		opens                         bool
	}{
		{"echo", "/api/v1/events", "GET", "/api/v1/events", true},
		{"echo", "/events", "GET", "/api/v1/events", false},
		{"echo", "/api/:version/*", "GET", "/api/v1/events", false},
		{"echo", "/api/v1/events", "HEAD", "/api/v1/events", true},
		{"echo", "/api/v1/events", "GET", "http://other.example/api/v1/events", true},
		{"echo", "/api/v1/a%2Fb", "GET", "/api/v1/a%2Fb", true},
		{"echo", "/api/v1/a%2Fb", "GET", "/api/v1/a/b", false},
		{"echo", "/api/v1/a/b", "GET", "/api/v1/a%2Fb", false},
		{"echo", "/api/v1/a%2Fb", "GET", "/api/v1/a%2fb", false},
		{"echo", "/api/v1/events", "GET", "/api/v1//events", false},
		{"echo", "/api/v1/events", "GET", "/api/v1/events/", false},
		{"echo", "/api/v1/events", "GET", "/api/v1/x/../events", false},
		{"echo", "/api/v1/events", "GET", "/api/V1/events", false},
		{"StripPrefix", "/api/v1/events", "GET", "/shop/api/v1/events", true},
		{"StripPrefix", "/shop/api/v1/events", "GET", "/shop/api/v1/events", false},
		{"rewritten", "/api/v1/events", "GET", "/events", true},
		{"rewritten", "/events", "GET", "/events", false},
	} {
		ticket := ticketFor(t, sess, tt.bound)
		for _, first := range []bool{true, false} {
			rec := httptest.NewRecorder()
			servers[tt.server].ServeHTTP(rec, httptest.NewRequest(tt.method, tt.target+"?ticket="+ticket, nil))
			if opened := rec.Code == http.StatusOK && rec.Body.String() == "Ada"; opened != (tt.opens && first) {
				t.Errorf("%s, a ticket for %s, %s %s (first: %t): %d %s", tt.server, tt.bound, tt.method, tt.target, first, rec.Code, rec.Body)
			}
		}
	}
}

// A ticket that nobody redeems leaves the store: memory, at the latest by the calls that
// follow.
func TestTicketsThatNobodyRedeems(t *testing.T) {
	clock := newClock()
	store := echosession.NewMemoryStore(echosession.WithClock(clock.Now))
	m := newManager[User](t, withTickets(echosession.Config{Store: store, Secret: testSecret, Now: clock.Now}))
	sess, err := m.Create(t.Context(), User{}, echosession.WithMaxAge(1000*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	most := 0
	for range 5000 {
		ticketFor(t, sess, "/")
		clock.Advance(time.Second)
		entries, _ := store.Held()
		most = max(most, entries)
	}
	if most > 60 { // 30 live ones, and a third as many that are over
		t.Errorf("the store held %d entries", most)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := sess.Ticket(t.Context(), "/"); !errors.Is(err, echosession.ErrStoreUnavailable) {
		t.Errorf("Ticket after Close: %v", err)
	}
	if _, err := redeem(t.Context(), m, "/?ticket="+strings.Repeat("A", 22)); !errors.Is(err, echosession.ErrStoreUnavailable) {
		t.Errorf("a ticket after Close: %v", err)
	}
}

// What is stored for a ticket says no more than it must.
func TestWhatATicketSays(t *testing.T) {
	spy := newTicketSpy()
	clock := newClock()
	m := newManager[User](t, withTickets(echosession.Config{Store: spy, Secret: testSecret, Now: clock.Now, Issuer: "me"}))
	sess, err := m.Create(t.Context(), User{Name: "Ada"}, echosession.WithSubject("ada"), echosession.WithMaxAge(time.Hour),
		echosession.WithClaims(echosession.Claims{"role": "x", "exp": clock.Now().Add(2 * time.Hour)}), echosession.WithActor("bob"))
	if err != nil {
		t.Fatal(err)
	}
	ticket := ticketFor(t, sess, "/events", echosession.TicketOrigin("https://a.example"))
	value := string(spy.values[keyOf(ticket)])
	var claims map[string]any
	if err := json.Unmarshal(unb64(t, strings.Split(value, ".")[1]), &claims); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"jti": keyOf(ticket), "sid": sess.ID(), "sub": "ada", "idle": 3.6e6, "iss": "me", "path": "/events", "origin": "https://a.example",
		"exp": float64(clock.Now().Add(30 * time.Second).Unix()), "ends": float64(clock.Now().Add(2 * time.Hour).Unix()),
	}
	if !maps.Equal(claims, want) {
		t.Errorf("%v, want %v", claims, want)
	}
	if got := redeemed(t, m, "/events?ticket="+ticket, "Origin", "https://a.example"); got.Actor() != "bob" || got.Subject() != "ada" {
		t.Errorf("%q as %q, %v", got.Actor(), got.Subject(), got.Reason())
	}
}
