package echosession_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// Basket is data that shares memory unless it is copied.
type Basket struct {
	Items []string
	Price map[string]int
	Owner *User
}

func newBasket() Basket {
	return Basket{Items: []string{"pen"}, Price: map[string]int{"pen": 2}, Owner: &User{Name: "Ada"}}
}

func (b Basket) spoil() {
	b.Items[0] = "spoilt"
	b.Price["pen"] = -1
	b.Owner.Name = "spoilt"
}

func (b Basket) spoilt() bool {
	return b.Items[0] != "pen" || b.Price["pen"] != 2 || b.Owner.Name != "Ada"
}

func TestDataIsACopy(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		m := newManager[Basket](t, cfg)
		ctx := t.Context()
		given := newBasket()
		created, err := m.Create(ctx, given)
		if err != nil {
			t.Fatal(err)
		}
		given.spoil()
		created.Data().spoil()
		opened, err := m.Open(ctx, created.Token())
		if err != nil {
			t.Fatal(err)
		}
		opened.Data().spoil()
		var kept *Basket
		if err := opened.Update(ctx, func(b *Basket) error { kept = b; return nil }); err != nil {
			t.Fatal(err)
		}
		kept.spoil()
		failed := errors.New("no")
		if err := opened.Update(ctx, func(b *Basket) error { b.spoil(); return failed }); err != failed {
			t.Error(err)
		}
		for name, sess := range map[string]*echosession.Session[Basket]{"created": created, "opened": opened} {
			if sess.Data().spoilt() {
				t.Errorf("%s: %+v", name, sess.Data())
			}
			if body, err := json.Marshal(sess); err != nil || strings.Contains(string(body), "spoilt") {
				t.Errorf("%s: %s, %v", name, body, err)
			}
			if err := sess.Reload(ctx); err != nil || sess.Data().spoilt() {
				t.Errorf("%s: %+v, %v", name, sess.Data(), err)
			}
		}
	})
}

func TestClaimsAreACopy(t *testing.T) {
	m := newManager[User](t, mistaken(func(*echosession.Config) {}))
	given := echosession.Claims{"roles": []string{"reader"}}
	sess, err := m.Create(t.Context(), User{}, echosession.WithClaims(given))
	if err != nil {
		t.Fatal(err)
	}
	given["roles"].([]string)[0] = "admin"
	for range 2 {
		claims := sess.Claims()
		roles := claims["roles"].([]any)
		if roles[0] != "reader" {
			t.Error(claims)
		}
		roles[0], claims["jti"] = "admin", "mine"
	}
	if again, err := m.Open(t.Context(), sess.Token()); err != nil || again.Claims()["roles"].([]any)[0] != "reader" {
		t.Error(again.Claims(), err)
	}
}

func TestSessionWithoutSession(t *testing.T) {
	m := newManager[Basket](t, mistaken(func(*echosession.Config) {}))
	sess, err := m.Open(t.Context(), "no token")
	if err != nil {
		t.Fatal(err)
	}
	if sess.Exists() || !errors.Is(sess.Reason(), echosession.ErrInvalidToken) {
		t.Error(sess.Exists(), sess.Reason())
	}
	if sess.ID()+sess.Token()+sess.Subject() != "" || sess.Claims() != nil {
		t.Error(sess.ID(), sess.Token(), sess.Subject(), sess.Claims())
	}
	if data := sess.Data(); data.Items != nil || data.Price != nil || data.Owner != nil {
		t.Error(data)
	}
	if !sess.CreatedAt().IsZero() || !sess.ExpiresAt().IsZero() {
		t.Error(sess.CreatedAt(), sess.ExpiresAt())
	}
	if body, err := json.Marshal(sess); string(body) != "null" || err != nil {
		t.Errorf("%s, %v", body, err)
	}
	for method, err := range map[string]error{
		"Update": sess.Update(t.Context(), func(*Basket) error { t.Error("fn was called"); return nil }),
		"Reload": sess.Reload(t.Context()),
		"Touch":  sess.Touch(t.Context()),
		"Rotate": func() error { _, err := sess.Rotate(t.Context()); return err }(),
	} {
		if !errors.Is(err, echosession.ErrNoSession) || !errors.Is(err, echosession.ErrInvalidToken) {
			t.Errorf("%s: %v, want ErrNoSession and the reason", method, err)
		}
	}
	if err := sess.Destroy(t.Context()); err != nil {
		t.Errorf("Destroy: %v", err)
	}
}

func TestMarshalJSONIsTheData(t *testing.T) {
	m := newManager[User](t, mistaken(func(*echosession.Config) {}))
	s := newServer(t, m.Middleware())
	route(s, m, "/", func(c echo.Context, sess *echosession.Session[User]) error { return c.JSON(http.StatusOK, sess) })
	if a := s.get(t, "/", newToken(t, m, "Ada")); a.body != `{"name":"Ada","count":0}` {
		t.Error(a.body)
	}
	if a := s.get(t, "/", ""); a.body != "null" {
		t.Error(a.body)
	}
}

func TestGet(t *testing.T) {
	fake := newFakeRedis(t)
	m := newManager[User](t, echosession.Config{Client: fake, Secret: testSecret})
	other := newManager[int](t, echosession.Config{Client: fake, Secret: testSecret, RequestKey: "other"})
	skipping := newManager[User](t, echosession.Config{
		Client: fake, Secret: testSecret, RequestKey: "skipping", Skipper: func(echo.Context) bool { return true },
	})
	token := newToken(t, m, "Ada")
	if _, err := m.Open(t.Context(), token); err != nil { // the touch is done
		t.Fatal(err)
	}
	s := newServer(t, m.Middleware(), other.Middleware(), skipping.Middleware())
	s.GET("/never-asks", func(c echo.Context) error { return c.NoContent(http.StatusOK) })
	s.GET("/", func(c echo.Context) error {
		first, err := m.Get(c)
		if err != nil {
			t.Error(err)
		}
		for name, get := range map[string]func() (*echosession.Session[User], error){
			"again":           func() (*echosession.Session[User], error) { return m.Get(c) },
			"by the function": func() (*echosession.Session[User], error) { return echosession.Get[User](c) },
			"by the key":      func() (*echosession.Session[User], error) { return echosession.Get[User](c, "session") },
		} {
			if sess, err := get(); sess != first || err != nil {
				t.Errorf("%s: another handle, %v", name, err)
			}
		}
		for name, tt := range map[string]struct {
			get  func() error
			want error
		}{
			"another type":         {func() error { _, err := echosession.Get[int](c); return err }, echosession.ErrTypeMismatch},
			"another type, by key": {func() error { _, err := echosession.Get[User](c, "other"); return err }, echosession.ErrTypeMismatch},
			"a pointer":            {func() error { _, err := echosession.Get[*User](c); return err }, echosession.ErrTypeMismatch},
			"another key":          {func() error { _, err := echosession.Get[User](c, "nowhere"); return err }, echosession.ErrNotInstalled},
			"skipped":              {func() error { _, err := skipping.Get(c); return err }, echosession.ErrNotInstalled},
			"a value of the handler's": {func() error {
				c.Set("mine", "value")
				_, err := echosession.Get[User](c, "mine")
				return err
			}, echosession.ErrNotInstalled},
		} {
			if err := tt.get(); !errors.Is(err, tt.want) {
				t.Errorf("%s: %v, want %v", name, err, tt.want)
			}
		}
		if _, ok := c.Get("session").(*echosession.Session[User]); ok {
			t.Error("echo.Context.Get gets around Get")
		}
		return c.NoContent(http.StatusOK)
	})
	before := fake.count("")
	s.get(t, "/never-asks", token)
	if n := fake.count("") - before; n != 0 {
		t.Errorf("a route that never asks: %d commands", n)
	}
	s.get(t, "/", token)
	if n := fake.count("") - before; n != 1 {
		t.Errorf("all the Gets of a request: %d commands", n)
	}

	bare := newServer(t)
	bare.GET("/", func(c echo.Context) error { _, err := m.Get(c); return err })
	bare.GET("/required", func(c echo.Context) error { t.Error("let in"); return nil }, m.Require())
	for _, path := range []string{"/", "/required"} {
		if a := bare.get(t, path, token); a.StatusCode != http.StatusInternalServerError || a.message(t) != "Internal Server Error" {
			t.Errorf("without the middleware, %s: %d %s", path, a.StatusCode, a.body)
		}
	}
}

func TestAUseThatNeedsNoTouchIsOneGet(t *testing.T) {
	count := func(t *testing.T, client echosession.RedisClient, keyspace string, indexed bool, counts func() (gets, all int)) {
		clock := newClock()
		cfg := echosession.Config{
			Client: client, Keyspace: keyspace, Secret: testSecret, Now: clock.Now, SubjectIndex: indexed,
		}
		sess, err := newManager[User](t, cfg).Create(t.Context(), User{Name: "Ada"}, echosession.WithSubject("ada"))
		if err != nil {
			t.Fatal(err)
		}
		m := newManager[User](t, cfg) // a node that has written nothing
		s := newServer(t, m.Middleware())
		route(s, m, "/", func(c echo.Context, sess *echosession.Session[User]) error {
			return c.String(http.StatusOK, outcome(sess))
		})
		use := func() (gets, all int) {
			g, a := counts()
			if answer := s.get(t, "/", sess.Token()); answer.body != "Ada" {
				t.Fatal(answer.body)
			}
			gets, all = counts()
			return gets - g, all - a
		}
		use() // a node touches what it has not seen before
		for range 3 {
			clock.Advance(19 * time.Second)
			if gets, all := use(); gets != 1 || all != 1 {
				t.Errorf("%d commands, %d of them GET", all, gets)
			}
		}
		clock.Advance(3 * time.Second)
		if gets, all := use(); gets != 0 || all != 1 {
			t.Errorf("a touch: %d commands, %d of them GET", all, gets)
		}
	}
	for _, indexed := range []bool{false, true} {
		t.Run(fmt.Sprint("fake, indexed ", indexed), func(t *testing.T) {
			fake := newFakeRedis(t)
			count(t, fake, "", indexed, func() (int, int) { return fake.count("get"), fake.count("") })
		})
		t.Run(fmt.Sprint("redis, indexed ", indexed), func(t *testing.T) {
			proxy := redistest.NewProxy(t, redistest.Shared(t).Addr())
			client := redis.NewClient(&redis.Options{Addr: proxy.Addr(), ContextTimeoutEnabled: true})
			t.Cleanup(func() { client.Close() })
			count(t, client, newKeyspace(), indexed, func() (int, int) { return proxy.Count("GET"), proxy.Count() })
		})
	}
}

// hostileTokens are what an attacker sends in place of a token. good is one that
// he has.
func hostileTokens(t *testing.T, good string) map[string]string {
	t.Helper()
	parts := strings.Split(good, ".")
	header, payload, signature := parts[0], parts[1], parts[2]
	encode := base64.RawURLEncoding.EncodeToString
	claims := string(unb64(t, payload))
	id := newID()
	sign := func(header, payload string) string { return hs256(header, payload, testSecret) }
	unsigned := func(header string) string { return encode([]byte(header)) + "." + payload + "." }
	return map[string]string{
		"a word":                       "token",
		"dots":                         "..",
		"two segments":                 header + "." + payload,
		"four segments":                good + "." + signature,
		"no signature":                 header + "." + payload + ".",
		"no payload":                   header + ".." + signature,
		"no header":                    "." + payload + "." + signature,
		"alg none":                     unsigned(`{"alg":"none","typ":"JWT"}`),
		"alg None, signed":             unsigned(`{"alg":"None"}`) + signature,
		"alg of another key":           sign(`{"alg":"HS512","typ":"JWT"}`, claims),
		"alg missing":                  sign(`{"typ":"JWT"}`, claims),
		"alg twice":                    sign(`{"alg":"none","alg":"HS256"}`, claims),
		"crit":                         sign(`{"alg":"HS256","crit":["x"],"x":1}`, claims),
		"jku":                          sign(`{"alg":"HS256","jku":"https://evil.example/keys"}`, claims),
		"jwk":                          sign(`{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"}}`, claims),
		"kid that nobody has":          sign(`{"alg":"HS256","kid":"../../dev/null"}`, claims),
		"another secret":               hs256(`{"alg":"HS256","typ":"JWT"}`, claims, []byte(strings.Repeat("x", 32))),
		"empty secret":                 hs256(`{"alg":"HS256","typ":"JWT"}`, claims, nil),
		"payload changed":              header + "." + encode([]byte(strings.Replace(claims, `"jti":"`, `"jti":"`+id[:1], 1))) + "." + signature,
		"signature changed":            header + "." + payload + "." + encode(append([]byte{0}, unb64(t, signature)[1:]...)),
		"signature cut":                good[:len(good)-4],
		"padding":                      good + "=",
		"a newline inside":             good[:len(good)-3] + "\n" + good[len(good)-3:],
		"a NUL behind":                 good + "\x00",
		"JSON serialization":           fmt.Sprintf(`{"payload":%q,"protected":%q,"signature":%q}`, payload, header, signature),
		"no jti":                       sign(`{"alg":"HS256"}`, `{"iat":1}`),
		"jti that is a key":            sign(`{"alg":"HS256"}`, `{"jti":"*"}`),
		"jti that climbs":              sign(`{"alg":"HS256"}`, `{"jti":"../`+id[3:]+`"}`),
		"jti in upper case":            sign(`{"alg":"HS256"}`, `{"jti":"`+strings.ToUpper(id)+`"}`),
		"jti that is a number":         sign(`{"alg":"HS256"}`, `{"jti":1}`),
		"jti that is no UUIDv4":        sign(`{"alg":"HS256"}`, `{"jti":"`+id[:14]+"1"+id[15:]+`"}`),
		"two jti":                      sign(`{"alg":"HS256"}`, `{"jti":"`+id+`","jti":"`+newID()+`"}`),
		"exp in the past":              sign(`{"alg":"HS256"}`, `{"jti":"`+id+`","exp":1}`),
		"exp that is no number":        sign(`{"alg":"HS256"}`, `{"jti":"`+id+`","exp":"never"}`),
		"exp beyond all bounds":        sign(`{"alg":"HS256"}`, `{"jti":"`+id+`","exp":1e999}`),
		"nbf in the future":            sign(`{"alg":"HS256"}`, `{"jti":"`+id+`","nbf":9999999999}`),
		"iat in the future":            sign(`{"alg":"HS256"}`, `{"jti":"`+id+`","iat":9999999999}`),
		"negative idle":                sign(`{"alg":"HS256"}`, `{"jti":"`+id+`","idle":-1}`),
		"payload that is an array":     sign(`{"alg":"HS256"}`, `[]`),
		"payload with a tail":          sign(`{"alg":"HS256"}`, `{"jti":"`+id+`"}{}`),
		"payload that nests deeply":    sign(`{"alg":"HS256"}`, `{"jti":"`+id+`","x":`+strings.Repeat("[", 1500)+strings.Repeat("]", 1499)+`}`),
		"longer than 8 KiB":            sign(`{"alg":"HS256"}`, `{"jti":"`+id+`","x":"`+strings.Repeat("x", 8<<10)+`"}`),
		"a token of another instance":  hs256(`{"alg":"HS256","kid":"a","typ":"JWT"}`, claims, []byte(strings.Repeat("a", 32))),
		"an ID alone":                  id,
		"nothing but bytes over ASCII": "\xff\xfe.\xfd.\xfc",
	}
}

func TestHostileTokensCostNoCommandAndLookAlike(t *testing.T) {
	fake := newFakeRedis(t)
	m := newManager[User](t, echosession.Config{Client: fake, Secret: testSecret})
	s := newServer(t, m.Middleware())
	s.Any("/", func(c echo.Context) error { t.Error("let in"); return nil }, m.Require())
	good := newToken(t, m, "Ada")
	tokens := hostileTokens(t, good)
	if len(tokens) < 30 {
		t.Fatal(len(tokens))
	}
	before := fake.count("")
	var want string
	for name, token := range tokens {
		// JSON carries the bytes that no header can.
		quoted, err := json.Marshal(map[string]string{"accessToken": token})
		if err != nil {
			t.Fatal(err)
		}
		a := s.do(t, s.request(t, http.MethodPost, "/", string(quoted), "Content-Type", jsonType))
		got := fmt.Sprint(a.StatusCode, a.Header.Get("WWW-Authenticate"), a.body)
		if want == "" {
			want = got
		}
		if a.StatusCode != http.StatusUnauthorized || got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
		if sess, err := m.Open(t.Context(), token); err != nil || !errors.Is(sess.Reason(), echosession.ErrInvalidToken) {
			t.Errorf("%s: %v, %v", name, sess.Reason(), err)
		}
	}
	if n := fake.count("") - before; n != 0 {
		t.Errorf("%d commands", n)
	}
}

func TestARequestForAHostileRecord(t *testing.T) {
	type tree struct {
		Name     string
		Children []tree
		Any      any
	}
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		log := new(logBuffer)
		cfg.Logger = log.logger()
		m := newManager[tree](t, cfg)
		s := newServer(t, m.Middleware())
		s.GET("/", func(c echo.Context) error { return c.NoContent(http.StatusOK) }, m.Require())
		store := storeOf(t, cfg)
		const secret = "the-data-of-somebody"
		genuine := func() (*echosession.Session[tree], []byte) {
			sess, err := m.Create(t.Context(), tree{Name: secret})
			if err != nil {
				t.Fatal(err)
			}
			record, err := store.Load(t.Context(), echosession.Ref{ID: sess.ID()}, 0)
			if err != nil {
				t.Fatal(err)
			}
			return sess, record
		}
		sess, record := genuine()
		_, other := genuine()
		// The data begins where the record of an empty tree differs.
		head := bytes.LastIndex(record, []byte("\xc0\x83")) + 1
		if head == 0 {
			t.Fatalf("no data in % x", record)
		}
		with := func(data string) []byte { return append(bytes.Clone(record[:head]), data...) }
		const deep = 60_000
		invalid := s.get(t, "/", "bad")
		for name, tt := range map[string]struct {
			record []byte
			status int
		}{
			"five bytes that ask for 4 Gi":        {[]byte("\xdf\xff\xff\xff\xff"), 401},
			"the same as data":                    {with("\xdf\xff\xff\xff\xff"), 401},
			"an array of 4 Gi":                    {with("\xdd\xff\xff\xff\xff"), 401},
			"a string of 4 Gi":                    {with("\xdb\xff\xff\xff\xff"), 401},
			"60,000 arrays":                       {bytes.Repeat([]byte{0x91}, deep), 401},
			"60,000 arrays as data":               {with(strings.Repeat("\x91", deep)), 401},
			"60,000 maps as data":                 {with(strings.Repeat("\x81", deep)), 401},
			"a value of another type":             {with("\xc3"), 401},
			"nothing as data":                     {with(""), 401},
			"a map that ends early":               {with("\x83\xa4Name"), 401},
			"a name twice":                        {with("\x82\xa4Name\xa1a\xa4Name\xa1b"), 401},
			"cut off":                             {record[:len(record)-1], 401},
			"cut off in the header":               {record[:20], 401},
			"one byte":                            {record[:1], 401},
			"a byte behind":                       {append(bytes.Clone(record), 0xc0), 401},
			"another format":                      {append([]byte{record[0], 0x7f}, record[2:]...), 401},
			"text":                                {[]byte("hello"), 401},
			"JSON":                                {[]byte(`{"Name":"x"}`), 401},
			"another session's record":            {other, 503},
			"another session's record, cut short": {other[:len(other)-1], 503},
		} {
			t.Run(name, func(t *testing.T) {
				overwrite(t, store, sess.ID(), tt.record)
				before := len(log.String())
				a := s.get(t, "/", sess.Token())
				if a.StatusCode != tt.status {
					t.Fatalf("%d %s", a.StatusCode, a.body)
				}
				if tt.status == 401 && (a.body != invalid.body || a.Header.Get("WWW-Authenticate") != invalid.Header.Get("WWW-Authenticate")) {
					t.Errorf("the answer differs: %s, %v", a.body, a.Header)
				}
				said := log.String()[before:]
				if strings.Contains(a.body+said, secret) || strings.Contains(said, sess.ID()) || strings.Contains(said, sess.Token()) {
					t.Errorf("%s; the log says %s", a.body, said)
				}
				if said == "" {
					t.Error("nobody was told")
				}
				if left, err := store.Load(t.Context(), echosession.Ref{ID: sess.ID()}, 0); !bytes.Equal(left, tt.record) {
					t.Errorf("left is %.40q, %v", left, err)
				}
			})
		}
		if cfg.Client == nil {
			return
		}
		t.Run("a list", func(t *testing.T) {
			client, ok := cfg.Client.(*redis.Client)
			if !ok {
				t.Skip("the fake has no lists")
			}
			key := cfg.Keyspace + sess.ID()
			client.Del(t.Context(), key)
			client.RPush(t.Context(), key, "a")
			client.Expire(t.Context(), key, time.Minute)
			a := s.get(t, "/", sess.Token())
			if a.StatusCode != 503 || a.Header.Get("WWW-Authenticate") != "" || strings.Contains(a.body, "WRONGTYPE") {
				t.Errorf("%d %s", a.StatusCode, a.body)
			}
			if n := client.LLen(t.Context(), key).Val(); n != 1 {
				t.Error("the list is gone")
			}
		})
	})
}

func TestRecordOfAnotherStruct(t *testing.T) {
	type other struct{ Name map[string]int }
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		token := newToken(t, newManager[User](t, cfg), "Ada")
		type counted struct {
			Name map[string]int `json:"name"`
		}
		sess, err := newManager[counted](t, cfg).Open(t.Context(), token)
		if err != nil || !errors.Is(sess.Reason(), echosession.ErrCorrupt) || sess.Exists() {
			t.Error(sess.Reason(), err)
		}
		// A struct without the field reads what it knows.
		if sess, err := newManager[other](t, cfg).Open(t.Context(), token); err != nil || !sess.Exists() {
			t.Error(sess.Reason(), err)
		}
		if sess, err := newManager[User](t, cfg).Open(t.Context(), token); err != nil || sess.Data().Name != "Ada" {
			t.Error(sess.Reason(), err)
		}
	})
}

func TestTouchInterval(t *testing.T) {
	for name, tt := range map[string]struct {
		interval time.Duration
		maxAge   time.Duration // of the session
		steps    map[time.Duration]bool
	}{
		"default":            {0, 0, map[time.Duration]bool{59 * time.Second: false, time.Minute: true}},
		"ten minutes":        {10 * time.Minute, 0, map[time.Duration]bool{10*time.Minute - 1: false, 10 * time.Minute: true}},
		"always":             {echosession.TouchAlways, 0, map[time.Duration]bool{0: true, time.Second: true}},
		"of a short session": {10 * time.Minute, 20 * time.Second, map[time.Duration]bool{999 * time.Millisecond: false, time.Second: true}},
	} {
		for step, touched := range tt.steps {
			t.Run(fmt.Sprint(name, " after ", step), func(t *testing.T) {
				clock := newClock()
				storeClock := newClock()
				store := echosession.NewMemoryStore(echosession.WithClock(storeClock.Now))
				m := newManager[User](t, echosession.Config{
					Store: store, Secret: testSecret, Now: clock.Now, TouchInterval: tt.interval, MaxAge: time.Hour,
				})
				var opts []echosession.CreateOption
				life := time.Hour
				if tt.maxAge > 0 {
					opts, life = append(opts, echosession.WithMaxAge(tt.maxAge)), tt.maxAge
				}
				sess, err := m.Create(t.Context(), User{}, opts...)
				if err != nil {
					t.Fatal(err)
				}
				// The store's own clock goes ahead half a life, so that a touch shows.
				storeClock.Advance(life / 2)
				clock.Advance(step)
				if sess, err := m.Open(t.Context(), sess.Token()); err != nil || !sess.Exists() {
					t.Fatal(sess.Reason(), err)
				}
				storeClock.Advance(life/2 + time.Millisecond)
				if got := stored(t, echosession.Config{Store: store}, sess.ID()); got != touched {
					t.Errorf("touched: %v, want %v", got, touched)
				}
			})
		}
	}
}

func TestAClockThatGoesBackwards(t *testing.T) {
	eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
		// iat is in the token, so skew must be allowed for a clock to go behind it.
		cfg.ClockSkew, cfg.MaxAge = 5*time.Minute, time.Hour
		m := newManager[User](t, cfg)
		token := newToken(t, m, "Ada")
		clock.Advance(-4 * time.Minute)
		sess, err := m.Open(t.Context(), token)
		if err != nil || !sess.Exists() {
			t.Fatal(sess.Reason(), err)
		}
		if want := clock.Now().Add(time.Hour); !sess.ExpiresAt().Equal(want) {
			t.Errorf("ExpiresAt %v, want %v: the use must touch", sess.ExpiresAt(), want)
		}
		clock.Advance(59 * time.Minute)
		if sess, err := m.Open(t.Context(), token); err != nil || !sess.Exists() {
			t.Error(sess.Reason(), err)
		}
		clock.Advance(-time.Hour - time.Minute)
		if sess, err := m.Open(t.Context(), token); err != nil || !errors.Is(sess.Reason(), echosession.ErrInvalidToken) {
			t.Error(sess.Reason(), err)
		}
	})
}

func TestWithMaxAgeHoldsOnEveryNode(t *testing.T) {
	eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
		cfg.MaxAge = time.Hour
		here := newManager[User](t, cfg)
		cfg.MaxAge = time.Minute
		there := newManager[User](t, cfg)
		sess, err := here.Create(t.Context(), User{}, echosession.WithMaxAge(30*24*time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			clock.Advance(29 * 24 * time.Hour)
			on, err := there.Open(t.Context(), sess.Token())
			if err != nil || !on.Exists() {
				t.Fatal(on.Reason(), err)
			}
			if want := clock.Now().Add(30 * 24 * time.Hour); !on.ExpiresAt().Equal(want) {
				t.Errorf("ExpiresAt %v, want %v", on.ExpiresAt(), want)
			}
			if err := on.Update(t.Context(), func(u *User) error { u.Count++; return nil }); err != nil {
				t.Error(err)
			}
			if _, err := on.Rotate(t.Context()); err != nil {
				t.Error(err)
			}
			sess = on
		}
		clock.Advance(30*24*time.Hour + time.Second)
		if on, err := there.Open(t.Context(), sess.Token()); err != nil || !errors.Is(on.Reason(), echosession.ErrSessionGone) {
			t.Error(on.Reason(), err)
		}
	})
}

func TestAbsoluteTimeout(t *testing.T) {
	eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
		cfg.MaxAge, cfg.AbsoluteTimeout = time.Hour, 3*time.Hour
		m := newManager[User](t, cfg)
		sess, err := m.Create(t.Context(), User{})
		if err != nil {
			t.Fatal(err)
		}
		created := sess.CreatedAt()
		end := clock.Now().Add(3 * time.Hour)
		for range 4 {
			clock.Advance(40 * time.Minute)
			if sess, err = m.Open(t.Context(), sess.Token()); err != nil || !sess.Exists() {
				t.Fatal(sess.Reason(), err)
			}
			if _, err := sess.Rotate(t.Context()); err != nil {
				t.Fatal(err)
			}
			want := clock.Now().Add(time.Hour)
			if want.After(end) {
				want = end
			}
			if !sess.ExpiresAt().Equal(want) || !sess.CreatedAt().Equal(created) {
				t.Errorf("ExpiresAt %v, want %v; CreatedAt %v, want %v", sess.ExpiresAt(), want, sess.CreatedAt(), created)
			}
		}
		id := sess.ID()
		clock.Advance(20*time.Minute - time.Millisecond)
		if sess, err = m.Open(t.Context(), sess.Token()); err != nil || !sess.Exists() {
			t.Fatal(sess.Reason(), err)
		}
		clock.Advance(time.Millisecond)
		for method, err := range map[string]error{
			"Update": sess.Update(t.Context(), func(*User) error { return nil }),
			"Touch":  sess.Touch(t.Context()),
			"Reload": sess.Reload(t.Context()),
		} {
			if !errors.Is(err, echosession.ErrNoSession) && !errors.Is(err, echosession.ErrSessionGone) {
				t.Errorf("%s: %v", method, err)
			}
		}
		if late, err := m.Open(t.Context(), sess.Token()); err != nil || late.Exists() {
			t.Error(late.Reason(), err)
		}
		if stored(t, cfg, id) {
			t.Error("the record outlives the session")
		}
	})
}

func TestTheEarliestTimeoutEndsASession(t *testing.T) {
	clock := newClock()
	m := newManager[User](t, mistaken(func(c *echosession.Config) {
		c.Now, c.MaxAge, c.AbsoluteTimeout = clock.Now, 2*time.Hour, 3*time.Hour
	}))
	exp := func(d time.Duration) echosession.CreateOption {
		return echosession.WithClaims(echosession.Claims{"exp": clock.Now().Add(d)})
	}
	for name, tt := range map[string]struct {
		opts []echosession.CreateOption
		want time.Duration
	}{
		"MaxAge":                         {nil, 2 * time.Hour},
		"WithMaxAge":                     {[]echosession.CreateOption{echosession.WithMaxAge(time.Hour)}, time.Hour},
		"AbsoluteTimeout, WithMaxAge":    {[]echosession.CreateOption{echosession.WithMaxAge(9 * time.Hour)}, 3 * time.Hour},
		"AbsoluteTimeout, exp":           {[]echosession.CreateOption{exp(9 * time.Hour)}, 3 * time.Hour},
		"exp, beyond MaxAge":             {[]echosession.CreateOption{exp(150 * time.Minute)}, 150 * time.Minute},
		"exp, before all others":         {[]echosession.CreateOption{exp(time.Minute)}, time.Minute},
		"exp, before WithMaxAge":         {[]echosession.CreateOption{exp(time.Minute), echosession.WithMaxAge(time.Hour)}, time.Minute},
		"WithMaxAge, before exp":         {[]echosession.CreateOption{exp(time.Hour), echosession.WithMaxAge(time.Minute)}, time.Minute},
		"WithMaxAge, the last one given": {[]echosession.CreateOption{echosession.WithMaxAge(time.Minute), echosession.WithMaxAge(time.Hour)}, time.Hour},
	} {
		sess, err := m.Create(t.Context(), User{}, tt.opts...)
		if err != nil {
			t.Fatal(name, err)
		}
		if got := sess.ExpiresAt().Sub(clock.Now()); got != tt.want {
			t.Errorf("%s: it ends in %v, want %v", name, got, tt.want)
		}
	}
}

func TestATokenWhoseTimeIsOver(t *testing.T) {
	eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
		m := newManager[User](t, cfg)
		sess, err := m.Create(t.Context(), User{}, echosession.WithClaims(echosession.Claims{"exp": clock.Now().Add(time.Minute)}))
		if err != nil {
			t.Fatal(err)
		}
		token := sess.Token()
		clock.Advance(time.Minute - time.Second)
		if sess, err := m.Open(t.Context(), token); err != nil || !sess.Exists() {
			t.Fatal(sess.Reason(), err)
		}
		clock.Advance(time.Second)
		late, err := m.Open(t.Context(), token) // though this process has verified it
		if err != nil || !errors.Is(late.Reason(), echosession.ErrInvalidToken) {
			t.Error(late.Reason(), err)
		}
	})
}

func TestCreateAndOpenWithoutHTTP(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		cfg.Cookie = &echosession.Cookie{Persistent: true}
		cfg.TouchInterval = echosession.TouchAlways
		m := newManager[User](t, cfg)
		ctx := t.Context()
		before := time.Now().Add(-time.Millisecond)
		sess, err := m.Create(ctx, User{Name: "Ada"}, echosession.WithSubject("ada"))
		if err != nil {
			t.Fatal(err)
		}
		if !sess.Exists() || sess.Reason() != nil || sess.Subject() != "ada" || sess.Data().Name != "Ada" || sess.ID() == "" {
			t.Errorf("%+v %v", sess.Data(), sess.Reason())
		}
		if at := sess.CreatedAt(); at.Before(before) || at.After(time.Now()) || at.Location() != time.UTC {
			t.Error(at)
		}
		again, err := m.Open(ctx, sess.Token())
		if err != nil || again.ID() != sess.ID() || !again.CreatedAt().Equal(sess.CreatedAt()) || again.Subject() != "ada" {
			t.Error(again.Reason(), err)
		}
		if err := again.Update(ctx, func(u *User) error { u.Count = 7; return nil }); err != nil || again.Data().Count != 7 {
			t.Error(again.Data(), err)
		}
		if sess.Data().Count != 0 {
			t.Error("a handle changed by itself")
		}
		if err := sess.Reload(ctx); err != nil || sess.Data().Count != 7 {
			t.Error(sess.Data(), err)
		}
		old := again.Token()
		token, err := again.Rotate(ctx)
		if err != nil || token == old || again.Token() != token || again.ID() == sess.ID() || again.Data().Count != 7 {
			t.Error(again.Data(), err)
		}
		if claims := again.Claims(); claims["jti"] != again.ID() || claims["sub"] != "ada" {
			t.Error(claims)
		}
		if err := again.Destroy(ctx); err != nil || again.Exists() {
			t.Error(err)
		}
		for _, token := range []string{old, token} {
			if sess, err := m.Open(ctx, token); err != nil || !errors.Is(sess.Reason(), echosession.ErrSessionGone) {
				t.Error(sess.Reason(), err)
			}
		}
	})
}

func TestStreamsAreUntouched(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		cfg.Cookie = &echosession.Cookie{}
		m := newManager[User](t, cfg)
		s := newServer(t, m.Middleware())
		received := make(chan struct{})
		route(s, m, "/events", func(c echo.Context, sess *echosession.Session[User]) error {
			w := c.Response()
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, "data: first\n\n")
			w.Flush()
			<-received // the client has the first event while the handler runs
			if err := sess.Update(c.Request().Context(), func(u *User) error { u.Count++; return nil }); err != nil {
				return err
			}
			fmt.Fprintf(w, "data: %d\n\n", sess.Data().Count)
			w.Flush()
			return nil
		})
		route(s, m, "/upgrade", func(c echo.Context, sess *echosession.Session[User]) error {
			conn, buf, err := c.Response().Hijack()
			if err != nil {
				return err
			}
			defer conn.Close()
			if err := sess.Touch(c.Request().Context()); err != nil {
				return err
			}
			fmt.Fprintf(buf, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n%s", sess.Data().Name)
			return buf.Flush()
		})
		token := newToken(t, m, "Ada")

		resp, err := http.DefaultClient.Do(s.request(t, "GET", "/events", "", "Authorization", "Bearer "+token))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		events := bufio.NewReader(resp.Body)
		if line, err := events.ReadString('\n'); line != "data: first\n" {
			t.Fatal(line, err)
		}
		close(received)
		if rest, err := io.ReadAll(events); string(rest) != "\ndata: 1\n\n" {
			t.Errorf("%q, %v", rest, err)
		}

		r := s.request(t, "GET", "/upgrade", "", "Authorization", "Bearer "+token, "Connection", "Upgrade", "Upgrade", "x")
		resp, err = http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusSwitchingProtocols || string(body) != "Ada" {
			t.Errorf("%d %q, %v", resp.StatusCode, body, err)
		}
	})
}

func TestResponseWriterIsNotWrapped(t *testing.T) {
	m := newManager[User](t, mistaken(func(c *echosession.Config) { c.Cookie = &echosession.Cookie{} }))
	e := echo.New()
	e.Use(m.Middleware())
	w := httptest.NewRecorder()
	e.GET("/", func(c echo.Context) error {
		if c.Response().Writer != http.ResponseWriter(w) {
			t.Errorf("the handler gets a %T", c.Response().Writer)
		}
		return nil
	})
	e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
}

func TestListAndAll(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		cfg.SubjectIndex = true
		m := newManager[User](t, cfg)
		ctx := t.Context()
		var ids []string
		for i, name := range []string{"laptop", "phone", "tablet"} {
			sess, err := m.Create(ctx, User{Name: name, Count: i}, echosession.WithSubject("ada"))
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, sess.ID())
		}
		if _, err := m.Create(ctx, User{Name: "nobody's"}); err != nil {
			t.Fatal(err)
		}
		list, err := m.List(ctx, "ada")
		if err != nil {
			t.Fatal(err)
		}
		var listed []string
		for _, sess := range list {
			listed = append(listed, sess.ID())
			if sess.Token() != "" || sess.Claims() != nil || sess.Subject() != "ada" || !sess.ExpiresAt().After(time.Now()) {
				t.Errorf("%q %v %q %v", sess.Token(), sess.Claims(), sess.Subject(), sess.ExpiresAt())
			}
		}
		if !slices.Equal(listed, ids) {
			t.Errorf("List: %q, want %q", listed, ids)
		}
		first := list[0]
		if err := first.Update(ctx, func(u *User) error { u.Count = 10; return nil }); err != nil {
			t.Error(err)
		}
		if err := first.Touch(ctx); err != nil {
			t.Error(err)
		}
		if err := first.Reload(ctx); err != nil || first.Data().Count != 10 {
			t.Error(first.Data(), err)
		}
		if _, err := first.Rotate(ctx); !errors.Is(err, echosession.ErrNoSession) {
			t.Errorf("Rotate without a token: %v", err)
		}
		if err := list[1].Destroy(ctx); err != nil {
			t.Error(err)
		}
		total := 0
		for sess, err := range m.All(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			total += sess.Data().Count
		}
		if total != 12 {
			t.Errorf("the counts of all sessions add up to %d, not 12", total)
		}
		if n, err := m.RevokeSubject(ctx, "ada", ids[2]); n != 1 || err != nil {
			t.Errorf("RevokeSubject: %d, %v", n, err)
		}
		if list, err := m.List(ctx, "ada"); err != nil || len(list) != 1 || list[0].ID() != ids[2] {
			t.Errorf("%d sessions, %v", len(list), err)
		}
	})
	plain := newManager[User](t, mistaken(func(*echosession.Config) {}))
	if _, err := plain.List(t.Context(), "ada"); err == nil || !strings.Contains(err.Error(), "SubjectIndex") {
		t.Error(err)
	}
	if _, err := plain.RevokeSubject(t.Context(), "ada"); err == nil || !strings.Contains(err.Error(), "SubjectIndex") {
		t.Error(err)
	}
}
