// Command browser is a web site that keeps the token in a cookie. Its forms need no
// hidden CSRF tokens, because requests from another site's pages are refused: they
// can neither log a visitor in nor out, nor use the session.
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

// Visitor is what a session holds.
type Visitor struct {
	Name  string
	Notes []string
}

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
	cfg.MaxAge = 30 * 24 * time.Hour
	// This is for development: the site speaks plain HTTP. In production, leave
	// Insecure out. Then the name of the cookie is __Host-session, so TokenLookup
	// is cookie:__Host-session.
	cfg.Cookie = &echosession.Cookie{Persistent: true, Insecure: true}
	cfg.TokenLookup = "cookie:session"
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

	e.GET("/", func(c echo.Context) error {
		sess, err := sessions.Get(c)
		if err != nil {
			return err
		}
		c.Response().Header().Set("Content-Type", "text/html; charset=utf-8")
		return page.Execute(c.Response(), sess)
	})
	e.POST("/login", func(c echo.Context) error {
		sess, err := sessions.Get(c)
		if err != nil {
			return err
		}
		if _, err := sess.Create(c.Request().Context(), Visitor{Name: c.FormValue("name")}); err != nil {
			return err
		}
		return c.Redirect(http.StatusSeeOther, "/")
	})
	e.POST("/notes", func(c echo.Context) error {
		sess, err := sessions.Get(c)
		if err != nil {
			return err
		}
		err = sess.Update(c.Request().Context(), func(v *Visitor) error {
			v.Notes = append(v.Notes, c.FormValue("note"))
			return nil
		})
		if err != nil {
			return err
		}
		return c.Redirect(http.StatusSeeOther, "/")
	}, sessions.Require())
	// It is a POST: a link or an image on any page could log out by GET.
	e.POST("/logout", func(c echo.Context) error {
		sess, err := sessions.Get(c)
		if err != nil {
			return err
		}
		if err := sess.Destroy(c.Request().Context()); err != nil {
			return err
		}
		return c.Redirect(http.StatusSeeOther, "/")
	})
	return e, nil
}

var page = template.Must(template.New("").Parse(`<!doctype html>
{{if .Exists}}
<p>Hello, {{.Data.Name}}.</p>
<ul>{{range .Data.Notes}}<li>{{.}}</li>{{end}}</ul>
<form method="post" action="/notes"><input name="note"><button>Add</button></form>
<form method="post" action="/logout"><button>Log out</button></form>
{{else}}
<form method="post" action="/login"><input name="name"><button>Log in</button></form>
{{end}}
`))
