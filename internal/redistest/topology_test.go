package redistest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession/internal/redistest"
)

func TestSentinel(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: waits for a failover")
	}
	t.Parallel()
	ctx := t.Context()
	begin := time.Now()
	s := redistest.StartSentinel(t, 2, 3)
	t.Logf("start: %v", time.Since(begin))
	if len(s.Servers) != 3 || len(s.SentinelAddrs()) != 3 || s.Primary(t) != s.Servers[0] {
		t.Fatalf("%d servers, sentinels %v, primary %s", len(s.Servers), s.SentinelAddrs(), s.Primary(t).Addr())
	}
	c := s.FailoverClient(t)
	if err := c.Set(ctx, "k", "v", time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Wait(ctx, 2, 5*time.Second).Result(); n != 2 || err != nil {
		t.Fatalf("%d replicas have the write: %v", n, err)
	}

	begin = time.Now()
	old := s.KillPrimary(t)
	if old != s.Servers[0] || old.Alive() {
		t.Fatalf("%s was killed, alive: %t", old.Addr(), old.Alive())
	}
	primary := s.AwaitFailover(t, old)
	t.Logf("failover: %v", time.Since(begin))
	if primary == old || s.Primary(t) != primary {
		t.Errorf("the primary is %s", primary.Addr())
	}
	if got, err := primary.Client(t).Get(ctx, "k").Result(); got != "v" || err != nil {
		t.Errorf("the new primary has %q: %v", got, err)
	}
	waitFor(t, "the client finds the new primary", func() bool {
		return c.Set(ctx, "k2", "v", time.Minute).Err() == nil
	})
}

// A primary that gives way lives on: it is not taken for the new one.
func TestSentinelFailoverByHand(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: waits for a failover")
	}
	t.Parallel()
	s := redistest.StartSentinel(t, 1, 1)
	old := s.Primary(t)
	sentinel := redis.NewSentinelClient(&redis.Options{Addr: s.SentinelAddrs()[0]})
	defer sentinel.Close()
	if err := sentinel.Failover(t.Context(), s.MasterName()).Err(); err != nil {
		t.Fatal(err)
	}
	if primary := s.AwaitFailover(t, old); primary != s.Servers[1] || !old.Alive() {
		t.Errorf("the primary is %s, want %s; the old one is alive: %t", primary.Addr(), s.Servers[1].Addr(), old.Alive())
	}
}

func TestCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: waits for a failover")
	}
	t.Parallel()
	begin := time.Now()
	c := redistest.StartCluster(t, 3, 1)
	t.Logf("start: %v", time.Since(begin))
	if len(c.Addrs()) != 6 {
		t.Fatalf("%d nodes", len(c.Addrs()))
	}
	rdb := c.Client(t, func(o *redis.ClusterOptions) {
		// The default is a minute, and a dead master gives no other hint to reload.
		o.ClusterStateReloadInterval = 200 * time.Millisecond
	})

	t.Run("every slot takes writes and every master has a replica", func(t *testing.T) { testClusterIsComplete(t, c, rdb) })
	t.Run("keys without a lifetime are found on every master", func(t *testing.T) { testKeysOfACluster(t, rdb) })
	t.Run("a slot moves with its keys, by way of ASK and TRYAGAIN", func(t *testing.T) { testSlotMoves(t, c, rdb) })
	t.Run("a replica takes over from a master that gives way", func(t *testing.T) { testMasterGivesWay(t, c) })
	t.Run("a replica takes over from a killed master", func(t *testing.T) { testMasterIsKilled(t, c, rdb) })
}

func testClusterIsComplete(t *testing.T, c *redistest.Cluster, rdb *redis.ClusterClient) {
	ctx := t.Context()
	for i := range 300 {
		if err := rdb.Set(ctx, fmt.Sprint("all:", i), i, time.Minute).Err(); err != nil {
			t.Fatal(err)
		}
	}
	masters := map[*redistest.Server]bool{c.Master(t, 0): true, c.Master(t, 8000): true, c.Master(t, 16383): true}
	if len(masters) != 3 {
		t.Errorf("%d masters", len(masters))
	}
	for m := range masters {
		info, err := m.Client(t).InfoMap(ctx, "replication").Result()
		if err != nil || info["Replication"]["connected_slaves"] != "1" {
			t.Errorf("replicas: %q, %v", info["Replication"]["connected_slaves"], err)
		}
	}
}

func testKeysOfACluster(t *testing.T, rdb *redis.ClusterClient) {
	ctx := t.Context()
	if n := redistest.AssertNoKeyWithoutTTL(t, rdb, "all:"); n != 300 {
		t.Errorf("%d keys seen, want 300", n)
	}
	for _, tag := range []string{"a", "b", "c"} {
		key := "{" + tag + "}forever"
		rdb.Set(ctx, key, 1, 0)
		rec := record(func(tb testing.TB) { redistest.AssertNoKeyWithoutTTL(tb, rdb, "{"+tag+"}") }, t)
		if !rec.failed || !strings.Contains(rec.text, key) {
			t.Errorf("%s: failed %t, text %q", key, rec.failed, rec.text)
		}
	}
}

func testSlotMoves(t *testing.T, c *redistest.Cluster, rdb *redis.ClusterClient) {
	ctx := t.Context()
	slot := c.Slot(t, "{m}")
	from := c.Master(t, slot)
	to := c.Master(t, (slot+16384/3)%16384)
	if from == to {
		t.Fatal("one master")
	}
	for i := range 250 {
		if err := rdb.Set(ctx, fmt.Sprint("{m}", i), i, time.Minute).Err(); err != nil {
			t.Fatal(err)
		}
	}
	source := from.Client(t)
	m := c.OpenSlot(t, slot, to)
	m.Move(t, "{m}1")
	if err := source.Get(ctx, "{m}1").Err(); !isRedirect(err, "ASK") {
		t.Errorf("a key that moved: %v", err)
	}
	if err := source.Get(ctx, "{m}2").Err(); err != nil {
		t.Errorf("a key that did not move: %v", err)
	}
	want := "TRYAGAIN"
	if strings.HasPrefix(version(t, source), "6.") {
		want = "ASK" // and TRYAGAIN from the server to which that leads
	}
	if err := source.MGet(ctx, "{m}1", "{m}2").Err(); !isRedirect(err, want) {
		t.Errorf("one of each: %v, want %s", err, want)
	}
	if got, err := rdb.Get(ctx, "{m}1").Result(); got != "1" || err != nil {
		t.Errorf("the cluster client gets %q, %v", got, err)
	}
	m.MoveAll(t)
	m.Finish(t)
	if err := source.Get(ctx, "{m}1").Err(); !isRedirect(err, "MOVED") {
		t.Errorf("afterwards: %v", err)
	}
	if c.Master(t, slot) != to {
		t.Error("the slot has another master")
	}
	for i := range 250 {
		if got, err := rdb.Get(ctx, fmt.Sprint("{m}", i)).Int(); got != i || err != nil {
			t.Fatalf("key %d: %d, %v", i, got, err)
		}
	}
	c.MigrateSlot(t, slot, from)
	if got, err := source.Get(ctx, "{m}1").Result(); got != "1" || err != nil {
		t.Errorf("after the way back: %q, %v", got, err)
	}
}

func testMasterGivesWay(t *testing.T, c *redistest.Cluster) {
	ctx := t.Context()
	slot := c.Slot(t, "k")
	old := c.Master(t, slot)
	info, err := old.Client(t).InfoMap(ctx, "replication").Result()
	if err != nil {
		t.Fatal(err)
	}
	// ip=127.0.0.1,port=12345,state=online,…
	fields := strings.Split(info["Replication"]["slave0"], ",")
	addr := strings.TrimPrefix(fields[0], "ip=") + ":" + strings.TrimPrefix(fields[1], "port=")
	replica := redis.NewClient(&redis.Options{Addr: addr})
	defer replica.Close()
	if err := replica.ClusterFailover(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	if master := c.AwaitFailover(t, slot, old); master.Addr() != addr || !old.Alive() {
		t.Errorf("the master is %s, want %s; the old one is alive: %t", master.Addr(), addr, old.Alive())
	}
}

func testMasterIsKilled(t *testing.T, c *redistest.Cluster, rdb *redis.ClusterClient) {
	ctx := t.Context()
	slot := c.Slot(t, "k")
	if err := rdb.Set(ctx, "k", "v", time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Master(t, slot).Client(t).Wait(ctx, 1, 5*time.Second).Result(); n != 1 {
		t.Fatalf("%d replicas have the write: %v", n, err)
	}
	begin := time.Now()
	old := c.KillMasterOf(t, slot)
	if old.Alive() {
		t.Fatal("it lives")
	}
	master := c.AwaitFailover(t, slot, old)
	t.Logf("failover: %v", time.Since(begin))
	if master == old || c.Master(t, slot) != master {
		t.Errorf("the master is %s", master.Addr())
	}
	waitFor(t, "the client finds the new master", func() bool {
		got, err := rdb.Get(ctx, "k").Result()
		return err == nil && got == "v"
	})
}

// version returns the version of Redis that a server has, or to which it conforms.
func version(tb testing.TB, c *redis.Client) string {
	tb.Helper()
	info, err := c.InfoMap(tb.Context(), "server").Result()
	if err != nil || info["Server"]["redis_version"] == "" {
		tb.Fatalf("a server without a version: %v", err)
	}
	return info["Server"]["redis_version"]
}

func isRedirect(err error, kind string) bool {
	return err != nil && strings.HasPrefix(err.Error(), kind+" ")
}

// A cluster client meets the proxies of the nodes whose addresses it learns.
func TestThrough(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: starts a cluster")
	}
	t.Parallel()
	ctx := t.Context()
	c := redistest.StartCluster(t, 3, 0)
	var proxies []*redistest.Proxy
	for _, addr := range c.Addrs() {
		proxies = append(proxies, redistest.NewProxy(t, addr))
	}
	rdb := c.Client(t, func(o *redis.ClusterOptions) {
		o.Dialer = redistest.Through(proxies...)
		o.MaxRedirects = -1 // MOVED is not followed
	})
	seen := func() (n int) {
		for _, p := range proxies {
			n += p.Count("SET")
		}
		return n
	}
	for i := range 30 {
		if err := rdb.Set(ctx, fmt.Sprint(i), i, time.Minute).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if n := seen(); n != 30 {
		t.Errorf("the proxies saw %d of 30 commands", n)
	}
	direct, err := redistest.Through(proxies...)(ctx, "tcp", redistest.Shared(t).Addr())
	if err != nil {
		t.Fatalf("a server without a proxy: %v", err)
	}
	if got := direct.RemoteAddr().String(); got != redistest.Shared(t).Addr() {
		t.Errorf("a server without a proxy is reached at %s", got)
	}
	_ = direct.Close()
	if _, err := redistest.Through()(canceled(), "tcp", c.Addrs()[0]); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that is over: %v", err)
	}
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
