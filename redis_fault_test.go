package echosession_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"
)

// faultSlack is what an operation may take beyond StoreTimeout on a busy machine.
const faultSlack = 1500 * time.Millisecond

// dataCommand matches what the store sends, and not what go-redis sends by itself.
var dataCommand = redistest.Named("GET", "GETEX", "SET", "DEL", "EVALSHA", "EVAL")

// A faultScene is a session on a server, and a Manager that reaches the server
// through a proxy.
type faultScene struct {
	testing.TB
	proxy   *redistest.Proxy
	timeout time.Duration              // StoreTimeout
	manager *echosession.Manager[User] // through the proxy
	direct  *echosession.Manager[User] // past it
	user    string                     // the session's Name, and its subject
	token   string                     // of the session
	old     string                     // the token that it had before, if any
	sess    *echosession.Session[User] // the session, found through the proxy
	made    string                     // the token that the operation returned
}

// at opens a token past the proxy.
func (s *faultScene) at(token string) *echosession.Session[User] {
	sess, err := s.direct.Open(context.Background(), token)
	if err != nil {
		s.Fatalf("the server itself: %v", err)
	}
	return sess
}

// sessions counts what is stored.
func (s *faultScene) sessions(name string) (n int) {
	for sess, err := range s.direct.All(context.Background()) {
		if err != nil {
			s.Fatalf("the server itself: %v", err)
		}
		if sess.Data().Name == name {
			n++
		}
	}
	return n
}

const startCount = 7

// A faultOperation is one method of a Manager or Session.
type faultOperation struct {
	name        string
	prepare     func(s *faultScene)
	run         func(ctx context.Context, s *faultScene) error
	applied     func(s *faultScene) int // how often it took effect; nil for a read
	touchAlways bool
	onlyIndexed bool
	noGrace     bool
	paged       bool // through pages of a few sessions
	old         bool // through a token that was rotated away
	limit       int  // MaxSessions
	calls       int  // of the store that may time out, if more than one
}

var faultOperations = []faultOperation{
	{
		name: "Open",
		run:  openThroughProxy,
	},
	{
		name:        "Open that touches",
		touchAlways: true,
		run:         openThroughProxy,
	},
	{
		name: "Reload",
		run:  callOf("Reload"),
	},
	{
		name: "Touch",
		run:  callOf("Touch"),
	},
	{
		name: "Check",
		run:  callOf("Check"),
	},
	{
		name:        "Count",
		onlyIndexed: true,
		run:         countThroughProxy(1),
	},
	{
		name:        "Count by pages",
		onlyIndexed: true,
		paged:       true,
		prepare:     createThreeMore,
		run:         countThroughProxy(4),
	},
	{
		name:        "List",
		onlyIndexed: true,
		run: func(ctx context.Context, s *faultScene) error {
			list, err := s.manager.List(ctx, s.user)
			if err == nil && len(list) != 1 {
				s.Errorf("%d sessions are listed", len(list))
			}
			return err
		},
	},
	{
		name:        "List by pages",
		onlyIndexed: true,
		paged:       true,
		prepare:     createThreeMore,
		run: func(ctx context.Context, s *faultScene) error {
			list, err := s.manager.List(ctx, s.user)
			if err == nil && len(list) != 4 {
				s.Errorf("%d sessions are listed", len(list))
			}
			return err
		},
	},
	{
		name: "Create",
		run: func(ctx context.Context, s *faultScene) error {
			sess, err := s.manager.Create(ctx, User{Name: "new " + s.user}, echosession.WithSubject(s.user))
			if err == nil {
				s.made = sess.Token()
			}
			return err
		},
		applied: func(s *faultScene) int { return s.sessions("new " + s.user) },
	},
	{
		name: "Create over a live session",
		run: func(ctx context.Context, s *faultScene) (err error) {
			s.made, err = s.sess.Create(ctx, User{Name: "new " + s.user}, echosession.WithSubject(s.user))
			return err
		},
		calls: 2, // one to take the new session back
		// Of a failed one a record may be left that nobody can reach.
		applied: func(s *faultScene) int { return 1 - s.sessions(s.user) },
	},
	{
		name:    "Update",
		run:     callOf("Update"),
		applied: func(s *faultScene) int { return s.at(s.token).Data().Count - startCount },
	},
	{
		name:    "Rotate",
		run:     rotateThroughProxy,
		applied: hasRotated,
	},
	{
		name:    "Rotate without grace",
		noGrace: true,
		run:     rotateThroughProxy,
		applied: func(s *faultScene) int {
			if s.at(s.token).Exists() {
				return 0
			}
			return s.sessions(s.user)
		},
	},
	{
		name:    "Renew",
		run:     renewThroughProxy(""),
		applied: hasRenewed,
	},
	{
		name:        "Renew into another subject",
		onlyIndexed: true,
		run:         renewThroughProxy("another of "),
		applied:     hasRenewed,
	},
	{
		name:        "Renew into another subject that is full",
		onlyIndexed: true,
		limit:       2,
		prepare: func(s *faultScene) {
			for range 2 {
				another := "another of " + s.user
				if _, err := s.direct.Create(context.Background(), User{Name: another}, echosession.WithSubject(another)); err != nil {
					s.Fatal(err)
				}
			}
		},
		run: renewThroughProxy("another of "),
		applied: func(s *faultScene) int {
			n := hasRenewed(s)
			if left := s.sessions("another of " + s.user); left > 2 || left < 1 || s.made != "" && left != 1 {
				s.Errorf("%d of two sessions are left", left)
			}
			return n
		},
	},
	{
		name: "Destroy",
		run:  func(ctx context.Context, s *faultScene) error { return s.sess.Destroy(ctx) },
		applied: func(s *faultScene) int {
			return 1 - s.sessions(s.user)
		},
	},
	{
		name: "Destroy of a rotated session",
		old:  true,
		prepare: func(s *faultScene) {
			s.old = s.token
			token, err := s.at(s.token).Rotate(context.Background())
			if err != nil {
				s.Fatal(err)
			}
			s.token = token
			s.sess = s.open(s.old)
		},
		run: func(ctx context.Context, s *faultScene) error { return s.sess.Destroy(ctx) },
		applied: func(s *faultScene) int {
			if s.at(s.old).Exists() != s.at(s.token).Exists() {
				s.Errorf("one token of the session is alive, and one is not")
			}
			return 1 - s.sessions(s.user)
		},
	},
	{
		name:        "RevokeSubject",
		onlyIndexed: true,
		prepare: func(s *faultScene) {
			if _, err := s.direct.Create(context.Background(), User{Name: s.user}, echosession.WithSubject(s.user)); err != nil {
				s.Fatal(err)
			}
		},
		run: func(ctx context.Context, s *faultScene) error {
			_, err := s.manager.RevokeSubject(ctx, s.user)
			return err
		},
		applied: func(s *faultScene) int {
			n := s.sessions(s.user)
			if n == 1 {
				s.Errorf("one of two sessions is left")
			}
			return 1 - n/2
		},
	},
	{
		name:        "RevokeSubject by pages",
		onlyIndexed: true,
		paged:       true,
		prepare:     createThreeMore,
		run: func(ctx context.Context, s *faultScene) error {
			_, err := s.manager.RevokeSubject(ctx, s.user)
			return err
		},
		applied: func(s *faultScene) int {
			switch s.sessions(s.user) {
			case 4:
				return 0
			case 2, 0: // whole pages
				return 1
			}
			s.Errorf("a page was deleted in part")
			return -1
		},
	},
}

// createThreeMore creates three sessions beside the one of the scene.
func createThreeMore(s *faultScene) {
	for range 3 {
		if _, err := s.direct.Create(context.Background(), User{Name: s.user}, echosession.WithSubject(s.user)); err != nil {
			s.Fatal(err)
		}
	}
}

// callOf makes an operation of one of the sessionCalls.
func callOf(name string) func(context.Context, *faultScene) error {
	return func(ctx context.Context, s *faultScene) error { return sessionCalls[name](ctx, s.sess) }
}

func openThroughProxy(ctx context.Context, s *faultScene) error {
	sess, err := s.manager.Open(ctx, s.token)
	switch {
	case err != nil:
		return err
	case !sess.Exists():
		return sess.Reason()
	case sess.Data().Name != s.user || sess.Data().Count != startCount:
		s.Errorf("%s is shown %+v", s.user, sess.Data())
	}
	return nil
}

func rotateThroughProxy(ctx context.Context, s *faultScene) (err error) {
	s.made, err = s.sess.Rotate(ctx)
	return err
}

func countThroughProxy(want int) func(context.Context, *faultScene) error {
	return func(ctx context.Context, s *faultScene) error {
		n, err := s.manager.Count(ctx, s.user)
		if err == nil && n != want {
			s.Errorf("%d sessions are counted, want %d", n, want)
		}
		return err
	}
}

// renewThroughProxy renews for the user, or for another subject.
func renewThroughProxy(another string) func(context.Context, *faultScene) error {
	return func(ctx context.Context, s *faultScene) (err error) {
		s.made, err = s.sess.Renew(ctx, func(u *User) error {
			u.Name = s.user // a zero User of another subject
			return nil
		}, echosession.WithSubject(another+s.user))
		return err
	}
}

// hasRenewed is 1 when the session from before has ended: then the new one is there, or
// neither is, when the outcome is unknown.
func hasRenewed(s *faultScene) int {
	now := s.at(s.token)
	sessions := s.sessions(s.user)
	switch {
	case now.Exists() && sessions != 1:
		s.Errorf("beside the session there are %d more", sessions-1)
	case now.Exists():
		return 0
	case !errors.Is(now.Reason(), echosession.ErrRenewed):
		s.Errorf("the session from before: %v", now.Reason())
	case sessions > 1 || s.made != "" && sessions != 1:
		s.Errorf("%d sessions are there after it", sessions)
	}
	return 1
}

func hasRotated(s *faultScene) int {
	now := s.at(s.token)
	if data := now.Data(); !now.Exists() || data.Name != s.user || data.Count != startCount {
		s.Errorf("the session has become %+v: %v", data, now.Reason())
	}
	if now.ID() != s.sess.ID() || s.made != "" {
		return 1
	}
	return 0
}

// open opens a token through the proxy.
func (s *faultScene) open(token string) *echosession.Session[User] {
	for attempt := 1; ; attempt++ {
		sess, err := s.manager.Open(context.Background(), token)
		if err == nil && sess.Exists() {
			return sess
		}
		if attempt == 10 { // each may take StoreTimeout on a busy machine
			s.Fatalf("before the fault: %v", err)
		}
	}
}

// A faultClient makes one kind of client.
type faultClient struct {
	name    string
	options func(*redis.Options)
	face    func(testing.TB, *redis.Client) echosession.RedisClient
}

func directly(_ testing.TB, c *redis.Client) echosession.RedisClient { return c }

func autoPipelined(tb testing.TB, c *redis.Client) echosession.RedisClient {
	ap, err := c.AutoPipeline()
	if err != nil {
		tb.Fatal(err)
	}
	return ap
}

var faultClients = []faultClient{
	{"client", func(*redis.Options) {}, directly},
	{"client without retries", func(o *redis.Options) { o.MaxRetries = -1 }, directly},
	{"auto-pipeliner", func(*redis.Options) {}, autoPipelined},
}

// stage sets a scene. The session was opened through the proxy once, so that only
// what the operation itself sends is still to come.
func stage(t testing.TB, timeout time.Duration, server *redistest.Server, direct *redis.Client, client faultClient, op faultOperation, indexed bool) *faultScene {
	t.Helper()
	proxy := redistest.NewProxy(t, server.Addr())
	o := &redis.Options{Addr: proxy.Addr(), ContextTimeoutEnabled: true}
	client.options(o)
	rdb := redis.NewClient(o)
	t.Cleanup(func() {
		proxy.Disconnect() // an auto-pipeliner waits for what is under way
		_ = rdb.Close()
	})
	cfg := echosession.Config{
		Client: direct, Secret: testSecret, Keyspace: newKeyspace(), SubjectIndex: indexed, StoreTimeout: 5 * time.Second,
	}
	if op.noGrace {
		cfg.RotateGrace = echosession.NoGrace
	}
	s := &faultScene{TB: t, proxy: proxy, timeout: timeout, direct: newManager[User](t, cfg), user: "Ada"}
	cfg.Client, cfg.StoreTimeout = client.face(t, rdb), timeout
	cfg.MaxSessions = op.limit
	if op.touchAlways {
		cfg.TouchInterval = echosession.TouchAlways
	}
	if op.paged {
		cfg.Store, cfg.Client = echosession.SmallPages(newRedisStore(t, cfg.Client, cfg.Keyspace)), nil
	}
	s.manager = newManager[User](t, cfg)
	sess, err := s.direct.Create(t.Context(), User{Name: s.user, Count: startCount}, echosession.WithSubject(s.user))
	if err != nil {
		t.Fatal(err)
	}
	s.token = sess.Token()
	s.sess = s.open(s.token)
	if op.prepare != nil {
		op.prepare(s)
	}
	proxy.Reset()
	return s
}

// answer runs the operation in a handler and returns its error, the answer and
// how long it took.
func (s *faultScene) answer(op faultOperation) (answer *httptest.ResponseRecorder, took time.Duration, err error) {
	e := echo.New()
	e.Use(s.manager.Middleware())
	e.GET("/", func(c echo.Context) error {
		begin := time.Now()
		err = op.run(c.Request().Context(), s)
		took = time.Since(begin)
		return err
	})
	answer = httptest.NewRecorder()
	e.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/", nil))
	return answer, took, err
}

// A fault is what happens to a command.
type fault struct {
	name   string
	action func() redistest.Action
	reply  bool // the server answers, with an error
	retry  bool // which passes
	script bool // only scripts get over it
	always bool // once is no different
}

func (f fault) times() []int {
	if f.always {
		return []int{-1}
	}
	return []int{1, -1}
}

func faults() []fault {
	list := []fault{
		{name: "not sent", action: redistest.DropRequest},
		{name: "reply lost", action: redistest.DropReply},
		{name: "reply cut", action: func() redistest.Action { return redistest.CutReply(-1) }},
	}
	for _, reply := range []struct {
		text          string
		retry, script bool
	}{
		{text: "READONLY You can't write against a read only replica.", retry: true},
		{text: "LOADING Redis is loading the dataset in memory", retry: true},
		{text: "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", retry: true},
		{text: "CLUSTERDOWN The cluster is down", retry: true},
		{text: "TRYAGAIN Multiple keys request during rehashing of slot", retry: true},
		{text: "NOREPLICAS Not enough good replicas to write.", retry: true},
		{text: "ERR max number of clients reached", retry: true},
		{text: "NOSCRIPT No matching script. Please use EVAL.", script: true},
		{text: "OOM command not allowed when used memory > 'maxmemory'."},
		{text: "NOPERM this user has no permissions to run the command"},
		{text: "WRONGTYPE Operation against a key holding the wrong kind of value"},
	} {
		code, _, _ := strings.Cut(reply.text, " ")
		list = append(list, fault{
			name:   code,
			action: func() redistest.Action { return redistest.Reply("-" + reply.text + "\r\n") },
			reply:  true, retry: reply.retry, script: reply.script,
		})
	}
	return list
}

// A faultReport counts what came of a matrix of faults.
type faultReport struct {
	mu       sync.Mutex
	outcomes map[string]int
	slowest  time.Duration
}

func (r *faultReport) add(outcome string, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outcomes[outcome]++
	r.slowest = max(r.slowest, took)
}

// runFaults runs every operation with every command that it sends failing, and
// reports. Afterwards nothing of the clients runs any more.
func runFaults(t *testing.T, timeout time.Duration, clients []faultClient, faults []fault) {
	server := redistest.Start(t)
	direct := server.Client(t)
	loadScripts(t, direct)
	report := faultReport{outcomes: make(map[string]int)}
	indexes := []bool{false, true}
	if testing.Short() {
		clients = clients[:1]
		indexes = indexes[1:]
	}
	slots := make(chan struct{}, 32) // more at once would take each other's time
	goroutines := runtime.NumGoroutine()

	t.Run("matrix", func(t *testing.T) {
		for _, client := range clients {
			for _, op := range faultOperations {
				for _, indexed := range indexes {
					if op.onlyIndexed && !indexed {
						continue
					}
					name := client.name + "/" + op.name
					if indexed {
						name += " with index"
					}
					t.Run(name, func(t *testing.T) {
						t.Parallel()
						set := func(t *testing.T) *faultScene { return stage(t, timeout, server, direct, client, op, indexed) }
						failEverything(t, set, client, op, faults, slots, &report)
					})
				}
			}
		}
	})
	goroutinesEnd(t, goroutines)
	keys := redistest.AssertNoKeyWithoutTTL(t, direct, "test-")
	if keys == 0 {
		t.Error("no key was looked at")
	}
	cells := 0
	for _, n := range report.outcomes {
		cells += n
	}
	t.Logf("%d cells: %v; the slowest took %v (StoreTimeout %v); %d keys are left, all with a lifetime",
		cells, report.outcomes, report.slowest.Round(time.Millisecond), timeout, keys)
}

// failEverything runs one operation with every command that it sends failing, each
// time in a new scene.
func failEverything(t *testing.T, set func(*testing.T) *faultScene, client faultClient, op faultOperation, faults []fault, slots chan struct{}, report *faultReport) {
	// What the operation sends when nothing fails.
	clean := set(t)
	if answer, _, err := clean.answer(op); err != nil || answer.Code != http.StatusOK {
		t.Fatalf("no fault: %v, answered with %d", err, answer.Code)
	}
	if op.applied != nil && op.applied(clean) != 1 {
		t.Fatalf("no fault: applied %d times", op.applied(clean))
	}
	sent := clean.proxy.Commands()

	var wg sync.WaitGroup
	defer wg.Wait()
	for _, f := range faults {
		for step, cmd := range sent {
			for _, times := range f.times() {
				wg.Go(func() {
					slots <- struct{}{}
					defer func() { <-slots }()
					t.Run(fmt.Sprintf("%s %s at step %d, %d times", cmd[0], f.name, step+1, times), func(t *testing.T) {
						s := set(t)
						seen := 0
						rule := s.proxy.On(func(cmd []string) bool {
							if dataCommand(cmd) {
								seen++
							}
							return dataCommand(cmd) && seen > step
						}, times, f.action())
						answer, took, err := s.answer(op)
						rule.Remove()
						if rule.Count() == 0 {
							t.Error("the fault did not happen")
						}
						report.add(s.check(op, f, client, step, len(sent), cmd[0], times, err, answer, took), took)
					})
				})
			}
		}
	}
}

// Every operation, with every command that it sends failing in every way, once
// and for good.
func TestFaults(t *testing.T) { runFaults(t, 2*time.Second, faultClients, faults()) }

// StoreTimeout holds with every client, even when no reply comes.
func TestNoAnswer(t *testing.T) {
	const timeout = 300 * time.Millisecond
	clients := []faultClient{
		{"client", func(*redis.Options) {}, directly},
		{"client that ignores deadlines", func(o *redis.Options) { o.ContextTimeoutEnabled = false }, directly},
		{"auto-pipeliner", func(*redis.Options) {}, autoPipelined},
	}
	if long {
		clients = append(clients, faultClient{
			"auto-pipeliner that ignores deadlines", func(o *redis.Options) { o.ContextTimeoutEnabled = false }, autoPipelined,
		})
	}
	runFaults(t, timeout, clients, []fault{
		{name: "answered late", action: func() redistest.Action { return redistest.Delay(10 * timeout) }, always: true},
		{name: "never answered", action: redistest.Hang, always: true},
	})
}

// loadScripts makes a server know the scripts, so that no EVALSHA needs an EVAL.
func loadScripts(t testing.TB, client *redis.Client) {
	t.Helper()
	for _, source := range luaSources(t) {
		if err := client.ScriptLoad(t.Context(), source).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// luaSources returns what Redis gets of the scripts, by the names of their files.
func luaSources(t testing.TB) map[string]string {
	t.Helper()
	files, err := filepath.Glob("lua/*.lua")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts: ", err)
	}
	sources := make(map[string]string)
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sources[strings.TrimSuffix(filepath.Base(file), ".lua")] = string(source)
	}
	prelude := sources["prelude"]
	delete(sources, "prelude")
	for name := range sources {
		sources[name] = prelude + sources[name]
	}
	return sources
}

// kindOf names what an operation's error says about the store.
func kindOf(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, echosession.ErrIndeterminate):
		return "indeterminate"
	case errors.Is(err, echosession.ErrStoreUnavailable):
		return "unavailable"
	}
	return err.Error()
}

// causes are the texts of an error and of all that it wraps.
func causes(err error) string {
	switch e := err.(type) {
	case nil:
		return ""
	case interface{ Unwrap() []error }:
		var all []string
		for _, err := range e.Unwrap() {
			all = append(all, causes(err))
		}
		return strings.Join(all, " + ")
	}
	return err.Error()
}

// expect says what an operation may answer.
func expect(op faultOperation, f fault, step, steps int, cmd string, times int) []string {
	script := cmd == "EVALSHA"
	switch {
	case strings.HasPrefix(op.name, "Renew") && steps > 1:
		return []string{expectOfRenew(f, step, times)}
	case op.old && step == 1 && times < 0:
		return []string{"unavailable"} // it is a read: where the old token leads
	case times < 0 && cmd == "SET" && strings.HasPrefix(op.name, "Rotate"):
		return []string{"unavailable"} // nobody knows the successor: nothing has happened
	case cmd == "DEL":
		return []string{"ok"} // only pointers and successors that lead nowhere are left
	case times == 1 && (!f.reply || f.retry || f.script && script):
		if op.noGrace && !f.reply && f.name != "not sent" {
			return []string{"ok", "indeterminate"} // it leaves no trace to tell it by
		}
		return []string{"ok"}
	case op.paged && op.applied != nil && step > 0:
		return []string{"indeterminate"} // a page is deleted already
	case f.reply || op.applied == nil:
		return []string{"unavailable"}
	}
	return []string{"indeterminate"}
}

// expectOfRenew says what a Renew of three steps may answer.
func expectOfRenew(f fault, step, times int) string {
	switch {
	case times == 1 && (!f.reply || f.retry || f.script):
		return "ok"
	case step == 0:
		return "unavailable" // nothing finds what is left of the first step
	case step == 1 && f.reply:
		return "unavailable" // refused: the session is as it was
	}
	return "indeterminate"
}

// check holds what an operation returned against what is stored.
func (s *faultScene) check(op faultOperation, f fault, client faultClient, step, steps int, cmd string, times int, err error, answer *httptest.ResponseRecorder, took time.Duration) string {
	kind := kindOf(err)
	if want := expect(op, f, step, steps, cmd, times); !slices.Contains(want, kind) {
		s.Errorf("%s (%s), want %v", kind, causes(err), want)
	}
	wantCode := http.StatusServiceUnavailable
	if kind == "ok" {
		wantCode = http.StatusOK
	}
	if answer.Code != wantCode || answer.Header().Get("WWW-Authenticate") != "" ||
		(answer.Header().Get("Retry-After") != "") != (wantCode == http.StatusServiceUnavailable) {
		s.Errorf("%s is answered with %d, %v", kind, answer.Code, answer.Header())
	}
	if took > time.Duration(max(op.calls, 1))*s.timeout+faultSlack {
		s.Errorf("it took %v", took)
	}
	if op.applied == nil {
		if now := s.at(s.token); !now.Exists() || now.Data().Count != startCount {
			s.Errorf("a read changed the session: %+v, %v", now.Data(), now.Reason())
		}
		return kind
	}
	n := op.applied(s)
	switch {
	case n < 0 || n > 1:
		s.Errorf("applied %d times", n)
	case kind == "ok" && n != 1:
		s.Errorf("acknowledged, and not applied")
	case kind == "unavailable" && n != 0:
		s.Errorf("unavailable, and applied")
	}
	if s.made != "" && !s.at(s.made).Exists() {
		s.Errorf("the new token finds nothing: %v", s.at(s.made).Reason())
	}
	return kind
}

// goroutinesEnd waits until no more goroutines run than before.
func goroutinesEnd(t *testing.T, before int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Writers of one session, of whose commands a fifth get lost or unanswered: every
// change that was acknowledged is stored once, one of unknown outcome at most
// once, and one that was refused not at all.
func TestNoChangeIsLostOrDoubled(t *testing.T) {
	t.Parallel()
	const writers = 4
	each := 50
	if testing.Short() {
		each = 15
	}
	for _, client := range faultClients {
		t.Run(client.name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Shared(t)
			update := faultOperation{calls: 1}
			s := stage(t, time.Second, server, server.Client(t), client, update, true)
			for _, f := range faults()[:3] {
				s.proxy.On(func(cmd []string) bool { return dataCommand(cmd) && rand.N(15) == 0 }, -1, f.action())
			}
			var mu sync.Mutex
			outcome := make(map[string]string) // by change
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() {
					for i := range each {
						sess, err := s.manager.Open(t.Context(), s.token)
						if err != nil {
							continue
						}
						change := fmt.Sprint(w, "-", i)
						err = sess.Update(t.Context(), func(u *User) error {
							u.Count++
							u.Cart = append(u.Cart, change)
							return nil
						})
						mu.Lock()
						outcome[change] = kindOf(err)
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			stored := s.at(s.token).Data()
			times := make(map[string]int)
			for _, change := range stored.Cart {
				times[change]++
			}
			count := make(map[string]int)
			for change, kind := range outcome {
				count[kind]++
				n := times[change]
				ok := kind == "ok" && n == 1 || kind == "unavailable" && n == 0 || kind == "indeterminate" && n <= 1
				if !ok {
					t.Errorf("change %s: %s, and stored %d times", change, kind, n)
				}
			}
			if got := stored.Count - startCount; got < count["ok"] || got > count["ok"]+count["indeterminate"] {
				t.Errorf("the counter is %d, but %v", got, count)
			}
			if count["ok"] < writers*each/10 {
				t.Errorf("%v: too few passed to say anything", count)
			}
			t.Logf("%d changes, %v, stored %d", writers*each, count, stored.Count-startCount)
		})
	}
}

// Two users' requests get each other's replies: nobody sees the other's data, and
// no write is believed that did not happen.
func TestForeignReplies(t *testing.T) {
	server := redistest.Start(t)
	direct := server.Client(t)
	loadScripts(t, direct)
	var mu sync.Mutex
	count := make(map[string]int)
	for _, indexed := range []bool{false, true} {
		for i, one := range faultOperations {
			for _, other := range faultOperations[i:] {
				if (one.onlyIndexed || other.onlyIndexed) && !indexed || one.noGrace || other.noGrace || one.old || other.old {
					continue
				}
				one.touchAlways = one.touchAlways || other.touchAlways
				one.limit = max(one.limit, other.limit)
				name := one.name + " and " + other.name
				if indexed {
					name += " with index"
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					ada := stage(t, 2*time.Second, server, direct, faultClients[0], one, indexed)
					bob := ada.beside("Bob", other)
					ada.proxy.Reset()

					swap := ada.proxy.On(dataCommand, 2, redistest.SwapReply())
					scenes, ops, kinds := []*faultScene{ada, bob}, []faultOperation{one, other}, make([]string, 2)
					var wg sync.WaitGroup
					for i, op := range ops {
						wg.Go(func() { kinds[i] = kindOf(op.run(t.Context(), scenes[i])) })
					}
					wg.Wait()
					for i, op := range ops {
						s, kind, n := scenes[i], kinds[i], 0
						mu.Lock()
						count[kind]++
						mu.Unlock()
						if op.applied != nil {
							n = op.applied(s)
						}
						switch {
						case op.applied != nil && (kind == "ok" && n != 1 || kind == "unavailable" && n != 0 || n < 0 || n > 1):
							s.Errorf("%s: %s, and applied %d times", op.name, kind, n)
						case kind != "ok" && kind != "unavailable" && kind != "indeterminate":
							s.Errorf("%s: %s", op.name, kind)
						}
						if now := s.at(s.token); now.Exists() && now.Data().Name != s.user {
							s.Errorf("the session of %s has become that of %s", s.user, now.Data().Name)
						}
					}
					if swap.Count() != 2 {
						t.Fatalf("%d replies swapped", swap.Count())
					}
				})
			}
		}
	}
	t.Cleanup(func() { t.Logf("outcomes of operations whose reply was another's: %v", count) })
}

// beside adds another user's session to the scene.
func (s *faultScene) beside(user string, op faultOperation) *faultScene {
	other := *s
	other.user = user
	sess, err := s.direct.Create(context.Background(), User{Name: user, Count: startCount}, echosession.WithSubject(user))
	if err != nil {
		s.Fatal(err)
	}
	other.token = sess.Token()
	other.sess = other.open(other.token)
	if op.prepare != nil {
		op.prepare(&other)
	}
	return &other
}
