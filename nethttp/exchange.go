package nethttp

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
)

// An exchange shows a request and its ResponseWriter as an Exchange, and is the
// ResponseWriter that the handler gets: it sees when the header is sent.
type exchange struct {
	http.ResponseWriter
	request   atomic.Pointer[http.Request] // that of the first Get
	committed bool
	before    []func()
}

func (x *exchange) Request() *http.Request      { return x.request.Load() }
func (x *exchange) Param(name string) string    { return x.Request().PathValue(name) }
func (x *exchange) Committed() bool             { return x.committed }
func (x *exchange) BeforeHeader(f func())       { x.before = append(x.before, f) }
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// behind reports whether w writes to x.
func (x *exchange) behind(w http.ResponseWriter) bool {
	for {
		if w == http.ResponseWriter(x) {
			return true
		}
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return false
		}
		w = u.Unwrap()
	}
}

// commit runs just before the header is sent.
func (x *exchange) commit() {
	if x.committed {
		return
	}
	x.committed = true
	for _, f := range x.before {
		f()
	}
}

// WriteHeader implements [http.ResponseWriter]. An informational header (1xx) is
// not that of the answer, but for 101, after which no other comes.
func (x *exchange) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		x.commit()
	}
	x.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (x *exchange) Write(p []byte) (int, error) {
	x.commit()
	return x.ResponseWriter.Write(p)
}

// ReadFrom implements [io.ReaderFrom], so that the server can send a file without
// copying it through the program.
func (x *exchange) ReadFrom(r io.Reader) (int64, error) {
	sent := x.committed
	x.commit()
	n, err := io.Copy(x.ResponseWriter, r)
	if n == 0 {
		x.committed = sent // nothing was written, so no header either
	}
	return n, err
}

// FlushError sends what is buffered, the header first. [http.ResponseController]
// calls it.
func (x *exchange) FlushError() error {
	sent := x.committed
	x.commit()
	err := http.NewResponseController(x.ResponseWriter).Flush()
	if errors.Is(err, http.ErrNotSupported) {
		x.committed = sent
	}
	return err
}

// Flush implements [http.Flusher].
func (x *exchange) Flush() { _ = x.FlushError() }

// Hijack implements [http.Hijacker]. No header follows it.
func (x *exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(x.ResponseWriter).Hijack()
	if err == nil {
		x.committed = true
	}
	return conn, rw, err
}
