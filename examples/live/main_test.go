package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"github.com/echosession/echosession/echosessiontest"
)

// A testGame is a game that runs, with the token of a session.
type testGame struct {
	*echosessiontest.Harness[Player]
	game    *game
	address string
	token   string
}

func newTestGame(t *testing.T) testGame {
	h := echosessiontest.New[Player](t)
	g, err := newGame(h.Config(), 5*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	g.HideBanner, g.HidePort = true, true
	if g.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	go func() { over <- g.Start("") }()
	t.Cleanup(func() {
		stop(t, g)
		if err := <-over; err != http.ErrServerClosed {
			t.Errorf("the server ends with %v", err)
		}
	})
	test := testGame{h, g, "http://" + g.Listener.Addr().String(), ""}
	test.token = test.answer(t, test.post(t, "/login", url.Values{"name": {"Ada"}}), http.StatusOK)["token"]
	return test
}

func stop(t *testing.T, g *game) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := g.stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// post sends a form with the token.
func (g testGame) post(t *testing.T, path string, form url.Values) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.address+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if g.token != "" {
		r.Header.Set("Authorization", "Bearer "+g.token)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// answer reads an answer with this status.
func (g testGame) answer(t *testing.T, resp *http.Response, status int) (answer map[string]string) {
	t.Helper()
	if resp.StatusCode != status {
		t.Fatalf("%s is answered with %s", resp.Request.URL.Path, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

func (g testGame) ticket(t *testing.T) string {
	t.Helper()
	return g.answer(t, g.post(t, "/ticket", nil), http.StatusOK)["ticket"]
}

// events opens the stream of events with a new ticket, as the page does. await reads on to a
// line.
func (g testGame) events(t *testing.T) (resp *http.Response, events *bufio.Reader, await func(want string)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, g.address+"/events?ticket="+g.ticket(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err = http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	events = bufio.NewReader(resp.Body)
	return resp, events, func(want string) {
		t.Helper()
		for {
			line, err := events.ReadString('\n')
			if err != nil {
				t.Fatalf("no event %q: %v", want, err)
			}
			if line == want+"\n" {
				return
			}
		}
	}
}

// rest returns the end of a stream after its last number.
func rest(t *testing.T, events *bufio.Reader) string {
	t.Helper()
	all, err := io.ReadAll(events)
	if err != nil {
		t.Errorf("the stream does not end with the session: %v", err)
	}
	_, rest, _ := strings.Cut(string(all), "event:")
	return rest
}

// A wire notes what the server sends.
type wire struct {
	net.Conn
	received bytes.Buffer
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	w.received.Write(p[:n])
	return n, err
}

// closeCode reads on to the end of the connection, and returns the status of the close frame
// that the server sent first.
func (w *wire) closeCode(t *testing.T, ws *websocket.Conn) int {
	t.Helper()
	if n, err := io.Copy(io.Discard, ws); n > 0 || err != nil {
		t.Errorf("before the end there are %d bytes: %v", n, err)
	}
	_, code, ok := bytes.Cut(w.received.Bytes(), []byte{0x88, 2})
	if !ok || len(code) < 2 {
		t.Fatalf("there is no close frame in %q", w.received.Bytes())
	}
	return int(binary.BigEndian.Uint16(code))
}

// dial opens a WebSocket and sends its first message.
func (g testGame) dial(t *testing.T, first string) (*websocket.Conn, *wire) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.address, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	w := &wire{Conn: conn}
	cfg, err := websocket.NewConfig("ws"+strings.TrimPrefix(g.address, "http")+"/play", g.address)
	if err != nil {
		t.Fatal(err)
	}
	ws, err := websocket.NewClient(cfg, w)
	if err == nil {
		err = ws.SetDeadline(time.Now().Add(10 * time.Second))
	}
	if err == nil {
		err = websocket.Message.Send(ws, first)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.received.Reset()
	return ws, w
}

func send1(t *testing.T, ws *websocket.Conn, points string) {
	t.Helper()
	if err := websocket.Message.Send(ws, points); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, ws *websocket.Conn, want string) {
	t.Helper()
	var got string
	if err := websocket.Message.Receive(ws, &got); err != nil || got != want {
		t.Fatalf("received %s (%v), not %s", got, err, want)
	}
}

// end destroys the session, as a logout on another machine does.
func (g testGame) end(t *testing.T) {
	t.Helper()
	sess, err := g.Manager.Open(t.Context(), g.token)
	if err == nil {
		err = sess.Destroy(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestEventsFollowTheSession(t *testing.T) {
	g := newTestGame(t)
	resp, events, await := g.events(t)
	if got := resp.Header.Get("Cache-Control"); got != "private, no-store" {
		t.Errorf("Cache-Control of an answer to a ticket in the query: %q", got)
	}
	await("data: 0")
	ws, _ := g.dial(t, g.token)
	send1(t, ws, "7")
	await("data: 7")
	g.end(t)
	if got := rest(t, events); got != " ended\ndata:\n\n" {
		t.Errorf("the stream ends with %q", got)
	}
}

// A page that stays open keeps its stream, and the stream keeps no session alive.
func TestEventsDoNotProlongTheSession(t *testing.T) {
	g := newTestGame(t)
	_, events, await := g.events(t)
	for range 2 {
		await("data: 0")
		g.Clock.Advance(11 * time.Hour)
	}
	for range 2 { // the second was sent after the clock had moved
		await("data: 0")
	}
	g.Clock.Advance(3 * time.Hour) // 25 hours after the login; the idle timeout is 24
	if got := rest(t, events); got != " ended\ndata:\n\n" {
		t.Errorf("the stream ends with %q", got)
	}
	sess, err := g.Manager.Open(t.Context(), g.token)
	if err != nil || sess.Exists() {
		t.Errorf("after the idle timeout: %v, %v", sess.Reason(), err)
	}
}

// Each connection takes a ticket of its own, and a session that has ended gets none.
func TestTickets(t *testing.T) {
	g := newTestGame(t)
	resp, _, await := g.events(t)
	await("data: 0")
	for _, ticket := range []string{resp.Request.URL.Query().Get("ticket"), "", "x", g.token} {
		again, err := http.Get(g.address + "/events?ticket=" + ticket)
		if err != nil {
			t.Fatal(err)
		}
		again.Body.Close()
		if again.StatusCode != http.StatusUnauthorized {
			t.Errorf("the ticket %q is answered with %s", ticket, again.Status)
		}
	}
	_, _, await = g.events(t)
	await("data: 0")
	if resp := g.post(t, "/logout", nil); resp.StatusCode != http.StatusNoContent {
		t.Errorf("the logout is answered with %s", resp.Status)
	}
	if resp := g.post(t, "/ticket", nil); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("after the logout a ticket is asked for and answered with %s", resp.Status)
	}
}

func TestPlay(t *testing.T) {
	g := newTestGame(t)
	ws, _ := g.dial(t, "no token")
	expect(t, ws, `{"error":"log in again"}`)
	ws, w := g.dial(t, g.token)
	send1(t, ws, "2")
	expect(t, ws, `{"name":"Ada","score":2}`)
	send1(t, ws, "3")
	expect(t, ws, `{"name":"Ada","score":5}`)
	g.end(t)
	if got := w.closeCode(t, ws); got != policyViolation {
		t.Errorf("the WebSocket is closed with %d, not with %d", got, policyViolation)
	}
	ws, w = g.dial(t, g.token)
	if got := w.closeCode(t, ws); got != policyViolation {
		t.Errorf("a WebSocket after the end is closed with %d, not with %d", got, policyViolation)
	}
}

// An outage of the store is no logout.
func TestPlayInAnOutage(t *testing.T) {
	g := newTestGame(t)
	_, _, await := g.events(t)
	ws, _ := g.dial(t, g.token)
	send1(t, ws, "2")
	expect(t, ws, `{"name":"Ada","score":2}`)
	g.Store.Fail(nil)
	send1(t, ws, "3")
	expect(t, ws, `{"error":"try again later"}`)
	g.Store.Restore()
	ws, _ = g.dial(t, g.token)
	send1(t, ws, "3")
	expect(t, ws, `{"name":"Ada","score":5}`)
	await("data: 5") // on the stream from before
}

// When the server stops, the clients learn that they may connect again.
func TestStop(t *testing.T) {
	g := newTestGame(t)
	_, events, await := g.events(t)
	await("data: 0")
	ws, w := g.dial(t, g.token)
	send1(t, ws, "2")
	expect(t, ws, `{"name":"Ada","score":2}`)
	stop(t, g.game)
	if got := rest(t, events); got != "" {
		t.Errorf("the stream ends with the event %q", got)
	}
	if got := w.closeCode(t, ws); got != goingAway {
		t.Errorf("the WebSocket is closed with %d, not with %d", got, goingAway)
	}
	if sess, err := g.Manager.Open(t.Context(), g.token); err != nil || !sess.Exists() {
		t.Errorf("the session has ended: %v, %v", sess.Reason(), err)
	}
}

// The page uses what the server offers.
func TestPage(t *testing.T) {
	g := newTestGame(t)
	resp, err := http.Get(g.address)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("the page is answered with %s: %v", resp.Status, err)
	}
	known := make(map[string]bool)
	for _, route := range g.game.Routes() {
		known[route.Path] = true
	}
	for _, path := range []string{"/login", "/logout", "/ticket", "/events", "/play"} {
		if !bytes.Contains(body, []byte(`"`+path)) || !known[path] {
			t.Errorf("the page or the server does not know %s", path)
		}
	}
}
