package echosession_test

import (
	"context"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
	"github.com/redis/go-redis/v9"
)

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
