package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// usage is what a server process has spent since it started.
type usage struct {
	CPU     time.Duration // user and system
	Mallocs uint64
	Heap    uint64 // bytes in live and not yet swept objects
}

func currentUsage() (usage, error) {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		return usage{}, err
	}
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	cpu := time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
	return usage{CPU: cpu, Mallocs: ms.Mallocs, Heap: ms.HeapAlloc}, nil
}

// serve is the server process: it serves one contender, writes its address to
// stdout, answers every line on stdin with its usage, and ends with stdin.
func serve(name, redisAddr string) error {
	c, err := contenderNamed(name)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- c.serve(redisAddr, ln) }()
	fmt.Println(ln.Addr())

	ended := make(chan error, 1)
	go func() {
		in := bufio.NewScanner(os.Stdin)
		out := json.NewEncoder(os.Stdout)
		for in.Scan() {
			u, err := currentUsage()
			if err == nil {
				err = out.Encode(u)
			}
			if err != nil {
				ended <- err
				return
			}
		}
		ended <- in.Err()
	}()
	select {
	case err := <-failed:
		return fmt.Errorf("%s: %w", name, err)
	case err := <-ended:
		return err
	}
}

// A server is a contender in a process of its own.
type server struct {
	contender
	addr string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
}

// startServer starts this program again as a server that has one core.
func startServer(c contender, redisAddr string) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &server{contender: c, cmd: exec.Command(self, "-serve", c.name, "-redis", redisAddr)}
	s.cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	s.cmd.Stderr = os.Stderr
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.out = bufio.NewReader(out)
	if err := startPinned(s.cmd, serverCore); err != nil {
		return nil, err
	}
	line, err := s.out.ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s did not start: %w", c.name, err), s.stop())
	}
	s.addr = strings.TrimSpace(line)
	return s, nil
}

func (s *server) usage() (u usage, err error) {
	if _, err := io.WriteString(s.in, "\n"); err != nil {
		return u, err
	}
	line, err := s.out.ReadBytes('\n')
	if err != nil {
		return u, err
	}
	err = json.Unmarshal(line, &u)
	return u, err
}

// stop ends the process, by force when it does not end by itself.
func (s *server) stop() error {
	s.in.Close()
	force := time.AfterFunc(5*time.Second, func() { s.cmd.Process.Kill() })
	defer force.Stop()
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return nil
}
