package echosession

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
)

// A Session is a handle on a session whose data is a T. It always exists; whether
// a live session stands behind it is [Session.Exists]. It is safe for concurrent
// use and must not be copied. [Get], [Manager.Create], [Manager.Open],
// [Manager.List] and [Manager.All] return sessions.
//
// A Session shows what the store held when it was last read or written. Other
// requests may change it meanwhile; [Session.Reload] reads it again.
type Session[T any] struct {
	manager *Manager[T]

	mu       sync.Mutex
	exchange Exchange // nil outside of a request, and when it is over
	bound    bool     // made for a request
	resolved bool     // the request was asked for its session
	err      error    // why it could not be answered
	reason   error    // why there is no live session
	live     *live    // nil when there is none
	value    *T       // the decoded record, nil when handed out
}

// resolve answers once whether the request has a live session.
func (b *Bound[T]) resolve() (*Session[T], error) {
	s := (*Session[T])(b)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.resolved {
		s.resolved = true
		s.err = s.find()
	}
	if s.err != nil {
		return nil, s.err
	}
	return s, nil
}

// find opens the session of the request. s.mu is held.
func (s *Session[T]) find() error {
	if s.exchange == nil {
		return ErrRequestOver
	}
	m, x := s.manager, s.exchange
	r := x.Request()
	f, err := m.lookup.find(x, r)
	if f.url {
		x.Header().Set("Cache-Control", "private, no-store")
	}
	if err == nil && f.cookie {
		err = crossOrigin(m.crossOrigin, r)
	}
	if err != nil {
		s.reason = err
		return nil
	}
	if err := s.open(r.Context(), f.token); err != nil {
		return err
	}
	if s.live != nil {
		s.live.inCookie, s.live.inURL = f.cookie, f.url
		if s.live.touched {
			s.renewCookie()
		}
	}
	return nil
}

// open makes s the session of a token. An error is a store's failure.
func (s *Session[T]) open(ctx context.Context, token string) error {
	value := new(T)
	l, err := s.manager.open(ctx, token, value)
	switch {
	case err == nil:
		s.live, s.value = l, value
	case errors.Is(err, ErrStoreUnavailable):
		return err
	default:
		s.reason = err
	}
	return nil
}

// Exists reports whether a live session stands behind the handle.
func (s *Session[T]) Exists() bool {
	return s.current() != nil
}

// Reason says why there is no live session: an error that matches [ErrNoToken],
// [ErrAmbiguousToken], [ErrInvalidToken], [ErrSessionGone], [ErrCorrupt] or
// [ErrCrossOrigin]. It is nil when there is one.
func (s *Session[T]) Reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason
}

// ID returns the session ID, a UUID, and "" when there is no live session. It is
// not a credential: without the token it opens nothing.
func (s *Session[T]) ID() string {
	if l := s.current(); l != nil {
		return l.ref.ID
	}
	return ""
}

// Token returns the token that opened the session, or that [Session.Create] or
// [Session.Rotate] made. It is "" when there is no live session, and for sessions
// from [Manager.List] and [Manager.All].
func (s *Session[T]) Token() string {
	if l := s.current(); l != nil {
		return l.token
	}
	return ""
}

// Claims returns a copy of the token's claims. It is nil when there is no token.
func (s *Session[T]) Claims() Claims {
	if l := s.current(); l != nil && l.tok != nil {
		return Claims(l.tok.Claims())
	}
	return nil
}

// Subject returns whose session it is, see [WithSubject]. It is "" when that was
// not said and when there is no live session.
func (s *Session[T]) Subject() string {
	if l := s.current(); l != nil {
		return l.header.subject
	}
	return ""
}

// Data returns a copy of the struct, and the zero T when there is no live
// session. To change it changes nothing in the store: that is [Session.Update].
func (s *Session[T]) Data() T {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live == nil {
		var zero T
		return zero
	}
	value := s.decoded()
	if !s.manager.serializer.flat {
		s.value = nil // what it points to is the caller's now
	}
	return *value
}

// decoded returns the record's data. s.mu is held, and s.live is not nil.
func (s *Session[T]) decoded() *T {
	if s.value == nil {
		s.value = new(T)
		// The very same bytes were decoded, or encoded, before.
		_, _ = s.manager.serializer.decode(s.live.ref.ID, s.live.record, s.value)
	}
	return s.value
}

// take hands out the decoded record of l if nobody has it yet.
func (s *Session[T]) take(l *live) *T {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live != l {
		return nil
	}
	value := s.value
	s.value = nil
	return value
}

// CreatedAt returns when the session was created, to the millisecond. Rotation
// leaves it as it is. It is the zero time when there is no live session.
func (s *Session[T]) CreatedAt() time.Time {
	if l := s.current(); l != nil {
		return l.header.createdAt
	}
	return time.Time{}
}

// ExpiresAt returns when the session ends if it is not used again: the earlier of
// the idle and the absolute timeout, as of the last use that this process knows
// of. It is the zero time when there is no live session.
func (s *Session[T]) ExpiresAt() time.Time {
	if l := s.current(); l != nil {
		return l.expiresAt
	}
	return time.Time{}
}

// MarshalJSON encodes the data, for c.JSON(http.StatusOK, sess). It is null when
// there is no live session.
func (s *Session[T]) MarshalJSON() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live == nil {
		return []byte("null"), nil
	}
	return json.Marshal(s.decoded())
}

// Create stores a new session and returns its token. With [Config.Cookie] it sets
// the cookie, too. A live session behind the handle is destroyed: a session that
// someone else might know from before the login must not become the one after it
// (session fixation).
//
// It returns [ErrReservedClaim], [ErrTooLarge], [ErrRequestOver] when the handler
// has returned or, with a cookie, when the answer's header has been sent, and
// [ErrStoreUnavailable] or [ErrIndeterminate].
func (s *Session[T]) Create(ctx context.Context, data T, opts ...CreateOption) (token string, err error) {
	var p createParams
	for _, opt := range opts {
		opt(&p)
	}
	if err := s.answerable(); err != nil {
		return "", err
	}
	old := s.current()
	l, err := s.manager.create(ctx, &data, p)
	if err != nil {
		return "", err
	}
	if old != nil {
		if err := s.manager.destroy(ctx, old); err != nil {
			s.manager.discard(ctx, l)
			return "", err
		}
	}
	if err := s.adoptNew(l); err != nil {
		s.manager.discard(ctx, l)
		return "", err
	}
	return l.token, nil
}

// Update changes what is stored: it hands fn a copy of the data and stores what
// fn made of it. It is atomic: when another request wrote the session meanwhile,
// fn is called again with what that one stored. So fn does nothing but change the
// data, and what it refers to must not be used afterwards. When fn returns an
// error, nothing is stored and Update returns that error.
//
// It restarts the idle timeout. A canceled ctx does not stop it: a client that
// hangs up does not undo a save that has begun.
//
// It returns [ErrNoSession], [ErrSessionGone], [ErrCorrupt], [ErrTooLarge],
// [ErrConflict], [ErrStoreUnavailable] or [ErrIndeterminate].
func (s *Session[T]) Update(ctx context.Context, fn func(*T) error) error {
	return s.change(func(l *live) (*live, *T, error) {
		var decoded any
		if value := s.take(l); value != nil {
			decoded = value
		}
		next, err := s.manager.update(ctx, l, decoded,
			func() any { return new(T) },
			func(v any) error { return fn(v.(*T)) })
		return next, nil, err
	})
}

// Reload reads the session from the store again, and restarts its idle timeout.
//
// It returns [ErrNoSession], [ErrSessionGone], [ErrCorrupt] or
// [ErrStoreUnavailable].
func (s *Session[T]) Reload(ctx context.Context) error {
	return s.change(func(l *live) (*live, *T, error) {
		value := new(T)
		next, err := s.manager.reload(ctx, l, value)
		return next, value, err
	})
}

// Touch restarts the idle timeout. [Get] does so by itself, see
// [Config.TouchInterval]: call it where a request lasts long.
//
// It returns [ErrNoSession], [ErrSessionGone] or [ErrStoreUnavailable].
func (s *Session[T]) Touch(ctx context.Context) error {
	err := s.change(func(l *live) (*live, *T, error) {
		next, err := s.manager.touch(ctx, l)
		return next, nil, err
	})
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.renewCookie()
	}
	return err
}

// Rotate moves the session to a new ID and returns its new token: call it where a
// user gains rights. Data, CreatedAt and the absolute timeout stay as they are.
// With [Config.Cookie] it sets the cookie, too, unless the old token came in the
// URL: who follows a link must not get the session of whoever made it. The old
// token finds the session for [Config.RotateGrace], to read and to write it, but
// not to rotate it again.
//
// It returns [ErrNoSession], [ErrSessionGone] also when another request rotated
// the session first, [ErrConflict], [ErrRequestOver] as [Session.Create] does,
// and [ErrStoreUnavailable] or [ErrIndeterminate].
func (s *Session[T]) Rotate(ctx context.Context) (token string, err error) {
	if err := s.answerable(); err != nil {
		return "", err
	}
	old, err := s.need()
	if err != nil {
		return "", err
	}
	l, err := s.manager.rotate(ctx, old)
	if err != nil {
		return "", err
	}
	l.inURL = old.inURL
	if err := s.adoptNew(l); err != nil {
		return "", err
	}
	return l.token, nil
}

// Destroy ends the session, at once and everywhere. With [Config.Cookie] it
// clears the cookie, too. That there is no live session is not an error.
//
// It returns [ErrRequestOver] when the handler has returned, [ErrCrossOrigin]
// when that is the [Session.Reason], and [ErrStoreUnavailable] or
// [ErrIndeterminate].
func (s *Session[T]) Destroy(ctx context.Context) error {
	if s.isOver() {
		return ErrRequestOver
	}
	if reason := s.Reason(); errors.Is(reason, ErrCrossOrigin) {
		return reason
	}
	if l := s.current(); l != nil {
		if err := s.manager.destroy(ctx, l); err != nil {
			return err
		}
		s.lose(l)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if cookie := s.manager.cfg.Cookie; cookie != nil && s.exchange != nil && !s.exchange.Committed() {
		cookie.clear(s.exchange.Header())
	}
	return nil
}

// current returns what stands behind the handle, or nil.
func (s *Session[T]) current() *live {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live
}

// need returns what stands behind the handle, or ErrNoSession and the reason.
func (s *Session[T]) need() (*live, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live == nil {
		return nil, fmt.Errorf("%w: %w", ErrNoSession, s.reason)
	}
	return s.live, nil
}

// Meets returns nil when there is a live session that meets the options of
// [Require], and otherwise the error that Require answers.
func (s *Session[T]) Meets(opts ...RequireOption) error {
	var r requirement
	for _, opt := range opts {
		opt(&r)
	}
	l := s.current()
	if l == nil {
		return s.Reason()
	}
	if r.fresh > 0 && s.manager.cfg.Now().Sub(l.header.createdAt) > r.fresh {
		return &notFreshError{r.fresh}
	}
	return nil
}

// change puts what do makes of the live session behind the handle, unless another
// goroutine has put another session there or none. It holds no lock meanwhile: do
// may call methods of the handle.
func (s *Session[T]) change(do func(*live) (*live, *T, error)) error {
	l, err := s.need()
	if err != nil {
		return err
	}
	next, value, err := do(l)
	if errors.Is(err, ErrSessionGone) {
		s.lose(l)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live != nil && s.live.via == l.via {
		s.live, s.value = next, value
	}
	return nil
}

// lose takes a session that is gone from behind the handle.
func (s *Session[T]) lose(l *live) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live != nil && s.live.via == l.via {
		s.live, s.value, s.reason = nil, nil, ErrSessionGone
	}
}

func (s *Session[T]) isOver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bound && s.exchange == nil
}

// answerable reports whether a new token can still reach the client.
func (s *Session[T]) answerable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.bound {
		return nil
	}
	if s.exchange == nil {
		return ErrRequestOver
	}
	if s.manager.cfg.Cookie != nil && s.exchange.Committed() {
		return fmt.Errorf("%w: the answer's header has been sent, and no cookie can follow", ErrRequestOver)
	}
	return nil
}

// adoptNew puts a session with a new token behind the handle and its cookie into
// the answer.
func (s *Session[T]) adoptNew(l *live) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bound && s.exchange == nil {
		return ErrRequestOver
	}
	s.live, s.value, s.reason = l, nil, nil
	if cookie := s.manager.cfg.Cookie; cookie != nil && s.exchange != nil && !l.inURL {
		l.inCookie = true
		cookie.set(s.exchange.Header(), l.token, s.manager.left(l))
	}
	return nil
}

// renewCookie prolongs a persistent cookie that carries the token. s.mu is held.
func (s *Session[T]) renewCookie() {
	cookie := s.manager.cfg.Cookie
	if cookie == nil || !cookie.Persistent || s.live == nil || !s.live.inCookie ||
		s.exchange == nil || s.exchange.Committed() {
		return
	}
	cookie.set(s.exchange.Header(), s.live.token, s.manager.left(s.live))
}
