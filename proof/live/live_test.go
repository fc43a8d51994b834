// Package live ends sessions in one process and watches them in another, and looks how soon
// the watcher is told, whether one is never told, and whether one is told of no end.
package live_test

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

var (
	watchedSessions = flag.Int("watched", 1000, "watched sessions in a process")
	endedSessions   = flag.Int("ends", 200, "how many of them are ended")
	costSessions    = flag.Int("cost", 5000, "watched sessions in TestCost")
	sweepTime       = flag.Duration("sweep", 0, "how long TestCost looks at the sweeps; 0 is not at all")
)

// These bounds are for a machine that is busy with something else. What the tests print is to
// be compared with the targets that they name.
const (
	told       = 5 * time.Second  // by a message
	toldLate   = 30 * time.Second // after a fault
	toldByPoll = 20 * time.Second
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		watchInChild()
		return
	}
	redis.SetLogger(silence{}) // of the faults
	redistest.Parallel(4)
	redistest.Main(m)
}

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

var secret = []byte("0123456789abcdef0123456789abcdef")

// Data is the data of the sessions.
type Data struct{ Number int }

// A process is a Manager with a client of its own.
type process = echosession.Manager[Data]

func newProcess(t testing.TB, cfg echosession.Config) *process {
	t.Helper()
	cfg.Secret = secret
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := echosession.New[Data](cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func newKeyspace() string { return "live-" + rand.Text() + ":" }

// A watcher watches a session without a goroutine of its own.
type watcher struct {
	sess  *echosession.Session[Data]
	token string
	ctx   context.Context
	at    atomic.Int64 // when it was told, in nanoseconds since 1970
}

func watch(t testing.TB, sess *echosession.Session[Data]) *watcher {
	ctx, stop := sess.Watch(context.Background())
	t.Cleanup(stop)
	w := &watcher{sess: sess, token: sess.Token(), ctx: ctx}
	context.AfterFunc(ctx, func() { w.at.Store(time.Now().UnixNano()) })
	return w
}

// isTold waits until the watch has ended, and reports why and when.
func (w *watcher) isTold(within time.Duration) (at time.Time, cause error) {
	select {
	case <-w.ctx.Done():
	case <-time.After(within):
		return time.Now(), fmt.Errorf("not told within %v", within)
	}
	for w.at.Load() == 0 {
		time.Sleep(50 * time.Microsecond)
	}
	return time.Unix(0, w.at.Load()), context.Cause(w.ctx)
}

// ends sees that a watch ends within a time, and why.
func (w *watcher) ends(t testing.TB, within time.Duration, want error) {
	t.Helper()
	if _, cause := w.isTold(within); !errors.Is(cause, want) {
		t.Errorf("the cause is %v, want %v", cause, want)
	}
}

// goesOn sees that a watch has not ended.
func (w *watcher) goesOn(t testing.TB, when string) {
	t.Helper()
	if w.ctx.Err() != nil {
		t.Errorf("%s: canceled: %v", when, context.Cause(w.ctx))
	}
}

// parallel calls fn for 0 to n-1 in some goroutines.
func parallel(n, workers int, fn func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(workers, n) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				fn(i)
			}
		})
	}
	wg.Wait()
}

// watchMany creates sessions and watches them.
func watchMany(t testing.TB, m *process, n int, options ...echosession.CreateOption) []*watcher {
	t.Helper()
	all := make([]*watcher, n)
	parallel(n, 16, func(i int) {
		var sess *echosession.Session[Data]
		err := insist(func() (err error) { sess, err = m.Create(t.Context(), Data{i}, options...); return err })
		if err != nil {
			t.Error(err)
			return
		}
		all[i] = watch(t, sess)
	})
	if t.Failed() {
		t.FailNow()
	}
	return all
}

// insist tries again what a busy machine makes too slow.
func insist(do func() error) error {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		err := do()
		if err == nil || !errors.Is(err, echosession.ErrStoreUnavailable) || time.Now().After(deadline) {
			return err
		}
	}
}

// awaitMessages waits until what one process ends another one hears of.
func awaitMessages(t testing.TB, watching, ending *process) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		w := watchMany(t, watching, 1)[0]
		time.Sleep(50 * time.Millisecond) // the check at the beginning is over
		end(t, ending, w)
		if _, cause := w.isTold(500 * time.Millisecond); errors.Is(cause, echosession.ErrSessionGone) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("no message comes")
		}
	}
}

// end destroys a session as another process does, and returns when that was done.
func end(t testing.TB, m *process, w *watcher) time.Time {
	t.Helper()
	var sess *echosession.Session[Data]
	err := insist(func() (err error) { sess, err = m.Open(context.Background(), w.token); return err })
	if err != nil || !sess.Exists() {
		t.Fatal(err)
	}
	if err := insist(func() error { return sess.Destroy(context.Background()) }); err != nil {
		t.Fatal(err)
	}
	return time.Now()
}

// A distribution is of times.
type distribution []time.Duration

func (d distribution) at(part float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[min(len(d)-1, int(part*float64(len(d))))]
}

func (d distribution) String() string {
	return fmt.Sprintf("n %d  p50 %.2f  p99 %.2f  max %.2f ms", len(d), ms(d.at(0.5)), ms(d.at(0.99)), ms(d.at(1)))
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// A farm is where sessions are kept. Each call of connect is one more process.
type farm struct {
	name    string
	connect func(t testing.TB) echosession.Config
}

// farms returns the stores that processes share.
func farms(t *testing.T) []farm {
	all := []farm{standalone(redistest.Start(t)), inMemory()}
	if !testing.Short() {
		all = append(all, clustered(redistest.StartCluster(t, 3, 0)))
	}
	return all
}

func standalone(server *redistest.Server) farm {
	keyspace := newKeyspace()
	return farm{"standalone", func(t testing.TB) echosession.Config {
		return echosession.Config{Client: server.Client(t), Keyspace: keyspace}
	}}
}

// pipelined is for clients that send all commands as pipelines.
func pipelined(server *redistest.Server) farm {
	keyspace := newKeyspace()
	return farm{"auto-pipeliner", func(t testing.TB) echosession.Config {
		ap, err := server.Client(t).AutoPipeline()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ap.Close() })
		return echosession.Config{Client: ap, Keyspace: keyspace}
	}}
}

func clustered(cluster *redistest.Cluster) farm {
	keyspace := newKeyspace()
	return farm{"cluster", func(t testing.TB) echosession.Config {
		return echosession.Config{Client: cluster.Client(t), Keyspace: keyspace}
	}}
}

// inMemory gives each test a store of its own.
func inMemory() farm {
	var mu sync.Mutex
	stores := make(map[string]*echosession.MemoryStore)
	return farm{"memory", func(t testing.TB) echosession.Config {
		mu.Lock()
		defer mu.Unlock()
		store := stores[t.Name()]
		if store == nil {
			store = echosession.NewMemoryStore()
			stores[t.Name()] = store
			t.Cleanup(func() { _ = store.Close() })
		}
		return echosession.Config{Store: store}
	}}
}
