package echosession_test

import (
	"cmp"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"maps"
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

	published []string // channel, space and message of each
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
	for name, source := range luaSources(t) {
		f.names[source] = name
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

// messages returns what was published since the last call.
func (f *fakeRedis) messages() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	messages := f.published
	f.published = nil
	return messages
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

// keys returns the keys that are there.
func (f *fakeRedis) keys() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var keys []string
	for key := range f.values {
		if _, ok := f.live(key); ok {
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
	case "getdel":
		s, ok := f.get(args[1])
		if !ok {
			return nil, nil
		}
		f.del(args[1])
		return s, nil
	case "set": // SET key value PX ms, and perhaps NX or XX
		if len(args) == 5 {
			f.set(args[1], args[2], args[4])
			return "OK", nil
		}
		if _, taken := f.get(args[1]); taken == (args[5] == "nx") {
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

// fakeKind is kind of prelude.lua.
func fakeKind(value string, there bool) string {
	switch {
	case !there:
		return ""
	case value[0] != 0xc1:
		return "record"
	case value[73] == '!':
		return "mark"
	case value[73] == '?':
		return "pending"
	}
	return "pointer"
}

// after is the end of a value, ms from now.
func (f *fakeRedis) after(ms string) string {
	n, _ := strconv.ParseInt(ms, 10, 64)
	return strconv.FormatInt(f.now().UnixMilli()+n, 10)
}

// session is the key of an index's member.
func session(index, member string) string { return index + ":" + strings.TrimPrefix(member, "?") }

// exists reports whether there is anything under the key of an index's member.
func (f *fakeRedis) exists(index, member string) bool {
	_, ok := f.live(session(index, member))
	return ok
}

// enter adds the newest member of an index.
func (f *fakeRedis) enter(index, member, ms string) {
	f.serial++
	f.zadd(index, member, f.serial)
	f.prolong(index, ms)
}

// room says whether there is room for one more session.
func (f *fakeRedis) room(index string, limit, most int) string {
	members := f.zrange(index)
	left, live := len(members), 0
	if left < limit {
		return "ok"
	}
	for _, member := range members[:min(left, limit+most+1)] {
		if f.exists(index, member) {
			if live++; live == limit {
				return "full"
			}
			continue
		}
		f.zrem(index, member)
		if left--; left < limit {
			return "ok"
		}
	}
	return "again"
}

// publish publishes that sessions have ended.
func (f *fakeRedis) publish(channel, index string, ids, spared []string) {
	if len(ids) == 0 {
		return
	}
	sign, hash := "-", ""
	if len(ids) > 100 {
		sign, ids = "*", spared
		if len(spared) > 100 {
			ids = nil
		}
	}
	if index != "" {
		hash = index[len(index)-23 : len(index)-1]
	}
	f.published = append(f.published, channel+" "+sign+hash+":"+strings.Join(ids, ""))
}

// trim ends the oldest sessions beyond limit but own, publishes that, and returns their IDs.
func (f *fakeRedis) trim(index string, limit, most int, own, channel string) (gone string) {
	members := f.zrange(index)
	excess := len(members) - limit
	if limit == 0 || excess <= 0 {
		return ""
	}
	var live []string
	for _, member := range members[:min(len(members), most)] {
		switch {
		case excess > 0 && !f.exists(index, member):
			f.zrem(index, member)
			excess--
		case member[0] == '?':
			excess--
		default:
			live = append(live, member)
		}
	}
	var ended []string
	for _, id := range live {
		if excess > 0 && id != own {
			f.del(session(index, id))
			f.zrem(index, id)
			gone += " " + id
			ended = append(ended, id)
			excess--
		}
	}
	f.publish(channel, index, ended, []string{own})
	return gone
}

// A fakeCall is one run of a script.
type fakeCall struct {
	*fakeRedis
	keys  []string
	argv  []string // from 1, as in Lua
	key   string   // the first
	index string   // the second, or ""
	value string   // what key holds
	is    string   // its kind, or ""
}

// number returns an argument that is one.
func (c fakeCall) number(i int) int {
	n, err := strconv.Atoi(c.argv[i])
	if err != nil {
		panic(err)
	}
	return n
}

// fakeScripts are the scripts by the names of their files. They return what is in
// the reply behind the tag.
var fakeScripts = map[string]func(fakeCall) string{
	"load":     fakeCall.load,
	"pointer":  fakeCall.pointer,
	"create":   fakeCall.create,
	"replace":  fakeCall.replace,
	"rotate":   fakeCall.rotate,
	"delete":   fakeCall.delete,
	"revoke":   fakeCall.revoke,
	"check":    fakeCall.check,
	"renew":    fakeCall.renew,
	"prepare":  fakeCall.prepare,
	"complete": fakeCall.complete,
	"withdraw": fakeCall.withdraw,
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
	value, there := f.get(c.key)
	if c.value = value; value != "" {
		c.is = fakeKind(value, there)
	}
	tag, name := c.argv[1], f.names[source]
	switch name {
	case "list":
		return append([]any{tag}, c.list()...), nil
	case "ping":
		return []any{tag}, nil
	case "count":
		return append([]any{tag}, c.count()...), nil
	}
	script, ok := fakeScripts[name]
	if !ok {
		return nil, fakeReply("ERR unknown script")
	}
	return tag + script(c), nil
}

// unlisted deletes a session whose index entry is gone.
func (c fakeCall) unlisted(id string) bool {
	if c.listed(id) {
		return false
	}
	c.del(c.key)
	return true
}

func (c fakeCall) listed(id string) bool {
	if c.index == "" {
		return true
	}
	_, ok := c.zscore(c.index, id)
	return ok
}

func (c fakeCall) load() string {
	if c.is != "record" {
		return c.value
	}
	if c.unlisted(c.argv[3]) {
		return ""
	}
	c.prolong(c.index, c.argv[2])
	c.pexpire(c.key, c.argv[2])
	return c.value
}

func (c fakeCall) check() string {
	if c.is != "record" {
		return c.value
	}
	if !c.listed(c.argv[2]) {
		return ""
	}
	return strconv.FormatInt(c.pttl(c.key), 10)
}

func (c fakeCall) pointer() string {
	if c.is == "record" || c.is == "" {
		return c.value
	}
	ends, _ := strconv.ParseInt(strings.TrimLeft(c.value[73:], "!?"), 10, 64)
	left := ends - c.now().UnixMilli()
	if left <= 0 {
		c.del(c.key)
		return ""
	}
	c.values[c.key] = fakeValue{s: c.value, expires: time.UnixMilli(ends)}
	return c.value + " " + strconv.FormatInt(left, 10)
}

func (c fakeCall) create() string {
	taken := c.is != ""
	if taken && c.value != c.argv[4] {
		return "conflict"
	}
	limit, most, refuse := c.number(5), c.number(6), c.argv[7] == "1"
	if refuse && !taken {
		if answer := c.room(c.index, limit, most); answer != "ok" {
			return answer
		}
	}
	c.set(c.key, c.argv[4], c.argv[2])
	c.enter(c.index, c.argv[3], c.argv[2])
	if refuse {
		return "ok"
	}
	return "ok" + c.trim(c.index, limit, most, c.argv[3], c.argv[8])
}

func (c fakeCall) replace() string {
	switch {
	case c.is == "", c.is == "pending", c.is == "record" && c.unlisted(c.argv[3]):
		return "gone"
	case c.is == "mark":
		return "renewed"
	case c.value != c.argv[5] && !strings.HasPrefix(c.value, c.argv[4]):
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
	case c.is == "", c.is == "pending":
		return "gone"
	case c.is == "mark":
		return "renewed"
	case strings.HasPrefix(c.value, c.argv[6]):
		return "ok"
	case !strings.HasPrefix(c.value, c.argv[4]):
		return "conflict"
	case c.unlisted(c.argv[3]):
		return "gone"
	}
	if c.index != "" {
		c.succeed(c.argv[3], c.argv[8], c.argv[5], c.argv[2])
	}
	if c.argv[7] == "0" {
		c.del(c.key)
	} else {
		c.set(c.key, c.argv[6]+c.after(c.argv[7]), c.argv[7])
	}
	c.publish(c.argv[9], c.index, c.argv[3:4], nil)
	return "ok"
}

// succeed stores a successor of the same subject, in the place of the session.
func (c fakeCall) succeed(id, next, record, ms string) {
	score, _ := c.zscore(c.index, id)
	c.set(c.keys[2], record, ms)
	c.zadd(c.index, next, score)
	c.zrem(c.index, id)
	c.prolong(c.index, ms)
}

func (c fakeCall) renew() string {
	switch {
	case c.is == "", c.is == "pending":
		return "gone"
	case c.is == "mark" && strings.HasPrefix(c.value, c.argv[4]):
		return "ok"
	case c.is == "mark":
		return "renewed"
	case c.is == "pointer", !strings.HasPrefix(c.value, c.argv[3]):
		return "conflict"
	case c.unlisted(c.argv[2]):
		return "gone"
	}
	if len(c.keys) == 3 {
		if _, taken := c.live(c.keys[2]); taken {
			return "conflict"
		}
		c.succeed(c.argv[2], c.argv[7], c.argv[8], c.argv[9])
	}
	c.set(c.key, c.argv[4]+c.after(c.argv[5]), c.argv[5])
	if c.index != "" {
		c.zrem(c.index, c.argv[2])
	}
	c.publish(c.argv[6], c.index, c.argv[2:3], nil)
	return "ok"
}

func (c fakeCall) prepare() string {
	if c.is != "" {
		if strings.HasPrefix(c.value, c.argv[2]) {
			return "ok"
		}
		return "conflict"
	}
	if limit := c.number(5); c.index != "" && limit > 0 {
		if answer := c.room(c.index, limit, c.number(6)); answer != "ok" {
			return answer
		}
	}
	c.set(c.key, c.argv[2]+c.after(c.argv[3]), c.argv[3])
	if c.index != "" {
		c.enter(c.index, "?"+c.argv[4], c.argv[3])
	}
	return "ok"
}

func (c fakeCall) complete() string {
	switch {
	case c.is == "":
		return "gone"
	case c.is != "pending":
		return "ok"
	case c.index == "":
		c.set(c.key, c.argv[4], c.argv[2])
		return "ok"
	case c.unlisted("?" + c.argv[3]):
		return "gone"
	}
	c.zrem(c.index, "?"+c.argv[3])
	c.set(c.key, c.argv[4], c.argv[2])
	c.enter(c.index, c.argv[3], c.argv[2])
	return "ok" + c.trim(c.index, c.number(5), c.number(6), c.argv[3], c.argv[7])
}

func (c fakeCall) withdraw() string {
	if !strings.HasPrefix(c.value, c.argv[2]) {
		return "gone"
	}
	c.del(c.key)
	if c.index != "" {
		c.zrem(c.index, "?"+c.argv[3])
	}
	return "ok"
}

func (c fakeCall) delete() string {
	if c.is == "pointer" || c.is == "mark" {
		return c.value
	}
	c.del(c.key)
	if c.index != "" {
		c.zrem(c.index, c.argv[2])
		c.zrem(c.index, "?"+c.argv[2])
	}
	if c.is == "record" {
		c.publish(c.argv[3], c.index, c.argv[2:3], nil)
	}
	return ""
}

// list, count and revoke have the index as their first key.
func (c fakeCall) list() []any {
	most, size := c.number(3), c.number(4)
	reply := []any{""}
	looked, bytes := 0, 0
	for _, member := range c.below() {
		score, _ := c.zscore(c.key, member)
		key := session(c.key, member)
		if s, ok := c.get(key); !ok {
			c.zrem(c.key, member)
		} else if fakeKind(s, true) == "record" {
			reply = append(reply, s, c.pttl(key))
			bytes += len(s)
		}
		if looked++; looked == most || bytes >= size {
			reply[0] = "(" + strconv.FormatInt(score, 10)
			break
		}
	}
	return reply
}

// below returns the members of an index from the newest on, or from below the score that
// the last page replied.
func (c fakeCall) below() []string {
	members := c.zrange(c.key)
	slices.Reverse(members)
	below, ok := strings.CutPrefix(c.argv[2], "(")
	if !ok {
		return members
	}
	n, _ := strconv.ParseInt(below, 10, 64)
	return slices.DeleteFunc(members, func(member string) bool {
		score, _ := c.zscore(c.key, member)
		return score >= n
	})
}

func (c fakeCall) count() []any {
	more, live := "", int64(0)
	for i, member := range c.below() {
		score, _ := c.zscore(c.key, member)
		if !c.exists(c.key, member) {
			c.zrem(c.key, member)
		} else if member[0] != '?' {
			live++
		}
		if i+1 == c.number(3) {
			more = "(" + strconv.FormatInt(score, 10)
			break
		}
	}
	return []any{more, live}
}

func (c fakeCall) revoke() string {
	most, rotations := c.number(2), c.number(3)
	spare := make(map[string]bool)
	for _, id := range c.argv[5:] {
		for range rotations {
			spare[id] = true
			s, ok := c.get(session(c.key, id))
			if fakeKind(s, ok) != "pointer" {
				break
			}
			id = s[37:73]
		}
	}
	var deleted []string
	members := c.zrange(c.key)
	last := min(len(members), most+len(spare))
	for _, member := range members[:last] {
		if spare[member] {
			continue
		}
		n := c.del(session(c.key, member))
		c.zrem(c.key, member)
		if n == 1 && member[0] != '?' {
			deleted = append(deleted, member)
		}
	}
	c.publish(c.argv[4], c.key, deleted, slices.Collect(maps.Keys(spare)))
	reply := strconv.Itoa(len(deleted))
	if last < len(members) {
		reply += "+"
	}
	return reply
}
