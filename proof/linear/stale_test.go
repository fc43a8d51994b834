package linear_test

import (
	"context"
	"crypto/rand"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
	"github.com/echosession/echosession/proof/linear"
)

// staleBound is how long a process with client-side caching may see what another
// one has changed. Redis tells it within milliseconds, as a rule.
const staleBound = time.Second

// staleChanges are what one process does to a session and another may see late.
var staleChanges = []struct {
	name  string
	do    func(context.Context, *echosession.Session[linear.Data]) error
	shows func(*echosession.Session[linear.Data]) bool
}{
	{
		"Update",
		func(ctx context.Context, s *echosession.Session[linear.Data]) error {
			return s.Update(ctx, func(d *linear.Data) error {
				d.Count++
				return nil
			})
		},
		func(s *echosession.Session[linear.Data]) bool { return s.Data().Count == 1 },
	},
	{
		"Destroy",
		func(ctx context.Context, s *echosession.Session[linear.Data]) error { return s.Destroy(ctx) },
		func(s *echosession.Session[linear.Data]) bool { return !s.Exists() },
	},
}

// With client-side caching a process sees its own writes at once, and those of
// another in time.
func TestStaleOpen(t *testing.T) {
	t.Parallel()
	server := redistest.Shared(t)
	keyspace := "stale-" + rand.Text() + ":"
	process := func() (*echosession.Manager[linear.Data], *redis.Client) {
		client := server.Client(t, caching)
		m, err := echosession.New[linear.Data](echosession.Config{Client: client, Keyspace: keyspace, Secret: secret})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = m.Close() })
		return m, client
	}
	writer, _ := process()
	reader, cache := process()
	open := func(m *echosession.Manager[linear.Data], token string) *echosession.Session[linear.Data] {
		s, err := m.Open(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}

	s, err := reader.Create(t.Context(), linear.Data{})
	if err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); cache.CSCStats().Hits == 0 && time.Since(began) < 10*uncached; {
		open(reader, s.Token())
		time.Sleep(time.Millisecond)
	}
	unused := cache.CSCStats().Hits

	rounds := 100
	if testing.Short() {
		rounds = 20
	}
	var slowest time.Duration
	stale := 0
	for range rounds {
		s, err := writer.Create(t.Context(), linear.Data{})
		if err != nil {
			t.Fatal(err)
		}
		for _, change := range staleChanges {
			token := s.Token()
			for range 3 { // the first restarts the lifetime, the second fills the cache
				open(reader, token)
			}
			if err := change.do(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			if !change.shows(open(writer, token)) {
				t.Fatalf("the process that did it does not see its %s", change.name)
			}
			for first := true; !change.shows(open(reader, token)); first = false {
				if first {
					stale++
				}
				if time.Since(began) > staleBound {
					t.Fatalf("another process does not see the %s after %v", change.name, staleBound)
				}
				time.Sleep(time.Millisecond)
			}
			slowest = max(slowest, time.Since(began))
		}
	}
	if hits := cache.CSCStats().Hits; hits == unused {
		t.Error("the cache was not used")
	}
	t.Logf("%d changes: %d of them met a stale read in another process; it saw the last one after %v", 2*rounds, stale, slowest.Round(time.Millisecond))
}
