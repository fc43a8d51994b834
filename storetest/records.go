package storetest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"

	"github.com/echosession/echosession"
)

var recordCases = []testCase{
	{
		name:       "load returns what was created",
		rule:       "A record is opaque: Load returns byte for byte what Create, or the last Replace, stored.",
		anySubject: true,
		run: func(t *trial) {
			every := make([]byte, 256)
			for i := range every {
				every[i] = byte(i)
			}
			big := make([]byte, 64<<10)
			rand.NewChaCha8([32]byte{}).Read(big)
			big[0] = 0x80

			ref, old := t.create()
			for _, rec := range [][]byte{{0}, {0xff, 0xfe}, []byte("\r\n"), []byte("nil"), every, big} {
				created := t.ref()
				t.createAs(created, rec, long, echosession.Limit{})
				t.holds(created, rec)
				t.wantErr("Replace", t.store.Replace(t.Context(), ref, old, rec, long), nil)
				t.holds(ref, rec)
				old = rec
			}
		},
	},
	{
		name:       "what is absent is not found",
		rule:       "Where there is no record, Load, Check, Replace, Touch, Rotate and Renew return ErrNotFound, Delete returns no error, and afterwards there is still no record.",
		anySubject: true,
		run: func(t *trial) {
			t.untouchable(t.ref())
		},
	},
	{
		name:       "create leaves a taken ref",
		rule:       "Create returns ErrConflict when the ref holds another record. That record and the other sessions of the subject stay as they are.",
		anySubject: true,
		run: func(t *trial) {
			other, otherRecord := t.create()
			ref, rec := t.create()
			t.wantErr("Create", errOf(t.store.Create(t.Context(), ref, record(), 2*long, echosession.Limit{Sessions: 1})), echosession.ErrConflict)
			longer := append(bytes.Clone(rec), 'x')
			t.wantErr("Create", errOf(t.store.Create(t.Context(), ref, longer, 2*long, echosession.Limit{Sessions: 1})), echosession.ErrConflict)
			t.holds(ref, rec)
			t.livesFor(rec, long)
			t.holds(other, otherRecord)
		},
	},
	{
		name:       "create may be repeated",
		rule:       "Create returns ErrConflict for another record only. To create the same record again succeeds: a retry after a lost reply looks like that. It keeps its place among the sessions of its subject, and makes newer ones give way rather than its own.",
		anySubject: true,
		run: func(t *trial) {
			other, otherRecord := t.create()
			ref, rec := t.ref(), record()
			for range 3 {
				t.createAs(ref, rec, long, echosession.Limit{Sessions: 2})
			}
			t.holds(ref, rec)
			t.holds(other, otherRecord)
			_, newer := t.create()
			t.createAs(ref, rec, long, echosession.Limit{})
			if t.subject != "" {
				t.lists(t.subject, otherRecord, rec, newer)
			}
			t.createAs(ref, rec, long, echosession.Limit{Sessions: 1})
			t.holds(ref, rec)
		},
	},
	{
		name:       "replace compares",
		rule:       "Replace stores the record if the one there begins with old. If it begins otherwise the answer is ErrConflict, and an empty old is refused; then nothing is changed.",
		anySubject: true,
		run: func(t *trial) {
			ref, rec := t.ref(), []byte("a%.*\x00[b]?+$\xff data")
			t.createAs(ref, rec, long, echosession.Limit{})
			for _, old := range [][]byte{
				[]byte("x"), []byte("A"), []byte("."), []byte("a*"), []byte("a%%"), []byte("^a"), []byte("a%.*\x00c"),
				rec[1:], append(bytes.Clone(rec), 0), append(bytes.Clone(rec), 'x'),
			} {
				t.wantErr("Replace with another old", t.store.Replace(t.Context(), ref, old, record(), 2*long), echosession.ErrConflict)
			}
			for _, old := range [][]byte{nil, {}} {
				t.wantRefused("Replace with an empty old", t.store.Replace(t.Context(), ref, old, record(), 2*long))
			}
			t.holds(ref, rec)
			t.livesFor(rec, long)

			for _, n := range []int{1, 5, 9, len(rec)} {
				t.wantErr("Replace", t.store.Replace(t.Context(), ref, rec[:n], rec, long), nil)
			}
			next := record()
			t.wantErr("Replace", t.store.Replace(t.Context(), ref, rec, next, long), nil)
			t.holds(ref, next)
			t.wantErr("Replace with the old record", t.store.Replace(t.Context(), ref, rec, record(), long), echosession.ErrConflict)
			t.holds(ref, next)
		},
	},
	{
		name:       "delete removes",
		rule:       "Delete removes the record, and nothing but Create or Rotate brings it back. It returns no error when there is nothing to remove.",
		anySubject: true,
		run: func(t *trial) {
			other, otherRecord := t.create()
			ref, rec := t.create()
			for range 2 {
				t.wantErr("Delete", t.store.Delete(t.Context(), ref), nil)
				t.untouchable(ref, rec)
			}
			t.holds(other, otherRecord)

			t.createAs(ref, rec, long, echosession.Limit{})
			t.holds(ref, rec)
		},
	},
	{
		name:       "a store reads what it wrote",
		rule:       "A Load that begins when a write has returned finds what was written, even if earlier Loads filled a cache.",
		anySubject: true,
		run: func(t *trial) {
			replaced, replacedRecord := t.create()
			rotated, rotatedRecord := t.create()
			deleted, _ := t.create()
			old, oldRecord := t.create()
			last, _ := t.rotate(old, oldRecord, long)
			others := []echosession.Ref{}
			for range 3 {
				ref, _ := t.create()
				others = append(others, ref)
			}
			renewals := t.renewals()
			evicted := t.refOf(renewals[3].to.Subject) // by a Renew
			t.createAs(evicted, record(), long, echosession.Limit{})
			guest, guestRecord := t.refOf(""), record()
			t.createAs(guest, guestRecord, long, echosession.Limit{})
			created, to := t.ref(), t.ref()
			t.pass(settled)
			look := func() {
				for _, ref := range t.refs {
					_, _ = t.store.Load(t.Context(), ref, 0)
				}
			}
			look()

			rec := record()
			t.createAs(created, rec, long, echosession.Limit{})
			t.holds(created, rec)
			t.wantErr("Replace", t.store.Replace(t.Context(), replaced, replacedRecord, rec, long), nil)
			t.holds(replaced, rec)
			t.wantErr("Rotate", t.store.Rotate(t.Context(), rotated, to, rotatedRecord, rec, long, long), nil)
			t.holds(to, rec)
			t.leads(rotated, rec)
			for _, r := range renewals {
				t.renewedTo(r)
				t.holds(r.to, r.rec)
				_, err := t.store.Load(t.Context(), r.from, 0)
				t.wantErr(r.name+": Load of the old ref", err, echosession.ErrRenewed)
			}
			t.wantErr("Delete", t.store.Delete(t.Context(), deleted), nil)
			t.absent(deleted)
			t.wantErr("Delete", t.store.Delete(t.Context(), old), nil)
			t.leadsNowhere(old)
			t.absent(last)
			login := t.refOf(evicted.Subject)
			t.wantErr("Renew", errOf(t.store.Renew(t.Context(), guest, login, guestRecord, rec, long, echosession.Limit{Sessions: 1})), nil)
			t.holds(login, rec)
			t.absent(evicted)
			if t.subject == "" {
				return
			}

			ref := t.ref()
			t.createAs(ref, rec, long, echosession.Limit{Sessions: 2})
			t.holds(ref, rec)
			for _, ref := range append(others[:2:2], replaced, to) {
				t.absent(ref)
			}
			spare := t.ref()
			t.createAs(spare, rec, long, echosession.Limit{})
			t.pass(settled)
			look()
			t.deletes(1, t.subject, spare.ID, ref.ID)
			t.absent(created)
			t.absent(others[2])
			t.holds(spare, rec)
			t.deletes(2, t.subject)
			t.absent(ref)
			t.absent(spare)
		},
	},
	{
		name:       "slices are not shared",
		rule:       "A store keeps no reference to a slice that it was given and does not write to it, and the slices that it returns belong to the caller.",
		anySubject: true,
		run: func(t *trial) {
			ref, rec := t.ref(), record()
			want := bytes.Clone(rec)
			scribble := func(b []byte) {
				for i := range b[:cap(b)] {
					b[:cap(b)][i] = 'x'
				}
			}
			look := func() {
				t.Helper()
				for range 2 {
					got, err := t.store.Load(t.Context(), ref, long)
					if err != nil || !bytes.Equal(got, want) {
						t.Errorf("Load: record %q, error %v, want %q", got, err, want)
					}
					scribble(got)
				}
			}
			write := func(what string, write func(old, rec []byte) error) {
				t.Helper()
				old, next := bytes.Clone(want), record()
				handed := bytes.Clone(next)
				t.wantErr(what, write(old, handed), nil)
				if !bytes.Equal(old, want) || !bytes.Equal(handed, next) {
					t.Errorf("%s wrote to a slice that it was handed", what)
				}
				scribble(old)
				scribble(handed)
				want = next
				look()
			}

			t.createAs(ref, rec, long, echosession.Limit{})
			scribble(rec)
			look()
			write("Replace", func(old, rec []byte) error {
				return t.store.Replace(t.Context(), ref, old, rec, long)
			})
			write("Rotate", func(old, rec []byte) error {
				from := ref
				ref = t.ref()
				return t.store.Rotate(t.Context(), from, ref, old, rec, long, long)
			})
			for _, subject := range []string{t.subject, uuid.NewString(), t.subject} {
				write("Renew", func(old, rec []byte) error {
					from := ref
					ref = t.refOf(subject)
					return errOf(t.store.Renew(t.Context(), from, ref, old, rec, long, echosession.Limit{}))
				})
			}
			for entry, err := range t.store.Scan(t.Context()) {
				t.wantErr("Scan", err, nil)
				scribble(entry.Record)
			}
			list, err := t.store.List(t.Context(), t.subject)
			t.wantErr("List", err, nil)
			for _, entry := range list {
				scribble(entry.Record)
			}
			look()
			if t.subject != "" {
				except := []string{ref.ID}
				t.deletes(0, t.subject, except...)
				except[0] = ""
				look()
			}
		},
	},
	{
		name:       "a cancelled context is honoured",
		rule:       "With a context that has ended, a method returns an error that matches ErrStoreUnavailable, and not ErrNotFound. If the error does not match ErrIndeterminate, nothing was changed.",
		anySubject: true,
		run: func(t *trial) {
			ctx := cancelled(t)
			ref, rec := t.create()
			free, to, login := t.ref(), t.ref(), t.refOf(uuid.NewString())
			applied := false // or perhaps
			for _, call := range []struct {
				name string
				do   func() error
			}{
				{"Load", func() error { _, err := t.store.Load(ctx, ref, 0); return err }},
				{"Load of none", func() error { _, err := t.store.Load(ctx, t.ref(), 0); return err }},
				{"Load with a lifetime", func() error { _, err := t.store.Load(ctx, ref, 2*long); return err }},
				{"Create", func() error { return errOf(t.store.Create(ctx, free, record(), long, echosession.Limit{Sessions: 1})) }},
				{"Replace", func() error { return t.store.Replace(ctx, ref, rec, record(), 2*long) }},
				{"Touch", func() error { return t.store.Touch(ctx, ref, 2*long) }},
				{"Rotate", func() error { return t.store.Rotate(ctx, ref, to, rec, record(), long, long) }},
				{"Renew", func() error { return errOf(t.store.Renew(ctx, ref, to, rec, record(), long, echosession.Limit{})) }},
				{"Renew into another subject", func() error {
					return errOf(t.store.Renew(ctx, ref, login, rec, record(), long, echosession.Limit{}))
				}},
				{"Check", func() error { return errOf(t.store.Check(ctx, ref)) }},
				{"Check of none", func() error { return errOf(t.store.Check(ctx, t.ref())) }},
				{"Count", func() error { return errOf(t.store.Count(ctx, t.subject)) }},
				{"List", func() error { _, err := t.store.List(ctx, t.subject); return err }},
				{"DeleteSubject", func() error { _, err := t.store.DeleteSubject(ctx, t.subject, nil); return err }},
				{"Delete", func() error { return t.store.Delete(ctx, ref) }},
			} {
				err := call.do()
				t.wantErr(call.name, err, echosession.ErrStoreUnavailable)
				if errors.Is(err, echosession.ErrNotFound) {
					t.Errorf("%s: error %v, want one that does not match ErrNotFound", call.name, err)
				}
				applied = applied || errors.Is(err, echosession.ErrIndeterminate)
			}
			if !applied {
				t.holds(ref, rec)
				t.livesFor(rec, long)
				t.absent(free)
				t.absent(to)
				t.absent(login)
			}
		},
	},
}

// untouchable checks that there is nothing under ref, and that no method but
// Create brings something there. The records are what old may be.
func (t *trial) untouchable(ref echosession.Ref, records ...[]byte) {
	t.Helper()
	for _, old := range append(records, []byte("x")) {
		for _, ttl := range []time.Duration{0, long} {
			_, err := t.store.Load(t.Context(), ref, ttl)
			t.wantErr("Load of none", err, echosession.ErrNotFound)
		}
		t.wantErr("Touch of none", t.store.Touch(t.Context(), ref, long), echosession.ErrNotFound)
		t.wantErr("Replace of none", t.store.Replace(t.Context(), ref, old, record(), long), echosession.ErrNotFound)
		for _, grace := range []time.Duration{0, long} {
			to := t.refOf(ref.Subject)
			t.wantErr("Rotate of none", t.store.Rotate(t.Context(), ref, to, old, record(), long, grace), echosession.ErrNotFound)
			t.absent(to)
		}
		t.wantErr("Check of none", errOf(t.store.Check(t.Context(), ref)), echosession.ErrNotFound)
		for _, subject := range []string{ref.Subject, ref.Subject + " another"} {
			to := t.refOf(subject)
			t.wantErr("Renew of none", errOf(t.store.Renew(t.Context(), ref, to, old, record(), long, echosession.Limit{})), echosession.ErrNotFound)
			t.absent(to)
		}
		t.wantErr("Delete of none", t.store.Delete(t.Context(), ref), nil)
		t.absent(ref)
	}
}
