package echosession_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

// backendWords is what a store says and nobody else may: it names an address and
// a key.
const backendWords = "OOM command not allowed, 10.9.8.7:6379 sess:secret-key"

// answers is the table of errors and their HTTP form.
var answers = []struct {
	err       error
	status    int
	challenge string
	message   string
	retry     string
}{
	{err: echosession.ErrNoToken, status: 401, challenge: `Bearer realm="session"`, message: "authentication is required"},
	{err: echosession.ErrAmbiguousToken, status: 400, challenge: `Bearer realm="session", error="invalid_request", error_description="more than one token in the request"`, message: "more than one token in the request"},
	{err: echosession.ErrInvalidToken, status: 401, challenge: `Bearer realm="session", error="invalid_token", error_description="the session is invalid or has ended"`, message: "the session is invalid or has ended"},
	{err: echosession.ErrSessionGone, status: 401, challenge: `Bearer realm="session", error="invalid_token", error_description="the session is invalid or has ended"`, message: "the session is invalid or has ended"},
	{err: echosession.ErrCorrupt, status: 401, challenge: `Bearer realm="session", error="invalid_token", error_description="the session is invalid or has ended"`, message: "the session is invalid or has ended"},
	{err: echosession.ErrNotFresh, status: 401, challenge: `Bearer realm="session", error="insufficient_user_authentication", error_description="a more recent login is required"`, message: "a more recent login is required"},
	{err: echosession.ErrCrossOrigin, status: 403, message: "cross-origin request refused"},
	{err: echosession.ErrNoSession, status: 401, challenge: `Bearer realm="session"`, message: "authentication is required"},
	{err: echosession.ErrConflict, status: 409, message: "the session was changed by another request"},
	{err: echosession.ErrReservedClaim, status: 500, message: "internal server error"},
	{err: echosession.ErrTooLarge, status: 500, message: "internal server error"},
	{err: echosession.ErrStoreUnavailable, status: 503, message: "the service is temporarily unavailable", retry: "1"},
	{err: echosession.ErrIndeterminate, status: 503, message: "the service is temporarily unavailable", retry: "1"},
	{err: echosession.ErrNotReplicated, status: 503, message: "the service is temporarily unavailable", retry: "1"},
	{err: echosession.ErrNotInstalled, status: 500, message: "internal server error"},
	{err: echosession.ErrTypeMismatch, status: 500, message: "internal server error"},
	{err: echosession.ErrRequestOver, status: 500, message: "internal server error"},
}

// checkAnswer compares an answer with the row of an error.
func checkAnswer(t *testing.T, a answer, err error) {
	t.Helper()
	for _, row := range answers {
		if row.err != err {
			continue
		}
		if a.StatusCode != row.status || a.message(t) != row.message {
			t.Errorf("%d %s, want %d %q", a.StatusCode, a.body, row.status, row.message)
		}
		var challenges []string
		if row.challenge != "" {
			challenges = []string{row.challenge}
		}
		got := a.Header["Www-Authenticate"]
		if err == echosession.ErrNotFresh && len(got) == 1 {
			got = []string{strings.TrimSuffix(got[0], `, max_age="60"`)}
		}
		if !slices.Equal(got, challenges) {
			t.Errorf("WWW-Authenticate: %q, want %q", got, challenges)
		}
		if got := a.Header.Get("Retry-After"); got != row.retry {
			t.Errorf("Retry-After: %q, want %q", got, row.retry)
		}
		return
	}
	t.Fatalf("no row for %v", err)
}

func TestErrorsThatHandlersReturn(t *testing.T) {
	for _, row := range answers {
		t.Run(strings.TrimPrefix(row.err.Error(), "echosession: "), func(t *testing.T) {
			m := newManager[User](t, mistaken(func(*echosession.Config) {}))
			s := newServer(t, m.Middleware())
			s.GET("/plain", func(echo.Context) error { return row.err })
			s.GET("/wrapped", func(echo.Context) error {
				return fmt.Errorf("load cart: %w", fmt.Errorf("open session: %w", row.err))
			})
			s.GET("/joined", func(echo.Context) error { return errors.Join(errors.New("something else"), row.err) })
			for _, path := range []string{"/plain", "/wrapped", "/joined"} {
				checkAnswer(t, s.get(t, path, ""), row.err)
			}
		})
	}
}

// After a login by another request, UpdateOrCreate is answered with 409 and not with 401:
// the client has a newer token by now, or is about to get it.
func TestGuestAfterRenewIsAnsweredWithConflict(t *testing.T) {
	m := newManager[User](t, echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret})
	s := newServer(t, m.Middleware())
	s.POST("/add", func(c echo.Context) error {
		sess, err := m.Get(c)
		if err != nil {
			return err
		}
		return sess.UpdateOrCreate(c.Request().Context(), func(u *User) error { u.Name = "guest"; return nil })
	})
	sess, err := m.Create(t.Context(), User{Name: "guest"})
	if err != nil {
		t.Fatal(err)
	}
	old := sess.Token()
	if _, err := sess.Renew(t.Context(), func(*User) error { return nil }, echosession.WithSubject("ada")); err != nil {
		t.Fatal(err)
	}
	checkAnswer(t, s.post(t, "/add", old), echosession.ErrConflict)
}

// TestErrorsInEarnest lets requests and handlers meet the errors for real.
func TestErrorsInEarnest(t *testing.T) {
	clock, fake, log := newClock(), newFakeRedis(t), new(logBuffer)
	fake.now = clock.Now
	cfg := echosession.Config{
		Client: fake, Secret: testSecret, Cookie: &echosession.Cookie{}, MaxRecordSize: 1 << 10,
		TouchInterval: echosession.TouchAlways, Now: clock.Now, Logger: log.logger(),
	}
	m := newManager[User](t, cfg)
	s := newServer(t, m.Middleware())
	s.Debug = true // then Echo's answers hold the errors' text
	ok := func(c echo.Context) error { return c.NoContent(http.StatusNoContent) }
	s.Any("/require", ok, m.Require())
	s.Any("/fresh", ok, m.Require(echosession.Fresh(time.Minute)))
	returns := func(path string, fn func(context.Context, echo.Context, *echosession.Session[User]) error) {
		route(s, m, path, func(c echo.Context, sess *echosession.Session[User]) error {
			return fn(c.Request().Context(), c, sess)
		})
	}
	returns("/reason", func(_ context.Context, _ echo.Context, sess *echosession.Session[User]) error { return sess.Reason() })
	returns("/update", func(ctx context.Context, _ echo.Context, sess *echosession.Session[User]) error {
		return sess.Update(ctx, func(u *User) error { u.Count++; return nil })
	})
	returns("/grow", func(ctx context.Context, _ echo.Context, sess *echosession.Session[User]) error {
		return sess.Update(ctx, func(u *User) error { u.Name = strings.Repeat("x", 2<<10); return nil })
	})
	returns("/reserved", func(ctx context.Context, _ echo.Context, sess *echosession.Session[User]) error {
		_, err := sess.Create(ctx, User{}, echosession.WithClaims(echosession.Claims{"jti": "mine"}))
		return err
	})
	returns("/no-instance", func(_ context.Context, c echo.Context, _ *echosession.Session[User]) error {
		_, err := echosession.Get[User](c, "other")
		return err
	})
	returns("/type", func(_ context.Context, c echo.Context, _ *echosession.Session[User]) error {
		_, err := echosession.Get[int](c)
		return err
	})

	var session *echosession.Session[User]
	bearer := func(method, path string) func() *http.Request {
		return func() *http.Request {
			return s.request(t, method, path, "", "Authorization", "Bearer "+session.Token())
		}
	}
	store := storeOf(t, cfg)
	type test struct {
		name    string
		prepare func()
		request func() *http.Request
		want    error
		says    string // the log says
	}
	var tests []test
	for _, path := range []string{"/require", "/reason"} {
		tests = append(tests,
			test{name: "no token", want: echosession.ErrNoToken,
				request: func() *http.Request { return s.request(t, "GET", path, "") }},
			test{name: "two tokens", want: echosession.ErrAmbiguousToken,
				request: func() *http.Request {
					return s.request(t, "GET", path+"?accessToken=other", "", "Authorization", "Bearer "+session.Token())
				}},
			test{name: "bad token", want: echosession.ErrInvalidToken,
				request: func() *http.Request { return s.request(t, "GET", path+"?accessToken="+session.Token()+"x", "") }},
			test{name: "destroyed session", want: echosession.ErrSessionGone, request: bearer("GET", path),
				prepare: func() {
					if err := store.Delete(t.Context(), echosession.Ref{ID: session.ID()}); err != nil {
						t.Fatal(err)
					}
				}},
			test{name: "damaged record", want: echosession.ErrCorrupt, request: bearer("GET", path), says: "level=WARN",
				prepare: func() { overwrite(t, store, session.ID(), []byte("no record")) }},
			test{name: "another session's record", want: echosession.ErrStoreUnavailable, request: bearer("GET", path), says: "reply of another command",
				prepare: func() {
					other, err := m.Create(t.Context(), User{Name: "Eve"})
					if err != nil {
						t.Fatal(err)
					}
					record, err := store.Load(t.Context(), echosession.Ref{ID: other.ID()}, 0)
					if err != nil {
						t.Fatal(err)
					}
					overwrite(t, store, session.ID(), record)
				}},
			test{name: "cookie from elsewhere", want: echosession.ErrCrossOrigin,
				request: func() *http.Request {
					return s.request(t, "POST", path, "", "Cookie", "__Host-session="+session.Token(), "Sec-Fetch-Site", "cross-site")
				}},
			test{name: "store refuses", want: echosession.ErrStoreUnavailable, request: bearer("GET", path), says: "refused: OOM",
				prepare: func() { fake.onCommand(func([]string) error { return fakeReply(backendWords) }, nil) }},
			test{name: "store breaks off", want: echosession.ErrStoreUnavailable, request: bearer("GET", path), says: "connection closed",
				prepare: func() {
					fake.onCommand(func([]string) error { return fmt.Errorf("%s: %w", backendWords, io.EOF) }, nil)
				}},
		)
	}
	tests = append(tests,
		test{name: "login long ago", want: echosession.ErrNotFresh, request: bearer("GET", "/fresh"),
			prepare: func() { clock.Advance(2 * time.Minute) }},
		test{name: "update without token", want: echosession.ErrNoSession,
			request: func() *http.Request { return s.request(t, "POST", "/update", "") }},
		test{name: "update of a session that is gone", want: echosession.ErrSessionGone, request: bearer("POST", "/update"),
			prepare: func() {
				if err := store.Delete(t.Context(), echosession.Ref{ID: session.ID()}); err != nil {
					t.Fatal(err)
				}
			}},
		test{name: "reply to a write is lost", want: echosession.ErrIndeterminate, request: bearer("POST", "/update"), says: "connection closed",
			prepare: func() {
				n := 0
				fake.onCommand(nil, func([]string) error {
					if n++; n > 1 { // the first is the read
						return fmt.Errorf("%s: %w", backendWords, io.ErrUnexpectedEOF)
					}
					return nil
				})
			}},
		test{name: "struct too large", want: echosession.ErrTooLarge, request: bearer("POST", "/grow"), says: "too large"},
		test{name: "reserved claim", want: echosession.ErrReservedClaim, request: bearer("POST", "/reserved"), says: "reserved claim"},
		test{name: "no such instance", want: echosession.ErrNotInstalled, request: bearer("POST", "/no-instance")},
		test{name: "another type", want: echosession.ErrTypeMismatch, request: bearer("POST", "/type"), says: "holds sessions of"},
	)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fake.onCommand(nil, nil)
			clock.Advance(time.Second) // equal failures are logged once a second
			var err error
			if session, err = m.Create(t.Context(), User{Name: "Ada"}); err != nil {
				t.Fatal(err)
			}
			id, token := session.ID(), session.Token()
			if tt.prepare != nil {
				tt.prepare()
			}
			before := len(log.String())
			r := tt.request()
			a := s.do(t, r)
			checkAnswer(t, a, tt.want)
			said := log.String()[before:]
			if (said != "") != (tt.says != "") || !strings.Contains(said, tt.says) {
				t.Errorf("the log says %q, want %q", said, tt.says)
			}
			_, signature, _ := strings.Cut(token[strings.IndexByte(token, '.')+1:], ".")
			for _, secret := range []string{token, signature, id, "sess:", "10.9.8.7", "Ada", "Eve"} {
				for where, text := range map[string]string{"answer": a.body + fmt.Sprint(a.Header), "log": said} {
					if strings.Contains(text, secret) {
						t.Errorf("the %s holds %q: %s", where, secret, text)
					}
				}
			}
		})
	}
}

// overwrite puts a record in the place of a session's.
func overwrite(t testing.TB, store echosession.Store, id string, record []byte) {
	t.Helper()
	ref := echosession.Ref{ID: id}
	if err := store.Delete(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Create(t.Context(), ref, record, time.Hour, echosession.Limit{}); err != nil {
		t.Fatal(err)
	}
}

func TestFreshChallengeNamesTheAge(t *testing.T) {
	clock := newClock()
	m := newManager[User](t, mistaken(func(c *echosession.Config) { c.Now = clock.Now }))
	s := newServer(t, m.Middleware())
	s.GET("/", func(c echo.Context) error { return c.NoContent(http.StatusOK) }, m.Require(echosession.Fresh(time.Minute)))
	token := newToken(t, m, "Ada")
	clock.Advance(time.Minute)
	if a := s.get(t, "/", token); a.StatusCode != http.StatusOK {
		t.Error(a.StatusCode, a.body)
	}
	clock.Advance(time.Second)
	if a := s.get(t, "/", token); !strings.HasSuffix(a.Header.Get("WWW-Authenticate"), `, max_age="60"`) {
		t.Error(a.StatusCode, a.Header)
	}
}

func TestInvalidGoneAndCorruptLookAlike(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		m := newManager[User](t, cfg)
		s := newServer(t, m.Middleware())
		s.GET("/", func(c echo.Context) error { return c.NoContent(http.StatusOK) }, m.Require())
		gone, corrupt := newToken(t, m, "Ada"), newToken(t, m, "Ada")
		sess, err := m.Open(t.Context(), gone)
		if err != nil {
			t.Fatal(err)
		}
		if err := sess.Destroy(t.Context()); err != nil {
			t.Fatal(err)
		}
		if sess, err = m.Open(t.Context(), corrupt); err != nil {
			t.Fatal(err)
		}
		overwrite(t, storeOf(t, cfg), sess.ID(), []byte("no record"))
		invalid := s.get(t, "/", "no token")
		for _, token := range []string{gone, corrupt} {
			a := s.get(t, "/", token)
			if a.StatusCode != invalid.StatusCode || a.body != invalid.body || a.Header.Get("WWW-Authenticate") != invalid.Header.Get("WWW-Authenticate") {
				t.Errorf("%d %s %v", a.StatusCode, a.body, a.Header)
			}
		}
		if !stored(t, cfg, sess.ID()) {
			t.Error("the record that cannot be read was deleted")
		}
	})
}

// talkative is a store that says too much.
type talkative struct{ echosession.Store }

func (talkative) Load(context.Context, echosession.Ref, time.Duration) ([]byte, error) {
	return nil, fmt.Errorf("%w: %s", echosession.ErrStoreUnavailable, backendWords)
}

func (talkative) Create(context.Context, echosession.Ref, []byte, time.Duration, echosession.Limit) ([]string, error) {
	return nil, fmt.Errorf("%w: %s", echosession.ErrIndeterminate, backendWords)
}

func (talkative) Delete(context.Context, echosession.Ref) error { return errors.New(backendWords) }

func TestAStoresWordsStayWithinErrorsAs(t *testing.T) {
	log := new(logBuffer)
	good := newManager[User](t, mistaken(func(*echosession.Config) {}))
	bad := newManager[User](t, mistaken(func(c *echosession.Config) { c.Store, c.Logger = talkative{c.Store}, log.logger() }))
	_, loadErr := bad.Open(t.Context(), newToken(t, good, "Ada"))
	_, createErr := bad.Create(t.Context(), User{})
	for _, tt := range []struct{ err, want error }{
		{loadErr, echosession.ErrStoreUnavailable},
		{createErr, echosession.ErrIndeterminate},
	} {
		if !errors.Is(tt.err, tt.want) || strings.Contains(tt.err.Error(), backendWords) {
			t.Errorf("%v, want %v", tt.err, tt.want)
		}
	}
	if errors.Is(loadErr, echosession.ErrIndeterminate) {
		t.Error("a failed read has an unknown outcome")
	}
	if said := log.String(); strings.Contains(said, backendWords) || strings.Count(said, "level=ERROR") != 2 {
		t.Errorf("the log says %q", said)
	}
}

func TestErrorHandlerReplacesTheAnswer(t *testing.T) {
	var got error
	m := newManager[User](t, mistaken(func(c *echosession.Config) {
		c.ErrorHandler = func(c echo.Context, err error) error {
			got = err
			return c.Redirect(http.StatusSeeOther, "/login")
		}
	}))
	s := newServer(t, m.Middleware())
	s.GET("/private", func(echo.Context) error { return nil }, m.Require())
	s.GET("/other", func(echo.Context) error { return errors.New("another error") })
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Get(s.url + "/private")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("WWW-Authenticate") != "" || !errors.Is(got, echosession.ErrNoToken) {
		t.Error(resp.StatusCode, resp.Header, got)
	}
	got = nil
	if a := s.get(t, "/other", ""); a.StatusCode != http.StatusInternalServerError || got != nil {
		t.Error(a.StatusCode, got)
	}
}

func TestErrorsOfOthersPassUntouched(t *testing.T) {
	m := newManager[User](t, mistaken(func(*echosession.Config) {}))
	teapot := echo.NewHTTPError(http.StatusTeapot, "short and stout")
	for name, want := range map[string]error{
		"an HTTP error":                       teapot,
		"an HTTP error around one of ours":    echo.NewHTTPError(http.StatusBadRequest, "no").SetInternal(echosession.ErrSessionGone),
		"a wrapped HTTP error beside ours":    fmt.Errorf("%w, %w", teapot, echosession.ErrStoreUnavailable),
		"another error":                       errors.New("disk full"),
		"no error":                            nil,
		"an error with the text of a session": errors.New(echosession.ErrSessionGone.Error()),
	} {
		t.Run(name, func(t *testing.T) {
			var got error
			outer := func(next echo.HandlerFunc) echo.HandlerFunc {
				return func(c echo.Context) error { got = next(c); return got }
			}
			s := newServer(t, outer, m.Middleware())
			s.GET("/", func(echo.Context) error { return want })
			a := s.get(t, "/", "")
			if got != want || a.Header.Get("WWW-Authenticate")+a.Header.Get("Retry-After") != "" {
				t.Errorf("%v, want %v; %v", got, want, a.Header)
			}
		})
	}
}

func TestTheErrorStaysInsideTheAnswer(t *testing.T) {
	m := newManager[User](t, mistaken(func(*echosession.Config) {}))
	var got error
	outer := func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error { got = next(c); return got }
	}
	s := newServer(t, outer, m.Middleware())
	s.GET("/", func(echo.Context) error { return nil }, m.Require())
	s.get(t, "/", "bad")
	if !errors.Is(got, echosession.ErrInvalidToken) {
		t.Errorf("middleware around it cannot tell what %v is", got)
	}
}

func TestNestedInstancesAnswerOnce(t *testing.T) {
	asked := 0
	outer := newManager[User](t, mistaken(func(c *echosession.Config) {
		c.ErrorHandler = func(_ echo.Context, err error) error { asked++; return err }
	}))
	inner := newManager[string](t, mistaken(func(c *echosession.Config) { c.RequestKey, c.RequestArg = "admin", "adminToken" }))
	for name, order := range map[string][]echo.MiddlewareFunc{
		"inner answers": {outer.Middleware(), inner.Middleware()},
		"no handler":    {newManager[User](t, mistaken(func(*echosession.Config) {})).Middleware(), inner.Middleware()},
	} {
		s := newServer(t, order...)
		s.GET("/", func(echo.Context) error { return nil }, inner.Require())
		a := s.get(t, "/", "")
		if want := []string{`Bearer realm="admin"`}; a.StatusCode != 401 || !slices.Equal(a.Header["Www-Authenticate"], want) {
			t.Errorf("%s: %d %q, want %q", name, a.StatusCode, a.Header["Www-Authenticate"], want)
		}
	}
	if asked != 0 {
		t.Errorf("the outer instance was asked %d times", asked)
	}
}

func TestAnAnswerThatWasSentIsLeftAlone(t *testing.T) {
	asked := false
	for name, cfg := range map[string]echosession.Config{
		"default": mistaken(func(*echosession.Config) {}),
		"ErrorHandler": mistaken(func(c *echosession.Config) {
			c.ErrorHandler = func(c echo.Context, _ error) error { asked = true; return c.String(500, "too late") }
		}),
	} {
		m := newManager[User](t, cfg)
		s := newServer(t, m.Middleware())
		s.GET("/", func(c echo.Context) error {
			if err := c.String(http.StatusOK, "sent"); err != nil {
				return err
			}
			return echosession.ErrStoreUnavailable
		})
		a := s.get(t, "/", "")
		if a.StatusCode != 200 || a.body != "sent" || a.Header.Get("Retry-After") != "" || asked {
			t.Errorf("%s: %d %q %v", name, a.StatusCode, a.body, a.Header)
		}
	}
}

func TestAClientThatHangsUpIsNotLogged(t *testing.T) {
	log := new(logBuffer)
	m := newManager[User](t, mistaken(func(c *echosession.Config) { c.Logger = log.logger() }))
	token := newToken(t, m, "Ada")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Open(ctx, token); !errors.Is(err, echosession.ErrStoreUnavailable) || !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if log.String() != "" {
		t.Errorf("the log says %q", log)
	}
}
