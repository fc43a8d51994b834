package jwt

import "errors"

// The words of [Reason].
const (
	malformed    = "malformed"     // not a token as this package reads them: no signature was checked
	otherType    = "type"          // the keys that fit are for another typ
	otherAlg     = "algorithm"     // the key, or every key, has another alg
	unknownKey   = "unknown_key"   // its kid names none of the keys
	badSignature = "signature"     // the signature does not verify
	badClaims    = "claims"        // well signed, and what it says is not acceptable
	otherIssuer  = "issuer"        // iss is missing or another
	otherTarget  = "audience"      // aud is missing or names others
	expired      = "expired"       // exp is over
	notYetValid  = "not_yet_valid" // nbf or iat is in the future
	badTicket    = "ticket"        // whatever is wrong with a ticket
)

// Reason says in a word why a token was refused, from an error of [Keyring.Verify] or
// [Keyring.CheckTime]: "malformed", "type", "algorithm", "unknown_key", "signature",
// "claims", "issuer", "audience", "expired" or "not_yet_valid". For the error of a ticket it
// is "ticket". For any other error it is "".
func Reason(err error) string {
	if refused, ok := errors.AsType[*invalidError](err); ok {
		return refused.reason
	}
	return ""
}

// An invalidError is [ErrInvalid] and why.
type invalidError struct {
	reason string // one of the words of Reason
	text   string
}

func (e *invalidError) Error() string { return ErrInvalid.Error() + ": " + e.text }
func (e *invalidError) Unwrap() error { return ErrInvalid }

func invalidToken(reason, text string) error { return &invalidError{reason, text} }

// invalidTicket gives an error about a ticket the word for that.
func invalidTicket(err error) error {
	if refused, ok := errors.AsType[*invalidError](err); ok {
		return invalidToken(badTicket, refused.text)
	}
	return err
}

// noKey says why none of the keys fits a header.
func (t *Keyring) noKey(h joseHeader) error {
	reason := unknownKey
	for i := range t.keys {
		switch k := &t.keys[i]; {
		case h.kid != "" && k.kid != h.kid:
		case k.alg == h.alg:
			reason = otherType // or the key would fit
		case reason == unknownKey:
			reason = otherAlg
		}
	}
	return invalidToken(reason, "no key for its alg, kid and typ")
}
