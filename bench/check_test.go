package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// loadAndSave are the contenders that lose contested writes by design.
var loadAndSave = []string{"scs", "scs-idle", "gorilla", "fiber"}

func TestContenders(t *testing.T) {
	if _, chosen, err := redisBinary(); err != nil && !chosen && os.Getenv("ECHOSESSION_REQUIRE_REDIS") != "1" {
		t.Skip(err)
	}
	redis, err := startRedis(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := redis.stop(); err != nil {
			t.Error(err)
		}
	})
	for _, c := range contenders() {
		t.Run(c.name+" does what is measured", func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			go c.serve(redis.addr, ln)
			if err := check(ln.Addr().String(), c.stateless); err != nil {
				t.Fatal(err)
			}
			if c.stateless {
				return
			}
			accepted, lost, err := contest(ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if accepted == 0 {
				t.Error("no contested write was accepted")
			}
			if lost > 0 && !slices.Contains(loadAndSave, c.name) {
				t.Errorf("%d of %d contested writes were lost", lost, accepted)
			}
		})
	}
}

// fake keeps users in a map by their token, with the faults that check looks for.
type fake struct {
	mu    sync.Mutex
	users map[string]*User

	openToAll bool // a write needs no session
	forgetful bool // writes are answered and not kept
	oneForAll bool // everybody has the same session
	gullible  bool // any credential opens the first session
	first     string
	aloof     bool // a read without a token is refused
	garbled   bool // writes are kept, and answered with a wrong count
	dated     bool // writes are kept, and reads do not show them
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if f.gullible && token != "" && f.users[token] == nil {
		token = f.first
	}
	switch u := f.users[token]; {
	case r.URL.Path == "/login":
		token = fmt.Sprintf("a-long-enough-token-%010d", len(f.users))
		if f.oneForAll {
			token = "a-long-enough-token-for-all"
		}
		if f.users[token] == nil {
			user := newUser(r.FormValue("user"))
			f.users[token] = &user
			if f.first == "" {
				f.first = token
			}
		}
		fmt.Fprint(w, token)
	case r.URL.Path == "/me" && u == nil && !f.aloof:
		fmt.Fprint(w, anonymous)
	case u == nil && f.openToAll:
		fmt.Fprint(w, "thanks")
	case u == nil:
		http.Error(w, "no session", http.StatusUnauthorized)
	case r.URL.Path == "/visit":
		copied := *u
		copied.Visits++
		if !f.forgetful {
			*u = copied
		}
		if f.garbled {
			copied.Visits++
		}
		fmt.Fprint(w, greeting(&copied))
	default:
		read := *u
		if f.dated {
			read.Visits = 0
		}
		fmt.Fprint(w, greeting(&read))
	}
}

func TestCheck(t *testing.T) {
	tests := []struct {
		rule  string
		fake  fake
		fails bool
	}{
		{"a sound contender passes", fake{}, false},
		{"an anonymous read must be answered", fake{aloof: true}, true},
		{"a write needs a session", fake{openToAll: true}, true},
		{"a write must be kept", fake{forgetful: true}, true},
		{"a write must answer the new count", fake{garbled: true}, true},
		{"a read must show the writes before it", fake{dated: true}, true},
		{"users must have sessions of their own", fake{oneForAll: true}, true},
		{"a forged credential must not count", fake{gullible: true}, true},
	}
	for i := range tests {
		tt := &tests[i]
		t.Run(tt.rule, func(t *testing.T) {
			tt.fake.users = make(map[string]*User)
			srv := httptest.NewServer(&tt.fake)
			defer srv.Close()
			if err := check(srv.Listener.Addr().String(), false); (err != nil) != tt.fails {
				t.Errorf("got error %v, want one: %v", err, tt.fails)
			}
		})
	}
}

func TestContest(t *testing.T) {
	srv := httptest.NewServer(&fake{users: make(map[string]*User), forgetful: true})
	defer srv.Close()
	accepted, lost, err := contest(srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if accepted == 0 || lost != accepted {
		t.Errorf("%d of %d writes lost, want all", lost, accepted)
	}
}
