package browser

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/storage"
	"github.com/chromedp/chromedp"

	"github.com/echosession/echosession/echosessiontest"
)

// A recorder is a site that notes what a browser says of its requests, and sets a
// cookie of every kind.
type recorder struct{ requests chan string }

func (s recorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html")
	if origin := r.Header.Get("Origin"); origin != "" { // the kit knows no CORS: allow it
		w.Header().Set("Access-Control-Allow-Origin", origin)
		w.Header().Set("Access-Control-Allow-Credentials", "true")
	}
	switch r.URL.Path {
	case "/favicon.ico":
		return
	case "/cookies":
		for _, cookie := range []string{
			"strict=1; SameSite=Strict", "lax=1; SameSite=Lax", "none=1; Secure; SameSite=None",
			"__Host-good=1; Path=/; Secure; SameSite=Lax", "__Host-bad=1; Secure; SameSite=Lax", "__Secure-bad=1; SameSite=Lax",
			"insecure=1; SameSite=None", "domain=1; Domain=victim.example; SameSite=Lax", "stranger=1; Domain=evil.example; SameSite=Lax",
			"public=1; Domain=example; SameSite=Lax", "below=1; Domain=sub.victim.example; SameSite=Lax",
			"deep=1; Path=/shop; SameSite=Lax", "gone=1; Max-Age=0; SameSite=Lax", "domain=2; SameSite=Lax",
			"large=" + strings.Repeat("x", 4096) + "; SameSite=Lax",
		} {
			w.Header().Add("Set-Cookie", cookie)
		}
	case "/set":
		for _, cookie := range []string{"set-strict=1; SameSite=Strict", "set-lax=1; SameSite=Lax", "set-none=1; Secure; SameSite=None"} {
			w.Header().Add("Set-Cookie", cookie)
		}
	case "/redirect":
		w.Header().Set("Set-Cookie", "redirected=1; Secure; SameSite=None")
		w.Header().Set("Location", "/shop/end")
		w.WriteHeader(http.StatusSeeOther)
	case "/repeat":
		w.Header().Set("Location", "/shop/end")
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
	s.note(r)
}

// note keeps what the kit's browser has to say as Chromium does.
func (s recorder) note(r *http.Request) {
	cookies := strings.Split(r.Header.Get("Cookie"), "; ")
	slices.Sort(cookies)
	origin, _ := url.Parse(r.Header.Get("Origin"))
	form := r.Header.Get("Content-Type")
	s.requests <- fmt.Sprint(r.Method, " ", r.URL.Path, " form=", form == "application/x-www-form-urlencoded",
		" page=", strings.Contains(r.Header.Get("Accept"), "text/html"),
		" site=", r.Header.Get("Sec-Fetch-Site"), " mode=", r.Header.Get("Sec-Fetch-Mode"), " dest=", r.Header.Get("Sec-Fetch-Dest"),
		" origin=", origin.Scheme, "/", origin.Hostname(), "/", origin.Path, " cookies=", cookies)
}

// seen returns what was noted.
func (s recorder) seen() (all []string) {
	for {
		select {
		case line := <-s.requests:
			all = append(all, line)
		default:
			return all
		}
	}
}

// The browser of the test kit sends what Chromium sends: to one site, from its own
// pages, from those of a sibling and from those of another site.
func TestKitBrowserSendsWhatChromiumSends(t *testing.T) {
	chromium := newBrowser(t, chromedp.UserDataDir(openProfile(t)))
	for _, from := range []string{victim, sibling, evil} {
		for name, action := range map[string]struct {
			chromium func(b *tab, target string)
			kit      func(b *echosessiontest.Browser[User], path string)
		}{
			"link": {
				func(b *tab, target string) { b.leave(fmt.Sprintf(`location.href = %q`, target)) },
				func(b *echosessiontest.Browser[User], path string) { b.Get(path) },
			},
			"form": {
				func(b *tab, target string) { b.leave(submit("POST", target, url.Values{"a": {"b"}})) },
				func(b *echosessiontest.Browser[User], path string) { b.PostForm(path, url.Values{"a": {"b"}}) },
			},
			"fetch GET": {
				func(b *tab, target string) { b.eval(fetch("GET", target, nil, "cors")) },
				func(b *echosessiontest.Browser[User], path string) {
					b.Fetch(httptest.NewRequest(http.MethodGet, path, nil))
				},
			},
			"fetch POST": {
				func(b *tab, target string) { b.eval(fetch("POST", target, url.Values{"a": {"b"}}, "cors")) },
				func(b *echosessiontest.Browser[User], path string) {
					r := httptest.NewRequest(http.MethodPost, path, strings.NewReader("a=b"))
					r.Header.Set("Content-Type", "application/x-www-form-urlencoded;charset=UTF-8") // of URLSearchParams
					b.Fetch(r)
				},
			},
		} {
			for _, path := range []string{"/shop", "/set", "/redirect", "/repeat"} {
				t.Run(name+" from "+from+" to "+path, func(t *testing.T) {
					want := inChromium(t, chromium, from, func(b *tab, site func(host, path string) string) { action.chromium(b, site(victim, path)) })
					h := echosessiontest.New[User](t)
					s := recorder{make(chan string, 100)}
					b := h.Browser(s)
					b.From("https://" + victim).Get("https://" + victim + "/cookies")
					s.seen()
					action.kit(b.From("https://"+from), "https://"+victim+path)
					b.From("https://" + victim).Get("https://" + victim + "/shop/after")
					if got := s.seen(); !slices.Equal(got, want) {
						t.Errorf("the kit sends\n%s\nChromium sends\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
					}
				})
			}
		}
	}
}

// openProfile is for a browser that sends cookies of SameSite=None to other sites, as
// many do. Chromium without a profile blocks them.
func openProfile(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "Default"), 0o700); err != nil {
		t.Fatal(err)
	}
	const preferences = `{"profile":{"cookie_controls_mode":0,"block_third_party_cookies":false}}`
	if err := os.WriteFile(filepath.Join(dir, "Default", "Preferences"), []byte(preferences), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// inChromium returns what Chromium sends to the victim when send runs on a page, and
// when the user then goes on to another page of the victim.
func inChromium(t *testing.T, chromium context.Context, from string, send func(b *tab, site func(host, path string) string)) []string {
	t.Helper()
	s := recorder{make(chan string, 100)}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if host, _, _ := strings.Cut(r.Host, ":"); host == victim && r.URL.Path != "/page" {
			s.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprint(w, `<!doctype html><title>a page</title>`)
	}))
	defer server.Close()
	at := &site{t: t, port: server.URL[strings.LastIndexByte(server.URL, ':'):]}
	// A window of its own would hold back what openProfile lets through.
	ctx, cancel := chromedp.NewContext(chromium)
	defer cancel()
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.CallBrowser(ctx, storage.ClearCookies, storage.ClearCookiesParams{}); err != nil {
		t.Fatal(err)
	}
	b := &tab{t, at, ctx}
	b.visit(victim, "/cookies")
	b.visit(from, "/page")
	s.seen()
	send(b, at.url)
	b.visit(victim, "/page")
	b.leave(fmt.Sprintf(`location.href = %q`, at.url(victim, "/shop/after")))
	return s.seen()
}
