package main

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
	"github.com/echosession/echosession/otelsession"
)

// A load is a service with visitors, and with all that goes wrong in a minute: somebody tries
// forged tokens, Redis stands still, records are damaged, a user is logged out everywhere.
type load struct {
	e        *echo.Echo
	sessions *echosession.Manager[Visitor]
	old      *echosession.Manager[Visitor] // signs with the key of yesterday, and is not observed
	registry *prometheus.Registry
	server   *redistest.Server
	rdb      *redis.Client
}

const loadKeyspace = "load:"

func newLoad(t *testing.T, timeout time.Duration) *load {
	t.Helper()
	l := &load{registry: prometheus.NewRegistry(), server: redistest.Start(t), e: echo.New()}
	l.rdb = l.server.Client(t, func(o *redis.Options) { o.ContextTimeoutEnabled = true })
	provider, err := newMeterProvider(l.registry)
	if err != nil {
		t.Fatal(err)
	}
	yesterday := echosession.SigningKey{ID: "1", Algorithm: "HS256", Key: []byte("the key of yesterday, 32 bytes!!")}
	today := echosession.SigningKey{ID: "2", Algorithm: "HS256", Key: []byte("the key of today, of 32 bytes!!!")}
	cfg := echosession.Config{
		Client: l.rdb, Keyspace: loadKeyspace, SubjectIndex: true, MaxSessions: 3,
		StoreTimeout: timeout, StaleFor: 10 * time.Second, RotateGrace: 2 * time.Second,
		Keys: []echosession.SigningKey{yesterday}, Logger: slog.New(slog.DiscardHandler),
	}
	if l.old, err = echosession.New[Visitor](cfg); err != nil {
		t.Fatal(err)
	}
	cfg.Keys = []echosession.SigningKey{today, yesterday}
	l.sessions, err = echosession.New[Visitor](otelsession.Observe(cfg, otelsession.WithMeterProvider(provider)))
	if err != nil {
		t.Fatal(err)
	}
	l.routes()
	return l
}

func (l *load) routes() {
	l.e.Use(l.sessions.Middleware())
	type handler = func(echo.Context, *session) error
	do := func(fn func(ctx context.Context, c echo.Context, sess *session) error) echo.HandlerFunc {
		return l.sessions.With(handler(func(c echo.Context, sess *session) error {
			if err := fn(c.Request().Context(), c, sess); err != nil {
				return err
			}
			return c.String(http.StatusOK, sess.Token())
		}))
	}
	l.e.POST("/guest", do(func(ctx context.Context, _ echo.Context, sess *session) error {
		return sess.UpdateOrCreate(ctx, func(v *Visitor) error { v.Visits++; return nil })
	}))
	l.e.POST("/login/:name", do(func(ctx context.Context, c echo.Context, sess *session) error {
		name := c.Param("name")
		_, err := sess.Renew(ctx, func(v *Visitor) error { v.Name = name; return nil }, echosession.WithSubject(name))
		return err
	}))
	l.e.GET("/me", do(func(context.Context, echo.Context, *session) error { return nil }),
		l.sessions.Require(echosession.ServeStale()))
	l.e.POST("/visit", do(func(ctx context.Context, _ echo.Context, sess *session) error {
		return sess.Update(ctx, func(v *Visitor) error { v.Visits++; return nil })
	}), l.sessions.Require())
	l.e.POST("/rotate", do(func(ctx context.Context, _ echo.Context, sess *session) error {
		_, err := sess.Rotate(ctx)
		return err
	}), l.sessions.Require())
	l.e.POST("/logout", do(func(ctx context.Context, _ echo.Context, sess *session) error {
		return sess.Destroy(ctx)
	}), l.sessions.Require())
	l.e.GET("/live", do(func(ctx context.Context, _ echo.Context, sess *session) error {
		ctx, stop := sess.Watch(ctx)
		defer stop()
		<-ctx.Done()
		return nil
	}), l.sessions.Require())
}

// request returns the answer, which is the token where the session has one.
func (l *load) request(ctx context.Context, method, path, token string) (int, string) {
	rec := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(ctx, method, path, nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	l.e.ServeHTTP(rec, r)
	return rec.Code, rec.Body.String()
}

// pause waits for a think time, and reports whether the load goes on.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(time.Duration(float64(d) * (.5 + rand.Float64()))):
		return true
	}
}

// visitor comes as a guest, logs in, looks around and leaves, again and again.
func (l *load) visitor(ctx context.Context, name string) {
	for pause(ctx, 100*time.Millisecond) {
		status, token := l.request(ctx, http.MethodPost, "/guest", "")
		if status != http.StatusOK {
			continue
		}
		if status, next := l.request(ctx, http.MethodPost, "/login/"+name, token); status == http.StatusOK {
			token = next
		}
		watch, hangUp := context.WithCancel(ctx)
		var live sync.WaitGroup
		if rand.IntN(3) == 0 {
			live.Go(func() { l.request(watch, http.MethodGet, "/live", token) })
		}
		for range 20 + rand.IntN(100) {
			if !pause(ctx, 30*time.Millisecond) {
				break
			}
			token = l.step(ctx, token)
		}
		if rand.IntN(3) > 0 {
			l.request(ctx, http.MethodPost, "/logout", token)
		}
		hangUp()
		live.Wait()
	}
}

// step is one request of a visitor. It returns the token for the next one.
func (l *load) step(ctx context.Context, token string) string {
	switch rand.IntN(40) {
	case 0:
		if status, next := l.request(ctx, http.MethodPost, "/rotate", token); status == http.StatusOK {
			l.request(ctx, http.MethodGet, "/me", token) // was under way
			return next
		}
	case 1, 2, 3, 4:
		l.request(ctx, http.MethodPost, "/visit", token)
	default:
		l.request(ctx, http.MethodGet, "/me", token)
	}
	return token
}

// returning has a token of yesterday's key.
func (l *load) returning(ctx context.Context, name string) {
	sess, err := l.old.Create(ctx, Visitor{Name: name}, echosession.WithSubject(name))
	if err != nil {
		return // while Redis stands still, nobody returns
	}
	for pause(ctx, 200*time.Millisecond) {
		l.request(ctx, http.MethodGet, "/me", sess.Token())
	}
}

// forge tries tokens that nobody has signed.
func (l *load) forge(ctx context.Context) {
	_, good := l.request(ctx, http.MethodPost, "/login/mallory", "")
	head, _, _ := strings.Cut(good, ".")
	for pause(ctx, 10*time.Millisecond) {
		l.request(ctx, http.MethodGet, "/me", []string{
			good[:len(good)-8] + "AAAAAAAA", "nothing", head + ".e30.AAAA", good + "." + good,
		}[rand.IntN(4)])
	}
}

// damage overwrites some records.
func (l *load) damage(t *testing.T, n int) {
	keys, _, err := l.rdb.Scan(t.Context(), 0, loadKeyspace+"*:*-*", 1000).Result()
	if err != nil || len(keys) < n {
		t.Errorf("%d keys: %v", len(keys), err)
		return
	}
	for _, key := range keys[:n] {
		if err := l.rdb.SetArgs(t.Context(), key, "damaged", redis.SetArgs{KeepTTL: true}).Err(); err != nil {
			t.Error(err)
		}
	}
}

// run lasts for a time, and calls tick every interval.
func (l *load) run(t *testing.T, lasts, interval time.Duration, tick func(time.Time)) {
	// The visitors hang up at the end. A deadline of theirs would count as one of the store.
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	for i := range 30 {
		all.Go(func() { l.visitor(ctx, fmt.Sprint("user", i%12)) })
	}
	for i := range 5 {
		all.Go(func() {
			if pause(ctx, lasts*time.Duration(i+1)/8) {
				l.returning(ctx, fmt.Sprint("returning", i))
			}
		})
	}
	at := func(share float64, fn func()) {
		all.Go(func() {
			select {
			case <-ctx.Done():
			case <-time.After(time.Duration(share * float64(lasts))):
				fn()
			}
		})
	}
	at(.2, func() {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		time.AfterFunc(lasts/10, stop)
		l.forge(ctx)
	})
	at(.45, func() { l.server.Pause(t) })
	at(.53, func() { l.server.Resume(t) })
	at(.7, func() { l.damage(t, 10) })
	at(.85, func() {
		for i := range 6 {
			if _, err := l.sessions.RevokeSubject(ctx, fmt.Sprint("user", i)); err != nil {
				t.Error(err)
			}
		}
	})
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for range lasts / interval {
		tick(<-ticker.C)
	}
}
