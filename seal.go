package echosession

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
)

const (
	fingerprintLen = 4
	sealOverhead   = 12 + 16 // nonce and tag
)

// useKeys returns everything that is wrong with the encryption keys.
func (s *serializer) useKeys(keys [][]byte) (reasons []string) {
	for i, key := range keys {
		if len(key) != 32 {
			reasons = append(reasons, fmt.Sprintf("encryption key %d has %d bytes: AES-256 takes exactly 32", i, len(key)))
			continue
		}
		for j := range i {
			if bytes.Equal(key, keys[j]) {
				reasons = append(reasons, fmt.Sprintf("encryption key %d is the same as key %d", i, j))
			}
		}
		seal, err := newSealKey(key, s.keyspace)
		if err != nil {
			reasons = append(reasons, fmt.Sprintf("encryption key %d cannot be used: %v", i, err))
		}
		s.seals = append(s.seals, seal)
	}
	return reasons
}

// A sealKey is a configured key made ready. Each session has a key of its own derived
// from it (HKDF, RFC 5869), so that no number of sessions uses up what AES-GCM allows
// under one key, 2^32 records (NIST SP 800-38D §8.3).
type sealKey struct {
	fingerprint [fingerprintLen]byte
	secret      []byte // extracted from the configured key
	purpose     string // what a session's key is for, up to the ID
	tickets     string // what a ticket's key is for, up to what it is stored under
}

// What a key is derived for. No keyspace makes the second of these out of the first: an
// ID of 16 bytes follows it.
const (
	sealPurpose        = "echosession/1\x00"
	fingerprintPurpose = "echosession/1\x00fingerprint"
)

func newSealKey(configured []byte, keyspace string) (k sealKey, err error) {
	if k.secret, err = hkdf.Extract(sha256.New, configured, nil); err != nil {
		return k, err
	}
	fingerprint, err := hkdf.Expand(sha256.New, k.secret, fingerprintPurpose, fingerprintLen)
	copy(k.fingerprint[:], fingerprint)
	k.purpose = sealPurpose + keyspace + "\x00"
	k.tickets = ticketPurpose + keyspace + "\x00"
	return k, err
}

// aead returns the cipher of one session.
func (k *sealKey) aead(id []byte) (cipher.AEAD, error) { return k.derive(k.purpose + string(id)) }

// derive returns the cipher for one purpose.
func (k *sealKey) derive(purpose string) (cipher.AEAD, error) {
	key, err := hkdf.Expand(sha256.New, k.secret, purpose, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// unseal returns what was sealed, and which key opens it, or nil when none does. Only a key
// with the record's fingerprint is tried.
func (s *serializer) unseal(fingerprint [fingerprintLen]byte, sealed, head []byte) (tail []byte, key int) {
	for i := range s.seals {
		if s.seals[i].fingerprint != fingerprint {
			continue
		}
		seal, err := s.seals[i].aead(head[idStart : idStart+idLen])
		if err != nil {
			continue
		}
		b := s.additional(head)
		tail, err := seal.Open(nil, nil, sealed, b.bytes)
		b.release()
		if err == nil {
			return tail, i
		}
	}
	return nil, 0
}

// additional returns a buffer with what sealing authenticates beside what it hides.
func (s *serializer) additional(head []byte) *buffer {
	b := buffers.Get().(*buffer)
	b.bytes = append(append(b.bytes[:0], head...), s.keyspace...)
	return b
}

// seal returns a copy of buf. If there are keys, its bytes from head on are sealed.
func (s *serializer) seal(buf []byte, head int) ([]byte, error) {
	if len(s.seals) == 0 {
		return bytes.Clone(buf), nil
	}
	tail := buf[head:]
	record := make([]byte, head, len(buf)+5+sealOverhead)
	copy(record, buf)
	record = appendBinaryHeader(record, len(tail)+sealOverhead)
	seal, err := s.seals[0].aead(buf[idStart : idStart+idLen])
	if err != nil {
		return nil, err
	}
	b := s.additional(buf[:head])
	defer b.release()
	return seal.Seal(record, nil, tail, b.bytes), nil
}
