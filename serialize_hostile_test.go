package echosession_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/big"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/echosession/echosession"
)

// wide has a field of every kind, each under a name of one letter.
type wide struct {
	B  bool              `msgpack:"b"`
	I  int8              `msgpack:"i"`
	J  int64             `msgpack:"j"`
	U  uint8             `msgpack:"u"`
	V  uint64            `msgpack:"v"`
	F  float32           `msgpack:"f"`
	G  float64           `msgpack:"g"`
	S  string            `msgpack:"s"`
	D  []byte            `msgpack:"d"`
	H  [4]byte           `msgpack:"h"`
	T  time.Time         `msgpack:"t"`
	P  *int              `msgpack:"p"`
	L  []int             `msgpack:"l"`
	R  [2]int            `msgpack:"r"`
	M  map[string]string `msgpack:"m"`
	N  map[int]bool      `msgpack:"n"`
	X  any               `msgpack:"x"`
	Y  map[string]any    `msgpack:"y"`
	C  cartItem          `msgpack:"c"`
	Q  *cartItem         `msgpack:"q"`
	A  netip.Addr        `msgpack:"a"`
	O  *big.Int          `msgpack:"o"`
	W  []cartItem        `msgpack:"w"`
	Ar asArray           `msgpack:"z"`
}

type asArray struct {
	_msgpack struct{} `msgpack:",as_array"` //lint:ignore U1000 an option of the encoder
	A        int
	B        string
}

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// field is a struct with one field of a name of one letter.
func field(name string, value string) string {
	return "81 a1" + hex.EncodeToString([]byte(name)) + value
}

func TestHostileData(t *testing.T) {
	// What the scan leaves to the decoder, which knows registered extensions, and
	// to types that encode themselves.
	unscanned := map[string]bool{
		"extension in an interface":       true,
		"interned string in an interface": true,
		"what a type's method refuses":    true,
	}
	deep := strings.Repeat("91", 60_000)
	for name, data := range map[string]string{
		"nothing":                            "",
		"map of 2^32-1 pairs":                "df ffffffff",
		"map of 2^31 pairs":                  "df 80000000",
		"map of 2^16-1 pairs":                "de ffff",
		"map without its last value":         "82 a162 c3 a169",
		"array of 2^32-1":                    field("l", "dd ffffffff"),
		"array of more than is left":         field("l", "93 01 02"),
		"array of strings that cannot be":    field("w", "dd 7fffffff 80"),
		"arrays in arrays":                   field("x", deep),
		"arrays in arrays, unknown field":    field("?", deep+"c0"),
		"65 levels in an interface":          field("x", strings.Repeat("91", 64)+"c0"),
		"65 levels in an unknown field":      field("?", strings.Repeat("91", 64)+"c0"),
		"65 levels of maps in an interface":  field("x", strings.Repeat("81 a161", 64)+"c0"),
		"65 levels in keys":                  field("?", strings.Repeat("81", 64)+"c0"),
		"string of 2^32-1 bytes":             field("s", "db ffffffff"),
		"string one byte short":              field("s", "a3 6162"),
		"binary of 2^32-1 bytes":             field("d", "c6 ffffffff"),
		"extension of 2^32-1 bytes":          field("?", "c9 ffffffff 05"),
		"extension in an interface":          field("x", "d4 05 00"),
		"interned string in an interface":    field("x", "d4 80 00"),
		"interned string for a string":       field("s", "d4 80 00"),
		"interned string as a key":           "81 d4 80 00 c3",
		"extension for a map":                field("m", "d4 05 80"),
		"time wraps a map of 2^32-1 pairs":   field("y", "d6 ff dfffffff ff"),
		"extension for a struct":             field("c", "d4 05 80"),
		"number cut off":                     field("j", "cf 00"),
		"byte C1":                            "c1",
		"byte C1 in an unknown field":        field("?", "c1"),
		"byte C1 in an interface":            field("x", "91 c1"),
		"byte C1 as a key":                   "81 c1 c0",
		"a byte follows":                     "80 00",
		"a second value follows":             field("b", "c3") + "80",
		"a field twice":                      "82 a173 a161 a173 a162",
		"a field twice, others between":      "83 a173 a161 a162 c3 a173 a162",
		"key is an integer":                  "81 01 c0",
		"key is a binary":                    "81 c40173 a161",
		"key is nil":                         "81 c0 a161",
		"struct is an array":                 "91 c3",
		"struct is an empty array":           "90",
		"struct is a string":                 "a0",
		"nested struct is an array":          field("c", "92 a161 01"),
		"pointed-to struct is an integer":    field("q", "01"),
		"array struct of another length":     field("z", "91 01"),
		"array struct with a field too many": "82 a17a 93 01 a161 a162 c3",
		"key cut off":                        "81 a5 61",
		"time cut off":                       field("t", "d7ff 00"),
		"array struct of another type":       field("z", "92 a161 a161"),
		"300 for int8":                       field("i", "cd 012c"),
		"128 for int8":                       field("i", "cc 80"),
		"-129 for int8":                      field("i", "d1 ff7f"),
		"2^63 for int64":                     field("j", "cf 8000000000000000"),
		"256 for uint8":                      field("u", "cd 0100"),
		"-1 for uint8":                       field("u", "ff"),
		"-1 for uint64":                      field("v", "d3 ffffffffffffffff"),
		"float for an integer":               field("j", "cb 3ff8000000000000"),
		"bool for an integer":                field("j", "c3"),
		"string for an integer":              field("j", "a131"),
		"float64 for float32":                field("f", "cb 3ff8000000000000"),
		"2^24+1 for float32":                 field("f", "ce 01000001"),
		"2^53+1 for float64":                 field("g", "cf 0020000000000001"),
		"2^64-1 for float64":                 field("g", "cf ffffffffffffffff"),
		"string for a float":                 field("g", "a131"),
		"integer for a bool":                 field("b", "01"),
		"integer for a string":               field("s", "01"),
		"array for a string":                 field("s", "91 a161"),
		"map for a string":                   field("s", "80"),
		"array for bytes":                    field("d", "92 01 02"),
		"5 bytes for [4]byte":                field("h", "c405 0102030405"),
		"array for [4]byte":                  field("h", "94 01020304"),
		"string for a slice":                 field("l", "a161"),
		"map for a slice":                    field("l", "81 01 01"),
		"wrong element":                      field("l", "91 a161"),
		"3 elements for [2]int":              field("r", "93 01 02 03"),
		"array for a map":                    field("m", "92 a161 a162"),
		"wrong key of a map":                 field("n", "81 a161 c3"),
		"wrong value of a map":               field("m", "81 a161 01"),
		"integer key in an interface":        field("x", "81 01 01"),
		"array as a key in an interface":     field("y", "81 a161 81 91 01 01"),
		"nil for a time":                     field("t", "c0"),
		"time of 5 bytes":                    field("t", "c705ff 0000000000"),
		"time of 16 bytes":                   field("t", "d8ff 00000000000000000000000000000000"),
		"time with 2^30-1 ns":                field("t", "d7ff ffffffff 00000000"),
		"time with 10^9 ns":                  field("t", "c70cff 3b9aca00 0000000000000000"),
		"malformed time in an interface":     field("x", "d5ff 0000"),
		"malformed time in an unknown field": field("?", "d5ff 0000"),
		"integer for a time":                 field("t", "01"),
		"legacy array for a time":            field("t", "92 01 01"),
		"text for a time":                    field("t", "b4"+hex.EncodeToString([]byte("2026-03-04T05:06:07Z"))),
		"what a type's method refuses":       field("a", "c403 782e79"),
		"integer where text is expected":     field("a", "01"),
		"array where text is expected":       field("o", "90"),
	} {
		t.Run(name, func(t *testing.T) {
			s := plain[wide](t)
			var v wide
			_, err := s.Decode(idA, record(unhex(t, data)), &v)
			if !errors.Is(err, echosession.ErrCorrupt) {
				t.Errorf("error %v, want ErrCorrupt; decoded %+v", err, v)
			}
			if passes := s.Scan(unhex(t, data)) == nil; passes != unscanned[name] {
				t.Errorf("passes the scan: %t", passes)
			}
		})
	}
}

func TestLenientData(t *testing.T) {
	one := 1
	for name, c := range map[string]struct {
		data string
		want wide
	}{
		"nil struct":                  {"c0", wide{}},
		"no fields":                   {"80", wide{}},
		"unknown fields":              {"82 a13f 81 01 02 a162 c3", wide{B: true}},
		"unknown extension":           {field("?", "c7 03 05 010203"), wide{}},
		"63 levels in unknown":        {field("?", strings.Repeat("91", 62)+"c0"), wide{}},
		"nil bool":                    {field("b", "c0"), wide{}},
		"nil int":                     {field("i", "c0"), wide{}},
		"nil float":                   {field("g", "c0"), wide{}},
		"nil string":                  {field("s", "c0"), wide{}},
		"nil bytes":                   {field("d", "c0"), wide{}},
		"nil byte array":              {field("h", "c0"), wide{}},
		"nil pointer":                 {field("p", "c0"), wide{}},
		"nil array":                   {field("r", "c0"), wide{}},
		"nil map":                     {field("m", "c0"), wide{}},
		"nil nested struct":           {field("c", "c0"), wide{}},
		"nil for a type's own":        {field("a", "c0"), wide{}},
		"nil array struct":            {field("z", "c0"), wide{}},
		"array struct":                {field("z", "92 01 a162"), wide{Ar: asArray{A: 1, B: "b"}}},
		"array struct as a map":       {field("z", "81 a141 01"), wide{Ar: asArray{A: 1}}},
		"long form of a small number": {field("i", "cf 0000000000000007"), wide{I: 7}},
		"signed form of a positive":   {field("v", "d3 0000000000000007"), wide{V: 7}},
		"-128 for int8":               {field("i", "d3 ffffffffffffff80"), wide{I: -128}},
		"2^64-1 for uint64":           {field("v", "cf ffffffffffffffff"), wide{V: 1<<64 - 1}},
		"2^53 for float64":            {field("g", "cf 0020000000000000"), wide{G: 1 << 53}},
		"-1 for float64":              {field("g", "ff"), wide{G: -1}},
		"float32 for float64":         {field("g", "ca 3fc00000"), wide{G: 1.5}},
		"binary for a string":         {field("s", "c40161"), wide{S: "a"}},
		"string for bytes":            {field("d", "a161"), wide{D: []byte("a")}},
		"long form of a string":       {field("s", "db 00000001 61"), wide{S: "a"}},
		"2 bytes for [4]byte":         {field("h", "c402 0102"), wide{H: [4]byte{1, 2}}},
		"1 element for [2]int":        {field("r", "91 01"), wide{R: [2]int{1}}},
		"long form of a map":          {"df 00000001 a162 c3", wide{B: true}},
		"map key twice":               {field("m", "82 a161 a162 a161 a163"), wide{M: map[string]string{"a": "c"}}},
		"pointer":                     {field("p", "01"), wide{P: &one}},
	} {
		t.Run(name, func(t *testing.T) {
			s := plain[wide](t)
			got := decode[wide](t, s, record(unhex(t, c.data)))
			if c.want.A != (netip.Addr{}) || !reflect.DeepEqual(got, c.want) {
				t.Errorf("decoded %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestHostileRecords(t *testing.T) {
	good := record([]byte{0x80})
	for name, r := range map[string][]byte{
		"nil":                   nil,
		"one byte":              {0x98},
		"JSON":                  []byte(`{"id":"0b5c9f3e-6d0a-4b8e-9f57-3f1f0f6f2a11"}` + strings.Repeat(" ", 20)),
		"prefix alone":          good[:30],
		"no data":               good[:len(good)-1],
		"no subject":            good[:len(good)-2],
		"no deadline":           good[:len(good)-3],
		"no idle timeout":       good[:len(good)-4],
		"half a created-at":     good[:35],
		"a byte follows":        append(bytes.Clone(good), 0xc0),
		"format 0":              with(good, 1, 0),
		"format 5":              with(good, 1, 5),
		"sealed format":         with(with(good, 1, 3), 0, 0x97),
		"seven elements":        with(good, 0, 0x97),
		"begins with C1":        with(good, 0, 0xc1),
		"ID of 15 bytes":        with(good, 3, 15),
		"revision is a string":  with(good, 20, 0xd9),
		"created-at is a float": with(good, 30, 0xcb),
		"created-at negative":   with(with(good, 30, 0xd3), 31, 0xff),
		"created-at over int64": with(good, 31, 0xff),
		"idle timeout 0":        with(good, 39, 0x00),
		"idle timeout -2":       with(good, 39, 0xfe),
		"idle timeout a bool":   with(good, 39, 0xc2),
		"idle timeout overflow": append(append(bytes.Clone(good[:39]), 0xcf, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), good[40:]...),
		"deadline negative":     with(good, 40, 0xff),
		"deadline a string":     with(good, 40, 0xa0),
		"deadline over int64":   append(append(bytes.Clone(good[:40]), 0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), good[41:]...),
		"subject an integer":    with(good, 41, 0x01),
		"subject a binary":      append(append(bytes.Clone(good[:41]), 0xc4, 1, 'a'), 0x80),
	} {
		t.Run(name, func(t *testing.T) {
			s := plain[account](t)
			if _, err := s.Decode(idA, r, new(account)); !errors.Is(err, echosession.ErrCorrupt) {
				t.Errorf("Decode: error %v, want ErrCorrupt", err)
			}
			if _, err := s.Rewrite(r, idB); name != "no data" && name != "a byte follows" && !errors.Is(err, echosession.ErrCorrupt) {
				t.Errorf("Rewrite: error %v, want ErrCorrupt", err)
			}
			if _, err := s.Encode(aHeader(), new(account), append([]byte{}, r...)); r != nil && !errors.Is(err, echosession.ErrCorrupt) {
				t.Errorf("Encode over it: error %v, want ErrCorrupt", err)
			}
			if _, err := s.Header(r); name != "no data" && name != "a byte follows" && !errors.Is(err, echosession.ErrCorrupt) {
				t.Errorf("Header: error %v, want ErrCorrupt", err)
			}
		})
	}
	if _, err := plain[account](t).Decode(idA, good, new(account)); err != nil {
		t.Errorf("the record that the others are made of: %v", err)
	}
}

func with(b []byte, i int, c byte) []byte {
	b = bytes.Clone(b)
	b[i] = c
	return b
}

func TestErrorsCarryNoData(t *testing.T) {
	for name, data := range map[string]string{
		"wrong type":                 field("i", "a6"+hex.EncodeToString([]byte("secret"))),
		"unknown field before":       "82 a6" + hex.EncodeToString([]byte("secret")) + "01 a169 c3",
		"a type's own method quotes": field("a", "c406"+hex.EncodeToString([]byte("secret"))),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := plain[wide](t).Decode(idA, record(unhex(t, data)), new(wide))
			if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), idA) {
				t.Errorf("error %v", err)
			}
		})
	}
	t.Run("names the field", func(t *testing.T) {
		_, err := plain[wide](t).Decode(idA, record(unhex(t, field("w", "91 81 a3"+hex.EncodeToString([]byte("qty"))+"c3"))), new(wide))
		if err == nil || !strings.Contains(err.Error(), "cartItem.Qty") {
			t.Errorf("error %v", err)
		}
	})
}

func TestScanAllocatesNothing(t *testing.T) {
	s := plain[wide](t)
	for name, data := range map[string][]byte{
		"good":    unhex(t, "84 a162 c3 a13f 92 01 81 01 02 a173 a161 a177 91 81 a3736b75 a161"),
		"hostile": unhex(t, "df ffffffff"),
		"deep":    unhex(t, field("x", strings.Repeat("91", 60_000))),
	} {
		if n := testing.AllocsPerRun(100, func() { s.Scan(data) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestRecoversFromPanics(t *testing.T) {
	type panics struct{ P panicky }
	s := plain[panics](t)
	_, err := s.Decode(idA, record(unhex(t, "81 a150 c40170")), new(panics))
	if !errors.Is(err, echosession.ErrCorrupt) {
		t.Errorf("error %v, want ErrCorrupt", err)
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
