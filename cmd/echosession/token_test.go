package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/echosession/echosession"
)

// issue makes a token as a program with this Config does.
func issue(t *testing.T, cfg echosession.Config, opts ...echosession.CreateOption) string {
	t.Helper()
	cfg.Store = echosession.NewMemoryStore()
	sessions, err := echosession.New[user](cfg)
	if err != nil {
		t.Fatal(err)
	}
	sess, err := sessions.Create(t.Context(), ada, append(opts, echosession.WithSubject("ada"))...)
	if err != nil {
		t.Fatal(err)
	}
	return sess.Token()
}

// signatureOf is what no command may show.
func signatureOf(token string) string { return token[strings.LastIndex(token, ".")+1:] }

// pemFile writes a block as openssl does.
func pemFile(t *testing.T, kind string, der []byte, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return fileOf(t, string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
}

func publicFile(t *testing.T, key crypto.Signer) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	return pemFile(t, "PUBLIC KEY", der, err)
}

func privateFile(t *testing.T, key crypto.Signer) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pemFile(t, "PRIVATE KEY", der, err)
}

// decode runs the command with a token on the standard input.
func decode(t *testing.T, token string, args ...string) outcome {
	t.Helper()
	o := invoke(t, environment{stdin: strings.NewReader(token)}, append([]string{"token"}, args...)...)
	for _, part := range strings.Split(token, ".") {
		if part = strings.TrimSpace(part); len(part) > 8 {
			o.hides(t, part, part[:len(part)/2], part[len(part)/2:])
		}
	}
	return o
}

func TestTokenIsDecoded(t *testing.T) {
	t.Parallel()
	token := issue(t, echosession.Config{Secret: testSecret, AbsoluteTimeout: 50 * time.Hour}, echosession.WithClaims(echosession.Claims{"scope": "read <all>\x1b[2J\u202e"}))
	for name, input := range map[string]string{
		"alone": token, "with a line's end": token + "\r\n", "with its scheme": "Bearer " + token, "as a header": "Authorization: bearer " + token + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := decode(t, input)
			o.wants(t, exitOK, `"alg": "HS256"`, `"typ": "session+jwt"`, `"sub": "ada"`, `"scope": "read \u003call\u003e\u001b[2J\u202e"`, "In logs its session is ",
				"It was issued ", "It expires in 2 days (20", "Nothing of this was checked: use -key-file")
			o.hides(t, "\x1b", "\u202e", "accepted", "refused", signatureOf(token))
		})
	}
	file := fileOf(t, token)
	for _, args := range [][]string{{"token", file}, {"token", "--", file}} {
		o := invoke(t, environment{}, args...)
		o.wants(t, exitOK, `"sub": "ada"`)
		o.hides(t, signatureOf(token))
	}
	invoke(t, environment{}, "token", filepath.Join(t.TempDir(), "absent")).wants(t, exitUnknown, "the file of the token", "absent")

	line := decode(t, token, "-json", "-")
	var report tokenReport
	if err := json.Unmarshal([]byte(line.stdout), &report); err != nil || strings.Count(line.stdout, "\n") != 1 {
		t.Fatalf("%v in %s", err, line.stdout)
	}
	var claims struct{ Jti string }
	if err := json.Unmarshal(report.Claims, &claims); err != nil || report.LogID != echosession.LogID(claims.Jti) || report.SessionID != claims.Jti || report.Subject != "ada" || report.Kid != "" || report.Accepted != nil || report.ExpiresAt.Before(time.Now()) {
		t.Errorf("%v, %+v", err, report)
	}
	decode(t, issue(t, configOf("k2", "HS256", testSecret)), "-json").wants(t, exitOK, `"session_id":"`, `"subject":"ada"`, `"kid":"k2"`)
}

// What is no token is refused in words that have nothing of it.
func TestNoToken(t *testing.T) {
	t.Parallel()
	planted := base64.RawURLEncoding.EncodeToString([]byte("planted planted planted"))
	for name, tt := range map[string]struct{ input, text string }{
		"a word":              {"planted", "it has 1 part, and a token has 3"},
		"two parts":           {planted + "." + planted, "it has 2 parts"},
		"four parts":          {"a.b.c." + planted, "it has 4 parts"},
		"no base64":           {"!planted!." + planted + ".c", "its header is not base64url"},
		"no JSON":             {planted + "." + planted + "." + planted, "its header is no JSON object"},
		"no object":           {"MQ." + planted + ".c", "its header is no JSON object"},
		"null":                {"bnVsbA.e30.c", "its header is no JSON object"},
		"a payload of no use": {"e30." + planted + ".c", "its payload is no JSON object"},
		"very long":           {strings.Repeat("planted", 1<<20), "it has 1 part"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := decode(t, tt.input)
			o.wants(t, exitCritical, "this is no token of a session: "+tt.text)
			o.hides(t, "planted", planted)
		})
	}
	for _, input := range []string{"", " \n", "Bearer "} {
		decode(t, input).wants(t, exitUnknown, "there is no token in the input")
	}
}

// Every form of every key verifies the token that it has signed, alone and among others, and
// no other token.
func TestTokenIsVerified(t *testing.T) {
	t.Parallel()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	p256, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p384, err3 := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	rsaKey, err4 := rsa.GenerateKey(rand.Reader, 2048)
	for _, err := range []error{err, err2, err3, err4} {
		if err != nil {
			t.Fatal(err)
		}
	}
	certificate := pemFile(t, "CERTIFICATE", certificateOf(t, p256), nil)
	ecDER, err := x509.MarshalECPrivateKey(p256)
	if err != nil {
		t.Fatal(err)
	}
	ecFile := pemFile(t, "EC PRIVATE KEY", ecDER, nil)
	parameters := fileOf(t, "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"+read(t, ecFile))
	encoded := base64.StdEncoding.EncodeToString(testSecret)
	hs512 := []byte(strings.Repeat("0123456789abcdef", 4))
	for _, tt := range []struct {
		name  string
		cfg   echosession.Config
		files map[string][]string // what the file is, and the flags for it
	}{
		{"a secret", echosession.Config{Secret: testSecret}, map[string][]string{
			"base64": {"-key-file", fileOf(t, encoded+"\n")}, "base64url": {"-key-file", fileOf(t, base64.RawURLEncoding.EncodeToString(testSecret))},
			"as it is": {"-key-file", fileOf(t, string(testSecret)+"\n")},
		}},
		{"a secret of bytes that are no text", echosession.Config{Secret: binarySecret()}, map[string][]string{"as it is": {"-key-file", fileOf(t, string(binarySecret()))}}},
		{"a secret whose base64 is the secret", echosession.Config{Secret: []byte(encoded)}, map[string][]string{"as it is": {"-key-file", fileOf(t, encoded+"\n")}}},
		{"HS512", echosession.Config{Secret: hs512, Algorithm: "HS512"}, map[string][]string{"base64": {"-key-file", fileOf(t, base64.StdEncoding.EncodeToString(hs512)), "-algorithm", "HS512"}}},
		{"a secret with an ID", configOf("k1", "HS256", testSecret), map[string][]string{"base64": {"-kid", "k1", "-key-file", fileOf(t, encoded)}}},
		{"Ed25519", configOf("k1", "EdDSA", ed), map[string][]string{"private": {"-kid", "k1", "-key-file", privateFile(t, ed)}, "public": {"-kid", "k1", "-key-file", publicFile(t, ed)}}},
		{"Ed25519 without an ID", configOf("", "EdDSA", ed), map[string][]string{"public": {"-key-file", publicFile(t, ed)}}},
		{"P-256", configOf("k1", "ES256", p256), map[string][]string{
			"private": {"-kid", "k1", "-key-file", privateFile(t, p256)}, "public": {"-kid", "k1", "-key-file", publicFile(t, p256)},
			"SEC 1": {"-kid", "k1", "-key-file", ecFile}, "with parameters": {"-kid", "k1", "-key-file", parameters}, "a certificate": {"-kid", "k1", "-key-file", certificate},
		}},
		{"P-384", configOf("k1", "ES384", p384), map[string][]string{"public": {"-kid", "k1", "-key-file", publicFile(t, p384)}}},
		{"RS256", configOf("k1", "RS256", rsaKey), map[string][]string{
			"private": {"-kid", "k1", "-key-file", privateFile(t, rsaKey)},
			"PKCS #1": {"-kid", "k1", "-key-file", pemFile(t, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey), nil)},
			"public":  {"-kid", "k1", "-key-file", pemFile(t, "RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey), nil)},
		}},
		{"PS256", configOf("k1", "PS256", rsaKey), map[string][]string{"public": {"-kid", "k1", "-algorithm", "PS256", "-key-file", publicFile(t, rsaKey)}}},
	} {
		token := issue(t, tt.cfg)
		changed := token[:len(token)-10] + swap(token[len(token)-10:len(token)-9]) + token[len(token)-9:]
		for form, args := range tt.files {
			t.Run(tt.name+", "+form, func(t *testing.T) {
				t.Parallel()
				decode(t, token, args...).wants(t, exitOK, "It would be accepted.")
				decode(t, changed, args...).wants(t, exitCritical, "It would be refused: the signature does not verify.", "Hint: another key has signed it")
				others := []string{"-key-file", fileOf(t, base64.StdEncoding.EncodeToString(otherSeal))}
				if slices.Contains(args, "-kid") { // the IDs and the algorithms are in the order of the files
					others = append(others, "-kid", "k0")
				}
				if slices.Contains(args, "-algorithm") {
					others = append(others, "-algorithm", "HS256")
				}
				decode(t, token, append(others, args...)...).wants(t, exitOK, "It would be accepted.")
			})
		}
	}
}

func swap(char string) string {
	if char == "A" {
		return "B"
	}
	return "A"
}

func configOf(id, algorithm string, key any) echosession.Config {
	return echosession.Config{Keys: []echosession.SigningKey{{ID: id, Algorithm: algorithm, Key: key}}}
}

func binarySecret() []byte {
	return append(testSecret[:len(testSecret):len(testSecret)], 0xff, 0x00, '\n')
}

func certificateOf(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	template := &x509.Certificate{NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A secret that the program takes as it is, although it is base64, is found out.
func TestTokenOfASecretThatIsNotDecoded(t *testing.T) {
	t.Parallel()
	encoded := base64.StdEncoding.EncodeToString(testSecret)
	o := decode(t, issue(t, echosession.Config{Secret: []byte(encoded)}), "-key-file", fileOf(t, encoded+"\n"))
	o.wants(t, exitOK, "It would be accepted.", "Hint: the secret is the text of the file itself")
	o.hides(t, encoded)
	decode(t, issue(t, echosession.Config{Secret: testSecret}), "-key-file", fileOf(t, encoded)).hides(t, "Hint")
}

// Whoever asks why a token is refused is told, in the library's words, and what to do.
func TestTokenIsRefused(t *testing.T) {
	t.Parallel()
	secret := fileOf(t, base64.StdEncoding.EncodeToString(testSecret))
	plain := echosession.Config{Secret: testSecret}
	with := func(change func(*echosession.Config)) echosession.Config {
		cfg := plain
		change(&cfg)
		return cfg
	}
	at := func(d time.Duration) echosession.Config {
		return with(func(c *echosession.Config) { c.Now = func() time.Time { return time.Now().Add(d) } })
	}
	api := with(func(c *echosession.Config) { c.Issuer, c.Audience = "login", []string{"api"} })
	short := fileOf(t, "short")
	for _, tt := range []struct {
		name  string
		token string
		args  []string
		code  int
		texts []string
	}{
		{"expired", issue(t, at(-3*time.Hour), echosession.WithClaims(echosession.Claims{"exp": time.Now().Add(-150 * time.Minute).Unix()})), nil, exitCritical,
			[]string{"It expired 3 hours ago", "It would be refused: expired."}},
		{"not yet valid", issue(t, plain, echosession.WithClaims(echosession.Claims{"nbf": time.Now().Add(150 * time.Minute).Unix()})), nil, exitCritical,
			[]string{"It becomes valid in 2 hours", "It would be refused: not yet valid.", "Config.ClockSkew"}},
		{"issued in the future", issue(t, at(150*time.Second)), nil, exitCritical, []string{"Its time of issue is in 2 minutes", "It would be refused: issued in the future.", "clocks"}},
		{"issued in the future, within the skew", issue(t, at(150*time.Second)), []string{"-skew", "3m"}, exitOK, []string{"It would be accepted."}},
		{"another issuer", issue(t, plain), []string{"-issuer", "login"}, exitCritical, []string{"It would be refused:", "iss"}},
		{"another audience", issue(t, api), []string{"-issuer", "login", "-audience", "web"}, exitCritical, []string{"It would be refused:", "aud"}},
		{"one of the audiences", issue(t, api), []string{"-issuer", "login", "-audience", "web", "-audience", "api"}, exitOK, []string{"It would be accepted."}},
		{"a kid that is not known", issue(t, configOf("k2", "HS256", testSecret)), nil, exitCritical, []string{"no key for its alg, kid and typ", `its header names the key "k2"`, "-kid"}},
		{"another kid", issue(t, configOf("k2", "HS256", testSecret)), []string{"-kid", "k1"}, exitCritical, []string{"no key for its alg, kid and typ"}},
		{"another algorithm", issue(t, plain), []string{"-algorithm", "HS384"}, exitUnknown, []string{secret, "the secret has 32 bytes: it must have at least 48"}},
		{"no algorithm", issue(t, plain), []string{"-algorithm", "none"}, exitUnknown, []string{`the Algorithm "none" leaves tokens unsigned`}},
		{"too much skew", issue(t, plain), []string{"-skew", "1h"}, exitUnknown, []string{"-skew: 1h0m0s; it is from 0 to 5m"}},
		{"no audience", issue(t, plain), []string{"-audience", ""}, exitUnknown, []string{"-audience"}},
		{"two kids for one file", issue(t, plain), []string{"-kid", "a", "-kid", "b"}, exitUnknown, []string{"one -kid and one -algorithm for each -key-file"}},
		{"a short secret", issue(t, plain), []string{"-key-file", short}, exitUnknown, []string{short, "the secret has 5 bytes"}},
		{"a file that is not there", issue(t, plain), []string{"-key-file", "./absent"}, exitUnknown, []string{"-key-file", "./absent"}},
		{"a file that is another thing", issue(t, plain), []string{"-key-file", pemFile(t, "DH PARAMETERS", []byte("x"), nil)}, exitUnknown, []string{"neither a key nor a certificate"}},
		{"an encrypted key", issue(t, plain), []string{"-key-file", pemFile(t, "ENCRYPTED PRIVATE KEY", []byte("x"), nil)}, exitUnknown, []string{"encrypted with a password"}},
		{"a damaged key", issue(t, plain), []string{"-key-file", pemFile(t, "PRIVATE KEY", []byte("planted"), nil)}, exitUnknown, []string{"holds no key that can be read"}},
		{"damaged PEM", issue(t, plain), []string{"-key-file", fileOf(t, "-----BEGIN PRIVATE KEY-----\nplanted")}, exitUnknown, []string{"its PEM form is damaged"}},
		{"a header that chooses its key", "eyJhbGciOiJIUzI1NiIsImprdSI6Imh0dHA6Ly94In0.e30.c2lnbmF0dXJl", nil, exitCritical, []string{"It would be refused: header: a member that brings or names a key of its own."}},
		{"no signature at all", "eyJhbGciOiJub25lIn0.e30.", nil, exitCritical, []string{"It would be refused: not three segments."}},
		{"too long", issue(t, plain) + strings.Repeat("A", 9000), nil, exitCritical, []string{"It would be refused: too long."}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := decode(t, tt.token, append([]string{"-key-file", secret}, tt.args...)...)
			o.wants(t, tt.code, tt.texts...)
			o.hides(t, "planted", string(testSecret), read(t, secret))
			if tt.code == exitUnknown {
				return
			}
			line := decode(t, tt.token, append([]string{"-json", "-key-file", secret}, tt.args...)...)
			if line.code != o.code || !strings.Contains(line.stdout, fmt.Sprintf(`"accepted":%v`, tt.code == exitOK)) {
				t.Errorf("as JSON: %d, %s", line.code, line.all())
			}
		})
	}
	decode(t, issue(t, plain), "-kid", "k1").wants(t, exitUnknown, "they need -key-file")
}

// With a Redis the token's session is looked for, where each layout keeps it, and lives no
// longer for that.
func TestTokenAndItsSession(t *testing.T) {
	t.Parallel()
	for _, layout := range layouts {
		t.Run(layout.name, func(t *testing.T) {
			t.Parallel()
			p := onShared(t, echosession.Config{SubjectIndex: layout.indexed, RotateGrace: time.Hour, MaxAge: time.Hour})
			sess := p.login(t, "ada")
			secret := fileOf(t, base64.StdEncoding.EncodeToString(testSecret))
			ask := func(token string, args ...string) outcome {
				t.Helper()
				return decode(t, token, append(args, "-keyspace", p.keyspace, p.url)...)
			}
			first := sess.Token()
			lifetimes := func() map[string]time.Duration {
				all := map[string]time.Duration{}
				for _, key := range p.client.Keys(t.Context(), "*"+sess.ID()).Val() {
					p.client.PExpire(t.Context(), key, 30*time.Minute)
					all[key] = 0
				}
				return all
			}
			keys := slices.Collect(maps.Keys(lifetimes()))
			ask(first).wants(t, exitOK, "Its session is in Redis.")
			ask(first, "-key-file", secret).wants(t, exitOK, "Its session is in Redis.", "It would be accepted.")
			ask(first, "-json", "-key-file", secret).wants(t, exitOK, `"session":"live"`, `"accepted":true`)
			if len(keys) != 1 || p.client.PTTL(t.Context(), keys[0]).Val() > 30*time.Minute {
				t.Errorf("the look has prolonged the life of %q", keys)
			}
			if _, err := sess.Rotate(t.Context()); err != nil {
				t.Fatal(err)
			}
			ask(first).wants(t, exitOK, "Its session was rotated: its old token still finds it")
			ask(first, "-key-file", secret).wants(t, exitOK, "It would be accepted.")
			second := sess.Token()
			if _, err := sess.Renew(t.Context(), func(*user) error { return nil }); err != nil {
				t.Fatal(err)
			}
			const noSession = "The token itself is good. A request with it gets 401: see its session."
			ended := ask(second, "-key-file", secret)
			ended.wants(t, exitWarning, noSession, "Its session has ended: a login")
			ended.hides(t, "It would be accepted")
			third := sess.Token()
			if err := sess.Destroy(t.Context()); err != nil {
				t.Fatal(err)
			}
			ask(third).wants(t, exitWarning, "Its session is not in Redis", "Nothing of this was checked")
			ended = ask(third, "-key-file", secret)
			ended.wants(t, exitWarning, noSession, "Its session is not in Redis")
			ended.hides(t, "It would be accepted")
			ask("eyJhbGciOiJIUzI1NiJ9.eyJqdGkiOiIqIn0.c2lnbmF0dXJl").wants(t, exitWarning, "Its session is not in Redis")
			invoke(t, environment{stdin: strings.NewReader(third)}, "token", "redis://127.0.0.1:1").wants(t, exitUnknown, "no connection to Redis")
		})
	}
}
