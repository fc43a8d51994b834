package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// What a real server cannot be brought to say, these tests say in its place.

// fakeNode is a server whose INFO has these fields, separated by spaces, and these parameters.
func fakeNode(info string, config ...string) *node {
	n := &node{addr: "10.0.0.1:6379", info: parseInfo("# Fake\r\n" + strings.ReplaceAll(info, " ", "\r\n") + "\r\n"), config: make(map[string]string)}
	for i := 0; i+1 < len(config); i += 2 {
		n.config[config[i]] = config[i+1]
	}
	if len(config) == 0 {
		n.configErr = errors.New("NOPERM")
	}
	return n
}

// A verdict is what is to be found: a status, an ID and a part of the text.
type verdict struct {
	status   status
	id, text string
}

func wantVerdicts(t *testing.T, r *result, want []verdict) {
	t.Helper()
	if len(r.findings) != len(want) {
		t.Errorf("found %+v, not %+v", r.findings, want)
		return
	}
	for i, w := range want {
		if f := r.findings[i]; f.Status != w.status || f.ID != w.id || !strings.Contains(f.Text, w.text) {
			t.Errorf("found [%v] %s %q, not %+v", f.Status, f.ID, f.Text, w)
		}
	}
}

func TestDoctorJudgesINFO(t *testing.T) {
	const gib = "1073741824"
	plain := &examination{options: &redis.UniversalOptions{}}
	for _, tt := range []struct {
		name  string
		check string
		node  *node
		want  []verdict
	}{
		{"Redis", "server", fakeNode("redis_version:7.2.4 uptime_in_seconds:7200"), []verdict{{statusOK, "", "Redis 7.2.4, up for 2 hours"}}},
		{"Redis 6.2", "server", fakeNode("redis_version:6.2.0"), []verdict{{statusOK, "", "Redis 6.2.0"}}},
		{"Redis 6.0", "server", fakeNode("redis_version:6.0.16"), []verdict{{statusCritical, "old-server", "needs Redis 6.2"}}},
		{"Redis 5", "server", fakeNode("redis_version:5.0.7"), []verdict{{statusCritical, "old-server", "Redis 5.0.7"}}},
		{"Redis 10", "server", fakeNode("redis_version:10.0.0"), []verdict{{statusOK, "", "Redis 10.0.0"}}},
		{"Valkey", "server", fakeNode("redis_version:7.2.4 server_name:valkey valkey_version:8.0.1"), []verdict{{statusOK, "", "Valkey 8.0.1"}}},
		{"KeyDB", "server", fakeNode("redis_version:6.3.4 executable:/usr/bin/keydb-server"), []verdict{{statusWarning, "untested-server", "KeyDB 6.3.4"}}},
		{"old KeyDB", "server", fakeNode("redis_version:6.0.5 mvcc_depth:0"), []verdict{{statusCritical, "old-server", "KeyDB 6.0.5"}}},
		{"Dragonfly", "server", fakeNode("redis_version:7.4.0 dragonfly_version:df-v1.25.0"), []verdict{{statusWarning, "untested-server", "Dragonfly v1.25.0"}}},
		{"Garnet", "server", fakeNode("garnet_version:1.0.40 redis_version:7.4.3"), []verdict{{statusWarning, "untested-server", "Garnet 1.0.40"}}},
		{"no name", "server", fakeNode("uptime_in_seconds:1"), []verdict{{statusUnknown, "untested-server", "does not say what it is"}}},
		{"no INFO", "server", &node{infoErr: errors.New("NOPERM this user has no permissions to run the 'info' command")},
			[]verdict{{statusUnknown, "what-doctor-may-not-ask", "info: NOPERM"}}},

		{"evictions", "eviction", fakeNode("maxmemory_policy:volatile-lru evicted_keys:1234 maxmemory:" + gib + " uptime_in_seconds:172800"),
			[]verdict{{statusCritical, "evicted-sessions", "users are logged out at random; 1,234 keys were thrown away since the server started, 2 days ago"}}},
		{"no policy", "eviction", fakeNode("redis_version:7.0.0"), []verdict{{statusUnknown, "what-doctor-may-not-ask", "maxmemory_policy"}}},

		{"room", "memory", fakeNode("used_memory:536870912 maxmemory:" + gib), []verdict{{statusOK, "", "512.0 MiB of 1.0 GiB in use (50 %)"}}},
		{"79 %", "memory", fakeNode("used_memory:790 maxmemory:1000"), []verdict{{statusOK, "", "79 %"}}},
		{"80 %", "memory", fakeNode("used_memory:800 maxmemory:1000"), []verdict{{statusWarning, "little-memory-left", "and then it refuses writes"}}},
		{"95 %", "memory", fakeNode("used_memory:950 maxmemory:1000"), []verdict{{statusCritical, "little-memory-left", "nobody can log in"}}},
		{"95 %, evicting", "memory", fakeNode("used_memory:950 maxmemory:1000 maxmemory_policy:allkeys-lru"),
			[]verdict{{statusCritical, "little-memory-left", "throws keys away (allkeys-lru)"}}},
		{"too large a limit", "memory", fakeNode("used_memory:1 maxmemory:980 total_system_memory:1000"),
			[]verdict{{statusOK, "", "in use"}, {statusWarning, "maxmemory-over-the-machine", "the machine has 1,000 B"}}},
		{"no limit", "memory", fakeNode("used_memory:500 maxmemory:0 total_system_memory:1000"), []verdict{{statusOK, "", "50 %"}}},
		{"no limit, 60 %", "memory", fakeNode("used_memory:600 maxmemory:0 total_system_memory:1000"), []verdict{{statusWarning, "no-maxmemory", "60 %"}}},
		{"no limit, 85 %", "memory", fakeNode("used_memory:850 maxmemory:0 total_system_memory:1000"), []verdict{{statusCritical, "no-maxmemory", "the system ends Redis"}}},
		{"nothing said", "memory", fakeNode("used_memory:850"), []verdict{{statusUnknown, "no-maxmemory", "does not say how much"}}},
		{"no limit, and no machine", "memory", fakeNode("used_memory:850 maxmemory:0"), []verdict{{statusUnknown, "no-maxmemory", "there is no maxmemory"}}},
		{"writes refused before", "memory", fakeNode("used_memory:1 maxmemory:1000 errorstat_OOM:count=7"),
			[]verdict{{statusWarning, "redis-is-full", "has refused 7 commands"}, {statusOK, "", "in use"}}},
		{"in swap", "memory", fakeNode("used_memory:536870912 used_memory_rss:268435456 maxmemory:" + gib),
			[]verdict{{statusOK, "", ""}, {statusWarning, "redis-is-swapped-out", "256.0 MiB of the 512.0 MiB"}}},
		{"fragmented", "memory", fakeNode("used_memory:268435456 used_memory_rss:536870912 maxmemory:" + gib),
			[]verdict{{statusOK, "", ""}, {statusWarning, "fragmented-memory", "512.0 MiB of the machine for 256.0 MiB"}}},
		{"fragmented, and small", "memory", fakeNode("used_memory:1000 used_memory_rss:9000000 maxmemory:" + gib), []verdict{{statusOK, "", ""}}},

		{"an append-only file that fails", "persistence", fakeNode("aof_enabled:1 aof_last_write_status:err"), []verdict{{statusCritical, "a-failed-save", "append-only file failed"}}},
		{"an append-only file that grows", "persistence", fakeNode("aof_enabled:1 aof_last_write_status:ok aof_last_bgrewrite_status:err"),
			[]verdict{{statusWarning, "a-failed-save", "it grows"}, {statusOK, "", "AOF"}}},
		{"a snapshot that fails, without CONFIG", "persistence", fakeNode("aof_enabled:0 rdb_last_bgsave_status:err"),
			[]verdict{{statusCritical, "a-failed-save", "unless stop-writes-on-bgsave-error is no"}}},
		{"snapshots, without CONFIG", "persistence", fakeNode("aof_enabled:0 rdb_saves:3 rdb_changes_since_last_save:12"), []verdict{{statusOK, "", "12 changes"}}},
		{"nothing on disk", "persistence", fakeNode("aof_enabled:0 rdb_saves:0", "save", ""), []verdict{{statusWarning, "no-persistence", "logs everybody out"}}},
		{"not known", "persistence", fakeNode("aof_enabled:0 rdb_saves:0"), []verdict{{statusUnknown, "no-persistence", "only CONFIG tells"}}},

		{"replicas in order", "replicas", fakeNode("role:master connected_slaves:2 master_repl_offset:5000 " +
			"slave0:ip=10.0.0.2,port=6379,state=online,offset=4990,lag=1 slave1:ip=10.0.0.3,port=6379,state=online,offset=5000,lag=0"),
			[]verdict{{statusOK, "", "2 replicas, none of them behind"}}},
		{"a replica behind", "replicas", fakeNode("role:master connected_slaves:1 master_repl_offset:3145728 slave0:ip=10.0.0.2,port=6379,state=online,offset=1048576,lag=1"),
			[]verdict{{statusWarning, "a-lagging-replica", "10.0.0.2:6379 is 2.0 MiB behind"}}},
		{"a replica that is silent", "replicas", fakeNode("role:master connected_slaves:1 master_repl_offset:1 slave0:ip=10.0.0.2,port=6379,state=online,offset=1,lag=9"),
			[]verdict{{statusWarning, "a-lagging-replica", "last heard of 9 seconds ago"}}},
		{"a replica that copies", "replicas", fakeNode("role:master connected_slaves:1 slave0:ip=fd00::2,port=6379,state=send_bulk,offset=0,lag=0"),
			[]verdict{{statusWarning, "a-lagging-replica", "[fd00::2]:6379 is not in order (send_bulk)"}}},
		{"a replica without a state", "replicas", fakeNode("role:master connected_slaves:1"), []verdict{{statusWarning, "a-lagging-replica", "a replica is not in order"}}},
		{"good replicas", "replicas", fakeNode("role:master connected_slaves:1 min_slaves_good_slaves:0 slave0:ip=a,port=1,state=online,offset=0,lag=0", "min-replicas-to-write", "1"),
			[]verdict{{statusCritical, "too-few-replicas", "0 good replicas"}, {statusOK, "", "1 replica,"}}},

		{"most connections", "clients", fakeNode("connected_clients:80 maxclients:100 rejected_connections:0"), []verdict{{statusWarning, "rejected-connections", "80 of 100"}}},
		{"some connections", "clients", fakeNode("connected_clients:79 maxclients:100 rejected_connections:0"), []verdict{{statusOK, "", "79 of 100"}}},
		{"one refused", "clients", fakeNode("connected_clients:1 rejected_connections:1", "maxclients", "100"), []verdict{{statusWarning, "rejected-connections", "1 connection was refused"}}},
		{"a long timeout", "clients", fakeNode("connected_clients:1", "timeout", "300", "client-output-buffer-limit", "normal 0 0 0 slave 256mb 64mb 60 pubsub 33554432 8388608 60"),
			[]verdict{{statusOK, "", "1 connection"}}},
	} {
		t.Run(tt.check+"/"+tt.name, func(t *testing.T) {
			r := new(result)
			i := slices.IndexFunc(checks, func(c check) bool { return c.id == tt.check })
			x := *plain
			x.nodes = []*node{tt.node}
			checks[i].run(t.Context(), &x, r)
			wantVerdicts(t, r, tt.want)
		})
	}
}

func TestDoctorJudgesSentinels(t *testing.T) {
	state := func(others, quorum, after, flags string) map[string]string {
		return map[string]string{"num-other-sentinels": others, "quorum": quorum, "down-after-milliseconds": after, "flags": flags, "name": "m"}
	}
	for _, tt := range []struct {
		name  string
		views []*sentinelView
		want  []verdict
	}{
		{"in order", []*sentinelView{{primary: "a", state: state("2", "2", "5000", "master")}, {primary: "a"}}, nil},
		{"they disagree", []*sentinelView{{addr: "x", primary: "a", state: state("2", "2", "5000", "master")}, {addr: "y", primary: "b"}},
			[]verdict{{statusCritical, "sentinels-disagree", "x names the primary a, and y names b"}}},
		{"no quorum", []*sentinelView{{addr: "x", state: state("2", "2", "5000", "master"), quorum: errors.New("NOQUORUM 1 usable Sentinels")}},
			[]verdict{{statusCritical, "no-quorum", "NOQUORUM 1 usable"}}},
		{"two of them", []*sentinelView{{state: state("1", "2", "5000", "master")}}, []verdict{{statusWarning, "few-sentinels", "2 Sentinels"}}},
		{"a small quorum of five", []*sentinelView{{state: state("4", "2", "5000", "master")}}, []verdict{{statusWarning, "a-small-quorum", "2 of 5"}}},
		{"too large a quorum", []*sentinelView{{state: state("2", "5", "5000", "master")}}, []verdict{{statusCritical, "no-quorum", "5 of 3"}}},
		{"slow", []*sentinelView{{state: state("2", "2", "30000", "master")}}, []verdict{{statusWarning, "a-slow-failover", "after 30s"}}},
		{"down", []*sentinelView{{primary: "a", state: state("2", "2", "5000", "s_down,master")}}, []verdict{{statusCritical, "the-primary-is-down", "primary a down"}}},
		{"a replica is lost", []*sentinelView{{state: state("2", "2", "5000", "master"), down: []string{"r"}}}, []verdict{{statusWarning, "a-lost-replica", "replica r down"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := new(result)
			judgeSentinels(tt.views, r)
			wantVerdicts(t, r, tt.want)
		})
	}
}

func TestDoctorJudgesClusters(t *testing.T) {
	for _, tt := range []struct {
		info string
		want []verdict
	}{
		{"cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_slots_pfail:0\r\ncluster_slots_fail:0", nil},
		{"cluster_state:fail\r\ncluster_slots_assigned:16000", []verdict{{statusCritical, "a-broken-cluster", "384 slots of 16,384 have no server"}}},
		{"cluster_state:fail\r\ncluster_slots_assigned:16384\r\ncluster_slots_fail:5461", []verdict{{statusCritical, "a-broken-cluster", "5,461 slots are on servers that are down"}}},
		{"cluster_state:fail\r\ncluster_slots_assigned:16384", []verdict{{statusCritical, "a-broken-cluster", "state is fail"}}},
		{"cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_slots_pfail:1", []verdict{{statusWarning, "a-broken-cluster", "1 slot is on servers that do not answer"}}},
	} {
		r := new(result)
		if sound := judgeCluster(parseInfo(tt.info), r); sound != (tt.want == nil) {
			t.Errorf("%q: sound is %v", tt.info, sound)
		}
		wantVerdicts(t, r, tt.want)
	}

	const nodes = `07c3 127.0.0.1:7000@17000,host myself,master - 0 0 1 connected 0-5460
67ed 127.0.0.1:7001@17001 master - 0 1426238316232 2 connected 5461-10922
292f 127.0.0.1:7002@17002 master - 0 1426238318243 3 connected 10923-16383
6ec2 127.0.0.1:7003@17003 slave 07c3 0 1426238317741 1 connected
824f 127.0.0.1:7004@17004 slave,fail 67ed 0 1426238316232 2 disconnected
e7d1 127.0.0.1:7005@17005 slave,fail? 292f 0 1426238316232 3 connected
aaaa 127.0.0.1:7006@17006 master - 0 1426238318243 4 connected
`
	r := new(result)
	if judgeMembers(parseMembers(nodes), "yes", r) {
		t.Error("the Cluster is found in order")
	}
	wantVerdicts(t, r, []verdict{
		{statusWarning, "a-lost-node", "127.0.0.1:7004 is down"},
		{statusWarning, "a-lost-node", "127.0.0.1:7005 does not answer"},
		{statusWarning, "no-replica", "127.0.0.1:7001: when one is lost, so are its sessions, and the whole Cluster stops"},
	})
	r = new(result)
	judgeMembers(parseMembers("07c3 127.0.0.1:7000@17000 myself,master - 0 0 1 connected 0-16383\n"), "no", r)
	wantVerdicts(t, r, []verdict{{statusWarning, "no-replica", "127.0.0.1:7000: when one is lost, so are its sessions"}, {statusWarning, "few-primaries", "1 primary server"}})
}

func TestDoctorJudgesLatency(t *testing.T) {
	few := func(fast time.Duration, slow ...time.Duration) []time.Duration {
		took := slices.Repeat([]time.Duration{fast}, 100-len(slow))
		return append(took, slow...)
	}
	for _, tt := range []struct {
		took []time.Duration
		want verdict
	}{
		{few(time.Millisecond), verdict{statusOK, "", "median 1ms, 99 % within 1ms, the slowest 1ms"}},
		{few(time.Millisecond, 2*time.Second), verdict{statusOK, "", "99 % within 1ms, the slowest 2s"}},
		{few(20 * time.Millisecond), verdict{statusWarning, "slow-answers", "median 20ms"}},
		{few(time.Millisecond, 300*time.Millisecond, 300*time.Millisecond), verdict{statusWarning, "slow-answers", "99 % within 300ms"}},
		{few(250 * time.Millisecond), verdict{statusCritical, "slow-answers", "requests with sessions fail"}},
		{few(time.Millisecond, time.Second, time.Second), verdict{statusCritical, "slow-answers", "99 % within 1s"}},
	} {
		r := new(result)
		judgeLatency(tt.took, r)
		wantVerdicts(t, r, []verdict{tt.want})
	}
}

// The slow log is told by commands. Their arguments may be secrets.
func TestDoctorJudgesTheSlowLog(t *testing.T) {
	now := time.Now()
	r := new(result)
	judgeSlow([]redis.SlowLog{
		{Time: now.Add(-time.Hour), Duration: 60 * time.Millisecond, Args: []string{"keys", "secret*"}},
		{Time: now.Add(-2 * time.Hour), Duration: 400 * time.Millisecond, Args: []string{"KEYS", "*"}},
		{Time: now, Duration: 49 * time.Millisecond, Args: []string{"get", "a"}},
	}, now, r)
	wantVerdicts(t, r, []verdict{{statusWarning, "blocking-commands", "every request: KEYS 2 times, up to 400ms, 2 hours ago"}})
	if strings.Contains(r.findings[0].Text, "secret") || strings.Contains(r.findings[0].Text, "GET") {
		t.Errorf("it says %q", r.findings[0].Text)
	}
	r = new(result)
	judgeSlow(nil, now, r)
	wantVerdicts(t, r, []verdict{{statusOK, "", "no command"}})
}

func TestDoctorWritesNumbers(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{countOf(1, "key"), "1 key"}, {countOf(0, "index"), "0 indexes"}, {countOf(12345, "key"), "12,345 keys"},
		{grouped(-1234567), "-1,234,567"}, {grouped(-123), "-123"}, {grouped(999), "999"}, {grouped(1000), "1,000"},
		{sizeOf(0), "0 B"}, {sizeOf(1023), "1,023 B"}, {sizeOf(1536), "1.5 KiB"}, {sizeOf(int64(3 << 30)), "3.0 GiB"},
	} {
		if tt.got != tt.want {
			t.Errorf("it writes %q, not %q", tt.got, tt.want)
		}
	}
	for text, want := range map[string]int64{"pubsub 64 32 10": 64, "normal 0 0 0 slave 1 1 1 pubsub 33554432 8388608 60": 33554432, "": -1, "pubsub": -1} {
		if got, ok := pubSubLimit(text); ok != (want >= 0) || ok && got != want {
			t.Errorf("%q: %d", text, got)
		}
	}
}

// Redis and its kin differ in how they word a refusal.
func TestObjectOf(t *testing.T) {
	for text, want := range map[string]string{
		"This user has no permissions to run the 'get' command":                               "command",
		"User shop has no permissions to run the 'client|tracking' command":                   "command",
		"NOPERM this user has no permissions to run the 'get' command or its subcommand":      "command",
		"This user has no permissions to access the 'key channel:1' key":                      "key",
		"NOPERM this user has no permissions to access one of the keys used as arguments":     "key",
		"NOPERM No permissions to access a key":                                               "key",
		"This user has no permissions to access the 'sess:ended' channel":                     "channel",
		"NOPERM this user has no permissions to access one of the channels used as arguments": "channel",
	} {
		if got := objectOf(text); got != want {
			t.Errorf("%q is about a %s, not a %s", text, got, want)
		}
	}
}
