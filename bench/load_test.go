package main

import (
	"bufio"
	"strings"
	"testing"
	"testing/iotest"
)

func TestAnswer(t *testing.T) {
	tests := []struct {
		rule   string
		wire   string
		status int
		cookie string
		body   string
		fails  bool
	}{
		{
			rule:   "the body has the declared length",
			wire:   "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, world",
			status: 200, body: "hello",
		},
		{
			rule:   "header names are case-insensitive",
			wire:   "HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\nset-cookie: a=b\r\n\r\nno",
			status: 401, cookie: "a=b", body: "no",
		},
		{
			rule:   "a cookie's attributes are left out",
			wire:   "HTTP/1.1 200 OK\r\nSet-Cookie: session=x=y; Path=/; HttpOnly\r\nContent-Length: 0\r\n\r\n",
			status: 200, cookie: "session=x=y",
		},
		{rule: "an answer without a length is refused", wire: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", fails: true},
		{rule: "a short body is refused", wire: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", fails: true},
		{rule: "another protocol is refused", wire: "SMTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", fails: true},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			// As left by an earlier answer.
			ans := answer{cookie: []byte("old=cookie"), body: []byte("an old body")}
			err := ans.read(bufio.NewReader(iotest.OneByteReader(strings.NewReader(tt.wire))))
			if tt.fails {
				if err == nil {
					t.Fatalf("read %d %q", ans.status, ans.body)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if ans.status != tt.status || string(ans.cookie) != tt.cookie || string(ans.body) != tt.body {
				t.Errorf("got %d %q %q, want %d %q %q", ans.status, ans.cookie, ans.body, tt.status, tt.cookie, tt.body)
			}
		})
	}
}
