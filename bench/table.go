package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// writeTables writes a Markdown table for each workload.
func writeTables(out io.Writer, p plan, sums []summary) {
	for _, w := range p.workloads {
		fmt.Fprintf(out, "\n%s: %s\n\n", w.name, w.about)
		rows := [][]string{{
			"", "req/s", "× " + w.base, "p50 ms", "p99 ms", "CPU µs", "× " + w.base,
			"core busy", "Redis cmds", "allocs", "× " + w.base,
		}}
		if w.name == "write" {
			rows[0] = append(rows[0], "lost", "lost when contested")
		}
		var notes []string
		for _, s := range sums {
			if s.Workload != w.name {
				continue
			}
			row := []string{
				s.Contender,
				fmt.Sprintf("%.0f", s.Rate), fmt.Sprintf("%.2f", s.RateRatio),
				fmt.Sprintf("%.2f", s.P50), fmt.Sprintf("%.2f", s.P99),
				fmt.Sprintf("%.1f", s.CPU), fmt.Sprintf("%.2f", s.CPURatio),
				fmt.Sprintf("%.0f%%", 100*s.Busy), fmt.Sprintf("%.2f", s.Commands),
				fmt.Sprintf("%.0f", s.Allocs), fmt.Sprintf("%.2f", s.AllocsRat),
			}
			if w.name == "write" {
				row = append(row, fmt.Sprint(s.Lost), fmt.Sprintf("%d of %d", s.LostThere, s.Contested))
			}
			rows = append(rows, row)
			notes = append(notes, fmt.Sprintf("- %s: %s%s", s.Contender, s.About, commandNote(s)))
			if s.Failed > 0 {
				notes = append(notes, fmt.Sprintf("- %s: %d of %d requests failed or got a wrong answer", s.Contender, s.Failed, s.Requests))
			}
		}
		writeTable(out, rows)
		fmt.Fprintf(out, "\n%s\n", strings.Join(notes, "\n"))
	}
}

// commandNote names the Redis commands that are not just the odd one.
func commandNote(s summary) string {
	var cmds []string
	for _, name := range slices.Sorted(maps.Keys(s.ByCommand)) {
		if n := s.ByCommand[name]; n >= 0.005 {
			cmds = append(cmds, fmt.Sprintf("%s %.2f", name, n))
		}
	}
	if len(cmds) == 0 {
		return ""
	}
	return " (" + strings.Join(cmds, ", ") + ")"
}

// writeTable writes Markdown that is aligned as plain text too: the first column
// to the left, the others to the right.
func writeTable(out io.Writer, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell), 3)
		}
	}
	for i, row := range rows {
		for j, cell := range row {
			pad := strings.Repeat(" ", widths[j]-utf8.RuneCountInString(cell))
			if j == 0 {
				fmt.Fprintf(out, "| %s%s |", cell, pad)
			} else {
				fmt.Fprintf(out, " %s%s |", pad, cell)
			}
		}
		fmt.Fprintln(out)
		if i == 0 {
			fmt.Fprintf(out, "| %s |", strings.Repeat("-", widths[0]))
			for _, width := range widths[1:] {
				fmt.Fprintf(out, " %s: |", strings.Repeat("-", width-1))
			}
			fmt.Fprintln(out)
		}
	}
}
