// Command quickstart is a shop with sessions, see shop.go. It keeps them in
// memory, or in the Redis that -redis or REDIS_URL names.
package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "`address` to listen on")
	redisURL := flag.String("redis", os.Getenv("REDIS_URL"), "`URL` of the Redis that keeps the sessions; without one memory does")
	flag.Parse()
	if err := run(*addr, *redisURL); err != nil {
		log.Fatal(err)
	}
}

func run(addr, redisURL string) error {
	secret, err := base64.StdEncoding.DecodeString(os.Getenv("ECHOSESSION_SECRET"))
	if err != nil {
		return fmt.Errorf("ECHOSESSION_SECRET: %w", err)
	}
	if len(secret) == 0 {
		fmt.Println("ECHOSESSION_SECRET is not set: a random secret signs the tokens, so they end with this process.")
		secret = make([]byte, 32)
		rand.Read(secret)
	}

	cfg := echosession.Config{Secret: secret}
	if redisURL == "" {
		cfg.Store = echosession.NewMemoryStore()
	} else {
		opts, err := redis.ParseURL(redisURL)
		if err != nil {
			return err
		}
		opts.ContextTimeoutEnabled = true
		client := redis.NewClient(opts)
		defer client.Close()
		cfg.Client = client
	}
	sessions, err := echosession.New[Customer](cfg)
	if err != nil {
		return err
	}

	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.Use(sessions.Middleware())
	e.POST("/login", login)
	e.POST("/logout", logout)
	e.GET("/me", me, sessions.Require())
	e.POST("/cart/:sku", addToCart, sessions.Require())

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if e.Listener, err = net.Listen("tcp", addr); err != nil {
		return err
	}
	fmt.Printf(usage, e.Listener.Addr())
	served := make(chan error, 1)
	go func() { served <- e.Start("") }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return e.Shutdown(ctx)
}
