package echosession

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
)

var _ Watcher = (*redisStore)(nil)

const (
	// A probe is published every probeEvery, to a channel that this process alone hears. It
	// shows that what the servers publish arrives. A server that is primary no more still
	// answers PINGs where a client is subscribed: so probes go where this process writes.
	probeEvery = 500 * time.Millisecond

	// silentFor is how long no probe may be heard, and how long each of them may be on its
	// way, until the subscription counts as broken.
	silentFor = 1200 * time.Millisecond

	// subscribeFor is how long a subscription may take to begin.
	subscribeFor = 2 * time.Second

	// provenAfter is how many probes in a row must be heard after one that could not be
	// published. On a Cluster go-redis publishes at one primary after another.
	provenAfter = 8
)

// Watch implements [Watcher]. It lasts as long as one connection, or with a Ring until no
// shard is heard.
func (r *redisStore) Watch(ctx context.Context, tell func(Hint)) error {
	switch c := r.client.(type) {
	case *redis.Ring:
		return r.watchRing(ctx, c, tell)
	case *redis.ClusterClient:
		return r.watchCluster(ctx, c, tell)
	}
	return r.listen(ctx, tell)
}

// A subscriber is a client that can hear what is published.
type subscriber interface {
	// Subscribe, without channels, makes no connection.
	Subscribe(ctx context.Context, channels ...string) *redis.PubSub
}

// listen is Watch for one connection.
func (r *redisStore) listen(ctx context.Context, tell func(Hint)) error {
	client, ok := r.client.(subscriber)
	if !ok {
		return unsupported(namedError{error: fmt.Errorf("a %T has no method Subscribe", r.client), name: "the client cannot subscribe"})
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	l := &listener{
		store: r, tell: tell, end: end, own: r.channel + ":" + rand.Text(),
		began: make(chan struct{}, 1), unheard: make(map[string]time.Time),
		heard: time.Now().Add(subscribeFor - silentFor),
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		end(l.read(ctx, client))
	}()
	ticks := time.NewTicker(probeEvery / 2)
	defer ticks.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			continue
		case <-l.began:
		case <-ticks.C:
		}
		l.probe(ctx, time.Now())
	}
	l.probes.Wait()
	select {
	case <-read:
	case <-time.After(subscribeFor):
		// Some clients heed no deadline while they connect. Then nothing is told any more, and
		// the connection is closed.
	}
	return context.Cause(ctx)
}

// A listener is one connection that hears of ends.
type listener struct {
	store  *redisStore
	tell   func(Hint)
	end    context.CancelCauseFunc
	own    string        // the channel of the probes
	began  chan struct{} // has a value once the subscription is confirmed
	probes sync.WaitGroup

	mu         sync.Mutex
	subscribed bool
	sent       int                  // how many probes
	last       time.Time            // when the last one was sent
	unheard    map[string]time.Time // when the probes were sent that are on their way
	heard      time.Time            // when one was heard last
	sure       bool                 // one was heard
	doubt      int                  // how many are to be heard until All is told again, or 0
}

// read subscribes, and hears messages until the connection fails or ctx is done.
func (l *listener) read(ctx context.Context, client subscriber) error {
	// A cluster client connects to the node for the first channel. That of the random one may
	// be alive where another is down.
	err := subscribed(ctx, client, func(pubsub *redis.PubSub) error { return l.receive(ctx, pubsub) }, l.own, l.store.channel)
	return watchFailed(l.store.doubt(ctx, err))
}

// subscribed subscribes to channels, and calls receive again and again. It returns its first
// error, when the connection is closed.
func subscribed(ctx context.Context, client subscriber, receive func(*redis.PubSub) error, channels ...string) error {
	pubsub := client.Subscribe(ctx)
	closed := make(chan struct{})
	interrupt := context.AfterFunc(ctx, func() {
		_ = pubsub.Close()
		close(closed)
	})
	defer func() {
		if interrupt() {
			_ = pubsub.Close()
		} else {
			<-closed
		}
	}()
	connecting, cancel := context.WithTimeout(ctx, subscribeFor)
	err := pubsub.Subscribe(connecting, channels...)
	cancel()
	for err == nil {
		err = receive(pubsub)
	}
	return err
}

// receive waits for one message.
func (l *listener) receive(ctx context.Context, pubsub *redis.PubSub) error {
	// When the connection fails go-redis makes another one before it returns: this bounds
	// that too.
	ctx, cancel := context.WithTimeout(ctx, subscribeFor)
	defer cancel()
	message, err := pubsub.ReceiveTimeout(ctx, subscribeFor)
	if err != nil {
		return err
	}
	switch m := message.(type) {
	case *redis.Subscription:
		if m.Channel == l.store.channel { // the last one
			l.mu.Lock()
			defer l.mu.Unlock()
			l.subscribed = true
			select {
			case l.began <- struct{}{}:
			default:
			}
		}
	case *redis.Message:
		if m.Channel == l.own {
			l.hearProbe(m.Payload)
		} else if hint, ok := l.store.hear(m.Payload); ok {
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.sure {
				l.tell(hint)
			}
		}
	}
	return nil
}

// probe ends a watch that has become deaf. Otherwise it sends a probe when it is time: earlier
// while another is on its way, whose server may be down.
func (l *listener) probe(ctx context.Context, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	deaf := now.Sub(l.heard) > silentFor
	for _, sent := range l.unheard {
		// One server of a Cluster has published it, and another one does not hear that.
		deaf = deaf || now.Sub(sent) > silentFor
	}
	if deaf {
		l.end(unavailable(errSilent))
		return
	}
	hurry := len(l.unheard) > 0 || l.doubt > 0
	if !l.subscribed || !hurry && now.Sub(l.last) < probeEvery*3/4 {
		return
	}
	l.sent++
	number := strconv.Itoa(l.sent)
	l.last, l.unheard[number] = now, now
	deadline := l.heard.Add(silentFor) // later it is of no use
	l.probes.Go(func() { l.publish(ctx, number, deadline) })
}

var errSilent = namedError{error: errors.New("what is published is not heard"), name: "subscription silent"}

// publish publishes a probe.
func (l *listener) publish(ctx context.Context, number string, deadline time.Time) {
	sending, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	err := l.store.process(sending, once{redis.NewCmd(sending, "publish", l.own, number)})
	if err == nil || ctx.Err() != nil {
		return
	}
	if err := watchFailed(err); errors.Is(err, ErrUnsupported) {
		l.end(err)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.unheard, number)
	// What its server published last, before it went down, may be lost.
	l.doubt = provenAfter
}

// hearProbe notes that a probe was heard.
func (l *listener) hearProbe(number string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.unheard[number]; !ok {
		return
	}
	delete(l.unheard, number)
	l.heard = time.Now()
	all := !l.sure || l.doubt == 1
	l.doubt = max(0, l.doubt-1)
	if all {
		l.sure = true
		l.store.recent.add(everyKey)
		l.tell(Hint{All: true})
	}
}

// watchFailed is the error of a watch. What no later attempt can do is unsupported.
func watchFailed(err error) error {
	err = refusal(err)
	if named, ok := errors.AsType[namedError](err); ok && (strings.HasPrefix(named.name, noPermission) || named.name == unknownCommand) {
		return unsupported(err)
	}
	return unavailable(err)
}

func unsupported(cause error) error { return fmt.Errorf("%w: %w", ErrUnsupported, cause) }

const (
	// maxNamed is the most IDs in a message.
	maxNamed = 100

	hashLen = 22 // of 16 bytes in base64url
)

// hear reads a message of publish in lua/prelude.lua. The keys of the sessions count as just
// written, so that no cache serves what it had before. Any program may publish to the
// channel: what looks different is not for this package.
//
// The channel does not name the database, which a client need not tell: an auto-pipeliner
// does not. A message from another database says that random IDs have ended which are not
// in this one, and a look finds that out.
func (r *redisStore) hear(text string) (Hint, bool) {
	head, list, ok := strings.Cut(text, ":")
	if !ok || len(list)%refIDLen != 0 || len(list) > maxNamed*refIDLen {
		return Hint{}, false
	}
	var ids []string
	for id := range slices.Chunk([]byte(list), refIDLen) {
		parsed, err := uuid.ParseBytes(id)
		if err != nil || parsed.String() != string(id) {
			return Hint{}, false
		}
		ids = append(ids, parsed.String())
	}
	sign, hash := head[:min(1, len(head))], head[min(1, len(head)):]
	switch {
	case sign == "-" && hash == "" && len(ids) > 0:
		for _, id := range ids {
			r.recent.add(r.keyspace + id)
		}
		return Hint{IDs: ids}, true
	case sign == "-" && len(hash) == hashLen && len(ids) > 0:
		for _, id := range ids {
			r.recent.add(r.keyspace + "{" + hash + "}:" + id)
		}
		return Hint{IDs: ids}, true
	case sign == "*" && len(hash) == hashLen:
		r.recent.add(everyKey)
		index := r.keyspace + "{" + hash + "}"
		return Hint{Match: func(ref Ref) bool {
			return ref.Subject != "" && !slices.Contains(ids, ref.ID) && r.index(ref.Subject) == index
		}}, true
	}
	return Hint{}, false
}

// watchCluster is Watch for a Cluster. One connection hears what any node publishes, and so
// misses nothing. But on its way from node to node a message may wait 40 ms for an
// acknowledgement (Nagle's algorithm meets a delayed ACK). So each primary is listened to as
// well, and what comes a second time is an end that nobody watches any more.
func (r *redisStore) watchCluster(ctx context.Context, client *redis.ClusterClient, tell func(Hint)) error {
	ctx, end := context.WithCancel(ctx)
	w := &clusterWatch{store: r, tell: tell}
	w.primaries.Go(func() { w.discover(ctx, client) })
	defer w.close()
	defer end()
	return r.listen(ctx, func(hint Hint) {
		tell(hint)
		if hint.All {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.sure = true
		}
	})
}

// A clusterWatch is one Watch of a Cluster.
type clusterWatch struct {
	store     *redisStore
	tell      func(Hint)
	primaries sync.WaitGroup
	heard     sync.Map // by *redis.Client

	mu   sync.Mutex
	sure bool // All was told, which comes first
}

// close makes sure that nothing is told any more.
func (w *clusterWatch) close() {
	w.mu.Lock()
	w.sure = false
	w.mu.Unlock()
	over := make(chan struct{})
	go func() {
		defer close(over)
		w.primaries.Wait()
	}()
	select {
	case <-over:
	case <-time.After(subscribeFor): // as in listen
	}
}

// discover listens to all primaries.
func (w *clusterWatch) discover(ctx context.Context, client *redis.ClusterClient) {
	for ctx.Err() == nil {
		_ = client.ForEachMaster(ctx, func(_ context.Context, primary *redis.Client) error {
			if _, known := w.heard.LoadOrStore(primary, true); !known {
				w.primaries.Go(func() {
					defer w.heard.Delete(primary)
					w.overhear(ctx, primary)
				})
			}
			return nil
		})
		select {
		case <-ctx.Done():
		case <-time.After(rediscover):
		}
	}
}

// rediscover is how often the primaries of a Cluster are looked up.
const rediscover = time.Second

// overhear listens to one primary until its connection fails, and makes sure of nothing.
func (w *clusterWatch) overhear(ctx context.Context, primary *redis.Client) {
	_ = subscribed(ctx, primary, func(pubsub *redis.PubSub) error {
		message, err := pubsub.ReceiveTimeout(ctx, overhearFor)
		if m, ok := message.(*redis.Message); ok {
			if hint, ok := w.store.hear(m.Payload); ok {
				w.mu.Lock()
				defer w.mu.Unlock()
				if w.sure {
					w.tell(hint)
				}
			}
		}
		return err
	}, w.store.channel)
}

// overhearFor is how long a connection may be silent until another one takes its place:
// nothing else shows whether it still works.
const overhearFor = 30 * time.Second

// watchRing is Watch for a Ring: it listens to each shard. A shard that is down leaves the
// others alone, and is tried again and again.
func (r *redisStore) watchRing(ctx context.Context, ring *redis.Ring, tell func(Hint)) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	w := &ringWatch{end: end, tell: tell, states: make(map[*redis.Client]shardState)}
	ticks := time.NewTicker(probeEvery)
	defer ticks.Stop()
	for ctx.Err() == nil {
		for _, client := range ring.GetShardClients() {
			if w.enter(client) {
				shard := &redisStore{client: client, keyspace: r.keyspace, channel: r.channel, deadlines: r.deadlines, recent: r.recent}
				w.shards.Go(func() { w.listen(ctx, client, shard) })
			}
		}
		w.mu.Lock()
		if len(w.states) == 0 {
			end(unavailable(errNoShard))
		}
		w.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-ticks.C:
		}
	}
	w.shards.Wait()
	return context.Cause(ctx)
}

var errNoShard = namedError{error: errors.New("the ring has no shard that works"), name: "no shard"}

// A ringWatch is one Watch of a Ring.
type ringWatch struct {
	tell   func(Hint)
	end    context.CancelCauseFunc
	shards sync.WaitGroup

	mu     sync.Mutex
	states map[*redis.Client]shardState
	told   bool // All was told, once each shard was tried
}

type shardState int

const (
	shardUntried shardState = iota
	shardHeard
	shardLost // at the last attempt
)

// enter notes a shard, and reports whether it is a new one.
func (w *ringWatch) enter(client *redis.Client) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, known := w.states[client]
	if !known {
		w.states[client] = shardUntried
	}
	return !known
}

// listen listens to a shard until ctx is done or the shard is no longer in the ring.
func (w *ringWatch) listen(ctx context.Context, client *redis.Client, shard *redisStore) {
	for ctx.Err() == nil {
		err := shard.listen(ctx, func(hint Hint) { w.hear(client, hint) })
		switch {
		case errors.Is(err, ErrUnsupported):
			w.end(err)
		case errors.Is(err, redis.ErrClosed):
			w.mu.Lock()
			delete(w.states, client)
			if len(w.states) > 0 {
				w.tellFirst()
			}
			w.mu.Unlock()
			return
		case ctx.Err() == nil && !w.lose(client):
			w.end(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(probeEvery):
		}
	}
}

// hear takes a hint of a shard. What comes before the first All is in it.
func (w *ringWatch) hear(client *redis.Client, hint Hint) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.told:
		w.states[client] = shardHeard
		w.tell(hint)
	case hint.All:
		w.states[client] = shardHeard
		w.tellFirst()
	}
}

// lose notes that a shard is not heard, and reports whether another one is or may be.
func (w *ringWatch) lose(client *redis.Client) (another bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.states[client] = shardLost
	for _, state := range w.states {
		another = another || state != shardLost
	}
	if another {
		w.tellFirst()
	}
	return another
}

// tellFirst tells All for the first time when each shard was tried. w.mu is held.
func (w *ringWatch) tellFirst() {
	for _, state := range w.states {
		if state == shardUntried {
			return
		}
	}
	if !w.told {
		w.told = true
		w.tell(Hint{All: true})
	}
}

// keeps reports whether the client serves what has ended elsewhere, as far as it tells: out
// of its cache or from a replica. What r hears of ends then keeps it from doing so. An
// auto-pipeliner has no cache, for go-redis answers no pipeline out of one.
func (r *redisStore) keeps() bool {
	switch r.client.(type) {
	case *redis.Client, *redis.ClusterClient:
		return r.recent != nil
	}
	return false
}

// serverOf names the server that has ref, as far as the client knows without asking. It is
// "" where there is one server, or nothing is known.
func (r *redisStore) serverOf(ref Ref) string {
	var (
		client *redis.Client
		err    error
	)
	switch c := r.client.(type) {
	case *redis.ClusterClient:
		client, err = c.MasterForKey(noTime, r.key(ref))
	case *redis.Ring:
		client, err = c.GetShardClientForKey(r.key(ref))
	}
	if client == nil || err != nil {
		return ""
	}
	return client.Options().Addr
}

// noTime is for calls that may not wait.
var noTime = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// checkMany is [Store.Check] for many refs, in one round trip. A server that does not
// answer leaves the refs of the others alone.
func (r *redisStore) checkMany(ctx context.Context, refs []Ref) []checked {
	answers := make([]checked, len(refs))
	if _, ok := r.client.(pipeliner); !ok {
		r.checkEach(ctx, refs, answers)
		return answers
	}
	calls := make([]scriptCall, len(refs))
	for i, ref := range refs {
		calls[i] = scriptCall{server: r.serverOf(ref), keys: r.keys(ref), args: []any{ref.ID}}
	}
	checkScript.evalMany(ctx, r, calls)
	var others []int // refs that hold no record
	var pointers []scriptCall
	for i, c := range calls {
		switch {
		case c.err != nil:
			answers[i].err = unavailable(refusal(c.err))
		case c.reply == "":
			answers[i].err = ErrNotFound
		case c.reply[0] == noRecord:
			others = append(others, i)
			pointers = append(pointers, scriptCall{server: c.server, keys: c.keys[:1]})
		default:
			answers[i].left, answers[i].err = lifetimeIn(c.reply)
		}
	}
	pointerScript.evalMany(ctx, r, pointers)
	for n, c := range pointers {
		i := others[n]
		if c.err != nil {
			answers[i].err = unavailable(refusal(c.err))
		} else if _, err := under(refs[i], []byte(c.reply)); err != nil {
			answers[i].err = err
		} else {
			answers[i].left, answers[i].err = r.Check(ctx, refs[i]) // it has become a record meanwhile
		}
	}
	return answers
}

// checkEach is checkMany for a client without pipelines.
func (r *redisStore) checkEach(ctx context.Context, refs []Ref, answers []checked) {
	const atOnce = 8
	var wg sync.WaitGroup
	for first := range min(atOnce, len(refs)) {
		wg.Go(func() {
			for i := first; i < len(refs); i += atOnce {
				answers[i].left, answers[i].err = r.Check(ctx, refs[i])
			}
		})
	}
	wg.Wait()
}
