package echosession_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

// deploy is the configuration of one release, and what happens before the next.
type deploy struct {
	name string
	cfg  echosession.Config
	wait time.Duration
}

// client is a session and what its owner expects of it.
type client struct {
	token string
	count int
}

// rollOut runs the deploys over one store. Each goes out while instances of the
// one before are running: both get logins, and requests of every client there is.
// Every client logs in again when its session's absolute timeout comes near.
func rollOut(t *testing.T, cfg echosession.Config, now *time.Time, deploys []deploy) {
	newInstance := func(d deploy) *server {
		c := cfg
		c.Keys, c.EncryptionKeys, c.AllowPlaintext = d.cfg.Keys, d.cfg.EncryptionKeys, d.cfg.AllowPlaintext
		if c.Keys == nil {
			c.Secret = testSecret
		}
		m := newManager[User](t, c)
		s := newServer(t, m.Middleware())
		s.POST("/login", func(c echo.Context) error {
			sess, err := m.Get(c)
			if err != nil {
				return err
			}
			token, err := sess.Create(c.Request().Context(), User{})
			if err != nil {
				return err
			}
			return c.String(http.StatusOK, token)
		})
		s.POST("/count", func(c echo.Context) error {
			sess, err := m.Get(c)
			if err != nil {
				return err
			}
			err = sess.Update(c.Request().Context(), func(u *User) error { u.Count++; return nil })
			if err != nil {
				return err
			}
			return c.String(http.StatusOK, fmt.Sprint(sess.Data().Count))
		})
		return s
	}
	login := func(s *server) *client {
		a := s.post(t, "/login", "")
		if a.StatusCode != http.StatusOK {
			t.Fatalf("login: %d %s", a.StatusCode, a.body)
		}
		return &client{token: a.body}
	}

	var clients []*client
	running := newInstance(deploys[0])
	for i, next := range deploys {
		instances := []*server{running}
		if i > 0 {
			instances = append(instances, newInstance(next))
		}
		for _, s := range instances {
			clients = append(clients, login(s))
		}
		for n, c := range clients {
			for _, s := range instances {
				c.count++
				if a := s.post(t, "/count", c.token); a.StatusCode != http.StatusOK || a.body != fmt.Sprint(c.count) {
					t.Fatalf("while %q goes out, client %d: %d %s, not %d", next.name, n, a.StatusCode, a.body, c.count)
				}
			}
		}
		running = instances[len(instances)-1]
		*now = now.Add(next.wait)
		if next.wait >= cfg.AbsoluteTimeout {
			clients = nil // they had to log in again, as ever
			clients = append(clients, login(running))
		}
	}
}

func TestSigningKeyIsReplacedInThreeDeploys(t *testing.T) {
	oldKey := echosession.SigningKey{ID: "old", Algorithm: "HS256", Key: []byte("an old secret of thirty-two bytes")}
	newKey := echosession.SigningKey{ID: "new", Algorithm: "EdDSA", Key: newEd25519(t)}
	const absolute = 30 * 24 * time.Hour
	now := time.Now()
	clock := func() time.Time { return now }
	cfg := echosession.Config{
		Store: echosession.NewMemoryStore(echosession.WithClock(clock)), Now: clock,
		MaxAge: 2 * absolute, AbsoluteTimeout: absolute,
	}
	keys := func(keys ...echosession.SigningKey) echosession.Config { return echosession.Config{Keys: keys} }
	rollOut(t, cfg, &now, []deploy{
		{"before", keys(oldKey), time.Hour},
		{"the new key verifies", keys(oldKey, newKey), time.Hour},
		{"the new key signs", keys(newKey, oldKey), absolute},
		{"the old key is gone", keys(newKey), time.Hour},
	})
}

func TestEncryptionKeyIsReplacedInThreeDeploys(t *testing.T) {
	oldKey, newKey := []byte("an old key, and thirty-two bytes"), []byte("the new key has 32 bytes as well")
	now := time.Now()
	clock := func() time.Time { return now }
	cfg := echosession.Config{
		Store: echosession.NewMemoryStore(echosession.WithClock(clock)), Now: clock,
		MaxAge: time.Hour, AbsoluteTimeout: 24 * time.Hour,
	}
	seal := func(keys ...[]byte) echosession.Config { return echosession.Config{EncryptionKeys: keys} }
	rollOut(t, cfg, &now, []deploy{
		{"before", seal(oldKey), time.Minute},
		{"the new key opens", seal(oldKey, newKey), time.Minute},
		{"the new key seals", seal(newKey, oldKey), time.Minute},
		// Every session was written again meanwhile, so nobody had to wait.
		{"the old key is gone", seal(newKey), time.Minute},
	})
}

func newEd25519(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestEncryptionIsTurnedOn(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		plain := newManager[User](t, cfg)
		cfg.EncryptionKeys = [][]byte{[]byte("thirty-two bytes to encrypt with")}
		strict := newManager[User](t, cfg)
		cfg.AllowPlaintext = true
		both := newManager[User](t, cfg)

		open := func(m *echosession.Manager[User], token string) *echosession.Session[User] {
			t.Helper()
			sess, err := m.Open(t.Context(), token)
			if err != nil {
				t.Fatal(err)
			}
			return sess
		}
		create := func() string {
			t.Helper()
			sess, err := plain.Create(t.Context(), User{Name: "Ada"})
			if err != nil {
				t.Fatal(err)
			}
			return sess.Token()
		}
		used, unused := create(), create()

		sess := open(both, used)
		if err := sess.Update(t.Context(), func(u *User) error { u.Count++; return nil }); err != nil {
			t.Fatal(err)
		}
		if u := open(strict, used).Data(); u.Name != "Ada" || u.Count != 1 {
			t.Errorf("a record that was sealed when it was written again holds %+v", u)
		}
		// Neither loses the record for the instances that can read it.
		if sess := open(plain, used); !errors.Is(sess.Reason(), echosession.ErrCorrupt) {
			t.Errorf("without the key a sealed record is read: %v", sess.Reason())
		}
		if sess := open(strict, unused); !errors.Is(sess.Reason(), echosession.ErrCorrupt) {
			t.Errorf("without AllowPlaintext a plain record is read: %v", sess.Reason())
		}
		for _, token := range []string{used, unused} {
			if u := open(both, token).Data(); u.Name != "Ada" {
				t.Errorf("with AllowPlaintext a record holds %+v", u)
			}
		}
	})
}

// unalike is the data of another instance than User, and reads like it.
type unalike struct {
	Name  string `json:"name"`
	Admin bool   `json:"admin"`
}

// Somebody who writes the store copies a record to where another instance with the same
// keys looks for it: a sealed record does not open there.
func TestASealedRecordBelongsToItsInstance(t *testing.T) {
	for _, same := range []bool{false, true} {
		store := echosession.NewMemoryStore()
		t.Cleanup(func() { store.Close() })
		cfg := echosession.Config{
			Store: store, Secret: testSecret, Keyspace: "users:", EncryptionKeys: [][]byte{[]byte("thirty-two bytes to encrypt with")},
		}
		users := newManager[User](t, cfg)
		if !same {
			cfg.Keyspace = "staff:"
		}
		staff := newManager[unalike](t, cfg)
		sess, err := users.Create(t.Context(), User{Name: "Ada"})
		if err != nil {
			t.Fatal(err)
		}
		got, err := staff.Open(t.Context(), sess.Token())
		if err != nil {
			t.Fatal(err)
		}
		if same != got.Exists() || !same && !errors.Is(got.Reason(), echosession.ErrCorrupt) {
			t.Errorf("the same keyspace: %t; opened: %t, %v", same, got.Exists(), got.Reason())
		}
		// It stays, for the instance that it belongs to.
		if mine, err := users.Open(t.Context(), sess.Token()); err != nil || !mine.Exists() {
			t.Errorf("%v, %v", mine.Reason(), err)
		}
	}
}

// A session whose end a token cannot hold is not created. It would have had no end.
func TestAnExpBeyond2262IsRefused(t *testing.T) {
	store := echosession.NewMemoryStore()
	t.Cleanup(func() { store.Close() })
	m := newManager[User](t, echosession.Config{Store: store, Secret: testSecret})
	for name, exp := range map[string]any{
		"time":    time.Date(2263, 1, 1, 0, 0, 0, 0, time.UTC),
		"seconds": int64(9223372037),
	} {
		sess, err := m.Create(t.Context(), User{}, echosession.WithClaims(echosession.Claims{"exp": exp}))
		if err == nil || sess != nil || !strings.Contains(err.Error(), "2262") {
			t.Errorf("%s: %v", name, err)
		}
	}
	token := hs256(`{"alg":"HS256","typ":"session+jwt"}`, `{"jti":"`+newID()+`","exp":9223372037}`, testSecret)
	if sess, err := m.Open(t.Context(), token); err != nil || !errors.Is(sess.Reason(), echosession.ErrInvalidToken) {
		t.Errorf("%v, %v", sess.Reason(), err)
	}
	exp := time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC)
	sess, err := m.Create(t.Context(), User{}, echosession.WithClaims(echosession.Claims{"exp": exp}))
	if err != nil {
		t.Fatal(err)
	}
	if got := sess.ExpiresAt(); !got.Equal(exp) {
		t.Errorf("a session of 2262 ends %v", got)
	}
}

// payloadOf returns the members of a token's payload as they are written.
func payloadOf(t *testing.T, token string) map[string]string {
	t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(payload, &members); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for name, value := range members {
		out[name] = string(value)
	}
	return out
}

// Rotation hands on the caller's claims, and takes subject and end from the record.
func TestARotatedTokenSaysWhatItsPredecessorSaid(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		cfg.Issuer, cfg.Audience = "https://issuer.example", []string{"a", "b"}
		m := newManager[User](t, cfg)
		given := echosession.Claims{"role": "admin", "list": []int{1, 2}, "big": json.Number("9007199254740993"), "sub": "ada", "exp": time.Now().Add(time.Hour).Truncate(time.Second)}
		sess, err := m.Create(t.Context(), User{}, echosession.WithClaims(given), echosession.WithMaxAge(90*time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		before := payloadOf(t, sess.Token())
		after := before
		for range 2 {
			token, err := sess.Rotate(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			after = payloadOf(t, token)
		}
		if before["jti"] == after["jti"] {
			t.Error("the ID is the old one")
		}
		for _, payload := range []map[string]string{before, after} {
			delete(payload, "jti")
			delete(payload, "iat")
		}
		want := []string{"aud", "big", "exp", "idle", "iss", "list", "role", "sub"}
		if names := slices.Sorted(maps.Keys(after)); !slices.Equal(names, want) || !reflect.DeepEqual(before, after) {
			t.Errorf("claims %v\nwere   %v", after, before)
		}
	})
}
