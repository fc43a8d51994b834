package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// redrawEvery bounds how often a progress bar is drawn: a slow terminal slows nothing down.
	redrawEvery = 100 * time.Millisecond

	barWidth = 30
)

// A progress is a bar on a terminal that says how far a long walk has come. It keeps to one
// line, and leaves that line empty. A nil progress draws nothing. Its methods are for one
// goroutine at a time.
type progress struct {
	w     io.Writer
	width func() int       // of the terminal: it may change
	now   func() time.Time // the clock
	what  string           // what is counted, in the plural
	total int              // how many there are at the end, as far as is known; 0: not known

	began time.Time
	drawn time.Time
	shown int // how many columns of the line are drawn on
}

// newProgress returns a bar for w, or nil where w is no terminal.
func newProgress(w io.Writer, what string, total int) *progress {
	width := terminalWidth(w)
	if width == nil {
		return nil
	}
	return &progress{w: w, width: width, now: time.Now, what: what, total: total}
}

// update says how many are done. It draws the bar when it is time.
func (p *progress) update(done int) {
	if p == nil {
		return
	}
	now := p.now()
	if p.began.IsZero() {
		p.began = now
	}
	if !p.drawn.IsZero() && now.Sub(p.drawn) < redrawEvery {
		return
	}
	p.drawn = now
	p.draw(p.line(done, now.Sub(p.began)))
}

// clear leaves an empty line with the cursor at its beginning. A later update draws the bar
// again.
func (p *progress) clear() {
	if p == nil || p.shown == 0 {
		return
	}
	// Behind the bar stands "^C", which a terminal writes by itself.
	_, _ = io.WriteString(p.w, "\r"+strings.Repeat(" ", max(0, p.width()-1))+"\r")
	p.shown, p.drawn = 0, time.Time{}
}

// draw puts a line in the place of the one before. Spaces wipe out what is left of that one:
// a terminal need know no sequence but the carriage return.
func (p *progress) draw(line string) {
	// A character in the last column may move the cursor to the next line.
	columns := max(p.width()-1, 0)
	if utf8.RuneCountInString(line) > columns {
		line = string([]rune(line)[:columns])
	}
	length := utf8.RuneCountInString(line)
	wipe := max(0, min(p.shown, columns)-length)
	_, _ = io.WriteString(p.w, "\r"+line+strings.Repeat(" ", wipe))
	p.shown = length
}

// line returns what fits into the terminal: the parts of most use, and then the others.
func (p *progress) line(done int, elapsed time.Duration) string {
	count := grouped(done) + " " + p.what
	rate := 0.0
	if elapsed > 0 {
		rate = float64(done) / elapsed.Seconds()
	}
	var speed string
	if elapsed >= time.Second {
		speed = "  " + grouped(int(rate)) + "/s"
	}
	columns := p.width() - 1
	if p.total <= 0 {
		return firstFit(columns, count+speed, count)
	}
	// Keys come and go meanwhile. Only the end of the walk is its end.
	share := min(0.99, float64(done)/float64(p.total))
	part := fmt.Sprintf("%3d%%", int(share*100))
	full := int(share * barWidth)
	bar := "  [" + strings.Repeat("#", full) + strings.Repeat(".", barWidth-full) + "]"
	counts := fmt.Sprintf("  %s of %s %s", grouped(done), grouped(max(done, p.total)), p.what)
	var left string
	if rate > 0 && speed != "" {
		seconds := float64(max(0, p.total-done)) / rate
		left = fmt.Sprintf("  %s left", shortTime(time.Duration(math.Round(min(seconds, maxLeft)))*time.Second))
	}
	return firstFit(columns, part+bar+counts+speed+left, part+counts+speed+left, part+counts+left, part+left, part)
}

// maxLeft is the most seconds that the bar says are left.
const maxLeft = 99 * 3600

// firstFit returns the first line that fits, or else the last one.
func firstFit(columns int, lines ...string) string {
	for _, line := range lines {
		if len(line) <= columns {
			return line
		}
	}
	return lines[len(lines)-1]
}
