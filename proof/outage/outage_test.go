// Package outage takes the store away from a server under load, and looks at what its
// clients see: routes with ServeStale go on, and nothing is served that the server knew to
// have ended.
package outage_test

import (
	"context"
	"flag"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

var (
	users = flag.Int("users", 200, "clients at a time")
	calm  = flag.Duration("calm", time.Second, "how long the load lasts before the outage and after it")
	pause = flag.Duration("pause", 40*time.Millisecond, "the average pause of a client between two requests")
	seed  = flag.Uint64("seed", 1, "decides what each client does")
)

// ended is how many sessions end before the outage, and how many more clients log out during it.
const ended = 20

// A failover of Sentinel. One of the two replicas has every write that was confirmed.
func TestSentinelFailover(t *testing.T) {
	sentinel := redistest.StartSentinel(t, 2, 3)
	client := sentinel.FailoverClient(t)
	failover(t, client, func() {
		old := sentinel.KillPrimary(t)
		sentinel.AwaitFailover(t, old)
	})
}

// A failover of one of three masters of a Cluster.
func TestClusterFailover(t *testing.T) {
	cluster := redistest.StartCluster(t, 3, 2)
	client := cluster.Client(t)
	failover(t, client, func() {
		old := cluster.KillMasterOf(t, 0)
		cluster.AwaitFailover(t, 0, old)
	})
}

// failover runs a load through an outage that ends.
func failover(t *testing.T, client echosession.RedisClient, outage func()) {
	s := newSite(t, echosession.Config{Client: client, WaitReplicas: 1, StaleFor: time.Minute})
	live, gone, leaving := s.clients(*users), s.clients(ended), s.clients(ended)
	for _, c := range gone {
		c.read()
		if status := c.logout(); status != http.StatusNoContent {
			t.Fatalf("a logout before the outage: %d", status)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var load sync.WaitGroup
	for _, c := range live {
		load.Go(func() { c.loop(ctx, c.act) })
	}
	for _, c := range gone {
		load.Go(func() { c.loop(ctx, c.read) })
	}
	time.Sleep(*calm)
	began := time.Now()
	for _, c := range leaving {
		load.Go(func() {
			c.read()
			c.wait(ctx, time.Duration(c.random.Int64N(int64(2*time.Second))))
			c.loop(ctx, c.leave)
		})
	}
	outage()
	took := time.Since(began)
	time.Sleep(*calm)
	stop()
	load.Wait()

	s.recovers(t)
	for _, c := range append(live, leaving...) {
		c.account()
	}
	t.Logf("%d clients, an outage of %v\n%s", *users+2*ended, took.Round(10*time.Millisecond), s.tally)
	s.tally.check(t)
	if n := s.tally.number("read, live", "200, stale"); n < *users {
		t.Errorf("only %d reads were stale", n)
	}
	if s.tally.number("write, live", "503") == 0 || s.tally.number("write, live", "200") == 0 {
		t.Error("no write met the outage, or none went through")
	}
	if s.tally.number("logout", "503")+s.tally.number("logout", "503, perhaps done") == 0 {
		t.Error("no logout met the outage")
	}
}

// A server that stays down: after StaleFor nobody is served.
func TestAServerThatStaysDown(t *testing.T) {
	const staleFor = 2 * time.Second
	server := redistest.Start(t)
	s := newSite(t, echosession.Config{Client: server.Client(t), StaleFor: staleFor})
	live := s.clients(*users)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var load sync.WaitGroup
	for _, c := range live {
		c.limit = staleFor
		load.Go(func() { c.loop(ctx, c.act) })
	}
	time.Sleep(*calm)
	server.Kill()
	began := time.Now()
	time.Sleep(staleFor + *calm)
	stop()
	load.Wait()
	t.Logf("%d clients, StaleFor %v, and a server that stays down\n%slast 200 %v after the kill\n", *users, staleFor, s.tally,
		s.tally.last("read, live", "200, stale").Sub(began).Round(10*time.Millisecond))
	s.tally.check(t)
	if n := s.tally.number("read, live", "200, stale"); n < *users {
		t.Errorf("only %d reads were stale", n)
	}
	if n := s.tally.number("read, too late", "503"); n < *users {
		t.Errorf("only %d reads after StaleFor got 503", n)
	}
}

// loop does something again and again.
func (c *client) loop(ctx context.Context, do func()) {
	for ctx.Err() == nil {
		do()
		c.wait(ctx, time.Duration(float64(*pause)*2*c.random.Float64()))
	}
}

func (c *client) wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// clients makes clients that are logged in.
func (s *site) clients(n int) []*client {
	s.t.Helper()
	clients := make([]*client, n)
	for i := range clients {
		s.made++
		clients[i] = &client{
			site: s, name: "user-" + strconv.Itoa(s.made), random: rand.New(rand.NewPCG(*seed, uint64(s.made))),
			refused: make(map[int]bool),
		}
		status, token, _ := clients[i].send(http.MethodPost, "/session")
		if status != http.StatusCreated {
			s.t.Fatalf("login: %d %s", status, token)
		}
		clients[i].token = token
	}
	return clients
}

// recovers waits until the server answers as before.
func (s *site) recovers(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		c := &client{site: s, name: "nobody", random: rand.New(rand.NewPCG(*seed, 0))}
		status, body, _ := c.send(http.MethodPost, "/session")
		if status == http.StatusCreated {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after the outage: %d %s", status, body)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
