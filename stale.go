package echosession

import (
	"container/list"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	minStaleFor = time.Second
	maxStaleFor = time.Minute

	// copyOverhead is what a copy takes beside its bytes: the struct, its places in the map
	// and in the list, and what the allocator rounds up. markOverhead is what a mark takes.
	// TestStaleMemory measures both.
	copyOverhead = 288
	markOverhead = 160

	// maxStaleMatches bounds how many hints about many sessions at once are remembered.
	maxStaleMatches = 64
)

// errStale is the error of a method that would write a session that was served from a copy.
var errStale = fmt.Errorf("%w: this request was served a copy of the session, which cannot be written", ErrStoreUnavailable)

// staleCopies keep the records that this process has read, for [ServeStale]. A nil
// *staleCopies keeps nothing.
//
// # When a copy may be served
//
// What changes or ends sessions is numbered (seq): each write of this process when it
// begins and again when its outcome is known, and each end that the process hears of or
// meets. A read notes the number at its start, before it is sent, and its copy has that
// number. Three keys lead from a session to what happened to it: its ID, its login and its
// subject. The login is what all tokens of a session have in common when it is rotated, also
// by other processes: subject, CreatedAt and AuthenticatedAt. A mark under a key knows how
// many writes are open, the number of the last change, and until when the key is blocked.
//
// A copy is good while no write is open under any of its keys, no change under them has a
// greater number than the copy, and none of them is blocked. It follows:
//
//   - A write hides the copies from before it is sent until its outcome is known. Where it
//     surely changed nothing, they are good again: also when several writes fail together.
//   - A read that began before a change was known keeps nothing that is ever served,
//     whenever it ends. A read that began after a write began, and ends before the write, is
//     good if the write changes nothing.
//   - A write that succeeded hands in its own record under the number of its outcome. It
//     keeps nothing if another change became known while it was open: nobody can tell which
//     of the two came first. If another write is still open, the copy is hidden until then.
//   - An end, and a write whose outcome is unknown, block the key for StaleFor.
//     Nothing is read into a copy meanwhile: such a write may still be on its way.
//   - A token that was rotated away gets no copy, for the end of its grace would have to be
//     known. So every copy is of the ID in its token.
//
// Keys are hashes under a secret seed. Where two sessions share one (the logins of guests
// that were created in the same millisecond do), a copy is hidden without need.
//
// A mark may be forgotten StaleFor after the last change: every copy that it hides is too old
// by then. If marks alone exceed the bytes allowed, everything is forgotten and nothing is
// kept or served for StaleFor.
//
// A restart of the idle timeout is no write in this sense: it ends nothing and changes no data.
type staleCopies struct {
	keepFor time.Duration
	limit   int // in bytes
	now     func() time.Time
	start   time.Time
	seed    maphash.Seed
	reports *reporter
	outages outages

	seq atomic.Uint64 // changes under mu

	mu      sync.Mutex
	copies  map[string]*list.Element // of *staleCopy, by token
	order   list.List                // of all copies, the one that was read longest ago first
	marks   map[uint64]*staleMark
	settled list.List // of marks without an open write, the one that settled longest ago first
	matches []staleMatch
	bytes   int
	paused  time.Duration // nothing is kept and served until then
	epoch   int           // counts pauses
}

// A staleCopy is a record as it was read. Times are durations since staleCopies.start.
type staleCopy struct {
	token     string
	ref       Ref
	record    []byte
	keys      staleKeys
	login     staleLogin
	seq       uint64
	at        time.Duration // when the read began
	expiresAt time.Time
	usedAt    time.Time
}

func (c *staleCopy) size() int {
	return len(c.token) + len(c.ref.ID) + len(c.ref.Subject) + len(c.record) + copyOverhead
}

// staleKeys are the keys of a session: of its ID, its login and its subject, which may be 0
// for none.
type staleKeys [3]uint64

// A staleLogin is when a session was created and when somebody logged in to it, in
// milliseconds since 1970.
type staleLogin struct{ created, authenticated int64 }

func loginOf(h recordHeader) staleLogin {
	return staleLogin{h.createdAt.UnixMilli(), h.authenticatedAt.UnixMilli()}
}

// A staleMark is what happened to the sessions of a key.
type staleMark struct {
	key     uint64
	open    int           // writes under way
	changed uint64        // number of the last change
	until   time.Duration // blocked until then
	newer   int64         // the block spares sessions that were created then or later, in milliseconds since 1970
	spared  []string      // IDs of sessions that are not concerned
	forget  time.Duration
	place   *list.Element // in settled, or nil
}

// A staleMatch is a hint about many sessions.
type staleMatch struct {
	seq    uint64
	forget time.Duration
	match  func(Ref) bool
}

func newStaleCopies(cfg *Config, e *engine) *staleCopies {
	s := &staleCopies{
		keepFor: cfg.StaleFor, limit: cfg.StaleBytes, now: cfg.Now, start: cfg.Now(), seed: maphash.MakeSeed(),
		reports: e.reports, copies: make(map[string]*list.Element), marks: make(map[uint64]*staleMark),
	}
	s.outages.begin(e)
	return s
}

func (s *staleCopies) since(t time.Time) time.Duration { return t.Sub(s.start) }

// keysOf are the keys of a session.
func (s *staleCopies) keysOf(id, subject string, login staleLogin) staleKeys {
	return staleKeys{s.idKey(id), s.loginKey(subject, login), s.subjectKey(subject)}
}

func (s *staleCopies) idKey(id string) uint64 { return s.hash('i', id, nil) }

func (s *staleCopies) loginKey(subject string, login staleLogin) uint64 {
	var times [16]byte
	binary.LittleEndian.PutUint64(times[:8], uint64(login.created))
	binary.LittleEndian.PutUint64(times[8:], uint64(login.authenticated))
	return s.hash('l', subject, times[:])
}

func (s *staleCopies) subjectKey(subject string) uint64 {
	if subject == "" {
		return 0
	}
	return s.hash('s', subject, nil)
}

func (s *staleCopies) hash(kind byte, text string, more []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(s.seed)
	_ = h.WriteByte(kind)
	_, _ = h.Write(more)
	_, _ = h.WriteString(text)
	return max(1, h.Sum64())
}

// reading returns the number that a copy of what is read from now on gets.
func (s *staleCopies) reading() uint64 {
	if s == nil {
		return 0
	}
	return s.seq.Load()
}

// keep keeps what a read found that began at a time and with a number of reading.
func (s *staleCopies) keep(l *live, seq uint64, began time.Time) {
	if s == nil || l.tok == nil || l.ref != l.via {
		return
	}
	now := s.since(s.now())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(l, seq, s.since(began), now)
}

// put makes l's record the copy, unless there is a better one. s.mu is held.
func (s *staleCopies) put(l *live, seq uint64, at, now time.Duration) {
	s.tidy(now)
	e := s.copies[l.token]
	login := loginOf(l.header)
	next := staleCopy{token: l.token, ref: l.ref, record: l.record, login: login, seq: seq, at: at, expiresAt: l.expiresAt, usedAt: l.usedAt}
	if e == nil {
		// The strings may be pieces of a request that would stay in memory with them.
		next.token = strings.Clone(l.token)
		next.ref.Subject = strings.Clone(l.ref.Subject)
		next.keys = s.keysOf(l.ref.ID, l.header.subject, login)
	} else {
		old := e.Value.(*staleCopy)
		if old.seq > seq || old.seq == seq && old.at > at {
			return
		}
		next.token, next.ref, next.keys = old.token, old.ref, old.keys
		if old.login != login {
			next.keys = s.keysOf(l.ref.ID, l.header.subject, login)
		}
	}
	if !s.good(&next, now, true) {
		return
	}
	if next.size() > s.limit {
		if e != nil {
			s.drop(e)
		}
		return
	}
	if e == nil {
		added := next // next itself shall not escape: most reads only renew a copy
		s.copies[next.token] = s.order.PushBack(&added)
		s.bytes += next.size()
	} else {
		old := e.Value.(*staleCopy)
		s.bytes += next.size() - old.size()
		*old = next
		s.order.MoveToBack(e)
	}
	s.fit(now)
}

// good reports whether a copy may be served. Before it is kept, writes that are under way do
// not count. s.mu is held.
func (s *staleCopies) good(c *staleCopy, now time.Duration, keeping bool) bool {
	if age := now - c.at; now < s.paused || age < 0 || age >= s.keepFor {
		return false
	}
	if len(s.marks) > 0 {
		for _, key := range c.keys {
			if m := s.marks[key]; m != nil && m.hides(c, now, keeping) {
				return false
			}
		}
	}
	for _, m := range s.matches {
		if c.seq < m.seq && m.match(c.ref) {
			return false
		}
	}
	return true
}

func (m *staleMark) hides(c *staleCopy, now time.Duration, keeping bool) bool {
	if len(m.spared) > 0 && slices.Contains(m.spared, c.ref.ID) {
		return false
	}
	return m.open > 0 && !keeping || c.seq < m.changed || now < m.until && c.login.created < m.newer
}

// find returns the copy of a token, if it may be served.
func (s *staleCopies) find(token string, at time.Time) (staleCopy, bool) {
	now := s.since(at)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tidy(now)
	e := s.copies[token]
	if e == nil {
		return staleCopy{}, false
	}
	c := e.Value.(*staleCopy)
	if !s.good(c, now, false) || !at.Before(c.expiresAt) {
		return staleCopy{}, false
	}
	return *c, true
}

// mark returns the mark of a key, which may be a new one. s.mu is held.
func (s *staleCopies) mark(key uint64) *staleMark {
	m := s.marks[key]
	if m == nil {
		m = &staleMark{key: key}
		s.marks[key] = m
		s.bytes += markOverhead
	}
	if m.place != nil {
		s.settled.Remove(m.place)
		m.place = nil
	}
	return m
}

// settle says when a mark may be forgotten, if no write is open. s.mu is held.
func (s *staleCopies) settle(m *staleMark, now time.Duration) {
	switch {
	case m.open > 0:
	case m.changed == 0:
		s.forget(m)
	default:
		m.forget = now + s.keepFor
		m.place = s.settled.PushBack(m)
	}
}

func (s *staleCopies) forget(m *staleMark) {
	delete(s.marks, m.key)
	s.bytes -= markOverhead
}

// block notes an end or a doubt. s.mu is held.
func (s *staleCopies) block(m *staleMark, seq uint64, now time.Duration, newer int64) {
	if now < m.until {
		newer = max(newer, m.newer)
	}
	m.changed, m.until, m.newer = seq, now+s.keepFor, newer
}

// tidy drops what is too old. s.mu is held.
func (s *staleCopies) tidy(now time.Duration) {
	for e := s.order.Front(); e != nil && e.Value.(*staleCopy).at+s.keepFor <= now; e = s.order.Front() {
		s.drop(e)
	}
	for e := s.settled.Front(); e != nil && e.Value.(*staleMark).forget <= now; e = s.settled.Front() {
		s.settled.Remove(e)
		s.forget(e.Value.(*staleMark))
	}
	s.matches = slices.DeleteFunc(s.matches, func(m staleMatch) bool { return m.forget <= now })
}

// drop drops a copy. s.mu is held.
func (s *staleCopies) drop(e *list.Element) {
	c := s.order.Remove(e).(*staleCopy)
	delete(s.copies, c.token)
	s.bytes -= c.size()
}

// fit drops copies until all fits into the bytes allowed. s.mu is held.
func (s *staleCopies) fit(now time.Duration) {
	for s.bytes > s.limit && s.order.Len() > 0 {
		s.drop(s.order.Front())
	}
	if s.bytes > s.limit {
		s.pause(now)
	}
}

// pause forgets everything, and keeps and serves nothing for some time: what happened to
// sessions can be forgotten only together with the copies. s.mu is held.
func (s *staleCopies) pause(now time.Duration) {
	s.epoch++
	s.paused = now + s.keepFor
	clear(s.copies)
	clear(s.marks)
	s.order.Init()
	s.settled.Init()
	s.matches, s.bytes = nil, 0
	_ = recovered(func() error { // a message of another process may have come in any goroutine
		s.reports.report(slog.LevelWarn, failureKind{"no session is kept for an outage", "stale", "more writes than StaleBytes can remember"})
		return nil
	})
}

// ended notes that sessions have ended, or that their tokens were rotated away.
func (s *staleCopies) ended(ids ...string) {
	if s == nil || len(ids) == 0 {
		return
	}
	now := s.since(s.now())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tidy(now)
	seq := s.seq.Add(1)
	for _, id := range ids {
		m := s.mark(s.idKey(id))
		s.block(m, seq, now, math.MaxInt64)
		s.settle(m, now)
	}
	s.fit(now)
}

// hinted takes a hint of a [Watcher]. A hint about all sessions names none: the store could
// not be heard for a while, as in the outage that the copies are for.
func (s *staleCopies) hinted(h Hint) {
	if s == nil {
		return
	}
	s.ended(h.IDs...)
	if h.Match == nil {
		return
	}
	now := s.since(s.now())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tidy(now)
	if len(s.matches) == maxStaleMatches {
		s.pause(now)
		return
	}
	s.matches = append(s.matches, staleMatch{s.seq.Add(1), now + s.keepFor, h.Match})
}

// A staleWrite is a write that is under way. A nil *staleWrite is of nobody's concern.
type staleWrite struct {
	copies *staleCopies
	seq    uint64
	began  time.Duration
	epoch  int
	parts  []stalePart
}

// A stalePart is what a write means for the sessions of a key.
type stalePart struct {
	key     uint64
	ends    bool     // success is an end
	doubted bool     // an unknown outcome blocks the key
	newer   bool     // an end spares the sessions created afterwards
	spared  []string // IDs of sessions that are not concerned
	mark    *staleMark
}

// replacing begins a write that puts next in the place of old.
func (s *staleCopies) replacing(old, next *live, limit Limit) *staleWrite {
	if s == nil {
		return nil
	}
	parts := []stalePart{
		{key: s.idKey(old.ref.ID), ends: next.ref != old.ref, doubted: true},
		{key: s.loginKey(old.header.subject, loginOf(old.header))},
	}
	if next.ref.Subject != old.ref.Subject {
		parts = append(parts, s.evicting(next.ref.Subject, limit)...)
	}
	return s.begin(parts)
}

// creating begins a write that stores a new session.
func (s *staleCopies) creating(l *live, limit Limit) *staleWrite {
	if s == nil {
		return nil
	}
	return s.begin(s.evicting(l.ref.Subject, limit))
}

// evicting is the part of a write that may make sessions of a subject give way.
func (s *staleCopies) evicting(subject string, limit Limit) []stalePart {
	if subject == "" || limit.Sessions == 0 || limit.WhenFull == RefuseNew {
		return nil
	}
	return []stalePart{{key: s.subjectKey(subject), doubted: true}}
}

// importing begins a write that replaces what another library has stored.
func (s *staleCopies) importing(id string) *staleWrite {
	if s == nil {
		return nil
	}
	return s.begin([]stalePart{{key: s.idKey(id), doubted: true}})
}

// ending begins a write that ends the session of these IDs. The header, unless it is nil, is
// the session's.
func (s *staleCopies) ending(h *recordHeader, ids ...string) *staleWrite {
	if s == nil {
		return nil
	}
	var parts []stalePart
	for _, id := range ids {
		parts = append(parts, stalePart{key: s.idKey(id), ends: true, doubted: true})
	}
	if h != nil {
		parts = append(parts, stalePart{key: s.loginKey(h.subject, loginOf(*h)), doubted: true})
	}
	return s.begin(parts)
}

// revoking begins a write that ends the sessions of a subject but for some.
func (s *staleCopies) revoking(subject string, except []string) *staleWrite {
	if s == nil {
		return nil
	}
	return s.begin([]stalePart{{key: s.subjectKey(subject), ends: true, doubted: true, newer: true, spared: except}})
}

func (s *staleCopies) begin(parts []stalePart) *staleWrite {
	w := &staleWrite{copies: s, began: s.since(s.now()), parts: parts}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tidy(w.began)
	w.seq = s.seq.Add(1)
	for i := range w.parts {
		p := &w.parts[i]
		fresh := s.marks[p.key] == nil
		p.mark = s.mark(p.key)
		p.mark.open++
		if fresh {
			p.mark.spared = slices.Clone(p.spared)
		} else {
			// Only who is spared by each of them is not concerned.
			p.mark.spared = slices.DeleteFunc(p.mark.spared, func(id string) bool { return !slices.Contains(p.spared, id) })
		}
	}
	w.epoch = s.epoch
	s.fit(w.began)
	return w
}

// errInDoubt is the outcome of a write that panicked.
var errInDoubt = indeterminate(errors.New("the write panicked"))

// run does the write, and notes its outcome. next, unless it is nil, is what is stored then.
func (w *staleWrite) run(next *live, do func() error) (err error) {
	if w == nil {
		return do()
	}
	err = errInDoubt
	defer func() { w.finish(next, err) }()
	err = do()
	return err
}

// changedNothing reports whether a write with this error surely left everything as it was.
func changedNothing(err error) bool {
	return errors.Is(err, ErrStoreUnavailable) && !errors.Is(err, ErrIndeterminate) ||
		errors.Is(err, ErrConflict) || errors.Is(err, ErrTooManySessions)
}

func (w *staleWrite) finish(next *live, err error) {
	s := w.copies
	at := s.now()
	now := s.since(at)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tidy(now)
	nothing := changedNothing(err)
	if w.epoch != s.epoch { // the marks are forgotten
		if !nothing {
			s.pause(now)
		}
		return
	}
	seq := s.seq.Add(1)
	overtaken := false
	for _, p := range w.parts {
		m := p.mark
		m.open--
		overtaken = overtaken || m.changed > w.seq
		switch {
		case nothing:
		case err == nil && p.ends && p.newer:
			s.block(m, seq, now, at.UnixMilli())
		case p.ends && (err == nil || isEnd(err)), p.doubted && err != nil:
			s.block(m, seq, now, math.MaxInt64)
		default:
			m.changed = seq
		}
		s.settle(m, now)
	}
	if err == nil && next != nil && next.tok != nil && next.ref == next.via && !overtaken {
		s.put(next, seq, w.began, now)
	}
	s.fit(now)
}

// openStale makes a session of the copy of a token, and decodes its data into v. It does so
// only where a read of this request has failed, or the store is known to be down.
func (e *engine) openStale(ctx context.Context, token string, fresh func() any, failed bool) (l *live, v any) {
	if e.stale == nil || !failed && !e.stale.anyDown() {
		return nil, nil
	}
	now := e.cfg.Now()
	tok, _, err := e.verify(token, now)
	if err != nil || !failed && !e.stale.isDown(e.ref(tok.ID, tok.Subject)) {
		return nil, nil
	}
	c, ok := e.stale.find(token, now)
	if !ok {
		return nil, nil
	}
	v = fresh()
	header, err := e.serializer.decode(c.ref.ID, c.record, v)
	if err != nil {
		return nil, nil
	}
	e.reports.report(slog.LevelWarn, failureKind{"session served stale", "load", "store unavailable"})
	return &live{
		ref: c.ref, via: c.ref, token: token, tok: tok, header: header, record: c.record,
		expiresAt: c.expiresAt, usedAt: c.usedAt, stale: true,
	}, v
}

// held returns how many copies and marks there are, and the bytes that they are counted for.
func (s *staleCopies) held() (copies, marks, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.copies), len(s.marks), s.bytes
}
