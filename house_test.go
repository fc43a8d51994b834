package echosession_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// house says which files may import what. A name stands for the package and those
// below it, the module's own name for its root alone.
var house = []struct {
	imported string
	by       []string
	tests    bool // the rule is for tests, and otherwise for everything else
}{
	{"github.com/labstack/echo/v4", []string{"echosession.go", "echosessiontest/*.go", "examples/*/*.go"}, false},
	{"github.com/labstack/echo/v5", []string{"echov5/*.go", "examples/quickstart-v5/*.go"}, false},
	{"github.com/redis/go-redis", []string{"redis*.go", "internal/redistest/*.go", "cmd/echosession/*.go", "examples/*/*.go"}, false},
	{"github.com/lestrrat-go", []string{"internal/jwt/*.go"}, false},
	{"github.com/vmihailenco", []string{"internal/shape/*.go"}, false},
	{module, []string{"cmd/echosession/*.go", "echov5/*.go", "nethttp/*.go", "echosessiontest/*.go", "echosessiontest/adaptertest/*.go", "storetest/*.go", "examples/*/*.go"}, false},
	{module + "/internal", []string{"*.go"}, false},
	{module + "/internal/shape", []string{"serialize.go"}, false},
	{module + "/echov5", []string{"examples/quickstart-v5/*.go"}, false},
	{module + "/nethttp", nil, false},
	{module + "/storetest", nil, false},
	{module + "/echosessiontest", nil, false},
	// A test of the root that imported an adapter would put what the adapter needs
	// into the go.sum of every user.
	{module + "/echov5", []string{"echov5/*.go", "examples/quickstart-v5/*.go"}, true},
	{module + "/nethttp", []string{"nethttp/*.go", "echosessiontest/*.go"}, true},
}

const module = "github.com/echosession/echosession"

// standardOnly are files that need nothing but the standard library.
var standardOnly = []string{"lookup.go", "body.go", "origin.go", "watch.go", "stale.go", "outage.go", "answer.go", "report.go", "cookie.go", "exchange.go", "handle.go", "typed.go", "manager.go", "store.go", "memory.go", "event.go", "slog.go"}

// commandNeeds is all that the command imports beside the standard library: whoever runs it
// with go run downloads nothing more than users of the package do.
var commandNeeds = []string{module, "github.com/redis/go-redis/v9", "github.com/google/uuid"}

// insiders are the tests of the root that need what its users do not see. CONTRIBUTING.md
// names them.
var insiders = []string{"serialize_test.go", "serialize_golden_test.go", "option_test.go"}

func TestHouse(t *testing.T) {
	dirs, err := exec.Command("go", "list", "-f", "{{.Dir}}", "./...").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, dirs) // an import cycle, perhaps
	}
	root, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for dir := range strings.Lines(string(dirs)) {
		files, err := filepath.Glob(filepath.Join(strings.TrimSpace(dir), "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", dir, err)
		}
		for _, file := range files {
			name, err := filepath.Rel(root, file)
			if err != nil {
				t.Fatal(err)
			}
			positions := token.NewFileSet()
			parsed, err := parser.ParseFile(positions, file, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			checkImports(t, filepath.ToSlash(name), parsed)
			checkPackage(t, filepath.ToSlash(name), parsed.Name.Name)
			if !strings.HasSuffix(name, "_test.go") {
				checkLengths(t, positions, parsed)
			}
		}
	}
}

// Every file and folder of the root stands in the table that says where a change goes.
func TestContributingShowsTheHouse(t *testing.T) {
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	table := readFile(t, "CONTRIBUTING.md")
	for _, file := range insiders {
		if !strings.Contains(table, "`"+file+"`") {
			t.Errorf("CONTRIBUTING.md does not say that %s is inside of the package", file)
		}
	}
	rooms := 0
	for _, entry := range entries {
		name := entry.Name()
		switch {
		case strings.HasPrefix(name, "."), strings.HasSuffix(name, "_test.go"):
			continue
		case entry.IsDir():
			name += "/"
		case strings.HasPrefix(name, "redis_"):
			name = "redis_*.go"
		case !strings.HasSuffix(name, ".go"):
			continue
		}
		rooms++
		if !regexp.MustCompile("(?m)^\\| .*`" + regexp.QuoteMeta(name) + "(\\w+/)?`.* \\|").MatchString(table) {
			t.Errorf("CONTRIBUTING.md does not say what belongs in %s", name)
		}
	}
	if rooms < 30 {
		t.Errorf("only %d files and folders were looked for", rooms)
	}
}

func checkImports(t *testing.T, file string, parsed *ast.File) {
	isTest := strings.HasSuffix(file, "_test.go")
	for _, spec := range parsed.Imports {
		imported := strings.Trim(spec.Path.Value, `"`)
		for _, rule := range house {
			if rule.tests == isTest && within(imported, rule.imported) && !slices.ContainsFunc(rule.by, func(pattern string) bool {
				ok, err := path.Match(pattern, file)
				return ok && err == nil
			}) {
				t.Errorf("%s imports %s", file, imported)
			}
		}
		if strings.HasPrefix(file, "cmd/") && !isTest && strings.Contains(imported, ".") && !slices.Contains(commandNeeds, imported) {
			t.Errorf("%s imports %s, which the command does without", file, imported)
		}
		if first, _, _ := strings.Cut(imported, "/"); slices.Contains(standardOnly, file) && strings.Contains(first, ".") {
			t.Errorf("%s imports %s and needs nothing but the standard library", file, imported)
		}
	}
}

// checkPackage refuses tests inside of the package that they test, and accepts insiders and
// what exports for tests.
func checkPackage(t *testing.T, file, name string) {
	inside := strings.HasSuffix(file, "_test.go") && !strings.HasSuffix(name, "_test")
	if inside && name != "main" && path.Base(file) != "export_test.go" && !slices.Contains(insiders, file) {
		t.Errorf("%s is in package %s, not in %[2]s_test", file, name)
	}
}

// within reports whether a package is the one named or below it.
func within(imported, name string) bool {
	return imported == name || name != module && strings.HasPrefix(imported, name+"/")
}

func checkLengths(t *testing.T, positions *token.FileSet, parsed *ast.File) {
	for _, decl := range parsed.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok {
			continue
		}
		if lines := positions.Position(fn.End()).Line - positions.Position(fn.Pos()).Line + 1; lines > 80 {
			t.Errorf("%s: %s has %d lines; 80 are enough", positions.Position(fn.Pos()), fn.Name.Name, lines)
		}
	}
}

// TestModulesOfUsers checks what modules that use this one get into their go.mod
// and go.sum. A user of Echo v4 or of net/http gets nothing of Echo v5.
func TestModulesOfUsers(t *testing.T) {
	if testing.Short() {
		t.Skip("runs go mod tidy")
	}
	const v4, v5 = "github.com/labstack/echo/v4", "github.com/labstack/echo/v5"
	for _, tt := range []struct {
		name     string
		imports  []string
		direct   []string
		indirect []string
		never    []string
	}{
		{"the root", []string{module, v4}, []string{v4}, nil, []string{v5}},
		{"nethttp", []string{module, module + "/nethttp"}, nil, []string{v4}, []string{v5}},
		{"echov5", []string{module, module + "/echov5", v5}, []string{v5}, []string{v4}, nil},
		{"echosessiontest", []string{module, v4, module + "/echosessiontest", module + "/echosessiontest/adaptertest"},
			[]string{v4}, nil, []string{v5}},
		{"storetest", []string{module, module + "/storetest"}, nil, []string{v4}, []string{v5}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mod, sum := tidied(t, tt.imports)
			for _, path := range tt.direct {
				if !regexp.MustCompile(regexp.QuoteMeta(path) + ` v[^ ]+\n`).MatchString(mod) {
					t.Errorf("%s is no direct requirement in\n%s", path, mod)
				}
			}
			for _, path := range tt.indirect {
				if !regexp.MustCompile(regexp.QuoteMeta(path) + ` v[^ ]+ // indirect\n`).MatchString(mod) {
					t.Errorf("%s is no indirect requirement in\n%s", path, mod)
				}
			}
			for _, path := range tt.never {
				if strings.Contains(mod, path) || strings.Contains(sum, path) {
					t.Errorf("%s is in\n%s or\n%s", path, mod, sum)
				}
			}
		})
	}
}

// tidied returns the go.mod and go.sum of a module that imports packages of this
// checkout.
func tidied(t *testing.T, imports []string) (mod, sum string) {
	t.Helper()
	root, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	goSum, err := os.ReadFile("go.sum") // else the sums are asked of the network
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	source.WriteString("package main\n")
	for _, path := range imports {
		fmt.Fprintf(&source, "import _ %q\n", path)
	}
	source.WriteString("func main() {}\n")
	goMod := fmt.Sprintf("module example.com/user\ngo 1.26\nrequire %s v0.0.0\nreplace %[1]s => %q\n", module, root)
	dir := t.TempDir()
	for name, content := range map[string]string{"main.go": source.String(), "go.mod": goMod, "go.sum": string(goSum)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tidy(t, dir)
	files := make(map[string]string)
	for _, name := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(content)
	}
	return files["go.mod"], files["go.sum"]
}

// tidy runs go mod tidy: out of the module cache if it can, and otherwise as the
// environment says. Where neither is possible the test is skipped, but not in CI.
func tidy(t *testing.T, dir string) {
	t.Helper()
	var out []byte
	var err error
	for _, env := range [][]string{{"GOPROXY=off", "GOSUMDB=off"}, nil} {
		cmd := exec.Command("go", "mod", "tidy")
		cmd.Dir = dir
		cmd.Env = append(append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off"), env...)
		if out, err = cmd.CombinedOutput(); err == nil {
			return
		}
	}
	message := fmt.Sprintf("go mod tidy needs modules that are not in the module cache, and could not fetch them: %v\n%s", err, out)
	if os.Getenv("ECHOSESSION_REQUIRE_REDIS") != "" { // as in CI, where nothing may be missing
		t.Fatal(message)
	}
	t.Skip(message)
}
