package storetest_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/storetest"
)

func TestRunWithClock(t *testing.T) {
	t.Parallel()
	storetest.RunWithClock(t, func(*testing.T) (echosession.Store, func(time.Duration)) {
		return newFaulty(func(*faulty) {})
	})
}

// TestEveryCaseFails hands each case a store that breaks its rule.
func TestEveryCaseFails(t *testing.T) {
	t.Parallel()
	tried := make(map[string]bool)
	for _, f := range slices.Concat(faults, evictionFaults, ticketFaults) {
		tried[f.breaks] = true
		t.Run(f.fault, func(t *testing.T) {
			complaints := storetest.Complaints(t, f.breaks, func() (echosession.Store, func(time.Duration)) {
				return newFaulty(f.install)
			})
			if len(complaints) == 0 {
				t.Errorf("the case %q does not notice", f.breaks)
			} else {
				t.Logf("%q: %s", f.breaks, complaints[0])
			}
		})
	}
	for _, name := range storetest.CaseNames() {
		if !tried[name] {
			t.Errorf("no store breaks the rule of %q", name)
		}
	}
}

// A fault is a way to break a rule.
type fault struct {
	fault   string
	breaks  string // the case that must notice
	install func(*faulty)
}

var faults = []fault{
	{
		fault:  "records end at a NUL",
		breaks: "load returns what was created",
		install: func(f *faulty) {
			f.load = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
				record, err := f.sound.Load(ctx, ref, ttl)
				record, _, _ = bytes.Cut(record, []byte{0})
				return record, err
			}
		},
	},
	{
		fault:  "records are cut at 32 KiB",
		breaks: "load returns what was created",
		install: func(f *faulty) {
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				return f.sound.Create(ctx, ref, record[:min(len(record), 32<<10)], ttl, limit)
			}
		},
	},
	{
		fault:  "touch of none succeeds",
		breaks: "what is absent is not found",
		install: func(f *faulty) {
			f.touch = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) error {
				err := f.sound.Touch(ctx, ref, ttl)
				if errors.Is(err, echosession.ErrNotFound) {
					return nil
				}
				return err
			}
		},
	},
	{
		fault:  "rotate stores the successor of none",
		breaks: "what is absent is not found",
		install: func(f *faulty) {
			f.rotate = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl, grace time.Duration) error {
				err := f.sound.Rotate(ctx, from, to, old, record, ttl, grace)
				if errors.Is(err, echosession.ErrNotFound) {
					f.sound.Create(ctx, to, record, ttl, echosession.Limit{})
				}
				return err
			}
		},
	},
	{
		fault:  "create overwrites",
		breaks: "create leaves a taken ref",
		install: func(f *faulty) {
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				evicted, err := f.sound.Create(ctx, ref, record, ttl, limit)
				if errors.Is(err, echosession.ErrConflict) {
					f.sound.Delete(ctx, ref)
					f.sound.Create(ctx, ref, record, ttl, limit)
				}
				return evicted, err
			}
		},
	},
	{
		fault:  "create restarts the lifetime of another record",
		breaks: "create leaves a taken ref",
		install: func(f *faulty) {
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				evicted, err := f.sound.Create(ctx, ref, record, ttl, limit)
				if errors.Is(err, echosession.ErrConflict) {
					f.sound.Touch(ctx, ref, ttl)
				}
				return evicted, err
			}
		},
	},
	{
		fault:  "create cannot be repeated",
		breaks: "create may be repeated",
		install: func(f *faulty) {
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				if _, err := f.sound.Load(ctx, ref, 0); err == nil {
					return nil, echosession.ErrConflict
				}
				return f.sound.Create(ctx, ref, record, ttl, limit)
			}
		},
	},
	{
		fault:  "create that is repeated gives way to newer sessions",
		breaks: "create may be repeated",
		install: func(f *faulty) {
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				evicted, err := f.sound.Create(ctx, ref, record, ttl, limit)
				if list, _ := f.sound.List(ctx, ref.Subject); limit.Sessions == 1 && len(list) > 1 {
					return nil, f.sound.Delete(ctx, ref)
				}
				return evicted, err
			}
		},
	},
	{
		fault:  "a cache does not hear of revocations",
		breaks: "a store reads what it wrote",
		install: func(f *faulty) {
			cache := cacheLoads(f)
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				clear(cache)
				return f.sound.Create(ctx, ref, record, ttl, limit)
			}
		},
	},
	{
		fault:  "a cache does not hear of sessions that give way",
		breaks: "a store reads what it wrote",
		install: func(f *faulty) {
			cache := cacheLoads(f)
			f.deleteSubject = func(ctx context.Context, subject string, except []string) (int, error) {
				clear(cache)
				return f.sound.DeleteSubject(ctx, subject, except)
			}
		},
	},
	{
		fault:  "replace does not compare",
		breaks: "replace compares",
		install: func(f *faulty) {
			f.replace = func(ctx context.Context, ref echosession.Ref, old, record []byte, ttl time.Duration) error {
				current, err := f.sound.Load(ctx, ref, 0)
				if err != nil {
					return err
				}
				return f.sound.Replace(ctx, ref, current, record, ttl)
			}
		},
	},
	{
		fault:  "replace accepts an empty old",
		breaks: "replace compares",
		install: func(f *faulty) {
			f.replace = func(ctx context.Context, ref echosession.Ref, old, record []byte, ttl time.Duration) error {
				if len(old) == 0 {
					old, _ = f.sound.Load(ctx, ref, 0)
				}
				return f.sound.Replace(ctx, ref, old, record, ttl)
			}
		},
	},
	{
		fault:  "replace compares the whole record",
		breaks: "replace compares",
		install: func(f *faulty) {
			f.replace = func(ctx context.Context, ref echosession.Ref, old, record []byte, ttl time.Duration) error {
				current, err := f.sound.Load(ctx, ref, 0)
				if err == nil && len(current) > len(old) {
					return echosession.ErrConflict
				}
				return f.sound.Replace(ctx, ref, old, record, ttl)
			}
		},
	},
	{
		fault:  "replace compares up to the shorter",
		breaks: "replace compares",
		install: func(f *faulty) {
			f.replace = func(ctx context.Context, ref echosession.Ref, old, record []byte, ttl time.Duration) error {
				current, err := f.sound.Load(ctx, ref, 0)
				if err == nil {
					old = old[:min(len(old), len(current))]
				}
				return f.sound.Replace(ctx, ref, old, record, ttl)
			}
		},
	},
	{
		fault:  "replace restarts the lifetime on a conflict",
		breaks: "replace compares",
		install: func(f *faulty) {
			f.replace = func(ctx context.Context, ref echosession.Ref, old, record []byte, ttl time.Duration) error {
				err := f.sound.Replace(ctx, ref, old, record, ttl)
				if errors.Is(err, echosession.ErrConflict) {
					f.sound.Touch(ctx, ref, ttl)
				}
				return err
			}
		},
	},
	{
		fault:  "replace re-creates",
		breaks: "delete removes",
		install: func(f *faulty) {
			f.replace = func(ctx context.Context, ref echosession.Ref, old, record []byte, ttl time.Duration) error {
				err := f.sound.Replace(ctx, ref, old, record, ttl)
				if errors.Is(err, echosession.ErrNotFound) {
					_, err = f.sound.Create(ctx, ref, record, ttl, echosession.Limit{})
				}
				return err
			}
		},
	},
	{
		fault:  "replace re-creates and does not say so",
		breaks: "what is absent is not found",
		install: func(f *faulty) {
			f.replace = func(ctx context.Context, ref echosession.Ref, old, record []byte, ttl time.Duration) error {
				err := f.sound.Replace(ctx, ref, old, record, ttl)
				if errors.Is(err, echosession.ErrNotFound) {
					f.sound.Create(ctx, ref, record, ttl, echosession.Limit{})
				}
				return err
			}
		},
	},
	{
		fault:  "delete of none is an error",
		breaks: "delete removes",
		install: func(f *faulty) {
			f.delete = func(ctx context.Context, ref echosession.Ref) error {
				if _, err := f.sound.Load(ctx, ref, 0); errors.Is(err, echosession.ErrNotFound) {
					return err
				}
				return f.sound.Delete(ctx, ref)
			}
		},
	},
	{
		fault:  "create keeps the slice",
		breaks: "slices are not shared",
		install: func(f *faulty) {
			kept := make(map[echosession.Ref][]byte)
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				kept[ref] = record
				return f.sound.Create(ctx, ref, record, ttl, limit)
			}
			f.load = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
				record, err := f.sound.Load(ctx, ref, ttl)
				if rec, ok := kept[ref]; ok && err == nil {
					record = rec
				}
				return record, err
			}
		},
	},
	{
		fault:  "load hands out its own slice",
		breaks: "slices are not shared",
		install: func(f *faulty) {
			handed := make(map[echosession.Ref][]byte)
			f.load = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
				record, err := f.sound.Load(ctx, ref, ttl)
				if err != nil {
					return nil, err
				}
				if handed[ref] == nil {
					handed[ref] = record
				}
				return handed[ref], nil
			}
		},
	},
	{
		fault:  "replace writes to old",
		breaks: "slices are not shared",
		install: func(f *faulty) {
			f.replace = func(ctx context.Context, ref echosession.Ref, old, record []byte, ttl time.Duration) error {
				defer clear(old)
				return f.sound.Replace(ctx, ref, old, record, ttl)
			}
		},
	},
	{
		fault:  "load does not look at its context",
		breaks: "a cancelled context is honoured",
		install: func(f *faulty) {
			f.load = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
				return f.sound.Load(context.WithoutCancel(ctx), ref, ttl)
			}
		},
	},
	{
		fault:  "delete applies in spite of its context",
		breaks: "a cancelled context is honoured",
		install: func(f *faulty) {
			f.delete = func(ctx context.Context, ref echosession.Ref) error {
				f.sound.Delete(context.WithoutCancel(ctx), ref)
				return f.sound.Delete(ctx, ref)
			}
		},
	},
	{
		fault:  "an outage is taken for none",
		breaks: "a cancelled context is honoured",
		install: func(f *faulty) {
			f.load = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
				record, err := f.sound.Load(ctx, ref, ttl)
				if errors.Is(err, echosession.ErrStoreUnavailable) {
					err = fmt.Errorf("%w: %w", echosession.ErrNotFound, err)
				}
				return record, err
			}
		},
	},
	{
		fault:  "records have no lifetime",
		breaks: "a lifetime ends",
		install: func(f *faulty) {
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				return f.sound.Create(ctx, ref, record, 1e6*time.Hour, limit)
			}
		},
	},
	{
		fault:  "every load restarts the lifetime",
		breaks: "a lifetime ends",
		install: func(f *faulty) {
			f.load = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
				if ttl == 0 {
					ttl = time.Hour
				}
				return f.sound.Load(ctx, ref, ttl)
			}
		},
	},
	{
		fault:  "a lifetime is rounded up to the second",
		breaks: "a lifetime ends",
		install: func(f *faulty) {
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				return f.sound.Create(ctx, ref, record, (ttl + time.Second - 1).Truncate(time.Second), limit)
			}
		},
	},
	{
		fault:  "load never restarts the lifetime",
		breaks: "use restarts a lifetime",
		install: func(f *faulty) {
			f.load = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
				return f.sound.Load(ctx, ref, 0)
			}
		},
	},
	{
		fault:  "touch never shortens the lifetime",
		breaks: "use restarts a lifetime",
		install: func(f *faulty) {
			f.touch = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) error {
				return f.sound.Touch(ctx, ref, max(ttl, time.Hour))
			}
		},
	},
	{
		fault:  "replace keeps the lifetime",
		breaks: "use restarts a lifetime",
		install: func(f *faulty) {
			f.replace = func(ctx context.Context, ref echosession.Ref, old, record []byte, ttl time.Duration) error {
				return f.sound.Replace(ctx, ref, old, record, time.Hour)
			}
		},
	},
	{
		fault:  "rotate keeps the lifetime",
		breaks: "use restarts a lifetime",
		install: func(f *faulty) {
			f.rotate = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl, grace time.Duration) error {
				return f.sound.Rotate(ctx, from, to, old, record, time.Hour, grace)
			}
		},
	},
	{
		fault:  "create rounds up to a millisecond",
		breaks: "too short a lifetime is refused",
		install: func(f *faulty) {
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				return f.sound.Create(ctx, ref, record, max(ttl, time.Millisecond), limit)
			}
		},
	},
	{
		fault:  "load takes a negative lifetime for none",
		breaks: "too short a lifetime is refused",
		install: func(f *faulty) {
			f.load = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
				return f.sound.Load(ctx, ref, max(ttl, 0))
			}
		},
	},
	{
		fault:  "touch with no lifetime deletes",
		breaks: "too short a lifetime is refused",
		install: func(f *faulty) {
			f.touch = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) error {
				if ttl <= 0 {
					f.sound.Delete(ctx, ref)
				}
				return f.sound.Touch(ctx, ref, ttl)
			}
		},
	},
	{
		fault:  "rotate takes a negative grace for none",
		breaks: "too short a lifetime is refused",
		install: func(f *faulty) {
			f.rotate = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl, grace time.Duration) error {
				return f.sound.Rotate(ctx, from, to, old, record, ttl, max(grace, 0))
			}
		},
	},
	{
		fault:  "a millisecond is refused",
		breaks: "the shortest lifetime is kept",
		install: func(f *faulty) {
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				return f.sound.Create(ctx, ref, record, ttl-1, limit)
			}
		},
	},
	{
		fault:  "a lifetime must be whole milliseconds",
		breaks: "the shortest lifetime is kept",
		install: func(f *faulty) {
			f.touch = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) error {
				if ttl%time.Millisecond != 0 {
					return errors.New("value is not an integer")
				}
				return f.sound.Touch(ctx, ref, ttl)
			}
		},
	},
	{
		fault:  "a lifetime has 32 bits",
		breaks: "a long lifetime is kept",
		install: func(f *faulty) {
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				return f.sound.Create(ctx, ref, record, time.Duration(uint32(ttl.Milliseconds()))*time.Millisecond, limit)
			}
		},
	},
	{
		fault:  "load goes on to the successor",
		breaks: "a rotated ref leads to its successor",
		install: func(f *faulty) {
			f.load = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
				record, err := f.sound.Load(ctx, ref, ttl)
				var rotated *echosession.RotatedError
				if errors.As(err, &rotated) {
					ref.ID = rotated.To
					return f.sound.Load(ctx, ref, ttl)
				}
				return record, err
			}
		},
	},
	{
		fault:  "a load with a lifetime prolongs the grace",
		breaks: "the grace of a rotation ends",
		install: func(f *faulty) {
			prolonged := make(map[echosession.Ref]error)
			f.load = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
				record, err := f.sound.Load(ctx, ref, ttl)
				if isRotated(err) && ttl > 0 {
					prolonged[ref] = err
				}
				if prolonged[ref] != nil {
					return nil, prolonged[ref]
				}
				return record, err
			}
		},
	},
	{
		fault:  "touch prolongs the grace",
		breaks: "the grace of a rotation ends",
		install: func(f *faulty) {
			prolonged := make(map[echosession.Ref]error)
			f.touch = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) error {
				if _, err := f.sound.Load(ctx, ref, 0); isRotated(err) {
					prolonged[ref] = err
				}
				return f.sound.Touch(ctx, ref, ttl)
			}
			f.load = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
				if prolonged[ref] != nil {
					return nil, prolonged[ref]
				}
				return f.sound.Load(ctx, ref, ttl)
			}
		},
	},
	{
		fault:  "the successor ends with the grace",
		breaks: "the grace of a rotation ends",
		install: func(f *faulty) {
			f.rotate = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl, grace time.Duration) error {
				return f.sound.Rotate(ctx, from, to, old, record, cmp.Or(grace, ttl), grace)
			}
		},
	},
	{
		fault:  "there is always a grace",
		breaks: "a grace of zero is none",
		install: func(f *faulty) {
			f.rotate = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl, grace time.Duration) error {
				return f.sound.Rotate(ctx, from, to, old, record, ttl, cmp.Or(grace, time.Second))
			}
		},
	},
	{
		fault:  "rotate leaves the successor on a conflict",
		breaks: "rotate compares",
		install: func(f *faulty) {
			f.rotate = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl, grace time.Duration) error {
				err := f.sound.Rotate(ctx, from, to, old, record, ttl, grace)
				if errors.Is(err, echosession.ErrConflict) {
					f.sound.Create(ctx, to, record, ttl, echosession.Limit{})
				}
				return err
			}
		},
	},
	{
		fault:  "rotate does not compare",
		breaks: "rotate compares",
		install: func(f *faulty) {
			f.rotate = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl, grace time.Duration) error {
				current, err := f.sound.Load(ctx, from, 0)
				if err != nil {
					return err
				}
				return f.sound.Rotate(ctx, from, to, current, record, ttl, grace)
			}
		},
	},
	{
		fault:  "replace goes on to the successor",
		breaks: "a rotated ref takes no writes",
		install: func(f *faulty) {
			f.replace = func(ctx context.Context, ref echosession.Ref, old, record []byte, ttl time.Duration) error {
				_, err := f.sound.Load(ctx, ref, 0)
				var rotated *echosession.RotatedError
				if errors.As(err, &rotated) {
					ref.ID = rotated.To
				}
				return f.sound.Replace(ctx, ref, old, record, ttl)
			}
		},
	},
	{
		fault:  "touch goes on to the successor",
		breaks: "a rotated ref takes no writes",
		install: func(f *faulty) {
			f.touch = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) error {
				_, err := f.sound.Load(ctx, ref, 0)
				var rotated *echosession.RotatedError
				if errors.As(err, &rotated) {
					f.sound.Touch(ctx, echosession.Ref{ID: rotated.To, Subject: ref.Subject}, ttl)
				}
				return f.sound.Touch(ctx, ref, ttl)
			}
		},
	},
	{
		fault:  "only the last ref leads to its successor",
		breaks: "rotations form a chain",
		install: func(f *faulty) {
			last := make(map[string]echosession.Ref)
			f.rotate = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl, grace time.Duration) error {
				last[from.Subject] = from
				return f.sound.Rotate(ctx, from, to, old, record, ttl, grace)
			}
			f.load = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
				record, err := f.sound.Load(ctx, ref, ttl)
				if isRotated(err) && last[ref.Subject] != ref {
					return nil, echosession.ErrNotFound
				}
				return record, err
			}
		},
	},
	{
		fault:  "delete leaves the successor",
		breaks: "delete follows rotations",
		install: func(f *faulty) {
			f.delete = func(ctx context.Context, ref echosession.Ref) error {
				if _, err := f.sound.Load(ctx, ref, 0); isRotated(err) {
					return nil
				}
				return f.sound.Delete(ctx, ref)
			}
		},
	},
	{
		fault:  "list is in the order of the records",
		breaks: "list is in the order of creation",
		install: func(f *faulty) {
			f.list = func(ctx context.Context, subject string) ([]echosession.Entry, error) {
				list, err := f.sound.List(ctx, subject)
				slices.SortFunc(list, func(a, b echosession.Entry) int { return bytes.Compare(a.Record, b.Record) })
				return list, err
			}
		},
	},
	{
		fault:  "list is in the order of the lifetimes",
		breaks: "list is in the order of creation",
		install: func(f *faulty) {
			f.list = func(ctx context.Context, subject string) ([]echosession.Entry, error) {
				list, err := f.sound.List(ctx, subject)
				slices.SortStableFunc(list, func(a, b echosession.Entry) int { return int(a.TTL - b.TTL) })
				return list, err
			}
		},
	},
	{
		fault:  "list returns the oldest",
		breaks: "list returns a bounded number",
		install: func(f *faulty) {
			var oldest []echosession.Entry
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				oldest = append(oldest, echosession.Entry{Record: bytes.Clone(record), TTL: ttl})
				return f.sound.Create(ctx, ref, record, ttl, limit)
			}
			f.list = func(context.Context, string) ([]echosession.Entry, error) {
				return oldest[:min(len(oldest), echosession.MaxListed)], nil
			}
		},
	},
	{
		fault:  "list returns all",
		breaks: "list returns a bounded number",
		install: func(f *faulty) {
			var all []echosession.Entry
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				all = append(all, echosession.Entry{Record: bytes.Clone(record), TTL: ttl})
				return f.sound.Create(ctx, ref, record, ttl, limit)
			}
			f.list = func(context.Context, string) ([]echosession.Entry, error) { return all, nil }
		},
	},
	{
		fault:  "an index lives as long as its first session was to live",
		breaks: "a session stays with its subject",
		install: func(f *faulty) {
			var ends time.Time
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				if ends.IsZero() {
					ends = f.now().Add(ttl)
				}
				return f.sound.Create(ctx, ref, record, ttl, limit)
			}
			f.list = func(ctx context.Context, subject string) ([]echosession.Entry, error) {
				if !f.now().Before(ends) {
					return nil, nil
				}
				return f.sound.List(ctx, subject)
			}
		},
	},
	{
		fault:  "an index lives as long as its last session",
		breaks: "a session stays with its subject",
		install: func(f *faulty) {
			var ends time.Time
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				ends = f.now().Add(ttl)
				return f.sound.Create(ctx, ref, record, ttl, limit)
			}
			f.load = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
				if ttl > 0 {
					ends = f.now().Add(ttl)
				}
				return f.sound.Load(ctx, ref, ttl)
			}
			f.deleteSubject = func(ctx context.Context, subject string, except []string) (int, error) {
				if !f.now().Before(ends) {
					return 0, nil
				}
				return f.sound.DeleteSubject(ctx, subject, except)
			}
		},
	},
	{
		fault:  "list tells no lifetimes",
		breaks: "list tells the lifetimes",
		install: func(f *faulty) {
			f.list = func(ctx context.Context, subject string) ([]echosession.Entry, error) {
				list, err := f.sound.List(ctx, subject)
				for i := range list {
					list[i].TTL = 0
				}
				return list, err
			}
		},
	},
	{
		fault:  "delete-subject counts the expired",
		breaks: "what has expired is not listed",
		install: func(f *faulty) {
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				f.remember(ref)
				return f.sound.Create(ctx, ref, record, ttl, limit)
			}
			f.deleteSubject = func(ctx context.Context, subject string, except []string) (int, error) {
				_, err := f.sound.DeleteSubject(ctx, subject, except)
				return len(f.known(subject)), err
			}
		},
	},
	{
		fault:   "a limit counts the expired",
		breaks:  "what has expired gives way first",
		install: trimKnown,
	},
	{
		fault:   "a limit counts refs",
		breaks:  "a limit counts a rotated session once",
		install: trimKnown,
	},
	{
		fault:  "a limit has no effect",
		breaks: "a limit makes the oldest give way",
		install: func(f *faulty) {
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				return f.sound.Create(ctx, ref, record, ttl, echosession.Limit{})
			}
		},
	},
	{
		fault:  "a limit does not count the new session",
		breaks: "a limit makes the oldest give way",
		install: func(f *faulty) {
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				if limit.Sessions > 0 {
					limit.Sessions++
				}
				return f.sound.Create(ctx, ref, record, ttl, limit)
			}
		},
	},
	{
		fault:  "create makes room before it fails",
		breaks: "a refused create deletes none",
		install: func(f *faulty) {
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				if limit.Sessions == 1 {
					f.sound.DeleteSubject(ctx, ref.Subject, []string{ref.ID})
				}
				return f.sound.Create(ctx, ref, record, ttl, limit)
			}
		},
	},
	{
		fault:  "delete-subject leaves one",
		breaks: "delete-subject removes all",
		install: func(f *faulty) {
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				f.remember(ref)
				return f.sound.Create(ctx, ref, record, ttl, limit)
			}
			f.deleteSubject = func(ctx context.Context, subject string, except []string) (int, error) {
				for _, ref := range f.known(subject)[:min(1, len(f.known(subject)))] {
					except = append(except, ref.ID)
				}
				return f.sound.DeleteSubject(ctx, subject, except)
			}
		},
	},
	{
		fault:  "delete-subject miscounts",
		breaks: "delete-subject removes all",
		install: func(f *faulty) {
			f.deleteSubject = func(ctx context.Context, subject string, except []string) (int, error) {
				_, err := f.sound.DeleteSubject(ctx, subject, except)
				return 0, err
			}
		},
	},
	{
		fault:  "an exception does not follow rotations",
		breaks: "delete-subject makes exceptions",
		install: func(f *faulty) {
			f.deleteSubject = func(ctx context.Context, subject string, except []string) (int, error) {
				var live []string
				for _, id := range except {
					if _, err := f.sound.Load(ctx, echosession.Ref{ID: id, Subject: subject}, 0); err == nil {
						live = append(live, id)
					}
				}
				return f.sound.DeleteSubject(ctx, subject, live)
			}
		},
	},
	{
		fault:  "a subject ends at a NUL",
		breaks: "a subject may hold any bytes",
		install: func(f *faulty) {
			f.mapSubjects(func(s string) string { s, _, _ = strings.Cut(s, "\x00"); return s })
		},
	},
	{
		fault:   "a subject ends at a brace",
		breaks:  "a subject may hold any bytes",
		install: func(f *faulty) { f.mapSubjects(func(s string) string { s, _, _ = strings.Cut(s, "}"); return s }) },
	},
	{
		fault:   "a subject is made valid UTF-8",
		breaks:  "a subject may hold any bytes",
		install: func(f *faulty) { f.mapSubjects(func(s string) string { return strings.ToValidUTF8(s, "\ufffd") }) },
	},
	{
		fault:   "a subject is trimmed",
		breaks:  "a subject may hold any bytes",
		install: func(f *faulty) { f.mapSubjects(strings.TrimSpace) },
	},
	{
		fault:   "a subject is case-insensitive",
		breaks:  "a subject may hold any bytes",
		install: func(f *faulty) { f.mapSubjects(strings.ToLower) },
	},
	{
		fault:   "a subject is cut at 1 KiB",
		breaks:  "a subject may hold any bytes",
		install: func(f *faulty) { f.mapSubjects(func(s string) string { return s[:min(len(s), 1<<10)] }) },
	},
	{
		fault:  "load goes by the ID alone",
		breaks: "a session belongs to its subject",
		install: func(f *faulty) {
			byID := make(map[string]echosession.Ref)
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				byID[ref.ID] = ref
				return f.sound.Create(ctx, ref, record, ttl, limit)
			}
			f.load = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
				return f.sound.Load(ctx, byID[ref.ID], ttl)
			}
		},
	},
	{
		fault:  "no subject is a subject",
		breaks: "sessions without a subject are apart",
		install: func(f *faulty) {
			f.mapSubjects(func(s string) string { return "subject " + s })
		},
	},
	{
		fault:  "scan ends early",
		breaks: "scan visits all",
		install: func(f *faulty) {
			f.scan = func(ctx context.Context) iter.Seq2[echosession.Entry, error] {
				return func(yield func(echosession.Entry, error) bool) {
					n := 0
					for entry, err := range f.sound.Scan(ctx) {
						if n++; n > 299 || !yield(entry, err) {
							return
						}
					}
				}
			}
		},
	},
	{
		fault:  "scan tells no lifetimes",
		breaks: "scan visits all",
		install: func(f *faulty) {
			f.scan = func(ctx context.Context) iter.Seq2[echosession.Entry, error] {
				return func(yield func(echosession.Entry, error) bool) {
					for entry, err := range f.sound.Scan(ctx) {
						if !yield(echosession.Entry{Record: entry.Record}, err) {
							return
						}
					}
				}
			}
		},
	},
	{
		fault:  "scan visits what leads to a successor",
		breaks: "scan visits nothing but records",
		install: func(f *faulty) {
			f.scan = func(ctx context.Context) iter.Seq2[echosession.Entry, error] {
				return func(yield func(echosession.Entry, error) bool) {
					for entry, err := range f.sound.Scan(ctx) {
						if !yield(entry, err) {
							return
						}
					}
					yield(echosession.Entry{Record: []byte("\xC1successor"), TTL: time.Second}, nil)
				}
			}
		},
	},
	{
		fault:  "scan visits what was deleted",
		breaks: "scan visits nothing but records",
		install: func(f *faulty) {
			var created []echosession.Entry
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				created = append(created, echosession.Entry{Record: bytes.Clone(record), TTL: ttl})
				return f.sound.Create(ctx, ref, record, ttl, limit)
			}
			f.scan = func(ctx context.Context) iter.Seq2[echosession.Entry, error] {
				return func(yield func(echosession.Entry, error) bool) {
					for _, entry := range created {
						if !yield(entry, nil) {
							return
						}
					}
				}
			}
		},
	},
	{
		fault:  "a scan cannot be started again",
		breaks: "a scan can be left",
		install: func(f *faulty) {
			f.scan = func(ctx context.Context) iter.Seq2[echosession.Entry, error] {
				var once sync.Once
				return func(yield func(echosession.Entry, error) bool) {
					once.Do(func() { f.sound.Scan(ctx)(yield) })
				}
			}
		},
	},
	{
		fault:  "a scan ends without its error",
		breaks: "a scan that fails ends",
		install: func(f *faulty) {
			f.scan = func(ctx context.Context) iter.Seq2[echosession.Entry, error] {
				return func(yield func(echosession.Entry, error) bool) {
					for entry, err := range f.sound.Scan(ctx) {
						if err != nil || !yield(entry, nil) {
							return
						}
					}
				}
			}
		},
	},
	{
		fault:  "a scan goes on after its error",
		breaks: "a scan that fails ends",
		install: func(f *faulty) {
			f.scan = func(ctx context.Context) iter.Seq2[echosession.Entry, error] {
				return func(yield func(echosession.Entry, error) bool) {
					for range 2 {
						for entry, err := range f.sound.Scan(ctx) {
							if !yield(entry, err) {
								return
							}
						}
					}
				}
			}
		},
	},
	{
		fault:  "a scan counts entries",
		breaks: "a scan misses none among changes",
		install: func(f *faulty) {
			f.scan = func(ctx context.Context) iter.Seq2[echosession.Entry, error] {
				return func(yield func(echosession.Entry, error) bool) {
					for n := 0; ; n++ {
						var entries []echosession.Entry
						for entry := range f.sound.Scan(ctx) {
							entries = append(entries, entry)
						}
						if n >= len(entries) || !yield(entries[n], nil) {
							return
						}
					}
				}
			}
		},
	},
	{
		fault:  "replace takes two steps",
		breaks: "no update is lost",
		install: func(f *faulty) {
			f.replace = func(ctx context.Context, ref echosession.Ref, old, record []byte, ttl time.Duration) error {
				current, err := f.sound.Load(ctx, ref, 0)
				if err != nil {
					return err
				}
				if !bytes.HasPrefix(current, old) {
					return echosession.ErrConflict
				}
				window()
				if current, err = f.sound.Load(ctx, ref, 0); err != nil {
					return err
				}
				return f.sound.Replace(ctx, ref, current, record, ttl)
			}
		},
	},
	{
		fault:  "create takes two steps",
		breaks: "a ref is created once",
		install: func(f *faulty) {
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				if _, err := f.sound.Load(ctx, ref, 0); err == nil {
					return nil, echosession.ErrConflict
				}
				window()
				f.sound.Delete(ctx, ref)
				f.sound.Create(ctx, ref, record, ttl, limit)
				return nil, nil
			}
		},
	},
	{
		fault:  "the oldest give way later",
		breaks: "a limit holds at every moment",
		install: func(f *faulty) {
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				if evicted, err := f.sound.Create(ctx, ref, record, ttl, echosession.Limit{}); err != nil {
					return evicted, err
				}
				f.remember(ref)
				window()
				return f.trim(ctx, ref.Subject, limit)
			}
		},
	},
	{
		fault:   "rotate takes two steps",
		breaks:  "a session is rotated once",
		install: rotateInSteps,
	},
	{
		fault:   "rotate does not see a delete",
		breaks:  "delete beats rotate",
		install: rotateInSteps,
	},
	{
		fault:  "touch puts back what it read",
		breaks: "delete beats use",
		install: func(f *faulty) {
			f.touch = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) error {
				record, err := f.sound.Load(ctx, ref, 0)
				if err != nil {
					return echosession.ErrNotFound
				}
				window()
				_, err = f.sound.Create(ctx, ref, record, ttl, echosession.Limit{})
				if errors.Is(err, echosession.ErrConflict) {
					return nil
				}
				return err
			}
		},
	},
	{
		fault:  "delete-subject takes two steps",
		breaks: "delete-subject takes one step",
		install: func(f *faulty) {
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				f.remember(ref)
				return f.sound.Create(ctx, ref, record, ttl, limit)
			}
			f.deleteSubject = func(ctx context.Context, subject string, except []string) (int, error) {
				refs := f.known(subject)
				window()
				for _, ref := range refs {
					if _, err := f.sound.Load(ctx, ref, 0); err == nil {
						f.sound.Delete(ctx, ref)
					}
				}
				return len(refs), nil
			}
		},
	},
	{
		fault:  "renew keeps a short lifetime",
		breaks: "renew moves a session",
		install: func(f *faulty) {
			f.renew = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				return f.sound.Renew(ctx, from, to, old, record, min(ttl, time.Minute), limit)
			}
		},
	},
	{
		fault:  "renew leaves the old session in its subject",
		breaks: "renew moves a session",
		install: func(f *faulty) {
			var left []echosession.Entry
			f.renew = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				left = append(left, echosession.Entry{Record: bytes.Clone(old), TTL: ttl})
				return f.sound.Renew(ctx, from, to, old, record, ttl, limit)
			}
			f.list = func(ctx context.Context, subject string) ([]echosession.Entry, error) {
				list, err := f.sound.List(ctx, subject)
				return append(list, left...), err
			}
		},
	},
	{
		fault:  "renew into another subject forgets the index",
		breaks: "renew moves a session",
		install: func(f *faulty) {
			f.count = func(ctx context.Context, subject string) (int, error) {
				return len(f.known(subject)), nil
			}
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				f.remember(ref)
				return f.sound.Create(ctx, ref, record, ttl, limit)
			}
		},
	},
	{
		fault:  "a renewed ref is taken for none",
		breaks: "a renewed ref says so",
		install: func(f *faulty) {
			f.load = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
				record, err := f.sound.Load(ctx, ref, ttl)
				if errors.Is(err, echosession.ErrRenewed) {
					err = echosession.ErrNotFound
				}
				return record, err
			}
		},
	},
	{
		fault:  "renew leads on as rotate does",
		breaks: "a renewed ref says so",
		install: func(f *faulty) {
			f.renew = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				if from.Subject == to.Subject {
					return nil, f.sound.Rotate(ctx, from, to, old, record, ttl, ttl)
				}
				return f.sound.Renew(ctx, from, to, old, record, ttl, limit)
			}
		},
	},
	{
		fault:  "delete of a renewed ref succeeds",
		breaks: "a renewed ref says so",
		install: func(f *faulty) {
			f.delete = func(ctx context.Context, ref echosession.Ref) error {
				err := f.sound.Delete(ctx, ref)
				if errors.Is(err, echosession.ErrRenewed) {
					return nil
				}
				return err
			}
		},
	},
	{
		fault:  "delete of a renewed ref ends the login",
		breaks: "a renewed ref says so",
		install: func(f *faulty) {
			renewed := renewedRefs(f)
			f.delete = func(ctx context.Context, ref echosession.Ref) error {
				if to, ok := renewed[ref]; ok {
					f.sound.Delete(ctx, to)
				}
				return f.sound.Delete(ctx, ref)
			}
		},
	},
	{
		fault:  "the mark of a renewal stays",
		breaks: "a renewed ref is forgotten",
		install: func(f *faulty) {
			renewed := renewedRefs(f)
			f.load = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
				if _, ok := renewed[ref]; ok {
					return nil, echosession.ErrRenewed
				}
				return f.sound.Load(ctx, ref, ttl)
			}
		},
	},
	{
		fault:  "a use prolongs the mark of a renewal",
		breaks: "a renewed ref is forgotten",
		install: func(f *faulty) {
			ends := make(map[echosession.Ref]time.Time)
			f.load = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
				record, err := f.sound.Load(ctx, ref, ttl)
				if errors.Is(err, echosession.ErrRenewed) && ttl > 0 {
					ends[ref] = f.now().Add(ttl)
				}
				if f.now().Before(ends[ref]) {
					err = echosession.ErrRenewed
				}
				return record, err
			}
		},
	},
	{
		fault:  "renew does not compare",
		breaks: "renew compares",
		install: func(f *faulty) {
			f.renew = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				current, err := f.sound.Load(ctx, from, 0)
				if err != nil {
					return f.sound.Renew(ctx, from, to, old, record, ttl, limit)
				}
				return f.sound.Renew(ctx, from, to, current, record, ttl, limit)
			}
		},
	},
	{
		fault:  "a refused renew leaves its new session",
		breaks: "renew compares",
		install: func(f *faulty) {
			f.renew = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				evicted, err := f.sound.Renew(ctx, from, to, old, record, ttl, limit)
				if errors.Is(err, echosession.ErrConflict) && from.Subject != to.Subject {
					f.sound.Create(ctx, to, record, ttl, limit)
				}
				return evicted, err
			}
		},
	},
	{
		fault:  "renew creates where there is none",
		breaks: "renew of none",
		install: func(f *faulty) {
			f.renew = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				evicted, err := f.sound.Renew(ctx, from, to, old, record, ttl, limit)
				if errors.Is(err, echosession.ErrNotFound) {
					f.sound.Create(ctx, to, record, ttl, limit)
				}
				return evicted, err
			}
		},
	},
	{
		fault:  "renew overwrites",
		breaks: "renew leaves a taken ref",
		install: func(f *faulty) {
			f.renew = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				f.sound.Delete(ctx, to)
				return f.sound.Renew(ctx, from, to, old, record, ttl, limit)
			}
		},
	},
	{
		fault:  "a pointer leads into the login",
		breaks: "no pointer leads into a login",
		install: func(f *faulty) {
			renewed := renewedRefs(f)
			f.load = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
				record, err := f.sound.Load(ctx, ref, ttl)
				var rotated *echosession.RotatedError
				if errors.As(err, &rotated) {
					last := echosession.Ref{ID: rotated.To, Subject: ref.Subject}
					if to, ok := renewed[last]; ok && to.Subject == ref.Subject {
						err = &echosession.RotatedError{To: to.ID}
					}
				}
				return record, err
			}
		},
	},
	{
		fault:  "delete through a pointer removes the pointer of a renewed session",
		breaks: "no pointer leads into a login",
		install: func(f *faulty) {
			gone := make(map[echosession.Ref]bool)
			f.delete = func(ctx context.Context, ref echosession.Ref) error {
				_, err := f.sound.Load(ctx, ref, 0)
				gone[ref] = isRotated(err)
				return f.sound.Delete(ctx, ref)
			}
			f.load = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
				if gone[ref] {
					return nil, echosession.ErrNotFound
				}
				return f.sound.Load(ctx, ref, ttl)
			}
		},
	},
	{
		fault:  "an exception follows a renewal",
		breaks: "an exception does not follow a renewal",
		install: func(f *faulty) {
			renewed := renewedRefs(f)
			f.deleteSubject = func(ctx context.Context, subject string, except []string) (int, error) {
				for _, id := range except {
					except = append(except, renewed[echosession.Ref{ID: id, Subject: subject}].ID)
				}
				return f.sound.DeleteSubject(ctx, subject, except)
			}
		},
	},
	{
		fault:  "a renewed session is the newest",
		breaks: "a renewed session has its place",
		install: func(f *faulty) {
			f.renew = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				between := echosession.Ref{ID: to.ID + " on its way"}
				if evicted, err := f.sound.Renew(ctx, from, between, old, record, ttl, limit); err != nil {
					return evicted, err
				}
				return f.sound.Renew(ctx, between, to, record, record, ttl, limit)
			}
		},
	},
	{
		fault:  "a renewal knows no limit",
		breaks: "a limit holds for renewals",
		install: func(f *faulty) {
			f.renew = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				return f.sound.Renew(ctx, from, to, old, record, ttl, echosession.Limit{})
			}
		},
	},
	{
		fault:  "a renewal in the same subject counts as one more",
		breaks: "a limit holds for renewals",
		install: func(f *faulty) {
			f.renew = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				if list, _ := f.sound.List(ctx, to.Subject); limit.WhenFull == echosession.RefuseNew && len(list) >= limit.Sessions {
					return nil, echosession.ErrTooManySessions
				}
				return f.sound.Renew(ctx, from, to, old, record, ttl, limit)
			}
		},
	},
	{
		fault:  "a full subject makes room",
		breaks: "a full subject refuses sessions",
		install: func(f *faulty) {
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				limit.WhenFull = echosession.EvictOldest
				return f.sound.Create(ctx, ref, record, ttl, limit)
			}
		},
	},
	{
		fault:  "a refused renewal ends the session",
		breaks: "a full subject refuses sessions",
		install: func(f *faulty) {
			f.renew = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				evicted, err := f.sound.Renew(ctx, from, to, old, record, ttl, limit)
				if errors.Is(err, echosession.ErrTooManySessions) {
					f.sound.Delete(ctx, from)
				}
				return evicted, err
			}
		},
	},
	{
		fault:  "what was created takes a place for ever",
		breaks: "no limit is reached early",
		install: func(f *faulty) {
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				if limit.WhenFull == echosession.RefuseNew && len(f.known(ref.Subject)) >= limit.Sessions {
					return nil, echosession.ErrTooManySessions
				}
				f.remember(ref)
				return f.sound.Create(ctx, ref, record, ttl, limit)
			}
		},
	},
	{
		fault:  "check tells no lifetimes",
		breaks: "check tells the lifetime",
		install: func(f *faulty) {
			f.check = func(ctx context.Context, ref echosession.Ref) (time.Duration, error) {
				_, err := f.sound.Check(ctx, ref)
				return 0, err
			}
		},
	},
	{
		fault:  "check does not know what was rotated",
		breaks: "check tells the lifetime",
		install: func(f *faulty) {
			f.check = func(ctx context.Context, ref echosession.Ref) (time.Duration, error) {
				left, err := f.sound.Check(ctx, ref)
				if isRotated(err) {
					err = echosession.ErrNotFound
				}
				return left, err
			}
		},
	},
	{
		fault:  "check is a use",
		breaks: "check restarts nothing",
		install: func(f *faulty) {
			f.check = func(ctx context.Context, ref echosession.Ref) (time.Duration, error) {
				_, err := f.sound.Load(ctx, ref, time.Hour)
				return time.Hour, err
			}
		},
	},
	{
		fault:  "check asks a cache",
		breaks: "check goes past caches",
		install: func(f *faulty) {
			cache := make(map[echosession.Ref]bool)
			f.load = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
				record, err := f.sound.Load(ctx, ref, ttl)
				cache[ref] = err == nil
				return record, err
			}
			f.check = func(ctx context.Context, ref echosession.Ref) (time.Duration, error) {
				if cache[ref] {
					return time.Hour, nil
				}
				return f.sound.Check(ctx, ref)
			}
		},
	},
	{
		fault:  "count counts what was renewed away",
		breaks: "count is what can be listed",
		install: func(f *faulty) {
			renewed := renewedRefs(f)
			f.count = func(ctx context.Context, subject string) (int, error) {
				n, err := f.sound.Count(ctx, subject)
				for from, to := range renewed {
					if from.Subject == subject && to.Subject != subject {
						n++
					}
				}
				return n, err
			}
		},
	},
	{
		fault:  "count counts no more than are listed by page",
		breaks: "list returns a bounded number",
		install: func(f *faulty) {
			f.count = func(ctx context.Context, subject string) (int, error) {
				list, err := f.sound.List(ctx, subject)
				return len(list), err
			}
		},
	},
	{
		fault:  "renew does not see an update",
		breaks: "no update is lost by a renewal",
		install: func(f *faulty) {
			f.renew = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				current, err := f.sound.Load(ctx, from, 0)
				if err == nil && !bytes.HasPrefix(current, old) {
					return nil, echosession.ErrConflict
				}
				window()
				if current, err = f.sound.Load(ctx, from, 0); err != nil {
					return nil, err
				}
				return f.sound.Renew(ctx, from, to, current, record, ttl, limit)
			}
		},
	},
	{
		fault:   "renew takes two steps",
		breaks:  "a session is renewed once",
		install: renewInSteps,
	},
	{
		fault:   "renew does not see a delete",
		breaks:  "delete and renew agree",
		install: renewInSteps,
	},
	{
		fault:   "renew does not see a revocation",
		breaks:  "revocation and renew agree",
		install: renewInSteps,
	},
	{
		fault:  "whether there is room is decided before",
		breaks: "a full subject refuses at every moment",
		install: func(f *faulty) {
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				if n, err := f.sound.Count(ctx, ref.Subject); err != nil || limit.Sessions > 0 && n >= limit.Sessions {
					return nil, cmp.Or(err, echosession.ErrTooManySessions)
				}
				time.Sleep(5 * time.Millisecond) // the other calls look meanwhile
				return f.sound.Create(ctx, ref, record, ttl, echosession.Limit{})
			}
		},
	},
	{
		fault:  "watch says nothing until a session ends",
		breaks: "watch begins with all",
		install: func(f *faulty) {
			f.watch = func(ctx context.Context, tell func(echosession.Hint)) error {
				return f.sound.Watch(ctx, func(h echosession.Hint) {
					if !h.All {
						tell(h)
					}
				})
			}
		},
	},
	{
		fault:  "watch begins with an end from before",
		breaks: "watch begins with all",
		install: func(f *faulty) {
			f.watch = func(ctx context.Context, tell func(echosession.Hint)) error {
				tell(echosession.Hint{IDs: []string{"00000000-0000-4000-8000-000000000000"}})
				return f.sound.Watch(ctx, tell)
			}
		},
	},
	{
		fault:  "only the first watch begins with all",
		breaks: "watch begins with all",
		install: func(f *faulty) {
			var once atomic.Bool
			f.watch = func(ctx context.Context, tell func(echosession.Hint)) error {
				return f.sound.Watch(ctx, func(h echosession.Hint) {
					if !h.All || once.CompareAndSwap(false, true) {
						tell(h)
					}
				})
			}
		},
	},
	{
		fault:  "watch returns again and again",
		breaks: "every end is told",
		install: func(f *faulty) {
			f.watch = func(ctx context.Context, tell func(echosession.Hint)) error {
				tell(echosession.Hint{All: true})
				return echosession.ErrStoreUnavailable
			}
		},
	},
	{
		fault:  "delete is not told",
		breaks: "every end is told",
		install: dropWhile(func(f *faulty, quiet func(func())) {
			f.delete = func(ctx context.Context, ref echosession.Ref) (err error) {
				quiet(func() { err = f.sound.Delete(ctx, ref) })
				return err
			}
		}),
	},
	{
		fault:  "delete tells of the ref that it was given alone",
		breaks: "every end is told",
		install: hints(func(_ *faulty, h echosession.Hint) []echosession.Hint {
			h.IDs = h.IDs[:min(1, len(h.IDs))]
			return []echosession.Hint{h}
		}),
	},
	{
		fault:  "delete-subject is not told",
		breaks: "every end is told",
		install: dropWhile(func(f *faulty, quiet func(func())) {
			f.deleteSubject = func(ctx context.Context, subject string, except []string) (n int, err error) {
				quiet(func() { n, err = f.sound.DeleteSubject(ctx, subject, except) })
				return n, err
			}
		}),
	},
	{
		fault:  "eviction is not told",
		breaks: "every end is told",
		install: dropWhile(func(f *faulty, quiet func(func())) {
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) (evicted []string, err error) {
				quiet(func() { evicted, err = f.sound.Create(ctx, ref, record, ttl, limit) })
				return evicted, err
			}
		}),
	},
	{
		fault:  "renew is not told",
		breaks: "every end is told",
		install: dropWhile(func(f *faulty, quiet func(func())) {
			f.renew = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) (evicted []string, err error) {
				quiet(func() { evicted, err = f.sound.Renew(ctx, from, to, old, record, ttl, limit) })
				return evicted, err
			}
		}),
	},
	{
		fault:  "renew tells of what it moves, and not of what gives way",
		breaks: "every end is told",
		install: func(f *faulty) {
			var from atomic.Value
			hints(func(_ *faulty, h echosession.Hint) []echosession.Hint {
				if id, ok := from.Load().(string); ok && id != "" {
					h.IDs = []string{id}
				}
				return []echosession.Hint{h}
			})(f)
			f.renew = func(ctx context.Context, ref, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				from.Store(ref.ID)
				defer from.Store("")
				return f.sound.Renew(ctx, ref, to, old, record, ttl, limit)
			}
		},
	},
	{
		fault:  "rotate with a grace is not told",
		breaks: "every end is told",
		install: dropWhile(func(f *faulty, quiet func(func())) {
			f.rotate = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl, grace time.Duration) (err error) {
				rotate := func() { err = f.sound.Rotate(ctx, from, to, old, record, ttl, grace) }
				if grace > 0 {
					quiet(rotate)
				} else {
					rotate()
				}
				return err
			}
		}),
	},
	{
		fault:  "rotate tells of the successor",
		breaks: "every end is told",
		install: func(f *faulty) {
			var to atomic.Value
			hints(func(_ *faulty, h echosession.Hint) []echosession.Hint {
				if id, ok := to.Load().(string); ok && id != "" {
					h.IDs = []string{id}
				}
				return []echosession.Hint{h}
			})(f)
			f.rotate = func(ctx context.Context, from, ref echosession.Ref, old, record []byte, ttl, grace time.Duration) error {
				to.Store(ref.ID)
				defer to.Store("")
				return f.sound.Rotate(ctx, from, ref, old, record, ttl, grace)
			}
		},
	},
	{
		fault:  "delete tells before it deletes",
		breaks: "every end is told",
		install: func(f *faulty) {
			var tell atomic.Pointer[func(echosession.Hint)]
			f.watch = func(ctx context.Context, told func(echosession.Hint)) error {
				tell.Store(&told)
				return f.sound.Watch(ctx, func(h echosession.Hint) {
					if h.All {
						told(h)
					}
				})
			}
			checked := make(chan struct{}, 1000)
			f.check = func(ctx context.Context, ref echosession.Ref) (time.Duration, error) {
				defer func() { checked <- struct{}{} }()
				return f.sound.Check(ctx, ref)
			}
			var once sync.Once
			f.delete = func(ctx context.Context, ref echosession.Ref) error {
				if tell := tell.Load(); tell != nil {
					(*tell)(echosession.Hint{IDs: []string{ref.ID}})
					once.Do(func() { waitFor(checked) })
				}
				return f.sound.Delete(ctx, ref)
			}
		},
	},
	{
		fault:  "only the last watch is told",
		breaks: "every watch is told",
		install: func(f *faulty) {
			var last atomic.Int64
			f.watch = func(ctx context.Context, tell func(echosession.Hint)) error {
				me := last.Add(1)
				return f.sound.Watch(ctx, func(h echosession.Hint) {
					if h.All || last.Load() == me {
						tell(h)
					}
				})
			}
		},
	},
	{
		fault:  "the end of a watch silences the others",
		breaks: "every watch is told",
		install: func(f *faulty) {
			var over atomic.Bool
			f.watch = func(ctx context.Context, tell func(echosession.Hint)) error {
				defer over.Store(true)
				return f.sound.Watch(ctx, func(h echosession.Hint) {
					if h.All || !over.Load() {
						tell(h)
					}
				})
			}
		},
	},
	{
		fault:  "a touch is told",
		breaks: "uses are not told",
		install: toldUse(func(f *faulty, tell func(echosession.Hint)) {
			f.touch = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) error {
				defer tell(echosession.Hint{IDs: []string{ref.ID}})
				return f.sound.Touch(ctx, ref, ttl)
			}
		}),
	},
	{
		fault:  "a read that restarts the lifetime is told",
		breaks: "uses are not told",
		install: toldUse(func(f *faulty, tell func(echosession.Hint)) {
			f.load = func(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
				if ttl > 0 {
					defer tell(echosession.Hint{All: true})
				}
				return f.sound.Load(ctx, ref, ttl)
			}
		}),
	},
	{
		fault:  "a replace is told",
		breaks: "uses are not told",
		install: toldUse(func(f *faulty, tell func(echosession.Hint)) {
			f.replace = func(ctx context.Context, ref echosession.Ref, old, record []byte, ttl time.Duration) error {
				err := f.sound.Replace(ctx, ref, old, record, ttl)
				if err == nil {
					tell(echosession.Hint{IDs: []string{ref.ID}})
				}
				return err
			}
		}),
	},
	{
		fault:  "a rotate that conflicts is told",
		breaks: "uses are not told",
		install: toldUse(func(f *faulty, tell func(echosession.Hint)) {
			f.rotate = func(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl, grace time.Duration) error {
				defer tell(echosession.Hint{IDs: []string{from.ID}})
				return f.sound.Rotate(ctx, from, to, old, record, ttl, grace)
			}
		}),
	},
	{
		fault:  "a delete-subject that spares all is told",
		breaks: "uses are not told",
		install: toldUse(func(f *faulty, tell func(echosession.Hint)) {
			f.deleteSubject = func(ctx context.Context, subject string, except []string) (int, error) {
				defer tell(echosession.Hint{Match: func(ref echosession.Ref) bool { return ref.Subject == subject }})
				return f.sound.DeleteSubject(ctx, subject, except)
			}
		}),
	},
	{
		fault:  "a create tells of its own session",
		breaks: "uses are not told",
		install: toldUse(func(f *faulty, tell func(echosession.Hint)) {
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				defer tell(echosession.Hint{IDs: []string{ref.ID}})
				return f.sound.Create(ctx, ref, record, ttl, limit)
			}
		}),
	},
	{
		fault:  "a hint of many names the excepted",
		breaks: "many ends spare the excepted",
		install: func(f *faulty) {
			var subject atomic.Value
			hints(func(_ *faulty, h echosession.Hint) []echosession.Hint {
				if h.Match != nil {
					of := subject.Load()
					h.Match = func(ref echosession.Ref) bool { return ref.Subject == of }
				}
				return []echosession.Hint{h}
			})(f)
			f.deleteSubject = func(ctx context.Context, of string, except []string) (int, error) {
				subject.Store(of)
				return f.sound.DeleteSubject(ctx, of, except)
			}
		},
	},
	{
		fault:  "a hint of many names other subjects",
		breaks: "many ends spare the excepted",
		install: hints(func(_ *faulty, h echosession.Hint) []echosession.Hint {
			if match := h.Match; match != nil {
				h.Match = func(ref echosession.Ref) bool { return ref.Subject == "" || match(ref) }
			}
			return []echosession.Hint{h}
		}),
	},
	{
		fault:  "a hint names a hundred at most",
		breaks: "many ends spare the excepted",
		install: hints(func(_ *faulty, h echosession.Hint) []echosession.Hint {
			if match := h.Match; match != nil {
				var matched atomic.Int32
				h.Match = func(ref echosession.Ref) bool { return match(ref) && matched.Add(1) <= 100 }
			}
			return []echosession.Hint{h}
		}),
	},
	{
		fault:  "watch does not look at its context",
		breaks: "watch ends with its context",
		install: func(f *faulty) {
			f.watch = func(ctx context.Context, tell func(echosession.Hint)) error {
				return f.sound.Watch(context.WithoutCancel(ctx), tell)
			}
		},
	},
	{
		fault:  "watch does not look at a context that is done",
		breaks: "watch ends with its context",
		install: func(f *faulty) {
			f.watch = func(ctx context.Context, tell func(echosession.Hint)) error {
				if ctx.Err() != nil {
					ctx = context.Background()
				}
				return f.sound.Watch(ctx, tell)
			}
		},
	},
	{
		fault:  "watch tells after it has returned",
		breaks: "watch ends with its context",
		install: func(f *faulty) {
			f.watch = func(ctx context.Context, tell func(echosession.Hint)) error {
				go f.sound.Watch(context.WithoutCancel(ctx), tell)
				<-ctx.Done()
				return ctx.Err()
			}
		},
	},
	{
		fault:  "watch says all before it listens",
		breaks: "no end is missed at the start",
		install: func(f *faulty) {
			deleted := make(chan struct{}, 1000)
			f.delete = func(ctx context.Context, ref echosession.Ref) error {
				defer func() { deleted <- struct{}{} }()
				return f.sound.Delete(ctx, ref)
			}
			f.watch = func(ctx context.Context, tell func(echosession.Hint)) error {
				tell(echosession.Hint{All: true})
				waitFor(deleted)
				return f.sound.Watch(ctx, func(h echosession.Hint) {
					if !h.All {
						tell(h)
					}
				})
			}
		},
	},
	{
		fault:  "a hint is lost while another one is told",
		breaks: "ends at once are all told",
		install: func(f *faulty) {
			f.watch = func(ctx context.Context, tell func(echosession.Hint)) error {
				pending := make(chan echosession.Hint, 1)
				go func() {
					for {
						select {
						case h := <-pending:
							window()
							tell(h)
						case <-ctx.Done():
							return
						}
					}
				}()
				return f.sound.Watch(ctx, func(h echosession.Hint) {
					select {
					case pending <- h:
					default:
					}
				})
			}
		},
	},
	{
		fault:  "load tells all of a grace",
		breaks: "the rest of a grace is told",
		install: func(f *faulty) {
			same := func(left time.Duration) time.Duration { return left }
			leftIs(f, func(time.Duration) time.Duration { return time.Hour }, same)
		},
	},
	{
		fault:  "check tells all of a grace",
		breaks: "the rest of a grace is told",
		install: func(f *faulty) {
			same := func(left time.Duration) time.Duration { return left }
			leftIs(f, same, func(time.Duration) time.Duration { return time.Hour })
		},
	},
	{
		fault:  "check tells a grace in seconds",
		breaks: "the rest of a grace is told",
		install: func(f *faulty) {
			same := func(left time.Duration) time.Duration { return left }
			leftIs(f, same, func(left time.Duration) time.Duration { return left / time.Second })
		},
	},
	{
		fault:  "the lifetime of the session is told for its grace",
		breaks: "the rest of a grace is told",
		install: func(f *faulty) {
			same := func(left time.Duration) time.Duration { return left }
			leftIs(f, func(left time.Duration) time.Duration { return 2 * left }, same)
		},
	},
}
