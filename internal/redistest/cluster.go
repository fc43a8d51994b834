package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// slots is how many hash slots a cluster has.
const slots = 16384

// Cluster is a Redis Cluster. A failover takes about three seconds.
type Cluster struct {
	// Servers are the nodes. The first ones were the masters when the cluster
	// was formed, each with an equal share of the slots, in order.
	Servers []*Server
}

// StartCluster starts a cluster, waits until every node finds it in order and
// every replica has its master's data, and ends it when tb does. Three masters
// are the least with which a failover can happen.
func StartCluster(tb testing.TB, masters, replicasPerMaster int) *Cluster {
	tb.Helper()
	c := &Cluster{}
	for range masters * (1 + replicasPerMaster) {
		c.Servers = append(c.Servers, Start(tb,
			"--cluster-enabled", "yes",
			"--cluster-node-timeout", "1500",
			"--cluster-replica-validity-factor", "0"))
	}
	if err := c.form(masters); err != nil {
		tb.Fatalf("redistest: forming the cluster: %v", err)
	}
	for i, replica := range c.Servers[masters:] {
		master := c.Servers[i%masters]
		eventually(tb, "a replica joins its master", func() error {
			return replica.ask(func(ctx context.Context, rdb *redis.Client) error {
				self, err := master.self()
				if err != nil {
					return err
				}
				return rdb.ClusterReplicate(ctx, self.id).Err()
			})
		})
	}
	for _, replica := range c.Servers[masters:] {
		eventually(tb, "a replica follows its master", replica.inSync)
	}
	eventually(tb, "the cluster is formed", c.agrees)
	return c
}

// form hands out the slots and introduces every node to every other.
func (c *Cluster) form(masters int) error {
	for i, s := range c.Servers {
		err := s.ask(func(ctx context.Context, rdb *redis.Client) error {
			if err := rdb.Do(ctx, "cluster", "set-config-epoch", i+1).Err(); err != nil {
				return err
			}
			if i < masters {
				if err := rdb.ClusterAddSlotsRange(ctx, i*slots/masters, (i+1)*slots/masters-1).Err(); err != nil {
					return err
				}
			}
			for _, other := range c.Servers[:i] {
				host, port, _ := net.SplitHostPort(other.Addr())
				if err := rdb.ClusterMeet(ctx, host, port).Err(); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// node is one line of CLUSTER NODES.
type node struct {
	id, addr, master string
	flags            []string
	epoch            int
	slots            string // as the server writes them
}

// nodes returns what a node knows of the cluster.
func (s *Server) nodes() (list []node, err error) {
	err = s.ask(func(ctx context.Context, c *redis.Client) error {
		text, err := c.ClusterNodes(ctx).Result()
		for line := range strings.Lines(text) {
			f := strings.Fields(line)
			if len(f) < 8 {
				return fmt.Errorf("CLUSTER NODES: %q", line)
			}
			epoch, err := strconv.Atoi(f[6])
			if err != nil {
				return err
			}
			addr, _, _ := strings.Cut(f[1], "@")
			ranges := slices.DeleteFunc(f[8:], func(r string) bool { return r[0] == '[' }) // migrating
			list = append(list, node{
				id: f[0], addr: addr, flags: strings.Split(f[2], ","), master: f[3],
				epoch: epoch, slots: strings.Join(ranges, " "),
			})
		}
		return err
	})
	return list, err
}

// self returns what a node knows of itself.
func (s *Server) self() (node, error) {
	list, err := s.nodes()
	for _, n := range list {
		if n.is("myself") {
			return n, nil
		}
	}
	return node{}, errors.Join(err, errors.New("the node does not know itself"))
}

func (n node) is(flag string) bool { return slices.Contains(n.flags, flag) }

func (n node) holds(slot int) bool {
	for r := range strings.FieldsSeq(n.slots) {
		from, to, ok := strings.Cut(r, "-")
		if !ok {
			to = from
		}
		first, err1 := strconv.Atoi(from)
		last, err2 := strconv.Atoi(to)
		if err1 == nil && err2 == nil && first <= slot && slot <= last {
			return true
		}
	}
	return false
}

// agrees returns nil when all living nodes find the cluster in order and see the
// same masters and replicas.
func (c *Cluster) agrees() error {
	var first string
	for _, s := range c.Servers {
		if !s.Alive() {
			continue
		}
		err := s.ask(func(ctx context.Context, rdb *redis.Client) error {
			info, err := rdb.ClusterInfo(ctx).Result()
			if err == nil && !strings.Contains(info, "cluster_state:ok") {
				err = errors.New(info)
			}
			return err
		})
		if err != nil {
			return err
		}
		list, err := s.nodes()
		if err != nil {
			return err
		}
		if len(list) != len(c.Servers) {
			return fmt.Errorf("%s knows %d nodes", s.Addr(), len(list))
		}
		var view []string
		for _, n := range list {
			if c.alive(n.addr) {
				view = append(view, n.addr+" of "+n.master+": "+n.slots)
			}
		}
		slices.Sort(view)
		if text := strings.Join(view, "\n"); first == "" {
			first = text
		} else if text != first {
			return fmt.Errorf("one node sees\n%s\nanother\n%s", first, text)
		}
	}
	return nil
}

func (c *Cluster) alive(addr string) bool {
	return slices.ContainsFunc(c.Servers, func(s *Server) bool { return s.Addr() == addr && s.Alive() })
}

// Addrs returns the addresses of the nodes.
func (c *Cluster) Addrs() []string { return addrs(c.Servers) }

// Client returns a client of the cluster that is closed when tb ends. It honours
// the deadlines of contexts.
func (c *Cluster) Client(tb testing.TB, opts ...func(*redis.ClusterOptions)) *redis.ClusterClient {
	tb.Helper()
	o := &redis.ClusterOptions{Addrs: c.Addrs(), ContextTimeoutEnabled: true}
	for _, opt := range opts {
		opt(o)
	}
	client := redis.NewClusterClient(o)
	tb.Cleanup(func() { _ = client.Close() })
	return client
}

// Slot returns the hash slot of a key.
func (c *Cluster) Slot(tb testing.TB, key string) int {
	tb.Helper()
	var slot int64
	eventually(tb, "a node answers", func() (err error) {
		for _, s := range c.Servers {
			if s.Alive() {
				err = s.ask(func(ctx context.Context, rdb *redis.Client) (err error) {
					slot, err = rdb.ClusterKeySlot(ctx, key).Result()
					return err
				})
			}
			if err == nil {
				break
			}
		}
		return err
	})
	return int(slot)
}

// Master returns the living node that is master of a slot by its own account. Of
// several it returns the one that was promoted last.
func (c *Cluster) Master(tb testing.TB, slot int) *Server {
	tb.Helper()
	var master *Server
	eventually(tb, "the slot has a master", func() (err error) {
		master, err = c.master(slot)
		return err
	})
	return master
}

func (c *Cluster) master(slot int) (*Server, error) {
	var (
		master *Server
		latest = -1
	)
	for _, s := range c.Servers {
		if !s.Alive() {
			continue
		}
		n, err := s.self()
		if err == nil && n.is("master") && n.holds(slot) && n.epoch > latest {
			master, latest = s, n.epoch
		}
	}
	if master == nil {
		return nil, fmt.Errorf("nobody is master of slot %d", slot)
	}
	return master, nil
}

// KillMasterOf kills the master of a slot and returns it. It does not wait for
// the failover: see [Cluster.AwaitFailover].
func (c *Cluster) KillMasterOf(tb testing.TB, slot int) *Server {
	tb.Helper()
	master := c.Master(tb, slot)
	master.Kill()
	return master
}

// AwaitFailover waits until slot has another master than old and every living
// node finds the cluster in order. It returns the new master.
func (c *Cluster) AwaitFailover(tb testing.TB, slot int, old *Server) *Server {
	tb.Helper()
	var master *Server
	eventually(tb, "a replica is promoted", func() (err error) {
		if master, err = c.master(slot); err != nil {
			return err
		}
		if master == old {
			return errors.New("the old master has the slot")
		}
		return c.agrees()
	})
	return master
}

// A Migration is a slot on its way from one master to another. Until Finish the
// source answers for the keys it still has and says ASK for others; a script on
// keys of which only some have moved gets TRYAGAIN at the target.
type Migration struct {
	cluster  *Cluster
	slot     int
	from, to *Server
	fromID   string
	toID     string
}

// MigrateSlot moves a slot and its keys to another master.
func (c *Cluster) MigrateSlot(tb testing.TB, slot int, to *Server) {
	tb.Helper()
	m := c.OpenSlot(tb, slot, to)
	m.MoveAll(tb)
	m.Finish(tb)
}

// OpenSlot begins to move a slot to another master. No key has moved yet.
func (c *Cluster) OpenSlot(tb testing.TB, slot int, to *Server) *Migration {
	tb.Helper()
	m := &Migration{cluster: c, slot: slot, from: c.Master(tb, slot), to: to}
	for server, id := range map[*Server]*string{m.from: &m.fromID, m.to: &m.toID} {
		n, err := server.self()
		if err != nil {
			tb.Fatalf("redistest: %v", err)
		}
		*id = n.id
	}
	m.setSlot(tb, m.to, "importing", m.fromID)
	m.setSlot(tb, m.from, "migrating", m.toID)
	return m
}

func (m *Migration) setSlot(tb testing.TB, s *Server, state, id string) {
	tb.Helper()
	err := s.ask(func(ctx context.Context, rdb *redis.Client) error {
		return rdb.Do(ctx, "cluster", "setslot", m.slot, state, id).Err()
	})
	if err != nil {
		tb.Fatalf("redistest: CLUSTER SETSLOT %d %s: %v", m.slot, state, err)
	}
}

// Move moves these keys of the slot.
func (m *Migration) Move(tb testing.TB, keys ...string) {
	tb.Helper()
	host, port, _ := net.SplitHostPort(m.to.Addr())
	args := []any{"migrate", host, port, "", 0, 5000, "keys"}
	for _, key := range keys {
		args = append(args, key)
	}
	err := m.from.ask(func(ctx context.Context, rdb *redis.Client) error {
		return rdb.Do(ctx, args...).Err()
	})
	if err != nil {
		tb.Fatalf("redistest: MIGRATE: %v", err)
	}
}

// MoveAll moves every key of the slot that is still at the source.
func (m *Migration) MoveAll(tb testing.TB) {
	tb.Helper()
	for {
		var keys []string
		err := m.from.ask(func(ctx context.Context, rdb *redis.Client) (err error) {
			keys, err = rdb.ClusterGetKeysInSlot(ctx, m.slot, 100).Result()
			return err
		})
		if err != nil {
			tb.Fatalf("redistest: CLUSTER GETKEYSINSLOT: %v", err)
		}
		if len(keys) == 0 {
			return
		}
		m.Move(tb, keys...)
	}
}

// Finish gives the slot to the target, and waits until every node knows.
func (m *Migration) Finish(tb testing.TB) {
	tb.Helper()
	m.setSlot(tb, m.to, "node", m.toID)
	m.setSlot(tb, m.from, "node", m.toID)
	eventually(tb, "every node knows the slot's new master", m.cluster.agrees)
}
