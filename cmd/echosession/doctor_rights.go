package main

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
)

const sessionCommands = "get getex getrange set del evalsha eval time pexpireat pttl"

// A feature is one of the lists of SECURITY.md, section Access.
type feature struct {
	id       string
	name     string
	commands string // in the words of an ACL, without +

	// always and when say whether the programs surely use it.
	always bool
	when   func(x *examination) bool
	// seen says how the keyspace shows that they do.
	seen func(s *survey) bool
}

var features = []feature{
	{id: "sessions", name: "sessions", commands: sessionCommands, always: true},
	{id: "index", name: "SubjectIndex", commands: sessionCommands + " zadd zrem zrange zscore zcard zrandmember exists pexpire",
		seen: func(s *survey) bool { return s.count[indexKey] > 0 }},
	{id: "all", name: "Manager.All", commands: sessionCommands + " scan"},
	{id: "all-pipelined", name: "Manager.All through an auto-pipeliner", commands: sessionCommands + " scan info"},
	{id: "tickets", name: "redeeming tickets", commands: sessionCommands + " getdel",
		seen: func(s *survey) bool { return s.count[ticketKey] > 0 }},
	{id: "wait", name: "WaitReplicas", commands: sessionCommands + " wait",
		when: func(x *examination) bool { return x.waitReplicas > 0 }},
	{id: "cluster", name: "a Cluster", commands: sessionCommands + " cluster|slots asking",
		when: func(x *examination) bool { return x.isCluster() }},
	{id: "cluster-replicas", name: "reading from replicas of a Cluster", commands: sessionCommands + " cluster|slots asking readonly"},
	{id: "caching", name: "client-side caching", commands: sessionCommands + " client|tracking"},
	{id: "watch", name: "Session.Watch", commands: sessionCommands + " publish subscribe"},
	{id: "database", name: "a database other than 0", commands: sessionCommands + " select",
		when: func(x *examination) bool { return x.options.DB != 0 }},
}

func featureIDs() (ids []string) {
	for _, f := range features {
		ids = append(ids, f.id)
	}
	return ids
}

// argumentsOf returns a command of an ACL with arguments that try it and change nothing.
func (x *examination) argumentsOf(command, key, index string) []any {
	const sha = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db" // of "return 1"
	arguments := map[string][]any{
		"get": {key}, "getex": {key, "px", 1000}, "getrange": {key, 0, 0}, "set": {key, "", "px", 1000, "xx"}, "del": {key},
		"evalsha": {sha, 1, key}, "eval": {"return 1", 1, key}, "pexpireat": {key, 1}, "pttl": {key},
		"zadd": {index, "xx", 0, ""}, "zrem": {index, ""}, "zrange": {index, 0, 0}, "zscore": {index, ""}, "zcard": {index},
		"zrandmember": {index, 1}, "exists": {key}, "pexpire": {key, 1000}, "scan": {0, "count", 1}, "getdel": {key}, "wait": {0, 1},
		"client|tracking": {"off"}, "publish": {x.channel() + ":" + scratchPrefix + "rights", ""}, "subscribe": {x.channel()},
		"select": {x.options.DB},
	}
	var args []any
	for part := range strings.SplitSeq(command, "|") {
		args = append(args, part)
	}
	return append(args, arguments[command]...)
}

// A denial is one right that is missing.
type denial struct {
	grant string // in the words of an ACL
	why   string
}

// rights tells what a user may not do.
type rights func(ctx context.Context, command string) (*denial, error)

// checkRights looks at the rights on one server: each server of a Cluster has users of its own.
func checkRights(ctx context.Context, x *examination, n *node, r *result) {
	before := len(r.findings)
	user, may, err := x.chooseWay(ctx, n)
	if err != nil {
		r.denied("+acl|dryrun", err)
		return
	}
	for _, f := range features {
		var grants, why []string
		for command := range strings.FieldsSeq(f.commands) {
			d, err := may(ctx, command)
			if err != nil {
				r.denied("+"+command, err)
				return
			}
			if d != nil && !slices.Contains(grants, d.grant) {
				grants, why = append(grants, d.grant), append(why, d.why)
			}
		}
		x.judgeRights(f, user, grants, why, r)
	}
	if slices.ContainsFunc(r.findings[before:], func(f finding) bool { return f.Status > statusSkipped }) {
		return
	}
	if x.user == "" && n == x.nodes[0] {
		if err := x.ping(ctx); err != nil {
			r.critical("the-library-fails", "Do what the message says.", "what the library itself tries fails: %s", reply(err))
			return
		}
	}
	r.ok("the user %s may do all that %s", user, x.needed())
}

// ping does what Manager.Ping does: it tries the commands, in scripts too.
func (x *examination) ping(ctx context.Context) error {
	opts := echosession.RedisOptions{Keyspace: x.target.keyspace}
	for _, f := range features {
		opts.SubjectIndex = opts.SubjectIndex || f.id == "index" && x.surely(f)
		opts.Tickets = opts.Tickets || f.id == "tickets" && x.surely(f)
	}
	store, err := echosession.NewRedisStore(x.client, opts)
	if err != nil {
		return err
	}
	return store.(echosession.Pinger).Ping(ctx)
}

// needed names the features that count.
func (x *examination) needed() string {
	var names []string
	for _, f := range features {
		if x.surely(f) {
			names = append(names, f.name)
		}
	}
	if len(names) == 1 {
		return names[0] + " need"
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1] + " need"
}

// surely reports whether the programs use a feature.
func (x *examination) surely(f feature) bool {
	return f.always || slices.Contains(x.uses, f.id) || f.when != nil && f.when(x) ||
		f.seen != nil && x.survey != nil && f.seen(x.survey)
}

func (x *examination) judgeRights(f feature, user string, grants, why []string, r *result) {
	if len(grants) == 0 {
		return
	}
	grant := "Grant in ACL SETUSER " + user + " " + strings.Join(grants, " ") + "; SECURITY.md has the whole list."
	if x.surely(f) {
		r.critical("missing-rights", grant, "%s: the user %s lacks rights: %s", f.name, user, why[0])
		return
	}
	r.skipped("rights-not-granted", grant, "%s: the user %s may not use it (%s)", f.name, user, strings.Join(grants, " "))
}

// chooseWay returns whose rights are looked at, and the way to find them out: ACL DRYRUN,
// or, where the server or the user has no such command, the commands themselves.
func (x *examination) chooseWay(ctx context.Context, n *node) (user string, may rights, err error) {
	user = x.user
	if user == "" {
		user, err = n.client.Do(ctx, "acl", "whoami").Text()
		if err != nil {
			user = x.options.Username
		}
	}
	if user != "" {
		key, index := x.unusedKeys()
		ask := func(ctx context.Context, command string) (*denial, error) {
			args := append([]any{"acl", "dryrun", user}, x.argumentsOf(command, key, index)...)
			text, err := n.client.Do(ctx, args...).Text()
			return x.denialIn(command, text, err)
		}
		if _, err = ask(ctx, "get"); err == nil {
			return user, ask, nil
		}
	}
	if x.user != "" {
		return user, nil, err
	}
	if user == "" {
		user = "default"
	}
	return user, x.tryOut(n), nil
}

// unusedKeys names a session and an index that do not exist.
func (x *examination) unusedKeys() (key, index string) {
	return x.target.keyspace + uuid.NewString(), x.target.keyspace + "{" + strings.Repeat("A", 22) + "}"
}

// denialIn reads what ACL DRYRUN replies, or the error of a command that was tried.
func (x *examination) denialIn(command, text string, err error) (*denial, error) {
	switch {
	case err == nil && text == "OK":
		return nil, nil
	case err != nil && (strings.Contains(err.Error(), "unknown command") || strings.Contains(err.Error(), "Command '")):
		return &denial{"+" + command, "the server does not know the command " + strings.ToUpper(command)}, nil
	case err != nil:
		return nil, err
	}
	switch objectOf(text) {
	case "channel":
		return &denial{"&" + x.channel() + "*", "it may not use the channel " + x.channel()}, nil
	case "key":
		return &denial{"~" + x.target.keyspace + "*", "it may not use the keys below " + x.target.keyspace}, nil
	}
	return &denial{"+" + command, "it may not use " + strings.ToUpper(strings.ReplaceAll(command, "|", " "))}, nil
}

// tryOut runs the commands, on keys that do not exist and on a connection of its own.
func (x *examination) tryOut(n *node) rights {
	key, index := x.unusedKeys()
	return func(ctx context.Context, command string) (*denial, error) {
		conn := n.client.Conn()
		defer conn.Close()
		var err error
		switch command {
		case "subscribe":
			pubsub := n.client.Subscribe(ctx)
			defer pubsub.Close()
			if err = pubsub.Subscribe(ctx, x.channel()); err == nil {
				_, err = pubsub.ReceiveTimeout(ctx, x.timeout)
			}
		default:
			err = conn.Process(ctx, redis.NewCmd(ctx, x.argumentsOf(command, key, index)...))
		}
		switch {
		case redis.HasErrorPrefix(err, "NOPERM"):
			return x.denialIn(command, err.Error(), nil)
		case err != nil && strings.Contains(err.Error(), "unknown command"):
			return x.denialIn(command, "", err)
		case err == nil, errors.Is(err, redis.Nil), isReply(err): // such as NOSCRIPT, which is no refusal
			return nil, nil
		}
		return nil, err
	}
}

// objectOf says what a refusal is about. Each version of Redis words it in another way.
func objectOf(text string) string {
	switch {
	case strings.Contains(text, "one of the channels"), strings.HasSuffix(text, " channel"):
		return "channel"
	case strings.Contains(text, "one of the keys"), strings.HasSuffix(text, " key"):
		return "key"
	}
	return "command"
}
