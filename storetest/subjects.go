package storetest

import (
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/echosession/echosession"
)

var subjectCases = []testCase{
	{
		name: "list is in the order of creation",
		rule: "List returns the live sessions of a subject, the oldest first. Their use does not change the order, and a successor has the place of the session that was rotated.",
		run: func(t *trial) {
			t.lists(t.subject)
			const n = 20
			var refs []echosession.Ref
			var records [][]byte
			for i := range n {
				ref, rec := t.ref(), record()
				t.createAs(ref, rec, time.Duration(n-i)*long, echosession.Limit{Sessions: n})
				refs, records = append(refs, ref), append(records, rec)
			}
			t.lists(t.subject, records...)
			for i, use := range restarts {
				for j := i; j < n; j += 6 {
					var err error
					refs[j], records[j], err = use.call(t, refs[j], records[j], long)
					t.wantErr(use.name, err, nil)
				}
			}
			t.lists(t.subject, records...)
			for _, i := range []int{n - 1, n / 2, 0} {
				t.wantErr("Delete", t.store.Delete(t.Context(), refs[i]), nil)
				records = slices.Delete(records, i, i+1)
			}
			t.lists(t.subject, records...)
		},
	},
	{
		name: "list tells the lifetimes",
		rule: "List returns with each record the lifetime that it has left.",
		run: func(t *trial) {
			for i := range 4 {
				t.createAs(t.ref(), record(), time.Duration(i+1)*long, echosession.Limit{})
			}
			list, err := t.store.List(t.Context(), t.subject)
			if err != nil || len(list) != 4 {
				t.Fatalf("List: %d sessions, error %v, want 4", len(list), err)
			}
			for i, entry := range list {
				if want := time.Duration(i+1) * long; entry.TTL <= want-long/4 || entry.TTL > want+time.Second {
					t.Errorf("List: a lifetime of %v is left, want %v", entry.TTL, want)
				}
			}
		},
	},
	{
		name: "list returns a bounded number",
		rule: "Of more than MaxListed sessions of a subject, List returns the newest, and of those the oldest first.",
		run: func(t *trial) {
			var records [][]byte
			for range echosession.MaxListed {
				rec := record()
				t.createAs(t.ref(), rec, long, echosession.Limit{})
				records = append(records, rec)
			}
			t.lists(t.subject, records...)
			for range 3 {
				rec := record()
				t.createAs(t.ref(), rec, long, echosession.Limit{})
				records = append(records, rec)
			}
			t.lists(t.subject, records[3:]...)
			t.counts(t.subject, len(records))
			t.deletes(len(records), t.subject)
		},
	},
	{
		name: "a session stays with its subject",
		rule: "As long as a session lives, List returns it and DeleteSubject removes it: also when a use prolonged its life, and when another session of the subject has a shorter life.",
		run: func(t *trial) {
			const first = 4 * brief // time enough for a use on a slow machine
			for _, use := range restarts {
				ref, rec := t.ref(), record()
				start := time.Now()
				t.createAs(ref, rec, first, echosession.Limit{})
				ref, rec, err := use.call(t, ref, rec, long)
				t.wantErr(use.name, err, nil)
				other := t.refOf(uuid.NewString())
				t.createAs(other, record(), first, echosession.Limit{})
				t.runsOut(start, first, t.loading(other, 0))
				t.holds(ref, rec)
				t.lists(t.subject, rec)
				t.deletes(1, t.subject)
				t.absent(ref)
			}

			start := time.Now()
			t.createAs(t.ref(), record(), brief, echosession.Limit{})
			ref, rec := t.create()
			refs, records := make([]echosession.Ref, len(restarts)), make([][]byte, len(restarts))
			for i := range restarts {
				refs[i], records[i] = t.create()
			}
			for i, use := range restarts {
				_, _, err := use.call(t, refs[i], records[i], brief)
				t.wantErr(use.name, err, nil)
			}
			last := t.ref()
			t.createAs(last, record(), brief, echosession.Limit{})
			t.runsOut(start, brief, t.loading(last, 0))
			t.lists(t.subject, rec)
			t.deletes(1, t.subject)
			t.absent(ref)
		},
	},
	{
		name: "what has expired is not listed",
		rule: "A session is gone from its subject when its lifetime has passed: List does not return it, DeleteSubject does not count it, and it does not count towards a limit.",
		run: func(t *trial) {
			_, a := t.create()
			_, b := t.create()
			ref := t.ref()
			start := time.Now()
			t.createAs(ref, record(), brief, echosession.Limit{})
			t.runsOut(start, brief, t.loading(ref, 0))
			t.lists(t.subject, a, b)

			c := record()
			t.createAs(t.ref(), c, long, echosession.Limit{Sessions: 3})
			t.lists(t.subject, a, b, c)

			start = time.Now()
			ref = t.ref()
			t.createAs(ref, record(), brief, echosession.Limit{})
			t.runsOut(start, brief, t.loading(ref, 0))
			t.deletes(3, t.subject)
		},
	},
	{
		name: "what has expired gives way first",
		rule: "A session whose lifetime has passed does not count towards the limit, even if nothing has asked for it since.",
		run: func(t *trial) {
			a, b, c := record(), record(), record()
			t.createAs(t.ref(), a, long, echosession.Limit{Sessions: 3})
			t.createAs(t.ref(), b, long, echosession.Limit{Sessions: 3})
			start := time.Now()
			t.createAs(t.ref(), record(), brief, echosession.Limit{Sessions: 3})
			other := t.refOf(uuid.NewString())
			t.createAs(other, record(), brief, echosession.Limit{Sessions: 3})
			t.runsOut(start, brief, t.loading(other, 0))
			t.createAs(t.ref(), c, long, echosession.Limit{Sessions: 3})
			t.lists(t.subject, a, b, c)
		},
	},
	{
		name: "a limit makes the oldest give way",
		rule: "A limit above zero bounds the live sessions of the subject, the new one included: Create deletes the oldest. Zero is no limit.",
		run: func(t *trial) {
			var refs []echosession.Ref
			var records [][]byte
			create := func(limit int) {
				t.Helper()
				ref, rec := t.ref(), record()
				t.createAs(ref, rec, long, echosession.Limit{Sessions: limit})
				refs, records = append(refs, ref), append(records, rec)
			}
			for _, step := range []struct{ limit, live int }{
				{0, 1}, {0, 2}, {0, 3}, {4, 4}, {4, 4}, {4, 4}, {0, 5}, {3, 3}, {1, 1}, {1, 1}, {5, 2},
			} {
				create(step.limit)
				gone := len(refs) - step.live
				t.lists(t.subject, records[gone:]...)
				for _, ref := range refs[:gone] {
					t.absent(ref)
				}
				for i, ref := range refs[gone:] {
					t.holds(ref, records[gone+i])
				}
			}
		},
	},
	{
		name: "a limit counts a rotated session once",
		rule: "A session counts once towards a limit, however many refs lead to it, and its successor has its place in the order.",
		run: func(t *trial) {
			a, aRecord := t.create()
			_, b := t.create()
			rotated, rotatedRecord := t.rotate(a, aRecord, long)
			rotated, rotatedRecord = t.rotate(rotated, rotatedRecord, long)
			c, d := record(), record()
			t.createAs(t.ref(), c, long, echosession.Limit{Sessions: 3})
			t.lists(t.subject, rotatedRecord, b, c)
			t.createAs(t.ref(), d, long, echosession.Limit{Sessions: 3})
			t.lists(t.subject, b, c, d)
			t.absent(rotated)
			t.leadsNowhere(a)
		},
	},
	{
		name: "a refused create deletes none",
		rule: "A Create that fails makes no other session give way.",
		run: func(t *trial) {
			_, a := t.create()
			ref, b := t.create()
			t.wantErr("Create", errOf(t.store.Create(t.Context(), ref, record(), long, echosession.Limit{Sessions: 1})), echosession.ErrConflict)
			t.wantRefused("Create", errOf(t.store.Create(t.Context(), t.ref(), record(), 0, echosession.Limit{Sessions: 1})))
			t.lists(t.subject, a, b)
		},
	},
	{
		name: "delete-subject removes all",
		rule: "DeleteSubject removes every session of the subject and returns how many it removed. It leaves the sessions of other subjects.",
		run: func(t *trial) {
			t.deletes(0, t.subject)
			var refs []echosession.Ref
			for range 3 {
				ref, _ := t.create()
				refs = append(refs, ref)
			}
			ref, rec := t.create()
			to, _ := t.rotate(ref, rec, long)
			refs = append(refs, ref, to)
			other, otherRecord := t.refOf(uuid.NewString()), record()
			t.createAs(other, otherRecord, long, echosession.Limit{})

			t.deletes(4, t.subject)
			for _, ref := range refs {
				t.leadsNowhere(ref)
			}
			t.lists(t.subject)
			t.deletes(0, t.subject)
			t.holds(other, otherRecord)
			t.lists(other.Subject, otherRecord)
			for _, ref := range refs[:3] {
				t.untouchable(ref)
			}
		},
	},
	{
		name: "delete-subject makes exceptions",
		rule: "DeleteSubject leaves the sessions with the IDs given, and their successors. IDs that belong to no session of the subject have no effect.",
		run: func(t *trial) {
			refs, rec := t.chain()
			for _, ref := range refs {
				t.create()
				kept, keptRecord := t.create()
				t.deletes(1, t.subject, kept.ID, uuid.NewString(), ref.ID, "", kept.ID)
				t.lists(t.subject, rec, keptRecord)
				t.holds(refs[3], rec)
				t.leads(refs[0], rec)
				t.deletes(1, t.subject, ref.ID)
				t.absent(kept)
			}
			other := t.refOf(uuid.NewString())
			t.createAs(other, record(), long, echosession.Limit{})
			t.deletes(1, t.subject, other.ID)
			t.leadsNowhere(refs[0])
		},
	},
	{
		name: "a subject may hold any bytes",
		rule: "No two subjects are taken for each other, whatever bytes they hold.",
		run: func(t *trial) {
			var subjects []string
			for _, s := range []string{
				"", ":", "::", "a", "a:b", "{a}", "{a}b", "{b}a", "{}", "{", "}", "*", "?", "[a-z]", "%s", "\\", "/", "../a",
				"\x00", "a\x00", "a\x00b", " ", "a ", "\r\n", "A", "\u00e9", "e\u0301", "\xff", "\xff\xfe", "\ufffd",
				strings.Repeat("x", 1<<10), strings.Repeat("x", 1<<10) + "y",
			} {
				subjects = append(subjects, t.subject+s)
				if s != "" {
					subjects = append(subjects, s+t.subject)
				}
			}
			refs := make([]echosession.Ref, len(subjects))
			records := make([][]byte, len(subjects))
			for i, subject := range subjects {
				refs[i], records[i] = t.refOf(subject), record()
				t.createAs(refs[i], records[i], long, echosession.Limit{Sessions: 1})
			}
			for i, subject := range subjects {
				t.holds(refs[i], records[i])
				t.lists(subject, records[i])
				t.counts(subject, 1)
				t.hasLeft(refs[i], long)
			}
			for i, subject := range subjects {
				t.deletes(1, subject)
				t.absent(refs[i])
			}
		},
	},
	{
		name: "a session belongs to its subject",
		rule: "A session can be reached with its own subject only: with another subject, or without one, there is nothing under its ID.",
		run: func(t *trial) {
			own, rec := t.create()
			plain, plainRecord := t.refOf(""), record()
			t.createAs(plain, plainRecord, long, echosession.Limit{})
			other := uuid.NewString()
			t.createAs(t.refOf(other), record(), long, echosession.Limit{})
			for _, ref := range []echosession.Ref{
				{ID: own.ID}, {ID: own.ID, Subject: other}, {ID: own.ID, Subject: t.subject + ":"}, {ID: own.ID, Subject: own.ID},
			} {
				t.untouchable(ref, rec)
			}
			t.untouchable(echosession.Ref{ID: plain.ID, Subject: t.subject}, plainRecord)
			t.holds(own, rec)
			t.holds(plain, plainRecord)
			t.livesFor(rec, long)
			t.livesFor(plainRecord, long)
		},
	},
	{
		name: "sessions without a subject are apart",
		rule: "Without a subject a limit has no effect, List returns no session and DeleteSubject removes none.",
		run: func(t *trial) {
			refs := make([]echosession.Ref, 3)
			records := make([][]byte, len(refs))
			for i := range refs {
				refs[i], records[i] = t.refOf(""), record()
				t.createAs(refs[i], records[i], long, echosession.Limit{Sessions: 1})
			}
			t.lists("")
			t.deletes(0, "")
			t.deletes(0, "", refs[0].ID)
			t.counts("", 0)
			for i, ref := range refs {
				t.holds(ref, records[i])
			}
		},
	},
}
