package redistest_test

import (
	"context"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession/internal/redistest"
)

// onceCmd is a command that go-redis must not send again.
type onceCmd struct{ *redis.Cmd }

func (onceCmd) NoRetry() bool { return true }

// run sends a command through one face of a client.
type run func(context.Context, redis.Cmder) error

// lossy is a face of a client whose replies can be lost.
type lossy struct {
	client redis.UniversalClient
	run    run
	proxy  *redistest.Proxy
}

var countRuns = redis.NewScript("local n = redis.call('incr', KEYS[1]) redis.call('pexpire', KEYS[1], 60000) return n")

// executions loses the reply to a script, and returns how often it ran in all.
func (l lossy) executions(t *testing.T, key string, wrap func(*redis.Cmd) redis.Cmder) (int64, error) {
	t.Helper()
	ctx := t.Context()
	defer l.client.Del(ctx, key)
	if err := countRuns.Eval(ctx, l.client, []string{key}).Err(); err != nil { // loads it too
		t.Fatal(err)
	}
	rule := l.proxy.On(redistest.Named("EVALSHA"), 1, redistest.DropReply())
	defer rule.Remove()
	err := l.run(ctx, wrap(redis.NewCmd(ctx, "evalsha", countRuns.Hash(), 1, key)))
	if rule.Count() != 1 {
		t.Fatal("the script did not come by")
	}
	n, getErr := l.client.Get(ctx, key).Int64()
	if getErr != nil {
		t.Fatal(getErr)
	}
	return n, err
}

// How often a script whose reply is lost runs, through every face of go-redis at
// its default number of retries: what a store may rely on.
func TestGoRedisAfterALostReply(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: starts a cluster")
	}
	t.Parallel()
	type autoPipeliner interface {
		AutoPipeline() (*redis.AutoPipeliner, error)
		AsyncAutoPipeline() (*redis.AutoPipeliner, error)
	}
	direct := func(c redis.UniversalClient) run { return c.Process }
	pipeline := func(c redis.UniversalClient) run {
		return func(ctx context.Context, cmd redis.Cmder) error {
			p := c.Pipeline()
			_ = p.Process(ctx, cmd)
			_, err := p.Exec(ctx)
			return err
		}
	}
	blocking := func(c redis.UniversalClient) run {
		ap, err := c.(autoPipeliner).AutoPipeline()
		if err != nil {
			t.Fatal(err)
		}
		return ap.Process
	}
	async := func(c redis.UniversalClient) run {
		ap, err := c.(autoPipeliner).AsyncAutoPipeline()
		if err != nil {
			t.Fatal(err)
		}
		return func(ctx context.Context, cmd redis.Cmder) error { return ap.Submit(ctx, cmd).WaitContext(ctx) }
	}

	server := redistest.Shared(t)
	p := redistest.NewProxy(t, server.Addr())
	client := redis.NewClient(&redis.Options{Addr: p.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"one": p.Addr()}})
	t.Cleanup(func() { _ = ring.Close() })

	cluster := redistest.StartCluster(t, 3, 0)
	clusterProxy := redistest.NewProxy(t, cluster.Master(t, cluster.Slot(t, "{lost}")).Addr())
	clusterClient := cluster.Client(t, func(o *redis.ClusterOptions) { o.Dialer = redistest.Through(clusterProxy) })

	tests := []struct {
		name    string
		client  redis.UniversalClient
		face    func(redis.UniversalClient) run
		proxy   *redistest.Proxy
		retried int64 // executions of a command that may be retried
	}{
		{"Client", client, direct, p, 2},
		{"Client pipeline", client, pipeline, p, 2},
		{"Client AutoPipeline", client, blocking, p, 2},
		{"Client AsyncAutoPipeline", client, async, p, 2},
		{"ClusterClient", clusterClient, direct, clusterProxy, 2},
		{"ClusterClient pipeline", clusterClient, pipeline, clusterProxy, 2},
		{"ClusterClient AutoPipeline", clusterClient, blocking, clusterProxy, 2},
		{"ClusterClient AsyncAutoPipeline", clusterClient, async, clusterProxy, 2},
		{"Ring", ring, direct, p, 2},
		{"Ring pipeline", ring, pipeline, p, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			executions := lossy{tt.client, tt.face(tt.client), tt.proxy}.executions
			key := "{lost}" + tt.name + " retried"
			n, err := executions(t, key, func(cmd *redis.Cmd) redis.Cmder { return cmd })
			if n-1 != tt.retried || (err == nil) != (tt.retried > 1) {
				t.Errorf("may be retried: ran %d times, want %d: %v", n-1, tt.retried, err)
			}
			key = "{lost}" + tt.name + " once"
			n, err = executions(t, key, func(cmd *redis.Cmd) redis.Cmder { return onceCmd{cmd} })
			if n-1 != 1 || !isEOF(err) {
				t.Errorf("NoRetry: ran %d times, want 1: %v", n-1, err)
			}
		})
	}
}
