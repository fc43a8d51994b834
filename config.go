package echosession

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"time"

	"github.com/echosession/echosession/internal/jwt"
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
	defaultStaleBytes    = 64 << 20
	maxTouchInterval     = time.Minute

	// maxAbsoluteTimeout keeps the exp of a token before the year 2262.
	maxAbsoluteTimeout = 100 * 365 * 24 * time.Hour
)

const (
	// TouchAlways as [Config.TouchInterval] makes every use restart the idle
	// timeout.
	TouchAlways time.Duration = -1

	// NoGrace as [Config.RotateGrace] makes a rotated token invalid at once.
	NoGrace time.Duration = -1
)

// A ConfigError is one mistake in a [Config] or in [RedisOptions]. The error of
// [New] joins one for every mistake: [errors.As] finds the first of them, and the
// method Unwrap() []error all.
type ConfigError struct {
	// Field is the name of the field, with its index where the field is a list:
	// "MaxAge", "Keys[1]". It is "T" when the type of the session's data is at
	// fault.
	Field string

	// Reason says what is wrong and how to mend it. It holds no key material.
	Reason string
}

func (e *ConfigError) Error() string {
	if e.Field == fieldT {
		return "echosession: T: " + e.Reason
	}
	return "echosession: Config." + e.Field + ": " + e.Reason
}

// fieldT stands for the type parameter among the fields.
const fieldT = "T"

// compile checks cfg, and returns it with its defaults and the engine that it
// describes, for sessions whose data is a t. The error joins a [*ConfigError] for
// every mistake.
func (cfg Config) compile(t reflect.Type) (Config, *engine, error) {
	c := &compiler{cfg: cfg.withDefaults(), engine: new(engine)}
	c.engine.reports = newReporter(c.cfg.Logger, c.cfg.Now)
	c.useStore()
	c.engine.own = c.engine.store
	c.useKeys()
	c.checkLifetimes()
	c.checkStale()
	c.useLookup()
	c.useRecords(t)
	c.engine.verified = jwt.NewCache(verifiedBytes)
	c.engine.hub = newHub(c.engine)
	if k, ok := c.engine.store.(interface{ keeps() bool }); ok {
		c.engine.keeps = k.keeps()
	}
	if c.cfg.StaleFor > 0 {
		c.engine.stale = newStaleCopies(&c.cfg, c.engine)
		c.engine.keeps = true
	}
	c.engine.cfg = settings{
		StoreTimeout: c.cfg.StoreTimeout,
		MaxAge:       c.cfg.MaxAge, AbsoluteTimeout: c.cfg.AbsoluteTimeout,
		TouchInterval: c.cfg.TouchInterval, RotateGrace: c.cfg.RotateGrace,
		RequestKey: c.cfg.RequestKey, Cookie: c.cfg.Cookie,
		SubjectIndex: c.cfg.SubjectIndex, Limit: Limit{c.cfg.MaxSessions, c.cfg.WhenFull},
		Now: c.cfg.Now, OnEvent: c.cfg.OnEvent,
	}
	if c.cfg.OnEvent != nil {
		c.engine.observeStore()
	}
	return c.cfg, c.engine, errors.Join(c.errs...)
}

func (cfg Config) withDefaults() Config {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	cfg.Keyspace = cmp.Or(cfg.Keyspace, defaultKeyspace)
	cfg.MaxAge = cmp.Or(cfg.MaxAge, defaultMaxAge)
	cfg.TouchInterval = cmp.Or(cfg.TouchInterval, max(0, min(maxTouchInterval, cfg.MaxAge/20)))
	cfg.RequestKey = cmp.Or(cfg.RequestKey, defaultRequestKey)
	cfg.RequestArg = cmp.Or(cfg.RequestArg, defaultRequestArg)
	cfg.RotateGrace = cmp.Or(cfg.RotateGrace, defaultRotateGrace)
	cfg.MaxRecordSize = cmp.Or(cfg.MaxRecordSize, defaultMaxRecordSize)
	cfg.StoreTimeout = cmp.Or(cfg.StoreTimeout, defaultStoreTimeout)
	return cfg
}

// A compiler turns a Config into an engine, topic by topic, and collects every
// mistake on the way.
type compiler struct {
	cfg    Config // with its defaults
	engine *engine
	errs   []error
}

func (c *compiler) bad(field, format string, args ...any) {
	c.errs = append(c.errs, &ConfigError{field, fmt.Sprintf(format, args...)})
}

// wrong reports the mistakes that err joins.
func (c *compiler) wrong(field string, err error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range joined.Unwrap() {
			c.wrong(field, err)
		}
	} else if err != nil {
		c.bad(field, "%s", err)
	}
}

func (c *compiler) useStore() {
	cfg := &c.cfg
	if cfg.StoreTimeout < time.Millisecond {
		c.bad("StoreTimeout", "%v; it is at least a millisecond", cfg.StoreTimeout)
	}
	if cfg.WaitReplicas < 0 {
		c.bad("WaitReplicas", "%d; it counts replicas", cfg.WaitReplicas)
		cfg.WaitReplicas = 0
	}
	switch {
	case cfg.Store != nil && cfg.Client != nil:
		c.bad("Store", "set Store or Client, not both")
	case cfg.Store != nil:
		if cfg.WaitReplicas > 0 {
			c.bad("WaitReplicas", "it needs Client; hand it to NewRedisStore in RedisOptions")
		}
		c.engine.store = cfg.Store
	case cfg.Client == nil:
		c.bad("Client", "set Client to a go-redis client, or Store to NewMemoryStore()")
	default:
		store, err := NewRedisStore(cfg.Client, RedisOptions{Keyspace: cfg.Keyspace, WaitReplicas: cfg.WaitReplicas, SubjectIndex: cfg.SubjectIndex, Tickets: readsTickets(cfg.TokenLookup)})
		c.engine.store = store
		c.errs = append(c.errs, err)
	}
	if cfg.MaxSessions < 0 {
		c.bad("MaxSessions", "%d; it counts sessions, 0 is any number", cfg.MaxSessions)
	}
	if cfg.MaxSessions > 0 && !cfg.SubjectIndex {
		c.bad("MaxSessions", "it needs SubjectIndex: true")
	}
	switch {
	case cfg.WhenFull != EvictOldest && cfg.WhenFull != RefuseNew:
		c.bad("WhenFull", "%d; it is EvictOldest or RefuseNew", cfg.WhenFull)
	case cfg.WhenFull == RefuseNew && cfg.MaxSessions == 0:
		c.bad("WhenFull", "RefuseNew needs MaxSessions")
	case cfg.WhenFull == RefuseNew && cfg.MaxSessions > MaxListed:
		c.bad("WhenFull", "RefuseNew counts at most %d sessions; lower MaxSessions (%d)", MaxListed, cfg.MaxSessions)
	}
}

func (c *compiler) useKeys() {
	cfg := &c.cfg
	keys := cfg.Keys
	if len(keys) > 0 {
		if len(cfg.Secret) > 0 {
			c.bad("Keys", "set Keys or Secret, not both: with Keys, the secret is the Key of the first of Keys")
		}
		if cfg.Algorithm != "" {
			c.bad("Algorithm", "it goes with Secret; each of Keys names its own")
		}
	} else {
		algorithm := cmp.Or(cfg.Algorithm, defaultAlgorithm)
		if jwt.SecretLen(algorithm) == 0 {
			c.bad("Algorithm", "%q; with Secret it is HS256, HS384 or HS512, and keys of other algorithms go into Keys", algorithm)
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
	tokens, mistakes := jwt.New(jwt.Config{
		Keys: signing, WithKid: len(cfg.Keys) > 0, Issuer: cfg.Issuer, Audience: cfg.Audience, Skew: cfg.ClockSkew,
	})
	for _, m := range mistakes {
		c.bad(m.Field, "%s", m.Reason)
	}
	c.engine.tokens = tokens
}

func (c *compiler) checkLifetimes() {
	cfg := &c.cfg
	if cfg.MaxAge < time.Millisecond {
		c.bad("MaxAge", "%v; an idle timeout is at least a millisecond", cfg.MaxAge)
	}
	if cfg.AbsoluteTimeout != 0 && cfg.AbsoluteTimeout < time.Second {
		c.bad("AbsoluteTimeout", "%v; it is at least a second, or 0 for none", cfg.AbsoluteTimeout)
	}
	if cfg.AbsoluteTimeout > maxAbsoluteTimeout {
		c.bad("AbsoluteTimeout", "%v; it is at most %v, or 0 for none", cfg.AbsoluteTimeout, maxAbsoluteTimeout)
	}
	if cfg.TouchInterval < 0 && cfg.TouchInterval != TouchAlways {
		c.bad("TouchInterval", "%v; it is positive, or TouchAlways", cfg.TouchInterval)
	}
	if cfg.MaxAge > 0 && cfg.TouchInterval >= cfg.MaxAge {
		c.bad("TouchInterval", "%v; it must be below MaxAge (%v), or sessions end while they are used", cfg.TouchInterval, cfg.MaxAge)
	}
	if cfg.RotateGrace < time.Millisecond && cfg.RotateGrace != NoGrace {
		c.bad("RotateGrace", "%v; it is at least a millisecond, or NoGrace", cfg.RotateGrace)
	}
}

// checkStale is about copies for an outage of the store.
func (c *compiler) checkStale() {
	cfg := &c.cfg
	_, memory := cfg.Store.(*MemoryStore)
	switch {
	case cfg.StaleFor == 0:
	case cfg.StaleFor < minStaleFor || cfg.StaleFor > maxStaleFor:
		c.bad("StaleFor", "%v; it is from %v to %v, or 0 for none", cfg.StaleFor, minStaleFor, maxStaleFor)
	case memory:
		c.bad("StaleFor", "a MemoryStore is never down: set Client, or leave StaleFor at 0 (in a test, echosessiontest has a store that fails)")
	}
	switch {
	case cfg.StaleBytes < 0:
		c.bad("StaleBytes", "%d; it counts bytes", cfg.StaleBytes)
	case cfg.StaleBytes > 0 && cfg.StaleFor == 0:
		c.bad("StaleBytes", "it goes with StaleFor")
	case cfg.StaleFor != 0:
		cfg.StaleBytes = cmp.Or(cfg.StaleBytes, defaultStaleBytes)
	}
}

// useLookup is about where tokens are in requests and answers.
func (c *compiler) useLookup() {
	cfg := &c.cfg
	if cfg.Cookie != nil {
		cookie, err := cfg.Cookie.compiled()
		c.wrong("Cookie", err)
		cfg.Cookie = cookie
	}
	field := "TokenLookup"
	if cfg.TokenLookup == "" {
		field = "RequestArg"
	}
	lookup, err := newLookup(cmp.Or(cfg.TokenLookup, defaultLookup(cfg.RequestArg, cfg.Cookie)), cfg.Cookie)
	c.wrong(field, err)
	c.engine.lookup = lookup
	c.engine.tickets, _ = c.engine.store.(TicketStore)
	if err == nil && len(lookup.tickets) > 0 && c.engine.store != nil && c.engine.tickets == nil {
		c.bad("TokenLookup", "it reads tickets, and the Store keeps none; make it a TicketStore or drop ticket:%s", lookup.tickets[0])
	}
	if cfg.Cookie != nil && err == nil && !lookup.reads(cfg.Cookie.Name) {
		c.bad("TokenLookup", "it does not read the cookie that Cookie sets; add the word cookie")
	}

	if len(cfg.TrustedOrigins) > 0 && err == nil && !lookup.reads("") {
		c.bad("TrustedOrigins", "they concern tokens in cookies, and none is read; set Cookie")
	}
	c.engine.origins = &originGuard{reports: c.engine.reports}
	for _, origin := range cfg.TrustedOrigins {
		c.wrong("TrustedOrigins", c.engine.origins.trust(origin))
	}
}

func (c *compiler) useRecords(t reflect.Type) {
	cfg := &c.cfg
	if cfg.MaxRecordSize < 0 {
		c.bad("MaxRecordSize", "%d; it counts bytes", cfg.MaxRecordSize)
	}
	if cfg.AllowPlaintext && len(cfg.EncryptionKeys) == 0 {
		c.bad("AllowPlaintext", "it goes with EncryptionKeys; without them every record is plaintext")
	}
	s, mistakes := newSerializer(t, serializerConfig{
		codec: cfg.Codec, encryptionKeys: cfg.EncryptionKeys, allowPlaintext: cfg.AllowPlaintext,
		keyspace: cfg.Keyspace, maxSize: cfg.MaxRecordSize,
	})
	for _, m := range mistakes {
		c.errs = append(c.errs, &m)
	}
	c.engine.serializer = s
	if cfg.Import != nil {
		c.engine.importer = &importer{cfg.Import, t, cfg.MaxRecordSize}
	}
}
