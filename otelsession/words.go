package otelsession

import (
	"context"
	"errors"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/attribute"

	"github.com/echosession/echosession"
)

// What attributes are called. error.type and user.id are OpenTelemetry's own.
const (
	reasonKey    = attribute.Key("echosession.reason")
	operationKey = attribute.Key("echosession.store.operation")
	instanceKey  = attribute.Key("echosession.instance")
	logIDKey     = attribute.Key("echosession.log_id")
	beforeKey    = attribute.Key("echosession.log_id.before")
	countKey     = attribute.Key("echosession.count")
	durationKey  = attribute.Key("echosession.duration")
)

// other stands for every reason that is not among the words of its kind.
const other = "other"

// words are the reasons of the kinds of events, as the documentation of the kinds lists them.
var words = map[echosession.EventKind][]string{
	echosession.EventCreated:   {"login", "guest"},
	echosession.EventDestroyed: {"logout", "replaced", "discarded"},
	echosession.EventRevoked:   {"one", "subject"},
	echosession.EventOpened:    {"cached", "verified", "ticket"},
	echosession.EventRefused: {
		"malformed", "type", "algorithm", "unknown_key", "signature", "claims", "issuer",
		"audience", "expired", "not_yet_valid", "ticket", "ambiguous", "gone", "renewed", "corrupt",
		"cross_origin", "no_token", "not_fresh", "not_authenticated", "too_many_sessions",
	},
	echosession.EventOldKey: {"signing", "encryption"},
	echosession.EventUnreadable: {
		"codec", "too_large", "sealed", "not_sealed", "key", "head", "data", "migrate", "import",
	},
	echosession.EventStoreCall: {
		"load", "create", "replace", "touch", "check", "rotate", "renew", "delete", "list", "count",
		"delete_subject", "put_ticket", "take_ticket", "ping",
	},
	echosession.EventWatchEnded: {"gone", "renewed", "closed", "stopped"},
}

// ends are the reasons why sessions ended: those of EventDestroyed, and one for each other
// kind of end.
var ends = append(slices.Clone(words[echosession.EventDestroyed]), "revoked", "revoked_subject", "evicted", "expired")

// causes are the reasons why a store, or a subscription to it, fails.
var causes = []string{
	"timeout", "connection refused", "connection closed", "network", "unknown host",
	"host name not resolved", "canceled", "too few replicas", "no permission", "not authenticated",
	"wrong database", "unknown command", "not a Cluster", "subscription silent", "no shard",
	"the client cannot subscribe", "reply of another command", "panic in the store", "unknown",
	"refused", "refused: MOVED", "refused: LOADING", "refused: READONLY", "refused: MASTERDOWN",
	"refused: CLUSTERDOWN", "refused: OOM", "refused: MISCONF",
}

// causeWord returns the word for a cause. Behind a colon may stand what a server said: only
// known words of servers are kept.
func causeWord(cause string) string {
	if slices.Contains(causes, cause) {
		return cause
	}
	general, _, _ := strings.Cut(cause, ": ")
	if slices.Contains(causes, general) {
		return general
	}
	return other
}

// errorTypes are the values of error.type, by the sentinels that [echosession.Event.Err]
// holds. An error that matches several has the first: ErrIndeterminate is unavailability too.
var errorTypes = []struct {
	sentinel error
	name     string
}{
	{echosession.ErrNotReplicated, "not_replicated"},
	{echosession.ErrIndeterminate, "indeterminate"},
	{context.Canceled, "canceled"},
	{echosession.ErrStoreUnavailable, "unavailable"},
	{echosession.ErrNotFound, "not_found"},
	{echosession.ErrConflict, "conflict"},
	{echosession.ErrRenewed, "renewed"},
	{echosession.ErrTooManySessions, "too_many_sessions"},
	{echosession.ErrUnsupported, "unsupported"},
}

// otherError is OpenTelemetry's word for an error that has no name.
const otherError = "_OTHER"

// errorType returns the value of error.type, or "" for nil.
func errorType(err error) string {
	if err == nil {
		return ""
	}
	for _, t := range errorTypes {
		if errors.Is(err, t.sentinel) {
			return t.name
		}
	}
	return otherError
}
