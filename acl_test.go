package echosession_test

import (
	"context"
	"crypto/rand"
	"regexp"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
	"github.com/echosession/echosession/storetest"
)

// The user that SECURITY.md asks for can do all that the store does.
func TestDocumentedRedisUserSuffices(t *testing.T) {
	server := redistest.Shared(t)
	admin := server.Client(t)
	line := regexp.MustCompile(`(?m)^ACL SETUSER .*$`).FindString(readFile(t, "SECURITY.md"))
	name, keyspace := "test-"+rand.Text(), newKeyspace()
	line = strings.NewReplacer(" sessions ", " "+name+" ", "~sess:*", "~"+keyspace+"*").Replace(line)
	var args []any
	for word := range strings.FieldsSeq(line) {
		args = append(args, word)
	}
	if err := admin.Do(t.Context(), args...).Err(); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	t.Cleanup(func() {
		if err := admin.Do(context.Background(), "ACL", "DELUSER", name).Err(); err != nil {
			t.Error(err)
		}
	})
	storetest.Run(t, func(t *testing.T) echosession.Store {
		client := server.Client(t, func(o *redis.Options) { o.Username, o.Password = name, "a-long-password" })
		return newRedisStore(t, client, keyspace+rand.Text()+":")
	})
}
