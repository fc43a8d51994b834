package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// The rights that doctor looks at are the lists of SECURITY.md, which are exact.
func TestDoctorFeaturesAreTheListsOfSecurity(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "SECURITY.md"))
	if err != nil {
		t.Fatal(err)
	}
	var lists []string
	for _, list := range regexp.MustCompile(`(?m)^\+get .*$`).FindAllString(string(text), -1) {
		lists = append(lists, strings.ReplaceAll(list, "+", ""))
	}
	var ours []string
	for _, f := range features {
		ours = append(ours, f.commands)
	}
	slices.Sort(lists)
	slices.Sort(ours)
	if len(lists) < 10 || !slices.Equal(lists, ours) {
		t.Errorf("SECURITY.md has the lists\n%s\nand doctor\n%s", strings.Join(lists, "\n"), strings.Join(ours, "\n"))
	}
}

// setUser makes a user of Redis with these rights below a keyspace.
func setUser(t *testing.T, rdb *redis.Client, name string, rights ...string) {
	t.Helper()
	args := []any{"acl", "setuser", name, "reset", "on", ">open"}
	for _, right := range rights {
		args = append(args, right)
	}
	if err := rdb.Do(t.Context(), args...).Err(); err != nil {
		t.Fatal(err)
	}
}

// granted returns the rights for a list of commands but some.
func granted(commands string, but ...string) (rights []string) {
	rights = []string{"~sess:*", "resetchannels", "&sess:ended*"}
	for command := range strings.FieldsSeq(commands) {
		if !slices.Contains(but, command) {
			rights = append(rights, "+"+command)
		}
	}
	return rights
}

// Each single right of each feature is missed: by ACL DRYRUN, and by trying where the user
// may not use that.
func TestDoctorFindsEachMissingRight(t *testing.T) {
	server := startRedis(t)
	rdb := server.Client(t)
	tried := 0
	for _, f := range features {
		for command := range strings.FieldsSeq(f.commands) {
			for _, ask := range []string{"+acl|whoami +acl|dryrun", ""} {
				if command == "subscribe" && ask == "" || command == "select" {
					continue // these are told by the checks pubsub and connection
				}
				if !slices.Contains(missingRights(t, server, rdb, f, command, ask), "+"+command) {
					t.Errorf("%s: that +%s is missing (%q) was not found", f.id, command, ask)
				}
				tried++
			}
		}
	}
	if tried < 200 {
		t.Errorf("only %d rights were tried", tried)
	}
}

// missingRights runs the check rights for a user without one right of a feature, and returns
// what it advises to grant.
func missingRights(t *testing.T, server *redistest.Server, rdb *redis.Client, f feature, without, ask string) []string {
	t.Helper()
	setUser(t, rdb, "shop", append(granted(f.commands, without), strings.Fields(ask)...)...)
	x := &examination{
		target: &target{keyspace: "sess:"}, options: &redis.UniversalOptions{Username: "shop"}, uses: []string{f.id},
		client: server.Client(t, func(o *redis.Options) { o.Username, o.Password = "shop", "open" }),
	}
	defer x.client.Close()
	x.nodes = []*node{{addr: server.Addr(), client: x.client.(*redis.Client)}}
	r := new(result)
	checkRights(t.Context(), x, x.nodes[0], r)
	var grants []string
	for _, found := range r.findings {
		if found.ID == "missing-rights" && found.Status == statusCritical {
			grants = append(grants, strings.Fields(strings.ReplaceAll(found.Advice, ";", " "))...)
		}
	}
	return grants
}

// A user who has all rights of a feature misses none, with ACL DRYRUN and without.
func TestDoctorFindsNoMissingRight(t *testing.T) {
	server := startRedis(t)
	rdb := server.Client(t)
	for _, f := range features {
		for _, ask := range []string{"+acl|whoami +acl|dryrun", ""} {
			if missing := missingRights(t, server, rdb, f, "", ask); len(missing) > 0 {
				t.Errorf("%s (%q): it misses %q", f.id, ask, missing)
			}
		}
	}
}

// Keys and channels are rights too.
func TestDoctorFindsMissingKeysAndChannels(t *testing.T) {
	server := startRedis(t)
	rdb := server.Client(t)
	all := granted(features[len(features)-2].commands)[3:] // of Session.Watch
	for _, ask := range []string{"+acl|dryrun", "-acl|dryrun"} {
		setUser(t, rdb, "shop", append(append([]string{"~other:*", "&*"}, all...), ask, "+acl|whoami")...)
		report := diagnose(t, map[string]string{"REDISCLI_AUTH": "open"}, "redis://shop@"+server.Addr())
		report.wants(t, "rights", "critical", "missing-rights", "it may not use the keys below sess:")
		if advice := report.of("rights")[0].Advice; !strings.Contains(advice, " ~sess:*;") {
			t.Errorf("the advice is %q", advice)
		}
		setUser(t, rdb, "shop", append(append([]string{"~sess:*", "resetchannels"}, all...), ask, "+acl|whoami")...)
		report = diagnose(t, map[string]string{"REDISCLI_AUTH": "open"}, "-uses", "watch", "redis://shop@"+server.Addr())
		report.wants(t, "rights", "critical", "missing-rights", "it may not use the channel sess:ended")
		report.wants(t, "pubsub", "critical", "missing-rights", "SUBSCRIBE is refused, and Session.Watch needs it")
	}
}

// What the keyspace shows, and what the flags say, makes a right necessary. Otherwise its
// lack is no fault.
func TestDoctorRightsOfWhatIsUsed(t *testing.T) {
	server := startRedis(t, "--appendonly", "yes")
	rdb := server.Client(t)
	setUser(t, rdb, "shop", append(granted(sessionCommands), "+@read", "+acl", "+ping", "+info", "+config|get", "+slowlog|get", "-getdel")...)
	env := map[string]string{"REDISCLI_AUTH": "open"}
	url := "redis://shop@" + server.Addr()
	report := diagnose(t, env, url)
	report.wants(t, "rights", "skipped", "rights-not-granted", "SubjectIndex: the user shop may not use it (+zadd +zrem")
	report.wants(t, "rights", "skipped", "rights-not-granted", "redeeming tickets: the user shop may not use it (+getdel)")
	report.wants(t, "rights", "ok", "", "the user shop may do all that sessions need")
	report.wants(t, "pubsub", "skipped", "rights-not-granted", "only Session.Watch")
	if report.Exit != exitOK {
		t.Errorf("exit code %d: %+v", report.Exit, report)
	}
	report = diagnose(t, env, "-uses", "tickets", url)
	report.wants(t, "rights", "critical", "missing-rights", "redeeming tickets: the user shop lacks rights: it may not use GETDEL")

	shop := newShop(t, rdb, echosession.Config{SubjectIndex: true})
	sess, err := shop.Create(t.Context(), shopper{}, echosession.WithSubject("alice"))
	if err == nil {
		_, err = sess.Ticket(t.Context(), "/")
	}
	if err != nil {
		t.Fatal(err)
	}
	report = diagnose(t, env, url)
	report.wants(t, "rights", "critical", "missing-rights", "SubjectIndex: the user shop lacks rights")
	report.wants(t, "rights", "critical", "missing-rights", "redeeming tickets")
}

// An administrator looks at the rights of another user.
func TestDoctorOfAnotherUser(t *testing.T) {
	server := startRedis(t)
	rdb := server.Client(t)
	setUser(t, rdb, "shop", granted(sessionCommands, "getex")...)
	report := diagnose(t, nil, "-user", "shop", urlOf(server))
	report.wants(t, "rights", "critical", "missing-rights", "sessions: the user shop lacks rights: it may not use GETEX")
	report = diagnose(t, nil, "-user", "nobody", urlOf(server))
	report.wants(t, "rights", "unknown", "what-doctor-may-not-ask", "nobody")
}

// A user that may do just what sessions need gets what can be said, and what to grant for
// the rest. Nothing of that is a fault.
func TestDoctorWithoutRightsOfItsOwn(t *testing.T) {
	server := startRedis(t)
	rdb := server.Client(t)
	login(t, newShop(t, rdb, echosession.Config{}), "alice", 1)
	setUser(t, rdb, "shop", granted(sessionCommands)...)
	report := diagnose(t, map[string]string{"REDISCLI_AUTH": "open"}, "redis://shop@"+server.Addr())
	if report.Exit != exitOK {
		t.Errorf("exit code %d: %+v", report.Exit, report)
	}
	for check, right := range map[string]string{
		"server": "+info", "eviction": "+info", "memory": "+info", "persistence": "+info", "replicas": "+info", "clients": "+info",
		"latency": "+ping", "slow": "+slowlog|get", "keyspace": "+scan",
	} {
		found := report.of(check)
		if len(found) != 1 || found[0].Status != "unknown" || !strings.Contains(found[0].Advice, "Grant "+right+",") {
			t.Errorf("%s: %+v", check, found)
		}
	}
	report.wants(t, "writes", "ok", "", "written, read and deleted")
	report.wants(t, "clock", "ok", "", "agree within")
	report.wants(t, "rights", "ok", "", "the user shop may do all that sessions need")
}

// Where nothing can be found out, the exit code says that.
func TestDoctorOfAUserWithoutAnyRight(t *testing.T) {
	server := startRedis(t)
	setUser(t, server.Client(t), "shop", "~sess:*", "+ping", "+get")
	report := diagnose(t, map[string]string{"REDISCLI_AUTH": "open"}, "-skip", "failover,access,latency,rights", "redis://shop@"+server.Addr())
	if report.Exit != exitUnknown || report.Status != "unknown" {
		t.Errorf("exit code %d, %s: %+v", report.Exit, report.Status, report)
	}
}

// Without CONFIG, as many providers have it, INFO says most of it.
func TestDoctorWithoutCONFIG(t *testing.T) {
	server := startRedis(t, "--rename-command", "CONFIG", "", "--rename-command", "ACL", "", "--rename-command", "SLOWLOG", "",
		"--maxmemory-policy", "allkeys-lru")
	report := diagnose(t, nil, urlOf(server))
	report.wants(t, "eviction", "warning", "an-evicting-policy", "allkeys-lru")
	report.wants(t, "persistence", "unknown", "no-persistence", "only CONFIG tells")
	report.wants(t, "slow", "unknown", "what-doctor-may-not-ask", "unknown command")
	report.wants(t, "rights", "ok", "", "may do all that sessions need")
	if report.Exit != exitWarning {
		t.Errorf("exit code %d: %+v", report.Exit, report)
	}
}

// The library's own Ping is asked too: here a script fails for a reason that is no right.
func TestDoctorWhereTheLibraryFails(t *testing.T) {
	server := startRedis(t)
	proxy := redistest.NewProxy(t, server.Addr())
	proxy.On(func(cmd []string) bool { return cmd[0] == "EVALSHA" && len(cmd) > 4 }, -1, redistest.Reply("-ERR no scripts today\r\n"))
	proxy.On(func(cmd []string) bool { return cmd[0] == "EVAL" && len(cmd) > 4 }, -1, redistest.Reply("-ERR no scripts today\r\n"))
	report := diagnose(t, nil, "redis://"+proxy.Addr())
	report.wants(t, "rights", "critical", "the-library-fails", "what the library itself tries fails")
}
