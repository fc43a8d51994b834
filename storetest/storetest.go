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
// fails. newStore is called once for each subtest, with the subtest's T: if it
// cannot make a store it fails or skips the subtest, and it closes the store in
// T.Cleanup.
//
// All stores may use one server, which others use at the same time: the suite takes
// new IDs and subjects for everything, and deletes only what it created. Give each
// store a keyspace of its own nevertheless: [echosession.Store.Scan] reads all of
// the keyspace.
//
// A store that implements [echosession.Watcher] is checked for that too. For any other
// store those subtests are skipped, and say so.
//
// With -short there are fewer rounds in the checks for races. Run these checks
// under the race detector: there they find most.
func Run(t *testing.T, newStore func(t *testing.T) echosession.Store) {
	RunWithClock(t, func(t *testing.T) (echosession.Store, func(time.Duration)) {
		return newStore(t), nil
	})
}

// RunWithClock is [Run] for stores whose clock can be set. Together with the store,
// newStore returns a function that advances the time of that store; nothing else
// may advance it. The suite then does not wait, and checks to the millisecond when a
// lifetime ends.
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

	// rule says what the contract asks for. It is logged when the case fails.
	rule string

	// anySubject is set for a rule about sessions without a subject as much as
	// about those with one.
	anySubject bool

	run func(t *trial)
}

func cases() []testCase {
	return slices.Concat(recordCases, lifetimeCases, rotationCases, subjectCases, scanCases, raceCases, renewalCases, evictionCases, watchCases, ticketCases)
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
