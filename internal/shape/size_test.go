package shape_test

import (
	"bytes"
	"fmt"
	"reflect"
	"runtime"
	"testing"
	"time"

	"github.com/echosession/echosession/internal/shape"
)

type large struct{ A, B, C, D [32]int64 }

// allocated returns how many bytes are allocated while a sh decodes data, in which
// limit bytes are allowed.
func allocated[T any](tb testing.TB, data []byte, limit int) (uint64, error) {
	sh := newShape[T](tb)
	var v T
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := sh.Decode(data, reflect.ValueOf(&v).Elem(), limit)
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(&v)
	return after.TotalAlloc - before.TotalAlloc, err
}

// A few bytes may stand for much memory: a nil for a large struct, a byte for a map.
// What is decoded takes at most Growth times the bytes that are allowed, and what would
// take more is refused before it is decoded.
func TestDecodedSizeIsBounded(t *testing.T) {
	list := func(unit string) func(n int) []byte {
		return func(n int) []byte {
			u := unhex(t, unit)
			n /= len(u)
			return append([]byte{0xdd, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, bytes.Repeat(u, n)...)
		}
	}
	dict := func(n int) []byte {
		n /= 6
		data := []byte{0xdf, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
		for i := range n {
			data = append(data, 0xa4, byte('a'+i>>24), byte(i>>16&0x7f), byte(i>>8&0x7f), byte(i&0x7f), 0xc0)
		}
		return data
	}
	type target struct {
		name    string
		data    func(n int) []byte
		decode  func(tb testing.TB, data []byte, limit int) (uint64, error)
		refused bool // when the data is as long as it may be
	}
	targets := []target{
		{"nils for large structs", list("c0"), allocated[[]large], true},
		{"empty maps for large structs", list("80"), allocated[[]large], true},
		{"pointers to large structs", list("80"), allocated[[]*large], true},
		{"nils for pointers", list("c0"), allocated[[]*large], false},
		{"large structs in a map", dict, allocated[map[string]large], true},
		{"large structs in lists", list("91c0"), allocated[[][]large], true},
		{"empty maps", list("80"), allocated[[]map[string]int], false},
		{"maps of one", list("81a000"), allocated[[]map[string]int], true},
		{"maps of one large struct", list("81a0c0"), allocated[[]map[string]large], true},
		{"strings in a map", dict, allocated[map[string]string], false},
		{"empty lists", list("90"), allocated[[][]int], false},
		{"numbers", list("01"), allocated[[]int64], false},
		{"times", list("d6ff00000001"), allocated[[]time.Time], false},
		{"anything: nils", list("c0"), allocated[any], false},
		{"anything: numbers", list("01"), allocated[any], false},
		{"anything: large numbers", list("cd0100"), allocated[any], false},
		{"anything: times", list("d6ff00000001"), allocated[any], false},
		{"anything: empty strings", list("a0"), allocated[any], false},
		{"anything: empty maps", list("80"), allocated[any], false},
		{"anything: maps of one", list("81a0c0"), allocated[any], true},
		{"anything: empty lists", list("90"), allocated[any], false},
		{"anything: a map", dict, allocated[any], false},
		{"interfaces in a list", list("80"), allocated[[]any], false},
		{"interfaces in a map", dict, allocated[map[string]any], false},
		{"arrays", list("90"), allocated[[][64]int64], true},
		{"text", list("a0"), allocated[[]string], false},
	}
	for _, limit := range []int{1 << 10, 64 << 10, 2 << 20} {
		for _, c := range targets {
			t.Run(fmt.Sprintf("%s/%d", c.name, limit), func(t *testing.T) {
				data := c.data(limit - 16)
				got, err := c.decode(t, data, limit)
				for range 3 {
					if err == nil || got <= 4096 {
						break
					}
					// The runtime may have allocated meanwhile.
					again, _ := c.decode(t, data, limit)
					got = min(got, again)
				}
				t.Logf("%d bytes: %d allocated, %.1f times as many (%v)", len(data), got, float64(got)/float64(len(data)), err)
				// A list that grows is copied; the decoder and its reader are small.
				if got > 3*shape.Growth*uint64(limit)+4096 {
					t.Errorf("%d bytes allocated for %d", got, len(data))
				}
				if (err != nil) != c.refused {
					t.Errorf("error %v", err)
				}
				if err != nil && got > 4096 {
					t.Errorf("%d bytes allocated for what is refused", got)
				}
			})
		}
	}
}

// What is refused when it is read is not written.
func TestWhatIsTooLargeDecodedIsNotEncoded(t *testing.T) {
	sh := newShape[[]map[string]int](t)
	v := make([]map[string]int, 1000)
	for i := range v {
		v[i] = map[string]int{"": 0} // three bytes, and room for eight in memory
	}
	if _, err := sh.Append(nil, reflect.ValueOf(&v).Elem(), 3010); err != shape.ErrSize {
		t.Errorf("error %v, want ErrSize", err)
	}
	if _, err := sh.Append(nil, reflect.ValueOf(&v).Elem(), 10_000); err != nil {
		t.Error(err)
	}
}

// What memory a value is taken for, so that each kind of value counts.
func TestEstimate(t *testing.T) {
	type pair struct{ A, B int64 }
	for _, c := range []struct {
		name string
		sh   *shape.Shape
		data string
		want uint64
	}{
		{"number", newShape[int](t), "01", 0},
		{"text", newShape[string](t), "a3 616263", 3},
		{"bytes", newShape[[]byte](t), "c4 03 616263", 3},
		{"array of bytes", newShape[[3]byte](t), "c4 03 616263", 0},
		{"nil", newShape[*pair](t), "c0", 0},
		{"pointer", newShape[*pair](t), "80", 16},
		{"list of pairs", newShape[[]pair](t), "92 80 c0", 32},
		{"list of pointers", newShape[[]*pair](t), "92 80 c0", 16 + 16},
		{"list of text", newShape[[]string](t), "92 a161 a2 6162", 32 + 3},
		{"list of nothing", newShape[[]pair](t), "90", 0},
		{"array of pairs", newShape[[2]pair](t), "92 80 80", 0},
		{"empty map", newShape[map[string]int](t), "80", 48},
		{"small map", newShape[map[string]int64](t), "81 a161 01", 48 + 8*(16+8+1) + 1},
		{"map of nine", newShape[map[uint8]uint8](t), "89 0000 0100 0200 0300 0400 0500 0600 0700 0800", 48 + 18*3},
		{"map of large", newShape[map[uint8]large](t), "81 00 80", 1024 + 48 + 8*(1+8+1)},
		{"struct with text", newShape[struct{ A, B string }](t), "82 a141 a161 a142 a3616263", 4},
		{"unknown field", newShape[pair](t), "81 a13f 93 a3616263 90 80", 0},
		{"any: nil and bool", newShape[[]any](t), "92 c0 c3", 32},
		{"any: numbers", newShape[any](t), "93 01 ca 00000000 ff", 24 + 48 + 24},
		{"any: text", newShape[any](t), "a3 616263", 27},
		{"any: bytes", newShape[any](t), "c4 03 616263", 27},
		{"any: time", newShape[any](t), "d6 ff 00000001", 28},
		{"any: empty list", newShape[any](t), "90", 24},
		{"any: map", newShape[any](t), "81 a161 c0", 48 + 8*(16+16+1) + 25},
		{"any: nested", newShape[any](t), "91 91 01", 24 + 16 + 24 + 16 + 8},
	} {
		if got, err := c.sh.Estimate(unhex(t, c.data)); err != nil || got != c.want {
			t.Errorf("%s: %d, %v, want %d", c.name, got, err, c.want)
		}
	}
}
