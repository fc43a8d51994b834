package storetest

import (
	"time"

	"github.com/google/uuid"

	"github.com/echosession/echosession"
)

// restarts are the calls that restart the lifetime of the session under ref. They
// return its ref and record afterwards.
var restarts = []struct {
	name string
	call func(t *trial, ref echosession.Ref, rec []byte, ttl time.Duration) (echosession.Ref, []byte, error)
}{
	{"Load", func(t *trial, ref echosession.Ref, rec []byte, ttl time.Duration) (echosession.Ref, []byte, error) {
		_, err := t.store.Load(t.Context(), ref, ttl)
		return ref, rec, err
	}},
	{"Touch", func(t *trial, ref echosession.Ref, rec []byte, ttl time.Duration) (echosession.Ref, []byte, error) {
		return ref, rec, t.store.Touch(t.Context(), ref, ttl)
	}},
	{"Replace", func(t *trial, ref echosession.Ref, rec []byte, ttl time.Duration) (echosession.Ref, []byte, error) {
		next := record()
		return ref, next, t.store.Replace(t.Context(), ref, rec, next, ttl)
	}},
	{"Rotate", func(t *trial, ref echosession.Ref, rec []byte, ttl time.Duration) (echosession.Ref, []byte, error) {
		to, next := t.ref(), record()
		return to, next, t.store.Rotate(t.Context(), ref, to, rec, next, ttl, long)
	}},
	{"Renew", func(t *trial, ref echosession.Ref, rec []byte, ttl time.Duration) (echosession.Ref, []byte, error) {
		to, next := t.ref(), record()
		return to, next, errOf(t.store.Renew(t.Context(), ref, to, rec, next, ttl, echosession.Limit{}))
	}},
}

var lifetimeCases = []testCase{
	{
		name:       "a lifetime ends",
		rule:       "A record is gone when its lifetime has passed. Load with a lifetime of zero does not prolong it, and once it is gone no method but Create brings it back.",
		anySubject: true,
		run: func(t *trial) {
			ref, rec := t.ref(), record()
			start := time.Now()
			t.createAs(ref, rec, brief, echosession.Limit{})
			t.runsOut(start, brief, t.loading(ref, 0))
			t.untouchable(ref, rec)
			t.createAs(ref, record(), long, echosession.Limit{})
		},
	},
	{
		name:       "use restarts a lifetime",
		rule:       "Load with a lifetime, Touch, Replace, Rotate and Renew restart the lifetime of the record with the one given, whether that is longer or shorter.",
		anySubject: true,
		run: func(t *trial) {
			for _, use := range restarts {
				ref, rec := t.create()
				ref, rec, err := use.call(t, ref, rec, 3*long)
				t.wantErr(use.name, err, nil)
				t.livesFor(rec, 3*long)
				start := time.Now()
				ref, _, err = use.call(t, ref, rec, brief)
				t.wantErr(use.name, err, nil)
				t.runsOut(start, brief, t.loading(ref, 0))
			}
		},
	},
	{
		name:       "too short a lifetime is refused",
		rule:       "A lifetime under a millisecond is refused with an error before anything is changed: it is neither rounded nor read as no lifetime at all. A grace under a millisecond is refused too, unless it is zero.",
		anySubject: true,
		run: func(t *trial) {
			other, otherRecord := t.create()
			ref, rec := t.create()
			for _, ttl := range []time.Duration{time.Millisecond - 1, 1, 0, -1, -time.Millisecond, -long} {
				free := t.ref()
				t.wantRefused("Create", errOf(t.store.Create(t.Context(), free, record(), ttl, echosession.Limit{Sessions: 1})))
				t.absent(free)
				t.wantRefused("Create", errOf(t.store.Create(t.Context(), ref, rec, ttl, echosession.Limit{Sessions: 1})))
				t.wantRefused("Replace", t.store.Replace(t.Context(), ref, rec, record(), ttl))
				t.wantRefused("Touch", t.store.Touch(t.Context(), ref, ttl))
				to := t.ref()
				t.wantRefused("Rotate", t.store.Rotate(t.Context(), ref, to, rec, record(), ttl, long))
				t.absent(to)
				for _, to := range []echosession.Ref{to, t.refOf(uuid.NewString()), t.refOf("")} {
					t.wantRefused("Renew", errOf(t.store.Renew(t.Context(), ref, to, rec, record(), ttl, echosession.Limit{})))
					t.absent(to)
				}
				if ttl != 0 {
					_, err := t.store.Load(t.Context(), ref, ttl)
					t.wantRefused("Load", err)
					t.wantRefused("Rotate", t.store.Rotate(t.Context(), ref, to, rec, record(), long, ttl))
					t.absent(to)
				}
				t.holds(ref, rec)
			}
			t.livesFor(rec, long)
			t.holds(other, otherRecord)
		},
	},
	{
		name:       "the shortest lifetime is kept",
		rule:       "A lifetime of a millisecond is accepted and kept. So is a longer lifetime that is not a whole number of milliseconds.",
		anySubject: true,
		run: func(t *trial) {
			ref, rec := t.ref(), record()
			start := time.Now()
			t.createAs(ref, rec, time.Millisecond, echosession.Limit{})
			t.runsOut(start, time.Millisecond, t.loading(ref, 0))

			const uneven = long + time.Millisecond + time.Nanosecond
			t.createAs(ref, rec, uneven, echosession.Limit{})
			t.livesFor(rec, uneven)
			for _, use := range restarts {
				ref, rec := t.create()
				_, rec, err := use.call(t, ref, rec, uneven)
				t.wantErr(use.name, err, nil)
				t.livesFor(rec, uneven)
			}
		},
	},
	{
		name:       "a long lifetime is kept",
		rule:       "A lifetime of a hundred years is kept like any other.",
		anySubject: true,
		run: func(t *trial) {
			const century = 100 * 365 * 24 * time.Hour
			ref, rec := t.ref(), record()
			t.createAs(ref, rec, century, echosession.Limit{})
			t.holds(ref, rec)
			t.livesFor(rec, century)
			for _, use := range restarts {
				ref, rec := t.create()
				ref, rec, err := use.call(t, ref, rec, century)
				t.wantErr(use.name, err, nil)
				t.holds(ref, rec)
				t.livesFor(rec, century)
			}
		},
	},
}
