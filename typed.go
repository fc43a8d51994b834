package echosession

import (
	"context"
	"encoding/json"
	"time"
)

// A Session is a handle on a session whose data is a T. The handle always exists;
// [Session.Exists] tells whether a live session stands behind it. It is safe for
// concurrent use and must not be copied. [Get], [Manager.Create], [Manager.Open],
// [Manager.List] and [Manager.All] return sessions.
//
// A Session shows what the store held when this handle last read or wrote it. Other
// requests may have changed it since; [Session.Reload] reads it again.
type Session[T any] struct{ handle handle }

// Exists reports whether a live session stands behind the handle.
func (s *Session[_]) Exists() bool {
	return s.handle.current() != nil
}

// Reason says why there is no live session: an error that matches [ErrNoToken],
// [ErrAmbiguousToken], [ErrInvalidToken], [ErrSessionGone], [ErrCorrupt] or
// [ErrCrossOrigin]. It is nil when there is one.
func (s *Session[_]) Reason() error {
	return s.handle.why()
}

// ID returns the session ID, a UUID, and "" when there is no live session. It is
// not a credential: without the token it opens nothing.
func (s *Session[_]) ID() string {
	if l := s.handle.current(); l != nil {
		return l.ref.ID
	}
	return ""
}

// Token returns the token that opened the session, or that [Session.Create] or
// [Session.Rotate] made. It is "" when there is no live session, and for sessions
// from [Manager.List] and [Manager.All].
func (s *Session[_]) Token() string {
	if l := s.handle.current(); l != nil {
		return l.token
	}
	return ""
}

// Claims returns a copy of the token's claims. It is nil when there is no token.
func (s *Session[_]) Claims() Claims {
	if l := s.handle.current(); l != nil && l.tok != nil {
		return Claims(l.tok.Claims())
	}
	return nil
}

// Subject returns whose session it is, see [WithSubject]. It is "" for a session
// without a subject and when there is no live session.
func (s *Session[_]) Subject() string {
	if l := s.handle.current(); l != nil {
		return l.header.subject
	}
	return ""
}

// Data returns a copy of the struct, and the zero T when there is no live session.
// Changing the copy changes nothing in the store: [Session.Update] does.
func (s *Session[T]) Data() T {
	h := &s.handle
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live == nil {
		var zero T
		return zero
	}
	value := s.decoded()
	if !h.engine.serializer.flat {
		h.value = nil // what it points to is the caller's now
	}
	return *value
}

// decoded returns the record's data. The handle is locked and has a live session.
func (s *Session[T]) decoded() *T {
	h := &s.handle
	if h.value == nil {
		value := new(T)
		// The very same bytes were decoded, or encoded, before.
		_, _ = h.engine.serializer.decode(h.live.ref.ID, h.live.record, value)
		h.value = value
	}
	return h.value.(*T)
}

// CreatedAt returns when the session was created, to the millisecond. Rotation
// leaves it as it is. It is the zero time when there is no live session.
func (s *Session[_]) CreatedAt() time.Time {
	if l := s.handle.current(); l != nil {
		return l.header.createdAt
	}
	return time.Time{}
}

// ExpiresAt returns when the session ends if it is not used again: the earlier of
// the idle and the absolute timeout, as of the last use that this process knows
// of. It is the zero time when there is no live session.
func (s *Session[_]) ExpiresAt() time.Time {
	if l := s.handle.current(); l != nil {
		return l.expiresAt
	}
	return time.Time{}
}

// MarshalJSON encodes the data, for c.JSON(http.StatusOK, sess). The result is null
// when there is no live session.
func (s *Session[T]) MarshalJSON() ([]byte, error) {
	s.handle.mu.Lock()
	defer s.handle.mu.Unlock()
	if s.handle.live == nil {
		return []byte("null"), nil
	}
	return json.Marshal(s.decoded())
}

// Create stores a new session and returns its token. With [Config.Cookie] it also
// sets the cookie. A live session behind the handle is destroyed: somebody else may
// know it from before the login, and must not know the session after the login
// (session fixation).
//
// It returns [ErrReservedClaim], [ErrTooLarge], [ErrRequestOver] when the handler
// has returned or, with a cookie, when the answer's header has been sent, and
// [ErrStoreUnavailable] or [ErrIndeterminate].
func (s *Session[T]) Create(ctx context.Context, data T, opts ...CreateOption) (token string, err error) {
	return s.handle.create(ctx, &data, opts)
}

// Update changes what is stored: it hands fn a copy of the data and stores what fn
// made of it. It is atomic: when another request wrote the session meanwhile, fn is
// called again with the data which that request stored. So fn may run several times:
// let it do nothing but change the data, and keep no pointer into the data. When fn
// returns an error, nothing is stored and Update returns that error.
//
// Update restarts the idle timeout. A canceled ctx does not stop it: a client that
// hangs up does not undo a save that has begun.
//
// fn must not update the session itself, through this handle or another one: then the
// outer Update never comes first, and returns [ErrConflict] after some rounds.
//
// It returns [ErrNoSession], [ErrSessionGone], [ErrCorrupt], [ErrTooLarge],
// [ErrConflict], [ErrStoreUnavailable] or [ErrIndeterminate].
func (s *Session[T]) Update(ctx context.Context, fn func(*T) error) error {
	e := s.handle.engine
	return s.handle.change(func(l *live) (*live, any, error) {
		own := 0 // rounds in a row in which this handle wrote while fn ran
		next, err := e.update(ctx, l, s.handle.take(l),
			func() any { return new(T) },
			func(v any) error {
				before := s.handle.countWrites()
				if err := fn(v.(*T)); err != nil {
					return err
				}
				if s.handle.countWrites() == before {
					own = 0
				} else if own++; own == maxOwnWrites {
					return errOwnWrites
				}
				return nil
			})
		return next, nil, err
	})
}

// Reload reads the session from the store again, and restarts its idle timeout.
//
// It returns [ErrNoSession], [ErrSessionGone], [ErrCorrupt] or
// [ErrStoreUnavailable].
func (s *Session[T]) Reload(ctx context.Context) error {
	return s.handle.change(func(l *live) (*live, any, error) {
		value := new(T)
		next, err := s.handle.engine.reload(ctx, l, value)
		return next, value, err
	})
}

// Touch restarts the idle timeout. [Get] does this already, see
// [Config.TouchInterval]: call Touch in a request that lasts long.
//
// It returns [ErrNoSession], [ErrSessionGone] or [ErrStoreUnavailable].
func (s *Session[_]) Touch(ctx context.Context) error {
	return s.handle.touch(ctx)
}

// Rotate moves the session to a new ID and returns its new token: call it where a
// user gains rights. Data, CreatedAt and the absolute timeout stay as they are.
// With [Config.Cookie] it also sets the cookie, unless the old token came in the
// URL: a person who follows a link must not get the session of the person who made
// the link. For [Config.RotateGrace] the old token still finds the session, to read
// and to write it, but not to rotate it again.
//
// It returns [ErrNoSession], [ErrSessionGone] (also when another request rotated
// the session first), [ErrConflict], [ErrRequestOver] as [Session.Create] does,
// and [ErrStoreUnavailable] or [ErrIndeterminate].
func (s *Session[_]) Rotate(ctx context.Context) (token string, err error) {
	return s.handle.rotate(ctx)
}

// Destroy ends the session, at once and everywhere. With [Config.Cookie] it also
// clears the cookie. Without a live session it does nothing else, and that is not an
// error.
//
// It returns [ErrRequestOver] when the handler has returned, [ErrCrossOrigin]
// when that is the [Session.Reason], and [ErrStoreUnavailable] or
// [ErrIndeterminate].
func (s *Session[_]) Destroy(ctx context.Context) error {
	return s.handle.destroy(ctx)
}

// Meets returns nil when there is a live session that meets the options of
// [Require], and otherwise the error that Require answers. It is for adapters, and
// for handlers that decide late.
func (s *Session[_]) Meets(opts ...RequireOption) error {
	return s.handle.meets(requirementOf(opts))
}
