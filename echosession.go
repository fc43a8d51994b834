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
// way to change what is stored. It is atomic: of two requests that update one
// session at the same time neither loses its change.
//
// A session ends when it has not been used for [Config.MaxAge], at the time that
// its token's exp claim says, or at once with [Session.Destroy] and
// [Manager.RevokeSubject].
//
// A store that cannot answer is an error ([ErrStoreUnavailable], answered with
// 503) and never taken for a missing session.
//
// [Echo]: https://echo.labstack.com
package echosession

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"reflect"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
)

// The defaults of [Config].
const (
	defaultKeyspace      = "sess:"
	defaultAlgorithm     = "HS256"
	defaultMaxAge        = 24 * time.Hour
	defaultRequestKey    = "session"
	defaultRequestArg    = "accessToken"
	defaultRotateGrace   = 10 * time.Second
	defaultMaxRecordSize = 64 << 10
	defaultStoreTimeout  = time.Second
	maxTouchInterval     = time.Minute
)

const (
	// TouchAlways as [Config.TouchInterval] makes every use restart the idle
	// timeout.
	TouchAlways time.Duration = -1

	// NoGrace as [Config.RotateGrace] makes a rotated token invalid at once.
	NoGrace time.Duration = -1
)

// Config configures [New] and [Middleware]. A Client or Store and a Secret or
// Keys are required; for every other field the zero value means the default that
// it documents. A Config may be copied, and is not used after New has returned.
type Config struct {
	// Skipper leaves out requests for which it returns true: no session is
	// installed, and [Get] returns [ErrNotInstalled]. Default: none is skipped.
	Skipper middleware.Skipper

	// Client is the go-redis client of the Redis that keeps the sessions, 6.2 or
	// newer: a *redis.Client (redis.NewFailoverClient makes one for Sentinel), a
	// *redis.ClusterClient, a *redis.Ring, or what AutoPipeline of the first two
	// returns. Build it with ContextTimeoutEnabled: true. Required, unless Store
	// is set.
	Client RedisClient

	// Store keeps the sessions instead of Client, for example [NewMemoryStore].
	Store Store

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
	// front, and then without the old one: the README says when.
	Keys []SigningKey

	// Keyspace begins the name of every Redis key. Instances that share a Redis
	// need different ones. Default "sess:". It has no effect with Store.
	Keyspace string

	// MaxAge is the idle timeout: a session that is not used for so long ends.
	// Every use restarts it, see TouchInterval. At least a millisecond. Default 24
	// hours. [WithMaxAge] sets it for one session, and an exp in [WithClaims]
	// supersedes it for one session.
	MaxAge time.Duration

	// AbsoluteTimeout ends a session so long after [Session.Create], whatever its
	// use. It is the exp of the token. Rotation does not prolong it. At least a
	// second. Default 0: there is none.
	AbsoluteTimeout time.Duration

	// TouchInterval is how often a use restarts the idle timeout at most. A use
	// that does not restart it is a plain GET. It is counted in each process on its
	// own, and must be below MaxAge. Default: a twentieth of MaxAge, and at most a
	// minute. [TouchAlways] makes every use restart it.
	TouchInterval time.Duration

	// RequestKey is the key in echo.Context. Instances on one route need different
	// ones. It is the realm of WWW-Authenticate too. Default "session".
	RequestKey string

	// RequestArg names the token in requests. Default "accessToken", which is found
	// as Authorization: Bearer, as header X-Access-Token, and as query parameter
	// or body field accessToken. Another name changes all but the first:
	// "adminToken" is header X-Admin-Token.
	RequestArg string

	// TokenLookup says where to look for the token instead, in Echo's syntax: a
	// list, separated by commas, of header:<name>, header:<name>:<prefix>,
	// query:<name>, param:<name>, cookie:<name>, form:<name> and body:<name>. The
	// last one is a field of a form or of a JSON object. Default: derived from
	// RequestArg, with the cookie when Cookie is set.
	TokenLookup string

	// Issuer is the iss claim of the tokens. When it is set, tokens with another
	// one or none are invalid. Default "": none.
	Issuer string

	// Audience is the aud claim of the tokens. When it is set, tokens that name
	// none of these are invalid. Default: none.
	Audience []string

	// ClockSkew is by how much the clocks of the machines that issue and verify
	// tokens may differ. It loosens exp, nbf and iat. From 0 to 5 minutes.
	// Default 0.
	ClockSkew time.Duration

	// Cookie makes [Session.Create] and [Session.Rotate] set a cookie with the
	// token, and [Session.Destroy] clear it. Default nil: no cookie.
	Cookie *Cookie

	// TrustedOrigins are origins ("https://app.example.com") from which browsers
	// may send requests with unsafe methods whose token is in a cookie. Others
	// than the service's own are refused with [ErrCrossOrigin]. Default: none.
	TrustedOrigins []string

	// SubjectIndex keeps an index of the sessions of each subject, for
	// [Manager.List], [Manager.RevokeSubject] and MaxSessions. To turn it on or off
	// ends the sessions that have a subject. Default false.
	SubjectIndex bool

	// MaxSessions is how many sessions a subject can have: when one more is
	// created, the oldest give way in the same step. It needs SubjectIndex.
	// Default 0: any number.
	MaxSessions int

	// RotateGrace is how long a token still finds its session after
	// [Session.Rotate], for requests that were under way. At least a millisecond.
	// Default 10 seconds. [NoGrace] for none.
	RotateGrace time.Duration

	// EncryptionKeys encrypt the sessions' data in the store with AES-256-GCM.
	// Each has 32 bytes. The first one seals, all of them open. To replace a key,
	// deploy the new one at the end, then at the front, and then, when every
	// session that the old one sealed has ended or was updated, without the old
	// one. Default: no encryption.
	EncryptionKeys [][]byte

	// AllowPlaintext lets records that are not encrypted be read while
	// EncryptionKeys are set, so that encryption can be turned on without logging
	// anyone out. Take it out when the last of them has expired: until then
	// whoever can write to the store can forge a session's data. Default false.
	AllowPlaintext bool

	// Codec turns T into bytes and back. Default: MessagePack, which also keeps
	// the fields that this binary's T does not know through an Update.
	Codec Codec

	// MaxRecordSize is how many bytes a session may take in the store, encoded.
	// Default 64 KiB.
	MaxRecordSize int

	// StoreTimeout bounds each call of the store. At least a millisecond. Default 1
	// second.
	StoreTimeout time.Duration

	// WaitReplicas makes every write wait until so many Redis replicas have it
	// (WAIT), so that no failover to one of them undoes it. When fewer confirm it
	// within StoreTimeout, the method returns [ErrNotReplicated]. It needs a
	// *redis.Client or *redis.ClusterClient. Default 0: writes do not wait.
	WaitReplicas int

	// ErrorHandler answers a request whose handler returned an error of this
	// package. What it returns is passed on, to Echo's HTTPErrorHandler in the
	// end. Default: the error becomes an *echo.HTTPError with the status that the
	// README lists, with the WWW-Authenticate and Retry-After headers that go with
	// it, and without a word about the cause.
	ErrorHandler func(c echo.Context, err error) error

	// Logger is told of records that cannot be read and of a store that cannot
	// answer: never tokens, IDs, keys or data. Default: nobody is told.
	Logger *slog.Logger

	// Now is the clock. Default time.Now. It is for tests.
	Now func() time.Time
}

// A Manager makes and opens sessions whose data is a T. It is immutable and safe
// for concurrent use. Make one with [New].
type Manager[T any] struct {
	*engine
}

// New returns a Manager, or an error that names every mistake in cfg and how to
// mend it. It talks to no store.
//
// T is the struct that a session holds. New refuses a T that cannot be stored
// without loss: one with channels, functions, interfaces other than any, or
// unexported fields.
func New[T any](cfg Config) (*Manager[T], error) {
	e, err := newEngine(cfg, reflect.TypeFor[T]())
	if err != nil {
		return nil, err
	}
	return &Manager[T]{e}, nil
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

// Middleware installs a session in each request for [Get] to find. It looks at
// nothing, talks to no store and rejects no request: the first Get does that, so
// a route that never asks for its session pays nothing for it.
//
// It also gives the errors of this package that handlers return their HTTP form,
// see [Config.ErrorHandler].
func (m *Manager[T]) Middleware() echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if skip := m.cfg.Skipper; skip != nil && skip(c) {
				return next(c)
			}
			b := m.Bind(exchange{c})
			c.Set(m.cfg.RequestKey, b)
			defer b.Release()
			return m.answer(c, next(c))
		}
	}
}

// Get returns the session of a request.
//
// That there is none is not an error: then [Session.Exists] is false and
// [Session.Reason] says why. An error means that the question could not be
// answered ([ErrStoreUnavailable]) or not be asked ([ErrNotInstalled],
// [ErrTypeMismatch]); a handler returns it as it is.
//
// The first Get of a request reads the session from the store, the others return
// the same handle. A requestKey names one of several instances, see
// [Config.RequestKey].
func Get[T any](c echo.Context, requestKey ...string) (*Session[T], error) {
	key := defaultRequestKey
	if len(requestKey) > 0 {
		key = requestKey[0]
	}
	return Find[T](c.Get(key), key)
}

// Get is the function [Get] for the sessions of this Manager.
func (m *Manager[T]) Get(c echo.Context) (*Session[T], error) {
	return Get[T](c, m.cfg.RequestKey)
}

// A RequireOption is an option of [Require] and [Manager.Require].
type RequireOption func(*requirement)

type requirement struct {
	requestKey string
	fresh      time.Duration
}

// Fresh demands a login that is at most so long ago, for what wants a password
// again: see [Session.CreatedAt], which [Session.Rotate] leaves as it is. Others
// get [ErrNotFresh], answered with 401 and the challenge of RFC 9470. It panics
// if maxAge is under a second.
func Fresh(maxAge time.Duration) RequireOption {
	if maxAge < time.Second {
		panic(fmt.Sprintf("echosession: Fresh(%v): at least a second", maxAge))
	}
	return func(r *requirement) { r.fresh = maxAge }
}

// RequestKey makes [Require] look for the instance with this
// [Config.RequestKey].
func RequestKey(key string) RequireOption {
	return func(r *requirement) { r.requestKey = key }
}

// Require is middleware for groups and routes that need a live session of the
// instance with the default [Config.RequestKey]. A request without one does not
// reach the handler: it is answered with 401, or as its [Session.Reason] demands.
// It goes behind [Middleware].
func Require[T any](opts ...RequireOption) echo.MiddlewareFunc {
	r := requirement{requestKey: defaultRequestKey}
	for _, opt := range opts {
		opt(&r)
	}
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			sess, err := Get[T](c, r.requestKey)
			if err != nil {
				return err
			}
			if err := sess.Meets(opts...); err != nil {
				return err
			}
			return next(c)
		}
	}
}

// Require is the function [Require] for the sessions of this Manager.
func (m *Manager[T]) Require(opts ...RequireOption) echo.MiddlewareFunc {
	return Require[T](append([]RequireOption{RequestKey(m.cfg.RequestKey)}, opts...)...)
}

// Create makes a session outside of a request: in a job, a test or a gRPC
// service. [Session.Token] is what its client gets. It returns the errors of
// [Session.Create].
func (m *Manager[T]) Create(ctx context.Context, data T, opts ...CreateOption) (*Session[T], error) {
	s := &Session[T]{manager: m, resolved: true, reason: ErrNoToken}
	if _, err := s.Create(ctx, data, opts...); err != nil {
		return nil, err
	}
	return s, nil
}

// Open returns the session of a token that came otherwise than in a request that
// the middleware sees: over a WebSocket, or in gRPC metadata.
//
// As with [Get], that there is no live session is not an error: ask
// [Session.Exists].
func (m *Manager[T]) Open(ctx context.Context, token string) (*Session[T], error) {
	s := &Session[T]{manager: m, resolved: true}
	if err := s.open(ctx, token); err != nil {
		return nil, err
	}
	return s, nil
}

// List returns the live sessions of a subject, oldest first. They have no
// [Session.Token] and no [Session.Claims], and can be read, updated, touched and
// destroyed. A session whose record cannot be read is left out and logged. It
// needs [Config.SubjectIndex].
func (m *Manager[T]) List(ctx context.Context, subject string) ([]*Session[T], error) {
	if err := m.indexed(); err != nil {
		return nil, err
	}
	entries, err := m.list(ctx, subject)
	if err != nil {
		return nil, err
	}
	sessions := make([]*Session[T], 0, len(entries))
	for _, entry := range entries {
		s, err := m.listed(entry)
		// The record says whose it is, and may be sealed; the index is not.
		if err == nil && s.Subject() == subject {
			sessions = append(sessions, s)
		}
	}
	return sessions, nil
}

// RevokeSubject destroys every session of a subject in one step, except those
// with the IDs given, and returns how many there were. "Log out everywhere else"
// is
//
//	m.RevokeSubject(ctx, sess.Subject(), sess.ID())
//
// It needs [Config.SubjectIndex].
func (m *Manager[T]) RevokeSubject(ctx context.Context, subject string, exceptIDs ...string) (int, error) {
	if err := m.indexed(); err != nil {
		return 0, err
	}
	return m.revoke(ctx, subject, exceptIDs)
}

// All visits every session of the keyspace, in no order and, while sessions are
// being written, some of them perhaps twice. The sessions are like those of
// [Manager.List]. A session whose record cannot be read is yielded as an error
// that matches [ErrCorrupt], and the visit goes on; any other error ends it.
//
// It walks the whole keyspace with SCAN, on every primary of a Cluster, and holds
// a few hundred records at a time.
func (m *Manager[T]) All(ctx context.Context) iter.Seq2[*Session[T], error] {
	return func(yield func(*Session[T], error) bool) {
		for entry, err := range m.store.Scan(ctx) {
			var s *Session[T]
			if err == nil {
				s, err = m.listed(entry)
			}
			if !yield(s, err) || err != nil && !errors.Is(err, ErrCorrupt) {
				return
			}
		}
	}
}

// listed makes a session of a record that was found without its token.
func (m *Manager[T]) listed(entry Entry) (*Session[T], error) {
	value := new(T)
	l, err := m.adopt(entry, value)
	if err != nil {
		return nil, err
	}
	return &Session[T]{manager: m, resolved: true, live: l, value: value}, nil
}

// A CreateOption is an option of [Session.Create] and [Manager.Create].
type CreateOption func(*createParams)

type createParams struct {
	subject string
	claims  Claims
	maxAge  time.Duration
	limited bool // maxAge was given
}

// WithSubject says whose session it is: the sub claim of the token. With
// [Config.SubjectIndex] the session is found under it. At most 1 KiB of valid
// UTF-8, with any characters.
func WithSubject(sub string) CreateOption {
	return func(p *createParams) { p.subject = sub }
}

// WithClaims puts claims into the token, which its holder can read. The package
// owns jti, iat and idle, and iss and aud where they are configured: they are
// refused with [ErrReservedClaim]. A sub is the same as [WithSubject].
//
// An exp (a time.Time, or a number of seconds since 1970) supersedes
// [Config.MaxAge]: the session lives until then, used or not. With [WithMaxAge]
// too, or with [Config.AbsoluteTimeout], the earliest ends it.
func WithClaims(c Claims) CreateOption {
	return func(p *createParams) { p.claims = c }
}

// WithMaxAge sets this session's idle timeout instead of [Config.MaxAge], for
// "remember me". It is part of the session: every process heeds it, whatever its
// own Config says.
func WithMaxAge(d time.Duration) CreateOption {
	return func(p *createParams) { p.maxAge, p.limited = d, true }
}

// exchange shows an Echo context as an Exchange.
type exchange struct{ c echo.Context }

func (x exchange) Request() *http.Request   { return x.c.Request() }
func (x exchange) Header() http.Header      { return x.c.Response().Header() }
func (x exchange) Committed() bool          { return x.c.Response().Committed }
func (x exchange) Param(name string) string { return x.c.Param(name) }

// answer gives the errors of this package their HTTP form. One that has a form
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
	for name, values := range a.Header {
		for _, value := range values {
			c.Response().Header().Add(name, value)
		}
	}
	return echo.NewHTTPError(a.Status, a.Message).SetInternal(err)
}
