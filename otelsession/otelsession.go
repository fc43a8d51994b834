// Package otelsession makes OpenTelemetry metrics and span events of what a session
// manager does.
//
//	sessions, err := echosession.New[User](otelsession.Observe(echosession.Config{
//		Client: rdb,
//		Secret: secret,
//	}))
//
// docs/metrics.md of the repository lists the metrics, and says which of them to watch;
// docs/grafana.json is a dashboard of them.
//
// No metric has a session ID, a LogID or a subject among its attributes, and an attribute
// has few values: a reason that this version does not know counts as "other".
//
// # Span events
//
// What happens during a request becomes an event of the span that is in the request's
// context, if that span is recorded: "echosession.refused", with the reason and the LogID of
// the session. Calls of the store do not: an instrumented client of the store makes spans of
// them. This package starts no span of its own. Where that client is go-redis with
// redisotel, turn its statements off: redisotel.WithDBStatement(false). With its defaults a
// span holds whole commands, and with them session IDs and records.
//
// # Versions
//
// This is a module of its own, so that only its users depend on OpenTelemetry. A release of
// the root, tagged v1.2.3, comes with the tag otelsession/v1.2.3, which requires it: take
// the same version of both.
package otelsession

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/echosession/echosession"
)

// scope is the name under which the instruments are made.
const scope = "github.com/echosession/echosession/otelsession"

// An Option changes what [Observe] records.
type Option func(*options)

type options struct {
	meters     metric.MeterProvider
	attributes []attribute.KeyValue
	spanEvents bool
	subjects   bool
	exemplars  bool
}

// WithMeterProvider says where the metrics go. Default [otel.GetMeterProvider]: the
// program's own, even if it is set after [Observe].
func WithMeterProvider(p metric.MeterProvider) Option {
	return func(o *options) { o.meters = p }
}

// WithAttributes adds attributes to every measurement and to every span event. Give none
// whose value changes. A program with two Managers on one route does not need it: a
// [echosession.Config.RequestKey] that is set is the attribute echosession.instance.
func WithAttributes(attributes ...attribute.KeyValue) Option {
	return func(o *options) { o.attributes = append(o.attributes, attributes...) }
}

// WithExemplars lets the MeterProvider keep exemplars of durations: to which trace a call of
// the store belongs. For that the span of every call is looked up, which costs a little more.
func WithExemplars() Option {
	return func(o *options) { o.exemplars = true }
}

// WithoutSpanEvents adds nothing to spans.
func WithoutSpanEvents() Option {
	return func(o *options) { o.spanEvents = false }
}

// WithSubjects adds the subject to span events, as user.id. Without it no subject goes to
// the tracing backend. Metrics never have it.
func WithSubjects() Option {
	return func(o *options) { o.subjects = true }
}

// Observe returns cfg with a [echosession.Config.OnEvent] that records each event, and then
// calls the OnEvent that was there. What Observe returns is for one Manager.
//
// An instrument that the MeterProvider refuses is told to [otel.Handle], and not recorded.
func Observe(cfg echosession.Config, opts ...Option) echosession.Config {
	o := options{spanEvents: true}
	for _, opt := range opts {
		opt(&o)
	}
	if o.meters == nil {
		o.meters = otel.GetMeterProvider()
	}
	if cfg.RequestKey != "" {
		// In front: an attribute of the caller with this key wins.
		o.attributes = append([]attribute.KeyValue{instanceKey.String(cfg.RequestKey)}, o.attributes...)
	}
	m := newMetrics(o.meters.Meter(scope), o.attributes)
	s := newSpans(o)
	next, background := cfg.OnEvent, context.Background()
	cfg.OnEvent = func(ctx context.Context, e echosession.Event) {
		measured := background
		if o.exemplars {
			measured = ctx
		}
		m.record(measured, &e)
		s.record(ctx, &e)
		if next != nil {
			next(ctx, e)
		}
	}
	return cfg
}
