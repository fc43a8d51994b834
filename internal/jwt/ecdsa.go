package jwt

import (
	"bytes"
	"crypto/elliptic"
	"errors"
	"math/big"

	"github.com/lestrrat-go/jwx/v2/jws"
)

// An ECDSA signature is r followed by s (RFC 7518 §3.4). With (r, s), (r, n-s) is a
// signature of the same bytes, and it takes no key to compute it. Only the one with
// the lower s is issued and accepted: a token has no twin.
type ecdsaOrder struct {
	n    *big.Int
	half []byte // the largest s that is low, as long as s is in a signature
}

func orderOf(curve elliptic.Curve) ecdsaOrder {
	n := curve.Params().N
	half := make([]byte, (n.BitLen()+7)/8)
	new(big.Int).Rsh(n, 1).FillBytes(half)
	return ecdsaOrder{n, half}
}

// s returns the second half of a signature, or nil when the signature has another
// length.
func (o ecdsaOrder) s(signature []byte) []byte {
	if len(signature) != 2*len(o.half) {
		return nil
	}
	return signature[len(o.half):]
}

type lowSigner struct {
	jws.Signer
	order ecdsaOrder
}

func (l lowSigner) Sign(payload []byte, key any) ([]byte, error) {
	signature, err := l.Signer.Sign(payload, key)
	if err != nil {
		return nil, err
	}
	s := l.order.s(signature)
	if s == nil {
		return nil, errors.New("the signature has the wrong length")
	}
	if bytes.Compare(s, l.order.half) > 0 {
		new(big.Int).Sub(l.order.n, new(big.Int).SetBytes(s)).FillBytes(s)
	}
	return signature, nil
}

type lowVerifier struct {
	jws.Verifier
	order ecdsaOrder
}

func (l lowVerifier) Verify(payload, signature []byte, key any) error {
	if s := l.order.s(signature); s == nil || bytes.Compare(s, l.order.half) > 0 {
		return errors.New("the signature has the wrong length, or it is the twin of one")
	}
	return l.Verifier.Verify(payload, signature, key)
}
