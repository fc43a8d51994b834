package echosession_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/echosession/echosession"
)

const (
	idA = "0b5c9f3e-6d0a-4b8e-9f57-3f1f0f6f2a11"
	idB = "f47ac10b-58cc-4372-a567-0e02b2c3d479"
)

var createdAt = time.Date(2026, 3, 4, 5, 6, 7, 8_000_000, time.UTC)

type cartItem struct {
	SKU string `msgpack:"sku"`
	Qty int    `msgpack:"qty,omitempty"`
}

type account struct {
	UserID    int64             `json:"user_id"`
	Name      string            `json:"name"`
	Email     string            `msgpack:"mail" json:"email"`
	Roles     []string          `json:"roles"`
	Admin     bool              `json:"admin,omitempty"`
	LastLogin time.Time         `json:"last_login"`
	Prefs     map[string]string `json:"prefs"`
	Cart      []cartItem        `json:"cart"`
}

func anAccount() account {
	return account{
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

func aHeader() echosession.RecordHeader {
	return echosession.NewRecordHeader(idA, createdAt, 90*time.Minute, "ada")
}

func key(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

func plain[T any](tb testing.TB) echosession.Serializer {
	return serializer[T](tb, echosession.NewSerializerConfig(nil, 64<<10, false))
}

func sealed[T any](tb testing.TB, keys ...[]byte) echosession.Serializer {
	return serializer[T](tb, echosession.NewSerializerConfig(nil, 64<<10, false, keys...))
}

func serializer[T any](tb testing.TB, cfg echosession.SerializerConfig) echosession.Serializer {
	tb.Helper()
	s, err := echosession.NewSerializer(reflect.TypeFor[T](), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func encode(tb testing.TB, s echosession.Serializer, h echosession.RecordHeader, v any, prev []byte) []byte {
	tb.Helper()
	record, err := s.Encode(h, v, prev)
	if err != nil {
		tb.Fatal(err)
	}
	return record
}

func decode[T any](tb testing.TB, s echosession.Serializer, record []byte) (v T) {
	tb.Helper()
	if _, err := s.Decode(idA, record, &v); err != nil {
		tb.Fatal(err)
	}
	return v
}

type jsonCodec struct{}

func (jsonCodec) Marshal(v any) ([]byte, error)      { return json.Marshal(v) }
func (jsonCodec) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

// everyFormat returns a serializer of each of the four record formats.
func everyFormat[T any](tb testing.TB) map[string]echosession.Serializer {
	return map[string]echosession.Serializer{
		"msgpack":        plain[T](tb),
		"codec":          serializer[T](tb, echosession.NewSerializerConfig(jsonCodec{}, 64<<10, false)),
		"sealed msgpack": sealed[T](tb, key(1)),
		"sealed codec":   serializer[T](tb, echosession.NewSerializerConfig(jsonCodec{}, 64<<10, false, key(1))),
	}
}

func TestRecordRoundTrip(t *testing.T) {
	headers := map[string]echosession.RecordHeader{
		"all set":                aHeader(),
		"no subject, no idle":    echosession.NewRecordHeader(idA, createdAt, 0, ""),
		"lives until exp":        echosession.NewRecordHeader(idA, createdAt, echosession.NoIdleTimeout, "x"),
		"subject of 40 bytes":    echosession.NewRecordHeader(idA, createdAt, time.Hour, strings.Repeat("s", 40)),
		"subject of 300 bytes":   echosession.NewRecordHeader(idA, createdAt, time.Hour, strings.Repeat("s", 300)),
		"subject of any bytes":   echosession.NewRecordHeader(idA, createdAt, time.Hour, "\xff\x00{}:"),
		"longest idle timeout":   echosession.NewRecordHeader(idA, createdAt, 9_223_372_036_854*time.Millisecond, ""),
		"idle of a millisecond":  echosession.NewRecordHeader(idA, createdAt, time.Millisecond, ""),
		"deadline":               aHeader().WithDeadline(createdAt.Add(time.Hour)),
		"created at 1970":        echosession.NewRecordHeader(idA, time.UnixMilli(0).UTC(), 0, ""),
		"created in the year 9k": echosession.NewRecordHeader(idA, time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC), 0, ""),
	}
	for format, s := range everyFormat[account](t) {
		for name, h := range headers {
			t.Run(format+"/"+name, func(t *testing.T) {
				want := anAccount()
				record := encode(t, s, h, &want, nil)
				var got account
				gotHeader, err := s.Decode(idA, record, &got)
				if err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(got, want) {
					t.Errorf("decoded %+v, want %+v", got, want)
				}
				if gotHeader != h {
					t.Errorf("header %+v, want %+v", gotHeader, h)
				}
				if alone, err := s.Header(record); err != nil || alone != h {
					t.Errorf("header alone %+v, %v, want %+v", alone, err, h)
				}
				if first := record[0]; first != 0x98 && first != 0x97 {
					t.Errorf("the record begins with %x", first)
				}
			})
		}
	}
}

func TestHeaderIsRoundedToMilliseconds(t *testing.T) {
	s := plain[account](t)
	h := echosession.NewRecordHeader(idA, createdAt.Add(999*time.Microsecond), time.Microsecond, "")
	got, err := s.Header(encode(t, s, h, new(account), nil))
	if err != nil {
		t.Fatal(err)
	}
	_, at, idle, _ := got.Fields()
	if !at.Equal(createdAt) {
		t.Errorf("created at %v, want %v", at, createdAt)
	}
	if idle != time.Millisecond {
		t.Errorf("idle timeout %v: one under a millisecond must not become none", idle)
	}
}

func TestEncodeRefusesHeader(t *testing.T) {
	s := plain[account](t)
	for name, h := range map[string]echosession.RecordHeader{
		"empty ID":      echosession.NewRecordHeader("", createdAt, 0, ""),
		"upper-case ID": echosession.NewRecordHeader(strings.ToUpper(idA), createdAt, 0, ""),
		"ID in braces":  echosession.NewRecordHeader("{"+idA+"}", createdAt, 0, ""),
		"no dashes":     echosession.NewRecordHeader(strings.ReplaceAll(idA, "-", "0"), createdAt, 0, ""),
		"not hex":       echosession.NewRecordHeader("g"+idA[1:], createdAt, 0, ""),
		"before 1970":   echosession.NewRecordHeader(idA, time.Time{}, 0, ""),
	} {
		t.Run(name, func(t *testing.T) {
			if record, err := s.Encode(h, new(account), nil); err == nil {
				t.Errorf("encoded %x", record)
			}
		})
	}
}

func TestRevision(t *testing.T) {
	for format, s := range everyFormat[account](t) {
		t.Run(format, func(t *testing.T) {
			seen := map[string]bool{}
			var record []byte
			for range 100 {
				record = encode(t, s, aHeader(), new(account), nil)
				revision := echosession.RevisionOf(record)
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
				if got := echosession.RevisionOf(damaged); got != nil {
					t.Errorf("byte %d damaged: revision %x", i, got)
				}
			}
			for n := range 30 {
				if got := echosession.RevisionOf(record[:n]); got != nil {
					t.Errorf("%d bytes have revision %x", n, got)
				}
			}
			damaged := bytes.Clone(record)
			damaged[1] = 5
			if got := echosession.RevisionOf(damaged); got != nil {
				t.Errorf("format 5 has revision %x", got)
			}
		})
	}
}

func TestAnotherSessionsRecord(t *testing.T) {
	for format, s := range everyFormat[account](t) {
		t.Run(format, func(t *testing.T) {
			v := anAccount()
			record := encode(t, s, aHeader(), &v, nil)
			var got account
			_, err := s.Decode(idB, record, &got)
			if !errors.Is(err, echosession.ErrStoreUnavailable) || errors.Is(err, echosession.ErrCorrupt) {
				t.Errorf("error %v, want ErrStoreUnavailable", err)
			}
			if !reflect.DeepEqual(got, account{}) {
				t.Errorf("data of another session came out: %+v", got)
			}
			if err != nil && (strings.Contains(err.Error(), idA) || strings.Contains(err.Error(), idB)) {
				t.Errorf("the error names an ID: %v", err)
			}
		})
	}
}

func TestRewrite(t *testing.T) {
	for format, s := range everyFormat[account](t) {
		t.Run(format, func(t *testing.T) {
			want := anAccount()
			prev := encode(t, s, aHeader(), &want, nil)
			before := bytes.Clone(prev)
			record, err := s.Rewrite(prev, idB)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(prev, before) {
				t.Error("the old record was changed")
			}
			var got account
			h, err := s.Decode(idB, record, &got)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("decoded %+v, want %+v", got, want)
			}
			if want := echosession.NewRecordHeader(idB, createdAt, 90*time.Minute, "ada"); h != want {
				t.Errorf("header %+v, want %+v", h, want)
			}
			if bytes.Contains(record, echosession.RevisionOf(prev)[22:]) {
				t.Error("the revision is the old one")
			}
		})
	}

	t.Run("keeps unknown fields", func(t *testing.T) {
		newer, older := plain[account](t), plain[struct{ Name string }](t)
		want := anAccount()
		record, err := older.Rewrite(encode(t, newer, aHeader(), &want, nil), idA)
		if err != nil {
			t.Fatal(err)
		}
		if got := decode[account](t, newer, record); !reflect.DeepEqual(got, want) {
			t.Errorf("decoded %+v, want %+v", got, want)
		}
	})
	t.Run("seals with the first key", func(t *testing.T) {
		rotated, first := sealed[account](t, key(2), key(1)), sealed[account](t, key(2))
		v := anAccount()
		record, err := rotated.Rewrite(encode(t, sealed[account](t, key(1)), aHeader(), &v, nil), idA)
		if err != nil {
			t.Fatal(err)
		}
		if got := decode[account](t, first, record); !reflect.DeepEqual(got, v) {
			t.Errorf("decoded %+v, want %+v", got, v)
		}
	})
	t.Run("refuses a damaged record", func(t *testing.T) {
		if _, err := plain[account](t).Rewrite([]byte("nonsense"), idB); !errors.Is(err, echosession.ErrCorrupt) {
			t.Errorf("error %v, want ErrCorrupt", err)
		}
	})
}

func TestSealing(t *testing.T) {
	v := anAccount()
	open := plain[account](t)
	one, two := sealed[account](t, key(1)), sealed[account](t, key(2), key(1))
	migrating := serializer[account](t, echosession.NewSerializerConfig(nil, 64<<10, true, key(1)))
	sealedRecord, openRecord := encode(t, one, aHeader(), &v, nil), encode(t, open, aHeader(), &v, nil)

	for _, c := range []struct {
		name   string
		s      echosession.Serializer
		record []byte
		reads  bool
	}{
		{"the key opens", one, sealedRecord, true},
		{"a later key opens", two, sealedRecord, true},
		{"the first key seals", one, encode(t, two, aHeader(), &v, nil), false},
		{"no key", open, sealedRecord, false},
		{"another key", sealed[account](t, key(3)), sealedRecord, false},
		{"plaintext is refused", one, openRecord, false},
		{"plaintext is read when allowed", migrating, openRecord, true},
		{"sealed is read when plaintext is allowed", migrating, sealedRecord, true},
		{"plaintext is sealed when written again", one, encode(t, migrating, aHeader(), &v, openRecord), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got account
			_, err := c.s.Decode(idA, c.record, &got)
			if c.reads && (err != nil || !reflect.DeepEqual(got, v)) {
				t.Errorf("decoded %+v, %v", got, err)
			}
			if !c.reads && !errors.Is(err, echosession.ErrCorrupt) {
				t.Errorf("error %v, want ErrCorrupt", err)
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
				var got account
				if _, err := one.Decode(idA, damaged, &got); err == nil {
					t.Fatalf("bit %d of byte %d changed and nothing happened", bit, i)
				}
			}
		}
	})
	t.Run("any missing or added byte fails", func(t *testing.T) {
		for n := range sealedRecord {
			if _, err := one.Decode(idA, sealedRecord[:n], new(account)); !errors.Is(err, echosession.ErrCorrupt) {
				t.Fatalf("%d bytes: error %v", n, err)
			}
		}
		if _, err := one.Decode(idA, append(bytes.Clone(sealedRecord), 0), new(account)); !errors.Is(err, echosession.ErrCorrupt) {
			t.Errorf("one more byte: error %v", err)
		}
	})
	t.Run("a record under another's ID fails", func(t *testing.T) {
		b := echosession.NewRecordHeader(idB, createdAt, 0, "bob")
		other := encode(t, one, b, new(account), nil)
		moved := append(bytes.Clone(sealedRecord[:20]), other[20:]...)
		if _, err := one.Decode(idA, moved, new(account)); !errors.Is(err, echosession.ErrCorrupt) {
			t.Errorf("error %v, want ErrCorrupt", err)
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
			_, err := echosession.NewSerializer(reflect.TypeFor[account](), echosession.NewSerializerConfig(nil, 1<<16, false, c.keys...))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestTooLarge(t *testing.T) {
	for format, s := range map[string]echosession.Serializer{
		"msgpack":        serializer[string](t, echosession.NewSerializerConfig(nil, 1000, false)),
		"codec":          serializer[string](t, echosession.NewSerializerConfig(jsonCodec{}, 1000, false)),
		"sealed msgpack": serializer[string](t, echosession.NewSerializerConfig(nil, 1000, false, key(1))),
	} {
		t.Run(format, func(t *testing.T) {
			longest := 0
			for n := 900; n < 1100; n++ {
				v := strings.Repeat("x", n)
				record, err := s.Encode(aHeader(), &v, nil)
				if err == nil {
					longest = len(record)
					continue
				}
				if !errors.Is(err, echosession.ErrTooLarge) || !strings.Contains(err.Error(), "1000") {
					t.Fatalf("error %v, want ErrTooLarge with the limit", err)
				}
			}
			if longest != 1000 {
				t.Errorf("the longest record has %d bytes, want 1000", longest)
			}
		})
	}
}

type node struct {
	Value int
	Next  *node
	Nodes []*node
	Any   any
}

func TestNesting(t *testing.T) {
	// With a limit this high a cycle must be found before the stack is used up.
	s := serializer[node](t, echosession.NewSerializerConfig(nil, 64<<20, false))
	small := plain[node](t)

	chain := func(depth int) *node {
		n := &node{}
		for range depth - 1 {
			n = &node{Next: n}
		}
		return n
	}
	pointer := &node{}
	pointer.Next = pointer
	slice := &node{}
	slice.Nodes = []*node{slice, slice}
	m := map[string]any{}
	m["m"] = m

	for name, c := range map[string]struct {
		v  *node
		ok bool
	}{
		"64 levels":                {chain(echosession.MaxDepth), true},
		"65 levels":                {chain(echosession.MaxDepth + 1), false},
		"pointer to itself":        {pointer, false},
		"slice of itself":          {slice, false},
		"interface map in itself":  {&node{Any: m}, false},
		"long chain":               {chain(1_000_000), false},
		"long chain, small in all": {chain(500), false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, s := range []echosession.Serializer{s, small} {
				record, err := s.Encode(aHeader(), c.v, nil)
				if c.ok && err != nil || !c.ok && !errors.Is(err, echosession.ErrTooLarge) {
					t.Fatalf("error %v, fits: %t", err, c.ok)
				}
				if !c.ok {
					if !strings.Contains(err.Error(), "64 levels") {
						t.Errorf("error %v does not speak of levels", err)
					}
					continue
				}
				if got := decode[node](t, s, record); !reflect.DeepEqual(&got, c.v) {
					t.Error("decoded another chain")
				}
			}
		})
	}
}

func TestEncodeFails(t *testing.T) {
	s := plain[map[string]any](t)
	for name, v := range map[string]any{
		"channel in an interface":           make(chan int),
		"map with integer keys in one":      map[int]string{1: "a"},
		"map of those, deeper":              []any{map[string]any{"m": map[int]int{1: 2}}},
		"error of a type's own method":      marshalFails{},
		"type's own method writes too much": raw("\x01\x02"),
	} {
		t.Run(name, func(t *testing.T) {
			data := map[string]any{"v": v}
			record, err := s.Encode(aHeader(), &data, nil)
			if err == nil {
				t.Errorf("encoded %x", record)
			}
			if errors.Is(err, echosession.ErrTooLarge) || errors.Is(err, echosession.ErrCorrupt) {
				t.Errorf("error %v matches a sentinel that says something else", err)
			}
		})
	}
}

type marshalFails struct{}

func (marshalFails) MarshalText() ([]byte, error) { return nil, errors.New("no") }

type raw string

func (r raw) MarshalMsgpack() ([]byte, error) { return []byte(r), nil }

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

func TestTimesAreUTC(t *testing.T) {
	type inner struct{ Then time.Time }
	type times struct {
		inner
		At     time.Time
		Ptr    *time.Time
		Slice  []time.Time
		Array  [2]time.Time
		Map    map[string]time.Time
		Nested []map[string]*inner
		Any    any
		Loose  map[string]any
		Zero   time.Time
		Nil    *time.Time
	}
	defer func(l *time.Location) { time.Local = l }(time.Local)
	time.Local = time.FixedZone("elsewhere", 5*3600)

	make := func(at time.Time) times {
		return times{
			inner: inner{}, At: at, Ptr: &at, Slice: []time.Time{at, at}, Array: [2]time.Time{at, at},
			Map: map[string]time.Time{"a": at, "b": at}, Nested: []map[string]*inner{{"n": {at}}},
			Any: []any{at, map[string]any{"t": at}}, Loose: map[string]any{"t": at, "s": []any{at}},
		}
	}
	s := plain[times](t)
	now := time.Now()
	v, want := make(now), make(now.UTC().Round(0))
	if got := decode[times](t, s, encode(t, s, aHeader(), &v, nil)); !reflect.DeepEqual(got, want) {
		t.Errorf("decoded %+v\nwant %+v", got, want)
	}

	top := plain[time.Time](t)
	if got := decode[time.Time](t, top, encode(t, top, aHeader(), &now, nil)); got != now.UTC().Round(0) {
		t.Errorf("decoded %v", got)
	}
}

func TestInterfacesHoldStableTypes(t *testing.T) {
	s := plain[map[string]any](t)
	for _, c := range []struct{ in, out any }{
		{nil, nil}, {true, true}, {"s", "s"}, {[]byte("b"), []byte("b")},
		{1, int64(1)}, {-1, int64(-1)}, {int8(-100), int64(-100)}, {200, int64(200)}, {-200, int64(-200)},
		{70_000, int64(70_000)}, {-70_000, int64(-70_000)}, {1 << 40, int64(1 << 40)}, {-1 << 40, int64(-1 << 40)},
		{uint8(200), int64(200)}, {uint64(1<<63 - 1), int64(1<<63 - 1)}, {uint64(1 << 63), uint64(1 << 63)},
		{float32(0.1), float32(0.1)}, {0.1, 0.1}, {time.Second, int64(time.Second)},
		{[]int{1, 300}, []any{int64(1), int64(300)}},
		{map[string]int{"a": 1}, map[string]any{"a": int64(1)}},
		{cartItem{"pen", 2}, map[string]any{"sku": "pen", "qty": int64(2)}},
	} {
		v := map[string]any{"v": c.in}
		got := decode[map[string]any](t, s, encode(t, s, aHeader(), &v, nil))
		if !reflect.DeepEqual(got["v"], c.out) {
			t.Errorf("%T %v comes back as %T %v, want %T", c.in, c.in, got["v"], got["v"], c.out)
		}
	}
}

func TestFlat(t *testing.T) {
	for _, c := range []struct {
		typ  reflect.Type
		flat bool
	}{
		{reflect.TypeFor[int](), true},
		{reflect.TypeFor[string](), true},
		{reflect.TypeFor[struct {
			A [3]struct{ S string }
			T time.Time
		}](), true},
		{reflect.TypeFor[struct{ P *int }](), false},
		{reflect.TypeFor[struct{ S []int }](), false},
		{reflect.TypeFor[[2]map[string]int](), false},
		{reflect.TypeFor[struct{ A any }](), false},
	} {
		s, err := echosession.NewSerializer(c.typ, echosession.NewSerializerConfig(nil, 1<<16, false))
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Flat(); got != c.flat {
			t.Errorf("%v: flat %t, want %t", c.typ, got, c.flat)
		}
	}
}

func TestSerializerIsSafeForConcurrentUse(t *testing.T) {
	s := plain[account](t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 100 {
				want := anAccount()
				want.Name = fmt.Sprint(i, j)
				record, err := s.Encode(aHeader(), &want, nil)
				if err != nil {
					t.Error(err)
					return
				}
				var got account
				if _, err := s.Decode(idA, record, &got); err != nil || !reflect.DeepEqual(got, want) {
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
	for name, codec := range map[string]echosession.Codec{"panic": panics, "error": fails} {
		t.Run(name, func(t *testing.T) {
			good := serializer[string](t, echosession.NewSerializerConfig(jsonCodec{}, 1<<16, false))
			v := "secret"
			record := encode(t, good, aHeader(), &v, nil)
			s := echosession.WithCodec(good, codec)
			_, err := s.Decode(idA, record, new(string))
			if !errors.Is(err, echosession.ErrCorrupt) || strings.Contains(err.Error(), "secret") {
				t.Errorf("error %v", err)
			}
		})
	}
	t.Run("written by another codec", func(t *testing.T) {
		v := "s"
		formats := everyFormat[string](t)
		for _, pair := range [][2]string{{"msgpack", "codec"}, {"codec", "msgpack"}, {"sealed msgpack", "sealed codec"}, {"sealed codec", "sealed msgpack"}} {
			record := encode(t, formats[pair[0]], aHeader(), &v, nil)
			if _, err := formats[pair[1]].Decode(idA, record, new(string)); !errors.Is(err, echosession.ErrCorrupt) {
				t.Errorf("%s read by %s: error %v", pair[0], pair[1], err)
			}
		}
	})
}

type plainCodec struct{ unmarshal func([]byte, any) error }

func (plainCodec) Marshal(v any) ([]byte, error)        { return json.Marshal(v) }
func (c plainCodec) Unmarshal(data []byte, v any) error { return c.unmarshal(data, v) }

// record wraps data in a header as the plain MessagePack format has it.
func record(data []byte) []byte {
	id, _ := hex.DecodeString(strings.ReplaceAll(idA, "-", ""))
	b := append([]byte{0x98, 1, 0xc4, 16}, id...)
	b = append(b, 0xc4, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0xcf)
	b = binary.BigEndian.AppendUint64(b, uint64(createdAt.UnixMilli()))
	return append(append(b, 0xc0, 0xc0, 0xc0), data...)
}
