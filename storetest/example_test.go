package storetest_test

import (
	"testing"
	"time"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/storetest"
)

// A store of one's own is checked by a test that hands in how one is made.
func ExampleRun() {
	_ = func(t *testing.T) { // TestStore
		storetest.Run(t, func(t *testing.T) echosession.Store {
			store := echosession.NewMemoryStore()
			t.Cleanup(func() { store.Close() })
			return store
		})
	}
}

// With a clock to turn, the suite does not wait for lifetimes to pass.
func ExampleRunWithClock() {
	_ = func(t *testing.T) { // TestStore
		storetest.RunWithClock(t, func(t *testing.T) (echosession.Store, func(time.Duration)) {
			now := time.Now()
			store := echosession.NewMemoryStore(echosession.WithClock(func() time.Time { return now }))
			return store, func(d time.Duration) { now = now.Add(d) }
		})
	}
}
