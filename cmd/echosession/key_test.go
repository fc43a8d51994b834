package main

import (
	"maps"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/echosession/echosession"
)

func TestClassify(t *testing.T) {
	id := uuid.NewString()
	hash := hashOf("ada").String()
	for _, tt := range []struct {
		rest string
		want keyKind
	}{
		{id, plainKey},
		{"{" + hash + "}:" + id, indexedKey},
		{"{" + hash + "}", indexKey},
		{"ticket:" + strings.Repeat("b", 43), ticketKey},
		{"doctor:ABC", scratchKey},
		{"admin:" + id, otherKey},
		{"admin:{" + hash + "}", otherKey},
		{"{" + hash + "}x", otherKey},
		{"{" + hash + "}:", otherKey},
		{"{" + hash[1:] + "}:" + id, otherKey},
		{"{" + strings.Repeat("a", 22) + "}", otherKey}, // of no 16 bytes: the last character has bits too many
		{"{" + strings.Repeat("!", 22) + "}:" + id, otherKey},
		{strings.ToUpper(id), otherKey},
		{id + "x", otherKey},
		{"", otherKey},
		{"{", otherKey},
	} {
		if got, _ := classify(tt.rest); got != tt.want {
			t.Errorf("%q is of kind %d, not %d", tt.rest, got, tt.want)
		}
	}
}

func TestSessionKeys(t *testing.T) {
	t.Parallel()
	const id = "0b6f3a8e-6d0c-4c1e-9a53-0d7c6a1b2c3d"
	hash := hashOf("ada").String()
	for _, tt := range []struct {
		key string
		ok  bool
	}{
		{"s:" + id, true}, {"s:{" + hash + "}:" + id, true},
		{id, false}, {"t:" + id, false}, {"s:", false}, {"s:" + strings.ToUpper(id), false}, {"s:" + id + "0", false}, {"s:urn:uuid:" + id, false},
		{"s:{" + hash + "}", false}, {"s:{" + hash + "}" + id, false}, {"s:{" + hash[1:] + "}:" + id, false}, {"s:{}:" + id, false},
		{"s:ticket:" + hash + hash[:21], false}, {"s:admin:" + id, false}, {"s:{" + hash + "}:admin:" + id, false},
	} {
		k, ok := parseSessionKey(tt.key, "s:")
		if ok != tt.ok || ok && (k.in("s:") != tt.key || k.ID() != id || k.indexed != strings.Contains(tt.key, "{")) {
			t.Errorf("%s: %v, %+v", tt.key, ok, k)
		}
	}
}

// The library writes these keys itself, and each is read as what it is.
func TestClassifyKnowsTheKeysOfTheLibrary(t *testing.T) {
	t.Parallel()
	for _, indexed := range []bool{false, true} {
		p := onShared(t, echosession.Config{SubjectIndex: indexed, TokenLookup: "bearer,ticket:ticket"})
		subjects := map[string]string{p.login(t, "").ID(): ""} // by session
		indexes := make(map[string]bool)
		for _, subject := range []string{"ada", "}:", "{ada}", "admin:*", "\x00\n", "Zoë", strings.Repeat("s", 1024)} {
			sess := p.login(t, subject)
			if _, err := sess.Ticket(t.Context(), "/"); err != nil {
				t.Fatal(err)
			}
			subjects[sess.ID()] = subject
			if indexed {
				indexes[hashOf(subject).index(p.keyspace)] = true
			}
		}
		keys, err := p.client.Keys(t.Context(), globEscape(p.keyspace)+"*").Result()
		must(t, err)
		count := make(map[keyKind]int)
		for _, name := range keys {
			kind, k := classify(strings.TrimPrefix(name, p.keyspace))
			count[kind]++
			switch kind {
			case plainKey, indexedKey:
				subject, known := subjects[k.ID()]
				if !known || k.in(p.keyspace) != name || k.indexed != (indexed && subject != "") || k.indexed && k.subject != hashOf(subject) {
					t.Errorf("%q is read as %+v, of %q", name, k, subject)
				}
				if again, ok := parseSessionKey(name, p.keyspace); !ok || again != k {
					t.Errorf("%q is read as %+v", name, again)
				}
			case indexKey:
				if !indexes[name] || k.index(p.keyspace) != name {
					t.Errorf("%q is read as %+v", name, k)
				}
			}
		}
		want := map[keyKind]int{plainKey: len(subjects), ticketKey: len(subjects) - 1}
		if indexed {
			want = map[keyKind]int{plainKey: 1, indexedKey: len(subjects) - 1, indexKey: len(subjects) - 1, ticketKey: len(subjects) - 1}
		}
		if !maps.Equal(count, want) {
			t.Errorf("the kinds of %q are %v, not %v", keys, count, want)
		}
	}
}
