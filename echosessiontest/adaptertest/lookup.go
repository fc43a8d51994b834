package adaptertest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/echosession/echosession"
)

// Names of reasons, as [whoami] writes them.
var (
	noToken        = echosession.ErrNoToken.Error()
	ambiguousToken = echosession.ErrAmbiguousToken.Error()
	invalidToken   = echosession.ErrInvalidToken.Error()
	sessionGone    = echosession.ErrSessionGone.Error()
	corrupt        = echosession.ErrCorrupt.Error()
	crossOrigin    = echosession.ErrCrossOrigin.Error()
	requestOver    = echosession.ErrRequestOver.Error()
)

// body is a request with a body of a type.
func body(contentType, text string) string {
	return "POST /x\nContent-Type: " + contentType + "\n\n" + text
}

const (
	form      = "application/x-www-form-urlencoded"
	multipart = "multipart/form-data; boundary=b"
	json      = "application/json"
)

// part is a part of a multipart body.
func part(disposition, text string) string {
	return "--b\r\nContent-Disposition: form-data; " + disposition + "\r\n\r\n" + text + "\r\n"
}

func (s suite[C, M]) testTokens(t *testing.T) {
	site := newSite(t, withCookie)
	site.check(s.serveUsers(site, whoami),
		exchange{"none", "GET /x", ok(noToken, vary)},
		exchange{"bearer", "GET /x\nAuthorization: Bearer {ada}", ok("ada")},
		exchange{"bearer in lower case", "GET /x\nauthorization: bearer {ada}", ok("ada")},
		exchange{"another scheme", "GET /x\nAuthorization: Basic {ada}", ok(noToken, vary)},
		exchange{"custom header", "GET /x\nX-Access-Token: {ada}", ok("ada")},
		exchange{"query", "GET /x?accessToken={ada}", ok("ada", private, noReferer)},
		exchange{"query without a session", "GET /x?accessToken={gone}", ok(sessionGone, private, noReferer)},
		exchange{"cookie", "GET /x\n" + adaCookie, ok("ada", private, vary)},
		exchange{"cookie of another name", "GET /x\nCookie: session={ada}", ok(noToken, vary)},
		exchange{"form", body(form, "a=b&accessToken={ada}"), ok("ada")},
		exchange{"multipart", body(multipart, part(`name="a"`, "b")+part(`name="accessToken"`, "{ada}")+"--b--\r\n"), ok("ada")},
		exchange{"file of a multipart", body(multipart, part(`name="accessToken"; filename="f"`, "{ada}")+"--b--\r\n"), ok(noToken, vary)},
		exchange{"JSON", body(json, `{"a":1,"accessToken":"{ada}"}`), ok("ada")},
		exchange{"JSON by its suffix", body("application/merge-patch+json", `{"accessToken":"{ada}"}`), ok("ada")},
		exchange{"JSON deeper down", body(json, `{"a":{"accessToken":"{ada}"}}`), ok(noToken, vary)},
		exchange{"body of another type", body("text/plain", `{"accessToken":"{ada}"}`), ok(noToken, vary)},
		exchange{"body of a GET", "GET /x\nContent-Type: " + json + "\n\n" + `{"accessToken":"{ada}"}`, ok(noToken, vary)},
		exchange{"compressed body", body(json+"\nContent-Encoding: gzip", `{"accessToken":"{ada}"}`), ok(noToken, vary)},
		exchange{"path", "GET /{ada}", ok(noToken, vary)},
		exchange{"forged", "GET /x\nAuthorization: Bearer {forged}", ok(invalidToken)},
		exchange{"no JWT", "GET /x\nAuthorization: Bearer what", ok(invalidToken)},
		exchange{"of a session that is gone", "GET /x\nAuthorization: Bearer {gone}", ok(sessionGone)},
		exchange{"of a damaged session", "GET /x\nAuthorization: Bearer {damaged}", ok(corrupt)},
	)

	site = newSite(t, withLookup("param:token"))
	site.check(s.serveUsers(site, whoami),
		exchange{"path parameter", "GET /{ada}", ok("ada", private, noReferer)},
		exchange{"path parameter that is no token", "GET /x", ok(invalidToken, private, noReferer)},
		exchange{"header when only the path counts", "GET /{ada}\nAuthorization: Bearer {bob}", ok("ada", private, noReferer)})
	site = newSite(t, withLookup("param:token"))
	site.check(s.serveUsers(site, whoami, s.Users.Require(site.users)),
		exchange{"path parameter before Require", "GET /{ada}", ok("ada", private, noReferer)})
	site = newSite(t, withLookup("param:other"))
	site.check(s.serveUsers(site, whoami),
		exchange{"path parameter that the route has not", "GET /{ada}", ok(noToken)})
	site = newSite(t, withLookup("form:t"))
	site.check(s.serveUsers(site, whoami),
		exchange{"field of a form", body(form, "t={ada}"), ok("ada")},
		exchange{"member of JSON when only forms count", body(json, `{"t":"{ada}"}`), ok(noToken)})
}

func (s suite[C, M]) testAmbiguous(t *testing.T) {
	site := newSite(t, withCookie)
	site.check(s.serveUsers(site, whoami),
		exchange{"one token in two places", "GET /x\nAuthorization: Bearer {ada}\nX-Access-Token: {ada}", ok("ada")},
		exchange{"one token in the query too", "GET /x?accessToken={ada}\nAuthorization: Bearer {ada}", ok("ada", private, noReferer)},
		exchange{"two headers", "GET /x\nAuthorization: Bearer {ada}\nX-Access-Token: {bob}", ok(ambiguousToken)},
		exchange{"header and cookie", "GET /x\nAuthorization: Bearer {bob}\n" + adaCookie, ok(ambiguousToken, vary)},
		exchange{"one header twice", "GET /x\nAuthorization: Bearer {ada}\nAuthorization: Bearer {ada}", ok(ambiguousToken)},
		exchange{"one query parameter twice", "GET /x?accessToken={ada}&accessToken={ada}", ok(ambiguousToken, private, noReferer)},
		exchange{"one cookie twice", "GET /x\n" + adaCookie + "; __Host-session={bob}", ok(ambiguousToken, vary)},
		exchange{"one field twice", body(form, "accessToken={ada}&accessToken={bob}"), ok(ambiguousToken)},
		exchange{"one part twice", body(multipart, part(`name="accessToken"`, "{ada}")+part(`name="accessToken"`, "{ada}")+"--b--\r\n"), ok(ambiguousToken)},
		exchange{"one member twice", body(json, `{"accessToken":"{ada}","accessToken":"{ada}"}`), ok(ambiguousToken)},
		exchange{"header and body", "POST /x\nAuthorization: Bearer {ada}\nContent-Type: " + json + "\n\n" + `{"accessToken":"{bob}"}`, ok("ada")},
		exchange{"cookie and body", "POST /x\n" + adaCookie + "\nContent-Type: " + json + "\n\n" + `{"accessToken":"{bob}"}`, ok("ada", private, vary)},
		exchange{"cookie and two fields", "POST /x\n" + adaCookie + "\nContent-Type: " + form + "\n\naccessToken={bob}&accessToken={bob}", ok("ada", private, vary)},
	)
}

// echoBody writes the name of the user, and how the body reads.
func echoBody(w http.ResponseWriter, r *http.Request, sess *echosession.Session[User]) error {
	got, err := io.ReadAll(r.Body)
	if len(got) > 1000 {
		got = fmt.Appendf(nil, "%d bytes with hash %x", len(got), sha256.Sum256(got))
	}
	_, _ = fmt.Fprintf(w, "%s %s %v", nameOrReason(sess), got, err)
	return nil
}

func (s suite[C, M]) testBodies(t *testing.T) {
	site := newSite(t)
	fields := "accessToken={ada}&a=b"
	large := func(size int) string {
		tail := `","accessToken":"` + site.tokens["ada"] + `"}`
		return `{"a":"` + strings.Repeat("a", size-len(`{"a":"`)-len(tail)) + tail
	}
	hashed := func(text string) string {
		return fmt.Sprintf("%d bytes with hash %x <nil>", len(text), sha256.Sum256([]byte(text)))
	}
	whole, over := large(1<<20), large(1<<20+1)
	after := s.serveUsers(site, echoBody)
	site.check(after,
		exchange{"read after Get", body(form, fields), ok("ada " + site.expand(fields) + " <nil>")},
		exchange{"read after Get finds none", body(json, `{"a":1}`), ok(noToken + ` {"a":1} <nil>`)},
		exchange{"malformed", body(json, `{"accessToken":"{ada}"`), ok(noToken + site.expand(` {"accessToken":"{ada}" <nil>`))},
		exchange{"in chunks", "POST /x\nTransfer-Encoding: chunked\nContent-Type: " + json +
			"\n\n7\r\n{\"a\":1,\r\n6\r\n\"b\":2}\r\n0\r\n\r\n", ok(noToken + ` {"a":1,"b":2} <nil>`)},
		exchange{"of a mebibyte", body(json, whole), ok("ada " + hashed(whole))},
		exchange{"over a mebibyte", body(json, over), ok(noToken + " " + hashed(over))},
		exchange{"in chunks, over a mebibyte", "POST /x\nTransfer-Encoding: chunked\nContent-Type: " + json +
			fmt.Sprintf("\n\n%x\r\n%s\r\n0\r\n\r\n", len(over), over), ok(noToken + " " + hashed(over))},
		exchange{"in bad chunks", "POST /x\nTransfer-Encoding: chunked\nContent-Type: " + json + "\n\n7\r\n{\"a\":1,\r\nxyz\r\n",
			ok(noToken + ` {"a":1, invalid byte in chunk length`)},
		exchange{"none", "POST /x\nContent-Type: " + json, ok(noToken + "  <nil>")},
	)

	before := func(read func(*http.Request)) http.Handler {
		return s.Serve(func(c C) error {
			read(s.Request(c))
			return s.handler(whoami)(c)
		}, s.Users.Middleware(site.users))
	}
	site.check(before(func(r *http.Request) { _, _ = io.ReadAll(r.Body) }),
		exchange{"read before Get", body(form, fields), ok(noToken)},
		exchange{"read before Get, with a token elsewhere", "POST /x\nAuthorization: Bearer {bob}\n\n" + fields, ok("bob")})
	site.check(before(func(r *http.Request) { _ = r.ParseForm() }),
		exchange{"parsed as a form before Get", body(form, fields), ok("ada")})
	site.check(before(func(r *http.Request) { _ = r.ParseMultipartForm(1000) }),
		exchange{"parsed as multipart before Get", body(multipart, part(`name="accessToken"`, "{ada}")+"--b--\r\n"), ok("ada")})
}

// contextKey is a key of what the suite's middleware puts into contexts.
type contextKey struct{}

func (s suite[C, M]) testRequests(t *testing.T) {
	site := newSite(t)
	fields := "accessToken={ada}&a=b"
	install := s.Users.Middleware(site.users)
	withValue := s.Around(func(_ http.ResponseWriter, r *http.Request, next func(*http.Request) error) error {
		return next(r.WithContext(context.WithValue(r.Context(), contextKey{}, "value")))
	})
	showValue := func(w http.ResponseWriter, r *http.Request, sess *echosession.Session[User]) error {
		_, _ = fmt.Fprint(w, r.Context().Value(contextKey{}), " ")
		return echoBody(w, r, sess)
	}
	want := ok("value ada " + site.expand(fields) + " <nil>")
	site.check(s.Serve(s.handler(showValue), install, withValue),
		exchange{"WithContext between middleware and handler", body(form, fields), want})
	site.check(s.Serve(s.handler(showValue), withValue, install),
		exchange{"WithContext before the middleware", body(form, fields), want})
	site.check(s.Serve(s.handler(showValue), install, s.Users.Require(site.users), withValue),
		exchange{"WithContext between Require and handler", body(form, fields), want})
	site.check(s.Serve(s.handler(showValue), install, withValue, s.Users.Require(site.users)),
		exchange{"WithContext between middleware and Require", body(form, fields), want})

	otherBody := s.Around(func(_ http.ResponseWriter, r *http.Request, next func(*http.Request) error) error {
		r = r.Clone(r.Context())
		r.Body = io.NopCloser(strings.NewReader(site.expand(fields)))
		return next(r)
	})
	site.check(s.Serve(s.handler(echoBody), install, otherBody),
		exchange{"another body between middleware and handler", body(form, "a=b"), ok("ada " + site.expand(fields) + " <nil>")})

	site.check(s.serveUsers(site, whoami),
		exchange{"HEAD", "HEAD /x\nAuthorization: Bearer {ada}", ok("ada")[:len(ok("ada"))-len("ada")]},
		exchange{"PROPFIND", "PROPFIND /x\nAuthorization: Bearer {ada}", ok("ada")})
	site.check(s.serveUsers(site, func(_ http.ResponseWriter, _ *http.Request, sess *echosession.Session[User]) error {
		return sess.Meets()
	}),
		exchange{"HEAD with an error", "HEAD /x", "HTTP/1.1 401 Unauthorized\nWww-Authenticate: Bearer realm=\"session\"\n\n"})

	site.store.down.Store(true)
	site.check(s.Serve(func(c C) error { _, err := io.WriteString(s.Writer(c), "hello"); return err }, install),
		exchange{"without a Get reads no store", "GET /x\nAuthorization: Bearer {ada}", ok("hello")})
}
