package echosessiontest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/echosessiontest"
	"github.com/echosession/echosession/nethttp"
)

type User struct {
	Name   string `json:"name"`
	Visits int    `json:"visits"`
}

// visit is the handler that the examples test.
func visit(c echo.Context) error {
	sess, err := echosession.Get[User](c)
	if err != nil {
		return err
	}
	err = sess.Update(c.Request().Context(), func(a *User) error { a.Visits++; return nil })
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, sess)
}

func Example() {
	t := newT() // in a test, its *testing.T
	defer t.end()

	h := echosessiontest.New[User](t)
	e := echo.New()
	e.Use(h.Manager.Middleware())
	e.POST("/visit", visit, h.Manager.Require())

	r := httptest.NewRequest(http.MethodPost, "/visit", nil)
	h.Login(r, User{Name: "Ada"})
	rec := h.Serve(e, r)
	fmt.Print(rec.Code, " ", rec.Body)
	// Output:
	// 200 {"name":"Ada","visits":1}
}

// ExampleHarness_Serve tests a handler of net/http. With Echo v5 the server is an
// Echo that has echov5.Install(h.Manager).
func ExampleHarness_Serve() {
	t := newT()
	defer t.end()

	h := echosessiontest.New[User](t)
	mux := http.NewServeMux()
	mux.Handle("GET /name", nethttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		sess, err := nethttp.Get[User](r)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(w, sess.Data().Name)
		return err
	}))
	server := nethttp.Middleware(h.Manager)(mux)

	r := httptest.NewRequest(http.MethodGet, "/name", nil)
	h.Login(r, User{Name: "Ada"})
	fmt.Print(h.Serve(server, r).Body)
	h.Store.FailNext(1, nil)
	fmt.Print(h.Serve(server, r).Body)
	// Output:
	// Ada
	// {"message":"the service is temporarily unavailable"}
}

// An application often makes its own Manager: hand it the Config of the kit.
func ExampleHarness_Config() {
	t := newT()
	defer t.end()

	h := echosessiontest.New[User](t)
	shop, sessions := newShop(h.Config())
	h.Manager = sessions // so that Login knows what newShop has set

	r := httptest.NewRequest(http.MethodGet, "/", nil)
	h.Login(r, User{Name: "Ada"})
	fmt.Print(h.Serve(shop, r).Body)
	// Output:
	// Hello, Ada! Visits: 0.
}

func ExampleBrowser() {
	t := newT()
	defer t.end()

	h := echosessiontest.New[User](t)
	shop, _ := newShop(h.Config())
	b := h.Browser(shop)
	page := b.PostForm("/login", url.Values{"name": {"Ada"}})
	fmt.Print(page.URL, ": ", page.Body)

	fmt.Println("another site:", b.From("https://evil.example").PostForm("/logout", nil).Code)
	h.Clock.Advance(time.Hour)
	fmt.Print("an hour later: ", b.Get("/").Body)
	// Output:
	// /: Hello, Ada! Visits: 0.
	// another site: 403
	// an hour later: Hello, guest!
}

func ExampleHarness_NewContext() {
	t := newT()
	defer t.end()

	h := echosessiontest.New[User](t)
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	sess := h.Login(r, User{Name: "Ada"})

	c, rec := h.NewContext(r)
	fmt.Println(visit(c), rec.Code)
	fmt.Println(sess.Reload(r.Context()), sess.Data().Visits)

	c, _ = h.NewContext(httptest.NewRequest(http.MethodPost, "/", nil))
	fmt.Println(errors.Is(visit(c), echosession.ErrNoSession))
	// Output:
	// <nil> 200
	// <nil> 1
	// true
}

func ExampleHarness_Run() {
	t := newT()
	defer t.end()

	h := echosessiontest.New[User](t)
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	h.Login(r, User{Name: "Ada"})
	fmt.Println("live:", h.Run(visit, r).Code)

	h.Store.FailNext(1, nil)
	fmt.Println("store down:", h.Run(visit, r).Code)

	h.Clock.Advance(25 * time.Hour)
	fmt.Println("expired:", h.Run(visit, r).Code)
	// Output:
	// live: 200
	// store down: 503
	// expired: 401
}

// exampleT stands for the *testing.T that an example does not have.
type exampleT struct {
	testing.TB
	cleanups []func()
	log      bytes.Buffer
}

func newT() *exampleT { return new(exampleT) }

func (*exampleT) Helper()                           {}
func (t *exampleT) Output() io.Writer               { return &t.log }
func (t *exampleT) Logf(format string, args ...any) { fmt.Fprintf(&t.log, format+"\n", args...) }
func (*exampleT) Fatal(args ...any)                 { panic(fmt.Sprint(args...)) }
func (t *exampleT) Cleanup(fn func())               { t.cleanups = append(t.cleanups, fn) }

func (t *exampleT) end() {
	for _, cleanup := range t.cleanups {
		cleanup()
	}
}
