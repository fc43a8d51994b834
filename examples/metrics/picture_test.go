package main

import (
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"html"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
)

var pictureFile = flag.String("picture", "", "`file` for a picture of the dashboard, after a load of two minutes")

// TestPicture draws the dashboard from real data: a service under load, with a real Redis.
// The picture of the documents is made with -picture; without it the load is short.
func TestPicture(t *testing.T) {
	lasts, interval, file := 5*time.Second, 250*time.Millisecond, filepath.Join(t.TempDir(), "grafana.svg")
	if *pictureFile != "" {
		lasts, interval, file = 2*time.Minute, time.Second, *pictureFile
	}
	// Redis stands still for 8 % of the time: that is longer than a call may take.
	l, h := newLoad(t, min(lasts/50, 500*time.Millisecond)), newHistory()
	var start, end time.Time
	l.run(t, lasts, interval, func(now time.Time) {
		h.scrape(t, l.registry, now)
		if end = now; start.IsZero() {
			start = now
		}
	})
	p := &painter{t: t, history: h, start: start, end: end, step: interval}
	text := p.draw(readDashboard(t))
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if len(text) > 150_000 {
		t.Errorf("the picture has %d bytes", len(text))
	}
	for _, word := range []string{"signature", "unavailable", "stale copy served", "created: guest", "99 %"} {
		if !strings.Contains(text, word) {
			t.Errorf("the picture does not show %q", word)
		}
	}
	if strings.Contains(text, `d="L`) || strings.Count(text, `fill="none"`) < 20 {
		t.Error("a curve does not begin, or few are there")
	}
	for decoder := xml.NewDecoder(strings.NewReader(text)); ; {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// A painter draws panels as SVG, in the colours of Grafana.
type painter struct {
	t          *testing.T
	history    *history
	start, end time.Time
	step       time.Duration
	out        strings.Builder
}

const (
	cellWidth, cellHeight = 52, 27
	gap                   = 4
	textColor, dimColor   = "#ccccdc", "#8e8e99"
)

var palette = []string{"#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0", "#37872d", "#fade2a"}

var colors = map[string]string{"green": "#299c46", "orange": "#e58a1f", "red": "#d44a3a"}

func (p *painter) printf(format string, args ...any) { fmt.Fprintf(&p.out, format+"\n", args...) }

func (p *painter) text(x, y float64, size int, color, anchor, text string) {
	p.printf(`<text x="%.0f" y="%.0f" font-size="%d" fill="%s" text-anchor="%s">%s</text>`, x, y, size, color, anchor, html.EscapeString(text))
}

func (p *painter) draw(d dashboard) string {
	height := 0
	for _, panel := range d.Panels {
		height = max(height, (panel.GridPos.Y+panel.GridPos.H)*cellHeight)
	}
	width := 24*cellWidth + gap
	p.printf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" font-family="Inter, Helvetica, Arial, sans-serif">`, width, height+gap)
	p.printf(`<rect width="%d" height="%d" fill="#111217"/>`, width, height+gap)
	for _, panel := range d.Panels {
		g := panel.GridPos
		b := box{float64(g.X*cellWidth + gap), float64(g.Y*cellHeight + gap), float64(g.W*cellWidth - gap), float64(g.H*cellHeight - gap)}
		if panel.Type == "stat" {
			p.stat(panel, b)
		} else {
			p.chart(panel, b)
		}
	}
	p.printf("</svg>")
	return p.out.String()
}

type box struct{ x, y, w, h float64 }

// A line is a series of a panel, with its name.
type line struct {
	name   string
	points []promql.FPoint
}

func (p *painter) lines(panel panel) (lines []line) {
	window := fmt.Sprintf("%dms", 5*p.step.Milliseconds())
	for _, target := range panel.Targets {
		for _, series := range p.history.query(p.t, fill(target.Expr, window), p.start, p.end, p.step) {
			lines = append(lines, line{legend(target.LegendFormat, series.Metric), series.Floats})
		}
	}
	return lines
}

func (p *painter) stat(panel panel, b box) {
	lines := p.lines(panel)
	shown, color := "No data", colors["green"]
	if len(lines) > 0 && len(lines[0].points) > 0 {
		defaults := panel.FieldConfig.Defaults
		last := lines[0].points[len(lines[0].points)-1].F
		for _, step := range defaults.Thresholds.Steps {
			if step.Value == nil || last >= *step.Value {
				color = colors[step.Color]
			}
		}
		shown = inUnit(last, defaults.Unit, defaults.Decimals)
		for _, m := range defaults.Mappings {
			if mapped, ok := m.Options[fmt.Sprint(last)]; ok {
				shown = mapped.Text
			}
		}
	}
	p.printf(`<rect x="%.0f" y="%.0f" width="%.0f" height="%.0f" rx="2" fill="%s"/>`, b.x, b.y, b.w, b.h, color)
	p.text(b.x+8, b.y+18, 13, "#ffffff", "start", panel.Title)
	p.text(b.x+b.w/2, b.y+b.h/2+22, 32, "#ffffff", "middle", shown)
}

func (p *painter) chart(panel panel, b box) {
	lines := p.lines(panel)
	p.printf(`<rect x="%.0f" y="%.0f" width="%.0f" height="%.0f" rx="2" fill="#181b1f" stroke="#2c2f36"/>`, b.x, b.y, b.w, b.h)
	p.text(b.x+8, b.y+18, 13, textColor, "start", panel.Title)
	rows := p.legends(lines, b)
	plot := box{b.x + 74, b.y + 32, b.w - 96, b.h - 54 - 16*float64(rows)}
	top := niceTop(lines)
	y := func(v float64) float64 { return plot.y + plot.h - plot.h*math.Min(v, top)/top }
	x := func(t time.Time) float64 { return plot.x + plot.w*float64(t.Sub(p.start))/float64(p.end.Sub(p.start)) }
	for i := range 5 {
		v := top * float64(i) / 4
		p.printf(`<path d="M%.0f %.0fh%.0f" stroke="#2c2f36"/>`, plot.x, y(v), plot.w)
		p.text(plot.x-6, y(v)+4, 10, dimColor, "end", inUnit(v, panel.FieldConfig.Defaults.Unit, nil))
	}
	for i := range 5 {
		at := p.start.Add(p.end.Sub(p.start) * time.Duration(i) / 4)
		p.text(x(at), plot.y+plot.h+14, 10, dimColor, "middle", fmt.Sprintf("%.0f s", at.Sub(p.start).Seconds()))
	}
	for _, step := range panel.FieldConfig.Defaults.Thresholds.Steps {
		if step.Value != nil && *step.Value <= top {
			p.printf(`<path d="M%.0f %.0fh%.0f" stroke="%s" stroke-dasharray="6 4"/>`, plot.x, y(*step.Value), plot.w, colors[step.Color])
		}
	}
	for i, line := range lines {
		p.curve(line, palette[i%len(palette)], x, y)
	}
}

// curve draws a line, with a gap where there is no value.
func (p *painter) curve(l line, color string, x func(time.Time) float64, y func(float64) float64) {
	var d strings.Builder
	last := int64(0)
	for _, point := range l.points {
		if math.IsNaN(point.F) {
			continue
		}
		move := "L"
		if point.T-last > 3*p.step.Milliseconds()/2 {
			move = "M"
		}
		last = point.T
		at := time.UnixMilli(point.T)
		fmt.Fprintf(&d, "%s%.0f %.1f", move, x(at), y(point.F))
		if move == "M" {
			d.WriteString("h1") // a point alone is seen
		}
	}
	p.printf(`<path d="%s" fill="none" stroke="%s" stroke-width="1.5"/>`, d.String(), color)
}

// legends writes the names of lines below a panel, and returns how many rows they take.
func (p *painter) legends(lines []line, b box) (rows int) {
	type place struct{ row, x float64 }
	var places []place
	at := place{0, b.x + 10}
	for _, l := range lines {
		width := 26 + 6.1*float64(len(l.name))
		if at.x+width > b.x+b.w && at.x > b.x+10 {
			at = place{at.row + 1, b.x + 10}
		}
		places = append(places, at)
		at.x += width
	}
	for i, l := range lines {
		y := b.y + b.h - 8 - 16*(at.row-places[i].row)
		p.printf(`<path d="M%.0f %.0fh12" stroke="%s" stroke-width="3"/>`, places[i].x, y-4, palette[i%len(palette)])
		p.text(places[i].x+16, y, 11, textColor, "start", l.name)
	}
	return int(at.row) + 1
}

// niceTop returns a round value that is not below any of the lines.
func niceTop(lines []line) float64 {
	most := 0.
	for _, l := range lines {
		for _, point := range l.points {
			if point.F > most { // not NaN
				most = point.F
			}
		}
	}
	if most == 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(most)))
	for _, nice := range []float64{1, 1.2, 1.6, 2, 3, 4, 6, 8} {
		if most <= nice*power {
			return nice * power
		}
	}
	return 10 * power
}

// inUnit writes a value as Grafana does with a unit.
func inUnit(v float64, unit string, decimals *int) string {
	number := func(v float64) string {
		if decimals != nil {
			return strconv.FormatFloat(v, 'f', *decimals, 64)
		}
		if v >= 1000 {
			return strconv.FormatFloat(v/1000, 'g', 3, 64) + " K"
		}
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	switch unit {
	case "s":
		switch {
		case v == 0 || v >= 1:
			return number(v) + " s"
		case v >= 1e-3:
			return number(v*1e3) + " ms"
		}
		return number(v*1e6) + " µs"
	case "percentunit":
		return number(v*100) + "%"
	case "reqps":
		return number(v) + " req/s"
	case "ops":
		return number(v) + " ops/s"
	}
	return number(v)
}

func TestInUnit(t *testing.T) {
	one := 1
	for _, tt := range []struct {
		value    float64
		unit     string
		decimals *int
		want     string
	}{
		{0, "none", nil, "0"},
		{12.3456, "reqps", nil, "12.3 req/s"},
		{1500, "ops", nil, "1.5 K ops/s"},
		{.25, "percentunit", &one, "25.0%"},
		{.00025, "s", nil, "250 µs"},
		{.25, "s", nil, "250 ms"},
		{2.5, "s", nil, "2.5 s"},
	} {
		if got := inUnit(tt.value, tt.unit, tt.decimals); got != tt.want {
			t.Errorf("%g in %s is %q, not %q", tt.value, tt.unit, got, tt.want)
		}
	}
}
