package redistest_test

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession/internal/redistest"
)

// childEnv makes the test binary start a server, tell its process ID and wait to
// be killed.
const childEnv = "REDISTEST_CHILD"

func TestMain(m *testing.M) {
	redistest.Parallel(16)
	redistest.Main(m)
}

// pid returns the process ID of a server by its own account.
func pid(tb testing.TB, s *redistest.Server) int {
	tb.Helper()
	info, err := s.Client(tb).InfoMap(context.Background(), "server").Result()
	if err != nil {
		tb.Fatal(err)
	}
	n, err := strconv.Atoi(info["Server"]["process_id"])
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

func waitFor(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("%s: not after 10 s", what)
		}
	}
}

func gone(pid int) bool {
	p, err := os.FindProcess(pid)
	return err != nil || errors.Is(p.Signal(syscall.Signal(0)), os.ErrProcessDone)
}

func TestServer(t *testing.T) {
	ctx := t.Context()

	t.Run("answers and ends with its test", func(t *testing.T) {
		var s *redistest.Server
		var id int
		t.Run("inner", func(t *testing.T) {
			s = redistest.Start(t)
			id = pid(t, s)
			if err := s.Client(t).Set(ctx, "k", "v", 0).Err(); err != nil {
				t.Fatal(err)
			}
		})
		if s == nil {
			t.Skip("no server was started")
		}
		if s.Alive() || !gone(id) {
			t.Error("the server outlived its test")
		}
	})

	t.Run("starts in under a second", func(t *testing.T) {
		begin := time.Now()
		redistest.Start(t)
		if d := time.Since(begin); d > time.Second {
			t.Errorf("start took %v", d)
		}
	})

	t.Run("args win over defaults", func(t *testing.T) {
		c := redistest.Start(t, "--maxmemory", "3mb").Client(t)
		got, err := c.ConfigGet(ctx, "maxmemory").Result()
		if err != nil || got["maxmemory"] != strconv.Itoa(3<<20) {
			t.Errorf("maxmemory = %v, %v", got, err)
		}
	})

	t.Run("a password in args does not look like a failure", func(t *testing.T) {
		s := redistest.Start(t, "--requirepass", "x")
		c := s.Client(t, func(o *redis.Options) { o.Password = "x" })
		if err := c.Ping(ctx).Err(); err != nil {
			t.Error(err)
		}
	})

	t.Run("listens on loopback only and keeps nothing", func(t *testing.T) {
		c := redistest.Start(t).Client(t)
		got, err := c.ConfigGet(ctx, "*").Result()
		if err != nil {
			t.Fatal(err)
		}
		if got["bind"] != "127.0.0.1" || got["save"] != "" || got["appendonly"] != "no" {
			t.Errorf("bind %q, save %q, appendonly %q", got["bind"], got["save"], got["appendonly"])
		}
	})

	t.Run("many at once get ports of their own", func(t *testing.T) {
		for i := range 8 {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				if err := redistest.Start(t).Client(t).Ping(t.Context()).Err(); err != nil {
					t.Error(err)
				}
			})
		}
	})
}

func TestServerThatIsDisturbed(t *testing.T) {
	ctx := t.Context()

	t.Run("Kill, Stop and Restart keep the address", func(t *testing.T) {
		s := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
		c := s.Client(t, func(o *redis.Options) { o.MaxRetries, o.DialerRetries = -1, 1 })
		for name, end := range map[string]func(){"Kill": s.Kill, "Stop": s.Stop} {
			if err := c.Set(ctx, name, "v", 0).Err(); err != nil {
				t.Fatal(err)
			}
			end()
			if err := c.Ping(ctx).Err(); err == nil || s.Alive() {
				t.Errorf("the server answers after %s", name)
			}
			s.Restart(t)
			if err := c.Get(ctx, name).Err(); err != nil {
				t.Errorf("a persisted key after %s and Restart: %v", name, err)
			}
		}
	})

	t.Run("a paused server hangs until it is resumed", func(t *testing.T) {
		s := redistest.Start(t)
		c := s.Client(t, func(o *redis.Options) { o.MaxRetries = -1 })
		if err := c.Ping(ctx).Err(); err != nil {
			t.Fatal(err)
		}
		s.Pause(t)
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		if err := c.Ping(short).Err(); err == nil {
			t.Error("a paused server answers")
		}
		s.Resume(t)
		if err := c.Ping(ctx).Err(); err != nil {
			t.Errorf("after Resume: %v", err)
		}
	})

	t.Run("a paused server can be stopped", func(t *testing.T) {
		s := redistest.Start(t)
		s.Pause(t)
		begin := time.Now()
		s.Stop()
		if d := time.Since(begin); s.Alive() || d > 5*time.Second {
			t.Errorf("it is alive: %t, after %v", s.Alive(), d)
		}
	})
}

// A server with TLS takes those who trust its authority and, if it asks for certificates,
// have one.
func TestTLS(t *testing.T) {
	t.Parallel()
	for _, asks := range []bool{false, true} {
		t.Run(fmt.Sprint("client certificates ", asks), func(t *testing.T) {
			t.Parallel()
			s := redistest.StartTLS(t, asks)
			ca, err := os.ReadFile(s.CA)
			if err != nil {
				t.Fatal(err)
			}
			pair, err := tls.LoadX509KeyPair(s.Cert, s.Key)
			if err != nil {
				t.Fatal(err)
			}
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM(ca)
			ping := func(config *tls.Config) error {
				c := redis.NewClient(&redis.Options{Addr: s.TLSAddr, TLSConfig: config, MaxRetries: -1, DialerRetries: 1})
				defer c.Close()
				return c.Ping(t.Context()).Err()
			}
			if err := ping(&tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}); err != nil {
				t.Error(err)
			}
			if err := ping(&tls.Config{RootCAs: roots}); (err != nil) != asks {
				t.Errorf("without a certificate: %v", err)
			}
			if ping(&tls.Config{Certificates: []tls.Certificate{pair}}) == nil || ping(nil) == nil {
				t.Error("it answers whoever does not trust it, or does not speak TLS")
			}
			if err := s.Client(t).Ping(t.Context()).Err(); err != nil {
				t.Errorf("without TLS, on the other port: %v", err)
			}
		})
	}
}

func TestShared(t *testing.T) {
	ctx := t.Context()

	t.Run("is one server", func(t *testing.T) {
		one, two := redistest.Shared(t), redistest.Shared(t)
		if one != two {
			t.Error("two servers")
		}
		if err := one.Client(t).Ping(ctx).Err(); err != nil {
			t.Error(err)
		}
	})
}

func TestServerProgram(t *testing.T) {
	t.Run("a start that fails shows the log", func(t *testing.T) {
		redistest.Shared(t) // skips where there is no server to be had
		rec := record(func(tb testing.TB) { redistest.Start(tb, "--no-such-option", "1") }, t)
		if !rec.fatal || !strings.Contains(rec.text, "no-such-option") {
			t.Errorf("fatal %t, text %q", rec.fatal, rec.text)
		}
	})

	t.Run("no binary: skipped, or failed when it is required", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		t.Setenv("ECHOSESSION_REDIS", "")
		t.Setenv("ECHOSESSION_REQUIRE_REDIS", "")
		rec := record(func(tb testing.TB) { redistest.Start(tb) }, t)
		if !rec.skipped || !strings.Contains(rec.text, "redis-server") {
			t.Errorf("skipped %t, text %q", rec.skipped, rec.text)
		}
		t.Setenv("ECHOSESSION_REQUIRE_REDIS", "1")
		rec = record(func(tb testing.TB) { redistest.Start(tb) }, t)
		if !rec.fatal || rec.skipped {
			t.Errorf("fatal %t, skipped %t", rec.fatal, rec.skipped)
		}
	})
	t.Run("ECHOSESSION_REDIS is the program", func(t *testing.T) {
		redistest.Shared(t) // skips where there is no server to be had
		path, err := exec.LookPath(cmp.Or(os.Getenv("ECHOSESSION_REDIS"), "redis-server"))
		if err != nil {
			t.Fatal(err)
		}
		other := filepath.Join(t.TempDir(), "other-server")
		if err := os.Symlink(path, other); err != nil {
			t.Fatal(err)
		}
		t.Setenv("ECHOSESSION_REDIS", other)
		t.Setenv("PATH", t.TempDir())
		info, err := redistest.Start(t).Client(t).InfoMap(t.Context(), "server").Result()
		if err != nil || info["Server"]["executable"] != other {
			t.Errorf("it runs %q, want %q: %v", info["Server"]["executable"], other, err)
		}
	})

	t.Run("ECHOSESSION_REDIS that cannot be run is a failure, never a skip", func(t *testing.T) {
		plain := filepath.Join(t.TempDir(), "plain")
		if err := os.WriteFile(plain, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("ECHOSESSION_REQUIRE_REDIS", "")
		for _, path := range []string{plain, plain + "-is-not-there", t.TempDir()} {
			t.Setenv("ECHOSESSION_REDIS", path)
			rec := record(func(tb testing.TB) { redistest.Start(tb) }, t)
			if !rec.fatal || rec.skipped || !strings.Contains(rec.text, "ECHOSESSION_REDIS: ") || !strings.Contains(rec.text, path) {
				t.Errorf("%s: fatal %t, skipped %t, text %q", path, rec.fatal, rec.skipped, rec.text)
			}
		}
	})
}

func TestChild(t *testing.T) {
	if os.Getenv(childEnv) == "" {
		t.Skip("runs in a child process only")
	}
	fmt.Printf("\nserver %d %d\n", pid(t, redistest.Shared(t)), pid(t, redistest.Start(t)))
	select {}
}

func TestServersEndWithAKilledTestBinary(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ends a child with its parent")
	}
	redistest.Shared(t) // skips without a binary
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$", "-test.v")
	cmd.Env = append(os.Environ(), childEnv+"=1", "TMPDIR="+t.TempDir()) // a killed binary removes nothing
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	var shared, own int
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if n, _ := fmt.Sscanf(lines.Text(), "server %d %d", &shared, &own); n == 2 {
			break
		}
	}
	if shared == 0 || own == 0 || gone(shared) || gone(own) {
		t.Fatal("the child has no servers")
	}
	_ = cmd.Process.Kill()
	waitFor(t, "the child's servers end", func() bool { return gone(shared) && gone(own) })
}

func TestAssertNoKeyWithoutTTL(t *testing.T) {
	c := redistest.Start(t).Client(t)
	ctx := t.Context()
	for key, ttl := range map[string]time.Duration{"a*:1": time.Hour, "a*:2": time.Hour, "ab:1": 0} {
		if err := c.Set(ctx, key, "v", ttl).Err(); err != nil {
			t.Fatal(err)
		}
	}
	clients := map[string]redis.UniversalClient{
		"Client": c,
		"Ring": redis.NewRing(&redis.RingOptions{Addrs: map[string]string{
			"one": c.Options().Addr,
		}}),
	}
	defer clients["Ring"].Close()
	for name, client := range clients {
		t.Run(name, func(t *testing.T) {
			if n := redistest.AssertNoKeyWithoutTTL(t, client, "a*:"); n != 2 {
				t.Errorf("%d keys seen, want 2", n)
			}
			rec := record(func(tb testing.TB) { redistest.AssertNoKeyWithoutTTL(tb, client, "ab") }, t)
			if !rec.failed || !strings.Contains(rec.text, `"ab:1"`) {
				t.Errorf("failed %t, text %q", rec.failed, rec.text)
			}
		})
	}
}

// recorder is a testing.TB that keeps to itself how a check ended.
type recorder struct {
	testing.TB
	failed, fatal, skipped bool
	text                   string
}

// record runs fn as a test does, in a goroutine of its own.
func record(fn func(testing.TB), t *testing.T) *recorder {
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn(r)
	}()
	<-done
	return r
}

func (r *recorder) Errorf(format string, args ...any) {
	r.failed = true
	r.text += fmt.Sprintf(format, args...)
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.fatal = true
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Skipf(format string, args ...any) {
	r.skipped = true
	r.text += fmt.Sprintf(format, args...)
	runtime.Goexit()
}
