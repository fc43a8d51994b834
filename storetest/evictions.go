package storetest

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/echosession/echosession"
)

// createEvicts creates a session of the trial's subject, and checks which IDs Create returns.
func (t *trial) createEvicts(what string, limit echosession.Limit, want ...echosession.Ref) echosession.Ref {
	t.Helper()
	ref := t.ref()
	evicted, err := t.store.Create(t.Context(), ref, record(), long, limit)
	t.wantErr(what+": Create", err, nil)
	t.evicts(what+": Create", evicted, want...)
	return ref
}

// renewEvicts renews a session, and checks which IDs Renew returns.
func (t *trial) renewEvicts(what string, r renewal, limit echosession.Limit, want ...echosession.Ref) {
	t.Helper()
	evicted, err := t.store.Renew(t.Context(), r.from, r.to, r.old, r.rec, long, limit)
	t.wantErr(what+": Renew", err, nil)
	t.evicts(what+": Renew", evicted, want...)
}

// evicts checks that the IDs are those of the refs, in any order.
func (t *trial) evicts(what string, evicted []string, want ...echosession.Ref) {
	t.Helper()
	if len(want) == 0 {
		if evicted != nil {
			t.Errorf("%s: evicted %q, want nil", what, evicted)
		}
		return
	}
	strange := slices.Clone(evicted)
	var missing []string
	for _, ref := range want {
		if i := slices.Index(strange, ref.ID); i >= 0 {
			strange = slices.Delete(strange, i, i+1)
		} else {
			missing = append(missing, ref.ID)
		}
	}
	if len(missing) > 0 || len(strange) > 0 {
		t.Errorf("%s: evicted has %d IDs, want %d: %d are missing %q, and %d should not be there %q",
			what, len(evicted), len(want), len(missing), missing[:min(3, len(missing))], len(strange), strange[:min(3, len(strange))])
	}
}

// guest creates a session to be renewed into the trial's subject.
func (t *trial) guest(subject string) renewal {
	t.Helper()
	from, old := t.refOf(subject), record()
	t.createAs(from, old, long, echosession.Limit{})
	return renewal{"into the subject", from, t.ref(), old, record()}
}

var evictionCases = []testCase{
	{
		name: "create tells what gave way",
		rule: "Create returns the IDs of the sessions that it deleted for the limit: all of them, the present ID of one that was rotated, and nil when there are none.",
		run: func(t *trial) {
			var refs []echosession.Ref
			for i, step := range []struct{ limit, gone int }{
				{0, 0}, {0, 0}, {3, 0}, {3, 1}, {4, 0}, {4, 1}, {0, 0}, {0, 0}, {3, 4}, {1, 3}, {1, 1}, {2, 0},
			} {
				ref := t.createEvicts(fmt.Sprintf("step %d", i), echosession.Limit{Sessions: step.limit}, refs[:step.gone]...)
				refs = append(refs[step.gone:], ref)
			}

			t.deletes(len(refs), t.subject)
			ref, rec := t.create()
			ref, rec = t.rotate(ref, rec, long)
			ref, _ = t.rotate(ref, rec, long)
			other := t.createEvicts("beside a rotated session", echosession.Limit{Sessions: 2})
			t.createEvicts("a rotated session gives way", echosession.Limit{Sessions: 2}, ref)
			t.createEvicts("after it", echosession.Limit{Sessions: 2}, other)
		},
	},
	{
		name: "create tells of many that gave way",
		rule: "After the limit was lowered a Create may delete hundreds of sessions, and returns the IDs of all that it deleted.",
		run: func(t *trial) {
			var refs []echosession.Ref
			for range 300 {
				ref, _ := t.create()
				refs = append(refs, ref)
			}
			last := t.createEvicts("a limit of 1", echosession.Limit{Sessions: 1}, refs...)
			t.createEvicts("the next one", echosession.Limit{Sessions: 1}, last)
		},
	},
	{
		name: "what has expired is not told to give way",
		rule: "A session whose lifetime has passed is not among the IDs that Create and Renew return, even if nothing has asked for it since: nothing was left to delete.",
		run: func(t *trial) {
			three := echosession.Limit{Sessions: 3}
			expire := func() {
				t.Helper()
				start := time.Now()
				for range 2 {
					t.createAs(t.ref(), record(), brief, echosession.Limit{})
				}
				other := t.refOf(uuid.NewString())
				t.createAs(other, record(), brief, echosession.Limit{})
				t.runsOut(start, brief, t.loading(other, 0))
			}
			a := t.createEvicts("the first", three)
			expire()
			b := t.createEvicts("there is room", three)
			c := t.createEvicts("there is room still", three)
			expire()
			d := t.createEvicts("one is too many", three, a)
			expire()
			r := t.guest("")
			t.renewEvicts("one is too many", r, three, b)
			expire()
			t.createEvicts("two are too many", echosession.Limit{Sessions: 2}, c, d)
		},
	},
	{
		name: "renew tells what gave way",
		rule: "Renew into another subject returns the IDs of the sessions that it deleted for the limit, and nil when there are none. The session that it renews is not among them. In the same subject nothing gives way.",
		run: func(t *trial) {
			two := echosession.Limit{Sessions: 2}
			r := t.guest("")
			t.renewEvicts("into an empty subject", r, two)
			a := r.to
			r = t.guest(uuid.NewString())
			t.renewEvicts("into a subject with room", r, two)
			b := r.to
			t.renewEvicts("within the subject", renewal{"", b, t.ref(), r.rec, record()}, echosession.Limit{Sessions: 1})
			b = t.refs[len(t.refs)-1]
			r = t.guest("")
			t.renewEvicts("a guest into a full subject", r, two, a)
			c := r.to
			r = t.guest(uuid.NewString())
			t.renewEvicts("from another subject into a full one", r, echosession.Limit{Sessions: 1}, b, c)

			out := t.guest(t.subject)
			out.to = t.refOf("")
			t.renewEvicts("out of the subject", out, echosession.Limit{Sessions: 1})
			for _, r := range t.renewals() {
				t.renewEvicts(r.name, r, echosession.Limit{Sessions: 1})
			}
		},
	},
	{
		name: "nothing is told to give way that stays",
		rule: "Create and Renew return no IDs when they make nothing give way: without a limit, without a subject, with RefuseNew and when they are refused.",
		run: func(t *trial) {
			one := echosession.Limit{Sessions: 1}
			t.createEvicts("the first", one)
			ref := t.createEvicts("without a limit", echosession.Limit{})
			t.renewEvicts("without a limit", t.guest(""), echosession.Limit{})

			evicted, err := t.store.Create(t.Context(), ref, record(), long, one)
			t.wantErr("Create of a taken ref", err, echosession.ErrConflict)
			t.evicts("Create of a taken ref", evicted)
			evicted, err = t.store.Create(t.Context(), t.ref(), record(), 0, one)
			t.wantRefused("Create without a lifetime", err)
			t.evicts("Create without a lifetime", evicted)
			r := t.guest("")
			evicted, err = t.store.Renew(t.Context(), r.from, r.to, record(), r.rec, long, one)
			t.wantErr("Renew of another record", err, echosession.ErrConflict)
			t.evicts("Renew of another record", evicted)
			evicted, err = t.store.Renew(t.Context(), t.refOf(""), t.ref(), r.old, r.rec, long, one)
			t.wantErr("Renew of none", err, echosession.ErrNotFound)
			t.evicts("Renew of none", evicted)

			full := echosession.Limit{Sessions: 4, WhenFull: echosession.RefuseNew}
			t.createEvicts("RefuseNew with room", full)
			evicted, err = t.store.Create(t.Context(), t.ref(), record(), long, full)
			t.wantErr("Create in a full subject", err, echosession.ErrTooManySessions)
			t.evicts("Create in a full subject", evicted)
			evicted, err = t.store.Renew(t.Context(), r.from, t.ref(), r.old, r.rec, long, full)
			t.wantErr("Renew into a full subject", err, echosession.ErrTooManySessions)
			t.evicts("Renew into a full subject", evicted)
			t.counts(t.subject, 4)

			for range 3 {
				evicted, err := t.store.Create(t.Context(), t.refOf(""), record(), long, one)
				t.wantErr("Create without a subject", err, nil)
				t.evicts("Create without a subject", evicted)
			}
		},
	},
	{
		name: "each that gave way is told once",
		rule: "Of Creates and Renews that run at the same time, exactly one returns the ID of a session that gave way, and none returns that of a session that is left.",
		run: func(t *trial) {
			const limit, writers = 3, 8
			for range rounds() / 10 {
				subject := uuid.NewString()
				var mu sync.Mutex
				told := make(map[string]int)
				records := make(map[string]string) // by ID
				var fns []func()
				for i := range writers {
					ref, rec := t.refOf(subject), record()
					records[ref.ID] = string(rec)
					write := func() ([]string, error) {
						return t.store.Create(t.Context(), ref, rec, long, echosession.Limit{Sessions: limit})
					}
					if i%2 == 1 {
						r := t.guest("")
						write = func() ([]string, error) {
							return t.store.Renew(t.Context(), r.from, ref, r.old, rec, long, echosession.Limit{Sessions: limit})
						}
					}
					fns = append(fns, func() {
						evicted, err := write()
						t.wantErr("Create or Renew", err, nil)
						mu.Lock()
						defer mu.Unlock()
						for _, id := range evicted {
							told[id]++
						}
					})
				}
				atOnce(fns...)
				list, err := t.store.List(t.Context(), subject)
				t.wantErr("List", err, nil)
				left := make(map[string]bool)
				for _, entry := range list {
					left[string(entry.Record)] = true
				}
				for id, rec := range records {
					want := 1
					if left[rec] {
						want = 0
					}
					if told[id] != want {
						t.Errorf("the ID of a session was returned %d times, want %d; it is left: %t", told[id], want, left[rec])
					}
					delete(told, id)
				}
				if len(told) > 0 {
					t.Errorf("IDs of no session of the subject: %v", told)
				}
			}
		},
	},
}
