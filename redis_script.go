package echosession

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// script is a Lua script whose reply begins with its first argument, a tag. A
// reply with another tag belongs to another command.
type script struct {
	source, sha string
	purpose     purpose
}

func newScript(source string, p purpose) *script {
	source = preludeSource + source
	return &script{source, redis.NewScript(source).Hash(), p}
}

var (
	//go:embed lua/prelude.lua
	preludeSource string
	//go:embed lua/load.lua
	loadSource string
	//go:embed lua/pointer.lua
	pointerSource string
	//go:embed lua/create.lua
	createSource string
	//go:embed lua/replace.lua
	replaceSource string
	//go:embed lua/rotate.lua
	rotateSource string
	//go:embed lua/delete.lua
	deleteSource string
	//go:embed lua/list.lua
	listSource string
	//go:embed lua/revoke.lua
	revokeSource string
	//go:embed lua/check.lua
	checkSource string
	//go:embed lua/count.lua
	countSource string
	//go:embed lua/renew.lua
	renewSource string
	//go:embed lua/prepare.lua
	prepareSource string
	//go:embed lua/complete.lua
	completeSource string
	//go:embed lua/withdraw.lua
	withdrawSource string
	//go:embed lua/ping.lua
	pingSource string

	loadScript     = newScript(loadSource, reading)
	pointerScript  = newScript(pointerSource, reading)
	createScript   = newScript(createSource, changing)
	replaceScript  = newScript(replaceSource, changing)
	rotateScript   = newScript(rotateSource, changing)
	deleteScript   = newScript(deleteSource, changing)
	listScript     = newScript(listSource, reading)
	revokeScript   = newScript(revokeSource, changing)
	checkScript    = newScript(checkSource, reading)
	countScript    = newScript(countSource, reading)
	renewScript    = newScript(renewSource, changing)
	prepareScript  = newScript(prepareSource, changing)
	completeScript = newScript(completeSource, changing)
	withdrawScript = newScript(withdrawSource, changing)
	pingScript     = newScript(pingSource, reading)
)

// eval runs the script once, and returns its reply without the tag.
func (s *script) eval(ctx context.Context, r *redisStore, keys []string, args []any) (any, error) {
	tag := r.tag()
	send := func(whole bool) (once, error) {
		cmd := once{redis.NewCmd(ctx, s.command(whole, tag, keys, args)...)}
		if s.purpose == reading {
			return cmd, r.process(ctx, cmd)
		}
		return cmd, r.write(ctx, keys[0], cmd)
	}
	cmd, err := send(false)
	if err != nil && redis.HasErrorPrefix(err, "NOSCRIPT") {
		cmd, err = send(true)
	}
	if err != nil {
		return nil, err
	}
	return untagged(cmd.Val(), tag)
}

// command returns the command that runs the script. whole sends the source, for a server
// that does not know it.
func (s *script) command(whole bool, tag string, keys []string, args []any) []any {
	all := make([]any, 0, 4+len(keys)+len(args))
	if whole {
		all = append(all, "eval", s.source, len(keys))
	} else {
		all = append(all, "evalsha", s.sha, len(keys))
	}
	for _, key := range keys {
		all = append(all, key)
	}
	all = append(all, tag)
	return append(all, args...)
}

// tag returns another tag at every call.
func (r *redisStore) tag() string {
	return string(binary.BigEndian.AppendUint64(nil, r.tags.Add(1)))
}

// untagged returns a script's reply without the tag that it must begin with.
func untagged(reply any, tag string) (any, error) {
	switch reply := reply.(type) {
	case string:
		if rest, ok := strings.CutPrefix(reply, tag); ok {
			return rest, nil
		}
	case []any:
		if len(reply) > 0 && reply[0] == tag {
			return reply[1:], nil
		}
	}
	return nil, errForeignReply
}

// run runs a script that has the same effect when it runs twice.
func (s *script) run(ctx context.Context, r *redisStore, keys []string, args ...any) (reply string, err error) {
	_, err = r.attempt(ctx, s.purpose, func() error {
		value, err := s.eval(ctx, r, keys, args)
		reply, _ = value.(string)
		return err
	})
	return reply, err
}

// verdict runs a script that replies whether it made its change. lost says that the
// reply to an earlier attempt was lost.
func (s *script) verdict(ctx context.Context, r *redisStore, keys []string, args ...any) (reply string, lost bool, err error) {
	defer r.recent.writing(keys[0])()
	lost, err = r.attempt(ctx, s.purpose, func() error {
		value, err := s.eval(ctx, r, keys, args)
		reply, _ = value.(string)
		return err
	})
	return reply, lost, err
}

// apply is verdict for a script whose "ok" alone can be believed once a reply was lost: a
// "gone" or "conflict" may come from writes that followed the first attempt.
func (s *script) apply(ctx context.Context, r *redisStore, keys []string, args ...any) error {
	reply, lost, err := s.verdict(ctx, r, keys, args...)
	switch {
	case err != nil:
		return err
	case reply == "ok":
		return nil
	case lost:
		return indeterminate(errLostReply)
	}
	return verdictError(reply)
}

// verdictError returns the error for what a script replied instead of "ok".
func verdictError(reply string) error {
	switch reply {
	case "gone":
		return ErrNotFound
	case "renewed":
		return ErrRenewed
	case "full":
		return ErrTooManySessions
	}
	return ErrConflict
}

var errLostReply = errors.New("the reply was lost and another write came after")

// A scriptCall is one run of many.
type scriptCall struct {
	server string // as serverOf
	keys   []string
	args   []any

	tag   string
	cmd   *redis.Cmd
	reply string
	err   error
}

// evalMany runs a script that has the same effect when it runs twice for each call, and
// sets its reply and its error.
func (s *script) evalMany(ctx context.Context, r *redisStore, calls []scriptCall) {
	servers := make(map[string][]*scriptCall)
	for i := range calls {
		c := &calls[i]
		servers[c.server] = append(servers[c.server], c)
	}
	var wg sync.WaitGroup
	for _, group := range servers {
		wg.Go(func() { s.evalGroup(ctx, r, group) })
	}
	wg.Wait()
}

// evalGroup is evalMany for calls to one server, as a rule.
func (s *script) evalGroup(ctx context.Context, r *redisStore, group []*scriptCall) {
	if err := ended(ctx); err != nil {
		for _, c := range group {
			c.err = err
		}
		return
	}
	// Where a server does not know the script, the first call has to bring it. If that does
	// not help, the calls are for several servers.
	for _, whole := range []int{0, 1, len(group)} {
		for i, c := range group {
			c.tag = r.tag()
			c.cmd = redis.NewCmd(ctx, s.command(i < whole, c.tag, c.keys, c.args)...)
		}
		r.sendAll(ctx, group)
		group = slices.DeleteFunc(group, func(c *scriptCall) bool {
			return c.err == nil || !redis.HasErrorPrefix(c.err, "NOSCRIPT")
		})
		if len(group) == 0 {
			return
		}
	}
}

// sendAll sends the commands of calls in one round trip, and sets the replies and errors.
// A reply counts even if go-redis sets an error beside it, because time is up for other
// commands.
func (r *redisStore) sendAll(ctx context.Context, calls []*scriptCall) {
	pipe := r.client.(pipeliner).Pipeline()
	for _, c := range calls {
		_ = pipe.Process(ctx, c.cmd)
	}
	err := r.doubt(ctx, r.bounded(ctx, func() error {
		_, err := pipe.Exec(ctx)
		return err
	}))
	_, abandoned := errors.AsType[*abandonedError](err)
	for _, c := range calls {
		if abandoned {
			c.err = err // and the command may be running: nothing is read
			continue
		}
		reply, err := untagged(c.cmd.Val(), c.tag)
		c.reply, _ = reply.(string)
		c.err = err
		if err != nil {
			c.err = cmp.Or(c.cmd.Err(), err)
		}
	}
}
