package echosession

import (
	"context"
	"sync"

	"github.com/redis/go-redis/v9"
)

// keeps reports whether the client can serve what has ended elsewhere: out of its cache or
// from a replica. What r hears of ends then keeps it from doing so.
func (r *redisStore) keeps() bool { return r.recent != nil }

// serverOf names the server that has ref, as far as the client knows without asking. It is
// "" where there is one server, or nothing is known.
func (r *redisStore) serverOf(ref Ref) string {
	var (
		client *redis.Client
		err    error
	)
	switch c := r.client.(type) {
	case *redis.ClusterClient:
		client, err = c.MasterForKey(noTime, r.key(ref))
	case *redis.Ring:
		client, err = c.GetShardClientForKey(r.key(ref))
	}
	if client == nil || err != nil {
		return ""
	}
	return client.Options().Addr
}

// noTime is for calls that may not wait.
var noTime = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// checkMany is [Store.Check] for many refs, in one round trip. A server that does not
// answer leaves the refs of the others alone.
func (r *redisStore) checkMany(ctx context.Context, refs []Ref) []checked {
	answers := make([]checked, len(refs))
	if _, ok := r.client.(pipeliner); !ok {
		r.checkEach(ctx, refs, answers)
		return answers
	}
	calls := make([]scriptCall, len(refs))
	for i, ref := range refs {
		calls[i] = scriptCall{server: r.serverOf(ref), keys: r.keys(ref), args: []any{ref.ID}}
	}
	checkScript.evalMany(ctx, r, calls)
	var others []int // refs that hold no record
	var pointers []scriptCall
	for i, c := range calls {
		switch {
		case c.err != nil:
			answers[i].err = unavailable(refusal(c.err))
		case c.reply == "":
			answers[i].err = ErrNotFound
		case c.reply[0] == noRecord:
			others = append(others, i)
			pointers = append(pointers, scriptCall{server: c.server, keys: c.keys[:1]})
		default:
			answers[i].left, answers[i].err = lifetimeIn(c.reply)
		}
	}
	pointerScript.evalMany(ctx, r, pointers)
	for n, c := range pointers {
		i := others[n]
		if c.err != nil {
			answers[i].err = unavailable(refusal(c.err))
		} else if _, err := under(refs[i], []byte(c.reply)); err != nil {
			answers[i].err = err
		} else {
			answers[i].left, answers[i].err = r.Check(ctx, refs[i]) // it has become a record meanwhile
		}
	}
	return answers
}

// checkEach is checkMany for a client without pipelines.
func (r *redisStore) checkEach(ctx context.Context, refs []Ref, answers []checked) {
	const atOnce = 8
	var wg sync.WaitGroup
	for first := range min(atOnce, len(refs)) {
		wg.Go(func() {
			for i := first; i < len(refs); i += atOnce {
				answers[i].left, answers[i].err = r.Check(ctx, refs[i])
			}
		})
	}
	wg.Wait()
}
