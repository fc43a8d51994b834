package main

import (
	"testing"

	"github.com/echosession/echosession"
)

// With the memory store, what is left is the package's own work: the token, the
// record's codec and the bookkeeping around them.

func BenchmarkOpen(b *testing.B) {
	m, token := inMemory(b)
	b.ReportAllocs()
	for b.Loop() {
		sess, err := m.Open(b.Context(), token)
		if err != nil {
			b.Fatal(err)
		}
		if u := sess.Data(); u.ID != "user" {
			b.Fatalf("opened the session of %q", u.ID)
		}
	}
}

func BenchmarkUpdate(b *testing.B) {
	m, token := inMemory(b)
	sess, err := m.Open(b.Context(), token)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		err := sess.Update(b.Context(), func(u *User) error {
			u.Visits++
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

func inMemory(b *testing.B) (m *echosession.Manager[User], token string) {
	b.Helper()
	m, err := echosession.New[User](echosession.Config{Store: echosession.NewMemoryStore(), Secret: secret})
	if err != nil {
		b.Fatal(err)
	}
	sess, err := m.Create(b.Context(), newUser("user"))
	if err != nil {
		b.Fatal(err)
	}
	return m, sess.Token()
}
