package linear_test

import (
	"context"
	"errors"
	"sync"
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

// TestCatchesStaleDefects shows that the check finds what it looks for.
func TestCatchesStaleDefects(t *testing.T) {
	for _, defect := range pageDefects {
		t.Run(defect, func(t *testing.T) {
			t.Parallel()
			const attempts = 5000
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

// Whoever serves what may be served is not blamed: echosession itself, and the copies that
// the defects are in.
func TestStalePages(t *testing.T) {
	for _, from := range []struct{ name, defect string }{{"echosession", own}, {"echosession, told nothing", ownAlone}, {"without a defect", ""}} {
		t.Run(from.name, func(t *testing.T) {
			t.Parallel()
			pages := 0
			for seed := range uint64(*histories) {
				outcome := inOutages(t, seed, from.defect)
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
		})
	}
}

// These are no defects: the pages are those of echosession, which hears of the ends by other
// processes, or does not.
const (
	own      = "own"
	ownAlone = "own, told nothing"
)

// inOutages makes a history of two processes with a store that is down now and then, in a
// time that costs nothing. The pages come from copies with a defect.
func inOutages(t *testing.T, seed uint64, defect string) (outcome *linear.Outcome) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTrial(seed, false)
		var processes []*copies
		tr.slow = 100 * time.Millisecond
		tr.wrap = func(s echosession.Store) echosession.Store {
			switch defect {
			case own:
				return telling{s}
			case ownAlone:
				return polled{s}
			}
			c := newCopies(defect)
			processes = append(processes, c)
			return noting{telling{s}, c}
		}
		library := defect == own || defect == ownAlone
		if library {
			tr.staleFor = staleFor
		}
		w := tr.workload(t, backend{processes: 2, prepare: inMemory}, &farm{})
		w.Watches, w.StaleFor, w.Faultless = false, staleFor, false
		w.Operations = 24 + tr.random.IntN(16)
		w.Sessions = 1
		if !library {
			w.Serve = func(process int, own linear.Pages) linear.Pages { return processes[process].serve(own) }
		}
		over := make(chan struct{})
		var working sync.WaitGroup
		working.Go(func() { tr.goDown(over, time.Second, time.Second) })
		outcome = w.Start(t.Context())
		close(over)
		working.Wait()
		outcome.Finish(t.Context())
	})
	return outcome
}

// copies are those that a process serves pages from. They are simpler than those of
// echosession: a change of any session hides the copies of all.
type copies struct {
	defect string

	mu      sync.Mutex
	seq     int // of the last change
	open    int // writes that are under way
	changes map[string]int
	blocked time.Time
	byToken map[string]keptPage
}

type keptPage struct {
	page linear.Page
	seq  int
	at   time.Time
}

func newCopies(defect string) *copies {
	return &copies{defect: defect, changes: make(map[string]int), byToken: make(map[string]keptPage)}
}

// of returns the key of what happened to the session of an ID.
func (c *copies) of(id string) string {
	if c.defect == "a page from before the process's own write with another token" {
		return id
	}
	return "all"
}

// good reports whether a copy may be served. c.mu is held.
func (c *copies) good(k keptPage) bool {
	if time.Since(k.at) >= staleFor && c.defect != "a page that is too old" {
		return false
	}
	return c.open == 0 && k.seq >= c.changes[c.of(k.page.ID)] && !time.Now().Before(c.blocked)
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

// write does a write of the session with an ID.
func (c *copies) write(id string, do func() error) error {
	c.mu.Lock()
	c.open++
	c.mu.Unlock()
	err := do()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
	unknown := errors.Is(err, echosession.ErrIndeterminate) && c.defect != "a page after a write with an unknown outcome"
	if unknown {
		c.blocked = time.Now().Add(staleFor)
	}
	if err == nil || unknown || told(err) {
		c.seq++
		c.changes[c.of(id)] = c.seq
	}
	return err
}

// told reports whether an error says that a session has ended.
func told(err error) bool {
	return errors.Is(err, echosession.ErrNotFound) || errors.Is(err, echosession.ErrRenewed)
}

// read notes what the process was told of an ID.
func (c *copies) read(id string, err error) {
	if told(err) && c.defect != "a page after the process was told of the end" {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.seq++
		c.changes[c.of(id)] = c.seq
	}
}

// noting is a store of which the copies learn what the process does.
type noting struct {
	telling
	copies *copies
}

func (s noting) Load(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
	record, err := s.Store.Load(ctx, ref, ttl)
	s.copies.read(ref.ID, err)
	return record, err
}

func (s noting) Check(ctx context.Context, ref echosession.Ref) (time.Duration, error) {
	left, err := s.Store.Check(ctx, ref)
	s.copies.read(ref.ID, err)
	return left, err
}

func (s noting) Touch(ctx context.Context, ref echosession.Ref, ttl time.Duration) error {
	err := s.Store.Touch(ctx, ref, ttl)
	s.copies.read(ref.ID, err)
	return err
}

func (s noting) Replace(ctx context.Context, ref echosession.Ref, old, record []byte, ttl time.Duration) error {
	do := func() error { return s.Store.Replace(ctx, ref, old, record, ttl) }
	if s.copies.defect == "a page from before the process's own write" {
		return do()
	}
	return s.copies.write(ref.ID, do)
}

func (s noting) Delete(ctx context.Context, ref echosession.Ref) error {
	do := func() error { return s.Store.Delete(ctx, ref) }
	if s.copies.defect == "a page after a logout" {
		return do()
	}
	return s.copies.write(ref.ID, do)
}

func (s noting) Rotate(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl, grace time.Duration) error {
	do := func() error { return s.Store.Rotate(ctx, from, to, old, record, ttl, grace) }
	if s.copies.defect == "a page from before the process's own write with another token" {
		return do()
	}
	return s.copies.write(from.ID, do)
}

func (s noting) Renew(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) (evicted []string, err error) {
	do := func() (err error) {
		evicted, err = s.Store.Renew(ctx, from, to, old, record, ttl, limit)
		return err
	}
	if s.copies.defect == "a page after a login" {
		err = do()
	} else {
		err = s.copies.write(from.ID, do)
	}
	return evicted, err
}

func (s noting) DeleteSubject(ctx context.Context, subject string, except []string) (n int, err error) {
	do := func() (err error) {
		n, err = s.Store.DeleteSubject(ctx, subject, except)
		return err
	}
	if s.copies.defect == "a page after a logout everywhere" {
		err = do()
	} else {
		err = s.copies.write(subject, do)
	}
	return n, err
}
