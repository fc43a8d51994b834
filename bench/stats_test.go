package main

import (
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	tests := []struct {
		rule   string
		values []float64
		want   float64
	}{
		{"the middle one of an odd number", []float64{9, 1, 5}, 5},
		{"the mean of the middle two of an even number", []float64{9, 1, 5, 4}, 4.5},
		{"the only one", []float64{3}, 3},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			if got := median(tt.values); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestPercentile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	tests := []struct {
		rule   string
		sorted []time.Duration
		p      int
		want   time.Duration
	}{
		{"half are at most the 50th", hundred, 50, 50},
		{"99 of 100 are at most the 99th", hundred, 99, 99},
		{"a percentile between two values is the greater", hundred[:10], 99, 10},
		{"of one value it is that value", hundred[:1], 50, 1},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			if got := percentile(tt.sorted, tt.p); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestSummarize(t *testing.T) {
	round := func(requests int, cpu time.Duration) slot {
		return slot{
			requests: requests, elapsed: time.Second, cpu: cpu,
			commands: map[string]int64{"get": int64(requests), "ping": int64(2 * requests)},
		}
	}
	base := &result{slots: []slot{round(1000, time.Second), round(100, time.Second), round(400, time.Second)}}
	r := &result{slots: []slot{round(500, time.Second), round(100, time.Second), round(800, time.Second)}}
	sum := summarize(r, base)
	if sum.Rate != 500 {
		t.Errorf("rate %v, want the median of the rounds, 500", sum.Rate)
	}
	if sum.RateRatio != 1 {
		t.Errorf("ratio %v, want the median of the ratios of each round, 1", sum.RateRatio)
	}
	if sum.CPU != 2000 {
		t.Errorf("CPU %v µs per request, want 2000", sum.CPU)
	}
	if sum.Commands != 3 || sum.ByCommand["ping"] != 2 {
		t.Errorf("%v commands per request, %v of them ping; want 3 and 2", sum.Commands, sum.ByCommand["ping"])
	}
}
