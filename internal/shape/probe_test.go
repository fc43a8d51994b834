package shape_test

import (
	"encoding/json"
	"reflect"
	"slices"
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
	for path, forget := range map[string]func(*account){
		"account.UserID":     func(a *account) { a.UserID = 0 },
		"account.Roles[]":    func(a *account) { a.Roles[0] = "" },
		"account.Roles":      func(a *account) { a.Roles = nil },
		"account.LastLogin":  func(a *account) { a.LastLogin = a.LastLogin.Add(1) },
		"account.Prefs[key]": func(a *account) { a.Prefs = map[string]string{"other": "a"} },
		"account.Prefs[]":    func(a *account) { a.Prefs["a"] = "" },
		"account.Cart[].Qty": func(a *account) { a.Cart[0].Qty = 0 },
		"account.Cart":       func(a *account) { a.Cart = a.Cart[:0] },
	} {
		t.Run("names "+path, func(t *testing.T) {
			mistakes := shape.ProbeCodec(reflect.TypeFor[account](), json.Marshal, func(data []byte, v any) error {
				err := json.Unmarshal(data, v)
				forget(v.(*account))
				return err
			})
			if want := []shape.Mistake{{Path: path, Reason: "what the codec stores does not come back"}}; !slices.Equal(mistakes, want) {
				t.Errorf("mistakes %v, want %v", mistakes, want)
			}
		})
	}
}
