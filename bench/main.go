// Command bench compares echosession with a hand-written reference and with
// other session libraries, side by side on one machine. See README.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	var (
		rounds   = flag.Int("rounds", 5, "rounds, in each of which every contender has a turn")
		duration = flag.Duration("duration", time.Second, "length of a turn")
		conns    = flag.Int("conns", 64, "keep-alive connections")
		only     = flag.String("only", "", "comma-separated contenders, beside the ones to compare with")
		loads    = flag.String("workload", "", "comma-separated workloads: read, write, anonymous")
		asJSON   = flag.Bool("json", false, "write JSON instead of tables")
		quick    = flag.Bool("quick", false, "one short round, to see that everything works; the figures mean little")
		scale    = flag.Bool("scale", false, "measure memory per session and the cost of many sessions instead")
		full     = flag.Bool("full", false, "with -scale: go up to 1 million sessions")

		serveName = flag.String("serve", "", "be the server process of this contender (used by the program itself)")
		redisAddr = flag.String("redis", "", "with -serve: address of the Redis server")
	)
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if *serveName != "" {
		return serve(*serveName, *redisAddr)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := pinSelf(loadCore); err != nil {
		return fmt.Errorf("cannot pin the load generator to a core: %w", err)
	}
	if !pinnable() {
		progress("processes share all cores: they cannot be pinned here, and the figures will vary more")
	}

	p := plan{rounds: *rounds, duration: *duration, conns: *conns, warmup: 200 * time.Millisecond}
	if *quick {
		p.rounds, p.duration, p.warmup = 1, 200*time.Millisecond, 50*time.Millisecond
	}
	if p.rounds < 1 || p.conns < 1 || p.duration <= 0 {
		return errors.New("-rounds, -conns and -duration must be above zero")
	}
	if *scale {
		return runScale(ctx, p, scaleSizes(*quick, *full))
	}
	var err error
	if p.workloads, err = pickWorkloads(*loads); err != nil {
		return err
	}
	if p.contenders, err = pickContenders(*only, p.workloads); err != nil {
		return err
	}
	return compare(ctx, p, *asJSON)
}

func pickWorkloads(list string) ([]workload, error) {
	if list == "" {
		return workloads, nil
	}
	var picked []workload
	for name := range strings.SplitSeq(list, ",") {
		i := slices.IndexFunc(workloads, func(w workload) bool { return w.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no workload %q", name)
		}
		picked = append(picked, workloads[i])
	}
	return picked, nil
}

// pickContenders returns the contenders of a list, and those that the workloads
// compare them with.
func pickContenders(list string, ws []workload) ([]contender, error) {
	if list == "" {
		return contenders(), nil
	}
	wanted := strings.Split(list, ",")
	for _, name := range wanted {
		if _, err := contenderNamed(name); err != nil {
			return nil, err
		}
	}
	for _, w := range ws {
		wanted = append(wanted, w.base)
	}
	return slices.DeleteFunc(contenders(), func(c contender) bool { return !slices.Contains(wanted, c.name) }), nil
}

func compare(ctx context.Context, p plan, asJSON bool) error {
	turns := 0
	for _, w := range p.workloads {
		for _, c := range p.contenders {
			if w.suits(c) {
				turns += p.rounds
			}
		}
	}
	progress("%d turns, about %v", turns, (time.Duration(turns) * (p.duration + p.warmup + 50*time.Millisecond)).Round(time.Second))
	results, err := measure(ctx, p)
	if err != nil {
		return err
	}
	var sums []summary
	for _, w := range p.workloads {
		base := find(results, w.base, w.name)
		for _, r := range results {
			if r.workload.name == w.name {
				sums = append(sums, summarize(r, base))
			}
		}
	}
	if asJSON {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(sums)
	}
	writeTables(os.Stdout, p, sums)
	return nil
}
