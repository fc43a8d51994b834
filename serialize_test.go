package echosession

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/echosession/echosession/internal/jwt"
	"github.com/vmihailenco/msgpack/v5"
)

const (
	idA = "0b5c9f3e-6d0a-4b8e-9f57-3f1f0f6f2a11"
	idB = "f47ac10b-58cc-4372-a567-0e02b2c3d479"
)

var createdAt = time.Date(2026, 3, 4, 5, 6, 7, 8_000_000, time.UTC)

// Account is the data of most records here, and of the benchmarks of the whole
// package.
type Account struct {
	UserID    int64             `json:"user_id"`
	Name      string            `json:"name"`
	Email     string            `msgpack:"mail" json:"email"`
	Roles     []string          `json:"roles"`
	Admin     bool              `json:"admin,omitempty"`
	LastLogin time.Time         `json:"last_login"`
	Prefs     map[string]string `json:"prefs"`
	Cart      []cartItem        `json:"cart"`
}

// AnAccount returns an Account with something in every field.
func AnAccount() Account {
	return Account{
		UserID:    81723,
		Name:      "Ada Lovelace",
		Email:     "ada@example.com",
		Roles:     []string{"admin", "editor"},
		Admin:     true,
		LastLogin: time.Date(2026, 3, 1, 12, 30, 0, 123456789, time.UTC),
		Prefs:     map[string]string{"lang": "en", "theme": "dark"},
		Cart:      []cartItem{{"book", 1}, {"pen", 12}},
	}
}

type cartItem struct {
	SKU string `msgpack:"sku"`
	Qty int    `msgpack:"qty,omitempty"`
}

func aHeader() recordHeader {
	return recordHeader{id: idA, createdAt: createdAt, idle: 90 * time.Minute, subject: "ada"}
}

func key(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

// plain returns a serializer whose records are not sealed.
func plain[T any](tb testing.TB) *serializer {
	return serializerOf[T](tb, serializerConfig{maxSize: 64 << 10})
}

// sealed returns a serializer that seals with the first of the keys.
func sealed[T any](tb testing.TB, keys ...[]byte) *serializer {
	return serializerOf[T](tb, serializerConfig{maxSize: 64 << 10, encryptionKeys: keys})
}

func serializerOf[T any](tb testing.TB, cfg serializerConfig) *serializer {
	tb.Helper()
	s, mistakes := newSerializer(reflect.TypeFor[T](), cfg)
	if len(mistakes) > 0 {
		tb.Fatal(mistakes)
	}
	return s
}

func encode(tb testing.TB, s *serializer, h recordHeader, v any, prev []byte) []byte {
	tb.Helper()
	record, err := s.encode(h, v, prev)
	if err != nil {
		tb.Fatal(err)
	}
	return record
}

func decode[T any](tb testing.TB, s *serializer, record []byte) (v T) {
	tb.Helper()
	if _, err := s.decode(idA, record, &v); err != nil {
		tb.Fatal(err)
	}
	return v
}

type jsonCodec struct{}

func (jsonCodec) Marshal(v any) ([]byte, error)      { return json.Marshal(v) }
func (jsonCodec) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

// everyFormat returns a serializer of each of the four record formats.
func everyFormat[T any](tb testing.TB) map[string]*serializer {
	return map[string]*serializer{
		"msgpack":        plain[T](tb),
		"codec":          serializerOf[T](tb, serializerConfig{codec: jsonCodec{}, maxSize: 64 << 10}),
		"sealed msgpack": sealed[T](tb, key(1)),
		"sealed codec":   serializerOf[T](tb, serializerConfig{codec: jsonCodec{}, maxSize: 64 << 10, encryptionKeys: [][]byte{key(1)}}),
	}
}

func TestRecordRoundTrip(t *testing.T) {
	headers := map[string]recordHeader{
		"all set":               aHeader(),
		"no subject, no idle":   {id: idA, createdAt: createdAt},
		"lives until exp":       {id: idA, createdAt: createdAt, idle: jwt.NoIdle, subject: "x"},
		"subject of 40 bytes":   {id: idA, createdAt: createdAt, idle: time.Hour, subject: strings.Repeat("s", 40)},
		"subject of 300 bytes":  {id: idA, createdAt: createdAt, idle: time.Hour, subject: strings.Repeat("s", 300)},
		"subject of 70 KB":      {id: idA, createdAt: createdAt, idle: time.Hour, subject: strings.Repeat("s", 70_000)},
		"subject of any bytes":  {id: idA, createdAt: createdAt, idle: time.Hour, subject: "\xff\x00{}:"},
		"longest idle timeout":  {id: idA, createdAt: createdAt, idle: 9_223_372_036_854 * time.Millisecond},
		"idle of a millisecond": {id: idA, createdAt: createdAt, idle: time.Millisecond},
		"deadline":              {id: idA, createdAt: createdAt, idle: 90 * time.Minute, subject: "ada", deadline: createdAt.Add(time.Hour)},
		"authenticated at once": {id: idA, createdAt: createdAt, authenticatedAt: createdAt},
		"authenticated later":   {id: idA, createdAt: createdAt, authenticatedAt: createdAt.Add(1234 * time.Hour), idle: time.Hour},
		"authenticated before":  {id: idA, createdAt: createdAt, authenticatedAt: createdAt.Add(-time.Millisecond)},
		"authenticated in 1970": {id: idA, createdAt: createdAt, authenticatedAt: time.UnixMilli(0).UTC()},
		"authenticated in 9999": {id: idA, createdAt: createdAt, authenticatedAt: time.UnixMilli(maxTime).UTC()},
		"deadline in 9999":      {id: idA, createdAt: createdAt, deadline: time.UnixMilli(maxTime).UTC()},
		"remembered":            {id: idA, createdAt: createdAt, remembered: true},
		"device":                {id: idA, createdAt: createdAt, device: "Ada's phone"},
		"actor":                 {id: idA, createdAt: createdAt, subject: "ada", actor: "root"},
		"binding":               {id: idA, createdAt: createdAt, binding: "\x00\xffb"},
		"longest extras":        {id: idA, createdAt: createdAt, device: strings.Repeat("d", 256), actor: strings.Repeat("a", 1024), binding: strings.Repeat("b", 1024)},
		"all of them": {
			id: idA, createdAt: createdAt, authenticatedAt: createdAt.Add(time.Hour), idle: time.Hour, deadline: createdAt.Add(2 * time.Hour),
			remembered: true, subject: "ada", device: "Ada's phone", actor: "root", binding: "bound",
		},
		"created at 1970":        {id: idA, createdAt: time.UnixMilli(0).UTC()},
		"created in the year 9k": {id: idA, createdAt: time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC)},
	}
	for format, s := range everyFormat[Account](t) {
		s.maxSize = 128 << 10
		for name, h := range headers {
			t.Run(format+"/"+name, func(t *testing.T) {
				want := AnAccount()
				record := encode(t, s, h, &want, nil)
				var got Account
				gotHeader, err := s.decode(idA, record, &got)
				if err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(got, want) {
					t.Errorf("decoded %+v, want %+v", got, want)
				}
				if gotHeader != h {
					t.Errorf("header %+v, want %+v", gotHeader, h)
				}
				if alone, err := s.header(record); err != nil || alone != h {
					t.Errorf("header alone %+v, %v, want %+v", alone, err, h)
				}
				if first := record[0]; first != 0x9b && first != 0x9a {
					t.Errorf("the record begins with %x", first)
				}
			})
		}
	}
}

func TestHeaderIsRoundedToMilliseconds(t *testing.T) {
	s := plain[Account](t)
	h := recordHeader{id: idA, createdAt: createdAt.Add(999 * time.Microsecond), idle: time.Microsecond}
	got, err := s.header(encode(t, s, h, new(Account), nil))
	if err != nil {
		t.Fatal(err)
	}
	if !got.createdAt.Equal(createdAt) {
		t.Errorf("created at %v, want %v", got.createdAt, createdAt)
	}
	if got.idle != time.Millisecond {
		t.Errorf("idle timeout %v: one under a millisecond must not become none", got.idle)
	}
	h = recordHeader{id: idA, createdAt: createdAt, authenticatedAt: time.UnixMilli(-1), deadline: time.UnixMilli(maxTime + 1)}
	got, err = s.header(encode(t, s, h, new(Account), nil))
	if err != nil {
		t.Fatal(err)
	}
	if got.authenticatedAt.UnixMilli() != 0 || got.deadline.UnixMilli() != maxTime {
		t.Errorf("what no record holds is written as %v and %v", got.authenticatedAt, got.deadline)
	}
}

func TestEncodeRefusesHeader(t *testing.T) {
	s := plain[Account](t)
	for name, h := range map[string]recordHeader{
		"empty ID":      {createdAt: createdAt},
		"upper-case ID": {id: strings.ToUpper(idA), createdAt: createdAt},
		"ID in braces":  {id: "{" + idA + "}", createdAt: createdAt},
		"no dashes":     {id: strings.ReplaceAll(idA, "-", "0"), createdAt: createdAt},
		"not hex":       {id: "g" + idA[1:], createdAt: createdAt},
		"before 1970":   {id: idA, createdAt: time.Time{}},
		"in 10000":      {id: idA, createdAt: time.UnixMilli(maxTime + 1)},
		"long device":   {id: idA, createdAt: createdAt, device: strings.Repeat("d", 257)},
		"long actor":    {id: idA, createdAt: createdAt, actor: strings.Repeat("a", 1025)},
		"long binding":  {id: idA, createdAt: createdAt, binding: strings.Repeat("b", 1025)},
	} {
		t.Run(name, func(t *testing.T) {
			if record, err := s.encode(h, new(Account), nil); err == nil {
				t.Errorf("encoded %x", record)
			}
		})
	}
}

func TestRevision(t *testing.T) {
	for format, s := range everyFormat[Account](t) {
		t.Run(format, func(t *testing.T) {
			seen := map[string]bool{}
			var record []byte
			for range 100 {
				record = encode(t, s, aHeader(), new(Account), nil)
				revision := revisionOf(record)
				if !bytes.HasPrefix(record, revision) || len(revision) != 30 {
					t.Fatalf("revision %x of %x", revision, record)
				}
				seen[string(revision)] = true
			}
			if len(seen) != 100 {
				t.Errorf("%d revisions for 100 writes", len(seen))
			}
			for _, i := range []int{0, 1, 2, 3, 20, 21} {
				damaged := bytes.Clone(record)
				damaged[i] ^= 0x80
				if got := revisionOf(damaged); got != nil {
					t.Errorf("byte %d damaged: revision %x", i, got)
				}
			}
			for n := range 30 {
				if got := revisionOf(record[:n]); got != nil {
					t.Errorf("%d bytes have revision %x", n, got)
				}
			}
			damaged := bytes.Clone(record)
			damaged[1] = 5
			if got := revisionOf(damaged); got != nil {
				t.Errorf("format 5 has revision %x", got)
			}
		})
	}
}

func TestAnotherSessionsRecord(t *testing.T) {
	for format, s := range everyFormat[Account](t) {
		t.Run(format, func(t *testing.T) {
			v := AnAccount()
			record := encode(t, s, aHeader(), &v, nil)
			var got Account
			_, err := s.decode(idB, record, &got)
			if !errors.Is(err, ErrStoreUnavailable) || errors.Is(err, ErrCorrupt) {
				t.Errorf("error %v, want ErrStoreUnavailable", err)
			}
			if !reflect.DeepEqual(got, Account{}) {
				t.Errorf("data of another session came out: %+v", got)
			}
			if err != nil && (strings.Contains(err.Error(), idA) || strings.Contains(err.Error(), idB)) {
				t.Errorf("the error names an ID: %v", err)
			}
		})
	}
}

func TestRewrite(t *testing.T) {
	for format, s := range everyFormat[Account](t) {
		t.Run(format, func(t *testing.T) {
			want := AnAccount()
			all := recordHeader{
				id: idA, createdAt: createdAt, authenticatedAt: createdAt.Add(time.Hour), idle: 90 * time.Minute, deadline: createdAt.Add(2 * time.Hour),
				remembered: true, subject: "ada", device: "phone", actor: "root", binding: "bound",
			}
			prev := encode(t, s, all, &want, nil)
			before := bytes.Clone(prev)
			record, err := s.rewrite(prev, idB)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(prev, before) {
				t.Error("the old record was changed")
			}
			var got Account
			h, err := s.decode(idB, record, &got)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("decoded %+v, want %+v", got, want)
			}
			all.id = idB
			if h != all {
				t.Errorf("header %+v, want %+v", h, all)
			}
			if bytes.Contains(record, revisionOf(prev)[22:]) {
				t.Error("the revision is the old one")
			}
		})
	}

	t.Run("keeps unknown fields", func(t *testing.T) {
		newer, older := plain[Account](t), plain[struct{ Name string }](t)
		want := AnAccount()
		record, err := older.rewrite(encode(t, newer, aHeader(), &want, nil), idA)
		if err != nil {
			t.Fatal(err)
		}
		if got := decode[Account](t, newer, record); !reflect.DeepEqual(got, want) {
			t.Errorf("decoded %+v, want %+v", got, want)
		}
	})
	t.Run("seals with the first key", func(t *testing.T) {
		rotated, first := sealed[Account](t, key(2), key(1)), sealed[Account](t, key(2))
		v := AnAccount()
		record, err := rotated.rewrite(encode(t, sealed[Account](t, key(1)), aHeader(), &v, nil), idA)
		if err != nil {
			t.Fatal(err)
		}
		if got := decode[Account](t, first, record); !reflect.DeepEqual(got, v) {
			t.Errorf("decoded %+v, want %+v", got, v)
		}
	})
	t.Run("refuses a damaged record", func(t *testing.T) {
		if _, err := plain[Account](t).rewrite([]byte("nonsense"), idB); !errors.Is(err, ErrCorrupt) {
			t.Errorf("error %v, want ErrCorrupt", err)
		}
	})
}

func TestSealing(t *testing.T) {
	v := AnAccount()
	open := plain[Account](t)
	one, two := sealed[Account](t, key(1)), sealed[Account](t, key(2), key(1))
	migrating := serializerOf[Account](t, serializerConfig{maxSize: 64 << 10, allowPlaintext: true, encryptionKeys: [][]byte{key(1)}})
	sealedRecord, openRecord := encode(t, one, aHeader(), &v, nil), encode(t, open, aHeader(), &v, nil)

	for _, c := range []struct {
		name   string
		s      *serializer
		record []byte
		reason string // "": it is read
		oldKey bool
	}{
		{"the key opens", one, sealedRecord, "", false},
		{"a later key opens", two, sealedRecord, "", true},
		{"the first of several opens", sealed[Account](t, key(1), key(2)), sealedRecord, "", false},
		{"the first key seals", one, encode(t, two, aHeader(), &v, nil), "key", false},
		{"what is written again has the first key", two, encode(t, two, aHeader(), &v, sealedRecord), "", false},
		{"what is rotated has the first key", two, must(two.rewrite(sealedRecord, idA)), "", false},
		{"no key", open, sealedRecord, "sealed", false},
		{"another key", sealed[Account](t, key(3)), sealedRecord, "key", false},
		{"plaintext is refused", one, openRecord, "not_sealed", false},
		{"plaintext is read when allowed", migrating, openRecord, "", false},
		{"sealed is read when plaintext is allowed", migrating, sealedRecord, "", false},
		{"plaintext is sealed when written again", one, encode(t, migrating, aHeader(), &v, openRecord), "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got Account
			h, err := c.s.decode(idA, c.record, &got)
			if c.reason == "" && (err != nil || !reflect.DeepEqual(got, v)) {
				t.Errorf("decoded %+v, %v", got, err)
			}
			if c.reason != "" {
				checkCorrupt(t, "Decode", err, c.reason)
			}
			if h.oldKey != c.oldKey {
				t.Errorf("an old key: %t, want %t", h.oldKey, c.oldKey)
			}
			if alone, err := c.s.header(c.record); err == nil && alone.oldKey != c.oldKey {
				t.Errorf("header alone, an old key: %t, want %t", alone.oldKey, c.oldKey)
			}
		})
	}

	t.Run("nothing of the session shows", func(t *testing.T) {
		for _, secret := range []string{"Lovelace", "ada", "user_id", "mail"} {
			if bytes.Contains(sealedRecord, []byte(secret)) {
				t.Errorf("%q is readable", secret)
			}
		}
	})
	t.Run("any changed bit fails", func(t *testing.T) {
		for i := range sealedRecord {
			for bit := range 8 {
				damaged := bytes.Clone(sealedRecord)
				damaged[i] ^= 1 << bit
				var got Account
				if _, err := one.decode(idA, damaged, &got); err == nil {
					t.Fatalf("bit %d of byte %d changed and nothing happened", bit, i)
				}
			}
		}
	})
	t.Run("any missing or added byte fails", func(t *testing.T) {
		for n := range sealedRecord {
			if _, err := one.decode(idA, sealedRecord[:n], new(Account)); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%d bytes: error %v", n, err)
			}
		}
		if _, err := one.decode(idA, append(bytes.Clone(sealedRecord), 0), new(Account)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("one more byte: error %v", err)
		}
	})
	t.Run("a record under another's ID fails", func(t *testing.T) {
		b := recordHeader{id: idB, createdAt: createdAt, subject: "bob"}
		other := encode(t, one, b, new(Account), nil)
		moved := append(bytes.Clone(sealedRecord[:20]), other[20:]...)
		if _, err := one.decode(idA, moved, new(Account)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("error %v, want ErrCorrupt", err)
		}
	})
}

// A record opens for the session and the instance that it was sealed for, with the key
// whose fingerprint it has.
func TestSealingKeys(t *testing.T) {
	in := func(keyspace string, keys ...[]byte) *serializer {
		return serializerOf[string](t, serializerConfig{maxSize: 64 << 10, keyspace: keyspace, encryptionKeys: keys})
	}
	v := "secret"
	users := in("sess:", key(1))
	sealed := encode(t, users, aHeader(), &v, nil)
	opens := func(s *serializer, record []byte) bool {
		_, err := s.decode(formatID(record[idStart:]), record, new(string))
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("error %v, want ErrCorrupt", err)
		}
		return err == nil
	}
	if !opens(users, sealed) || !opens(in("sess:", key(1)), sealed) {
		t.Error("it does not open where it belongs")
	}
	for _, keyspace := range []string{"", "sess", "sess:a", "admin:", "sess:\x00", "\x00sess:"} {
		if opens(in(keyspace, key(1)), sealed) {
			t.Errorf("it opens in keyspace %q", keyspace)
		}
	}

	t.Run("as the documentation says", func(t *testing.T) {
		at := bytes.Index(sealed, []byte{0xc4, 4}) // the fingerprint
		fingerprint := sealed[at+2 : at+6]
		secret := must(hkdf.Extract(sha256.New, key(1), nil))
		if want := must(hkdf.Expand(sha256.New, secret, "echosession/1\x00fingerprint", 4)); !bytes.Equal(fingerprint, want) {
			t.Errorf("fingerprint %x, want %x", fingerprint, want)
		}
		info := "echosession/1\x00sess:\x00" + string(sealed[idStart:idStart+idLen])
		block := must(aes.NewCipher(must(hkdf.Expand(sha256.New, secret, info, 32))))
		gcm := must(cipher.NewGCMWithRandomNonce(block))
		head, box := sealed[:at+6], sealed[at+8:]
		if sealed[at+6] != 0xc4 || int(sealed[at+7]) != len(box) {
			t.Fatalf("%x behind the fingerprint", sealed[at+6:at+8])
		}
		tail, err := gcm.Open(nil, nil, box, slices.Concat(head, []byte("sess:")))
		if err != nil || string(tail) != "\xa3ada\xc0\xa6secret" {
			t.Errorf("%q, %v", tail, err)
		}
	})
	t.Run("each session has its own", func(t *testing.T) {
		a := must(users.seals[0].aead(sealed[idStart : idStart+idLen]))
		b := must(users.seals[0].aead(bytes.Repeat([]byte{1}, idLen)))
		box := a.Seal(nil, nil, []byte("x"), nil)
		if _, err := b.Open(nil, nil, box, nil); err == nil {
			t.Error("two sessions have one key")
		}
		if _, err := a.Open(nil, nil, box, nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("the keyspace is authenticated too", func(t *testing.T) {
		// As if the two instances had one key for the session.
		other := in("sess:", key(1))
		head := sealed[:bytes.Index(sealed, []byte{0xc4, 4})+6]
		tail := must(users.open(sealed)).tail
		gcm := must(other.seals[0].aead(head[idStart : idStart+idLen]))
		box := gcm.Seal(nil, nil, tail, slices.Concat(head, []byte("admin:")))
		if opens(other, slices.Concat(head, []byte{0xc4, byte(len(box))}, box)) {
			t.Error("it opens with another keyspace as additional data")
		}
	})
	t.Run("only the one of the fingerprint is tried", func(t *testing.T) {
		s := in("sess:", key(2), key(1))
		if !opens(s, sealed) {
			t.Error("a later key does not open")
		}
		s.seals[1].fingerprint[0] ^= 1
		if opens(s, sealed) {
			t.Error("a key with another fingerprint opened")
		}
	})
	t.Run("and each that has it", func(t *testing.T) {
		s := in("sess:", key(2), key(1))
		s.seals[0].fingerprint = s.seals[1].fingerprint
		if !opens(s, sealed) {
			t.Error("a key with the fingerprint of another hides it")
		}
	})
	t.Run("the first one seals again", func(t *testing.T) {
		s := in("sess:", key(2), key(1))
		moved := must(s.rewrite(sealed, idB))
		if opens(users, moved) || !opens(in("sess:", key(2)), moved) {
			t.Error("the old key opens what was rotated")
		}
	})
}

func TestEncryptionKeysRefused(t *testing.T) {
	for name, c := range map[string]struct {
		keys [][]byte
		want string
	}{
		"16 bytes":  {[][]byte{key(1)[:16]}, "encryption key 0 has 16 bytes"},
		"no bytes":  {[][]byte{key(1), {}}, "encryption key 1 has 0 bytes"},
		"33 bytes":  {[][]byte{append(key(1), 1)}, "encryption key 0 has 33 bytes"},
		"twice one": {[][]byte{key(1), key(2), key(1)}, "encryption key 2 is the same as key 0"},
	} {
		t.Run(name, func(t *testing.T) {
			s, mistakes := newSerializer(reflect.TypeFor[Account](), serializerConfig{maxSize: 1 << 16, encryptionKeys: c.keys})
			if s != nil || len(mistakes) != 1 || mistakes[0].Field != "EncryptionKeys" || !strings.Contains(mistakes[0].Reason, c.want) {
				t.Errorf("mistakes %v, want one with %q", mistakes, c.want)
			}
		})
	}
}

// What can be stored is internal/shape's to decide. Here are the types that cannot be
// T, and how mistakes are handed on.
func TestTypesOfSessionsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		typ    reflect.Type
		reason string
	}{
		"pointer":    {reflect.TypeFor[*Account](), "use echosession.Account"},
		"interface":  {reflect.TypeFor[error](), "interface"},
		"its fields": {reflect.TypeFor[struct{ C chan int }](), "T"},
	} {
		for format, codec := range map[string]Codec{"msgpack": nil, "codec": jsonCodec{}} {
			t.Run(format+"/"+name, func(t *testing.T) {
				s, mistakes := newSerializer(c.typ, serializerConfig{codec: codec, maxSize: 1 << 16})
				if s != nil || len(mistakes) != 1 || mistakes[0].Field != "T" || !strings.Contains(mistakes[0].Reason, c.reason) {
					t.Errorf("mistakes %v, want one with %q", mistakes, c.reason)
				}
			})
		}
	}
	t.Run("every mistake at once", func(t *testing.T) {
		type unfit struct {
			C chan int
			F func()
		}
		_, mistakes := newSerializer(reflect.TypeFor[unfit](), serializerConfig{maxSize: 1 << 16, encryptionKeys: [][]byte{[]byte("short"), nil}})
		want := []ConfigError{
			{"EncryptionKeys", "encryption key 0 has 5 bytes: AES-256 takes exactly 32"},
			{"EncryptionKeys", "encryption key 1 has 0 bytes: AES-256 takes exactly 32"},
			{"T", "unfit.C: a value of type chan int cannot be stored: tag the field `msgpack:\"-\"`"},
			{"T", "unfit.F: a value of type func() cannot be stored: tag the field `msgpack:\"-\"`"},
		}
		if !slices.Equal(mistakes, want) {
			t.Errorf("mistakes %q\nwant %q", mistakes, want)
		}
	})
	t.Run("a pointer and a short key", func(t *testing.T) {
		_, mistakes := newSerializer(reflect.TypeFor[*int](), serializerConfig{maxSize: 1 << 16, encryptionKeys: [][]byte{[]byte("short")}})
		if len(mistakes) != 2 || !strings.Contains(mistakes[0].Reason, "5 bytes") || !strings.Contains(mistakes[1].Reason, "pointer") {
			t.Errorf("mistakes %v", mistakes)
		}
	})
}

func TestTooLarge(t *testing.T) {
	for format, s := range map[string]*serializer{
		"msgpack":        serializerOf[string](t, serializerConfig{maxSize: 1000}),
		"codec":          serializerOf[string](t, serializerConfig{codec: jsonCodec{}, maxSize: 1000}),
		"sealed msgpack": serializerOf[string](t, serializerConfig{maxSize: 1000, encryptionKeys: [][]byte{key(1)}}),
	} {
		t.Run(format, func(t *testing.T) {
			longest := 0
			for n := 900; n < 1100; n++ {
				v := strings.Repeat("x", n)
				record, err := s.encode(aHeader(), &v, nil)
				if err == nil {
					longest = len(record)
					continue
				}
				if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "1000") {
					t.Fatalf("error %v, want ErrTooLarge with the limit", err)
				}
			}
			if longest != 1000 {
				t.Errorf("the longest record has %d bytes, want 1000", longest)
			}
		})
	}
}

// A record that is larger than it may be is not read, whoever wrote it, and it stays.
func TestTooLargeToRead(t *testing.T) {
	for format, s := range everyFormat[string](t) {
		t.Run(format, func(t *testing.T) {
			small := *s
			small.maxSize = 1000
			v := "x"
			for len(encode(t, s, aHeader(), &v, nil)) < 1000 {
				v += "x"
			}
			fits := encode(t, s, aHeader(), &v, nil)
			v += "x"
			exceeds := encode(t, s, aHeader(), &v, nil)
			if len(fits) != 1000 || len(exceeds) != 1001 {
				t.Fatalf("%d and %d bytes", len(fits), len(exceeds))
			}
			if _, err := small.decode(idA, fits, new(string)); err != nil {
				t.Errorf("1000 bytes: %v", err)
			}
			got := ""
			_, err := small.decode(idA, exceeds, &got)
			checkCorrupt(t, "1001 bytes", err, "too_large")
			if !strings.Contains(err.Error(), "MaxRecordSize") || got != "" {
				t.Errorf("1001 bytes: %v", err)
			}
			_, err = small.header(exceeds)
			checkCorrupt(t, "its header", err, "too_large")
			_, err = small.rewrite(exceeds, idB)
			checkCorrupt(t, "rewritten", err, "too_large")
			if _, err := small.decode(idB, exceeds, &got); !errors.Is(err, ErrStoreUnavailable) {
				t.Errorf("another's: %v", err)
			}
		})
	}
	t.Run("what is sealed for the first time", func(t *testing.T) {
		v := strings.Repeat("x", 900)
		prev := encode(t, plain[string](t), aHeader(), &v, nil)
		s := serializerOf[string](t, serializerConfig{maxSize: len(prev), encryptionKeys: [][]byte{key(1)}, allowPlaintext: true})
		if record, err := s.rewrite(prev, idB); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%d bytes, %v: nothing is written that is not read", len(record), err)
		}
	})
}

// Few bytes may stand for much memory: that is a structure which no limit of bytes sees.
func TestTooLargeDecoded(t *testing.T) {
	type large struct{ A, B, C, D [32]int64 }
	const n = 2 << 20
	s := serializerOf[[]large](t, serializerConfig{maxSize: n + 100})
	r := record(append([]byte{0xdd, 0, n >> 16, 0, 0}, bytes.Repeat([]byte{0xc0}, n)...))
	var v []large
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := s.decode(idA, r, &v)
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, ErrCorrupt) || got > 1<<16 { // others allocate meanwhile
		t.Errorf("%d bytes allocated for %d, error %v", got, len(r), err)
	}
	few := serializerOf[[]map[string]int](t, serializerConfig{maxSize: 3200})
	maps := make([]map[string]int, 1000)
	for i := range maps {
		maps[i] = map[string]int{"": 0}
	}
	if _, err := few.encode(aHeader(), &maps, nil); !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "64 times") {
		t.Errorf("encoded: %v", err)
	}
}

type linked struct{ Next *linked }

func TestTooDeep(t *testing.T) {
	chain := func(depth int) *linked {
		n := &linked{}
		for range depth - 1 {
			n = &linked{Next: n}
		}
		return n
	}
	cycle := &linked{}
	cycle.Next = cycle
	for _, maxSize := range []int{64 << 20, 64 << 10} {
		s := serializerOf[linked](t, serializerConfig{maxSize: maxSize})
		for name, v := range map[string]*linked{"65 levels": chain(65), "a cycle": cycle, "a long chain": chain(1_000_000)} {
			if _, err := s.encode(aHeader(), v, nil); !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "64 levels") {
				t.Errorf("%s: error %v, want ErrTooLarge that speaks of levels", name, err)
			}
		}
		deepest := chain(64)
		if got := decode[linked](t, s, encode(t, s, aHeader(), deepest, nil)); !reflect.DeepEqual(&got, deepest) {
			t.Error("64 levels: decoded another chain")
		}
	}
}

// What T cannot say about the values in its interfaces is found when they are encoded.
// The mistake is the program's.
func TestEncodeFails(t *testing.T) {
	data := map[string]any{"v": make(chan int)}
	for format, s := range everyFormat[map[string]any](t) {
		record, err := s.encode(aHeader(), &data, nil)
		if err == nil {
			t.Errorf("%s: encoded %x", format, record)
		}
		if errors.Is(err, ErrTooLarge) || errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: error %v matches a sentinel that says something else", format, err)
		}
	}
}

// A session must not change under its owner when another is encoded or decoded.
func TestResultsShareNoMemory(t *testing.T) {
	type blobs struct {
		S  string
		B  []byte
		R  json.RawMessage
		BB [][]byte
		M  map[string][]byte
		A  any
	}
	blob := func(c string) blobs {
		s := strings.Repeat(c, 50)
		return blobs{s, []byte(s), json.RawMessage(s), [][]byte{[]byte(s)}, map[string][]byte{s: []byte(s)}, []any{[]byte(s), s}}
	}
	for format, s := range everyFormat[blobs](t) {
		if strings.Contains(format, "codec") {
			continue // the codec's business
		}
		t.Run(format, func(t *testing.T) {
			a, b := blob("a"), blob("b")
			recordA := encode(t, s, aHeader(), &a, nil)
			kept := bytes.Clone(recordA)
			gotA := decode[blobs](t, s, recordA)
			recordB := encode(t, s, aHeader(), &b, nil)
			if !bytes.Equal(recordA, kept) {
				t.Error("the next encode changed a record")
			}
			clear(recordA)
			decode[blobs](t, s, recordB)
			clear(recordB)
			if !reflect.DeepEqual(gotA, blob("a")) {
				t.Errorf("a decoded value changed: %+v", gotA)
			}
			if !reflect.DeepEqual(a, blob("a")) {
				t.Errorf("the encoded value changed: %+v", a)
			}
		})
	}
}

func TestSerializerIsSafeForConcurrentUse(t *testing.T) {
	plain, seals := plain[Account](t), sealed[Account](t, key(1))
	var wg sync.WaitGroup
	for i := range 8 {
		s := plain
		if i%2 == 1 {
			s = seals
		}
		wg.Go(func() {
			for j := range 100 {
				want := AnAccount()
				want.Name = fmt.Sprint(i, j)
				record, err := s.encode(aHeader(), &want, nil)
				if err != nil {
					t.Error(err)
					return
				}
				var got Account
				if _, err := s.decode(idA, record, &got); err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("decoded %+v, %v", got, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestCodecErrorsAreCorrupt(t *testing.T) {
	panics := plainCodec{func([]byte, any) error { panic("no") }}
	fails := plainCodec{func(data []byte, _ any) error { return fmt.Errorf("bad %s", data) }}
	for name, codec := range map[string]Codec{"panic": panics, "error": fails} {
		t.Run(name, func(t *testing.T) {
			good := serializerOf[string](t, serializerConfig{codec: jsonCodec{}, maxSize: 1 << 16})
			v := "secret"
			record := encode(t, good, aHeader(), &v, nil)
			s := *good
			s.codec = codec
			_, err := s.decode(idA, record, new(string))
			checkCorrupt(t, "Decode", err, "data")
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("error %v", err)
			}
		})
	}
	t.Run("written by another codec", func(t *testing.T) {
		v := "s"
		formats := everyFormat[string](t)
		for _, pair := range [][2]string{{"msgpack", "codec"}, {"codec", "msgpack"}, {"sealed msgpack", "sealed codec"}, {"sealed codec", "sealed msgpack"}} {
			record := encode(t, formats[pair[0]], aHeader(), &v, nil)
			_, err := formats[pair[1]].decode(idA, record, new(string))
			checkCorrupt(t, fmt.Sprintf("%s read by %s", pair[0], pair[1]), err, "codec")
		}
	})
}

type plainCodec struct{ unmarshal func([]byte, any) error }

func (plainCodec) Marshal(v any) ([]byte, error)        { return json.Marshal(v) }
func (c plainCodec) Unmarshal(data []byte, v any) error { return c.unmarshal(data, v) }

// record wraps data in a header as the plain MessagePack format has it.
func record(data []byte) []byte {
	id, _ := hex.DecodeString(strings.ReplaceAll(idA, "-", ""))
	b := append([]byte{0x9b, 1, 0xc4, 16}, id...)
	b = append(b, 0xc4, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0xcf)
	b = binary.BigEndian.AppendUint64(b, uint64(createdAt.UnixMilli()))
	return append(append(b, 0xc0, 0xc0, 0xc0, 0, 0xc0, 0xc0), data...)
}

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestHostileRecords(t *testing.T) {
	good := record([]byte{0x80})
	for name, r := range map[string][]byte{
		"nil":                   nil,
		"one byte":              {0x9b},
		"JSON":                  []byte(`{"id":"0b5c9f3e-6d0a-4b8e-9f57-3f1f0f6f2a11"}` + strings.Repeat(" ", 20)),
		"prefix alone":          good[:30],
		"no data":               good[:len(good)-1],
		"no extras":             good[:len(good)-2],
		"no subject":            good[:len(good)-3],
		"no flags":              good[:len(good)-4],
		"no deadline":           good[:len(good)-5],
		"no idle timeout":       good[:len(good)-6],
		"no authenticated-at":   good[:len(good)-7],
		"half a created-at":     good[:35],
		"a byte follows":        append(bytes.Clone(good), 0xc0),
		"format 0":              with(good, 1, 0),
		"format 5":              with(good, 1, 5),
		"sealed format":         with(with(good, 1, 3), 0, 0x9a),
		"ten elements":          with(good, 0, 0x9a),
		"eight elements":        with(good, 0, 0x98),
		"begins with C1":        with(good, 0, 0xc1),
		"ID of 15 bytes":        with(good, 3, 15),
		"revision is a string":  with(good, 20, 0xd9),
		"created-at is a float": with(good, 30, 0xcb),
		"created-at negative":   with(with(good, 30, 0xd3), 31, 0xff),
		"created-at over int64": with(good, 31, 0xff),
		"created in year 10000": put(good, 30, 9, "cf 0000e677d21fdc00"),

		"authenticated a string":     with(good, 39, 0xa0),
		"authenticated before 1970":  put(good, 39, 1, "d3 fffffe0000000000"),
		"authenticated in 10000":     put(good, 39, 1, "cf 0000e677d21fdbff"),
		"authenticated, over int64":  put(good, 39, 1, "cf ffffffffffffffff"),
		"authenticated, under int64": put(good, 39, 1, "d3 8000000000000000"),

		"idle timeout 0":        with(good, 40, 0x00),
		"idle timeout -2":       with(good, 40, 0xfe),
		"idle timeout a bool":   with(good, 40, 0xc2),
		"idle timeout overflow": put(good, 40, 1, "cf 7fffffffffffffff"),
		"deadline before 1970":  put(good, 41, 1, "d3 fffffe0000000000"),
		"deadline a string":     with(good, 41, 0xa0),
		"deadline over int64":   put(good, 41, 1, "cf ffffffffffffffff"),
		"deadline in 10000":     put(good, 41, 1, "cf 0000e677d21fdbff"),
		"flags nil":             with(good, 42, 0xc0),
		"flags negative":        with(good, 42, 0xff),
		"subject an integer":    with(good, 43, 0x01),
		"subject a binary":      put(good, 43, 1, "c4 01 61"),

		"extras a string":            with(good, 44, 0xa0),
		"extras an array":            with(good, 44, 0x90),
		"extras empty":               with(good, 44, 0x80),
		"extras of 4 billion":        put(good, 44, 1, "df ffffffff"),
		"extras key 0":               put(good, 44, 1, "81 00 a161"),
		"extras key a string":        put(good, 44, 1, "81 a161 a161"),
		"extras key negative":        put(good, 44, 1, "81 ff a161"),
		"extras twice one":           put(good, 44, 1, "82 01 a161 01 a162"),
		"extras twice an unknown":    put(good, 44, 1, "82 63 c0 63 c0"),
		"extras out of order":        put(good, 44, 1, "82 02 a161 01 a162"),
		"extras unknown, then known": put(good, 44, 1, "82 04 a161 01 a162"),
		"extras cut off":             put(good, 44, 1, "81 01"),
		"extras, unknown cut off":    put(good, 44, 1, "81 04 c4 ff"),
		"extras, unknown too deep":   put(good, 44, 1, "81 04"+strings.Repeat("91", 65)+"c0"),
		"extras, unknown too long":   put(good, 44, 1, "81 04 c5 07fe"+strings.Repeat("00", 2046)),
		"device a number":            put(good, 44, 1, "81 01 07"),
		"device a binary":            put(good, 44, 1, "81 01 c4 01 61"),
		"device empty":               put(good, 44, 1, "81 01 a0"),
		"device nil":                 put(good, 44, 1, "81 01 c0"),
		"device of 257 bytes":        put(good, 44, 1, "81 01 da 0101"+strings.Repeat("61", 257)),
		"actor a binary":             put(good, 44, 1, "81 02 c4 01 61"),
		"actor of 1025 bytes":        put(good, 44, 1, "81 02 da 0401"+strings.Repeat("61", 1025)),
		"binding a string":           put(good, 44, 1, "81 03 a161"),
		"binding of 1025 bytes":      put(good, 44, 1, "81 03 c5 0401"+strings.Repeat("61", 1025)),
		"binding an array":           put(good, 44, 1, "81 03 91 c0"),

		"data of another type": append(bytes.Clone(good[:45]), 0x91, 0xc3),
		"data of 2^32-1 pairs": append(bytes.Clone(good[:45]), 0xdf, 0xff, 0xff, 0xff, 0xff),
		"data with C1":         append(bytes.Clone(good[:45]), 0x81, 0xa1, '?', 0xc1),
	} {
		t.Run(name, func(t *testing.T) {
			dataAlone := name == "no data" || name == "a byte follows" || strings.HasPrefix(name, "data ")
			s, reason := plain[Account](t), "head"
			switch {
			case dataAlone:
				reason = "data"
			case name == "sealed format":
				reason = "sealed"
			}
			_, err := s.decode(idA, r, new(Account))
			checkCorrupt(t, "Decode", err, reason)
			if _, err := s.rewrite(r, idB); !dataAlone {
				checkCorrupt(t, "Rewrite", err, reason)
			}
			if _, err := s.encode(aHeader(), new(Account), append([]byte{}, r...)); r != nil {
				checkCorrupt(t, "Encode over it", err, reason)
			}
			if _, err := s.header(r); !dataAlone {
				checkCorrupt(t, "Header", err, reason)
			}
		})
	}
	for name, r := range map[string][]byte{
		"the record that the others are made of": good,
		"deadline before created-at":             put(good, 41, 1, "d3 ffffffffffffffff"),
		"device of 256 bytes":                    put(good, 44, 1, "81 01 da 0100"+strings.Repeat("61", 256)),
		"actor of 1024 bytes":                    put(good, 44, 1, "81 02 da 0400"+strings.Repeat("61", 1024)),
		"binding of 1024 bytes":                  put(good, 44, 1, "81 03 c5 0400"+strings.Repeat("61", 1024)),
		"unknown extras of 2048 bytes":           put(good, 44, 1, "81 04 c5 07fc"+strings.Repeat("00", 2044)),
		"unknown extras of every kind":           put(good, 44, 1, "84 05 c0 cc80 91c3 cd0100 81a161c0 cf0000000000010000 c40161"),
	} {
		s := plain[Account](t)
		if _, err := s.decode(idA, r, new(Account)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if again := encode(t, s, must(s.header(r)), new(Account), nil); !bytes.Equal(again[prefixLen:][:len(r)-1-prefixLen], r[prefixLen:len(r)-1]) {
			t.Errorf("%s: written again as %x", name, again)
		}
	}
}

// checkCorrupt checks that err is ErrCorrupt, for this reason.
func checkCorrupt(t *testing.T, what string, err error, reason string) {
	t.Helper()
	if got := corruptReason(err); !errors.Is(err, ErrCorrupt) || got != reason {
		t.Errorf("%s: error %v for the reason %q, want ErrCorrupt for %q", what, err, got, reason)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Under a codec the data is one binary.
func TestHostileCodecRecords(t *testing.T) {
	s := everyFormat[Account](t)["codec"]
	head := with(record(nil), 1, formatCodec)
	for name, c := range map[string]struct {
		data string
		ok   bool
	}{
		"a binary":             {"c4 02 7b7d", true},
		"a longer form of it":  {"c6 00000002 7b7d", true},
		"nothing":              {"", false},
		"a string":             {"a2 7b7d", false},
		"a map":                {"80", false},
		"a byte follows":       {"c4 02 7b7d 00", false},
		"a byte is missing":    {"c4 03 7b7d", false},
		"4 GB of it":           {"c6 ffffffff 7b7d", false},
		"what the codec hates": {"c4 01 7b", false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.decode(idA, append(bytes.Clone(head), unhex(t, c.data)...), new(Account))
			if c.ok && err != nil {
				t.Errorf("error %v", err)
			} else if !c.ok {
				checkCorrupt(t, "Decode", err, "data")
			}
		})
	}
}

func TestLargeRecordsUnderACodec(t *testing.T) {
	for _, n := range []int{250, 300, 70_000} {
		s := serializerOf[string](t, serializerConfig{codec: jsonCodec{}, maxSize: 128 << 10})
		v := strings.Repeat("x", n)
		if got := decode[string](t, s, encode(t, s, aHeader(), &v, nil)); got != v {
			t.Errorf("%d bytes come back as %d", n, len(got))
		}
	}
}

// put puts hexadecimal bytes in the place of n bytes of b.
func put(b []byte, i, n int, with string) []byte {
	new, err := hex.DecodeString(strings.ReplaceAll(with, " ", ""))
	if err != nil {
		panic(err)
	}
	return slices.Concat(b[:i], new, b[i+n:])
}

func with(b []byte, i int, c byte) []byte {
	b = bytes.Clone(b)
	b[i] = c
	return b
}

// What a store holds may be another user's: no error shows it.
func TestRecordErrorsCarryNoData(t *testing.T) {
	type named struct{ N int }
	for format, s := range everyFormat[named](t) {
		type secret struct{ N string }
		written := everyFormat[secret](t)[format]
		_, err := s.decode(idA, encode(t, written, aHeader(), &secret{"secret"}, nil), new(named))
		if !errors.Is(err, ErrCorrupt) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), idA) {
			t.Errorf("%s: error %v", format, err)
		}
	}
}

// newerAccount is the Account of a newer release.
type newerAccount struct {
	Account
	Newer string
}

// Which fields are carried is internal/shape's to decide. Here is that a record's are,
// whatever became of the record in between.
func TestUnknownFieldsOfARecordSurvive(t *testing.T) {
	open := serializerConfig{maxSize: 64 << 10}
	one := serializerConfig{maxSize: 64 << 10, encryptionKeys: [][]byte{key(1)}}
	two := serializerConfig{maxSize: 64 << 10, encryptionKeys: [][]byte{key(2), key(1)}}
	both := serializerConfig{maxSize: 64 << 10, encryptionKeys: [][]byte{key(1)}, allowPlaintext: true}
	for name, c := range map[string]struct{ newer, older serializerConfig }{
		"plain":                     {open, open},
		"sealed":                    {one, one},
		"sealed again":              {one, two},
		"sealed for the first time": {open, both},
	} {
		for change, update := range map[string]func(*Account){
			"nothing changed": func(*Account) {},
			"fields changed":  func(a *Account) { a.Name = "Ada King"; a.Cart[1].Qty++ },
			"fields emptied":  func(a *Account) { a.Admin = false; a.Cart = nil },
			"all emptied":     func(a *Account) { *a = Account{} },
		} {
			t.Run(name+"/"+change, func(t *testing.T) {
				newer, older := serializerOf[newerAccount](t, c.newer), serializerOf[Account](t, c.older)
				prev := encode(t, newer, aHeader(), &newerAccount{AnAccount(), "x"}, nil)
				before := bytes.Clone(prev)
				want := decode[Account](t, older, prev)
				update(&want)
				record := encode(t, older, aHeader(), &want, prev)
				reads := serializerOf[newerAccount](t, c.older)
				if got := decode[newerAccount](t, reads, record); !reflect.DeepEqual(got, newerAccount{want, "x"}) {
					t.Errorf("the newer release reads %+v\nwant %+v", got, want)
				}
				if got := decode[Account](t, older, record); !reflect.DeepEqual(got, want) {
					t.Errorf("the older release reads %+v\nwant %+v", got, want)
				}
				if !bytes.Equal(prev, before) {
					t.Error("the old record was changed")
				}
			})
		}
	}
}

func TestUnknownFieldsAnswerToTheLimit(t *testing.T) {
	type oldT struct{ A string }
	type newT struct{ A, B string }
	v := newT{B: strings.Repeat("b", 600)}
	prev := encode(t, plain[newT](t), aHeader(), &v, nil)
	o := oldT{strings.Repeat("a", 600)}
	s := serializerOf[oldT](t, serializerConfig{maxSize: 1000})
	if _, err := s.encode(aHeader(), &o, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.encode(aHeader(), &o, prev); !errors.Is(err, ErrTooLarge) {
		t.Errorf("error %v, want ErrTooLarge", err)
	}
}

// The head of a newer release has flags and extras that this one does not know. They
// survive what this release does to the session.
func TestNewerHeadSurvives(t *testing.T) {
	many := ""
	for i := range 20 {
		many += fmt.Sprintf("%02x %02x", 4+i, i)
	}
	for name, c := range map[string]struct{ flags, extras string }{
		"flags":                {"cd ff00", "c0"},
		"flags and remembered": {"cf ffffffffffffffff", "c0"},
		"an extra":             {"00", "81 04 a161"},
		"beside known ones":    {"01", "84 01 a161 03 c40162 04 93010203 cc80 81a161c0"},
		"twenty":               {"00", "de 0014" + many},
		"twenty-two":           {"00", "de 0016 01 a161 02 a162" + many},
	} {
		for format, s := range everyFormat[Account](t) {
			t.Run(name+"/"+format, func(t *testing.T) {
				// As plain MessagePack, and then sealed.
				first := put(put(record([]byte{0x80}), 44, 1, c.extras), 42, 1, c.flags)
				h := must(plain[Account](t).header(first))
				same := func(what string, id string, r []byte) {
					t.Helper()
					want := h
					want.id = id
					got, err := s.decode(id, r, new(Account))
					if err != nil || got != want {
						t.Errorf("%s: header %+v, %v\nwant %+v", what, got, err, want)
					}
					back := encode(t, plain[Account](t), got, new(Account), nil)
					start := first[prefixLen : len(first)-1]
					if !bytes.HasPrefix(back[prefixLen:], start) {
						t.Errorf("%s: head %x\nwant %x", what, back[prefixLen:], start)
					}
				}
				stored := encode(t, s, h, new(Account), nil)
				same("stored", idA, stored)
				v := AnAccount()
				updated := encode(t, s, must(s.header(stored)), &v, stored)
				same("updated", idA, updated)
				same("rotated", idB, must(s.rewrite(updated, idB)))
			})
		}
	}
}

// What a session does through its life changes nothing of its head but the ID and the
// end of its lifetime.
func TestTheHeadOutlivesRotationAndUpdate(t *testing.T) {
	for name, keys := range map[string][][]byte{"plain": nil, "sealed": {key(1)}} {
		t.Run(name, func(t *testing.T) {
			store := NewMemoryStore()
			t.Cleanup(func() { store.Close() })
			m, err := New[Account](Config{Store: store, Secret: key(9), EncryptionKeys: keys, AbsoluteTimeout: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			e := m.engine
			v := AnAccount()
			l, err := e.create(t.Context(), &v, createParams{subject: "ada", maxAge: time.Minute, limited: true})
			if err != nil {
				t.Fatal(err)
			}
			if l.header.authenticatedAt.IsZero() || l.header.authenticatedAt != l.header.createdAt {
				t.Errorf("created at %v, authenticated at %v", l.header.createdAt, l.header.authenticatedAt)
			}
			stored := must(e.serializer.header(l.record))
			l.header.deadline = l.header.deadline.Truncate(time.Millisecond).UTC() // a token has a float
			if stored != l.header {
				t.Errorf("stored %+v, not %+v", stored, l.header)
			}

			// As another release writes it.
			want := stored
			want.authenticatedAt = want.authenticatedAt.Add(3 * time.Second)
			want.remembered, want.device, want.actor, want.binding = true, "phone", "root", "bound"
			want.newer.flags, want.newer.extras, want.newer.n = 0x80, "\x63\xc0", 1
			record := encode(t, e.serializer, want, &v, nil)
			if err := store.Replace(t.Context(), l.ref, revisionOf(l.record), record, time.Minute); err != nil {
				t.Fatal(err)
			}
			opened, err := e.open(t.Context(), l.token, new(Account))
			if err != nil || opened.header != want {
				t.Fatalf("opened %+v, %v", opened.header, err)
			}
			same := func(what string, l *live, err error) *live {
				t.Helper()
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				want.id = l.ref.ID
				if l.header != want {
					t.Errorf("%s: header %+v\nwant %+v", what, l.header, want)
				}
				if got := must(e.serializer.header(l.record)); got != want {
					t.Errorf("%s: stored %+v\nwant %+v", what, got, want)
				}
				return l
			}
			update := func(l *live) (*live, error) {
				fresh := func() any { return new(Account) }
				return e.update(t.Context(), l, nil, fresh, func(v any) error { v.(*Account).Name += "!"; return nil })
			}
			next, err := update(opened)
			next = same("updated", next, err)
			next, err = e.rotate(t.Context(), next)
			next = same("rotated", next, err)
			next, err = update(next)
			next = same("updated again", next, err)
			next, err = e.reload(t.Context(), next, new(Account))
			same("reloaded", next, err)
		})
	}
}

// A rotated token takes subject and end from the record: what its predecessor said of
// them is not among the caller's claims.
func TestRotationTakesTheEndFromTheRecord(t *testing.T) {
	store := NewMemoryStore()
	t.Cleanup(func() { store.Close() })
	m, err := New[Account](Config{Store: store, Secret: key(9), AbsoluteTimeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	e := m.engine
	v := AnAccount()
	l, err := e.create(t.Context(), &v, createParams{subject: "ada"})
	if err != nil {
		t.Fatal(err)
	}
	endless := l.header
	endless.deadline = time.Time{}
	record := encode(t, e.serializer, endless, &v, nil)
	if err := store.Replace(t.Context(), l.ref, revisionOf(l.record), record, time.Minute); err != nil {
		t.Fatal(err)
	}
	opened, err := e.open(t.Context(), l.token, new(Account))
	if err != nil {
		t.Fatal(err)
	}
	next, err := e.rotate(t.Context(), opened)
	if err != nil {
		t.Fatal(err)
	}
	if at, ok := next.tok.ExpiresAt(); ok || next.tok.Subject != "ada" {
		t.Errorf("subject %q, end %v", next.tok.Subject, at)
	}
}

// Nothing unknown is found by a walk alone.
func TestPredecessorCostsNoAllocation(t *testing.T) {
	s := plain[Account](t)
	v := AnAccount()
	prev := encode(t, s, aHeader(), &v, nil)
	without := testing.AllocsPerRun(200, func() { encode(t, s, aHeader(), &v, nil) })
	with := testing.AllocsPerRun(200, func() { encode(t, s, aHeader(), &v, prev) })
	for range 4 { // what runs beside it may allocate too
		with = min(with, testing.AllocsPerRun(200, func() { encode(t, s, aHeader(), &v, prev) }))
	}
	if with > without+1 { // the header's subject
		t.Errorf("%v allocations, %v without a predecessor", with, without)
	}
}

// Every header and every value come back, sealed or not.
func FuzzRecord(f *testing.F) {
	f.Add("ada", int64(5), int64(1_772_600_767_008), int64(0), "Ada", []byte("b"))
	f.Add("", int64(-1), int64(0), int64(1), "\xff", []byte(nil))
	s, seals := plain[Account](f), sealed[Account](f, key(1))
	f.Fuzz(func(t *testing.T, subject string, idle, created, deadline int64, name string, role []byte) {
		h := recordHeader{
			id: idA, createdAt: time.UnixMilli(created & math.MaxInt64 >> 16).UTC(),
			idle: max(-1, time.Duration(idle>>21)*time.Millisecond), subject: subject,
		}
		if deadline > 0 {
			h.deadline = time.UnixMilli(deadline >> 16).UTC()
			h.authenticatedAt = time.UnixMilli(deadline & math.MaxInt64 >> 20).UTC()
			h.remembered = deadline&1 != 0
			h.device, h.actor, h.binding = name[:min(len(name), maxDevice)], subject[:min(len(subject), maxActor)], string(role[:min(len(role), maxBinding)])
		}
		want := Account{Name: name, Roles: []string{string(role)}, Prefs: map[string]string{subject: name}}
		for _, s := range []*serializer{s, seals} {
			record, err := s.encode(h, &want, nil)
			if errors.Is(err, ErrTooLarge) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got Account
			gotHeader, err := s.decode(idA, record, &got)
			if err != nil {
				t.Fatal(err)
			}
			if gotHeader != h || !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v %+v\nwant %+v %+v", gotHeader, got, h, want)
			}
		}
	})
}

func TestRecordFuzzSeeds(t *testing.T) {
	for _, target := range []string{"FuzzRecord", "FuzzSealed"} {
		seeds, err := filepath.Glob("testdata/fuzz/" + target + "/*")
		if err != nil || len(seeds) == 0 {
			t.Errorf("%s has %d seeds, %v", target, len(seeds), err)
		}
	}
}

// A sealed record that is not what was sealed does not open.
func FuzzSealed(f *testing.F) {
	f.Add(uint16(0), byte(1), uint16(0))
	f.Add(uint16(1), byte(2), uint16(0))
	f.Add(uint16(35), byte(0x80), uint16(3))
	s := sealed[Account](f, key(1))
	v := AnAccount()
	good := encode(f, s, aHeader(), &v, nil)
	f.Fuzz(func(t *testing.T, at uint16, xor byte, cut uint16) {
		damaged := bytes.Clone(good)
		damaged[int(at)%len(damaged)] ^= xor
		damaged = damaged[:len(damaged)-int(cut)%len(damaged)]
		if bytes.Equal(damaged, good) {
			return
		}
		var got Account
		if _, err := s.decode(idA, damaged, &got); err == nil {
			t.Errorf("%x opened", damaged)
		} else if errors.Is(err, ErrCorrupt) && corruptReason(err) == "" {
			t.Errorf("%x: no reason in a word: %v", damaged, err)
		}
		if _, err := s.header(damaged); err == nil {
			t.Errorf("the header of %x opened", damaged)
		}
		if !reflect.DeepEqual(got, Account{}) {
			t.Errorf("something came out: %+v", got)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	v := AnAccount()
	for name, s := range map[string]*serializer{"record": plain[Account](b), "sealed record": sealed[Account](b, key(1))} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.encode(aHeader(), &v, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+" over its predecessor", func(b *testing.B) {
			prev := encode(b, s, aHeader(), &v, nil)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.encode(aHeader(), &v, prev); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("record with unknown fields", func(b *testing.B) {
		s := plain[Account](b)
		prev := encode(b, plain[newerAccount](b), aHeader(), &newerAccount{v, "x"}, nil)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.encode(aHeader(), &v, prev); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("bare msgpack", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := msgpack.Marshal(&v); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := json.Marshal(&v); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("gob", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := gob.NewEncoder(new(bytes.Buffer)).Encode(&v); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	v := AnAccount()
	for name, s := range map[string]*serializer{"record": plain[Account](b), "sealed record": sealed[Account](b, key(1))} {
		record := encode(b, s, aHeader(), &v, nil)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var got Account
				if _, err := s.decode(idA, record, &got); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("header alone", func(b *testing.B) {
		s := plain[Account](b)
		record := encode(b, s, aHeader(), &v, nil)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.header(record); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("bare msgpack", func(b *testing.B) {
		data, err := msgpack.Marshal(&v)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			var got Account
			if err := msgpack.Unmarshal(data, &got); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("json", func(b *testing.B) {
		data, err := json.Marshal(&v)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			var got Account
			if err := json.Unmarshal(data, &got); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("gob", func(b *testing.B) {
		var data bytes.Buffer
		if err := gob.NewEncoder(&data).Encode(&v); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			var got Account
			if err := gob.NewDecoder(bytes.NewReader(data.Bytes())).Decode(&got); err != nil {
				b.Fatal(err)
			}
		}
	})
}
