package echosession_test

import (
	"context"

	"github.com/echosession/echosession"
)

// sessionCalls are the methods of a session that use what is stored and do not
// end the session.
var sessionCalls = map[string]func(context.Context, *echosession.Session[User]) error{
	"Update": func(ctx context.Context, sess *echosession.Session[User]) error {
		return sess.Update(ctx, func(u *User) error { u.Count++; return nil })
	},
	"Touch":  func(ctx context.Context, sess *echosession.Session[User]) error { return sess.Touch(ctx) },
	"Reload": func(ctx context.Context, sess *echosession.Session[User]) error { return sess.Reload(ctx) },
	"Rotate": func(ctx context.Context, sess *echosession.Session[User]) error {
		_, err := sess.Rotate(ctx)
		return err
	},
}

// apiCalls returns the calls that need the store for one session, by name. While
// the store is down all of them fail.
func apiCalls(ctx context.Context, m *echosession.Manager[User], sess *echosession.Session[User]) map[string]func() error {
	calls := map[string]func() error{
		"Open":    func() error { _, err := m.Open(ctx, sess.Token()); return err },
		"Create":  func() error { _, err := m.Create(ctx, User{}); return err },
		"Destroy": func() error { return sess.Destroy(ctx) },
	}
	for name, call := range sessionCalls {
		calls[name] = func() error { return call(ctx, sess) }
	}
	return calls
}
