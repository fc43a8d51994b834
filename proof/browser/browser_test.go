// Package browser attacks an application with a real browser: other sites' pages send
// requests, and neither the sessions nor the browser's cookies may change.
package browser

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/storage"
	"github.com/chromedp/chromedp"
	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

// The sites. All of them are on loopback.
const (
	victim  = "victim.example"
	sibling = "sub.victim.example" // same site, another origin
	trusted = "app.victim.example" // in TrustedOrigins
	evil    = "evil.example"       // another site
)

// User is what a session holds.
type User struct {
	Name  string
	Count int
}

// program is the browser's, or "".
var program = sync.OnceValue(func() string {
	for _, name := range []string{os.Getenv("ECHOSESSION_CHROMIUM"), "chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
})

// newBrowser starts a browser that resolves all names to loopback and ends with the
// test. All of its tabs that newTab makes have their own cookies.
func newBrowser(t *testing.T, more ...chromedp.ExecAllocatorOption) context.Context {
	t.Helper()
	if program() == "" {
		const missing = "there is no chromium in the PATH: install Debian's package chromium, or set ECHOSESSION_CHROMIUM"
		if os.Getenv("ECHOSESSION_REQUIRE_CHROMIUM") != "" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(program()), chromedp.UserDataDir(t.TempDir()),
		chromedp.NoSandbox, chromedp.DisableGPU, chromedp.IgnoreCertErrors,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("host-resolver-rules", "MAP *.example 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
		chromedp.WSURLReadTimeout(time.Minute),
	)
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), append(options, more...)...)
	t.Cleanup(cancel)
	browser, cancel := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		_ = chromedp.Cancel(browser) // waits for the process, so that its directory can go
		cancel()
	})
	if err := chromedp.Do(browser); err != nil {
		t.Fatal(err)
	}
	return browser
}

// A site is the application under attack, and the attackers' pages beside it.
type site struct {
	t        *testing.T
	sessions *echosession.Manager[User]
	store    *echosession.MemoryStore
	port     string

	ahead atomic.Int64      // nanoseconds by which its clock is ahead
	late  chan chan<- error // takes a request that waits until the channel is closed
}

// now is the site's time.
func (s *site) now() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }

func newSite(t *testing.T, cookie echosession.Cookie) *site {
	t.Helper()
	s := &site{t: t, late: make(chan chan<- error)}
	s.store = echosession.NewMemoryStore(echosession.WithClock(s.now))
	pages := http.NewServeMux()
	pages.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprint(w, `<!doctype html><title>a page</title><p id="page">`, r.Host)
	})
	var app http.Handler
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name, _, _ := strings.Cut(r.Host, ":"); name == victim {
			app.ServeHTTP(w, r)
			return
		}
		pages.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	s.port = server.URL[strings.LastIndexByte(server.URL, ':'):]
	app = s.application(cookie)
	return s
}

// application has a route for each thing that a browser does with a session.
func (s *site) application(cookie echosession.Cookie) http.Handler {
	sessions, err := echosession.New[User](echosession.Config{
		Store: s.store, Secret: bytes.Repeat([]byte{1}, 32), Cookie: &cookie,
		TrustedOrigins: []string{s.url(trusted, "")}, Now: s.now,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.sessions = sessions
	e := echo.New()
	e.Use(sessions.Middleware())
	does := func(fn func(context.Context, *echosession.Session[User]) error) echo.HandlerFunc {
		return func(c echo.Context) error {
			sess, err := sessions.Get(c)
			if err == nil {
				err = fn(c.Request().Context(), sess)
			}
			if err != nil {
				return err
			}
			user := sess.Data()
			return c.HTML(http.StatusOK, fmt.Sprintf(`<!doctype html><title>site</title><p id="name">%s</p><p id="count">%d</p>`, user.Name, user.Count))
		}
	}
	login := func(ctx context.Context, sess *echosession.Session[User]) error {
		_, err := sess.Create(ctx, User{Name: "ada"})
		return err
	}
	e.GET("/", does(func(context.Context, *echosession.Session[User]) error { return nil }))
	e.GET("/callback", does(login)) // has checked the state parameter
	for path, fn := range map[string]func(context.Context, *echosession.Session[User]) error{
		"/login":  login,
		"/logout": func(ctx context.Context, sess *echosession.Session[User]) error { return sess.Destroy(ctx) },
		"/update": func(ctx context.Context, sess *echosession.Session[User]) error {
			return sess.Update(ctx, func(u *User) error { u.Count++; return nil })
		},
		"/rotate": func(ctx context.Context, sess *echosession.Session[User]) error {
			_, err := sess.Rotate(ctx)
			return err
		},
		"/touch": func(ctx context.Context, sess *echosession.Session[User]) error { return sess.Touch(ctx) },
	} {
		e.POST(path, does(fn))
	}
	s.logins(e, does)
	return e
}

func (s *site) url(host, path string) string { return "https://" + host + s.port + path }

// records are all sessions that the server has.
func (s *site) records(t *testing.T) (records []string) {
	t.Helper()
	for entry, err := range s.store.Scan(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, string(entry.Record))
	}
	slices.Sort(records)
	return records
}

// A tab is a page of a browser with its own cookies.
type tab struct {
	t    *testing.T
	site *site
	context.Context
}

func newTab(t *testing.T, browser context.Context, s *site) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(ctx, 2*time.Minute)
	t.Cleanup(cancel)
	return &tab{t, s, ctx}
}

// visit opens a page.
func (b *tab) visit(host, path string) {
	b.t.Helper()
	if err := chromedp.Do(b, chromedp.Navigate(b.site.url(host, path))); err != nil {
		b.t.Fatal(err)
	}
}

// leave runs a script that leads to another page, and returns that page's status.
func (b *tab) leave(script string) int {
	b.t.Helper()
	// The script ends before the page that it leads to begins.
	resp, err := chromedp.RunResponse(b, chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := chromedp.Evaluate[bool](`setTimeout(() => {`+script+`}), true`)(ctx, t)
		return err
	}))
	if err != nil {
		b.t.Fatalf("%s: %v", script, err)
	}
	return int(resp.Status)
}

// eval runs a script and returns what its promise comes to.
func (b *tab) eval(script string) string {
	b.t.Helper()
	result, err := chromedp.Run(b, chromedp.Evaluate[string](script, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", script, err)
	}
	return result
}

// name is whom the site greets.
func (b *tab) name() string {
	b.t.Helper()
	return b.eval(`document.querySelector("#name")?.textContent ?? "nobody"`)
}

// cookies are all that the browser has.
func (b *tab) cookies() []*network.Cookie {
	b.t.Helper()
	params := storage.GetCookiesParams{BrowserContextID: chromedp.FromContext(b).BrowserContextID}
	result, err := chromedp.CallBrowser(b, storage.GetCookies, params)
	if err != nil {
		b.t.Fatal(err)
	}
	return result.Cookies
}

// jar has a line for each cookie.
func (b *tab) jar() string {
	b.t.Helper()
	var lines []string
	for _, c := range b.cookies() {
		lines = append(lines, fmt.Sprint(c.Name, "=", c.Value, c.Domain, c.Path, c.HTTPOnly, c.Secure, c.SameSite))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// submit is a script that sends a form without a click.
func submit(method, target string, fields url.Values) string {
	names, _ := json.Marshal(fields)
	return fmt.Sprintf(`(() => {
		const form = document.createElement("form");
		form.method = %q; form.action = %q;
		for (const [name, values] of Object.entries(%s ?? {})) {
			const input = document.createElement("input");
			input.type = "hidden"; input.name = name; input.value = values[0];
			form.append(input);
		}
		document.body.append(form);
		form.submit();
	})()`, method, target, names)
}

// fetch is a script that sends a request with the cookies, and waits for its answer.
func fetch(method, target string, fields url.Values, mode string) string {
	body := ""
	if method != http.MethodGet {
		body = fmt.Sprintf(`, body: new URLSearchParams(%q)`, fields.Encode())
	}
	return fmt.Sprintf(`fetch(%q, {method: %q, mode: %q, credentials: "include"%s}).then(() => "answered", () => "refused")`,
		target, method, mode, body)
}

// sandbox is a script that sends a form from a frame without an origin, and waits for
// its answer.
func sandbox(target string, fields url.Values) string {
	var inputs strings.Builder
	for name, values := range fields {
		fmt.Fprintf(&inputs, `<input name=%q value=%q>`, name, values[0])
	}
	return fmt.Sprintf(`new Promise(done => {
		const frame = document.createElement("iframe");
		let loads = 0;
		frame.sandbox = "allow-forms allow-scripts";
		frame.onload = () => { if (++loads == 2) done("answered"); };
		frame.srcdoc = %q;
		document.body.append(frame);
	})`, fmt.Sprintf(`<form method="post" action=%q>%s</form><script>onload = () => document.forms[0].submit()</script>`, target, &inputs))
}

// ways are how another site's page sends a request.
var ways = map[string]func(b *tab, target string, fields url.Values){
	"form":             func(b *tab, target string, fields url.Values) { b.leave(submit("POST", target, fields)) },
	"navigation":       func(b *tab, target string, fields url.Values) { b.leave(submit("GET", target, fields)) },
	"fetch":            func(b *tab, target string, fields url.Values) { b.eval(fetch("POST", target, fields, "no-cors")) },
	"fetch with CORS":  func(b *tab, target string, fields url.Values) { b.eval(fetch("POST", target, fields, "cors")) },
	"DELETE with CORS": func(b *tab, target string, fields url.Values) { b.eval(fetch("DELETE", target, fields, "cors")) },
	"GET by script":    func(b *tab, target string, fields url.Values) { b.eval(fetch("GET", target, fields, "no-cors")) },
	"sandboxed frame":  func(b *tab, target string, fields url.Values) { b.eval(sandbox(target, fields)) },
}

// modes are the cookies that an application may choose.
var modes = map[string]http.SameSite{
	"default": 0, "Lax": http.SameSiteLaxMode, "Strict": http.SameSiteStrictMode, "None": http.SameSiteNoneMode,
}

// attack lets other sites' pages send requests in every way, and looks whether a
// session or a cookie has changed. loggedIn says whether the victim has a session
// while the pages do that.
func attack(t *testing.T, loggedIn bool, paths ...string) {
	browser := newBrowser(t)
	for mode, sameSite := range modes {
		for _, from := range []string{evil, sibling} {
			s := newSite(t, echosession.Cookie{SameSite: sameSite})
			b := newTab(t, browser, s)
			for how, send := range ways {
				t.Run(fmt.Sprint(mode, "/", how, " from ", from), func(t *testing.T) {
					b.t = t
					if b.visit(victim, "/"); loggedIn && b.name() != "ada" {
						b.leave(submit("POST", s.url(victim, "/login"), nil))
					}
					if loggedIn && (b.name() != "ada" || len(b.cookies()) != 1) {
						t.Fatal(b.name(), b.jar())
					}
					records, jar := s.records(t), b.jar()
					for _, path := range paths {
						b.visit(from, "/")
						send(b, s.url(victim, path), nil)
						if got := s.records(t); !slices.Equal(got, records) {
							t.Errorf("%s: the sessions have changed: %d were there, and now %d", path, len(records), len(got))
							records = got
						}
						if got := b.jar(); got != jar {
							t.Errorf("%s: the cookies were\n%s\nand are\n%s", path, jar, got)
							jar = got
						}
					}
				})
			}
		}
	}
}

// TestAttackWrites: no other site's page writes to a session.
func TestAttackWrites(t *testing.T) { attack(t, true, "/update", "/rotate", "/touch") }

// TestAttackCookies: no other site's page logs a user in or out.
func TestAttackCookies(t *testing.T) {
	t.Run("over a session", func(t *testing.T) { attack(t, true, "/login", "/logout") })
	t.Run("without a session", func(t *testing.T) { attack(t, false, "/login", "/logout") })
}

// TestAttackToken: no other site's page plants the attacker's session as a cookie by
// sending its token.
func TestAttackToken(t *testing.T) {
	browser := newBrowser(t)
	for mode, sameSite := range modes {
		s := newSite(t, echosession.Cookie{SameSite: sameSite})
		b := newTab(t, browser, s)
		for how, send := range ways {
			t.Run(mode+"/"+how, func(t *testing.T) {
				b.t = t
				for _, path := range []string{"/rotate", "/update", "/touch", "/login", "/logout"} {
					sess, err := s.sessions.Create(t.Context(), User{Name: "mallory"})
					if err != nil {
						t.Fatal(err)
					}
					before := b.jar()
					b.visit(evil, "/")
					send(b, s.url(victim, path), url.Values{"accessToken": {sess.Token()}})
					if jar := b.jar(); jar != before {
						t.Errorf("%s: the cookies were\n%s\nand are\n%s", path, before, jar)
					}
				}
			})
		}
	}
}

// TestGoodFlows: what users do goes on working.
func TestGoodFlows(t *testing.T) {
	browser := newBrowser(t)
	for mode, sameSite := range modes {
		t.Run(mode, func(t *testing.T) {
			s := newSite(t, echosession.Cookie{SameSite: sameSite})
			t.Run("own forms", func(t *testing.T) {
				b := newTab(t, browser, s)
				b.visit(victim, "/")
				before := ""
				for _, path := range []string{"/login", "/update", "/rotate", "/touch"} {
					if status := b.leave(submit("POST", s.url(victim, path), nil)); status != 200 || b.name() != "ada" {
						t.Errorf("%s: %d %s", path, status, b.name())
					}
					if jar := b.jar(); strings.Count(jar, "\n") != 0 || (jar != before) != (path == "/login" || path == "/rotate") {
						t.Errorf("%s: the cookie was %s and is %s", path, before, jar)
					} else {
						before = jar
					}
				}
				if status := b.leave(submit("POST", s.url(victim, "/logout"), nil)); status != 200 || b.jar() != "" {
					t.Errorf("logout: %d, %s", status, b.jar())
				}
				if n := len(s.records(t)); n != 0 && n != 1 { // the mark of the rotation may be left
					t.Errorf("%d sessions are left", n)
				}
			})
			t.Run("login callback by GET", func(t *testing.T) {
				b := newTab(t, browser, s)
				b.visit(evil, "/") // stands for the login service
				if status := b.leave(`location = ` + fmt.Sprintf("%q", s.url(victim, "/callback"))); status != 200 || len(b.cookies()) != 1 {
					t.Fatal(status, b.jar())
				}
				if b.visit(victim, "/"); b.name() != "ada" {
					t.Errorf("the site greets %s", b.name())
				}
			})
			t.Run("trusted origin", func(t *testing.T) {
				b := newTab(t, browser, s)
				b.visit(victim, "/")
				b.leave(submit("POST", s.url(victim, "/login"), nil))
				before := s.records(t)
				b.visit(trusted, "/")
				b.eval(fetch("POST", s.url(victim, "/update"), nil, "no-cors"))
				if slices.Equal(s.records(t), before) {
					t.Error("a fetch has changed nothing")
				}
				b.leave(submit("POST", s.url(victim, "/logout"), nil))
				if jar := b.jar(); jar != "" || len(s.records(t)) != len(before)-1 {
					t.Errorf("after a logout by form: %s, %d sessions", jar, len(s.records(t)))
				}
			})
		})
	}
}

// TestBackAfterLogout: the browser's cache shows nothing of a session that has ended.
func TestBackAfterLogout(t *testing.T) {
	s := newSite(t, echosession.Cookie{})
	b := newTab(t, newBrowser(t), s)
	b.visit(victim, "/")
	b.leave(submit("POST", s.url(victim, "/login"), nil))
	b.visit(victim, "/")
	if b.name() != "ada" {
		t.Fatal(b.name())
	}
	b.leave(submit("POST", s.url(victim, "/logout"), nil))
	for i := range 2 {
		// The answer to a form that is in no cache is no page at all, and a page that
		// comes back as it was left does not load.
		ctx, cancel := context.WithTimeout(b, 10*time.Second)
		err := chromedp.Do(ctx, chromedp.NavigateBack())
		cancel()
		if err != nil && !strings.Contains(err.Error(), "ERR_CACHE_MISS") && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if name := b.name(); name == "ada" {
			t.Errorf("after %d steps back the page greets %s", i+1, name)
		}
	}
}

// TestCookieAsTheBrowserSeesIt compares the attributes in DevTools.
func TestCookieAsTheBrowserSeesIt(t *testing.T) {
	browser := newBrowser(t)
	want := map[string]network.CookieSameSite{
		"default": network.CookieSameSiteLax, "Lax": network.CookieSameSiteLax,
		"Strict": network.CookieSameSiteStrict, "None": network.CookieSameSiteNone,
	}
	for mode, sameSite := range modes {
		for _, persistent := range []bool{false, true} {
			t.Run(fmt.Sprint(mode, " ", persistent), func(t *testing.T) {
				s := newSite(t, echosession.Cookie{SameSite: sameSite, Persistent: persistent})
				b := newTab(t, browser, s)
				b.visit(victim, "/")
				b.leave(submit("POST", s.url(victim, "/login"), nil))
				cookies := b.cookies()
				if len(cookies) != 1 {
					t.Fatal(b.jar())
				}
				c := cookies[0]
				if c.Name != "__Host-session" || c.Domain != victim || c.Path != "/" || !c.HTTPOnly || !c.Secure ||
					c.SameSite != want[mode] || c.Session == persistent {
					t.Errorf("%+v", c)
				}
				if left := time.Until(time.Unix(int64(c.Expires), 0)); persistent && (left > 24*time.Hour || left < 23*time.Hour) {
					t.Errorf("it lives for %v", left)
				}
				if seen := b.eval(`document.cookie`); seen != "" {
					t.Errorf("scripts see %s", seen)
				}
			})
		}
	}
}
