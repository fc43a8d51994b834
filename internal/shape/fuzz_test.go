package shape_test

import (
	"errors"
	"math"
	"path/filepath"
	"reflect"
	"runtime"
	"testing"
	"time"

	"github.com/echosession/echosession/internal/shape"
)

func TestFuzzSeeds(t *testing.T) {
	for _, target := range []string{"FuzzDecode", "FuzzUnknownFields", "FuzzRoundTrip"} {
		seeds, err := filepath.Glob("testdata/fuzz/" + target + "/*")
		if err != nil || len(seeds) == 0 {
			t.Errorf("%s has %d seeds, %v", target, len(seeds), err)
		}
	}
}

// What decodes, encodes to what decodes to the same value, with the unknown fields of
// its predecessor; and decoding takes memory in proportion to the data.
func FuzzDecode(f *testing.F) {
	v := anAccount()
	f.Add([]byte{0x80})
	f.Add(unhex(f, "df ffffffff"))
	f.Add(unhex(f, field("y", "d6 ff dfffffff ff")))
	f.Add(encode(f, newShape[account](f), &v, nil))
	targets := []func(*testing.T, []byte){
		decodeTarget[wide](f), decodeTarget[map[string]any](f), decodeTarget[any](f),
		decodeTarget[node](f), decodeTarget[account](f), decodeTarget[tree](f), decodeTarget[newer](f),
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 16<<10 {
			return
		}
		for _, target := range targets {
			target(t, data)
		}
	})
}

func decodeTarget[T any](tb testing.TB) func(*testing.T, []byte) {
	sh := newShape[T](tb)
	into := func(v *T) reflect.Value { return reflect.ValueOf(v).Elem() }
	return func(t *testing.T, data []byte) {
		var got T
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := sh.Decode(data, into(&got), max(1<<10, len(data)))
		runtime.ReadMemStats(&after)
		// A list that grows is copied, and what does not decode has cost something too.
		if n := after.TotalAlloc - before.TotalAlloc; n > 3*shape.Growth*uint64(max(1<<10, len(data)))+4096 {
			t.Errorf("%d bytes allocated for %d", n, len(data))
		}
		unknown, checked := sh.Check(data, max(1<<10, len(data)))
		if err != nil {
			if checked == nil && !errors.Is(err, shape.ErrDecoder) {
				t.Errorf("error %v after a check that found nothing", err)
			}
			return
		}
		if checked != nil {
			t.Fatalf("decoded what Check refuses: %v", checked)
		}
		again, err := sh.Append(nil, into(&got), 64<<10)
		if errors.Is(err, shape.ErrLimit) || errors.Is(err, shape.ErrDepth) {
			return
		}
		if err != nil {
			t.Fatalf("cannot encode what was decoded: %v", err)
		}
		if unknown && sh.Keeps() {
			again = sh.Carry(nil, again, data)
		}
		var second T
		if err := sh.Decode(again, into(&second), 64<<10); err != nil {
			t.Fatalf("cannot decode what was encoded: %v", err)
		}
		var twin T // differs from got when there is a NaN
		if err := sh.Decode(data, into(&twin), 64<<10); err != nil {
			t.Fatalf("decoded once only: %v", err)
		}
		if reflect.DeepEqual(got, twin) && !reflect.DeepEqual(got, second) {
			t.Errorf("%+v\nbecame %+v", got, second)
		}
	}
}

// The older release changes what it knows; the newer one finds the rest as it
// was.
func FuzzUnknownFields(f *testing.F) {
	f.Add("name", 1, "sku", "gift", int64(0), []byte("x"), uint8(0))
	f.Add("", -300, "", "", int64(1<<60), []byte(nil), uint8(7))
	newSide, oldSide := newShape[newer](f), newShape[older](f)
	f.Fuzz(func(t *testing.T, name string, a int, sku, gift string, at int64, any []byte, change uint8) {
		in := newerInner{a, gift}
		v := newer{
			Name: name, Extra: []string{gift}, Value: in, Ptr: &in, Map: map[string]newerInner{sku: in},
			IntMap: map[int]*newerInner{a: &in}, Cart: []newerItem{{gift, olderItem{SKU: sku, Qty: a}}, {name, olderItem{SKU: sku + "2"}}},
			Any: time.Unix(0, at).UTC(), newerEmbedded: newerEmbedded{in, gift},
		}
		prev, err := newSide.Append(nil, reflect.ValueOf(v), 64<<10)
		if err != nil {
			t.Skip(err)
		}
		o := decode[older](t, oldSide, prev)
		want := v
		if change&1 != 0 {
			o.Name, want.Name = sku, sku
		}
		if change&2 != 0 {
			o.Value.A++
			want.Value.A++
		}
		if change&4 != 0 {
			o.Cart, want.Cart = o.Cart[1:], want.Cart[1:]
		}
		if change&8 != 0 {
			o.Any, want.Any = any, any
			if any == nil {
				o.Any, want.Any = nil, nil
			}
		}
		if got := decode[newer](t, newSide, encode(t, oldSide, &o, prev)); !reflect.DeepEqual(got, want) {
			t.Errorf("got  %s\nwant %s", asJSON(got), asJSON(want))
		}
	})
}

// Every value decodes to itself.
func FuzzRoundTrip(f *testing.F) {
	f.Add(true, int64(-1), uint64(1), 1.5, "s", []byte("b"), int64(0), "t")
	f.Add(false, int64(math.MinInt64), uint64(math.MaxUint64), math.Inf(1), "\xff", []byte(nil), int64(math.MaxInt64), "")
	sh := newShape[wide](f)
	f.Fuzz(func(t *testing.T, b bool, i int64, u uint64, fl float64, str string, bin []byte, at int64, other string) {
		n := int(i)
		want := wide{
			B: b, I: int8(i), J: i, U: uint8(u), V: u, F: float32(fl), G: fl, S: str, D: bin, T: time.Unix(at>>20, at&0x3fffffff%1e9).UTC(), P: &n,
			L: []int{n, 1}, R: [2]int{n}, M: map[string]string{str: other}, N: map[int]bool{n: b}, X: str, Y: map[string]any{str: b},
			C: cartItem{str, n}, Q: &cartItem{}, W: []cartItem{{other, 1}, {}}, Ar: asArray{A: n, B: str},
		}
		copy(want.H[:], bin)
		if fl != fl {
			want.F, want.G = 0, 0
		}
		data, err := sh.Append(nil, reflect.ValueOf(want), 64<<10)
		if errors.Is(err, shape.ErrLimit) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := decode[wide](t, sh, data); !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	})
}
