package echosession_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
	"github.com/echosession/echosession/storetest"
)

func newRedisStore(t testing.TB, client echosession.RedisClient, keyspace string) echosession.Store {
	t.Helper()
	store, err := echosession.NewRedisStore(client, echosession.RedisOptions{Keyspace: keyspace})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func TestRedisStoreConforms(t *testing.T) {
	t.Parallel()
	t.Run("fake", func(t *testing.T) {
		t.Parallel()
		storetest.Run(t, func(t *testing.T) echosession.Store {
			return newRedisStore(t, newFakeRedis(t), newKeyspace())
		})
	})
	t.Run("fake with a clock", func(t *testing.T) {
		t.Parallel()
		storetest.RunWithClock(t, func(t *testing.T) (echosession.Store, func(time.Duration)) {
			clock, fake := newClock(), newFakeRedis(t)
			fake.now = clock.Now
			return newRedisStore(t, fake, newKeyspace()), clock.Advance
		})
	})
	t.Run("redis behind a slow cache", func(t *testing.T) {
		t.Parallel()
		server := redistest.Shared(t)
		storetest.Run(t, func(t *testing.T) echosession.Store {
			return newRedisStore(t, newSlowCache(server.Client(t)), newKeyspace())
		})
	})
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		server := redistest.Shared(t)
		storetest.Run(t, func(t *testing.T) echosession.Store {
			client, keyspace := server.Client(t), newKeyspace()
			t.Cleanup(func() { redistest.AssertNoKeyWithoutTTL(t, client, keyspace) })
			return newRedisStore(t, client, keyspace)
		})
	})
	t.Run("redis by small pages", func(t *testing.T) {
		t.Parallel()
		server := redistest.Shared(t)
		storetest.Run(t, func(t *testing.T) echosession.Store {
			return echosession.SmallPages(newRedisStore(t, server.Client(t), newKeyspace()))
		})
	})
}

// hashTag is the part of a key that decides its Cluster slot.
func hashTag(key string) string {
	if _, rest, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			return tag
		}
	}
	return key
}

// FuzzKeyNames holds the names of keys to this: sessions that differ have keys
// that differ, none of them is an index, those of one subject and its index share
// a slot, and no byte of a subject gets into a key.
func FuzzKeyNames(f *testing.F) {
	fake := newFakeRedis(f)
	id := []byte("0123456789abcdef")
	for _, subjects := range [][2]string{
		{"", "a"}, {"a", "a:b"}, {"{a}", "{a}b"}, {"*", "?"}, {"\x00", ""}, {"ada", "ada"},
		{"\xff", "\xfe"}, {strings.Repeat("x", 1024), strings.Repeat("x", 1023)},
	} {
		f.Add("sess:", subjects[0], subjects[1], id, id)
		f.Add("{app}:", subjects[0], subjects[1], id, []byte("fedcba9876543210"))
		f.Add("{}:", subjects[0], subjects[1], id, id)
		f.Add("a}b{", subjects[0], subjects[1], id, id)
	}
	f.Fuzz(func(t *testing.T, keyspace, subjectA, subjectB string, idA, idB []byte) {
		uuidA, errA := uuid.FromBytes(idA)
		uuidB, errB := uuid.FromBytes(idB)
		if errA != nil || errB != nil {
			t.Skip()
		}
		if _, err := echosession.NewRedisStore(fake, echosession.RedisOptions{Keyspace: keyspace}); err != nil {
			if !strings.Contains(keyspace, "{}") {
				t.Errorf("keyspace %q: %v", keyspace, err)
			}
			return
		}
		a := echosession.Ref{ID: uuidA.String(), Subject: subjectA}
		b := echosession.Ref{ID: uuidB.String(), Subject: subjectB}
		keyA, indexA := echosession.RedisKeys(keyspace, a)
		keyB, indexB := echosession.RedisKeys(keyspace, b)
		if (keyA == keyB) != (a == b) {
			t.Errorf("%+v has key %q, %+v has %q", a, keyA, b, keyB)
		}
		if keyA == indexB || keyB == indexA {
			t.Errorf("%q and %q: a session's key is an index", keyA, keyB)
		}
		for _, key := range []string{keyA, keyB} {
			if !strings.HasPrefix(key, keyspace) || !echosession.IsSessionKey(keyspace, key) {
				t.Errorf("%q is not taken for a session's key of %q", key, keyspace)
			}
		}
		for _, index := range []string{indexA, indexB} {
			if echosession.IsSessionKey(keyspace, index) {
				t.Errorf("the index %q is taken for a session's key", index)
			}
		}
		if subjectA == "" || subjectB == "" {
			return
		}
		if (indexA == indexB) != (subjectA == subjectB) {
			t.Errorf("%q has index %q, %q has %q", subjectA, indexA, subjectB, indexB)
		}
		if hashTag(keyA) != hashTag(indexA) {
			t.Errorf("%q and its index %q are in different slots", keyA, indexA)
		}
		if rest := keyA[len(keyspace):]; len(rest) != len("{")+22+len("}:")+36 {
			t.Errorf("%q: the length of a key tells of its subject", keyA)
		}
	})
}

// BenchmarkRedis measures a session against what is paid without one: the same
// commands through the same client, decoded into the same struct.
func BenchmarkRedis(b *testing.B) {
	client := redistest.Shared(b).Client(b)
	ctx := context.Background()
	m := newManager[account](b, echosession.Config{Client: client, Secret: testSecret, Keyspace: newKeyspace()})
	sess, err := m.Create(ctx, anAccount())
	if err != nil {
		b.Fatal(err)
	}
	encoded, err := msgpack.Marshal(anAccount())
	if err != nil {
		b.Fatal(err)
	}
	key := newKeyspace() + newID()
	if err := client.Set(ctx, key, encoded, time.Hour).Err(); err != nil {
		b.Fatal(err)
	}
	b.Run("bare/read", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			data, err := client.Get(ctx, key).Bytes()
			cancel()
			var a account
			if err == nil {
				err = msgpack.Unmarshal(data, &a)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s, err := m.Open(ctx, sess.Token())
			if err != nil || !s.Exists() {
				b.Fatal(err, s.Reason())
			}
		}
	})
	compareAndSet := redis.NewScript(`if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1 end return 0`)
	b.Run("bare/write", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			data, err := client.Get(ctx, key).Bytes()
			var a account
			if err == nil {
				err = msgpack.Unmarshal(data, &a)
			}
			if err != nil {
				b.Fatal(err)
			}
			a.UserID++
			next, err := msgpack.Marshal(&a)
			if err != nil {
				b.Fatal(err)
			}
			if n, err := compareAndSet.EvalSha(ctx, client, []string{key}, data, next, 3600000).Int(); err != nil && !redis.HasErrorPrefix(err, "NOSCRIPT") || n == 0 {
				if err := compareAndSet.Load(ctx, client).Err(); err != nil {
					b.Fatal(n, err)
				}
			}
		}
	})
	b.Run("write", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s, err := m.Open(ctx, sess.Token())
			if err != nil {
				b.Fatal(err)
			}
			if err := s.Update(ctx, func(a *account) error { a.UserID++; return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// All sessions of one subject, and their index, live in one slot, whatever the
// subject is called.
func TestOneSubjectOneSlot(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: starts a cluster")
	}
	t.Parallel()
	cluster := redistest.StartCluster(t, 3, 0)
	client := cluster.Client(t)
	for _, subject := range []string{
		"ada", "{ada}", "{", "}", "{}", "{}{a}", "a}b{c", ":", "sess:{x}:y", "*?[a]", "\x00\n\r", "Zoë 🙂", strings.Repeat("x", 1024),
	} {
		t.Run(fmt.Sprintf("%.20q", subject), func(t *testing.T) {
			keyspace := newKeyspace()
			m := newManager[User](t, echosession.Config{Client: client, Secret: testSecret, Keyspace: keyspace, SubjectIndex: true})
			var last *echosession.Session[User]
			for range 5 {
				var err error
				if last, err = m.Create(t.Context(), User{}, echosession.WithSubject(subject)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := last.Rotate(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := last.Renew(t.Context(), func(*User) error { return nil }); err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			slots := make(map[int64][]string)
			err := client.ForEachMaster(t.Context(), func(ctx context.Context, c *redis.Client) error {
				keys := c.Scan(ctx, 0, keyspace+"*", 1000).Iterator()
				for keys.Next(ctx) {
					slot, err := c.ClusterKeySlot(ctx, keys.Val()).Result()
					if err != nil {
						return err
					}
					mu.Lock()
					slots[slot] = append(slots[slot], keys.Val())
					mu.Unlock()
				}
				return keys.Err()
			})
			if err != nil {
				t.Fatal(err)
			}
			if len(slots) != 1 {
				t.Errorf("keys in %d slots: %v", len(slots), slots)
			}
			for _, keys := range slots {
				if len(keys) != 8 { // 5 sessions, a pointer, a mark and the index
					t.Errorf("%d keys, want 8: %q", len(keys), keys)
				}
			}
			if list, err := m.List(t.Context(), subject); len(list) != 5 || err != nil {
				t.Errorf("List: %d sessions, %v, want 5", len(list), err)
			}
			if n, err := m.RevokeSubject(t.Context(), subject); n != 5 || err != nil {
				t.Errorf("RevokeSubject: %d, %v, want 5", n, err)
			}
		})
	}
}

// New refuses what would not work, and says why.
func TestRefusedClients(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	t.Cleanup(func() { _ = client.Close() })
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"one": "127.0.0.1:1"}})
	t.Cleanup(func() { _ = ring.Close() })
	for _, tt := range []struct {
		name   string
		client echosession.RedisClient
		wait   int
		want   string
	}{
		{"nil", nil, 0, "set Client"},
		{"a nil *redis.Client", (*redis.Client)(nil), 0, "is nil"},
		{"a nil *redis.ClusterClient", (*redis.ClusterClient)(nil), 0, "is nil"},
		{"a nil *redis.AutoPipeliner", (*redis.AutoPipeliner)(nil), 0, "is nil"},
		{"a Pipeliner", client.Pipeline(), 0, "Pipeliner"},
		{"a transaction", client.TxPipeline(), 0, "Pipeliner"},
		{"a negative WaitReplicas", client, -1, "WaitReplicas"},
		{"WaitReplicas with a Ring", ring, 1, "WaitReplicas"},
		{"WaitReplicas with an auto-pipeliner", blockingFace(t, client, nil), 1, "WaitReplicas"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := echosession.New[User](echosession.Config{Client: tt.client, Secret: testSecret, WaitReplicas: tt.wait})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q in it", err, tt.want)
			}
		})
	}
}

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
						if rotated := (*echosession.RotatedError)(nil); err != nil && !errors.As(err, &rotated) && !errors.Is(err, echosession.ErrNotFound) && !errors.Is(err, echosession.ErrRenewed) {
							t.Fatal(err)
						}
						if fake.count(want) != before+1 {
							t.Errorf("after %s: no %s", write, want)
						}
					}
				}
			}
			check("Create", errOf(writer.Create(t.Context(), ref, []byte("r1"), time.Hour, echosession.Limit{})), ref)
			check("Replace", writer.Replace(t.Context(), ref, []byte("r1"), []byte("r2"), time.Hour), ref)
			check("Rotate", writer.Rotate(t.Context(), ref, next, []byte("r2"), []byte("r3"), time.Hour, time.Hour), ref, next)
			check("Delete", writer.Delete(t.Context(), ref), ref, next)
			for _, subject := range []string{subject, "another"} {
				from, to := newRef(ref.Subject), newRef(subject)
				check("Create", errOf(writer.Create(t.Context(), from, []byte("r1"), time.Hour, echosession.Limit{})))
				check("Renew", errOf(writer.Renew(t.Context(), from, to, []byte("r1"), []byte("r2"), time.Hour, echosession.Limit{})), from, to)
			}
			old, from := newRef("bob"), newRef("")
			check("Create by another", errOf(reader.Create(t.Context(), old, []byte("r"), time.Hour, echosession.Limit{})))
			check("Create by another", errOf(reader.Create(t.Context(), from, []byte("r"), time.Hour, echosession.Limit{})))
			_, evicting := writer.Renew(t.Context(), from, newRef("bob"), []byte("r"), []byte("r2"), time.Hour, echosession.Limit{Sessions: 1})
			before := fake.count("getex")
			if _, err := writer.Load(t.Context(), old, 0); evicting != nil || !errors.Is(err, echosession.ErrNotFound) || fake.count("getex") != before+1 {
				t.Errorf("after a Renew that evicts: %v, %v, and no getex", evicting, err)
			}
			if subject == "" {
				return
			}
			last := newRef(subject)
			check("Create by another", errOf(reader.Create(t.Context(), last, []byte("r"), time.Hour, echosession.Limit{})))
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
