package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

func checkClients(_ context.Context, _ *examination, n *node, r *result) {
	if !n.needs(r, "connected_clients") {
		return
	}
	before := len(r.findings)
	connected, _ := n.number("connected_clients")
	most, ok := n.number("maxclients")
	if !ok {
		most, _ = numberOf(n.config["maxclients"])
	}
	if rejected, _ := n.number("rejected_connections"); rejected > 0 {
		r.warning("rejected-connections", "Raise maxclients, or lower PoolSize in your programs: each of their processes has a pool.",
			"%s refused %s: the requests behind them had no session", countOf(rejected, "connection")+" "+verb(rejected, "was", "were"), n.since())
	}
	if most > 0 && connected*100/most >= 80 {
		r.warning("rejected-connections", "Raise maxclients, or lower PoolSize in your programs: each of their processes has a pool.",
			"%s of %s are in use", grouped(connected), countOf(most, "connection"))
	}
	if timeout, ok := numberOf(n.config["timeout"]); ok && timeout > 0 && timeout < 60 {
		r.warning("idle-connections-closed", "Set timeout 0, or ConnMaxIdleTime of your clients below it.",
			"Redis closes connections after %s without a command: a write may meet a closed one, and its outcome is unknown then", shortTime(time.Duration(timeout)*time.Second))
	}
	if hard, ok := pubSubLimit(n.config["client-output-buffer-limit"]); ok && hard > 0 && hard < 1<<20 {
		r.warning("a-small-pubsub-buffer", "Set client-output-buffer-limit pubsub 32mb 8mb 60, which is its default.",
			"a watching program is disconnected when %s of messages wait for it: it learns late of what has ended", sizeOf(hard))
	}
	if len(r.findings) > before {
		return
	}
	if most > 0 {
		r.ok("%s of %s in use, none refused", grouped(connected), countOf(most, "connection"))
		return
	}
	r.ok("%s, none refused", countOf(connected, "connection"))
}

// pubSubLimit reads the hard limit of subscribers in
// "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60".
func pubSubLimit(limits string) (int64, bool) {
	fields := strings.Fields(limits)
	if i := slices.Index(fields, "pubsub"); i >= 0 && i+1 < len(fields) {
		return numberOf(fields[i+1])
	}
	return 0, false
}

// pings is how many PINGs make a measurement.
const pings = 100

func checkLatency(ctx context.Context, _ *examination, n *node, r *result) {
	conn := n.client.Conn()
	defer conn.Close()
	if err := conn.Ping(ctx).Err(); err != nil && !redis.HasErrorPrefix(err, "MISCONF") { // it connects
		r.denied("+ping", err)
		return
	}
	took := make([]time.Duration, 0, pings)
	for range pings {
		began := time.Now()
		if err := conn.Ping(ctx).Err(); err != nil && !isReply(err) {
			r.critical("slow-answers", "Look at the network and at the load of the server.", "a PING failed: %s", reply(err))
			return
		}
		took = append(took, time.Since(began))
	}
	judgeLatency(took, r)
}

// judgeLatency says whether sessions cost requests much time. Config.StoreTimeout is a
// second unless it is set.
func judgeLatency(took []time.Duration, r *result) {
	slices.Sort(took)
	middle, late, last := took[len(took)/2], took[len(took)*99/100-1], took[len(took)-1]
	text := fmt.Sprintf("%d PINGs from this machine: median %s, 99 %% within %s, the slowest %s", len(took), shortTime(middle), shortTime(late), shortTime(last))
	const advice = "Run doctor where your programs run. If it is slow there too, look at the network, at the load of the server and at slow commands."
	switch {
	case middle >= 250*time.Millisecond, late >= time.Second:
		r.critical("slow-answers", advice, "%s: requests with sessions fail (StoreTimeout is 1 s by default)", text)
	case middle >= 20*time.Millisecond, late >= 250*time.Millisecond:
		r.warning("slow-answers", advice, "%s: each request with a session waits that long", text)
	default:
		r.ok("%s", text)
	}
}

// slowCommand is how long a command must have blocked Redis to be told.
const slowCommand = 50 * time.Millisecond

func checkSlow(ctx context.Context, x *examination, n *node, r *result) {
	entries, err := n.client.SlowLogGet(ctx, 128).Result()
	if err != nil {
		r.denied("+slowlog|get", err)
		return
	}
	judgeSlow(entries, x.now(), r)
}

// judgeSlow names commands, and not their arguments, which may be secrets.
func judgeSlow(entries []redis.SlowLog, now time.Time, r *result) {
	slowest := make(map[string]redis.SlowLog)
	count := make(map[string]int)
	for _, e := range entries {
		if e.Duration >= slowCommand && len(e.Args) > 0 {
			name := strings.ToUpper(e.Args[0])
			count[name]++
			if e.Duration > slowest[name].Duration {
				slowest[name] = e
			}
		}
	}
	if len(count) == 0 {
		r.ok("no command in the slow log blocked Redis for %s", shortTime(slowCommand))
		return
	}
	var parts []string
	for name, e := range slowest {
		parts = append(parts, fmt.Sprintf("%s %s, up to %s, %s ago", name, countOf(count[name], "time"), shortTime(e.Duration), lasting(max(0, now.Sub(e.Time)))))
	}
	slices.Sort(parts)
	r.warning("blocking-commands", "Find out which program sends them (SLOWLOG GET names it); KEYS, and reads of large values, do not belong on this Redis.",
		"commands have blocked Redis, and with it every request: %s", strings.Join(parts, "; "))
}

// clockAttempts is how often a server is asked for the time. The fastest answer is the most
// exact.
const clockAttempts = 5

func checkClock(ctx context.Context, x *examination, n *node, r *result) {
	conn := n.client.Conn()
	defer conn.Close()
	if err := conn.Time(ctx).Err(); err != nil { // it connects
		r.denied("+time", err)
		return
	}
	best, ahead := time.Hour, time.Duration(0)
	for range clockAttempts {
		began, start := time.Now(), x.now()
		server, err := conn.Time(ctx).Result()
		if err != nil {
			r.denied("+time", err)
			return
		}
		if trip := time.Since(began); trip < best {
			best, ahead = trip, server.Sub(start.Add(trip/2))
		}
	}
	judgeClock(ahead, best, r)
}

// judgeClock says whether a difference matters.
func judgeClock(ahead, trip time.Duration, r *result) {
	direction, off := "ahead of", ahead
	if ahead < 0 {
		direction, off = "behind", -ahead
	}
	const advice = "Set the clocks of all machines by NTP, and look at this one's first: date -u."
	text := fmt.Sprintf("the server's clock is %s %s this machine's", shortTime(off), direction)
	switch {
	case off < time.Second+trip:
		r.ok("the server's clock and this machine's agree within %s", shortTime(max(off, trip/2, time.Millisecond)))
	case off < time.Minute:
		r.warning("clocks-apart", advice, "%s: tokens with an exp, deadlines and graces end too early or too late", text)
	default:
		r.critical("clocks-apart", advice, "%s: tokens of one machine are expired, or not yet valid, on another", text)
	}
}

// local reports whether nobody but this machine reaches a server under this address.
func local(addr string) bool {
	if strings.HasPrefix(addr, "/") {
		return true // a socket
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func checkAccess(_ context.Context, x *examination, n *node, r *result) {
	before := len(r.findings)
	secured, isLocal := x.options.TLSConfig != nil, local(n.addr)
	if !secured && !isLocal {
		r.warning("no-tls", "Use rediss://, and in your programs TLSConfig.",
			"no TLS to %s: whoever is on the way reads and changes sessions, and the password", n.addr)
	}
	if x.options.Username == "" && x.options.Password == "" && !isLocal {
		r.warning("no-password", "Give your programs a user of their own: see SECURITY.md.",
			"%s asks for no password: whoever reaches it reads and changes sessions", n.addr)
	}
	switch {
	case len(r.findings) > before:
	case secured:
		r.ok("TLS")
	default:
		r.ok("no TLS, and none is needed: the connection does not leave this machine")
	}
}

// heardWithin is how long a message may be on its way.
const heardWithin = 2 * time.Second

func checkPubSub(ctx context.Context, x *examination, n *node, r *result) {
	channel := x.channel() + ":" + scratchPrefix + rand.Text()
	ctx, cancel := context.WithTimeout(ctx, heardWithin+x.timeout)
	defer cancel()
	pubsub := n.client.Subscribe(ctx)
	defer pubsub.Close()
	err := pubsub.Subscribe(ctx, channel)
	if err == nil {
		_, err = pubsub.ReceiveTimeout(ctx, x.timeout)
	}
	if err != nil {
		x.mute(r, "+subscribe", err)
		return
	}
	began := time.Now()
	if err := n.client.Publish(ctx, channel, "doctor").Err(); err != nil {
		x.mute(r, "+publish", err)
		return
	}
	if _, err := pubsub.ReceiveTimeout(ctx, heardWithin); err != nil {
		r.critical("unheard-messages", "Look for a proxy between here and Redis, and at client-output-buffer-limit pubsub.",
			"a message was published and not heard within %s: Session.Watch asks again and again", shortTime(heardWithin))
		return
	}
	r.ok("a message was published and heard in %s", shortTime(time.Since(began)))
}

// channel is where the library publishes the ends of sessions.
func (x *examination) channel() string { return x.target.keyspace + "ended" }

// mute is the result where a user may not publish or subscribe.
func (x *examination) mute(r *result, right string, err error) {
	text := reply(err)
	if errors.Is(err, context.DeadlineExceeded) || !strings.Contains(text, "NOPERM") && !strings.Contains(text, "unknown command") {
		r.critical("unheard-messages", "Look at the log of Redis.", "no message can be published and heard: %s", text)
		return
	}
	advice := "Grant " + right + " and &" + x.channel() + "*."
	if slices.Contains(x.uses, "watch") {
		r.critical("missing-rights", advice, "%s is refused, and Session.Watch needs it: %s", strings.ToUpper(right[1:]), text)
		return
	}
	r.skipped("rights-not-granted", advice, "%s is refused; only Session.Watch, client-side caching, replicas and StaleFor use it", strings.ToUpper(right[1:]))
}
