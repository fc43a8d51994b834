// Package redistest gives tests real redis-servers, alone, under Sentinel and in
// a cluster, and a [Proxy] that breaks the wire to them.
//
// Every server listens on loopback only, keeps its files in a temporary
// directory and ends with the test that started it. On Linux no server outlives
// the test binary, however that ends. It needs Redis 6.2 or newer, or Valkey.
//
// The program is the redis-server in PATH, or what ECHOSESSION_REDIS names:
//
//	ECHOSESSION_REDIS=/opt/valkey/bin/valkey-server go test ./...
//
// Without a redis-server in PATH tests are skipped, or fail when
// ECHOSESSION_REQUIRE_REDIS=1. If ECHOSESSION_REDIS names no program, they fail.
package redistest

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// readyTimeout bounds how long a server, a failover or a cluster may take.
const readyTimeout = 30 * time.Second

// Server is a redis-server process. Its methods are safe for concurrent use.
type Server struct {
	addr string
	dir  string
	args []string

	mu      sync.Mutex
	process *os.Process
	exited  chan struct{}
}

// Start starts a server, without persistence unless args ask for it, and ends it
// when tb does. The args are those of redis-server ("--maxmemory", "2mb") and win
// over the defaults of this package.
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	return start(tb, append(dataArgs(tb), args...)...)
}

func start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	s, err := startIn(tb.TempDir(), args)
	if err != nil {
		tb.Fatalf("redistest: %v", err)
	}
	tb.Cleanup(s.Kill)
	return s
}

// binaryEnv names the server's program in place of the redis-server in PATH.
const binaryEnv = "ECHOSESSION_REDIS"

// binary returns the server's program.
func binary() (path string, err error) {
	return exec.LookPath(cmp.Or(os.Getenv(binaryEnv), "redis-server"))
}

// needBinary ends tb when there is no redis-server.
func needBinary(tb testing.TB) {
	tb.Helper()
	_, err := binary()
	switch {
	case err == nil:
	case os.Getenv(binaryEnv) != "":
		// A skip would hide that a matrix of servers tests nothing.
		tb.Fatalf("redistest: %s: %v", binaryEnv, err)
	case os.Getenv("ECHOSESSION_REQUIRE_REDIS") == "1":
		tb.Fatalf("redistest: ECHOSESSION_REQUIRE_REDIS=1: %v", err)
	default:
		tb.Skipf("redistest: needs a real server: %v", err)
	}
}

// before7 reports whether the server is a Redis 6.
var before7 = sync.OnceValue(func() bool {
	path, _ := binary()
	out, _ := exec.Command(path, "--version").Output()
	return bytes.Contains(out, []byte("v=6."))
})

// dataArgs returns the arguments of every server that holds data. It ends tb when
// there is no redis-server.
func dataArgs(tb testing.TB) []string {
	tb.Helper()
	needBinary(tb)
	args := []string{
		"--save", "", "--appendonly", "no",
		"--maxmemory", "64mb",
		"--repl-diskless-sync-delay", "0",
	}
	if !before7() {
		args = append(args, "--enable-debug-command", "local", "--shutdown-timeout", "0")
	}
	return args
}

var errPortTaken = errors.New("the port is taken")

// startIn starts a server that keeps its files in dir.
func startIn(dir string, args []string) (*Server, error) {
	for {
		s := &Server{
			addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort())),
			dir:  dir,
			args: args,
		}
		err := s.launch()
		if !errors.Is(err, errPortTaken) {
			return s, err
		}
		if err := os.Remove(s.log()); err != nil {
			return nil, err
		}
	}
}

// freePort returns a port on which nobody listens, and whose port plus 10000, the
// bus of a cluster node, is free too. Both are below the ephemeral range of Linux
// and of macOS: no outgoing connection takes the port of a server that is down.
func freePort() int {
	for {
		port := 12000 + rand.IntN(10000)
		if listens(port) && listens(port+10000) {
			return port
		}
	}
}

func listens(port int) bool {
	ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return ln.Close() == nil
}

func (s *Server) log() string { return filepath.Join(s.dir, "redis.log") }

// launch starts the process and waits until it answers.
func (s *Server) launch() error {
	s.mu.Lock()
	defer s.mu.Unlock()

	log, err := os.OpenFile(s.log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()

	path, err := binary()
	if err != nil {
		return err
	}
	_, port, _ := net.SplitHostPort(s.addr)
	cmd := exec.Command(path, append(s.args, "--bind", "127.0.0.1", "--port", port, "--dir", s.dir)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := startProcess(cmd); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	s.process, s.exited = cmd.Process, exited

	deadline := time.After(readyTimeout)
	for {
		err := s.answers()
		if err == nil {
			return nil
		}
		select {
		case <-exited:
			text, _ := os.ReadFile(s.log())
			if bytes.Contains(text, []byte("Address already in use")) {
				return errPortTaken
			}
			return fmt.Errorf("redis-server ended at once, its log:\n%s", text)
		case <-deadline:
			s.end(syscall.SIGKILL)
			text, _ := os.ReadFile(s.log())
			return fmt.Errorf("redis-server does not answer: %w, its log:\n%s", err, text)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// answers asks the server for a PING. That it is this process, and not another
// that took the port, is checked too.
func (s *Server) answers() error {
	conn, err := net.DialTimeout("tcp", s.addr, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("INFO server\r\nPING\r\n")); err != nil {
		return err
	}
	br := bufio.NewReader(conn)
	info, err := readFrame(br)
	if err != nil {
		return err
	}
	pong, err := readFrame(br)
	if err != nil {
		return err
	}
	if bytes.HasPrefix(pong, []byte("-NOAUTH")) {
		return nil // a password was asked for in args
	}
	if !bytes.Contains(info, fmt.Appendf(nil, "process_id:%d\r\n", s.process.Pid)) {
		return errors.New("another process has the port")
	}
	if !bytes.HasPrefix(pong, []byte("+PONG")) {
		return fmt.Errorf("PING: %q", pong)
	}
	return nil
}

// Addr returns the server's host and port. They stay the same over a Restart.
func (s *Server) Addr() string { return s.addr }

// Client returns a client of the server that is closed when tb ends. It honours
// the deadlines of contexts.
func (s *Server) Client(tb testing.TB, opts ...func(*redis.Options)) *redis.Client {
	tb.Helper()
	return client(tb, s.addr, opts...)
}

func client(tb testing.TB, addr string, opts ...func(*redis.Options)) *redis.Client {
	tb.Helper()
	o := &redis.Options{Addr: addr, ContextTimeoutEnabled: true}
	for _, opt := range opts {
		opt(o)
	}
	c := redis.NewClient(o)
	tb.Cleanup(func() { _ = c.Close() })
	return c
}

// ask calls fn with a client of the server that gives up at the first failure.
func (s *Server) ask(fn func(context.Context, *redis.Client) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c := redis.NewClient(&redis.Options{
		Addr:                  s.addr,
		Protocol:              2,
		MaxRetries:            -1,
		DialerRetries:         1,
		ReadTimeout:           time.Second,
		ContextTimeoutEnabled: true,
	})
	defer c.Close()
	return fn(ctx, c)
}

// Alive reports whether the process is there. A paused one is.
func (s *Server) Alive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.exited:
		return false
	default:
		return true
	}
}

// Kill ends the server at once, as a crash does. A server that is down stays so.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(syscall.SIGKILL)
}

// Stop shuts the server down in order: what is persisted is written.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.process.Signal(sigCont)
	s.end(syscall.SIGTERM)
}

// end sends sig and waits until the process is gone. s.mu is held.
func (s *Server) end(sig os.Signal) {
	_ = s.process.Signal(sig)
	select {
	case <-s.exited:
	case <-time.After(10 * time.Second):
		_ = s.process.Kill()
		<-s.exited
	}
}

// Restart starts a server again, under the same address and with the same files,
// after killing it if it runs. What was not persisted is lost.
func (s *Server) Restart(tb testing.TB) {
	tb.Helper()
	s.Kill()
	if err := s.launch(); err != nil {
		tb.Fatalf("redistest: %v", err)
	}
}

// Pause suspends the process: connections stay open, new ones are accepted by
// the kernel, and nothing is answered until Resume.
func (s *Server) Pause(tb testing.TB) {
	tb.Helper()
	s.signal(tb, sigStop)
}

// Resume lets a paused server go on.
func (s *Server) Resume(tb testing.TB) {
	tb.Helper()
	s.signal(tb, sigCont)
}

func (s *Server) signal(tb testing.TB, sig syscall.Signal) {
	tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.process.Signal(sig); err != nil {
		tb.Fatalf("redistest: %v", err)
	}
}

// eventually calls fn until it returns nil, and ends tb when that takes too long.
func eventually(tb testing.TB, what string, fn func() error) {
	tb.Helper()
	deadline := time.Now().Add(readyTimeout)
	for {
		err := fn()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("redistest: %s: not after %v: %v", what, readyTimeout, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
