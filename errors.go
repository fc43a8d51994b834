package echosession

import (
	"errors"
	"fmt"
)

// Every error of this package matches one of these sentinels with [errors.Is].
// None of them carries a token, a session ID or a store's own words into an
// answer: see [Config.ErrorHandler] for how they reach a client.
var (
	// ErrNoToken is the [Session.Reason] of a request that carries no token.
	ErrNoToken = errors.New("echosession: the request carries no token")

	// ErrAmbiguousToken is the [Session.Reason] of a request that carries
	// different tokens in two places, or one place twice (RFC 6750 §3.1,
	// invalid_request).
	ErrAmbiguousToken = errors.New("echosession: the request carries more than one token")

	// ErrInvalidToken is the [Session.Reason] for a token that is forged,
	// malformed, expired, not yet valid, or from another issuer or for another
	// audience.
	ErrInvalidToken = errors.New("echosession: invalid token")

	// ErrSessionGone says that the token is good and the session is not there any
	// more: it expired, was destroyed or revoked, or was rotated away.
	ErrSessionGone = errors.New("echosession: the session is gone")

	// ErrCorrupt says that the stored record cannot be read: it holds another
	// struct, is damaged, or is sealed with a key that is not configured. The
	// record stays where it is.
	ErrCorrupt = errors.New("echosession: the session record cannot be read")

	// ErrCrossOrigin is the [Session.Reason] of a cross-origin request with an
	// unsafe method whose token came in a cookie. See [Config.TrustedOrigins].
	ErrCrossOrigin = errors.New("echosession: cross-origin request with a session cookie")

	// ErrNoSession is returned by a method that needs a live session when there is
	// none. The [Session.Reason] is wrapped beside it.
	ErrNoSession = errors.New("echosession: no live session")

	// ErrNotFresh is returned by [Require] with [Fresh] when the login is too
	// long ago (RFC 9470).
	ErrNotFresh = errors.New("echosession: the login is too long ago")

	// ErrConflict is returned by [Session.Update] and [Session.Rotate] when other
	// writers came first at every attempt, and by a [Store] whose record is not
	// the one that was to be replaced.
	ErrConflict = errors.New("echosession: the session was changed by another writer")

	// ErrReservedClaim is returned when a caller passes a claim that the package
	// owns.
	ErrReservedClaim = errors.New("echosession: reserved claim")

	// ErrTooLarge is returned when the encoded struct is over
	// [Config.MaxRecordSize] or nests too deep. The old record stays.
	ErrTooLarge = errors.New("echosession: the session data is too large")

	// ErrStoreUnavailable says that the store could not answer: it timed out,
	// refused, is full, is loading or is failing over. It never means that there
	// is no session.
	ErrStoreUnavailable = errors.New("echosession: the session store is unavailable")

	// ErrIndeterminate says that the reply to a write was lost: it may have been
	// applied or not. It matches [ErrStoreUnavailable] too.
	ErrIndeterminate = fmt.Errorf("echosession: outcome of the write unknown: %w", ErrStoreUnavailable)

	// ErrNotInstalled is returned by [Get] on a route without the middleware.
	ErrNotInstalled = errors.New("echosession: the middleware is not installed on this route")

	// ErrTypeMismatch is returned by [Get] when the middleware was installed with
	// another type.
	ErrTypeMismatch = errors.New("echosession: the middleware was installed with another type")

	// ErrRequestOver is returned by a method that would write a cookie after the
	// handler has returned.
	ErrRequestOver = errors.New("echosession: the request is over")

	// ErrNotFound is returned by a [Store] that holds nothing under a [Ref]. It
	// does not leave the package: users see [ErrSessionGone].
	ErrNotFound = errors.New("echosession: record not found")
)
