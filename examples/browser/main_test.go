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
		status int
		want   string
	}{
		{name: "a stranger is asked to log in", status: 200, want: "Log in"},
		{name: "another site cannot log a visitor in", path: "/login", form: url.Values{"name": {"Eve"}}, origin: "https://evil.example", status: 403},
		{name: "a stranger cannot add a note", path: "/notes", form: url.Values{"note": {"x"}}, status: 401},
		{name: "login", path: "/login", form: url.Values{"name": {"Ada"}}, status: 200, want: "Hello, Ada."},
		{name: "a note", path: "/notes", form: url.Values{"note": {"<milk>"}}, status: 200, want: "<li>&lt;milk&gt;</li>"},
		{name: "another site cannot add a note", path: "/notes", form: url.Values{"note": {"x"}}, origin: "https://evil.example", status: 403},
		{name: "a trusted origin can", path: "/notes", form: url.Values{"note": {"eggs"}}, origin: "https://app.example.com", status: 200, want: "<li>eggs</li>"},
		{name: "another site cannot log out", path: "/logout", origin: "https://evil.example", status: 403},
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
			r.Header.Set("Sec-Fetch-Site", "cross-site")
		}
		resp, err := browser.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != step.status || !strings.Contains(string(body), step.want) {
			t.Errorf("%s: %d %v\n%s", step.name, resp.StatusCode, err, body)
		}
	}
}

func TestCookieOutlivesTheBrowser(t *testing.T) {
	e, err := newSite(echosession.NewMemoryStore(), bytes.Repeat([]byte("s"), 32))
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	e.ServeHTTP(rec, httptest.NewRequest(http.MethodPost, "/login", nil))
	cookies := rec.Result().Cookies()
	if len(cookies) != 1 || cookies[0].MaxAge < 29*24*60*60 || !cookies[0].HttpOnly {
		t.Errorf("login set %v", cookies)
	}
}
