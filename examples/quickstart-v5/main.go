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
	Cart []string `json:"cart,omitempty"`
}
type session = echosession.Session[User]

const usage = `Paste these lines into another shell:
  TOKEN=$(curl -sS -H 'Content-Type: application/json' -d '{"name":"Ada"}' http://%[1]s/login | sed 's/.*"token":"//;s/".*//')
  curl -sS -H "Authorization: Bearer $TOKEN" http://%[1]s/me
  curl -sS -H "Authorization: Bearer $TOKEN" -X POST http://%[1]s/cart/apple
`

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "`address` to listen on")
	redisURL := flag.String("redis", os.Getenv("REDIS_URL"), "`URL` of a Redis; without it the sessions are in memory")
	flag.Parse()

	secret := make([]byte, 32)
	rand.Read(secret) // in production, it comes from your configuration
	cfg := echosession.Config{
		Secret: secret,
		Store:  echosession.NewMemoryStore(),
		Cookie: &echosession.Cookie{Insecure: true}, // for browsers; in production, leave Insecure out
	}
	if *redisURL != "" {
		opts, err := redis.ParseURL(*redisURL)
		if err != nil {
			log.Fatal(err)
		}
		opts.ContextTimeoutEnabled = true
		cfg.Client, cfg.Store = redis.NewClient(opts), nil
	}
	sessions, err := echosession.New[User](cfg)
	if err != nil {
		log.Fatal(err)
	}
	if err := sessions.Ping(context.Background()); err != nil {
		log.Fatal(err)
	}
	e := echo.New()
	e.Use(echov5.Install(sessions))
	e.POST("/login", echov5.With(func(c *echo.Context, sess *session) error {
		var form struct{ Name string } // and a password to check
		if err := c.Bind(&form); err != nil {
			return err
		}
		token, err := sess.Renew(c.Request().Context(), func(u *User) error { // a guest's cart is kept
			u.Name = form.Name
			return nil
		}, echosession.WithSubject(form.Name))
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, map[string]string{"token": token})
	}))
	e.GET("/me", echov5.With(func(c *echo.Context, sess *session) error {
		return c.JSON(http.StatusOK, sess)
	}), echov5.Require[User]())
	e.POST("/cart/:sku", echov5.With(func(c *echo.Context, sess *session) error { // guests have a cart, too
		add := func(u *User) error { u.Cart = append(u.Cart, c.Param("sku")); return nil }
		if err := sess.UpdateOrCreate(c.Request().Context(), add); err != nil {
			return err
		}
		return c.JSON(http.StatusOK, sess)
	}))
	e.POST("/logout", echov5.With(func(c *echo.Context, sess *session) error {
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
