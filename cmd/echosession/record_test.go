package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/echosession/echosession"
)

// user is the data of the sessions in the tests.
type user struct {
	Name    string
	Admin   bool
	Visits  int64
	Score   float64
	Avatar  []byte
	Since   time.Time
	Seats   map[int]string
	Nested  map[string]any
	Nothing *string
}

var ada = user{
	Name: "Ada <b>", Admin: true, Visits: math.MinInt64, Score: 1.5, Avatar: []byte{0, 255},
	Since: time.Date(2026, 11, 24, 17, 0, 0, 5000, time.UTC),
	Seats: map[int]string{7: "window"}, Nested: map[string]any{"list": []any{int64(1), "two", nil}},
}

const adaJSON = `{"Name":"Ada <b>","Admin":true,"Visits":-9223372036854775808,"Score":1.5,"Avatar":"AP8=",` +
	`"Since":"2026-11-24T17:00:00.000005Z","Seats":{"7":"window"},"Nested":{"list":[1,"two",null]},"Nothing":null}`

var (
	testSecret = []byte("0123456789abcdef0123456789abcdef")
	testSeal   = []byte("fedcba9876543210fedcba9876543210")
	otherSeal  = []byte("another key of exactly 32 bytes!")
)

// entryOf makes a session with data ada, and returns what the store holds.
func entryOf(t *testing.T, cfg echosession.Config, opts ...echosession.CreateOption) (*echosession.Session[user], echosession.Entry) {
	t.Helper()
	cfg.Store, cfg.Secret = echosession.NewMemoryStore(), testSecret
	sessions, err := echosession.New[user](cfg)
	if err != nil {
		t.Fatal(err)
	}
	sess, err := sessions.Create(t.Context(), ada, opts...)
	if err != nil {
		t.Fatal(err)
	}
	for entry, err := range cfg.Store.Scan(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		return sess, entry
	}
	t.Fatal("the store holds no session")
	return nil, echosession.Entry{}
}

type jsonCodec struct{}

func (jsonCodec) Marshal(v any) ([]byte, error)      { return json.Marshal(v) }
func (jsonCodec) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

// hiddenCodec makes what is not JSON.
type hiddenCodec struct{}

func (hiddenCodec) Marshal(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	return append([]byte{0}, data...), err
}
func (hiddenCodec) Unmarshal(data []byte, v any) error { return json.Unmarshal(data[1:], v) }

// Whatever the type and however it was written, a record is read with all that it says.
func TestReadRecord(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		cfg    echosession.Config
		opts   []echosession.CreateOption
		keys   [][]byte
		want   record // of the fields that vary
		prefix string // of the data as JSON
	}{
		{name: "MessagePack", prefix: adaJSON},
		{name: "another codec that makes JSON", cfg: echosession.Config{Codec: jsonCodec{}}, want: record{otherCodec: true}, prefix: `{"Name":"Ada \u003cb\u003e","Admin":true`},
		{name: "another codec", cfg: echosession.Config{Codec: hiddenCodec{}}, want: record{otherCodec: true}, prefix: `"AHsi`},
		{name: "sealed", cfg: echosession.Config{EncryptionKeys: [][]byte{testSeal}}, keys: [][]byte{otherSeal, testSeal}, want: record{sealed: true}, prefix: adaJSON},
		{name: "sealed, of another codec", cfg: echosession.Config{EncryptionKeys: [][]byte{testSeal}, Codec: jsonCodec{}}, keys: [][]byte{testSeal}, want: record{sealed: true, otherCodec: true}, prefix: `{"Name":`},
		{name: "plain among sealed ones", keys: [][]byte{testSeal}, prefix: adaJSON},
		{name: "another keyspace", cfg: echosession.Config{Keyspace: "x:", EncryptionKeys: [][]byte{testSeal}}, keys: [][]byte{testSeal}, want: record{sealed: true}, prefix: adaJSON},
		{name: "everything that a session can have", opts: []echosession.CreateOption{
			echosession.WithSubject("ada"), echosession.WithDevice("Firefox"), echosession.WithActor("bob"), echosession.Remember(48 * time.Hour),
		}, want: record{subject: "ada", device: "Firefox", actor: "bob", idle: 48 * time.Hour, remembered: true}, prefix: adaJSON},
		{name: "a session that lives until its deadline", cfg: echosession.Config{MaxAge: time.Hour},
			opts: []echosession.CreateOption{echosession.WithClaims(echosession.Claims{"exp": time.Now().Add(2 * time.Hour).Unix()})},
			want: record{idle: noIdle}, prefix: adaJSON},
		{name: "an absolute timeout", cfg: echosession.Config{MaxAge: time.Hour, AbsoluteTimeout: 3 * time.Hour}, prefix: adaJSON},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			sess, entry := entryOf(t, tt.cfg, tt.opts...)
			r, err := newReader(tt.cfg.Keyspace, tt.keys, tt.cfg.MaxAge)
			if err != nil {
				t.Fatal(err)
			}
			got, err := r.read(entry)
			if err != nil {
				t.Fatal(err)
			}
			text, err := got.json()
			if err != nil || !strings.HasPrefix(string(text), tt.prefix) {
				t.Errorf("the data is %s, %v; it is to begin with %s", text, err, tt.prefix)
			}
			want := tt.want
			want.id, want.size, want.createdAt, want.authenticatedAt = sess.ID(), len(entry.Record), sess.CreatedAt(), sess.AuthenticatedAt()
			want.data, want.deadline, want.expiresAt, want.lastUsed = got.data, got.deadline, got.expiresAt, got.lastUsed
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
			checkTimes(t, got, sess)
		})
	}
}

// checkTimes compares what the clock makes.
func checkTimes(t *testing.T, got record, sess *echosession.Session[user]) {
	t.Helper()
	if d := got.expiresAt.Sub(sess.ExpiresAt()).Abs(); d > 5*time.Second {
		t.Errorf("it expires at %v, and the session says %v", got.expiresAt, sess.ExpiresAt())
	}
	exp, limited := sess.Claims()["exp"].(float64)
	if limited != !got.deadline.IsZero() || limited && time.Duration(math.Abs(float64(got.deadline.Unix())-exp)) > 1 {
		t.Errorf("its deadline is %v, and the token says %v", got.deadline, sess.Claims()["exp"])
	}
	if got.idle == noIdle {
		if !got.lastUsed.IsZero() {
			t.Errorf("it was last used at %v, which nobody can know", got.lastUsed)
		}
	} else if d := got.lastUsed.Sub(sess.CreatedAt()).Abs(); d > 5*time.Second {
		t.Errorf("it was last used at %v, and created at %v", got.lastUsed, sess.CreatedAt())
	}
}

// Of a record that cannot be read, what stands in clear is told with the reason.
func TestReadUnreadableRecord(t *testing.T) {
	t.Parallel()
	sess, plain := entryOf(t, echosession.Config{}, echosession.WithSubject("ada"))
	sealed, entry := entryOf(t, echosession.Config{EncryptionKeys: [][]byte{testSeal}}, echosession.WithSubject("ada"))
	cut := func(n int) echosession.Entry {
		return echosession.Entry{Record: plain.Record[:n], TTL: plain.TTL}
	}
	bent := echosession.Entry{Record: append([]byte(nil), plain.Record...), TTL: plain.TTL}
	bent.Record[len(bent.Record)-1] = 0xc1
	for _, tt := range []struct {
		name  string
		entry echosession.Entry
		keys  [][]byte
		why   string
		id    string
		since bool // when it was created is known
	}{
		{"sealed, and no key", entry, nil, "it is encrypted and there is no key", sealed.ID(), true},
		{"sealed, and another key", entry, [][]byte{otherSeal}, "no encryption key opens it", sealed.ID(), true},
		{"damaged data", bent, nil, "", sess.ID(), true},
		{"cut off in the data", cut(len(plain.Record) - 1), nil, "", sess.ID(), true},
		{"cut off behind the time", cut(39), nil, "its header is damaged", sess.ID(), true},
		{"cut off before the time", cut(32), nil, "its header is damaged", sess.ID(), false},
		{"cut off in the ID", cut(10), nil, "it does not begin as a record does", "", false},
		{"empty", echosession.Entry{TTL: time.Second}, nil, "it does not begin as a record does", "", false},
		{"something else", echosession.Entry{Record: []byte(`{"id":"made by another program"}`), TTL: time.Second}, nil, "it does not begin as a record does", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, err := newReader("", tt.keys, 0)
			if err != nil {
				t.Fatal(err)
			}
			got, err := r.read(tt.entry)
			if !errors.Is(err, echosession.ErrCorrupt) || !strings.Contains(err.Error(), tt.why) {
				t.Errorf("the error is %v; it is to say %q", err, tt.why)
			}
			if got.id != tt.id || got.createdAt.IsZero() == tt.since || got.size != len(tt.entry.Record) || got.data != nil || got.expiresAt.IsZero() {
				t.Errorf("what stands in clear is %+v", got)
			}
			if tt.name[:4] == "seal" && !got.sealed {
				t.Error("it does not say that it is sealed")
			}
		})
	}
}

// No bytes make the reader panic, and each prefix of a record is corrupt.
func TestReadEveryPrefix(t *testing.T) {
	t.Parallel()
	_, entry := entryOf(t, echosession.Config{}, echosession.WithDevice("Firefox"))
	r, err := newReader("", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for n := range entry.Record {
		if _, err := r.read(echosession.Entry{Record: entry.Record[:n], TTL: time.Hour}); !errors.Is(err, echosession.ErrCorrupt) {
			t.Errorf("the first %d bytes: %v", n, err)
		}
		if _, err := toJSON(entry.Record[:n]); err == nil {
			t.Errorf("the first %d bytes are taken for one value", n)
		}
	}
}

func TestToJSON(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, data, want string }{
		{"nil", "\xc0", "null"},
		{"booleans", "\x92\xc2\xc3", "[false,true]"},
		{"numbers", "\x95\x7f\xff\xcc\xff\xd0\x80\xcf\xff\xff\xff\xff\xff\xff\xff\xff", "[127,-1,255,-128,18446744073709551615]"},
		{"a signed number above zero", "\xd1\x01\x00", "256"},
		{"floats", "\x92\xca\x3f\xc0\x00\x00\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00", "[1.5,1.5]"},
		{"no number", "\xcb\x7f\xf8\x00\x00\x00\x00\x00\x01", `"NaN"`},
		{"a binary", "\xc4\x02\x00\xff", `"AP8="`},
		{"control characters", "\xa2\x1b\n", `"\u001b\n"`},
		{"bytes that are no text", "\xa1\xff", `"\ufffd"`},
		{"keys that are no strings", "\x83\x07\x01\xc0\x02\x91\x01\x03", `{"7":1,"null":2,"[1]":3}`},
		{"the order of the members", "\x82\xa1b\x01\xa1a\x02", `{"b":1,"a":2}`},
		{"a time in 4 bytes", "\xd6\xff\x00\x00\x00\x01", `"1970-01-01T00:00:01Z"`},
		{"a time in 8 bytes", "\xd7\xff\x00\x00\x00\x04\x00\x00\x00\x01", `"1970-01-01T00:00:01.000000001Z"`},
		{"a time in 12 bytes", "\xc7\x0c\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff", `"1969-12-31T23:59:59Z"`},
		{"another extension", "\xd4\x05\x01", `{"extension":5,"data":"AQ=="}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := toJSON([]byte(tt.data))
			if err != nil || string(got) != tt.want || !json.Valid(got) {
				t.Errorf("%s, %v; want %s", got, err, tt.want)
			}
		})
	}
	for name, data := range map[string]string{
		"nothing": "", "two values": "\xc0\xc0", "a code that does not exist": "\xc1", "a length without bytes": "\xdf\xff\xff\xff\xff",
		"deep nesting": strings.Repeat("\x91", 1000) + "\xc0",
	} {
		if got, err := toJSON([]byte(data)); err == nil {
			t.Errorf("%s became %s", name, got)
		}
	}
}

func TestReadEncryptionKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(text string) string {
		file := filepath.Join(dir, "keys")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	good := "# made today\n\nZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=\r\n  YW5vdGhlciBrZXkgb2YgZXhhY3RseSAzMiBieXRlcyE\n"
	keys, err := readEncryptionKeys(write(good))
	if err != nil || len(keys) != 2 || string(keys[0]) != string(testSeal) || string(keys[1]) != string(otherSeal) {
		t.Errorf("%q, %v", keys, err)
	}
	for text, why := range map[string]string{
		"":                      "has no encryption key",
		"# nothing\n":           "has no encryption key",
		"\nZmVkY2JhOTg3NjU0\n":  "line 2 of ",
		"not base64 !secret!\n": "line 1 of ",
	} {
		_, err := readEncryptionKeys(write(text))
		if err == nil || !strings.Contains(err.Error(), why) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "ZmVk") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := readEncryptionKeys(filepath.Join(dir, "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// A reader serves several goroutines: each gets the record that it asked for.
func TestReaderIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	r, err := newReader("", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	for range 4 {
		sess, entry := entryOf(t, echosession.Config{})
		go func() {
			var wrong error
			for range 100 {
				if got, err := r.read(entry); err != nil || got.id != sess.ID() {
					wrong = fmt.Errorf("%s in the place of %s: %v", got.id, sess.ID(), err)
				}
			}
			done <- wrong
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// Maps as keys of maps, which nest, do not grow into the memory of the machine.
func TestToJSONOfNestedKeys(t *testing.T) {
	data := []byte(strings.Repeat("\x81", 50) + "\x01" + strings.Repeat("\x01", 50))
	if text, err := toJSON(data); err == nil || len(text) > 10*len(data) {
		t.Errorf("%d bytes became %d: %v", len(data), len(text), err)
	}
}
