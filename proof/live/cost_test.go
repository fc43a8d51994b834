package live_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// calls returns how often a server has run some commands.
func calls(t *testing.T, raw *redis.Client, commands ...string) (n int64) {
	t.Helper()
	stats, err := raw.Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(stats) {
		for _, command := range commands {
			rest, ok := strings.CutPrefix(line, "cmdstat_"+command+":calls=")
			if !ok {
				continue
			}
			digits, _, _ := strings.Cut(rest, ",")
			count, err := strconv.ParseInt(digits, 10, 64)
			if err != nil {
				t.Fatalf("INFO commandstats: %q", line)
			}
			n += count
		}
	}
	return n
}
