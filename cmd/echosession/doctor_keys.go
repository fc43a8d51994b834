package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
)

// unfit reports that there is no survey to judge by. The check keyspace says why.
func (s *survey) unfit(r *result) bool {
	if s.err != nil {
		r.skipped("an-unread-keyspace", "See the finding of the check keyspace.", "the keys could not be listed")
	}
	return s.err != nil
}

// missing adds that a command was refused which a check needs, and reports whether one was.
func (s *survey) missing(r *result, rights ...string) bool {
	for _, right := range rights {
		if err := s.denied[right]; err != nil {
			r.denied(right, err)
			return true
		}
	}
	return false
}

func (s *survey) sessions() int { return s.count[plainKey] + s.count[indexedKey] }

func checkKeyspace(ctx context.Context, x *examination, r *result) {
	s := x.look(ctx)
	switch {
	case redis.HasErrorPrefix(s.err, "NOPERM"):
		r.denied("+scan", s.err)
		return
	case s.err != nil:
		r.unknown("an-unread-keyspace", "Run doctor again, with a smaller -sample.", "the keys could not be read: %s", reply(s.err))
		return
	}
	library := s.sessions() + s.count[indexKey] + s.count[ticketKey]
	if library == 0 && s.database > 0 {
		r.warning("no-sessions-here", "Compare -keyspace with Config.Keyspace, and the database in the URL with that of your programs"+x.elsewhere()+".",
			"no session is below %s, and the database has %s", x.target.keyspace, countOf(s.database, "key"))
		return
	}
	if library == 0 {
		r.ok("no session yet: the database is empty%s", x.elsewhere())
		return
	}
	text := fmt.Sprintf("%s, %s of subjects, %s", countOf(s.sessions(), "session"), countOf(s.count[indexKey], "index"), countOf(s.count[ticketKey], "ticket"))
	if n := s.others[""]; n > 0 || len(s.others) > 0 {
		text += fmt.Sprintf("; %s of other programs or keyspaces%s", countOf(s.count[otherKey], "key"), s.otherNames())
	}
	if !s.complete {
		text += fmt.Sprintf("; these are the first %s of %s in the database: see -sample", grouped(s.walked), grouped(s.database))
	}
	if moved := s.moved(); moved > 0 {
		text += fmt.Sprintf("; of %s read, %s lead to where a session went (rotated or renewed)", countOf(len(s.readings), "session"), grouped(moved))
	} else if len(s.readings) > 0 && len(s.readings) < s.sessions() {
		text += fmt.Sprintf("; %s of them were read", grouped(len(s.readings)))
	}
	r.ok("%s; it took %s", text, shortTime(s.took))
}

func (s *survey) moved() (n int) {
	for _, r := range s.readings {
		if r.moved {
			n++
		}
	}
	return n
}

// otherNames says how the names of other keys begin.
func (s *survey) otherNames() string {
	names := slices.SortedFunc(maps.Keys(s.others), func(a, b string) int {
		return cmp.Or(cmp.Compare(s.others[b], s.others[a]), strings.Compare(a, b))
	})
	var parts []string
	for _, name := range names {
		if name != "" {
			parts = example(parts, fmt.Sprintf("%q", name+":"))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

// elsewhere names the other databases that have keys.
func (x *examination) elsewhere() string {
	var parts []string
	for name, value := range x.nodes[0].info {
		db, ok := numberOf(strings.TrimPrefix(name, "db"))
		keys, counted := numberIn(value, "keys")
		if strings.HasPrefix(name, "db") && ok && counted && int(db) != x.options.DB {
			parts = append(parts, fmt.Sprintf("database %d has %s", db, countOf(keys, "key")))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	slices.Sort(parts)
	return "; " + strings.Join(parts, ", ")
}

func checkLifetimes(ctx context.Context, x *examination, r *result) {
	s := x.look(ctx)
	if s.unfit(r) {
		return
	}
	if len(s.foreign) > 0 {
		r.warning("foreign-keys", "Give the other program a keyspace of its own.",
			"%s the names of sessions or indexes and hold something else, as %s", countOf(len(s.foreign), "key")+" "+verb(len(s.foreign), "has", "have"), examples(s.foreign))
	}
	switch {
	case len(s.endless) > 0:
		r.warning("keys-without-a-lifetime", "Find out which program made them: this library never does (RESTORE, PERSIST and copies between servers do). A use restarts the lifetime of a session; delete the others.",
			"%s never %s, as %s: the memory is never free again", countOf(len(s.endless), "key"), verb(len(s.endless), "expires", "expire"), examples(s.endless))
	case s.asked && s.missing(r, "+pttl"):
	case len(s.foreign) > 0:
	case s.asked:
		r.ok("each of %s has a lifetime", countOf(s.sessions()+s.count[indexKey]+s.count[ticketKey], "key"))
	default:
		r.ok("each key of the database has a lifetime")
	}
}

// examples shows the first few.
func examples(names []string) string {
	return strings.Join(names[:min(len(names), 3)], " ")
}

func checkRecords(ctx context.Context, x *examination, r *result) {
	s := x.look(ctx)
	if s.unfit(r) || s.missing(r, "+getrange", "+pttl") {
		return
	}
	sealed, damaged := 0, 0
	why, shown := make(map[string]int), make(map[string]string)
	for _, one := range s.readings {
		switch {
		case one.sealed:
			sealed++
		case one.damage != "":
			damaged++
			why[one.damage]++
			shown[one.damage] = one.key.name
		}
	}
	read := s.sampled(plainKey, indexedKey)
	if damaged > 0 {
		var parts []string
		for _, text := range slices.SortedFunc(maps.Keys(why), func(a, b string) int { return cmp.Or(cmp.Compare(why[b], why[a]), strings.Compare(a, b)) }) {
			parts = append(parts, fmt.Sprintf("%s: %s (%s)", grouped(why[text]), text, shown[text]))
		}
		const advice = "Their users get 401 until they log in again. Look for another program that writes below this keyspace, and for a change of Keyspace, EncryptionKeys or Codec."
		add := r.warning
		if damaged*2 >= read {
			add = r.critical
		}
		add("unreadable-records", advice, "%s of %s cannot be read. %s", grouped(damaged), countOf(read, "session"), strings.Join(parts[:min(len(parts), 5)], "; "))
	}
	if sealed > 0 {
		r.skipped("encrypted-records", "Give their keys: -encryption-key-file.", "%s of %s are encrypted, and were not opened: that is no damage", grouped(sealed), countOf(read, "session"))
	}
	if damaged+sealed == 0 {
		r.ok("%s were read", countOf(read, "session"))
	}
}

func checkSizes(ctx context.Context, x *examination, r *result) {
	s := x.look(ctx)
	if s.unfit(r) || s.missing(r, "+strlen") {
		return
	}
	if len(s.largest) == 0 {
		r.ok("no sessions")
		return
	}
	subjects := s.subjects()
	text := "the largest sessions: " + strings.Join(x.sizesOf(ctx, s.largest), "; ")
	if big := s.largest[0].size; big > 16<<10 {
		r.warning("large-sessions", "Keep in the session what each request needs, and the rest elsewhere by its ID: each request reads the whole session.", "%s", text)
	} else {
		r.ok("%s", text)
	}
	if len(s.most) == 0 || s.missing(r, "+zcard") {
		return
	}
	var parts []string
	for _, k := range s.most {
		name := strings.TrimPrefix(k.name, x.target.keyspace)
		if subject := subjects[k.name]; subject != "" {
			name = fmt.Sprintf("%q", subject)
		}
		parts = append(parts, fmt.Sprintf("%s %s", name, grouped(k.size)))
	}
	text = "the subjects with the most sessions: " + strings.Join(parts, ", ")
	if s.most[0].size >= 1000 {
		r.warning("many-sessions-of-a-subject", "Set MaxSessions, and look for a client that logs in again and again.", "%s", text)
	} else {
		r.ok("%s", text)
	}
}

// subjects are the names of those whose sessions were read, by index.
func (s *survey) subjects() map[string]string {
	names := make(map[string]string)
	for _, one := range s.readings {
		if one.key.kind == indexedKey && one.rec.subject != "" {
			names[one.key.index()] = one.rec.subject
		}
	}
	return names
}

// sizesOf says how much memory sessions take.
func (x *examination) sizesOf(ctx context.Context, keys []foundKey) (texts []string) {
	for _, k := range keys {
		text := k.id + " (log ID " + echosession.LogID(k.id) + ") " + sizeOf(k.size)
		if bytes, err := k.node.client.MemoryUsage(ctx, k.name, 1).Result(); err == nil {
			text += ", " + sizeOf(bytes) + " of memory"
		}
		texts = append(texts, text)
	}
	return texts
}
