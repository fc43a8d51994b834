package echosession

import (
	"context"
	"reflect"
	"time"
)

// What the tests of the whole package reach in it.

// Effective returns a Config, which must be valid, with its defaults.
func Effective(cfg Config) Config {
	cfg, _, err := cfg.compile(reflect.TypeFor[struct{}]())
	if err != nil {
		panic(err)
	}
	return cfg
}

// DefaultTokenLookup returns where an instance with this RequestArg looks.
func DefaultTokenLookup(arg string) string { return defaultLookup(arg, nil) }

// RedisKeys returns the keys of a session and of its subject's index.
func RedisKeys(keyspace string, ref Ref) (session, index string) {
	r := &redisStore{keyspace: keyspace}
	return r.key(ref), r.index(ref.Subject)
}

// IsSessionKey reports whether Scan takes a key for a session's.
func IsSessionKey(keyspace, key string) bool {
	return (&redisStore{keyspace: keyspace}).isSessionKey(key)
}

// Held returns how many entries and how many subjects s holds, the expired
// included.
func (s *MemoryStore) Held() (entries, subjects int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.entries), len(s.subjects)
}

// The search of bodies.
var (
	OnlyInForm = onlyInForm
	OnlyInJSON = onlyInJSON
)

// SmallPages makes a Redis store list and revoke by pages of a few sessions.
func SmallPages(s Store) Store {
	small := scriptBounds{makeRoom: defaultBounds.makeRoom, count: 2, list: 2, listBytes: 1 << 10, revoke: 2}
	s.(*redisStore).bounds = small
	return s
}

// Remembers reports whether m holds a token as verified.
func Remembers[T any](m *Manager[T], token string) bool { return m.engine.verified.Get(token) != nil }

// StaleHeld returns how many copies and marks m keeps for an outage, and the bytes that they
// are counted for.
func StaleHeld[T any](m *Manager[T]) (copies, marks, bytes int) { return m.engine.stale.held() }

// StaleRecord returns the record that m keeps of a token.
func StaleRecord[T any](m *Manager[T], token string) []byte {
	c, _ := m.engine.stale.find(token, m.cfg.Now())
	return c.record
}

// StaleServers makes m take its store for one on several servers.
func StaleServers[T any](m *Manager[T], server func(Ref) string) {
	m.engine.stale.outages.server = server
}

// What a copy takes beside its bytes, and what a mark takes.
const (
	CopyOverhead = copyOverhead
	MarkOverhead = markOverhead
)

// Checked is an answer of CheckMany.
type Checked struct {
	Left time.Duration
	Err  error
}

// CheckMany checks refs as a Manager does that watches many sessions of a Redis store.
func CheckMany(ctx context.Context, s Store, refs []Ref) []Checked {
	var all []Checked
	for _, c := range s.(*redisStore).checkMany(ctx, refs) {
		all = append(all, Checked{c.left, c.err})
	}
	return all
}

// ServerOf names the server that has a ref, as far as a Redis store knows.
func ServerOf(s Store, ref Ref) string { return s.(*redisStore).serverOf(ref) }

// Keeps reports whether the client of a Redis store can serve what has ended elsewhere.
func Keeps(s Store) bool { return s.(*redisStore).keeps() }

// JustWritten reports whether a Redis store reads a session past caches and replicas.
func JustWritten(s Store, ref Ref) bool {
	r := s.(*redisStore)
	return r.getter(r.key(ref)) == "getex"
}

// CorruptReason says in a word why a record cannot be read.
func CorruptReason(err error) string { return corruptReason(err) }

// CauseOf names the kind of a store's failure.
func CauseOf(err error) string { return causeOf(err) }
