package jwt_test

import (
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/echosession/echosession/internal/jwt"
)

// readVectors decodes a file of published test vectors. The README in testdata says
// where they are from.
func readVectors(t *testing.T, name string, into any) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
}

// vectorKey makes a SigningKey of a JWK. An alg beside it takes the place of the
// JWK's own.
func vectorKey(t *testing.T, raw json.RawMessage, alg string) (jwt.SigningKey, error) {
	t.Helper()
	parsed, err := jwk.ParseKey(raw)
	if err != nil {
		return jwt.SigningKey{}, err
	}
	var key any
	if err := parsed.Raw(&key); err != nil {
		return jwt.SigningKey{}, err
	}
	if alg == "" {
		alg = parsed.Algorithm().String()
	}
	return jwt.SigningKey{ID: parsed.KeyID(), Algorithm: alg, Key: key}, nil
}

// vectorTokens verifies with the keys given. A public key cannot stand first, so
// one that only signs goes before them.
func vectorTokens(keys ...jwt.SigningKey) (*jwt.Keyring, error) {
	signer := jwt.SigningKey{ID: "signs only", Algorithm: "EdDSA", Key: edKey()}
	tokens, mistakes := jwt.New(jwt.Config{Keys: append([]jwt.SigningKey{signer}, keys...), WithKid: true})
	if len(mistakes) > 0 {
		return nil, errors.New(asText(mistakes))
	}
	tokens.TakeAnyType()
	return tokens, nil
}

// lowered returns a token whose ECDSA signature has the lower s. A vector whose s is high
// is listed by its test: here it must be refused, and its twin is what is tried then.
func lowered(t *testing.T, tokens *jwt.Keyring, key jwt.SigningKey, token string) string {
	t.Helper()
	if _, err := tokens.Open(token); err == nil {
		t.Errorf("accepted with a high s: %s", token)
	}
	i := strings.LastIndexByte(token, '.') + 1
	signature, err := base64.RawURLEncoding.DecodeString(token[i:])
	if err != nil {
		t.Fatal(err)
	}
	public, ok := key.Key.(*ecdsa.PublicKey)
	if private, is := key.Key.(*ecdsa.PrivateKey); is {
		public, ok = &private.PublicKey, true
	}
	if !ok {
		t.Fatalf("a key of type %T", key.Key)
	}
	n := public.Params().N
	high := signature[len(signature)/2:]
	s := new(big.Int).SetBytes(high)
	if s.Cmp(new(big.Int).Rsh(n, 1)) <= 0 {
		t.Errorf("listed, and the s is low: %s", token)
	}
	s.Sub(n, s).FillBytes(high)
	return token[:i] + base64.RawURLEncoding.EncodeToString(signature)
}

func TestTokenWycheproof(t *testing.T) {
	// Cases that are decided otherwise here than in the file.
	// Signatures with a high s are refused, valid or not: each has a twin that is not.
	highS := map[int]bool{18: true, 354: true, 356: true}
	deviations := map[int]string{
		259: "a JWS may have an empty payload, a JWT never has", 264: "likewise", 268: "likewise",
		272: "likewise", 320: "likewise", 325: "likewise",
		346: "the key is marked PS256 and the token PS384: one key, one algorithm", 350: "likewise",
		347: "the key's alg is ES521, which does not exist", 351: "likewise",
		353: "`use` of a JWK has no counterpart in a SigningKey; the alg is the test's", 354: "likewise",
		355: "`key_ops` has none either", 356: "likewise",
		367: "byte for byte case 357, which is valid: the padding it is about was lost", 370: "likewise",
		372: "marked valid, and is: the inserted byte is no base64url, which is refused here", 373: "likewise",
	}
	var file struct {
		NumberOfTests int
		TestGroups    []struct {
			Public, Private json.RawMessage
			Tests           []struct {
				TcID    int
				Comment string
				JWS     any
				Result  string
			}
		}
	}
	readVectors(t, "wycheproof/json_web_signature_test.json", &file)
	count, groups := 0, len(file.TestGroups)
	for _, g := range file.TestGroups {
		raw := g.Public
		if raw == nil {
			raw = g.Private
		}
		alg := ""
		if !strings.Contains(string(raw), `"alg"`) {
			alg = map[bool]string{true: "ES256", false: "RS256"}[strings.Contains(string(raw), `"EC"`)]
		}
		key, err := vectorKey(t, raw, alg)
		var tokens *jwt.Keyring
		if err == nil {
			tokens, err = vectorTokens(key)
		}
		for _, tt := range g.Tests {
			count++
			accepted := false
			if compact, ok := tt.JWS.(string); ok && err == nil {
				if highS[tt.TcID] {
					compact = lowered(t, tokens, key, compact)
					delete(highS, tt.TcID)
				}
				_, err := tokens.Open(compact)
				accepted = err == nil
			}
			_, deviates := deviations[tt.TcID]
			delete(deviations, tt.TcID)
			if as := accepted == (tt.Result == "valid"); as == deviates {
				t.Errorf("%d %s: accepted %v, the file says %s, listed as a deviation: %v (key: %v)", tt.TcID, tt.Comment, accepted, tt.Result, deviates, err)
			}
		}
	}
	if count != 401 || groups != 23 || count != file.NumberOfTests {
		t.Errorf("%d tests of %d in %d groups", count, file.NumberOfTests, groups)
	}
	if len(deviations) > 0 || len(highS) > 0 {
		t.Errorf("not in the file: %v, %v", deviations, highS)
	}
}

func TestSigningKeyWycheproof(t *testing.T) {
	deviations := map[int]string{
		1:  "HMAC and public keys side by side are how one moves from one to the other; each verifies its own algorithm only",
		7:  "the weakness of the ROCA keys is of the card that made them; no check for it here",
		21: "`use` of a JWK has no counterpart in a SigningKey",
	}
	var file struct {
		NumberOfTests int
		TestGroups    []struct {
			Comment         string
			Public, Private struct{ Keys []json.RawMessage }
			Tests           []struct {
				TcID    int
				Comment string
				JWS     string
				Result  string
			}
		}
	}
	readVectors(t, "wycheproof/json_web_key_test.json", &file)
	count := 0
	for _, g := range file.TestGroups {
		raws := g.Public.Keys
		if raws == nil {
			raws = g.Private.Keys
		}
		var keys []jwt.SigningKey
		var err error
		for _, raw := range raws {
			var key jwt.SigningKey
			if key, err = vectorKey(t, raw, ""); err != nil {
				break
			}
			keys = append(keys, key)
		}
		var tokens *jwt.Keyring
		if err == nil {
			tokens, err = vectorTokens(keys...)
		}
		for _, tt := range g.Tests {
			count++
			accepted := false
			if err == nil {
				if tt.TcID == 21 { // its s is high
					tt.JWS = lowered(t, tokens, keys[0], tt.JWS)
				}
				_, err := tokens.Open(tt.JWS)
				accepted = err == nil
			}
			_, deviates := deviations[tt.TcID]
			delete(deviations, tt.TcID)
			if as := accepted == (tt.Result == "valid"); as == deviates {
				t.Errorf("%d %s %s: accepted %v, the file says %s, listed as a deviation: %v (key: %v)", tt.TcID, g.Comment, tt.Comment, accepted, tt.Result, deviates, err)
			}
		}
	}
	if count != 26 || count != file.NumberOfTests {
		t.Errorf("%d tests of %d", count, file.NumberOfTests)
	}
	if len(deviations) > 0 {
		t.Errorf("not in the file: %v", deviations)
	}
}

// The examples of RFC 7520 §4, RFC 8037 Appendix A and RFC 7797 that are one token in
// compact form.
func TestTokenCookbook(t *testing.T) {
	examples := map[string]bool{
		"jws/4_1.rsa_v15_signature":               true,
		"jws/4_2.rsa-pss_signature":               true,
		"jws/4_3.ecdsa_signature":                 true,
		"jws/4_4.hmac-sha2_integrity_protection":  true,
		"curve25519/jws":                          true,
		"jws/4_5.signature_with_detached_content": false, // an empty payload
		"rfc7797/hmac-sha2_b64_false":             false, // b64
	}
	if files, err := filepath.Glob("testdata/jose-cookbook/*/*.json"); err != nil || len(files) != len(examples) {
		t.Errorf("%d examples for %d files, %v", len(examples), len(files), err)
	}
	for name, ok := range examples {
		t.Run(name, func(t *testing.T) {
			var file struct {
				Input struct {
					Payload string
					Key     json.RawMessage
					Alg     string
				}
				Output struct{ Compact string }
			}
			readVectors(t, "jose-cookbook/"+name+".json", &file)
			if file.Output.Compact == "" {
				t.Fatal("no token in the file")
			}
			key, err := vectorKey(t, file.Input.Key, file.Input.Alg)
			if err != nil {
				t.Fatal(err)
			}
			if key.ID == "" {
				key.ID = "named here"
			}
			tokens, err := vectorTokens(key)
			if err != nil {
				t.Fatal(err)
			}
			if name == "jws/4_3.ecdsa_signature" { // its s is high
				file.Output.Compact = lowered(t, tokens, key, file.Output.Compact)
			}
			payload, err := tokens.Open(file.Output.Compact)
			if ok != (err == nil) || ok && payload != file.Input.Payload {
				t.Errorf("%q, %v", payload, err)
			}
		})
	}
}

// The examples of RFC 7515 Appendix A.
func TestTokenRFC7515(t *testing.T) {
	const claims = "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}"
	tests := map[string]struct{ jwk, token, payload string }{
		"A.1 HS256": {
			`{"kty":"oct","kid":"1","alg":"HS256","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}`,
			`eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk`, claims,
		},
		"A.2 RS256": {
			`{"kty":"RSA","kid":"1","alg":"RS256","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}`,
			`eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw`, claims,
		},
		"A.3 ES256": {
			`{"kty":"EC","kid":"1","alg":"ES256","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`,
			`eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q`, claims,
		},
		"A.4 ES512": {
			`{"kty":"EC","kid":"1","alg":"ES512","crv":"P-521","x":"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk","y":"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"}`,
			`eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn`, "Payload",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			key, err := vectorKey(t, json.RawMessage(tt.jwk), "")
			if err != nil {
				t.Fatal(err)
			}
			tokens, err := vectorTokens(key)
			if err != nil {
				t.Fatal(err)
			}
			if name == "A.3 ES256" { // its s is high
				tt.token = lowered(t, tokens, key, tt.token)
			}
			if payload, err := tokens.Open(tt.token); err != nil || payload != tt.payload {
				t.Errorf("%q, %v", payload, err)
			}
		})
	}
}
