package echosession

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/echosession/echosession/internal/jwt"
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

func newEngine(cfg Config, t reflect.Type) (*engine, error) {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("echosession: Config."+field+": "+format, args...))
	}
	wrong := func(field string, err error) {
		for _, err := range mistakes(err) {
			bad(field, "%s", strings.TrimPrefix(err.Error(), "echosession: "))
		}
	}

	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Keyspace = cmp.Or(cfg.Keyspace, defaultKeyspace)
	cfg.MaxAge = cmp.Or(cfg.MaxAge, defaultMaxAge)
	cfg.TouchInterval = cmp.Or(cfg.TouchInterval, max(0, min(maxTouchInterval, cfg.MaxAge/20)))
	cfg.RequestKey = cmp.Or(cfg.RequestKey, defaultRequestKey)
	cfg.RequestArg = cmp.Or(cfg.RequestArg, defaultRequestArg)
	cfg.RotateGrace = cmp.Or(cfg.RotateGrace, defaultRotateGrace)
	cfg.MaxRecordSize = cmp.Or(cfg.MaxRecordSize, defaultMaxRecordSize)
	cfg.StoreTimeout = cmp.Or(cfg.StoreTimeout, defaultStoreTimeout)
	e := &engine{verified: jwt.NewCache(verifiedBytes), crossOrigin: http.NewCrossOriginProtection()}

	if cfg.MaxAge < time.Millisecond {
		bad("MaxAge", "%v; an idle timeout is at least a millisecond", cfg.MaxAge)
	}
	if cfg.AbsoluteTimeout != 0 && cfg.AbsoluteTimeout < time.Second {
		bad("AbsoluteTimeout", "%v; it is at least a second, or 0 for none", cfg.AbsoluteTimeout)
	}
	if cfg.TouchInterval < 0 && cfg.TouchInterval != TouchAlways {
		bad("TouchInterval", "%v; it is positive, or TouchAlways", cfg.TouchInterval)
	}
	if cfg.MaxAge > 0 && cfg.TouchInterval >= cfg.MaxAge {
		bad("TouchInterval", "%v; below MaxAge (%v), or sessions end while they are used", cfg.TouchInterval, cfg.MaxAge)
	}
	if cfg.RotateGrace < time.Millisecond && cfg.RotateGrace != NoGrace {
		bad("RotateGrace", "%v; it is at least a millisecond, or NoGrace", cfg.RotateGrace)
	}
	if cfg.StoreTimeout < time.Millisecond {
		bad("StoreTimeout", "%v; it is at least a millisecond", cfg.StoreTimeout)
	}
	if cfg.MaxRecordSize < 0 {
		bad("MaxRecordSize", "%d; it counts bytes", cfg.MaxRecordSize)
	}
	if cfg.MaxSessions < 0 {
		bad("MaxSessions", "%d; it counts sessions, 0 is any number", cfg.MaxSessions)
	}
	if cfg.MaxSessions > 0 && !cfg.SubjectIndex {
		bad("MaxSessions", "it needs SubjectIndex: true")
	}
	if cfg.AllowPlaintext && len(cfg.EncryptionKeys) == 0 {
		bad("AllowPlaintext", "it goes with EncryptionKeys; without them every record is plaintext")
	}

	var err error
	if cfg.WaitReplicas < 0 {
		bad("WaitReplicas", "%d; it counts replicas", cfg.WaitReplicas)
	}
	switch {
	case cfg.Store != nil && cfg.Client != nil:
		bad("Store", "set Store or Client, not both")
	case cfg.Store != nil:
		if cfg.WaitReplicas > 0 {
			bad("WaitReplicas", "it needs Client; hand it to NewRedisStore in RedisOptions")
		}
		e.store = cfg.Store
	case cfg.Client == nil:
		bad("Client", "set Client to a go-redis client, or Store to NewMemoryStore()")
	default:
		e.store, err = NewRedisStore(cfg.Client, RedisOptions{Keyspace: cfg.Keyspace, WaitReplicas: max(0, cfg.WaitReplicas)})
		wrong("Client", err)
	}

	keys := cfg.Keys
	if len(cfg.Keys) > 0 {
		if len(cfg.Secret) > 0 {
			bad("Keys", "set Keys or Secret, not both")
		}
		if cfg.Algorithm != "" {
			bad("Algorithm", "it goes with Secret; each of Keys names its own")
		}
	} else {
		algorithm := cmp.Or(cfg.Algorithm, defaultAlgorithm)
		if jwt.SecretLen(algorithm) == 0 {
			bad("Algorithm", "%q; with Secret it is HS256, HS384 or HS512, and keys of other algorithms go into Keys", algorithm)
			algorithm = defaultAlgorithm
		}
		if len(cfg.Secret) > 0 {
			keys = []SigningKey{{Algorithm: algorithm, Key: cfg.Secret}}
		}
	}
	signing := make([]jwt.SigningKey, len(keys))
	for i, key := range keys {
		signing[i] = jwt.SigningKey(key)
	}
	var tokenMistakes []jwt.Mistake
	e.tokens, tokenMistakes = jwt.New(jwt.Config{
		Keys: signing, WithKid: len(cfg.Keys) > 0, Issuer: cfg.Issuer, Audience: cfg.Audience, Skew: cfg.ClockSkew,
	})
	for _, m := range tokenMistakes {
		bad(m.Field, "%s", m.Reason)
	}

	if cfg.Cookie != nil {
		cfg.Cookie, err = cfg.Cookie.compiled()
		wrong("Cookie", err)
	}
	e.lookup, err = newLookup(cmp.Or(cfg.TokenLookup, defaultLookup(cfg.RequestArg, cfg.Cookie)))
	if cfg.TokenLookup != "" {
		wrong("TokenLookup", err)
	} else {
		wrong("RequestArg", err)
	}
	if cfg.Cookie != nil && err == nil && !e.lookup.reads(cfg.Cookie.Name) {
		bad("TokenLookup", "it does not read the cookie that Cookie sets; add cookie:%s", cfg.Cookie.Name)
	}
	if len(cfg.TrustedOrigins) > 0 && err == nil && !e.lookup.reads("") {
		bad("TrustedOrigins", "they concern tokens in cookies, and none is read; set Cookie")
	}
	for _, origin := range cfg.TrustedOrigins {
		wrong("TrustedOrigins", e.crossOrigin.AddTrustedOrigin(origin))
	}

	var recordMistakes []mistake
	e.serializer, recordMistakes = newSerializer(t, serializerConfig{
		codec: cfg.Codec, encryptionKeys: cfg.EncryptionKeys, allowPlaintext: cfg.AllowPlaintext, maxSize: cfg.MaxRecordSize,
	})
	for _, m := range recordMistakes {
		if m.Field == "T" {
			errs = append(errs, errors.New("echosession: T: "+m.Reason))
		} else {
			bad(m.Field, "%s", m.Reason)
		}
	}
	e.cfg = cfg
	return e, errors.Join(errs...)
}

// mistakes takes an errors.Join apart.
func mistakes(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, err := range joined.Unwrap() {
		all = append(all, mistakes(err)...)
	}
	return all
}
