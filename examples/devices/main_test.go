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
	if code := s.call(t, http.MethodGet, "/devices", again, nil); code != http.StatusUnauthorized {
		t.Errorf("the token from before, at once: %d", code)
	}
	s.Clock.Advance(time.Minute)
	for token, want := range map[string]int{again: http.StatusUnauthorized, admin: http.StatusOK} {
		if code := s.call(t, http.MethodGet, "/devices", token, nil); code != want {
			t.Errorf("a minute after the renewal: %d, not %d", code, want)
		}
	}
}

func TestOneDevice(t *testing.T) {
	s := newTestService(t)
	phone, bob := s.token(t, "/login?user=ada&phone", ""), s.token(t, "/login?user=bob", "")
	login := s.Clock.Now()
	s.Clock.Advance(time.Hour)
	var laptop struct {
		Token   string
		Devices int
	}
	if code := s.call(t, http.MethodPost, "/login?user=ada&laptop", "", &laptop); code != http.StatusOK || laptop.Devices != 2 {
		t.Fatalf("login: %d, on %d devices", code, laptop.Devices)
	}
	s.Clock.Advance(time.Hour)
	var devices []struct {
		ID, Device               string
		Created, LogIn, LastUsed time.Time
	}
	if code := s.call(t, http.MethodGet, "/devices", phone, &devices); code != http.StatusOK || len(devices) != 2 {
		t.Fatalf("/devices: %d, %+v", code, devices)
	}
	for i, want := range []struct {
		device         string
		login, lastUse time.Duration
	}{{"phone", 0, 2 * time.Hour}, {"laptop", time.Hour, time.Hour}} {
		got := devices[i]
		since := func(at time.Time) time.Duration { return at.Sub(login).Round(time.Second) }
		if got.Device != want.device || since(got.Created) != want.login || since(got.LogIn) != want.login || since(got.LastUsed) != want.lastUse {
			t.Errorf("device %d is %+v, not %+v after %v", i, got, want, login)
		}
	}

	if code := s.call(t, http.MethodDelete, "/devices/"+devices[1].ID, bob, nil); code != http.StatusNotFound {
		t.Errorf("another user ends the session: %d", code)
	}
	for _, want := range []int{http.StatusNoContent, http.StatusNotFound} {
		if code := s.call(t, http.MethodDelete, "/devices/"+devices[1].ID, phone, nil); code != want {
			t.Errorf("the laptop's session is ended: %d, not %d", code, want)
		}
	}
	if names, _ := s.devices(t, phone); strings.Join(names, " ") != "phone" {
		t.Errorf("the devices left are %q", names)
	}
}
