package echosessiontest_test

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/echosessiontest"
	"github.com/echosession/echosession/nethttp"
)

// aBrowser returns a browser at a site that answers with handler, the log of its test
// and its clock.
func aBrowser(handler http.HandlerFunc) (*echosessiontest.Browser[User], *exampleT, *echosessiontest.Clock) {
	test := newT()
	h := echosessiontest.New[User](test)
	return h.Browser(handler), test, h.Clock
}

// sentCookies answers the names and values of the cookies of a request.
func sentCookies(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header.Get("Cookie")) }

// What is expected here was compared with Chromium: proof/browser has the test.
func TestBrowserSaysWhereARequestComesFrom(t *testing.T) {
	const own, sibling, evil = "https://example.com", "https://blog.example.com", "https://evil.example"
	var got http.Header
	b, _, _ := aBrowser(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header
		for _, attributes := range []string{"strict=1; SameSite=Strict", "lax=1; SameSite=Lax", "open=1; Secure; SameSite=None"} {
			w.Header().Add("Set-Cookie", attributes)
		}
	})
	b.Get("/") // sets the cookies
	actions := map[string]func(b *echosessiontest.Browser[User]){
		"link":        func(b *echosessiontest.Browser[User]) { b.Get("/") },
		"form":        func(b *echosessiontest.Browser[User]) { b.PostForm("/", nil) },
		"script GET":  func(b *echosessiontest.Browser[User]) { b.Fetch(httptest.NewRequest(http.MethodGet, "/", nil)) },
		"script POST": func(b *echosessiontest.Browser[User]) { b.Fetch(httptest.NewRequest(http.MethodPost, "/", nil)) },
	}
	const all, lax, none = "strict=1; lax=1; open=1", "lax=1; open=1", "open=1"
	for _, tt := range []struct{ page, action, site, origin, cookies string }{
		{own, "link", "same-origin", "", all},
		{own, "form", "same-origin", own, all},
		{own, "script GET", "same-origin", "", all},
		{own, "script POST", "same-origin", own, all},
		{sibling, "link", "same-site", "", all},
		{sibling, "form", "same-site", sibling, all},
		{sibling, "script GET", "same-site", sibling, all},
		{sibling, "script POST", "same-site", sibling, all},
		{evil, "link", "cross-site", "", lax},
		{evil, "form", "cross-site", evil, none},
		{evil, "script GET", "cross-site", evil, none},
		{evil, "script POST", "cross-site", evil, none},
		{"null", "form", "cross-site", "null", none},
		{"https://example.com:8443", "form", "same-site", "https://example.com:8443", all},
		{"http://example.com", "form", "cross-site", "http://example.com", none},
		{"https://com", "form", "cross-site", "https://com", none},
		{"https://127.0.0.1", "form", "cross-site", "https://127.0.0.1", none},
	} {
		t.Run(tt.page+" "+tt.action, func(t *testing.T) {
			actions[tt.action](b.From(tt.page))
			for name, want := range map[string]string{"Sec-Fetch-Site": tt.site, "Origin": tt.origin, "Cookie": tt.cookies} {
				if got.Get(name) != want {
					t.Errorf("%s: %q, not %q", name, got.Get(name), want)
				}
			}
			navigate := tt.action == "link" || tt.action == "form"
			if (got.Get("Sec-Fetch-Mode") == "navigate") != navigate || strings.Contains(got.Get("Accept"), "text/html") != navigate {
				t.Errorf("it asks for %q in the mode %q", got.Get("Accept"), got.Get("Sec-Fetch-Mode"))
			}
			if isForm := got.Get("Content-Type") == "application/x-www-form-urlencoded"; isForm != (tt.action == "form") {
				t.Errorf("Content-Type: %q", got.Get("Content-Type"))
			}
		})
	}
}

// Over plain HTTP there is only Origin to go by.
func TestBrowserSaysLessToAnInsecureSite(t *testing.T) {
	var got http.Header
	b, _, _ := aBrowser(func(_ http.ResponseWriter, r *http.Request) { got = r.Header })
	b.From("http://evil.example").PostForm("http://example.com/", nil)
	for name := range got {
		if strings.HasPrefix(name, "Sec-") {
			t.Errorf("it sends %s: %s", name, got.Get(name))
		}
	}
	if got.Get("Origin") != "http://evil.example" {
		t.Errorf("Origin: %q", got.Get("Origin"))
	}
}

// Two addresses of one host in numbers are no site, whatever their last labels are.
func TestBrowserKnowsNoSitesOfAddresses(t *testing.T) {
	b, _, _ := aBrowser(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header.Get("Sec-Fetch-Site")) })
	if page := b.From("https://10.0.2.1").PostForm("https://10.1.2.1/", nil); page.Body.String() != "cross-site" {
		t.Errorf("two machines are %s", page.Body)
	}
}

func TestBrowserKeepsCookies(t *testing.T) {
	long := strings.Repeat("x", 4096)
	for _, tt := range []struct {
		name    string
		from    string // of the answer that sets the cookies
		set     []string
		to      string
		want    string // Cookie
		refused string // part of what the log of the test has
	}{
		{"for its host", "/a/b", []string{"c=1; Path=/"}, "/", "c=1", ""},
		{"not for a subdomain", "/", []string{"c=1"}, "https://sub.example.com/", "", ""},
		{"not for another site", "/", []string{"c=1"}, "https://evil.example/", "", ""},
		{"for the hosts of its Domain", "/", []string{"c=1; Domain=.Example.com"}, "https://sub.example.com/", "c=1", ""},
		{"of a subdomain for the Domain", "https://sub.example.com/", []string{"c=1; Domain=example.com"}, "/", "c=1", ""},
		{"not for a name that only ends alike", "/", []string{"c=1; Domain=example.com"}, "https://notexample.com/", "", ""},
		{"not of a strange Domain", "/", []string{"c=1; Domain=evil.example"}, "https://evil.example/", "", "Domain"},
		{"not of a subdomain", "/", []string{"c=1; Domain=sub.example.com"}, "https://sub.example.com/", "", "Domain"},
		{"not of the end of an address", "https://10.0.2.1/", []string{"c=1; Domain=2.1"}, "https://10.0.2.1/", "", "Domain"},
		{"not of a Domain that belongs to nobody", "/", []string{"c=1; Domain=com"}, "/", "", "Domain"},
		{"for an address without a path", "/", []string{"c=1; Path=/"}, "https://example.com", "c=1", ""},
		{"for its Path", "/", []string{"c=1; Path=/shop"}, "/shop", "c=1", ""},
		{"for what is below its Path", "/", []string{"c=1; Path=/shop"}, "/shop/tea", "c=1", ""},
		{"not for a path that only begins alike", "/", []string{"c=1; Path=/shop"}, "/shopping", "", ""},
		{"for the folder that set it", "/shop/login", []string{"c=1"}, "/shop/tea", "c=1", ""},
		{"not above the folder that set it", "/shop/login", []string{"c=1"}, "/", "", ""},
		{"that is Secure", "/", []string{"c=1; Secure"}, "/", "c=1", ""},
		{"that is Secure, not in the clear", "/", []string{"c=1; Secure"}, "http://example.com/", "", ""},
		{"not Secure ones of an insecure page", "http://example.com/", []string{"c=1; Secure"}, "/", "", "Secure"},
		{"of an insecure page", "http://example.com/", []string{"c=1"}, "http://example.com/", "c=1", ""},
		{"not SameSite=None in the clear", "/", []string{"c=1; SameSite=None"}, "/", "", "SameSite"},
		{"__Host-", "/a", []string{"__Host-c=1; Path=/; Secure"}, "/", "__Host-c=1", ""},
		{"__Host-, not without Secure", "/", []string{"__Host-c=1; Path=/"}, "/", "", "Secure"},
		{"__Host-, not without Path", "/", []string{"__Host-c=1; Secure"}, "/", "", "__Host-"},
		{"__host-, not with a Domain", "/", []string{"__host-c=1; Path=/; Secure; Domain=example.com"}, "/", "", "__Host-"},
		{"__Secure-", "/", []string{"__Secure-c=1; Secure; Domain=example.com"}, "/", "__Secure-c=1", ""},
		{"__Secure-, not without Secure", "/", []string{"__Secure-c=1"}, "/", "", "Secure"},
		{"not what is too large", "/", []string{"c=" + long}, "/", "", "4096"},
		{"the last of one name", "/", []string{"c=1", "d=1", "c=2"}, "/", "c=2; d=1", ""},
		{"two of one name for two paths, the longer path first", "/", []string{"c=1; Path=/", "c=2; Path=/shop"}, "/shop", "c=2; c=1", ""},
		{"two of one name for a host and its Domain", "/", []string{"c=1", "c=2; Domain=example.com"}, "/", "c=1; c=2", ""},
		{"until they are cleared", "/", []string{"c=1", "d=1", "c=; Max-Age=0"}, "/", "d=1", ""},
		{"not what has expired", "/", []string{"c=1; Expires=Mon, 02 Jan 2006 15:04:05 GMT"}, "/", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set := tt.set
			b, test, _ := aBrowser(func(w http.ResponseWriter, r *http.Request) {
				w.Header()["Set-Cookie"], set = set, nil // at the first request
				sentCookies(w, r)
			})
			// visit asks for a page of the site that the browser is on already.
			visit := func(target string) string {
				to, err := url.Parse(target)
				if err != nil {
					t.Fatal(err)
				}
				return b.From(cmp.Or(to.Scheme, "https") + "://" + cmp.Or(to.Host, "example.com")).Get(target).Body.String()
			}
			visit(tt.from)
			if got := visit(tt.to); got != tt.want {
				t.Errorf("it sends %q, not %q", got, tt.want)
			}
			if log := test.log.String(); (log == "") != (tt.refused == "") || !strings.Contains(log, tt.refused) {
				t.Errorf("the log of the test has %q", log)
			}
		})
	}
}

func TestBrowserForgetsCookies(t *testing.T) {
	first := true
	b, _, clock := aBrowser(func(w http.ResponseWriter, r *http.Request) {
		if first {
			for _, cookie := range []string{"closed=1", "short=1; Max-Age=60", "long=1; Max-Age=3600; Expires=Mon, 02 Jan 2006 15:04:05 GMT"} {
				w.Header().Add("Set-Cookie", cookie)
			}
		}
		first = false
		sentCookies(w, r)
	})
	b.Get("/")
	for _, step := range []struct {
		name string
		do   func()
		want string
	}{
		{"at once", func() {}, "closed=1; short=1; long=1"},
		{"just before its time", func() { clock.Advance(time.Minute - 1) }, "closed=1; short=1; long=1"},
		{"in time", func() { clock.Advance(1) }, "closed=1; long=1"},
		{"when it is closed", b.Reopen, "long=1"},
		{"an hour later", func() { clock.Advance(time.Hour) }, ""},
	} {
		step.do()
		if page := b.Get("/"); page.Body.String() != step.want {
			t.Errorf("%s it has %q, not %q", step.name, page.Body, step.want)
		}
	}
}

// What another site's script fetches sets no cookies but those that are meant for
// other sites; a page that is shown sets them all.
func TestBrowserTakesCookiesFromOtherSites(t *testing.T) {
	set := func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			for _, cookie := range []string{"lax=1; SameSite=Lax", "strict=1; SameSite=Strict", "plain=1", "open=1; Secure; SameSite=None"} {
				w.Header().Add("Set-Cookie", cookie)
			}
		}
		sentCookies(w, r)
	}
	for _, tt := range []struct {
		name, page string
		send       func(b *echosessiontest.Browser[User])
		want       string
	}{
		{"a script of another site", "https://evil.example", func(b *echosessiontest.Browser[User]) { b.Fetch(httptest.NewRequest(http.MethodPost, "/", nil)) }, "open=1"},
		{"a script of the same site", "https://blog.example.com", func(b *echosessiontest.Browser[User]) { b.Fetch(httptest.NewRequest(http.MethodPost, "/", nil)) }, "lax=1; strict=1; plain=1; open=1"},
		{"a form of another site", "https://evil.example", func(b *echosessiontest.Browser[User]) { b.PostForm("/", nil) }, "lax=1; strict=1; plain=1; open=1"},
	} {
		b, _, _ := aBrowser(set)
		tt.send(b.From(tt.page))
		if page := b.Get("/"); page.Body.String() != tt.want {
			t.Errorf("%s leaves %q, not %q", tt.name, page.Body, tt.want)
		}
	}
}

func TestBrowserFollowsRedirects(t *testing.T) {
	handler := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/from" {
			body, err := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s %q %v %q", r.Method, r.Header.Get("Cookie"), body, err, r.Header.Get("Content-Type"))
			return
		}
		w.Header().Set("Set-Cookie", "c=1")
		w.Header().Set("Location", r.URL.Query().Get("to"))
		var status int
		fmt.Sscan(r.URL.Query().Get("status"), &status)
		w.WriteHeader(status)
	}
	const get, post = `GET c=1 "" <nil> ""`, `POST c=1 "name=Ada" <nil> "application/x-www-form-urlencoded"`
	for _, tt := range []struct {
		name   string
		status int
		to     string
		url    string // where the browser is in the end; "" when it does not follow
		body   string // after a PostForm
	}{
		{"301", 301, "/to?x=%2F", "/to?x=%2F", get},
		{"302", 302, "to", "/to", get},
		{"303", 303, "/to#part", "/to", get},
		{"307", 307, "/to", "/to", post},
		{"308", 308, "https://example.com/to", "/to", post},
		{"no Location", 303, "", "", ""},
		{"no redirect", 200, "/to", "", ""},
		{"to another host", 303, "https://login.example.com/to", "", ""},
		{"to another scheme", 303, "http://example.com/to", "", ""},
		{"to no address", 303, "https://%zz", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, _, _ := aBrowser(handler)
			from := "/from?" + url.Values{"status": {fmt.Sprint(tt.status)}, "to": {tt.to}}.Encode()
			page := b.PostForm(from, url.Values{"name": {"Ada"}})
			if tt.url == "" {
				if page.Code != tt.status || page.URL != from || page.Header().Get("Location") != tt.to {
					t.Errorf("%s answers %d, Location %q", page.URL, page.Code, page.Header().Get("Location"))
				}
			} else if page.Code != http.StatusOK || page.URL != tt.url || page.Body.String() != tt.body {
				t.Errorf("%s answers %d: %s", page.URL, page.Code, page.Body)
			}
		})
	}
}

func TestBrowserEndsALoopOfRedirects(t *testing.T) {
	requests := 0
	b, _, _ := aBrowser(func(w http.ResponseWriter, r *http.Request) {
		requests++
		http.Redirect(w, r, "/", http.StatusFound)
	})
	if page := b.Get("/"); page.Code != http.StatusFound || requests != 21 {
		t.Errorf("after %d requests: %d", requests, page.Code)
	}
}

func TestBrowserKeepsTheMethodOfARedirectedHead(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		method := ""
		b, _, _ := aBrowser(func(w http.ResponseWriter, r *http.Request) {
			if method = r.Method; r.URL.Path == "/" {
				http.Redirect(w, r, "/to", status)
			}
		})
		if page := b.Fetch(httptest.NewRequest(http.MethodHead, "/", nil)); page.URL != "/to" || method != http.MethodHead {
			t.Errorf("%d leads to %s %s", status, method, page.URL)
		}
	}
}

// The handler sees what a server would show it.
func TestBrowserSendsARequestAsAServerShowsIt(t *testing.T) {
	var got *http.Request
	b, _, _ := aBrowser(func(_ http.ResponseWriter, r *http.Request) { got = r })
	for _, tt := range []struct{ target, host, uri, path string }{
		{"/a%2Fb?c=d#e", "example.com", "/a%2Fb?c=d", "/a/b"},
		{"", "example.com", "/", "/"},
		{"https://api.example.com", "api.example.com", "/", "/"},
		{"https://example.com//x", "example.com", "//x", "//x"},
	} {
		page := b.Get(tt.target)
		if got.Host != tt.host || got.RequestURI != tt.uri || got.URL.Path != tt.path || got.URL.Host != "" || got.URL.Scheme != "" || got.TLS == nil {
			t.Errorf("%q is a request of %q for %q, %q", tt.target, got.Host, got.RequestURI, got.URL)
		}
		if page.URL != tt.uri {
			t.Errorf("%q leads to %q", tt.target, page.URL)
		}
		if got.Context().Err() == nil {
			t.Error("the request goes on after its handler")
		}
	}
	if b.Get("http://example.com/"); got.TLS != nil {
		t.Error("a request in the clear has TLS")
	}
	if end := fatality(func() { b.Get("https://%zz") }); !strings.Contains(end, "%zz") {
		t.Errorf("an address that is none ended the test with %q", end)
	}
}

// A script sets the method, the body and most headers, and not those that say where
// it comes from.
func TestBrowserFetchesWhatAScriptAsksFor(t *testing.T) {
	var got *http.Request
	var body []byte
	b, _, _ := aBrowser(func(_ http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
	})
	r := httptest.NewRequest(http.MethodPut, "/api?x=1", strings.NewReader(`{"a":1}`))
	for name, value := range map[string]string{
		"Content-Type": "application/json", "Accept": "application/json", "Authorization": "Bearer t",
		"Cookie": "c=1", "Origin": "https://forged.example", "Sec-Fetch-Site": "none",
	} {
		r.Header.Set(name, value)
	}
	b.From("https://app.example.com").Fetch(r)
	if got.Method != http.MethodPut || got.RequestURI != "/api?x=1" || string(body) != `{"a":1}` || got.ContentLength != 7 {
		t.Errorf("%s %s: %s, %d bytes", got.Method, got.RequestURI, body, got.ContentLength)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Accept": "application/json", "Authorization": "Bearer t",
		"Cookie": "", "Origin": "https://app.example.com", "Sec-Fetch-Site": "same-site",
	} {
		if got.Header.Get(name) != want {
			t.Errorf("%s: %q, not %q", name, got.Header.Get(name), want)
		}
	}
	r.Method = http.MethodGet
	if b.Fetch(r); got.Header["Origin"] != nil {
		t.Errorf("a GET of the same origin has Origin: %q", got.Header["Origin"])
	}
	if r.Header.Get("Cookie") != "c=1" {
		t.Error("Fetch changed the request that it was given")
	}
	outgoing, err := http.NewRequest(http.MethodPost, "https://api.example.com/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	if b.Fetch(outgoing); got.Host != "api.example.com" || got.RequestURI != "/x" {
		t.Errorf("a client's request goes to %s%s", got.Host, got.RequestURI)
	}
	if end := fatality(func() { b.Fetch(httptest.NewRequest(http.MethodPost, "/", failingBody{})) }); !strings.Contains(end, "no more") {
		t.Errorf("a body that fails ended the test with %q", end)
	}
}

type failingBody struct{}

func (failingBody) Read([]byte) (int, error) { return 0, fmt.Errorf("no more") }

func TestBrowserLogin(t *testing.T) {
	h := echosessiontest.New[User](t)
	shop, sessions := newShop(h.Config())
	h.Manager = sessions
	b := h.Browser(shop)

	first := b.Login(User{Name: "Ada"}, echosession.WithSubject("ada"))
	if page := b.Get("/"); first.Subject() != "ada" || !strings.Contains(page.Body.String(), "Hello, Ada!") {
		t.Errorf("a session of %q: %s", first.Subject(), page.Body)
	}
	second := b.Login(User{Name: "Bob"})
	if page := b.Get("/"); !strings.Contains(page.Body.String(), "Hello, Bob!") {
		t.Errorf("after a second Login: %s", page.Body)
	}
	if err := first.Reload(t.Context()); err == nil {
		t.Error("the session before the second Login is alive")
	}
	if page := h.Browser(shop).Get("/"); !strings.Contains(page.Body.String(), "Hello, guest!") {
		t.Errorf("another browser: %s", page.Body)
	}
	if page := b.From("https://blog.example.com").Get("/"); !strings.Contains(page.Body.String(), "Hello, Bob!") {
		t.Errorf("on another page of the same browser: %s", page.Body)
	}
	b.Login(User{Name: "Eve"}, echosession.WithMaxAge(time.Minute))
	h.Clock.Advance(time.Minute)
	if page := b.Get("/"); !strings.Contains(page.Body.String(), "Hello, guest!") {
		t.Errorf("after its time: %s", page.Body)
	}
	if err := second.Reload(t.Context()); err == nil {
		t.Error("the session before the third Login is alive")
	}

	test := newT()
	noCookie := echosessiontest.New[User](test)
	if end := fatality(func() { noCookie.Browser(shop).Login(User{}) }); !strings.Contains(end, "sets no cookie") {
		t.Errorf("Login without a Cookie ended the test with %q", end)
	}
}

// An application of net/http, whose Manager has no Config of Echo v4's. That the kit
// works with Echo v5, the tests of package echov5 show.
func TestKitWithNetHTTP(t *testing.T) {
	h := echosessiontest.New[User](t, func(cfg *echosession.Config) { cfg.Cookie = &echosession.Cookie{} })
	mux := http.NewServeMux()
	mux.Handle("POST /visit", nethttp.Require(h.Manager)(nethttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		sess, err := nethttp.Get[User](r)
		if err != nil {
			return err
		}
		if err := sess.Update(r.Context(), func(u *User) error { u.Visits++; return nil }); err != nil {
			return err
		}
		http.Redirect(w, r, "/visits", http.StatusSeeOther)
		return nil
	})))
	mux.Handle("GET /visits", nethttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		sess, err := nethttp.Get[User](r)
		if err != nil {
			return err
		}
		_, err = fmt.Fprint(w, sess.Data().Visits)
		return err
	}))
	server := nethttp.Middleware(h.Manager)(mux)

	b := h.Browser(server)
	if page := b.PostForm("/visit", nil); page.Code != http.StatusUnauthorized {
		t.Errorf("a stranger's visit: %d", page.Code)
	}
	b.Login(User{Visits: 1})
	if page := b.PostForm("/visit", nil); page.URL != "/visits" || page.Body.String() != "2" {
		t.Errorf("a visit leads to %s: %s", page.URL, page.Body)
	}
	r := httptest.NewRequest(http.MethodGet, "/visits", nil)
	h.Login(r, User{Visits: 7})
	if rec := h.Serve(server, r); rec.Body.String() != "7" {
		t.Errorf("Serve: %s", rec.Body)
	}
	codes := []int{}
	h.Store.FailNext(1, nil)
	for range 2 {
		codes = append(codes, b.PostForm("/visit", nil).Code)
	}
	h.Clock.Advance(25 * time.Hour)
	codes = append(codes, b.PostForm("/visit", nil).Code)
	if !slices.Equal(codes, []int{503, 200, 401}) {
		t.Errorf("an outage, a visit and a visit a day later: %d", codes)
	}
}
