package linear_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/proof/linear"
)

// pageDefects are wrong ways to serve pages from copies while the store is down.
var pageDefects = []string{
	"a page after a logout",
	"a page after a logout everywhere",
	"a page after a login",
	"a page from before the process's own write",
	"a page from before the process's own write with another token",
	"a page of a read that began before a write",
	"a page after a write with an unknown outcome",
	"a page after the process was told of the end",
	"a page that is too old",
}

// staleFor is the shortest that a Config takes.
const staleFor = time.Second

// TestCatchesStaleDefects shows that the check finds what it looks for.
func TestCatchesStaleDefects(t *testing.T) {
	for _, defect := range pageDefects {
		t.Run(defect, func(t *testing.T) {
			t.Parallel()
			const attempts = 1000
			for seed := range uint64(attempts) {
				outcome := inOutages(t, seed, defect)
				if len(outcome.Errors) == 0 {
					continue
				}
				t.Logf("caught in history %d: %v", seed+1, outcome.Errors[0])
				if err := outcome.Check(outcome.Workload.Grace); err != nil {
					t.Errorf("the history is not in order without the pages, either: %v", err)
				}
				return
			}
			t.Errorf("not caught in %d histories", attempts)
		})
	}
}

// Whoever serves what may be served is not blamed.
func TestStalePages(t *testing.T) {
	pages := 0
	for seed := range uint64(min(*histories, 50)) {
		outcome := inOutages(t, seed, "")
		for _, err := range outcome.Errors {
			t.Errorf("seed %d: %v", seed, err)
		}
		if err := outcome.Check(outcome.Workload.Grace); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		pages += outcome.Figures.Stale
	}
	t.Logf("%d stale pages", pages)
	if pages == 0 {
		t.Error("no page was served stale")
	}
}

// inOutages makes a history of two processes with a store that is down now and then, in a
// time that costs nothing. The pages come from copies with a defect.
func inOutages(t *testing.T, seed uint64, defect string) (outcome *linear.Outcome) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTrial(seed, false)
		var all []*copies
		tr.slow = 100 * time.Millisecond
		tr.wrap = func(s echosession.Store) echosession.Store {
			c := newCopies(defect)
			all = append(all, c)
			return noting{telling{s}, c}
		}
		w := tr.workload(t, backend{processes: 2, prepare: inMemory}, &farm{})
		w.Watches, w.StaleFor, w.Faultless = false, staleFor, false
		w.Operations *= 2
		w.Serve = func(process int, own linear.Pages) linear.Pages { return all[process].serve(own) }
		over := make(chan struct{})
		goDown(over, tr.outages)
		outcome = w.Start(t.Context())
		close(over)
		synctest.Wait()
		outcome.Finish(t.Context())
	})
	return outcome
}

// goDown lets a store be down now and then, until it is over.
func goDown(over <-chan struct{}, down *atomic.Bool) {
	go func() {
		defer down.Store(false)
		for {
			select {
			case <-over:
				return
			case <-time.After(200*time.Millisecond + rand.N(2*time.Second)):
				down.Store(!down.Load())
			}
		}
	}()
}

// copies are those that a process serves pages from. They are simpler than those of
// echosession: a change of a session, by whatever token, hides all copies of it.
type copies struct {
	defect string

	mu      sync.Mutex
	seq     int               // of the last change
	root    map[string]string // the first ID of a session that was rotated
	subject map[string]string
	states  map[string]*copied
	byToken map[string]keptPage
}

// copied is what happened to a session.
type copied struct {
	open    int // writes that are under way
	changed int
	blocked time.Time
	ended   bool
}

type keptPage struct {
	page linear.Page
	seq  int
	at   time.Time
}

func newCopies(defect string) *copies {
	return &copies{
		defect: defect, root: make(map[string]string), subject: make(map[string]string),
		states: make(map[string]*copied), byToken: make(map[string]keptPage),
	}
}

// of returns what happened to the session of an ID. c.mu is held.
func (c *copies) of(id string) *copied {
	if first, ok := c.root[id]; ok && c.defect != "a page from before the process's own write with another token" {
		id = first
	}
	if c.states[id] == nil {
		c.states[id] = new(copied)
	}
	return c.states[id]
}

// good reports whether a copy may be served. c.mu is held.
func (c *copies) good(k keptPage) bool {
	s := c.of(k.page.ID)
	tooOld := time.Since(k.at) >= staleFor && c.defect != "a page that is too old"
	return s.open == 0 && !s.ended && k.seq >= s.changed && !time.Now().Before(s.blocked) && !tooOld
}

func (c *copies) serve(own linear.Pages) linear.Pages {
	return func(ctx context.Context, token string) linear.Page {
		c.mu.Lock()
		seq, began := c.seq, time.Now()
		c.mu.Unlock()
		p := own(ctx, token)
		c.mu.Lock()
		defer c.mu.Unlock()
		switch {
		case p.Err == nil:
			if c.defect == "a page of a read that began before a write" {
				seq = c.seq
			}
			c.byToken[token] = keptPage{p, seq, began}
		case errors.Is(p.Err, echosession.ErrSessionGone), errors.Is(p.Err, echosession.ErrRenewed):
			if c.defect != "a page after the process was told of the end" {
				delete(c.byToken, token)
			}
		case errors.Is(p.Err, echosession.ErrStoreUnavailable):
			if k, ok := c.byToken[token]; ok && c.good(k) {
				k.page.Stale = true
				return k.page
			}
		}
		return p
	}
}

// write does a write of the sessions with some IDs, which ends them or does not.
func (c *copies) write(ids []string, ends bool, do func() error) error {
	c.mu.Lock()
	for _, id := range ids {
		c.of(id).open++
	}
	c.mu.Unlock()
	err := do()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	for _, id := range ids {
		s := c.of(id)
		s.open--
		switch {
		case err == nil || errors.Is(err, echosession.ErrNotFound) || errors.Is(err, echosession.ErrRenewed):
			s.changed = c.seq
			s.ended = s.ended || ends
		case errors.Is(err, echosession.ErrIndeterminate) && c.defect != "a page after a write with an unknown outcome":
			s.changed, s.blocked = c.seq, time.Now().Add(staleFor)
		}
	}
	return err
}

// noting is a store of which the copies learn what the process does.
type noting struct {
	telling
	copies *copies
}

func (s noting) Load(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
	s.copies.mu.Lock()
	s.copies.subject[ref.ID] = ref.Subject
	s.copies.mu.Unlock()
	record, err := s.Store.Load(ctx, ref, ttl)
	told := errors.Is(err, echosession.ErrNotFound) || errors.Is(err, echosession.ErrRenewed)
	if told && s.copies.defect != "a page after the process was told of the end" {
		s.copies.mu.Lock()
		defer s.copies.mu.Unlock()
		s.copies.of(ref.ID).ended = true
	}
	if rotated, ok := errors.AsType[*echosession.RotatedError](err); ok {
		s.copies.rotated(ref.ID, rotated.To)
	}
	return record, err
}

// rotated notes that two IDs are of one session.
func (c *copies) rotated(from, to string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := from
	if r, ok := c.root[from]; ok {
		first = r
	}
	c.root[to] = first
}

func (s noting) Replace(ctx context.Context, ref echosession.Ref, old, record []byte, ttl time.Duration) error {
	do := func() error { return s.Store.Replace(ctx, ref, old, record, ttl) }
	if s.copies.defect == "a page from before the process's own write" {
		return do()
	}
	return s.copies.write([]string{ref.ID}, false, do)
}

func (s noting) Delete(ctx context.Context, ref echosession.Ref) error {
	do := func() error { return s.Store.Delete(ctx, ref) }
	if s.copies.defect == "a page after a logout" {
		return do()
	}
	return s.copies.write([]string{ref.ID}, true, do)
}

func (s noting) Rotate(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl, grace time.Duration) error {
	s.copies.rotated(from.ID, to.ID)
	return s.copies.write([]string{from.ID}, false, func() error { return s.Store.Rotate(ctx, from, to, old, record, ttl, grace) })
}

func (s noting) Renew(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) error {
	do := func() error { return s.Store.Renew(ctx, from, to, old, record, ttl, limit) }
	if s.copies.defect == "a page after a login" {
		return do()
	}
	return s.copies.write([]string{from.ID}, true, do)
}

func (s noting) DeleteSubject(ctx context.Context, subject string, except []string) (n int, err error) {
	do := func() (err error) {
		n, err = s.Store.DeleteSubject(ctx, subject, except)
		return err
	}
	if s.copies.defect == "a page after a logout everywhere" {
		err = do()
		return n, err
	}
	var ids []string
	s.copies.mu.Lock()
	for id, of := range s.copies.subject {
		if of == subject {
			ids = append(ids, id)
		}
	}
	s.copies.mu.Unlock()
	err = s.copies.write(ids, true, do)
	return n, err
}
