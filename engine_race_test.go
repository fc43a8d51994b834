package echosession_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

// raceRounds is how often a race is run: ECHOSESSION_LONG=1 makes it 1,000 times.
func raceRounds() int {
	switch {
	case os.Getenv("ECHOSESSION_LONG") == "1":
		return 1000
	case testing.Short():
		return 50
	default:
		return 300
	}
}

func TestNoUpdateIsLost(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		for _, indexed := range []bool{false, true} {
			t.Run(fmt.Sprint("indexed ", indexed), func(t *testing.T) {
				cfg.SubjectIndex = indexed
				m := newManager[User](t, cfg)
				sess, err := m.Create(t.Context(), User{}, echosession.WithSubject("ada"))
				if err != nil {
					t.Fatal(err)
				}
				const writers, updates = 16, 50
				var wg sync.WaitGroup
				for range writers {
					wg.Go(func() {
						sess, err := m.Open(t.Context(), sess.Token())
						if err != nil {
							t.Error(err)
							return
						}
						for range updates {
							if err := sess.Update(t.Context(), func(u *User) error { u.Count++; return nil }); err != nil {
								t.Error(err)
							}
						}
					})
				}
				wg.Wait()
				if err := sess.Reload(t.Context()); err != nil || sess.Data().Count != writers*updates {
					t.Errorf("the counter is %d, not %d; %v", sess.Data().Count, writers*updates, err)
				}
			})
		}
	})
}

// TestOneHandleForMany shares a handle instead of opening one for each goroutine.
func TestOneHandleForMany(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		m := newManager[Basket](t, cfg)
		sess, err := m.Create(t.Context(), newBasket())
		if err != nil {
			t.Fatal(err)
		}
		const goroutines = 8
		var wg sync.WaitGroup
		for range goroutines {
			wg.Go(func() {
				for range 10 {
					sess.Data().spoil()
					if err := sess.Update(t.Context(), func(b *Basket) error { b.Owner.Count++; return nil }); err != nil {
						t.Error(err)
					}
					_, _ = sess.MarshalJSON()
					_, _, _ = sess.ID(), sess.ExpiresAt(), sess.Claims()
					if err := errors.Join(sess.Touch(t.Context()), sess.Reload(t.Context())); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if data := sess.Data(); data.spoilt() || data.Owner.Count != 10*goroutines {
			t.Errorf("%+v, %+v", data, data.Owner)
		}
	})
}

func TestASharedHandleKeepsTheNewSession(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		m := newManager[User](t, cfg)
		sess, err := m.Create(t.Context(), User{Name: "before"})
		if err != nil {
			t.Fatal(err)
		}
		var token string
		err = sess.Update(t.Context(), func(u *User) (err error) {
			// What another goroutine may do meanwhile.
			u.Count++
			if u.Count == 1 && token == "" {
				token, err = sess.Rotate(t.Context())
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if sess.Token() != token {
			t.Error("the handle is back at the token that was rotated away")
		}
		if err := sess.Reload(t.Context()); err != nil || sess.Data().Count != 1 {
			t.Error(sess.Data(), err)
		}
		err = sess.Update(t.Context(), func(u *User) error {
			_, err := sess.Create(t.Context(), User{Name: "after"})
			return err
		})
		if !errors.Is(err, echosession.ErrSessionGone) {
			t.Errorf("Update of the session before: %v", err)
		}
		if !sess.Exists() || sess.Data().Name != "after" {
			t.Errorf("the handle lost the new session: %v, %v", sess.Data(), sess.Reason())
		}
	})
}

// race runs functions at the same time, in random order.
func race(fns ...func()) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for _, fn := range fns {
		wg.Go(func() { <-start; fn() })
	}
	close(start)
	wg.Wait()
}

func open(t testing.TB, m *echosession.Manager[User], token string) *echosession.Session[User] {
	sess, err := m.Open(context.Background(), token)
	if err != nil {
		t.Error(err)
	}
	return sess
}

func TestNothingBringsADestroyedSessionBack(t *testing.T) {
	for name, act := range sessionCalls {
		t.Run(name, func(t *testing.T) {
			eachStore(t, func(t *testing.T, cfg echosession.Config) {
				m := newManager[User](t, cfg)
				ctx := t.Context()
				won := 0
				for range raceRounds() {
					token := newToken(t, m, "Ada")
					actor, destroyer := open(t, m, token), open(t, m, token)
					id := actor.ID()
					var err, destroyed error
					race(
						func() { err = act(ctx, actor) },
						func() { destroyed = destroyer.Destroy(ctx) },
					)
					if name == "Renew" && err == nil && errors.Is(destroyed, echosession.ErrRenewed) {
						// Who knows the session from before the login cannot end the one after it.
						won++
						if !stored(t, cfg, actor.ID()) {
							t.Fatal("the renewed session was destroyed")
						}
						continue
					}
					if destroyed != nil {
						t.Error(destroyed)
					}
					if err == nil {
						won++
					} else if !errors.Is(err, echosession.ErrSessionGone) {
						t.Fatalf("the loser gets %v", err)
					}
					for _, id := range []string{id, actor.ID()} {
						if id != "" && stored(t, cfg, id) {
							t.Fatal("the session is back")
						}
					}
					// And once more, when nobody is in the way.
					if err := act(ctx, actor); !errors.Is(err, echosession.ErrSessionGone) {
						t.Fatalf("afterwards: %v", err)
					}
				}
				t.Logf("%s came first in %d of %d rounds", name, won, raceRounds())
			})
		})
	}
}

func TestRotateAgainstRotate(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		for _, indexed := range []bool{false, true} {
			cfg.SubjectIndex = indexed
			m := newManager[User](t, cfg)
			for i := range raceRounds() {
				subject := fmt.Sprint("subject ", i)
				sess, err := m.Create(t.Context(), User{}, echosession.WithSubject(subject))
				if err != nil {
					t.Fatal(err)
				}
				var tokens [2]string
				var errs [2]error
				one, two := open(t, m, sess.Token()), open(t, m, sess.Token())
				race(
					func() { tokens[0], errs[0] = one.Rotate(t.Context()) },
					func() { tokens[1], errs[1] = two.Rotate(t.Context()) },
				)
				winners := 0
				for i, err := range errs {
					switch {
					case err == nil:
						winners++
						if !open(t, m, tokens[i]).Exists() {
							t.Fatal("the successor is not there")
						}
					case !errors.Is(err, echosession.ErrSessionGone):
						t.Fatal(err)
					}
				}
				if winners != 1 {
					t.Fatalf("%d rotations succeeded: %v", winners, errs)
				}
				if indexed {
					if list, err := m.List(t.Context(), subject); err != nil || len(list) != 1 {
						t.Fatalf("%d sessions, %v", len(list), err)
					}
				}
			}
		}
	})
}

func TestRotateAgainstDestroy(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		for _, indexed := range []bool{false, true} {
			cfg.SubjectIndex = indexed
			m := newManager[User](t, cfg)
			for range raceRounds() {
				sess, err := m.Create(t.Context(), User{}, echosession.WithSubject("ada"))
				if err != nil {
					t.Fatal(err)
				}
				rotating, destroying := open(t, m, sess.Token()), open(t, m, sess.Token())
				var token string
				race(
					func() {
						var err error
						if token, err = rotating.Rotate(t.Context()); err != nil && !errors.Is(err, echosession.ErrSessionGone) {
							t.Error(err)
						}
					},
					func() {
						if err := destroying.Destroy(t.Context()); err != nil {
							t.Error(err)
						}
					},
				)
				for _, token := range []string{sess.Token(), token} {
					if token != "" && open(t, m, token).Exists() {
						t.Fatal("a session is left")
					}
				}
			}
			for range m.All(t.Context()) {
				t.Fatal("a record is left")
			}
		}
	})
}

func TestRevokeAgainstCreate(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		cfg.SubjectIndex = true
		m := newManager[User](t, cfg)
		for i := range raceRounds() {
			subject := echosession.WithSubject(fmt.Sprint("subject ", i))
			old, err := m.Create(t.Context(), User{}, subject)
			if err != nil {
				t.Fatal(err)
			}
			var created *echosession.Session[User]
			var revoked int
			race(
				func() {
					var err error
					if created, err = m.Create(t.Context(), User{}, subject); err != nil {
						t.Error(err)
					}
				},
				func() {
					var err error
					if revoked, err = m.RevokeSubject(t.Context(), old.Subject()); err != nil {
						t.Error(err)
					}
				},
			)
			if created == nil {
				t.FailNow()
			}
			if open(t, m, old.Token()).Exists() {
				t.Fatal("a session survived its revocation")
			}
			// What was created before it is gone, what was created after it lives:
			// in the index and under its key alike.
			lives := open(t, m, created.Token()).Exists()
			list, err := m.List(t.Context(), old.Subject())
			if err != nil || lives != (len(list) == 1) || lives != (revoked == 1) {
				t.Fatalf("lives %v, %d listed, %d revoked, %v", lives, len(list), revoked, err)
			}
		}
	})
}

func TestTheCapHoldsForLoginsAtTheSameTime(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		cfg.SubjectIndex, cfg.MaxSessions = true, 3
		m := newManager[User](t, cfg)
		for i := range max(1, raceRounds()/50) {
			subject := fmt.Sprint("subject ", i)
			const logins = 50
			var mu sync.Mutex
			var tokens []string
			login := func() {
				sess, err := m.Create(t.Context(), User{}, echosession.WithSubject(subject))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				tokens = append(tokens, sess.Token())
			}
			fns := make([]func(), logins)
			for i := range fns {
				fns[i] = login
			}
			race(fns...)
			alive := 0
			for _, token := range tokens {
				if open(t, m, token).Exists() {
					alive++
				}
			}
			list, err := m.List(t.Context(), subject)
			if err != nil || len(tokens) != logins || alive != 3 || len(list) != 3 {
				t.Fatalf("%d logins, %d alive, %d listed, %v", len(tokens), alive, len(list), err)
			}
		}
	})
}

// gate is a store that tells of a Replace, and waits, before it runs.
type gate struct {
	echosession.Store
	begun, goOn chan struct{}
}

func (g gate) Replace(ctx context.Context, ref echosession.Ref, old, record []byte, ttl time.Duration) error {
	close(g.begun)
	<-g.goOn
	return g.Store.Replace(ctx, ref, old, record, ttl)
}

func TestAHangUpDoesNotUndoAnUpdate(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		plain := newManager[User](t, cfg)
		g := gate{storeOf(t, cfg), make(chan struct{}), make(chan struct{})}
		cfg.Client, cfg.Store = nil, g
		m := newManager[User](t, cfg)
		s := newServer(t, m.Middleware())
		result := make(chan error, 1)
		route(s, m, "/", func(c echo.Context, sess *echosession.Session[User]) error {
			ctx := c.Request().Context()
			err := sess.Update(ctx, func(u *User) error { u.Count++; return nil })
			if ctx.Err() == nil {
				t.Error("the client is still there")
			}
			result <- err
			return err
		})
		token := newToken(t, plain, "Ada")
		ctx, hangUp := context.WithCancel(t.Context())
		r := s.request(t, "POST", "/", "", "Authorization", "Bearer "+token).WithContext(ctx)
		go func() {
			<-g.begun
			hangUp()
		}()
		if _, err := http.DefaultClient.Do(r); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		// The server learns of it when it reads from the connection.
		time.AfterFunc(50*time.Millisecond, func() { close(g.goOn) })
		if err := <-result; err != nil {
			t.Errorf("Update: %v", err)
		}
		if sess := open(t, plain, token); sess.Data().Count != 1 {
			t.Errorf("the counter is %d", sess.Data().Count)
		}
	})
}

func TestACanceledContextDoesNotStopAWrite(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		m := newManager[User](t, cfg)
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		sess, err := m.Create(canceled, User{})
		if err != nil {
			t.Fatal(err)
		}
		if err := sess.Update(canceled, func(u *User) error { u.Count++; return nil }); err != nil {
			t.Error("Update:", err)
		}
		if err := sess.Touch(canceled); err != nil {
			t.Error("Touch:", err)
		}
		if _, err := sess.Rotate(canceled); err != nil {
			t.Error("Rotate:", err)
		}
		for _, subject := range []string{"ada", "ada", "bob"} {
			if _, err := sess.Renew(canceled, count, echosession.WithSubject(subject)); err != nil {
				t.Error("Renew:", err)
			}
		}
		if err := open(t, m, "").UpdateOrCreate(canceled, count); err != nil {
			t.Error("UpdateOrCreate:", err)
		}
		token := sess.Token()
		if err := sess.Destroy(canceled); err != nil {
			t.Error("Destroy:", err)
		}
		if open(t, m, token).Exists() {
			t.Error("it is still there")
		}
	})
}

// interferingStore loses the reply to the first Create, after which something
// happens.
type interferingStore struct {
	echosession.Store
	then  func(echosession.Ref)
	first string
}

func (s *interferingStore) Create(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
	evicted, err := s.Store.Create(ctx, ref, record, ttl, limit)
	if s.first == "" && err == nil {
		s.first = ref.ID
		s.then(ref)
		return nil, echosession.ErrIndeterminate
	}
	return evicted, err
}

func TestCreateWithALostReply(t *testing.T) {
	for _, tt := range []struct {
		rule    string
		revoked bool
	}{
		{"what was stored is the session", false},
		{"what was revoked meanwhile does not come back", true},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			memory := echosession.NewMemoryStore()
			store := &interferingStore{Store: memory, then: func(ref echosession.Ref) {
				if !tt.revoked {
					return
				}
				if n, err := memory.DeleteSubject(t.Context(), ref.Subject, nil); n != 1 || err != nil {
					t.Errorf("revoked %d sessions: %v", n, err)
				}
			}}
			m := newManager[User](t, echosession.Config{Store: store, Secret: testSecret, SubjectIndex: true})
			s, err := m.Create(t.Context(), User{Name: "Alice"}, echosession.WithSubject("alice"))
			if err != nil {
				t.Fatal(err)
			}
			if (s.ID() == store.first) == tt.revoked {
				t.Errorf("the session has the ID %s, the first attempt had %s", s.ID(), store.first)
			}
			list, err := m.List(t.Context(), "alice")
			if err != nil || len(list) != 1 || list[0].ID() != s.ID() || list[0].Data().Name != "Alice" {
				t.Errorf("%d sessions are listed: %v", len(list), err)
			}
		})
	}
}
