package main

import (
	"net"
	"net/http"

	"github.com/alexedwards/scs/goredisstore"
	"github.com/alexedwards/scs/v2"
	"github.com/boj/redistore"
	"github.com/gofiber/fiber/v2"
	fibersession "github.com/gofiber/fiber/v2/middleware/session"
	fiberredis "github.com/gofiber/storage/redis/v3"
	"github.com/gorilla/sessions"
	"github.com/labstack/echo-contrib/session"
	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"
)

func peerContenders() []contender {
	return []contender{
		{
			name:  "scs",
			about: "goredisstore, gob; fixed lifetime: a read extends nothing",
			serve: func(redisAddr string, ln net.Listener) error {
				return serveSCS(redisAddr, ln, scs.New())
			},
		},
		{
			name:  "scs-idle",
			about: "scs with an IdleTimeout, which saves at every request",
			serve: func(redisAddr string, ln net.Listener) error {
				sm := scs.New()
				sm.IdleTimeout = lifetime
				return serveSCS(redisAddr, ln, sm)
			},
		},
		{
			name:  "gorilla",
			about: "echo-contrib/session on boj/redistore, gob; a read extends nothing",
			serve: serveGorilla,
		},
		{
			name:  "fiber",
			about: "Fiber v2 session on storage/redis, gob; fasthttp; a read extends nothing",
			serve: serveFiber,
		},
	}
}

func serveSCS(redisAddr string, ln net.Listener, sm *scs.SessionManager) error {
	sm.Store = goredisstore.New(redis.NewClient(plain(redisAddr)))
	sm.Lifetime = lifetime
	e := echo.New()
	e.Use(echo.WrapMiddleware(sm.LoadAndSave))
	e.POST("/login", func(c echo.Context) error {
		ctx := c.Request().Context()
		if err := sm.RenewToken(ctx); err != nil {
			return err
		}
		sm.Put(ctx, "user", newUser(c.QueryParam("user")))
		return c.NoContent(http.StatusOK)
	})
	e.GET("/me", func(c echo.Context) error {
		u, found := sm.Get(c.Request().Context(), "user").(User)
		if !found {
			return c.String(http.StatusOK, anonymous)
		}
		return c.String(http.StatusOK, greeting(&u))
	})
	e.POST("/visit", func(c echo.Context) error {
		u, found := sm.Get(c.Request().Context(), "user").(User)
		if !found {
			return echo.ErrUnauthorized
		}
		u.Visits++
		sm.Put(c.Request().Context(), "user", u)
		return c.String(http.StatusOK, greeting(&u))
	})
	return http.Serve(ln, e)
}

func serveGorilla(redisAddr string, ln net.Listener) error {
	// The pool has no upper bound: with fewer idle connections than clients it
	// would dial all the time.
	const idleConns = 64
	store, err := redistore.NewRediStore(idleConns, "tcp", redisAddr, "", "", secret[:32])
	if err != nil {
		return err
	}
	store.Options = &sessions.Options{Path: "/", MaxAge: int(lifetime.Seconds()), HttpOnly: true}
	e := echo.New()
	e.Use(session.Middleware(store))
	e.POST("/login", func(c echo.Context) error {
		sess, err := session.Get("session", c)
		if err != nil {
			return err
		}
		sess.Values["user"] = newUser(c.QueryParam("user"))
		if err := sess.Save(c.Request(), c.Response()); err != nil {
			return err
		}
		return c.NoContent(http.StatusOK)
	})
	e.GET("/me", func(c echo.Context) error {
		sess, err := session.Get("session", c)
		if err != nil {
			return err
		}
		u, found := sess.Values["user"].(User)
		if !found {
			return c.String(http.StatusOK, anonymous)
		}
		return c.String(http.StatusOK, greeting(&u))
	})
	e.POST("/visit", func(c echo.Context) error {
		sess, err := session.Get("session", c)
		if err != nil {
			return err
		}
		u, found := sess.Values["user"].(User)
		if !found {
			return echo.ErrUnauthorized
		}
		u.Visits++
		sess.Values["user"] = u
		if err := sess.Save(c.Request(), c.Response()); err != nil {
			return err
		}
		return c.String(http.StatusOK, greeting(&u))
	})
	return http.Serve(ln, e)
}

func serveFiber(redisAddr string, ln net.Listener) error {
	store := fibersession.New(fibersession.Config{
		Storage:    fiberredis.NewFromConnection(redis.NewClient(plain(redisAddr))),
		Expiration: lifetime,
	})
	store.RegisterType(User{})
	app := fiber.New(fiber.Config{DisableStartupMessage: true})
	app.Post("/login", func(c *fiber.Ctx) error {
		sess, err := store.Get(c)
		if err != nil {
			return err
		}
		// Query's string lives in a buffer that fasthttp reuses.
		sess.Set("user", newUser(string([]byte(c.Query("user")))))
		return sess.Save()
	})
	app.Get("/me", func(c *fiber.Ctx) error {
		sess, err := store.Get(c)
		if err != nil {
			return err
		}
		u, found := sess.Get("user").(User)
		if !found {
			return c.SendString(anonymous)
		}
		return c.SendString(greeting(&u))
	})
	app.Post("/visit", func(c *fiber.Ctx) error {
		sess, err := store.Get(c)
		if err != nil {
			return err
		}
		u, found := sess.Get("user").(User)
		if !found {
			return fiber.ErrUnauthorized
		}
		u.Visits++
		sess.Set("user", u)
		if err := sess.Save(); err != nil {
			return err
		}
		return c.SendString(greeting(&u))
	})
	return app.Listener(ln)
}
