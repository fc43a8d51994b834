package jwt

import (
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxJSONDepth bounds how deep the objects and arrays of a token nest.
const maxJSONDepth = 64

var (
	errJSONSyntax    = errors.New("not one JSON object")
	errJSONUTF8      = errors.New("text that is not Unicode")
	errJSONDuplicate = errors.New("a member that occurs twice")
	errJSONDepth     = errors.New("nesting that is too deep")
	errJSONNumber    = errors.New("a number out of range")
)

// scanJSONObject walks over src, which must be one JSON object (RFC 8259) and nothing
// else, and hands each of its members to member: the name with its escapes
// resolved, the value as it stands. An error of member ends the walk.
//
// It refuses what parsers disagree about: duplicate names at any level, invalid UTF-8,
// lone surrogates, and numbers out of the range of float64. encoding/json lets the
// first three pass: of two equal names it takes the last one, and names match in any
// case.
//
// It takes linear time, and allocates only for names with escapes and for objects of
// more than 32 members.
func scanJSONObject(src string, member func(name, value string) error) error {
	if !utf8.ValidString(src) {
		return errJSONUTF8
	}
	var names [fewNames]string
	s := jsonScanner{src: src, names: names[:0]}
	s.space()
	if err := s.object(1, member); err != nil {
		return err
	}
	s.space()
	if s.pos != len(src) {
		return errJSONSyntax
	}
	return nil
}

type jsonScanner struct {
	src   string
	pos   int
	names []string // of the objects that are open, innermost last; the first few of each

	compared int // how often a name was compared or looked up: for the tests
}

// fewNames is how many names are found faster in a list than in a map.
const fewNames = 32

// peek returns the next byte, and 0, which is never valid between values, at
// the end.
func (s *jsonScanner) peek() byte {
	if s.pos == len(s.src) {
		return 0
	}
	return s.src[s.pos]
}

func (s *jsonScanner) take(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.pos++
	return true
}

func (s *jsonScanner) space() {
	for s.pos < len(s.src) && strings.IndexByte(" \t\r\n", s.src[s.pos]) >= 0 {
		s.pos++
	}
}

func (s *jsonScanner) object(depth int, member func(name, value string) error) error {
	if depth > maxJSONDepth {
		return errJSONDepth
	}
	if !s.take('{') {
		return errJSONSyntax
	}
	s.space()
	if s.take('}') {
		return nil
	}
	outer := len(s.names)
	var many map[string]bool
	for {
		s.space()
		start := s.pos
		if err := s.string(); err != nil {
			return err
		}
		name, ok := jsonString(s.src[start:s.pos])
		if !ok {
			return errJSONSyntax
		}
		if s.taken(name, outer, &many) {
			return errJSONDuplicate
		}
		s.space()
		if !s.take(':') {
			return errJSONSyntax
		}
		s.space()
		start = s.pos
		if err := s.value(depth); err != nil {
			return err
		}
		if member != nil {
			if err := member(name, s.src[start:s.pos]); err != nil {
				return err
			}
		}
		s.space()
		if s.take('}') {
			s.names = s.names[:outer]
			return nil
		}
		if !s.take(',') {
			return errJSONSyntax
		}
	}
}

// taken notes a name of the object whose names begin at outer, and reports whether the
// object has it already. Few names are compared with each other; many is for an object
// with more.
func (s *jsonScanner) taken(name string, outer int, many *map[string]bool) bool {
	names := s.names[outer:]
	if len(names) < fewNames {
		s.compared += len(names)
		s.names = append(s.names, name)
		return slices.Contains(names, name)
	}
	if *many == nil {
		*many = make(map[string]bool, 2*fewNames)
		for _, name := range names {
			(*many)[name] = true
		}
	}
	s.compared++
	if (*many)[name] {
		return true
	}
	(*many)[name] = true
	return false
}

func (s *jsonScanner) array(depth int) error {
	if depth > maxJSONDepth {
		return errJSONDepth
	}
	s.pos++
	s.space()
	if s.take(']') {
		return nil
	}
	for {
		s.space()
		if err := s.value(depth); err != nil {
			return err
		}
		s.space()
		if s.take(']') {
			return nil
		}
		if !s.take(',') {
			return errJSONSyntax
		}
	}
}

func (s *jsonScanner) value(depth int) error {
	switch c := s.peek(); c {
	case '{':
		return s.object(depth+1, nil)
	case '[':
		return s.array(depth + 1)
	case '"':
		return s.string()
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	default:
		return s.number()
	}
}

func (s *jsonScanner) literal(word string) error {
	if !strings.HasPrefix(s.src[s.pos:], word) {
		return errJSONSyntax
	}
	s.pos += len(word)
	return nil
}

func (s *jsonScanner) string() error {
	if !s.take('"') {
		return errJSONSyntax
	}
	for s.pos < len(s.src) {
		c := s.src[s.pos]
		s.pos++
		switch {
		case c == '"':
			return nil
		case c < ' ':
			return errJSONSyntax
		case c == '\\':
			if err := s.escape(); err != nil {
				return err
			}
		}
	}
	return errJSONSyntax
}

// escape reads what follows a backslash.
func (s *jsonScanner) escape() error {
	c := s.peek()
	s.pos++
	if c != 'u' {
		if c == 0 || strings.IndexByte(`"\/bfnrt`, c) < 0 {
			return errJSONSyntax
		}
		return nil
	}
	unit, ok := s.hex4()
	switch {
	case !ok:
		return errJSONSyntax
	case unit < 0xD800 || unit > 0xDFFF:
		return nil
	case unit > 0xDBFF || s.literal(`\u`) != nil:
		return errJSONUTF8
	}
	if low, ok := s.hex4(); !ok || low < 0xDC00 || low > 0xDFFF {
		return errJSONUTF8
	}
	return nil
}

func (s *jsonScanner) hex4() (unit uint64, ok bool) {
	if len(s.src)-s.pos < 4 {
		return 0, false
	}
	unit, err := strconv.ParseUint(s.src[s.pos:s.pos+4], 16, 16)
	s.pos += 4
	return unit, err == nil
}

func (s *jsonScanner) number() error {
	start := s.pos
	s.take('-')
	if !s.take('0') && !s.digits() {
		return errJSONSyntax
	}
	if s.take('.') && !s.digits() {
		return errJSONSyntax
	}
	if s.take('e') || s.take('E') {
		_ = s.take('+') || s.take('-')
		if !s.digits() {
			return errJSONSyntax
		}
	}
	if _, ok := jsonNumber(s.src[start:s.pos]); !ok {
		return errJSONNumber
	}
	return nil
}

// digits reads a run of digits and reports whether there is at least one.
func (s *jsonScanner) digits() bool {
	start := s.pos
	for s.pos < len(s.src) && '0' <= s.src[s.pos] && s.src[s.pos] <= '9' {
		s.pos++
	}
	return s.pos > start
}

// jsonString returns the text of a value that [scanJSONObject] has passed, and
// false when it is not a string.
func jsonString(value string) (string, bool) {
	if value[0] != '"' {
		return "", false
	}
	if strings.IndexByte(value, '\\') < 0 {
		return value[1 : len(value)-1], true
	}
	var s string
	err := json.Unmarshal([]byte(value), &s)
	return s, err == nil
}

// jsonNumber returns the number of a value that [scanJSONObject] has passed, and
// false when it is not a finite one.
func jsonNumber(value string) (float64, bool) {
	if value[0] != '-' && (value[0] < '0' || value[0] > '9') {
		return 0, false
	}
	f, err := strconv.ParseFloat(value, 64)
	return f, err == nil && !math.IsInf(f, 0)
}
