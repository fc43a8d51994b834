package storetest_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/echosession/echosession"
)

// A write is a call of Create or Renew.
type write struct {
	renew    bool
	from, to echosession.Ref
	limit    echosession.Limit
}

// told makes Create and Renew return what change makes of the IDs.
func told(change func(f *faulty, w write, evicted []string, err error) []string) func(*faulty) {
	return func(f *faulty) {
		f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
			evicted, err := f.sound.Create(ctx, ref, record, ttl, limit)
			return change(f, write{to: ref, limit: limit}, evicted, err), err
		}
		f.renew = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
			evicted, err := f.sound.Renew(ctx, from, to, old, record, ttl, limit)
			return change(f, write{true, from, to, limit}, evicted, err), err
		}
	}
}

// toldBy is told for Create alone, or for Renew alone.
func toldBy(renew bool, change func(w write, evicted []string) []string) func(*faulty) {
	return told(func(_ *faulty, w write, evicted []string, _ error) []string {
		if w.renew != renew {
			return evicted
		}
		return change(w, evicted)
	})
}

// toldRefused is told for the calls that a case refuses with an error.
func toldRefused(refusal error) func(*faulty) {
	return told(func(_ *faulty, w write, evicted []string, err error) []string {
		if errors.Is(err, refusal) {
			return []string{w.to.ID}
		}
		return evicted
	})
}

var evictionFaults = []fault{
	{
		fault:   "create tells of none",
		breaks:  "create tells what gave way",
		install: toldBy(false, func(write, []string) []string { return nil }),
	},
	{
		fault:   "create makes an empty list of none",
		breaks:  "create tells what gave way",
		install: toldBy(false, func(_ write, evicted []string) []string { return append([]string{}, evicted...) }),
	},
	{
		fault:  "create tells of its own session too",
		breaks: "create tells what gave way",
		install: toldBy(false, func(w write, evicted []string) []string {
			if evicted != nil {
				evicted = append(evicted, w.to.ID)
			}
			return evicted
		}),
	},
	{
		fault:  "create tells twice",
		breaks: "create tells what gave way",
		install: toldBy(false, func(_ write, evicted []string) []string {
			return slices.Concat(evicted, evicted)
		}),
	},
	{
		fault:  "create tells of the newest",
		breaks: "create tells what gave way",
		install: func(f *faulty) {
			var newest string
			toldBy(false, func(w write, evicted []string) []string {
				if len(evicted) == 1 {
					evicted[0] = newest
				}
				newest = w.to.ID
				return evicted
			})(f)
		},
	},
	{
		fault:  "create tells the ID from before a rotation",
		breaks: "create tells what gave way",
		install: func(f *faulty) {
			first := make(map[string]string)
			toldBy(false, func(_ write, evicted []string) []string {
				for i, id := range evicted {
					if before, ok := first[id]; ok {
						evicted[i] = before
					}
				}
				return evicted
			})(f)
			f.rotate = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl, grace time.Duration) error {
				first[to.ID] = from.ID
				return f.sound.Rotate(ctx, from, to, old, record, ttl, grace)
			}
		},
	},
	{
		fault:  "create tells of one",
		breaks: "create tells of many that gave way",
		install: toldBy(false, func(_ write, evicted []string) []string {
			return evicted[:min(1, len(evicted)):min(1, len(evicted))]
		}),
	},
	{
		fault:  "create tells of a hundred at most",
		breaks: "create tells of many that gave way",
		install: toldBy(false, func(_ write, evicted []string) []string {
			return evicted[:min(100, len(evicted))]
		}),
	},
	{
		fault:  "create tells of what had expired",
		breaks: "what has expired is not told to give way",
		install: func(f *faulty) {
			known := make(map[string]bool) // whether its end was told
			told(func(f *faulty, w write, evicted []string, _ error) []string {
				f.remember(w.to)
				if w.renew {
					return evicted
				}
				var gone []string
				for _, ref := range f.known(w.to.Subject) {
					if _, err := f.sound.Check(context.Background(), ref); err != nil && !known[ref.ID] {
						known[ref.ID] = true
						gone = append(gone, ref.ID)
					}
				}
				return gone
			})(f)
		},
	},
	{
		fault:  "renew tells of what had expired, where something gives way",
		breaks: "what has expired is not told to give way",
		install: told(func(f *faulty, w write, evicted []string, _ error) []string {
			f.remember(w.to)
			if !w.renew || len(evicted) == 0 {
				return evicted
			}
			for _, ref := range f.known(w.to.Subject) {
				if _, err := f.sound.Check(context.Background(), ref); err != nil && !slices.Contains(evicted, ref.ID) {
					return append(evicted, ref.ID)
				}
			}
			return evicted
		}),
	},
	{
		fault:   "renew tells of none",
		breaks:  "renew tells what gave way",
		install: toldBy(true, func(write, []string) []string { return nil }),
	},
	{
		fault:  "renew tells of one",
		breaks: "renew tells what gave way",
		install: toldBy(true, func(_ write, evicted []string) []string {
			return evicted[:min(1, len(evicted)):min(1, len(evicted))]
		}),
	},
	{
		fault:  "renew tells of what it moves into another subject",
		breaks: "renew tells what gave way",
		install: toldBy(true, func(w write, evicted []string) []string {
			if w.from.Subject != w.to.Subject {
				evicted = append(evicted, w.from.ID)
			}
			return evicted
		}),
	},
	{
		fault:  "renew tells of what it moves within a subject",
		breaks: "renew tells what gave way",
		install: toldBy(true, func(w write, evicted []string) []string {
			if w.from.Subject == w.to.Subject && w.to.Subject != "" {
				evicted = append(evicted, w.from.ID)
			}
			return evicted
		}),
	},
	{
		fault:  "renew tells of the newest",
		breaks: "renew tells what gave way",
		install: func(f *faulty) {
			newest := make(map[string]string) // by subject
			toldBy(true, func(w write, evicted []string) []string {
				if len(evicted) == 1 {
					evicted[0] = newest[w.to.Subject]
				}
				newest[w.to.Subject] = w.to.ID
				return evicted
			})(f)
		},
	},
	{
		fault:   "a create that conflicts tells of its ref",
		breaks:  "nothing is told to give way that stays",
		install: toldRefused(echosession.ErrConflict),
	},
	{
		fault:   "a refused create tells what would have given way",
		breaks:  "nothing is told to give way that stays",
		install: toldRefused(echosession.ErrTooManySessions),
	},
	{
		fault:   "a renewal of none tells of its ref",
		breaks:  "nothing is told to give way that stays",
		install: toldRefused(echosession.ErrNotFound),
	},
	{
		fault:  "sessions without a subject are told to give way",
		breaks: "nothing is told to give way that stays",
		install: toldBy(false, func(w write, evicted []string) []string {
			if w.to.Subject == "" && w.limit.Sessions > 0 {
				evicted = append(evicted, uuid.NewString())
			}
			return evicted
		}),
	},
	{
		fault:  "without a limit create tells of others",
		breaks: "nothing is told to give way that stays",
		install: toldBy(false, func(w write, evicted []string) []string {
			if w.limit.Sessions == 0 && w.to.Subject != "" {
				evicted = append(evicted, uuid.NewString())
			}
			return evicted
		}),
	},
	{
		fault:  "each is told of all that gave way so far",
		breaks: "each that gave way is told once",
		install: func(f *faulty) {
			var mu sync.Mutex
			all := make(map[string][]string) // by subject
			told(func(_ *faulty, w write, evicted []string, _ error) []string {
				mu.Lock()
				defer mu.Unlock()
				all[w.to.Subject] = append(all[w.to.Subject], evicted...)
				return slices.Clone(all[w.to.Subject])
			})(f)
		},
	},
	{
		fault:  "those that write at once are told of what they find",
		breaks: "each that gave way is told once",
		install: func(f *faulty) {
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				// It looks what gives way before it stores the new session.
				oldest := f.known(ref.Subject)
				f.remember(ref)
				window()
				if _, err := f.sound.Create(ctx, ref, record, ttl, limit); err != nil {
					return nil, err
				}
				var evicted []string
				for _, ref := range oldest {
					if _, err := f.sound.Check(ctx, ref); err != nil {
						evicted = append(evicted, ref.ID)
					}
				}
				return evicted, nil
			}
		},
	},
}
