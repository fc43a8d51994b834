package echosession_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

// A page asks for a ticket with its cookie or its token, and opens the stream with the ticket
// in the URL.
func ExampleSession_Ticket() {
	sessions, err := echosession.New[User](echosession.Config{
		Store:       echosession.NewMemoryStore(), // or Client: rdb
		Secret:      []byte("a secret of 32 random bytes or more"),
		TokenLookup: "bearer,ticket:ticket",
	})
	if err != nil {
		log.Fatal(err)
	}
	e := echo.New()
	e.Use(sessions.Middleware())
	e.POST("/tickets", sessions.With(func(c echo.Context, sess *echosession.Session[User]) error {
		ticket, err := sess.Ticket(c.Request().Context(), "/events")
		if err != nil {
			return err
		}
		return c.String(http.StatusCreated, ticket)
	}), sessions.Require())
	e.GET("/events", sessions.With(func(c echo.Context, sess *echosession.Session[User]) error {
		return c.String(http.StatusOK, "the events of "+sess.Data().Name)
	}), sessions.Require())

	sess, err := sessions.Create(context.Background(), User{Name: "Ada"})
	if err != nil {
		log.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/tickets", nil)
	r.Header.Set("Authorization", "Bearer "+sess.Token())
	rec := httptest.NewRecorder()
	e.ServeHTTP(rec, r)
	ticket := rec.Body.String()

	for range 2 {
		rec := httptest.NewRecorder()
		e.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/events?ticket="+ticket, nil))
		fmt.Println(rec.Code, rec.Body)
	}
	// Output:
	// 200 the events of Ada
	// 401 {"message":"the session is invalid or has ended"}
}

// A WebSocket that a page of another origin opens gets in with no ticket, though it has one.
func ExampleTicketOrigin() {
	sessions, err := echosession.New[User](echosession.Config{
		Store:       echosession.NewMemoryStore(),
		Secret:      testSecret,
		TokenLookup: "bearer,ticket:ticket",
	})
	if err != nil {
		log.Fatal(err)
	}
	e := echo.New()
	e.Use(sessions.Middleware())
	e.POST("/tickets", sessions.With(func(c echo.Context, sess *echosession.Session[User]) error {
		ticket, err := sess.Ticket(c.Request().Context(), "/socket", echosession.TicketOrigin("https://app.example.com"))
		if err != nil {
			return err
		}
		return c.String(http.StatusCreated, ticket)
	}), sessions.Require())
	e.GET("/socket", func(c echo.Context) error { return c.String(http.StatusOK, "welcome") }, sessions.Require())

	sess, err := sessions.Create(context.Background(), User{Name: "Ada"})
	if err != nil {
		log.Fatal(err)
	}
	for _, origin := range []string{"https://app.example.com", "https://evil.example"} {
		r := httptest.NewRequest(http.MethodPost, "/tickets", nil)
		r.Header.Set("Authorization", "Bearer "+sess.Token())
		rec := httptest.NewRecorder()
		e.ServeHTTP(rec, r)

		r = httptest.NewRequest(http.MethodGet, "/socket?ticket="+rec.Body.String(), nil)
		r.Header.Set("Origin", origin)
		rec = httptest.NewRecorder()
		e.ServeHTTP(rec, r)
		fmt.Println(origin, rec.Code)
	}
	// Output:
	// https://app.example.com 200
	// https://evil.example 401
}
