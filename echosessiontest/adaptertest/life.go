package adaptertest

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/echosession/echosession"
)

// loginAs is the step that logs a user in to the session of the request.
func loginAs(name string, opts ...echosession.CreateOption) step {
	return renewWith(name, append([]echosession.CreateOption{echosession.WithSubject(name)}, opts...)...)
}

// renewWith is the step that renews the session of the request for a user.
func renewWith(name string, opts ...echosession.CreateOption) step {
	return func(_ http.ResponseWriter, r *http.Request, sess *echosession.Session[User]) error {
		_, err := sess.Renew(r.Context(), func(u *User) error { u.Name = name; return nil }, opts...)
		return err
	}
}

// buy is the step that puts something into the cart, also that of a guest.
func buy(item string) step {
	return func(_ http.ResponseWriter, r *http.Request, sess *echosession.Session[User]) error {
		return sess.UpdateOrCreate(r.Context(), func(u *User) error {
			if item != "" {
				u.Cart = append(u.Cart, item)
			}
			return nil
		})
	}
}

// update is the step that puts something into the cart of a live session.
func update(_ http.ResponseWriter, r *http.Request, sess *echosession.Session[User]) error {
	return sess.Update(r.Context(), func(u *User) error { u.Cart = append(u.Cart, "pear"); return nil })
}

// showUser is the step that writes the name and the cart.
func showUser(w http.ResponseWriter, _ *http.Request, sess *echosession.Session[User]) error {
	_, err := fmt.Fprint(w, sess.Data().Name, " ", sess.Data().Cart)
	return err
}

// keep is the step that gives the token of the session a name.
func (s *site) keep(name string) step {
	return func(_ http.ResponseWriter, _ *http.Request, sess *echosession.Session[User]) error {
		s.tokens[name] = sess.Token()
		return nil
	}
}

// newShop makes a site with three more tokens, of sessions with an apple in their
// carts: guest of one in which nobody has logged in, user of one of the subject ada,
// and renewed of one that has a newer token.
func newShop(t *testing.T, opts ...func(*echosession.Config)) *site {
	t.Helper()
	s := newSite(t, opts...)
	fill := func(u *User) error { u.Cart = []string{"apple"}; return nil }
	sess, err := s.users.Open(t.Context(), "")
	if err == nil {
		err = sess.UpdateOrCreate(t.Context(), fill)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.tokens["guest"] = sess.Token()
	for _, name := range []string{"user", "renewed"} {
		sess, err := s.users.Create(t.Context(), User{"ada", []string{"apple"}}, echosession.WithSubject("ada"))
		if err != nil {
			t.Fatal(err)
		}
		s.tokens[name] = sess.Token()
		if name == "renewed" {
			_, err = sess.Renew(t.Context(), fill)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// meanwhile is the step in which another request logs in to the guest's session.
func (s *site) meanwhile(_ http.ResponseWriter, r *http.Request, _ *echosession.Session[User]) error {
	sess, err := s.users.Open(r.Context(), s.tokens["guest"])
	if err != nil {
		return err
	}
	_, err = sess.Renew(r.Context(), func(u *User) error { u.Name = "ada"; return nil }, echosession.WithSubject("ada"))
	return err
}

// cookieOf is the line that sets the cookie to the token of that name.
func cookieOf(name string) string {
	return "Set-Cookie: __Host-session={" + name + "}; Path=/; HttpOnly; Secure; SameSite=Lax"
}

const (
	guestCookie   = "Cookie: __Host-session={guest}"
	userCookie    = "Cookie: __Host-session={user}"
	renewedCookie = "Cookie: __Host-session={renewed}"
)

func (s suite[C, M]) testLogin(t *testing.T) {
	set, guest := ok("done", private, vary, newCookie), "POST /x\n"+guestCookie
	for _, tt := range []struct {
		name, request string
		steps         []step
		answer        string
	}{
		{"of a guest", guest, []step{loginAs("ada"), showUser}, ok("ada [apple]", private, vary, newCookie)},
		{"of nobody", "POST /x", []step{loginAs("ada"), showUser}, ok("ada []", private, vary, newCookie)},
		{"that does not say who it is", "POST /x", []step{renewWith("ada"), write}, with(unauthorized, vary)},
		{"without a word", guest, []step{loginAs("ada")}, response(200, "", private, vary, newCookie)},
		{"in an answer that is public", guest, []step{loginAs("ada"), header("Cache-Control", "public"), write}, set},
		{"again", "POST /x\n" + userCookie, []step{renewWith("ada"), showUser}, ok("ada [apple]", private, vary, newCookie)},
		{"as somebody else", "POST /x\n" + userCookie, []step{loginAs("eve"), showUser}, ok("eve []", private, vary, newCookie)},
		{"and out", guest, []step{loginAs("ada"), destroy, write}, ok("done", private, vary, noCookie)},
		{"with a cookie whose session is gone", "POST /x\nCookie: __Host-session={gone}", []step{loginAs("ada"), write}, set},
		{"with a cookie that was renewed", "POST /x\n" + renewedCookie, []step{loginAs("ada"), write}, set},
		{"after the header", guest, []step{write, tooLate(loginAs("ada"))}, ok("done true", private, vary)},
		{"with two cookies", guest + "; __Host-session={ada}", []step{loginAs("ada"), write}, with(ambiguous, vary)},
		{"with a bearer token", "POST /x\nAuthorization: Bearer {guest}", []step{loginAs("ada"), showToken, showUser}, ok("ada [apple]", "X-Token: {new}")},
		{"with a token in the query", "POST /x?accessToken={guest}", []step{loginAs("ada"), write}, ok("done", private, noReferer)},
		{"for a token alone", guest, []step{loginAs("ada", echosession.TokenOnly()), showToken, write}, ok("done", private, vary, "X-Token: {new}")},
		{"and an error", guest, []step{loginAs("ada"), fails(echosession.ErrConflict)}, with(conflict, private, vary, newCookie)},
	} {
		site := newShop(t, withCookie)
		site.check(s.serveUsers(site, inOrder(tt.steps...)), exchange{tt.name, tt.request, tt.answer})
	}

	// The token from before is worth nothing, and its answers touch no cookie.
	for _, credential := range []string{"Cookie: __Host-session=", "Authorization: Bearer "} {
		site := newShop(t, withCookie)
		before, after, refusal, entry := credential+"{guest}", credential+"{login}", ended, ok("ada [apple]")
		answer := ok("ada [apple]")
		if credential[0] == 'C' {
			refusal, entry, answer = with(ended, vary), with(entry, private, vary), with(answer, private, vary, cookieOf("login"))
		}
		site.check(s.serveUsers(site, inOrder(loginAs("ada"), site.keep("login"), showUser)),
			exchange{"the login", "POST /x\n" + before, answer})
		required := s.serveUsers(site, showUser, s.Users.Require(site.users, echosession.Authenticated()))
		site.check(required,
			exchange{"the token of the login", "GET /x\n" + after, entry},
			exchange{"the token from before", "GET /x\n" + before, refusal})
		site.check(s.serveUsers(site, inOrder(destroy, write)),
			exchange{"a logout with the token from before", "POST /x\n" + before, refusal})
		site.check(required, exchange{"the login, after that", "GET /x\n" + after, entry})
		site.clock.advance(2 * time.Minute)
		site.check(required, exchange{"the token from before, minutes later", "GET /x\n" + before, refusal})
	}

	// Another request logs in while this one is under way.
	for name, do := range map[string]step{
		"Update": update, "Rotate": rotate, "Renew": loginAs("ada"), "Create": create, "Destroy": destroy,
	} {
		site := newShop(t, withCookie)
		site.check(s.serveUsers(site, inOrder(site.meanwhile, do, write)),
			exchange{name + " after another request's login", guest, with(ended, private, vary)})
	}
	site := newShop(t, withCookie)
	site.check(s.serveUsers(site, inOrder(site.meanwhile, buy("pear"), write)),
		exchange{"UpdateOrCreate after another request's login", guest, with(conflict, private, vary)})
}

// testLoginFromElsewhere checks logins that end with a request of another site's page.
func (s suite[C, M]) testLoginFromElsewhere(t *testing.T) {
	apple := "POST /x\nOrigin: null\nSec-Fetch-Site: cross-site\n"
	app := "POST /x\nOrigin: https://app.example\nSec-Fetch-Site: cross-site\n"
	callback := "GET /x?code=1&state=2\nSec-Fetch-Site: cross-site\n"
	verified := loginAs("eve", echosession.CrossOriginVerified())
	for _, tt := range []struct {
		name, request string
		steps         []step
		answer        string
	}{
		{"verified", apple, []step{verified, showUser}, ok("eve []", private, vary, newCookie)},
		{"unchecked", apple, []step{loginAs("eve"), write}, with(refused, vary)},
		{"unchecked, with the cookie", apple + guestCookie, []step{loginAs("eve"), write}, with(refused, vary)},
		{"verified, without a subject", apple, []step{renewWith("eve", echosession.CrossOriginVerified()), write}, with(unauthorized, vary)},
		{"verified, and new rights", apple, []step{verified, renewWith("Eve"), showUser}, ok("Eve []", private, vary, newCookie)},
		{"for an app", apple, []step{loginAs("eve", echosession.TokenOnly()), showToken, write}, ok("done", vary, "X-Token: {new}")},
		{"from a trusted page", app + guestCookie, []step{loginAs("eve"), showUser}, ok("eve [apple]", private, vary, newCookie)},
		{"by a callback", callback + guestCookie, []step{loginAs("eve"), showUser}, ok("eve [apple]", private, vary, newCookie)},
		{"by a callback without the cookie", callback, []step{loginAs("eve"), showUser}, ok("eve []", private, vary, newCookie)},
	} {
		site := newShop(t, withCookie, func(cfg *echosession.Config) { cfg.TrustedOrigins = []string{"https://app.example"} })
		site.check(s.serveUsers(site, inOrder(tt.steps...)), exchange{tt.name, tt.request, tt.answer})
	}

	// Nothing of the session that came along is carried, and that session ends.
	site := newShop(t, withCookie)
	site.check(s.serveUsers(site, inOrder(verified, showUser)),
		exchange{"verified, with a guest's cookie", apple + guestCookie, ok("eve []", private, vary, newCookie)})
	site.check(s.serveUsers(site, whoami),
		exchange{"the guest's session after that", "GET /x\n" + guestCookie, ok(sessionGone, vary)})
}

func (s suite[C, M]) testGuests(t *testing.T) {
	const link = "GET /x\nSec-Fetch-Site: cross-site\n"
	for _, tt := range []struct {
		name, request string
		item          string
		answer        string
	}{
		{"nothing", "POST /x", "", ok(" []", vary)},
		{"something", "POST /x", "pear", ok(" [pear]", private, vary, newCookie)},
		{"more", "POST /x\n" + guestCookie, "pear", ok(" [apple pear]", private, vary)},
		{"more, of a user", "POST /x\n" + userCookie, "pear", ok("ada [apple pear]", private, vary)},
		{"something by a link from another site", link, "pear", ok(" [pear]", private, vary, newCookie)},
		{"something by another site's form", "POST /x\nOrigin: https://evil.example\nSec-Fetch-Site: cross-site", "pear", with(refused, vary)},
		{"something with another site's cookie", "POST /x\nSec-Fetch-Site: cross-site\n" + guestCookie, "pear", with(refused, vary)},
		{"with a cookie whose session is gone", "POST /x\nCookie: __Host-session={gone}", "pear", ok(" [pear]", private, vary, newCookie)},
		{"with a cookie that was renewed", "POST /x\n" + renewedCookie, "pear", with(conflict, vary)},
		{"nothing with a cookie that was renewed", "POST /x\n" + renewedCookie, "", with(conflict, vary)},
		{"with a damaged session", "POST /x\nCookie: __Host-session={damaged}", "pear", with(ended, vary)},
		{"with two cookies", "POST /x\n" + guestCookie + "; __Host-session={ada}", "pear", with(ambiguous, vary)},
		{"with a bearer token", "POST /x\nAuthorization: Bearer {guest}", "pear", ok(" [apple pear]")},
		{"with a bearer token whose session is gone", "POST /x\nAuthorization: Bearer {gone}", "pear", ok(" [pear]")},
	} {
		site := newShop(t, withCookie)
		site.check(s.serveUsers(site, inOrder(buy(tt.item), showUser)), exchange{tt.name, tt.request, tt.answer})
	}
	site := newShop(t, withCookie)
	site.check(s.serveUsers(site, inOrder(write, tooLate(buy("pear")))),
		exchange{"after the header", "POST /x", ok("done true", vary)})

	// Browsers hold a Strict cookie back when a link of another site leads here.
	strict := func(cfg *echosession.Config) { cfg.Cookie = &echosession.Cookie{SameSite: http.SameSiteStrictMode} }
	site = newShop(t, strict)
	site.check(s.serveUsers(site, inOrder(buy("pear"), showUser)),
		exchange{"Strict, by a link from another site", link, with(refused, vary)},
		exchange{"Strict, by a link of this site", "GET /x\nSec-Fetch-Site: same-origin",
			ok(" [pear]", private, vary, strings.Replace(newCookie, "Lax", "Strict", 1))},
		exchange{"Strict, of a guest", "GET /x\nSec-Fetch-Site: same-origin\n" + guestCookie, ok(" [apple pear]", private, vary)})
	site.check(s.serveUsers(site, inOrder(buy(""), showUser)),
		exchange{"Strict, nothing by a link from another site", link, ok(" []", vary)})
}

// testRemember checks the cookie of a session that is remembered, beside those that end
// with the browser.
func (s suite[C, M]) testRemember(t *testing.T) {
	const life = 10 * time.Hour
	remember := echosession.Remember(life)
	persistent := func(name string, seconds int) string {
		return strings.Replace(cookieOf(name), "Path=/;", fmt.Sprintf("Path=/; Max-Age=%d;", seconds), 1)
	}
	kept := ok("done", private, vary, persistent("new", 36000))
	for _, tt := range []struct {
		name, request string
		steps         []step
		answer        string
	}{
		{"Create", "POST /x", []step{createWith(remember), write}, kept},
		{"Create without it", "POST /x", []step{create, write}, ok("done", private, vary, newCookie)},
		{"a login", "POST /x\n" + guestCookie, []step{loginAs("ada", remember), write}, kept},
		{"a login of nobody", "POST /x", []step{loginAs("ada", remember), write}, kept},
		{"a login without it", "POST /x\n" + guestCookie, []step{loginAs("ada"), write}, ok("done", private, vary, newCookie)},
		{"Rotate keeps it", "POST /x", []step{createWith(remember), rotate, write}, kept},
		{"Renew keeps it", "POST /x", []step{loginAs("ada", remember), renewWith("ada"), write}, kept},
		{"Renew drops it", "POST /x", []step{loginAs("ada", remember), renewWith("ada", echosession.Remember(0)), write}, ok("done", private, vary, newCookie)},
		{"somebody else is not remembered", "POST /x", []step{loginAs("ada", remember), loginAs("eve"), write}, ok("done", private, vary, newCookie)},
		{"for a token alone", "POST /x", []step{createWith(remember, echosession.TokenOnly()), write}, ok("done", vary)},
	} {
		site := newShop(t, withCookie)
		site.check(s.serveUsers(site, inOrder(tt.steps...)), exchange{tt.name, tt.request, tt.answer})
	}

	site := newShop(t, withCookie)
	sess, err := site.users.Create(t.Context(), User{Name: "ada"}, remember)
	if err != nil {
		t.Fatal(err)
	}
	site.tokens["remembered"] = sess.Token()
	const cookie = "Cookie: __Host-session={remembered}"
	h := s.serveUsers(site, whoami)
	quiet := ok("ada", private, vary)
	site.check(h, exchange{"soon after", "GET /x\n" + cookie, quiet})
	site.clock.advance(life/10 - time.Second)
	site.check(h, exchange{"not yet a tenth of its life later", "GET /x\n" + cookie, quiet})
	site.clock.advance(time.Second)
	site.check(h,
		exchange{"another session's cookie ends with the browser", "GET /x\n" + adaCookie, quiet},
		exchange{"not for a token in a header", "GET /x\nAuthorization: Bearer {remembered}", ok("ada")},
		exchange{"a tenth of its life later", "GET /x\n" + cookie, ok("ada", private, vary, persistent("remembered", 35999))},
		exchange{"soon after that", "GET /x\n" + cookie, quiet})
}

func (s suite[C, M]) testPartitioned(t *testing.T) {
	partitioned := func(line string) string {
		return strings.Replace(line, "SameSite=Lax", "SameSite=None; Partitioned", 1)
	}
	set := ok("done", private, vary, partitioned(newCookie))
	site := newShop(t, func(cfg *echosession.Config) {
		cfg.Cookie = &echosession.Cookie{SameSite: http.SameSiteNoneMode, Partitioned: true}
	})
	site.check(s.serveUsers(site, inOrder(create, write)), exchange{"Create", "POST /x", set})
	site.check(s.serveUsers(site, inOrder(loginAs("ada"), write)), exchange{"a login", "POST /x\n" + guestCookie, set})
	site.check(s.serveUsers(site, inOrder(destroy, write)),
		exchange{"a logout", "POST /x\n" + userCookie, ok("done", private, vary, partitioned(noCookie))})
}

func (s suite[C, M]) testAuthenticated(t *testing.T) {
	challenge := func(message, more string) string {
		return failure(401, message, private, vary,
			`Www-Authenticate: Bearer realm="session", error="insufficient_user_authentication", error_description="`+message+`"`+more)
	}
	guest := challenge("authentication is required", "")
	site := newShop(t, withCookie)
	required := s.serveUsers(site, showUser, s.Users.Require(site.users))
	authenticated := s.serveUsers(site, showUser, s.Users.Require(site.users, echosession.Authenticated()))
	fresh := s.serveUsers(site, showUser, s.Users.Require(site.users, echosession.Fresh(time.Minute)))
	stale := challenge("a more recent login is required", `, max_age="60"`)
	in := ok("ada [apple]", private, vary)
	site.check(required, exchange{"a guest where any session will do", "GET /x\n" + guestCookie, ok(" [apple]", private, vary)})
	site.check(authenticated,
		exchange{"a guest", "GET /x\n" + guestCookie, guest},
		exchange{"a user", "GET /x\n" + userCookie, in},
		exchange{"nobody", "GET /x", with(unauthorized, vary)})
	site.check(fresh,
		exchange{"a guest where a recent login is needed", "GET /x\n" + guestCookie, stale},
		exchange{"a user where a recent login is needed", "GET /x\n" + userCookie, in})
	site.clock.advance(2 * time.Minute)
	site.check(fresh, exchange{"a user whose login is too long ago", "GET /x\n" + userCookie, stale})

	// Rotate makes no session fresh, and Renew does.
	for _, tt := range []struct {
		name string
		do   step
		want string
	}{
		{"Rotate", rotate, strings.Replace(stale, "{user}", "{new}", 1)},
		{"Renew", renewWith("ada"), in},
	} {
		site := newShop(t, withCookie)
		site.clock.advance(2 * time.Minute)
		site.check(s.serveUsers(site, inOrder(tt.do, site.keep("next"), write)),
			exchange{tt.name, "POST /x\n" + userCookie, ok("done", private, vary, cookieOf("next"))})
		site.check(s.serveUsers(site, showUser, s.Users.Require(site.users, echosession.Fresh(time.Minute))),
			exchange{"after " + tt.name, "GET /x\nCookie: __Host-session={next}", tt.want})
	}
}

func (s suite[C, M]) testTooMany(t *testing.T) {
	tooMany := failure(403, "too many sessions")
	refuse := func(cfg *echosession.Config) {
		cfg.SubjectIndex, cfg.MaxSessions, cfg.WhenFull = true, 2, echosession.RefuseNew
	}
	ada := echosession.WithSubject("ada")
	for _, tt := range []struct {
		name, request string
		do            step
		answer        string
	}{
		{"Create", "POST /x", createWith(ada), with(tooMany, vary)},
		{"a login of nobody", "POST /x", loginAs("ada"), with(tooMany, vary)},
		{"a login of a guest", "POST /x\n" + guestCookie, loginAs("ada"), with(tooMany, private, vary)},
		{"a user's own session again", "POST /x\n" + userCookie, renewWith("ada"), ok("done", private, vary, newCookie)},
		{"another user", "POST /x", loginAs("eve"), ok("done", private, vary, newCookie)},
	} {
		site := newShop(t, withCookie, refuse)
		site.check(s.serveUsers(site, inOrder(tt.do, write)), exchange{tt.name, tt.request, tt.answer})
		site.check(s.serveUsers(site, showUser), exchange{"the guest after " + tt.name, "GET /x\n" + guestCookie, ok(" [apple]", private, vary)})
	}
}

// testWords checks the words of [echosession.Config.TokenLookup].
func (s suite[C, M]) testWords(t *testing.T) {
	site := newSite(t, withCookie, withLookup("bearer,cookie"))
	h := s.serveUsers(site, whoami)
	site.check(h,
		exchange{"a bearer token", "GET /x\nAuthorization: Bearer {ada}", ok("ada")},
		exchange{"the cookie", "GET /x\n" + adaCookie, ok("ada", private, vary)},
		exchange{"the same token twice", "GET /x\nAuthorization: Bearer {ada}\n" + adaCookie, ok("ada", private, vary)},
		exchange{"two tokens", "GET /x\nAuthorization: Bearer {bob}\n" + adaCookie, ok(ambiguousToken, vary)},
		exchange{"another header", "GET /x\nX-Access-Token: {ada}", ok(noToken, vary)},
		exchange{"the query", "GET /x?accessToken={ada}", ok(noToken, vary)},
		exchange{"the body", body(form, "accessToken={ada}"), ok(noToken, vary)})
	site = newSite(t, withLookup("bearer"))
	site.check(s.serveUsers(site, whoami), exchange{"only a bearer token, the cookie", "GET /x\n" + adaCookie, ok(noToken)})
	site = newSite(t, withCookie, withLookup("cookie"))
	site.check(s.serveUsers(site, whoami), exchange{"only the cookie, a bearer token", "GET /x\nAuthorization: Bearer {ada}", ok(noToken, vary)})
}

func (s suite[C, M]) testWith(t *testing.T) {
	if s.Users.With == nil {
		t.Skip("the adapter has none")
	}
	site := newSite(t, func(cfg *echosession.Config) { cfg.RequestKey = "account" })
	install := s.Users.Middleware(site.users)
	show := s.Users.With(site.users, func(c C, sess *echosession.Session[User]) error {
		return whoami(s.Writer(c), s.Request(c), sess)
	})
	site.check(s.Serve(show, install),
		exchange{"a live session", "GET /x\nAuthorization: Bearer {ada}", ok("ada")},
		exchange{"none", "GET /x", ok(noToken)})
	realm := func(answer string) string { return strings.Replace(answer, `"session"`, `"account"`, 1) }
	site.check(s.Serve(show, install, s.Users.Require(site.users)),
		exchange{"required", "GET /x\nAuthorization: Bearer {ada}", ok("ada")},
		exchange{"required, none", "GET /x", realm(unauthorized)})
	site.check(s.Serve(s.Users.With(site.users, func(C, *echosession.Session[User]) error { return echosession.ErrConflict }), install),
		exchange{"an error of the function", "GET /x", conflict})
	site.check(s.Serve(show), exchange{"without the middleware", "GET /x\nAuthorization: Bearer {ada}", foreign})
	site.store.down.Store(true)
	site.check(s.Serve(show, install), exchange{"a store that is down", "GET /x\nAuthorization: Bearer {ada}", unavailable})
}
