package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/echosession/echosession"
)

var revokeCommand = command{
	name:    "revoke",
	summary: "end one session, those of a subject, or those of a codec",
	usage:   "[flags] [<id>] [URL]",
	help: `It ends sessions at once, and tells the programs that watch them. It asks before that,
unless there is -yes. It writes which sessions it has ended: no program's log has these, so
keep its output. Of a subject with more than 1000 sessions these are the newest, and it
says how many more have ended.

	revoke <id>               this session, named by its ID or its log ID
	revoke -subject <name>    all sessions of a subject; -except spares some
	revoke -codec <codec>     all sessions whose data this codec wrote: after a release
	                          that has changed Config.Codec. It is msgpack, other (any
	                          Codec of your own) or all (every session there is)

An encrypted session does not tell whose it is. Where sessions are indexed by subject, its
key cannot be named without that: use -encryption-key-file, or -subject beside the ID.

Exit codes: 0 the sessions have ended, 1 there was none, or you said no, or some are left, 3
it could not be done.

Rights in Redis: +scan +get +pttl +exists +evalsha +eval +time +pexpireat +zrange +zrem +del
+publish &sess:ended*.
With another -keyspace its name stands in the place of "sess:".

Examples:

	echosession revoke 0b6f3a8e-6d0c-4c1e-9a53-0d7c6a1b2c3d
	echosession revoke -subject ada -except 0b6f3a8e-6d0c-4c1e-9a53-0d7c6a1b2c3d
	echosession revoke -codec msgpack -yes redis://localhost:6379
`,
	define: func(fs *flag.FlagSet) func(ctx context.Context, inv *invocation) (int, error) {
		var r revokeFlags
		r.site.define(fs)
		fs.StringVar(&r.subject, "subject", "", "end the sessions of this `subject`; beside an ID: whose session it is")
		fs.Var((*list)(&r.except), "except", "spare the session with this `id`, with -subject; may be repeated")
		fs.StringVar(&r.codec, "codec", "", "end the sessions that this `codec` wrote: msgpack, other or all")
		fs.BoolVar(&r.yes, "yes", false, "do not ask")
		defineJSON(fs, &r.json)
		return r.run
	},
}

// A list is a flag that may be repeated.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

type revokeFlags struct {
	site    siteFlags
	subject string
	except  []string
	codec   string
	yes     bool
	json    bool

	listed int // how many sessions the JSON has until now
}

func (r *revokeFlags) run(ctx context.Context, inv *invocation) (int, error) {
	name, err := r.checkUsage(inv)
	if err != nil {
		return exitUnknown, err
	}
	s, err := r.site.open(ctx, inv)
	if err != nil {
		return exitUnknown, err
	}
	defer s.client.Close()
	switch {
	case name != "":
		return r.revokeOne(ctx, inv, s, name)
	case r.codec != "":
		return r.revokeScanned(ctx, inv, s, codecWords[r.codec], func(f found) (bool, bool) {
			known := f.rec.id != ""
			return known && (r.codec == codecAll || f.rec.otherCodec == (r.codec == codecOther)), !known
		})
	}
	indexed, err := s.isIndexed(ctx, r.subject)
	if err != nil {
		return exitUnknown, err
	}
	if indexed {
		return r.revokeIndexed(ctx, inv, s)
	}
	return r.revokeScanned(ctx, inv, s, "of "+printable(r.subject), func(f found) (match, hidden bool) {
		spared := slices.Contains(r.except, f.rec.id)
		return f.err == nil && f.rec.subject == r.subject && !spared, f.err != nil && !spared
	})
}

var codecWords = map[string]string{
	codecMsgpack: "whose data is MessagePack",
	codecOther:   "whose data a Codec of your own wrote",
	codecAll:     "of everybody",
}

// checkUsage returns the name of the one session to end, or "".
func (r *revokeFlags) checkUsage(inv *invocation) (name string, err error) {
	args := inv.others()
	switch {
	case len(args) > 1:
		return "", errUsage("name one session, not more")
	case len(args) == 0 && r.subject == "" && r.codec == "":
		return "", errUsage("name a session by its ID, or use -subject or -codec")
	case r.codec != "" && (len(args) > 0 || r.subject != ""):
		return "", errUsage("-codec goes with neither a session nor -subject")
	case len(r.except) > 0 && (len(args) > 0 || r.subject == ""):
		return "", errUsage("-except goes with -subject alone")
	case r.codec != "" && codecWords[r.codec] == "":
		return "", errUsage("-codec is msgpack, other or all")
	}
	for i, id := range r.except {
		if r.except[i] = strings.ToLower(id); !isID(r.except[i]) {
			return "", errUsage("-except takes a session ID, which has 36 characters")
		}
	}
	if len(args) > 0 {
		return checkName(args[0])
	}
	return "", nil
}

// agreed asks, unless -yes has answered.
func (r *revokeFlags) agreed(ctx context.Context, inv *invocation, what string) (bool, error) {
	if r.yes {
		return true, nil
	}
	if !isTerminal(inv.stdin) {
		return false, errUsage("there is no terminal to ask: use -yes to revoke " + what)
	}
	fmt.Fprintf(inv.stderr, "Revoke %s? [y/N] ", what)
	line, err := orInterrupted(ctx, func() (string, error) { return bufio.NewReader(inv.stdin).ReadString('\n') })
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	answer := strings.ToLower(strings.TrimSpace(line))
	if answer == "y" || answer == "yes" {
		return true, nil
	}
	fmt.Fprintln(inv.stderr, "Nothing was revoked.")
	return false, nil
}

// orInterrupted returns what read does, or the error of ctx: Ctrl-C ends no read of a terminal.
func orInterrupted[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := read()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var zero T
		return zero, ctx.Err()
	}
}

// isTerminal reports whether somebody can answer. A test may bring a terminal of its own.
func isTerminal(stdin io.Reader) bool {
	if t, ok := stdin.(interface{ isTerminal() bool }); ok {
		return t.isTerminal()
	}
	file, ok := stdin.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// An ending is a session that was ended, as it is written.
type ending struct {
	ID      string `json:"id"`
	LogID   string `json:"log_id"`
	Subject string `json:"subject,omitempty"`
}

func newEnding(id, subject string) ending {
	return ending{ID: id, LogID: echosession.LogID(id), Subject: subject}
}

// String is the line of a session that was ended.
func (e ending) String() string {
	return strings.TrimRight(e.ID+"  "+e.LogID+"  "+printable(e.Subject), " ")
}

// wrote writes a session that has ended. It does so at once: what an interrupted command
// has done is then known, and the sessions of everybody need no memory.
func (r *revokeFlags) wrote(inv *invocation, e ending) {
	if !r.json {
		fmt.Fprintln(inv.stdout, e)
		return
	}
	before := ","
	if r.listed == 0 {
		before = `{"sessions":[`
	}
	fmt.Fprint(inv.stdout, before, toLine(e))
	r.listed++
}

// report says how many sessions have ended, how many of these were not written before, and
// how many could not be ended.
func (r *revokeFlags) report(inv *invocation, revoked, unlisted, left int, err error) (int, error) {
	if r.json {
		if r.listed == 0 {
			fmt.Fprint(inv.stdout, `{"sessions":[`)
		}
		// What follows the list is the rest of the object.
		fmt.Fprintln(inv.stdout, "],"+strings.TrimPrefix(toLine(struct {
			Revoked  int `json:"revoked"`
			Unlisted int `json:"unlisted,omitempty"`
			Left     int `json:"left"`
		}{revoked, unlisted, left}), "{"))
	} else if err == nil || revoked > 0 {
		fmt.Fprintf(inv.stdout, "Revoked %s", countOf(revoked, "session"))
		if unlisted > 0 {
			fmt.Fprintf(inv.stdout, ", %s of which could not be listed", grouped(unlisted))
		}
		fmt.Fprintln(inv.stdout, ".")
	}
	switch {
	case err != nil:
		return exitUnknown, err
	case left > 0:
		fmt.Fprintf(inv.stderr, "%s cannot be read, and may be meant too: -encryption-key-file opens the encrypted ones\n", countOf(left, "more session"))
		return exitWarning, nil
	case revoked == 0:
		return exitWarning, nil
	}
	return exitOK, nil
}

// revokeOne ends one session. The record says whose it is: in an index its key is named by
// that.
func (r *revokeFlags) revokeOne(ctx context.Context, inv *invocation, s *site, name string) (int, error) {
	p, err := s.find(ctx, name, r.subject)
	if err != nil {
		return exitUnknown, err
	}
	ended := p == nil
	var last *place // the session itself, at the end of a chain of rotations
	for at, hops := p, 0; at != nil && hops < 32; hops++ {
		last = at
		next := at.leadsTo()
		if next == nil {
			break
		}
		if ended = next.state != rotated; ended {
			fmt.Fprintf(inv.stderr, "what has this name was %s: it leads to no session\n", next.state)
			break
		}
		if at, err = s.get(ctx, strings.TrimSuffix(at.key, at.id)+next.to); err != nil {
			return exitUnknown, err
		}
		ended = at == nil
	}
	if ended {
		fmt.Fprintf(inv.stderr, "there is no session %s with keys that begin with %q\n", name, s.keyspace)
		return r.report(inv, 0, 0, 0, nil)
	}

	rec, unreadable := s.reader.read(echosession.Entry{Record: last.value, TTL: last.ttl})
	if rec.id == "" {
		return exitUnknown, fmt.Errorf("what %s holds does not begin as a record of a session does, so it is left alone", printable(last.key))
	}
	ref := echosession.Ref{ID: p.id}
	what := "the session " + p.id
	if rec.subject != "" {
		what += " of " + printable(rec.subject)
	}
	if last.index != "" {
		if ref.Subject = rec.subject; unreadable != nil {
			ref.Subject = r.subject
		}
		if s.index(ref.Subject) != last.index {
			return exitUnknown, fmt.Errorf("the session %s is in an index of sessions, and %w", p.id, errHiddenSubject)
		}
	}
	if ok, err := r.agreed(ctx, inv, what); !ok {
		return exitWarning, err
	}
	if err := s.store.Delete(ctx, ref); err != nil {
		return exitUnknown, err
	}
	r.wrote(inv, newEnding(last.id, cmp.Or(rec.subject, ref.Subject)))
	return r.report(inv, 1, 0, 0, nil)
}

// revokeIndexed ends the sessions of a subject by its index, in one step.
func (r *revokeFlags) revokeIndexed(ctx context.Context, inv *invocation, s *site) (int, error) {
	n, err := s.store.Count(ctx, r.subject)
	if err != nil {
		return exitUnknown, err
	}
	what := countOf(n, "session") + " of " + printable(r.subject)
	if len(r.except) > 0 {
		what += ", except " + strings.Join(r.except, ", ")
	}
	if ok, err := r.agreed(ctx, inv, what); !ok {
		return exitWarning, err
	}
	before, err := s.store.List(ctx, r.subject)
	if err != nil {
		return exitUnknown, err
	}
	revoked, err := s.store.DeleteSubject(ctx, r.subject, r.except)
	if err != nil {
		if errors.Is(err, echosession.ErrIndeterminate) {
			fmt.Fprintln(inv.stderr, "Some or all of these sessions may have ended:")
			for _, id := range s.idsOf(before) {
				fmt.Fprintln(inv.stderr, newEnding(id, r.subject))
			}
		}
		return r.report(inv, revoked, 0, 0, err)
	}
	var spared []string
	if len(r.except) > 0 {
		// What -except names may have been rotated since, and is then live under another ID.
		after, err := s.store.List(ctx, r.subject)
		if err != nil {
			return r.report(inv, revoked, revoked, 0, err)
		}
		spared = s.idsOf(after)
	}
	listed := 0
	for _, id := range s.idsOf(before) {
		if !slices.Contains(spared, id) {
			r.wrote(inv, newEnding(id, r.subject))
			listed++
		}
	}
	// A program that keeps no index may have made some more.
	outside, _, err := r.endScanned(ctx, inv, s, func(f found) (match, hidden bool) {
		if f.err != nil || f.rec.subject != r.subject || slices.Contains(r.except, f.rec.id) || slices.Contains(spared, f.rec.id) {
			return false, false
		}
		n, err := s.client.Exists(ctx, s.keyspace+f.rec.id).Result()
		return err == nil && n > 0, false
	})
	return r.report(inv, revoked+outside, max(0, revoked-listed), 0, err)
}

// idsOf returns the IDs of sessions, of those too that cannot be opened. A record that is
// damaged has none.
func (s *site) idsOf(entries []echosession.Entry) (ids []string) {
	for _, entry := range entries {
		if id := s.reader.head(entry).id; id != "" {
			ids = append(ids, id)
		}
	}
	return ids
}

// revokeScanned ends the sessions that match, of all that there are. what describes them, and
// hidden says of a session that it may be meant.
func (r *revokeFlags) revokeScanned(ctx context.Context, inv *invocation, s *site, what string, match func(found) (match, hidden bool)) (int, error) {
	if !r.yes {
		n := 0
		for f, err := range s.sessions(ctx, "", io.Discard) {
			if err != nil {
				return exitUnknown, err
			}
			matches, _ := match(f)
			n += toInt(matches)
		}
		if n == 0 {
			fmt.Fprintln(inv.stderr, "there are no sessions "+what)
			return r.report(inv, 0, 0, 0, nil)
		}
		if ok, err := r.agreed(ctx, inv, countOf(n, "session")+" "+what); !ok {
			return exitWarning, err
		}
	}
	revoked, left, err := r.endScanned(ctx, inv, s, match)
	return r.report(inv, revoked, 0, left, err)
}

// endScanned is revokeScanned without a question and without a report.
func (r *revokeFlags) endScanned(ctx context.Context, inv *invocation, s *site, match func(found) (match, hidden bool)) (revoked, left int, err error) {
	d := s.deleter(ctx, func(rec record) { r.wrote(inv, newEnding(rec.id, rec.subject)) })
	var failed error
	for f, err := range s.sessions(ctx, "", io.Discard) {
		if failed = err; err != nil {
			break
		}
		matches, hidden := match(f)
		left += toInt(hidden)
		if matches && !d.add(f.rec) {
			break
		}
	}
	revoked, hidden, err := d.wait()
	return revoked, left + hidden, errors.Join(failed, err)
}

// A deleter deletes sessions, some at a time: each takes a round trip.
type deleter struct {
	site    *site
	ctx     context.Context
	records chan record
	ended   func(record) // is called once at a time
	workers sync.WaitGroup

	mu      sync.Mutex
	deleted int
	hidden  int // without a subject that could name the key
	err     error
}

const deleters = 16

// deleter calls ended with each session that it has deleted.
func (s *site) deleter(ctx context.Context, ended func(record)) *deleter {
	d := &deleter{site: s, ctx: ctx, records: make(chan record), ended: ended}
	for range deleters {
		d.workers.Go(d.work)
	}
	return d
}

// add hands a session to a worker. It reports false when the work has failed.
func (d *deleter) add(rec record) bool {
	d.mu.Lock()
	failed := d.err != nil
	d.mu.Unlock()
	if !failed {
		d.records <- rec
	}
	return !failed
}

func (d *deleter) work() {
	for rec := range d.records {
		ref, there, err := d.site.ref(d.ctx, rec)
		if there {
			err = d.site.store.Delete(d.ctx, ref)
		}
		d.mu.Lock()
		switch {
		case errors.Is(err, errHiddenSubject):
			d.hidden++
		case errors.Is(err, echosession.ErrRenewed): // it has ended meanwhile
		case err != nil && d.err == nil:
			d.err = err
		case err == nil && there:
			d.deleted++
			d.ended(rec)
		}
		d.mu.Unlock()
	}
}

func (d *deleter) wait() (deleted, hidden int, err error) {
	close(d.records)
	d.workers.Wait()
	return d.deleted, d.hidden, d.err
}
