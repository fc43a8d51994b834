package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/echosession/echosession/echosessiontest"
)

// service is the service with the kit that tests it.
type service struct {
	*echosessiontest.Harness[Login]
	handler http.Handler
}

func newTestService(t *testing.T) *service {
	t.Helper()
	h := echosessiontest.New[Login](t)
	e, err := newService(h.Config())
	if err != nil {
		t.Fatal(err)
	}
	return &service{h, e}
}

// call decodes the answer into v, unless v is nil, and returns the status.
func (s *service) call(t *testing.T, method, path, token string, v any) int {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("User-Agent", strings.TrimPrefix(path, "/login?user=ada&"))
	rec := s.Serve(s.handler, r)
	if v != nil && rec.Code == http.StatusOK {
		if err := json.Unmarshal(rec.Body.Bytes(), v); err != nil {
			t.Fatal(err)
		}
	}
	return rec.Code
}

func (s *service) token(t *testing.T, path, token string) string {
	t.Helper()
	var answer struct{ Token string }
	if code := s.call(t, http.MethodPost, path, token, &answer); code != http.StatusOK {
		t.Fatalf("%s: %d", path, code)
	}
	return answer.Token
}

func (s *service) devices(t *testing.T, token string) (names []string, current string) {
	t.Helper()
	var devices []struct {
		Device  string
		Current bool
	}
	if code := s.call(t, http.MethodGet, "/devices", token, &devices); code != http.StatusOK {
		t.Fatalf("/devices: %d", code)
	}
	for _, d := range devices {
		names = append(names, d.Device)
		if d.Current {
			current = d.Device
		}
	}
	return names, current
}

func TestDevices(t *testing.T) {
	s := newTestService(t)
	login := func(device string) string {
		s.Clock.Advance(time.Second)
		return s.token(t, "/login?user=ada&"+device, "")
	}
	phone := login("phone")
	login("laptop")
	tablet := login("tablet")
	watch := login("watch")
	if names, current := s.devices(t, tablet); strings.Join(names, " ") != "laptop tablet watch" || current != "tablet" {
		t.Errorf("the devices are %q, the current one %q", names, current)
	}
	if code := s.call(t, http.MethodGet, "/devices", phone, nil); code != http.StatusUnauthorized {
		t.Errorf("the oldest of four devices: %d", code)
	}

	var ended struct{ Ended int }
	if code := s.call(t, http.MethodPost, "/logout-elsewhere", tablet, &ended); code != http.StatusOK || ended.Ended != 2 {
		t.Errorf("logout elsewhere: %d, %d ended", code, ended.Ended)
	}
	if code := s.call(t, http.MethodGet, "/devices", watch, nil); code != http.StatusUnauthorized {
		t.Errorf("a device that was logged out: %d", code)
	}
	if names, _ := s.devices(t, tablet); strings.Join(names, " ") != "tablet" {
		t.Errorf("the devices left are %q", names)
	}
}

func TestUnknownPath(t *testing.T) {
	s := newTestService(t)
	for _, token := range []string{"", "what", s.token(t, "/login?user=ada&phone", "")} {
		if code := s.call(t, http.MethodGet, "/unknown", token, nil); code != http.StatusNotFound {
			t.Errorf("with token %q: %d", token, code)
		}
	}
}

func TestStepUp(t *testing.T) {
	s := newTestService(t)
	old := s.token(t, "/login?user=ada&phone", "")
	s.Clock.Advance(6 * time.Minute)
	if code := s.call(t, http.MethodPost, "/become-admin", old, nil); code != http.StatusUnauthorized {
		t.Errorf("six minutes after the login: %d", code)
	}
	if code := s.call(t, http.MethodGet, "/devices", old, nil); code != http.StatusOK {
		t.Errorf("an old login is good for the rest: %d", code)
	}

	again := s.token(t, "/login?user=ada&phone", old)
	if code := s.call(t, http.MethodGet, "/devices", old, nil); code != http.StatusUnauthorized {
		t.Errorf("a new login leaves the session before it alive: %d", code)
	}
	admin := s.token(t, "/become-admin", again)
	s.Clock.Advance(time.Minute)
	for token, want := range map[string]int{again: http.StatusUnauthorized, admin: http.StatusOK} {
		if code := s.call(t, http.MethodGet, "/devices", token, nil); code != want {
			t.Errorf("a minute after the rotation: %d, not %d", code, want)
		}
	}
}
