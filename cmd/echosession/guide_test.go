package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

var updateGuide = flag.Bool("update", false, "write the outputs in docs/command.md anew")

const guide = "../../docs/command.md"

// The guide shows what the command really writes, and has a section for each word.
func TestGuideShowsWhatTheCommandWrites(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(guide)
	must(t, err)
	for _, c := range commands {
		if !strings.Contains(string(text), "\n## "+c.name+"\n") {
			t.Errorf("the guide has no section on %s", c.name)
		}
	}
	outputs := guideOutputs(t)
	block := regexp.MustCompile("(<!-- output: (\\w+) -->\n```\n)((?s).*?)(```\n)")
	shown := 0
	updated := block.ReplaceAllStringFunc(string(text), func(found string) string {
		m := block.FindStringSubmatch(found)
		want, ok := outputs[m[2]]
		if !ok {
			t.Errorf("no output of %s", m[2])
		}
		shown++
		if m[3] != want && !*updateGuide {
			t.Errorf("the guide shows of %s\n%s\nand it writes\n%s\nSee -update.", m[2], m[3], want)
		}
		return m[1] + want + m[4]
	})
	if shown != len(commands) || shown != len(outputs) {
		t.Errorf("the guide shows %d outputs; there are %d commands", shown, len(commands))
	}
	if *updateGuide && !t.Failed() {
		must(t, os.WriteFile(guide, []byte(updated), 0o644))
	}
}

// guideOutputs runs each word once on prepared sessions.
func guideOutputs(t *testing.T) map[string]string {
	t.Helper()
	server := redistest.Start(t, "--maxmemory-policy", "allkeys-lru")
	now := time.Now()
	p := newProgram(t, "redis://"+server.Addr(), server.Client(t), echosession.Config{SubjectIndex: true, Now: func() time.Time { return now }})
	clean := &cleaner{server: server.Addr(), keyspace: p.keyspace, ids: make(map[string]string)}
	outputs := make(map[string]string)
	shell := func(shown, name string, args ...string) {
		t.Helper()
		o := invoke(t, environment{}, append([]string{name}, args...)...)
		if outputs[name] = clean.text("$ echosession " + shown + "\n" + o.all()); o.code == exitUnknown {
			t.Errorf("%s: %s", shown, o.all())
		}
	}
	in := []string{"-keyspace", p.keyspace, p.url}

	now = now.Add(-49*time.Hour - 20*time.Minute)
	phone := p.login(t, "ada", echosession.WithDevice("Pixel 9"), echosession.Remember(30*day))
	now = now.Add(46 * time.Hour)
	laptop := p.login(t, "ada", echosession.WithDevice("Firefox on Linux"))
	now = now.Add(3*time.Hour + 20*time.Minute)

	shell("list -subject ada", "list", append(in, "-subject", "ada")...)
	shell("show "+laptop.LogID(), "show", append(in, laptop.LogID())...)
	tokenFile, secretFile := fileOf(t, laptop.Token()), fileOf(t, string(testSecret))
	shell("token -key-file secret.txt token.txt", "token", "-key-file", secretFile, tokenFile)
	shell("revoke -yes "+phone.LogID(), "revoke", append(in, "-yes", phone.LogID())...)
	key := filepath.Join(t.TempDir(), "signing.pem")
	shell("keygen -type ed25519 -out signing.pem", "keygen", "-type", "ed25519", "-out", key)
	outputs["keygen"] = strings.ReplaceAll(outputs["keygen"], key, "signing.pem")

	w := guideWatch(t, p, laptop)
	outputs["watch"] = clean.text("$ echosession watch\n" + w)

	// The times are far from the edges of what is shown: a test may take a while.
	unusedFor := []time.Duration{20 * time.Second, 3 * time.Minute, 10 * time.Minute, 10 * time.Minute, 40 * time.Minute, 40 * time.Minute, 40 * time.Minute}
	for len(unusedFor) < 12 {
		unusedFor = append(unusedFor, 4*time.Hour+30*time.Second)
	}
	for len(unusedFor) < 19 {
		unusedFor = append(unusedFor, 18*time.Hour+30*time.Second)
	}
	unusedFor = append(unusedFor, 23*time.Hour+40*time.Minute+10*time.Second)
	many(t, p.client, echosession.Config{Keyspace: p.keyspace, SubjectIndex: true}, 5000, func(i int) (age, unused time.Duration, opts []echosession.CreateOption) {
		subject := fmt.Sprint("user-", i/2+i%2*(i%200))
		if i%50 < 2 {
			subject = []string{"monitoring", "nightly-import"}[i%2]
		}
		unused = unusedFor[i%20]
		return unused + time.Duration(i%41)*day + time.Hour, unused, []echosession.CreateOption{echosession.WithSubject(subject)}
	})
	shell("stats", "stats", append(in, "-top", "2")...)
	shell("doctor", "doctor", append(in, "-skip", "latency,slow,clock,persistence")...)
	_, end, _ := strings.Cut(outputs["doctor"], "\nIn short")
	outputs["doctor"] = "$ echosession doctor\n...\nIn short" + end
	return outputs
}

// guideWatch returns what watch writes while a session is created, rotated and ended.
func guideWatch(t *testing.T, p *program, laptop *echosession.Session[user]) string {
	t.Helper()
	w := startWatchForPeople(t, "-interval", "50ms", "-keyspace", p.keyspace, p.url)
	wait := func(line string) {
		t.Helper()
		for range 2000 {
			if strings.Contains(strings.Join(w.stdout.list(), "\n"), line) {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatalf("watch does not write %q: %q", line, w.stdout.list())
	}
	sess := p.login(t, "bob")
	wait("created    " + sess.ID())
	from := laptop.ID()
	rotate(t, laptop)
	wait("rotated    " + from)
	wait("ended      " + logout(t, sess))
	last := w.end()
	return w.stderr.list()[0] + "\n" + strings.Join(w.stdout.list(), "\n") + "\n^C\n" + last + "\n"
}

// A cleaner replaces in an output what differs from run to run.
type cleaner struct {
	server, keyspace string
	ids              map[string]string
	seconds          int
}

var (
	idPattern     = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	clockPattern  = regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d\.\d{3}`)
	datePattern   = regexp.MustCompile(`20\d\d-\d\d-\d\d([ T])\d\d:\d\d(:\d\d(\.\d+)?)?`)
	issuedPattern = regexp.MustCompile(`"iat": \d+`)
	uptimePattern = regexp.MustCompile(`started, \d+ [a-z]+ ago`)
	agePattern    = regexp.MustCompile(`bob  age \d+s`)
	tookPattern   = regexp.MustCompile(`in \d+\.\d s`)
	lookPattern   = regexp.MustCompile(`takes \d+ms or less, and the next one follows after 50ms`)
)

func (c *cleaner) text(text string) string {
	for _, id := range idPattern.FindAllString(text, -1) {
		if _, known := c.ids[id]; !known {
			c.ids[id] = fmt.Sprintf("%08x-5c1a-4d0e-9b7f-3a2c1e8d4b60", 0x1f0a2b3c*(len(c.ids)+1)&0x7fffffff)
		}
	}
	for id, shown := range c.ids {
		text = strings.ReplaceAll(text, id, shown)
		text = strings.ReplaceAll(text, echosession.LogID(id), echosession.LogID(shown))
	}
	text = strings.NewReplacer(c.server, "localhost:6379", c.keyspace, "sess:").Replace(text)
	text = clockPattern.ReplaceAllStringFunc(text, func(string) string {
		c.seconds++
		return fmt.Sprintf("12:00:%02d.000", c.seconds)
	})
	text = datePattern.ReplaceAllStringFunc(text, func(at string) string {
		m := datePattern.FindStringSubmatch(at)
		shown := "2026-11-24" + m[1] + "12:00"
		if m[2] != "" {
			shown += ":00"
		}
		return shown
	})
	text = issuedPattern.ReplaceAllString(text, `"iat": 1795521600`)
	text = uptimePattern.ReplaceAllString(text, "started, 40 seconds ago")
	text = agePattern.ReplaceAllString(text, "bob  age 0s")
	text = tookPattern.ReplaceAllString(text, "in 0.1 s")
	return lookPattern.ReplaceAllString(text, "takes 1ms or less, and the next one follows after 1s")
}
