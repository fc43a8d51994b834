package echosession_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
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

// goBlocks returns the blocks of Go code of a document.
func goBlocks(t *testing.T, document string) []string {
	t.Helper()
	var blocks []string
	for _, block := range regexp.MustCompile("(?ms)^```go\n(.*?)^```").FindAllStringSubmatch(readFile(t, document), -1) {
		blocks = append(blocks, block[1])
	}
	return blocks
}

func isProgram(code string) bool { return strings.HasPrefix(code, "package main\n") }

// walkExamples calls fn for each file with Examples, each file of the programs in
// examples/, and what proof/migrate/ and proof/node/ run against other libraries.
func walkExamples(t *testing.T, fn func(path, text string)) {
	t.Helper()
	walkFiles(t, ".go", func(path, text string) {
		isTest := strings.HasPrefix(filepath.Base(path), "example_") || strings.HasSuffix(path, "_example_test.go")
		if isTest || slices.ContainsFunc([]string{"examples/", "proof/migrate/", "proof/node/"}, func(folder string) bool {
			return strings.HasPrefix(filepath.ToSlash(path), folder)
		}) {
			fn(path, text)
		}
	})
}

// walkFiles visits the project's files whose names have a suffix, test data apart.
func walkFiles(t *testing.T, suffix string, fn func(path, text string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == "testdata" {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, suffix) {
			fn(path, readFile(t, path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Every block of Go code in a document compiles as it stands, or says what it
// needs: it is a whole program, or it is part of an Example or of a program in
// examples/, and its first line is a comment that names every variable, function
// and type that the block uses and does not declare.
func TestCodeInDocumentsCompiles(t *testing.T) {
	var sources []string
	packages := make(map[string]bool)
	walkExamples(t, func(_, text string) {
		sources = append(sources, trimLines(text))
		for _, path := range regexp.MustCompile(`(?m)^\t"(\S+)"$`).FindAllStringSubmatch(text, -1) {
			packages[packageName(path[1])] = true
		}
	})
	programs, fragments := 0, 0
	for _, document := range markdownFiles(t) {
		for i, code := range goBlocks(t, document) {
			t.Run(fmt.Sprint(document, " ", i+1), func(t *testing.T) {
				if formatted, err := format.Source([]byte(code)); err != nil || string(formatted) != code {
					t.Errorf("gofmt (%v) makes\n%s", err, formatted)
				}
				if isProgram(code) {
					programs++
					vetProgram(t, code)
					return
				}
				fragments++
				needs, rest, _ := strings.Cut(code, "\n")
				if !strings.HasPrefix(needs, "// ") {
					t.Fatalf("the first line does not say what the code needs:\n%s", code)
				}
				if rest := trimLines(rest); !slices.ContainsFunc(sources, func(source string) bool { return strings.Contains(source, rest) }) {
					t.Errorf("no example has this:\n%s", code)
				}
				for _, name := range undeclared(t, code) {
					if !packages[name] && !regexp.MustCompile(`\b`+name+`\b`).MatchString(needs) {
						t.Errorf("the first line does not say what %s is:\n%s", name, code)
					}
				}
			})
		}
	}
	if programs < 1 || fragments < 15 {
		t.Errorf("the documents have %d programs and %d other blocks of Go code", programs, fragments)
	}
}

// packageName guesses the name of a package from its import path.
func packageName(path string) string {
	return filepath.Base(regexp.MustCompile(`/v\d+$`).ReplaceAllString(path, ""))
}

// vetProgram compiles and vets a program as if it stood in this module.
func vetProgram(t *testing.T, code string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte(code), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "go", "vet", file).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s\n%s", err, out, code)
	}
}

// undeclared returns the names that a sequence of statements uses and does not
// declare.
func undeclared(t *testing.T, code string) []string {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "", "package p; func _() error {\n"+code+"}", parser.SkipObjectResolution)
	if err != nil {
		t.Fatalf("%v\n%s", err, code)
	}
	var names []string
	conf := types.Config{Error: func(err error) {
		if name, ok := strings.CutPrefix(err.(types.Error).Msg, "undefined: "); ok && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}}
	_, _ = conf.Check("p", fset, []*ast.File{file}, nil) // without the imports this fails: Error looks at how
	return names
}

func TestUndeclared(t *testing.T) {
	got := undeclared(t, `e.Use(echosession.Middleware[User](echosession.Config{Client: rdb}))
n, err := sess.Update(ctx, func(u *User) error { u.Name = name; return nil })
return err
`)
	if want := []string{"e", "echosession", "User", "rdb", "sess", "ctx", "name"}; !slices.Equal(sorted(got), sorted(want)) {
		t.Errorf("undeclared are %q, not %q", got, want)
	}
}

func sorted(names []string) []string { return slices.Sorted(slices.Values(names)) }

// What the README's program does, until it serves, is an Example with an output.
func TestReadmeProgramIsRun(t *testing.T) {
	programs := slices.DeleteFunc(goBlocks(t, "README.md"), func(code string) bool { return !isProgram(code) })
	if len(programs) != 1 {
		t.Fatalf("the README has %d programs", len(programs))
	}
	_, body, _ := strings.Cut(programs[0], "\nfunc main() {\n")
	body, _, ok := strings.Cut(body, "\n\tlog.Fatal(e.Start(")
	if !ok || !strings.Contains(trimLines(readFile(t, "example_test.go")), trimLines(body)) {
		t.Errorf("no Example has this:\n%s", body)
	}
}

// Each task of a login's life takes 15 lines of code at most.
func TestTasksAreShort(t *testing.T) {
	blocks := goBlocks(t, filepath.Join("docs", "sessions.md"))
	for _, code := range blocks {
		if lines := strings.Count(code, "\n"); lines > 15 {
			t.Errorf("%d lines:\n%s", lines, code)
		}
	}
	if len(blocks) < 15 {
		t.Errorf("only %d tasks were found", len(blocks))
	}
}

// One thing has one name in all examples and documents: what a call returns is
// kept under one of the names here.
func TestExamplesNameThings(t *testing.T) {
	names := map[string][]string{
		"echosession.New":            {"sessions", "admins"}, // the second of two instances
		"newExampleManager":          {"sessions"},
		"redis.NewClient":            {"rdb"},
		"redis.NewClusterClient":     {"rdb"},
		"redis.NewFailoverClient":    {"rdb"},
		"echosession.Get":            {"sess", "admin"}, // the second of two instances
		"echov5.Get":                 {"sess"},
		"nethttp.Get":                {"sess"},
		"sessions.Get":               {"sess"},
		"sessions.Open":              {"sess"},
		"sessions.Create":            {"sess"},
		"sessions.List":              {"list"},
		"sess.Create":                {"token"},
		"sess.Rotate":                {"token"},
		"sess.Renew":                 {"token"},
		"echo.New":                   {"e"},
		"echosession.NewMemoryStore": {"store"},
	}
	checked := 0
	check := func(name, code string) {
		file, err := parser.ParseFile(token.NewFileSet(), name, code, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			assign, ok := n.(*ast.AssignStmt)
			if !ok || len(assign.Rhs) != 1 {
				return true
			}
			call, ok := assign.Rhs[0].(*ast.CallExpr)
			if !ok {
				return true
			}
			fun := call.Fun
			if generic, ok := fun.(*ast.IndexExpr); ok {
				fun = generic.X
			}
			allowed, ok := names[types.ExprString(fun)]
			if !ok {
				return true
			}
			checked++
			if got := types.ExprString(assign.Lhs[0]); got != "_" && !slices.Contains(allowed, got) {
				t.Errorf("%s: what %s returns is named %s, not %s", name, types.ExprString(fun), got, strings.Join(allowed, " or "))
			}
			return true
		})
	}
	walkExamples(t, check)
	for _, document := range markdownFiles(t) {
		for _, code := range goBlocks(t, document) {
			if !isProgram(code) {
				code = "package p; func _() error {\n" + code + "}"
			}
			check(document, code)
		}
	}
	if checked < 60 {
		t.Errorf("only %d names were checked", checked)
	}
}

// markdownFiles returns the names of all documents of the repository.
func markdownFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	walkFiles(t, ".md", func(path, _ string) { files = append(files, path) })
	return files
}

// anchor returns the name by which a link finds a heading.
func anchor(heading string) string {
	heading = regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(heading), "")
	return strings.ReplaceAll(heading, " ", "-")
}

func TestLinksInDocumentsLeadSomewhere(t *testing.T) {
	checked := 0
	for _, file := range markdownFiles(t) {
		text := regexp.MustCompile("(?ms)^```.*?^```").ReplaceAllString(readFile(t, file), "")
		text = regexp.MustCompile("`[^`]*`").ReplaceAllString(text, "")
		for _, link := range regexp.MustCompile(`\]\(([^):]+)\)`).FindAllStringSubmatch(text, -1) {
			checked++
			path, fragment, _ := strings.Cut(link[1], "#")
			target := filepath.Join(filepath.Dir(file), path)
			if path == "" {
				target = file
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %v", file, err)
				continue
			}
			if fragment == "" {
				continue
			}
			headings := regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(readFile(t, target), -1)
			if !slices.ContainsFunc(headings, func(h []string) bool { return anchor(h[1]) == fragment }) {
				t.Errorf("%s: %s has no heading #%s", file, target, fragment)
			}
		}
	}
	if checked < 15 {
		t.Errorf("only %d links were checked", checked)
	}
}

// A reader whose English is a second language reads each sentence once: none of
// them has one of these.
func TestTextsAreInPlainEnglish(t *testing.T) {
	puzzle := regexp.MustCompile(`(?i)\b(so (long|many|much|few)|such an? one|there (is|are) none|others than|(that|this) goes for|the like|thereof)\b`)
	for _, tt := range []struct {
		text string
		want bool
	}{
		{"ends a session so long after its creation", true},
		{"That goes for a revoked session, too.", true},
		{"origins\n// others than the service's own", true},
		{"so a long wait, and another one than before", false},
	} {
		if got := puzzle.MatchString(plainText(tt.text)); got != tt.want {
			t.Errorf("%q is a puzzle: %v", tt.text, got)
		}
	}
	check := func(name, text string) {
		for _, found := range puzzle.FindAllString(plainText(text), -1) {
			t.Errorf("%s: say what %q is", name, found)
		}
	}
	files := markdownFiles(t)
	for _, file := range files {
		check(file, readFile(t, file))
	}
	if len(files) < 8 {
		t.Errorf("only %q were checked", files)
	}
	walkExamples(t, check)
	comments := 0
	walkFiles(t, ".go", func(path, text string) {
		file, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range file.Comments {
			comments++
			check(path, c.Text())
		}
	})
	walkFiles(t, ".lua", check)
	if comments < 1000 {
		t.Errorf("only %d comments were checked", comments)
	}
}

// plainText joins the lines of a text or a comment.
func plainText(text string) string {
	return strings.Join(strings.Fields(regexp.MustCompile(`(?m)^\s*//`).ReplaceAllString(text, " ")), " ")
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
	effective := reflect.ValueOf(echosession.Effective(echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret}))

	var rows [][]string
	var groups, names []string
	for _, row := range tableRows(t, "Field") {
		if group, ok := strings.CutPrefix(row[0], "**"); ok {
			groups = append(groups, strings.TrimSuffix(group, "**"))
			continue
		}
		rows = append(rows, row)
		names = append(names, strings.Trim(row[0], "`"))
	}
	if want := []string{
		"Store", "Tokens", "Lifetimes", "Where tokens are", "Cookies", "Subjects", "Records and sealing", "Errors, logs and tests",
	}; !slices.Equal(groups, want) {
		t.Errorf("the table has the groups\n%q, not\n%q", groups, want)
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
		switch v := effective.FieldByName(names[i]); v.Kind() {
		case reflect.String, reflect.Bool:
			want = fmt.Sprintf("%#v", v)
		case reflect.Int:
			want = fmt.Sprint(v)
			if names[i] == "MaxRecordSize" {
				want = fmt.Sprintf("%d KiB", v.Int()/1024)
			}
			if v.Type() == reflect.TypeFor[echosession.WhenFull]() {
				want = v.Interface().(echosession.WhenFull).String()
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
		"ErrRenewed":          echosession.ErrRenewed,
		"ErrCorrupt":          echosession.ErrCorrupt,
		"ErrNotAuthenticated": echosession.ErrNotAuthenticated,
		"ErrTooManySessions":  echosession.ErrTooManySessions,
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
		"ErrClosed":           echosession.ErrClosed,
		"ErrUnsupported":      echosession.ErrUnsupported,
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
