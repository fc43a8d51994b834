package adaptertest

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"testing/iotest"
	"time"

	"github.com/echosession/echosession"
)

// The answers to the errors of package echosession.
var (
	unauthorized = failure(401, "authentication is required", `Www-Authenticate: Bearer realm="session"`)
	ended        = failure(401, "the session is invalid or has ended",
		`Www-Authenticate: Bearer realm="session", error="invalid_token", error_description="the session is invalid or has ended"`)
	ambiguous = failure(400, "more than one token in the request",
		`Www-Authenticate: Bearer realm="session", error="invalid_request", error_description="more than one token in the request"`)
	stale = failure(401, "a more recent login is required",
		`Www-Authenticate: Bearer realm="session", error="insufficient_user_authentication", error_description="a more recent login is required"`)
	refused     = failure(403, "cross-origin request refused")
	conflict    = failure(409, "the session was changed by another request")
	unavailable = failure(503, "the service is temporarily unavailable", "Retry-After: 1")
	mistake     = failure(500, "internal server error")
	foreign     = failure(500, "Internal Server Error")
)

// returned are the answers to the errors that a handler may return.
var returned = []struct {
	name   string
	err    error
	answer string
}{
	{"ErrNoToken", echosession.ErrNoToken, unauthorized},
	{"ErrNoSession", echosession.ErrNoSession, unauthorized},
	{"ErrAmbiguousToken", echosession.ErrAmbiguousToken, ambiguous},
	{"ErrInvalidToken", echosession.ErrInvalidToken, ended},
	{"ErrSessionGone", echosession.ErrSessionGone, ended},
	{"ErrRenewed", echosession.ErrRenewed, ended},
	{"ErrCorrupt", echosession.ErrCorrupt, ended},
	{"ErrNotFresh", echosession.ErrNotFresh, stale},
	{"ErrNotAuthenticated", echosession.ErrNotAuthenticated, failure(401, "authentication is required",
		`Www-Authenticate: Bearer realm="session", error="insufficient_user_authentication", error_description="authentication is required"`)},
	{"ErrTooManySessions", echosession.ErrTooManySessions, failure(403, "too many sessions")},
	{"ErrCrossOrigin", echosession.ErrCrossOrigin, refused},
	{"ErrConflict", echosession.ErrConflict, conflict},
	{"ErrStoreUnavailable", echosession.ErrStoreUnavailable, unavailable},
	{"ErrIndeterminate", echosession.ErrIndeterminate, unavailable},
	{"ErrNotReplicated", echosession.ErrNotReplicated, unavailable},
	{"ErrReservedClaim", echosession.ErrReservedClaim, mistake},
	{"ErrTooLarge", echosession.ErrTooLarge, mistake},
	{"ErrNotInstalled", echosession.ErrNotInstalled, mistake},
	{"ErrTypeMismatch", echosession.ErrTypeMismatch, mistake},
	{"ErrRequestOver", echosession.ErrRequestOver, mistake},
	{"ErrNotFound, which is a store's", echosession.ErrNotFound, foreign},
	{"another error", errors.New("another error"), foreign},
	{"io.EOF", io.EOF, foreign},
	{"none", nil, response(200, "")},
	{"ErrNoSession for ErrSessionGone", fmt.Errorf("%w: %w", echosession.ErrNoSession, echosession.ErrSessionGone), ended},
	{"two errors", errors.Join(errors.New("another error"), echosession.ErrConflict), conflict},
}

func (s suite[C, M]) testReturned(t *testing.T) {
	site := newSite(t)
	for _, tt := range returned {
		t.Run(tt.name, func(t *testing.T) {
			site := newSite(t)
			site.check(s.serveUsers(site, func(http.ResponseWriter, *http.Request, *echosession.Session[User]) error {
				return tt.err
			}), exchange{"as it is", "GET /x", tt.answer})
			if tt.err == nil {
				return
			}
			wrapped := fmt.Errorf("words for the log: %w", tt.err)
			site.check(s.serveUsers(site, func(http.ResponseWriter, *http.Request, *echosession.Session[User]) error {
				return wrapped
			}), exchange{"wrapped", "GET /x", tt.answer})
			site.check(s.serveUsers(site, func(w http.ResponseWriter, _ *http.Request, _ *echosession.Session[User]) error {
				w.WriteHeader(http.StatusAccepted)
				_, _ = io.WriteString(w, "too late")
				return wrapped
			}), exchange{"after the header", "GET /x", response(202, "too late", "Content-Type: text/plain; charset=utf-8")})
		})
	}

	site.check(s.serveUsers(site, func(w http.ResponseWriter, _ *http.Request, _ *echosession.Session[User]) error {
		_, err := io.Copy(w, iotest.ErrReader(echosession.ErrConflict))
		return err
	}), exchange{"of a copy that wrote nothing", "GET /x", conflict})
	site.check(s.Serve(s.handler(whoami)),
		exchange{"of Get without the middleware", "GET /x", foreign})
	site.check(s.Serve(func(c C) error { _, err := s.Staff.Get(c); return err }, s.Users.Middleware(site.users)),
		exchange{"of Get of another type", "GET /x", mistake})
	site.check(s.Serve(func(c C) error { _, err := s.Users.Get(c, "other"); return err }, s.Users.Middleware(site.users)),
		exchange{"of Get under another key", "GET /x", mistake})
	h := s.serveUsers(site, func(w http.ResponseWriter, r *http.Request, sess *echosession.Session[User]) error {
		return sess.Update(r.Context(), func(u *User) error { u.Name = "Eve"; return nil })
	})
	site.check(h, exchange{"of an Update without a session", "GET /x", unauthorized})
	site.store.down.Store(true)
	site.check(h, exchange{"of Get while the store is down", "GET /x\nAuthorization: Bearer {ada}", unavailable})
}

func (s suite[C, M]) testRequire(t *testing.T) {
	site := newSite(t, withCookie)
	h := s.serveUsers(site, whoami, s.Users.Require(site.users))
	site.check(h,
		exchange{"a live session", "GET /x\nAuthorization: Bearer {ada}", ok("ada")},
		exchange{"no token", "GET /x", with(unauthorized, vary)},
		exchange{"no token in a HEAD", "HEAD /x", with("HTTP/1.1 401 Unauthorized\nWww-Authenticate: Bearer realm=\"session\"\n\n", vary)},
		exchange{"a forged token", "GET /x\nAuthorization: Bearer {forged}", ended},
		exchange{"a session that is gone", "GET /x\nAuthorization: Bearer {gone}", ended},
		exchange{"a damaged session", "GET /x\nAuthorization: Bearer {damaged}", ended},
		exchange{"two tokens", "GET /x\nAuthorization: Bearer {ada}\nX-Access-Token: {bob}", ambiguous},
		exchange{"a token in the query that is gone", "GET /x?accessToken={gone}", failure(401, "the session is invalid or has ended", private, noReferer,
			`Www-Authenticate: Bearer realm="session", error="invalid_token", error_description="the session is invalid or has ended"`)},
		exchange{"a cookie from another site", "POST /x\nSec-Fetch-Site: cross-site\n" + adaCookie, with(refused, vary)},
	)
	fresh := s.serveUsers(site, whoami, s.Users.Require(site.users, echosession.Fresh(time.Minute)))
	site.check(fresh, exchange{"a fresh login", "GET /x\nAuthorization: Bearer {ada}", ok("ada")})
	site.clock.advance(2 * time.Minute)
	site.check(fresh,
		exchange{"a login too long ago", "GET /x\nAuthorization: Bearer {ada}", failure(401, "a more recent login is required",
			`Www-Authenticate: Bearer realm="session", error="insufficient_user_authentication", error_description="a more recent login is required", max_age="60"`)},
		exchange{"no login at all", "GET /x", with(unauthorized, vary)})
	site.clock.advance(25 * time.Hour)
	site.check(h, exchange{"a session that has expired", "GET /x\nAuthorization: Bearer {ada}", ended})
	site.store.down.Store(true)
	site.check(h, exchange{"a store that is down", "GET /x\nAuthorization: Bearer {ada}", unavailable})

	site = newSite(t)
	site.check(s.Serve(s.handler(whoami), s.Users.Require(site.users)),
		exchange{"no middleware", "GET /x\nAuthorization: Bearer {ada}", foreign})
}

func (s suite[C, M]) testInstances(t *testing.T) {
	site := newSite(t)
	cfg := site.cfg
	cfg.RequestKey, cfg.RequestArg = "staff", "staffToken"
	staff := newManager[Staff](t, cfg)
	sess, err := staff.Create(t.Context(), Staff{"7"})
	if err != nil {
		t.Fatal(err)
	}
	site.tokens["staff"] = sess.Token()
	users, installStaff := s.Users.Middleware(site.users), s.Staff.Middleware(staff)
	both := func(c C) error {
		user, err := s.Users.Get(c)
		if err != nil {
			return err
		}
		member, err := s.Staff.Get(c, "staff")
		if err != nil {
			return err
		}
		_, err = fmt.Fprint(s.Writer(c), user.Data().Name, " ", member.Data().Badge)
		return err
	}
	tokens := "GET /x\nX-Access-Token: {ada}\nX-Staff-Token: {staff}"
	site.check(s.Serve(both, users, installStaff), exchange{"two keys", tokens, ok("ada 7")})
	site.check(s.Serve(both, installStaff, users), exchange{"two keys the other way round", tokens, ok("ada 7")})
	site.check(s.Serve(both, users, installStaff, users, s.Users.Middleware(site.users)),
		exchange{"the same Manager several times", tokens, ok("ada 7")})
	site.check(s.Serve(both, users, installStaff, s.Users.Require(site.users), s.Staff.Require(staff)),
		exchange{"both required", tokens, ok("ada 7")},
		exchange{"both required, the outer one missing", "GET /x\nX-Staff-Token: {staff}",
			failure(401, "authentication is required", `Www-Authenticate: Bearer realm="staff"`)})
	site.check(s.Serve(func(C) error { return echosession.ErrNoSession }, users, installStaff, users),
		exchange{"the innermost answers", "GET /x", failure(401, "authentication is required", `Www-Authenticate: Bearer realm="staff"`)})

	// Instances that share a key.
	site.check(s.Serve(s.handler(whoami), users, s.Users.Middleware(newManager[User](t, site.cfg))),
		exchange{"a key that another Manager of this type has taken", "GET /x\nAuthorization: Bearer {ada}", mistake})
	site.check(s.Serve(s.handler(whoami), users, s.Staff.Middleware(newManager[Staff](t, site.cfg))),
		exchange{"a key that a Manager of another type has taken", "GET /x\nAuthorization: Bearer {ada}", mistake})
	other := newManager[User](t, site.cfg)
	site.check(s.Serve(s.handler(whoami), users, s.Users.Require(other)),
		exchange{"required of another Manager", "GET /x\nAuthorization: Bearer {ada}", mistake})
	site.check(s.Serve(s.handler(whoami), users, s.Staff.Require(newManager[Staff](t, site.cfg))),
		exchange{"required of another type", "GET /x\nAuthorization: Bearer {ada}", mistake})
	site.check(s.Serve(s.handler(whoami), users, s.Staff.Require(staff)),
		exchange{"required under a key that nobody has taken", "GET /x\nX-Staff-Token: {staff}", mistake})
}

func (s suite[C, M]) testOptions(t *testing.T) {
	if s.Users.Configured == nil {
		t.Skip("the adapter has none")
	}
	site := newSite(t)
	_, install, err := s.Users.Configured(site.cfg, Options{Skip: func(r *http.Request) bool { return r.URL.Path == "/health" }})
	if err != nil {
		t.Fatal(err)
	}
	site.check(s.Serve(func(c C) error {
		sess, err := s.Users.Get(c)
		if errors.Is(err, echosession.ErrNotInstalled) {
			_, err := io.WriteString(s.Writer(c), "not installed")
			return err
		}
		if err != nil {
			return err
		}
		return whoami(s.Writer(c), s.Request(c), sess)
	}, install),
		exchange{"a skipped request", "GET /health\nAuthorization: Bearer {ada}", ok("not installed")},
		exchange{"any other request", "GET /x\nAuthorization: Bearer {ada}", ok("ada")})

	m, install, err := s.Users.Configured(site.cfg, Options{OnError: func(w http.ResponseWriter, r *http.Request, err error) {
		w.WriteHeader(http.StatusTeapot)
		_, _ = fmt.Fprint(w, r.URL.Path, " ", sentinel(err))
	}})
	if err != nil {
		t.Fatal(err)
	}
	teapot := func(text string) string { return response(418, text, "Content-Type: text/plain; charset=utf-8") }
	site.check(s.Serve(func(C) error { return fmt.Errorf("words for the log: %w", echosession.ErrCorrupt) }, install),
		exchange{"an error of the handler", "GET /x", teapot("/x " + corrupt)})
	site.check(s.Serve(s.handler(whoami), install, s.Users.Require(m)),
		exchange{"an error of Require", "GET /x", teapot("/x " + noToken)},
		exchange{"no error", "GET /x\nAuthorization: Bearer {ada}", ok("ada")})
	site.check(s.Serve(func(c C) error {
		_, _ = io.WriteString(s.Writer(c), "too late")
		return echosession.ErrCorrupt
	}, install), exchange{"an error after the header", "GET /x", ok("too late")})
}
