package echosession_test

import (
	"testing"

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
