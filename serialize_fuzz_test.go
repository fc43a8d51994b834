package echosession_test

import (
	"bytes"
	"errors"
	"math"
	"path/filepath"
	"reflect"
	"runtime"
	"testing"
	"time"

	"github.com/echosession/echosession"
)

// A record that decodes, encodes to one that decodes to the same value; and
// decoding takes memory in proportion to the record.
func FuzzDecode(f *testing.F) {
	v := anAccount()
	f.Add([]byte{0x80})
	f.Add(unhex(f, "df ffffffff"))
	f.Add(unhex(f, field("y", "d6 ff dfffffff ff")))
	data, err := echosession.Data(plain[account](f), encode(f, plain[account](f), aHeader(), &v, nil))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
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

func TestFuzzSeeds(t *testing.T) {
	for _, target := range []string{"FuzzDecode", "FuzzUnknownFields", "FuzzRoundTrip", "FuzzSealed"} {
		seeds, err := filepath.Glob("testdata/fuzz/" + target + "/*")
		if err != nil || len(seeds) == 0 {
			t.Errorf("%s has %d seeds, %v", target, len(seeds), err)
		}
	}
}

func decodeTarget[T any](tb testing.TB) func(*testing.T, []byte) {
	s := plain[T](tb)
	return func(t *testing.T, data []byte) {
		prev := record(data)
		var got T
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := s.Decode(idA, prev, &got)
		runtime.ReadMemStats(&after)
		// One byte may stand for an element as large as the largest struct.
		if n := after.TotalAlloc - before.TotalAlloc; n > 64<<10+uint64(len(data))*2<<10 {
			t.Errorf("%d bytes allocated for %d", n, len(data))
		}
		if err != nil {
			if !errors.Is(err, echosession.ErrCorrupt) {
				t.Errorf("error %v, want ErrCorrupt", err)
			}
			return
		}
		again, err := s.Encode(aHeader(), &got, prev)
		if errors.Is(err, echosession.ErrTooLarge) {
			return
		}
		if err != nil {
			t.Fatalf("cannot encode what was decoded: %v", err)
		}
		var second T
		if _, err := s.Decode(idA, again, &second); err != nil {
			t.Fatalf("cannot decode what was encoded: %v", err)
		}
		var twin T // differs from got when there is a NaN
		if _, err := s.Decode(idA, prev, &twin); err != nil {
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
	newSide, oldSide := plain[newer](f), plain[older](f)
	f.Fuzz(func(t *testing.T, name string, a int, sku, gift string, at int64, any []byte, change uint8) {
		in := newerInner{a, gift}
		v := newer{
			Name: name, Extra: []string{gift}, Value: in, Ptr: &in, Map: map[string]newerInner{sku: in},
			IntMap: map[int]*newerInner{a: &in}, Cart: []newerItem{{gift, olderItem{SKU: sku, Qty: a}}, {name, olderItem{SKU: sku + "2"}}},
			Any: time.Unix(0, at).UTC(), newerEmbedded: newerEmbedded{in, gift},
		}
		prev, err := newSide.Encode(aHeader(), &v, nil)
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
		record, err := oldSide.Encode(aHeader(), &o, prev)
		if err != nil {
			t.Skip(err)
		}
		if got := decode[newer](t, newSide, record); !reflect.DeepEqual(got, want) {
			t.Errorf("got  %s\nwant %s", asJSON(got), asJSON(want))
		}
	})
}

func FuzzRoundTrip(f *testing.F) {
	f.Add(true, int64(-1), uint64(1), 1.5, "s", []byte("b"), int64(0), "subject", int64(5))
	f.Add(false, int64(math.MinInt64), uint64(math.MaxUint64), math.Inf(1), "\xff", []byte(nil), int64(math.MaxInt64), "", int64(-1))
	s, seals := plain[wide](f), sealed[wide](f, key(1))
	f.Fuzz(func(t *testing.T, b bool, i int64, u uint64, fl float64, str string, bin []byte, at int64, subject string, idle int64) {
		n := int(i)
		want := wide{
			B: b, I: int8(i), J: i, U: uint8(u), V: u, F: float32(fl), G: fl, S: str, D: bin, T: time.Unix(at>>20, at&0x3fffffff%1e9).UTC(), P: &n,
			L: []int{n, 1}, R: [2]int{n}, M: map[string]string{str: subject}, N: map[int]bool{n: b}, X: str, Y: map[string]any{str: b},
			C: cartItem{str, n}, Q: &cartItem{}, W: []cartItem{{subject, 1}, {}}, Ar: asArray{A: n, B: str},
		}
		copy(want.H[:], bin)
		if fl != fl {
			want.F, want.G = 0, 0
		}
		h := echosession.NewRecordHeader(idA, createdAt, max(-1, time.Duration(idle>>21)*time.Millisecond), subject)
		for _, s := range []echosession.Serializer{s, seals} {
			record, err := s.Encode(h, &want, nil)
			if errors.Is(err, echosession.ErrTooLarge) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got wide
			gotHeader, err := s.Decode(idA, record, &got)
			if err != nil {
				t.Fatal(err)
			}
			if gotHeader != h || !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v %+v\nwant %+v %+v", gotHeader, got, h, want)
			}
		}
	})
}

// A sealed record that is not what was sealed does not open.
func FuzzSealed(f *testing.F) {
	f.Add(uint16(0), byte(1), uint16(0))
	f.Add(uint16(1), byte(2), uint16(0))
	f.Add(uint16(35), byte(0x80), uint16(3))
	s := sealed[account](f, key(1))
	v := anAccount()
	good := encode(f, s, aHeader(), &v, nil)
	f.Fuzz(func(t *testing.T, at uint16, xor byte, cut uint16) {
		damaged := bytes.Clone(good)
		damaged[int(at)%len(damaged)] ^= xor
		damaged = damaged[:len(damaged)-int(cut)%len(damaged)]
		if bytes.Equal(damaged, good) {
			return
		}
		var got account
		if _, err := s.Decode(idA, damaged, &got); err == nil {
			t.Errorf("%x opened", damaged)
		}
		if _, err := s.Header(damaged); err == nil {
			t.Errorf("the header of %x opened", damaged)
		}
		if !reflect.DeepEqual(got, account{}) {
			t.Errorf("something came out: %+v", got)
		}
	})
}
