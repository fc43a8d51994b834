package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A client is one keep-alive HTTP/1.1 connection. It knows just enough of the
// protocol to read answers by their Content-Length, so that it costs little
// beside the server that it measures.
type client struct {
	conn net.Conn
	r    *bufio.Reader
	ans  answer
}

// answer is valid until the client's next request.
type answer struct {
	status int
	cookie []byte // name=value of a Set-Cookie, empty without one
	body   []byte
}

func dial(addr string) (*client, error) {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return &client{conn: conn, r: bufio.NewReader(conn)}, nil
}

func (c *client) close() { c.conn.Close() }

// do sends a whole request and reads the answer.
func (c *client) do(request []byte) (*answer, error) {
	if _, err := c.conn.Write(request); err != nil {
		return nil, err
	}
	return &c.ans, c.ans.read(c.r)
}

var (
	contentLength = []byte("Content-Length")
	setCookie     = []byte("Set-Cookie")
)

func (a *answer) read(r *bufio.Reader) error {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if len(line) < len("HTTP/1.1 200") || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return fmt.Errorf("not a status line: %q", line)
	}
	if a.status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return fmt.Errorf("not a status line: %q", line)
	}
	length := -1
	a.cookie = a.cookie[:0]
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, contentLength):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return fmt.Errorf("bad header line %q", line)
			}
		case bytes.EqualFold(name, setCookie):
			pair, _, _ := bytes.Cut(value, []byte(";"))
			a.cookie = append(a.cookie, bytes.TrimSpace(pair)...)
		}
	}
	if length < 0 {
		return errors.New("answer without Content-Length")
	}
	if cap(a.body) < length {
		a.body = make([]byte, length)
	}
	a.body = a.body[:length]
	_, err = io.ReadFull(r, a.body)
	return err
}

// A credential is the header line that carries a token or a cookie, or "".
type credential string

// build returns the bytes of a request.
func build(method, path string, cred credential) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: bench\r\n%s", method, path, cred)
	if method == "POST" {
		b.WriteString("Content-Length: 0\r\n")
	}
	b.WriteString("\r\n")
	return []byte(b.String())
}

// login opens a session for a user.
func (c *client) login(user string) (credential, error) {
	ans, err := c.do(build("POST", "/login?user="+user, ""))
	switch {
	case err != nil:
		return "", err
	case ans.status/100 != 2:
		return "", fmt.Errorf("login answered %d: %s", ans.status, ans.body)
	case len(ans.cookie) > 0:
		return credential("Cookie: " + string(ans.cookie) + "\r\n"), nil
	case len(ans.body) > 0:
		return credential("Authorization: Bearer " + string(ans.body) + "\r\n"), nil
	}
	return "", errors.New("login answered neither a token nor a cookie")
}

// A worker sends requests over one client, each as soon as the last is answered.
type worker struct {
	*client
	next      func() []byte // the request to send
	want      []byte        // what the answer begins with
	latencies []time.Duration
	failed    int // answers that were not 2xx, or not for the right user
}

// run works until the deadline, and then until the last request is answered.
func (w *worker) run(deadline time.Time) error {
	if err := w.conn.SetDeadline(deadline.Add(10 * time.Second)); err != nil {
		return err
	}
	w.latencies, w.failed = w.latencies[:0], 0
	for begin := time.Now(); begin.Before(deadline); {
		ans, err := w.do(w.next())
		if err != nil {
			return err
		}
		end := time.Now()
		w.latencies = append(w.latencies, end.Sub(begin))
		begin = end
		if ans.status/100 != 2 || !bytes.HasPrefix(ans.body, w.want) {
			w.failed++
		}
	}
	return nil
}

// burst lets all workers run for d and returns how long that took.
func burst(workers []*worker, d time.Duration) (elapsed time.Duration, err error) {
	errs := make([]error, len(workers))
	begin := time.Now()
	var wg sync.WaitGroup
	for i, w := range workers {
		wg.Go(func() { errs[i] = w.run(begin.Add(d)) })
	}
	wg.Wait()
	return time.Since(begin), errors.Join(errs...)
}
