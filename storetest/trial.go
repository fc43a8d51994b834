package storetest

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/echosession/echosession"
)

const (
	long  = time.Hour
	brief = 100 * time.Millisecond // short enough to wait for

	// settled is when a store need not remember any more what it wrote: caches and
	// replicas have heard of it.
	settled = 1200 * time.Millisecond
)

// A trial is one run of a case: a store to try and what the case needs for it.
type trial struct {
	testing.TB
	store   echosession.Store
	advance func(time.Duration) // nil: the store goes by the real time
	subject string              // of the refs that ref makes
	refs    []echosession.Ref   // all that were made

	hasty   bool         // patience is short
	returns atomic.Int32 // of Watches whose context was not done
}

// patience is how long a Hint or the end of a Watch may take.
func (t *trial) patience() time.Duration {
	if t.hasty {
		return 200 * time.Millisecond
	}
	return 5 * time.Second
}

// ref makes a ref that nothing was stored under.
func (t *trial) ref() echosession.Ref { return t.refOf(t.subject) }

func (t *trial) refOf(subject string) echosession.Ref {
	ref := echosession.Ref{ID: uuid.NewString(), Subject: subject}
	t.refs = append(t.refs, ref)
	return ref
}

// clear deletes what may be left of the trial.
func (t *trial) clear() {
	for _, ref := range t.refs {
		t.store.Delete(t.Context(), ref)
	}
}

// record makes a record that there is only once. All but the last few of its
// bytes tell it from any other.
func record() []byte {
	return []byte(uuid.NewString() + "\x00\xff data")
}

// create stores a new record under a new ref, for long.
func (t *trial) create() (echosession.Ref, []byte) {
	t.Helper()
	ref, rec := t.ref(), record()
	t.createAs(ref, rec, long, echosession.Limit{})
	return ref, rec
}

func (t *trial) createAs(ref echosession.Ref, rec []byte, ttl time.Duration, limit echosession.Limit) {
	t.Helper()
	if _, err := t.store.Create(t.Context(), ref, rec, ttl, limit); err != nil {
		t.Fatalf("Create: %v", err)
	}
}

// rotate rotates the session under from, which holds old, and returns its new ref
// and record.
func (t *trial) rotate(from echosession.Ref, old []byte, grace time.Duration) (echosession.Ref, []byte) {
	t.Helper()
	to, rec := t.ref(), record()
	if err := t.store.Rotate(t.Context(), from, to, old, rec, long, grace); err != nil {
		t.Fatalf("Rotate: %v", err)
	}
	return to, rec
}

// holds checks that Load finds rec under ref.
func (t *trial) holds(ref echosession.Ref, rec []byte) {
	t.Helper()
	got, err := t.store.Load(t.Context(), ref, 0)
	if err != nil {
		t.Errorf("Load: %v, want the record", err)
	} else if !bytes.Equal(got, rec) {
		t.Errorf("Load: record %.80q, want %.80q", got, rec)
	}
}

// absent checks that Load finds nothing under ref.
func (t *trial) absent(ref echosession.Ref) {
	t.Helper()
	got, err := t.store.Load(t.Context(), ref, 0)
	t.wantErr("Load", err, echosession.ErrNotFound)
	if got != nil {
		t.Errorf("Load: record %.80q beside the error", got)
	}
}

// follow loads ref, or the session that it leads to.
func (t *trial) follow(ref echosession.Ref) ([]byte, error) {
	t.Helper()
	for range 10 {
		rec, err := t.store.Load(t.Context(), ref, 0)
		var rotated *echosession.RotatedError
		if !errors.As(err, &rotated) {
			return rec, err
		}
		ref.ID = rotated.To
	}
	t.Fatalf("Load: a ref that was rotated away leads nowhere")
	return nil, nil
}

// leads checks that ref was rotated away and leads to rec.
func (t *trial) leads(ref echosession.Ref, rec []byte) {
	t.Helper()
	got, err := t.store.Load(t.Context(), ref, 0)
	if !isRotated(err) || got != nil {
		t.Errorf("Load: record %.80q, error %v, want a RotatedError alone", got, err)
		return
	}
	if got, err = t.follow(ref); err != nil || !bytes.Equal(got, rec) {
		t.Errorf("the RotatedError leads to record %.80q, error %v, want record %.80q", got, err, rec)
	}
}

// leadsNowhere checks that nothing can be loaded through ref.
func (t *trial) leadsNowhere(ref echosession.Ref) {
	t.Helper()
	_, err := t.follow(ref)
	t.wantErr("Load", err, echosession.ErrNotFound)
}

// lists checks that List returns the records, in this order.
func (t *trial) lists(subject string, records ...[]byte) {
	t.Helper()
	list, err := t.store.List(t.Context(), subject)
	if err != nil {
		t.Errorf("List: %v", err)
		return
	}
	if len(list) != len(records) {
		t.Errorf("List: %d sessions, want %d", len(list), len(records))
		return
	}
	for i, entry := range list {
		if !bytes.Equal(entry.Record, records[i]) {
			t.Errorf("List: session %d is %.80q, want %.80q", i, entry.Record, records[i])
		}
	}
}

// deletes checks that DeleteSubject returns n.
func (t *trial) deletes(n int, subject string, except ...string) {
	t.Helper()
	got, err := t.store.DeleteSubject(t.Context(), subject, except)
	if err != nil || got != n {
		t.Errorf("DeleteSubject: %d, error %v, want %d", got, err, n)
	}
}

// ttl returns the lifetime that rec has left, by Scan.
func (t *trial) ttl(rec []byte) time.Duration {
	t.Helper()
	for entry, err := range t.store.Scan(t.Context()) {
		if err != nil {
			t.Fatalf("Scan: %v", err)
		}
		if bytes.Equal(entry.Record, rec) {
			return entry.TTL
		}
	}
	t.Errorf("Scan: no record %.80q", rec)
	return 0
}

// livesFor checks that rec has nearly all of the lifetime ttl left. The machine
// may be slow, and a store may round.
func (t *trial) livesFor(rec []byte, ttl time.Duration) {
	t.Helper()
	if got := t.ttl(rec); got <= ttl-ttl/4 || got > ttl+time.Second {
		t.Errorf("Scan: a lifetime of %v is left, want %v", got, ttl)
	}
}

// runsOut lets the lifetime ttl pass, and checks that what load looks for can be
// found until then and not after. The lifetime began at start or later.
func (t *trial) runsOut(start time.Time, ttl time.Duration, load func() error) {
	t.Helper()
	if t.advance != nil {
		t.advance(ttl - time.Millisecond)
		if err := load(); err != nil && !isRotated(err) {
			t.Errorf("a millisecond before the lifetime of %v has passed: %v", ttl, err)
		}
		t.advance(time.Millisecond)
		t.wantErr("when the lifetime has passed", load(), echosession.ErrNotFound)
		return
	}
	const patience, rounding = 5 * time.Second, 10 * time.Millisecond
	for {
		err := load()
		age := time.Since(start)
		switch {
		case errors.Is(err, echosession.ErrNotFound):
			if age < ttl-rounding {
				t.Errorf("not found after %v, but the lifetime is %v", age, ttl)
			}
			return
		case err != nil && !isRotated(err):
			t.Fatalf("while the lifetime passes: %v", err)
		case age > ttl+patience:
			t.Errorf("still found after %v, but the lifetime is %v", age, ttl)
			return
		}
		time.Sleep(2 * time.Millisecond) // not for the lifetime, but to ask again
	}
}

// pass lets time pass.
func (t *trial) pass(d time.Duration) {
	if t.advance != nil {
		t.advance(d)
		return
	}
	time.Sleep(d)
}

// loading returns a function that loads ref, for runsOut.
func (t *trial) loading(ref echosession.Ref, ttl time.Duration) func() error {
	return func() error {
		_, err := t.store.Load(t.Context(), ref, ttl)
		return err
	}
}

// wantErr checks that err matches want, where nil is no error at all.
func (t *trial) wantErr(what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

// wantRefused checks that err is an error, and says nothing about what is stored.
func (t *trial) wantRefused(what string, err error) {
	t.Helper()
	switch {
	case err == nil:
		t.Errorf("%s: no error, want one", what)
	case errors.Is(err, echosession.ErrNotFound), isRotated(err):
		t.Errorf("%s: error %v, want one that refuses the arguments", what, err)
	}
}

// cancelled returns a context that has ended.
func cancelled(t *trial) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func isRotated(err error) bool {
	var rotated *echosession.RotatedError
	return errors.As(err, &rotated)
}
