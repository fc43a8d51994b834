package main

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
)

const (
	// readBatch is how many values are read at once, and readMost how many bytes of each. A
	// record has 64 KiB at most unless Config.MaxRecordSize allows more.
	readBatch = 32
	readMost  = 256 << 10

	// namesPerSample bounds how many names are read for a session whose value is read.
	namesPerSample = 200

	// indexesPerSample is the part of the sample that goes to indexes, and entriesRead how
	// many of their entries are looked at.
	indexesPerSample = 5
	entriesRead      = 50

	largestShown = 5
)

// A found key is one that the walk has seen.
type foundKey struct {
	node *node
	name string
	kind keyKind
	id   string
	size int64 // bytes of a session, or entries of an index; -1: not known
}

// A survey is what was found in the keyspace.
type survey struct {
	err    error            // the keys could not be listed
	denied map[string]error // other rights that were missing, by what to grant
	took   time.Duration

	database int64          // keys of the database, of all servers
	walked   int64          // keys whose names were read
	complete bool           // these were all
	count    [keyKinds]int  // keys of the keyspace
	others   map[string]int // keys of other programs below the keyspace, by how they begin
	foreign  []string       // keys with a name of the library and a type of another
	endless  []string       // keys that never expire
	asked    bool           // each key was asked for its lifetime

	largest  []foundKey // sessions
	most     []foundKey // indexes
	readings []reading  // of a sample of the sessions
	indexes  []indexed  // a sample of the indexes
}

// A reading is what the value of a session's key is.
type reading struct {
	key       foundKey
	rec       record
	ttl       time.Duration
	moved     bool   // the session was rotated or renewed, or its renewal is under way
	sealed    bool   // and no key was given
	damage    string // why the record cannot be read
	unindexed bool   // its subject's index does not have it
}

// An indexed is what an index has.
type indexed struct {
	key      foundKey
	young    int           // entries that are younger than sessions live
	lost     int           // those of them that have no session
	leftover int           // older entries without a session
	ages     []entryWithin // all of them
}

type entryWithin struct {
	age     time.Duration
	session bool
}

// look makes the survey, once.
func (x *examination) look(ctx context.Context) *survey {
	if x.survey != nil {
		return x.survey
	}
	s := &survey{denied: make(map[string]error), others: make(map[string]int), complete: true}
	x.survey = s
	began := time.Now()
	sessions, indexes := newReservoir(x.sample), newReservoir((x.sample+indexesPerSample-1)/indexesPerSample)
	for _, n := range x.nodes {
		if s.err == nil {
			s.err = x.walk(ctx, n, s, sessions, indexes)
		}
	}
	if s.err == nil {
		s.err = x.readSessions(ctx, s, sessions.keys)
	}
	if s.err == nil {
		s.err = x.readIndexes(ctx, s, indexes.keys)
	}
	s.took = time.Since(began)
	return s
}

// refuse keeps why a command was refused, and reports whether err is such a reason.
func (s *survey) refuse(right string, err error) bool {
	if !redis.HasErrorPrefix(err, "NOPERM") && (err == nil || !strings.Contains(err.Error(), "unknown command")) {
		return false
	}
	s.denied[right] = err
	return true
}

// A reservoir keeps a sample of keys in which each has the same chance to be.
type reservoir struct {
	most int // 0: all
	seen int
	keys []foundKey
}

func newReservoir(most int) *reservoir { return &reservoir{most: most} }

func (v *reservoir) add(k foundKey) {
	v.seen++
	if v.most == 0 || len(v.keys) < v.most {
		v.keys = append(v.keys, k)
	} else if i := rand.IntN(v.seen); i < v.most {
		v.keys[i] = k
	}
}

// walk reads the names of a server's keys, and asks for the sizes.
func (x *examination) walk(ctx context.Context, n *node, s *survey, sessions, indexes *reservoir) error {
	size, ok := numberIn(n.info["db"+strconv.Itoa(x.options.DB)], "keys")
	if !ok && n.infoErr != nil {
		size, _ = n.client.DBSize(ctx).Result()
	}
	s.database += size
	// INFO counts the keys, and those that expire. Only a difference is worth a question for
	// each key.
	ask := n.endless(x.options.DB) != 0
	s.asked = s.asked || ask
	most := int64(x.sample * namesPerSample / len(x.nodes))
	var cursor uint64
	for walked := int64(0); ; {
		names, next, err := n.client.Scan(ctx, cursor, globEscape(x.target.keyspace)+"*", scanCount).Result()
		if err != nil {
			return err
		}
		if err := x.measure(ctx, n, s, names, ask, sessions, indexes); err != nil {
			return err
		}
		walked += int64(len(names))
		s.walked += int64(len(names))
		if cursor = next; cursor == 0 {
			return nil
		}
		if most > 0 && walked >= most {
			s.complete = false
			return nil
		}
	}
}

// endless returns how many keys of a database never expire, or -1 if INFO does not say.
func (n *node) endless(db int) int64 {
	field := n.info["db"+strconv.Itoa(db)]
	keys, ok := numberIn(field, "keys")
	expiring, also := numberIn(field, "expires")
	switch {
	case n.infoErr != nil:
		return -1
	case field == "":
		return 0 // a database without keys is not listed
	case !ok || !also:
		return -1
	}
	return keys - expiring
}

// measure notes a page of keys.
func (x *examination) measure(ctx context.Context, n *node, s *survey, names []string, ask bool, sessions, indexes *reservoir) error {
	found := make([]foundKey, 0, len(names))
	sizes, lives := make([]*redis.IntCmd, len(names)), make([]*redis.DurationCmd, len(names))
	pipe := n.client.Pipeline()
	for i, name := range names {
		k := foundKey{node: n, name: name, size: -1}
		rest := strings.TrimPrefix(name, x.target.keyspace)
		var key sessionKey
		if k.kind, key = classify(rest); k.kind == plainKey || k.kind == indexedKey {
			k.id = key.ID()
		}
		s.count[k.kind]++
		switch k.kind {
		case plainKey, indexedKey:
			if s.denied["+strlen"] == nil {
				sizes[i] = pipe.StrLen(ctx, name)
			}
		case indexKey:
			if s.denied["+zcard"] == nil {
				sizes[i] = pipe.ZCard(ctx, name)
			}
		case otherKey:
			s.another(rest)
		}
		if ask && k.kind != otherKey && s.denied["+pttl"] == nil {
			lives[i] = pipe.PTTL(ctx, name)
		}
		found = append(found, k)
	}
	if pipe.Len() > 0 {
		if _, err := pipe.Exec(ctx); err != nil && !isReply(err) {
			return err
		}
	}
	for i, k := range found {
		if lives[i] != nil && !s.refuse("+pttl", lives[i].Err()) && lives[i].Val() == -1 {
			s.endless = append(s.endless, k.name)
		}
		if sizes[i] != nil && !s.sized(&k, sizes[i]) {
			continue
		}
		switch k.kind {
		case plainKey, indexedKey:
			s.largest = keepLargest(s.largest, k)
			sessions.add(k)
		case indexKey:
			s.most = keepLargest(s.most, k)
			indexes.add(k)
		}
	}
	return nil
}

// sized notes the size of a key, and reports whether its type is that of its name.
func (s *survey) sized(k *foundKey, cmd *redis.IntCmd) bool {
	err := cmd.Err()
	right := "+strlen"
	if k.kind == indexKey {
		right = "+zcard"
	}
	switch {
	case redis.HasErrorPrefix(err, "WRONGTYPE"):
		s.foreign = append(s.foreign, k.name)
		return false
	case s.refuse(right, err), err != nil:
		return true
	}
	k.size = cmd.Val()
	return true
}

// another notes a key of somebody else.
func (s *survey) another(rest string) {
	begins, _, ok := strings.Cut(rest, ":")
	if !ok {
		begins = ""
	}
	if len(s.others) < 100 || s.others[begins] > 0 {
		s.others[begins]++
	}
}

// isReply reports whether a server has answered, if only with an error.
func isReply(err error) bool {
	_, ok := errors.AsType[redis.Error](err)
	return ok
}

func keepLargest(list []foundKey, k foundKey) []foundKey {
	if k.size < 0 || len(list) == largestShown && k.size <= list[len(list)-1].size {
		return list
	}
	if slices.ContainsFunc(list, func(have foundKey) bool { return have.name == k.name }) {
		return list // SCAN may return a key twice
	}
	list = append(list, k)
	slices.SortStableFunc(list, func(a, b foundKey) int { return cmp.Compare(b.size, a.size) })
	return list[:min(len(list), largestShown)]
}

// byNode cuts a sample into batches of one server each.
func byNode(keys []foundKey, size int) (batches [][]foundKey) {
	of := make(map[*node][]foundKey)
	for _, k := range keys {
		of[k.node] = append(of[k.node], k)
	}
	for _, n := range slices.SortedFunc(maps.Keys(of), func(a, b *node) int { return strings.Compare(a.addr, b.addr) }) {
		batches = append(batches, slices.Collect(slices.Chunk(of[n], size))...)
	}
	return batches
}

// readSessions reads the values of a sample.
func (x *examination) readSessions(ctx context.Context, s *survey, keys []foundKey) error {
	reader, err := newReader(x.target.keyspace, x.keys, 0)
	if err != nil {
		return err
	}
	for _, batch := range byNode(keys, readBatch) {
		values, lives := make([]*redis.StringCmd, len(batch)), make([]*redis.DurationCmd, len(batch))
		_, err := batch[0].node.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for i, k := range batch {
				values[i], lives[i] = pipe.GetRange(ctx, k.name, 0, readMost), pipe.PTTL(ctx, k.name)
			}
			return nil
		})
		if err != nil && !isReply(err) {
			return err
		}
		var indexedHere []*reading
		first := len(s.readings)
		s.readings = slices.Grow(s.readings, len(batch))
		for i, k := range batch {
			value, err := values[i].Bytes()
			if s.refuse("+getrange", err) || s.refuse("+pttl", lives[i].Err()) {
				return nil
			}
			if r, ok := x.readOne(reader, k, value, lives[i].Val()); err == nil && ok {
				s.readings = append(s.readings, r)
			}
		}
		for i := range s.readings[first:] {
			if r := &s.readings[first+i]; r.key.kind == indexedKey && !r.moved {
				indexedHere = append(indexedHere, r)
			}
		}
		if err := x.lookUp(ctx, s, indexedHere); err != nil {
			return err
		}
	}
	return nil
}

// readOne reads one value. It reports whether there was one: a session may have ended since
// its key was found.
func (x *examination) readOne(reader *reader, k foundKey, value []byte, ttl time.Duration) (reading, bool) {
	r := reading{key: k, ttl: ttl}
	switch {
	case len(value) == 0:
		return r, false
	case value[0] == notARecord:
		r.moved = true
		return r, true
	case len(value) > readMost:
		r.damage = "it is larger than " + sizeOf(readMost) + " and was not read"
		return r, true
	}
	rec, err := reader.read(echosession.Entry{Record: value, TTL: max(ttl, time.Millisecond)})
	r.rec = rec
	r.rec.data = nil // of ten thousand sessions that would be much
	switch {
	case err != nil && rec.sealed && len(x.keys) == 0:
		r.sealed = true
	case err != nil:
		r.damage = reasonOf(err)
	case rec.id != k.id:
		r.damage = "it is the record of another session"
	}
	return r, true
}
