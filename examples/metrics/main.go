// Command metrics serves Prometheus the metrics of its sessions, which are in memory or in
// the Redis that -redis or REDIS_URL names. It has its own module, because it needs
// OpenTelemetry and Prometheus:
//
//	go -C examples/metrics run .
//	curl -sS -X POST http://127.0.0.1:8080/login/ada
//	curl -sS http://127.0.0.1:9464/metrics | grep ^echosession_
//
// docs/grafana.json is a dashboard of these metrics.
package main

import (
	"crypto/rand"
	"flag"
	"log"
	"net/http"
	"os"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/redis/go-redis/extra/redisotel/v9"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/otelsession"
)

// Visitor is what a session holds.
type Visitor struct {
	Name   string `json:"name"`
	Visits int    `json:"visits"`
}
type session = echosession.Session[Visitor]

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "`address` to listen on")
	// Prometheus has an address of its own, which the service's users do not reach.
	metricsAddr := flag.String("metrics", "127.0.0.1:9464", "`address` of /metrics")
	redisURL := flag.String("redis", os.Getenv("REDIS_URL"), "`URL` of a Redis; without it the sessions are in memory")
	flag.Parse()

	secret := make([]byte, 32)
	rand.Read(secret) // in production, it comes from your configuration
	registry := prometheus.NewRegistry()
	provider, err := newMeterProvider(registry)
	if err != nil {
		log.Fatal(err)
	}
	cfg := echosession.Config{Secret: secret, Store: echosession.NewMemoryStore()}
	if *redisURL != "" {
		opts, err := redis.ParseURL(*redisURL)
		if err != nil {
			log.Fatal(err)
		}
		opts.ContextTimeoutEnabled = true
		rdb := redis.NewClient(opts)
		if err := instrument(rdb, otel.GetTracerProvider()); err != nil {
			log.Fatal(err)
		}
		cfg.Client, cfg.Store = rdb, nil
	}
	e, err := newApp(cfg, provider)
	if err != nil {
		log.Fatal(err)
	}
	metrics := http.NewServeMux()
	metrics.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	go func() { log.Fatal(http.ListenAndServe(*metricsAddr, metrics)) }()
	log.Fatal(e.Start(*addr))
}

// newMeterProvider returns what makes instruments that the registry exports.
func newMeterProvider(registry *prometheus.Registry) (*sdkmetric.MeterProvider, error) {
	reader, err := exporter.New(exporter.WithRegisterer(registry), exporter.WithoutScopeInfo())
	if err != nil {
		return nil, err
	}
	return sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), nil
}

// instrument makes a span of each command of a client.
func instrument(rdb redis.UniversalClient, tracers trace.TracerProvider) error {
	// With the default, a span has the whole command: session IDs, subjects and records
	// would go to the tracing backend.
	return redisotel.InstrumentTracing(rdb,
		redisotel.WithTracerProvider(tracers),
		redisotel.WithDBStatement(false),
	)
}

// newApp returns a service whose sessions count visits.
func newApp(cfg echosession.Config, provider metric.MeterProvider) (*echo.Echo, error) {
	sessions, err := echosession.New[Visitor](otelsession.Observe(cfg, otelsession.WithMeterProvider(provider)))
	if err != nil {
		return nil, err
	}
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.Use(sessions.Middleware())
	e.POST("/login/:name", sessions.With(func(c echo.Context, sess *session) error { // and a password to check
		name := c.Param("name")
		token, err := sess.Renew(c.Request().Context(), func(v *Visitor) error {
			v.Name = name
			return nil
		}, echosession.WithSubject(name))
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, echo.Map{"token": token})
	}))
	e.GET("/me", sessions.With(func(c echo.Context, sess *session) error {
		return c.JSON(http.StatusOK, sess)
	}), sessions.Require())
	e.POST("/visit", sessions.With(func(c echo.Context, sess *session) error {
		err := sess.Update(c.Request().Context(), func(v *Visitor) error {
			v.Visits++
			return nil
		})
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, sess)
	}), sessions.Require())
	e.POST("/logout", sessions.With(func(c echo.Context, sess *session) error {
		if err := sess.Destroy(c.Request().Context()); err != nil {
			return err
		}
		return c.NoContent(http.StatusNoContent)
	}))
	return e, nil
}
