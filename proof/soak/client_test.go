package soak_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/echosession/echosession"
)

// user is a client that is alone with its sessions: it knows what each holds.
type user struct {
	name   string
	url    string
	http   *http.Client
	random *rand.Rand
	tally  *tally
	junk   *junk

	token string // "" when logged out
	count int
}

// act does one thing: it reads as a rule, and sends a junk token now and then.
func (u *user) act() {
	if u.token == "" {
		u.login()
		return
	}
	switch n := u.random.IntN(100); {
	case n < 80:
		u.show("read", http.MethodGet)
	case n < 93:
		u.count++
		u.show("update", http.MethodPut)
	case n < 95:
		u.renew()
	default:
		u.logout()
	}
	if u.random.IntN(20) == 0 {
		u.sendJunk(u.junk.token(u.random))
	}
}

// login begins a session: with a password, or as a guest.
func (u *user) login() {
	if u.random.IntN(2) == 0 {
		u.guest()
		return
	}
	status, body := u.send("create", http.MethodPost, "/session", "")
	if status != http.StatusCreated {
		u.tally.wrong("create: %d %s", status, body)
		return
	}
	u.token, u.count = body, 0
}

// guest begins a session by writing to it.
func (u *user) guest() {
	status, body := u.send("create, guest", http.MethodPost, "/guest", "")
	if status != http.StatusCreated {
		u.tally.wrong("create, guest: %d %s", status, body)
		return
	}
	u.token, u.count = body, 1
}

// renew logs in to the session, and sees that the token from before opens nothing.
func (u *user) renew() {
	status, body := u.send("renew", http.MethodPatch, "/session", u.token)
	if status != http.StatusOK {
		u.tally.wrong("renew: %d %s", status, body)
		u.token = ""
		return
	}
	old := u.token
	u.token, u.count = body, u.count+1
	if status, body := u.send("read, renewed", http.MethodGet, "/session", old); status != http.StatusUnauthorized {
		u.tally.wrong("the token from before a login was answered with %d %s", status, body)
	}
	u.show("read", http.MethodGet)
}

// show expects the user's own data, with every update in it.
func (u *user) show(kind, method string) {
	status, body := u.send(kind, method, "/session", u.token)
	var got Account
	if status != http.StatusOK || json.Unmarshal([]byte(body), &got) != nil {
		u.tally.wrong("%s: %d %s", kind, status, body)
		u.token = ""
		return
	}
	if got.Owner != u.name || got.Count != u.count {
		u.tally.wrong("%s: %s has count %d and got %s with %d", kind, u.name, u.count, got.Owner, got.Count)
	}
}

// logout destroys the session and sees that it is gone.
func (u *user) logout() {
	if status, body := u.send("destroy", http.MethodDelete, "/session", u.token); status != http.StatusNoContent {
		u.tally.wrong("destroy: %d %s", status, body)
	}
	if status, body := u.send("read, gone", http.MethodGet, "/session", u.token); status != http.StatusUnauthorized {
		u.tally.wrong("a destroyed session was answered with %d %s", status, body)
	}
	u.token = ""
	u.login()
}

func (u *user) sendJunk(token string) {
	if status, body := u.send("junk token", http.MethodGet, "/session", token); status != http.StatusUnauthorized {
		u.tally.wrong("the junk token %q was answered with %d %s", token, status, body)
	}
}

// send sends a request and returns its answer. Status 0 is none.
func (u *user) send(kind, method, path, token string) (status int, body string) {
	r, err := http.NewRequestWithContext(context.Background(), method, u.url+path+"?owner="+u.name, nil)
	if err != nil {
		u.tally.wrong("%s: %v", kind, err)
		return 0, ""
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	began := time.Now()
	resp, err := u.http.Do(r)
	var text []byte
	if err == nil {
		status = resp.StatusCode
		text, err = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
	}
	u.tally.add(kind, status, time.Since(began))
	if err != nil {
		return 0, err.Error()
	}
	return status, string(text)
}

// junk makes tokens that open nothing.
type junk struct {
	ours   []string // good tokens of sessions that nobody uses
	theirs []string // signed with another secret
}

func newJunk(t *testing.T) *junk {
	t.Helper()
	j := &junk{}
	for _, list := range []struct {
		tokens *[]string
		secret []byte
	}{
		{&j.ours, secret},
		{&j.theirs, []byte("another secret, of 32 bytes also")},
	} {
		store := echosession.NewMemoryStore()
		defer store.Close()
		m, err := echosession.New[Account](echosession.Config{Store: store, Secret: list.secret})
		if err != nil {
			t.Fatal(err)
		}
		for range 64 {
			sess, err := m.Create(t.Context(), Account{})
			if err != nil {
				t.Fatal(err)
			}
			*list.tokens = append(*list.tokens, sess.Token())
		}
	}
	return j
}

const base64url = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// token returns a token that no key of the server has signed as it stands.
func (j *junk) token(random *rand.Rand) string {
	good := j.ours[random.IntN(len(j.ours))]
	header, rest, _ := strings.Cut(good, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	encode := base64.RawURLEncoding.EncodeToString
	switch random.IntN(7) {
	case 0: // noise
		noise := make([]byte, 1+random.IntN(300))
		for i := range noise {
			noise[i] = base64url[random.IntN(64)]
		}
		return string(noise)
	case 1: // one character of a good token is another
		i := random.IntN(len(good))
		c := base64url[random.IntN(64)]
		if c == good[i] {
			c = '.'
		}
		if good[i] == '.' && c == '.' {
			c = 'A'
		}
		return good[:i] + string(c) + good[i+1:]
	case 2: // cut off
		return good[:random.IntN(len(good))]
	case 3: // another issuer
		return j.theirs[random.IntN(len(j.theirs))]
	case 4: // unsigned
		return encode([]byte(`{"alg":"none","typ":"session+jwt"}`)) + "." + payload + "."
	case 5: // another session's ID under the old signature
		claims := fmt.Sprintf(`{"iat":%d,"jti":"%08x-0000-4000-8000-%012x"}`, time.Now().Unix(), random.Uint32(), random.Uint64()>>16)
		return header + "." + encode([]byte(claims)) + "." + signature
	default: // a signature of the right length
		mac := make([]byte, 32)
		for i := range mac {
			mac[i] = byte(random.Uint32())
		}
		return header + "." + payload + "." + encode(mac)
	}
}
