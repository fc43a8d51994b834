package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/echosession/echosession"
)

func TestSite(t *testing.T) {
	e, err := newSite(echosession.NewMemoryStore(), bytes.Repeat([]byte("s"), 32))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(e)
	defer server.Close()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar}

	// The steps are those of one visitor, in this order.
	for _, step := range []struct {
		name   string
		path   string // of a POST; a GET of / when empty
		form   url.Values
		origin string
		site   string // Sec-Fetch-Site; from cross-site the browser sends no Lax cookie
		status int
		want   string
	}{
		{name: "a stranger is asked to log in", status: 200, want: "Log in"},
		{name: "another site cannot log a visitor in", path: "/login", form: url.Values{"name": {"Eve"}}, origin: "https://evil.example", site: "cross-site", status: 403},
		{name: "a sibling cannot log a visitor in", path: "/login", form: url.Values{"name": {"Eve"}}, origin: "https://blog.example.com", site: "same-site", status: 403},
		{name: "a stranger cannot add a note", path: "/notes", form: url.Values{"note": {"x"}}, status: 401},
		{name: "a guest puts something into the basket", path: "/basket", form: url.Values{"item": {"<tea>"}}, status: 200, want: "<b>&lt;tea&gt;</b>"},
		{name: "a guest cannot add a note", path: "/notes", form: url.Values{"note": {"x"}}, status: 401},
		{name: "another site makes no guest", path: "/basket", form: url.Values{"item": {"x"}}, origin: "https://evil.example", site: "cross-site", status: 403},
		{name: "login", path: "/login", form: url.Values{"name": {"Ada"}}, status: 200, want: "<p role=\"status\">Welcome, Ada.</p>\n\n<p>Hello, Ada."},
		{name: "the welcome is shown once", status: 200, want: "<!doctype html>\n\n\n<p>Hello, Ada."},
		{name: "the basket is still there", status: 200, want: "<b>&lt;tea&gt;</b>"},
		{name: "a note", path: "/notes", form: url.Values{"note": {"<milk>"}}, status: 200, want: "<li>&lt;milk&gt;</li>"},
		{name: "another site cannot add a note", path: "/notes", form: url.Values{"note": {"x"}}, origin: "https://evil.example", site: "cross-site", status: 401},
		{name: "a sibling cannot add a note", path: "/notes", form: url.Values{"note": {"x"}}, origin: "https://blog.example.com", site: "same-site", status: 403},
		{name: "a trusted origin can", path: "/notes", form: url.Values{"note": {"eggs"}}, origin: "https://app.example.com", site: "same-site", status: 200, want: "<li>eggs</li>"},
		{name: "another site cannot log out", path: "/logout", origin: "https://evil.example", site: "cross-site", status: 403},
		{name: "a sibling cannot log out", path: "/logout", origin: "https://blog.example.com", site: "same-site", status: 403},
		{name: "another site cannot log in as somebody else", path: "/login", form: url.Values{"name": {"Eve"}}, origin: "https://evil.example", site: "cross-site", status: 403},
		{name: "the visitor is still logged in", status: 200, want: "Hello, Ada."},
		{name: "logout", path: "/logout", status: 200, want: "Log in"},
	} {
		r, err := http.NewRequest(http.MethodGet, server.URL+"/", nil)
		if step.path != "" {
			r, err = http.NewRequest(http.MethodPost, server.URL+step.path, strings.NewReader(step.form.Encode()))
		}
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if step.origin != "" {
			r.Header.Set("Origin", step.origin)
			r.Header.Set("Sec-Fetch-Site", step.site)
		}
		client := browser
		if step.site == "cross-site" {
			client = http.DefaultClient // without the cookies
		}
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != step.status || !strings.Contains(string(body), step.want) {
			t.Errorf("%s: %d %v\n%s", step.name, resp.StatusCode, err, body)
		}
		if step.status >= 400 && resp.Header["Set-Cookie"] != nil {
			t.Errorf("%s: Set-Cookie: %q", step.name, resp.Header["Set-Cookie"])
		}
		if strings.Contains(step.want, "Hello") && resp.Header.Get("Cache-Control") != "private, no-store" {
			t.Errorf("%s: Cache-Control: %q", step.name, resp.Header.Get("Cache-Control"))
		}
	}
}

func TestCookieOutlivesTheBrowser(t *testing.T) {
	e, err := newSite(echosession.NewMemoryStore(), bytes.Repeat([]byte("s"), 32))
	if err != nil {
		t.Fatal(err)
	}
	login := func(form string) *http.Cookie {
		t.Helper()
		r := httptest.NewRequest(http.MethodPost, "/login", strings.NewReader(form))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		rec := httptest.NewRecorder()
		e.ServeHTTP(rec, r)
		cookies := rec.Result().Cookies()
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
}
