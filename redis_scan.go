package echosession

import (
	"context"
	"encoding/base64"
	"errors"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

func (r *redisStore) Scan(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		nodes, err := r.nodes(ctx)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		for _, node := range nodes {
			var cursor uint64
			for {
				scan := redis.NewScanCmd(ctx, nil, "scan", cursor, "match", globEscape(r.keyspace)+"*", "count", scanBatch, "type", "string")
				if err := node.process(ctx, scan); err != nil {
					yield(Entry{}, unavailable(refusal(err)))
					return
				}
				var keys []string
				keys, cursor = scan.Val()
				entries, err := node.fetch(ctx, keys)
				if err != nil {
					yield(Entry{}, err)
					return
				}
				for _, e := range entries {
					if !yield(e, nil) {
						return
					}
				}
				if cursor == 0 {
					break
				}
			}
		}
	}
}

const scanBatch = 256

// nodes returns the servers that hold keys, each as a store of its own.
func (r *redisStore) nodes(ctx context.Context) ([]*redisStore, error) {
	var (
		mu    sync.Mutex
		nodes []*redisStore
		err   error
	)
	add := func(_ context.Context, c *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		nodes = append(nodes, &redisStore{client: c, keyspace: r.keyspace, deadlines: r.deadlines})
		return nil
	}
	switch c := r.client.(type) {
	case *redis.ClusterClient:
		err = c.ForEachMaster(ctx, add)
	case *redis.Ring:
		err = c.ForEachShard(ctx, add)
	case *redis.AutoPipeliner:
		info := redis.NewStringCmd(ctx, "info", "cluster")
		if err = r.process(ctx, info); err == nil && strings.Contains(info.Val(), "cluster_enabled:1") {
			return nil, errors.New("echosession: an auto-pipeliner does not tell the nodes of its cluster; visit all sessions through a Manager on the ClusterClient itself")
		}
		nodes = append(nodes, r)
	default:
		nodes = append(nodes, r)
	}
	if err != nil {
		return nil, unavailable(refusal(err))
	}
	return nodes, nil
}

// fetch reads the keys, and returns those that hold a record.
func (r *redisStore) fetch(ctx context.Context, keys []string) ([]Entry, error) {
	type pending struct {
		value *redis.StringCmd
		ttl   *redis.IntCmd
	}
	var (
		batch []pending
		cmds  []redis.Cmder
	)
	for _, key := range keys {
		if r.isSessionKey(key) {
			p := pending{redis.NewStringCmd(ctx, r.getter(key), key), redis.NewIntCmd(ctx, "pttl", key)}
			batch = append(batch, p)
			cmds = append(cmds, p.value, p.ttl)
		}
	}
	if err := r.processAll(ctx, cmds); err != nil {
		return nil, unavailable(refusal(err))
	}
	entries := make([]Entry, 0, len(batch))
	for _, p := range batch {
		if v := p.value.Val(); v != "" && v[0] != noRecord && p.ttl.Val() > 0 {
			entries = append(entries, Entry{Record: []byte(v), TTL: time.Duration(p.ttl.Val()) * time.Millisecond})
		}
	}
	return entries, nil
}

// A pipeliner is a client that sends many commands in one round trip.
type pipeliner interface{ Pipeline() redis.Pipeliner }

// processAll runs reads: in one round trip if the client has pipelines.
func (r *redisStore) processAll(ctx context.Context, cmds []redis.Cmder) error {
	if c, ok := r.client.(pipeliner); ok && len(cmds) > 0 {
		pipe := c.Pipeline()
		for _, cmd := range cmds {
			_ = pipe.Process(ctx, cmd)
		}
		err := r.bounded(ctx, func() error {
			_, err := pipe.Exec(ctx)
			return err
		})
		if errors.Is(err, redis.Nil) {
			return nil
		}
		return err
	}
	for _, cmd := range cmds {
		if err := r.process(ctx, cmd); err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
	}
	return nil
}

// isSessionKey tells this keyspace's sessions from its indexes and from the keys
// of a keyspace whose name begins with this one's.
func (r *redisStore) isSessionKey(key string) bool {
	key = key[len(r.keyspace):]
	if strings.HasPrefix(key, "{") {
		hash := len("{") + base64.RawURLEncoding.EncodedLen(16)
		if len(key) < hash || !strings.HasPrefix(key[hash:], "}:") {
			return false
		}
		key = key[hash+len("}:"):]
	}
	return len(key) == refIDLen && !strings.ContainsAny(key, "{}:")
}

// globEscape makes a SCAN pattern that matches s alone.
func globEscape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`).Replace(s)
}
