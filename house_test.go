package echosession_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path"
	"path/filepath"
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
	{"github.com/redis/go-redis", []string{"redis*.go", "internal/redistest/*.go", "examples/*/*.go"}, false},
	{"github.com/lestrrat-go", []string{"internal/jwt/*.go"}, false},
	{"github.com/vmihailenco", []string{"internal/shape/*.go"}, false},
	{module, []string{"echov5/*.go", "nethttp/*.go", "echosessiontest/*.go", "echosessiontest/adaptertest/*.go", "storetest/*.go", "examples/*/*.go"}, false},
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
var standardOnly = []string{"lookup.go", "cookie.go", "exchange.go", "handle.go", "typed.go", "manager.go", "store.go", "memory.go"}

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
			if !strings.HasSuffix(name, "_test.go") {
				checkLengths(t, positions, parsed)
			}
		}
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
		if first, _, _ := strings.Cut(imported, "/"); slices.Contains(standardOnly, file) && strings.Contains(first, ".") {
			t.Errorf("%s imports %s and needs nothing but the standard library", file, imported)
		}
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
