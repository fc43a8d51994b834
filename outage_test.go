package echosession_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/echosession/echosession"
)

// Nobody waits for a store that is known to be down, and one probe at a time finds out when
// it is back.
func TestNobodyWaitsForAStoreThatIsDown(t *testing.T) {
	const timeout = 300 * time.Millisecond
	s := newStaleSite(t, func(cfg *echosession.Config) { cfg.StoreTimeout = timeout })
	hanging := &hangingStore{Store: s.store.Store}
	s.store.Store = hanging
	token := s.login("ada").Token()
	hanging.set(true)
	began := time.Now()
	s.expect(token, "ada 0 stale")
	if took := time.Since(began); took < timeout {
		t.Fatalf("the first request knew after %v", took)
	}
	began = time.Now()
	before := s.store.count("Load")
	const requests = 50
	var wg sync.WaitGroup
	for range requests {
		wg.Go(func() { s.expect(token, "ada 0 stale") })
	}
	wg.Wait()
	took := time.Since(began)
	if took >= timeout {
		t.Errorf("%d requests took %v", requests, took)
	}
	time.Sleep(timeout/2 - time.Since(began)) // time for another probe, if it did not wait for the first
	s.expect(token, "ada 0 stale")
	if probes := s.store.count("Load") - before; probes != 1 && time.Since(began) < timeout {
		t.Errorf("%d probes at once", probes)
	}
	hanging.set(false)
	for s.at("/stale", token) != "ada 0" {
		if time.Since(began) > 10*time.Second {
			t.Fatal("the process does not notice that the store is back")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A store that refuses at once is not asked more often for it.
func TestProbesArePaced(t *testing.T) {
	s := newStaleSite(t)
	token := s.login("ada").Token()
	s.down()
	s.expect(token, "ada 0 stale")
	began, before := time.Now(), s.store.count("Load")
	for range 100 {
		s.expect(token, "ada 0 stale")
	}
	if probes, most := s.store.count("Load")-before, 1+int(time.Since(began)/(100*time.Millisecond)); probes > most {
		t.Errorf("%d probes, and not %d at most", probes, most)
	}
}

// hangingStore is a store that does not answer reads.
type hangingStore struct {
	echosession.Store
	mu    sync.Mutex
	hangs bool
}

func (s *hangingStore) set(hangs bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hangs = hangs
}

func (s *hangingStore) Load(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
	s.mu.Lock()
	hangs := s.hangs
	s.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return nil, fmt.Errorf("%w: %w", echosession.ErrStoreUnavailable, ctx.Err())
	}
	return s.Store.Load(ctx, ref, ttl)
}

// A request whose own time is over says nothing about the store. A probe finds out.
func TestAStoreIsNotDownForOneRequestWithoutTime(t *testing.T) {
	s := newStaleSite(t)
	hanging := &hangingStore{Store: s.store.Store}
	s.store.Store = hanging
	token := s.login("ada").Token()
	hanging.set(true)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := s.m.Open(ctx, token); !errors.Is(err, echosession.ErrStoreUnavailable) {
		t.Fatal(err)
	}
	hanging.set(false)
	s.expect(token, "ada 0")

	// The store is slow again: each request without time may have it asked by a probe. One
	// that comes just after another probe does not.
	hanging.set(true)
	before, requests := s.store.count("Load"), 0
	for began := time.Now(); s.store.count("Load") <= before+requests; requests++ {
		if time.Since(began) > 10*time.Second {
			t.Fatal("no probe")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		_, _ = s.m.Open(ctx, token)
		cancel()
	}
}

// One server of several that is down makes no session of the others stale.
func TestOneServerOfSeveral(t *testing.T) {
	s := newStaleSite(t)
	echosession.StaleServers(s.m, func(ref echosession.Ref) string { return ref.Subject })
	ada, bob := s.login("ada").Token(), s.login("bob").Token()
	s.expect(bob, "bob 0")
	s.store.stop("Load", false).resume <- echosession.ErrStoreUnavailable
	s.expect(ada, "ada 0 stale")
	s.expect(bob, "bob 0")
	// Every one of them is asked by a probe of its own.
	deadline := time.Now().Add(10 * time.Second)
	for s.at("/stale", ada) != "ada 0" {
		if time.Now().After(deadline) {
			t.Fatal("the probe does not help")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Close ends the probes. From then on the store is asked by the requests themselves.
func TestCloseEndsTheProbes(t *testing.T) {
	s := newStaleSite(t)
	token := s.login("ada").Token()
	s.down()
	s.expect(token, "ada 0 stale")
	if err := s.m.Close(); err != nil {
		t.Fatal(err)
	}
	before := s.store.count("Load")
	s.expect(token, "ada 0 stale")
	if n := s.store.count("Load") - before; n != 1 {
		t.Errorf("%d loads", n)
	}
	s.store.fail(nil)
	s.expect(token, "ada 0")

	hanging := &hangingStore{Store: s.store.Store}
	s.store.Store = hanging
	hanging.set(true)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	before = s.store.count("Load")
	if _, err := s.m.Open(ctx, token); err == nil {
		t.Fatal("a store that hangs has answered")
	}
	time.Sleep(10 * time.Millisecond)
	if n := s.store.count("Load") - before; n != 1 {
		t.Errorf("%d loads", n)
	}
}
