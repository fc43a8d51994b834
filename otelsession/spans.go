package otelsession

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/echosession/echosession"
)

// spans adds events to the span in the context.
type spans struct {
	on, subjects bool
	attributes   []attribute.KeyValue
}

func newSpans(o options) *spans { return &spans{o.spanEvents, o.subjects, o.attributes} }

// record takes an event. A call of the store is not one: what instruments the store's client
// makes spans of them.
func (s *spans) record(ctx context.Context, e *echosession.Event) {
	if !s.on || e.Kind == echosession.EventStoreCall {
		return
	}
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	span.AddEvent("echosession."+string(e.Kind), trace.WithAttributes(s.describe(e)...))
}

// describe returns the attributes of an event. A reason is as it was told: spans have no
// series that a word could multiply.
func (s *spans) describe(e *echosession.Event) []attribute.KeyValue {
	list := make([]attribute.KeyValue, len(s.attributes), len(s.attributes)+7)
	copy(list, s.attributes)
	text := func(key attribute.Key, value string) {
		if value != "" {
			list = append(list, key.String(value))
		}
	}
	text(reasonKey, e.Reason)
	text(logIDKey, e.LogID)
	text(beforeKey, e.Before)
	text(semconv.ErrorTypeKey, errorType(e.Err))
	if s.subjects {
		text(semconv.UserIDKey, e.Subject)
	}
	if e.Count > 1 || e.Kind == echosession.EventRevoked || e.Kind == echosession.EventWatchResumed {
		list = append(list, countKey.Int(e.Count))
	}
	if e.Duration > 0 {
		list = append(list, durationKey.Float64(e.Duration.Seconds()))
	}
	return list
}
