package echosession_test

import (
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/echosession/echosession"
)

// hashTag is the part of a key that decides its Cluster slot.
func hashTag(key string) string {
	if _, rest, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			return tag
		}
	}
	return key
}

// FuzzKeyNames holds the names of keys to this: sessions that differ have keys
// that differ, none of them is an index, those of one subject and its index share
// a slot, and no byte of a subject gets into a key.
func FuzzKeyNames(f *testing.F) {
	fake := newFakeRedis(f)
	id := []byte("0123456789abcdef")
	for _, subjects := range [][2]string{
		{"", "a"}, {"a", "a:b"}, {"{a}", "{a}b"}, {"*", "?"}, {"\x00", ""}, {"ada", "ada"},
		{"\xff", "\xfe"}, {strings.Repeat("x", 1024), strings.Repeat("x", 1023)},
	} {
		f.Add("sess:", subjects[0], subjects[1], id, id)
		f.Add("{app}:", subjects[0], subjects[1], id, []byte("fedcba9876543210"))
		f.Add("{}:", subjects[0], subjects[1], id, id)
		f.Add("a}b{", subjects[0], subjects[1], id, id)
	}
	f.Fuzz(func(t *testing.T, keyspace, subjectA, subjectB string, idA, idB []byte) {
		uuidA, errA := uuid.FromBytes(idA)
		uuidB, errB := uuid.FromBytes(idB)
		if errA != nil || errB != nil {
			t.Skip()
		}
		if _, err := echosession.NewRedisStore(fake, echosession.RedisOptions{Keyspace: keyspace}); err != nil {
			if !strings.Contains(keyspace, "{}") {
				t.Errorf("keyspace %q: %v", keyspace, err)
			}
			return
		}
		a := echosession.Ref{ID: uuidA.String(), Subject: subjectA}
		b := echosession.Ref{ID: uuidB.String(), Subject: subjectB}
		keyA, indexA := echosession.RedisKeys(keyspace, a)
		keyB, indexB := echosession.RedisKeys(keyspace, b)
		if (keyA == keyB) != (a == b) {
			t.Errorf("%+v has key %q, %+v has %q", a, keyA, b, keyB)
		}
		if keyA == indexB || keyB == indexA {
			t.Errorf("%q and %q: a session's key is an index", keyA, keyB)
		}
		for _, key := range []string{keyA, keyB} {
			if !strings.HasPrefix(key, keyspace) || !echosession.IsSessionKey(keyspace, key) {
				t.Errorf("%q is not taken for a session's key of %q", key, keyspace)
			}
		}
		for _, index := range []string{indexA, indexB} {
			if echosession.IsSessionKey(keyspace, index) {
				t.Errorf("the index %q is taken for a session's key", index)
			}
		}
		if subjectA == "" || subjectB == "" {
			return
		}
		if (indexA == indexB) != (subjectA == subjectB) {
			t.Errorf("%q has index %q, %q has %q", subjectA, indexA, subjectB, indexB)
		}
		if hashTag(keyA) != hashTag(indexA) {
			t.Errorf("%q and its index %q are in different slots", keyA, indexA)
		}
		if rest := keyA[len(keyspace):]; len(rest) != len("{")+22+len("}:")+36 {
			t.Errorf("%q: the length of a key tells of its subject", keyA)
		}
	})
}
