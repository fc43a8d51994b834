package otelsession_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/otelsession"
)

// An observed Config and what its metrics are.
type observed struct {
	cfg    echosession.Config
	reader *sdkmetric.ManualReader
}

func observe(tb testing.TB, cfg echosession.Config, opts ...otelsession.Option) *observed {
	tb.Helper()
	reader := sdkmetric.NewManualReader()
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	tb.Cleanup(func() {
		if err := provider.Shutdown(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	return &observed{otelsession.Observe(cfg, append([]otelsession.Option{otelsession.WithMeterProvider(provider)}, opts...)...), reader}
}

func (o *observed) raise(tb testing.TB, events ...echosession.Event) {
	tb.Helper()
	for _, e := range events {
		o.cfg.OnEvent(tb.Context(), e)
	}
}

// A series is an instrument with its attributes, as in "echosession.x{a=b}".
func series(name string, set attribute.Set) string {
	var pairs []string
	for _, kv := range set.ToSlice() {
		pairs = append(pairs, string(kv.Key)+"="+kv.Value.String())
	}
	if len(pairs) == 0 {
		return name
	}
	return name + "{" + strings.Join(pairs, ",") + "}"
}

// metrics returns the instruments that were collected, by name.
func (o *observed) metrics(tb testing.TB) map[string]metricdata.Metrics {
	tb.Helper()
	var data metricdata.ResourceMetrics
	if err := o.reader.Collect(tb.Context(), &data); err != nil {
		tb.Fatal(err)
	}
	found := make(map[string]metricdata.Metrics)
	for _, scope := range data.ScopeMetrics {
		for _, m := range scope.Metrics {
			found[m.Name] = m
		}
	}
	return found
}

// values returns the value of each series: the sum of a counter, the count of a histogram
// with its sum.
func (o *observed) values(tb testing.TB) map[string]string {
	tb.Helper()
	found := make(map[string]string)
	for name, m := range o.metrics(tb) {
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			for _, p := range data.DataPoints {
				found[series(name, p.Attributes)] = fmt.Sprint(p.Value)
			}
		case metricdata.Histogram[float64]:
			for _, p := range data.DataPoints {
				found[series(name, p.Attributes)] = fmt.Sprintf("%d of %gs", p.Count, p.Sum)
			}
		default:
			tb.Fatalf("%s is a %T", name, data)
		}
	}
	return found
}

// changes returns the series whose value is another one than before, with the value.
func changes(before, after map[string]string) map[string]string {
	changed := make(map[string]string)
	for name, value := range after {
		if value != before[name] {
			changed[name] = value
		}
	}
	return changed
}

type kind int

const (
	counter kind = iota
	upDown
	histogram
)

// instruments are all that there are.
var instruments = map[string]struct {
	kind kind
	unit string
}{
	"echosession.sessions.created":              {counter, "{session}"},
	"echosession.sessions.ended":                {counter, "{session}"},
	"echosession.sessions.renewed":              {counter, "{session}"},
	"echosession.sessions.rotated":              {counter, "{session}"},
	"echosession.sessions.imported":             {counter, "{session}"},
	"echosession.requests.opened":               {counter, "{request}"},
	"echosession.requests.refused":              {counter, "{request}"},
	"echosession.requests.superseded":           {counter, "{request}"},
	"echosession.requests.stale_served":         {counter, "{request}"},
	"echosession.old_keys.used":                 {counter, "{use}"},
	"echosession.records.unreadable":            {counter, "{record}"},
	"echosession.store.operation.duration":      {histogram, "s"},
	"echosession.store.outages":                 {counter, "{outage}"},
	"echosession.store.down":                    {upDown, "{outage}"},
	"echosession.store.outage.duration":         {histogram, "s"},
	"echosession.store.indeterminate_writes":    {counter, "{write}"},
	"echosession.watches.active":                {upDown, "{watch}"},
	"echosession.watches.ended":                 {counter, "{watch}"},
	"echosession.watches.interruptions":         {counter, "{interruption}"},
	"echosession.watches.interruption.duration": {histogram, "s"},
	"echosession.watches.missed_ends":           {counter, "{session}"},
}

// recorded are events, and what they do to the series of a new Config.
var recorded = []struct {
	event echosession.Event
	want  map[string]string
}{
	{echosession.Event{Kind: echosession.EventCreated, Reason: "login", Count: 1},
		map[string]string{"echosession.sessions.created{echosession.reason=login}": "1"}},
	{echosession.Event{Kind: echosession.EventCreated, Reason: "guest", Count: 1},
		map[string]string{"echosession.sessions.created{echosession.reason=guest}": "1"}},
	{echosession.Event{Kind: echosession.EventRenewed, Count: 1},
		map[string]string{"echosession.sessions.renewed": "1"}},
	{echosession.Event{Kind: echosession.EventRotated, Count: 1},
		map[string]string{"echosession.sessions.rotated": "1"}},
	{echosession.Event{Kind: echosession.EventImported, Count: 1},
		map[string]string{"echosession.sessions.imported": "1"}},
	{echosession.Event{Kind: echosession.EventDestroyed, Reason: "logout", Count: 1},
		map[string]string{"echosession.sessions.ended{echosession.reason=logout}": "1"}},
	{echosession.Event{Kind: echosession.EventDestroyed, Reason: "replaced", Count: 1},
		map[string]string{"echosession.sessions.ended{echosession.reason=replaced}": "1"}},
	{echosession.Event{Kind: echosession.EventDestroyed, Reason: "discarded", Count: 1},
		map[string]string{"echosession.sessions.ended{echosession.reason=discarded}": "1"}},
	{echosession.Event{Kind: echosession.EventRevoked, Reason: "one", Count: 1},
		map[string]string{"echosession.sessions.ended{echosession.reason=revoked}": "1"}},
	{echosession.Event{Kind: echosession.EventRevoked, Reason: "subject", Count: 7},
		map[string]string{"echosession.sessions.ended{echosession.reason=revoked_subject}": "7"}},
	{echosession.Event{Kind: echosession.EventRevoked, Reason: "subject", Count: 0}, nil},
	{echosession.Event{Kind: echosession.EventRevoked, Reason: "?", Count: 2},
		map[string]string{"echosession.sessions.ended{echosession.reason=other}": "2"}},
	{echosession.Event{Kind: echosession.EventEvicted, Count: 1},
		map[string]string{"echosession.sessions.ended{echosession.reason=evicted}": "1"}},
	{echosession.Event{Kind: echosession.EventExpired, Count: 1},
		map[string]string{"echosession.sessions.ended{echosession.reason=expired}": "1"}},
	{echosession.Event{Kind: echosession.EventOpened, Reason: "cached", Count: 1},
		map[string]string{"echosession.requests.opened{echosession.reason=cached}": "1"}},
	{echosession.Event{Kind: echosession.EventRefused, Reason: "signature", Err: echosession.ErrInvalidToken},
		map[string]string{"echosession.requests.refused{echosession.reason=signature}": "1"}},
	{echosession.Event{Kind: echosession.EventSuperseded},
		map[string]string{"echosession.requests.superseded": "1"}},
	{echosession.Event{Kind: echosession.EventStaleServed},
		map[string]string{"echosession.requests.stale_served": "1"}},
	{echosession.Event{Kind: echosession.EventOldKey, Reason: "signing"},
		map[string]string{"echosession.old_keys.used{echosession.reason=signing}": "1"}},
	{echosession.Event{Kind: echosession.EventUnreadable, Reason: "codec", Err: echosession.ErrCorrupt},
		map[string]string{"echosession.records.unreadable{echosession.reason=codec}": "1"}},
	{echosession.Event{Kind: echosession.EventStoreCall, Reason: "load", Duration: 250 * time.Millisecond},
		map[string]string{"echosession.store.operation.duration{echosession.store.operation=load}": "1 of 0.25s"}},
	{echosession.Event{Kind: echosession.EventStoreCall, Reason: "load", Duration: time.Second, Err: echosession.ErrStoreUnavailable},
		map[string]string{"echosession.store.operation.duration{echosession.store.operation=load,error.type=unavailable}": "1 of 1s"}},
	{echosession.Event{Kind: echosession.EventStoreCall, Reason: "load", Err: errors.New("?")},
		map[string]string{"echosession.store.operation.duration{echosession.store.operation=load,error.type=_OTHER}": "1 of 0s"}},
	{echosession.Event{Kind: echosession.EventStoreDown, Reason: "timeout", Err: echosession.ErrStoreUnavailable},
		map[string]string{
			"echosession.store.outages{echosession.reason=timeout}": "1",
			"echosession.store.down":                                "1",
		}},
	{echosession.Event{Kind: echosession.EventStoreUp, Duration: 30 * time.Second},
		map[string]string{
			"echosession.store.down":            "-1",
			"echosession.store.outage.duration": "1 of 30s",
		}},
	{echosession.Event{Kind: echosession.EventIndeterminate, Reason: "too few replicas", Err: echosession.ErrNotReplicated},
		map[string]string{"echosession.store.indeterminate_writes{echosession.reason=too few replicas}": "1"}},
	{echosession.Event{Kind: echosession.EventWatchBegan},
		map[string]string{"echosession.watches.active": "1"}},
	{echosession.Event{Kind: echosession.EventWatchEnded, Reason: "gone"},
		map[string]string{
			"echosession.watches.active":                         "-1",
			"echosession.watches.ended{echosession.reason=gone}": "1",
		}},
	{echosession.Event{Kind: echosession.EventWatchInterrupted, Reason: "connection closed"},
		map[string]string{"echosession.watches.interruptions{echosession.reason=connection closed}": "1"}},
	{echosession.Event{Kind: echosession.EventWatchResumed, Count: 3, Duration: 2 * time.Second},
		map[string]string{
			"echosession.watches.missed_ends":           "3",
			"echosession.watches.interruption.duration": "1 of 2s",
		}},
	{echosession.Event{Kind: "of a later version", Reason: "?"}, nil},
}

func TestEventsAreCounted(t *testing.T) {
	touched := make(map[string]bool)
	for _, tt := range recorded {
		t.Run(fmt.Sprint(tt.event.Kind, " ", tt.event.Reason), func(t *testing.T) {
			o := observe(t, echosession.Config{})
			before := o.values(t)
			o.raise(t, tt.event)
			if got := changes(before, o.values(t)); !maps.Equal(got, tt.want) {
				t.Errorf("changed are %v, not %v", got, tt.want)
			}
			for s := range tt.want {
				name, _, _ := strings.Cut(s, "{")
				touched[name] = true
			}
		})
	}
	for name := range instruments {
		if !touched[name] {
			t.Errorf("no event changes %s", name)
		}
	}
}

// raiseAll raises every event of which the table tells.
func (o *observed) raiseAll(tb testing.TB) {
	tb.Helper()
	for _, tt := range recorded {
		o.raise(tb, tt.event)
	}
}

func TestInstruments(t *testing.T) {
	o := observe(t, echosession.Config{})
	o.raiseAll(t)
	found := o.metrics(t)
	for name, want := range instruments {
		m, ok := found[name]
		if !ok {
			t.Errorf("%s is missing", name)
			continue
		}
		got := counter
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			if !data.IsMonotonic {
				got = upDown
			}
		case metricdata.Histogram[float64]:
			got = histogram
		}
		if got != want.kind || m.Unit != want.unit {
			t.Errorf("%s is of kind %d in %s, not of kind %d in %s", name, got, m.Unit, want.kind, want.unit)
		}
		if !strings.HasSuffix(m.Description, ".") {
			t.Errorf("the description of %s is %q", name, m.Description)
		}
	}
	for name := range found {
		if _, ok := instruments[name]; !ok {
			t.Errorf("%s is not in the table", name)
		}
	}
}

func TestBuckets(t *testing.T) {
	o := observe(t, echosession.Config{})
	o.raiseAll(t)
	calls := []float64{.0001, .0005, .001, .005, .01, .05, .1, .5, 1, 5, 10}
	outages := []float64{1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600}
	for name, want := range map[string][]float64{
		"echosession.store.operation.duration":      calls,
		"echosession.store.outage.duration":         outages,
		"echosession.watches.interruption.duration": outages,
	} {
		points := o.metrics(t)[name].Data.(metricdata.Histogram[float64]).DataPoints
		if len(points) == 0 || !slices.Equal(points[0].Bounds, want) {
			t.Errorf("%s has other buckets than %v", name, want)
		}
	}
}

// An alert on the increase of a counter sees the first event: every series is there before.
func TestCountersBeginWithZero(t *testing.T) {
	o := observe(t, echosession.Config{})
	before := o.values(t)
	for name, want := range instruments {
		n := 0
		for s, value := range before {
			if short, _, _ := strings.Cut(s, "{"); short == name {
				n++
				if value != "0" {
					t.Errorf("%s begins with %s", s, value)
				}
			}
		}
		if (n > 0) != (want.kind != histogram) {
			t.Errorf("%s begins with %d series", name, n)
		}
	}
	o.raiseAll(t)
	for s := range o.values(t) {
		if name, _, _ := strings.Cut(s, "{"); instruments[name].kind != histogram && before[s] == "" {
			t.Errorf("%s was not there before the first event", s)
		}
	}
}

// Words that a program, a client or a later version invents make no series.
func TestStrangeReasonsMakeNoSeries(t *testing.T) {
	o := observe(t, echosession.Config{})
	flood := func(n int) {
		for i := range n {
			for _, tt := range recorded {
				e := tt.event
				e.Reason = fmt.Sprint("strange ", i, ": stranger")
				e.Subject, e.LogID, e.Before = fmt.Sprint("subject", i), fmt.Sprint("log", i), fmt.Sprint("before", i)
				if e.Err != nil {
					e.Err = fmt.Errorf("strange %d", i)
				}
				o.raise(t, e)
			}
		}
	}
	flood(1)
	before := o.values(t)
	flood(1000)
	after := o.values(t)
	if len(after) != len(before) || len(before) < len(instruments) {
		t.Errorf("%d series became %d", len(before), len(after))
	}
	for s := range after {
		for _, word := range []string{"strange", "subject1", "log1", "before1"} {
			if strings.Contains(s, word) {
				t.Errorf("%s has the word %q of an event", s, word)
			}
		}
	}
	if got := after["echosession.requests.refused{echosession.reason=other}"]; got != "1001" {
		t.Errorf("%s refused requests for other reasons, not 1001", got)
	}
	if got := after["echosession.store.outages{echosession.reason=other}"]; got != "1001" {
		t.Errorf("%s outages for other causes, not 1001", got)
	}
}

// What a server said behind a known cause is left out.
func TestCauseIsCutWhereAServerSpeaks(t *testing.T) {
	o := observe(t, echosession.Config{})
	for cause, want := range map[string]string{
		"refused: OOM":              "refused: OOM",
		"refused: SOMETHING":        "refused",
		"no permission: NOPERM":     "no permission",
		"network: dial":             "network",
		"not authenticated: NOAUTH": "not authenticated",
		"alice@example.com":         "other",
	} {
		before := o.values(t)
		o.raise(t, echosession.Event{Kind: echosession.EventIndeterminate, Reason: cause})
		s := "echosession.store.indeterminate_writes{echosession.reason=" + want + "}"
		if got := changes(before, o.values(t)); len(got) != 1 || got[s] == "" {
			t.Errorf("%q changes %v, not %s", cause, got, s)
		}
	}
}

func TestAttributesOfAllMeasurements(t *testing.T) {
	instance := func(cfg echosession.Config, opts ...otelsession.Option) map[string]bool {
		o := observe(t, cfg, opts...)
		o.raiseAll(t)
		values := make(map[string]bool)
		for s := range o.values(t) {
			value := "none"
			if _, after, ok := strings.Cut(s, "echosession.instance="); ok {
				value = strings.FieldsFunc(after, func(r rune) bool { return r == ',' || r == '}' })[0]
			}
			values[value] = true
		}
		return values
	}
	admin := otelsession.WithAttributes(attribute.String("echosession.instance", "back office"))
	for _, tt := range []struct {
		name string
		got  map[string]bool
		want string
	}{
		{"no RequestKey", instance(echosession.Config{}), "none"},
		{"a RequestKey", instance(echosession.Config{RequestKey: "admin"}), "admin"},
		{"attributes", instance(echosession.Config{}, admin), "back office"},
		{"both", instance(echosession.Config{RequestKey: "admin"}, admin), "back office"},
	} {
		if len(tt.got) != 1 || !tt.got[tt.want] {
			t.Errorf("%s: the instances are %v, not %s", tt.name, tt.got, tt.want)
		}
	}
}

// Managers on one MeterProvider have series of their own, if they have names; else their
// counts are added up.
func TestTwoManagers(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	provider := otelsession.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))
	users := &observed{otelsession.Observe(echosession.Config{}, provider), reader}
	more := &observed{otelsession.Observe(echosession.Config{}, provider), reader} // without a name
	admins := &observed{otelsession.Observe(echosession.Config{RequestKey: "admin"}, provider), reader}
	e := echosession.Event{Kind: echosession.EventCreated, Reason: "login", Count: 1}
	users.raise(t, e)
	more.raise(t, e, e, e)
	admins.raise(t, e, e)
	values := users.values(t)
	if got := values["echosession.sessions.created{echosession.reason=login}"]; got != "4" {
		t.Errorf("%s sessions of the two without a name", got)
	}
	if got := values["echosession.sessions.created{echosession.instance=admin,echosession.reason=login}"]; got != "2" {
		t.Errorf("%s sessions of admins", got)
	}
}

func TestOnEventThatWasThere(t *testing.T) {
	var o *observed
	var seen []echosession.Event
	type key struct{}
	ctx := context.WithValue(t.Context(), key{}, "kept")
	o = observe(t, echosession.Config{OnEvent: func(ctx context.Context, e echosession.Event) {
		if ctx.Value(key{}) != "kept" {
			t.Error("it gets another context")
		}
		if got := o.values(t)["echosession.sessions.renewed"]; got != "1" {
			t.Errorf("it is called when %s events are recorded", got)
		}
		seen = append(seen, e)
	}})
	want := echosession.Event{Kind: echosession.EventRenewed, Subject: "alice", LogID: "b", Before: "a", Count: 1}
	o.cfg.OnEvent(ctx, want)
	if len(seen) != 1 || seen[0] != want {
		t.Errorf("it was told %v", seen)
	}
}

// refusing is a MeterProvider that makes no instrument.
type refusing struct{ noop.MeterProvider }

func (refusing) Meter(string, ...metric.MeterOption) metric.Meter { return refusingMeter{} }

type refusingMeter struct{ noop.Meter }

var errRefused = errors.New("no instrument")

func (refusingMeter) Int64ObservableCounter(string, ...metric.Int64ObservableCounterOption) (metric.Int64ObservableCounter, error) {
	return nil, errRefused
}

func (refusingMeter) Int64ObservableUpDownCounter(string, ...metric.Int64ObservableUpDownCounterOption) (metric.Int64ObservableUpDownCounter, error) {
	return nil, errRefused
}

func (refusingMeter) Float64Histogram(string, ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	return nil, errRefused
}

func TestInstrumentsThatAreRefused(t *testing.T) {
	handled := 0
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		if errors.Is(err, errRefused) {
			handled++
		}
	}))
	o := observe(t, echosession.Config{}, otelsession.WithMeterProvider(refusing{}))
	o.raiseAll(t)
	if handled != len(instruments) {
		t.Errorf("%d errors were handled, not %d", handled, len(instruments))
	}
}

// The default is the MeterProvider of the program, which may be set later: nothing is lost.
func TestGlobalMeterProvider(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	o := &observed{otelsession.Observe(echosession.Config{}), reader}
	o.raise(t, echosession.Event{Kind: echosession.EventRotated})
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))
	if got := o.values(t)["echosession.sessions.rotated"]; got != "1" {
		t.Errorf("%q rotations", got)
	}
}

// spanEvents raises events in a span, and returns what the span has of them.
func spanEvents(t *testing.T, events []echosession.Event, opts ...otelsession.Option) []sdktrace.Event {
	t.Helper()
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	ctx, span := provider.Tracer("test").Start(t.Context(), "request")
	o := observe(t, echosession.Config{}, opts...)
	for _, e := range events {
		o.cfg.OnEvent(ctx, e)
	}
	span.End()
	ended := recorder.Ended()
	if len(ended) != 1 {
		t.Fatalf("%d spans, not the request's alone", len(ended))
	}
	return ended[0].Events()
}

func describe(e sdktrace.Event) string { return series(e.Name, attribute.NewSet(e.Attributes...)) }

func TestSpanEvents(t *testing.T) {
	for _, tt := range []struct {
		event echosession.Event
		want  string
	}{
		{echosession.Event{Kind: echosession.EventOpened, Reason: "cached", Subject: "alice", LogID: "abc", Count: 1},
			"echosession.opened{echosession.log_id=abc,echosession.reason=cached}"},
		{echosession.Event{Kind: echosession.EventRenewed, Subject: "alice", LogID: "new", Before: "old", Count: 1},
			"echosession.renewed{echosession.log_id=new,echosession.log_id.before=old}"},
		{echosession.Event{Kind: echosession.EventRevoked, Reason: "subject", Subject: "alice", Count: 0},
			"echosession.revoked{echosession.count=0,echosession.reason=subject}"},
		{echosession.Event{Kind: echosession.EventRefused, Reason: "gone", LogID: "abc", Err: echosession.ErrNotFound},
			"echosession.refused{echosession.log_id=abc,echosession.reason=gone,error.type=not_found}"},
		{echosession.Event{Kind: echosession.EventStoreUp, Duration: 1500 * time.Millisecond},
			"echosession.store_up{echosession.duration=1.5}"},
		{echosession.Event{Kind: "later", Reason: "word"},
			"echosession.later{echosession.reason=word}"},
	} {
		got := spanEvents(t, []echosession.Event{tt.event})
		if len(got) != 1 || describe(got[0]) != tt.want {
			t.Errorf("the span has %v, not %s", got, tt.want)
		}
	}
}

func TestEverySpanEvent(t *testing.T) {
	var events []echosession.Event
	want := make(map[string]bool)
	for _, tt := range recorded {
		e := tt.event
		e.Subject, e.LogID = "alice", "abc"
		events = append(events, e)
		if e.Kind != echosession.EventStoreCall {
			want["echosession."+string(e.Kind)] = true
		}
	}
	got := make(map[string]bool)
	for _, e := range spanEvents(t, events) {
		got[e.Name] = true
		if s := describe(e); strings.Contains(s, "alice") || !strings.Contains(s, "echosession.log_id=abc") {
			t.Errorf("%s: it has the LogID, and no subject", s)
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("the span has %v, not %v", got, want)
	}
}

func TestSubjectsInSpanEvents(t *testing.T) {
	got := spanEvents(t, []echosession.Event{{Kind: echosession.EventCreated, Reason: "login", Subject: "alice", LogID: "abc"}},
		otelsession.WithSubjects(), otelsession.WithAttributes(attribute.String("echosession.instance", "x")))
	const want = "echosession.created{echosession.instance=x,echosession.log_id=abc,echosession.reason=login,user.id=alice}"
	if len(got) != 1 || describe(got[0]) != want {
		t.Errorf("the span has %v, not %s", got, want)
	}
}

func TestWithoutSpanEvents(t *testing.T) {
	if got := spanEvents(t, []echosession.Event{{Kind: echosession.EventCreated, Reason: "login"}}, otelsession.WithoutSpanEvents()); len(got) > 0 {
		t.Errorf("the span has %v", got)
	}
}

// An event of a span that is not recorded costs what it costs without a span.
func TestSpanThatIsNotRecorded(t *testing.T) {
	provider := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample()))
	ctx, span := provider.Tracer("test").Start(t.Context(), "request")
	defer span.End()
	o := observe(t, echosession.Config{})
	e := echosession.Event{Kind: echosession.EventOpened, Reason: "cached", LogID: "abc", Count: 1}
	if n := testing.AllocsPerRun(100, func() { o.cfg.OnEvent(ctx, e) }); n > 0 {
		t.Errorf("it costs %v allocations", n)
	}
}

// With WithExemplars a measurement says in which trace it was made.
func TestExemplars(t *testing.T) {
	ctx, span := sdktrace.NewTracerProvider().Tracer("test").Start(t.Context(), "request")
	defer span.End()
	for _, tt := range []struct {
		name string
		opts []otelsession.Option
		want string
	}{
		{"by default", nil, ""},
		{"WithExemplars", []otelsession.Option{otelsession.WithExemplars()}, span.SpanContext().TraceID().String()},
	} {
		o := observe(t, echosession.Config{}, tt.opts...)
		o.cfg.OnEvent(ctx, echosession.Event{Kind: echosession.EventStoreCall, Reason: "load", Duration: time.Millisecond})
		got := ""
		for _, p := range o.metrics(t)["echosession.store.operation.duration"].Data.(metricdata.Histogram[float64]).DataPoints {
			for _, e := range p.Exemplars {
				got += fmt.Sprintf("%x", e.TraceID)
			}
		}
		if got != tt.want {
			t.Errorf("%s: the traces are %q, not %q", tt.name, got, tt.want)
		}
	}
}

// readEvents are those of a request that reads its session.
var readEvents = []echosession.Event{
	{Kind: echosession.EventStoreCall, Reason: "load", Duration: 300 * time.Microsecond},
	{Kind: echosession.EventOpened, Reason: "cached", Subject: "alice", LogID: "abc", Count: 1},
}

func TestReadAllocatesNothing(t *testing.T) {
	o := observe(t, echosession.Config{RequestKey: "users"})
	ctx := t.Context()
	if n := testing.AllocsPerRun(1000, func() {
		for _, e := range readEvents {
			o.cfg.OnEvent(ctx, e)
		}
	}); n > 0 {
		t.Errorf("the events of a read cost %v allocations", n)
	}
}

func BenchmarkRead(b *testing.B) {
	o := observe(b, echosession.Config{})
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		for _, e := range readEvents {
			o.cfg.OnEvent(ctx, e)
		}
	}
}
