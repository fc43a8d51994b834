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
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"github.com/echosession/echosession"
)

// newTestGame returns the URL of a game, the Manager of its sessions and the token
// of a session.
func newTestGame(t *testing.T) (string, *echosession.Manager[Player], string) {
	cfg := echosession.Config{Store: echosession.NewMemoryStore(), Secret: bytes.Repeat([]byte("s"), 32)}
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
	return server.URL, sessions, answer.Token
}

// end destroys the session of a token, as a logout on another machine does.
func end(t *testing.T, sessions *echosession.Manager[Player], token string) {
	t.Helper()
	sess, err := sessions.Open(t.Context(), token)
	if err == nil {
		err = sess.Destroy(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestEventsFollowTheSession(t *testing.T) {
	address, sessions, token := newTestGame(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/events?accessToken="+token, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Cache-Control"); got != "private, no-store" {
		t.Errorf("Cache-Control of an answer to a token in the query: %q", got)
	}

	events := bufio.NewReader(resp.Body)
	awaitEvent := func(want string) {
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
	awaitEvent("data: 0")
	sess, err := sessions.Open(ctx, token)
	if err == nil {
		err = sess.Update(ctx, func(p *Player) error { p.Score = 7; return nil })
	}
	if err != nil {
		t.Fatal(err)
	}
	awaitEvent("data: 7")
	end(t, sessions, token)
	if _, err := io.Copy(io.Discard, events); err != nil {
		t.Errorf("the stream does not end with the session: %v", err)
	}
}

func TestPlay(t *testing.T) {
	address, sessions, token := newTestGame(t)
	dial := func(first string) *websocket.Conn {
		t.Helper()
		ws, err := websocket.Dial("ws"+strings.TrimPrefix(address, "http")+"/play", "", address)
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

	expect(dial("no token"), `{"error":"log in again"}`)
	ws := dial(token)
	send(ws, "2")
	expect(ws, `{"name":"Ada","score":2}`)
	send(ws, "3")
	expect(ws, `{"name":"Ada","score":5}`)
	end(t, sessions, token)
	send(ws, "1")
	expect(ws, `{"error":"log in again"}`)
}
