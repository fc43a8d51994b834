package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// buildCommand builds the command, and returns its path.
func buildCommand(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "echosession")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

// A terminal is a pseudo terminal, and what a program has written to it.
type terminal struct {
	t       *testing.T
	master  *os.File
	slave   *os.File
	columns int

	mu      sync.Mutex
	written strings.Builder
}

func newTerminal(t *testing.T, columns int) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("this machine has no pseudo terminals: ", err)
	}
	var number, unlock uint32
	size := struct{ rows, columns, x, y uint16 }{rows: 24, columns: uint16(columns)}
	for _, call := range []struct {
		request uintptr
		arg     unsafe.Pointer
	}{{syscall.TIOCSPTLCK, unsafe.Pointer(&unlock)}, {syscall.TIOCGPTN, unsafe.Pointer(&number)}, {syscall.TIOCSWINSZ, unsafe.Pointer(&size)}} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, master.Fd(), call.request, uintptr(call.arg)); errno != 0 {
			t.Fatal(errno)
		}
	}
	slave, err := os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, master: master, slave: slave, columns: columns}
	t.Cleanup(func() { _, _ = slave.Close(), master.Close() })
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			term.mu.Lock()
			term.written.Write(buf[:n])
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return term
}

// start starts a program in the terminal. ended gets its exit code.
func (term *terminal) start(program string, args ...string) (ended <-chan int) {
	term.t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = term.slave, term.slave, term.slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		term.t.Fatal(err)
	}
	term.t.Cleanup(func() { _ = cmd.Process.Kill() })
	code := make(chan int, 1)
	go func() {
		_ = cmd.Wait()
		code <- cmd.ProcessState.ExitCode()
	}()
	return code
}

// text is what was written until now.
func (term *terminal) text() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.written.String()
}

// await waits until what was written matches a pattern.
func (term *terminal) await(pattern string) {
	term.t.Helper()
	re := regexp.MustCompile(pattern)
	for range 2000 {
		if re.MatchString(term.text()) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	term.t.Fatalf("nothing matches %q in %q", pattern, term.text())
}

// end waits for the exit code.
func (term *terminal) end(ended <-chan int, within time.Duration) (code int) {
	term.t.Helper()
	select {
	case code = <-ended:
	case <-time.After(within):
		term.t.Fatalf("it has not ended after %v; it wrote %q", within, term.text())
	}
	time.Sleep(50 * time.Millisecond) // the terminal hands on what was written last
	return code
}

// screen is what a person sees: lines on which a carriage return leads to what is written over.
func (term *terminal) screen() (lines []string) {
	line, at := []rune{}, 0
	for _, r := range term.text() {
		switch {
		case r == '\r':
			at = 0
		case r == '\n':
			lines, line, at = append(lines, strings.TrimRight(string(line), " ")), nil, 0
		case r < ' ':
			term.t.Errorf("%q was written", r)
		default:
			if at == term.columns {
				lines, line, at = append(lines, string(line)), nil, 0
			}
			if at == len(line) {
				line = append(line, r)
			}
			line[at] = r
			at++
		}
	}
	return append(lines, strings.TrimRight(string(line), " "))
}

var barPattern = regexp.MustCompile(`\d%  `)

// slowServer is a server with sessions, of which one page of SCAN takes a while.
func slowServer(t *testing.T, page time.Duration) (p *redistest.Proxy, slow *redistest.Rule) {
	t.Helper()
	server := redistest.Start(t)
	many(t, server.Client(t), echosession.Config{Keyspace: "sess:"}, 30_000, func(i int) (age, unused time.Duration, opts []echosession.CreateOption) {
		return time.Hour, 0, []echosession.CreateOption{echosession.WithSubject(fmt.Sprint("user-", i%100))}
	})
	p = redistest.NewProxy(t, server.Addr())
	return p, p.On(redistest.Named("SCAN"), -1, redistest.Delay(page))
}

func TestProgressOnATerminal(t *testing.T) {
	t.Parallel()
	command := buildCommand(t)
	proxy, _ := slowServer(t, 10*time.Millisecond)
	url := "redis://" + proxy.Addr()
	t.Run("to the end", func(t *testing.T) {
		term := newTerminal(t, 90)
		began := time.Now()
		if code := term.end(term.start(command, "stats", url), 60*time.Second); code != exitOK {
			t.Errorf("the exit code is %d", code)
		}
		term.await(`\r  \d%  \[\.{30}\]  \d+ of 30,000 keys`)
		if n := len(barPattern.FindAllString(term.text(), -1)); n < 3 || n > 2+int(time.Since(began)/redrawEvery) {
			t.Errorf("the bar was drawn %d times in %v", n, time.Since(began))
		}
		lines := term.screen()
		if !strings.HasPrefix(lines[0], "30,000 sessions in ") || lines[len(lines)-1] != "" {
			t.Errorf("the screen begins with %q and ends with %q", lines[0], lines[len(lines)-1])
		}
		for _, line := range lines {
			if strings.Contains(line, "keys") || strings.Contains(line, "PARTIAL") {
				t.Errorf("the screen has %q", line)
			}
		}
	})
	t.Run("a narrow one", func(t *testing.T) {
		term := newTerminal(t, 17)
		if code := term.end(term.start(command, "stats", "-json", url), 60*time.Second); code != exitOK {
			t.Errorf("the exit code is %d", code)
		}
		bar, _, _ := strings.Cut(term.text(), "{")
		drawn := strings.Split(bar, "\r")
		for _, line := range drawn {
			if len(line) >= 17 || strings.Contains(line, "\n") {
				t.Errorf("%q does not fit", line)
			}
		}
		if len(drawn) < 5 {
			t.Errorf("the bar was not drawn: %q", bar)
		}
		if lines := term.screen(); lines[0] != "{" {
			t.Errorf("the screen begins with %q", lines[0])
		}
	})
	t.Run("none", func(t *testing.T) {
		var stderr strings.Builder
		cmd := exec.Command(command, "stats", url)
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil || stderr.Len() > 0 || strings.ContainsAny(string(out), "\r\x1b") {
			t.Errorf("%v; %q; %q", err, stderr.String(), out)
		}
	})
}

// Ctrl-C comes through the terminal, as a person sends it.
func TestStatsIsInterrupted(t *testing.T) {
	t.Parallel()
	command := buildCommand(t)
	for _, tt := range []struct {
		name  string
		hangs bool // the server, in the middle of it
	}{{"while it counts", false}, {"while the server is silent", true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			proxy, slow := slowServer(t, 50*time.Millisecond)
			term := newTerminal(t, 90)
			ended := term.start(command, "stats", "-timeout", "30s", "redis://"+proxy.Addr())
			term.await(`\r 1\d%  \[#`)
			if tt.hangs {
				slow.Remove()
				hang := proxy.On(func([]string) bool { return true }, -1, redistest.Hang())
				for hang.Count() == 0 {
					time.Sleep(time.Millisecond)
				}
			}
			if _, err := term.master.Write([]byte{3}); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			code := term.end(ended, 5*time.Second)
			if took := time.Since(began); code != exitUnknown || took > time.Second {
				t.Errorf("it ended after %v with %d", took, code)
			}
			lines := term.screen()
			if !regexp.MustCompile(`^PARTIAL: interrupted after \d+\.\d s\.`).MatchString(lines[0]) || lines[len(lines)-1] != "" {
				t.Errorf("the screen begins with %q and ends with %q", lines[0], lines[len(lines)-1])
			}
			counted := 0
			if _, err := fmt.Sscanf(strings.ReplaceAll(lines[2], ",", ""), "%d sessions", &counted); err != nil || counted < 1000 || counted > 29_000 {
				t.Errorf("%d were counted; %v", counted, err)
			}
			if !strings.Contains(term.text(), "^C") {
				t.Error("the terminal has not written ^C: this test sees less than a person")
			}
			for _, line := range lines {
				if barPattern.MatchString(line) && strings.Contains(line, "keys") || strings.Contains(line, "^C") {
					t.Errorf("the screen has %q", line)
				}
			}
		})
	}
}

// Nothing of the bar is left behind a line that is shorter.
func TestAnInterruptedBarLeavesNothing(t *testing.T) {
	t.Parallel()
	command := buildCommand(t)
	proxy, _ := slowServer(t, 50*time.Millisecond)
	term := newTerminal(t, 90)
	ended := term.start(command, "stats", "-json", "redis://"+proxy.Addr())
	term.await(`\r 1\d%  \[#`)
	if _, err := term.master.Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
	if code := term.end(ended, 5*time.Second); code != exitUnknown || !strings.Contains(term.text(), "^C") {
		t.Errorf("it ended with %d: %q", code, term.text())
	}
	lines := term.screen()
	if lines[0] != "{" || lines[1] != `  "partial": true,` {
		t.Errorf("the screen begins with %q", lines[:2])
	}
}

// What reads the output may end first, as head does.
func TestAClosedPipeEndsTheCommandQuietly(t *testing.T) {
	t.Parallel()
	command := buildCommand(t)
	p := onShared(t, echosession.Config{SubjectIndex: true})
	for _, args := range [][]string{{"watch", "-interval", "20ms"}, {"watch", "-interval", "20ms", "-json"}} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, command, append(args, "-keyspace", p.keyspace, p.url)...)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		exited := make(chan struct{})
		go func() { // sessions are created until it ends
			for ctx.Err() == nil {
				select {
				case <-exited:
					return
				case <-time.After(10 * time.Millisecond):
					_, _ = p.Create(ctx, ada)
				}
			}
		}()
		if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		_ = stdout.Close()
		err = cmd.Wait()
		close(exited)
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGPIPE || ctx.Err() != nil {
			t.Errorf("%q ended with %v", args, err)
		}
		if text := stderr.String(); strings.Count(text, "\n") != 1 || !strings.HasPrefix(text, "watching ") {
			t.Errorf("%q wrote %q", args, text)
		}
	}
	// Stats writes all at once.
	r, w := io.Pipe()
	_ = r.Close()
	var stderr strings.Builder
	code := run(t.Context(), []string{"stats", "-keyspace", p.keyspace, p.url}, &invocation{stdout: w, stderr: &stderr, getenv: func(string) string { return "" }})
	if code != exitUnknown || strings.Count(stderr.String(), "\n") != 1 {
		t.Errorf("exit %d: %s", code, stderr.String())
	}
}
