package costs_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// An operation is something whose cost is in the tables. Its run prepares it, hands it
// to rig.measure once, and returns an error when it did not do its work.
type operation struct {
	name    string
	indexed bool // it needs SubjectIndex
	run     func(r *rig) error
}

// A cost is what one operation takes.
type cost struct {
	commands              string // how many, and which
	trips, sent, received int    // round trips, bytes
	allocs                int
}

// variants are with what an operation is measured.
var variants = []string{"–", "subject", "sealed", "cookie", "all three"}

type (
	account struct {
		UserID    int64             `json:"user_id"`
		Name      string            `json:"name"`
		Email     string            `msgpack:"mail" json:"email"`
		Roles     []string          `json:"roles"`
		Admin     bool              `json:"admin,omitempty"`
		LastLogin time.Time         `json:"last_login"`
		Prefs     map[string]string `json:"prefs"`
		Cart      []cartItem        `json:"cart"`
	}
	cartItem struct {
		SKU string `msgpack:"sku"`
		Qty int    `msgpack:"qty,omitempty"`
	}
	accountSession = echosession.Session[account]
)

func anAccount() account {
	return account{
		UserID:    81723,
		Name:      "Ada Lovelace",
		Email:     "ada@example.com",
		Roles:     []string{"admin", "editor"},
		Admin:     true,
		LastLogin: time.Date(2026, 3, 1, 12, 30, 0, 123456789, time.UTC),
		Prefs:     map[string]string{"lang": "en", "theme": "dark"},
		Cart:      []cartItem{{"book", 1}, {"pen", 12}},
	}
}

// A clock stands still until it is advanced.
type clock struct{ nanoseconds atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.nanoseconds.Store(time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) Now() time.Time          { return time.Unix(0, c.nanoseconds.Load()) }
func (c *clock) Advance(d time.Duration) { c.nanoseconds.Add(int64(d)) }

func newManager(t testing.TB, cfg echosession.Config) *echosession.Manager[account] {
	t.Helper()
	m, err := echosession.New[account](cfg)
	if err != nil {
		t.Fatal(err)
	}
	// With client-side caching the Manager listens in the background. What that sends is
	// not part of an operation.
	m.Close()
	return m
}

var testSecret = []byte("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")

// A rig is what operations are measured with: one client and one variant.
type rig struct {
	t      testing.TB
	ctx    context.Context
	clock  *clock
	m      *echosession.Manager[account] // is measured
	back   *echosession.Manager[account] // works behind its back, through a client of its own
	echo   *echo.Echo
	cookie bool
	tap    *wiretap     // nil for the memory store
	clean  func()       // deletes every session
	settle func() error // waits for what a server tells a cache unasked, or nil

	indexed bool
	runs    int
	subject string
	opts    []echosession.CreateOption

	before, after runtime.MemStats
	last          cost
	data          account
	claims        echosession.Claims
}

// A costClient is a kind of client that the store can be handed.
type costClient struct {
	name    string
	config  echosession.Config // of the Manager that is measured
	back    echosession.Config
	tap     *wiretap
	masters []*redis.Client
}

func newRig(t testing.TB, client costClient, variant string) *rig {
	t.Helper()
	r := &rig{t: t, ctx: context.Background(), clock: newClock(), echo: echo.New(), tap: client.tap}
	r.indexed = variant == "subject" || variant == "all three"
	r.cookie = variant == "cookie" || variant == "all three"
	// The braces keep a cluster's keys in one slot, so that All finds them at one node.
	keyspace := "{costs-" + rand.Text()[:14] + "}:"
	configure := func(cfg echosession.Config) echosession.Config {
		cfg.Keyspace, cfg.Secret, cfg.Now = keyspace, testSecret, r.clock.Now
		// Seven digits of milliseconds, also when some have passed.
		cfg.MaxAge, cfg.StoreTimeout = 90*time.Minute, patience
		cfg.SubjectIndex = r.indexed
		if variant == "sealed" || variant == "all three" {
			cfg.EncryptionKeys = [][]byte{bytes.Repeat([]byte{1}, 32)}
		}
		cfg.TokenLookup = "bearer,header:X-Access-Token,query:accessToken,body:accessToken,ticket:ticket" // the default, and tickets
		if r.cookie {
			cfg.Cookie = &echosession.Cookie{Persistent: true}
			cfg.TokenLookup += ",cookie"
		}
		return cfg
	}
	r.m = newManager(t, configure(client.config))
	r.back = newManager(t, configure(client.back))
	r.clean = func() {
		for _, master := range client.masters {
			keys, err := master.Keys(r.ctx, keyspace+"*").Result()
			if err == nil && len(keys) > 0 {
				err = master.Del(r.ctx, keys...).Err()
			}
			r.must(err)
		}
		for sess, err := range r.back.All(r.ctx) {
			r.must(err)
			r.must(sess.Destroy(r.ctx))
		}
	}
	if c, ok := client.config.Client.(*redis.Client); ok {
		r.settle = func() error { return c.Ping(r.ctx).Err() }
	}
	r.fillCache()
	return r
}

// fillCache makes m remember tokens, so that it has its maps when it is measured. The
// context that is over keeps the store out of it.
func (r *rig) fillCache() {
	elsewhere := newManager(r.t, echosession.Config{
		Store: echosession.NewMemoryStore(), Secret: testSecret, Now: r.clock.Now, SubjectIndex: r.indexed,
	})
	over, cancel := context.WithCancel(r.ctx)
	cancel()
	for range 300 {
		sess, err := elsewhere.Create(r.ctx, account{})
		r.must(err)
		if _, err := r.m.Open(over, sess.Token()); !errors.Is(err, echosession.ErrStoreUnavailable) {
			r.t.Fatal(err)
		}
	}
}

// run runs an operation, and returns what it cost.
func (r *rig) run(op operation) cost {
	r.runs++
	r.opts = nil
	if r.indexed {
		r.subject = fmt.Sprintf("user %04d", r.runs)
		r.opts = []echosession.CreateOption{echosession.WithSubject(r.subject)}
	}
	r.last = cost{commands: "not measured"}
	if err := op.run(r); err != nil {
		r.t.Fatalf("%s: %v", op.name, err)
	}
	return r.last
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// measure calls do once, and keeps what it cost.
func (r *rig) measure(do func() error) error {
	if r.settle != nil {
		r.must(r.settle())
	}
	r.tap.start()
	runtime.ReadMemStats(&r.before)
	err := do()
	runtime.ReadMemStats(&r.after)
	r.last = r.tap.stop()
	r.last.allocs = int(r.after.Mallocs - r.before.Mallocs)
	return err
}

// session makes a session of this run's subject that m has not seen.
func (r *rig) session() *accountSession {
	sess, err := r.back.Create(r.ctx, anAccount(), r.opts...)
	r.must(err)
	return sess
}

// opened returns the token of a session that m has touched and that a client-side
// cache has: what a server tells the cache of the touch undoes the first read.
func (r *rig) opened() string {
	token := r.session().Token()
	r.openUnmeasured(token, 3)
	return token
}

// rotated returns the old token of a session that was rotated, which m knows.
func (r *rig) rotated() string {
	sess := r.session()
	old := sess.Token()
	_, err := sess.Rotate(r.ctx)
	r.must(err)
	r.openUnmeasured(old, 3)
	return old
}

// renewed returns the old token of a session that was renewed.
func (r *rig) renewed() string {
	token := r.opened()
	sess, err := r.back.Open(r.ctx, token)
	r.must(err)
	_, err = sess.Renew(r.ctx, countUp)
	r.must(err)
	return token
}

func (r *rig) openUnmeasured(token string, times int) {
	for range times {
		sess, err := r.m.Open(r.ctx, token)
		r.must(err)
		r.must(sess.Reason())
	}
}

// open measures Open.
func (r *rig) open(token string) error {
	return r.measure(func() error {
		sess, err := r.m.Open(r.ctx, token)
		if err != nil {
			return err
		}
		return sess.Reason()
	})
}

// create calls Create on a handle.
func (r *rig) create(sess *accountSession) error {
	_, err := sess.Create(r.ctx, anAccount(), r.opts...)
	return err
}

func (r *rig) handler(next echo.HandlerFunc) echo.HandlerFunc { return r.m.Middleware()(next) }

// ticket returns a ticket of a session that m has touched.
func (r *rig) ticket() string {
	sess, err := r.back.Open(r.ctx, r.opened())
	r.must(err)
	ticket, err := sess.Ticket(r.ctx, "/")
	r.must(err)
	return ticket
}

// redeem is get for a ticket.
func (r *rig) redeem(ticket string, reason error) error {
	c := r.context("")
	c.Request().URL.RawQuery = "ticket=" + ticket
	return r.getIn(c, reason)
}

// context is that of a request with a token, in a cookie where there are cookies.
func (r *rig) context(token string) echo.Context {
	req := httptest.NewRequest(http.MethodGet, "/", nil)
	switch {
	case token == "":
	case r.cookie:
		req.AddCookie(&http.Cookie{Name: "__Host-session", Value: token})
	default:
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return r.echo.NewContext(req, httptest.NewRecorder())
}

// request measures a whole request, with the middleware.
func (r *rig) request(token string, next echo.HandlerFunc) error {
	h, c := r.handler(next), r.context(token)
	return r.measure(func() error { return h(c) })
}

// get measures a request whose handler does a Get, and finds no session for this
// reason.
func (r *rig) get(token string, reason error) error { return r.getIn(r.context(token), reason) }

func (r *rig) getIn(c echo.Context, reason error) error {
	var sess *accountSession
	h := r.handler(func(c echo.Context) (err error) {
		sess, err = r.m.Get(c)
		return err
	})
	err := r.measure(func() error { return h(c) })
	if err == nil && !errors.Is(sess.Reason(), reason) {
		err = fmt.Errorf("the reason is %w, not %w", sess.Reason(), reason)
	}
	return err
}

// within measures what a handler does with its session, after Get and first.
func (r *rig) within(token string, first func(*accountSession), do func(*accountSession) error) error {
	h := r.handler(func(c echo.Context) error {
		sess, err := r.m.Get(c)
		if err != nil {
			return err
		}
		if first != nil {
			first(sess)
		}
		return r.measure(func() error { return do(sess) })
	})
	return h(r.context(token))
}

// memoryClient is the memory store.
func memoryClient() costClient {
	store := echosession.NewMemoryStore()
	return costClient{name: "memory", config: echosession.Config{Store: store}, back: echosession.Config{Store: store}}
}

// costClients names what sessions can be kept in, one column each.
var costClients = []string{"memory", "plain", "no deadlines", "pipelined", "caching", "failover", "cluster"}

const (
	plainClient = "plain" // whose commands are in the first table
	patience    = 30 * time.Second
)

// redisClients starts servers of their own: All sees every key of a server.
func redisClients(t *testing.T) []costClient {
	server := redistest.Start(t)
	sentinel := redistest.StartSentinel(t, 0, 1)
	cluster := redistest.StartCluster(t, 3, 0)

	one := func(name string, of *redistest.Server, client func(*wiretap) echosession.RedisClient) costClient {
		tap := newWiretap(t, of.Addr())
		back := of.Client(t)
		return costClient{name, echosession.Config{Client: client(tap)}, echosession.Config{Client: back}, tap, []*redis.Client{back}}
	}
	// A pool of one: the commands of an operation share a connection that is there. The
	// patience keeps a busy machine from making a client ask twice.
	tapped := func(tap *wiretap, opts ...func(*redis.Options)) *redis.Client {
		return server.Client(t, append(opts, func(o *redis.Options) {
			o.Dialer, o.PoolSize, o.ReadTimeout = tap.dial, 1, patience
		})...)
	}
	clients := []costClient{
		one(plainClient, server, func(tap *wiretap) echosession.RedisClient { return tapped(tap) }),
		one("no deadlines", server, func(tap *wiretap) echosession.RedisClient {
			return tapped(tap, func(o *redis.Options) { o.ContextTimeoutEnabled = false })
		}),
		one("pipelined", server, func(tap *wiretap) echosession.RedisClient {
			pipelined, err := tapped(tap).AutoPipelineWithOptions(nil)
			if err != nil {
				t.Fatal(err)
			}
			return pipelined
		}),
		one("caching", server, func(tap *wiretap) echosession.RedisClient {
			return tapped(tap, func(o *redis.Options) {
				o.Protocol, o.ClientSideCacheConfig = 3, new(redis.ClientSideCacheConfig)
			})
		}),
		one("failover", sentinel.Primary(t), func(tap *wiretap) echosession.RedisClient {
			return sentinel.FailoverClient(t, func(o *redis.FailoverOptions) {
				o.Dialer, o.PoolSize, o.ReadTimeout = tap.dial, 1, patience
			})
		}),
	}
	tap := newWiretap(t, cluster.Addrs()...)
	clustered := costClient{
		name: "cluster",
		config: echosession.Config{Client: cluster.Client(t, func(o *redis.ClusterOptions) {
			o.Dialer, o.PoolSize, o.ReadTimeout = tap.dial, 1, patience
		})},
		back: echosession.Config{Client: cluster.Client(t)},
		tap:  tap,
	}
	for _, master := range cluster.Servers {
		clustered.masters = append(clustered.masters, master.Client(t))
	}
	return append(clients, clustered)
}

// A wiretap counts what goes over the connections to some servers. A nil one hears
// nothing.
type wiretap struct {
	addrs   []string
	scripts map[string]string // file names by SHA-1

	mu    sync.Mutex
	conns []*tappedConn
}

func newWiretap(t testing.TB, addrs ...string) *wiretap {
	t.Helper()
	w := &wiretap{addrs: addrs, scripts: make(map[string]string)}
	files, err := filepath.Glob("../../lua/*.lua")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts: ", err)
	}
	prelude, err := os.ReadFile("../../lua/prelude.lua")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha1.Sum(slices.Concat(prelude, source))
		w.scripts[hex.EncodeToString(sum[:])] = filepath.Base(file)
	}
	return w
}

// dial is the dialer of a client.
func (w *wiretap) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil || !slices.Contains(w.addrs, addr) {
		return conn, err // a sentinel's
	}
	c := &tappedConn{
		TCPConn: conn.(*net.TCPConn), tap: w,
		sent: make([]byte, 0, 1<<16), received: make([]byte, 0, 1<<16), turns: make([]int, 0, 64),
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns = append(w.conns, c)
	return c, nil
}

func (w *wiretap) start() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns { // with room, so that to listen allocates nothing
		c.sent, c.received, c.turns, c.asked = c.sent[:0], c.received[:0], c.turns[:0], false
	}
}

// stop returns what went over the wire since start.
func (w *wiretap) stop() (total cost) {
	if w == nil {
		return cost{}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for _, c := range w.conns {
		names = append(names, c.count(&total)...)
	}
	// A cluster's nodes are asked in no order.
	var text strings.Builder
	fmt.Fprint(&text, len(names))
	for len(names) > 0 {
		name, before := names[0], len(names)
		names = slices.DeleteFunc(names, func(other string) bool { return other == name })
		text.WriteByte(' ')
		if n := before - len(names); n > 1 {
			fmt.Fprintf(&text, "%d×", n)
		}
		text.WriteString(name)
	}
	total.commands = text.String()
	return total
}

// tappedConn is a connection that a wiretap listens to. It shows the connection
// itself, so that go-redis looks whether it is alive.
type tappedConn struct {
	*net.TCPConn
	tap            *wiretap
	sent, received []byte
	turns          []int // where in sent begins what was sent after something was received
	asked          bool  // something was sent, and nothing received since
}

func (c *tappedConn) Write(p []byte) (int, error) {
	c.tap.mu.Lock()
	if !c.asked {
		c.asked, c.turns = true, append(c.turns, len(c.sent))
	}
	c.sent = append(c.sent, p...)
	c.tap.mu.Unlock()
	return c.TCPConn.Write(p)
}

func (c *tappedConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	c.tap.mu.Lock()
	defer c.tap.mu.Unlock()
	c.received = append(c.received, p[:n]...)
	c.asked = c.asked && n <= 0
	return n, err
}

// ownCommands are those by which clients set up a connection and learn where the
// servers are. They are not counted: they belong to no operation.
var ownCommands = redistest.Named("HELLO", "AUTH", "SELECT", "CLIENT", "READONLY", "COMMAND", "CLUSTER", "PING")

// count adds up what went over one connection, and returns the names of the
// commands. What a server tells a cache unasked comes when it comes, and is not
// counted either.
func (c *tappedConn) count(total *cost) (names []string) {
	sent, received, turns := c.sent, c.received, c.turns
	counted := -1 // the turn that was counted last
	for len(sent) > 0 {
		at := len(c.sent) - len(sent)
		for len(turns) > 1 && turns[1] <= at {
			turns = turns[1:]
		}
		args, rest := respFrame(sent)
		args[0] = strings.ToUpper(args[0])
		reply := 0
		for reply == 0 && len(received) > 0 {
			push := received[0] == '>'
			_, after := respFrame(received)
			if !push {
				reply = len(received) - len(after)
			}
			received = after
		}
		if !ownCommands(args) {
			if turns[0] != counted {
				counted = turns[0]
				total.trips++
			}
			total.sent += len(sent) - len(rest)
			total.received += reply
			if script := c.tap.scripts[args[min(1, len(args)-1)]]; script != "" {
				args[0] = script
			}
			names = append(names, args[0])
		}
		sent = rest
	}
	return names
}

// respFrame takes the first frame of RESP off b, and returns the bulk strings in it.
func respFrame(b []byte) (bulks []string, rest []byte) {
	head, rest, whole := bytes.Cut(b, []byte("\r\n"))
	if !whole || len(head) < 2 {
		return nil, nil
	}
	n, _ := strconv.Atoi(string(head[1:]))
	switch head[0] {
	case '$', '=':
		switch {
		case n < 0:
			return nil, rest
		case len(rest) < n+2: // cut
			return nil, nil
		}
		return []string{string(rest[:n])}, rest[n+2:]
	case '%':
		n *= 2
	case '*', '~', '>':
	default:
		return nil, rest
	}
	for range n {
		var more []string
		more, rest = respFrame(rest)
		bulks = append(bulks, more...)
	}
	return bulks, rest
}

// goVersion is the minor version of Go: "go1.26".
func goVersion() string {
	parts := strings.SplitN(runtime.Version(), ".", 3)
	return strings.Join(parts[:min(2, len(parts))], ".")
}

// unlikeTheTables says why this program does not allocate as the tables say, and
// is empty when it does.
func unlikeTheTables(version string) string {
	switch {
	case !*update && goVersion() != version:
		return "the tables are of " + version + ", this is " + runtime.Version()
	case runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64":
		return "the tables are of amd64 and arm64, this is " + runtime.GOARCH
	}
	// Pools forget, or less is inlined.
	if flag := builtWith("-race", "-msan", "-asan", "-cover", "-gcflags"); flag != "" {
		return "built with " + flag
	}
	return ""
}

// builtWith returns the first of the flags that this program was built with, or "".
func builtWith(flags ...string) string {
	info, _ := debug.ReadBuildInfo()
	for _, setting := range info.Settings {
		if slices.Contains(flags, setting.Key) {
			return setting.Key
		}
	}
	return ""
}
