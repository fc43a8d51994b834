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
	_, err := sess.Create(r.Context(), User{Name: "eve"})
	return err
}

// createWith is the step that creates a session with options.
func createWith(opts ...echosession.CreateOption) step {
	return func(_ http.ResponseWriter, r *http.Request, sess *echosession.Session[User]) error {
		_, err := sess.Create(r.Context(), User{Name: "eve"}, opts...)
		return err
	}
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
		{"set", "POST /x", []step{create, write}, ok("done", private, vary, newCookie)},
		{"set without a body", "POST /x", []step{create, status(204)}, response(204, "", private, vary, newCookie)},
		{"set without a word", "POST /x", []step{create}, response(200, "", private, vary, newCookie)},
		{"set in an answer to HEAD", "HEAD /x", []step{create, write}, strings.TrimSuffix(ok("done", private, vary, newCookie), "done")},
		{"set with a redirect", "POST /x", []step{create, header("Location", "/me"), status(303)},
			response(303, "", private, vary, newCookie, "Location: /me")},
		{"set once", "POST /x", []step{create, create, write}, ok("done", private, vary, newCookie)},
		{"set beside another cookie", "POST /x", []step{header("Set-Cookie", "theme=dark"), create, write},
			ok("done", private, vary, newCookie, "Set-Cookie: theme=dark")},
		{"set although the handler fails afterwards", "POST /x", []step{create, fails(errors.New("another error"))},
			failure(500, "Internal Server Error", private, vary, newCookie)},
		{"set although the handler fails with an error of the package", "POST /x", []step{create, fails(echosession.ErrConflict)},
			failure(409, "the session was changed by another request", private, vary, newCookie)},
		{"replaced by Create", "POST /x\n" + adaCookie, []step{create, write}, ok("done", private, vary, newCookie)},
		{"replaced by Rotate", "POST /x\n" + adaCookie, []step{rotate, write}, ok("done", private, vary, newCookie)},
		{"not set by Rotate after a token in the query", "POST /x?accessToken={ada}", []step{rotate, write}, ok("done", private, noReferer)},
		{"cleared", "POST /x\n" + adaCookie, []step{destroy, write}, ok("done", private, vary, noCookie)},
		{"cleared where there is no session", "POST /x", []step{destroy, write}, ok("done", private, vary, noCookie)},
		{"cleared after it was set", "POST /x", []step{create, destroy, write}, ok("done", private, vary, noCookie)},
		{"set after it was cleared", "POST /x\n" + adaCookie, []step{destroy, create, write}, ok("done", private, vary, newCookie)},
		{"not set after the header", "POST /x", []step{write, tooLate(create)}, ok("done true", vary)},
		{"not set after WriteHeader", "POST /x", []step{status(202), tooLate(create)}, response(202, " true", textType, vary)},
		{"not replaced after the header", "POST /x\n" + adaCookie, []step{write, tooLate(rotate)}, ok("done true", private, vary)},
		{"not cleared after the header", "POST /x\n" + adaCookie, []step{write, destroy}, ok("done", private, vary)},
		{"left alone", "POST /x\n" + adaCookie, []step{write}, ok("done", private, vary)},
		{"not set by Create after a token in a header", "POST /x\nAuthorization: Bearer {ada}", []step{create, write}, ok("done")},
		{"not set by Rotate after a token in a header", "POST /x\nX-Access-Token: {ada}", []step{rotate, write}, ok("done")},
		{"not set by Rotate after a token in the body", body(form, "accessToken={ada}"), []step{rotate, write}, ok("done")},
		{"not cleared after a token in a header", "POST /x\nAuthorization: Bearer {ada}", []step{destroy, write}, ok("done")},
		{"not set after a token in a header whose session is gone", "POST /x\nAuthorization: Bearer {gone}", []step{create, write}, ok("done")},
		{"replaced after the same token in a header", "POST /x\nAuthorization: Bearer {ada}\n" + adaCookie, []step{rotate, write},
			ok("done", private, vary, newCookie)},
		{"not set by TokenOnly", "POST /x", []step{createWith(echosession.TokenOnly()), write}, ok("done", vary)},
		{"not set by Rotate after TokenOnly", "POST /x", []step{createWith(echosession.TokenOnly()), rotate, destroy, write}, ok("done", vary)},
		{"TokenOnly after the header", "POST /x", []step{write, createWith(echosession.TokenOnly())}, ok("done", vary)},
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
	const tenth = time.Hour / 10
	quiet := ok("ada", private, vary)
	site.check(s.serveUsers(site, inOrder(create, write)), exchange{"set", "POST /x", ok("done", private, vary, set)})
	site.check(h, exchange{"soon after", "GET /x\n" + adaCookie, quiet})
	site.clock.advance(tenth - time.Second)
	site.check(h, exchange{"not yet a tenth of the idle timeout later", "GET /x\n" + adaCookie, quiet})
	site.clock.advance(time.Second)
	site.check(h,
		exchange{"not for a token in a header", "GET /x\nAuthorization: Bearer {ada}", ok("ada")},
		// The session ends an hour after its last touch, and so does the cookie.
		exchange{"a tenth of the idle timeout later", "GET /x\n" + adaCookie,
			ok("ada", private, vary, strings.Replace(renewed, "3600", "3599", 1))},
		exchange{"soon after that", "GET /x\n" + adaCookie, quiet})
	site.clock.advance(tenth)
	site.check(required, exchange{"by Require", "GET /x\n" + adaCookie, ok("ada", private, vary, renewed)})
	site.clock.advance(tenth)
	site.check(h, exchange{"not for a token in the query", "GET /x?accessToken={ada}\n" + adaCookie, ok("ada", private, noReferer)})
	site.check(s.serveUsers(site, inOrder(header("Cache-Control", "public, max-age=60"), write)),
		exchange{"in an answer that is public", "GET /x\n" + adaCookie, ok("done", private, vary, renewed)})
	touch := func(_ http.ResponseWriter, r *http.Request, sess *echosession.Session[User]) error {
		return sess.Touch(r.Context())
	}
	site.check(s.serveUsers(site, inOrder(touch, write)),
		exchange{"by Touch", "GET /x\n" + adaCookie, ok("done", private, vary, renewed)})
	site.check(s.serveUsers(site, inOrder(write, touch)),
		exchange{"not by Touch after the header", "GET /x\n" + adaCookie, ok("done", private, vary)})
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
		{"before Create", []step{public, create, write}, ok("done", private, vary, newCookie)},
		{"after Create", []step{create, public, write}, ok("done", private, vary, newCookie)},
		{"after Create, with a status", []step{create, public, status(204)}, response(204, "", private, vary, newCookie)},
		{"after Create, without a word", []step{create, public}, response(200, "", private, vary, newCookie)},
		{"after Create, with an error", []step{create, public, fails(echosession.ErrConflict)},
			failure(409, "the session was changed by another request", private, vary, newCookie)},
		{"between Create and Create", []step{create, public, create, public, write}, ok("done", private, vary, newCookie)},
		{"after Destroy", []step{destroy, public, write}, ok("done", private, vary, noCookie)},
		{"without a cookie", []step{public, write}, ok("done", shared, vary)},
	} {
		site := newSite(t, withCookie)
		site.check(s.serveUsers(site, inOrder(tt.steps...)), exchange{tt.name, "POST /x", tt.answer})
	}
}
