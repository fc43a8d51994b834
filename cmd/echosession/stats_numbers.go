package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/bits"
	"slices"
	"strings"
	"time"
)

// A distribution counts values without keeping them. It has a histogram with the bounds that
// people read, and one that is fine enough for medians true to half a percent.
type distribution struct {
	kind   valueKind
	bounds []int64 // upper ends, exclusive; what is more has a bucket of its own
	counts []int   // one more than bounds
	fine   []int
	n      int
	max    int64
}

// A valueKind says what the numbers are.
type valueKind int

const (
	milliseconds valueKind = iota
	byteCount
	plainCount
)

func newDistribution(kind valueKind) *distribution {
	var bounds []int64
	switch kind {
	case milliseconds:
		for _, d := range []time.Duration{
			time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 6 * time.Hour, day, 7 * day, 30 * day, 90 * day, 365 * day,
		} {
			bounds = append(bounds, d.Milliseconds())
		}
	case byteCount:
		bounds = []int64{128, 256, 512, 1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20}
	case plainCount:
		bounds = []int64{2, 3, 6, 11, 51, 101, 1001}
	}
	return &distribution{kind: kind, bounds: bounds, counts: make([]int, len(bounds)+1)}
}

// add counts a value. One below zero, such as the age by a clock that is behind, counts as 0.
func (d *distribution) add(value int64) {
	value = max(0, value)
	place, _ := slices.BinarySearch(d.bounds, value+1)
	d.counts[place]++
	i := fineIndex(value)
	if i >= len(d.fine) {
		d.fine = append(d.fine, make([]int, i+1-len(d.fine))...)
	}
	d.fine[i]++
	d.n++
	d.max = max(d.max, value)
}

// fineIndex returns the fine bucket of a value: one for each value below 256, and then 128
// for each power of two.
func fineIndex(value int64) int {
	shift := max(0, bits.Len64(uint64(value))-8)
	return shift*128 + int(value>>shift)
}

// middleOf returns the value in the middle of a fine bucket.
func middleOf(index int) int64 {
	if index < 256 {
		return int64(index)
	}
	shift := index/128 - 1
	return int64(index-shift*128)<<shift + int64(1)<<shift/2
}

// quantile returns the value that a share of the values do not exceed.
func (d *distribution) quantile(share float64) int64 {
	rank := int(math.Ceil(share * float64(d.n)))
	for i, n := range d.fine {
		if rank -= n; rank <= 0 && n > 0 {
			return min(middleOf(i), d.max)
		}
	}
	return d.max
}

// show writes a value with its unit, in few characters.
func (k valueKind) show(value int64) string {
	switch k {
	case milliseconds:
		return shortTime((time.Duration(value) * time.Millisecond).Round(time.Second))
	case byteCount:
		return sizeOf(value)
	default:
		return grouped(value)
	}
}

// label names a bucket.
func (d *distribution) label(i int) string {
	if i == len(d.bounds) {
		if d.kind == plainCount {
			return grouped(d.bounds[i-1]) + " or more"
		}
		return d.kind.show(d.bounds[i-1]) + " or more"
	}
	if d.kind != plainCount {
		return "under " + d.kind.show(d.bounds[i])
	}
	first, last := int64(1), d.bounds[i]-1
	if i > 0 {
		first = d.bounds[i-1]
	}
	if first == last {
		return grouped(first)
	}
	return grouped(first) + " to " + grouped(last)
}

const histogramWidth = 40

// print writes the numbers, and a histogram from the first bucket with a value to the last.
func (d *distribution) print(w io.Writer, title string) {
	if d.n == 0 {
		fmt.Fprintf(w, "\n%s: not known of any session\n", title)
		return
	}
	show := d.kind.show
	fmt.Fprintf(w, "\n%s: %s; median %s, p90 %s, p99 %s, max %s\n", title, grouped(d.n),
		show(d.quantile(0.5)), show(d.quantile(0.9)), show(d.quantile(0.99)), show(d.max))
	first := slices.IndexFunc(d.counts, func(n int) bool { return n > 0 })
	last, most := first, slices.Max(d.counts)
	for i, n := range d.counts {
		if n > 0 {
			last = i
		}
	}
	for i := first; i <= last; i++ {
		n := d.counts[i]
		length := (n*histogramWidth + most - 1) / most // a bucket with a value has a mark
		line := fmt.Sprintf("  %-16s %11s %6s  %s", d.label(i), grouped(n), percent(n, d.n), strings.Repeat("#", length))
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
}

// percent writes a share: "12.5%".
func percent(part, whole int) string {
	if whole == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f%%", 100*float64(part)/float64(whole))
}

// MarshalJSON writes durations in seconds. A bucket has its upper end, which is not in it;
// the last one has none.
func (d *distribution) MarshalJSON() ([]byte, error) {
	type bucket struct {
		Below *float64 `json:"below,omitempty"`
		Count int      `json:"count"`
	}
	unit, scale := "sessions", 1.0
	switch d.kind {
	case milliseconds:
		unit, scale = "seconds", 1000
	case byteCount:
		unit = "bytes"
	}
	number := func(n int64) float64 { return float64(n) / scale }
	buckets := make([]bucket, len(d.counts))
	for i, n := range d.counts {
		buckets[i].Count = n
		if i < len(d.bounds) {
			below := number(d.bounds[i])
			buckets[i].Below = &below
		}
	}
	return json.Marshal(struct {
		Unit    string   `json:"unit"`
		Count   int      `json:"count"`
		Median  float64  `json:"median"`
		P90     float64  `json:"p90"`
		P99     float64  `json:"p99"`
		Max     float64  `json:"max"`
		Buckets []bucket `json:"buckets"`
	}{unit, d.n, number(d.quantile(0.5)), number(d.quantile(0.9)), number(d.quantile(0.99)), number(d.max), buckets})
}
