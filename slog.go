package echosession

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// SlogEvents returns a [Config.OnEvent] that keeps an audit log: one line for each event,
// with a constant message and the attributes event, reason, subject, session (the [LogID]),
// before, count, duration and error. With a nil logger it is slog.Default() at the time of
// the event.
//
//	cfg.OnEvent = echosession.SlogEvents(slog.Default())
//
// What begins and ends sessions is logged without exception, at level Info. What clients can
// cause as often as they like is sampled: of each kind and reason the first 10 lines of a
// second are logged, and a line after that second says how many were left out. Requests that
// look like an attack are at level Warn: a bad signature, an unknown key, another origin. An
// outage, and a write whose outcome is unknown, are at level Error. Opened sessions,
// calls of the store, and the beginning and the end of a watch are at level Debug.
//
// It logs subjects. It never logs tokens, session IDs or data, and of a server's error the code
// at most. The logger gets the context of the request, so that its handler can add an address
// or a trace.
func SlogEvents(logger *slog.Logger) func(ctx context.Context, e Event) {
	l := &eventLog{logger: logger, samples: make(map[eventSource]*eventSample)}
	return l.log
}

const (
	// sampleEvery is how long a sample lasts, and sampleSize how many lines it has.
	sampleEvery = time.Second
	sampleSize  = 10

	// maxSamples bounds memory: a Redis server can answer with any error code.
	maxSamples = 200
)

// An eventForm is how events of a kind are logged.
type eventForm struct {
	level   slog.Level
	message string
	sampled bool
}

var eventForms = map[EventKind]eventForm{
	EventCreated:          {slog.LevelInfo, "session created", false},
	EventRenewed:          {slog.LevelInfo, "session renewed", false},
	EventRotated:          {slog.LevelInfo, "session rotated", false},
	EventImported:         {slog.LevelInfo, "session imported", false},
	EventDestroyed:        {slog.LevelInfo, "session destroyed", false},
	EventRevoked:          {slog.LevelInfo, "sessions revoked", false},
	EventEvicted:          {slog.LevelInfo, "session evicted", false},
	EventExpired:          {slog.LevelInfo, "session expired", false},
	EventOpened:           {slog.LevelDebug, "session opened", true},
	EventRefused:          {slog.LevelInfo, "session refused", true},
	EventSuperseded:       {slog.LevelInfo, "rotated token used", true},
	EventStaleServed:      {slog.LevelWarn, "session served from a copy", true},
	EventOldKey:           {slog.LevelInfo, "old key in use", true},
	EventUnreadable:       {slog.LevelWarn, "session record unreadable", true},
	EventStoreCall:        {slog.LevelDebug, "session store called", true},
	EventStoreDown:        {slog.LevelError, "session store down", false},
	EventStoreUp:          {slog.LevelInfo, "session store up", false},
	EventIndeterminate:    {slog.LevelError, "session write indeterminate", true},
	EventWatchBegan:       {slog.LevelDebug, "session watch began", true},
	EventWatchEnded:       {slog.LevelDebug, "session watch ended", true},
	EventWatchInterrupted: {slog.LevelWarn, "session watches interrupted", false},
	EventWatchResumed:     {slog.LevelInfo, "session watches resumed", false},
}

// suspicious are the reasons of refusals that no client meets who does nothing wrong.
var suspicious = map[string]bool{
	"malformed": true, "type": true, "algorithm": true, "unknown_key": true, "signature": true,
	"claims": true, "issuer": true, "audience": true, "ticket": true, "ambiguous": true, "cross_origin": true,
}

// An eventLog is what SlogEvents returns.
type eventLog struct {
	logger *slog.Logger // nil: the default logger at the time of the event

	mu      sync.Mutex
	samples map[eventSource]*eventSample
}

// An eventSource is what events are sampled by.
type eventSource struct {
	kind   EventKind
	reason string
}

type eventSample struct {
	until   time.Time
	lines   int
	leftOut int
}

func (l *eventLog) log(ctx context.Context, e Event) {
	form, ok := eventForms[e.Kind]
	if !ok {
		form = eventForm{slog.LevelInfo, "session event", true}
	}
	if e.Kind == EventRefused && suspicious[e.Reason] {
		form.level = slog.LevelWarn
	}
	logger := l.to()
	if !logger.Enabled(ctx, form.level) || form.sampled && !l.due(form, eventSource{e.Kind, e.Reason}) {
		return
	}
	attrs := make([]slog.Attr, 0, 8)
	add := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	add("event", string(e.Kind))
	add("reason", e.Reason)
	add("subject", e.Subject)
	add("session", e.LogID)
	add("before", e.Before)
	if e.Kind == EventRevoked || e.Kind == EventWatchResumed || e.Count > 1 {
		attrs = append(attrs, slog.Int("count", e.Count))
	}
	if e.Duration > 0 {
		attrs = append(attrs, slog.Duration("duration", e.Duration))
	}
	if e.Err != nil {
		add("error", e.Err.Error())
	}
	logger.LogAttrs(ctx, form.level, form.message, attrs...)
}

func (l *eventLog) to() *slog.Logger {
	if l.logger == nil {
		return slog.Default()
	}
	return l.logger
}

// due reports whether an event is to be logged. Of those that are not, a line tells when the
// sample is over.
func (l *eventLog) due(form eventForm, of eventSource) bool {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.samples[of]
	if s == nil && len(l.samples) >= maxSamples {
		of.reason = "other"
		s = l.samples[of]
	}
	if s == nil {
		s = new(eventSample)
		l.samples[of] = s
	}
	if left := s.until.Sub(now); s.leftOut == 0 && (left <= 0 || left > sampleEvery) {
		s.until, s.lines = now.Add(sampleEvery), 0
	}
	if s.lines < sampleSize {
		s.lines++
		return true
	}
	if s.leftOut++; s.leftOut == 1 {
		time.AfterFunc(s.until.Sub(now), func() { l.sayLeftOut(form, of, s) })
	}
	return false
}

// sayLeftOut ends a sample.
func (l *eventLog) sayLeftOut(form eventForm, of eventSource, s *eventSample) {
	l.mu.Lock()
	n := s.leftOut
	*s = eventSample{}
	l.mu.Unlock()
	_ = recovered(func() error { // a handler that panics must not end the program
		l.to().LogAttrs(context.Background(), form.level, "session events left out",
			slog.String("event", string(of.kind)), slog.String("reason", of.reason), slog.Int("left_out", n))
		return nil
	})
}
