package main

import (
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
)

// A site is the sessions of one keyspace, in one Redis.
type site struct {
	client   redis.UniversalClient
	store    echosession.Store
	keyspace string
	reader   *reader
}

// A siteFlags is what a command that reads records is told.
type siteFlags struct {
	target  target
	keyFile string
	maxAge  time.Duration
}

func (f *siteFlags) define(fs *flag.FlagSet) {
	f.target.define(fs)
	defineEncryptionKeys(fs, &f.keyFile)
	fs.DurationVar(&f.maxAge, "max-age", 24*time.Hour, "Config.MaxAge of the program, from which the last use is computed")
}

// open connects to Redis and reads the keys. The caller closes the client.
func (f *siteFlags) open(ctx context.Context, inv *invocation) (*site, error) {
	var keys [][]byte
	var err error
	if f.keyFile != "" {
		if keys, err = readEncryptionKeys(f.keyFile); err != nil {
			return nil, fmt.Errorf("-encryption-key-file: %w", err)
		}
	}
	s := &site{keyspace: f.target.keyspace}
	if s.reader, err = newReader(s.keyspace, keys, f.maxAge); err != nil {
		return nil, wrongFlags(err)
	}
	if s.client, err = f.target.connect(ctx, inv); err != nil {
		return nil, err
	}
	s.store, err = echosession.NewRedisStore(s.client, echosession.RedisOptions{Keyspace: s.keyspace})
	if err != nil {
		_ = s.client.Close()
		return nil, wrongFlags(err)
	}
	return s, nil
}

// wrongFlags says which flag holds what the library refuses.
func wrongFlags(err error) error {
	mistake, ok := errors.AsType[*echosession.ConfigError](err)
	if !ok {
		return err
	}
	switch mistake.Field {
	case "Keyspace":
		return errUsage("-keyspace: " + mistake.Reason)
	case "MaxAge", "TouchInterval":
		return errUsage("-max-age: " + mistake.Reason)
	case "EncryptionKeys":
		return errUsage("-encryption-key-file: " + mistake.Reason)
	}
	return err
}

// index is the key of the set of a subject's sessions. The sessions' own keys begin with it.
func (s *site) index(subject string) string {
	return hashOf(subject).index(s.keyspace)
}

// isIndexed reports whether the program keeps an index of this subject's sessions.
func (s *site) isIndexed(ctx context.Context, subject string) (bool, error) {
	n, err := s.client.Exists(ctx, s.index(subject)).Result()
	return n > 0, err
}

// ref is where a record is stored: in the index of its subject or on its own. It is false when
// the session has ended meanwhile.
func (s *site) ref(ctx context.Context, rec record) (ref echosession.Ref, ok bool, err error) {
	ref.ID = rec.id
	n, err := s.client.Exists(ctx, s.keyspace+rec.id).Result()
	if err != nil || n > 0 {
		return ref, n > 0, err
	}
	if rec.subject == "" {
		return ref, false, errHiddenSubject
	}
	ref.Subject = rec.subject
	n, err = s.client.Exists(ctx, s.index(rec.subject)+":"+rec.id).Result()
	return ref, n > 0, err
}

var errHiddenSubject = errors.New("its record does not tell its subject, which names its key: is it encrypted? then -encryption-key-file opens it")

// A place is a key that a session has or had.
type place struct {
	key   string
	id    string
	index string // the key of its subject's index; "" for a session that is in none
	value []byte
	ttl   time.Duration
}

// isLogID reports whether text has the form of what stands for a session in logs.
func isLogID(text string) bool {
	_, err := base64.RawURLEncoding.DecodeString(text)
	return len(text) == 12 && err == nil
}

// checkName returns what an argument names: a session ID, or what stands for one in logs.
func checkName(arg string) (string, error) {
	if lower := strings.ToLower(arg); isID(lower) {
		return lower, nil
	}
	if isLogID(arg) {
		return arg, nil
	}
	if looksLikeToken(arg) {
		return "", errUsage("a token does not belong on the command line: every user of the machine can read it there. \"echosession token\" reads it from a file, and says its session ID")
	}
	return "", errUsage("name a session by its ID, which has 36 characters, or by its log ID, which has 12")
}

// find finds the key of a session by its ID or its log ID. Without the subject an indexed
// session is found by looking through the names of all keys. It returns nil when there is
// no such key.
func (s *site) find(ctx context.Context, name, subject string) (*place, error) {
	if isID(name) {
		keys := []string{s.keyspace + name}
		if subject != "" {
			keys = append(keys, s.index(subject)+":"+name)
		}
		for _, key := range keys {
			if p, err := s.get(ctx, key); p != nil || err != nil {
				return p, err
			}
		}
		if subject != "" {
			return nil, nil
		}
	}
	pattern := globEscape(s.keyspace) + "*"
	if isID(name) {
		pattern = globEscape(s.keyspace) + "{*}:" + name
	}
	var found *place
	err := s.scan(ctx, pattern, func(keys []string) (bool, error) {
		for _, key := range keys {
			k, ok := parseSessionKey(key, s.keyspace)
			if id := k.ID(); !ok || id != name && echosession.LogID(id) != name {
				continue
			}
			var err error
			if found, err = s.get(ctx, key); found != nil || err != nil {
				return false, err
			}
		}
		return true, nil
	})
	return found, err
}

// get reads one key. It returns nil for one that is absent.
func (s *site) get(ctx context.Context, key string) (*place, error) {
	p := &place{key: key}
	if k, ok := parseSessionKey(key, s.keyspace); ok {
		p.id, p.index = k.ID(), k.index(s.keyspace)
	}
	value, err := s.client.Get(ctx, key).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if redis.HasErrorPrefix(err, "WRONGTYPE") {
		return nil, errors.New("the key of this session holds no string: another program has written it")
	}
	if err != nil {
		return nil, err
	}
	p.value = value
	p.ttl, err = s.client.PTTL(ctx, key).Result()
	return p, err
}

// nodes returns a client for each server that holds keys.
func (s *site) nodes(ctx context.Context) (nodes []redis.Cmdable, err error) {
	cluster, ok := s.client.(*redis.ClusterClient)
	if !ok {
		return []redis.Cmdable{s.client}, nil
	}
	var mu sync.Mutex
	err = cluster.ForEachMaster(ctx, func(_ context.Context, node *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		nodes = append(nodes, node)
		return nil
	})
	return nodes, err
}

// scanCount is how many keys one SCAN looks at. That takes Redis less than a millisecond, and
// so does what is then read of them: Redis serves others between the commands.
const scanCount = 500

// scan calls visit with the names of the keys that match a pattern, some at a time, until it
// returns false.
func (s *site) scan(ctx context.Context, pattern string, visit func(keys []string) (more bool, err error)) error {
	nodes, err := s.nodes(ctx)
	if err != nil {
		return err
	}
	for _, node := range nodes {
		for cursor := uint64(0); ; {
			var keys []string
			if keys, cursor, err = node.ScanType(ctx, cursor, pattern, scanCount, "string").Result(); err != nil {
				return err
			}
			if more, err := visit(keys); !more || err != nil {
				return err
			}
			if cursor == 0 {
				break
			}
		}
	}
	return nil
}

// globEscape makes a pattern of SCAN that matches s alone.
func globEscape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`).Replace(s)
}

// What a key holds that was a session's, and leads away from it.
type successor struct {
	state string // rotated, renewed or renewing
	to    string // the ID of the session that it became
}

// The states of a successor.
const (
	rotated  = "rotated"  // requests that were under way are led on
	renewed  = "renewed"  // nothing leads on
	renewing = "renewing" // a login that is under way, or that broke off
)

// leadsTo returns where a session went, or nil for what is a record, or should be one. Such a
// value begins with the byte 0xC1, its own ID and that of the successor.
func (p *place) leadsTo() *successor {
	const head = 1 + 2*36
	if len(p.value) <= head || p.value[0] != notARecord || string(p.value[1:37]) != p.id {
		return nil
	}
	s := &successor{state: rotated, to: string(p.value[37:head])}
	switch p.value[head] {
	case '!':
		s.state = renewed
	case '?':
		s.state, s.to = renewing, ""
	default:
		if _, err := strconv.Atoi(string(p.value[head : head+1])); err != nil {
			return nil
		}
	}
	return s
}

// isInIndex reports whether the index of the place has its session: without that no request
// finds it.
func (s *site) isInIndex(ctx context.Context, p *place) (bool, error) {
	if p.index == "" {
		return true, nil
	}
	err := s.client.ZScore(ctx, p.index, p.id).Err()
	if errors.Is(err, redis.Nil) {
		return false, nil
	}
	return err == nil, err
}
