package echosession_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/echosession/echosession"
)

// unalike is the data of another instance than User, and reads like it.
type unalike struct {
	Name  string `json:"name"`
	Admin bool   `json:"admin"`
}

// Somebody who writes the store copies a record to where another instance with the same
// keys looks for it: a sealed record does not open there.
func TestASealedRecordBelongsToItsInstance(t *testing.T) {
	for _, same := range []bool{false, true} {
		store := echosession.NewMemoryStore()
		t.Cleanup(func() { store.Close() })
		cfg := echosession.Config{
			Store: store, Secret: testSecret, Keyspace: "users:", EncryptionKeys: [][]byte{[]byte("thirty-two bytes to encrypt with")},
		}
		users := newManager[User](t, cfg)
		if !same {
			cfg.Keyspace = "staff:"
		}
		staff := newManager[unalike](t, cfg)
		sess, err := users.Create(t.Context(), User{Name: "Ada"})
		if err != nil {
			t.Fatal(err)
		}
		got, err := staff.Open(t.Context(), sess.Token())
		if err != nil {
			t.Fatal(err)
		}
		if same != got.Exists() || !same && !errors.Is(got.Reason(), echosession.ErrCorrupt) {
			t.Errorf("the same keyspace: %t; opened: %t, %v", same, got.Exists(), got.Reason())
		}
		// It stays, for the instance that it belongs to.
		if mine, err := users.Open(t.Context(), sess.Token()); err != nil || !mine.Exists() {
			t.Errorf("%v, %v", mine.Reason(), err)
		}
	}
}

// A session whose end a token cannot hold is not created. It would have had no end.
func TestAnExpBeyond2262IsRefused(t *testing.T) {
	store := echosession.NewMemoryStore()
	t.Cleanup(func() { store.Close() })
	m := newManager[User](t, echosession.Config{Store: store, Secret: testSecret})
	for name, exp := range map[string]any{
		"time":    time.Date(2263, 1, 1, 0, 0, 0, 0, time.UTC),
		"seconds": int64(9223372037),
	} {
		sess, err := m.Create(t.Context(), User{}, echosession.WithClaims(echosession.Claims{"exp": exp}))
		if err == nil || sess != nil || !strings.Contains(err.Error(), "2262") {
			t.Errorf("%s: %v", name, err)
		}
	}
	token := hs256(`{"alg":"HS256","typ":"session+jwt"}`, `{"jti":"`+newID()+`","exp":9223372037}`, testSecret)
	if sess, err := m.Open(t.Context(), token); err != nil || !errors.Is(sess.Reason(), echosession.ErrInvalidToken) {
		t.Errorf("%v, %v", sess.Reason(), err)
	}
	exp := time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC)
	sess, err := m.Create(t.Context(), User{}, echosession.WithClaims(echosession.Claims{"exp": exp}))
	if err != nil {
		t.Fatal(err)
	}
	if got := sess.ExpiresAt(); !got.Equal(exp) {
		t.Errorf("a session of 2262 ends %v", got)
	}
}

// payloadOf returns the members of a token's payload as they are written.
func payloadOf(t *testing.T, token string) map[string]string {
	t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(payload, &members); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for name, value := range members {
		out[name] = string(value)
	}
	return out
}

// Rotation hands on the caller's claims, and takes subject and end from the record.
func TestARotatedTokenSaysWhatItsPredecessorSaid(t *testing.T) {
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		cfg.Issuer, cfg.Audience = "https://issuer.example", []string{"a", "b"}
		m := newManager[User](t, cfg)
		given := echosession.Claims{"role": "admin", "list": []int{1, 2}, "big": json.Number("9007199254740993"), "sub": "ada", "exp": time.Now().Add(time.Hour).Truncate(time.Second)}
		sess, err := m.Create(t.Context(), User{}, echosession.WithClaims(given), echosession.WithMaxAge(90*time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		before := payloadOf(t, sess.Token())
		after := before
		for range 2 {
			token, err := sess.Rotate(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			after = payloadOf(t, token)
		}
		if before["jti"] == after["jti"] {
			t.Error("the ID is the old one")
		}
		for _, payload := range []map[string]string{before, after} {
			delete(payload, "jti")
			delete(payload, "iat")
		}
		want := []string{"aud", "big", "exp", "idle", "iss", "list", "role", "sub"}
		if names := slices.Sorted(maps.Keys(after)); !slices.Equal(names, want) || !reflect.DeepEqual(before, after) {
			t.Errorf("claims %v\nwere   %v", after, before)
		}
	})
}
