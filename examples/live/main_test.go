package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"github.com/echosession/echosession"
)

// A game is a server of games, with the Manager of its sessions, a clock that only tests
// move, and the token of a session.
type game struct {
	address  string
	sessions *echosession.Manager[Player]
	passed   *atomic.Int64 // since the game began
	token    string
}

func newTestGame(t *testing.T) game {
	began, passed := time.Now(), new(atomic.Int64)
	clock := func() time.Time { return began.Add(time.Duration(passed.Load())) }
	cfg := echosession.Config{
		Store:  echosession.NewMemoryStore(echosession.WithClock(clock)),
		Secret: bytes.Repeat([]byte("s"), 32),
		Now:    clock,
	}
	sessions, err := echosession.New[Player](cfg)
	if err != nil {
		t.Fatal(err)
	}
	e, err := newGame(cfg, 5*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(e)
	t.Cleanup(server.Close)

	resp, err := http.PostForm(server.URL+"/login", url.Values{"name": {"Ada"}})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct{ Token string }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return game{server.URL, sessions, passed, answer.Token}
}

// events opens the stream of events. await reads on to a line.
func (g game) events(t *testing.T) (resp *http.Response, events *bufio.Reader, await func(want string)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, g.address+"/events?accessToken="+g.token, nil)
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

// dial opens a WebSocket and sends its first message.
func (g game) dial(t *testing.T, first string) *websocket.Conn {
	t.Helper()
	ws, err := websocket.Dial("ws"+strings.TrimPrefix(g.address, "http")+"/play", "", g.address)
	if err == nil {
		t.Cleanup(func() { ws.Close() })
		err = ws.SetDeadline(time.Now().Add(10 * time.Second))
	}
	if err == nil {
		err = websocket.Message.Send(ws, first)
	}
	if err != nil {
		t.Fatal(err)
	}
	return ws
}

// end destroys the session, as a logout on another machine does.
func (g game) end(t *testing.T) {
	t.Helper()
	sess, err := g.sessions.Open(t.Context(), g.token)
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
		t.Errorf("Cache-Control of an answer to a token in the query: %q", got)
	}
	await("data: 0")
	if err := websocket.Message.Send(g.dial(t, g.token), "7"); err != nil {
		t.Fatal(err)
	}
	await("data: 7")
	g.end(t)
	if _, err := io.Copy(io.Discard, events); err != nil {
		t.Errorf("the stream does not end with the session: %v", err)
	}
}

// A page that stays open keeps its stream, and the stream keeps no session alive.
func TestEventsDoNotProlongTheSession(t *testing.T) {
	g := newTestGame(t)
	_, events, await := g.events(t)
	for range 2 {
		await("data: 0")
		g.passed.Add(int64(11 * time.Hour))
	}
	for range 2 { // the second was sent after the clock had moved
		await("data: 0")
	}
	g.passed.Add(int64(3 * time.Hour)) // 25 hours after the login; the idle timeout is 24
	if _, err := io.Copy(io.Discard, events); err != nil {
		t.Errorf("the stream does not end with the session: %v", err)
	}
	sess, err := g.sessions.Open(t.Context(), g.token)
	if err != nil || sess.Exists() {
		t.Errorf("after the idle timeout: %v, %v", sess.Reason(), err)
	}
}

func TestPlay(t *testing.T) {
	g := newTestGame(t)
	expect := func(ws *websocket.Conn, want string) {
		t.Helper()
		var got string
		if err := websocket.Message.Receive(ws, &got); err != nil || got != want {
			t.Fatalf("received %s (%v), not %s", got, err, want)
		}
	}
	send := func(ws *websocket.Conn, points string) {
		t.Helper()
		if err := websocket.Message.Send(ws, points); err != nil {
			t.Fatal(err)
		}
	}

	expect(g.dial(t, "no token"), `{"error":"log in again"}`)
	ws := g.dial(t, g.token)
	send(ws, "2")
	expect(ws, `{"name":"Ada","score":2}`)
	send(ws, "3")
	expect(ws, `{"name":"Ada","score":5}`)
	g.end(t)
	send(ws, "1")
	expect(ws, `{"error":"log in again"}`)
}
