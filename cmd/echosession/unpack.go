package main

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// An unpacker walks over MessagePack.
type unpacker struct {
	data []byte
	pos  int
}

// A form is what kind of value a token begins.
type form uint8

const (
	formNil form = iota
	formBool
	formUint
	formInt // below zero
	formFloat
	formString
	formBinary
	formExtension
	formArray
	formMap
)

// A token is a value of MessagePack, or the head of an array or a map.
type token struct {
	form  form
	n     uint64 // the number, its bits, or how many elements follow
	bytes []byte // of a string, a binary or an extension
	ext   int8   // the type of an extension
}

var errMsgpack = errors.New("the data is not MessagePack")

func (u *unpacker) take(n uint64) ([]byte, error) {
	if n > uint64(len(u.data)-u.pos) {
		return nil, errMsgpack
	}
	start := u.pos
	u.pos += int(n)
	return u.data[start:u.pos], nil
}

// number reads a number in big-endian order.
func (u *unpacker) number(width int) (uint64, error) {
	b, err := u.take(uint64(width))
	if err != nil {
		return 0, err
	}
	var padded [8]byte
	copy(padded[8-width:], b)
	return binary.BigEndian.Uint64(padded[:]), nil
}

// next reads one token.
func (u *unpacker) next() (t token, err error) {
	code, err := u.number(1)
	if err != nil {
		return t, err
	}
	c := byte(code)
	switch {
	case c <= 0x7f:
		return token{form: formUint, n: code}, nil
	case c <= 0x8f:
		return token{form: formMap, n: uint64(c & 0x0f)}, nil
	case c <= 0x9f:
		return token{form: formArray, n: uint64(c & 0x0f)}, nil
	case c <= 0xbf:
		return u.payload(formString, uint64(c&0x1f))
	case c >= 0xe0:
		return token{form: formInt, n: uint64(int8(c))}, nil
	case c >= 0xd4 && c <= 0xd8:
		return u.payload(formExtension, 1<<(c-0xd4))
	}
	// The low bits of the code give the width of the number that follows.
	kind, ok := wide[c]
	if !ok {
		if c == 0xc0 {
			return token{form: formNil}, nil
		}
		return token{form: formBool, n: uint64(c & 1)}, holds(c == 0xc2 || c == 0xc3)
	}
	if t.n, err = u.number(kind.width); err != nil {
		return t, err
	}
	switch t.form = kind.form; t.form {
	case formString, formBinary, formExtension:
		return u.payload(t.form, t.n)
	case formInt:
		unused := 64 - 8*kind.width
		if t.n = uint64(int64(t.n<<unused) >> unused); int64(t.n) >= 0 {
			t.form = formUint
		}
	case formFloat:
		if kind.width == 4 {
			t.n = math.Float64bits(float64(math.Float32frombits(uint32(t.n))))
		}
	}
	return t, nil
}

// wide are the codes that a number follows.
var wide = map[byte]struct {
	form  form
	width int
}{
	0xc4: {formBinary, 1}, 0xc5: {formBinary, 2}, 0xc6: {formBinary, 4},
	0xc7: {formExtension, 1}, 0xc8: {formExtension, 2}, 0xc9: {formExtension, 4},
	0xca: {formFloat, 4}, 0xcb: {formFloat, 8},
	0xcc: {formUint, 1}, 0xcd: {formUint, 2}, 0xce: {formUint, 4}, 0xcf: {formUint, 8},
	0xd0: {formInt, 1}, 0xd1: {formInt, 2}, 0xd2: {formInt, 4}, 0xd3: {formInt, 8},
	0xd9: {formString, 1}, 0xda: {formString, 2}, 0xdb: {formString, 4},
	0xdc: {formArray, 2}, 0xdd: {formArray, 4},
	0xde: {formMap, 2}, 0xdf: {formMap, 4},
}

func holds(ok bool) error {
	if !ok {
		return errMsgpack
	}
	return nil
}

func (u *unpacker) payload(f form, n uint64) (t token, err error) {
	t = token{form: f, n: n}
	if f == formExtension {
		typ, err := u.number(1)
		if err != nil {
			return t, err
		}
		t.ext = int8(typ)
	}
	t.bytes, err = u.take(n)
	return t, err
}

// milliseconds reads a number of them. It reports false for nil and for anything else.
func (u *unpacker) milliseconds() (int64, bool) {
	t, err := u.next()
	if err != nil || t.form != formUint && t.form != formInt {
		return 0, false
	}
	ms := int64(t.n)
	// The end of the year 9999, as in a record; no sum of two such numbers overflows.
	const end = 253402300799999
	return ms, -end <= ms && ms <= end
}

// maxDepth is deeper than the library lets data nest.
const maxDepth = 100

// maxKeyDepth bounds how deep the key of a map nests: it becomes a string of JSON, and a
// string within a string has nearly twice its length at each level.
const maxKeyDepth = 3

// toJSON makes JSON of one value of MessagePack. Members of objects stay in their order. A
// key that is no string becomes one; a binary is in base64; a time is in RFC 3339; a number
// that JSON does not have is a string.
func toJSON(data []byte) (json.RawMessage, error) {
	u := &unpacker{data: data}
	text, err := u.appendJSON(nil, maxDepth)
	if err == nil && u.pos != len(data) {
		err = errMsgpack
	}
	return text, err
}

func (u *unpacker) appendJSON(dst []byte, depth int) ([]byte, error) {
	t, err := u.next()
	if err != nil {
		return dst, err
	}
	if t.form != formArray && t.form != formMap {
		return appendScalar(dst, t), nil
	}
	if depth == 0 {
		return dst, fmt.Errorf("the data nests deeper than %d levels", maxDepth)
	}
	brackets := "[]"
	if t.form == formMap {
		brackets = "{}"
	}
	dst = append(dst, brackets[0])
	for i := range t.n {
		if i > 0 {
			dst = append(dst, ',')
		}
		if t.form == formMap {
			start := len(dst)
			if dst, err = u.appendJSON(dst, min(depth-1, maxKeyDepth)); err != nil {
				return dst, err
			}
			if key := dst[start:]; key[0] != '"' {
				dst = appendString(dst[:start], string(key))
			}
			dst = append(dst, ':')
		}
		if dst, err = u.appendJSON(dst, depth-1); err != nil {
			return dst, err
		}
	}
	return append(dst, brackets[1]), nil
}

func appendScalar(dst []byte, t token) []byte {
	switch t.form {
	case formNil:
		return append(dst, "null"...)
	case formBool:
		return strconv.AppendBool(dst, t.n == 1)
	case formUint:
		return strconv.AppendUint(dst, t.n, 10)
	case formInt:
		return strconv.AppendInt(dst, int64(t.n), 10)
	case formFloat:
		f := math.Float64frombits(t.n)
		if text, err := json.Marshal(f); err == nil {
			return append(dst, text...)
		}
		return appendString(dst, strconv.FormatFloat(f, 'g', -1, 64))
	case formString:
		return appendString(dst, string(t.bytes))
	case formExtension:
		if at, ok := timestamp(t); ok {
			return appendString(dst, at.Format(time.RFC3339Nano))
		}
		dst = append(dst, `{"extension":`...)
		dst = strconv.AppendInt(dst, int64(t.ext), 10)
		dst = appendString(append(dst, `,"data":`...), base64.StdEncoding.EncodeToString(t.bytes))
		return append(dst, '}')
	default:
		return appendString(dst, base64.StdEncoding.EncodeToString(t.bytes))
	}
}

// timestamp reads the extension of MessagePack for times, which has three lengths.
func timestamp(t token) (at time.Time, ok bool) {
	if t.ext != -1 {
		return at, false
	}
	switch b := t.bytes; len(b) {
	case 4:
		return time.Unix(int64(binary.BigEndian.Uint32(b)), 0).UTC(), true
	case 8:
		n := binary.BigEndian.Uint64(b)
		return time.Unix(int64(n&(1<<34-1)), int64(n>>34)).UTC(), true
	case 12:
		at = time.Unix(int64(binary.BigEndian.Uint64(b[4:])), int64(binary.BigEndian.Uint32(b))).UTC()
		return at, true
	default:
		return at, false
	}
}

// appendString appends a string of JSON. What a browser would take for a tag stays as it is:
// the text is for a terminal.
func appendString(dst []byte, s string) []byte {
	var text strings.Builder
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string can be encoded
	return append(dst, strings.TrimSuffix(text.String(), "\n")...)
}
