package echosession

import (
	"bytes"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/url"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// A stranger sends these bodies. So they are searched for the fields that are
// configured, and nothing else of them is kept or decoded.

// onlyIn returns the one value of a field among those of a form that was parsed
// before.
func onlyIn(values url.Values) func(name string) (string, error) {
	return func(name string) (string, error) { return only(values[name]) }
}

// onlyInForm returns the one value of a field in a query or a form, read as
// [url.ParseQuery] reads it: a malformed pair is left out.
func onlyInForm(text, name string) (string, error) {
	value, seen := "", false
	for text != "" {
		var pair string
		pair, text, _ = strings.Cut(text, "&")
		key, escaped, _ := strings.Cut(pair, "=")
		if strings.Contains(pair, ";") || !formEquals(key, name) {
			continue
		}
		v, err := url.QueryUnescape(escaped)
		if err != nil {
			continue
		}
		if seen {
			return "", ErrAmbiguousToken
		}
		value, seen = v, true
	}
	return value, nil
}

// formEquals reports whether an escaped key stands for a name.
func formEquals(key, name string) bool {
	if !strings.ContainsAny(key, "%+") {
		return key == name
	}
	if len(key) > 3*len(name) {
		return false
	}
	for key != "" {
		c, n := key[0], 1
		switch {
		case c == '+':
			c = ' '
		case c == '%':
			if len(key) < 3 {
				return false
			}
			high, ok1 := hexDigit(key[1])
			low, ok2 := hexDigit(key[2])
			if !ok1 || !ok2 {
				return false
			}
			c, n = byte(high<<4|low), 3
		}
		if name == "" || name[0] != c {
			return false
		}
		key, name = key[n:], name[1:]
	}
	return name == ""
}

func hexDigit(c byte) (rune, bool) {
	switch {
	case '0' <= c && c <= '9':
		return rune(c - '0'), true
	case 'a' <= c && c <= 'f':
		return rune(c - 'a' + 10), true
	case 'A' <= c && c <= 'F':
		return rune(c - 'A' + 10), true
	}
	return 0, false
}

// onlyInJSON returns the one member with a name of a JSON object, and "" when it is
// no string or body no object. body is valid JSON.
func onlyInJSON(body []byte, name string) (string, error) {
	s := jsonText{body, 0}
	if s.next() != '{' {
		return "", nil
	}
	value, seen := "", false
	for s.next() == '"' {
		s.at--
		key := s.value()
		s.next() // the colon
		v := s.value()
		if jsonEquals(key, name) {
			if seen {
				return "", ErrAmbiguousToken
			}
			seen = true
			if v[0] == '"' {
				_ = json.Unmarshal(v, &value) // it is valid
			}
		}
		if s.next() != ',' {
			break
		}
	}
	return value, nil
}

// jsonText walks over valid JSON.
type jsonText struct {
	text []byte
	at   int
}

// next skips white space and returns the byte that follows, or 0 at the end.
func (s *jsonText) next() byte {
	for s.at < len(s.text) {
		c := s.text[s.at]
		s.at++
		if c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			return c
		}
	}
	return 0
}

// value returns the value that comes next, as it is written.
func (s *jsonText) value() []byte {
	c := s.next()
	start, depth := s.at-1, 0
	for {
		switch c {
		case '"':
			s.skipString()
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		default:
			if depth == 0 {
				s.skipLiteral()
			}
		}
		if depth == 0 {
			return s.text[start:s.at]
		}
		c = s.next()
	}
}

// skipString goes to the end of a string whose opening quote was read.
func (s *jsonText) skipString() {
	for s.text[s.at] != '"' {
		if s.text[s.at] == '\\' {
			s.at++
		}
		s.at++
	}
	s.at++
}

// skipLiteral goes to the end of a number, true, false or null.
func (s *jsonText) skipLiteral() {
	if n := bytes.IndexAny(s.text[s.at:], ",}] \t\n\r"); n >= 0 {
		s.at += n
	} else {
		s.at = len(s.text)
	}
}

// jsonEquals reports whether a JSON string, with its quotes, stands for a name.
func jsonEquals(quoted []byte, name string) bool {
	text := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(text, '\\') < 0 {
		return string(text) == name
	}
	for len(text) > 0 {
		if text[0] != '\\' {
			if name == "" || name[0] != text[0] {
				return false
			}
			text, name = text[1:], name[1:]
			continue
		}
		r, n := jsonEscape(text)
		var buf [utf8.UTFMax]byte
		size := utf8.EncodeRune(buf[:], r)
		if !strings.HasPrefix(name, string(buf[:size])) {
			return false
		}
		text, name = text[n:], name[size:]
	}
	return name == ""
}

// jsonEscape returns what the escape stands for that text begins with, and its
// length.
func jsonEscape(text []byte) (rune, int) {
	switch text[1] {
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r := hex4(text[2:6])
		if !utf16.IsSurrogate(r) {
			return r, 6
		}
		if len(text) >= 12 && text[6] == '\\' && text[7] == 'u' {
			if pair := utf16.DecodeRune(r, hex4(text[8:12])); pair != utf8.RuneError {
				return pair, 12
			}
		}
		return utf8.RuneError, 6
	default:
		return rune(text[1]), 2
	}
}

func hex4(digits []byte) (r rune) {
	for _, c := range digits {
		d, _ := hexDigit(c)
		r = r<<4 | d
	}
	return r
}

// maxParts is how many parts of a multipart body are looked at: no more than
// package mime/multipart reads into a form.
const maxParts = 1000

// multipartValues returns those fields of a multipart body that are configured and
// are not files, and nothing of a malformed body.
func (l *lookup) multipartValues(body []byte, boundary string) url.Values {
	if boundary == "" {
		return nil
	}
	values := make(url.Values)
	parts := multipart.NewReader(bytes.NewReader(body), boundary)
	for range maxParts + 1 {
		part, err := parts.NextPart()
		if err == io.EOF {
			return values
		}
		if err != nil {
			return nil
		}
		name := part.FormName()
		if part.FileName() != "" || !slices.ContainsFunc(l.fields, func(f field) bool { return f.name == name }) {
			continue
		}
		value, err := io.ReadAll(part)
		if err != nil {
			return nil
		}
		values.Add(name, string(value))
	}
	return nil
}
