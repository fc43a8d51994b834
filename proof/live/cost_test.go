package live_test

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// maxBytes is what a watch may take: 100,000 take under 100 MB. The handle of a session, its
// token and its record come on top where a program keeps them.
const maxBytes = 1000

// TestCost measures what many watched sessions take in their process and in Redis.
func TestCost(t *testing.T) {
	server := redistest.Start(t, "--maxmemory", "0")
	raw := server.Client(t)
	client := server.Client(t)
	m := newProcess(t, echosession.Config{Client: client, Keyspace: newKeyspace()})
	n := *costSessions

	// The first ones fill pools and caches.
	parallel(200, 32, func(i int) {
		if _, err := m.Create(t.Context(), Data{i}); err != nil {
			t.Error(err)
		}
	})
	tokens := make([]string, n)
	parallel(n, 32, func(i int) {
		sess, err := m.Create(t.Context(), Data{i})
		if err != nil {
			t.Error(err)
			return
		}
		tokens[i] = sess.Token()
	})
	if t.Failed() {
		t.FailNow()
	}
	before := heap()

	handles := make([]*echosession.Session[Data], n)
	parallel(n, 32, func(i int) {
		sess, err := m.Open(t.Context(), tokens[i])
		if err != nil || !sess.Exists() {
			t.Error(err, sess.Reason())
		}
		handles[i] = sess
	})
	opened := heap()
	goroutines := runtime.NumGoroutine()
	if pubsub := subscriptions(t, raw); pubsub != 0 {
		t.Errorf("a Manager that watches nothing has %d subscriptions", pubsub)
	}

	contexts := make([]context.Context, n)
	for i, sess := range handles {
		var stop context.CancelFunc
		contexts[i], stop = sess.Watch(context.Background())
		defer stop()
	}
	time.Sleep(3 * time.Second) // subscribed, and all are checked
	watched := heap()
	each := func(from, to int64) float64 { return float64(to-from) / float64(n) }
	t.Logf("%d watched: %.0f bytes each for the watch (target: under %d), %.0f with the handle, its token and its record; %.1f MB in all",
		n, each(opened, watched), maxBytes, each(before, watched), float64(watched-before)/1e6)
	if each(opened, watched) > maxBytes {
		t.Errorf("%.0f bytes for each watch", each(opened, watched))
	}
	more := runtime.NumGoroutine() - goroutines
	pubsub := subscriptions(t, raw)
	t.Logf("%d goroutines more than before, %d subscriptions", more, pubsub)
	if more > 20 || pubsub != 1 {
		t.Errorf("%d goroutines and %d subscriptions for %d watched sessions", more, pubsub, n)
	}
	for _, ctx := range contexts {
		if ctx.Err() != nil {
			t.Fatal(context.Cause(ctx))
		}
	}
	if *sweepTime > 0 {
		sweeps(t, raw, n)
	}
	runtime.KeepAlive(handles)
	runtime.KeepAlive(tokens)
}

// sweeps measures what Redis does while nothing happens but sweeps and probes.
func sweeps(t *testing.T, raw *redis.Client, n int) {
	cpu, scripts, probes := cpuOf(t, raw), calls(t, raw, "evalsha", "evalsha_ro", "fcall", "eval"), calls(t, raw, "publish")
	time.Sleep(*sweepTime)
	cpu, scripts, probes = cpuOf(t, raw)-cpu, calls(t, raw, "evalsha", "evalsha_ro", "fcall", "eval")-scripts, calls(t, raw, "publish")-probes
	t.Logf("%d watched for %v: %d checks, %d probes, %.2f %% of a processor in Redis", n, *sweepTime, scripts, probes, 100*cpu/sweepTime.Seconds())
}

// heap returns the bytes of the objects that are reachable.
func heap() int64 {
	for range 3 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func subscriptions(t *testing.T, raw *redis.Client) int {
	t.Helper()
	list, err := raw.Do(t.Context(), "client", "list", "type", "pubsub").Text()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(list, "id=")
}

// cpuOf returns the seconds that a server has worked.
func cpuOf(t *testing.T, raw *redis.Client) (seconds float64) {
	t.Helper()
	info, err := raw.InfoMap(t.Context(), "cpu").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"used_cpu_user", "used_cpu_sys"} {
		part, err := strconv.ParseFloat(info["CPU"][name], 64)
		if err != nil {
			t.Fatal(err)
		}
		seconds += part
	}
	return seconds
}

// calls returns how often a server has run some commands.
func calls(t *testing.T, raw *redis.Client, commands ...string) (n int64) {
	t.Helper()
	stats, err := raw.Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(stats) {
		for _, command := range commands {
			rest, ok := strings.CutPrefix(line, "cmdstat_"+command+":calls=")
			if !ok {
				continue
			}
			digits, _, _ := strings.Cut(rest, ",")
			count, err := strconv.ParseInt(digits, 10, 64)
			if err != nil {
				t.Fatalf("INFO commandstats: %q", line)
			}
			n += count
		}
	}
	return n
}

// Reads and touches publish nothing, however many sessions there are, and a Manager that
// watches nothing listens to nothing.
func TestNoMessageForReadsAndTouches(t *testing.T) {
	server := redistest.Start(t)
	raw := server.Client(t)
	messages := record(t, raw)
	m := newProcess(t, echosession.Config{
		Client: server.Client(t), Keyspace: newKeyspace(), SubjectIndex: true, TouchInterval: echosession.TouchAlways,
	})
	before := runtime.NumGoroutine()
	n := min(4**costSessions, 20_000)
	parallel(n, 32, func(i int) {
		sess, err := m.Create(t.Context(), Data{i}, echosession.WithSubject(fmt.Sprint(i%100)))
		if err == nil {
			sess, err = m.Open(t.Context(), sess.Token())
		}
		if err == nil {
			err = sess.Touch(t.Context())
		}
		if err != nil {
			t.Error(err)
		}
	})
	if said := messages(); len(said) != 0 {
		t.Errorf("%d reads and touches published %d messages, such as %q", n, len(said), said[0].Payload)
	}
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("%d goroutines, %d before", after, before)
	}
	if pubsub := subscriptions(t, raw); pubsub != 1 { // that of this test
		t.Errorf("%d subscriptions", pubsub)
	}
	sess, err := m.Create(t.Context(), Data{})
	if err == nil {
		err = sess.Destroy(t.Context())
	}
	if said := messages(); err != nil || len(said) != 1 {
		t.Errorf("one end published %d messages: %v", len(said), err)
	}
}

// TestAllStops waits for more than a minute, so it needs -sweep.
func TestAllStops(t *testing.T) {
	if *sweepTime == 0 {
		t.Skip("without -sweep: waits for more than a minute")
	}
	server := redistest.Start(t)
	raw := server.Client(t)
	m := newProcess(t, echosession.Config{Client: server.Client(t), Keyspace: newKeyspace()})
	for range 2 {
		before := runtime.NumGoroutine()
		sess, err := m.Create(t.Context(), Data{})
		if err != nil {
			t.Fatal(err)
		}
		_, stop := sess.Watch(context.Background())
		time.Sleep(2 * time.Second)
		if n := subscriptions(t, raw); n != 1 {
			t.Errorf("%d subscriptions while one watches", n)
		}
		stop()
		time.Sleep(55 * time.Second)
		if n := subscriptions(t, raw); n != 1 {
			t.Errorf("%d subscriptions 55 s after the last watch", n)
		}
		time.Sleep(10 * time.Second)
		probes := calls(t, raw, "publish")
		time.Sleep(3 * time.Second)
		if n := subscriptions(t, raw); n != 0 || calls(t, raw, "publish") != probes {
			t.Errorf("%d subscriptions 68 s after the last watch, and %d probes", n, calls(t, raw, "publish")-probes)
		}
		if after := runtime.NumGoroutine(); after > before {
			t.Errorf("%d goroutines, %d before", after, before)
		}
	}
}
