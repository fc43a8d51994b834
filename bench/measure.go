package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"
)

// A workload is one kind of request.
type workload struct {
	name   string
	about  string
	method string
	path   string
	base   string // the contender that the others are compared with
}

// With a session per connection, writes do not conflict.
var workloads = []workload{
	{"read", "answer from the session's struct", "GET", "/me", reference},
	{"write", "load the session, add one to a counter, save it; one session per connection", "POST", "/visit", reference},
	{"anonymous", "no token: ask for the session and find none", "GET", "/me", bare},
}

func (w workload) suits(c contender) bool { return !c.stateless || w.base == bare }

// plan is what to measure, and how long.
type plan struct {
	contenders []contender
	workloads  []workload
	rounds     int
	duration   time.Duration
	warmup     time.Duration
	conns      int
}

// A slot is one contender under one workload for one round.
type slot struct {
	requests  int
	failed    int
	elapsed   time.Duration
	cpu       time.Duration
	mallocs   uint64
	commands  map[string]int64
	latencies []time.Duration
}

// A result is what was measured of one contender under one workload.
type result struct {
	contender contender
	workload  workload
	slots     []slot // one per round
	lost      int    // accepted writes that the sessions do not show in the end
	contested int    // accepted writes of several connections to one session
	lostThere int    // of those
}

// entrant is a running contender with its sessions, one per connection.
type entrant struct {
	*server
	users []User
	creds []credential
	wrote []int // accepted writes per session

	contested int // see contest
	lostThere int
}

// measure runs the plan and returns the results in its order.
func measure(ctx context.Context, p plan) (results []*result, err error) {
	redis, err := startRedis(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = firstOf(err, redis.stop()) }()

	var entrants []*entrant
	defer func() {
		for _, e := range entrants {
			err = firstOf(err, e.stop())
		}
	}()
	for _, c := range p.contenders {
		progress("starting and checking %s", c.name)
		e, err := enter(c, redis.addr, p.conns)
		if e != nil {
			entrants = append(entrants, e)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		for _, w := range p.workloads {
			if w.suits(c) {
				results = append(results, &result{contender: c, workload: w})
			}
		}
	}

	for _, w := range p.workloads {
		for round := range p.rounds {
			order := slices.Clone(entrants)
			if round%2 == 1 {
				slices.Reverse(order) // so that a drift favours nobody
			}
			for _, e := range order {
				if !w.suits(e.contender) {
					continue
				}
				s, err := e.slot(ctx, w, p, redis)
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", e.name, w.name, err)
				}
				r := find(results, e.name, w.name)
				r.slots = append(r.slots, s)
				progress("%-9s %d/%d  %-26s %8.0f req/s", w.name, round+1, p.rounds, e.name, s.rate())
			}
		}
	}

	for _, e := range entrants {
		r := find(results, e.name, "write")
		if r == nil {
			continue
		}
		if r.lost, err = e.lost(); err != nil {
			return nil, fmt.Errorf("%s: %w", e.name, err)
		}
		r.contested, r.lostThere = e.contested, e.lostThere
	}
	return results, nil
}

func find(results []*result, contender, workload string) *result {
	i := slices.IndexFunc(results, func(r *result) bool {
		return r.contender.name == contender && r.workload.name == workload
	})
	if i < 0 {
		return nil
	}
	return results[i]
}

// enter starts a contender, checks it and opens its sessions. The entrant is not
// nil when its process runs.
func enter(c contender, redisAddr string, sessions int) (*entrant, error) {
	s, err := startServer(c, redisAddr)
	if err != nil {
		return nil, err
	}
	e := &entrant{server: s, wrote: make([]int, sessions)}
	if err := check(s.addr, c.stateless); err != nil {
		return e, err
	}
	if !c.stateless {
		if e.contested, e.lostThere, err = contest(s.addr); err != nil {
			return e, err
		}
	}
	login, err := dial(s.addr)
	if err != nil {
		return e, err
	}
	defer login.close()
	for i := range sessions {
		u := newUser(fmt.Sprintf("user-%d", i))
		var cred credential
		if !c.stateless {
			if cred, err = login.login(u.ID); err != nil {
				return e, err
			}
		}
		e.users, e.creds = append(e.users, u), append(e.creds, cred)
	}
	return e, nil
}

func (e *entrant) slot(ctx context.Context, w workload, p plan, redis *redisServer) (s slot, err error) {
	workers := make([]*worker, p.conns)
	for i := range workers {
		c, err := dial(e.addr)
		if err != nil {
			return s, err
		}
		defer c.close()
		request, want := build(w.method, w.path, e.creds[i]), []byte(e.users[i].ID+" ")
		if w.base == bare {
			request, want = build(w.method, w.path, ""), []byte(anonymous)
		}
		workers[i] = &worker{client: c, next: func() []byte { return request }, want: want}
	}
	for _, warm := range []bool{true, false} {
		d := p.duration
		if warm {
			d = p.warmup
		}
		if s, err = e.server.slot(ctx, workers, d, redis); err != nil {
			return s, err
		}
		if w.method == "POST" {
			for i, w := range workers {
				e.wrote[i] += len(w.latencies) - w.failed
			}
		}
		if err := ctx.Err(); err != nil {
			return s, err
		}
	}
	return s, nil
}

// slot lets the workers run for d and returns what that cost the server. Nothing
// is under way when the counters are read.
func (s *server) slot(ctx context.Context, workers []*worker, d time.Duration, redis *redisServer) (slot, error) {
	commandsBefore, err := redis.commands(ctx)
	if err != nil {
		return slot{}, err
	}
	before, err := s.usage()
	if err != nil {
		return slot{}, err
	}
	elapsed, err := burst(workers, d)
	if err != nil {
		return slot{}, err
	}
	after, err := s.usage()
	if err != nil {
		return slot{}, err
	}
	commands, err := redis.commands(ctx)
	if err != nil {
		return slot{}, err
	}
	for name, n := range commandsBefore {
		if commands[name] -= n; commands[name] == 0 {
			delete(commands, name)
		}
	}
	sl := slot{
		elapsed:  elapsed,
		cpu:      after.CPU - before.CPU,
		mallocs:  after.Mallocs - before.Mallocs,
		commands: commands,
	}
	for _, w := range workers {
		sl.requests += len(w.latencies)
		sl.failed += w.failed
		sl.latencies = append(sl.latencies, w.latencies...)
	}
	return sl, nil
}

// lost returns how many accepted writes the sessions do not show.
func (e *entrant) lost() (lost int, err error) {
	c, err := dial(e.addr)
	if err != nil {
		return 0, err
	}
	defer c.close()
	for i, cred := range e.creds {
		if c.expectVisits(cred, e.users[i], e.wrote[i]) == nil {
			continue
		}
		got, err := c.visits(cred, e.users[i])
		if err != nil {
			return lost, err
		}
		lost += e.wrote[i] - got
	}
	return lost, nil
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}
