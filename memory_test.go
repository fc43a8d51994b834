package echosession_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/storetest"
)

func TestMemoryStore(t *testing.T) {
	t.Parallel()
	t.Run("in real time", func(t *testing.T) {
		t.Parallel()
		storetest.Run(t, func(t *testing.T) echosession.Store {
			s := echosession.NewMemoryStore()
			t.Cleanup(func() { s.Close() })
			return s
		})
	})

	// Here the expired are not removed before the suite asks for them.
	t.Run("among many", func(t *testing.T) {
		t.Parallel()
		storetest.RunWithClock(t, func(t *testing.T) (echosession.Store, func(time.Duration)) {
			var clock atomic.Int64
			s := echosession.NewMemoryStore(echosession.WithClock(func() time.Time { return time.Unix(0, clock.Load()) }))
			for range 1000 {
				mustCreate(t, s, newRef("eve"), "r", 1000*time.Hour)
			}
			return s, func(d time.Duration) { clock.Add(int64(d)) }
		})
	})
}

// newRef returns a ref of a subject, or of none, that nothing was stored under.
func newRef(subject string) echosession.Ref {
	return echosession.Ref{ID: uuid.NewString(), Subject: subject}
}

func mustCreate(t testing.TB, s echosession.Store, ref echosession.Ref, record string, ttl time.Duration) {
	t.Helper()
	if _, err := s.Create(t.Context(), ref, []byte(record), ttl, echosession.Limit{}); err != nil {
		t.Fatalf("Create: %v", err)
	}
}

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func mustRotate(t testing.TB, s echosession.Store, from, to echosession.Ref, grace time.Duration) {
	t.Helper()
	if err := s.Rotate(t.Context(), from, to, []byte("r"), []byte("r2"), time.Hour, grace); err != nil {
		t.Fatalf("Rotate: %v", err)
	}
}

func TestMemoryStoreKeepsTimeInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := echosession.NewMemoryStore()
		ref := newRef("ada")
		mustCreate(t, s, ref, "r", time.Minute)
		time.Sleep(time.Minute - time.Nanosecond)
		if _, err := s.Load(t.Context(), ref, 0); err != nil {
			t.Errorf("a nanosecond before the lifetime has passed: %v", err)
		}
		time.Sleep(time.Nanosecond)
		if _, err := s.Load(t.Context(), ref, 0); !errors.Is(err, echosession.ErrNotFound) {
			t.Errorf("when the lifetime has passed: error %v, want ErrNotFound", err)
		}
	})
}

// storeCalls calls every method but Close on a store that holds "r" under ref.
var storeCalls = []struct {
	name string
	call func(ctx context.Context, s echosession.Store, ref echosession.Ref) error
}{
	{"Load", func(ctx context.Context, s echosession.Store, ref echosession.Ref) error {
		_, err := s.Load(ctx, ref, 0)
		return err
	}},
	{"Create", func(ctx context.Context, s echosession.Store, ref echosession.Ref) error {
		return errOf(s.Create(ctx, newRef(ref.Subject), []byte("r"), time.Hour, echosession.Limit{Sessions: 1}))
	}},
	{"Replace", func(ctx context.Context, s echosession.Store, ref echosession.Ref) error {
		return s.Replace(ctx, ref, []byte("r"), []byte("r2"), time.Hour)
	}},
	{"Touch", func(ctx context.Context, s echosession.Store, ref echosession.Ref) error {
		return s.Touch(ctx, ref, time.Hour)
	}},
	{"Delete", func(ctx context.Context, s echosession.Store, ref echosession.Ref) error {
		return s.Delete(ctx, ref)
	}},
	{"Rotate", func(ctx context.Context, s echosession.Store, ref echosession.Ref) error {
		return s.Rotate(ctx, ref, newRef(ref.Subject), []byte("r"), []byte("r2"), time.Hour, 0)
	}},
	{"List", func(ctx context.Context, s echosession.Store, ref echosession.Ref) error {
		_, err := s.List(ctx, ref.Subject)
		return err
	}},
	{"List of no subject", func(ctx context.Context, s echosession.Store, _ echosession.Ref) error {
		_, err := s.List(ctx, "")
		return err
	}},
	{"DeleteSubject", func(ctx context.Context, s echosession.Store, ref echosession.Ref) error {
		_, err := s.DeleteSubject(ctx, ref.Subject, nil)
		return err
	}},
	{"Scan", func(ctx context.Context, s echosession.Store, _ echosession.Ref) error {
		for _, err := range s.Scan(ctx) {
			return err
		}
		return nil
	}},
}

func TestMemoryStoreReportsItsContext(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithDeadlineCause(t.Context(), time.Time{}, errors.New("a cause of the caller's"))
	defer cancel()

	for _, c := range storeCalls {
		t.Run(c.name, func(t *testing.T) {
			s := echosession.NewMemoryStore()
			ref := newRef("ada")
			mustCreate(t, s, ref, "r", time.Hour)
			for _, ctx := range []context.Context{cancelled, late} {
				err := c.call(ctx, s, ref)
				if !errors.Is(err, echosession.ErrStoreUnavailable) || !errors.Is(err, ctx.Err()) {
					t.Errorf("error %v, want ErrStoreUnavailable and %v", err, ctx.Err())
				}
			}
			if err := c.call(t.Context(), s, ref); err != nil {
				t.Errorf("with a context that has not ended: %v", err)
			}
		})
	}
}

func TestMemoryStoreIsUnavailableWhenClosed(t *testing.T) {
	s := echosession.NewMemoryStore()
	ref := newRef("ada")
	mustCreate(t, s, ref, "r", time.Hour)
	mustCreate(t, s, newRef("ada"), "r", time.Hour)

	var yields []error
	for _, err := range s.Scan(t.Context()) {
		yields = append(yields, err)
		for range 2 {
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		}
	}
	if len(yields) != 2 || yields[0] != nil || !errors.Is(yields[1], echosession.ErrStoreUnavailable) {
		t.Errorf("a Scan that was running yielded %v, want a record and ErrStoreUnavailable", yields)
	}
	for _, c := range storeCalls {
		if err := c.call(t.Context(), s, ref); !errors.Is(err, echosession.ErrStoreUnavailable) {
			t.Errorf("%s: error %v, want ErrStoreUnavailable", c.name, err)
		}
	}
	if entries, subjects := s.Held(); entries != 0 || subjects != 0 {
		t.Errorf("%d entries and %d subjects are held, want none", entries, subjects)
	}
}

func TestMemoryStoreRotate(t *testing.T) {
	newStore := func(t *testing.T) (*echosession.MemoryStore, []echosession.Ref) {
		s := echosession.NewMemoryStore()
		refs := []echosession.Ref{newRef("ada"), newRef("ada"), newRef("ada"), newRef("ada")}
		mustCreate(t, s, refs[0], "r", time.Hour)
		return s, refs
	}
	wantLoad := func(t *testing.T, s echosession.Store, ref echosession.Ref, want string) {
		t.Helper()
		if got, err := s.Load(t.Context(), ref, 0); err != nil || string(got) != want {
			t.Errorf("Load: record %q, error %v, want %q", got, err, want)
		}
	}

	t.Run("a taken successor is a conflict", func(t *testing.T) {
		s, refs := newStore(t)
		mustCreate(t, s, refs[1], "taken", time.Hour)
		err := s.Rotate(t.Context(), refs[0], refs[1], []byte("r"), []byte("r2"), time.Hour, time.Hour)
		if !errors.Is(err, echosession.ErrConflict) {
			t.Errorf("error %v, want ErrConflict", err)
		}
		wantLoad(t, s, refs[0], "r")
		wantLoad(t, s, refs[1], "taken")
	})

	t.Run("a successor of another subject is refused", func(t *testing.T) {
		s, refs := newStore(t)
		to := newRef("eve")
		if err := s.Rotate(t.Context(), refs[0], to, []byte("r"), []byte("r2"), time.Hour, time.Hour); err == nil {
			t.Error("no error")
		}
		wantLoad(t, s, refs[0], "r")
		if _, err := s.Load(t.Context(), to, 0); !errors.Is(err, echosession.ErrNotFound) {
			t.Errorf("Load of the successor: error %v, want ErrNotFound", err)
		}
	})

	t.Run("every ref leads to the last one", func(t *testing.T) {
		s, refs := newStore(t)
		mustRotate(t, s, refs[0], refs[1], time.Hour)
		mustRotate(t, s, refs[1], refs[2], 0) // a gap
		mustRotate(t, s, refs[2], refs[3], time.Hour)
		for _, i := range []int{0, 2} {
			_, err := s.Load(t.Context(), refs[i], 0)
			if rotated := (*echosession.RotatedError)(nil); !errors.As(err, &rotated) || rotated.To != refs[3].ID {
				t.Errorf("Load: error %#v, want a RotatedError to %s", err, refs[3].ID)
			}
		}
		if err := s.Delete(t.Context(), refs[0]); err != nil {
			t.Errorf("Delete: %v", err)
		}
		if _, err := s.Load(t.Context(), refs[3], 0); !errors.Is(err, echosession.ErrNotFound) {
			t.Errorf("after Delete: error %v, want ErrNotFound", err)
		}
	})
}

// watchMemory starts a Watch, and returns after its first Hint. The hints that follow go to the
// channel. stop ends the Watch and returns what it returned.
func watchMemory(t *testing.T, s *echosession.MemoryStore) (hints <-chan echosession.Hint, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	told, result := make(chan echosession.Hint, 1000), make(chan error, 1)
	go func() { result <- s.Watch(ctx, func(h echosession.Hint) { told <- h }) }()
	select {
	case h := <-told:
		if !h.All || h.IDs != nil || h.Match != nil {
			t.Errorf("the first hint is %+v, want All alone", h)
		}
	case err := <-result:
		t.Fatalf("Watch: %v", err)
	}
	return told, func() error {
		cancel()
		return <-result
	}
}

// nextHint returns the next hint, which is there already, or the zero Hint.
func nextHint(hints <-chan echosession.Hint) echosession.Hint {
	select {
	case h := <-hints:
		return h
	default:
		return echosession.Hint{}
	}
}

// The hint is there when the method returns.
func TestMemoryStoreTellsOfEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(t *testing.T, s *echosession.MemoryStore, a, b echosession.Ref) (ids []string)
	}{
		{"Delete", func(t *testing.T, s *echosession.MemoryStore, a, _ echosession.Ref) []string {
			noError(t, s.Delete(t.Context(), a))
			return []string{a.ID}
		}},
		{"Delete of none", func(t *testing.T, s *echosession.MemoryStore, _, _ echosession.Ref) []string {
			noError(t, s.Delete(t.Context(), newRef("ada")))
			return nil
		}},
		{"DeleteSubject", func(t *testing.T, s *echosession.MemoryStore, a, b echosession.Ref) []string {
			n, err := s.DeleteSubject(t.Context(), "ada", nil)
			if n != 2 || err != nil {
				t.Errorf("DeleteSubject: %d, %v", n, err)
			}
			return []string{a.ID, b.ID}
		}},
		{"DeleteSubject with an exception", func(t *testing.T, s *echosession.MemoryStore, a, b echosession.Ref) []string {
			_, err := s.DeleteSubject(t.Context(), "ada", []string{a.ID})
			noError(t, err)
			return []string{b.ID}
		}},
		{"DeleteSubject of none", func(t *testing.T, s *echosession.MemoryStore, a, b echosession.Ref) []string {
			for subject, except := range map[string][]string{"": nil, "bob": nil, "ada": {a.ID, b.ID}} {
				_, err := s.DeleteSubject(t.Context(), subject, except)
				noError(t, err)
			}
			return nil
		}},
		{"Create beyond the limit", func(t *testing.T, s *echosession.MemoryStore, a, b echosession.Ref) []string {
			noError(t, errOf(s.Create(t.Context(), newRef("ada"), []byte("r"), time.Hour, echosession.Limit{Sessions: 1})))
			return []string{a.ID, b.ID}
		}},
		{"Create within the limit", func(t *testing.T, s *echosession.MemoryStore, _, _ echosession.Ref) []string {
			noError(t, errOf(s.Create(t.Context(), newRef("ada"), []byte("r"), time.Hour, echosession.Limit{Sessions: 3})))
			return nil
		}},
		{"Create that is refused", func(t *testing.T, s *echosession.MemoryStore, a, _ echosession.Ref) []string {
			full := echosession.Limit{Sessions: 2, WhenFull: echosession.RefuseNew}
			_, err := s.Create(t.Context(), newRef("ada"), []byte("r"), time.Hour, full)
			err = cmp.Or(err, errOf(s.Create(t.Context(), a, []byte("another"), time.Hour, echosession.Limit{})))
			if !errors.Is(err, echosession.ErrTooManySessions) {
				t.Errorf("Create: %v", err)
			}
			return nil
		}},
		{"Rotate with a grace", func(t *testing.T, s *echosession.MemoryStore, a, _ echosession.Ref) []string {
			mustRotate(t, s, a, newRef("ada"), time.Minute)
			return []string{a.ID}
		}},
		{"Rotate without a grace", func(t *testing.T, s *echosession.MemoryStore, a, _ echosession.Ref) []string {
			mustRotate(t, s, a, newRef("ada"), 0)
			return []string{a.ID}
		}},
		{"Rotate that conflicts", func(t *testing.T, s *echosession.MemoryStore, a, b echosession.Ref) []string {
			if err := s.Rotate(t.Context(), a, b, []byte("r"), []byte("r2"), time.Hour, time.Hour); !errors.Is(err, echosession.ErrConflict) {
				t.Errorf("Rotate: %v", err)
			}
			return nil
		}},
		{"Renew", func(t *testing.T, s *echosession.MemoryStore, a, _ echosession.Ref) []string {
			noError(t, errOf(s.Renew(t.Context(), a, newRef("ada"), []byte("r"), []byte("r2"), time.Hour, echosession.Limit{Sessions: 1})))
			return []string{a.ID}
		}},
		{"Renew into a full subject", func(t *testing.T, s *echosession.MemoryStore, a, b echosession.Ref) []string {
			guest := newRef("")
			mustCreate(t, s, guest, "r", time.Hour)
			full := echosession.Limit{Sessions: 2, WhenFull: echosession.RefuseNew}
			if _, err := s.Renew(t.Context(), guest, newRef("ada"), []byte("r"), []byte("r2"), time.Hour, full); !errors.Is(err, echosession.ErrTooManySessions) {
				t.Errorf("Renew: %v", err)
			}
			full.WhenFull = echosession.EvictOldest
			noError(t, errOf(s.Renew(t.Context(), guest, newRef("ada"), []byte("r"), []byte("r2"), time.Hour, full)))
			return []string{a.ID, guest.ID}
		}},
		{"no end", func(t *testing.T, s *echosession.MemoryStore, a, _ echosession.Ref) []string {
			_, err := s.Load(t.Context(), a, time.Minute)
			noError(t, err)
			_, err = s.Check(t.Context(), a)
			noError(t, err)
			noError(t, s.Touch(t.Context(), a, time.Minute))
			noError(t, s.Replace(t.Context(), a, []byte("r"), []byte("r2"), time.Minute))
			_, err = s.List(t.Context(), "ada")
			noError(t, err)
			return nil
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := echosession.NewMemoryStore()
			a, b := newRef("ada"), newRef("ada")
			mustCreate(t, s, a, "r", time.Hour)
			mustCreate(t, s, b, "r", time.Hour)
			mustCreate(t, s, newRef("eve"), "r", time.Hour)
			one, stopOne := watchMemory(t, s)
			two, stopTwo := watchMemory(t, s)
			ids := tt.end(t, s, a, b)
			for _, hints := range []<-chan echosession.Hint{one, two} {
				var got []string
				for h := nextHint(hints); h.IDs != nil; h = nextHint(hints) {
					if h.All || h.Match != nil {
						t.Errorf("a hint is %+v, want IDs alone", h)
					}
					got = append(got, h.IDs...)
				}
				if !slices.Equal(got, ids) {
					t.Errorf("told of %q, want %q", got, ids)
				}
			}
			for _, stop := range []func() error{stopOne, stopTwo} {
				if err := stop(); !errors.Is(err, echosession.ErrStoreUnavailable) || !errors.Is(err, context.Canceled) {
					t.Errorf("Watch: error %v, want ErrStoreUnavailable and that the context was canceled", err)
				}
			}
		})
	}
}

// Whoever watches a ref from before learns of the end, and so does who watches the last.
func TestMemoryStoreTellsOfTheEndOfASuccessor(t *testing.T) {
	s := echosession.NewMemoryStore()
	first, second, third := newRef("ada"), newRef("ada"), newRef("ada")
	mustCreate(t, s, first, "r", time.Hour)
	mustRotate(t, s, first, second, time.Hour)
	mustRotate(t, s, second, third, time.Hour)
	hints, stop := watchMemory(t, s)
	noError(t, s.Delete(t.Context(), first))
	if h := nextHint(hints); !slices.Equal(h.IDs, []string{first.ID, third.ID}) {
		t.Errorf("told of %q, want %q", h.IDs, []string{first.ID, third.ID})
	}
	stop()
	noError(t, s.Delete(t.Context(), second))
	if h := nextHint(hints); h.IDs != nil {
		t.Errorf("told of %q after Watch had returned", h.IDs)
	}
}

func TestMemoryStoreTellsTheRestOfAGrace(t *testing.T) {
	now := time.Now()
	s := echosession.NewMemoryStore(echosession.WithClock(func() time.Time { return now }))
	from, to := newRef("ada"), newRef("ada")
	mustCreate(t, s, from, "r", time.Hour)
	mustRotate(t, s, from, to, time.Minute)
	now = now.Add(time.Second)
	_, loaded := s.Load(t.Context(), from, time.Hour)
	_, checked := s.Check(t.Context(), from)
	for _, err := range []error{loaded, checked} {
		if rotated := (*echosession.RotatedError)(nil); !errors.As(err, &rotated) || rotated.Left != 59*time.Second {
			t.Errorf("error %#v, want a RotatedError with 59 seconds left", err)
		}
	}
}

// 100 sessions are named, and of more the subject.
func TestMemoryStoreTellsOfManyEnds(t *testing.T) {
	for _, n := range []int{100, 101} {
		s := echosession.NewMemoryStore()
		from, kept := newRef("ada"), newRef("ada")
		mustCreate(t, s, from, "r", time.Hour)
		mustRotate(t, s, from, kept, time.Hour)
		var refs []echosession.Ref
		for range n {
			refs = append(refs, newRef("ada"))
			mustCreate(t, s, refs[len(refs)-1], "r", time.Hour)
		}
		hints, _ := watchMemory(t, s)
		if got, err := s.DeleteSubject(t.Context(), "ada", []string{from.ID}); got != n || err != nil {
			t.Fatalf("DeleteSubject: %d, %v", got, err)
		}
		h := nextHint(hints)
		if (h.Match != nil) != (n > 100) || (h.IDs != nil) != (n <= 100) || h.All {
			t.Fatalf("the hint of %d ends is %+v", n, h)
		}
		names := func(ref echosession.Ref) bool {
			return slices.Contains(h.IDs, ref.ID) || h.Match != nil && h.Match(ref)
		}
		for _, ref := range refs {
			if !names(ref) {
				t.Fatalf("the hint of %d ends lacks one", n)
			}
		}
		if names(kept) || names(newRef("eve")) || names(newRef("")) {
			t.Errorf("the hint of %d ends names the session that is spared, or another subject's", n)
		}
		if h := nextHint(hints); h.IDs != nil || h.Match != nil {
			t.Errorf("there is another hint: %+v", h)
		}
	}
}

func TestMemoryStoreEndsItsWatches(t *testing.T) {
	s := echosession.NewMemoryStore()
	ref := newRef("ada")
	mustCreate(t, s, ref, "r", time.Hour)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Watch(cancelled, func(h echosession.Hint) { t.Errorf("told %+v", h) }); !errors.Is(err, context.Canceled) {
		t.Errorf("Watch with a context that has ended: %v", err)
	}

	hints, result := make(chan echosession.Hint, 1), make(chan error)
	for range 2 {
		go func() { result <- s.Watch(t.Context(), func(h echosession.Hint) { hints <- h }) }()
		<-hints
	}
	noError(t, s.Close())
	for range 2 {
		if err := <-result; !errors.Is(err, echosession.ErrStoreUnavailable) {
			t.Errorf("Watch of a store that was closed meanwhile: %v", err)
		}
	}
	if err := s.Watch(t.Context(), func(h echosession.Hint) { t.Errorf("told %+v", h) }); !errors.Is(err, echosession.ErrStoreUnavailable) {
		t.Errorf("Watch of a closed store: %v", err)
	}
}

// While sessions end and begin, Watches come and go. After a Watch has returned it is told
// nothing, and what ends in between is told by each that is there all the time.
func TestMemoryStoreWatchesAtOnce(t *testing.T) {
	s := echosession.NewMemoryStore()
	const writers, each = 4, 200
	var mu sync.Mutex
	ended := make(map[string]bool)
	ctx, cancel := context.WithCancel(t.Context())
	began, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		s.Watch(ctx, func(h echosession.Hint) {
			if h.All {
				close(began)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, id := range h.IDs {
				ended[id] = true
			}
		})
	}()
	<-began
	refs := make([][]echosession.Ref, writers)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for range each {
				ref := newRef("ada")
				refs[w] = append(refs[w], ref)
				mustCreate(t, s, ref, "r", time.Hour)
				noError(t, s.Delete(t.Context(), ref))
			}
		})
		wg.Go(func() {
			for range each {
				var returned atomic.Bool
				ctx, cancel := context.WithCancel(t.Context())
				s.Watch(ctx, func(echosession.Hint) {
					if cancel(); returned.Load() {
						t.Error("told after Watch had returned")
					}
				})
				returned.Store(true)
			}
		})
	}
	wg.Wait()
	cancel()
	<-over
	for _, ref := range slices.Concat(refs...) {
		if !ended[ref.ID] {
			t.Fatal("an end was not told")
		}
	}
}

func TestMemoryStoreForgetsTheExpired(t *testing.T) {
	now := time.Now()
	newStore := func() *echosession.MemoryStore {
		return echosession.NewMemoryStore(echosession.WithClock(func() time.Time { return now }))
	}

	t.Run("they stay a fraction of the live", func(t *testing.T) {
		s := newStore()
		const live = 1000
		for range 10 * live {
			now = now.Add(time.Millisecond)
			mustCreate(t, s, newRef("ada"), "r", live*time.Millisecond)
			if n, _ := s.Held(); n > live+live/2 {
				t.Fatalf("%d entries are held for %d live", n, live)
			}
		}
	})

	t.Run("no call removes many", func(t *testing.T) {
		s := newStore()
		const n = 1000
		for i := range n {
			ref, to := newRef(fmt.Sprint(i)), newRef(fmt.Sprint(i))
			mustCreate(t, s, ref, "r", time.Second)
			mustRotate(t, s, ref, to, time.Second)
		}
		now = now.Add(2 * time.Hour)
		for held, _ := s.Held(); held > 0; {
			if _, err := s.Load(t.Context(), newRef(""), 0); !errors.Is(err, echosession.ErrNotFound) {
				t.Fatalf("Load: error %v, want ErrNotFound", err)
			}
			left, _ := s.Held()
			if left >= held || left < held-10 {
				t.Fatalf("a call left %d of %d expired entries, want a few fewer", left, held)
			}
			held = left
		}
		if _, subjects := s.Held(); subjects != 0 {
			t.Errorf("%d subjects are left without a session", subjects)
		}
	})
}

func BenchmarkMemoryStore(b *testing.B) {
	const live = 100_000
	record := make([]byte, 512)
	s := echosession.NewMemoryStore()
	refs := make([]echosession.Ref, live)
	for i := range refs {
		refs[i] = newRef(fmt.Sprint("subject ", i/5))
		mustCreate(b, s, refs[i], string(record), time.Hour)
	}
	ctx := context.Background()
	next := 0
	ref := func() echosession.Ref {
		next++
		return refs[next%live]
	}
	for _, bench := range []struct {
		name string
		call func() error
	}{
		{"Load", func() error { _, err := s.Load(ctx, ref(), 0); return err }},
		{"LoadAndTouch", func() error { _, err := s.Load(ctx, ref(), time.Hour); return err }},
		{"Replace", func() error { return s.Replace(ctx, ref(), record[:16], record, time.Hour) }},
		{"CreateAndTrim", func() error {
			return errOf(s.Create(ctx, newRef(ref().Subject), record, time.Hour, echosession.Limit{Sessions: 5}))
		}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := bench.call(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
