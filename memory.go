package echosession

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"iter"
	"math"
	"slices"
	"sync"
	"time"
)

// MemoryStore is a [Store] in the memory of one process: for tests, for
// development and for services that run as a single process. Its sessions end
// with the process. Make one with [NewMemoryStore]; it must not be copied, and it
// is safe for concurrent use. It is a [Watcher] and a [TicketStore].
//
// It starts no goroutine. Every call removes a few of the records whose lifetime
// has passed. So, while the store is in use, its memory follows the number of live
// records.
type MemoryStore struct {
	now    func() time.Time
	closes chan struct{} // closed by Close

	mu       sync.Mutex
	closed   bool
	refs     map[Ref]*memoryEntry
	subjects map[string]map[*memoryEntry]struct{} // the sessions of each subject
	tickets  map[string]*memoryEntry
	entries  []*memoryEntry           // those of refs and tickets, in no order, for sweep and Scan
	hand     int                      // where in entries sweep goes on
	created  uint64                   // counts sessions, for their order
	watches  map[*func(Hint)]struct{} // the tell of each Watch
}

var (
	_ Store       = (*MemoryStore)(nil)
	_ Watcher     = (*MemoryStore)(nil)
	_ TicketStore = (*MemoryStore)(nil)
)

// memoryEntry is a session or, with to, a ref in the grace of a Rotate. A session
// stays the same entry when it is rotated: every ref that it ever had leads
// straight to it. When it is renewed, the entry becomes the mark of that and the
// session gets a new one: no ref of before leads there. With ticket, it is what is kept
// under that key, and has no ref.
type memoryEntry struct {
	ref     Ref
	ticket  string
	expires time.Time
	pos     int // in MemoryStore.entries, or removed

	record []byte
	order  uint64

	to      *memoryEntry
	renewed bool
}

const removed = -1

// sweepStep is how many entries each call checks for their lifetime. A call adds
// at most one entry. With 4, even if every call creates a session, there are about
// a third as many expired entries as live ones.
const sweepStep = 4

// MemoryOption is an option of [NewMemoryStore].
type MemoryOption func(*MemoryStore)

// WithClock makes the store read the time from now instead of [time.Now]. The
// function must be safe for concurrent use and must not call the store.
func WithClock(now func() time.Time) MemoryOption {
	return func(s *MemoryStore) { s.now = now }
}

// NewMemoryStore returns an empty store that keeps its records in memory.
func NewMemoryStore(opts ...MemoryOption) *MemoryStore {
	s := &MemoryStore{
		now:      time.Now,
		closes:   make(chan struct{}),
		refs:     make(map[Ref]*memoryEntry),
		subjects: make(map[string]map[*memoryEntry]struct{}),
		tickets:  make(map[string]*memoryEntry),
		watches:  make(map[*func(Hint)]struct{}),
	}
	for _, opt := range opts {
		opt(s)
	}
	return s
}

// Close forgets all records. After it every method returns an error that matches
// [ErrStoreUnavailable]; a [MemoryStore.Scan] that has begun yields one, and a
// [MemoryStore.Watch] returns one. Close always returns nil, and may be called more
// than once.
func (s *MemoryStore) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		close(s.closes)
	}
	s.closed = true
	s.refs, s.subjects, s.tickets, s.entries, s.watches = nil, nil, nil, nil, nil
	return nil
}

// Load implements [Store]. For a session that was rotated more than once, the
// [*RotatedError] names the ID that it has now.
func (s *MemoryStore) Load(ctx context.Context, ref Ref, ttl time.Duration) ([]byte, error) {
	if ttl != 0 {
		if err := checkLifetime(ttl); err != nil {
			return nil, err
		}
	}
	now, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer s.mu.Unlock()

	e := s.find(ref, now)
	if e == nil {
		return nil, ErrNotFound
	}
	if err := e.moved(now); err != nil {
		return nil, err
	}
	if ttl > 0 {
		e.expires = now.Add(ttl)
	}
	return bytes.Clone(e.record), nil
}

// Check implements [Store].
func (s *MemoryStore) Check(ctx context.Context, ref Ref) (time.Duration, error) {
	now, err := s.lock(ctx)
	if err != nil {
		return 0, err
	}
	defer s.mu.Unlock()

	e := s.find(ref, now)
	if e == nil {
		return 0, ErrNotFound
	}
	if err := e.moved(now); err != nil {
		return 0, err
	}
	return e.expires.Sub(now), nil
}

// Create implements [Store].
func (s *MemoryStore) Create(ctx context.Context, ref Ref, record []byte, ttl time.Duration, limit Limit) (evicted []string, err error) {
	if err := checkLifetime(ttl); err != nil {
		return nil, err
	}
	now, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer s.mu.Unlock()

	if e := s.find(ref, now); e != nil {
		if e.isSession() && bytes.Equal(e.record, record) {
			return nil, nil
		}
		return nil, ErrConflict
	}
	return s.insert(ref, record, now, ttl, limit)
}

// insert stores a new session under a ref that holds nothing.
func (s *MemoryStore) insert(ref Ref, record []byte, now time.Time, ttl time.Duration, limit Limit) (evicted []string, err error) {
	if limit.Sessions > 0 {
		sessions := s.sessions(ref.Subject, now)
		excess := max(0, len(sessions)+1-limit.Sessions)
		if excess > 0 && limit.WhenFull == RefuseNew {
			return nil, ErrTooManySessions
		}
		oldest := sessions[:min(excess, len(sessions))]
		for _, e := range oldest {
			s.remove(e)
			evicted = append(evicted, e.ref.ID)
		}
		s.tellOf(ref.Subject, oldest, nil)
	}
	s.created++
	s.add(&memoryEntry{ref: ref, record: bytes.Clone(record), order: s.created, expires: now.Add(ttl)})
	return evicted, nil
}

// Replace implements [Store].
func (s *MemoryStore) Replace(ctx context.Context, ref Ref, old, record []byte, ttl time.Duration) error {
	if err := cmp.Or(checkOld(old), checkLifetime(ttl)); err != nil {
		return err
	}
	now, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer s.mu.Unlock()

	e, err := s.match(ref, old, now)
	if err != nil {
		return err
	}
	e.record = bytes.Clone(record)
	e.expires = now.Add(ttl)
	return nil
}

// Touch implements [Store].
func (s *MemoryStore) Touch(ctx context.Context, ref Ref, ttl time.Duration) error {
	if err := checkLifetime(ttl); err != nil {
		return err
	}
	now, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer s.mu.Unlock()

	e := s.find(ref, now)
	if e == nil || e.to != nil {
		return ErrNotFound
	}
	if e.renewed {
		return ErrRenewed
	}
	e.expires = now.Add(ttl)
	return nil
}

// Delete implements [Store].
func (s *MemoryStore) Delete(ctx context.Context, ref Ref) error {
	now, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer s.mu.Unlock()

	if e := s.find(ref, now); e != nil {
		if e.renewed || e.to != nil && e.to.renewed && s.alive(e.to, now) {
			return ErrRenewed
		}
		s.remove(e)
		if e.to == nil {
			s.tell(ref.ID)
			return nil
		}
		s.remove(e.to)
		s.tell(ref.ID, e.to.ref.ID)
	}
	return nil
}

// Rotate implements [Store]. When to is taken it returns [ErrConflict] and leaves
// both refs as they are.
func (s *MemoryStore) Rotate(ctx context.Context, from, to Ref, old, record []byte, ttl, grace time.Duration) error {
	if err := checkRotate(from, to, old, ttl, grace); err != nil {
		return err
	}
	now, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer s.mu.Unlock()

	e, err := s.match(from, old, now)
	if err != nil {
		return err
	}
	if s.find(to, now) != nil {
		return ErrConflict
	}
	delete(s.refs, from)
	e.ref = to
	s.refs[to] = e
	e.record = bytes.Clone(record)
	e.expires = now.Add(ttl)
	if grace > 0 {
		s.add(&memoryEntry{ref: from, to: e, expires: now.Add(grace)})
	}
	s.tell(from.ID)
	return nil
}

// Renew implements [Store].
func (s *MemoryStore) Renew(ctx context.Context, from, to Ref, old, record []byte, ttl time.Duration, limit Limit) (evicted []string, err error) {
	if err := checkRenew(from, to, old, ttl); err != nil {
		return nil, err
	}
	now, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer s.mu.Unlock()

	e, err := s.match(from, old, now)
	if err != nil {
		return nil, err
	}
	if s.find(to, now) != nil {
		return nil, ErrConflict
	}
	if from.Subject == to.Subject {
		s.add(&memoryEntry{ref: to, record: bytes.Clone(record), order: e.order, expires: now.Add(ttl)})
	} else if evicted, err = s.insert(to, record, now, ttl, limit); err != nil {
		return nil, err
	}
	s.unindex(e)
	e.record, e.renewed, e.expires = nil, true, now.Add(renewedFor)
	s.tell(from.ID)
	return evicted, nil
}

// List implements [Store].
func (s *MemoryStore) List(ctx context.Context, subject string) ([]Entry, error) {
	now, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer s.mu.Unlock()

	var list []Entry
	sessions := s.sessions(subject, now)
	for _, e := range sessions[max(0, len(sessions)-MaxListed):] {
		list = append(list, e.entry(now))
	}
	return list, nil
}

// Count implements [Store].
func (s *MemoryStore) Count(ctx context.Context, subject string) (int, error) {
	now, err := s.lock(ctx)
	if err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	return len(s.sessions(subject, now)), nil
}

// DeleteSubject implements [Store].
func (s *MemoryStore) DeleteSubject(ctx context.Context, subject string, except []string) (int, error) {
	now, err := s.lock(ctx)
	if err != nil {
		return 0, err
	}
	defer s.mu.Unlock()

	keep := make(map[*memoryEntry]bool)
	for _, id := range except {
		if e := s.find(Ref{ID: id, Subject: subject}, now); e != nil {
			keep[cmp.Or(e.to, e)] = true
		}
	}
	ended := slices.DeleteFunc(s.sessions(subject, now), func(e *memoryEntry) bool { return keep[e] })
	for _, e := range ended {
		s.remove(e)
	}
	s.tellOf(subject, ended, keep)
	return len(ended), nil
}

// Watch implements [Watcher]. It starts no goroutine: the method that ends a session
// calls tell, while the store is locked.
func (s *MemoryStore) Watch(ctx context.Context, tell func(Hint)) error {
	if _, err := s.lock(ctx); err != nil {
		return err
	}
	s.watches[&tell] = struct{}{}
	tell(Hint{All: true})
	s.mu.Unlock()

	var err error
	select {
	case <-ctx.Done():
		err = contextOver(ctx)
	case <-s.closes:
		err = errMemoryClosed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.watches, &tell)
	return err
}

// tell names sessions that have just ended. The store is locked.
func (s *MemoryStore) tell(ids ...string) {
	for tell := range s.watches {
		(*tell)(Hint{IDs: slices.Clone(ids)})
	}
}

// maxTold is the most sessions of a subject that a Hint names one by one.
const maxTold = 100

// tellOf names sessions of a subject that have just ended: of more than maxTold sessions
// it says that they are the subject's, and not those kept.
func (s *MemoryStore) tellOf(subject string, ended []*memoryEntry, kept map[*memoryEntry]bool) {
	if len(s.watches) == 0 || len(ended) == 0 {
		return
	}
	if len(ended) <= maxTold {
		ids := make([]string, len(ended))
		for i, e := range ended {
			ids[i] = e.ref.ID
		}
		s.tell(ids...)
		return
	}
	spared := make(map[string]bool, len(kept))
	for e := range kept {
		spared[e.ref.ID] = true
	}
	for tell := range s.watches {
		(*tell)(Hint{Match: func(ref Ref) bool { return ref.Subject == subject && !spared[ref.ID] }})
	}
}

// Scan implements [Store]. It holds one record at a time, and does not lock the
// store while the caller looks at that record.
func (s *MemoryStore) Scan(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		// The last entry takes the place of a removed one. So a scan from the end to
		// the beginning may meet an entry twice, but misses none.
		for pos := math.MaxInt; pos > 0; {
			now, err := s.lock(ctx)
			if err != nil {
				yield(Entry{}, err)
				return
			}
			pos = min(pos, len(s.entries)) - 1
			var entry Entry
			visit := pos >= 0 && s.entries[pos].isSession() && !s.entries[pos].expired(now)
			if visit {
				entry = s.entries[pos].entry(now)
			}
			s.mu.Unlock()
			if visit && !yield(entry, nil) {
				return
			}
		}
	}
}

// PutTicket implements [TicketStore].
func (s *MemoryStore) PutTicket(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := checkLifetime(ttl); err != nil {
		return err
	}
	now, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer s.mu.Unlock()

	if e := s.tickets[key]; e != nil {
		s.remove(e)
	}
	e := &memoryEntry{ticket: key, record: bytes.Clone(value), expires: now.Add(ttl), pos: len(s.entries)}
	s.entries = append(s.entries, e)
	s.tickets[key] = e
	return nil
}

// TakeTicket implements [TicketStore].
func (s *MemoryStore) TakeTicket(ctx context.Context, key string) ([]byte, error) {
	now, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer s.mu.Unlock()

	e := s.tickets[key]
	if e == nil || !s.alive(e, now) {
		return nil, ErrNotFound
	}
	s.remove(e)
	return e.record, nil
}

var errMemoryClosed = fmt.Errorf("%w: the memory store is closed", ErrStoreUnavailable)

// contextOver is what a method returns whose context has ended.
func contextOver(ctx context.Context) error {
	return fmt.Errorf("%w: %w", ErrStoreUnavailable, ctx.Err())
}

// lock begins a method: it locks the store and returns the time of the call. The
// caller unlocks the store. After an error the store is not locked.
func (s *MemoryStore) lock(ctx context.Context) (now time.Time, err error) {
	if ctx.Err() != nil {
		return time.Time{}, contextOver(ctx)
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return time.Time{}, errMemoryClosed
	}
	now = s.now()
	s.sweep(now)
	return now, nil
}

// sweep looks at the next few entries and removes those that have expired.
func (s *MemoryStore) sweep(now time.Time) {
	for range min(sweepStep, len(s.entries)) {
		if s.hand >= len(s.entries) {
			s.hand = 0
		}
		if s.alive(s.entries[s.hand], now) {
			s.hand++
		} // else another entry is at hand now
	}
}

// find returns what is under ref, or nil.
func (s *MemoryStore) find(ref Ref, now time.Time) *memoryEntry {
	if e := s.refs[ref]; e != nil && s.alive(e, now) {
		return e
	}
	return nil
}

// match returns the session under ref if its record begins with old.
func (s *MemoryStore) match(ref Ref, old []byte, now time.Time) (*memoryEntry, error) {
	e := s.find(ref, now)
	if e == nil {
		return nil, ErrNotFound
	}
	if e.renewed {
		return nil, ErrRenewed
	}
	if e.to != nil || !bytes.HasPrefix(e.record, old) {
		return nil, ErrConflict
	}
	return e, nil
}

// sessions returns the live sessions of a subject, oldest first.
func (s *MemoryStore) sessions(subject string, now time.Time) []*memoryEntry {
	var sessions []*memoryEntry
	for e := range s.subjects[subject] {
		if s.alive(e, now) {
			sessions = append(sessions, e)
		}
	}
	slices.SortFunc(sessions, func(a, b *memoryEntry) int { return cmp.Compare(a.order, b.order) })
	return sessions
}

func (s *MemoryStore) add(e *memoryEntry) {
	e.pos = len(s.entries)
	s.entries = append(s.entries, e)
	s.refs[e.ref] = e
	if subject := e.ref.Subject; subject != "" && e.to == nil {
		if s.subjects[subject] == nil {
			s.subjects[subject] = make(map[*memoryEntry]struct{})
		}
		s.subjects[subject][e] = struct{}{}
	}
}

// remove removes e, if it is still there, and puts the last entry in its place.
func (s *MemoryStore) remove(e *memoryEntry) {
	if e.pos == removed {
		return
	}
	n := len(s.entries) - 1
	last := s.entries[n]
	last.pos = e.pos
	s.entries[e.pos] = last
	s.entries[n] = nil
	s.entries = s.entries[:n]
	e.pos = removed

	if e.ticket != "" {
		delete(s.tickets, e.ticket)
		return
	}
	delete(s.refs, e.ref)
	s.unindex(e)
}

// unindex takes e out of the sessions of its subject.
func (s *MemoryStore) unindex(e *memoryEntry) {
	subject := e.ref.Subject
	delete(s.subjects[subject], e)
	if len(s.subjects[subject]) == 0 {
		delete(s.subjects, subject)
	}
}

// alive reports whether e has lifetime left, and removes e where it has none.
func (s *MemoryStore) alive(e *memoryEntry, now time.Time) bool {
	if e.expired(now) {
		s.remove(e)
		return false
	}
	return true
}

// isSession reports whether e is a session, and not a ticket or what is left of a session
// that moved.
func (e *memoryEntry) isSession() bool { return e.to == nil && !e.renewed && e.ticket == "" }

// moved says where the session went that was once under e.ref, or nil for a session.
func (e *memoryEntry) moved(now time.Time) error {
	switch {
	case e.to != nil:
		return &RotatedError{To: e.to.ref.ID, Left: e.expires.Sub(now)}
	case e.renewed:
		return ErrRenewed
	}
	return nil
}

// expired reports whether the lifetime of e has passed: it is over at its very
// end.
func (e *memoryEntry) expired(now time.Time) bool { return !now.Before(e.expires) }

func (e *memoryEntry) entry(now time.Time) Entry {
	return Entry{Record: bytes.Clone(e.record), TTL: e.expires.Sub(now)}
}
