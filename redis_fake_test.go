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

// A fakeCall is one run of a script.
type fakeCall struct {
	*fakeRedis
	keys    []string
	argv    []string // from 1, as in Lua
	key     string   // the first
	index   string   // the second, or ""
	record  string   // what key holds
	there   bool
	rotated bool // record is a pointer
}

// fakeScripts are the scripts by the names of their files. They return what is in
// the reply behind the tag.
var fakeScripts = map[string]func(fakeCall) string{
	"load":    fakeCall.load,
	"pointer": fakeCall.pointer,
	"create":  fakeCall.create,
	"replace": fakeCall.replace,
	"rotate":  fakeCall.rotate,
	"delete":  fakeCall.delete,
	"revoke":  fakeCall.revoke,
}

func (f *fakeRedis) script(source string, args []string) (any, error) {
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return nil, fakeReply("ERR value is not an integer")
	}
	c := fakeCall{fakeRedis: f, keys: args[3 : 3+n], argv: append([]string{""}, args[3+n:]...)}
	c.key = c.keys[0]
	if n > 1 {
		c.index = c.keys[1]
	}
	c.record, c.there = f.get(c.key)
	c.rotated = strings.HasPrefix(c.record, pointerMark)
	tag, name := c.argv[1], f.names[source]
	if name == "list" {
		return append([]any{tag}, c.list()...), nil
	}
	script, ok := fakeScripts[name]
	if !ok {
		return nil, fakeReply("ERR unknown script")
	}
	return tag + script(c), nil
}

// unlisted deletes a session whose index entry is gone.
func (c fakeCall) unlisted(id string) bool {
	if c.index == "" {
		return false
	}
	if _, ok := c.zscore(c.index, id); ok {
		return false
	}
	c.del(c.key)
	return true
}

func (c fakeCall) load() string {
	switch {
	case !c.there:
		return ""
	case c.rotated:
		return c.record
	case c.unlisted(c.argv[3]):
		return ""
	}
	c.prolong(c.index, c.argv[2])
	c.pexpire(c.key, c.argv[2])
	return c.record
}

func (c fakeCall) pointer() string {
	if c.rotated {
		ends, _ := strconv.ParseInt(c.record[73:], 10, 64)
		if c.now().UnixMilli() >= ends {
			c.del(c.key)
			return ""
		}
		c.values[c.key] = fakeValue{s: c.record, expires: time.UnixMilli(ends)}
	}
	return c.record
}

func (c fakeCall) create() string {
	if c.there && c.record != c.argv[4] {
		return "conflict"
	}
	c.set(c.key, c.argv[4], c.argv[2])
	c.serial++
	c.zadd(c.index, c.argv[3], c.serial)
	c.prolong(c.index, c.argv[2])
	limit, _ := strconv.Atoi(c.argv[5])
	looks, _ := strconv.Atoi(c.argv[6])
	ids := c.zrange(c.index)
	excess := len(ids) - limit
	if limit == 0 || excess <= 0 {
		return "ok"
	}
	var live, gone []string
	for _, id := range ids[:min(len(ids), looks)] {
		if _, ok := c.live(c.index + ":" + id); !ok && excess > 0 {
			c.zrem(c.index, id)
			excess--
		} else {
			live = append(live, id)
		}
	}
	for _, id := range live {
		if excess > 0 && id != c.argv[3] {
			c.del(c.index + ":" + id)
			c.zrem(c.index, id)
			gone = append(gone, " "+id)
			excess--
		}
	}
	return "ok" + strings.Join(gone, "")
}

func (c fakeCall) replace() string {
	switch {
	case !c.there, !c.rotated && c.unlisted(c.argv[3]):
		return "gone"
	case c.record != c.argv[5] && !strings.HasPrefix(c.record, c.argv[4]):
		return "conflict"
	}
	c.set(c.key, c.argv[5], c.argv[2])
	if c.index != "" {
		c.prolong(c.index, c.argv[2])
	}
	return "ok"
}

func (c fakeCall) rotate() string {
	switch {
	case !c.there:
		return "gone"
	case strings.HasPrefix(c.record, c.argv[6]):
		return "ok"
	case !strings.HasPrefix(c.record, c.argv[4]):
		return "conflict"
	case c.unlisted(c.argv[3]):
		return "gone"
	}
	if c.index != "" {
		score, _ := c.zscore(c.index, c.argv[3])
		c.set(c.keys[2], c.argv[5], c.argv[2])
		c.zadd(c.index, c.argv[8], score)
		c.zrem(c.index, c.argv[3])
		c.prolong(c.index, c.argv[2])
	}
	if c.argv[7] == "0" {
		c.del(c.key)
	} else {
		grace, _ := strconv.ParseInt(c.argv[7], 10, 64)
		c.set(c.key, c.argv[6]+strconv.FormatInt(c.now().UnixMilli()+grace, 10), c.argv[7])
	}
	return "ok"
}

func (c fakeCall) delete() string {
	if c.rotated {
		return c.record
	}
	c.del(c.key)
	if c.index != "" {
		c.zrem(c.index, c.argv[2])
	}
	return ""
}

// list and revoke have the index as their first key.
func (c fakeCall) list() []any {
	most, _ := strconv.Atoi(c.argv[3])
	size, _ := strconv.Atoi(c.argv[4])
	reply := []any{""}
	looked, bytes := 0, 0
	for _, id := range slices.Backward(c.zrange(c.key)) {
		score, _ := c.zscore(c.key, id)
		if below, ok := strings.CutPrefix(c.argv[2], "("); ok {
			if n, _ := strconv.ParseInt(below, 10, 64); score >= n {
				continue
			}
		}
		if s, ok := c.get(c.key + ":" + id); ok {
			reply = append(reply, s, c.pttl(c.key+":"+id))
			bytes += len(s)
		} else {
			c.zrem(c.key, id)
		}
		if looked++; looked == most || bytes >= size {
			reply[0] = "(" + strconv.FormatInt(score, 10)
			break
		}
	}
	return reply
}

func (c fakeCall) revoke() string {
	most, _ := strconv.Atoi(c.argv[2])
	rotations, _ := strconv.Atoi(c.argv[3])
	spare := make(map[string]bool)
	for _, id := range c.argv[4:] {
		for range rotations {
			spare[id] = true
			s, _ := c.get(c.key + ":" + id)
			if !strings.HasPrefix(s, pointerMark) {
				break
			}
			id = s[37:73]
		}
	}
	var deleted int64
	ids := c.zrange(c.key)
	last := min(len(ids), most+len(spare))
	for _, id := range ids[:last] {
		if !spare[id] {
			deleted += c.del(c.key + ":" + id)
			c.zrem(c.key, id)
		}
	}
	reply := strconv.FormatInt(deleted, 10)
	if last < len(ids) {
		reply += "+"
	}
	return reply
}
