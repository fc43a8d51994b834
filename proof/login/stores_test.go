package login_test

import (
	"context"
	cryptorand "crypto/rand"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// A dialer connects a client.
type dialer = func(ctx context.Context, network, addr string) (net.Conn, error)

// A store is what a shop keeps its sessions in: the memory of its process, or servers
// that clients connect to.
type store struct {
	name    string
	servers []*redistest.Server
	connect func(t *testing.T, dial dialer) echosession.RedisClient
}

// stores are all that there are. In the Cluster a guest's session and a user's are in
// different slots.
func stores(t *testing.T) []store {
	server, sentinel, cluster := redistest.Shared(t), redistest.StartSentinel(t, 0, 1), redistest.StartCluster(t, 3, 0)
	single := []*redistest.Server{server}
	client := func(t *testing.T, dial dialer, options ...func(*redis.Options)) *redis.Client {
		return server.Client(t, append(options, func(o *redis.Options) { o.Dialer = dial })...)
	}
	return []store{
		{name: "memory"},
		{"client", single, func(t *testing.T, dial dialer) echosession.RedisClient { return client(t, dial) }},
		{"client without deadlines", single, func(t *testing.T, dial dialer) echosession.RedisClient {
			return client(t, dial, func(o *redis.Options) { o.ContextTimeoutEnabled = false })
		}},
		{"auto-pipeliner", single, func(t *testing.T, dial dialer) echosession.RedisClient {
			ap, err := client(t, dial).AutoPipeline()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = ap.Close() })
			return ap
		}},
		{"caching", single, func(t *testing.T, dial dialer) echosession.RedisClient {
			return client(t, dial, func(o *redis.Options) { o.ClientSideCacheConfig = new(redis.ClientSideCacheConfig) })
		}},
		{"ring", single, func(t *testing.T, dial dialer) echosession.RedisClient {
			ring := redis.NewRing(&redis.RingOptions{
				Addrs: map[string]string{"one": server.Addr()}, ContextTimeoutEnabled: true, Dialer: dial,
			})
			t.Cleanup(func() { _ = ring.Close() })
			return ring
		}},
		{"failover", []*redistest.Server{sentinel.Primary(t)}, func(t *testing.T, dial dialer) echosession.RedisClient {
			return sentinel.FailoverClient(t, func(o *redis.FailoverOptions) { o.Dialer = dial })
		}},
		{"cluster", cluster.Servers, func(t *testing.T, dial dialer) echosession.RedisClient {
			return cluster.Client(t, func(o *redis.ClusterOptions) { o.Dialer = dial })
		}},
	}
}

// configs returns the Config of each process of a shop, and one more that meets no faults.
func (s store) configs(t *testing.T, faulty bool) []echosession.Config {
	if len(s.servers) == 0 {
		memory := echosession.NewMemoryStore()
		t.Cleanup(func() { _ = memory.Close() })
		return []echosession.Config{{Store: memory}, {Store: memory}}
	}
	var proxies []*redistest.Proxy
	if faulty {
		for _, server := range s.servers {
			proxies = append(proxies, faultyProxy(t, server))
		}
	}
	const processes = 2
	keyspace := "login-" + cryptorand.Text() + ":"
	var configs []echosession.Config
	for range processes {
		cfg := echosession.Config{Client: s.connect(t, redistest.Through(proxies...)), Keyspace: keyspace, StoreTimeout: 10 * time.Second}
		if faulty {
			cfg.StoreTimeout = 200 * time.Millisecond
		}
		configs = append(configs, cfg)
	}
	return append(configs, echosession.Config{Client: s.connect(t, redistest.Through()), Keyspace: keyspace, StoreTimeout: 10 * time.Second})
}

// faultyProxy loses requests and replies now and then.
func faultyProxy(t *testing.T, server *redistest.Server) *redistest.Proxy {
	p := redistest.NewProxy(t, server.Addr())
	ours := redistest.Named("GET", "GETEX", "SET", "DEL", "EVALSHA", "EVAL")
	for _, fault := range []struct {
		n      int // once in n commands
		action redistest.Action
	}{
		{30, redistest.DropReply()},
		{80, redistest.DropRequest()},
		{80, redistest.CutReply(3)},
		{80, redistest.CutReply(-1)},
		{30, redistest.Delay(2 * time.Millisecond)},
		{1000, redistest.Hang()},
	} {
		p.On(func(cmd []string) bool { return ours(cmd) && rand.IntN(fault.n) == 0 }, -1, fault.action)
	}
	return p
}
