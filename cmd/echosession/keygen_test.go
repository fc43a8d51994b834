package main

import (
	"crypto"
	"encoding/base64"
	"fmt"
	"go/parser"
	gotoken "go/token"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/echosession/echosession"
)

// Each key that keygen makes is one that the library takes, and that token verifies with.
func TestKeygen(t *testing.T) {
	t.Parallel()
	for kind, use := range map[string]func(key any) echosession.Config{
		"secret":     func(key any) echosession.Config { return echosession.Config{Secret: key.([]byte)} },
		"ed25519":    func(key any) echosession.Config { return configOf("", "EdDSA", key) },
		"p256":       func(key any) echosession.Config { return configOf("", "ES256", key) },
		"encryption": nil,
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			out := filepath.Join(t.TempDir(), "it's a \"key\"")
			args := []string{"keygen", "-type", kind, "-out", out}
			pair := kind == "ed25519" || kind == "p256"
			if pair {
				args = append(args, "-public", out+".pub")
			}
			o := invoke(t, environment{}, args...)
			o.wants(t, exitOK, "cfg.")
			if kind != "encryption" { // a key in Keys can be replaced
				o.wants(t, exitOK, `cfg.Keys = []echosession.SigningKey{{ID: "2026-11", Algorithm: "`+map[string]string{"secret": "HS256", "ed25519": "EdDSA", "p256": "ES256"}[kind]+`", Key: `)
			}
			text := read(t, out)
			for line := range strings.Lines(text) {
				if line = strings.TrimSpace(line); len(line) > 20 && !strings.HasPrefix(line, "-----") {
					o.hides(t, line)
				}
			}
			if o.stdout != "" {
				t.Errorf("it writes %q", o.stdout)
			}
			if info, err := os.Stat(out); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
				t.Errorf("the mode of the file is %v, %v", info.Mode(), err)
			}
			checkAdvice(t, o.stderr, out)

			again := invoke(t, environment{}, args...)
			again.wants(t, exitUnknown, "is there already: it is not written over")
			if read(t, out) != text {
				t.Error("the file was written over")
			}
			if use == nil {
				keys, err := readEncryptionKeys(out)
				if err != nil || len(keys) != 1 {
					t.Errorf("%v", err)
				}
				return
			}
			key, algorithm, err := parseKey([]byte(text))
			if err != nil || algorithm != map[string]string{"secret": "HS256", "ed25519": "EdDSA", "p256": "ES256"}[kind] {
				t.Fatalf("%s, %v", algorithm, err)
			}
			issued := issue(t, use(key))
			decode(t, issued, "-key-file", out).wants(t, exitOK, "It would be accepted.")
			if pair {
				decode(t, issued, "-key-file", out+".pub").wants(t, exitOK, "It would be accepted.")
				public, _, err := parseKey([]byte(read(t, out+".pub")))
				if _, private := public.(crypto.Signer); err != nil || private {
					t.Errorf("the public file holds a %T, %v", public, err)
				}
			}
		})
	}
}

// checkAdvice sees that the advice is Go code, and reads the file that was written.
func checkAdvice(t *testing.T, advice, file string) {
	t.Helper()
	var code strings.Builder
	for line := range strings.Lines(advice) {
		if strings.HasPrefix(line, "\t") {
			code.WriteString(line)
		}
	}
	if !strings.Contains(code.String(), fmt.Sprintf("os.ReadFile(%q)", file)) {
		t.Errorf("the advice does not read the file:\n%s", advice)
	}
	if _, err := parser.ParseFile(gotoken.NewFileSet(), "", "package main\nfunc main() {\n"+code.String()+"}\n", 0); err != nil {
		t.Errorf("%v in\n%s", err, code.String())
	}
}

func TestKeygenToStandardOutput(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 8 {
		o := invoke(t, environment{}, "keygen", "-type", "secret", "-out", "-")
		o.wants(t, exitOK, "cfg.Secret")
		key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(o.stdout))
		if err != nil || len(key) != 32 || seen[o.stdout] || strings.Contains(o.stderr, strings.TrimSpace(o.stdout)) {
			t.Errorf("%q, %v", o.stdout, err)
		}
		seen[o.stdout] = true
	}
}

// A run that fails leaves no file behind, and touches none that was there.
func TestKeygenThatFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	there, public := filepath.Join(dir, "there"), filepath.Join(dir, "public")
	if err := os.WriteFile(there, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		text string
	}{
		{[]string{"-type", "p256", "-out", there, "-public", public}, "is there already"},
		{[]string{"-type", "p256", "-out", filepath.Join(dir, "new"), "-public", there}, "is there already"},
		{[]string{"-type", "p256", "-out", filepath.Join(dir, "no", "folder")}, "no such file"},
		{[]string{"-type", "p256", "-out", public, "-public", public}, "the same file"},
		{[]string{"-type", "secret", "-out", filepath.Join(dir, "new"), "-public", public}, "has no public key"},
		{[]string{"-type", "dsa", "-out", filepath.Join(dir, "new")}, "-type is secret, ed25519, p256 or encryption"},
	} {
		invoke(t, environment{}, append([]string{"keygen"}, tt.args...)...).wants(t, exitUnknown, tt.text)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 || read(t, there) != "mine" {
		t.Errorf("%v, %v", files, err)
	}
}
