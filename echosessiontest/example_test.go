package echosessiontest_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
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
	h.Authorize(r, User{Name: "Ada"})
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
	h.Authorize(r, User{Name: "Ada"})
	fmt.Print(h.Serve(server, r).Body)
	h.Store.FailNext(1, nil)
	fmt.Print(h.Serve(server, r).Body)
	// Output:
	// Ada
	// {"message":"the service is temporarily unavailable"}
}

func ExampleHarness_NewContext() {
	t := newT()
	defer t.end()

	h := echosessiontest.New[User](t)
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	sess := h.Authorize(r, User{Name: "Ada"})

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
	h.Authorize(r, User{Name: "Ada"})
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
}

func newT() *exampleT { return new(exampleT) }

func (*exampleT) Helper()             {}
func (*exampleT) Fatal(args ...any)   { panic(fmt.Sprint(args...)) }
func (t *exampleT) Cleanup(fn func()) { t.cleanups = append(t.cleanups, fn) }

func (t *exampleT) end() {
	for _, cleanup := range t.cleanups {
		cleanup()
	}
}
