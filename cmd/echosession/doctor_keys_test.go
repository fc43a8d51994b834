package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
)

// A keyspace in each state that doctor is to find. All have their own keyspace on one server.
func TestDoctorOfKeyspaces(t *testing.T) {
	server := startRedis(t, "--appendonly", "yes")
	rdb := server.Client(t)
	seal := []byte("fedcba9876543210fedcba9876543210")
	sealFile, otherFile := filepath.Join(t.TempDir(), "keys"), filepath.Join(t.TempDir(), "others")
	for file, key := range map[string][]byte{sealFile: seal, otherFile: []byte("another key of exactly 32 bytes!")} {
		if err := os.WriteFile(file, []byte(base64.StdEncoding.EncodeToString(key)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	indexOf := func(ks, subject string) string { return (&site{keyspace: ks}).index(subject) }
	for _, tt := range []struct {
		name    string
		cfg     echosession.Config
		prepare func(t *testing.T, ks string, shop *echosession.Manager[shopper])
		flags   []string
		want    [][4]string // check, status, ID, text
		exit    int
	}{
		{
			name: "damaged records, each for its reason",
			prepare: func(t *testing.T, ks string, shop *echosession.Manager[shopper]) {
				ids := login(t, shop, "alice", 10)
				value := rdb.Get(t.Context(), ks+ids[0]).Val()
				rdb.Set(t.Context(), ks+ids[1], value, time.Hour)          // under another ID
				rdb.Set(t.Context(), ks+ids[2], value[:20], time.Hour)     // cut off
				rdb.Set(t.Context(), ks+ids[3], "{\"json\":1}", time.Hour) // another program's
			},
			want: [][4]string{
				{"records", "warning", "unreadable-records", "3 of 10 sessions cannot be read"},
				{"records", "warning", "unreadable-records", "it is the record of another session"},
			}, exit: exitWarning,
		},
		{
			name: "most records are damaged",
			prepare: func(t *testing.T, ks string, shop *echosession.Manager[shopper]) {
				for _, id := range login(t, shop, "alice", 4) {
					rdb.Set(t.Context(), ks+id, "garbage", time.Hour)
				}
				login(t, shop, "alice", 1)
			},
			want: [][4]string{{"records", "critical", "unreadable-records", "4 of 5 sessions"}}, exit: exitCritical,
		},
		{
			name: "encrypted records, without a key", cfg: echosession.Config{EncryptionKeys: [][]byte{seal}},
			prepare: func(t *testing.T, _ string, shop *echosession.Manager[shopper]) { login(t, shop, "alice", 3) },
			want:    [][4]string{{"records", "skipped", "encrypted-records", "3 of 3 sessions are encrypted"}}, exit: exitOK,
		},
		{
			name: "encrypted records, with the key", cfg: echosession.Config{EncryptionKeys: [][]byte{seal}}, flags: []string{"-encryption-key-file", sealFile},
			prepare: func(t *testing.T, _ string, shop *echosession.Manager[shopper]) { login(t, shop, "alice", 3) },
			want:    [][4]string{{"records", "ok", "", "3 sessions were read"}}, exit: exitOK,
		},
		{
			name: "encrypted records, with another key", cfg: echosession.Config{EncryptionKeys: [][]byte{seal}}, flags: []string{"-encryption-key-file", otherFile},
			prepare: func(t *testing.T, _ string, shop *echosession.Manager[shopper]) { login(t, shop, "alice", 3) },
			want:    [][4]string{{"records", "critical", "unreadable-records", "3 of 3"}}, exit: exitCritical,
		},
		{
			name: "sessions without a lifetime",
			prepare: func(t *testing.T, ks string, shop *echosession.Manager[shopper]) {
				for _, id := range login(t, shop, "alice", 3)[:2] {
					rdb.Persist(t.Context(), ks+id)
				}
			},
			want: [][4]string{{"lifetimes", "warning", "keys-without-a-lifetime", "2 keys never expire"}}, exit: exitWarning,
		},
		{
			name: "an index without a lifetime", cfg: echosession.Config{SubjectIndex: true},
			prepare: func(t *testing.T, ks string, shop *echosession.Manager[shopper]) {
				login(t, shop, "alice", 3)
				rdb.Persist(t.Context(), indexOf(ks, "alice"))
			},
			want: [][4]string{{"lifetimes", "warning", "keys-without-a-lifetime", "1 key never expires"}}, exit: exitWarning,
		},
		{
			name: "keys of another type",
			prepare: func(t *testing.T, ks string, shop *echosession.Manager[shopper]) {
				login(t, shop, "alice", 1)
				for _, key := range []string{ks + uuid.NewString(), ks + "{" + strings.Repeat("A", 22) + "}"} {
					rdb.HSet(t.Context(), key, "a", "b")
					rdb.Expire(t.Context(), key, time.Hour)
				}
			},
			want: [][4]string{{"lifetimes", "warning", "foreign-keys", "2 keys have the names"}}, exit: exitWarning,
		},
		{
			name: "entries of sessions that were evicted", cfg: echosession.Config{SubjectIndex: true},
			prepare: func(t *testing.T, ks string, shop *echosession.Manager[shopper]) {
				for _, id := range login(t, shop, "alice", 5)[:3] {
					rdb.Del(t.Context(), indexOf(ks, "alice")+":"+id)
				}
			},
			want: [][4]string{{"index", "warning", "lost-sessions", "3 of the 5 young entries"}}, exit: exitWarning,
		},
		{
			name: "entries of sessions that have expired", cfg: echosession.Config{SubjectIndex: true, MaxAge: time.Minute},
			prepare: func(t *testing.T, ks string, shop *echosession.Manager[shopper]) {
				index := indexOf(ks, "alice")
				ids := login(t, shop, "alice", 5)
				for i, id := range ids[:3] { // they are of an hour ago
					rdb.Del(t.Context(), index+":"+id)
					rdb.ZAdd(t.Context(), index, redis.Z{Member: id, Score: float64(time.Now().Add(-time.Hour).UnixMicro() + int64(i))})
				}
			},
			want: [][4]string{{"index", "ok", "", "left 3 entries, which is normal"}}, exit: exitOK,
		},
		{
			name: "sessions that their index lacks", cfg: echosession.Config{SubjectIndex: true},
			prepare: func(t *testing.T, ks string, shop *echosession.Manager[shopper]) {
				login(t, shop, "alice", 2)
				login(t, shop, "bob", 2)
				rdb.Del(t.Context(), indexOf(ks, "bob"))
			},
			want: [][4]string{{"index", "warning", "unindexed-sessions", "lacks 2 of 4 sessions"}}, exit: exitWarning,
		},
		{
			name: "programs that differ in SubjectIndex", cfg: echosession.Config{SubjectIndex: true},
			prepare: func(t *testing.T, ks string, shop *echosession.Manager[shopper]) {
				login(t, shop, "alice", 2)
				login(t, newShop(t, rdb, echosession.Config{Keyspace: ks}), "alice", 1)
			},
			want: [][4]string{{"index", "warning", "with-and-without-index", "1 session of those read has a subject and no index, and 2 have one"}}, exit: exitWarning,
		},
		{
			name: "sessions that went on elsewhere, guests, tickets and other keys", cfg: echosession.Config{SubjectIndex: true, TokenLookup: "bearer,ticket:ticket"},
			prepare: func(t *testing.T, ks string, shop *echosession.Manager[shopper]) {
				sess, err := shop.Create(t.Context(), shopper{}, echosession.WithSubject("alice"))
				if err == nil {
					_, err = sess.Ticket(t.Context(), "/")
				}
				if err == nil {
					_, err = sess.Rotate(t.Context())
				}
				if err == nil {
					_, err = sess.Renew(t.Context(), func(*shopper) error { return nil })
				}
				if err == nil {
					_, err = shop.Create(t.Context(), shopper{})
				}
				if err != nil {
					t.Fatal(err)
				}
				rdb.Set(t.Context(), ks+"admin:"+uuid.NewString(), "x", time.Hour)
			},
			want: [][4]string{
				{"keyspace", "ok", "", "4 sessions, 1 index of subjects, 1 ticket; 1 key of other programs or keyspaces (\"admin:\")"},
				{"keyspace", "ok", "", "2 lead to where a session went"},
				{"records", "ok", "", "2 sessions were read"},
				{"index", "ok", "", "agree"},
			}, exit: exitOK,
		},
		{
			name: "a large session, and a subject with many", cfg: echosession.Config{SubjectIndex: true},
			prepare: func(t *testing.T, ks string, shop *echosession.Manager[shopper]) {
				login(t, shop, "robot", 1000)
				if _, err := shop.Create(t.Context(), shopper{Name: strings.Repeat("x", 20<<10)}, echosession.WithSubject("alice")); err != nil {
					t.Fatal(err)
				}
			},
			want: [][4]string{
				{"sizes", "warning", "large-sessions", ") 20.1 KiB, 2"},
				{"sizes", "warning", "many-sessions-of-a-subject", `"robot" 1,000, "alice" 1`},
			}, exit: exitWarning,
		},
		{
			name: "the wrong keyspace", prepare: func(*testing.T, string, *echosession.Manager[shopper]) {},
			want: [][4]string{{"keyspace", "warning", "no-sessions-here", "no session is below"}}, exit: exitWarning,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ks := "shop" + strconv.FormatInt(time.Now().UnixNano(), 36) + ":"
			tt.cfg.Keyspace = ks
			tt.prepare(t, ks, newShop(t, rdb, tt.cfg))
			report := diagnose(t, nil, append(tt.flags, "-keyspace", ks, urlOf(server))...)
			for _, w := range tt.want {
				report.wants(t, w[0], w[1], w[2], w[3])
			}
			if report.Exit != tt.exit {
				t.Errorf("exit code %d, not %d: %+v", report.Exit, tt.exit, report)
			}
		})
	}
}

// A keyspace with characters that a pattern knows is looked at, and no other.
func TestDoctorOfAStrangeKeyspace(t *testing.T) {
	server := startRedis(t)
	rdb := server.Client(t)
	login(t, newShop(t, rdb, echosession.Config{Keyspace: "s[ab]*:"}), "alice", 2)
	login(t, newShop(t, rdb, echosession.Config{Keyspace: "sax:"}), "alice", 1)
	diagnose(t, nil, "-keyspace", "s[ab]*:", urlOf(server)).wants(t, "keyspace", "ok", "", "2 sessions")
}

// What is in another database is told.
func TestDoctorOfTheWrongDatabase(t *testing.T) {
	server := startRedis(t)
	other := server.Client(t, func(o *redis.Options) { o.DB = 3 })
	login(t, newShop(t, other, echosession.Config{}), "alice", 2)
	diagnose(t, nil, urlOf(server)).wants(t, "keyspace", "ok", "", "the database is empty; database 3 has 2 keys")
	report := diagnose(t, nil, urlOf(server)+"/3")
	report.wants(t, "keyspace", "ok", "", "2 sessions")
	report.wants(t, "rights", "ok", "", "a database other than 0")
}

// Of many sessions it reads a sample, and says so.
func TestDoctorSamples(t *testing.T) {
	server := startRedis(t)
	rdb := server.Client(t)
	login(t, newShop(t, rdb, echosession.Config{SubjectIndex: true}), "alice", 700)
	report := diagnose(t, nil, "-sample", "50", urlOf(server))
	report.wants(t, "records", "ok", "", "50 sessions were read")
	report.wants(t, "keyspace", "ok", "", "700 sessions, 1 index of subjects, 0 tickets; 50 of them were read")
	report = diagnose(t, nil, "-sample", "1", urlOf(server))
	report.wants(t, "keyspace", "ok", "", "of 701 in the database: see -sample")
	report = diagnose(t, nil, "-sample", "0", urlOf(server))
	report.wants(t, "records", "ok", "", "700 sessions were read")
}

// Each key has the same chance to be in the sample.
func TestReservoir(t *testing.T) {
	hits := make([]int, 20)
	for range 4000 {
		v := newReservoir(5)
		for i := range hits {
			v.add(foundKey{size: int64(i)})
		}
		if len(v.keys) != 5 {
			t.Fatalf("%d keys", len(v.keys))
		}
		for _, k := range v.keys {
			hits[k.size]++
		}
	}
	for i, n := range hits { // 1,000 on average, with a standard deviation of 27
		if n < 800 || n > 1200 {
			t.Errorf("key %d was kept %d times of 4,000", i, n)
		}
	}
}

// What INFO says of lifetimes decides whether each key is asked.
func TestEndless(t *testing.T) {
	for _, tt := range []struct {
		info string
		want int64
	}{
		{"db0:keys=10,expires=10,avg_ttl=5\r\n", 0},
		{"db0:keys=10,expires=7,avg_ttl=5\r\n", 3},
		{"db1:keys=10,expires=7,avg_ttl=5\r\n", 0},
		{"db0:something else\r\n", -1},
	} {
		n := &node{info: parseInfo(tt.info)}
		if got := n.endless(0); got != tt.want {
			t.Errorf("%q: %d, not %d", tt.info, got, tt.want)
		}
	}
	if got := (&node{infoErr: fmt.Errorf("no")}).endless(0); got != -1 {
		t.Errorf("without INFO: %d", got)
	}
}

func TestKeepLargest(t *testing.T) {
	var list []foundKey
	for i, size := range []int64{5, 9, 1, 7, -1, 3, 9, 2} {
		list = keepLargest(list, foundKey{name: strconv.Itoa(i), size: size})
	}
	list = keepLargest(list, foundKey{name: "1", size: 9}) // again
	var sizes []int64
	for _, k := range list {
		sizes = append(sizes, k.size)
	}
	if !slices.Equal(sizes, []int64{9, 9, 7, 5, 3}) {
		t.Errorf("kept %v", sizes)
	}
}

// While doctor reads, sessions end and go on under other IDs. Such a session is not missing.
func TestDoctorPassesOverSessionsThatHaveJustEnded(t *testing.T) {
	server := startRedis(t)
	rdb := server.Client(t)
	shop := newShop(t, rdb, echosession.Config{SubjectIndex: true})
	x := &examination{target: &target{keyspace: "sess:"}}
	n := &node{client: rdb}
	index := (&site{keyspace: "sess:"}).index("alice")
	var readings []*reading
	var sessions []*echosession.Session[shopper]
	for range 3 {
		sess, err := shop.Create(t.Context(), shopper{}, echosession.WithSubject("alice"))
		if err != nil {
			t.Fatal(err)
		}
		sessions = append(sessions, sess)
		readings = append(readings, &reading{key: foundKey{node: n, kind: indexedKey, id: sess.ID(), name: index + ":" + sess.ID()}})
	}
	if err := sessions[0].Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := sessions[1].Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := rdb.ZRem(t.Context(), index, sessions[2].ID()).Err(); err != nil { // as nobody should
		t.Fatal(err)
	}
	if err := x.lookUp(t.Context(), &survey{denied: make(map[string]error)}, readings); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{false, false, true} {
		if readings[i].unindexed != want {
			t.Errorf("session %d is missing in its index: %v, not %v", i, readings[i].unindexed, want)
		}
	}
}
