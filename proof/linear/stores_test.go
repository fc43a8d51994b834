package linear_test

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"math/big"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
	"github.com/echosession/echosession/proof/linear"
)

// newSeed draws the seed of a run.
func newSeed() uint64 {
	n, _ := rand.Int(rand.Reader, big.NewInt(1e9))
	return n.Uint64()
}

// A backend is what sessions are kept in. connect returns, for one history, the
// Config of a process each time it is called.
type backend struct {
	name      string
	prepare   func(t *testing.T) *farm
	processes int
	caching   bool // with a client-side cache
	staleOpen bool
}

// farm is where the histories of a backend take place.
type farm struct {
	servers []*redistest.Server // none for the memory store

	// connect returns the Config of one more process, whose connections go
	// through the proxies.
	connect func(t *testing.T, proxies []*redistest.Proxy) echosession.Config
}

var backends = []backend{
	{name: "memory", processes: 1, prepare: inMemory},
	{name: "client", processes: 2, prepare: standalone(func(o *redis.Options) {}, plain)},
	{name: "client without deadlines", processes: 2, prepare: standalone(func(o *redis.Options) { o.ContextTimeoutEnabled = false }, plain)},
	{name: "auto-pipeliner", processes: 2, prepare: standalone(func(*redis.Options) {}, pipelined)},
	{name: "caching, one process", processes: 1, caching: true, prepare: standalone(caching, plain)},
	{name: "caching, two processes", processes: 2, caching: true, staleOpen: true, prepare: standalone(caching, plain)},
	{name: "cluster", processes: 2, prepare: clustered},
}

func inMemory(*testing.T) *farm { return &farm{} }

func caching(o *redis.Options) { o.ClientSideCacheConfig = &redis.ClientSideCacheConfig{} }

func plain(_ *testing.T, c *redis.Client) echosession.RedisClient { return c }

func pipelined(t *testing.T, c *redis.Client) echosession.RedisClient {
	ap, err := c.AutoPipeline()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ap.Close() })
	return ap
}

func standalone(option func(*redis.Options), face func(*testing.T, *redis.Client) echosession.RedisClient) func(*testing.T) *farm {
	return func(t *testing.T) *farm {
		server := redistest.Shared(t)
		return &farm{[]*redistest.Server{server}, func(t *testing.T, proxies []*redistest.Proxy) echosession.Config {
			client := server.Client(t, option, func(o *redis.Options) { o.Dialer = redistest.Through(proxies...) })
			return echosession.Config{Client: face(t, client)}
		}}
	}
}

func clustered(t *testing.T) *farm {
	cluster := redistest.StartCluster(t, 3, 0)
	return &farm{cluster.Servers, func(t *testing.T, proxies []*redistest.Proxy) echosession.Config {
		return echosession.Config{Client: cluster.Client(t, func(o *redis.ClusterOptions) { o.Dialer = redistest.Through(proxies...) })}
	}}
}

// uncached is longer than a process uses no cache after it has begun to hear of ends.
const uncached = 1200 * time.Millisecond

// warmUp lets processes with a cache begin to use it.
func warmUp(t *testing.T, all []linear.Workload) {
	for _, w := range all {
		for _, m := range w.Managers {
			s, err := m.Create(t.Context(), linear.Data{})
			for err != nil { // a fault
				s, err = m.Create(t.Context(), linear.Data{})
			}
			_, _ = m.Open(t.Context(), s.Token()) // a fault does not matter
		}
	}
	time.Sleep(uncached)
}

// goDown lets the store be down now and then, until it is over.
func (tr *trial) goDown(over <-chan struct{}, up, down time.Duration) {
	defer tr.down.Store(false)
	for {
		wait := up
		if tr.down.Load() {
			wait = down
		}
		select {
		case <-over:
			return
		case <-time.After(wait/4 + mathrand.N(wait)):
			tr.down.Store(!tr.down.Load())
		}
	}
}

var secret = []byte("0123456789abcdef0123456789abcdef")

// storeTimeout is short, so that a lost reply does not hold up a history.
const storeTimeout = 150 * time.Millisecond

// soon is how long a watch may go on after its session has ended, at a store that tells of
// ends: it is sooner than a sweep finds out. While nothing tells of ends, sessions are asked
// about every 5 seconds.
const (
	soon     = 4 * time.Second
	patience = 10 * time.Second
)

// staleFor is the shortest Config.StaleFor.
const staleFor = time.Second

// trial is one history in the making.
type trial struct {
	seed    uint64
	random  *mathrand.Rand
	faults  *faults // nil for none
	grace   bool
	indexed bool
	wrap    func(echosession.Store) echosession.Store

	slow time.Duration // how long an operation of a memory store takes at most, twice
	down *atomic.Bool  // whether the store is down

	caches   []*redis.Client
	proxies  []*redistest.Proxy
	outages  bool          // the store is down now and then
	staleFor time.Duration // see echosession.Config, 0 for no stale pages
}

// workload prepares a history on a backend. What it is like is drawn from the seed.
func (tr *trial) workload(t *testing.T, b backend, f *farm) linear.Workload {
	var proxies []*redistest.Proxy
	for _, s := range f.servers {
		p := redistest.NewProxy(t, s.Addr())
		if tr.faults != nil {
			tr.faults.reach(p, tr.down)
		}
		proxies = append(proxies, p)
	}
	tr.proxies = proxies
	var memory echosession.Store
	if len(f.servers) == 0 {
		store := echosession.NewMemoryStore()
		t.Cleanup(func() { _ = store.Close() })
		memory = &slowStore{store, tr.faults, tr.slow, tr.down}
	}
	w := linear.Workload{
		Seed: tr.seed, Clients: 4 + tr.random.IntN(3), Operations: 13 + tr.random.IntN(8), Sessions: 1 + tr.random.IntN(2),
		Grace: tr.grace, Indexed: tr.indexed, StaleOpen: b.staleOpen,
		OneStep: len(f.servers) == 0, Faultless: tr.faults == nil,
		Watches: true, Patience: soon, Tickets: true, StaleFor: tr.staleFor,
	}
	if tr.staleFor > 0 {
		w.Operations += w.Operations / 4 // as many as before beside the pages
	}
	keyspace := "linear-" + rand.Text() + ":"
	for range b.processes {
		cfg := echosession.Config{Store: memory}
		if memory == nil {
			cfg = f.connect(t, proxies)
		}
		if tr.wrap != nil {
			if cfg.Store == nil {
				store, err := echosession.NewRedisStore(cfg.Client, echosession.RedisOptions{Keyspace: keyspace})
				if err != nil {
					t.Fatal(err)
				}
				cfg.Store, cfg.Client = store, nil
			}
			cfg.Store = tr.wrap(cfg.Store)
		}
		cfg.Secret, cfg.Logger = secret, slog.New(slog.DiscardHandler)
		cfg.Keyspace = keyspace
		if _, ok := cfg.Store.(echosession.TicketStore); ok || cfg.Store == nil {
			cfg.TokenLookup = linear.TicketLookup
		} else {
			w.Tickets = false
		}
		cfg.StaleFor = tr.staleFor
		cfg.MaxAge = 10 * time.Minute
		cfg.TouchInterval = time.Minute
		cfg.SubjectIndex = tr.indexed
		cfg.RotateGrace = time.Minute
		if !tr.grace {
			cfg.RotateGrace = echosession.NoGrace
		}
		if tr.faults != nil {
			cfg.StoreTimeout = storeTimeout
		} else {
			cfg.StoreTimeout = 10 * time.Second
		}
		m, err := echosession.New[linear.Data](cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = m.Close() })
		w.Managers = append(w.Managers, m)
		if c, ok := cfg.Client.(*redis.Client); ok && b.caching {
			tr.caches = append(tr.caches, c)
		}
	}
	return w
}

func newTrial(seed uint64, faulty bool) *trial {
	tr := &trial{seed: seed, random: mathrand.New(mathrand.NewPCG(seed, 1)), slow: 100 * time.Microsecond, down: new(atomic.Bool)}
	tr.grace = tr.random.IntN(3) > 0
	tr.indexed = tr.random.IntN(2) == 0
	if faulty {
		tr.faults = &faults{random: mathrand.New(mathrand.NewPCG(seed, 2))}
		tr.staleFor, tr.outages = staleFor, tr.random.IntN(2) == 0
	}
	return tr
}

// faults breaks the wire to a server, or a memory store.
type faults struct {
	mu     sync.Mutex
	random *mathrand.Rand
	count  atomic.Int64

	on      atomic.Bool
	proxies []*redistest.Proxy
}

// chance is true once in n times.
func (f *faults) chance(n int) bool {
	if f == nil || !f.on.Load() {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.random.IntN(n) > 0 {
		return false
	}
	f.count.Add(1)
	return true
}

// reach lets faults happen on a proxy. While down is set the server behind it does nothing.
func (f *faults) reach(p *redistest.Proxy, down *atomic.Bool) {
	f.proxies = append(f.proxies, p)
	// go-redis does not try this one again, which would take longer than the outage.
	p.On(func([]string) bool { return down.Load() }, -1, redistest.Reply("-MISCONF Redis is configured to save RDB snapshots\r\n"))
	ours := redistest.Named("GET", "GETEX", "GETDEL", "SET", "DEL", "EVALSHA", "EVAL", "PUBLISH")
	for _, rule := range []struct {
		n      int // once in n commands
		action redistest.Action
	}{
		{50, redistest.DropReply()},
		{80, redistest.DropRequest()},
		{150, redistest.CutReply(0)},
		{150, redistest.CutReply(3)},
		{150, redistest.CutReply(-1)},
		{30, redistest.Delay(3 * time.Millisecond)},
		{400, redistest.Delay(2 * storeTimeout)},
		{400, redistest.Hang()},
		{200, redistest.Reply("-LOADING Redis is loading the dataset in memory\r\n")},
		{200, redistest.Reply("-READONLY You can't write against a read only replica.\r\n")},
	} {
		p.On(func(cmd []string) bool { return ours(cmd) && f.chance(rule.n) }, -1, rule.action)
	}
	forgotten := redistest.Reply("-NOSCRIPT No matching script. Please use EVAL.\r\n")
	p.On(func(cmd []string) bool { return cmd[0] == "EVALSHA" && f.chance(100) }, -1, forgotten)
}

// disconnect closes all connections now and then, until it is over.
func (f *faults) disconnect(over <-chan struct{}) {
	for {
		for _, p := range f.proxies {
			if f.chance(5) {
				p.Disconnect()
			}
		}
		select {
		case <-over:
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Watch implements echosession.Watcher. With faults it breaks off now and then, which loses
// a hint, and repeats old hints.
func (s *slowStore) Watch(ctx context.Context, tell func(echosession.Hint)) error {
	w, ok := s.Store.(echosession.Watcher)
	if !ok {
		return errors.ErrUnsupported
	}
	ctx, interrupt := context.WithCancel(ctx)
	defer interrupt()
	var last echosession.Hint // the store tells one hint after the other
	return w.Watch(ctx, func(hint echosession.Hint) {
		if s.faults.chance(20) {
			interrupt()
		}
		if ctx.Err() != nil {
			return
		}
		tell(hint)
		if s.faults.chance(5) {
			tell(last)
		}
		last = hint
	})
}

// slowStore gives the operations of a memory store the time to overlap and, with
// faults, fails before or after.
type slowStore struct {
	echosession.Store
	faults *faults
	slow   time.Duration
	down   *atomic.Bool
}

func (s *slowStore) write(do func() error) error {
	s.pause()
	defer s.pause()
	down := s.down.Load()
	if s.faults.chance(40) || down && mathrand.IntN(3) > 0 {
		return echosession.ErrStoreUnavailable
	}
	err := do()
	if s.faults.chance(30) || down {
		return echosession.ErrIndeterminate
	}
	return err
}

func (s *slowStore) pause() { time.Sleep(mathrand.N(s.slow)) }

func (s *slowStore) fails() bool { return s.faults.chance(40) || s.down.Load() }

func (s *slowStore) Load(ctx context.Context, ref echosession.Ref, ttl time.Duration) (record []byte, err error) {
	s.pause()
	defer s.pause()
	if s.fails() {
		return nil, echosession.ErrStoreUnavailable
	}
	return s.Store.Load(ctx, ref, ttl)
}

func (s *slowStore) Create(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) (evicted []string, err error) {
	err = s.write(func() (err error) {
		evicted, err = s.Store.Create(ctx, ref, record, ttl, limit)
		return err
	})
	return evicted, err
}

func (s *slowStore) Replace(ctx context.Context, ref echosession.Ref, old, record []byte, ttl time.Duration) error {
	return s.write(func() error { return s.Store.Replace(ctx, ref, old, record, ttl) })
}

func (s *slowStore) Touch(ctx context.Context, ref echosession.Ref, ttl time.Duration) error {
	return s.write(func() error { return s.Store.Touch(ctx, ref, ttl) })
}

func (s *slowStore) Delete(ctx context.Context, ref echosession.Ref) error {
	return s.write(func() error { return s.Store.Delete(ctx, ref) })
}

func (s *slowStore) Rotate(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl, grace time.Duration) error {
	return s.write(func() error { return s.Store.Rotate(ctx, from, to, old, record, ttl, grace) })
}

func (s *slowStore) Renew(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) (evicted []string, err error) {
	err = s.write(func() (err error) {
		evicted, err = s.Store.Renew(ctx, from, to, old, record, ttl, limit)
		return err
	})
	return evicted, err
}

func (s *slowStore) Check(ctx context.Context, ref echosession.Ref) (left time.Duration, err error) {
	s.pause()
	defer s.pause()
	if s.fails() {
		return 0, echosession.ErrStoreUnavailable
	}
	return s.Store.Check(ctx, ref)
}

func (s *slowStore) PutTicket(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return s.write(func() error { return s.Store.(echosession.TicketStore).PutTicket(ctx, key, value, ttl) })
}

func (s *slowStore) TakeTicket(ctx context.Context, key string) (value []byte, err error) {
	err = s.write(func() (err error) {
		value, err = s.Store.(echosession.TicketStore).TakeTicket(ctx, key)
		return err
	})
	if err != nil {
		return nil, err
	}
	return value, nil
}

func (s *slowStore) DeleteSubject(ctx context.Context, subject string, except []string) (n int, err error) {
	err = s.write(func() (err error) {
		n, err = s.Store.DeleteSubject(ctx, subject, except)
		return err
	})
	return n, err
}
