package echosession_test

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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

	"github.com/echosession/echosession"
	"github.com/google/uuid"
	"github.com/vmihailenco/msgpack/v5"
)

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
	Base  struct{ ID, Name string }

	writeOnly int
	readOnly  struct{ X int }
)

func (writeOnly) MarshalText() ([]byte, error) { return nil, nil }
func (*readOnly) UnmarshalText([]byte) error   { return nil }

func TestTypesAccepted(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	id := uuid.MustParse(idA)
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
			s, err := echosession.NewSerializer(typ, echosession.NewSerializerConfig(nil, 1<<16, false))
			if err != nil {
				t.Fatal(err)
			}
			in, out := reflect.New(typ), reflect.New(typ)
			in.Elem().Set(reflect.ValueOf(v))
			record := encode(t, s, aHeader(), in.Interface(), nil)
			if _, err := s.Decode(idA, record, out.Interface()); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(out.Elem().Interface(), v) {
				t.Errorf("decoded %+v, want %+v", out.Elem().Interface(), v)
			}
		})
	}
	t.Run("any", func(t *testing.T) {
		s := plain[any](t)
		var v any = map[string]any{"a": []any{"b", nil}}
		if got := decode[any](t, s, encode(t, s, aHeader(), &v, nil)); !reflect.DeepEqual(got, v) {
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
		"pointer":   {reflect.TypeFor[*account](), []string{"use echosession_test.account"}},
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
		"mistake in a recursive type": {reflect.TypeFor[badNode](), []string{"badNode.F: "}},
		"named time":                  {reflect.TypeFor[struct{ T namedTime }](), []string{"T.T.wall: an unexported field"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := echosession.NewSerializer(c.typ, echosession.NewSerializerConfig(nil, 1<<16, false))
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range c.want {
				if !strings.Contains("\n"+err.Error(), want) {
					t.Errorf("error %v\nwants %q", err, want)
				}
			}
			lines := strings.Split(err.Error(), "\n")
			slices.Sort(lines)
			if len(slices.Compact(lines)) != strings.Count(err.Error(), "\n")+1 {
				t.Errorf("a mistake is reported twice:\n%v", err)
			}
		})
	}
}

type (
	badNode struct {
		Next *badNode
		F    func()
	}
	namedTime time.Time
)

func TestTypesUnderACodec(t *testing.T) {
	for name, c := range map[string]struct {
		typ reflect.Type
		ok  bool
	}{
		"struct": {reflect.TypeFor[account](), true},
		"what JSON can do": {reflect.TypeFor[struct {
			*Base
			R json.RawMessage
			S []json.RawMessage
			T time.Time
			U uuid.UUID
			L level
			C struct{ x int }
			M map[string]any
		}](), true},
		"unstored field": {reflect.TypeFor[struct {
			F func() `json:"-"`
			S string `json:"-"`
		}](), true},
		"recursive": {reflect.TypeFor[node](), true},
		"channel":   {reflect.TypeFor[struct{ C chan int }](), false},
		"fields that JSON drops": {reflect.TypeFor[struct {
			Base
			base
		}](), false},
		"pointer":           {reflect.TypeFor[*account](), false},
		"interface":         {reflect.TypeFor[error](), false},
		"encodes, not back": {reflect.TypeFor[struct{ W map[string]complex64 }](), false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := echosession.NewSerializer(c.typ, echosession.NewSerializerConfig(jsonCodec{}, 1<<16, false))
			if (err == nil) != c.ok {
				t.Errorf("error %v, accepted: %t", err, c.ok)
			}
		})
	}
	t.Run("both mistakes", func(t *testing.T) {
		_, err := echosession.NewSerializer(reflect.TypeFor[*int](), echosession.NewSerializerConfig(nil, 1<<16, false, []byte("short")))
		if err == nil || !strings.Contains(err.Error(), "pointer") || !strings.Contains(err.Error(), "5 bytes") {
			t.Errorf("error %v", err)
		}
	})
}

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
			s, err := echosession.NewSerializer(reflect.TypeOf(v), echosession.NewSerializerConfig(nil, 1<<16, false))
			if err != nil {
				t.Fatal(err)
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
			got := slices.Sorted(slices.Values(s.FieldNames()))
			if want := slices.Sorted(maps.Keys(m)); !slices.Equal(got, want) {
				t.Errorf("names %q, want %q", got, want)
			}
		})
	}
}
