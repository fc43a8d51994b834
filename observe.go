package echosession

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/echosession/echosession/internal/jwt"
)

// observe tells [Config.OnEvent] of an event. A panic there must not break what it is told of.
func (e *engine) observe(ctx context.Context, ev Event) {
	if e.cfg.OnEvent == nil {
		return
	}
	defer func() {
		if recover() != nil {
			_ = recovered(func() error { // a Logger may panic too
				e.reports.report(slog.LevelError, failureKind{"session event not taken", string(ev.Kind), "OnEvent panicked"})
				return nil
			})
		}
	}()
	e.cfg.OnEvent(ctx, ev)
}

// happened tells what happened to the session of a ref.
func (e *engine) happened(ctx context.Context, kind EventKind, reason, subject, id string) {
	if e.cfg.OnEvent != nil {
		e.observe(ctx, Event{Kind: kind, Reason: reason, Subject: subject, LogID: LogID(id), Count: 1})
	}
}

// moved tells that a session has a new ID.
func (e *engine) moved(ctx context.Context, kind EventKind, from string, to *live) {
	if e.cfg.OnEvent != nil {
		e.observe(ctx, Event{Kind: kind, Subject: to.header.subject, LogID: LogID(to.ref.ID), Before: LogID(from), Count: 1})
	}
}

// opened tells that a token or a ticket led to a session.
func (e *engine) opened(ctx context.Context, reason string, l *live) {
	if e.cfg.OnEvent == nil {
		return
	}
	if l.tok == nil || l.ref != l.via {
		e.happened(ctx, EventOpened, reason, l.header.subject, l.ref.ID)
	} else {
		e.observe(ctx, Event{Kind: EventOpened, Reason: reason, Subject: l.header.subject, LogID: l.tok.LogID, Count: 1})
	}
	if l.ref != l.via {
		e.happened(ctx, EventSuperseded, "", l.header.subject, l.via.ID)
	}
}

// turnedAway tells that a request has no session, or none that will do. l is what its token
// names, or nil where the token is not good. Of an err that is no refusal it does not tell.
func (e *engine) turnedAway(ctx context.Context, l *live, err error) {
	if e.cfg.OnEvent == nil {
		return
	}
	for _, r := range refusals {
		if !errors.Is(err, r.sentinel) {
			continue
		}
		ev := Event{Kind: EventRefused, Reason: r.reason, Count: 1, Err: r.sentinel}
		if r.sentinel == ErrInvalidToken {
			ev.Reason = cmp.Or(jwt.Reason(err), r.reason)
		}
		if l != nil {
			ev.Subject = l.header.subject
			if l.ref.ID != "" {
				ev.LogID = LogID(l.ref.ID)
			}
		}
		e.observe(ctx, ev)
		return
	}
}

// evicted tells of sessions of a subject that gave way to a new one.
func (e *engine) evicted(ctx context.Context, subject string, ids []string) {
	for _, id := range ids {
		e.happened(ctx, EventEvicted, "", subject, id)
	}
}

// foundFull tells that a subject has as many sessions as it can have, if err says so.
func (e *engine) foundFull(ctx context.Context, subject string, err error) {
	if errors.Is(err, ErrTooManySessions) {
		e.turnedAway(ctx, &live{header: recordHeader{subject: subject}}, err)
	}
}

// refusals are the errors of requests that are refused. An error gets the first that it matches.
var refusals = []struct {
	sentinel error
	reason   string
}{
	{ErrAmbiguousToken, "ambiguous"},
	{ErrCrossOrigin, "cross_origin"},
	{ErrInvalidToken, "ticket"}, // of a token, internal/jwt knows more
	{ErrRenewed, "renewed"},
	{ErrSessionGone, "gone"},
	{ErrCorrupt, "corrupt"},
	{ErrNoToken, "no_token"},
	{ErrNotFresh, "not_fresh"},
	{ErrNotAuthenticated, "not_authenticated"},
	{ErrTooManySessions, "too_many_sessions"},
}

// An observedStore tells of every call of a store, and whether the store works. What else
// the store can do, [engine.own] is asked.
type observedStore struct {
	Store
	engine *engine

	failing atomic.Bool // the store is down
	mu      sync.Mutex
	since   time.Time // when it went down, zero: it works
	failed  time.Time // the last failure
}

// settled is how long no call may have failed until the store counts as up again. Where one
// primary of a Cluster is down, some calls succeed and others fail.
const settled = time.Second

// observedCall runs a call of the store, and tells of it.
func observedCall[T any](ctx context.Context, s *observedStore, op string, call func() (T, error)) (T, error) {
	began := time.Now()
	result, err := call()
	s.tell(ctx, op, time.Since(began), err)
	return result, err
}

// nothing is the result of a call that has none.
type nothing struct{}

func (s *observedStore) do(ctx context.Context, op string, call func() error) error {
	_, err := observedCall(ctx, s, op, func() (nothing, error) { return nothing{}, call() })
	return err
}

// tell tells of a call, and of the beginning and the end of an outage.
func (s *observedStore) tell(ctx context.Context, op string, took time.Duration, err error) {
	kind := storeSentinel(err)
	if kind == ErrStoreUnavailable && s.hurried(ctx, took, err) {
		kind = context.Canceled
	}
	s.engine.observe(ctx, Event{Kind: EventStoreCall, Reason: op, Duration: took, Err: kind})
	switch {
	case kind == context.Canceled:
	case kind == ErrStoreUnavailable || kind == ErrIndeterminate:
		s.fails(ctx, err)
	case s.failing.Load():
		s.works(ctx)
	}
}

// hurried reports whether a call failed because the caller's own deadline left it less than
// half of the time that a call may take. That says nothing of the store.
func (s *observedStore) hurried(ctx context.Context, took time.Duration, err error) bool {
	deadline, ok := ctx.Deadline()
	return ok && causeOf(err) == timedOut && time.Until(deadline)+took < s.engine.cfg.StoreTimeout/2
}

func (s *observedStore) fails(ctx context.Context, err error) {
	now := s.engine.cfg.Now()
	s.mu.Lock()
	s.failed = now
	first := s.since.IsZero()
	if first {
		s.since = now
		s.failing.Store(true)
	}
	s.mu.Unlock()
	if first {
		s.engine.observe(ctx, Event{Kind: EventStoreDown, Reason: causeOf(err), Err: ErrStoreUnavailable})
	}
}

func (s *observedStore) works(ctx context.Context) {
	now := s.engine.cfg.Now()
	s.mu.Lock()
	since := s.since
	up := !since.IsZero() && now.Sub(s.failed) >= settled
	if up {
		s.since = time.Time{}
		s.failing.Store(false)
	}
	s.mu.Unlock()
	if up {
		s.engine.observe(ctx, Event{Kind: EventStoreUp, Duration: now.Sub(since)})
	}
}

// storeSentinel is the [Event.Err] of a call of the store. A rotation is no failure.
func storeSentinel(err error) error {
	if err == nil || wasRotated(err) {
		return nil
	}
	for _, kind := range []error{ErrNotReplicated, ErrIndeterminate, context.Canceled, ErrStoreUnavailable, ErrNotFound, ErrRenewed, ErrConflict, ErrTooManySessions, ErrUnsupported} {
		if errors.Is(err, kind) {
			return kind
		}
	}
	return ErrStoreUnavailable
}

func (s *observedStore) Load(ctx context.Context, ref Ref, ttl time.Duration) ([]byte, error) {
	return observedCall(ctx, s, "load", func() ([]byte, error) { return s.Store.Load(ctx, ref, ttl) })
}

func (s *observedStore) Check(ctx context.Context, ref Ref) (time.Duration, error) {
	return observedCall(ctx, s, "check", func() (time.Duration, error) { return s.Store.Check(ctx, ref) })
}

func (s *observedStore) Create(ctx context.Context, ref Ref, record []byte, ttl time.Duration, limit Limit) ([]string, error) {
	return observedCall(ctx, s, "create", func() ([]string, error) { return s.Store.Create(ctx, ref, record, ttl, limit) })
}

func (s *observedStore) Replace(ctx context.Context, ref Ref, old, record []byte, ttl time.Duration) error {
	return s.do(ctx, "replace", func() error { return s.Store.Replace(ctx, ref, old, record, ttl) })
}

func (s *observedStore) Touch(ctx context.Context, ref Ref, ttl time.Duration) error {
	return s.do(ctx, "touch", func() error { return s.Store.Touch(ctx, ref, ttl) })
}

func (s *observedStore) Delete(ctx context.Context, ref Ref) error {
	return s.do(ctx, "delete", func() error { return s.Store.Delete(ctx, ref) })
}

func (s *observedStore) Rotate(ctx context.Context, from, to Ref, old, record []byte, ttl, grace time.Duration) error {
	return s.do(ctx, "rotate", func() error { return s.Store.Rotate(ctx, from, to, old, record, ttl, grace) })
}

func (s *observedStore) Renew(ctx context.Context, from, to Ref, old, record []byte, ttl time.Duration, limit Limit) ([]string, error) {
	return observedCall(ctx, s, "renew", func() ([]string, error) { return s.Store.Renew(ctx, from, to, old, record, ttl, limit) })
}

func (s *observedStore) List(ctx context.Context, subject string) ([]Entry, error) {
	return observedCall(ctx, s, "list", func() ([]Entry, error) { return s.Store.List(ctx, subject) })
}

func (s *observedStore) Count(ctx context.Context, subject string) (int, error) {
	return observedCall(ctx, s, "count", func() (int, error) { return s.Store.Count(ctx, subject) })
}

func (s *observedStore) DeleteSubject(ctx context.Context, subject string, except []string) (int, error) {
	return observedCall(ctx, s, "delete_subject", func() (int, error) { return s.Store.DeleteSubject(ctx, subject, except) })
}

// observedTickets is observedStore for a [TicketStore].
type observedTickets struct {
	TicketStore
	store *observedStore
}

func (t observedTickets) PutTicket(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return t.store.do(ctx, "put_ticket", func() error { return t.TicketStore.PutTicket(ctx, key, value, ttl) })
}

func (t observedTickets) TakeTicket(ctx context.Context, key string) ([]byte, error) {
	return observedCall(ctx, t.store, "take_ticket", func() ([]byte, error) { return t.TicketStore.TakeTicket(ctx, key) })
}

// observeStore puts an observedStore in the place of the store.
func (e *engine) observeStore() {
	s := &observedStore{Store: e.own, engine: e}
	e.store = s
	if e.tickets != nil {
		e.tickets = observedTickets{e.tickets, s}
	}
}

// told runs a call that is no method of [Store], and tells of it.
func (e *engine) told(ctx context.Context, op string, call func() error) error {
	if s, ok := e.store.(*observedStore); ok {
		return s.do(ctx, op, call)
	}
	return call()
}

// failureOf returns the error of a batch that says that the store did not answer, or nil.
func failureOf(answers []checked) error {
	for _, answer := range answers {
		if kind := storeSentinel(answer.err); kind != nil && !isEnd(kind) {
			return answer.err
		}
	}
	return nil
}

// refuseForeign is [originGuard.refuse] for a request of which is told.
func (e *engine) refuseForeign(r *http.Request) error {
	err := e.origins.refuse(r)
	e.turnedAway(r.Context(), nil, err)
	return err
}
