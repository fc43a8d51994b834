package jwt_test

import (
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"

	"github.com/echosession/echosession/internal/jwt"
)

// legacySecret is shorter than any secret that signs.
var legacySecret = []byte("keyboard cat")

func legacyKey(alg string, secret []byte) jwt.SigningKey {
	return jwt.SigningKey{Algorithm: alg, Key: secret, VerifyOnly: true, Legacy: true}
}

// legacyTokens returns the keyring of somebody who replaces the Node predecessor.
func legacyTokens(t testing.TB, legacy ...jwt.SigningKey) *jwt.Keyring {
	t.Helper()
	return newTokens(t, jwt.Config{
		Keys: append([]jwt.SigningKey{{ID: "new", Algorithm: "HS256", Key: tokenSecret}}, legacy...), WithKid: true,
	})
}

// A nodeToken was made by the npm package jwt-redis-session 1.0.5 itself:
// proof/node/vectors.js makes more of them.
type nodeToken struct{ Name, Secret, Algorithm, ID, Token string }

func nodeTokens(t *testing.T) (tokens []nodeToken) {
	t.Helper()
	b, err := os.ReadFile("testdata/legacy/tokens.json")
	if err == nil {
		err = json.Unmarshal(b, &tokens)
	}
	if err != nil || len(tokens) < 12 {
		t.Fatal(len(tokens), err)
	}
	return tokens
}

// Every token that the predecessor can make verifies under its key, and under no other
// key with the same secret.
func TestLegacyVectors(t *testing.T) {
	subjects := map[string]string{"a subject": "anna", "a subject that is a number": "42"}
	for _, node := range nodeTokens(t) {
		t.Run(node.Name, func(t *testing.T) {
			tokens := legacyTokens(t, legacyKey(node.Algorithm, []byte(node.Secret)))
			token, err := tokens.Verify(node.Token)
			if err != nil {
				t.Fatal(err)
			}
			if token.ID != node.ID || token.Subject != subjects[node.Name] || token.Idle != 0 || token.IssuedAt().IsZero() {
				t.Errorf("ID %q, subject %q, idle %v, issued at %v", token.ID, token.Subject, token.Idle, token.IssuedAt())
			}
			at, ends := token.ExpiresAt()
			if ends != (node.Name == "an end") || ends && at.Unix() != 4102444800 {
				t.Errorf("it ends at %v (%v)", at, ends)
			}
			checkVerify(t, legacyTokens(t, legacyKey(node.Algorithm, []byte(node.Secret+"x"))), node.Token, "signature")
			if len(node.Secret) >= jwt.SecretLen(node.Algorithm) {
				checkVerify(t, newTokens(t, jwt.Config{Keys: []jwt.SigningKey{{Algorithm: node.Algorithm, Key: []byte(node.Secret)}}}), node.Token, "type")
			}
			// jwx reads it in the same way.
			payload, err := jws.Verify([]byte(node.Token), jws.WithKey(jwa.SignatureAlgorithm(node.Algorithm), []byte(node.Secret)))
			var claims jwt.Claims
			if err != nil || json.Unmarshal(payload, &claims) != nil || claims["jti"] != token.ID {
				t.Errorf("jwx reads %v, %v", claims, err)
			}
		})
	}
}

// What a header must say so that a legacy key, or another key, is tried at all.
func TestLegacyHeader(t *testing.T) {
	const payload = `{"jti":"` + tokenID + `"}`
	shared := legacyKey("HS256", tokenSecret)
	named := legacyKey("HS256", legacySecret)
	named.ID = "old"
	tests := map[string]struct {
		legacy jwt.SigningKey
		header string
		secret []byte
		reason string // "": it is accepted
	}{
		"typ JWT":                           {named, `{"alg":"HS256","typ":"JWT"}`, legacySecret, ""},
		"typ JWT, in another order":         {named, `{"typ":"JWT","alg":"HS256"}`, legacySecret, ""},
		"without typ":                       {named, `{"alg":"HS256"}`, legacySecret, ""},
		"typ jwt":                           {named, `{"alg":"HS256","typ":"jwt"}`, legacySecret, "type"},
		"typ empty":                         {named, `{"alg":"HS256","typ":""}`, legacySecret, "malformed"},
		"typ of an access token":            {named, `{"alg":"HS256","typ":"at+jwt"}`, legacySecret, "type"},
		"typ of our sessions":               {named, `{"alg":"HS256","typ":"session+jwt"}`, legacySecret, "signature"},
		"another algorithm":                 {named, `{"alg":"HS512","typ":"JWT"}`, legacySecret, "algorithm"},
		"none":                              {named, `{"alg":"none","typ":"JWT"}`, legacySecret, "algorithm"},
		"the legacy key's own kid":          {named, `{"alg":"HS256","typ":"JWT","kid":"old"}`, legacySecret, "unknown_key"},
		"that kid and our typ":              {named, `{"alg":"HS256","typ":"session+jwt","kid":"old"}`, legacySecret, "unknown_key"},
		"the new key's kid":                 {named, `{"alg":"HS256","typ":"JWT","kid":"new"}`, legacySecret, "type"},
		"an empty kid":                      {named, `{"alg":"HS256","typ":"JWT","kid":""}`, legacySecret, "malformed"},
		"crit":                              {named, `{"alg":"HS256","typ":"JWT","crit":[]}`, legacySecret, "malformed"},
		"the new secret and typ JWT":        {named, `{"alg":"HS256","typ":"JWT"}`, tokenSecret, "signature"},
		"the new secret and no typ":         {named, `{"alg":"HS256"}`, tokenSecret, "signature"},
		"the new secret, kid and typ JWT":   {named, `{"alg":"HS256","typ":"JWT","kid":"new"}`, tokenSecret, "type"},
		"the new secret and our typ":        {named, `{"alg":"HS256","typ":"session+jwt"}`, tokenSecret, ""},
		"a shared secret, typ JWT":          {shared, `{"alg":"HS256","typ":"JWT"}`, tokenSecret, ""},
		"a shared secret, typ JWT and kid":  {shared, `{"alg":"HS256","typ":"JWT","kid":"new"}`, tokenSecret, "type"},
		"a shared secret, our typ":          {shared, `{"alg":"HS256","typ":"session+jwt"}`, tokenSecret, ""},
		"a shared secret, our typ, the kid": {shared, `{"alg":"HS256","typ":"session+jwt","kid":"new"}`, tokenSecret, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			checkVerify(t, legacyTokens(t, tt.legacy), hs256(tt.header, payload, tt.secret), tt.reason)
		})
	}
	t.Run("a secret of one byte", func(t *testing.T) {
		tokens := legacyTokens(t, legacyKey("HS256", []byte("s")))
		// HMAC fills a short secret up with zeros: the first two are one.
		for secret, reason := range map[string]string{"s": "", "s\x00": "", "S": "signature", "ss": "signature", "": "signature"} {
			checkVerify(t, tokens, hs256(`{"alg":"HS256","typ":"JWT"}`, payload, []byte(secret)), reason)
		}
	})
	t.Run("several legacy keys", func(t *testing.T) {
		tokens := legacyTokens(t, legacyKey("HS256", []byte("a")), legacyKey("HS256", []byte("b")), legacyKey("HS512", []byte("c")))
		for _, secret := range []string{"a", "b"} {
			checkVerify(t, tokens, hs256(`{"alg":"HS256","typ":"JWT"}`, payload, []byte(secret)), "")
		}
		checkVerify(t, tokens, hs256(`{"alg":"HS256","typ":"JWT"}`, payload, []byte("c")), "signature")
	})
}

// The payload of a legacy token is as strict as any other, but for two members.
func TestLegacyPayload(t *testing.T) {
	tests := map[string]struct {
		members string
		reason  string // "": it is accepted
		subject string
	}{
		"sub":                     {`"sub":"anna"`, "", "anna"},
		"sub a whole number":      {`"sub":42`, "", "42"},
		"sub zero":                {`"sub":0`, "", "0"},
		"sub negative":            {`"sub":-7`, "", "-7"},
		"sub minus zero":          {`"sub":-0`, "claims", ""},
		"sub with a fraction":     {`"sub":4.5`, "claims", ""},
		"sub in exponent form":    {`"sub":1e3`, "claims", ""},
		"sub over 63 bits":        {`"sub":9223372036854775808`, "claims", ""},
		"sub null":                {`"sub":null`, "claims", ""},
		"sub true":                {`"sub":true`, "claims", ""},
		"sub an object":           {`"sub":{"id":1}`, "claims", ""},
		"sub twice":               {`"sub":1,"sub":"1"`, "claims", ""},
		"idle of another meaning": {`"idle":true`, "", ""},
		"idle that reads as ours": {`"idle":1`, "", ""},
		"exp":                     {`"exp":1700000000`, "", ""},
		"exp in milliseconds":     {`"exp":1700000000000`, "claims", ""},
		"exp a string":            {`"exp":"1700000000"`, "claims", ""},
		"iat a string":            {`"iat":"1"`, "claims", ""},
		"jti twice":               {`"jti":"` + tokenID + `"`, "claims", ""},
		"iss and aud":             {`"iss":1,"aud":{}`, "", ""},
	}
	tokens := legacyTokens(t, legacyKey("HS256", legacySecret))
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			token := hs256(`{"alg":"HS256","typ":"JWT"}`, `{"jti":"`+tokenID+`",`+tt.members+`}`, legacySecret)
			checkVerify(t, tokens, token, tt.reason)
			if v, err := tokens.Verify(token); err == nil && (v.Subject != tt.subject || v.Idle != 0) {
				t.Errorf("subject %q, idle %v", v.Subject, v.Idle)
			}
		})
	}
	t.Run("jti of another form", func(t *testing.T) {
		for _, id := range []string{"", "1", strings.ToUpper(tokenID), "0f8fad5b-d9cb-169f-a165-70867728950e"} {
			checkVerify(t, tokens, hs256(`{"alg":"HS256","typ":"JWT"}`, `{"jti":"`+id+`"}`, legacySecret), "claims")
		}
	})
	t.Run("issuer and audience are asked of it too", func(t *testing.T) {
		strict := newTokens(t, jwt.Config{WithKid: true, Issuer: "me", Audience: []string{"api"}, Keys: []jwt.SigningKey{
			{Algorithm: "HS256", Key: tokenSecret}, legacyKey("HS256", legacySecret),
		}})
		for members, reason := range map[string]string{`"iss":"me","aud":"api"`: "", `"iss":"me"`: "audience", `"aud":"api"`: "issuer"} {
			checkVerify(t, strict, hs256(`{"alg":"HS256","typ":"JWT"}`, `{"jti":"`+tokenID+`",`+members+`}`, legacySecret), reason)
		}
	})
}

// A rotation takes a session of the predecessor to a token of ours: with the claims of
// the caller, and without what the package would read as its own.
func TestLegacyClaimsAreCarried(t *testing.T) {
	tokens := legacyTokens(t, legacyKey("HS256", legacySecret))
	old, err := tokens.Verify(hs256(`{"alg":"HS256","typ":"JWT"}`,
		`{"jti":"`+tokenID+`","iat":1,"sub":42,"idle":1,"role":"admin"}`, legacySecret))
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := tokens.Issue(jwt.Params{ID: tokenID, Now: tokenNow, Subject: old.Subject, Claims: tokens.CallersClaims(old)})
	if err != nil {
		t.Fatal(err)
	}
	verified, err := tokens.Verify(token)
	if err != nil {
		t.Fatal(err)
	}
	want := jwt.Claims{"jti": tokenID, "iat": 1.7e9, "sub": "42", "role": "admin"}
	if got := verified.Claims(); !maps.Equal(got, want) {
		t.Errorf("claims %v, want %v", got, want)
	}
	checkVerify(t, newTokens(t, jwt.Config{Keys: []jwt.SigningKey{{ID: "new", Algorithm: "HS256", Key: tokenSecret}}, WithKid: true}), token, "")
}

func TestLegacyKeyRefused(t *testing.T) {
	main := jwt.SigningKey{ID: "new", Algorithm: "HS256", Key: tokenSecret}
	signs := jwt.SigningKey{Algorithm: "HS256", Key: legacySecret, Legacy: true}
	second := jwt.SigningKey{ID: "second", Algorithm: "HS256", Key: longSecret[:40]}
	verifies := second
	verifies.VerifyOnly = true
	tests := map[string]struct {
		keys []jwt.SigningKey
		want string // "": accepted
	}{
		"a legacy key":                          {[]jwt.SigningKey{main, legacyKey("HS256", legacySecret)}, ""},
		"a legacy key of one byte":              {[]jwt.SigningKey{main, legacyKey("HS512", []byte("s"))}, ""},
		"two legacy keys without IDs":           {[]jwt.SigningKey{{Algorithm: "HS256", Key: tokenSecret}, legacyKey("HS256", legacySecret), legacyKey("HS384", []byte("s"))}, ""},
		"a legacy key between others":           {[]jwt.SigningKey{main, legacyKey("HS256", legacySecret), second}, ""},
		"the secret that signs":                 {[]jwt.SigningKey{main, legacyKey("HS256", tokenSecret)}, ""},
		"that secret, another algorithm":        {[]jwt.SigningKey{main, legacyKey("HS512", tokenSecret)}, "Keys[1]: it is the key of Config.Keys[0]"},
		"a key that only verifies":              {[]jwt.SigningKey{main, verifies}, ""},
		"a legacy key that may sign":            {[]jwt.SigningKey{main, signs}, "Keys[1]: a Legacy key needs VerifyOnly: true"},
		"an empty secret":                       {[]jwt.SigningKey{main, legacyKey("HS256", []byte{})}, "Keys[1]: the secret has 0 bytes"},
		"a secret as a string":                  {[]jwt.SigningKey{main, {Algorithm: "HS256", Key: "keyboard cat", VerifyOnly: true, Legacy: true}}, "a []byte secret"},
		"a public key":                          {[]jwt.SigningKey{main, {Algorithm: "ES256", Key: p256Key().Public(), VerifyOnly: true, Legacy: true}}, "HS256, HS384 or HS512, and not ES256"},
		"no algorithm":                          {[]jwt.SigningKey{main, {Key: legacySecret, VerifyOnly: true, Legacy: true}}, "the Algorithm is missing"},
		"a legacy key alone":                    {[]jwt.SigningKey{legacyKey("HS256", legacySecret)}, "Keys[0]: the first key signs, and this one has VerifyOnly: put the key that signs before it"},
		"a legacy key first":                    {[]jwt.SigningKey{legacyKey("HS256", legacySecret), main}, "Keys[0]: the first key signs, and this one has VerifyOnly"},
		"a key that only verifies first":        {[]jwt.SigningKey{verifies, main}, "Keys[0]: the first key signs, and this one has VerifyOnly"},
		"two others, one of them without an ID": {[]jwt.SigningKey{main, legacyKey("HS256", legacySecret), {Algorithm: "ES256", Key: p256Key()}}, "Keys[2]: the ID is missing"},
		"a short secret of a key that is not":   {[]jwt.SigningKey{main, {ID: "b", Algorithm: "HS256", Key: legacySecret, VerifyOnly: true}}, "at least 32"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tokens, mistakes := jwt.New(jwt.Config{Keys: tt.keys, WithKid: true})
			text := asText(mistakes)
			if tt.want == "" {
				if tokens == nil {
					t.Error(text)
				}
				return
			}
			if tokens != nil || len(mistakes) != 1 || !strings.Contains(text, tt.want) {
				t.Errorf("mistakes %q, want one about %q", text, tt.want)
			}
			if strings.Contains(text, "keyboard") {
				t.Errorf("the mistake tells the secret: %s", text)
			}
		})
	}
}

// A key with VerifyOnly verifies what it has signed elsewhere, whatever its kind, and
// does not need its private half to work.
func TestVerifyOnly(t *testing.T) {
	for alg, private := range signers() {
		t.Run(alg, func(t *testing.T) {
			key := jwt.SigningKey{ID: "old", Algorithm: alg, Key: private}
			token, _, err := newTokens(t, jwt.Config{Keys: []jwt.SigningKey{key}, WithKid: true}).Issue(jwt.Params{ID: tokenID, Now: tokenNow})
			if err != nil {
				t.Fatal(err)
			}
			key.VerifyOnly = true
			tokens := newTokens(t, jwt.Config{Keys: []jwt.SigningKey{{ID: "new", Algorithm: "HS256", Key: tokenSecret}, key}, WithKid: true})
			checkVerify(t, tokens, token, "")
			if can := tokens.CanSign(); !slices.Equal(can, []bool{true, false}) {
				t.Errorf("the keys can sign: %v", can)
			}
			issued, _, err := tokens.Issue(jwt.Params{ID: tokenID, Now: tokenNow.Add(time.Second)})
			if err != nil {
				t.Fatal(err)
			}
			checkVerify(t, newTokens(t, jwt.Config{Keys: []jwt.SigningKey{{ID: "new", Algorithm: "HS256", Key: tokenSecret}}, WithKid: true}), issued, "")
		})
	}
}

// FuzzLegacyVerify: a legacy key adds tokens of another typ, without kid, with its own
// MAC, and changes nothing for the others.
func FuzzLegacyVerify(f *testing.F) {
	plain := newTokens(f, jwt.Config{Keys: []jwt.SigningKey{{ID: "new", Algorithm: "HS256", Key: tokenSecret}}, WithKid: true})
	both := legacyTokens(f, legacyKey("HS256", legacySecret))
	for _, header := range []string{
		`{"alg":"HS256","typ":"JWT"}`, `{"alg":"HS256"}`, `{"alg":"HS256","typ":"JWT","kid":"new"}`,
		`{"alg":"HS256","typ":"session+jwt","kid":"new"}`, `{"alg":"none","typ":"JWT"}`,
	} {
		for _, payload := range []string{`{"jti":"` + tokenID + `"}`, `{"jti":"` + tokenID + `","sub":42,"idle":true,"iat":1}`} {
			f.Add(header, payload, true)
			f.Add(header, payload, false)
		}
	}
	f.Fuzz(func(t *testing.T, header, payload string, old bool) {
		secret := tokenSecret
		if old {
			secret = legacySecret
		}
		token := hs256(header, payload, secret)
		want, plainErr := plain.Verify(token)
		got, err := both.Verify(token)
		if plainErr == nil {
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("with a legacy key: %+v, %v", got, err)
			}
			return
		}
		if err != nil {
			if !slices.Contains(reasons, jwt.Reason(err)) {
				t.Fatalf("%v: the reason is %q", err, jwt.Reason(err))
			}
			return
		}
		var h map[string]any
		if json.Unmarshal([]byte(header), &h) != nil || !old || h["alg"] != "HS256" || h["kid"] != nil || h["typ"] != nil && h["typ"] != "JWT" {
			t.Fatalf("accepted: %s", header)
		}
		var claims jwt.Claims
		if json.Unmarshal([]byte(payload), &claims) != nil || claims["jti"] != got.ID || got.Idle != 0 {
			t.Fatalf("%+v of %s", got, payload)
		}
	})
}
