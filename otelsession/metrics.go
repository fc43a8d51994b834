package otelsession

import (
	"context"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/echosession/echosession"
)

// Buckets in seconds: those that OpenTelemetry advises for clients of databases with a finer
// beginning, as a store answers in less than a millisecond, and those for outages.
var (
	callBuckets   = []float64{.0001, .0005, .001, .005, .01, .05, .1, .5, 1, 5, 10}
	outageBuckets = []float64{1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600}
)

// metrics are the instruments of one Manager.
type metrics struct {
	created, renewed, rotated, imported, ended counter
	opened, refused, superseded, stale         counter
	oldKeys, unreadable                        counter

	calls                          callTimes
	outages, indeterminate         counter
	outageTime, interruptionTime   histogram
	down, watches                  *total
	watchEnds, interrupted, missed counter
}

func newMetrics(meter metric.Meter, attributes []attribute.KeyValue) *metrics {
	f := factory{meter, attributes}
	return &metrics{
		created: f.counter("sessions.created", "{session}", "Sessions that were created, by a login or for a guest.",
			words[echosession.EventCreated]),
		ended: f.counter("sessions.ended", "{session}",
			"Sessions that were ended. Of those that expire, only watched ones are known.", ends),
		renewed: f.counter("sessions.renewed", "{session}", "Sessions that a login, or a gain of rights, moved to a new token.", nil),
		rotated: f.counter("sessions.rotated", "{session}", "Sessions that a rotation moved to a new token.", nil),
		imported: f.counter("sessions.imported", "{session}",
			"Sessions that were made of what another library has stored.", nil),

		opened: f.counter("requests.opened", "{request}",
			"Requests whose token or ticket led to a live session. A token that is cached needs no check of its signature.",
			words[echosession.EventOpened]),
		refused: f.counter("requests.refused", "{request}",
			"Requests that carry a token and have no live session, or whose session does not do.", words[echosession.EventRefused]),
		superseded: f.counter("requests.superseded", "{request}",
			"Requests with a token that a rotation has replaced, in its grace.", nil),
		stale: f.counter("requests.stale_served", "{request}",
			"Requests that were served a copy of their session, because the store is down.", nil),
		oldKeys: f.counter("old_keys.used", "{use}",
			"Tokens and records whose key is not the first of its list.", words[echosession.EventOldKey]),
		unreadable: f.counter("records.unreadable", "{record}", "Records that could not be read.", words[echosession.EventUnreadable]),

		calls:   f.callTimes("store.operation.duration", "How long a call of the store took."),
		outages: f.counter("store.outages", "{outage}", "Outages of the store that began.", causes),
		down:    f.gauge("store.down", "{outage}", "Outages of the store that last."),
		outageTime: f.histogram("store.outage.duration", "How long an outage of the store lasted, recorded at its end.",
			outageBuckets),
		indeterminate: f.counter("store.indeterminate_writes", "{write}",
			"Writes of which is not known whether the store made them, or kept them on enough replicas.", causes),

		watches: f.gauge("watches.active", "{watch}", "Watches of sessions that are under way."),
		watchEnds: f.counter("watches.ended", "{watch}", "Watches that are over.",
			words[echosession.EventWatchEnded]),
		interrupted: f.counter("watches.interruptions", "{interruption}",
			"Times at which this process began not to hear of ends at once.", causes),
		interruptionTime: f.histogram("watches.interruption.duration",
			"How long this process did not hear of ends at once, recorded at the end.", outageBuckets),
		missed: f.counter("watches.missed_ends", "{session}",
			"Watched sessions that ended during an interruption, and were found later.", nil),
	}
}

// record takes an event. Each kind is counted by one instrument at least. A kind of a later
// version of echosession is not: it has no instrument here.
func (m *metrics) record(ctx context.Context, e *echosession.Event) {
	switch e.Kind {
	case echosession.EventOpened:
		m.opened.add(1, e.Reason)
	case echosession.EventStoreCall:
		m.calls.record(ctx, e)
	case echosession.EventCreated:
		m.created.add(1, e.Reason)
	case echosession.EventRenewed:
		m.renewed.add(1, "")
	case echosession.EventRotated:
		m.rotated.add(1, "")
	case echosession.EventImported:
		m.imported.add(1, "")
	case echosession.EventDestroyed, echosession.EventRevoked, echosession.EventEvicted, echosession.EventExpired:
		m.end(e)
	case echosession.EventRefused:
		m.refused.add(1, e.Reason)
	case echosession.EventSuperseded:
		m.superseded.add(1, "")
	case echosession.EventStaleServed:
		m.stale.add(1, "")
	case echosession.EventOldKey:
		m.oldKeys.add(1, e.Reason)
	case echosession.EventUnreadable:
		m.unreadable.add(1, e.Reason)
	case echosession.EventIndeterminate:
		m.indeterminate.add(1, causeWord(e.Reason))
	case echosession.EventStoreDown:
		m.outages.add(1, causeWord(e.Reason))
		m.down.Add(1)
	case echosession.EventStoreUp:
		m.down.Add(-1)
		m.outageTime.record(ctx, e.Duration)
	default:
		m.watch(ctx, e)
	}
}

func (m *metrics) end(e *echosession.Event) {
	switch {
	case e.Kind == echosession.EventEvicted:
		m.ended.add(1, "evicted")
	case e.Kind == echosession.EventExpired:
		m.ended.add(1, "expired")
	case e.Kind == echosession.EventDestroyed:
		m.ended.add(1, e.Reason)
	case e.Reason == "one":
		m.ended.add(e.Count, "revoked")
	case e.Reason == "subject":
		m.ended.add(e.Count, "revoked_subject")
	default:
		m.ended.add(e.Count, other)
	}
}

func (m *metrics) watch(ctx context.Context, e *echosession.Event) {
	switch e.Kind {
	case echosession.EventWatchBegan:
		m.watches.Add(1)
	case echosession.EventWatchEnded:
		m.watches.Add(-1)
		m.watchEnds.add(1, e.Reason)
	case echosession.EventWatchInterrupted:
		m.interrupted.add(1, causeWord(e.Reason))
	case echosession.EventWatchResumed:
		m.missed.add(e.Count, "")
		m.interruptionTime.record(ctx, e.Duration)
	}
}

// A factory makes the instruments, and beforehand every set of attributes that they need: a
// measurement makes none.
type factory struct {
	meter      metric.Meter
	attributes []attribute.KeyValue
}

// set returns the option for the attributes of all measurements and those given.
func (f factory) set(more ...attribute.KeyValue) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(append(f.attributes[:len(f.attributes):len(f.attributes)], more...)...))
}

// name is the full name of an instrument.
func name(short string) string { return "echosession." + short }

// A counter has one series for each reason. It counts by itself, and is read when the metrics
// are collected: that costs a request less than an instrument that is told each time. And all
// series are there from the beginning with 0: a rate, or an alert, sees no increase in a series
// that begins with the first event.
type counter map[string]*total

// A total is the value of a series.
type total struct {
	atomic.Int64
	set metric.MeasurementOption
}

// counter makes a counter. Without reasons it has one series.
func (f factory) counter(short, unit, about string, reasons []string) counter {
	c := make(counter)
	if reasons == nil {
		c[""] = &total{set: f.set()}
	} else {
		for _, reason := range append([]string{other}, reasons...) {
			c[reason] = &total{set: f.set(reasonKey.String(reason))}
		}
	}
	instrument, err := f.meter.Int64ObservableCounter(name(short), metric.WithUnit(unit), metric.WithDescription(about))
	f.read(instrument, err, slices.Collect(maps.Values(c)))
	return c
}

func (c counter) add(n int, reason string) {
	t, ok := c[reason]
	if !ok {
		t = c[other]
	}
	t.Add(int64(max(0, n)))
}

// gauge makes what says how many of something there are.
func (f factory) gauge(short, unit, about string) *total {
	g := &total{set: f.set()}
	instrument, err := f.meter.Int64ObservableUpDownCounter(name(short), metric.WithUnit(unit), metric.WithDescription(about))
	f.read(instrument, err, []*total{g})
	return g
}

// read lets the totals be read when the metrics are collected. The callback is registered with
// the meter: one that is given with the instrument is lost where another Manager has made the
// same instrument before.
func (f factory) read(instrument metric.Int64Observable, err error, totals []*total) {
	if err == nil {
		_, err = f.meter.RegisterCallback(func(_ context.Context, to metric.Observer) error {
			for _, t := range totals {
				to.ObserveInt64(instrument, t.Load(), t.set)
			}
			return nil
		}, instrument)
	}
	if err != nil {
		otel.Handle(err)
	}
}

// A histogram counts durations.
type histogram struct {
	instrument metric.Float64Histogram
	set        []metric.RecordOption
}

func (f factory) histogram(short, about string, buckets []float64) histogram {
	instrument, err := f.meter.Float64Histogram(name(short), metric.WithUnit("s"), metric.WithDescription(about),
		metric.WithExplicitBucketBoundaries(buckets...))
	if err != nil {
		otel.Handle(err)
		instrument = noop.Float64Histogram{}
	}
	return histogram{instrument, []metric.RecordOption{f.set()}}
}

func (h *histogram) record(ctx context.Context, d time.Duration) {
	h.instrument.Record(ctx, d.Seconds(), h.set...)
}

// callTimes are the durations of calls of the store, by operation and kind of error.
type callTimes struct {
	histogram
	sets map[call][]metric.RecordOption
}

// A call is what a call of the store was, and what came of it: "" is success.
type call struct{ operation, errorType string }

func (f factory) callTimes(short, about string) callTimes {
	c := callTimes{f.histogram(short, about, callBuckets), make(map[call][]metric.RecordOption)}
	for _, operation := range append([]string{other}, words[echosession.EventStoreCall]...) {
		named := operationKey.String(operation)
		c.sets[call{operation, ""}] = []metric.RecordOption{f.set(named)}
		c.sets[call{operation, otherError}] = []metric.RecordOption{f.set(named, semconv.ErrorTypeOther)}
		for _, t := range errorTypes {
			c.sets[call{operation, t.name}] = []metric.RecordOption{f.set(named, semconv.ErrorTypeKey.String(t.name))}
		}
	}
	return c
}

func (c *callTimes) record(ctx context.Context, e *echosession.Event) {
	kind := errorType(e.Err)
	set, ok := c.sets[call{e.Reason, kind}]
	if !ok {
		set = c.sets[call{other, kind}]
	}
	c.instrument.Record(ctx, e.Duration.Seconds(), set...)
}
