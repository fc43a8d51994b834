package echosession_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/echosession/echosession"
)

// What ends a watch is told once for each watch, with its reason.
func TestEventsOfWatches(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		rec := newEventRecorder()
		cfg.OnEvent = rec.observe
		m := newManager[User](t, cfg)
		t.Cleanup(func() { m.Close() })
		for _, tt := range []struct {
			reason string
			end    func(sess *echosession.Session[User], stop context.CancelFunc) error
		}{
			{"gone", func(sess *echosession.Session[User], _ context.CancelFunc) error { return sess.Destroy(t.Context()) }},
			{"renewed", func(sess *echosession.Session[User], _ context.CancelFunc) error {
				_, err := sess.Renew(t.Context(), nil)
				return err
			}},
			{"stopped", func(_ *echosession.Session[User], stop context.CancelFunc) error { stop(); stop(); return nil }},
			{"closed", func(*echosession.Session[User], context.CancelFunc) error { return m.Close() }},
		} {
			sess, err := m.Create(t.Context(), User{}, echosession.WithSubject("ada"))
			if err != nil {
				t.Fatal(err)
			}
			id := sess.LogID()
			watched, stop := sess.Watch(t.Context())
			if e := rec.eventually(t, echosession.EventWatchBegan); e.LogID != id || e.Subject != "ada" {
				t.Errorf("%+v", e)
			}
			if cfg.Store != nil { // the fake tells of no end, and would be asked 5 seconds later
				waitForChecks(t, rec, 1) // from now on it is known when the session would expire
			}
			if err := tt.end(sess, stop); err != nil {
				t.Fatal(err)
			}
			<-watched.Done()
			e := rec.eventually(t, echosession.EventWatchEnded)
			if e.Reason != tt.reason || e.LogID != id || e.Subject != "ada" {
				t.Errorf("%s: %+v", tt.reason, e)
			}
			stop()
			if got := rec.take(echosession.EventWatchEnded, echosession.EventExpired); got != nil {
				t.Errorf("%s is told again: %q", tt.reason, got)
			}
		}
	})
}

// That a session expires is told once, however many watch it.
func TestEventOfAnExpiry(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		rec := newEventRecorder()
		cfg.OnEvent, cfg.MaxAge = rec.observe, 300*time.Millisecond
		m := newManager[User](t, cfg)
		t.Cleanup(func() { m.Close() })
		sess, err := m.Create(t.Context(), User{}, echosession.WithSubject("ada"))
		if err != nil {
			t.Fatal(err)
		}
		id := sess.LogID()
		for range 2 {
			_, stop := sess.Watch(t.Context())
			defer stop()
		}
		for range 2 {
			if e := rec.eventually(t, echosession.EventWatchEnded); e.Reason != "gone" {
				t.Errorf("%+v", e)
			}
		}
		if e := rec.eventually(t, echosession.EventExpired); e.LogID != id || e.Subject != "ada" {
			t.Errorf("%+v", e)
		}
		if got := rec.take(echosession.EventExpired); got != nil {
			t.Errorf("it is told again: %q", got)
		}
	})
}

// A deafStore is a store that tells of no ends after an interruption, until all may have ended.
type deafStore struct {
	echosession.Store
	ends chan error // of a Watch
}

func (s deafStore) Watch(ctx context.Context, tell func(echosession.Hint)) error {
	tell(echosession.Hint{All: true})
	select {
	case err := <-s.ends:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// An interruption is told, and how many ends nobody had heard of.
func TestEventsOfAnInterruption(t *testing.T) {
	rec := newEventRecorder()
	memory := echosession.NewMemoryStore()
	store := deafStore{memory, make(chan error)}
	m := newManager[User](t, echosession.Config{Store: store, Secret: testSecret, OnEvent: rec.observe})
	t.Cleanup(func() { m.Close() })
	var sessions []*echosession.Session[User]
	for range 5 {
		sess, err := m.Create(t.Context(), User{})
		if err != nil {
			t.Fatal(err)
		}
		_, stop := sess.Watch(t.Context())
		defer stop()
		sessions = append(sessions, sess)
	}
	waitForChecks(t, rec, 5)
	for _, sess := range sessions[:3] {
		if err := memory.Delete(t.Context(), echosession.Ref{ID: sess.ID()}); err != nil {
			t.Fatal(err)
		}
	}
	store.ends <- errors.New("secret words")
	if e := rec.eventually(t, echosession.EventWatchInterrupted); e.Reason != "unknown" {
		t.Errorf("%+v", e)
	}
	if e := rec.eventually(t, echosession.EventWatchResumed); e.Count != 3 || e.Duration <= 0 {
		t.Errorf("%+v", e)
	}
	if got := rec.take(echosession.EventWatchInterrupted, echosession.EventWatchResumed); got != nil {
		t.Errorf("it is told again: %q", got)
	}
	store.ends <- errors.New("secret words")
	if e := rec.eventually(t, echosession.EventWatchResumed); e.Count != 0 {
		t.Errorf("the second time: %+v", e)
	}
}

// waitForChecks waits until n checks of the store were told of.
func waitForChecks(t testing.TB, rec *eventRecorder, n int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		rec.mu.Lock()
		checks := slices.Clone(rec.events)
		rec.mu.Unlock()
		checks = slices.DeleteFunc(checks, func(e echosession.Event) bool {
			return e.Kind != echosession.EventStoreCall || e.Reason != "check"
		})
		if len(checks) >= n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d checks, and not %d", len(checks), n)
		}
	}
}
