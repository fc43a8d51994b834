package echosession_test

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// A renewScene is a session that is renewed through a client whose scripts meet with
// accidents.
type renewScene struct {
	*testing.T
	admin    *redis.Client
	keyspace string
	direct   echosession.Store // past the accidents
	store    echosession.Store
	from, to echosession.Ref

	scripts map[string]string // names by SHA-1
	mu      sync.Mutex
	sent    []string
	at      map[string]accident // by a script's name and how often it was sent before
	dead    bool                // nothing is sent any more
}

// An accident is what happens to one script.
type accident struct {
	before func(s *renewScene)
	drop   bool // it does not reach Redis
	lose   bool // its reply is lost
	refuse bool // Redis does not run it, and says so
	after  func(s *renewScene)
	last   bool // the process dies when it has the reply
}

// newRenewScene stores a session with the record "old".
func newRenewScene(t *testing.T, server *redistest.Server, subjects [2]string, at map[string]accident) *renewScene {
	t.Helper()
	s := &renewScene{
		T: t, admin: server.Client(t), keyspace: newKeyspace(),
		from: newRef(subjects[0]), to: newRef(subjects[1]), at: at, scripts: make(map[string]string),
	}
	loadScripts(t, s.admin)
	for name, source := range luaSources(t) {
		sum := sha1.Sum([]byte(source))
		s.scripts[hex.EncodeToString(sum[:])] = name
	}
	s.direct = newRedisStore(t, s.admin, s.keyspace)
	client := server.Client(t)
	client.AddHook(s)
	s.store = newRedisStore(t, client, s.keyspace)
	s.must(errOf(s.direct.Create(t.Context(), s.from, []byte("old"), time.Hour, echosession.Limit{})))
	return s
}

func (s *renewScene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *renewScene) DialHook(next redis.DialHook) redis.DialHook { return next }

func (s *renewScene) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (s *renewScene) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() != "evalsha" {
			return next(ctx, cmd)
		}
		s.mu.Lock()
		if s.dead {
			s.mu.Unlock()
			cmd.SetErr(io.ErrUnexpectedEOF)
			return io.ErrUnexpectedEOF
		}
		name := s.scripts[fmt.Sprint(cmd.Args()[1])]
		a := s.at[fmt.Sprintf("%s %d", name, strings.Count(strings.Join(s.sent, " "), name))]
		s.sent = append(s.sent, name)
		s.dead = a.last
		s.mu.Unlock()
		if a.before != nil {
			a.before(s)
		}
		var err error
		if !a.drop && !a.refuse {
			err = next(ctx, cmd)
		}
		if a.after != nil {
			a.after(s)
		}
		if a.drop || a.lose {
			err = io.ErrUnexpectedEOF
			cmd.SetErr(err)
		}
		if a.refuse {
			err = fakeReply("NOPERM this user has no permissions to run the 'evalsha' command")
			cmd.SetErr(err)
		}
		return err
	}
}

func (s *renewScene) renew(limit echosession.Limit) error {
	return errOf(s.store.Renew(s.Context(), s.from, s.to, []byte("old"), []byte("new"), time.Hour, limit))
}

// state says what can be found under the two refs.
func (s *renewScene) state() string {
	s.Helper()
	say := func(ref echosession.Ref) string {
		record, err := s.direct.Load(context.Background(), ref, 0)
		switch {
		case errors.Is(err, echosession.ErrRenewed):
			return "renewed"
		case errors.Is(err, echosession.ErrNotFound):
			return "none"
		case err != nil && strings.Contains(err.Error(), "rotated"):
			return "rotated"
		case err != nil:
			s.Fatal(err)
		}
		return string(record)
	}
	return say(s.from) + ", " + say(s.to)
}

// What other calls do meanwhile.
var (
	replaceFrom = func(s *renewScene) {
		s.must(s.direct.Replace(s.Context(), s.from, []byte("old"), []byte("changed"), time.Hour))
	}
	renewFrom = func(s *renewScene) {
		s.must(errOf(s.direct.Renew(s.Context(), s.from, newRef(s.to.Subject), []byte("old"), []byte("another"), time.Hour, echosession.Limit{})))
	}
	rotateFrom = func(s *renewScene) {
		s.must(s.direct.Rotate(s.Context(), s.from, newRef(s.from.Subject), []byte("old"), []byte("rotated"), time.Hour, time.Hour))
	}
	deleteFrom = func(s *renewScene) { s.must(s.direct.Delete(s.Context(), s.from)) }
	takeTo     = func(s *renewScene) {
		s.must(errOf(s.direct.Create(s.Context(), s.to, []byte("taken"), time.Hour, echosession.Limit{})))
	}
	deleteTo = func(s *renewScene) { s.must(s.direct.Delete(s.Context(), s.to)) }
	changeTo = func(s *renewScene) {
		s.must(s.direct.Replace(s.Context(), s.to, []byte("new"), []byte("changed"), time.Hour))
	}
	forgetFrom = func(s *renewScene) {
		key, _ := echosession.RedisKeys(s.keyspace, s.from)
		s.must(s.admin.Del(s.Context(), key).Err())
	}
	evictIndexOfTo = func(s *renewScene) {
		_, index := echosession.RedisKeys(s.keyspace, s.to)
		s.must(s.admin.Del(s.Context(), index).Err())
	}
	revokeTo = func(s *renewScene) {
		n, err := s.direct.DeleteSubject(s.Context(), s.to.Subject, nil)
		s.must(err)
		if list, _ := s.direct.List(s.Context(), s.to.Subject); len(list) != 0 || n > 1 {
			s.Errorf("%d sessions revoked, %d left", n, len(list))
		}
	}
	revokeToAndReplaceFrom = func(s *renewScene) { revokeTo(s); replaceFrom(s) }
	fillUp                 = func(s *renewScene) {
		s.must(s.admin.ConfigSet(s.Context(), "maxmemory", "1").Err())
		s.Cleanup(func() { s.admin.ConfigSet(context.Background(), "maxmemory", "0") })
	}
)

var (
	oneSubject  = [2]string{"ada", "ada"}
	twoSubjects = [2]string{"guest", "ada"}
	toNone      = [2]string{"ada", ""}
	fromNone    = [2]string{"", "ada"}
	noSubject   = [2]string{"", ""}
)

const (
	isOK            = "ok"
	isNotFound      = "echosession: record not found"
	isConflict      = "echosession: the session was changed by another writer"
	isRenewed       = "echosession: the session was renewed under another token"
	isUnavailable   = "unavailable"
	isIndeterminate = "indeterminate"
)

var (
	threeSteps  = [][2]string{twoSubjects, toNone, fromNone, noSubject}
	intoSubject = [][2]string{twoSubjects, fromNone}
	everyWay    = append([][2]string{oneSubject}, threeSteps...)
)

// renewAccidents are what may happen during a Renew, and what it then says.
var renewAccidents = []struct {
	name     string
	subjects [][2]string
	at       map[string]accident
	want     string // the kind of the error
	state    string // of from and to afterwards
}{
	{"nothing happens", everyWay, nil, isOK, "renewed, new"},

	// The step that decides.
	{"the reply of the decision is lost", everyWay, map[string]accident{"renew 0": {lose: true}}, isOK, "renewed, new"},
	{"its replies are lost twice", everyWay, map[string]accident{"renew 0": {lose: true}, "renew 1": {lose: true}}, isOK, "renewed, new"},
	{"the decision is not sent once", everyWay, map[string]accident{"renew 0": {drop: true}}, isOK, "renewed, new"},
	{"an update comes first", everyWay, map[string]accident{"renew 0": {before: replaceFrom}}, isConflict, "changed, none"},
	{"an update comes between the attempts", everyWay, map[string]accident{"renew 0": {drop: true, after: replaceFrom}}, isConflict, "changed, none"},
	{"another renewal comes first", everyWay, map[string]accident{"renew 0": {before: renewFrom}}, isRenewed, "renewed, none"},
	{"another renewal comes between the attempts", everyWay, map[string]accident{"renew 0": {drop: true, after: renewFrom}}, isRenewed, "renewed, none"},
	{"a rotation comes first", everyWay, map[string]accident{"renew 0": {before: rotateFrom}}, isConflict, "rotated, none"},
	{"a rotation comes between the attempts", everyWay, map[string]accident{"renew 0": {drop: true, after: rotateFrom}}, isConflict, "rotated, none"},
	{"a logout comes first", everyWay, map[string]accident{"renew 0": {before: deleteFrom}}, isNotFound, "none, none"},
	{"a logout comes between the attempts", threeSteps, map[string]accident{"renew 0": {drop: true, after: deleteFrom}}, isNotFound, "none, none"},
	{"a logout comes between the attempts", [][2]string{oneSubject}, map[string]accident{"renew 0": {drop: true, after: deleteFrom}}, isIndeterminate, "none, none"},
	{"the mark is lost with the reply", threeSteps, map[string]accident{"renew 0": {lose: true, after: forgetFrom}}, isNotFound, "none, none"},
	{"the mark is lost with the reply", [][2]string{oneSubject}, map[string]accident{"renew 0": {lose: true, after: forgetFrom}}, isIndeterminate, "none, new"},

	// The step before.
	{"the reply of the preparation is lost", threeSteps, map[string]accident{"prepare 0": {lose: true}}, isOK, "renewed, new"},
	{"the preparation is not sent once", threeSteps, map[string]accident{"prepare 0": {drop: true}}, isOK, "renewed, new"},
	{"a revocation comes between the attempts", intoSubject, map[string]accident{"prepare 0": {lose: true, after: revokeTo}}, isOK, "renewed, new"},
	{"all replies of the preparation are lost", threeSteps, map[string]accident{
		"prepare 0": {lose: true}, "prepare 1": {lose: true}, "prepare 2": {lose: true}, "prepare 3": {lose: true},
	}, isUnavailable, "old, none"},
	{"the ID is taken, and all replies of the preparation are lost", threeSteps, map[string]accident{
		"prepare 0": {before: takeTo, lose: true}, "prepare 1": {lose: true}, "prepare 2": {lose: true}, "prepare 3": {lose: true},
	}, isUnavailable, "old, taken"},
	{"all replies of the preparation are lost, and those of the withdrawal", threeSteps, map[string]accident{
		"prepare 0": {lose: true}, "prepare 1": {lose: true}, "prepare 2": {lose: true}, "prepare 3": {lose: true},
		"withdraw 0": {drop: true}, "withdraw 1": {drop: true}, "withdraw 2": {drop: true}, "withdraw 3": {drop: true},
	}, isUnavailable, "old, none"},

	// The step after.
	{"the reply of the completion is lost", threeSteps, map[string]accident{"complete 0": {lose: true}}, isOK, "renewed, new"},
	{"the completion is not sent once", threeSteps, map[string]accident{"complete 0": {drop: true}}, isOK, "renewed, new"},
	{"an update of the new session comes between the attempts", threeSteps, map[string]accident{"complete 0": {lose: true, after: changeTo}}, isOK, "renewed, changed"},
	{"a revocation comes before the completion", intoSubject, map[string]accident{"complete 0": {before: revokeTo}}, isNotFound, "renewed, none"},
	{"a revocation comes between the attempts", intoSubject, map[string]accident{"complete 0": {drop: true, after: revokeTo}}, isNotFound, "renewed, none"},
	{"a revocation comes after a completion whose reply is lost", intoSubject, map[string]accident{"complete 0": {lose: true, after: revokeTo}}, isNotFound, "renewed, none"},
	{"the new session is deleted before it is complete", threeSteps, map[string]accident{"complete 0": {before: deleteTo}}, isNotFound, "renewed, none"},
	{"the index is evicted before the completion", intoSubject, map[string]accident{"complete 0": {before: evictIndexOfTo}}, isNotFound, "renewed, none"},
	{"all replies of the completion are lost", threeSteps, map[string]accident{
		"complete 0": {lose: true}, "complete 1": {lose: true}, "complete 2": {lose: true}, "complete 3": {lose: true},
	}, isIndeterminate, "renewed, new"},
	{"the completion is never sent", threeSteps, map[string]accident{
		"complete 0": {drop: true}, "complete 1": {drop: true}, "complete 2": {drop: true}, "complete 3": {drop: true},
	}, isIndeterminate, "renewed, none"},

	// Redis refuses a step. The old session has ended before the last one.
	{"the preparation is refused", threeSteps, map[string]accident{"prepare 0": {refuse: true}}, isUnavailable, "old, none"},
	{"the decision is refused", everyWay, map[string]accident{"renew 0": {refuse: true}}, isUnavailable, "old, none"},
	{"the completion is refused", threeSteps, map[string]accident{"complete 0": {refuse: true}}, isIndeterminate, "renewed, none"},

	// Refused and revoked at the same time: nobody may try again.
	{"a revocation and an update come first", intoSubject, map[string]accident{"renew 0": {before: revokeToAndReplaceFrom}}, isNotFound, "changed, none"},
	{"the reply of the withdrawal is lost", threeSteps, map[string]accident{
		"renew 0": {before: replaceFrom}, "withdraw 0": {lose: true},
	}, isUnavailable, "changed, none"},
	{"the withdrawal is not sent once", threeSteps, map[string]accident{
		"renew 0": {before: replaceFrom}, "withdraw 0": {drop: true},
	}, isConflict, "changed, none"},
	{"the withdrawal is never sent", threeSteps, map[string]accident{
		"renew 0": {before: replaceFrom}, "withdraw 0": {drop: true}, "withdraw 1": {drop: true}, "withdraw 2": {drop: true}, "withdraw 3": {drop: true},
	}, isUnavailable, "changed, none"},
}

// Whatever is lost on the way, and whatever others do between the steps: what Renew says
// of the two sessions is true.
func TestRenewStepByStep(t *testing.T) {
	for _, tt := range renewAccidents {
		for _, subjects := range tt.subjects {
			t.Run(fmt.Sprintf("%s, %q", tt.name, subjects), func(t *testing.T) {
				t.Parallel()
				s := newRenewScene(t, redistest.Shared(t), subjects, tt.at)
				err := s.renew(echosession.Limit{})
				if kind := kindOf(err); kind != tt.want {
					t.Errorf("%s (%s), want %s", kind, causes(err), tt.want)
				}
				if got := s.state(); got != tt.state {
					t.Errorf("from and to: %s, want %s", got, tt.state)
				}
				for at := range tt.at {
					name, _, _ := strings.Cut(at, " ")
					if !strings.Contains(strings.Join(s.sent, " "), name) {
						t.Errorf("%s was never sent: %q", name, s.sent)
					}
				}
				redistest.AssertNoKeyWithoutTTL(t, s.admin, s.keyspace)
			})
		}
	}
}

// Renew returns the IDs of the sessions that gave way, also when a step has to be sent again.
// Where the reply that names them is lost, it does not know them.
func TestRenewKnowsWhatGaveWay(t *testing.T) {
	for _, tt := range []struct {
		name string
		at   map[string]accident
		told bool
	}{
		{"nothing happens", nil, true},
		{"the reply of the decision is lost", map[string]accident{"renew 0": {lose: true}}, true},
		{"the completion is not sent once", map[string]accident{"complete 0": {drop: true}}, true},
		{"the reply of the completion is lost", map[string]accident{"complete 0": {lose: true}}, false},
	} {
		for _, subjects := range intoSubject {
			t.Run(fmt.Sprintf("%s, %q", tt.name, subjects), func(t *testing.T) {
				t.Parallel()
				s := newRenewScene(t, redistest.Shared(t), subjects, tt.at)
				refs := []echosession.Ref{newRef("ada"), newRef("ada"), newRef("ada")}
				for _, ref := range refs {
					mustCreate(t, s.direct, ref, "r", time.Hour)
				}
				evicted, err := s.store.Renew(t.Context(), s.from, s.to, []byte("old"), []byte("new"), time.Hour, echosession.Limit{Sessions: 2})
				if n, countErr := s.direct.Count(t.Context(), "ada"); err != nil || n != 2 || countErr != nil {
					t.Errorf("%v; %d sessions are left, %v", err, n, countErr)
				}
				if tt.told {
					checkEvicted(t, evicted, refs[:2])
				} else if evicted != nil {
					t.Errorf("%q are returned, and the reply was lost", evicted)
				}
			})
		}
	}
}

// When the process dies between two steps, nobody finds the new session, and nothing that
// is left of the steps lives longer than a minute, whatever is tried with it.
func TestRenewThatBreaksOff(t *testing.T) {
	for _, subjects := range [][2]string{oneSubject, twoSubjects, toNone, fromNone, noSubject} {
		for after, state := range map[string]string{"prepare": "old, none", "renew": "renewed, none", "complete": "renewed, new"} {
			if subjects == oneSubject {
				if after != "renew" {
					continue
				}
				state = "renewed, new"
			}
			t.Run(fmt.Sprintf("after %s, %q", after, subjects), func(t *testing.T) {
				t.Parallel()
				s := newRenewScene(t, redistest.Shared(t), subjects, map[string]accident{after + " 0": {last: true}})
				if err := s.renew(echosession.Limit{}); (err != nil) != (after == "prepare" || after == "renew" && subjects != oneSubject) {
					t.Errorf("%v", err)
				}
				if last := s.sent[len(s.sent)-1]; last != after {
					t.Fatalf("%q were sent", s.sent)
				}
				for range 2 {
					if got := s.state(); got != state {
						t.Errorf("from and to: %s, want %s", got, state)
					}
					for _, ref := range []echosession.Ref{s.from, s.to} {
						_, _ = s.direct.Load(t.Context(), ref, 24*time.Hour)
						_ = s.direct.Touch(t.Context(), ref, 24*time.Hour)
						_ = s.direct.Replace(t.Context(), ref, []byte("x"), []byte("y"), 24*time.Hour)
						_, _ = s.direct.Check(t.Context(), ref)
					}
				}
				for _, ref := range []echosession.Ref{s.from, s.to} {
					key, _ := echosession.RedisKeys(s.keyspace, ref)
					value, left := s.admin.Get(t.Context(), key).Val(), s.admin.PTTL(t.Context(), key).Val()
					if strings.HasPrefix(value, "\xc1") && (left <= 50*time.Second || left > time.Minute) {
						t.Errorf("%q lives for %v", value[73:], left)
					}
				}
				redistest.AssertNoKeyWithoutTTL(t, s.admin, s.keyspace)
			})
		}
	}
}

// A caller that goes away before the decision leaves no pending session, which would take
// a place.
func TestACallerThatGoesAwayTakesNoPlace(t *testing.T) {
	for _, subjects := range [][2]string{twoSubjects, toNone, fromNone, noSubject} {
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprintf("%q, the reply is lost: %v", subjects, lost), func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				s := newRenewScene(t, redistest.Shared(t), subjects, map[string]accident{
					"prepare 0": {after: func(*renewScene) { cancel() }, lose: lost},
				})
				full := echosession.Limit{Sessions: 1, WhenFull: echosession.RefuseNew}
				_, err := s.store.Renew(ctx, s.from, s.to, []byte("old"), []byte("new"), time.Hour, full)
				if !errors.Is(err, echosession.ErrStoreUnavailable) || errors.Is(err, echosession.ErrIndeterminate) {
					t.Errorf("%v, want ErrStoreUnavailable", err)
				}
				key, _ := echosession.RedisKeys(s.keyspace, s.to)
				if n := s.admin.Exists(t.Context(), key).Val(); n != 0 {
					t.Error("the pending session is there")
				}
				if got := s.state(); got != "old, none" {
					t.Errorf("from and to: %s", got)
				}
				s.must(errOf(s.direct.Create(t.Context(), newRef(subjects[1]), []byte("r"), time.Hour, full)))
			})
		}
	}
}

// After a minute nothing is left of a Renew that broke off, but what is alive.
func TestAMinuteAfterARenewThatBrokeOff(t *testing.T) {
	for _, subjects := range [][2]string{twoSubjects, toNone, fromNone, noSubject} {
		for stop, sessions := range map[int]int{1: 1, 2: 0} {
			t.Run(fmt.Sprintf("after step %d, %q", stop, subjects), func(t *testing.T) {
				clock, fake := newClock(), newFakeRedis(t)
				fake.now = clock.Now
				store := newRedisStore(t, fake, "test:")
				from, to := newRef(subjects[0]), newRef(subjects[1])
				mustCreate(t, store, from, "old", time.Hour)
				steps := 0
				fake.onCommand(func(cmd []string) error {
					if cmd[0] == "evalsha" {
						steps++
					}
					if steps > stop {
						return fakeReply("NOPERM")
					}
					return nil
				}, nil)
				if _, err := store.Renew(t.Context(), from, to, []byte("old"), []byte("new"), time.Hour, echosession.Limit{}); !errors.Is(err, echosession.ErrStoreUnavailable) {
					t.Errorf("%v", err)
				}
				fake.onCommand(nil, nil)
				clock.Advance(time.Minute)
				found := 0
				for _, err := range store.Scan(t.Context()) {
					if err != nil {
						t.Fatal(err)
					}
					found++
				}
				if found != sessions {
					t.Errorf("%d sessions are left, want %d", found, sessions)
				}
				want := 0
				if sessions == 1 {
					want = 1
					if subjects[0] != "" {
						want = 2 // the index
					}
				}
				if keys := fake.keys(); len(keys) != want {
					t.Errorf("%q are left", keys)
				}
			})
		}
	}
}

// Nobody sees a session before it is complete, and whoever revokes the sessions of its
// subject ends it, but does not count it.
func TestNobodySeesAPendingSession(t *testing.T) {
	for _, subjects := range [][2]string{twoSubjects, fromNone, toNone, noSubject} {
		t.Run(fmt.Sprintf("%q", subjects), func(t *testing.T) {
			looked := false
			look := func(s *renewScene) {
				looked = true
				ctx := t.Context()
				for _, ttl := range []time.Duration{0, time.Hour} {
					_, err := s.direct.Load(ctx, s.to, ttl)
					wantNotFound(t, "Load", err)
				}
				_, err := s.direct.Check(ctx, s.to)
				wantNotFound(t, "Check", err)
				wantNotFound(t, "Touch", s.direct.Touch(ctx, s.to, time.Hour))
				wantNotFound(t, "Replace", s.direct.Replace(ctx, s.to, []byte("new"), []byte("x"), time.Hour))
				wantNotFound(t, "Rotate", s.direct.Rotate(ctx, s.to, newRef(s.to.Subject), []byte("new"), []byte("x"), time.Hour, 0))
				wantNotFound(t, "Renew", errOf(s.direct.Renew(ctx, s.to, newRef(s.to.Subject), []byte("new"), []byte("x"), time.Hour, echosession.Limit{})))
				if _, err := s.direct.Create(ctx, s.to, []byte("x"), time.Hour, echosession.Limit{}); !errors.Is(err, echosession.ErrConflict) {
					t.Errorf("Create: %v", err)
				}
				list, err := s.direct.List(ctx, s.to.Subject)
				n, countErr := s.direct.Count(ctx, s.to.Subject)
				if len(list) != 0 || n != 0 || err != nil || countErr != nil {
					t.Errorf("%d listed, %d counted, %v, %v", len(list), n, err, countErr)
				}
				for entry, err := range s.direct.Scan(ctx) {
					if err != nil || string(entry.Record) != "old" && s.sent[len(s.sent)-1] == "renew" {
						t.Errorf("Scan: %q, %v", entry.Record, err)
					}
				}
			}
			s := newRenewScene(t, redistest.Shared(t), subjects, map[string]accident{"renew 0": {before: look}})
			s.must(s.renew(echosession.Limit{}))
			if got := s.state(); !looked || got != "renewed, new" {
				t.Errorf("from and to: %s", got)
			}
			if subjects[1] == "" {
				return
			}
			s = newRenewScene(t, redistest.Shared(t), subjects, map[string]accident{"renew 0": {before: func(s *renewScene) {
				if n, err := s.direct.DeleteSubject(t.Context(), s.to.Subject, nil); n != 0 || err != nil {
					t.Errorf("DeleteSubject: %d, %v, want 0", n, err)
				}
			}}})
			wantNotFound(t, "Renew into a subject that was revoked", s.renew(echosession.Limit{}))
			if got := s.state(); got != "renewed, none" {
				t.Errorf("from and to: %s", got)
			}
		})
	}
}

func wantNotFound(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, echosession.ErrNotFound) {
		t.Errorf("%s: %v, want ErrNotFound", what, err)
	}
}

// A pending session takes the room that it will need under RefuseNew, and makes no
// session give way before it is complete.
func TestThePlaceOfAPendingSession(t *testing.T) {
	create := func(s *renewScene, limit echosession.Limit) error {
		return errOf(s.direct.Create(t.Context(), newRef(s.to.Subject), []byte("another"), time.Hour, limit))
	}
	count := func(s *renewScene, want int) {
		t.Helper()
		if n, err := s.direct.Count(t.Context(), s.to.Subject); n != want || err != nil {
			t.Errorf("%d sessions, %v, want %d", n, err, want)
		}
	}
	t.Run("RefuseNew", func(t *testing.T) {
		full := echosession.Limit{Sessions: 1, WhenFull: echosession.RefuseNew}
		s := newRenewScene(t, redistest.Shared(t), fromNone, map[string]accident{"renew 0": {before: func(s *renewScene) {
			if err := create(s, full); !errors.Is(err, echosession.ErrTooManySessions) {
				t.Errorf("Create: %v, want ErrTooManySessions", err)
			}
		}}})
		s.must(s.renew(full))
		count(s, 1)
	})
	t.Run("EvictOldest", func(t *testing.T) {
		two := echosession.Limit{Sessions: 2}
		s := newRenewScene(t, redistest.Shared(t), fromNone, map[string]accident{"renew 0": {before: func(s *renewScene) {
			s.must(create(s, two))
			s.must(create(s, two))
			count(s, 2)
			replaceFrom(s) // so it is never completed
		}}})
		if err := s.renew(two); !errors.Is(err, echosession.ErrConflict) {
			t.Errorf("%v, want ErrConflict", err)
		}
		count(s, 2)
	})
	t.Run("the login is the newest", func(t *testing.T) {
		one := echosession.Limit{Sessions: 1}
		s := newRenewScene(t, redistest.Shared(t), fromNone, map[string]accident{"renew 0": {before: func(s *renewScene) {
			s.must(create(s, one))
		}}})
		s.must(s.renew(one))
		count(s, 1)
		if got := s.state(); got != "renewed, new" {
			t.Errorf("from and to: %s", got)
		}
	})
	t.Run("the last place is taken by another renewal of the session", func(t *testing.T) {
		full := echosession.Limit{Sessions: 1, WhenFull: echosession.RefuseNew}
		s := newRenewScene(t, redistest.Shared(t), fromNone, map[string]accident{"prepare 0": {before: renewFrom}})
		if err := s.renew(full); !errors.Is(err, echosession.ErrRenewed) {
			t.Errorf("%v, want ErrRenewed", err)
		}
		count(s, 1)
	})
}

// When the old session has ended, the new one comes even if Redis is full by then. A Renew
// that finds Redis full at the beginning changes nothing.
func TestRenewOnAFullServer(t *testing.T) {
	for _, subjects := range [][2]string{oneSubject, twoSubjects, toNone, fromNone, noSubject} {
		for at, want := range map[string]string{"prepare": "old, none", "renew": "old, none", "complete": "renewed, new"} {
			if subjects == oneSubject && at != "renew" {
				continue
			}
			t.Run(fmt.Sprintf("before %s, %q", at, subjects), func(t *testing.T) {
				t.Parallel()
				s := newRenewScene(t, redistest.Start(t), subjects, map[string]accident{at + " 0": {before: fillUp}})
				if err := s.renew(echosession.Limit{}); (err != nil) == (at == "complete") || errors.Is(err, echosession.ErrIndeterminate) {
					t.Errorf("%v (%s)", err, causes(err))
				}
				if got := s.state(); got != want {
					t.Errorf("from and to: %s, want %s", got, want)
				}
			})
		}
	}
}

// With WaitReplicas, a Renew of which the replicas did not hear leaves one session: the
// old one before the decision, the new one after the last step, and none between.
func TestRenewWaitsForReplicas(t *testing.T) {
	for _, tt := range []struct {
		subjects [2]string
		lag      int // the write that the replica does not confirm
		want     error
		state    string
	}{
		{oneSubject, 9, nil, "renewed, new"},
		{oneSubject, 1, echosession.ErrNotReplicated, "renewed, new"},
		{twoSubjects, 9, nil, "renewed, new"},
		{twoSubjects, 1, echosession.ErrStoreUnavailable, "old, none"},
		{twoSubjects, 2, echosession.ErrNotReplicated, "renewed, none"},
		{twoSubjects, 3, echosession.ErrNotReplicated, "renewed, new"},
		{noSubject, 1, echosession.ErrStoreUnavailable, "old, none"},
		{noSubject, 2, echosession.ErrNotReplicated, "renewed, none"},
		{noSubject, 3, echosession.ErrNotReplicated, "renewed, new"},
	} {
		t.Run(fmt.Sprintf("write %d, %q", tt.lag, tt.subjects), func(t *testing.T) {
			t.Parallel()
			primary := redistest.Start(t)
			replica := replicaOf(t, primary)
			client := primary.Client(t)
			loadScripts(t, client)
			writes := &countWrites{at: tt.lag, do: func() { replica.Pause(t) }}
			client.AddHook(writes)
			store, err := echosession.NewRedisStore(client, echosession.RedisOptions{Keyspace: "test:", WaitReplicas: 1})
			if err != nil {
				t.Fatal(err)
			}
			s := &renewScene{T: t, direct: newRedisStore(t, primary.Client(t), "test:"), from: newRef(tt.subjects[0]), to: newRef(tt.subjects[1])}
			mustCreate(t, s.direct, s.from, "old", time.Hour)
			// Replicas that started together on a busy machine take their time.
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_, err = store.Renew(ctx, s.from, s.to, []byte("old"), []byte("new"), time.Hour, echosession.Limit{})
			replica.Resume(t)
			if !errors.Is(err, tt.want) || errors.Is(err, echosession.ErrNotReplicated) != (tt.want == echosession.ErrNotReplicated) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			if got := s.state(); got != tt.state {
				t.Errorf("from and to: %s, want %s", got, tt.state)
			}
		})
	}
}

// countWrites does something before one of the pipelines that a client sends.
type countWrites struct {
	at, sent int
	do       func()
}

func (c *countWrites) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (c *countWrites) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (c *countWrites) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if cmds[0].Name() == "evalsha" {
			if c.sent++; c.sent == c.at {
				c.do()
			}
		}
		return next(ctx, cmds)
	}
}

// A session that is missing in its subject's index is gone: who revoked the subject's
// sessions could not find it. Check says so, and Renew carries nothing on.
func TestASessionThatIsNotIndexedIsGone(t *testing.T) {
	for _, subjects := range [][2]string{oneSubject, twoSubjects, toNone} {
		t.Run(fmt.Sprintf("%q", subjects), func(t *testing.T) {
			s := newRenewScene(t, redistest.Shared(t), subjects, nil)
			_, index := echosession.RedisKeys(s.keyspace, s.from)
			s.must(s.admin.ZRem(t.Context(), index, s.from.ID).Err())
			_, err := s.store.Check(t.Context(), s.from)
			wantNotFound(t, "Check", err)
			if n, err := s.store.Count(t.Context(), s.from.Subject); n != 0 || err != nil {
				t.Errorf("Count: %d, %v", n, err)
			}
			wantNotFound(t, "Renew", s.renew(echosession.Limit{}))
			if got := s.state(); got != "none, none" {
				t.Errorf("from and to: %s", got)
			}
		})
	}
}
