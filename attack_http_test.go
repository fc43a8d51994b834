package echosession_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

// A rawRequest is sent as it stands, over a connection of its own. TOKEN stands for
// the victim's token, OTHER for the token of an attacker's own session, and HOST for
// the server's address.
type rawRequest struct {
	name    string
	request string
	status  int // 0: the connection is closed without an answer
}

const (
	line  = "\r\n"
	host  = "Host: HOST" + line
	ends  = "Connection: close" + line + line
	crumb = "Cookie: __Host-session=TOKEN" + line
	auth  = "Authorization: Bearer TOKEN" + line
	form  = "Content-Type: application/x-www-form-urlencoded" + line
)

var rawRequests = []rawRequest{
	// Two credentials in one request.
	{"Authorization twice", "POST /update HTTP/1.1\r\n" + host + auth + "Authorization: Bearer OTHER\r\n" + ends, 400},
	{"Authorization twice, the same", "POST /update HTTP/1.1\r\n" + host + auth + auth + ends, 400},
	{"the header twice", "POST /update HTTP/1.1\r\n" + host + "X-Access-Token: TOKEN\r\nx-access-token: OTHER\r\n" + ends, 400},
	{"two tokens after a comma", "POST /update HTTP/1.1\r\n" + host + "Authorization: Bearer TOKEN, Bearer OTHER\r\n" + ends, 401},
	{"cookie and another header", "POST /update HTTP/1.1\r\n" + host + crumb + "Authorization: Bearer OTHER\r\n" + ends, 400},
	{"cookie and another query", "POST /update?accessToken=OTHER HTTP/1.1\r\n" + host + crumb + ends, 400},
	{"query twice", "POST /update?accessToken=TOKEN&accessToken=OTHER HTTP/1.1\r\n" + host + ends, 400},
	{"query twice, once escaped", "POST /update?accessToken=TOKEN&access%54oken=OTHER HTTP/1.1\r\n" + host + ends, 400},
	{"the cookie twice in a line", "POST /update HTTP/1.1\r\n" + host + "Cookie: __Host-session=TOKEN; __Host-session=OTHER\r\n" + ends, 400},
	{"the cookie in two lines", "POST /update HTTP/1.1\r\n" + host + crumb + "Cookie: __Host-session=OTHER\r\n" + ends, 400},
	{"a form's field twice", "POST /update HTTP/1.1\r\n" + host + form + "Content-Length: 35\r\n" + ends + "accessToken=TOKE&accessToken=TOKE&x", 400},
	{"a JSON member twice", "POST /update HTTP/1.1\r\n" + host + "Content-Type: application/json\r\nContent-Length: 37\r\n" + ends + `{"accessToken":"a","accessToken":"b"}`, 400},

	// Messages that two servers read differently.
	{"two lengths", "POST /update HTTP/1.1\r\n" + host + "Content-Length: 0\r\nContent-Length: 5\r\n" + ends + "abcde", 400},
	{"a length and chunks", "POST /update HTTP/1.1\r\n" + host + form + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n" + ends + "0\r\n\r\nPOST /update HTTP/1.1\r\n" + host + auth + ends, 401},
	{"an unknown transfer encoding", "POST /update HTTP/1.1\r\n" + host + auth + "Transfer-Encoding: xchunked\r\n" + ends, 501},
	{"transfer encoding twice", "POST /update HTTP/1.1\r\n" + host + auth + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n" + ends + "0\r\n\r\n", 501},
	{"a negative length", "POST /update HTTP/1.1\r\n" + host + auth + "Content-Length: -1\r\n" + ends, 400},
	{"a length with a sign", "POST /update HTTP/1.1\r\n" + host + auth + "Content-Length: +0\r\n" + ends, 400},
	{"a length beyond all bounds", "POST /update HTTP/1.1\r\n" + host + auth + "Content-Length: 99999999999999999999\r\n" + ends, 400},
	{"a body that is cut off", "POST /read HTTP/1.1\r\n" + host + form + "Content-Length: 999\r\n" + ends + "accessToken=TOKEN", 401},
	{"a chunk of no number", "POST /read HTTP/1.1\r\n" + host + form + "Transfer-Encoding: chunked\r\n" + ends + "zz\r\naccessToken=TOKEN\r\n0\r\n\r\n", 401},
	{"a token in a trailer", "POST /update HTTP/1.1\r\n" + host + form + "Trailer: Authorization\r\nTransfer-Encoding: chunked\r\n" + ends + "0\r\n" + auth + "\r\n", 401},
	{"a folded header", "POST /update HTTP/1.1\r\n" + host + "X-A: b\r\n Authorization: Bearer TOKEN\r\n" + ends, 401},
	{"a space before the colon", "POST /update HTTP/1.1\r\n" + host + "Authorization : Bearer TOKEN\r\n" + ends, 400},
	{"a lone CR in a header", "POST /update HTTP/1.1\r\n" + host + "X-A: b\rAuthorization: Bearer TOKEN\r\n" + ends, 400},
	{"an encoded line break", "POST /update HTTP/1.1\r\n" + host + "X-A: b%0d%0aAuthorization: Bearer TOKEN\r\n" + ends, 401},
	{"an underscore for the hyphen", "POST /update HTTP/1.1\r\n" + host + "X_Access_Token: TOKEN\r\n" + ends, 401},
	{"a NUL in the token", "POST /update HTTP/1.1\r\n" + host + "Authorization: Bearer TOKEN\x00\r\n" + ends, 400},
	{"a NUL in the cookie", "POST /update HTTP/1.1\r\n" + host + "Cookie: __Host-session=TOKEN\x00\r\n" + ends, 400},
	{"a NUL in a header's name", "POST /update HTTP/1.1\r\n" + host + "Author\x00ization: Bearer TOKEN\r\n" + ends, 400},
	{"bytes over ASCII in the token", "POST /update HTTP/1.1\r\n" + host + "Authorization: Bearer TOKEN\xff\r\n" + ends, 401},
	{"the token as user of the target", "POST http://TOKEN@HOST/update HTTP/1.1\r\n" + host + ends, 401},

	// Too much.
	{"a header of 2 MiB", "POST /update HTTP/1.1\r\n" + host + "X-A: " + strings.Repeat("a", 2<<20) + "\r\n" + auth + ends, 431},
	{"a cookie of 100 KiB", "POST /update HTTP/1.1\r\n" + host + "Cookie: __Host-session=" + strings.Repeat("a", 100<<10) + "\r\n" + ends, 401},
	{"5,000 cookies", "POST /update HTTP/1.1\r\n" + host + "Cookie: " + strings.Repeat("a=b; ", 5000) + "__Host-session=x\r\n" + ends, 401},
	{"a token of 100 KiB", "POST /update HTTP/1.1\r\n" + host + "Authorization: Bearer " + strings.Repeat("a.", 50<<10) + "\r\n" + ends, 401},
	{"1,000 queries", "POST /update?" + strings.Repeat("accessToken&", 1000) + " HTTP/1.1\r\n" + host + ends, 400},

	// Requests of other sites.
	{"from another site", "POST /update HTTP/1.1\r\n" + host + crumb + "Sec-Fetch-Site: cross-site\r\n" + ends, 403},
	{"from a sub-domain", "POST /update HTTP/1.1\r\n" + host + crumb + "Sec-Fetch-Site: same-site\r\n" + ends, 403},
	{"Sec-Fetch-Site in capitals", "POST /update HTTP/1.1\r\n" + host + crumb + "Sec-Fetch-Site: SAME-ORIGIN\r\n" + ends, 403},
	{"Sec-Fetch-Site of no browser", "POST /update HTTP/1.1\r\n" + host + crumb + "Sec-Fetch-Site: nowhere\r\n" + ends, 403},
	{"Sec-Fetch-Site twice", "POST /update HTTP/1.1\r\n" + host + crumb + "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Site: same-origin\r\n" + ends, 403},
	{"another origin", "POST /update HTTP/1.1\r\n" + host + crumb + "Origin: https://evil.example\r\n" + ends, 403},
	{"an origin that begins alike", "POST /update HTTP/1.1\r\n" + host + crumb + "Origin: http://HOST.evil.example\r\n" + ends, 403},
	{"an origin with a user", "POST /update HTTP/1.1\r\n" + host + crumb + "Origin: http://HOST@evil.example\r\n" + ends, 403},
	{"an origin of nothing", "POST /update HTTP/1.1\r\n" + host + crumb + "Origin: null\r\n" + ends, 403},
	{"an origin that is no URL", "POST /update HTTP/1.1\r\n" + host + crumb + "Origin: %%%\r\n" + ends, 403},
	{"the method in a header", "GET /update HTTP/1.1\r\n" + host + crumb + "X-HTTP-Method-Override: POST\r\nSec-Fetch-Site: cross-site\r\n" + ends, 405},
	{"logout from another site", "POST /logout HTTP/1.1\r\n" + host + crumb + "Sec-Fetch-Site: cross-site\r\n" + ends, 403},
	{"rotation from another site", "POST /rotate HTTP/1.1\r\n" + host + crumb + "Sec-Fetch-Site: cross-site\r\n" + ends, 403},
	{"a WebSocket of another site", "GET /read HTTP/1.1\r\n" + host + crumb + "Upgrade: websocket\r\nConnection: Upgrade\r\nOrigin: https://evil.example\r\n\r\n", 403},
	{"a WebSocket in capitals", "GET /read HTTP/1.1\r\n" + host + crumb + "Upgrade: WebSocket\r\nConnection: Upgrade\r\nSec-Fetch-Site: cross-site\r\n\r\n", 403},

	// Odd lines.
	{"another host", "POST /update HTTP/1.1\r\nHost: evil.example\r\n" + crumb + "Origin: http://HOST\r\n" + ends, 403},
	{"no host", "POST /update HTTP/1.1\r\n" + auth + ends, 400},
	{"two hosts", "POST /update HTTP/1.1\r\n" + host + "Host: evil.example\r\n" + auth + ends, 400},
	{"a host with a space", "POST /update HTTP/1.1\r\nHost: a b\r\n" + auth + ends, 400},
	{"HTTP/1.0 from another site", "POST /update HTTP/1.0\r\n" + crumb + "Origin: https://evil.example\r\n\r\n", 403},
	{"HTTP/0.9", "POST /update\r\n\r\n", 400},
	{"HTTP/3.0", "POST /update HTTP/3.0\r\n" + host + auth + ends, 505},
	{"CONNECT", "CONNECT HOST HTTP/1.1\r\n" + host + auth + ends, 404},
	{"TRACE", "TRACE /read HTTP/1.1\r\n" + host + auth + ends, 405},
	{"a method in lower case, cross-site", "post /update HTTP/1.1\r\n" + host + crumb + "Sec-Fetch-Site: cross-site\r\n" + ends, 405},
	{"a target of two slashes", "POST //update HTTP/1.1\r\n" + host + auth + ends, 404},
	{"a target that climbs", "POST /x/../update HTTP/1.1\r\n" + host + auth + ends, 404},
	{"a NUL in the target", "POST /update\x00 HTTP/1.1\r\n" + host + auth + ends, 400},
	{"an expectation", "POST /update HTTP/1.1\r\n" + host + crumb + "Expect: 100-continue\r\nContent-Length: 1\r\nSec-Fetch-Site: cross-site\r\n" + ends + "a", 403},
	{"an unknown expectation", "POST /update HTTP/1.1\r\n" + host + auth + "Expect: 200-ok\r\n" + ends, 417},
	{"HTTP/2 without TLS", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 404},
	{"TLS to a plain server", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400},
}

// laterRawRequests are held by rules that are newer than those above.
var laterRawRequests = []rawRequest{
	{"a login from another site", "POST /login HTTP/1.1\r\n" + host + "Sec-Fetch-Site: cross-site\r\n" + ends, 403},
	{"a login from a sub-domain over a session", "POST /login HTTP/1.1\r\n" + host + crumb + "Sec-Fetch-Site: same-site\r\n" + ends, 403},
	{"a logout from another site, whose cookie the browser kept", "POST /logout HTTP/1.1\r\n" + host + "Sec-Fetch-Site: cross-site\r\n" + ends, 403},
	{"a WebSocket among protocols", "GET /read HTTP/1.1\r\n" + host + crumb + "Upgrade: h2c, websocket\r\nConnection: Upgrade\r\nOrigin: https://evil.example\r\n\r\n", 403},
	{"a WebSocket of a version", "GET /read HTTP/1.1\r\n" + host + crumb + "Upgrade: websocket/13\r\nConnection: Upgrade\r\nOrigin: https://evil.example\r\n\r\n", 403},
	{"a WebSocket in a second line", "GET /read HTTP/1.1\r\n" + host + crumb + "Upgrade: h2c\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nOrigin: https://evil.example\r\n\r\n", 403},
	{"no origin and no host", "POST /update HTTP/1.0\r\n" + crumb + "Origin: null\r\n\r\n", 403},
}

// rawAnswer sends bytes as they are and returns the answer's head and body, or an
// error when the server said nothing.
func rawAnswer(t *testing.T, address, request string) (*http.Response, string, error) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = io.WriteString(conn, request) // the server may hang up before the end
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	reader := bufio.NewReader(conn)
	resp, err := http.ReadResponse(reader, nil)
	if err != nil {
		return nil, "", err
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	resp.Body.Close()
	return resp, string(body), nil
}

// rawServer has a route for each thing that a client does with a session.
func rawServer(t *testing.T, cfg echosession.Config) (*server, *echosession.Manager[User]) {
	cfg.Cookie = &echosession.Cookie{}
	m := newManager[User](t, cfg)
	s := newServer(t, m.Middleware())
	for path, fn := range map[string]func(context.Context, *echosession.Session[User]) error{
		"/update": sessionCalls["Update"],
		"/rotate": sessionCalls["Rotate"],
		"/logout": func(ctx context.Context, sess *echosession.Session[User]) error { return sess.Destroy(ctx) },
		"/login": func(ctx context.Context, sess *echosession.Session[User]) error {
			_, err := sess.Create(ctx, User{Name: "mallory"})
			return err
		},
	} {
		s.POST(path, func(c echo.Context) error {
			sess, err := m.Get(c)
			if err != nil {
				return err
			}
			if err := fn(c.Request().Context(), sess); err != nil {
				return err
			}
			return c.NoContent(http.StatusNoContent)
		})
	}
	read := func(c echo.Context) error { return c.NoContent(http.StatusNoContent) }
	s.GET("/read", read, m.Require())
	s.POST("/read", read, m.Require())
	return s, m
}

func attackRaw(t *testing.T, requests []rawRequest) {
	store := echosession.NewMemoryStore()
	s, m := rawServer(t, echosession.Config{Store: store, Secret: testSecret})
	address := strings.TrimPrefix(s.url, "http://")
	victim, other := newToken(t, m, "ada"), newToken(t, m, "mallory")
	fill := strings.NewReplacer("TOKEN", victim, "OTHER", other, "HOST", address)
	// The routes work, or no refusal would mean anything.
	if a := s.post(t, "/update", other); a.StatusCode != http.StatusNoContent {
		t.Fatal(a.StatusCode, a.body)
	}
	state := func() (records []string) {
		for entry, err := range store.Scan(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			records = append(records, string(entry.Record))
		}
		return sorted(records)
	}
	for _, tt := range requests {
		t.Run(tt.name, func(t *testing.T) {
			want := state()
			resp, body, err := rawAnswer(t, address, fill.Replace(tt.request))
			status := 0
			if err == nil {
				status = resp.StatusCode
				if cookies := resp.Header["Set-Cookie"]; cookies != nil {
					t.Errorf("it sets %q", cookies)
				}
				if strings.Contains(body, victim) || strings.Contains(body, other) {
					t.Errorf("it says %.200s", body)
				}
			}
			if status != tt.status {
				t.Errorf("status %d, want %d: %v %.200s", status, tt.status, err, body)
			}
			if got := state(); !slices.Equal(got, want) {
				t.Errorf("the sessions have changed: %d are left", len(got))
			}
		})
	}
}

// TestAttackRaw sends requests that no client library sends.
func TestAttackRaw(t *testing.T) {
	if len(rawRequests) < 30 {
		t.Fatal(len(rawRequests))
	}
	attackRaw(t, rawRequests)
}

// TestAttackRawCookies sends requests that would plant or remove a cookie.
func TestAttackRawCookies(t *testing.T) { attackRaw(t, laterRawRequests) }
