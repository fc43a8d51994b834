package echosession_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// A store does not create a session again when the reply was lost: it could bring
// back one that was deleted meanwhile.
func TestStoreCreatesOnce(t *testing.T) {
	server := redistest.Shared(t)
	for _, tt := range []struct{ name, subject string }{{"plain", ""}, {"indexed", "alice"}} {
		t.Run(tt.name, func(t *testing.T) {
			proxy := redistest.NewProxy(t, server.Addr())
			client := server.Client(t, func(o *redis.Options) { o.Dialer = redistest.Through(proxy) })
			store := newRedisStore(t, client, newKeyspace())
			ref := echosession.Ref{ID: newID(), Subject: tt.subject}
			writes := redistest.Named("SET", "EVALSHA", "EVAL")
			// The script may have to be sent first.
			if err := store.Create(t.Context(), echosession.Ref{ID: newID(), Subject: tt.subject}, []byte("other"), time.Minute, 0); err != nil {
				t.Fatal(err)
			}
			proxy.Reset()
			proxy.On(writes, 1, redistest.DropReply())
			if err := store.Create(t.Context(), ref, []byte("record"), time.Minute, 0); !errors.Is(err, echosession.ErrIndeterminate) {
				t.Errorf("got %v, want ErrIndeterminate", err)
			}
			if n := proxy.Count("SET", "EVALSHA", "EVAL"); n != 1 {
				t.Errorf("%d attempts, want 1", n)
			}
		})
	}
}

// interferingStore loses the reply to the first Create, after which something
// happens.
type interferingStore struct {
	echosession.Store
	then  func(echosession.Ref)
	first string
}

func (s *interferingStore) Create(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit int) error {
	err := s.Store.Create(ctx, ref, record, ttl, limit)
	if s.first == "" && err == nil {
		s.first = ref.ID
		s.then(ref)
		return echosession.ErrIndeterminate
	}
	return err
}

func TestCreateWithALostReply(t *testing.T) {
	for _, tt := range []struct {
		rule    string
		revoked bool
	}{
		{"what was stored is the session", false},
		{"what was revoked meanwhile does not come back", true},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			memory := echosession.NewMemoryStore()
			store := &interferingStore{Store: memory, then: func(ref echosession.Ref) {
				if !tt.revoked {
					return
				}
				if n, err := memory.DeleteSubject(t.Context(), ref.Subject, nil); n != 1 || err != nil {
					t.Errorf("revoked %d sessions: %v", n, err)
				}
			}}
			m := newManager[User](t, echosession.Config{Store: store, Secret: testSecret, SubjectIndex: true})
			s, err := m.Create(t.Context(), User{Name: "Alice"}, echosession.WithSubject("alice"))
			if err != nil {
				t.Fatal(err)
			}
			if (s.ID() == store.first) == tt.revoked {
				t.Errorf("the session has the ID %s, the first attempt had %s", s.ID(), store.first)
			}
			list, err := m.List(t.Context(), "alice")
			if err != nil || len(list) != 1 || list[0].ID() != s.ID() || list[0].Data().Name != "Alice" {
				t.Errorf("%d sessions are listed: %v", len(list), err)
			}
		})
	}
}
