package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/echosession/echosession"
)

// At a terminal revoke waits for an answer, and Ctrl-C is one.
func TestRevokeAsksATerminal(t *testing.T) {
	t.Parallel()
	command := buildCommand(t)
	p := onShared(t, echosession.Config{})
	for _, tt := range []struct {
		name, keys, text string
		code             int
		live             bool
	}{
		{"yes", "y\n", "Revoked 1 session.", exitOK, false},
		{"no", "n\n", "Nothing was revoked.", exitWarning, true},
		{"Return", "\n", "Nothing was revoked.", exitWarning, true},
		{"Ctrl-D", "\x04", "Nothing was revoked.", exitWarning, true},
		{"Ctrl-C", "\x03", "echosession revoke: interrupted", exitUnknown, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			sess := p.login(t, "ada")
			term := newTerminal(t, 90)
			ended := term.start(command, "revoke", "-keyspace", p.keyspace, sess.ID(), p.url)
			term.await(`\[y/N\] $`)
			if !isLive(t, sess) {
				t.Fatal("it was revoked before anybody answered")
			}
			if _, err := term.master.WriteString(tt.keys); err != nil {
				t.Fatal(err)
			}
			if code := term.end(ended, 10*time.Second); code != tt.code || !strings.Contains(term.text(), tt.text) {
				t.Errorf("it ended with %d and wrote %q", code, term.text())
			}
			if isLive(t, sess) != tt.live {
				t.Errorf("the session is live: %v", !tt.live)
			}
		})
	}
}

// The standard input of a cron job is a device too, and nobody answers there.
func TestRevokeDoesNotAskTheNullDevice(t *testing.T) {
	t.Parallel()
	p := onShared(t, echosession.Config{})
	sess := p.login(t, "ada")
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	invoke(t, environment{stdin: null}, "revoke", "-keyspace", p.keyspace, sess.ID(), p.url).wants(t, exitUnknown, "there is no terminal to ask: use -yes")
	if !isLive(t, sess) {
		t.Error("it was revoked")
	}
}

// Ctrl-C ends the command while it waits for a token.
func TestTokenAtATerminal(t *testing.T) {
	t.Parallel()
	command := buildCommand(t)
	term := newTerminal(t, 90)
	ended := term.start(command, "token")
	term.await("Paste the token")
	if _, err := term.master.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	if code := term.end(ended, 10*time.Second); code != exitUnknown || !strings.Contains(term.text(), "echosession token: interrupted") {
		t.Errorf("it ended with %d and wrote %q", code, term.text())
	}
}

// The program itself reads its environment and its standard input, ends with the exit code,
// and keeps what go-redis logs to itself.
func TestTheProgram(t *testing.T) {
	t.Parallel()
	command := buildCommand(t)
	p := onShared(t, echosession.Config{})
	sess := p.login(t, "ada")
	for _, tt := range []struct {
		args, vars     []string
		code           int
		stdout, stderr string
	}{
		{[]string{"list", "-keyspace", p.keyspace}, []string{urlVariable + "=" + p.url}, exitOK, sess.ID(), "1 session\n"},
		{[]string{"token"}, nil, exitOK, sess.ID(), ""},
		{[]string{"list", "redis://127.0.0.1:1"}, nil, exitUnknown, "", "echosession list: no connection to Redis: dial tcp 127.0.0.1:1: connect: connection refused; is Redis running there?\n"},
	} {
		cmd := exec.Command(command, tt.args...)
		var stdout, stderr bytes.Buffer
		cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = append(os.Environ(), tt.vars...), strings.NewReader(sess.Token()), &stdout, &stderr
		_ = cmd.Run()
		if cmd.ProcessState.ExitCode() != tt.code || !strings.Contains(stdout.String(), tt.stdout) || stderr.String() != tt.stderr {
			t.Errorf("%q: %d\n%s\n%s", tt.args, cmd.ProcessState.ExitCode(), &stdout, &stderr)
		}
	}
}
