package storetest

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/echosession/echosession"
)

var scanCases = []testCase{
	{
		name: "scan visits all",
		rule: "Scan visits every record, with the lifetime that it has left, whether its session has a subject or not.",
		run: func(t *trial) {
			missing := make(map[string]bool)
			for i := range 300 {
				ref, rec := t.ref(), record()
				if i%2 == 0 {
					ref = t.refOf("")
				}
				t.createAs(ref, rec, long, echosession.Limit{})
				missing[string(rec)] = true
			}
			for entry, err := range t.store.Scan(t.Context()) {
				if err != nil {
					t.Fatalf("Scan: %v", err)
				}
				if missing[string(entry.Record)] && (entry.TTL <= long/2 || entry.TTL > long+time.Second) {
					t.Errorf("Scan: a lifetime of %v is left, want %v", entry.TTL, long)
				}
				delete(missing, string(entry.Record))
			}
			if len(missing) > 0 {
				t.Errorf("Scan did not visit %d of 300 records", len(missing))
			}
		},
	},
	{
		name: "scan visits nothing but records",
		rule: "Scan visits no record that was deleted, has expired, was rotated away or renewed, and no entry of the store's own.",
		run: func(t *trial) {
			gone := make(map[string]bool)
			live := make(map[string]bool)
			for _, subject := range []string{"", t.subject} {
				ref := t.refOf(subject)
				rec := record()
				t.createAs(ref, rec, long, echosession.Limit{})
				t.wantErr("Delete", t.store.Delete(t.Context(), ref), nil)
				gone[string(rec)] = true

				rec = record()
				t.createAs(ref, rec, long, echosession.Limit{})
				to, next := t.refOf(subject), record()
				t.wantErr("Rotate", t.store.Rotate(t.Context(), ref, to, rec, next, long, long), nil)
				gone[string(rec)], live[string(next)] = true, true
				ref = t.refOf(subject)

				for _, subject := range []string{subject, uuid.NewString()} {
					rec := record()
					t.createAs(ref, rec, long, echosession.Limit{})
					to, next := t.refOf(subject), record()
					t.wantErr("Renew", errOf(t.store.Renew(t.Context(), ref, to, rec, next, long, echosession.Limit{})), nil)
					gone[string(rec)], live[string(next)] = true, true
					ref = t.refOf(ref.Subject)
				}

				// Nothing asks for it when it has expired, only for a later one.
				rec = record()
				t.createAs(t.refOf(subject), rec, brief, echosession.Limit{})
				start, later := time.Now(), t.refOf(subject)
				t.createAs(later, record(), brief, echosession.Limit{})
				t.runsOut(start, brief, t.loading(later, 0))
				gone[string(rec)] = true
			}
			for entry, err := range t.store.Scan(t.Context()) {
				if err != nil {
					t.Fatalf("Scan: %v", err)
				}
				if gone[string(entry.Record)] {
					t.Errorf("Scan visited %.80q, which is gone", entry.Record)
				}
				if len(entry.Record) == 0 || entry.Record[0] == 0xC1 || entry.TTL <= 0 {
					t.Errorf("Scan visited %.80q with a lifetime of %v, which is no record", entry.Record, entry.TTL)
				}
				delete(live, string(entry.Record))
			}
			if len(live) > 0 {
				t.Errorf("Scan did not visit %d of 6 successors", len(live))
			}
		},
	},
	{
		name: "a scan can be left",
		rule: "A scan ends when its consumer leaves the loop, and can be started again. While it runs the store can be used.",
		run: func(t *trial) {
			refs := make(map[string]echosession.Ref)
			for range 50 {
				ref, rec := t.create()
				refs[string(rec)] = ref
			}
			scan := t.store.Scan(t.Context())
			for _, err := range scan {
				if err != nil {
					t.Fatalf("Scan: %v", err)
				}
				break
			}
			for entry, err := range scan {
				if err != nil {
					t.Fatalf("Scan: %v", err)
				}
				if ref, ok := refs[string(entry.Record)]; ok {
					t.wantErr("Delete", t.store.Delete(t.Context(), ref), nil)
				}
			}
			t.lists(t.subject)
		},
	},
	{
		name: "a scan that fails ends",
		rule: "With a context that has ended, Scan yields one error, which matches ErrStoreUnavailable, and no more.",
		run: func(t *trial) {
			t.create()
			var yields []string
			for entry, err := range t.store.Scan(cancelled(t)) {
				yields = append(yields, fmt.Sprintf("%.80q, error %v", entry.Record, err))
				t.wantErr("Scan", err, echosession.ErrStoreUnavailable)
			}
			if len(yields) != 1 {
				t.Errorf("Scan yielded %q, want one error", yields)
			}
		},
	},
	{
		name: "a scan misses none among changes",
		rule: "Scan visits every record that exists from its start to its end, whatever other records come and go during that time.",
		run: func(t *trial) {
			var going []echosession.Ref
			missing := make(map[string]bool)
			for range 200 {
				ref, _ := t.create()
				going = append(going, ref)
				_, rec := t.create()
				missing[string(rec)] = true
			}
			for entry, err := range t.store.Scan(t.Context()) {
				if err != nil {
					t.Fatalf("Scan: %v", err)
				}
				delete(missing, string(entry.Record))
				if len(going) > 0 {
					t.wantErr("Delete", t.store.Delete(t.Context(), going[0]), nil)
					going = going[1:]
					if len(going)%4 == 0 {
						t.create()
					}
				}
			}
			if len(missing) > 0 {
				t.Errorf("Scan did not visit %d of 200 records", len(missing))
			}
		},
	},
}
