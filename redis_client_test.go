package echosession_test

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
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
	// Not the shared server: among its many keys Redis finds an expired one, of
	// which it has to tell caches, only after seconds.
	one, two := redistest.Start(t), redistest.Start(t)
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
	t.Parallel()
	for _, kind := range clientKinds(t) {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			t.Run("a life", func(t *testing.T) { testLife(t, kind) })
			t.Run("a watch", func(t *testing.T) { testEndsAreHeard(t, kind) })
			t.Run("many checks", func(t *testing.T) { testCheckMany(t, kind) })
			t.Run("the contract", func(t *testing.T) {
				switch {
				case kind.noScan:
					t.Skip("the suite needs Scan")
				case kind.brief && !long:
					t.Skip("ECHOSESSION_LONG=1 runs it")
				case testing.Short():
					t.Skip("-short: TestRedisStoreConforms runs it with one kind of client")
				}
				storetest.Run(t, func(t *testing.T) echosession.Store {
					keyspace := newKeyspace()
					t.Cleanup(func() { redistest.AssertNoKeyWithoutTTL(t, kind.universe(t), keyspace) })
					return newRedisStore(t, kind.new(t), keyspace)
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
		tokens[2] = testLogins(t, m, tokens[2])

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

// testLogins renews a session under another subject, as a rule in another slot, and back. It
// returns the last token.
func testLogins(t *testing.T, m *echosession.Manager[User], token string) string {
	t.Helper()
	open := func(token string) *echosession.Session[User] {
		t.Helper()
		sess, err := m.Open(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		return sess
	}
	for _, subject := range []string{"bob", "ada"} {
		old := open(token)
		name := old.Data().Name
		next, err := old.Renew(t.Context(), func(u *User) error { u.Name = name; return nil }, echosession.WithSubject(subject))
		if err != nil {
			t.Fatal(err)
		}
		if err := open(next).Check(t.Context()); err != nil {
			t.Errorf("the token after Renew: %v", err)
		}
		if err := open(token).Reason(); !errors.Is(err, echosession.ErrRenewed) {
			t.Errorf("the token from before Renew: %v", err)
		}
		token = next
	}
	return token
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

// WaitReplicas: an acknowledged write is on the replica, and one that is not is
// not acknowledged.
func TestWaitReplicas(t *testing.T) {
	t.Parallel()
	t.Run("standalone", func(t *testing.T) {
		t.Parallel()
		primary := redistest.Start(t)
		replica := replicaOf(t, primary)
		client, onReplica := primary.Client(t), replica.Client(t)
		testWaitReplicas(t, client, func(string) *redis.Client { return onReplica }, []*redistest.Server{replica})
	})
	t.Run("cluster", func(t *testing.T) {
		if testing.Short() {
			t.Skip("-short: starts a cluster")
		}
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
