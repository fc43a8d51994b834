package echosession

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"

	"github.com/echosession/echosession/internal/jwt"
)

// engine is what a Manager does, whatever its T. Values of T are handed to it as
// pointers. It is immutable.
type engine struct {
	cfg        settings
	store      Store       // each call is told of, where somebody observes
	own        Store       // the store itself, for what else it can do
	tickets    TicketStore // nil: the store keeps none
	tokens     *jwt.Keyring
	verified   *jwt.Cache
	serializer *serializer
	importer   *importer // nil: what is not a record is corrupt
	reports    *reporter
	lookup     *lookup
	origins    *originGuard
	hub        *hub
	keeps      bool         // this process may serve what has ended elsewhere: see hub.use
	stale      *staleCopies // nil: nothing is kept for an outage
}

// settings are the fields of a Config, with their defaults, that an engine and its
// handles ask at run time.
type settings struct {
	StoreTimeout               time.Duration
	MaxAge, AbsoluteTimeout    time.Duration
	TouchInterval, RotateGrace time.Duration
	RequestKey                 string
	Cookie                     *Cookie
	SubjectIndex               bool
	Limit                      Limit // of a subject's sessions
	Now                        func() time.Time
	OnEvent                    func(context.Context, Event) // nil: nobody is told
}

const (
	// verifiedBytes bounds the memory of verified tokens: some 40,000 of them.
	verifiedBytes = 32 << 20

	maxSubject = 1 << 10

	// maxCreates bounds how many IDs are tried for a new session.
	maxCreates = 3

	// maxConflicts bounds the attempts of a write that meets other writers.
	maxConflicts = 256

	// maxRotations bounds the chain of rotated sessions that is followed.
	maxRotations = 32
)

// errForeignRecord is a store's answer that belongs to another question.
var errForeignRecord = namedError{error: errors.New("the store answered with another session's record"), name: "reply of another command"}

// errNoTime is a mistake in the options of a new session. The one before has not ended.
var errNoTime = errors.New("echosession: the new session would be over at once: give it a millisecond or more")

var errTooManyRotations = errors.New("too many rotations in a row")

// live is a live session, as it was last seen. A change makes a new one.
type live struct {
	ref       Ref
	via       Ref // what the token names: another ref when the session was rotated since
	token     string
	tok       *jwt.Cached // nil when the session was found without its token
	header    recordHeader
	record    []byte
	expiresAt time.Time
	usedAt    time.Time // the last use, zero: not known
	touched   bool      // reading it restarted the idle timeout
	inCookie  bool      // the client has the token in a cookie
	stale     bool      // it is a copy, and the store is down: see ServeStale
}

func (e *engine) ref(id, subject string) Ref {
	if !e.cfg.SubjectIndex {
		subject = ""
	}
	return Ref{ID: id, Subject: subject}
}

// open finds the session of a token and decodes its data into v.
func (e *engine) open(ctx context.Context, token string, v any) (*live, error) {
	now := e.cfg.Now()
	tok, known, err := e.verify(token, now)
	if err != nil {
		e.turnedAway(ctx, nil, err)
		return nil, err
	}
	via := e.ref(tok.ID, tok.Subject)
	deadline, _ := tok.ExpiresAt()
	l := &live{ref: via, via: via, token: token, tok: tok, header: recordHeader{idle: tok.Idle, deadline: deadline, subject: tok.Subject}}
	// Last seen in the future: the clock was set back.
	last := time.Unix(0, tok.LastTouch.Load())
	touch := now.Sub(last) >= e.touchInterval(tok.Idle) || last.After(now)
	if err := e.read(ctx, l, touch, v); err != nil {
		if hasEnded(err) {
			e.verified.Remove(token)
		}
		e.turnedAway(ctx, l, err)
		return nil, err
	}
	if touch {
		tok.LastTouch.Store(now.UnixNano())
	}
	if tok.OldKey && tok.Told.CompareAndSwap(false, true) {
		e.happened(ctx, EventOldKey, "signing", tok.Subject, tok.ID)
	}
	e.opened(ctx, known, l)
	return l, nil
}

// verify checks a token, and the times in it. known is the Reason of [EventOpened].
func (e *engine) verify(token string, now time.Time) (tok *jwt.Cached, known string, err error) {
	known = "cached"
	if tok = e.verified.Get(token); tok == nil {
		known = "verified"
		good, err := e.tokens.Verify(token)
		if err != nil {
			return nil, "", err
		}
		tok = e.remember(token, good)
	}
	return tok, known, e.tokens.CheckTime(tok.Token, now)
}

// remember keeps a verified token for the next request with it.
func (e *engine) remember(token string, good *jwt.Token) *jwt.Cached {
	if e.cfg.OnEvent != nil {
		good.LogID = LogID(good.ID)
	}
	return e.verified.Add(token, good)
}

// touchInterval is how long a use is not worth telling the store.
func (e *engine) touchInterval(idle time.Duration) time.Duration {
	if e.cfg.TouchInterval == TouchAlways {
		return 0
	}
	if idle > 0 {
		return min(e.cfg.TouchInterval, idle/20)
	}
	return e.cfg.TouchInterval
}

// expiry is when a session ends that was used at a time and is not used again.
func (e *engine) expiry(h recordHeader, used time.Time) time.Time {
	idle := e.cfg.MaxAge
	if h.idle > 0 {
		idle = h.idle
	}
	end := used.Add(idle)
	if !h.deadline.IsZero() && (h.idle == jwt.NoIdle || h.deadline.Before(end)) {
		return h.deadline
	}
	return end
}

// lifetime is how long a session lives that is used now and not again. It is an
// error that the store must not be handed less than it can keep.
func (e *engine) lifetime(h recordHeader, now time.Time) (time.Duration, error) {
	ttl := e.expiry(h, now).Sub(now)
	if ttl < time.Millisecond {
		return 0, fmt.Errorf("%w: its time is over", ErrSessionGone)
	}
	return ttl, nil
}

// left is how long a session will live.
func (e *engine) left(l *live) time.Duration { return l.expiresAt.Sub(e.cfg.Now()) }

// listen hears of ends from now on, if this process may serve what has ended elsewhere.
func (e *engine) listen() {
	if e.keeps {
		e.hub.use()
	}
}

// read fills in l from the store, following rotations, and decodes the data into
// v unless that is nil.
func (e *engine) read(ctx context.Context, l *live, touch bool, v any) error {
	e.listen()
	now := e.cfg.Now()
	ttl, err := e.lifetime(l.header, now)
	if err != nil {
		return err
	}
	use := time.Duration(0)
	if touch {
		use = ttl
	}
	l.ref = l.via // the token's own ID: a rotation's grace may be over
	began := e.stale.reading()
	for range maxRotations {
		record, err := e.load(ctx, l.ref, use)
		if rotated, ok := errors.AsType[*RotatedError](err); ok {
			e.stale.ended(l.ref.ID)
			l.ref.ID = rotated.To
			continue
		}
		if err != nil {
			if isEnd(err) {
				e.stale.ended(l.ref.ID)
			}
			return e.failed(ctx, "load", err)
		}
		if e.imports(l, record) {
			if err := e.importStored(ctx, l, record, touch, ttl); err != nil {
				return err
			}
			began = e.stale.reading()
			continue
		}
		header, err := e.serializer.decode(l.ref.ID, record, v)
		if err == nil && header.subject != l.header.subject {
			// Nothing authenticates that a rotation led here.
			err = corrupt(whyHead, "it is of another subject")
		}
		if errors.Is(err, ErrCorrupt) {
			// A connection that is out of step hands out replies to other commands:
			// only what is read twice is what is stored.
			if again, _ := e.load(ctx, l.ref, use); !bytes.Equal(again, record) {
				err = ErrStoreUnavailable
			}
		}
		if err != nil {
			return e.unreadable(ctx, "load", l.ref.ID, err)
		}
		if header.oldKey {
			e.happened(ctx, EventOldKey, "encryption", header.subject, l.ref.ID)
		}
		l.record, l.header, l.touched, l.usedAt = record, header, touch, now
		if !touch {
			l.usedAt = time.Unix(0, l.tok.LastTouch.Load())
		}
		l.expiresAt, l.stale = e.expiry(header, l.usedAt), false
		e.stale.keep(l, began, now)
		return nil
	}
	return e.failed(ctx, "load", unavailable(errTooManyRotations))
}

// used notes that the session's idle timeout was just restarted, and that the
// client's cookie, if there is one, is told so. Update and Reload restart it and
// tell the cookie nothing, so the next open does it again.
func (e *engine) used(l *live, now time.Time) {
	l.expiresAt, l.usedAt = e.expiry(l.header, now), now
	if l.tok != nil {
		l.tok.LastTouch.Store(now.UnixNano())
	}
}

func (e *engine) load(ctx context.Context, ref Ref, ttl time.Duration) ([]byte, error) {
	call, cancel := context.WithTimeout(ctx, e.cfg.StoreTimeout)
	defer cancel()
	record, err := e.store.Load(call, ref, ttl)
	e.stale.heard(ctx, ref, err)
	return record, err
}

// write runs a store's write. It goes on when the client hangs up.
func (e *engine) write(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.cfg.StoreTimeout)
	defer cancel()
	return do(ctx)
}

// failed gives the error of a store its form, and reports what is not the client's
// doing. What a store says of its own reaches errors.As alone.
func (e *engine) failed(ctx context.Context, op string, err error) error {
	switch {
	case errors.Is(err, ErrStoreUnavailable):
	case errors.Is(err, ErrNotFound):
		return ErrSessionGone
	case errors.Is(err, ErrRenewed):
		return ErrRenewed
	case errors.Is(err, ErrTooManySessions):
		return ErrTooManySessions
	case errors.Is(err, ErrConflict):
		return &storeError{ErrConflict, err}
	default:
		err = unavailable(err)
	}
	if !errors.Is(err, context.Canceled) { // the client hung up
		e.reports.report(slog.LevelError, failureKind{"session store unavailable", op, causeOf(err)})
	}
	if kind := storeSentinel(err); kind == ErrIndeterminate || kind == ErrNotReplicated {
		e.observe(ctx, Event{Kind: EventIndeterminate, Reason: causeOf(err), Err: kind})
	}
	return concealed(err)
}

// unreadable reports a record that the serializer refused.
func (e *engine) unreadable(ctx context.Context, op, id string, err error) error {
	if errors.Is(err, ErrStoreUnavailable) {
		return e.failed(ctx, op, unavailable(errForeignRecord))
	}
	e.reports.report(slog.LevelWarn, failureKind{"session record cannot be read", op, err.Error()})
	if e.cfg.OnEvent != nil {
		ev := Event{Kind: EventUnreadable, Reason: corruptReason(err), Count: 1, Err: ErrCorrupt}
		if id != "" {
			ev.LogID = LogID(id)
		}
		e.observe(ctx, ev)
	}
	return err
}

// refused reports a mistake of the program: an error that is answered with 500.
func (e *engine) refused(op string, err error) error {
	e.reports.report(slog.LevelError, failureKind{"session operation refused", op, mistakeOf(err)})
	return err
}

// isEnd reports whether a store's error says that a session is no longer there.
func isEnd(err error) bool { return errors.Is(err, ErrNotFound) || errors.Is(err, ErrRenewed) }

// hasEnded reports whether an error of this package says that a session is no longer there.
func hasEnded(err error) bool {
	return errors.Is(err, ErrSessionGone) || errors.Is(err, ErrRenewed)
}

// create stores a new session with the data that v points to.
func (e *engine) create(ctx context.Context, v any, p createParams) (*live, error) {
	now := e.cfg.Now()
	header, claims, err := e.begin("create", p, nil, now)
	if err != nil {
		return nil, err
	}
	// All attempts share the time of one.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.cfg.StoreTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		l, again, err := e.insert(ctx, v, header, claims, now)
		if err == nil {
			e.used(l, now)
			reason := "login"
			if header.authenticatedAt.IsZero() {
				reason = "guest"
			}
			e.happened(ctx, EventCreated, reason, header.subject, l.ref.ID)
			return l, nil
		}
		if !again || attempt == maxCreates {
			e.foundFull(ctx, header.subject, err)
			return nil, err
		}
	}
}

// insert stores a new session under a new ID. After a lost reply it looks whether the
// session is there. again says that it is not: it was never stored, or was revoked
// meanwhile. Storing the same session again could undo a revocation, so the next
// attempt takes another ID.
func (e *engine) insert(ctx context.Context, v any, h recordHeader, claims jwt.Claims, now time.Time) (l *live, again bool, err error) {
	if l, err = e.issue(h, claims, now); err != nil {
		return nil, false, err
	}
	if l.record, err = e.serializer.encode(l.header, v, nil); err != nil {
		return nil, false, e.refused("create", err)
	}
	ttl, err := e.lifetime(l.header, now)
	if err != nil {
		return nil, false, err
	}
	l.expiresAt, l.usedAt = now.Add(ttl), now
	e.listen()
	var evicted []string
	err = e.stale.creating(l, e.cfg.Limit).run(l, func() error {
		var err error
		evicted, err = e.store.Create(ctx, l.ref, l.record, ttl, e.cfg.Limit)
		if errors.Is(err, ErrIndeterminate) && !errors.Is(err, ErrNotReplicated) {
			record, loadErr := e.store.Load(ctx, l.ref, 0)
			if loadErr == nil && bytes.Equal(record, l.record) {
				return nil
			}
			again = errors.Is(loadErr, ErrNotFound)
		}
		return err
	})
	e.evicted(ctx, h.subject, evicted) // after an error too
	if err == nil {
		return l, false, nil
	}
	e.verified.Remove(l.token) // nobody gets it
	return nil, again, e.failed(ctx, "create", err)
}

// issue makes a new session ID, and the token of a session with this header.
func (e *engine) issue(h recordHeader, claims jwt.Claims, now time.Time) (*live, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return nil, fmt.Errorf("echosession: no randomness for a session ID: %w", err)
	}
	h.id = id.String()
	token, good, err := e.tokens.Issue(jwt.Params{
		ID: h.id, Now: now, Subject: h.subject, Idle: h.idle, Exp: h.deadline, Actor: h.actor, Claims: claims,
	})
	if err != nil {
		return nil, err
	}
	if !e.cfg.Cookie.fits(token) {
		return nil, fmt.Errorf("%w: a token of %d bytes does not fit into a cookie; carry fewer claims", ErrTooLarge, len(token))
	}
	// As the token says it, rounded: that is what counts everywhere.
	h.deadline, _ = good.ExpiresAt()
	ref := e.ref(h.id, h.subject)
	return &live{ref: ref, via: ref, token: token, tok: e.remember(token, good), header: h}, nil
}

// update changes the data with fn until no other writer came first. decoded is
// what l's record holds, for fn to change, or nil.
func (e *engine) update(ctx context.Context, l *live, decoded any, fresh func() any, fn func(any) error) (*live, error) {
	current, err := e.current(ctx, l)
	if err != nil {
		return nil, err
	}
	if current != l {
		l, decoded = current, nil
	}
	put := func(ctx context.Context, old, next *live, ttl time.Duration) error {
		return e.store.Replace(ctx, old.ref, revisionOf(old.record), next.record, ttl)
	}
	return e.replace(ctx, "update", l, put, func(old *live) (*live, error) {
		v := decoded
		if v == nil {
			v = fresh()
			if _, err := e.serializer.decode(old.ref.ID, old.record, v); err != nil {
				return nil, e.unreadable(ctx, "update", old.ref.ID, err)
			}
		}
		decoded = nil
		if err := fn(v); err != nil {
			return nil, err
		}
		record, err := e.serializer.encode(old.header, v, old.record)
		if err != nil {
			return nil, e.refused("update", err)
		}
		next := *old
		next.record = record
		return &next, nil
	})
}

// current returns l, or what is behind its token now where another request has rotated it:
// the grace may be over.
func (e *engine) current(ctx context.Context, l *live) (*live, error) {
	if l.ref == l.via {
		return l, nil
	}
	return e.again(ctx, l)
}

// again reads the session again, whatever the client does meanwhile.
func (e *engine) again(ctx context.Context, l *live) (*live, error) {
	next := *l
	if err := e.read(context.WithoutCancel(ctx), &next, true, nil); err != nil {
		return nil, err
	}
	return &next, nil
}

// A putFunc tells the store to keep next, which lives for ttl, in the place of old.
type putFunc func(ctx context.Context, old, next *live, ttl time.Duration) error

// replace puts what prepare makes of a session in its place. When another writer came
// first, it reads the session again and prepare makes another successor.
func (e *engine) replace(ctx context.Context, op string, l *live, put putFunc, prepare func(old *live) (*live, error)) (*live, error) {
	old := l
	for attempt := range maxConflicts {
		next, err := prepare(old)
		if err != nil {
			return nil, err
		}
		now := e.cfg.Now()
		ttl, err := e.lifetime(next.header, now)
		if err != nil {
			if _, ended := e.lifetime(old.header, now); ended == nil {
				err = errNoTime
			}
			return nil, err
		}
		next.expiresAt, next.usedAt = now.Add(ttl), now
		e.listen()
		err = e.stale.replacing(old, next, e.cfg.Limit).run(next, func() error {
			return e.write(ctx, func(ctx context.Context) error { return put(ctx, old, next, ttl) })
		})
		if err == nil {
			return next, nil
		}
		if next.token != old.token {
			e.verified.Remove(next.token) // nobody gets it
		}
		if !errors.Is(err, ErrConflict) {
			return nil, e.failed(ctx, op, err)
		}
		time.Sleep(backoff(attempt))
		if old, err = e.again(ctx, old); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: %d attempts", ErrConflict, maxConflicts)
}

// grace is how long the ref of a rotated session leads to its successor, which
// lives for ttl.
func (e *engine) grace(ttl time.Duration) time.Duration {
	if e.cfg.RotateGrace == NoGrace {
		return 0
	}
	return min(e.cfg.RotateGrace, ttl)
}

// backoff is how long to wait after a conflict: longer and longer, and by chance
// so that the writers do not meet again.
func backoff(attempt int) time.Duration {
	return rand.N(min(time.Millisecond<<min(attempt, 5), 20*time.Millisecond))
}

// reload reads the session again, past caches and replicas.
func (e *engine) reload(ctx context.Context, l *live, v any) (*live, error) {
	next := *l
	if err := e.read(ctx, &next, true, v); err != nil {
		return nil, err
	}
	return &next, nil
}

// touch restarts the idle timeout.
func (e *engine) touch(ctx context.Context, l *live) (*live, error) {
	next := *l
	next.ref = next.via
	for range maxRotations {
		now := e.cfg.Now()
		ttl, err := e.lifetime(next.header, now)
		if err != nil {
			return nil, err
		}
		err = e.write(ctx, func(ctx context.Context) error { return e.store.Touch(ctx, next.ref, ttl) })
		if err == nil {
			e.used(&next, now)
			return &next, nil
		}
		if !errors.Is(err, ErrNotFound) {
			return nil, e.failed(ctx, "touch", err)
		}
		// Gone, or rotated by another request.
		_, err = e.load(ctx, next.ref, 0)
		rotated, ok := errors.AsType[*RotatedError](err)
		if !ok {
			return nil, e.failed(ctx, "touch", cmp.Or(err, ErrNotFound))
		}
		next.ref.ID = rotated.To
	}
	return nil, e.failed(ctx, "touch", unavailable(errTooManyRotations))
}

// check asks the store whether the session is still live, and restarts nothing.
func (e *engine) check(ctx context.Context, l *live) (*live, error) {
	next, now := *l, e.cfg.Now()
	ref, left, err := e.checkChain(ctx, l.via)
	if err != nil {
		return nil, e.failed(ctx, "check", err)
	}
	next.ref, next.expiresAt = ref, now.Add(left)
	if used := e.lastUse(next.header, left, now); used.After(next.usedAt) {
		next.usedAt = used
	}
	return &next, nil
}

// checkChain follows rotations to the session that ref leads to, and returns where that is
// and the lifetime that it has left.
func (e *engine) checkChain(ctx context.Context, ref Ref) (Ref, time.Duration, error) {
	for range maxRotations {
		left, err := e.checkRef(ctx, ref)
		rotated, ok := errors.AsType[*RotatedError](err)
		if !ok {
			return ref, left, err
		}
		ref.ID = rotated.To
	}
	return ref, 0, unavailable(errTooManyRotations)
}

func (e *engine) checkRef(ctx context.Context, ref Ref) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.StoreTimeout)
	defer cancel()
	return e.store.Check(ctx, ref)
}

// clipped is how near to its deadline the end of a lifetime must be to be taken for the
// deadline itself, and to now a last use that seems to come. The clocks of this machine and
// of the store may differ.
const clipped = 2 * time.Second

// lastUse is when a session was last used of which a lifetime is left: that started with
// the idle timeout. It is zero where the deadline ends the lifetime, and where the idle
// timeout was a longer one then.
func (e *engine) lastUse(h recordHeader, left time.Duration, now time.Time) time.Time {
	idle := cmp.Or(h.idle, e.cfg.MaxAge)
	if idle == jwt.NoIdle || !h.deadline.IsZero() && !now.Add(left+clipped).Before(h.deadline) {
		return time.Time{}
	}
	used := now.Add(left - idle)
	if used.Before(h.createdAt) {
		return h.createdAt
	}
	switch {
	case used.After(now.Add(clipped)):
		return time.Time{}
	case used.After(now):
		return now
	}
	return used
}

// rotate moves the session to a new ID and a new token.
func (e *engine) rotate(ctx context.Context, l *live) (*live, error) {
	if l.tok == nil {
		return nil, fmt.Errorf("%w: a listed session has no token to rotate", ErrNoSession)
	}
	put := func(ctx context.Context, old, next *live, ttl time.Duration) error {
		return e.store.Rotate(ctx, old.ref, next.ref, revisionOf(old.record), next.record, ttl, e.grace(ttl))
	}
	var now time.Time
	from := ""
	next, err := e.replace(ctx, "rotate", l, put, func(old *live) (*live, error) {
		from = old.ref.ID
		if old.ref != old.via {
			// The successor's token is on its way to the client. Rotating again would
			// make that token invalid, and would let a stolen old token earn a new one.
			return nil, fmt.Errorf("%w: it was rotated already", ErrSessionGone)
		}
		now = e.cfg.Now()
		if _, err := e.lifetime(old.header, now); err != nil {
			return nil, err
		}
		next, err := e.issue(old.header, e.tokens.CallersClaims(old.tok.Token), now)
		if err != nil {
			return nil, err
		}
		next.header.deadline = old.header.deadline // as the record says it
		if next.record, err = e.serializer.rewrite(old.record, next.ref.ID); err != nil {
			return nil, e.unreadable(ctx, "rotate", old.ref.ID, err)
		}
		return next, nil
	})
	if err == nil {
		e.used(next, now)
		e.moved(ctx, EventRotated, from, next)
	}
	return next, err
}

// renew moves the session through a login: to a new ID and a new token, with what fn
// makes of the data. fresh makes a zero value for fn.
func (e *engine) renew(ctx context.Context, l *live, p createParams, fresh func() any, fn func(any) error) (*live, error) {
	if l.tok == nil {
		return nil, fmt.Errorf("%w: a listed session has no token to renew", ErrNoSession)
	}
	l, err := e.current(ctx, l)
	if err != nil {
		return nil, err
	}
	put := func(ctx context.Context, old, next *live, ttl time.Duration) error {
		evicted, err := e.store.Renew(ctx, old.ref, next.ref, revisionOf(old.record), next.record, ttl, e.cfg.Limit)
		e.evicted(ctx, next.header.subject, evicted) // after an error too
		return err
	}
	var now time.Time
	from, subject := "", ""
	next, err := e.replace(ctx, "renew", l, put, func(old *live) (*live, error) {
		from = old.ref.ID
		now = e.cfg.Now()
		if _, err := e.lifetime(old.header, now); err != nil {
			return nil, err
		}
		header, claims, err := e.begin("renew", p, old, now)
		if err != nil {
			return nil, err
		}
		subject = header.subject
		v, prev := fresh(), []byte(nil)
		if carries(old.header, header.subject) {
			prev = old.record
			if _, err := e.serializer.decode(old.ref.ID, prev, v); err != nil {
				return nil, e.unreadable(ctx, "renew", old.ref.ID, err)
			}
		}
		if err := fn(v); err != nil {
			return nil, err
		}
		next, err := e.issue(header, claims, now)
		if err != nil {
			return nil, err
		}
		if next.record, err = e.serializer.encode(next.header, v, prev); err != nil {
			return nil, e.refused("renew", err)
		}
		return next, nil
	})
	if err != nil {
		e.foundFull(ctx, subject, err)
		return nil, err
	}
	e.used(next, now)
	e.moved(ctx, EventRenewed, from, next)
	return next, nil
}

// destroy ends the session, by whichever of its IDs the token names. reason is that of
// [EventDestroyed].
func (e *engine) destroy(ctx context.Context, l *live, reason string) error {
	return e.end(ctx, l, reason, e.stale.ending(&l.header, l.via.ID, l.ref.ID))
}

// end is destroy when the copies know of it.
func (e *engine) end(ctx context.Context, l *live, reason string, w *staleWrite) error {
	err := w.run(nil, func() error {
		return e.write(ctx, func(ctx context.Context) error { return e.store.Delete(ctx, l.via) })
	})
	if err != nil {
		return e.failed(ctx, "destroy", err)
	}
	e.verified.Remove(l.token)
	e.happened(ctx, EventDestroyed, reason, l.header.subject, l.ref.ID)
	return nil
}

// discard deletes a session whose token was not handed out. If that fails, the
// session expires.
func (e *engine) discard(ctx context.Context, l *live) {
	// Nobody else can have read it, so its login is of no concern: it may be that of another
	// session, which was created in the same millisecond.
	_ = e.end(ctx, l, "discarded", e.stale.ending(nil, l.via.ID))
}

// indexed reports whether sessions can be found by this subject.
func (e *engine) indexed(subject string) error {
	if !e.cfg.SubjectIndex {
		return errors.New("echosession: sessions are not indexed by subject; set Config.SubjectIndex")
	}
	if subject == "" {
		return errors.New("echosession: the subject is empty: sessions without a subject are not indexed")
	}
	return nil
}

func (e *engine) list(ctx context.Context, subject string) ([]Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.StoreTimeout)
	defer cancel()
	entries, err := e.store.List(ctx, subject)
	if err != nil {
		return nil, e.failed(ctx, "list", err)
	}
	return entries, nil
}

func (e *engine) revoke(ctx context.Context, subject string, except []string) (n int, err error) {
	err = e.stale.revoking(subject, except).run(nil, func() error {
		return e.write(ctx, func(ctx context.Context) (err error) {
			n, err = e.store.DeleteSubject(ctx, subject, except)
			return err
		})
	})
	if err != nil {
		return 0, e.failed(ctx, "revoke", err)
	}
	e.observe(ctx, Event{Kind: EventRevoked, Reason: "subject", Subject: subject, Count: n})
	return n, nil
}

func (e *engine) count(ctx context.Context, subject string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.StoreTimeout)
	defer cancel()
	n, err := e.store.Count(ctx, subject)
	if err != nil {
		return 0, e.failed(ctx, "count", err)
	}
	return n, nil
}

// revokeOne ends one session of a subject, and reports whether there was one.
func (e *engine) revokeOne(ctx context.Context, subject, id string) (bool, error) {
	if _, err := parseID(id); err != nil {
		return false, nil // no session has such an ID
	}
	ref := e.ref(id, subject)
	at, _, err := e.checkChain(ctx, ref) // an ID in its grace may lead to what has ended
	if err == nil {
		w := e.stale.ending(e.headerAt(ctx, at), id, at.ID)
		err = w.run(nil, func() error {
			return e.write(ctx, func(ctx context.Context) error { return e.store.Delete(ctx, ref) })
		})
	}
	switch {
	case err == nil:
		e.happened(ctx, EventRevoked, "one", subject, at.ID)
		return true, nil
	case isEnd(err):
		return false, nil
	}
	return false, e.failed(ctx, "revoke", err)
}

// headerAt returns the header of the record at ref, if there are copies that concern its
// login, and nil if it cannot be read.
func (e *engine) headerAt(ctx context.Context, ref Ref) *recordHeader {
	if e.stale == nil {
		return nil
	}
	record, err := e.load(ctx, ref, 0)
	if err != nil {
		return nil
	}
	header, err := e.serializer.header(record)
	if err != nil {
		return nil
	}
	return &header
}

// ping asks the store whether it works. A readiness probe is answered without the cause,
// so the log has it.
func (e *engine) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.StoreTimeout)
	defer cancel()
	if p, ok := e.own.(Pinger); ok {
		err := e.told(ctx, "ping", func() error { return p.Ping(ctx) })
		if err != nil {
			_ = e.failed(ctx, "ping", unavailable(err)) // err itself names the cause
			if !errors.Is(err, ErrStoreUnavailable) {
				err = fmt.Errorf("%w: %w", ErrStoreUnavailable, err)
			}
		}
		return err
	}
	_, err := e.store.Load(ctx, Ref{ID: uuid.NewString()}, 0)
	if err == nil || errors.Is(err, ErrNotFound) {
		return nil
	}
	return fmt.Errorf("%w: %s", e.failed(ctx, "ping", unavailable(err)), causeOf(err))
}

// adopt makes a live session of a stored record, and decodes its data into v.
func (e *engine) adopt(ctx context.Context, entry Entry, v any) (*live, error) {
	header, err := e.serializer.header(entry.Record)
	if err == nil {
		header, err = e.serializer.decode(header.id, entry.Record, v)
	}
	if err != nil {
		return nil, e.unreadable(ctx, "list", idOf(entry.Record), err)
	}
	now := e.cfg.Now()
	ref := e.ref(header.id, header.subject)
	return &live{
		ref: ref, via: ref, header: header, record: entry.Record,
		expiresAt: now.Add(entry.TTL), usedAt: e.lastUse(header, entry.TTL, now),
	}, nil
}
