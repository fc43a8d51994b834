package echosession_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// Every test that SECURITY.md names is there.
func TestSecurityNamesTests(t *testing.T) {
	there := make(map[string]bool)
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil {
				there[f.Name.Name] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	named := make(map[string]bool)
	for _, m := range regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w*)`").FindAllStringSubmatch(readFile(t, "SECURITY.md"), -1) {
		if !there[m[1]] && !named[m[1]] {
			t.Errorf("there is no %s", m[1])
		}
		named[m[1]] = true
	}
	if len(named) < 70 {
		t.Errorf("SECURITY.md names %d tests", len(named))
	}
}

// Whoever writes to Redis can make it look as if a session had been rotated to
// another one, whose record is genuine.
func TestForgedRotation(t *testing.T) {
	server := redistest.Start(t)
	client := server.Client(t)
	keyspace := newKeyspace()
	m := newManager[User](t, echosession.Config{
		Client: client, Secret: testSecret, Keyspace: keyspace,
		EncryptionKeys: [][]byte{[]byte("thirty-two bytes to encrypt with")},
	})
	create := func(subject string) *echosession.Session[User] {
		sess, err := m.Create(t.Context(), User{Name: subject}, echosession.WithSubject(subject))
		if err != nil {
			t.Fatal(err)
		}
		return sess
	}
	own, other, victim := create("mallory"), create("mallory"), create("ada")
	opened := create("mallory")
	lead := func(from, to *echosession.Session[User]) {
		pointer := "\xc1" + from.ID() + to.ID() + fmt.Sprint(time.Now().Add(time.Hour).UnixMilli())
		err := client.SetArgs(t.Context(), keyspace+from.ID(), pointer, redis.SetArgs{Mode: "XX", KeepTTL: true}).Err()
		if err != nil {
			t.Fatal(err)
		}
	}

	token := own.Token()
	lead(own, other) // the same subject: the mark is as it should be
	if sess, err := m.Open(t.Context(), token); err != nil || sess.ID() != other.ID() {
		t.Fatalf("%v, %v", sess.Reason(), err)
	}
	lead(opened, victim)
	if err := opened.Reload(t.Context()); !errors.Is(err, echosession.ErrCorrupt) || opened.Data().Name == "ada" {
		t.Errorf("Reload: %v, %+v", err, opened.Data())
	}
	if err := opened.Update(t.Context(), func(u *User) error { u.Name = "eve"; return nil }); err == nil {
		t.Error("Update went to somebody else's session")
	}
	sess, err := m.Open(t.Context(), opened.Token())
	if err != nil || sess.Exists() || !errors.Is(sess.Reason(), echosession.ErrCorrupt) || sess.Data().Name != "" {
		t.Errorf("Open: %v, %v, %+v", err, sess.Reason(), sess.Data())
	}
	if again, err := m.Open(t.Context(), victim.Token()); err != nil || again.Data().Name != "ada" {
		t.Errorf("the victim has %+v, %v", again.Data(), err)
	}
}

// Whoever writes to Redis can put a genuine record into the index of another
// subject.
func TestForgedIndex(t *testing.T) {
	client := redistest.Start(t).Client(t)
	keyspace := newKeyspace()
	m := newManager[User](t, echosession.Config{
		Client: client, Secret: testSecret, Keyspace: keyspace, SubjectIndex: true,
		EncryptionKeys: [][]byte{[]byte("thirty-two bytes to encrypt with")},
	})
	create := func(subject string) (id, key, index string) {
		sess, err := m.Create(t.Context(), User{Name: subject}, echosession.WithSubject(subject))
		if err != nil {
			t.Fatal(err)
		}
		keys := client.Keys(t.Context(), keyspace+"*:"+sess.ID()).Val()
		if len(keys) != 1 {
			t.Fatalf("the keys are %q", keys)
		}
		return sess.ID(), keys[0], strings.TrimSuffix(keys[0], ":"+sess.ID())
	}
	own, _, index := create("mallory")
	victim, key, _ := create("ada")
	if n, err := client.Copy(t.Context(), key, index+":"+victim, 0, false).Result(); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := client.ZAdd(t.Context(), index, redis.Z{Score: 1, Member: victim}).Result(); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	sessions, err := m.List(t.Context(), "mallory")
	if err != nil || len(sessions) != 1 || sessions[0].ID() != own {
		t.Errorf("%d sessions, %v", len(sessions), err)
	}
}
