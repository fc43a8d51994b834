package main

import (
	"context"
	"testing"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/otelsession"
)

// With the memory store, what is left is the package's own work: the token, the
// record's codec and the bookkeeping around them.

func BenchmarkOpen(b *testing.B) {
	b.Run("alone", func(b *testing.B) { benchmarkOpen(b, echosession.Config{}) })
	b.Run("told", func(b *testing.B) {
		benchmarkOpen(b, echosession.Config{OnEvent: func(context.Context, echosession.Event) {}})
	})
	b.Run("counted", func(b *testing.B) {
		provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))
		benchmarkOpen(b, otelsession.Observe(echosession.Config{}, otelsession.WithMeterProvider(provider)))
	})
}

func benchmarkOpen(b *testing.B, cfg echosession.Config) {
	m, token := inMemory(b, cfg)
	b.ReportAllocs()
	for b.Loop() {
		sess, err := m.Open(b.Context(), token)
		if err != nil {
			b.Fatal(err)
		}
		if u := sess.Data(); u.ID != "user" {
			b.Fatalf("opened the session of %q", u.ID)
		}
	}
}

func BenchmarkUpdate(b *testing.B) {
	m, token := inMemory(b, echosession.Config{})
	sess, err := m.Open(b.Context(), token)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		err := sess.Update(b.Context(), func(u *User) error {
			u.Visits++
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

func inMemory(b *testing.B, cfg echosession.Config) (m *echosession.Manager[User], token string) {
	b.Helper()
	cfg.Store, cfg.Secret = echosession.NewMemoryStore(), secret
	m, err := echosession.New[User](cfg)
	if err != nil {
		b.Fatal(err)
	}
	sess, err := m.Create(b.Context(), newUser("user"))
	if err != nil {
		b.Fatal(err)
	}
	return m, sess.Token()
}
