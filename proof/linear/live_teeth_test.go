package linear_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/proof/linear"
)

// liveMutants are stores with a defect each that shows only where sessions are watched or
// tickets redeemed.
var liveMutants = []struct {
	defect string
	wrap   func(echosession.Store) echosession.Store
}{
	{"a message is missed", func(s echosession.Store) echosession.Store { return forgetful{telling{s}} }},
	{"a hint comes before the change, and none after it", func(s echosession.Store) echosession.Store {
		return &hasty{telling: telling{s}, silenced: make(map[string]bool)}
	}},
	{"a sweep skips a session", func(s echosession.Store) echosession.Store { return skipping{polled{s}} }},
	{"a check is answered from a cache", func(s echosession.Store) echosession.Store {
		return &answeringAgain{telling: telling{s}, answers: make(map[echosession.Ref]time.Duration)}
	}},
	{"a late message ends a session that goes on", func(s echosession.Store) echosession.Store {
		return &believing{telling: telling{s}, told: make(map[string]bool)}
	}},
	{"a failure counts as an end", func(s echosession.Store) echosession.Store { return despairing{telling{s}} }},
	{"a rotation counts as an end during the grace", func(s echosession.Store) echosession.Store { return impatient{telling{s}} }},
	{"a login counts as a logout", func(s echosession.Store) echosession.Store { return unmarkedForWatches{telling{s}} }},
	{"the answers of two checks are mixed up", func(s echosession.Store) echosession.Store { return &mixing{telling: telling{s}} }},
	{"a revocation of all sessions tells nobody", func(s echosession.Store) echosession.Store { return &discreet{telling: telling{s}} }},
	{"nothing is said of what a broken watch may have missed", func(s echosession.Store) echosession.Store { return &breaking{telling: telling{s}} }},

	{"a ticket is redeemed twice", func(s echosession.Store) echosession.Store {
		return &redeemingTwice{telling: telling{s}, taken: make(map[string][]byte)}
	}},
	{"a ticket can be used after a lost reply", func(s echosession.Store) echosession.Store { return refunding{telling{s}} }},
	{"a use of a ticket whose reply was lost is done once more", func(s echosession.Store) echosession.Store { return takingTwice{telling{s}} }},
	{"a ticket is lost", func(s echosession.Store) echosession.Store { return misplacing{telling{s}} }},
}

// settled is longer than the first sweep takes. The next one comes after soon.
const settled = 6 * time.Second

// byClient is in the context of what the clients do: the checks of the watches come without.
type byClient struct{}

func isByClient(ctx context.Context) bool { return ctx.Value(byClient{}) != nil }

// inBubble makes a history on a store in memory, in which the time costs nothing.
func inBubble(t *testing.T, tr *trial) (outcome *linear.Outcome) {
	synctest.Test(t, func(t *testing.T) {
		w := tr.workload(t, backends[0], &farm{})
		if tr.faults != nil {
			tr.faults.on.Store(true)
		}
		w.Watches, w.Patience = true, soon
		if _, tells := tr.wrap(nil).(echosession.Watcher); !tells {
			w.Patience = patience
		}
		ctx := context.WithValue(t.Context(), byClient{}, true)
		s, err := w.Managers[0].Create(ctx, linear.Data{})
		for err != nil { // a fault
			s, err = w.Managers[0].Create(ctx, linear.Data{})
		}
		_, stop := s.Watch(ctx)
		defer stop()
		time.Sleep(settled)
		outcome = w.Run(ctx)
	})
	return outcome
}

// TestCatchesLiveDefects shows that the check finds what it looks for. Without what watches
// and tickets say each of these histories is in order.
func TestCatchesLiveDefects(t *testing.T) {
	for _, m := range liveMutants {
		t.Run(m.defect, func(t *testing.T) {
			t.Parallel()
			const attempts = 200
			for seed := range uint64(attempts) {
				tr := newTrial(seed, false)
				tr.indexed, tr.wrap = true, m.wrap
				outcome := inBubble(t, tr)
				missed := len(outcome.Errors) > 0
				if missed {
					t.Logf("caught in history %d: %v", seed+1, outcome.Errors[0])
				}
				if !missed && outcome.Linearizable(tr.grace) {
					continue
				}
				if !missed {
					t.Logf("caught in history %d", seed+1)
				}
				outcome.Forget(linear.Watch, linear.Redeem, linear.Waste)
				if !outcome.Linearizable(tr.grace) {
					t.Error("the history is not in order without watches and tickets, either")
				}
				return
			}
			t.Errorf("not caught in %d histories", attempts)
		})
	}
}

// A store that keeps its promises is not blamed: whether it tells of ends or is asked.
func TestLive(t *testing.T) {
	for _, store := range []struct {
		name   string
		wrap   func(echosession.Store) echosession.Store
		faulty bool
	}{
		{"told", func(s echosession.Store) echosession.Store { return telling{s} }, false},
		{"told, with faults", func(s echosession.Store) echosession.Store { return telling{s} }, true},
		{"asked", func(s echosession.Store) echosession.Store { return polled{s} }, false},
		{"asked, with faults", func(s echosession.Store) echosession.Store { return polled{s} }, true},
	} {
		t.Run(store.name, func(t *testing.T) {
			t.Parallel()
			var latest time.Duration
			canceled := 0
			for seed := range uint64(*histories) {
				tr := newTrial(seed, store.faulty)
				tr.wrap = store.wrap
				outcome := inBubble(t, tr)
				for _, err := range outcome.Errors {
					t.Errorf("seed %d: %v", seed, err)
				}
				if err := outcome.Check(tr.grace); err != nil {
					t.Errorf("seed %d: %v", seed, err)
				}
				canceled += outcome.Figures.Canceled
				latest = max(latest, outcome.Figures.Latest)
			}
			t.Logf("%d watches canceled, the last one %v after the last operation", canceled, latest)
			if canceled == 0 {
				t.Error("no watch was canceled")
			}
		})
	}
}

// telling is a store that tells of ends and keeps tickets, and polled one that does neither.
type (
	telling struct{ echosession.Store }
	polled  struct{ echosession.Store }
)

func (s telling) Watch(ctx context.Context, tell func(echosession.Hint)) error {
	return s.Store.(echosession.Watcher).Watch(ctx, tell)
}

func (s telling) PutTicket(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return s.Store.(echosession.TicketStore).PutTicket(ctx, key, value, ttl)
}

func (s telling) TakeTicket(ctx context.Context, key string) ([]byte, error) {
	return s.Store.(echosession.TicketStore).TakeTicket(ctx, key)
}

type forgetful struct{ telling }

func (s forgetful) Watch(ctx context.Context, tell func(echosession.Hint)) error {
	return s.telling.Watch(ctx, func(hint echosession.Hint) {
		if hint.All || rand.IntN(4) > 0 {
			tell(hint)
		}
	})
}

// hasty tells of a Delete before it.
type hasty struct {
	telling
	mu       sync.Mutex
	tell     func(echosession.Hint)
	silenced map[string]bool
}

func (s *hasty) Watch(ctx context.Context, tell func(echosession.Hint)) error {
	s.mu.Lock()
	s.tell = tell
	s.mu.Unlock()
	return s.telling.Watch(ctx, func(hint echosession.Hint) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !slices.ContainsFunc(hint.IDs, func(id string) bool { return s.silenced[id] }) {
			tell(hint)
		}
	})
}

func (s *hasty) Delete(ctx context.Context, ref echosession.Ref) error {
	s.mu.Lock()
	s.silenced[ref.ID] = true
	if s.tell != nil {
		s.tell(echosession.Hint{IDs: []string{ref.ID}})
	}
	s.mu.Unlock()
	time.Sleep(time.Millisecond)
	return s.Store.Delete(ctx, ref)
}

// skipping does not look when it is asked about some sessions.
type skipping struct{ polled }

func (s skipping) Check(ctx context.Context, ref echosession.Ref) (time.Duration, error) {
	if !isByClient(ctx) && ref.ID[0]%4 == 0 {
		return time.Minute, nil
	}
	return s.Store.Check(ctx, ref)
}

type answeringAgain struct {
	telling
	mu      sync.Mutex
	answers map[echosession.Ref]time.Duration
}

func (s *answeringAgain) Check(ctx context.Context, ref echosession.Ref) (time.Duration, error) {
	if isByClient(ctx) {
		return s.Store.Check(ctx, ref)
	}
	s.mu.Lock()
	left, ok := s.answers[ref]
	s.mu.Unlock()
	if ok {
		return left, nil
	}
	left, err := s.Store.Check(ctx, ref)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.answers[ref] = left
	}
	return left, err
}

// believing believes whatever message there was about an ID.
type believing struct {
	telling
	mu   sync.Mutex
	told map[string]bool
}

func (s *believing) Watch(ctx context.Context, tell func(echosession.Hint)) error {
	return s.telling.Watch(ctx, func(hint echosession.Hint) {
		s.mu.Lock()
		for _, id := range hint.IDs {
			s.told[id] = true
		}
		s.mu.Unlock()
		tell(hint)
	})
}

func (s *believing) Check(ctx context.Context, ref echosession.Ref) (time.Duration, error) {
	s.mu.Lock()
	told := s.told[ref.ID]
	s.mu.Unlock()
	left, err := s.Store.Check(ctx, ref)
	if told && !isByClient(ctx) && !errors.Is(err, echosession.ErrRenewed) {
		return 0, echosession.ErrNotFound
	}
	return left, err
}

type despairing struct{ telling }

func (s despairing) Check(ctx context.Context, ref echosession.Ref) (time.Duration, error) {
	if !isByClient(ctx) && rand.IntN(10) == 0 {
		return 0, echosession.ErrNotFound
	}
	return s.Store.Check(ctx, ref)
}

type impatient struct{ telling }

func (s impatient) Check(ctx context.Context, ref echosession.Ref) (time.Duration, error) {
	left, err := s.Store.Check(ctx, ref)
	if _, rotated := errors.AsType[*echosession.RotatedError](err); rotated && !isByClient(ctx) {
		return 0, echosession.ErrNotFound
	}
	return left, err
}

type unmarkedForWatches struct{ telling }

func (s unmarkedForWatches) Check(ctx context.Context, ref echosession.Ref) (time.Duration, error) {
	left, err := s.Store.Check(ctx, ref)
	if errors.Is(err, echosession.ErrRenewed) && !isByClient(ctx) {
		return 0, echosession.ErrNotFound
	}
	return left, err
}

// mixing gives the answer about the session that was asked about before.
type mixing struct {
	telling
	mu   sync.Mutex
	last echosession.Ref
}

func (s *mixing) Check(ctx context.Context, ref echosession.Ref) (time.Duration, error) {
	if isByClient(ctx) {
		return s.Store.Check(ctx, ref)
	}
	s.mu.Lock()
	if s.last.ID != "" {
		ref, s.last = s.last, ref
	} else {
		s.last = ref
	}
	s.mu.Unlock()
	return s.Store.Check(ctx, ref)
}

// discreet tells of no end while a DeleteSubject is under way.
type discreet struct {
	telling
	revoking atomic.Int64
}

func (s *discreet) Watch(ctx context.Context, tell func(echosession.Hint)) error {
	return s.telling.Watch(ctx, func(hint echosession.Hint) {
		if s.revoking.Load() == 0 {
			tell(hint)
		}
	})
}

func (s *discreet) DeleteSubject(ctx context.Context, subject string, except []string) (int, error) {
	s.revoking.Add(1)
	defer s.revoking.Add(-1)
	return s.Store.DeleteSubject(ctx, subject, except)
}

// breaking breaks off now and then, and goes on as if nothing could have happened.
type breaking struct {
	telling
	begun atomic.Bool
}

func (s *breaking) Watch(ctx context.Context, tell func(echosession.Hint)) error {
	goesOn := s.begun.Swap(true)
	ctx, interrupt := context.WithCancel(ctx)
	defer interrupt()
	return s.telling.Watch(ctx, func(hint echosession.Hint) {
		if rand.IntN(4) == 0 && !hint.All {
			interrupt()
		}
		if ctx.Err() == nil && !(hint.All && goesOn) {
			tell(hint)
		}
	})
}

// redeemingTwice looks first, and removes later.
type redeemingTwice struct {
	telling
	mu    sync.Mutex
	taken map[string][]byte
}

func (s *redeemingTwice) TakeTicket(ctx context.Context, key string) ([]byte, error) {
	value, err := s.telling.TakeTicket(ctx, key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.taken[key] = value
		time.AfterFunc(time.Millisecond, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.taken, key)
		})
	} else if early, ok := s.taken[key]; ok {
		return early, nil
	}
	return value, err
}

// refunding gives tickets back whose use failed.
type refunding struct{ telling }

func (s refunding) TakeTicket(ctx context.Context, key string) ([]byte, error) {
	value, err := s.telling.TakeTicket(ctx, key)
	if err == nil && rand.IntN(2) == 0 {
		time.Sleep(time.Millisecond)
		_ = s.PutTicket(ctx, key, value, time.Minute)
		return nil, echosession.ErrStoreUnavailable
	}
	return value, err
}

type takingTwice struct{ telling }

func (s takingTwice) TakeTicket(ctx context.Context, key string) ([]byte, error) {
	value, err := s.telling.TakeTicket(ctx, key)
	if err == nil && rand.IntN(4) == 0 {
		return s.telling.TakeTicket(ctx, key)
	}
	return value, err
}

type misplacing struct{ telling }

func (s misplacing) PutTicket(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if rand.IntN(4) == 0 {
		return nil
	}
	return s.telling.PutTicket(ctx, key, value, ttl)
}
