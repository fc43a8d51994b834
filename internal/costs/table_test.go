package costs_test

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

const costsFile = "../../docs/costs.md"

// The tables are between these lines of the file.
const (
	costsBegin = "<!-- from here on written by go test ./internal/costs -run TestCosts -update -->\n"
	costsEnd   = "<!-- to here -->\n"
)

type costKey struct{ operation, variant, client string }

// costTables are the tables of costs.
type costTables struct {
	goVersion string
	cells     map[costKey]cost
	file      string // what they were read from
}

func (t costTables) clone() costTables {
	t.cells = maps.Clone(t.cells)
	return t
}

// leastRuns and mostRuns are how often an operation is measured.
const leastRuns, mostRuns = 2, 40

// measure measures every operation through a client. allocations says that they
// can be compared.
func (t costTables) measure(tb *testing.T, client costClient, allocations bool) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for _, variant := range variants {
		runtime.GC()
		r := newRig(tb, client, variant)
		for _, op := range operations {
			if op.indexed && !r.indexed {
				continue
			}
			k := costKey{op.name, variant, client.name}
			c := t.measureOne(r, op, k, allocations)
			if !allocations {
				c.allocs = t.cells[k].allocs
			}
			t.cells[k] = c
			r.clean()
		}
	}
}

// measureOne returns the least that an operation allocates: now and then a map that
// grows or a pool that is empty comes on top. It looks until it has seen what the
// tables say, which is at once as a rule. What goes over the wire is always the same.
func (t costTables) measureOne(r *rig, op operation, k costKey, allocations bool) cost {
	r.run(op) // fills pools, and loads scripts
	measured := r.run(op)
	for n := 1; n < leastRuns || n < mostRuns && allocations && (*update || measured.allocs > t.cells[k].allocs); n++ {
		again := r.run(op)
		measured.allocs = min(measured.allocs, again.allocs)
		if again.wire() != measured.wire() {
			r.t.Errorf("%s, with %s, %s: one run costs %+v, another %+v", k.operation, k.variant, k.client, measured, again)
		}
	}
	return measured
}

// wire is a cost without its allocations.
func (c cost) wire() cost {
	c.allocs = 0
	return c
}

// fields are the cells of a row that tell of the wire.
func (c cost) fields() []string {
	return []string{c.commands, strconv.Itoa(c.trips), strconv.Itoa(c.sent), strconv.Itoa(c.received)}
}

// eachRow calls f for every row that the first table can have. A row is left out
// when it is like the one of the same operation with base.
func eachRow(f func(operation, variant, base string)) {
	for _, op := range operations {
		base := variants[0]
		if op.indexed {
			base = "subject"
		}
		f(op.name, base, base)
		for _, variant := range variants {
			if variant != base && (!op.indexed || variant == "all three") {
				f(op.name, variant, base)
			}
		}
	}
}

var (
	wireHeads   = []string{"commands", "trips", "sent", "received"}
	costHeads   = slices.Concat([]string{"operation", "with"}, wireHeads, costClients)
	clientHeads = slices.Concat([]string{"operation", "with", "client"}, wireHeads)
)

// String returns the tables as Markdown.
func (t costTables) String() string {
	all, clients := [][]string{costHeads}, [][]string{clientHeads}
	eachRow(func(operation, variant, base string) {
		same := func(client string) bool {
			return t.cells[costKey{operation, variant, client}] == t.cells[costKey{operation, base, client}]
		}
		if variant != base && !slices.ContainsFunc(costClients, func(client string) bool { return !same(client) }) {
			return
		}
		usual := t.cells[costKey{operation, variant, plainClient}]
		row := append([]string{operation, variant}, usual.fields()...)
		for _, client := range costClients {
			c := t.cells[costKey{operation, variant, client}]
			row = append(row, strconv.Itoa(c.allocs))
			if client != "memory" && c.wire() != usual.wire() {
				clients = append(clients, append([]string{operation, variant, client}, c.fields()...))
			}
		}
		all = append(all, row)
	})
	return "\nAllocations with " + t.goVersion + ", on amd64 and arm64:\n\n" + markdown(all) +
		"\nWhere another client than the plain one sends something else:\n\n" + markdown(clients) + "\n"
}

// markdown returns a table. The columns of numbers are wider than they must be, so
// that a number that gets a digit more moves nothing.
func markdown(rows [][]string) string {
	const numberWidth = 6
	words := []string{"operation", "with", "client", "commands"}
	widths := make([]int, len(rows[0]))
	for i := range widths {
		widths[i] = numberWidth
		for _, row := range rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	var b strings.Builder
	for n, row := range rows {
		for i, text := range row {
			if slices.Contains(words, rows[0][i]) {
				fmt.Fprintf(&b, "| %-*s ", widths[i], text)
			} else {
				fmt.Fprintf(&b, "| %*s ", widths[i], text)
			}
		}
		b.WriteString("|\n")
		if n > 0 {
			continue
		}
		for i, head := range row {
			line := []byte(strings.Repeat("-", widths[i]))
			if !slices.Contains(words, head) {
				line[len(line)-1] = ':'
			}
			fmt.Fprintf(&b, "| %s ", line)
		}
		b.WriteString("|\n")
	}
	return b.String()
}

// readCosts reads the tables.
func readCosts(tb testing.TB) costTables {
	tb.Helper()
	b, err := os.ReadFile(costsFile)
	if err != nil {
		tb.Fatal(err)
	}
	t := costTables{cells: make(map[costKey]cost), file: string(b)}
	_, text, ok := strings.Cut(t.file, costsBegin)
	text, _, end := strings.Cut(text, costsEnd)
	if !ok || !end {
		tb.Fatalf("%s has not the lines between which the tables stand:\n%s%s", costsFile, costsBegin, costsEnd)
	}
	t.goVersion = regexp.MustCompile(`go\d+\.\d+`).FindString(text)

	rows := make(map[string][]string)
	for line := range strings.Lines(text) {
		cells := cellsOf(line)
		switch len(cells) {
		case len(costHeads):
			rows[strings.Join(cells[:2], "|")] = cells[2:]
		case len(clientHeads):
			rows[strings.Join(cells[:3], "|")] = cells[3:]
		}
	}
	eachRow(func(operation, variant, base string) {
		row, ok := rows[operation+"|"+variant]
		for i, client := range costClients {
			k := costKey{operation, variant, client}
			wire, other := rows[strings.Join([]string{operation, variant, client}, "|")]
			switch {
			case !ok: // left out, or missing
				t.cells[k] = t.cells[costKey{operation, base, client}]
			case other:
				t.cells[k] = parseCost(wire, row[len(wireHeads)+i])
			default:
				t.cells[k] = parseCost(row, row[len(wireHeads)+i])
			}
		}
	})
	return t
}

// parseCost reads a cost. What is no number is 0, and found to differ.
func parseCost(wire []string, allocs string) (c cost) {
	c.commands = wire[0]
	c.trips, _ = strconv.Atoi(wire[1])
	c.sent, _ = strconv.Atoi(wire[2])
	c.received, _ = strconv.Atoi(wire[3])
	c.allocs, _ = strconv.Atoi(allocs)
	return c
}

// cellsOf returns the cells of a table's line.
func cellsOf(line string) []string {
	cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	return cells
}

// text is the file with these tables in it.
func (t costTables) text() string {
	head, rest, _ := strings.Cut(t.file, costsBegin)
	_, tail, _ := strings.Cut(rest, costsEnd)
	return head + costsBegin + t.String() + costsEnd + tail
}

func (t costTables) write(tb testing.TB) {
	tb.Helper()
	if err := os.WriteFile(costsFile, []byte(t.text()), 0o666); err != nil {
		tb.Fatal(err)
	}
}

// compare fails tb when the file has other tables.
func (t costTables) compare(tb testing.TB) {
	tb.Helper()
	text := t.text()
	if text == t.file {
		return
	}
	tb.Errorf("costs differ from %s:\n%s\nIf that is meant: go test ./internal/costs -run TestCosts -update and say why in the commit.",
		costsFile, difference(t.file, text))
}

// difference returns the rows in which two texts differ, whatever the widths of
// columns.
func difference(want, got string) string {
	rows := func(text string) (order []string, byKey map[string]string) {
		byKey = make(map[string]string)
		for line := range strings.Lines(text) {
			cells := cellsOf(line)
			key := strings.TrimRight(line, "\n")
			switch {
			case strings.HasPrefix(cells[0], "---"):
				continue
			case len(cells) == len(costHeads):
				key = strings.Join(cells[:2], " | ")
			case len(cells) == len(clientHeads):
				key = strings.Join(cells[:3], " | ")
			}
			order, byKey[key] = append(order, key), strings.Join(cells, " | ")
		}
		return order, byKey
	}
	wantOrder, wanted := rows(want)
	gotOrder, gotten := rows(got)
	var b strings.Builder
	for _, key := range wantOrder {
		if line, ok := gotten[key]; !ok {
			fmt.Fprintf(&b, "want %s\ngot  no such row\n", wanted[key])
		} else if line != wanted[key] {
			fmt.Fprintf(&b, "want %s\ngot  %s\n", wanted[key], line)
		}
	}
	for _, key := range gotOrder {
		if _, ok := wanted[key]; !ok {
			fmt.Fprintf(&b, "want no such row\ngot  %s\n", gotten[key])
		}
	}
	if b.Len() == 0 {
		return "only the layout differs"
	}
	return "     " + strings.Join(costHeads, " | ") + "\n" + b.String()
}
