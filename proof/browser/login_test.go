package browser

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

type session = echosession.Session[User]

// remembered is how long a login lives with the checkbox "remember me".
const remembered = 30 * 24 * time.Hour

// logins adds the routes of a site that has guests. Its login takes the guest's cart along.
func (s *site) logins(e *echo.Echo, does func(func(context.Context, *session) error) echo.HandlerFunc) {
	count := func(u *User) error { u.Count++; return nil }
	name := func(u *User) error { u.Name = "ada"; return nil }
	add := func(ctx context.Context, sess *session) error { return sess.UpdateOrCreate(ctx, count) }
	e.POST("/add", does(add))
	e.GET("/landing", does(add)) // counts its visitors
	signIn := func(opts ...echosession.CreateOption) echo.HandlerFunc {
		return does(func(ctx context.Context, sess *session) error {
			_, err := sess.Renew(ctx, name, append(opts, echosession.WithSubject("ada"))...)
			return err
		})
	}
	e.POST("/signin", signIn())
	e.POST("/signin-remember", signIn(echosession.Remember(remembered)))
	e.POST("/signin-forget", signIn(echosession.Remember(0)))

	// A login service sends the browser back with a cross-site POST. The cookie "state"
	// says that this browser began the login.
	e.GET("/begin", func(c echo.Context) error {
		c.SetCookie(&http.Cookie{Name: "state", Value: "s3cret", Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteNoneMode})
		return c.HTML(http.StatusOK, `<!doctype html><title>off to the login service</title>`)
	})
	verified := func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			state, err := c.Cookie("state")
			if err != nil || state.Value != c.FormValue("state") {
				return echo.NewHTTPError(http.StatusForbidden, "this browser has begun no login")
			}
			return next(c)
		}
	}
	e.POST("/post-create", verified(does(func(ctx context.Context, sess *session) error {
		_, err := sess.Create(ctx, User{Name: "ada"}, echosession.CrossOriginVerified())
		return err
	})))
	e.POST("/post-renew", verified(signIn(echosession.CrossOriginVerified())))
	e.POST("/post-unsaid", verified(signIn()))

	e.POST("/token", func(c echo.Context) error {
		sess, err := s.sessions.Get(c)
		if err != nil {
			return err
		}
		token, err := sess.Create(c.Request().Context(), User{Name: "app"}, echosession.TokenOnly())
		if err != nil {
			return err
		}
		return c.String(http.StatusOK, token)
	})
	e.GET("/frame", func(c echo.Context) error {
		return c.HTML(http.StatusOK, `<!doctype html><title>a frame</title><script>
			onmessage = m => fetch(m.data.path, {method: m.data.method}).then(r => r.text()).then(text => parent.postMessage(text, "*"));
		</script>`)
	})
	s.lateRoutes(e, add)
}

// lateRoutes are handlers that are slow, before they ask for their session or after.
func (s *site) lateRoutes(e *echo.Echo, add func(context.Context, *session) error) {
	wait := func() {
		done := make(chan error)
		s.late <- done
		<-done
	}
	// A handler that gives a guest a session wherever it cannot update one.
	stubborn := func(ctx context.Context, sess *session) error {
		err := sess.Update(ctx, func(u *User) error { u.Count++; return nil })
		if err != nil {
			_, err = sess.Create(ctx, User{Name: "guest"})
		}
		return err
	}
	for what, do := range map[string]func(context.Context, *session) error{"add": add, "stubborn": stubborn} {
		e.POST("/late-"+what, func(c echo.Context) error {
			if c.QueryParam("when") == "before Get" {
				wait()
			}
			sess, err := s.sessions.Get(c)
			if err != nil {
				return err
			}
			if c.QueryParam("when") == "after Get" {
				wait()
			}
			if err := do(c.Request().Context(), sess); err != nil {
				return err
			}
			return c.NoContent(http.StatusOK)
		})
	}
}

// inFrame is a script that lets a frame of the site, in a page of another one, send a
// request, and waits for the answer's text.
func (s *site) inFrame(method, path string) string {
	return fmt.Sprintf(`new Promise(done => {
		const frame = document.createElement("iframe");
		onmessage = m => done(m.data);
		frame.onload = () => frame.contentWindow.postMessage({method: %q, path: %q}, "*");
		frame.src = %q;
		document.body.append(frame);
	})`, method, path, s.url(victim, "/frame"))
}

// count is how much is in the cart that the page shows.
func (b *tab) count() string {
	b.t.Helper()
	return b.eval(`document.querySelector("#count")?.textContent ?? "none"`)
}

// session is the session's cookie.
func (b *tab) session() *network.Cookie {
	b.t.Helper()
	i := slices.IndexFunc(b.cookies(), func(c *network.Cookie) bool { return c.Name == "__Host-session" })
	if i < 0 {
		b.t.Fatalf("no session cookie among %q", b.jar())
	}
	return b.cookies()[i]
}

// own sends a form of the site's own pages.
func (b *tab) own(path string) {
	b.t.Helper()
	if status := b.leave(submit("POST", b.site.url(victim, path), nil)); status != http.StatusOK {
		b.t.Fatalf("%s: %d", path, status)
	}
}

// lasts checks how long the browser keeps the session's cookie: until it is closed, or
// about as long as wanted.
func (b *tab) lasts(want time.Duration) *network.Cookie {
	b.t.Helper()
	c := b.session()
	if want == 0 {
		if !c.Session || c.Expires != -1 {
			b.t.Errorf("the cookie outlives the browser: %+v", c)
		}
		return c
	}
	left := time.Until(time.UnixMicro(int64(c.Expires * 1e6)))
	if c.Session || left > want || left < want-time.Minute {
		b.t.Errorf("the cookie lives for %v, want %v: %+v", left, want, c)
	}
	return c
}

// TestRemember: a login outlives the browser where the user wants it, and only there.
func TestRemember(t *testing.T) {
	s := newSite(t, echosession.Cookie{})
	b := newTab(t, newBrowser(t), s)
	b.visit(victim, "/")
	b.own("/add")
	guest := b.lasts(0)
	b.own("/signin")
	if c := b.lasts(0); c.Value == guest.Value {
		t.Error("the login has the guest's token")
	}
	b.own("/signin-remember")
	first := b.lasts(remembered)

	s.ahead.Add(int64(remembered/10 - time.Hour))
	b.visit(victim, "/")
	if c := b.lasts(remembered); c.Expires != first.Expires {
		t.Error("the cookie was sent again before a tenth of its life has passed")
	}
	s.ahead.Add(int64(2 * time.Hour))
	b.visit(victim, "/")
	again := b.lasts(remembered)
	if again.Expires <= first.Expires || again.Value != first.Value {
		t.Errorf("after a tenth of its life the cookie was\n%+v and is\n%+v", first, again)
	}
	b.visit(victim, "/")
	if c := b.lasts(remembered); c.Expires != again.Expires {
		t.Error("the cookie was sent once more")
	}

	for _, path := range []string{"/signin", "/rotate"} {
		before := b.session()
		b.own(path)
		if c := b.lasts(remembered); c.Value == before.Value {
			t.Errorf("%s: the token is the same", path)
		}
	}
	b.own("/signin-forget")
	b.lasts(0)
	if b.visit(victim, "/"); b.name() != "ada" || b.count() != "1" {
		t.Errorf("in the end the page shows %s with %s in the cart", b.name(), b.count())
	}
}

// TestRememberOutlivesTheBrowser: who closes the browser is logged out, and with "remember
// me" is not.
func TestRememberOutlivesTheBrowser(t *testing.T) {
	for path, want := range map[string]string{"/signin": "", "/signin-remember": "ada"} {
		s, profile := newSite(t, echosession.Cookie{}), chromedp.UserDataDir(t.TempDir())
		// A browser is closed when its test ends. A tab of newTab would forget all before.
		t.Run(path[1:], func(t *testing.T) {
			b := &tab{t, s, newBrowser(t, profile)}
			b.visit(victim, "/")
			b.own(path)
			if b.visit(victim, "/"); b.name() != "ada" {
				t.Errorf("the page shows %q", b.name())
			}
		})
		t.Run(path[1:]+", another day", func(t *testing.T) {
			b := &tab{t, s, newBrowser(t, profile)}
			if b.visit(victim, "/"); b.name() != want {
				t.Errorf("the page shows %q, want %q: %s", b.name(), want, b.jar())
			}
		})
	}
}

// TestLoginKeepsTheCart: a guest's cart is the user's after the login, and the token from
// before opens nothing.
func TestLoginKeepsTheCart(t *testing.T) {
	browser := newBrowser(t)
	for mode, sameSite := range modes {
		t.Run(mode, func(t *testing.T) {
			s := newSite(t, echosession.Cookie{SameSite: sameSite})
			b := newTab(t, browser, s)
			b.visit(victim, "/")
			if jar := b.jar(); jar != "" {
				t.Fatalf("a visit makes a cookie: %s", jar)
			}
			for range 3 {
				b.own("/add")
			}
			guest := b.session()
			b.own("/signin")
			if b.visit(victim, "/"); b.name() != "ada" || b.count() != "3" {
				t.Errorf("after the login the page shows %q with %s in the cart", b.name(), b.count())
			}
			if c := b.session(); c.Value == guest.Value || len(b.cookies()) != 1 {
				t.Errorf("the cookies are %s", b.jar())
			}
			old, err := s.sessions.Open(t.Context(), guest.Value)
			if err != nil || !errors.Is(old.Reason(), echosession.ErrRenewed) {
				t.Errorf("the token from before: %v, %v", old.Reason(), err)
			}
		})
	}
}

// TestLateAnswer: a request that is under way during the login does not take the login's
// cookie away, whatever its handler does.
func TestLateAnswer(t *testing.T) {
	browser := newBrowser(t)
	for mode, sameSite := range modes {
		s := newSite(t, echosession.Cookie{SameSite: sameSite})
		for _, what := range []string{"add", "stubborn"} {
			for _, when := range []string{"before Get", "after Get"} {
				t.Run(strings.Join([]string{mode, what, when}, "/"), func(t *testing.T) {
					b := newTab(t, browser, s)
					b.visit(victim, "/")
					b.own("/add")
					b.eval(fmt.Sprintf(`window.late = fetch("/late-%s?when=%s", {method: "POST"}).then(r => "status " + r.status); "sent"`, what, url.QueryEscape(when)))
					var done chan<- error
					select {
					case done = <-s.late:
					case <-time.After(30 * time.Second):
						t.Fatal("the request does not arrive")
					}
					if got := b.eval(`fetch("/signin", {method: "POST"}).then(r => "status " + r.status)`); got != "status 200" {
						t.Errorf("the login: %s", got)
					}
					login := b.jar()
					close(done)
					want := map[string]string{"add": "status 409", "stubborn": "status 401"}[what]
					if got := b.eval(`window.late`); got != want {
						t.Errorf("the late answer: %s, want %s", got, want)
					}
					if got := b.jar(); got != login {
						t.Errorf("the cookie of the login was\n%s\nand is\n%s", login, got)
					}
					if b.visit(victim, "/"); b.name() != "ada" || b.count() != "1" {
						t.Errorf("the page shows %q with %s in the cart", b.name(), b.count())
					}
				})
			}
		}
	}
}

// TestStrictLink: a link from another site arrives without a Strict cookie, and a page that
// makes guests does not overwrite it.
func TestStrictLink(t *testing.T) {
	browser := newBrowser(t)
	for mode, sameSite := range modes {
		t.Run(mode, func(t *testing.T) {
			s := newSite(t, echosession.Cookie{SameSite: sameSite})
			b := newTab(t, browser, s)
			b.visit(victim, "/")
			b.own("/signin")
			login := b.jar()
			b.visit(evil, "/")
			status := b.leave(fmt.Sprintf(`location = %q`, s.url(victim, "/landing")))
			want := map[bool]int{true: http.StatusForbidden, false: http.StatusOK}[mode == "Strict"]
			if status != want {
				t.Errorf("the link leads to %d, want %d", status, want)
			}
			if jar := b.jar(); jar != login {
				t.Errorf("the cookie was\n%s\nand is\n%s", login, jar)
			}
			if b.visit(victim, "/landing"); b.name() != "ada" {
				t.Errorf("the page shows %q", b.name())
			}
			if n := len(s.records(t)); n != 1 {
				t.Errorf("there are %d sessions", n)
			}
		})
	}
}

// TestCrossOriginVerified: a login that comes back as a POST from the login service's site
// works where the application has checked that this browser began it, carries nothing of
// the session before, and is refused everywhere else.
func TestCrossOriginVerified(t *testing.T) {
	browser := newBrowser(t)
	for mode, sameSite := range modes {
		for _, opaque := range []bool{false, true} {
			for _, path := range []string{"/post-create", "/post-renew"} {
				t.Run(fmt.Sprint(mode, path, " opaque origin ", opaque), func(t *testing.T) {
					s := newSite(t, echosession.Cookie{SameSite: sameSite})
					b := newTab(t, browser, s)
					b.visit(victim, "/begin")
					b.own("/add")
					before, jar := b.session(), b.jar()
					post := func(path, state string) int {
						b.visit(evil, "/") // stands for the login service
						if opaque {
							b.eval(`(() => {
								const meta = document.createElement("meta");
								meta.name = "referrer"; meta.content = "no-referrer";
								document.head.append(meta);
								return "Origin: null";
							})()`)
						}
						return b.leave(submit("POST", s.url(victim, path), url.Values{"state": {state}}))
					}
					for path, state := range map[string]string{path: "guessed", "/post-unsaid": "s3cret"} {
						if status := post(path, state); status != http.StatusForbidden || b.jar() != jar {
							t.Errorf("%s with state %s: %d, the cookies are\n%s", path, state, status, b.jar())
						}
					}
					if status := post(path, "s3cret"); status != http.StatusOK {
						t.Errorf("%s: %d", path, status)
					}
					if b.visit(victim, "/"); b.name() != "ada" || b.count() != "0" || b.session().Value == before.Value {
						t.Errorf("after the login the page shows %q with %s in the cart", b.name(), b.count())
					}
					// Only a SameSite=None cookie came along: where it did, its session has ended.
					old, err := s.sessions.Open(t.Context(), before.Value)
					if err != nil || old.Exists() == (mode == "None") {
						t.Errorf("the session before: %v, %v", old.Reason(), err)
					}
				})
			}
		}
	}
}

// TestTokenOnly: a page of any origin may ask for a token, and nothing changes in the
// browser.
func TestTokenOnly(t *testing.T) {
	browser := newBrowser(t)
	for mode, sameSite := range modes {
		t.Run(mode, func(t *testing.T) {
			s := newSite(t, echosession.Cookie{SameSite: sameSite})
			b := newTab(t, browser, s)
			b.visit(victim, "/")
			b.own("/signin")
			login := b.jar()
			for _, from := range []string{evil, sibling} {
				for how, send := range ways {
					if !slices.Contains([]string{"form", "fetch", "fetch with CORS", "sandboxed frame"}, how) {
						continue // they do not POST
					}
					before := len(s.records(t))
					b.visit(from, "/")
					send(b, s.url(victim, "/token"), nil)
					if jar := b.jar(); jar != login {
						t.Errorf("%s from %s: the cookies were\n%s\nand are\n%s", how, from, login, jar)
					}
					if n := len(s.records(t)); n != before+1 {
						t.Errorf("%s from %s: there were %d sessions and are %d", how, from, before, n)
					}
				}
			}
			b.visit(victim, "/")
			if b.name() != "ada" {
				t.Errorf("the page shows %q", b.name())
			}
			got := b.eval(`fetch("/token", {method: "POST", credentials: "omit"}).then(r => r.text())
				.then(token => fetch("/", {credentials: "omit", headers: {Authorization: "Bearer " + token}})).then(r => r.text())`)
			if !strings.Contains(got, ">app<") || b.jar() != login {
				t.Errorf("with the token a page gets %s, and the cookies are\n%s", got, b.jar())
			}

			// With the cookie, the page of a trusted origin has a session: it ends as ever.
			before := len(s.records(t))
			b.visit(trusted, "/")
			b.eval(fetch("POST", s.url(victim, "/token"), nil, "no-cors"))
			if n := len(s.records(t)); n != before || b.jar() != login {
				t.Errorf("from a trusted origin: there were %d sessions and are %d, and the cookies are\n%s", before, n, b.jar())
			}
			if b.visit(victim, "/"); b.name() == "ada" {
				t.Error("the session of the cookie lives on")
			}
		})
	}
}

// TestPartitioned: in a frame, a partitioned cookie belongs to the site around it. The
// same frame in another site, and the site itself, know nothing of it.
func TestPartitioned(t *testing.T) {
	browser := newBrowser(t)
	const other = "other.example"
	s := newSite(t, echosession.Cookie{SameSite: http.SameSiteNoneMode, Partitioned: true})
	b := newTab(t, browser, s)
	knows := func(host string) bool {
		if b.visit(host, "/"); host == victim {
			return b.name() == "ada"
		}
		return strings.Contains(b.eval(s.inFrame("GET", "/")), ">ada<")
	}
	b.visit(evil, "/")
	if got := b.eval(s.inFrame("POST", "/signin")); !strings.Contains(got, ">ada<") {
		t.Fatalf("the login in the frame: %s", got)
	}
	key := b.session().PartitionKey
	if key == nil || key.TopLevelSite != "https://"+evil || !key.HasCrossSiteAncestor {
		t.Errorf("the partition is %+v", key)
	}
	if !knows(evil) {
		t.Error("the frame has lost its session")
	}
	for _, host := range []string{other, victim} {
		if knows(host) {
			t.Errorf("the login is known in %s", host)
		}
	}
	b.visit(evil, "/")
	if got := b.eval(s.inFrame("POST", "/rotate")); !strings.Contains(got, ">ada<") || len(b.cookies()) != 1 {
		t.Errorf("rotated in the frame: %s, and the cookies are\n%s", got, b.jar())
	}
	if b.eval(s.inFrame("POST", "/logout")); b.jar() != "" {
		t.Errorf("after a logout in the frame the cookies are\n%s", b.jar())
	}

	t.Run("without Partitioned", func(t *testing.T) {
		s := newSite(t, echosession.Cookie{SameSite: http.SameSiteNoneMode})
		b := newTab(t, browser, s)
		b.visit(evil, "/")
		b.eval(s.inFrame("POST", "/signin"))
		// A browser that refuses cookies of third parties, as this one does, stores none.
		for _, c := range b.cookies() {
			if c.PartitionKey != nil {
				t.Errorf("%+v", c)
			}
		}
	})
}
