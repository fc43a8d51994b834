package adaptertest

import (
	"net/http"
	"testing"

	"github.com/echosession/echosession"
)

// testCaches checks what an answer tells caches when the session was looked for in
// a cookie and the answer does not carry the cookie.
func (s suite[C, M]) testCaches(t *testing.T) {
	public, shared := header("Cache-Control", "public, max-age=3600"), "Cache-Control: public, max-age=3600"
	encoding := header("Vary", "Accept-Encoding")
	for _, tt := range []struct {
		name, request string
		steps         []step
		answer        string
	}{
		{"a live session", "GET /x\n" + adaCookie, []step{write}, ok("done", private, vary)},
		{"a live session, without a word", "GET /x\n" + adaCookie, nil, response(200, "", private, vary)},
		{"a live session, with a status", "GET /x\n" + adaCookie, []step{status(204)}, response(204, "", private, vary)},
		{"a live session, with an error", "GET /x\n" + adaCookie, []step{fails(echosession.ErrConflict)}, with(conflict, private, vary)},
		{"a live session, and the handler's own word", "GET /x\n" + adaCookie, []step{public, write}, ok("done", shared, vary)},
		{"a live session, and another Vary", "GET /x\n" + adaCookie, []step{encoding, write},
			ok("done", private, "Vary: Accept-Encoding", vary)},
		{"a Vary that has it already", "GET /x\n" + adaCookie, []step{header("Vary", "Origin, cookie"), write},
			ok("done", private, "Vary: Origin, cookie")},
		{"a Vary of everything", "GET /x\n" + adaCookie, []step{header("Vary", "*"), write}, ok("done", private, "Vary: *")},
		{"no session", "GET /x", []step{public, write}, ok("done", shared, vary)},
		{"no session, and another Vary without a word", "GET /x", []step{encoding}, response(200, "", "Vary: Accept-Encoding", vary)},
		{"a session that is gone", "GET /x\nCookie: __Host-session={gone}", []step{write}, ok("done", vary)},
		{"two cookies", "GET /x\n" + adaCookie + "; __Host-session={bob}", []step{write}, ok("done", vary)},
		{"a token in a header", "GET /x\nAuthorization: Bearer {ada}", []step{write}, ok("done")},
		{"a token in the query", "GET /x?accessToken={ada}", []step{write}, ok("done", private, noReferer)},
		{"two tokens in the query", "GET /x?accessToken={ada}&accessToken={bob}", []step{write}, ok("done", private, noReferer)},
	} {
		site := newSite(t, withCookie)
		site.check(s.serveUsers(site, inOrder(tt.steps...)), exchange{tt.name, tt.request, tt.answer})
	}

	site := newSite(t, withCookie)
	site.store.down.Store(true)
	site.check(s.serveUsers(site, whoami), exchange{"a store that is down", "GET /x\n" + adaCookie, with(unavailable, vary)})
	site = newSite(t)
	site.check(s.serveUsers(site, inOrder(write)), exchange{"no cookie is configured", "GET /x\n" + adaCookie, ok("done")})
}

func (s suite[C, M]) testCrossOrigin(t *testing.T) {
	site := newSite(t, withCookie, func(cfg *echosession.Config) { cfg.TrustedOrigins = []string{"https://app.example"} })
	bearer := "Authorization: Bearer {ada}"
	in, out := ok("ada", private, vary), ok(crossOrigin, vary)
	site.check(s.serveUsers(site, whoami),
		exchange{"POST from this origin", "POST /x\nOrigin: http://shop.example\n" + adaCookie, in},
		exchange{"POST from a program", "POST /x\n" + adaCookie, in},
		exchange{"POST from another origin", "POST /x\nOrigin: https://evil.example\n" + adaCookie, out},
		exchange{"POST from another site", "POST /x\nSec-Fetch-Site: cross-site\n" + adaCookie, out},
		exchange{"POST from a trusted origin", "POST /x\nSec-Fetch-Site: cross-site\nOrigin: https://app.example\n" + adaCookie, in},
		exchange{"GET from another site", "GET /x\nSec-Fetch-Site: cross-site\n" + adaCookie, in},
		exchange{"WebSocket from another site", "GET /x\nUpgrade: websocket\nSec-Fetch-Site: cross-site\n" + adaCookie, out},
		exchange{"WebSocket among other protocols", "GET /x\nUpgrade: h2c, websocket/13\nSec-Fetch-Site: cross-site\n" + adaCookie, out},
		exchange{"POST from another origin with a header", "POST /x\nOrigin: https://evil.example\n" + bearer, ok("ada")},
	)
	site.check(s.serveUsers(site, inOrder(destroy, write)),
		exchange{"Destroy from another origin", "POST /x\nOrigin: https://evil.example\n" + adaCookie, with(refused, vary)})

	// Browsers hold a Lax cookie back from another site's POST.
	const cross = "POST /x\nOrigin: https://evil.example\nSec-Fetch-Site: cross-site\n"
	const sibling = "POST /x\nOrigin: https://blog.shop.example\nSec-Fetch-Site: same-site\n"
	for name, do := range map[string]step{
		"Create": create, "Destroy": destroy, "Create, Rotate and Destroy": inOrder(create, rotate, destroy),
	} {
		site.check(s.serveUsers(site, inOrder(do, write)),
			exchange{name + " without the cookie", cross, with(refused, vary)},
			exchange{name + " from a sibling without the cookie", sibling, with(refused, vary)},
			exchange{name + " from a sibling with the cookie", sibling + adaCookie, with(refused, vary)},
			exchange{name + " with a cookie that is gone", cross + "Cookie: __Host-session={gone}", with(refused, vary)})
	}
	site.check(s.serveUsers(site, inOrder(rotate, write)),
		exchange{"Rotate after a token in the body", cross + "Content-Type: " + form + "\n\naccessToken={bob}", ok("done")})
	site.check(s.serveUsers(site, whoami), exchange{"the session of before", "GET /x\n" + adaCookie, in})
}

// testFlows checks ways to log in, out and on that have to work.
func (s suite[C, M]) testFlows(t *testing.T) {
	apple := "POST /x\nOrigin: null\nSec-Fetch-Site: cross-site\n"
	saml := "POST /x\nOrigin: https://idp.example\nSec-Fetch-Site: cross-site\nContent-Type: " + form + "\n\nSAMLResponse=x"
	verified := createWith(echosession.CrossOriginVerified())
	app := "POST /x\nOrigin: https://app.example\nSec-Fetch-Site: cross-site\n"
	native := "POST /x\nOrigin: capacitor://localhost\n"
	proxied := "POST /x\nOrigin: https://www.shop.example\n"
	untrusted := "POST /x\nOrigin: https://spa.example\nSec-Fetch-Site: cross-site\n"
	set, cleared := ok("done", private, vary, newCookie), ok("done", private, vary, noCookie)
	in := ok("ada", private, vary)
	for _, tt := range []struct {
		name, request string
		steps         []step
		answer        string
	}{
		{"Sign in with Apple", apple, []step{verified, write}, set},
		{"Sign in with Apple, unchecked", apple, []step{create, write}, with(refused, vary)},
		{"Sign in with Apple, by an older browser", "POST /x\nOrigin: null", []step{verified, write}, set},
		{"Sign in with Apple, logged in already", apple + adaCookie, []step{verified, write}, set},
		{"Sign in with Apple, and a mistake afterwards", apple, []step{verified, destroy, write}, cleared},
		{"Sign in with Apple, and new rights", apple, []step{verified, rotate, write}, set},
		{"SAML", saml, []step{verified, write}, set},
		{"SAML, unchecked", saml, []step{create, write}, with(refused, vary)},
		{"SAML for an app", saml, []step{createWith(echosession.TokenOnly()), write}, ok("done", vary)},
		{"a trusted page logs in", app, []step{create, write}, set},
		{"a trusted page works", app + adaCookie, []step{whoami}, in},
		{"a trusted page gets new rights", app + adaCookie, []step{rotate, write}, set},
		{"a trusted page logs out", app + adaCookie, []step{destroy, write}, cleared},
		{"an untrusted page with a bearer token gets new rights", untrusted + "Authorization: Bearer {ada}", []step{rotate, showToken, write}, ok("done", "X-Token: {new}")},
		{"an untrusted page with a bearer token logs out", untrusted + "Authorization: Bearer {ada}", []step{destroy, write}, ok("done")},
		{"an untrusted page logs in for a token", untrusted, []step{createWith(echosession.TokenOnly()), showToken, write}, ok("done", vary, "X-Token: {new}")},
		{"an untrusted page asks for the cookie", untrusted, []step{create, write}, with(refused, vary)},
		{"an app's own scheme logs in", native, []step{create, write}, set},
		{"an app's own scheme works", native + adaCookie, []step{whoami}, in},
		{"behind a proxy that rewrites Host, login", proxied, []step{create, write}, set},
		{"behind a proxy that rewrites Host, logout", proxied + adaCookie, []step{destroy, write}, cleared},
		{"a login's callback by GET", "GET /x?code=1&state=2\nSec-Fetch-Site: cross-site", []step{create, write}, set},
		{"back from a payment by GET", "GET /x?paid=1\nSec-Fetch-Site: cross-site\n" + adaCookie, []step{whoami}, in},
		{"back from a payment by POST, without the Lax cookie", untrusted, []step{whoami}, ok(noToken, vary)},
		{"a form without JavaScript", "POST /x\nOrigin: http://shop.example\nContent-Type: " + form + "\n\nname=ada", []step{create, write}, set},
		{"a form of a browser that says where it is", "POST /x\nSec-Fetch-Site: same-origin\nOrigin: http://shop.example\n" + adaCookie, []step{destroy, write}, cleared},
		{"curl logs in", "POST /x", []step{create, write}, set},
		{"curl works", "POST /x\n" + adaCookie, []step{whoami}, in},
		{"curl logs out", "POST /x\n" + adaCookie, []step{destroy, write}, cleared},
	} {
		site := newSite(t, withCookie, func(cfg *echosession.Config) {
			cfg.TrustedOrigins = []string{"https://app.example", "capacitor://localhost", "https://www.shop.example"}
		})
		site.check(s.serveUsers(site, inOrder(tt.steps...)), exchange{tt.name, tt.request, tt.answer})
	}

	// The session that came with a login from another site has ended.
	site := newSite(t, withCookie)
	site.check(s.serveUsers(site, inOrder(verified, write)), exchange{"a login from another site", apple + adaCookie,
		with(ok("done", private, vary), newCookie)})
	site.check(s.serveUsers(site, whoami), exchange{"the session of before it", "GET /x\n" + adaCookie, ok(sessionGone, vary)})
}

// showToken is the step that hands the token to a client that keeps it.
func showToken(w http.ResponseWriter, _ *http.Request, sess *echosession.Session[User]) error {
	w.Header().Set("X-Token", sess.Token())
	return nil
}
