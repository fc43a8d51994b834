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

func TestSizeOf(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1,000 B", 1023: "1,023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 65536: "64.0 KiB", 999999: "976.6 KiB", 3 << 20: "3.0 MiB", 3 << 30: "3.0 GiB",
	} {
		if got := sizeOf(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestShortTime(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0s", 71 * time.Microsecond: "71µs", 1234 * time.Microsecond: "1.2ms", 999 * time.Millisecond: "999ms", 999_960 * time.Microsecond: "1s",
		time.Second: "1s", 1260 * time.Millisecond: "1.3s", -time.Second: "-1s", 59*time.Second + 949*time.Millisecond: "59.9s", 59*time.Second + 999*time.Millisecond: "1m",
		time.Minute: "1m", 61 * time.Second: "1m 1s", 90 * time.Second: "1m 30s", time.Hour - time.Millisecond: "1h", time.Hour: "1h",
		time.Hour + 29*time.Second: "1h", time.Hour + 59*time.Second: "1h 1m", 5*time.Hour + 20*time.Second: "5h", 24*time.Hour - time.Second: "1d",
		26*time.Hour + time.Minute: "1d 2h", 49 * time.Hour: "2d 1h", 400 * day: "400d",
	} {
		if got := shortTime(d); got != want {
			t.Errorf("%v is written %q, want %q", d, got, want)
		}
	}
}

// The time that is left of a session of 24 hours is 24 hours, and not 23.
func TestLasting(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0 seconds", 1499 * time.Millisecond: "1 second", 1500 * time.Millisecond: "2 seconds", 119_499 * time.Millisecond: "119 seconds",
		119_500 * time.Millisecond: "2 minutes", 149 * time.Second: "2 minutes", 150 * time.Second: "3 minutes", 2*time.Hour - 31*time.Second: "119 minutes",
		2*time.Hour - 30*time.Second: "2 hours", 150*time.Minute - time.Millisecond: "2 hours", 24*time.Hour - time.Millisecond: "24 hours",
		-23*time.Hour - 40*time.Minute: "24 hours", 48*time.Hour - 31*time.Minute: "47 hours", 48*time.Hour - time.Minute: "2 days", 30*day - time.Second: "30 days", 2000 * day: "2,000 days",
	} {
		if got := lasting(d); got != want {
			t.Errorf("%v is written %q, want %q", d, got, want)
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
