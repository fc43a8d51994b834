package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwt"
	"github.com/redis/go-redis/v9"
	"github.com/vmihailenco/msgpack/v5"
)

var secret = []byte("an HMAC secret for the benchmark, 32 bytes and more")

func referenceContenders() []contender {
	return []contender{
		{
			name:  reference,
			about: "hand-written: HMAC check, one GETEX, MessagePack",
			serve: func(redisAddr string, ln net.Listener) error {
				rdb := redis.NewClient(plain(redisAddr))
				return serveHandwritten(ln, &handwritten{redis: rdb, verify: verifyHMAC})
			},
		},
		{
			name:  "reference-autopipeline",
			about: "on rdb.AutoPipeline()",
			serve: func(redisAddr string, ln net.Listener) error {
				ap, err := redis.NewClient(plain(redisAddr)).AutoPipeline()
				if err != nil {
					return err
				}
				return serveHandwritten(ln, &handwritten{redis: ap, verify: verifyHMAC})
			},
		},
		{
			name:  "reference-csc",
			about: "client-side caching; reads are GET, which alone is cached, and extend nothing",
			serve: func(redisAddr string, ln net.Listener) error {
				rdb := redis.NewClient(cached(redisAddr))
				return serveHandwritten(ln, &handwritten{redis: rdb, verify: verifyHMAC, get: true})
			},
		},
		{
			name:  "reference-jwtparse",
			about: "jwx v2 jwt.Parse for every request",
			serve: func(redisAddr string, ln net.Listener) error {
				rdb := redis.NewClient(plain(redisAddr))
				return serveHandwritten(ln, &handwritten{redis: rdb, verify: verifyJWX})
			},
		},
	}
}

// handwritten is what a competent engineer writes for one service, with nothing
// that this service does not need.
type handwritten struct {
	redis  redis.Cmdable
	verify func(token string) (id string, err error)
	get    bool // read with GET instead of GETEX
}

func serveHandwritten(ln net.Listener, h *handwritten) error {
	e := echo.New()
	e.POST("/login", h.login)
	e.GET("/me", h.me)
	e.POST("/visit", h.visit)
	return http.Serve(ln, e)
}

func (h *handwritten) login(c echo.Context) error {
	id := uuid.NewString()
	record, err := msgpack.Marshal(newUser(c.QueryParam("user")))
	if err != nil {
		return err
	}
	if err := h.redis.Set(c.Request().Context(), "ref:"+id, record, lifetime).Err(); err != nil {
		return err
	}
	token, err := issue(id)
	if err != nil {
		return err
	}
	return c.String(http.StatusOK, token)
}

func (h *handwritten) me(c echo.Context) error {
	token, found := bearer(c)
	if !found {
		return c.String(http.StatusOK, anonymous)
	}
	id, err := h.verify(token)
	if err != nil {
		return echo.ErrUnauthorized
	}
	ctx := c.Request().Context()
	var record []byte
	if h.get {
		record, err = h.redis.Get(ctx, "ref:"+id).Bytes()
	} else {
		record, err = h.redis.GetEx(ctx, "ref:"+id, lifetime).Bytes()
	}
	if errors.Is(err, redis.Nil) {
		return echo.ErrUnauthorized
	}
	if err != nil {
		return err
	}
	var u User
	if err := msgpack.Unmarshal(record, &u); err != nil {
		return err
	}
	return c.String(http.StatusOK, greeting(&u))
}

// KEYS[1] record; ARGV[1] the record that was read, ARGV[2] the new one, ARGV[3]
// its lifetime in milliseconds.
var compareAndSet = redis.NewScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
`)

func (h *handwritten) visit(c echo.Context) error {
	token, found := bearer(c)
	if !found {
		return echo.ErrUnauthorized
	}
	id, err := h.verify(token)
	if err != nil {
		return echo.ErrUnauthorized
	}
	for range 10 {
		u, saved, err := h.tryVisit(c.Request().Context(), "ref:"+id)
		if errors.Is(err, redis.Nil) {
			return echo.ErrUnauthorized
		}
		if err != nil {
			return err
		}
		if saved {
			return c.String(http.StatusOK, greeting(&u))
		}
	}
	return echo.NewHTTPError(http.StatusConflict)
}

func (h *handwritten) tryVisit(ctx context.Context, key string) (u User, saved bool, err error) {
	old, err := h.redis.GetEx(ctx, key, lifetime).Bytes()
	if err != nil {
		return u, false, err
	}
	if err := msgpack.Unmarshal(old, &u); err != nil {
		return u, false, err
	}
	u.Visits++
	record, err := msgpack.Marshal(&u)
	if err != nil {
		return u, false, err
	}
	n, err := compareAndSet.Run(ctx, h.redis, []string{key}, old, record, lifetime.Milliseconds()).Int()
	return u, n == 1, err
}

func bearer(c echo.Context) (token string, found bool) {
	return strings.CutPrefix(c.Request().Header.Get(echo.HeaderAuthorization), "Bearer ")
}

var (
	header      = base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`))
	errBadToken = errors.New("bad token")
)

type claims struct {
	ID string `json:"jti"`
}

func issue(id string) (string, error) {
	payload, err := json.Marshal(claims{ID: id})
	if err != nil {
		return "", err
	}
	signed := header + "." + base64.RawURLEncoding.EncodeToString(payload)
	return signed + "." + base64.RawURLEncoding.EncodeToString(sign(signed)), nil
}

func sign(signed string) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(signed))
	return mac.Sum(nil)
}

func verifyHMAC(token string) (id string, err error) {
	dot := strings.LastIndexByte(token, '.')
	if dot < 0 {
		return "", errBadToken
	}
	signature, err := base64.RawURLEncoding.DecodeString(token[dot+1:])
	if err != nil || !hmac.Equal(signature, sign(token[:dot])) {
		return "", errBadToken
	}
	head, body, found := strings.Cut(token[:dot], ".")
	if !found || head != header {
		return "", errBadToken
	}
	payload, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil {
		return "", errBadToken
	}
	var cl claims
	if err := json.Unmarshal(payload, &cl); err != nil {
		return "", errBadToken
	}
	return cl.ID, nil
}

func verifyJWX(token string) (id string, err error) {
	tok, err := jwt.Parse([]byte(token), jwt.WithKey(jwa.HS256, secret))
	if err != nil {
		return "", err
	}
	return tok.JwtID(), nil
}
