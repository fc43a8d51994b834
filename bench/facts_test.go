package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/alexedwards/scs/goredisstore"
	"github.com/alexedwards/scs/v2"
	"github.com/boj/redistore"
	"github.com/gofiber/fiber/v2"
	fibersession "github.com/gofiber/fiber/v2/middleware/session"
	fiberredis "github.com/gofiber/storage/redis/v3"
	"github.com/gorilla/sessions"
	"github.com/redis/go-redis/v9"
	"github.com/valyala/fasthttp"

	"github.com/echosession/echosession"
)

// A library keeps sessions of strings. Each of its requests loads a session by what the
// client sent, changes it, and saves it.
type library interface {
	// begin loads the session of a credential: "" for a new one.
	begin(t *testing.T, credential string) request
}

type request interface {
	get(key string) string
	put(key, value string)
	pop(key string) string
	logout()
	login()    // a new ID, with the data of before
	remember() // for 30 days
	save() (credential string, ok bool)
	cookieLife() (life time.Duration, set bool) // of the cookie in the answer
}

// What the README's table says of these libraries.
func TestWhatOthersDo(t *testing.T) {
	if _, chosen, err := redisBinary(); err != nil && !chosen && os.Getenv("ECHOSESSION_REQUIRE_REDIS") != "1" {
		t.Skip(err)
	}
	server, err := startRedis(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.stop(); err != nil {
			t.Error(err)
		}
	})
	type facts struct {
		keepsGuest bool // the login keeps what the guest has stored
		oldStays   bool // the old credential finds the session after the login
		oldIsBack  bool // and after a write of a request that was under way
		refused    bool // that write is refused
		logoutOver bool // a write of a request that was under way brings nothing back after a logout
		popsTwice  bool // two requests at once get one flash message
		remembered bool // the cookie outlives the next save, too
	}
	for _, tt := range []struct {
		name string
		library
		want facts
	}{
		{"gorilla", newGorilla(t, server.addr), facts{keepsGuest: true, oldStays: true, oldIsBack: true, popsTwice: true}},
		{"scs", newSCS(server.addr), facts{keepsGuest: true, oldIsBack: true, popsTwice: true, remembered: true}},
		{"fiber", newFiber(server.addr), facts{keepsGuest: true, oldIsBack: true, popsTwice: true}},
		{"echosession", newEchosession(t, server.addr), facts{keepsGuest: true, refused: true, logoutOver: true, remembered: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got facts
			guest := tt.begin(t, "")
			guest.put("cart", "apple")
			old, _ := guest.save()
			underWay := tt.begin(t, old)
			login := tt.begin(t, old)
			login.login()
			user, _ := login.save()
			got.keepsGuest = tt.begin(t, user).get("cart") == "apple"
			got.oldStays = tt.begin(t, old).get("cart") == "apple"
			underWay.put("cart", "pear")
			_, ok := underWay.save()
			got.refused = !ok
			got.oldIsBack = tt.begin(t, old).get("cart") == "pear"

			underWay, logout := tt.begin(t, user), tt.begin(t, user)
			logout.logout()
			underWay.put("cart", "pear")
			underWay.save()
			got.logoutOver = tt.begin(t, user).get("cart") == ""

			flash := tt.begin(t, "")
			flash.put("flash", "hello")
			credential, _ := flash.save()
			first, second := tt.begin(t, credential), tt.begin(t, credential)
			popped := []string{first.pop("flash"), second.pop("flash")}
			first.save()
			second.save()
			got.popsTwice = popped[0] == popped[1]

			remembered := tt.begin(t, "")
			remembered.put("name", "Ada")
			remembered.remember()
			credential, _ = remembered.save()
			if life, set := remembered.cookieLife(); !set || life < month-24*time.Hour {
				t.Errorf("the cookie lives for %v", life)
			}
			again := tt.begin(t, credential)
			again.put("name", "Bob")
			again.save()
			life, set := again.cookieLife()
			got.remembered = !set || life >= month-24*time.Hour
			if got != tt.want {
				t.Errorf("%+v,\nwant %+v", got, tt.want)
			}
		})
	}
}

// gorilla is gorilla/sessions with redistore.
type gorilla struct{ store *redistore.RediStore }

func newGorilla(t *testing.T, addr string) library {
	store, err := redistore.NewRediStore(2, "tcp", addr, "", "", secret[:32])
	if err != nil {
		t.Fatal(err)
	}
	store.SetMaxAge(3600)
	return gorilla{store}
}

type gorillaRequest struct {
	t    *testing.T
	r    *http.Request
	w    *httptest.ResponseRecorder
	sess *sessions.Session
}

func (g gorilla) begin(t *testing.T, credential string) request {
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	if credential != "" {
		r.AddCookie(&http.Cookie{Name: "s", Value: credential})
	}
	sess, err := g.store.New(r, "s")
	if err != nil {
		t.Fatal(err)
	}
	return &gorillaRequest{t, r, httptest.NewRecorder(), sess}
}

func (g *gorillaRequest) get(key string) string {
	s, _ := g.sess.Values[key].(string)
	return s
}
func (g *gorillaRequest) put(key, value string) {
	if key == "flash" {
		g.sess.AddFlash(value)
		return
	}
	g.sess.Values[key] = value
}
func (g *gorillaRequest) pop(string) string {
	for _, flash := range g.sess.Flashes() {
		return flash.(string)
	}
	return ""
}
func (g *gorillaRequest) logout() {
	g.sess.Options.MaxAge = -1
	if err := g.sess.Save(g.r, g.w); err != nil {
		g.t.Fatal(err)
	}
}
func (g *gorillaRequest) login()    { g.sess.ID = "" }
func (g *gorillaRequest) remember() { g.sess.Options.MaxAge = int(month.Seconds()) }
func (g *gorillaRequest) save() (string, bool) {
	err := g.sess.Save(g.r, g.w)
	return cookieOf(g.w).Value, err == nil
}
func (g *gorillaRequest) cookieLife() (time.Duration, bool) { return lifeOf(g.w) }

// scsLibrary is scs with goredisstore.
type scsLibrary struct{ *scs.SessionManager }

func newSCS(addr string) library {
	sm := scs.New()
	sm.Store = goredisstore.New(redis.NewClient(plain(addr)))
	sm.Cookie.Persist = false
	return scsLibrary{sm}
}

type scsRequest struct {
	t   *testing.T
	sm  *scs.SessionManager
	ctx context.Context
	w   *httptest.ResponseRecorder
}

func (l scsLibrary) begin(t *testing.T, credential string) request {
	ctx, err := l.Load(t.Context(), credential)
	if err != nil {
		t.Fatal(err)
	}
	return &scsRequest{t, l.SessionManager, ctx, httptest.NewRecorder()}
}

func (s *scsRequest) get(key string) string { return s.sm.GetString(s.ctx, key) }
func (s *scsRequest) put(key, value string) { s.sm.Put(s.ctx, key, value) }
func (s *scsRequest) pop(key string) string { return s.sm.PopString(s.ctx, key) }
func (s *scsRequest) logout() {
	if err := s.sm.Destroy(s.ctx); err != nil {
		s.t.Fatal(err)
	}
}
func (s *scsRequest) login() {
	if err := s.sm.RenewToken(s.ctx); err != nil {
		s.t.Fatal(err)
	}
}
func (s *scsRequest) remember() {
	s.sm.RememberMe(s.ctx, true)
	s.sm.SetDeadline(s.ctx, time.Now().Add(month))
}
func (s *scsRequest) save() (string, bool) {
	token, expiry, err := s.sm.Commit(s.ctx)
	s.sm.WriteSessionCookie(s.ctx, s.w, token, expiry)
	return token, err == nil
}
func (s *scsRequest) cookieLife() (time.Duration, bool) { return lifeOf(s.w) }

// fiberLibrary is the session middleware of Fiber v2 with storage/redis.
type fiberLibrary struct {
	app   *fiber.App
	store *fibersession.Store
}

func newFiber(addr string) library {
	storage := fiberredis.NewFromConnection(redis.NewClient(plain(addr)))
	return fiberLibrary{fiber.New(), fibersession.New(fibersession.Config{Storage: storage})}
}

type fiberRequest struct {
	t    *testing.T
	c    *fiber.Ctx
	sess *fibersession.Session
}

func (l fiberLibrary) begin(t *testing.T, credential string) request {
	c := l.app.AcquireCtx(new(fasthttp.RequestCtx))
	if credential != "" {
		c.Request().Header.SetCookie("session_id", credential)
	}
	sess, err := l.store.Get(c)
	if err != nil {
		t.Fatal(err)
	}
	return &fiberRequest{t, c, sess}
}

func (f *fiberRequest) get(key string) string {
	s, _ := f.sess.Get(key).(string)
	return s
}
func (f *fiberRequest) put(key, value string) { f.sess.Set(key, value) }
func (f *fiberRequest) pop(key string) string {
	value := f.get(key)
	f.sess.Delete(key)
	return value
}
func (f *fiberRequest) logout() {
	if err := f.sess.Destroy(); err != nil {
		f.t.Fatal(err)
	}
}
func (f *fiberRequest) login() {
	if err := f.sess.Regenerate(); err != nil {
		f.t.Fatal(err)
	}
}
func (f *fiberRequest) remember() { f.sess.SetExpiry(month) }
func (f *fiberRequest) save() (string, bool) {
	id := f.sess.ID() // Save gives the session back to its pool
	err := f.sess.Save()
	return id, err == nil
}
func (f *fiberRequest) cookieLife() (time.Duration, bool) {
	line := f.c.Response().Header.PeekCookie("session_id")
	cookie := new(fasthttp.Cookie)
	if err := cookie.ParseBytes(line); err != nil {
		f.t.Fatal(err)
	}
	return time.Duration(cookie.MaxAge()) * time.Second, len(line) > 0
}

// shop is what the sessions of echosession hold.
type shop struct{ Cart, Name, Flash string }

func (s *shop) field(key string) *string {
	return map[string]*string{"cart": &s.Cart, "name": &s.Name, "flash": &s.Flash}[key]
}

type echosessionLibrary struct{ *echosession.Manager[shop] }

func newEchosession(t *testing.T, addr string) library {
	sessions, err := echosession.New[shop](echosession.Config{
		Client: redis.NewClient(plain(addr)), Secret: secret, Cookie: &echosession.Cookie{},
	})
	if err != nil {
		t.Fatal(err)
	}
	return echosessionLibrary{sessions}
}

// echosessionRequest is an Exchange, too.
type echosessionRequest struct {
	t    *testing.T
	r    *http.Request
	w    *httptest.ResponseRecorder
	sess *echosession.Session[shop]
	err  error // of the last write
}

func (l echosessionLibrary) begin(t *testing.T, credential string) request {
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	if credential != "" {
		r.AddCookie(&http.Cookie{Name: "__Host-session", Value: credential})
	}
	e := &echosessionRequest{t: t, r: r, w: httptest.NewRecorder()}
	sess, err := echosession.Find[shop](l.Bind(e), l.RequestKey())
	if err != nil {
		t.Fatal(err)
	}
	e.sess = sess
	return e
}

func (e *echosessionRequest) Request() *http.Request { return e.r }
func (e *echosessionRequest) Header() http.Header    { return e.w.Header() }
func (e *echosessionRequest) Committed() bool        { return false }
func (e *echosessionRequest) BeforeHeader(func())    {}
func (e *echosessionRequest) Param(string) string    { return "" }

func (e *echosessionRequest) get(key string) string {
	data := e.sess.Data()
	return *data.field(key)
}
func (e *echosessionRequest) put(key, value string) {
	e.err = e.sess.UpdateOrCreate(e.r.Context(), func(s *shop) error { *s.field(key) = value; return nil })
}
func (e *echosessionRequest) pop(key string) (value string) {
	value, e.err = echosession.Take(e.r.Context(), e.sess, func(s *shop) *string { return s.field(key) })
	return value
}
func (e *echosessionRequest) logout() {
	if err := e.sess.Destroy(e.r.Context()); err != nil {
		e.t.Fatal(err)
	}
}
func (e *echosessionRequest) login()    { e.renew() }
func (e *echosessionRequest) remember() { e.renew(echosession.Remember(month)) }
func (e *echosessionRequest) renew(opts ...echosession.CreateOption) {
	_, e.err = e.sess.Renew(e.r.Context(), func(*shop) error { return nil }, append(opts, echosession.WithSubject("ada"))...)
}
func (e *echosessionRequest) save() (string, bool) {
	if e.err != nil && !errors.Is(e.err, echosession.ErrRenewed) && !errors.Is(e.err, echosession.ErrSessionGone) {
		e.t.Error(e.err)
	}
	return e.sess.Token(), e.err == nil
}
func (e *echosessionRequest) cookieLife() (time.Duration, bool) { return lifeOf(e.w) }

const month = 30 * 24 * time.Hour

// cookieOf returns the last cookie that an answer sets, or an empty one.
func cookieOf(w *httptest.ResponseRecorder) *http.Cookie {
	cookies := w.Result().Cookies()
	if len(cookies) == 0 {
		return new(http.Cookie)
	}
	return cookies[len(cookies)-1]
}

func lifeOf(w *httptest.ResponseRecorder) (life time.Duration, set bool) {
	cookie := cookieOf(w)
	return time.Duration(cookie.MaxAge) * time.Second, cookie.Name != ""
}
