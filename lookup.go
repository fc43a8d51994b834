package echosession

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
	"unicode"
)

const (
	mimeForm      = "application/x-www-form-urlencoded"
	mimeMultipart = "multipart/form-data"
	mimeJSON      = "application/json"
)

// maxBody is how much of a body is read in search of a token.
const maxBody = 1 << 20

// lookup finds the token of a request.
type lookup struct {
	sources []source // all but the body
	fields  []field  // fields of the body, asked when no source has a token
}

// source is one place for a token outside of the body.
type source struct {
	kind   string // "header", "query", "param" or "cookie"
	name   string
	prefix string // of a header's value, compared without regard to case
}

// field is one place for a token in the body.
type field struct {
	name     string
	formOnly bool
}

// found is a token and what its place means for the answer.
type found struct {
	token  string
	cookie bool // it came in a cookie and nowhere else
	url    bool // it is part of the URL, so the answer must not be stored
}

// defaultLookup is where an instance with this RequestArg looks.
func defaultLookup(arg string, cookie *Cookie) string {
	lookup := fmt.Sprintf("header:Authorization:Bearer ,header:%s,query:%s,body:%s", headerName(arg), arg, arg)
	if cookie != nil {
		lookup += ",cookie:" + cookie.Name
	}
	return lookup
}

// headerName makes a header of a camelCase name: X-Fancy-Access-Token of
// fancyAccessToken.
func headerName(arg string) string {
	var b strings.Builder
	b.WriteString("X-")
	previous := '-'
	for _, r := range arg {
		if unicode.IsUpper(r) && (unicode.IsLower(previous) || unicode.IsDigit(previous)) {
			b.WriteByte('-')
		}
		if r == '_' {
			r = '-'
		}
		b.WriteRune(r)
		previous = r
	}
	return textproto.CanonicalMIMEHeaderKey(strings.ToLower(b.String()))
}

// newLookup reads a [Config.TokenLookup].
func newLookup(s string) (*lookup, error) {
	l := &lookup{}
	var errs []error
	for _, part := range strings.Split(s, ",") {
		kind, name, _ := strings.Cut(strings.TrimLeft(part, " "), ":")
		prefix := ""
		if kind == "header" {
			name, prefix, _ = strings.Cut(name, ":")
			name = textproto.CanonicalMIMEHeaderKey(name)
		}
		switch kind {
		case "header", "cookie":
			// Names of cookies and of headers are tokens alike (RFC 9110 §5.6.2).
			if (&http.Cookie{Name: name, Value: "x"}).Valid() != nil {
				errs = append(errs, fmt.Errorf("%q does not name a %s", part, kind))
			}
			l.sources = append(l.sources, source{kind, name, prefix})
		case "query", "param", "form", "body":
			if name == "" {
				errs = append(errs, fmt.Errorf("%q has no name", part))
			}
			if kind == "query" || kind == "param" {
				l.sources = append(l.sources, source{kind: kind, name: name})
			} else {
				l.fields = append(l.fields, field{name, kind == "form"})
			}
		default:
			errs = append(errs, fmt.Errorf("unknown source %q; use header, query, param, cookie, form or body", part))
		}
	}
	return l, errors.Join(errs...)
}

// reads reports whether the lookup looks at a cookie, with this name if it is
// not "".
func (l *lookup) reads(cookie string) bool {
	for _, s := range l.sources {
		if s.kind == "cookie" && (cookie == "" || s.name == cookie) {
			return true
		}
	}
	return false
}

// find returns the request's token, [ErrNoToken] or [ErrAmbiguousToken]. One
// token in two places is fine; a place that is there twice never is.
func (l *lookup) find(x Exchange, r *http.Request) (found, error) {
	var f found
	for _, s := range l.sources {
		token, err := s.find(x, r)
		if err != nil {
			return found{}, err
		}
		if token == "" {
			continue
		}
		first := f.token == ""
		if !first && token != f.token {
			return found{}, ErrAmbiguousToken
		}
		f.token = token
		f.cookie = s.kind == "cookie" && (first || f.cookie)
		f.url = f.url || s.kind == "query" || s.kind == "param"
	}
	if f.token != "" {
		return f, nil
	}
	token, err := l.findInBody(r)
	if err == nil && token == "" {
		err = ErrNoToken
	}
	return found{token: token}, err
}

func (s source) find(x Exchange, r *http.Request) (string, error) {
	switch s.kind {
	case "header":
		return s.findInHeader(r.Header[s.name])
	case "query":
		if r.URL.RawQuery == "" {
			return "", nil
		}
		return only(r.URL.Query()[s.name])
	case "param":
		return x.Param(s.name), nil
	default:
		if r.Header["Cookie"] == nil {
			return "", nil
		}
		var values []string
		for _, cookie := range r.CookiesNamed(s.name) {
			values = append(values, cookie.Value)
		}
		return only(values)
	}
}

func (s source) findInHeader(values []string) (string, error) {
	token, seen := "", false
	for _, v := range values {
		if len(v) < len(s.prefix) || !strings.EqualFold(v[:len(s.prefix)], s.prefix) {
			continue
		}
		if seen {
			return "", ErrAmbiguousToken
		}
		token, seen = strings.TrimSpace(v[len(s.prefix):]), true
	}
	return token, nil
}

// only returns the one value, or "" when values is empty.
func only(values []string) (string, error) {
	switch len(values) {
	case 0:
		return "", nil
	case 1:
		return values[0], nil
	default:
		return "", ErrAmbiguousToken
	}
}

// findInBody looks for the fields in a form or JSON body, and leaves the body as
// it found it.
func (l *lookup) findInBody(r *http.Request) (string, error) {
	if len(l.fields) == 0 || r.Method == http.MethodGet || r.Method == http.MethodHead {
		return "", nil
	}
	mediaType, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || r.Header.Get("Content-Encoding") != "" {
		return "", nil
	}
	isForm := mediaType == mimeForm || mediaType == mimeMultipart
	isJSON := mediaType == mimeJSON || strings.HasSuffix(mediaType, "+json")
	switch {
	// What the body held, if it was read before.
	case mediaType == mimeForm && r.PostForm != nil:
		return l.pick(r.PostForm, true)
	case mediaType == mimeMultipart && r.MultipartForm != nil:
		return l.pick(r.MultipartForm.Value, true)
	case isForm, isJSON:
	default:
		return "", nil
	}
	body := peek(r)
	var values url.Values
	switch mediaType {
	case mimeForm:
		values, _ = url.ParseQuery(string(body))
	case mimeMultipart:
		values = multipartValues(body, params["boundary"])
	default:
		values = jsonValues(body)
	}
	return l.pick(values, isForm)
}

// pick returns the one token among the fields of a body.
func (l *lookup) pick(values url.Values, isForm bool) (string, error) {
	token := ""
	for _, f := range l.fields {
		if f.formOnly && !isForm {
			continue
		}
		v, err := only(values[f.name])
		if err != nil {
			return "", err
		}
		if v != "" && token != "" && v != token {
			return "", ErrAmbiguousToken
		}
		token = cmp.Or(token, v)
	}
	return token, nil
}

// peek returns a request's body, or nothing when it is over maxBody or cannot be
// read, and puts back whatever it read.
func peek(r *http.Request) []byte {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength > maxBody {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	rest := io.Reader(r.Body)
	if err != nil {
		rest = failedReader{err}
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body), rest), r.Body}
	if err != nil || len(body) > maxBody {
		return nil
	}
	return body
}

// failedReader hands the handler the error that peek met.
type failedReader struct{ err error }

func (f failedReader) Read([]byte) (int, error) { return 0, f.err }

// multipartValues returns the fields of a multipart body that are not files, and
// nothing of a malformed one.
func multipartValues(body []byte, boundary string) url.Values {
	values := make(url.Values)
	if boundary == "" {
		return nil
	}
	parts := multipart.NewReader(bytes.NewReader(body), boundary)
	for {
		part, err := parts.NextPart()
		if err == io.EOF {
			return values
		}
		if err != nil {
			return nil
		}
		if part.FileName() != "" || part.FormName() == "" {
			continue
		}
		value, err := io.ReadAll(part)
		if err != nil {
			return nil
		}
		values.Add(part.FormName(), string(value))
	}
}

// jsonValues returns the members of a JSON object, repeated ones too, and nothing
// of a malformed one. A member that is no string is empty.
func jsonValues(body []byte) url.Values {
	values := make(url.Values)
	dec := json.NewDecoder(bytes.NewReader(body))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil
		}
		var value json.RawMessage
		if dec.Decode(&value) != nil {
			return nil
		}
		var s string
		if value[0] == '"' && json.Unmarshal(value, &s) != nil {
			return nil
		}
		values.Add(name.(string), s)
	}
	if _, err := dec.Token(); err != nil {
		return nil
	}
	return values
}
