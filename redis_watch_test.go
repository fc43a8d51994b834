package echosession_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"runtime"
	"slices"
	"strings"
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
		must(errOf(store.Renew(ctx, refs[3], next[2], []byte("old"), []byte("new"), time.Minute, echosession.Limit{})))
		must(errOf(store.Renew(ctx, refs[4], next[3], []byte("old"), []byte("new"), time.Minute, echosession.Limit{})))
		ended := refs[:5]
		if subject != "" {
			// The successors have the places of the oldest of what are six sessions now.
			must(errOf(store.Create(ctx, newRef(subject), []byte("old"), time.Minute, echosession.Limit{Sessions: 6})))
			from := newRef("")
			mustCreate(t, store, from, "old", time.Minute)
			must(errOf(store.Renew(ctx, from, newRef(subject), []byte("old"), []byte("new"), time.Minute, echosession.Limit{Sessions: 5})))
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
			slices.Sort(got)
			got = slices.Compact(got) // on a Cluster each node tells
		}
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
			_, err = store.Renew(ctx, ref, newRef(subject), []byte("old"), []byte("new"), time.Minute, echosession.Limit{})
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

	filter func([]byte) []byte // of what the server says, or nil
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
			said := buf[:n]
			if w.filter != nil && to == client {
				said = w.filter(said)
			}
			if !swallowed {
				_, _ = to.Write(said)
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

// flaky is a client that cannot publish.
type flaky struct{ *redis.Client }

func (c flaky) Process(ctx context.Context, cmd redis.Cmder) error {
	if cmd.Name() == "publish" {
		return io.EOF
	}
	return c.Client.Process(ctx, cmd)
}

// The messages of others do not show that a subscription is sound.
func TestWatchNeedsItsProbes(t *testing.T) {
	t.Parallel()
	server, keyspace := redistest.Shared(t), newKeyspace()
	client := server.Client(t)
	ear := watchOnce(t, newRedisStore(t, flaky{client}, keyspace))
	begin := time.Now()
	for len(ear.ended) == 0 && time.Since(begin) < 10*time.Second {
		client.Publish(t.Context(), keyspace+"ended", "-:"+newID())
		time.Sleep(10 * time.Millisecond)
	}
	took, err := ear.end(begin)
	if !errors.Is(err, echosession.ErrStoreUnavailable) || echosession.CauseOf(err) != "subscription silent" || len(ear.hints) > 0 {
		t.Errorf("after %v, %d hints: %v", took, len(ear.hints), causes(err))
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
		return errOf(store.Create(t.Context(), ref, []byte("old"), time.Minute, echosession.Limit{}))
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
		for _, s := range cluster.Servers {
			if err := s.Client(t).ConfigSet(t.Context(), "cluster-require-full-coverage", "no").Err(); err != nil {
				t.Fatal(err)
			}
		}
		keyspace := newKeyspace()
		store := newRedisStore(t, cluster.Client(t), keyspace)
		ear := listen(t, store)
		everyPrimaryIsListenedTo(t, cluster, keyspace)
		subscribed := serverWithSubscription(t, cluster.Servers)
		anotherNodeIsKilled(t, cluster, subscribed, keyspace, store, ear)

		begin := time.Now()
		subscribed.Kill()
		took, err := ear.end(begin)
		t.Logf("killed node noticed after %v: %s", took, causes(err))
		hearsAgain(t, store)

		// A node that is up, and does not hear what another one publishes.
		ear = listen(t, store)
		deaf := serverWithSubscription(t, cluster.Servers)
		begin = time.Now()
		other := cluster.Master(t, 0)
		if other == deaf {
			other = cluster.Master(t, 16383)
		}
		forget(t, deaf, other)
		forget(t, other, deaf)
		took, err = ear.end(begin)
		t.Logf("a node that was cut off is noticed after %v: %s", took, causes(err))
	})
}

// everyPrimaryIsListenedTo waits until that is so: between nodes a message may wait.
func everyPrimaryIsListenedTo(t *testing.T, cluster *redistest.Cluster, keyspace string) {
	t.Helper()
	channel := keyspace + "ended"
	for _, slot := range []int{0, 8191, 16383} {
		for begin := time.Now(); cluster.Master(t, slot).Client(t).PubSubNumSub(t.Context(), channel).Val()[channel] == 0; {
			if time.Since(begin) > 10*time.Second {
				t.Fatal("nobody listens to the primary of slot", slot)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// anotherNodeIsKilled kills a node that has sessions and not the subscription. Watch goes on,
// and hears of the sessions when another node has them.
func anotherNodeIsKilled(t *testing.T, cluster *redistest.Cluster, subscribed *redistest.Server, keyspace string, store echosession.Store, ear *ear) {
	t.Helper()
	old := cluster.Servers[0]
	if old == subscribed {
		old = cluster.Servers[1]
	}
	ref := newRef("")
	for echosession.ServerOf(store, ref) != old.Addr() {
		ref = newRef("")
	}
	safe, err := echosession.NewRedisStore(cluster.Client(t), echosession.RedisOptions{Keyspace: keyspace, WaitReplicas: 1})
	if err != nil {
		t.Fatal(err)
	}
	mustCreate(t, safe, ref, "old", time.Minute)
	old.Kill()
	begin := time.Now()
	for store.Delete(t.Context(), ref) != nil {
		if time.Since(begin) > 20*time.Second {
			t.Fatal("no failover")
		}
	}
	ear.ids(ref.ID)
	t.Logf("the end of a session of a killed node is heard after %v", time.Since(begin).Round(10*time.Millisecond))
	for hint := ear.next(); !hint.All; hint = ear.next() {
		if !slices.Equal(hint.IDs, []string{ref.ID}) { // each node tells of it
			t.Errorf("heard of %v before All", hint.IDs)
		}
	}
	t.Logf("All is told after %v", time.Since(begin).Round(10*time.Millisecond))
}

func forget(t *testing.T, s, other *redistest.Server) {
	t.Helper()
	id := other.Client(t).Do(t.Context(), "cluster", "myid").Val()
	if err := s.Client(t).Do(t.Context(), "cluster", "forget", id).Err(); err != nil {
		t.Fatal(err)
	}
}

// serverWithSubscription returns the server with the connection that makes sure of all.
func serverWithSubscription(t *testing.T, servers []*redistest.Server) *redistest.Server {
	t.Helper()
	for _, s := range servers {
		if s.Alive() && len(s.Client(t).PubSubChannels(t.Context(), "test-*:ended:*").Val()) > 0 {
			return s
		}
	}
	t.Fatal("nobody subscribes")
	return nil
}

// A Ring is heard at each of its shards. One that is down leaves the others alone, and
// whatever it could not tell meanwhile All stands for.
func TestWatchOfARing(t *testing.T) {
	t.Parallel()
	one, two := redistest.Start(t), redistest.Start(t)
	ring := redis.NewRing(&redis.RingOptions{
		Addrs: map[string]string{"one": one.Addr(), "two": two.Addr()}, ContextTimeoutEnabled: true,
		HeartbeatFrequency: time.Hour, // or its sessions move to the other one
	})
	t.Cleanup(func() { ring.Close() })
	store := newRedisStore(t, ring, newKeyspace())
	ear := listen(t, store)
	on := func(server *redistest.Server) echosession.Ref {
		ref := newRef("")
		for echosession.ServerOf(store, ref) != server.Addr() {
			ref = newRef("")
		}
		return ref
	}
	ends := func(server *redistest.Server) {
		t.Helper()
		ref := on(server)
		mustCreate(t, store, ref, "old", time.Minute)
		if err := store.Delete(t.Context(), ref); err != nil {
			t.Fatal(causes(err))
		}
		ear.ids(ref.ID)
	}
	ends(one)
	ends(two)
	one.Kill()
	begin := time.Now()
	for time.Since(begin) < 1500*time.Millisecond {
		ends(two)
		time.Sleep(50 * time.Millisecond)
	}
	one.Restart(t)
	if !ear.next().All {
		t.Fatal("another hint than All")
	}
	ends(one)

	two.Kill()
	for begin := time.Now(); time.Since(begin) < 700*time.Millisecond; time.Sleep(50 * time.Millisecond) {
		ends(one)
	}
	one.Kill()
	took, err := ear.end(time.Now())
	t.Logf("a ring without shards is noticed after %v: %s", took, causes(err))
	if !errors.Is(err, echosession.ErrStoreUnavailable) || errors.Is(err, echosession.ErrUnsupported) {
		t.Error(causes(err))
	}
}

// Without the rights for it there is no watch, and the error says why. Logouts go on.
func TestWatchWithoutRights(t *testing.T) {
	t.Parallel()
	server := redistest.Shared(t)
	admin := server.Client(t)
	for name, tt := range map[string]struct {
		commands string
		channels string
		want     string
	}{
		"without PUBLISH":     {aclIndex + " subscribe", "ended*", "no permission: NOPERM"},
		"without SUBSCRIBE":   {aclIndex + " publish", "ended*", "no permission: NOPERM"},
		"without the channel": {aclIndex + " publish subscribe", "", "no permission: NOPERM"},
		"without probes":      {aclIndex + " publish subscribe", "ended", "no permission: NOPERM"},
	} {
		t.Run(name, func(t *testing.T) {
			keyspace, user := newKeyspace(), strings.ReplaceAll(newKeyspace(), ":", "")
			if err := permit(t.Context(), admin, user, keyspace, strings.Fields(tt.commands)); err != nil {
				t.Fatal(err)
			}
			rights := []any{"acl", "setuser", user, "resetchannels"}
			if tt.channels != "" {
				rights = append(rights, "&"+keyspace+tt.channels)
			}
			if err := admin.Do(t.Context(), rights...).Err(); err != nil {
				t.Fatal(err)
			}
			store := newRedisStore(t, server.Client(t, func(o *redis.Options) { o.Username, o.Password = user, aclPassword }), keyspace)
			took, err := watchOnce(t, store).end(time.Now())
			if !errors.Is(err, echosession.ErrUnsupported) || echosession.CauseOf(err) != tt.want || took > 5*time.Second {
				t.Errorf("after %v: %v, named %q", took, causes(err), echosession.CauseOf(err))
			}
			endsWithoutRights(t, store)
		})
	}
}

// endsWithoutRights ends sessions in every way.
func endsWithoutRights(t *testing.T, store echosession.Store) {
	t.Helper()
	ctx := t.Context()
	refs := []echosession.Ref{newRef("ada"), newRef("ada"), newRef("ada"), newRef("ada"), newRef("ada")}
	successor, next := newRef("ada"), newRef("ada")
	for _, ref := range refs {
		mustCreate(t, store, ref, "old", time.Minute)
	}
	err := errors.Join(
		store.Delete(ctx, refs[0]),
		store.Rotate(ctx, refs[1], successor, []byte("old"), []byte("new"), time.Minute, 0),
		errOf(store.Renew(ctx, refs[2], next, []byte("old"), []byte("new"), time.Minute, echosession.Limit{})),
		errOf(store.Create(ctx, newRef("ada"), []byte("old"), time.Minute, echosession.Limit{Sessions: 3})),
	)
	if err != nil {
		t.Error(causes(err))
	}
	// The last two have the places of the first ones, and gave way.
	for _, ref := range append(refs[:3:3], successor, next) {
		if _, err := store.Check(ctx, ref); err == nil {
			t.Error("a session goes on that has ended")
		}
	}
	if n, err := store.DeleteSubject(ctx, "ada", nil); n != 3 || err != nil {
		t.Errorf("DeleteSubject: %d, %v", n, causes(err))
	}
}

// A client that has no Subscribe cannot watch.
func TestWatchWithoutSubscribe(t *testing.T) {
	t.Parallel()
	store := newRedisStore(t, newFakeRedis(t), newKeyspace())
	_, err := watchOnce(t, store).end(time.Now())
	if !errors.Is(err, echosession.ErrUnsupported) || !errors.Is(err, errors.ErrUnsupported) || echosession.CauseOf(err) != "the client cannot subscribe" {
		t.Errorf("%v, named %q", causes(err), echosession.CauseOf(err))
	}
}

// Of many sessions of a subject the message names those that were spared.
func TestWatchOfManySessions(t *testing.T) {
	t.Parallel()
	server := redistest.Shared(t)
	for _, tt := range []struct{ sessions, spared int }{{101, 1}, {100, 1}, {101, 101}} {
		t.Run(fmt.Sprintf("%d but %d", tt.sessions, tt.spared), func(t *testing.T) {
			t.Parallel()
			keyspace := newKeyspace()
			store, reader := newRedisStore(t, server.Client(t), keyspace), newRedisStore(t, server.Client(t, cached), keyspace)
			ear := listen(t, reader)
			var refs []echosession.Ref
			var except []string
			for i := range tt.sessions + tt.spared {
				refs = append(refs, newRef("ada"))
				mustCreate(t, store, refs[i], "old", time.Minute)
				if i < tt.spared {
					except = append(except, refs[i].ID)
				}
			}
			for echosession.JustWritten(reader, refs[0]) { // since All
				time.Sleep(10 * time.Millisecond)
			}
			if n, err := store.DeleteSubject(t.Context(), "ada", except); n != tt.sessions || err != nil {
				t.Fatal(n, err)
			}
			hint := ear.next()
			if named := tt.sessions <= 100; named != (hint.Match == nil) || named != (len(hint.IDs) == tt.sessions) {
				t.Fatalf("%+v", hint)
			}
			for i, ref := range refs {
				told := slices.Contains(hint.IDs, ref.ID) || hint.Match != nil && hint.Match(ref)
				// A session that is told of without need costs a look.
				if want := i >= tt.spared || tt.spared > 100; told != want {
					t.Errorf("session %d is told of: %t", i, told)
				}
			}
			other := newRef("bob")
			if hint.Match != nil && (hint.Match(other) || hint.Match(echosession.Ref{ID: other.ID})) {
				t.Error("the hint matches a session of another subject")
			}
			if last := refs[len(refs)-1]; !echosession.JustWritten(reader, last) {
				t.Error("a session that has ended may be served from the cache")
			}
		})
	}
}

// All comes first, also where messages come at once.
func TestWatchTellsAllFirst(t *testing.T) {
	t.Parallel()
	server := redistest.Shared(t)
	admin, keyspace := server.Client(t), newKeyspace()
	store := newRedisStore(t, server.Client(t), keyspace)
	ctx, stop := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	defer busy.Wait()
	defer stop()
	busy.Go(func() {
		for ctx.Err() == nil {
			pipe := admin.Pipeline()
			for range 10 {
				pipe.Publish(ctx, keyspace+"ended", "-:"+newID())
			}
			_, _ = pipe.Exec(ctx)
		}
	})
	for range 20 {
		ear := listen(t, store) // it looks at the first hint
		ear.next()
		ear.stop()
		<-ear.ended
	}
}

// The scripts of the fake publish what those of Redis publish.
func TestFakePublishesLikeRedis(t *testing.T) {
	t.Parallel()
	admin, fake, keyspace := redistest.Shared(t).Client(t), newFakeRedis(t), newKeyspace()
	pubsub := admin.Subscribe(t.Context(), keyspace+"ended")
	t.Cleanup(func() { pubsub.Close() })
	if _, err := pubsub.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	stores := []echosession.Store{newRedisStore(t, admin, keyspace), newRedisStore(t, fake, keyspace)}
	each := func(do func(s echosession.Store) error) {
		t.Helper()
		for _, s := range stores {
			if err := do(s); err != nil {
				t.Fatal(causes(err))
			}
		}
	}
	ctx, old, next := t.Context(), []byte("old"), []byte("old and new")
	for _, subject := range []string{"", "ada"} {
		limit := echosession.Limit{}
		for i := range 130 {
			ref := newRef(subject)
			each(func(s echosession.Store) error { return errOf(s.Create(ctx, ref, old, time.Minute, limit)) })
			a, b, c := newRef(subject), newRef(subject), newRef("bob")
			switch i {
			case 0:
				each(func(s echosession.Store) error { return s.Replace(ctx, ref, old, next, time.Minute) })
				each(func(s echosession.Store) error { return s.Touch(ctx, ref, time.Minute) })
				each(func(s echosession.Store) error { return s.Rotate(ctx, ref, a, old, next, time.Minute, time.Minute) })
				each(func(s echosession.Store) error { return errOf(s.Renew(ctx, a, b, old, next, time.Minute, limit)) })
				each(func(s echosession.Store) error { return errOf(s.Renew(ctx, b, c, old, next, time.Minute, limit)) })
				each(func(s echosession.Store) error { return s.Delete(ctx, c) })
				each(func(s echosession.Store) error { return s.Delete(ctx, c) })
			case 10:
				limit.Sessions = 5
			case 11:
				limit.Sessions = 0
				each(func(s echosession.Store) error {
					return errOf(s.Renew(ctx, ref, c, old, next, time.Minute, echosession.Limit{Sessions: 1}))
				})
				each(func(s echosession.Store) error {
					return errOf(s.Renew(ctx, c, a, old, next, time.Minute, echosession.Limit{Sessions: 2}))
				})
			case 129:
				each(func(s echosession.Store) error { _, err := s.DeleteSubject(ctx, subject, []string{ref.ID}); return err })
				each(func(s echosession.Store) error { _, err := s.DeleteSubject(ctx, subject, nil); return err })
			}
		}
	}
	want := fake.messages()
	if len(want) != 16 {
		t.Errorf("the fake publishes %d messages", len(want))
	}
	for i, want := range want {
		message, err := pubsub.ReceiveTimeout(ctx, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if got := message.(*redis.Message); got.Channel+" "+got.Payload != want {
			t.Errorf("message %d: Redis\n%.200q, the fake\n%.200q", i, got.Channel+" "+got.Payload, want)
		}
	}
	if message, err := pubsub.ReceiveTimeout(ctx, 50*time.Millisecond); err == nil {
		t.Errorf("Redis also publishes %v", message)
	}
}

// A session that another process ended is not served from the cache, even where the
// server's own word to the cache does not come.
func TestWatchKeepsEndsOutOfTheCache(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	deaf := newTunnel(t, server.Addr())
	invalidation := regexp.MustCompile(`>2\r\n\$10\r\ninvalidate\r\n\*\d+\r\n(\$\d+\r\n[^\r]*\r\n)+`)
	deaf.filter = func(b []byte) []byte { return invalidation.ReplaceAll(b, nil) }
	throughDeaf := func(o *redis.Options) { o.Addr = deaf.Addr().String() }
	keyspace := newKeyspace()
	store := newRedisStore(t, server.Client(t), keyspace)
	listening, other := newRedisStore(t, server.Client(t, cached, throughDeaf), keyspace), newRedisStore(t, server.Client(t, cached, throughDeaf), keyspace)
	for _, s := range []echosession.Store{listening, other} {
		if !echosession.Keeps(s) {
			t.Error("the client is not known to keep what it reads")
		}
	}
	if echosession.Keeps(store) {
		t.Error("a plain client is said to keep what it reads")
	}
	ear := listen(t, listening)
	for _, subject := range []string{"", "ada"} {
		ref := newRef(subject)
		for echosession.JustWritten(listening, ref) { // since All
			time.Sleep(10 * time.Millisecond)
		}
		mustCreate(t, store, ref, "old", time.Minute)
		load := func(s echosession.Store) error {
			_, err := s.Load(t.Context(), ref, 0)
			return err
		}
		for range 2 { // into the cache and out of it
			if err := errors.Join(load(listening), load(other)); err != nil {
				t.Fatal(causes(err))
			}
		}
		if err := store.Delete(t.Context(), ref); err != nil {
			t.Fatal(err)
		}
		ear.ids(ref.ID)
		if err := load(listening); !errors.Is(err, echosession.ErrNotFound) {
			t.Errorf("subject %q: it is served after its end was heard of: %v", subject, causes(err))
		}
		if err := load(other); err != nil {
			t.Errorf("subject %q: the cache was told all the same: %v", subject, causes(err))
		}
	}

	// So that much is not remembered one by one, all keys count as just written.
	for n := 1; !echosession.JustWritten(listening, newRef("")); n++ {
		if n > 5 { // it is a matter of what comes in one second
			t.Fatal("over 10,000 keys are remembered")
		}
		var last string
		pipe := server.Client(t).Pipeline()
		for range 101 {
			message := "-:"
			for range 100 {
				last = newID()
				message += last
			}
			pipe.Publish(t.Context(), keyspace+"ended", message)
		}
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		ear.ids(last)
	}
}

// What another program publishes does no harm.
func TestWatchIgnoresWhatIsNoMessage(t *testing.T) {
	t.Parallel()
	server := redistest.Shared(t)
	admin, keyspace := server.Client(t), newKeyspace()
	store := newRedisStore(t, server.Client(t), keyspace)
	ear := listen(t, store)
	ref, hash := echosession.Ref{ID: "abcdef01-2345-4678-9abc-def012345678"}, strings.Repeat("h", 22)
	for _, message := range []string{
		"", "-", "*", ":", "-:", "*:", "-" + hash + ":", "x:" + ref.ID, "-" + ref.ID, "-" + hash + ref.ID,
		"-h:" + ref.ID, "*h:" + ref.ID, "-" + hash + "h:" + ref.ID, "*" + ref.ID, "é" + hash + ":" + ref.ID,
		"-:" + ref.ID[:35], "-:" + ref.ID + " ", "-:" + strings.ToUpper(ref.ID), "-:" + strings.Repeat("x", 36),
		"-:{" + ref.ID[2:] + "}", "-:" + strings.Repeat(ref.ID, 101), "*" + hash + ":" + strings.Repeat(ref.ID, 101),
		"-:" + strings.Repeat(ref.ID, 100_000), strings.Repeat("x", 8<<20), "\x00\xff\xc1", "-:\x00",
	} {
		if n, err := admin.Publish(t.Context(), keyspace+"ended", message).Result(); n != 1 || err != nil {
			t.Fatalf("%d hear %.50q: %v", n, message, err)
		}
	}
	for _, channel := range admin.PubSubChannels(t.Context(), keyspace+"ended:*").Val() {
		for _, message := range []string{"", "1", "-1", "x", strings.Repeat("1", 1000)} {
			if n, err := admin.Publish(t.Context(), channel, message).Result(); n != 1 || err != nil {
				t.Fatal(n, err)
			}
		}
	}
	ref = newRef("ada")
	mustCreate(t, store, ref, "old", time.Minute)
	if err := store.Delete(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	if hint := ear.next(); !slices.Equal(hint.IDs, []string{ref.ID}) || hint.All || hint.Match != nil {
		t.Errorf("heard of %+v, want %s alone", hint, ref.ID)
	}
}

// goroutines returns the stacks that contain text.
func goroutines(text string) (found string) {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for stack := range strings.SplitSeq(string(stacks), "\n\n") {
		if strings.Contains(stack, text) {
			found += stack + "\n"
		}
	}
	return found
}

// A Watch that has returned leaves nothing behind, however it ended. This test is not
// parallel: it counts.
func TestWatchLeavesNothing(t *testing.T) {
	server := redistest.Start(t)
	admin := server.Client(t)
	store := newRedisStore(t, server.Client(t), newKeyspace())
	clean := func(what string) {
		t.Helper()
		left := ""
		for range 50 { // whoever has said that it is done may not have returned
			left = admin.Do(t.Context(), "client", "list", "type", "pubsub").Val().(string)
			left += goroutines("echosession.(*listener)") + goroutines("redis.(*PubSub)")
			if left == "" {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("%s: this is left:\n%s", what, left)
	}
	for range 3 {
		ear := listen(t, store)
		begin := time.Now()
		ear.stop()
		if took, err := ear.end(begin); !errors.Is(err, context.Canceled) || took > 5*time.Second {
			t.Errorf("after %v: %v", took, causes(err))
		}
		clean("stopped")
	}
	ear := listen(t, store)
	admin.Do(t.Context(), "client", "kill", "type", "pubsub")
	_, _ = ear.end(time.Now())
	clean("killed")
	ear = listen(t, store)
	server.Pause(t)
	_, _ = ear.end(time.Now())
	server.Resume(t)
	ear = listen(t, store)
	server.Pause(t)
	time.Sleep(700 * time.Millisecond)
	ear.stop()
	if _, err := ear.end(time.Now()); !errors.Is(err, context.Canceled) {
		t.Error(causes(err))
	}
	if left := goroutines("(*listener).publish"); left != "" {
		t.Errorf("a probe is left:\n%s", left)
	}
	// A Watch that cannot even begin.
	_, err := watchOnce(t, store).end(time.Now())
	begin := time.Now()
	ear = watchOnce(t, store)
	time.Sleep(100 * time.Millisecond)
	ear.stop()
	took, stopped := ear.end(begin)
	t.Logf("a server that is paused: %v; stopped after %v: %v", causes(err), took, causes(stopped))
	if !errors.Is(err, echosession.ErrStoreUnavailable) || !errors.Is(stopped, context.Canceled) || took > 5*time.Second {
		t.Error("that is wrong")
	}
	server.Resume(t)
	clean("paused")
	if hints := len(ear.hints); hints != 0 {
		t.Errorf("%d hints without a subscription", hints)
	}
}
