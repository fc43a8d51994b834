package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// doctorPage has a paragraph for each finding.
const doctorPage = "https://github.com/echosession/echosession/blob/main/docs/doctor.md"

var doctorCommand = command{
	name:    "doctor",
	summary: "find what is wrong with the Redis that keeps the sessions",
	usage:   "[flags] [URL]",
	help: `It looks at the server, its settings and the sessions in it, and prints a line for each
thing that it has checked: [ok], [warning] or [critical], with what to do about it. It
prints [unknown] where the user lacks a right, and [skipped] where nothing was looked at.
In the end it lists what is wrong, the worst first. docs/doctor.md of the project says what each
finding means, and which rights in Redis it uses:

	` + doctorPage + `

It changes nothing in Redis but a few keys of its own, which it deletes and which live for
seconds. It never blocks Redis for more than a few milliseconds. Of a large keyspace it
reads the names, and a sample of the values: -sample.

The exit code is 0 if all is well, 1 after a warning, 2 after a critical finding, and 3 if
it could not find out anything.

Examples:

	echosession doctor redis://localhost:6379
	echosession doctor -keyspace shop: -uses index,watch rediss://redis.internal:6379
	echosession doctor -user sessions redis://admin@redis.internal:6379
	echosession doctor -sentinel mymaster redis://a:26379,b:26379,c:26379
	echosession doctor -json -skip latency,clock | jq '.checks[] | select(.status == "critical")'
`,
	define: defineDoctor,
}

// A check looks at one thing. To add one takes a row in checks, and a heading in
// docs/doctor.md for each of its findings.
type check struct {
	id    string
	title string
	run   func(ctx context.Context, x *examination, r *result)
}

// checks are in the order in which they run. What explains other findings comes first.
var checks = []check{
	{"server", "the kind and version of the server", checkServers},
	{"eviction", "what Redis throws away when it is full", each(checkEviction)},
	{"writes", "a key of its own: written, read, deleted", each(checkWrites)},
	{"memory", "memory in use, and what is left", each(checkMemory)},
	{"persistence", "what survives a restart", each(checkPersistence)},
	{"replicas", "replicas, and how far they are behind", each(checkReplicas)},
	{"failover", "Sentinel or Cluster: what happens when a primary is lost", checkFailover},
	{"clients", "connections, and the limits for them", each(checkClients)},
	{"latency", "100 PINGs from this machine", each(checkLatency)},
	{"slow", "commands that block Redis", each(checkSlow)},
	{"clock", "the server's clock against this machine's", each(checkClock)},
	{"access", "TLS and a password, if others can reach Redis", each(checkAccess)},
	{"keyspace", "the sessions, indexes and tickets, counted", checkKeyspace},
	{"lifetimes", "keys that never expire", checkLifetimes},
	{"records", "sessions that cannot be read", checkRecords},
	{"index", "the indexes of subjects against their sessions", checkIndex},
	{"sizes", "the largest sessions, the subjects with the most", checkSizes},
	{"rights", "what the user of Redis may do", each(checkRights)},
	{"pubsub", "a message published and heard", each(checkPubSub)},
}

// A status is how a check has ended. The later ones are worse.
type status int

const (
	statusOK status = iota
	statusSkipped
	statusUnknown
	statusWarning
	statusCritical
)

var statusNames = [...]string{"ok", "skipped", "unknown", "warning", "critical"}

// count writes how many findings have a status: "2 warnings", "17 ok".
func (s status) count(n int) string {
	if s == statusWarning {
		return countOf(n, s.String())
	}
	return grouped(n) + " " + s.String()
}

func (s status) String() string               { return statusNames[s] }
func (s status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A finding is one thing that a check has found out.
type finding struct {
	ID     string `json:"id,omitempty"` // its heading in docs/doctor.md; "" if all is well
	Status status `json:"status"`
	Server string `json:"server,omitempty"` // which of several
	Text   string `json:"text"`
	Advice string `json:"advice,omitempty"`
	Link   string `json:"link,omitempty"`
}

// line is the finding for people, without what to do.
func (f *finding) line(check string) string {
	where := ""
	if f.Server != "" {
		where = f.Server + ": "
	}
	return fmt.Sprintf("%-10s %s: %s", "["+f.Status.String()+"]", check, printable(where+f.Text))
}

// A result collects what one check finds out.
type result struct {
	server   string // of the findings that are added next
	findings []finding
}

func (r *result) add(f finding) {
	f.Server = r.server
	if f.ID != "" {
		f.Link = doctorPage + "#" + f.ID
	}
	r.findings = append(r.findings, f)
}

func (r *result) ok(format string, args ...any) {
	r.add(finding{Status: statusOK, Text: fmt.Sprintf(format, args...)})
}

func (r *result) skipped(id, advice, format string, args ...any) {
	r.add(finding{id, statusSkipped, "", fmt.Sprintf(format, args...), advice, ""})
}

func (r *result) unknown(id, advice, format string, args ...any) {
	r.add(finding{id, statusUnknown, "", fmt.Sprintf(format, args...), advice, ""})
}

func (r *result) warning(id, advice, format string, args ...any) {
	r.add(finding{id, statusWarning, "", fmt.Sprintf(format, args...), advice, ""})
}

func (r *result) critical(id, advice, format string, args ...any) {
	r.add(finding{id, statusCritical, "", fmt.Sprintf(format, args...), advice, ""})
}

// denied notes that a command gave no answer: mostly because the user may not use it.
func (r *result) denied(right string, err error) {
	r.unknown("what-doctor-may-not-ask", "Grant "+right+", or run doctor as another user.", "%s: %s", right[1:], reply(err))
}

// reply is a server's error in one short line.
func reply(err error) string {
	switch {
	case err == nil:
		return "no answer"
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	}
	text, _, _ := strings.Cut(err.Error(), "\n")
	if len(text) > 200 {
		text = text[:200] + "..."
	}
	return text
}

// An examination is one run of doctor.
type examination struct {
	target  *target
	options *redis.UniversalOptions
	client  redis.UniversalClient
	nodes   []*node // the servers that hold sessions: one, or the primaries of a Cluster
	lost    []*node // those that do not answer

	user         string        // whose rights are looked at; "": those of the own user
	uses         []string      // features that the programs use
	waitReplicas int           // Config.WaitReplicas of the programs
	sample       int           // how many sessions to read; 0: all
	keys         [][]byte      // that open encrypted records
	timeout      time.Duration // of one call

	now    func() time.Time // the clock of this machine
	survey *survey          // of the keyspace, once it was made
}

// each makes one check of the checks of all servers.
func each(run func(ctx context.Context, x *examination, n *node, r *result)) func(context.Context, *examination, *result) {
	return func(ctx context.Context, x *examination, r *result) {
		for _, n := range x.nodes {
			if len(x.nodes) > 1 {
				r.server = n.addr
			}
			run(ctx, x, n, r)
		}
		r.server = ""
	}
}

// doctorFlags are the flags of doctor alone.
type doctorFlags struct {
	target
	json, list   bool
	skip, uses   string
	user         string
	sample       int
	waitReplicas int
	keyFile      string
}

func defineDoctor(fs *flag.FlagSet) func(ctx context.Context, inv *invocation) (exit int, err error) {
	f := new(doctorFlags)
	f.target.define(fs)
	defineJSON(fs, &f.json)
	fs.BoolVar(&f.list, "list", false, "list the checks, and look at nothing")
	fs.StringVar(&f.skip, "skip", "", "`checks` to leave out, as in latency,clock")
	fs.StringVar(&f.uses, "uses", "", "`features` that your programs use, as in index,watch, whose rights the user of Redis needs: "+strings.Join(featureIDs(), ", "))
	fs.StringVar(&f.user, "user", "", "look at the rights of this `user` of Redis, not at your own; needs Redis 7")
	fs.IntVar(&f.sample, "sample", 10_000, "how many sessions to read; 0 reads all")
	fs.IntVar(&f.waitReplicas, "wait-replicas", 0, "Config.WaitReplicas of your programs")
	defineEncryptionKeys(fs, &f.keyFile)
	return f.run
}

func (f *doctorFlags) run(ctx context.Context, inv *invocation) (int, error) {
	if f.list {
		return exitOK, listChecks(inv.stdout)
	}
	chosen, err := choose(f.skip)
	if err != nil {
		return exitUnknown, err
	}
	x, err := f.examine(ctx, inv)
	if _, wrong := errors.AsType[errUsage](err); wrong {
		return exitUnknown, err
	}
	report := newReport(inv.stdout, f.json, f.keyspace)
	if err != nil {
		report.note(check{id: "connection"}, notConnected(err))
		return report.end(), ctx.Err()
	}
	defer x.client.Close()
	report.begin(x)
	for _, c := range chosen {
		r := new(result)
		c.run(ctx, x, r)
		if ctx.Err() != nil {
			return exitUnknown, ctx.Err()
		}
		report.note(c, r)
	}
	return report.end(), nil
}

// examine connects, and asks each server what the checks need.
func (f *doctorFlags) examine(ctx context.Context, inv *invocation) (*examination, error) {
	x := &examination{
		target: &f.target, user: f.user, sample: f.sample, waitReplicas: f.waitReplicas, timeout: f.timeout, now: time.Now,
	}
	if f.sample < 0 || f.waitReplicas < 0 {
		return nil, errUsage("-sample and -wait-replicas are numbers from 0 on")
	}
	for use := range strings.SplitSeq(f.uses, ",") {
		if use == "" {
			continue
		}
		if !slices.Contains(featureIDs(), use) {
			return nil, errUsage(fmt.Sprintf("-uses: there is no feature %q; there are %s", use, strings.Join(featureIDs(), ", ")))
		}
		x.uses = append(x.uses, use)
	}
	if f.keyFile != "" {
		var err error
		if x.keys, err = readEncryptionKeys(f.keyFile); err != nil {
			return nil, errUsage(err.Error())
		}
	}
	if err := inv.noArguments(); err != nil {
		return nil, err
	}
	args := *inv // connect takes the URL out of the arguments again
	var err error
	if x.options, err = f.settings(&args); err != nil {
		return nil, errUsage(err.Error())
	}
	x.client, err = f.connect(ctx, inv)
	if redis.HasErrorPrefix(err, "NOPERM") {
		// The check rights says what this user lacks.
		x.client, err = redis.NewUniversalClient(x.options), nil
	}
	if err != nil {
		return nil, err
	}
	x.nodes, err = findNodes(ctx, x)
	if err != nil {
		_ = x.client.Close()
	}
	return x, err
}

// notConnected is the result where there is nothing to look at. The error says itself what
// to look at.
func notConnected(err error) *result {
	r := new(result)
	r.unknown("no-connection", "Look at the address, the port and the firewall, at the password and at TLS, and whether Redis runs.", "%s", reply(err))
	return r
}

// choose returns the checks that are not to be skipped.
func choose(skip string) ([]check, error) {
	chosen := slices.Clone(checks)
	for id := range strings.SplitSeq(skip, ",") {
		if id = strings.TrimSpace(id); id == "" {
			continue
		}
		if !slices.ContainsFunc(checks, func(c check) bool { return c.id == id }) {
			return nil, errUsage(fmt.Sprintf("-skip: there is no check %q; -list shows them", id))
		}
		chosen = slices.DeleteFunc(chosen, func(c check) bool { return c.id == id })
	}
	return chosen, nil
}

func listChecks(w io.Writer) error {
	for _, c := range checks {
		if _, err := fmt.Fprintf(w, "%-12s %s\n", c.id, c.title); err != nil {
			return err
		}
	}
	return nil
}

// A report is what doctor prints: line by line for people, at the end for programs.
type report struct {
	w      io.Writer
	asJSON bool
	doc    doctorDocument
}

// A doctorDocument is what -json prints. Version changes when a program that reads it would
// have to.
type doctorDocument struct {
	Version  int             `json:"version"`
	Program  string          `json:"program"`
	Server   *doctorServer   `json:"server,omitempty"`
	Keyspace string          `json:"keyspace"`
	Status   status          `json:"status"`
	Exit     int             `json:"exit"`
	Counts   map[string]int  `json:"counts"`
	Checks   []doctorChecked `json:"checks"`
}

type doctorServer struct {
	Kind     string   `json:"kind"`
	Version  string   `json:"version,omitempty"`
	Topology string   `json:"topology"`
	Servers  []string `json:"servers"`
}

type doctorChecked struct {
	ID       string    `json:"id"`
	Title    string    `json:"title,omitempty"`
	Status   status    `json:"status"`
	Findings []finding `json:"findings"`
}

func newReport(w io.Writer, asJSON bool, keyspace string) *report {
	program := "(unknown)"
	if info, ok := debug.ReadBuildInfo(); ok {
		program = cmp.Or(info.Main.Version, "(devel)")
	}
	return &report{w: w, asJSON: asJSON, doc: doctorDocument{
		Version: 1, Program: "echosession " + program, Keyspace: keyspace, Counts: make(map[string]int), Checks: []doctorChecked{},
	}}
}

// begin says what is looked at.
func (p *report) begin(x *examination) {
	p.doc.Server = x.describe()
	if !p.asJSON {
		s := p.doc.Server
		fmt.Fprintln(p.w, printable(fmt.Sprintf("%s, %s: %s; keyspace %s", strings.TrimSpace(s.Kind+" "+s.Version), s.Topology, strings.Join(s.Servers, " "), p.doc.Keyspace))+"\n")
	}
}

// note prints and keeps what a check has found out.
func (p *report) note(c check, r *result) {
	findings := merge(r.findings)
	checked := doctorChecked{ID: c.id, Title: c.title, Findings: findings}
	for _, f := range findings {
		checked.Status = max(checked.Status, f.Status)
		p.doc.Counts[f.Status.String()]++
		if !p.asJSON {
			p.print(c.id, f)
		}
	}
	p.doc.Checks = append(p.doc.Checks, checked)
}

// merge puts together what is the same on several servers.
func merge(findings []finding) (merged []finding) {
	merged = []finding{}
	for _, f := range findings {
		same := slices.IndexFunc(merged, func(m finding) bool {
			return m.ID == f.ID && m.Status == f.Status && m.Text == f.Text && m.Advice == f.Advice
		})
		if same < 0 {
			merged = append(merged, f)
		} else {
			merged[same].Server += ", " + f.Server
		}
	}
	return merged
}

func (p *report) print(id string, f finding) {
	fmt.Fprintln(p.w, f.line(id))
	for _, more := range []string{f.Advice, f.Link} {
		if more != "" {
			fmt.Fprintf(p.w, "%-10s %s\n", "", printable(more))
		}
	}
}

// end prints the summary, and returns the exit code.
func (p *report) end() int {
	for _, c := range p.doc.Checks {
		p.doc.Status = max(p.doc.Status, c.Status)
	}
	p.doc.Exit = p.exit()
	if p.asJSON {
		encoder := json.NewEncoder(p.w)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		_ = encoder.Encode(p.doc)
		return p.doc.Exit
	}
	fmt.Fprintln(p.w)
	p.summarize()
	return p.doc.Exit
}

func (p *report) exit() int {
	counts := p.doc.Counts
	switch {
	case counts["critical"] > 0:
		return exitCritical
	case counts["warning"] > 0:
		return exitWarning
	case counts["ok"] > 0:
		return exitOK
	}
	return exitUnknown
}

// summarize prints how many findings there are, and those that need somebody, the worst
// first.
func (p *report) summarize() {
	var parts []string
	for s := statusCritical; s >= statusOK; s-- {
		if n := p.doc.Counts[s.String()]; n > 0 {
			parts = append(parts, s.count(n))
		}
	}
	fmt.Fprintf(p.w, "In short: %s\n", strings.Join(parts, ", "))
	for s := statusCritical; s >= statusUnknown; s-- {
		for _, c := range p.doc.Checks {
			for _, f := range c.Findings {
				if f.Status == s {
					fmt.Fprintln(p.w, f.line(c.ID))
				}
			}
		}
	}
}
