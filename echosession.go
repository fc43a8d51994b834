// Package echosession gives [Echo] handlers typed sessions that live in Redis.
//
// The client holds a signed JSON Web Token. Its jti is a UUID that names a Redis
// key, and that key holds a struct of yours, in MessagePack. One line in main and
// one line in a handler:
//
//	e.Use(echosession.Middleware[User](echosession.Config{Client: rdb, Secret: secret}))
//
//	sess, err := echosession.Get[User](c)
//
// [Get] returns a [Session], a handle that always exists. [Session.Exists] tells
// whether a live session stands behind it: one whose token is valid and whose
// record is in the store. Put [Require] before routes that need one.
//
// [Session.Data] returns a copy of the struct, and [Session.Update] is the only
// way to change what is stored. It is atomic: when two requests update one session
// at the same time, both changes are kept.
//
// Where somebody logs in, call [Session.Renew]. It keeps what the session of a guest holds,
// and ends the token of before: who planted that token, or saw it, is not logged in.
// [Session.UpdateOrCreate] makes a session for a guest, and [Authenticated] lets only users
// through.
//
// A session ends when it has not been used for [Config.MaxAge], at the time in the
// exp claim of its token, or at once with [Session.Destroy], [Manager.Revoke] and
// [Manager.RevokeSubject]. What goes on after the answer has begun, such as a stream of
// events, learns of that with [Session.Watch], in every process.
//
// When the store cannot answer, that is an error ([ErrStoreUnavailable], answered
// with 503). It is never taken for a missing session.
//
// Package echov5 has the same two lines for Echo v5, and package nethttp for
// net/http. [Exchange] is what an adapter for another framework implements.
//
// [Echo]: https://echo.labstack.com
package echosession

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
)

// Config configures [New] and [Middleware]. A Client or Store and a Secret or
// Keys are required; for every other field the zero value means the default that
// its comment names. A Config may be copied, and is not used after New has returned.
//
// The fields stand in groups:
//
//   - where sessions are kept: Client, Store, Keyspace, StoreTimeout, WaitReplicas, StaleFor,
//     StaleBytes
//   - tokens: Secret, Algorithm, Keys, Issuer, Audience, ClockSkew
//   - lifetimes: MaxAge, AbsoluteTimeout, TouchInterval, RotateGrace
//   - where tokens are in a request: RequestKey, RequestArg, TokenLookup, Skipper
//   - cookies: Cookie, TrustedOrigins
//   - subjects: SubjectIndex, MaxSessions, WhenFull
//   - records and sealing: Codec, MaxRecordSize, EncryptionKeys, AllowPlaintext, Import
//   - errors, logs and tests: ErrorHandler, Logger, OnEvent, Now
type Config struct {
	// Where sessions are kept.

	// Client is the go-redis client of the Redis that keeps the sessions, 6.2 or
	// newer: a *redis.Client (redis.NewFailoverClient makes one for Sentinel), a
	// *redis.ClusterClient, a *redis.Ring, or what AutoPipeline of the first two
	// returns. Build it with ContextTimeoutEnabled: true. Required, unless Store
	// is set.
	Client RedisClient

	// Store keeps the sessions instead of Client, for example [NewMemoryStore].
	Store Store

	// Keyspace begins the name of every Redis key. Instances that share a Redis
	// need different ones. With Store it names no key. With EncryptionKeys it also names
	// the instance in its records, whatever the store: a record does not open in
	// another instance, and changing Keyspace ends every session that is encrypted.
	// Default "sess:".
	Keyspace string

	// StoreTimeout bounds each call of the store. At least a millisecond. Default 1
	// second.
	StoreTimeout time.Duration

	// WaitReplicas is how many Redis replicas a write waits for (WAIT), so that no
	// failover to one of them undoes the write. When fewer confirm it within
	// StoreTimeout, the method returns [ErrNotReplicated]. After a [Session.Renew] that
	// returns it, the old session has ended and the new one may not be there: the user
	// logs in again. It needs a *redis.Client or *redis.ClusterClient. Default 0: writes
	// do not wait.
	WaitReplicas int

	// StaleFor lets routes with [ServeStale] go on while Redis is down, each for sessions
	// that this process has read in this time: docs/outage.md. A session that was changed or
	// ended by another process meanwhile may be served as it was before, for at most this
	// time. From a second to a minute. With a [MemoryStore] it is refused. Default 0: such
	// routes answer with 503 too.
	StaleFor time.Duration

	// StaleBytes is how much memory StaleFor takes, for copies of sessions as they are
	// stored, and for what was written lately. When it is full, the sessions that were read
	// longest ago give way. Default 64 MiB.
	StaleBytes int

	// Tokens.

	// Secret is the HMAC secret that tokens are signed with: shorthand for one
	// [SigningKey] without an ID. It has at least as many bytes as the hash that
	// Algorithm names (RFC 7518 §3.2): 32 for HS256, 48 for HS384, 64 for HS512.
	// Make one with crypto/rand or "openssl rand -base64 32". Required, unless
	// Keys is set.
	Secret []byte

	// Algorithm is the HMAC algorithm that goes with Secret: "HS256", "HS384" or
	// "HS512". Default "HS256". With Keys every key names its own.
	Algorithm string

	// Keys are the signing keys instead of Secret. The first one signs, all of
	// them verify. To replace a key, deploy the new one at the end, then at the
	// front, and then without the old one: docs/keys.md says when.
	Keys []SigningKey

	// Issuer is the iss claim of the tokens. When it is set, tokens with another iss
	// or without iss are invalid. Default "": none.
	Issuer string

	// Audience is the aud claim of the tokens. When it is set, tokens that name none
	// of these audiences are invalid. Default: none.
	Audience []string

	// ClockSkew is the largest difference to expect between the clocks of the machines
	// that issue and verify tokens. It loosens exp, nbf and iat. From 0 to 5 minutes.
	// Default 0.
	ClockSkew time.Duration

	// Lifetimes.

	// MaxAge is the idle timeout: a session ends when it has not been used for this
	// time. Every use restarts it, see TouchInterval. At least a millisecond.
	// Default 24 hours. [WithMaxAge] sets it for one session, and an exp in
	// [WithClaims] supersedes it for one session.
	MaxAge time.Duration

	// AbsoluteTimeout is the longest a session lives after the last login, which is its
	// [Session.Create] or [Session.Renew], however much it is used. A guest's counts from
	// the creation. It is the exp of the token. Rotation does not prolong it. From a
	// second to 36,500 days. Default 0: none.
	AbsoluteTimeout time.Duration

	// TouchInterval is the least time between two restarts of the idle timeout. A use
	// before that restarts nothing and is a plain GET. Each process counts on its
	// own. It must be below MaxAge. Default: a twentieth of MaxAge, and at most a
	// minute. [TouchAlways] makes every use restart the idle timeout.
	TouchInterval time.Duration

	// RotateGrace is how long a token still finds its session after
	// [Session.Rotate], for requests that were under way then. At least a millisecond.
	// Default 10 seconds. [NoGrace] ends the old token at once.
	RotateGrace time.Duration

	// Where tokens are in a request.

	// RequestKey is the key of the session in echo.Context. Instances on one route need different
	// ones. It is the realm of WWW-Authenticate too. Default "session".
	RequestKey string

	// RequestArg names the token in requests. Default "accessToken", which is found
	// as Authorization: Bearer, as header X-Access-Token, and as query parameter
	// or body field accessToken. Another name changes all but the first:
	// "adminToken" is header X-Admin-Token.
	RequestArg string

	// TokenLookup says where to look for the token instead: a list of words, separated
	// by commas, as in "bearer,cookie". The word bearer is Authorization: Bearer, and
	// cookie is the cookie of the field Cookie. The others are Echo's syntax:
	// header:<name>, header:<name>:<prefix>, query:<name>, param:<name>,
	// cookie:<name>, form:<name>, and body:<name>, which is a field of a form or of a
	// JSON object. ticket:<name> is the parameter of the query that carries a ticket of
	// [Session.Ticket]; it needs a store that is a [TicketStore]. Default: derived from
	// RequestArg, with the cookie when Cookie is set.
	TokenLookup string

	// Skipper leaves out requests for which it returns true: no session is
	// installed, and [Get] returns [ErrNotInstalled]. It is for Echo v4; adapters for
	// other frameworks have their own. Default: no request is left out.
	Skipper middleware.Skipper

	// Cookies.

	// Cookie makes [Session.Create], [Session.Renew], [Session.UpdateOrCreate] and
	// [Session.Rotate] set a cookie with the token, and [Session.Destroy] clear it.
	// Default nil: no cookie.
	//
	// An answer that carries the cookie gets Cache-Control: private, no-store. So
	// does any answer to a live session's cookie, unless the handler sets
	// Cache-Control itself: after a logout, Back shows no page of before. Where the
	// session was looked for in a cookie and found nowhere else, the answer gets
	// Vary: Cookie. Echo takes the handler's word where a Response.Before that the
	// handler registered after [Get] sets these headers, or where the handler sets
	// them after Get and flushes before it writes anything.
	Cookie *Cookie

	// TrustedOrigins are other origins from which browsers may send requests with
	// unsafe methods whose token is in a cookie or whose answer sets or clears it. From
	// any other origin than these and the service's own they are refused with
	// [ErrCrossOrigin]. They are origins as browsers send them: of other pages of
	// yours ("https://app.example.com"), of apps ("capacitor://localhost"), and the
	// public origin of the service itself where a proxy rewrites Host. Default: only
	// the service's own.
	TrustedOrigins []string

	// Subjects.

	// SubjectIndex keeps an index of the sessions of each subject, for [Manager.List],
	// [Manager.Revoke], [Manager.RevokeSubject], [Manager.Count] and MaxSessions. Turning it on or off
	// ends the sessions that have a subject. Default false.
	SubjectIndex bool

	// MaxSessions is how many sessions a subject can have: when one more is
	// created, the oldest give way in the same step, or as WhenFull says. It needs
	// SubjectIndex. Default 0: any number.
	MaxSessions int

	// WhenFull says what happens when a subject has MaxSessions sessions and one more
	// is to be created: [EvictOldest], or [RefuseNew], where the new session is refused
	// with [ErrTooManySessions]. RefuseNew needs MaxSessions of at most 1,000. A
	// [Session.Renew] by the same subject is no new session; a [Session.Create] is, also
	// where it takes the place of one. Default EvictOldest.
	WhenFull WhenFull

	// Records and sealing.

	// Codec turns T into bytes and back. Default: MessagePack, which also keeps
	// the fields that this binary's T does not know through an Update.
	Codec Codec

	// MaxRecordSize is how many bytes a session may take in the store, encoded. Larger
	// sessions are not written ([ErrTooLarge]), and not read ([ErrCorrupt]): before you
	// lower it, see that no session is larger, and raise it on all instances before
	// sessions grow. In memory the data may take 64 times as much, by an estimate from
	// the lengths of its slices, maps and strings. Default 64 KiB.
	MaxRecordSize int

	// EncryptionKeys encrypt the sessions' data in the store with AES-256-GCM.
	// Each has 32 bytes. The first one seals, all of them open. To replace a key,
	// deploy the new one at the end, then at the front. Take the old one out when
	// every session that it sealed has ended or was updated. Default: no encryption.
	EncryptionKeys [][]byte

	// AllowPlaintext lets records that are not encrypted be read while
	// EncryptionKeys are set, so that encryption can be turned on without logging
	// anyone out. Take it out when the last plain record has expired: until then,
	// whoever can write to the store can forge a session's data. Default false.
	AllowPlaintext bool

	// Import reads what another library has stored under the key of a session, so that
	// its users stay logged in: docs/migrate.md shows how. stored is what the store
	// holds, and v is a *T. json.Unmarshal is one for records in JSON. It must be safe
	// for concurrent use, and keep neither of them.
	//
	// It is called when a request whose token is valid finds something that does not
	// begin as a record does. What Import makes of it takes the place of what was
	// stored, in the form of Codec and EncryptionKeys, unless another request changed or
	// deleted it meanwhile. It keeps the lifetime that was left, which the read has
	// restarted as any use does. The subject, the idle timeout and the deadline are those
	// of the token; CreatedAt and AuthenticatedAt are its iat, or now if it has none.
	// AbsoluteTimeout does not concern the session. If stored is a JSON object, its
	// members claims and jwt are left out: the Node predecessor keeps the bearer token
	// there.
	//
	// An error or a panic of Import is [ErrCorrupt], with the cause for errors.Is, and
	// what was stored stays. The log does not have the cause.
	//
	// [Manager.List] and [Manager.All] import nothing. With SubjectIndex, what another
	// library has stored is found for tokens without sub alone. While Import is set,
	// whoever can write to the store can forge a session's data, as with AllowPlaintext:
	// take it out when nothing of the other library is left. Default nil: what is not a
	// record is ErrCorrupt.
	Import func(stored []byte, v any) error

	// Errors, logs and tests.

	// ErrorHandler answers a request whose handler returned an error of this
	// package. What it returns goes on to Echo's HTTPErrorHandler. It is for Echo v4;
	// adapters for other frameworks have their own. Default: the error becomes an
	// *echo.HTTPError with the status that the README lists, with the
	// WWW-Authenticate and Retry-After headers that belong to it, and without a word
	// about the cause.
	ErrorHandler func(c echo.Context, err error) error

	// Logger is told of a store that cannot answer, of records that cannot be read and
	// of mistakes of the program: of each kind the first, then one line a second with
	// the number since. It is never told tokens, IDs, keys or data. Default:
	// slog.Default() as it is when New is called.
	Logger *slog.Logger

	// OnEvent is told what happens: sessions that begin and end, requests that are refused,
	// calls of the store and its outages. [SlogEvents] makes an audit log of it; the module
	// otelsession makes metrics. It is called in the goroutine in which it happens, often
	// during a request, whose context it gets. So it must not block: the request waits for it, and so do
	// all watches. It must call no method of a [Session] or a [Manager]. Several goroutines call it at once, and events of
	// different goroutines come in any order. A panic in it is caught and logged. Default
	// nil: nobody is told, and nothing is spent on it.
	OnEvent func(ctx context.Context, e Event)

	// Now is the clock. Default time.Now. It is for tests.
	Now func() time.Time
}

// Middleware is [New] and [Manager.Middleware] in one line, for main. It panics
// on an invalid cfg, with the error of New.
func Middleware[T any](cfg Config) echo.MiddlewareFunc {
	m, err := New[T](cfg)
	if err != nil {
		panic(err)
	}
	return m.Middleware()
}

// Middleware installs a session in each request for [Get] to find. It does no I/O
// and rejects no request: the first Get reads the session, so a route that never
// asks for its session pays nothing for it. Installing the same Manager twice on a
// route does nothing more. Two Managers on one route need different
// [Config.RequestKey]s, or every request is answered with [ErrNotInstalled].
//
// It also gives the errors of this package that handlers return their HTTP form,
// see [Config.ErrorHandler].
func (m *Manager[T]) Middleware() echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if skip := m.cfg.Skipper; skip != nil && skip(c) {
				return next(c)
			}
			key := m.RequestKey()
			if installed, err := m.Installed(c.Get(key)); err != nil {
				return m.answer(c, err)
			} else if installed {
				return next(c)
			}
			b := m.Bind(exchange{c})
			c.Set(key, b)
			defer b.Release()
			return m.answer(c, next(c))
		}
	}
}

// Get returns the session of a request.
//
// A missing session is not an error: then [Session.Exists] is false and
// [Session.Reason] says why. Get fails only when it could not find out, because
// the store is down ([ErrStoreUnavailable]) or the middleware is missing or was
// installed with another type ([ErrNotInstalled], [ErrTypeMismatch]). Return that
// error from the handler.
//
// The first Get of a request reads the session from the store; later ones return
// the same handle. A requestKey names one of several instances, see
// [Config.RequestKey].
func Get[T any](c echo.Context, requestKey ...string) (*Session[T], error) {
	key := defaultRequestKey
	if len(requestKey) > 0 {
		key = requestKey[0]
	}
	return find[T](c.Get(key), key, nil, false)
}

// Get is the function [Get] for the sessions of this Manager alone: for those of
// another Manager it returns [ErrNotInstalled].
func (m *Manager[T]) Get(c echo.Context) (*Session[T], error) {
	key := m.RequestKey()
	return find[T](c.Get(key), key, m.engine, false)
}

// With makes a handler of a function that needs the session: it calls [Manager.Get],
// and returns its error where there is one. The session need not be live: put
// [Manager.Require] before routes where it must be.
func (m *Manager[T]) With(h func(c echo.Context, sess *Session[T]) error) echo.HandlerFunc {
	return func(c echo.Context) error {
		sess, err := m.Get(c)
		if err != nil {
			return err
		}
		return h(c, sess)
	}
}

// Require is middleware for groups and routes that need a live session. A request
// without one does not reach the handler: it is answered with 401, or as its
// [Session.Reason] demands. It goes behind [Middleware], and looks under the default
// [Config.RequestKey] unless [RequestKey] names another.
func Require[T any](opts ...RequireOption) echo.MiddlewareFunc {
	key := RequestKeyOf(opts...)
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			sess, err := Find[T](c.Get(key), key, opts...)
			if err == nil {
				err = sess.Meets(opts...)
			}
			if err != nil {
				return err
			}
			return next(c)
		}
	}
}

// Require is the function [Require] for the sessions of this Manager alone: those
// of another Manager are answered with [ErrNotInstalled].
func (m *Manager[T]) Require(opts ...RequireOption) echo.MiddlewareFunc {
	return Require[T](append([]RequireOption{RequestKey(m.RequestKey()), m.Only()}, opts...)...)
}

// exchange shows an Echo context as an Exchange.
type exchange struct{ c echo.Context }

func (x exchange) Request() *http.Request   { return x.c.Request() }
func (x exchange) Header() http.Header      { return x.c.Response().Header() }
func (x exchange) Committed() bool          { return x.c.Response().Committed }
func (x exchange) BeforeHeader(f func())    { x.c.Response().Before(f) }
func (x exchange) Param(name string) string { return x.c.Param(name) }

// answer gives the errors of this package their HTTP form. An error that has a form
// already, because a handler or another instance gave it one, keeps it.
func (m *Manager[T]) answer(c echo.Context, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*echo.HTTPError](err); ok {
		return err
	}
	a, ours := m.Answer(err)
	if !ours || c.Response().Committed {
		return err
	}
	if m.cfg.ErrorHandler != nil {
		return m.cfg.ErrorHandler(c, err)
	}
	a.AddTo(c.Response().Header())
	return echo.NewHTTPError(a.Status, a.Message).SetInternal(err)
}
