// Command quickstart-v5 is command quickstart on Echo v5: a shop whose sessions are
// kept in memory, or in the Redis that -redis or REDIS_URL names.
package main

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"

	"github.com/labstack/echo/v5"
	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/echov5"
)

type User struct {
	Name string   `json:"name"`
	Cart []string `json:"cart"`
}
type session = echosession.Session[User]

const usage = `Paste these into another shell:
  TOKEN=$(curl -sS -H 'Content-Type: application/json' -d '{"name":"Ada"}' http://%[1]s/login | sed 's/.*"token":"//;s/".*//')
  curl -sS -H "Authorization: Bearer $TOKEN" http://%[1]s/me
  curl -sS -H "Authorization: Bearer $TOKEN" -X POST http://%[1]s/cart/apple
`

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "`address` to listen on")
	redisURL := flag.String("redis", os.Getenv("REDIS_URL"), "`URL` of a Redis; without one memory keeps the sessions")
	flag.Parse()

	secret := make([]byte, 32)
	rand.Read(secret) // in production: one that outlives the process
	cfg := echosession.Config{Secret: secret, Store: echosession.NewMemoryStore()}
	if *redisURL != "" {
		opts, err := redis.ParseURL(*redisURL)
		if err != nil {
			log.Fatal(err)
		}
		opts.ContextTimeoutEnabled = true
		cfg.Client, cfg.Store = redis.NewClient(opts), nil
	}
	e := echo.New()
	e.Use(echov5.Middleware[User](cfg))
	e.POST("/login", with(func(c *echo.Context, sess *session) error {
		var form struct{ Name string } // and a password to check
		if err := c.Bind(&form); err != nil {
			return err
		}
		token, err := sess.Create(c.Request().Context(), User{Name: form.Name, Cart: []string{}})
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, map[string]string{"token": token})
	}))
	e.GET("/me", with(func(c *echo.Context, sess *session) error {
		return c.JSON(http.StatusOK, sess)
	}), echov5.Require[User]())
	e.POST("/cart/:sku", with(func(c *echo.Context, sess *session) error {
		add := func(u *User) error { u.Cart = append(u.Cart, c.Param("sku")); return nil }
		if err := sess.Update(c.Request().Context(), add); err != nil {
			return err
		}
		return c.JSON(http.StatusOK, sess)
	}), echov5.Require[User]())
	e.POST("/logout", with(func(c *echo.Context, sess *session) error {
		if err := sess.Destroy(c.Request().Context()); err != nil {
			return err
		}
		return c.NoContent(http.StatusNoContent)
	}))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	server := echo.StartConfig{
		Address:          *addr,
		HideBanner:       true,
		HidePort:         true,
		ListenerAddrFunc: func(net.Addr) { fmt.Printf(usage, *addr) },
	}
	if err := server.Start(ctx, e); err != nil {
		log.Fatal(err)
	}
}

func with(h func(*echo.Context, *session) error) echo.HandlerFunc {
	return func(c *echo.Context) error {
		sess, err := echov5.Get[User](c)
		if err != nil {
			return err
		}
		return h(c, sess)
	}
}
