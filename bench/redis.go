package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// A redisServer is a Redis server of our own, without persistence.
type redisServer struct {
	*redis.Client
	addr string
	cmd  *exec.Cmd
	dir  string
}

// redisBinary returns the server's program: what ECHOSESSION_REDIS names, or the
// redis-server in PATH. chosen says that it was named.
func redisBinary() (path string, chosen bool, err error) {
	if name := os.Getenv("ECHOSESSION_REDIS"); name != "" {
		path, err = exec.LookPath(name)
		if err != nil {
			err = fmt.Errorf("ECHOSESSION_REDIS: %w", err)
		}
		return path, true, err
	}
	path, err = exec.LookPath("redis-server")
	if err != nil {
		err = errors.New("the benchmark needs redis-server in PATH (Debian: apt install redis-server; macOS: brew install redis)")
	}
	return path, false, err
}

func startRedis(ctx context.Context) (*redisServer, error) {
	path, _, err := redisBinary()
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "bench-redis-")
	if err != nil {
		return nil, err
	}
	r := &redisServer{
		addr: net.JoinHostPort("127.0.0.1", port),
		dir:  dir,
		cmd: exec.Command(path, "--bind", "127.0.0.1", "--port", port, "--dir", dir,
			"--save", "", "--appendonly", "no", "--daemonize", "no", "--maxclients", "5000"),
	}
	var log bytes.Buffer
	r.cmd.Stdout, r.cmd.Stderr = &log, &log
	if err := startPinned(r.cmd, loadCore); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	r.Client = redis.NewClient(plain(r.addr))
	if err := r.waitReady(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("redis-server did not start: %w", err), r.stop(), errors.New(log.String()))
	}
	return r, nil
}

func freePort() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return strconv.Itoa(ln.Addr().(*net.TCPAddr).Port), nil
}

func (r *redisServer) waitReady(ctx context.Context) (err error) {
	for range 100 {
		if err = r.Ping(ctx).Err(); err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
	return err
}

func (r *redisServer) stop() error {
	r.Client.Close()
	r.cmd.Process.Kill()
	r.cmd.Wait() // reports the kill
	return os.RemoveAll(r.dir)
}

// commands returns how often each command was executed so far, those inside
// scripts included, and those of this program's own bookkeeping left out.
func (r *redisServer) commands(ctx context.Context) (map[string]int64, error) {
	info, err := r.Info(ctx, "commandstats").Result()
	if err != nil {
		return nil, err
	}
	counts := make(map[string]int64)
	for line := range strings.Lines(info) {
		// cmdstat_getex:calls=12,usec=34,…
		name, rest, found := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		if !found || name == "info" {
			continue
		}
		calls, _, _ := strings.Cut(rest, ",")
		if counts[name], err = strconv.ParseInt(calls, 10, 64); err != nil {
			return nil, fmt.Errorf("commandstats line %q: %w", line, err)
		}
	}
	return counts, nil
}
