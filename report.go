package echosession

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// A reporter logs failures so that none is silent and none floods the log: the first
// of its kind at once, the next ones once a second with their number.
type reporter struct {
	logger *slog.Logger // nil: the default logger at the time of the failure
	now    func() time.Time

	mu    sync.Mutex
	kinds map[failureKind]*failures
}

// A failureKind is what failures are counted by. Its texts hold no secret and no word
// of a store.
type failureKind struct {
	message   string
	operation string
	cause     string
}

type failures struct {
	silentUntil time.Time
	count       int // since the last line
}

const (
	// reportEvery is how often a kind of failure is logged at most.
	reportEvery = time.Second

	// maxFailureKinds bounds memory: a Redis server can answer with any error code.
	maxFailureKinds = 100
)

func newReporter(logger *slog.Logger, now func() time.Time) *reporter {
	return &reporter{logger: logger, now: now, kinds: make(map[failureKind]*failures)}
}

func (r *reporter) report(level slog.Level, kind failureKind) {
	if n := r.due(&kind); n > 0 {
		logger := r.logger
		if logger == nil {
			logger = slog.Default()
		}
		logger.LogAttrs(context.Background(), level, kind.message,
			slog.String("operation", kind.operation), slog.String("cause", kind.cause), slog.Int("count", n))
	}
}

// due counts a failure and returns how many to log now, or 0.
func (r *reporter) due(kind *failureKind) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.kinds[*kind]
	if f == nil && len(r.kinds) >= maxFailureKinds {
		kind.cause = "other"
		f = r.kinds[*kind]
	}
	if f == nil {
		f = new(failures)
		r.kinds[*kind] = f
	}
	f.count++
	now := r.now()
	// A clock that was set back must not silence anything.
	if now.Before(f.silentUntil) && f.silentUntil.Sub(now) <= reportEvery {
		return 0
	}
	n := f.count
	f.count, f.silentUntil = 0, now.Add(reportEvery)
	return n
}
