// Package node_test carries sessions of the npm package jwt-redis-session over to
// echosession: the package itself makes them, on Node, in a real Redis.
package node_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

func TestMain(m *testing.M) {
	redistest.Main(m)
	if packages.dir != "" {
		_ = os.RemoveAll(packages.dir)
	}
}

// packages is the npm package, installed once, with the programs of this folder.
var packages struct {
	sync.Once
	dir     string
	missing string // the program that is not here
	err     error
}

// installed returns the folder of the packages, or skips the test where Node is absent.
func installed(t *testing.T) string {
	t.Helper()
	packages.Do(func() { packages.dir, packages.missing, packages.err = install() })
	switch {
	case packages.missing != "":
		t.Skipf("NOT CHECKED: %s is not in the PATH, so no session of the Node predecessor can be made", packages.missing)
	case packages.err != nil && os.Getenv("CI") == "true":
		t.Fatal(packages.err)
	case packages.err != nil:
		t.Skipf("NOT CHECKED: the packages that package-lock.json names could not be fetched: %v", packages.err)
	}
	return packages.dir
}

func install() (dir, missing string, err error) {
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			return "", program, nil
		}
	}
	// Not in the checkout: nothing may be left behind there.
	if dir, err = os.MkdirTemp("", "echosession-node-"); err != nil {
		return "", "", err
	}
	for _, name := range []string{"package.json", "package-lock.json", "server.js", "vectors.js"} {
		content, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), content, 0o600)
		}
		if err != nil {
			return dir, "", err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, "", fmt.Errorf("npm ci: %w: %s", err, out)
	}
	return dir, "", nil
}

// predecessor is a Node process with the npm package.
type predecessor struct {
	url      string
	secret   string
	alg      string
	keyspace string
	rdb      *redis.Client
}

// startNode starts a Node process that shares a Redis, and a keyspace of its own, with
// the Manager that replaces it.
func startNode(t *testing.T, secret, alg string) *predecessor {
	t.Helper()
	dir := installed(t)
	rdb := redistest.Shared(t).Client(t)
	p := &predecessor{secret: secret, alg: alg, keyspace: strings.ReplaceAll(t.Name(), "/", "-") + ":", rdb: rdb}
	t.Cleanup(func() { redistest.AssertNoKeyWithoutTTL(t, rdb, p.keyspace) })
	_, port, err := net.SplitHostPort(rdb.Options().Addr)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	options, err := json.Marshal(map[string]any{
		"redis": number, "secret": secret, "algorithm": alg, "keyspace": p.keyspace, "maxAge": 3600,
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", "server.js", string(options))
	cmd.Dir = dir
	var failure bytes.Buffer
	cmd.Stderr = &failure
	stdin, err := cmd.StdinPipe() // it ends when this is closed
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Wait() // its status says nothing
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("node: %v: %s", err, failure.String())
	}
	p.url = "http://127.0.0.1:" + strings.TrimSpace(line)
	return p
}

// call sends a request to Node and decodes the answer into v unless that is nil.
func (p *predecessor) call(t *testing.T, method, path, token string, body, v any) (status int) {
	t.Helper()
	status, err := p.send(t.Context(), method, path, token, body, v)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return status
}

func (p *predecessor) send(ctx context.Context, method, path, token string, body, v any) (status int, err error) {
	encoded, err := json.Marshal(body)
	if err != nil {
		return 0, err
	}
	r, err := http.NewRequestWithContext(ctx, method, p.url+path, bytes.NewReader(encoded))
	if err != nil {
		return 0, err
	}
	if token != "" {
		r.Header.Set("X-Access-Token", token)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && v != nil {
		err = json.Unmarshal(answer, v)
	}
	return resp.StatusCode, err
}

// login makes a session on Node.
func (p *predecessor) login(t *testing.T, data, claims any) (id, token string) {
	t.Helper()
	var made struct{ ID, Token string }
	if status := p.call(t, http.MethodPost, "/login", "", map[string]any{"data": data, "claims": claims}, &made); status != http.StatusOK || made.Token == "" {
		t.Fatal(status, made)
	}
	return made.ID, made.Token
}

// User is the data of the sessions, under the names that the Node service gave it.
type User struct {
	Name string   `json:"name"`
	Cart []string `json:"cart"`
	// What a Node service would never do, and what must not get through.
	JWT    string         `json:"jwt"`
	Claims map[string]any `json:"claims"`
}

var newSecret = []byte("the new secret, of more than 32 bytes")

// successor is the Manager that replaces the Node process.
func (p *predecessor) successor(t *testing.T, change ...func(*echosession.Config)) *echosession.Manager[User] {
	t.Helper()
	rdb, secret, nodeSecret := p.rdb, newSecret, []byte(p.secret)
	cfg := echosession.Config{
		Client: rdb,
		Keys: []echosession.SigningKey{
			{ID: "2026-11", Algorithm: "HS256", Key: secret},
			{Algorithm: "HS256", Key: nodeSecret, VerifyOnly: true, Legacy: true},
		},
		Import: json.Unmarshal,
	}
	cfg.Keys[1].Algorithm, cfg.Keyspace = p.alg, p.keyspace
	for _, fn := range change {
		fn(&cfg)
	}
	sessions, err := echosession.New[User](cfg)
	if err != nil {
		t.Fatal(err)
	}
	return sessions
}

func (p *predecessor) stored(t *testing.T, id string) string {
	t.Helper()
	value, err := p.rdb.Get(t.Context(), p.keyspace+id).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		t.Fatal(err)
	}
	return value
}

// opened opens a session that must be there.
func opened(t *testing.T, m *echosession.Manager[User], token string) *echosession.Session[User] {
	t.Helper()
	sess, err := m.Open(t.Context(), token)
	if err != nil || !sess.Exists() {
		t.Fatal(sess.Reason(), err)
	}
	return sess
}

type object = map[string]any

// Sessions of the package, with each algorithm and with secrets of every length, are
// read, updated and ended.
func TestCarriedOver(t *testing.T) {
	for _, tt := range []struct{ secret, alg string }{
		{"keyboard cat", "HS256"}, {"s", "HS256"}, {"schlüssel", "HS384"}, {strings.Repeat("0123456789abcdef", 5), "HS512"},
	} {
		t.Run(fmt.Sprint(tt.alg, len(tt.secret)), func(t *testing.T) {
			node := startNode(t, tt.secret, tt.alg)
			before := time.Now().Truncate(time.Second)
			id, token := node.login(t, object{"name": "Ada", "cart": []string{"tea"}}, object{"sub": 42, "role": "admin"})
			// After its update the package keeps the token in the session.
			if status := node.call(t, http.MethodPost, "/update", token, object{"name": "Ada Lovelace"}, nil); status != http.StatusOK {
				t.Fatal(status)
			}
			if value := node.stored(t, id); !strings.Contains(value, token) {
				t.Fatalf("Node stores no token: %s", value)
			}

			m := node.successor(t, func(c *echosession.Config) { c.EncryptionKeys = [][]byte{bytes.Repeat([]byte{7}, 32)} })
			sess := opened(t, m, token)
			if u := sess.Data(); u.Name != "Ada Lovelace" || len(u.Cart) != 1 || u.JWT != "" || u.Claims != nil {
				t.Errorf("%+v", u)
			}
			if sess.ID() != id || sess.Subject() != "42" || sess.Claims()["role"] != "admin" || sess.CreatedAt().Before(before) || sess.CreatedAt().After(time.Now()) {
				t.Errorf("%s of %q, claims %v, created at %v", sess.ID(), sess.Subject(), sess.Claims(), sess.CreatedAt())
			}
			if value := node.stored(t, id); strings.Contains(value, token) || strings.Contains(value, "Ada") {
				t.Errorf("stored is %q", value)
			}
			if ttl := node.rdb.TTL(t.Context(), node.keyspace+id).Val(); ttl < 23*time.Hour || ttl > 24*time.Hour {
				t.Errorf("it lives for %v: reading it restarts the idle timeout", ttl)
			}
			if err := sess.Update(t.Context(), func(u *User) error { u.Cart = append(u.Cart, "milk"); return nil }); err != nil {
				t.Fatal(err)
			}
			if u := opened(t, m, token).Data(); len(u.Cart) != 2 {
				t.Errorf("%+v", u)
			}
			if err := opened(t, m, token).Destroy(t.Context()); err != nil {
				t.Fatal(err)
			}
			if sess, err := m.Open(t.Context(), token); err != nil || !errors.Is(sess.Reason(), echosession.ErrSessionGone) {
				t.Error(sess.Reason(), err)
			}
			if status := node.call(t, http.MethodGet, "/me", token, nil, nil); status != http.StatusUnauthorized {
				t.Errorf("after the logout Node answers %d", status)
			}
		})
	}
}

// A logout on Node is a logout here, before and after the import.
func TestLogoutOnNode(t *testing.T) {
	node := startNode(t, "keyboard cat", "HS256")
	m := node.successor(t)
	_, token := node.login(t, object{"name": "Ada"}, nil)
	if status := node.call(t, http.MethodPost, "/logout", token, nil, nil); status != http.StatusOK {
		t.Fatal(status)
	}
	if sess, err := m.Open(t.Context(), token); err != nil || !errors.Is(sess.Reason(), echosession.ErrSessionGone) {
		t.Error(sess.Reason(), err)
	}
}

// An exp that the Node service gave a token ends the session here too.
func TestExpOfNode(t *testing.T) {
	node := startNode(t, "keyboard cat", "HS256")
	exp := time.Now().Add(20 * time.Minute).Truncate(time.Second)
	id, token := node.login(t, object{"name": "Ada"}, object{"exp": exp.Unix(), "iss": "my application name", "aud": "myapplication.com"})
	m := node.successor(t, func(c *echosession.Config) {
		c.Issuer, c.Audience = "my application name", []string{"myapplication.com"}
	})
	if sess := opened(t, m, token); !sess.ExpiresAt().Equal(exp) {
		t.Errorf("it ends at %v, not %v", sess.ExpiresAt(), exp)
	}
	if ttl := node.rdb.TTL(t.Context(), node.keyspace+id).Val(); ttl > 20*time.Minute {
		t.Errorf("the record lives for %v", ttl)
	}
	later := node.successor(t, func(c *echosession.Config) { c.Now = func() time.Time { return exp } })
	if sess, err := later.Open(t.Context(), token); err != nil || !errors.Is(sess.Reason(), echosession.ErrInvalidToken) {
		t.Error(sess.Reason(), err)
	}
	strict := node.successor(t, func(c *echosession.Config) { c.Issuer = "another" })
	if sess, err := strict.Open(t.Context(), token); err != nil || !errors.Is(sess.Reason(), echosession.ErrInvalidToken) {
		t.Error(sess.Reason(), err)
	}
}

// Two requests at once, on two instances: one import, and every update is kept.
func TestTwoRequestsAtOnce(t *testing.T) {
	node := startNode(t, "keyboard cat", "HS256")
	_, token := node.login(t, object{"name": "Ada"}, nil)
	const requests = 8
	var wg sync.WaitGroup
	for range requests {
		m := node.successor(t)
		wg.Go(func() {
			sess, err := m.Open(t.Context(), token)
			if err == nil {
				err = sess.Update(t.Context(), func(u *User) error { u.Cart = append(u.Cart, "tea"); return nil })
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if u := opened(t, node.successor(t), token).Data(); len(u.Cart) != requests || u.Name != "Ada" {
		t.Errorf("%+v", u)
	}
}

// While both run: what Node makes of an imported session, and of a session of ours.
func TestNodeReadsOurs(t *testing.T) {
	node := startNode(t, string(newSecret), "HS256") // it even has our secret
	m := node.successor(t)
	_, imported := node.login(t, object{"name": "Ada"}, nil)
	opened(t, m, imported)
	ours, err := m.Create(t.Context(), User{Name: "Bob"})
	if err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{"an imported session": imported, "a session of ours": ours.Token()} {
		before := node.stored(t, opened(t, m, token).ID())
		for _, route := range []struct{ method, path string }{{http.MethodGet, "/me"}, {http.MethodPost, "/update"}, {http.MethodPost, "/logout"}} {
			if status := node.call(t, route.method, route.path, token, object{"name": "Eve"}, nil); status != http.StatusUnauthorized {
				t.Errorf("%s: Node answers %s with %d", name, route.path, status)
			}
		}
		sess := opened(t, m, token)
		if after := node.stored(t, sess.ID()); after != before || sess.Data().Name == "Eve" {
			t.Errorf("%s: Node changed it to %q", name, after)
		}
	}
	// Nor does an instance that knows nothing of the predecessor take its tokens.
	sessions, err := echosession.New[User](echosession.Config{Client: node.rdb, Keyspace: node.keyspace, Secret: newSecret})
	if err != nil {
		t.Fatal(err)
	}
	if sess, err := sessions.Open(t.Context(), imported); err != nil || !errors.Is(sess.Reason(), echosession.ErrInvalidToken) {
		t.Error(sess.Reason(), err)
	}
}

// A write of Node that began before the import comes after it: Node overwrites what is
// there, as it always did, and brings back what was deleted. docs/migrate.md says so.
func TestALateWriteOfNode(t *testing.T) {
	node := startNode(t, "keyboard cat", "HS256")
	m := node.successor(t)
	_, token := node.login(t, object{"name": "Ada"}, nil)
	late := func(meanwhile func(*echosession.Session[User])) {
		t.Helper()
		answered := make(chan error, 1)
		go func() {
			status, err := node.send(t.Context(), http.MethodPost, "/update?hold=1", token, object{"name": "late"}, nil)
			if err == nil && status != http.StatusOK {
				err = fmt.Errorf("status %d", status)
			}
			answered <- err
		}()
		for held := (struct{ Held int }{}); held.Held == 0; {
			node.call(t, http.MethodGet, "/held", "", nil, &held)
		}
		meanwhile(opened(t, m, token))
		node.call(t, http.MethodGet, "/go", "", nil, nil)
		if err := <-answered; err != nil {
			t.Fatal(err)
		}
	}
	late(func(sess *echosession.Session[User]) {
		if err := sess.Update(t.Context(), func(u *User) error { u.Cart = []string{"tea"}; return nil }); err != nil {
			t.Fatal(err)
		}
	})
	if u := opened(t, m, token).Data(); u.Name != "late" || len(u.Cart) != 0 {
		t.Errorf("%+v", u)
	}
	_, token = node.login(t, object{"name": "Ada"}, nil)
	late(func(sess *echosession.Session[User]) {
		if err := sess.Destroy(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	if u := opened(t, m, token).Data(); u.Name != "late" {
		t.Errorf("%+v", u)
	}
}

// The tokens in internal/jwt/testdata/legacy are those that the package makes today.
func TestVectors(t *testing.T) {
	cmd := exec.Command("node", "vectors.js")
	cmd.Dir = installed(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	type vector struct{ Name, Secret, Algorithm, ID, Token string }
	var fresh, kept []vector
	if err := json.Unmarshal(out, &fresh); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("../../internal/jwt/testdata/legacy/tokens.json")
	if err == nil {
		err = json.Unmarshal(b, &kept)
	}
	if err != nil || len(fresh) != len(kept) || len(kept) < 12 {
		t.Fatal(len(fresh), len(kept), err)
	}
	for i, v := range fresh {
		if kept[i].Name != v.Name || kept[i].Secret != v.Secret || kept[i].Algorithm != v.Algorithm {
			t.Errorf("%q was made, and %q is kept", v.Name, kept[i].Name)
		}
		sessions, err := echosession.New[User](echosession.Config{Store: echosession.NewMemoryStore(), Import: json.Unmarshal, Keys: []echosession.SigningKey{
			{Algorithm: "HS256", Key: newSecret}, {Algorithm: v.Algorithm, Key: []byte(v.Secret), VerifyOnly: true, Legacy: true},
		}})
		if err != nil {
			t.Fatal(err)
		}
		// The token is good; nothing is stored.
		if sess, err := sessions.Open(t.Context(), v.Token); err != nil || !errors.Is(sess.Reason(), echosession.ErrSessionGone) {
			t.Errorf("%s: %v, %v", v.Name, sess.Reason(), err)
		}
	}
}
