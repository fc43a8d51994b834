package echosession_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// checkDown checks what clients see while the store does not answer.
func checkDown(t *testing.T, m *echosession.Manager[User], token string) {
	t.Helper()
	s := newServer(t, m.Middleware())
	s.Debug = true
	s.GET("/required", func(c echo.Context) error { t.Error("let in"); return nil }, m.Require())
	route(s, m, "/", func(c echo.Context, sess *echosession.Session[User]) error {
		return c.String(http.StatusOK, outcome(sess))
	})
	route(s, m, "/login", func(c echo.Context, sess *echosession.Session[User]) error {
		_, err := sess.Create(c.Request().Context(), User{})
		return err
	})
	for _, a := range []answer{s.get(t, "/required", token), s.get(t, "/", token), s.post(t, "/login", "")} {
		if a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") != "1" ||
			a.Header.Get("WWW-Authenticate") != "" || a.message(t) != "the service is temporarily unavailable" {
			t.Errorf("%d %s %v", a.StatusCode, a.body, a.Header)
		}
		for _, word := range []string{"127.0.0.1", "dial", "EOF", "timeout", "LOADING", "backend", "sess:", "closed", token} {
			if strings.Contains(a.body, word) {
				t.Errorf("the answer holds %q: %s", word, a.body)
			}
		}
	}
	if a := s.get(t, "/", ""); a.StatusCode != http.StatusOK || a.body != "none" {
		t.Errorf("a request without a token: %d %s", a.StatusCode, a.body)
	}
	if a := s.get(t, "/required", "bad"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("a request with a bad token: %d %s", a.StatusCode, a.body)
	}
}

func TestRedisIsDown(t *testing.T) {
	t.Parallel()
	live := mistaken(func(*echosession.Config) {})
	token := newToken(t, newManager[User](t, live), "Ada")

	for name, failure := range map[string]error{
		"loading":         fakeReply("LOADING backend is loading the dataset"),
		"full":            fakeReply("OOM backend: command not allowed when used memory > 'maxmemory'"),
		"failing over":    fakeReply("READONLY backend: You can't write against a read only replica."),
		"no permission":   fakeReply("NOPERM backend: this user has no permissions"),
		"wrong type":      fakeReply("WRONGTYPE backend: Operation against a key"),
		"connection lost": fmt.Errorf("read tcp 127.0.0.1:1->127.0.0.1:2: %w", io.EOF),
		"pool is empty":   redis.ErrPoolTimeout,
		"client closed":   redis.ErrClosed,
		"slow":            context.DeadlineExceeded,
	} {
		t.Run(name, func(t *testing.T) {
			fake := newFakeRedis(t)
			fake.onCommand(func([]string) error { return failure }, nil)
			checkDown(t, newManager[User](t, echosession.Config{Client: fake, Secret: testSecret}), token)
		})
	}
	t.Run("nil reply to a script", func(t *testing.T) {
		fake := newFakeRedis(t)
		m := newManager[User](t, echosession.Config{Client: fake, Secret: testSecret, SubjectIndex: true, TouchInterval: echosession.TouchAlways})
		sess, err := m.Create(t.Context(), User{}, echosession.WithSubject("ada"))
		if err != nil {
			t.Fatal(err)
		}
		asked := 0
		fake.onCommand(func(cmd []string) error {
			if strings.HasPrefix(cmd[0], "eval") {
				asked++
				return redis.Nil
			}
			return nil
		}, nil)
		if _, err := m.Open(t.Context(), sess.Token()); !errors.Is(err, echosession.ErrStoreUnavailable) || asked == 0 {
			t.Error(asked, err)
		}
	})
	t.Run("connection refused", func(t *testing.T) {
		t.Parallel()
		// A dialer, because another process may take a port that was just closed.
		client := redis.NewClient(&redis.Options{
			ContextTimeoutEnabled: true,
			Dialer: func(_ context.Context, network, _ string) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
			},
		})
		t.Cleanup(func() { client.Close() })
		m := newManager[User](t, echosession.Config{Client: client, Secret: testSecret, StoreTimeout: 200 * time.Millisecond})
		checkDown(t, m, token)
	})
	t.Run("memory store closed", func(t *testing.T) {
		store := echosession.NewMemoryStore()
		store.Close()
		checkDown(t, newManager[User](t, echosession.Config{Store: store, Secret: testSecret}), token)
	})
	t.Run("server killed", testServerKilled)
}

func testServerKilled(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client(t)
	m := newManager[User](t, echosession.Config{Client: client, Secret: testSecret, StoreTimeout: 300 * time.Millisecond})
	sess, err := m.Create(t.Context(), User{Name: "Ada"})
	if err != nil {
		t.Fatal(err)
	}
	server.Kill()
	checkDown(t, m, sess.Token())
	if err := sess.Update(t.Context(), func(*User) error { return nil }); !errors.Is(err, echosession.ErrStoreUnavailable) {
		t.Error(err)
	}
	if !sess.Exists() {
		t.Error("an outage took the session away")
	}
	server.Restart(t)
	// It has lost its data, and the client finds it again.
	for deadline := time.Now().Add(10 * time.Second); ; {
		again, err := m.Open(t.Context(), sess.Token())
		if err == nil {
			if !errors.Is(again.Reason(), echosession.ErrSessionGone) {
				t.Error(again.Reason())
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestARedisThatHangs(t *testing.T) {
	for name, opt := range map[string]func(*redis.Options){
		"the client obeys deadlines": func(o *redis.Options) { o.ContextTimeoutEnabled = true },
		"the client ignores deadlines": func(o *redis.Options) {
			o.ContextTimeoutEnabled = false
			o.ReadTimeout, o.MaxRetries = 3*time.Second, -1 // how long a goroutine is left behind
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			client := server.Client(t, opt)
			const timeout = 100 * time.Millisecond
			m := newManager[User](t, echosession.Config{Client: client, Secret: testSecret, StoreTimeout: timeout})
			sess, err := m.Create(t.Context(), User{Name: "Ada"})
			if err != nil {
				t.Fatal(err)
			}
			before := runtime.NumGoroutine()
			server.Pause(t)
			for method, call := range apiCalls(t.Context(), m, sess) {
				start := time.Now()
				err := call()
				if took := time.Since(start); took > timeout+1500*time.Millisecond {
					t.Errorf("%s returns after %v", method, took)
				}
				if !errors.Is(err, echosession.ErrStoreUnavailable) || !sess.Exists() {
					t.Errorf("%s: %v", method, err)
				}
			}
			server.Resume(t)
			goroutinesEnd(t, before)
			// A write whose outcome was unknown may have been applied.
			again, err := m.Open(t.Context(), sess.Token())
			if err != nil || !again.Exists() && !errors.Is(again.Reason(), echosession.ErrSessionGone) {
				t.Error(again.Reason(), err)
			}
		})
	}
}

func TestALostReplyIsNoSecondUpdate(t *testing.T) {
	fake := newFakeRedis(t)
	m := newManager[User](t, echosession.Config{Client: fake, Secret: testSecret})
	sess, err := m.Create(t.Context(), User{})
	if err != nil {
		t.Fatal(err)
	}
	update := func() error {
		return sess.Update(t.Context(), func(u *User) error { u.Count++; return nil })
	}
	var lost atomic.Int64
	lose := func(times int64) {
		lost.Store(0)
		fake.onCommand(nil, func(cmd []string) error {
			if strings.HasPrefix(cmd[0], "eval") && lost.Add(1) <= times {
				return io.ErrUnexpectedEOF
			}
			return nil
		})
	}
	lose(1)
	if err := update(); err != nil || sess.Data().Count != 1 {
		t.Errorf("one lost reply: %d, %v", sess.Data().Count, err)
	}
	lose(100)
	if err := update(); !errors.Is(err, echosession.ErrIndeterminate) {
		t.Errorf("all replies lost: %v", err)
	}
	lose(0)
	if err := sess.Reload(t.Context()); err != nil || sess.Data().Count > 2 {
		t.Errorf("it was applied %d times, %v", sess.Data().Count, err)
	}
}

// A store does not create a session again when the reply was lost: it could bring
// back one that was deleted meanwhile.
func TestStoreCreatesOnce(t *testing.T) {
	server := redistest.Shared(t)
	for _, tt := range []struct{ name, subject string }{{"plain", ""}, {"indexed", "alice"}} {
		t.Run(tt.name, func(t *testing.T) {
			proxy := redistest.NewProxy(t, server.Addr())
			client := server.Client(t, func(o *redis.Options) { o.Dialer = redistest.Through(proxy) })
			store := newRedisStore(t, client, newKeyspace())
			ref := echosession.Ref{ID: newID(), Subject: tt.subject}
			writes := redistest.Named("SET", "EVALSHA", "EVAL")
			// The script may have to be sent first.
			if _, err := store.Create(t.Context(), echosession.Ref{ID: newID(), Subject: tt.subject}, []byte("other"), time.Minute, echosession.Limit{}); err != nil {
				t.Fatal(err)
			}
			proxy.Reset()
			proxy.On(writes, 1, redistest.DropReply())
			if _, err := store.Create(t.Context(), ref, []byte("record"), time.Minute, echosession.Limit{}); !errors.Is(err, echosession.ErrIndeterminate) {
				t.Errorf("got %v, want ErrIndeterminate", err)
			}
			if n := proxy.Count("SET", "EVALSHA", "EVAL"); n != 1 {
				t.Errorf("%d attempts, want 1", n)
			}
		})
	}
}

// The log names why Redis cannot be reached, although go-redis says in the end only
// that time is up.
func TestTheCauseOfAnOutageIsNamed(t *testing.T) {
	server := redistest.Shared(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	admin := server.Client(t)
	user := "limited-" + rand.Text()
	if err := admin.Do(t.Context(), "acl", "setuser", user, "on", ">"+aclPassword, "~*", "-@all").Err(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { admin.Do(context.Background(), "acl", "deluser", user) })
	for _, tt := range []struct {
		cause   string
		options redis.Options
	}{
		{"connection refused", redis.Options{Addr: "127.0.0.1:1"}},
		{"unknown host", redis.Options{Dialer: func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "redis.invalid", IsNotFound: true}}
		}}},
		{"timeout", redis.Options{Addr: silent.Addr().String()}},
		{"no permission: NOPERM", redis.Options{Addr: server.Addr(), Username: user, Password: aclPassword}},
		{"not authenticated: WRONGPASS", redis.Options{Addr: server.Addr(), Username: user, Password: "another"}},
	} {
		for _, deadlines := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, ContextTimeoutEnabled %v", tt.cause, deadlines), func(t *testing.T) {
				t.Parallel()
				options, log := tt.options, new(logBuffer)
				options.ContextTimeoutEnabled = deadlines
				client := redis.NewClient(&options)
				defer client.Close()
				m := newManager[User](t, echosession.Config{Client: client, Secret: testSecret, Logger: log.logger()})
				good := newManager[User](t, echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret})
				if _, err := m.Open(t.Context(), newToken(t, good, "Ada")); !errors.Is(err, echosession.ErrStoreUnavailable) {
					t.Error(err)
				}
				if _, err := m.Create(t.Context(), User{}); !errors.Is(err, echosession.ErrStoreUnavailable) {
					t.Error(err)
				}
				said := log.String()
				if n := strings.Count(said, tt.cause); n != 2 || strings.Count(said, "\n") != 2 {
					t.Errorf("%q is named %d times in\n%s", tt.cause, n, said)
				}
				if strings.Contains(said, "127.0.0.1") || strings.Contains(said, "redis.invalid") || strings.Contains(said, user) {
					t.Errorf("the log says %s", said)
				}
			})
		}
	}
}
