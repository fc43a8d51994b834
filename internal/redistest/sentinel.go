package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/redis/go-redis/v9"
)

// Sentinel is a primary, its replicas and the sentinels that watch over them. A
// failover takes about two seconds.
type Sentinel struct {
	// Servers are the primary and the replicas. The first was the primary when
	// the sentinels began.
	Servers []*Server

	// Sentinels are the sentinels' own processes.
	Sentinels []*Server
}

// StartSentinel starts a primary with replicas and sentinels, waits until all of
// them know each other, and ends them when tb does.
func StartSentinel(tb testing.TB, replicas, sentinels int) *Sentinel {
	tb.Helper()
	s := &Sentinel{Servers: []*Server{Start(tb)}}
	host, port, _ := net.SplitHostPort(s.Servers[0].Addr())
	for range replicas {
		s.Servers = append(s.Servers, Start(tb, "--replicaof", host, port))
	}
	for _, replica := range s.Servers[1:] {
		eventually(tb, "a replica follows the primary", replica.inSync)
	}

	for range sentinels {
		conf := filepath.Join(tb.TempDir(), "sentinel.conf")
		text := fmt.Sprintf("sentinel monitor %[1]s %[2]s %[3]s %[4]d\n"+
			"sentinel down-after-milliseconds %[1]s 1000\n"+
			"sentinel failover-timeout %[1]s 5000\n"+
			"sentinel parallel-syncs %[1]s 10\n",
			s.MasterName(), host, port, sentinels/2+1)
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
		sentinel := start(tb, conf, "--sentinel")
		if !before7() {
			// Else they need seconds to hear of each other.
			err := sentinel.ask(func(ctx context.Context, c *redis.Client) error {
				return c.Do(ctx, "sentinel", "debug", "publish-period", 100, "info-period", 500).Err()
			})
			if err != nil {
				tb.Fatalf("redistest: SENTINEL DEBUG: %v", err)
			}
		}
		s.Sentinels = append(s.Sentinels, sentinel)
	}
	for _, sentinel := range s.Sentinels {
		eventually(tb, "a sentinel knows the others and could promote", func() error {
			return sentinel.askSentinel(func(ctx context.Context, c *redis.SentinelClient) error {
				state, err := c.Master(ctx, s.MasterName()).Result()
				if err != nil {
					return err
				}
				if state["flags"] != "master" ||
					state["num-slaves"] != strconv.Itoa(replicas) ||
					state["num-other-sentinels"] != strconv.Itoa(sentinels-1) {
					return fmt.Errorf("it sees %v", state)
				}
				list, err := c.Replicas(ctx, s.MasterName()).Result()
				for _, replica := range list {
					if replica["flags"] != "slave" || replica["master-link-status"] != "ok" {
						return fmt.Errorf("it sees the replica %v", replica)
					}
				}
				return err
			})
		})
	}
	return s
}

// inSync returns nil when the server is a replica that has the primary's data.
func (s *Server) inSync() error {
	return s.ask(func(ctx context.Context, c *redis.Client) error {
		role, err := c.Do(ctx, "role").Slice()
		if err != nil {
			return err
		}
		if role[0] != "slave" || role[3] != "connected" {
			return fmt.Errorf("its role is %v", role)
		}
		return nil
	})
}

// isPrimary returns nil when the server takes writes of its own.
func (s *Server) isPrimary() error {
	return s.ask(func(ctx context.Context, c *redis.Client) error {
		role, err := c.Do(ctx, "role").Slice()
		if err != nil {
			return err
		}
		if role[0] != "master" {
			return fmt.Errorf("its role is %v", role)
		}
		return nil
	})
}

// askSentinel calls fn with a client of a sentinel that gives up at the first
// failure.
func (s *Server) askSentinel(fn func(context.Context, *redis.SentinelClient) error) error {
	return s.ask(func(ctx context.Context, c *redis.Client) error {
		sentinel := redis.NewSentinelClient(c.Options())
		defer sentinel.Close()
		return fn(ctx, sentinel)
	})
}

// MasterName returns the name under which the sentinels know the primary.
func (s *Sentinel) MasterName() string { return "primary" }

// SentinelAddrs returns the addresses of the sentinels.
func (s *Sentinel) SentinelAddrs() []string { return addrs(s.Sentinels) }

func addrs(servers []*Server) []string {
	list := make([]string, len(servers))
	for i, s := range servers {
		list[i] = s.Addr()
	}
	return list
}

// Primary returns the server that the sentinels name as the primary, which may
// be down. During a failover they may disagree: it returns once they all name
// the same.
func (s *Sentinel) Primary(tb testing.TB) *Server {
	tb.Helper()
	var primary *Server
	eventually(tb, "the sentinels agree on a primary", func() (err error) {
		primary, err = s.named()
		return err
	})
	return primary
}

// named returns the server that every sentinel names.
func (s *Sentinel) named() (*Server, error) {
	var addr string
	for _, sentinel := range s.Sentinels {
		if !sentinel.Alive() {
			continue
		}
		err := sentinel.askSentinel(func(ctx context.Context, c *redis.SentinelClient) error {
			hostPort, err := c.GetMasterAddrByName(ctx, s.MasterName()).Result()
			if err != nil {
				return err
			}
			one := net.JoinHostPort(hostPort[0], hostPort[1])
			if addr != "" && one != addr {
				return fmt.Errorf("one names %s, another %s", addr, one)
			}
			addr = one
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	for _, server := range s.Servers {
		if server.Addr() == addr {
			return server, nil
		}
	}
	return nil, fmt.Errorf("%q is none of the servers", addr)
}

// KillPrimary kills the primary and returns it. It does not wait for the
// failover: see [Sentinel.AwaitFailover].
func (s *Sentinel) KillPrimary(tb testing.TB) *Server {
	tb.Helper()
	primary := s.Primary(tb)
	primary.Kill()
	return primary
}

// AwaitFailover waits until all sentinels name another primary than old, and it
// takes writes. It returns the new one.
func (s *Sentinel) AwaitFailover(tb testing.TB, old *Server) *Server {
	tb.Helper()
	var primary *Server
	eventually(tb, "a replica is promoted", func() (err error) {
		if primary, err = s.named(); err != nil {
			return err
		}
		if primary == old {
			return errors.New("the sentinels name the old primary")
		}
		return primary.isPrimary()
	})
	return primary
}

// FailoverClient returns a client that finds the primary through the sentinels
// and is closed when tb ends. It honours the deadlines of contexts.
func (s *Sentinel) FailoverClient(tb testing.TB, opts ...func(*redis.FailoverOptions)) *redis.Client {
	tb.Helper()
	o := &redis.FailoverOptions{
		MasterName:            s.MasterName(),
		SentinelAddrs:         s.SentinelAddrs(),
		ContextTimeoutEnabled: true,
	}
	for _, opt := range opts {
		opt(o)
	}
	c := redis.NewFailoverClient(o)
	tb.Cleanup(func() { _ = c.Close() })
	return c
}
