package redistest

import (
	"flag"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
)

// Parallel lets n parallel tests run at once, on few processors too, unless the
// flag -parallel says how many. A TestMain calls it before [Main] when most of its
// tests wait for servers.
func Parallel(n int) {
	const name = "test.parallel"
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	if !given {
		_ = flag.Set(name, strconv.Itoa(max(n, runtime.GOMAXPROCS(0))))
	}
}

var shared struct {
	mu     sync.Mutex
	main   bool
	server *Server
}

// Main runs the tests of a package that uses [Shared], and ends the shared server
// after them:
//
//	func TestMain(m *testing.M) { redistest.Main(m) }
func Main(m *testing.M) {
	shared.main = true
	m.Run()
	if s := shared.server; s != nil {
		s.Kill()
		_ = os.RemoveAll(s.dir)
	}
}

// Shared returns the one server of the test binary, which it starts when it is
// first called. Tests share it: each takes its own key prefix, none flushes,
// stops or pauses it.
func Shared(tb testing.TB) *Server {
	tb.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.server != nil {
		return shared.server
	}
	if !shared.main {
		tb.Fatal("redistest: Shared needs a TestMain that calls Main")
	}
	args := dataArgs(tb)
	dir, err := os.MkdirTemp("", "redistest")
	if err != nil {
		tb.Fatal(err)
	}
	s, err := startIn(dir, args)
	if err != nil {
		_ = os.RemoveAll(dir)
		tb.Fatalf("redistest: %v", err)
	}
	shared.server = s
	return s
}
