package echov5_test

import (
	"cmp"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v5"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/echosessiontest"
	"github.com/echosession/echosession/echov5"
)

// A Visitor is what a session of the examples holds.
type Visitor struct {
	Name string `json:"name"`
}

// loginURL and wantsPage are those of the example of [echosession.Manager.Answer].
func loginURL(r *http.Request) string {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return "/login"
	}
	return "/login?next=" + url.QueryEscape(r.URL.RequestURI())
}

func wantsPage(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

// newPages is a site of pages with an API on the same sessions.
func newPages(sessions *echosession.Manager[Visitor]) *echo.Echo {
	e := echo.New()
	e.Use(echov5.Install(sessions))
	inJSON := echo.DefaultHTTPErrorHandler(false)
	e.HTTPErrorHandler = func(c *echo.Context, err error) {
		answer, ours := sessions.Answer(err)
		sent, _ := echo.UnwrapResponse(c.Response())
		switch {
		case !ours || !wantsPage(c.Request()) || sent != nil && sent.Committed:
			inJSON(c, err)
			return
		case answer.Status == http.StatusUnauthorized:
			err = c.Redirect(http.StatusSeeOther, loginURL(c.Request()))
		default:
			err = c.HTML(answer.Status, "<p>Sorry: "+answer.Message+".</p>")
		}
		if err != nil {
			c.Logger().Error(err.Error())
		}
	}
	me := func(c *echo.Context) error {
		sess, err := echov5.Get[Visitor](c)
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, sess)
	}
	e.GET("/account", me, echov5.Require[Visitor]())
	e.POST("/account", me, echov5.Require[Visitor]())
	e.GET("/login", func(c *echo.Context) error { return c.HTML(http.StatusOK, "<form>") })
	return e
}

// An application with pages sends a person who has to log in to its login page. Its
// API keeps the answers in JSON.
func Example_pages() {
	sessions, err := echosession.New[Visitor](echosession.Config{
		Store:  echosession.NewMemoryStore(),
		Secret: []byte("0123456789abcdef0123456789abcdef"),
	})
	if err != nil {
		panic(err)
	}
	e := newPages(sessions)
	for _, accept := range []string{"text/html,*/*;q=0.8", "*/*"} {
		r := httptest.NewRequest(http.MethodGet, "/account", nil)
		r.Header.Set("Accept", accept)
		rec := httptest.NewRecorder()
		e.ServeHTTP(rec, r)
		fmt.Println(rec.Code, cmp.Or(rec.Header().Get("Location"), strings.TrimSpace(rec.Body.String())))
	}
	// Output:
	// 303 /login?next=%2Faccount
	// 401 {"message":"authentication is required"}
}

// The test kit works with Echo v5 as it does with Echo v4.
func TestKitWithEchoV5(t *testing.T) {
	h := echosessiontest.New[Visitor](t, func(cfg *echosession.Config) { cfg.Cookie = &echosession.Cookie{} })
	e := newPages(h.Manager)

	r := httptest.NewRequest(http.MethodGet, "/account", nil)
	h.Login(r, Visitor{Name: "Ada"})
	if rec := h.Serve(e, r); rec.Code != http.StatusOK || strings.TrimSpace(rec.Body.String()) != `{"name":"Ada"}` {
		t.Errorf("a logged in user gets %d: %s", rec.Code, rec.Body)
	}

	b := h.Browser(e)
	if page := b.Get("/account?tab=2"); page.Code != http.StatusOK || page.URL != "/login?next=%2Faccount%3Ftab%3D2" {
		t.Errorf("a stranger gets %d of %s", page.Code, page.URL)
	}
	if page := b.PostForm("/account", nil); page.URL != "/login" {
		t.Errorf("a stranger's form leads to %s", page.URL)
	}
	api := b.Fetch(httptest.NewRequest(http.MethodGet, "/account", nil))
	if api.Code != http.StatusUnauthorized || !strings.Contains(api.Body.String(), `{"message":`) || api.Header().Get("WWW-Authenticate") == "" {
		t.Errorf("a script gets %d, %v: %s", api.Code, api.Header(), api.Body)
	}

	b.Login(Visitor{Name: "Ada"})
	if page := b.Get("/account"); page.Code != http.StatusOK {
		t.Errorf("after the login: %d of %s", page.Code, page.URL)
	}
	if page := b.From("https://blog.example.com").PostForm("/account", nil); page.Code != http.StatusForbidden || !strings.HasPrefix(page.Body.String(), "<p>Sorry") {
		t.Errorf("a form of another origin: %d: %s", page.Code, page.Body)
	}
	h.Store.FailNext(1, nil)
	if page := b.Get("/account"); page.Code != http.StatusServiceUnavailable || page.Header().Get("Retry-After") == "" {
		t.Errorf("during an outage: %d, %v", page.Code, page.Header())
	}
	h.Clock.Advance(25 * time.Hour)
	if page := b.Get("/account"); page.URL != "/login?next=%2Faccount" {
		t.Errorf("a day later: %d of %s", page.Code, page.URL)
	}
	if page := b.Get("/nowhere"); page.Code != http.StatusNotFound {
		t.Errorf("an unknown page: %d", page.Code)
	}
}
