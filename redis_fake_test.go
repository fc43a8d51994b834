package echosession_test

import (
	"cmp"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// fakeRedis is an in-process Redis of the commands that the store uses, one at a
// time. Its scripts are the Go twins of the .lua files; the conformance suite
// holds both to the same rules.
type fakeRedis struct {
	mu      sync.Mutex
	now     func() time.Time
	values  map[string]fakeValue
	scripts map[string]string // known source by SHA-1
	names   map[string]string // file name by source
	counts  map[string]int
	fail    func(cmd []string) error // consulted before a command is run
	lose    func(cmd []string) error // consulted after a command was run
	serial  int64                    // makes scores strictly rise
}

type fakeValue struct {
	s       string
	z       map[string]int64
	expires time.Time // zero: never
}

type fakeReply string

func (fakeReply) RedisError()     {}
func (e fakeReply) Error() string { return string(e) }

func newFakeRedis(t testing.TB) *fakeRedis {
	f := &fakeRedis{
		now:     time.Now,
		values:  make(map[string]fakeValue),
		scripts: make(map[string]string),
		names:   make(map[string]string),
		counts:  make(map[string]int),
	}
	for _, name := range []string{"load", "pointer", "create", "replace", "rotate", "delete", "list", "revoke"} {
		source, err := os.ReadFile("lua/" + name + ".lua")
		if err != nil {
			t.Fatal(err)
		}
		f.names[string(source)] = name
	}
	return f
}

// count returns how often a command was sent, and of all when name is "".
func (f *fakeRedis) count(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if name != "" {
		return f.counts[name]
	}
	total := 0
	for _, n := range f.counts {
		total += n
	}
	return total
}

func (f *fakeRedis) onCommand(fail, lose func(cmd []string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail, f.lose = fail, lose
}

// withoutExpiry returns the keys that would stay for ever.
func (f *fakeRedis) withoutExpiry() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var keys []string
	for key, v := range f.values {
		if v.expires.IsZero() {
			keys = append(keys, key)
		}
	}
	return keys
}

func (f *fakeRedis) Process(ctx context.Context, cmd redis.Cmder) error {
	if err := ctx.Err(); err != nil {
		cmd.SetErr(err)
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	args := make([]string, len(cmd.Args()))
	for i, a := range cmd.Args() {
		if b, ok := a.([]byte); ok {
			args[i] = string(b)
		} else {
			args[i] = fmt.Sprint(a)
		}
	}
	f.counts[args[0]]++
	reply, err := any(nil), error(nil)
	if f.fail != nil {
		err = f.fail(args)
	}
	if err == nil {
		reply, err = f.run(args)
		if f.lose != nil {
			if lost := f.lose(args); lost != nil {
				reply, err = nil, lost
			}
		}
	}
	if err == nil && reply == nil {
		err = redis.Nil
	}
	if err != nil {
		cmd.SetErr(err)
		return err
	}
	switch c := cmd.(type) {
	case *redis.ScanCmd:
		c.SetVal(reply.([]string), 0)
	case interface{ SetVal(string) }:
		c.SetVal(strings.Clone(reply.(string)))
	case interface{ SetVal(int64) }:
		c.SetVal(reply.(int64))
	case interface{ SetVal(any) }:
		c.SetVal(reply)
	default:
		return fmt.Errorf("fake: a reply of type %T", cmd)
	}
	return nil
}

func (f *fakeRedis) run(args []string) (any, error) {
	switch args[0] {
	case "get", "getex":
		s, ok := f.get(args[1])
		if !ok {
			return nil, nil
		}
		if len(args) == 4 && args[0] == "getex" {
			f.pexpire(args[1], args[3])
		} else if len(args) != 2 {
			return nil, fakeReply("ERR syntax error")
		}
		return s, nil
	case "set": // SET key value PX ms NX
		if _, taken := f.get(args[1]); taken {
			return nil, nil
		}
		f.set(args[1], args[2], args[4])
		return "OK", nil
	case "del":
		return f.del(args[1]), nil
	case "pttl":
		return f.pttl(args[1]), nil
	case "scan":
		var keys []string
		for key := range f.values {
			if v, ok := f.live(key); ok && v.z == nil && strings.HasPrefix(key, strings.TrimSuffix(args[3], "*")) {
				keys = append(keys, key)
			}
		}
		return keys, nil
	case "evalsha":
		source, ok := f.scripts[args[1]]
		if !ok {
			return nil, fakeReply("NOSCRIPT No matching script. Please use EVAL.")
		}
		return f.script(source, args)
	case "eval":
		sum := sha1.Sum([]byte(args[1]))
		f.scripts[hex.EncodeToString(sum[:])] = args[1]
		return f.script(args[1], args)
	}
	return nil, fakeReply("ERR unknown command " + args[0])
}

func (f *fakeRedis) live(key string) (fakeValue, bool) {
	v, ok := f.values[key]
	if ok && !v.expires.IsZero() && !f.now().Before(v.expires) {
		delete(f.values, key)
		return fakeValue{}, false
	}
	return v, ok
}

func (f *fakeRedis) get(key string) (string, bool) {
	v, ok := f.live(key)
	return v.s, ok
}

func (f *fakeRedis) set(key, value, ms string) {
	f.values[key] = fakeValue{s: value}
	f.pexpire(key, ms)
}

func (f *fakeRedis) del(key string) int64 {
	_, ok := f.live(key)
	delete(f.values, key)
	if ok {
		return 1
	}
	return 0
}

func (f *fakeRedis) pttl(key string) int64 {
	v, ok := f.live(key)
	switch {
	case !ok:
		return -2
	case v.expires.IsZero():
		return -1
	}
	return v.expires.Sub(f.now()).Milliseconds()
}

func (f *fakeRedis) pexpire(key, ms string) {
	n, err := strconv.ParseInt(ms, 10, 64)
	if err != nil || n <= 0 {
		panic("fake: lifetime " + ms)
	}
	v := f.values[key]
	v.expires = f.now().Add(time.Duration(n) * time.Millisecond)
	f.values[key] = v
}

// prolong gives an index at least the lifetime of its session.
func (f *fakeRedis) prolong(index, ms string) {
	if n, _ := strconv.ParseInt(ms, 10, 64); f.pttl(index) < n {
		f.pexpire(index, ms)
	}
}

func (f *fakeRedis) zadd(index, id string, score int64) {
	v, ok := f.live(index)
	if !ok {
		v = fakeValue{z: make(map[string]int64)}
		f.values[index] = v
	}
	if _, there := v.z[id]; !there {
		v.z[id] = score
	}
}

func (f *fakeRedis) zrem(index, id string) {
	if v, ok := f.live(index); ok {
		delete(v.z, id)
		if len(v.z) == 0 {
			delete(f.values, index)
		}
	}
}

func (f *fakeRedis) zscore(index, id string) (int64, bool) {
	v, _ := f.live(index)
	score, ok := v.z[id]
	return score, ok
}

func (f *fakeRedis) zrange(index string) []string {
	v, _ := f.live(index)
	return slices.SortedFunc(maps.Keys(v.z), func(a, b string) int { return cmp.Compare(v.z[a], v.z[b]) })
}

const pointerMark = "\xc1"

func (f *fakeRedis) script(source string, args []string) (any, error) {
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return nil, fakeReply("ERR value is not an integer")
	}
	keys, argv := args[3:3+n], append([]string{""}, args[3+n:]...)
	key, tag := keys[0], argv[1]
	index := ""
	if n > 1 {
		index = keys[1]
	}
	record, there := f.get(key)
	rotated := strings.HasPrefix(record, pointerMark)
	// unlisted deletes a session whose index entry is gone.
	unlisted := func(id string) bool {
		if index == "" {
			return false
		}
		if _, ok := f.zscore(index, id); ok {
			return false
		}
		f.del(key)
		return true
	}
	switch name := f.names[source]; name {
	case "load":
		switch {
		case !there:
			return tag, nil
		case rotated:
			return tag + record, nil
		case unlisted(argv[3]):
			return tag, nil
		}
		f.prolong(index, argv[2])
		f.pexpire(key, argv[2])
		return tag + record, nil
	case "pointer":
		if rotated {
			ends, _ := strconv.ParseInt(record[73:], 10, 64)
			if f.now().UnixMilli() >= ends {
				f.del(key)
				return tag, nil
			}
			f.values[key] = fakeValue{s: record, expires: time.UnixMilli(ends)}
		}
		return tag + record, nil
	case "create":
		if there && record != argv[4] {
			return tag + "conflict", nil
		}
		f.set(key, argv[4], argv[2])
		f.serial++
		f.zadd(index, argv[3], f.serial)
		f.prolong(index, argv[2])
		limit, _ := strconv.Atoi(argv[5])
		var live []string
		for _, id := range f.zrange(index) {
			if _, ok := f.live(index + ":" + id); !ok {
				f.zrem(index, id)
			} else {
				live = append(live, id)
			}
		}
		for i := 0; limit > 0 && i < len(live)-limit; i++ {
			f.del(index + ":" + live[i])
			f.zrem(index, live[i])
		}
		return tag + "ok", nil
	case "replace":
		switch {
		case !there, !rotated && unlisted(argv[3]):
			return tag + "gone", nil
		case record != argv[5] && !strings.HasPrefix(record, argv[4]):
			return tag + "conflict", nil
		}
		f.set(key, argv[5], argv[2])
		if index != "" {
			f.prolong(index, argv[2])
		}
		return tag + "ok", nil
	case "rotate":
		switch {
		case !there:
			return tag + "gone", nil
		case strings.HasPrefix(record, argv[6]):
			return tag + "ok", nil
		case !strings.HasPrefix(record, argv[4]):
			return tag + "conflict", nil
		case unlisted(argv[3]):
			return tag + "gone", nil
		}
		if index != "" {
			score, _ := f.zscore(index, argv[3])
			f.set(keys[2], argv[5], argv[2])
			f.zadd(index, argv[8], score)
			f.zrem(index, argv[3])
			f.prolong(index, argv[2])
		}
		if argv[7] == "0" {
			f.del(key)
		} else {
			grace, _ := strconv.ParseInt(argv[7], 10, 64)
			f.set(key, argv[6]+strconv.FormatInt(f.now().UnixMilli()+grace, 10), argv[7])
		}
		return tag + "ok", nil
	case "delete":
		if rotated {
			return tag + record, nil
		}
		f.del(key)
		if index != "" {
			f.zrem(index, argv[2])
		}
		return tag, nil
	case "list":
		reply := []any{tag}
		for _, id := range f.zrange(key) {
			if s, ok := f.get(key + ":" + id); ok {
				reply = append(reply, s, f.pttl(key+":"+id))
			} else {
				f.zrem(key, id)
			}
		}
		return reply, nil
	case "revoke":
		spare := make(map[string]bool)
		for _, id := range argv[2:] {
			for id != "" {
				spare[id] = true
				s, _ := f.get(key + ":" + id)
				if id = ""; strings.HasPrefix(s, pointerMark) {
					id = s[37:73]
				}
			}
		}
		var deleted int64
		for _, id := range f.zrange(key) {
			if !spare[id] {
				deleted += f.del(key + ":" + id)
				f.zrem(key, id)
			}
		}
		return tag + strconv.FormatInt(deleted, 10), nil
	}
	return nil, fakeReply("ERR unknown script")
}
