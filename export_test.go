package echosession

import (
	"reflect"
	"time"

	"github.com/echosession/echosession/internal/jwt"
	"github.com/echosession/echosession/internal/shape"
)

// What the tests of the whole package reach in it.

// Effective returns the Config with its defaults.
func (m *Manager[T]) Effective() Config { return m.engine.cfg }

// DefaultTokenLookup returns where an instance with this RequestArg looks.
func DefaultTokenLookup(arg string) string { return defaultLookup(arg, nil) }

// RedisKeys returns the keys of a session and of its subject's index.
func RedisKeys(keyspace string, ref Ref) (session, index string) {
	r := &redisStore{keyspace: keyspace}
	return r.key(ref), r.index(ref.Subject)
}

// IsSessionKey reports whether Scan takes a key for a session's.
func IsSessionKey(keyspace, key string) bool {
	return (&redisStore{keyspace: keyspace}).isSessionKey(key)
}

// Held returns how many entries and how many subjects s holds, the expired
// included.
func (s *MemoryStore) Held() (entries, subjects int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.entries), len(s.subjects)
}

// What the external tests reach of the serializer.

type (
	RecordHeader     = recordHeader
	SerializerConfig = serializerConfig
)

const (
	NoIdleTimeout = jwt.NoIdle
	MaxDepth      = shape.MaxDepth
)

func NewRecordHeader(id string, createdAt time.Time, idle time.Duration, subject string) RecordHeader {
	return recordHeader{id: id, createdAt: createdAt, idle: idle, subject: subject}
}

func (h recordHeader) WithDeadline(at time.Time) RecordHeader {
	h.deadline = at
	return h
}

func (h recordHeader) Fields() (id string, createdAt time.Time, idle time.Duration, subject string) {
	return h.id, h.createdAt, h.idle, h.subject
}

func NewSerializerConfig(codec Codec, maxSize int, allowPlaintext bool, keys ...[]byte) SerializerConfig {
	return serializerConfig{codec: codec, encryptionKeys: keys, allowPlaintext: allowPlaintext, maxSize: maxSize}
}

type Serializer struct{ *serializer }

func NewSerializer(t reflect.Type, cfg SerializerConfig) (Serializer, error) {
	s, err := newSerializer(t, cfg)
	return Serializer{s}, err
}

func (s Serializer) Encode(h RecordHeader, v any, prev []byte) ([]byte, error) {
	return s.encode(h, v, prev)
}
func (s Serializer) Rewrite(prev []byte, newID string) ([]byte, error) { return s.rewrite(prev, newID) }
func (s Serializer) Decode(id string, record []byte, v any) (RecordHeader, error) {
	return s.decode(id, record, v)
}
func (s Serializer) Header(record []byte) (RecordHeader, error) { return s.header(record) }
func (s Serializer) Flat() bool                                 { return s.flat }

func RevisionOf(record []byte) []byte { return revisionOf(record) }

// Scan checks that data is one value that T's decoder can take.
func (s Serializer) Scan(data []byte) error {
	scan := shape.Scanner{Data: data}
	return scan.All(s.shape)
}

// HasUnknown reports whether checked data holds fields that T does not know.
func (s Serializer) HasUnknown(data []byte) bool {
	unknown, err := s.shape.Check(data)
	return err == nil && unknown
}

// Shapeless checks structure alone.
func Shapeless(data []byte) error { return shape.Shapeless(data) }

func Carry(s Serializer, fresh, prev []byte) []byte { return s.shape.Carry(nil, fresh, prev) }

// FieldNames returns the names under which T's top-level fields are written.
func (s Serializer) FieldNames() []string { return s.shape.FieldNames() }

// WithCodec returns a serializer with another codec in place of its own.
func WithCodec(s Serializer, codec Codec) Serializer {
	c := *s.serializer
	c.codec = codec
	return Serializer{&c}
}

// Data returns the encoded value inside a record.
func Data(s Serializer, record []byte) ([]byte, error) {
	p, err := s.open(record)
	return p.data, err
}
