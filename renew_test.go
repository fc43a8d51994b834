package echosession_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

// guest makes a session in which nobody has logged in, and returns its token.
func guest(t testing.TB, m *echosession.Manager[User], u User, opts ...echosession.CreateOption) string {
	t.Helper()
	sess := open(t, m, "")
	err := sess.UpdateOrCreate(t.Context(), func(data *User) error { *data = u; return nil }, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return sess.Token()
}

func keep(*User) error { return nil }

func count(u *User) error { u.Count++; return nil }

// logins are the changes of subject that a Renew can make while the data stays.
var logins = []struct {
	name       string
	begin, end []echosession.CreateOption
}{
	{"a guest becomes a user", nil, []echosession.CreateOption{echosession.WithSubject("ada")}},
	{"a user proves it again", []echosession.CreateOption{echosession.WithSubject("ada")}, nil},
	{"a program without subjects", nil, nil},
}

// Every update that returned nil is in the session after the login, however the two
// meet: under memory, the fake and Redis, with and without an index.
func TestRenewLosesNoUpdate(t *testing.T) {
	for _, login := range logins {
		for _, indexed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, indexed %v", login.name, indexed), func(t *testing.T) {
				eachStore(t, func(t *testing.T, cfg echosession.Config) {
					cfg.SubjectIndex = indexed
					m := newManager[User](t, cfg)
					for range max(10, raceRounds()/10) {
						raceUpdatesWithARenew(t, m, login.begin, login.end)
					}
				})
			})
		}
	}
}

func raceUpdatesWithARenew(t *testing.T, m *echosession.Manager[User], begin, end []echosession.CreateOption) {
	t.Helper()
	ctx := t.Context()
	token := guest(t, m, User{Name: "Ada"}, begin...)
	var saved atomic.Int64
	write := func() {
		sess := open(t, m, token)
		for sess.Exists() {
			switch err := sess.Update(ctx, count); {
			case err == nil:
				saved.Add(1)
				// As a client does that waits for the answer: writers that never pause can
				// come first at all 256 attempts of a Renew, and that is then ErrConflict.
				time.Sleep(200 * time.Microsecond)
			case !errors.Is(err, echosession.ErrRenewed):
				t.Errorf("an update that comes late gets %v", err)
				return
			}
		}
	}
	renewed := open(t, m, token)
	race(write, write, write, func() {
		for saved.Load() < 3 {
			time.Sleep(50 * time.Microsecond)
		}
		if _, err := renewed.Renew(ctx, keep, end...); err != nil {
			t.Error(err)
			_ = renewed.Destroy(ctx) // or the writers would go on
		}
	})
	sess := open(t, m, renewed.Token())
	if got, want := sess.Data(), (User{Name: "Ada", Count: int(saved.Load())}); got.Name != want.Name || got.Count != want.Count {
		t.Fatalf("%+v after %d updates that were saved; %v", got, want.Count, sess.Reason())
	}
}

// The token from before gains nothing, for not one command, and takes nothing away.
func TestTheTokenFromBeforeALoginIsWorthNothing(t *testing.T) {
	for _, indexed := range []bool{false, true} {
		for name, end := range map[string][]echosession.CreateOption{
			"same subject": nil, "another subject": {echosession.WithSubject("bob")},
		} {
			t.Run(fmt.Sprintf("%s, indexed %v", name, indexed), func(t *testing.T) {
				eachStore(t, func(t *testing.T, cfg echosession.Config) {
					cfg.SubjectIndex, cfg.TouchInterval, cfg.RotateGrace = indexed, echosession.TouchAlways, time.Hour
					m := newManager[User](t, cfg)
					ctx := t.Context()
					first, err := m.Create(ctx, User{}, echosession.WithSubject("ada"))
					if err != nil {
						t.Fatal(err)
					}
					planted := []string{first.Token()}
					rotated := open(t, m, first.Token())
					if _, err := rotated.Rotate(ctx); err != nil {
						t.Fatal(err)
					}
					planted = append(planted, rotated.Token())
					opened := map[string]*echosession.Session[User]{}
					for _, token := range planted {
						for name := range calls() {
							opened[name+token] = open(t, m, token)
						}
					}
					login := open(t, m, rotated.Token())
					if _, err := login.Renew(ctx, func(u *User) error { u.Name = "after"; return nil }, end...); err != nil {
						t.Fatal(err)
					}
					for _, token := range planted {
						if sess := open(t, m, token); sess.Exists() || !errors.Is(sess.Reason(), echosession.ErrRenewed) {
							t.Errorf("the token of before opens %+v: %v", sess.Data(), sess.Reason())
						}
						for name, call := range calls() {
							want := echosession.ErrRenewed
							if name == "Rotate" && token == first.Token() {
								want = echosession.ErrSessionGone // it was rotated already, whatever came then
							}
							if err := call(ctx, opened[name+token]); !errors.Is(err, want) {
								t.Errorf("%s through a handle of before: %v", name, err)
							}
						}
					}
					if indexed {
						for _, id := range []string{first.ID(), rotated.ID()} {
							if found, err := m.Revoke(ctx, "ada", id); found || err != nil {
								t.Errorf("Revoke of an ID of before: %v, %v", found, err)
							}
						}
						if _, err := m.RevokeSubject(ctx, "nobody", login.ID()); err != nil {
							t.Error(err)
						}
					}
					if sess := open(t, m, login.Token()); sess.Data().Name != "after" {
						t.Errorf("the session after the login is gone: %v", sess.Reason())
					}
				})
			})
		}
	}
}

// calls are all methods that meet the store for one session, and Destroy.
func calls() map[string]func(context.Context, *echosession.Session[User]) error {
	all := maps.Clone(sessionCalls)
	all["Destroy"] = func(ctx context.Context, sess *echosession.Session[User]) error { return sess.Destroy(ctx) }
	return all
}

// What says ErrRenewed is gone after a minute, whatever the grace of rotations, and
// what the old token does meanwhile does not prolong it.
func TestTheMarkOfARenewLastsAMinute(t *testing.T) {
	for _, indexed := range []bool{false, true} {
		eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
			cfg.SubjectIndex, cfg.TouchInterval, cfg.RotateGrace = indexed, echosession.TouchAlways, time.Hour
			m := newManager[User](t, cfg)
			sess, err := m.Create(t.Context(), User{}, echosession.WithSubject("ada"))
			if err != nil {
				t.Fatal(err)
			}
			old, login := sess.Token(), open(t, m, sess.Token())
			if _, err := login.Renew(t.Context(), keep); err != nil {
				t.Fatal(err)
			}
			for _, step := range []struct {
				advance time.Duration
				want    error
			}{{0, echosession.ErrRenewed}, {59 * time.Second, echosession.ErrRenewed}, {time.Second, echosession.ErrSessionGone}} {
				clock.Advance(step.advance)
				for name, call := range calls() {
					s := open(t, m, old)
					if !errors.Is(s.Reason(), step.want) {
						t.Errorf("after %v: %v", step.advance, s.Reason())
					}
					if err := call(t.Context(), s); name != "Destroy" && !errors.Is(err, step.want) {
						t.Errorf("after %v: %s: %v", step.advance, name, err)
					}
				}
			}
			if !open(t, m, login.Token()).Exists() {
				t.Error("the session after the login is gone")
			}
		})
	}
}

// What a Renew hands on, and what it does not.
func TestWhatARenewHandsOn(t *testing.T) {
	hour := echosession.WithClaims(echosession.Claims{"plan": "pro", "exp": time.Date(2030, 1, 1, 14, 0, 0, 0, time.UTC), "nbf": 1})
	rich := []echosession.CreateOption{
		echosession.WithSubject("ada"), echosession.WithDevice("phone"), echosession.WithActor("support"),
		echosession.WithClaims(echosession.Claims{"plan": "pro", "nbf": 1}), echosession.Remember(48 * time.Hour),
	}
	type state struct {
		Name, Subject, Device, Actor, Plan string
		Created, Authenticated             time.Duration // after the first Create
		Left                               time.Duration
		NotBefore                          bool
	}
	const later = 10 * time.Minute
	for name, tt := range map[string]struct {
		guest      bool
		begin, end []echosession.CreateOption
		want       state
	}{
		"a user proves it again": {
			begin: rich,
			want:  state{"Ada", "ada", "phone", "support", "pro", 0, later, 48 * time.Hour, false},
		},
		"the options say otherwise": {
			begin: rich,
			end: []echosession.CreateOption{
				echosession.Remember(0), echosession.WithActor(""), echosession.WithDevice("tablet"), echosession.WithClaims(nil),
			},
			want: state{"Ada", "ada", "tablet", "", "", 0, later, 24 * time.Hour, false},
		},
		"another subject": {
			begin: rich, end: []echosession.CreateOption{echosession.WithSubject("bob")},
			want: state{"", "bob", "phone", "", "", later, later, 24 * time.Hour, false},
		},
		"another subject, as a claim": {
			begin: rich, end: []echosession.CreateOption{echosession.WithClaims(echosession.Claims{"sub": "bob"})},
			want: state{"", "bob", "phone", "", "", later, later, 24 * time.Hour, false},
		},
		"an end that claims have set is not handed on": {
			begin: []echosession.CreateOption{echosession.WithSubject("ada"), hour},
			want:  state{"Ada", "ada", "", "", "pro", 0, later, 24 * time.Hour, false},
		},
		"a guest": {
			guest: true,
			begin: []echosession.CreateOption{
				echosession.WithDevice("phone"), echosession.WithActor("support"),
				echosession.WithClaims(echosession.Claims{"plan": "pro"}), echosession.Remember(48 * time.Hour),
			},
			end:  []echosession.CreateOption{echosession.WithSubject("ada")},
			want: state{"Ada", "ada", "phone", "", "", 0, later, 24 * time.Hour, false},
		},
		"a guest with a subject": {
			guest: true,
			begin: rich,
			want:  state{"Ada", "ada", "phone", "", "", 0, later, 24 * time.Hour, false},
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
				cfg.AbsoluteTimeout = 1000 * time.Hour // a session without an idle timeout lives until then
				m := newManager[User](t, cfg)
				start := clock.Now()
				var token string
				if tt.guest {
					token = guest(t, m, User{Name: "Ada"}, tt.begin...)
				} else {
					sess, err := m.Create(t.Context(), User{Name: "Ada"}, tt.begin...)
					if err != nil {
						t.Fatal(err)
					}
					token = sess.Token()
				}
				clock.Advance(later)
				login := open(t, m, token)
				handed := User{}
				if _, err := login.Renew(t.Context(), func(u *User) error { handed = *u; return nil }, tt.end...); err != nil {
					t.Fatal(err)
				}
				for _, sess := range []*echosession.Session[User]{login, open(t, m, login.Token())} {
					claims := sess.Claims()
					plan, _ := claims["plan"].(string)
					_, notBefore := claims["nbf"]
					got := state{
						sess.Data().Name, sess.Subject(), sess.Device(), sess.Actor(), plan,
						sess.CreatedAt().Sub(start), sess.AuthenticatedAt().Sub(start), sess.ExpiresAt().Sub(clock.Now()), notBefore,
					}
					if got != tt.want || handed.Name != tt.want.Name {
						t.Errorf("%+v, fn was handed %q,\nwant %+v", got, handed.Name, tt.want)
					}
					act, _ := claims["act"].(map[string]any)
					if sub, _ := act["sub"].(string); sub != tt.want.Actor {
						t.Errorf("the token's act is %v", claims["act"])
					}
				}
			})
		})
	}
}

// A field that an older or a newer release has written goes along, but not to another
// subject.
func TestRenewKeepsTheFieldsOfOtherReleases(t *testing.T) {
	type newer struct {
		Name  string `json:"name"`
		Admin bool   `json:"admin"`
	}
	for subject, kept := range map[string]bool{"ada": true, "bob": false} {
		cfg := echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret}
		wrote := newManager[newer](t, cfg)
		sess, err := wrote.Create(t.Context(), newer{"Ada", true}, echosession.WithSubject("ada"))
		if err != nil {
			t.Fatal(err)
		}
		login := open(t, newManager[User](t, cfg), sess.Token())
		if _, err := login.Renew(t.Context(), func(u *User) error { u.Name = subject; return nil }, echosession.WithSubject(subject)); err != nil {
			t.Fatal(err)
		}
		read, err := wrote.Open(t.Context(), login.Token())
		if want := (newer{subject, kept}); err != nil || read.Data() != want {
			t.Errorf("%+v, %v, want %+v", read.Data(), err, want)
		}
	}
}

// Renew creates a session only where the request never had one and WithSubject says
// whose the new one is.
func TestWhereRenewCreates(t *testing.T) {
	bob := echosession.WithSubject("bob")
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		cfg.SubjectIndex = true
		m := newManager[User](t, cfg)
		ctx := t.Context()

		sess := open(t, m, "")
		if _, err := sess.Renew(ctx, count); !errors.Is(err, echosession.ErrNoSession) || !errors.Is(err, sess.Reason()) {
			t.Errorf("without a subject: %v", err)
		}
		if _, err := sess.Renew(ctx, count); !strings.Contains(err.Error(), "WithSubject") {
			t.Errorf("without a subject: %v: it does not say what is missing", err)
		}
		refusal := errors.New("no")
		if _, err := sess.Renew(ctx, func(*User) error { return refusal }, bob); err != refusal {
			t.Errorf("fn's error: %v", err)
		}
		if n, err := m.Count(ctx, "bob"); n != 0 || err != nil {
			t.Errorf("%d sessions, %v", n, err)
		}
		token, err := sess.Renew(ctx, count, bob)
		if err != nil || sess.Data().Count != 1 || sess.AuthenticatedAt().IsZero() || sess.Token() != token {
			t.Errorf("%+v %v", sess.Data(), err)
		}

		// One that ended since Get is not replaced: revoked, or renewed by another request.
		for want, end := range map[error]func() error{
			echosession.ErrSessionGone: func() error { _, err := m.RevokeSubject(ctx, "ada"); return err },
			echosession.ErrRenewed: func() error {
				list, err := m.List(ctx, "ada")
				if err != nil || len(list) != 1 {
					t.Fatal(len(list), err)
				}
				return nil
			},
		} {
			created, err := m.Create(ctx, User{}, echosession.WithSubject("ada"))
			if err != nil {
				t.Fatal(err)
			}
			late := open(t, m, created.Token())
			if err := end(); err != nil {
				t.Fatal(err)
			}
			if want == echosession.ErrRenewed {
				if _, err := open(t, m, created.Token()).Renew(ctx, keep); err != nil {
					t.Fatal(err)
				}
			}
			before, _ := m.Count(ctx, "bob")
			for range 2 {
				if _, err := late.Renew(ctx, keep, bob); !errors.Is(err, want) {
					t.Errorf("Renew after the end: %v, want %v", err, want)
				}
			}
			if n, err := m.Count(ctx, "bob"); n != before || err != nil {
				t.Errorf("a session was created: %d, %d, %v", before, n, err)
			}
		}

		listed, err := m.List(ctx, "bob")
		if err != nil || len(listed) != 1 {
			t.Fatal(len(listed), err)
		}
		if _, err := listed[0].Renew(ctx, keep); !errors.Is(err, echosession.ErrNoSession) {
			t.Errorf("Renew of a listed session: %v", err)
		}
		if _, err := listed[0].Create(ctx, User{}); !errors.Is(err, echosession.ErrNoSession) || !listed[0].Exists() {
			t.Errorf("Create on a listed session: %v", err)
		}
	})
}

func TestAnErrorOfFnLeavesTheSessionAsItIs(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		m := newManager[User](t, cfg)
		token := guest(t, m, User{Name: "Ada"})
		sess := open(t, m, token)
		refusal := errors.New("no")
		if _, err := sess.Renew(t.Context(), func(u *User) error { u.Name = "?"; return refusal }, echosession.WithSubject("ada")); err != refusal {
			t.Error(err)
		}
		if got := open(t, m, token); got.Data().Name != "Ada" || sess.Data().Name != "Ada" || sess.Token() != token {
			t.Errorf("%+v, %+v", got.Data(), sess.Data())
		}
		if got := slices.Collect(maps.Keys(maps.Collect(m.All(t.Context())))); len(got) != 1 {
			t.Errorf("%d records", len(got))
		}
	})
}

// A session that is revoked between Get and Renew stays revoked, and one that is
// revoked at the same time is not there afterwards, unless the login came later.
func TestRenewAgainstRevoke(t *testing.T) {
	for _, begin := range []string{"ada", "guest"} {
		t.Run(begin, func(t *testing.T) {
			eachStore(t, func(t *testing.T, cfg echosession.Config) {
				cfg.SubjectIndex = true
				m := newManager[User](t, cfg)
				ctx := t.Context()
				lived := 0
				for range raceRounds() {
					created, err := m.Create(ctx, User{}, echosession.WithSubject(begin))
					if err != nil {
						t.Fatal(err)
					}
					login := open(t, m, created.Token())
					var renewErr error
					race(
						func() { _, renewErr = login.Renew(ctx, keep, echosession.WithSubject("ada")) },
						func() {
							if _, err := m.RevokeSubject(ctx, "ada"); err != nil {
								t.Error(err)
							}
						},
					)
					if renewErr != nil && !errors.Is(renewErr, echosession.ErrSessionGone) {
						t.Fatal(renewErr)
					}
					lives := renewErr == nil && open(t, m, login.Token()).Exists()
					if lives {
						lived++
					}
					if lives && begin == "ada" {
						t.Fatal("the session outlived its revocation")
					}
					n, err := m.Count(ctx, "ada")
					list, listErr := m.List(ctx, "ada")
					if err != nil || listErr != nil || n != len(list) || lives != (n == 1) {
						t.Fatalf("lives %v, %d counted, %d listed, %v, %v", lives, n, len(list), err, listErr)
					}
					if _, err := m.RevokeSubject(ctx, "ada"); err != nil {
						t.Fatal(err)
					}
				}
				t.Logf("%d of %d logins came after the revocation", lived, raceRounds())
			})
		})
	}
}

// Of two logins over one session at the same time one goes on from it, and the other
// one learns of that.
func TestRenewAgainstRenew(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		cfg.SubjectIndex = true
		m := newManager[User](t, cfg)
		ctx := t.Context()
		for range raceRounds() {
			token := guest(t, m, User{Name: "cart"})
			one, two := open(t, m, token), open(t, m, token)
			var errs [2]error
			race(
				func() { _, errs[0] = one.Renew(ctx, count, echosession.WithSubject("ada")) },
				func() { _, errs[1] = two.Renew(ctx, count, echosession.WithSubject("ada")) },
			)
			if (errs[0] == nil) == (errs[1] == nil) || !errors.Is(errors.Join(errs[:]...), echosession.ErrRenewed) {
				t.Fatal(errs)
			}
			list, err := m.List(ctx, "ada")
			if err != nil || len(list) != 1 || list[0].Data().Count != 1 || list[0].Data().Name != "cart" {
				t.Fatal(len(list), err)
			}
			if err := list[0].Destroy(ctx); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// With RefuseNew a login over the limit changes nothing: the guest stays as it was.
func TestRenewAtTheLimit(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		cfg.SubjectIndex, cfg.MaxSessions, cfg.WhenFull = true, 2, echosession.RefuseNew
		refusing := newManager[User](t, cfg)
		cfg.WhenFull = echosession.EvictOldest
		evicting := newManager[User](t, cfg)
		ctx := t.Context()
		ada := echosession.WithSubject("ada")
		var tokens []string
		for range 2 {
			sess, err := refusing.Create(ctx, User{}, ada)
			if err != nil {
				t.Fatal(err)
			}
			tokens = append(tokens, sess.Token())
		}
		if _, err := refusing.Create(ctx, User{}, ada); !errors.Is(err, echosession.ErrTooManySessions) {
			t.Errorf("Create: %v", err)
		}
		token := guest(t, refusing, User{Name: "cart"})
		login := open(t, refusing, token)
		if _, err := login.Renew(ctx, keep, ada); !errors.Is(err, echosession.ErrTooManySessions) {
			t.Errorf("Renew: %v", err)
		}
		if !login.Exists() || open(t, refusing, token).Data().Name != "cart" {
			t.Error("the guest was lost")
		}
		// The same subject has no more sessions than before.
		again := open(t, refusing, tokens[0])
		if _, err := again.Renew(ctx, keep); err != nil {
			t.Error(err)
		}
		if n, err := refusing.Count(ctx, "ada"); n != 2 || err != nil {
			t.Errorf("%d sessions, %v", n, err)
		}
		if _, err := open(t, evicting, token).Renew(ctx, keep, ada); err != nil {
			t.Error(err)
		}
		if open(t, evicting, again.Token()).Exists() || !open(t, evicting, tokens[1]).Exists() {
			t.Error("not the oldest gave way")
		}
	})
}

// A handler that makes guests puts no guest's cookie over the login's, wherever the two
// requests meet.
func TestNoGuestsCookieOverTheLogins(t *testing.T) {
	makers := map[string]func(context.Context, *echosession.Session[User]) error{
		"UpdateOrCreate": func(ctx context.Context, sess *echosession.Session[User]) error {
			return sess.UpdateOrCreate(ctx, count)
		},
		"Create where there is none": func(ctx context.Context, sess *echosession.Session[User]) error {
			if sess.Exists() {
				if err := sess.Update(ctx, count); err == nil || !errors.Is(err, echosession.ErrRenewed) {
					return err
				}
			}
			_, err := sess.Create(ctx, User{Count: 1})
			return err
		},
		"Renew without a subject": func(ctx context.Context, sess *echosession.Session[User]) error {
			_, err := sess.Renew(ctx, count)
			return err
		},
	}
	const steps = 3 // of a guest's request: before Get, before it writes, after it
	for name, make := range makers {
		for at := range steps {
			t.Run(fmt.Sprintf("%s, login at step %d", name, at), func(t *testing.T) {
				eachStore(t, func(t *testing.T, cfg echosession.Config) {
					cfg.Cookie, cfg.SubjectIndex = &echosession.Cookie{}, true
					m := newManager[User](t, cfg)
					s := newServer(t, m.Middleware())
					token := guest(t, m, User{Name: "cart"})
					cookie := "__Host-session=" + token
					login := func() answer {
						a := s.do(t, s.request(t, "POST", "/login", "", "Cookie", cookie))
						if a.StatusCode != http.StatusOK || len(a.Header["Set-Cookie"]) != 1 {
							t.Errorf("login: %d %s", a.StatusCode, a.body)
						}
						return a
					}
					route(s, m, "/login", func(c echo.Context, sess *echosession.Session[User]) error {
						_, err := sess.Renew(c.Request().Context(), keep, echosession.WithSubject("ada"))
						return err
					})
					var loggedIn answer
					s.POST("/cart", func(c echo.Context) error {
						step := func(i int) {
							if i == at {
								loggedIn = login()
							}
						}
						step(0)
						sess, err := m.Get(c)
						if err != nil {
							return err
						}
						step(1)
						err = make(c.Request().Context(), sess)
						step(2)
						return err
					})
					if at == 2 && name == "Renew without a subject" {
						t.Skip("the guest's request renewed the session first: the login's cookie is not its successor")
					}
					a := s.do(t, s.request(t, "POST", "/cart", "", "Cookie", cookie))
					if at < 2 && (a.StatusCode < 400 || a.StatusCode >= 500 || a.Header["Set-Cookie"] != nil) {
						t.Errorf("the late request: %d %s, Set-Cookie %q", a.StatusCode, a.body, a.Header["Set-Cookie"])
					}
					if at < 2 && name == "UpdateOrCreate" && a.StatusCode != http.StatusConflict {
						t.Errorf("the late request: %d, want 409", a.StatusCode)
					}
					if at == 2 && (a.StatusCode != http.StatusOK || a.Header["Set-Cookie"] != nil) {
						t.Errorf("the early request: %d %s, Set-Cookie %q", a.StatusCode, a.body, a.Header["Set-Cookie"])
					}
					value, _, _ := strings.Cut(strings.TrimPrefix(loggedIn.Header.Get("Set-Cookie"), "__Host-session="), ";")
					want := 0
					if at == 2 {
						want = 1
					}
					if sess := open(t, m, value); sess.Subject() != "ada" || sess.Data().Name != "cart" || sess.Data().Count != want {
						t.Errorf("after the login: %q %+v %v", sess.Subject(), sess.Data(), sess.Reason())
					}
				})
			})
		}
	}
}

// Whoever logs in with the cookie from before another login gets a session, and the
// cookie: the answer to the other login may have been lost.
func TestALoginAfterARenewWhoseAnswerWasLost(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		cfg.Cookie = &echosession.Cookie{}
		m := newManager[User](t, cfg)
		s := newServer(t, m.Middleware())
		route(s, m, "/login", func(c echo.Context, sess *echosession.Session[User]) error {
			_, err := sess.Renew(c.Request().Context(), count, echosession.WithSubject("ada"))
			return err
		})
		cookie := "__Host-session=" + guest(t, m, User{Name: "cart"})
		for i, name := range []string{"cart", ""} {
			a := s.do(t, s.request(t, "POST", "/login", "", "Cookie", cookie))
			if a.StatusCode != http.StatusOK || len(a.Header["Set-Cookie"]) != 1 {
				t.Fatalf("login %d: %d %s, Set-Cookie %q", i, a.StatusCode, a.body, a.Header["Set-Cookie"])
			}
			value, _, _ := strings.Cut(strings.TrimPrefix(a.Header.Get("Set-Cookie"), "__Host-session="), ";")
			if sess := open(t, m, value); sess.Subject() != "ada" || sess.Data().Name != name {
				t.Errorf("login %d: %+v %v", i, sess.Data(), sess.Reason())
			}
		}
	})
}

// A logout with the token from before a login does not end the login's session, and says
// so.
func TestALogoutWithTheTokenFromBefore(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		cfg.Cookie = &echosession.Cookie{}
		m := newManager[User](t, cfg)
		s := newServer(t, m.Middleware())
		token := guest(t, m, User{Name: "cart"})
		login := open(t, m, token)
		route(s, m, "/logout", func(c echo.Context, sess *echosession.Session[User]) error {
			return sess.Destroy(c.Request().Context())
		})
		if _, err := login.Renew(t.Context(), keep, echosession.WithSubject("ada")); err != nil {
			t.Fatal(err)
		}
		a := s.do(t, s.request(t, "POST", "/logout", "", "Cookie", "__Host-session="+token))
		if a.StatusCode != http.StatusUnauthorized || a.Header["Set-Cookie"] != nil {
			t.Errorf("%d %s, Set-Cookie %q", a.StatusCode, a.body, a.Header["Set-Cookie"])
		}
		if !open(t, m, login.Token()).Exists() {
			t.Error("the session after the login is gone")
		}
	})
}

// Fresh and AbsoluteTimeout count from the last login, and a guest's AbsoluteTimeout from
// its beginning. Authenticated and Fresh let no guest in.
func TestWhatCountsFromTheLogin(t *testing.T) {
	eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
		cfg.AbsoluteTimeout, cfg.MaxAge = time.Hour, 10*time.Hour
		m := newManager[User](t, cfg)
		meets := func(sess *echosession.Session[User], authenticated, fresh error) {
			t.Helper()
			if err := sess.Meets(echosession.Authenticated()); !errors.Is(err, authenticated) {
				t.Errorf("Authenticated: %v, want %v", err, authenticated)
			}
			if err := sess.Meets(echosession.Fresh(5 * time.Minute)); !errors.Is(err, fresh) {
				t.Errorf("Fresh: %v, want %v", err, fresh)
			}
			if err := sess.Meets(); err != nil {
				t.Error(err)
			}
		}
		start := clock.Now()
		sess := open(t, m, guest(t, m, User{Name: "Ada"}))
		meets(sess, echosession.ErrNotAuthenticated, echosession.ErrNotFresh)
		clock.Advance(30 * time.Minute)
		if got := sess.ExpiresAt(); !got.Equal(start.Add(time.Hour)) || !sess.AuthenticatedAt().IsZero() {
			t.Errorf("the guest ends at %v", got)
		}
		for range 2 {
			if _, err := sess.Renew(t.Context(), keep, echosession.WithSubject("ada")); err != nil {
				t.Fatal(err)
			}
			if got := sess.ExpiresAt(); !got.Equal(clock.Now().Add(time.Hour)) || !sess.CreatedAt().Equal(start) {
				t.Errorf("the user ends at %v, began at %v", got, sess.CreatedAt())
			}
			meets(sess, nil, nil)
			clock.Advance(6 * time.Minute)
			meets(sess, nil, echosession.ErrNotFresh)
			if _, err := sess.Rotate(t.Context()); err != nil {
				t.Fatal(err)
			}
			meets(sess, nil, echosession.ErrNotFresh)
		}
	})
}

// The login that comes back as another site's POST carries nothing of the session that
// arrived, and that session ends.
func TestRenewCrossOriginVerified(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		cfg.Cookie, cfg.SubjectIndex = &echosession.Cookie{}, true
		m := newManager[User](t, cfg)
		s := newServer(t, m.Middleware())
		token := guest(t, m, User{Name: "cart"})
		for path, opts := range map[string][]echosession.CreateOption{
			"/unchecked": {echosession.WithSubject("ada")},
			"/checked":   {echosession.WithSubject("ada"), echosession.CrossOriginVerified()},
		} {
			route(s, m, path, func(c echo.Context, sess *echosession.Session[User]) error {
				_, err := sess.Renew(c.Request().Context(), func(u *User) error {
					if path == "/unchecked" {
						t.Error("fn ran for a request that was refused")
					}
					return count(u)
				}, opts...)
				return err
			})
		}
		for _, cookie := range [][]string{{"Cookie", "__Host-session=" + token}, nil} {
			headers := append([]string{"Origin", "https://id.example", "Sec-Fetch-Site", "cross-site"}, cookie...)
			a := s.do(t, s.request(t, "POST", "/unchecked", "", headers...))
			if a.StatusCode != http.StatusForbidden || a.Header["Set-Cookie"] != nil {
				t.Errorf("unchecked: %d %s, Set-Cookie %q", a.StatusCode, a.body, a.Header["Set-Cookie"])
			}
			if n, err := m.Count(t.Context(), "ada"); n != 0 || err != nil {
				t.Errorf("%d sessions, %v", n, err)
			}
			a = s.do(t, s.request(t, "POST", "/checked", "", headers...))
			if a.StatusCode != http.StatusOK || len(a.Header["Set-Cookie"]) != 1 {
				t.Errorf("checked: %d %s, Set-Cookie %q", a.StatusCode, a.body, a.Header["Set-Cookie"])
			}
			list, err := m.List(t.Context(), "ada")
			if err != nil || len(list) != 1 || !reflect.DeepEqual(list[0].Data(), User{Count: 1}) {
				t.Errorf("%d sessions, %v", len(list), err)
			}
			if open(t, m, token).Exists() {
				t.Error("the session that arrived lives on")
			}
			if _, err := m.RevokeSubject(t.Context(), "ada"); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// After two tokens in one request nothing is created.
func TestRenewAfterAnAmbiguousToken(t *testing.T) {
	m := newManager[User](t, echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret})
	s := newServer(t, m.Middleware())
	route(s, m, "/renew", func(c echo.Context, sess *echosession.Session[User]) error {
		_, err := sess.Renew(c.Request().Context(), count, echosession.WithSubject("ada"))
		return err
	})
	route(s, m, "/guest", func(c echo.Context, sess *echosession.Session[User]) error {
		return sess.UpdateOrCreate(c.Request().Context(), count)
	})
	for _, path := range []string{"/renew", "/guest"} {
		a := s.do(t, s.request(t, "POST", path+"?accessToken=a", "", "Authorization", "Bearer b"))
		if a.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d %s", path, a.StatusCode, a.body)
		}
	}
	for range m.All(t.Context()) {
		t.Error("a session was created")
	}
}

// Renew goes on from the successor of a rotation, but not longer than its grace.
func TestRenewAfterARotation(t *testing.T) {
	eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
		for _, late := range []bool{false, true} {
			m := newManager[User](t, cfg)
			token := guest(t, m, User{Name: "cart"})
			before, rotated := open(t, m, token), open(t, m, token)
			if _, err := rotated.Rotate(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := before.Update(t.Context(), count); err != nil {
				t.Fatal(err)
			}
			if late {
				clock.Advance(10 * time.Second)
				if _, err := before.Renew(t.Context(), keep, echosession.WithSubject("ada")); !errors.Is(err, echosession.ErrSessionGone) {
					t.Errorf("after the grace: %v", err)
				}
				continue
			}
			if _, err := before.Renew(t.Context(), nil, echosession.WithSubject("ada")); err != nil {
				t.Fatal(err)
			}
			if got := before.Data(); got.Name != "cart" || got.Count != 1 {
				t.Errorf("%+v", got)
			}
			if err := rotated.Reload(t.Context()); !errors.Is(err, echosession.ErrRenewed) {
				t.Errorf("the successor of the rotation: %v", err)
			}
		}
	})
}

// Goroutines that share a handle through a login get either session, and never a mix.
func TestRenewOnASharedHandle(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		m := newManager[User](t, cfg)
		sess := open(t, m, guest(t, m, User{Name: "cart"}))
		var saved atomic.Int64
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 20 {
					switch err := sess.Update(t.Context(), count); {
					case err == nil:
						saved.Add(1)
					case !errors.Is(err, echosession.ErrRenewed):
						t.Error(err)
					}
				}
			})
		}
		wg.Go(func() {
			for range 5 {
				if _, err := sess.Renew(t.Context(), keep, echosession.WithSubject("ada")); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Wait()
		if got := open(t, m, sess.Token()).Data(); got.Count != int(saved.Load()) || got.Name != "cart" {
			t.Errorf("%+v after %d updates", got, saved.Load())
		}
	})
}

// A Renew that asks for less time than there is leaves the session as it is, and the
// handle with it.
func TestARenewWithoutTime(t *testing.T) {
	eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
		m := newManager[User](t, cfg)
		sess := open(t, m, guest(t, m, User{Name: "cart"}))
		end := echosession.WithClaims(echosession.Claims{"exp": clock.Now().Add(time.Millisecond / 2)})
		if _, err := sess.Renew(t.Context(), keep, end); err == nil || errors.Is(err, echosession.ErrSessionGone) {
			t.Errorf("%v", err)
		}
		if err := sess.Update(t.Context(), count); err != nil {
			t.Errorf("the session that is as it was: %v", err)
		}
	})
}

// A token that nobody gets is not kept: a login that is refused again and again takes no
// place from the tokens in use.
func TestRefusedTokensAreForgotten(t *testing.T) {
	for name, refuse := range map[string]error{"conflict": echosession.ErrConflict, "limit": echosession.ErrTooManySessions} {
		clock := newClock()
		store := &refusing{Store: echosession.NewMemoryStore(echosession.WithClock(clock.Now)), refuse: refuse}
		m := newManager[User](t, echosession.Config{Store: store, Secret: testSecret, Now: clock.Now})
		sess := open(t, m, guest(t, m, User{Name: "cart"}))
		_, _ = sess.Renew(t.Context(), keep, echosession.WithSubject("ada"))
		_, _ = m.Create(t.Context(), User{}, echosession.WithSubject("ada"))
		if err := sess.Check(t.Context()); err != nil || len(store.ids) < 2 {
			t.Fatalf("%s: %v, %d tries", name, err, len(store.ids))
		}
		tokenOf := func(id, sub string) string {
			return hs256(`{"alg":"HS256","typ":"session+jwt"}`, fmt.Sprintf(`{"iat":%d,"jti":%q%s}`, clock.Now().Unix(), id, sub), testSecret)
		}
		if !echosession.Remembers(m, tokenOf(sess.ID(), "")) {
			t.Error("the token in use is not remembered: this test makes another one")
		}
		for _, id := range store.ids {
			if echosession.Remembers(m, tokenOf(id, `,"sub":"ada"`)) {
				t.Errorf("%s: a token that nobody got is remembered", name)
			}
		}
	}
}

// refusing is a store in which nobody becomes a user.
type refusing struct {
	echosession.Store
	refuse error
	ids    []string
}

func (s *refusing) Create(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
	if len(s.ids) == 0 && errOf(s.Store.Create(ctx, ref, record, ttl, limit)) == nil {
		s.ids = append(s.ids, newID())
		return nil, nil
	}
	s.ids = append(s.ids, ref.ID)
	return nil, s.refuse
}

func (s *refusing) Renew(_ context.Context, _, to echosession.Ref, _, _ []byte, _ time.Duration, _ echosession.Limit) ([]string, error) {
	if s.ids = append(s.ids, to.ID); len(s.ids) > 5 {
		return nil, echosession.ErrTooManySessions
	}
	return nil, s.refuse
}
