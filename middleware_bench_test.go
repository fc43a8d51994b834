package echosession_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

// BenchmarkMiddleware measures what a request pays beside the store: the memory
// store's part is small. anonymous is a request without a token on a route that
// does not ask for its session.
func BenchmarkMiddleware(b *testing.B) {
	m := newManager[account](b, echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret})
	sess, err := m.Create(context.Background(), anAccount())
	if err != nil {
		b.Fatal(err)
	}
	read := func(c echo.Context) error {
		sess, err := m.Get(c)
		if err != nil {
			return err
		}
		if !sess.Exists() || sess.Data().Name != "Ada Lovelace" {
			return sess.Reason()
		}
		return nil
	}
	write := func(c echo.Context) error {
		sess, err := m.Get(c)
		if err != nil {
			return err
		}
		return sess.Update(c.Request().Context(), func(a *account) error { a.UserID++; return nil })
	}
	none := func(echo.Context) error { return nil }
	for _, bench := range []struct {
		name    string
		handler echo.HandlerFunc
		token   string
	}{
		{"bare", none, ""},
		{"anonymous", m.Middleware()(none), ""},
		{"read", m.Middleware()(read), sess.Token()},
		{"write", m.Middleware()(write), sess.Token()},
	} {
		b.Run(bench.name, func(b *testing.B) {
			e := echo.New()
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			if bench.token != "" {
				r.Header.Set("Authorization", "Bearer "+bench.token)
			}
			w := httptest.NewRecorder()
			b.ReportAllocs()
			for b.Loop() {
				c := e.AcquireContext()
				c.Reset(r, w)
				if err := bench.handler(c); err != nil {
					b.Fatal(err)
				}
				e.ReleaseContext(c)
			}
		})
	}
}
