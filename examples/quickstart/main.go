// Command quickstart is a shop. It keeps its sessions in memory, or in the Redis that
// -redis or REDIS_URL names.
package main

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"

	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
)

type User struct {
	Name string   `json:"name"`
	Cart []string `json:"cart"`
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
	e.HideBanner, e.HidePort = true, true
	e.Use(echosession.Middleware[User](cfg))
	e.POST("/login", with(func(c echo.Context, sess *session) error {
		var form struct{ Name string } // and a password to check
		if err := c.Bind(&form); err != nil {
			return err
		}
		token, err := sess.Create(c.Request().Context(), User{Name: form.Name, Cart: []string{}})
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, echo.Map{"token": token})
	}))
	e.GET("/me", with(func(c echo.Context, sess *session) error {
		return c.JSON(http.StatusOK, sess)
	}), echosession.Require[User]())
	e.POST("/cart/:sku", with(func(c echo.Context, sess *session) error {
		add := func(u *User) error { u.Cart = append(u.Cart, c.Param("sku")); return nil }
		if err := sess.Update(c.Request().Context(), add); err != nil {
			return err
		}
		return c.JSON(http.StatusOK, sess)
	}), echosession.Require[User]())
	e.POST("/logout", with(func(c echo.Context, sess *session) error {
		if err := sess.Destroy(c.Request().Context()); err != nil {
			return err
		}
		return c.NoContent(http.StatusNoContent)
	}))
	go func() {
		if err := e.Start(*addr); err != http.ErrServerClosed {
			log.Fatal(err)
		}
	}()
	fmt.Printf(usage, *addr)
	interrupt := make(chan os.Signal, 1)
	signal.Notify(interrupt, os.Interrupt)
	<-interrupt
	_ = e.Shutdown(context.Background())
}

func with(h func(echo.Context, *session) error) echo.HandlerFunc {
	return func(c echo.Context) error {
		sess, err := echosession.Get[User](c)
		if err != nil {
			return err
		}
		return h(c, sess)
	}
}
