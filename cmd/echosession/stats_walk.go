package main

import (
	"cmp"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
)

// A walker visits the sessions of a keyspace in small steps.
type walker struct {
	*site

	// unseal says that there are encryption keys. Then a sealed record is read in whole: its
	// subject is in the sealed part.
	unseal bool

	// whole says that this user of Redis may read records only in whole.
	whole atomic.Bool
}

// openWalker connects, and makes ready to read records. The caller closes the client.
func openWalker(ctx context.Context, inv *invocation, f *siteFlags) (*walker, error) {
	s, err := f.open(ctx, inv)
	if err != nil {
		return nil, err
	}
	return &walker{site: s, unseal: f.keyFile != ""}, nil
}

// keys asks a server for one page of keys. It returns those of sessions, and the cursor of
// the next page, which is 0 after the last one.
func (w *walker) keys(ctx context.Context, node redis.Cmdable, cursor uint64) (page []sessionKey, next uint64, err error) {
	names, next, err := node.Scan(ctx, cursor, globEscape(w.keyspace)+"*", scanCount).Result()
	for _, name := range names {
		if k, ok := parseSessionKey(name, w.keyspace); ok {
			page = append(page, k)
		}
	}
	return page, next, err
}

// A visit is a session that was read.
type visit struct {
	key    sessionKey
	rec    record
	bad    bool // the record cannot be read
	hidden bool // it is sealed, and only what stands in clear was read
}

// headBytes is more than what stands in front of a record's extras and data: 64 bytes, and a
// subject of up to 1,024.
const headBytes = 1152

// read reads what stands at the beginning of records. A key that holds no record any more, or
// leads to another one, is left out.
func (w *walker) read(ctx context.Context, keys []sessionKey) ([]visit, error) {
	type reply struct {
		value *redis.StringCmd
		size  *redis.IntCmd
		left  *redis.DurationCmd
	}
	if len(keys) == 0 {
		return nil, nil
	}
	replies := make([]reply, len(keys))
	_, err := w.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, k := range keys {
			key := k.in(w.keyspace)
			r := &replies[i]
			if w.whole.Load() {
				r.value = pipe.Get(ctx, key)
			} else {
				r.value, r.size = pipe.GetRange(ctx, key, 0, headBytes-1), pipe.StrLen(ctx, key)
			}
			r.left = pipe.PTTL(ctx, key)
		}
		return nil
	})
	if redis.HasErrorPrefix(err, "NOPERM") && !w.whole.Load() {
		w.whole.Store(true)
		return w.read(ctx, keys)
	}
	visits := make([]visit, 0, len(keys))
	for i, r := range replies {
		value, err := r.value.Bytes()
		switch {
		case errors.Is(err, redis.Nil):
			continue
		case redis.HasErrorPrefix(err, "WRONGTYPE"):
			visits = append(visits, visit{key: keys[i], bad: true})
			continue
		case cmp.Or(err, r.left.Err()) != nil:
			return nil, cmp.Or(err, r.left.Err())
		case len(value) == 0 || value[0] == notARecord || r.left.Val() <= 0:
			continue
		}
		size := len(value)
		if r.size != nil {
			size = int(r.size.Val())
		}
		v, err := w.visit(ctx, keys[i], value, size, r.left.Val())
		if err != nil {
			return nil, err
		}
		visits = append(visits, v)
	}
	return visits, nil
}

// visit reads one record. Of a sealed one that no key opens it reads what stands in clear.
func (w *walker) visit(ctx context.Context, key sessionKey, value []byte, size int, left time.Duration) (visit, error) {
	v := visit{key: key}
	head, sealed, ok := cutRecord(value)
	if sealed && w.unseal {
		if size > len(value) {
			whole, err := w.client.Get(ctx, key.in(w.keyspace)).Bytes()
			if err != nil && !errors.Is(err, redis.Nil) {
				return v, err
			}
			value = whole
		}
		if rec, err := w.reader.read(echosession.Entry{Record: value, TTL: left}); err == nil {
			v.rec = rec
			return v, nil
		}
	}
	var err error
	if ok {
		v.rec, err = w.reader.read(echosession.Entry{Record: head, TTL: left})
	}
	v.rec.size, v.rec.sealed, v.hidden = size, sealed, sealed
	v.bad = !ok || err != nil
	return v, nil
}

// cutRecord makes a record that ends behind the subject, or behind the flags of one that is
// sealed, with no data. So the library reads a record of any length in few bytes.
func cutRecord(value []byte) (head []byte, sealed, ok bool) {
	if len(value) < 20 || value[1] < formatMsgpack || value[1] > formatSealedCodec {
		return nil, false, false
	}
	sealed = value[1] >= formatSealedMsgpack
	elements := 7 // revision, created-at, authenticated-at, idle timeout, deadline, flags, subject
	if sealed {
		elements--
	}
	u := unpacker{data: value, pos: 20}
	for range elements {
		if t, err := u.next(); err != nil || t.form == formArray || t.form == formMap {
			return nil, sealed, false
		}
	}
	head = append(head, value[:u.pos]...)
	if sealed {
		head[0]++ // such a record has one element less
		head[1] -= formatSealedMsgpack - formatMsgpack
		head = append(head, 0xc0) // the subject: nil
	}
	head = append(head, 0xc0) // no extras
	if head[1] == formatCodec {
		return append(head, 0xc4, 0), sealed, true // an empty binary
	}
	return append(head, 0xc0), sealed, true
}
