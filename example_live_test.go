package echosession_test

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

// A stream that ends when its session ends. Here the logout comes from the same process; it
// works as well from any other that shares the Redis.
func ExampleSession_Watch() {
	sessions, err := echosession.New[User](echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret})
	if err != nil {
		log.Fatal(err)
	}
	defer sessions.Close()
	events := make(chan string, 1)

	e := echo.New()
	e.Use(sessions.Middleware())
	e.GET("/events", sessions.With(func(c echo.Context, sess *echosession.Session[User]) error {
		c.Response().Header().Set("Content-Type", "text/event-stream")
		ctx, stop := sess.Watch(c.Request().Context())
		defer stop()
		for {
			select {
			case <-ctx.Done():
				return nil // context.Cause(ctx) tells why
			case event := <-events:
				fmt.Fprintf(c.Response(), "data: %s\n\n", event)
				c.Response().Flush()
			}
		}
	}), sessions.Require())
	server := httptest.NewServer(e)
	defer server.Close()

	sess, err := sessions.Create(context.Background(), User{Name: "Ada"})
	if err != nil {
		log.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodGet, server.URL+"/events", nil)
	if err != nil {
		log.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+sess.Token())
	events <- "a letter for Ada"
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		log.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() && lines.Text() != "" {
		fmt.Println(lines.Text())
	}

	if err := sess.Destroy(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println("more events:", lines.Scan())
	// Output:
	// data: a letter for Ada
	// more events: false
}
