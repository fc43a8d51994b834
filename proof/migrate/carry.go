// Package migrate carries users of other session libraries over to echosession, on
// their next request and without a new login. docs/migrate.md shows its code.
package migrate

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"net/http"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
)

// User is the data of the sessions.
type User struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
}

// A carrier takes users over: carry goes before the middleware of echosession, and
// rotate behind it.
type carrier struct {
	sessions *echosession.Manager[User]
	idOf     func(old string) string
	tokenOf  func(id, subject string) (string, error)
	rotate   echo.MiddlewareFunc
}

// newCarrier returns what all migrations have in common. importOld reads what the old
// library has stored.
func newCarrier(rdb *redis.Client, secret, carrySecret []byte, oldCookie string, importOld func(stored []byte, v any) error) (*carrier, error) {
	cfg := echosession.Config{
		Client: rdb,
		Cookie: &echosession.Cookie{},
		Keys: []echosession.SigningKey{
			{ID: "2026-11", Algorithm: "HS256", Key: secret},
			{Algorithm: "HS256", Key: carrySecret, VerifyOnly: true, Legacy: true},
		},
		Import: importOld,
	}
	sessions, err := echosession.New[User](cfg)
	if err != nil {
		return nil, err
	}

	// One old credential is one session ID, which nobody can guess. Requests that run at
	// the same time meet there.
	idOf := func(old string) string {
		return uuid.NewHash(hmac.New(sha256.New, carrySecret), uuid.Nil, []byte(old), 4).String()
	}

	// A token of the session, which never leaves the server. Nobody knows when the user
	// logged in: iat 0 makes it long ago, for Fresh.
	tokenOf := func(id, subject string) (string, error) {
		claims := jwt.MapClaims{"jti": id, "iat": 0}
		if subject != "" {
			claims["sub"] = subject
		}
		return jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(carrySecret)
	}

	// Behind the middleware of echosession. The client gets a cookie with a token of its
	// own, and the old credential leads nowhere when RotateGrace is over.
	rotate := func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if c.Get("carried") == nil {
				return next(c)
			}
			sess, err := sessions.Get(c)
			if err != nil {
				return err
			}
			if sess.Exists() {
				c.SetCookie(&http.Cookie{Name: oldCookie, Path: "/", MaxAge: -1})
				_, err := sess.Rotate(c.Request().Context())
				if err != nil && !errors.Is(err, echosession.ErrSessionGone) { // gone: another request was first
					return err
				}
			}
			return next(c)
		}
	}
	return &carrier{sessions, idOf, tokenOf, rotate}, nil
}

// moving is the middleware for stores of other libraries in the same Redis. oldKey
// returns the key of a request's old session, or "".
func (k *carrier) moving(rdb *redis.Client, oldKey func(c echo.Context) string) echo.MiddlewareFunc {
	idOf, tokenOf := k.idOf, k.tokenOf

	// Before the middleware of echosession. RENAMENX moves what is stored in one step: it
	// is under one of the two keys, and after a logout under none.
	carry := func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			key := oldKey(c)
			if _, err := c.Cookie("__Host-session"); err == nil || key == "" {
				return next(c)
			}
			id := idOf(key)
			moved, err := rdb.RenameNX(c.Request().Context(), key, "sess:"+id).Result()
			if err == nil && !moved { // written after it was moved
				err = rdb.Del(c.Request().Context(), key).Err()
			}
			if err != nil && !redis.HasErrorPrefix(err, "no such key") {
				return echo.NewHTTPError(http.StatusServiceUnavailable).SetInternal(err)
			}
			token, err := tokenOf(id, "")
			if err != nil {
				return err
			}
			c.Request().AddCookie(&http.Cookie{Name: "__Host-session", Value: token})
			c.Set("carried", true) // for rotate
			return next(c)
		}
	}
	return carry
}
