package storetest

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/echosession/echosession"
)

// renewedFor is how long a ref that was renewed says so.
const renewedFor = time.Minute

// A renewal is a session to be renewed, and the ref that it is to get.
type renewal struct {
	name     string // says whose the sessions are
	from, to echosession.Ref
	old, rec []byte
}

// renewals creates sessions to be renewed, each of a subject of its own or of none: under
// the same subject, under another one, and under none.
func (t *trial) renewals() []renewal {
	t.Helper()
	one, two, three, four, five := uuid.NewString(), uuid.NewString(), uuid.NewString(), uuid.NewString(), uuid.NewString()
	var list []renewal
	for _, r := range []struct{ name, from, to string }{
		{"same subject", one, one},
		{"another subject", two, three},
		{"from a subject to none", four, ""},
		{"from none to a subject", "", five},
		{"no subject", "", ""},
	} {
		from, old := t.refOf(r.from), record()
		t.createAs(from, old, long, echosession.Limit{})
		list = append(list, renewal{r.name, from, t.refOf(r.to), old, record()})
	}
	return list
}

func (t *trial) renew(r renewal) error {
	return errOf(t.store.Renew(t.Context(), r.from, r.to, r.old, r.rec, long, echosession.Limit{}))
}

// renewedTo renews and checks that it works.
func (t *trial) renewedTo(r renewal) {
	t.Helper()
	t.wantErr(r.name+": Renew", t.renew(r), nil)
}

// isRenewed checks that every method says so of the ref from before.
func (t *trial) isRenewed(r renewal) {
	t.Helper()
	for _, ttl := range []time.Duration{0, 2 * long} {
		got, err := t.store.Load(t.Context(), r.from, ttl)
		t.wantErr(r.name+": Load of the old ref", err, echosession.ErrRenewed)
		if got != nil {
			t.Errorf("%s: Load of the old ref: record %.80q beside the error", r.name, got)
		}
	}
	_, err := t.store.Check(t.Context(), r.from)
	t.wantErr(r.name+": Check of the old ref", err, echosession.ErrRenewed)
	t.wantErr(r.name+": Touch of the old ref", t.store.Touch(t.Context(), r.from, 2*long), echosession.ErrRenewed)
	t.wantErr(r.name+": Delete of the old ref", t.store.Delete(t.Context(), r.from), echosession.ErrRenewed)
	for _, old := range [][]byte{r.old, r.rec} {
		t.wantErr(r.name+": Replace of the old ref", t.store.Replace(t.Context(), r.from, old, record(), 2*long), echosession.ErrRenewed)
		third := t.refOf(r.from.Subject)
		err := t.store.Rotate(t.Context(), r.from, third, old, record(), 2*long, long)
		t.wantErr(r.name+": Rotate of the old ref", err, echosession.ErrRenewed)
		t.unfound(third)
		again := r
		again.to, again.old = t.refOf(r.to.Subject), old
		t.wantErr(r.name+": Renew of the old ref", t.renew(again), echosession.ErrRenewed)
		t.unfound(again.to)
	}
}

// unfound checks that no method finds anything under ref.
func (t *trial) unfound(ref echosession.Ref) {
	t.Helper()
	t.absent(ref)
	_, err := t.store.Load(t.Context(), ref, long)
	t.wantErr("Load of none with a lifetime", err, echosession.ErrNotFound)
	_, err = t.store.Check(t.Context(), ref)
	t.wantErr("Check of none", err, echosession.ErrNotFound)
	t.wantErr("Touch of none", t.store.Touch(t.Context(), ref, long), echosession.ErrNotFound)
	t.wantErr("Replace of none", t.store.Replace(t.Context(), ref, []byte("x"), record(), long), echosession.ErrNotFound)
}

// counts checks that Count returns n, and List as many sessions.
func (t *trial) counts(subject string, n int) {
	t.Helper()
	got, err := t.store.Count(t.Context(), subject)
	if err != nil || got != n {
		t.Errorf("Count: %d, error %v, want %d", got, err, n)
	}
	list, err := t.store.List(t.Context(), subject)
	if err != nil || len(list) != min(n, echosession.MaxListed) {
		t.Errorf("List: %d sessions, error %v, want %d", len(list), err, n)
	}
}

// scans counts how often Scan visits a record.
func (t *trial) scans(rec []byte) (n int) {
	t.Helper()
	for entry, err := range t.store.Scan(t.Context()) {
		if err != nil {
			t.Fatalf("Scan: %v", err)
		}
		if bytes.Equal(entry.Record, rec) {
			n++
		}
	}
	return n
}

var renewalCases = []testCase{
	{
		name: "renew moves a session",
		rule: "After Renew, Load finds the new record under to with the lifetime given. The session is in the subject of to, and the one from before is nowhere any more.",
		run: func(t *trial) {
			for _, r := range t.renewals() {
				t.renewedTo(r)
				t.holds(r.to, r.rec)
				t.livesFor(r.rec, long)
				if n := t.scans(r.old); n != 0 {
					t.Errorf("%s: Scan visits the record from before", r.name)
				}
				t.wantErr(r.name+": Replace", t.store.Replace(t.Context(), r.to, r.rec, r.rec, long), nil)
				if r.to.Subject != "" {
					t.counts(r.to.Subject, 1)
					t.deletes(1, r.to.Subject)
					t.unfound(r.to)
				}
				t.counts(r.from.Subject, 0)
			}
		},
	},
	{
		name: "a renewed ref says so",
		rule: "For a minute after Renew, every method returns ErrRenewed for from: Load, Check, Touch, Replace, Rotate, Renew and Delete. They change nothing, and nothing leads to the successor.",
		run: func(t *trial) {
			for _, r := range t.renewals() {
				t.renewedTo(r)
				for range 2 {
					t.isRenewed(r)
				}
				t.holds(r.to, r.rec)
				t.livesFor(r.rec, long)
				t.wantErr("Delete", t.store.Delete(t.Context(), r.to), nil)
				t.isRenewed(r)
				t.unfound(r.to)
			}
		},
	},
	{
		name: "a renewed ref is forgotten",
		rule: "A minute after Renew there is nothing under from. No use of from prolongs that minute. The successor lives on.",
		run: func(t *trial) {
			for _, r := range t.renewals() {
				t.renewedTo(r)
				if t.advance == nil {
					t.isRenewed(r) // a minute is too long to wait
					continue
				}
				t.isRenewed(r)
				t.advance(renewedFor - time.Millisecond)
				t.isRenewed(r)
				t.advance(time.Millisecond)
				t.untouchable(r.from, r.old, r.rec)
				t.holds(r.to, r.rec)
			}
		},
	},
	{
		name: "renew compares",
		rule: "Renew moves the session if the record under from begins with old. If it begins otherwise the answer is ErrConflict, and an empty old is refused. So is a from that is to. Then from stays as it is and nothing can be found under to.",
		run: func(t *trial) {
			for _, r := range t.renewals() {
				for _, old := range [][]byte{[]byte("x"), record(), r.old[1:], append(bytes.Clone(r.old), 0)} {
					other := r
					other.old = old
					t.wantErr(r.name+": Renew with another old", t.renew(other), echosession.ErrConflict)
					t.unfound(r.to)
				}
				for _, old := range [][]byte{nil, {}} {
					other := r
					other.old = old
					t.wantRefused(r.name+": Renew with an empty old", t.renew(other))
					t.unfound(r.to)
				}
				own := r
				own.to = r.from
				t.wantRefused(r.name+": Renew under its own ID", t.renew(own))
				t.holds(r.from, r.old)
				t.livesFor(r.old, long)
				if r.to.Subject != r.from.Subject {
					t.counts(r.to.Subject, 0)
				}
				if n := t.scans(r.rec); n != 0 {
					t.Errorf("%s: Scan visits the record of a refused Renew", r.name)
				}
				r.old = r.old[:36]
				t.renewedTo(r)
				t.holds(r.to, r.rec)
			}
		},
	},
	{
		name: "renew of none",
		rule: "Where there is no record Renew returns ErrNotFound, and nothing can be found under to.",
		run: func(t *trial) {
			for _, r := range t.renewals() {
				t.wantErr("Delete", t.store.Delete(t.Context(), r.from), nil)
				t.wantErr(r.name+": Renew of a deleted session", t.renew(r), echosession.ErrNotFound)
				t.unfound(r.to)
				r.from = t.refOf(r.from.Subject)
				t.wantErr(r.name+": Renew of none", t.renew(r), echosession.ErrNotFound)
				t.unfound(r.to)
				if r.from.Subject != "" {
					t.createAs(r.from, r.old, long, echosession.Limit{})
					t.deletes(1, r.from.Subject)
					t.wantErr(r.name+": Renew of a revoked session", t.renew(r), echosession.ErrNotFound)
					t.unfound(r.to)
				}
				t.counts(r.to.Subject, 0)
			}
		},
	},
	{
		name: "renew leaves a taken ref",
		rule: "Renew returns ErrConflict when to holds a record. Both sessions stay as they are.",
		run: func(t *trial) {
			for _, r := range t.renewals() {
				taken := record()
				t.createAs(r.to, taken, long, echosession.Limit{})
				t.wantErr(r.name+": Renew", t.renew(r), echosession.ErrConflict)
				t.holds(r.from, r.old)
				t.holds(r.to, taken)
			}
		},
	},
	{
		name: "no pointer leads into a login",
		rule: "A ref that was rotated away before its session was renewed leads to the ref that says ErrRenewed, and not to the new session. Renew of it returns ErrConflict. Delete of it returns ErrRenewed and removes nothing.",
		run: func(t *trial) {
			for _, r := range t.renewals() {
				first := r.from
				for range 2 {
					to, rec := t.refOf(first.Subject), record()
					t.wantErr("Rotate", t.store.Rotate(t.Context(), r.from, to, r.old, rec, long, long), nil)
					r.from, r.old = to, rec
				}
				pointer := r
				pointer.from = first
				t.wantErr(r.name+": Renew of a rotated ref", t.renew(pointer), echosession.ErrConflict)
				t.unfound(r.to)
				t.renewedTo(r)
				for range 2 {
					_, err := t.follow(first)
					t.wantErr(r.name+": Load of the rotated ref", err, echosession.ErrRenewed)
					t.wantErr(r.name+": Delete of the rotated ref", t.store.Delete(t.Context(), first), echosession.ErrRenewed)
					_, err = t.store.Load(t.Context(), first, 0)
					if !isRotated(err) {
						t.Errorf("%s: after Delete, Load of the rotated ref: error %v, want a RotatedError", r.name, err)
					}
				}
				t.isRenewed(r)
				t.holds(r.to, r.rec)
			}
		},
	},
	{
		name: "an exception does not follow a renewal",
		rule: "DeleteSubject spares the sessions with the IDs given and their successors by Rotate, and not by Renew: who knows the ID from before a login has no say in what comes after it.",
		run: func(t *trial) {
			r := t.renewals()[0]
			first, to, rec := r.from, t.refOf(r.from.Subject), record()
			t.wantErr("Rotate", t.store.Rotate(t.Context(), first, to, r.old, rec, long, long), nil)
			r.from, r.old = to, rec
			t.renewedTo(r)
			t.deletes(1, r.from.Subject, first.ID, r.from.ID)
			t.unfound(r.to)
		},
	},
	{
		name: "a renewed session has its place",
		rule: "With the same subject, the new session has the place of the old one in the order of List. In another subject it is the newest.",
		run: func(t *trial) {
			_, a := t.create()
			same, old := t.create()
			_, c := t.create()
			r := renewal{"same subject", same, t.ref(), old, record()}
			t.renewedTo(r)
			t.lists(t.subject, a, r.rec, c)

			guest, old := t.refOf(""), record()
			t.createAs(guest, old, long, echosession.Limit{})
			_, d := t.create()
			login := renewal{"from none to a subject", guest, t.ref(), old, record()}
			t.renewedTo(login)
			t.lists(t.subject, a, r.rec, c, d, login.rec)
			_, e := t.create()
			t.lists(t.subject, a, r.rec, c, d, login.rec, e)
		},
	},
	{
		name: "a limit holds for renewals",
		rule: "In another subject the limit holds for Renew as for Create: the oldest sessions give way. In the same subject the number of sessions stays, so no limit has an effect, and none without a subject.",
		run: func(t *trial) {
			for _, when := range []echosession.WhenFull{echosession.EvictOldest, echosession.RefuseNew} {
				for _, r := range t.renewals() {
					if r.from.Subject != r.to.Subject && r.to.Subject != "" {
						continue
					}
					one := echosession.Limit{Sessions: 1, WhenFull: when}
					another, kept := t.refOf(r.to.Subject), record()
					t.createAs(another, kept, long, echosession.Limit{})
					t.wantErr(r.name+": Renew", errOf(t.store.Renew(t.Context(), r.from, r.to, r.old, r.rec, long, one)), nil)
					t.holds(another, kept)
					t.holds(r.to, r.rec)
				}
			}
			r := t.renewals()[1]
			var refs []echosession.Ref
			var records [][]byte
			for range 4 {
				ref, rec := t.refOf(r.to.Subject), record()
				t.createAs(ref, rec, long, echosession.Limit{})
				refs, records = append(refs, ref), append(records, rec)
			}
			_, err := t.store.Renew(t.Context(), r.from, r.to, r.old, r.rec, long, echosession.Limit{Sessions: 3})
			t.wantErr("Renew beyond the limit", err, nil)
			t.lists(r.to.Subject, records[2], records[3], r.rec)
			t.unfound(refs[0])
			t.unfound(refs[1])
			t.counts(r.to.Subject, 3)
		},
	},
	{
		name: "a full subject refuses sessions",
		rule: "With RefuseNew, Create and Renew into a subject that has as many sessions as the limit return ErrTooManySessions. Nothing is stored then, nothing gives way, and the session to be renewed stays as it is. Sessions that have expired do not count, and to create the same record again succeeds.",
		run: func(t *trial) {
			full := echosession.Limit{Sessions: 3, WhenFull: echosession.RefuseNew}
			guest, old := t.refOf(""), record()
			t.createAs(guest, old, long, echosession.Limit{})
			var refs []echosession.Ref
			var records [][]byte
			for range 3 {
				ref, rec := t.ref(), record()
				t.createAs(ref, rec, long, full)
				refs, records = append(refs, ref), append(records, rec)
			}
			refused := func() {
				t.Helper()
				ref := t.ref()
				t.wantErr("Create", errOf(t.store.Create(t.Context(), ref, record(), long, full)), echosession.ErrTooManySessions)
				t.unfound(ref)
				_, err := t.store.Renew(t.Context(), guest, ref, old, record(), long, full)
				t.wantErr("Renew", err, echosession.ErrTooManySessions)
				t.unfound(ref)
				t.holds(guest, old)
				t.lists(t.subject, records...)
				t.counts(t.subject, 3)
			}
			refused()
			t.createAs(refs[1], records[1], long, full)
			t.lists(t.subject, records...)

			// One place is free when a session is deleted, and when one expires.
			t.wantErr("Delete", t.store.Delete(t.Context(), refs[0]), nil)
			login := renewal{"from none to a subject", guest, t.ref(), old, record()}
			t.wantErr("Renew", errOf(t.store.Renew(t.Context(), login.from, login.to, login.old, login.rec, long, full)), nil)
			records = append(records[1:], login.rec)
			guest, old = t.refOf(""), record()
			t.createAs(guest, old, long, echosession.Limit{})
			refused()
			start := time.Now()
			t.wantErr("Touch", t.store.Touch(t.Context(), refs[1], brief), nil)
			t.runsOut(start, brief, t.loading(refs[1], 0))
			last := record()
			t.createAs(t.ref(), last, long, full)
			records = append(records[1:], last)
			refused()
			_, err := t.store.Renew(t.Context(), t.refOf(""), t.ref(), old, record(), long, full)
			t.anyOf("Renew of none into a full subject", err, echosession.ErrTooManySessions, echosession.ErrNotFound)
			t.wantErr("Renew into a full subject, of a session that was renewed", errOf(t.store.Renew(t.Context(), login.from, t.ref(), old, record(), long, full)), echosession.ErrRenewed)
			t.lists(t.subject, records...)
		},
	},
	{
		name: "no limit is reached early",
		rule: "With RefuseNew, whatever has expired or was refused, renewed away or deleted takes no place: there can be as many sessions as the limit says.",
		run: func(t *trial) {
			full := echosession.Limit{Sessions: 5, WhenFull: echosession.RefuseNew}
			for round := range 3 {
				for range 5 {
					t.createAs(t.ref(), record(), long, full)
				}
				t.wantErr("Create", errOf(t.store.Create(t.Context(), t.ref(), record(), long, full)), echosession.ErrTooManySessions)
				switch round {
				case 0:
					t.deletes(5, t.subject)
				case 1:
					list, err := t.store.List(t.Context(), t.subject)
					t.wantErr("List", err, nil)
					for _, entry := range list {
						for _, ref := range t.refs {
							_, err := t.store.Renew(t.Context(), ref, t.refOf(uuid.NewString()), entry.Record, record(), long, full)
							t.anyOf("Renew", err, echosession.ErrNotFound, echosession.ErrConflict, echosession.ErrRenewed)
						}
					}
					t.counts(t.subject, 0)
				}
			}
			t.counts(t.subject, 5)
		},
	},
	{
		name:       "check tells the lifetime",
		rule:       "Check returns the lifetime that a session has left. It returns ErrNotFound where there is none, and a RotatedError for a ref that was rotated away.",
		anySubject: true,
		run: func(t *trial) {
			_, err := t.store.Check(t.Context(), t.ref())
			t.wantErr("Check of none", err, echosession.ErrNotFound)
			ref, rec := t.create()
			t.hasLeft(ref, long)
			t.wantErr("Touch", t.store.Touch(t.Context(), ref, 3*long), nil)
			t.hasLeft(ref, 3*long)
			t.holds(ref, rec)
			to, _ := t.rotate(ref, rec, long)
			_, err = t.store.Check(t.Context(), ref)
			var rotated *echosession.RotatedError
			if !errors.As(err, &rotated) || rotated.To != to.ID {
				t.Errorf("Check of a rotated ref: error %v, want a RotatedError that names the successor", err)
			}
			t.hasLeft(to, long)
			t.wantErr("Delete", t.store.Delete(t.Context(), to), nil)
			_, err = t.store.Check(t.Context(), to)
			t.wantErr("Check of a deleted session", err, echosession.ErrNotFound)
		},
	},
	{
		name:       "check restarts nothing",
		rule:       "Check restarts no lifetime, and prolongs no grace: who only checks sees a session end.",
		anySubject: true,
		run: func(t *trial) {
			ref, rec := t.ref(), record()
			start := time.Now()
			t.createAs(ref, rec, brief, echosession.Limit{})
			check := func() error {
				_, err := t.store.Check(t.Context(), ref)
				return err
			}
			t.runsOut(start, brief, check)
			ref, rec = t.create()
			start = time.Now()
			t.rotate(ref, rec, brief)
			t.runsOut(start, brief, check)
		},
	},
	{
		name:       "check goes past caches",
		rule:       "A Check that begins when a session was deleted, revoked or renewed says so, whatever Loads have filled a cache.",
		anySubject: true,
		run: func(t *trial) {
			deleted, _ := t.create()
			revoked, _ := t.create()
			renewed, old := t.create()
			t.pass(settled)
			for _, ref := range []echosession.Ref{deleted, revoked, renewed} {
				for range 2 {
					t.wantErr("Load", errOf(t.store.Load(t.Context(), ref, 0)), nil)
					t.wantErr("Check", errOf(t.store.Check(t.Context(), ref)), nil)
				}
			}
			t.wantErr("Delete", t.store.Delete(t.Context(), deleted), nil)
			t.wantErr("Check of a deleted session", errOf(t.store.Check(t.Context(), deleted)), echosession.ErrNotFound)
			r := renewal{"same subject", renewed, t.ref(), old, record()}
			t.renewedTo(r)
			t.wantErr("Check of a renewed session", errOf(t.store.Check(t.Context(), renewed)), echosession.ErrRenewed)
			t.hasLeft(r.to, long)
			if t.subject != "" {
				t.deletes(2, t.subject)
				t.wantErr("Check of a revoked session", errOf(t.store.Check(t.Context(), revoked)), echosession.ErrNotFound)
			}
		},
	},
	{
		name: "count is what can be listed",
		rule: "Count returns how many live sessions a subject has: each once, however many refs lead to it, and none that was deleted, renewed away or has expired. Without a subject it returns 0.",
		run: func(t *trial) {
			t.counts(t.subject, 0)
			t.counts("", 0)
			var refs []echosession.Ref
			var records [][]byte
			for i := range 5 {
				ref, rec := t.create()
				refs, records = append(refs, ref), append(records, rec)
				t.counts(t.subject, i+1)
			}
			t.create()
			t.createAs(t.refOf(""), record(), long, echosession.Limit{})
			t.createAs(t.refOf(uuid.NewString()), record(), long, echosession.Limit{})
			t.counts(t.subject, 6)
			t.rotate(refs[0], records[0], long)
			t.counts(t.subject, 6)
			t.renewedTo(renewal{"same subject", refs[1], t.ref(), records[1], record()})
			t.counts(t.subject, 6)
			t.renewedTo(renewal{"another subject", refs[2], t.refOf(uuid.NewString()), records[2], record()})
			t.counts(t.subject, 5)
			t.wantErr("Delete", t.store.Delete(t.Context(), refs[3]), nil)
			t.counts(t.subject, 4)
			start := time.Now()
			t.wantErr("Touch", t.store.Touch(t.Context(), refs[4], brief), nil)
			t.runsOut(start, brief, t.loading(refs[4], 0))
			t.counts(t.subject, 3)
			t.counts("", 0)
			t.deletes(3, t.subject)
			t.counts(t.subject, 0)
		},
	},
	{
		name: "no update is lost by a renewal",
		rule: "Renew compares and moves in one step: of the Replaces that run at the same time, each that returned no error is in the record that Renew moved. The others get ErrConflict or ErrRenewed.",
		run:  func(t *trial) { t.renewAmongUpdates() },
	},
	{
		name: "a session is renewed once",
		rule: "Of the Renews of one session that run at once, one succeeds. The others get ErrRenewed, and nothing can be found under their to.",
		run: func(t *trial) {
			for range rounds() / 30 {
				for _, r := range t.renewals() {
					all := []renewal{r, r, r}
					errs := make([]error, len(all))
					var fns []func()
					for i := range all {
						all[i].to, all[i].rec = t.refOf(r.to.Subject), record()
						fns = append(fns, func() { errs[i] = t.renew(all[i]) })
					}
					atOnce(fns...)
					won := slices.Index(errs, nil)
					if won < 0 {
						t.Errorf("%s: no Renew succeeded: %v", r.name, errs)
						return
					}
					for i, err := range errs {
						if i != won {
							t.wantErr(r.name+": the Renew that came later", err, echosession.ErrRenewed)
							t.unfound(all[i].to)
						}
					}
					t.holds(all[won].to, all[won].rec)
					if r.to.Subject != "" {
						t.deletes(1, r.to.Subject)
					}
				}
			}
		},
	},
	{
		name: "delete and renew agree",
		rule: "When Delete and Renew of one session run at once, one of them wins: either Delete succeeds, Renew returns ErrNotFound and there is no session, or Renew succeeds, Delete returns ErrRenewed and the new session is there.",
		run: func(t *trial) {
			for range rounds() / 10 {
				for _, r := range t.renewals() {
					var deleted, renewed error
					atOnce(
						func() { deleted = t.store.Delete(t.Context(), r.from) },
						func() { renewed = t.renew(r) },
					)
					switch {
					case deleted == nil && errors.Is(renewed, echosession.ErrNotFound):
						t.absent(r.from)
						t.unfound(r.to)
					case renewed == nil && errors.Is(deleted, echosession.ErrRenewed):
						t.holds(r.to, r.rec)
					default:
						t.Errorf("%s: Delete: %v, Renew: %v", r.name, deleted, renewed)
					}
					if r.to.Subject != "" {
						_, err := t.store.DeleteSubject(t.Context(), r.to.Subject, nil)
						t.wantErr("DeleteSubject", err, nil)
					}
				}
			}
		},
	},
	{
		name: "revocation and renew agree",
		rule: "When DeleteSubject runs at once with a Renew from or into the subject, the new session is afterwards either listed and can be loaded, or neither. A session of the subject is gone, and so is its successor in the same subject. If Renew failed there is no new session.",
		run: func(t *trial) {
			for range rounds() / 10 {
				for _, r := range t.renewals() {
					for _, subject := range []string{r.from.Subject, r.to.Subject} {
						if subject == "" {
							continue
						}
						r.from, r.to = t.refOf(r.from.Subject), t.refOf(r.to.Subject)
						t.createAs(r.from, r.old, long, echosession.Limit{})
						var renewed error
						atOnce(
							func() { t.wantErr("DeleteSubject", errOf(t.store.DeleteSubject(t.Context(), subject, nil)), nil) },
							func() { renewed = t.renew(r) },
						)
						t.anyOf(r.name+": Renew", renewed, echosession.ErrNotFound)
						_, err := t.store.Load(t.Context(), r.to, 0)
						t.anyOf(r.name+": Load", err, echosession.ErrNotFound)
						found := err == nil
						if r.from.Subject == r.to.Subject && found || renewed != nil && found {
							t.Errorf("%s: a revoked session lives on: Renew: %v", r.name, renewed)
						}
						if n := t.scans(r.rec); (n > 0) != found {
							t.Errorf("%s: Scan visits it %d times, and that it can be loaded is %v", r.name, n, found)
						}
						if r.to.Subject != "" {
							n := 0
							if found {
								n = 1
							}
							t.counts(r.to.Subject, n)
							t.deletes(n, r.to.Subject)
						}
						if subject == r.from.Subject {
							_, err := t.store.Load(t.Context(), r.from, long)
							if err == nil {
								t.Errorf("%s: the session from before lives on", r.name)
							}
						}
					}
				}
			}
		},
	},
	{
		name: "a full subject refuses at every moment",
		rule: "With RefuseNew, of the Creates and Renews that run at once as many succeed as there is room for. At no moment are there more sessions than the limit allows.",
		run: func(t *trial) {
			full := echosession.Limit{Sessions: 3, WhenFull: echosession.RefuseNew}
			for range max(4, rounds()/30) { // three Renews may come first
				subject := uuid.NewString()
				var made, going atomic.Int32
				count := func(what string, err error) {
					t.anyOf(what, err, echosession.ErrTooManySessions)
					if err == nil {
						made.Add(1)
					}
					going.Add(-1)
				}
				var fns []func()
				for i := range 20 {
					ref := t.refOf(subject)
					if i%2 == 0 {
						fns = append(fns, func() { count("Create", errOf(t.store.Create(t.Context(), ref, record(), long, full))) })
						continue
					}
					guest, old := t.refOf(""), record()
					t.createAs(guest, old, long, echosession.Limit{})
					fns = append(fns, func() {
						count("Renew", errOf(t.store.Renew(t.Context(), guest, ref, old, record(), long, full)))
					})
				}
				going.Store(int32(len(fns)))
				fns = append(fns, func() {
					for going.Load() > 0 {
						n, err := t.store.Count(t.Context(), subject)
						if err != nil || n > full.Sessions {
							t.Errorf("Count: %d sessions, error %v, want at most %d", n, err, full.Sessions)
						}
					}
				})
				atOnce(fns...)
				if n := made.Load(); int(n) != full.Sessions {
					t.Errorf("%d calls succeeded, want %d", n, full.Sessions)
				}
				t.counts(subject, full.Sessions)
				t.deletes(full.Sessions, subject)
			}
		},
	},
}

// hasLeft checks that Check returns nearly ttl.
func (t *trial) hasLeft(ref echosession.Ref, ttl time.Duration) {
	t.Helper()
	left, err := t.store.Check(t.Context(), ref)
	if err != nil || left <= ttl-ttl/4 || left > ttl+time.Second {
		t.Errorf("Check: %v, error %v, want a lifetime of %v", left, err, ttl)
	}
}

// errOf returns the error of a call.
func errOf[V any](_ V, err error) error { return err }

// renewAmongUpdates counts up in a session while it is renewed.
func (t *trial) renewAmongUpdates() {
	const writers, increments = 4, 10
	const revision = len("00000000-0000-0000-0000-000000000000")
	counter := func(n int) []byte { return []byte(uuid.NewString() + strconv.Itoa(n)) }
	read := func(rec []byte) (n int) {
		n, err := strconv.Atoi(string(rec[min(len(rec), revision):]))
		if err != nil {
			t.Errorf("the record is %.80q", rec)
		}
		return n
	}
	for range max(2, rounds()/100) {
		for _, r := range t.renewals() {
			t.wantErr("Replace", t.store.Replace(t.Context(), r.from, r.old, counter(0), long), nil)
			var applied atomic.Int32
			increment := func() (more bool) {
				rec, err := t.store.Load(t.Context(), r.from, 0)
				if err == nil {
					err = t.store.Replace(t.Context(), r.from, rec[:revision], counter(read(rec)+1), long)
				}
				t.anyOf("Load and Replace", err, echosession.ErrConflict, echosession.ErrRenewed)
				if err == nil {
					applied.Add(1)
				}
				return err == nil || errors.Is(err, echosession.ErrConflict)
			}
			var fns []func()
			for range writers {
				fns = append(fns, func() {
					for n := 0; n < increments && increment(); n++ {
					}
				})
			}
			fns = append(fns, func() {
				// Each conflict is a success of a writer.
				for range 1 + writers*increments {
					rec, err := t.store.Load(t.Context(), r.from, 0)
					if err != nil {
						t.Errorf("Load: %v", err)
						return
					}
					r.to = t.refOf(r.to.Subject)
					_, err = t.store.Renew(t.Context(), r.from, r.to, rec[:revision], counter(read(rec)), long, echosession.Limit{})
					if !errors.Is(err, echosession.ErrConflict) {
						t.wantErr("Renew", err, nil)
						return
					}
					t.absent(r.to)
				}
				t.Errorf("more conflicts than writes")
			})
			atOnce(fns...)
			rec, err := t.store.Load(t.Context(), r.to, 0)
			if err != nil || read(rec) != int(applied.Load()) {
				t.Errorf("%s: after %d updates the record is %.80q, error %v", r.name, applied.Load(), rec, err)
			}
			t.wantErr("Delete", t.store.Delete(t.Context(), r.to), nil)
		}
	}
}
