package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"
)

// A clock is moved by hand.
type clock struct{ time.Time }

func (c *clock) now() time.Time { return c.Time }

func TestProgressDrawsOneLine(t *testing.T) {
	var out bytes.Buffer
	c := &clock{time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
	columns := 100
	p := &progress{w: &out, width: func() int { return columns }, now: c.now, what: "keys", total: 2_000_000}
	drawn := func(want string) {
		t.Helper()
		if got := out.String(); got != want {
			t.Errorf("%q was drawn\nwant  %q", got, want)
		}
		out.Reset()
	}
	pad := func(n int) string { return strings.Repeat(" ", n) }

	p.update(0)
	drawn("\r  0%  [..............................]  0 of 2,000,000 keys")
	c.Time = c.Add(redrawEvery - 1)
	p.update(100_000)
	drawn("") // too soon
	c.Time = c.Add(1)
	p.update(100_000)
	drawn("\r  5%  [#.............................]  100,000 of 2,000,000 keys")
	c.Time = c.Add(9900 * time.Millisecond)
	p.update(1_000_000)
	drawn("\r 50%  [###############...............]  1,000,000 of 2,000,000 keys  100,000/s  10s left")

	// The terminal becomes narrow, and what does not fit is left out.
	columns = 60
	c.Time = c.Add(10 * time.Second)
	p.update(1_500_000)
	drawn("\r 75%  1,500,000 of 2,000,000 keys  75,000/s  7s left" + pad(59-52))
	columns = 40
	c.Time = c.Add(time.Second)
	p.update(1_500_000)
	drawn("\r 75%  7s left" + pad(39-13))
	columns = 5
	c.Time = c.Add(time.Second)
	p.update(1_500_000)
	drawn("\r 75%")
	columns = 3
	c.Time = c.Add(time.Second)
	p.update(1_500_000)
	drawn("\r 7")

	// Keys have come meanwhile: it is not over.
	columns = 70
	c.Time = c.Add(77 * time.Second)
	p.update(3_000_000)
	drawn("\r 99%  3,000,000 of 3,000,000 keys  30,000/s  0s left")

	p.clear()
	drawn("\r" + pad(69) + "\r")
	p.clear()
	drawn("") // nothing is there
	p.update(3_000_000)
	drawn("\r 99%  3,000,000 of 3,000,000 keys  30,000/s  0s left")
}

func TestProgressWithoutATotal(t *testing.T) {
	var out bytes.Buffer
	c := &clock{time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
	p := &progress{w: &out, width: func() int { return 40 }, now: c.now, what: "keys"}
	p.update(500)
	c.Time = c.Add(2 * time.Second)
	p.update(12_500)
	if got, want := out.String(), "\r500 keys\r12,500 keys  6,250/s"; got != want {
		t.Errorf("%q was drawn, want %q", got, want)
	}
}

func TestProgressIsForTerminals(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if p := newProgress(file, "keys", 1); p != nil {
		t.Error("a file has a progress bar")
	}
	p := newProgress(new(bytes.Buffer), "keys", 1)
	if p != nil {
		t.Error("a buffer has a progress bar")
	}
	p.update(1)
	p.clear()
}
