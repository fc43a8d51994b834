package echosession

import (
	"context"
	"errors"
	"iter"
	"reflect"
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
//
// If a *T has a method MigrateSession() error, it is called whenever a T was decoded,
// before anybody sees the value: there a release of the program brings what an older
// one has stored up to date. It must leave what is up to date as it is. Its error, or a panic
// in it, makes the record unreadable: [ErrCorrupt], with the error as its cause. The next
// write stores what it made.
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

// Close ends what runs in the background, and waits for it: every [Session.Watch] ends with
// the cause [ErrClosed], so that its stream ends when the program stops. Hand it to
// [http.Server.RegisterOnShutdown]:
//
//	server.RegisterOnShutdown(func() { sessions.Close() })
//
// Everything else works on, and the store stays open. Without a Watch, a client-side cache,
// a client that reads from replicas and [Config.StaleFor] nothing runs in the background,
// and Close need not be called; otherwise all of it stops a minute after its last use.
// Close may be called more than once, and always returns nil.
func (m *Manager[_]) Close() error {
	m.engine.hub.close()
	m.engine.stale.close()
	return nil
}

// unbound returns a session that belongs to no request.
func (m *Manager[T]) unbound() *Session[T] {
	s := new(Session[T])
	s.handle.engine, s.handle.resolved, s.handle.reason = m.engine, true, ErrNoToken
	return s
}

// List returns the live sessions of a subject, oldest first: of more than [MaxListed]
// sessions, the newest. They can be read, updated, checked, touched and destroyed. They
// have no [Session.Token] and no [Session.Claims], and cannot be rotated, renewed or replaced with Create. A
// session whose record cannot be read is left out and logged. List needs
// [Config.SubjectIndex] and a subject that is not empty. It returns [ErrStoreUnavailable].
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
		s, err := m.listed(ctx, entry)
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
// More than 5,000 sessions may take more than one step. The last step destroys every
// session that the subject then has, those created meanwhile too. An error may leave
// some of the sessions destroyed.
//
// It needs [Config.SubjectIndex] and a subject that is not empty. It returns
// [ErrStoreUnavailable] or [ErrIndeterminate].
func (m *Manager[_]) RevokeSubject(ctx context.Context, subject string, exceptIDs ...string) (int, error) {
	if err := m.engine.indexed(subject); err != nil {
		return 0, err
	}
	return m.engine.revoke(ctx, subject, exceptIDs)
}

// Revoke destroys the session with this ID if it is one of the subject's, and reports
// whether there was such a session: for "log this device out" in a list of devices. It
// cannot end the session of another subject, whatever the ID is. An ID from before a
// [Session.Renew] ends nothing; one from before a [Session.Rotate] does in its grace.
//
// It needs [Config.SubjectIndex] and a subject that is not empty. It returns
// [ErrStoreUnavailable] or [ErrIndeterminate].
func (m *Manager[_]) Revoke(ctx context.Context, subject, id string) (bool, error) {
	if err := m.engine.indexed(subject); err != nil {
		return false, err
	}
	return m.engine.revokeOne(ctx, subject, id)
}

// Count returns how many live sessions a subject has: what [Config.MaxSessions]
// counts. It needs [Config.SubjectIndex] and a subject that is not empty. It returns
// [ErrStoreUnavailable].
func (m *Manager[_]) Count(ctx context.Context, subject string) (int, error) {
	if err := m.engine.indexed(subject); err != nil {
		return 0, err
	}
	return m.engine.count(ctx, subject)
}

// Ping asks the store whether it can serve sessions, and changes nothing: call it when
// the program starts, and for its readiness. It returns nil, or an error that matches
// [ErrStoreUnavailable] and whose text names the cause: a refused connection, an unknown
// host, a database that does not exist, a missing permission, a server that is too old.
// A handler may return that error: the answer is 503 without the cause, which is logged.
//
// It asks a [Pinger]; of another Store it loads a session that does not exist.
func (m *Manager[_]) Ping(ctx context.Context) error { return m.engine.ping(ctx) }

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
				s, err = m.listed(ctx, entry)
			}
			if !yield(s, err) || err != nil && !errors.Is(err, ErrCorrupt) {
				return
			}
		}
	}
}

// listed makes a session of a record that was found without its token.
func (m *Manager[T]) listed(ctx context.Context, entry Entry) (*Session[T], error) {
	value := new(T)
	l, err := m.engine.adopt(ctx, entry, value)
	if err != nil {
		return nil, err
	}
	s := m.unbound()
	s.handle.live, s.handle.value, s.handle.reason = l, value, nil
	return s, nil
}
