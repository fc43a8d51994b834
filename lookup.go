package echosession

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/textproto"
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
	sources  []source // all but the body
	fields   []field  // fields of the body, asked when no source has a token
	tickets  []string // parameters of the query that carry a ticket
	inCookie bool     // a source is a cookie
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

// found is a token or a ticket, and what its place means for the answer.
type found struct {
	token  string
	ticket string // in the place of a token
	cookie bool   // it came in a cookie
	other  bool   // it came in another place
	url    bool   // it is part of the URL, so the answer must not be stored
	asked  bool   // the URL has the parameter of a ticket, whatever is in it
}

// defaultLookup is where an instance with this RequestArg looks.
func defaultLookup(arg string, cookie *Cookie) string {
	lookup := fmt.Sprintf("bearer,header:%s,query:%s,body:%s", headerName(arg), arg, arg)
	if cookie != nil {
		lookup += ",cookie"
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

// newLookup reads a [Config.TokenLookup]. The word cookie stands for this cookie.
func newLookup(s string, cookie *Cookie) (*lookup, error) {
	l := &lookup{}
	var errs []error
	for _, part := range strings.Split(s, ",") {
		switch strings.Trim(part, " ") {
		case "bearer":
			part = "header:Authorization:Bearer "
		case "cookie":
			if cookie == nil {
				errs = append(errs, errors.New(`"cookie" is the cookie of Config.Cookie, which is not set; set it or name one, as in cookie:session`))
				continue
			}
			part = "cookie:" + cookie.Name
		}
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
		case "query", "param", "form", "body", "ticket":
			if name == "" {
				errs = append(errs, fmt.Errorf("%q has no name", part))
			}
			switch kind {
			case "ticket":
				l.tickets = append(l.tickets, name)
			case "query", "param":
				l.sources = append(l.sources, source{kind: kind, name: name})
			default:
				l.fields = append(l.fields, field{name, kind == "form"})
			}
		default:
			errs = append(errs, fmt.Errorf("unknown source %q; use bearer, cookie, header:<name>, query:<name>, param:<name>, cookie:<name>, form:<name>, body:<name> or ticket:<name>", part))
		}
	}
	l.inCookie = l.reads("")
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

// find returns the request's ticket or its token, [ErrNoToken], [ErrAmbiguousToken] or, for
// a malformed ticket alone, [ErrInvalidToken], and where tokens are in any case. Where there
// is a ticket, no other place is looked at.
func (l *lookup) find(x Exchange, r *http.Request) (found, error) {
	ticket, asked, err := l.findTicket(r)
	if ticket != "" || err != nil {
		return found{ticket: ticket, other: true, url: true, asked: true}, err
	}
	f, err := l.findToken(x, r)
	f.asked = asked
	if asked && errors.Is(err, ErrNoToken) {
		err = fmt.Errorf("%w: what the URL has is no ticket", ErrInvalidToken)
	}
	return f, err
}

// findToken returns the request's token, [ErrNoToken] or [ErrAmbiguousToken]. One token in
// two places is fine; a place that is there twice never is. The body is read only when no
// other place has a token.
func (l *lookup) findToken(x Exchange, r *http.Request) (found, error) {
	var f found
	ambiguous := false
	for _, s := range l.sources {
		token, err := s.find(x, r)
		if token == "" && err == nil {
			continue
		}
		ambiguous = ambiguous || err != nil || f.token != "" && token != f.token
		f.token = token
		f.cookie = f.cookie || s.kind == "cookie"
		f.other = f.other || s.kind != "cookie"
		f.url = f.url || s.kind == "query" || s.kind == "param"
	}
	if ambiguous {
		f.token = ""
		return f, ErrAmbiguousToken
	}
	if f.token != "" {
		return f, nil
	}
	token, err := l.findInBody(r)
	f.token, f.other = token, token != "" || err != nil
	if err == nil && token == "" {
		err = ErrNoToken
	}
	return f, err
}

func (s source) find(x Exchange, r *http.Request) (string, error) {
	switch s.kind {
	case "header":
		return s.findInHeader(r.Header[s.name])
	case "query":
		return onlyInForm(r.URL.RawQuery, s.name)
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
		return l.pick(true, onlyIn(r.PostForm))
	case mediaType == mimeMultipart && r.MultipartForm != nil:
		return l.pick(true, onlyIn(r.MultipartForm.Value))
	case isForm, isJSON:
	default:
		return "", nil
	}
	body := peek(r)
	switch {
	case mediaType == mimeForm:
		text := string(body)
		return l.pick(true, func(name string) (string, error) { return onlyInForm(text, name) })
	case mediaType == mimeMultipart:
		return l.pick(true, onlyIn(l.multipartValues(body, params["boundary"])))
	case !json.Valid(body):
		return "", nil
	default:
		return l.pick(false, func(name string) (string, error) { return onlyInJSON(body, name) })
	}
}

// pick returns the one token among the fields of a body. get returns the value of
// the field with a name.
func (l *lookup) pick(isForm bool, get func(name string) (string, error)) (string, error) {
	token := ""
	for _, f := range l.fields {
		if f.formOnly && !isForm {
			continue
		}
		v, err := get(f.name)
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
