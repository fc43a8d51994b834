package echosession_test

import (
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/echosessiontest"
)

// loginURL returns where a request is sent that needs a login: to the login page,
// which leads back to the page that was asked for. What a form has sent is lost.
func loginURL(r *http.Request) string {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return "/login"
	}
	return "/login?next=" + url.QueryEscape(r.URL.RequestURI())
}

// localPath returns next if it is a path of this site, and "/" otherwise. Anyone can
// write a link to the login page: its next must not lead to another site, not even
// as browsers read it, for which \ is the same as /.
func localPath(next string) string {
	_, err := url.Parse(next)
	if err != nil || !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.Contains(next, `\`) {
		return "/"
	}
	return next
}

// wantsPage reports whether a person waits for the answer, and not a script or an app.
func wantsPage(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

// newPages is a site of pages with an API on the same sessions.
func newPages(cfg echosession.Config) (*echo.Echo, error) {
	sessions, err := echosession.New[User](cfg)
	if err != nil {
		return nil, err
	}
	e := echo.New()
	e.Use(sessions.Middleware())
	e.HTTPErrorHandler = func(err error, c echo.Context) {
		answer, ours := sessions.Answer(err)
		switch {
		case !ours || !wantsPage(c.Request()) || c.Response().Committed:
			e.DefaultHTTPErrorHandler(err, c)
			return
		case answer.Status == http.StatusUnauthorized:
			err = c.Redirect(http.StatusSeeOther, loginURL(c.Request()))
		default:
			err = c.HTML(answer.Status, "<p>Sorry: "+answer.Message+".</p>")
		}
		if err != nil {
			c.Logger().Error(err)
		}
	}

	e.GET("/", func(c echo.Context) error {
		sess, err := echosession.Get[User](c)
		if err != nil {
			return err
		}
		if !sess.Exists() {
			return c.HTML(http.StatusOK, `<a href="/login">Log in</a>`)
		}
		return c.HTML(http.StatusOK, "<p>Hello, "+html.EscapeString(sess.Data().Name)+"!</p>")
	})
	e.GET("/login", func(c echo.Context) error {
		next := html.EscapeString(localPath(c.QueryParam("next")))
		return c.HTML(http.StatusOK, `<form method="post"><input name="name"><input type="hidden" name="next" value="`+next+`"></form>`)
	})
	e.POST("/login", func(c echo.Context) error {
		sess, err := echosession.Get[User](c)
		if err != nil {
			return err
		}
		// A real login checks a password first.
		if _, err := sess.Create(c.Request().Context(), User{Name: c.FormValue("name")}); err != nil {
			return err
		}
		return c.Redirect(http.StatusSeeOther, localPath(c.FormValue("next")))
	})
	me := func(c echo.Context) error {
		sess, err := echosession.Get[User](c)
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, sess)
	}
	e.GET("/account", me, sessions.Require())
	e.POST("/account", me, sessions.Require())
	e.GET("/keys", me, sessions.Require(echosession.Fresh(5*time.Minute)))
	return e, nil
}

// An application with pages sends a person who has to log in to its login page, which
// leads back. Its API keeps the answers in JSON.
func ExampleManager_Answer() {
	e, err := newPages(echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret})
	if err != nil {
		panic(err)
	}

	page := httptest.NewRequest(http.MethodGet, "/account?tab=2", nil)
	page.Header.Set("Accept", "text/html,*/*;q=0.8")
	rec := httptest.NewRecorder()
	e.ServeHTTP(rec, page)
	fmt.Println(rec.Code, rec.Header().Get("Location"))

	api := httptest.NewRequest(http.MethodGet, "/account?tab=2", nil)
	rec = httptest.NewRecorder()
	e.ServeHTTP(rec, api)
	fmt.Print(rec.Code, " ", rec.Body)
	// Output:
	// 303 /login?next=%2Faccount%3Ftab%3D2
	// 401 {"message":"authentication is required"}
}

// aVisitor returns a browser at the site of ExampleManager_Answer.
func aVisitor(t *testing.T) (*echosessiontest.Browser[User], *echosessiontest.Harness[User]) {
	t.Helper()
	h := echosessiontest.New[User](t, func(cfg *echosession.Config) { cfg.Cookie = &echosession.Cookie{} })
	e, err := newPages(h.Config())
	if err != nil {
		t.Fatal(err)
	}
	return h.Browser(e), h
}

func TestPagesLeadToTheLoginAndBack(t *testing.T) {
	b, h := aVisitor(t)
	page := b.Get("/account?tab=2&x=a%2Fb")
	if page.Code != http.StatusOK || page.URL != "/login?next=%2Faccount%3Ftab%3D2%26x%3Da%252Fb" {
		t.Fatalf("a stranger gets %d of %s", page.Code, page.URL)
	}
	if !strings.Contains(page.Body.String(), `value="/account?tab=2&amp;x=a%2Fb"`) {
		t.Errorf("the form is %s", page.Body)
	}
	login := url.Values{"name": {"Ada"}, "next": {"/account?tab=2&x=a%2Fb"}}
	if page := b.PostForm(page.URL, login); page.URL != "/account?tab=2&x=a%2Fb" || !strings.Contains(page.Body.String(), "Ada") {
		t.Errorf("the login leads to %s: %s", page.URL, page.Body)
	}
	// A login that is too old is asked for once more.
	h.Clock.Advance(6 * time.Minute)
	if page := b.Get("/keys"); page.URL != "/login?next=%2Fkeys" {
		t.Errorf("an old login leads to %s", page.URL)
	}
	// A session that has ended is one to log in for; what the form sent is lost.
	h.Clock.Advance(25 * time.Hour)
	if page := b.PostForm("/account", nil); page.URL != "/login" {
		t.Errorf("a form after the session's end leads to %s", page.URL)
	}
}

func TestGuestsHaveAPage(t *testing.T) {
	b, h := aVisitor(t)
	if page := b.Get("/"); page.Code != http.StatusOK || !strings.Contains(page.Body.String(), "Log in") {
		t.Errorf("a guest gets %d: %s", page.Code, page.Body)
	}
	b.Login(User{Name: "<Ada>"})
	if page := b.Get("/"); !strings.Contains(page.Body.String(), "Hello, &lt;Ada&gt;!") {
		t.Errorf("after the login: %s", page.Body)
	}
	// Nobody is taken for a guest because the store is down.
	h.Store.Fail(nil)
	page := b.Get("/")
	if page.Code != http.StatusServiceUnavailable || page.Body.String() != "<p>Sorry: the service is temporarily unavailable.</p>" || page.Header().Get("Retry-After") == "" {
		t.Errorf("during an outage: %d, %v: %s", page.Code, page.Header(), page.Body)
	}
}

// What a script fetches, and what is no error of this package, is JSON as before.
func TestOnlyPagesLeadToTheLogin(t *testing.T) {
	b, _ := aVisitor(t)
	api := b.Fetch(httptest.NewRequest(http.MethodGet, "/account", nil))
	if api.Code != http.StatusUnauthorized || !strings.Contains(api.Body.String(), `{"message":`) || api.Header().Get("WWW-Authenticate") == "" {
		t.Errorf("a script gets %d, %v: %s", api.Code, api.Header(), api.Body)
	}
	if page := b.Get("/nowhere"); page.Code != http.StatusNotFound || !strings.Contains(page.Body.String(), `{"message":`) {
		t.Errorf("an unknown page is answered with %d: %s", page.Code, page.Body)
	}
	if page := b.From("https://evil.example").PostForm("/login", nil); page.Code != http.StatusForbidden || page.URL != "/login" {
		t.Errorf("a login from another site leads to %s: %d", page.URL, page.Code)
	}
}

func TestNextStaysOnTheSite(t *testing.T) {
	for next, want := range map[string]string{
		"/account":              "/account",
		"/account?tab=2#here":   "/account?tab=2#here",
		"/a//b":                 "/a//b",
		"/a?next=https://x":     "/a?next=https://x",
		"/%2F/evil.example":     "/%2F/evil.example",
		"":                      "/",
		"account":               "/",
		"?a":                    "/",
		"https://evil.example/": "/",
		"//evil.example":        "/",
		"///evil.example":       "/",
		"////evil.example":      "/",
		`/\evil.example`:        "/",
		`\/evil.example`:        "/",
		`\\evil.example`:        "/",
		"/\t/evil.example":      "/",
		"\t//evil.example":      "/",
		" //evil.example":       "/",
		"/\n/evil.example":      "/",
		"/a\r\nSet-Cookie: c=1": "/",
		"https:evil.example":    "/",
		"https:/evil.example":   "/",
		"javascript:alert(1)":   "/",
		"data:text/html,x":      "/",
		"/%zz":                  "/",
		"//user@evil.example":   "/",
		"\x00//evil.example":    "/",
		"/\x00/evil.example":    "/",
	} {
		if got := localPath(next); got != want {
			t.Errorf("localPath(%q) is %q, not %q", next, got, want)
		}
		// Where a browser goes that is sent there.
		b, _ := aVisitor(t)
		page := b.PostForm("/login", url.Values{"name": {"Ada"}, "next": {next}})
		if path, _, _ := strings.Cut(want, "#"); page.Code == http.StatusSeeOther || page.URL != path {
			t.Errorf("next %q leads to %s: %d", next, page.URL, page.Code)
		}
	}
}
