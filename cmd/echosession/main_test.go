package main

import (
	"context"
	"flag"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession/internal/redistest"
)

func TestMain(m *testing.M) {
	redis.SetLogger(silence{}) // as main does
	redistest.Parallel(4)
	redistest.Main(m)
}

// An outcome is what a person sees of a command.
type outcome struct {
	code           int
	stdout, stderr string
}

// all is everything that was written.
func (o outcome) all() string { return o.stdout + o.stderr }

// environment is what a command is started with beside its arguments.
type environment struct {
	stdin io.Reader
	vars  map[string]string
}

// invoke runs the command as main does.
func invoke(t *testing.T, env environment, args ...string) outcome {
	t.Helper()
	var stdout, stderr strings.Builder
	if env.stdin == nil {
		env.stdin = strings.NewReader("")
	}
	code := run(t.Context(), args, &invocation{
		stdin: env.stdin, stdout: &stdout, stderr: &stderr,
		getenv: func(name string) string { return env.vars[name] },
	})
	o := outcome{code, stdout.String(), stderr.String()}
	for _, trace := range []string{"panic", "goroutine ", ".go:"} {
		if strings.Contains(o.all(), trace) {
			t.Errorf("echosession %q writes what is for programmers:\n%s", args, o.all())
		}
	}
	return o
}

// wants fails the test unless the command ended and wrote as it should.
func (o outcome) wants(t *testing.T, code int, texts ...string) {
	t.Helper()
	if o.code != code {
		t.Errorf("the exit code is %d, and is to be %d:\n%s", o.code, code, o.all())
	}
	for _, text := range texts {
		if !strings.Contains(o.all(), text) {
			t.Errorf("it does not say %q:\n%s", text, o.all())
		}
	}
}

func (o outcome) hides(t *testing.T, secrets ...string) {
	t.Helper()
	for _, secret := range secrets {
		if strings.Contains(o.all(), secret) {
			t.Errorf("it shows %q:\n%s", secret, o.all())
		}
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	const id = "0b6f3a8e-6d0c-4c1e-9a53-0d7c6a1b2c3d"
	const jwt = "eyJhbGciOiJIUzI1NiJ9.eyJqdGkiOiJwbGFudGVkIn0.c2lnbmF0dXJl"
	for _, tt := range []struct {
		name  string
		args  []string
		code  int
		texts []string
	}{
		{"nothing", nil, exitUnknown, []string{"Usage:", "list", "keygen"}},
		{"help", []string{"help"}, exitOK, []string{"The commands:", "revoke", "redis://", "Exit codes:"}},
		{"-h", []string{"-h"}, exitOK, []string{"The commands:"}},
		{"help of a command", []string{"help", "list"}, exitOK, []string{"echosession list", "-subject", "Examples:"}},
		{"-h of a command", []string{"list", "-h"}, exitOK, []string{"echosession list", "Examples:"}},
		{"-h behind an argument", []string{"show", id, "-h"}, exitOK, []string{"echosession show"}},
		{"help of no command", []string{"help", "fly"}, exitUnknown, []string{`no command fly; "echosession help" lists them`}},
		{"no command", []string{"fly"}, exitUnknown, []string{`no command fly; "echosession help" lists them`}},
		{"a URL in the place of a command", []string{"redis://:planted@localhost"}, exitUnknown, []string{"no command of this name"}},
		{"a token in the place of a command", []string{jwt}, exitUnknown, []string{"no command of this name"}},
		{"an unknown flag", []string{"list", "-colour"}, exitUnknown, []string{"-colour", `"echosession help list"`}},
		{"a flag behind an argument", []string{"list", "redis://localhost:1", "-colour"}, exitUnknown, []string{"-colour"}},
		{"a flag without its value", []string{"list", "-limit"}, exitUnknown, []string{"-limit"}},
		{"a flag with a wrong value", []string{"list", "-limit", "many"}, exitUnknown, []string{"-limit"}},
		{"a negative limit", []string{"list", "-limit", "-1", "redis://localhost:1"}, exitUnknown, []string{"-limit counts sessions"}},
		{"no Redis", []string{"list"}, exitUnknown, []string{"name a Redis", "REDIS_URL"}},
		{"two of them", []string{"list", "redis://localhost:1", "redis://localhost:2"}, exitUnknown, []string{"not two"}},
		{"list with an argument", []string{"list", "planted"}, exitUnknown, []string{"the only argument is a Redis"}},
		{"show without an ID", []string{"show"}, exitUnknown, []string{"name one session"}},
		{"show with two", []string{"show", id, id}, exitUnknown, []string{"name one session"}},
		{"show with no ID", []string{"show", "planted"}, exitUnknown, []string{"36 characters", "12"}},
		{"show with a token", []string{"show", jwt}, exitUnknown, []string{"does not belong on the command line"}},
		{"revoke with nothing", []string{"revoke"}, exitUnknown, []string{"-subject or -codec"}},
		{"revoke with a token", []string{"revoke", jwt}, exitUnknown, []string{"does not belong on the command line"}},
		{"revoke with two", []string{"revoke", id, id}, exitUnknown, []string{"name one session"}},
		{"revoke with too much", []string{"revoke", id, "-codec", "all"}, exitUnknown, []string{"-codec goes with neither"}},
		{"revoke of a subject and a codec", []string{"revoke", "-subject", "ada", "-codec", "all"}, exitUnknown, []string{"-codec goes with neither"}},
		{"revoke of no codec", []string{"revoke", "-codec", "gob"}, exitUnknown, []string{"msgpack, other or all"}},
		{"-except without a subject", []string{"revoke", "-codec", "all", "-except", id}, exitUnknown, []string{"-except goes with -subject"}},
		{"-except of no ID", []string{"revoke", "-subject", "ada", "-except", "me"}, exitUnknown, []string{"-except takes a session ID"}},
		{"token with a token", []string{"token", jwt}, exitUnknown, []string{"does not belong on the command line"}},
		{"token behind --", []string{"token", "--", jwt}, exitUnknown, []string{"does not belong on the command line"}},
		{"token with two files", []string{"token", "a", "b"}, exitUnknown, []string{"name one file"}},
		{"token without input", []string{"token"}, exitUnknown, []string{"no token in the input"}},
		{"keygen without a type", []string{"keygen"}, exitUnknown, []string{"-type is"}},
		{"keygen without a file", []string{"keygen", "-type", "secret"}, exitUnknown, []string{"-out names"}},
		{"keygen with an argument", []string{"keygen", "secret"}, exitUnknown, []string{"-type and -out"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := invoke(t, environment{}, tt.args...)
			o.wants(t, tt.code, tt.texts...)
			o.hides(t, "planted", jwt, jwt[:20], "cGxhbnRlZ")
			if tt.code == exitOK && o.stderr != "" || tt.code != exitOK && o.stdout != "" {
				t.Errorf("it writes to the wrong output:\n%q\n%q", o.stdout, o.stderr)
			}
		})
	}
}

// What follows -- are arguments, whatever they look like, and flags may stand anywhere.
func TestFlagsAnywhere(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args []string
		want []string
		flag string
	}{
		{[]string{"a", "-f", "1", "b"}, []string{"a", "b"}, "1"},
		{[]string{"-f=1", "a", "--", "-f", "2"}, []string{"a", "-f", "2"}, "1"},
		{[]string{"--", "-f"}, []string{"-f"}, ""},
		{[]string{"--", "a", "-f", "1"}, []string{"a", "-f", "1"}, ""},
		{[]string{"a", "-", "-f", "1"}, []string{"a", "-"}, "1"},
		{[]string{"-a0dr07B8VaV", "-f", "1"}, []string{"-a0dr07B8VaV"}, "1"},
		{[]string{"-f", "1", "--0dr07B8VaV", "b"}, []string{"--0dr07B8VaV", "b"}, "1"},
		{[]string{"b", "---dr07B8VaV", "-f", "-a0dr07B8VaV"}, []string{"b", "---dr07B8VaV"}, "-a0dr07B8VaV"},
	} {
		var got string
		inv := &invocation{stdout: io.Discard, stderr: io.Discard}
		c := command{name: "try", usage: "<id>", define: func(fs *flag.FlagSet) func(context.Context, *invocation) (int, error) {
			fs.StringVar(&got, "f", "", "")
			return func(context.Context, *invocation) (int, error) { return exitOK, nil }
		}}
		c.run(t.Context(), tt.args, inv)
		if strings.Join(inv.args, " ") != strings.Join(tt.want, " ") || got != tt.flag {
			t.Errorf("%q: the arguments are %q and the flag is %q", tt.args, inv.args, got)
		}
	}
}

// The help of each command has examples, says what its exit codes mean, names each of its
// flags with what it does, and uses no flag that is not there.
func TestHelp(t *testing.T) {
	t.Parallel()
	if len(commands) < 5 {
		t.Fatalf("there are only %d commands", len(commands))
	}
	overview := invoke(t, environment{}, "help").stdout
	if !strings.Contains(connectionHelp, "exit code is 3") {
		t.Error("the help of the connection does not say with which code a command ends that has none")
	}
	for _, c := range commands {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if !regexp.MustCompile(`(?m)^\t` + c.name + ` +` + regexp.QuoteMeta(c.summary) + `$`).MatchString(overview) {
				t.Error("the overview does not have it")
			}
			help := invoke(t, environment{}, "help", c.name)
			help.wants(t, exitOK, "\nUsage:\n", "\nExamples:\n")
			if !regexp.MustCompile(`(?m)^(Exit codes: 0|The exit code is 0)\b`).MatchString(c.help) {
				t.Error("it does not say what its exit codes mean")
			}
			if takesRedis := strings.HasSuffix(c.usage, " [URL]"); takesRedis != (c.name != "keygen") {
				t.Errorf("its usage is %q", c.usage)
			}
			if !strings.Contains(c.help, "\nRights in Redis: +") && c.name != "doctor" && c.name != "keygen" {
				t.Error("it does not name the rights that it needs")
			}
			_, examples, _ := strings.Cut(help.stdout, "\nExamples:\n")
			examples, _, _ = strings.Cut(examples, "\nFlags:\n")
			if !strings.Contains(examples, "\techosession "+c.name) {
				t.Errorf("no example shows it:\n%s", examples)
			}
			fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
			c.define(fs)
			fs.VisitAll(func(f *flag.Flag) {
				if f.Usage == "" {
					t.Errorf("-%s says nothing", f.Name)
				}
				if !regexp.MustCompile(`(?m)^  -` + f.Name + `( |$)`).MatchString(help.stdout) {
					t.Errorf("the help has no -%s:\n%s", f.Name, help.stdout)
				}
			})
			for line := range strings.Lines(examples) {
				line, _, _ = strings.Cut(line, "|") // behind it stands another program
				for _, name := range regexp.MustCompile(` -([a-z-]+)`).FindAllStringSubmatch(line, -1) {
					if fs.Lookup(name[1]) == nil {
						t.Errorf("an example has -%s, which is no flag: %s", name[1], line)
					}
				}
			}
			for line := range strings.Lines(c.help) {
				if len(strings.TrimRight(line, "\n")) > 100 {
					t.Errorf("a line is longer than a terminal is wide: %s", line)
				}
			}
		})
	}
}

// A flag that means the same in several commands has one text.
func TestFlagsHaveOneText(t *testing.T) {
	t.Parallel()
	texts := map[string]map[string]bool{}
	for _, c := range commands {
		fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
		c.define(fs)
		fs.VisitAll(func(f *flag.Flag) {
			if texts[f.Name] == nil {
				texts[f.Name] = map[string]bool{}
			}
			texts[f.Name][f.Usage] = true
		})
	}
	for name, most := range map[string]int{
		"encryption-key-file": 1, "max-age": 1, "keyspace": 1, "password-file": 1,
		"json": 4, // one object, a line for each session or event, and JSON without being asked
	} {
		if n := len(texts[name]); n == 0 || n > most {
			t.Errorf("-%s has %d texts: %v", name, n, texts[name])
		}
	}
}

// An interrupted command says so, and could not find out what it was asked.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stderr strings.Builder
	code := run(ctx, []string{"list", "redis://" + redistest.Shared(t).Addr()}, &invocation{stdout: io.Discard, stderr: &stderr, getenv: os.Getenv})
	if code != exitUnknown || stderr.String() != "echosession list: interrupted\n" {
		t.Errorf("%d, %q", code, stderr.String())
	}
}
