package shape

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"math"
	"reflect"
	"sync"

	"github.com/vmihailenco/msgpack/v5"
)

// fallbackTag names the fields that have no msgpack tag.
const fallbackTag = "json"

var (
	// ErrLimit says that a value takes more bytes than it may.
	ErrLimit = errors.New("the value is too large")

	// ErrDepth says that a value nests deeper than [MaxDepth].
	ErrDepth = fmt.Errorf("it nests deeper than %d levels; does a pointer lead back to itself?", MaxDepth)

	// ErrDecoder says that data is well-formed and could not be decoded all the same.
	ErrDecoder = errors.New("the MessagePack decoder or a type's own refused it")
)

// Append appends the encoding of v, whose type is the shape's, to dst. Errors are
// [ErrLimit] when dst would become longer than limit, [ErrSize] when the value
// takes more memory than an encoding of that length may, [ErrDepth], and whatever a
// method of the value returns. It is an error too when the encoding could not be read back.
func (sh *Shape) Append(dst []byte, v reflect.Value, limit int) ([]byte, error) {
	start := len(dst)
	e := encoders.Get().(*encodeBuffer)
	e.buf, e.start, e.limit = dst, start, limit
	err := e.encode(v)
	dst, e.buf = e.buf, nil
	encoders.Put(e)
	if err != nil {
		return dst, err
	}
	scan := bounded(dst[start:], limit)
	switch err := scan.all(sh); err {
	case nil:
		return dst, nil
	case errDepth:
		return dst, ErrDepth
	case ErrSize:
		return dst, ErrSize
	default:
		return dst, scan.locate(err)
	}
}

// Check returns an error when data is not exactly one value of the shape, or when the
// value would take more than [Growth] times limit in memory. It reports whether data holds
// fields that the shape does not have. It takes linear time, and allocates nothing but
// the error. The error holds nothing of the data.
func (sh *Shape) Check(data []byte, limit int) (unknown bool, err error) {
	scan := bounded(data, limit)
	if err := scan.all(sh); err != nil {
		return false, scan.locate(err)
	}
	return scan.unknown, nil
}

// bounded returns a scanner for a value that takes at most [Growth] times limit in memory.
func bounded(data []byte, limit int) *Scanner {
	s := unbounded(data)
	if n := uint64(max(0, limit)); n < s.room/Growth {
		s.room = n * Growth
	}
	return s
}

func unbounded(data []byte) *Scanner { return &Scanner{Data: data, room: math.MaxUint64} }

// Decode checks data and decodes it into v, which is a zero value of the shape's
// type and can be set. It returns what Check returns, or [ErrDecoder].
func (sh *Shape) Decode(data []byte, v reflect.Value, limit int) error {
	if _, err := sh.Check(data, limit); err != nil {
		return err
	}
	if err := unmarshalMsgpack(data, v); err != nil {
		return ErrDecoder
	}
	settle(v, sh)
	return nil
}

// locate says in which field an error was found.
func (s *Scanner) locate(err error) error {
	if s.at == nil {
		return err
	}
	return fmt.Errorf("%s: %w", s.at.where, err)
}

// An encodeBuffer takes what the encoder writes, up to a limit.
type encodeBuffer struct {
	enc   *msgpack.Encoder
	buf   []byte
	start int // of the data
	limit int // of the whole buffer
	next  int // the length at which to look for depth next
}

var encoders = sync.Pool{New: func() any { return &encodeBuffer{enc: msgpack.NewEncoder(nil)} }}

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

// room reports whether n more bytes may be written. It measures the depth whenever the
// buffer has doubled: so the encoding of a value that leads back to itself ends long
// before the stack is used up.
func (e *encodeBuffer) room(n int) error {
	size := len(e.buf) + n
	if size <= min(e.limit, e.next) {
		return nil
	}
	scan := Scanner{Data: e.buf[e.start:]}
	if scan.skip(MaxDepth, false) == errDepth {
		return ErrDepth
	}
	if size > e.limit {
		return ErrLimit
	}
	e.next = 2 * size
	return nil
}

// marshalMsgpack encodes v for the schema, without a limit that matters.
func marshalMsgpack(v reflect.Value) (data []byte, err error) {
	e := &encodeBuffer{enc: msgpack.NewEncoder(nil), limit: math.MaxInt}
	err = Recovered(func() error { return e.encode(v) })
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
	err := Recovered(func() error { return d.dec.DecodeValue(v) })
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

// Recovered makes a panic in a type's own method, or in the decoder, an error.
func Recovered(f func() error) (err error) {
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
