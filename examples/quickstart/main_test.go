package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/echosession/echosession/internal/redistest"
)

// asProgram is the environment variable that makes the test binary run the program.
const asProgram = "QUICKSTART_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	redistest.Main(m)
}

func TestQuickstart(t *testing.T) {
	for _, tool := range []string{"sh", "curl", "sed"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	t.Run("memory", func(t *testing.T) {
		pasteCommands(t, exec.Command(os.Args[0], "-addr", freeAddr(t)))
	})
	t.Run("redis", func(t *testing.T) {
		server := redistest.Shared(t)
		pasteCommands(t, exec.Command(os.Args[0], "-addr", freeAddr(t), "-redis", "redis://"+server.Addr()))
	})
}

func freeAddr(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// pasteCommands starts the program, runs the commands that it prints in a shell, and
// ends the program with Ctrl-C.
func pasteCommands(t *testing.T, program *exec.Cmd) {
	program.Env = append(os.Environ(), asProgram+"=1", "REDIS_URL=")
	program.Stderr = os.Stderr
	stdout, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Process.Kill() })

	var commands []string
	for lines := bufio.NewScanner(stdout); len(commands) < 3; {
		if !lines.Scan() {
			t.Fatalf("only %q: %v", commands, lines.Err())
		}
		if command, ok := strings.CutPrefix(lines.Text(), "  "); ok {
			commands = append(commands, command)
		}
	}

	showStatus := strings.Replace(commands[1], "curl", "curl -o /dev/null -w '%{http_code}\\n'", 1)
	commands[0] = strings.Replace(commands[0], "curl", "curl --retry 5 --retry-connrefused", 1)
	guest := strings.NewReplacer("curl", "curl -b $JAR -c $JAR", `-H "Authorization: Bearer $TOKEN"`, "")
	commands = append(commands, strings.Replace(showStatus, "/me", "/logout -X POST", 1), showStatus,
		"JAR="+filepath.Join(t.TempDir(), "cookies"), guest.Replace(commands[2]),
		strings.Replace(guest.Replace(commands[0]), "Ada", "Bob", 1), guest.Replace(commands[1]))

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "sh", "-euc", strings.Join(commands, "\n")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := `{"name":"Ada"}
{"name":"Ada","cart":["apple"]}
204
401
{"name":"","cart":["apple"]}
{"name":"Bob","cart":["apple"]}
`
	if string(out) != want {
		t.Errorf("the commands answered\n%s, not\n%s", out, want)
	}

	if err := program.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, stdout); err != nil {
		t.Fatal(err)
	}
	if err := program.Wait(); err != nil {
		t.Errorf("after an interrupt: %v", err)
	}
}
