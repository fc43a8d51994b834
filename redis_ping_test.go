package echosession_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// ping calls Ping of a Redis store.
func ping(t *testing.T, client echosession.RedisClient, options echosession.RedisOptions) error {
	t.Helper()
	store, err := echosession.NewRedisStore(client, options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	return store.(echosession.Pinger).Ping(ctx)
}

// A pingCase is a store that does not work.
type pingCase struct {
	name    string
	client  echosession.RedisClient
	options echosession.RedisOptions
	want    string // ends the text
}

// Ping names in its text why a store does not work and says what to do, in no word of the
// server's.
func TestPingNamesTheCause(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: starts some ten servers")
	}
	t.Parallel()
	server := redistest.Start(t)
	for _, tt := range slices.Concat(unreachable(t, server), notAllowed(t, server), unfit(t, server)) {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := ping(t, tt.client, tt.options)
			if !errors.Is(err, echosession.ErrStoreUnavailable) {
				t.Fatalf("%v, want ErrStoreUnavailable", err)
			}
			if want := "echosession: the session store is unavailable: " + tt.want; err.Error() != want {
				t.Errorf("%q, want %q: %s", err, want, causes(err))
			}
		})
	}
}

// unreachable are stores whose client does not get to Redis.
func unreachable(t *testing.T, server *redistest.Server) []pingCase {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	at := func(addr string) echosession.RedisClient {
		return server.Client(t, func(o *redis.Options) { o.Addr = addr })
	}
	dialing := func(err error) echosession.RedisClient {
		return server.Client(t, func(o *redis.Options) {
			o.Dialer = func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
			}
		})
	}
	database := func(server *redistest.Server, n int) echosession.RedisClient {
		return server.Client(t, func(o *redis.Options) { o.DB = n })
	}
	cluster := redistest.StartCluster(t, 3, 0)
	ofOne := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{server.Addr()}})
	t.Cleanup(func() { _ = ofOne.Close() })
	broken := newFakeRedis(t)
	broken.onCommand(func([]string) error { return &net.OpError{Op: "write", Net: "tcp", Err: syscall.EHOSTUNREACH} }, nil)
	const noDatabase = "wrong database; the server does not have the client's DB: a Cluster has database 0 alone"
	return []pingCase{
		{name: "connection refused", client: at("127.0.0.1:1"), want: "connection refused; check that Redis runs, and the client's Addr"},
		{name: "unknown host", client: dialing(&net.DNSError{Err: "no such host", Name: "redis.invalid", IsNotFound: true}), want: "unknown host; check the host name in the client's Addr"},
		{name: "no name server", client: dialing(&net.DNSError{Err: "server misbehaving", Name: "redis.invalid"}), want: "host name not resolved; check the name server and the host name in the client's Addr"},
		{name: "no network", client: broken, want: "network: write; check the network and the client's Addr"},
		{name: "no answer", client: at(silent.Addr().String()), want: "timeout; check the client's Addr, the network and StoreTimeout: nothing answers in time"},
		{name: "a server of another kind", client: at(hangsUp(t)), want: "connection closed; check the client's Addr, and whether the server expects TLS"},
		{name: "a database too high", client: database(server, 99), want: noDatabase},
		{name: "a database of a Cluster", client: database(cluster.Servers[0], 1), want: noDatabase},
		{name: "a Cluster and a client for one server", client: cluster.Servers[0].Client(t), want: "refused: MOVED; use redis.NewClusterClient: the server belongs to a Cluster"},
		{name: "one server and a client for a Cluster", client: ofOne, want: "not a Cluster; use redis.NewClient: the server does not belong to a Cluster"},
	}
}

// hangsUp returns the address of a server that closes every connection.
func hangsUp(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	return l.Addr().String()
}

// notAllowed are stores whose user may not do everything.
func notAllowed(t *testing.T, server *redistest.Server) []pingCase {
	secret := redistest.Start(t)
	if err := secret.Client(t).ConfigSet(t.Context(), "requirepass", aclPassword).Err(); err != nil {
		t.Fatal(err)
	}
	user := func(name, keyspace, commands string, change ...func(*redis.Options)) echosession.RedisClient {
		if err := permit(t.Context(), server.Client(t), name, keyspace, strings.Fields(commands)); err != nil {
			t.Fatal(err)
		}
		login := func(o *redis.Options) { o.Username, o.Password = name, aclPassword }
		return server.Client(t, append([]func(*redis.Options){login}, change...)...)
	}
	without := func(command string) string {
		return strings.Join(slices.DeleteFunc(strings.Fields(aclSessions), func(c string) bool { return c == command }), " ")
	}
	const rights = "; grant the user the commands and the keys that SECURITY.md lists"
	const login = "; check the user name and the password of the client"
	return []pingCase{
		{name: "no password", client: secret.Client(t), want: "not authenticated: NOAUTH" + login},
		{name: "wrong password", client: user("ada", "sess:", aclSessions, func(o *redis.Options) { o.Password = "another" }), want: "not authenticated: WRONGPASS" + login},
		{name: "a command is forbidden", client: user("no-getex", "sess:", without("getex")), want: "no permission: NOPERM (GETEX)" + rights},
		{name: "scripts are forbidden", client: user("no-eval", "sess:", without("evalsha")), want: "no permission: NOPERM (EVALSHA)" + rights},
		{name: "a command of scripts is forbidden", client: user("no-time", "sess:", without("time")), want: "no permission: NOPERM (TIME)" + rights},
		{name: "the database is forbidden", client: user("no-select", "sess:", aclSessions, func(o *redis.Options) { o.DB = 1 }), want: "no permission: NOPERM (SELECT)" + rights},
		{name: "waiting is forbidden", client: user("no-wait", "sess:", aclSessions), options: echosession.RedisOptions{WaitReplicas: 1}, want: "no permission: NOPERM (WAIT)" + rights},
		{name: "tickets are forbidden", client: user("no-getdel", "sess:", aclSessions), options: echosession.RedisOptions{Tickets: true}, want: "no permission: NOPERM (GETDEL)" + rights},
		{name: "the keys are forbidden", client: user("no-keys", "other:", aclIndex), want: "no permission: NOPERM" + rights},
		{
			name: "the index is forbidden", client: user("no-index", "sess:", aclSessions), options: echosession.RedisOptions{SubjectIndex: true},
			want: "no permission: NOPERM (EXISTS, PEXPIRE, ZADD, ZREM, ZSCORE, ZCARD, ZRANGE, ZRANDMEMBER)" + rights,
		},
	}
}

// unfit are stores whose Redis cannot do what they need.
func unfit(t *testing.T, server *redistest.Server) []pingCase {
	replica := replicaOf(t, redistest.Start(t))
	ancient := redistest.Start(t, "--rename-command", "GETEX", "")
	older := redistest.Start(t, "--rename-command", "ZRANDMEMBER", "")
	full := redistest.Start(t, "--maxmemory", "1", "--maxmemory-policy", "noeviction")
	fake := func(reply string) echosession.RedisClient {
		f := newFakeRedis(t)
		f.onCommand(func([]string) error { return fakeReply(reply) }, nil)
		return f
	}
	const tooOld = "; it takes Redis 6.2 or newer, with no command renamed"
	return []pingCase{
		{name: "a server too old", client: ancient.Client(t), want: "unknown command (GETEX)" + tooOld},
		{name: "a server too old for the index", client: older.Client(t), options: echosession.RedisOptions{SubjectIndex: true}, want: "unknown command (ZRANDMEMBER)" + tooOld},
		{name: "a replica", client: replica.Client(t), want: "refused: READONLY; use the address of the primary: this is a replica"},
		{name: "a full server", client: full.Client(t), want: "refused: OOM; Redis is full: raise maxmemory"},
		{name: "too few replicas", client: server.Client(t), options: echosession.RedisOptions{WaitReplicas: 2}, want: "too few replicas; check that as many replicas as WaitReplicas are connected to the primary"},
		{name: "loading", client: fake("LOADING Redis is loading the dataset in memory"), want: "refused: LOADING; wait: Redis is loading its data"},
		{name: "a Cluster with gaps", client: fake("CLUSTERDOWN Hash slot not served"), want: "refused: CLUSTERDOWN; check the Cluster: not all of its slots are served"},
		{name: "a replica without its primary", client: fake("MASTERDOWN Link with MASTER is down"), want: "refused: MASTERDOWN; use the address of the primary: this is a replica without one"},
		{name: "a full disk", client: fake("MISCONF Errors writing to the AOF file"), want: "refused: MISCONF; Redis cannot save its data to disk"},
		{name: "something else", client: fake("WRONGTYPE backend"), want: "refused: WRONGTYPE"},
	}
}

// Ping is content with every kind of client, and with exactly the rights that are listed.
// It leaves nothing behind.
func TestPingIsContent(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: starts a cluster")
	}
	t.Parallel()
	server := redistest.Start(t)
	replicaOf(t, server)
	cluster := redistest.StartCluster(t, 3, 0)
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"one": server.Addr()}})
	t.Cleanup(func() { _ = ring.Close() })
	restricted := func(name, commands string) echosession.RedisClient {
		if err := permit(t.Context(), server.Client(t), name, "sess:", strings.Fields(commands)); err != nil {
			t.Fatal(err)
		}
		return server.Client(t, func(o *redis.Options) { o.Username, o.Password = name, aclPassword })
	}
	index := echosession.RedisOptions{SubjectIndex: true}
	for name, tt := range map[string]struct {
		client  echosession.RedisClient
		options echosession.RedisOptions
	}{
		"fake":                    {newFakeRedis(t), index},
		"client":                  {server.Client(t), index},
		"auto-pipeliner":          {autoPipelined(t, server.Client(t)), index},
		"blocking auto-pipeliner": {blockingFace(t, server.Client(t), nil), index},
		"Cluster":                 {cluster.Client(t), index},
		"Ring":                    {ring, index},
		"caching":                 {server.Client(t, cached), index},
		"sessions":                {restricted("sessions", aclSessions), echosession.RedisOptions{}},
		"SubjectIndex":            {restricted("index", aclIndex), index},
		"tickets":                 {restricted("tickets", aclTickets), echosession.RedisOptions{Tickets: true}},
		"WaitReplicas":            {restricted("wait", aclWait), echosession.RedisOptions{WaitReplicas: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := ping(t, tt.client, tt.options); err != nil {
				t.Error(err, causes(err))
			}
		})
	}
	if keys := server.Client(t).Keys(t.Context(), "sess:*").Val(); len(keys) != 0 {
		t.Errorf("%q are left", keys)
	}
}
