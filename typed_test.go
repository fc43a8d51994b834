package echosession_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

// Basket is data that shares memory unless it is copied.
type Basket struct {
	Items []string
	Price map[string]int
	Owner *User
}

func newBasket() Basket {
	return Basket{Items: []string{"pen"}, Price: map[string]int{"pen": 2}, Owner: &User{Name: "Ada"}}
}

func (b Basket) spoil() {
	b.Items[0] = "spoilt"
	b.Price["pen"] = -1
	b.Owner.Name = "spoilt"
}

func (b Basket) spoilt() bool {
	return b.Items[0] != "pen" || b.Price["pen"] != 2 || b.Owner.Name != "Ada"
}

func TestDataIsACopy(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		m := newManager[Basket](t, cfg)
		ctx := t.Context()
		given := newBasket()
		created, err := m.Create(ctx, given)
		if err != nil {
			t.Fatal(err)
		}
		given.spoil()
		created.Data().spoil()
		opened, err := m.Open(ctx, created.Token())
		if err != nil {
			t.Fatal(err)
		}
		opened.Data().spoil()
		var kept *Basket
		if err := opened.Update(ctx, func(b *Basket) error { kept = b; return nil }); err != nil {
			t.Fatal(err)
		}
		kept.spoil()
		failed := errors.New("no")
		if err := opened.Update(ctx, func(b *Basket) error { b.spoil(); return failed }); err != failed {
			t.Error(err)
		}
		for name, sess := range map[string]*echosession.Session[Basket]{"created": created, "opened": opened} {
			if sess.Data().spoilt() {
				t.Errorf("%s: %+v", name, sess.Data())
			}
			if body, err := json.Marshal(sess); err != nil || strings.Contains(string(body), "spoilt") {
				t.Errorf("%s: %s, %v", name, body, err)
			}
			if err := sess.Reload(ctx); err != nil || sess.Data().spoilt() {
				t.Errorf("%s: %+v, %v", name, sess.Data(), err)
			}
		}
	})
}

func TestClaimsAreACopy(t *testing.T) {
	m := newManager[User](t, mistaken(func(*echosession.Config) {}))
	given := echosession.Claims{"roles": []string{"reader"}}
	sess, err := m.Create(t.Context(), User{}, echosession.WithClaims(given))
	if err != nil {
		t.Fatal(err)
	}
	given["roles"].([]string)[0] = "admin"
	for range 2 {
		claims := sess.Claims()
		roles := claims["roles"].([]any)
		if roles[0] != "reader" {
			t.Error(claims)
		}
		roles[0], claims["jti"] = "admin", "mine"
	}
	if again, err := m.Open(t.Context(), sess.Token()); err != nil || again.Claims()["roles"].([]any)[0] != "reader" {
		t.Error(again.Claims(), err)
	}
}

func TestSessionWithoutSession(t *testing.T) {
	m := newManager[Basket](t, mistaken(func(*echosession.Config) {}))
	sess, err := m.Open(t.Context(), "no token")
	if err != nil {
		t.Fatal(err)
	}
	if sess.Exists() || !errors.Is(sess.Reason(), echosession.ErrInvalidToken) {
		t.Error(sess.Exists(), sess.Reason())
	}
	if sess.ID()+sess.Token()+sess.Subject() != "" || sess.Claims() != nil {
		t.Error(sess.ID(), sess.Token(), sess.Subject(), sess.Claims())
	}
	if data := sess.Data(); data.Items != nil || data.Price != nil || data.Owner != nil {
		t.Error(data)
	}
	if !sess.CreatedAt().IsZero() || !sess.ExpiresAt().IsZero() {
		t.Error(sess.CreatedAt(), sess.ExpiresAt())
	}
	if body, err := json.Marshal(sess); string(body) != "null" || err != nil {
		t.Errorf("%s, %v", body, err)
	}
	for method, err := range map[string]error{
		"Update": sess.Update(t.Context(), func(*Basket) error { t.Error("fn was called"); return nil }),
		"Reload": sess.Reload(t.Context()),
		"Touch":  sess.Touch(t.Context()),
		"Rotate": func() error { _, err := sess.Rotate(t.Context()); return err }(),
	} {
		if !errors.Is(err, echosession.ErrNoSession) || !errors.Is(err, echosession.ErrInvalidToken) {
			t.Errorf("%s: %v, want ErrNoSession and the reason", method, err)
		}
	}
	if err := sess.Destroy(t.Context()); err != nil {
		t.Errorf("Destroy: %v", err)
	}
}

func TestMarshalJSONIsTheData(t *testing.T) {
	m := newManager[User](t, mistaken(func(*echosession.Config) {}))
	s := newServer(t, m.Middleware())
	route(s, m, "/", func(c echo.Context, sess *echosession.Session[User]) error { return c.JSON(http.StatusOK, sess) })
	if a := s.get(t, "/", newToken(t, m, "Ada")); a.body != `{"name":"Ada","count":0}` {
		t.Error(a.body)
	}
	if a := s.get(t, "/", ""); a.body != "null" {
		t.Error(a.body)
	}
}
