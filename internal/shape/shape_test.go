package shape_test

import (
	"bytes"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/echosession/echosession/internal/shape"
)

type cartItem struct {
	SKU string `msgpack:"sku"`
	Qty int    `msgpack:"qty,omitempty"`
}

// account is a struct as programs have it, with the tags of two encoders.
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
		UserID: 81723, Name: "Ada Lovelace", Email: "ada@example.com", Roles: []string{"admin", "editor"}, Admin: true,
		LastLogin: time.Date(2026, 3, 1, 12, 30, 0, 123456789, time.UTC),
		Prefs:     map[string]string{"lang": "en", "theme": "dark"}, Cart: []cartItem{{"book", 1}, {"pen", 12}},
	}
}

// newShape returns the shape of T, which can be stored.
func newShape[T any](tb testing.TB) *shape.Shape {
	tb.Helper()
	sh, mistakes := shape.New(reflect.TypeFor[T]())
	if len(mistakes) > 0 {
		tb.Fatal(mistakes)
	}
	return sh
}

// encode encodes what v points to. The unknown fields of prev, the encoding before,
// live on; prev may be nil.
func encode(tb testing.TB, sh *shape.Shape, v any, prev []byte) []byte {
	tb.Helper()
	data, err := sh.Append(nil, reflect.ValueOf(v).Elem(), 64<<10)
	if err != nil {
		tb.Fatal(err)
	}
	if prev == nil {
		return data
	}
	unknown, err := sh.Check(prev, 64<<10)
	if err != nil {
		tb.Fatal(err)
	}
	if unknown && !sh.Keeps() {
		tb.Fatal("there are unknown fields in a shape that keeps none")
	}
	return sh.Carry(nil, data, prev)
}

func decode[T any](tb testing.TB, sh *shape.Shape, data []byte) (v T) {
	tb.Helper()
	if err := sh.Decode(data, reflect.ValueOf(&v).Elem(), 64<<10); err != nil {
		tb.Fatal(err)
	}
	return v
}

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

type color int // an enumeration whose zero value is no color

func (c color) MarshalText() ([]byte, error) {
	if c < 1 || c > 2 {
		return nil, errors.New("not a color")
	}
	return []byte{"?rg"[c]}, nil
}

func (c *color) UnmarshalText(b []byte) error {
	*c = color(bytes.IndexByte([]byte("?rg"), b[0]))
	return nil
}

type level int // an enumeration whose zero value is one of them

func (l level) MarshalText() ([]byte, error)     { return []byte{'0' + byte(l)}, nil }
func (l *level) UnmarshalText(text []byte) error { *l = level(text[0] - '0'); return nil }

type port uint // likewise, unsigned

func (p port) MarshalText() ([]byte, error) {
	if p == 0 {
		return nil, errors.New("not a port")
	}
	return []byte{'0' + byte(p)}, nil
}
func (p *port) UnmarshalText(text []byte) error { *p = port(text[0] - '0'); return nil }

type weekday string // likewise, in three letters

func (d weekday) MarshalText() ([]byte, error) {
	if len(d) != 3 {
		return nil, errors.New("not a day")
	}
	return []byte(d), nil
}
func (d *weekday) UnmarshalText(text []byte) error { *d = weekday(text); return nil }

type picky struct{ text string } // accepts nothing that could be guessed

func (p picky) MarshalText() ([]byte, error) {
	if p.text == "" {
		return nil, errors.New("empty")
	}
	return []byte(p.text), nil
}
func (p *picky) UnmarshalText(b []byte) error { p.text = string(b); return nil }

type (
	tree  map[string]tree
	list  []list
	inner struct{ A, B int }
	base  struct{ ID, Name string }
	Size  int
	Base  struct{ ID, Name string }

	writeOnly int
	readOnly  struct{ X int }
)

func (writeOnly) MarshalText() ([]byte, error) { return nil, nil }
func (*readOnly) UnmarshalText([]byte) error   { return nil }

func TestTypesAccepted(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	id := uuid.MustParse("0b5c9f3e-6d0a-4b8e-9f57-3f1f0f6f2a11")
	u := url.URL{Scheme: "https", Host: "example.com", Path: "/x"}
	for name, v := range map[string]any{
		"struct":       anAccount(),
		"empty struct": struct{}{},
		"uuid.UUID":    struct{ ID uuid.UUID }{id},
		"slice and map of UUIDs": struct {
			S []uuid.UUID
			M map[uuid.UUID]uuid.UUID
			P *uuid.UUID
		}{[]uuid.UUID{id}, map[uuid.UUID]uuid.UUID{id: id}, &id},
		"uuid.NullUUID": struct{ ID uuid.NullUUID }{uuid.NullUUID{UUID: id, Valid: true}},
		"netip": struct {
			A netip.Addr
			P netip.AddrPort
			X netip.Prefix
		}{netip.MustParseAddr("::1"), netip.MustParseAddrPort("1.2.3.4:5"), netip.MustParsePrefix("10.0.0.0/8")},
		"zero netip": struct {
			A netip.Addr
			P netip.AddrPort
			X netip.Prefix
		}{},
		"net.IP":              struct{ IP net.IP }{net.ParseIP("1.2.3.4")},
		"json.RawMessage":     struct{ R json.RawMessage }{json.RawMessage(`{"a":1}`)},
		"nil json.RawMessage": struct{ R json.RawMessage }{},
		"big.Int": struct {
			P *big.Int
			V big.Int
		}{big.NewInt(1 << 60), *big.NewInt(7)},
		"nil big.Int": struct{ P *big.Int }{},
		"time.Duration": struct {
			D time.Duration
			S []time.Duration
		}{time.Hour, []time.Duration{1}},
		"times": struct {
			T time.Time
			P *time.Time
			S []time.Time
			M map[string]time.Time
		}{at, &at, []time.Time{at}, map[string]time.Time{"a": at}},
		"embedded time alone": struct{ time.Time }{at},
		"sql.NullString": struct {
			N sql.NullString
			T sql.NullTime
			I sql.Null[int]
		}{sql.NullString{String: "s", Valid: true}, sql.NullTime{Time: at, Valid: true}, sql.Null[int]{V: 1, Valid: true}},
		"url.URL": struct {
			V url.URL
			P *url.URL
		}{u, &u},
		"enumeration": struct {
			L level
			S []level
			M map[string]level
			K map[level]int
		}{1, []level{0, 1}, map[string]level{"a": 1}, map[level]int{1: 2}},
		"enumeration without zero": struct{ C color }{1},
		"unsigned and textual ones": struct {
			P port
			W weekday
		}{2, "sun"},
		"type that cannot be tried": struct {
			P picky
			X int
		}{picky{"x"}, 1},
		"msgpack.RawMessage": struct{ R msgpack.RawMessage }{msgpack.RawMessage{0x91, 0x01}},
		"map":                map[string]any{"a": "b", "n": nil, "m": map[string]any{"x": true}},
		"map of structs":     map[string]inner{"a": {1, 2}},
		"integer keys":       map[int8]map[uint16]bool{-1: {1: true}},
		"struct and array keys": struct {
			S map[inner]int
			A map[[2]string]int
			B map[[4]byte]int
		}{map[inner]int{{1, 2}: 3}, map[[2]string]int{{"a"}: 1}, map[[4]byte]int{{1}: 1}},
		"slice":            []int{1, 2},
		"array":            [2]inner{{1, 2}},
		"string":           "s",
		"integer":          int16(-5),
		"bool":             true,
		"time":             at,
		"UUID":             id,
		"recursive struct": node{Value: 1, Next: &node{Value: 2}, Nodes: []*node{nil, {Value: 3}}},
		"recursive map":    tree{"a": tree{"b": nil}},
		"recursive slice":  list{list{}, nil},
		"pointers to basic types": struct {
			I *int
			S *string
			B *bool
		}{new(int), new(string), new(bool)},
		"pointer to slice and map": struct {
			S *[]int
			M *map[string]int
		}{&[]int{1}, &map[string]int{"a": 1}},
		"empty, not nil": struct {
			S []int
			M map[string]int
			B []byte
			T []string
			A []any
		}{[]int{}, map[string]int{}, []byte{}, []string{}, []any{}},
		"nil": struct {
			S []int
			M map[string]int
			B []byte
			T []string
			A any
		}{},
		"named string slice": struct {
			N namedStrings
			B namedBytes
			E []namedString
		}{namedStrings{"a"}, namedBytes{1}, []namedString{"a"}},
		"byte arrays in a map": map[string][3]byte{"a": {1, 2, 3}},
		"skipped fields": struct {
			F func()   `msgpack:"-"`
			x int      `msgpack:"-"`
			C chan int `json:"-"`
			_ int
			A int
		}{A: 1},
		"embedded struct": struct {
			base
			Age int
		}{base{"i", "n"}, 1},
		"embedded, no struct": struct {
			Size
			Age int
		}{7, 1},
		"embedded, two that encode themselves": struct {
			netip.Addr
			netip.Prefix
		}{netip.MustParseAddr("::1"), netip.MustParsePrefix("10.0.0.0/8")},
		"embedded, not inlined": struct {
			*Base `msgpack:"base,noinline"`
			Age   int
		}{&Base{"i", "n"}, 1},
		"shadowed embedded": struct {
			Name string
			Base
		}{"outer", Base{"i", "inner"}},
		"shadowed, inline": struct {
			Name string
			base `msgpack:",inline"`
		}{Name: "outer", base: base{ID: "i"}},
		"alias": struct {
			A int `msgpack:"a,alias:b"`
		}{1},
		"as array": asArray{A: 1, B: "b"},
		"generic":  generic[inner]{V: inner{1, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			typ := reflect.TypeOf(v)
			sh, mistakes := shape.New(typ)
			if len(mistakes) > 0 {
				t.Fatal(mistakes)
			}
			in, out := reflect.New(typ), reflect.New(typ)
			in.Elem().Set(reflect.ValueOf(v))
			if err := sh.Decode(encode(t, sh, in.Interface(), nil), out.Elem(), 64<<10); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(out.Elem().Interface(), v) {
				t.Errorf("decoded %+v, want %+v", out.Elem().Interface(), v)
			}
		})
	}
	t.Run("any", func(t *testing.T) {
		sh := newShape[any](t)
		var v any = map[string]any{"a": []any{"b", nil}}
		if got := decode[any](t, sh, encode(t, sh, &v, nil)); !reflect.DeepEqual(got, v) {
			t.Errorf("decoded %v", got)
		}
	})
}

type (
	namedString  string
	namedStrings []string
	namedBytes   []byte

	generic[T any] struct{ V T }
	namedByte      byte
)

func TestTypesRefused(t *testing.T) {
	type User struct {
		Callback func()
		Events   chan int
		Root     complex128
		Address  uintptr
		Err      error
		Namer    fmt.Stringer
		secret   string
		Lock     sync.Mutex
		Double   **int
		Loose    *any
		Orders   []struct{ Done func() }
		ByTime   map[time.Time]int
	}
	_ = User{secret: ""}.secret
	for name, c := range map[string]struct {
		typ  reflect.Type
		want []string
	}{
		"every mistake at once": {reflect.TypeFor[User](), []string{
			"User.Callback: ", "User.Events: ", "User.Root: ", "User.Address: ", "User.Err: ", "User.Namer: ",
			"User.secret: an unexported field would be lost: export it, or tag it `msgpack:\"-\"`",
			"User.Lock.mu: ", "User.Double: ", "User.Loose: ", "User.Orders[].Done: ", "User.ByTime: ",
		}},
		"interface": {reflect.TypeFor[error](), []string{"interface"}},
		"function":  {reflect.TypeFor[func()](), []string{"T: "}},
		"two fields of one name": {reflect.TypeFor[struct {
			A int
			B int `json:"A"`
		}](), []string{`T.B: the name "A" is taken`}},
		"embedded after the outer": {reflect.TypeFor[struct {
			Base
			Name string
		}](), []string{`T.Name: the name "Name" is taken`}},
		"named like the embedded": {reflect.TypeFor[struct {
			Base
			X int `msgpack:"Base"`
		}](), []string{`T.X: the name "Base" is taken`}},
		"embedded pointer":        {reflect.TypeFor[struct{ *Base }](), []string{"T.Base: an embedded pointer"}},
		"embedded unexported int": {reflect.TypeFor[struct{ namedByte }](), []string{"T.namedByte: "}},
		"unexported, not inlined": {reflect.TypeFor[struct {
			base `msgpack:",noinline"`
		}](), []string{"T.base: "}},
		"embedded time and more": {reflect.TypeFor[struct {
			time.Time
			Name string
		}](), []string{"T: ", "give the embedded field a name"}},
		"embedded UUID and more": {reflect.TypeFor[struct {
			A struct {
				uuid.UUID
				Name string
			}
		}](), []string{"T.A: "}},
		"encodes, does not decode": {reflect.TypeFor[struct{ W writeOnly }](), []string{"T.W: "}},
		"decodes, does not encode": {reflect.TypeFor[struct{ R readOnly }](), []string{"T.R: "}},
		"pointer method in a map":  {reflect.TypeFor[struct{ M map[string]big.Int }](), []string{"T.M: "}},
		"named bytes in a map":     {reflect.TypeFor[struct{ M map[string][2]namedByte }](), []string{"T.M: "}},
		"float keys":               {reflect.TypeFor[map[float64]int](), []string{"T: a map key"}},
		"interface keys":           {reflect.TypeFor[map[any]int](), []string{"T: a map key"}},
		"pointer keys":             {reflect.TypeFor[map[*int]int](), []string{"T: a map key"}},
		"time in a struct key":     {reflect.TypeFor[map[struct{ T time.Time }]int](), []string{"T: a map key"}},
		"interned strings": {reflect.TypeFor[struct {
			S string `msgpack:",intern"`
		}](), []string{"T.S: the option intern"}},
		"one type in two places": {reflect.TypeFor[struct {
			F, G func()
			H    []badNode
		}](), []string{"T.F: ", "T.G: ", "T.H[].F"}},
		"257 fields":                  {fields(257), []string{"T: 257 fields are more than 256"}},
		"mistake in a recursive type": {reflect.TypeFor[badNode](), []string{"badNode.F: "}},
		"named time":                  {reflect.TypeFor[struct{ T namedTime }](), []string{"T.T.wall: an unexported field"}},
	} {
		t.Run(name, func(t *testing.T) {
			sh, mistakes := shape.New(c.typ)
			if len(mistakes) == 0 || sh != nil {
				t.Fatal("accepted")
			}
			var lines []string
			for _, m := range mistakes {
				lines = append(lines, m.String())
			}
			text := strings.Join(lines, "\n")
			for _, want := range c.want {
				if !strings.Contains("\n"+text, want) {
					t.Errorf("mistakes\n%s\nwant %q", text, want)
				}
			}
			slices.Sort(lines)
			if len(slices.Compact(lines)) != len(mistakes) {
				t.Errorf("a mistake is reported twice:\n%s", text)
			}
		})
	}
}

// fields returns a struct type with n fields.
func fields(n int) reflect.Type {
	list := make([]reflect.StructField, n)
	for i := range list {
		list[i] = reflect.StructField{Name: fmt.Sprint("F", i), Type: reflect.TypeFor[int]()}
	}
	return reflect.StructOf(list)
}

func TestTypeWith256Fields(t *testing.T) {
	typ := fields(256)
	sh, mistakes := shape.New(typ)
	if len(mistakes) > 0 {
		t.Fatal(mistakes)
	}
	in, out := reflect.New(typ), reflect.New(typ)
	for i := range 256 {
		in.Elem().Field(i).SetInt(int64(i))
	}
	if err := sh.Decode(encode(t, sh, in.Interface(), nil), out.Elem(), 64<<10); err != nil || !reflect.DeepEqual(in.Interface(), out.Interface()) {
		t.Errorf("decoded %v, %v", out.Elem(), err)
	}
}

type (
	badNode struct {
		Next *badNode
		F    func()
	}
	namedTime time.Time
)

// The names of the fields are msgpack's own.
func TestFieldNamesAreTheEncoders(t *testing.T) {
	type deepest struct{ D int }
	type deep struct {
		deepest
		E int `msgpack:"e"`
	}
	type tags struct {
		A int `msgpack:"a" json:"b"`
		B int `json:"bee,omitempty"`
		C int `json:",omitempty"`
		D int `msgpack:",omitempty" json:"dee"`
		E int `msgpack:"'quoted,name'"`
		F int `msgpack:"alias:eff"`
		G int `json:"omitempty"`
		H int `msgpack:"-"`
		I int `json:"-"`
		J int `msgpack:"j" json:"-"`
		K int `json:"-,"` //lint:ignore SA5008 encoding/json stores it, msgpack does not
		L int `json:"l:el"`
		M int `msgpack:" spaced "`
		Ü int
	}
	for name, v := range map[string]any{
		"tags": tags{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
		"embedded": struct {
			deep
			F int
		}{deep{deepest{1}, 1}, 1},
		"embedded named": struct {
			deep `msgpack:"deep"`
		}{deep{deepest{1}, 1}},
		"noinline": struct {
			Base `msgpack:",noinline"`
		}{},
		"shadowed": struct {
			Name int
			Base
		}{},
		"inline shadow": struct {
			Name int
			Base `msgpack:",inline"`
		}{},
		"account": anAccount(),
	} {
		t.Run(name, func(t *testing.T) {
			sh, mistakes := shape.New(reflect.TypeOf(v))
			if len(mistakes) > 0 {
				t.Fatal(mistakes)
			}
			var b bytes.Buffer
			enc := msgpack.NewEncoder(&b)
			enc.SetCustomStructTag("json")
			if err := enc.Encode(v); err != nil {
				t.Fatal(err)
			}
			var m map[string]any
			if err := msgpack.Unmarshal(b.Bytes(), &m); err != nil {
				t.Fatal(err)
			}
			got := slices.Sorted(slices.Values(sh.FieldNames()))
			if want := slices.Sorted(maps.Keys(m)); !slices.Equal(got, want) {
				t.Errorf("names %q, want %q", got, want)
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
	sh := newShape[node](t)

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
		"64 levels":                {chain(shape.MaxDepth), true},
		"65 levels":                {chain(shape.MaxDepth + 1), false},
		"pointer to itself":        {pointer, false},
		"slice of itself":          {slice, false},
		"interface map in itself":  {&node{Any: m}, false},
		"long chain":               {chain(1_000_000), false},
		"long chain, small in all": {chain(500), false},
	} {
		t.Run(name, func(t *testing.T) {
			// With a limit as high as the first a cycle must be found before the stack
			// is used up.
			for _, limit := range []int{64 << 20, 64 << 10} {
				data, err := sh.Append(nil, reflect.ValueOf(c.v).Elem(), limit)
				if !c.ok {
					if !errors.Is(err, shape.ErrDepth) || !strings.Contains(err.Error(), "64 levels") {
						t.Errorf("error %v, want ErrDepth", err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if got := decode[node](t, sh, data); !reflect.DeepEqual(&got, c.v) {
					t.Error("decoded another chain")
				}
			}
		})
	}
}

// Append leaves what is before the encoding as it is, and counts it.
func TestAppendObeysItsLimit(t *testing.T) {
	sh := newShape[string](t)
	v := strings.Repeat("x", 40)
	text := reflect.ValueOf(&v).Elem()
	for _, c := range []struct {
		before, limit int
		ok            bool
	}{
		{0, 42, true}, {0, 41, false}, {10, 52, true}, {10, 51, false}, {10, 5, false}, {0, 0, false},
	} {
		before := bytes.Repeat([]byte{7}, c.before)
		got, err := sh.Append(bytes.Clone(before), text, c.limit)
		if !c.ok {
			if !errors.Is(err, shape.ErrLimit) {
				t.Errorf("%d bytes after %d: error %v, want ErrLimit", c.limit, c.before, err)
			}
			continue
		}
		if err != nil || !bytes.HasPrefix(got, before) {
			t.Fatalf("%d bytes after %d: %x, %v", c.limit, c.before, got, err)
		}
		if back := decode[string](t, sh, got[c.before:]); back != v {
			t.Errorf("decoded %q", back)
		}
	}
}

// A value must not change when the encoding that it is from does, or another is
// encoded or decoded.
// Encoders are pooled: what one goroutine appends is checked behind its own prefix,
// whatever the others append meanwhile.
func TestAppendByManyAtOnce(t *testing.T) {
	sh := newShape[account](t)
	want := encode(t, sh, new(anAccount()), nil)
	var wg sync.WaitGroup
	for i := range 8 {
		prefix := bytes.Repeat([]byte{0xc0}, 100*i)
		wg.Go(func() {
			for range 500 {
				a := anAccount()
				got, err := sh.Append(bytes.Clone(prefix), reflect.ValueOf(&a).Elem(), 1<<16)
				if err != nil || !bytes.Equal(got[len(prefix):], want) {
					t.Errorf("%x, %v; not %x", got, err, want)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestDecodedSharesNoMemory(t *testing.T) {
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
	sh := newShape[blobs](t)
	a, b := blob("a"), blob("b")
	dataA := encode(t, sh, &a, nil)
	kept := bytes.Clone(dataA)
	gotA := decode[blobs](t, sh, dataA)
	dataB := encode(t, sh, &b, nil)
	if !bytes.Equal(dataA, kept) {
		t.Error("the next encoding changed one")
	}
	clear(dataA)
	decode[blobs](t, sh, dataB)
	clear(dataB)
	if !reflect.DeepEqual(gotA, blob("a")) {
		t.Errorf("a decoded value changed: %+v", gotA)
	}
	if !reflect.DeepEqual(a, blob("a")) {
		t.Errorf("the encoded value changed: %+v", a)
	}
}

func TestAppendFails(t *testing.T) {
	sh := newShape[map[string]any](t)
	for name, v := range map[string]any{
		"channel in an interface":           make(chan int),
		"map with integer keys in one":      map[int]string{1: "a"},
		"map of those, deeper":              []any{map[string]any{"m": map[int]int{1: 2}}},
		"error of a type's own method":      marshalFails{},
		"type's own method writes too much": raw("\x01\x02"),
	} {
		t.Run(name, func(t *testing.T) {
			data := map[string]any{"v": v}
			encoded, err := sh.Append(nil, reflect.ValueOf(data), 64<<10)
			if err == nil {
				t.Errorf("encoded %x", encoded)
			}
			if errors.Is(err, shape.ErrLimit) || errors.Is(err, shape.ErrDepth) || errors.Is(err, shape.ErrDecoder) {
				t.Errorf("error %v matches a sentinel that says something else", err)
			}
		})
	}
}

type marshalFails struct{}

func (marshalFails) MarshalText() ([]byte, error) { return nil, errors.New("no") }

type raw string

func (r raw) MarshalMsgpack() ([]byte, error) { return []byte(r), nil }

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
	sh := newShape[times](t)
	now := time.Now()
	v, want := make(now), make(now.UTC().Round(0))
	if got := decode[times](t, sh, encode(t, sh, &v, nil)); !reflect.DeepEqual(got, want) {
		t.Errorf("decoded %+v\nwant %+v", got, want)
	}

	top := newShape[time.Time](t)
	if got := decode[time.Time](t, top, encode(t, top, &now, nil)); got != now.UTC().Round(0) {
		t.Errorf("decoded %v", got)
	}
}

func TestInterfacesHoldStableTypes(t *testing.T) {
	sh := newShape[map[string]any](t)
	for _, c := range []struct{ in, out any }{
		{nil, nil}, {true, true}, {"s", "s"}, {[]byte("b"), []byte("b")},
		{1, int64(1)}, {-1, int64(-1)}, {int8(-100), int64(-100)}, {200, int64(200)}, {-200, int64(-200)},
		{70_000, int64(70_000)}, {-70_000, int64(-70_000)}, {int64(1 << 40), int64(1 << 40)}, {int64(-1 << 40), int64(-1 << 40)},
		{math.MaxInt, int64(math.MaxInt)}, {math.MinInt, int64(math.MinInt)},
		{uint8(200), int64(200)}, {uint64(1<<63 - 1), int64(1<<63 - 1)}, {uint64(1 << 63), uint64(1 << 63)},
		{float32(0.1), float32(0.1)}, {0.1, 0.1}, {time.Second, int64(time.Second)},
		{[]int{1, 300}, []any{int64(1), int64(300)}},
		{map[string]int{"a": 1}, map[string]any{"a": int64(1)}},
		{cartItem{"pen", 2}, map[string]any{"sku": "pen", "qty": int64(2)}},
	} {
		v := map[string]any{"v": c.in}
		got := decode[map[string]any](t, sh, encode(t, sh, &v, nil))
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
		if got := shape.Flat(c.typ); got != c.flat {
			t.Errorf("%v: flat %t, want %t", c.typ, got, c.flat)
		}
	}
}

func TestRecoversFromPanics(t *testing.T) {
	type panics struct{ P panicky }
	err := newShape[panics](t).Decode(unhex(t, "81 a150 c40170"), reflect.ValueOf(new(panics)).Elem(), 64<<10)
	if !errors.Is(err, shape.ErrDecoder) || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v, want ErrDecoder", err)
	}
}

type panicky struct{}

func (panicky) MarshalText() ([]byte, error) { return nil, nil }
func (panicky) UnmarshalText(text []byte) error {
	if len(text) > 0 {
		panic("secret")
	}
	return nil
}

func BenchmarkCheck(b *testing.B) {
	sh := newShape[account](b)
	v := anAccount()
	data := encode(b, sh, &v, nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := sh.Check(data, 64<<10); err != nil {
			b.Fatal(err)
		}
	}
}
