package echosession_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// What this process wrote it reads, however late the invalidation comes.
func TestOwnWritesAreReadAtOnce(t *testing.T) {
	server := redistest.Shared(t)
	m := newManager[User](t, echosession.Config{Client: server.Client(t, cached), Secret: testSecret, Keyspace: newKeyspace()})
	sess, err := m.Create(t.Context(), User{}, echosession.WithSubject("ada"))
	if err != nil {
		t.Fatal(err)
	}
	stale := 0
	for i := range 500 {
		if err := sess.Update(t.Context(), func(u *User) error { u.Count++; return nil }); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			again, err := m.Open(t.Context(), sess.Token())
			if err != nil {
				t.Fatal(err)
			}
			if again.Data().Count != i+1 {
				stale++
			}
		}
	}
	if stale > 0 {
		t.Errorf("%d of 1000 reads are stale", stale)
	}
}

// How long another process with a client-side cache shows a session that was
// revoked.
func TestStalenessOfCachesIsBounded(t *testing.T) {
	const bound = time.Second // it takes some 5 ms
	server := redistest.Shared(t)
	cfg := echosession.Config{Secret: testSecret, Keyspace: newKeyspace(), SubjectIndex: true}
	manager := func() *echosession.Manager[User] {
		cfg.Client = server.Client(t, cached)
		return newManager[User](t, cfg)
	}
	here, there := manager(), manager()
	var stale []time.Duration
	for i := range 100 {
		subject := fmt.Sprint("user ", i)
		sess, err := here.Create(t.Context(), User{}, echosession.WithSubject(subject))
		if err != nil {
			t.Fatal(err)
		}
		for range 3 { // the first touches, the second fills the cache
			if seen, err := there.Open(t.Context(), sess.Token()); err != nil || !seen.Exists() {
				t.Fatalf("not there: %v", err)
			}
		}
		if _, err := here.RevokeSubject(t.Context(), subject); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		for {
			seen, err := there.Open(t.Context(), sess.Token())
			if err != nil {
				t.Fatal(err)
			}
			took := time.Since(begin)
			if !seen.Exists() {
				stale = append(stale, took)
				break
			}
			if took > bound {
				t.Fatalf("a revoked session is shown for %v", took)
			}
		}
	}
	slices.Sort(stale)
	at := func(p int) time.Duration { return stale[len(stale)*p/100].Round(10 * time.Microsecond) }
	t.Logf("a revoked session is shown by another process for: median %v, 90%% %v, 99%% %v, worst %v",
		at(50), at(90), at(99), stale[len(stale)-1].Round(10*time.Microsecond))
}
