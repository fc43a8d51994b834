package main

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/otelsession"
)

// A dashboard is what Grafana reads of docs/grafana.json.
type dashboard struct {
	UID           string
	Title         string
	SchemaVersion int
	Templating    struct{ List []variable }
	Panels        []panel
}

type variable struct {
	Name, Type string
	Definition string
	AllValue   string
}

type panel struct {
	ID          int
	Type, Title string
	Datasource  datasource
	GridPos     struct{ X, Y, W, H int }
	FieldConfig struct {
		Defaults struct {
			Unit       string
			Decimals   *int
			Thresholds struct{ Steps []step }
			Mappings   []struct {
				Options map[string]struct{ Text string }
			}
		}
	}
	Targets []target
}

type datasource struct{ Type, UID string }

type step struct {
	Color string
	Value *float64
}

type target struct {
	RefID, Expr, LegendFormat string
	Datasource                datasource
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	data, err := os.ReadFile("../../docs/grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Panels) < 10 {
		t.Fatalf("only %d panels", len(d.Panels))
	}
	return d
}

// fill puts values in the place of the dashboard's variables.
func fill(expr, window string) string {
	return strings.NewReplacer("$__rate_interval", window, "$job", ".*", "$manager", ".*").Replace(expr)
}

// everyEvent returns an event of each kind in event.go, and a call of the store that fails.
func everyEvent(t *testing.T) []echosession.Event {
	t.Helper()
	source, err := os.ReadFile("../../event.go")
	if err != nil {
		t.Fatal(err)
	}
	var events []echosession.Event
	for _, m := range regexp.MustCompile(`\bEventKind = "(\w+)"`).FindAllSubmatch(source, -1) {
		events = append(events, echosession.Event{Kind: echosession.EventKind(m[1]), Reason: "subject", Count: 1, Duration: time.Second})
	}
	if len(events) < 22 {
		t.Fatalf("event.go has only %d kinds", len(events))
	}
	return append(events,
		echosession.Event{Kind: echosession.EventOpened, Reason: "cached"},
		echosession.Event{Kind: echosession.EventStoreCall, Reason: "load", Err: echosession.ErrStoreUnavailable},
		echosession.Event{Kind: echosession.EventStoreDown, Reason: "timeout"})
}

// exported returns what Prometheus gets after every event, and a history of some seconds in
// which they happened.
func exported(t *testing.T) (families map[string]*dto.MetricFamily, h *history, end time.Time) {
	t.Helper()
	registry := prometheus.NewRegistry()
	provider, err := newMeterProvider(registry)
	if err != nil {
		t.Fatal(err)
	}
	cfg := otelsession.Observe(echosession.Config{RequestKey: "session"}, otelsession.WithMeterProvider(provider))
	events := everyEvent(t)
	h, end = newHistory(), time.Unix(1_700_000_000, 0)
	for range 10 {
		for _, e := range events {
			cfg.OnEvent(t.Context(), e)
		}
		end = end.Add(time.Second)
		families = h.scrape(t, registry, end)
	}
	maps.DeleteFunc(families, func(name string, _ *dto.MetricFamily) bool { return !strings.HasPrefix(name, "echosession_") })
	if len(families) < 20 {
		t.Fatalf("only %d metrics are exported", len(families))
	}
	return families, h, end
}

// metricOf returns the metric to which a series in an expression belongs.
func metricOf(families map[string]*dto.MetricFamily, series string) (name string, known []string) {
	for _, suffix := range []string{"", "_bucket", "_sum", "_count"} {
		name, ok := strings.CutSuffix(series, suffix)
		family := families[name]
		if !ok || family == nil || (family.GetType() == dto.MetricType_HISTOGRAM) != (suffix != "") {
			continue
		}
		known = []string{"__name__", "job", "instance"} // these come from Prometheus
		if suffix == "_bucket" {
			known = append(known, "le")
		}
		for _, m := range family.Metric {
			for _, l := range m.Label {
				known = append(known, l.GetName())
			}
		}
		return name, known
	}
	return "", nil
}

// checkExpr checks that all metrics and labels of an expression are exported, and those of
// its legend are in the result. It returns the metrics.
func checkExpr(t *testing.T, families map[string]*dto.MetricFamily, tt target) (used []string) {
	t.Helper()
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(fill(tt.Expr, "1m"))
	if err != nil {
		t.Errorf("%s: %v", tt.Expr, err)
		return nil
	}
	var labelsOf, grouping []string
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		switch node := node.(type) {
		case *parser.VectorSelector:
			name, known := metricOf(families, node.Name)
			if name == "" {
				t.Errorf("%s: nobody exports %s", tt.Expr, node.Name)
				return nil
			}
			used, labelsOf = append(used, name), append(labelsOf, known...)
			for _, m := range node.LabelMatchers {
				if !slices.Contains(known, m.Name) {
					t.Errorf("%s: %s has no label %s", tt.Expr, node.Name, m.Name)
				}
			}
		case *parser.AggregateExpr:
			if !node.Without {
				grouping = append(grouping, node.Grouping...)
			}
		}
		return nil
	})
	for _, label := range grouping {
		if !slices.Contains(labelsOf, label) {
			t.Errorf("%s: no metric has the label %s", tt.Expr, label)
		}
	}
	for _, m := range regexp.MustCompile(`\{\{(\w+)\}\}`).FindAllStringSubmatch(tt.LegendFormat, -1) {
		if !slices.Contains(grouping, m[1]) {
			t.Errorf("%s: the legend %q has the label %s, and the result has not", tt.Expr, tt.LegendFormat, m[1])
		}
	}
	return used
}

// Each query asks for metrics and labels that are exported, and each metric is on a panel.
func TestDashboardAsksForWhatIsExported(t *testing.T) {
	families, _, _ := exported(t)
	shown := make(map[string]bool)
	for _, p := range readDashboard(t).Panels {
		for _, target := range p.Targets {
			for _, name := range checkExpr(t, families, target) {
				shown[name] = true
			}
		}
	}
	for name := range families {
		if !shown[name] {
			t.Errorf("%s is on no panel", name)
		}
	}
}

// Each query has a result when there is something to show.
func TestDashboardShowsEveryEvent(t *testing.T) {
	_, h, end := exported(t)
	for _, p := range readDashboard(t).Panels {
		names := make(map[string]bool)
		for _, target := range p.Targets {
			before := len(names)
			for _, series := range h.query(t, fill(target.Expr, "5s"), end, end, time.Second) {
				name := legend(target.LegendFormat, series.Metric)
				if names[name] || strings.Contains(name, "{{") {
					t.Errorf("%s: two series are called %q", p.Title, name)
				}
				names[name] = true
			}
			if len(names) == before {
				t.Errorf("%s: %s has no result", p.Title, target.Expr)
			}
		}
	}
}

// Grafana can read it: panels have places and data, and the variables are there.
func TestDashboardIsWellFormed(t *testing.T) {
	d := readDashboard(t)
	if d.UID == "" || d.Title == "" || d.SchemaVersion < 36 {
		t.Errorf("uid %q, title %q, version %d of the schema", d.UID, d.Title, d.SchemaVersion)
	}
	families, _, _ := exported(t)
	variables := make(map[string]bool)
	for _, v := range d.Templating.List {
		variables["$"+v.Name] = true
		if v.Type != "query" {
			continue
		}
		m := regexp.MustCompile(`^label_values\((\w+), (\w+)\)$`).FindStringSubmatch(v.Definition)
		if m == nil {
			t.Errorf("variable %s: %q", v.Name, v.Definition)
			continue
		}
		checkExpr(t, families, target{Expr: "sum by (" + m[2] + ") (" + m[1] + ")"})
		if v.AllValue != ".*" {
			t.Errorf("variable %s: all is %q, which leaves out series without the label", v.Name, v.AllValue)
		}
	}
	ids, cells := make(map[int]bool), make(map[[2]int]string)
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || len(p.Targets) == 0 || p.FieldConfig.Defaults.Unit == "" || !slices.Contains([]string{"stat", "timeseries"}, p.Type) {
			t.Errorf("panel %d: %+v", p.ID, p)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%s is where %q is, or outside", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		checkTargets(t, p, variables)
	}
}

func checkTargets(t *testing.T, p panel, variables map[string]bool) {
	t.Helper()
	for i, step := range p.FieldConfig.Defaults.Thresholds.Steps {
		if (step.Value == nil) != (i == 0) || step.Color == "" {
			t.Errorf("%s: threshold %d", p.Title, i)
		}
	}
	if p.Datasource != (datasource{"prometheus", "${datasource}"}) || !variables["$datasource"] {
		t.Errorf("%s asks %v", p.Title, p.Datasource)
	}
	for i, target := range p.Targets {
		if target.RefID != string(rune('A'+i)) || target.Datasource != p.Datasource || target.LegendFormat == "" {
			t.Errorf("%s: target %d: %+v", p.Title, i, target)
		}
		for _, v := range regexp.MustCompile(`\$\w+`).FindAllString(target.Expr, -1) {
			if v != "$__rate_interval" && !variables[v] {
				t.Errorf("%s: %s has the variable %s", p.Title, target.Expr, v)
			}
		}
		if !strings.Contains(target.Expr, `{job=~"$job", echosession_instance=~"$manager"`) {
			t.Errorf("%s: %s does not ask for the chosen job and Manager", p.Title, target.Expr)
		}
	}
}

// The queries in documents ask for metrics, labels and reasons that are exported.
func TestDocumentsAskForWhatIsExported(t *testing.T) {
	families, h, _ := exported(t)
	reasons := make(map[string]bool)
	for _, s := range h.series {
		reasons[s.labels.Get("__name__")+" "+s.labels.Get("echosession_reason")] = true
	}
	for document, least := range map[string]int{"metrics.md": 6, "operate.md": 9} {
		data, err := os.ReadFile("../../docs/" + document)
		if err != nil {
			t.Fatal(err)
		}
		queries := 0
		for _, m := range regexp.MustCompile("`([^`\n]*\\bechosession_[^`\n]*)`").FindAllStringSubmatch(string(data), -1) {
			query := strings.ReplaceAll(m[1], `\|`, "|") // in a table
			if strings.ContainsAny(query, "({") {
				queries++
				checkReasons(t, reasons, query)
				checkExpr(t, families, target{Expr: query})
			} else if name, _ := metricOf(families, query); name == "" {
				t.Errorf("%s: nobody exports %s", document, query)
			}
		}
		if queries < least {
			t.Errorf("%s has only %d queries", document, queries)
		}
	}
}

// checkReasons checks that every reason in a query is one that its metric has.
func checkReasons(t *testing.T, reasons map[string]bool, query string) {
	t.Helper()
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(query)
	if err != nil {
		return // checkExpr says so
	}
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		if selector, ok := node.(*parser.VectorSelector); ok {
			for _, m := range selector.LabelMatchers {
				for reason := range strings.SplitSeq(m.Value, "|") {
					if m.Name == "echosession_reason" && !reasons[selector.Name+" "+reason] {
						t.Errorf("%s: %s has no reason %q", query, selector.Name, reason)
					}
				}
			}
		}
		return nil
	})
}

// A check that cannot fail is a defect.
func TestMetricOf(t *testing.T) {
	families, _, _ := exported(t)
	for series, want := range map[string]string{
		"echosession_sessions_created_total":                  "echosession_sessions_created_total",
		"echosession_sessions_created":                        "",
		"echosession_store_operation_duration_seconds":        "",
		"echosession_store_operation_duration_seconds_bucket": "echosession_store_operation_duration_seconds",
		"echosession_store_down_sum":                          "",
	} {
		if got, _ := metricOf(families, series); got != want {
			t.Errorf("%s belongs to %q, not %q", series, got, want)
		}
	}
	set := labels.FromStrings("echosession_reason", "login")
	if got := legend("created: {{echosession_reason}}", set); got != "created: login" {
		t.Errorf("the legend is %q", got)
	}
}
