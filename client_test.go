package echosession_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
	"github.com/echosession/echosession/storetest"
)

func init() { logging.Disable() } // go-redis tells of every failover

// long reports whether tests may take minutes.
var long = os.Getenv("ECHOSESSION_LONG") == "1"

// autoPipeliner is what the clients have that offer auto-pipelining.
type autoPipeliner interface {
	AutoPipelineWithOptions(*redis.AutoPipelineOptions) (*redis.AutoPipeliner, error)
	AsyncAutoPipelineWithOptions(*redis.AutoPipelineOptions) (*redis.AutoPipeliner, error)
}

func blockingFace(tb testing.TB, c autoPipeliner, o *redis.AutoPipelineOptions) echosession.RedisClient {
	tb.Helper()
	ap, err := c.AutoPipelineWithOptions(o)
	if err != nil {
		tb.Fatal(err)
	}
	return ap
}

func asyncFace(tb testing.TB, c autoPipeliner) echosession.RedisClient {
	tb.Helper()
	ap, err := c.AsyncAutoPipelineWithOptions(nil)
	if err != nil {
		tb.Fatal(err)
	}
	return ap
}

func cached(o *redis.Options) {
	o.Protocol = 3
	o.ClientSideCacheConfig = &redis.ClientSideCacheConfig{}
}

// A clientKind is a kind of client that the store can be handed. Clients that one
// new call makes see the same servers.
type clientKind struct {
	name     string
	brief    bool // the whole contract only in a long run
	noScan   bool // it cannot visit all sessions
	new      func(tb testing.TB) echosession.RedisClient
	universe func(tb testing.TB) redis.UniversalClient // to look at the keys
}

// clientKinds starts the servers that all kinds of clients need.
func clientKinds(t *testing.T) []clientKind {
	one, two := redistest.Shared(t), redistest.Start(t)
	cluster := redistest.StartCluster(t, 3, 1)
	sentinel := redistest.StartSentinel(t, 1, 3)

	plain := func(tb testing.TB) redis.UniversalClient { return one.Client(tb) }
	clustered := func(tb testing.TB) redis.UniversalClient { return cluster.Client(tb) }
	failover := func(tb testing.TB) redis.UniversalClient { return sentinel.FailoverClient(tb) }
	ring := func(tb testing.TB) redis.UniversalClient {
		ring := redis.NewRing(&redis.RingOptions{
			Addrs:                 map[string]string{"one": one.Addr(), "two": two.Addr()},
			ContextTimeoutEnabled: true,
		})
		tb.Cleanup(func() { _ = ring.Close() })
		return ring
	}
	direct := func(u func(testing.TB) redis.UniversalClient) func(testing.TB) echosession.RedisClient {
		return func(tb testing.TB) echosession.RedisClient { return u(tb) }
	}
	return []clientKind{
		{"client as redis.NewClient makes it", false, false, func(tb testing.TB) echosession.RedisClient {
			return one.Client(tb, func(o *redis.Options) { o.ContextTimeoutEnabled = false })
		}, plain},
		{"client of RESP2", true, false, func(tb testing.TB) echosession.RedisClient {
			return one.Client(tb, func(o *redis.Options) { o.Protocol = 2 })
		}, plain},
		{"AutoPipeline", false, false, func(tb testing.TB) echosession.RedisClient {
			return blockingFace(tb, one.Client(tb), nil)
		}, plain},
		{"AsyncAutoPipeline", true, false, func(tb testing.TB) echosession.RedisClient {
			return asyncFace(tb, one.Client(tb))
		}, plain},
		{"AutoPipeline, full duplex", true, false, func(tb testing.TB) echosession.RedisClient {
			return blockingFace(tb, one.Client(tb), &redis.AutoPipelineOptions{FullDuplex: true})
		}, plain},
		{"client-side caching", false, false, func(tb testing.TB) echosession.RedisClient {
			return one.Client(tb, cached)
		}, plain},
		{"client-side caching, AutoPipeline", true, false, func(tb testing.TB) echosession.RedisClient {
			return blockingFace(tb, one.Client(tb, cached), nil)
		}, plain},
		{"Ring of two", false, false, direct(ring), ring},
		{"ClusterClient", true, false, direct(clustered), clustered},
		{"ClusterClient that reads from replicas", false, false, func(tb testing.TB) echosession.RedisClient {
			return cluster.Client(tb, func(o *redis.ClusterOptions) { o.ReadOnly = true })
		}, clustered},
		{"ClusterClient, AutoPipeline", true, true, func(tb testing.TB) echosession.RedisClient {
			return blockingFace(tb, cluster.Client(tb), nil)
		}, clustered},
		{"Sentinel", false, false, direct(failover), failover},
	}
}

// Every kind of client keeps the whole contract of a store, on real servers.
func TestClients(t *testing.T) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, kind := range clientKinds(t) {
		// Not t.Parallel: the suite mostly waits, whatever the number of processors.
		wg.Go(func() {
			t.Run(kind.name, func(t *testing.T) {
				t.Run("a life", func(t *testing.T) { testLife(t, kind) })
				t.Run("the contract", func(t *testing.T) {
					switch {
					case kind.noScan:
						t.Skip("the suite needs Scan")
					case kind.brief && !long:
						t.Skip("ECHOSESSION_LONG=1 runs it")
					}
					storetest.Run(t, func(t *testing.T) echosession.Store {
						keyspace := newKeyspace()
						t.Cleanup(func() { redistest.AssertNoKeyWithoutTTL(t, kind.universe(t), keyspace) })
						return newRedisStore(t, kind.new(t), keyspace)
					})
				})
			})
		})
	}
}

// testLife goes through what a session goes through, with and without index.
func testLife(t *testing.T, kind clientKind) {
	for _, indexed := range []bool{false, true} {
		ctx, client, keyspace := t.Context(), kind.new(t), newKeyspace()
		cfg := echosession.Config{Client: client, Secret: testSecret, Keyspace: keyspace, SubjectIndex: indexed, StoreTimeout: 5 * time.Second}
		m := newManager[User](t, cfg)
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatalf("index %t: %v", indexed, err)
			}
		}
		open := func(token string) *echosession.Session[User] {
			t.Helper()
			sess, err := m.Open(ctx, token)
			must(err)
			return sess
		}
		var tokens []string
		for i := range 20 {
			sess, err := m.Create(ctx, User{Name: fmt.Sprint("user ", i)}, echosession.WithSubject("ada"))
			must(err)
			tokens = append(tokens, sess.Token())
		}
		for i, token := range tokens {
			sess := open(token)
			must(sess.Update(ctx, func(u *User) error { u.Count++; return nil }))
			if data := open(token).Data(); data.Count != 1 || data.Name != fmt.Sprint("user ", i) {
				t.Fatalf("index %t: after an update: %+v", indexed, data)
			}
			must(sess.Touch(ctx))
			must(sess.Reload(ctx))
		}
		next, err := open(tokens[0]).Rotate(ctx)
		must(err)
		if open(next).ID() != open(tokens[0]).ID() {
			t.Errorf("index %t: old and new token find different sessions", indexed)
		}
		must(open(tokens[0]).Destroy(ctx))
		if open(next).Exists() || open(tokens[0]).Exists() {
			t.Errorf("index %t: it outlives Destroy", indexed)
		}

		seen := make(map[string]bool)
		for sess, err := range m.All(ctx) {
			if kind.noScan {
				if err == nil || !strings.Contains(err.Error(), "ClusterClient") {
					t.Errorf("All: %v, want advice", err)
				}
				continue
			}
			must(err)
			seen[sess.Data().Name] = true
		}
		if want := 19; len(seen) != want && !kind.noScan {
			t.Errorf("index %t: All visits %d sessions, want %d", indexed, len(seen), want)
		}
		if indexed {
			list, err := m.List(ctx, "ada")
			must(err)
			if len(list) != 19 {
				t.Errorf("List: %d sessions, want 19", len(list))
			}
			if n, err := m.RevokeSubject(ctx, "ada", open(tokens[1]).ID()); n != 18 || err != nil {
				t.Errorf("RevokeSubject: %d, %v, want 18", n, err)
			}
			for i, token := range tokens {
				if open(token).Exists() != (i == 1) {
					t.Errorf("after RevokeSubject session %d: %t", i, open(token).Exists())
				}
			}
		}
		if redistest.AssertNoKeyWithoutTTL(t, kind.universe(t), keyspace) == 0 {
			t.Errorf("index %t: no keys are left to look at", indexed)
		}
	}
}

// An auto-pipeliner keeps the options that it was made with.
func TestAutoPipelinerOptions(t *testing.T) {
	server := redistest.Shared(t)
	proxy := redistest.NewProxy(t, server.Addr())
	client := redis.NewClient(&redis.Options{Addr: proxy.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	blocking, err := client.AutoPipelineWithOptions(&redis.AutoPipelineOptions{MaxBatchSize: 7, FullDuplex: true})
	if err != nil {
		t.Fatal(err)
	}
	newRedisStore(t, blocking, newKeyspace())
	async, err := client.AsyncAutoPipeline() // the one that the store uses
	if err != nil {
		t.Fatal(err)
	}
	if got := async.Config(); got.MaxBatchSize != 7 || !got.FullDuplex {
		t.Errorf("the store's face has MaxBatchSize %d, FullDuplex %t", got.MaxBatchSize, got.FullDuplex)
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

// All sessions of one subject, and their index, live in one slot, whatever the
// subject is called.
func TestOneSubjectOneSlot(t *testing.T) {
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
				if len(keys) != 7 { // 5 sessions, a pointer and the index
					t.Errorf("%d keys, want 7: %q", len(keys), keys)
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

// WaitReplicas: an acknowledged write is on the replica, and one that is not is
// not acknowledged.
func TestWaitReplicas(t *testing.T) {
	t.Run("standalone", func(t *testing.T) {
		t.Parallel()
		primary := redistest.Start(t)
		replica := replicaOf(t, primary)
		client, onReplica := primary.Client(t), replica.Client(t)
		testWaitReplicas(t, client, func(string) *redis.Client { return onReplica }, []*redistest.Server{replica})
	})
	t.Run("cluster", func(t *testing.T) {
		t.Parallel()
		cluster := redistest.StartCluster(t, 3, 1)
		readers := cluster.Client(t, func(o *redis.ClusterOptions) { o.ReadOnly = true })
		testWaitReplicas(t, cluster.Client(t), func(key string) *redis.Client {
			replica, err := readers.SlaveForKey(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			return replica
		}, cluster.Servers[3:])
	})
}

// replicaOf starts a replica, and waits until it is in step.
func replicaOf(t *testing.T, primary *redistest.Server) *redistest.Server {
	t.Helper()
	host, port, err := net.SplitHostPort(primary.Addr())
	if err != nil {
		t.Fatal(err)
	}
	replica := redistest.Start(t, "--replicaof", host, port)
	if err := primary.Client(t).Set(t.Context(), "replica", "in step", time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	c := replica.Client(t)
	for c.Get(t.Context(), "replica").Val() != "in step" {
		if t.Context().Err() != nil {
			t.FailNow()
		}
		time.Sleep(10 * time.Millisecond)
	}
	return replica
}

func testWaitReplicas(t *testing.T, client redis.UniversalClient, replicaFor func(key string) *redis.Client, replicas []*redistest.Server) {
	for _, indexed := range []bool{false, true} {
		ctx, cfg := t.Context(), echosession.Config{
			Client: client, Secret: testSecret, Keyspace: newKeyspace(), SubjectIndex: indexed, WaitReplicas: 1,
			TouchInterval: echosession.TouchAlways, StoreTimeout: 2 * time.Second,
		}
		m := newManager[User](t, cfg)
		cfg.WaitReplicas, cfg.StoreTimeout = 2, 800*time.Millisecond
		demanding := newManager[User](t, cfg)
		cfg.WaitReplicas = 1
		hasty := newManager[User](t, cfg)

		sess, err := m.Create(ctx, User{}, echosession.WithSubject("ada"))
		if err != nil {
			t.Fatal(err)
		}
		replicated := func(what string) {
			t.Helper()
			key := cfg.Keyspace + sess.ID()
			if indexed {
				sum := sha256.Sum256([]byte("ada"))
				key = cfg.Keyspace + "{" + base64.RawURLEncoding.EncodeToString(sum[:16]) + "}:" + sess.ID()
			}
			there := replicaFor(key).Get(ctx, key).Val()
			if here := client.Get(ctx, key).Val(); here != there || here == "" {
				t.Fatalf("index %t: after %s the replica has %q, the primary %q", indexed, what, there, here)
			}
		}
		replicated("Create")
		for range 50 {
			if err := sess.Update(ctx, func(u *User) error { u.Count++; return nil }); err != nil {
				t.Fatal(err)
			}
			replicated("Update")
		}
		token, err := sess.Rotate(ctx)
		if err != nil {
			t.Fatal(err)
		}
		replicated("Rotate")

		refused := func(m *echosession.Manager[User], count int) {
			t.Helper()
			sess, err := m.Open(ctx, token) // it touches
			if err != nil {
				t.Fatalf("index %t: a read waits for replicas: %v", indexed, err)
			}
			begin := time.Now()
			err = sess.Update(ctx, func(u *User) error { u.Count = count; return nil })
			if !errors.Is(err, echosession.ErrNotReplicated) || time.Since(begin) > cfg.StoreTimeout+faultSlack {
				t.Errorf("index %t: Update after %v: %v, want ErrNotReplicated", indexed, time.Since(begin), err)
			}
			if err := sess.Reload(ctx); err != nil || sess.Data().Count != count {
				t.Errorf("index %t: it was applied all the same, but now there is %+v, %v", indexed, sess.Data(), err)
			}
			if indexed {
				if list, err := m.List(ctx, "ada"); err != nil || len(list) != 1 {
					t.Errorf("List: %d, %v", len(list), err)
				}
			}
		}
		refused(demanding, 1002)
		for _, r := range replicas {
			r.Pause(t)
		}
		refused(hasty, 1003)
		for _, r := range replicas {
			r.Resume(t)
		}
		sess, err = m.Open(ctx, token)
		if err != nil {
			t.Fatal(err)
		}
		if err := sess.Update(ctx, func(u *User) error { u.Count++; return nil }); err != nil || sess.Data().Count != 1004 {
			t.Errorf("when the replica is back: %+v, %v", sess.Data(), err)
		}
		replicated("the replica's return")
	}
}
