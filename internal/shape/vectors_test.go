package shape_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/echosession/echosession/internal/shape"
)

// Every encoding of the published suite reads as its value in an interface, but for
// the deviations listed. The README in testdata says where it is from.
func TestMessagePackTestSuite(t *testing.T) {
	deviations := map[string]string{
		"60.ext.yaml": "an extension that is no timestamp has no Go value: it is refused in an interface, and skipped in an unknown field",
	}
	var suite map[string][]vector
	file, err := os.ReadFile("testdata/msgpack-test-suite/msgpack-test-suite.json")
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(bytes.NewReader(file))
	dec.UseNumber()
	if err := dec.Decode(&suite); err != nil {
		t.Fatal(err)
	}

	sh, unknown := newShape[any](t), newShape[struct{}](t)
	cases, encodings, deviating := 0, 0, map[string]int{}
	for group, vectors := range suite {
		for _, v := range vectors {
			cases++
			want := v.value(t)
			for _, text := range v.Msgpack {
				encodings++
				data := unhex(t, strings.ReplaceAll(text, "-", ""))
				if skipped, err := unknown.Check(append([]byte{0x81, 0xa1, 'u'}, data...), 64<<10); err != nil || !skipped {
					t.Errorf("%s: %s in an unknown field: %v", group, text, err)
				}
				var got any
				err := sh.Decode(data, reflect.ValueOf(&got).Elem(), 64<<10)
				if _, deviates := deviations[group]; deviates {
					deviating[group]++
					if !errors.Is(err, shape.ErrDecoder) {
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
	if cases != 85 || encodings != 233 {
		t.Errorf("%d encodings of %d values, want 233 of 85", encodings, cases)
	}
	for group := range deviations {
		if deviating[group] == 0 {
			t.Errorf("%s has no vectors", group)
		}
	}
}

// A vector is a value and its encodings. It has one of the fields.
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

func (v vector) value(t *testing.T) any {
	switch {
	case v.Bool != nil:
		return *v.Bool
	case v.Binary != nil:
		return unhex(t, strings.ReplaceAll(*v.Binary, "-", ""))
	case v.Bignum != "":
		return number(t, v.Bignum)
	case v.Number != "":
		return number(t, v.Number.String())
	case v.String != nil:
		return *v.String
	case v.Array != nil:
		return v.Array
	case v.Map != nil:
		return v.Map
	case v.Timestamp != nil:
		return time.Unix(v.Timestamp[0], v.Timestamp[1]).UTC()
	}
	return nil
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
