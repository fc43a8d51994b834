package echosession_test

import (
	"net/http"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

func TestLifeOfASession(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		cfg.SubjectIndex = true
		m := newManager[User](t, cfg)
		s := newServer(t, m.Middleware())
		s.POST("/login", func(c echo.Context) error {
			sess, err := m.Get(c)
			if err != nil {
				return err
			}
			token, err := sess.Create(c.Request().Context(), User{Name: "Ada"}, echosession.WithSubject("ada"))
			if err != nil {
				return err
			}
			return c.String(http.StatusOK, token)
		})
		private := s.Group("", m.Require())
		private.GET("/me", func(c echo.Context) error {
			sess, err := m.Get(c)
			if err != nil {
				return err
			}
			return c.JSON(http.StatusOK, sess)
		})
		private.POST("/count", func(c echo.Context) error {
			sess, err := m.Get(c)
			if err != nil {
				return err
			}
			if err := sess.Update(c.Request().Context(), func(u *User) error { u.Count++; return nil }); err != nil {
				return err
			}
			return c.JSON(http.StatusOK, sess)
		})
		private.POST("/rotate", func(c echo.Context) error {
			sess, err := m.Get(c)
			if err != nil {
				return err
			}
			token, err := sess.Rotate(c.Request().Context())
			if err != nil {
				return err
			}
			return c.String(http.StatusOK, token)
		})
		private.POST("/logout", func(c echo.Context) error {
			sess, err := m.Get(c)
			if err != nil {
				return err
			}
			if err := sess.Destroy(c.Request().Context()); err != nil {
				return err
			}
			return c.NoContent(http.StatusNoContent)
		})
		if a := s.get(t, "/me", ""); a.StatusCode != 401 || a.Header.Get("WWW-Authenticate") != `Bearer realm="session"` {
			t.Fatal(a.StatusCode, a.Header, a.body)
		}
		login := s.post(t, "/login", "")
		token := login.body
		if a := s.get(t, "/me", token); a.StatusCode != 200 || a.body != `{"name":"Ada","count":0}` {
			t.Fatal(a.StatusCode, a.body)
		}
		if a := s.post(t, "/count", token); a.StatusCode != 200 || a.body != `{"name":"Ada","count":1}` {
			t.Fatal(a.StatusCode, a.body)
		}
		rotated := s.post(t, "/rotate", token)
		if rotated.StatusCode != 200 {
			t.Fatal(rotated.StatusCode, rotated.body)
		}
		for range 2 {
			if a := s.post(t, "/count", token); a.StatusCode != 200 {
				t.Fatal(a.StatusCode, a.body)
			}
			if a := s.post(t, "/count", rotated.body); a.StatusCode != 200 {
				t.Fatal(a.StatusCode, a.body)
			}
		}
		if a := s.get(t, "/me", rotated.body); a.body != `{"name":"Ada","count":5}` {
			t.Fatal(a.body)
		}
		list, err := m.List(t.Context(), "ada")
		if err != nil || len(list) != 1 || list[0].Data().Count != 5 {
			t.Fatal(list, err)
		}
		n := 0
		for sess, err := range m.All(t.Context()) {
			if err != nil || sess.Subject() != "ada" {
				t.Fatal(err)
			}
			n++
		}
		if n != 1 {
			t.Fatal(n)
		}
		if a := s.post(t, "/logout", token); a.StatusCode != 204 {
			t.Fatal(a.StatusCode, a.body)
		}
		if a := s.get(t, "/me", rotated.body); a.StatusCode != 401 {
			t.Fatal(a.StatusCode, a.body)
		}
	})
}
