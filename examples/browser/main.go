// Command browser is a web site that keeps the token in a cookie. Guests have a basket,
// which they keep when they log in. With a checkbox they stay logged in when the browser
// is closed. The forms need no hidden CSRF tokens, because requests from another site's
// pages are refused: they can neither log a visitor in nor out, nor use the session.
package main

import (
	"crypto/rand"
	"html/template"
	"log"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

// Visitor is what a session holds: also that of a guest, who has not logged in.
type Visitor struct {
	Name   string
	Basket []string
	Notes  []string
	Flash  []string // shown once, on the next page
}
type session = echosession.Session[Visitor]

func main() {
	secret := make([]byte, 32)
	rand.Read(secret)
	e, err := newSite(echosession.Config{Store: echosession.NewMemoryStore(), Secret: secret})
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(e.Start("127.0.0.1:8080"))
}

func newSite(cfg echosession.Config) (*echo.Echo, error) {
	// This is for development: the site speaks plain HTTP. In production, leave
	// Insecure out.
	cfg.Cookie = &echosession.Cookie{Insecure: true}
	cfg.TokenLookup = "cookie"
	// List only other origins whose pages send requests with the cookie. With
	// SameSite=Lax they are those of the same site. The site's own origin is
	// always trusted.
	cfg.TrustedOrigins = []string{"https://app.example.com"}
	sessions, err := echosession.New[Visitor](cfg)
	if err != nil {
		return nil, err
	}

	e := echo.New()
	e.Use(sessions.Middleware())
	e.GET("/", sessions.With(func(c echo.Context, sess *session) error {
		flash, err := echosession.Take(c.Request().Context(), sess, func(v *Visitor) *[]string { return &v.Flash })
		if err != nil {
			return err
		}
		c.Response().Header().Set("Content-Type", "text/html; charset=utf-8")
		return page.Execute(c.Response(), map[string]any{
			"Visitor": sess.Data(), "LoggedIn": sess.Meets(echosession.Authenticated()) == nil, "Flash": flash,
		})
	}))
	// A guest gets a session with the first thing in the basket, and not before.
	e.POST("/basket", sessions.With(func(c echo.Context, sess *session) error {
		err := sess.UpdateOrCreate(c.Request().Context(), func(v *Visitor) error {
			v.Basket = append(v.Basket, c.FormValue("item"))
			return nil
		})
		if err != nil {
			return err
		}
		return c.Redirect(http.StatusSeeOther, "/")
	}))
	// A real login checks a password first. A guest's basket is kept.
	e.POST("/login", sessions.With(func(c echo.Context, sess *session) error {
		name := c.FormValue("name")
		opts := []echosession.CreateOption{echosession.WithSubject(name)}
		if c.FormValue("remember") != "" {
			opts = append(opts, echosession.Remember(30*24*time.Hour))
		}
		_, err := sess.Renew(c.Request().Context(), func(v *Visitor) error {
			v.Name = name
			v.Flash = []string{"Welcome, " + name + "."}
			return nil
		}, opts...)
		if err != nil {
			return err
		}
		return c.Redirect(http.StatusSeeOther, "/")
	}))
	e.POST("/notes", sessions.With(func(c echo.Context, sess *session) error {
		err := sess.Update(c.Request().Context(), func(v *Visitor) error {
			v.Notes = append(v.Notes, c.FormValue("note"))
			return nil
		})
		if err != nil {
			return err
		}
		return c.Redirect(http.StatusSeeOther, "/")
	}), sessions.Require(echosession.Authenticated()))
	// It is a POST: a link or an image on any page could log out by GET.
	e.POST("/logout", sessions.With(func(c echo.Context, sess *session) error {
		if err := sess.Destroy(c.Request().Context()); err != nil {
			return err
		}
		return c.Redirect(http.StatusSeeOther, "/")
	}))
	return e, nil
}

var page = template.Must(template.New("").Parse(`<!doctype html>
{{range .Flash}}<p role="status">{{.}}</p>{{end}}
{{if .LoggedIn}}
<p>Hello, {{.Visitor.Name}}.</p>
<ul>{{range .Visitor.Notes}}<li>{{.}}</li>{{end}}</ul>
<form method="post" action="/notes"><input name="note"><button>Add</button></form>
<form method="post" action="/logout"><button>Log out</button></form>
{{else}}
<form method="post" action="/login"><input name="name" required>
<label><input type="checkbox" name="remember"> Remember me</label> <button>Log in</button></form>
{{end}}
<p>In the basket: {{range .Visitor.Basket}}<b>{{.}}</b> {{else}}nothing{{end}}</p>
<form method="post" action="/basket"><input name="item" required><button>Put in</button></form>
`))
