package jwt_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/echosession/echosession/internal/jwt"
)

func TestScanJSONObject(t *testing.T) {
	t.Run("members", func(t *testing.T) {
		var got []string
		err := jwt.ScanJSONObject(` { "a" : 1 , "\u0062\/" : [ { } , "x" ] , "" : { "c" : null } } `, func(name, value string) error {
			got = append(got, name, value)
			return nil
		})
		want := []string{"a", "1", "b/", `[ { } , "x" ]`, "", `{ "c" : null }`}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	})
	t.Run("an error of the callback ends the walk", func(t *testing.T) {
		stop, calls := errors.New("stop"), 0
		err := jwt.ScanJSONObject(`{"a":1,"b":2}`, func(_, _ string) error { calls++; return stop })
		if err != stop || calls != 1 {
			t.Errorf("%v after %d calls", err, calls)
		}
	})
	t.Run("more members than fit on the stack", func(t *testing.T) {
		var b strings.Builder
		for i := range 100 {
			fmt.Fprintf(&b, `,"%d":{"a":%d}`, i, i)
		}
		if err := jwt.ScanJSONObject("{"+b.String()[1:]+"}", nil); err != nil {
			t.Error(err)
		}
		if err := jwt.ScanJSONObject("{"+b.String()[1:]+`,"7":1}`, nil); err == nil {
			t.Error("the late duplicate passed")
		}
		if err := jwt.ScanJSONObject("{"+b.String()[1:]+`,"late":1,"99":1}`, nil); err == nil {
			t.Error("the duplicate of a late member passed")
		}
	})
	for _, src := range []string{
		"", " ", "{", "}", "{}}", "{} x", "{,}", `{"a"}`, `{"a":}`, `{"a":1,}`, `{"a" 1}`, `{a:1}`, `{'a':1}`, `{"a":1 "b":2}`, `{"a":[1,]}`,
		`{"a":[1 2]}`, `{"a":[}`, `{"a":tru}`, `{"a":nul}`, `{"a":True}`, `{"a":-}`, `{"a":.5}`, `{"a":1.}`, `{"a":1e}`, `{"a":1e+}`, `{"a":00}`,
		`{"a":-01}`, `{"a":0x1}`, `{"a":1_0}`, `{"a":Infinity}`, `{"a":"\x"}`, `{"a":"\u12"}`, `{"a":"\u12g4"}`, `{"a":"\u+123"}`, `{"a":"\ud800\n"}`,
		`{"a":"\ud800\ud800"}`, `{"a":"\ud800\ue000"}`, `{"a":"\ud800\u0041"}`, `{"a":"\udc00"}`, `{"a":"\udc00\udc00"}`, "{\"a\":\"\t\"}", "{\"a\":\"\n\"}", "{\"a\":\"\x00\"}", `{"a":"`, `{"a":"\`, `{"a":"\u`, `{"\ud800":1}`,
		"{\"a\":1}\x00", "{\u00a0}", "{\f}", `{"a":1,"a":1}`, `{"a":1,"\u0061":1}`, `{"x":{"":1,"":2}}`, `{"a":1e309}`, "// c\n{}",
	} {
		if err := jwt.ScanJSONObject(src, nil); err == nil {
			t.Errorf("%q passed", src)
		}
	}
}

// members is an object with n members.
func members(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"%d":0`, i)
	}
	return "{" + b.String()[1:] + "}"
}

// Twice as many members take twice the comparisons, not four times.
func TestScanJSONObjectIsLinear(t *testing.T) {
	for _, n := range []int{30, 8_000, 16_000, 32_000} {
		for form, src := range map[string]string{"one object": members(n), "an inner one": `{"a":[` + members(n) + `]}`} {
			compared, err := jwt.Comparisons(src)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d members, %s: %d comparisons", n, form, compared)
			if compared < n-1 || compared > 32*n {
				t.Errorf("%d members, %s: %d comparisons", n, form, compared)
			}
		}
	}
}

// FuzzScanJSONObject: what passes, encoding/json reads too, with the same members;
// what encoding/json refuses never passes.
func FuzzScanJSONObject(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"a":1,"b":[true,false,null,-0.5e-3,"\u00e9\ud83d\ude00\\"],"c":{"a":{}}}`, `{"a":1,"A":2}`, `{"a":1,"\u0061":2}`,
		`[1]`, `{"a":1e400}`, "{\"a\":\"\xff\"}", `{"a":"\ud800"}`, strings.Repeat(`{"a":`, 70) + "1" + strings.Repeat("}", 70),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, src string) {
		if len(src) > 8<<10 {
			return
		}
		members := map[string]any{}
		err := jwt.ScanJSONObject(src, func(name, value string) error {
			if _, ok := members[name]; ok {
				t.Fatalf("%q occurs twice", name)
			}
			var v any
			if err := json.Unmarshal([]byte(value), &v); err != nil {
				t.Fatalf("value %q: %v", value, err)
			}
			members[name] = v
			return nil
		})
		if err != nil {
			return
		}
		var want map[string]any
		if err := json.Unmarshal([]byte(src), &want); err != nil || !reflect.DeepEqual(members, want) {
			t.Fatalf("%q: got %v; encoding/json: %v, %v", src, members, want, err)
		}
	})
}
