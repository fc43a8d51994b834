package adaptertest

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/echosession/echosession"
)

// A step is what a handler does with its session before it writes "done".
type step func(w http.ResponseWriter, r *http.Request, sess *echosession.Session[User]) error

func create(_ http.ResponseWriter, r *http.Request, sess *echosession.Session[User]) error {
	_, err := sess.Create(r.Context(), User{"eve"})
	return err
}

func rotate(_ http.ResponseWriter, r *http.Request, sess *echosession.Session[User]) error {
	_, err := sess.Rotate(r.Context())
	return err
}

func destroy(_ http.ResponseWriter, r *http.Request, sess *echosession.Session[User]) error {
	return sess.Destroy(r.Context())
}

func write(w http.ResponseWriter, _ *http.Request, _ *echosession.Session[User]) error {
	_, err := io.WriteString(w, "done")
	return err
}

// status is the step that sends the header.
func status(code int) step {
	return func(w http.ResponseWriter, _ *http.Request, _ *echosession.Session[User]) error {
		w.WriteHeader(code)
		return nil
	}
}

// header is the step that sets a header of the answer.
func header(name, value string) step {
	return func(w http.ResponseWriter, _ *http.Request, _ *echosession.Session[User]) error {
		w.Header().Set(name, value)
		return nil
	}
}

// fails is the step that returns an error.
func fails(err error) step {
	return func(http.ResponseWriter, *http.Request, *echosession.Session[User]) error { return err }
}

// tooLate is a step that has to fail, because the header has been sent.
func tooLate(do step) step {
	return func(w http.ResponseWriter, r *http.Request, sess *echosession.Session[User]) error {
		_, _ = fmt.Fprintf(w, " %v", errors.Is(do(w, r, sess), echosession.ErrRequestOver))
		return nil
	}
}

// inOrder is a handler that takes steps until one fails.
func inOrder(steps ...step) step {
	return func(w http.ResponseWriter, r *http.Request, sess *echosession.Session[User]) error {
		for _, do := range steps {
			if err := do(w, r, sess); err != nil {
				return err
			}
		}
		return nil
	}
}

const textType = "Content-Type: text/plain; charset=utf-8"

func (s suite[C, M]) testCookies(t *testing.T) {
	for _, tt := range []struct {
		name, request string
		steps         []step
		answer        string
	}{
		{"set", "POST /x", []step{create, write}, ok("done", private, newCookie)},
		{"set without a body", "POST /x", []step{create, status(204)}, response(204, "", private, newCookie)},
		{"set without a word", "POST /x", []step{create}, response(200, "", private, newCookie)},
		{"set in an answer to HEAD", "HEAD /x", []step{create, write}, strings.TrimSuffix(ok("done", private, newCookie), "done")},
		{"set with a redirect", "POST /x", []step{create, header("Location", "/me"), status(303)},
			response(303, "", private, newCookie, "Location: /me")},
		{"set once", "POST /x", []step{create, create, write}, ok("done", private, newCookie)},
		{"set beside another cookie", "POST /x", []step{header("Set-Cookie", "theme=dark"), create, write},
			ok("done", private, newCookie, "Set-Cookie: theme=dark")},
		{"set although the handler fails afterwards", "POST /x", []step{create, fails(errors.New("another error"))},
			failure(500, "Internal Server Error", private, newCookie)},
		{"set although the handler fails with an error of the package", "POST /x", []step{create, fails(echosession.ErrConflict)},
			failure(409, "the session was changed by another request", private, newCookie)},
		{"replaced by Create", "POST /x\n" + adaCookie, []step{create, write}, ok("done", private, newCookie)},
		{"replaced by Rotate", "POST /x\n" + adaCookie, []step{rotate, write}, ok("done", private, newCookie)},
		{"not set by Rotate after a token in the query", "POST /x?accessToken={ada}", []step{rotate, write}, ok("done", private)},
		{"cleared", "POST /x\n" + adaCookie, []step{destroy, write}, ok("done", private, noCookie)},
		{"cleared where there is no session", "POST /x", []step{destroy, write}, ok("done", private, noCookie)},
		{"cleared after it was set", "POST /x", []step{create, destroy, write}, ok("done", private, noCookie)},
		{"set after it was cleared", "POST /x\n" + adaCookie, []step{destroy, create, write}, ok("done", private, newCookie)},
		{"not set after the header", "POST /x", []step{write, tooLate(create)}, ok("done true")},
		{"not set after WriteHeader", "POST /x", []step{status(202), tooLate(create)}, response(202, " true", textType)},
		{"not replaced after the header", "POST /x\n" + adaCookie, []step{write, tooLate(rotate)}, ok("done true")},
		{"not cleared after the header", "POST /x\n" + adaCookie, []step{write, destroy}, ok("done")},
		{"left alone", "POST /x\n" + adaCookie, []step{write}, ok("done")},
	} {
		site := newSite(t, withCookie)
		site.check(s.serveUsers(site, inOrder(tt.steps...)), exchange{tt.name, tt.request, tt.answer})
	}

	// Without Config.Cookie no cookie is set.
	site := newSite(t)
	site.check(s.serveUsers(site, inOrder(create, write)), exchange{"not configured", "POST /x", ok("done")})
	site.check(s.serveUsers(site, inOrder(write, create, destroy)), exchange{"not configured, after the header", "POST /x", ok("done")})
}

func (s suite[C, M]) testRenewal(t *testing.T) {
	persistent := func(cfg *echosession.Config) {
		cfg.Cookie = &echosession.Cookie{Persistent: true}
		cfg.MaxAge, cfg.TouchInterval = time.Hour, time.Minute
	}
	renewed := "Set-Cookie: __Host-session={ada}; Path=/; Max-Age=3600; HttpOnly; Secure; SameSite=Lax"
	set := strings.Replace(renewed, "{ada}", "{new}", 1)
	site := newSite(t, persistent)
	h := s.serveUsers(site, whoami)
	required := s.serveUsers(site, whoami, s.Users.Require(site.users))
	site.check(s.serveUsers(site, inOrder(create, write)), exchange{"set", "POST /x", ok("done", private, set)})
	site.check(h, exchange{"soon after", "GET /x\n" + adaCookie, ok("ada")})
	site.clock.advance(time.Minute)
	site.check(h,
		exchange{"a TouchInterval later", "GET /x\n" + adaCookie, ok("ada", private, renewed)},
		exchange{"soon after that", "GET /x\n" + adaCookie, ok("ada")})
	site.clock.advance(time.Minute)
	site.check(required, exchange{"by Require", "GET /x\n" + adaCookie, ok("ada", private, renewed)})
	site.clock.advance(time.Minute)
	site.check(h, exchange{"not for a token in a header", "GET /x\nAuthorization: Bearer {ada}", ok("ada")})
	touch := func(_ http.ResponseWriter, r *http.Request, sess *echosession.Session[User]) error {
		return sess.Touch(r.Context())
	}
	site.check(s.serveUsers(site, inOrder(touch, write)),
		exchange{"by Touch", "GET /x\n" + adaCookie, ok("done", private, renewed)})
	site.check(s.serveUsers(site, inOrder(write, touch)),
		exchange{"not by Touch after the header", "GET /x\n" + adaCookie, ok("done")})
}

// testPrivate checks that no cache keeps an answer with the cookie, whatever the
// handler says after it.
func (s suite[C, M]) testPrivate(t *testing.T) {
	public := header("Cache-Control", "public, max-age=3600")
	shared := "Cache-Control: public, max-age=3600"
	for _, tt := range []struct {
		name   string
		steps  []step
		answer string
	}{
		{"before Create", []step{public, create, write}, ok("done", private, newCookie)},
		{"after Create", []step{create, public, write}, ok("done", private, newCookie)},
		{"after Create, with a status", []step{create, public, status(204)}, response(204, "", private, newCookie)},
		{"after Create, without a word", []step{create, public}, response(200, "", private, newCookie)},
		{"after Create, with an error", []step{create, public, fails(echosession.ErrConflict)},
			failure(409, "the session was changed by another request", private, newCookie)},
		{"between Create and Create", []step{create, public, create, public, write}, ok("done", private, newCookie)},
		{"after Destroy", []step{destroy, public, write}, ok("done", private, noCookie)},
		{"without a cookie", []step{public, write}, ok("done", shared)},
	} {
		site := newSite(t, withCookie)
		site.check(s.serveUsers(site, inOrder(tt.steps...)), exchange{tt.name, "POST /x", tt.answer})
	}
}

func (s suite[C, M]) testCrossOrigin(t *testing.T) {
	site := newSite(t, withCookie, func(cfg *echosession.Config) { cfg.TrustedOrigins = []string{"https://app.example"} })
	bearer := "Authorization: Bearer {ada}"
	site.check(s.serveUsers(site, whoami),
		exchange{"POST from this origin", "POST /x\nOrigin: http://shop.example\n" + adaCookie, ok("ada")},
		exchange{"POST from a program", "POST /x\n" + adaCookie, ok("ada")},
		exchange{"POST from another origin", "POST /x\nOrigin: https://evil.example\n" + adaCookie, ok(crossOrigin)},
		exchange{"POST from another site", "POST /x\nSec-Fetch-Site: cross-site\n" + adaCookie, ok(crossOrigin)},
		exchange{"POST from a trusted origin", "POST /x\nSec-Fetch-Site: cross-site\nOrigin: https://app.example\n" + adaCookie, ok("ada")},
		exchange{"GET from another site", "GET /x\nSec-Fetch-Site: cross-site\n" + adaCookie, ok("ada")},
		exchange{"WebSocket from another site", "GET /x\nUpgrade: websocket\nSec-Fetch-Site: cross-site\n" + adaCookie, ok(crossOrigin)},
		exchange{"POST from another origin with a header", "POST /x\nOrigin: https://evil.example\n" + bearer, ok("ada")},
	)
	site.check(s.serveUsers(site, inOrder(destroy, write)),
		exchange{"Destroy from another origin", "POST /x\nOrigin: https://evil.example\n" + adaCookie, refused})
}
