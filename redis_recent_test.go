package echosession_test

import (
	"errors"
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

// After each of its writes a process reads on the primary, past caches and
// replicas: GETEX instead of GET.
func TestOwnWritesAreReadOnThePrimary(t *testing.T) {
	for _, subject := range []string{"", "ada"} {
		t.Run(fmt.Sprintf("subject %q", subject), func(t *testing.T) {
			fake := newFakeRedis(t) // a client that may serve stale reads, for all that the store knows
			writer, reader := newRedisStore(t, fake, "test:"), newRedisStore(t, fake, "test:")
			ref, next := newRef(subject), newRef(subject)
			check := func(write string, err error, written ...echosession.Ref) {
				t.Helper()
				if err != nil {
					t.Fatalf("%s: %v", write, err)
				}
				for _, ref := range written {
					for store, want := range map[echosession.Store]string{writer: "getex", reader: "get"} {
						before := fake.count(want)
						_, err := store.Load(t.Context(), ref, 0)
						if rotated := (*echosession.RotatedError)(nil); err != nil && !errors.As(err, &rotated) && !errors.Is(err, echosession.ErrNotFound) {
							t.Fatal(err)
						}
						if fake.count(want) != before+1 {
							t.Errorf("after %s: no %s", write, want)
						}
					}
				}
			}
			check("Create", writer.Create(t.Context(), ref, []byte("r1"), time.Hour, 0), ref)
			check("Replace", writer.Replace(t.Context(), ref, []byte("r1"), []byte("r2"), time.Hour), ref)
			check("Rotate", writer.Rotate(t.Context(), ref, next, []byte("r2"), []byte("r3"), time.Hour, time.Hour), ref, next)
			check("Delete", writer.Delete(t.Context(), ref), ref, next)
			if subject == "" {
				return
			}
			last := newRef(subject)
			check("Create by another", reader.Create(t.Context(), last, []byte("r"), time.Hour, 0))
			_, err := writer.DeleteSubject(t.Context(), subject, nil)
			writerOnly := fake.count("getex")
			check("DeleteSubject", err)
			if _, err := writer.Load(t.Context(), last, 0); !errors.Is(err, echosession.ErrNotFound) || fake.count("getex") != writerOnly+1 {
				t.Errorf("after DeleteSubject: %v, and no getex", err)
			}
		})
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
