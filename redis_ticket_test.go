package echosession_test

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// ticketKeyOf is the Redis key of a ticket.
func ticketKeyOf(keyspace, ticket string) string {
	sum := sha256.Sum256([]byte(ticket))
	return keyspace + "ticket:" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// Whatever the client, each ticket opens its session once; nobody lists a ticket, and each
// of their keys has a lifetime.
func TestTicketsOnEveryClient(t *testing.T) {
	t.Parallel()
	for _, kind := range clientKinds(t) {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			keyspace, universe := newKeyspace(), kind.universe(t)
			cfg := echosession.Config{Client: kind.new(t), Secret: testSecret, Keyspace: keyspace, SubjectIndex: true, StoreTimeout: 20 * time.Second}
			testExactlyOnce(t, cfg)
			m := newManager[User](t, withTickets(cfg))
			sess, err := m.Create(t.Context(), User{}, echosession.WithSubject("ada"))
			if err != nil {
				t.Fatal(err)
			}
			ticket := ticketFor(t, sess, "/")
			key := ticketKeyOf(keyspace, ticket)
			if left := universe.PTTL(t.Context(), key).Val(); left <= 20*time.Second || left > 30*time.Second {
				t.Errorf("the ticket lives for %v", left)
			}
			redistest.AssertNoKeyWithoutTTL(t, universe, keyspace)
			if !kind.noScan {
				n := 0
				for _, err := range m.All(t.Context()) {
					if err != nil {
						t.Fatal(err)
					}
					n++
				}
				if n != 2 { // this session and that of testExactlyOnce
					t.Errorf("All visits %d sessions, want 2", n)
				}
			}
			if list, err := m.List(t.Context(), "ada"); err != nil || len(list) != 1 {
				t.Errorf("List: %d sessions, %v", len(list), err)
			}
			if n, err := m.RevokeSubject(t.Context(), "ada"); err != nil || n != 1 {
				t.Errorf("RevokeSubject: %d, %v", n, err)
			}
			if got := redeemed(t, m, "/?ticket="+ticket); !errors.Is(got.Reason(), echosession.ErrSessionGone) {
				t.Errorf("after the revocation: %v", got.Reason())
			}
			if n := universe.Exists(t.Context(), key).Val(); n != 0 {
				t.Error("the ticket is still there")
			}
		})
	}
}

// ticketFaces are the ways to a standalone Redis.
func ticketFaces(t *testing.T, addr string) map[string]echosession.RedisClient {
	client := func(deadlines bool, change ...func(*redis.Options)) *redis.Client {
		o := &redis.Options{Addr: addr, ContextTimeoutEnabled: deadlines, MaxRetries: 5}
		for _, fn := range change {
			fn(o)
		}
		c := redis.NewClient(o)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"one": addr}, ContextTimeoutEnabled: true, MaxRetries: 5})
	t.Cleanup(func() { _ = ring.Close() })
	return map[string]echosession.RedisClient{
		"client":                      client(true),
		"client without deadlines":    client(false),
		"client-side caching":         client(true, cached),
		"auto-pipeliner":              asyncFace(t, client(true)),
		"blocking auto-pipeliner":     blockingFace(t, client(true), nil),
		"full-duplex auto-pipeliner":  blockingFace(t, client(true), &redis.AutoPipelineOptions{FullDuplex: true}),
		"full duplex, client's reads": blockingFace(t, client(false), &redis.AutoPipelineOptions{FullDuplex: true}),
		"Ring":                        ring,
	}
}

// A redeemer whose reply was lost is not let in, and nor is anybody after that: GETDEL is
// sent once.
func TestATicketWhoseReplyIsLostIsSpent(t *testing.T) {
	t.Parallel()
	server := redistest.Shared(t)
	for name, action := range map[string]redistest.Action{
		"no reply":           redistest.DropReply(),
		"a byte of a reply":  redistest.CutReply(1),
		"a byte is missing":  redistest.CutReply(-1),
		"a reply too late":   redistest.Delay(3 * time.Second),
		"never arrives":      redistest.DropRequest(),
		"nobody answers":     redistest.Hang(),
		"another's OK":       redistest.Reply("+OK\r\n"),
		"another's number":   redistest.Reply(":1\r\n"),
		"another's text":     redistest.Reply("$5\r\nhello\r\n"),
		"another's list":     redistest.Reply("*1\r\n$5\r\nhello\r\n"),
		"an empty text":      redistest.Reply("$0\r\n\r\n"),
		"an error of no use": redistest.Reply("-ERR no such thing\r\n"),
		"no permission":      redistest.Reply("-NOPERM User sessions has no permissions to run the 'getdel' command\r\n"),
	} {
		withheld := name == "never arrives" || name == "nobody answers" || strings.HasPrefix(name, "an") || name == "no permission"
		late := name == "a reply too late" || name == "nobody answers"
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proxy := redistest.NewProxy(t, server.Addr())
			for face, client := range ticketFaces(t, proxy.Addr()) {
				t.Run(face, func(t *testing.T) {
					cfg := withTickets(echosession.Config{Client: server.Client(t), Secret: testSecret, Keyspace: newKeyspace(), StoreTimeout: 10 * time.Second})
					direct := newManager[User](t, cfg)
					sess, err := direct.Create(t.Context(), User{Name: "Ada"})
					if err != nil {
						t.Fatal(err)
					}
					ticket := ticketFor(t, sess, "/")
					cfg.Client = client
					m := newManager[User](t, cfg)
					if got, err := m.Open(t.Context(), sess.Token()); err != nil || !got.Exists() { // there is a connection
						t.Fatal(err)
					}
					if late {
						cfg.StoreTimeout = time.Second
						m = newManager[User](t, cfg)
					}
					proxy.Reset()
					rule := proxy.On(redistest.Named("GETDEL"), 1, action)
					defer rule.Remove()
					got, err := redeem(t.Context(), m, "/?ticket="+ticket)
					if !errors.Is(err, echosession.ErrStoreUnavailable) || got != nil {
						t.Fatalf("the first redeemer: %v", err)
					}
					if n := proxy.Count("GETDEL"); n != 1 {
						t.Errorf("GETDEL was sent %d times", n)
					}
					time.Sleep(50 * time.Millisecond) // for a repetition behind our back
					if n := proxy.Count("GETDEL"); n != 1 {
						t.Errorf("later, GETDEL was sent %d times", n)
					}
					opened := 0
					for range 2 {
						if redeemed(t, direct, "/?ticket="+ticket).Exists() {
							opened++
						}
					}
					if opened > 1 || opened == 1 && !withheld {
						t.Errorf("afterwards it opens the session %d times", opened)
					}
				})
			}
		})
	}
}

// What was surely not run is tried again: a redeemer does not notice it.
func TestATicketWhoseNodeRefusesIsTriedAgain(t *testing.T) {
	t.Parallel()
	server := redistest.Shared(t)
	for _, reply := range []string{
		"-LOADING Redis is loading the dataset in memory", "-READONLY You can't write against a read only replica.",
		"-TRYAGAIN Multiple keys request during rehashing of slot", "-CLUSTERDOWN Hash slot not served", "-MASTERDOWN Link with MASTER is down",
	} {
		proxy := redistest.NewProxy(t, server.Addr())
		for face, client := range ticketFaces(t, proxy.Addr()) {
			m := newManager[User](t, withTickets(echosession.Config{Client: client, Secret: testSecret, Keyspace: newKeyspace(), StoreTimeout: 5 * time.Second}))
			sess, err := m.Create(t.Context(), User{Name: "Ada"})
			if err != nil {
				t.Fatal(err)
			}
			for _, command := range []string{"SET", "GETDEL"} {
				rule := proxy.On(redistest.Named(command), 1, redistest.Reply(reply+"\r\n"))
				if got := redeemed(t, m, "/?ticket="+ticketFor(t, sess, "/")); !got.Exists() {
					t.Errorf("%s, %s, %s: %v", face, command, reply, got.Reason())
				}
				if rule.Count() != 1 {
					t.Errorf("%s, %s: the rule was applied %d times", face, command, rule.Count())
				}
			}
		}
	}
}

// With many redeemers and replies that are lost, no ticket opens the session twice, and one
// that opened it never has all of its replies lost.
func TestTicketsAreRedeemedOnceThoughRepliesAreLost(t *testing.T) {
	t.Parallel()
	server := redistest.Shared(t)
	proxy := redistest.NewProxy(t, server.Addr())
	var seen atomic.Int64
	for face, client := range ticketFaces(t, proxy.Addr()) {
		t.Run(face, func(t *testing.T) {
			cfg := withTickets(echosession.Config{Client: client, Secret: testSecret, Keyspace: newKeyspace(), StoreTimeout: 10 * time.Second})
			m := newManager[User](t, cfg)
			sess, err := m.Create(t.Context(), User{Name: "Ada"})
			if err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			lost := make(map[string]bool) // keys whose GETDEL has run and whose reply is lost
			losing := func(cmd []string) bool {
				if cmd[0] != "GETDEL" || seen.Add(1)%23 != 0 {
					return false
				}
				mu.Lock()
				defer mu.Unlock()
				lost[cmd[1]] = true
				return true
			}
			all := 0
			for range manyTickets / batchTickets {
				tickets := makeTickets(t, sess, batchTickets)
				rule := proxy.On(losing, -1, redistest.DropReply())
				opened, failed := redeemAtOnce(t, m, tickets, manyRedeemers)
				rule.Remove()
				all += failed
				for i := range opened {
					// What did not run may still be there: for one more.
					for range 2 {
						if redeemed(t, m, "/?ticket="+tickets[i]).Exists() {
							opened[i]++
							if lost[ticketKeyOf(cfg.Keyspace, tickets[i])] {
								t.Errorf("ticket %d opens the session after its reply was lost", i)
							}
						}
					}
				}
				if most := slices.Max(opened); most > 1 {
					t.Errorf("a ticket opened the session %d times", most)
				}
			}
			if len(lost) == 0 || all == 0 {
				t.Errorf("%d replies were lost, %d redeemers failed", len(lost), all)
			}
		})
	}
}

// A SET whose reply was lost is not sent again, for it could come late: another ticket takes
// the place of that one.
func TestTicketMakesAnotherAfterALostReply(t *testing.T) {
	t.Parallel()
	server := redistest.Shared(t)
	proxy := redistest.NewProxy(t, server.Addr())
	for face, client := range ticketFaces(t, proxy.Addr()) {
		t.Run(face, func(t *testing.T) {
			m := newManager[User](t, withTickets(echosession.Config{Client: client, Secret: testSecret, Keyspace: newKeyspace(), StoreTimeout: 5 * time.Second}))
			sess, err := m.Create(t.Context(), User{Name: "Ada"})
			if err != nil {
				t.Fatal(err)
			}
			for _, times := range []int{1, -1} {
				proxy.Reset()
				rule := proxy.On(redistest.Named("SET"), times, redistest.DropReply())
				ticket, err := sess.Ticket(t.Context(), "/")
				rule.Remove()
				keys := make(map[string]int)
				for _, cmd := range proxy.Commands() {
					if cmd[0] == "SET" {
						keys[cmd[1]]++
					}
				}
				for key, n := range keys {
					if n != 1 {
						t.Errorf("SET %s was sent %d times", key, n)
					}
				}
				switch {
				case times == 1:
					if err != nil || len(keys) != 2 || !redeemed(t, m, "/?ticket="+ticket).Exists() {
						t.Errorf("%q, %v, after %d commands", ticket, err, len(keys))
					}
				case !errors.Is(err, echosession.ErrIndeterminate) || ticket != "" || len(keys) != 3:
					t.Errorf("without an answer: %q, %v, after %d commands", ticket, err, len(keys))
				}
			}
		})
	}
}

// With WaitReplicas a ticket that is taken is taken on the replicas too, or its redeemer is
// not let in.
func TestTicketsWaitForReplicas(t *testing.T) {
	t.Parallel()
	primary := redistest.Start(t)
	replica := replicaOf(t, primary)
	cfg := withTickets(echosession.Config{
		Client: primary.Client(t), Secret: testSecret, Keyspace: newKeyspace(), WaitReplicas: 1, StoreTimeout: 2 * time.Second,
	})
	m := newManager[User](t, cfg)
	sess, err := m.Create(t.Context(), User{Name: "Ada"})
	if err != nil {
		t.Fatal(err)
	}
	onReplica := func(ticket string) bool {
		return replica.Client(t).Exists(t.Context(), ticketKeyOf(cfg.Keyspace, ticket)).Val() == 1
	}
	for range 20 {
		ticket := ticketFor(t, sess, "/")
		if !onReplica(ticket) {
			t.Fatal("the replica has not heard of the ticket")
		}
		if got := redeemed(t, m, "/?ticket="+ticket); !got.Exists() || onReplica(ticket) {
			t.Fatalf("%v; the replica still has it: %t", got.Reason(), onReplica(ticket))
		}
	}
	if got := redeemed(t, m, "/?ticket="+strings.Repeat("A", 22)); !errors.Is(got.Reason(), echosession.ErrInvalidToken) {
		t.Errorf("one that is not there: %v", got.Reason())
	}
	ticket := ticketFor(t, sess, "/")
	cfg.StoreTimeout = 800 * time.Millisecond
	hasty := newManager[User](t, cfg)
	replica.Pause(t)
	if _, err := redeem(t.Context(), hasty, "/?ticket="+ticket); !errors.Is(err, echosession.ErrNotReplicated) {
		t.Errorf("with a replica that lags: %v", err)
	}
	if ticket, err := sess.Ticket(t.Context(), "/"); !errors.Is(err, echosession.ErrNotReplicated) || ticket != "" {
		t.Errorf("Ticket: %q, %v", ticket, err)
	}
	replica.Resume(t)
	if got := redeemed(t, m, "/?ticket="+ticket); !errors.Is(got.Reason(), echosession.ErrInvalidToken) {
		t.Errorf("then: %v", got.Reason())
	}
}

// A slot that moves is no obstacle: the command is sent to the node that has the key, and a
// ticket opens its session once.
func TestTicketsInASlotThatMoves(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: starts a cluster")
	}
	t.Parallel()
	cluster := redistest.StartCluster(t, 3, 1)
	for name, client := range map[string]echosession.RedisClient{
		"client":         cluster.Client(t),
		"with replicas":  cluster.Client(t, func(o *redis.ClusterOptions) { o.ReadOnly = true }),
		"auto-pipeliner": blockingFace(t, cluster.Client(t), nil),
		"asynchronous":   asyncFace(t, cluster.Client(t)),
		"full duplex":    blockingFace(t, cluster.Client(t), &redis.AutoPipelineOptions{FullDuplex: true}),
		"WaitReplicas":   cluster.Client(t),
	} {
		t.Run(name, func(t *testing.T) {
			// All keys in one slot.
			cfg := withTickets(echosession.Config{Client: client, Secret: testSecret, Keyspace: "{" + newKeyspace() + "}", StoreTimeout: 5 * time.Second})
			if name == "WaitReplicas" {
				cfg.WaitReplicas = 1
			}
			m := newManager[User](t, cfg)
			sess, err := m.Create(t.Context(), User{Name: "Ada"})
			if err != nil {
				t.Fatal(err)
			}
			once := func(what, ticket string) {
				t.Helper()
				opened, failed := redeemAtOnce(t, m, []string{ticket}, manyRedeemers)
				if opened[0] != 1 || failed != 0 {
					t.Errorf("%s: it opens the session %d times, and %d redeemers failed", what, opened[0], failed)
				}
			}
			asked, stayed, moved := ticketFor(t, sess, "/"), ticketFor(t, sess, "/"), ticketFor(t, sess, "/")
			slot := cluster.Slot(t, cfg.Keyspace)
			from, to := cluster.Master(t, slot), cluster.Master(t, (slot+16384/3)%16384)
			migration := cluster.OpenSlot(t, slot, to)
			if name != "WaitReplicas" { // WAIT follows on the same connection, so nothing follows an ASK
				migration.Move(t, ticketKeyOf(cfg.Keyspace, asked))
				once("ASK", asked)
				once("not moved yet", stayed)
				once("made meanwhile", ticketFor(t, sess, "/"))
			}
			migration.MoveAll(t)
			migration.Finish(t)
			once("MOVED", moved)
			once("made afterwards", ticketFor(t, sess, "/"))
			cluster.MigrateSlot(t, slot, from)
		})
	}
}
