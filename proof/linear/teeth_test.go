package linear_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/proof/linear"
)

// mutants are stores with a defect each.
var mutants = []struct {
	defect string
	wrap   func(echosession.Store) echosession.Store
	grace  bool
}{
	{"Replace re-creates what is missing", func(s echosession.Store) echosession.Store { return recreating{s} }, true},
	{"Replace ignores who wrote last", func(s echosession.Store) echosession.Store { return overwriting{s} }, true},
	{"a write whose reply was lost is done once more", func(s echosession.Store) echosession.Store { return repeating{s} }, true},
	{"a write that was done is reported as refused", func(s echosession.Store) echosession.Store { return denying{s} }, true},
	{"a Create whose reply was lost is done once more", func(s echosession.Store) echosession.Store { return reviving{s} }, true},
	{"Rotate ignores who wrote last", func(s echosession.Store) echosession.Store { return rotatingBlindly{s} }, true},
	{"Rotate leaves the old session where it is", func(s echosession.Store) echosession.Store { return copying{s} }, false},
	{"Delete does not follow a rotation", func(s echosession.Store) echosession.Store { return deletingPointers{s} }, true},
	{"Load serves what was", func(s echosession.Store) echosession.Store { return &remembering{Store: s} }, true},
	{"Renew ignores who wrote last", func(s echosession.Store) echosession.Store { return renewingBlindly{s} }, true},
	{"Renew leaves the old session where it is", func(s echosession.Store) echosession.Store { return duplicating{s} }, false},
	{"Renew lets what was rotated before lead to the login", func(s echosession.Store) echosession.Store { return &leading{renewals: renewals{Store: s}} }, true},
	{"Renew brings a revoked session back", func(s echosession.Store) echosession.Store { return resurrecting{s} }, true},
	{"Renew that was refused ends the session", func(s echosession.Store) echosession.Store { return losing{s} }, true},
	{"Renew that was refused leaves the next session", func(s echosession.Store) echosession.Store { return leaving{s} }, true},
	{"a Renew whose reply was lost is done once more", func(s echosession.Store) echosession.Store { return renewingTwice{s} }, true},
	{"Delete follows the mark of a Renew", func(s echosession.Store) echosession.Store { return &deletingLogins{renewals{Store: s}} }, true},
	{"Replace writes to what was renewed, and says that it did", func(s echosession.Store) echosession.Store { return writingBehind{s} }, true},
	{"Touch and Check find what was renewed", func(s echosession.Store) echosession.Store { return overlooking{s} }, true},
	{"the mark of a Renew says that there is no session", func(s echosession.Store) echosession.Store { return unmarked{s} }, true},
}

// TestCatchesDefects shows that the check finds what it looks for.
func TestCatchesDefects(t *testing.T) {
	for _, m := range mutants {
		t.Run(m.defect, func(t *testing.T) {
			t.Parallel()
			const attempts = 200
			for seed := range uint64(attempts) {
				tr := newTrial(seed, false)
				tr.grace, tr.indexed, tr.wrap = m.grace, true, m.wrap
				w := tr.workload(t, backends[0], &farm{})
				w.Watches = false
				outcome := w.Run(t.Context())
				if len(outcome.Errors) > 0 {
					t.Logf("caught in history %d: %v", seed+1, outcome.Errors[0])
					return
				}
				if !outcome.Linearizable(m.grace) {
					t.Logf("caught in history %d", seed+1)
					return
				}
			}
			t.Errorf("not caught in %d histories", attempts)
		})
	}
}

type recreating struct{ echosession.Store }

func (s recreating) Replace(ctx context.Context, ref echosession.Ref, old, record []byte, ttl time.Duration) error {
	err := s.Store.Replace(ctx, ref, old, record, ttl)
	if errors.Is(err, echosession.ErrNotFound) {
		_, err = s.Store.Create(ctx, ref, record, ttl, echosession.Limit{})
	}
	return err
}

type overwriting struct{ echosession.Store }

func (s overwriting) Replace(ctx context.Context, ref echosession.Ref, _, record []byte, ttl time.Duration) error {
	old, err := s.Load(ctx, ref, 0)
	if err != nil {
		return err
	}
	return s.Store.Replace(ctx, ref, old, record, ttl)
}

// repeating loses some replies and takes what its own write did for another's.
type repeating struct{ echosession.Store }

func (s repeating) Replace(ctx context.Context, ref echosession.Ref, old, record []byte, ttl time.Duration) error {
	err := s.Store.Replace(ctx, ref, old, record, ttl)
	if err == nil && rand.IntN(10) == 0 {
		return s.Store.Replace(ctx, ref, old, record, ttl)
	}
	return err
}

type denying struct{ echosession.Store }

func (s denying) Replace(ctx context.Context, ref echosession.Ref, old, record []byte, ttl time.Duration) error {
	err := s.Store.Replace(ctx, ref, old, record, ttl)
	if err == nil && rand.IntN(10) == 0 {
		return echosession.ErrStoreUnavailable
	}
	return err
}

type reviving struct{ echosession.Store }

func (s reviving) Create(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
	if evicted, err := s.Store.Create(ctx, ref, record, ttl, limit); err != nil {
		return evicted, err
	}
	time.Sleep(3 * time.Millisecond)
	return s.Store.Create(ctx, ref, record, ttl, limit)
}

type rotatingBlindly struct{ echosession.Store }

func (s rotatingBlindly) Rotate(ctx context.Context, from, to echosession.Ref, _, record []byte, ttl, grace time.Duration) error {
	old, err := s.Load(ctx, from, 0)
	if err != nil {
		return err
	}
	return s.Store.Rotate(ctx, from, to, old, record, ttl, grace)
}

type copying struct{ echosession.Store }

func (s copying) Rotate(ctx context.Context, _, to echosession.Ref, _, record []byte, ttl, _ time.Duration) error {
	_, err := s.Create(ctx, to, record, ttl, echosession.Limit{})
	return err
}

type deletingPointers struct{ echosession.Store }

func (s deletingPointers) Delete(ctx context.Context, ref echosession.Ref) error {
	_, err := s.Load(ctx, ref, 0)
	if _, rotated := errors.AsType[*echosession.RotatedError](err); rotated {
		return nil
	}
	return s.Store.Delete(ctx, ref)
}

type renewingBlindly struct{ echosession.Store }

func (s renewingBlindly) Renew(ctx context.Context, from, to echosession.Ref, _, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
	old, err := s.Load(ctx, from, 0)
	if err != nil {
		return nil, err
	}
	return s.Store.Renew(ctx, from, to, old, record, ttl, limit)
}

type duplicating struct{ echosession.Store }

func (s duplicating) Renew(ctx context.Context, _, to echosession.Ref, _, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
	return s.Create(ctx, to, record, ttl, limit)
}

// renewals remembers where every Renew led.
type renewals struct {
	echosession.Store
	mu sync.Mutex
	to map[string]echosession.Ref
}

func (s *renewals) Renew(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
	evicted, err := s.Store.Renew(ctx, from, to, old, record, ttl, limit)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.to == nil {
			s.to = make(map[string]echosession.Ref)
		}
		s.to[from.ID] = to
	}
	return evicted, err
}

func (s *renewals) of(id string) (to echosession.Ref, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	to, ok = s.to[id]
	return to, ok
}

type leading struct{ renewals }

func (s *leading) Load(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
	record, err := s.Store.Load(ctx, ref, ttl)
	if rotated, ok := errors.AsType[*echosession.RotatedError](err); ok {
		if to, ok := s.of(rotated.To); ok && to.Subject == ref.Subject {
			return nil, &echosession.RotatedError{To: to.ID}
		}
	}
	return record, err
}

type resurrecting struct{ echosession.Store }

func (s resurrecting) Renew(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
	evicted, err := s.Store.Renew(ctx, from, to, old, record, ttl, limit)
	if errors.Is(err, echosession.ErrNotFound) {
		return s.Create(ctx, to, record, ttl, limit)
	}
	return evicted, err
}

type losing struct{ echosession.Store }

func (s losing) Renew(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
	evicted, err := s.Store.Renew(ctx, from, to, old, record, ttl, limit)
	if errors.Is(err, echosession.ErrConflict) {
		_ = s.Delete(ctx, from)
	}
	return evicted, err
}

type leaving struct{ echosession.Store }

func (s leaving) Renew(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
	evicted, err := s.Store.Renew(ctx, from, to, old, record, ttl, limit)
	if errors.Is(err, echosession.ErrConflict) {
		_, _ = s.Create(ctx, to, record, ttl, limit)
	}
	return evicted, err
}

// renewingTwice loses some replies, and the next attempt meets its own mark.
type renewingTwice struct{ echosession.Store }

func (s renewingTwice) Renew(ctx context.Context, from, to echosession.Ref, old, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
	evicted, err := s.Store.Renew(ctx, from, to, old, record, ttl, limit)
	if err == nil && rand.IntN(10) == 0 {
		return s.Store.Renew(ctx, from, to, old, record, ttl, limit)
	}
	return evicted, err
}

type deletingLogins struct{ renewals }

func (s *deletingLogins) Delete(ctx context.Context, ref echosession.Ref) error {
	err := s.Store.Delete(ctx, ref)
	if to, ok := s.of(ref.ID); ok && errors.Is(err, echosession.ErrRenewed) {
		return s.Store.Delete(ctx, to)
	}
	return err
}

type writingBehind struct{ echosession.Store }

func (s writingBehind) Replace(ctx context.Context, ref echosession.Ref, old, record []byte, ttl time.Duration) error {
	err := s.Store.Replace(ctx, ref, old, record, ttl)
	if errors.Is(err, echosession.ErrRenewed) {
		return nil
	}
	return err
}

type overlooking struct{ echosession.Store }

func (s overlooking) Touch(ctx context.Context, ref echosession.Ref, ttl time.Duration) error {
	err := s.Store.Touch(ctx, ref, ttl)
	if errors.Is(err, echosession.ErrRenewed) {
		return nil
	}
	return err
}

func (s overlooking) Check(ctx context.Context, ref echosession.Ref) (time.Duration, error) {
	left, err := s.Store.Check(ctx, ref)
	if errors.Is(err, echosession.ErrRenewed) {
		return time.Minute, nil
	}
	return left, err
}

type unmarked struct{ echosession.Store }

func (s unmarked) Load(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
	record, err := s.Store.Load(ctx, ref, ttl)
	if errors.Is(err, echosession.ErrRenewed) {
		return nil, echosession.ErrNotFound
	}
	return record, err
}

// remembering keeps what it loaded for a millisecond.
type remembering struct {
	echosession.Store
	mu     sync.Mutex
	loaded map[echosession.Ref]cached
}

type cached struct {
	record []byte
	until  time.Time
}

func (s *remembering) Load(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.loaded[ref]; time.Now().Before(c.until) {
		return c.record, nil
	}
	record, err := s.Store.Load(ctx, ref, ttl)
	if err == nil {
		if s.loaded == nil {
			s.loaded = make(map[echosession.Ref]cached)
		}
		s.loaded[ref] = cached{record, time.Now().Add(time.Millisecond)}
	}
	return record, err
}

// step is an operation of a history in TestModel.
type step struct {
	kind     linear.Kind
	token    int
	login    int // that the token comes from; 0 is the Create
	subject  string
	result   linear.Result
	count    int // seen
	writer   int
	parallel bool // with the one before
	same     bool // it has the number of the one before
	ticket   int  // of a Redeem or a Waste
}

const gone, renewed, unknown = linear.Gone, linear.Renewed, linear.Unknown

var rules = []struct {
	rule    string
	noGrace bool
	ops     []step // after the Create, whose number is 1; they are numbered from 2
	want    bool
}{
	{rule: "an update is read", want: true, ops: []step{
		{kind: linear.Update, token: 1, writer: 1}, {kind: linear.Read, token: 1, count: 1, writer: 2}}},
	{rule: "an update is not lost", want: false, ops: []step{
		{kind: linear.Update, token: 1, writer: 1}, {kind: linear.Read, token: 1, count: 0, writer: 1}}},
	{rule: "a read beside an update sees either", want: true, ops: []step{
		{kind: linear.Update, token: 1, writer: 1}, {kind: linear.Read, token: 1, count: 0, writer: 1, parallel: true}}},
	{rule: "two updates do not start from one state", want: false, ops: []step{
		{kind: linear.Update, token: 1, writer: 1}, {kind: linear.Update, token: 1, writer: 1, parallel: true}}},
	{rule: "an unknown update may take effect later", want: true, ops: []step{
		{kind: linear.Update, token: 1, writer: 1, result: unknown},
		{kind: linear.Read, token: 1, writer: 1},
		{kind: linear.Read, token: 1, count: 1, writer: 2}}},
	{rule: "an unknown update does not take effect twice", want: false, ops: []step{
		{kind: linear.Update, token: 1, writer: 1, result: unknown},
		{kind: linear.Read, token: 1, count: 2, writer: 2}}},
	{rule: "an effect is not undone", want: false, ops: []step{
		{kind: linear.Update, token: 1, writer: 1, result: unknown},
		{kind: linear.Read, token: 1, count: 1, writer: 2},
		{kind: linear.Read, token: 1, writer: 1}}},
	{rule: "a destroyed session is gone", want: true, ops: []step{
		{kind: linear.Destroy, token: 1}, {kind: linear.Update, token: 1, result: gone}, {kind: linear.Destroy, token: 1}}},
	{rule: "a destroyed session does not come back", want: false, ops: []step{
		{kind: linear.Destroy, token: 1}, {kind: linear.Update, token: 1, writer: 1}}},
	{rule: "a live session is not gone", want: false, ops: []step{{kind: linear.Touch, token: 1, result: gone}}},
	{rule: "the old token leads to the data during the grace", want: true, ops: []step{
		{kind: linear.Rotate, token: 1},
		{kind: linear.Update, token: 1, writer: 1}, {kind: linear.Read, token: 2, count: 1, writer: 3}}},
	{rule: "without a grace the old token leads nowhere", noGrace: true, want: false, ops: []step{
		{kind: linear.Rotate, token: 1}, {kind: linear.Read, token: 1, writer: 1}}},
	{rule: "without a grace the old token destroys nothing", noGrace: true, want: true, ops: []step{
		{kind: linear.Rotate, token: 1}, {kind: linear.Destroy, token: 1}, {kind: linear.Read, token: 2, writer: 1}}},
	{rule: "a token is not rotated twice", want: false, ops: []step{
		{kind: linear.Rotate, token: 1}, {kind: linear.Rotate, token: 1}}},
	{rule: "whoever rotates second is told that it is gone", want: true, ops: []step{
		{kind: linear.Rotate, token: 1}, {kind: linear.Rotate, token: 1, result: gone}}},
	{rule: "the old token destroys during the grace", want: false, ops: []step{
		{kind: linear.Rotate, token: 1}, {kind: linear.Destroy, token: 1}, {kind: linear.Touch, token: 2}}},

	{rule: "a renewal keeps a guest's data", want: true, ops: []step{
		{kind: linear.Update, token: 1, writer: 1}, {kind: linear.Renew, token: 1, count: 1, writer: 2, subject: "alice"},
		{kind: linear.Read, token: 3, login: 3, count: 2, writer: 3}}},
	{rule: "an update before a renewal is in it", want: false, ops: []step{
		{kind: linear.Update, token: 1, writer: 1}, {kind: linear.Renew, token: 1, writer: 1, subject: "alice"}}},
	{rule: "one user's data is not for another", want: false, ops: []step{
		{kind: linear.Renew, token: 1, writer: 1, subject: "alice"},
		{kind: linear.Renew, token: 2, login: 2, count: 1, writer: 2, subject: "bob"}}},
	{rule: "another user begins with nothing", want: true, ops: []step{
		{kind: linear.Renew, token: 1, writer: 1, subject: "alice"},
		{kind: linear.Renew, token: 2, login: 2, subject: "bob"},
		{kind: linear.Read, token: 3, login: 3, count: 1, writer: 3}}},
	{rule: "a program without subjects keeps the data", want: true, ops: []step{
		{kind: linear.Renew, token: 1, writer: 1},
		{kind: linear.Renew, token: 2, login: 2, count: 1, writer: 2}}},
	{rule: "the token from before is told of the renewal", want: true, ops: []step{
		{kind: linear.Renew, token: 1, writer: 1},
		{kind: linear.Read, token: 1, result: renewed}, {kind: linear.Update, token: 1, result: renewed},
		{kind: linear.Touch, token: 1, result: renewed}, {kind: linear.Destroy, token: 1, result: renewed},
		{kind: linear.Rotate, token: 1, result: renewed}, {kind: linear.Renew, token: 1, result: renewed}}},
	{rule: "the token from before reads nothing", want: false, ops: []step{
		{kind: linear.Renew, token: 1, writer: 1}, {kind: linear.Read, token: 1, count: 1, writer: 2}}},
	{rule: "the token from before is not gone", want: false, ops: []step{
		{kind: linear.Renew, token: 1, writer: 1}, {kind: linear.Read, token: 1, result: gone}}},
	{rule: "the token from before writes nothing", want: false, ops: []step{
		{kind: linear.Renew, token: 1, writer: 1}, {kind: linear.Update, token: 1, writer: 1}}},
	{rule: "the token from before does not end the login", want: false, ops: []step{
		{kind: linear.Renew, token: 1, writer: 1}, {kind: linear.Destroy, token: 1}}},
	{rule: "a login with the token from before leaves the renewed session", want: true, ops: []step{
		{kind: linear.Renew, token: 1, writer: 1}, {kind: linear.Leave, token: 1}, {kind: linear.Touch, token: 2, login: 2}}},
	{rule: "a session that is not renewed is not said to be", want: false, ops: []step{
		{kind: linear.Read, token: 1, result: renewed}}},
	{rule: "a destroyed session is not renewed", want: false, ops: []step{
		{kind: linear.Destroy, token: 1}, {kind: linear.Renew, token: 1, writer: 1}}},
	{rule: "a session that is destroyed after its renewal was renewed", want: true, ops: []step{
		{kind: linear.Renew, token: 1, writer: 1}, {kind: linear.Destroy, token: 2, login: 2},
		{kind: linear.Read, token: 2, login: 2, result: gone}, {kind: linear.Read, token: 1, result: renewed}}},
	{rule: "a token that was rotated away does not lead to the login", want: false, ops: []step{
		{kind: linear.Rotate, token: 1}, {kind: linear.Renew, token: 2, writer: 1}, {kind: linear.Read, token: 1, count: 1, writer: 3}}},
	{rule: "a token that was rotated away is told of the renewal", want: true, ops: []step{
		{kind: linear.Rotate, token: 1}, {kind: linear.Renew, token: 2, writer: 1}, {kind: linear.Read, token: 1, result: renewed}}},
	{rule: "a token that was rotated away renews the session", want: true, ops: []step{
		{kind: linear.Rotate, token: 1}, {kind: linear.Renew, token: 1, writer: 1}, {kind: linear.Rotate, token: 2, result: renewed}}},
	{rule: "without a grace a token that was rotated away renews nothing", noGrace: true, want: false, ops: []step{
		{kind: linear.Rotate, token: 1}, {kind: linear.Renew, token: 1, writer: 1}}},
	{rule: "without a grace a token that was rotated away is gone", noGrace: true, want: true, ops: []step{
		{kind: linear.Rotate, token: 1}, {kind: linear.Renew, token: 2, writer: 1},
		{kind: linear.Read, token: 1, result: gone}, {kind: linear.Read, token: 2, result: renewed}}},
	{rule: "two renewals do not start from one session", want: false, ops: []step{
		{kind: linear.Renew, token: 1, writer: 1}, {kind: linear.Renew, token: 1, writer: 1, parallel: true}}},
	{rule: "an unknown renewal may take effect later", want: true, ops: []step{
		{kind: linear.Renew, token: 1, writer: 1, result: unknown},
		{kind: linear.Read, token: 1, writer: 1}, {kind: linear.Read, token: 1, result: renewed}}},
	{rule: "an unknown renewal is not undone", want: false, ops: []step{
		{kind: linear.Renew, token: 1, writer: 1, result: unknown},
		{kind: linear.Read, token: 1, result: renewed}, {kind: linear.Read, token: 1, writer: 1}}},
	{rule: "an unknown renewal begins a session or does not", want: true, ops: []step{
		{kind: linear.RenewEnd, token: 1, writer: 1, subject: "alice", result: unknown},
		{kind: linear.RenewBegin, token: 1, subject: "alice", result: unknown, same: true, parallel: true},
		{kind: linear.Read, token: 1, result: renewed},
		{kind: linear.Read, token: linear.NoToken, subject: "alice", result: gone},
		{kind: linear.Read, token: linear.NoToken, subject: "alice", count: 1, writer: 2}}},
	{rule: "a session that has begun does not end by itself", want: false, ops: []step{
		{kind: linear.RenewEnd, token: 1, writer: 1, subject: "alice", result: unknown},
		{kind: linear.RenewBegin, token: 1, subject: "alice", result: unknown, same: true, parallel: true},
		{kind: linear.Read, token: linear.NoToken, subject: "alice", count: 1, writer: 2},
		{kind: linear.Read, token: linear.NoToken, subject: "alice", result: gone}}},
	{rule: "a session does not begin before the old one has ended", want: false, ops: []step{
		{kind: linear.RenewEnd, token: 1, writer: 1, subject: "alice", result: unknown},
		{kind: linear.RenewBegin, token: 1, subject: "alice", result: unknown, same: true, parallel: true},
		{kind: linear.Read, token: linear.NoToken, subject: "alice", count: 1, writer: 2},
		{kind: linear.Read, token: 1, writer: 1}}},
	{rule: "what was revoked between the steps does not begin", want: false, ops: []step{
		{kind: linear.RenewEnd, token: 1, writer: 1, subject: "alice", result: unknown},
		{kind: linear.RenewBegin, token: 1, subject: "alice", result: unknown, same: true, parallel: true},
		{kind: linear.Read, token: 1, result: renewed},
		{kind: linear.Destroy, token: linear.NoToken, subject: "alice"},
		{kind: linear.Read, token: linear.NoToken, subject: "alice", count: 1, writer: 2}}},
	{rule: "the revocation of a subject leaves a guest", want: true, ops: []step{
		{kind: linear.Destroy, token: linear.NoToken, subject: "alice"}, {kind: linear.Read, token: 1, writer: 1}}},
	{rule: "the revocation of a subject ends the login", want: false, ops: []step{
		{kind: linear.Renew, token: 1, writer: 1, subject: "alice"},
		{kind: linear.Destroy, token: linear.NoToken, subject: "alice"},
		{kind: linear.Read, token: 2, login: 2, count: 1, writer: 2}}},

	{rule: "a watch ends with its session", want: true, ops: []step{
		{kind: linear.Destroy, token: 1, parallel: true}, {kind: linear.Watch, token: 1, result: gone, parallel: true}}},
	{rule: "a watch does not end without an end", want: false, ops: []step{
		{kind: linear.Update, token: 1, writer: 1}, {kind: linear.Watch, token: 1, result: gone, parallel: true}}},
	{rule: "a watch does not end before its session", want: false, ops: []step{
		{kind: linear.Watch, token: 1, result: gone}, {kind: linear.Destroy, token: 1}}},
	{rule: "a session does not go on after the end of a watch", want: false, ops: []step{
		{kind: linear.Destroy, token: 1, result: unknown}, {kind: linear.Watch, token: 1, result: gone},
		{kind: linear.Read, token: 1, writer: 1}}},
	{rule: "a watch is told of a login", want: true, ops: []step{
		{kind: linear.Renew, token: 1, writer: 1}, {kind: linear.Watch, token: 1, result: renewed}}},
	{rule: "a login is no logout for a watch", want: false, ops: []step{
		{kind: linear.Renew, token: 1, writer: 1}, {kind: linear.Watch, token: 1, result: gone}}},
	{rule: "a rotation does not end a watch during the grace", want: false, ops: []step{
		{kind: linear.Rotate, token: 1}, {kind: linear.Watch, token: 1, result: gone}}},
	{rule: "without a grace a rotation ends the watch of the old token", noGrace: true, want: true, ops: []step{
		{kind: linear.Rotate, token: 1}, {kind: linear.Watch, token: 1, result: gone}}},
	{rule: "a rotation does not end the watch that goes on with the new token", noGrace: true, want: false, ops: []step{
		{kind: linear.Rotate, token: 1}, {kind: linear.Watch, token: 2, result: gone, parallel: true}}},

	{rule: "a ticket lets in one request", want: true, ops: []step{
		{kind: linear.Redeem, ticket: 1}, {kind: linear.Redeem, ticket: 1, result: gone}, {kind: linear.Redeem, ticket: 2}}},
	{rule: "a ticket does not let in two requests", want: false, ops: []step{
		{kind: linear.Redeem, ticket: 1}, {kind: linear.Redeem, ticket: 1, parallel: true}}},
	{rule: "a ticket that nobody has used lets somebody in", want: false, ops: []step{
		{kind: linear.Redeem, ticket: 1, result: gone}, {kind: linear.Redeem, ticket: 1}}},
	{rule: "after a lost reply a ticket may be used", want: true, ops: []step{
		{kind: linear.Redeem, ticket: 1, result: unknown}, {kind: linear.Redeem, ticket: 1, result: gone}}},
	{rule: "after a lost reply a ticket may let in somebody else", want: true, ops: []step{
		{kind: linear.Redeem, ticket: 1, result: unknown}, {kind: linear.Redeem, ticket: 1}}},
	{rule: "a ticket that was used does not come back", want: false, ops: []step{
		{kind: linear.Redeem, ticket: 1, result: unknown}, {kind: linear.Redeem, ticket: 1, result: gone}, {kind: linear.Redeem, ticket: 1}}},
	{rule: "where a ticket is not valid it is used up", want: false, ops: []step{
		{kind: linear.Waste, ticket: 1, result: gone}, {kind: linear.Redeem, ticket: 1}}},
}

// Whatever is wrong with a history by itself is found too.
func TestModel(t *testing.T) {
	for _, tt := range rules {
		t.Run(tt.rule, func(t *testing.T) {
			h := linear.NewHistory()
			number := h.Number()
			h.Add(0, h.Now(), linear.Input{Kind: linear.Create, Number: number, Session: number}, linear.Output{})
			call, last := h.Now(), number
			for _, op := range tt.ops {
				if !op.parallel {
					call = h.Now()
				}
				if !op.same {
					last = h.Number()
				}
				h.Add(0, call, linear.Input{Kind: op.kind, Number: last, Session: number, Token: op.token, Login: max(op.login, number), Subject: op.subject, Ticket: op.ticket},
					linear.Output{Result: op.result, Seen: linear.Data{Count: op.count, Writer: op.writer}})
			}
			if got := h.Linearizable(!tt.noGrace); got != tt.want {
				t.Errorf("linearizable: %v, want %v", got, tt.want)
			}
		})
	}
}
