package echosession_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

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
