package echosession

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// process runs one command and returns at ctx's deadline at the latest. After
// the deadline the command may still be running: do not read it then.
func (r *redisStore) process(ctx context.Context, cmd redis.Cmder) error {
	if r.async != nil {
		if err := ctx.Err(); err != nil {
			return err // once submitted, the command runs even if ctx ends
		}
		err := r.async.Submit(ctx, cmd).WaitContext(ctx)
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			return &abandonedError{err}
		}
		return err
	}
	if r.deadlines {
		// A closure would cost an allocation.
		return r.doubt(ctx, r.client.Process(ctx, cmd))
	}
	return r.doubt(ctx, r.bounded(ctx, func() error { return r.client.Process(ctx, cmd) }))
}

// doubt makes a cluster client ask again which node has which slot, after a node
// redirected or did not answer: the node may have been replaced. By itself
// go-redis asks once a minute.
func (r *redisStore) doubt(ctx context.Context, err error) error {
	c, ok := r.client.(*redis.ClusterClient)
	if ok && err != nil && !errors.Is(err, redis.Nil) && !errors.Is(err, context.Canceled) {
		_, replied := errors.AsType[redis.Error](err)
		_, moved := redis.IsMovedError(err)
		if moved || !replied {
			c.ReloadState(ctx)
		}
	}
	return err
}

// bounded returns at ctx's deadline, even if the call ignores ctx.
func (r *redisStore) bounded(ctx context.Context, call func() error) error {
	if r.deadlines || ctx.Done() == nil {
		return call()
	}
	done := make(chan error, 1)
	go func() { done <- call() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return &abandonedError{ctx.Err()}
	}
}

// abandonedError says that the store stopped waiting for a command, which may
// still run.
type abandonedError struct{ error }

func (e *abandonedError) Unwrap() error { return e.error }

// once is a command that go-redis does not send again when its reply is lost.
// That is attempt's work, which knows what a second reply means.
type once struct{ *redis.Cmd }

func (once) NoRetry() bool { return true }

// onceString is once for a command that replies with a string.
type onceString struct{ *redis.StringCmd }

func (onceString) NoRetry() bool { return true }

// write runs a command that changes key and, with WaitReplicas, waits for the
// replicas on the connection that wrote.
func (r *redisStore) write(ctx context.Context, key string, cmd once) error {
	if r.waitReplicas == 0 {
		return r.process(ctx, cmd)
	}
	client, _ := r.client.(*redis.Client)
	if c, ok := r.client.(*redis.ClusterClient); ok {
		var err error
		if client, err = c.MasterForKey(ctx, key); err != nil {
			return err
		}
	}
	wait := redis.NewIntCmd(ctx, "wait", r.waitReplicas, waitMilliseconds(ctx))
	err := r.bounded(ctx, func() error {
		pipe := client.Pipeline()
		_ = pipe.Process(ctx, cmd)
		_ = pipe.Process(ctx, wait)
		_, err := pipe.Exec(ctx)
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			return &abandonedError{err}
		}
		return err
	})
	if err != nil {
		r.doubt(ctx, err)
		return err
	}
	if got := wait.Val(); got < int64(r.waitReplicas) {
		return fmt.Errorf("%w: %d of %d replicas", ErrNotReplicated, got, r.waitReplicas)
	}
	return nil
}

// waitMilliseconds is how long WAIT may take. It leaves some of ctx's time for the
// reply to come back, because Redis may look at the clock only every 100 ms.
func waitMilliseconds(ctx context.Context) int64 {
	deadline, ok := ctx.Deadline()
	if !ok {
		return time.Second.Milliseconds()
	}
	left := time.Until(deadline)
	return max(1, min(left*3/4, left-150*time.Millisecond).Milliseconds())
}

// maxAttempts bounds the attempts at one write.
const maxAttempts = 4

// A purpose is what commands are sent for.
type purpose bool

const (
	changing purpose = false
	reading  purpose = true // also restarting a lifetime: nobody needs to know whether it happened
)

// attempt runs a command that is safe to run again. lost says that the reply to
// an earlier attempt was lost: the last attempt may have met the effect of that one.
func (r *redisStore) attempt(ctx context.Context, p purpose, run func() error) (lost bool, err error) {
	if err := ended(ctx); err != nil {
		return false, err
	}
	var why error // of an attempt that failed before time was up
	for n := 1; ; n++ {
		err = run()
		if err == nil || decided(err) {
			return lost, err
		}
		if errors.Is(err, ErrIndeterminate) {
			return lost, because(ctx, err, why)
		}
		if maybeApplied(err) {
			lost = true
		}
		if ctx.Err() == nil {
			why = err
		}
		if n == maxAttempts || ctx.Err() != nil || !worthRetrying(err) {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(n) * 10 * time.Millisecond):
		}
	}
	err = because(ctx, refusal(err), why)
	if lost && p == changing {
		return lost, indeterminate(err)
	}
	return lost, unavailable(err)
}

// decided reports whether err is the store's own answer: no attempt could bring another.
func decided(err error) bool {
	return errors.Is(err, ErrConflict) || errors.Is(err, ErrTooManySessions)
}

// because adds to an error that says little but that time is up why an earlier attempt
// failed.
func because(ctx context.Context, err, why error) error {
	if ctx.Err() == nil || why == nil {
		return err
	}
	return fmt.Errorf("%w: %w", err, why)
}

// ended reports that it is too late to begin.
func ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return unavailable(err)
	}
	return nil
}

// notSent are the errors of commands that go-redis never put on the wire.
var notSent = []error{
	redis.ErrPoolTimeout, redis.ErrPoolExhausted, redis.ErrClosed, redis.ErrAutoPipelineQueueFull, redis.ErrCrossSlot,
	// A client returns these only while it waits for a connection. When a deadline
	// passes during the wait for a reply, it returns a network timeout.
	context.DeadlineExceeded, context.Canceled,
}

// maybeApplied reports whether a write that failed with err may have been executed.
func maybeApplied(err error) bool {
	if _, ok := errors.AsType[redis.Error](err); ok {
		return false
	}
	if _, ok := errors.AsType[*abandonedError](err); ok {
		return true
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return false
	}
	return !slices.ContainsFunc(notSent, func(target error) bool { return errors.Is(err, target) })
}

// worthRetrying reports whether another attempt may succeed.
func worthRetrying(err error) bool {
	if _, ok := errors.AsType[redis.Error](err); !ok {
		return !errors.Is(err, redis.ErrClosed)
	}
	_, moved := redis.IsMovedError(err)
	return moved || redis.IsReadOnlyError(err) || redis.IsLoadingError(err) || redis.IsMasterDownError(err) ||
		redis.IsClusterDownError(err) || redis.IsTryAgainError(err) || redis.IsNoReplicasError(err) ||
		redis.IsMaxClientsError(err)
}

// errForeignReply says that a connection is out of step: it handed out the reply
// to another command.
var errForeignReply = namedError{
	error: errors.New("the connection handed out another command's reply"), name: "reply of another command",
}

// refusal names an error that Redis replied by its code, such as LOADING or OOM.
// Other errors stay as they are.
func refusal(err error) error {
	reply, ok := errors.AsType[redis.Error](err)
	if !ok || reply == redis.Nil {
		return err
	}
	text := reply.Error()
	code, _, _ := strings.Cut(text, " ")
	if !isErrorCode(code) {
		code = "no code"
	}
	name := refused + code
	switch code {
	case "NOPERM":
		name = noPermission + code
	case "WRONGPASS", "NOAUTH":
		name = notAuthenticated + code
	case "ERR":
		for _, kind := range []struct{ text, name string }{
			{"unknown command", unknownCommand},
			{"DB index is out of range", wrongDatabase},
			{"SELECT is not allowed in cluster mode", wrongDatabase},
			{"This instance has cluster support disabled", noCluster},
		} {
			if strings.Contains(text, kind.text) {
				name = kind.name
			}
		}
	}
	return namedError{err, name, commandIn(text)}
}

// isErrorCode reports whether the first word of an error is a code. A proxy or a script may
// put any text there.
func isErrorCode(word string) bool {
	return 0 < len(word) && len(word) <= 20 && strings.Trim(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// commandIn returns the command of the store that a refusal is about, or "". It is a word
// of this package, so that no other word of the server gets into a message.
func commandIn(text string) string {
	for _, command := range []string{"get", "getex", "getdel", "set", "del", "evalsha", "eval", "wait", "select", "asking", "readonly", "cluster", "client", "publish", "subscribe"} {
		for _, quoted := range []string{"'" + command + "'", "`" + command + "`", "'" + command + "|"} {
			if strings.Contains(text, quoted) {
				return strings.ToUpper(command)
			}
		}
	}
	return ""
}
