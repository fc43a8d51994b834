// Package soak puts a server with sessions under load, and looks for wrong answers
// and for what is left behind.
package soak_test

import (
	"context"
	"flag"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession/internal/redistest"
)

var (
	duration = flag.Duration("duration", 6*time.Second, "how long the load lasts")
	users    = flag.Int("users", 200, "clients at a time")
	seed     = flag.Uint64("seed", 1, "decides what each client does")
)

var secret = []byte("0123456789abcdef0123456789abcdef")

const (
	// maxAge is short, so that what is left is gone soon, yet many times what the
	// slowest answer takes.
	maxAge = 4 * time.Second

	junkTokens = 20_000

	heapSlack = 4 << 20 // pools fill, and maps do not shrink

	// markAge is how long Redis keeps the mark of a renewed session.
	markAge = time.Minute

	// The cache of verified tokens is all that may grow with the load, and it is
	// bounded. A token that is used after its session's end is remembered too.
	verifiedBytes = 32 << 20
	verifiedEach  = 512
)

func TestSoak(t *testing.T) {
	server := redistest.Start(t)
	admin := server.Client(t, func(o *redis.Options) { o.PoolSize = 1 })
	client := server.Client(t)
	s := &soak{
		url:       newServer(t, client, maxAge).URL,
		transport: &http.Transport{MaxIdleConnsPerHost: *users},
		junk:      newJunk(t),
		admin:     admin,
	}

	// Pools and caches are filled before anything is measured.
	s.load(t, newTally(), min(time.Second, *duration))
	before := s.atRest(t)

	answers := newTally()
	commands := s.commands(t)
	began := time.Now()
	s.load(t, answers, *duration)
	ended := time.Now()
	elapsed := ended.Sub(began)
	commands = s.commands(t) - commands
	if s.keys(t) == 0 {
		t.Error("there was no session")
	}

	flood := newTally()
	floodCommands := s.commands(t)
	s.sendJunk(t, flood)
	floodCommands = s.commands(t) - floodCommands

	emptied := s.empties(t, ended)
	after := s.atRest(t)
	failures := answers.requests(500) + flood.requests(500)
	wrongs, first := answers.wrongs+flood.wrongs, append(answers.first, flood.first...)
	t.Logf(`%d users for %v

%s
5xx                         %d
wrong answers               %d
Redis commands per request  %.3f
junk tokens afterwards      %d, for %d Redis commands
heap at rest                %d KiB before, %d KiB after
goroutines at rest          %d before, %d after
last session gone           %v after the load (MaxAge %v)
`, *users, elapsed.Round(time.Second), answers.table(elapsed),
		failures, wrongs, float64(commands)/float64(answers.requests(0)),
		flood.requests(0), floodCommands, before.heap>>10, after.heap>>10,
		before.goroutines, after.goroutines, emptied.Round(10*time.Millisecond), maxAge)

	if failures > 0 {
		t.Errorf("%d answers with a status of 5xx", failures)
	}
	if wrongs > 0 {
		t.Errorf("%d wrong answers, such as\n%s", wrongs, strings.Join(first, "\n"))
	}
	if floodCommands != 0 || flood.requests(0) != junkTokens {
		t.Errorf("%d junk tokens of %d cost %d Redis commands", flood.requests(0), junkTokens, floodCommands)
	}
	tokens := answers.number("create") + answers.number("create, guest") + answers.number("renew")
	if allowed := before.heap + heapSlack + min(verifiedBytes, tokens*verifiedEach); after.heap > allowed {
		t.Errorf("the heap grew from %d to %d KiB, with %d tokens; %d are allowed", before.heap>>10, after.heap>>10, tokens, allowed>>10)
	}
	if after.goroutines > before.goroutines {
		stacks := make([]byte, 1<<20)
		t.Errorf("%d goroutines, %d before:\n%s", after.goroutines, before.goroutines, stacks[:runtime.Stack(stacks, true)])
	}
}

// soak is a server and its users.
type soak struct {
	url       string
	transport *http.Transport
	junk      *junk
	admin     *redis.Client
}

func (s *soak) user(name string, n uint64, answers *tally) *user {
	return &user{
		name: name, url: s.url, http: &http.Client{Transport: s.transport, Timeout: 30 * time.Second},
		random: rand.New(rand.NewPCG(*seed, n)), tally: answers, junk: s.junk,
	}
}

// load lets every user act for a time, and tells now and then how it goes.
func (s *soak) load(t *testing.T, answers *tally, length time.Duration) {
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	var wg sync.WaitGroup
	for i := range *users {
		u := s.user("user-"+strconv.Itoa(i), uint64(i), answers)
		wg.Go(func() {
			for ctx.Err() == nil {
				u.act()
			}
		})
	}
	wg.Go(func() {
		for began := time.Now(); ; {
			select {
			case <-ctx.Done():
				return
			case <-time.After(30 * time.Second):
				t.Logf("%v: %d requests, %d with 5xx, %d keys, %d KiB of heap in use, %d goroutines", time.Since(began).Round(time.Second),
					answers.requests(0), answers.requests(500), s.keys(t), heapInUse()>>10, runtime.NumGoroutine())
			}
		}
	})
	wg.Wait()
}

// sendJunk sends junk tokens and nothing else.
func (s *soak) sendJunk(t *testing.T, answers *tally) {
	const workers = 8
	var wg sync.WaitGroup
	for i := range workers {
		u := s.user("nobody", uint64(*users+i), answers)
		wg.Go(func() {
			for range junkTokens / workers {
				u.sendJunk(s.junk.token(u.random))
			}
		})
	}
	wg.Wait()
}

// commands returns how many commands the server has executed, those of admin
// apart.
func (s *soak) commands(t *testing.T) (n int) {
	t.Helper()
	stats, err := s.admin.Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(stats) {
		name, rest, ok := strings.Cut(line, ":calls=")
		if !ok || name == "cmdstat_info" || name == "cmdstat_dbsize" {
			continue
		}
		digits, _, _ := strings.Cut(rest, ",")
		calls, err := strconv.Atoi(digits)
		if err != nil {
			t.Fatalf("INFO commandstats: %q", line)
		}
		n += calls
	}
	return n
}

func (s *soak) keys(t *testing.T) int64 {
	n, err := s.admin.DBSize(context.Background()).Result()
	if err != nil {
		t.Error(err)
	}
	return n
}

// empties waits until no key is left but the marks of renewed sessions, and returns how
// long that took since the load ended. It sees that the marks will be gone in time.
func (s *soak) empties(t *testing.T, ended time.Time) time.Duration {
	t.Helper()
	deadline := time.Now().Add(maxAge + 10*time.Second)
	for {
		marks, others := s.kinds(t)
		if len(others) > 0 && time.Now().Before(deadline) {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		if len(others) > 0 {
			t.Errorf("%d keys are left", len(others))
		}
		took := time.Since(ended)
		for _, key := range marks {
			if left := s.admin.PTTL(t.Context(), key).Val(); left == -1 || left > markAge-took {
				t.Errorf("%v after the load a mark lives for %v more", took, left)
			}
		}
		return took
	}
}

// kinds lists the keys, apart those of marks: their values begin with 0xC1 and two IDs,
// and then comes an exclamation mark.
func (s *soak) kinds(t *testing.T) (marks, others []string) {
	t.Helper()
	keys := s.admin.Scan(t.Context(), 0, "*", 1000).Iterator()
	for keys.Next(t.Context()) {
		head, err := s.admin.GetRange(t.Context(), keys.Val(), 0, 73).Result()
		switch {
		case err != nil:
			t.Fatal(err)
		case head == "": // it has just expired
		case head[0] == 0xc1 && strings.HasSuffix(head, "!"):
			marks = append(marks, keys.Val())
		default:
			others = append(others, keys.Val())
		}
	}
	if err := keys.Err(); err != nil {
		t.Fatal(err)
	}
	return marks, others
}

// rest is what the process holds when nothing happens.
type rest struct {
	heap       uint64
	goroutines int
}

// atRest closes the users' connections and waits until nothing goes on.
func (s *soak) atRest(t *testing.T) rest {
	t.Helper()
	s.transport.CloseIdleConnections()
	r := rest{heapInUse(), runtime.NumGoroutine()}
	for range 50 {
		time.Sleep(20 * time.Millisecond)
		r.heap = min(r.heap, heapInUse())
		r.goroutines = min(r.goroutines, runtime.NumGoroutine())
	}
	return r
}

// heapInUse returns the bytes of the objects that are reachable.
func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
