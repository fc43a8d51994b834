package nethttp_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/nethttp"
)

type User struct{ Name string }

func TestBodyReachesAHandlerBehindWithContext(t *testing.T) {
	m, err := echosession.New[User](echosession.Config{Store: echosession.NewMemoryStore(), Secret: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.Create(t.Context(), User{"Ada"})
	if err != nil {
		t.Fatal(err)
	}
	body := "accessToken=" + s.Token()
	inner := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sess, err := nethttp.Get[User](r)
		if err != nil || !sess.Exists() {
			t.Error(err, sess.Reason())
		}
		got, _ := io.ReadAll(r.Body)
		if string(got) != body {
			t.Errorf("the handler reads %q", got)
		}
	})
	type contextKey struct{}
	between := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inner.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), contextKey{}, "v")))
	})
	r := httptest.NewRequest("POST", "/", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	nethttp.Middleware(m, between).ServeHTTP(httptest.NewRecorder(), r)
}
