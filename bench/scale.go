package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"
)

// sizes says how far the scale mode goes.
type sizes struct {
	memory  int   // sessions to weigh
	live    []int // live sessions to read among
	subject []int // sessions of one subject
	all     int   // sessions to visit
}

func scaleSizes(quick, full bool) sizes {
	s := sizes{
		memory:  2000,
		live:    []int{1_000, 100_000},
		subject: []int{1, 100, 10_000},
		all:     100_000,
	}
	switch {
	case quick:
		s.memory, s.live, s.subject, s.all = 200, []int{1_000, 5_000}, []int{1, 100, 1_000}, 5_000
	case full:
		s.live = append(s.live, 1_000_000)
		s.all = 1_000_000
	}
	return s
}

func runScale(ctx context.Context, p plan, s sizes) (err error) {
	redis, err := startRedis(ctx)
	if err != nil {
		return err
	}
	defer func() { err = firstOf(err, redis.stop()) }()
	for _, part := range []func(context.Context, io.Writer, *redisServer, plan, sizes) error{
		scaleMemory, scaleReads, scaleEchosession,
	} {
		if err := part(ctx, os.Stdout, redis, p, s); err != nil {
			return err
		}
	}
	return nil
}

// weighed are the contenders that store sessions in a way of their own.
var weighed = []string{reference, "echosession", "scs", "gorilla", "fiber"}

// scaleMemory compares what one session takes in Redis.
func scaleMemory(ctx context.Context, out io.Writer, redis *redisServer, p plan, s sizes) error {
	rows := [][]string{{"", "value bytes", "bytes in Redis", "× JSON"}}
	var base float64
	add := func(name string) error {
		defer redis.FlushAll(ctx)
		value, total, err := weigh(ctx, redis, s.memory)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if base == 0 {
			base = total
		}
		rows = append(rows, []string{name, fmt.Sprintf("%.0f", value), fmt.Sprintf("%.0f", total), fmt.Sprintf("%.2f", total/base)})
		return nil
	}

	progress("memory: %d sessions each", s.memory)
	for range s.memory {
		record, err := json.Marshal(newUser("user"))
		if err != nil {
			return err
		}
		if err := redis.Set(ctx, "sess:"+uuid.NewString(), record, lifetime).Err(); err != nil {
			return err
		}
	}
	if err := add("JSON"); err != nil {
		return err
	}
	for _, c := range contenders() {
		if !slices.Contains(weighed, c.name) {
			continue
		}
		srv, err := startServer(c, redis.addr)
		if err != nil {
			return err
		}
		_, err = loginMany(ctx, srv.addr, p.conns, s.memory)
		if err = firstOf(err, srv.stop()); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		if err := add(c.name); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "\nMemory per session, by MEMORY USAGE with the key\n\n")
	writeTable(out, rows)
	return nil
}

// weigh returns the mean size of a value and of everything in Redis per session.
func weigh(ctx context.Context, redis *redisServer, sessions int) (value, total float64, err error) {
	keys := redis.Scan(ctx, 0, "*", 1000).Iterator()
	for keys.Next(ctx) {
		n, err := redis.MemoryUsage(ctx, keys.Val(), 0).Result()
		if err != nil {
			return 0, 0, err
		}
		total += float64(n)
		if kind, err := redis.Type(ctx, keys.Val()).Result(); err != nil {
			return 0, 0, err
		} else if kind != "string" {
			continue
		}
		length, err := redis.StrLen(ctx, keys.Val()).Result()
		if err != nil {
			return 0, 0, err
		}
		value += float64(length)
	}
	if value == 0 {
		return 0, 0, errors.Join(errors.New("no sessions in Redis"), keys.Err())
	}
	return value / float64(sessions), total / float64(sessions), keys.Err()
}

// loginMany opens n sessions over several connections, and returns the
// credentials of each connection.
func loginMany(ctx context.Context, addr string, conns, n int) ([][]credential, error) {
	creds := make([][]credential, conns)
	errs := make([]error, conns)
	var wg sync.WaitGroup
	for i := range conns {
		wg.Go(func() {
			c, err := dial(addr)
			if err != nil {
				errs[i] = err
				return
			}
			defer c.close()
			for j := i; j < n && ctx.Err() == nil; j += conns {
				cred, err := c.login("user")
				if err != nil {
					errs[i] = err
					return
				}
				creds[i] = append(creds[i], cred)
			}
		})
	}
	wg.Wait()
	return creds, errors.Join(append(errs, ctx.Err())...)
}

// scaleReads compares the cost of a read among few and many live sessions.
func scaleReads(ctx context.Context, out io.Writer, _ *redisServer, p plan, s sizes) error {
	rows := [][]string{{"", "sessions", "req/s", "CPU µs", "× first", "Redis cmds", "allocs", "server heap MB"}}
	var notes []string
	for _, c := range contenders() {
		if !slices.Contains(crowded, c.name) {
			continue
		}
		sums, heaps, err := readAmong(ctx, c, p, s)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		for i, sum := range sums {
			rows = append(rows, []string{
				c.name, fmt.Sprint(s.live[i]), fmt.Sprintf("%.0f", sum.Rate),
				fmt.Sprintf("%.1f", sum.CPU), fmt.Sprintf("%.2f", sum.CPURatio),
				fmt.Sprintf("%.2f", sum.Commands), fmt.Sprintf("%.0f", sum.Allocs),
				fmt.Sprintf("%.0f", float64(heaps[i])/1e6),
			})
			notes = append(notes, fmt.Sprintf("- %s, %d sessions%s", c.name, s.live[i], commandNote(sum)))
		}
	}
	fmt.Fprintf(out, "\nReads, each of a session picked at random\n\n")
	writeTable(out, rows)
	fmt.Fprintf(out, "\n%s\n", strings.Join(notes, "\n"))
	return nil
}

// crowded are the contenders to read among many sessions with.
var crowded = []string{reference, "echosession", "scs"}

// A crowd is a contender with many live sessions, in a Redis server of its own.
type crowd struct {
	*server
	redis   *redisServer
	workers []*worker
	result  result
}

// readAmong returns a summary and the server's heap for each number of sessions.
// These take turns; the ratios are to the first.
func readAmong(ctx context.Context, c contender, p plan, s sizes) (sums []summary, heaps []uint64, err error) {
	var crowds []*crowd
	defer func() {
		for _, cr := range crowds {
			err = firstOf(err, cr.stop())
		}
	}()
	for _, n := range s.live {
		progress("reads: %s with %d sessions", c.name, n)
		cr, err := gather(ctx, c, p, n)
		if cr != nil {
			crowds = append(crowds, cr)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	for range p.rounds {
		for _, cr := range crowds {
			sl, err := cr.slot(ctx, cr.workers, p.duration, cr.redis)
			if err != nil {
				return nil, nil, err
			}
			cr.result.slots = append(cr.result.slots, sl)
		}
	}
	for _, cr := range crowds {
		u, err := cr.usage()
		if err != nil {
			return nil, nil, err
		}
		sum := summarize(&cr.result, &crowds[0].result)
		if sum.Failed > 0 {
			return nil, nil, fmt.Errorf("%d of %d reads failed", sum.Failed, sum.Requests)
		}
		sums, heaps = append(sums, sum), append(heaps, u.Heap)
	}
	return sums, heaps, nil
}

// gather starts a contender, opens n sessions and reads each of them once, so that
// what the server caches is as it will be. The crowd is not nil when its
// processes run.
func gather(ctx context.Context, c contender, p plan, n int) (*crowd, error) {
	redis, err := startRedis(ctx)
	if err != nil {
		return nil, err
	}
	srv, err := startServer(c, redis.addr)
	if err != nil {
		return nil, firstOf(err, redis.stop())
	}
	cr := &crowd{server: srv, redis: redis}
	creds, err := loginMany(ctx, srv.addr, p.conns, n)
	if err != nil {
		return cr, err
	}
	for i := range min(p.conns, n) {
		cl, err := dial(srv.addr)
		if err != nil {
			return cr, err
		}
		cr.workers = append(cr.workers, &worker{client: cl, next: pickFrom(creds[i]), want: []byte("user ")})
	}
	for seen := 0; seen < n; {
		sl, err := srv.slot(ctx, cr.workers, p.duration, redis)
		if err != nil {
			return cr, err
		}
		seen += sl.requests
	}
	return cr, ctx.Err()
}

func (cr *crowd) stop() error {
	for _, w := range cr.workers {
		w.close()
	}
	return firstOf(cr.server.stop(), cr.redis.stop())
}

// pickFrom returns reads of all sessions in turn, and then of random ones.
func pickFrom(creds []credential) func() []byte {
	head := []byte("GET /me HTTP/1.1\r\nHost: bench\r\n")
	var request []byte
	turn := 0
	return func() []byte {
		i := turn
		if turn < len(creds) {
			turn++
		} else {
			i = rand.IntN(len(creds))
		}
		request = append(append(append(request[:0], head...), creds[i]...), "\r\n"...)
		return request
	}
}
