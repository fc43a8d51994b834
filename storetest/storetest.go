// Package storetest checks that an implementation of [echosession.Store] keeps
// the contract.
package storetest

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/echosession/echosession"
)

// Run checks the stores that newStore makes, in real time: it waits for short
// lifetimes to pass.
//
// Every rule of the contract is a subtest of its own, which logs the rule when it
// fails. newStore is called once for each, with the subtest's T: it fails or skips
// the subtest when there is no store to be had, and leaves closing to T.Cleanup.
//
// The stores may all stand for one server, in use by others at the same time: the
// suite takes new IDs and subjects for everything, and deletes what it created and
// nothing else. [echosession.Store.Scan] is the reason to give each store a
// keyspace of its own all the same, for it reads all of it.
//
// With -short there are fewer rounds in the checks for races. These say most
// under the race detector.
func Run(t *testing.T, newStore func(t *testing.T) echosession.Store) {
	RunWithClock(t, func(t *testing.T) (echosession.Store, func(time.Duration)) {
		return newStore(t), nil
	})
}

// RunWithClock is [Run] for stores whose clock can be turned. Beside the store
// newStore returns a function that moves the time of that store on, and nothing
// else must move it. Then the suite does not wait, and checks to the millisecond
// when a lifetime ends.
func RunWithClock(t *testing.T, newStore func(t *testing.T) (store echosession.Store, advance func(time.Duration))) {
	for _, c := range cases() {
		check := func(subject string) func(*testing.T) {
			return func(t *testing.T) {
				store, advance := newStore(t)
				c.check(&trial{TB: t, store: store, advance: advance, subject: subject})
			}
		}
		t.Run(c.name, func(t *testing.T) {
			if c.anySubject {
				t.Run("without subject", check(""))
				t.Run("with subject", check(uuid.NewString()))
			} else {
				check(uuid.NewString())(t)
			}
		})
	}
}

// A testCase checks one rule.
type testCase struct {
	name string

	// rule says what the contract asks for, to whoever sees the case fail.
	rule string

	// anySubject is set for a rule about sessions without a subject as much as
	// about those with one.
	anySubject bool

	run func(t *trial)
}

func cases() []testCase {
	return slices.Concat(recordCases, lifetimeCases, rotationCases, subjectCases, scanCases, raceCases)
}

func (c testCase) check(t *trial) {
	t.Helper()
	defer func() {
		t.Helper()
		if t.Failed() {
			t.Logf("the rule: %s", c.rule)
		}
		t.clear()
	}()
	c.run(t)
}
