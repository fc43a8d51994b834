package live_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// plainClient has no method but those that a client needs.
type plainClient struct{ echosession.RedisClient }

// plainStore hides that a store tells of ends.
type plainStore struct{ echosession.Store }

// TestPolling has clients and stores watch that hear of no end.
func TestPolling(t *testing.T) {
	server := redistest.Start(t)
	for name, config := range map[string]func(t *testing.T, keyspace string) echosession.Config{
		"a client that cannot subscribe": func(t *testing.T, keyspace string) echosession.Config {
			return echosession.Config{Client: plainClient{server.Client(t)}}
		},
		"no right to subscribe": user(server, "-subscribe"),
		"no right to publish":   user(server, "-publish"),
		"no channel":            user(server, "resetchannels"),
		"a store of one's own": func(t *testing.T, keyspace string) echosession.Config {
			store, err := echosession.NewRedisStore(server.Client(t), echosession.RedisOptions{Keyspace: keyspace, SubjectIndex: true})
			if err != nil {
				t.Fatal(err)
			}
			return echosession.Config{Store: plainStore{store}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log, keyspace := new(logBuffer), newKeyspace()
			cfg := config(t, keyspace)
			cfg.Keyspace, cfg.SubjectIndex = keyspace, true
			cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
			watching := newProcess(t, cfg)
			ending := newProcess(t, echosession.Config{Client: server.Client(t), Keyspace: keyspace, SubjectIndex: true})
			all := append(watchMany(t, watching, 100), watchMany(t, watching, 100, echosession.WithSubject("ann"))...)
			var late distribution
			for round := range 2 {
				ended := make(map[*watcher]time.Time)
				for i := round; i < len(all); i += 4 {
					ended[all[i]] = end(t, ending, all[i])
				}
				for w, ended := range ended {
					at, cause := w.isTold(toldByPoll)
					if !errors.Is(cause, echosession.ErrSessionGone) {
						t.Fatalf("the cause is %v", cause)
					}
					late = append(late, max(0, at.Sub(ended)))
				}
			}
			for i, w := range all {
				if i%4 > 1 {
					w.goesOn(t, "a session that lives")
				}
			}
			t.Logf("%v (target: max under 6000 ms)", late)
			if n := strings.Count(log.String(), "session watch by polling"); n != 1 {
				t.Errorf("the log says %d times that sessions are polled:\n%s", n, log)
			}
		})
	}
}

// user connects as a user with all rights but some.
func user(server *redistest.Server, rights ...string) func(*testing.T, string) echosession.Config {
	return func(t *testing.T, _ string) echosession.Config {
		name := strings.ReplaceAll(fmt.Sprint("user", rights), " ", "")
		args := []any{"acl", "setuser", name, "on", ">secret", "~*", "&*", "+@all"}
		for _, right := range rights {
			args = append(args, right)
		}
		if err := server.Client(t).Do(t.Context(), args...).Err(); err != nil {
			t.Fatal(err)
		}
		return echosession.Config{Client: server.Client(t, func(o *redis.Options) { o.Username, o.Password = name, "secret" })}
	}
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
