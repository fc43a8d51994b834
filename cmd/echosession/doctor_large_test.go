package main

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// largeVariable sets how many sessions TestDoctorOfManySessions makes. The figures of
// docs/doctor.md are those of a million.
const largeVariable = "ECHOSESSION_SESSIONS"

// Of many sessions doctor says what it has seen in little time, and no command of it keeps
// Redis from answering others.
func TestDoctorOfManySessions(t *testing.T) {
	n, limit := 20_000, 30*time.Second
	if text := os.Getenv(largeVariable); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	server := redistest.Start(t, "--maxmemory", "4gb")
	rdb := server.Client(t)
	load(t, rdb, n)
	for name, value := range map[string]string{"slowlog-log-slower-than": "1000", "slowlog-max-len": "10000"} {
		if err := rdb.ConfigSet(t.Context(), name, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	rdb.SlowLogReset(t.Context())
	rdb.ConfigResetStat(t.Context())

	began := time.Now()
	report := diagnose(t, nil, urlOf(server))
	took := time.Since(began)
	report.wants(t, "keyspace", "ok", "", grouped(int64(n/2+n/2/3*3))+" sessions")
	report.wants(t, "index", "ok", "", "agree")
	report.wants(t, "lifetimes", "ok", "", "has a lifetime")
	if report.Counts["critical"]+report.Counts["unknown"] > 0 {
		t.Errorf("%+v", report)
	}
	if took > limit {
		t.Errorf("%d sessions took %v", n, took)
	}
	entries, err := rdb.SlowLogGet(t.Context(), 10_000).Result()
	if err != nil {
		t.Fatal(err)
	}
	// The slow log counts the time in which the system ran something else, too. So it is for
	// the log, and the average for the test.
	longest, over := time.Duration(0), 0
	for _, e := range entries {
		longest = max(longest, e.Duration)
		if e.Duration > 5*time.Millisecond {
			over++
		}
	}
	average, of, calls := slowestOnAverage(t, rdb)
	t.Logf("%d sessions: %v; %d commands; the slowest on average: %v (%s); the longest: %v; longer than 5ms: %d", n, took, calls, average, of, longest, over)
	if average > 2*time.Millisecond {
		t.Errorf("%s keeps Redis busy for %v", of, average)
	}
}

// slowestOnAverage returns the command that takes most time on average, and how many commands
// there were.
func slowestOnAverage(t *testing.T, rdb *redis.Client) (average time.Duration, of string, calls int64) {
	t.Helper()
	text, err := rdb.Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	for name, stats := range parseInfo(text) {
		n, _ := numberIn(stats, "calls")
		usec, ok := numberIn(stats, "usec")
		if !ok || n == 0 {
			t.Fatalf("%s: %q", name, stats)
		}
		calls += n
		if one := time.Duration(usec/n) * time.Microsecond; one > average {
			average, of = one, strings.TrimPrefix(name, "cmdstat_")
		}
	}
	return average, of, calls
}

// load stores sessions: half of them plain, half of them three to a subject.
func load(t *testing.T, rdb *redis.Client, n int) {
	t.Helper()
	ctx := t.Context()
	made := newShop(t, rdb, echosession.Config{Keyspace: "model:"})
	id := login(t, made, "alice", 1)[0]
	record, err := rdb.GetDel(ctx, "model:"+id).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	pipe := rdb.Pipeline()
	put := func(key string, id uuid.UUID) {
		copy(record[4:20], id[:]) // where a record has its ID
		pipe.Set(ctx, key+id.String(), string(record), 24*time.Hour)
	}
	flush := func() {
		if _, err := pipe.Exec(ctx); err != nil {
			t.Fatal(err)
		}
	}
	now := float64(time.Now().UnixMicro())
	// A session without an index has no subject here: one that has is another finding.
	guest := guestRecord(t, made, rdb)
	for i := range n / 2 {
		id := uuid.New()
		copy(guest[4:20], id[:])
		pipe.Set(ctx, "sess:"+id.String(), string(guest), 24*time.Hour)
		if i%3 == 0 && i+3 <= n/2 {
			index := (&site{keyspace: "sess:"}).index("user-" + strconv.Itoa(i))
			for range 3 {
				id := uuid.New()
				put(index+":", id)
				pipe.ZAdd(ctx, index, redis.Z{Score: now, Member: id.String()})
			}
			pipe.Expire(ctx, index, 24*time.Hour)
		}
		if pipe.Len() > 2000 {
			flush()
		}
	}
	flush()
}

// guestRecord returns the record of a session without a subject.
func guestRecord(t *testing.T, shop *echosession.Manager[shopper], rdb *redis.Client) []byte {
	t.Helper()
	sess, err := shop.Create(t.Context(), shopper{Name: "guest", Cart: []string{"tea"}})
	if err != nil {
		t.Fatal(err)
	}
	record, err := rdb.GetDel(t.Context(), "model:"+sess.ID()).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return record
}
