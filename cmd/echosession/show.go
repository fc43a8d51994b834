package main

import (
	"context"
	"flag"
	"fmt"

	"github.com/echosession/echosession"
)

var showCommand = command{
	name:    "show",
	summary: "show one session, named by its ID or its log ID",
	usage:   "[flags] <id> [URL]",
	help: `It writes what Redis knows of the session as JSON: whose it is, its times, how it is
stored. It shows the session's data with -data alone. An encrypted session needs
-encryption-key-file. Of a session that was rotated it says the ID under which the session
goes on, and of one that was renewed by a login that it has ended.

A session is also found by its log ID, the 12 characters that stand for it in logs, and
without its subject where an index has it: the names of all keys are looked through then.
With -subject that is not needed.

Exit codes: 0 the session is there, 1 there is no such session, 2 it cannot be read or no
request finds it, 3 it could not be found out.

Rights in Redis: +scan +get +pttl +zscore.

Examples:

	echosession show 0b6f3a8e-6d0c-4c1e-9a53-0d7c6a1b2c3d
	echosession show -data Zq3vT0x_aB1c redis://localhost:6379
	echosession show -data -encryption-key-file keys.txt 0b6f3a8e-6d0c-4c1e-9a53-0d7c6a1b2c3d
`,
	define: func(fs *flag.FlagSet) func(ctx context.Context, inv *invocation) (int, error) {
		var s showFlags
		s.site.define(fs)
		fs.StringVar(&s.subject, "subject", "", "whose session it is: the `subject`")
		fs.BoolVar(&s.data, "data", false, "show the session's data too")
		fs.BoolVar(&s.json, "json", false, "write the object of JSON on one line, for programs")
		return s.run
	},
}

// showFlags are the flags of "echosession show".
type showFlags struct {
	site    siteFlags
	subject string
	data    bool
	json    bool
}

func (f *showFlags) run(ctx context.Context, inv *invocation) (int, error) {
	name, err := inv.oneName()
	if err != nil {
		return exitUnknown, err
	}
	s, err := f.site.open(ctx, inv)
	if err != nil {
		return exitUnknown, err
	}
	defer s.client.Close()
	p, err := s.find(ctx, name, f.subject)
	if err != nil {
		return exitUnknown, err
	}
	if p == nil {
		fmt.Fprintf(inv.stderr, "there is no session %s with keys that begin with %q: it has ended, or it is of another keyspace\n", name, s.keyspace)
		return exitWarning, nil
	}
	if next := p.leadsTo(); next != nil {
		return f.showSuccessor(inv, p, next), nil
	}
	return f.showRecord(ctx, inv, s, p)
}

func (f *showFlags) write(inv *invocation, v any) {
	if f.json {
		fmt.Fprintln(inv.stdout, toLine(v))
	} else {
		fmt.Fprintln(inv.stdout, toBlock(v))
	}
}

func (f *showFlags) showSuccessor(inv *invocation, p *place, next *successor) int {
	f.write(inv, struct {
		ID    string `json:"id"`
		LogID string `json:"log_id"`
		State string `json:"state"`
		To    string `json:"successor,omitempty"`
		Key   string `json:"key"`
	}{p.id, echosession.LogID(p.id), next.state, next.to, p.key})
	switch next.state {
	case rotated:
		fmt.Fprintf(inv.stderr, "the session was rotated: it goes on as %s, and for %s more its old token leads there\n", next.to, lasting(p.ttl))
		return exitOK
	case renewed:
		fmt.Fprintf(inv.stderr, "the session has ended: a login, or a gain of rights, has renewed it as %s\n", next.to)
	default:
		fmt.Fprintln(inv.stderr, "there is no session yet: a login is under way, or has broken off")
	}
	return exitWarning
}

func (f *showFlags) showRecord(ctx context.Context, inv *invocation, s *site, p *place) (int, error) {
	rec, unreadable := s.reader.read(echosession.Entry{Record: p.value, TTL: p.ttl})
	if unreadable == nil && rec.id != p.id {
		unreadable = fmt.Errorf("it is the record of the session %s", rec.id)
	}
	rec.id = p.id // that of the record is not known when it is damaged
	v := newView(rec, unreadable)
	v.Key = p.key
	inIndex, err := s.isInIndex(ctx, p)
	if err != nil {
		return exitUnknown, err
	}
	v.Unindexed = !inIndex
	if f.data && unreadable == nil {
		if v.Data, err = rec.json(); err != nil {
			unreadable = err
			v.Unreadable = err.Error()
		}
	}
	f.write(inv, v)
	exit := exitOK
	if unreadable != nil {
		exit = exitCritical
		fmt.Fprintf(inv.stderr, "the record cannot be read: %s\n", v.Unreadable)
	}
	if !inIndex {
		exit = exitCritical
		fmt.Fprintln(inv.stderr, "the session is not in the index of its subject: no request finds it")
	}
	if p.ttl < 0 {
		exit = exitCritical
		fmt.Fprintln(inv.stderr, "its key never expires: another program has written it, or a PERSIST")
	}
	return exit, nil
}
