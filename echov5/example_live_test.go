package echov5_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v5"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/echosessiontest"
	"github.com/echosession/echosession/echov5"
)

// clock is a stream of server-sent events that ends with its session.
func clock(c *echo.Context, sess *echosession.Session[Visitor]) error {
	ctx, stop := sess.Watch(c.Request().Context())
	defer stop()
	w := c.Response()
	w.Header().Set("Content-Type", "text/event-stream")
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		if _, err := fmt.Fprintf(w, "data: %s\n\n", time.Now().Format(time.TimeOnly)); err != nil {
			return err
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil // context.Cause(ctx) tells why
		case <-ticker.C:
		}
	}
}

// serve serves until ctx is done. Then it ends the streams and the server.
func serve(ctx context.Context, e *echo.Echo, sessions *echosession.Manager[Visitor], listener net.Listener) error {
	start := echo.StartConfig{
		Listener: listener,
		BeforeServeFunc: func(server *http.Server) error {
			server.RegisterOnShutdown(func() { sessions.Close() })
			return nil
		},
	}
	return start.Start(ctx, e)
}

func TestStreamsEnd(t *testing.T) {
	h := echosessiontest.New[Visitor](t)
	e := echo.New()
	e.Use(echov5.Install(h.Manager))
	e.GET("/clock", echov5.With(clock), echov5.Require[Visitor]())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, shutdown := context.WithCancel(t.Context())
	defer shutdown()
	served := make(chan error, 1)
	go func() { served <- serve(ctx, e, h.Manager, listener) }()

	client := http.Client{Timeout: 20 * time.Second}
	for _, tt := range []struct {
		name string
		end  func(*echosession.Session[Visitor]) error
	}{
		{"a logout", func(sess *echosession.Session[Visitor]) error { return sess.Destroy(t.Context()) }},
		{"the idle timeout", func(*echosession.Session[Visitor]) error { h.Clock.Advance(24 * time.Hour); return nil }},
		{"the end of the program", func(*echosession.Session[Visitor]) error { shutdown(); return <-served }},
	} {
		r, _ := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+listener.Addr().String()+"/clock", nil)
		sess := h.Login(r, Visitor{Name: "Ada"})
		stream, err := client.Do(r) // returns when the stream has begun
		if err != nil {
			t.Fatal(err)
		}
		if err := tt.end(sess); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		body, err := io.ReadAll(stream.Body)
		if stream.Body.Close(); err != nil || !strings.HasPrefix(string(body), "data: ") {
			t.Errorf("%s ends the stream %q with %v", tt.name, body, err)
		}
	}
}
