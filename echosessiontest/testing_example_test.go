package echosessiontest_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/echosessiontest"
)

// newShop is the application that the tests of docs/testing.md test. It sets what it
// needs in the Config, and makes its own Manager.
func newShop(cfg echosession.Config) (http.Handler, *echosession.Manager[User]) {
	cfg.Cookie = &echosession.Cookie{Persistent: true}
	cfg.MaxAge, cfg.AbsoluteTimeout = 30*time.Minute, 12*time.Hour
	sessions, err := echosession.New[User](cfg)
	if err != nil {
		panic(err)
	}
	e := echo.New()
	e.Use(sessions.Middleware())
	e.GET("/", home)
	e.POST("/login", login)
	e.POST("/logout", logout)
	e.POST("/visit", visit, sessions.Require())
	e.GET("/offers", offers, sessions.Require())
	e.POST("/password", func(c echo.Context) error {
		return c.NoContent(http.StatusNoContent)
	}, sessions.Require(echosession.Fresh(5*time.Minute)))
	return e, sessions
}

func home(c echo.Context) error {
	sess, err := echosession.Get[User](c)
	if err != nil {
		return err
	}
	if !sess.Exists() {
		return c.String(http.StatusOK, "Hello, guest!\n")
	}
	user := sess.Data()
	return c.String(http.StatusOK, fmt.Sprintf("Hello, %s! Visits: %d.\n", user.Name, user.Visits))
}

func login(c echo.Context) error {
	sess, err := echosession.Get[User](c)
	if err != nil {
		return err
	}
	if _, err := sess.Create(c.Request().Context(), User{Name: c.FormValue("name")}); err != nil {
		return err
	}
	return c.Redirect(http.StatusSeeOther, "/")
}

func logout(c echo.Context) error {
	sess, err := echosession.Get[User](c)
	if err != nil {
		return err
	}
	if err := sess.Destroy(c.Request().Context()); err != nil {
		return err
	}
	return c.Redirect(http.StatusSeeOther, "/")
}

// offers is a stream that ends with the session.
func offers(c echo.Context) error {
	sess, err := echosession.Get[User](c)
	if err != nil {
		return err
	}
	ctx, stop := sess.Watch(c.Request().Context())
	defer stop()
	c.Response().Header().Set("Content-Type", "text/event-stream")
	fmt.Fprint(c.Response(), "data: pears at half the price\n\n")
	c.Response().Flush()
	<-ctx.Done()
	return nil
}

func TestVisitIsCounted(t *testing.T) {
	h := echosessiontest.New[User](t)
	shop, sessions := newShop(h.Config())
	h.Manager = sessions // so that Login knows what newShop has set

	r := httptest.NewRequest(http.MethodPost, "/visit", nil)
	sess := h.Login(r, User{Name: "Ada", Visits: 4})
	if rec := h.Serve(shop, r); rec.Code != http.StatusOK {
		t.Errorf("a visit is answered with %d", rec.Code)
	}
	if err := sess.Reload(t.Context()); err != nil || sess.Data().Visits != 5 {
		t.Errorf("after the visit: %+v, %v", sess.Data(), err)
	}
}

func TestLoginAndLogout(t *testing.T) {
	h := echosessiontest.New[User](t)
	shop, _ := newShop(h.Config())

	b := h.Browser(shop)
	page := b.PostForm("/login", url.Values{"name": {"Ada"}})
	if page.URL != "/" || !strings.Contains(page.Body.String(), "Hello, Ada!") {
		t.Errorf("the login leads to %s: %s", page.URL, page.Body)
	}
	page = b.PostForm("/logout", nil)
	if !strings.Contains(page.Body.String(), "Hello, guest!") {
		t.Errorf("the logout leads to %s: %s", page.URL, page.Body)
	}
	if page := b.PostForm("/visit", nil); page.Code != http.StatusUnauthorized {
		t.Errorf("a visit after the logout is answered with %d", page.Code)
	}
}

func TestSessionEndsWhenItIsNotUsed(t *testing.T) {
	h := echosessiontest.New[User](t)
	shop, sessions := newShop(h.Config())
	h.Manager = sessions

	b := h.Browser(shop)
	b.Login(User{Name: "Ada"})
	h.Clock.Advance(29 * time.Minute)
	if page := b.PostForm("/visit", nil); page.Code != http.StatusOK {
		t.Errorf("after 29 minutes: %d", page.Code)
	}
	h.Clock.Advance(31 * time.Minute)
	if page := b.PostForm("/visit", nil); page.Code != http.StatusUnauthorized {
		t.Errorf("31 minutes after the last use: %d", page.Code)
	}
}

func TestPasswordNeedsAFreshLogin(t *testing.T) {
	h := echosessiontest.New[User](t)
	shop, sessions := newShop(h.Config())
	h.Manager = sessions

	b := h.Browser(shop)
	b.Login(User{Name: "Ada"})
	h.Clock.Advance(6 * time.Minute)
	page := b.PostForm("/password", nil)
	if challenge := page.Header().Get("WWW-Authenticate"); !strings.Contains(challenge, "insufficient_user_authentication") {
		t.Errorf("after six minutes: %d, %s", page.Code, challenge)
	}
	b.PostForm("/login", url.Values{"name": {"Ada"}})
	if page := b.PostForm("/password", nil); page.Code != http.StatusNoContent {
		t.Errorf("after another login: %d", page.Code)
	}
}

func TestSessionOutlivesTheBrowser(t *testing.T) {
	h := echosessiontest.New[User](t)
	shop, sessions := newShop(h.Config())
	h.Manager = sessions

	b := h.Browser(shop)
	b.Login(User{Name: "Ada"})
	b.Reopen()
	if page := b.Get("/"); !strings.Contains(page.Body.String(), "Hello, Ada!") {
		t.Errorf("in the browser that was closed and opened again: %s", page.Body)
	}
}

func TestOffersEndWithTheSession(t *testing.T) {
	h := echosessiontest.New[User](t)
	shop, sessions := newShop(h.Config())
	h.Manager = sessions

	defer sessions.Close()
	server := httptest.NewServer(shop)
	defer server.Close()
	for name, end := range map[string]func(sess *echosession.Session[User]) error{
		"a logout":         func(sess *echosession.Session[User]) error { return sess.Destroy(t.Context()) },
		"the idle timeout": func(*echosession.Session[User]) error { h.Clock.Advance(30 * time.Minute); return nil },
	} {
		r, _ := http.NewRequest(http.MethodGet, server.URL+"/offers", nil)
		sess := h.Login(r, User{Name: "Ada"})
		stream, err := server.Client().Do(r) // returns when the stream has begun
		if err != nil {
			t.Fatal(err)
		}
		if err := end(sess); err != nil {
			t.Error(err)
		}
		body, err := io.ReadAll(stream.Body) // returns when the stream has ended
		if stream.Body.Close(); err != nil || !strings.HasPrefix(string(body), "data: pears") {
			t.Errorf("%s ends the stream %q with %v", name, body, err)
		}
	}
}

func TestTicketsOfThePage(t *testing.T) {
	h := echosessiontest.New[User](t, func(cfg *echosession.Config) { cfg.TokenLookup = "bearer,ticket:ticket" })
	e := echo.New()
	e.Use(h.Manager.Middleware())
	e.POST("/tickets", h.Manager.With(func(c echo.Context, sess *echosession.Session[User]) error {
		ticket, err := sess.Ticket(c.Request().Context(), "/events", echosession.TicketOrigin("https://example.com"))
		if err != nil {
			return err
		}
		return c.String(http.StatusCreated, ticket)
	}), h.Manager.Require())
	e.GET("/events", h.Manager.With(func(c echo.Context, sess *echosession.Session[User]) error {
		return c.String(http.StatusOK, "data: "+sess.Data().Name+"\n\n")
	}), h.Manager.Require())

	b := h.Browser(e)
	ticket := func() string {
		r := httptest.NewRequest(http.MethodPost, "/tickets", nil)
		h.Login(r, User{Name: "Ada"}) // puts the token into the header Authorization
		return b.Fetch(r).Body.String()
	}
	events := func(b *echosessiontest.Browser[User], ticket string) int { // as an EventSource
		return b.Fetch(httptest.NewRequest(http.MethodGet, "/events?ticket="+ticket, nil)).Code
	}
	once, late := ticket(), ticket()
	if code := events(b, once); code != http.StatusOK {
		t.Errorf("the page's EventSource: %d", code)
	}
	if code := events(b, once); code != http.StatusUnauthorized {
		t.Errorf("the same ticket again: %d", code)
	}
	if code := events(b.From("https://evil.example"), ticket()); code != http.StatusUnauthorized {
		t.Errorf("a ticket on another site's page: %d", code)
	}
	h.Clock.Advance(30 * time.Second)
	if code := events(b, late); code != http.StatusUnauthorized {
		t.Errorf("a ticket after 30 seconds: %d", code)
	}
}

func TestOutageIsNoLogout(t *testing.T) {
	h := echosessiontest.New[User](t)
	shop, sessions := newShop(h.Config())
	h.Manager = sessions

	b := h.Browser(shop)
	b.Login(User{Name: "Ada"})
	h.Store.Fail(nil)
	if page := b.Get("/"); page.Code != http.StatusServiceUnavailable || page.Header().Get("Retry-After") == "" {
		t.Errorf("while the store is down: %d, %v", page.Code, page.Header())
	}
	h.Store.Restore()
	if page := b.Get("/"); !strings.Contains(page.Body.String(), "Hello, Ada!") {
		t.Errorf("after the outage: %s", page.Body)
	}
}

func TestThePriceListInAnOutage(t *testing.T) {
	h := echosessiontest.New[User](t, func(cfg *echosession.Config) {
		cfg.StaleFor, cfg.Cookie = 30*time.Second, &echosession.Cookie{}
	})
	e := echo.New()
	e.Use(h.Manager.Middleware())
	e.GET("/prices", h.Manager.With(func(c echo.Context, sess *echosession.Session[User]) error {
		if sess.Stale() {
			return c.String(http.StatusOK, "Prices as of a moment ago, "+sess.Data().Name)
		}
		return c.String(http.StatusOK, "Prices for "+sess.Data().Name)
	}), h.Manager.Require(echosession.ServeStale()))

	b := h.Browser(e)
	sess := b.Login(User{Name: "Ada"})
	h.Store.Fail(nil)
	if page := b.Get("/prices"); !strings.Contains(page.Body.String(), "as of a moment ago, Ada") {
		t.Errorf("while the store is down: %d %s", page.Code, page.Body)
	}
	h.Clock.Advance(30 * time.Second) // nothing is served for longer than StaleFor
	if page := b.Get("/prices"); page.Code != http.StatusServiceUnavailable {
		t.Errorf("after StaleFor: %d %s", page.Code, page.Body)
	}

	h.Store.Restore()
	if err := sess.Reload(t.Context()); err != nil { // a read tells the Manager that the store is back
		t.Fatal(err)
	}
	if page := b.Get("/prices"); page.Body.String() != "Prices for Ada" {
		t.Errorf("after the outage: %d %s", page.Code, page.Body)
	}
}

func TestOtherSitesChangeNothing(t *testing.T) {
	h := echosessiontest.New[User](t)
	shop, sessions := newShop(h.Config())
	h.Manager = sessions

	b := h.Browser(shop)
	sess := b.Login(User{Name: "Ada"})
	for _, origin := range []string{"https://evil.example", "https://blog.example.com"} {
		other := b.From(origin) // the same browser on a page of another origin
		for _, path := range []string{"/login", "/visit", "/logout"} {
			if page := other.PostForm(path, url.Values{"name": {"Eve"}}); page.Code < 400 {
				t.Errorf("a form on %s sent to %s: %d", origin, path, page.Code)
			}
		}
	}
	if err := sess.Reload(t.Context()); err != nil || sess.Data().Visits != 0 {
		t.Errorf("the session has %+v, %v", sess.Data(), err)
	}
	if page := b.Get("/"); !strings.Contains(page.Body.String(), "Hello, Ada!") {
		t.Errorf("the visitor sees %s", page.Body)
	}
}

func TestNoVisitIsLost(t *testing.T) {
	h := echosessiontest.New[User](t)
	shop, sessions := newShop(h.Config())
	h.Manager = sessions

	b := h.Browser(shop)
	sess := b.Login(User{Name: "Ada"})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if page := b.PostForm("/visit", nil); page.Code != http.StatusOK {
				t.Errorf("a visit is answered with %d", page.Code)
			}
		})
	}
	wg.Wait()
	if err := sess.Reload(t.Context()); err != nil || sess.Data().Visits != 20 {
		t.Errorf("after 20 visits at once: %d, %v", sess.Data().Visits, err)
	}
}
