package storetest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/echosession/echosession"
)

// watching is a Watch that goes on until it is ended, and what it was told. When the
// store ends it, it is called again, as a Manager does.
type watching struct {
	t     *trial
	stop  context.CancelFunc
	began chan struct{} // closed at the first Hint
	over  chan error    // what Watch returned, once there is no further call

	late atomic.Bool // told after a return
	more chan struct{}
	mu   sync.Mutex
	told []told
	read int // how many of told next has returned
}

// told is a Hint.
type told struct {
	echosession.Hint
	again bool // it is the first of a Watch that was called again
}

// mostReturns is how often a store may end a Watch of its own accord during one case: a
// connection may break, but not always.
const mostReturns = 5

// watch starts a Watch, and returns after its first Hint. It skips the case for a store
// that cannot watch.
func (t *trial) watch() *watching {
	t.Helper()
	store, ok := t.store.(echosession.Watcher)
	if !ok {
		t.Skipf("%T is no echosession.Watcher: a Manager asks it again and again whether sessions are live", t.store)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w := &watching{
		t:     t,
		stop:  cancel,
		began: make(chan struct{}),
		over:  make(chan error, 1),
		more:  make(chan struct{}, 1),
	}
	go w.run(ctx, store)
	t.Cleanup(cancel)
	select {
	case <-w.began:
	case err := <-w.over:
		if errors.Is(err, errors.ErrUnsupported) {
			t.Skipf("the store cannot watch as it is set up: %v", err)
		}
		t.Fatalf("Watch returned %v before the first Hint", err)
	case <-time.After(t.patience()):
		t.Fatalf("Watch gives no Hint: the first one has All, and waits for no end")
	}
	return w
}

// run calls Watch again and again, until ctx is done. A store that cannot begin is not
// called again.
func (w *watching) run(ctx context.Context, store echosession.Watcher) {
	for call := 0; ; call++ {
		var first, returned atomic.Bool
		err := store.Watch(ctx, func(h echosession.Hint) {
			if returned.Load() {
				w.late.Store(true)
			}
			if first.CompareAndSwap(false, true) {
				w.begin(h, call)
			} else {
				w.add(told{Hint: h})
			}
		})
		returned.Store(true)
		if ctx.Err() != nil || call == 0 && !first.Load() {
			w.over <- err
			return
		}
		if n := w.t.returns.Add(1); n > mostReturns {
			w.t.Errorf("Watch returned %d times before its context was done, the last time with %v", n, err)
			w.over <- err
			return
		}
		time.Sleep(time.Duration(call) * 20 * time.Millisecond) // a connection may take a while
	}
}

// begin takes the first Hint of a call.
func (w *watching) begin(h echosession.Hint, call int) {
	if !h.All {
		w.t.Errorf("the first Hint of a Watch is %+v, want All", h)
	}
	if call == 0 {
		close(w.began)
		return
	}
	w.add(told{h, true})
}

func (w *watching) add(h told) {
	w.mu.Lock()
	w.told = append(w.told, h)
	w.mu.Unlock()
	select {
	case w.more <- struct{}{}:
	default:
	}
}

// next returns the next Hint. It waits for one until timeout.
func (w *watching) next(timeout <-chan time.Time) (h told, ok bool) {
	for {
		w.mu.Lock()
		ok := w.read < len(w.told)
		if ok {
			h = w.told[w.read]
			w.read++
		}
		w.mu.Unlock()
		if ok {
			return h, true
		}
		select {
		case <-w.more:
		case <-timeout:
			return told{}, false
		}
	}
}

// names reports whether a Hint is about the session of ref.
func (h told) names(ref echosession.Ref) bool {
	return h.All || slices.Contains(h.IDs, ref.ID) || h.Match != nil && h.Match(ref)
}

// tellsOf waits for Hints that name each of the refs, each with a Check after the Hint that
// gives an end. It returns the Hints.
func (w *watching) tellsOf(what string, ended func(error) bool, refs ...echosession.Ref) []told {
	w.t.Helper()
	var hints []told
	missing := slices.Clone(refs)
	timeout := time.After(w.t.patience())
	early := false
	for len(missing) > 0 {
		h, ok := w.next(timeout)
		if !ok {
			why := "no Hint names"
			if early {
				why = "a Hint came before the change, and none after it, for"
			}
			w.t.Fatalf("%s: %s %d of %d sessions that have ended", what, why, len(missing), len(refs))
		}
		hints = append(hints, h)
		missing = slices.DeleteFunc(missing, func(ref echosession.Ref) bool {
			if !h.names(ref) {
				return false
			}
			_, err := w.t.store.Check(w.t.Context(), ref)
			early = early || !ended(err)
			return ended(err)
		})
	}
	return hints
}

// end ends the Watch, and checks that it then returns.
func (w *watching) end() {
	w.t.Helper()
	w.stop()
	select {
	case <-w.over:
	case <-time.After(w.t.patience()):
		w.t.Fatalf("Watch does not return when its context is done")
	}
}

// gone reports whether an error of Check says that there is no session.
func gone(err error) bool { return errors.Is(err, echosession.ErrNotFound) }

// An ending is a way in which sessions end.
type ending struct {
	name  string
	refs  []echosession.Ref
	ended func(error) bool // of what Check says then
	end   func() error
}

// endings creates sessions, and returns how they can end.
func (t *trial) endings() []ending {
	t.Helper()
	deleted, _ := t.create()
	list := []ending{{"Delete", []echosession.Ref{deleted}, gone, func() error { return t.store.Delete(t.Context(), deleted) }}}

	for _, grace := range []time.Duration{0, long} {
		from, old := t.create()
		to, name, ended := t.ref(), "Rotate without a grace", gone
		if grace > 0 {
			name, ended = "Rotate with a grace", isRotated
		}
		list = append(list, ending{name, []echosession.Ref{from}, ended, func() error {
			return t.store.Rotate(t.Context(), from, to, old, record(), long, grace)
		}})
	}

	_, successor, _ := t.rotated()
	list = append(list, ending{"Delete of a successor", []echosession.Ref{successor}, gone, func() error {
		return t.store.Delete(t.Context(), successor)
	}})
	// That from was rotated away has been told. Whoever follows it hears of the successor.
	from, to, _ := t.rotated()
	list = append(list, ending{"Delete of a ref that was rotated away", []echosession.Ref{to}, gone, func() error {
		return t.store.Delete(t.Context(), from)
	}})

	for _, r := range t.renewals() {
		list = append(list, ending{"Renew, " + r.name, []echosession.Ref{r.from}, isRenewed, func() error { return t.renew(r) }})
	}
	return append(list, t.subjectEndings()...)
}

// rotated creates a session and rotates it.
func (t *trial) rotated() (from, to echosession.Ref, rec []byte) {
	t.Helper()
	from, old := t.create()
	to, rec = t.rotate(from, old, long)
	return from, to, rec
}

func isRenewed(err error) bool { return errors.Is(err, echosession.ErrRenewed) }

// subjectEndings are those that end other sessions of a subject than one that the caller
// names.
func (t *trial) subjectEndings() []ending {
	t.Helper()
	pair := func() (subject string, refs []echosession.Ref) {
		subject = uuid.NewString()
		for range 2 {
			refs = append(refs, t.refOf(subject))
			t.createAs(refs[len(refs)-1], record(), long, echosession.Limit{})
		}
		return subject, refs
	}
	one := echosession.Limit{Sessions: 1}
	revoked, both := pair()
	full, evicted := pair()
	spared, two := pair()
	guest, old := t.refOf(""), record()
	t.createAs(guest, old, long, echosession.Limit{})
	login, displaced := pair()
	newest, loggedIn := t.refOf(full), t.refOf(login)
	return []ending{
		{"DeleteSubject", both, gone, func() error {
			_, err := t.store.DeleteSubject(t.Context(), revoked, nil)
			return err
		}},
		{"DeleteSubject with an exception", two[1:], gone, func() error {
			_, err := t.store.DeleteSubject(t.Context(), spared, []string{two[0].ID})
			return err
		}},
		{"Create beyond the limit", evicted, gone, func() error {
			return errOf(t.store.Create(t.Context(), newest, record(), long, one))
		}},
		{"Renew beyond the limit", displaced, gone, func() error {
			return errOf(t.store.Renew(t.Context(), guest, loggedIn, old, record(), long, one))
		}},
	}
}

var watchCases = []testCase{
	{
		name: "watch begins with all",
		rule: "The first Hint of every Watch has All set. It comes at once, without any end, for who calls Watch once more needs to know when it can rely on it.",
		run: func(t *trial) {
			for range 3 {
				ref, _ := t.create()
				t.wantErr("Delete", t.store.Delete(t.Context(), ref), nil)
				t.watch()
			}
		},
	},
	{
		name:       "every end is told",
		rule:       "Watch tells of every session that is deleted, evicted, renewed or rotated away, whatever its grace. When Delete follows a rotation, it names the session that the ref leads to. The Hint comes after the change: a Check made upon it gives the end.",
		anySubject: true,
		run: func(t *trial) {
			for _, e := range t.endings() {
				w := t.watch()
				result := make(chan error, 1)
				go func() { result <- e.end() }()
				w.tellsOf(e.name, e.ended, e.refs...)
				t.wantErr(e.name, <-result, nil)
				w.end()
			}
		},
	},
	{
		name: "every watch is told",
		rule: "Several Watches run at once, and each of them is told of every end. When one of them ends, the others go on.",
		run: func(t *trial) {
			watches := []*watching{t.watch(), t.watch(), t.watch()}
			for len(watches) > 0 {
				for _, e := range t.endings() {
					t.wantErr(e.name, e.end(), nil)
					for _, w := range watches {
						w.tellsOf(e.name, e.ended, e.refs...)
					}
				}
				i := len(watches) / 2
				watches[i].end()
				watches = slices.Delete(watches, i, i+1)
			}
		},
	},
	{
		name:       "uses are not told",
		rule:       "No Hint names a session that is only read or written: by Load, Check, Touch, Replace, List, Count and Scan, by a Create that evicts none, and by a Create, Rotate, Renew or DeleteSubject that leaves it as it is.",
		anySubject: true,
		run: func(t *trial) {
			ref, rec := t.create()
			w := t.watch()
			created := t.ref()
			t.createAs(created, record(), long, echosession.Limit{Sessions: 5})
			t.use(ref, rec)
			last, _ := t.create()
			t.wantErr("Delete", t.store.Delete(t.Context(), last), nil)
			for _, h := range w.tellsOf("Delete", gone, last) {
				for _, ref := range []echosession.Ref{ref, created} {
					if h.names(ref) && !h.again {
						t.Errorf("the Hint %+v names a session that has not ended", h.Hint)
					}
				}
			}
		},
	},
	{
		name: "many ends spare the excepted",
		rule: "When DeleteSubject or a limit ends many sessions, the Hints name all of them. Those of DeleteSubject name neither the sessions with the IDs in except nor the sessions of others.",
		run: func(t *trial) {
			for _, n := range []int{3, 150} {
				w := t.watch()
				refs, others := t.refsOf(t.subject, n), slices.Concat(t.refsOf(uuid.NewString(), 1), t.refsOf("", 1))
				spared := t.refsOf(t.subject, 2)
				t.deletes(n, t.subject, spared[0].ID, spared[1].ID)
				for _, h := range w.tellsOf("DeleteSubject", gone, refs...) {
					for _, ref := range slices.Concat(spared, others) {
						if h.names(ref) && !h.again {
							t.Fatalf("a Hint after a DeleteSubject of %d sessions names one that was spared, or another subject's", n)
						}
					}
				}
				subject := uuid.NewString()
				refs = t.refsOf(subject, n)
				t.createAs(t.refOf(subject), record(), long, echosession.Limit{Sessions: 1})
				w.tellsOf("Create beyond the limit", gone, refs...)
				w.end()
				t.deletes(2, t.subject)
			}
		},
	},
	{
		name: "watch ends with its context",
		rule: "Watch returns when its context is done, and tells nothing after it has returned.",
		run: func(t *trial) {
			other := t.watch()
			for range 3 {
				w := t.watch()
				w.end()
				ref, _ := t.create()
				t.wantErr("Delete", t.store.Delete(t.Context(), ref), nil)
				other.tellsOf("Delete", gone, ref)
				if w.late.Load() {
					t.Errorf("there is a Hint after Watch has returned")
				}
			}
			over := make(chan error, 1)
			go func() { over <- t.store.(echosession.Watcher).Watch(cancelled(t), func(echosession.Hint) {}) }()
			select {
			case <-over:
			case <-time.After(t.patience()):
				t.Errorf("Watch with a context that is done does not return")
			}
		},
	},
	{
		name: "no end is missed at the start",
		rule: "From its first Hint on, Watch tells of every end: it does not say All before it is sure to.",
		run: func(t *trial) {
			for range max(3, rounds()/10) {
				ref, _ := t.create()
				w := t.watch()
				t.wantErr("Delete", t.store.Delete(t.Context(), ref), nil)
				w.tellsOf("Delete right after the first Hint", gone, ref)
				w.end()
			}
		},
	},
	{
		name: "ends at once are all told",
		rule: "When many sessions end at once, Watch tells of each of them.",
		run: func(t *trial) {
			w := t.watch()
			for range max(3, rounds()/30) {
				endings := slices.Concat(t.endings(), t.endings())
				var fns []func()
				for _, e := range endings {
					fns = append(fns, func() { t.anyOf(e.name, e.end()) })
				}
				atOnce(fns...)
				var refs []echosession.Ref
				for _, e := range endings {
					refs = append(refs, e.refs...)
				}
				w.tellsOf("many at once", func(err error) bool { return gone(err) || isRenewed(err) || isRotated(err) }, refs...)
			}
		},
	},
	{
		name:       "the rest of a grace is told",
		rule:       "In the RotatedError of Load and Check, Left is zero or what is left of the grace of that Rotate.",
		anySubject: true,
		run: func(t *trial) {
			from, old := t.create()
			start := time.Now()
			to, rec := t.rotate(from, old, long)
			t.graceLeft(from, long, start, 0)
			t.pass(settled)
			t.graceLeft(from, long, start, settled)
			t.rotate(to, rec, 2*long)
			t.graceLeft(from, long, start, settled)
		},
	},
}

// refsOf creates n sessions of a subject.
func (t *trial) refsOf(subject string, n int) (refs []echosession.Ref) {
	t.Helper()
	for range n {
		ref := t.refOf(subject)
		t.createAs(ref, record(), long, echosession.Limit{})
		refs = append(refs, ref)
	}
	return refs
}

// use calls every method in a way that ends no session.
func (t *trial) use(ref echosession.Ref, rec []byte) {
	t.Helper()
	ctx, none := t.Context(), t.ref()
	for _, ttl := range []time.Duration{0, long} {
		t.wantErr("Load", errOf(t.store.Load(ctx, ref, ttl)), nil)
	}
	t.wantErr("Check", errOf(t.store.Check(ctx, ref)), nil)
	t.wantErr("Touch", t.store.Touch(ctx, ref, long), nil)
	t.wantErr("Replace", t.store.Replace(ctx, ref, []byte("x"), record(), long), echosession.ErrConflict)
	t.wantErr("Rotate", t.store.Rotate(ctx, ref, none, []byte("x"), record(), long, long), echosession.ErrConflict)
	t.wantErr("Renew", errOf(t.store.Renew(ctx, ref, none, []byte("x"), record(), long, echosession.Limit{})), echosession.ErrConflict)
	t.wantErr("Create", errOf(t.store.Create(ctx, ref, record(), long, echosession.Limit{})), echosession.ErrConflict)
	t.wantErr("Replace", t.store.Replace(ctx, ref, rec, record(), long), nil)
	if t.subject != "" {
		full := echosession.Limit{Sessions: 1, WhenFull: echosession.RefuseNew}
		t.wantErr("Create", errOf(t.store.Create(ctx, none, record(), long, full)), echosession.ErrTooManySessions)
		t.counts(t.subject, 2)
		var all []string
		for _, ref := range t.refs {
			all = append(all, ref.ID)
		}
		t.deletes(0, t.subject, all...)
	}
	t.scans(rec)
}

// graceLeft checks what Left says of a rotation that was made at start or later, and after
// which the time passed has gone by, or more where the store goes by the real time.
func (t *trial) graceLeft(ref echosession.Ref, grace time.Duration, start time.Time, passed time.Duration) {
	t.Helper()
	const rounding = 10 * time.Millisecond
	for _, call := range []struct {
		name string
		do   func() error
	}{
		{"Load", func() error { return errOf(t.store.Load(t.Context(), ref, 0)) }},
		{"Load with a lifetime", func() error { return errOf(t.store.Load(t.Context(), ref, 2*grace)) }},
		{"Check", func() error { return errOf(t.store.Check(t.Context(), ref)) }},
	} {
		var rotated *echosession.RotatedError
		if err := call.do(); !errors.As(err, &rotated) {
			t.Errorf("%s of a rotated ref: error %v, want a RotatedError", call.name, err)
			continue
		}
		least := grace - passed
		if t.advance == nil {
			least = grace - time.Since(start)
		}
		if left := rotated.Left; left != 0 && (left < least-rounding || left > grace-passed+rounding) {
			t.Errorf("%s of a ref that was rotated away %v ago with a grace of %v: %v are left", call.name, passed, grace, left)
		}
	}
}
