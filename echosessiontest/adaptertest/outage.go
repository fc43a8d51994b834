package adaptertest

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/echosession/echosession"
)

// withStale is a Config that lets GETs go on in an outage.
func withStale(cfg *echosession.Config) { cfg.StaleFor = 10 * time.Second }

func (s suite[C, M]) testOutage(t *testing.T) {
	site := newSite(t, withCookie, withStale)
	t.Cleanup(func() { site.users.Close() })
	seen := func(w http.ResponseWriter, r *http.Request, sess *echosession.Session[User]) error {
		w.Header().Set("Cache-Control", "public")
		text := nameOrReason(sess)
		if sess.Stale() {
			text += ", stale"
		}
		_, err := io.WriteString(w, text)
		return err
	}
	shown := s.serveUsers(site, seen, s.Users.Require(site.users, echosession.ServeStale()))
	site.check(shown,
		exchange{"before an outage", "GET /x\nAuthorization: Bearer {ada}", ok("ada", "Cache-Control: public")},
		exchange{"by cookie", "GET /x\n" + adaCookie, ok("ada", "Cache-Control: public", vary)})
	site.store.down.Store(true)
	site.check(shown,
		exchange{"a GET goes on", "GET /x\nAuthorization: Bearer {ada}", ok("ada, stale", private)},
		exchange{"and by cookie", "GET /x\n" + adaCookie, ok("ada, stale", private, vary)},
		exchange{"a HEAD goes on", "HEAD /x\nAuthorization: Bearer {ada}", "HTTP/1.1 200 OK\n" + private + "\nContent-Length: 10\nContent-Type: text/plain; charset=utf-8\n\n"},
		exchange{"a POST does not", "POST /x\nAuthorization: Bearer {ada}", unavailable},
		exchange{"a session that has ended", "GET /x\nAuthorization: Bearer {gone}", unavailable},
		exchange{"a forged token", "GET /x\nAuthorization: Bearer {forged}", ended},
		exchange{"no token", "GET /x", with(unauthorized, vary)})
	site.check(s.serveUsers(site, seen, s.Users.Require(site.users)),
		exchange{"without ServeStale", "GET /x\nAuthorization: Bearer {ada}", unavailable})
	site.check(s.serveUsers(site, seen, s.Users.Require(site.users, echosession.ServeStale()), s.Users.Require(site.users)),
		exchange{"what one Require has served is good for the next", "GET /x\nAuthorization: Bearer {ada}", ok("ada, stale", private)})
	site.check(s.serveUsers(site, func(_ http.ResponseWriter, r *http.Request, sess *echosession.Session[User]) error {
		return sess.Update(r.Context(), func(*User) error { return nil })
	}, s.Users.Require(site.users, echosession.ServeStale())),
		exchange{"an Update is refused", "GET /x\nAuthorization: Bearer {ada}", with(unavailable, private)})

	for name, require := range map[string]func(){
		"with Fresh":       func() { s.Users.Require(site.users, echosession.Fresh(time.Minute), echosession.ServeStale()) },
		"without StaleFor": func() { s.Users.Require(newSite(t).users, echosession.ServeStale()) },
	} {
		t.Run("ServeStale "+name+" panics", func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			require()
		})
	}
}
