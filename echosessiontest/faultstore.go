package echosessiontest

import (
	"context"
	"iter"
	"sync"
	"time"

	"github.com/echosession/echosession"
)

// A FaultStore passes calls on to another store, or fails them when the test says so:
// for the test of an outage. [Harness.Store] is one. It is safe for concurrent use.
type FaultStore struct {
	store echosession.Store

	mu      sync.Mutex
	err     error
	calls   int // how many more calls fail, or forever
	watches map[*faultWatch]struct{}
}

var _ echosession.Watcher = (*FaultStore)(nil)

// A faultWatch is one Watch that is passed on.
type faultWatch struct {
	tell  func(echosession.Hint)
	end   context.CancelCauseFunc
	began bool // the first Hint was told
}

const forever = -1

// NewFaultStore returns a store that passes every call on to store: for tests without
// a [Harness], for example with a store of your own.
func NewFaultStore(store echosession.Store) *FaultStore {
	return &FaultStore{store: store, watches: make(map[*faultWatch]struct{})}
}

// Fail makes every call fail with err, or with [echosession.ErrStoreUnavailable]
// if that is nil, until [FaultStore.Restore]. What fails is not done. Nobody learns of ends
// meanwhile: a [echosession.Session.Watch] goes on, and hears of them after Restore.
func (s *FaultStore) Fail(err error) { s.fail(forever, err) }

// FailNext makes the next n calls fail as [FaultStore.Fail] does, and no more. It does not
// interrupt Watch.
func (s *FaultStore) FailNext(n int, err error) { s.fail(max(0, n), err) }

// Restore ends the failures.
func (s *FaultStore) Restore() { s.fail(0, nil) }

func (s *FaultStore) fail(calls int, err error) {
	if err == nil {
		err = echosession.ErrStoreUnavailable
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls, s.err = calls, err
	if calls == forever {
		for w := range s.watches {
			w.end(err)
		}
	}
}

// fault returns the error of the call that begins.
func (s *FaultStore) fault() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls == 0 {
		return nil
	}
	if s.calls != forever {
		s.calls--
	}
	return s.err
}

// Load implements [echosession.Store].
func (s *FaultStore) Load(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
	if err := s.fault(); err != nil {
		return nil, err
	}
	return s.store.Load(ctx, ref, ttl)
}

// Create implements [echosession.Store].
func (s *FaultStore) Create(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) (evicted []string, err error) {
	if err := s.fault(); err != nil {
		return nil, err
	}
	return s.store.Create(ctx, ref, record, ttl, limit)
}

// Check implements [echosession.Store].
func (s *FaultStore) Check(ctx context.Context, ref echosession.Ref) (time.Duration, error) {
	if err := s.fault(); err != nil {
		return 0, err
	}
	return s.store.Check(ctx, ref)
}

// Replace implements [echosession.Store].
func (s *FaultStore) Replace(ctx context.Context, ref echosession.Ref, old, record []byte, ttl time.Duration) error {
	if err := s.fault(); err != nil {
		return err
	}
	return s.store.Replace(ctx, ref, old, record, ttl)
}

// Touch implements [echosession.Store].
func (s *FaultStore) Touch(ctx context.Context, ref echosession.Ref, ttl time.Duration) error {
	if err := s.fault(); err != nil {
		return err
	}
	return s.store.Touch(ctx, ref, ttl)
}

// Delete implements [echosession.Store].
func (s *FaultStore) Delete(ctx context.Context, ref echosession.Ref) error {
	if err := s.fault(); err != nil {
		return err
	}
	return s.store.Delete(ctx, ref)
}

// Rotate implements [echosession.Store].
func (s *FaultStore) Rotate(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl, grace time.Duration) error {
	if err := s.fault(); err != nil {
		return err
	}
	return s.store.Rotate(ctx, from, to, old, record, ttl, grace)
}

// Renew implements [echosession.Store].
func (s *FaultStore) Renew(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) (evicted []string, err error) {
	if err := s.fault(); err != nil {
		return nil, err
	}
	return s.store.Renew(ctx, from, to, old, record, ttl, limit)
}

// List implements [echosession.Store].
func (s *FaultStore) List(ctx context.Context, subject string) ([]echosession.Entry, error) {
	if err := s.fault(); err != nil {
		return nil, err
	}
	return s.store.List(ctx, subject)
}

// Count implements [echosession.Store].
func (s *FaultStore) Count(ctx context.Context, subject string) (int, error) {
	if err := s.fault(); err != nil {
		return 0, err
	}
	return s.store.Count(ctx, subject)
}

// DeleteSubject implements [echosession.Store].
func (s *FaultStore) DeleteSubject(ctx context.Context, subject string, except []string) (int, error) {
	if err := s.fault(); err != nil {
		return 0, err
	}
	return s.store.DeleteSubject(ctx, subject, except)
}

// Scan implements [echosession.Store]. It fails when it is ranged over.
func (s *FaultStore) Scan(ctx context.Context) iter.Seq2[echosession.Entry, error] {
	return func(yield func(echosession.Entry, error) bool) {
		if err := s.fault(); err != nil {
			yield(echosession.Entry{}, err)
			return
		}
		s.store.Scan(ctx)(yield)
	}
}

// Watch implements [echosession.Watcher], if the store behind it does. Otherwise it returns
// an error that matches [errors.ErrUnsupported].
func (s *FaultStore) Watch(ctx context.Context, tell func(echosession.Hint)) error {
	store, ok := s.store.(echosession.Watcher)
	if !ok {
		return echosession.ErrUnsupported
	}
	within, end := context.WithCancelCause(ctx)
	defer end(nil)
	w := &faultWatch{tell: tell, end: end}
	if err := s.enter(w); err != nil {
		return err
	}
	defer s.leave(w)
	err := store.Watch(within, func(h echosession.Hint) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if within.Err() == nil { // else it comes during the outage
			w.began = true
			tell(h)
		}
	})
	if ctx.Err() == nil && within.Err() != nil {
		return context.Cause(within)
	}
	return err
}

// enter notes a Watch that begins, unless every call fails.
func (s *FaultStore) enter(w *faultWatch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls == forever {
		return s.err
	}
	s.watches[w] = struct{}{}
	return nil
}

func (s *FaultStore) leave(w *faultWatch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.watches, w)
}

// look makes everything that watches ask whether its session is still live.
func (s *FaultStore) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.watches {
		if w.began {
			w.tell(echosession.Hint{All: true})
		}
	}
}
