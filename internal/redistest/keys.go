package redistest

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
)

// AssertNoKeyWithoutTTL fails tb for every key that begins with prefix and never
// expires. It looks at every master of a cluster and at every shard of a ring,
// and returns how many keys it saw.
func AssertNoKeyWithoutTTL(tb testing.TB, client redis.UniversalClient, prefix string) int {
	tb.Helper()
	ctx := context.Background()
	var (
		mu   sync.Mutex
		seen int
	)
	check := func(ctx context.Context, c *redis.Client) error {
		keys := c.Scan(ctx, 0, glob.Replace(prefix)+"*", 1000).Iterator()
		for keys.Next(ctx) {
			ttl, err := c.PTTL(ctx, keys.Val()).Result()
			if err != nil {
				return err
			}
			mu.Lock()
			seen++
			if ttl == -1 {
				tb.Errorf("redistest: the key %q never expires", keys.Val())
			}
			mu.Unlock()
		}
		return keys.Err()
	}

	var err error
	switch c := client.(type) {
	case *redis.ClusterClient:
		err = c.ForEachMaster(ctx, check)
	case *redis.Ring:
		err = c.ForEachShard(ctx, check)
	case *redis.Client:
		err = check(ctx, c)
	default:
		tb.Fatalf("redistest: a client of type %T cannot be asked for its keys", client)
	}
	if err != nil {
		tb.Errorf("redistest: looking for keys without a lifetime: %v", err)
	}
	return seen
}

// glob escapes what SCAN MATCH takes for a pattern.
var glob = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`, `^`, `\^`)
