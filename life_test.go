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
	"syscall"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/echosessiontest"
)

// Nothing is created for a guest who leaves the zero value as it is.
func TestUpdateOrCreateCreatesOnlyForSomething(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		cfg.Cookie = &echosession.Cookie{}
		m := newManager[User](t, cfg)
		s := newServer(t, m.Middleware())
		refusal := errors.New("no")
		for path, fn := range map[string]func(*User) error{
			"/nothing": keep, "/something": count, "/refused": func(u *User) error { u.Count++; return refusal },
		} {
			route(s, m, path, func(c echo.Context, sess *echosession.Session[User]) error {
				err := sess.UpdateOrCreate(c.Request().Context(), fn)
				if errors.Is(err, refusal) {
					return c.NoContent(http.StatusTeapot)
				}
				return err
			})
		}
		for path, want := range map[string]struct{ status, cookies int }{"/nothing": {200, 0}, "/refused": {418, 0}, "/something": {200, 1}} {
			a := s.do(t, s.request(t, "POST", path, ""))
			if a.StatusCode != want.status || len(a.Header["Set-Cookie"]) != want.cookies {
				t.Errorf("%s: %d %s, Set-Cookie %q", path, a.StatusCode, a.body, a.Header["Set-Cookie"])
			}
			if want.cookies == 0 {
				continue
			}
			value, _, _ := strings.Cut(strings.TrimPrefix(a.Header.Get("Set-Cookie"), "__Host-session="), ";")
			for _, path := range []string{"/something", "/nothing"} {
				a := s.do(t, s.request(t, "POST", path, "", "Cookie", "__Host-session="+value))
				if a.StatusCode != http.StatusOK || a.Header["Set-Cookie"] != nil {
					t.Errorf("%s with the guest's cookie: %d %s, Set-Cookie %q", path, a.StatusCode, a.body, a.Header["Set-Cookie"])
				}
			}
			if got := open(t, m, value); got.Data().Count != 2 || !got.AuthenticatedAt().IsZero() || got.CreatedAt().IsZero() {
				t.Errorf("the guest has %+v, authenticated at %v", got.Data(), got.AuthenticatedAt())
			}
		}
		records := 0
		for range m.All(t.Context()) {
			records++
		}
		if records != 1 {
			t.Errorf("%d records", records)
		}
	})
}

// Where no guest is made, whatever fn does.
func TestWhereNoGuestIsMade(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		cfg.Cookie = &echosession.Cookie{SameSite: http.SameSiteStrictMode}
		m := newManager[User](t, cfg)
		s := newServer(t, m.Middleware())
		route(s, m, "/", func(c echo.Context, sess *echosession.Session[User]) error {
			return sess.UpdateOrCreate(c.Request().Context(), count, echosession.CrossOriginVerified())
		})
		damaged := guest(t, m, User{Name: "damaged"})
		overwrite(t, storeOf(t, cfg), open(t, m, damaged).ID(), []byte("\x81 this is no record of ours"))
		for name, tt := range map[string]struct {
			method  string
			headers []string
			want    int
		}{
			"two tokens":                    {"POST", []string{"Authorization", "Bearer a", "Cookie", "__Host-session=b"}, http.StatusBadRequest},
			"a damaged record":              {"POST", []string{"Cookie", "__Host-session=" + damaged}, http.StatusUnauthorized},
			"another site's form":           {"POST", []string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, http.StatusForbidden},
			"a link from outside":           {"GET", []string{"Sec-Fetch-Site", "cross-site"}, http.StatusForbidden},
			"another site's form, a cookie": {"POST", []string{"Origin", "https://evil.example", "Cookie", "__Host-session=b"}, http.StatusForbidden},
		} {
			a := s.do(t, s.request(t, tt.method, "/", "", tt.headers...))
			if a.StatusCode != tt.want || a.Header["Set-Cookie"] != nil {
				t.Errorf("%s: %d %s, Set-Cookie %q", name, a.StatusCode, a.body, a.Header["Set-Cookie"])
			}
		}
		for name, headers := range map[string][]string{
			"a page of one's own":        {"Sec-Fetch-Site", "same-origin"},
			"typed into the address bar": {"Sec-Fetch-Site", "none"},
			"no browser":                 nil,
			"an invalid token":           {"Cookie", "__Host-session=b"},
			"a client with its token":    {"Sec-Fetch-Site", "cross-site", "Authorization", "Bearer b"},
		} {
			a := s.do(t, s.request(t, "GET", "/", "", headers...))
			if a.StatusCode != http.StatusOK {
				t.Errorf("%s: %d %s", name, a.StatusCode, a.body)
			}
		}
	})
}

// CrossOriginVerified is for logins: a guest's cookie is planted by no other site.
func TestNoSitePlantsAGuest(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		cfg.Cookie = &echosession.Cookie{}
		m := newManager[User](t, cfg)
		s := newServer(t, m.Middleware())
		route(s, m, "/", func(c echo.Context, sess *echosession.Session[User]) error {
			return sess.UpdateOrCreate(c.Request().Context(), count, echosession.CrossOriginVerified())
		})
		a := s.do(t, s.request(t, "POST", "/", "", "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"))
		if a.StatusCode != http.StatusForbidden || a.Header["Set-Cookie"] != nil {
			t.Errorf("%d %s, Set-Cookie %q", a.StatusCode, a.body, a.Header["Set-Cookie"])
		}
		for range m.All(t.Context()) {
			t.Error("a session was created")
		}
	})
}

// A session that ended after Get, revoked or renewed by another request, gives way to
// a login, but not to a guest.
func TestNoGuestInThePlaceOfASessionThatEnded(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		cfg.Cookie, cfg.SubjectIndex = &echosession.Cookie{}, true
		m := newManager[User](t, cfg)
		s := newServer(t, m.Middleware())
		ends := map[string]func(ctx context.Context, token string) error{
			"revoked": func(ctx context.Context, _ string) error { _, err := m.RevokeSubject(ctx, "ada"); return err },
			"renewed": func(ctx context.Context, token string) error {
				_, err := open(t, m, token).Renew(ctx, keep, echosession.WithSubject("bob"))
				return err
			},
		}
		for name, end := range ends {
			for _, found := range []bool{true, false} { // whether the handle learns of it before Create
				route(s, m, fmt.Sprint("/", name, found), func(c echo.Context, sess *echosession.Session[User]) error {
					ctx := c.Request().Context()
					if err := end(ctx, sess.Token()); err != nil {
						t.Error(err)
					}
					if found {
						if err := sess.Update(ctx, count); !errors.Is(err, echosession.ErrSessionGone) && !errors.Is(err, echosession.ErrRenewed) {
							t.Errorf("Update: %v", err)
						}
					}
					var opts []echosession.CreateOption
					if subject := c.QueryParam("subject"); subject != "" {
						opts = append(opts, echosession.WithSubject(subject))
					}
					_, err := sess.Create(ctx, User{}, opts...)
					return err
				})
				for subject, want := range map[string]int{"": http.StatusUnauthorized, "eve": http.StatusOK} {
					if name == "revoked" && !found && subject == "" {
						continue // a session that is absent at its end may have been destroyed by this very Create
					}
					created, err := m.Create(t.Context(), User{}, echosession.WithSubject("ada"))
					if err != nil {
						t.Fatal(err)
					}
					before := records(m)
					path := fmt.Sprint("/", name, found, "?subject=", subject)
					a := s.do(t, s.request(t, "POST", path, "", "Cookie", "__Host-session="+created.Token()))
					cookies := 0
					if want == http.StatusOK {
						cookies = 1
					}
					if a.StatusCode != want || len(a.Header["Set-Cookie"]) != cookies {
						t.Errorf("%s: %d %s, Set-Cookie %q", path, a.StatusCode, a.body, a.Header["Set-Cookie"])
					}
					left := before + cookies
					if name == "revoked" {
						left--
					}
					if got := records(m); got != left {
						t.Errorf("%s: %d records, want %d", path, got, left)
					}
				}
			}
		}
	})
}

func records(m *echosession.Manager[User]) (n int) {
	for range m.All(context.Background()) {
		n++
	}
	return n
}

// A guest whose session ends within the request is not replaced; after a logout in the
// same request a new guest may be made, for a message to show.
func TestUpdateOrCreateAfterAnEnd(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		cfg.SubjectIndex = true
		m := newManager[User](t, cfg)
		ctx := t.Context()
		created, err := m.Create(ctx, User{}, echosession.WithSubject("ada"))
		if err != nil {
			t.Fatal(err)
		}
		late, leaving := open(t, m, created.Token()), open(t, m, created.Token())
		if err := leaving.Destroy(ctx); err != nil {
			t.Fatal(err)
		}
		if err := leaving.UpdateOrCreate(ctx, count); err != nil || leaving.Data().Count != 1 {
			t.Errorf("after the logout: %+v, %v", leaving.Data(), err)
		}
		for range 2 {
			if err := late.UpdateOrCreate(ctx, count); !errors.Is(err, echosession.ErrSessionGone) {
				t.Errorf("after the end: %v", err)
			}
		}
	})
}

// Goroutines of one request make one guest.
func TestOneGuestForARequest(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		m := newManager[User](t, cfg)
		for range max(10, raceRounds()/10) {
			sess := open(t, m, "")
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					if err := sess.UpdateOrCreate(t.Context(), count); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if got := open(t, m, sess.Token()).Data().Count; got != 8 {
				t.Fatalf("%d of 8 changes were kept", got)
			}
			if err := sess.Destroy(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for range m.All(t.Context()) {
			t.Fatal("a guest is left over")
		}
	})
}

// Check restarts nothing; Reload in its place keeps a session alive for ever.
func TestCheckRestartsNothing(t *testing.T) {
	for _, indexed := range []bool{false, true} {
		eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
			cfg.MaxAge, cfg.SubjectIndex = time.Hour, indexed
			m := newManager[User](t, cfg)
			sess, err := m.Create(t.Context(), User{}, echosession.WithSubject("ada"))
			if err != nil {
				t.Fatal(err)
			}
			start := clock.Now()
			for range 5 {
				clock.Advance(10 * time.Minute)
				if err := sess.Check(t.Context()); err != nil {
					t.Fatal(err)
				}
				if got := sess.ExpiresAt().Sub(start); got != time.Hour {
					t.Errorf("it ends %v after its creation", got)
				}
				if got := sess.LastUsedAt(); !got.Equal(start) {
					t.Errorf("last used %v after its creation", got.Sub(start))
				}
			}
			clock.Advance(10*time.Minute - time.Millisecond)
			if err := sess.Check(t.Context()); err != nil {
				t.Error(err)
			}
			clock.Advance(time.Millisecond)
			if err := sess.Check(t.Context()); !errors.Is(err, echosession.ErrSessionGone) || sess.Exists() {
				t.Errorf("at the end: %v, %v", err, sess.Exists())
			}
			if err := sess.Check(t.Context()); !errors.Is(err, echosession.ErrNoSession) {
				t.Errorf("after the end: %v", err)
			}
		})
	}
}

// Check learns of another request's use, follows its rotation while the grace lasts, and
// learns of a revocation.
func TestCheckLearnsOfOtherRequests(t *testing.T) {
	eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
		cfg.SubjectIndex = true
		m, other := newManager[User](t, cfg), newManager[User](t, cfg)
		stream, err := m.Create(t.Context(), User{}, echosession.WithSubject("ada"))
		if err != nil {
			t.Fatal(err)
		}
		clock.Advance(time.Hour)
		used := open(t, other, stream.Token())
		if err := stream.Check(t.Context()); err != nil || !stream.LastUsedAt().Equal(clock.Now()) || !stream.ExpiresAt().Equal(clock.Now().Add(24*time.Hour)) {
			t.Errorf("last used at %v, ends at %v, now %v; %v", stream.LastUsedAt(), stream.ExpiresAt(), clock.Now(), err)
		}
		if _, err := used.Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
		clock.Advance(9 * time.Second)
		if err := stream.Check(t.Context()); err != nil {
			t.Errorf("in the grace: %v", err)
		}
		clock.Advance(time.Second)
		if err := stream.Check(t.Context()); !errors.Is(err, echosession.ErrSessionGone) {
			t.Errorf("after the grace: %v", err)
		}
		if err := used.Check(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := m.RevokeSubject(t.Context(), "ada"); err != nil {
			t.Fatal(err)
		}
		if err := used.Check(t.Context()); !errors.Is(err, echosession.ErrSessionGone) {
			t.Errorf("after the revocation: %v", err)
		}
	})
}

// What a list of devices shows, and what one can do with it.
func TestTheListOfDevices(t *testing.T) {
	eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
		cfg.SubjectIndex, cfg.MaxAge = true, 24*time.Hour
		m := newManager[User](t, cfg)
		ctx := t.Context()
		start := clock.Now()
		var sessions []*echosession.Session[User]
		for _, opts := range [][]echosession.CreateOption{
			{echosession.WithDevice("phone"), echosession.Remember(720 * time.Hour)},
			{echosession.WithDevice("laptop"), echosession.WithActor("support")},
			{echosession.WithClaims(echosession.Claims{"exp": clock.Now().Add(4 * time.Hour)})},
		} {
			sess, err := m.Create(ctx, User{}, append(opts, echosession.WithSubject("ada"))...)
			if err != nil {
				t.Fatal(err)
			}
			sessions = append(sessions, sess)
			clock.Advance(time.Minute)
		}
		clock.Advance(time.Hour)
		if !open(t, m, sessions[1].Token()).Exists() {
			t.Fatal("not there")
		}
		clock.Advance(30 * time.Second) // within the TouchInterval: not worth telling the store
		if !open(t, m, sessions[1].Token()).LastUsedAt().Equal(clock.Now().Add(-30 * time.Second)) {
			t.Error("a handle does not know its last use")
		}

		type row struct {
			Device, Actor          string
			Created, Authenticated time.Duration
			LastUsed               time.Duration // -1: not known
		}
		want := []row{
			{"phone", "", 0, 0, 0},
			{"laptop", "support", time.Minute, time.Minute, 63 * time.Minute},
			{"", "", 2 * time.Minute, 2 * time.Minute, -1},
		}
		list, err := m.List(ctx, "ada")
		if err != nil {
			t.Fatal(err)
		}
		var got []row
		for _, sess := range list {
			r := row{sess.Device(), sess.Actor(), sess.CreatedAt().Sub(start), sess.AuthenticatedAt().Sub(start), -1}
			if !sess.LastUsedAt().IsZero() {
				r.LastUsed = sess.LastUsedAt().Sub(start)
			}
			got = append(got, r)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%+v,\nwant %+v", got, want)
		}
		if n, err := m.Count(ctx, "ada"); n != 3 || err != nil {
			t.Errorf("%d, %v", n, err)
		}

		for _, tt := range []struct {
			subject, id string
			found       bool
		}{
			{"bob", list[0].ID(), false},
			{"ada", newID(), false},
			{"ada", "", false},
			{"ada", "../" + list[0].ID(), false},
			{"ada", strings.ToUpper(list[0].ID()), false},
			{"ada", list[0].ID(), true},
			{"ada", list[0].ID(), false},
		} {
			if found, err := m.Revoke(ctx, tt.subject, tt.id); found != tt.found || err != nil {
				t.Errorf("Revoke(%q, %q): %v, %v", tt.subject, tt.id, found, err)
			}
		}
		if open(t, m, sessions[0].Token()).Exists() || !open(t, m, sessions[1].Token()).Exists() {
			t.Error("not the session that was to be revoked")
		}
		for name, call := range map[string]func() error{
			"Revoke": func() error { _, err := m.Revoke(ctx, "", list[0].ID()); return err },
			"Count":  func() error { _, err := m.Count(ctx, ""); return err },
		} {
			if err := call(); err == nil || !strings.Contains(err.Error(), "the subject is empty") {
				t.Errorf("%s without a subject: %v", name, err)
			}
		}
	})
	m := newManager[User](t, echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret})
	if _, err := m.Revoke(t.Context(), "ada", newID()); err == nil || !strings.Contains(err.Error(), "set Config.SubjectIndex") {
		t.Errorf("Revoke without an index: %v", err)
	}
	if _, err := m.Count(t.Context(), "ada"); err == nil || !strings.Contains(err.Error(), "set Config.SubjectIndex") {
		t.Errorf("Count without an index: %v", err)
	}
}

// The last use of a listed session is computed from its lifetime: where that says nothing
// it is not known, and where the Config has changed since it is not before the creation and
// not in the future.
func TestTheLastUseOfAListedSession(t *testing.T) {
	const unknown = -1
	for name, tt := range map[string]struct {
		maxAge, absolute, later, listed time.Duration // listed is the MaxAge of the Manager that lists
		want                            time.Duration // after the creation
	}{
		"the idle timeout ends it":     {time.Hour, 10 * time.Hour, 30 * time.Minute, time.Hour, 0},
		"the absolute timeout ends it": {10 * time.Hour, time.Hour, 30 * time.Minute, 10 * time.Hour, unknown},
		"MaxAge was raised":            {time.Hour, 0, 30 * time.Minute, 10 * time.Hour, 0},
		"MaxAge was lowered":           {10 * time.Hour, 0, 30 * time.Minute, time.Hour, unknown},
	} {
		t.Run(name, func(t *testing.T) {
			eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
				cfg.SubjectIndex, cfg.MaxAge, cfg.AbsoluteTimeout = true, tt.maxAge, tt.absolute
				sess, err := newManager[User](t, cfg).Create(t.Context(), User{}, echosession.WithSubject("ada"))
				if err != nil {
					t.Fatal(err)
				}
				clock.Advance(tt.later)
				cfg.MaxAge = tt.listed
				list, err := newManager[User](t, cfg).List(t.Context(), "ada")
				if err != nil || len(list) != 1 {
					t.Fatal(len(list), err)
				}
				got := time.Duration(unknown)
				if used := list[0].LastUsedAt(); !used.IsZero() {
					got = used.Sub(sess.CreatedAt())
				}
				if got != tt.want {
					t.Errorf("last used %v after the creation, want %v", got, tt.want)
				}
			})
		})
	}
}

// What is no ID costs no command.
func TestRevokeOfNoID(t *testing.T) {
	faults := echosessiontest.NewFaultStore(echosession.NewMemoryStore())
	m := newManager[User](t, echosession.Config{Store: faults, Secret: testSecret, SubjectIndex: true})
	faults.Fail(nil)
	for _, id := range []string{"", "x", "../" + newID(), strings.ToUpper(newID()), newID() + " "} {
		if found, err := m.Revoke(t.Context(), "ada", id); found || err != nil {
			t.Errorf("Revoke(%q): %v, %v", id, found, err)
		}
	}
	if _, err := m.Revoke(t.Context(), "ada", newID()); !errors.Is(err, echosession.ErrStoreUnavailable) {
		t.Errorf("Revoke while the store is down: %v", err)
	}
	if _, err := m.Count(t.Context(), "ada"); !errors.Is(err, echosession.ErrStoreUnavailable) {
		t.Errorf("Count while the store is down: %v", err)
	}
}

// The name of a device is cut where it is too long, and is always text.
func TestTheNameOfADevice(t *testing.T) {
	m := newManager[User](t, echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret})
	for given, want := range map[string]string{
		"":                                 "",
		"phone":                            "phone",
		strings.Repeat("a", 256):           strings.Repeat("a", 256),
		strings.Repeat("a", 257):           strings.Repeat("a", 256),
		strings.Repeat("a", 255) + "é":     strings.Repeat("a", 255),
		strings.Repeat("a", 253) + "😀tail": strings.Repeat("a", 253),
		strings.Repeat("a", 252) + "😀tail": strings.Repeat("a", 252) + "😀",
		"\xff\xfephone":                    "\uFFFDphone",
	} {
		sess, err := m.Create(t.Context(), User{}, echosession.WithDevice(given))
		if err != nil || sess.Device() != want {
			t.Errorf("WithDevice(%q): %q, %v", given, sess.Device(), err)
		}
		if got := open(t, m, sess.Token()).Device(); got != want {
			t.Errorf("stored: %q, want %q", got, want)
		}
	}
	for name, opt := range map[string]echosession.CreateOption{
		"too long an actor":   echosession.WithActor(strings.Repeat("a", 1025)),
		"an actor of garbage": echosession.WithActor("\xff"),
		"a negative time":     echosession.Remember(-time.Hour),
		"act as a claim":      echosession.WithClaims(echosession.Claims{"act": "x"}),
	} {
		if _, err := m.Create(t.Context(), User{}, opt); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// Who acts in the subject's place is in the token and in the list, and survives a
// rotation.
func TestActor(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		m := newManager[User](t, cfg)
		sess, err := m.Create(t.Context(), User{}, echosession.WithSubject("ada"), echosession.WithActor("support-7"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sess.Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, s := range []*echosession.Session[User]{sess, open(t, m, sess.Token())} {
			act, _ := s.Claims()["act"].(map[string]any)
			if s.Actor() != "support-7" || act["sub"] != "support-7" || len(act) != 1 {
				t.Errorf("%q, %v", s.Actor(), s.Claims())
			}
		}
	})
}

// The cookie outlives the browser for a remembered login alone, also after a renewal and
// a rotation; it is sent again when a tenth of its life has passed.
func TestRemember(t *testing.T) {
	eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
		cfg.Cookie = &echosession.Cookie{Partitioned: true}
		m := newManager[User](t, cfg)
		s := newServer(t, m.Middleware())
		const month = 30 * 24 * time.Hour
		ada := echosession.WithSubject("ada")
		type step func(context.Context, *echosession.Session[User]) error
		renew := func(opts ...echosession.CreateOption) step {
			return func(ctx context.Context, sess *echosession.Session[User]) error {
				_, err := sess.Renew(ctx, keep, opts...)
				return err
			}
		}
		for path, do := range map[string]step{
			"/login": renew(ada), "/remember": renew(ada, echosession.Remember(month)), "/stepup": renew(), "/forget": renew(echosession.Remember(0)),
			"/rotate": sessionCalls["Rotate"], "/read": func(context.Context, *echosession.Session[User]) error { return nil },
			"/touch": sessionCalls["Touch"],
		} {
			route(s, m, path, func(c echo.Context, sess *echosession.Session[User]) error { return do(c.Request().Context(), sess) })
		}
		const none, session = -1, 0
		cookie := ""
		for i, tt := range []struct {
			advance time.Duration
			path    string
			maxAge  int // of the cookie in the answer
		}{
			{0, "/login", session},
			{0, "/read", none},
			{12 * time.Hour, "/read", none},
			{0, "/touch", none},
			{0, "/remember", int(month / time.Second)},
			{0, "/read", none},
			{month/10 - time.Minute, "/read", none},
			{time.Minute, "/read", int(month / time.Second)},
			{0, "/read", none},
			{0, "/touch", int(month / time.Second)},
			{0, "/stepup", int(month / time.Second)},
			{0, "/rotate", int(month / time.Second)},
			{0, "/forget", session},
			{0, "/rotate", session},
			{12 * time.Hour, "/read", none},
		} {
			clock.Advance(tt.advance)
			var headers []string
			if cookie != "" {
				headers = []string{"Cookie", "__Host-session=" + cookie}
			}
			a := s.do(t, s.request(t, "POST", tt.path, "", headers...))
			got := none
			for _, c := range a.Cookies() {
				got, cookie = c.MaxAge, c.Value
				if !c.Partitioned || !c.Secure || !c.HttpOnly {
					t.Errorf("the cookie is %v", c)
				}
			}
			if a.StatusCode != http.StatusOK || got != tt.maxAge {
				t.Errorf("step %d, %s: %d %s, Max-Age %d, want %d", i, tt.path, a.StatusCode, a.body, got, tt.maxAge)
			}
		}
	})
}

type notes struct {
	Flash []string `json:"flash"`
	Once  string   `json:"once"`
	Other int      `json:"other"`
}

// Of several requests one takes what is in a field, and nothing is written where the
// field is empty.
func TestTake(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		m := newManager[notes](t, cfg)
		ctx := t.Context()
		sess, err := m.Create(ctx, notes{Flash: []string{"saved"}, Once: "x", Other: 1})
		if err != nil {
			t.Fatal(err)
		}
		field := func(n *notes) *[]string { return &n.Flash }
		var mu sync.Mutex
		var all []string
		var fns []func()
		for range 8 {
			s, err := m.Open(ctx, sess.Token())
			if err != nil {
				t.Fatal(err)
			}
			fns = append(fns, func() {
				got, err := echosession.Take(ctx, s, field)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				all = append(all, got...)
			})
		}
		race(fns...)
		if !slices.Equal(all, []string{"saved"}) {
			t.Errorf("taken: %q", all)
		}
		s, err := m.Open(ctx, sess.Token())
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Data(); len(got.Flash) != 0 || got.Once != "x" || got.Other != 1 {
			t.Errorf("left: %+v", got)
		}
		before := recordOf(t, cfg, s.ID())
		for range 2 {
			if got, err := echosession.Take(ctx, s, field); got != nil || err != nil {
				t.Errorf("%q, %v", got, err)
			}
		}
		if !slices.Equal(before, recordOf(t, cfg, s.ID())) {
			t.Error("an empty field was written")
		}
		if got, err := echosession.Take(ctx, s, func(n *notes) *string { return &n.Once }); got != "x" || err != nil || s.Data().Once != "" {
			t.Errorf("%q, %v, %+v", got, err, s.Data())
		}
		none, err := m.Open(ctx, "")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := echosession.Take(ctx, none, field); got != nil || err != nil {
			t.Errorf("without a session: %q, %v", got, err)
		}
	})
}

func recordOf(t testing.TB, cfg echosession.Config, id string) []byte {
	t.Helper()
	record, err := storeOf(t, cfg).Load(context.Background(), echosession.Ref{ID: id}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return record
}

// versioned is the second release of a struct: the first one had Name alone.
type versioned struct {
	Name    string `json:"name"`
	Version int    `json:"version"`
	First   string `json:"first"`
}

var errOfMigration = errors.New("the name is secret-42")

func (v *versioned) MigrateSession() error {
	switch v.Name {
	case "refused":
		return errOfMigration
	case "panics":
		panic("secret-42")
	}
	if v.Version < 2 {
		v.Version, v.First, _ = 2, strings.Fields(v.Name + " ?")[0], 0
	}
	return nil
}

type plainJSON struct{}

func (plainJSON) Marshal(v any) ([]byte, error)      { return json.Marshal(v) }
func (plainJSON) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

// MigrateSession has run before anybody sees a value, wherever that was decoded.
func TestMigrateSession(t *testing.T) {
	for name, codec := range map[string]echosession.Codec{"MessagePack": nil, "JSON": plainJSON{}} {
		t.Run(name, func(t *testing.T) {
			var logs logBuffer
			cfg := echosession.Config{
				Store: echosession.NewMemoryStore(), Secret: testSecret, Codec: codec, SubjectIndex: true, Logger: logs.logger(),
			}
			first := newManager[User](t, cfg)
			second := newManager[versioned](t, cfg)
			ctx := t.Context()
			migrated := func(where string, v versioned) {
				t.Helper()
				if v.Version != 2 || v.First != "Ada" {
					t.Errorf("%s: %+v", where, v)
				}
			}
			make := func(name string) *echosession.Session[versioned] {
				sess, err := first.Create(ctx, User{Name: name}, echosession.WithSubject(name))
				if err != nil {
					t.Fatal(err)
				}
				s, err := second.Open(ctx, sess.Token())
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			sess := make("Ada L")
			migrated("Get", sess.Data())
			if err := sess.Reload(ctx); err != nil {
				t.Error(err)
			}
			migrated("Reload", sess.Data())
			migrated("Data again", sess.Data())
			if list, err := second.List(ctx, "Ada L"); err != nil || len(list) != 1 {
				t.Error(len(list), err)
			} else {
				migrated("List", list[0].Data())
			}
			for s, err := range second.All(ctx) {
				if err != nil {
					t.Fatal(err)
				}
				migrated("All", s.Data())
			}
			if err := sess.Update(ctx, func(v *versioned) error { migrated("Update", *v); return nil }); err != nil {
				t.Error(err)
			}
			other := make("Ada L")
			if _, err := other.Renew(ctx, func(v *versioned) error { migrated("Renew", *v); return nil }); err != nil {
				t.Error(err)
			}
			migrated("after Renew", other.Data())

			for name, cause := range map[string]error{"refused": errOfMigration, "panics": echosession.ErrCorrupt} {
				s := make(name)
				if s.Exists() || !errors.Is(s.Reason(), echosession.ErrCorrupt) || !errors.Is(s.Reason(), cause) || echosession.CorruptReason(s.Reason()) != "migrate" {
					t.Errorf("%s: %v, %q", name, s.Reason(), echosession.CorruptReason(s.Reason()))
				}
				if strings.Contains(fmt.Sprint(s.Reason()), "secret-42") {
					t.Errorf("the error tells the data: %v", s.Reason())
				}
			}
			if text := logs.String(); strings.Contains(text, "secret-42") || !strings.Contains(text, "MigrateSession refused it") {
				t.Errorf("the log: %s", text)
			}
		})
	}
}

func TestWith(t *testing.T) {
	m := newManager[User](t, echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret})
	s := newServer(t, m.Middleware())
	h := m.With(func(c echo.Context, sess *echosession.Session[User]) error {
		return c.String(http.StatusOK, fmt.Sprint(sess.Exists(), sess.Data().Name))
	})
	s.GET("/", h)
	s.GET("/live", h, m.Require())
	token := newToken(t, m, "Ada")
	for _, tt := range []struct {
		path, token string
		want        string
	}{
		{"/", "", "200 false"}, {"/", token, "200 trueAda"}, {"/live", "", "401"}, {"/live", token, "200 trueAda"},
	} {
		a := s.get(t, tt.path, tt.token)
		if got := fmt.Sprint(a.StatusCode, " ", a.body); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: %s, want %s", tt.path, got, tt.want)
		}
	}
	e := echo.New()
	e.GET("/", h) // without the middleware
	if err := h(e.NewContext(s.request(t, "GET", "/", ""), nil)); !errors.Is(err, echosession.ErrNotInstalled) {
		t.Errorf("without the middleware: %v", err)
	}
}

// A store that is no Pinger is asked for a session that does not exist, and what it says
// of its own stays out of the error's text.
func TestPingOfAStoreOfOnesOwn(t *testing.T) {
	faults := echosessiontest.NewFaultStore(echosession.NewMemoryStore())
	log := new(logBuffer)
	m := newManager[User](t, echosession.Config{Store: faults, Secret: testSecret, Logger: log.logger()})
	if err := m.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	words := errors.New("password hunter2 refused")
	for _, tt := range []struct {
		fault error
		says  string
	}{
		{words, "unknown"},
		{fmt.Errorf("%w: %w", echosession.ErrStoreUnavailable, syscall.ECONNREFUSED), "connection refused"},
	} {
		faults.FailNext(1, tt.fault)
		err := m.Ping(t.Context())
		if !errors.Is(err, echosession.ErrStoreUnavailable) || !errors.Is(err, tt.fault) ||
			!strings.HasSuffix(err.Error(), tt.says) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v, want one that says %q", err, tt.says)
		}
		if said := log.String(); !strings.Contains(said, "operation=ping") || !strings.Contains(said, tt.says) || strings.Contains(said, "hunter2") {
			t.Errorf("the log, which has what a probe is not told: %s", said)
		}
	}
}

// A pinger is a store that tells why it does not work.
type pinger struct {
	echosession.Store
	err error
}

func (p pinger) Ping(context.Context) error { return p.err }

// What a Pinger says is what Ping returns. The answer to a readiness probe does not have the
// cause, and the log does, without a word of the store.
func TestPingIsLogged(t *testing.T) {
	log := new(logBuffer)
	cause := fmt.Errorf("%w: hunter2: %w", echosession.ErrStoreUnavailable, syscall.ECONNREFUSED)
	m := newManager[User](t, echosession.Config{
		Store: pinger{echosession.NewMemoryStore(), cause}, Secret: testSecret, Logger: log.logger(),
	})
	s := newServer(t, m.Middleware())
	s.GET("/readyz", func(c echo.Context) error {
		err := m.Ping(c.Request().Context())
		if err != cause {
			t.Errorf("%v, want %v", err, cause)
		}
		return err
	})
	if a := s.get(t, "/readyz", ""); a.StatusCode != http.StatusServiceUnavailable || strings.Contains(a.body, "refused") {
		t.Errorf("%d: %s", a.StatusCode, a.body)
	}
	if said := log.String(); !strings.Contains(said, `operation=ping cause="connection refused"`) || strings.Contains(said, "hunter2") {
		t.Errorf("the log: %s", said)
	}
}

// Revoke says whether there was a session, also of an ID in the grace of a Rotate.
func TestRevokeOfWhatHasEnded(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		cfg.SubjectIndex, cfg.RotateGrace = true, time.Minute
		m := newManager[User](t, cfg)
		sess, err := m.Create(t.Context(), User{}, echosession.WithSubject("ada"))
		if err != nil {
			t.Fatal(err)
		}
		first := sess.ID()
		for range 2 {
			if _, err := sess.Rotate(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for _, want := range []bool{true, false} {
			if found, err := m.Revoke(t.Context(), "ada", first); found != want || err != nil {
				t.Errorf("found %v, %v", found, err)
			}
		}
		other, err := m.Create(t.Context(), User{}, echosession.WithSubject("ada"))
		if err != nil {
			t.Fatal(err)
		}
		before := other.ID()
		if _, err := other.Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
		if found, err := m.Revoke(t.Context(), "ada", other.ID()); !found || err != nil {
			t.Errorf("found %v, %v", found, err)
		}
		if found, err := m.Revoke(t.Context(), "ada", before); found || err != nil {
			t.Errorf("the ID of before leads to nothing: found %v, %v", found, err)
		}
	})
}

// The time of the last use is not made up: after MaxAge was lowered it is unknown.
func TestTheLastUseAfterMaxAgeWasLowered(t *testing.T) {
	eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
		cfg.SubjectIndex, cfg.MaxAge = true, 24*time.Hour
		if _, err := newManager[User](t, cfg).Create(t.Context(), User{}, echosession.WithSubject("ada")); err != nil {
			t.Fatal(err)
		}
		clock.Advance(time.Hour)
		cfg.MaxAge = time.Hour
		list, err := newManager[User](t, cfg).List(t.Context(), "ada")
		if err != nil || len(list) != 1 || !list[0].LastUsedAt().IsZero() {
			t.Errorf("%v; last used at %v, now %v", err, list[0].LastUsedAt(), clock.Now())
		}
	})
}

// The error of a Pinger keeps its words, and is answered with 503 whatever it is.
func TestPingOfAPinger(t *testing.T) {
	words := errors.New("the table of sessions is missing: run the migration")
	for _, fault := range []error{nil, words, fmt.Errorf("%w: %w", echosession.ErrStoreUnavailable, words)} {
		m := newManager[User](t, echosession.Config{Store: pinger{echosession.NewMemoryStore(), fault}, Secret: testSecret})
		err := m.Ping(t.Context())
		if !errors.Is(err, fault) || (fault != nil) != errors.Is(err, echosession.ErrStoreUnavailable) {
			t.Errorf("%v for %v", err, fault)
		}
		if fault != nil && strings.Count(err.Error(), words.Error()) != 1 {
			t.Errorf("%q", err)
		}
	}
}
