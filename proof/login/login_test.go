// Package login counts updates that a server has answered with 200 and that are gone
// afterwards, while users log in and confirm their passwords.
package login_test

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession/internal/redistest"
)

var duration = flag.Duration("duration", 400*time.Millisecond, "how long each way is tried on each store, with and without faults")

func TestMain(m *testing.M) {
	redis.SetLogger(silence{}) // of the faults
	redistest.Main(m)
}

// A way is how a login takes the data of the session along.
type way string

const (
	byRenew  way = "Renew"
	byCreate way = "Data, Create" // u := sess.Data(); sess.Create(ctx, u)
)

// patience is how much longer a way may take to log somebody in, and the old way to lose
// its first update.
const patience = 20 * time.Second

// TestLogin lets browsers update their sessions while they log in. With Renew no update
// that was answered with 200 is lost. The control is the way without it: it loses some,
// so the test can fail.
func TestLogin(t *testing.T) {
	var all table
	stores := stores(t)
	t.Run("stores", func(t *testing.T) {
		for _, s := range stores {
			for _, faulty := range []bool{false, true} {
				if faulty && len(s.servers) == 0 {
					continue // nothing can be lost
				}
				for _, w := range []way{byRenew, byCreate} {
					t.Run(fmt.Sprintf("%s, %s, faults=%v", s.name, w, faulty), func(t *testing.T) {
						t.Parallel()
						got := try(t, s, faulty, w)
						all.add(s.name, faulty, w, got)
						if w == byRenew && got.gone > 0 {
							t.Errorf("%d updates of %d are gone, such as %s", got.gone, got.answered, got.example)
						}
						if w == byCreate && got.gone == 0 {
							t.Errorf("none of %d updates is gone: this test cannot fail", got.answered)
						}
						if got.answered == 0 || got.logins == 0 {
							t.Errorf("nothing happened: %+v", got)
						}
					})
				}
			}
		}
	})
	t.Logf("\n%s", all.text(stores))
}

// try lets one browser after the other do its work.
func try(t *testing.T, s store, faulty bool, w way) figures {
	var sum figures
	shops := [2]*shop{newShop(t, s, faulty, w, true), newShop(t, s, faulty, w, false)}
	for began, n := time.Now(), 0; ; n++ {
		lasted := time.Since(began)
		done := lasted > *duration && sum.logins > 0 && (w == byRenew || sum.gone > 0)
		if done || lasted > *duration+patience || t.Context().Err() != nil {
			return sum
		}
		sum.add(shops[n%2].visit(t, n))
	}
}

// figures count what happened.
type figures struct {
	logins   int // answered with 200, of guests and of users
	answered int // updates that were answered with 200
	gone     int // of these, and not in the session afterwards
	example  string

	// unknown are updates of sessions that were lost with the answer to their login: it
	// was answered with 503.
	unknown int
}

func (f *figures) add(other figures) {
	f.logins += other.logins
	f.answered += other.answered
	f.gone += other.gone
	f.unknown += other.unknown
	if f.example == "" {
		f.example = other.example
	}
}

// table collects the figures. It is safe for concurrent use.
type table struct {
	mu   sync.Mutex
	rows []string
	sums map[way]figures
}

func (tab *table) add(name string, faulty bool, w way, f figures) {
	wire := "healthy"
	if faulty {
		wire = "lost replies"
	}
	tab.mu.Lock()
	defer tab.mu.Unlock()
	tab.rows = append(tab.rows, row(name, wire, w, f))
	if tab.sums == nil {
		tab.sums = make(map[way]figures)
	}
	sum := tab.sums[w]
	sum.add(f)
	tab.sums[w] = sum
}

func row(name, wire string, w way, f figures) string {
	return fmt.Sprintf("%s\t%s\t%s\t%d\t%d\t%d\t%d\t", name, wire, w, f.logins, f.answered, f.gone, f.unknown)
}

func (tab *table) text(stores []store) string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(w, "store\twire\tway\tlogins\tanswered 200\tgone\tlost with the login's answer\t")
	for _, s := range stores {
		for _, row := range slices.Sorted(slices.Values(tab.rows)) {
			if strings.HasPrefix(row, s.name+"\t") {
				_, _ = fmt.Fprintln(w, row)
			}
		}
	}
	for _, way := range []way{byCreate, byRenew} {
		_, _ = fmt.Fprintln(w, row("all", "", way, tab.sums[way]))
	}
	_ = w.Flush()
	return text.String()
}
