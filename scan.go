package echosession

import (
	"encoding/binary"
	"errors"
	"math"
)

// maxDepth is how deep maps and arrays may nest in a record.
const maxDepth = 64

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

// form is what kind of MessagePack value a token begins.
type form uint8

const (
	formNil form = iota
	formBool
	formUint // n is the value
	formInt  // below zero; n is its two's complement
	formFloat32
	formFloat64
	formString // n is the length; the scanner stands behind the last byte
	formBinary // likewise
	formTime   // likewise
	formExt    // likewise
	formArray  // n is the number of elements; the scanner stands before the first
	formMap    // n is the number of pairs; likewise
)

type token struct {
	form form
	n    uint64
}

// A scanner walks MessagePack before the decoder sees it. The decoder trusts
// declared lengths and nesting (the five bytes dfffffffff make it allocate four
// billion map entries), treats an extension in a map's place as the map's
// wrapper, wraps numbers around in silence and ignores what follows the value:
// none of this gets past a scanner. It takes linear time and allocates nothing.
type scanner struct {
	data []byte
	pos  int

	// unknown is set by check when it meets a field that the shape does not have.
	unknown bool

	// at is the last struct field that check entered.
	at *shapeField
}

// next reads one token and, of a string, every byte. How many elements a map or
// an array declares is for the caller to walk: each takes a byte at least, so
// that a walk ends with the data whatever is declared.
func (s *scanner) next() (token, error) {
	if s.pos >= len(s.data) {
		return token{}, errShort
	}
	c := s.data[s.pos]
	s.pos++
	switch {
	case c <= 0x7f:
		return token{formUint, uint64(c)}, nil
	case c <= 0x8f:
		return token{formMap, uint64(c & 0x0f)}, nil
	case c <= 0x9f:
		return token{formArray, uint64(c & 0x0f)}, nil
	case c <= 0xbf:
		return s.payload(formString, uint64(c&0x1f))
	case c >= 0xe0:
		return token{formInt, uint64(int8(c))}, nil
	}

	// The low bits of the code give the width of the number that follows.
	switch c {
	case 0xc0:
		return token{formNil, 0}, nil
	case 0xc2, 0xc3:
		return token{formBool, uint64(c & 1)}, nil
	case 0xc4, 0xc5, 0xc6:
		n, err := s.number(1 << (c - 0xc4))
		if err != nil {
			return token{}, err
		}
		return s.payload(formBinary, n)
	case 0xc7, 0xc8, 0xc9:
		n, err := s.number(1 << (c - 0xc7))
		if err != nil {
			return token{}, err
		}
		return s.ext(n)
	case 0xca:
		n, err := s.number(4)
		return token{formFloat32, n}, err
	case 0xcb:
		n, err := s.number(8)
		return token{formFloat64, n}, err
	case 0xcc, 0xcd, 0xce, 0xcf:
		n, err := s.number(1 << (c - 0xcc))
		return token{formUint, n}, err
	case 0xd0, 0xd1, 0xd2, 0xd3:
		width := 1 << (c - 0xd0)
		n, err := s.number(width)
		unused := 64 - 8*width
		if i := int64(n<<unused) >> unused; i < 0 {
			return token{formInt, uint64(i)}, err
		}
		return token{formUint, n}, err
	case 0xd4, 0xd5, 0xd6, 0xd7, 0xd8:
		return s.ext(1 << (c - 0xd4))
	case 0xd9, 0xda, 0xdb:
		n, err := s.number(1 << (c - 0xd9))
		if err != nil {
			return token{}, err
		}
		return s.payload(formString, n)
	case 0xdc, 0xdd:
		n, err := s.number(2 << (c - 0xdc))
		return token{formArray, n}, err
	case 0xde, 0xdf:
		n, err := s.number(2 << (c - 0xde))
		return token{formMap, n}, err
	}
	return token{}, errNoCode
}

func (s *scanner) left() uint64 { return uint64(len(s.data) - s.pos) }

func (s *scanner) number(width int) (uint64, error) {
	if s.left() < uint64(width) {
		return 0, errShort
	}
	b := s.data[s.pos:]
	s.pos += width
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

func (s *scanner) payload(f form, n uint64) (token, error) {
	if n > s.left() {
		return token{}, errShort
	}
	s.pos += int(n)
	return token{f, n}, nil
}

// ext reads the type and the n bytes of an extension. Type -1 is the timestamp,
// which has three lengths.
func (s *scanner) ext(n uint64) (token, error) {
	typ, err := s.number(1)
	if err != nil {
		return token{}, err
	}
	if int8(typ) != -1 {
		return s.payload(formExt, n)
	}
	tok, err := s.payload(formTime, n)
	if err != nil {
		return token{}, err
	}
	var nanos uint32
	switch b := s.last(tok); n {
	case 4:
	case 8:
		nanos = binary.BigEndian.Uint32(b) >> 2
	case 12:
		nanos = binary.BigEndian.Uint32(b)
	default:
		return token{}, errTime
	}
	if nanos > 999_999_999 {
		return token{}, errTime
	}
	return tok, nil
}

// last is the payload of the token just read.
func (s *scanner) last(tok token) []byte { return s.data[s.pos-int(tok.n) : s.pos] }

// skip walks over one value of any shape. depth is how many containers may still
// nest. A value that is to be decoded into an interface can only have strings as
// map keys.
func (s *scanner) skip(depth int, stringKeys bool) error {
	tok, err := s.next()
	if err != nil {
		return err
	}
	return s.skipRest(tok, depth, stringKeys)
}

func (s *scanner) skipRest(tok token, depth int, stringKeys bool) error {
	if tok.form != formArray && tok.form != formMap {
		return nil
	}
	if depth == 0 {
		return errDepth
	}
	for range tok.n {
		if tok.form == formMap {
			key, err := s.next()
			if err != nil {
				return err
			}
			if stringKeys && key.form != formString {
				return errKey
			}
			if err := s.skipRest(key, depth-1, stringKeys); err != nil {
				return err
			}
		}
		if err := s.skip(depth-1, stringKeys); err != nil {
			return err
		}
	}
	return nil
}

// all checks that data holds exactly one value of the given shape.
func (s *scanner) all(sh *shape) error {
	if err := s.check(sh, maxDepth); err != nil {
		return err
	}
	if s.pos != len(s.data) {
		return errTrailing
	}
	return nil
}

// check walks over one value and guarantees that the decoder finds in it what
// the shape's Go type can hold. Everything but a time may be nil: the decoder
// makes it the zero value.
func (s *scanner) check(sh *shape, depth int) error {
	for sh.kind == shapePointer {
		if s.pos < len(s.data) && s.data[s.pos] == 0xc0 {
			s.pos++
			return nil
		}
		sh = sh.elem
	}
	tok, err := s.next()
	if err != nil {
		return err
	}

	switch sh.kind {
	case shapeAny, shapeOwn:
		return s.skipRest(tok, depth, sh.kind == shapeAny)
	case shapeTime:
		// The decoder panics at nil here.
		return holds(tok.form == formTime)
	}
	if tok.form == formNil {
		return nil
	}
	switch sh.kind {
	case shapeBool:
		return holds(tok.form == formBool)
	case shapeInt, shapeUint, shapeFloat:
		return checkNumber(sh, tok)
	case shapeString:
		return holds(tok.form == formString || tok.form == formBinary)
	case shapeByteArray:
		if tok.form != formString && tok.form != formBinary || tok.n > uint64(sh.size) {
			return errForm
		}
		return nil
	case shapeStruct:
		return s.checkStruct(sh, tok, depth)
	}

	// A slice, an array or a map.
	want := formArray
	if sh.kind == shapeMap {
		want = formMap
	}
	if tok.form != want || sh.kind == shapeArray && tok.n > uint64(sh.size) {
		return errForm
	}
	if depth == 0 {
		return errDepth
	}
	for range tok.n {
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

func holds(ok bool) error {
	if !ok {
		return errForm
	}
	return nil
}

// checkNumber refuses what the decoder would wrap around or round.
func checkNumber(sh *shape, tok token) error {
	ok := true
	switch {
	case sh.kind == shapeFloat && tok.form == formFloat32:
	case sh.kind == shapeFloat && tok.form == formFloat64:
		// The decoder does not narrow floats.
		return holds(sh.bits == 64)
	case tok.form != formUint && tok.form != formInt:
		return errForm
	case sh.kind == shapeUint:
		ok = tok.form == formUint && tok.n<<(64-sh.bits)>>(64-sh.bits) == tok.n
	case tok.form == formUint && tok.n > math.MaxInt64:
		ok = false
	case sh.kind == shapeInt:
		ok = int64(tok.n)<<(64-sh.bits)>>(64-sh.bits) == int64(tok.n)
	default: // a whole number for a float
		exact := int64(1) << 53
		if sh.bits == 32 {
			exact = 1 << 24
		}
		ok = -exact <= int64(tok.n) && int64(tok.n) <= exact
	}
	if !ok {
		return errRange
	}
	return nil
}

// checkStruct also refuses a field that is there twice, of which the decoder
// would keep the last. In a Go map the last one of two equal keys wins: to find
// them takes memory.
func (s *scanner) checkStruct(sh *shape, tok token, depth int) error {
	array := tok.form == formArray && sh.asArray && tok.n == uint64(len(sh.fields))
	if tok.form != formMap && !array {
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
	for range tok.n {
		key, err := s.next()
		if err != nil {
			return err
		}
		if key.form != formString {
			return errForm
		}
		f := sh.lookup(s.last(key), &expected)
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
