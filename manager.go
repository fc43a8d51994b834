package echosession

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"time"
)

// A Manager makes and opens sessions whose data is a T. It is immutable and safe
// for concurrent use. Make one with [New].
type Manager[T any] struct{ engine *engine }

// New returns a Manager, or an error that names every mistake in cfg and how to
// mend it. It talks to no store.
//
// T is the struct that a session holds. New refuses a T that cannot be stored
// without loss: one with channels, functions, interfaces other than any, or
// unexported fields.
func New[T any](cfg Config) (*Manager[T], error) {
	e, err := newEngine(cfg, reflect.TypeFor[T]())
	if err != nil {
		return nil, err
	}
	return &Manager[T]{e}, nil
}

// Create makes a session outside of a request: in a job, a test or a gRPC
// service. [Session.Token] is what its client gets. It returns the errors of
// [Session.Create].
func (m *Manager[T]) Create(ctx context.Context, data T, opts ...CreateOption) (*Session[T], error) {
	s := m.unbound()
	if _, err := s.Create(ctx, data, opts...); err != nil {
		return nil, err
	}
	return s, nil
}

// Open returns the session of a token that came otherwise than in a request that
// the middleware sees: over a WebSocket, or in gRPC metadata.
//
// As with [Get], a missing session is not an error: ask [Session.Exists].
func (m *Manager[T]) Open(ctx context.Context, token string) (*Session[T], error) {
	s := m.unbound()
	if err := s.handle.open(ctx, token, new(T)); err != nil {
		return nil, err
	}
	return s, nil
}

// unbound returns a session that belongs to no request.
func (m *Manager[T]) unbound() *Session[T] {
	s := new(Session[T])
	s.handle.engine, s.handle.resolved, s.handle.reason = m.engine, true, ErrNoToken
	return s
}

// List returns the live sessions of a subject, oldest first. They have no
// [Session.Token] and no [Session.Claims], and can be read, updated, touched and
// destroyed. A session whose record cannot be read is left out and logged. It
// needs [Config.SubjectIndex].
func (m *Manager[T]) List(ctx context.Context, subject string) ([]*Session[T], error) {
	if err := m.engine.indexed(); err != nil {
		return nil, err
	}
	entries, err := m.engine.list(ctx, subject)
	if err != nil {
		return nil, err
	}
	sessions := make([]*Session[T], 0, len(entries))
	for _, entry := range entries {
		s, err := m.listed(entry)
		// The record says whose it is, and may be sealed; the index is not.
		if err == nil && s.Subject() == subject {
			sessions = append(sessions, s)
		}
	}
	return sessions, nil
}

// RevokeSubject destroys every session of a subject in one step, except those
// with the IDs given, and returns how many there were. "Log out everywhere else"
// is
//
//	m.RevokeSubject(ctx, sess.Subject(), sess.ID())
//
// It needs [Config.SubjectIndex].
func (m *Manager[_]) RevokeSubject(ctx context.Context, subject string, exceptIDs ...string) (int, error) {
	if err := m.engine.indexed(); err != nil {
		return 0, err
	}
	return m.engine.revoke(ctx, subject, exceptIDs)
}

// All visits every session of the keyspace, in no order and, while sessions are
// being written, some of them perhaps twice. The sessions are like those of
// [Manager.List]. A session whose record cannot be read is yielded as an error
// that matches [ErrCorrupt], and the visit goes on; any other error ends it.
//
// It walks the whole keyspace with SCAN, on every primary of a Cluster, and holds
// a few hundred records at a time.
func (m *Manager[T]) All(ctx context.Context) iter.Seq2[*Session[T], error] {
	return func(yield func(*Session[T], error) bool) {
		for entry, err := range m.engine.store.Scan(ctx) {
			var s *Session[T]
			if err == nil {
				s, err = m.listed(entry)
			}
			if !yield(s, err) || err != nil && !errors.Is(err, ErrCorrupt) {
				return
			}
		}
	}
}

// listed makes a session of a record that was found without its token.
func (m *Manager[T]) listed(entry Entry) (*Session[T], error) {
	value := new(T)
	l, err := m.engine.adopt(entry, value)
	if err != nil {
		return nil, err
	}
	s := m.unbound()
	s.handle.live, s.handle.value, s.handle.reason = l, value, nil
	return s, nil
}

// A CreateOption is an option of [Session.Create] and [Manager.Create].
type CreateOption func(*createParams)

type createParams struct {
	subject string
	claims  Claims
	maxAge  time.Duration
	limited bool // maxAge was given
}

// WithSubject says whose session it is: the sub claim of the token. With
// [Config.SubjectIndex] the session is found under it. At most 1 KiB of valid
// UTF-8, with any characters.
func WithSubject(sub string) CreateOption {
	return func(p *createParams) { p.subject = sub }
}

// WithClaims puts claims into the token, which its holder can read. The package
// owns jti, iat and idle, and iss and aud where they are configured: they are
// refused with [ErrReservedClaim]. A sub is the same as [WithSubject].
//
// An exp (a time.Time, or a number of seconds since 1970) supersedes
// [Config.MaxAge]: the session lives until then, used or not. With [WithMaxAge]
// too, or with [Config.AbsoluteTimeout], the earliest ends it.
func WithClaims(c Claims) CreateOption {
	return func(p *createParams) { p.claims = c }
}

// WithMaxAge sets this session's idle timeout instead of [Config.MaxAge], for
// "remember me". It is part of the session: every process heeds it, whatever its
// own Config says.
func WithMaxAge(d time.Duration) CreateOption {
	return func(p *createParams) { p.maxAge, p.limited = d, true }
}

// A RequireOption is an option of [Require] and [Manager.Require].
type RequireOption func(requirement) requirement

type requirement struct {
	requestKey string
	fresh      time.Duration
	only       *engine
}

func requirementOf(opts []RequireOption) requirement {
	r := requirement{requestKey: defaultRequestKey}
	for _, opt := range opts {
		r = opt(r)
	}
	return r
}

// Fresh requires a session created within maxAge: use it where you would ask for
// the password again. [Session.Rotate] does not make a session fresh. An older
// session gets [ErrNotFresh], answered with 401 and the challenge of RFC 9470. Fresh
// panics if maxAge is under a second.
func Fresh(maxAge time.Duration) RequireOption {
	if maxAge < time.Second {
		panic(fmt.Sprintf("echosession: Fresh(%v): at least a second", maxAge))
	}
	return func(r requirement) requirement {
		r.fresh = maxAge
		return r
	}
}

// RequestKey makes [Require] look for the instance with this
// [Config.RequestKey].
func RequestKey(key string) RequireOption {
	return func(r requirement) requirement {
		r.requestKey = key
		return r
	}
}

// Only makes [Require] and [Find] accept the sessions of this Manager alone. Those
// of another Manager get [ErrNotInstalled]. [Manager.Require] has it built in.
func (m *Manager[_]) Only() RequireOption {
	return func(r requirement) requirement {
		r.only = m.engine
		return r
	}
}
