package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"net"
	"net/http"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/otelsession"
	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
)

func echosessionContenders() []contender {
	return []contender{
		{
			name:  "echosession",
			about: "client with ContextTimeoutEnabled",
			serve: func(redisAddr string, ln net.Listener) error {
				opt := plain(redisAddr)
				opt.ContextTimeoutEnabled = true
				return serveEchosession(ln, echosession.Config{Client: redis.NewClient(opt), Secret: secret})
			},
		},
		{
			name:  "echosession-metrics",
			about: "with otelsession: every event is counted, and nobody collects",
			serve: func(redisAddr string, ln net.Listener) error {
				opt := plain(redisAddr)
				opt.ContextTimeoutEnabled = true
				provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))
				cfg := echosession.Config{Client: redis.NewClient(opt), Secret: secret}
				return serveEchosession(ln, otelsession.Observe(cfg, otelsession.WithMeterProvider(provider)))
			},
		},
		{
			name:  "echosession-default",
			about: "client with default options",
			serve: func(redisAddr string, ln net.Listener) error {
				rdb := redis.NewClient(plain(redisAddr))
				return serveEchosession(ln, echosession.Config{Client: rdb, Secret: secret})
			},
		},
		{
			name:  "echosession-autopipeline",
			about: "on rdb.AutoPipeline()",
			serve: func(redisAddr string, ln net.Listener) error {
				ap, err := redis.NewClient(plain(redisAddr)).AutoPipeline()
				if err != nil {
					return err
				}
				return serveEchosession(ln, echosession.Config{Client: ap, Secret: secret})
			},
		},
		{
			name:  "echosession-csc",
			about: "client-side caching",
			serve: func(redisAddr string, ln net.Listener) error {
				opt := cached(redisAddr)
				opt.ContextTimeoutEnabled = true
				return serveEchosession(ln, echosession.Config{Client: redis.NewClient(opt), Secret: secret})
			},
		},
		{
			name:  "echosession-es256",
			about: "tokens signed with ES256",
			serve: func(redisAddr string, ln net.Listener) error {
				key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
				if err != nil {
					return err
				}
				opt := plain(redisAddr)
				opt.ContextTimeoutEnabled = true
				return serveEchosession(ln, echosession.Config{
					Client: redis.NewClient(opt),
					Keys:   []echosession.SigningKey{{ID: "bench", Algorithm: "ES256", Key: key}},
				})
			},
		},
	}
}

func serveEchosession(ln net.Listener, cfg echosession.Config) error {
	cfg.MaxAge = lifetime
	m, err := echosession.New[User](cfg)
	if err != nil {
		return err
	}
	e := echo.New()
	e.Use(m.Middleware())
	e.POST("/login", func(c echo.Context) error {
		sess, err := echosession.Get[User](c)
		if err != nil {
			return err
		}
		token, err := sess.Create(c.Request().Context(), newUser(c.QueryParam("user")))
		if err != nil {
			return err
		}
		return c.String(http.StatusOK, token)
	})
	e.GET("/me", func(c echo.Context) error {
		sess, err := echosession.Get[User](c)
		if err != nil {
			return err
		}
		if !sess.Exists() {
			return c.String(http.StatusOK, anonymous)
		}
		u := sess.Data()
		return c.String(http.StatusOK, greeting(&u))
	})
	e.POST("/visit", func(c echo.Context) error {
		sess, err := echosession.Get[User](c)
		if err != nil {
			return err
		}
		err = sess.Update(c.Request().Context(), func(u *User) error {
			u.Visits++
			return nil
		})
		if err != nil {
			return err
		}
		u := sess.Data()
		return c.String(http.StatusOK, greeting(&u))
	})
	return http.Serve(ln, e)
}
