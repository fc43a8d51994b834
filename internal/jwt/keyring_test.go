package jwt_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	jwxjwt "github.com/lestrrat-go/jwx/v2/jwt"

	"github.com/echosession/echosession/internal/jwt"
)

const tokenID = "0f8fad5b-d9cb-469f-a165-70867728950e"

var (
	tokenNow    = time.Unix(1_700_000_000, 0)
	tokenSecret = []byte("0123456789abcdef0123456789abcdef")
	longSecret  = bytes.Repeat([]byte("0123456789abcdef"), 4)
)

func once[T any](make func() (T, error)) func() T {
	return sync.OnceValue(func() T {
		v, err := make()
		if err != nil {
			panic(err)
		}
		return v
	})
}

var (
	rsaKey      = once(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })
	otherRSAKey = once(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })
	p256Key     = once(func() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) })
	p384Key     = once(func() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) })
	p521Key     = once(func() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P521(), rand.Reader) })
	edKey       = once(func() (ed25519.PrivateKey, error) { _, k, err := ed25519.GenerateKey(rand.Reader); return k, err })
)

// signers is a private key for every algorithm.
func signers() map[string]any {
	return map[string]any{
		"HS256": longSecret, "HS384": longSecret, "HS512": longSecret,
		"RS256": rsaKey(), "RS384": rsaKey(), "RS512": rsaKey(),
		"PS256": rsaKey(), "PS384": rsaKey(), "PS512": rsaKey(),
		"ES256": p256Key(), "ES384": p384Key(), "ES512": p521Key(),
		"EdDSA": edKey(),
	}
}

// handle is a key whose private half cannot be seen, as in an HSM.
type handle struct {
	signer crypto.Signer
	public func() crypto.PublicKey
}

func (h *handle) Public() crypto.PublicKey {
	if h.public != nil {
		return h.public()
	}
	return h.signer.Public()
}

func (h *handle) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return h.signer.Sign(random, digest, opts)
}

func newTokens(t testing.TB, c jwt.Config) *jwt.Keyring {
	t.Helper()
	tokens, mistakes := jwt.New(c)
	if len(mistakes) > 0 {
		t.Fatal(asText(mistakes))
	}
	return tokens
}

// asText has a line for each mistake.
func asText(mistakes []jwt.Mistake) string {
	var lines []string
	for _, m := range mistakes {
		lines = append(lines, m.Field+": "+m.Reason)
	}
	return strings.Join(lines, "\n")
}

func secretTokens(t testing.TB) *jwt.Keyring {
	t.Helper()
	return newTokens(t, jwt.Config{Keys: []jwt.SigningKey{{Algorithm: "HS256", Key: tokenSecret}}})
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// hs256 makes a token without the package's help.
func hs256(header, payload string, secret []byte) string {
	return hs256Segments(b64(header), b64(payload), secret)
}

func hs256Segments(header, payload string, secret []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(header + "." + payload))
	return header + "." + payload + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func TestTokenRoundTrip(t *testing.T) {
	for alg, private := range signers() {
		forms := map[string]any{"": private}
		if signer, ok := private.(crypto.Signer); ok {
			forms["/handle"] = &handle{signer: signer}
		}
		for form, key := range forms {
			t.Run(alg+form, func(t *testing.T) {
				tokens := newTokens(t, jwt.Config{
					Keys:     []jwt.SigningKey{{ID: "k1", Algorithm: alg, Key: key}},
					WithKid:  true,
					Issuer:   "https://issuer.example",
					Audience: []string{"a", "b"},
				})
				rest, subject, exp, err := tokens.SplitClaims(jwt.Claims{
					"sub": "anna", "exp": tokenNow.Add(time.Hour), "nbf": tokenNow, "role": []any{"admin", 7.5, nil}, "<&>\u2028": "é",
				}, tokenNow)
				if err != nil {
					t.Fatal(err)
				}
				token, issued, err := tokens.Issue(jwt.Params{
					ID: tokenID, Now: tokenNow, Subject: subject, Idle: 90 * time.Minute, Exp: exp, Claims: rest,
				})
				if err != nil {
					t.Fatal(err)
				}
				verified, err := tokens.Verify(token)
				if err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(issued, verified) {
					t.Errorf("issued %+v, verified %+v", issued, verified)
				}
				want := jwt.Claims{
					"jti": tokenID, "iat": 1.7e9, "nbf": 1.7e9, "exp": 1.7e9 + 3600, "sub": "anna", "idle": 5.4e6,
					"iss": "https://issuer.example", "aud": []any{"a", "b"}, "role": []any{"admin", 7.5, nil}, "<&>\u2028": "é",
				}
				if got := verified.Claims(); !reflect.DeepEqual(got, want) {
					t.Errorf("claims %v, want %v", got, want)
				}
				if verified.ID != tokenID || verified.Subject != "anna" || verified.Idle != 90*time.Minute {
					t.Errorf("got %q, %q, %v", verified.ID, verified.Subject, verified.Idle)
				}
				if at, ok := verified.ExpiresAt(); !ok || !at.Equal(tokenNow.Add(time.Hour)) {
					t.Errorf("ExpiresAt = %v, %v", at, ok)
				}

				// An independent reader agrees.
				verifyKey := private
				if signer, ok := private.(crypto.Signer); ok {
					verifyKey = signer.Public()
				}
				parsed, err := jwxjwt.Parse([]byte(token),
					jwxjwt.WithKey(jwa.SignatureAlgorithm(alg), verifyKey),
					jwxjwt.WithClock(jwxjwt.ClockFunc(func() time.Time { return tokenNow })),
					jwxjwt.WithIssuer("https://issuer.example"), jwxjwt.WithAudience("b"), jwxjwt.WithValidate(true))
				if err != nil {
					t.Fatal(err)
				}
				if parsed.JwtID() != tokenID || parsed.Subject() != "anna" || !parsed.Expiration().Equal(exp) {
					t.Errorf("jwx reads %v", parsed)
				}

				// Any flipped bit of the signature is seen.
				i := strings.LastIndexByte(token, '.') + 1
				sig, _ := base64.RawURLEncoding.DecodeString(token[i:])
				sig[len(sig)/2] ^= 1
				if _, err := tokens.Verify(token[:i] + base64.RawURLEncoding.EncodeToString(sig)); !errors.Is(err, jwt.ErrInvalid) {
					t.Errorf("flipped bit: %v", err)
				}
			})
		}
	}
}

// An ECDSA signature (r, s) has a twin (r, n-s) that anyone can compute. Only the one
// with the lower s is issued and accepted, so a session has one token.
func TestTokenECDSATwin(t *testing.T) {
	for alg, key := range map[string]*ecdsa.PrivateKey{"ES256": p256Key(), "ES384": p384Key(), "ES512": p521Key()} {
		for form, signer := range map[string]crypto.Signer{"key": key, "handle": &handle{signer: key}} {
			t.Run(alg+"/"+form, func(t *testing.T) {
				tokens := newTokens(t, jwt.Config{Keys: []jwt.SigningKey{{Algorithm: alg, Key: signer}}})
				n := key.Params().N
				half := new(big.Int).Rsh(n, 1)
				for range 20 { // s is high in half of them, by chance
					token, _, err := tokens.Issue(jwt.Params{ID: tokenID, Now: tokenNow})
					if err != nil {
						t.Fatal(err)
					}
					checkVerify(t, tokens, token, "")
					i := strings.LastIndexByte(token, '.') + 1
					signature, err := base64.RawURLEncoding.DecodeString(token[i:])
					if err != nil {
						t.Fatal(err)
					}
					low := signature[len(signature)/2:]
					s := new(big.Int).SetBytes(low)
					if s.Cmp(half) > 0 {
						t.Error("issued with a high s")
					}
					new(big.Int).Sub(n, s).FillBytes(low)
					digest := alg[2:]
					hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[digest].New()
					hash.Write([]byte(token[:i-1]))
					r := new(big.Int).SetBytes(signature[:len(signature)/2])
					if !ecdsa.Verify(&key.PublicKey, hash.Sum(nil), r, new(big.Int).SetBytes(low)) {
						t.Fatal("the twin is no signature")
					}
					checkVerify(t, tokens, token[:i]+base64.RawURLEncoding.EncodeToString(signature), "signature")
				}
			})
		}
	}
}

func TestTokenClaimsAreACopy(t *testing.T) {
	v, err := secretTokens(t).Verify(hs256(`{"alg":"HS256","typ":"session+jwt"}`, `{"jti":"`+tokenID+`","a":{"b":1}}`, tokenSecret))
	if err != nil {
		t.Fatal(err)
	}
	v.Claims()["a"].(map[string]any)["b"] = 2.0
	if got := v.Claims()["a"].(map[string]any)["b"]; got != 1.0 {
		t.Errorf("a caller's change shows: %v", got)
	}
}

func TestTokenForm(t *testing.T) {
	good := hs256(`{"alg":"HS256","typ":"session+jwt"}`, `{"jti":"`+tokenID+`"}`, tokenSecret)
	header, rest, _ := strings.Cut(good, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	last := string(rune(signature[len(signature)-1] + 1)) // sets a trailing bit that must be zero
	fill := func(n int) string {
		// A payload of which the token comes to n bytes.
		for pad := n * 3 / 4; ; pad-- {
			token := hs256(`{"alg":"HS256","typ":"session+jwt"}`, `{"jti":"`+tokenID+`","x":"`+strings.Repeat("x", pad)+`"}`, tokenSecret)
			if len(token) <= n {
				return token
			}
		}
	}
	tests := map[string]struct {
		token  string
		reason string // "": it is accepted
	}{
		"as it should be":                 {good, ""},
		"just within 8 KiB":               {fill(8 << 10), ""},
		"over 8 KiB":                      {fill(8<<10 + 8), "malformed"},
		"empty":                           {"", "malformed"},
		"two segments":                    {header + "." + payload, "malformed"},
		"four segments":                   {good + "." + signature, "malformed"},
		"five segments":                   {good + ".a.b", "malformed"},
		"only dots":                       {"..", "malformed"},
		"empty header":                    {hs256Segments("", payload, tokenSecret), "malformed"},
		"empty payload":                   {hs256Segments(header, "", tokenSecret), "malformed"},
		"empty signature":                 {header + "." + payload + ".", "malformed"},
		"signature without its last byte": {good[:len(good)-2], "malformed"},
		"padded header":                   {hs256Segments(header+"=", payload, tokenSecret), "malformed"},
		"padded payload":                  {hs256Segments(header, payload+"=", tokenSecret), "malformed"},
		"padded signature":                {good + "=", "malformed"},
		"newline in the header":           {hs256Segments(header[:4]+"\n"+header[4:], payload, tokenSecret), "malformed"},
		"newline in the payload":          {hs256Segments(header, payload[:4]+"\n"+payload[4:], tokenSecret), "malformed"},
		"newline in the signature":        {header + "." + payload + "." + signature[:4] + "\n" + signature[4:], "malformed"},
		"carriage return in the payload":  {hs256Segments(header, payload[:4]+"\r"+payload[4:], tokenSecret), "malformed"},
		"trailing newline":                {good + "\n", "malformed"},
		"leading space":                   {" " + good, "malformed"},
		"space in the payload":            {hs256Segments(header, payload[:4]+" "+payload[4:], tokenSecret), "malformed"},
		"standard alphabet":               {hs256Segments(header, b64(`{"jti":"`+tokenID+`","a":"`)+"ab+/", tokenSecret), "malformed"},
		"trailing bits in the signature":  {good[:len(good)-1] + last, "malformed"},
		"trailing bits in the payload":    {hs256Segments(header, payload[:len(payload)-1]+string(rune(payload[len(payload)-1]+1)), tokenSecret), "malformed"},
		"JSON serialization":              {`{"payload":"` + payload + `","protected":"` + header + `","signature":"` + signature + `"}`, "malformed"},
		"a NUL byte":                      {good + "\x00", "malformed"},
	}
	if len(payload)%4 == 0 || len(signature)%4 == 0 {
		t.Fatal("the good token has no trailing bits to break")
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { checkVerify(t, secretTokens(t), tt.token, tt.reason) })
	}
}

// checkVerify checks that a token is refused for this reason, or accepted if it is "".
func checkVerify(t *testing.T, tokens *jwt.Keyring, token, reason string) {
	t.Helper()
	v, err := tokens.Verify(token)
	checkRefused(t, err, reason)
	if err != nil && v != nil {
		t.Error("a token beside the error")
	}
}

// reasons are all words of jwt.Reason for tokens.
var reasons = []string{
	"malformed", "type", "algorithm", "unknown_key", "signature", "claims", "issuer", "audience", "expired", "not_yet_valid",
}

func checkRefused(t *testing.T, err error, reason string) {
	t.Helper()
	switch got := jwt.Reason(err); {
	case reason == "" && err != nil:
		t.Errorf("refused: %v", err)
	case reason == "":
	case err == nil:
		t.Error("accepted")
	case !errors.Is(err, jwt.ErrInvalid):
		t.Errorf("%v does not match ErrInvalidToken", err)
	case got != reason:
		t.Errorf("%v: the reason is %q, want %q", err, got, reason)
	case !slices.Contains(reasons, got):
		t.Errorf("%v: the reason is %q, which is none of them", err, got)
	}
}

func TestReasonOfOtherErrors(t *testing.T) {
	for _, err := range []error{nil, jwt.ErrInvalid, jwt.ErrReserved, errors.New("claims")} {
		if got := jwt.Reason(err); got != "" {
			t.Errorf("%v: %q", err, got)
		}
	}
	_, err := secretTokens(t).Verify("x")
	if got := jwt.Reason(fmt.Errorf("a request: %w", err)); got != "malformed" {
		t.Errorf("of an error within another: %q", got)
	}
}

func TestTokenHeader(t *testing.T) {
	tests := map[string]struct {
		header string
		reason string // "": it is accepted
	}{
		"alg and typ":                      {`{"alg":"HS256","typ":"session+jwt"}`, ""},
		"alg alone":                        {`{"alg":"HS256"}`, "type"},
		"kid of the key":                   {`{"alg":"HS256","typ":"session+jwt","kid":"k1"}`, ""},
		"typ in another case":              {`{"alg":"HS256","typ":"Session+JWT"}`, ""},
		"typ as a whole media type":        {`{"alg":"HS256","typ":"application/session+jwt"}`, ""},
		"typ as one in another case":       {`{"alg":"HS256","typ":"Application/SESSION+jwt"}`, ""},
		"typ escaped":                      {`{"alg":"HS256","typ":"session\u002bjwt"}`, ""},
		"typ JWT":                          {`{"alg":"HS256","typ":"JWT"}`, "type"},
		"typ jwt":                          {`{"alg":"HS256","typ":"jwt"}`, "type"},
		"typ empty":                        {`{"alg":"HS256","typ":""}`, "malformed"},
		"typ a number":                     {`{"alg":"HS256","typ":1}`, "malformed"},
		"typ in an array":                  {`{"alg":"HS256","typ":["session+jwt"]}`, "malformed"},
		"typ with a parameter":             {`{"alg":"HS256","typ":"session+jwt;v=1"}`, "type"},
		"typ with a space":                 {`{"alg":"HS256","typ":"session+jwt "}`, "type"},
		"typ of another tree":              {`{"alg":"HS256","typ":"text/session+jwt"}`, "type"},
		"typ with two trees":               {`{"alg":"HS256","typ":"application/application/session+jwt"}`, "type"},
		"typ with a suffix":                {`{"alg":"HS256","typ":"session+jwt+jwt"}`, "type"},
		"typ without its suffix":           {`{"alg":"HS256","typ":"session"}`, "type"},
		"typ of letters that fold":         {`{"alg":"HS256","typ":"\u017fession+jwt"}`, "type"},
		"typ of letters with a lower case": {`{"alg":"HS256","typ":"sess\u0130on+jwt"}`, "type"},
		"typ twice":                        {`{"alg":"HS256","typ":"session+jwt","typ":"session+jwt"}`, "malformed"},
		"Typ":                              {`{"alg":"HS256","Typ":"session+jwt"}`, "type"},
		"white space":                      {" {\r\n\t\"alg\" : \"HS256\" , \"typ\":\"session+jwt\"} ", ""},
		"escaped value":                    {`{"alg":"\u0048S256","typ":"session+jwt"}`, ""},
		"escaped name":                     {`{"\u0061lg":"HS256","typ":"session+jwt"}`, ""},
		"member that is not known":         {`{"alg":"HS256","typ":"session+jwt","x":{"y":[1,2]}}`, ""},
		"alg in another case":              {`{"alg":"hs256","typ":"session+jwt"}`, "algorithm"},
		"Alg":                              {`{"Alg":"HS256","typ":"session+jwt"}`, "algorithm"},
		"alg none":                         {`{"alg":"none","typ":"session+jwt"}`, "algorithm"},
		"alg of the same family":           {`{"alg":"HS512","typ":"session+jwt"}`, "algorithm"},
		"alg of a public key":              {`{"alg":"RS256","typ":"session+jwt"}`, "algorithm"},
		"alg missing":                      {`{"typ":"session+jwt"}`, "algorithm"},
		"alg a number":                     {`{"alg":256,"typ":"session+jwt"}`, "algorithm"},
		"alg null":                         {`{"alg":null,"typ":"session+jwt"}`, "algorithm"},
		"alg twice":                        {`{"alg":"HS256","typ":"session+jwt","alg":"HS256"}`, "malformed"},
		"alg twice, once escaped":          {`{"alg":"HS256","typ":"session+jwt","\u0061lg":"none"}`, "malformed"},
		"kid unknown":                      {`{"alg":"HS256","typ":"session+jwt","kid":"k2"}`, "unknown_key"},
		"kid in another case":              {`{"alg":"HS256","typ":"session+jwt","kid":"K1"}`, "unknown_key"},
		"kid a path":                       {`{"alg":"HS256","typ":"session+jwt","kid":"../k1"}`, "unknown_key"},
		"kid empty":                        {`{"alg":"HS256","typ":"session+jwt","kid":""}`, "malformed"},
		"kid null":                         {`{"alg":"HS256","typ":"session+jwt","kid":null}`, "malformed"},
		"kid a number":                     {`{"alg":"HS256","typ":"session+jwt","kid":1}`, "malformed"},
		"typ of something else":            {`{"alg":"HS256","typ":"at+jwt"}`, "type"},
		"typ null":                         {`{"alg":"HS256","typ":null}`, "malformed"},
		"crit":                             {`{"alg":"HS256","typ":"session+jwt","crit":["exp"],"exp":1}`, "malformed"},
		"crit empty":                       {`{"alg":"HS256","typ":"session+jwt","crit":[]}`, "malformed"},
		"crit escaped":                     {`{"alg":"HS256","typ":"session+jwt","\u0063rit":["exp"]}`, "malformed"},
		"b64 false":                        {`{"alg":"HS256","typ":"session+jwt","b64":false}`, "malformed"},
		"b64 true":                         {`{"alg":"HS256","typ":"session+jwt","b64":true}`, "malformed"},
		"zip":                              {`{"alg":"HS256","typ":"session+jwt","zip":"DEF"}`, "malformed"},
		"enc":                              {`{"alg":"HS256","typ":"session+jwt","enc":"A128GCM"}`, "malformed"},
		"jku":                              {`{"alg":"HS256","typ":"session+jwt","jku":"https://evil.example"}`, "malformed"},
		"jwk":                              {`{"alg":"HS256","typ":"session+jwt","jwk":{"kty":"oct","k":"AAAA"}}`, "malformed"},
		"x5u":                              {`{"alg":"HS256","typ":"session+jwt","x5u":"https://evil.example"}`, "malformed"},
		"x5c":                              {`{"alg":"HS256","typ":"session+jwt","x5c":["AAAA"]}`, "malformed"},
		"x5t":                              {`{"alg":"HS256","typ":"session+jwt","x5t":"AAAA"}`, "malformed"},
		"x5t#S256":                         {`{"alg":"HS256","typ":"session+jwt","x5t#S256":"AAAA"}`, "malformed"},
		"duplicate in an inner object":     {`{"alg":"HS256","typ":"session+jwt","x":{"y":1,"y":2}}`, "malformed"},
		"an array":                         {`["alg","HS256","typ","session+jwt"]`, "malformed"},
		"a string":                         {`"HS256"`, "malformed"},
		"null":                             {`null`, "malformed"},
		"trailing data":                    {`{"alg":"HS256","typ":"session+jwt"}{}`, "malformed"},
		"trailing NUL":                     {"{\"alg\":\"HS256\",\"typ\":\"session+jwt\"}\x00", "malformed"},
		"byte order mark":                  {"\ufeff" + `{"alg":"HS256","typ":"session+jwt"}`, "malformed"},
		"invalid UTF-8":                    {"{\"alg\":\"HS256\",\"typ\":\"session+jwt\",\"x\":\"\xff\"}", "malformed"},
		"cut off":                          {`{"alg":"HS256","typ":"session+jwt"`, "malformed"},
		"over 1 KiB":                       {`{"alg":"HS256","typ":"session+jwt","x":"` + strings.Repeat("x", 800) + `"}`, "malformed"},
		"just under 1 KiB":                 {`{"alg":"HS256","typ":"session+jwt","x":"` + strings.Repeat("x", 720) + `"}`, ""},
		"the issued one with other spaces": {`{"alg":"HS256", "kid":"k1", "typ":"session+jwt"}`, ""},
	}
	tokens := newTokens(t, jwt.Config{
		Keys:    []jwt.SigningKey{{ID: "k1", Algorithm: "HS256", Key: tokenSecret}},
		WithKid: true,
	})
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			checkVerify(t, tokens, hs256(tt.header, `{"jti":"`+tokenID+`"}`, tokenSecret), tt.reason)
		})
	}
	t.Run("any kid is unknown to the Secret shorthand", func(t *testing.T) {
		checkVerify(t, secretTokens(t), hs256(`{"alg":"HS256","kid":"k1","typ":"session+jwt"}`, `{"jti":"`+tokenID+`"}`, tokenSecret), "unknown_key")
	})
}

func TestTokenPayload(t *testing.T) {
	with := func(members string) string { return `{"jti":"` + tokenID + `",` + members + `}` }
	id := func(s string) string { return `{"jti":` + s + `}` }
	tests := map[string]struct {
		payload string
		reason  string // "": it is accepted
	}{
		"jti alone":               {id(`"` + tokenID + `"`), ""},
		"jti missing":             {`{}`, "claims"},
		"jti null":                {id(`null`), "claims"},
		"jti a number":            {id(`1`), "claims"},
		"jti empty":               {id(`""`), "claims"},
		"JTI":                     {`{"JTI":"` + tokenID + `"}`, "claims"},
		"jti in upper case":       {id(`"` + strings.ToUpper(tokenID) + `"`), "claims"},
		"jti in braces":           {id(`"{` + tokenID + `}"`), "claims"},
		"jti a URN":               {id(`"urn:uuid:` + tokenID + `"`), "claims"},
		"jti without hyphens":     {id(`"` + strings.ReplaceAll(tokenID, "-", "") + `"`), "claims"},
		"jti of version 1":        {id(`"0f8fad5b-d9cb-169f-a165-70867728950e"`), "claims"},
		"jti of another variant":  {id(`"0f8fad5b-d9cb-469f-c165-70867728950e"`), "claims"},
		"jti with a wrong digit":  {id(`"0f8fad5g-d9cb-469f-a165-70867728950e"`), "claims"},
		"jti with a moved hyphen": {id(`"0f8fad5-bd9cb-469f-a165-70867728950e"`), "claims"},
		"jti too long":            {id(`"` + tokenID + `0"`), "claims"},
		"jti twice":               {`{"jti":"` + tokenID + `","jti":"` + tokenID + `"}`, "claims"},
		"jti twice, once escaped": {`{"jti":"` + tokenID + `","\u006ati":"` + tokenID + `"}`, "claims"},
		"another name in another case is another name": {with(`"JTI":"x","Exp":"x"`), ""},
		"nested duplicate":                 {with(`"a":{"b":1,"b":2}`), "claims"},
		"duplicate in an array":            {with(`"a":[{"b":1,"b":2}]`), "claims"},
		"same name in and after an object": {with(`"a":{"b":1},"b":2`), ""},
		"same name at two levels":          {with(`"a":{"jti":1,"a":2}`), ""},
		"sub":                              {with(`"sub":"anna"`), ""},
		"sub null":                         {with(`"sub":null`), "claims"},
		"sub a number":                     {with(`"sub":1`), "claims"},
		"sub a lone surrogate":             {with(`"sub":"\ud800"`), "claims"},
		"sub a surrogate pair":             {with(`"sub":"\ud83d\ude00"`), ""},
		"sub a reversed pair":              {with(`"sub":"\ude00\ud83d"`), "claims"},
		"exp":                              {with(`"exp":1700000000`), ""},
		"exp with a fraction":              {with(`"exp":1700000000.5`), ""},
		"exp in exponent form":             {with(`"exp":1.7e9`), ""},
		"exp huge":                         {with(`"exp":1e300`), "claims"},
		"exp just after int64 nanoseconds": {with(`"exp":9223372037`), "claims"},
		"exp just within them":             {with(`"exp":9223372036`), ""},
		"exp in milliseconds":              {with(`"exp":1700000000000`), "claims"},
		"exp negative":                     {with(`"exp":-1`), ""},
		"exp beyond float64":               {with(`"exp":1e400`), "claims"},
		"exp a string":                     {with(`"exp":"1700000000"`), "claims"},
		"exp null":                         {with(`"exp":null`), "claims"},
		"exp an object":                    {with(`"exp":{}`), "claims"},
		"exp true":                         {with(`"exp":true`), "claims"},
		"exp NaN":                          {with(`"exp":NaN`), "claims"},
		"exp hexadecimal":                  {with(`"exp":0x10`), "claims"},
		"exp with a leading zero":          {with(`"exp":01`), "claims"},
		"exp with a plus":                  {with(`"exp":+1`), "claims"},
		"exp without digits":               {with(`"exp":1.`), "claims"},
		"exp twice":                        {with(`"exp":1,"exp":9e9`), "claims"},
		"nbf a string":                     {with(`"nbf":"1"`), "claims"},
		"nbf null":                         {with(`"nbf":null`), "claims"},
		"nbf beyond float64":               {with(`"nbf":-1e400`), "claims"},
		"iat a string":                     {with(`"iat":"1"`), "claims"},
		"iat null":                         {with(`"iat":null`), "claims"},
		"idle":                             {with(`"idle":60000`), ""},
		"idle zero":                        {with(`"idle":0`), ""},
		"idle negative":                    {with(`"idle":-1`), "claims"},
		"idle with a fraction":             {with(`"idle":1.5`), "claims"},
		"idle in exponent form":            {with(`"idle":1e3`), "claims"},
		"idle of a century":                {with(`"idle":3153600000000`), ""},
		"idle over a century":              {with(`"idle":3153600000001`), "claims"},
		"idle beyond int64":                {with(`"idle":9223372036854775808`), "claims"},
		"idle a string":                    {with(`"idle":"1"`), "claims"},
		"idle null":                        {with(`"idle":null`), "claims"},
		"a number beyond float64":          {with(`"a":[{"b":1e400}]`), "claims"},
		"iss and aud are not asked":        {with(`"iss":1,"aud":{}`), ""},
		"trailing data":                    {id(`"`+tokenID+`"`) + `x`, "claims"},
		"two objects":                      {id(`"`+tokenID+`"`) + id(`"`+tokenID+`"`), "claims"},
		"an array":                         {`[` + id(`"`+tokenID+`"`) + `]`, "claims"},
		"not JSON":                         {`foo`, "claims"},
		"trailing comma":                   {`{"jti":"` + tokenID + `",}`, "claims"},
		"invalid UTF-8":                    {with("\"a\":\"\xc0\xaf\""), "claims"},
		"depth 64":                         {with(`"a":` + strings.Repeat("[", 63) + strings.Repeat("]", 63)), ""},
		"depth 65":                         {with(`"a":` + strings.Repeat("[", 64) + strings.Repeat("]", 64)), "claims"},
		"depth 65 of objects":              {with(`"a":` + strings.Repeat(`{"a":`, 64) + `1` + strings.Repeat("}", 64)), "claims"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			checkVerify(t, secretTokens(t), hs256(`{"alg":"HS256","typ":"session+jwt"}`, tt.payload, tokenSecret), tt.reason)
		})
	}
}

func TestTokenIssuerAndAudience(t *testing.T) {
	tests := map[string]struct {
		members string
		reason  string // "": it is accepted
	}{
		"both":                         {`"iss":"me","aud":"a"`, ""},
		"aud an array":                 {`"iss":"me","aud":["x","b"]`, ""},
		"iss missing":                  {`"aud":"a"`, "issuer"},
		"iss another":                  {`"iss":"you","aud":"a"`, "issuer"},
		"iss with a slash":             {`"iss":"me/","aud":"a"`, "issuer"},
		"iss an array":                 {`"iss":["me"],"aud":"a"`, "issuer"},
		"aud missing":                  {`"iss":"me"`, "audience"},
		"aud another":                  {`"iss":"me","aud":"x"`, "audience"},
		"aud others":                   {`"iss":"me","aud":["x","y"]`, "audience"},
		"aud empty":                    {`"iss":"me","aud":[]`, "audience"},
		"aud a number beside a match":  {`"iss":"me","aud":["a",1]`, "audience"},
		"aud null beside a match":      {`"iss":"me","aud":["a",null]`, "audience"},
		"aud an object with the value": {`"iss":"me","aud":{"a":"a"}`, "audience"},
		"aud null":                     {`"iss":"me","aud":null`, "audience"},
		"aud in another case":          {`"iss":"me","aud":"A"`, "audience"},
	}
	tokens := newTokens(t, jwt.Config{
		Keys:     []jwt.SigningKey{{Algorithm: "HS256", Key: tokenSecret}},
		Issuer:   "me",
		Audience: []string{"a", "b"},
	})
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			checkVerify(t, tokens, hs256(`{"alg":"HS256","typ":"session+jwt"}`, `{"jti":"`+tokenID+`",`+tt.members+`}`, tokenSecret), tt.reason)
		})
	}
	t.Run("the audiences are copied", func(t *testing.T) {
		audience := []string{"a"}
		tokens := newTokens(t, jwt.Config{
			Keys:     []jwt.SigningKey{{Algorithm: "HS256", Key: tokenSecret}},
			Audience: audience,
		})
		audience[0] = "x"
		checkVerify(t, tokens, hs256(`{"alg":"HS256","typ":"session+jwt"}`, `{"jti":"`+tokenID+`","aud":"x"}`, tokenSecret), "audience")
	})
	t.Run("one audience is issued as a string", func(t *testing.T) {
		tokens := newTokens(t, jwt.Config{
			Keys:     []jwt.SigningKey{{Algorithm: "HS256", Key: tokenSecret}},
			Audience: []string{"a"},
		})
		_, v, err := tokens.Issue(jwt.Params{ID: tokenID, Now: tokenNow})
		if err != nil || v.Claims()["aud"] != "a" {
			t.Errorf("%v, %v", v, err)
		}
	})
}

func TestTokenCheckTime(t *testing.T) {
	const now = "1700000000"
	tests := map[string]struct {
		members string
		skew    time.Duration
		reason  string // "": the token is good now
	}{
		"no times":                           {`"a":1`, 0, ""},
		"exp a moment ahead":                 {`"exp":1700000000.001`, 0, ""},
		"exp now":                            {`"exp":` + now, 0, "expired"},
		"exp now within the skew":            {`"exp":` + now, time.Second, ""},
		"exp past by the skew":               {`"exp":1699999999`, time.Second, "expired"},
		"exp negative":                       {`"exp":-1`, time.Minute, "expired"},
		"exp hugely negative":                {`"exp":-1e300`, time.Minute, "expired"},
		"exp just within int64 nanoseconds":  {`"exp":9223372036`, time.Minute, ""},
		"exp just below int64 nanoseconds":   {`"exp":-9223372037`, 0, "expired"},
		"exp zero":                           {`"exp":0`, 0, "expired"},
		"nbf now":                            {`"nbf":` + now, 0, ""},
		"nbf ahead":                          {`"nbf":1700000001`, 0, "not_yet_valid"},
		"nbf ahead by the skew":              {`"nbf":1700000001`, time.Second, ""},
		"nbf ahead by more than the skew":    {`"nbf":1700000001.1`, time.Second, "not_yet_valid"},
		"nbf huge":                           {`"nbf":1e300`, time.Minute, "not_yet_valid"},
		"nbf hugely negative":                {`"nbf":-1e300`, 0, ""},
		"iat now":                            {`"iat":` + now, 0, ""},
		"iat long ago":                       {`"iat":0`, 0, ""},
		"iat ahead":                          {`"iat":1700000001`, 0, "not_yet_valid"},
		"iat ahead by the skew":              {`"iat":1700000001`, time.Second, ""},
		"iat huge":                           {`"iat":1e300`, time.Minute, "not_yet_valid"},
		"iat just beyond int64 nanoseconds":  {`"iat":9223372037`, time.Minute, "not_yet_valid"},
		"exp ahead does not make up for nbf": {`"nbf":1700000100,"exp":1700000200`, 0, "not_yet_valid"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tokens := newTokens(t, jwt.Config{
				Keys: []jwt.SigningKey{{Algorithm: "HS256", Key: tokenSecret}},
				Skew: tt.skew,
			})
			v, err := tokens.Verify(hs256(`{"alg":"HS256","typ":"session+jwt"}`, `{"jti":"`+tokenID+`",`+tt.members+`}`, tokenSecret))
			if err != nil {
				t.Fatal(err)
			}
			err = tokens.CheckTime(v, tokenNow)
			checkRefused(t, err, tt.reason)
		})
	}
}

func TestTokenIdle(t *testing.T) {
	for idle, claim := range map[time.Duration]any{
		0:                              nil,
		jwt.NoIdle:                     0.0,
		time.Millisecond:               1.0,
		24 * time.Hour:                 8.64e7,
		1500*time.Millisecond + 999999: 1500.0,
	} {
		t.Run(idle.String(), func(t *testing.T) {
			tokens := secretTokens(t)
			token, _, err := tokens.Issue(jwt.Params{ID: tokenID, Now: tokenNow, Idle: idle})
			if err != nil {
				t.Fatal(err)
			}
			v, err := tokens.Verify(token)
			if err != nil {
				t.Fatal(err)
			}
			want := idle
			if idle > 0 {
				want = idle.Truncate(time.Millisecond)
			}
			if v.Idle != want || v.Claims()["idle"] != claim {
				t.Errorf("idle %v, claim %v; want %v, %v", v.Idle, v.Claims()["idle"], want, claim)
			}
		})
	}
}

func TestTokenIssueRefuses(t *testing.T) {
	tests := map[string]struct {
		change func(*jwt.Params)
		want   string
	}{
		"an ID that is no UUIDv4":        {func(p *jwt.Params) { p.ID = "x" }, "jti"},
		"a subject of invalid UTF-8":     {func(p *jwt.Params) { p.Subject = "\xff" }, "UTF-8"},
		"an idle timeout below 1 ms":     {func(p *jwt.Params) { p.Idle = time.Microsecond }, "1ms"},
		"a negative idle timeout":        {func(p *jwt.Params) { p.Idle = -2 }, "1ms"},
		"an idle timeout of 101 years":   {func(p *jwt.Params) { p.Idle = 101 * 365 * 24 * time.Hour }, "1ms"},
		"an exp after the year 9999":     {func(p *jwt.Params) { p.Exp = time.Unix(253402300800, 0) }, "milliseconds"},
		"an exp after the year 2262":     {func(p *jwt.Params) { p.Exp = time.Date(2263, 1, 1, 0, 0, 0, 0, time.UTC) }, "2262"},
		"an exp just beyond 2262":        {func(p *jwt.Params) { p.Exp = time.Unix(9223372037, 0) }, "2262"},
		"a token of more than 8 KiB":     {func(p *jwt.Params) { p.Subject = strings.Repeat("x", 7000) }, "8192"},
		"claims that JSON cannot encode": {func(p *jwt.Params) { p.Claims = jwt.Claims{"a": func() {}} }, "encoded"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := jwt.Params{ID: tokenID, Now: tokenNow}
			tt.change(&p)
			token, v, err := secretTokens(t).Issue(p)
			if err == nil || token != "" || v != nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Issue = %q, %v, %v", token, v, err)
			}
		})
	}
	t.Run("a signer that fails", func(t *testing.T) {
		signer := &failing{Signer: p256Key()}
		tokens := newTokens(t, jwt.Config{Keys: []jwt.SigningKey{{Algorithm: "ES256", Key: signer}}})
		signer.err = errors.New("the token is unplugged")
		if _, _, err := tokens.Issue(jwt.Params{ID: tokenID, Now: tokenNow}); !errors.Is(err, signer.err) {
			t.Errorf("got %v", err)
		}
	})
}

type failing struct {
	crypto.Signer
	err error
}

func (f *failing) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if f.err != nil {
		return nil, f.err
	}
	return f.Signer.Sign(random, digest, opts)
}

func TestTokenErrorsHoldNothingOfTheToken(t *testing.T) {
	const marker = "MARKER7"
	for _, token := range []string{
		marker, marker + "." + marker + "." + marker,
		hs256(`{"typ":"session+jwt","alg":"`+marker+`"}`, `{}`, tokenSecret),
		hs256(`{"alg":"HS256","typ":"session+jwt","kid":"`+marker+`"}`, `{}`, tokenSecret),
		hs256(`{"alg":"HS256","`+marker+`":"a","`+marker+`":"a"}`, `{}`, tokenSecret),
		hs256(`{"alg":"HS256","typ":"session+jwt"}`, `{"jti":"`+marker+`"}`, tokenSecret),
		hs256(`{"alg":"HS256","typ":"session+jwt"}`, `{"`+marker+`":`+marker+`}`, tokenSecret),
		hs256(`{"alg":"HS256","typ":"session+jwt"}`, `{"`+marker+`":1e999}`, tokenSecret),
	} {
		_, err := secretTokens(t).Verify(token)
		if err == nil || strings.Contains(err.Error(), marker) {
			t.Errorf("error %v", err)
		}
	}
}

func TestTokenKeyRotation(t *testing.T) {
	second := []byte("fedcba9876543210fedcba9876543210")
	key := func(id string, secret []byte) jwt.SigningKey {
		return jwt.SigningKey{ID: id, Algorithm: "HS256", Key: secret}
	}
	issue := func(t *testing.T, c jwt.Config) string {
		token, _, err := newTokens(t, c).Issue(jwt.Params{ID: tokenID, Now: tokenNow})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	keys := func(k ...jwt.SigningKey) jwt.Config {
		return jwt.Config{Keys: k, WithKid: true}
	}
	shorthand := jwt.Config{Keys: []jwt.SigningKey{key("", tokenSecret)}}
	es := jwt.SigningKey{ID: "es", Algorithm: "ES256", Key: p256Key()}

	tests := map[string]struct {
		token  string
		tokens jwt.Config
		reason string // "": it is accepted
		old    bool   // another key than the first verifies it
	}{
		"an old key verifies":                           {issue(t, keys(key("1", tokenSecret))), keys(key("2", second), key("1", tokenSecret)), "", true},
		"the first key signs":                           {issue(t, keys(key("2", second), key("1", tokenSecret))), keys(key("2", second)), "", false},
		"a key that was removed does not verify":        {issue(t, keys(key("1", tokenSecret))), keys(key("2", second)), "unknown_key", false},
		"a kid binds to its key":                        {issue(t, keys(key("1", tokenSecret))), keys(key("2", tokenSecret), key("1", second)), "signature", false},
		"from Secret to Keys":                           {issue(t, shorthand), keys(key("2", second), key("1", tokenSecret)), "", true},
		"without a kid only keys of the algorithm":      {issue(t, shorthand), keys(es), "algorithm", false},
		"without a kid past keys of another algorithm":  {issue(t, shorthand), keys(es, key("1", tokenSecret)), "", true},
		"from HMAC to a signature":                      {issue(t, keys(key("1", tokenSecret))), keys(es, key("1", tokenSecret)), "", true},
		"one key without an ID issues and takes no kid": {issue(t, keys(key("", tokenSecret))), shorthand, "", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tokens := newTokens(t, tt.tokens)
			checkVerify(t, tokens, tt.token, tt.reason)
			if v, err := tokens.Verify(tt.token); err == nil && v.OldKey != tt.old {
				t.Errorf("an old key: %v, want %v", v.OldKey, tt.old)
			}
		})
	}
	t.Run("an asymmetric key never verifies an HMAC token", func(t *testing.T) {
		tokens := newTokens(t, keys(es))
		point, _ := p256Key().PublicKey.Bytes()
		for _, secret := range [][]byte{point, point[1:], {}} {
			checkVerify(t, tokens, hs256(`{"alg":"HS256","typ":"session+jwt"}`, `{"jti":"`+tokenID+`"}`, secret), "algorithm")
			checkVerify(t, tokens, hs256(`{"alg":"ES256","typ":"session+jwt"}`, `{"jti":"`+tokenID+`"}`, secret), "signature")
			checkVerify(t, tokens, hs256(`{"alg":"HS256","kid":"es","typ":"session+jwt"}`, `{"jti":"`+tokenID+`"}`, secret), "algorithm")
		}
	})
}

func TestTokenSplitClaims(t *testing.T) {
	owner := newTokens(t, jwt.Config{
		Keys:     []jwt.SigningKey{{Algorithm: "HS256", Key: tokenSecret}},
		Issuer:   "me",
		Audience: []string{"a"},
	})
	t.Run("reserved", func(t *testing.T) {
		for _, name := range []string{"jti", "iat", "idle", "iss", "aud"} {
			_, _, _, err := owner.SplitClaims(jwt.Claims{name: nil}, tokenNow)
			if !errors.Is(err, jwt.ErrReserved) || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	t.Run("iss and aud are free when not configured", func(t *testing.T) {
		rest, _, _, err := secretTokens(t).SplitClaims(jwt.Claims{"iss": "x", "aud": "y"}, tokenNow)
		if err != nil || len(rest) != 2 {
			t.Errorf("%v, %v", rest, err)
		}
	})
	t.Run("the caller keeps its map", func(t *testing.T) {
		list := []string{"a"}
		in := jwt.Claims{"sub": "anna", "exp": tokenNow.Add(1), "list": list}
		rest, _, _, err := owner.SplitClaims(in, tokenNow)
		if err != nil || len(in) != 3 {
			t.Fatal(in, err)
		}
		list[0] = "changed"
		_, v, err := owner.Issue(jwt.Params{ID: tokenID, Now: tokenNow, Claims: rest})
		if err != nil || !reflect.DeepEqual(v.Claims()["list"], []any{"a"}) {
			t.Errorf("%v, %v", v.Claims(), err)
		}
	})
	t.Run("nil", func(t *testing.T) {
		rest, subject, exp, err := owner.SplitClaims(nil, tokenNow)
		if len(rest) != 0 || subject != "" || !exp.IsZero() || err != nil {
			t.Errorf("%v, %q, %v, %v", rest, subject, exp, err)
		}
	})

	type seconds float32
	at := tokenNow.Add(time.Hour)
	times := map[string]struct {
		value any
		want  time.Time // zero: refused
	}{
		"time.Time":             {at, at},
		"*time.Time":            {&at, at},
		"int":                   {int(at.Unix()), at},
		"int64":                 {at.Unix(), at},
		"uint32":                {uint32(at.Unix()), at},
		"float64":               {float64(at.Unix()) + 0.5, at.Add(time.Second / 2)},
		"a named float":         {seconds(1.75e9), time.Unix(int64(seconds(1.75e9)), 0)},
		"json.Number":           {json.Number("1700003600"), at},
		"int8":                  {int8(1), time.Time{}},
		"now":                   {tokenNow, time.Time{}},
		"past":                  {tokenNow.Add(-1), time.Time{}},
		"zero time":             {time.Time{}, time.Time{}},
		"nil":                   {nil, time.Time{}},
		"nil *time.Time":        {(*time.Time)(nil), time.Time{}},
		"string":                {"1700003600", time.Time{}},
		"bool":                  {true, time.Time{}},
		"NaN":                   {nan(), time.Time{}},
		"infinity":              {1 / zero(), time.Time{}},
		"milliseconds":          {at.UnixMilli(), time.Time{}},
		"the last of all":       {int64(9223372036), time.Unix(9223372036, 0)},
		"after the year 2262":   {int64(9223372037), time.Time{}},
		"a time in 2263":        {time.Date(2263, 1, 1, 0, 0, 0, 0, time.UTC), time.Time{}},
		"a time in 9000":        {time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC), time.Time{}},
		"json.Number too large": {json.Number("1e400"), time.Time{}},
		"json.Number of words":  {json.Number("soon"), time.Time{}},
		"time.Duration":         {time.Hour, time.Time{}},
		"the largest uint64":    {^uint64(0), time.Time{}},
	}
	for name, tt := range times {
		t.Run("exp/"+name, func(t *testing.T) {
			rest, _, exp, err := owner.SplitClaims(jwt.Claims{"exp": tt.value}, tokenNow)
			if tt.want.IsZero() {
				if err == nil || !strings.Contains(err.Error(), "exp") {
					t.Errorf("exp %v, error %v", exp, err)
				}
			} else if err != nil || !exp.Equal(tt.want) || len(rest) != 0 {
				t.Errorf("exp %v, rest %v, error %v", exp, rest, err)
			}
		})
	}
	for name, value := range map[string]any{
		"time.Time": tokenNow.Add(-1500 * time.Millisecond), "float64": 1699999998.5, "json.Number": json.Number("1699999998.5"),
	} {
		t.Run("nbf/"+name, func(t *testing.T) {
			rest, _, _, err := owner.SplitClaims(jwt.Claims{"nbf": value}, tokenNow)
			if err != nil {
				t.Fatal(err)
			}
			_, v, err := owner.Issue(jwt.Params{ID: tokenID, Now: tokenNow, Claims: rest})
			if err != nil || v.Claims()["nbf"] != 1699999998.5 {
				t.Errorf("%v, %v", v, err)
			}
		})
	}
	for name, c := range map[string]jwt.Claims{
		"nbf a string":               {"nbf": "1"},
		"nbf NaN":                    {"nbf": nan()},
		"sub a number":               {"sub": 7},
		"sub nil":                    {"sub": nil},
		"a channel":                  {"a": make(chan int)},
		"NaN":                        {"a": nan()},
		"a number beyond float64":    {"a": json.Number("1e400")},
		"raw JSON with a duplicate":  {"a": json.RawMessage(`{"b":1,"b":2}`)},
		"raw JSON that is none":      {"a": json.RawMessage(`{`)},
		"a name of invalid UTF-8":    {"\xff": 1},
		"nested deeper than allowed": {"a": json.RawMessage(strings.Repeat("[", 70) + strings.Repeat("]", 70))},
	} {
		t.Run("refuses "+name, func(t *testing.T) {
			if rest, _, _, err := owner.SplitClaims(c, tokenNow); err == nil || rest != nil {
				t.Errorf("%v, %v", rest, err)
			}
		})
	}
}

// What does not fit into a token is refused before it is parsed. The duplicate is what a
// parser would have found.
func TestTokenClaimsAreMeasuredFirst(t *testing.T) {
	large := strings.Repeat("x", 8<<10)
	many := jwt.Claims{}
	for i := range 1000 {
		many[fmt.Sprint("claim ", i)] = json.RawMessage(`{"b":1,"b":2}`)
	}
	for name, c := range map[string]jwt.Claims{
		"one claim":   {"a": json.RawMessage(`{"b":1,"b":2,"c":"` + large + `"}`)},
		"all claims":  many,
		"one name":    {large: json.RawMessage(`{"b":1,"b":2}`)},
		"32k members": {"a": json.RawMessage(`{"b":1,"b":2,` + members(32_000)[1:])},
	} {
		t.Run(name, func(t *testing.T) {
			rest, _, _, err := secretTokens(t).SplitClaims(c, tokenNow)
			if err == nil || rest != nil || !strings.Contains(err.Error(), "8192") {
				t.Errorf("%.100v", err)
			}
		})
	}
	t.Run("when issued", func(t *testing.T) {
		c := jwt.Claims{"a": json.RawMessage(`{"b":1,"b":2,"c":"` + large + `"}`)}
		_, _, err := secretTokens(t).Issue(jwt.Params{ID: tokenID, Now: tokenNow, Claims: c})
		if err == nil || !strings.Contains(err.Error(), "8192") {
			t.Errorf("%.100v", err)
		}
	})
	t.Run("what just fits is issued", func(t *testing.T) {
		rest, _, _, err := secretTokens(t).SplitClaims(jwt.Claims{"a": strings.Repeat("x", 5900)}, tokenNow)
		if err != nil {
			t.Fatal(err)
		}
		if token, _, err := secretTokens(t).Issue(jwt.Params{ID: tokenID, Now: tokenNow, Claims: rest}); err != nil || len(token) < 8000 {
			t.Errorf("%d bytes, %v", len(token), err)
		}
	})
}

// CallersClaims undoes what Issue adds, and nothing else: a rotated token says what
// its predecessor said.
func TestTokenCallersClaims(t *testing.T) {
	keys := []jwt.SigningKey{{Algorithm: "HS256", Key: tokenSecret}}
	claims := jwt.Claims{"role": "admin", "nbf": tokenNow.Unix(), "n": 1.5, "iss": "caller", "aud": []string{"a"}}
	for name, c := range map[string]struct {
		tokens *jwt.Keyring
		keeps  []string
	}{
		"iss and aud are the caller's": {newTokens(t, jwt.Config{Keys: keys}), []string{"aud", "iss", "n", "nbf", "role"}},
		"iss and aud are the package's": {
			newTokens(t, jwt.Config{Keys: keys, Issuer: "i", Audience: []string{"a"}}), []string{"n", "nbf", "role"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			given := jwt.Claims{"sub": "anna", "exp": tokenNow.Add(time.Hour)}
			for _, name := range c.keeps {
				given[name] = claims[name]
			}
			rest, subject, exp, err := c.tokens.SplitClaims(given, tokenNow)
			if err != nil {
				t.Fatal(err)
			}
			_, issued, err := c.tokens.Issue(jwt.Params{ID: tokenID, Now: tokenNow, Subject: subject, Idle: time.Minute, Exp: exp, Claims: rest})
			if err != nil {
				t.Fatal(err)
			}
			got := c.tokens.CallersClaims(issued)
			if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, c.keeps) || !reflect.DeepEqual(got, rest) {
				t.Errorf("claims %s, want %s", got, rest)
			}
		})
	}
}

func zero() float64 { return 0 }
func nan() float64  { return zero() / zero() }

// The issued tokens of every release verify in all later ones: files here are only
// ever added to.
func TestTokenGolden(t *testing.T) {
	full := newTokens(t, jwt.Config{
		Keys:     []jwt.SigningKey{{ID: "2023-11", Algorithm: "HS256", Key: tokenSecret}},
		WithKid:  true,
		Issuer:   "https://issuer.example",
		Audience: []string{"api", "web"},
	})
	tests := map[string]struct {
		tokens *jwt.Keyring
		params jwt.Params
	}{
		"hs256-plain.txt": {secretTokens(t), jwt.Params{ID: tokenID, Now: tokenNow}},
		"hs256-full.txt": {full, jwt.Params{
			ID: tokenID, Now: tokenNow, Subject: "anna", Idle: 30 * 24 * time.Hour, Exp: tokenNow.Add(90*24*time.Hour + 250*time.Millisecond),
			Claims: jwt.Claims{"role": "admin", "scopes": []string{"read", "write"}},
		}},
		"hs256-no-idle.txt": {secretTokens(t), jwt.Params{
			ID: tokenID, Now: tokenNow, Idle: jwt.NoIdle, Exp: tokenNow.Add(time.Hour),
		}},
	}
	files, err := filepath.Glob("testdata/tokens/*.txt")
	if err != nil || len(files) != len(tests) {
		t.Fatalf("%d files, want %d (%v)", len(files), len(tests), err)
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			want, err := os.ReadFile(filepath.Join("testdata", "tokens", name))
			if err != nil {
				t.Fatal(err)
			}
			token, issued, err := tt.tokens.Issue(tt.params)
			if err != nil || token+"\n" != string(want) {
				t.Fatalf("issued %s (%v), want %s", token, err, want)
			}
			verified, err := tt.tokens.Verify(strings.TrimSpace(string(want)))
			if err != nil || !reflect.DeepEqual(issued, verified) {
				t.Errorf("verified %+v, %v", verified, err)
			}
		})
	}
}

// FuzzTokenVerify: what is accepted has three canonical segments, the configured
// algorithm, a MAC that a second implementation computes too, and claims that are
// the decoded second segment, nothing else.
func FuzzTokenVerify(f *testing.F) {
	seeds := []string{
		hs256(`{"alg":"HS256","typ":"session+jwt"}`, `{"jti":"`+tokenID+`"}`, tokenSecret),
		hs256(`{"alg":"HS256","typ":"session+jwt"}`, `{"jti":"`+tokenID+`","exp":9e9,"a":{"b":[null,true,-0.5e-3]}}`, tokenSecret),
		hs256(`{"alg":"HS256","kid":"k1","typ":"session+jwt"}`, `{"jti":"`+tokenID+`","sub":"\u00e9"}`, tokenSecret),
		hs256(`{"alg":"none","typ":"session+jwt"}`, `{"jti":"`+tokenID+`"}`, tokenSecret),
		hs256(`{"alg":"HS256","alg":"none","typ":"session+jwt"}`, `{"jti":"`+tokenID+`","jti":"x"}`, tokenSecret),
		b64(`{"alg":"none","typ":"session+jwt"}`) + "." + b64(`{"jti":"`+tokenID+`"}`) + ".",
		`{"payload":"e30","protected":"` + b64(`{"alg":"HS256","typ":"session+jwt"}`) + `","signature":"","jti":"` + tokenID + `"}`,
	}
	golden, err := filepath.Glob("testdata/tokens/*.txt")
	if err != nil || len(golden) == 0 {
		f.Fatalf("no seeds in testdata/tokens (%v)", err)
	}
	for _, name := range golden {
		token, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		seeds = append(seeds, strings.TrimSpace(string(token)))
	}
	for _, token := range seeds {
		f.Add(token, false)
		header, rest, _ := strings.Cut(token, ".")
		payload, _, _ := strings.Cut(rest, ".")
		f.Add(header+"."+payload, true)
	}
	tokens := secretTokens(f)
	f.Fuzz(func(t *testing.T, token string, sign bool) {
		if sign { // lets the fuzzer past the MAC
			mac := hmac.New(sha256.New, tokenSecret)
			mac.Write([]byte(token))
			token += "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
		}
		v, err := tokens.Verify(token)
		if err != nil {
			if !errors.Is(err, jwt.ErrInvalid) || v != nil || !slices.Contains(reasons, jwt.Reason(err)) {
				t.Fatalf("%v, %v, %q", v, err, jwt.Reason(err))
			}
			return
		}
		segments := strings.Split(token, ".")
		if len(segments) != 3 || len(token) > 8<<10 {
			t.Fatalf("%d segments, %d bytes", len(segments), len(token))
		}
		var decoded [3][]byte
		for i, s := range segments {
			decoded[i], err = base64.RawURLEncoding.DecodeString(s)
			if err != nil || len(s) == 0 || base64.RawURLEncoding.EncodeToString(decoded[i]) != s {
				t.Fatalf("segment %d is not canonical", i)
			}
		}
		var header map[string]any
		if err := json.Unmarshal(decoded[0], &header); err != nil || header["alg"] != "HS256" {
			t.Fatalf("header %s", decoded[0])
		}
		typ, _ := header["typ"].(string)
		if typ = strings.ToLower(typ); typ != "session+jwt" && typ != "application/session+jwt" {
			t.Fatalf("header %s", decoded[0])
		}
		mac := hmac.New(sha256.New, tokenSecret)
		mac.Write([]byte(segments[0] + "." + segments[1]))
		if !hmac.Equal(mac.Sum(nil), decoded[2]) {
			t.Fatal("wrong MAC")
		}
		var claims jwt.Claims
		if err := json.Unmarshal(decoded[1], &claims); err != nil || !reflect.DeepEqual(claims, v.Claims()) {
			t.Fatalf("claims %v, payload %s", v.Claims(), decoded[1])
		}
		if claims["jti"] != v.ID {
			t.Fatalf("ID %q", v.ID)
		}
	})
}

func BenchmarkTokenVerify(b *testing.B) {
	for _, alg := range slices.Sorted(maps.Keys(signers())) {
		b.Run(alg, func(b *testing.B) {
			tokens := newTokens(b, jwt.Config{Keys: []jwt.SigningKey{{Algorithm: alg, Key: signers()[alg]}}})
			token, _, err := tokens.Issue(jwt.Params{ID: tokenID, Now: tokenNow, Subject: "anna"})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tokens.Verify(token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkTokenVerifyJunk(b *testing.B) {
	names := make([]string, 90)
	for i := range names {
		names[i] = fmt.Sprintf(`"%02x":1`, i)
	}
	for name, token := range map[string]string{
		"forged":       hs256(`{"alg":"HS256","typ":"session+jwt"}`, `{"jti":"`+tokenID+`"}`, longSecret),
		"worst header": b64("{"+strings.Join(names, ",")+"}") + "." + strings.Repeat("A", 7000) + ".AAAA",
	} {
		b.Run(name, func(b *testing.B) {
			tokens := secretTokens(b)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tokens.Verify(token); err == nil {
					b.Fatal("accepted")
				}
			}
		})
	}
}

func BenchmarkTokenIssue(b *testing.B) {
	tokens := secretTokens(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := tokens.Issue(jwt.Params{ID: tokenID, Now: tokenNow, Subject: "anna"}); err != nil {
			b.Fatal(err)
		}
	}
}
