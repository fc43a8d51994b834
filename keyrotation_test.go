package echosession_test

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
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
