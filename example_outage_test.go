package echosession_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/echosessiontest"
)

// A shop whose pages go on while Redis is down. A store that fails on command stands for
// Redis here.
func ExampleServeStale() {
	store := echosessiontest.NewFaultStore(echosession.NewMemoryStore())
	sessions, err := echosession.New[User](echosession.Config{
		Store:    store,
		Secret:   testSecret,
		StaleFor: 30 * time.Second,
		Logger:   slog.New(slog.DiscardHandler),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sessions.Close()

	e := echo.New()
	e.Use(sessions.Middleware())
	pages := e.Group("/shop", sessions.Require(echosession.ServeStale()))
	pages.GET("/cart", sessions.With(func(c echo.Context, sess *echosession.Session[User]) error {
		cart := strings.Join(sess.Data().Cart, ", ")
		if sess.Stale() {
			return c.String(http.StatusOK, "Your cart, as it was a moment ago: "+cart)
		}
		return c.String(http.StatusOK, "Your cart: "+cart)
	}))
	pages.POST("/cart", sessions.With(func(c echo.Context, sess *echosession.Session[User]) error {
		return sess.Update(c.Request().Context(), func(u *User) error {
			u.Cart = append(u.Cart, c.FormValue("item"))
			return nil
		})
	}))

	sess, err := sessions.Create(context.Background(), User{Cart: []string{"tea"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	send := func(method, path string) {
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set("Authorization", "Bearer "+sess.Token())
		w := httptest.NewRecorder()
		e.ServeHTTP(w, r)
		fmt.Println(method, w.Code, strings.TrimSpace(w.Body.String()))
	}
	send(http.MethodGet, "/shop/cart")
	store.Fail(nil)
	send(http.MethodGet, "/shop/cart")
	send(http.MethodPost, "/shop/cart?item=milk")
	// Output:
	// GET 200 Your cart: tea
	// GET 200 Your cart, as it was a moment ago: tea
	// POST 503 {"message":"the service is temporarily unavailable"}
}
