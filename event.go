package echosession

import (
	"crypto/sha256"
	"encoding/base64"
	"time"
)

// An Event says what happened to a session, to a request or to the store: see
// [Config.OnEvent]. It holds no token, no session ID, no key of the store, no data, and of
// what a server answers no more than the code of an error. The subject is there as the
// program gave it.
type Event struct {
	// Kind says what happened. The fields that it sets are in its comment.
	Kind EventKind

	// Reason says why, in one of the words that the comment of the Kind lists. Where Reason
	// names a cause, the code of a server's error may stand behind a colon, such as
	// "refused: READONLY": cut it off before you make it the label of a metric.
	Reason string

	// Subject is whose session it is, or "".
	Subject string

	// LogID stands for the session in logs: see [LogID]. It is "" where no session is known.
	LogID string

	// Before is the LogID that the session had before, for EventRenewed and EventRotated.
	Before string

	// Count is how many sessions are concerned.
	Count int

	// Duration is how long it took.
	Duration time.Duration

	// Err is the sentinel of this package that the failure matches, or nil. It wraps
	// nothing: no cause of the store is behind it.
	Err error
}

// An EventKind is what an [Event] tells of.
type EventKind string

// The life of sessions. Count is 1 unless the comment says otherwise. Subject and LogID are set.
const (
	// EventCreated: a session was created. Reason is "login", or "guest" for one of
	// [Session.UpdateOrCreate], where nobody has authenticated.
	EventCreated EventKind = "created"

	// EventRenewed: a login, or a gain of rights, moved a session to a new token. Before is
	// the LogID that it had.
	EventRenewed EventKind = "renewed"

	// EventRotated: [Session.Rotate] moved a session to a new token. Before is the LogID
	// that it had.
	EventRotated EventKind = "rotated"

	// EventImported: a request found what another library has stored, and made a session of
	// it: see [Config.Import].
	EventImported EventKind = "imported"

	// EventDestroyed: a session was ended by its own token. Reason is "logout" for
	// [Session.Destroy], "replaced" where [Session.Create] put another one in its place, and
	// "discarded" where a new session's token could not be handed out.
	// Two requests that end a session at the same moment are told of both, so these events
	// may be more than the sessions.
	EventDestroyed EventKind = "destroyed"

	// EventRevoked: sessions of a subject were ended: Count of them, which may be 0. Reason
	// is "one" for [Manager.Revoke], which sets LogID, and "subject" for
	// [Manager.RevokeSubject].
	EventRevoked EventKind = "revoked"

	// EventEvicted: a new session of the subject was one more than [Config.MaxSessions], and
	// this one gave way. LogID is that of the session that ended.
	EventEvicted EventKind = "evicted"

	// EventExpired: a session's time was over. It is known of sessions that this process
	// watches: see [Session.Watch].
	EventExpired EventKind = "expired"
)

// Requests and their tokens.
const (
	// EventOpened: a request's token, or that of [Manager.Open], led to a live session. Reason
	// is "cached" where the token's signature was known to be good, "verified" where it was
	// checked, and "ticket". Subject and LogID are set.
	EventOpened EventKind = "opened"

	// EventRefused: a request has no live session although it carries a token, or the
	// session does not do. Reason is
	//   - "malformed", "type", "algorithm", "unknown_key", "signature", "claims", "issuer",
	//     "audience", "expired", "not_yet_valid": what is wrong with the token;
	//   - "ticket": a ticket that is malformed, was used, is too late, or for another path
	//     or origin;
	//   - "ambiguous": more than one token;
	//   - "gone", "renewed", "corrupt": the token is good, and [ErrSessionGone],
	//     [ErrRenewed] or [ErrCorrupt] says what became of its session;
	//   - "cross_origin": [ErrCrossOrigin];
	//   - "no_token", "not_fresh", "not_authenticated": what [Require] demands;
	//   - "too_many_sessions": [ErrTooManySessions].
	//
	// Subject and LogID are set where the token is good. Err is the sentinel.
	EventRefused EventKind = "refused"

	// EventSuperseded: a token was used that [Session.Rotate] has replaced, in its grace.
	// Requests that were under way do so; a thief may. Subject and LogID are set; LogID is
	// that of the old token.
	EventSuperseded EventKind = "superseded"

	// EventStaleServed: the store is down, and a request was served a copy: see [ServeStale].
	// Subject and LogID are set.
	EventStaleServed EventKind = "stale_served"

	// EventOldKey: a key is still in use that is not the first of its list. Reason is
	// "signing" for a token that opened a session, which is told once until this process
	// forgets the token, and "encryption" for a record, which is told at each read. Subject
	// and LogID are set.
	EventOldKey EventKind = "old_key"

	// EventUnreadable: a record cannot be read: [ErrCorrupt]. Reason is "codec", "too_large",
	// "sealed", "not_sealed", "key", "head", "data", "migrate" or "import". LogID is set.
	EventUnreadable EventKind = "unreadable"
)

// The store.
const (
	// EventStoreCall: the store was called. Reason is the method: "load", "create",
	// "replace", "touch", "check", "rotate", "renew", "delete", "list", "count",
	// "delete_subject", "put_ticket", "take_ticket" or "ping". A visit of all sessions is not
	// told of. Duration is set. Err is [ErrStoreUnavailable], [ErrIndeterminate],
	// [ErrNotReplicated], [ErrConflict], [ErrNotFound], [ErrRenewed], [ErrTooManySessions] or
	// [ErrUnsupported] where that came of it, and [context.Canceled] where the client hung up,
	// or left less than half of [Config.StoreTimeout].
	EventStoreCall EventKind = "store_call"

	// EventStoreDown: the first call failed after the store had worked. Reason names the
	// cause: "timeout", "connection refused". Err is [ErrStoreUnavailable]. A call does not
	// count where a deadline of the request left it less than half of [Config.StoreTimeout].
	EventStoreDown EventKind = "store_down"

	// EventStoreUp: a call succeeded after EventStoreDown, and none has failed for a second.
	// Duration is the time since EventStoreDown.
	EventStoreUp EventKind = "store_up"

	// EventIndeterminate: the reply to a write was lost: [ErrIndeterminate] or
	// [ErrNotReplicated]. Reason names the cause.
	EventIndeterminate EventKind = "indeterminate"
)

// Watches: see [Session.Watch].
const (
	// EventWatchBegan: a watch began. Subject and LogID are set.
	EventWatchBegan EventKind = "watch_began"

	// EventWatchEnded: a watch is over. Reason is "gone", "renewed", "closed" or "stopped",
	// the last for one that the program stopped itself. Subject and LogID are those of
	// EventWatchBegan.
	EventWatchEnded EventKind = "watch_ended"

	// EventWatchInterrupted: this process does not hear of ends at once, and asks the store
	// again and again. Reason names the cause.
	EventWatchInterrupted EventKind = "watch_interrupted"

	// EventWatchResumed: it hears of them again, and has checked all watched sessions. Count
	// is how many of them had ended unheard. Duration is the time since
	// EventWatchInterrupted.
	EventWatchResumed EventKind = "watch_resumed"
)

// LogID returns what stands for a session in logs: 12 characters that are the same in every
// process and lead nobody back to the ID. It is the beginning of
// base64url(SHA-256("echosession-log" ‖ 0 ‖ id)). The ID is [Session.ID] in lower case, and
// its 122 random bits need no key. See [Session.LogID].
func LogID(id string) string {
	var text [64]byte
	sum := sha256.Sum256(append(append(text[:0], "echosession-log\x00"...), id...))
	var encoded [12]byte
	base64.RawURLEncoding.Encode(encoded[:], sum[:9])
	return string(encoded[:])
}
