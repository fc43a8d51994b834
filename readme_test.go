package echosession_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// trimLines returns a text's lines without their indentation, each with a line
// feed before and after it.
func trimLines(text string) string {
	var b strings.Builder
	b.WriteString("\n")
	for line := range strings.Lines(text) {
		b.WriteString(strings.TrimSpace(line) + "\n")
	}
	return b.String()
}

// Every block of Go code in the README is part of a program or of an Example, so
// it is compiled, and most of it is run.
func TestReadmeCodeIsCompiled(t *testing.T) {
	var sources []string
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		inExamples := strings.HasPrefix(path, "examples"+string(filepath.Separator))
		if strings.HasSuffix(path, "example_test.go") || inExamples && strings.HasSuffix(path, ".go") {
			sources = append(sources, trimLines(readFile(t, path)))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```go\n(.*?)^```").FindAllStringSubmatch(readFile(t, "README.md"), -1)
	if len(blocks) < 10 {
		t.Fatalf("the README has %d blocks of Go code", len(blocks))
	}
	for _, block := range blocks {
		code := trimLines(block[1])
		if !slices.ContainsFunc(sources, func(source string) bool { return strings.Contains(source, code) }) {
			t.Errorf("no example has this:\n%s", block[1])
		}
	}
}

func TestReadmeLinksLeadSomewhere(t *testing.T) {
	for _, file := range []string{"README.md", "CONTRIBUTING.md", "SECURITY.md"} {
		text := regexp.MustCompile("(?ms)^```.*?^```").ReplaceAllString(readFile(t, file), "")
		for _, link := range regexp.MustCompile(`\]\(([^):]+)\)`).FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(link[1]); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
}

// tableRows returns the cells of the README's table whose first heading is given.
func tableRows(t *testing.T, heading string) [][]string {
	t.Helper()
	_, table, ok := strings.Cut(readFile(t, "README.md"), "\n| "+heading+" |")
	if !ok {
		t.Fatalf("the README has no table of %ss", heading)
	}
	table, _, _ = strings.Cut(table, "\n\n")
	var rows [][]string
	for _, line := range strings.Split(table, "\n")[2:] {
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i, cell := range cells {
			cells[i] = strings.TrimSpace(cell)
		}
		rows = append(rows, cells)
	}
	return rows
}

func TestReadmeConfigurationTable(t *testing.T) {
	m := newManager[User](t, echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret})
	effective := reflect.ValueOf(m).Elem().FieldByName("engine").Elem().FieldByName("cfg")

	rows := tableRows(t, "Field")
	var names []string
	for _, row := range rows {
		names = append(names, strings.Trim(row[0], "`"))
	}
	var fields []string
	for field := range reflect.TypeFor[echosession.Config]().Fields() {
		fields = append(fields, field.Name)
	}
	if !slices.Equal(names, fields) {
		t.Fatalf("the table has the fields\n%q, Config has\n%q", names, fields)
	}

	compared := 0
	for i, row := range rows {
		want := ""
		switch v := effective.Field(i); v.Kind() {
		case reflect.String, reflect.Bool:
			want = fmt.Sprintf("%#v", v)
		case reflect.Int:
			want = fmt.Sprint(v)
			if names[i] == "MaxRecordSize" {
				want = fmt.Sprintf("%d KiB", v.Int()/1024)
			}
		case reflect.Int64:
			want = time.Duration(v.Int()).String()
			want = regexp.MustCompile(`([hm])0[ms].*$|^0s$`).ReplaceAllStringFunc(want, func(s string) string { return s[:1] })
		default:
			if row[1] == "" {
				t.Errorf("%s: the table names no default", names[i])
			}
			continue
		}
		if names[i] == "Algorithm" {
			want = fmt.Sprintf("%q", algorithmOf(t, m))
		}
		if row[1] != "`"+want+"`" {
			t.Errorf("%s: the default is %s in the table and %s in the code", names[i], row[1], want)
		}
		compared++
	}
	if compared < 15 {
		t.Errorf("only %d defaults were compared", compared)
	}
}

// algorithmOf returns the algorithm of the tokens that m issues.
func algorithmOf(t *testing.T, m *echosession.Manager[User]) string {
	t.Helper()
	sess, err := m.Create(t.Context(), User{})
	if err != nil {
		t.Fatal(err)
	}
	segment, _, _ := strings.Cut(sess.Token(), ".")
	var header struct{ Alg string }
	b, err := base64.RawURLEncoding.DecodeString(segment)
	if err == nil {
		err = json.Unmarshal(b, &header)
	}
	if err != nil {
		t.Fatal(err)
	}
	return header.Alg
}

// The table has every sentinel of errors.go but ErrNotFound, which users never
// see, with the answer that the middleware gives.
func TestReadmeErrorsTable(t *testing.T) {
	sentinels := map[string]error{
		"ErrNoToken":          echosession.ErrNoToken,
		"ErrAmbiguousToken":   echosession.ErrAmbiguousToken,
		"ErrInvalidToken":     echosession.ErrInvalidToken,
		"ErrSessionGone":      echosession.ErrSessionGone,
		"ErrCorrupt":          echosession.ErrCorrupt,
		"ErrCrossOrigin":      echosession.ErrCrossOrigin,
		"ErrNoSession":        echosession.ErrNoSession,
		"ErrNotFresh":         echosession.ErrNotFresh,
		"ErrConflict":         echosession.ErrConflict,
		"ErrReservedClaim":    echosession.ErrReservedClaim,
		"ErrTooLarge":         echosession.ErrTooLarge,
		"ErrStoreUnavailable": echosession.ErrStoreUnavailable,
		"ErrIndeterminate":    echosession.ErrIndeterminate,
		"ErrNotReplicated":    echosession.ErrNotReplicated,
		"ErrNotInstalled":     echosession.ErrNotInstalled,
		"ErrTypeMismatch":     echosession.ErrTypeMismatch,
		"ErrRequestOver":      echosession.ErrRequestOver,
	}
	file, err := parser.ParseFile(token.NewFileSet(), "errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var declared []string
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && v.Names[0].IsExported() && v.Names[0].Name != "ErrNotFound" {
			declared = append(declared, v.Names[0].Name)
		}
		return true
	})

	m := newManager[User](t, echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret})
	var listed []string
	for _, row := range tableRows(t, "Error") {
		name := strings.Trim(row[0], "`")
		listed = append(listed, name)
		sentinel, ok := sentinels[name]
		if !ok {
			t.Errorf("the table has %s, which is no sentinel", name)
			continue
		}
		e := echo.New()
		e.Use(m.Middleware())
		e.GET("/", func(echo.Context) error { return sentinel })
		rec := httptest.NewRecorder()
		e.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/", nil))

		if got := fmt.Sprint(rec.Code); got != row[2] {
			t.Errorf("%s: status %s in the table, %s in the code", name, row[2], got)
		}
		challenge := rec.Header().Get("WWW-Authenticate")
		want := strings.Trim(row[3], "`")
		switch {
		case want == "–" && challenge != "",
			want == "Bearer" && (!strings.HasPrefix(challenge, "Bearer ") || strings.Contains(challenge, "error")),
			want != "–" && !strings.Contains(challenge, want):
			t.Errorf("%s: WWW-Authenticate %s in the table, %q in the code", name, want, challenge)
		}
	}
	slices.Sort(declared)
	slices.Sort(listed)
	if !slices.Equal(listed, declared) {
		t.Errorf("the table has\n%q, errors.go has\n%q", listed, declared)
	}
}
