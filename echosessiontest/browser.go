package echosessiontest

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"

	"github.com/echosession/echosession"
)

// A Browser sends requests to a site as a person's browser does. It keeps cookies,
// sends them, and forgets them when the clock of the harness says so. It follows
// redirects. It says where a request comes from, in Origin and Sec-Fetch-Site, and
// holds cookies back from other sites as their SameSite demands: so rules against
// cross-site requests can be tested.
//
// Make one with [Harness.Browser]. It is safe for concurrent use.
//
// It runs no script and loads no image. It does not enforce CORS: what Fetch sends
// from another origin is what a page there can send at most. A host of two labels,
// such as example.com, and the hosts below it are one site.
type Browser[T any] struct {
	harness *Harness[T]
	handler http.Handler
	origin  string // of the page that sends the requests
	jar     *jar
}

// maxRedirects is how many redirects in a row browsers follow.
const maxRedirects = 20

// Browser returns a new browser, without any cookie, on a page of the site that the
// handler answers. The address of the site is https://example.com. Requests for other
// hosts go to the handler, too.
func (h *Harness[T]) Browser(handler http.Handler) *Browser[T] {
	return &Browser[T]{h, handler, originOf(site), &jar{now: h.Clock.Now, refused: h.tb.Logf}}
}

// From returns the same browser, with the same cookies, on a page of another origin,
// such as "https://evil.example". Its requests still go to the site. The origin "null"
// is that of a page without one, for example in a sandboxed frame.
func (b *Browser[T]) From(origin string) *Browser[T] {
	other := *b
	other.origin = origin
	return &other
}

// Login creates a session and keeps its cookie, as if its user had logged in on a
// page of the site: a session that the browser had before ends. A failure, or a
// Config without a Cookie, ends the test.
//
// The session that it returns shows later changes after a
// [echosession.Session.Reload].
func (b *Browser[T]) Login(data T, opts ...echosession.CreateOption) *echosession.Session[T] {
	b.harness.tb.Helper()
	sess, cookie := b.harness.create(context.Background(), b.jar.cookies(site, sameOrigin, true), data, opts)
	if cookie == nil {
		b.harness.tb.Fatal("echosessiontest: Harness.Manager sets no cookie that a browser could keep; put the application's Manager there, or use Harness.Login and Fetch")
	}
	b.jar.keep(site, []*http.Cookie{cookie})
	return sess
}

// Reopen closes the browser and opens it again: it keeps only cookies that have a
// lifetime.
func (b *Browser[T]) Reopen() { b.jar.reopen() }

// A Response is the answer at which a request of a [Browser] ended.
type Response struct {
	*httptest.ResponseRecorder

	// URL is the path and the query of the request that was answered, after all
	// redirects: "/login?next=%2Fcart".
	URL string
}

// Get follows a link to a path of the site, or to an absolute URL.
func (b *Browser[T]) Get(target string) *Response {
	b.harness.tb.Helper()
	return b.navigate(http.MethodGet, target, nil)
}

// PostForm submits a form to a path of the site, or to an absolute URL.
func (b *Browser[T]) PostForm(target string, form url.Values) *Response {
	b.harness.tb.Helper()
	return b.navigate(http.MethodPost, target, []byte(form.Encode()))
}

func (b *Browser[T]) navigate(method, target string, form []byte) *Response {
	b.harness.tb.Helper()
	to, err := site.Parse(target)
	if err != nil {
		b.harness.tb.Fatal(err)
	}
	header := http.Header{
		"Accept":         {"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"},
		"Sec-Fetch-Dest": {"document"},
		"Sec-Fetch-Mode": {"navigate"},
		"Sec-Fetch-User": {"?1"},
	}
	if method == http.MethodPost {
		header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return b.send(outgoing{context.Background(), method, to, header, form, true})
}

// Fetch sends r as a script on the page does: fetch(url, {credentials: "include"}). It
// replaces the headers that no script can set: Cookie, Origin and Sec-Fetch-Site.
func (b *Browser[T]) Fetch(r *http.Request) *Response {
	b.harness.tb.Helper()
	to, header, body := *r.URL, r.Header.Clone(), []byte(nil)
	if to.Host == "" {
		to.Scheme, to.Host = site.Scheme, site.Host
	}
	header.Del("Cookie")
	if header.Get("Accept") == "" {
		header.Set("Accept", "*/*")
	}
	header.Set("Sec-Fetch-Dest", "empty")
	header.Set("Sec-Fetch-Mode", "cors")
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			b.harness.tb.Fatal(err)
		}
	}
	return b.send(outgoing{r.Context(), r.Method, &to, header, body, false})
}

// outgoing is a request that a browser is about to send.
type outgoing struct {
	ctx      context.Context
	method   string
	to       *url.URL
	header   http.Header
	body     []byte
	navigate bool // what is shown is the answer: it is no script's request
}

// send sends a request, and follows redirects as far as they stay at one origin.
func (b *Browser[T]) send(o outgoing) *Response {
	for redirects := 0; ; redirects++ {
		rec := b.sendOnce(o)
		next, err := o.to.Parse(rec.Header().Get("Location"))
		method, ok := redirected(rec.Code, o.method)
		if !ok || err != nil || originOf(next) != originOf(o.to) || redirects == maxRedirects {
			return &Response{rec, o.to.RequestURI()}
		}
		if method != o.method {
			o.body = nil
			o.header.Del("Content-Type")
		}
		o.method, o.to = method, next
	}
}

// redirected returns the method of the request after a redirect, and false for an
// answer that is no redirect.
func redirected(status int, method string) (string, bool) {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound:
		if method == http.MethodPost {
			return http.MethodGet, true
		}
		return method, true
	case http.StatusSeeOther:
		if method == http.MethodHead {
			return method, true
		}
		return http.MethodGet, true
	case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return method, true
	default:
		return "", false
	}
}

// sendOnce sends a request, and keeps the cookies of its answer.
func (b *Browser[T]) sendOnce(o outgoing) *httptest.ResponseRecorder {
	ctx, cancel := context.WithCancel(o.ctx)
	defer cancel() // as a server does
	r := httptest.NewRequestWithContext(ctx, o.method, originOf(o.to)+o.to.RequestURI(), bytes.NewReader(o.body))
	r.URL.Scheme, r.URL.Host = "", "" // as a server sees it
	r.RequestURI = o.to.RequestURI()
	r.Header = o.header.Clone()

	from := relationOf(b.origin, o.to)
	r.Header.Set("Sec-Fetch-Site", string(from))
	if o.to.Scheme != "https" { // browsers tell insecure sites nothing of it
		for _, name := range []string{"Site", "Mode", "Dest", "User"} {
			r.Header.Del("Sec-Fetch-" + name)
		}
	}
	r.Header.Del("Origin")
	safe := o.method == http.MethodGet || o.method == http.MethodHead
	if !safe || !o.navigate && from != sameOrigin {
		r.Header.Set("Origin", b.origin)
	}
	for _, c := range b.jar.cookies(o.to, from, o.navigate && safe) {
		r.AddCookie(c)
	}

	rec := httptest.NewRecorder()
	b.handler.ServeHTTP(rec, r)
	set := rec.Result().Cookies()
	if from == crossSite && !o.navigate {
		set = noneOnly(set)
	}
	b.jar.keep(o.to, set)
	return rec
}

// A relation is where a request comes from, seen from where it goes to: a value of
// Sec-Fetch-Site.
type relation string

const (
	sameOrigin relation = "same-origin"
	sameSite   relation = "same-site"
	crossSite  relation = "cross-site"
)

func relationOf(origin string, to *url.URL) relation {
	from, err := url.Parse(origin)
	switch {
	case origin == originOf(to):
		return sameOrigin
	case err == nil && from.Scheme == to.Scheme && siteOf(from) == siteOf(to):
		return sameSite
	default:
		return crossSite
	}
}

func originOf(u *url.URL) string { return u.Scheme + "://" + u.Host }

// siteOf returns the last two labels of a host.
func siteOf(u *url.URL) string {
	host := u.Hostname()
	labels := strings.Split(host, ".")
	if len(labels) < 2 || net.ParseIP(host) != nil {
		return host
	}
	return strings.Join(labels[len(labels)-2:], ".")
}
