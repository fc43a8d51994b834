package main

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"

	"github.com/google/uuid"
)

// A keyKind is what the name of a key says.
type keyKind int

const (
	otherKey   keyKind = iota
	plainKey           // a session
	indexedKey         // a session with a subject
	indexKey           // the sessions of a subject
	ticketKey
	scratchKey // of doctor
	keyKinds
)

// classify tells the library's keys apart by what stands behind the keyspace. Of a session it
// returns the key, and of an index the subject.
func classify(rest string) (kind keyKind, key sessionKey) {
	if inside, braced := strings.CutPrefix(rest, "{"); braced {
		hash, behind, closed := strings.Cut(inside, "}")
		// Strict: two names must not be read as the same key.
		sum, err := base64.RawURLEncoding.Strict().DecodeString(hash)
		if !closed || err != nil || len(sum) != len(key.subject) {
			return otherKey, key
		}
		key.subject, key.indexed = subjectHash(sum), true
		if behind == "" {
			return indexKey, key
		}
		if id, ok := strings.CutPrefix(behind, ":"); ok && isID(id) {
			key.id = uuid.MustParse(id)
			return indexedKey, key
		}
		return otherKey, sessionKey{}
	}
	switch {
	case isID(rest):
		key.id = uuid.MustParse(rest)
		return plainKey, key
	case strings.HasPrefix(rest, "ticket:"):
		return ticketKey, key
	case strings.HasPrefix(rest, scratchPrefix):
		return scratchKey, key
	}
	return otherKey, key
}

// parseSessionKey reads a key that begins with the keyspace. Other keys than sessions are
// there too: indexes, tickets, and those of a keyspace whose name begins with this one's.
func parseSessionKey(key, keyspace string) (k sessionKey, ok bool) {
	rest, ok := strings.CutPrefix(key, keyspace)
	if !ok {
		return k, false
	}
	kind, k := classify(rest)
	return k, kind == plainKey || kind == indexedKey
}

// isID reports whether text has the form of a session ID.
func isID(text string) bool {
	if len(text) != 36 {
		return false
	}
	for i, c := range []byte(text) {
		isDash := i == 8 || i == 13 || i == 18 || i == 23
		if isDash != (c == '-') || !isDash && !strings.ContainsRune("0123456789abcdef", rune(c)) {
			return false
		}
	}
	return true
}

// A sessionKey is the key of a session without the keyspace. It needs less memory than the
// text.
type sessionKey struct {
	id      [16]byte
	subject subjectHash // of the index that has the session
	indexed bool        // there is such an index
}

// A subjectHash is the first half of the SHA-256 of a subject.
type subjectHash [16]byte

func hashOf(subject string) subjectHash {
	sum := sha256.Sum256([]byte(subject))
	return subjectHash(sum[:16])
}

func (h subjectHash) String() string { return base64.RawURLEncoding.EncodeToString(h[:]) }

// index returns the key of the set of the subject's sessions. The sessions' own keys begin
// with it.
func (h subjectHash) index(keyspace string) string { return keyspace + "{" + h.String() + "}" }

func (k sessionKey) ID() string { return uuid.UUID(k.id).String() }

// index returns the key of its subject's index in a keyspace, or "" for a session in none.
func (k sessionKey) index(keyspace string) string {
	if !k.indexed {
		return ""
	}
	return k.subject.index(keyspace)
}

// in returns the key in a keyspace.
func (k sessionKey) in(keyspace string) string {
	if k.indexed {
		return k.index(keyspace) + ":" + k.ID()
	}
	return keyspace + k.ID()
}
