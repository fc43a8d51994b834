package live_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// A fault is what happens to the servers or to the connections of the watching process.
type fault struct {
	name string

	// start starts servers. inject has the fault happen, and returns when it is over: when a
	// new connection would work.
	start func(t *testing.T) (watching, ending echosession.Config, inject func() (over time.Time))

	lasts time.Duration // about; ends go on from a second before it until a second after it
	long  bool          // takes a cluster, or sentinels

	target string // max under 2000 ms
}

var faults = []fault{
	{name: "the subscription is killed", lasts: time.Second, start: killSubscriptions},
	{name: "the subscription swallows everything", lasts: 2 * time.Second, start: swallow(func(c *swallowed) bool { return c.subscribes.Load() })},
	// The pool of the client has 10 connections for each processor, which time out one after
	// another: requests meet them, too.
	{name: "every connection swallows everything", lasts: 2 * time.Second, start: swallow(func(*swallowed) bool { return true }), target: "none: as many timeouts as the pool has connections"},
	{name: "the server is paused", lasts: 4 * time.Second, start: pause},
	{name: "SENTINEL FAILOVER", lasts: 4 * time.Second, long: true, start: sentinelFailover},
	{name: "the primary is killed, and Sentinel promotes", lasts: 5 * time.Second, long: true, start: killPrimary},
	{name: "CLUSTER FAILOVER", lasts: 3 * time.Second, long: true, start: clusterFailover},
	{name: "a primary of a Cluster is killed", lasts: 6 * time.Second, long: true, start: killClusterPrimary},
}

// both returns the same Config for both processes, each with its own client.
func both(client func() echosession.RedisClient, replicas int) (watching, ending echosession.Config) {
	cfg := echosession.Config{Keyspace: newKeyspace(), SubjectIndex: true, WaitReplicas: replicas}
	watching, ending = cfg, cfg
	watching.Client, ending.Client = client(), client()
	return watching, ending
}

func killSubscriptions(t *testing.T) (watching, ending echosession.Config, inject func() time.Time) {
	server := redistest.Start(t)
	raw := server.Client(t)
	watching, ending = both(func() echosession.RedisClient { return server.Client(t) }, 0)
	return watching, ending, func() (over time.Time) {
		for range 5 {
			if n, err := raw.ClientKillByFilter(t.Context(), "type", "pubsub").Result(); err != nil {
				t.Error(n, err)
			}
			over = time.Now()
			time.Sleep(200 * time.Millisecond)
		}
		return over
	}
}

func swallow(which func(*swallowed) bool) func(t *testing.T) (watching, ending echosession.Config, inject func() time.Time) {
	return func(t *testing.T) (watching, ending echosession.Config, inject func() time.Time) {
		server := redistest.Start(t)
		m := new(mouth)
		watching, ending = both(func() echosession.RedisClient { return server.Client(t) }, 0)
		watching.Client = server.Client(t, func(o *redis.Options) { o.Dialer = m.dial })
		return watching, ending, func() time.Time {
			if n := m.swallow(which); n == 0 {
				t.Error("there was no connection")
			}
			return time.Now()
		}
	}
}

// A mouth swallows all that goes through connections, once it is told to. New ones work.
type mouth struct {
	mu    sync.Mutex
	conns []*swallowed
}

type swallowed struct {
	net.Conn
	subscribes, dead atomic.Bool
}

func (m *mouth) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c := &swallowed{Conn: conn}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conns = append(m.conns, c)
	return c, nil
}

func (m *mouth) swallow(which func(*swallowed) bool) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.conns {
		if which(c) {
			c.dead.Store(true)
			n++
		}
	}
	return n
}

func (c *swallowed) Write(p []byte) (int, error) {
	if c.dead.Load() {
		return len(p), nil
	}
	if bytes.Contains(p, []byte("subscribe")) {
		c.subscribes.Store(true)
	}
	return c.Conn.Write(p)
}

func (c *swallowed) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if err != nil || !c.dead.Load() {
			return n, err
		}
	}
}

func pause(t *testing.T) (watching, ending echosession.Config, inject func() time.Time) {
	server := redistest.Start(t)
	watching, ending = both(func() echosession.RedisClient { return server.Client(t) }, 0)
	return watching, ending, func() time.Time {
		server.Pause(t)
		time.Sleep(3 * time.Second)
		server.Resume(t)
		return time.Now()
	}
}

func sentinelFailover(t *testing.T) (watching, ending echosession.Config, inject func() time.Time) {
	s := redistest.StartSentinel(t, 1, 1)
	watching, ending = both(func() echosession.RedisClient { return s.FailoverClient(t) }, 1)
	return watching, ending, func() time.Time {
		old := s.Primary(t)
		sentinel := redis.NewSentinelClient(&redis.Options{Addr: s.SentinelAddrs()[0]})
		defer sentinel.Close()
		if err := sentinel.Failover(context.Background(), s.MasterName()).Err(); err != nil {
			t.Error(err)
		}
		s.AwaitFailover(t, old)
		return time.Now()
	}
}

func killPrimary(t *testing.T) (watching, ending echosession.Config, inject func() time.Time) {
	s := redistest.StartSentinel(t, 1, 1)
	watching, ending = both(func() echosession.RedisClient { return s.FailoverClient(t) }, 1)
	return watching, ending, func() time.Time {
		old := s.KillPrimary(t)
		s.AwaitFailover(t, old)
		over := time.Now()
		old.Restart(t) // as the replica that confirms writes
		return over
	}
}

func clusterFailover(t *testing.T) (watching, ending echosession.Config, inject func() time.Time) {
	c := redistest.StartCluster(t, 3, 1)
	watching, ending = both(func() echosession.RedisClient { return c.Client(t) }, 1)
	return watching, ending, func() time.Time {
		old := subscribed(t, c)
		slot := slotOf(t, c, old)
		info, err := old.Client(t).InfoMap(context.Background(), "replication").Result()
		if err != nil {
			t.Error(err)
		}
		// ip=127.0.0.1,port=12345,state=online,…
		fields := strings.Split(info["Replication"]["slave0"], ",")
		replica := redis.NewClient(&redis.Options{Addr: "127.0.0.1:" + strings.TrimPrefix(fields[1], "port=")})
		defer replica.Close()
		if err := replica.ClusterFailover(context.Background()).Err(); err != nil {
			t.Error(err)
		}
		c.AwaitFailover(t, slot, old)
		return time.Now()
	}
}

func killClusterPrimary(t *testing.T) (watching, ending echosession.Config, inject func() time.Time) {
	c := redistest.StartCluster(t, 3, 1)
	watching, ending = both(func() echosession.RedisClient { return c.Client(t) }, 1)
	return watching, ending, func() time.Time {
		old := subscribed(t, c)
		slot := slotOf(t, c, old)
		old.Kill()
		c.AwaitFailover(t, slot, old)
		over := time.Now()
		old.Restart(t)
		return over
	}
}

// subscribed returns a primary to which the watching process is connected for its
// subscription, or else any of them.
func subscribed(t *testing.T, c *redistest.Cluster) *redistest.Server {
	t.Helper()
	for _, server := range c.Servers[:3] {
		list, err := server.Client(t).Do(context.Background(), "client", "list", "type", "pubsub").Text()
		if err == nil && strings.Contains(list, "cmd=") {
			return server
		}
	}
	return c.Servers[0]
}

// slotOf returns a slot of a primary.
func slotOf(t *testing.T, c *redistest.Cluster, primary *redistest.Server) int {
	t.Helper()
	for i, server := range c.Servers[:3] {
		if server == primary {
			return i*16384/3 + 100
		}
	}
	t.Fatal("it was no primary when the cluster was formed")
	return 0
}

// TestFaults ends sessions before, during and after a fault. Every watcher is told, and
// nobody else.
func TestFaults(t *testing.T) {
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			if f.long && testing.Short() {
				t.Skip("-short: starts several servers")
			}
			t.Parallel()
			f.test(t)
		})
	}
}

func (f fault) test(t *testing.T) {
	watchingConfig, endingConfig, inject := f.start(t)
	watching, ending := newProcess(t, watchingConfig), newProcess(t, endingConfig)
	n := *watchedSessions
	all := append(watchMany(t, watching, n/2), watchMany(t, watching, n-n/2, echosession.WithSubject("ann"))...)
	awaitMessages(t, watching, ending)
	places := chosen(n)
	ends := make([]*faultyEnd, len(places))
	chosenOnes := make(map[*watcher]bool)
	for i, place := range places {
		var sess *echosession.Session[Data]
		err := insist(func() (err error) { sess, err = ending.Open(t.Context(), all[place].token); return err })
		if err != nil || !sess.Exists() {
			t.Fatal(err)
		}
		ends[i] = &faultyEnd{watcher: all[place], sess: sess}
		chosenOnes[all[place]] = true
	}

	var wg sync.WaitGroup
	began := time.Now()
	for i, e := range ends {
		at := began.Add(time.Duration(i) * (f.lasts + 2*time.Second) / time.Duration(len(ends)))
		wg.Go(func() {
			time.Sleep(time.Until(at))
			e.destroy(t)
		})
	}
	time.Sleep(time.Until(began.Add(time.Second)))
	over := inject()
	wg.Wait()

	var late distribution
	unclear := 0
	for _, e := range ends {
		if e.unclear {
			unclear++
			e.makeSure(t, ending)
		}
		at, cause := e.watcher.isTold(time.Minute)
		if !errors.Is(cause, echosession.ErrSessionGone) {
			t.Errorf("a session has ended, and the cause is %v", cause)
		}
		since := e.at
		if since.Before(over) {
			since = over
		}
		late = append(late, max(0, at.Sub(since)))
	}
	time.Sleep(time.Second)
	for _, w := range all {
		if !chosenOnes[w] {
			w.goesOn(t, "a session that nobody has ended")
		}
	}
	t.Logf("%d watched, %d ended over %v, %d of them at a second attempt; told, after the end and the fault: %v (target: %s)",
		n, len(ends), f.lasts+2*time.Second, unclear, late, cmp.Or(f.target, "max under 2000 ms"))
	if worst := late.at(1); worst > toldLate {
		t.Errorf("the last one was told after %v", worst)
	}
}

// A faultyEnd is the end of a session in spite of a fault.
type faultyEnd struct {
	watcher *watcher
	sess    *echosession.Session[Data]
	at      time.Time // when it was confirmed
	unclear bool      // not by the first attempt
}

// destroy destroys the session, and tries again until that is confirmed.
func (e *faultyEnd) destroy(t *testing.T) {
	for deadline := time.Now().Add(time.Minute); ; {
		err := e.sess.Destroy(context.Background())
		if err == nil {
			e.at = time.Now()
			return
		}
		e.unclear = true
		if !errors.Is(err, echosession.ErrStoreUnavailable) || time.Now().After(deadline) {
			t.Errorf("Destroy: %v", err)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// makeSure ends a session again that may be back after a failover: an attempt whose reply was
// lost may have reached no replica.
func (e *faultyEnd) makeSure(t *testing.T, m *process) {
	t.Helper()
	var sess *echosession.Session[Data]
	err := insist(func() (err error) { sess, err = m.Open(context.Background(), e.watcher.token); return err })
	if err == nil && sess.Exists() {
		err = insist(func() error { return sess.Destroy(context.Background()) })
		e.at = time.Now()
	}
	if err != nil {
		t.Fatal(err)
	}
}
