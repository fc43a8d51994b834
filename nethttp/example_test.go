package nethttp_test

import (
	"cmp"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/echosessiontest"
	"github.com/echosession/echosession/nethttp"
)

// A Visitor is what a session of the examples holds.
type Visitor struct{ Name string }

// loginURL and wantsPage are those of the example of [echosession.Manager.Answer].
func loginURL(r *http.Request) string {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return "/login"
	}
	return "/login?next=" + url.QueryEscape(r.URL.RequestURI())
}

func wantsPage(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

// newPages is a site of pages with an API on the same sessions.
func newPages(sessions *echosession.Manager[Visitor]) http.Handler {
	answerError := func(w http.ResponseWriter, r *http.Request, err error) {
		answer, ours := sessions.Answer(err)
		if !ours {
			answer = echosession.Answer{Status: http.StatusInternalServerError, Message: "internal server error"}
		}
		answer.AddTo(w.Header())
		switch {
		case !wantsPage(r):
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(answer.Status)
			fmt.Fprintf(w, "{\"message\":%q}\n", answer.Message)
		case answer.Status == http.StatusUnauthorized:
			http.Redirect(w, r, loginURL(r), http.StatusSeeOther)
		default:
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			w.WriteHeader(answer.Status)
			fmt.Fprintf(w, "<p>Sorry: %s.</p>", answer.Message)
		}
	}

	mux := http.NewServeMux()
	mux.Handle("/account", nethttp.Require(sessions)(nethttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		sess, err := nethttp.Get[Visitor](r)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "Hello, %s!", sess.Data().Name)
		return err
	})))
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<form>") })
	mux.Handle("GET /broken", nethttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
		return http.ErrBodyNotAllowed // or another error that is not of echosession
	}))
	return nethttp.Middleware(sessions, nethttp.WithErrorHandler(answerError))(mux)
}

// An application with pages sends a person who has to log in to its login page. Its
// API keeps the answers in JSON.
func ExampleWithErrorHandler() {
	sessions, err := echosession.New[Visitor](echosession.Config{
		Store:  echosession.NewMemoryStore(),
		Secret: []byte("0123456789abcdef0123456789abcdef"),
	})
	if err != nil {
		panic(err)
	}
	server := newPages(sessions)
	for _, accept := range []string{"text/html,*/*;q=0.8", "*/*"} {
		r := httptest.NewRequest(http.MethodPost, "/account", nil)
		r.Header.Set("Accept", accept)
		rec := httptest.NewRecorder()
		server.ServeHTTP(rec, r)
		fmt.Println(rec.Code, cmp.Or(rec.Header().Get("Location"), strings.TrimSpace(rec.Body.String())))
	}
	// Output:
	// 303 /login
	// 401 {"message":"authentication is required"}
}

func TestErrorsBecomePages(t *testing.T) {
	h := echosessiontest.New[Visitor](t, func(cfg *echosession.Config) { cfg.Cookie = &echosession.Cookie{} })
	b := h.Browser(newPages(h.Manager))
	if page := b.Get("/account?tab=2"); page.Code != http.StatusOK || page.URL != "/login?next=%2Faccount%3Ftab%3D2" {
		t.Errorf("a stranger gets %d of %s", page.Code, page.URL)
	}
	api := b.Fetch(httptest.NewRequest(http.MethodGet, "/account", nil))
	if api.Code != http.StatusUnauthorized || api.Body.String() != "{\"message\":\"authentication is required\"}\n" || api.Header().Get("WWW-Authenticate") == "" {
		t.Errorf("a script gets %d, %v: %s", api.Code, api.Header(), api.Body)
	}
	b.Login(Visitor{Name: "Ada"})
	if page := b.Get("/account"); page.Body.String() != "Hello, Ada!" {
		t.Errorf("after the login: %d: %s", page.Code, page.Body)
	}
	h.Store.FailNext(1, nil)
	if page := b.Get("/account"); page.Code != http.StatusServiceUnavailable || page.Header().Get("Retry-After") == "" ||
		page.Body.String() != "<p>Sorry: the service is temporarily unavailable.</p>" {
		t.Errorf("during an outage: %d, %v: %s", page.Code, page.Header(), page.Body)
	}
	if page := b.Get("/broken"); page.Code != http.StatusInternalServerError || page.Body.String() != "<p>Sorry: internal server error.</p>" {
		t.Errorf("another error: %d: %s", page.Code, page.Body)
	}
}
