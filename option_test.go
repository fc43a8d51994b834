package echosession

import (
	"reflect"
	"testing"
	"time"
)

// What newer releases have added to a record goes along with a login of the same subject
// alone, as all that belongs to a login does.
func TestRenewHandsOnWhatNewerReleasesAdded(t *testing.T) {
	_, e, err := Config{Store: NewMemoryStore(), Secret: make([]byte, 32)}.compile(reflect.TypeFor[struct{}]())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	header, claims, err := e.begin("create", createParams{subject: "ada", named: true}, nil, now)
	if err != nil {
		t.Fatal(err)
	}
	header.newer.flags, header.newer.extras, header.newer.n = 1<<40, "\x7f\xc3", 1
	before, err := e.issue(header, claims, now)
	if err != nil {
		t.Fatal(err)
	}
	for subject, handedOn := range map[string]bool{"ada": true, "bob": false} {
		got, _, err := e.begin("renew", createParams{subject: subject, named: true}, before, now)
		if err != nil || (got.newer == header.newer) != handedOn {
			t.Errorf("%s: %+v, %v", subject, got.newer, err)
		}
	}
}
