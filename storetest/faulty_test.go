package storetest_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/echosession/echosession"
)

// faulty is a memory store with methods that can be put out of order.
type faulty struct {
	sound *echosession.MemoryStore
	now   func() time.Time

	load          func(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error)
	create        func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error)
	replace       func(ctx context.Context, ref echosession.Ref, old, record []byte, ttl time.Duration) error
	touch         func(ctx context.Context, ref echosession.Ref, ttl time.Duration) error
	delete        func(ctx context.Context, ref echosession.Ref) error
	rotate        func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl, grace time.Duration) error
	list          func(ctx context.Context, subject string) ([]echosession.Entry, error)
	deleteSubject func(ctx context.Context, subject string, except []string) (int, error)
	scan          func(ctx context.Context) iter.Seq2[echosession.Entry, error]
	check         func(ctx context.Context, ref echosession.Ref) (time.Duration, error)
	renew         func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error)
	count         func(ctx context.Context, subject string) (int, error)
	watch         func(ctx context.Context, tell func(echosession.Hint)) error
	putTicket     func(ctx context.Context, key string, value []byte, ttl time.Duration) error
	takeTicket    func(ctx context.Context, key string) ([]byte, error)

	// What some faults remember.
	mu   sync.Mutex
	refs []echosession.Ref
}

// newFaulty returns a store with a fault installed, and what turns its clock.
func newFaulty(install func(*faulty)) (echosession.Store, func(time.Duration)) {
	var mu sync.Mutex
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	clock := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	sound := echosession.NewMemoryStore(echosession.WithClock(clock))
	f := &faulty{
		now:           clock,
		sound:         sound,
		load:          sound.Load,
		create:        sound.Create,
		replace:       sound.Replace,
		touch:         sound.Touch,
		delete:        sound.Delete,
		rotate:        sound.Rotate,
		list:          sound.List,
		deleteSubject: sound.DeleteSubject,
		scan:          sound.Scan,
		check:         sound.Check,
		renew:         sound.Renew,
		count:         sound.Count,
		watch:         sound.Watch,
		putTicket:     sound.PutTicket,
		takeTicket:    sound.TakeTicket,
	}
	install(f)
	return f, func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(d)
	}
}

func (f *faulty) Load(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
	return f.load(ctx, ref, ttl)
}

func (f *faulty) Create(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
	return f.create(ctx, ref, record, ttl, limit)
}

func (f *faulty) Replace(ctx context.Context, ref echosession.Ref, old, record []byte, ttl time.Duration) error {
	return f.replace(ctx, ref, old, record, ttl)
}

func (f *faulty) Touch(ctx context.Context, ref echosession.Ref, ttl time.Duration) error {
	return f.touch(ctx, ref, ttl)
}

func (f *faulty) Delete(ctx context.Context, ref echosession.Ref) error {
	return f.delete(ctx, ref)
}

func (f *faulty) Rotate(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl, grace time.Duration) error {
	return f.rotate(ctx, from, to, old, record, ttl, grace)
}

func (f *faulty) List(ctx context.Context, subject string) ([]echosession.Entry, error) {
	return f.list(ctx, subject)
}

func (f *faulty) DeleteSubject(ctx context.Context, subject string, except []string) (int, error) {
	return f.deleteSubject(ctx, subject, except)
}

func (f *faulty) Scan(ctx context.Context) iter.Seq2[echosession.Entry, error] {
	return f.scan(ctx)
}

func (f *faulty) Check(ctx context.Context, ref echosession.Ref) (time.Duration, error) {
	return f.check(ctx, ref)
}

func (f *faulty) Renew(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
	return f.renew(ctx, from, to, old, record, ttl, limit)
}

func (f *faulty) Count(ctx context.Context, subject string) (int, error) {
	return f.count(ctx, subject)
}

func (f *faulty) Watch(ctx context.Context, tell func(echosession.Hint)) error {
	return f.watch(ctx, tell)
}

// remember notes refs, and known returns those of one subject.
func (f *faulty) remember(refs ...echosession.Ref) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refs = append(f.refs, refs...)
}

func (f *faulty) known(subject string) []echosession.Ref {
	f.mu.Lock()
	defer f.mu.Unlock()
	var refs []echosession.Ref
	for _, ref := range f.refs {
		if ref.Subject == subject {
			refs = append(refs, ref)
		}
	}
	return refs
}

// trim deletes the oldest known refs of a subject, whatever became of them, and returns
// their IDs.
func (f *faulty) trim(ctx context.Context, subject string, limit echosession.Limit) (evicted []string, err error) {
	refs := f.known(subject)
	for _, ref := range refs[:max(0, len(refs)-limit.Sessions)] {
		if err := f.sound.Delete(ctx, ref); err != nil {
			return nil, err
		}
		evicted = append(evicted, ref.ID)
	}
	return evicted, nil
}

// mapSubjects makes f use another subject for each.
func (f *faulty) mapSubjects(to func(string) string) {
	ref := func(ref echosession.Ref) echosession.Ref {
		ref.Subject = to(ref.Subject)
		return ref
	}
	f.load = func(ctx context.Context, r echosession.Ref, ttl time.Duration) ([]byte, error) {
		return f.sound.Load(ctx, ref(r), ttl)
	}
	f.create = func(ctx context.Context, r echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
		return f.sound.Create(ctx, ref(r), record, ttl, limit)
	}
	f.list = func(ctx context.Context, subject string) ([]echosession.Entry, error) {
		return f.sound.List(ctx, to(subject))
	}
	f.deleteSubject = func(ctx context.Context, subject string, except []string) (int, error) {
		return f.sound.DeleteSubject(ctx, to(subject), except)
	}
}

// window is the time in which a fault that takes two steps can be caught.
func window() { time.Sleep(200 * time.Microsecond) }

// waitFor waits for what a case does, but not forever.
func waitFor(done <-chan struct{}) {
	select {
	case <-done:
	case <-time.After(5 * time.Second):
	}
}

func isRotated(err error) bool {
	var rotated *echosession.RotatedError
	return errors.As(err, &rotated)
}

// toldUse installs a fault that tells every Watch of what is no end.
func toldUse(install func(f *faulty, tell func(echosession.Hint))) func(*faulty) {
	return func(f *faulty) {
		var mu sync.Mutex
		var tells []func(echosession.Hint)
		f.watch = func(ctx context.Context, tell func(echosession.Hint)) error {
			return f.sound.Watch(ctx, func(h echosession.Hint) {
				if h.All {
					mu.Lock()
					tells = append(tells, tell)
					mu.Unlock()
				}
				tell(h)
			})
		}
		install(f, func(h echosession.Hint) {
			mu.Lock()
			defer mu.Unlock()
			for _, tell := range tells {
				tell(h)
			}
		})
	}
}

// hints makes Watch pass on what change makes of each Hint but the first. It returns
// nothing for a Hint that is not told.
func hints(change func(f *faulty, h echosession.Hint) []echosession.Hint) func(*faulty) {
	return func(f *faulty) {
		f.watch = func(ctx context.Context, tell func(echosession.Hint)) error {
			return f.sound.Watch(ctx, func(h echosession.Hint) {
				told := []echosession.Hint{h}
				if !h.All {
					told = change(f, h)
				}
				for _, h := range told {
					tell(h)
				}
			})
		}
	}
}

// dropWhile makes Watch tell nothing while a method is called that without wraps.
func dropWhile(without func(f *faulty, quiet func(func()))) func(*faulty) {
	return func(f *faulty) {
		var quiet atomic.Bool
		hints(func(_ *faulty, h echosession.Hint) []echosession.Hint {
			if quiet.Load() {
				return nil
			}
			return []echosession.Hint{h}
		})(f)
		without(f, func(call func()) {
			quiet.Store(true)
			defer quiet.Store(false)
			call()
		})
	}
}

// leftIs makes Load and Check say something else of a grace.
func leftIs(f *faulty, load, check func(left time.Duration) time.Duration) {
	change := func(err error, to func(time.Duration) time.Duration) error {
		if rotated := (*echosession.RotatedError)(nil); errors.As(err, &rotated) {
			return &echosession.RotatedError{To: rotated.To, Left: to(rotated.Left)}
		}
		return err
	}
	f.load = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
		record, err := f.sound.Load(ctx, ref, ttl)
		return record, change(err, load)
	}
	f.check = func(ctx context.Context, ref echosession.Ref) (time.Duration, error) {
		left, err := f.sound.Check(ctx, ref)
		return left, change(err, check)
	}
}

// renewedRefs notes what is renewed, and under which ref.
func renewedRefs(f *faulty) map[echosession.Ref]echosession.Ref {
	renewed := make(map[echosession.Ref]echosession.Ref)
	f.renew = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
		evicted, err := f.sound.Renew(ctx, from, to, old, record, ttl, limit)
		if err == nil {
			renewed[from] = to
		}
		return evicted, err
	}
	return renewed
}

// renewInSteps makes Renew look first and store then.
func renewInSteps(f *faulty) {
	f.renew = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
		current, err := f.sound.Load(ctx, from, 0)
		if err != nil {
			return nil, err
		}
		if !bytes.HasPrefix(current, old) {
			return nil, echosession.ErrConflict
		}
		time.Sleep(2 * time.Millisecond)
		evicted, err := f.sound.Renew(ctx, from, to, old, record, ttl, limit)
		if err != nil {
			return f.sound.Create(ctx, to, record, ttl, limit)
		}
		return evicted, nil
	}
}

// cacheLoads makes Load answer from a cache. Create, Replace, Rotate and Delete remove
// from it the refs that they are called with and, Delete, their successors.
func cacheLoads(f *faulty) map[echosession.Ref][]byte {
	cache := make(map[echosession.Ref][]byte)
	f.load = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
		if record, ok := cache[ref]; ok && ttl == 0 {
			return bytes.Clone(record), nil
		}
		record, err := f.sound.Load(ctx, ref, ttl)
		if err == nil {
			cache[ref] = bytes.Clone(record)
		}
		return record, err
	}
	f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
		delete(cache, ref)
		return f.sound.Create(ctx, ref, record, ttl, limit)
	}
	f.replace = func(ctx context.Context, ref echosession.Ref, old, record []byte, ttl time.Duration) error {
		delete(cache, ref)
		return f.sound.Replace(ctx, ref, old, record, ttl)
	}
	f.rotate = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl, grace time.Duration) error {
		delete(cache, from)
		return f.sound.Rotate(ctx, from, to, old, record, ttl, grace)
	}
	f.delete = func(ctx context.Context, ref echosession.Ref) error {
		for next := ref; ; {
			delete(cache, next)
			_, err := f.sound.Load(ctx, next, 0)
			var rotated *echosession.RotatedError
			if !errors.As(err, &rotated) {
				return f.sound.Delete(ctx, ref)
			}
			next.ID = rotated.To
		}
	}
	return cache
}

// trimKnown makes a limit count all refs that were ever created or rotated to.
func trimKnown(f *faulty) {
	f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
		evicted, err := f.sound.Create(ctx, ref, record, ttl, echosession.Limit{})
		f.remember(ref)
		if err == nil && limit.Sessions > 0 {
			return f.trim(ctx, ref.Subject, limit)
		}
		return evicted, err
	}
	f.rotate = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl, grace time.Duration) error {
		f.remember(to)
		return f.sound.Rotate(ctx, from, to, old, record, ttl, grace)
	}
}

// rotateInSteps makes Rotate look first and store then.
func rotateInSteps(f *faulty) {
	f.rotate = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl, grace time.Duration) error {
		current, err := f.sound.Load(ctx, from, 0)
		if isRotated(err) {
			return echosession.ErrConflict
		}
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(current, old) {
			return echosession.ErrConflict
		}
		window()
		if err := f.sound.Rotate(ctx, from, to, old, record, ttl, grace); err != nil {
			_, err = f.sound.Create(ctx, to, record, ttl, echosession.Limit{})
			return err
		}
		return nil
	}
}
