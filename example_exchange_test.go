package echosession_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/echosession/echosession"
)

// The web framework of this example. Yours looks otherwise.
type (
	Context struct {
		Request *http.Request
		Writer  *Writer
		Values  map[string]any
	}
	Handler    func(*Context) error
	Middleware func(Handler) Handler
	HTTPError  struct {
		Status  int
		Message string
	}
)

func (e *HTTPError) Error() string { return e.Message }

// A Writer knows when it sends the header.
type Writer struct {
	http.ResponseWriter
	sent   bool
	before []func()
}

func (w *Writer) WriteHeader(status int) {
	if status >= 200 && !w.sent {
		w.sent = true
		for _, f := range w.before {
			f()
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *Writer) Write(p []byte) (int, error) {
	if !w.sent {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(p)
}

func (h Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &Context{r, &Writer{ResponseWriter: w}, make(map[string]any)}
	err := h(c)
	if err == nil || c.Writer.sent {
		return
	}
	form := &HTTPError{http.StatusInternalServerError, "Internal Server Error"}
	errors.As(err, &form)
	if r.Method == http.MethodHead {
		c.Writer.WriteHeader(form.Status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	c.Writer.WriteHeader(form.Status)
	_ = json.NewEncoder(c.Writer).Encode(map[string]string{"message": form.Message})
}

// The adapter begins here. An exchange shows a Context as an Exchange.
type contextExchange struct{ c *Context }

func (x contextExchange) Request() *http.Request   { return x.c.Request }
func (x contextExchange) Header() http.Header      { return x.c.Writer.Header() }
func (x contextExchange) Committed() bool          { return x.c.Writer.sent }
func (x contextExchange) BeforeHeader(f func())    { x.c.Writer.before = append(x.c.Writer.before, f) }
func (x contextExchange) Param(name string) string { return x.c.Request.PathValue(name) }

// Install is middleware that installs a session of m in each request.
func Install[T any](m *echosession.Manager[T]) Middleware {
	if fields := m.EchoV4Fields(); len(fields) > 0 {
		panic(fmt.Sprintf("Echo v4 alone honours %v", fields))
	}
	key := m.RequestKey()
	return func(next Handler) Handler {
		return func(c *Context) error {
			if installed, err := m.Installed(c.Values[key]); err != nil {
				return answerError(m, c, err)
			} else if installed {
				return next(c)
			}
			b := m.Bind(contextExchange{c})
			defer b.Release()
			c.Values[key] = b
			return answerError(m, c, next(c))
		}
	}
}

// Get returns the session of a request.
func Get[T any](c *Context, requestKey ...string) (*echosession.Session[T], error) {
	key := echosession.RequestKeyOf()
	if len(requestKey) > 0 {
		key = requestKey[0]
	}
	return echosession.Find[T](c.Values[key], key)
}

// With makes a handler of a function that needs the session.
func With[T any](h func(c *Context, sess *echosession.Session[T]) error, requestKey ...string) Handler {
	return func(c *Context) error {
		sess, err := Get[T](c, requestKey...)
		if err != nil {
			return err
		}
		return h(c, sess)
	}
}

// Require is middleware for routes that need a live session.
func Require[T any](opts ...echosession.RequireOption) Middleware {
	key := echosession.RequestKeyOf(opts...)
	return func(next Handler) Handler {
		return func(c *Context) error {
			sess, err := echosession.Find[T](c.Values[key], key, opts...)
			if err == nil {
				err = sess.Meets(opts...)
			}
			if err != nil {
				return err
			}
			return next(c)
		}
	}
}

// answerError gives the errors of package echosession their HTTP form.
func answerError[T any](m *echosession.Manager[T], c *Context, err error) error {
	a, ours := m.Answer(err)
	if !ours || c.Writer.sent {
		return err
	}
	a.AddTo(c.Writer.Header())
	return &HTTPError{a.Status, a.Message}
}

// This is a whole adapter, with a small web framework in front of it. Package
// adaptertest checks adapters.
func ExampleExchange() {
	type Account struct{ Name string }
	sessions, err := echosession.New[Account](echosession.Config{
		Store:  echosession.NewMemoryStore(),
		Secret: []byte("0123456789abcdef0123456789abcdef"),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	hello := With(func(c *Context, sess *echosession.Session[Account]) error {
		_, err := fmt.Fprintf(c.Writer, "Hello, %s!\n", sess.Data().Name)
		return err
	})
	server := Install(sessions)(Require[Account]()(hello))

	r := httptest.NewRequest(http.MethodGet, "/", nil)
	rec := httptest.NewRecorder()
	server.ServeHTTP(rec, r)
	fmt.Print(rec.Code, " ", rec.Body)

	sess, err := sessions.Create(r.Context(), Account{Name: "Ada"})
	if err != nil {
		fmt.Println(err)
		return
	}
	r.Header.Set("Authorization", "Bearer "+sess.Token())
	rec = httptest.NewRecorder()
	server.ServeHTTP(rec, r)
	fmt.Print(rec.Code, " ", rec.Body)
	// Output:
	// 401 {"message":"authentication is required"}
	// 200 Hello, Ada!
}
