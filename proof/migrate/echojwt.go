package migrate

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"
)

// oldClaims are the claims of the tokens of echo-jwt.
type oldClaims struct {
	jwt.RegisteredClaims
	Name string `json:"name"`
}

// exchanging is the middleware for tokens of echo-jwt, in the cookie "token" or as bearer
// tokens.
func (k *carrier) exchanging(rdb *redis.Client, oldSecret []byte) echo.MiddlewareFunc {
	idOf, tokenOf := k.idOf, k.tokenOf

	// A token is exchanged once. The mark lives as long as the token: after a logout, the
	// token does not log in again.
	exchange := redis.NewScript(`
		if redis.call("SET", KEYS[1], "exchanged", "NX", "PX", ARGV[1]) then
			redis.call("SET", KEYS[2], ARGV[2], "PX", ARGV[1])
		end
		return 1`)

	// Before the middleware of echosession.
	carry := func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			old, bearer := strings.CutPrefix(c.Request().Header.Get("Authorization"), "Bearer ")
			if cookie, err := c.Cookie("token"); err == nil && !bearer {
				if _, err := c.Cookie("__Host-session"); err == nil {
					return next(c)
				}
				old = cookie.Value
			}
			var claims oldClaims
			_, err := jwt.ParseWithClaims(old, &claims, func(*jwt.Token) (any, error) { return oldSecret, nil },
				jwt.WithValidMethods([]string{"HS256"}), jwt.WithExpirationRequired())
			if err != nil { // no token, one of ours, or a bad one
				return next(c)
			}
			data, err := json.Marshal(User{Name: claims.Name})
			if err != nil {
				return err
			}
			// Without its signature: one signature can be written in several ways.
			id := idOf(old[:strings.LastIndexByte(old, '.')])
			left := (time.Until(claims.ExpiresAt.Time) + time.Hour).Milliseconds() // clocks differ
			keys := []string{"exchanged:" + id, "sess:" + id}
			if err := exchange.Run(c.Request().Context(), rdb, keys, left, data).Err(); err != nil {
				return echo.NewHTTPError(http.StatusServiceUnavailable).SetInternal(err)
			}
			token, err := tokenOf(id, claims.Subject)
			if err != nil {
				return err
			}
			if bearer {
				c.Request().Header.Set("Authorization", "Bearer "+token)
				return next(c)
			}
			c.Request().AddCookie(&http.Cookie{Name: "__Host-session", Value: token})
			c.Set("carried", true) // for rotate
			return next(c)
		}
	}
	return carry
}

// importJSON reads what carry has stored.
func importJSON() func(stored []byte, v any) error { return json.Unmarshal }
