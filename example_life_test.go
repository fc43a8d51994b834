package echosession_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
)

// A visitor is a browser that knows the cookie of one site.
type visitor struct {
	e      *echo.Echo
	cookie string
}

// send sends a request with the cookie, keeps the cookie that the answer sets, and
// returns the answer's status and body.
func (v *visitor) send(method, path string) string {
	r := httptest.NewRequest(method, path, nil)
	if v.cookie != "" {
		r.Header.Set("Cookie", v.cookie)
	}
	rec := httptest.NewRecorder()
	v.e.ServeHTTP(rec, r)
	for _, cookie := range rec.Result().Cookies() {
		v.cookie = cookie.Name + "=" + cookie.Value
	}
	return strings.TrimSpace(fmt.Sprint(rec.Code, " ", rec.Body))
}

// newExampleSite returns the Manager and the Echo of a site, for examples with browsers.
func newExampleSite(now func() time.Time) (*echosession.Manager[User], *echo.Echo) {
	sessions, err := echosession.New[User](echosession.Config{
		Store:        echosession.NewMemoryStore(echosession.WithClock(now)),
		Secret:       testSecret,
		Cookie:       &echosession.Cookie{},
		TokenLookup:  "bearer,cookie",
		SubjectIndex: true,
		Now:          now,
	})
	if err != nil {
		panic(err)
	}
	e := echo.New()
	e.Use(sessions.Middleware())
	return sessions, e
}

// A guest has a cart before anybody logs in, and gets a session with the first thing in
// the cart.
func ExampleSession_UpdateOrCreate() {
	sessions, e := newExampleSite(time.Now)
	e.POST("/cart/:item", sessions.With(func(c echo.Context, sess *echosession.Session[User]) error {
		err := sess.UpdateOrCreate(c.Request().Context(), func(u *User) error {
			u.Cart = append(u.Cart, c.Param("item"))
			return nil
		})
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, sess.Data().Cart)
	}))
	e.POST("/order", func(c echo.Context) error {
		return c.String(http.StatusOK, "ordered")
	}, sessions.Require(echosession.Authenticated()))

	guest := visitor{e: e}
	fmt.Println(guest.send("POST", "/cart/apple"))
	fmt.Println(guest.send("POST", "/cart/pear"))
	fmt.Println(guest.send("POST", "/order"))
	// Output:
	// 200 ["apple"]
	// 200 ["apple","pear"]
	// 401 {"message":"authentication is required"}
}

// A login keeps what the guest had, and the cookie of the guest is worth nothing
// afterwards.
func ExampleSession_Renew() {
	sessions, e := newExampleSite(time.Now)
	e.POST("/cart/:item", sessions.With(func(c echo.Context, sess *echosession.Session[User]) error {
		return sess.UpdateOrCreate(c.Request().Context(), func(u *User) error {
			u.Cart = append(u.Cart, c.Param("item"))
			return nil
		})
	}))
	e.POST("/login", sessions.With(func(c echo.Context, sess *echosession.Session[User]) error {
		user, err := checkPassword(c)
		if err != nil {
			return err
		}
		_, err = sess.Renew(c.Request().Context(), func(u *User) error {
			u.Name = user.Name
			return nil
		}, echosession.WithSubject(user.ID), echosession.WithDevice(c.Request().UserAgent()))
		if err != nil {
			return err
		}
		return c.Redirect(http.StatusSeeOther, "/")
	}))
	e.GET("/me", sessions.With(func(c echo.Context, sess *echosession.Session[User]) error {
		return c.JSON(http.StatusOK, sess)
	}), sessions.Require())

	browser := visitor{e: e}
	browser.send("POST", "/cart/apple")
	before := browser // somebody else may know this cookie
	fmt.Println(browser.send("POST", "/login"))
	fmt.Println(browser.send("GET", "/me"))
	fmt.Println(before.send("GET", "/me"))
	// Output:
	// 303
	// 200 {"name":"Ada","count":0,"cart":["apple"]}
	// 401 {"message":"the session is invalid or has ended"}
}

// checkPassword stands for what an application does to find out who logs in.
func checkPassword(c echo.Context) (user struct{ ID, Name string }, err error) {
	user.ID, user.Name = "user-17", "Ada"
	return user, nil
}

// A checkbox keeps a user logged in for 30 days, also when the browser is closed.
func ExampleRemember() {
	now := time.Now()
	sessions, e := newExampleSite(func() time.Time { return now })
	e.POST("/login", sessions.With(func(c echo.Context, sess *echosession.Session[User]) error {
		remember := echosession.Remember(0)
		if c.FormValue("remember") != "" {
			remember = echosession.Remember(30 * 24 * time.Hour)
		}
		_, err := sess.Renew(c.Request().Context(), nil, echosession.WithSubject("user-17"), remember)
		return err
	}))
	var cookie *http.Cookie
	for _, path := range []string{"/login", "/login?remember=on", "/login"} {
		r := httptest.NewRequest(http.MethodPost, path, nil)
		if cookie != nil {
			r.AddCookie(cookie)
		}
		rec := httptest.NewRecorder()
		e.ServeHTTP(rec, r)
		cookie = rec.Result().Cookies()[0]
		fmt.Println(path, cookie.MaxAge/(24*60*60), "days")
	}
	// Output:
	// /login 0 days
	// /login?remember=on 30 days
	// /login 0 days
}

// Messages that the next page shows once.
func ExampleTake() {
	type Visitor struct{ Notes []string }
	sessions, err := echosession.New[Visitor](echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	sess, err := sessions.Create(ctx, Visitor{})
	if err != nil {
		panic(err)
	}

	err = sess.Update(ctx, func(v *Visitor) error {
		v.Notes = append(v.Notes, "Your order was sent.")
		return nil
	})
	if err != nil {
		panic(err)
	}
	for range 2 {
		notes, err := echosession.Take(ctx, sess, func(v *Visitor) *[]string { return &v.Notes })
		fmt.Println(notes, err)
	}
	// Output:
	// [Your order was sent.] <nil>
	// [] <nil>
}

// A list of devices, and a button beside each that logs it out.
func ExampleManager_Revoke() {
	now := time.Date(2030, 1, 1, 9, 0, 0, 0, time.UTC)
	sessions, _ := newExampleSite(func() time.Time { return now })
	ctx := context.Background()
	for _, device := range []string{"phone", "laptop"} {
		_, err := sessions.Create(ctx, User{Name: "Ada"}, echosession.WithSubject("user-17"), echosession.WithDevice(device))
		if err != nil {
			panic(err)
		}
		now = now.Add(time.Hour)
	}

	show := func() []*echosession.Session[User] {
		list, err := sessions.List(ctx, "user-17")
		if err != nil {
			panic(err)
		}
		for _, s := range list {
			fmt.Println(s.Device(), "since", s.AuthenticatedAt().Format("15:04"), "last used", s.LastUsedAt().Format("15:04"))
		}
		return list
	}
	list := show()
	found, err := sessions.Revoke(ctx, "user-18", list[0].ID())
	fmt.Println("by another user:", found, err)
	found, err = sessions.Revoke(ctx, "user-17", list[0].ID())
	fmt.Println("by the user:", found, err)
	show()
	// Output:
	// phone since 09:00 last used 09:00
	// laptop since 10:00 last used 10:00
	// by another user: false <nil>
	// by the user: true <nil>
	// laptop since 10:00 last used 10:00
}

// A user who has two sessions gets no third one. The answer to the login then shows the
// devices of the user, and the form comes back with the password and one of them.
func ExampleConfig_refuseNew() {
	sessions, err := echosession.New[User](echosession.Config{
		Store:        echosession.NewMemoryStore(),
		Secret:       testSecret,
		Cookie:       &echosession.Cookie{},
		SubjectIndex: true,
		MaxSessions:  2,
		WhenFull:     echosession.RefuseNew,
	})
	if err != nil {
		panic(err)
	}
	e := echo.New()
	e.Use(sessions.Middleware())
	showDevices := func(c echo.Context, devices []*echosession.Session[User]) error {
		return c.String(http.StatusForbidden, fmt.Sprintf("log out one of %d devices", len(devices)))
	}
	e.POST("/login", sessions.With(func(c echo.Context, sess *echosession.Session[User]) error {
		ctx := c.Request().Context()
		user, err := checkPassword(c)
		if err != nil {
			return err
		}
		if id := c.FormValue("end"); id != "" {
			if _, err := sessions.Revoke(ctx, user.ID, id); err != nil {
				return err
			}
		}
		_, err = sess.Renew(ctx, nil, echosession.WithSubject(user.ID))
		if errors.Is(err, echosession.ErrTooManySessions) {
			list, err := sessions.List(ctx, user.ID)
			if err != nil {
				return err
			}
			return showDevices(c, list)
		}
		return err
	}))

	var oldest string
	for range 2 {
		sess, err := sessions.Create(context.Background(), User{Name: "Ada"}, echosession.WithSubject("user-17"))
		if err != nil {
			panic(err)
		}
		oldest = cmp.Or(oldest, sess.ID())
	}
	browser := visitor{e: e}
	fmt.Println(browser.send("POST", "/login"))
	fmt.Println(browser.send("POST", "/login?end="+oldest))
	// Output:
	// 403 log out one of 2 devices
	// 200
}

// Step-up: some pages ask for the password again when the login is too long ago.
func ExampleFresh_stepUp() {
	now := time.Now()
	sessions, e := newExampleSite(func() time.Time { return now })
	recent := sessions.Require(echosession.Fresh(5 * time.Minute))
	e.POST("/password", func(c echo.Context) error {
		return c.String(http.StatusOK, "changed")
	}, recent)
	e.POST("/confirm", sessions.With(func(c echo.Context, sess *echosession.Session[User]) error {
		if _, err := checkPassword(c); err != nil {
			return err
		}
		_, err := sess.Renew(c.Request().Context(), nil)
		if err != nil {
			return err
		}
		return c.NoContent(http.StatusNoContent)
	}), sessions.Require(echosession.Authenticated()))

	sess, err := sessions.Create(context.Background(), User{Name: "Ada"}, echosession.WithSubject("user-17"))
	if err != nil {
		panic(err)
	}
	browser := visitor{e, "__Host-session=" + sess.Token()}
	now = now.Add(10 * time.Minute)
	fmt.Println(browser.send("POST", "/password"))
	fmt.Println(browser.send("POST", "/confirm"))
	fmt.Println(browser.send("POST", "/password"))
	// Output:
	// 401 {"message":"a more recent login is required"}
	// 204
	// 200 changed
}

// Profile is what sessions hold in the newer of two releases. In the older one, Name was
// the only field.
type Profile struct {
	Name        string // of the older release, which still reads it during the deploy
	First, Last string
}

// MigrateSession brings a Profile of the older release up to date.
func (p *Profile) MigrateSession() error {
	if p.First == "" && p.Last == "" {
		p.First, p.Last, _ = strings.Cut(p.Name, " ")
	}
	return nil
}

// Sessions of an older release are brought up to date when they are read.
func ExampleNew_migrateSession() {
	cfg := echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret}
	ctx := context.Background()
	token := createWithTheOlderRelease(ctx, cfg)
	sessions, err := echosession.New[Profile](cfg)
	if err != nil {
		panic(err)
	}
	sess, err := sessions.Open(ctx, token)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%+v\n", sess.Data())
	// Output:
	// {Name:Ada Lovelace First:Ada Last:Lovelace}
}

func createWithTheOlderRelease(ctx context.Context, cfg echosession.Config) (token string) {
	type Profile struct{ Name string }
	sessions, err := echosession.New[Profile](cfg)
	if err != nil {
		panic(err)
	}
	sess, err := sessions.Create(ctx, Profile{Name: "Ada Lovelace"})
	if err != nil {
		panic(err)
	}
	return sess.Token()
}

// One service for browsers and apps: browsers send the cookie, and apps send the token
// that the login returned.
func ExampleConfig_bearerAndCookie() {
	sessions, err := echosession.New[User](echosession.Config{
		Store:       echosession.NewMemoryStore(),
		Secret:      testSecret,
		Cookie:      &echosession.Cookie{},
		TokenLookup: "bearer,cookie",
	})
	if err != nil {
		panic(err)
	}
	e := echo.New()
	e.Use(sessions.Middleware())
	e.POST("/login", sessions.With(func(c echo.Context, sess *echosession.Session[User]) error {
		_, err := sess.Renew(c.Request().Context(), func(u *User) error { u.Name = "Ada"; return nil },
			echosession.WithSubject("user-17"))
		return err
	}))
	e.POST("/api/login", sessions.With(func(c echo.Context, sess *echosession.Session[User]) error {
		token, err := sess.Create(c.Request().Context(), User{Name: "Ada"},
			echosession.WithSubject("user-17"), echosession.TokenOnly())
		if err != nil {
			return err
		}
		return c.String(http.StatusOK, token)
	}))
	e.GET("/me", sessions.With(func(c echo.Context, sess *echosession.Session[User]) error {
		return c.JSON(http.StatusOK, sess)
	}), sessions.Require())

	browser := visitor{e: e}
	browser.send("POST", "/login")
	_, token, _ := strings.Cut(ask(e, "POST", "/api/login", ""), " ")
	fmt.Println(browser.send("GET", "/me"))
	fmt.Println(ask(e, "GET", "/me", token))
	// Output:
	// 200 {"name":"Ada","count":0}
	// 200 {"name":"Ada","count":0}
}

// A stream of events that ends with the session and keeps no session alive.
func ExampleSession_Check() {
	sessions, e := newExampleSite(time.Now)
	var elsewhere func(second int) // what other requests do meanwhile
	e.GET("/events", sessions.With(func(c echo.Context, sess *echosession.Session[User]) error {
		ctx, w := c.Request().Context(), c.Response()
		w.Header().Set("Content-Type", "text/event-stream")
		for second := 1; ; second++ { // a ticker, in a real program
			elsewhere(second)
			if err := sess.Check(ctx); err != nil {
				return nil // the session has ended, or the store does not answer
			}
			fmt.Fprintf(w, "data: %d\n\n", second)
			w.Flush()
		}
	}), sessions.Require())

	sess, err := sessions.Create(context.Background(), User{Name: "Ada"})
	if err != nil {
		panic(err)
	}
	elsewhere = func(second int) {
		if second == 3 { // logs out
			if err := sess.Destroy(context.Background()); err != nil {
				panic(err)
			}
		}
	}
	fmt.Println(ask(e, "GET", "/events", sess.Token()))
	// Output:
	// 200 data: 1
	//
	// data: 2
}

// A member of the support staff acts in the place of a customer. What may not be done in
// somebody's place is refused.
func ExampleWithActor() {
	sessions, e := newExampleSite(time.Now)
	isStaff := func(subject string) bool { return strings.HasPrefix(subject, "staff-") }
	e.POST("/support/:customer", sessions.With(func(c echo.Context, sess *echosession.Session[User]) error {
		customer := c.Param("customer")
		if !isStaff(sess.Subject()) || sess.Actor() != "" || isStaff(customer) {
			return echo.ErrForbidden
		}
		_, err := sess.Renew(c.Request().Context(), nil,
			echosession.WithSubject(customer), echosession.WithActor(sess.Subject()),
			echosession.WithClaims(echosession.Claims{"exp": time.Now().Add(15 * time.Minute)}))
		return err
	}), sessions.Require(echosession.Fresh(5*time.Minute)))
	e.POST("/orders", sessions.With(func(c echo.Context, sess *echosession.Session[User]) error {
		if sess.Actor() != "" {
			return echo.NewHTTPError(http.StatusForbidden, sess.Actor()+" cannot order for "+sess.Subject())
		}
		return c.NoContent(http.StatusCreated)
	}), sessions.Require())

	sess, err := sessions.Create(context.Background(), User{Name: "Sue"}, echosession.WithSubject("staff-3"))
	if err != nil {
		panic(err)
	}
	browser := visitor{e, "__Host-session=" + sess.Token()}
	fmt.Println(browser.send("POST", "/support/user-17"))
	fmt.Println(browser.send("POST", "/orders"))
	fmt.Println(browser.send("POST", "/support/user-18"))
	// Output:
	// 200
	// 403 {"message":"staff-3 cannot order for user-17"}
	// 403 {"message":"Forbidden"}
}

// A service that cannot reach its Redis says so when it starts, and not to its first
// user.
func ExampleManager_Ping() {
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", ContextTimeoutEnabled: true})
	defer rdb.Close()
	sessions, err := echosession.New[User](echosession.Config{Client: rdb, Secret: testSecret})
	if err != nil {
		panic(err)
	}
	if err := sessions.Ping(context.Background()); err != nil {
		fmt.Println("cannot start:", errors.Is(err, echosession.ErrStoreUnavailable))
	}
	// Output:
	// cannot start: true
}
