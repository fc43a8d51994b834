package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/echosession/echosession"
)

// A record is what a stored session says of itself, whatever the program's type is. Of a
// record that cannot be read it has what stands in clear.
type record struct {
	id      string
	subject string // sealed in a record that is
	device  string // likewise
	actor   string // likewise

	createdAt       time.Time
	authenticatedAt time.Time     // zero: a guest
	lastUsed        time.Time     // zero: not known
	expiresAt       time.Time     // if it is not used again
	deadline        time.Time     // when it ends however much it is used; zero: never
	idle            time.Duration // its own idle timeout; 0: the configured one; noIdle: it lives until its deadline
	remembered      bool

	otherCodec bool // another Codec than MessagePack wrote the data
	sealed     bool
	size       int    // of the record, in bytes
	data       []byte // MessagePack, or what the Codec made; nil when it cannot be read
}

// noIdle is the idle timeout of a session that has none.
const noIdle time.Duration = -1

// logID is what stands for the session in logs.
func (r *record) logID() string { return echosession.LogID(r.id) }

// json returns the session's data as JSON. What another Codec made is JSON already, or a
// string in base64.
func (r *record) json() (json.RawMessage, error) {
	if !r.otherCodec {
		return toJSON(r.data)
	}
	if json.Valid(r.data) {
		return r.data, nil
	}
	return json.Marshal(r.data)
}

// A reader reads records without knowing the type of their data. It is the library that
// reads them. It is safe for concurrent use.
type reader struct {
	mu      sync.Mutex
	entry   echosession.Entry // what the store of the managers holds
	msgpack *echosession.Manager[stored]
	other   *echosession.Manager[stored]
}

// newReader returns a reader of the records of a keyspace. The last use of a session is
// computed with maxAge, which is Config.MaxAge of the program; 0 is its default.
func newReader(keyspace string, encryptionKeys [][]byte, maxAge time.Duration) (*reader, error) {
	r := new(reader)
	secret := make([]byte, 32) // no token is made or read
	rand.Read(secret)
	cfg := echosession.Config{
		Store: one{entry: &r.entry}, Secret: secret, Keyspace: keyspace, MaxAge: maxAge,
		EncryptionKeys: encryptionKeys, AllowPlaintext: len(encryptionKeys) > 0,
		MaxRecordSize: 512 << 20, // as large as a value of Redis
		Logger:        slog.New(slog.DiscardHandler),
	}
	var err error
	if r.msgpack, err = echosession.New[stored](cfg); err != nil {
		return nil, err
	}
	cfg.Codec = keepBytes{}
	r.other, err = echosession.New[stored](cfg)
	return r, err
}

// read reads a record. When that cannot be done, the error matches
// [echosession.ErrCorrupt] and says why, and the record has what stands in clear.
func (r *reader) read(entry echosession.Entry) (record, error) {
	rec, manager := r.head(entry), r.msgpack
	if rec.otherCodec {
		manager = r.other
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entry = entry
	for sess, err := range manager.All(context.Background()) {
		if err != nil {
			return rec, err
		}
		rec.id, rec.subject, rec.device, rec.actor = sess.ID(), sess.Subject(), sess.Device(), sess.Actor()
		rec.createdAt, rec.authenticatedAt = sess.CreatedAt(), sess.AuthenticatedAt()
		rec.lastUsed, rec.expiresAt = sess.LastUsedAt(), sess.ExpiresAt().UTC()
		rec.data = sess.Data()
	}
	return rec, nil
}

// notARecord begins the value of a key that holds no session: one that was renewed or
// rotated, or is about to be there. See lua/prelude.lua.
const notARecord = 0xc1

// The formats of records, in their second byte.
const (
	formatMsgpack       = 1
	formatCodec         = 2
	formatSealedMsgpack = 3
	formatSealedCodec   = 4
)

// head reads what stands in clear, and stops where the record is damaged: format, ID and
// revision, and then when it was created and when somebody logged in, the idle timeout,
// the deadline and the flags. A format of a newer release has no head.
func (r *reader) head(entry echosession.Entry) (rec record) {
	b := entry.Record
	rec.size = len(b)
	if entry.TTL > 0 {
		rec.expiresAt = time.Now().Add(entry.TTL).UTC()
	}
	if len(b) < 20 || b[0]&0xf0 != 0x90 || b[1] < formatMsgpack || b[1] > formatSealedCodec || b[2] != 0xc4 || b[3] != 16 {
		return rec
	}
	rec.otherCodec = b[1] == formatCodec || b[1] == formatSealedCodec
	rec.sealed = b[1] >= formatSealedMsgpack
	rec.id = fmt.Sprintf("%x-%x-%x-%x-%x", b[4:8], b[8:10], b[10:12], b[12:14], b[14:20])

	u := unpacker{data: b, pos: 20}
	u.next() // the revision
	created, ok := u.milliseconds()
	if !ok || created < 0 {
		return rec
	}
	rec.createdAt = time.UnixMilli(created).UTC()
	after := func() (at time.Time) {
		if ms, ok := u.milliseconds(); ok {
			at = rec.createdAt.Add(time.Duration(ms) * time.Millisecond)
		}
		return at
	}
	rec.authenticatedAt = after()
	if idle, ok := u.milliseconds(); ok {
		rec.idle = max(noIdle, time.Duration(idle)*time.Millisecond)
	}
	rec.deadline = after()
	if flags, err := u.next(); err == nil && flags.form == formUint {
		rec.remembered = flags.n&1 != 0
	}
	return rec
}

// stored is session data as it is stored: a T for any program's sessions.
type stored []byte

// MarshalMsgpack makes stored a type that encodes itself.
func (s stored) MarshalMsgpack() ([]byte, error) {
	if len(s) == 0 {
		return []byte{0xc0}, nil
	}
	return s, nil
}

// UnmarshalMsgpack keeps the value as it is.
func (s *stored) UnmarshalMsgpack(data []byte) error {
	*s = bytes.Clone(data)
	return nil
}

// keepBytes is a Codec that knows no type.
type keepBytes struct{}

func (keepBytes) Marshal(v any) ([]byte, error) { return *v.(*stored), nil }

func (keepBytes) Unmarshal(data []byte, v any) error {
	*v.(*stored) = bytes.Clone(data)
	return nil
}

// one is a store that can be scanned, and holds one record.
type one struct {
	echosession.Store
	entry *echosession.Entry
}

func (o one) Scan(context.Context) iter.Seq2[echosession.Entry, error] {
	return func(yield func(echosession.Entry, error) bool) { yield(*o.entry, nil) }
}

// readEncryptionKeys reads the keys of a file: one in base64 on each line, as "echosession
// keygen" writes them. Empty lines and those that begin with # do not count. No error has
// a part of a key.
func readEncryptionKeys(file string) (keys [][]byte, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, err := fromBase64(line)
		if err != nil {
			return nil, fmt.Errorf("line %d of %s is not base64; it is to be an encryption key", n, file)
		}
		if len(key) != 32 {
			return nil, fmt.Errorf("line %d of %s has %d bytes in base64; an encryption key has 32", n, file, len(key))
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s has no encryption key; it is to have one in base64 on each line", file)
	}
	return keys, nil
}

// fromBase64 reads base64 with either alphabet, with or without padding.
func fromBase64(text string) ([]byte, error) {
	text = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
	key, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("it is not base64")
	}
	return key, nil
}
