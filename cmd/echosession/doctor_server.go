package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// describe names the servers.
func (x *examination) describe() *doctorServer {
	s := &doctorServer{Kind: "unknown server", Topology: "one server"}
	for _, n := range x.nodes {
		s.Servers = append(s.Servers, n.addr)
	}
	if n := x.nodes[0]; n.infoErr == nil {
		s.Kind, s.Version = n.kind()
	}
	if _, ok := x.client.(*redis.ClusterClient); ok {
		s.Topology = "a Cluster of " + countOf(len(x.nodes), "primary server")
	} else if x.options.MasterName != "" {
		s.Topology = "found by Sentinels as " + x.options.MasterName
	}
	return s
}

// kinds are servers that speak the protocol of Redis, by what their INFO has.
var kinds = []struct{ field, name string }{
	{"valkey_version", "Valkey"},
	{"dragonfly_version", "Dragonfly"},
	{"garnet_version", "Garnet"},
	{"kvrocks_version", "Kvrocks"},
	{"keydb_version", "KeyDB"},
	{"rlec_version", "Redis Enterprise"},
	{"redis_version", "Redis"},
}

// kind names the server, and its own version.
func (n *node) kind() (name, version string) {
	if strings.Contains(n.info["executable"], "keydb") || n.info["mvcc_depth"] != "" {
		return "KeyDB", n.info["redis_version"]
	}
	for _, k := range kinds {
		if version := n.info[k.field]; version != "" {
			return k.name, strings.TrimPrefix(version, "df-")
		}
	}
	return "a server that does not say what it is", ""
}

// before reports whether a version such as 6.2.14 is older than major.minor. A version that
// it cannot read is not.
func before(version string, major, minor int) bool {
	found := regexp.MustCompile(`^v?(\d+)\.(\d+)`).FindStringSubmatch(version)
	if found == nil {
		return false
	}
	a, _ := strconv.Atoi(found[1])
	b, _ := strconv.Atoi(found[2])
	return a < major || a == major && b < minor
}

func checkServers(ctx context.Context, x *examination, r *result) {
	for _, n := range x.lost {
		r.critical("a-lost-primary", "Bring it back. See the findings of the check failover: they say why no replica has taken its place.",
			"%s does not answer: its sessions cannot be used; %s", n.addr, reply(n.infoErr))
	}
	each(checkServer)(ctx, x, r)
}

func checkServer(_ context.Context, _ *examination, n *node, r *result) {
	if !n.needs(r) {
		return
	}
	name, version := n.kind()
	level := n.info["redis_version"] // what commands it has
	switch {
	case name != "Valkey" && before(level, 6, 2):
		r.critical("old-server", "Upgrade to Redis 7, Valkey 8 or newer.",
			"%s %s: the library needs Redis 6.2 or newer, and its scripts fail here", name, version)
	case name == "Redis", name == "Valkey", name == "Redis Enterprise":
		r.ok("%s %s, up for %s", name, version, n.uptime())
	case level == "":
		r.unknown("untested-server", "Compare its version with Redis 6.2, which the library needs.", "it is %s", name)
	default:
		r.warning("untested-server", "Run the tests of the library against it, or use Redis or Valkey.",
			"%s %s: the library is tested with Redis and Valkey alone", name, version)
	}
}

func (n *node) uptime() string {
	seconds, _ := n.number("uptime_in_seconds")
	return lasting(time.Duration(seconds) * time.Second)
}

// scratchPrefix begins the names of doctor's own keys and channels, behind the keyspace.
// Such a name is that of no session: these have 36 characters and no colon behind the
// keyspace, or behind an index. So no scan of the library looks at them.
const scratchPrefix = "doctor:"

const scratchLife = 5 * time.Second

// scratchKey makes a key name that this server is responsible for.
func (x *examination) scratchKey(ctx context.Context, n *node) (string, error) {
	cluster, ok := x.client.(*redis.ClusterClient)
	for range 10_000 {
		key := x.target.keyspace + scratchPrefix + rand.Text()
		if !ok {
			return key, nil
		}
		owner, err := cluster.MasterForKey(ctx, key)
		if err == nil && owner.Options().Addr == n.addr {
			return key, nil
		}
	}
	return "", fmt.Errorf("no slot was found that %s has", n.addr)
}

// refusals are what Redis replies to a write, by the first word of the error.
var refusals = []struct{ code, id, text, advice string }{
	{"OOM", "redis-is-full", "Redis is full and refuses writes: nobody can log in, and sessions cannot change",
		"Raise maxmemory, or take out of this Redis what is not sessions."},
	{"READONLY", "not-the-primary", "this is a replica: it refuses writes",
		"Use the address of the primary, or let Sentinel find it: -sentinel."},
	{"MISCONF", "a-failed-save", "Redis refuses writes because it could not save to disk: nobody can log in",
		"Look at the disk and at the log of Redis. As soon as it has saved again, it accepts writes."},
	{"NOREPLICAS", "too-few-replicas", "Redis refuses writes because too few replicas are connected (min-replicas-to-write)",
		"Bring the replicas back, or lower min-replicas-to-write."},
	{"CLUSTERDOWN", "a-broken-cluster", "the Cluster is down: it refuses all commands",
		"See the findings of the check failover."},
	{"LOADING", "redis-is-loading", "Redis is still loading its data after a start",
		"Wait, and run doctor again."},
}

func checkWrites(ctx context.Context, x *examination, n *node, r *result) {
	key, err := x.scratchKey(ctx, n)
	if err != nil {
		r.unknown("a-failed-write", "See the findings of the check failover.", "%v", err)
		return
	}
	value := rand.Text()
	began := time.Now()
	err = n.client.Set(ctx, key, value, scratchLife).Err()
	if err != nil {
		refused(r, err)
		return
	}
	defer n.client.Del(ctx, key)
	got, err := n.client.Get(ctx, key).Result()
	took := time.Since(began)
	switch {
	case redis.HasErrorPrefix(err, "NOPERM"):
		r.ok("a write is accepted")
		return
	case err == redis.Nil && took > scratchLife/2:
		r.unknown("a-failed-write", "Look at the check latency.", "the key has expired: the answers took %s", shortTime(took))
		return
	case err != nil || got != value:
		r.critical("a-failed-write", "Look at the policy of eviction, and whether something else deletes keys here.",
			"a key that was just written is not there: %s", reply(err))
		return
	}
	if x.waitReplicas > 0 {
		x.waitFor(ctx, n, key, r)
		return
	}
	r.ok("a key was written, read and deleted in %s", shortTime(took))
}

// refused is the result of a write that failed.
func refused(r *result, err error) {
	text := reply(err)
	for _, refusal := range refusals {
		if strings.HasPrefix(text, refusal.code) {
			r.critical(refusal.id, refusal.advice, "%s", refusal.text)
			return
		}
	}
	if strings.HasPrefix(text, "NOPERM") {
		r.unknown("what-doctor-may-not-ask", "See the findings of the check rights.", "this user may not write below the keyspace")
		return
	}
	r.critical("a-failed-write", "Look at the log of Redis.", "a write failed: %s", text)
}

// waitFor writes a key, and waits for the replicas as the library does with WaitReplicas.
func (x *examination) waitFor(ctx context.Context, n *node, key string, r *result) {
	reached := redis.NewIntCmd(ctx, "wait", x.waitReplicas, time.Second.Milliseconds())
	_, err := n.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.Set(ctx, key, "", scratchLife)
		return pipe.Process(ctx, reached)
	})
	switch {
	case err != nil:
		r.denied("+wait", err)
	case reached.Val() < int64(x.waitReplicas):
		r.critical("too-few-replicas", "Bring the replicas back, or lower Config.WaitReplicas.",
			"%s of the %d that Config.WaitReplicas asks for had a write within a second: each write fails",
			countOf(reached.Val(), "replica"), x.waitReplicas)
	default:
		r.ok("a key was written, and reached %s", countOf(reached.Val(), "replica"))
	}
}
