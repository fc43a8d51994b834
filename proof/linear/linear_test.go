package linear_test

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession/internal/redistest"
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
		t.Run("histories", func(t *testing.T) {
			for _, seed := range seeds {
				t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
					t.Parallel()
					check(t, newTrial(seed, faulty), b, f, &sum)
				})
			}
		})
	}
	t.Logf("%d histories from seed %d: %d operations, %d of them with an unknown outcome, and %d that were refused; %d faults",
		sum.histories.Load(), seed, sum.operations.Load(), sum.unknown.Load(), sum.refused.Load(), sum.faults.Load())
	if faulty && n >= 10 && (sum.faults.Load() == 0 || sum.unknown.Load() == 0) {
		t.Error("no fault made a difference")
	}
	if lost := sum.unknown.Load() + sum.refused.Load(); lost > sum.operations.Load()/2 {
		t.Error("most operations failed: this proves little")
	}
}

func seedsFrom(first uint64, n int) (seeds []uint64) {
	for i := range uint64(n) {
		seeds = append(seeds, first+i)
	}
	return seeds
}

func check(t *testing.T, tr *trial, b backend, f *farm, sum *totals) {
	w := tr.workload(t, b, f)
	outcome := w.Run(t.Context())
	all, unknown := outcome.Operations()
	sum.histories.Add(1)
	sum.operations.Add(int64(all))
	sum.unknown.Add(int64(unknown))
	sum.refused.Add(int64(len(outcome.Refused)))
	if tr.faults != nil {
		sum.faults.Add(tr.faults.count.Load())
		tr.faults.mended.Store(true)
	}
	errs := outcome.Errors
	if err := outcome.Check(w.Grace); err != nil {
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
			w.Grace, w.Indexed, strings.Join(strings.Split(t.Name(), "/")[:2], "/"), tr.seed)
	}
}
