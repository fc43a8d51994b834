package shape_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"testing"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/echosession/echosession/internal/shape"
)

// Two releases of one program: the newer one has a field more everywhere.
type (
	olderItem struct {
		SKU  string         `msgpack:"sku"`
		Qty  int            `msgpack:"qty,omitempty"`
		Tags map[string]int `msgpack:"tags,omitempty"`
	}
	newerItem struct {
		Gift string `msgpack:"gift,omitempty"`
		olderItem
	}
	olderInner struct {
		A int `msgpack:"a"`
	}
	newerInner struct {
		A int    `msgpack:"a"`
		N string `msgpack:"n,omitempty"`
	}
	older struct {
		Name   string                 `msgpack:"name"`
		Note   string                 `msgpack:"note,omitempty"`
		Value  olderInner             `msgpack:"value"`
		Ptr    *olderInner            `msgpack:"ptr"`
		Map    map[string]olderInner  `msgpack:"map"`
		IntMap map[int]*olderInner    `msgpack:"intmap"`
		Array  [2]olderInner          `msgpack:"array"`
		Cart   []olderItem            `msgpack:"cart"`
		Grid   [][]*olderInner        `msgpack:"grid"`
		Any    any                    `msgpack:"any"`
		Empty  *olderInner            `msgpack:"empty,omitempty"`
		Carts  map[string][]olderItem `msgpack:"carts"`
		olderEmbedded
	}
	olderEmbedded struct{ E olderInner }
	newer         struct {
		Name   string                 `msgpack:"name"`
		Note   string                 `msgpack:"note,omitempty"`
		Extra  []string               `msgpack:"extra"`
		Value  newerInner             `msgpack:"value"`
		Ptr    *newerInner            `msgpack:"ptr"`
		Map    map[string]newerInner  `msgpack:"map"`
		IntMap map[int]*newerInner    `msgpack:"intmap"`
		Array  [2]newerInner          `msgpack:"array"`
		Cart   []newerItem            `msgpack:"cart"`
		Grid   [][]*newerInner        `msgpack:"grid"`
		Any    any                    `msgpack:"any"`
		Empty  *newerInner            `msgpack:"empty,omitempty"`
		Carts  map[string][]newerItem `msgpack:"carts"`
		newerEmbedded
	}
	newerEmbedded struct {
		E newerInner
		F string
	}
)

func aNewer() newer {
	in := func(a int, n string) newerInner { return newerInner{a, n} }
	ptr := func(a int, n string) *newerInner { return &newerInner{a, n} }
	item := func(sku string, qty int, gift string) newerItem {
		return newerItem{gift, olderItem{sku, qty, map[string]int{"x": 1, "y": 2, "z": 3}}}
	}
	return newer{
		Name: "n", Note: "note", Extra: []string{"e"}, Value: in(1, "v"), Ptr: ptr(2, "p"),
		Map: map[string]newerInner{"a": in(3, "ma"), "b": in(4, "mb")}, IntMap: map[int]*newerInner{-1: ptr(5, "i"), 300: ptr(6, "j")},
		Array: [2]newerInner{in(7, "x"), in(8, "y")},
		Cart:  []newerItem{item("book", 1, "for Bob"), item("pen", 2, "for Eve"), item("cup", 3, "for Tim")},
		Grid:  [][]*newerInner{{ptr(1, "g1"), nil}, {ptr(2, "g2")}},
		Any:   "any", Empty: ptr(9, "gone"),
		Carts:         map[string][]newerItem{"c": {item("ink", 1, "for Ann")}},
		newerEmbedded: newerEmbedded{in(1, "emb"), "f"},
	}
}

// Each case is what the older release does to what the newer one wrote, and what
// the newer one must find then.
func TestUnknownFieldsSurvive(t *testing.T) {
	for name, c := range map[string]struct {
		update func(*older)
		want   func(*newer)
	}{
		"nothing changed": {func(*older) {}, func(*newer) {}},
		"top level": {
			func(v *older) { v.Name = "m" },
			func(v *newer) { v.Name = "m" },
		},
		"emptied fields stay empty": {
			func(v *older) { v.Note = ""; v.Empty = nil; v.Cart[0].Qty = 0 },
			func(v *newer) { v.Note = ""; v.Empty = nil; v.Cart[0].Qty = 0 },
		},
		"nested": {
			func(v *older) { v.Value.A = 10; v.Ptr.A = 20; v.E.A = 30; *v.Grid[1][0] = olderInner{40} },
			func(v *newer) { v.Value.A = 10; v.Ptr.A = 20; v.E.A = 30; v.Grid[1][0].A = 40 },
		},
		"pointer set to nil": {
			func(v *older) { v.Ptr = nil },
			func(v *newer) { v.Ptr = nil },
		},
		"map values by key": {
			func(v *older) {
				v.Map["a"], v.Map["c"] = olderInner{9}, olderInner{3}
				delete(v.Map, "b")
				v.IntMap[300].A = 9
			},
			func(v *newer) {
				v.Map["a"], v.Map["c"] = newerInner{9, "ma"}, newerInner{3, ""}
				delete(v.Map, "b")
				v.IntMap[300].A = 9
			},
		},
		"array by index": {
			func(v *older) { v.Array[1].A = 9 },
			func(v *newer) { v.Array[1].A = 9 },
		},
		"element changed in place": {
			func(v *older) { v.Cart[0].Qty++ },
			func(v *newer) { v.Cart[0].Qty++ },
		},
		"every element changed in place": {
			func(v *older) { v.Cart[0].Qty++; v.Cart[1].Qty++; v.Cart[2].Tags["x"]++ },
			func(v *newer) { v.Cart[0].Qty++; v.Cart[1].Qty++; v.Cart[2].Tags["x"]++ },
		},
		"first element removed": {
			func(v *older) { v.Cart = v.Cart[1:] },
			func(v *newer) { v.Cart = v.Cart[1:] },
		},
		"middle element removed": {
			func(v *older) { v.Cart = append(v.Cart[:1], v.Cart[2]) },
			func(v *newer) { v.Cart = append(v.Cart[:1], v.Cart[2]) },
		},
		"all elements removed": {
			func(v *older) { v.Cart = v.Cart[:0] },
			func(v *newer) { v.Cart = v.Cart[:0] },
		},
		"element added before": {
			func(v *older) { v.Cart = append([]olderItem{{SKU: "new"}}, v.Cart...) },
			func(v *newer) { v.Cart = append([]newerItem{{"", olderItem{SKU: "new"}}}, v.Cart...) },
		},
		"elements swapped": {
			func(v *older) { v.Cart[0], v.Cart[2] = v.Cart[2], v.Cart[0] },
			func(v *newer) { v.Cart[0], v.Cart[2] = v.Cart[2], v.Cart[0] },
		},
		"one removed, another changed: its fields go to nobody": {
			func(v *older) { v.Cart = v.Cart[1:]; v.Cart[0].Qty = 7 },
			func(v *newer) { v.Cart = v.Cart[1:]; v.Cart[0].Qty, v.Cart[0].Gift = 7, "" },
		},
		"one removed, one added: the rest keep theirs": {
			func(v *older) { v.Cart = append(v.Cart[1:], olderItem{SKU: "new"}) },
			// The new one stands where none is left over by index: cup was there.
			func(v *newer) { v.Cart = append(v.Cart[1:], newerItem{"", olderItem{SKU: "new"}}) },
		},
		"an element of equal content added at the end has none": {
			func(v *older) { v.Cart = append(v.Cart, v.Cart[0]) },
			func(v *newer) { v.Cart = append(v.Cart, newerItem{"", v.Cart[0].olderItem}) },
		},
		"slice in a map": {
			func(v *older) { v.Carts["c"][0].Qty++; v.Carts["d"] = nil },
			func(v *newer) { v.Carts["c"][0].Qty++; v.Carts["d"] = nil },
		},
		"everything emptied": {
			func(v *older) { *v = older{} },
			func(v *newer) {
				*v = newer{Extra: []string{"e"}, Value: newerInner{N: "v"}, Array: [2]newerInner{{N: "x"}, {N: "y"}}, newerEmbedded: newerEmbedded{newerInner{N: "emb"}, "f"}}
			},
		},
	} {
		for _, updates := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s, %d updates", name, updates), func(t *testing.T) {
				newSide, oldSide := newShape[newer](t), newShape[older](t)
				v := aNewer()
				prev := encode(t, newSide, &v, nil)
				before := bytes.Clone(prev)
				o := decode[older](t, oldSide, prev)
				c.update(&o)
				data := encode(t, oldSide, &o, prev)
				if updates == 2 { // the second one changes nothing
					again := decode[older](t, oldSide, data)
					data = encode(t, oldSide, &again, bytes.Clone(data))
				}
				want := aNewer()
				c.want(&want)
				if got := decode[newer](t, newSide, data); !reflect.DeepEqual(got, want) {
					t.Errorf("got  %s\nwant %s", asJSON(got), asJSON(want))
				}
				if !bytes.Equal(prev, before) {
					t.Error("the old encoding was changed")
				}
				if got := decode[older](t, oldSide, data); !reflect.DeepEqual(got, o) {
					t.Errorf("got  %s\nwant %s", asJSON(got), asJSON(o))
				}
			})
		}
	}
}

func TestOlderEncodingsLackFields(t *testing.T) {
	type v1 struct{ A int }
	type v2 struct {
		A int
		B []string
		C *int
		D struct{ E string }
	}
	o := v1{A: 1}
	got := decode[v2](t, newShape[v2](t), encode(t, newShape[v1](t), &o, nil))
	if !reflect.DeepEqual(got, v2{A: 1}) {
		t.Errorf("decoded %+v", got)
	}
}

// A field that the predecessor lacks counts as zero when elements are matched.
func TestElementsMatchAcrossReleases(t *testing.T) {
	type oldItem struct {
		SKU  string
		Qty  int
		In   olderInner
		Tags []string
	}
	type newItem struct{ SKU, Gift string }
	type oldT struct{ Cart []oldItem }
	type newT struct{ Cart []newItem }
	v := newT{[]newItem{{"book", "for Bob"}, {"pen", "for Eve"}}}
	prev := encode(t, newShape[newT](t), &v, nil)
	o := decode[oldT](t, newShape[oldT](t), prev)
	o.Cart = o.Cart[1:]
	got := decode[newT](t, newShape[newT](t), encode(t, newShape[oldT](t), &o, prev))
	if want := (newT{v.Cart[1:]}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// What decides which element is whose: everything that T can see of it.
func TestElementsMatchByContent(t *testing.T) {
	type oldItem struct {
		SKU string
		Arr [2]int
		Str [1]olderInner
		Ptr *olderInner
		Map map[string]int
	}
	type newItem struct {
		SKU, Gift string
		Arr       *[2]int         `msgpack:",omitempty"`
		Str       *[1]olderInner  `msgpack:",omitempty"`
		Ptr       *olderInner     `msgpack:",omitempty"`
		Map       *map[string]int `msgpack:",omitempty"`
	}
	type oldT struct{ Cart []oldItem }
	type newT struct{ Cart []newItem }
	for name, items := range map[string][2]newItem{
		"absent":                 {{SKU: "a"}, {SKU: "b"}},
		"an array":               {{Arr: &[2]int{}}, {Arr: &[2]int{1, 0}}},
		"its second element":     {{Arr: &[2]int{}}, {Arr: &[2]int{0, 1}}},
		"absent, and not zero":   {{}, {Arr: &[2]int{1, 0}}},
		"an array of structs":    {{Str: &[1]olderInner{}}, {Str: &[1]olderInner{{1}}}},
		"absent and nil":         {{}, {Ptr: &olderInner{}}},
		"a pointer":              {{Ptr: &olderInner{1}}, {Ptr: &olderInner{2}}},
		"a map, empty or absent": {{}, {Map: &map[string]int{}}},
		"a map":                  {{Map: &map[string]int{"a": 1}}, {Map: &map[string]int{"a": 2}}},
	} {
		t.Run(name, func(t *testing.T) {
			items[0].Gift, items[1].Gift = "first", "second"
			v := newT{items[:]}
			prev := encode(t, newShape[newT](t), &v, nil)
			for i := range 2 {
				o := decode[oldT](t, newShape[oldT](t), prev)
				o.Cart = o.Cart[i : i+1]
				got := decode[newT](t, newShape[newT](t), encode(t, newShape[oldT](t), &o, prev))
				if len(got.Cart) != 1 || got.Cart[0].Gift != items[i].Gift {
					t.Errorf("element %d is followed by %+v", i, got.Cart)
				}
			}
		})
	}
}

func TestNoPredecessor(t *testing.T) {
	v := aNewer()
	oldSide := newShape[older](t)
	o := decode[older](t, oldSide, encode(t, newShape[newer](t), &v, nil))
	unknown, err := oldSide.Check(encode(t, oldSide, &o, nil), 64<<10)
	if err != nil || unknown {
		t.Errorf("fields of another release without an encoding of one: %t, %v", unknown, err)
	}
}

// Inside these, nothing is carried over: the value is one to the encoder.
func TestUnknownFieldsStopAt(t *testing.T) {
	type oldArray struct {
		_msgpack struct{} `msgpack:",as_array"` //lint:ignore U1000 an option of the encoder
		In       olderInner
	}
	type newArray struct {
		_msgpack struct{} `msgpack:",as_array"` //lint:ignore U1000 an option of the encoder
		In       newerInner
	}
	type oldT struct {
		Array oldArray
		Any   any
	}
	type newT struct {
		Array newArray
		Any   any
		X     int
	}
	v := newT{newArray{In: newerInner{1, "n"}}, map[string]any{"a": "b", "c": "d"}, 5}
	prev := encode(t, newShape[newT](t), &v, nil)
	o := decode[oldT](t, newShape[oldT](t), prev)
	o.Array.In.A = 2
	delete(o.Any.(map[string]any), "c")
	got := decode[newT](t, newShape[newT](t), encode(t, newShape[oldT](t), &o, prev))
	want := newT{newArray{In: newerInner{2, ""}}, map[string]any{"a": "b"}, 5}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestManyUnknownFields(t *testing.T) {
	for _, n := range []int{14, 15, 16, 70_000} {
		m := map[string]any{"a": 1}
		for i := range n {
			m[fmt.Sprint("f", i)] = i
		}
		prev, err := msgpack.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		sh := newShape[olderInner](t)
		if unknown, err := sh.Check(prev, 64<<10); err != nil || !unknown {
			t.Fatalf("%d unknown fields: %t, %v", n, unknown, err)
		}
		data := sh.Carry([]byte{0xc0}, []byte{0x81, 0xa1, 'a', 0x02}, prev)
		if data[0] != 0xc0 {
			t.Errorf("%d unknown fields: what is before them is gone", n)
		}
		data = data[1:]
		var got map[string]int
		if err := msgpack.Unmarshal(data, &got); err != nil {
			t.Fatal(err)
		}
		if len(got) != n+1 || got["a"] != 2 || got[fmt.Sprint("f", n-1)] != n-1 {
			t.Errorf("%d unknown fields: %d fields, a is %d", n, len(got), got["a"])
		}
	}
}

// Keeps is about where unknown fields can be carried.
func TestKeeps(t *testing.T) {
	for _, c := range []struct {
		name string
		sh   *shape.Shape
		want bool
	}{
		{"string", newShape[string](t), false},
		{"any", newShape[any](t), false},
		{"map of slices", newShape[map[string][]int](t), false},
		{"array struct", newShape[asArray](t), false},
		{"struct", newShape[struct{}](t), true},
		{"map of structs", newShape[map[string]olderInner](t), true},
		{"recursive", newShape[[]*node](t), true},
	} {
		if got := c.sh.Keeps(); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}

func asJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// forest is a type that a value can nest deeply: a list of lists of lists.
type forest struct {
	N     int      `msgpack:"n"`
	Trees []forest `msgpack:"t"`
}

// deepForest returns an encoding that nests depth levels, is about size bytes long and
// has one field in its innermost struct that a forest does not have.
func deepForest(depth, size int) []byte {
	data := append([]byte{0x83, 0xa1, 'n', 1, 0xa1, 't', 0xc0, 0xa1, '?'}, 1)
	for range depth - 1 {
		leaves := (size - len(data)) / (depth * 7)
		level := []byte{0x82, 0xa1, 'n', 2, 0xa1, 't', 0xdc, byte((leaves + 1) >> 8), byte(leaves + 1)}
		for i := range leaves {
			level = append(level, 0x82, 0xa1, 'n', byte(i%128), 0xa1, 't', 0xc0)
		}
		data = append(level, data...)
	}
	return data
}

// Carrying takes time in proportion to the size of the data, however deeply it nests.
func TestCarryIsLinear(t *testing.T) {
	sh := newShape[forest](t)
	for _, depth := range []int{2, 4, 8, 16, 29} {
		prev := deepForest(depth, 60<<10)
		v := decode[forest](t, sh, prev)
		fresh := encode(t, sh, &v, nil)
		merged, steps := sh.CarrySteps(fresh, prev)
		t.Logf("%d levels, %d bytes: %d tokens", depth, len(prev), steps)
		if !bytes.Equal(merged, prev) {
			t.Fatalf("%d levels: the unknown field is lost", depth)
		}
		if steps < len(fresh)/10 || steps > 4*(len(prev)+len(fresh)) {
			t.Errorf("%d levels, %d bytes: %d tokens read", depth, len(prev), steps)
		}
	}
}
