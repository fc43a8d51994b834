package otelsession_test

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/echosession/echosession"
)

// rootDir returns where the sources of echosession are with which this module is built.
func rootDir(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/echosession/echosession").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func readRoot(t *testing.T, path ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(append([]string{rootDir(t)}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func parseRoot(t *testing.T, file string) *ast.File {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, readRoot(t, file), parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// kinds returns the comment of every EventKind of event.go.
func kinds(t *testing.T) map[echosession.EventKind]string {
	t.Helper()
	comments := make(map[echosession.EventKind]string)
	ast.Inspect(parseRoot(t, "event.go"), func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		if name, ok := spec.Type.(*ast.Ident); !ok || name.Name != "EventKind" {
			return true
		}
		value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		comments[echosession.EventKind(value)] = spec.Doc.Text()
		return true
	})
	if len(comments) < 22 {
		t.Fatalf("event.go has only %d kinds", len(comments))
	}
	return comments
}

// wordsIn returns what a comment has in quotation marks.
func wordsIn(comment string) []string {
	var words []string
	for _, m := range regexp.MustCompile(`"([a-z_ ]+)"`).FindAllStringSubmatch(comment, -1) {
		words = append(words, m[1])
	}
	return words
}

// No kind of events is left out.
func TestEveryKindIsCounted(t *testing.T) {
	for kind := range kinds(t) {
		o := observe(t, echosession.Config{})
		before := o.values(t)
		o.raise(t, echosession.Event{Kind: kind, Reason: "a word", Count: 1})
		if len(changes(before, o.values(t))) == 0 {
			t.Errorf("nothing counts %s", kind)
		}
	}
}

// A reason that event.go lists is the attribute of a series of its own.
func TestReasonsOfEventGo(t *testing.T) {
	renamed := map[string]string{"one": "revoked", "subject": "revoked_subject"}
	checked := 0
	for kind, comment := range kinds(t) {
		for _, word := range wordsIn(comment) {
			o := observe(t, echosession.Config{})
			before := o.values(t)
			o.raise(t, echosession.Event{Kind: kind, Reason: word, Count: 1})
			want := word
			if kind == echosession.EventRevoked {
				want = renamed[word]
			}
			checked++
			found := false
			for s := range changes(before, o.values(t)) {
				found = found || strings.HasSuffix(s, "="+want+"}")
			}
			if !found {
				t.Errorf("%s with reason %q changes %v", kind, word, changes(before, o.values(t)))
			}
		}
	}
	if checked < 60 {
		t.Errorf("only %d reasons were checked", checked)
	}
}

// A reason that event.go does not list has no series: it can never count.
func TestNoReasonsBesideThoseOfEventGo(t *testing.T) {
	comments := kinds(t)
	own := []string{"other"}
	for counter, from := range map[string][]string{
		"echosession.sessions.created":   append(own, wordsIn(comments[echosession.EventCreated])...),
		"echosession.sessions.ended":     append(own, append(wordsIn(comments[echosession.EventDestroyed]), "revoked", "revoked_subject", "evicted", "expired")...),
		"echosession.requests.opened":    append(own, wordsIn(comments[echosession.EventOpened])...),
		"echosession.requests.refused":   append(own, wordsIn(comments[echosession.EventRefused])...),
		"echosession.old_keys.used":      append(own, wordsIn(comments[echosession.EventOldKey])...),
		"echosession.records.unreadable": append(own, wordsIn(comments[echosession.EventUnreadable])...),
		"echosession.watches.ended":      append(own, wordsIn(comments[echosession.EventWatchEnded])...),
	} {
		n := 0
		for s := range observe(t, echosession.Config{}).values(t) {
			reason, ok := strings.CutPrefix(s, counter+"{echosession.reason=")
			if !ok {
				continue
			}
			n++
			if !slices.Contains(from, strings.TrimSuffix(reason, "}")) {
				t.Errorf("%s: event.go does not list the reason", s)
			}
		}
		if n != len(from) {
			t.Errorf("%s has %d reasons, and event.go %d", counter, n, len(from))
		}
	}
}

// Every cause for which echosession has an advice is a word of its own.
func TestCausesOfErrorsGo(t *testing.T) {
	text := readRoot(t, "errors.go")
	_, advices, _ := strings.Cut(text, "\nvar advices = ")
	advices, _, _ = strings.Cut(advices, "\n}\n")
	names := make(map[string]string) // of constants
	for _, m := range regexp.MustCompile(`(?m)^\t(\w+) += ("[a-zA-Z: ]+")$`).FindAllStringSubmatch(text, -1) {
		names[m[1]] = m[2]
	}
	var causes []string
	for _, m := range regexp.MustCompile(`(?m)^\t\{(.+?), "`).FindAllStringSubmatch(advices, -1) {
		cause := ""
		for part := range strings.SplitSeq(m[1], " + ") {
			literal, ok := names[part]
			if !ok {
				literal = part
			}
			value, err := strconv.Unquote(literal)
			if err != nil {
				t.Fatalf("%s in %s: %v", part, m[1], err)
			}
			cause += value
		}
		causes = append(causes, strings.TrimSuffix(cause, ": "))
	}
	if len(causes) < 18 {
		t.Fatalf("only %q were found", causes)
	}
	for _, cause := range causes {
		o := observe(t, echosession.Config{})
		before := o.values(t)
		o.raise(t, echosession.Event{Kind: echosession.EventStoreDown, Reason: cause})
		if s := "echosession.store.outages{echosession.reason=" + cause + "}"; changes(before, o.values(t))[s] == "" {
			t.Errorf("%q changes %v", cause, changes(before, o.values(t)))
		}
	}
}

// Every error that event.go names for a call of the store has an error.type of its own.
func TestErrorTypesOfEventGo(t *testing.T) {
	errs := map[string]error{
		"ErrStoreUnavailable": echosession.ErrStoreUnavailable,
		"ErrIndeterminate":    echosession.ErrIndeterminate,
		"ErrNotReplicated":    echosession.ErrNotReplicated,
		"ErrConflict":         echosession.ErrConflict,
		"ErrNotFound":         echosession.ErrNotFound,
		"ErrRenewed":          echosession.ErrRenewed,
		"ErrTooManySessions":  echosession.ErrTooManySessions,
		"ErrUnsupported":      echosession.ErrUnsupported,
		"context.Canceled":    context.Canceled,
	}
	named := regexp.MustCompile(`\[(Err\w+|context\.\w+)\]`).FindAllStringSubmatch(kinds(t)[echosession.EventStoreCall], -1)
	if len(named) < 7 {
		t.Fatalf("event.go names %q", named)
	}
	types := make(map[string]bool)
	for _, m := range named {
		err, ok := errs[m[1]]
		if !ok {
			t.Errorf("%s is not known", m[1])
			continue
		}
		o := observe(t, echosession.Config{})
		before := o.values(t)
		o.raise(t, echosession.Event{Kind: echosession.EventStoreCall, Reason: "load", Err: err})
		for s := range changes(before, o.values(t)) {
			if types[s] || strings.Contains(s, "_OTHER") || !strings.Contains(s, "error.type=") {
				t.Errorf("%s: %s is not an error.type of its own", m[1], s)
			}
			types[s] = true
		}
	}
	if len(types) != len(named) {
		t.Errorf("%d errors have the types %v", len(named), types)
	}
}

// The table in docs/metrics.md lists the instruments, with unit and description.
func TestDocumentListsTheInstruments(t *testing.T) {
	_, table, _ := strings.Cut(readRoot(t, "docs", "metrics.md"), "\n| name | unit |")
	table, _, _ = strings.Cut(table, "\n\n")
	table += "\n"
	o := observe(t, echosession.Config{})
	o.raiseAll(t)
	listed := 0
	for name, m := range o.metrics(t) {
		listed++
		row := "| `" + name + "` | " + m.Unit + " | " + m.Description + " |\n"
		if !strings.Contains(table, row) {
			t.Errorf("docs/metrics.md has no row\n%s", row)
		}
	}
	if rows := strings.Count(table, "\n| `echosession."); rows != listed {
		t.Errorf("docs/metrics.md has %d rows for %d instruments", rows, listed)
	}
}
