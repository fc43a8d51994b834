package echov5_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v5"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/echov5"
	"github.com/echosession/echosession/internal/redistest"
)

var _ = redistest.Main // a nested module may import the root's internal packages

type User struct{ Name string }

func TestV5(t *testing.T) {
	m, err := echosession.New[User](echosession.Config{Store: echosession.NewMemoryStore(), Secret: make([]byte, 32), Cookie: &echosession.Cookie{}})
	if err != nil {
		t.Fatal(err)
	}
	e := echo.New()
	e.Use(echov5.Middleware(m))
	e.POST("/login", func(c *echo.Context) error {
		sess, err := echov5.Get[User](c)
		if err != nil {
			return err
		}
		token, err := sess.Create(c.Request().Context(), User{"Ada"})
		if err != nil {
			return err
		}
		return c.String(http.StatusOK, token)
	})
	e.GET("/me", func(c *echo.Context) error {
		sess, err := echov5.Get[User](c)
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, sess)
	}, echov5.Require[User]())
	rec := httptest.NewRecorder()
	e.ServeHTTP(rec, httptest.NewRequest("POST", "/login", nil))
	t.Log(rec.Code, rec.Header())
	r := httptest.NewRequest("GET", "/me", nil)
	r.Header.Set("Authorization", "Bearer "+rec.Body.String())
	rec = httptest.NewRecorder()
	e.ServeHTTP(rec, r)
	t.Log(rec.Code, rec.Body)
	if rec.Code != 200 {
		t.Fail()
	}
	rec = httptest.NewRecorder()
	e.ServeHTTP(rec, httptest.NewRequest("GET", "/me", nil))
	t.Log(rec.Code, rec.Header(), rec.Body)
	if rec.Code != 401 || rec.Header().Get("WWW-Authenticate") == "" {
		t.Fail()
	}
}
