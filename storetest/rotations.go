package storetest

import (
	"bytes"
	"time"

	"github.com/echosession/echosession"
)

var rotationCases = []testCase{
	{
		name:       "a rotated ref leads to its successor",
		rule:       "After Rotate, Load finds the new record under to, and for from returns a RotatedError that names the successor.",
		anySubject: true,
		run: func(t *trial) {
			from, old := t.create()
			to, rec := t.rotate(from, old, long)
			t.holds(to, rec)
			t.livesFor(rec, long)
			t.leads(from, rec)
			_, err := t.store.Load(t.Context(), from, long)
			if !isRotated(err) {
				t.Errorf("Load with a lifetime: error %v, want a RotatedError", err)
			}
			t.leads(from, rec)
		},
	},
	{
		name:       "the grace of a rotation ends",
		rule:       "A ref that was rotated away leads to its successor for the grace given. Nothing prolongs that: no Load, with a lifetime or without, no Touch, Replace or Rotate. The successor lives on.",
		anySubject: true,
		run: func(t *trial) {
			from, old := t.create()
			start := time.Now()
			to, rec := t.rotate(from, old, brief)
			t.runsOut(start, brief, func() error {
				t.store.Touch(t.Context(), from, long)
				t.store.Replace(t.Context(), from, old, record(), long)
				t.store.Rotate(t.Context(), from, t.ref(), old, record(), long, long)
				_, err := t.store.Load(t.Context(), from, long)
				return err
			})
			t.untouchable(from, old, rec)
			t.holds(to, rec)
			t.livesFor(rec, long)
		},
	},
	{
		name:       "a grace of zero is none",
		rule:       "With a grace of zero, Rotate removes from at once.",
		anySubject: true,
		run: func(t *trial) {
			from, old := t.create()
			to, rec := t.rotate(from, old, 0)
			t.untouchable(from, old, rec)
			t.holds(to, rec)
		},
	},
	{
		name:       "rotate compares",
		rule:       "Rotate moves the session if the record under from begins with old. If it begins otherwise the answer is ErrConflict, and an empty old is refused; then from stays as it is and nothing can be found under to.",
		anySubject: true,
		run: func(t *trial) {
			from, rec := t.create()
			for _, grace := range []time.Duration{0, long} {
				to := t.ref()
				for _, old := range [][]byte{[]byte("x"), record(), rec[1:], append(bytes.Clone(rec), 0)} {
					err := t.store.Rotate(t.Context(), from, to, old, record(), 2*long, grace)
					t.wantErr("Rotate with another old", err, echosession.ErrConflict)
					t.absent(to)
				}
				for _, old := range [][]byte{nil, {}} {
					t.wantRefused("Rotate with an empty old", t.store.Rotate(t.Context(), from, to, old, record(), 2*long, grace))
					t.absent(to)
				}
				t.holds(from, rec)
				t.livesFor(rec, long)
			}
			for _, n := range []int{1, 36, len(rec)} {
				from, rec = t.create()
				to, next := t.rotate(from, rec[:n], long)
				t.holds(to, next)
			}
		},
	},
	{
		name:       "a rotated ref takes no writes",
		rule:       "For a ref that was rotated away, Touch returns ErrNotFound, and Replace and Rotate return ErrConflict. It goes on leading to its successor, which stays as it is.",
		anySubject: true,
		run: func(t *trial) {
			from, old := t.create()
			to, rec := t.rotate(from, old, long)
			t.wantErr("Touch", t.store.Touch(t.Context(), from, 2*long), echosession.ErrNotFound)
			for _, old := range [][]byte{old, rec} {
				t.wantErr("Replace", t.store.Replace(t.Context(), from, old, record(), 2*long), echosession.ErrConflict)
				for _, grace := range []time.Duration{0, long} {
					third := t.ref()
					err := t.store.Rotate(t.Context(), from, third, old, record(), 2*long, grace)
					t.wantErr("Rotate", err, echosession.ErrConflict)
					t.absent(third)
				}
			}
			t.leads(from, rec)
			t.holds(to, rec)
			t.livesFor(rec, long)
		},
	},
	{
		name:       "rotations form a chain",
		rule:       "A session that was rotated more than once can be found from each of its refs during their grace, in one step or in several.",
		anySubject: true,
		run: func(t *trial) {
			refs, last := t.chain()
			for _, ref := range refs[:3] {
				t.leads(ref, last)
			}
			t.holds(refs[3], last)
		},
	},
	{
		name:       "delete follows rotations",
		rule:       "Delete of a ref that was rotated away removes its successors to the end of the chain, so that the session cannot be found from any of its refs.",
		anySubject: true,
		run: func(t *trial) {
			for i := range 4 {
				refs, last := t.chain()
				for range 2 {
					t.wantErr("Delete", t.store.Delete(t.Context(), refs[i]), nil)
				}
				for _, ref := range refs {
					t.leadsNowhere(ref)
				}
				t.untouchable(refs[3], last)
				if t.subject != "" {
					t.lists(t.subject)
				}
			}
		},
	},
}

// chain creates a session and rotates it three times. It returns its refs and its
// record.
func (t *trial) chain() (refs []echosession.Ref, rec []byte) {
	t.Helper()
	ref, rec := t.create()
	refs = append(refs, ref)
	for range 3 {
		ref, rec = t.rotate(ref, rec, long)
		refs = append(refs, ref)
	}
	return refs, rec
}
