package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// A loader is a store that creates sessions in many pipelines: it fills a server fast, with
// records that the library has written.
type loader struct {
	echosession.Store
	tb       testing.TB
	client   redis.UniversalClient
	keyspace string
	used     time.Duration // how long the next session was not used
	pipe     redis.Pipeliner
}

func newLoader(tb testing.TB, client redis.UniversalClient, keyspace string) *loader {
	return &loader{tb: tb, client: client, keyspace: keyspace, pipe: client.Pipeline()}
}

func (l *loader) Create(_ context.Context, ref echosession.Ref, record []byte, ttl time.Duration, _ echosession.Limit) error {
	key := l.keyspace + ref.ID
	if ref.Subject != "" {
		index := l.keyspace + "{" + hashOf(ref.Subject).String() + "}"
		key = index + ":" + ref.ID
		l.pipe.ZAdd(l.tb.Context(), index, redis.Z{Score: float64(time.Now().UnixMicro()), Member: ref.ID})
		l.pipe.PExpire(l.tb.Context(), index, ttl)
	}
	l.pipe.Set(l.tb.Context(), key, record, ttl-l.used)
	if l.pipe.Len() >= 3000 {
		l.flush()
	}
	return nil
}

func (l *loader) flush() {
	if _, err := l.pipe.Exec(l.tb.Context()); err != nil {
		l.tb.Fatal(err)
	}
}

// many makes sessions of a keyspace: nth says when number i was created, how long it was not
// used since, and with which options.
func many(tb testing.TB, client redis.UniversalClient, cfg echosession.Config, n int, nth func(i int) (age, unused time.Duration, opts []echosession.CreateOption)) {
	tb.Helper()
	l := newLoader(tb, client, cfg.Keyspace)
	start := time.Now()
	now := start
	cfg.Store, cfg.Secret, cfg.Now = l, testSecret, func() time.Time { return now }
	sessions, err := echosession.New[user](cfg)
	if err != nil {
		tb.Fatal(err)
	}
	for i := range n {
		age, unused, opts := nth(i)
		now, l.used = start.Add(-age), unused
		if _, err := sessions.Create(tb.Context(), ada, opts...); err != nil {
			tb.Fatal(err)
		}
	}
	l.flush()
}

// A result is what a run of the command has left.
type result struct {
	exit           int
	stdout, stderr string
}

// command runs the command with arguments, as a shell would.
func runCommand(ctx context.Context, args ...string) result {
	var stdout, stderr bytes.Buffer
	exit := run(ctx, args, &invocation{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, getenv: func(string) string { return "" }})
	return result{exit, stdout.String(), stderr.String()}
}

// statsOf runs "echosession stats -json", and returns what it counts.
func statsOf(t *testing.T, args ...string) (counted tally) {
	t.Helper()
	counted = *newTally()
	counted.Idle, counted.Age, counted.Size, counted.Subjects.PerSubject = nil, nil, nil, nil
	r := runCommand(t.Context(), append([]string{"stats", "-json"}, args...)...)
	if r.exit != exitOK || r.stderr != "" {
		t.Fatalf("exit %d: %s", r.exit, r.stderr)
	}
	if err := json.Unmarshal([]byte(r.stdout), &counted); err != nil {
		t.Fatalf("%v in %s", err, r.stdout)
	}
	return counted
}

// BenchmarkStats counts a million sessions, and tells how long others wait for Redis
// meanwhile.
func BenchmarkStats(b *testing.B) {
	const sessions, subjects = 1_000_000, 300_000
	server := redistest.Start(b, "--maxmemory", "0")
	client := server.Client(b)
	many(b, client, echosession.Config{Keyspace: "sess:", SubjectIndex: true, MaxAge: 14 * day}, sessions, func(i int) (age, unused time.Duration, opts []echosession.CreateOption) {
		unused = time.Duration(i%1000) * 10 * time.Minute
		return unused + time.Duration(i%90)*day, unused, []echosession.CreateOption{echosession.WithSubject(fmt.Sprint("user-", i%subjects))}
	})
	for _, sample := range []string{"200000", "0"} {
		b.Run("sample="+sample, func(b *testing.B) {
			for b.Loop() {
				worst, stop := slowestPing(b, client)
				r := runCommand(b.Context(), "stats", "-max-age", "336h", "-sample", sample, "redis://"+server.Addr())
				stop()
				if r.exit != exitOK {
					b.Fatal(r.stderr)
				}
				b.ReportMetric(float64(worst().Microseconds())/1000, "ms-slowest-ping")
				b.Log("\n" + r.stdout)
			}
		})
	}
}

// slowestPing asks for PINGs, one after the other, until stop. worst is what 999 of 1,000 did
// not exceed.
func slowestPing(tb testing.TB, client redis.UniversalClient) (worst func() time.Duration, stop func()) {
	ctx, cancel := context.WithCancel(tb.Context())
	var took []time.Duration
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			began := time.Now()
			if client.Ping(ctx).Err() == nil {
				took = append(took, time.Since(began))
			}
			time.Sleep(time.Millisecond)
		}
	})
	return func() time.Duration { slices.Sort(took); return took[len(took)*999/1000] }, func() { cancel(); wg.Wait() }
}

var (
	_ = errors.Is
	_ = os.Stat
	_ = filepath.Join
)
