package storetest

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/echosession/echosession"
)

// CaseNames returns the names of all cases.
func CaseNames() []string {
	var names []string
	for _, c := range cases() {
		names = append(names, c.name)
	}
	return names
}

// Complaints runs one case on stores of newStore, as RunWithClock does, and
// returns what it has to say against them.
func Complaints(tb testing.TB, name string, newStore func() (echosession.Store, func(time.Duration))) []string {
	tb.Helper()
	for _, c := range cases() {
		if c.name != name {
			continue
		}
		subjects := []string{uuid.NewString()}
		if c.anySubject {
			subjects = append(subjects, "")
		}
		r := &recorder{TB: tb}
		for _, subject := range subjects {
			store, advance := newStore()
			var wg sync.WaitGroup
			wg.Go(func() { // for Fatalf to end
				c.check(&trial{TB: r, store: store, advance: advance, subject: subject, hasty: true})
			})
			wg.Wait()
		}
		return r.complaints
	}
	tb.Fatalf("there is no case %q", name)
	return nil
}

// recorder is a T that notes failures instead of failing.
type recorder struct {
	testing.TB
	mu         sync.Mutex
	complaints []string
}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.complaints = append(r.complaints, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.complaints) > 0
}

func (*recorder) Logf(string, ...any) {}
