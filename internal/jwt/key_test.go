package jwt_test

//lint:file-ignore SA1019 broken keys are made by hand here

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/echosession/echosession/internal/jwt"
)

func TestSigningKeyRefused(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(rsaKey().Public())
	if err != nil {
		t.Fatal(err)
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	x, _ := ecdh.X25519().GenerateKey(rand.Reader)
	n := rsaKey().N
	one := 1 // where an int has 32 bits, one<<31 + 1 is negative, and refused as well
	p := &p256Key().PublicKey
	other, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, otherEd, _ := ed25519.GenerateKey(rand.Reader)
	mixedEd := append(append(ed25519.PrivateKey{}, edKey()[:32]...), otherEd[32:]...)

	tests := map[string]struct {
		alg  string
		key  any
		want string
	}{
		"no algorithm":                     {"", tokenSecret, "HS256"},
		"none":                             {"none", tokenSecret, "unsigned"},
		"None":                             {"None", tokenSecret, "unsigned"},
		"algorithm in lower case":          {"hs256", tokenSecret, "unknown Algorithm"},
		"secp256k1":                        {"ES256K", p256Key(), "unknown Algorithm"},
		"encryption":                       {"A256KW", tokenSecret, "unknown Algorithm"},
		"HS256 secret of 31 bytes":         {"HS256", tokenSecret[:31], "at least 32"},
		"HS384 secret of 47 bytes":         {"HS384", longSecret[:47], "at least 48"},
		"HS512 secret of 63 bytes":         {"HS512", longSecret[:63], "at least 64"},
		"empty secret":                     {"HS256", []byte{}, "at least 32"},
		"nil secret":                       {"HS256", []byte(nil), "at least 32"},
		"secret as a string":               {"HS256", string(tokenSecret), "a []byte secret"},
		"public key in PEM as the secret":  {"HS256", publicPEM, "PEM"},
		"no key":                           {"HS256", nil, "nil"},
		"nil RSA key":                      {"RS256", (*rsa.PrivateKey)(nil), "nil"},
		"nil ECDSA key":                    {"ES256", (*ecdsa.PrivateKey)(nil), "nil"},
		"nil Ed25519 key":                  {"EdDSA", (*ed25519.PrivateKey)(nil), "nil"},
		"nil handle":                       {"ES256", (*handle)(nil), "nil"},
		"RSA key for HMAC":                 {"HS256", rsaKey(), "a []byte secret"},
		"RSA public key for HMAC":          {"HS256", &rsaKey().PublicKey, "a []byte secret"},
		"Ed25519 public key for HMAC":      {"HS256", edKey().Public(), "a []byte secret"},
		"secret for RSA":                   {"RS256", longSecret, "an RSA key"},
		"secret for Ed25519":               {"EdDSA", tokenSecret, "an Ed25519 key"},
		"ECDSA key for RSA":                {"PS256", p256Key(), "an RSA key"},
		"RSA key for ECDSA":                {"ES256", rsaKey(), "an ECDSA key on P-256"},
		"ECDSA key for Ed25519":            {"EdDSA", p256Key(), "an Ed25519 key"},
		"Ed25519 key for ECDSA":            {"ES256", edKey(), "an ECDSA key on P-256"},
		"X25519 key for Ed25519":           {"EdDSA", x, "an Ed25519 key"},
		"PEM for RSA":                      {"RS256", publicPEM, "an RSA key"},
		"RSA of 1024 bits":                 {"RS256", small, "2048"},
		"handle of RSA of 1024 bits":       {"RS256", &handle{signer: small}, "2048"},
		"RSA without a modulus":            {"RS256", &rsa.PrivateKey{}, "modulus"},
		"RSA with an even modulus":         {"RS256", &rsa.PublicKey{N: new(big.Int).Lsh(n, 1), E: 65537}, "modulus"},
		"RSA with a negative modulus":      {"RS256", &rsa.PublicKey{N: new(big.Int).Neg(n), E: 65537}, "modulus"},
		"RSA exponent 1":                   {"RS256", &rsa.PublicKey{N: n, E: 1}, "exponent"},
		"RSA exponent even":                {"RS256", &rsa.PublicKey{N: n, E: 65536}, "exponent"},
		"RSA exponent negative":            {"RS256", &rsa.PublicKey{N: n, E: -3}, "exponent"},
		"RSA exponent over 31 bits":        {"RS256", &rsa.PublicKey{N: n, E: one<<31 + 1}, "exponent"},
		"RSA without its private half":     {"RS256", &rsa.PrivateKey{PublicKey: rsaKey().PublicKey}, "consistent"},
		"RSA with another's primes":        {"RS256", &rsa.PrivateKey{PublicKey: rsaKey().PublicKey, D: rsaKey().D, Primes: otherRSAKey().Primes}, "consistent"},
		"P-384 for ES256":                  {"ES256", p384Key(), "P-256"},
		"P-256 for ES384":                  {"ES384", p256Key(), "P-384"},
		"P-521 for ES256":                  {"ES256", p521Key(), "P-256"},
		"ECDSA without a curve":            {"ES256", &ecdsa.PrivateKey{}, "curve"},
		"ECDSA without a point":            {"ES256", &ecdsa.PublicKey{Curve: elliptic.P256()}, "no point"},
		"ECDSA off the curve":              {"ES256", &ecdsa.PublicKey{Curve: elliptic.P256(), X: p.X, Y: other.Y}, "not a point"},
		"ECDSA point at infinity":          {"ES256", &ecdsa.PublicKey{Curve: elliptic.P256(), X: new(big.Int), Y: new(big.Int)}, "not a point"},
		"ECDSA without a scalar":           {"ES256", &ecdsa.PrivateKey{PublicKey: *p}, "no scalar"},
		"ECDSA scalar out of range":        {"ES256", &ecdsa.PrivateKey{PublicKey: *p, D: new(big.Int).Lsh(p256Key().D, 300)}, "out of range"},
		"ECDSA halves of two keys":         {"ES256", &ecdsa.PrivateKey{PublicKey: *p, D: other.D}, "belong together"},
		"Ed25519 private key too short":    {"EdDSA", edKey()[:63], "length"},
		"Ed25519 private key empty":        {"EdDSA", ed25519.PrivateKey{}, "length"},
		"Ed25519 public key too short":     {"EdDSA", ed25519.PublicKey(edKey()[32:63]), "length"},
		"Ed25519 halves of two keys":       {"EdDSA", mixedEd, "belong together"},
		"public key that is to sign":       {"ES256", p, "not a public key"},
		"handle without a public key":      {"ES256", &handle{public: func() crypto.PublicKey { return nil }}, "an ECDSA key"},
		"handle with a nil public key":     {"ES256", &handle{public: func() crypto.PublicKey { return (*ecdsa.PublicKey)(nil) }}, "an ECDSA key"},
		"handle of another key":            {"ES256", &handle{signer: p256Key(), public: func() crypto.PublicKey { return other.Public() }}, "does not sign"},
		"handle that does not sign":        {"ES256", &failing{Signer: p256Key(), err: x509.ErrUnsupportedAlgorithm}, "does not sign"},
		"handle of a key on another curve": {"ES256", &handle{signer: p384Key(), public: func() crypto.PublicKey { return p }}, "does not sign"},
		"handle of another RSA key":        {"RS256", &handle{signer: rsaKey(), public: otherRSAKey().Public}, "does not verify"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tokens, mistakes := jwt.New(jwt.Config{Keys: []jwt.SigningKey{{Algorithm: tt.alg, Key: tt.key}}})
			text := asText(mistakes)
			if tokens != nil || len(mistakes) != 1 || !strings.HasPrefix(text, "Secret: ") || !strings.Contains(text, tt.want) {
				t.Fatalf("mistakes %q, want one in Secret about %q", text, tt.want)
			}
			if secret, ok := tt.key.([]byte); ok && len(secret) > 8 && strings.Contains(text, string(secret[:8])) {
				t.Errorf("the mistake tells the secret: %s", text)
			}
		})
	}
}

func TestSigningKeyForms(t *testing.T) {
	ed, edPublic := edKey(), edKey().Public().(ed25519.PublicKey)
	tests := map[string]struct {
		alg      string
		sign     any
		verifies any
	}{
		"RSA by pointer":     {"RS256", rsaKey(), &rsaKey().PublicKey},
		"RSA by value":       {"RS256", *rsaKey(), rsaKey().PublicKey},
		"ECDSA by pointer":   {"ES256", p256Key(), &p256Key().PublicKey},
		"ECDSA by value":     {"ES256", *p256Key(), p256Key().PublicKey},
		"Ed25519 by value":   {"EdDSA", ed, edPublic},
		"Ed25519 by pointer": {"EdDSA", &ed, &edPublic},
		"handle whose public key is a value": {"ES256",
			&handle{signer: p256Key(), public: func() crypto.PublicKey { return p256Key().PublicKey }}, p256Key()},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			signs := newTokens(t, jwt.Config{WithKid: true, Keys: []jwt.SigningKey{{ID: "1", Algorithm: tt.alg, Key: tt.sign}}})
			verifies := newTokens(t, jwt.Config{WithKid: true, Keys: []jwt.SigningKey{
				{ID: "0", Algorithm: "HS256", Key: tokenSecret}, {ID: "1", Algorithm: tt.alg, Key: tt.verifies},
			}})
			token, _, err := signs.Issue(jwt.Params{ID: tokenID, Now: tokenNow})
			if err != nil {
				t.Fatal(err)
			}
			checkVerify(t, signs, token, "")
			checkVerify(t, verifies, token, "")
		})
	}
}

func TestSigningKeysAreCopied(t *testing.T) {
	secret := append([]byte(nil), tokenSecret...)
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	r, _ := rsa.GenerateKey(rand.Reader, 2048)
	for alg, k := range map[string]struct {
		key    any
		change func()
	}{
		"HS256": {secret, func() { clear(secret) }},
		"ES256": {ec, func() { ec.D.SetInt64(1); ec.X.SetInt64(1); ec.Y.SetInt64(1) }},
		"EdDSA": {ed, func() { clear(ed) }},
		"RS256": {r, func() { r.D.SetInt64(1); r.N.SetInt64(1); r.Primes[0].SetInt64(1); r.E = 3 }},
	} {
		t.Run(alg, func(t *testing.T) {
			tokens := newTokens(t, jwt.Config{Keys: []jwt.SigningKey{{Algorithm: alg, Key: k.key}}})
			before, _, err := tokens.Issue(jwt.Params{ID: tokenID, Now: tokenNow})
			if err != nil {
				t.Fatal(err)
			}
			k.change()
			checkVerify(t, tokens, before, "")
			after, _, err := tokens.Issue(jwt.Params{ID: tokenID, Now: tokenNow})
			if err != nil {
				t.Fatal(err)
			}
			checkVerify(t, tokens, after, "")
		})
	}
}

func TestSigningKeyPublicIsCopied(t *testing.T) {
	signs := newTokens(t, jwt.Config{Keys: []jwt.SigningKey{{Algorithm: "EdDSA", Key: edKey()}}})
	token, _, err := signs.Issue(jwt.Params{ID: tokenID, Now: tokenNow})
	if err != nil {
		t.Fatal(err)
	}
	public := append(ed25519.PublicKey(nil), edKey()[32:]...)
	verifies := newTokens(t, jwt.Config{WithKid: true, Keys: []jwt.SigningKey{
		{ID: "0", Algorithm: "HS256", Key: tokenSecret}, {ID: "1", Algorithm: "EdDSA", Key: public},
	}})
	clear(public)
	checkVerify(t, verifies, token, "")
}

func TestSigningKeySets(t *testing.T) {
	hs := func(id string) jwt.SigningKey {
		return jwt.SigningKey{ID: id, Algorithm: "HS256", Key: tokenSecret}
	}
	tests := map[string]struct {
		config jwt.Config
		want   []string // none: accepted
	}{
		"none": {jwt.Config{}, []string{"Secret: ", "or Keys"}},
		"the shorthand is named in its errors": {
			jwt.Config{Keys: []jwt.SigningKey{{Algorithm: "HS256"}}}, []string{"Secret: "}},
		"an ID twice":             {jwt.Config{WithKid: true, Keys: []jwt.SigningKey{hs("a"), hs("a")}}, []string{"Keys[1]: ", `"a"`}},
		"an ID missing":           {jwt.Config{WithKid: true, Keys: []jwt.SigningKey{hs("a"), hs("")}}, []string{"Keys[1]: ", "ID is missing"}},
		"IDs that differ in case": {jwt.Config{WithKid: true, Keys: []jwt.SigningKey{hs("a"), hs("A")}}, nil},
		"an ID of 100 bytes":      {jwt.Config{WithKid: true, Keys: []jwt.SigningKey{hs(strings.Repeat("a", 100))}}, nil},
		"an ID of 101 bytes":      {jwt.Config{WithKid: true, Keys: []jwt.SigningKey{hs(strings.Repeat("a", 101))}}, []string{"at most 100"}},
		"an ID of invalid UTF-8":  {jwt.Config{WithKid: true, Keys: []jwt.SigningKey{hs("\xff")}}, []string{"UTF-8"}},
		"one secret under two algorithms": {jwt.Config{WithKid: true, Keys: []jwt.SigningKey{
			{ID: "a", Algorithm: "HS256", Key: longSecret}, {ID: "b", Algorithm: "HS512", Key: longSecret},
		}}, []string{"Keys[1]: ", "another Algorithm"}},
		"one RSA key under two algorithms": {jwt.Config{WithKid: true, Keys: []jwt.SigningKey{
			{ID: "a", Algorithm: "RS256", Key: rsaKey()}, {ID: "b", Algorithm: "PS256", Key: &rsaKey().PublicKey},
		}}, []string{"Keys[1]: ", "another Algorithm"}},
		"a public key first": {jwt.Config{WithKid: true, Keys: []jwt.SigningKey{
			{ID: "a", Algorithm: "EdDSA", Key: edKey().Public()}, hs("b"),
		}}, []string{"Keys[0]: ", "the first key signs"}},
		"every mistake at once": {jwt.Config{
			WithKid: true,
			Keys: []jwt.SigningKey{
				{ID: strings.Repeat("a", 300), Algorithm: "HS384", Key: tokenSecret}, {Algorithm: "ES256", Key: p384Key()}, {ID: "c", Algorithm: "x"},
			},
			Issuer:   "\xff",
			Audience: []string{"a", ""},
			Skew:     6 * time.Minute,
		}, []string{
			"Keys[0]: the ID has 300", "at least 48", "Keys[1]: the ECDSA key", "Keys[1]: the ID is missing",
			`unknown Algorithm "x"`, "Issuer: ", "Audience[1]: ", "ClockSkew: ",
		}},
		"a negative skew":     {jwt.Config{Keys: []jwt.SigningKey{hs("")}, Skew: -1}, []string{"ClockSkew: "}},
		"a skew of 5 minutes": {jwt.Config{Keys: []jwt.SigningKey{hs("")}, Skew: 5 * time.Minute}, nil},
		"two short secrets are two mistakes only": {jwt.Config{WithKid: true, Keys: []jwt.SigningKey{
			{ID: "a", Algorithm: "HS256", Key: []byte("x")}, {ID: "b", Algorithm: "HS512", Key: []byte("y")},
		}}, []string{"at least 32", "at least 64"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tokens, mistakes := jwt.New(tt.config)
			text := asText(mistakes)
			if len(tt.want) == 0 {
				if len(mistakes) > 0 || tokens == nil {
					t.Error(text)
				}
				return
			}
			if len(mistakes) == 0 || tokens != nil {
				t.Fatal("accepted")
			}
			for _, want := range tt.want {
				if !strings.Contains(text, want) {
					t.Errorf("nothing about %q in: %s", want, text)
				}
			}
			if strings.Contains(text, "another Algorithm") != strings.Contains(name, "two algorithms") {
				t.Errorf("got: %s", text)
			}
		})
	}
	t.Run("the longest ID makes a header that is read", func(t *testing.T) {
		tokens := newTokens(t, jwt.Config{WithKid: true, Keys: []jwt.SigningKey{hs(strings.Repeat("\x01", 100))}})
		token, _, err := tokens.Issue(jwt.Params{ID: tokenID, Now: tokenNow})
		if err != nil {
			t.Fatal(err)
		}
		checkVerify(t, tokens, token, "")
		if i := strings.IndexByte(token, '.'); i > 1024 {
			t.Errorf("the header has %d bytes", i)
		}
	})
}
