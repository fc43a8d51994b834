package echosession_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

// addressKey is what the address of a request has in the request's context.
type addressKey struct{}

// withAddress adds the address of the request to each line.
type withAddress struct{ slog.Handler }

func (h withAddress) Handle(ctx context.Context, r slog.Record) error {
	if address, ok := ctx.Value(addressKey{}).(string); ok {
		r = r.Clone()
		r.AddAttrs(slog.String("address", address))
	}
	return h.Handler.Handle(ctx, r)
}

// An audit log that says from where a request came. A thief who has the token from before a
// login stands in it.
func ExampleSlogEvents_address() {
	logger := slog.New(withAddress{slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			switch a.Key {
			case slog.TimeKey, "session", "before": // they differ from run to run
				return slog.Attr{}
			}
			return a
		},
	})})
	sessions, err := echosession.New[User](echosession.Config{
		Store:   echosession.NewMemoryStore(),
		Secret:  testSecret,
		OnEvent: echosession.SlogEvents(logger),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sessions.Close()

	e := echo.New()
	e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			ctx := context.WithValue(c.Request().Context(), addressKey{}, c.RealIP())
			c.SetRequest(c.Request().WithContext(ctx))
			return next(c)
		}
	})
	e.Use(sessions.Middleware())
	e.POST("/login", sessions.With(func(c echo.Context, sess *echosession.Session[User]) error { // and a password to check
		_, err := sess.Renew(c.Request().Context(), func(u *User) error {
			u.Name = "Ada"
			return nil
		}, echosession.WithSubject("ada"))
		return err
	}))
	e.GET("/cart", sessions.With(func(c echo.Context, sess *echosession.Session[User]) error {
		return c.JSON(http.StatusOK, sess.Data().Cart)
	}), sessions.Require())

	sess, err := sessions.Create(context.Background(), User{}, echosession.WithSubject("ada"))
	if err != nil {
		fmt.Println(err)
		return
	}
	send := func(method, path, from string) {
		r := httptest.NewRequest(method, path, nil)
		r.RemoteAddr = from
		r.Header.Set("Authorization", "Bearer "+sess.Token())
		e.ServeHTTP(httptest.NewRecorder(), r)
	}
	send(http.MethodPost, "/login", "192.0.2.1:1234")
	send(http.MethodGet, "/cart", "198.51.100.7:4321") // a copy of the token
	// Output:
	// level=INFO msg="session created" event=created reason=login subject=ada
	// level=INFO msg="session renewed" event=renewed subject=ada address=192.0.2.1
	// level=INFO msg="session refused" event=refused reason=renewed subject=ada error="echosession: the session was renewed under another token" address=198.51.100.7
}
