package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// A password on the command line is refused, wherever it stands in the URL, and no message
// repeats it.
func TestPasswordOnTheCommandLine(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"redis://:planted@localhost", "redis://user:planted@localhost:6379/1", "rediss://user:planted@localhost",
		"redis://:pla/planted@localhost", "redis://:pla@planted@localhost", "redis://us@er:planted@localhost", "redis://:pla#planted@localhost", "redis://:pla?planted@localhost",
		"redis://user:planted@a,b", "unix://user:planted@/run/redis.sock", "redis://a,user:planted@b", "redis://:%zzplanted@localhost",
	} {
		for _, args := range [][]string{{"list", url}, {"list", "redis://localhost", url}, {"token", "-", url}, {"keygen", url}, {"show", url, "0b6f3a8e-6d0c-4c1e-9a53-0d7c6a1b2c3d"}} {
			stdin := strings.NewReader("eyJhbGciOiJIUzI1NiJ9.e30.c2ln")
			o := invoke(t, environment{stdin: stdin}, args...)
			o.hides(t, "planted")
			if o.code != exitUnknown || !strings.Contains(o.stderr, "the password stands on the command line") {
				t.Errorf("%q: %d, %s", args, o.code, o.all())
			}
		}
	}
}

// A user's name alone is no secret.
func TestUserOnTheCommandLine(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]bool{
		"redis://user@localhost": false, "redis://localhost:6379": false, "redis://user:@localhost": false, "redis://localhost:6379/0": false,
		"unix:///run/redis:1/redis.sock": false, "redis://u:p@h": true, "redis://[::1]:6379": false, "redis://user@[::1]:6379": false,
	} {
		if got := mayHavePassword(url); got != want {
			t.Errorf("%s: %v", url, got)
		}
	}
}

// A URL that cannot be read is not repeated, nor what is wrong in it: it may be a password.
func TestURLsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"redis://:pla/planted@localhost", "redis://:%zzplanted@localhost", "redis://user:planted@localhost/many", "redis://:planted@localhost?planted=1",
		"redis://:pla#planted@localhost", "http://:planted@localhost", "planted", "unix://user:planted@", "redis://localhost:planted",
	} {
		o := invoke(t, environment{vars: map[string]string{urlVariable: url}}, "list")
		o.wants(t, exitUnknown, "URL of Redis")
		o.hides(t, "planted")
	}
}

// A URL names all that a client needs. TLS compares each server's certificate with its own
// name, whichever host the URL begins with.
func TestSettings(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		url, sentinel string
		addrs, user   string
		db            int
	}{
		{"redis://localhost", "", "localhost:6379", "", 0},
		{"redis://localhost/", "", "localhost:6379", "", 0},
		{"redis://ada@localhost:7000/3", "", "localhost:7000", "ada", 3},
		{"redis://[::1]", "", "[::1]:6379", "", 0},
		{"redis://a,b:7000,c", "", "a:6379 b:7000 c:6379", "", 0},
		{"redis://a,b:7000,c/1", "primary", "a:26379 b:7000 c:26379", "", 1},
		{"rediss://ada@a:1,b", "primary", "a:1 b:26379", "ada", 0},
		{"rediss://a,b", "", "a:6379 b:6379", "", 0},
		{"unix:///run/redis.sock", "", "/run/redis.sock", "", 0},
	} {
		o, err := (&target{sentinel: tt.sentinel}).settings(&invocation{args: []string{tt.url}, getenv: func(string) string { return "" }})
		if err != nil {
			t.Errorf("%s: %v", tt.url, err)
			continue
		}
		if strings.Join(o.Addrs, " ") != tt.addrs || o.Username != tt.user || o.DB != tt.db || o.MasterName != tt.sentinel {
			t.Errorf("%s: %q, user %q, database %d, primary %q", tt.url, o.Addrs, o.Username, o.DB, o.MasterName)
		}
		if withTLS := strings.HasPrefix(tt.url, "rediss"); withTLS != (o.TLSConfig != nil) || withTLS && (o.TLSConfig.ServerName != "" || o.TLSConfig.InsecureSkipVerify) {
			t.Errorf("%s: TLS is %+v", tt.url, o.TLSConfig)
		}
	}
}

func TestPasswords(t *testing.T) {
	t.Parallel()
	const password = "pl/an@ted: \u00e9"
	const quoted = "pl%2Fan%40ted%3A%20%C3%A9"
	server := redistest.Start(t, "--requirepass", password)
	client := server.Client(t, func(o *redis.Options) { o.Password = password })
	if err := client.ACLSetUser(t.Context(), "reader", "on", ">other", "~*", "&*", "+@all").Err(); err != nil {
		t.Fatal(err)
	}
	p := newProgram(t, "redis://"+server.Addr(), client, echosession.Config{})
	sess := p.login(t, "ada")
	file, wrong, empty := fileOf(t, password+"\r\nsecond line\n"), fileOf(t, "planted"), fileOf(t, "\npassword\n")
	reader := "redis://reader@" + server.Addr()
	for _, tt := range []struct {
		name  string
		vars  map[string]string
		args  []string
		code  int
		texts []string
	}{
		{"none", nil, []string{p.url}, exitUnknown, []string{"no connection to Redis: NOAUTH", "REDISCLI_AUTH", "-password-file"}},
		{"a wrong one", map[string]string{passwordVariable: "planted"}, []string{p.url}, exitUnknown, []string{"WRONGPASS", "REDISCLI_AUTH"}},
		{"in the environment", map[string]string{passwordVariable: password}, []string{p.url}, exitOK, []string{sess.ID()}},
		{"in a file", nil, []string{p.url, "-password-file", file}, exitOK, []string{sess.ID()}},
		{"in a file, before the environment", map[string]string{passwordVariable: "planted"}, []string{p.url, "-password-file", file}, exitOK, []string{sess.ID()}},
		{"in the URL of the environment", map[string]string{urlVariable: "redis://:" + quoted + "@" + server.Addr()}, nil, exitOK, []string{sess.ID()}},
		{"in that URL, before the other variable", map[string]string{urlVariable: "redis://:" + quoted + "@" + server.Addr(), passwordVariable: "planted"}, nil, exitOK, []string{sess.ID()}},
		{"the URL of the environment, and the other variable", map[string]string{urlVariable: p.url, passwordVariable: password}, nil, exitOK, []string{sess.ID()}},
		{"an argument before the URL of the environment", map[string]string{urlVariable: "redis://:planted@localhost:1", passwordVariable: password}, []string{p.url}, exitOK, []string{sess.ID()}},
		{"of a user", map[string]string{passwordVariable: "other"}, []string{reader}, exitOK, []string{sess.ID()}},
		{"of another user", map[string]string{passwordVariable: "planted"}, []string{reader}, exitUnknown, []string{"WRONGPASS"}},
		{"a wrong file", nil, []string{p.url, "-password-file", wrong}, exitUnknown, []string{"WRONGPASS"}},
		{"an empty line", nil, []string{p.url, "-password-file", empty}, exitUnknown, []string{"first line", "is empty"}},
		{"no file", nil, []string{p.url, "-password-file", "./absent"}, exitUnknown, []string{"file of the password", "./absent"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := invoke(t, environment{vars: tt.vars}, append([]string{"list", "-keyspace", p.keyspace}, tt.args...)...)
			o.wants(t, tt.code, tt.texts...)
			o.hides(t, "planted", password, quoted)
		})
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	server := redistest.StartTLS(t, true)
	p := newProgram(t, "rediss://"+server.TLSAddr, server.Client(t), echosession.Config{})
	sess := p.login(t, "ada")
	other := redistest.StartTLS(t, false)
	for _, tt := range []struct {
		name  string
		args  []string
		code  int
		texts []string
	}{
		{"with an authority and a certificate", []string{p.url, "-cacert", server.CA, "-cert", server.Cert, "-key", server.Key}, exitOK, []string{sess.ID()}},
		{"with an address", []string{strings.Replace(p.url, "localhost", "127.0.0.1", 1), "-cacert", server.CA, "-cert", server.Cert, "-key", server.Key}, exitOK, []string{sess.ID()}},
		{"without a certificate", []string{p.url, "-cacert", server.CA}, exitUnknown, []string{"no connection to Redis", "certificate"}},
		{"without an authority", []string{p.url}, exitUnknown, []string{"no connection to Redis", "does -cacert name the authority"}},
		{"with another authority", []string{p.url, "-cacert", other.CA}, exitUnknown, []string{"does -cacert name the authority"}},
		{"without TLS", []string{"redis://" + server.TLSAddr}, exitUnknown, []string{"no connection to Redis", "rediss://"}},
		{"TLS where there is none", []string{"rediss://" + server.Addr()}, exitUnknown, []string{"no connection to Redis", "write redis://"}},
		{"an authority without TLS", []string{"redis://" + server.TLSAddr, "-cacert", server.CA}, exitUnknown, []string{"write rediss://"}},
		{"a file that is no authority", []string{p.url, "-cacert", server.Key}, exitUnknown, []string{"no certificate in PEM form"}},
		{"no file", []string{p.url, "-cacert", "./absent"}, exitUnknown, []string{"-cacert", "./absent"}},
		{"a certificate without its key", []string{p.url, "-cert", server.Cert}, exitUnknown, []string{"-cert and -key"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"list", "-keyspace", p.keyspace, "-timeout", "2s"}, tt.args...)
			o := invoke(t, environment{}, args...)
			o.wants(t, tt.code, tt.texts...)
		})
	}
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "cli") // t.TempDir is too long for the name of a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "redis.sock")
	server := redistest.Start(t, "--unixsocket", socket)
	p := newProgram(t, "unix://"+socket, server.Client(t), echosession.Config{})
	sess := p.login(t, "ada")
	p.cli(t, "list").wants(t, exitOK, sess.ID())
	p.cli(t, "revoke", "-yes", sess.ID()).wants(t, exitOK, "Revoked 1 session")
	invoke(t, environment{}, "list", "unix://"+socket+".absent").wants(t, exitUnknown, "no connection to Redis")
}

func TestDatabase(t *testing.T) {
	t.Parallel()
	server := redistest.Shared(t)
	p := newProgram(t, "redis://"+server.Addr()+"/3", server.Client(t, func(o *redis.Options) { o.DB = 3 }), echosession.Config{})
	sess := p.login(t, "ada")
	p.cli(t, "list").wants(t, exitOK, sess.ID())
	p.url = "redis://" + server.Addr() + "/"
	p.cli(t, "list").wants(t, exitOK, "0 sessions")
	p.url += "99"
	p.cli(t, "list").wants(t, exitUnknown, "no connection to Redis", "DB index")
}

func TestSentinel(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short: starts Sentinels")
	}
	s := redistest.StartSentinel(t, 1, 1)
	p := newProgram(t, "redis://"+s.SentinelAddrs()[0], s.FailoverClient(t), echosession.Config{SubjectIndex: true})
	sess := p.login(t, "ada")
	p.cli(t, "list", "-sentinel", s.MasterName()).wants(t, exitOK, sess.ID())
	p.cli(t, "list", "-sentinel", s.MasterName(), "-subject", "ada").wants(t, exitOK, sess.ID())
	p.cli(t, "list", "-sentinel", "nobody").wants(t, exitUnknown, "no connection to Redis", "do they know the primary nobody?")
	p.url = "redis://127.0.0.1:1," + s.SentinelAddrs()[0]
	p.cli(t, "show", "-sentinel", s.MasterName(), sess.ID()).wants(t, exitOK, sess.ID())
	p.cli(t, "revoke", "-sentinel", s.MasterName(), "-yes", "-subject", "ada").wants(t, exitOK, "Revoked 1 session")
}

// Every node of a Cluster, as the one URL, leads to all sessions of it.
func TestCluster(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short: starts a Cluster")
	}
	c := redistest.StartCluster(t, 3, 0)
	for _, layout := range layouts {
		t.Run(layout.name, func(t *testing.T) {
			cfg := echosession.Config{SubjectIndex: layout.indexed, RotateGrace: time.Hour}
			made := func() *program { return newProgram(t, "redis://"+c.Addrs()[2], c.Client(t), cfg) }
			t.Run("list", func(t *testing.T) { testList(t, made()) })
			t.Run("show", func(t *testing.T) { testShow(t, made()) })
			t.Run("revoke one", func(t *testing.T) { testRevokeOne(t, made()) })
			t.Run("revoke a subject", func(t *testing.T) { testRevokeSubject(t, made()) })
			t.Run("revoke a codec", func(t *testing.T) { testRevokeCodec(t, made(), layout.indexed) })
		})
	}
	p := newProgram(t, "redis://"+strings.Join(c.Addrs(), ","), c.Client(t), echosession.Config{})
	sess := p.login(t, "ada")
	p.cli(t, "list").wants(t, exitOK, sess.ID())
	p.url = "redis://" + c.Addrs()[0] + "/1"
	p.cli(t, "list").wants(t, exitUnknown)
}

// Who may do no more than the help asks for can use a command.
func TestRights(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	admin := server.Client(t)
	const password = "planted"
	for _, indexed := range []bool{false, true} {
		p := newProgram(t, "", admin, echosession.Config{SubjectIndex: indexed})
		for _, c := range commands {
			_, line, found := strings.Cut(c.help, "\nRights in Redis:")
			if !found {
				if c.name != "doctor" && c.name != "keygen" { // docs/doctor.md has those of doctor
					t.Errorf("%s does not name its rights", c.name)
				}
				continue
			}
			t.Run(fmt.Sprint(c.name, " indexed ", indexed), func(t *testing.T) {
				line, _, _ := strings.Cut(line, ".\n")
				name := fmt.Sprint(c.name, indexed)
				pattern := strings.NewReplacer("[", `\[`, "*", `\*`, "]", `\]`).Replace(p.keyspace)
				rules := []string{"resetkeys", "resetchannels", "on", ">" + password, "~" + pattern + "*", "-@all"}
				rules = append(rules, strings.Fields(strings.ReplaceAll(line, "&sess:", "&"+pattern))...)
				if err := admin.ACLSetUser(t.Context(), name, rules...).Err(); err != nil {
					t.Fatal(err)
				}
				p.url = "redis://" + name + "@" + server.Addr()
				sess := p.login(t, "ada")
				token := fileOf(t, sess.Token())
				rotated := p.login(t, "ada")
				from := rotated.ID()
				rotate(t, rotated)
				told := admin.Subscribe(t.Context(), p.keyspace+"ended")
				defer told.Close()
				if _, err := told.Receive(t.Context()); err != nil {
					t.Fatal(err)
				}
				if c.name == "watch" {
					watchWithRights(t, p, fileOf(t, password))
					return
				}
				tries := map[string][][]string{
					"list":  {{"list"}, {"list", "-subject", "ada"}},
					"show":  {{"show", sess.ID()}, {"show", sess.LogID()}, {"show", sess.ID(), "-subject", "ada"}, {"show", from}},
					"stats": {{"stats"}, {"stats", "-sample", "1"}},
					"token": {{"token", token}},
					"revoke": {
						{"revoke", "-yes", sess.LogID()}, {"revoke", "-yes", p.login(t, "ada").ID()}, {"revoke", "-yes", from},
						{"revoke", "-yes", "-subject", p.login(t, "bob").Subject()}, {"revoke", "-yes", "-codec", "all"},
					},
				}[c.name]
				if len(tries) == 0 {
					t.Error("it was not tried")
				}
				for _, args := range tries {
					if args[0] == "revoke" && args[len(args)-1] == "all" {
						p.login(t, "ada")
					}
					o := invoke(t, environment{vars: map[string]string{passwordVariable: password}}, append(args, "-keyspace", p.keyspace, p.url)...)
					o.wants(t, exitOK)
					o.hides(t, password)
					if args[0] != "revoke" {
						continue
					}
					if _, err := told.ReceiveTimeout(t.Context(), 5*time.Second); err != nil {
						t.Errorf("%q is not published: %v", args, err)
					}
				}
			})
		}
	}
}

// watchWithRights sees that watch complains of nothing, and tells of each event: of an end at
// once, because it hears of that.
func watchWithRights(t *testing.T, p *program, passwordFile string) {
	t.Helper()
	ended, rotated := p.login(t, "ada"), p.login(t, "ada")
	slow := startWatch(t, "-interval", "1h", "-password-file", passwordFile, "-keyspace", p.keyspace, p.url)
	quick := startWatch(t, "-password-file", passwordFile, "-keyspace", p.keyspace, p.url)
	created := p.login(t, "ada")
	quick.event("created", created.ID())
	from := rotated.ID()
	rotate(t, rotated)
	quick.event("rotated", from)
	slow.event("ended", logout(t, ended))
	for _, w := range []*watchRun{slow, quick} {
		if notices := w.stderr.list(); len(notices) != 1 {
			t.Errorf("it complains: %q", notices)
		}
		w.end()
	}
}

// What does not answer, or answers something else, is told in one line.
func TestNoConnection(t *testing.T) {
	t.Parallel()
	silent := listener(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	closing := listener(t, func(net.Conn) {})
	web := listener(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1024))
		_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
	})
	for _, tt := range []struct{ name, url, text string }{
		{"nobody listens", "redis://127.0.0.1:1", "connection refused; is Redis running there?"},
		{"it is silent", "redis://" + silent, "no connection to Redis"},
		{"it hangs up", "redis://" + closing, "rediss://"},
		{"it is a web server", "redis://" + web, "no connection to Redis"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := invoke(t, environment{}, "list", "-timeout", "300ms", tt.url)
			o.wants(t, exitUnknown, tt.text)
			if n := strings.Count(o.all(), "\n"); n != 1 {
				t.Errorf("it writes %d lines:\n%s", n, o.all())
			}
		})
	}
}

// listener serves each connection and closes it.
func listener(t *testing.T, serve func(net.Conn)) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return ln.Addr().String()
}

// No error repeats what stands in the place of a file, which may be a password, or a part of
// a URL; and an empty keyspace is not that of every program.
func TestErrorsRepeatNoSecret(t *testing.T) {
	for _, tt := range []struct {
		args []string
		url  string
		says string
	}{
		{[]string{"list", "-password-file", "hunter2", "redis://127.0.0.1:1"}, "", "no such file"},
		{[]string{"list", "-encryption-key-file", "hunter2", "redis://127.0.0.1:1"}, "", "no such file"},
		{[]string{"list", "-cacert", "hunter2", "rediss://127.0.0.1:1"}, "", "no such file"},
		{[]string{"token", "REDIS://:hunter2@h"}, "", "every user of the machine can read it"},
		{[]string{"token", "valkey://:hunter2@h"}, "", "every user of the machine can read it"},
		{[]string{"list", "redis://h?password=hunter2"}, "", "every user of the machine can read it"},
		{[]string{"list"}, "redis://:77777#hunter2@h", "%2F"},
		{[]string{"list"}, "redis://:77777,hunter2@h", "%2F"},
		{[]string{"list"}, "redis://:77777/hunter2@h", "%2F"},
		{[]string{"list", "-keyspace", "", "redis://127.0.0.1:1"}, "", "the keyspace is empty"},
	} {
		var out, errs strings.Builder
		code := run(t.Context(), tt.args, &invocation{stdin: strings.NewReader(""), stdout: &out, stderr: &errs, getenv: func(name string) string {
			if name == urlVariable {
				return tt.url
			}
			return ""
		}})
		said := out.String() + errs.String()
		if code != exitUnknown || !strings.Contains(said, tt.says) || strings.Contains(said, "hunter2") || strings.Contains(said, "77777") {
			t.Errorf("%q, %q: exit %d, %s", tt.args, tt.url, code, said)
		}
	}
}

// What a server sends in an error reaches the terminal without its escapes.
func TestErrorsAreMadePrintable(t *testing.T) {
	if got := messageOf(errors.New("ERR \x1b[2J\x1b]0;x\x07")); strings.ContainsAny(got, "\x1b\x07") || !strings.Contains(got, "ERR") {
		t.Errorf("%q", got)
	}
}

// fullDisk takes nothing.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestOutputThatGetsLostIsAnError(t *testing.T) {
	var errs strings.Builder
	const token = "eyJhbGciOiJIUzI1NiJ9.e30.c2ln"
	inv := &invocation{stdin: strings.NewReader(token), stdout: fullDisk{}, stderr: &errs, getenv: func(string) string { return "" }}
	if code := run(t.Context(), []string{"token", "-"}, inv); code != exitUnknown || !strings.Contains(errs.String(), "no space left on device") {
		t.Errorf("exit %d, %s", code, errs.String())
	}
}
