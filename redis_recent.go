package echosession

import (
	"maps"
	"sync"
	"time"
)

// recentWrites remembers the keys that this process wrote just now, and those of sessions
// that it has heard have ended: a client-side cache or a replica may still have the value
// from before. A nil *recentWrites remembers nothing.
type recentWrites struct {
	mu    sync.RWMutex
	until map[string]time.Time
	swept time.Time
}

const (
	// recentFor is how long a key counts as just written. Invalidation messages
	// and replication take milliseconds.
	recentFor = time.Second

	// everyKey stands for all keys: no key is empty.
	everyKey = ""

	// maxRecent bounds memory: of more keys, all keys count as just written.
	maxRecent = 10_000
)

// writing notes that a write of key begins, and returns what to call at its end.
func (w *recentWrites) writing(key string) (end func()) {
	if w == nil {
		return func() {}
	}
	w.add(key)
	return func() { w.add(key) }
}

func (w *recentWrites) add(key string) {
	if w == nil {
		return
	}
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.Sub(w.swept) > recentFor {
		maps.DeleteFunc(w.until, func(_ string, until time.Time) bool { return until.Before(now) })
		w.swept = now
	}
	if len(w.until) >= maxRecent {
		key = everyKey
	}
	w.until[key] = now.Add(recentFor)
}

func (w *recentWrites) has(key string) bool {
	if w == nil {
		return false
	}
	w.mu.RLock()
	defer w.mu.RUnlock()
	if len(w.until) == 0 {
		return false
	}
	now := time.Now()
	return now.Before(w.until[key]) || now.Before(w.until[everyKey])
}
