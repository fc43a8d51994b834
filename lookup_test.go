package echosession_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

// lookupServer answers every request with "<name of the session>" or with why
// no session was found, and then with the length of the body that its handler reads.
func lookupServer(t testing.TB, change func(*echosession.Config)) (*server, *echosession.Manager[User]) {
	t.Helper()
	cfg := echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret}
	if change != nil {
		change(&cfg)
	}
	m := newManager[User](t, cfg)
	s := newServer(t, m.Middleware())
	s.Any("/*", func(c echo.Context) error {
		sess, err := m.Get(c)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(c.Request().Body)
		if err != nil {
			return err
		}
		return c.String(http.StatusOK, fmt.Sprintf("%s %d", outcome(sess), len(body)))
	})
	return s, m
}

// outcome is the name in a session, or why there is no session.
func outcome(sess *echosession.Session[User]) string {
	for reason, word := range map[error]string{
		echosession.ErrNoToken:        "none",
		echosession.ErrAmbiguousToken: "ambiguous",
		echosession.ErrInvalidToken:   "invalid",
		echosession.ErrSessionGone:    "gone",
		echosession.ErrCorrupt:        "corrupt",
		echosession.ErrCrossOrigin:    "cross-origin",
	} {
		if errors.Is(sess.Reason(), reason) {
			return word
		}
	}
	return sess.Data().Name
}

func newToken(t testing.TB, m *echosession.Manager[User], name string) string {
	t.Helper()
	sess, err := m.Create(t.Context(), User{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return sess.Token()
}

// multipartBody makes a form of fields given as name, value, name, value.
func multipartBody(t testing.TB, fields ...string) (contentType, body string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for i := 0; i+1 < len(fields); i += 2 {
		if err := w.WriteField(fields[i], fields[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return w.FormDataContentType(), b.String()
}

const (
	formType = "application/x-www-form-urlencoded"
	jsonType = "application/json"
)

func TestLookup(t *testing.T) {
	s, m := lookupServer(t, nil)
	withCookie, mc := lookupServer(t, func(c *echosession.Config) { c.Cookie = &echosession.Cookie{} })
	a, b := newToken(t, m, "a"), newToken(t, m, "b")
	ca, cb := newToken(t, mc, "a"), newToken(t, mc, "b")
	twoParts, twoPartsBody := multipartBody(t, "accessToken", a, "accessToken", a)
	onePart, onePartBody := multipartBody(t, "x", "1", "accessToken", a)
	fileType, fileBody := func() (string, string) {
		var buf bytes.Buffer
		w := multipart.NewWriter(&buf)
		file, _ := w.CreateFormFile("accessToken", "token.txt")
		_, _ = io.WriteString(file, a)
		w.Close()
		return w.FormDataContentType(), buf.String()
	}()

	for name, tt := range map[string]struct {
		server  *server
		method  string // default POST
		query   string
		body    string
		headers []string
		want    string
	}{
		"nothing":                                   {want: "none"},
		"Authorization":                             {headers: []string{"Authorization", "Bearer " + a}, want: "a"},
		"bearer in lower case":                      {headers: []string{"Authorization", "bearer " + a}, want: "a"},
		"BEARER in upper case":                      {headers: []string{"Authorization", "BEARER " + a}, want: "a"},
		"spaces around the token":                   {headers: []string{"Authorization", "Bearer   " + a + " "}, want: "a"},
		"Basic is not looked at":                    {headers: []string{"Authorization", "Basic QTpC"}, want: "none"},
		"Basic beside Bearer":                       {headers: []string{"Authorization", "Basic QTpC", "Authorization", "Bearer " + a}, want: "a"},
		"Basic beside the query":                    {headers: []string{"Authorization", "Basic QTpC"}, query: "accessToken=" + a, want: "a"},
		"the token without a scheme":                {headers: []string{"Authorization", a}, want: "none"},
		"an empty Bearer":                           {headers: []string{"Authorization", "Bearer "}, want: "none"},
		"two Bearer lines":                          {headers: []string{"Authorization", "Bearer " + a, "Authorization", "Bearer " + b}, want: "ambiguous"},
		"one Bearer line twice":                     {headers: []string{"Authorization", "Bearer " + a, "Authorization", "Bearer " + a}, want: "ambiguous"},
		"two tokens in one Bearer line":             {headers: []string{"Authorization", "Bearer " + a + ", Bearer " + b}, want: "invalid"},
		"own header":                                {headers: []string{"X-Access-Token", a}, want: "a"},
		"own header in lower case":                  {headers: []string{"x-access-token", a}, want: "a"},
		"own header, empty":                         {headers: []string{"X-Access-Token", ""}, want: "none"},
		"own header twice":                          {headers: []string{"X-Access-Token", a, "X-Access-Token", a}, want: "ambiguous"},
		"query":                                     {query: "accessToken=" + a, want: "a"},
		"query, empty":                              {query: "accessToken=", want: "none"},
		"query of another case":                     {query: "accesstoken=" + a, want: "none"},
		"query twice":                               {query: "accessToken=" + a + "&accessToken=" + a, want: "ambiguous"},
		"query twice, once empty":                   {query: "accessToken=&accessToken=" + a, want: "ambiguous"},
		"malformed query":                           {query: "%zz&accessToken=" + a, want: "a"},
		"same token in three places":                {headers: []string{"Authorization", "Bearer " + a, "X-Access-Token", a}, query: "accessToken=" + a, want: "a"},
		"different tokens in two headers":           {headers: []string{"Authorization", "Bearer " + a, "X-Access-Token", b}, want: "ambiguous"},
		"different tokens in header and query":      {headers: []string{"Authorization", "Bearer " + a}, query: "accessToken=" + b, want: "ambiguous"},
		"a bad token beside a good one":             {headers: []string{"Authorization", "Bearer " + a}, query: "accessToken=bad", want: "ambiguous"},
		"form":                                      {headers: []string{"Content-Type", formType}, body: "accessToken=" + a, want: "a"},
		"form with charset":                         {headers: []string{"Content-Type", formType + "; charset=utf-8"}, body: "x=1&accessToken=" + a, want: "a"},
		"form, empty":                               {headers: []string{"Content-Type", formType}, body: "accessToken=", want: "none"},
		"form field twice":                          {headers: []string{"Content-Type", formType}, body: "accessToken=" + a + "&accessToken=" + a, want: "ambiguous"},
		"form without Content-Type":                 {body: "accessToken=" + a, want: "none"},
		"form in a GET":                             {method: "GET", headers: []string{"Content-Type", formType}, body: "accessToken=" + a, want: "none"},
		"form in a PUT":                             {method: "PUT", headers: []string{"Content-Type", formType}, body: "accessToken=" + a, want: "a"},
		"form in a DELETE":                          {method: "DELETE", headers: []string{"Content-Type", formType}, body: "accessToken=" + a, want: "a"},
		"JSON":                                      {headers: []string{"Content-Type", jsonType}, body: `{"x":[1,{"y":2}],"accessToken":"` + a + `","z":null}`, want: "a"},
		"JSON of a media type of its own":           {headers: []string{"Content-Type", "application/vnd.api+json"}, body: `{"accessToken":"` + a + `"}`, want: "a"},
		"JSON, empty":                               {headers: []string{"Content-Type", jsonType}, body: `{"accessToken":""}`, want: "none"},
		"JSON number":                               {headers: []string{"Content-Type", jsonType}, body: `{"accessToken":1}`, want: "none"},
		"JSON null":                                 {headers: []string{"Content-Type", jsonType}, body: `{"accessToken":null}`, want: "none"},
		"JSON inside":                               {headers: []string{"Content-Type", jsonType}, body: `{"x":{"accessToken":"` + a + `"}}`, want: "none"},
		"JSON array":                                {headers: []string{"Content-Type", jsonType}, body: `["accessToken","` + a + `"]`, want: "none"},
		"JSON string":                               {headers: []string{"Content-Type", jsonType}, body: `"accessToken"`, want: "none"},
		"JSON with escapes in the name":             {headers: []string{"Content-Type", jsonType}, body: `{"access\u0054oken":"` + a + `"}`, want: "a"},
		"JSON member twice":                         {headers: []string{"Content-Type", jsonType}, body: `{"accessToken":"` + a + `","accessToken":"` + a + `"}`, want: "ambiguous"},
		"JSON member twice, once null":              {headers: []string{"Content-Type", jsonType}, body: `{"accessToken":null,"accessToken":"` + a + `"}`, want: "ambiguous"},
		"JSON member twice, once with escapes":      {headers: []string{"Content-Type", jsonType}, body: `{"access\u0054oken":"` + a + `","accessToken":"` + b + `"}`, want: "ambiguous"},
		"JSON cut off":                              {headers: []string{"Content-Type", jsonType}, body: `{"accessToken":"` + a + `"`, want: "none"},
		"JSON that goes wrong later":                {headers: []string{"Content-Type", jsonType}, body: `{"accessToken":"` + a + `","x":}`, want: "none"},
		"JSON with an unreadable name":              {headers: []string{"Content-Type", jsonType}, body: `{"accessToken":"` + a + `",7:1}`, want: "none"},
		"JSON, no body":                             {headers: []string{"Content-Type", jsonType}, want: "none"},
		"JSON as text":                              {headers: []string{"Content-Type", "text/plain"}, body: `{"accessToken":"` + a + `"}`, want: "none"},
		"JSON, malformed Content-Type":              {headers: []string{"Content-Type", "application/json; ;"}, body: `{"accessToken":"` + a + `"}`, want: "none"},
		"compressed JSON":                           {headers: []string{"Content-Type", jsonType, "Content-Encoding", "gzip"}, body: `{"accessToken":"` + a + `"}`, want: "none"},
		"multipart":                                 {headers: []string{"Content-Type", onePart}, body: onePartBody, want: "a"},
		"multipart field twice":                     {headers: []string{"Content-Type", twoParts}, body: twoPartsBody, want: "ambiguous"},
		"multipart file":                            {headers: []string{"Content-Type", fileType}, body: fileBody, want: "none"},
		"multipart without boundary":                {headers: []string{"Content-Type", "multipart/form-data"}, body: onePartBody, want: "none"},
		"multipart cut off":                         {headers: []string{"Content-Type", onePart}, body: onePartBody[:len(onePartBody)-10], want: "none"},
		"multipart with another boundary":           {headers: []string{"Content-Type", "multipart/form-data; boundary=x"}, body: onePartBody, want: "none"},
		"another token in body than in the header":  {headers: []string{"Authorization", "Bearer " + a, "Content-Type", formType}, body: "accessToken=" + b, want: "a"},
		"body field in the query, for a form":       {headers: []string{"Content-Type", formType}, query: "accessToken=" + a, body: "accessToken=" + b, want: "a"},
		"cookie":                                    {server: withCookie, method: "GET", headers: []string{"Cookie", "__Host-session=" + ca}, want: "a"},
		"cookie among others":                       {server: withCookie, method: "GET", headers: []string{"Cookie", "a=1; __Host-session=" + ca + "; b=2"}, want: "a"},
		"cookie, empty":                             {server: withCookie, method: "GET", headers: []string{"Cookie", "__Host-session="}, want: "none"},
		"cookie of another name":                    {server: withCookie, method: "GET", headers: []string{"Cookie", "session=" + ca}, want: "none"},
		"cookie where none is configured":           {method: "GET", headers: []string{"Cookie", "__Host-session=" + a}, want: "none"},
		"two cookies of one name":                   {server: withCookie, method: "GET", headers: []string{"Cookie", "__Host-session=" + ca + "; __Host-session=" + cb}, want: "ambiguous"},
		"one cookie twice":                          {server: withCookie, method: "GET", headers: []string{"Cookie", "__Host-session=" + ca + "; __Host-session=" + ca}, want: "ambiguous"},
		"same token in cookie and header":           {server: withCookie, headers: []string{"Cookie", "__Host-session=" + ca, "Authorization", "Bearer " + ca, "Sec-Fetch-Site", "cross-site"}, want: "a"},
		"different tokens in cookie and header":     {server: withCookie, headers: []string{"Cookie", "__Host-session=" + ca, "Authorization", "Bearer " + cb}, want: "ambiguous"},
		"another token in the body than the cookie": {server: withCookie, headers: []string{"Cookie", "__Host-session=" + ca, "Content-Type", formType}, body: "accessToken=" + cb, want: "a"},
	} {
		t.Run(name, func(t *testing.T) {
			server := tt.server
			if server == nil {
				server = s
			}
			method := tt.method
			if method == "" {
				method = http.MethodPost
			}
			got := server.do(t, server.request(t, method, "/?"+tt.query, tt.body, tt.headers...))
			if want := fmt.Sprintf("%s %d", tt.want, len(tt.body)); got.body != want {
				t.Errorf("%d %q, want %q", got.StatusCode, got.body, want)
			}
		})
	}
}

func TestTokenLookup(t *testing.T) {
	for name, tt := range map[string]struct {
		lookup  string
		path    string
		headers []string
		form    string
		json    string
		want    string
	}{
		"only what it names is looked at":   {lookup: "header:X-Api-Key", headers: []string{"Authorization", "Bearer A"}, want: "none"},
		"a header":                          {lookup: "header:x-api-key", headers: []string{"X-Api-Key", "A"}, want: "a"},
		"a header with a prefix":            {lookup: "header:Authorization:Session ", headers: []string{"Authorization", "session A"}, want: "a"},
		"a header without its prefix":       {lookup: "header:Authorization:Session ", headers: []string{"Authorization", "Bearer A"}, want: "none"},
		"spaces after the commas":           {lookup: "header:X-Api-Key, query:t", path: "/?t=A", want: "a"},
		"a path parameter":                  {lookup: "param:token", path: "/by/A", want: "a"},
		"a cookie":                          {lookup: "cookie:sid", headers: []string{"Cookie", "sid=A"}, want: "a"},
		"body takes a form":                 {lookup: "body:t", form: "t=A", want: "a"},
		"body takes JSON":                   {lookup: "body:t", json: `{"t":"A"}`, want: "a"},
		"form takes a form":                 {lookup: "form:t", form: "t=A", want: "a"},
		"form does not take JSON":           {lookup: "form:t", json: `{"t":"A"}`, want: "none"},
		"two fields of a body":              {lookup: "body:t,body:u", json: `{"u":"A"}`, want: "a"},
		"same token in two fields":          {lookup: "body:t,body:u", json: `{"t":"A","u":"A"}`, want: "a"},
		"different tokens in two fields":    {lookup: "body:t,form:u", form: "t=A&u=B", want: "ambiguous"},
		"order does not hide another token": {lookup: "query:t,header:X-Api-Key", path: "/?t=A", headers: []string{"X-Api-Key", "B"}, want: "ambiguous"},
		"the body comes last all the same":  {lookup: "body:t,query:t", path: "/?t=A", form: "t=B", want: "a"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager[User](t, echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret, TokenLookup: tt.lookup})
			s := newServer(t, m.Middleware())
			handler := func(c echo.Context) error {
				sess, err := m.Get(c)
				if err != nil {
					return err
				}
				return c.String(http.StatusOK, outcome(sess))
			}
			s.POST("/", handler)
			s.POST("/by/:token", handler)
			tokens := strings.NewReplacer("A", newToken(t, m, "a"), "B", newToken(t, m, "b"))
			r := s.request(t, http.MethodPost, "/", tokens.Replace(tt.form+tt.json))
			if tt.path != "" {
				u, err := url.Parse(s.url + tokens.Replace(tt.path))
				if err != nil {
					t.Fatal(err)
				}
				r.URL = u
			}
			for i := 0; i+1 < len(tt.headers); i += 2 {
				value := tt.headers[i+1]
				if at := strings.LastIndexAny(value, "AB"); at >= 0 && at == len(value)-1 {
					value = value[:at] + tokens.Replace(value[at:])
				}
				r.Header.Add(tt.headers[i], value)
			}
			if tt.form != "" {
				r.Header.Set("Content-Type", formType)
			}
			if tt.json != "" {
				r.Header.Set("Content-Type", jsonType)
			}
			if got := s.do(t, r); got.body != tt.want {
				t.Errorf("%d %q, want %q", got.StatusCode, got.body, tt.want)
			}
		})
	}
}

func TestHeaderNameOfRequestArg(t *testing.T) {
	for arg, header := range map[string]string{
		"accessToken":      "X-Access-Token",
		"fancyAccessToken": "X-Fancy-Access-Token",
		"token":            "X-Token",
		"access_token":     "X-Access-Token",
		"access-token":     "X-Access-Token",
		"oauth2Token":      "X-Oauth2-Token",
		"myJWT":            "X-My-Jwt",
		"Token":            "X-Token",
	} {
		t.Run(arg, func(t *testing.T) {
			s, m := lookupServer(t, func(c *echosession.Config) { c.RequestArg = arg })
			token := newToken(t, m, "a")
			if got := s.do(t, s.request(t, http.MethodGet, "/", "", header, token)); got.body != "a 0" {
				t.Errorf("%s: %q", header, got.body)
			}
			if got := s.do(t, s.request(t, http.MethodGet, "/?"+arg+"="+token, "")); got.body != "a 0" {
				t.Errorf("query %s: %q", arg, got.body)
			}
			body := fmt.Sprintf(`{%q:%q}`, arg, token)
			if got := s.do(t, s.request(t, http.MethodPost, "/", body, "Content-Type", jsonType)); got.body != fmt.Sprint("a ", len(body)) {
				t.Errorf("JSON %s: %q", arg, got.body)
			}
			if got := s.get(t, "/", token); got.body != "a 0" {
				t.Errorf("Authorization: %q", got.body)
			}
		})
	}
}

// countedBody tells how much of it was read.
type countedBody struct {
	io.Reader
	n      int
	closed bool
	err    error // in place of the first io.EOF
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.n += n
	if err == io.EOF && b.err != nil {
		err, b.err = b.err, nil
	}
	return n, err
}

func (b *countedBody) Close() error { b.closed = true; return nil }

// serve runs a request through the middleware, an m.Get and then handler.
func serve(t testing.TB, m *echosession.Manager[User], r *http.Request, handler func(echo.Context, *echosession.Session[User])) {
	t.Helper()
	e := echo.New()
	e.Use(m.Middleware())
	called := false
	e.Any("/*", func(c echo.Context) error {
		called = true
		sess, err := m.Get(c)
		if err != nil {
			t.Error(err)
			return err
		}
		handler(c, sess)
		return nil
	})
	e.ServeHTTP(httptest.NewRecorder(), r)
	if !called {
		t.Fatal("the handler was not reached")
	}
}

func TestLookupReadsNoBodyWithoutNeed(t *testing.T) {
	_, m := lookupServer(t, nil)
	_, headersOnly := lookupServer(t, func(c *echosession.Config) { c.TokenLookup = "header:Authorization:Bearer " })
	token := newToken(t, m, "a")
	const mebibyte = 1 << 20
	for name, tt := range map[string]struct {
		manager *echosession.Manager[User]
		method  string
		path    string
		typ     string
		length  int64
		headers []string
		read    int
	}{
		"GET":                             {method: "GET", typ: jsonType, length: 100},
		"HEAD":                            {method: "HEAD", typ: jsonType, length: 100},
		"another place carried a token":   {method: "POST", typ: jsonType, length: 100, path: "/?accessToken=" + token},
		"another place carried a bad one": {method: "POST", typ: jsonType, length: 100, path: "/?accessToken=bad"},
		"another place was ambiguous":     {method: "POST", typ: jsonType, length: 100, path: "/?accessToken=a&accessToken=b"},
		"another content type":            {method: "POST", typ: "application/octet-stream", length: 100},
		"no content type":                 {method: "POST", length: 100},
		"compressed":                      {method: "POST", typ: jsonType, length: 100, headers: []string{"Content-Encoding", "gzip"}},
		"the lookup names no field":       {manager: headersOnly, method: "POST", typ: jsonType, length: 100},
		"a length over 1 MiB":             {method: "POST", typ: jsonType, length: mebibyte + 1},
		"1 MiB":                           {method: "POST", typ: jsonType, length: mebibyte, read: mebibyte},
		"unknown length, over 1 MiB":      {method: "POST", typ: jsonType, length: -1, read: mebibyte + 1},
		"JSON":                            {method: "POST", typ: jsonType, length: 100, read: 100},
		"form":                            {method: "PATCH", typ: formType, length: 100, read: 100},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.manager == nil {
				tt.manager = m
			}
			if tt.path == "" {
				tt.path = "/"
			}
			size := tt.length
			if size < 0 {
				size = 3 * mebibyte
			}
			body := &countedBody{Reader: io.LimitReader(zeros{}, size)}
			r := httptest.NewRequest(tt.method, tt.path, body)
			r.ContentLength = tt.length
			if tt.typ != "" {
				r.Header.Set("Content-Type", tt.typ)
			}
			for i := 0; i+1 < len(tt.headers); i += 2 {
				r.Header.Add(tt.headers[i], tt.headers[i+1])
			}
			serve(t, tt.manager, r, func(c echo.Context, _ *echosession.Session[User]) {
				if body.n != tt.read {
					t.Errorf("%d bytes were read, not %d", body.n, tt.read)
				}
				if n, err := io.Copy(io.Discard, c.Request().Body); n != size || err != nil {
					t.Errorf("the handler reads %d of %d bytes, %v", n, size, err)
				}
				if err := c.Request().Body.Close(); err != nil || !body.closed {
					t.Error("Close does not reach the body")
				}
			})
		})
	}
}

// zeros is an endless run of the digit 0.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '0'
	}
	return len(p), nil
}

func TestLookupStopsAtOneMebibyte(t *testing.T) {
	_, m := lookupServer(t, nil)
	token := newToken(t, m, "a")
	const mebibyte = 1 << 20
	for _, tt := range []struct {
		size int
		want string
	}{{mebibyte, "a"}, {mebibyte + 1, "none"}} {
		for _, length := range []int64{int64(tt.size), -1} {
			body := `{"accessToken":"` + token + `","pad":"`
			body += strings.Repeat("0", tt.size-len(body)-2) + `"}`
			r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
			r.ContentLength = length
			r.Header.Set("Content-Type", jsonType)
			serve(t, m, r, func(c echo.Context, sess *echosession.Session[User]) {
				if got := outcome(sess); got != tt.want {
					t.Errorf("%d bytes, Content-Length %d: %s, want %s", tt.size, length, got, tt.want)
				}
				if rest, err := io.ReadAll(c.Request().Body); string(rest) != body || err != nil {
					t.Errorf("%d bytes: the handler reads %d, %v", len(body), len(rest), err)
				}
			})
		}
	}
}

func TestBodyReachesTheHandlerUnchanged(t *testing.T) {
	s, m := lookupServer(t, nil)
	token := newToken(t, m, "a")
	var got []byte
	s.POST("/keep", func(c echo.Context) error {
		if _, err := m.Get(c); err != nil {
			return err
		}
		var err error
		got, err = io.ReadAll(c.Request().Body)
		return err
	})
	large := []byte(`{"pad":"` + strings.Repeat("x", 3<<20) + `"}`)
	for name, body := range map[string][]byte{
		"3 MiB of JSON without a token":    large,
		"JSON with a token":                []byte(`{ "accessToken" : "` + token + `" }  `),
		"malformed JSON":                   []byte(`{"accessToken":`),
		"bytes that are no JSON, NUL, 255": {0, 255, '{', 0},
		"an empty body":                    {},
	} {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, chunked %v", name, chunked), func(t *testing.T) {
				got = nil
				r, err := http.NewRequest(http.MethodPost, s.url+"/keep", bytes.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				if chunked {
					r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), -1
				}
				r.Header.Set("Content-Type", jsonType)
				if a := s.do(t, r); a.StatusCode != http.StatusOK {
					t.Fatal(a.StatusCode, a.body)
				}
				if !bytes.Equal(got, body) {
					t.Errorf("the handler reads %d bytes, and %d were sent", len(got), len(body))
				}
			})
		}
	}
}

func TestBindAndFormValueAfterLookup(t *testing.T) {
	s, m := lookupServer(t, nil)
	token := newToken(t, m, "a")
	type payload struct {
		AccessToken string `json:"accessToken" form:"accessToken"`
		City        string `json:"city" form:"city"`
	}
	answer := func(c echo.Context, city string) error {
		sess, err := m.Get(c)
		if err != nil {
			return err
		}
		return c.String(http.StatusOK, outcome(sess)+" in "+city)
	}
	bind := func(c echo.Context) error {
		if _, err := m.Get(c); err != nil {
			return err
		}
		var p payload
		if err := c.Bind(&p); err != nil {
			return err
		}
		return answer(c, p.City)
	}
	formValue := func(c echo.Context) error {
		if _, err := m.Get(c); err != nil {
			return err
		}
		return answer(c, c.FormValue("city"))
	}
	for path, handler := range map[string]echo.HandlerFunc{
		"/bind": bind,
		"/form": formValue,
		"/form-first": func(c echo.Context) error {
			city := c.FormValue("city") // reads the body before the lookup does
			return answer(c, city)
		},
		"/parsed": func(c echo.Context) error {
			// A multipart body is not read by this.
			if err := c.Request().ParseForm(); err != nil {
				return err
			}
			if _, err := m.Get(c); err != nil {
				return err
			}
			if err := c.Request().ParseMultipartForm(1 << 20); err != nil && err != http.ErrNotMultipart {
				return err
			}
			return answer(c, c.FormValue("city"))
		},
	} {
		s.POST(path, handler)
	}
	multi, multiBody := multipartBody(t, "accessToken", token, "city", "Bern")
	const want = "a in Bern"
	for _, tt := range []struct{ path, typ, body string }{
		{"/bind", jsonType, `{"accessToken":"` + token + `","city":"Bern"}`},
		{"/bind", formType, "city=Bern&accessToken=" + token},
		{"/bind", multi, multiBody},
		{"/form", formType, "city=Bern&accessToken=" + token},
		{"/form", multi, multiBody},
		{"/form-first", formType, "city=Bern&accessToken=" + token},
		{"/form-first", multi, multiBody},
		{"/parsed", formType, "city=Bern&accessToken=" + token},
		{"/parsed", multi, multiBody},
	} {
		if a := s.do(t, s.request(t, http.MethodPost, tt.path, tt.body, "Content-Type", tt.typ)); a.body != want {
			t.Errorf("%s with %s: %d %q, want %q", tt.path, tt.typ, a.StatusCode, a.body, want)
		}
	}
	double := "city=Bern&accessToken=" + token + "&accessToken=" + token
	if a := s.do(t, s.request(t, http.MethodPost, "/form-first", double, "Content-Type", formType)); a.body != "ambiguous in Bern" {
		t.Errorf("a form that was read before, with a field twice: %q", a.body)
	}
}

func TestBodyReadErrorReachesTheHandler(t *testing.T) {
	_, m := lookupServer(t, nil)
	broken := errors.New("the wire broke")
	const sent = `{"accessToken":"x"}`
	r := httptest.NewRequest(http.MethodPost, "/", &countedBody{Reader: strings.NewReader(sent), err: broken})
	r.ContentLength = -1
	r.Header.Set("Content-Type", jsonType)
	serve(t, m, r, func(c echo.Context, sess *echosession.Session[User]) {
		if !errors.Is(sess.Reason(), echosession.ErrNoToken) {
			t.Error(sess.Reason())
		}
		for range 2 {
			body, err := io.ReadAll(c.Request().Body)
			if !errors.Is(err, broken) {
				t.Errorf("%q, %v", body, err)
			}
		}
	})
}

func TestQueryTokenMakesTheAnswerPrivate(t *testing.T) {
	s, m := lookupServer(t, func(c *echosession.Config) {
		c.Cookie = &echosession.Cookie{Persistent: true}
		c.TouchInterval = echosession.TouchAlways
		c.TokenLookup = "cookie:__Host-session,query:accessToken,header:X-Access-Token,param:token"
	})
	s.GET("/by/:token", func(c echo.Context) error {
		_, err := m.Get(c)
		return err
	})
	s.GET("/touch", func(c echo.Context) error {
		sess, err := m.Get(c)
		if err != nil {
			return err
		}
		return sess.Touch(c.Request().Context())
	})
	s.GET("/rotate", func(c echo.Context) error {
		sess, err := m.Get(c)
		if err != nil {
			return err
		}
		_, err = sess.Rotate(c.Request().Context())
		return err
	})
	for name, tt := range map[string]struct {
		path    string // TOKEN stands for the token
		headers []string
		private bool
		cookie  bool
		vary    string
	}{
		"query":                        {path: "/?accessToken=TOKEN", private: true},
		"path parameter":               {path: "/by/TOKEN", private: true},
		"query and header":             {path: "/?accessToken=TOKEN", headers: []string{"X-Access-Token", "TOKEN"}, private: true},
		"query and cookie":             {path: "/?accessToken=TOKEN", headers: []string{"Cookie", "__Host-session=TOKEN"}, private: true},
		"query and an explicit touch":  {path: "/touch?accessToken=TOKEN", private: true},
		"query and a rotation":         {path: "/rotate?accessToken=TOKEN", private: true},
		"bad token in the query":       {path: "/?accessToken=bad", private: true},
		"header":                       {path: "/", headers: []string{"X-Access-Token", "TOKEN"}},
		"header and a rotation":        {path: "/rotate", headers: []string{"X-Access-Token", "TOKEN"}},
		"cookie and a rotation":        {path: "/rotate", headers: []string{"Cookie", "__Host-session=TOKEN"}, private: true, cookie: true, vary: "Cookie"},
		"cookie":                       {path: "/", headers: []string{"Cookie", "__Host-session=TOKEN"}, private: true, vary: "Cookie"},
		"cookie and an explicit touch": {path: "/touch", headers: []string{"Cookie", "__Host-session=TOKEN"}, private: true, cookie: true, vary: "Cookie"},
		"nothing":                      {path: "/", vary: "Cookie"},
	} {
		t.Run(name, func(t *testing.T) {
			token := newToken(t, m, "a")
			r := s.request(t, http.MethodGet, strings.ReplaceAll(tt.path, "TOKEN", token), "")
			for i := 0; i+1 < len(tt.headers); i += 2 {
				r.Header.Add(tt.headers[i], strings.ReplaceAll(tt.headers[i+1], "TOKEN", token))
			}
			a := s.do(t, r)
			if a.StatusCode != http.StatusOK {
				t.Fatal(a.StatusCode, a.body)
			}
			want := ""
			if tt.private {
				want = "private, no-store"
			}
			if got := a.Header.Get("Cache-Control"); got != want {
				t.Errorf("Cache-Control: %q, want %q", got, want)
			}
			if got := a.Header.Get("Vary"); got != tt.vary {
				t.Errorf("Vary: %q, want %q", got, tt.vary)
			}
			inURL := strings.Contains(tt.path, "TOKEN") || strings.Contains(tt.path, "accessToken")
			if got := a.Header.Get("Referrer-Policy"); (got == "no-referrer") != inURL {
				t.Errorf("Referrer-Policy: %q", got)
			}
			if got := len(a.Cookies()); (got > 0) != tt.cookie {
				t.Errorf("Set-Cookie: %q", a.Header["Set-Cookie"])
			}
		})
	}
}

// FuzzLookup sends whatever parses as a request through the lookup: it does not
// panic, and the handler reads the body that it would have read without.
func FuzzLookup(f *testing.F) {
	m := newManager[User](f, echosession.Config{
		Store: echosession.NewMemoryStore(), Secret: testSecret, Cookie: &echosession.Cookie{},
	})
	token := newToken(f, m, "a")
	multi, multiBody := multipartBody(f, "accessToken", token, "x", "y")
	request := func(head, body string) string {
		return fmt.Sprintf("%s\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", head, len(body), body)
	}
	for _, seed := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token + "\r\n\r\n",
		request("POST / HTTP/1.1\r\nContent-Type: application/json", `{"accessToken":"`+token+`"}`),
		request("POST / HTTP/1.1\r\nContent-Type: "+multi, multiBody),
	} {
		if _, err := http.ReadRequest(bufio.NewReader(strings.NewReader(seed))); err != nil {
			f.Fatalf("%q: %v", seed, err)
		}
		f.Add([]byte(seed))
	}
	if seeds, err := os.ReadDir("testdata/fuzz/FuzzLookup"); err != nil || len(seeds) == 0 {
		f.Fatal("the other seeds are missing", err)
	}
	e := echo.New()
	e.Use(m.Middleware())
	f.Fuzz(func(t *testing.T, raw []byte) {
		plain, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil || len(raw) > 64<<10 {
			return
		}
		want, wantErr := io.ReadAll(plain.Body)
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil {
			t.Fatal(err)
		}
		c := e.NewContext(r, httptest.NewRecorder())
		handler := m.Middleware()(func(c echo.Context) error {
			sess, err := m.Get(c)
			if err != nil {
				t.Fatal(err)
			}
			if sess.Exists() == (sess.Reason() != nil) {
				t.Errorf("Exists is %v and Reason %v", sess.Exists(), sess.Reason())
			}
			got, gotErr := io.ReadAll(c.Request().Body)
			if !bytes.Equal(got, want) || fmt.Sprint(gotErr) != fmt.Sprint(wantErr) {
				t.Errorf("the handler reads %q, %v and %q, %v was sent", got, gotErr, want, wantErr)
			}
			return nil
		})
		if err := handler(c); err != nil {
			t.Fatal(err)
		}
	})
}
