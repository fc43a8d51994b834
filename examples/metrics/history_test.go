package main

import (
	"context"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// A history is what a Prometheus would have stored. Its engine is the one of Prometheus.
type history struct {
	series map[string]*storedSeries
	engine *promql.Engine
}

type storedSeries struct {
	labels  labels.Labels
	samples []chunks.Sample
}

func newHistory() *history {
	return &history{make(map[string]*storedSeries), promql.NewEngine(promql.EngineOpts{
		MaxSamples: 10_000_000, Timeout: time.Minute, LookbackDelta: 5 * time.Second,
	})}
}

// A sample is the value of a series at a time, in milliseconds.
type sample struct {
	t int64
	f float64
}

func (s sample) T() int64                      { return s.t }
func (s sample) ST() int64                     { return 0 }
func (s sample) F() float64                    { return s.f }
func (s sample) H() *histogram.Histogram       { return nil }
func (s sample) FH() *histogram.FloatHistogram { return nil }
func (s sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample           { return s }

// scrape reads /metrics of a registry, and stores it as of a time. It returns the metrics by
// name.
func (h *history) scrape(t *testing.T, registry *prometheus.Registry, at time.Time) map[string]*dto.MetricFamily {
	t.Helper()
	rec := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(rec.Body)
	if err != nil {
		t.Fatal(err)
	}
	for name, family := range families {
		for _, m := range family.Metric {
			h.add(name, family.GetType(), m, at.UnixMilli())
		}
	}
	return families
}

func (h *history) add(name string, kind dto.MetricType, m *dto.Metric, at int64) {
	switch kind {
	case dto.MetricType_COUNTER:
		h.put(name, m, at, m.Counter.GetValue())
	case dto.MetricType_GAUGE:
		h.put(name, m, at, m.Gauge.GetValue())
	case dto.MetricType_HISTOGRAM:
		h.put(name+"_sum", m, at, m.Histogram.GetSampleSum())
		h.put(name+"_count", m, at, float64(m.Histogram.GetSampleCount()))
		for _, b := range m.Histogram.Bucket {
			le := "+Inf"
			if !math.IsInf(b.GetUpperBound(), 1) {
				le = strconv.FormatFloat(b.GetUpperBound(), 'g', -1, 64)
			}
			h.put(name+"_bucket", m, at, float64(b.GetCumulativeCount()), "le", le)
		}
	}
}

func (h *history) put(name string, m *dto.Metric, at int64, value float64, more ...string) {
	pairs := append([]string{"__name__", name, "job", "shop", "instance", "shop-1"}, more...)
	for _, l := range m.Label {
		pairs = append(pairs, l.GetName(), l.GetValue())
	}
	set := labels.FromStrings(pairs...)
	s := h.series[set.String()]
	if s == nil {
		s = &storedSeries{labels: set}
		h.series[set.String()] = s
	}
	s.samples = append(s.samples, sample{at, value})
}

// query evaluates an expression every step from start to end.
func (h *history) query(t *testing.T, expr string, start, end time.Time, step time.Duration) promql.Matrix {
	t.Helper()
	q, err := h.engine.NewRangeQuery(t.Context(), h, nil, expr, start, end, step)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	defer q.Close()
	result, err := q.Exec(t.Context()).Matrix()
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	kept := slices.Clone(result)
	for i := range kept {
		kept[i].Floats = slices.Clone(kept[i].Floats) // Close takes them back
	}
	return kept
}

// Querier is a method of [storage.Queryable].
func (h *history) Querier(int64, int64) (storage.Querier, error) { return querier{h}, nil }

type querier struct{ *history }

func (q querier) Select(_ context.Context, _ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	found := &seriesSet{at: -1}
	for _, s := range q.series {
		if !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(s.labels.Get(m.Name)) }) {
			found.series = append(found.series, storage.NewListSeries(s.labels, s.samples))
		}
	}
	slices.SortFunc(found.series, func(a, b storage.Series) int { return labels.Compare(a.Labels(), b.Labels()) })
	return found
}

func (querier) LabelValues(context.Context, string, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

func (querier) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

func (querier) Close() error { return nil }

type seriesSet struct {
	series []storage.Series
	at     int
}

func (s *seriesSet) Next() bool                        { s.at++; return s.at < len(s.series) }
func (s *seriesSet) At() storage.Series                { return s.series[s.at] }
func (s *seriesSet) Err() error                        { return nil }
func (s *seriesSet) Warnings() annotations.Annotations { return nil }

// A legend fills in the name of a series, as in "created: {{echosession_reason}}".
func legend(format string, set labels.Labels) string {
	set.Range(func(l labels.Label) { format = strings.ReplaceAll(format, "{{"+l.Name+"}}", l.Value) })
	return format
}
