package echosession_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/echosession/echosession"
)

// The attack suite: go test -run Attack . SECURITY.md says what it covers.

// countedStore counts the reads of a store.
type countedStore struct {
	echosession.Store
	loads atomic.Int64
}

func (s *countedStore) Load(ctx context.Context, ref echosession.Ref, ttl time.Duration) ([]byte, error) {
	s.loads.Add(1)
	return s.Store.Load(ctx, ref, ttl)
}

// alteredTokens are further tokens to those of hostileTokens. Each begins as a copy
// of a good token and breaks one rule; the signature of most of them is right.
func alteredTokens(t *testing.T, good string) map[string]string {
	t.Helper()
	parts := strings.Split(good, ".")
	head, claims := string(unb64(t, parts[0])), string(unb64(t, parts[1]))
	sign := func(head, claims string) string { return hs256(head, claims, testSecret) }
	change := func(old, changed string) string {
		if !strings.Contains(head, old) {
			t.Fatalf("the header %s has no %s", head, old)
		}
		return sign(strings.Replace(head, old, changed, 1), claims)
	}
	header := func(member string) string { return sign(head[:len(head)-1]+","+member+"}", claims) }
	claim := func(member string) string { return sign(head, claims[:len(claims)-1]+","+member+"}") }
	typ := regexp.MustCompile(`"typ":"[^"]*"`).FindString(head)
	encode := base64.RawURLEncoding.EncodeToString
	last := strings.IndexByte(base64url, good[len(good)-1])
	id := newID()
	return map[string]string{
		"alg in lower case":               change(`"HS256"`, `"hs256"`),
		"alg with a space":                change(`"HS256"`, `"HS256 "`),
		"alg with a NUL":                  change(`"HS256"`, `"HS256\u0000"`),
		"alg in a list":                   change(`"HS256"`, `["HS256"]`),
		"alg null":                        change(`"HS256"`, `null`),
		"alg of a public key":             change(`"HS256"`, `"RS256"`),
		"Alg":                             change(`"alg"`, `"Alg"`),
		"alg twice, once escaped":         header(`"\u0061lg":"none"`),
		"typ of an access token":          change(typ, `"typ":"at+jwt"`),
		"typ null":                        change(typ, `"typ":null`),
		"typ jwt":                         change(typ, `"typ":"jwt"`),
		"typ JWT and a kid":               change(typ, `"typ":"JWT","kid":"old"`),
		"a legacy secret":                 hs256(head, claims, legacySecret),
		"a legacy secret and its kid":     hs256(head[:len(head)-1]+`,"kid":"old"}`, claims, legacySecret),
		"a legacy secret, typ JWT, a kid": hs256(`{"alg":"HS256","typ":"JWT","kid":"old"}`, claims, legacySecret),
		"a legacy secret, another alg":    hs256(`{"alg":"HS512","typ":"JWT"}`, claims, legacySecret),
		"kid empty":                       header(`"kid":""`),
		"kid a number":                    header(`"kid":1`),
		"kid of SQL":                      header(`"kid":"' OR 1=1 --"`),
		"crit empty":                      header(`"crit":[]`),
		"b64 false":                       header(`"b64":false`),
		"zip":                             header(`"zip":"DEF"`),
		"enc":                             header(`"enc":"A256GCM"`),
		"x5u":                             header(`"x5u":"http://127.0.0.1/cert"`),
		"x5c":                             header(`"x5c":["AAAA"]`),
		"x5t":                             header(`"x5t":"AAAA"`),
		"a header with a tail":            sign(head+"{}", claims),
		"a header after a BOM":            sign("\ufeff"+head, claims),
		"a header in a list":              sign("["+head+"]", claims),
		"a header with a NUL":             sign(head+"\x00", claims),
		"a header over 1 KiB":             header(`"x":"` + strings.Repeat("x", 1<<10) + `"`),
		"a second jti":                    claim(`"jti":"` + id + `"`),
		"a second jti, escaped":           claim(`"\u006ati":"` + id + `"`),
		"jti null":                        sign(head, `{"jti":null}`),
		"jti in a list":                   sign(head, `{"jti":["`+id+`"]}`),
		"jti with a NUL":                  sign(head, `{"jti":"`+id[:35]+`\u0000"}`),
		"jti as a URN":                    sign(head, `{"jti":"urn:uuid:`+id+`"}`),
		"jti in braces":                   sign(head, `{"jti":"{`+id+`}"}`),
		"jti without hyphens":             sign(head, `{"jti":"`+strings.ReplaceAll(id, "-", "")+`"}`),
		"jti of zeros":                    sign(head, `{"jti":"00000000-0000-0000-0000-000000000000"}`),
		"jti that ends a line of Redis":   sign(head, `{"jti":"`+id[:30]+`\r\nFLU"}`),
		"JTI":                             sign(head, `{"JTI":"`+id+`"}`),
		"exp null":                        claim(`"exp":null`),
		"exp negative":                    claim(`"exp":-1`),
		"exp in a list":                   claim(`"exp":[9999999999]`),
		"exp twice":                       claim(`"exp":1,"exp":9999999999`),
		"nbf null":                        claim(`"nbf":null`),
		"iat twice":                       claim(`"iat":1`),
		"sub a number":                    claim(`"sub":1`),
		"sub of half a character":         claim(`"sub":"\ud800"`),
		"sub over bytes that are no text": claim("\"sub\":\"\xc0\xaf\""),
		"idle as text":                    claim(`"idle":"1"`),
		"idle over a century":             claim(`"idle":3153600000001`),
		"a member twice, deep inside":     claim(`"a":[{"b":1,"b":2}]`),
		"a trailing comma":                sign(head, claims[:len(claims)-1]+",}"),
		"claims that are text":            sign(head, `"`+id+`"`),
		"claims that are null":            sign(head, "null"),
		"the secret and a NUL":            hs256(head, claims, append(bytes.Clone(testSecret), 0)),
		"half of the secret":              hs256(head, claims, testSecret[:32]),
		"the secret in base64":            hs256(head, claims, []byte(base64.StdEncoding.EncodeToString(testSecret))),
		"a signature of zeros":            parts[0] + "." + parts[1] + "." + encode(make([]byte, 32)),
		"a signature and one byte":        parts[0] + "." + parts[1] + "." + encode(append(unb64(t, parts[2]), 0)),
		"half a signature":                parts[0] + "." + parts[1] + "." + encode(unb64(t, parts[2])[:16]),
		"unused bits set":                 good[:len(good)-1] + base64url[last+1:last+2],
		"segments in another order":       parts[1] + "." + parts[0] + "." + parts[2],
		"five segments":                   good + "." + parts[1] + "." + parts[2],
		"the scheme twice":                "Bearer " + good,
		"two tokens and a comma":          good + "," + good,
		"a space inside":                  parts[0] + ". " + parts[1] + "." + parts[2],
		"dots in percent form":            strings.ReplaceAll(good, ".", "%2E"),
		"dots of another alphabet":        strings.ReplaceAll(good, ".", "．"),
		"in upper case":                   strings.ToUpper(good),
		"nothing but NULs":                "\x00.\x00.\x00",
	}
}

// tokenPlaces put a token into a request, each in another place.
func tokenPlaces(t *testing.T) map[string]func(token string) *http.Request {
	t.Helper()
	request := func(target, body string, headers ...string) *http.Request {
		r := httptest.NewRequest(http.MethodPost, target, strings.NewReader(body))
		for i := 0; i+1 < len(headers); i += 2 {
			r.Header[headers[i]] = []string{headers[i+1]} // as it is, with any bytes
		}
		return r
	}
	return map[string]func(string) *http.Request{
		"Authorization": func(token string) *http.Request { return request("/", "", "Authorization", "Bearer "+token) },
		"header":        func(token string) *http.Request { return request("/", "", "X-Access-Token", token) },
		"query":         func(token string) *http.Request { return request("/?accessToken="+url.QueryEscape(token), "") },
		"path":          func(token string) *http.Request { return request("/t/"+url.PathEscape(token), "") },
		"cookie":        func(token string) *http.Request { return request("/", "", "Cookie", "__Host-session="+token) },
		"form": func(token string) *http.Request {
			return request("/", url.Values{"accessToken": {token}}.Encode(), "Content-Type", formType)
		},
		"multipart": func(token string) *http.Request {
			contentType, body := multipartBody(t, "accessToken", token)
			return request("/", body, "Content-Type", contentType)
		},
		"JSON": func(token string) *http.Request {
			body, err := json.Marshal(map[string]string{"accessToken": token})
			if err != nil {
				t.Fatal(err)
			}
			return request("/", string(body), "Content-Type", jsonType)
		},
	}
}

// legacySecret is that of a legacy key.
var legacySecret = []byte("keyboard cat")

// TestAttackTokens sends every hostile token in every place. None of them opens a
// session or costs a command, and all get the same answer. A legacy key opens the door
// to none of them.
func TestAttackTokens(t *testing.T) {
	t.Run("Secret", func(t *testing.T) { attackTokens(t, echosession.Config{Secret: testSecret}) })
	t.Run("a legacy key", func(t *testing.T) {
		attackTokens(t, echosession.Config{Keys: []echosession.SigningKey{
			{Algorithm: "HS256", Key: testSecret},
			{ID: "old", Algorithm: "HS256", Key: legacySecret, VerifyOnly: true, Legacy: true},
		}})
	})
}

func attackTokens(t *testing.T, cfg echosession.Config) {
	fake := newFakeRedis(t)
	m := newManager[User](t, echosession.Config{
		Client: fake, Secret: cfg.Secret, Keys: cfg.Keys, Cookie: &echosession.Cookie{},
		TokenLookup: "header:Authorization:Bearer ,header:X-Access-Token,query:accessToken,param:token,cookie:__Host-session,body:accessToken",
	})
	e := echo.New()
	e.Use(m.Middleware())
	letIn := 0
	handler := func(c echo.Context) error { letIn++; return c.NoContent(http.StatusNoContent) }
	e.POST("/", handler, m.Require())
	e.POST("/t/:token", handler, m.Require())
	send := func(r *http.Request) string {
		rec := httptest.NewRecorder()
		e.ServeHTTP(rec, r)
		return fmt.Sprint(rec.Code, rec.Header().Values("WWW-Authenticate"), rec.Header()["Set-Cookie"], rec.Body)
	}
	good := newToken(t, m, "Ada")
	tokens := hostileTokens(t, good)
	for name, token := range alteredTokens(t, good) {
		if tokens[name] != "" {
			t.Fatalf("%s: there are two", name)
		}
		tokens[name] = token
	}
	places := tokenPlaces(t)
	invalid, none := send(places["header"]("bad")), send(httptest.NewRequest(http.MethodPost, "/", nil))
	if !strings.HasPrefix(invalid, "401") || !strings.HasPrefix(none, "401") || invalid == none {
		t.Fatal(invalid, none)
	}
	parts := strings.Split(good, ".")
	resigned := hs256(string(unb64(t, parts[0])), string(unb64(t, parts[1])), testSecret)
	for place, with := range places {
		// The suite's own pen is not what they fail by.
		if got := send(with(resigned)); !strings.HasPrefix(got, "204") {
			t.Fatalf("%s: a good token gets %s", place, got)
		}
	}
	letIn = 0
	before := fake.count("")
	for name, token := range tokens {
		for place, with := range places {
			r, want := with(token), invalid
			if place == "cookie" && len(r.CookiesNamed("__Host-session")) == 0 {
				want = none // such bytes are no cookie
			}
			if got := send(r); got != want {
				t.Errorf("%s in %s: %s, want %s", name, place, got, want)
			}
		}
	}
	if n := fake.count("") - before; n != 0 || letIn != 0 {
		t.Errorf("%d commands, %d requests let in", n, letIn)
	}
	if t.Logf("%d tokens in %d places", len(tokens), len(places)); len(tokens) < 60 || len(places) < 8 {
		t.Error("too few")
	}
}

// attackKeys are two keys for each algorithm.
var attackKeys = sync.OnceValue(func() map[string][2]any {
	pair := func(make func() (any, error)) (keys [2]any) {
		for i := range keys {
			key, err := make()
			if err != nil {
				panic(err)
			}
			keys[i] = key
		}
		return keys
	}
	secret := pair(func() (any, error) { return []byte(rand.Text() + rand.Text() + rand.Text()), nil })
	rsas := pair(func() (any, error) { return rsa.GenerateKey(rand.Reader, 2048) })
	ec := func(curve elliptic.Curve) [2]any {
		return pair(func() (any, error) { return ecdsa.GenerateKey(curve, rand.Reader) })
	}
	return map[string][2]any{
		"HS256": secret, "HS384": secret, "HS512": secret,
		"RS256": rsas, "RS384": rsas, "RS512": rsas,
		"PS256": rsas, "PS384": rsas, "PS512": rsas,
		"ES256": ec(elliptic.P256()), "ES384": ec(elliptic.P384()), "ES512": ec(elliptic.P521()),
		"EdDSA": pair(func() (any, error) { _, key, err := ed25519.GenerateKey(rand.Reader); return key, err }),
	}
})

// A mutator changes good tokens, and says how.
type mutator struct {
	*mathrand.Rand
	tokens []string
	alg    string
	forged []string // with the public key as an HMAC secret, and such
	slow   bool     // verifying takes long, so fewer tokens come as far as that
}

const base64url = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

func (m *mutator) one() string { return m.tokens[m.IntN(len(m.tokens))] }

// flip changes one bit of a decoded segment.
func (m *mutator) flip(token string, segment int) string {
	parts := strings.Split(token, ".")
	b, err := base64.RawURLEncoding.DecodeString(parts[segment])
	if err != nil {
		panic(err)
	}
	b[m.IntN(len(b))] ^= 1 << m.IntN(8)
	parts[segment] = base64.RawURLEncoding.EncodeToString(b)
	return strings.Join(parts, ".")
}

// header replaces text in the header.
func (m *mutator) header(token, old, changed string) string {
	head, rest, _ := strings.Cut(token, ".")
	b, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil {
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString([]byte(strings.ReplaceAll(string(b), old, changed))) + "." + rest
}

// next returns a token that nobody has signed, and how it was made.
func (m *mutator) next() (how, token string) {
	for {
		a, b := m.one(), m.one()
		i := m.IntN(len(a))
		j := i + 1 + m.IntN(len(a)-i)
		as, bs := strings.Split(a, "."), strings.Split(b, ".")
		kind := m.IntN(13)
		if m.slow && kind >= 1 && kind <= 4 && m.IntN(4) > 0 {
			continue
		}
		switch kind {
		case 0:
			how, token = "a bit of the header", m.flip(a, 0)
		case 1:
			how, token = "a bit of the claims", m.flip(a, 1)
		case 2:
			how, token = "a bit of the signature", m.flip(a, 2)
		case 3:
			if m.IntN(2) == 0 {
				i = len(a) - 1 // which has unused bits
			}
			how, token = "another letter", a[:i]+base64url[m.IntN(64):][:1]+a[i+1:]
		case 4:
			how, token = "another byte", a[:i]+string([]byte{byte(m.IntN(256))})+a[i+1:]
		case 5:
			how, token = "cut off", a[:i]
		case 6:
			how, token = "a piece taken out", a[:i]+a[j:]
		case 7:
			how, token = "a piece twice", a[:j]+a[i:]
		case 8:
			how, token = "two tokens spliced", a[:i]+b[min(i, len(b)):]
		case 9:
			how, token = "segments of two tokens", strings.Join([]string{as[0], bs[1], as[2]}, ".")
			if m.IntN(2) == 0 {
				token = strings.Join([]string{as[0], as[1], bs[2]}, ".")
			}
		case 10:
			algs := []string{"none", "None", "", "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "ES256K"}
			how, token = "another alg", m.header(a, `"`+m.alg+`"`, `"`+algs[m.IntN(len(algs))]+`"`)
		case 11:
			how, token = "another kid", m.header(a, `"kid":"`, `"kid":"`+[]string{"b", "../", "x", " "}[m.IntN(4)])
			if m.IntN(2) == 0 {
				token = m.header(m.header(m.header(a, `"kid":"a"`, `"kid":"?"`), `"kid":"b"`, `"kid":"a"`), `"kid":"?"`, `"kid":"b"`)
			}
		default:
			how, token = "forged", m.forged[m.IntN(len(m.forged))]
		}
		if !slices.Contains(m.tokens, token) {
			return how, token
		}
	}
}

// forgeries are tokens for whoever knows the public key.
func forgeries(t *testing.T, good string, key any) []string {
	t.Helper()
	parts := strings.Split(good, ".")
	head, claims := string(unb64(t, parts[0])), string(unb64(t, parts[1]))
	signature := unb64(t, parts[2])
	with := func(signature []byte) string {
		return parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(signature)
	}
	forged := []string{
		parts[0] + "." + parts[1] + ".", with(make([]byte, len(signature))), with(append(signature, 0)),
		with(append([]byte{0}, signature...)), with(signature[:len(signature)-1]), with(bytes.Repeat([]byte{0xff}, len(signature))),
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return forged
	}
	der, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range [][]byte{der, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil} {
		hmac := regexp.MustCompile(`"alg":"[^"]*"`).ReplaceAllString(head, `"alg":"HS256"`)
		forged = append(forged, hs256(hmac, claims, secret), hs256(head, claims, secret))
	}
	if _, ok := key.(*ecdsa.PrivateKey); ok { // in ASN.1, as X.509 has it
		n := len(signature) / 2
		b, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(signature[:n]), new(big.Int).SetBytes(signature[n:])})
		if err != nil {
			t.Fatal(err)
		}
		forged = append(forged, with(b))
	}
	if _, ok := key.(ed25519.PrivateKey); ok { // S + L names the same number (RFC 8032 §8.4)
		l, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
		s := slices.Clone(signature[32:])
		slices.Reverse(s)
		sum := new(big.Int).Add(new(big.Int).SetBytes(s), l).FillBytes(make([]byte, 32))
		slices.Reverse(sum)
		forged = append(forged, with(append(bytes.Clone(signature[:32]), sum...)))
	}
	return forged
}

// TestAttackMutations changes good tokens in 10,000 ways for each algorithm. None
// verifies.
func TestAttackMutations(t *testing.T) {
	n := 10_000
	if testing.Short() {
		n = 1_000
	}
	keys := attackKeys()
	if len(keys) != 13 {
		t.Fatalf("%d algorithms", len(keys))
	}
	for alg, pair := range keys {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			store := &countedStore{Store: echosession.NewMemoryStore()}
			a := echosession.SigningKey{ID: "a", Algorithm: alg, Key: pair[0]}
			b := echosession.SigningKey{ID: "b", Algorithm: alg, Key: pair[1]}
			m := newManager[User](t, echosession.Config{Store: store, Keys: []echosession.SigningKey{a, b}})
			other := newManager[User](t, echosession.Config{Store: store, Keys: []echosession.SigningKey{b, a}})
			tokens := []string{newToken(t, m, "Ada"), newToken(t, m, "Bob"), newToken(t, other, "Eve")}
			for _, token := range tokens {
				if sess, err := m.Open(t.Context(), token); err != nil || !sess.Exists() {
					t.Fatal(sess.Reason(), err)
				}
			}
			seed := mathrand.Uint64()
			mutate := &mutator{mathrand.New(mathrand.NewPCG(seed, 0)), tokens, alg, forgeries(t, tokens[0], pair[0]), alg == "ES384" || alg == "ES512"}
			before := store.loads.Load()
			hows := make(map[string]int)
			for range n {
				how, token := mutate.next()
				hows[how]++
				if sess, err := m.Open(t.Context(), token); err != nil {
					t.Fatal(err)
				} else if !errors.Is(sess.Reason(), echosession.ErrInvalidToken) {
					t.Fatalf("%s (seed %d): %q: %v", how, seed, token, sess.Reason())
				}
			}
			if reads := store.loads.Load() - before; reads != 0 || len(hows) != 13 {
				t.Errorf("%d reads of the store; %v", reads, hows)
			}
		})
	}
}

// TestAttackSignatureTwin: of the two ECDSA signatures that everyone can make of
// one, only the signature with the lower s is accepted.
func TestAttackSignatureTwin(t *testing.T) {
	for alg, pair := range attackKeys() {
		key, ok := pair[0].(*ecdsa.PrivateKey)
		if !ok {
			continue
		}
		t.Run(alg, func(t *testing.T) {
			m := newManager[User](t, echosession.Config{
				Store: echosession.NewMemoryStore(), Keys: []echosession.SigningKey{{Algorithm: alg, Key: key}},
			})
			token := newToken(t, m, "Ada")
			dot := strings.LastIndexByte(token, '.') + 1
			signature := unb64(t, token[dot:])
			s := signature[len(signature)/2:]
			new(big.Int).Sub(key.Params().N, new(big.Int).SetBytes(s)).FillBytes(s)
			twin := token[:dot] + base64.RawURLEncoding.EncodeToString(signature)
			if sess, err := m.Open(t.Context(), twin); err != nil || !errors.Is(sess.Reason(), echosession.ErrInvalidToken) {
				t.Errorf("the twin: %v, %v", sess.Reason(), err)
			}
		})
	}
}

// The words that only another session holds.
const foreignData = "the-data-of-somebody-else"

// garden is data with what makes decoding hard: recursion, interfaces and maps.
type garden struct {
	Name  string
	Beds  []garden
	Tools map[string]any
	Note  any
}

// A gardener makes garbage out of records.
type gardener struct {
	*mathrand.Rand
	own    []byte
	others [][]byte
}

// next returns garbage, and whether somebody else's data is part of it.
func (g *gardener) next() (how string, record []byte, foreign bool) {
	own, other := bytes.Clone(g.own), bytes.Clone(g.others[g.IntN(len(g.others))])
	i := 1 + g.IntN(len(own)-1)
	noise := make([]byte, 1+g.IntN(4096))
	for j := range noise {
		noise[j] = byte(g.Uint32())
	}
	switch g.IntN(8) {
	case 0:
		return "noise", noise, false
	case 1:
		return "noise behind a good head", append(own[:min(len(own), 30+g.IntN(20))], noise...), false
	case 2:
		for range 1 + g.IntN(8) {
			own[g.IntN(len(own))] ^= 1 << g.IntN(8)
		}
		return "flipped bits", own, false
	case 3:
		return "cut off", own[:i], false
	case 4:
		return "bytes behind", append(own, noise[:min(len(noise), 16)]...), false
	case 5:
		return "spliced with another's", append(own[:i], other[min(i, len(other)):]...), true
	case 6:
		copy(other[4:20], own[4:20])
		return "another's under this ID", other, true
	default:
		return "another's", other, true
	}
}

// TestAttackRecords puts garbage under the key of a live session, in place of its
// record. It never panics or takes much memory. It never shows another session's
// data where records are encrypted, and nowhere under another session's ID.
func TestAttackRecords(t *testing.T) {
	for name, keys := range map[string][][]byte{"plain": nil, "encrypted": {bytes.Repeat([]byte{1}, 32)}} {
		t.Run(name, func(t *testing.T) {
			log := new(logBuffer)
			store := echosession.NewMemoryStore()
			cfg := echosession.Config{Store: store, Secret: testSecret, EncryptionKeys: keys, Logger: log.logger()}
			m := newManager[garden](t, cfg)
			cfg.Keyspace, cfg.Store = "admin:", echosession.NewMemoryStore()
			admins := newManager[garden](t, cfg)
			create := func(m *echosession.Manager[garden], store echosession.Store, name string) (*echosession.Session[garden], []byte) {
				data := garden{Name: name, Beds: []garden{{Name: name}}, Tools: map[string]any{name: 1}, Note: []any{name, 1.5, nil}}
				sess, err := m.Create(t.Context(), data)
				if err != nil {
					t.Fatal(err)
				}
				record, err := store.Load(t.Context(), echosession.Ref{ID: sess.ID()}, 0)
				if err != nil {
					t.Fatal(err)
				}
				return sess, record
			}
			sess, own := create(m, store, "mine")
			id := sess.ID() // garbage may end the session of the handle
			_, other := create(m, store, foreignData)
			_, third := create(m, store, foreignData+foreignData)
			_, admin := create(admins, cfg.Store, foreignData)
			seed := mathrand.Uint64()
			garbage := &gardener{mathrand.New(mathrand.NewPCG(seed, 0)), own, [][]byte{other, third, admin}}
			attackRecords(t, m, store, sess, garbage, keys != nil, seed)
			said := log.String()
			if said == "" {
				t.Error("the log says nothing")
			}
			for line := range strings.Lines(said) {
				if strings.Contains(line, foreignData) || strings.Contains(line, id) {
					t.Errorf("the log says %s", line)
				}
			}
		})
	}
}

// unencodable reports whether JSON cannot hold the data: a changed bit may have made a
// number NaN.
func unencodable(sess *echosession.Session[garden]) bool {
	_, err := json.Marshal(sess)
	return err != nil
}

func attackRecords(t *testing.T, m *echosession.Manager[garden], store echosession.Store, sess *echosession.Session[garden], garbage *gardener, encrypted bool, seed uint64) {
	s := newServer(t, m.Middleware())
	s.GET("/", func(c echo.Context) error {
		sess, err := m.Get(c)
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, sess)
	}, m.Require())
	token, id := sess.Token(), sess.ID()
	invalid, mine := s.get(t, "/", "bad").body, s.get(t, "/", token).body
	statuses := make(map[int]int)
	hows := make(map[string]int)
	for range 1000 {
		how, record, foreign := garbage.next()
		hows[how]++
		overwrite(t, store, id, record)
		bad := func(format string, args ...any) {
			t.Fatalf("%s (seed %d): % x: %s", how, seed, record, fmt.Sprintf(format, args...))
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		opened, err := m.Open(t.Context(), token)
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
			bad("%d bytes allocated", took)
		}
		var reason error
		if err == nil {
			reason = opened.Reason()
		}
		if err == nil && reason != nil && !errors.Is(reason, echosession.ErrCorrupt) ||
			err != nil && !errors.Is(err, echosession.ErrStoreUnavailable) {
			bad("%v, %v", reason, err)
		}
		a := s.get(t, "/", token)
		statuses[a.StatusCode]++
		switch {
		case a.StatusCode == http.StatusOK && err == nil && opened.ID() == id:
			if encrypted && a.body != mine {
				bad("it opens as %s", a.body)
			}
		case a.StatusCode == http.StatusUnauthorized && errors.Is(reason, echosession.ErrCorrupt) && a.body == invalid:
		case a.StatusCode == http.StatusServiceUnavailable && err != nil:
		case a.StatusCode == http.StatusInternalServerError && !encrypted && err == nil && unencodable(opened):
		default:
			bad("%d %s; %v, %v", a.StatusCode, a.body, reason, err)
		}
		if strings.Contains(a.body, foreignData) && (encrypted || !foreign || how == "another's") {
			bad("it opens as %s", a.body)
		}
		if err := sess.Reload(t.Context()); err == nil && encrypted && sess.Data().Name != "mine" {
			bad("Reload: %+v", sess.Data())
		}
		_ = sess.Update(t.Context(), func(g *garden) error { return errors.New("not written") })
	}
	if t.Logf("%v, %v", statuses, hows); len(hows) != 8 || statuses[401] < 300 || statuses[503] < 50 {
		t.Error("too few kinds")
	}
}

// TestAttackInstance: a sealed record of one instance is none of another, whatever
// keys they share.
func TestAttackInstance(t *testing.T) {
	store := echosession.NewMemoryStore()
	cfg := echosession.Config{Store: store, Secret: testSecret, EncryptionKeys: [][]byte{bytes.Repeat([]byte{1}, 32)}}
	sess, err := newManager[User](t, cfg).Create(t.Context(), User{Name: "Ada"})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Keyspace = "admin:"
	admin, err := newManager[User](t, cfg).Open(t.Context(), sess.Token())
	if err != nil || admin.Exists() || !errors.Is(admin.Reason(), echosession.ErrCorrupt) {
		t.Errorf("%v, %v", admin.Reason(), err)
	}
}
