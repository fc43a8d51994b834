package storetest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/echosession/echosession"
)

// rounds is how often a race is run.
func rounds() int {
	if testing.Short() {
		return 30
	}
	return 300
}

// atOnce calls the functions at the same time, in an order that is never the same,
// and waits for them.
func atOnce(fns ...func()) {
	start := make(chan struct{})
	var wg sync.WaitGroup
	for _, i := range rand.Perm(len(fns)) {
		delay := time.Duration(rand.IntN(2)) * rand.N(200*time.Microsecond)
		wg.Go(func() {
			<-start
			// A Sleep would take a millisecond where this takes microseconds.
			for begin := time.Now(); time.Since(begin) < delay; {
				runtime.Gosched()
			}
			fns[i]()
		})
	}
	close(start)
	wg.Wait()
}

var raceCases = []testCase{
	{
		name:       "no update is lost",
		rule:       "Replace compares and stores in one step: of the writers that hold the same record, one succeeds and the others get ErrConflict.",
		anySubject: true,
		run: func(t *trial) {
			const writers = 16
			increments := rounds() / 30
			ref := t.ref()
			counter := func(n int) []byte { return []byte(uuid.NewString() + strconv.Itoa(n)) }
			const revision = len("00000000-0000-0000-0000-000000000000")
			t.createAs(ref, counter(0), long, echosession.Limit{})

			increment := func() error {
				// Each conflict is the success of another writer.
				for range 1 + writers*increments {
					rec, err := t.store.Load(t.Context(), ref, 0)
					if err != nil {
						return err
					}
					n, err := strconv.Atoi(string(rec[revision:]))
					if err != nil {
						return err
					}
					err = t.store.Replace(t.Context(), ref, rec[:revision], counter(n+1), long)
					if !errors.Is(err, echosession.ErrConflict) {
						return err
					}
				}
				return errors.New("more conflicts than writes")
			}
			var fns []func()
			for range writers {
				fns = append(fns, func() {
					for range increments {
						if err := increment(); err != nil {
							t.Errorf("increment: %v", err)
							return
						}
					}
				})
			}
			atOnce(fns...)
			rec, err := t.store.Load(t.Context(), ref, 0)
			if want := strconv.Itoa(writers * increments); err != nil || string(rec[revision:]) != want {
				t.Errorf("after %s increments the record is %q, error %v", want, rec, err)
			}
		},
	},
	{
		name:       "a ref is created once",
		rule:       "Of the Creates that store different records under one ref, one succeeds and the others get ErrConflict.",
		anySubject: true,
		run: func(t *trial) {
			for range rounds() / 10 {
				ref := t.ref()
				records := [][]byte{record(), record(), record(), record()}
				errs := make([]error, len(records))
				var fns []func()
				for i, rec := range records {
					fns = append(fns, func() { errs[i] = errOf(t.store.Create(t.Context(), ref, rec, long, echosession.Limit{})) })
				}
				atOnce(fns...)
				if i, ok := t.oneWon("Create", errs); ok {
					t.holds(ref, records[i])
				}
			}
		},
	},
	{
		name: "a limit holds at every moment",
		rule: "Create stores the new session and deletes the oldest in one step: at no moment can more sessions be listed than the limit allows.",
		run: func(t *trial) {
			const limit = 3
			for range rounds() / 10 {
				refs := make([]echosession.Ref, 50)
				var creating atomic.Int32
				creating.Store(int32(len(refs)))
				fns := []func(){func() {
					for creating.Load() > 0 {
						list, err := t.store.List(t.Context(), t.subject)
						if err != nil || len(list) > limit {
							t.Errorf("List: %d sessions, error %v, want at most %d", len(list), err, limit)
						}
					}
				}}
				for i := range refs {
					refs[i] = t.ref()
					fns = append(fns, func() {
						defer creating.Add(-1)
						t.anyOf("Create", errOf(t.store.Create(t.Context(), refs[i], record(), long, echosession.Limit{Sessions: limit})))
					})
				}
				atOnce(fns...)
				live := 0
				for _, ref := range refs {
					if _, err := t.store.Load(t.Context(), ref, 0); err == nil {
						live++
					}
				}
				list, err := t.store.List(t.Context(), t.subject)
				if live != limit || err != nil || len(list) != limit {
					t.Errorf("%d sessions can be loaded, %d are listed, error %v, want %d", live, len(list), err, limit)
				}
			}
		},
	},
	{
		name:       "a session is rotated once",
		rule:       "Of the Rotates of one session that run at once, one succeeds. The others get ErrConflict, and nothing can be found under their to.",
		anySubject: true,
		run: func(t *trial) {
			for range rounds() / 10 {
				from, old := t.create()
				refs := []echosession.Ref{t.ref(), t.ref(), t.ref()}
				records := [][]byte{record(), record(), record()}
				errs := make([]error, len(refs))
				var fns []func()
				for i, to := range refs {
					fns = append(fns, func() {
						errs[i] = t.store.Rotate(t.Context(), from, to, old, records[i], long, long)
					})
				}
				atOnce(fns...)
				won, ok := t.oneWon("Rotate", errs)
				if !ok {
					return
				}
				for i, to := range refs {
					if i == won {
						t.holds(to, records[i])
					} else {
						t.absent(to)
					}
				}
				t.leads(from, records[won])
				if t.subject != "" {
					t.deletes(1, t.subject)
				}
			}
		},
	},
	{
		name:       "delete beats rotate",
		rule:       "When Delete and Rotate of one session run at once, it cannot be found afterwards: not under from, not under to.",
		anySubject: true,
		run: func(t *trial) {
			for range rounds() {
				from, old := t.create()
				to := t.ref()
				atOnce(
					func() { t.anyOf("Delete", t.store.Delete(t.Context(), from)) },
					func() {
						err := t.store.Rotate(t.Context(), from, to, old, record(), long, long)
						t.anyOf("Rotate", err, echosession.ErrNotFound)
					},
				)
				t.absent(to)
				t.leadsNowhere(from)
				if t.subject != "" {
					t.lists(t.subject)
				}
			}
		},
	},
	{
		name:       "delete beats use",
		rule:       "When Delete runs at once with a Load that restarts the lifetime, a Touch or a Replace, there is no record afterwards.",
		anySubject: true,
		run: func(t *trial) {
			for range rounds() {
				ref, rec := t.create()
				atOnce(
					func() { t.anyOf("Delete", t.store.Delete(t.Context(), ref)) },
					func() {
						_, err := t.store.Load(t.Context(), ref, long)
						t.anyOf("Load", err, echosession.ErrNotFound)
					},
					func() { t.anyOf("Touch", t.store.Touch(t.Context(), ref, long), echosession.ErrNotFound) },
					func() {
						err := t.store.Replace(t.Context(), ref, rec, record(), long)
						t.anyOf("Replace", err, echosession.ErrNotFound)
					},
				)
				t.absent(ref)
				if t.subject != "" {
					t.lists(t.subject)
				}
			}
		},
	},
	{
		name: "delete-subject takes one step",
		rule: "When DeleteSubject runs at once with Create and Rotate, every session is afterwards either listed and can be loaded, or neither. The sessions from before, and their successors, are gone.",
		run: func(t *trial) {
			for range rounds() / 3 {
				before, beforeRecord := t.create()
				from, old := t.create()
				to, created := t.ref(), t.ref()
				rotated, createdRecord := record(), record()
				atOnce(
					func() {
						_, err := t.store.DeleteSubject(t.Context(), t.subject, nil)
						t.anyOf("DeleteSubject", err)
					},
					func() {
						err := t.store.Rotate(t.Context(), from, to, old, rotated, long, long)
						t.anyOf("Rotate", err, echosession.ErrNotFound)
					},
					func() {
						t.anyOf("Create", errOf(t.store.Create(t.Context(), created, createdRecord, long, echosession.Limit{})))
					},
				)
				for _, ref := range []echosession.Ref{before, from, to} {
					t.leadsNowhere(ref)
				}
				list, err := t.store.List(t.Context(), t.subject)
				t.wantErr("List", err, nil)
				_, err = t.store.Load(t.Context(), created, 0)
				t.anyOf("Load", err, echosession.ErrNotFound)
				if found := err == nil; len(list) > 1 || (len(list) == 1) != found {
					t.Errorf("%d sessions are listed, and that the created one can be loaded is %v", len(list), found)
				}
				for _, entry := range list {
					if !bytes.Equal(entry.Record, createdRecord) {
						t.Errorf("List: %.80q, want only the created session (before it there was %.80q)", entry.Record, beforeRecord)
					}
				}
				_, err = t.store.DeleteSubject(t.Context(), t.subject, nil)
				t.wantErr("DeleteSubject", err, nil)
			}
		},
	},
}

// anyOf checks that err is nil or matches one of those allowed.
func (t *trial) anyOf(what string, err error, allowed ...error) {
	t.Helper()
	if err == nil {
		return
	}
	for _, want := range allowed {
		if errors.Is(err, want) {
			return
		}
	}
	t.Errorf("%s: error %v, want none or one of %v", what, err, allowed)
}

// oneWon checks that one call succeeded and the others got ErrConflict. It returns
// which one it was.
func (t *trial) oneWon(what string, errs []error) (won int, ok bool) {
	t.Helper()
	won = -1
	for i, err := range errs {
		switch {
		case err == nil && won < 0:
			won = i
		case err == nil:
			t.Errorf("%s: more than one succeeded: %v", what, errs)
			return 0, false
		case !errors.Is(err, echosession.ErrConflict):
			t.Errorf("%s: error %v, want none or ErrConflict", what, err)
		}
	}
	if won < 0 {
		t.Errorf("%s: none succeeded: %v", what, errs)
	}
	return won, won >= 0
}
