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
type Manager[T any] struct {
	cfg    Config // with its defaults
	engine *engine
}

// New returns a Manager, or an error that joins a [*ConfigError] for every mistake
// in cfg. It talks to no store.
//
// T is the struct that a session holds. New refuses a T that cannot be stored
// without loss: a struct with channels, functions, interfaces other than any, or
// unexported fields.
func New[T any](cfg Config) (*Manager[T], error) {
	cfg, e, err := cfg.compile(reflect.TypeFor[T]())
	if err != nil {
		return nil, err
	}
	return &Manager[T]{cfg, e}, nil
}

// Create makes a session outside of a request: in a job, a test or a gRPC
// service. Give [Session.Token] to the client. It returns the errors of
// [Session.Create].
func (m *Manager[T]) Create(ctx context.Context, data T, opts ...CreateOption) (*Session[T], error) {
	s := m.unbound()
	if _, err := s.Create(ctx, data, opts...); err != nil {
		return nil, err
	}
	return s, nil
}

// Open returns the session of a token that did not come in an HTTP request: over a
// WebSocket, or in gRPC metadata. As with [Get], a missing session is not an error:
// ask [Session.Exists]. It returns [ErrStoreUnavailable].
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

// List returns the live sessions of a subject, oldest first. They can be read,
// updated, touched and destroyed, and have no [Session.Token] and no
// [Session.Claims]. A session whose record cannot be read is left out and logged.
// List needs [Config.SubjectIndex] and a subject that is not empty. It returns
// [ErrStoreUnavailable].
func (m *Manager[T]) List(ctx context.Context, subject string) ([]*Session[T], error) {
	if err := m.engine.indexed(subject); err != nil {
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

// RevokeSubject destroys every session of a subject in one step, except those with
// the IDs given, and returns the number of sessions destroyed. "Log out everywhere
// else" is
//
//	sessions.RevokeSubject(ctx, sess.Subject(), sess.ID())
//
// It needs [Config.SubjectIndex] and a subject that is not empty. It returns
// [ErrStoreUnavailable] or [ErrIndeterminate].
func (m *Manager[_]) RevokeSubject(ctx context.Context, subject string, exceptIDs ...string) (int, error) {
	if err := m.engine.indexed(subject); err != nil {
		return 0, err
	}
	return m.engine.revoke(ctx, subject, exceptIDs)
}

// All visits every session of the keyspace, in no order. A session that is written
// meanwhile may be visited twice. The sessions are like those of [Manager.List]. For
// a record that cannot be read, All yields an error that matches [ErrCorrupt] and
// goes on; any other error ends the visit.
//
// It walks the whole keyspace with SCAN, on every primary of a Cluster, and holds a
// few hundred records at a time.
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

// WithSubject says whose session it is: the sub claim of the token. With
// [Config.SubjectIndex], [Manager.List] and [Manager.RevokeSubject] find the session
// by it; a session without a subject is in no list. From one byte to 1 KiB of valid
// UTF-8, with any characters: the empty string is refused, so that a user without an
// ID is noticed.
func WithSubject(sub string) CreateOption {
	return func(p *createParams) { p.subject, p.named = sub, true }
}

// WithClaims puts claims into the token. Whoever holds the token can read them. The
// package owns jti, iat and idle, and iss and aud where they are configured: a
// caller's are refused with [ErrReservedClaim]. A sub is the same as [WithSubject].
//
// An exp (a time.Time, or a number of seconds since 1970) supersedes
// [Config.MaxAge]: the session lives until then, used or not. Together with
// [WithMaxAge] or [Config.AbsoluteTimeout], the earliest of them ends the session.
func WithClaims(c Claims) CreateOption {
	return func(p *createParams) { p.claims = c }
}

// WithMaxAge sets this session's idle timeout instead of [Config.MaxAge], for
// "remember me". At least a millisecond. It is part of the session: every process
// heeds it, whatever the Config of that process says.
func WithMaxAge(d time.Duration) CreateOption {
	return func(p *createParams) { p.maxAge, p.limited = d, true }
}

// A RequireOption is an option of [Require] and [Manager.Require].
type RequireOption func(requirement) requirement

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
