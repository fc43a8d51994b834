package echosession_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

// withTickets makes a Config look for tickets beside tokens and the cookie.
func withTickets(cfg echosession.Config) echosession.Config {
	cfg.Cookie, cfg.TokenLookup = &echosession.Cookie{}, "bearer,cookie,body:accessToken,ticket:ticket"
	return cfg
}

// A ticketSite is a server whose routes say who a request is.
type ticketSite struct {
	*server
	m *echosession.Manager[User]
}

func newTicketSite(t testing.TB, cfg echosession.Config) ticketSite {
	t.Helper()
	m := newManager[User](t, withTickets(cfg))
	s := ticketSite{newServer(t, m.Middleware()), m}
	route(s.server, m, "/*", func(c echo.Context, sess *echosession.Session[User]) error {
		if err := sess.Meets(); err != nil {
			return err
		}
		return c.String(http.StatusOK, sess.Data().Name)
	})
	return s
}

func (s ticketSite) session(t testing.TB, opts ...echosession.CreateOption) *echosession.Session[User] {
	t.Helper()
	sess, err := s.m.Create(t.Context(), User{Name: "Ada"}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return sess
}

// ticketFor makes a ticket of a session.
func ticketFor(t testing.TB, sess *echosession.Session[User], path string, opts ...echosession.TicketOption) string {
	t.Helper()
	ticket, err := sess.Ticket(t.Context(), path, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return ticket
}

// redeemed opens the session of a GET with a ticket, without a server.
func redeemed(t testing.TB, m *echosession.Manager[User], target string, headers ...string) *echosession.Session[User] {
	t.Helper()
	sess, err := redeem(t.Context(), m, target, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return sess
}

func redeem(ctx context.Context, m *echosession.Manager[User], target string, headers ...string) (*echosession.Session[User], error) {
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	c := echo.New().NewContext(r, httptest.NewRecorder())
	var sess *echosession.Session[User]
	err := m.Middleware()(func(c echo.Context) (err error) {
		sess, err = m.Get(c)
		return err
	})(c)
	return sess, err
}

func TestTicketOpensOnce(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		for _, indexed := range []bool{false, true} {
			cfg.SubjectIndex = indexed
			s := newTicketSite(t, cfg)
			for _, subject := range []string{"", "ada"} {
				var opts []echosession.CreateOption
				if subject != "" {
					opts = append(opts, echosession.WithSubject(subject))
				}
				sess := s.session(t, opts...)
				ticket := ticketFor(t, sess, "/events")
				if len(ticket) != 22 {
					t.Errorf("the ticket has %d characters", len(ticket))
				}
				a := s.get(t, "/events?since=1&ticket="+ticket, "")
				if a.StatusCode != http.StatusOK || a.body != "Ada" {
					t.Errorf("%d %s", a.StatusCode, a.body)
				}
				if a.Header.Get("Cache-Control") != "private, no-store" || a.Header.Get("Referrer-Policy") != "no-referrer" || a.Header["Set-Cookie"] != nil {
					t.Errorf("the header is %v", a.Header)
				}
				for range 2 {
					if a := s.get(t, "/events?ticket="+ticket, ""); a.StatusCode != http.StatusUnauthorized {
						t.Errorf("once more: %d %s", a.StatusCode, a.body)
					}
				}
			}
		}
	})
}

// What does not open a session is answered alike, whatever the cause; and whatever the
// cause, the ticket is spent.
func TestTicketsThatOpenNothingLookAlike(t *testing.T) {
	eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
		cfg.SubjectIndex = true
		s := newTicketSite(t, cfg)
		const own = "https://app.example.com"
		want := s.get(t, "/events", "forged")
		for name, tt := range map[string]struct {
			path    string
			opts    []echosession.TicketOption
			before  func(t *testing.T, sess *echosession.Session[User])
			headers []string
			reason  error
		}{
			"another path":       {path: "/other", reason: echosession.ErrInvalidToken},
			"a slash at the end": {path: "/events/", reason: echosession.ErrInvalidToken},
			"a slash before":     {path: "//events", reason: echosession.ErrInvalidToken},
			"upper case":         {path: "/Events", reason: echosession.ErrInvalidToken},
			"an escape":          {path: "/%65vents", reason: echosession.ErrInvalidToken},
			"another origin": {
				path: "/events", opts: []echosession.TicketOption{echosession.TicketOrigin(own)},
				headers: []string{"Origin", "https://evil.example"}, reason: echosession.ErrInvalidToken,
			},
			"the origin null": {
				path: "/events", opts: []echosession.TicketOption{echosession.TicketOrigin(own)},
				headers: []string{"Origin", "null", "Sec-Fetch-Site", "same-origin"}, reason: echosession.ErrInvalidToken,
			},
			"too late": {
				path: "/events", before: func(*testing.T, *echosession.Session[User]) { clock.Advance(30 * time.Second) },
				reason: echosession.ErrInvalidToken,
			},
			"a session that was destroyed": {
				path: "/events", before: func(t *testing.T, sess *echosession.Session[User]) {
					if err := sess.Destroy(t.Context()); err != nil {
						t.Fatal(err)
					}
				}, reason: echosession.ErrSessionGone,
			},
			"a session that was revoked": {
				path: "/events", before: func(t *testing.T, _ *echosession.Session[User]) {
					if _, err := s.m.RevokeSubject(t.Context(), "ada"); err != nil {
						t.Fatal(err)
					}
				}, reason: echosession.ErrSessionGone,
			},
			"a session that was renewed": {
				path: "/events", before: func(t *testing.T, sess *echosession.Session[User]) {
					if _, err := sess.Renew(t.Context(), nil); err != nil {
						t.Fatal(err)
					}
				}, reason: echosession.ErrRenewed,
			},
		} {
			t.Run(name, func(t *testing.T) {
				for _, served := range []bool{true, false} {
					sess := s.session(t, echosession.WithSubject("ada"))
					ticket := ticketFor(t, sess, "/events", tt.opts...)
					target := tt.path + "?ticket=" + ticket
					if tt.before != nil {
						tt.before(t, sess)
					}
					if served {
						a := s.do(t, s.request(t, http.MethodGet, target, "", tt.headers...))
						if a.StatusCode != want.StatusCode || a.body != want.body || a.Header.Get("WWW-Authenticate") != want.Header.Get("WWW-Authenticate") {
							t.Errorf("%d %s %q, want %d %s %q", a.StatusCode, a.body, a.Header["Www-Authenticate"], want.StatusCode, want.body, want.Header["Www-Authenticate"])
						}
					} else if err := redeemed(t, s.m, target, tt.headers...).Reason(); !errors.Is(err, tt.reason) {
						t.Errorf("the reason is %v, want %v", err, tt.reason)
					}
					if err := redeemed(t, s.m, "/events?ticket="+ticket, "Origin", own).Reason(); !errors.Is(err, echosession.ErrInvalidToken) {
						t.Errorf("then the right request: %v", err)
					}
				}
			})
		}
		a := s.get(t, "/events?ticket="+strings.Repeat("A", 22), "")
		if a.StatusCode != want.StatusCode || a.body != want.body || a.Header.Get("WWW-Authenticate") != want.Header.Get("WWW-Authenticate") {
			t.Errorf("a ticket that nobody made: %d %s", a.StatusCode, a.body)
		}
	})
}

// A millisecond before its end a ticket opens the session, by the clock of the Manager and
// by that of the store, and with neither alone later.
func TestTicketEnds(t *testing.T) {
	eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
		cfg = withTickets(cfg)
		m := newManager[User](t, cfg)
		stopped := clock.Now()
		cfg.Now = func() time.Time { return stopped }
		behind := newManager[User](t, cfg)
		skewed := cfg
		skewed.ClockSkew = time.Minute
		for _, tt := range []struct {
			name  string
			by    *echosession.Manager[User]
			after time.Duration
			opens bool
		}{
			{"a millisecond before", m, 30*time.Second - time.Millisecond, true},
			{"at its end", m, 30 * time.Second, false},
			{"the Manager's clock stands still", behind, 30 * time.Second, false},
			{"the clocks may differ, and the store's decides", newManager[User](t, skewed), 30 * time.Second, false},
		} {
			sess, err := m.Create(t.Context(), User{})
			if err != nil {
				t.Fatal(err)
			}
			target := "/?ticket=" + ticketFor(t, sess, "/")
			clock.Advance(tt.after)
			if got := redeemed(t, tt.by, target); got.Exists() != tt.opens {
				t.Errorf("%s: %v", tt.name, got.Reason())
			}
		}
	})
	// The store's clock stands still, and the Manager's decides.
	clock := newClock()
	store := echosession.NewMemoryStore(echosession.WithClock(func() time.Time { return time.Unix(2e9, 0) }))
	for skew, opens := range map[time.Duration]bool{0: false, time.Minute: true} {
		m := newManager[User](t, withTickets(echosession.Config{Store: store, Secret: testSecret, Now: clock.Now, ClockSkew: skew}))
		sess, err := m.Create(t.Context(), User{})
		if err != nil {
			t.Fatal(err)
		}
		target := "/?ticket=" + ticketFor(t, sess, "/")
		clock.Advance(30 * time.Second)
		if got := redeemed(t, m, target); got.Exists() != opens || got.Exists() == errors.Is(got.Reason(), echosession.ErrInvalidToken) {
			t.Errorf("skew %v: %v", skew, got.Reason())
		}
	}
}

// What a request may have beside a ticket does not count, whatever it is.
func TestATicketExcludesOtherPlaces(t *testing.T) {
	for name, headers := range map[string][]string{
		"nothing":                  nil,
		"another token":            {"Authorization", "Bearer {bob}"},
		"another session's cookie": {"Cookie", "__Host-session={bob}"},
		"both":                     {"Authorization", "Bearer {ada}", "Cookie", "__Host-session={bob}"},
		"two cookies":              {"Cookie", "__Host-session={bob}; __Host-session={ada}"},
		"garbage":                  {"Authorization", "Bearer x", "Cookie", "__Host-session=y"},
		"another site's page":      {"Cookie", "__Host-session={bob}", "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTicketSite(t, echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret})
			ada := s.session(t)
			bob, err := s.m.Create(t.Context(), User{Name: "Bob"})
			if err != nil {
				t.Fatal(err)
			}
			names := strings.NewReplacer("{ada}", ada.Token(), "{bob}", bob.Token())
			sent := make([]string, len(headers))
			for i := range headers {
				sent[i] = names.Replace(headers[i])
			}
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				target := "/?ticket=" + ticketFor(t, ada, "/")
				body := "accessToken=" + bob.Token()
				r := s.request(t, method, target, body, append(sent, "Content-Type", formType)...)
				if a := s.do(t, r); a.StatusCode != http.StatusOK || a.body != "Ada" || a.Header["Set-Cookie"] != nil {
					t.Errorf("%s: %d %s %q", method, a.StatusCode, a.body, a.Header["Set-Cookie"])
				}
				// A ticket that is spent does not let the others in, either.
				r = s.request(t, method, target, body, append(sent, "Content-Type", formType)...)
				if a := s.do(t, r); a.StatusCode != http.StatusUnauthorized || a.Header["Set-Cookie"] != nil {
					t.Errorf("%s with a spent ticket: %d %s", method, a.StatusCode, a.body)
				}
			}
		})
	}
}

// A tracked body tells whether somebody read it.
type trackedBody struct {
	io.Reader
	read *bool
}

func (b trackedBody) Read(p []byte) (int, error) { *b.read = true; return b.Reader.Read(p) }
func (trackedBody) Close() error                 { return nil }

// For a ticket no body is read, and a ticket in a body is none.
func TestATicketIsInTheQueryAlone(t *testing.T) {
	fake := newFakeRedis(t)
	m := newManager[User](t, withTickets(echosession.Config{Client: fake, Secret: testSecret}))
	sess, err := m.Create(t.Context(), User{Name: "Ada"})
	if err != nil {
		t.Fatal(err)
	}
	get := func(r *http.Request) (got *echosession.Session[User]) {
		c := echo.New().NewContext(r, httptest.NewRecorder())
		err := m.Middleware()(func(c echo.Context) (err error) {
			got, err = m.Get(c)
			return err
		})(c)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	ticket := ticketFor(t, sess, "/")
	for contentType, body := range map[string]string{
		formType: "ticket=" + ticket, jsonType: `{"ticket":"` + ticket + `"}`,
	} {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		if err := get(r).Reason(); !errors.Is(err, echosession.ErrNoToken) {
			t.Errorf("in a body of %s: %v", contentType, err)
		}
	}
	for _, r := range []*http.Request{
		httptest.NewRequest(http.MethodGet, "/", nil), httptest.NewRequest(http.MethodGet, "/", nil), httptest.NewRequest(http.MethodGet, "/"+ticket, nil),
	} {
		r.Header.Set("Authorization", "Bearer "+ticket)
		r.Header.Set("Cookie", "__Host-session="+ticket+"; ticket="+ticket)
		if err := get(r).Reason(); !errors.Is(err, echosession.ErrInvalidToken) {
			t.Errorf("as a token: %v", err)
		}
	}
	if n := fake.count("getdel"); n != 0 {
		t.Errorf("%d tickets were taken", n)
	}
	read := false
	r := httptest.NewRequest(http.MethodPost, "/?ticket="+ticket, trackedBody{strings.NewReader("accessToken=x"), &read})
	r.Header.Set("Content-Type", formType)
	if got := get(r); !got.Exists() || read {
		t.Errorf("%v; the body was read: %t", got.Reason(), read)
	}
}

// What has not the form of a ticket costs no command and counts as absent.
func TestMalformedTickets(t *testing.T) {
	fake := newFakeRedis(t)
	m := newManager[User](t, withTickets(echosession.Config{Client: fake, Secret: testSecret}))
	sess, err := m.Create(t.Context(), User{Name: "Ada"})
	if err != nil {
		t.Fatal(err)
	}
	ticket := ticketFor(t, sess, "/")
	before := fake.count("")
	for _, malformed := range []string{
		ticket[:21], ticket + "A", ticket + "%3D%3D", ticket[:20] + "=%3D", "%0A" + ticket, ticket[:21] + "%0A", ticket[:11] + "%0D%0A" + ticket[11:20],
		ticket[:21] + "_", ticket[:21] + "B", ticket[:21] + "%2B", ticket[:21] + "/", "x", strings.Repeat("A", 5000), sess.Token(), "%00",
	} {
		got := redeemed(t, m, "/?ticket="+malformed)
		if !errors.Is(got.Reason(), echosession.ErrInvalidToken) {
			t.Errorf("%.60s: %v", malformed, got.Reason())
		}
		if n := fake.count(""); n != before {
			t.Errorf("%.60s: %d commands", malformed, n-before)
		}
		got = redeemed(t, m, "/?ticket="+malformed, "Cookie", "__Host-session="+sess.Token())
		if !got.Exists() || got.Token() != sess.Token() {
			t.Errorf("%.60s beside the cookie: %v", malformed, got.Reason())
		}
		got = redeemed(t, m, "/?ticket="+malformed, "Authorization", "Bearer forged")
		if !errors.Is(got.Reason(), echosession.ErrInvalidToken) {
			t.Errorf("%.60s beside a forged token: %v", malformed, got.Reason())
		}
		before = fake.count("")
	}
	for target, reason := range map[string]error{
		"/": echosession.ErrNoToken, "/?ticket": echosession.ErrNoToken, "/?ticket=": echosession.ErrNoToken, "/?Ticket=" + ticket: echosession.ErrNoToken,
		"/?ticket=" + ticket + "&ticket=" + ticket: echosession.ErrAmbiguousToken,
		"/?ticket=" + ticket + "&ticket=":          echosession.ErrAmbiguousToken,
		"/?ticket=&%74icket=" + ticket:             echosession.ErrAmbiguousToken,
		"/?ticket=x&ticket=y":                      echosession.ErrAmbiguousToken,
	} {
		if got := redeemed(t, m, target); !errors.Is(got.Reason(), reason) {
			t.Errorf("%s: %v, want %v", target, got.Reason(), reason)
		}
		if got := redeemed(t, m, target, "Authorization", "Bearer "+sess.Token()); got.Exists() == (reason == echosession.ErrAmbiguousToken) {
			t.Errorf("%s beside a token: %v", target, got.Reason())
		}
	}
	if n := fake.count("getdel"); n != 0 {
		t.Errorf("%d tickets were taken", n)
	}
	if got := redeemed(t, m, "/?ticket="+ticket[:3]+"%"+fmt.Sprintf("%02x", ticket[3])+ticket[4:]); !got.Exists() {
		t.Errorf("with an escape: %v", got.Reason())
	}
}

// A lookup may name several parameters: one ticket in two of them is fine, two tickets never
// are.
func TestSeveralPlacesForTickets(t *testing.T) {
	m := newManager[User](t, echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret, TokenLookup: "ticket:a, ticket:b,query:a"})
	sess, err := m.Create(t.Context(), User{Name: "Ada"})
	if err != nil {
		t.Fatal(err)
	}
	for target, reason := range map[string]error{
		"/?a={1}": nil, "/?b={1}": nil, "/?a={1}&b={1}": nil, "/?a=x&b={1}": nil, "/?a={1}&b=x": nil, "/?a={token}&b={1}": nil,
		"/?a={1}&b={2}": echosession.ErrAmbiguousToken, "/?a={1}&b=x&b=y": echosession.ErrAmbiguousToken,
		"/?a={token}": nil, "/?a={token}&b=x": nil, "/?b={token}": echosession.ErrInvalidToken, "/?c={1}": echosession.ErrNoToken,
	} {
		names := strings.NewReplacer("{1}", ticketFor(t, sess, "/"), "{2}", ticketFor(t, sess, "/"), "{token}", sess.Token())
		if got := redeemed(t, m, names.Replace(target)); !errors.Is(got.Reason(), reason) {
			t.Errorf("%s: %v, want %v", target, got.Reason(), reason)
		}
	}
}

// What a handle that came with a ticket does, and what it does not.
func TestWhatATicketsHandleDoes(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		cfg = withTickets(cfg)
		cfg.Cookie.Persistent = true
		m := newManager[User](t, cfg)
		s := newServer(t, m.Middleware())
		ctx := t.Context()
		calls := map[string]struct {
			call func(sess *echosession.Session[User]) error
			want error
		}{
			"Create": {func(sess *echosession.Session[User]) error { _, err := sess.Create(ctx, User{}); return err }, echosession.ErrNoSession},
			"Create without a cookie": {func(sess *echosession.Session[User]) error {
				_, err := sess.Create(ctx, User{}, echosession.TokenOnly())
				return err
			}, echosession.ErrNoSession},
			"Create that was verified": {func(sess *echosession.Session[User]) error {
				_, err := sess.Create(ctx, User{}, echosession.CrossOriginVerified(), echosession.WithSubject("ada"))
				return err
			}, echosession.ErrNoSession},
			"Renew": {func(sess *echosession.Session[User]) error { _, err := sess.Renew(ctx, nil); return err }, echosession.ErrNoSession},
			"Renew to login": {func(sess *echosession.Session[User]) error {
				_, err := sess.Renew(ctx, nil, echosession.WithSubject("ada"))
				return err
			}, echosession.ErrNoSession},
			"Rotate": {func(sess *echosession.Session[User]) error { _, err := sess.Rotate(ctx); return err }, echosession.ErrNoSession},
			"Ticket": {func(sess *echosession.Session[User]) error { _, err := sess.Ticket(ctx, "/"); return err }, echosession.ErrNoSession},
			"Touch":  {func(sess *echosession.Session[User]) error { return sess.Touch(ctx) }, nil},
			"Reload": {func(sess *echosession.Session[User]) error { return sess.Reload(ctx) }, nil},
			"Check":  {func(sess *echosession.Session[User]) error { return sess.Check(ctx) }, nil},
			"Update": {func(sess *echosession.Session[User]) error {
				return sess.Update(ctx, func(u *User) error { u.Count++; return nil })
			}, nil},
			"UpdateOrCreate": {func(sess *echosession.Session[User]) error {
				return sess.UpdateOrCreate(ctx, func(u *User) error { u.Count++; return nil })
			}, nil},
			"Destroy": {func(sess *echosession.Session[User]) error { return sess.Destroy(ctx) }, nil},
		}
		for name, tt := range calls {
			route(s, m, "/"+strings.ReplaceAll(name, " ", "-"), func(c echo.Context, sess *echosession.Session[User]) error {
				live := sess.Exists()
				if live && (sess.Token() != "" || sess.Claims() != nil || sess.Data().Name != "Ada" || sess.ExpiresAt().IsZero() || sess.LastUsedAt().IsZero() || sess.AuthenticatedAt().IsZero()) {
					t.Errorf("%s: %q, %v, %+v, until %v, used %v", name, sess.Token(), sess.Claims(), sess.Data(), sess.ExpiresAt(), sess.LastUsedAt())
				}
				err := tt.call(sess)
				switch {
				case !live && name == "Destroy":
					if err != nil {
						t.Errorf("%s without a session: %v", name, err)
					}
				case !live:
					if !errors.Is(err, echosession.ErrNoSession) {
						t.Errorf("%s without a session: %v", name, err)
					}
				case !errors.Is(err, tt.want):
					t.Errorf("%s: %v, want %v", name, err, tt.want)
				case err != nil && !strings.Contains(err.Error(), "ticket"):
					t.Errorf("%s: %v does not say why", name, err)
				}
				if sess.Exists() != (live && name != "Destroy") {
					t.Errorf("%s: afterwards there is a session: %t", name, sess.Exists())
				}
				return c.NoContent(http.StatusNoContent)
			})
		}
		for name := range calls {
			sess, err := m.Create(ctx, User{Name: "Ada"})
			if err != nil {
				t.Fatal(err)
			}
			path := "/" + strings.ReplaceAll(name, " ", "-")
			target := path + "?ticket=" + ticketFor(t, sess, path)
			for range 2 { // the second time without a session
				// The cookie beside it changes nothing.
				a := s.do(t, s.request(t, http.MethodPost, target, "", "Cookie", "__Host-session="+sess.Token()))
				if a.StatusCode != http.StatusNoContent || a.Header["Set-Cookie"] != nil || a.Header.Get("Cache-Control") != "private, no-store" {
					t.Errorf("%s: %d %v", name, a.StatusCode, a.Header)
				}
			}
			after, err := m.Open(ctx, sess.Token())
			if err != nil || after.Exists() != (name != "Destroy") {
				t.Errorf("%s: afterwards the session exists: %t, %v", name, after.Exists(), err)
			}
			if wrote := name == "Update" || name == "UpdateOrCreate"; after.Data().Count == 1 != wrote {
				t.Errorf("%s: %+v", name, after.Data())
			}
		}
	})
}

// A request with a ticket that opens nothing does not even ask what a guest would be.
func TestNoGuestForATicket(t *testing.T) {
	m := newManager[User](t, withTickets(echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret}))
	got := redeemed(t, m, "/?ticket="+strings.Repeat("A", 22))
	ran := false
	err := got.UpdateOrCreate(t.Context(), func(*User) error { ran = true; return nil })
	if !errors.Is(err, echosession.ErrNoSession) || !strings.Contains(err.Error(), "ticket") || ran {
		t.Errorf("%v; fn ran: %t", err, ran)
	}
}

// A stream that a ticket has opened ends with its session, whatever its own handle can do.
func TestWatchThroughATicket(t *testing.T) {
	for name, end := range map[string]func(ctx context.Context, sess *echosession.Session[User]) error{
		"Destroy": func(ctx context.Context, sess *echosession.Session[User]) error { return sess.Destroy(ctx) },
		"Renew": func(ctx context.Context, sess *echosession.Session[User]) error {
			_, err := sess.Renew(ctx, nil)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager[User](t, withTickets(echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret}))
			t.Cleanup(func() { m.Close() })
			sess, err := m.Create(t.Context(), User{Name: "Ada"})
			if err != nil {
				t.Fatal(err)
			}
			stream := redeemed(t, m, "/?ticket="+ticketFor(t, sess, "/"))
			ctx, stop := stream.Watch(t.Context())
			defer stop()
			if err := context.Cause(ctx); err != nil || !stream.Exists() {
				t.Fatalf("at once: %v", err)
			}
			want := map[string]error{"Destroy": echosession.ErrSessionGone, "Renew": echosession.ErrRenewed}[name]
			if err := end(t.Context(), sess); err != nil {
				t.Fatal(err)
			}
			select {
			case <-ctx.Done():
				if err := context.Cause(ctx); !errors.Is(err, want) {
					t.Errorf("%v, want %v", err, want)
				}
			case <-time.After(20 * time.Second):
				t.Error("it goes on")
			}
		})
	}
}

// From what no ticket can be made, and for which paths and origins.
func TestTicketRefuses(t *testing.T) {
	cfg := withTickets(echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret, SubjectIndex: true})
	m := newManager[User](t, cfg)
	sess, err := m.Create(t.Context(), User{}, echosession.WithSubject("ada"))
	if err != nil {
		t.Fatal(err)
	}
	for path, word := range map[string]string{
		"": "slash", "events": "slash", "?x": "slash", "https://a.example/": "slash", "**": "slash", " /": "slash",
		"/events?x=1": "query", "/events?": "query", "/events#x": "query", "/#": "query",
		"/Zoë": "%C3%AB", "/a b": "%20", "/a|b": "%7C", "/%": "path", "/%zz": "path", "/\x00": "path", "/\n": "path", "/\xff": "%FF",
		"/" + strings.Repeat("a", 2048): "AnyPath",
	} {
		ticket, err := sess.Ticket(t.Context(), path)
		if err == nil || ticket != "" || !strings.Contains(err.Error(), word) || !strings.HasPrefix(err.Error(), "echosession: ") {
			t.Errorf("path %.40q: %q, %v, want %q in it", path, ticket, err, word)
		}
	}
	for _, path := range []string{"/", "//", "/events/", "/%2F", "/%c3%ab", "/a%20b", "/..", "/a;b=c,d", "/a:b@c", "/(a)", "/" + strings.Repeat("a", 2047), echosession.AnyPath} {
		target := path
		if path == echosession.AnyPath {
			target = "/whatever"
		}
		got := redeemed(t, m, "http://example.com"+target+"?ticket="+ticketFor(t, sess, path))
		if !got.Exists() {
			t.Errorf("path %.40q: %v", path, got.Reason())
		}
	}
	for _, origin := range []string{
		"", "null", "a.example", "https://", "https://a.example/", "https://a.example:443", "HTTPS://a.example", "https://A.example", "https://u@a.example", "https://a.example?", "://a", "http://a.example:80",
	} {
		if ticket, err := sess.Ticket(t.Context(), "/", echosession.TicketOrigin(origin)); err == nil || ticket != "" || !strings.Contains(err.Error(), "TicketOrigin") {
			t.Errorf("origin %q: %q, %v", origin, ticket, err)
		}
	}
	list, err := m.List(t.Context(), "ada")
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	if _, err := list[0].Ticket(t.Context(), "/"); !errors.Is(err, echosession.ErrNoSession) || !strings.Contains(err.Error(), "listed") {
		t.Errorf("a listed session: %v", err)
	}
	if err := sess.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := sess.Ticket(t.Context(), "/"); !errors.Is(err, echosession.ErrNoSession) || !errors.Is(err, echosession.ErrSessionGone) {
		t.Errorf("a session that is gone: %v", err)
	}
	if _, err := redeemed(t, m, "/").Ticket(t.Context(), "/"); !errors.Is(err, echosession.ErrNoSession) || !errors.Is(err, echosession.ErrNoToken) {
		t.Errorf("no session: %v", err)
	}
}

// plainStore is a Store and nothing else.
type plainStore struct{ echosession.Store }

func TestAStoreWithoutTickets(t *testing.T) {
	cfg := echosession.Config{Store: plainStore{echosession.NewMemoryStore()}, Secret: testSecret}
	m := newManager[User](t, cfg)
	sess, err := m.Create(t.Context(), User{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sess.Ticket(t.Context(), "/"); !errors.Is(err, echosession.ErrUnsupported) || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Ticket: %v", err)
	}
	cfg.TokenLookup = "bearer,ticket:ticket"
	_, err = echosession.New[User](cfg)
	mistake, ok := errors.AsType[*echosession.ConfigError](err)
	if !ok || mistake.Field != "TokenLookup" || !strings.Contains(mistake.Reason, "TicketStore") {
		t.Errorf("New: %v", err)
	}
}

// Ping tries to take a ticket where tickets are read, and nowhere else.
func TestPingTriesTickets(t *testing.T) {
	for lookup, want := range map[string]int{
		"": 0, "bearer,query:ticket": 0, "ticket:ticket": 1, "bearer, ticket:t": 1, "header:ticket:x,bearer": 0,
	} {
		fake := newFakeRedis(t)
		m := newManager[User](t, echosession.Config{Client: fake, Secret: testSecret, TokenLookup: lookup})
		if err := m.Ping(t.Context()); err != nil {
			t.Errorf("%q: %v", lookup, err)
		}
		if n := fake.count("getdel"); n != want {
			t.Errorf("%q: GETDEL was sent %d times, want %d", lookup, n, want)
		}
	}
}

// A ticket bound to an origin.
func TestTicketOrigin(t *testing.T) {
	m := newManager[User](t, withTickets(echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret}))
	sess, err := m.Create(t.Context(), User{})
	if err != nil {
		t.Fatal(err)
	}
	const own = "https://app.example.com"
	for _, tt := range []struct {
		name    string
		headers []string
		bound   bool // whether a ticket that is bound opens the session
	}{
		{"the origin", []string{"Origin", own}, true},
		{"the origin, from another site", []string{"Origin", own, "Sec-Fetch-Site", "cross-site"}, true},
		{"none, from the same origin", []string{"Sec-Fetch-Site", "same-origin"}, true},
		{"none", nil, false},
		{"none, from the same site", []string{"Sec-Fetch-Site", "same-site"}, false},
		{"none, from another site", []string{"Sec-Fetch-Site", "cross-site"}, false},
		{"none, by the address bar", []string{"Sec-Fetch-Site", "none"}, false},
		{"none, in two ways", []string{"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Site", "cross-site"}, false},
		{"an empty one", []string{"Origin", "", "Sec-Fetch-Site", "same-origin"}, false},
		{"null", []string{"Origin", "null"}, false},
		{"another", []string{"Origin", "https://app.example.com.evil.example"}, false},
		{"another scheme", []string{"Origin", "http://app.example.com"}, false},
		{"another port", []string{"Origin", own + ":8443"}, false},
		{"upper case", []string{"Origin", "https://APP.example.com"}, false},
		{"the origin and another", []string{"Origin", own, "Origin", "https://evil.example"}, false},
		{"the origin twice", []string{"Origin", own, "Origin", own}, false},
	} {
		got := redeemed(t, m, "/?ticket="+ticketFor(t, sess, "/", echosession.TicketOrigin(own)), tt.headers...)
		if got.Exists() != tt.bound {
			t.Errorf("%s: %v", tt.name, got.Reason())
		}
		if got := redeemed(t, m, "/?ticket="+ticketFor(t, sess, "/"), tt.headers...); !got.Exists() {
			t.Errorf("%s, a ticket for any: %v", tt.name, got.Reason())
		}
	}
}

// A ticket dies with its token: of a token that was rotated away, with the grace, though the
// session goes on.
func TestTicketOfARotatedToken(t *testing.T) {
	eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
		for _, indexed := range []bool{false, true} {
			cfg := withTickets(cfg)
			cfg.SubjectIndex = indexed
			m := newManager[User](t, cfg)
			sess, err := m.Create(t.Context(), User{Name: "Ada"}, echosession.WithSubject("ada"))
			if err != nil {
				t.Fatal(err)
			}
			old, err := m.Open(t.Context(), sess.Token())
			if err != nil {
				t.Fatal(err)
			}
			before := ticketFor(t, old, "/")
			if _, err := sess.Rotate(t.Context()); err != nil {
				t.Fatal(err)
			}
			late, err := m.Open(t.Context(), old.Token()) // in the grace
			if err != nil || !late.Exists() {
				t.Fatal(err, late.Reason())
			}
			inGrace, atEnd, afterRotate := ticketFor(t, late, "/"), ticketFor(t, late, "/"), ticketFor(t, sess, "/")
			if got := redeemed(t, m, "/?ticket="+inGrace); !got.Exists() || got.ID() != sess.ID() {
				t.Errorf("in the grace: %v", got.Reason())
			}
			clock.Advance(10 * time.Second)
			for _, ticket := range []string{before, atEnd} {
				if got := redeemed(t, m, "/?ticket="+ticket); !errors.Is(got.Reason(), echosession.ErrSessionGone) {
					t.Errorf("after the grace: %v", got.Reason())
				}
			}
			if got := redeemed(t, m, "/?ticket="+afterRotate); !got.Exists() {
				t.Errorf("a ticket of the new token: %v", got.Reason())
			}
		}
	})
}

// The use of a ticket is a use of the session; its making is none. The deadline and the idle
// timeout of the session hold for what the ticket opens.
func TestTicketAndTheLifetimesOfItsSession(t *testing.T) {
	eachClockedStore(t, func(t *testing.T, cfg echosession.Config, clock *clock) {
		cfg = withTickets(cfg)
		m := newManager[User](t, cfg)
		create := func(opts ...echosession.CreateOption) *echosession.Session[User] {
			sess, err := m.Create(t.Context(), User{}, opts...)
			if err != nil {
				t.Fatal(err)
			}
			return sess
		}
		begin := clock.Now()
		sess := create(echosession.WithMaxAge(20 * time.Second))
		clock.Advance(15 * time.Second)
		ticket := ticketFor(t, sess, "/")
		if left := sess.ExpiresAt().Sub(clock.Now()); left != 5*time.Second {
			t.Errorf("Ticket restarts the idle timeout: %v is left", left)
		}
		clock.Advance(4 * time.Second)
		got := redeemed(t, m, "/?ticket="+ticket)
		if want := begin.Add(39 * time.Second); !got.ExpiresAt().Equal(want) || got.LastUsedAt() != clock.Now().UTC() {
			t.Errorf("it ends at %v and was used at %v, want %v; %v", got.ExpiresAt(), got.LastUsedAt(), want, got.Reason())
		}
		ticket = ticketFor(t, sess, "/")
		clock.Advance(20 * time.Second)
		if got := redeemed(t, m, "/?ticket="+ticket); !errors.Is(got.Reason(), echosession.ErrSessionGone) {
			t.Errorf("after the idle timeout: %v", got.Reason())
		}
		for _, opts := range [][]echosession.CreateOption{
			{echosession.WithClaims(echosession.Claims{"exp": clock.Now().Add(20 * time.Second)})},
			{echosession.WithClaims(echosession.Claims{"exp": clock.Now().Add(20 * time.Second)}), echosession.WithMaxAge(time.Hour)},
		} {
			begin = clock.Now()
			sess = create(opts...)
			first, second := ticketFor(t, sess, "/"), ticketFor(t, sess, "/")
			clock.Advance(10 * time.Second)
			if got := redeemed(t, m, "/?ticket="+first); !got.ExpiresAt().Equal(begin.Add(20 * time.Second)) {
				t.Errorf("it ends at %v, %v", got.ExpiresAt(), got.Reason())
			}
			clock.Advance(10 * time.Second)
			if got := redeemed(t, m, "/?ticket="+second); !errors.Is(got.Reason(), echosession.ErrSessionGone) {
				t.Errorf("after the deadline: %v", got.Reason())
			}
			clock.Advance(-20 * time.Second)
		}
	})
}

// redeemAtOnce lets many redeemers at many tickets at once, and returns how often each
// ticket opened a session, and how many redeemers got an error.
func redeemAtOnce(t *testing.T, m *echosession.Manager[User], tickets []string, redeemers int) (opened []int32, failed int) {
	t.Helper()
	const atOnce = 64
	counts := make([]atomic.Int32, len(tickets))
	var errs atomic.Int32
	work := make(chan int)
	var wg sync.WaitGroup
	for range atOnce {
		wg.Go(func() {
			for i := range work {
				sess, err := redeem(context.Background(), m, "/?ticket="+tickets[i])
				switch {
				case err != nil:
					if !errors.Is(err, echosession.ErrStoreUnavailable) {
						t.Errorf("%v", err)
					}
					errs.Add(1)
				case sess.Exists():
					counts[i].Add(1)
				case !errors.Is(sess.Reason(), echosession.ErrInvalidToken):
					t.Errorf("%v", sess.Reason())
				}
			}
		})
	}
	for i := range tickets {
		for range redeemers {
			work <- i
		}
	}
	close(work)
	wg.Wait()
	opened = make([]int32, len(tickets))
	for i := range counts {
		opened[i] = counts[i].Load()
	}
	return opened, int(errs.Load())
}

// makeTickets makes tickets of one session.
func makeTickets(t *testing.T, sess *echosession.Session[User], n int) []string {
	t.Helper()
	tickets := make([]string, n)
	seen := make(map[string]bool)
	for i := range tickets {
		tickets[i] = ticketFor(t, sess, "/")
		seen[tickets[i]] = true
	}
	if len(seen) != n {
		t.Errorf("of %d tickets %d differ", n, len(seen))
	}
	return tickets
}

const (
	manyTickets   = 1000
	batchTickets  = 50 // of them at once: a busy machine redeems these within their 30 seconds
	manyRedeemers = 8
)

// testExactlyOnce lets 8 redeemers at each of 1,000 tickets: each opens the session once.
func testExactlyOnce(t *testing.T, cfg echosession.Config) {
	cfg = withTickets(cfg)
	cfg.StoreTimeout = 20 * time.Second
	m := newManager[User](t, cfg)
	sess, err := m.Create(t.Context(), User{Name: "Ada"})
	if err != nil {
		t.Fatal(err)
	}
	for range manyTickets / batchTickets {
		opened, failed := redeemAtOnce(t, m, makeTickets(t, sess, batchTickets), manyRedeemers)
		if failed > 0 {
			t.Errorf("%d redeemers failed", failed)
		}
		for i, n := range opened {
			if n != 1 {
				t.Fatalf("ticket %d opened the session %d times", i, n)
			}
		}
	}
}

func TestTicketsAreRedeemedOnce(t *testing.T) {
	eachStore(t, testExactlyOnce)
}
