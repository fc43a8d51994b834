package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// A program is one that keeps sessions in Redis, as users of the library write it.
type program struct {
	*echosession.Manager[user]
	client   redis.UniversalClient
	keyspace string
	url      string
}

var keyspaces atomic.Int64

// newProgram makes a program with a keyspace of its own.
func newProgram(t *testing.T, url string, client redis.UniversalClient, cfg echosession.Config) *program {
	t.Helper()
	p := &program{client: client, url: url, keyspace: fmt.Sprintf("cli%d[*]:", keyspaces.Add(1))}
	cfg.Client, cfg.Secret, cfg.Keyspace = client.(echosession.RedisClient), testSecret, p.keyspace
	var err error
	if p.Manager, err = echosession.New[user](cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// onShared makes a program whose Redis the tests share.
func onShared(t *testing.T, cfg echosession.Config) *program {
	t.Helper()
	server := redistest.Shared(t)
	return newProgram(t, "redis://"+server.Addr(), server.Client(t), cfg)
}

// login makes a session.
func (p *program) login(t *testing.T, subject string, opts ...echosession.CreateOption) *echosession.Session[user] {
	t.Helper()
	if subject != "" {
		opts = append(opts, echosession.WithSubject(subject))
	}
	sess, err := p.Create(t.Context(), ada, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return sess
}

// isLive asks whether a session is there.
func isLive(t *testing.T, sess *echosession.Session[user]) bool {
	t.Helper()
	return sess.Check(t.Context()) == nil
}

// cli runs the command for this program's Redis.
func (p *program) cli(t *testing.T, args ...string) outcome {
	t.Helper()
	return invoke(t, environment{}, append(args, "-keyspace", p.keyspace, p.url)...)
}

// views reads what list -json writes.
func views(t *testing.T, o outcome) (list []view) {
	t.Helper()
	if o.code != exitOK {
		t.Fatalf("list ended with %d:\n%s", o.code, o.all())
	}
	for line := range strings.Lines(o.stdout) {
		var v view
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		list = append(list, v)
	}
	return list
}

func idsOf(list []view) (ids []string) {
	for _, v := range list {
		ids = append(ids, v.ID)
	}
	slices.Sort(ids)
	return ids
}

func sorted(sessions ...*echosession.Session[user]) (ids []string) {
	for _, s := range sessions {
		ids = append(ids, s.ID())
	}
	slices.Sort(ids)
	return ids
}

func fileOf(t *testing.T, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

const sealFile = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=\n"

// layouts are the two ways in which Redis keeps sessions.
var layouts = []struct {
	name    string
	indexed bool
}{{"each on its own", false}, {"indexed by subject", true}}

func TestList(t *testing.T) {
	t.Parallel()
	for _, layout := range layouts {
		t.Run(layout.name, func(t *testing.T) {
			t.Parallel()
			testList(t, onShared(t, echosession.Config{SubjectIndex: layout.indexed}))
		})
	}
}

func testList(t *testing.T, p *program) {
	p.cli(t, "list").wants(t, exitOK, "0 sessions")
	first := p.login(t, "ada", echosession.WithDevice("Firefox \x1b[2Jon Linux"))
	second := p.login(t, "ada", echosession.WithActor("root"))
	bob := p.login(t, "bob")
	guest := p.login(t, "")

	all := p.cli(t, "list")
	all.wants(t, exitOK, "SUBJECT", "4 sessions", first.ID(), first.LogID(), "Firefox \\u001b[2Jon Linux", "(used by root)", "in 24 hours")
	all.hides(t, "\x1b", "Ada", first.Token(), strings.Split(first.Token(), ".")[2], "unreadable", "planted")
	if n := strings.Count(all.stdout, "\n"); n != 5 {
		t.Errorf("the list has %d lines:\n%s", n, all.stdout)
	}

	list := views(t, p.cli(t, "list", "-json"))
	if got, want := idsOf(list), sorted(first, second, bob, guest); !slices.Equal(got, want) {
		t.Errorf("it lists %q, and there are %q", got, want)
	}
	for _, v := range list {
		if v.LogID != echosession.LogID(v.ID) || v.Size == 0 || v.Codec != codecMsgpack || v.CreatedAt.IsZero() || v.LastUsedAt.IsZero() ||
			time.Until(v.ExpiresAt) < 23*time.Hour || v.Data != nil || v.Key != "" {
			t.Errorf("a line says %+v", v)
		}
	}
	ofAda := p.cli(t, "list", "-json", "-subject", "ada")
	if got, want := idsOf(views(t, ofAda)), sorted(first, second); !slices.Equal(got, want) {
		t.Errorf("of ada it lists %q, and there are %q", got, want)
	}
	if scanned := strings.Contains(ofAda.stderr, "there is no index"); scanned == strings.Contains(t.Name(), "indexed") {
		t.Errorf("does it use the index?\n%s", ofAda.stderr)
	}
	p.cli(t, "list", "-subject", "nobody").wants(t, exitOK, "0 sessions")
	limited := p.cli(t, "list", "-limit", "2", "-json")
	limited.wants(t, exitOK, "as many as -limit says")
	if n := len(views(t, limited)); n != 2 {
		t.Errorf("with -limit 2 it lists %d", n)
	}
}

// An encrypted session is listed with what stands in clear, and with its key in full.
func TestListEncrypted(t *testing.T) {
	t.Parallel()
	for _, layout := range layouts {
		t.Run(layout.name, func(t *testing.T) {
			t.Parallel()
			p := onShared(t, echosession.Config{SubjectIndex: layout.indexed, EncryptionKeys: [][]byte{testSeal}})
			sess := p.login(t, "ada", echosession.WithDevice("Firefox"))
			closed := p.cli(t, "list")
			closed.wants(t, exitOK, sess.ID(), "unreadable: it is encrypted and there is no key", "1 session, 1 of which cannot be read")
			closed.hides(t, "Firefox", " ada ")
			keys := fileOf(t, sealFile)
			open := p.cli(t, "list", "-encryption-key-file", keys)
			open.wants(t, exitOK, sess.ID(), "Firefox", "ada")
			open.hides(t, "unreadable", strings.TrimSpace(sealFile), keys)
			if list := views(t, p.cli(t, "list", "-json", "-encryption-key-file", keys, "-subject", "ada")); len(list) != 1 || !list[0].Sealed || list[0].Subject != "ada" {
				t.Errorf("of ada it lists %+v", list)
			}

			// The index says whose an encrypted session is. Without it nobody can know.
			hidden := p.cli(t, "list", "-json", "-subject", "ada")
			if n := len(views(t, hidden)); n != toInt(layout.indexed) {
				t.Errorf("of ada it lists %d sessions without the key", n)
			}
			if !layout.indexed {
				hidden.wants(t, exitOK, "1 more session cannot be read, and may be of this subject")
			}
			p.cli(t, "list", "-encryption-key-file", "./absent").wants(t, exitUnknown, "-encryption-key-file", "./absent")
		})
	}
}

func TestShow(t *testing.T) {
	t.Parallel()
	for _, layout := range layouts {
		t.Run(layout.name, func(t *testing.T) {
			t.Parallel()
			testShow(t, onShared(t, echosession.Config{SubjectIndex: layout.indexed, RotateGrace: time.Hour}))
		})
	}
}

func testShow(t *testing.T, p *program) {
	sess := p.login(t, "ada", echosession.WithDevice("Firefox"), echosession.Remember(48*time.Hour))
	p.login(t, "bob")
	for _, args := range [][]string{{"show", sess.ID()}, {"show", strings.ToUpper(sess.ID())}, {"show", sess.LogID()}, {"show", "-subject", "ada", sess.ID()}} {
		o := p.cli(t, args...)
		o.wants(t, exitOK, `"id": "`+sess.ID(), `"log_id": "`+sess.LogID(), `"subject": "ada"`, `"device": "Firefox"`, `"idle_timeout": "48h0m0s"`, `"remembered": true`, `"codec": "msgpack"`)
		o.hides(t, `"data"`, "Ada", sess.Token(), "unreadable", "not_in_index")
	}
	p.cli(t, "show", "-data", sess.ID()).wants(t, exitOK, `"Name": "Ada <b>"`, `"7": "window"`)
	line := p.cli(t, "show", "-data", "-json", sess.ID())
	line.wants(t, exitOK, `"data":`+adaJSON)
	if strings.Count(line.stdout, "\n") != 1 {
		t.Errorf("-json takes several lines:\n%s", line.stdout)
	}
	if before := sess.ExpiresAt(); sess.Reload(t.Context()) != nil || sess.ExpiresAt().Before(before) {
		t.Error("show has shortened the session's life")
	}

	// What a session leaves behind says where it went.
	old := sess.ID()
	if _, err := sess.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.cli(t, "show", old).wants(t, exitOK, "was rotated: it goes on as "+sess.ID(), `"state": "rotated"`, `"successor": "`+sess.ID())
	old = sess.ID()
	if _, err := sess.Renew(t.Context(), func(*user) error { return nil }); err != nil {
		t.Fatal(err)
	}
	p.cli(t, "show", old).wants(t, exitWarning, "has ended", "renewed it as "+sess.ID(), `"state": "renewed"`)

	const absent = "0b6f3a8e-6d0c-4c1e-9a53-0d7c6a1b2c3d"
	for _, name := range []string{absent, echosession.LogID(absent)} {
		o := p.cli(t, "show", name)
		o.wants(t, exitWarning, "there is no session "+name, p.keyspace)
		if o.stdout != "" {
			t.Errorf("it writes %s", o.stdout)
		}
	}
	invoke(t, environment{}, "show", sess.ID(), p.url, "-keyspace", "other:").wants(t, exitWarning, "there is no session")
}

// A record that cannot be read, or that no request finds, is critical and says why.
func TestShowWhatIsWrong(t *testing.T) {
	t.Parallel()
	p := onShared(t, echosession.Config{SubjectIndex: true, EncryptionKeys: [][]byte{testSeal}, AllowPlaintext: true})
	sess := p.login(t, "ada")
	p.cli(t, "show", "-data", sess.ID()).wants(t, exitCritical, `"encrypted": true`, `"created_at"`, "it is encrypted and there is no key", `"unreadable"`)
	wrong := fileOf(t, "YW5vdGhlciBrZXkgb2YgZXhhY3RseSAzMiBieXRlcyE=\n")
	p.cli(t, "show", "-encryption-key-file", wrong, sess.ID()).wants(t, exitCritical, "no encryption key opens it")
	open := p.cli(t, "show", "-data", "-encryption-key-file", fileOf(t, sealFile), sess.ID())
	open.wants(t, exitOK, `"Name": "Ada <b>"`, `"subject": "ada"`)

	var key string
	if err := json.Unmarshal([]byte(regexp.MustCompile(`"key": (".*")`).FindStringSubmatch(open.stdout)[1]), &key); err != nil {
		t.Fatal(err)
	}
	index := strings.TrimSuffix(key, ":"+sess.ID())
	if err := p.client.ZRem(t.Context(), index, sess.ID()).Err(); err != nil {
		t.Fatal(err)
	}
	keys := fileOf(t, sealFile)
	p.cli(t, "show", "-encryption-key-file", keys, sess.ID()).wants(t, exitCritical, "not in the index of its subject: no request finds it", `"not_in_index": true`)

	// What other programs do to keys.
	for id, write := range map[string]struct {
		do   func(key string) error
		want string
	}{
		"00000000-0000-4000-8000-000000000001": {func(key string) error {
			return p.client.Set(t.Context(), key, "\x9bnothing", time.Hour).Err()
		}, "does not begin as a record does"},
		"00000000-0000-4000-8000-000000000002": {func(key string) error {
			record, err := p.client.Get(t.Context(), index+":"+sess.ID()).Result()
			if err == nil {
				err = p.client.Set(t.Context(), key, record, 0).Err()
			}
			return err
		}, "its key never expires"},
		"00000000-0000-4000-8000-000000000003": {func(key string) error {
			record, err := p.client.Get(t.Context(), index+":"+sess.ID()).Result()
			if err == nil {
				err = p.client.Set(t.Context(), key, record, time.Hour).Err()
			}
			return err
		}, "it is the record of the session " + sess.ID()},
	} {
		if err := write.do(p.keyspace + id); err != nil {
			t.Fatal(err)
		}
		p.cli(t, "show", "-encryption-key-file", keys, id).wants(t, exitCritical, write.want, `"id": "`+id)
	}
	const list = "00000000-0000-4000-8000-000000000004"
	if err := p.client.RPush(t.Context(), p.keyspace+list, "x").Err(); err != nil {
		t.Fatal(err)
	}
	p.client.Expire(t.Context(), p.keyspace+list, time.Hour)
	p.cli(t, "show", list).wants(t, exitUnknown, "holds no string")
	invoke(t, environment{}, "list", "-keyspace", "{}:", p.url).wants(t, exitUnknown, "-keyspace")
}

// answering is a terminal at which somebody writes.
type answering struct{ io.Reader }

func (answering) isTerminal() bool { return true }

func (p *program) answered(t *testing.T, answer string, args ...string) outcome {
	t.Helper()
	return invoke(t, environment{stdin: answering{strings.NewReader(answer)}}, append(args, "-keyspace", p.keyspace, p.url)...)
}

func TestRevokeOne(t *testing.T) {
	t.Parallel()
	for _, layout := range layouts {
		t.Run(layout.name, func(t *testing.T) {
			t.Parallel()
			testRevokeOne(t, onShared(t, echosession.Config{SubjectIndex: layout.indexed, RotateGrace: time.Hour}))
		})
	}
}

func testRevokeOne(t *testing.T, p *program) {
	sess, spared := p.login(t, "ada"), p.login(t, "ada")
	id := sess.ID()
	watched, stop := sess.Watch(t.Context())
	defer stop()

	p.cli(t, "revoke", id).wants(t, exitUnknown, "there is no terminal to ask: use -yes")
	for _, answer := range []string{"n\n", "\n", "", "yesterday\n"} {
		p.answered(t, answer, "revoke", id).wants(t, exitWarning, "Revoke the session "+id+" of ada? [y/N]", "Nothing was revoked")
	}
	if !isLive(t, sess) {
		t.Fatal("it was revoked without a yes")
	}
	p.answered(t, "Y\n", "revoke", id).wants(t, exitOK, "? [y/N]", id+"  "+sess.LogID()+"  ada\n", "Revoked 1 session.")
	if isLive(t, sess) || !isLive(t, spared) {
		t.Error("it is live, or another is not")
	}
	select {
	case <-watched.Done():
	case <-time.After(10 * time.Second):
		t.Error("the watch was not told")
	}
	p.cli(t, "revoke", "-yes", id).wants(t, exitWarning, "there is no session", "Revoked 0 sessions")

	// By its log ID, as JSON, and without a subject.
	guest := p.login(t, "")
	want := fmt.Sprintf(`{"sessions":[{"id":%q,"log_id":%q}],"revoked":1,"left":0}`+"\n", guest.ID(), guest.LogID())
	if o := p.cli(t, "revoke", "-json", "-yes", guest.LogID()); o.code != exitOK || o.stdout != want {
		t.Errorf("%d, %s", o.code, o.all())
	}
	if o := p.cli(t, "revoke", "-json", "-yes", guest.LogID()); o.code != exitWarning || o.stdout != `{"sessions":[],"revoked":0,"left":0}`+"\n" {
		t.Errorf("%d, %s", o.code, o.all())
	}
	if isLive(t, guest) {
		t.Error("the guest is live")
	}

	// A rotated session ends by its old ID; a renewed one does not.
	old := spared.ID()
	if _, err := spared.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	rotatedTo := spared.ID()
	if _, err := spared.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.cli(t, "revoke", "-yes", old).wants(t, exitOK, spared.ID()+"  "+spared.LogID()+"  ada\n", "Revoked 1 session.")
	if isLive(t, spared) {
		t.Error("the successor is live")
	}
	p.cli(t, "show", rotatedTo).wants(t, exitWarning, "there is no session")
	renewed := p.login(t, "ada")
	old = renewed.ID()
	if _, err := renewed.Renew(t.Context(), func(*user) error { return nil }); err != nil {
		t.Fatal(err)
	}
	p.cli(t, "revoke", "-yes", old).wants(t, exitWarning, "was renewed: it leads to no session", "Revoked 0 sessions")
	if !isLive(t, renewed) {
		t.Error("the session after the login has ended")
	}
}

func TestRevokeSubject(t *testing.T) {
	t.Parallel()
	for _, layout := range layouts {
		t.Run(layout.name, func(t *testing.T) {
			t.Parallel()
			testRevokeSubject(t, onShared(t, echosession.Config{SubjectIndex: layout.indexed}))
		})
	}
}

func testRevokeSubject(t *testing.T, p *program) {
	one, two, spared, bob := p.login(t, "ada"), p.login(t, "ada"), p.login(t, "ada"), p.login(t, "bob")
	p.answered(t, "no\n", "revoke", "-subject", "ada").wants(t, exitWarning, "Revoke 3 sessions of ada? [y/N]", "Nothing was revoked")
	ended := p.answered(t, "yes\n", "revoke", "-subject", "ada", "-except", spared.ID())
	ended.wants(t, exitOK, one.ID()+"  "+one.LogID()+"  ada\n", two.ID()+"  "+two.LogID()+"  ada\n", "Revoked 2 sessions.")
	ended.hides(t, spared.LogID(), bob.LogID())
	if isLive(t, one) || isLive(t, two) || !isLive(t, spared) || !isLive(t, bob) {
		t.Error("the wrong sessions are live")
	}
	p.cli(t, "revoke", "-subject", "ada").wants(t, exitUnknown, "use -yes to revoke 1 session of ada")
	p.cli(t, "revoke", "-yes", "-subject", "ada").wants(t, exitOK, "Revoked 1 session.")
	p.cli(t, "revoke", "-subject", "nobody").wants(t, exitWarning, "there are no sessions of nobody", "Revoked 0 sessions")
	if !isLive(t, bob) {
		t.Error("bob's session has ended")
	}
}

// A revocation is what revoke -json writes.
type revocation struct {
	Sessions                []ending
	Revoked, Left, Unlisted int
}

func (r revocation) ids() (ids []string) {
	for _, e := range r.Sessions {
		ids = append(ids, e.ID)
	}
	slices.Sort(ids)
	return ids
}

func revocationOf(t *testing.T, o outcome) (r revocation) {
	t.Helper()
	if err := json.Unmarshal([]byte(o.stdout), &r); err != nil {
		t.Fatalf("%v in %s", err, o.all())
	}
	for _, e := range r.Sessions {
		if e.LogID != echosession.LogID(e.ID) {
			t.Errorf("the log ID of %s is not %s", e.ID, e.LogID)
		}
	}
	return r
}

// The sessions that were ended are listed, those that are encrypted too, and none that was
// spared by an ID that it had before a rotation.
func TestRevokeSubjectLists(t *testing.T) {
	t.Parallel()
	for _, key := range [][][]byte{nil, {testSeal}} {
		p := onShared(t, echosession.Config{SubjectIndex: true, RotateGrace: time.Hour, EncryptionKeys: key})
		one, two, spared := p.login(t, "ada"), p.login(t, "ada"), p.login(t, "ada")
		old := spared.ID()
		if _, err := spared.Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
		log := revocationOf(t, p.cli(t, "revoke", "-yes", "-json", "-subject", "ada", "-except", old))
		if !slices.Equal(log.ids(), sorted(one, two)) || log.Revoked != 2 || log.Left != 0 || log.Unlisted != 0 || log.Sessions[0].Subject != "ada" {
			t.Errorf("%+v; they are %q", log, sorted(one, two))
		}
		if !isLive(t, spared) {
			t.Error("the session that was to be spared has ended")
		}
	}
}

// Of more sessions than a list has, the newest are listed, and it says how many more ended.
func TestRevokeMoreThanAreListed(t *testing.T) {
	t.Parallel()
	p := onShared(t, echosession.Config{SubjectIndex: true})
	fill := func() {
		many(t, p.client, echosession.Config{Keyspace: p.keyspace, SubjectIndex: true}, echosession.MaxListed+3, func(int) (age, unused time.Duration, opts []echosession.CreateOption) {
			return 0, 0, []echosession.CreateOption{echosession.WithSubject("ada")}
		})
	}
	fill()
	log := revocationOf(t, p.cli(t, "revoke", "-yes", "-json", "-subject", "ada"))
	if len(log.Sessions) != echosession.MaxListed || log.Revoked != echosession.MaxListed+3 || log.Unlisted != 3 {
		t.Errorf("%d are listed, %d have ended, %d more than are listed", len(log.Sessions), log.Revoked, log.Unlisted)
	}
	fill()
	p.cli(t, "revoke", "-yes", "-subject", "ada").wants(t, exitOK, "Revoked 1,003 sessions, 3 of which could not be listed.")
}

// A brokenStore fails in the middle of a revocation.
type brokenStore struct {
	echosession.Store
	deleted error // what DeleteSubject returns
	lists   int   // how many calls of List work
}

func (s *brokenStore) DeleteSubject(ctx context.Context, subject string, except []string) (int, error) {
	if s.deleted != nil {
		return 0, s.deleted
	}
	return s.Store.DeleteSubject(ctx, subject, except)
}

func (s *brokenStore) List(ctx context.Context, subject string) ([]echosession.Entry, error) {
	if s.lists--; s.lists < 0 {
		return nil, echosession.ErrStoreUnavailable
	}
	return s.Store.List(ctx, subject)
}

// When a revocation breaks off, it claims no more than it knows: nothing has ended before the
// first list, some may have in the middle, and all have behind it.
func TestRevokeThatBreaksOff(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		store          brokenStore
		except         bool
		stdout, stderr string // %s is the session
		live           bool
	}{
		"before":                  {brokenStore{}, false, "", "", true},
		"in the middle":           {brokenStore{lists: 1, deleted: echosession.ErrIndeterminate}, false, `{"sessions":[],"revoked":0,"left":0}` + "\n", "Some or all of these sessions may have ended:\n%s\n", true},
		"at the beginning":        {brokenStore{lists: 1, deleted: echosession.ErrStoreUnavailable}, false, `{"sessions":[],"revoked":0,"left":0}` + "\n", "", true},
		"behind it, with -except": {brokenStore{lists: 1}, true, `{"sessions":[],"revoked":1,"unlisted":1,"left":0}` + "\n", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := onShared(t, echosession.Config{SubjectIndex: true})
			sess := p.login(t, "ada")
			var stdout, stderr strings.Builder
			inv := &invocation{args: []string{p.url}, stdout: &stdout, stderr: &stderr, getenv: func(string) string { return "" }}
			r := &revokeFlags{site: siteFlags{target: target{keyspace: p.keyspace, timeout: 5 * time.Second}}, subject: "ada", yes: true, json: true}
			if tt.except {
				r.except = []string{p.login(t, "ada").ID()}
			}
			s, err := r.site.open(t.Context(), inv)
			must(t, err)
			defer s.client.Close()
			tt.store.Store, s.store = s.store, &tt.store
			code, err := r.revokeIndexed(t.Context(), inv, s)
			wantErr := strings.ReplaceAll(tt.stderr, "%s", sess.ID()+"  "+sess.LogID()+"  ada")
			if code != exitUnknown || err == nil || stdout.String() != tt.stdout || stderr.String() != wantErr {
				t.Errorf("%d, %v\n%s\n%s", code, err, &stdout, &stderr)
			}
			if isLive(t, sess) != tt.live {
				t.Errorf("the session is live: %v", !tt.live)
			}
		})
	}
}

// Sessions that cannot be read are not ended by a guess at their subject, and are counted.
func TestRevokeEncrypted(t *testing.T) {
	t.Parallel()
	for _, layout := range layouts {
		t.Run(layout.name, func(t *testing.T) {
			t.Parallel()
			p := onShared(t, echosession.Config{SubjectIndex: layout.indexed, EncryptionKeys: [][]byte{testSeal}})
			one, two, three := p.login(t, "ada"), p.login(t, "ada"), p.login(t, "ada")
			keys := fileOf(t, sealFile)
			if layout.indexed {
				p.cli(t, "revoke", "-yes", one.ID()).wants(t, exitUnknown, "-encryption-key-file opens it")
				p.cli(t, "revoke", "-yes", one.ID(), "-subject", "bob").wants(t, exitWarning, "there is no session")
				p.cli(t, "revoke", "-yes", one.ID(), "-subject", "ada").wants(t, exitOK, "Revoked 1 session.")
			} else {
				p.cli(t, "revoke", "-yes", "-subject", "ada").wants(t, exitWarning, "Revoked 0 sessions", "3 more sessions cannot be read, and may be meant too")
				p.cli(t, "revoke", "-yes", one.ID()).wants(t, exitOK, "Revoked 1 session.")
			}
			p.cli(t, "revoke", "-yes", two.ID(), "-encryption-key-file", keys).wants(t, exitOK, "Revoked 1 session.")
			if isLive(t, one) || isLive(t, two) || !isLive(t, three) {
				t.Error("the wrong sessions are live")
			}
			p.cli(t, "revoke", "-yes", "-subject", "ada", "-encryption-key-file", keys).wants(t, exitOK, "Revoked 1 session.")
			if isLive(t, three) {
				t.Error("it is live")
			}

			// What a codec wrote is told in clear, and where it is can be hidden.
			p.login(t, "ada")
			p.cli(t, "revoke", "-yes", "-codec", "other").wants(t, exitWarning, "Revoked 0 sessions")
			if layout.indexed {
				p.cli(t, "revoke", "-yes", "-codec", "msgpack").wants(t, exitWarning, "1 more session cannot be read")
			}
			p.cli(t, "revoke", "-yes", "-codec", "msgpack", "-encryption-key-file", keys).wants(t, exitOK, "Revoked 1 session.")
		})
	}
}

// After a release that has changed Config.Codec, the sessions of the old one are ended, and
// those that were made since stay.
func TestRevokeCodec(t *testing.T) {
	t.Parallel()
	for _, layout := range layouts {
		t.Run(layout.name, func(t *testing.T) {
			t.Parallel()
			testRevokeCodec(t, onShared(t, echosession.Config{SubjectIndex: layout.indexed}), layout.indexed)
		})
	}
}

func testRevokeCodec(t *testing.T, old *program, indexed bool) {
	next := &program{client: old.client, keyspace: old.keyspace, url: old.url}
	var err error
	next.Manager, err = echosession.New[user](echosession.Config{
		Client: old.client.(echosession.RedisClient), Secret: testSecret, Keyspace: old.keyspace, SubjectIndex: indexed, Codec: jsonCodec{},
	})
	if err != nil {
		t.Fatal(err)
	}
	var before, since []*echosession.Session[user]
	for i := range 40 { // more than there are workers
		before = append(before, old.login(t, fmt.Sprint("user", i%7)))
		since = append(since, next.login(t, fmt.Sprint("user", i%7)))
	}
	guest := old.login(t, "")
	before = append(before, guest)
	watched, stop := before[0].Watch(t.Context())
	defer stop()
	if v := views(t, old.cli(t, "list", "-json")); len(v) != 81 {
		t.Errorf("%d sessions are listed", len(v))
	}

	old.answered(t, "\n", "revoke", "-codec", "msgpack").wants(t, exitWarning, "Revoke 41 sessions whose data is MessagePack? [y/N]")
	ended := old.answered(t, "y\n", "revoke", "-codec", "msgpack")
	ended.wants(t, exitOK, "Revoked 41 sessions.")
	for _, sess := range before {
		ended.wants(t, exitOK, strings.TrimRight(sess.ID()+"  "+sess.LogID()+"  "+sess.Subject(), " ")+"\n")
	}
	for _, sess := range before {
		if isLive(t, sess) {
			t.Fatal("a session of the old release is live")
		}
	}
	select {
	case <-watched.Done():
	case <-time.After(10 * time.Second):
		t.Error("the watch was not told")
	}
	for _, sess := range since {
		if !isLive(t, sess) {
			t.Fatal("a session of the new release has ended")
		}
	}
	old.cli(t, "revoke", "-yes", "-codec", "msgpack").wants(t, exitWarning, "Revoked 0 sessions.")
	last := old.login(t, "ada")
	old.cli(t, "revoke", "-yes", "-codec", "other").wants(t, exitOK, "Revoked 40 sessions.")
	if !isLive(t, last) {
		t.Error("the last one has ended")
	}
	latest := next.login(t, "ada")
	if o := old.cli(t, "revoke", "-yes", "-json", "-codec", "all"); o.code != exitOK || !strings.HasSuffix(o.stdout, `],"revoked":2,"left":0}`+"\n") {
		t.Errorf("%d, %s", o.code, o.all())
	} else if log := revocationOf(t, o); !slices.Equal(log.ids(), sorted(last, latest)) {
		t.Errorf("it lists %q, and has ended %q", log.ids(), sorted(last, latest))
	}
	if n := redistest.AssertNoKeyWithoutTTL(t, old.client, old.keyspace); n != 0 && !indexed {
		t.Errorf("%d keys are left", n)
	}
}

// A subject's sessions end in both layouts: a program may have switched its index on, or
// another one may keep none.
func TestRevokeOfASubjectReachesBothLayouts(t *testing.T) {
	t.Parallel()
	p := onShared(t, echosession.Config{SubjectIndex: true})
	other := &program{client: p.client, url: p.url, keyspace: p.keyspace}
	var err error
	other.Manager, err = echosession.New[user](echosession.Config{Client: p.client.(echosession.RedisClient), Secret: testSecret, Keyspace: p.keyspace})
	must(t, err)
	indexed, plain, spared, stranger := p.login(t, "ada"), other.login(t, "ada"), other.login(t, "ada"), other.login(t, "bob")
	log := revocationOf(t, p.cli(t, "revoke", "-yes", "-json", "-subject", "ada", "-except", spared.ID()))
	if log.Revoked != 2 || len(log.Sessions) != 2 {
		t.Errorf("%+v", log)
	}
	for sess, live := range map[*echosession.Session[user]]bool{indexed: false, plain: false, spared: true, stranger: true} {
		if isLive(t, sess) != live {
			t.Errorf("the session of %s is live: %v", sess.Subject(), !live)
		}
	}
}

// What is no record of a session is left alone, whatever its key is called.
func TestRevokeLeavesOtherKeysAlone(t *testing.T) {
	t.Parallel()
	p := onShared(t, echosession.Config{})
	const id = "0b6f3a8e-6d0c-4c1e-9a53-0d7c6a1b2c3d"
	must(t, p.client.Set(t.Context(), p.keyspace+id, "a text of another program", time.Minute).Err())
	p.cli(t, "revoke", "-yes", id).wants(t, exitUnknown, "left alone")
	if n := p.client.Exists(t.Context(), p.keyspace+id).Val(); n != 1 {
		t.Error("the key of another program is gone")
	}
}
