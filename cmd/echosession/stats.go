package main

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"math"
	"time"

	"github.com/redis/go-redis/v9"
)

var statsCommand = command{
	name:    "stats",
	summary: "count the sessions: how old, how large, how long unused, and whose",
	usage:   "[flags] [URL]",
	help: `It walks the keyspace with SCAN, on every primary of a Cluster, in steps of less than a
millisecond of Redis. All sessions are counted. If there are more of them than -sample, some
are read: all sessions of every second subject, say. The histograms are then of these.

Ctrl-C ends it at once: it prints what it has counted, says that this is partial, and exits
with 3.

How long a session was not used is computed from its lifetime that is left and the idle
timeout: say with -max-age what Config.MaxAge of the program is. Of an encrypted session the
subject is known with -encryption-key-file only. Medians and percentiles are true to half a
percent.

Exit codes: 0, or 3 when it could not count all.

Rights in Redis: +scan +get +getrange +strlen +pttl +dbsize.

Examples:

	echosession stats redis://localhost:6379
	echosession stats -sample 0 -json redis://localhost:6379 | jq .subjects.top
`,
	define: func(fs *flag.FlagSet) func(context.Context, *invocation) (int, error) {
		var s statsFlags
		s.site.define(fs)
		fs.IntVar(&s.sample, "sample", 200_000, "read about this many `sessions` if there are more; 0: all of them")
		fs.IntVar(&s.top, "top", 10, "how many `subjects` with the most sessions to list")
		defineJSON(fs, &s.json)
		return s.run
	},
}

// statsFlags are the flags of "echosession stats".
type statsFlags struct {
	site   siteFlags
	sample int
	top    int
	json   bool
}

func (s *statsFlags) run(ctx context.Context, inv *invocation) (int, error) {
	if s.sample < 0 || s.top < 0 {
		return exitUnknown, errUsage("-sample and -top count: they are 0 or more")
	}
	if err := inv.noArguments(); err != nil {
		return exitUnknown, err
	}
	w, err := openWalker(ctx, inv, &s.site)
	if err != nil {
		return exitUnknown, err
	}
	defer w.client.Close()
	began := time.Now()
	t := newTally()
	// Who interrupts it waits for no reply: a server may be silent.
	walking, stop := context.WithCancel(ctx)
	defer stop()
	steps := make(chan step)
	go s.walk(walking, w, steps)
	err = s.count(ctx, t, steps, newProgress(inv.stderr, "keys", 0))
	if err != nil && ctx.Err() == nil {
		return exitUnknown, err
	}
	t.Partial = err != nil
	t.Seconds = math.Round(time.Since(began).Seconds()*100) / 100
	t.finish(s.top)
	// The names are asked for after an interruption too, and not for long.
	naming, cancel := context.WithTimeout(context.WithoutCancel(ctx), nameFor)
	defer cancel()
	t.name(naming, w)
	if s.json {
		_, err = fmt.Fprintln(inv.stdout, toBlock(t))
	} else {
		err = t.print(inv.stdout)
	}
	if err != nil || !t.Partial {
		return exitOK, err
	}
	return exitUnknown, nil
}

// nameFor is how long it may take to find the names of the subjects with most sessions.
const nameFor = 300 * time.Millisecond

// A step is what the walk found since the one before.
type step struct {
	total   int // how many keys there are, as far as is known
	scanned int // how many keys were looked at
	share   float64
	keys    []sessionKey
	visits  []visit
	none    int // how many keys of those that were read hold no session
	err     error
	over    bool
}

// count adds up the steps until the last one, and shows how far it is.
func (s *statsFlags) count(ctx context.Context, t *tally, steps <-chan step, bar *progress) error {
	defer bar.clear()
	redraw := time.NewTicker(redrawEvery)
	defer redraw.Stop()
	scanned := 0
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-redraw.C: // time passes for the bar while a server is slow
		case step := <-steps:
			if step.err != nil || step.over {
				return step.err
			}
			scanned += step.scanned
			t.add(step)
			if bar != nil {
				bar.total = step.total
			}
		}
		bar.update(scanned)
	}
}

// walk looks at all keys, and sends what it finds.
func (s *statsFlags) walk(ctx context.Context, w *walker, steps chan<- step) {
	send := func(st step) bool {
		select {
		case steps <- st:
			return true
		case <-ctx.Done():
			return false
		}
	}
	send(step{err: s.walkAll(ctx, w, send), over: true})
}

func (s *statsFlags) walkAll(ctx context.Context, w *walker, send func(step) bool) error {
	nodes, err := w.nodes(ctx)
	if err != nil {
		return err
	}
	total := 0
	for _, node := range nodes {
		n, err := node.DBSize(ctx).Result()
		if err != nil && !redis.HasErrorPrefix(err, "NOPERM") { // without it the bar has no percentage
			return err
		}
		total += int(n)
	}
	share := 1.0
	if s.sample > 0 && total > s.sample {
		if share, err = s.shareOf(ctx, w, nodes, total); err != nil {
			return err
		}
	}
	for _, node := range nodes {
		var cursor uint64
		for {
			st := step{total: total, scanned: scanCount, share: share}
			if st.keys, cursor, err = w.keys(ctx, node, cursor); err != nil {
				return err
			}
			some := chosen(st.keys, share)
			if st.visits, err = w.read(ctx, some); err != nil {
				return err
			}
			st.none = len(some) - len(st.visits)
			if !send(st) {
				return ctx.Err()
			}
			if cursor == 0 {
				break
			}
		}
	}
	return nil
}

// shareOf returns which share of the sessions to read. The database may have many keys that
// are none: the first pages of each server tell. SCAN visits keys in a random order.
func (s *statsFlags) shareOf(ctx context.Context, w *walker, nodes []redis.Cmdable, total int) (float64, error) {
	const pages = 20
	sessions, scanned := 0, 0
	for _, node := range nodes {
		var cursor uint64
		for range pages {
			keys, next, err := w.keys(ctx, node, cursor)
			if err != nil {
				return 0, err
			}
			sessions += len(keys)
			scanned += scanCount
			if cursor = next; cursor == 0 {
				break
			}
		}
	}
	expected := float64(total) * float64(sessions) / float64(scanned)
	return min(1, float64(s.sample)/max(1, expected)), nil
}

// chosen returns the keys that are in the sample: all of a subject's sessions or none of
// them. Half of a hash is as good as a random number, and so is the end of an ID.
func chosen(keys []sessionKey, share float64) []sessionKey {
	if share >= 1 {
		return keys
	}
	var some []sessionKey
	limit := uint32(share * math.MaxUint32)
	for _, k := range keys {
		random := binary.BigEndian.Uint32(k.id[12:])
		if k.indexed {
			random = binary.BigEndian.Uint32(k.subject[:])
		}
		if random < limit {
			some = append(some, k)
		}
	}
	return some
}
