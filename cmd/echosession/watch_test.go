package main

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// A watchRun is "echosession watch" while it runs.
type watchRun struct {
	t      *testing.T
	stop   context.CancelFunc
	ended  chan int
	stdout lines
	stderr lines
}

// lines is an output, of which a test waits for lines.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) list() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := strings.Split(l.text.String(), "\n")
	return list[:len(list)-1]
}

// startWatch starts the command for a program, and waits until it says what it watches.
func startWatch(t *testing.T, args ...string) *watchRun {
	t.Helper()
	return startWatchForPeople(t, append([]string{"-json", "-interval", "50ms"}, args...)...)
}

func startWatchForPeople(t *testing.T, args ...string) *watchRun {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	w := &watchRun{t: t, stop: stop, ended: make(chan int, 1)}
	go func() {
		w.ended <- run(ctx, append([]string{"watch"}, args...), &invocation{
			stdin: strings.NewReader(""), stdout: &w.stdout, stderr: &w.stderr, getenv: func(string) string { return "" },
		})
	}()
	t.Cleanup(stop)
	w.notice("watching ")
	return w
}

// notice waits for a line to people that begins like this.
func (w *watchRun) notice(prefix string) string {
	w.t.Helper()
	for range 2000 {
		for _, line := range w.stderr.list() {
			if strings.HasPrefix(line, prefix) {
				return line
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.t.Fatalf("nothing begins with %q in %q", prefix, w.stderr.list())
	return ""
}

// An eventLine is an event as programs read it.
type eventLine struct {
	Time      time.Time
	Event     string
	ID        string
	LogID     string `json:"log_id"`
	Subject   string
	CreatedAt time.Time `json:"created_at"`
	To        string
	ToLogID   string `json:"to_log_id"`
}

func (w *watchRun) events() (list []eventLine) {
	w.t.Helper()
	for _, line := range w.stdout.list() {
		var e eventLine
		decoder := json.NewDecoder(strings.NewReader(line))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&e); err != nil {
			w.t.Fatalf("%v in %q", err, line)
		}
		list = append(list, e)
	}
	return list
}

// event waits for an event of a session.
func (w *watchRun) event(kind, id string) eventLine {
	w.t.Helper()
	for range 2000 {
		for _, e := range w.events() {
			if e.Event == kind && e.ID == id {
				if e.LogID != echosession.LogID(id) {
					w.t.Errorf("%+v", e)
				}
				return e
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.t.Fatalf("no %s of %s in\n%s\n%s", kind, id, strings.Join(w.stdout.list(), "\n"), strings.Join(w.stderr.list(), "\n"))
	return eventLine{}
}

// of returns the kinds of the events of a session.
func (w *watchRun) of(id string) (kinds []string) {
	w.t.Helper()
	for _, e := range w.events() {
		if e.ID == id {
			kinds = append(kinds, e.Event)
		}
	}
	return kinds
}

// end interrupts the command, and returns what it said at last.
func (w *watchRun) end() (last string) {
	w.t.Helper()
	began := time.Now()
	w.stop()
	select {
	case code := <-w.ended:
		if took := time.Since(began); code != exitOK || took > time.Second {
			w.t.Errorf("it ended with %d after %v: %q", code, took, w.stderr.list())
		}
	case <-time.After(10 * time.Second):
		w.t.Fatal("it does not end")
	}
	list := w.stderr.list()
	return list[len(list)-1]
}

// expire ends a session as its lifetime does: nobody publishes that.
func (p *program) expire(t *testing.T, sess *echosession.Session[user], subject string) {
	t.Helper()
	key := p.keyspace + sess.ID()
	if subject != "" {
		key = p.keyspace + "{" + hashOf(subject).String() + "}:" + sess.ID()
	}
	if ok, err := p.client.PExpire(t.Context(), key, time.Millisecond).Result(); !ok || err != nil {
		t.Fatal(ok, err)
	}
}

// logout ends a session, and returns the ID that it had.
func logout(t *testing.T, sess *echosession.Session[user]) (id string) {
	t.Helper()
	id = sess.ID()
	if err := sess.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	return id
}

func rotate(t *testing.T, sess *echosession.Session[user]) {
	t.Helper()
	if _, err := sess.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// renew is a login in a session.
func renew(t *testing.T, sess *echosession.Session[user]) {
	t.Helper()
	if _, err := sess.Renew(t.Context(), func(*user) error { return nil }, echosession.WithSubject("ada")); err != nil {
		t.Fatal(err)
	}
}

func TestWatchTellsOfEverySession(t *testing.T) {
	t.Parallel()
	for _, indexed := range []bool{true, false} {
		cfg := echosession.Config{SubjectIndex: indexed, RotateGrace: 300 * time.Millisecond}
		t.Run(fmt.Sprintf("a server, index %v", indexed), func(t *testing.T) {
			t.Parallel()
			testWatch(t, onShared(t, cfg))
		})
		t.Run(fmt.Sprintf("a Cluster, index %v", indexed), func(t *testing.T) {
			t.Parallel()
			cluster := redistest.StartCluster(t, 3, 0)
			testWatch(t, newProgram(t, "redis://"+cluster.Addrs()[2], cluster.Client(t), cfg))
		})
		t.Run(fmt.Sprintf("encrypted, index %v", indexed), func(t *testing.T) {
			t.Parallel()
			cfg := cfg
			cfg.EncryptionKeys = [][]byte{testSeal}
			testWatch(t, onShared(t, cfg), "-encryption-key-file", fileOf(t, base64.StdEncoding.EncodeToString(testSeal)))
		})
	}
}

func testWatch(t *testing.T, p *program, more ...string) {
	before := p.login(t, "ada")
	w := startWatch(t, append(more, "-keyspace", p.keyspace, p.url)...)
	if line := w.notice("watching "); !strings.HasPrefix(line, "watching 1 session. ") {
		t.Errorf("it says %q", line)
	}
	created := p.login(t, "ada")
	if e := w.event("created", created.ID()); e.Subject != "ada" || time.Since(e.Time) > 5*time.Second || !e.CreatedAt.Equal(created.CreatedAt()) {
		t.Errorf("%+v", e)
	}
	nobody := p.login(t, "")
	if e := w.event("created", nobody.ID()); e.Subject != "" {
		t.Errorf("%+v", e)
	}

	began := time.Now()
	beforeID, beforeCreated := before.ID(), before.CreatedAt()
	logout(t, before)
	if e := w.event("ended", beforeID); e.Subject != "ada" || e.Time.Before(began) || !e.CreatedAt.Equal(beforeCreated) {
		t.Errorf("%+v", e)
	}

	rotatedFrom := created.ID()
	rotate(t, created)
	if e := w.event("rotated", rotatedFrom); e.Subject != "ada" || e.To != created.ID() || e.ToLogID != created.LogID() {
		t.Errorf("%+v", e)
	}
	renewedFrom := created.ID()
	renew(t, created)
	if e := w.event("renewed", renewedFrom); e.Subject != "ada" || e.To != "" {
		t.Errorf("%+v", e)
	}
	// A session so young looks like a new one.
	if e := w.event("created", created.ID()); e.Subject != "ada" {
		t.Errorf("%+v", e)
	}
	p.expire(t, nobody, "")
	if e := w.event("ended", nobody.ID()); e.Subject != "" { // it had time left as far as is known
		t.Errorf("%+v", e)
	}
	short := p.login(t, "ada", echosession.WithMaxAge(3*time.Second))
	w.event("created", short.ID())
	if e := w.event("expired", short.ID()); e.Subject != "ada" {
		t.Errorf("%+v", e)
	}
	// Each of them once. A look that comes between a rotation and its message finds the
	// successor, and cannot know that it is one.
	renewed, last := []string{"renewed"}, "4 created, 3 ended or expired"
	if slices.Contains(w.of(renewedFrom), "created") {
		renewed, last = []string{"created", "renewed"}, "5 created, 3 ended or expired"
	}
	for id, want := range map[string][]string{
		beforeID: {"ended"}, rotatedFrom: {"created", "rotated"}, renewedFrom: renewed,
		created.ID(): {"created"}, nobody.ID(): {"created", "ended"}, short.ID(): {"created", "expired"},
	} {
		if got := w.of(id); !slices.Equal(got, want) {
			t.Errorf("the events of a session are %q, and are to be %q", got, want)
		}
	}
	if said := w.end(); said != last {
		t.Errorf("it says at last %q, and not %q", said, last)
	}
}

// An end comes at once, however long the pause is: Redis tells of it.
func TestWatchTellsOfEndsAtOnce(t *testing.T) {
	t.Parallel()
	p := onShared(t, echosession.Config{SubjectIndex: true})
	var ids []string
	first, one := p.login(t, "bob"), p.login(t, "bob")
	for range 250 {
		ids = append(ids, p.login(t, "ada").ID())
	}
	w := startWatch(t, "-interval", "1h", "-keyspace", p.keyspace, p.url)
	// Whenever that is heard of or found: from then on ends are heard of.
	w.event("ended", logout(t, first))
	began := time.Now()
	if took := w.event("ended", logout(t, one)).Time.Sub(began); took > 2*time.Second {
		t.Errorf("an end came after %v", took)
	}
	// More ends than a message names.
	began = time.Now()
	if n, err := p.RevokeSubject(t.Context(), "ada", ids[7]); n != 249 || err != nil {
		t.Fatal(n, err)
	}
	for i, id := range ids {
		if i == 7 {
			continue
		}
		if took := w.event("ended", id).Time.Sub(began); took > 2*time.Second {
			t.Errorf("an end came after %v", took)
		}
	}
	if kinds := w.of(ids[7]); len(kinds) > 0 {
		t.Errorf("the session that was spared: %q", kinds)
	}
	if last := w.end(); last != "0 created, 251 ended or expired" {
		t.Errorf("it says at last %q", last)
	}
}

// A login keeps the time of creation: a session that is older than the last look is no new one.
func TestWatchKnowsWhatGoesOn(t *testing.T) {
	t.Parallel()
	server := redistest.Shared(t)
	now := time.Now()
	p := newProgram(t, "redis://"+server.Addr(), server.Client(t), echosession.Config{SubjectIndex: true, Now: func() time.Time { return now }})
	now = now.Add(-time.Hour)
	sess := p.login(t, "ada")
	now = now.Add(time.Hour)
	w := startWatch(t, "-keyspace", p.keyspace, p.url)
	from := sess.ID()
	renew(t, sess)
	w.event("renewed", from)
	if e := w.event("continued", sess.ID()); e.Subject != "ada" || e.Time.Sub(e.CreatedAt) < time.Hour {
		t.Errorf("%+v", e)
	}
	if last := w.end(); last != "0 created, 0 ended or expired" {
		t.Errorf("it says at last %q", last)
	}
}

func TestWatchOneSubject(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name            string
		indexed, sealed bool
		key             bool // the command has the encryption key
	}{
		{"indexed", true, false, false}, {"not indexed", false, false, false}, {"indexed, encrypted", true, true, false},
		{"not indexed, encrypted", false, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := echosession.Config{SubjectIndex: tt.indexed}
			if tt.sealed {
				cfg.EncryptionKeys = [][]byte{testSeal}
			}
			p := onShared(t, cfg)
			args := []string{"-subject", "ada l", "-keyspace", p.keyspace, p.url}
			if tt.key {
				args = append(args, "-encryption-key-file", fileOf(t, base64.StdEncoding.EncodeToString(testSeal)))
			}
			hers, his := p.login(t, "ada l"), p.login(t, "bob")
			w := startWatch(t, args...)
			if line := w.notice("watching "); !strings.HasPrefix(line, "watching 1 session of ada l. ") {
				t.Errorf("it says %q", line)
			}
			other, more := p.login(t, "bob"), p.login(t, "ada l")
			w.event("created", more.ID())
			must(t, his.Destroy(t.Context()), other.Destroy(t.Context()))
			if e := w.event("ended", logout(t, hers)); e.Subject != "ada l" {
				t.Errorf("%+v", e)
			}
			if n := len(w.events()); n != 2 {
				t.Errorf("%d events: %+v", n, w.events())
			}
			if last := w.end(); last != "1 created, 1 ended or expired" {
				t.Errorf("it says at last %q", last)
			}
		})
	}
}

// Of encrypted sessions it tells what stands in clear.
func TestWatchWithoutTheKey(t *testing.T) {
	t.Parallel()
	for _, indexed := range []bool{true, false} {
		p := onShared(t, echosession.Config{SubjectIndex: indexed, EncryptionKeys: [][]byte{testSeal}})
		before := p.login(t, "ada")
		w := startWatch(t, "-keyspace", p.keyspace, p.url)
		sess := p.login(t, "ada")
		if e := w.event("created", sess.ID()); e.Subject != "" || !e.CreatedAt.Equal(sess.CreatedAt()) {
			t.Errorf("%+v", e)
		}
		w.event("ended", logout(t, before))
		if n, err := p.RevokeSubject(t.Context(), "ada"); indexed && (n != 1 || err != nil) {
			t.Error(n, err)
		} else if indexed {
			w.event("ended", sess.ID())
		}
		w.end()
	}
}

func TestWatchGoesOnAfterAFailure(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	p := newProgram(t, "redis://"+server.Addr(), server.Client(t), echosession.Config{SubjectIndex: true})
	kept, lost := p.login(t, "ada"), p.login(t, "ada")
	w := startWatch(t, "-timeout", "1s", "-keyspace", p.keyspace, p.url)
	server.Kill()
	w.notice("Redis does not answer: ")
	w.notice("Redis does not tell of ends any more: ")
	server.Restart(t)
	w.notice("Redis answers again.")
	w.notice("Redis tells of ends again.")
	w.event("ended", logout(t, lost))
	later := p.login(t, "ada")
	w.event("created", later.ID())
	if kinds := w.of(kept.ID()); len(kinds) > 0 {
		t.Errorf("the session that was there all the time: %q", kinds)
	}
	if last := w.end(); last != "1 created, 1 ended or expired" {
		t.Errorf("it says at last %q", last)
	}
}

// Who interrupts it waits for no server.
func TestWatchEndsWhileTheServerIsSilent(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	p := newProgram(t, "redis://"+server.Addr(), server.Client(t), echosession.Config{})
	w := startWatch(t, "-timeout", "30s", "-keyspace", p.keyspace, p.url)
	server.Pause(t)
	t.Cleanup(func() { server.Resume(t) })
	time.Sleep(200 * time.Millisecond)
	if last := w.end(); last != "0 created, 0 ended or expired" {
		t.Errorf("it says at last %q", last)
	}
}

// Without the right to subscribe, ends are found by looking.
func TestWatchWithFewRights(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	p := newProgram(t, "redis://"+server.Addr(), server.Client(t), echosession.Config{SubjectIndex: true})
	for _, rights := range []string{
		"+get +getrange +strlen +pttl +scan",
		"+get +getrange +pttl +scan +evalsha +eval +zscore",
	} {
		args := []any{"acl", "setuser", "operator", "reset", "on", ">secret", "~" + p.keyspace[:4] + "*"}
		for right := range strings.FieldsSeq(rights) {
			args = append(args, right)
		}
		must(t, p.client.Do(t.Context(), args...).Err())
		sess := p.login(t, "ada")
		w := startWatch(t, "-keyspace", p.keyspace, "-password-file", fileOf(t, "secret"), "redis://operator@"+server.Addr())
		w.notice("Redis does not tell of ends: ")
		w.event("ended", logout(t, sess))
		old := p.login(t, "ada")
		w.event("created", old.ID())
		w.event("ended", logout(t, old))
		w.end()
	}
}

// With the right to subscribe alone, the key of a session tells what became of it.
func TestWatchWithoutScripts(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	p := newProgram(t, "redis://"+server.Addr(), server.Client(t), echosession.Config{SubjectIndex: true, RotateGrace: 10 * time.Minute})
	must(t, p.client.Do(t.Context(), "acl", "setuser", "operator", "reset", "on", ">secret", "~"+p.keyspace[:4]+"*", "&*",
		"+get", "+getrange", "+strlen", "+pttl", "+scan", "+subscribe", "+publish").Err())
	first, sess := p.login(t, "ada"), p.login(t, "ada")
	w := startWatch(t, "-keyspace", p.keyspace, "-password-file", fileOf(t, "secret"), "redis://operator@"+server.Addr())
	w.event("ended", logout(t, first))
	from := sess.ID()
	rotate(t, sess)
	w.event("ended", from) // its key leads on for ten minutes
	w.event("created", sess.ID())
	if list := w.stderr.list(); len(list) != 1 {
		t.Errorf("it says %q", list)
	}
	w.end()
}

// A rotation that was heard of comes before the look that finds the successor.
func TestASuccessorIsNoNewSession(t *testing.T) {
	t.Parallel()
	for _, indexed := range []bool{true, false} {
		p := onShared(t, echosession.Config{SubjectIndex: indexed})
		var stdout, stderr strings.Builder
		out := &eventWriter{stdout: &stdout, stderr: &stderr}
		inv := &invocation{args: []string{p.url}, stderr: &stderr, getenv: func(string) string { return "" }}
		f := &watchFlags{site: siteFlags{target: target{keyspace: p.keyspace, timeout: time.Second}}, limit: 10, interval: time.Hour}
		w, err := openWalker(t.Context(), inv, &f.site)
		if err != nil {
			t.Fatal(err)
		}
		defer w.client.Close()
		o := newObserver(f, w, out)
		sess := p.login(t, "ada")
		must(t, o.look(t.Context()))
		from := sess.ID()
		rotate(t, sess)
		o.hints.tell(echosession.Hint{IDs: []string{from}})
		must(t, o.look(t.Context()))
		if text := stdout.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "rotated    "+from) {
			t.Errorf("it writes %s", text)
		}
		// Where any session may have ended, the pause is over.
		o.hints.tell(echosession.Hint{All: true})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if o.attend(ctx, time.Hour, true); ctx.Err() != nil || !o.again {
			t.Error("it goes on waiting")
		}
	}
}

func TestWatchBoundsItsMemory(t *testing.T) {
	t.Parallel()
	p := onShared(t, echosession.Config{})
	for range 5 {
		p.login(t, "ada")
	}
	w := startWatch(t, "-limit", "3", "-keyspace", p.keyspace, p.url)
	if line := w.notice("watching "); !strings.HasPrefix(line, "watching 3 sessions. ") {
		t.Errorf("it says %q", line)
	}
	w.notice("there are more than 3 keys of sessions")
	w.end()
}

// The help says how much memory a session takes.
func TestWatchKeepsLittle(t *testing.T) {
	const n = 200_000
	o := newObserver(&watchFlags{}, nil, nil)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range n {
		v := visit{rec: record{subject: fmt.Sprint("user-", 1_000_000+i)}}
		binary.BigEndian.PutUint64(v.key.id[:], uint64(i))
		o.enter(v, true)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / n
	if each < 60 || each > 150 || len(o.known) != n {
		t.Errorf("%d sessions take %d bytes each", len(o.known), each)
	}
	t.Logf("%d bytes each", each)
}

func TestWatchSaysWhyItCannotBegin(t *testing.T) {
	t.Parallel()
	invoke(t, environment{}, "watch", "redis://127.0.0.1:1").wants(t, exitUnknown, "no connection to Redis")
	invoke(t, environment{}, "watch", "-interval", "0s", "redis://127.0.0.1:1").wants(t, exitUnknown, "-interval and -limit are above zero")
	invoke(t, environment{}, "watch", "redis://127.0.0.1:1", "more").wants(t, exitUnknown, "the only argument")
	invoke(t, environment{}, "stats", "-sample", "-1", "redis://127.0.0.1:1").wants(t, exitUnknown, "0 or more")
}

func TestEventsForPeople(t *testing.T) {
	t.Parallel()
	var stdout, stderr strings.Builder
	w := &eventWriter{stdout: &stdout, stderr: &stderr, failed: func() { t.Error("it failed") }}
	at := time.Date(2026, 11, 24, 18, 30, 5, 42e6, time.Local)
	created := at.Add(-90 * time.Second)
	const id, to = "0b6f3a8e-6d0c-4c1e-9a53-0d7c6a1b2c3d", "1b6f3a8e-6d0c-4c1e-9a53-0d7c6a1b2c3d"
	w.write(event{Time: at, Event: "rotated", ID: id, LogID: "abcdefghijkl", Subject: "ada\x1b[2J\n", CreatedAt: &created, To: to, ToLogID: "mnopqrstuvwx"})
	w.write(event{Time: at, Event: "ended", ID: id, LogID: "abcdefghijkl"})
	must(t, w.close())
	w.write(event{Event: "too late"})
	w.notice("too late")
	want := `18:30:05.042  rotated    ` + id + `  abcdefghijkl  ada\u001b[2J\u000a  age 1m 30s  to ` + to + "  mnopqrstuvwx\n" +
		`18:30:05.042  ended      ` + id + "  abcdefghijkl  -\n"
	if stdout.String() != want || stderr.String() != "0 created, 1 ended or expired\n" {
		t.Errorf("it writes %s%s", stdout.String(), stderr.String())
	}

	broken, pipe := io.Pipe()
	_ = broken.Close()
	failed := 0
	w = &eventWriter{stdout: pipe, stderr: &stderr, failed: func() { failed++ }}
	w.write(event{Event: "ended"})
	w.write(event{Event: "ended"})
	if err := w.close(); err != io.ErrClosedPipe || failed != 1 {
		t.Error(err, failed)
	}
}

// Hints are bounded.
func TestManyHintsAreOne(t *testing.T) {
	t.Parallel()
	h := &hints{news: make(chan struct{}, 1)}
	for range mostHints + 2 {
		h.tell(echosession.Hint{IDs: []string{"id"}})
	}
	if ids, matches, all := h.take(); len(ids)+len(matches) > 0 || !all {
		t.Error(len(ids), len(matches), all)
	}
	h.tell(echosession.Hint{IDs: []string{"id"}})
	if ids, _, all := h.take(); len(ids) != 1 || all {
		t.Error(ids, all)
	}
}
