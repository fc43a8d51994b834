package echosession

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// RedisClient is what [NewRedisStore] needs of go-redis. [*redis.Client] (with
// Sentinel too), [*redis.ClusterClient], [*redis.Ring] and [*redis.AutoPipeliner]
// implement it.
//
// The store uses the methods Subscribe and Pipeline where a client has them, as all of
// these have. Without Subscribe a Manager that watches sessions asks again and again.
//
// Build clients with ContextTimeoutEnabled: then [Config.StoreTimeout] costs
// nothing. Without it go-redis ignores deadlines while it waits for a reply.
// The store then runs every command in a goroutine of its own, and stops waiting
// for that goroutine at the deadline.
type RedisClient interface {
	Process(ctx context.Context, cmd redis.Cmder) error
}

var (
	_ RedisClient = (*redis.Client)(nil)
	_ RedisClient = (*redis.ClusterClient)(nil)
	_ RedisClient = (*redis.Ring)(nil)
	_ RedisClient = (*redis.AutoPipeliner)(nil)
)

// RedisOptions configure [NewRedisStore].
type RedisOptions struct {
	// Keyspace begins the name of every key. Default "sess:".
	Keyspace string

	// WaitReplicas is [Config.WaitReplicas]. Default 0.
	WaitReplicas int

	// SubjectIndex makes Ping try the commands of the index too. The refs say themselves
	// whether they are indexed.
	SubjectIndex bool

	// Tickets makes Ping try the command that takes tickets too.
	Tickets bool
}

// NewRedisStore returns the [Store] that a [Manager] makes from [Config.Client].
// Call it to wrap that store in a store of your own, and set the wrapper as
// [Config.Store]. It needs Redis 6.2 or newer. It is a [Pinger], a [Watcher] and a
// [TicketStore]: what your wrapper should pass on of these, it needs methods for.
//
// Keys are <keyspace><id>. A ref with a subject has the key
// <keyspace>{<hash>}:<id>, where hash is the first half of the subject's SHA-256,
// in base64url, and the sorted set <keyspace>{<hash>} indexes that subject's
// sessions: all of them in one Cluster slot. A ticket has the key
// <keyspace>ticket:<hash>, where hash is that of the ticket.
//
// The ends of sessions are published to the channel <keyspace>ended, and each Watch
// publishes twice a second to a channel of its own, <keyspace>ended:<random>. A user without
// the right to publish ends sessions all the same.
//
// With client-side caching or reads from replicas, Watch also keeps Load from returning
// what has ended elsewhere: for a second after it hears of an end, reads go to the primary.
// A Manager whose client may read so calls Watch from its first request on.
//
// With client-side caching, a Load with a ttl of zero may find a record whose lifetime
// has passed, until Redis notices that. A Manager does not call it when the lifetime
// may have passed: it then restarts the lifetime, and that goes to Redis.
func NewRedisStore(client RedisClient, opts RedisOptions) (Store, error) {
	if opts.Keyspace == "" {
		opts.Keyspace = defaultKeyspace
	}
	if _, rest, ok := strings.Cut(opts.Keyspace, "{"); ok && strings.HasPrefix(rest, "}") {
		return nil, &ConfigError{"Keyspace", "with {} it scatters the sessions of a subject over the slots of a Cluster; put a name between the braces or drop them"}
	}
	r := &redisStore{client: client, keyspace: opts.Keyspace, channel: opts.Keyspace + "ended", waitReplicas: opts.WaitReplicas, subjectIndex: opts.SubjectIndex, tickets: opts.Tickets, bounds: defaultBounds}
	if v := reflect.ValueOf(client); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		return nil, &ConfigError{"Client", "it is nil; hand in one from redis.NewClient"}
	}
	stale := true
	r.plainReads = true
	switch c := client.(type) {
	case *redis.Client:
		o := c.Options()
		r.deadlines = o.ContextTimeoutEnabled
		stale = o.ClientSideCache != nil || o.ClientSideCacheConfig != nil
		r.plainReads = stale
	case *redis.ClusterClient:
		o := c.Options()
		r.deadlines = o.ContextTimeoutEnabled
		stale = o.ReadOnly || o.RouteByLatency || o.RouteRandomly
		r.plainReads = false
	case *redis.Ring:
		r.deadlines = c.Options().ContextTimeoutEnabled
		stale, r.plainReads = false, false
	case *redis.AutoPipeliner:
		// The blocking face heeds neither deadlines nor cancellation; a future of
		// the deferred face can be left at the deadline.
		r.async = c
		if c.IsBlocking() {
			options := c.Config()
			async, err := c.AsyncAutoPipelineWithOptions(&options)
			if err != nil {
				return nil, &ConfigError{"Client", "the auto-pipeliner has no deferred face: " + err.Error()}
			}
			r.async = async
		}
	case redis.Pipeliner:
		return nil, &ConfigError{"Client", "a redis.Pipeliner only queues commands; hand in the client, or client.AutoPipeline()"}
	}
	if opts.WaitReplicas < 0 {
		return nil, &ConfigError{"WaitReplicas", fmt.Sprintf("%d; it counts replicas", opts.WaitReplicas)}
	}
	if opts.WaitReplicas > 0 {
		switch client.(type) {
		case *redis.Client, *redis.ClusterClient:
		default:
			return nil, &ConfigError{"WaitReplicas", fmt.Sprintf("it works with a *redis.Client or *redis.ClusterClient, not with a %T", client)}
		}
	}
	if stale {
		r.recent = &recentWrites{until: make(map[string]time.Time)}
	}
	// A random start keeps the tags of different processes apart.
	var start [8]byte
	rand.Read(start[:])
	r.tags.Store(binary.BigEndian.Uint64(start[:]))
	return r, nil
}

type redisStore struct {
	client    RedisClient
	async     *redis.AutoPipeliner // nil unless an auto-pipeliner was handed in
	keyspace  string
	channel   string // where the ends of sessions are published
	deadlines bool   // the client obeys a context's deadline
	// plainReads sends reads as they are, and leaves it to the client to repeat them: a
	// client-side cache knows no other commands.
	plainReads bool
	recent     *recentWrites // nil when the client cannot serve stale reads
	tags       atomic.Uint64

	waitReplicas int
	subjectIndex bool
	tickets      bool
	bounds       scriptBounds
}

// A value that is no record begins with noRecord, the ID that the key belongs to, and a
// second ID. Behind them comes the valueKind, and when the value ends, in decimal
// milliseconds since 1970: GETEX may prolong the life of its key. See lua/prelude.lua.
const (
	noRecord = 0xc1
	refIDLen = 36
	headLen  = 1 + 2*refIDLen
)

type valueKind string

const (
	pointerValue valueKind = ""  // the session was rotated, and goes on under the second ID
	markValue    valueKind = "!" // the session was renewed under the second ID: nothing leads there
	pendingValue valueKind = "?" // the renewal of the second ID is under way: there is no session yet
)

// start is how the value of id's key begins.
func (k valueKind) start(id, second string) string {
	return string([]byte{noRecord}) + id + second + string(k)
}

func (r *redisStore) key(ref Ref) string {
	if ref.Subject == "" {
		return r.keyspace + ref.ID
	}
	return r.index(ref.Subject) + ":" + ref.ID
}

func (r *redisStore) index(subject string) string {
	sum := sha256.Sum256([]byte(subject))
	return r.keyspace + "{" + base64.RawURLEncoding.EncodeToString(sum[:16]) + "}"
}

// keys are the KEYS of a script about one session.
func (r *redisStore) keys(ref Ref) []string {
	if ref.Subject == "" {
		return []string{r.key(ref)}
	}
	index := r.index(ref.Subject)
	return []string{index + ":" + ref.ID, index}
}

func (r *redisStore) Load(ctx context.Context, ref Ref, ttl time.Duration) (value []byte, err error) {
	if ttl == 0 {
		value, err = r.get(ctx, r.key(ref))
	} else {
		value, err = r.touch(ctx, ref, ttl)
	}
	if err != nil {
		return nil, err
	}
	return r.follow(ctx, ref, value)
}

func (r *redisStore) get(ctx context.Context, key string) ([]byte, error) {
	return r.read(ctx, r.getter(key), key)
}

// getter returns the command that reads a key. A client may be built to read from
// replicas or from a client-side cache: just after a write of this process the command
// goes past both.
func (r *redisStore) getter(key string) string {
	if r.recent.has(key) {
		// GETEX without options changes nothing. But it is never answered from a
		// cache, and always runs on the primary.
		return "getex"
	}
	return "get"
}

// read runs a command that replies with the value of a key.
func (r *redisStore) read(ctx context.Context, args ...any) ([]byte, error) {
	var value []byte
	_, err := r.attempt(ctx, reading, func() error {
		cmd := redis.NewStringCmd(ctx, args...)
		var sent redis.Cmder = onceString{cmd}
		if r.plainReads {
			sent = cmd
		}
		err := r.process(ctx, sent)
		if err == nil {
			value, err = cmd.Bytes()
		}
		if errors.Is(err, redis.Nil) {
			return nil
		}
		return err
	})
	return value, err
}

// touch reads a key and restarts its lifetime.
func (r *redisStore) touch(ctx context.Context, ref Ref, ttl time.Duration) ([]byte, error) {
	ms, err := milliseconds(ttl)
	if err != nil {
		return nil, err
	}
	if ref.Subject == "" {
		return r.read(ctx, "getex", r.key(ref), "px", ms)
	}
	value, err := loadScript.run(ctx, r, r.keys(ref), ms, ref.ID)
	return []byte(value), err
}

// follow tells a record from nothing, and from where a session went.
func (r *redisStore) follow(ctx context.Context, ref Ref, value []byte) ([]byte, error) {
	if len(value) > 0 && value[0] == noRecord {
		// This is rare: a pointer lives for the few seconds of a grace, and the other kinds
		// for a minute. GETEX may have prolonged their life.
		latest, err := pointerScript.run(ctx, r, []string{r.key(ref)})
		if err != nil {
			return nil, err
		}
		value = []byte(latest)
	}
	return under(ref, value)
}

// under says what the value of ref's key is. What is no record comes from pointer.lua.
func under(ref Ref, value []byte) ([]byte, error) {
	switch {
	case len(value) == 0:
		return nil, ErrNotFound
	case value[0] != noRecord:
		return value, nil
	case len(value) <= headLen || string(value[1:1+refIDLen]) != ref.ID:
		return nil, unavailable(errForeignReply)
	}
	switch valueKind(value[headLen : headLen+1]) {
	case markValue:
		return nil, ErrRenewed
	case pendingValue:
		return nil, ErrNotFound
	}
	_, left, _ := bytes.Cut(value[headLen:], []byte(" "))
	ms, err := strconv.ParseInt(string(left), 10, 64)
	if err != nil {
		return nil, unavailable(errForeignReply)
	}
	return nil, &RotatedError{To: string(value[1+refIDLen : headLen]), Left: time.Duration(ms) * time.Millisecond}
}

func (r *redisStore) Create(ctx context.Context, ref Ref, record []byte, ttl time.Duration, limit Limit) (evicted []string, err error) {
	ms, err := milliseconds(ttl)
	if err != nil {
		return nil, err
	}
	defer r.recent.writing(r.key(ref))()
	_, err = r.attempt(ctx, changing, func() error {
		var err error
		evicted, err = r.insert(ctx, ref, record, ms, limit)
		if err != nil && !decided(err) && maybeApplied(err) {
			// A second attempt could bring back a session that was revoked meanwhile.
			err = indeterminate(err)
		}
		return err
	})
	return evicted, err
}

// insert stores a record under a key that does not exist or holds the same record.
func (r *redisStore) insert(ctx context.Context, ref Ref, record []byte, ms int64, limit Limit) (evicted []string, err error) {
	if ref.Subject != "" {
		refuse := 0
		if limit.Sessions > 0 && limit.WhenFull == RefuseNew {
			refuse = 1
		}
		args := []any{ms, ref.ID, record, limit.Sessions, r.bounds.makeRoom, refuse, r.channel}
		reply := again
		for reply == again {
			value, err := createScript.eval(ctx, r, r.keys(ref), args)
			if err != nil {
				return nil, err
			}
			reply, _ = value.(string)
		}
		gone, ok := strings.CutPrefix(reply, "ok")
		if !ok {
			return nil, verdictError(reply)
		}
		return r.evicted(ref.Subject, gone), nil
	}
	key := r.key(ref)
	err = r.write(ctx, key, once{redis.NewCmd(ctx, "set", key, record, "px", ms, "nx")})
	if !errors.Is(err, redis.Nil) {
		return nil, err
	}
	value, err := r.get(ctx, key)
	if err == nil && !bytes.Equal(value, record) {
		err = ErrConflict
	}
	return nil, err
}

// again is what a script replies that has removed as many entries of expired sessions as
// it may in one step, and has not come to an end.
const again = "again"

// evicted notes and returns the sessions that gave way, whose IDs a script has replied.
func (r *redisStore) evicted(subject, gone string) []string {
	if gone == "" {
		return nil
	}
	ids := strings.Fields(gone)
	for _, id := range ids {
		r.recent.add(r.key(Ref{ID: id, Subject: subject}))
	}
	return ids
}

func (r *redisStore) Replace(ctx context.Context, ref Ref, old, record []byte, ttl time.Duration) error {
	ms, err := milliseconds(ttl)
	if err != nil {
		return err
	}
	if err := checkOld(old); err != nil {
		return err
	}
	return replaceScript.apply(ctx, r, r.keys(ref), ms, ref.ID, old, record)
}

func (r *redisStore) Touch(ctx context.Context, ref Ref, ttl time.Duration) error {
	_, err := r.Load(ctx, ref, cmp.Or(ttl, -1)) // Load takes 0 for "leave the lifetime as it is"
	if _, rotated := errors.AsType[*RotatedError](err); rotated {
		return ErrNotFound
	}
	return err
}

func (r *redisStore) Delete(ctx context.Context, ref Ref) error {
	// The end of the chain is deleted first: it is the session itself. Whoever writes
	// to Redis can make a chain that has no end.
	var pointers []string
	for range maxRotations {
		keys := r.keys(ref)
		written := r.recent.writing(keys[0])
		value, err := deleteScript.run(ctx, r, keys, ref.ID, r.channel)
		written()
		if err != nil {
			return err
		}
		_, err = r.follow(ctx, ref, []byte(value))
		rotated, ok := errors.AsType[*RotatedError](err)
		if !ok {
			if err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
			for _, key := range pointers {
				// Best effort: a pointer that stays behind leads nowhere and expires.
				_ = r.del(ctx, key)
			}
			return nil
		}
		pointers = append(pointers, keys[0])
		ref.ID = rotated.To
	}
	return unavailable(errTooManyRotations)
}

func (r *redisStore) del(ctx context.Context, key string) error {
	_, err := r.attempt(ctx, changing, func() error { return r.write(ctx, key, once{redis.NewCmd(ctx, "del", key)}) })
	return err
}

func (r *redisStore) Rotate(ctx context.Context, from, to Ref, old, record []byte, ttl, grace time.Duration) error {
	if err := checkRotate(from, to, old, ttl, grace); err != nil {
		return err
	}
	ms, graceMS := ttl.Milliseconds(), grace.Milliseconds()
	keys := append(r.keys(from), r.key(to))
	defer r.recent.writing(r.key(to))()
	pointer := pointerValue.start(from.ID, to.ID)
	if from.Subject != "" {
		return rotateScript.apply(ctx, r, keys, ms, from.ID, old, record, pointer, graceMS, to.ID, r.channel)
	}
	// The two keys may live in different slots, so this takes two steps. The
	// second one decides: no token names the new key before the old one leads to it.
	if _, err := r.attempt(ctx, changing, func() error {
		_, err := r.insert(ctx, to, record, ms, Limit{})
		return err
	}); err != nil {
		if errors.Is(err, ErrIndeterminate) {
			// The successor may be stored or not: from is unchanged either way.
			return unavailable(errors.New("the successor could not be stored"))
		}
		return err
	}
	err := rotateScript.apply(ctx, r, keys[:1], ms, from.ID, old, "", pointer, graceMS, to.ID, r.channel)
	if err != nil && !errors.Is(err, ErrIndeterminate) {
		// Best effort: a successor that stays behind cannot be reached and expires.
		_ = r.del(ctx, keys[1])
	}
	return err
}

func (r *redisStore) Check(ctx context.Context, ref Ref) (time.Duration, error) {
	reply, err := checkScript.run(ctx, r, r.keys(ref), ref.ID)
	if err != nil {
		return 0, err
	}
	if reply == "" || reply[0] == noRecord {
		if _, err := r.follow(ctx, ref, []byte(reply)); err != nil {
			return 0, err
		}
		return r.Check(ctx, ref) // it has become a record meanwhile
	}
	return lifetimeIn(reply)
}

// lifetimeIn reads what check.lua replies for a session.
func lifetimeIn(reply string) (time.Duration, error) {
	ms, err := strconv.ParseInt(reply, 10, 64)
	if err != nil {
		return 0, unavailable(errForeignReply)
	}
	return time.Duration(max(0, ms)) * time.Millisecond, nil
}

// scriptBounds bound what one script does: while it runs, Redis does nothing else.
type scriptBounds struct {
	// makeRoom is how many sessions a Create with a limit looks at, and how many it
	// deletes at most.
	makeRoom int

	// count is how many sessions a page of Count has.
	count int

	// A page of List has at most list sessions. It ends earlier, once its records have
	// listBytes together.
	list, listBytes int

	// revoke is how many sessions of a subject are deleted in one step.
	revoke int
}

var defaultBounds = scriptBounds{makeRoom: 1000, count: 1000, list: 250, listBytes: 1 << 20, revoke: 5000}

func (r *redisStore) List(ctx context.Context, subject string) ([]Entry, error) {
	if subject == "" {
		return nil, ended(ctx)
	}
	var entries []Entry // the newest first
	for below := "+inf"; below != "" && len(entries) < MaxListed; {
		var reply []any
		_, err := r.attempt(ctx, reading, func() error {
			most := min(r.bounds.list, MaxListed-len(entries))
			value, err := listScript.eval(ctx, r, []string{r.index(subject)}, []any{below, most, r.bounds.listBytes})
			reply, _ = value.([]any)
			return err
		})
		if err != nil {
			return nil, err
		}
		if len(reply) == 0 {
			return nil, unavailable(errForeignReply)
		}
		below, _ = reply[0].(string)
		for i := 1; i+1 < len(reply); i += 2 {
			record, _ := reply[i].(string)
			ms, _ := reply[i+1].(int64)
			entries = append(entries, Entry{Record: []byte(record), TTL: time.Duration(ms) * time.Millisecond})
		}
	}
	slices.Reverse(entries)
	return entries, nil
}

func (r *redisStore) Count(ctx context.Context, subject string) (int, error) {
	if subject == "" {
		return 0, ended(ctx)
	}
	total := 0
	for below := "+inf"; below != ""; {
		var reply []any
		_, err := r.attempt(ctx, reading, func() error {
			value, err := countScript.eval(ctx, r, []string{r.index(subject)}, []any{below, r.bounds.count})
			reply, _ = value.([]any)
			return err
		})
		if err != nil {
			return 0, err
		}
		if len(reply) != 2 {
			return 0, unavailable(errForeignReply)
		}
		below, _ = reply[0].(string)
		n, _ := reply[1].(int64)
		total += int(n)
	}
	return total, nil
}

func (r *redisStore) DeleteSubject(ctx context.Context, subject string, except []string) (int, error) {
	if subject == "" {
		return 0, ended(ctx)
	}
	args := make([]any, 0, 3+len(except))
	args = append(args, r.bounds.revoke, maxRotations, r.channel)
	for _, id := range except {
		args = append(args, id)
	}
	deleted := 0
	for {
		n, more, err := r.revoke(ctx, subject, args)
		if err != nil {
			if deleted > 0 {
				err = indeterminate(err)
			}
			return 0, err
		}
		deleted += n
		// The last page takes what is indexed when it runs: the sessions created
		// since the first one too.
		if !more {
			return deleted, nil
		}
	}
}

// revoke deletes a page of a subject's sessions.
func (r *redisStore) revoke(ctx context.Context, subject string, args []any) (n int, more bool, err error) {
	defer r.recent.writing(everyKey)()
	reply, err := revokeScript.run(ctx, r, []string{r.index(subject)}, args...)
	if err != nil {
		return 0, false, err
	}
	reply, more = strings.CutSuffix(reply, "+")
	if n, err = strconv.Atoi(reply); err != nil {
		return 0, false, unavailable(errForeignReply)
	}
	return n, more, nil
}

// milliseconds refuses a lifetime that Redis would read as none at all.
func milliseconds(ttl time.Duration) (int64, error) {
	return ttl.Milliseconds(), checkLifetime(ttl)
}
