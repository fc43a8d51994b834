package main

import (
	"bufio"
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/echosession/echosession"
)

var listCommand = command{
	name:    "list",
	summary: "list the sessions, of everybody or of one subject",
	usage:   "[flags] [URL]",
	help: `It writes one line for each session: its ID, the ID that stands for it in logs, its
subject, when it was created and last used, when it expires, how large it is, and on which
device. Sessions of a subject come oldest first, and all sessions in no order. A session
that is written while they are read may be listed twice. Of a session that cannot be read
the line has what stands in clear, and says why.

The last use is computed from the lifetime that is left, so -max-age must be that of the
program. It is "-" where a deadline hides it.

With -json each line is an object, with times in UTC. Session data is not listed: show has
it.

Exit codes: 0 the sessions are listed, those that cannot be read and none at all too; 3 it
could not be done.

Rights in Redis: +scan +get +pttl +exists +evalsha +eval +zrange +zrem.

Examples:

	echosession list redis://localhost:6379
	echosession list -subject ada
	echosession list -json -limit 1000 | jq -r .subject | sort | uniq -c
	echosession list -keyspace admin: -encryption-key-file keys.txt
`,
	define: func(fs *flag.FlagSet) func(ctx context.Context, inv *invocation) (int, error) {
		var l listFlags
		l.site.define(fs)
		fs.StringVar(&l.subject, "subject", "", "list the sessions of this `subject` alone")
		fs.IntVar(&l.limit, "limit", 0, "list at most this `number` of sessions; 0: list all")
		defineJSONLines(fs, &l.json, "session")
		return l.run
	},
}

// listFlags are the flags of "echosession list".
type listFlags struct {
	site    siteFlags
	subject string
	limit   int
	json    bool
}

func (l *listFlags) run(ctx context.Context, inv *invocation) (int, error) {
	if err := inv.noArguments(); err != nil {
		return exitUnknown, err
	}
	if l.limit < 0 {
		return exitUnknown, errUsage("-limit counts sessions; 0 lists all")
	}
	s, err := l.site.open(ctx, inv)
	if err != nil {
		return exitUnknown, err
	}
	defer s.client.Close()

	out := bufio.NewWriter(inv.stdout)
	listed, unread, hidden := 0, 0, 0
	for found, err := range s.sessions(ctx, l.subject, inv.stderr) {
		if err != nil {
			_ = out.Flush()
			return exitUnknown, err
		}
		if l.subject != "" && !found.ofSubject && found.rec.subject != l.subject {
			hidden += toInt(found.err != nil)
			continue
		}
		unread += toInt(found.err != nil)
		if listed == 0 && !l.json {
			fmt.Fprintln(out, listHeader)
		}
		listed++
		if v := newView(found.rec, found.err); l.json {
			fmt.Fprintln(out, toLine(v))
		} else {
			fmt.Fprintln(out, listLine(v, time.Now()))
		}
		if listed == l.limit {
			break
		}
	}
	if err := out.Flush(); err != nil {
		return exitUnknown, err
	}
	l.sumUp(inv.stderr, listed, unread, hidden)
	return exitOK, nil
}

func toInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// sumUp says on the error output what programs that read the list do not need.
func (l *listFlags) sumUp(w io.Writer, listed, unread, hidden int) {
	fmt.Fprint(w, countOf(listed, "session"))
	if unread > 0 {
		fmt.Fprintf(w, ", %s of which cannot be read", grouped(unread))
	}
	if listed > 0 && listed == l.limit {
		fmt.Fprint(w, ": as many as -limit says, and there may be more")
	}
	fmt.Fprintln(w)
	if hidden > 0 {
		fmt.Fprintf(w, "%s cannot be read, and may be of this subject: -encryption-key-file opens the encrypted ones\n", countOf(hidden, "more session"))
	}
}

const timeLayout = "2006-01-02 15:04"

var listHeader = strings.TrimRight(listColumns("ID", "LOG ID", "SUBJECT", "CREATED (UTC)", "LAST USED", "EXPIRES", "SIZE", "DEVICE"), " ")

func listColumns(id, logID, subject, created, used, expires, size, rest string) string {
	return fmt.Sprintf("%s  %s  %s  %s  %s  %s  %9s  %s", column(id, 36), column(logID, 12), column(subject, 20),
		column(created, len(timeLayout)), column(used, 14), column(expires, 14), size, rest)
}

// listLine is one line of the list.
func listLine(v view, now time.Time) string {
	created, used, expires, rest := "-", "-", "-", v.Device
	if !v.CreatedAt.IsZero() {
		created = v.CreatedAt.Format(timeLayout)
	}
	if !v.LastUsedAt.IsZero() {
		used = when(v.LastUsedAt, now)
	}
	if !v.ExpiresAt.IsZero() {
		expires = when(v.ExpiresAt, now)
	}
	if v.Actor != "" {
		rest = strings.TrimSpace(rest + " (used by " + v.Actor + ")")
	}
	if v.Unreadable != "" {
		rest = "unreadable: " + v.Unreadable
	}
	line := listColumns(cmp.Or(v.ID, "-"), cmp.Or(v.LogID, "-"), cmp.Or(v.Subject, "-"), created, used, expires, sizeOf(v.Size), printable(rest))
	return strings.TrimRight(line, " ")
}

// A found is a session that was come across.
type found struct {
	rec       record
	err       error // why the record cannot be read
	ofSubject bool  // the index says that it is the subject's, whatever the record says
}

// sessions visits the sessions of a subject by its index. Without an index, and for the subject
// "", it visits all sessions, of everybody.
func (s *site) sessions(ctx context.Context, subject string, notes io.Writer) iter.Seq2[found, error] {
	return func(yield func(found, error) bool) {
		indexed := false
		if subject != "" {
			var err error
			if indexed, err = s.isIndexed(ctx, subject); err != nil {
				yield(found{}, err)
				return
			}
			if !indexed {
				fmt.Fprintln(notes, "there is no index of this subject: all sessions are looked through")
			}
		}
		if !indexed {
			for entry, err := range s.store.Scan(ctx) {
				if !s.yield(yield, entry, err, false) {
					return
				}
			}
			return
		}
		entries, err := s.store.List(ctx, subject)
		if err == nil && len(entries) == echosession.MaxListed {
			fmt.Fprintf(notes, "these are the newest %d sessions of the subject: there may be older ones\n", echosession.MaxListed)
		}
		if err != nil {
			yield(found{}, err)
			return
		}
		for _, entry := range entries {
			if !s.yield(yield, entry, nil, true) {
				return
			}
		}
	}
}

func (s *site) yield(yield func(found, error) bool, entry echosession.Entry, err error, ofSubject bool) bool {
	if err != nil {
		yield(found{}, err)
		return false
	}
	f := found{ofSubject: ofSubject}
	f.rec, f.err = s.reader.read(entry)
	return yield(f, nil)
}
