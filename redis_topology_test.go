package echosession_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// Holder is the data of a session under load: it says itself whose it is.
type Holder struct {
	Owner string
	Count int
}

// A load is goroutines that use sessions, each its own, and remember what they
// were told.
type load struct {
	manager *echosession.Manager[Holder]
	lossy   atomic.Bool // data may be lost from now on
	stop    chan struct{}
	wg      sync.WaitGroup

	mu       sync.Mutex
	answers  map[string]int // by kind
	wrong    []string
	renewed  int
	lost     int // sessions that were gone, and updates that were undone, when that could happen
	outages  []time.Duration
	recovers time.Duration // from fixed on to the last failure
	fixed    time.Time     // when the servers were in order again
	acked    map[string]int
	maybe    map[string]int
	tokens   map[string]string
}

// startLoad begins to use sessions. The load is stopped with end.
func startLoad(t *testing.T, goroutines int, cfg echosession.Config) *load {
	t.Helper()
	cfg.Secret, cfg.SubjectIndex = testSecret, true
	l := &load{
		manager: newManager[Holder](t, cfg), stop: make(chan struct{}), answers: make(map[string]int),
		acked: make(map[string]int), maybe: make(map[string]int), tokens: make(map[string]string),
	}
	for g := range goroutines {
		l.wg.Go(func() { l.use(fmt.Sprint("user ", g)) })
	}
	return l
}

func (l *load) note(what string, err error) {
	kind := "ok"
	switch {
	case err == nil:
	case errors.Is(err, echosession.ErrIndeterminate):
		kind = "indeterminate"
	case errors.Is(err, echosession.ErrStoreUnavailable):
		kind = "unavailable"
	case errors.Is(err, echosession.ErrSessionGone):
		kind = "gone"
	default:
		kind = "other: " + err.Error()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers[kind]++
	if err != nil && !l.fixed.IsZero() {
		l.recovers = time.Since(l.fixed)
	}
	if kind == "gone" {
		if l.lossy.Load() {
			l.lost++
		} else {
			l.wrong = append(l.wrong, what+": gone, though nobody destroyed it")
		}
	}
	if kind[0] == 'o' && kind != "ok" {
		l.wrong = append(l.wrong, what+": "+kind)
	}
}

func (l *load) complain(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
}

// health returns a function that is told how each request of a client ended, and
// notes how long that client's outages take.
func (l *load) health() func(error) {
	var down time.Time
	return func(err error) {
		switch {
		case errors.Is(err, echosession.ErrStoreUnavailable) && down.IsZero():
			down = time.Now()
		case err == nil && !down.IsZero():
			l.mu.Lock()
			l.outages = append(l.outages, time.Since(down))
			l.mu.Unlock()
			down = time.Time{}
		}
	}
}

// use is what one user does: logs in, works, now and then logs out.
func (l *load) use(owner string) {
	ctx := context.Background()
	token := ""
	acked, maybe := 0, 0 // updates of this session, of those that are known and not
	healthy := l.health()
	for {
		select {
		case <-l.stop:
			l.mu.Lock()
			defer l.mu.Unlock()
			if token != "" {
				l.acked[owner], l.maybe[owner], l.tokens[owner] = acked, maybe, token
			}
			return
		case <-time.After(rand.N(2 * time.Millisecond)):
		}
		if token == "" {
			sess, err := l.manager.Create(ctx, Holder{Owner: owner}, echosession.WithSubject(owner))
			l.note("Create", err)
			healthy(err)
			if err == nil {
				token, acked, maybe = sess.Token(), 0, 0
			}
			continue
		}
		lossy := l.lossy.Load()
		sess, err := l.manager.Open(ctx, token)
		if err == nil && !sess.Exists() {
			err = sess.Reason()
		}
		l.note("Open", err)
		healthy(err)
		if errors.Is(err, echosession.ErrSessionGone) {
			token = ""
		}
		if err != nil {
			continue
		}
		if data := sess.Data(); data.Owner != owner {
			l.complain("%s is shown the session of %s", owner, data.Owner)
		} else if data.Count < acked || data.Count > acked+maybe {
			if lossy = lossy || l.lossy.Load(); !lossy || data.Count > acked+maybe {
				l.complain("Open: the counter is %d, acknowledged %d, unknown %d", data.Count, acked, maybe)
			} else {
				l.mu.Lock()
				l.lost++
				l.mu.Unlock()
			}
			acked, maybe = data.Count, 0
		}
		switch n := rand.N(100); {
		case n == 0:
			err := sess.Destroy(ctx)
			l.note("Destroy", err)
			healthy(err)
			token = "" // whatever became of it
			continue
		case n <= 5:
			if token, err = l.login(ctx, sess, owner); err == nil {
				acked++
			}
			healthy(err)
			continue
		}
		err = sess.Update(ctx, func(h *Holder) error { h.Count++; return nil })
		l.note("Update", err)
		healthy(err)
		switch {
		case err == nil:
			acked++
		case errors.Is(err, echosession.ErrIndeterminate):
			maybe++
		case errors.Is(err, echosession.ErrSessionGone):
			token = ""
		}
	}
}

// login renews a session, under the same subject or, as a rule in another slot, under
// another one. It counts as an update. It returns the token to go on with, "" for none.
func (l *load) login(ctx context.Context, sess *echosession.Session[Holder], owner string) (token string, err error) {
	subject := owner + " by another name"
	if sess.Subject() == subject || rand.N(2) == 0 {
		subject = owner
	}
	count := sess.Data().Count
	token, err = sess.Renew(ctx, func(h *Holder) error {
		*h = Holder{Owner: owner, Count: count + 1}
		return nil
	}, echosession.WithSubject(subject))
	l.note("Renew", err)
	switch {
	case err == nil:
		l.mu.Lock()
		defer l.mu.Unlock()
		l.renewed++
		return token, nil
	case errors.Is(err, echosession.ErrIndeterminate), errors.Is(err, echosession.ErrSessionGone):
		return "", err
	}
	return sess.Token(), err
}

// inOrder says that the servers are in order again.
func (l *load) inOrder() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fixed = time.Now()
}

// end stops the load, reports, and checks what may never happen.
func (l *load) end(t *testing.T) {
	t.Helper()
	close(l.stop)
	l.wg.Wait()
	total := 0
	for _, n := range l.answers {
		total += n
	}
	longest := time.Duration(0)
	if len(l.outages) > 0 {
		longest = slices.Max(l.outages)
	}
	t.Logf("%d requests: %v; longest outage of a client %v; %d sessions or updates lost; last failure %v after the servers were in order; wrong answers %d",
		total, l.answers, longest.Round(time.Millisecond), l.lost, l.recovers.Round(time.Millisecond), len(l.wrong))
	for _, wrong := range l.wrong[:min(5, len(l.wrong))] {
		t.Error(wrong)
	}
	if l.recovers > 4*time.Second {
		t.Errorf("clients needed %v to recover", l.recovers)
	}
	if l.renewed < 5 {
		t.Errorf("only %d sessions were renewed", l.renewed)
	}
	if l.answers["ok"] < total/10 {
		t.Errorf("the load hardly did anything: %v", l.answers)
	}
}

// for a while, the load goes on.
func (l *load) goOn(t *testing.T, d time.Duration) {
	t.Helper()
	if long {
		d *= 5
	}
	time.Sleep(d)
}

func TestTopologies(t *testing.T) {
	if testing.Short() {
		t.Skip("starts some twenty servers")
	}
	scenarios := []struct {
		name string
		run  func(t *testing.T)
	}{
		{"Sentinel, primary killed", func(t *testing.T) { testSentinelFailover(t, 0) }},
		{"Sentinel, primary killed, WaitReplicas", func(t *testing.T) { testSentinelFailover(t, 1) }},
		{"Cluster, slot moved and master killed", testClusterUnderLoad},
		{"one server, disturbed", testDisturbedServer},
		{"one server, full", testFullServer},
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, s := range scenarios {
		wg.Go(func() { t.Run(s.name, s.run) })
	}
}

// testSentinelFailover kills the primary under load. Sentinel promotes the replica
// that is furthest on: it has every write that any replica confirmed.
func testSentinelFailover(t *testing.T, waitReplicas int) {
	sentinel := redistest.StartSentinel(t, 2, 3)
	client := sentinel.FailoverClient(t)
	l := startLoad(t, 8, echosession.Config{Client: client, Keyspace: "test:", WaitReplicas: waitReplicas, StoreTimeout: time.Second})
	l.goOn(t, time.Second)
	l.lossy.Store(waitReplicas == 0)
	old := sentinel.KillPrimary(t)
	begin := time.Now()
	primary := sentinel.AwaitFailover(t, old)
	t.Logf("Redis itself needed %v", time.Since(begin).Round(time.Millisecond))
	for _, s := range sentinel.Servers {
		if s.Alive() && s != primary {
			awaitInSync(t, s, primary)
		}
	}
	l.inOrder()
	l.goOn(t, 2*time.Second)
	l.end(t)
	if waitReplicas > 0 && l.lost > 0 {
		t.Errorf("%d acknowledged writes are lost", l.lost)
	}
	l.finally(t)
	redistest.AssertNoKeyWithoutTTL(t, primary.Client(t), "test:")
}

// awaitInSync waits until a server is a replica of primary and has its data.
func awaitInSync(t *testing.T, s, primary *redistest.Server) {
	t.Helper()
	ctx := t.Context()
	deadline := time.Now().Add(20 * time.Second)
	here, there := s.Client(t), primary.Client(t)
	for {
		mark := fmt.Sprint(time.Now().UnixNano())
		_ = there.Set(ctx, "mark", mark, time.Minute).Err()
		time.Sleep(20 * time.Millisecond)
		if here.Get(ctx, "mark").Val() == mark && here.Do(ctx, "role").Val().([]any)[0] == "slave" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the replica is not in step")
		}
	}
}

// finally compares what is stored in the end with what was acknowledged.
func (l *load) finally(t *testing.T) {
	t.Helper()
	if len(l.tokens) == 0 {
		t.Error("no session is left to look at")
	}
	for owner, token := range l.tokens {
		sess, err := l.manager.Open(t.Context(), token)
		if err != nil {
			t.Errorf("in the end: %v", err)
			continue
		}
		data := sess.Data()
		if !sess.Exists() || data.Owner != owner || data.Count < l.acked[owner] || data.Count > l.acked[owner]+l.maybe[owner] {
			t.Errorf("in the end %s has %+v, acknowledged %d, unknown %d", owner, data, l.acked[owner], l.maybe[owner])
		}
	}
}

func testClusterUnderLoad(t *testing.T) {
	cluster := redistest.StartCluster(t, 3, 1)
	client := cluster.Client(t)
	l := startLoad(t, 12, echosession.Config{Client: client, Keyspace: "test:", StoreTimeout: time.Second})
	l.goOn(t, 500*time.Millisecond)

	// Move a slot that is in use, to and fro.
	key, err := client.RandomKey(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	slot := cluster.Slot(t, key)
	from := cluster.Master(t, slot)
	to := cluster.Master(t, (slot+16384/3)%16384)
	for range 2 {
		m := cluster.OpenSlot(t, slot, to)
		time.Sleep(50 * time.Millisecond) // with TRYAGAIN and ASK
		m.MoveAll(t)
		time.Sleep(50 * time.Millisecond)
		m.MoveAll(t)
		m.Finish(t)
		from, to = to, from
	}
	l.mu.Lock()
	moved := fmt.Sprint(l.answers)
	l.mu.Unlock()
	t.Logf("while the slot of %.12q… moved: %s", key, moved)

	l.lossy.Store(true)
	begin := time.Now()
	old := cluster.KillMasterOf(t, slot)
	cluster.AwaitFailover(t, slot, old)
	t.Logf("Redis itself needed %v", time.Since(begin).Round(time.Millisecond))
	l.inOrder()
	l.goOn(t, 2*time.Second)
	l.end(t)
	l.finally(t)
	redistest.AssertNoKeyWithoutTTL(t, client, "test:")
}

func testDisturbedServer(t *testing.T) {
	server := redistest.Start(t)
	admin := server.Client(t)
	ctx := t.Context()
	l := startLoad(t, 8, echosession.Config{Client: server.Client(t), Keyspace: "test:", StoreTimeout: 500 * time.Millisecond})
	do := func(args ...any) {
		t.Helper()
		if err := admin.Do(ctx, args...).Err(); err != nil && !errors.Is(err, redis.Nil) {
			t.Errorf("%v: %v", args, err)
		}
	}
	l.goOn(t, 300*time.Millisecond)
	for range 10 {
		do("script", "flush")
		time.Sleep(20 * time.Millisecond)
	}
	for range 10 {
		do("client", "kill", "type", "normal", "skipme", "yes")
		time.Sleep(20 * time.Millisecond)
	}
	l.mu.Lock()
	t.Logf("SCRIPT FLUSH and CLIENT KILL, ten times each: %v", l.answers)
	if n := len(l.answers); n > 1 && l.answers["unavailable"]+l.answers["gone"] > 0 {
		t.Errorf("they are noticed: %v", l.answers)
	}
	l.mu.Unlock()
	do("debug", "sleep", "0.3") // shorter than StoreTimeout
	l.goOn(t, 200*time.Millisecond)
	do("debug", "sleep", "1.2") // longer
	l.goOn(t, 500*time.Millisecond)
	l.lossy.Store(true)
	do("flushall")
	l.inOrder()
	l.goOn(t, 500*time.Millisecond)
	l.end(t)
	if l.lost == 0 {
		t.Error("nobody noticed FLUSHALL")
	}
	l.finally(t)
	redistest.AssertNoKeyWithoutTTL(t, admin, "test:")
}

// testFullServer fills a server: with noeviction writes are refused and reads go
// on; with volatile-lru sessions are lost, and none lives on without its index.
func testFullServer(t *testing.T) {
	server := redistest.Start(t, "--maxmemory", "8mb", "--maxmemory-policy", "noeviction")
	admin, ctx := server.Client(t), t.Context()
	m := newManager[User](t, echosession.Config{Client: server.Client(t), Secret: testSecret, Keyspace: "test:", SubjectIndex: true})
	ballast := User{Name: string(slices.Repeat([]byte("x"), 10_000))}
	tokens := fill(t, m, ballast)
	if err := admin.ConfigSet(ctx, "maxmemory-policy", "volatile-lru").Err(); err != nil {
		t.Fatal(err)
	}
	overfill(t, m, ballast, tokens)
	redistest.AssertNoKeyWithoutTTL(t, admin, "test:")
}

// fill creates sessions until the server refuses, and returns their tokens. The
// first session is used after that, and destroyed.
func fill(t *testing.T, m *echosession.Manager[User], ballast User) (tokens []string) {
	ctx := t.Context()
	var err error
	for err == nil && len(tokens) < 2000 {
		var sess *echosession.Session[User]
		if sess, err = m.Create(ctx, ballast, echosession.WithSubject(fmt.Sprint("user ", len(tokens)%50))); err == nil {
			tokens = append(tokens, sess.Token())
		}
	}
	if !errors.Is(err, echosession.ErrStoreUnavailable) || errors.Is(err, echosession.ErrIndeterminate) {
		t.Fatalf("a full server: %v, want ErrStoreUnavailable alone", err)
	}
	for _, token := range tokens {
		sess, err := m.Open(ctx, token)
		if err != nil || !sess.Exists() {
			t.Fatalf("a full server: Open: %v", err)
		}
	}
	sess, err := m.Open(ctx, tokens[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := sess.Update(ctx, func(u *User) error { u.Count++; return nil }); !errors.Is(err, echosession.ErrStoreUnavailable) || errors.Is(err, echosession.ErrIndeterminate) {
		t.Errorf("a full server: Update: %v, want ErrStoreUnavailable alone", err)
	}
	touched := sess.Touch(ctx)
	if err := sess.Destroy(ctx); err != nil {
		t.Errorf("a full server: Destroy: %v", err)
	}
	t.Logf("noeviction: %d sessions of 10 kB fill 8 MB; all can be read; Touch: %v", len(tokens), touched)
	return tokens
}

// overfill creates more sessions on a full server, which evicts others for them.
func overfill(t *testing.T, m *echosession.Manager[User], ballast User, tokens []string) {
	ctx := t.Context()
	for i := range 500 {
		sess, err := m.Create(ctx, ballast, echosession.WithSubject(fmt.Sprint("user ", i%50)))
		if err != nil {
			t.Fatalf("volatile-lru: %v", err)
		}
		tokens = append(tokens, sess.Token())
	}
	alive, gone := 0, 0
	for _, token := range tokens[1:] {
		sess, err := m.Open(ctx, token)
		switch {
		case err != nil:
			t.Fatalf("volatile-lru: %v", err)
		case sess.Exists():
			alive++
		case errors.Is(sess.Reason(), echosession.ErrSessionGone):
			gone++
		default:
			t.Errorf("volatile-lru: %v", sess.Reason())
		}
	}
	if gone == 0 || alive == 0 {
		t.Errorf("volatile-lru: %d sessions are there, %d are gone", alive, gone)
	}
	for i := range 50 {
		if _, err := m.RevokeSubject(ctx, fmt.Sprint("user ", i)); err != nil {
			t.Fatal(err)
		}
	}
	// Until the next touch a plain read may find a session whose index was evicted.
	orphans := 0
	for _, token := range tokens[1:] {
		sess, err := m.Open(ctx, token)
		if err != nil {
			t.Fatal(err)
		}
		if sess.Exists() {
			orphans++
			if err := sess.Reload(ctx); !errors.Is(err, echosession.ErrSessionGone) {
				t.Errorf("volatile-lru: a revoked session: %v, want ErrSessionGone", err)
			}
		}
	}
	t.Logf("volatile-lru: %d sessions alive, %d evicted; %d outlived the revocation of their subject until the next touch", alive, gone, orphans)
}
