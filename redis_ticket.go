package echosession

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// ticketKey is the key of a ticket. Scan passes it over: it is longer than a session's.
func (r *redisStore) ticketKey(key string) string { return r.keyspace + "ticket:" + key }

// PutTicket implements [TicketStore].
func (r *redisStore) PutTicket(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	ms, err := milliseconds(ttl)
	if err != nil {
		return err
	}
	_, err = r.sendOnce(ctx, r.ticketKey(key), "set", r.ticketKey(key), value, "px", ms)
	return err
}

// TakeTicket implements [TicketStore]. With WaitReplicas it waits for them: a failover to one
// that still has the ticket would bring it back.
func (r *redisStore) TakeTicket(ctx context.Context, key string) ([]byte, error) {
	value, err := r.sendOnce(ctx, r.ticketKey(key), "getdel", r.ticketKey(key))
	switch {
	case errors.Is(err, redis.Nil):
		return nil, ErrNotFound
	case err != nil:
		return nil, err
	}
	text, ok := value.(string)
	if !ok {
		return nil, unavailable(errForeignReply)
	}
	return []byte(text), nil
}

// sendOnce runs a command that changes key, and repeats it only while it was surely not
// run: a node that redirects, or a connection that could not be made. After a lost reply a
// repetition would find the ticket of the first run gone, or bring back one that was used
// meanwhile.
func (r *redisStore) sendOnce(ctx context.Context, key string, args ...any) (value any, err error) {
	absent := false
	_, err = r.attempt(ctx, changing, func() error {
		cmd := once{redis.NewCmd(ctx, args...)}
		err := r.write(ctx, key, cmd)
		switch {
		case err == nil:
			value = cmd.Val()
		case errors.Is(err, redis.Nil):
			absent = true
			return nil
		case maybeApplied(err):
			return indeterminate(err)
		}
		return err
	})
	if err == nil && absent {
		err = redis.Nil
	}
	return value, err
}
