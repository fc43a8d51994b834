package linear_test

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession/internal/redistest"
	"github.com/echosession/echosession/proof/linear"
)

func TestMain(m *testing.M) {
	redis.SetLogger(silence{}) // of the faults
	redistest.Main(m)
}

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

var (
	histories = flag.Int("histories", 30, "histories for each store, with and without faults")
	firstSeed = flag.Uint64("seed", 0, "seed of the first history; 0 draws one")
)

// TestLinearizable lets clients use sessions at the same time, and looks for an
// order of what they did that explains all that they saw.
func TestLinearizable(t *testing.T) {
	for _, b := range backends {
		for _, faulty := range []bool{false, true} {
			name := b.name + ", healthy"
			if faulty {
				name = b.name + ", with faults"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, b, faulty)
			})
		}
	}
}

// totals are those of many histories.
type totals struct {
	histories, operations, unknown, refused, faults atomic.Int64
	watches, canceled, latest                       atomic.Int64
	tickets, redeemed, stale, hits, commands        atomic.Int64
}

func test(t *testing.T, b backend, faulty bool) {
	f := b.prepare(t)
	seed := *firstSeed
	if seed == 0 {
		seed = newSeed()
	}
	n := *histories
	if testing.Short() {
		n = min(n, 10)
	}
	var sum totals
	// A test holds on to what its parallel subtests used: not too many at a time.
	for seeds := range slices.Chunk(seedsFrom(seed, n), 50) {
		t.Run("histories", func(t *testing.T) { some(t, b, f, faulty, seeds, &sum) })
	}
	t.Logf("%d histories from seed %d: %d operations, %d of them with an unknown outcome, and %d that were refused; %d faults",
		sum.histories.Load(), seed, sum.operations.Load(), sum.unknown.Load(), sum.refused.Load(), sum.faults.Load())
	t.Logf("%d watches, %d of them canceled, the last %v after the last operation",
		sum.watches.Load(), sum.canceled.Load(), time.Duration(sum.latest.Load()).Round(time.Millisecond))
	t.Logf("%d tickets, %d of them redeemed; %d stale pages; %d reads from a cache; %d commands",
		sum.tickets.Load(), sum.redeemed.Load(), sum.stale.Load(), sum.hits.Load(), sum.commands.Load())
	if faulty && n >= 10 && (sum.faults.Load() == 0 || sum.unknown.Load() == 0) {
		t.Error("no fault made a difference")
	}
	// On a busy machine with faults more than half of the operations may fail, of some 75 in a
	// history.
	if done := sum.operations.Load() - sum.unknown.Load() - sum.refused.Load(); done < 10*int64(n) {
		t.Errorf("%d operations of %d histories succeeded: this proves little", done, n)
	}
	if n >= 10 && (sum.canceled.Load() == 0 || sum.canceled.Load() == sum.watches.Load()) {
		t.Error("all watches ended alike: this proves little")
	}
	if b.staleOpen && n >= 10 && sum.hits.Load() == 0 {
		t.Error("no cache was used: this proves little")
	}
	if faulty && n >= 30 && sum.stale.Load() == 0 {
		t.Error("no page was served stale: this proves little")
	}
	if n >= 10 && sum.redeemed.Load() == 0 {
		t.Error("no ticket was redeemed: this proves little")
	}
}

// some makes and checks a few histories.
func some(t *testing.T, b backend, f *farm, faulty bool, seeds []uint64, sum *totals) {
	trials, workloads := make([]*trial, len(seeds)), make([]linear.Workload, len(seeds))
	for i, seed := range seeds {
		trials[i] = newTrial(seed, faulty)
		if b.caching {
			workloads[i] = trials[i].workload(t, b, f)
		}
	}
	if b.caching {
		warmUp(t, workloads)
	}
	for i, tr := range trials {
		t.Run(fmt.Sprintf("seed=%d", tr.seed), func(t *testing.T) {
			t.Parallel()
			w := workloads[i]
			if !b.caching {
				w = tr.workload(t, b, f)
			}
			outcome := tr.run(t, w)
			for _, c := range tr.caches {
				sum.hits.Add(int64(c.CSCStats().Hits))
			}
			for _, p := range tr.proxies {
				sum.commands.Add(int64(len(p.Commands())))
			}
			if tr.faults != nil {
				sum.faults.Add(tr.faults.count.Load())
			}
			check(t, outcome, tr.seed, sum)
		})
	}
}

// run makes a history. Before its end the faults are over.
func (tr *trial) run(t *testing.T, w linear.Workload) *linear.Outcome {
	if tr.faults == nil {
		return w.Run(t.Context())
	}
	over := make(chan struct{})
	var working sync.WaitGroup
	working.Go(func() { tr.faults.disconnect(over) })
	if tr.outages {
		working.Go(func() { tr.goDown(over, 15*time.Millisecond, 5*time.Millisecond) })
	}
	tr.faults.on.Store(true)
	outcome := w.Start(t.Context())
	tr.faults.on.Store(false)
	close(over)
	working.Wait()
	outcome.Finish(t.Context())
	return outcome
}

func seedsFrom(first uint64, n int) (seeds []uint64) {
	for i := range uint64(n) {
		seeds = append(seeds, first+i)
	}
	return seeds
}

func check(t *testing.T, outcome *linear.Outcome, seed uint64, sum *totals) {
	all, unknown := outcome.Operations()
	sum.histories.Add(1)
	sum.operations.Add(int64(all))
	sum.unknown.Add(int64(unknown))
	sum.refused.Add(int64(len(outcome.Refused)))
	figures := outcome.Figures
	sum.watches.Add(int64(figures.Watches))
	sum.canceled.Add(int64(figures.Canceled))
	sum.tickets.Add(int64(figures.Tickets))
	sum.redeemed.Add(int64(figures.Redeemed))
	sum.stale.Add(int64(figures.Stale))
	for latest := sum.latest.Load(); int64(figures.Latest) > latest; latest = sum.latest.Load() {
		sum.latest.CompareAndSwap(latest, int64(figures.Latest))
	}
	errs := outcome.Errors
	if err := outcome.Check(outcome.Workload.Grace); err != nil {
		errs = append(errs, err)
	}
	for _, err := range errs {
		t.Error(err)
	}
	if t.Failed() {
		for _, text := range outcome.Refused {
			t.Log("refused after ", text)
		}
		t.Logf("grace %v, indexed %v; once more: go test ./linear -count=1 -run '%s' -histories 1 -seed %d",
			outcome.Workload.Grace, outcome.Workload.Indexed, strings.Join(strings.Split(t.Name(), "/")[:2], "/"), seed)
	}
}
