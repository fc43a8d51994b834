package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// until waits for something that a server does by itself.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in time", what)
		}
	}
}

// infoOf returns a field of INFO.
func infoOf(t *testing.T, rdb *redis.Client, field string) string {
	t.Helper()
	text, err := rdb.Info(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	return parseInfo(text)[field]
}

// fill writes keys of 10 KB until Redis is full, or n of them.
func fill(t *testing.T, rdb *redis.Client, n int) {
	t.Helper()
	for i := range n {
		err := rdb.Set(t.Context(), "filler:"+strconv.Itoa(i), strings.Repeat("x", 10_000), time.Hour).Err()
		if redis.HasErrorPrefix(err, "OOM") {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A server for each state that doctor is to find.
func TestDoctorFindings(t *testing.T) {
	for _, tt := range []struct {
		name    string
		args    []string                                                        // of the server
		prepare func(t *testing.T, server *redistest.Server, rdb *redis.Client) // nil: nothing
		doctor  []string                                                        // flags
		want    [][4]string                                                     // check, status, ID, text
		exit    int
	}{
		{
			name: "an evicting policy that has evicted nothing yet", args: []string{"--maxmemory-policy", "volatile-ttl", "--appendonly", "yes"},
			want: [][4]string{{"eviction", "warning", "an-evicting-policy", "volatile-ttl: when its 64.0 MiB are full"}}, exit: exitWarning,
		},
		{
			name: "an evicting policy without a limit", args: []string{"--maxmemory-policy", "allkeys-lru", "--maxmemory", "0", "--appendonly", "yes"},
			want: [][4]string{
				{"eviction", "warning", "an-evicting-policy", "as soon as somebody sets maxmemory"},
				{"memory", "ok", "", "there is no maxmemory"},
			}, exit: exitWarning,
		},
		{
			name: "evictions, and the policy mended since", args: []string{"--maxmemory-policy", "allkeys-random", "--maxmemory", "3mb", "--appendonly", "no"},
			prepare: func(t *testing.T, _ *redistest.Server, rdb *redis.Client) {
				fill(t, rdb, 300)
				rdb.ConfigSet(t.Context(), "maxmemory-policy", "noeviction")
				rdb.ConfigSet(t.Context(), "maxmemory", "64mb")
			},
			want: [][4]string{{"eviction", "ok", "", "before the policy was set"}}, exit: exitWarning,
		},
		{
			name: "no persistence",
			want: [][4]string{{"persistence", "warning", "no-persistence", "a restart logs everybody out"}}, exit: exitWarning,
		},
		{
			name: "snapshots", args: []string{"--save", "3600 1"},
			want: [][4]string{{"persistence", "ok", "", "snapshots (RDB); the last one was"}}, exit: exitOK,
		},
		{
			name: "a snapshot that failed", args: []string{"--save", "3600 1"}, prepare: failASave,
			want: [][4]string{
				{"persistence", "critical", "a-failed-save", "with stop-writes-on-bgsave-error Redis refuses writes"},
				{"writes", "critical", "a-failed-save", "Redis refuses writes because it could not save"},
			}, exit: exitCritical,
		},
		{
			name: "a snapshot that failed, and writes go on", args: []string{"--save", "3600 1", "--stop-writes-on-bgsave-error", "no"}, prepare: failASave,
			want: [][4]string{
				{"persistence", "critical", "a-failed-save", "a restart loses what changed"},
				{"writes", "ok", "", "written, read and deleted"},
			}, exit: exitCritical,
		},
		{
			name: "a full Redis", args: []string{"--maxmemory", "3mb", "--appendonly", "no"},
			prepare: func(t *testing.T, _ *redistest.Server, rdb *redis.Client) { fill(t, rdb, 500) },
			want: [][4]string{
				{"writes", "critical", "redis-is-full", "nobody can log in"},
				{"memory", "critical", "little-memory-left", "then it refuses writes"},
				{"memory", "warning", "redis-is-full", "has refused"},
				{"eviction", "ok", "", "noeviction"},
			}, exit: exitCritical,
		},
		{
			name: "little memory left", args: []string{"--maxmemory", "10mb", "--appendonly", "no"},
			prepare: func(t *testing.T, _ *redistest.Server, rdb *redis.Client) {
				fill(t, rdb, 300)
				used, _ := strconv.Atoi(infoOf(t, rdb, "used_memory"))
				rdb.ConfigSet(t.Context(), "maxmemory", strconv.Itoa(used*100/88))
			},
			want: [][4]string{
				{"memory", "warning", "little-memory-left", "until Redis is full"},
				{"keyspace", "warning", "no-sessions-here", "the database has 300 keys"},
			}, exit: exitWarning,
		},
		{
			name: "a replica", prepare: func(t *testing.T, server *redistest.Server, rdb *redis.Client) {
				primary := startRedis(t)
				host, port, _ := net.SplitHostPort(primary.Addr())
				rdb.Do(t.Context(), "replicaof", host, port)
				until(t, "it follows", func() bool { return infoOf(t, rdb, "master_link_status") == "up" })
			},
			want: [][4]string{
				{"replicas", "critical", "not-the-primary", "this is a replica"},
				{"writes", "critical", "not-the-primary", "this is a replica"},
			}, exit: exitCritical,
		},
		{
			name: "too few replicas for min-replicas-to-write", args: []string{"--min-replicas-to-write", "1", "--appendonly", "yes"},
			want: [][4]string{
				{"replicas", "critical", "too-few-replicas", "min-replicas-to-write is 1"},
				{"writes", "critical", "too-few-replicas", "too few replicas"},
			}, exit: exitCritical,
		},
		{
			name: "too few replicas for WaitReplicas", args: []string{"--appendonly", "yes"}, doctor: []string{"-wait-replicas", "1"},
			want: [][4]string{{"writes", "critical", "too-few-replicas", "0 replicas of the 1"}}, exit: exitCritical,
		},
		{
			name: "a replica in order", args: []string{"--appendonly", "yes"}, doctor: []string{"-wait-replicas", "1"},
			prepare: func(t *testing.T, server *redistest.Server, _ *redis.Client) { follow(t, server) },
			want: [][4]string{
				{"replicas", "ok", "", "1 replica, none of them behind"},
				{"writes", "ok", "", "reached 1 replica"},
			}, exit: exitOK,
		},
		{
			name: "a lagging replica", args: []string{"--appendonly", "yes"},
			prepare: func(t *testing.T, server *redistest.Server, rdb *redis.Client) {
				follow(t, server).Pause(t)
				fill(t, rdb, 200)
			},
			want: [][4]string{{"replicas", "warning", "a-lagging-replica", "1.9 MiB behind"}}, exit: exitWarning,
		},
		{
			name: "refused connections", args: []string{"--maxclients", "8", "--appendonly", "yes"},
			prepare: func(t *testing.T, server *redistest.Server, _ *redis.Client) {
				for range 12 {
					conn, err := net.Dial("tcp", server.Addr())
					if err != nil {
						t.Fatal(err)
					}
					_, _ = conn.Write([]byte("PING\r\n"))
					_, _ = conn.Read(make([]byte, 1))
					conn.Close()
				}
				conns := make([]net.Conn, 12)
				for i := range conns {
					conns[i], _ = net.Dial("tcp", server.Addr())
				}
				time.Sleep(50 * time.Millisecond) // until Redis has seen them
				for _, conn := range conns {
					conn.Close()
				}
			},
			want: [][4]string{{"clients", "warning", "rejected-connections", "refused since the server started"}}, exit: exitWarning,
		},
		{
			name: "settings for clients", args: []string{"--timeout", "20", "--client-output-buffer-limit", "pubsub 64kb 32kb 10", "--appendonly", "yes"},
			want: [][4]string{
				{"clients", "warning", "idle-connections-closed", "after 20s"},
				{"clients", "warning", "a-small-pubsub-buffer", "64.0 KiB"},
			}, exit: exitWarning,
		},
		{
			name: "a command that blocks", args: []string{"--appendonly", "yes", "--slowlog-log-slower-than", "60000"},
			prepare: func(t *testing.T, _ *redistest.Server, rdb *redis.Client) {
				rdb.Do(t.Context(), "debug", "sleep", "0.12")
			},
			want: [][4]string{{"slow", "warning", "blocking-commands", "DEBUG 1 time, up to "}}, exit: exitWarning,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := startRedis(t, tt.args...)
			if tt.prepare != nil {
				rdb := server.Client(t)
				tt.prepare(t, server, rdb)
				_ = rdb.Close()
			}
			report := diagnose(t, nil, append(tt.doctor, urlOf(server))...)
			for _, w := range tt.want {
				report.wants(t, w[0], w[1], w[2], w[3])
			}
			if report.Exit != tt.exit {
				t.Errorf("exit code %d, not %d: %+v", report.Exit, tt.exit, report)
			}
		})
	}
}

// failASave puts a directory where the snapshot is to be.
func failASave(t *testing.T, _ *redistest.Server, rdb *redis.Client) {
	t.Helper()
	ctx := t.Context()
	dir := rdb.ConfigGet(ctx, "dir").Val()["dir"]
	if err := os.MkdirAll(filepath.Join(dir, "dump.rdb", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	rdb.Set(ctx, "filler", "x", time.Hour)
	if err := rdb.BgSave(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	until(t, "the save fails", func() bool { return infoOf(t, rdb, "rdb_last_bgsave_status") == "err" })
}

// follow starts a replica of a server.
func follow(t *testing.T, primary *redistest.Server) *redistest.Server {
	t.Helper()
	host, port, _ := net.SplitHostPort(primary.Addr())
	replica := startRedis(t, "--replicaof", host, port)
	rdb := primary.Client(t)
	until(t, "the replica follows", func() bool { return strings.Contains(infoOf(t, rdb, "slave0"), "state=online") })
	return replica
}

func TestDoctorOfTLS(t *testing.T) {
	server := redistest.StartTLS(t, false, "--appendonly", "yes", "--slowlog-log-slower-than", "-1")
	report := diagnose(t, nil, "-cacert", server.CA, "rediss://"+server.TLSAddr)
	report.wants(t, "access", "ok", "", "TLS")
	if report.Exit != exitOK {
		t.Errorf("exit code %d: %+v", report.Exit, report)
	}
	report = diagnose(t, nil, urlOf(server.Server))
	report.wants(t, "access", "ok", "", "no TLS, and none is needed")
}

// From another machine, a connection without TLS and without a password is found.
func TestDoctorAccess(t *testing.T) {
	server := startRedis(t)
	for _, tt := range []struct {
		addr     string
		password string
		want     []string
	}{
		{"10.0.0.7:6379", "", []string{"no-tls", "no-password"}},
		{"redis.example:6379", "open", []string{"no-tls"}},
		{"[::1]:6379", "", []string{""}},
		{"127.0.0.2:6379", "", []string{""}},
		{"localhost:6379", "", []string{""}},
		{"/run/redis.sock", "", []string{""}},
	} {
		x := &examination{options: &redis.UniversalOptions{Password: tt.password}}
		r := new(result)
		checkAccess(t.Context(), x, &node{addr: tt.addr, client: server.Client(t)}, r)
		if got := findingIDs(r); !equal(got, tt.want) {
			t.Errorf("%s: %q, not %q", tt.addr, got, tt.want)
		}
	}
}

func findingIDs(r *result) (ids []string) {
	for _, f := range r.findings {
		ids = append(ids, f.ID)
	}
	return ids
}

func equal(a, b []string) bool {
	return strings.Join(a, "|") == strings.Join(b, "|") && len(a) == len(b)
}

// The clock of this machine is set for the test.
func TestDoctorClock(t *testing.T) {
	server := startRedis(t)
	for _, tt := range []struct {
		off    time.Duration
		status status
		text   string
	}{
		{0, statusOK, "agree within"},
		{-20 * time.Second, statusWarning, "20s ahead of this machine's"},
		{20 * time.Second, statusWarning, "20s behind this machine's"},
		{-2 * time.Hour, statusCritical, "2h ahead of"},
		{700 * time.Millisecond, statusOK, "agree within"},
	} {
		x := &examination{now: func() time.Time { return time.Now().Add(tt.off) }}
		r := new(result)
		checkClock(t.Context(), x, &node{client: server.Client(t)}, r)
		if len(r.findings) != 1 || r.findings[0].Status != tt.status || !strings.Contains(r.findings[0].Text, tt.text) {
			t.Errorf("%v: %+v, not %v %q", tt.off, r.findings, tt.status, tt.text)
		}
	}
}

// What a server is slow in, the wire shows: here a proxy delays each answer.
func TestDoctorLatency(t *testing.T) {
	server := startRedis(t)
	proxy := redistest.NewProxy(t, server.Addr())
	proxy.On(redistest.Named("PING"), -1, redistest.Delay(25*time.Millisecond))
	report := diagnose(t, nil, "redis://"+proxy.Addr())
	report.wants(t, "latency", "warning", "slow-answers", "100 PINGs from this machine: median ")
}

func TestDoctorHearsNothing(t *testing.T) {
	server := startRedis(t)
	proxy := redistest.NewProxy(t, server.Addr())
	proxy.On(redistest.Named("PUBLISH"), -1, redistest.Reply(":1\r\n"))
	report := diagnose(t, nil, "redis://"+proxy.Addr())
	report.wants(t, "pubsub", "critical", "unheard-messages", "not heard within 2s")
}

// A key that is gone as soon as it is written is found, whatever takes it.
func TestDoctorWriteThatIsGone(t *testing.T) {
	server := startRedis(t)
	proxy := redistest.NewProxy(t, server.Addr())
	proxy.On(redistest.Named("GET"), 1, redistest.Reply("$-1\r\n"))
	x := &examination{target: &target{keyspace: "sess:"}, client: server.Client(t)}
	r := new(result)
	checkWrites(t.Context(), x, &node{client: redis.NewClient(&redis.Options{Addr: proxy.Addr()})}, r)
	if len(r.findings) != 1 || r.findings[0].Status != statusCritical || r.findings[0].ID != "a-failed-write" {
		t.Errorf("%+v", r.findings)
	}
}

// The sentinels of a test are asked again until they have seen what the test has done.
func sentinelFindings(t *testing.T, s *redistest.Sentinel, check, id string) doctorReport {
	t.Helper()
	var report doctorReport
	until(t, id, func() bool {
		report = diagnose(t, nil, "-sentinel", s.MasterName(), "redis://"+strings.Join(s.SentinelAddrs(), ","))
		for _, f := range report.of(check) {
			if f.ID == id {
				return true
			}
		}
		return false
	})
	return report
}

func TestDoctorOfSentinels(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: starts Sentinels")
	}
	s := redistest.StartSentinel(t, 1, 3)
	args := []string{"-sentinel", s.MasterName(), "redis://" + strings.Join(s.SentinelAddrs(), ",")}
	report := diagnose(t, nil, args...)
	report.wants(t, "failover", "ok", "", "3 Sentinels, quorum 2; the primary counts as down after 1s")
	report.wants(t, "replicas", "ok", "", "1 replica, none of them behind")
	if !strings.Contains(report.Server.Topology, s.MasterName()) {
		t.Errorf("the topology is %q", report.Server.Topology)
	}
	// One address is enough: it names the others.
	report = diagnose(t, nil, "-sentinel", s.MasterName(), "redis://"+s.SentinelAddrs()[0])
	report.wants(t, "failover", "ok", "", "3 Sentinels, quorum 2")

	setQuorum(t, s, 1)
	report = sentinelFindings(t, s, "failover", "a-small-quorum")
	report.wants(t, "failover", "warning", "a-small-quorum", "the quorum is 1 of 3 Sentinels")
	setQuorum(t, s, 4)
	report = sentinelFindings(t, s, "failover", "no-quorum")
	report.wants(t, "failover", "critical", "no-quorum", "the quorum is 4 of 3 Sentinels: there is never a failover")
	setQuorum(t, s, 2)

	s.Servers[1].Kill()
	report = sentinelFindings(t, s, "failover", "a-lost-replica")
	report.wants(t, "failover", "warning", "a-lost-replica", s.Servers[1].Addr())
	report.wants(t, "replicas", "warning", "no-replica", "when this server is lost")

	s.Sentinels[2].Kill()
	report = sentinelFindings(t, s, "failover", "a-lost-sentinel")
	report.wants(t, "failover", "warning", "a-lost-sentinel", s.SentinelAddrs()[2])
}

func setQuorum(t *testing.T, s *redistest.Sentinel, quorum int) {
	t.Helper()
	for _, sentinel := range s.Sentinels {
		c := redis.NewSentinelClient(&redis.Options{Addr: sentinel.Addr()})
		err := c.Set(t.Context(), s.MasterName(), "quorum", strconv.Itoa(quorum)).Err()
		_ = c.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestDoctorOfACluster(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: starts a cluster")
	}
	c := redistest.StartCluster(t, 3, 1)
	rdb := c.Client(t)
	shop := newShop(t, rdb, echosession.Config{SubjectIndex: true})
	for i := range 30 {
		login(t, shop, "user-"+strconv.Itoa(i), 1)
	}
	report := diagnose(t, nil, urlOf(c.Servers[0]))
	report.wants(t, "failover", "ok", "", "all 16,384 slots are served, and each primary has a replica")
	report.wants(t, "keyspace", "ok", "", "30 sessions, 30 indexes of subjects")
	report.wants(t, "rights", "ok", "", "a Cluster")
	if n := len(report.of("persistence")); n != 1 || report.Exit != exitWarning {
		t.Errorf("%d findings of persistence, exit code %d: %+v", n, report.Exit, report)
	}
	// Each primary is checked, and named. Each has users of its own.
	second := c.Servers[1].Client(t)
	setUser(t, second, "shop", granted(sessionCommands, "pttl")...)
	setUser(t, c.Servers[0].Client(t), "shop", granted(sessionCommands+" cluster|slots asking")...)
	setUser(t, c.Servers[2].Client(t), "shop", granted(sessionCommands+" cluster|slots asking")...)
	grants := ""
	for _, f := range diagnose(t, nil, "-skip", "keyspace,lifetimes,records,index,sizes", "-user", "shop", urlOf(c.Servers[0])).of("rights") {
		if f.Status == "critical" {
			grants += f.Advice
			if f.Server != c.Servers[1].Addr() {
				t.Errorf("of another primary than the second: %+v", f)
			}
		}
	}
	for _, right := range []string{" +pttl", " +cluster|slots", " +asking"} {
		if !strings.Contains(grants, right) {
			t.Errorf("the second primary lacks%s, and doctor advises %q", right, grants)
		}
	}
	slots := make(map[string]bool)
	for _, f := range report.of("memory") {
		slots[f.Server] = true
	}
	for _, server := range c.Servers[:3] {
		if !strings.Contains(joined(slots), server.Addr()) {
			t.Errorf("%s was not checked: %q", server.Addr(), joined(slots))
		}
	}

	c.Servers[5].Kill() // the replica of the third
	until(t, "the node is missed", func() bool {
		report = diagnose(t, nil, urlOf(c.Servers[0]))
		for _, f := range report.of("failover") {
			if f.ID == "a-lost-node" && strings.Contains(f.Text, "is down") {
				return true
			}
		}
		return false
	})
	report.wants(t, "failover", "warning", "a-lost-node", c.Servers[5].Addr())
	report.wants(t, "failover", "warning", "no-replica", c.Servers[2].Addr())

	// A hole: one slot loses its server, on every node.
	for _, server := range c.Servers[:5] {
		node := server.Client(t)
		if err := node.ClusterDelSlots(t.Context(), 100).Err(); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the Cluster is down", func() bool {
		info, _ := c.Servers[1].Client(t).ClusterInfo(context.Background()).Result()
		return strings.Contains(info, "cluster_state:fail")
	})
	report = diagnose(t, nil, urlOf(c.Servers[0]))
	report.wants(t, "failover", "critical", "a-broken-cluster", "1 slot of 16,384 has no server")
	report.wants(t, "writes", "critical", "a-broken-cluster", "the Cluster is down")
	if report.Exit != exitCritical {
		t.Errorf("exit code %d", report.Exit)
	}

	c.Servers[2].Kill() // no replica can take its place
	report = diagnose(t, nil, urlOf(c.Servers[0]))
	report.wants(t, "server", "critical", "a-lost-primary", c.Servers[2].Addr()+" does not answer")
	if found := report.of("memory"); len(found) == 0 || strings.Contains(found[0].Server, c.Servers[2].Addr()) {
		t.Errorf("%+v", found)
	}
}

func joined(set map[string]bool) string {
	var b strings.Builder
	for name := range set {
		b.WriteString(name + " ")
	}
	return b.String()
}
