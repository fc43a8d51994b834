package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A view is a record as it is shown, and one object of JSON.
type view struct {
	ID              string          `json:"id,omitempty"`
	LogID           string          `json:"log_id,omitempty"`
	Subject         string          `json:"subject,omitempty"`
	Device          string          `json:"device,omitempty"`
	Actor           string          `json:"actor,omitempty"`
	CreatedAt       time.Time       `json:"created_at,omitzero"`
	AuthenticatedAt time.Time       `json:"authenticated_at,omitzero"`
	LastUsedAt      time.Time       `json:"last_used_at,omitzero"`
	ExpiresAt       time.Time       `json:"expires_at,omitzero"`
	Deadline        time.Time       `json:"deadline,omitzero"`
	IdleTimeout     string          `json:"idle_timeout,omitempty"` // of its own, or "none"
	Remembered      bool            `json:"remembered,omitempty"`
	Codec           string          `json:"codec,omitempty"`
	Sealed          bool            `json:"encrypted,omitempty"`
	Size            int             `json:"size"`
	Key             string          `json:"key,omitempty"`
	Unindexed       bool            `json:"not_in_index,omitempty"`
	Unreadable      string          `json:"unreadable,omitempty"`
	Data            json.RawMessage `json:"data,omitempty"`
}

// newView shows a record, and why it cannot be read.
func newView(rec record, err error) view {
	v := view{
		ID: rec.id, Subject: rec.subject, Device: rec.device, Actor: rec.actor,
		CreatedAt: rec.createdAt, AuthenticatedAt: rec.authenticatedAt, LastUsedAt: rec.lastUsed,
		ExpiresAt: rec.expiresAt.Truncate(time.Second), Deadline: rec.deadline,
		Remembered: rec.remembered, Sealed: rec.sealed, Size: rec.size,
	}
	if rec.id != "" {
		v.LogID, v.Codec = rec.logID(), codecMsgpack
		if rec.otherCodec {
			v.Codec = codecOther
		}
	}
	switch {
	case rec.idle == noIdle:
		v.IdleTimeout = "none"
	case rec.idle > 0:
		v.IdleTimeout = rec.idle.String()
	}
	if err != nil {
		v.Unreadable = reasonOf(err)
	}
	return v
}

// The codecs, as they are called in flags and in JSON.
const (
	codecMsgpack = "msgpack"
	codecOther   = "other"
	codecAll     = "all"
)

// reasonOf returns an error of the library without the names that stand in front of it.
func reasonOf(err error) string {
	text := strings.TrimPrefix(err.Error(), "echosession: ")
	for _, prefix := range []string{"the session record cannot be read: ", "invalid token: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return text
}

// toLine encodes v as JSON on one line. No byte of it moves the cursor of a terminal.
func toLine(v any) string {
	var text strings.Builder
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return `{"error":"it cannot be shown as JSON"}`
	}
	return escapeControls(strings.TrimSuffix(text.String(), "\n"))
}

// toBlock is toLine for people.
func toBlock(v any) string {
	var text strings.Builder
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return `{"error":"it cannot be shown as JSON"}`
	}
	return escapeControls(strings.TrimSuffix(text.String(), "\n"))
}

// escapeControls escapes in JSON what encoding/json leaves: the control characters of eight
// bits, and what turns the direction of writing.
func escapeControls(text string) string {
	return escape(text, func(r rune) bool { return r >= 0x7f && !unicode.IsPrint(r) })
}

// printable is text that clients can make up, with what is no letter, sign or space escaped.
func printable(text string) string {
	return escape(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

func escape(text string, bad func(rune) bool) string {
	if strings.IndexFunc(text, bad) < 0 && utf8.ValidString(text) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		switch {
		case !bad(r):
			b.WriteRune(r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			high, low := (r-0x10000)>>10+0xd800, (r-0x10000)&0x3ff+0xdc00
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		}
	}
	return b.String()
}

// column fits text into a column: longer text ends in three dots.
func column(text string, width int) string {
	runes := []rune(printable(text))
	if len(runes) > width {
		return string(runes[:width-3]) + "..."
	}
	return string(runes) + strings.Repeat(" ", width-len(runes))
}

// grouped writes a number with a comma after each three digits.
func grouped[N int | int64](n N) string {
	text := fmt.Sprint(n)
	sign := ""
	if n < 0 {
		sign, text = "-", text[1:]
	}
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return sign + text
}

// countOf returns a number with its noun, as in "1,234 keys".
func countOf[N int | int64](n N, noun string) string {
	switch {
	case n == 1:
	case strings.HasSuffix(noun, "x"):
		noun += "es"
	default:
		noun += "s"
	}
	return grouped(int64(n)) + " " + noun
}

// verb returns the form of a verb that goes with a number.
func verb[N int | int64](n N, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}

// lasting writes a length of time for a sentence, in one unit: "3 minutes".
func lasting(d time.Duration) string {
	d = d.Abs()
	for _, unit := range []struct {
		size time.Duration
		most time.Duration // from here on it is a larger unit
		name string
	}{{time.Second, 2 * time.Minute, "second"}, {time.Minute, 2 * time.Hour, "minute"}, {time.Hour, 2 * day, "hour"}} {
		if rounded := d.Round(unit.size); rounded < unit.most {
			return countOf(int64(rounded/unit.size), unit.name)
		}
	}
	return countOf(int64(d.Round(day)/day), "day")
}

const day = 24 * time.Hour

// shortTime writes a length of time in few characters, with its two largest units: "2d 3h",
// "12m 5s". Below a minute it is "1.3s", "20ms" or "71µs".
func shortTime(d time.Duration) string {
	if d < 0 {
		return "-" + shortTime(-d)
	}
	precision := time.Microsecond
	for _, limit := range []struct{ from, precision time.Duration }{
		{time.Millisecond, 100 * time.Microsecond}, {time.Second, 100 * time.Millisecond},
		{time.Minute, time.Second}, {time.Hour, time.Minute}, {day, time.Hour},
	} {
		if d >= limit.from {
			precision = limit.precision
		}
	}
	if d = d.Round(precision); d < time.Minute {
		return d.String()
	}
	var parts []string
	for _, unit := range []struct {
		size time.Duration
		name string
	}{{day, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if n := d / unit.size; n > 0 {
			parts = append(parts, fmt.Sprintf("%d%s", n, unit.name))
			d %= unit.size
		}
	}
	return strings.Join(parts, " ")
}

// sizeOf writes a number of bytes, in units of 1,024 as Redis does: "812 B", "1.2 KiB".
func sizeOf[N int | int64](bytes N) string {
	for _, unit := range []struct {
		size float64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if float64(bytes) >= unit.size {
			return fmt.Sprintf("%.1f %s", float64(bytes)/unit.size, unit.name)
		}
	}
	return grouped(bytes) + " B"
}

// when says how far a time is from now: "just now", "3 minutes ago", "in 2 hours".
func when(at, now time.Time) string {
	if age := now.Sub(at); 0 <= age && age < 10*time.Second {
		return "just now"
	}
	if at.After(now) {
		return "in " + lasting(at.Sub(now))
	}
	return lasting(now.Sub(at)) + " ago"
}
