package outage_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

// tally counts answers. It is safe for concurrent use.
type tally struct {
	mu      sync.Mutex
	answers map[answer]*times
	wrongs  int
	first   []string // the first wrong ones
}

type answer struct{ kind, status string }

type times struct {
	took []time.Duration
	last time.Time // when the last one began
}

func newTally() *tally { return &tally{answers: make(map[answer]*times)} }

func (t *tally) add(kind, status string, began, ended time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.answers[answer{kind, status}]
	if a == nil {
		a = new(times)
		t.answers[answer{kind, status}] = a
	}
	a.took = append(a.took, ended.Sub(began))
	if began.After(a.last) {
		a.last = began
	}
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

func (t *tally) number(kind, status string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.answers[answer{kind, status}]; a != nil {
		return len(a.took)
	}
	return 0
}

// last returns when the last request of a kind began.
func (t *tally) last(kind, status string) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.answers[answer{kind, status}]; a != nil {
		return a.last
	}
	return time.Time{}
}

func (t *tally) check(tt *testing.T) {
	tt.Helper()
	if t.wrongs > 0 {
		tt.Errorf("%d wrong answers, such as\n%s", t.wrongs, strings.Join(t.first, "\n"))
	}
}

// String lists the answers by kind and status.
func (t *tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var keys []answer
	for a := range t.answers {
		keys = append(keys, a)
	}
	slices.SortFunc(keys, func(a, b answer) int { return strings.Compare(a.kind+a.status, b.kind+b.status) })
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "request\tstatus\tnumber\tp50\tp99\tmax\t")
	for _, key := range keys {
		took := t.answers[key].took
		slices.Sort(took)
		at := func(share float64) time.Duration {
			return took[min(len(took)-1, int(share*float64(len(took))))].Round(10 * time.Microsecond)
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%v\t%v\t%v\t\n", key.kind, key.status, len(took), at(0.5), at(0.99), at(1))
	}
	fmt.Fprintf(w, "wrong answers\t\t%d\t\t\t\t\n", t.wrongs)
	_ = w.Flush()
	return text.String()
}
