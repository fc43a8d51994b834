package echosession

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/echosession/echosession/internal/jwt"
)

// Every error of this package matches one of these sentinels with [errors.Is]; a
// mistake in a Config is a [*ConfigError]. No token, no session ID and no word of the
// store reaches a client: [Manager.Answer] says what does.
var (
	// ErrNoToken is the [Session.Reason] of a request that carries no token.
	ErrNoToken = errors.New("echosession: the request carries no token")

	// ErrAmbiguousToken is the [Session.Reason] of a request that carries
	// different tokens in two places outside of the body, or one place twice
	// (RFC 6750 §3.1, invalid_request). The body is looked at only when no other
	// place has a token.
	ErrAmbiguousToken = errors.New("echosession: the request carries more than one token")

	// ErrInvalidToken is the [Session.Reason] for a token that is forged,
	// malformed, expired, not yet valid, or from another issuer or for another
	// audience; and for a ticket that is malformed, spent, too late, or for another path
	// or origin.
	ErrInvalidToken = jwt.ErrInvalid // "echosession: invalid token"

	// ErrSessionGone says that the token is good and that its session has ended: it
	// expired, was destroyed or revoked, or was rotated away.
	ErrSessionGone = errors.New("echosession: the session is gone")

	// ErrRenewed says that the token is good and that a login, or a gain of rights,
	// moved its session to a new token meanwhile: see [Session.Renew]. For a minute
	// it takes the place of [ErrSessionGone].
	ErrRenewed = errors.New("echosession: the session was renewed under another token")

	// ErrCorrupt says that the stored record cannot be read: it holds another
	// struct, is damaged, or is sealed with a key that is not configured. The
	// record stays where it is.
	ErrCorrupt = errors.New("echosession: the session record cannot be read")

	// ErrCrossOrigin is the [Session.Reason] of a cross-origin request with an
	// unsafe method whose token came in a cookie. Methods that would set or clear
	// the cookie return it too. See [Config.TrustedOrigins].
	ErrCrossOrigin = errors.New("echosession: cross-origin request with a session cookie")

	// ErrNoSession is returned by a method that needs a live session, where no live
	// session stands behind the handle. The [Session.Reason] is wrapped beside it.
	// Where a session has no token, because a ticket or a list led to it, it is also
	// returned by what needs one.
	ErrNoSession = errors.New("echosession: no live session")

	// ErrNotFresh is returned by [Require] with [Fresh] when the last login is too long
	// ago, or nobody has logged in (RFC 9470).
	ErrNotFresh = errors.New("echosession: the login is too long ago")

	// ErrNotAuthenticated is returned by [Require] with [Authenticated] for a session in
	// which nobody has logged in: a guest's, see [Session.UpdateOrCreate].
	ErrNotAuthenticated = errors.New("echosession: nobody has logged in to the session")

	// ErrConflict is returned by [Session.Update], [Session.Renew] and [Session.Rotate]
	// when other writers came first at every attempt, by [Session.UpdateOrCreate] after
	// [ErrRenewed], and by a [Store] that holds another record than the one to be
	// replaced.
	ErrConflict = errors.New("echosession: the session was changed by another writer")

	// ErrTooManySessions is returned where a session would be one more than
	// [Config.MaxSessions], with [RefuseNew].
	ErrTooManySessions = errors.New("echosession: the subject has as many sessions as it can have")

	// ErrReservedClaim is returned when a caller passes a claim that the package
	// owns.
	ErrReservedClaim = jwt.ErrReserved // "echosession: reserved claim"

	// ErrTooLarge is returned when the encoded struct is over
	// [Config.MaxRecordSize] or nests too deep, and when the claims make a token of over
	// 8 KiB, or one that does not fit into the cookie. The old record stays.
	ErrTooLarge = jwt.ErrTooLarge // "echosession: the session data is too large"

	// ErrClosed is the cause of a [Session.Watch] that [Manager.Close] has ended: the
	// program stops, and the session goes on.
	ErrClosed = errors.New("echosession: the Manager is closed")

	// ErrUnsupported is returned where the store lacks what a method needs: [Session.Ticket]
	// needs a [TicketStore]. It matches [errors.ErrUnsupported] too.
	ErrUnsupported = fmt.Errorf("echosession: the store cannot do this: %w", errors.ErrUnsupported)

	// ErrStoreUnavailable says that the store could not answer: it timed out,
	// refused, is full, is loading or is failing over. It says nothing about whether
	// the session is there.
	ErrStoreUnavailable = errors.New("echosession: the session store is unavailable")

	// ErrIndeterminate says that the reply to a write was lost: the write may have
	// been applied or not. It also matches [ErrStoreUnavailable].
	ErrIndeterminate = fmt.Errorf("echosession: outcome of the write unknown: %w", ErrStoreUnavailable)

	// ErrNotReplicated says that a write was applied, but that fewer replicas than
	// [Config.WaitReplicas] confirmed it in time: a failover may undo it. It also
	// matches [ErrIndeterminate] and [ErrStoreUnavailable].
	ErrNotReplicated = fmt.Errorf("echosession: the write reached too few replicas: %w", ErrIndeterminate)

	// ErrNotInstalled is returned by [Get] on a route without the middleware, or with
	// the middleware of another Manager.
	ErrNotInstalled = errors.New("echosession: the middleware is not installed on this route")

	// ErrTypeMismatch is returned by [Get] when the middleware was installed with
	// another type.
	ErrTypeMismatch = errors.New("echosession: the middleware was installed with another type")

	// ErrRequestOver is returned by a method that would write a cookie after the
	// handler has returned.
	ErrRequestOver = errors.New("echosession: the request is over")

	// ErrNotFound is returned by a [Store] that holds nothing under a [Ref]. Users of
	// a Manager see [ErrSessionGone] instead.
	ErrNotFound = errors.New("echosession: record not found")
)

// storeError is a store's failure. Its text leaves out the cause, which may name
// keys and addresses; [errors.As] finds it.
type storeError struct {
	kind  error // ErrStoreUnavailable, ErrIndeterminate or ErrNotReplicated
	cause error
}

func (e *storeError) Error() string   { return e.kind.Error() }
func (e *storeError) Unwrap() []error { return []error{e.kind, e.cause} }

// concealed hides a store's own words.
func concealed(err error) error {
	if _, ok := err.(*storeError); ok {
		return err
	}
	for _, kind := range []error{ErrNotReplicated, ErrIndeterminate} {
		if errors.Is(err, kind) {
			return &storeError{kind, err}
		}
	}
	return &storeError{ErrStoreUnavailable, err}
}

// unavailable wraps the cause of a failed read or of a write that surely was not
// applied.
func unavailable(cause error) error {
	if errors.Is(cause, ErrStoreUnavailable) && !errors.Is(cause, ErrIndeterminate) {
		return cause
	}
	return &storeError{ErrStoreUnavailable, cause}
}

// indeterminate wraps the cause of a write that may have been applied.
func indeterminate(cause error) error {
	if errors.Is(cause, ErrIndeterminate) {
		return cause
	}
	return &storeError{ErrIndeterminate, cause}
}

// What makes a record unreadable: the words of [EventUnreadable].
const (
	whyCodec     = "codec"      // another codec wrote it
	whyTooLarge  = "too_large"  // it is larger than MaxRecordSize
	whySealed    = "sealed"     // it is encrypted, and there is no key
	whyNotSealed = "not_sealed" // it is not encrypted, and must be
	whyKey       = "key"        // no encryption key opens it
	whyHead      = "head"       // it is no record, its header is damaged, or it is of another subject
	whyData      = "data"       // its data cannot be read
	whyMigrate   = "migrate"    // MigrateSession refused it
	whyImport    = "import"     // Import could not read what another library has stored
)

// corrupt returns ErrCorrupt and why. reason is one of the words above.
func corrupt(reason, why string) error { return &corruptError{reason, why, nil} }

// corruptData returns ErrCorrupt for data that cannot be read. err quotes nothing of them.
func corruptData(err error) error { return &corruptError{whyData, err.Error(), err} }

// corruptError is ErrCorrupt. Its text leaves out the cause, which may quote the data where a
// function of the program could not read it; [errors.Is] and [errors.As] find it.
type corruptError struct {
	reason string
	why    string
	cause  error // or nil
}

func (e *corruptError) Error() string { return ErrCorrupt.Error() + ": " + e.why }

func (e *corruptError) Unwrap() []error {
	if e.cause == nil {
		return []error{ErrCorrupt}
	}
	return []error{ErrCorrupt, e.cause}
}

// corruptReason returns what makes a record unreadable, in a word, and "" for other errors.
func corruptReason(err error) string {
	if e, ok := errors.AsType[*corruptError](err); ok {
		return e.reason
	}
	return ""
}

// notFreshError is ErrNotFresh with the age that was demanded.
type notFreshError struct{ maxAge time.Duration }

func (e *notFreshError) Error() string {
	return fmt.Sprintf("%v: at most %v is allowed", ErrNotFresh, e.maxAge)
}

func (e *notFreshError) Unwrap() error { return ErrNotFresh }

// answerForm is how an error is answered.
type answerForm struct {
	sentinel error
	status   int
	message  string
	code     string // error code of the challenge, RFC 6750 §3.1 and RFC 9470 §3
}

const (
	noChallenge    = "-"
	plainChallenge = ""

	loginNeeded  = "authentication is required"
	sessionEnded = "the session is invalid or has ended"
	serverError  = "internal server error"
)

// answerForms are in order: an error gets the first that it matches.
var answerForms = []answerForm{
	{ErrStoreUnavailable, http.StatusServiceUnavailable, "the service is temporarily unavailable", noChallenge},
	{ErrClosed, http.StatusServiceUnavailable, "the service is temporarily unavailable", noChallenge},
	{ErrAmbiguousToken, http.StatusBadRequest, "more than one token in the request", "invalid_request"},
	{ErrCrossOrigin, http.StatusForbidden, "cross-origin request refused", noChallenge},
	{ErrTooManySessions, http.StatusForbidden, "too many sessions", noChallenge},
	{ErrConflict, http.StatusConflict, "the session was changed by another request", noChallenge}, // before ErrRenewed: see renewedMeanwhile
	{ErrInvalidToken, http.StatusUnauthorized, sessionEnded, "invalid_token"},
	{ErrSessionGone, http.StatusUnauthorized, sessionEnded, "invalid_token"},
	{ErrRenewed, http.StatusUnauthorized, sessionEnded, "invalid_token"},
	{ErrCorrupt, http.StatusUnauthorized, sessionEnded, "invalid_token"},
	{ErrNotFresh, http.StatusUnauthorized, "a more recent login is required", "insufficient_user_authentication"},
	{ErrNotAuthenticated, http.StatusUnauthorized, loginNeeded, "insufficient_user_authentication"},
	{ErrNoToken, http.StatusUnauthorized, loginNeeded, plainChallenge},
	{ErrNoSession, http.StatusUnauthorized, loginNeeded, plainChallenge},
	{ErrReservedClaim, http.StatusInternalServerError, serverError, noChallenge},
	{ErrTooLarge, http.StatusInternalServerError, serverError, noChallenge},
	{ErrNotInstalled, http.StatusInternalServerError, serverError, noChallenge},
	{ErrTypeMismatch, http.StatusInternalServerError, serverError, noChallenge},
	{ErrRequestOver, http.StatusInternalServerError, serverError, noChallenge},
	{ErrUnsupported, http.StatusInternalServerError, serverError, noChallenge},
}

// answerTo is the one place where errors become HTTP.
func answerTo(err error) (answerForm, bool) {
	for _, f := range answerForms {
		if errors.Is(err, f.sentinel) {
			return f, true
		}
	}
	return answerForm{}, false
}

// challenge is the value of WWW-Authenticate, "" for none.
func (f answerForm) challenge(realm string, err error) string {
	if f.code == noChallenge {
		return ""
	}
	challenge := "Bearer realm=" + strconv.Quote(realm)
	if f.code != plainChallenge {
		challenge += fmt.Sprintf(`, error=%q, error_description=%q`, f.code, f.message)
	}
	if stale, ok := errors.AsType[*notFreshError](err); ok {
		challenge += fmt.Sprintf(`, max_age="%d"`, int64(stale.maxAge/time.Second))
	}
	return challenge
}

// mistakeOf names a mistake of the program for the log: the text of its sentinel.
func mistakeOf(err error) string {
	if f, ok := answerTo(err); ok {
		return f.sentinel.Error()
	}
	return "the session cannot be stored"
}

// causeOf names the kind of a store's failure for the log, without the store's own
// words. Why a connection could not be made comes before the deadline that passed
// meanwhile.
func causeOf(err error) string {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsNotFound {
			return "unknown host"
		}
		return "host name not resolved"
	}
	for _, kind := range []struct {
		target error
		name   string
	}{
		{ErrNotReplicated, "too few replicas"},
		{syscall.ECONNREFUSED, "connection refused"},
		{syscall.ECONNRESET, "connection closed"},
		{context.DeadlineExceeded, timedOut},
		{os.ErrDeadlineExceeded, timedOut},
		{context.Canceled, "canceled"},
		{io.EOF, "connection closed"},
		{io.ErrUnexpectedEOF, "connection closed"},
	} {
		if errors.Is(err, kind.target) {
			return kind.name
		}
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return "network: " + op.Op
	}
	if named, ok := errors.AsType[namedError](err); ok {
		return named.name
	}
	return "unknown"
}

// namedError is a failure to which its store gives a name for the log. The name
// holds no secret.
type namedError struct {
	error
	name     string
	commands string // those that failed, if known
}

func (e namedError) Unwrap() error { return e.error }

const (
	timedOut         = "timeout"
	noPermission     = "no permission: "
	notAuthenticated = "not authenticated: "
	refused          = "refused: "
	wrongDatabase    = "wrong database"
	unknownCommand   = "unknown command"
	noCluster        = "not a Cluster"
)

// advices say what to do about a cause. The first that the name begins with counts.
var advices = []struct{ cause, advice string }{
	{"unknown host", "check the host name in the client's Addr"},
	{"host name not resolved", "check the name server and the host name in the client's Addr"},
	{"too few replicas", "check that as many replicas as WaitReplicas are connected to the primary"},
	{"connection refused", "check that Redis runs, and the client's Addr"},
	{"connection closed", "check the client's Addr, and whether the server expects TLS"},
	{timedOut, "check the client's Addr, the network and StoreTimeout: nothing answers in time"},
	{"network: ", "check the network and the client's Addr"},
	{noPermission, "grant the user the commands and the keys that SECURITY.md lists"},
	{notAuthenticated, "check the user name and the password of the client"},
	{wrongDatabase, "the server does not have the client's DB: a Cluster has database 0 alone"},
	{unknownCommand, "it takes Redis 6.2 or newer, with no command renamed"},
	{noCluster, "use redis.NewClient: the server does not belong to a Cluster"},
	{refused + "MOVED", "use redis.NewClusterClient: the server belongs to a Cluster"},
	{refused + "LOADING", "wait: Redis is loading its data"},
	{refused + "READONLY", "use the address of the primary: this is a replica"},
	{refused + "MASTERDOWN", "use the address of the primary: this is a replica without one"},
	{refused + "CLUSTERDOWN", "check the Cluster: not all of its slots are served"},
	{refused + "OOM", "Redis is full: raise maxmemory"},
	{refused + "MISCONF", "Redis cannot save its data to disk"},
}

// adviceFor says what to do about a failure with this name, or "".
func adviceFor(name string) string {
	for _, a := range advices {
		if strings.HasPrefix(name, a.cause) {
			return a.advice
		}
	}
	return ""
}
