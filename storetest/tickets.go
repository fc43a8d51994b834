package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/echosession/echosession"
)

// tickets returns the store as one that keeps tickets. A store that keeps none skips the
// case.
func (t *trial) tickets() echosession.TicketStore {
	t.Helper()
	store, ok := t.store.(echosession.TicketStore)
	if !ok {
		t.Skip("the store is no TicketStore")
	}
	return store
}

// ticketKey makes a key that nothing was stored under.
func ticketKey() string {
	sum := sha256.Sum256([]byte(rand.Text()))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// put stores a new ticket for long.
func (t *trial) put() (key string, value []byte) {
	t.Helper()
	key, value = ticketKey(), record()
	t.putAs(key, value, long)
	return key, value
}

func (t *trial) putAs(key string, value []byte, ttl time.Duration) {
	t.Helper()
	t.wantErr("PutTicket", t.tickets().PutTicket(t.Context(), key, value, ttl), nil)
}

// takes checks that TakeTicket returns value.
func (t *trial) takes(key string, value []byte) {
	t.Helper()
	got, err := t.tickets().TakeTicket(t.Context(), key)
	if err != nil || !bytes.Equal(got, value) {
		t.Errorf("TakeTicket: %.80q, error %v, want %.80q", got, err, value)
	}
}

// taken checks that TakeTicket finds nothing.
func (t *trial) taken(key string) {
	t.Helper()
	got, err := t.tickets().TakeTicket(t.Context(), key)
	t.wantErr("TakeTicket of none", err, echosession.ErrNotFound)
	if got != nil {
		t.Errorf("TakeTicket of none: %.80q beside the error", got)
	}
}

var ticketCases = []testCase{
	{
		name: "a ticket is taken once",
		rule: "TakeTicket returns what PutTicket kept under the key, and removes it: then it returns ErrNotFound. Other tickets stay.",
		run: func(t *trial) {
			t.taken(ticketKey())
			one, first := t.put()
			two, second := t.put()
			t.takes(one, first)
			t.taken(one)
			t.taken(one)
			t.takes(two, second)
			t.taken(two)
			t.putAs(one, second, long)
			t.takes(one, second)
			t.taken(one)
		},
	},
	{
		name: "a ticket holds any bytes",
		rule: "A ticket's value has any bytes, up to some kilobytes of them. TakeTicket returns a slice of its own, and PutTicket keeps none that it was given.",
		run: func(t *trial) {
			all := make([]byte, 16<<10)
			for i := range all {
				all[i] = byte(i)
			}
			for _, value := range [][]byte{{0}, {0xc1, 0}, []byte("\r\n$-1\r\n"), all} {
				key, given := ticketKey(), bytes.Clone(value)
				t.putAs(key, given, long)
				clear(given)
				t.takes(key, value)
			}
		},
	},
	{
		name: "the last ticket counts",
		rule: "A PutTicket under a key that holds a ticket takes its place, with the new lifetime.",
		run: func(t *trial) {
			key, _ := t.put()
			value := record()
			t.putAs(key, value, long)
			t.takes(key, value)
			t.taken(key)
			t.putAs(key, record(), long)
			t.putAs(key, value, brief)
			t.ticketRunsOut(time.Now(), key, value)
		},
	},
	{
		name: "a ticket's lifetime ends",
		rule: "A ticket cannot be taken once its lifetime has passed, and can until then. A lifetime of a millisecond is long enough, and one below that is refused.",
		run: func(t *trial) {
			key, value := ticketKey(), record()
			t.putAs(key, value, brief)
			t.ticketRunsOut(time.Now(), key, value)
			t.putAs(key, value, time.Millisecond)
			for _, ttl := range []time.Duration{0, -1, -time.Hour, time.Millisecond - 1} {
				key := ticketKey()
				t.wantRefused("PutTicket with the lifetime "+ttl.String(), t.tickets().PutTicket(t.Context(), key, value, ttl))
				t.taken(key)
			}
		},
	},
	{
		name: "keys of tickets are exact",
		rule: "Two keys that differ in the case of a letter, or in one character, are two keys.",
		run: func(t *trial) {
			key := strings.Repeat("a", 42) + "A"
			others := []string{strings.ToLower(key), strings.ToUpper(key), key[:42] + "_", key[:42] + "-", "_" + key[1:]}
			value := record()
			t.putAs(key, value, long)
			for _, other := range others {
				t.taken(other)
			}
			t.takes(key, value)
		},
	},
	{
		name:       "tickets are no sessions",
		rule:       "No method for sessions finds a ticket, and TakeTicket finds no session. Scan visits no ticket, and DeleteSubject deletes none.",
		anySubject: true,
		run: func(t *trial) {
			ref, rec := t.create()
			key, value := t.put()
			t.taken(ref.ID)
			t.taken(strings.Repeat(ref.ID, 2)[:43])
			if n := t.scans(value); n != 0 {
				t.Errorf("Scan visits a ticket %d times", n)
			}
			if n := t.scans(rec); n == 0 {
				t.Errorf("Scan does not visit the session beside a ticket")
			}
			if t.subject != "" {
				t.counts(t.subject, 1)
				t.deletes(1, t.subject)
			}
			t.takes(key, value)
		},
	},
	{
		name: "a cancelled context spends no ticket",
		rule: "With a context that has ended PutTicket and TakeTicket do nothing, and return an error that matches ErrStoreUnavailable.",
		run: func(t *trial) {
			key, value := t.put()
			_, err := t.tickets().TakeTicket(cancelled(t), key)
			t.wantErr("TakeTicket with a context that has ended", err, echosession.ErrStoreUnavailable)
			t.takes(key, value)
			err = t.tickets().PutTicket(cancelled(t), key, value, long)
			t.wantErr("PutTicket with a context that has ended", err, echosession.ErrStoreUnavailable)
			t.taken(key)
		},
	},
	{
		name: "of many takers one gets the ticket",
		rule: "Of the TakeTickets of one key that run at once, one returns the value, and the others ErrNotFound.",
		run: func(t *trial) {
			store := t.tickets()
			for range rounds() / 10 {
				key, value := t.put()
				var got atomic.Int32
				var fns []func()
				for range 8 {
					fns = append(fns, func() {
						v, err := store.TakeTicket(context.WithoutCancel(t.Context()), key)
						switch {
						case err == nil && bytes.Equal(v, value):
							got.Add(1)
						case !errors.Is(err, echosession.ErrNotFound):
							t.Errorf("TakeTicket: %.80q, error %v", v, err)
						}
					})
				}
				atOnce(fns...)
				if n := got.Load(); n != 1 {
					t.Errorf("%d takers got the ticket", n)
					return
				}
			}
		},
	},
}

// ticketRunsOut lets the lifetime of a ticket pass, which is brief and began at start or
// later. Taking it would end it, so the last moment before is looked at with tickets of
// their own where the time can be set.
func (t *trial) ticketRunsOut(start time.Time, key string, value []byte) {
	t.Helper()
	if t.advance == nil {
		for time.Since(start) < brief+50*time.Millisecond {
			time.Sleep(5 * time.Millisecond)
		}
		t.taken(key)
		return
	}
	almost := ticketKey()
	t.putAs(almost, value, brief)
	t.advance(brief - time.Millisecond)
	t.takes(almost, value)
	t.advance(time.Millisecond)
	t.taken(key)
}
