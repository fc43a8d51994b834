package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"
)

var keygenCommand = command{
	name:    "keygen",
	summary: "make a secret, a signing key or an encryption key",
	usage:   "-type secret|ed25519|p256|encryption -out <file> [-public <file>]",
	help: `It makes a key out of the system's random numbers, and says what goes into the
program's Config. The file can be read by its owner alone. A file that is there already is
never written over.

	secret       32 random bytes in base64, for Config.Secret or Config.Keys: HS256
	ed25519      a private key in PEM form (PKCS #8), for Config.Keys: EdDSA
	p256         a private key in PEM form (PKCS #8), for Config.Keys: ES256
	encryption   32 random bytes in base64, for Config.EncryptionKeys

Services that only verify tokens get the public key: -public writes it in PEM form.

Exit codes: 0 the key is written; 3 it is not.

It asks no Redis, and needs no rights there.

Examples:

	echosession keygen -type secret -out secret.txt
	echosession keygen -type ed25519 -out signing.pem -public signing.pub.pem
	echosession keygen -type encryption -out - | vault kv put secret/sessions key=-
`,
	define: func(fs *flag.FlagSet) func(ctx context.Context, inv *invocation) (int, error) {
		var k keygen
		fs.StringVar(&k.kind, "type", "", "what to make: `secret`, ed25519, p256 or encryption")
		fs.StringVar(&k.out, "out", "", "`file` for the key; \"-\" is the standard output")
		fs.StringVar(&k.public, "public", "", "`file` for the public key of ed25519 or p256")
		return k.run
	},
}

type keygen struct {
	kind, out, public string
}

func (k *keygen) run(_ context.Context, inv *invocation) (int, error) {
	if len(inv.args) > 0 {
		return exitUnknown, errUsage("keygen takes flags alone: -type and -out")
	}
	make, ok := keyMakers[k.kind]
	switch {
	case !ok:
		return exitUnknown, errUsage("-type is secret, ed25519, p256 or encryption")
	case k.out == "":
		return exitUnknown, errUsage("-out names the file for the key; \"-\" is the standard output")
	case k.public != "" && !make.pair:
		return exitUnknown, errUsage("-public goes with ed25519 and p256: what others make has no public key")
	case k.public != "" && k.public == k.out:
		return exitUnknown, errUsage("-out and -public name the same file")
	}
	private, public, err := make.key()
	if err != nil {
		return exitUnknown, err
	}
	// The private key comes last: if it is there, all is.
	if k.public != "" {
		if err := writeNew(inv.stdout, k.public, public, 0o644); err != nil {
			return exitUnknown, err
		}
	}
	if err := writeNew(inv.stdout, k.out, private, 0o600); err != nil {
		if k.public != "" && k.public != "-" {
			_ = os.Remove(k.public) // this run has made it
		}
		return exitUnknown, err
	}
	file := k.out
	if file == "-" {
		file = "key"
	}
	fmt.Fprint(inv.stderr, strings.ReplaceAll(make.advice, "FILE", strconv.Quote(file)))
	return exitOK, nil
}

// writeNew writes a file that is not there yet.
func writeNew(stdout io.Writer, name string, content []byte, mode os.FileMode) error {
	if name == "-" {
		_, err := stdout.Write(content)
		return err
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already: it is not written over, for without the key in it users would be logged out", name)
	}
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err = errors.Join(err, file.Close()); err != nil {
		_ = os.Remove(name)
	}
	return err
}

// keyMakers are the types of keys, with the line of Go code that each is for.
var keyMakers = map[string]struct {
	pair   bool
	key    func() (private, public []byte, err error)
	advice string
}{
	"secret": {key: randomKey, advice: `The secret signs and verifies tokens. Every instance of the program needs it:

	text, err := os.ReadFile(FILE)
	secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	cfg.Secret = secret

If you plan to replace it some day, begin with Keys and not with Secret. The ID is public:

	cfg.Keys = []echosession.SigningKey{{ID: "2026-11", Algorithm: "HS256", Key: secret}}
`},
	"encryption": {key: randomKey, advice: `The key encrypts sessions in the store. Every instance of the program needs it:

	text, err := os.ReadFile(FILE)
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	cfg.EncryptionKeys = [][]byte{key}

For sessions that are not encrypted yet, set cfg.AllowPlaintext until they have ended.
`},
	"ed25519": {pair: true, key: func() ([]byte, []byte, error) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return pemOf(key, err)
	}, advice: pairAdvice("EdDSA")},
	"p256": {pair: true, key: func() ([]byte, []byte, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		return pemOf(key, err)
	}, advice: pairAdvice("ES256")},
}

func pairAdvice(algorithm string) string {
	return strings.ReplaceAll(`The key signs tokens. Give it an ID of its own, which is public:

	text, err := os.ReadFile(FILE)
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	cfg.Keys = []echosession.SigningKey{{ID: "2026-11", Algorithm: "ALGORITHM", Key: key}}
`, "ALGORITHM", algorithm)
}

func randomKey() (private, public []byte, err error) {
	key := make([]byte, 32)
	rand.Read(key)
	return append([]byte(base64.StdEncoding.EncodeToString(key)), '\n'), nil, nil
}

// pemOf encodes both halves of a key.
func pemOf(key crypto.Signer, err error) (private, public []byte, _ error) {
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	private = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if der, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
		return nil, nil, err
	}
	return private, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// parseKey reads what keygen writes, and other usual forms: PEM, a secret in base64, or a
// secret as it is. algorithm is the usual one for the key.
func parseKey(content []byte) (key any, algorithm string, err error) {
	block, rest := pem.Decode(content)
	if block != nil && block.Type == "EC PARAMETERS" { // older tools write them before the key
		block, _ = pem.Decode(rest)
	}
	if block == nil {
		if !utf8.Valid(content) {
			return content, "HS256", nil
		}
		text := strings.TrimSpace(string(content))
		if strings.HasPrefix(text, "-----BEGIN") {
			return nil, "", errors.New("its PEM form is damaged")
		}
		if secret, err := fromBase64(text); err == nil && len(secret) >= 32 {
			return secret, "HS256", nil
		}
		return []byte(text), "HS256", nil
	}
	if key, err = parseBlock(block); err != nil {
		return nil, "", err
	}
	algorithm, err = algorithmOf(key)
	return key, algorithm, err
}

func parseBlock(block *pem.Block) (key any, err error) {
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var certificate *x509.Certificate
		if certificate, err = x509.ParseCertificate(block.Bytes); err == nil {
			key = certificate.PublicKey
		}
	case "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("the key is encrypted with a password: \"openssl pkey\" writes it without, or use the public key")
	default:
		return nil, errors.New("it is PEM, and neither a key nor a certificate")
	}
	if err != nil {
		return nil, errors.New("its PEM form holds no key that can be read") // the cause may quote bytes
	}
	return key, nil
}

func algorithmOf(key any) (string, error) {
	if private, ok := key.(crypto.Signer); ok {
		key = private.Public()
	}
	switch key := key.(type) {
	case ed25519.PublicKey:
		return "EdDSA", nil
	case *rsa.PublicKey:
		return "RS256", nil
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			return "ES256", nil
		case elliptic.P384():
			return "ES384", nil
		case elliptic.P521():
			return "ES512", nil
		}
	}
	return "", errors.New("tokens are signed with Ed25519, RSA, or ECDSA on P-256, P-384 or P-521, and this is another key")
}
