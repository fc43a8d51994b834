package echosession_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/echosession/echosession"
)

func TestCreateAndOpenWithoutHTTP(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		cfg.Cookie = &echosession.Cookie{Persistent: true}
		cfg.TouchInterval = echosession.TouchAlways
		m := newManager[User](t, cfg)
		ctx := t.Context()
		before := time.Now().Add(-time.Millisecond)
		sess, err := m.Create(ctx, User{Name: "Ada"}, echosession.WithSubject("ada"))
		if err != nil {
			t.Fatal(err)
		}
		if !sess.Exists() || sess.Reason() != nil || sess.Subject() != "ada" || sess.Data().Name != "Ada" || sess.ID() == "" {
			t.Errorf("%+v %v", sess.Data(), sess.Reason())
		}
		if at := sess.CreatedAt(); at.Before(before) || at.After(time.Now()) || at.Location() != time.UTC {
			t.Error(at)
		}
		again, err := m.Open(ctx, sess.Token())
		if err != nil || again.ID() != sess.ID() || !again.CreatedAt().Equal(sess.CreatedAt()) || again.Subject() != "ada" {
			t.Error(again.Reason(), err)
		}
		if err := again.Update(ctx, func(u *User) error { u.Count = 7; return nil }); err != nil || again.Data().Count != 7 {
			t.Error(again.Data(), err)
		}
		if sess.Data().Count != 0 {
			t.Error("a handle changed by itself")
		}
		if err := sess.Reload(ctx); err != nil || sess.Data().Count != 7 {
			t.Error(sess.Data(), err)
		}
		old := again.Token()
		token, err := again.Rotate(ctx)
		if err != nil || token == old || again.Token() != token || again.ID() == sess.ID() || again.Data().Count != 7 {
			t.Error(again.Data(), err)
		}
		if claims := again.Claims(); claims["jti"] != again.ID() || claims["sub"] != "ada" {
			t.Error(claims)
		}
		if err := again.Destroy(ctx); err != nil || again.Exists() {
			t.Error(err)
		}
		for _, token := range []string{old, token} {
			if sess, err := m.Open(ctx, token); err != nil || !errors.Is(sess.Reason(), echosession.ErrSessionGone) {
				t.Error(sess.Reason(), err)
			}
		}
	})
}

func TestReservedClaims(t *testing.T) {
	for name, tt := range map[string]struct {
		change   func(*echosession.Config)
		reserved []string
		free     []string
	}{
		"plain":    {func(*echosession.Config) {}, []string{"jti", "iat", "idle"}, []string{"iss", "aud", "role"}},
		"issuer":   {func(c *echosession.Config) { c.Issuer = "us" }, []string{"jti", "iat", "idle", "iss"}, []string{"aud"}},
		"audience": {func(c *echosession.Config) { c.Audience = []string{"api"} }, []string{"jti", "iat", "idle", "aud"}, []string{"iss"}},
	} {
		t.Run(name, func(t *testing.T) {
			fake := newFakeRedis(t)
			m := newManager[User](t, mistaken(func(c *echosession.Config) {
				c.Store, c.Client = nil, fake
				tt.change(c)
			}))
			for _, claim := range tt.reserved {
				for _, value := range []any{newID(), 1, nil} {
					_, err := m.Create(t.Context(), User{}, echosession.WithClaims(echosession.Claims{claim: value}))
					if !errors.Is(err, echosession.ErrReservedClaim) || !strings.Contains(err.Error(), claim) {
						t.Errorf("%s: %v", claim, err)
					}
				}
			}
			if n := fake.count(""); n != 0 {
				t.Errorf("%d commands", n)
			}
			for _, claim := range tt.free {
				sess, err := m.Create(t.Context(), User{}, echosession.WithClaims(echosession.Claims{claim: "mine"}))
				if err != nil || sess.Claims()[claim] != "mine" {
					t.Errorf("%s: %v", claim, err)
				}
			}
		})
	}
}

func TestSubjectTwice(t *testing.T) {
	m := newManager[User](t, mistaken(func(*echosession.Config) {}))
	sub := echosession.WithClaims(echosession.Claims{"sub": "ada"})
	if sess, err := m.Create(t.Context(), User{}, sub); err != nil || sess.Subject() != "ada" {
		t.Error(err)
	}
	if sess, err := m.Create(t.Context(), User{}, sub, echosession.WithSubject("ada")); err != nil || sess.Subject() != "ada" {
		t.Error(err)
	}
	if _, err := m.Create(t.Context(), User{}, sub, echosession.WithSubject("eve")); !errors.Is(err, echosession.ErrReservedClaim) {
		t.Error(err)
	}
	for _, subject := range []string{strings.Repeat("x", 1<<10+1), "\xff"} {
		if _, err := m.Create(t.Context(), User{}, echosession.WithSubject(subject)); err == nil {
			t.Errorf("a subject of %d bytes is taken", len(subject))
		}
	}
}

func TestListAndAll(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		cfg.SubjectIndex = true
		m := newManager[User](t, cfg)
		ctx := t.Context()
		var ids []string
		for i, name := range []string{"laptop", "phone", "tablet"} {
			sess, err := m.Create(ctx, User{Name: name, Count: i}, echosession.WithSubject("ada"))
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, sess.ID())
		}
		if _, err := m.Create(ctx, User{Name: "nobody's"}); err != nil {
			t.Fatal(err)
		}
		list, err := m.List(ctx, "ada")
		if err != nil {
			t.Fatal(err)
		}
		var listed []string
		for _, sess := range list {
			listed = append(listed, sess.ID())
			if sess.Token() != "" || sess.Claims() != nil || sess.Subject() != "ada" || !sess.ExpiresAt().After(time.Now()) {
				t.Errorf("%q %v %q %v", sess.Token(), sess.Claims(), sess.Subject(), sess.ExpiresAt())
			}
		}
		if !slices.Equal(listed, ids) {
			t.Errorf("List: %q, want %q", listed, ids)
		}
		first := list[0]
		if err := first.Update(ctx, func(u *User) error { u.Count = 10; return nil }); err != nil {
			t.Error(err)
		}
		if err := first.Touch(ctx); err != nil {
			t.Error(err)
		}
		if err := first.Reload(ctx); err != nil || first.Data().Count != 10 {
			t.Error(first.Data(), err)
		}
		if _, err := first.Rotate(ctx); !errors.Is(err, echosession.ErrNoSession) {
			t.Errorf("Rotate without a token: %v", err)
		}
		if err := list[1].Destroy(ctx); err != nil {
			t.Error(err)
		}
		total := 0
		for sess, err := range m.All(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			total += sess.Data().Count
		}
		if total != 12 {
			t.Errorf("the counts of all sessions add up to %d, not 12", total)
		}
		if n, err := m.RevokeSubject(ctx, "ada", ids[2]); n != 1 || err != nil {
			t.Errorf("RevokeSubject: %d, %v", n, err)
		}
		if list, err := m.List(ctx, "ada"); err != nil || len(list) != 1 || list[0].ID() != ids[2] {
			t.Errorf("%d sessions, %v", len(list), err)
		}
	})
	plain := newManager[User](t, mistaken(func(*echosession.Config) {}))
	if _, err := plain.List(t.Context(), "ada"); err == nil || !strings.Contains(err.Error(), "SubjectIndex") {
		t.Error(err)
	}
	if _, err := plain.RevokeSubject(t.Context(), "ada"); err == nil || !strings.Contains(err.Error(), "SubjectIndex") {
		t.Error(err)
	}
}
