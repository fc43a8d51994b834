package main

import (
	"math"
	"slices"
	"time"
)

func (s slot) rate() float64 { return float64(s.requests) / s.elapsed.Seconds() }
func (s slot) cpuPerRequest() float64 {
	return float64(s.cpu.Nanoseconds()) / 1e3 / float64(s.requests)
}
func (s slot) busy() float64   { return s.cpu.Seconds() / s.elapsed.Seconds() }
func (s slot) allocs() float64 { return float64(s.mallocs) / float64(s.requests) }

// A summary is one row of a table. The ratios are to the base of the workload,
// taken round by round, so that what slows down a whole round cancels out.
type summary struct {
	Workload  string `json:"workload"`
	Contender string `json:"contender"`
	About     string `json:"about"`

	Rate      float64 `json:"requests_per_second"` // the median of the rounds, like all that follow
	RateRatio float64 `json:"requests_per_second_ratio"`
	CPU       float64 `json:"server_cpu_us_per_request"`
	CPURatio  float64 `json:"server_cpu_ratio"`
	Allocs    float64 `json:"allocs_per_request"`
	AllocsRat float64 `json:"allocs_ratio"`
	Busy      float64 `json:"server_core_busy"`

	P50 float64 `json:"p50_ms"` // of the requests of all rounds
	P99 float64 `json:"p99_ms"`

	Commands  float64            `json:"redis_commands_per_request"`
	ByCommand map[string]float64 `json:"redis_commands"`

	Requests  int `json:"requests"`
	Failed    int `json:"failed"`
	Lost      int `json:"lost_updates"`
	Contested int `json:"contested_updates"`
	LostThere int `json:"contested_updates_lost"`
}

func summarize(r, base *result) summary {
	sum := summary{
		Workload: r.workload.name, Contender: r.contender.name, About: r.contender.about,
		Rate: medianOf(r, slot.rate), RateRatio: medianRatio(r, base, slot.rate),
		CPU: medianOf(r, slot.cpuPerRequest), CPURatio: medianRatio(r, base, slot.cpuPerRequest),
		Allocs: medianOf(r, slot.allocs), AllocsRat: medianRatio(r, base, slot.allocs),
		Busy:      medianOf(r, slot.busy),
		ByCommand: make(map[string]float64),
		Lost:      r.lost, Contested: r.contested, LostThere: r.lostThere,
	}
	var latencies []time.Duration
	for _, s := range r.slots {
		sum.Requests += s.requests
		sum.Failed += s.failed
		latencies = append(latencies, s.latencies...)
		for name, n := range s.commands {
			sum.ByCommand[name] += float64(n)
		}
	}
	for name := range sum.ByCommand {
		sum.ByCommand[name] /= float64(sum.Requests)
		sum.Commands += sum.ByCommand[name]
	}
	slices.Sort(latencies)
	sum.P50 = percentile(latencies, 50).Seconds() * 1e3
	sum.P99 = percentile(latencies, 99).Seconds() * 1e3
	return sum
}

func medianOf(r *result, of func(slot) float64) float64 {
	var values []float64
	for _, s := range r.slots {
		values = append(values, of(s))
	}
	return median(values)
}

func medianRatio(r, base *result, of func(slot) float64) float64 {
	var values []float64
	for round, s := range r.slots {
		values = append(values, of(s)/of(base.slots[round]))
	}
	return median(values)
}

func median(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	n := len(values)
	if n == 0 {
		return math.NaN()
	}
	return (values[(n-1)/2] + values[n/2]) / 2
}

// percentile returns the nearest-rank percentile of sorted values.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}
