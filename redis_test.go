package echosession_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
	"github.com/echosession/echosession/storetest"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"github.com/vmihailenco/msgpack/v5"
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
	t.Run("fake", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) echosession.Store {
			return newRedisStore(t, newFakeRedis(t), newKeyspace())
		})
	})
	t.Run("redis", func(t *testing.T) {
		server := redistest.Shared(t)
		storetest.Run(t, func(t *testing.T) echosession.Store {
			client, keyspace := server.Client(t), newKeyspace()
			t.Cleanup(func() { redistest.AssertNoKeyWithoutTTL(t, client, keyspace) })
			return newRedisStore(t, client, keyspace)
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
