package echosession_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/echosession/echosession"
)

// vectors opens a file of published test vectors, which are not part of the
// project.
func vectors(t *testing.T, path string) []byte {
	t.Helper()
	path = filepath.Join("..", "shared", "vectors", filepath.FromSlash(path))
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("%s is not there: see its README for where it is from", path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Every encoding of kawanet/msgpack-test-suite reads as its value in an
// interface, but for the deviations listed.
func TestMessagePackTestSuite(t *testing.T) {
	deviations := map[string]string{
		"60.ext.yaml": "an extension that is no timestamp has no Go value: it is refused in an interface, and skipped in an unknown field",
	}
	type vector struct {
		Nil       *bool
		Bool      *bool
		Binary    *string
		Number    json.Number
		Bignum    string
		String    *string
		Array     []any
		Map       map[string]any
		Timestamp []int64
		Ext       []any
		Msgpack   []string
	}
	var suite map[string][]vector
	dec := json.NewDecoder(bytes.NewReader(vectors(t, "msgpack-test-suite/msgpack-test-suite.json")))
	dec.UseNumber()
	if err := dec.Decode(&suite); err != nil {
		t.Fatal(err)
	}

	s := plain[any](t)
	unknown := plain[struct{}](t)
	encodings, deviating := 0, map[string]int{}
	for group, vectors := range suite {
		for _, v := range vectors {
			var want any
			switch {
			case v.Bool != nil:
				want = *v.Bool
			case v.Binary != nil:
				want = unhex(t, strings.ReplaceAll(*v.Binary, "-", ""))
			case v.Bignum != "":
				want = number(t, v.Bignum)
			case v.Number != "":
				want = number(t, v.Number.String())
			case v.String != nil:
				want = *v.String
			case v.Array != nil:
				want = v.Array
			case v.Map != nil:
				want = v.Map
			case v.Timestamp != nil:
				want = time.Unix(v.Timestamp[0], v.Timestamp[1]).UTC()
			}
			for _, text := range v.Msgpack {
				encodings++
				data := unhex(t, strings.ReplaceAll(text, "-", ""))
				var skipped struct{}
				if _, err := unknown.Decode(idA, record(append([]byte{0x81, 0xa1, 'u'}, data...)), &skipped); err != nil {
					t.Errorf("%s: %s in an unknown field: %v", group, text, err)
				}
				var got any
				_, err := s.Decode(idA, record(data), &got)
				if _, deviates := deviations[group]; deviates {
					deviating[group]++
					if !errors.Is(err, echosession.ErrCorrupt) {
						t.Errorf("%s: %s does not deviate: %v, %v", group, text, got, err)
					}
					continue
				}
				if err != nil {
					t.Errorf("%s: %s: %v", group, text, err)
				} else if !equal(t, got, want) {
					t.Errorf("%s: %s: %T %v, want %T %v", group, text, got, got, want, want)
				}
			}
		}
	}
	if encodings != 233 {
		t.Errorf("%d encodings, want 233", encodings)
	}
	for group := range deviations {
		if deviating[group] == 0 {
			t.Errorf("%s has no vectors", group)
		}
	}
}

func number(t *testing.T, s string) *big.Float {
	f, ok := new(big.Float).SetPrec(80).SetString(s)
	if !ok {
		t.Fatalf("number %q", s)
	}
	return f
}

// equal compares a decoded value with one of the suite, where numbers have no
// type.
func equal(t *testing.T, got, want any) bool {
	if n, ok := want.(json.Number); ok {
		want = number(t, n.String())
	}
	switch want := want.(type) {
	case *big.Float:
		f := new(big.Float).SetPrec(80)
		switch got := got.(type) {
		case int64:
			f.SetInt64(got)
		case uint64:
			f.SetUint64(got)
		case float32:
			f.SetFloat64(float64(got))
		case float64:
			f.SetFloat64(got)
		default:
			return false
		}
		return f.Cmp(want) == 0
	case []any:
		got, ok := got.([]any)
		if !ok || len(got) != len(want) {
			return false
		}
		for i := range want {
			if !equal(t, got[i], want[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		got, ok := got.(map[string]any)
		if !ok || len(got) != len(want) {
			return false
		}
		for k := range want {
			if !equal(t, got[k], want[k]) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(got, want)
}
