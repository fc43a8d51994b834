// Package jwt issues and verifies the tokens of sessions: JSON Web Tokens (RFC
// 7519) in the compact form of a JSON Web Signature (RFC 7515), signed with one of
// the algorithms of RFC 7518 or with Ed25519 (RFC 8037).
//
// A [Keyring] holds the keys and the claims that every token must have. A [Cache]
// remembers the tokens that a keyring has verified.
//
// Tokens are read strictly. A token that two parsers could read in two ways is
// refused, and so is a header that chooses its own key or changes how the token is
// read (RFC 8725 §3).
package jwt

import (
	"crypto"
	"crypto/rsa"
	_ "crypto/sha256" // for pssVerifier
	_ "crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
)

const (
	// maxTokenLen bounds a token, in bytes.
	maxTokenLen = 8 << 10

	// maxHeaderLen bounds a token's first segment: it is read before the signature
	// is checked.
	maxHeaderLen = 1 << 10

	// maxClockSkew bounds Config.Skew.
	maxClockSkew = 5 * time.Minute
)

// base64url refuses padding and trailing bits that are not zero, but skips \r and
// \n: see open.
var base64url = base64.RawURLEncoding.Strict()

// Config configures [New]. The slices are copied.
type Config struct {
	// Keys are the signing keys. The first one signs, all of them verify.
	Keys []SigningKey

	// WithKid says that Keys are echosession.Config.Keys, so that tokens name their
	// key in the header member kid. When it is false, the one key is
	// echosession.Config.Secret, and tokens have no kid.
	WithKid bool

	// Issuer is the claim iss that tokens get and must have. Empty: none.
	Issuer string

	// Audience is the claim aud that tokens get. A token must name one of them.
	// Empty: none.
	Audience []string

	// Skew is how far the clocks of the machines that issue and verify tokens may
	// differ, from 0 to 5 minutes. It is echosession.Config.ClockSkew.
	Skew time.Duration
}

// A Mistake is one thing that is wrong with a [Config]. No key material gets into
// it.
type Mistake struct {
	// Field is where the mistake is, in the words of echosession.Config: "Secret",
	// "Keys[1]", "Issuer", "Audience[0]" or "ClockSkew".
	Field string

	// Reason says what is wrong, and what would be right.
	Reason string
}

var (
	// ErrInvalid is what every error of [Keyring.Verify] matches.
	ErrInvalid = errors.New("echosession: invalid token")

	// ErrReserved says that a caller's claim belongs to the package.
	ErrReserved = errors.New("echosession: reserved claim")

	// ErrTooLarge says that a token would be longer than any that is verified.
	ErrTooLarge = errors.New("echosession: the session data is too large")
)

// A Keyring issues and verifies tokens. It is immutable, and safe for concurrent use.
type Keyring struct {
	keys     []key
	issuer   string
	audience []string
	skew     time.Duration
}

// key is a SigningKey made ready.
type key struct {
	alg      string
	kid      string // "" when headers carry none, and then no kid selects the key
	sign     any    // nil: verifies only
	verify   any
	signer   jws.Signer
	verifier jws.Verifier
	header   string // the first segment of the tokens that are signed with this key
	typ      string // in that header
	legacy   bool

	ticketHeader string // the first segment of the tickets that are signed with it

	// takes says whether a header may have this typ; "" is none.
	takes func(typ string) bool
}

// sessionType is the typ of the tokens of sessions (RFC 8725 §3.11). A token that the
// same key signed for another purpose has another one.
const sessionType = "session+jwt"

// legacyType is the typ of the tokens of the Node predecessor. It says nothing about
// what a token is for.
const legacyType = "JWT"

// isLegacyType is true for no typ that isSessionType takes: a token fits a legacy key or
// another key, and never both.
func isLegacyType(typ string) bool { return typ == "" || typ == legacyType }

// isSessionType compares as RFC 7515 §4.1.9 and RFC 2045 §5.1 say: typ is a media type,
// in upper or lower case, and "application/" may be left out. A parameter would make
// it another type.
func isSessionType(typ string) bool {
	if strings.ContainsFunc(typ, func(r rune) bool { return r >= utf8.RuneSelf }) {
		return false // the lower case of a dotted I is an i
	}
	typ = strings.ToLower(typ)
	return typ == sessionType || typ == "application/"+sessionType
}

// New returns a keyring, or every mistake in cfg and no keyring.
func New(cfg Config) (*Keyring, []Mistake) {
	t := &Keyring{
		issuer:   cfg.Issuer,
		audience: slices.Clone(cfg.Audience),
		skew:     cfg.Skew,
	}
	var mistakes []Mistake
	wrong := func(field, format string, args ...any) {
		mistakes = append(mistakes, Mistake{field, fmt.Sprintf(format, args...)})
	}
	if len(cfg.Keys) == 0 {
		wrong("Secret", `set Secret to 32 random bytes ("openssl rand -base64 32" makes them), or Keys`)
	}
	named := 0 // keys that a kid must tell apart
	for _, sk := range cfg.Keys {
		if !sk.Legacy {
			named++
		}
	}
	for i, sk := range cfg.Keys {
		field := "Secret"
		if cfg.WithKid {
			field = fmt.Sprintf("Keys[%d]", i)
		}
		k, errs := newKey(sk, cfg.WithKid)
		if len(errs) == 0 && i == 0 {
			if err := k.try(sk.VerifyOnly); err != nil {
				errs = append(errs, err)
			}
		}
		for _, err := range errs {
			wrong(field, "%v", err)
		}
		for j, other := range t.keys {
			if sameKey(k.verify, other.verify) && k.alg != other.alg {
				wrong(field, "it is the key of Config.Keys[%d] under another Algorithm: a key has one (RFC 8725 §3.1)", j)
			}
		}
		if cfg.WithKid && sk.ID == "" && !sk.Legacy && named > 1 {
			wrong(field, "the ID is missing: with several keys each needs one")
		}
		if j := slices.IndexFunc(cfg.Keys[:i], func(other SigningKey) bool { return other.ID == sk.ID }); j >= 0 && sk.ID != "" {
			wrong(field, "the ID %q is that of Config.Keys[%d] too", sk.ID, j)
		}
		t.keys = append(t.keys, k)
	}
	if !utf8.ValidString(cfg.Issuer) {
		wrong("Issuer", "it is not valid UTF-8")
	}
	for i, a := range cfg.Audience {
		if a == "" || !utf8.ValidString(a) {
			wrong(fmt.Sprintf("Audience[%d]", i), "it is empty or not valid UTF-8")
		}
	}
	if cfg.Skew < 0 || cfg.Skew > maxClockSkew {
		wrong("ClockSkew", "%v; it is from 0 to %v", cfg.Skew, maxClockSkew)
	}
	if len(mistakes) > 0 {
		return nil, mistakes
	}
	return t, nil
}

// newKey makes a SigningKey ready, or returns everything that is wrong with it.
func newKey(sk SigningKey, withKid bool) (k key, errs []error) {
	k.alg, k.legacy = sk.Algorithm, sk.Legacy
	k.typ, k.takes = sessionType, isSessionType
	if withKid {
		k.kid = sk.ID
		if len(sk.ID) > maxKeyIDLen {
			errs = append(errs, fmt.Errorf("the ID has %d bytes: it must have at most %d", len(sk.ID), maxKeyIDLen))
		}
		if !utf8.ValidString(sk.ID) {
			errs = append(errs, errors.New("the ID is not valid UTF-8"))
		}
	}
	if sk.Legacy {
		k.typ, k.takes, k.kid = legacyType, isLegacyType, ""
		if !sk.VerifyOnly {
			errs = append(errs, errors.New("a Legacy key needs VerifyOnly: true: it never signs"))
		}
	}
	alg, err := algorithmByName(sk.Algorithm)
	if err != nil {
		return k, append(errs, err)
	}
	if sk.Legacy {
		if alg.secretLen == 0 {
			return k, append(errs, fmt.Errorf("the Algorithm of a Legacy key is HS256, HS384 or HS512, and not %s", sk.Algorithm))
		}
		alg.secretLen = 1
	}
	if k.sign, k.verify, err = alg.importKey(sk.Key); err != nil {
		errs = append(errs, err)
	}
	if sk.VerifyOnly {
		k.sign = nil
	}
	if err := k.useAlgorithm(alg); err != nil {
		errs = append(errs, err)
	}
	k.header, k.ticketHeader = k.headerOf(k.typ), k.headerOf(ticketType)
	return k, errs
}

// headerOf returns the first segment of what the key signs.
func (k *key) headerOf(typ string) string {
	header, err := json.Marshal(struct {
		Alg string `json:"alg"`
		Kid string `json:"kid,omitempty"`
		Typ string `json:"typ"`
	}{k.alg, k.kid, typ})
	if err != nil {
		panic("echosession: strings do not encode: " + err.Error())
	}
	return base64url.EncodeToString(header)
}

// useAlgorithm finds what signs and what verifies.
func (k *key) useAlgorithm(alg algorithm) error {
	var unsigned, unverified error
	k.signer, unsigned = jws.NewSigner(jwa.SignatureAlgorithm(k.alg))
	if alg.pss != 0 {
		k.verifier = pssVerifier(alg.pss)
	} else {
		k.verifier, unverified = jws.NewVerifier(jwa.SignatureAlgorithm(k.alg))
	}
	if alg.curve != nil {
		order := orderOf(alg.curve)
		k.signer, k.verifier = lowSigner{k.signer, order}, lowVerifier{k.verifier, order}
	}
	return errors.Join(unsigned, unverified)
}

// try signs something, so that a handle of another key, or one that cannot do the
// algorithm, is found before the first login.
func (k *key) try(verifyOnly bool) error {
	if verifyOnly {
		return errors.New("the first key signs, and this one has VerifyOnly: put the key that signs before it")
	}
	if k.sign == nil {
		return errors.New("the first key signs: it must be a secret or a private key, not a public key")
	}
	message := []byte(k.header)
	signature, err := k.signer.Sign(message, k.sign)
	if err != nil {
		return fmt.Errorf("the key does not sign: %w", err)
	}
	if k.verifier.Verify(message, signature, k.verify) != nil {
		return errors.New("the key signs, but its public half does not verify it")
	}
	return nil
}

// pssVerifier takes the place of jwx's, which accepts a salt of any length. The salt
// must be as long as the hash (RFC 7518 §3.5).
type pssVerifier crypto.Hash

func (p pssVerifier) Verify(signed, signature []byte, public any) error {
	h := crypto.Hash(p).New()
	h.Write(signed)
	options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
	return rsa.VerifyPSS(public.(*rsa.PublicKey), crypto.Hash(p), h.Sum(nil), signature, options)
}

// Verify checks everything about a token but the clock: its form, its signature and
// its claims, in this order. Errors match [ErrInvalid] and hold no byte of the
// token.
func (t *Keyring) Verify(token string) (*Token, error) {
	payload, k, err := t.open(token, func(k *key, typ string) bool { return k.takes(typ) })
	if err != nil {
		return nil, err
	}
	v, err := t.parsePayload(payload, k.legacy)
	if err != nil {
		return nil, err
	}
	v.OldKey = k != &t.keys[0]
	return v, nil
}

// open returns the payload of a JWS in compact form (RFC 7515 §7.1), and the key that
// verifies its signature. Only keys that fit the typ are tried. jwx's own parsers accept more
// than this form, so jwx sees nothing but the signature and what was signed.
func (t *Keyring) open(token string, fit func(k *key, typ string) bool) (payload string, by *key, err error) {
	if len(token) > maxTokenLen {
		return "", nil, invalidToken(malformed, "too long")
	}
	header, rest, _ := strings.Cut(token, ".")
	body, signature, _ := strings.Cut(rest, ".")
	if header == "" || body == "" || signature == "" {
		return "", nil, invalidToken(malformed, "not three segments")
	}
	if strings.IndexByte(token, '\r') >= 0 || strings.IndexByte(token, '\n') >= 0 {
		return "", nil, invalidToken(malformed, "not base64url")
	}

	h, err := t.readHeader(header)
	if err != nil {
		return "", nil, err
	}

	// One buffer for the token and behind it the signature's bytes.
	buf := make([]byte, len(token)+base64url.DecodedLen(len(signature)))
	copy(buf, token)
	signed, sig := buf[:len(header)+1+len(body)], buf[len(token):]
	if _, err := base64url.Decode(sig, buf[len(signed)+1:len(token)]); err != nil {
		return "", nil, invalidToken(malformed, "signature: not base64url")
	}
	var scratch [1024]byte
	decoded, err := base64url.AppendDecode(scratch[:0], signed[len(header)+1:])
	if err != nil {
		return "", nil, invalidToken(malformed, "payload: not base64url")
	}

	fits := false
	for i := range t.keys {
		k := &t.keys[i]
		if k.alg != h.alg || h.kid != "" && k.kid != h.kid || !fit(k, h.typ) {
			continue
		}
		fits = true
		if k.verifier.Verify(signed, sig, k.verify) == nil {
			return string(decoded), k, nil
		}
	}
	if !fits {
		return "", nil, t.noKey(h)
	}
	return "", nil, invalidToken(badSignature, "the signature does not verify")
}

// A joseHeader is what chooses the key. A member that is absent is "".
type joseHeader struct{ alg, kid, typ string }

// readHeader reads a token's first segment. Without a kid, every key of the algorithm is
// tried: a token costs at most as many signature checks as there are keys.
func (t *Keyring) readHeader(segment string) (h joseHeader, err error) {
	for i := range t.keys {
		switch k := &t.keys[i]; segment {
		case k.header:
			return joseHeader{k.alg, k.kid, k.typ}, nil
		case k.ticketHeader:
			return joseHeader{k.alg, k.kid, ticketType}, nil
		}
	}
	if len(segment) > maxHeaderLen {
		return joseHeader{}, invalidToken(malformed, "header: too long")
	}
	header, err := base64url.DecodeString(segment)
	if err != nil {
		return joseHeader{}, invalidToken(malformed, "header: not base64url")
	}
	err = scanJSONObject(string(header), func(name, value string) error {
		switch name {
		case "alg":
			h.alg, _ = jsonString(value)
		case "kid":
			if h.kid, _ = jsonString(value); h.kid == "" {
				return errors.New("kid names no key")
			}
		case "typ":
			if h.typ, _ = jsonString(value); h.typ == "" {
				return errors.New("typ names no type")
			}
		case "crit", "b64", "zip", "enc":
			return errors.New("a member that changes how the token is read")
		case "jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256":
			// The key is chosen by kid from those configured, in no other way.
			return errors.New("a member that brings or names a key of its own")
		}
		return nil
	})
	if err != nil {
		return joseHeader{}, invalidToken(malformed, "header: "+err.Error())
	}
	return h, nil
}

// CheckTime compares a token with the clock. It costs a few nanoseconds: call it before
// every use. Errors match [ErrInvalid].
func (t *Keyring) CheckTime(v *Token, now time.Time) error {
	early := now.Add(-t.skew).UnixNano()
	late := now.Add(t.skew).UnixNano()
	switch {
	case early >= v.exp:
		return invalidToken(expired, "expired")
	case late < v.nbf:
		return invalidToken(notYetValid, "not yet valid")
	case late < v.iat:
		return invalidToken(notYetValid, "issued in the future")
	}
	return nil
}

// Params are what one token says.
type Params struct {
	ID      string        // jti, a canonical UUIDv4
	Now     time.Time     // iat
	Subject string        // sub. Empty: none
	Idle    time.Duration // as in Token
	Exp     time.Time     // exp. Zero: none
	Actor   string        // the sub of act. Empty: none
	Claims  Claims        // the caller's, from SplitClaims
}

// Issue signs a token with the first key. It also returns what Verify would return
// for the token.
func (t *Keyring) Issue(p Params) (token string, v *Token, err error) {
	claims := make(Claims, len(p.Claims)+8)
	maps.Copy(claims, p.Claims)
	claims["jti"] = p.ID
	claims["iat"] = p.Now.Unix()
	if p.Subject != "" {
		if !utf8.ValidString(p.Subject) {
			return "", nil, errors.New("echosession: the subject is not valid UTF-8")
		}
		claims["sub"] = p.Subject
	}
	if p.Actor != "" {
		claims[actClaim] = map[string]string{"sub": p.Actor}
	}
	if p.Idle != 0 {
		if p.Idle != NoIdle && (p.Idle < time.Millisecond || p.Idle > maxIdle) {
			return "", nil, fmt.Errorf("echosession: an idle timeout of %v: it must be from 1ms to %v", p.Idle, maxIdle)
		}
		claims[idleClaim] = max(0, p.Idle.Milliseconds())
	}
	if !p.Exp.IsZero() {
		if err := checkExp(p.Exp); err != nil {
			return "", nil, fmt.Errorf("echosession: the time of expiry: %w", err)
		}
		claims["exp"] = numericDate(p.Exp)
	}
	t.address(claims)
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", nil, fmt.Errorf("echosession: the claims cannot be encoded: %w", err)
	}
	header := t.keys[0].header
	if n := len(header) + 1 + base64url.EncodedLen(len(payload)); n > maxTokenLen {
		return "", nil, errTokenLen(n)
	}
	// What cannot be verified is not issued.
	if v, err = t.parsePayload(string(payload), false); err != nil {
		return "", nil, fmt.Errorf("echosession: the claims make no token: %w", err)
	}
	if token, err = t.sign(header, payload); err != nil {
		return "", nil, err
	}
	return token, v, nil
}

// address adds the claims that say who issues a token, and for whom.
func (t *Keyring) address(claims Claims) {
	if t.issuer != "" {
		claims["iss"] = t.issuer
	}
	switch len(t.audience) {
	case 0:
	case 1:
		claims["aud"] = t.audience[0]
	default:
		claims["aud"] = t.audience
	}
}

// sign makes a JWS of the first key. header is its first segment.
func (t *Keyring) sign(header string, payload []byte) (string, error) {
	k := &t.keys[0]
	signed := make([]byte, 0, maxTokenLen/8)
	signed = append(signed, header...)
	signed = append(signed, '.')
	signed = base64url.AppendEncode(signed, payload)
	signature, err := k.signer.Sign(signed, k.sign)
	if err != nil {
		return "", fmt.Errorf("echosession: signing the token: %w", err)
	}
	signed = append(signed, '.')
	signed = base64url.AppendEncode(signed, signature)
	if len(signed) > maxTokenLen {
		return "", errTokenLen(len(signed))
	}
	return string(signed), nil
}

// errTokenLen says that a token would have n bytes, or more.
func errTokenLen(n int) error {
	return fmt.Errorf("%w: the token would have %d bytes or more: with fewer or shorter claims it must have at most %d", ErrTooLarge, n, maxTokenLen)
}
