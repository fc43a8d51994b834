package shape_test

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/echosession/echosession/internal/shape"
)

func TestProbeCodec(t *testing.T) {
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
		"encodes, not back": {reflect.TypeFor[struct{ W map[string]complex64 }](), false},
	} {
		t.Run(name, func(t *testing.T) {
			mistakes := shape.ProbeCodec(c.typ, json.Marshal, json.Unmarshal)
			if (len(mistakes) == 0) != c.ok {
				t.Errorf("mistakes %v, accepted: %t", mistakes, c.ok)
			}
		})
	}
	t.Run("the codec panics", func(t *testing.T) {
		mistakes := shape.ProbeCodec(reflect.TypeFor[account](), func(any) ([]byte, error) { panic("no") }, json.Unmarshal)
		if len(mistakes) != 1 || mistakes[0].Path != "account" {
			t.Errorf("mistakes %v", mistakes)
		}
	})
	t.Run("the part that does not come back is named", func(t *testing.T) {
		forgets := func(data []byte, v any) error {
			err := json.Unmarshal(data, v)
			v.(*account).Cart[0].Qty = 0
			return err
		}
		mistakes := shape.ProbeCodec(reflect.TypeFor[account](), json.Marshal, forgets)
		if len(mistakes) != 1 || mistakes[0].Path != "account.Cart[].Qty" {
			t.Errorf("mistakes %v", mistakes)
		}
	})
}
