package main

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/echosession/echosession/echosessiontest"
)

// open returns the site and a browser at it.
func open(t *testing.T) (http.Handler, *echosessiontest.Browser[Visitor], *echosessiontest.Harness[Visitor]) {
	t.Helper()
	h := echosessiontest.New[Visitor](t)
	e, err := newSite(h.Config())
	if err != nil {
		t.Fatal(err)
	}
	return e, h.Browser(e), h
}

func TestSite(t *testing.T) {
	_, b, _ := open(t)
	const evil, sibling, app = "https://evil.example", "https://blog.example.com", "https://app.example.com"

	// The steps are those of one visitor, in this order.
	for _, step := range []struct {
		name   string
		path   string // of a POST; a GET of / when empty
		form   url.Values
		origin string // of the page that sends it, if it is not the site's own
		status int
		want   string
	}{
		{name: "a stranger is asked to log in", status: 200, want: "Log in"},
		{name: "another site cannot log a visitor in", path: "/login", form: url.Values{"name": {"Eve"}}, origin: evil, status: 403},
		{name: "a sibling cannot log a visitor in", path: "/login", form: url.Values{"name": {"Eve"}}, origin: sibling, status: 403},
		{name: "a stranger cannot add a note", path: "/notes", form: url.Values{"note": {"x"}}, status: 401},
		{name: "a guest puts something into the basket", path: "/basket", form: url.Values{"item": {"<tea>"}}, status: 200, want: "<b>&lt;tea&gt;</b>"},
		{name: "a guest cannot add a note", path: "/notes", form: url.Values{"note": {"x"}}, status: 401},
		{name: "another site makes no guest", path: "/basket", form: url.Values{"item": {"x"}}, origin: evil, status: 403},
		{name: "login", path: "/login", form: url.Values{"name": {"Ada"}}, status: 200, want: "<p role=\"status\">Welcome, Ada.</p>\n\n<p>Hello, Ada."},
		{name: "the welcome is shown once", status: 200, want: "<!doctype html>\n\n\n<p>Hello, Ada."},
		{name: "the basket is still there", status: 200, want: "<b>&lt;tea&gt;</b>"},
		{name: "a note", path: "/notes", form: url.Values{"note": {"<milk>"}}, status: 200, want: "<li>&lt;milk&gt;</li>"},
		{name: "another site cannot add a note", path: "/notes", form: url.Values{"note": {"x"}}, origin: evil, status: 401},
		{name: "a sibling cannot add a note", path: "/notes", form: url.Values{"note": {"x"}}, origin: sibling, status: 403},
		{name: "a trusted origin can", path: "/notes", form: url.Values{"note": {"eggs"}}, origin: app, status: 200, want: "<li>eggs</li>"},
		{name: "another site cannot log out", path: "/logout", origin: evil, status: 403},
		{name: "a sibling cannot log out", path: "/logout", origin: sibling, status: 403},
		{name: "another site cannot log in as somebody else", path: "/login", form: url.Values{"name": {"Eve"}}, origin: evil, status: 403},
		{name: "the visitor is still logged in", status: 200, want: "Hello, Ada."},
		{name: "logout", path: "/logout", status: 200, want: "Log in"},
	} {
		from := b
		if step.origin != "" {
			from = b.From(step.origin)
		}
		var page *echosessiontest.Response
		if step.path == "" {
			page = from.Get("/")
		} else {
			page = from.PostForm(step.path, step.form)
		}
		if page.Code != step.status || !strings.Contains(page.Body.String(), step.want) {
			t.Errorf("%s: %d\n%s", step.name, page.Code, page.Body)
		}
		if step.status >= 400 && page.Header()["Set-Cookie"] != nil {
			t.Errorf("%s: Set-Cookie: %q", step.name, page.Header()["Set-Cookie"])
		}
		if strings.Contains(step.want, "Hello") && page.Header().Get("Cache-Control") != "private, no-store" {
			t.Errorf("%s: Cache-Control: %q", step.name, page.Header().Get("Cache-Control"))
		}
	}
}

func TestCookieOutlivesTheBrowser(t *testing.T) {
	site, b, h := open(t)
	login := func(form string) *http.Cookie {
		t.Helper()
		r := httptest.NewRequest(http.MethodPost, "/login", strings.NewReader(form))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		cookies := h.Serve(site, r).Result().Cookies()
		if len(cookies) != 1 || !cookies[0].HttpOnly {
			t.Fatalf("login set %v", cookies)
		}
		return cookies[0]
	}
	if cookie := login("name=Ada&remember=on"); cookie.MaxAge < 29*24*60*60 {
		t.Errorf("with the checkbox, login set %v", cookie)
	}
	if cookie := login("name=Ada"); cookie.MaxAge != 0 {
		t.Errorf("without the checkbox, login set %v", cookie)
	}

	b.PostForm("/login", url.Values{"name": {"Ada"}})
	if page := b.Get("/"); !strings.Contains(page.Body.String(), "Hello, Ada.") {
		t.Errorf("without the checkbox: %s", page.Body)
	}
	b.Reopen()
	if page := b.Get("/"); !strings.Contains(page.Body.String(), "Log in") {
		t.Errorf("without the checkbox, when the browser was closed: %s", page.Body)
	}

	b.PostForm("/login", url.Values{"name": {"Ada"}, "remember": {"on"}})
	for _, step := range []struct {
		days int
		want string
	}{{29, "Hello, Ada."}, {29, "Hello, Ada."}, {31, "Log in"}} {
		b.Reopen()
		h.Clock.Advance(time.Duration(step.days) * 24 * time.Hour)
		if page := b.Get("/"); !strings.Contains(page.Body.String(), step.want) {
			t.Errorf("%d days after the last visit: %s", step.days, page.Body)
		}
	}
}
