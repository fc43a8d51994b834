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
// the deadline the command may still be running: then it is not to be read.
func (r *redisStore) process(ctx context.Context, cmd redis.Cmder) error {
	if r.async != nil {
		if err := ctx.Err(); err != nil {
			return err // what is submitted runs, whatever becomes of ctx
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

// doubt makes a cluster client learn anew which node has which slot, when one
// redirects or does not answer: it may have been replaced, and go-redis looks by
// itself once a minute.
func (r *redisStore) doubt(ctx context.Context, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	if c, ok := r.client.(*redis.ClusterClient); ok {
		_, replied := errors.AsType[redis.Error](err)
		_, moved := redis.IsMovedError(err)
		if moved || !replied {
			c.ReloadState(ctx)
		}
	}
	return err
}

// bounded makes a call that may not heed ctx return at its deadline all the same.
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

// abandonedError says that a command was not waited for any longer, and may be
// under way.
type abandonedError struct{ error }

func (e *abandonedError) Unwrap() error { return e.error }

// once is a command that go-redis does not repeat by itself when its reply is
// lost: attempt does, and knows what it may conclude then.
type once struct{ *redis.Cmd }

func (once) NoRetry() bool { return true }

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

// waitMilliseconds leaves some of ctx's time for the reply to come back: Redis may
// look at the clock only every 100 ms.
func waitMilliseconds(ctx context.Context) int64 {
	deadline, ok := ctx.Deadline()
	if !ok {
		return time.Second.Milliseconds()
	}
	left := time.Until(deadline)
	return max(1, min(left*3/4, left-150*time.Millisecond).Milliseconds())
}

// maxAttempts bounds the attempts at one write.
const maxAttempts = 3

// A purpose is what commands are sent for.
type purpose bool

const (
	changing purpose = false
	reading  purpose = true // and restarting a lifetime: that it happened is not worth knowing
)

// attempt runs what is safe to run again. lost says that the reply to an earlier
// attempt was lost, so that the last one may have met its effect.
func (r *redisStore) attempt(ctx context.Context, p purpose, run func() error) (lost bool, err error) {
	if err := ended(ctx); err != nil {
		return false, err
	}
	for n := 1; ; n++ {
		err = run()
		if err == nil || errors.Is(err, ErrConflict) || errors.Is(err, ErrIndeterminate) {
			return lost, err
		}
		if maybeApplied(err) {
			lost = true
		}
		if n == maxAttempts || ctx.Err() != nil || !worthRetrying(err) {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(n) * 10 * time.Millisecond):
		}
	}
	if lost && p == changing {
		return lost, indeterminate(err)
	}
	return lost, unavailable(err)
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
	// From a client itself these come before a connection was had. A deadline that
	// passes while a reply is awaited is a timeout of the network.
	context.DeadlineExceeded, context.Canceled,
}

// maybeApplied reports whether a write that failed so may have been executed.
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

// worthRetrying reports whether another attempt may fare better.
func worthRetrying(err error) bool {
	if _, ok := errors.AsType[redis.Error](err); !ok {
		return !errors.Is(err, redis.ErrClosed)
	}
	_, moved := redis.IsMovedError(err)
	return moved || redis.IsReadOnlyError(err) || redis.IsLoadingError(err) || redis.IsMasterDownError(err) ||
		redis.IsClusterDownError(err) || redis.IsTryAgainError(err) || redis.IsNoReplicasError(err) ||
		redis.IsMaxClientsError(err)
}

// errForeignReply is what a connection answers that is out of step: another
// command's reply.
var errForeignReply = errors.New("the connection handed out another command's reply")

// replyCode returns the code of an error that Redis replied: "LOADING", "OOM".
func replyCode(err error) string {
	reply, ok := errors.AsType[redis.Error](err)
	if !ok || reply == redis.Nil {
		return ""
	}
	code, _, _ := strings.Cut(reply.Error(), " ")
	return code
}
