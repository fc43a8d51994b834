package echosessiontest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/echosessiontest"
)

// bareStore is a store that is a Store and nothing more.
type bareStore struct{ echosession.Store }

func TestFaultStoreOverABareStore(t *testing.T) {
	s := echosessiontest.NewFaultStore(bareStore{echosession.NewMemoryStore()})
	for range 2 {
		if err := s.Watch(t.Context(), func(echosession.Hint) { t.Error("told") }); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("error %v, want ErrUnsupported", err)
		}
		s.Fail(nil) // an outage does not change what a store can do
	}
}

func TestFaultStoreFailsTickets(t *testing.T) {
	s := echosessiontest.NewFaultStore(echosession.NewMemoryStore())
	const key = "0123456789012345678901234567890123456789012"
	other := errors.New("another error")
	s.FailNext(2, other)
	for range 2 {
		if err := s.PutTicket(t.Context(), key, []byte("v"), time.Minute); err != other {
			t.Errorf("PutTicket after FailNext: %v", err)
		}
	}
	if err := s.PutTicket(t.Context(), key, []byte("v"), time.Minute); err != nil {
		t.Error(err)
	}
	s.Fail(nil)
	if _, err := s.TakeTicket(t.Context(), key); err != echosession.ErrStoreUnavailable {
		t.Errorf("TakeTicket after Fail: %v", err)
	}
	s.Restore()
	if v, err := s.TakeTicket(t.Context(), key); err != nil || string(v) != "v" {
		t.Errorf("TakeTicket after Restore: %q, %v", v, err)
	}
}

func TestFaultStoreInterruptsWatch(t *testing.T) {
	store := echosession.NewMemoryStore()
	s := echosessiontest.NewFaultStore(store)
	var ref = echosession.Ref{ID: "8a0d4b51-55a8-4b6b-9c6c-1a3d2c5d1a01"}
	hints, result := make(chan echosession.Hint, 10), make(chan error, 1)
	watch := func() { go func() { result <- s.Watch(t.Context(), func(h echosession.Hint) { hints <- h }) }() }
	end := func() {
		t.Helper()
		_, err := store.Create(t.Context(), ref, []byte("1"), time.Minute, echosession.Limit{})
		if err = errors.Join(err, store.Delete(t.Context(), ref)); err != nil {
			t.Fatal(err)
		}
	}

	watch()
	if h := <-hints; !h.All {
		t.Errorf("Watch begins with %+v", h)
	}
	s.FailNext(1, nil)
	if err := s.Touch(t.Context(), ref, time.Minute); err != echosession.ErrStoreUnavailable {
		t.Errorf("FailNext: %v", err)
	}
	end()
	if h := <-hints; len(h.IDs) != 1 || h.IDs[0] != ref.ID {
		t.Errorf("after FailNext Watch tells %+v", h)
	}
	for _, fail := range []error{nil, errors.New("another error")} {
		want := fail
		if fail == nil {
			want = echosession.ErrStoreUnavailable
		}
		s.Fail(fail)
		end()
		if err := <-result; err != want {
			t.Errorf("after Fail Watch returns %v, not %v", err, want)
		}
		watch()
		if err := <-result; err != want {
			t.Errorf("Watch during the outage returns %v, not %v", err, want)
		}
		if len(hints) != 0 {
			t.Errorf("Watch tells %+v during the outage", <-hints)
		}
		s.Restore()
		watch()
		if h := <-hints; !h.All {
			t.Errorf("after Restore Watch begins with %+v", h)
		}
	}
}

// What watches a session sees an outage as with Redis: no logout, and the end that came
// meanwhile is told afterwards.
func TestOutageIsNoEndOfAStream(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(h *echosessiontest.Harness[User])
		want error
	}{
		{"nothing", func(*echosessiontest.Harness[User]) {}, nil},
		{"the session expires", func(h *echosessiontest.Harness[User]) { h.Clock.Advance(24 * time.Hour) }, echosession.ErrSessionGone},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := echosessiontest.New[User](t)
				ctx, stop := h.Login(newRequest(), User{}).Watch(t.Context())
				defer stop()
				synctest.Wait()
				h.Store.Fail(nil)
				tt.end(h)
				time.Sleep(time.Minute)
				if ctx.Err() != nil {
					t.Errorf("during the outage: %v", context.Cause(ctx))
				}
				h.Store.Restore()
				time.Sleep(2 * time.Second)
				if cause := context.Cause(ctx); !errors.Is(cause, tt.want) {
					t.Errorf("after the outage: %v, want %v", cause, tt.want)
				}
			})
		})
	}
}
