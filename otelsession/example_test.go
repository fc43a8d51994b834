package otelsession_test

import (
	"context"
	"fmt"
	"log"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/otelsession"
)

type User struct {
	Name string `json:"name"`
}

func ExampleObserve() {
	reader := sdkmetric.NewManualReader() // in a program, that of an exporter
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	sessions, err := echosession.New[User](otelsession.Observe(echosession.Config{
		Store:  echosession.NewMemoryStore(),
		Secret: []byte("32 bytes or more, from a secret!"),
	}, otelsession.WithMeterProvider(provider)))
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	for _, name := range []string{"Ada", "Grace"} {
		if _, err := sessions.Create(ctx, User{Name: name}, echosession.WithSubject(name)); err != nil {
			log.Fatal(err)
		}
	}

	var data metricdata.ResourceMetrics
	if err := reader.Collect(ctx, &data); err != nil {
		log.Fatal(err)
	}
	for _, m := range data.ScopeMetrics[0].Metrics {
		if m.Name != "echosession.sessions.created" {
			continue
		}
		for _, point := range m.Data.(metricdata.Sum[int64]).DataPoints {
			if point.Value > 0 {
				reason, _ := point.Attributes.Value("echosession.reason")
				fmt.Println(m.Name, reason.AsString(), point.Value)
			}
		}
	}
	// Output: echosession.sessions.created login 2
}
