package soak_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// tally counts answers. It is safe for concurrent use, and its size does not grow
// with what it counts.
type tally struct {
	mu      sync.Mutex
	answers map[answer]*latencies
	wrongs  int
	first   []string // the first wrong ones
}

type answer struct {
	kind   string
	status int
}

func newTally() *tally { return &tally{answers: make(map[answer]*latencies)} }

func (t *tally) add(kind string, status int, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.answers[answer{kind, status}]
	if l == nil {
		l = new(latencies)
		t.answers[answer{kind, status}] = l
	}
	l.add(took)
}

// wrong notes an answer that may not be.
func (t *tally) wrong(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wrongs++
	if len(t.first) < 10 {
		t.first = append(t.first, fmt.Sprintf(format, args...))
	}
}

// requests returns how many there were with a status from low on.
func (t *tally) requests(low int) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for a, l := range t.answers {
		if a.status >= low {
			n += l.n
		}
	}
	return n
}

// number returns how many requests of a kind there were.
func (t *tally) number(kind string) (n uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for a, l := range t.answers {
		if a.kind == kind {
			n += uint64(l.n)
		}
	}
	return n
}

// table lists the answers by kind and status.
func (t *tally) table(elapsed time.Duration) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var keys []answer
	var all latencies
	for a, l := range t.answers {
		keys = append(keys, a)
		all.merge(l)
	}
	slices.SortFunc(keys, func(a, b answer) int {
		return strings.Compare(fmt.Sprint(a.kind, a.status), fmt.Sprint(b.kind, b.status))
	})
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "request\tstatus\tnumber\tper second\tp50\tp99\tmax\t")
	row := func(kind, status string, l *latencies) {
		fmt.Fprintf(w, "%s\t%s\t%d\t%.0f\t%v\t%v\t%v\t\n", kind, status, l.n, float64(l.n)/elapsed.Seconds(),
			l.quantile(0.5).Round(10*time.Microsecond), l.quantile(0.99).Round(10*time.Microsecond), l.max.Round(10*time.Microsecond))
	}
	for _, a := range keys {
		row(a.kind, fmt.Sprint(a.status), t.answers[a])
	}
	row("all", "", &all)
	_ = w.Flush()
	return text.String()
}

// latencies are durations, each known to 5 %.
type latencies struct {
	n       int
	max     time.Duration
	buckets [400]int
}

const growth = 1.05

func (l *latencies) add(d time.Duration) {
	l.n++
	l.max = max(l.max, d)
	i := int(math.Log(float64(max(d, time.Microsecond))/float64(time.Microsecond)) / math.Log(growth))
	l.buckets[min(i, len(l.buckets)-1)]++
}

func (l *latencies) merge(other *latencies) {
	l.n += other.n
	l.max = max(l.max, other.max)
	for i, n := range other.buckets {
		l.buckets[i] += n
	}
}

// quantile returns what a share of the durations does not exceed.
func (l *latencies) quantile(share float64) time.Duration {
	rank := int(math.Ceil(share * float64(l.n)))
	for i, n := range l.buckets {
		if rank -= n; rank <= 0 {
			return min(l.max, time.Duration(float64(time.Microsecond)*math.Pow(growth, float64(i+1))))
		}
	}
	return l.max
}
