package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// A doctorReport is what -json prints, as a program reads it.
type doctorReport struct {
	Version  int
	Program  string
	Server   struct{ Kind, Version, Topology string }
	Keyspace string
	Status   string
	Exit     int
	Counts   map[string]int
	Checks   []struct {
		ID, Title, Status string
		Findings          []foundByDoctor
	}
}

type foundByDoctor struct{ ID, Status, Server, Text, Advice, Link string }

// runDoctor runs the command with these arguments, and returns its exit code and output.
func runDoctor(t *testing.T, env map[string]string, args ...string) (exit int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	exit = run(t.Context(), append([]string{"doctor"}, args...), &invocation{
		stdin: strings.NewReader(""), stdout: &out, stderr: &errs, getenv: func(name string) string { return env[name] },
	})
	return exit, out.String(), errs.String()
}

// diagnose runs the command with -json.
func diagnose(t *testing.T, env map[string]string, args ...string) doctorReport {
	t.Helper()
	exit, stdout, stderr := runDoctor(t, env, append([]string{"-json"}, args...)...)
	var report doctorReport
	if err := json.Unmarshal([]byte(stdout), &report); err != nil {
		t.Fatalf("%v\n%s%s", err, stdout, stderr)
	}
	if exit != report.Exit || report.Version != 1 {
		t.Errorf("exit code %d, and the document of version %d says %d", exit, report.Version, report.Exit)
	}
	return report
}

// of returns what a check has found.
func (p doctorReport) of(check string) (found []foundByDoctor) {
	for _, c := range p.Checks {
		if c.ID == check {
			found = append(found, c.Findings...)
		}
	}
	return found
}

// wants fails unless a check has a finding with this status, ID and text.
func (p doctorReport) wants(t *testing.T, check, status, id, text string) {
	t.Helper()
	for _, f := range p.of(check) {
		if f.Status == status && f.ID == id && strings.Contains(f.Text, text) {
			if (f.Advice == "") != (id == "") || id != "" && f.Link != doctorPage+"#"+id {
				t.Errorf("%s: the advice is %q and the link %q", check, f.Advice, f.Link)
			}
			return
		}
	}
	t.Errorf("%s is not [%s] %s with %q, but %+v", check, status, id, text, p.of(check))
}

// startRedis starts a server without a slow log: on a busy machine any command may be in it.
func startRedis(t *testing.T, args ...string) *redistest.Server {
	t.Helper()
	return redistest.Start(t, append([]string{"--slowlog-log-slower-than", "-1"}, args...)...)
}

// urlOf is the URL of a server of a test.
func urlOf(s *redistest.Server) string { return "redis://" + s.Addr() }

// A shopper is the session of the programs in these tests.
type shopper struct {
	Name string
	Cart []string
}

var doctorSecret = bytes.Repeat([]byte("s"), 32)

// newShop returns a program with sessions.
func newShop(t *testing.T, client echosession.RedisClient, cfg echosession.Config) *echosession.Manager[shopper] {
	t.Helper()
	cfg.Client, cfg.Secret = client, doctorSecret
	m, err := echosession.New[shopper](cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// login makes sessions of a subject, and returns their IDs.
func login(t *testing.T, m *echosession.Manager[shopper], subject string, n int, opts ...echosession.CreateOption) (ids []string) {
	t.Helper()
	for range n {
		sess, err := m.Create(t.Context(), shopper{Name: subject}, append(opts, echosession.WithSubject(subject))...)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, sess.ID())
	}
	return ids
}

func TestDoctorOfAHealthyRedis(t *testing.T) {
	server := startRedis(t, "--appendonly", "yes")
	rdb := server.Client(t)
	shop := newShop(t, rdb, echosession.Config{SubjectIndex: true})
	login(t, shop, "alice", 3)
	login(t, shop, "bob", 1)

	report := diagnose(t, nil, "-uses", strings.Join(featureIDs(), ","), urlOf(server))
	if report.Status != "ok" || report.Exit != exitOK {
		t.Errorf("it is %s: %+v", report.Status, report)
	}
	if report.Server.Kind == "" || report.Server.Version == "" || report.Keyspace != "sess:" {
		t.Errorf("the server is %+v, the keyspace %q", report.Server, report.Keyspace)
	}
	var ran []string
	for _, c := range report.Checks {
		ran = append(ran, c.ID)
		if len(c.Findings) == 0 {
			t.Errorf("%s says nothing", c.ID)
		}
	}
	var all []string
	for _, c := range checks {
		all = append(all, c.id)
	}
	if !slices.Equal(ran, all) {
		t.Errorf("it ran %q, not %q", ran, all)
	}
	report.wants(t, "keyspace", "ok", "", "4 sessions, 2 indexes of subjects, 0 tickets")
	report.wants(t, "records", "ok", "", "4 sessions were read")
	report.wants(t, "sizes", "ok", "", `"alice" 3, "bob" 1`)
	report.wants(t, "persistence", "ok", "", "AOF, appendfsync")

	exit, stdout, stderr := runDoctor(t, map[string]string{"REDIS_URL": urlOf(server)})
	if exit != exitOK || stderr != "" || !strings.Contains(stdout, "\nIn short: "+strconv.Itoa(len(report.Checks)+1)+" ok") {
		t.Errorf("exit code %d, and the text\n%s%s", exit, stdout, stderr)
	}
}

// The scenario: somebody who has never seen the library finds the cause in one
// command. The Redis evicts, as many are set up to do.
func TestDoctorFindsWhyUsersAreLoggedOutAtRandom(t *testing.T) {
	server := startRedis(t, "--maxmemory", "4mb", "--maxmemory-policy", "allkeys-lru")
	rdb := server.Client(t)
	shop := newShop(t, rdb, echosession.Config{SubjectIndex: true})
	cart := []string{strings.Repeat("a thing ", 500)}
	for i := range 1500 {
		if _, err := shop.Create(t.Context(), shopper{Cart: cart}, echosession.WithSubject("user-"+strconv.Itoa(i))); err != nil {
			t.Fatal(err)
		}
	}
	exit, stdout, _ := runDoctor(t, nil, urlOf(server))
	if exit != exitCritical {
		t.Errorf("exit code %d", exit)
	}
	var critical []string
	for line := range strings.Lines(stdout) {
		if strings.HasPrefix(line, "[critical]") {
			critical = append(critical, line)
		}
	}
	if len(critical) == 0 || !strings.Contains(critical[0], "when Redis is full, it throws keys away, sessions among them (allkeys-lru): users are logged out at random") {
		t.Fatalf("the first critical finding is not the cause:\n%s", stdout)
	}
	_, rest, _ := strings.Cut(stdout, critical[0])
	advice, rest, _ := strings.Cut(rest, "\n")
	link, _, _ := strings.Cut(rest, "\n")
	if !strings.Contains(advice, "maxmemory-policy noeviction") || !strings.HasSuffix(link, "docs/doctor.md#evicted-sessions") {
		t.Errorf("what to do is %q, the link %q", advice, link)
	}
	_, summary, ok := strings.Cut(stdout, "\nIn short: ")
	_, first, _ := strings.Cut(summary, "\n")
	if !ok || !strings.HasPrefix(first, strings.TrimSuffix(critical[0], "\n")) {
		t.Errorf("the summary does not begin with it:\n%s", summary)
	}
}

// In the summary the worst comes first, whatever the order of the checks.
func TestDoctorSummaryIsInOrderOfSeverity(t *testing.T) {
	var out bytes.Buffer
	p := newReport(&out, false, "sess:")
	for i, add := range []func(r *result){
		func(r *result) { r.ok("fine") },
		func(r *result) { r.unknown("a", "", "a question") },
		func(r *result) { r.warning("b", "", "a warning") },
		func(r *result) { r.skipped("c", "", "left out") },
		func(r *result) { r.critical("d", "", "a disaster") },
	} {
		r := new(result)
		add(r)
		p.note(check{id: "check" + strconv.Itoa(i)}, r)
	}
	if exit := p.end(); exit != exitCritical {
		t.Errorf("exit code %d", exit)
	}
	_, summary, _ := strings.Cut(out.String(), "In short: ")
	const want = `1 critical, 1 warning, 1 unknown, 1 skipped, 1 ok
[critical] check4: a disaster
[warning]  check2: a warning
[unknown]  check1: a question
`
	if summary != want {
		t.Errorf("the summary is\n%s, not\n%s", summary, want)
	}
}

func TestDoctorSummaryCounts(t *testing.T) {
	for _, tt := range []struct {
		status status
		n      int
		want   string
	}{
		{statusWarning, 1, "1 warning"}, {statusWarning, 2, "2 warnings"}, {statusCritical, 2, "2 critical"}, {statusUnknown, 3, "3 unknown"},
		{statusSkipped, 2, "2 skipped"}, {statusOK, 17, "17 ok"}, {statusOK, 1234, "1,234 ok"},
	} {
		if got := tt.status.count(tt.n); got != tt.want {
			t.Errorf("it writes %q, not %q", got, tt.want)
		}
	}
}

func TestDoctorExitCodes(t *testing.T) {
	for _, tt := range []struct {
		statuses []status
		want     int
	}{
		{[]status{statusOK, statusSkipped, statusUnknown}, exitOK},
		{[]status{statusOK, statusWarning, statusUnknown}, exitWarning},
		{[]status{statusWarning, statusCritical, statusOK}, exitCritical},
		{[]status{statusUnknown, statusSkipped}, exitUnknown},
		{nil, exitUnknown},
	} {
		p := newReport(new(bytes.Buffer), false, "")
		for _, s := range tt.statuses {
			r := new(result)
			r.add(finding{Status: s})
			p.note(check{}, r)
		}
		if got := p.end(); got != tt.want {
			t.Errorf("%v: exit code %d, not %d", tt.statuses, got, tt.want)
		}
	}
}

// What is the same on several servers takes one line.
func TestDoctorMergesServers(t *testing.T) {
	r := new(result)
	for _, server := range []string{"a", "b", "c"} {
		r.server = server
		if server == "b" {
			r.warning("x", "", "odd")
		} else {
			r.ok("fine")
		}
	}
	got := merge(r.findings)
	if len(got) != 2 || got[0].Server != "a, c" || got[1].Server != "b" {
		t.Errorf("merged: %+v", got)
	}
}

func TestDoctorListAndSkip(t *testing.T) {
	exit, stdout, _ := runDoctor(t, nil, "-list")
	if lines := strings.Count(stdout, "\n"); exit != exitOK || lines != len(checks) || !strings.HasPrefix(stdout, "server ") {
		t.Errorf("exit code %d, %d lines:\n%s", exit, lines, stdout)
	}
	server := startRedis(t)
	report := diagnose(t, nil, "-skip", "latency, persistence,sizes", urlOf(server))
	if report.Exit != exitOK || len(report.Checks) != len(checks)-3 || len(report.of("latency"))+len(report.of("persistence")) > 0 {
		t.Errorf("exit code %d, %d checks: %+v", report.Exit, len(report.Checks), report)
	}
}

func TestDoctorUsage(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"-skip", "cache", "redis://127.0.0.1:1"}, `no check "cache"`},
		{[]string{"-uses", "cache", "redis://127.0.0.1:1"}, `no feature "cache"`},
		{[]string{"-sample", "-1", "redis://127.0.0.1:1"}, "from 0 on"},
		{[]string{"redis://127.0.0.1:1", "sess:"}, "the only argument is a Redis"},
		{[]string{"-encryption-key-file", "missing", "redis://127.0.0.1:1"}, "missing"},
		{nil, "name a Redis"},
	} {
		exit, stdout, stderr := runDoctor(t, nil, tt.args...)
		if exit != exitUnknown || stdout != "" || !strings.Contains(stderr, tt.want) {
			t.Errorf("%q: exit code %d\n%s%s", tt.args, exit, stdout, stderr)
		}
	}
}

func TestDoctorWithoutAConnection(t *testing.T) {
	server := startRedis(t, "--requirepass", "open")
	for _, tt := range []struct {
		name, url, password, text string
	}{
		{"nobody listens", "redis://127.0.0.1:1", "", "refused"},
		{"no password", urlOf(server), "", "NOAUTH"},
		{"the wrong password", urlOf(server), "shut", "WRONGPASS"},
		{"TLS to a port without", strings.Replace(urlOf(server), "redis:", "rediss:", 1), "open", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			report := diagnose(t, map[string]string{"REDISCLI_AUTH": tt.password}, "-timeout", "2s", tt.url)
			found := report.of("connection")
			if report.Exit != exitUnknown || len(found) != 1 || found[0].ID != "no-connection" || !strings.Contains(found[0].Text, tt.text) {
				t.Errorf("exit code %d: %+v", report.Exit, report)
			}
		})
	}
	report := diagnose(t, map[string]string{"REDISCLI_AUTH": "open"}, urlOf(server))
	report.wants(t, "server", "ok", "", "up for")
}

func TestDoctorIsInterrupted(t *testing.T) {
	server := startRedis(t)
	proxy := redistest.NewProxy(t, server.Addr())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	proxy.On(func(cmd []string) bool {
		if cmd[0] == "SCAN" {
			cancel()
		}
		return cmd[0] == "SCAN"
	}, -1, redistest.Hang())
	var out, errs bytes.Buffer
	exit := run(ctx, []string{"doctor", "redis://" + proxy.Addr()}, &invocation{stdout: &out, stderr: &errs, getenv: func(string) string { return "" }})
	if exit != exitUnknown || !strings.Contains(errs.String(), "interrupted") || strings.Contains(out.String(), "In short") {
		t.Errorf("exit code %d\n%s%s", exit, out.String(), errs.String())
	}
}

// doctorWrites are the commands that change something, or wait.
var doctorWrites = []string{"SET", "DEL", "GETDEL", "EXPIRE", "PEXPIRE", "ZADD", "ZREM", "EVAL", "EVALSHA", "PUBLISH", "SUBSCRIBE"}

// doctorReads are all other commands that doctor sends.
var doctorReads = []string{
	"PING", "INFO", "CONFIG", "GET", "GETRANGE", "STRLEN", "PTTL", "SCAN", "ZCARD", "ZRANGE", "ZSCORE", "EXISTS",
	"TIME", "MEMORY", "ACL", "SLOWLOG",
	"GETEX", // without a key that exists, by the library's Ping
}

// It changes nothing but keys of its own, and sends nothing that takes Redis long.
func TestDoctorChangesNothing(t *testing.T) {
	server := startRedis(t)
	rdb := server.Client(t)
	login(t, newShop(t, rdb, echosession.Config{SubjectIndex: true}), "alice", 120)
	ids := login(t, newShop(t, rdb, echosession.Config{}), "bob", 2)
	before := rdb.Do(t.Context(), "debug", "digest").String()
	proxy := redistest.NewProxy(t, server.Addr())
	report := diagnose(t, nil, "-uses", "index,tickets,watch", "redis://"+proxy.Addr())
	if report.Exit != exitWarning || report.Counts["critical"] != 0 {
		t.Errorf("exit code %d: %+v", report.Exit, report)
	}
	if after := rdb.Do(t.Context(), "debug", "digest").String(); after != before {
		t.Errorf("the digest of all keys was %s and is %s", before, after)
	}
	ours := regexp.MustCompile(`^sess:(doctor:|ended:doctor:)[A-Z0-9]{26}$`)
	known := make(map[string]bool)
	for _, id := range ids {
		known[id] = true
	}
	writes := 0
	for _, cmd := range proxy.Commands() {
		switch name := cmd[0]; {
		case !slices.Contains(doctorReads, name) && !slices.Contains(doctorWrites, name):
			t.Errorf("it sends %q", cmd)
		case name == "SCAN" && !slices.Contains(cmd, strconv.Itoa(scanCount)),
			name == "ZRANGE" && cmd[2] != strconv.Itoa(-entriesRead),
			name == "MEMORY" && (len(cmd) != 5 || cmd[4] != "1"),
			name == "CONFIG" && (!strings.EqualFold(cmd[1], "get") || !slices.Contains(settingNames, cmd[2])),
			name == "GETRANGE" && cmd[3] != "0" && cmd[3] != strconv.Itoa(readMost):
			t.Errorf("it sends %q", cmd)
		case slices.Contains(doctorWrites, name) && ours.MatchString(cmd[1]):
			writes++
			if name == "SET" && (!strings.EqualFold(cmd[3], "ex") || cmd[4] != "5") {
				t.Errorf("it sends %q, with another lifetime", cmd)
			}
		case slices.Contains(doctorWrites, name):
			// The library's Ping: with XX, or on keys that do not exist.
			if key := cmd[len(cmd)-1]; known[strings.TrimPrefix(key, "sess:")] {
				t.Errorf("it sends %q", cmd)
			}
		}
	}
	if writes < 4 {
		t.Errorf("only %d writes were seen", writes)
	}
}

// The library passes over doctor's own keys, and no two runs use the same.
func TestDoctorKeysAreNoSessions(t *testing.T) {
	server := startRedis(t)
	rdb := server.Client(t)
	shop := newShop(t, rdb, echosession.Config{})
	login(t, shop, "alice", 1)
	x := &examination{target: &target{keyspace: "sess:"}, client: rdb}
	key, err := x.scratchKey(t.Context(), &node{})
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := x.scratchKey(t.Context(), &node{}); again == key {
		t.Errorf("%s, twice", key)
	}
	record, err := rdb.Get(t.Context(), rdb.Keys(t.Context(), "sess:*").Val()[0]).Result()
	if err != nil {
		t.Fatal(err)
	}
	if err := rdb.Set(t.Context(), key, record, scratchLife).Err(); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err := range shop.All(t.Context()) {
		if err != nil {
			t.Error(err)
		}
		n++
	}
	if n != 1 {
		t.Errorf("the library found %d sessions", n)
	}
	if kind, _ := classify(strings.TrimPrefix(key, "sess:")); kind != scratchKey {
		t.Errorf("%s is of kind %d", key, kind)
	}
}

// doctorIDs returns the IDs of all findings, out of the source.
func doctorIDs(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob("doctor*.go")
	if err != nil {
		t.Fatal(err)
	}
	ids := make(map[string]bool)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(gotoken.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			name := ""
			switch fun := call.Fun.(type) {
			case *ast.SelectorExpr:
				name = fun.Sel.Name
			case *ast.Ident:
				name = fun.Name
			}
			if !slices.Contains([]string{"warning", "critical", "unknown", "skipped", "add"}, name) || len(call.Args) < 3 {
				return true
			}
			if lit, ok := call.Args[0].(*ast.BasicLit); ok {
				id, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				ids[id] = true
			}
			return true
		})
	}
	for _, refusal := range refusals {
		ids[refusal.id] = true
	}
	return ids
}

// Each finding has a paragraph, and each paragraph a finding. It says which checks find it.
func TestDoctorPage(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "doctor.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, part, ok := strings.Cut(string(text), "\n## What doctor says\n")
	if !ok {
		t.Fatal("the part is missing")
	}
	part, _, _ = strings.Cut(part, "\n## ")
	anchors := make(map[string]string)
	for _, paragraph := range strings.Split(part, "\n### ")[1:] {
		heading, body, _ := strings.Cut(paragraph, "\n")
		anchors[strings.ReplaceAll(strings.ToLower(heading), " ", "-")] = strings.TrimSpace(body)
	}
	ids := doctorIDs(t)
	if len(ids) < 50 {
		t.Errorf("only %d findings were found in the source", len(ids))
	}
	for id := range ids {
		if anchors[id] == "" {
			t.Errorf("docs/doctor.md has no paragraph for %s", id)
		}
	}
	for id, body := range anchors {
		if !ids[id] {
			t.Errorf("docs/doctor.md has a paragraph for %s, which nothing finds", id)
		}
		first, _, _ := strings.Cut(body, ".")
		for _, name := range regexp.MustCompile("`([^`]*)`").FindAllStringSubmatch(first, -1) {
			if name[1] != "connection" && !slices.ContainsFunc(checks, func(c check) bool { return c.id == name[1] }) {
				t.Errorf("%s: there is no check %s", id, name[1])
			}
		}
	}
	// What the page grants a user of doctor's own is enough.
	if rights := regexp.MustCompile(`(?m)^\+ping .*$`).FindString(string(text)); rights == "" {
		t.Error("the page does not say what rights doctor needs")
	} else {
		enough(t, strings.Fields(rights))
	}
}

// enough checks that with these rights and those of sessions nothing stays unknown, and that
// each of them is needed.
func enough(t *testing.T, rights []string) {
	server := startRedis(t)
	rdb := server.Client(t)
	login(t, newShop(t, rdb, echosession.Config{SubjectIndex: true}), "alice", 2)
	granted := rights
	for command := range strings.FieldsSeq(sessionCommands) {
		granted = append(granted, "+"+command)
	}
	try := func(granted []string) doctorReport {
		args := []any{"acl", "setuser", "doctor", "reset", "on", ">open", "~sess:*", "&sess:ended*"}
		for _, right := range granted {
			args = append(args, right)
		}
		if err := rdb.Do(t.Context(), args...).Err(); err != nil {
			t.Fatal(err)
		}
		return diagnose(t, map[string]string{"REDISCLI_AUTH": "open"}, "redis://doctor@"+server.Addr())
	}
	all := try(granted)
	if n := all.Counts["unknown"]; n > 0 {
		t.Errorf("%d checks are unknown with the rights of docs/doctor.md: %+v", n, all)
	}
	for i, right := range rights {
		less := try(slices.Delete(slices.Clone(granted), i, i+1))
		if fmt.Sprint(less.Counts) == fmt.Sprint(all.Counts) && !strings.Contains(right, "acl|") && right != "+memory|usage" {
			t.Errorf("docs/doctor.md grants %s, which nothing needs", right)
		}
	}
}
