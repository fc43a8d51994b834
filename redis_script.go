package echosession

import (
	"context"
	_ "embed"
	"encoding/binary"
	"errors"
	"strings"

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
	tag := string(binary.BigEndian.AppendUint64(nil, r.tags.Add(1)))
	all := make([]any, 0, 4+len(keys)+len(args))
	all = append(all, "evalsha", s.sha, len(keys))
	for _, key := range keys {
		all = append(all, key)
	}
	all = append(all, tag)
	all = append(all, args...)
	send := func() (once, error) {
		cmd := once{redis.NewCmd(ctx, all...)}
		if s.purpose == reading {
			return cmd, r.process(ctx, cmd)
		}
		return cmd, r.write(ctx, keys[0], cmd)
	}
	cmd, err := send()
	if err != nil && redis.HasErrorPrefix(err, "NOSCRIPT") {
		all[0], all[1] = "eval", s.source
		cmd, err = send()
	}
	if err != nil {
		return nil, err
	}
	switch reply := cmd.Val().(type) {
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
