package login_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

// Cart is what a session holds.
type Cart struct {
	User  string
	Items []int
}

type session = echosession.Session[Cart]

// shop is a service of one or more processes, and one more whose wire is always healthy.
type shop struct {
	way      way
	indexed  bool
	urls     []string
	http     *http.Client
	sessions *echosession.Manager[Cart]
}

func newShop(t *testing.T, s store, faulty bool, w way, indexed bool) *shop {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	t.Cleanup(transport.CloseIdleConnections)
	sh := &shop{way: w, indexed: indexed, http: &http.Client{Transport: transport, Timeout: 30 * time.Second}}
	configs := s.configs(t, faulty)
	for i, cfg := range configs {
		cfg.Secret, cfg.SubjectIndex = []byte("0123456789abcdef0123456789abcdef"), indexed
		cfg.Logger = slog.New(slog.DiscardHandler)
		m, err := echosession.New[Cart](cfg)
		if err != nil {
			t.Fatal(err)
		}
		if sh.sessions = m; i == len(configs)-1 {
			break
		}
		server := httptest.NewServer(w.handler(m))
		t.Cleanup(server.Close)
		sh.urls = append(sh.urls, server.URL)
	}
	return sh
}

// handler has a guest's first request, an update, a login, and a login once more for
// what only somebody may do who has just given the password.
func (w way) handler(m *echosession.Manager[Cart]) http.Handler {
	e := echo.New()
	e.Use(m.Middleware())
	does := func(fn func(echo.Context, *session) error) echo.HandlerFunc {
		return func(c echo.Context) error {
			sess, err := m.Get(c)
			if err == nil {
				err = fn(c, sess)
			}
			if err != nil {
				return err
			}
			return c.String(http.StatusOK, sess.Token())
		}
	}
	add := func(c echo.Context) func(*Cart) error {
		return func(cart *Cart) error {
			item, err := strconv.Atoi(c.QueryParam("item"))
			cart.Items = append(cart.Items, item)
			return err
		}
	}
	e.POST("/begin", does(func(c echo.Context, sess *session) error {
		return sess.UpdateOrCreate(c.Request().Context(), add(c))
	}))
	e.POST("/add", does(func(c echo.Context, sess *session) error {
		return sess.Update(c.Request().Context(), add(c))
	}))
	e.POST("/login", does(func(c echo.Context, sess *session) error {
		return w.login(c.Request().Context(), sess, c.QueryParam("user"))
	}))
	return e
}

func (w way) login(ctx context.Context, sess *session, user string) (err error) {
	if w == byRenew {
		_, err = sess.Renew(ctx, func(cart *Cart) error { cart.User = user; return nil }, echosession.WithSubject(user))
		return err
	}
	cart := sess.Data()
	cart.User = user
	_, err = sess.Create(ctx, cart, echosession.WithSubject(user))
	return err
}

// A browser sends requests in parallel. All of them carry the token that it was told last.
type browser struct {
	shop *shop
	user string

	mu       sync.Mutex
	token    string
	answered []int // items that were added, as the answers say
	logins   int
	doubtful bool // a login was answered with 503: it may have happened
	over     bool
}

const (
	tabs     = 4  // that add items at the same time
	adds     = 12 // of each tab
	stepUps  = 3  // logins after the first one
	betweens = 3 * time.Millisecond
)

// visit is a guest who fills a cart in several tabs, and logs in meanwhile.
func (sh *shop) visit(t *testing.T, n int) figures {
	b := &browser{shop: sh, user: fmt.Sprintf("user-%d", n)}
	for i := 0; b.token == ""; i++ {
		if i == 100 {
			t.Fatal("no guest gets a session")
		}
		b.send("/begin?item=0", 0)
	}
	var wg sync.WaitGroup
	for tab := range tabs {
		wg.Go(func() {
			for i := range adds {
				b.add(1 + tab*adds + i)
			}
		})
	}
	wg.Go(func() {
		for range 1 + stepUps {
			time.Sleep(rand.N(betweens))
			b.login()
		}
	})
	wg.Wait()
	return b.compare(t)
}

// send sends a request with the token that it returns, to one of the processes.
func (b *browser) send(path string, process int) (status int, token, body string) {
	b.mu.Lock()
	token = b.token
	b.mu.Unlock()
	r, err := http.NewRequest(http.MethodPost, b.shop.urls[process%len(b.shop.urls)]+path, nil)
	if err != nil {
		return 0, token, err.Error()
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := b.shop.http.Do(r)
	if err != nil {
		return 0, token, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, token, err.Error()
	}
	if resp.StatusCode == http.StatusOK && token == "" {
		b.mu.Lock()
		b.token, b.answered = string(text), append(b.answered, 0)
		b.mu.Unlock()
	}
	return resp.StatusCode, token, string(text)
}

// add puts an item into the cart, as soon as the browser has a token that works.
func (b *browser) add(item int) {
	deadline := time.Now().Add(5 * time.Second)
	for {
		status, token, _ := b.send("/add?item="+strconv.Itoa(item), item)
		b.mu.Lock()
		if status == http.StatusOK {
			b.answered = append(b.answered, item)
		}
		newer := token != b.token
		over := b.over || b.doubtful && !newer
		b.mu.Unlock()
		if status != http.StatusUnauthorized || over || time.Now().After(deadline) {
			return
		}
		if !newer {
			time.Sleep(200 * time.Microsecond) // the answer to the login is on its way
		}
	}
}

// login logs in, or confirms the password.
func (b *browser) login() {
	b.mu.Lock()
	over := b.over
	b.mu.Unlock()
	if over {
		return
	}
	status, _, body := b.send("/login?user="+b.user, rand.IntN(len(b.shop.urls)))
	b.mu.Lock()
	defer b.mu.Unlock()
	switch status {
	case http.StatusOK:
		b.token = body
		b.logins++
	case http.StatusServiceUnavailable:
		b.doubtful = true
	default:
		b.over = true // a login before it, in doubt, has happened
	}
}

// compare looks for the items in the session that the browser has, or that a login has
// left whose answer did not arrive.
func (b *browser) compare(t *testing.T) figures {
	f := figures{logins: b.logins, answered: len(b.answered)}
	sess, err := b.shop.sessions.Open(t.Context(), b.token)
	if err != nil {
		t.Fatal(err)
	}
	if !sess.Exists() && b.doubtful {
		if sess = b.find(t); sess == nil {
			f.unknown = f.answered
			return f
		}
	}
	stored := sess.Data()
	for _, item := range b.answered {
		if !slices.Contains(stored.Items, item) {
			f.gone++
		}
	}
	if f.gone > 0 {
		text, _ := json.Marshal(stored)
		f.example = fmt.Sprintf("%s: the answers say %v, the session is %s (%v)", b.user, b.answered, text, sess.Reason())
	}
	return f
}

// find returns the session of the browser's user, or nil where nobody can find it.
func (b *browser) find(t *testing.T) *session {
	if !b.shop.indexed {
		return nil
	}
	list, err := b.shop.sessions.List(t.Context(), b.user)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		return nil
	}
	return list[len(list)-1]
}
