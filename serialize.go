package echosession

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/echosession/echosession/internal/jwt"
	"github.com/echosession/echosession/internal/shape"
)

// Codec turns the sessions' data into bytes and back. Most programs leave
// [Config.Codec] nil, which means MessagePack. Only MessagePack keeps, in an Update,
// the fields that a newer release of the program has written and this one does not
// know. Implementations must be safe for concurrent use and must keep no reference
// to the bytes or the value.
//
// # MessagePack
//
// A struct is stored as a map from field names to values. The msgpack tag names a
// field, or the json tag where there is no msgpack tag: a field tagged `json:"-"` is
// not stored unless it has a msgpack tag too.
//
// A time comes back in UTC, without its monotonic clock reading. A whole number in
// an interface comes back as int64, or as uint64 when it is too large for int64; a
// float keeps its type. A struct in an interface comes back as a map[string]any.
//
// Types that have a pair of methods of the msgpack package, or MarshalBinary or
// MarshalText and its counterpart, encode themselves.
//
// An Update replaces some values as a whole, with the fields in them that this
// release does not know: types that encode themselves, structs with the msgpack
// option as_array, and values in interfaces.
type Codec interface {
	// Marshal encodes v, a pointer to a T.
	Marshal(v any) ([]byte, error)

	// Unmarshal decodes data into v, a pointer to a zero T.
	Unmarshal(data []byte, v any) error
}

// A record is one MessagePack array, plain or sealed:
//
//	[format, ID, revision, created-at, authenticated-at, idle timeout, deadline, flags, subject, extras, data]
//	[format, ID, revision, created-at, authenticated-at, idle timeout, deadline, flags, fingerprint, sealed]
//
// Its elements are:
//   - ID and revision: binaries of 16 and 8 bytes.
//   - Created-at: milliseconds since 1970, in 8 bytes.
//   - Authenticated-at: milliseconds after created-at, or nil for a session in which
//     nobody has authenticated.
//   - Idle timeout: milliseconds, -1 for none, or nil for the configured one.
//   - Deadline: milliseconds after created-at, or nil for none.
//   - Flags: the sum of those that are set, see below.
//   - Subject: a string, or nil for none.
//   - Extras: what few sessions have, a map from small numbers, or nil. See below.
//   - Data: the encoded value itself under MessagePack, and a binary under another
//     Codec.
//   - Fingerprint: a binary of 4 bytes that says which encryption key was used. It
//     reveals nothing of the key.
//   - Sealed: a binary with the nonce and the AES-256-GCM ciphertext of subject, extras
//     and data. The elements before it and the keyspace are the additional data.
//
// Flags and extras that a newer release has added survive every change.
const (
	formatMsgpack byte = iota + 1
	formatCodec
	formatSealedMsgpack
	formatSealedCodec
)

// The flags.
const (
	flagRemembered = 1 << iota
	knownFlags     = 1<<iota - 1
)

// The extras, in the order of their keys. A newer release adds larger keys.
const (
	extraDevice  = iota + 1 // a string
	extraActor              // a string
	extraBinding            // a binary
	newerExtras
)

// How long the extras may be, in bytes; maxNewer is for all those of newer releases.
const (
	maxDevice  = 256
	maxActor   = maxSubject
	maxBinding = 1 << 10
	maxNewer   = 2 << 10
)

const (
	idLen = 16

	// A revision is compared only with revisions of the same session. With 64 random
	// bits, one comparison takes two writes for the same one with probability 2^-64.
	revisionLen = 8

	idStart       = 4
	revisionStart = idStart + idLen + 2
	prefixLen     = revisionStart + revisionLen

	// maxTime is the end of the year 9999, in milliseconds since 1970.
	maxTime = 253402300799999
)

// How many elements a record has, as the first byte of its array.
const (
	plainArray  = 0x9b
	sealedArray = 0x9a
)

// A recordHeader is what a record says of its session, beside the data. Times are whole
// milliseconds, in UTC, from 1970 to 9999.
type recordHeader struct {
	id              string // canonical, lower case
	createdAt       time.Time
	authenticatedAt time.Time     // of the last login; zero: nobody has authenticated
	idle            time.Duration // the session's own idle timeout; 0: the configured one; jwt.NoIdle: it lives until its deadline
	deadline        time.Time     // when the session ends however much it is used; zero: never
	remembered      bool          // its cookie outlives the browser
	subject         string
	device          string // the name of the client's device
	actor           string // who acts in the subject's place
	binding         string // bytes of what the session is bound to

	// oldKey says that the record was sealed with another key than the first one. It is
	// known of a record that was read, and not written.
	oldKey bool

	// newer is what a newer release has added. It is kept as it is.
	newer struct {
		flags  uint64
		extras string // encoded pairs
		n      int    // of the pairs
	}
}

type serializerConfig struct {
	codec          Codec    // nil: MessagePack
	encryptionKeys [][]byte // the first seals, all open
	allowPlaintext bool     // with keys: read records that are not sealed
	keyspace       string   // names the instance: sealed records of another one do not open
	maxSize        int      // of the whole record
}

// A serializer turns sessions into records and back. It is immutable and safe
// for concurrent use.
type serializer struct {
	codec          Codec
	shape          *shape.Shape // nil with a codec
	seals          []sealKey
	allowPlaintext bool
	keyspace       string
	maxSize        int
	format         byte // of new records

	// flat says that assigning a T copies all of it.
	flat bool

	// migrates says that a *T has a method MigrateSession.
	migrates bool
}

// migrator is what a *T may be: see [New].
type migrator interface{ MigrateSession() error }

// newSerializer returns a serializer for sessions of type t, or every mistake in t
// and cfg and no serializer.
func newSerializer(t reflect.Type, cfg serializerConfig) (*serializer, []ConfigError) {
	s := &serializer{
		codec:          cfg.codec,
		allowPlaintext: cfg.allowPlaintext,
		keyspace:       cfg.keyspace,
		maxSize:        cfg.maxSize,
		format:         formatMsgpack,
		flat:           shape.Flat(t),
		migrates:       reflect.PointerTo(t).Implements(reflect.TypeFor[migrator]()),
	}
	if s.codec != nil {
		s.format = formatCodec
	}
	if len(cfg.encryptionKeys) > 0 {
		s.format += formatSealedMsgpack - formatMsgpack
	}
	var mistakes []ConfigError
	for _, reason := range s.useKeys(cfg.encryptionKeys) {
		mistakes = append(mistakes, ConfigError{"EncryptionKeys", reason})
	}
	for _, reason := range s.useType(t) {
		mistakes = append(mistakes, ConfigError{fieldT, reason})
	}
	if len(mistakes) > 0 {
		return nil, mistakes
	}
	return s, nil
}

// useType returns every reason why a session cannot hold a value of type t.
func (s *serializer) useType(t reflect.Type) (reasons []string) {
	var mistakes []shape.Mistake
	switch {
	case t.Kind() == reflect.Pointer:
		return []string{fmt.Sprintf("%s: a session holds a struct, not a pointer to one: use %s", t, t.Elem())}
	case t.Kind() == reflect.Interface && t != reflect.TypeFor[any]():
		return []string{fmt.Sprintf("%s: the type behind an interface is not stored: use a struct", t)}
	case s.codec != nil:
		mistakes = shape.ProbeCodec(t, s.codec.Marshal, s.codec.Unmarshal)
	default:
		s.shape, mistakes = shape.New(t)
	}
	for _, m := range mistakes {
		reasons = append(reasons, m.String())
	}
	return reasons
}

// encode makes a record of h and v, a *T, with a new revision. It takes over the
// unknown fields of prev, the session's record so far; prev may be nil.
func (s *serializer) encode(h recordHeader, v any, prev []byte) ([]byte, error) {
	var prevData []byte
	if prev != nil && s.shape != nil && s.shape.Keeps() {
		p, err := s.open(prev)
		if err != nil {
			return nil, err
		}
		unknown, err := s.shape.Check(p.data, s.maxSize)
		if err != nil {
			return nil, corruptData(err)
		}
		if unknown {
			prevData = p.data
		}
	}

	b := buffers.Get().(*buffer)
	defer b.release()
	var err error
	if b.bytes, err = s.appendHead(b.bytes[:0], h); err != nil {
		return nil, err
	}
	head := len(b.bytes)
	b.bytes = appendString(b.bytes, h.subject)
	if b.bytes, err = appendExtras(b.bytes, h); err != nil {
		return nil, err
	}
	start := len(b.bytes)

	if s.codec != nil {
		data, err := s.codec.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("echosession: encode the session data: %w", err)
		}
		b.bytes = append(appendBinaryHeader(b.bytes, len(data)), data...)
		return s.finish(b.bytes, head)
	}

	b.bytes, err = s.shape.Append(b.bytes, reflect.ValueOf(v).Elem(), s.maxSize)
	switch {
	case err == nil:
	case errors.Is(err, shape.ErrLimit):
		return nil, fmt.Errorf("%w: the record has more than the %d bytes allowed (MaxRecordSize): "+
			"keep bulky data elsewhere and its key in the session", ErrTooLarge, s.maxSize)
	case errors.Is(err, shape.ErrDepth), errors.Is(err, shape.ErrSize):
		return nil, fmt.Errorf("%w: %w", ErrTooLarge, err)
	default:
		return nil, fmt.Errorf("echosession: encode the session data: %w", err)
	}
	if prevData == nil {
		return s.finish(b.bytes, head)
	}
	merged := append(make([]byte, 0, len(b.bytes)+len(prevData)), b.bytes[:start]...)
	return s.finish(s.shape.Carry(merged, b.bytes[start:], prevData), head)
}

// A buffer is what a record is put together in.
type buffer struct{ bytes []byte }

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// release gives the buffer back. A buffer that a large session has made large is left
// to the garbage collector.
func (b *buffer) release() {
	if cap(b.bytes) <= 64<<10 {
		buffers.Put(b)
	}
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
	return s.finish(append(buf, p.tail...), len(buf))
}

// decode reads a record into v, a pointer to a zero T, or only its header when v
// is nil. It returns [ErrCorrupt], without a word of the data, when the record cannot
// be read. It returns [ErrStoreUnavailable] when the record is another session's: the
// store mixed up its replies, and the session may well be there.
func (s *serializer) decode(id string, record []byte, v any) (recordHeader, error) {
	if revisionOf(record) == nil {
		return recordHeader{}, corrupt(whyHead, "it does not begin as a record does")
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

	if err := s.decodeData(p.data, v); err != nil {
		return recordHeader{}, err
	}
	if s.migrates {
		if err := shape.Recovered(v.(migrator).MigrateSession); err != nil {
			return recordHeader{}, &corruptError{whyMigrate, "MigrateSession refused it", err}
		}
	}
	return p.header, nil
}

func (s *serializer) decodeData(data []byte, v any) error {
	if s.codec == nil {
		if err := s.shape.Decode(data, reflect.ValueOf(v).Elem(), s.maxSize); err != nil {
			return corruptData(err)
		}
		return nil
	}
	scan := shape.Scanner{Data: data}
	if tok, err := scan.Next(); err != nil || tok.Form != shape.FormBinary || scan.Pos != len(data) {
		return corrupt(whyData, "its data is not one binary")
	} else if err := shape.Recovered(func() error { return s.codec.Unmarshal(scan.Last(tok), v) }); err != nil {
		return corrupt(whyData, "the codec refused it")
	}
	return nil
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
	size := byte(plainArray)
	if record[1] >= formatSealedMsgpack {
		size = sealedArray
	}
	if record[0] != size || record[1] < formatMsgpack || record[1] > formatSealedCodec ||
		record[2] != 0xc4 || record[3] != idLen ||
		record[revisionStart-2] != 0xc4 || record[revisionStart-1] != revisionLen {
		return nil
	}
	return record[:prefixLen:prefixLen]
}

// idOf returns the ID in a record, or "" where it does not begin as a record does.
func idOf(record []byte) string {
	if revisionOf(record) == nil {
		return ""
	}
	return formatID(record[idStart:])
}

// opened is a record taken apart. tail is what sealing covers: subject, extras and data.
type opened struct {
	header recordHeader // without the ID
	tail   []byte
	data   []byte
}

// open takes a record apart and decrypts it if need be. It does not look into the
// data.
func (s *serializer) open(record []byte) (opened, error) {
	if revisionOf(record) == nil {
		return opened{}, corrupt(whyHead, "it does not begin as a record does")
	}
	format := record[1]
	sealed := format >= formatSealedMsgpack
	switch {
	case len(record) > s.maxSize:
		return opened{}, corrupt(whyTooLarge, fmt.Sprintf("it has %d bytes, and %d are allowed (MaxRecordSize)", len(record), s.maxSize))
	case (format == formatCodec || format == formatSealedCodec) != (s.codec != nil):
		return opened{}, corrupt(whyCodec, "another codec wrote it")
	case sealed && len(s.seals) == 0:
		return opened{}, corrupt(whySealed, "it is encrypted and there is no key")
	case !sealed && len(s.seals) > 0 && !s.allowPlaintext:
		return opened{}, corrupt(whyNotSealed, "it is not encrypted")
	}

	var p opened
	scan := shape.Scanner{Data: record, Pos: prefixLen}
	if !p.header.readHead(&scan) {
		return opened{}, corrupt(whyHead, "its header is damaged")
	}
	p.tail = record[scan.Pos:]
	if sealed {
		fingerprint, err := scan.Next()
		if err != nil || fingerprint.Form != shape.FormBinary || fingerprint.N != fingerprintLen {
			return opened{}, corrupt(whyHead, "its header is damaged")
		}
		which := [fingerprintLen]byte(scan.Last(fingerprint))
		head := record[:scan.Pos]
		tok, err := scan.Next()
		if err != nil || tok.Form != shape.FormBinary || scan.Pos != len(record) {
			return opened{}, corrupt(whyHead, "its header is damaged")
		}
		key := 0
		if p.tail, key = s.unseal(which, scan.Last(tok), head); p.tail == nil {
			return opened{}, corrupt(whyKey, "no encryption key opens it")
		}
		p.header.oldKey = key > 0
	}

	scan = shape.Scanner{Data: p.tail}
	subject, err := scan.Next()
	if err != nil || subject.Form != shape.FormNil && subject.Form != shape.FormString {
		return opened{}, corrupt(whyHead, "its header is damaged")
	}
	p.header.subject = string(scan.Last(subject))
	if !p.header.readExtras(&scan) {
		return opened{}, corrupt(whyHead, "its header is damaged")
	}
	p.data = p.tail[scan.Pos:]
	return p, nil
}

// readHead reads from created-at to the flags, and reports whether they are what
// appendHead writes.
func (h *recordHeader) readHead(scan *shape.Scanner) bool {
	createdAt, err := scan.Next()
	if err != nil || createdAt.Form != shape.FormUint || createdAt.N > maxTime {
		return false
	}
	h.createdAt = time.UnixMilli(int64(createdAt.N)).UTC()
	var ok bool
	if h.authenticatedAt, ok = readTime(scan, h.createdAt); !ok {
		return false
	}

	idle, err := scan.Next()
	switch {
	case err != nil:
		return false
	case idle.Form == shape.FormNil:
	case idle.Form == shape.FormInt && int64(idle.N) == -1:
		h.idle = jwt.NoIdle
	case idle.Form == shape.FormUint && idle.N > 0 && idle.N <= uint64(math.MaxInt64/time.Millisecond):
		h.idle = time.Duration(idle.N) * time.Millisecond
	default:
		return false
	}

	if h.deadline, ok = readTime(scan, h.createdAt); !ok {
		return false
	}
	flags, err := scan.Next()
	if err != nil || flags.Form != shape.FormUint {
		return false
	}
	h.remembered = flags.N&flagRemembered != 0
	h.newer.flags = flags.N &^ knownFlags
	return true
}

// readTime reads a time that is nil or counted from createdAt.
func readTime(scan *shape.Scanner, createdAt time.Time) (time.Time, bool) {
	tok, err := scan.Next()
	if err != nil || tok.Form == shape.FormNil {
		return time.Time{}, err == nil
	}
	if tok.Form != shape.FormInt && (tok.Form != shape.FormUint || tok.N > maxTime) {
		return time.Time{}, false
	}
	ms := createdAt.UnixMilli() + int64(tok.N)
	return time.UnixMilli(ms).UTC(), 0 <= ms && ms <= maxTime
}

// readExtras reads the extras, and reports whether they are what appendExtras writes.
func (h *recordHeader) readExtras(scan *shape.Scanner) bool {
	extras, err := scan.Next()
	if err != nil || extras.Form == shape.FormNil {
		return err == nil
	}
	if extras.Form != shape.FormMap || extras.N == 0 {
		return false
	}
	last := uint64(0)
	newer := -1
	for range extras.N {
		start := scan.Pos
		key, err := scan.Next()
		if err != nil || key.Form != shape.FormUint || key.N <= last {
			return false
		}
		last = key.N
		if key.N >= newerExtras {
			if newer < 0 {
				newer = start
			}
			h.newer.n++
			if scan.Skip() != nil {
				return false
			}
			continue
		}
		value, err := scan.Next()
		if err != nil || value.N == 0 {
			return false
		}
		form, limit, field := shape.FormString, maxDevice, &h.device
		switch key.N {
		case extraActor:
			limit, field = maxActor, &h.actor
		case extraBinding:
			form, limit, field = shape.FormBinary, maxBinding, &h.binding
		}
		if value.Form != form || value.N > uint64(limit) {
			return false
		}
		*field = string(scan.Last(value))
	}
	if newer >= 0 {
		h.newer.extras = string(scan.Data[newer:scan.Pos])
	}
	return len(h.newer.extras) <= maxNewer
}

// appendHead appends everything that is not sealed, with a new revision.
func (s *serializer) appendHead(dst []byte, h recordHeader) ([]byte, error) {
	id, err := parseID(h.id)
	if err != nil {
		return dst, err
	}
	createdAt := h.createdAt.UnixMilli()
	if createdAt < 0 || createdAt > maxTime {
		return dst, errors.New("echosession: a session cannot be created before 1970 or after the year 9999")
	}
	size := byte(plainArray)
	if len(s.seals) > 0 {
		size = sealedArray
	}
	dst = append(dst, size, s.format, 0xc4, idLen)
	dst = append(dst, id[:]...)
	dst = append(dst, 0xc4, revisionLen)
	dst = append(dst, make([]byte, revisionLen)...)
	rand.Read(dst[len(dst)-revisionLen:])
	dst = binary.BigEndian.AppendUint64(append(dst, 0xcf), uint64(createdAt))
	dst = appendTime(dst, h.authenticatedAt, createdAt)
	switch {
	case h.idle == 0:
		dst = append(dst, 0xc0)
	case h.idle < 0:
		dst = append(dst, 0xff)
	default:
		dst = appendUint(dst, uint64(max(1, h.idle.Milliseconds())))
	}
	dst = appendTime(dst, h.deadline, createdAt)
	flags := h.newer.flags
	if h.remembered {
		flags |= flagRemembered
	}
	dst = appendUint(dst, flags)
	if len(s.seals) > 0 {
		dst = append(dst, 0xc4, fingerprintLen)
		dst = append(dst, s.seals[0].fingerprint[:]...)
	}
	return dst, nil
}

// appendTime appends a time as milliseconds after createdAt, or nil for none.
func appendTime(dst []byte, at time.Time, createdAt int64) []byte {
	if at.IsZero() {
		return append(dst, 0xc0)
	}
	after := min(max(0, at.UnixMilli()), maxTime) - createdAt
	if after < 0 { // the clock was set back
		return binary.BigEndian.AppendUint64(append(dst, 0xd3), uint64(after))
	}
	return appendUint(dst, uint64(after))
}

// appendExtras appends the extras. It is an error when one is too long.
func appendExtras(dst []byte, h recordHeader) ([]byte, error) {
	start := len(dst)
	dst = append(dst, 0xc0)
	n := uint64(h.newer.n)
	for _, extra := range []struct {
		key    byte
		name   string
		value  string
		limit  int
		append func([]byte, string) []byte
	}{
		{extraDevice, "name of the device", h.device, maxDevice, appendString},
		{extraActor, "actor", h.actor, maxActor, appendString},
		{extraBinding, "binding", h.binding, maxBinding, appendBinary},
	} {
		if len(extra.value) > extra.limit {
			return dst, fmt.Errorf("echosession: the %s has %d bytes: it must have at most %d", extra.name, len(extra.value), extra.limit)
		}
		if extra.value != "" {
			dst = extra.append(append(dst, extra.key), extra.value)
			n++
		}
	}
	if n == 0 {
		return dst, nil
	}
	dst = append(dst, h.newer.extras...)
	if n < 16 {
		dst[start] = 0x80 | byte(n)
		return dst, nil
	}
	var header [2]byte
	binary.BigEndian.PutUint16(header[:], uint16(n)) // maxNewer bounds them
	dst[start] = 0xde
	return slices.Insert(dst, start+1, header[:]...), nil
}

// finish makes a record of a buffer that holds its head and its tail. The record
// shares no memory with the buffer. It returns [ErrTooLarge] when the record is too
// large.
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

// appendUint appends a number in its shortest form.
func appendUint(dst []byte, n uint64) []byte {
	switch {
	case n < 1<<7:
		return append(dst, byte(n))
	case n < 1<<8:
		return append(dst, 0xcc, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, 0xcd), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(dst, 0xce), uint32(n))
	default:
		return binary.BigEndian.AppendUint64(append(dst, 0xcf), n)
	}
}

// appendString appends a string, or nil for the empty one.
func appendString(dst []byte, s string) []byte {
	n := len(s)
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
	return append(dst, s...)
}

func appendBinary(dst []byte, b string) []byte {
	return append(appendBinaryHeader(dst, len(b)), b...)
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

// parseID reads a UUID in its canonical form in lower case, and refuses every other.
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
