package adaptertest

import (
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/echosession/echosession"
)

// PutTicket and TakeTicket make the store one that keeps tickets.
func (s *store) PutTicket(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return s.Store.(echosession.TicketStore).PutTicket(ctx, key, value, ttl)
}

func (s *store) TakeTicket(ctx context.Context, key string) ([]byte, error) {
	return s.Store.(echosession.TicketStore).TakeTicket(ctx, key)
}

// withTickets is a Config that looks for tickets too.
func withTickets(cfg *echosession.Config) {
	withCookie(cfg)
	cfg.TokenLookup = "bearer,cookie,body:accessToken,ticket:ticket"
}

// ticket makes a ticket of the session of a token, for {name} to stand for it.
func (s *site) ticket(name, of, path string, opts ...echosession.TicketOption) {
	s.t.Helper()
	sess, err := s.users.Open(s.t.Context(), s.tokens[of])
	if err != nil {
		s.t.Fatal(err)
	}
	if s.tokens[name], err = sess.Ticket(s.t.Context(), path, opts...); err != nil {
		s.t.Fatal(err)
	}
}

// ticketCall answers what a method says of a session that a ticket has opened.
func ticketCall(call func(ctx context.Context, sess *echosession.Session[User]) error) func(http.ResponseWriter, *http.Request, *echosession.Session[User]) error {
	return func(w http.ResponseWriter, r *http.Request, sess *echosession.Session[User]) error {
		if err := call(r.Context(), sess); err != nil {
			return err
		}
		_, err := io.WriteString(w, "done")
		return err
	}
}

func (s suite[C, M]) testTickets(t *testing.T) {
	site := newSite(t, withTickets)
	for _, name := range []string{"t1", "t2", "t3", "t4", "t5", "t6"} {
		site.ticket(name, "ada", "/x")
	}
	const own = "https://app.example.com"
	for _, name := range []string{"o1", "o2", "o3"} {
		site.ticket(name, "ada", "/x", echosession.TicketOrigin(own))
	}
	site.ticket("any", "ada", echosession.AnyPath)
	site.ticket("escaped", "ada", "/a%2Fb")
	site.ticket("last", "bob", "/x")
	bob, err := site.users.Open(t.Context(), site.tokens["bob"])
	if err == nil {
		err = bob.Destroy(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	spent := ok(invalidToken, private, noReferer)
	site.check(s.serveUsers(site, whoami),
		exchange{"once", "GET /x?a=b&ticket={t1}", ok("ada", private, noReferer)},
		exchange{"once more", "GET /x?ticket={t1}", spent},
		exchange{"beside a cookie and a token", "GET /x?ticket={t2}\nAuthorization: Bearer {gone}\n" + adaCookie + "x", ok("ada", private, noReferer)},
		exchange{"spent, beside a cookie", "GET /x?ticket={t2}\n" + adaCookie, spent},
		exchange{"another path", "GET /y?ticket={t3}", spent},
		exchange{"then the right one", "GET /x?ticket={t3}", spent},
		exchange{"HEAD", "HEAD /x?ticket={t4}", ok("ada", private, noReferer)[:len(ok("ada", private, noReferer))-len("ada")]},
		exchange{"after a HEAD", "GET /x?ticket={t4}", spent},
		exchange{"in upper case", "GET /x?TICKET={t5}", ok(noToken, vary)},
		exchange{"as a token", "GET /x\nAuthorization: Bearer {t5}", ok(invalidToken)},
		exchange{"in a body", body(form, "ticket={t5}"), ok(noToken, vary)},
		exchange{"twice", "GET /x?ticket={t5}&ticket={t5}", ok(ambiguousToken, private, noReferer)},
		exchange{"malformed", "GET /x?ticket={t5}A", ok(invalidToken, private, noReferer, vary)},
		exchange{"malformed, beside a cookie", "GET /x?ticket={t5}A\n" + adaCookie, ok("ada", private, noReferer, vary)},
		exchange{"none", "GET /x?ticket=", ok(noToken, vary)},
		exchange{"any path", "GET /anywhere?ticket={any}", ok("ada", private, noReferer)},
		exchange{"a path with an escape", "GET /a%2Fb?ticket={escaped}", ok("ada", private, noReferer)},
		exchange{"an origin", "GET /x?ticket={o1}\nOrigin: " + own, ok("ada", private, noReferer)},
		exchange{"another origin", "GET /x?ticket={o2}\nOrigin: https://evil.example", spent},
		exchange{"no origin, from its own page", "GET /x?ticket={o3}\nSec-Fetch-Site: same-origin", ok("ada", private, noReferer)},
		exchange{"of a session that is gone", "GET /x?ticket={last}", ok(sessionGone, private, noReferer)},
	)
	site.check(s.serveUsers(site, echoBody),
		exchange{"beside a body", "POST /x?ticket={t6}\nContent-Type: " + form + "\n\naccessToken={gone}", ok("ada "+site.expand("accessToken={gone}")+" <nil>", private, noReferer)})
	site.ticket("required", "ada", "/x")
	site.ticket("down", "ada", "/x")
	required := s.serveUsers(site, whoami, s.Users.Require(site.users))
	site.check(required,
		exchange{"before Require", "GET /x?ticket={required}", ok("ada", private, noReferer)},
		exchange{"spent, before Require", "GET /x?ticket={required}", with(ended, private, noReferer)})
	site.store.down.Store(true)
	site.check(required, exchange{"while the store is down", "GET /x?ticket={down}", with(unavailable, private, noReferer)})
	site.store.down.Store(false)
	site.check(required, exchange{"when the store is back", "GET /x?ticket={down}", with(ended, private, noReferer)})
	s.testTicketCalls(t)
}

// testTicketCalls tries what a session can do that a ticket has opened.
func (s suite[C, M]) testTicketCalls(t *testing.T) {
	for _, tt := range []struct {
		name   string
		call   func(ctx context.Context, sess *echosession.Session[User]) error
		answer string
	}{
		{"create", func(ctx context.Context, sess *echosession.Session[User]) error {
			_, err := sess.Create(ctx, User{Name: "eve"})
			return err
		}, unauthorized},
		{"renew", func(ctx context.Context, sess *echosession.Session[User]) error {
			_, err := sess.Renew(ctx, nil)
			return err
		}, unauthorized},
		{"rotate", func(ctx context.Context, sess *echosession.Session[User]) error {
			_, err := sess.Rotate(ctx)
			return err
		}, unauthorized},
		{"another ticket", func(ctx context.Context, sess *echosession.Session[User]) error {
			_, err := sess.Ticket(ctx, "/x")
			return err
		}, unauthorized},
		{"update", func(ctx context.Context, sess *echosession.Session[User]) error {
			return sess.Update(ctx, func(u *User) error { u.Cart = nil; return nil })
		}, ok("done")},
		{"touch", func(ctx context.Context, sess *echosession.Session[User]) error { return sess.Touch(ctx) }, ok("done")},
		{"destroy", func(ctx context.Context, sess *echosession.Session[User]) error { return sess.Destroy(ctx) }, ok("done")},
	} {
		site := newSite(t, withTickets, func(cfg *echosession.Config) { cfg.Cookie.Persistent = true })
		site.ticket("ticket", "ada", "/x")
		site.check(s.serveUsers(site, ticketCall(tt.call)),
			exchange{tt.name, "POST /x?ticket={ticket}\n" + adaCookie, with(tt.answer, private, noReferer)})
	}
	// Without a session, nothing is created for a request with a ticket.
	site := newSite(t, withTickets)
	site.tokens["ticket"] = "AAAAAAAAAAAAAAAAAAAAAA"
	guest := s.serveUsers(site, ticketCall(func(ctx context.Context, sess *echosession.Session[User]) error {
		return sess.UpdateOrCreate(ctx, func(u *User) error { u.Name = "guest"; return nil })
	}))
	site.check(guest,
		exchange{"no guest", "POST /x?ticket={ticket}", with(unauthorized, private, noReferer)},
		exchange{"a guest without a ticket", "POST /x", ok("done", private, vary, newCookie)})
}
