package adaptertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/echosession/echosession"
)

// A suite holds the tests of one adapter.
type suite[C, M any] struct{ Adapter[C, M] }

// A site is a Manager of users, and the tokens that its clients have.
type site struct {
	t      *testing.T
	cfg    echosession.Config
	users  *echosession.Manager[User]
	store  *store
	clock  *clock
	tokens map[string]string // by name
}

// newSite makes a site whose clients have the tokens ada and bob of live
// sessions, gone of one that was destroyed, damaged of one whose record cannot be
// read, and forged.
func newSite(t *testing.T, opts ...func(*echosession.Config)) *site {
	t.Helper()
	s := &site{t: t, clock: new(clock), tokens: make(map[string]string)}
	memory := echosession.NewMemoryStore(echosession.WithClock(s.clock.Now))
	t.Cleanup(func() { memory.Close() })
	s.store = &store{Store: memory}
	s.cfg = echosession.Config{Store: s.store, Secret: bytes.Repeat([]byte("s"), 32), Now: s.clock.Now}
	for _, opt := range opts {
		opt(&s.cfg)
	}
	s.users = newManager[User](t, s.cfg)
	s.add("ada", s.users)
	s.add("bob", s.users)
	s.store.damaged = s.add("damaged", s.users).ID()
	if err := s.add("gone", s.users).Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := s.cfg
	other.Secret = bytes.Repeat([]byte("o"), 32)
	s.add("forged", newManager[User](t, other))
	return s
}

// add creates a session of the user with this name.
func (s *site) add(name string, m *echosession.Manager[User]) *echosession.Session[User] {
	s.t.Helper()
	sess, err := m.Create(s.t.Context(), User{Name: name})
	if err != nil {
		s.t.Fatal(err)
	}
	s.tokens[name] = sess.Token()
	return sess
}

func newManager[T any](t *testing.T, cfg echosession.Config) *echosession.Manager[T] {
	t.Helper()
	m, err := echosession.New[T](cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// withCookie is a Config with the cookie of browsers.
func withCookie(cfg *echosession.Config) { cfg.Cookie = new(echosession.Cookie) }

// withLookup is a Config that looks for tokens elsewhere.
func withLookup(lookup string) func(*echosession.Config) {
	return func(cfg *echosession.Config) { cfg.TokenLookup = lookup }
}

// serve starts a server of h and returns its address.
func (s *site) serve(h http.Handler) string {
	server := httptest.NewUnstartedServer(h)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // panics are part of the suite
	server.Start()
	s.t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// An exchange is a request and the answer that is expected.
//
// The request is written as it goes over the wire, without the version, Host,
// Connection and Content-Length. {ada} stands for the token of that name.
//
// The answer is written in full, but for Date and Connection. The lines of its
// header are sorted. {new} stands for the token of a live session which the
// request did not have, and {dead} for any other token.
type exchange struct{ name, request, answer string }

// check sends requests, in this order.
func (s *site) check(h http.Handler, exchanges ...exchange) {
	s.t.Helper()
	addr := s.serve(h)
	for _, x := range exchanges {
		s.t.Run(x.name, func(t *testing.T) {
			t.Helper()
			got, want := s.send(t, addr, x.request), s.withNames(x.answer)
			if got != want {
				t.Errorf("the answer to\n%s\nis\n%s\nand not\n%s", x.request, got, want)
			}
		})
	}
}

// send returns the answer to a request.
func (s *site) send(t *testing.T, addr, request string) string {
	t.Helper()
	head, body, _ := strings.Cut(request, "\n\n")
	line, header, _ := strings.Cut(s.expand(head), "\n")
	body = s.expand(body)
	wire := line + " HTTP/1.1\nHost: shop.example\nConnection: close\n" + header
	if header != "" {
		wire += "\n"
	}
	if body != "" && !strings.Contains(header, "Transfer-Encoding") {
		wire += fmt.Sprintf("Content-Length: %d\n", len(body))
	}
	wire = strings.ReplaceAll(wire, "\n", "\r\n") + "\r\n" + body

	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, wire); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatalf("after %q: %v", answer, err)
	}
	return s.tidy(string(answer))
}

// expand puts tokens in the places of their names.
func (s *site) expand(text string) string {
	for name, token := range s.tokens {
		text = strings.ReplaceAll(text, "{"+name+"}", token)
	}
	return text
}

// tidy leaves out of an answer what differs from run to run.
func (s *site) tidy(answer string) string {
	var tidied strings.Builder
	for strings.HasPrefix(answer, "HTTP/1.1 ") {
		head, rest, _ := strings.Cut(answer, "\r\n\r\n")
		lines := strings.Split(head, "\r\n")
		slices.Sort(lines[1:])
		for _, line := range lines {
			if !strings.HasPrefix(line, "Date: ") && line != "Connection: close" {
				tidied.WriteString(line + "\n")
			}
		}
		tidied.WriteString("\n")
		answer = rest
		if !strings.HasPrefix(head, "HTTP/1.1 103 ") {
			break
		}
	}
	tidied.WriteString(answer)
	return s.withNames(tidied.String())
}

// withNames puts names in the places of tokens.
func (s *site) withNames(text string) string { return tokens.ReplaceAllStringFunc(text, s.nameOf) }

var tokens = regexp.MustCompile(`eyJ[\w-]+\.[\w-]+\.[\w-]+`)

// nameOf returns what stands for a token in answers.
func (s *site) nameOf(token string) string {
	for name, known := range s.tokens {
		if token == known {
			return "{" + name + "}"
		}
	}
	if sess, err := s.users.Open(context.Background(), token); err == nil && sess.Exists() {
		return "{new}"
	}
	return "{dead}"
}

// response is the text of an answer whose length is known.
func response(status int, body string, header ...string) string {
	if status != http.StatusNoContent {
		header = append(header, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	slices.Sort(header)
	lines := append([]string{fmt.Sprintf("HTTP/1.1 %d %s", status, http.StatusText(status))}, header...)
	return strings.Join(lines, "\n") + "\n\n" + body
}

// with is an answer with more lines in its header.
func with(answer string, header ...string) string {
	head, body, _ := strings.Cut(answer, "\n\n")
	lines := append(strings.Split(head, "\n"), header...)
	slices.Sort(lines[1:])
	return strings.Join(lines, "\n") + "\n\n" + body
}

// ok is the answer of a handler that wrote a text.
func ok(text string, header ...string) string {
	return response(http.StatusOK, text, append(header, "Content-Type: text/plain; charset=utf-8")...)
}

// failure is the answer to an error.
func failure(status int, message string, header ...string) string {
	return response(status, fmt.Sprintf("{%q:%q}\n", "message", message), append(header, "Content-Type: application/json")...)
}

const (
	private   = "Cache-Control: private, no-store"
	vary      = "Vary: Cookie"
	noReferer = "Referrer-Policy: no-referrer"
	newCookie = "Set-Cookie: __Host-session={new}; Path=/; HttpOnly; Secure; SameSite=Lax"
	noCookie  = "Set-Cookie: __Host-session=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax"
	adaCookie = "Cookie: __Host-session={ada}"
)

// handler makes a handler of fn, which gets the session of the request.
func (s suite[C, M]) handler(fn func(w http.ResponseWriter, r *http.Request, sess *echosession.Session[User]) error) func(C) error {
	return func(c C) error {
		sess, err := s.Users.Get(c)
		if err != nil {
			return err
		}
		return fn(s.Writer(c), s.Request(c), sess)
	}
}

// serveUsers is a server of fn behind the middleware of the site's users.
func (s suite[C, M]) serveUsers(site *site, fn func(w http.ResponseWriter, r *http.Request, sess *echosession.Session[User]) error, middleware ...M) http.Handler {
	return s.Serve(s.handler(fn), append([]M{s.Users.Middleware(site.users)}, middleware...)...)
}

// whoami writes the name of the user, or the reason why there is no session.
func whoami(w http.ResponseWriter, _ *http.Request, sess *echosession.Session[User]) error {
	_, err := io.WriteString(w, nameOrReason(sess))
	return err
}

func nameOrReason(sess *echosession.Session[User]) string {
	if sess.Exists() {
		return sess.Data().Name
	}
	return sentinel(sess.Reason())
}

// sentinel returns the text of the error that err matches.
func sentinel(err error) string {
	for _, target := range []error{
		echosession.ErrNoToken, echosession.ErrAmbiguousToken, echosession.ErrInvalidToken, echosession.ErrSessionGone,
		echosession.ErrCorrupt, echosession.ErrCrossOrigin, echosession.ErrRequestOver,
	} {
		if errors.Is(err, target) {
			return target.Error()
		}
	}
	return fmt.Sprint(err)
}

// A store can be out of order.
type store struct {
	echosession.Store
	damaged string // the ID of a session whose record cannot be read
	down    atomic.Bool
}

func (s *store) Load(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
	if s.down.Load() {
		return nil, fmt.Errorf("%w: the store's own words", echosession.ErrStoreUnavailable)
	}
	if ref.ID == s.damaged {
		return []byte("no record"), nil
	}
	return s.Store.Load(ctx, ref, ttl)
}

// A clock stands still until it is advanced.
type clock struct{ passed atomic.Int64 }

func (c *clock) Now() time.Time {
	return time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC).Add(time.Duration(c.passed.Load()))
}

func (c *clock) advance(d time.Duration) { c.passed.Add(int64(d)) }
