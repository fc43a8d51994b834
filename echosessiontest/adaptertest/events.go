package adaptertest

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/echosession/echosession"
)

// eventLog keeps the events of requests.
type eventLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *eventLog) observe(ctx context.Context, e echosession.Event) {
	if e.Kind == echosession.EventStoreCall || ctx.Value(http.ServerContextKey) == nil {
		return // what the test itself does is no request
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, strings.Join(strings.Fields(fmt.Sprintln(e.Kind, e.Reason, e.Subject)), " "))
}

func (l *eventLog) take() (lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines, l.lines = l.lines, nil
	return lines
}

// Each framework's requests are told of alike, with the context of the request.
func (s suite[C, M]) testEvents(t *testing.T) {
	log := new(eventLog)
	site := newSite(t, withCookie, withStale, func(cfg *echosession.Config) { cfg.OnEvent = log.observe })
	t.Cleanup(func() { site.users.Close() })
	shown := s.serveUsers(site, whoami, s.Users.Require(site.users))
	do := func(do func(r *http.Request, sess *echosession.Session[User]) error, middleware ...M) http.Handler {
		return s.serveUsers(site, func(_ http.ResponseWriter, r *http.Request, sess *echosession.Session[User]) error {
			return do(r, sess)
		}, middleware...)
	}
	login := do(func(r *http.Request, sess *echosession.Session[User]) error {
		_, err := sess.Create(r.Context(), User{Name: "eve"}, echosession.WithSubject("eve"))
		return err
	})
	renew := do(func(r *http.Request, sess *echosession.Session[User]) error {
		_, err := sess.Renew(r.Context(), nil, echosession.WithSubject("ada"))
		return err
	})
	logout := do(func(r *http.Request, sess *echosession.Session[User]) error { return sess.Destroy(r.Context()) })
	for _, tt := range []struct {
		name    string
		handler http.Handler
		request string
		want    []string
	}{
		{"a session", shown, "GET /x\nAuthorization: Bearer {ada}", []string{"opened cached"}},
		{"no token", shown, "GET /x", []string{"refused no_token"}},
		{"a forged token", shown, "GET /x\nAuthorization: Bearer {forged}", []string{"refused signature"}},
		{"a session that has ended", shown, "GET /x\nAuthorization: Bearer {gone}", []string{"refused gone"}},
		{"a damaged record", shown, "GET /x\nAuthorization: Bearer {damaged}", []string{"unreadable head", "refused corrupt"}},
		{"two tokens", shown, "GET /x\nAuthorization: Bearer {ada}\nX-Access-Token: {bob}", []string{"refused ambiguous"}},
		{"another site", logout, "POST /x\n" + adaCookie + "\nSec-Fetch-Site: cross-site", []string{"refused cross_origin"}},
		{"a login that is not fresh", s.serveUsers(site, whoami, s.Users.Require(site.users, echosession.Fresh(time.Second))),
			"GET /x\nAuthorization: Bearer {ada}", []string{"opened cached", "refused not_fresh"}},
		{"a login", login, "POST /x", []string{"created login eve"}},
		{"a second login", renew, "POST /x\nAuthorization: Bearer {ada}", []string{"opened cached", "renewed ada"}},
		{"the token before it", shown, "GET /x\nAuthorization: Bearer {ada}", []string{"refused renewed"}},
		{"a logout", logout, "POST /x\nAuthorization: Bearer {bob}", []string{"opened cached", "destroyed logout"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if strings.Contains(tt.name, "fresh") {
				site.clock.advance(2 * time.Second)
			}
			site.send(t, site.serve(tt.handler), tt.request)
			if got := log.take(); !slices.Equal(got, tt.want) {
				t.Errorf("the events are %q, not %q", got, tt.want)
			}
		})
	}
}
