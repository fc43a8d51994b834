package echosession_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// An ear hears what the Watch of a store tells.
type ear struct {
	testing.TB
	hints chan echosession.Hint
	ended chan error
	stop  context.CancelFunc
}

// listen calls Watch, again while it fails, and waits until it hears every end.
func listen(t testing.TB, store echosession.Store) *ear {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		e := watchOnce(t, store)
		select {
		case hint := <-e.hints:
			if !hint.All || hint.IDs != nil || hint.Match != nil {
				t.Fatalf("the first hint is %+v", hint)
			}
			return e
		case err := <-e.ended:
			if errors.Is(err, echosession.ErrUnsupported) || time.Now().After(deadline) {
				t.Fatalf("Watch: %v", causes(err))
			}
		}
	}
}

func watchOnce(t testing.TB, store echosession.Store) *ear {
	ctx, stop := context.WithCancel(context.Background())
	e := &ear{TB: t, hints: make(chan echosession.Hint, 10_000), ended: make(chan error, 1), stop: stop}
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.ended <- store.(echosession.Watcher).Watch(ctx, func(h echosession.Hint) { e.hints <- h })
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	return e
}

// next returns the next hint.
func (e *ear) next() echosession.Hint {
	e.Helper()
	select {
	case hint := <-e.hints:
		return hint
	case err := <-e.ended:
		e.Fatalf("Watch ended: %v", causes(err))
	case <-time.After(10 * time.Second):
		e.Fatal("nothing is heard")
	}
	panic("not reached")
}

// ids returns the IDs that are told, up to last.
func (e *ear) ids(last string) []string {
	e.Helper()
	var ids []string
	for {
		hint := e.next()
		if hint.Match != nil {
			e.Fatal("a hint with Match, want IDs")
		}
		ids = append(ids, hint.IDs...)
		if slices.Contains(hint.IDs, last) {
			return ids
		}
	}
}

// end waits until Watch returns by itself, and returns how long that took since then.
func (e *ear) end(since time.Time) (time.Duration, error) {
	e.Helper()
	select {
	case err := <-e.ended:
		return time.Since(since).Round(10 * time.Millisecond), err
	case <-time.After(10 * time.Second):
		e.Fatal("Watch does not notice it")
	}
	panic("not reached")
}

// testEndsAreHeard ends sessions in every way, and hears of each, and of nothing else.
func testEndsAreHeard(t *testing.T, kind clientKind) {
	for _, subject := range []string{"", "ada"} {
		ctx, keyspace := t.Context(), newKeyspace()
		ear := listen(t, newRedisStore(t, kind.new(t), keyspace))
		store := newRedisStore(t, kind.new(t), keyspace)
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatalf("subject %q: %v", subject, causes(err))
			}
		}
		var refs []echosession.Ref
		for range 8 {
			refs = append(refs, newRef(subject))
			mustCreate(t, store, refs[len(refs)-1], "old", time.Minute)
		}
		for _, ref := range refs {
			must(store.Replace(ctx, ref, []byte("old"), []byte("old and new"), time.Minute))
			must(store.Touch(ctx, ref, time.Minute))
			_, err := store.Load(ctx, ref, time.Minute)
			must(err)
			_, err = store.Check(ctx, ref)
			must(err)
		}
		next := []echosession.Ref{newRef(subject), newRef(subject), newRef(subject), newRef("bob")}
		must(store.Delete(ctx, refs[0]))
		must(store.Rotate(ctx, refs[1], next[0], []byte("old"), []byte("new"), time.Minute, time.Second))
		must(store.Rotate(ctx, refs[2], next[1], []byte("old"), []byte("new"), time.Minute, 0))
		must(store.Renew(ctx, refs[3], next[2], []byte("old"), []byte("new"), time.Minute, echosession.Limit{}))
		must(store.Renew(ctx, refs[4], next[3], []byte("old"), []byte("new"), time.Minute, echosession.Limit{}))
		ended := refs[:5]
		if subject != "" {
			// The successors have the places of the oldest of what are six sessions now.
			must(store.Create(ctx, newRef(subject), []byte("old"), time.Minute, echosession.Limit{Sessions: 6}))
			from := newRef("")
			mustCreate(t, store, from, "old", time.Minute)
			must(store.Renew(ctx, from, newRef(subject), []byte("old"), []byte("new"), time.Minute, echosession.Limit{Sessions: 5}))
			ended = append(append(slices.Clone(ended), next[:3]...), from)
		}
		last := newRef(subject)
		mustCreate(t, store, last, "old", time.Minute)
		must(store.Delete(ctx, last))
		want := []string{last.ID}
		for _, ref := range ended {
			want = append(want, ref.ID)
		}
		var got []string
		for len(got) < len(want) {
			got = append(got, ear.next().IDs...)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("subject %q: heard of\n%q\nwant\n%q", subject, got, want)
		}
	}
}

// testCheckMany checks sessions in every state at once, where no server knows the script.
func testCheckMany(t *testing.T, kind clientKind) {
	store := newRedisStore(t, kind.new(t), newKeyspace())
	for _, subject := range []string{"", "ada"} {
		refs := everyState(t, store, subject, 60)
		flush := func(_ context.Context, c *redis.Client) error { return c.ScriptFlush(t.Context()).Err() }
		var err error
		switch u := kind.universe(t).(type) {
		case *redis.ClusterClient:
			err = u.ForEachMaster(t.Context(), flush)
		case *redis.Ring:
			err = u.ForEachShard(t.Context(), flush)
		case *redis.Client:
			err = flush(t.Context(), u)
		}
		if err != nil {
			t.Fatal(err)
		}
		checkLikeOne(t, store, refs)
	}
}

// Without pipelines each session is asked for by itself.
func TestCheckManyWithoutPipelines(t *testing.T) {
	t.Parallel()
	fake := newFakeRedis(t)
	store := newRedisStore(t, fake, newKeyspace())
	checkLikeOne(t, store, everyState(t, store, "ada", 60))
	if got := echosession.CheckMany(t.Context(), store, nil); len(got) != 0 {
		t.Errorf("of no refs: %v", got)
	}
}

// everyState makes n sessions: some live, some gone, renewed or rotated away.
func everyState(t *testing.T, store echosession.Store, subject string, n int) []echosession.Ref {
	t.Helper()
	ctx := t.Context()
	var refs []echosession.Ref
	for i := range n {
		ref := newRef(subject)
		refs = append(refs, ref)
		mustCreate(t, store, ref, "old", time.Duration(i+1)*time.Minute)
		var err error
		switch i % 5 {
		case 1:
			err = store.Delete(ctx, ref)
		case 2:
			err = store.Rotate(ctx, ref, newRef(subject), []byte("old"), []byte("new"), time.Minute, time.Minute)
		case 3:
			err = store.Renew(ctx, ref, newRef(subject), []byte("old"), []byte("new"), time.Minute, echosession.Limit{})
		}
		if err != nil {
			t.Fatal(causes(err))
		}
	}
	return refs
}

// checkLikeOne compares the answers for many refs with those for each.
func checkLikeOne(t *testing.T, store echosession.Store, refs []echosession.Ref) {
	t.Helper()
	answers := echosession.CheckMany(t.Context(), store, refs)
	if len(answers) != len(refs) {
		t.Fatalf("%d answers, want %d", len(answers), len(refs))
	}
	kinds := make(map[string]int)
	for i, ref := range refs {
		got := answers[i]
		left, err := store.Check(t.Context(), ref)
		rotated, isRotated := errors.AsType[*echosession.RotatedError](err)
		switch {
		case isRotated:
			kinds["rotated"]++
			also, ok := errors.AsType[*echosession.RotatedError](got.Err)
			if !ok || also.To != rotated.To || rotated.Left <= 0 || also.Left < rotated.Left || also.Left > rotated.Left+5*time.Second {
				t.Errorf("%d: %+v, want %+v", i, got, rotated)
			}
		case err != nil:
			kinds[err.Error()]++
			if !errors.Is(got.Err, err) {
				t.Errorf("%d: %v, want %v", i, causes(got.Err), err)
			}
		default:
			kinds["live"]++
			if got.Err != nil || got.Left < left || got.Left > left+5*time.Second {
				t.Errorf("%d: %+v, want %v", i, got, left)
			}
		}
	}
	if len(kinds) != 4 {
		t.Errorf("the sessions are %v", kinds)
	}
}

// The grace that is left of a rotation counts down, however often it is asked for.
func TestRotatedErrorSaysWhatIsLeft(t *testing.T) {
	t.Parallel()
	clock, fake := newClock(), newFakeRedis(t)
	fake.now = clock.Now
	for name, tt := range map[string]struct {
		store   echosession.Store
		advance func(d time.Duration)
		slack   time.Duration
	}{
		"fake":  {newRedisStore(t, fake, newKeyspace()), clock.Advance, 0},
		"redis": {newRedisStore(t, redistest.Shared(t).Client(t), newKeyspace()), func(time.Duration) {}, 20 * time.Second},
	} {
		for _, subject := range []string{"", "ada"} {
			from, to := newRef(subject), newRef(subject)
			mustCreate(t, tt.store, from, "old", time.Hour)
			if err := tt.store.Rotate(t.Context(), from, to, []byte("old"), []byte("new"), time.Hour, time.Minute); err != nil {
				t.Fatal(err)
			}
			want := time.Minute
			for range 3 {
				_, checked := tt.store.Check(t.Context(), from)
				_, loaded := tt.store.Load(t.Context(), from, time.Hour)
				for _, err := range []error{checked, loaded} {
					rotated, ok := errors.AsType[*echosession.RotatedError](err)
					if !ok || rotated.To != to.ID || rotated.Left > want || rotated.Left < want-tt.slack || rotated.Left <= 0 {
						t.Errorf("%s: %+v, want %v left", name, err, want)
					}
				}
				tt.advance(10 * time.Second)
				if tt.slack == 0 {
					want -= 10 * time.Second
				}
			}
		}
	}
}

// A node that is down leaves the answers of the others alone, whether the client heeds
// deadlines or not.
func TestCheckManyWithADeadNode(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: starts a cluster")
	}
	t.Parallel()
	cluster := redistest.StartCluster(t, 3, 0)
	for _, s := range cluster.Servers {
		if err := s.Client(t).ConfigSet(t.Context(), "cluster-require-full-coverage", "no").Err(); err != nil {
			t.Fatal(err)
		}
	}
	dead := cluster.Servers[1]
	keyspace := newKeyspace()
	clients := map[string]echosession.RedisClient{
		"deadlines":    cluster.Client(t),
		"no deadlines": cluster.Client(t, func(o *redis.ClusterOptions) { o.ContextTimeoutEnabled = false }),
	}
	stores := make(map[string]echosession.Store)
	var refs []echosession.Ref
	for name, client := range clients {
		stores[name] = newRedisStore(t, client, keyspace)
		for range 50 {
			ref := newRef("")
			refs = append(refs, ref)
			mustCreate(t, stores[name], ref, "old", time.Minute)
		}
	}
	onDead := make([]bool, len(refs))
	down := 0
	for i, ref := range refs {
		if onDead[i] = echosession.ServerOf(stores["deadlines"], ref) == dead.Addr(); onDead[i] {
			down++
		}
	}
	if down < 20 || down > 100 {
		t.Fatalf("%d of %d sessions are on one node of three", down, len(refs))
	}
	dead.Pause(t)
	defer dead.Resume(t)
	for name, store := range stores {
		ctx, cancel := context.WithTimeout(t.Context(), 800*time.Millisecond)
		defer cancel()
		begin := time.Now()
		answers := echosession.CheckMany(ctx, store, refs)
		if took := time.Since(begin); took > 800*time.Millisecond+faultSlack {
			t.Errorf("%s: it takes %v", name, took)
		}
		for i, a := range answers {
			if onDead[i] && !errors.Is(a.Err, echosession.ErrStoreUnavailable) {
				t.Fatalf("%s: a session on the dead node: %+v", name, a)
			}
			if !onDead[i] && (a.Err != nil || a.Left <= 0) {
				t.Fatalf("%s: a session on another node: %v, %v", name, a.Left, causes(a.Err))
			}
		}
	}
}

// A tunnel passes bytes on, until it swallows those of the connections that it has.
type tunnel struct {
	net.Listener
	mu    sync.Mutex
	conns map[net.Conn]bool // true: swallowed
}

func newTunnel(t testing.TB, upstream string) *tunnel {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &tunnel{Listener: ln, conns: make(map[net.Conn]bool)}
	var wg sync.WaitGroup
	pass := func(from, to net.Conn, client net.Conn) {
		defer from.Close()
		defer to.Close()
		buf := make([]byte, 4096)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			w.mu.Lock()
			swallowed := w.conns[client]
			w.mu.Unlock()
			if !swallowed {
				_, _ = to.Write(buf[:n])
			}
		}
	}
	wg.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", upstream)
			if err != nil {
				client.Close()
				continue
			}
			w.mu.Lock()
			w.conns[client] = false
			w.mu.Unlock()
			wg.Go(func() { pass(client, server, client) })
			wg.Go(func() { pass(server, client, client) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		w.mu.Lock()
		for c := range w.conns {
			c.Close()
		}
		w.mu.Unlock()
		wg.Wait()
	})
	return w
}

// swallow lets the connections stand that are open now, and passes nothing more on.
func (w *tunnel) swallow() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		w.conns[c] = true
	}
}

// Whatever happens to a subscription, Watch notices it, and works when it is called again.
func TestWatchNotices(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	admin := server.Client(t)
	tunnel := newTunnel(t, server.Addr())
	paused := redistest.Start(t)
	slow := redistest.Start(t)
	for name, tt := range map[string]struct {
		client echosession.RedisClient
		fault  func()
		mend   func()
	}{
		"a connection that swallows everything": {
			server.Client(t, func(o *redis.Options) { o.Addr = tunnel.Addr().String() }), tunnel.swallow, func() {},
		},
		"a client of the defaults, whose connection swallows everything": {
			server.Client(t, func(o *redis.Options) { o.Addr, o.ContextTimeoutEnabled = tunnel.Addr().String(), false }), tunnel.swallow, func() {},
		},
		"a connection that is killed": {
			server.Client(t), func() { admin.Do(t.Context(), "client", "kill", "type", "pubsub") }, func() {},
		},
		"a server that is paused": {
			paused.Client(t), func() { paused.Pause(t) }, func() { paused.Resume(t) },
		},
		"a server that is paused, and an auto-pipeliner": {
			asyncFace(t, slow.Client(t)), func() { slow.Pause(t) }, func() { slow.Resume(t) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			store := newRedisStore(t, tt.client, newKeyspace())
			ear := listen(t, store)
			begin := time.Now()
			tt.fault()
			took, err := ear.end(begin)
			tt.mend()
			t.Logf("noticed after %v: %s", took, causes(err))
			if !errors.Is(err, echosession.ErrStoreUnavailable) || errors.Is(err, echosession.ErrUnsupported) || took > 5*time.Second {
				t.Errorf("after %v: %v", took, causes(err))
			}
			hearsAgain(t, store)
		})
	}
}

// hearsAgain watches anew, and hears of an end.
func hearsAgain(t *testing.T, store echosession.Store) {
	t.Helper()
	begin := time.Now()
	ear := listen(t, store)
	took := time.Since(begin)
	ref := newRef("ada")
	create := func() error {
		return store.Create(t.Context(), ref, []byte("old"), time.Minute, echosession.Limit{})
	}
	for err := create(); err != nil; err = create() {
		if time.Since(begin) > 20*time.Second {
			t.Fatal(causes(err))
		}
	}
	if err := store.Delete(t.Context(), ref); err != nil {
		t.Fatal(causes(err))
	}
	ear.ids(ref.ID)
	t.Logf("heard again after %v", took.Round(10*time.Millisecond))
}

func TestWatchNoticesAFailover(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: starts sentinels and a cluster")
	}
	t.Parallel()
	t.Run("Sentinel", func(t *testing.T) {
		t.Parallel()
		sentinel := redistest.StartSentinel(t, 1, 3)
		store := newRedisStore(t, sentinel.FailoverClient(t), newKeyspace())
		old := sentinel.Primary(t)

		ear := listen(t, store)
		begin := time.Now()
		c := redis.NewSentinelClient(&redis.Options{Addr: sentinel.SentinelAddrs()[0]})
		defer c.Close()
		if err := c.Failover(t.Context(), sentinel.MasterName()).Err(); err != nil {
			t.Fatal(err)
		}
		took, err := ear.end(begin)
		t.Logf("SENTINEL FAILOVER noticed after %v: %s", took, causes(err))
		hearsAgain(t, store)
		primary := sentinel.AwaitFailover(t, old)
		awaitInSync(t, old, primary)

		ear = listen(t, store)
		begin = time.Now()
		sentinel.KillPrimary(t)
		took, err = ear.end(begin)
		t.Logf("killed primary noticed after %v: %s", took, causes(err))
		hearsAgain(t, store)
	})
	t.Run("Cluster", func(t *testing.T) {
		t.Parallel()
		cluster := redistest.StartCluster(t, 3, 1)
		store := newRedisStore(t, cluster.Client(t), newKeyspace())
		ear := listen(t, store)
		dead := serverWithSubscription(t, cluster.Servers)
		begin := time.Now()
		dead.Kill()
		took, err := ear.end(begin)
		t.Logf("killed node noticed after %v: %s", took, causes(err))
		hearsAgain(t, store)
	})
}

// serverWithSubscription returns the server that has the one subscription.
func serverWithSubscription(t *testing.T, servers []*redistest.Server) *redistest.Server {
	t.Helper()
	for _, s := range servers {
		if s.Alive() && len(s.Client(t).PubSubChannels(t.Context(), "test-*").Val()) > 0 {
			return s
		}
	}
	t.Fatal("nobody subscribes")
	return nil
}
