package main

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"
)

// A contender is one way to keep sessions, served over HTTP in a process of its
// own. Every contender has the same three routes:
//
//	POST /login?user=ID  opens a session and answers its token, or sets a cookie
//	GET  /me             answers the user's greeting, or "anonymous"
//	POST /visit          adds one to the user's visits and answers the greeting
type contender struct {
	name string

	// about says in a few words what is special about the set-up.
	about string

	// stateless marks a contender without sessions: it takes part in the
	// anonymous workload only.
	stateless bool

	// serve connects to the Redis server and serves on the listener until that is
	// closed.
	serve func(redisAddr string, ln net.Listener) error
}

// bare and reference are what the others are compared with.
const (
	bare      = "bare"
	reference = "reference"
)

// lifetime is how long an unused session lives, in every contender.
const lifetime = 24 * time.Hour

func contenders() []contender {
	return slices.Concat(
		[]contender{{name: bare, about: "Echo without sessions", stateless: true, serve: serveBare}},
		referenceContenders(),
		echosessionContenders(),
		peerContenders(),
	)
}

func contenderNamed(name string) (contender, error) {
	all := contenders()
	i := slices.IndexFunc(all, func(c contender) bool { return c.name == name })
	if i < 0 {
		return contender{}, fmt.Errorf("no contender %q; there are %s", name, strings.Join(names(all), ", "))
	}
	return all[i], nil
}

func names(cs []contender) []string {
	var names []string
	for _, c := range cs {
		names = append(names, c.name)
	}
	return names
}

// plain returns options for a go-redis client as most programs have it.
func plain(redisAddr string) *redis.Options {
	return &redis.Options{Addr: redisAddr}
}

// cached returns options for a go-redis client with client-side caching.
func cached(redisAddr string) *redis.Options {
	return &redis.Options{Addr: redisAddr, Protocol: 3, ClientSideCacheConfig: &redis.ClientSideCacheConfig{}}
}

func serveBare(_ string, ln net.Listener) error {
	e := echo.New()
	e.GET("/me", func(c echo.Context) error {
		return c.String(http.StatusOK, anonymous)
	})
	return http.Serve(ln, e)
}
