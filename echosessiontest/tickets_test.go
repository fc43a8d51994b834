package echosessiontest_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/echosessiontest"
)

// An application's tickets can be tested: that they end, that they are used once, and what
// happens in an outage.
func TestTicketsInAHarness(t *testing.T) {
	h := echosessiontest.New[User](t, func(cfg *echosession.Config) { cfg.TokenLookup = "bearer,ticket:ticket" })
	sess := h.Login(newRequest(), User{Name: "Ada"})
	serve := func(ticket string) int {
		return h.Run(showName, httptest.NewRequest(http.MethodGet, "/?ticket="+ticket, nil), echosession.Require[User]()).Code
	}
	for _, tt := range []struct {
		name   string
		before func()
		status int
	}{
		{"at once", func() {}, http.StatusOK},
		{"a moment before its end", func() { h.Clock.Advance(29 * time.Second) }, http.StatusOK},
		{"at its end", func() { h.Clock.Advance(30 * time.Second) }, http.StatusUnauthorized},
		{"in an outage", func() { h.Store.FailNext(1, nil) }, http.StatusServiceUnavailable},
	} {
		ticket, err := sess.Ticket(t.Context(), "/")
		if err != nil {
			t.Fatal(err)
		}
		tt.before()
		if got := serve(ticket); got != tt.status {
			t.Errorf("%s: %d", tt.name, got)
		}
		// What fails is not done, so after the outage the ticket is still there.
		want := http.StatusUnauthorized
		if tt.status == http.StatusServiceUnavailable {
			want = http.StatusOK
		}
		if got := serve(ticket); got != want {
			t.Errorf("%s, once more: %d", tt.name, got)
		}
	}
	h.Store.FailNext(1, nil)
	if ticket, err := sess.Ticket(t.Context(), "/"); !errors.Is(err, echosession.ErrStoreUnavailable) || ticket != "" {
		t.Errorf("Ticket in an outage: %q, %v", ticket, err)
	}
}

// A FaultStore of a store that keeps no tickets says so.
func TestFaultStoreWithoutTickets(t *testing.T) {
	s := echosessiontest.NewFaultStore(struct{ echosession.Store }{echosession.NewMemoryStore()})
	if err := s.PutTicket(t.Context(), "key", []byte("value"), time.Minute); !errors.Is(err, echosession.ErrUnsupported) {
		t.Errorf("PutTicket: %v", err)
	}
	if _, err := s.TakeTicket(t.Context(), "key"); !errors.Is(err, echosession.ErrUnsupported) {
		t.Errorf("TakeTicket: %v", err)
	}
	m, err := echosession.New[User](echosession.Config{Store: s, Secret: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	sess, err := m.Create(t.Context(), User{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sess.Ticket(t.Context(), "/"); !errors.Is(err, echosession.ErrUnsupported) || errors.Is(err, echosession.ErrStoreUnavailable) {
		t.Errorf("Ticket: %v", err)
	}
}
