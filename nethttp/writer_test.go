package nethttp_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/nethttp"
)

// A plainWriter can only write.
type plainWriter struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *plainWriter) Header() http.Header         { return w.header }
func (w *plainWriter) WriteHeader(status int)      { w.status = status }
func (w *plainWriter) Write(p []byte) (int, error) { return w.body.Write(p) }

// A fullWriter can do everything.
type fullWriter struct {
	plainWriter
	flushed, hijacked, readFrom int
}

func (w *fullWriter) FlushError() error { w.flushed++; return nil }
func (w *fullWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.hijacked++
	return nil, nil, nil
}
func (w *fullWriter) ReadFrom(r io.Reader) (int64, error) {
	w.readFrom++
	return io.Copy(&w.plainWriter, r)
}

// visibleWriter hides what the writer behind it can do, but shows it by Unwrap.
type visibleWriter struct{ w http.ResponseWriter }

func (v visibleWriter) Header() http.Header         { return v.w.Header() }
func (v visibleWriter) Write(p []byte) (int, error) { return v.w.Write(p) }
func (v visibleWriter) WriteHeader(status int)      { v.w.WriteHeader(status) }
func (v visibleWriter) Unwrap() http.ResponseWriter { return v.w }

// writing answers a request, on w, with a handler that gets its session.
func writing(t *testing.T, w http.ResponseWriter, handle func(w http.ResponseWriter, sess *echosession.Session[User])) {
	t.Helper()
	nethttp.Middleware(newManager(t, newConfig()))(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sess, err := nethttp.Get[User](r)
		if err != nil {
			t.Fatal(err)
		}
		handle(w, sess)
	})).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", nil))
}

// checkOver checks whether it is too late for a cookie.
func checkOver(t *testing.T, sess *echosession.Session[User], want bool) {
	t.Helper()
	if _, err := sess.Create(t.Context(), User{"Ada"}); errors.Is(err, echosession.ErrRequestOver) != want || !want && err != nil {
		t.Errorf("Create: %v", err)
	}
}

func TestFlush(t *testing.T) {
	for _, tt := range []struct {
		name  string
		flush func(http.ResponseWriter) error
	}{
		{"Flusher", func(w http.ResponseWriter) error { w.(http.Flusher).Flush(); return nil }},
		{"ResponseController", func(w http.ResponseWriter) error { return http.NewResponseController(w).Flush() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			full := &fullWriter{plainWriter: plainWriter{header: http.Header{}}}
			writing(t, full, func(w http.ResponseWriter, sess *echosession.Session[User]) {
				checkOver(t, sess, false)
				w.Header().Set("Cache-Control", "public")
				if err := tt.flush(w); err != nil || full.flushed != 1 {
					t.Errorf("%v; flushed %d times", err, full.flushed)
				}
				if got := w.Header().Get("Cache-Control"); got != "private, no-store" {
					t.Errorf("Cache-Control: %s", got)
				}
				checkOver(t, sess, true)
			})
			writing(t, visibleWriter{full}, func(w http.ResponseWriter, sess *echosession.Session[User]) {
				if err := tt.flush(w); err != nil || full.flushed != 2 {
					t.Errorf("through a writer with Unwrap: %v; flushed %d times", err, full.flushed)
				}
				checkOver(t, sess, true)
			})
		})
	}
	t.Run("unsupported", func(t *testing.T) {
		plain := &plainWriter{header: http.Header{}}
		writing(t, plain, func(w http.ResponseWriter, sess *echosession.Session[User]) {
			checkOver(t, sess, false)
			if err := http.NewResponseController(w).Flush(); !errors.Is(err, http.ErrNotSupported) {
				t.Errorf("Flush: %v", err)
			}
			w.(http.Flusher).Flush()
			checkOver(t, sess, false)
			w.Header().Set("Cache-Control", "public")
			w.WriteHeader(http.StatusNoContent)
			if got := w.Header().Get("Cache-Control"); got != "private, no-store" {
				t.Errorf("Cache-Control: %s", got)
			}
			checkOver(t, sess, true)
		})
	})
}

func TestHijack(t *testing.T) {
	full := &fullWriter{plainWriter: plainWriter{header: http.Header{}}}
	writing(t, visibleWriter{full}, func(w http.ResponseWriter, sess *echosession.Session[User]) {
		if _, _, err := w.(http.Hijacker).Hijack(); err != nil || full.hijacked != 1 {
			t.Errorf("%v; hijacked %d times", err, full.hijacked)
		}
		checkOver(t, sess, true)
	})
	writing(t, &plainWriter{header: http.Header{}}, func(w http.ResponseWriter, sess *echosession.Session[User]) {
		if _, _, err := http.NewResponseController(w).Hijack(); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("unsupported: %v", err)
		}
		checkOver(t, sess, false)
	})
}

func TestReadFrom(t *testing.T) {
	full := &fullWriter{plainWriter: plainWriter{header: http.Header{}}}
	writing(t, full, func(w http.ResponseWriter, sess *echosession.Session[User]) {
		checkOver(t, sess, false)
		w.Header().Set("Cache-Control", "public")
		// A reader without WriteTo, as a file behind a LimitReader is.
		n, err := io.Copy(w, io.LimitReader(bytes.NewReader([]byte("hello")), 5))
		if n != 5 || err != nil || full.readFrom != 1 || full.body.String() != "hello" {
			t.Errorf("%d, %v; ReadFrom called %d times", n, err, full.readFrom)
		}
		if got := w.Header().Get("Cache-Control"); got != "private, no-store" {
			t.Errorf("Cache-Control: %s", got)
		}
		checkOver(t, sess, true)
	})
	writing(t, full, func(w http.ResponseWriter, sess *echosession.Session[User]) {
		if n, err := io.Copy(w, io.LimitReader(bytes.NewReader(nil), 5)); n != 0 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		checkOver(t, sess, false) // nothing was written
	})
	t.Run("unsupported", func(t *testing.T) {
		plain := &plainWriter{header: http.Header{}}
		writing(t, plain, func(w http.ResponseWriter, sess *echosession.Session[User]) {
			if n, err := io.Copy(w, io.LimitReader(bytes.NewReader([]byte("hello")), 5)); n != 5 || err != nil || plain.body.String() != "hello" {
				t.Errorf("%d, %v, %q", n, err, plain.body.String())
			}
			checkOver(t, sess, true)
		})
	})
}

func TestInformationalHeaders(t *testing.T) {
	for _, tt := range []struct {
		status int
		over   bool
	}{
		{http.StatusContinue, false},
		{http.StatusProcessing, false},
		{http.StatusEarlyHints, false},
		{http.StatusSwitchingProtocols, true},
		{http.StatusOK, true},
	} {
		plain := &plainWriter{header: http.Header{}}
		writing(t, plain, func(w http.ResponseWriter, sess *echosession.Session[User]) {
			w.WriteHeader(tt.status)
			checkOver(t, sess, tt.over)
		})
		if plain.status != tt.status {
			t.Errorf("status %d became %d", tt.status, plain.status)
		}
	}
}

// The writer works on a real server: it sends a file, and shows the server's own
// writer to a ResponseController.
func TestServeFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	want := bytes.Repeat([]byte("0123456789"), 1<<17)
	if err := os.WriteFile(file, want, 0o600); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(nethttp.Middleware(newManager(t, newConfig()))(
		nethttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			sess, err := nethttp.Get[User](r)
			if err != nil {
				return err
			}
			if _, err := sess.Create(r.Context(), User{"Ada"}); err != nil {
				return err
			}
			if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
				return err
			}
			w.Header().Set("Cache-Control", "public")
			http.ServeFile(w, r, file)
			return nil
		})))
	defer server.Close()
	got, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	body, err := io.ReadAll(got.Body)
	if err != nil || !bytes.Equal(body, want) {
		t.Errorf("%d bytes, %v", len(body), err)
	}
	if got.StatusCode != 200 || len(got.Cookies()) != 1 || got.Header.Get("Cache-Control") != "private, no-store" {
		t.Errorf("%d %v", got.StatusCode, got.Header)
	}
}
