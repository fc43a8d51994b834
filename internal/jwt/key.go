package jwt

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"reflect"
	"strings"
)

// SigningKey is a key and the one algorithm that it is used with. Its fields are
// those of echosession.SigningKey, which documents them.
type SigningKey struct {
	ID         string
	Algorithm  string
	Key        any
	VerifyOnly bool
	Legacy     bool
}

// maxKeyIDLen keeps every header that is issued within maxHeaderLen, whatever
// JSON escapes the ID needs.
const maxKeyIDLen = 100

const minRSABits = 2048

// algorithm says which key fits: exactly one of secretLen, rsa, curve and ed25519
// is set.
type algorithm struct {
	secretLen int // the least, in bytes: the length of the hash (RFC 7518 §3.2)
	rsa       bool
	pss       crypto.Hash // the hash of RSASSA-PSS
	curve     elliptic.Curve
	ed25519   bool
}

// SecretLen returns the least number of bytes of an algorithm's secret, or 0 when it is
// not an HMAC algorithm.
func SecretLen(algorithm string) int { return algorithms[algorithm].secretLen }

var algorithms = map[string]algorithm{
	"HS256": {secretLen: 32},
	"HS384": {secretLen: 48},
	"HS512": {secretLen: 64},
	"RS256": {rsa: true},
	"RS384": {rsa: true},
	"RS512": {rsa: true},
	"PS256": {rsa: true, pss: crypto.SHA256},
	"PS384": {rsa: true, pss: crypto.SHA384},
	"PS512": {rsa: true, pss: crypto.SHA512},
	"ES256": {curve: elliptic.P256()},
	"ES384": {curve: elliptic.P384()},
	"ES512": {curve: elliptic.P521()},
	"EdDSA": {ed25519: true},
}

const algorithmNames = "HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512 or EdDSA"

func algorithmByName(name string) (algorithm, error) {
	alg, ok := algorithms[name]
	switch {
	case ok:
		return alg, nil
	case name == "":
		return alg, errors.New("the Algorithm is missing: write " + algorithmNames)
	case strings.EqualFold(name, "none"):
		return alg, errors.New(`the Algorithm "none" leaves tokens unsigned: write ` + algorithmNames)
	default:
		return alg, fmt.Errorf("unknown Algorithm %q: write %s", name, algorithmNames)
	}
}

// wants says in an error which keys fit.
func (a algorithm) wants() string {
	switch {
	case a.secretLen > 0:
		return "a []byte secret"
	case a.rsa:
		return "an RSA key"
	case a.ed25519:
		return "an Ed25519 key"
	default:
		return "an ECDSA key on " + a.curve.Params().Name
	}
}

// importKey checks a caller's key and returns copies of its halves: sign, which is nil
// when the key can only verify, and verify.
func (a algorithm) importKey(key any) (sign, verify any, err error) {
	if v := reflect.ValueOf(key); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		return nil, nil, fmt.Errorf("the Key is nil: it must be %s", a.wants())
	}
	if secret, ok := key.([]byte); ok {
		if secret, err = a.importSecret(secret); err != nil {
			return nil, nil, err
		}
		return secret, secret, nil
	}
	if a.secretLen > 0 {
		return nil, nil, fmt.Errorf("a Key of type %T does not fit: it must be %s", key, a.wants())
	}

	signer, public := splitKey(key)
	switch public := public.(type) {
	case *rsa.PublicKey:
		if a.rsa && public != nil {
			verify, err = importRSA(public)
		}
	case *ecdsa.PublicKey:
		if a.curve != nil && public != nil {
			verify, err = a.importECDSA(public)
		}
	case ed25519.PublicKey:
		if a.ed25519 {
			verify, err = importEd25519(public)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	if verify == nil {
		return nil, nil, fmt.Errorf("a Key of type %T does not fit: it must be %s", key, a.wants())
	}
	if signer == nil {
		return nil, verify, nil
	}
	if sign, err = importSigner(signer, verify); err != nil {
		return nil, nil, err
	}
	return sign, verify, nil
}

func (a algorithm) importSecret(secret []byte) ([]byte, error) {
	switch {
	case a.secretLen == 0:
		return nil, fmt.Errorf("a Key of type []byte does not fit: it must be %s", a.wants())
	case len(secret) < a.secretLen:
		return nil, fmt.Errorf("the secret has %d bytes: it must have at least %d, from a random source", len(secret), a.secretLen)
	case bytes.HasPrefix(bytes.TrimSpace(secret), []byte("-----BEGIN ")):
		// The text of a public key is no secret: this is how HMAC tokens get forged.
		return nil, errors.New("the secret is a PEM file: parse it with crypto/x509, pass the key and name its algorithm")
	}
	return bytes.Clone(secret), nil
}

// splitKey returns the signer in key, if there is one, and the public key, both in
// the forms that the standard library makes.
func splitKey(key any) (crypto.Signer, crypto.PublicKey) {
	switch k := key.(type) {
	case rsa.PrivateKey:
		return &k, &k.PublicKey
	case ecdsa.PrivateKey:
		return &k, &k.PublicKey
	case *ed25519.PrivateKey:
		return splitKey(*k)
	case ed25519.PrivateKey:
		if len(k) != ed25519.PrivateKeySize { // Public would panic
			return nil, ed25519.PublicKey(nil)
		}
		return k, k.Public()
	case *ed25519.PublicKey:
		return nil, *k
	case crypto.Signer:
		return k, pointTo(k.Public())
	default:
		return nil, pointTo(key)
	}
}

func pointTo(public crypto.PublicKey) crypto.PublicKey {
	switch k := public.(type) {
	case rsa.PublicKey:
		return &k
	case ecdsa.PublicKey:
		return &k
	default:
		return public
	}
}

func importRSA(k *rsa.PublicKey) (*rsa.PublicKey, error) {
	switch {
	case k.N == nil || k.N.Sign() <= 0 || k.N.Bit(0) == 0:
		return nil, errors.New("the RSA modulus is not a product of odd primes")
	case k.N.BitLen() < minRSABits:
		return nil, fmt.Errorf("the RSA key has %d bits: it must have at least %d", k.N.BitLen(), minRSABits)
	case k.E < 3 || k.E%2 == 0 || k.E > math.MaxInt32:
		return nil, errors.New("the RSA public exponent is not usable: it is 65537 in ordinary keys")
	}
	return &rsa.PublicKey{N: new(big.Int).Set(k.N), E: k.E}, nil
}

func (a algorithm) importECDSA(k *ecdsa.PublicKey) (*ecdsa.PublicKey, error) {
	if k.Curve != a.curve {
		return nil, fmt.Errorf("the ECDSA key is on another curve: it must be %s", a.wants())
	}
	//lint:ignore SA1019 Bytes panics when they are missing
	if k.X == nil || k.Y == nil {
		return nil, errors.New("the ECDSA public key has no point")
	}
	point, err := k.Bytes()
	if err != nil {
		return nil, errors.New("the ECDSA public key is not a point on its curve")
	}
	return ecdsa.ParseUncompressedPublicKey(a.curve, point)
}

func importEd25519(k ed25519.PublicKey) (ed25519.PublicKey, error) {
	if len(k) != ed25519.PublicKeySize {
		return nil, errors.New("the Ed25519 key has the wrong length")
	}
	return bytes.Clone(k), nil
}

// importSigner copies a private key that is in memory. public is its public half,
// already checked.
func importSigner(signer crypto.Signer, public crypto.PublicKey) (any, error) {
	switch k := signer.(type) {
	case *rsa.PrivateKey:
		if err := k.Validate(); err != nil {
			return nil, errors.New("the RSA private key is not consistent")
		}
		private := &rsa.PrivateKey{PublicKey: *public.(*rsa.PublicKey), D: new(big.Int).Set(k.D)}
		for _, p := range k.Primes {
			private.Primes = append(private.Primes, new(big.Int).Set(p))
		}
		private.Precompute()
		return private, nil
	case *ecdsa.PrivateKey:
		//lint:ignore SA1019 Bytes panics when it is missing
		if k.D == nil {
			return nil, errors.New("the ECDSA private key has no scalar")
		}
		scalar, err := k.Bytes()
		if err != nil {
			return nil, errors.New("the ECDSA private key is out of range")
		}
		private, err := ecdsa.ParseRawPrivateKey(k.Curve, scalar)
		if err != nil || !private.PublicKey.Equal(public) {
			return nil, errors.New("the halves of the ECDSA key do not belong together")
		}
		return private, nil
	case ed25519.PrivateKey:
		private := ed25519.NewKeyFromSeed(k.Seed())
		if !private.Equal(k) {
			return nil, errors.New("the halves of the Ed25519 key do not belong together")
		}
		return private, nil
	default:
		return keyHandle{signer, public}, nil
	}
}

// keyHandle is a signer whose key is elsewhere. jwx asks for the public key at
// every signature, which is a round trip with some key services.
type keyHandle struct {
	crypto.Signer
	public crypto.PublicKey
}

func (h keyHandle) Public() crypto.PublicKey { return h.public }

// Sign looks at ECDSA signatures before jwx does, which panics when the numbers are
// too long for the curve: a key service may have been given another key.
func (h keyHandle) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	signature, err := h.Signer.Sign(random, digest, opts)
	if err != nil {
		return nil, err
	}
	if public, ok := h.public.(*ecdsa.PublicKey); ok && !ecdsa.VerifyASN1(public, digest, signature) {
		return nil, errors.New("the signature is that of another key")
	}
	return signature, nil
}

// sameKey reports whether two keys that verify are the same.
func sameKey(a, b any) bool {
	switch a := a.(type) {
	case []byte:
		b, ok := b.([]byte)
		return ok && subtle.ConstantTimeCompare(a, b) == 1
	case interface{ Equal(crypto.PublicKey) bool }:
		return a.Equal(b)
	}
	return false
}
