package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/echosession/echosession"
)

func TestWhen(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 24, 17, 0, 0, 0, time.UTC)
	for since, want := range map[time.Duration]string{
		0: "just now", 9999 * time.Millisecond: "just now", 10 * time.Second: "10 seconds ago", 119 * time.Second: "119 seconds ago",
		2 * time.Minute: "2 minutes ago", 119 * time.Minute: "119 minutes ago", 2 * time.Hour: "2 hours ago", 47 * time.Hour: "47 hours ago", 49 * time.Hour: "2 days ago",
		-time.Second: "in 1 second", -3 * time.Minute: "in 3 minutes", -100 * time.Hour: "in 4 days",
	} {
		if got := when(now.Add(-since), now); got != want {
			t.Errorf("%v: %q, want %q", since, got, want)
		}
	}
}

func TestColumn(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "        ", "ada": "ada     ", "12345678": "12345678", "123456789": "12345...", "éé": "éé      ", "\x1b[2J": `\u001...`, "\u202e": `\u202e  `,
	} {
		if got := column(text, 8); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// What is escaped means the same, and is no longer what a terminal obeys.
func TestEscapeControls(t *testing.T) {
	t.Parallel()
	const hostile = "\x00\x1b[2J\x7f\u0085\u009b31m\u202e\u2028\U000e0001é👋 <b>"
	line := toLine(hostile)
	var back string
	if err := json.Unmarshal([]byte(line), &back); err != nil || back != hostile {
		t.Errorf("%q, %v", back, err)
	}
	if want := `"\u0000\u001b[2J\u007f\u0085\u009b31m\u202e\u2028\udb40\udc01é👋 <b>"`; line != want {
		t.Errorf("%s, want %s", line, want)
	}
}

func TestGrouped(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1_234_567: "1,234,567", -1000: "-1,000", -999: "-999"} {
		if got := grouped(n); got != want {
			t.Errorf("%d is written %q, want %q", n, got, want)
		}
	}
}

func TestBytesOf(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{0: "0 B", 999: "999 B", 1000: "1.0 KB", 65536: "65.5 KB", 999999: "1000.0 KB", 3 << 20: "3.1 MB"} {
		if got := bytesOf(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestReasonOf(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("%w: no key", echosession.ErrCorrupt), "no key"},
		{fmt.Errorf("%w: expired", echosession.ErrInvalidToken), "expired"},
		{errors.New("another"), "another"},
	} {
		if got := reasonOf(tt.err); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}
