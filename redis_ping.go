package echosession

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
)

var _ Pinger = (*redisStore)(nil)

// Ping implements [Pinger]. It tries on keys that do not exist what the store asks of
// Redis. On a Cluster or a Ring it asks the server of these keys.
func (r *redisStore) Ping(ctx context.Context) error {
	ref := Ref{ID: uuid.NewString()}
	if r.subjectIndex {
		ref.Subject = ref.ID
	}
	key := r.key(ref)
	tried := [][]any{{"get", key}, {"getex", key, "px", 1000}, {"set", key, "", "px", 1000, "xx"}}
	if r.tickets {
		tried = append(tried, []any{"getdel", key})
	}
	for _, args := range tried {
		if err := r.try(ctx, args...); err != nil {
			return pingFailed(err)
		}
	}
	if err := r.del(ctx, key); err != nil { // it waits for replicas
		return pingFailed(err)
	}
	// A client for one server would work on a Cluster as long as all keys are on that server.
	var failures, elsewhere []any
	if _, ok := r.client.(*redis.Client); ok {
		for range 20 {
			elsewhere = append(elsewhere, r.keyspace+uuid.NewString())
		}
	}
	_, err := r.attempt(ctx, reading, func() error {
		value, err := pingScript.eval(ctx, r, r.keys(ref), elsewhere)
		failures, _ = value.([]any)
		return err
	})
	if err == nil {
		err = failedInScript(failures)
	}
	return pingFailed(err)
}

// try runs a command for the sake of its error.
func (r *redisStore) try(ctx context.Context, args ...any) error {
	_, err := r.attempt(ctx, reading, func() error {
		err := r.process(ctx, once{redis.NewCmd(ctx, args...)}) // go-redis, when it tries again, forgets the cause
		if errors.Is(err, redis.Nil) {
			return nil
		}
		return err
	})
	return err
}

// failedInScript makes an error of the reply of ping.lua.
func failedInScript(failures []any) error {
	commands := make(map[string][]string) // by why they failed
	for i := 0; i+1 < len(failures); i += 2 {
		name, why := fmt.Sprint(failures[i]), fmt.Sprint(failures[i+1])
		commands[why] = append(commands[why], name)
	}
	for _, kind := range []struct{ why, name string }{
		{"unknown", unknownCommand}, {"permission", noPermission + "NOPERM"}, {"cluster", refused + "MOVED"}, {"other", refused + "in a script"},
	} {
		failed := commands[kind.why]
		if len(failed) == 0 {
			continue
		}
		if kind.why == "cluster" {
			failed = nil
		}
		return unavailable(namedError{errors.New("a script of the store does not work"), kind.name, strings.Join(failed, ", ")})
	}
	return nil
}

// pingFailed says in words of its own why a store does not work, and what to do.
func pingFailed(err error) error {
	if err == nil {
		return nil
	}
	text := causeOf(err)
	advice := adviceFor(text)
	if named, ok := errors.AsType[namedError](err); ok && named.name == text && named.commands != "" {
		text += " (" + named.commands + ")"
	}
	if advice != "" {
		text += "; " + advice
	}
	return &pingError{text, err}
}

// pingError is a storeError whose text names the cause, for whoever runs the program.
type pingError struct {
	text  string
	cause error
}

func (e *pingError) Error() string { return ErrStoreUnavailable.Error() + ": " + e.text }
func (e *pingError) Unwrap() error { return e.cause }
