package echosession_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// A meter measures what a store asks of a server that nobody else uses: how many
// commands it sends, how many commands one script runs inside Redis, and how many
// bytes one reply has. It counts, so a slow machine changes nothing.
type meter struct {
	admin *redis.Client // not measured
	store echosession.Store

	mu    sync.Mutex
	sent  int // commands of the store
	steps int // most commands that one of them ran, itself included
	reply int // most bytes of one reply
}

func newMeter(t *testing.T, keyspace string) *meter {
	server := redistest.Start(t)
	m := &meter{admin: server.Client(t)}
	client := server.Client(t, func(o *redis.Options) {
		o.PoolSize, o.MinIdleConns, o.Protocol, o.DisableIdentity, o.ReadTimeout = 1, 0, 2, true, 30*time.Second
		o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, addr)
			return &meteredConn{Conn: conn, meter: m}, err
		}
	})
	client.AddHook(m)
	m.store = newRedisStore(t, client, keyspace)
	if err := client.Ping(t.Context()).Err(); err != nil { // so that it is connected
		t.Fatal(err)
	}
	return m
}

// reset begins to count anew.
func (m *meter) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sent, m.steps, m.reply = 0, 0, 0
}

func (m *meter) DialHook(next redis.DialHook) redis.DialHook { return next }

func (m *meter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (m *meter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		before := m.calls()
		err := next(ctx, cmd)
		if ctx.Err() != nil {
			return err // the command may be running still
		}
		steps := m.calls() - before
		m.mu.Lock()
		defer m.mu.Unlock()
		m.sent++
		m.steps = max(m.steps, steps)
		return err
	}
}

// calls returns how many commands the server has run, those in scripts included.
func (m *meter) calls() (n int) {
	stats, err := m.admin.InfoMap(context.Background(), "commandstats").Result()
	if err != nil {
		return 0
	}
	for name, text := range stats["Commandstats"] {
		calls := 0
		if _, err := fmt.Sscanf(text, "calls=%d,", &calls); err == nil && name != "cmdstat_info" {
			n += calls
		}
	}
	return n
}

// meteredConn counts what is read between two writes.
type meteredConn struct {
	net.Conn
	meter *meter
	read  int
}

func (c *meteredConn) Write(b []byte) (int, error) {
	c.read = 0
	return c.Conn.Write(b)
}

func (c *meteredConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.read += n
	c.meter.mu.Lock()
	defer c.meter.mu.Unlock()
	c.meter.reply = max(c.meter.reply, c.read)
	return n, err
}

// fill stores sessions of a subject past the store, the oldest first, and returns
// their refs.
func (m *meter) fill(t *testing.T, keyspace, subject string, n, size int) []echosession.Ref {
	t.Helper()
	refs := make([]echosession.Ref, n)
	filling := bytes.Repeat([]byte("x"), size)
	for batch := range slices.Chunk(refs, 500) {
		pipe := m.admin.Pipeline()
		for i := range batch {
			batch[i] = newRef(subject)
			key, index := echosession.RedisKeys(keyspace, batch[i])
			pipe.Set(t.Context(), key, append([]byte(batch[i].ID), filling...), time.Hour)
			pipe.ZAdd(t.Context(), index, redis.Z{Score: float64(time.Now().UnixMicro() + int64(i)), Member: batch[i].ID})
			pipe.PExpire(t.Context(), index, time.Hour)
		}
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return refs
}

// forge makes from lead to to, as a rotation would.
func (m *meter) forge(t *testing.T, keyspace string, from, to echosession.Ref) {
	t.Helper()
	key, _ := echosession.RedisKeys(keyspace, from)
	ends := time.Now().Add(time.Hour).UnixMilli()
	if err := m.admin.Set(t.Context(), key, fmt.Sprint("\xc1", from.ID, to.ID, ends), time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
}

// Whoever writes to Redis can make rotated sessions lead to each other in a circle,
// or in a chain of any length. Nothing follows them for ever.
func TestForgedRotationsEnd(t *testing.T) {
	const most = 40 // rotations that are followed, and a little more
	for _, subject := range []string{"", "ada"} {
		for _, length := range []int{1, 2, 3, 1000} {
			t.Run(fmt.Sprintf("subject %q, %d", subject, length), func(t *testing.T) {
				t.Parallel()
				keyspace := newKeyspace()
				m := newMeter(t, keyspace)
				live := newRef(subject)
				if _, err := m.store.Create(t.Context(), live, []byte("r"), time.Hour, echosession.Limit{}); err != nil {
					t.Fatal(err)
				}
				refs := make([]echosession.Ref, length)
				for i := range refs {
					refs[i] = newRef(subject)
				}
				for i, ref := range refs {
					m.forge(t, keyspace, ref, refs[(i+1)%length])
				}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				m.reset()
				if err := m.store.Delete(ctx, refs[0]); !errors.Is(err, echosession.ErrStoreUnavailable) || ctx.Err() != nil {
					t.Errorf("Delete: %v, want ErrStoreUnavailable", err)
				}
				if m.sent > 3*most || m.steps > 20 {
					t.Errorf("Delete: %d commands, one of %d steps", m.sent, m.steps)
				}
				if subject == "" {
					return
				}
				m.reset()
				n, err := m.store.DeleteSubject(ctx, subject, []string{refs[0].ID, live.ID})
				if n != 0 || err != nil {
					t.Fatalf("DeleteSubject: %d, %v", n, err)
				}
				if m.sent > 3 || m.steps > 2*most {
					t.Errorf("DeleteSubject: %d commands, one of %d steps", m.sent, m.steps)
				}
				if _, err := m.store.Load(t.Context(), live, 0); err != nil {
					t.Errorf("the session that was to be spared: %v", err)
				}
			})
		}
	}
}

// A session that was rotated again and again within the grace is destroyed by its
// first token, and is spared by its first ID.
func TestManyRotationsAreFollowed(t *testing.T) {
	const rotations = 31 // the engine reads this far
	keyspace := newKeyspace()
	m := newMeter(t, keyspace)
	first := newRef("ada")
	if _, err := m.store.Create(t.Context(), first, []byte("r"), time.Hour, echosession.Limit{}); err != nil {
		t.Fatal(err)
	}
	last := first
	for range rotations {
		next := newRef("ada")
		if err := m.store.Rotate(t.Context(), last, next, []byte("r"), []byte("r"), time.Hour, time.Hour); err != nil {
			t.Fatal(err)
		}
		last = next
	}
	if n, err := m.store.DeleteSubject(t.Context(), "ada", []string{first.ID}); n != 0 || err != nil {
		t.Errorf("DeleteSubject: %d, %v", n, err)
	}
	if _, err := m.store.Load(t.Context(), last, 0); err != nil {
		t.Fatalf("the session that was to be spared: %v", err)
	}
	if err := m.store.Delete(t.Context(), first); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if _, err := m.store.Load(t.Context(), last, 0); !errors.Is(err, echosession.ErrNotFound) {
		t.Errorf("the session that was to be deleted: %v", err)
	}
}

// One call of List does not stop Redis for long, nor fill the memory, however many
// sessions the subject has and however large they are.
func TestListIsBounded(t *testing.T) {
	for _, tt := range []struct{ sessions, size, commands int }{
		{12_000, 10, 12},
		{1_500, 20 << 10, 40},
		{400, 64 << 10, 40},
	} {
		t.Run(fmt.Sprintf("%d of %d bytes", tt.sessions, tt.size), func(t *testing.T) {
			t.Parallel()
			keyspace := newKeyspace()
			m := newMeter(t, keyspace)
			refs := m.fill(t, keyspace, "ada", tt.sessions, tt.size)
			refs = refs[max(0, len(refs)-echosession.MaxListed):]
			m.reset()
			list, err := m.store.List(t.Context(), "ada")
			if err != nil || len(list) != len(refs) {
				t.Fatalf("%d sessions, %v, want %d", len(list), err, len(refs))
			}
			for i, entry := range list {
				if !strings.HasPrefix(string(entry.Record), refs[i].ID) {
					t.Fatalf("session %d is another", i)
				}
			}
			t.Logf("%d commands, at most %d steps and %d bytes each", m.sent, m.steps, m.reply)
			if m.sent > tt.commands || m.steps > 1000 || m.reply > 2<<20 {
				t.Error("that is too much")
			}
		})
	}
}

// What has expired does not stay in the index of its subject: List removes what it
// comes upon.
func TestListTidiesTheIndex(t *testing.T) {
	keyspace := newKeyspace()
	m := newMeter(t, keyspace)
	refs := m.fill(t, keyspace, "ada", 600, 10)
	for i, ref := range refs {
		if key, _ := echosession.RedisKeys(keyspace, ref); i%3 > 0 {
			m.admin.Del(t.Context(), key) // as Redis does it at the end of a lifetime
		}
	}
	list, err := m.store.List(t.Context(), "ada")
	_, index := echosession.RedisKeys(keyspace, refs[0])
	if n := m.admin.ZCard(t.Context(), index).Val(); len(list) != 200 || n != 200 || err != nil {
		t.Errorf("%d sessions are listed, %v, and %d indexed, want 200", len(list), err, n)
	}
}

// Nor does it without a limit: each Create looks at eight entries.
func TestCreateTidiesTheIndex(t *testing.T) {
	keyspace := newKeyspace()
	m := newMeter(t, keyspace)
	var index string
	for _, ref := range m.fill(t, keyspace, "ada", 8, 10) {
		var key string
		key, index = echosession.RedisKeys(keyspace, ref)
		m.admin.Del(t.Context(), key)
	}
	live := []echosession.Ref{newRef("ada"), newRef("ada"), newRef("ada")}
	for i, ref := range live {
		if _, err := m.store.Create(t.Context(), ref, []byte("r"), time.Hour, echosession.Limit{}); err != nil {
			t.Fatal(err)
		}
		// Of nine entries one may be left out, and it may be an expired one.
		if n := m.admin.ZCard(t.Context(), index).Val(); n > int64(i+2) {
			t.Errorf("after %d creates %d sessions are indexed", i+1, n)
		}
	}
	if list, err := m.store.List(t.Context(), "ada"); len(list) != len(live) || err != nil {
		t.Errorf("%d sessions are listed, %v", len(list), err)
	}
}

func TestDeleteTidiesTheIndex(t *testing.T) {
	keyspace := newKeyspace()
	m := newMeter(t, keyspace)
	for _, ref := range m.fill(t, keyspace, "ada", 3, 10) {
		if err := m.store.Delete(t.Context(), ref); err != nil {
			t.Fatal(err)
		}
	}
	if n := m.admin.DBSize(t.Context()).Val(); n != 0 {
		t.Errorf("%d keys are left", n)
	}
}

// While the pages of a list are read, sessions come, go and rotate. Those that live
// all the time are listed, once each.
func TestListWhileSessionsChange(t *testing.T) {
	keyspace := newKeyspace()
	m := newMeter(t, keyspace)
	refs := m.fill(t, keyspace, "ada", 700, 10)
	stop, stopped := make(chan struct{}), make(chan struct{})
	changing := newRedisStore(t, m.admin, keyspace)
	rotated := make(map[int]string) // of the goroutine, until it stopped
	go func() {
		defer close(stopped)
		for i := 0; ; i = (i + 7) % len(refs) {
			select {
			case <-stop:
				return
			default:
			}
			if i%2 == 0 { // an even one rotates, an odd one stays
				next := newRef("ada")
				if err := changing.Rotate(context.Background(), refs[i], next, []byte(refs[i].ID), []byte(next.ID), time.Hour, time.Hour); err != nil {
					t.Error(err)
					return
				}
				refs[i], rotated[i] = next, next.ID
			}
			brief := newRef("ada")
			if _, err := changing.Create(context.Background(), brief, []byte("a session that comes and goes anyhow"), time.Hour, echosession.Limit{}); err != nil {
				t.Error(err)
				return
			}
			if err := changing.Delete(context.Background(), brief); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for range 20 {
		list, err := m.store.List(t.Context(), "ada")
		if err != nil {
			t.Fatal(err)
		}
		seen := make(map[string]int)
		lasting := 0
		for _, entry := range list {
			id := string(entry.Record[:36])
			if seen[id]++; seen[id] > 1 {
				t.Errorf("%s is listed twice", id)
			}
			if !strings.HasPrefix(id, "a session") {
				lasting++
			}
		}
		if lasting != len(refs) {
			t.Errorf("%d of %d sessions are listed", lasting, len(refs))
		}
		for i := 1; i < len(refs); i += 2 {
			if seen[refs[i].ID] != 1 {
				t.Errorf("session %d, which nobody touched, is not listed", i)
			}
		}
	}
	close(stop)
	<-stopped
	if len(rotated) < 10 {
		t.Errorf("only %d sessions were rotated", len(rotated))
	}
}

// RevokeSubject is one script for up to 5,000 sessions. More take more scripts, each
// of them bounded, and the last takes what is indexed then.
func TestRevocationIsBounded(t *testing.T) {
	for _, tt := range []struct{ sessions, spared, scripts int }{
		{5_000, 0, 1},
		{5_010, 10, 1},
		{5_001, 0, 2},
		{12_000, 0, 3},
		{12_000, 6_000, 2},
	} {
		t.Run(fmt.Sprintf("%d but %d", tt.sessions, tt.spared), func(t *testing.T) {
			t.Parallel()
			keyspace := newKeyspace()
			m := newMeter(t, keyspace)
			loadScripts(t, m.admin)
			refs := m.fill(t, keyspace, "ada", tt.sessions, 10)
			var spared []string
			for _, ref := range refs[:tt.spared] { // the oldest: each script meets them
				spared = append(spared, ref.ID)
			}
			m.reset()
			n, err := m.store.DeleteSubject(t.Context(), "ada", spared)
			if n != tt.sessions-tt.spared || err != nil {
				t.Errorf("%d, %v, want %d", n, err, tt.sessions-tt.spared)
			}
			t.Logf("%d commands, at most %d steps and %d bytes each", m.sent, m.steps, m.reply)
			if m.sent != tt.scripts || m.steps > 2*5_000+tt.spared+5 {
				t.Errorf("%d commands, one of %d steps, want %d commands", m.sent, m.steps, tt.scripts)
			}
			_, index := echosession.RedisKeys(keyspace, refs[0])
			left := m.admin.ZRange(t.Context(), index, 0, -1).Val()
			if slices.Sort(left); !slices.Equal(left, slices.Sorted(slices.Values(spared))) {
				t.Errorf("%d sessions are indexed, want %d", len(left), len(spared))
			}
			if keys := m.admin.DBSize(t.Context()).Val(); keys != int64(tt.spared+min(tt.spared, 1)) {
				t.Errorf("%d keys are left", keys)
			}
		})
	}
}

// A session that is created while RevokeSubject goes through its pages is gone too,
// and so is one that is rotated meanwhile.
func TestTheLastPageOfARevocationTakesAll(t *testing.T) {
	keyspace := newKeyspace()
	m := newMeter(t, keyspace)
	loadScripts(t, m.admin)
	refs := m.fill(t, keyspace, "ada", 5_100, 10)
	meanwhile := newRedisStore(t, m.admin, keyspace)
	created, rotated := newRef("ada"), newRef("ada")
	last := refs[len(refs)-1] // in the second page
	server := &between{meter: m, do: func() error {
		return errors.Join(
			errOf(meanwhile.Create(t.Context(), created, []byte("r"), time.Hour, echosession.Limit{})),
			meanwhile.Rotate(t.Context(), last, rotated, []byte(last.ID), []byte("r"), time.Hour, time.Hour),
		)
	}}
	client := redis.NewClient(m.admin.Options())
	t.Cleanup(func() { _ = client.Close() })
	client.AddHook(server)
	n, err := newRedisStore(t, client, keyspace).DeleteSubject(t.Context(), "ada", nil)
	if n != len(refs)+1 || err != nil || server.err != nil || server.scripts != 2 {
		t.Errorf("%d deleted, %v, %v, %d scripts", n, err, server.err, server.scripts)
	}
	for _, ref := range []echosession.Ref{created, rotated} {
		if _, err := meanwhile.Load(t.Context(), ref, 0); !errors.Is(err, echosession.ErrNotFound) {
			t.Errorf("%v", err)
		}
	}
}

// between does something after the first script of its client.
type between struct {
	*meter
	do      func() error
	scripts int
	err     error
}

func (b *between) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if cmd.Name() == "evalsha" {
			if b.scripts++; b.scripts == 1 {
				b.err = b.do()
			}
		}
		return err
	}
}

// Once a page was deleted, a failure leaves some sessions revoked: it is never
// called a failure that changed nothing.
func TestARevocationThatStopsHalfway(t *testing.T) {
	keyspace := newKeyspace()
	m := newMeter(t, keyspace)
	loadScripts(t, m.admin)
	m.fill(t, keyspace, "ada", 5_100, 10)
	ctx, cancel := context.WithCancel(t.Context())
	client := redis.NewClient(m.admin.Options())
	t.Cleanup(func() { _ = client.Close() })
	client.AddHook(&between{meter: m, do: func() error { cancel(); return nil }})
	_, err := newRedisStore(t, client, keyspace).DeleteSubject(ctx, "ada", nil)
	if !errors.Is(err, echosession.ErrIndeterminate) {
		t.Errorf("%v, want ErrIndeterminate", err)
	}
	if n, err := m.store.DeleteSubject(t.Context(), "ada", nil); n != 100 || err != nil {
		t.Errorf("the rest: %d, %v, want 100", n, err)
	}
}

// A Create with a limit does bounded work, even if the subject has many more
// sessions than the limit: the next ones go on with it.
func TestMakingRoomIsBounded(t *testing.T) {
	const limit, sessions = 3, 2_500
	keyspace := newKeyspace()
	m := newMeter(t, keyspace)
	loadScripts(t, m.admin)
	refs := m.fill(t, keyspace, "ada", sessions, 10)
	_, index := echosession.RedisKeys(keyspace, refs[0])
	var created []echosession.Ref
	all := refs // oldest first
	for _, want := range []int64{1_501, 502, limit, limit} {
		ref := newRef("ada")
		created = append(created, ref)
		m.reset()
		evicted, err := m.store.Create(t.Context(), ref, []byte("r"), time.Hour, echosession.Limit{Sessions: limit})
		if err != nil {
			t.Fatal(err)
		}
		gone := len(all) + 1 - int(want)
		checkEvicted(t, evicted, all[:gone])
		all = append(all[gone:], ref)
		if m.sent != 1 || m.steps > 3*1_000+20 || m.reply > 64<<10 {
			t.Errorf("%d commands, one of %d steps and %d bytes", m.sent, m.steps, m.reply)
		}
		if n := m.admin.ZCard(t.Context(), index).Val(); n != want {
			t.Errorf("%d sessions are left, want %d", n, want)
		}
		t.Logf("%d sessions: %d steps, %d bytes", want, m.steps, m.reply)
	}
	for i, ref := range created {
		if _, err := m.store.Load(t.Context(), ref, 0); errors.Is(err, echosession.ErrNotFound) != (i == 0) {
			t.Errorf("the new session %d: %v", i, err)
		}
	}
}

// A Create and a Renew with RefuseNew do bounded work, even where the index is full of
// sessions that have expired. Then they take several steps, but decide.
func TestRefusingIsBounded(t *testing.T) {
	const most = 1_000 // expired ones that a step may remove, and more
	for _, tt := range []struct {
		name                  string
		sessions, live, limit int // the live ones are the newest
		scripts               int
		full                  bool
	}{
		{"room", 10, 10, 11, 1, false},
		{"full", 2_500, 2_500, 3, 1, true},
		{"full of as many as there can be", 1_000, 1_000, 1_000, 1, true},
		{"more than as many as there can be", 2_500, 2_500, 1_000, 1, true},
		{"full of expired ones", 2_500, 0, 3, 3, false},
		{"expired ones, and as many as there can be", 2_500, 1_000, 1_000, 2, true},
		{"expired ones, and room for one", 2_500, 999, 1_000, 1, false},
	} {
		for _, op := range []string{"Create", "Renew"} {
			t.Run(tt.name+", "+op, func(t *testing.T) {
				t.Parallel()
				keyspace := newKeyspace()
				m := newMeter(t, keyspace)
				loadScripts(t, m.admin)
				refs := m.fill(t, keyspace, "ada", tt.sessions, 10)
				m.expire(t, keyspace, refs[:tt.sessions-tt.live])
				guest, ref := newRef(""), newRef("ada")
				mustCreate(t, newRedisStore(t, m.admin, keyspace), guest, "guest", time.Hour)
				limit := echosession.Limit{Sessions: tt.limit, WhenFull: echosession.RefuseNew}
				m.reset()
				var err error
				scripts := tt.scripts
				if op == "Create" {
					_, err = m.store.Create(t.Context(), ref, []byte("r"), time.Hour, limit)
				} else {
					_, err = m.store.Renew(t.Context(), guest, ref, []byte("guest"), []byte("r"), time.Hour, limit)
					scripts += 2
					if tt.full {
						scripts = tt.scripts + 1 // it looks at the guest again
					}
				}
				if (err != nil) != tt.full || tt.full && !errors.Is(err, echosession.ErrTooManySessions) {
					t.Errorf("%v, and that it is full is %v", err, tt.full)
				}
				t.Logf("%d scripts, one of %d steps", m.sent, m.steps)
				if m.sent != scripts || m.steps > 2*(most+tt.limit)+20 {
					t.Errorf("%d scripts, want %d, one of %d steps", m.sent, scripts, m.steps)
				}
			})
		}
	}
}

// expire takes the records of sessions away, and leaves their entries in the index.
func (m *meter) expire(t *testing.T, keyspace string, refs []echosession.Ref) {
	t.Helper()
	for chunk := range slices.Chunk(refs, 1_000) {
		var keys []string
		for _, ref := range chunk {
			key, _ := echosession.RedisKeys(keyspace, ref)
			keys = append(keys, key)
		}
		if err := m.admin.Del(t.Context(), keys...).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// Count goes through the index in pages.
func TestCountIsBounded(t *testing.T) {
	for _, tt := range []struct{ sessions, live, scripts, left int }{
		{0, 0, 1, 0}, {999, 999, 1, 999}, {1_000, 1_000, 2, 1_000}, {2_500, 2_500, 3, 2_500}, {2_500, 1_200, 3, 1_200},
	} {
		t.Run(fmt.Sprintf("%d of %d", tt.live, tt.sessions), func(t *testing.T) {
			t.Parallel()
			keyspace := newKeyspace()
			m := newMeter(t, keyspace)
			loadScripts(t, m.admin)
			refs := m.fill(t, keyspace, "ada", tt.sessions, 10)
			m.expire(t, keyspace, refs[tt.live:])
			m.reset()
			n, err := m.store.Count(t.Context(), "ada")
			if n != tt.live || err != nil {
				t.Errorf("%d, %v, want %d", n, err, tt.live)
			}
			t.Logf("%d scripts, one of %d steps, replies of %d bytes", m.sent, m.steps, m.reply)
			if m.sent != tt.scripts || m.steps > 2*1_000+5 || m.reply > 200 {
				t.Errorf("%d scripts, want %d, one of %d steps, replies of %d bytes", m.sent, tt.scripts, m.steps, m.reply)
			}
			_, index := echosession.RedisKeys(keyspace, newRef("ada"))
			if left := m.admin.ZCard(t.Context(), index).Val(); left != int64(tt.left) {
				t.Errorf("%d are indexed, want %d", left, tt.left)
			}
		})
	}
}

// Check reads no record, and Renew takes a few steps, however many sessions the subjects
// have.
func TestCheckAndRenewAreSmall(t *testing.T) {
	keyspace := newKeyspace()
	m := newMeter(t, keyspace)
	loadScripts(t, m.admin)
	m.fill(t, keyspace, "ada", 3_000, 10)
	big := bytes.Repeat([]byte("r"), 64<<10)
	for _, tt := range []struct {
		from, to string
		scripts  int
	}{{"ada", "ada", 1}, {"bob", "ada", 3}, {"ada", "", 3}, {"", "", 3}} {
		from, to := newRef(tt.from), newRef(tt.to)
		if _, err := m.store.Create(t.Context(), from, big, time.Hour, echosession.Limit{}); err != nil {
			t.Fatal(err)
		}
		m.reset()
		if left, err := m.store.Check(t.Context(), from); left <= 0 || err != nil || m.sent != 1 || m.steps > 5 || m.reply > 100 {
			t.Errorf("%q: Check: %v, %v, %d commands, one of %d steps, a reply of %d bytes", tt.from, left, err, m.sent, m.steps, m.reply)
		}
		m.reset()
		_, err := m.store.Renew(t.Context(), from, to, big[:16], big, time.Hour, echosession.Limit{})
		if err != nil || m.sent != tt.scripts || m.steps > 25 || m.reply > 200 {
			t.Errorf("%q to %q: Renew: %v, %d commands, one of %d steps, replies of %d bytes", tt.from, tt.to, err, m.sent, m.steps, m.reply)
		}
		m.reset()
		if _, err := m.store.Check(t.Context(), from); !errors.Is(err, echosession.ErrRenewed) || m.sent != 2 || m.steps > 5 {
			t.Errorf("Check of a renewed session: %v, %d commands, one of %d steps", err, m.sent, m.steps)
		}
	}
}

// A Renew that makes room does as much work in one step as a Create.
func TestMakingRoomForARenewIsBounded(t *testing.T) {
	keyspace := newKeyspace()
	m := newMeter(t, keyspace)
	loadScripts(t, m.admin)
	refs := m.fill(t, keyspace, "ada", 2_500, 10)
	guest, ref := newRef(""), newRef("ada")
	mustCreate(t, m.store, guest, "guest", time.Hour)
	m.reset()
	evicted, err := m.store.Renew(t.Context(), guest, ref, []byte("guest"), []byte("r"), time.Hour, echosession.Limit{Sessions: 3})
	n, countErr := m.store.Count(t.Context(), "ada")
	if err != nil || countErr != nil || n != 1_501 || m.steps > 3*1_000+25 || m.reply > 64<<10 {
		t.Errorf("%v, %v, %d sessions are left, one of %d steps, replies of %d bytes", err, countErr, n, m.steps, m.reply)
	}
	checkEvicted(t, evicted, refs[:1_000])
	if _, err := m.store.Load(t.Context(), ref, 0); err != nil {
		t.Errorf("the new session: %v", err)
	}
}

// checkEvicted checks that a Create or a Renew returned the IDs of these refs, in any order.
func checkEvicted(t *testing.T, evicted []string, refs []echosession.Ref) {
	t.Helper()
	want := make([]string, len(refs))
	for i, ref := range refs {
		want[i] = ref.ID
	}
	slices.Sort(want)
	if got := slices.Sorted(slices.Values(evicted)); !slices.Equal(got, want) {
		t.Errorf("%d IDs are returned, want those of the %d that gave way", len(got), len(want))
	}
}

// Where clocks go backwards, as after a failover, a new session is still the newest:
// it comes last in the list, and others give way to it.
func TestANewSessionIsTheNewest(t *testing.T) {
	const limit = 3
	tomorrow := float64(time.Now().Add(24 * time.Hour).UnixMicro())
	for _, tt := range []struct {
		score   float64 // of the last session before
		ordered bool
	}{
		{tomorrow, true},
		{1e17, false}, // forged: no number is the next one after it
		{math.Inf(1), false},
	} {
		t.Run(fmt.Sprint(tt.score), func(t *testing.T) {
			keyspace := newKeyspace()
			m := newMeter(t, keyspace)
			old := m.fill(t, keyspace, "ada", 2, 10)
			_, index := echosession.RedisKeys(keyspace, old[0])
			if err := m.admin.ZAddXX(t.Context(), index, redis.Z{Score: tt.score, Member: old[1].ID}).Err(); err != nil {
				t.Fatal(err)
			}
			want := []string{old[0].ID, old[1].ID}
			for i := range 2 * limit {
				ref := newRef("ada")
				if _, err := m.store.Create(t.Context(), ref, []byte(ref.ID), time.Hour, echosession.Limit{Sessions: limit}); err != nil {
					t.Fatal(err)
				}
				want = append(want, ref.ID)
				want = want[max(0, len(want)-limit):]
				list, err := m.store.List(t.Context(), "ada")
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, entry := range list {
					got = append(got, string(entry.Record[:36]))
				}
				if tt.ordered && !slices.Equal(got, want) || !slices.Contains(got, ref.ID) || len(got) != limit {
					t.Errorf("after new session %d: %q, want %q", i, got, want)
				}
			}
		})
	}
}

// Scan reads a bounded number of records at a time.
func TestScanIsBounded(t *testing.T) {
	keyspace := newKeyspace()
	m := newMeter(t, keyspace)
	m.fill(t, keyspace, "ada", 5_000, 1<<10)
	m.reset()
	seen := make(map[string]bool)
	for entry, err := range m.store.Scan(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		seen[string(entry.Record[:36])] = true
	}
	t.Logf("at most %d bytes in a reply", m.reply)
	if len(seen) != 5_000 || m.reply > 2*256*(1<<10+100) {
		t.Errorf("%d records, %d bytes in a reply", len(seen), m.reply)
	}
}

// slowCache is a client with a cache that hears of changes late: within the second
// for which the store knows what it wrote.
type slowCache struct {
	echosession.RedisClient
	lag    time.Duration
	mu     sync.Mutex
	cached map[string]cachedValue
	hits   int
}

type cachedValue struct {
	value string
	err   error
	until time.Time
}

func newSlowCache(client echosession.RedisClient) *slowCache {
	return &slowCache{RedisClient: client, lag: 700 * time.Millisecond, cached: make(map[string]cachedValue)}
}

func (c *slowCache) Process(ctx context.Context, cmd redis.Cmder) error {
	get, ok := cmd.(*redis.StringCmd)
	if !ok || cmd.Name() != "get" || ctx.Err() != nil {
		return c.RedisClient.Process(ctx, cmd)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.cached, func(_ string, v cachedValue) bool { return time.Now().After(v.until) })
	key := fmt.Sprint(cmd.Args()[1])
	v, ok := c.cached[key]
	if ok {
		c.hits++
	} else {
		began := time.Now()
		v.err = c.RedisClient.Process(ctx, cmd)
		v.value = get.Val()
		v.until = began.Add(c.lag)
		c.cached[key] = v
	}
	get.SetVal(strings.Clone(v.value))
	get.SetErr(v.err)
	return v.err
}

// slowWrites takes its time for each write.
type slowWrites struct {
	echosession.RedisClient
	takes time.Duration
}

func (c *slowWrites) Process(ctx context.Context, cmd redis.Cmder) error {
	err := c.RedisClient.Process(ctx, cmd)
	if cmd.Name() == "set" {
		time.Sleep(c.takes)
	}
	return err
}

// For a second after a write has returned the store reads past caches, however long
// the write took and whatever else is written.
func TestAWriteIsRememberedForASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeRedis(t)
		client := &slowWrites{RedisClient: fake}
		store := newRedisStore(t, client, "test:")
		write := func() echosession.Ref {
			ref := newRef("")
			if _, err := store.Create(context.Background(), ref, []byte("r"), time.Hour, echosession.Limit{}); err != nil {
				t.Fatal(err)
			}
			return ref
		}
		past := func(ref echosession.Ref) bool {
			before := fake.count("getex")
			if _, err := store.Load(context.Background(), ref, 0); err != nil {
				t.Fatal(err)
			}
			return fake.count("getex") > before
		}
		write()
		time.Sleep(800 * time.Millisecond)
		ref := write()
		time.Sleep(300 * time.Millisecond)
		write() // the first one is forgotten now
		time.Sleep(600 * time.Millisecond)
		if !past(ref) {
			t.Error("a write is forgotten after 0.9 s")
		}
		time.Sleep(200 * time.Millisecond)
		if past(ref) {
			t.Error("a write is remembered for 1.1 s")
		}
		client.takes = 3 * time.Second
		if ref := write(); !past(ref) {
			t.Error("a write that took long is forgotten when it returns")
		}
	})
}

// Redis may tell a cache only after seconds that a key has expired, when it comes to
// look at the key. But a Manager asks the cache only as long as the idle timeout,
// which it has restarted itself, cannot have passed.
func TestACacheDoesNotProlongASession(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  echosession.Config
		opt  echosession.CreateOption
		ends time.Duration
	}{
		{"MaxAge", echosession.Config{}, echosession.WithSubject("ada"), 24 * time.Hour},
		{"the longest TouchInterval", echosession.Config{MaxAge: time.Hour, TouchInterval: time.Hour - 1}, echosession.WithSubject("ada"), time.Hour},
		{"WithMaxAge under TouchInterval", echosession.Config{}, echosession.WithMaxAge(30 * time.Second), 30 * time.Second},
		{"AbsoluteTimeout under TouchInterval", echosession.Config{AbsoluteTimeout: 20 * time.Second}, echosession.WithSubject("ada"), 20 * time.Second},
		{"exp under TouchInterval", echosession.Config{}, echosession.WithClaims(echosession.Claims{"exp": newClock().Now().Add(10 * time.Second)}), 10 * time.Second},
	} {
		for _, indexed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, index %v", tt.name, indexed), func(t *testing.T) {
				clock, fake := newClock(), newFakeRedis(t)
				cache := newSlowCache(fake)
				fake.now, cache.lag = clock.Now, time.Hour
				cfg := tt.cfg
				cfg.Client, cfg.Secret, cfg.Now, cfg.SubjectIndex = cache, testSecret, clock.Now, indexed
				// Another process created it: so this one may trust the cache.
				sess, err := newManager[User](t, cfg).Create(t.Context(), User{}, tt.opt)
				if err != nil {
					t.Fatal(err)
				}
				m := newManager[User](t, cfg)
				opened := func() bool {
					found, err := m.Open(t.Context(), sess.Token())
					if err != nil {
						t.Fatal(err)
					}
					return found.Exists()
				}
				for range 3 {
					if !opened() {
						t.Fatal("it is gone at once")
					}
				}
				if cache.hits != 1 {
					t.Fatalf("%d hits of the cache, want 1", cache.hits)
				}
				used := min(tt.ends/50, 30*time.Second)
				clock.Advance(used)
				if !opened() || cache.hits != 2 {
					t.Fatalf("%d hits of the cache, want 2", cache.hits)
				}
				clock.Advance(tt.ends - used)
				if opened() {
					t.Errorf("a session is found when its %v are over", tt.ends)
				}
			})
		}
	}
}

// That nothing is found costs what go-redis takes for it, and no more: nobody examines
// the answer as if a node of the cluster had failed.
func TestAMissIsNoFailure(t *testing.T) {
	addr := redistest.Shared(t).Addr()
	client := redis.NewClusterClient(&redis.ClusterOptions{
		ContextTimeoutEnabled: true,
		ClusterSlots: func(context.Context) ([]redis.ClusterSlot, error) {
			return []redis.ClusterSlot{{Start: 0, End: 16383, Nodes: []redis.ClusterNode{{Addr: addr}}}}, nil
		},
	})
	t.Cleanup(func() { _ = client.Close() })
	keyspace := newKeyspace()
	store := newRedisStore(t, client, keyspace)
	there, missing := newRef(""), newRef("")
	if _, err := store.Create(t.Context(), there, []byte("r"), time.Hour, echosession.Limit{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	more := func(load func(echosession.Ref)) float64 {
		hit := leastAllocs(200, func() { load(there) })
		return leastAllocs(200, func() { load(missing) }) - hit
	}
	theirs := more(func(ref echosession.Ref) { client.Get(ctx, keyspace+ref.ID) })
	ours := more(func(ref echosession.Ref) { _, _ = store.Load(ctx, ref, 0) })
	if ours > theirs {
		t.Errorf("a miss takes %v allocations more than a hit, and with go-redis alone %v", ours, theirs)
	}
}
