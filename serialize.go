package echosession

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/echosession/echosession/internal/jwt"
)

// Codec turns the user's struct into bytes and back. A nil Codec in [Config]
// means MessagePack, and is what most need: only there do fields that this
// release of a program does not know survive an Update. Implementations are safe
// for concurrent use and keep no reference to the bytes or the value.
//
// # MessagePack
//
// A struct is a map keyed by field name. The msgpack tag names a field, else the
// json tag: a field tagged `json:"-"` is not stored unless it has a msgpack tag.
// A time comes back in UTC, without its monotonic clock reading, and a number in
// an interface as int64, uint64 (above the range of int64) or the float type that
// it was. A struct in an interface comes back as a map[string]any.
//
// Types with a method pair of msgpack's or MarshalBinary or MarshalText encode
// themselves; their fields, those of structs that carry the option as_array, and
// values in interfaces are taken as a whole when unknown fields are preserved.
type Codec interface {
	// Marshal encodes v, a pointer to the user's type.
	Marshal(v any) ([]byte, error)

	// Unmarshal decodes data into v, a pointer to a zero value of the user's
	// type.
	Unmarshal(data []byte, v any) error
}

// A record is one MessagePack array:
//
//	[format, ID, revision, created-at, idle timeout, deadline, subject, data]  plain
//	[format, ID, revision, created-at, idle timeout, deadline, sealed]         sealed
//
// ID and revision are binaries of 16 and 8 bytes, created-at milliseconds since
// 1970 in 8 bytes, the idle timeout milliseconds, -1 for none, or nil for the
// configured one; the deadline is milliseconds since 1970 or nil, and the subject
// a string or nil. Data is the encoded value itself under MessagePack, and a
// binary under another Codec. Sealed is a binary: nonce and AES-256-GCM ciphertext
// of what follows the deadline in a plain record, with all that precedes it as
// additional data.
const (
	formatMsgpack byte = iota + 1
	formatCodec
	formatSealedMsgpack
	formatSealedCodec
)

const (
	idLen = 16

	// A revision is compared only with the others of one session, so 64 bits make
	// taking one write for another a matter of 1 in 2^64 for each comparison.
	revisionLen = 8

	idStart       = 4
	revisionStart = idStart + idLen + 2
	prefixLen     = revisionStart + revisionLen

	sealOverhead = 12 + 16 // nonce and tag
)

// fallbackTag names the fields that have no msgpack tag.
const fallbackTag = "json"

type recordHeader struct {
	id        string        // canonical, lower case
	createdAt time.Time     // whole milliseconds, UTC
	idle      time.Duration // the session's own idle timeout; 0: it has none of its own; noIdle: it lives until its deadline
	deadline  time.Time     // when the session ends whatever its use, whole milliseconds, UTC; zero: never
	subject   string
}

type serializerConfig struct {
	codec          Codec    // nil: MessagePack
	encryptionKeys [][]byte // the first seals, all open
	allowPlaintext bool     // with keys: read records that are not sealed
	maxSize        int      // of the whole record
}

// A serializer turns sessions into records and back. It is immutable and safe
// for concurrent use.
type serializer struct {
	codec          Codec
	shape          *shape // nil with a codec
	seals          []cipher.AEAD
	allowPlaintext bool
	maxSize        int
	format         byte // of new records

	// flat says that assigning a T copies all of it.
	flat bool
}

// newSerializer reports everything that is wrong with T and the configuration.
func newSerializer(t reflect.Type, cfg serializerConfig) (*serializer, error) {
	s := &serializer{
		codec:          cfg.codec,
		allowPlaintext: cfg.allowPlaintext,
		maxSize:        cfg.maxSize,
		format:         formatMsgpack,
		flat:           flat(t),
	}
	if s.codec != nil {
		s.format = formatCodec
	}
	if len(cfg.encryptionKeys) > 0 {
		s.format += formatSealedMsgpack - formatMsgpack
	}

	errs := []error{s.useKeys(cfg.encryptionKeys)}
	if err := s.useType(t); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *serializer) useKeys(keys [][]byte) error {
	var errs []error
	for i, key := range keys {
		if len(key) != 32 {
			errs = append(errs, fmt.Errorf("encryption key %d has %d bytes: AES-256 takes exactly 32", i, len(key)))
			continue
		}
		for j := range i {
			if bytes.Equal(key, keys[j]) {
				errs = append(errs, fmt.Errorf("encryption key %d is the same as key %d", i, j))
			}
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return err
		}
		seal, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return err
		}
		s.seals = append(s.seals, seal)
	}
	return errors.Join(errs...)
}

func (s *serializer) useType(t reflect.Type) error {
	switch {
	case t.Kind() == reflect.Pointer:
		return fmt.Errorf("%s: a session holds a struct, not a pointer to one: use %s", t, t.Elem())
	case t.Kind() == reflect.Interface && t != anyType:
		return fmt.Errorf("%s: the type behind an interface is not stored: use a struct", t)
	case s.codec != nil:
		return probeCodec(t, s.codec)
	}
	sh, err := newShape(t)
	if err != nil {
		return err
	}
	s.shape = sh
	return probe(sh)
}

// encode makes a record with a new revision of h and v, a *T. The unknown fields
// of prev, the session's record before, live on in it; prev may be nil.
func (s *serializer) encode(h recordHeader, v any, prev []byte) ([]byte, error) {
	var prevData []byte
	if prev != nil && s.shape != nil && s.shape.keeps {
		p, err := s.open(prev)
		if err != nil {
			return nil, err
		}
		scan := scanner{data: p.data}
		if err := scan.all(s.shape); err != nil {
			return nil, scan.corrupt(err)
		}
		if scan.unknown {
			prevData = p.data
		}
	}

	e := encoders.Get().(*encodeBuffer)
	defer e.release()
	var err error
	if e.buf, err = s.appendHead(e.buf[:0], h); err != nil {
		return nil, err
	}
	head := len(e.buf)
	e.buf = appendSubject(e.buf, h.subject)
	start := len(e.buf)

	if s.codec != nil {
		data, err := s.codec.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("echosession: encode the session data: %w", err)
		}
		e.buf = append(appendBinaryHeader(e.buf, len(data)), data...)
		return s.finish(e.buf, head)
	}

	e.start, e.limit = start, s.maxSize
	if err := e.encode(reflect.ValueOf(v).Elem()); err != nil {
		if errors.Is(err, ErrTooLarge) {
			return nil, err
		}
		return nil, fmt.Errorf("echosession: encode the session data: %w", err)
	}
	// What could not be read back is not written.
	scan := scanner{data: e.buf[start:]}
	switch err := scan.all(s.shape); err {
	case nil:
	case errDepth:
		return nil, errTooDeep
	default:
		return nil, fmt.Errorf("echosession: encode the session data: %w", scan.locate(err))
	}
	if prevData == nil {
		return s.finish(e.buf, head)
	}
	merged := append(make([]byte, 0, len(e.buf)+len(prevData)), e.buf[:start]...)
	return s.finish(carry(merged, e.buf[start:], prevData, s.shape), head)
}

// rewrite makes a record of prev with a new ID and a new revision, and leaves
// everything else as it is.
func (s *serializer) rewrite(prev []byte, newID string) ([]byte, error) {
	p, err := s.open(prev)
	if err != nil {
		return nil, err
	}
	h := p.header
	h.id = newID
	buf, err := s.appendHead(make([]byte, 0, len(prev)+sealOverhead), h)
	if err != nil {
		return nil, err
	}
	return s.seal(append(buf, p.tail...), len(buf))
}

// decode reads a record into v, a pointer to a zero T, or only its header when v
// is nil. It answers [ErrCorrupt]
// for what cannot be read, without a word of the data, and [ErrStoreUnavailable]
// for another session's record: the store mixed up its replies, and the session
// may well be there.
func (s *serializer) decode(id string, record []byte, v any) (recordHeader, error) {
	if revisionOf(record) == nil {
		return recordHeader{}, corrupt("it does not begin as a record does")
	}
	if want, err := parseID(id); err != nil || [idLen]byte(record[idStart:]) != want {
		return recordHeader{}, fmt.Errorf("%w: it answered with another session's record", ErrStoreUnavailable)
	}
	p, err := s.open(record)
	if err != nil {
		return recordHeader{}, err
	}
	p.header.id = id
	if v == nil {
		return p.header, nil
	}

	if s.codec != nil {
		scan := scanner{data: p.data}
		if tok, err := scan.next(); err != nil || tok.form != formBinary || scan.pos != len(p.data) {
			return recordHeader{}, corrupt("its data is not one binary")
		} else if err := recovered(func() error { return s.codec.Unmarshal(scan.last(tok), v) }); err != nil {
			return recordHeader{}, corrupt("the codec refused it")
		}
		return p.header, nil
	}

	scan := scanner{data: p.data}
	if err := scan.all(s.shape); err != nil {
		return recordHeader{}, scan.corrupt(err)
	}
	target := reflect.ValueOf(v).Elem()
	if err := unmarshalMsgpack(p.data, target); err != nil {
		return recordHeader{}, corrupt("the MessagePack decoder or a type's own refused it")
	}
	settle(target, s.shape)
	return p.header, nil
}

// header reads a record's header alone.
func (s *serializer) header(record []byte) (recordHeader, error) {
	p, err := s.open(record)
	if err != nil {
		return recordHeader{}, err
	}
	p.header.id = formatID(record[idStart:])
	return p.header, nil
}

// revisionOf returns the leading bytes of a record that identify one write of
// it: format, ID and revision. It is nil when record does not begin as a record
// does.
func revisionOf(record []byte) []byte {
	if len(record) < prefixLen {
		return nil
	}
	size := byte(0x98)
	if record[1] >= formatSealedMsgpack {
		size = 0x97
	}
	if record[0] != size || record[1] < formatMsgpack || record[1] > formatSealedCodec ||
		record[2] != 0xc4 || record[3] != idLen ||
		record[revisionStart-2] != 0xc4 || record[revisionStart-1] != revisionLen {
		return nil
	}
	return record[:prefixLen:prefixLen]
}

// opened is a record taken apart. tail is what sealing covers: subject and data.
type opened struct {
	header recordHeader // without the ID
	tail   []byte
	data   []byte
}

func (s *serializer) open(record []byte) (opened, error) {
	if revisionOf(record) == nil {
		return opened{}, corrupt("it does not begin as a record does")
	}
	format := record[1]
	sealed := format >= formatSealedMsgpack
	switch {
	case (format == formatCodec || format == formatSealedCodec) != (s.codec != nil):
		return opened{}, corrupt("another codec wrote it")
	case sealed && len(s.seals) == 0:
		return opened{}, corrupt("it is encrypted and there is no key")
	case !sealed && len(s.seals) > 0 && !s.allowPlaintext:
		return opened{}, corrupt("it is not encrypted")
	}

	var p opened
	scan := scanner{data: record, pos: prefixLen}
	createdAt, err1 := scan.next()
	idle, err2 := scan.next()
	deadline, err3 := scan.next()
	ok := err1 == nil && err2 == nil && err3 == nil && createdAt.form == formUint && createdAt.n <= math.MaxInt64
	p.header.createdAt = time.UnixMilli(int64(createdAt.n)).UTC()
	switch {
	case idle.form == formNil:
	case idle.form == formInt && int64(idle.n) == -1:
		p.header.idle = jwt.NoIdle
	case idle.form == formUint && idle.n > 0 && idle.n <= uint64(math.MaxInt64/time.Millisecond):
		p.header.idle = time.Duration(idle.n) * time.Millisecond
	default:
		ok = false
	}
	switch {
	case deadline.form == formNil:
	case deadline.form == formUint && deadline.n <= math.MaxInt64:
		p.header.deadline = time.UnixMilli(int64(deadline.n)).UTC()
	default:
		ok = false
	}
	if !ok {
		return opened{}, corrupt("its header is damaged")
	}

	p.tail = record[scan.pos:]
	if sealed {
		head := record[:scan.pos]
		tok, err := scan.next()
		if err != nil || tok.form != formBinary || scan.pos != len(record) {
			return opened{}, corrupt("its header is damaged")
		}
		if p.tail = s.unseal(scan.last(tok), head); p.tail == nil {
			return opened{}, corrupt("no encryption key opens it")
		}
	}

	scan = scanner{data: p.tail}
	subject, err := scan.next()
	if err != nil || subject.form != formNil && subject.form != formString {
		return opened{}, corrupt("its header is damaged")
	}
	p.header.subject = string(scan.last(subject))
	p.data = p.tail[scan.pos:]
	return p, nil
}

func (s *serializer) unseal(sealed, head []byte) []byte {
	for _, seal := range s.seals {
		if tail, err := seal.Open(nil, nil, sealed, head); err == nil {
			return tail
		}
	}
	return nil
}

// appendHead appends everything up to the deadline, with a new revision.
func (s *serializer) appendHead(dst []byte, h recordHeader) ([]byte, error) {
	id, err := parseID(h.id)
	if err != nil {
		return dst, err
	}
	createdAt := h.createdAt.UnixMilli()
	if createdAt < 0 {
		return dst, errors.New("echosession: a session cannot be created before 1970")
	}
	size := byte(0x98)
	if len(s.seals) > 0 {
		size = 0x97
	}
	dst = append(dst, size, s.format, 0xc4, idLen)
	dst = append(dst, id[:]...)
	dst = append(dst, 0xc4, revisionLen)
	dst = append(dst, make([]byte, revisionLen)...)
	rand.Read(dst[len(dst)-revisionLen:])
	dst = binary.BigEndian.AppendUint64(append(dst, 0xcf), uint64(createdAt))
	switch {
	case h.idle == 0:
		dst = append(dst, 0xc0)
	case h.idle < 0:
		dst = append(dst, 0xff)
	default:
		ms := max(1, h.idle.Milliseconds())
		dst = binary.BigEndian.AppendUint64(append(dst, 0xcf), uint64(ms))
	}
	if h.deadline.IsZero() {
		return append(dst, 0xc0), nil
	}
	return binary.BigEndian.AppendUint64(append(dst, 0xcf), uint64(max(0, h.deadline.UnixMilli()))), nil
}

// finish makes a record that is the caller's own of a head and a tail in one
// buffer, if it is small enough.
func (s *serializer) finish(buf []byte, head int) ([]byte, error) {
	record, err := s.seal(buf, head)
	if err != nil {
		return nil, err
	}
	if len(record) > s.maxSize {
		return nil, fmt.Errorf("%w: the record has %d bytes, %d are allowed (MaxRecordSize): "+
			"keep bulky data elsewhere and its key in the session", ErrTooLarge, len(record), s.maxSize)
	}
	return record, nil
}

// seal returns a copy of buf whose bytes from head on are sealed if there are
// keys.
func (s *serializer) seal(buf []byte, head int) ([]byte, error) {
	if len(s.seals) == 0 {
		return bytes.Clone(buf), nil
	}
	tail := buf[head:]
	record := make([]byte, head, len(buf)+5+sealOverhead)
	copy(record, buf)
	record = appendBinaryHeader(record, len(tail)+sealOverhead)
	return s.seals[0].Seal(record, nil, tail, buf[:head]), nil
}

func appendSubject(dst []byte, subject string) []byte {
	n := len(subject)
	switch {
	case n == 0:
		return append(dst, 0xc0)
	case n < 32:
		dst = append(dst, 0xa0|byte(n))
	case n < 1<<8:
		dst = append(dst, 0xd9, byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, 0xda), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint32(append(dst, 0xdb), uint32(n))
	}
	return append(dst, subject...)
}

func appendBinaryHeader(dst []byte, n int) []byte {
	switch {
	case n < 1<<8:
		return append(dst, 0xc4, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, 0xc5), uint16(n))
	default:
		return binary.BigEndian.AppendUint32(append(dst, 0xc6), uint32(n))
	}
}

// parseID reads the canonical, lower-case form of a UUID alone.
func parseID(id string) (b [idLen]byte, err error) {
	if len(id) == 36 && id[8] == '-' && id[13] == '-' && id[18] == '-' && id[23] == '-' && !strings.ContainsAny(id, "ABCDEF") {
		var digits [2 * idLen]byte
		copy(digits[0:], id[0:8])
		copy(digits[8:], id[9:13])
		copy(digits[12:], id[14:18])
		copy(digits[16:], id[19:23])
		copy(digits[20:], id[24:36])
		if _, err := hex.Decode(b[:], digits[:]); err == nil {
			return b, nil
		}
	}
	return b, errors.New("echosession: the session ID is not a canonical UUID")
}

func formatID(b []byte) string {
	var id [36]byte
	hex.Encode(id[0:8], b[0:4])
	hex.Encode(id[9:13], b[4:6])
	hex.Encode(id[14:18], b[6:8])
	hex.Encode(id[19:23], b[8:10])
	hex.Encode(id[24:36], b[10:16])
	id[8], id[13], id[18], id[23] = '-', '-', '-', '-'
	return string(id[:])
}

func corrupt(why string) error { return fmt.Errorf("%w: %s", ErrCorrupt, why) }

func (s *scanner) corrupt(err error) error { return fmt.Errorf("%w: %w", ErrCorrupt, s.locate(err)) }

func (s *scanner) locate(err error) error {
	if s.at == nil {
		return err
	}
	return fmt.Errorf("%s: %w", s.at.where, err)
}

var errTooDeep = fmt.Errorf("%w: it nests deeper than %d levels; does a pointer lead back to itself?", ErrTooLarge, maxDepth)

// An encodeBuffer takes what the encoder writes, up to a limit.
type encodeBuffer struct {
	enc   *msgpack.Encoder
	buf   []byte
	start int // of the data
	limit int // of the whole buffer
	next  int // the length at which to look for depth next
}

var encoders = sync.Pool{New: func() any { return &encodeBuffer{enc: msgpack.NewEncoder(nil)} }}

// release gives the buffer back unless one large session made it large.
func (e *encodeBuffer) release() {
	if cap(e.buf) <= 64<<10 {
		encoders.Put(e)
	}
}

func (e *encodeBuffer) encode(v reflect.Value) error {
	e.next = 16 << 10
	e.enc.Reset(e)
	e.enc.SetCustomStructTag(fallbackTag)
	e.enc.UseCompactInts(true)
	e.enc.SetSortMapKeys(true)
	return e.enc.EncodeValue(v)
}

func (e *encodeBuffer) Write(p []byte) (int, error) {
	if err := e.room(len(p)); err != nil {
		return 0, err
	}
	e.buf = append(e.buf, p...)
	return len(p), nil
}

func (e *encodeBuffer) WriteByte(c byte) error {
	if err := e.room(1); err != nil {
		return err
	}
	e.buf = append(e.buf, c)
	return nil
}

// room ends the encoding of a value that leads back to itself long before the
// stack does, by looking for depth whenever the buffer has doubled.
func (e *encodeBuffer) room(n int) error {
	size := len(e.buf) + n
	if size <= min(e.limit, e.next) {
		return nil
	}
	scan := scanner{data: e.buf[e.start:]}
	if scan.skip(maxDepth, false) == errDepth {
		return errTooDeep
	}
	if size > e.limit {
		return fmt.Errorf("%w: the record has more than the %d bytes allowed (MaxRecordSize): "+
			"keep bulky data elsewhere and its key in the session", ErrTooLarge, e.limit)
	}
	e.next = 2 * size
	return nil
}

// marshalMsgpack encodes v for the schema, without a limit that matters.
func marshalMsgpack(v reflect.Value) (data []byte, err error) {
	e := &encodeBuffer{enc: msgpack.NewEncoder(nil), limit: math.MaxInt}
	err = recovered(func() error { return e.encode(v) })
	return e.buf, err
}

type decodeReader struct {
	bytes.Reader
	dec *msgpack.Decoder
}

var decoders = sync.Pool{New: func() any { return &decodeReader{dec: msgpack.NewDecoder(nil)} }}

// unmarshalMsgpack decodes data that a scanner has checked. A decoder that
// failed is not used again: it keeps recording what it reads.
func unmarshalMsgpack(data []byte, v reflect.Value) error {
	d := decoders.Get().(*decodeReader)
	d.Reset(data)
	d.dec.Reset(&d.Reader)
	d.dec.SetCustomStructTag(fallbackTag)
	err := recovered(func() error { return d.dec.DecodeValue(v) })
	if err != nil {
		return err
	}
	if d.Len() > 0 {
		return errTrailing
	}
	d.Reset(nil)
	decoders.Put(d)
	return nil
}

// recovered makes a panic in a type's own method, or in the decoder, an error.
func recovered(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return f()
}

// selfEncoding is how a type encodes itself.
type selfEncoding uint8

const (
	selfNone  selfEncoding = iota
	selfValue              // to a MessagePack value
	selfBytes              // to bytes, which are stored as a binary
)

var (
	selfEncoders = []reflect.Type{
		reflect.TypeFor[msgpack.CustomEncoder](), reflect.TypeFor[msgpack.Marshaler](),
		reflect.TypeFor[encoding.BinaryMarshaler](), reflect.TypeFor[encoding.TextMarshaler](),
	}
	selfDecoders = []reflect.Type{
		reflect.TypeFor[msgpack.CustomDecoder](), reflect.TypeFor[msgpack.Unmarshaler](),
		reflect.TypeFor[encoding.BinaryUnmarshaler](), reflect.TypeFor[encoding.TextUnmarshaler](),
	}
)

// ownEncoding tells how a type, not a pointer, encodes and decodes itself, in
// msgpack's order of preference.
func ownEncoding(t reflect.Type) (enc, dec selfEncoding) {
	return selfMethod(t, selfEncoders), selfMethod(t, selfDecoders)
}

func selfMethod(t reflect.Type, methods []reflect.Type) selfEncoding {
	for _, typ := range []reflect.Type{t, reflect.PointerTo(t)} {
		for i, m := range methods {
			if typ.Implements(m) {
				return selfValue + selfEncoding(i/2)
			}
		}
	}
	return selfNone
}
