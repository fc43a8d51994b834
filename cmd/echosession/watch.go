package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/echosession/echosession"
)

var watchCommand = command{
	name:    "watch",
	summary: "show sessions as they are created and end",
	usage:   "[flags] [URL]",
	help: `It writes one line for each event, until Ctrl-C:

	created    a session is new
	continued  a session goes on under this ID, after a login or a rotation
	ended      it was ended: by a logout, a revocation or the limit of a subject
	expired    its time was over
	renewed    a login moved it to another ID: see "continued"
	rotated    it goes on under the ID at the end of the line

Programs publish which sessions end, and those lines come at once. What is created or
expires is published nowhere: it is found by looking at all keys again and again, with a
pause of -interval. The looking takes at most a quarter of the time of one connection. A
session that lives for less than that may be missed.

Of each session it keeps the ID of 16 bytes, two times and the subject: about 150 bytes.
-limit bounds how many sessions that are. Nothing in Redis is changed.

Exit codes: 0 when it was interrupted, 3 when it could not begin.

Rights in Redis: +scan +get +getrange +strlen +pttl +zscore +evalsha +eval +time
+pexpireat +del +subscribe +publish &sess:ended*.
With another -keyspace its name stands in the place of "sess:".

Examples:

	echosession watch redis://localhost:6379
	echosession watch -subject user-17 redis://localhost:6379
	echosession watch -json redis://localhost:6379 | jq 'select(.event == "ended")'
`,
	define: func(fs *flag.FlagSet) func(context.Context, *invocation) (int, error) {
		var w watchFlags
		w.site.target.define(fs)
		defineEncryptionKeys(fs, &w.site.keyFile)
		fs.DurationVar(&w.interval, "interval", time.Second, "pause between two looks at all keys")
		fs.StringVar(&w.subject, "subject", "", "show the sessions of this `subject` only")
		fs.IntVar(&w.limit, "limit", 1_000_000, "watch at most this `number` of sessions")
		defineJSONLines(fs, &w.json, "event")
		return w.run
	},
}

// watchFlags are the flags of "echosession watch".
type watchFlags struct {
	site     siteFlags
	interval time.Duration
	subject  string
	limit    int
	json     bool
}

func (f *watchFlags) run(ctx context.Context, inv *invocation) (int, error) {
	if f.interval <= 0 || f.limit <= 0 {
		return exitUnknown, errUsage("-interval and -limit are above zero")
	}
	if err := inv.noArguments(); err != nil {
		return exitUnknown, err
	}
	w, err := openWalker(ctx, inv, &f.site)
	if err != nil {
		return exitUnknown, err
	}
	defer w.client.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	out := &eventWriter{stdout: inv.stdout, stderr: inv.stderr, json: f.json, failed: stop}
	o := newObserver(f, w, out)
	var ended sync.WaitGroup
	ended.Go(func() { o.hints.listen(ctx, w.store.(echosession.Watcher), out) })
	failed := make(chan error, 1)
	ended.Go(func() { failed <- o.observe(ctx) })
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	stop()
	// Who interrupts it waits for no reply: a server may be silent.
	over := make(chan struct{})
	go func() { ended.Wait(); close(over) }()
	select {
	case <-over:
	case <-time.After(lastReply):
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		return exitUnknown, err
	}
	if err := out.close(); err != nil {
		return exitUnknown, err
	}
	return exitOK, nil
}

// lastReply is how long the end of the command waits for a reply that is on its way.
const lastReply = 100 * time.Millisecond

// An event is one line of "echosession watch".
type event struct {
	Time      time.Time  `json:"time"`
	Event     string     `json:"event"`
	ID        string     `json:"id"`
	LogID     string     `json:"log_id"`
	Subject   string     `json:"subject,omitempty"`
	CreatedAt *time.Time `json:"created_at,omitempty"`
	To        string     `json:"to,omitempty"`
	ToLogID   string     `json:"to_log_id,omitempty"`
}

// An eventWriter writes events, and notices to people. It is safe for concurrent use.
type eventWriter struct {
	json   bool
	failed func() // is called when the events can be written no more

	mu      sync.Mutex
	stdout  io.Writer
	stderr  io.Writer
	err     error
	created int
	ended   int
	closed  bool
}

func (w *eventWriter) write(e event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || w.err != nil {
		return
	}
	switch e.Event {
	case "created":
		w.created++
	case "ended", "expired":
		w.ended++
	}
	line := e.text()
	if w.json {
		line = toLine(e)
	}
	if _, w.err = fmt.Fprintln(w.stdout, line); w.err != nil {
		w.failed()
	}
}

// text is the event for people.
func (e *event) text() string {
	subject := "-"
	if e.Subject != "" {
		subject = printable(e.Subject)
	}
	line := fmt.Sprintf("%s  %-9s  %s  %s  %s", e.Time.Format("15:04:05.000"), e.Event, e.ID, e.LogID, subject)
	if e.CreatedAt != nil {
		line += "  age " + shortTime(max(0, e.Time.Sub(*e.CreatedAt).Truncate(time.Second)))
	}
	if e.To != "" {
		line += "  to " + e.To + "  " + e.ToLogID
	}
	return line
}

// notice tells people what the command itself does.
func (w *eventWriter) notice(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		fmt.Fprintln(w.stderr, printable(fmt.Sprintf(format, args...)))
	}
}

// close ends the output. It returns why an event could not be written.
func (w *eventWriter) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed && w.err == nil {
		fmt.Fprintf(w.stderr, "%s created, %s ended or expired\n", grouped(w.created), grouped(w.ended))
	}
	w.closed = true
	return w.err
}

// hints are what the store says of sessions that may have ended, until somebody looks.
type hints struct {
	mu      sync.Mutex
	ids     []string
	matches []func(echosession.Ref) bool
	all     bool
	hearing bool // the store tells of every end
	silent  bool // it does no more, and people were told
	news    chan struct{}
}

// mostHints bounds the memory for hints. More of them say that any session may have ended.
const mostHints = 100_000

func (h *hints) tell(hint echosession.Hint) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case hint.All || len(h.ids)+len(h.matches) > mostHints:
		h.all, h.ids, h.matches = true, nil, nil
	case hint.Match != nil:
		h.matches = append(h.matches, hint.Match)
	default:
		h.ids = append(h.ids, hint.IDs...)
	}
	select {
	case h.news <- struct{}{}:
	default:
	}
}

// take returns the hints that have come since the last call.
func (h *hints) take() (ids []string, matches []func(echosession.Ref) bool, all bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ids, matches, all = h.ids, h.matches, h.all
	h.ids, h.matches, h.all = nil, nil, false
	return ids, matches, all
}

func (h *hints) isHearing() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.hearing
}

// listen hears of ends, and begins again when that fails.
func (h *hints) listen(ctx context.Context, store echosession.Watcher, out *eventWriter) {
	for ctx.Err() == nil {
		err := store.Watch(ctx, func(hint echosession.Hint) {
			if hint.All {
				h.mu.Lock()
				again := h.silent
				h.hearing, h.silent = true, false
				h.mu.Unlock()
				if again {
					out.notice("Redis tells of ends again. What ended meanwhile follows.")
				}
			}
			h.tell(hint)
		})
		h.mu.Lock()
		before := h.silent
		h.hearing, h.silent = false, true
		h.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, echosession.ErrUnsupported):
			out.notice("Redis does not tell of ends: %v. They are found by looking.", err)
			return
		case !before:
			out.notice("Redis does not tell of ends any more: %v. Trying again.", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryAfter):
		}
	}
}

// retryAfter is the pause after a failure.
const retryAfter = 500 * time.Millisecond
