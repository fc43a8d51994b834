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
		return s.Store.Create(ctx, ref, record, ttl, echosession.Limit{})
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

func (s reviving) Create(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) error {
	if err := s.Store.Create(ctx, ref, record, ttl, limit); err != nil {
		return err
	}
	time.Sleep(time.Millisecond)
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
	return s.Create(ctx, to, record, ttl, echosession.Limit{})
}

type deletingPointers struct{ echosession.Store }

func (s deletingPointers) Delete(ctx context.Context, ref echosession.Ref) error {
	_, err := s.Load(ctx, ref, 0)
	if _, rotated := errors.AsType[*echosession.RotatedError](err); rotated {
		return nil
	}
	return s.Store.Delete(ctx, ref)
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

// Whatever is wrong with a history by itself is found too.
func TestModel(t *testing.T) {
	type op struct {
		kind     linear.Kind
		token    int
		result   linear.Result
		count    int // seen
		writer   int
		parallel bool // with the one before
	}
	const done, gone, unknown = linear.Done, linear.Gone, linear.Unknown
	for _, tt := range []struct {
		rule    string
		noGrace bool
		ops     []op // after the Create, whose number is 1; they are numbered from 2
		want    bool
	}{
		{rule: "an update is read", want: true, ops: []op{
			{kind: linear.Update, token: 1, writer: 1}, {kind: linear.Read, token: 1, count: 1, writer: 2}}},
		{rule: "an update is not lost", want: false, ops: []op{
			{kind: linear.Update, token: 1, writer: 1}, {kind: linear.Read, token: 1, count: 0, writer: 1}}},
		{rule: "a read beside an update sees either", want: true, ops: []op{
			{kind: linear.Update, token: 1, writer: 1}, {kind: linear.Read, token: 1, count: 0, writer: 1, parallel: true}}},
		{rule: "two updates do not start from one state", want: false, ops: []op{
			{kind: linear.Update, token: 1, writer: 1}, {kind: linear.Update, token: 1, writer: 1, parallel: true}}},
		{rule: "an unknown update may take effect later", want: true, ops: []op{
			{kind: linear.Update, token: 1, writer: 1, result: unknown},
			{kind: linear.Read, token: 1, writer: 1},
			{kind: linear.Read, token: 1, count: 1, writer: 2}}},
		{rule: "an unknown update does not take effect twice", want: false, ops: []op{
			{kind: linear.Update, token: 1, writer: 1, result: unknown},
			{kind: linear.Read, token: 1, count: 2, writer: 2}}},
		{rule: "an effect is not undone", want: false, ops: []op{
			{kind: linear.Update, token: 1, writer: 1, result: unknown},
			{kind: linear.Read, token: 1, count: 1, writer: 2},
			{kind: linear.Read, token: 1, writer: 1}}},
		{rule: "a destroyed session is gone", want: true, ops: []op{
			{kind: linear.Destroy, token: 1}, {kind: linear.Update, token: 1, result: gone}, {kind: linear.Destroy, token: 1}}},
		{rule: "a destroyed session does not come back", want: false, ops: []op{
			{kind: linear.Destroy, token: 1}, {kind: linear.Update, token: 1, writer: 1}}},
		{rule: "a live session is not gone", want: false, ops: []op{{kind: linear.Touch, token: 1, result: gone}}},
		{rule: "the old token leads to the data during the grace", want: true, ops: []op{
			{kind: linear.Rotate, token: 1},
			{kind: linear.Update, token: 1, writer: 1}, {kind: linear.Read, token: 2, count: 1, writer: 3}}},
		{rule: "without a grace the old token leads nowhere", noGrace: true, want: false, ops: []op{
			{kind: linear.Rotate, token: 1}, {kind: linear.Read, token: 1, writer: 1}}},
		{rule: "without a grace the old token destroys nothing", noGrace: true, want: true, ops: []op{
			{kind: linear.Rotate, token: 1}, {kind: linear.Destroy, token: 1}, {kind: linear.Read, token: 2, writer: 1}}},
		{rule: "a token is not rotated twice", want: false, ops: []op{
			{kind: linear.Rotate, token: 1}, {kind: linear.Rotate, token: 1}}},
		{rule: "whoever rotates second is told that it is gone", want: true, ops: []op{
			{kind: linear.Rotate, token: 1}, {kind: linear.Rotate, token: 1, result: gone}}},
		{rule: "the old token destroys during the grace", want: false, ops: []op{
			{kind: linear.Rotate, token: 1}, {kind: linear.Destroy, token: 1}, {kind: linear.Touch, token: 2}}},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			h := linear.NewHistory()
			number := h.Number()
			h.Add(0, h.Now(), linear.Input{Kind: linear.Create, Number: number, Session: number}, linear.Output{})
			call := h.Now()
			for _, op := range tt.ops {
				if !op.parallel {
					call = h.Now()
				}
				h.Add(0, call, linear.Input{Kind: op.kind, Number: h.Number(), Session: number, Token: op.token},
					linear.Output{Result: op.result, Seen: linear.Data{Count: op.count, Writer: op.writer}})
			}
			if got := h.Linearizable(!tt.noGrace); got != tt.want {
				t.Errorf("linearizable: %v, want %v", got, tt.want)
			}
		})
	}
}
