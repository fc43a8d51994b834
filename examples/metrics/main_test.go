package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/extra/redisotel/v9"
	"github.com/redis/go-redis/v9"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

var testSecret = []byte("a secret of the tests, 32 bytes!")

// An app is the service with what its metrics are.
type app struct {
	echo     *echo.Echo
	registry *prometheus.Registry
}

func startApp(t *testing.T, cfg echosession.Config) *app {
	t.Helper()
	registry := prometheus.NewRegistry()
	provider, err := newMeterProvider(registry)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Secret = testSecret
	e, err := newApp(cfg, provider)
	if err != nil {
		t.Fatal(err)
	}
	return &app{e, registry}
}

// request sends a request with a token, and returns its status and the token of the answer.
func (a *app) request(t *testing.T, method, path, token string) (int, string) {
	t.Helper()
	rec := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	a.echo.ServeHTTP(rec, r)
	var answer struct{ Token string }
	if rec.Code == http.StatusOK {
		if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil {
			t.Fatal(err)
		}
	}
	return rec.Code, answer.Token
}

func (a *app) life(t *testing.T, name string) (status []int) {
	t.Helper()
	got, token := a.request(t, http.MethodPost, "/login/"+name, "")
	status = append(status, got)
	for _, call := range []string{"GET /me", "POST /visit", "POST /logout", "GET /me"} {
		method, path, _ := strings.Cut(call, " ")
		got, _ := a.request(t, method, path, token)
		status = append(status, got)
	}
	got, _ = a.request(t, http.MethodGet, "/me", "not a token")
	return append(status, got)
}

// value returns the value of a series as /metrics has it, or "".
func (a *app) value(t *testing.T, series string) float64 {
	t.Helper()
	h := newHistory()
	now := time.Now()
	h.scrape(t, a.registry, now)
	matrix := h.query(t, "sum("+series+")", now, now, time.Second)
	if len(matrix) != 1 || len(matrix[0].Floats) != 1 {
		t.Fatalf("%s has the values %v", series, matrix)
	}
	return matrix[0].Floats[0].F
}

func TestMetricsOfRequests(t *testing.T) {
	for _, tt := range []struct {
		name  string
		store func(t *testing.T) echosession.Config
	}{
		{"memory", func(*testing.T) echosession.Config { return echosession.Config{Store: echosession.NewMemoryStore()} }},
		{"redis", func(t *testing.T) echosession.Config {
			return echosession.Config{Client: redistest.Shared(t).Client(t), Keyspace: keyspace(t)}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := startApp(t, tt.store(t))
			if got, want := fmt.Sprint(a.life(t, "ada")), "[200 200 200 204 401 401]"; got != want {
				t.Fatalf("the answers are %s, not %s", got, want)
			}
			for series, want := range map[string]float64{
				`echosession_sessions_created_total{echosession_reason="login"}`:                                          1,
				`echosession_sessions_created_total`:                                                                      1,
				`echosession_sessions_ended_total{echosession_reason="logout"}`:                                           1,
				`echosession_sessions_ended_total`:                                                                        1,
				`echosession_requests_opened_total{echosession_reason="cached"}`:                                          3,
				`echosession_requests_refused_total{echosession_reason="gone"}`:                                           1,
				`echosession_requests_refused_total{echosession_reason="malformed"}`:                                      1,
				`echosession_requests_refused_total`:                                                                      2,
				`echosession_store_operation_duration_seconds_count{echosession_store_operation="create"}`:                1,
				`echosession_store_operation_duration_seconds_count{echosession_store_operation="replace"}`:               1,
				`echosession_store_operation_duration_seconds_count{echosession_store_operation="delete"}`:                1,
				`echosession_store_operation_duration_seconds_count{echosession_store_operation="load"}`:                  4,
				`echosession_store_operation_duration_seconds_count{error_type="not_found"}`:                              1,
				`echosession_store_operation_duration_seconds_count{error_type!="",error_type!="not_found"} or vector(0)`: 0,
				`echosession_store_down`: 0,
			} {
				if got := a.value(t, series); got != want {
					t.Errorf("%s is %g, not %g", series, got, want)
				}
			}
		})
	}
}

// An outage is counted, and is over when Redis answers again.
func TestMetricsOfAnOutage(t *testing.T) {
	server := redistest.Start(t)
	a := startApp(t, echosession.Config{Client: server.Client(t), StoreTimeout: 100 * time.Millisecond})
	_, token := a.request(t, http.MethodPost, "/login/ada", "")
	server.Pause(t)
	if status, _ := a.request(t, http.MethodGet, "/me", token); status != http.StatusServiceUnavailable {
		t.Errorf("without Redis the answer is %d", status)
	}
	if got := a.value(t, "echosession_store_down"); got != 1 {
		t.Errorf("%g outages last", got)
	}
	server.Resume(t)
	for end := time.Now().Add(10 * time.Second); a.value(t, "echosession_store_down") != 0; {
		if time.Now().After(end) {
			t.Fatal("the outage is not over")
		}
		a.request(t, http.MethodGet, "/me", token)
	}
	if got := a.value(t, "echosession_store_outages_total"); got != 1 {
		t.Errorf("%g outages", got)
	}
	if got := a.value(t, "echosession_store_outage_duration_seconds_sum"); got < 1 {
		t.Errorf("the outage lasted %g s; it is over when no call has failed for a second", got)
	}
}

// secretsInSpans plants secrets in sessions, and returns those that are in spans of the
// client, with the number of spans.
func secretsInSpans(t *testing.T, instrument func(redis.UniversalClient, trace.TracerProvider) error) (found []string, spans int) {
	t.Helper()
	recorded := tracetest.NewInMemoryExporter()
	tracers := sdktrace.NewTracerProvider(sdktrace.WithSyncer(recorded))
	rdb := redistest.Shared(t).Client(t)
	if err := instrument(rdb, tracers); err != nil {
		t.Fatal(err)
	}
	a := startApp(t, echosession.Config{Client: rdb, Keyspace: keyspace(t), SubjectIndex: true})
	sessions, err := echosession.New[Visitor](echosession.Config{
		Client: rdb, Keyspace: keyspace(t), Secret: testSecret, SubjectIndex: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	_, token := a.request(t, http.MethodPost, "/login/planted-subject", "")
	sess, err := sessions.Open(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	// The name is in the record alone.
	if err := sess.Update(t.Context(), func(v *Visitor) error { v.Name = "planted-name"; return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := sessions.List(t.Context(), "planted-subject"); err != nil {
		t.Fatal(err)
	}
	if _, err := sessions.RevokeSubject(t.Context(), "planted-subject"); err != nil {
		t.Fatal(err)
	}
	stubs := recorded.GetSpans()
	var text strings.Builder
	for _, s := range stubs {
		fmt.Fprintf(&text, "%s %v %v %v %v\n", s.Name, s.Attributes, s.Events, s.Status, s.Links)
	}
	for name, secret := range map[string]string{"session ID": sess.ID(), "subject": "planted-subject", "record": "planted-name"} {
		// redisotel writes what is not plain text in hex.
		if strings.Contains(text.String(), secret) || strings.Contains(text.String(), hex.EncodeToString([]byte(secret))) {
			found = append(found, name)
		}
	}
	return found, len(stubs)
}

// What instrument says about redisotel's default is true.
func TestSpansOfRedisHoldNoSecret(t *testing.T) {
	t.Run("as the program does it", func(t *testing.T) {
		found, spans := secretsInSpans(t, instrument)
		if len(found) > 0 || spans < 5 {
			t.Errorf("%d spans, with these secrets: %q", spans, found)
		}
	})
	t.Run("with the default", func(t *testing.T) {
		found, _ := secretsInSpans(t, func(rdb redis.UniversalClient, tracers trace.TracerProvider) error {
			return redisotel.InstrumentTracing(rdb, redisotel.WithTracerProvider(tracers))
		})
		if len(found) != 3 {
			t.Errorf("the secrets are %q: if redisotel keeps all of them back, the warning in docs/metrics.md is out of date", found)
		}
	})
}

// keyspace returns the test's own.
func keyspace(t *testing.T) string {
	return strings.NewReplacer("/", "-", " ", "-").Replace(t.Name()) + ":"
}
