//go:build !race

package echosession_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/echosession/echosession"
)

// A read of a session may cost eight allocations beside what a handler pays that
// sends the same command with the same deadline and decodes the same struct. (The
// race detector makes pools forget, and so is left out.)
func TestAllocationsOfARead(t *testing.T) {
	const ceiling = 8
	fake := newFakeRedis(t)
	ctx := t.Context()
	m := newManager[account](t, echosession.Config{Client: fake, Secret: testSecret})
	sess, err := m.Create(ctx, anAccount())
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := msgpack.Marshal(anAccount())
	if err != nil {
		t.Fatal(err)
	}
	store := newRedisStore(t, fake, "bare:")
	ref := echosession.Ref{ID: newID()}
	if err := store.Create(ctx, ref, encoded, time.Hour, 0); err != nil {
		t.Fatal(err)
	}
	key, _ := echosession.RedisKeys("bare:", ref)

	e := echo.New()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+sess.Token())
	w := httptest.NewRecorder()
	measure := func(h echo.HandlerFunc) float64 {
		return testing.AllocsPerRun(200, func() {
			c := e.AcquireContext()
			defer e.ReleaseContext(c)
			c.Reset(r, w)
			if err := h(c); err != nil {
				t.Fatal(err)
			}
		})
	}
	bare := measure(func(c echo.Context) error {
		ctx, cancel := context.WithTimeout(c.Request().Context(), time.Second)
		defer cancel()
		cmd := redis.NewStringCmd(ctx, "get", key)
		done := make(chan error, 1) // the fake is no client that heeds deadlines
		go func() { done <- fake.Process(ctx, cmd) }()
		if err := <-done; err != nil {
			return err
		}
		data, err := cmd.Bytes()
		if err != nil {
			return err
		}
		var a account
		return msgpack.Unmarshal(data, &a)
	})
	read := measure(m.Middleware()(func(c echo.Context) error {
		sess, err := m.Get(c)
		if err != nil || !sess.Exists() || sess.Data().Name == "" {
			t.Fatal(err, sess.Reason())
		}
		return nil
	}))
	t.Logf("a bare read %v, a session's %v allocations", bare, read)
	if read > bare+ceiling {
		t.Errorf("a read costs %v allocations, %v more than a bare one; %d are allowed", read, read-bare, ceiling)
	}
}
