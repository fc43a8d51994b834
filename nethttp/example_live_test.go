package nethttp_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/echosessiontest"
	"github.com/echosession/echosession/nethttp"
)

// clock is a stream of server-sent events that ends with its session.
func clock(w http.ResponseWriter, r *http.Request, sess *echosession.Session[Visitor]) error {
	ctx, stop := sess.Watch(r.Context())
	defer stop()
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

func TestStreamsEnd(t *testing.T) {
	h := echosessiontest.New[Visitor](t)
	sessions := h.Manager
	mux := http.NewServeMux()
	mux.Handle("GET /clock", nethttp.Require(sessions)(nethttp.With(sessions, clock)))
	site := httptest.NewUnstartedServer(nethttp.Middleware(sessions)(mux))
	server := site.Config
	server.RegisterOnShutdown(func() { sessions.Close() })
	site.Start()
	defer site.CloseClientConnections()
	site.Client().Timeout = 10 * time.Second

	for _, tt := range []struct {
		name string
		end  func(*echosession.Session[Visitor]) error
	}{
		{"a logout", func(sess *echosession.Session[Visitor]) error { return sess.Destroy(t.Context()) }},
		{"the idle timeout", func(*echosession.Session[Visitor]) error { h.Clock.Advance(24 * time.Hour); return nil }},
		{"Shutdown", func(*echosession.Session[Visitor]) error {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			return server.Shutdown(ctx)
		}},
	} {
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, site.URL+"/clock", nil)
		sess := h.Login(r, Visitor{Name: "Ada"})
		stream, err := site.Client().Do(r) // returns when the stream has begun
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
