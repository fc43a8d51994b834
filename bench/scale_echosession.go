package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/echosession/echosession"
	"github.com/redis/go-redis/v9"
)

// scaleEchosession measures what only echosession has: sessions by subject, and
// a walk through all of them.
func scaleEchosession(ctx context.Context, out io.Writer, rs *redisServer, p plan, s sizes) error {
	defer rs.FlushAll(ctx)
	opt := plain(rs.addr)
	opt.ContextTimeoutEnabled = true
	rdb := redis.NewClient(opt)
	defer rdb.Close()
	m, err := echosession.New[User](echosession.Config{Client: rdb, Secret: secret, MaxAge: lifetime, SubjectIndex: true})
	if err != nil {
		return err
	}
	if err := scaleSubject(ctx, out, rs, m, p, s); err != nil {
		return fmt.Errorf("sessions of one subject: %w", err)
	}
	if err := scaleAll(ctx, out, m, p, s); err != nil {
		return fmt.Errorf("all sessions: %w", err)
	}
	return nil
}

// createMany opens n sessions; subject names the owner of the i-th.
func createMany(ctx context.Context, m *echosession.Manager[User], conns, n int, subject func(i int) string) error {
	errs := make([]error, conns)
	var wg sync.WaitGroup
	for w := range conns {
		wg.Go(func() {
			for i := w; i < n && errs[w] == nil; i += conns {
				_, errs[w] = m.Create(ctx, newUser("user"), echosession.WithSubject(subject(i)))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func scaleSubject(ctx context.Context, out io.Writer, rs *redisServer, m *echosession.Manager[User], p plan, s sizes) error {
	const repeats = 5
	rows := [][]string{{"sessions of the subject", "bytes in Redis each", "List ms", "RevokeSubject ms"}}
	for _, n := range s.subject {
		progress("List and RevokeSubject: %d sessions of one subject", n)
		var list, revoke []float64
		var bytes float64
		for range repeats {
			if err := createMany(ctx, m, p.conns, n, func(int) string { return "subject" }); err != nil {
				return err
			}
			var err error
			if _, bytes, err = weigh(ctx, rs, n); err != nil {
				return err
			}
			begin := time.Now()
			sessions, err := m.List(ctx, "subject")
			if err != nil || len(sessions) != min(n, echosession.MaxListed) {
				return errors.Join(fmt.Errorf("%d of %d sessions listed", len(sessions), n), err)
			}
			list = append(list, time.Since(begin).Seconds()*1e3)

			begin = time.Now()
			revoked, err := m.RevokeSubject(ctx, "subject")
			if err != nil || revoked != n {
				return errors.Join(fmt.Errorf("%d of %d sessions revoked", revoked, n), err)
			}
			revoke = append(revoke, time.Since(begin).Seconds()*1e3)
		}
		rows = append(rows, []string{
			fmt.Sprint(n), fmt.Sprintf("%.0f", bytes),
			fmt.Sprintf("%.2f", median(list)), fmt.Sprintf("%.2f", median(revoke)),
		})
	}
	fmt.Fprintf(out, "\nSessions of one subject, with SubjectIndex; the median of %d times\n\n", repeats)
	writeTable(out, rows)
	return nil
}

func scaleAll(ctx context.Context, out io.Writer, m *echosession.Manager[User], p plan, s sizes) error {
	rows := [][]string{{"sessions", "All, sessions/s", "live heap before KB", "most on the way KB"}}
	created := 0
	for _, n := range []int{s.all / 10, s.all} {
		progress("All: %d sessions", n)
		if err := createMany(ctx, m, p.conns, n-created, func(i int) string { return fmt.Sprint("subject-", created+i) }); err != nil {
			return err
		}
		created = n

		begin := time.Now()
		visited := 0
		for _, err := range m.All(ctx) {
			if err != nil {
				return err
			}
			visited++
		}
		rate := float64(visited) / time.Since(begin).Seconds()
		if visited < n {
			return fmt.Errorf("%d of %d sessions visited", visited, n)
		}

		// A walk of its own, because a garbage collection takes its time.
		before := liveHeap()
		var heaps []uint64
		visited = 0
		for _, err := range m.All(ctx) {
			if err != nil {
				return err
			}
			if visited%(n/10) == 0 {
				heaps = append(heaps, liveHeap())
			}
			visited++
		}
		rows = append(rows, []string{
			fmt.Sprint(n), fmt.Sprintf("%.0f", rate),
			fmt.Sprint(before / 1000), fmt.Sprint(slices.Max(heaps) / 1000),
		})
	}
	fmt.Fprintf(out, "\nA walk through all sessions\n\n")
	writeTable(out, rows)
	return nil
}

func liveHeap() uint64 {
	runtime.GC()
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	return ms.HeapAlloc
}
