package main

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
)

// An observer knows the sessions of a keyspace, and notices what changes. Its methods are for
// one goroutine.
type observer struct {
	flags *watchFlags
	w     *walker
	out   *eventWriter
	hints *hints
	hash  subjectHash // of flags.subject

	known map[[16]byte]known
	round uint32 // the number of the look at all keys; 1 is the first

	// began is when this round began, and before when the one before did.
	began, before time.Time
	again         bool // any session may have ended: look at once
	full          bool // there are more sessions than flags.limit
	down          bool // Redis did not answer at the last attempt
}

// known is what is known of a session. There are many of them.
type known struct {
	subject string // 16 bytes of its hash where state is hashKnown
	created int64  // milliseconds since 1970
	until   int64  // when it expires if it was not used since it was read, likewise
	round   uint32 // in which it was seen last
	indexed bool   // it is in the index of its subject
	state   knownState
}

type knownState uint8

const (
	live      knownState = iota
	hashKnown            // live; the subject is sealed, and its hash is in the key
	moved                // it was renewed or rotated; the key is there for a while
	other                // of another subject than the one to be shown
)

func newObserver(f *watchFlags, w *walker, out *eventWriter) *observer {
	return &observer{
		flags: f, w: w, out: out, hash: hashOf(f.subject),
		hints: &hints{news: make(chan struct{}, 1)}, known: make(map[[16]byte]known),
	}
}

// key returns the key of a session.
func (k *known) key(id [16]byte) sessionKey {
	key := sessionKey{id: id, indexed: k.indexed}
	if k.state == hashKnown {
		copy(key.subject[:], k.subject)
	} else if k.indexed {
		key.subject = hashOf(k.subject)
	}
	return key
}

// observe looks at all keys again and again. An error is that of the first look.
func (o *observer) observe(ctx context.Context) error {
	for ctx.Err() == nil {
		err := o.look(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil && o.before.IsZero():
			return err
		case err != nil && !o.down:
			o.down = true
			o.out.notice("Redis does not answer: %v. Trying again.", err)
		case err == nil && o.down:
			o.down = false
			o.out.notice("Redis answers again.")
		}
		switch {
		case err != nil:
			o.rest(ctx, max(o.flags.interval, retryAfter)) // hints are kept until Redis answers
		case !o.again:
			o.attend(ctx, o.flags.interval, true)
		}
	}
	return ctx.Err()
}

// look looks at all keys once.
func (o *observer) look(ctx context.Context) error {
	first := o.before.IsZero()
	o.round++
	o.began, o.again = time.Now(), false
	nodes, err := o.w.nodes(ctx)
	if err != nil {
		return err
	}
	for _, node := range nodes {
		if err := o.lookAt(ctx, node, first); err != nil {
			return err
		}
	}
	if first {
		o.introduce()
	} else if err := o.missing(ctx); err != nil {
		return err
	}
	o.before = o.began
	return nil
}

// introduce says what is watched.
func (o *observer) introduce() {
	n := 0
	for _, k := range o.known {
		if k.state == live || k.state == hashKnown {
			n++
		}
	}
	what := countOf(n, "session")
	if o.flags.subject != "" {
		what += " of " + printable(o.flags.subject)
	}
	took := time.Since(o.began)
	o.out.notice("watching %s. A look at all keys takes %s or less, and the next one follows after %v.",
		what, shortTime(max(time.Millisecond, (took+took/4*busyShare).Round(time.Millisecond))), o.flags.interval)
}

// busyShare says how rarely Redis is asked after the first look: a page takes some time, and
// the pause behind it is three times as long.
const busyShare = 3

// lookAt looks at the keys of one server.
func (o *observer) lookAt(ctx context.Context, node redis.Cmdable, first bool) error {
	var cursor uint64
	for {
		began := time.Now()
		keys, next, err := o.w.keys(ctx, node, cursor)
		if err != nil {
			return err
		}
		if err := o.see(ctx, keys, first); err != nil {
			return err
		}
		if cursor = next; cursor == 0 {
			return nil
		}
		if !first {
			o.attend(ctx, time.Since(began)*busyShare, false)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// see notes which sessions there are, and tells of those that are new.
func (o *observer) see(ctx context.Context, keys []sessionKey, first bool) error {
	var fresh []sessionKey
	for _, key := range keys {
		k, seen := o.known[key.id]
		switch {
		case seen:
			k.round = o.round
			o.known[key.id] = k
		case key.indexed && o.flags.subject != "" && key.subject != o.hash:
		case len(o.known)+len(fresh) >= o.flags.limit:
			if !o.full {
				o.full = true
				o.out.notice("there are more than %s keys of sessions: the others are not watched. See -limit.", grouped(o.flags.limit))
			}
		default:
			fresh = append(fresh, key)
		}
	}
	visits, err := o.w.read(ctx, fresh)
	if err != nil {
		return err
	}
	if !first && len(visits) > 0 {
		// A rotation that was heard of tells that its successor is no new session.
		if err := o.heed(ctx); err != nil {
			return err
		}
	}
	// What was not read is no session: yet, or any more.
	for _, v := range visits {
		if _, seen := o.known[v.key.id]; !seen {
			o.enter(v, first)
		}
	}
	return nil
}

// enter notes a session that was not known, and tells of it.
func (o *observer) enter(v visit, first bool) {
	k := known{
		subject: v.rec.subject, created: v.rec.createdAt.UnixMilli(), until: v.rec.expiresAt.UnixMilli(),
		round: o.round, indexed: v.key.indexed,
	}
	switch {
	case o.flags.subject != "" && v.rec.subject != o.flags.subject && !v.key.indexed:
		k.state, k.subject = other, ""
	case v.key.indexed && (v.rec.subject == "" || hashOf(v.rec.subject) != v.key.subject):
		k.state, k.subject = hashKnown, string(v.key.subject[:])
	}
	o.known[v.key.id] = k
	if first || k.state == other {
		return
	}
	kind := "created"
	// Clocks differ a little. A renewal or a rotation leaves the time of creation as it is.
	if !v.bad && v.rec.createdAt.Before(o.before.Add(-clockSlack)) {
		kind = "continued"
	}
	o.write(kind, v.key.id, k, "")
}

// clockSlack is how far the clocks of programs may be behind.
const clockSlack = 10 * time.Second

func (o *observer) write(kind string, id [16]byte, k known, to string) {
	e := event{Time: time.Now(), Event: kind, ID: sessionKey{id: id}.ID(), To: to}
	e.LogID = echosession.LogID(e.ID)
	if to != "" {
		e.ToLogID = echosession.LogID(to)
	}
	if k.state == live {
		e.Subject = k.subject
	} else if o.flags.subject != "" {
		e.Subject = o.flags.subject // the hash is that of this subject
	}
	if at := time.UnixMilli(k.created).UTC(); k.created > 0 {
		e.CreatedAt = &at
	}
	o.out.write(e)
}

// attend heeds hints for a while, or until any session may have ended.
func (o *observer) attend(ctx context.Context, pause time.Duration, untilAny bool) {
	over := time.NewTimer(pause)
	defer over.Stop()
	for !untilAny || !o.again {
		select {
		case <-ctx.Done():
			return
		case <-over.C:
			return
		case <-o.hints.news:
			if o.heed(ctx) != nil {
				o.rest(ctx, retryAfter)
				return
			}
		}
	}
}

func (o *observer) rest(ctx context.Context, pause time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(pause):
	}
}

// heed asks about the sessions that hints name.
func (o *observer) heed(ctx context.Context) error {
	ids, matches, all := o.hints.take()
	o.again = o.again || all
	var asked [][16]byte
	for _, id := range ids {
		// What is not known ended before it was seen, or its end was told before.
		if key, ok := parseSessionKey(id, ""); ok {
			asked = append(asked, key.id)
		}
	}
	if len(matches) > 0 {
		for id, k := range o.known {
			ref := echosession.Ref{ID: sessionKey{id: id}.ID(), Subject: k.subject}
			for _, match := range matches {
				// Where the subject is sealed, each of these sessions is asked about.
				if k.state == hashKnown || k.state == live && k.indexed && match(ref) {
					asked = append(asked, id)
					break
				}
			}
		}
	}
	if err := o.ask(ctx, asked, true); err != nil {
		// A look at all keys finds what is not asked about now.
		o.hints.tell(echosession.Hint{All: true})
		return err
	}
	return nil
}

// missing asks about the sessions that the look at all keys has not seen.
func (o *observer) missing(ctx context.Context) error {
	var asked [][16]byte
	for id, k := range o.known {
		switch {
		case k.round == o.round:
		case k.state == live || k.state == hashKnown:
			asked = append(asked, id)
		default:
			delete(o.known, id)
		}
	}
	return o.ask(ctx, asked, false)
}

// ask finds out what became of sessions, and tells. heard says that a hint named them.
func (o *observer) ask(ctx context.Context, ids [][16]byte, heard bool) error {
	for len(ids) > 0 {
		batch := ids[:min(len(ids), scanCount)]
		ids = ids[len(batch):]
		if err := o.askBatch(ctx, batch, heard); err != nil {
			return err
		}
	}
	return nil
}

func (o *observer) askBatch(ctx context.Context, ids [][16]byte, heard bool) error {
	values := make([]*redis.StringCmd, len(ids))
	_, err := o.w.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, id := range ids {
			k := o.known[id]
			values[i] = pipe.GetRange(ctx, k.key(id).in(o.w.keyspace), 0, 0)
		}
		return nil
	})
	if err != nil && !redis.HasErrorPrefix(err, "WRONGTYPE") {
		return err
	}
	for i, id := range ids {
		k, seen := o.known[id]
		if !seen || k.state == moved || k.state == other || values[i].Err() != nil {
			continue
		}
		if values[i].Val() == "" {
			o.gone(id, k, heard)
			continue
		}
		var err error
		if k.state != hashKnown { // the store is asked by subject
			err = o.check(ctx, id, k, heard)
		}
		if k.state == hashKnown || redis.HasErrorPrefix(err, "NOPERM") {
			if err = nil; values[i].Val()[0] == notARecord {
				o.gone(id, k, heard)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// check asks the store about a session whose key is there.
func (o *observer) check(ctx context.Context, id [16]byte, k known, heard bool) error {
	ref := echosession.Ref{ID: sessionKey{id: id}.ID()}
	if k.indexed {
		ref.Subject = k.subject
	}
	left, err := o.w.store.Check(ctx, ref)
	rotated, isRotated := errors.AsType[*echosession.RotatedError](err)
	switch {
	case err == nil:
		k.until, k.round = time.Now().Add(left).UnixMilli(), o.round
		o.known[id] = k
		return nil
	case isRotated:
		o.write("rotated", id, k, rotated.To)
		if to, ok := parseSessionKey(rotated.To, ""); ok {
			o.known[to.id] = known{subject: k.subject, created: k.created, until: k.until, round: o.round, indexed: k.indexed, state: k.state}
		}
	case errors.Is(err, echosession.ErrRenewed):
		o.write("renewed", id, k, "")
	case errors.Is(err, echosession.ErrNotFound):
		o.gone(id, k, heard)
		return nil
	default:
		return err
	}
	// The key is there for a while.
	o.known[id] = known{created: k.created, round: o.round, indexed: k.indexed, state: moved}
	return nil
}

// gone tells of a session that is not there any more. It expired unless it was heard of, or
// its time was not over.
func (o *observer) gone(id [16]byte, k known, heard bool) {
	kind := "ended"
	if !heard && o.hints.isHearing() && time.Now().UnixMilli() >= k.until {
		kind = "expired"
	}
	o.write(kind, id, k, "")
	delete(o.known, id)
}
