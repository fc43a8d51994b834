package shape

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"reflect"
)

// MaxDepth is how deep maps and arrays may nest in an encoding.
const MaxDepth = 64

// What a scanner finds wrong. None of the texts carries data.
var (
	errShort    = errors.New("it ends too early")
	errTrailing = errors.New("bytes follow its end")
	errNoCode   = errors.New("it holds a byte that MessagePack never uses")
	errDepth    = errors.New("it nests deeper than 64 levels")
	errForm     = errors.New("the stored value is of another type")
	errRange    = errors.New("the stored number does not fit")
	errTime     = errors.New("the stored time is malformed")
	errTwice    = errors.New("the field is there twice")
	errKey      = errors.New("a map in an interface has a key that is not a string")
)

// Growth is how many times the bytes that an encoding may have, the value in it may take
// in memory.
const Growth = 64

// ErrSize says that a value takes more memory than it may.
var ErrSize = fmt.Errorf("in memory it takes more than %d times the bytes allowed", Growth)

// Form is what kind of MessagePack value a token begins.
type Form uint8

// The forms. N is that of the [Token].
const (
	FormNil Form = iota
	FormBool
	FormUint    // N is the value
	FormInt     // below zero; N is its two's complement
	FormFloat32 // N is its bits
	FormFloat64 // likewise
	FormString  // N is the length; the scanner stands behind the last byte
	FormBinary  // likewise
	FormTime    // likewise
	FormExt     // likewise
	FormArray   // N is the number of elements; the scanner stands before the first
	FormMap     // N is the number of pairs; likewise
)

// A Token is what a MessagePack value begins with. A string, a number, nil, a bool
// and an extension are one token; the elements of arrays and maps follow theirs.
type Token struct {
	Form Form
	N    uint64
}

// A Scanner walks over MessagePack before the decoder sees it. The decoder trusts
// declared lengths and nesting (the five bytes dfffffffff make it allocate four
// billion map entries), treats an extension in a map's place as the map's
// wrapper, wraps numbers around in silence and ignores what follows the value:
// none of this gets past a scanner. It takes linear time and allocates nothing.
type Scanner struct {
	Data []byte
	Pos  int // of the next token

	// room is how many bytes of memory the decoder may still fill, by the estimate of
	// check.
	room uint64

	// unknown is set by check when it meets a field that the shape does not have.
	unknown bool

	// at is the last struct field that check entered.
	at *shapeField
}

// Next reads one token, with every byte of a string, a binary or an extension. It does
// not read the elements of an array or a map, and does not compare the declared number
// with what is there. Each element takes at least one byte, so a caller that reads them
// one by one ends with the data, whatever number is declared.
func (s *Scanner) Next() (Token, error) {
	if s.Pos >= len(s.Data) {
		return Token{}, errShort
	}
	c := s.Data[s.Pos]
	s.Pos++
	switch {
	case c <= 0x7f:
		return Token{FormUint, uint64(c)}, nil
	case c <= 0x8f:
		return Token{FormMap, uint64(c & 0x0f)}, nil
	case c <= 0x9f:
		return Token{FormArray, uint64(c & 0x0f)}, nil
	case c <= 0xbf:
		return s.payload(FormString, uint64(c&0x1f))
	case c >= 0xe0:
		return Token{FormInt, uint64(int8(c))}, nil
	}

	// The low bits of the code give the width of the number that follows.
	switch c {
	case 0xc0:
		return Token{FormNil, 0}, nil
	case 0xc2, 0xc3:
		return Token{FormBool, uint64(c & 1)}, nil
	case 0xc4, 0xc5, 0xc6:
		n, err := s.number(1 << (c - 0xc4))
		if err != nil {
			return Token{}, err
		}
		return s.payload(FormBinary, n)
	case 0xc7, 0xc8, 0xc9:
		n, err := s.number(1 << (c - 0xc7))
		if err != nil {
			return Token{}, err
		}
		return s.ext(n)
	case 0xca:
		n, err := s.number(4)
		return Token{FormFloat32, n}, err
	case 0xcb:
		n, err := s.number(8)
		return Token{FormFloat64, n}, err
	case 0xcc, 0xcd, 0xce, 0xcf:
		n, err := s.number(1 << (c - 0xcc))
		return Token{FormUint, n}, err
	case 0xd0, 0xd1, 0xd2, 0xd3:
		width := 1 << (c - 0xd0)
		n, err := s.number(width)
		unused := 64 - 8*width
		if i := int64(n<<unused) >> unused; i < 0 {
			return Token{FormInt, uint64(i)}, err
		}
		return Token{FormUint, n}, err
	case 0xd4, 0xd5, 0xd6, 0xd7, 0xd8:
		return s.ext(1 << (c - 0xd4))
	case 0xd9, 0xda, 0xdb:
		n, err := s.number(1 << (c - 0xd9))
		if err != nil {
			return Token{}, err
		}
		return s.payload(FormString, n)
	case 0xdc, 0xdd:
		n, err := s.number(2 << (c - 0xdc))
		return Token{FormArray, n}, err
	case 0xde, 0xdf:
		n, err := s.number(2 << (c - 0xde))
		return Token{FormMap, n}, err
	}
	return Token{}, errNoCode
}

func (s *Scanner) left() uint64 { return uint64(len(s.Data) - s.Pos) }

func (s *Scanner) number(width int) (uint64, error) {
	if s.left() < uint64(width) {
		return 0, errShort
	}
	b := s.Data[s.Pos:]
	s.Pos += width
	switch width {
	case 1:
		return uint64(b[0]), nil
	case 2:
		return uint64(binary.BigEndian.Uint16(b)), nil
	case 4:
		return uint64(binary.BigEndian.Uint32(b)), nil
	default:
		return binary.BigEndian.Uint64(b), nil
	}
}

func (s *Scanner) payload(f Form, n uint64) (Token, error) {
	if n > s.left() {
		return Token{}, errShort
	}
	s.Pos += int(n)
	return Token{f, n}, nil
}

// ext reads the type and the n bytes of an extension. Type -1 is the timestamp,
// which has three lengths.
func (s *Scanner) ext(n uint64) (Token, error) {
	typ, err := s.number(1)
	if err != nil {
		return Token{}, err
	}
	if int8(typ) != -1 {
		return s.payload(FormExt, n)
	}
	tok, err := s.payload(FormTime, n)
	if err != nil {
		return Token{}, err
	}
	var nanos uint32
	switch b := s.Last(tok); n {
	case 4:
	case 8:
		nanos = binary.BigEndian.Uint32(b) >> 2
	case 12:
		nanos = binary.BigEndian.Uint32(b)
	default:
		return Token{}, errTime
	}
	if nanos > 999_999_999 {
		return Token{}, errTime
	}
	return tok, nil
}

// Last returns the payload of the token just read: the bytes of a string, a binary,
// a time or an extension. It shares memory with Data.
func (s *Scanner) Last(tok Token) []byte { return s.Data[s.Pos-int(tok.N) : s.Pos] }

// Skip walks over one value of any shape.
func (s *Scanner) Skip() error { return s.skip(MaxDepth, false) }

// skip walks over one value of any shape. depth is how many containers may still
// nest. A value that is to be decoded into an interface takes memory, and can only have
// strings as map keys.
func (s *Scanner) skip(depth int, decoded bool) error {
	tok, err := s.Next()
	if err != nil {
		return err
	}
	return s.skipRest(tok, depth, decoded)
}

func (s *Scanner) skipRest(tok Token, depth int, decoded bool) error {
	if decoded {
		if err := s.spendAny(tok); err != nil {
			return err
		}
	}
	if tok.Form != FormArray && tok.Form != FormMap {
		return nil
	}
	if depth == 0 {
		return errDepth
	}
	for range tok.N {
		if tok.Form == FormMap {
			key, err := s.Next()
			if err != nil {
				return err
			}
			if decoded && key.Form != FormString {
				return errKey
			}
			if err := s.skipRest(key, depth-1, decoded); err != nil {
				return err
			}
		}
		if err := s.skip(depth-1, decoded); err != nil {
			return err
		}
	}
	return nil
}

// all checks that data holds exactly one value of the given shape.
func (s *Scanner) all(sh *Shape) error {
	if err := s.check(sh, MaxDepth); err != nil {
		return err
	}
	if s.Pos != len(s.Data) {
		return errTrailing
	}
	return nil
}

// check walks over one value and guarantees that the decoder finds in it what
// the shape's Go type can hold. Everything but a time may be nil: the decoder
// makes it the zero value.
func (s *Scanner) check(sh *Shape, depth int) error {
	for sh.kind == shapePointer {
		if s.Pos < len(s.Data) && s.Data[s.Pos] == 0xc0 {
			s.Pos++
			return nil
		}
		sh = sh.elem
		if err := s.spend(1, uint64(sh.typ.Size())); err != nil {
			return err
		}
	}
	tok, err := s.Next()
	if err != nil {
		return err
	}

	switch sh.kind {
	case shapeAny, shapeOwn:
		return s.skipRest(tok, depth, sh.kind == shapeAny)
	case shapeTime:
		// The decoder panics at nil here.
		return holds(tok.Form == FormTime)
	}
	if tok.Form == FormNil {
		return nil
	}
	switch sh.kind {
	case shapeBool:
		return holds(tok.Form == FormBool)
	case shapeInt, shapeUint, shapeFloat:
		return checkNumber(sh, tok)
	case shapeString:
		if tok.Form != FormString && tok.Form != FormBinary {
			return errForm
		}
		return s.spend(tok.N, 1)
	case shapeByteArray:
		if tok.Form != FormString && tok.Form != FormBinary || tok.N > uint64(sh.size) {
			return errForm
		}
		return nil
	case shapeStruct:
		return s.checkStruct(sh, tok, depth)
	}

	// A slice, an array or a map.
	want := FormArray
	if sh.kind == shapeMap {
		want = FormMap
	}
	if tok.Form != want || sh.kind == shapeArray && tok.N > uint64(sh.size) {
		return errForm
	}
	if depth == 0 {
		return errDepth
	}
	if err := s.spendElements(sh, tok.N); err != nil {
		return err
	}
	for range tok.N {
		if sh.kind == shapeMap {
			if err := s.check(sh.key, depth-1); err != nil {
				return err
			}
		}
		if err := s.check(sh.elem, depth-1); err != nil {
			return err
		}
	}
	return nil
}

// spend counts n things of some size that the decoder will allocate.
func (s *Scanner) spend(n, size uint64) error {
	high, product := bits.Mul64(n, size)
	if high > 0 || product > s.room {
		return ErrSize
	}
	s.room -= product
	return nil
}

// spendElements counts what n declared elements of a slice or a map take, before they
// are looked at: each may be as short as one byte.
func (s *Scanner) spendElements(sh *Shape, n uint64) error {
	switch sh.kind {
	case shapeSlice:
		return s.spend(n, uint64(sh.elem.typ.Size()))
	case shapeMap:
		return s.spendMap(n, sh.key.typ, sh.elem.typ)
	}
	return nil // an array is part of what it is in
}

// spendMap counts a map of n pairs. A map has room for at least eight, and for up to
// twice as many as it holds. What is larger than 128 bytes stands beside it.
func (s *Scanner) spendMap(n uint64, key, elem reflect.Type) error {
	const header, inside, pointer = 48, 128, 8
	slot := uint64(1) // a byte that says what is in it
	for _, t := range []reflect.Type{key, elem} {
		size := uint64(t.Size())
		if size > inside {
			if err := s.spend(n, size); err != nil {
				return err
			}
			size = pointer
		}
		slot += size
	}
	slots := max(8, 2*n)
	if n == 0 {
		slots = 0
	}
	if err := s.spend(1, header); err != nil {
		return err
	}
	return s.spend(slots, slot)
}

// spendAny counts what a token takes behind an interface: an interface is a pointer to
// a number, or to the header of a string or a slice.
func (s *Scanner) spendAny(tok Token) error {
	const number, header = 8, 24
	switch tok.Form {
	case FormNil, FormBool:
		return nil
	case FormUint, FormInt, FormFloat32, FormFloat64:
		return s.spend(1, number)
	case FormArray:
		if err := s.spend(1, header); err != nil {
			return err
		}
		return s.spend(tok.N, uint64(anyType.Size()))
	case FormMap:
		return s.spendMap(tok.N, stringType, anyType)
	default:
		return s.spend(1, header+tok.N)
	}
}

func holds(ok bool) error {
	if !ok {
		return errForm
	}
	return nil
}

// checkNumber refuses what the decoder would wrap around or round.
func checkNumber(sh *Shape, tok Token) error {
	ok := true
	switch {
	case sh.kind == shapeFloat && tok.Form == FormFloat32:
	case sh.kind == shapeFloat && tok.Form == FormFloat64:
		// The decoder does not narrow floats.
		return holds(sh.bits == 64)
	case tok.Form != FormUint && tok.Form != FormInt:
		return errForm
	case sh.kind == shapeUint:
		ok = tok.Form == FormUint && tok.N<<(64-sh.bits)>>(64-sh.bits) == tok.N
	case tok.Form == FormUint && tok.N > math.MaxInt64:
		ok = false
	case sh.kind == shapeInt:
		ok = int64(tok.N)<<(64-sh.bits)>>(64-sh.bits) == int64(tok.N)
	default: // a whole number for a float
		exact := int64(1) << 53
		if sh.bits == 32 {
			exact = 1 << 24
		}
		ok = -exact <= int64(tok.N) && int64(tok.N) <= exact
	}
	if !ok {
		return errRange
	}
	return nil
}

// checkStruct also refuses a field that is there twice: the decoder would keep the
// last one. Equal keys of a Go map are not looked for, since that takes memory: there
// the last one wins.
func (s *Scanner) checkStruct(sh *Shape, tok Token, depth int) error {
	array := tok.Form == FormArray && sh.asArray && tok.N == uint64(len(sh.fields))
	if tok.Form != FormMap && !array {
		return errForm
	}
	if depth == 0 {
		return errDepth
	}
	if array {
		for i := range sh.fields {
			s.at = &sh.fields[i]
			if err := s.check(sh.fields[i].shape, depth-1); err != nil {
				return err
			}
		}
		return nil
	}
	var seen [maxFields / 64]uint64
	expected := 0
	for range tok.N {
		key, err := s.Next()
		if err != nil {
			return err
		}
		if key.Form != FormString {
			return errForm
		}
		f := sh.lookup(s.Last(key), &expected)
		if f == nil {
			s.unknown = true
			if err := s.skip(depth-1, false); err != nil {
				return err
			}
			continue
		}
		s.at = f
		word, bit := f.number/64, uint64(1)<<(f.number%64)
		if seen[word]&bit != 0 {
			return errTwice
		}
		seen[word] |= bit
		if err := s.check(f.shape, depth-1); err != nil {
			return err
		}
	}
	return nil
}
