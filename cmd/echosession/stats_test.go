package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// A loader is a store that creates sessions in many pipelines: it fills a server fast, with
// records that the library has written.
type loader struct {
	echosession.Store
	tb       testing.TB
	client   redis.UniversalClient
	keyspace string
	used     time.Duration // how long the next session was not used
	pipe     redis.Pipeliner
}

func newLoader(tb testing.TB, client redis.UniversalClient, keyspace string) *loader {
	return &loader{tb: tb, client: client, keyspace: keyspace, pipe: client.Pipeline()}
}

func (l *loader) Create(_ context.Context, ref echosession.Ref, record []byte, ttl time.Duration, _ echosession.Limit) (evicted []string, err error) {
	key := l.keyspace + ref.ID
	if ref.Subject != "" {
		index := l.keyspace + "{" + hashOf(ref.Subject).String() + "}"
		key = index + ":" + ref.ID
		l.pipe.ZAdd(l.tb.Context(), index, redis.Z{Score: float64(time.Now().UnixMicro()), Member: ref.ID})
		l.pipe.PExpire(l.tb.Context(), index, ttl)
	}
	l.pipe.Set(l.tb.Context(), key, record, ttl-l.used)
	if l.pipe.Len() >= 3000 {
		l.flush()
	}
	return nil, nil
}

func (l *loader) flush() {
	if _, err := l.pipe.Exec(l.tb.Context()); err != nil {
		l.tb.Fatal(err)
	}
}

// many makes sessions of a keyspace: nth says when number i was created, how long it was not
// used since, and with which options.
func many(tb testing.TB, client redis.UniversalClient, cfg echosession.Config, n int, nth func(i int) (age, unused time.Duration, opts []echosession.CreateOption)) {
	tb.Helper()
	l := newLoader(tb, client, cfg.Keyspace)
	start := time.Now()
	now := start
	cfg.Store, cfg.Secret, cfg.Now = l, testSecret, func() time.Time { return now }
	sessions, err := echosession.New[user](cfg)
	if err != nil {
		tb.Fatal(err)
	}
	for i := range n {
		age, unused, opts := nth(i)
		now, l.used = start.Add(-age), unused
		if _, err := sessions.Create(tb.Context(), ada, opts...); err != nil {
			tb.Fatal(err)
		}
	}
	l.flush()
}

// guests makes sessions in which nobody has logged in.
func guests(t *testing.T, client redis.UniversalClient, cfg echosession.Config, n int) {
	t.Helper()
	cfg.Client, cfg.Secret = client.(echosession.RedisClient), testSecret
	sessions, err := echosession.New[user](cfg)
	if err != nil {
		t.Fatal(err)
	}
	e := echo.New()
	e.Use(sessions.Middleware())
	e.POST("/", sessions.With(func(c echo.Context, sess *echosession.Session[user]) error {
		return sess.UpdateOrCreate(c.Request().Context(), func(u *user) error { *u = ada; return nil })
	}))
	for range n {
		answer := httptest.NewRecorder()
		if e.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, "/", nil)); answer.Code != http.StatusOK {
			t.Fatal(answer.Code, answer.Body)
		}
	}
}

// What stats -json writes.
type statsReport struct {
	Partial          bool    `json:"partial"`
	Seconds          float64 `json:"seconds"`
	Sessions         int     `json:"sessions"`
	Share            float64 `json:"share"`
	Read             int     `json:"read"`
	WithSubject      int     `json:"with_subject"`
	WithoutSubject   int     `json:"without_subject"`
	SubjectEncrypted int     `json:"subject_encrypted"`
	Guests           int     `json:"guests"`
	Remembered       int     `json:"remembered"`
	Encrypted        int     `json:"encrypted"`
	OtherCodec       int     `json:"other_codec"`
	Unreadable       int     `json:"unreadable"`
	EndInAnHour      int     `json:"end_in_an_hour"`
	EndInADay        int     `json:"end_in_a_day"`
	Idle             numbers `json:"idle"`
	IdleUnknown      int     `json:"idle_unknown"`
	Age              numbers `json:"age"`
	Size             numbers `json:"size"`
	Subjects         struct {
		Count      int          `json:"count"`
		Sample     bool         `json:"sample"`
		PerSubject numbers      `json:"per_subject"`
		Top        []topSubject `json:"top"`
	} `json:"subjects"`
}

type numbers struct {
	Unit                  string
	Count                 int
	Median, P90, P99, Max float64
	Buckets               []struct {
		Below float64
		Count int
	}
}

// statsOf runs "echosession stats -json".
func statsOf(t *testing.T, args ...string) (report statsReport) {
	t.Helper()
	o := invoke(t, environment{}, append([]string{"stats", "-json"}, args...)...)
	if o.code != exitOK || o.stderr != "" {
		t.Fatalf("exit %d: %s", o.code, o.all())
	}
	decoder := json.NewDecoder(strings.NewReader(o.stdout))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&report); err != nil {
		t.Fatalf("%v in %s", err, o.stdout)
	}
	return report
}

func TestStatsCountsEveryKindOfSession(t *testing.T) {
	t.Parallel()
	t.Run("a server", func(t *testing.T) {
		t.Parallel()
		server := redistest.Shared(t)
		testStats(t, server.Client(t), "redis://"+server.Addr())
	})
	t.Run("a Cluster", func(t *testing.T) {
		t.Parallel()
		cluster := redistest.StartCluster(t, 3, 0)
		testStats(t, cluster.Client(t), "redis://"+cluster.Addrs()[1])
	})
}

func testStats(t *testing.T, client redis.UniversalClient, url string) {
	n := keyspaces.Add(1)
	keyspace := fmt.Sprintf("stats[%d]*:", n)
	ctx := t.Context()
	indexed := echosession.Config{Keyspace: keyspace, SubjectIndex: true, MaxAge: 48 * time.Hour}
	plain := echosession.Config{Keyspace: keyspace, MaxAge: 48 * time.Hour}
	sealed := func(cfg echosession.Config) echosession.Config {
		cfg.EncryptionKeys = [][]byte{testSeal}
		return cfg
	}
	simple := func(age, unused time.Duration, opts ...echosession.CreateOption) func(int) (time.Duration, time.Duration, []echosession.CreateOption) {
		return func(int) (time.Duration, time.Duration, []echosession.CreateOption) { return age, unused, opts }
	}
	many(t, client, indexed, 600, func(i int) (time.Duration, time.Duration, []echosession.CreateOption) {
		return 10 * day, time.Duration(i) * time.Minute, []echosession.CreateOption{echosession.WithSubject(fmt.Sprint("user-", i%300))}
	})
	many(t, client, indexed, 70, simple(time.Hour, time.Second, echosession.WithSubject("Mallory\x1b[2J")))
	many(t, client, plain, 50, simple(30*time.Minute, 0, echosession.WithSubject("not indexed")))
	many(t, client, plain, 30, simple(50*time.Hour, 47*time.Hour+30*time.Minute))
	guests(t, client, plain, 20)
	many(t, client, sealed(indexed), 40, simple(0, 0, echosession.WithSubject("secret one")))
	many(t, client, sealed(plain), 10, simple(0, 0, echosession.WithSubject("secret two")))
	other := plain
	other.Codec = jsonCodec{}
	many(t, client, other, 25, simple(0, 0, echosession.Remember(30*day), echosession.WithClaims(echosession.Claims{"exp": time.Now().Add(40 * time.Minute)})))

	// What is no session, and what only looks like one.
	id := uuid.NewString
	damaged := []string{"\x93\x01\x02\x03", "x", "\x9b\x09\xc4\x10" + strings.Repeat("i", 16) + "\xc4\x08revision"}
	for _, value := range damaged {
		must(t, client.Set(ctx, keyspace+id(), value, time.Hour).Err())
	}
	list := keyspace + id()
	must(t, client.RPush(ctx, list, "element").Err(), client.Expire(ctx, list, time.Hour).Err())
	for _, key := range []string{"ticket:" + strings.Repeat("t", 43), "admin:" + id(), strings.ToUpper(id()), "{short}:" + id(), "other"} {
		must(t, client.Set(ctx, keyspace+key, "x", time.Hour).Err())
	}
	must(t, client.Set(ctx, fmt.Sprint("stats", n%10, "x:", id()), "x", time.Hour).Err()) // the keyspace is no pattern
	must(t, client.Set(ctx, keyspace+id(), "\xc1"+id()+id()+"!1", time.Hour).Err())

	flags := []string{"-keyspace", keyspace, "-max-age", "48h", url}
	got := statsOf(t, flags...)
	withKey := statsOf(t, append(flags, "-encryption-key-file", fileOf(t, base64.StdEncoding.EncodeToString(testSeal)))...)
	const all = 600 + 70 + 50 + 30 + 20 + 40 + 10 + 25
	for _, r := range []statsReport{got, withKey} {
		if r.Sessions != all+4 || r.Read != all+4 || r.Share != 1 || r.Partial || r.Unreadable != 4 {
			t.Errorf("%d sessions, %d read, %d unreadable", r.Sessions, r.Read, r.Unreadable)
		}
		if r.Guests != 20 || r.Remembered != 25 || r.Encrypted != 50 || r.OtherCodec != 25 {
			t.Errorf("%d guests, %d remembered, %d encrypted, %d of another codec", r.Guests, r.Remembered, r.Encrypted, r.OtherCodec)
		}
		if r.EndInAnHour != 30+25 || r.EndInADay != 30+25 {
			t.Errorf("%d end in an hour, and %d in a day", r.EndInAnHour, r.EndInADay)
		}
	}
	if got.WithSubject != 600+70+50+40 || got.WithoutSubject != 30+20+25 || got.SubjectEncrypted != 10 {
		t.Errorf("%d with a subject, %d without, %d encrypted", got.WithSubject, got.WithoutSubject, got.SubjectEncrypted)
	}
	if withKey.WithSubject != 600+70+50+40+10 || withKey.WithoutSubject != 30+20+25 || withKey.SubjectEncrypted != 0 {
		t.Errorf("with the key: %d with a subject, %d without, %d encrypted", withKey.WithSubject, withKey.WithoutSubject, withKey.SubjectEncrypted)
	}
	checkNumbers(t, got)
	checkSubjects(t, got, withKey)
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// near reports whether two numbers are the same to half a percent, and some seconds that the
// test itself took.
func near(got, want float64) bool { return math.Abs(got-want) <= want/200+20 }

func checkNumbers(t *testing.T, r statsReport) {
	t.Helper()
	// The 600 were not used for 0 to 599 minutes, the 30 for 47.5 hours. The deadline hides it for 25.
	if n := r.Idle; n.Unit != "seconds" || n.Count != 820 || r.IdleUnknown != 25 || !near(n.Median, 219*60) || !near(n.P90, 547*60) || !near(n.P99, 47.5*3600) || !near(n.Max, 47.5*3600) {
		t.Errorf("not used for %+v, unknown of %d", n, r.IdleUnknown)
	}
	if n := r.Age; n.Unit != "seconds" || n.Count != 845 || !near(n.Median, 240*3600) || !near(n.Max, 240*3600) || n.P90 < 239*3600 {
		t.Errorf("age %+v", n)
	}
	if n := r.Size; n.Unit != "bytes" || n.Count != 845 || n.Median < 100 || n.Median > 300 || n.Max < n.Median || n.Max > 500 {
		t.Errorf("size %+v", n)
	}
	for _, n := range []numbers{r.Idle, r.Age, r.Size} {
		sum := 0
		for _, b := range n.Buckets {
			sum += b.Count
		}
		if sum != n.Count || n.Median > n.P90 || n.P90 > n.P99 || n.P99 > n.Max {
			t.Errorf("the buckets of %+v have %d", n, sum)
		}
	}
	for _, b := range r.Age.Buckets {
		switch b.Below {
		case 30 * 86400:
			if b.Count != 600 {
				t.Errorf("%d are from 7 to 30 days old", b.Count)
			}
		case 7 * 86400:
			if b.Count != 30 {
				t.Errorf("%d are from 1 to 7 days old", b.Count)
			}
		}
	}
}

func checkSubjects(t *testing.T, got, withKey statsReport) {
	t.Helper()
	if s := got.Subjects; s.Count != 300+3 || s.Sample || s.PerSubject.Median != 2 || s.PerSubject.Max != 70 || len(s.Top) != 10 {
		t.Errorf("%+v", s)
	}
	if s := withKey.Subjects; s.Count != 300+4 || s.Sample {
		t.Errorf("with the key: %+v", s)
	}
	want := func(top []topSubject, subject string, sessions int) {
		t.Helper()
		if !slices.ContainsFunc(top, func(s topSubject) bool { return s.Subject == subject && s.Sessions == sessions && len(s.Hash) == 22 }) {
			t.Errorf("no %q with %d in %+v", subject, sessions, top)
		}
	}
	for _, top := range [][]topSubject{got.Subjects.Top, withKey.Subjects.Top} {
		want(top[:1], "Mallory\x1b[2J", 70)
		want(top[1:2], "not indexed", 50)
	}
	want(got.Subjects.Top[2:3], "", 40)
	want(withKey.Subjects.Top[2:3], "secret one", 40)
	want(withKey.Subjects.Top[3:4], "secret two", 10)
}

// Of many sessions a sample is read: all sessions of a subject, or none.
func TestStatsReadsASample(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client(t)
	const keyspace = "sess:"
	many(t, client, echosession.Config{Keyspace: keyspace, SubjectIndex: true}, 6000, func(i int) (age, unused time.Duration, opts []echosession.CreateOption) {
		return time.Hour, 0, []echosession.CreateOption{echosession.WithSubject(fmt.Sprint("user-", i%1500))}
	})
	many(t, client, echosession.Config{Keyspace: keyspace}, 6000, func(i int) (age, unused time.Duration, opts []echosession.CreateOption) {
		return time.Hour, 0, nil
	})
	for i := range 9000 { // half of the keys are those of others
		must(t, client.Set(t.Context(), fmt.Sprint("cache:", i), "x", time.Hour).Err())
	}
	proxy := redistest.NewProxy(t, server.Addr())
	r := statsOf(t, "-sample", "1200", "redis://"+proxy.Addr())
	if r.Sessions != 12_000 || r.Share < 0.08 || r.Share > 0.125 || r.Read < 1000 || r.Read > 1450 {
		t.Errorf("%d sessions, of which %d were read, a share of %v", r.Sessions, r.Read, r.Share)
	}
	// These are counted by their keys.
	if s := r.Subjects; s.Count != 1500 || s.Sample || s.PerSubject.Median != 4 || s.PerSubject.Max != 4 {
		t.Errorf("%+v", s)
	}
	if r.WithSubject+r.WithoutSubject != r.Read || r.WithSubject%4 != 0 || r.WithSubject < 400 || r.WithSubject > 800 {
		t.Errorf("%d with a subject, %d without", r.WithSubject, r.WithoutSubject)
	}
	for _, cmd := range proxy.Commands() {
		if cmd[0] == "SCAN" && cmd[len(cmd)-1] != fmt.Sprint(scanCount) {
			t.Errorf("%q", cmd)
		}
		if !slices.Contains([]string{"SCAN", "GETRANGE", "STRLEN", "PTTL", "DBSIZE", "INFO", "PING"}, cmd[0]) {
			t.Errorf("it sends %q", cmd)
		}
	}
	if all := statsOf(t, "-sample", "0", "redis://"+server.Addr()); all.Read != 12_000 || all.Share != 1 {
		t.Errorf("%d were read, a share of %v", all.Read, all.Share)
	}
	invoke(t, environment{}, "stats", "-sample", "1200", "redis://"+server.Addr()).wants(t, exitOK, "12,000 sessions in ", " of them were read, a sample.")
}

// A record of any length is read in few bytes.
func TestStatsReadsFewBytes(t *testing.T) {
	t.Parallel()
	p := onShared(t, echosession.Config{MaxRecordSize: 1 << 20})
	long := strings.Repeat("s", 1024)
	for range 20 {
		if _, err := p.Create(t.Context(), user{Name: strings.Repeat("n", 300_000)}, echosession.WithSubject(long), echosession.WithDevice(strings.Repeat("d", 256))); err != nil {
			t.Fatal(err)
		}
	}
	proxy := redistest.NewProxy(t, strings.TrimPrefix(p.url, "redis://"))
	r := statsOf(t, "-keyspace", p.keyspace, "redis://"+proxy.Addr())
	if r.Read != 20 || r.Unreadable != 0 || r.Size.Median < 300_000 || r.Size.Max > 303_000 || len(r.Subjects.Top) != 1 || r.Subjects.Top[0].Subject != long {
		t.Errorf("%+v", r)
	}
	for _, cmd := range proxy.Commands() {
		if cmd[0] == "GET" || cmd[0] == "GETRANGE" && cmd[3] != "1151" {
			t.Errorf("it sends %q", cmd)
		}
	}
}

// The subject of an encrypted record is in the part that is read in whole.
func TestStatsOpensLongRecords(t *testing.T) {
	t.Parallel()
	p := onShared(t, echosession.Config{MaxRecordSize: 1 << 20, EncryptionKeys: [][]byte{testSeal}})
	if _, err := p.Create(t.Context(), user{Name: strings.Repeat("n", 300_000)}, echosession.WithSubject("ada")); err != nil {
		t.Fatal(err)
	}
	r := statsOf(t, "-keyspace", p.keyspace, "-encryption-key-file", fileOf(t, base64.StdEncoding.EncodeToString(testSeal)), p.url)
	if r.Read != 1 || r.WithSubject != 1 || r.Size.Max < 300_000 || len(r.Subjects.Top) != 1 || r.Subjects.Top[0].Subject != "ada" {
		t.Errorf("%+v", r)
	}
	if r = statsOf(t, "-keyspace", p.keyspace, p.url); r.SubjectEncrypted != 1 || r.Age.Count != 1 {
		t.Errorf("%+v", r)
	}
}

// A user may have the rights of Manager.All alone.
func TestStatsWithFewRights(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	p := newProgram(t, "redis://"+server.Addr(), server.Client(t), echosession.Config{SubjectIndex: true})
	p.login(t, "ada")
	p.login(t, "bob")
	must(t, p.client.Do(t.Context(), "acl", "setuser", "operator", "reset", "on", ">secret", "~"+p.keyspace[:4]+"*", "+get", "+pttl", "+scan").Err())
	r := statsOf(t, "-keyspace", p.keyspace, "-password-file", fileOf(t, "secret"), "redis://operator@"+server.Addr())
	if r.Sessions != 2 || r.Read != 2 || r.WithSubject != 2 || r.Size.Median < 100 || r.Subjects.Count != 2 {
		t.Errorf("%+v", r)
	}
}

// A failure is told, and no half of a count.
func TestStatsFails(t *testing.T) {
	t.Parallel()
	p := onShared(t, echosession.Config{})
	p.login(t, "ada")
	proxy := redistest.NewProxy(t, strings.TrimPrefix(p.url, "redis://"))
	proxy.On(redistest.Named("GETRANGE"), -1, redistest.Reply("-LOADING Redis is loading the dataset in memory\r\n"))
	o := invoke(t, environment{}, "stats", "-keyspace", p.keyspace, "redis://"+proxy.Addr())
	o.wants(t, exitUnknown, "LOADING")
	if o.stdout != "" {
		t.Errorf("it writes %s", o.stdout)
	}
}

// The memory for subjects is bounded: half of them are given up, and the others are counted
// in full.
func TestSubjectsAreThinnedOut(t *testing.T) {
	t.Parallel()
	tally := newTally()
	const subjects = mostSubjects + mostSubjects/2
	for round := range 2 {
		for i := range subjects {
			hash := hashOf(fmt.Sprint(i))
			tally.addSubject(hash, sessionKey{subject: hash, indexed: true})
		}
		if n := len(tally.subjects); n > mostSubjects || n < subjects/2*95/100 || n > subjects/2*105/100 {
			t.Fatalf("round %d: %d subjects", round, n)
		}
	}
	tally.finish(3)
	if s := tally.Subjects; !s.Sample || s.PerSubject.quantile(0.01) != 2 || s.PerSubject.max != 2 || len(s.Top) != 3 {
		t.Errorf("%+v", s)
	}
}

func TestQuantiles(t *testing.T) {
	t.Parallel()
	for _, most := range []int64{1, 100, 255, 256, 1000, 1 << 20, 1 << 40} {
		d := newDistribution(milliseconds)
		const n = 1000
		for i := range int64(n) {
			d.add(most * (i + 1) / n)
		}
		for _, share := range []float64{0, 0.001, 0.5, 0.9, 0.99, 1} {
			want := float64(most) * max(share, 1.0/n)
			if got := d.quantile(share); math.Abs(float64(got)-want) > want/200+1 {
				t.Errorf("of values up to %d, %v are at most %d, and that is to be %v", most, share, got, want)
			}
		}
		if d.n != n || d.max != most || d.quantile(1) > most {
			t.Errorf("%d values, the largest %d", d.n, d.max)
		}
	}
	for i := range 10_000 {
		if got := fineIndex(middleOf(i)); got != i {
			t.Fatalf("the middle of bucket %d is in bucket %d", i, got)
		}
		if middleOf(i) > math.MaxInt64/4 {
			break
		}
	}
	d := newDistribution(byteCount)
	d.add(-1)
	if d.counts[0] != 1 || d.quantile(0.5) != 0 {
		t.Errorf("%+v", d)
	}
}

func TestHistogram(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		kind   valueKind
		values map[int64]int
		want   string
	}{
		{milliseconds, nil, `
title: not known of any session
`}, {milliseconds, map[int64]int{59_999: 1, 60_000: 3, 900_000: 80}, `
title: 84; median 14m 59s, p90 14m 59s, p99 14m 59s, max 15m
  under 1m                   1   1.2%  #
  under 5m                   3   3.6%  ##
  under 15m                  0   0.0%
  under 1h                  80  95.2%  ########################################
`}, {byteCount, map[int64]int{150: 1, 2_500_000: 1}, `
title: 2; median 150 B, p90 2.4 MiB, p99 2.4 MiB, max 2.4 MiB
  under 256 B                1  50.0%  ########################################
  under 512 B                0   0.0%
  under 1.0 KiB              0   0.0%
  under 2.0 KiB              0   0.0%
  under 4.0 KiB              0   0.0%
  under 8.0 KiB              0   0.0%
  under 16.0 KiB             0   0.0%
  under 64.0 KiB             0   0.0%
  under 256.0 KiB            0   0.0%
  under 1.0 MiB              0   0.0%
  1.0 MiB or more            1  50.0%  ########################################
`}, {plainCount, map[int64]int{1: 4, 2: 2, 3: 1, 5000: 1}, `
title: 8; median 1, p90 5,000, p99 5,000, max 5,000
  1                          4  50.0%  ########################################
  2                          2  25.0%  ####################
  3 to 5                     1  12.5%  ##########
  6 to 10                    0   0.0%
  11 to 50                   0   0.0%
  51 to 100                  0   0.0%
  101 to 1,000               0   0.0%
  1,001 or more              1  12.5%  ##########
`},
	} {
		d := newDistribution(tt.kind)
		for value, n := range tt.values {
			for range n {
				d.add(value)
			}
		}
		var out strings.Builder
		if d.print(&out, "title"); out.String() != tt.want {
			t.Errorf("it writes %s\nwant %s", out.String(), tt.want)
		}
	}
}

// Without a session there are no percentages, and no spaces in their place.
func TestStatsOfNoSessions(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	none := newTally()
	none.finish(10)
	must(t, none.print(&out))
	if text := out.String(); !strings.HasPrefix(text, "0 sessions in ") || !strings.Contains(text, "guests (nobody logged in)              0\n") || strings.Contains(text, " \n") {
		t.Errorf("it writes %q", text)
	}
}

// BenchmarkStats counts a million sessions, and tells how long others wait for Redis
// meanwhile.
func BenchmarkStats(b *testing.B) {
	const sessions, subjects = 1_000_000, 300_000
	server := redistest.Start(b, "--maxmemory", "0")
	client := server.Client(b)
	many(b, client, echosession.Config{Keyspace: "sess:", SubjectIndex: true, MaxAge: 14 * day}, sessions, func(i int) (age, unused time.Duration, opts []echosession.CreateOption) {
		unused = time.Duration(i%1000) * 10 * time.Minute
		return unused + time.Duration(i%90)*day, unused, []echosession.CreateOption{echosession.WithSubject(fmt.Sprint("user-", i%subjects))}
	})
	for _, sample := range []string{"200000", "0"} {
		b.Run("sample="+sample, func(b *testing.B) {
			for b.Loop() {
				worst, stop := slowestPing(b, client)
				var stdout, stderr strings.Builder
				code := run(b.Context(), []string{"stats", "-max-age", "336h", "-sample", sample, "redis://" + server.Addr()},
					&invocation{stdout: &stdout, stderr: &stderr, getenv: func(string) string { return "" }})
				stop()
				if code != exitOK {
					b.Fatal(stderr.String())
				}
				b.ReportMetric(float64(worst().Microseconds())/1000, "ms-slowest-ping")
				b.Log("\n" + stdout.String())
			}
		})
	}
}

// slowestPing asks for PINGs, one after the other, until stop. worst is what 999 of 1,000 did
// not exceed.
func slowestPing(tb testing.TB, client redis.UniversalClient) (worst func() time.Duration, stop func()) {
	ctx, cancel := context.WithCancel(tb.Context())
	var took []time.Duration
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			began := time.Now()
			if client.Ping(ctx).Err() == nil {
				took = append(took, time.Since(began))
			}
			time.Sleep(time.Millisecond)
		}
	})
	return func() time.Duration { slices.Sort(took); return took[len(took)*999/1000] }, func() { cancel(); wg.Wait() }
}
