package echosession_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// A curve is what an input costs at three sizes.
type curve struct {
	input string
	unit  string
	sizes [3]int
	// cost makes an input of a size ready, and returns what it costs.
	cost func(t *testing.T, size int) int
	// limit is the most that an input of a size may cost.
	limit func(size int) int
}

// TestAttackCurves measures what hostile inputs cost, in bytes, allocations, steps or
// commands. No cost grows faster than its input, and most costs have a bound.
func TestAttackCurves(t *testing.T) {
	for _, c := range []curve{
		{"claims: members of one object", "bytes allocated", [3]int{8_000, 16_000, 32_000}, costOfClaims,
			func(size int) int { return 16<<10 + 64*size }},
		{"an update: levels over 48 KiB, one unknown field", "bytes allocated", [3]int{7, 14, 28}, costOfCarry,
			func(int) int { return 10 * 48 << 10 }},
		{"a stored list of nils: elements of 256 bytes", "bytes allocated", [3]int{16 << 10, 128 << 10, 1 << 20}, costOfNils,
			func(size int) int { return 12<<20 + 8*size }},
		{"RevokeSubject: sessions in a circle of rotations", "commands of Redis", [3]int{1, 2, 4}, costOfCircle,
			func(int) int { return 50 }},
		{"List: sessions of one subject", "reads in one script", [3]int{600, 1200, 2400}, costOfList,
			func(int) int { return 1000 }},
		{"a JSON body: KiB of members", "allocations", [3]int{64, 256, 1023}, costOfBody,
			func(int) int { return 300 }},
		{"an update inside an update: writes inside", "runs of the function", [3]int{1, 2, 4}, costOfNesting,
			func(int) int { return 8 }},
	} {
		t.Run(strings.SplitN(c.input, ":", 2)[0], func(t *testing.T) {
			for _, size := range c.sizes {
				cost, limit := c.cost(t, size), c.limit(size)
				if t.Logf("| %s | %d | %d %s | %d |", c.input, size, cost, c.unit, limit); cost <= 0 || cost > limit {
					t.Errorf("%d %s for %d; at most %d", cost, c.unit, size, limit)
				}
			}
		})
	}
}

// allocated returns what run allocates. No other test runs at the same time.
func allocated(run func()) (size, number int) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	run()
	runtime.ReadMemStats(&after)
	return int(after.TotalAlloc - before.TotalAlloc), int(after.Mallocs - before.Mallocs)
}

func costOfClaims(t *testing.T, size int) int {
	m := newManager[User](t, echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret})
	var object bytes.Buffer
	for i := range size {
		fmt.Fprintf(&object, `,"%d":0`, i)
	}
	object.Bytes()[0] = '{'
	object.WriteByte('}')
	claims := echosession.WithClaims(echosession.Claims{"a": json.RawMessage(object.Bytes())})
	cost, _ := allocated(func() {
		if _, err := m.Create(t.Context(), User{}, claims); err == nil {
			t.Error("a token of more than 8 KiB is issued")
		}
	})
	return cost
}

// plant is what an older release knows, and flower what a newer release wrote.
type (
	plant struct {
		Name string
		Kids []plant
	}
	flower struct {
		Name, Color string
		Kids        []flower
	}
)

func costOfCarry(t *testing.T, levels int) int {
	cfg := echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret}
	data := flower{Name: strings.Repeat("x", 48<<10), Color: "red"}
	for range levels - 1 {
		data = flower{Kids: []flower{data}}
	}
	written, err := newManager[flower](t, cfg).Create(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	sess, err := newManager[plant](t, cfg).Open(t.Context(), written.Token())
	if err != nil {
		t.Fatal(err)
	}
	cost, _ := allocated(func() {
		if err := sess.Update(t.Context(), func(p *plant) error { p.Name = "new"; return nil }); err != nil {
			t.Error(err)
		}
	})
	if err := written.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	read := written.Data()
	for range levels - 1 {
		read = read.Kids[0]
	}
	if read.Color != "red" {
		t.Errorf("the unknown field is %q", read.Color)
	}
	return cost
}

func costOfNils(t *testing.T, size int) int {
	type large [32]int64
	store := echosession.NewMemoryStore()
	m := newManager[[]large](t, echosession.Config{Store: store, Secret: testSecret})
	sess, err := m.Create(t.Context(), []large{})
	if err != nil {
		t.Fatal(err)
	}
	record, err := store.Load(t.Context(), echosession.Ref{ID: sess.ID()}, 0)
	if err != nil || record[len(record)-1] != 0x90 {
		t.Fatalf("% x, %v", record, err)
	}
	record = binary.BigEndian.AppendUint32(append(record[:len(record)-1], 0xdd), uint32(size))
	overwrite(t, store, sess.ID(), append(record, bytes.Repeat([]byte{0xc0}, size)...))
	cost, _ := allocated(func() {
		opened, err := m.Open(t.Context(), sess.Token())
		if err != nil || size > 64<<10 && !errors.Is(opened.Reason(), echosession.ErrCorrupt) {
			t.Error(err)
		}
	})
	return cost
}

// commands are how often a server has run a command, or any when name is "".
func commands(t *testing.T, client *redis.Client, name string) (n int) {
	t.Helper()
	stats, err := client.InfoMap(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	for command, stat := range stats["Commandstats"] {
		if calls := 0; name == "" || command == "cmdstat_"+name {
			_, _ = fmt.Sscanf(stat, "calls=%d,", &calls)
			n += calls
		}
	}
	return n
}

func costOfCircle(t *testing.T, size int) int {
	client := redistest.Start(t).Client(t)
	keyspace := newKeyspace()
	m := newManager[User](t, echosession.Config{
		Client: client, Secret: testSecret, Keyspace: keyspace, SubjectIndex: true, StoreTimeout: 5 * time.Second,
	})
	var ids []string
	for range size {
		sess, err := m.Create(t.Context(), User{}, echosession.WithSubject("ada"))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, sess.ID())
	}
	for i, id := range ids {
		key, _ := echosession.RedisKeys(keyspace, echosession.Ref{ID: id, Subject: "ada"})
		pointer := "\xc1" + id + ids[(i+1)%size] + fmt.Sprint(time.Now().Add(time.Hour).UnixMilli())
		if err := client.Set(t.Context(), key, pointer, time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
	}
	before := commands(t, client, "")
	if _, err := m.RevokeSubject(t.Context(), "ada", ids[0]); err != nil {
		t.Error(causes(err))
	}
	return commands(t, client, "") - before
}

func costOfList(t *testing.T, size int) int {
	client := redistest.Start(t).Client(t)
	m := newManager[User](t, echosession.Config{
		Client: client, Secret: testSecret, Keyspace: newKeyspace(), SubjectIndex: true, StoreTimeout: 5 * time.Second,
	})
	for range size {
		if _, err := m.Create(t.Context(), User{}, echosession.WithSubject("ada")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.List(t.Context(), "somebody else"); err != nil { // loads the script
		t.Fatal(err)
	}
	scripts := func() int { return commands(t, client, "evalsha") + commands(t, client, "eval") }
	reads, runs := commands(t, client, "get"), scripts()
	list, err := m.List(t.Context(), "ada")
	if err != nil || len(list) != min(size, 1000) {
		t.Error(len(list), err)
	}
	reads, runs = commands(t, client, "get")-reads, scripts()-runs
	return (reads + runs - 1) / runs
}

func costOfBody(t *testing.T, kibibytes int) int {
	m := newManager[User](t, echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret})
	e := echo.New()
	e.Use(m.Middleware())
	e.POST("/", func(c echo.Context) error { return c.NoContent(http.StatusOK) }, m.Require())
	body := `{` + strings.Repeat(`"":0,`, kibibytes<<10/5-1) + `"":0}`
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	r.Header.Set("Content-Type", jsonType)
	rec := httptest.NewRecorder()
	_, cost := allocated(func() { e.ServeHTTP(rec, r) })
	if rec.Code != http.StatusUnauthorized {
		t.Error(rec.Code)
	}
	return cost
}

func costOfNesting(t *testing.T, writes int) int {
	m := newManager[User](t, echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret})
	sess, err := m.Create(t.Context(), User{})
	if err != nil {
		t.Fatal(err)
	}
	runs := 0
	err = sess.Update(t.Context(), func(*User) error {
		runs++
		for range writes {
			if err := sess.Update(t.Context(), func(u *User) error { u.Count++; return nil }); err != nil {
				return err
			}
		}
		return nil
	})
	if !errors.Is(err, echosession.ErrConflict) {
		t.Error(err)
	}
	return runs
}
