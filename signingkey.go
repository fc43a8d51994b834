package echosession

// SigningKey is a key for the signatures of tokens. The zero value is not valid.
// [New] copies the keys that it is handed; changing one afterwards has no effect.
type SigningKey struct {
	// ID names the key in the header of the tokens that it signs (kid, RFC 7515
	// §4.1.4) and is compared byte for byte. It is public, and has at most 100 bytes.
	// With several keys each needs an ID of its own, except those with Legacy.
	ID string

	// Algorithm is the one algorithm (RFC 7518 §3.1, RFC 8037 §3.1) of this key. It is
	// required. A token whose header names another algorithm is refused.
	//
	//	HS256  HS384  HS512    Key is a secret of at least 32, 48, 64 bytes
	//	RS256  RS384  RS512    RSA of at least 2048 bits
	//	PS256  PS384  PS512    RSA of at least 2048 bits
	//	ES256  ES384  ES512    ECDSA on P-256, P-384, P-521
	//	EdDSA                  Ed25519
	Algorithm string

	// Key is one of
	//
	//   - []byte: an HMAC secret, which signs and verifies. Take it from a random
	//     source; a password is not one.
	//   - [crypto.Signer]: signs and verifies. An [*rsa.PrivateKey], an
	//     [*ecdsa.PrivateKey], an [ed25519.PrivateKey], or the handle of a key
	//     that lives in hardware or a key service.
	//   - [crypto.PublicKey]: verifies only. An [*rsa.PublicKey], an
	//     [*ecdsa.PublicKey] or an [ed25519.PublicKey].
	//
	// The key material is used with one algorithm only (RFC 8725 §3.1). Of the tokens
	// that it has signed, only those whose header says typ session+jwt are sessions'
	// (RFC 8725 §3.11): in upper or lower case, with or without "application/" before
	// it. Of the two ECDSA signatures that can be made of one, only that with the lower
	// s is made and accepted.
	Key any

	// VerifyOnly makes a key that could sign verify only. The first of [Config.Keys]
	// signs, so it cannot have VerifyOnly. Default false.
	VerifyOnly bool

	// Legacy makes the key verify the tokens of the Node predecessor (npm
	// jwt-redis-session), and no others: those with the typ JWT or without typ, and
	// without kid. It needs VerifyOnly and one of HS256, HS384, HS512. It needs no ID,
	// and no kid selects it. With it a secret of any length is accepted, except an empty
	// one. It goes with [Config.Import]. Default false.
	//
	// It gives up two things, so take the key out as soon as no client has an old token:
	// docs/migrate.md says when that is.
	//
	//   - A secret that is short or was thought up by a person can be guessed from one
	//     token, without asking the service. Whoever has guessed it can put other claims
	//     and another subject into the token of a session of their own. Rotate carries
	//     these claims on.
	//   - The typ JWT does not say what a token is for (RFC 8725 §3.12). Any token that
	//     was signed with the same secret is a session's if its jti is a session's ID.
	Legacy bool
}

// Claims are the members of a token's payload by name (RFC 7519 §4). Numbers are
// float64, as encoding/json decodes them into an any. Anyone who holds the token
// can read them: they are signed, not encrypted.
type Claims map[string]any
