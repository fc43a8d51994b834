package linear

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/nethttp"
)

// A Page is how a GET of a session's page is answered.
type Page struct {
	ID    string // of the session
	Data  Data
	Stale bool // served from a copy: see echosession.ServeStale
	Err   error
}

// Pages answers a GET with a token.
type Pages func(ctx context.Context, token string) Page

// newSite serves the sessions of a process: see Page.
func newSite(m *echosession.Manager[Data], opts ...echosession.RequireOption) http.Handler {
	failed := nethttp.WithErrorHandler(func(_ http.ResponseWriter, r *http.Request, err error) { answerOf(r).Err = err })
	answer := nethttp.With(m, func(_ http.ResponseWriter, r *http.Request, s *echosession.Session[Data]) error {
		p := answerOf(r)
		p.ID, p.Data, p.Stale = s.ID(), s.Data(), s.Stale()
		return nil
	})
	return nethttp.Middleware(m, failed)(nethttp.Require(m, opts...)(answer))
}

type answerKey struct{}

// answerOf is where the answer to a request goes.
func answerOf(r *http.Request) *Page { return r.Context().Value(answerKey{}).(*Page) }

// get makes a request to a site.
func get(ctx context.Context, site http.Handler, path string, prepare func(*http.Request)) Page {
	var p Page
	r := httptest.NewRequestWithContext(context.WithValue(ctx, answerKey{}, &p), http.MethodGet, path, nil)
	prepare(r)
	site.ServeHTTP(httptest.NewRecorder(), r)
	return p
}

// pagesOf are the pages of a site.
func pagesOf(site http.Handler) Pages {
	return func(ctx context.Context, token string) Page {
		return get(ctx, site, livePath, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) })
	}
}

// stalePage is a page that was served from a copy.
type stalePage struct {
	process        int
	call, returned int64
	session        int
	token          token
	seen           Data
}

// doubt is a write of which a process does not know whether it was done.
type doubt struct {
	process int
	told    int64
	token   token
	subject string // of whose sessions it is, where it is of no token
}

// page gets a page, which may be served from a copy.
func (c *client) page(ctx context.Context, s *session, t token) {
	in := c.input(Read, s, t)
	call := c.Now()
	p := c.pages[c.process](ctx, t.text)
	switch {
	case p.Err == nil && p.Stale:
		c.mu.Lock()
		defer c.mu.Unlock()
		c.stale = append(c.stale, stalePage{c.process, call, c.Now(), s.number, t, p.Data})
		c.Figures.Stale++
	case c.StaleOpen:
		c.opened(call, in, p.Data, p.Err)
	default:
		c.ended(call, in, p.Data, p.Err)
	}
}

// doubts notes an operation whose outcome is unknown, unless it is known.
func (c *client) doubts(t token, subject string, err error) {
	if !errors.Is(err, echosession.ErrIndeterminate) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.doubtful = append(c.doubtful, doubt{c.process, c.Now(), t, subject})
}

// cacheLag is by how much more a page may be out of date whose copy came from a client-side
// cache.
const cacheLag = time.Second

// written is what an operation wrote.
type written struct {
	call           int64
	session, login int
	count          int
}

// checkPages holds every page that was served from a copy to what a copy may be: something
// that was written under the login of its token, and that was so at some time in the last
// StaleFor. It shows all that the same process has done to the session, and all that it was
// told. While the process does not know whether it has changed the session, it serves no copy.
func (o *Outcome) checkPages() {
	made := make(map[int]int64) // when somebody was told a token
	versions := make(map[int]written)
	for _, op := range o.ops {
		in, out := op.Input.(Input), op.Output.(Output)
		switch {
		case out.Result == Gone || out.Result == Renewed:
		case in.Kind == Create:
			versions[in.Number] = written{op.Call, in.Session, in.Number, 0}
			made[in.Number] = out.told
		case in.Kind == Update:
			versions[in.Number] = written{op.Call, in.Session, in.Login, out.Seen.Count + 1}
		case in.Kind == Rotate:
			made[in.Number] = out.told
		case in.Kind.renews():
			versions[in.Number] = written{op.Call, in.Session, in.Number, out.Seen.Count + 1}
			made[in.Number] = out.told
		}
	}
	for _, p := range o.stale {
		v, ok := versions[p.seen.Writer]
		if p.seen.Session != p.session || !ok || v.call > p.returned || v.session != p.session || v.login != p.token.login || v.count != p.seen.Count {
			o.wrong("a stale page of session %d with token #%d has %+v, which nobody had written there", p.session, p.token.number, p.seen)
			continue
		}
		for _, op := range o.ops {
			in, out := op.Input.(Input), op.Output.(Output)
			latest, by := p.call-int64(o.Workload.StaleFor), "another process"
			if o.Workload.StaleOpen {
				latest -= int64(cacheLag)
			}
			if o.Workload.process(out.client) == p.process {
				latest, by = p.call, "the same process"
			}
			if in.Session == p.session && in.Ticket == 0 && out.told < latest && o.Workload.outdates(op.Call, in, out, p, made[p.token.number]) {
				o.wrong("a stale page at %v with token #%d has count %d by #%d, although %s knew at %v: %s", time.Duration(p.call),
					p.token.number, p.seen.Count, p.seen.Writer, by, time.Duration(out.told), describe(in, out))
				break
			}
		}
		for _, d := range o.doubtful {
			// What a token in its grace led to when it was written, the history does not tell.
			about := d.token.number == p.token.number
			if d.subject != "" {
				about = d.subject == p.token.subject && made[p.token.number] < d.told
			}
			if about && d.process == p.process && d.told < p.call && p.returned-d.told < int64(o.Workload.StaleFor/2) {
				o.wrong("a stale page at %v with token #%d, although the process did not know since %v what it had done to token #%d or subject %q",
					time.Duration(p.call), p.token.number, time.Duration(d.told), d.token.number, d.subject)
				break
			}
		}
	}
}

// outdates reports whether a page is not what anybody may see after an operation. Its token
// was made at a time.
func (w Workload) outdates(call int64, in Input, out Output, p stalePage, made int64) bool {
	sameToken, sameLogin := in.Token == p.token.number, in.Login == p.token.login
	switch {
	case out.Result == Unknown:
		return false
	case out.Result == Gone || out.Result == Renewed:
		return sameToken && in.Kind != Rotate // which was rotated before, perhaps
	case in.Kind == Update:
		return sameLogin && out.Seen.Count+1 > p.seen.Count
	case in.Kind.renews():
		return sameLogin
	case in.Kind == Rotate:
		return sameToken && !w.Grace
	case in.Kind == Destroy && in.Token == NoToken:
		return in.Subject == p.token.subject && made < call
	case in.Kind == Destroy || in.Kind == Leave:
		return sameToken || sameLogin && w.Grace
	}
	return false
}

// process returns which of the managers a client uses.
func (w Workload) process(client int) int {
	if client == w.Clients {
		return 0 // the observer
	}
	return client % len(w.Managers)
}
