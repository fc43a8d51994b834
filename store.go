package echosession

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

// Ref names one stored session.
type Ref struct {
	// ID is the session ID, a canonical lower-case UUID.
	ID string

	// Subject is whose session it is when sessions are indexed by subject
	// ([Config.SubjectIndex]), and empty otherwise. It may hold any bytes. Create,
	// Rotate, List and DeleteSubject are atomic among the sessions of one subject,
	// if these sessions are not very many: each method says what then holds.
	Subject string
}

// Entry is a stored record and the lifetime that it has left.
type Entry struct {
	Record []byte
	TTL    time.Duration
}

// MaxListed is the most sessions that [Store.List] and [Manager.List] return: of more
// they return the newest.
const MaxListed = 1000

// A Limit bounds the live sessions of a subject. The zero Limit is none.
type Limit struct {
	// Sessions is how many there can be, the new one included. 0 is any number.
	Sessions int

	// WhenFull says what gives way to one more.
	WhenFull WhenFull
}

// WhenFull is what happens when a subject has [Config.MaxSessions] sessions and one
// more is to be created.
type WhenFull int

const (
	// EvictOldest ends the oldest sessions of the subject.
	EvictOldest WhenFull = iota

	// RefuseNew creates nothing and returns [ErrTooManySessions].
	RefuseNew
)

// String returns the name of the constant.
func (w WhenFull) String() string {
	if w == RefuseNew {
		return "RefuseNew"
	}
	return "EvictOldest"
}

// A Store keeps records. It knows refs, bytes and lifetimes: never the user's
// type, Echo, cookies or tokens. [NewMemoryStore] and [NewRedisStore] return the
// two stores of this package; package storetest is the conformance suite for any
// other. Implementations are safe for concurrent use.
//
// Records are opaque. They are never empty and never begin with the byte 0xC1:
// a store may use that byte to tell its own entries from records. A store keeps
// no reference to a slice that it was given, and the slices that it returns
// belong to the caller.
//
// Lifetimes are idle timeouts: a record is gone when its lifetime has passed,
// and a store never keeps a record without a lifetime. A store refuses a
// lifetime under a millisecond with an error, before it changes anything.
//
// Only Create, Rotate and Renew bring a new key into being: no other method brings
// back what is gone.
//
// Every method obeys ctx. A store that cannot answer returns an error that
// matches [ErrStoreUnavailable], or [ErrIndeterminate] when a write may have
// been applied; it never reports such a failure as [ErrNotFound].
type Store interface {
	// Load returns the record of ref. A ttl above zero restarts its lifetime in
	// the same step; with zero the lifetime stays as it is. It returns
	// [ErrNotFound] when there is no record. While ref is in the grace of a Rotate
	// it returns a [*RotatedError] that names the successor, and no ttl prolongs
	// that grace.
	//
	// For a minute after a Renew of ref it returns [ErrRenewed].
	//
	// A ref with a subject, once removed from its subject's index, is not found:
	// by a Load with a ttl above zero or a Check at the latest.
	Load(ctx context.Context, ref Ref, ttl time.Duration) (record []byte, err error)

	// Create stores a record under a ref that holds none. A limit bounds the live
	// sessions of ref.Subject: the oldest are deleted in the same step, or with
	// [RefuseNew] nothing is stored and Create returns [ErrTooManySessions]. A store
	// may delete at most 1,000 in one step; then the next Create with a limit goes on.
	// Without a subject, limit has no effect. It returns [ErrConflict] when ref holds
	// another record. Once a Create may have been applied, the store does not try it
	// again: that could bring back a session that was deleted meanwhile.
	//
	// evicted has the IDs of the sessions that this call deleted for the limit, in no
	// order, and is nil when it deleted none. A session whose lifetime had passed is not
	// among them: nothing was left to delete. With an error, evicted has what the store
	// knows, and that may be nothing.
	Create(ctx context.Context, ref Ref, record []byte, ttl time.Duration, limit Limit) (evicted []string, err error)

	// Check returns the lifetime that ref has left, and restarts nothing. It goes past
	// caches and replicas, and to the index of ref.Subject. It returns [ErrNotFound],
	// [ErrRenewed] or a [*RotatedError] as a Load does.
	Check(ctx context.Context, ref Ref) (left time.Duration, err error)

	// Replace stores record under ref if the record there begins with old, which
	// is not empty, and restarts its lifetime. It returns [ErrNotFound] when
	// there is no record or ref is no longer in its subject's index, and
	// [ErrConflict] when the record begins with something else or ref was rotated
	// away. For a minute after a Renew of ref it returns [ErrRenewed].
	Replace(ctx context.Context, ref Ref, old, record []byte, ttl time.Duration) error

	// Touch restarts the lifetime of ref. It returns [ErrNotFound] when there is
	// no record, ref was rotated away, or is no longer in its subject's index, and
	// [ErrRenewed] for a minute after a Renew of ref.
	Touch(ctx context.Context, ref Ref, ttl time.Duration) error

	// Delete removes ref and, if ref was rotated away, all its successors. It
	// returns no error when there is nothing to remove. After 32 rotations in a row
	// a store may give up with [ErrStoreUnavailable]. For a minute after a Renew of ref,
	// or of a session that ref leads to, it removes nothing and returns [ErrRenewed]:
	// who knows the session from before a login cannot end the session after it.
	Delete(ctx context.Context, ref Ref) error

	// Rotate moves a session to a new ref of the same subject. If the record under
	// from begins with old, it stores record under to, and from leads to it for
	// grace: see Load. A grace of zero removes from at once. to takes the place of
	// from in the subject's index. It returns [ErrNotFound] and [ErrConflict] as
	// Replace does; then nothing can be found under to.
	Rotate(ctx context.Context, from, to Ref, old, record []byte, ttl, grace time.Duration) error

	// Renew moves a session to a new ref, which may be of another subject, and ends
	// from at once: nothing leads from it to its successor. If the record under from
	// begins with old, it stores record under to, and for a minute says [ErrRenewed] of
	// from. With the same subject, to takes the place of from in the subject's index;
	// otherwise it is the newest of its subject, and limit holds as in Create.
	//
	// It returns [ErrConflict] when the record begins with something else or from was
	// rotated away, [ErrRenewed] when from was renewed before, and [ErrNotFound] when
	// there is no record, from is no longer in its subject's index, or to was deleted
	// while Renew was under way. After these errors and after [ErrTooManySessions]
	// nothing is found under to. When Renew breaks off, whatever is left of to cannot
	// be found, and is gone after a minute. Once it may have been applied, Renew may
	// return [ErrIndeterminate]: then to is there, or from is as it was, or both are gone.
	//
	// evicted is as in Create, and from is not in it: from did not give way to the limit.
	// When the reply to an attempt was lost and another attempt found the work done, evicted
	// has what the store knows, and that may be nothing.
	Renew(ctx context.Context, from, to Ref, old, record []byte, ttl time.Duration, limit Limit) (evicted []string, err error)

	// List returns the live sessions of a subject, oldest first: of more than
	// [MaxListed] sessions, the newest. A session that is live from the start of List
	// to its end is among them once. For an empty subject it returns no sessions
	// and no error.
	List(ctx context.Context, subject string) ([]Entry, error)

	// Count returns how many live sessions a subject has: what a limit counts. For an
	// empty subject it returns 0 and no error.
	Count(ctx context.Context, subject string) (int, error)

	// DeleteSubject removes every session of a subject in one step, and returns
	// how many it removed. Of more than 5,000 sessions a store may remove some
	// earlier; the last step removes every session that the subject then has. It
	// spares the sessions with the IDs in except, and the successors of these
	// sessions. For an empty subject it removes no session and returns no error.
	DeleteSubject(ctx context.Context, subject string, except []string) (int, error)

	// Scan visits every record that exists from its start to its end, in any
	// order. It may visit a record more than once. It holds a bounded number of
	// records in memory. An error ends it: it is the last that Scan yields.
	Scan(ctx context.Context) iter.Seq2[Entry, error]
}

// A Pinger is a [Store] that can tell why it does not work: see [Manager.Ping].
type Pinger interface {
	// Ping changes nothing. Its error matches [ErrStoreUnavailable], and the text names
	// the cause and what to do, without a secret.
	Ping(ctx context.Context) error
}

// A Watcher is a [Store] that tells when sessions end, in whichever process that was: see
// [Session.Watch]. Without it a Manager asks the store again and again.
type Watcher interface {
	// Watch calls tell for sessions that may have ended: deleted, evicted, renewed or
	// rotated away, by any process. A Hint comes after the change: whoever asks
	// [Store.Check] then gets the answer that counts. A Hint may come late, twice, or
	// without need. A session that is only read and written gets none, and an end of a
	// lifetime needs none.
	//
	// The first Hint has All set, as soon as Watch is sure to tell of every later end.
	// Watch returns when ctx is done or when it may miss an end. Its caller then calls
	// it again, and learns from All that it may have missed some. An error that matches
	// [ErrUnsupported] says that calling again soon is of no use.
	//
	// tell returns at once and calls no method of the store. Several goroutines may call
	// it, but none after Watch has returned.
	Watch(ctx context.Context, tell func(Hint)) error
}

// A Hint names sessions that may have ended.
type Hint struct {
	// All says that any session may have ended.
	All bool

	// IDs are of sessions that may have ended, whatever their subject.
	IDs []string

	// Match, unless it is nil, reports whether the session of a ref may have ended. It is
	// for many sessions of one subject.
	Match func(Ref) bool
}

// A TicketStore is a [Store] that also keeps what [Session.Ticket] makes. Keys are 43
// characters of base64url, and name nothing else in the store.
type TicketStore interface {
	// PutTicket keeps value under key for ttl, which is a millisecond or more, in the place
	// of what is there. Once it may have been applied, the store does not try it again: that
	// could bring back what was taken meanwhile.
	PutTicket(ctx context.Context, key string, value []byte, ttl time.Duration) error

	// TakeTicket removes and returns what is under key: of many calls at once, one gets
	// it. It returns [ErrNotFound] when there is nothing. After an error that matches
	// [ErrStoreUnavailable] the value may be gone: the store does not try again.
	TakeTicket(ctx context.Context, key string) (value []byte, err error)
}

// RotatedError is returned by [Store.Load] and [Store.Check] for a ref that was rotated
// away and whose grace has not ended.
type RotatedError struct {
	// To is the ID of the successor.
	To string

	// Left is how much of the grace is left. Zero says that the store does not know.
	Left time.Duration
}

func (*RotatedError) Error() string { return "echosession: the session was rotated" }

// checkLifetime refuses a lifetime under a millisecond, the smallest unit that
// every store can keep.
func checkLifetime(ttl time.Duration) error {
	if ttl < time.Millisecond {
		return fmt.Errorf("echosession: the lifetime %v is under a millisecond", ttl)
	}
	return nil
}

// checkOld refuses an empty start of a record: every record begins with it.
func checkOld(old []byte) error {
	if len(old) == 0 {
		return errors.New("echosession: the start of the record to be replaced is empty")
	}
	return nil
}

// renewedFor is how long a store says [ErrRenewed] of a ref that was renewed.
const renewedFor = time.Minute

// checkRotate refuses what no store can rotate.
func checkRotate(from, to Ref, old []byte, ttl, grace time.Duration) error {
	if from.Subject != to.Subject {
		return errors.New("echosession: a session is rotated within its subject")
	}
	if grace != 0 {
		if err := checkLifetime(grace); err != nil {
			return err
		}
	}
	return cmp.Or(checkOld(old), checkLifetime(ttl))
}

// checkRenew refuses what no store can renew.
func checkRenew(from, to Ref, old []byte, ttl time.Duration) error {
	if from == to {
		return errors.New("echosession: a session is renewed under another ID")
	}
	return cmp.Or(checkOld(old), checkLifetime(ttl))
}
