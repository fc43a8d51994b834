package adaptertest

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/echosession/echosession"
)

func panics(http.ResponseWriter, *http.Request, *echosession.Session[User]) error {
	panic("the handler panics")
}

func (s suite[C, M]) testPanic(t *testing.T) {
	site := newSite(t, withCookie)
	install := s.Users.Middleware(site.users)
	recovering := s.Around(func(w http.ResponseWriter, r *http.Request, next func(*http.Request) error) error {
		defer func() {
			if recover() != nil {
				w.WriteHeader(http.StatusInternalServerError)
				_, _ = io.WriteString(w, "recovered")
			}
		}()
		return next(r)
	})
	recovered := func(header ...string) string { return response(500, "recovered", append(header, textType)...) }
	quiet, loud := s.handler(inOrder(panics)), s.handler(inOrder(create, panics))
	careless := s.handler(inOrder(create, header("Cache-Control", "public"), panics))

	site.check(s.Serve(quiet, install), exchange{"no answer", "GET /x", ""})
	site.check(s.Serve(loud, install), exchange{"no answer after Create", "POST /x", ""})
	site.check(s.Serve(quiet, recovering, install), exchange{"recovered before the middleware", "GET /x", recovered(vary)})
	site.check(s.Serve(quiet, install, recovering), exchange{"recovered behind the middleware", "GET /x", recovered(vary)})
	site.check(s.Serve(loud, recovering, install),
		exchange{"after Create, recovered before the middleware", "POST /x", recovered(private, vary, newCookie)})
	site.check(s.Serve(loud, install, recovering),
		exchange{"after Create, recovered behind the middleware", "POST /x", recovered(private, vary, newCookie)})
	site.check(s.Serve(careless, recovering, install),
		exchange{"after Create and Cache-Control, recovered before the middleware", "POST /x", recovered(private, vary, newCookie)})
	site.check(s.Serve(careless, install, recovering),
		exchange{"after Create and Cache-Control, recovered behind the middleware", "POST /x", recovered(private, vary, newCookie)})

	kept := make(chan *echosession.Session[User], 1)
	keep := func(_ http.ResponseWriter, _ *http.Request, sess *echosession.Session[User]) error {
		kept <- sess
		return nil
	}
	site.check(s.Serve(s.handler(inOrder(keep, panics)), recovering, install),
		exchange{"that ends the request", "GET /x\n" + adaCookie, recovered(private, vary)})
	if _, err := (<-kept).Rotate(t.Context()); !errors.Is(err, echosession.ErrRequestOver) {
		t.Errorf("Rotate after the panic: %v", err)
	}
}

// flush is the step that sends what was written.
func flush(w http.ResponseWriter, _ *http.Request, _ *echosession.Session[User]) error {
	return http.NewResponseController(w).Flush()
}

// text is the step that writes a text.
func text(text string) step {
	return func(w http.ResponseWriter, _ *http.Request, _ *echosession.Session[User]) error {
		_, err := io.WriteString(w, text)
		return err
	}
}

// stream is the answer of a handler that flushed between its texts.
func stream(header []string, texts ...string) string {
	answer := strings.TrimSuffix(response(http.StatusNoContent, "", append(header, textType, "Transfer-Encoding: chunked")...), "\n")
	answer = strings.Replace(answer, "204 No Content", "200 OK", 1) + "\n"
	for _, text := range texts {
		answer += fmt.Sprintf("%x\r\n%s\r\n", len(text), text)
	}
	return answer + "0\r\n\r\n"
}

func (s suite[C, M]) testFlush(t *testing.T) {
	plain := header("Content-Type", "text/plain; charset=utf-8")
	public := header("Cache-Control", "public")
	cookie, varied := []string{private, vary, newCookie}, []string{vary}
	for _, tt := range []struct {
		name   string
		steps  []step
		answer string
		blind  bool // needs a framework that is not BlindToFlush
	}{
		{"a stream", []step{text("one"), flush, text("two"), flush, text("three")}, stream(varied, "one", "two", "three"), false},
		{"a stream that is never flushed", []step{text("one"), text("two")}, ok("onetwo", vary), false},
		{"before everything", []step{plain, flush, text("one")}, stream(varied, "one"), false},
		{"Create before a stream", []step{create, text("one"), flush, text("two")}, stream(cookie, "one", "two"), false},
		{"Create and Cache-Control before a stream", []step{create, public, text("one"), flush}, stream(cookie, "one"), false},
		{"Create within a stream", []step{text("one"), flush, tooLate(create)}, stream(varied, "one", " true"), false},
		{"Destroy within a stream", []step{text("one"), flush, destroy}, stream(varied, "one"), false},
		{"Create before a flush", []step{plain, create, flush, text("one")}, stream(cookie, "one"), false},
		{"Create and Cache-Control before a flush", []step{plain, create, public, flush, text("one")}, stream(cookie, "one"), true},
		{"Create after a flush", []step{plain, flush, tooLate(create)}, stream(varied, " true"), true},
		{"an error after a flush", []step{plain, flush, fails(echosession.ErrConflict)}, stream(varied), true},
	} {
		if tt.blind && s.BlindToFlush {
			continue
		}
		site := newSite(t, withCookie)
		site.check(s.serveUsers(site, inOrder(tt.steps...)), exchange{tt.name, "POST /x", tt.answer})
	}
}

func (s suite[C, M]) testHijack(t *testing.T) {
	hijack := func(w http.ResponseWriter, _ *http.Request, sess *echosession.Session[User]) error {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = fmt.Fprint(conn, "the handler's own words for ", nameOrReason(sess))
		return err
	}
	afterwards := make(chan error, 1)
	createAfterwards := func(w http.ResponseWriter, r *http.Request, sess *echosession.Session[User]) error {
		afterwards <- create(w, r, sess)
		return nil
	}
	want := "the handler's own words for "
	site := newSite(t, withCookie)
	site.check(s.serveUsers(site, hijack), exchange{"a live session", "GET /x\n" + adaCookie, want + "ada"})
	site.check(s.serveUsers(site, hijack, s.Users.Require(site.users)), exchange{"behind Require", "GET /x\n" + adaCookie, want + "ada"})
	site.check(s.serveUsers(site, inOrder(create, hijack)), exchange{"after Create", "POST /x", want + "eve"})
	site.check(s.serveUsers(site, inOrder(hijack, fails(echosession.ErrConflict))), exchange{"before an error", "GET /x", want + noToken})
	if s.BlindToFlush {
		return
	}
	site.check(s.serveUsers(site, inOrder(hijack, createAfterwards)), exchange{"before Create", "POST /x", want + noToken})
	if err := <-afterwards; !errors.Is(err, echosession.ErrRequestOver) {
		t.Errorf("Create after Hijack: %v", err)
	}
}

func (s suite[C, M]) testEarlyHints(t *testing.T) {
	if s.NoEarlyHints {
		t.Skip("the framework takes an informational header for the answer's own")
	}
	link := "</style.css>; rel=preload"
	hint := inOrder(header("Link", link), status(http.StatusEarlyHints))
	hints := "HTTP/1.1 103 Early Hints\nLink: " + link + "\nVary: Cookie\n\n"
	public := header("Cache-Control", "public")
	for _, tt := range []struct {
		name   string
		steps  []step
		answer string
	}{
		{"before Create", []step{hint, create, write}, hints + ok("done", private, vary, newCookie, "Link: "+link)},
		{"before Create and Cache-Control", []step{hint, create, public, write}, hints + ok("done", private, vary, newCookie, "Link: "+link)},
		{"before an error", []step{hint, fails(echosession.ErrConflict)},
			hints + failure(409, "the session was changed by another request", vary, "Link: "+link)},
		{"before another Vary", []step{hint, header("Vary", "Accept-Encoding"), write}, hints + ok("done", vary, "Vary: Accept-Encoding", "Link: "+link)},
	} {
		site := newSite(t, withCookie)
		site.check(s.serveUsers(site, inOrder(tt.steps...)), exchange{tt.name, "POST /x", tt.answer})
	}
}

// testLateUse checks sessions that a handler leaves behind.
func (s suite[C, M]) testLateUse(t *testing.T) {
	site := newSite(t, withCookie)
	left := make(chan *echosession.Session[User], 1)
	leave := func(w http.ResponseWriter, r *http.Request, sess *echosession.Session[User]) error {
		left <- sess
		return write(w, r, sess)
	}
	useOther := func(w http.ResponseWriter, r *http.Request, _ *echosession.Session[User]) error {
		other := <-left
		_, created := other.Create(r.Context(), User{Name: "eve"})
		_, renewed := other.Renew(r.Context(), nil)
		_, rotated := other.Rotate(r.Context())
		destroyed := other.Destroy(r.Context())
		left <- other
		_, err := fmt.Fprint(w, other.Data().Name, "; ", sentinel(created), "; ", sentinel(renewed), "; ", sentinel(rotated), "; ", sentinel(destroyed))
		return err
	}
	site.check(s.serveUsers(site, leave), exchange{"the session's own request", "POST /x\n" + adaCookie, ok("done", private, vary)})
	site.check(s.serveUsers(site, useOther), exchange{"within another request", "POST /x\nAuthorization: Bearer {bob}",
		ok("ada" + strings.Repeat("; "+requestOver, 4))})
	sess := <-left
	if _, err := sess.Create(t.Context(), User{Name: "eve"}); !errors.Is(err, echosession.ErrRequestOver) {
		t.Errorf("Create outside of a request: %v", err)
	}
	err := sess.Update(t.Context(), func(u *User) error { u.Name = "Ada"; return nil })
	if err != nil || sess.Data().Name != "Ada" {
		t.Errorf("Update outside of a request: %v, and the name is %q", err, sess.Data().Name)
	}
}

func (s suite[C, M]) testConcurrent(t *testing.T) {
	site := newSite(t, withCookie)
	addr := site.serve(s.Serve(func(c C) error {
		// One request is served by several goroutines, too.
		first, err := s.Users.Get(c)
		if err != nil {
			return err
		}
		var wg sync.WaitGroup
		var failed sync.Map
		for i := range 4 {
			wg.Go(func() {
				sess, err := s.Users.Get(c)
				if err != nil || sess != first || sess.Data().Name != first.Data().Name {
					failed.Store(i, err)
				}
			})
		}
		wg.Wait()
		failed.Range(func(_, v any) bool { err = fmt.Errorf("one of several Gets: %v", v); return false })
		if err != nil {
			return err
		}
		return inOrder(rotate, func(w http.ResponseWriter, _ *http.Request, _ *echosession.Session[User]) error {
			return whoami(w, nil, first)
		})(s.Writer(c), s.Request(c), first)
	}, s.Users.Middleware(site.users), s.Users.Require(site.users)))

	for i := range 4 {
		for _, name := range []string{"u", "v"} {
			site.add(fmt.Sprint(name, i), site.users)
		}
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}} // one connection for both users
			defer client.CloseIdleConnections()
			tokens := [2]string{site.tokens[fmt.Sprint("u", i)], site.tokens[fmt.Sprint("v", i)]}
			for n := range 40 {
				name := fmt.Sprint([]string{"u", "v"}[n%2], i)
				token, err := visit(client, addr, tokens[n%2], name)
				if err != nil {
					t.Error(err)
					return
				}
				tokens[n%2] = token
			}
		})
	}
	wg.Wait()
}

// visit sends a request of the user with this name, and returns the token that
// the answer's cookie holds.
func visit(client *http.Client, addr, token, name string) (string, error) {
	r, err := http.NewRequest(http.MethodPost, "http://"+addr+"/x", nil)
	if err != nil {
		return "", err
	}
	r.Header.Set("Cookie", "__Host-session="+token)
	answer, err := client.Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	cookies := answer.Cookies()
	if err != nil || string(got) != name || len(cookies) != 1 || cookies[0].Value == token {
		return "", fmt.Errorf("%s was answered %q, with cookies %v: %v", name, got, cookies, err)
	}
	return cookies[0].Value, nil
}
