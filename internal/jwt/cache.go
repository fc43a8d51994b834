package jwt

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
)

// Cache remembers tokens whose signature and claims were good, so that a
// client's next request costs a map look-up. It says nothing about the clock: see
// [Keyring.CheckTime]. It is safe for concurrent use.
//
// Only verified tokens are added, so nobody without a key can fill it. Tokens in
// steady use survive a flood of tokens that are used once. Each shard has two
// generations: a token that is used moves to the younger one, and when the younger
// one is full the elder one is dropped.
type Cache struct {
	seed   maphash.Seed
	limit  int // of one generation of one shard, in bytes
	shards [cacheShards]cacheShard
}

const cacheShards = 64

type cacheShard struct {
	mu           sync.RWMutex
	young, elder map[uint64]*Cached // by hash of the token
	size         int                // of young, in bytes
	_            [16]byte           // a cache line of its own
}

// Cached is a verified token and what this process knows of its session.
type Cached struct {
	*Token

	// LastTouch is when this process last restarted the session's idle timeout, in
	// nanoseconds since 1970. 0: it never did.
	LastTouch atomic.Int64

	// LastCookie is when this process last put the token into a cookie again, in
	// nanoseconds since 1970. 0: it never did.
	LastCookie atomic.Int64

	// Told says that somebody was told of the old key that has signed the token.
	Told atomic.Bool

	token string
}

// NewCache returns a cache that takes about maxBytes of memory at most. With 0 it
// remembers nothing.
func NewCache(maxBytes int) *Cache {
	return &Cache{seed: maphash.MakeSeed(), limit: maxBytes / cacheShards / 2}
}

// shard returns the place of a token. The seed is random and secret, so nobody can
// make tokens that share a hash. The time that the comparison of the full token takes
// therefore tells an attacker nothing about the tokens of others.
func (c *Cache) shard(token string) (*cacheShard, uint64) {
	h := maphash.String(c.seed, token)
	return &c.shards[h%cacheShards], h
}

// Get returns the entry of a token, or nil.
func (c *Cache) Get(token string) *Cached {
	s, h := c.shard(token)
	s.mu.RLock()
	e, young := s.young[h]
	if !young {
		e = s.elder[h]
	}
	s.mu.RUnlock()
	if e == nil || e.token != token {
		return nil
	}
	if !young {
		s.mu.Lock()
		if s.elder[h] == e { // neither removed nor promoted meanwhile
			delete(s.elder, h)
			s.put(h, e, c.limit)
		}
		s.mu.Unlock()
	}
	return e
}

// Add remembers a token that Verify has accepted, and returns its entry. When the token
// has an entry already, Add returns that one, so that all requests share it.
func (c *Cache) Add(token string, v *Token) *Cached {
	s, h := c.shard(token)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, generation := range []map[uint64]*Cached{s.young, s.elder} {
		if e := generation[h]; e != nil && e.token == token {
			return e
		}
	}
	// The string may be a piece of a request that would stay in memory with it.
	e := &Cached{Token: v, token: strings.Clone(token)}
	s.put(h, e, c.limit)
	return e
}

// Remove forgets a token.
func (c *Cache) Remove(token string) {
	s, h := c.shard(token)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.young[h]; e != nil && e.token == token {
		delete(s.young, h)
		s.size -= e.size()
	}
	if e := s.elder[h]; e != nil && e.token == token {
		delete(s.elder, h)
	}
}

func (s *cacheShard) put(h uint64, e *Cached, limit int) {
	size := e.size()
	if size > limit {
		return
	}
	if old := s.young[h]; old != nil {
		s.size -= old.size()
	}
	if s.size+size > limit {
		s.elder, s.young, s.size = s.young, nil, 0
	}
	if s.young == nil {
		s.young = make(map[uint64]*Cached)
	}
	s.young[h] = e
	s.size += size
}

// entryOverhead is what an entry takes beside its strings: the structs, its place in
// a map that is half full, and what the allocator rounds up.
const entryOverhead = 176

func (e *Cached) size() int {
	return len(e.token) + len(e.payload) + len(e.Subject) + entryOverhead
}
