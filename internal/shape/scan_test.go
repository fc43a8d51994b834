package shape_test

import (
	"encoding/hex"
	"errors"
	"math"
	"math/big"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/echosession/echosession/internal/shape"
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

// field is a struct with one field of a name of one letter.
func field(name string, value string) string {
	return "81 a1" + hex.EncodeToString([]byte(name)) + value
}

// The bytes of a token are found from the outside too: the heads of records are read
// this way.
func TestScanner(t *testing.T) {
	s := shape.Scanner{Data: unhex(t, "c0 c3 07 ff cd0100 cb3ff8000000000000 a161 c402 0102 d6ff 00000001 d405 09 92 81 ca00000000 00"), Pos: 1}
	for _, want := range []struct {
		form shape.Form
		n    uint64
		last string
	}{
		{form: shape.FormBool, n: 1}, {form: shape.FormUint, n: 7}, {form: shape.FormInt, n: 1<<64 - 1}, {form: shape.FormUint, n: 256},
		{form: shape.FormFloat64, n: math.Float64bits(1.5)}, {shape.FormString, 1, "a"}, {shape.FormBinary, 2, "\x01\x02"},
		{shape.FormTime, 4, "\x00\x00\x00\x01"}, {shape.FormExt, 1, "\x09"}, {form: shape.FormArray, n: 2}, {form: shape.FormMap, n: 1},
		{form: shape.FormFloat32}, {form: shape.FormUint},
	} {
		tok, err := s.Next()
		if err != nil || tok != (shape.Token{Form: want.form, N: want.n}) {
			t.Fatalf("token %+v, %v, want %+v", tok, err, want)
		}
		if want.last != "" && string(s.Last(tok)) != want.last {
			t.Errorf("%+v: payload %q", tok, s.Last(tok))
		}
	}
	if s.Pos != len(s.Data) {
		t.Errorf("at byte %d of %d", s.Pos, len(s.Data))
	}
	if tok, err := s.Next(); err == nil {
		t.Errorf("a token after the end: %+v", tok)
	}
}

func TestHostileData(t *testing.T) {
	// What Check leaves to the decoder, which knows registered extensions, and
	// to types that encode themselves.
	unscanned := map[string]bool{
		"extension in an interface":       true,
		"interned string in an interface": true,
		"what a type's method refuses":    true,
	}
	sh := newShape[wide](t)
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
		"length of a binary cut off":         field("d", "c5 00"),
		"length of a string cut off":         field("s", "da 00"),
		"length of an extension cut off":     field("?", "c8 00"),
		"type of an extension cut off":       field("?", "c7 00"),
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
			var v wide
			err := sh.Decode(unhex(t, data), reflect.ValueOf(&v).Elem(), 64<<10)
			if err == nil {
				t.Errorf("decoded %+v", v)
			}
			if errors.Is(err, shape.ErrDecoder) != unscanned[name] {
				t.Errorf("error %v, left to the decoder: %t", err, unscanned[name])
			}
			if _, err := sh.Check(unhex(t, data), 64<<10); (err == nil) != unscanned[name] {
				t.Errorf("Check: error %v", err)
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
			got := decode[wide](t, newShape[wide](t), unhex(t, c.data))
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("decoded %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestErrorsCarryNoData(t *testing.T) {
	for name, data := range map[string]string{
		"wrong type":                 field("i", "a6"+hex.EncodeToString([]byte("secret"))),
		"unknown field before":       "82 a6" + hex.EncodeToString([]byte("secret")) + "01 a169 c3",
		"a type's own method quotes": field("a", "c406"+hex.EncodeToString([]byte("secret"))),
	} {
		t.Run(name, func(t *testing.T) {
			err := newShape[wide](t).Decode(unhex(t, data), reflect.ValueOf(new(wide)).Elem(), 64<<10)
			if err == nil || strings.Contains(err.Error(), "secret") {
				t.Errorf("error %v", err)
			}
		})
	}
	t.Run("names the field", func(t *testing.T) {
		_, err := newShape[wide](t).Check(unhex(t, field("w", "91 81 a3"+hex.EncodeToString([]byte("qty"))+"c3")), 64<<10)
		if err == nil || !strings.Contains(err.Error(), "cartItem.Qty") {
			t.Errorf("error %v", err)
		}
	})
}

func TestScanAllocatesNothing(t *testing.T) {
	sh := newShape[wide](t)
	for name, data := range map[string][]byte{
		"good":    unhex(t, "84 a162 c3 a13f 92 01 81 01 02 a173 a161 a177 91 81 a3736b75 a161"),
		"hostile": unhex(t, "df ffffffff"),
		"deep":    unhex(t, field("x", strings.Repeat("91", 60_000))),
	} {
		if err := sh.Scan(data); (err == nil) != (name == "good") {
			t.Errorf("%s: %v", name, err)
		}
		if n := testing.AllocsPerRun(100, func() { sh.Scan(data) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
