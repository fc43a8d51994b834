package echosession_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// Every test that SECURITY.md names is there.
func TestSecurityNamesTests(t *testing.T) {
	there := make(map[string]bool)
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil {
				there[f.Name.Name] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	named := make(map[string]bool)
	for _, m := range regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w*)`").FindAllStringSubmatch(readFile(t, "SECURITY.md"), -1) {
		if !there[m[1]] && !named[m[1]] {
			t.Errorf("there is no %s", m[1])
		}
		named[m[1]] = true
	}
	if len(named) < 70 {
		t.Errorf("SECURITY.md names %d tests", len(named))
	}
}

// Whoever writes to Redis can make it look as if a session had been rotated to
// another one, whose record is genuine.
func TestForgedRotation(t *testing.T) {
	server := redistest.Start(t)
	client := server.Client(t)
	keyspace := newKeyspace()
	m := newManager[User](t, echosession.Config{
		Client: client, Secret: testSecret, Keyspace: keyspace,
		EncryptionKeys: [][]byte{[]byte("thirty-two bytes to encrypt with")},
	})
	create := func(subject string) *echosession.Session[User] {
		sess, err := m.Create(t.Context(), User{Name: subject}, echosession.WithSubject(subject))
		if err != nil {
			t.Fatal(err)
		}
		return sess
	}
	own, other, victim := create("mallory"), create("mallory"), create("ada")
	opened := create("mallory")
	lead := func(from, to *echosession.Session[User]) {
		pointer := "\xc1" + from.ID() + to.ID() + fmt.Sprint(time.Now().Add(time.Hour).UnixMilli())
		err := client.SetArgs(t.Context(), keyspace+from.ID(), pointer, redis.SetArgs{Mode: "XX", KeepTTL: true}).Err()
		if err != nil {
			t.Fatal(err)
		}
	}

	token := own.Token()
	lead(own, other) // the same subject: the mark is as it should be
	if sess, err := m.Open(t.Context(), token); err != nil || sess.ID() != other.ID() {
		t.Fatalf("%v, %v", sess.Reason(), err)
	}
	lead(opened, victim)
	if err := opened.Reload(t.Context()); !errors.Is(err, echosession.ErrCorrupt) || opened.Data().Name == "ada" {
		t.Errorf("Reload: %v, %+v", err, opened.Data())
	}
	if err := opened.Update(t.Context(), func(u *User) error { u.Name = "eve"; return nil }); err == nil {
		t.Error("Update went to somebody else's session")
	}
	sess, err := m.Open(t.Context(), opened.Token())
	if err != nil || sess.Exists() || !errors.Is(sess.Reason(), echosession.ErrCorrupt) || echosession.CorruptReason(sess.Reason()) != "head" || sess.Data().Name != "" {
		t.Errorf("Open: %v, %v, %+v", err, sess.Reason(), sess.Data())
	}
	if again, err := m.Open(t.Context(), victim.Token()); err != nil || again.Data().Name != "ada" {
		t.Errorf("the victim has %+v, %v", again.Data(), err)
	}
}

// Whoever writes to Redis can put a genuine record into the index of another
// subject.
func TestForgedIndex(t *testing.T) {
	client := redistest.Start(t).Client(t)
	keyspace := newKeyspace()
	m := newManager[User](t, echosession.Config{
		Client: client, Secret: testSecret, Keyspace: keyspace, SubjectIndex: true,
		EncryptionKeys: [][]byte{[]byte("thirty-two bytes to encrypt with")},
	})
	create := func(subject string) (id, key, index string) {
		sess, err := m.Create(t.Context(), User{Name: subject}, echosession.WithSubject(subject))
		if err != nil {
			t.Fatal(err)
		}
		keys := client.Keys(t.Context(), keyspace+"*:"+sess.ID()).Val()
		if len(keys) != 1 {
			t.Fatalf("the keys are %q", keys)
		}
		return sess.ID(), keys[0], strings.TrimSuffix(keys[0], ":"+sess.ID())
	}
	own, _, index := create("mallory")
	victim, key, _ := create("ada")
	if n, err := client.Copy(t.Context(), key, index+":"+victim, 0, false).Result(); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := client.ZAdd(t.Context(), index, redis.Z{Score: 1, Member: victim}).Result(); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	sessions, err := m.List(t.Context(), "mallory")
	if err != nil || len(sessions) != 1 || sessions[0].ID() != own {
		t.Errorf("%d sessions, %v", len(sessions), err)
	}
}

// The commands that the Redis user of a service needs, and no more:
//
//	ACL SETUSER app on >password resetkeys ~sess:* resetchannels -@all
//	    +get +getex +getrange +set +del +evalsha +eval +time +pexpireat +pttl
//
// where ~sess:* goes with Config.Keyspace, and the rest comes on top. HELLO and
// AUTH need no permission, and go-redis does without CLIENT SETINFO.
const (
	aclSessions = "get getex getrange set del evalsha eval time pexpireat pttl"

	// SubjectIndex. ZCARD is for MaxSessions, ZRANDMEMBER for their absence.
	aclIndex = aclSessions + " zadd zrem zrange zscore zcard zrandmember exists pexpire"

	// Manager.All. SCAN shows the user the names of all keys of the database.
	aclAll = aclSessions + " scan"

	// Tickets, where they are redeemed.
	aclTickets = aclSessions + " getdel"

	// WaitReplicas.
	aclWait = aclSessions + " wait"

	// A ClusterClient. ASKING is for slots on the move.
	aclCluster = aclSessions + " cluster|slots asking"

	// A ClusterClient that reads from replicas.
	aclReplicas = aclCluster + " readonly"

	// Client-side caching.
	aclCaching = aclSessions + " client|tracking"

	// Session.Watch, with the channel &sess:ended* behind resetchannels.
	aclWatch = aclSessions + " publish subscribe"

	// Manager.All through an auto-pipeliner.
	aclPipelinedAll = aclAll + " info"

	// A database other than 0.
	aclDatabase = aclSessions + " select"
)

const aclPassword = "a password of the tests"

// permit makes a user who may run these commands on these keys.
func permit(ctx context.Context, admin *redis.Client, user, keyspace string, commands []string) error {
	args := []any{"acl", "setuser", user, "reset", "on", ">" + aclPassword, "resetkeys", "~" + keyspace + "*", "resetchannels", "-@all"}
	for _, command := range commands {
		args = append(args, "+"+command)
	}
	if slices.Contains(commands, "publish") || slices.Contains(commands, "subscribe") {
		args = append(args, "&"+keyspace+"ended*")
	}
	return admin.Do(ctx, args...).Err()
}

// useEverything does with a Manager what a service may do, and returns what
// failed.
func useEverything(ctx context.Context, cfg echosession.Config, all bool) error {
	var errs []error
	check := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %s", what, causes(err)))
		}
	}
	cfg.TouchInterval, cfg.StoreTimeout = echosession.TouchAlways, 5*time.Second
	touching, err := echosession.New[User](cfg)
	check("New", err)
	cfg.TouchInterval = 0
	limited := cfg
	cfg.RotateGrace = echosession.NoGrace
	reading, err := echosession.New[User](cfg)
	check("New", err)
	managers := []*echosession.Manager[User]{touching, reading}
	subjects := []string{""}
	if cfg.SubjectIndex {
		subjects = append(subjects, "ada")
		limited.MaxSessions = 2
		m, err := echosession.New[User](limited)
		check("New", err)
		managers = append(managers, m)
	}
	for _, m := range managers {
		for _, subject := range subjects {
			var opts []echosession.CreateOption
			if subject != "" {
				opts = append(opts, echosession.WithSubject(subject))
			}
			for range 3 {
				sess, err := m.Create(ctx, User{Name: "Ada"}, opts...)
				check("Create", err)
				if err != nil {
					continue
				}
				old := sess.Token()
				check("Update", sess.Update(ctx, func(u *User) error { u.Count++; return nil }))
				check("Touch", sess.Touch(ctx))
				check("Reload", sess.Reload(ctx))
				_, err = sess.Rotate(ctx)
				check("Rotate", err)
				for range 2 {
					found, err := m.Open(ctx, old)
					check("Open", err)
					if err == nil && found.Exists() {
						check("Destroy", found.Destroy(ctx))
					}
				}
				_, err = m.Create(ctx, User{}, opts...)
				check("Create", err)
			}
			if subject != "" {
				_, err := m.List(ctx, subject)
				check("List", err)
				_, err = m.RevokeSubject(ctx, subject)
				check("RevokeSubject", err)
			}
		}
		if all {
			for _, err := range m.All(ctx) {
				check("All", err)
			}
		}
	}
	check("the store", useStore(ctx, cfg, subjects))
	return errors.Join(errs...)
}

// useStore does with the store of a Config what no Manager does above.
func useStore(ctx context.Context, cfg echosession.Config, subjects []string) error {
	store, err := echosession.NewRedisStore(cfg.Client, echosession.RedisOptions{Keyspace: cfg.Keyspace, WaitReplicas: cfg.WaitReplicas})
	if err != nil {
		return err
	}
	errs := []error{err}
	for _, subject := range subjects {
		for _, next := range subjects {
			from, to := newRef(subject), newRef(next)
			errs = append(errs,
				errOf(store.Create(ctx, from, []byte("old"), time.Minute, echosession.Limit{})),
				errOf(store.Renew(ctx, from, to, []byte("old"), []byte("new"), time.Minute, echosession.Limit{})))
			_, err := store.Check(ctx, to)
			errs = append(errs, err)
		}
		_, err := store.Count(ctx, subject)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// With the commands listed above everything works, and without any one of them
// something does not.
func TestRedisACL(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: starts a cluster")
	}
	server := redistest.Start(t)
	replicaOf(t, server)
	cluster := redistest.StartCluster(t, 3, 1)
	servers := []*redistest.Server{server}

	user := func(o *redis.Options, name string) { o.Username, o.Password = name, aclPassword }
	plain := func(t *testing.T, name string) echosession.RedisClient {
		return server.Client(t, func(o *redis.Options) { user(o, name) })
	}
	clustered := func(replicas bool) func(t *testing.T, name string) echosession.RedisClient {
		return func(t *testing.T, name string) echosession.RedisClient {
			return cluster.Client(t, func(o *redis.ClusterOptions) {
				o.Username, o.Password, o.ReadOnly = name, aclPassword, replicas
			})
		}
	}
	for _, tt := range []struct {
		name     string
		commands string
		servers  []*redistest.Server
		client   func(t *testing.T, user string) echosession.RedisClient
		cfg      echosession.Config
		all      bool
		also     func(t *testing.T, m *echosession.Manager[User], client echosession.RedisClient, keyspace string) error
	}{
		{name: "sessions", commands: aclSessions, servers: servers, client: plain},
		{name: "SubjectIndex", commands: aclIndex, servers: servers, client: plain, cfg: echosession.Config{SubjectIndex: true}},
		{name: "All", commands: aclAll, servers: servers, client: plain, all: true},
		{
			name: "another database", commands: aclDatabase, servers: servers,
			client: func(t *testing.T, name string) echosession.RedisClient {
				return server.Client(t, func(o *redis.Options) { user(o, name); o.DB = 1 })
			},
		},
		{
			name: "tickets", commands: aclTickets, servers: servers, client: plain, cfg: echosession.Config{TokenLookup: "ticket:ticket"},
			also: func(t *testing.T, m *echosession.Manager[User], _ echosession.RedisClient, _ string) error {
				sess, err := m.Create(t.Context(), User{})
				if err != nil {
					return err
				}
				ticket, err := sess.Ticket(t.Context(), "/")
				if err != nil {
					return err
				}
				_, err = redeem(t.Context(), m, "/?ticket="+ticket)
				return err
			},
		},
		{name: "WaitReplicas", commands: aclWait, servers: servers, client: plain, cfg: echosession.Config{WaitReplicas: 1}},
		{
			name: "client-side caching", commands: aclCaching, servers: servers,
			client: func(t *testing.T, name string) echosession.RedisClient {
				return server.Client(t, cached, func(o *redis.Options) { user(o, name) })
			},
			also: func(t *testing.T, m *echosession.Manager[User], client echosession.RedisClient, keyspace string) error {
				return caching(t, server.Client(t), m, client, keyspace)
			},
		},
		{
			name: "Watch", commands: aclWatch, servers: servers, client: plain,
			also: func(t *testing.T, _ *echosession.Manager[User], client echosession.RedisClient, keyspace string) error {
				return watching(t, newRedisStore(t, client, keyspace))
			},
		},
		{
			name: "All through an auto-pipeliner", commands: aclPipelinedAll, servers: servers, all: true,
			client: func(t *testing.T, name string) echosession.RedisClient {
				return blockingFace(t, server.Client(t, func(o *redis.Options) { user(o, name) }), nil)
			},
		},
		{
			name: "Cluster", commands: aclCluster, servers: cluster.Servers, client: clustered(false),
			also: func(t *testing.T, m *echosession.Manager[User], _ echosession.RedisClient, keyspace string) error {
				return moving(t, cluster, m, keyspace)
			},
		},
		{
			name: "Cluster with replicas", commands: aclReplicas, servers: cluster.Servers, client: clustered(true),
			also: func(t *testing.T, m *echosession.Manager[User], _ echosession.RedisClient, keyspace string) error {
				return moving(t, cluster, m, keyspace)
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			try := func(t *testing.T, commands []string) error {
				ctx, name, keyspace := t.Context(), strings.ReplaceAll(newKeyspace(), ":", ""), newKeyspace()
				for _, s := range tt.servers {
					admin := s.Client(t)
					if err := permit(ctx, admin, name, keyspace, commands); err != nil {
						t.Fatal(err)
					}
					if err := admin.ScriptFlush(ctx).Err(); err != nil { // so that EVAL is needed
						t.Fatal(err)
					}
				}
				cfg := tt.cfg
				cfg.Client, cfg.Secret, cfg.Keyspace = tt.client(t, name), testSecret, keyspace
				err := useEverything(ctx, cfg, tt.all)
				if err == nil && tt.also != nil {
					err = tt.also(t, newManager[User](t, cfg), cfg.Client, keyspace)
				}
				return err
			}
			commands := strings.Fields(tt.commands)
			if err := try(t, commands); err != nil {
				t.Fatalf("with %s: %v", tt.commands, err)
			}
			for i, command := range commands {
				t.Run("without "+command, func(t *testing.T) {
					if err := try(t, slices.Delete(slices.Clone(commands), i, i+1)); err == nil {
						t.Errorf("%s is not needed", command)
					}
				})
			}
		})
	}
}

// SECURITY.md gives the lists above, each in a line of its own, and no others.
func TestSecurityNamesTheACL(t *testing.T) {
	var want, got []string
	for _, commands := range []string{
		aclSessions, aclIndex, aclAll, aclPipelinedAll, aclTickets, aclWait, aclCluster, aclReplicas, aclCaching, aclWatch, aclDatabase,
	} {
		want = append(want, "+"+strings.ReplaceAll(commands, " ", " +"))
	}
	for line := range strings.Lines(readFile(t, "SECURITY.md")) {
		if strings.HasPrefix(line, "+") {
			got = append(got, strings.TrimSuffix(line, "\n"))
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("SECURITY.md has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// watching checks that the end of a session is heard.
func watching(t *testing.T, store echosession.Store) error {
	ear := watchOnce(t, store)
	select {
	case <-ear.hints:
	case err := <-ear.ended:
		return err
	}
	ref := newRef("")
	mustCreate(t, store, ref, "old", time.Minute)
	if err := store.Delete(t.Context(), ref); err != nil {
		return err
	}
	ear.ids(ref.ID)
	return nil
}

// caching checks that reads are answered by the client's own cache.
func caching(t *testing.T, admin *redis.Client, m *echosession.Manager[User], client echosession.RedisClient, keyspace string) error {
	sess, err := m.Create(t.Context(), User{})
	if err != nil {
		return err
	}
	// This one has not written it, so it may trust the cache.
	reader := newManager[User](t, echosession.Config{Client: client, Secret: testSecret, Keyspace: keyspace})
	gets := func() (n int) {
		stats, err := admin.InfoMap(t.Context(), "commandstats").Result()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Sscanf(stats["Commandstats"]["cmdstat_get"], "calls=%d,", &n)
		return n
	}
	before := gets()
	for range 20 {
		if _, err := reader.Open(t.Context(), sess.Token()); err != nil {
			return err
		}
	}
	if n := gets() - before; n > 5 {
		return fmt.Errorf("%d of 20 reads reached the server", n)
	}
	return nil
}

// moving uses a session whose slot is on its way to another master.
func moving(t *testing.T, cluster *redistest.Cluster, m *echosession.Manager[User], keyspace string) error {
	sess, err := m.Create(t.Context(), User{})
	if err != nil {
		return err
	}
	key := keyspace + sess.ID()
	slot := cluster.Slot(t, key)
	from, to := cluster.Master(t, slot), cluster.Master(t, (slot+16384/3)%16384)
	migration := cluster.OpenSlot(t, slot, to)
	migration.Move(t, key)
	err = sess.Update(t.Context(), func(u *User) error { u.Count++; return nil })
	migration.MoveAll(t)
	migration.Finish(t)
	cluster.MigrateSlot(t, slot, from)
	return err
}

// hostileTokens are what an attacker sends in place of a token. good is one that
// he has.
func hostileTokens(t *testing.T, good string) map[string]string {
	t.Helper()
	parts := strings.Split(good, ".")
	header, payload, signature := parts[0], parts[1], parts[2]
	encode := base64.RawURLEncoding.EncodeToString
	claims := string(unb64(t, payload))
	id := newID()
	sign := func(header, payload string) string { return hs256(header, payload, testSecret) }
	unsigned := func(header string) string { return encode([]byte(header)) + "." + payload + "." }
	return map[string]string{
		"a word":                       "token",
		"dots":                         "..",
		"two segments":                 header + "." + payload,
		"four segments":                good + "." + signature,
		"no signature":                 header + "." + payload + ".",
		"no payload":                   header + ".." + signature,
		"no header":                    "." + payload + "." + signature,
		"alg none":                     unsigned(`{"alg":"none","typ":"session+jwt"}`),
		"alg None, signed":             unsigned(`{"alg":"None","typ":"session+jwt"}`) + signature,
		"alg of another key":           sign(`{"alg":"HS512","typ":"session+jwt"}`, claims),
		"alg missing":                  sign(`{"typ":"session+jwt"}`, claims),
		"alg twice":                    sign(`{"alg":"none","alg":"HS256","typ":"session+jwt"}`, claims),
		"typ of any JWT":               sign(`{"alg":"HS256","typ":"JWT"}`, claims),
		"typ missing":                  sign(`{"alg":"HS256"}`, claims),
		"crit":                         sign(`{"alg":"HS256","typ":"session+jwt","crit":["x"],"x":1}`, claims),
		"jku":                          sign(`{"alg":"HS256","typ":"session+jwt","jku":"https://evil.example/keys"}`, claims),
		"jwk":                          sign(`{"alg":"HS256","typ":"session+jwt","jwk":{"kty":"oct","k":"AAAA"}}`, claims),
		"kid that nobody has":          sign(`{"alg":"HS256","typ":"session+jwt","kid":"../../dev/null"}`, claims),
		"another secret":               hs256(`{"alg":"HS256","typ":"session+jwt"}`, claims, []byte(strings.Repeat("x", 32))),
		"empty secret":                 hs256(`{"alg":"HS256","typ":"session+jwt"}`, claims, nil),
		"payload changed":              header + "." + encode([]byte(strings.Replace(claims, `"jti":"`, `"jti":"`+id[:1], 1))) + "." + signature,
		"signature changed":            header + "." + payload + "." + encode(append([]byte{unb64(t, signature)[0] ^ 1}, unb64(t, signature)[1:]...)),
		"signature cut":                good[:len(good)-4],
		"padding":                      good + "=",
		"a newline inside":             good[:len(good)-3] + "\n" + good[len(good)-3:],
		"a NUL behind":                 good + "\x00",
		"JSON serialization":           fmt.Sprintf(`{"payload":%q,"protected":%q,"signature":%q}`, payload, header, signature),
		"no jti":                       sign(`{"alg":"HS256","typ":"session+jwt"}`, `{"iat":1}`),
		"jti that is a key":            sign(`{"alg":"HS256","typ":"session+jwt"}`, `{"jti":"*"}`),
		"jti that climbs":              sign(`{"alg":"HS256","typ":"session+jwt"}`, `{"jti":"../`+id[3:]+`"}`),
		"jti in upper case":            sign(`{"alg":"HS256","typ":"session+jwt"}`, `{"jti":"`+strings.ToUpper(id)+`"}`),
		"jti that is a number":         sign(`{"alg":"HS256","typ":"session+jwt"}`, `{"jti":1}`),
		"jti that is no UUIDv4":        sign(`{"alg":"HS256","typ":"session+jwt"}`, `{"jti":"`+id[:14]+"1"+id[15:]+`"}`),
		"two jti":                      sign(`{"alg":"HS256","typ":"session+jwt"}`, `{"jti":"`+id+`","jti":"`+newID()+`"}`),
		"exp in the past":              sign(`{"alg":"HS256","typ":"session+jwt"}`, `{"jti":"`+id+`","exp":1}`),
		"exp that is no number":        sign(`{"alg":"HS256","typ":"session+jwt"}`, `{"jti":"`+id+`","exp":"never"}`),
		"exp beyond all bounds":        sign(`{"alg":"HS256","typ":"session+jwt"}`, `{"jti":"`+id+`","exp":1e999}`),
		"nbf in the future":            sign(`{"alg":"HS256","typ":"session+jwt"}`, `{"jti":"`+id+`","nbf":9999999999}`),
		"iat in the future":            sign(`{"alg":"HS256","typ":"session+jwt"}`, `{"jti":"`+id+`","iat":9999999999}`),
		"negative idle":                sign(`{"alg":"HS256","typ":"session+jwt"}`, `{"jti":"`+id+`","idle":-1}`),
		"payload that is an array":     sign(`{"alg":"HS256","typ":"session+jwt"}`, `[]`),
		"payload with a tail":          sign(`{"alg":"HS256","typ":"session+jwt"}`, `{"jti":"`+id+`"}{}`),
		"payload that nests deeply":    sign(`{"alg":"HS256","typ":"session+jwt"}`, `{"jti":"`+id+`","x":`+strings.Repeat("[", 1500)+strings.Repeat("]", 1499)+`}`),
		"longer than 8 KiB":            sign(`{"alg":"HS256","typ":"session+jwt"}`, `{"jti":"`+id+`","x":"`+strings.Repeat("x", 8<<10)+`"}`),
		"a token of another instance":  hs256(`{"alg":"HS256","kid":"a","typ":"session+jwt"}`, claims, []byte(strings.Repeat("a", 32))),
		"an ID alone":                  id,
		"nothing but bytes over ASCII": "\xff\xfe.\xfd.\xfc",
	}
}

func TestHostileTokensCostNoCommandAndLookAlike(t *testing.T) {
	fake := newFakeRedis(t)
	m := newManager[User](t, echosession.Config{Client: fake, Secret: testSecret})
	s := newServer(t, m.Middleware())
	s.Any("/", func(c echo.Context) error { t.Error("let in"); return nil }, m.Require())
	good := newToken(t, m, "Ada")
	tokens := hostileTokens(t, good)
	if len(tokens) < 30 {
		t.Fatal(len(tokens))
	}
	before := fake.count("")
	var want string
	for name, token := range tokens {
		// JSON carries the bytes that no header can.
		quoted, err := json.Marshal(map[string]string{"accessToken": token})
		if err != nil {
			t.Fatal(err)
		}
		a := s.do(t, s.request(t, http.MethodPost, "/", string(quoted), "Content-Type", jsonType))
		got := fmt.Sprint(a.StatusCode, a.Header.Get("WWW-Authenticate"), a.body)
		if want == "" {
			want = got
		}
		if a.StatusCode != http.StatusUnauthorized || got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
		if sess, err := m.Open(t.Context(), token); err != nil || !errors.Is(sess.Reason(), echosession.ErrInvalidToken) {
			t.Errorf("%s: %v, %v", name, sess.Reason(), err)
		}
	}
	if n := fake.count("") - before; n != 0 {
		t.Errorf("%d commands", n)
	}
}

func TestARequestForAHostileRecord(t *testing.T) {
	type tree struct {
		Name     string
		Children []tree
		Any      any
	}
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		log := new(logBuffer)
		cfg.Logger = log.logger()
		later := time.Duration(0) // equal failures are logged once a second
		cfg.Now = func() time.Time { return time.Now().Add(later) }
		m := newManager[tree](t, cfg)
		s := newServer(t, m.Middleware())
		s.GET("/", func(c echo.Context) error { return c.NoContent(http.StatusOK) }, m.Require())
		store := storeOf(t, cfg)
		const secret = "the-data-of-somebody"
		genuine := func() (*echosession.Session[tree], []byte) {
			sess, err := m.Create(t.Context(), tree{Name: secret})
			if err != nil {
				t.Fatal(err)
			}
			record, err := store.Load(t.Context(), echosession.Ref{ID: sess.ID()}, 0)
			if err != nil {
				t.Fatal(err)
			}
			return sess, record
		}
		sess, record := genuine()
		_, other := genuine()
		// The data begins where the record of an empty tree differs.
		head := bytes.LastIndex(record, []byte("\xc0\x83")) + 1
		if head == 0 {
			t.Fatalf("no data in % x", record)
		}
		with := func(data string) []byte { return append(bytes.Clone(record[:head]), data...) }
		const deep = 60_000
		invalid := s.get(t, "/", "bad")
		for name, tt := range map[string]struct {
			record []byte
			status int
		}{
			"five bytes that ask for 4 Gi":        {[]byte("\xdf\xff\xff\xff\xff"), 401},
			"the same as data":                    {with("\xdf\xff\xff\xff\xff"), 401},
			"an array of 4 Gi":                    {with("\xdd\xff\xff\xff\xff"), 401},
			"a string of 4 Gi":                    {with("\xdb\xff\xff\xff\xff"), 401},
			"60,000 arrays":                       {bytes.Repeat([]byte{0x91}, deep), 401},
			"60,000 arrays as data":               {with(strings.Repeat("\x91", deep)), 401},
			"60,000 maps as data":                 {with(strings.Repeat("\x81", deep)), 401},
			"a value of another type":             {with("\xc3"), 401},
			"nothing as data":                     {with(""), 401},
			"a map that ends early":               {with("\x83\xa4Name"), 401},
			"a name twice":                        {with("\x82\xa4Name\xa1a\xa4Name\xa1b"), 401},
			"cut off":                             {record[:len(record)-1], 401},
			"cut off in the header":               {record[:20], 401},
			"one byte":                            {record[:1], 401},
			"a byte behind":                       {append(bytes.Clone(record), 0xc0), 401},
			"another format":                      {append([]byte{record[0], 0x7f}, record[2:]...), 401},
			"text":                                {[]byte("hello"), 401},
			"JSON":                                {[]byte(`{"Name":"x"}`), 401},
			"another session's record":            {other, 503},
			"another session's record, cut short": {other[:len(other)-1], 503},
		} {
			t.Run(name, func(t *testing.T) {
				overwrite(t, store, sess.ID(), tt.record)
				before := len(log.String())
				later += time.Second
				a := s.get(t, "/", sess.Token())
				if a.StatusCode != tt.status {
					t.Fatalf("%d %s", a.StatusCode, a.body)
				}
				if tt.status == 401 && (a.body != invalid.body || a.Header.Get("WWW-Authenticate") != invalid.Header.Get("WWW-Authenticate")) {
					t.Errorf("the answer differs: %s, %v", a.body, a.Header)
				}
				said := log.String()[before:]
				if strings.Contains(a.body+said, secret) || strings.Contains(said, sess.ID()) || strings.Contains(said, sess.Token()) {
					t.Errorf("%s; the log says %s", a.body, said)
				}
				if said == "" {
					t.Error("nobody was told")
				}
				if left, err := store.Load(t.Context(), echosession.Ref{ID: sess.ID()}, 0); !bytes.Equal(left, tt.record) {
					t.Errorf("left is %.40q, %v", left, err)
				}
			})
		}
		if cfg.Client == nil {
			return
		}
		t.Run("a list", func(t *testing.T) {
			client, ok := cfg.Client.(*redis.Client)
			if !ok {
				t.Skip("the fake has no lists")
			}
			key := cfg.Keyspace + sess.ID()
			client.Del(t.Context(), key)
			client.RPush(t.Context(), key, "a")
			client.Expire(t.Context(), key, time.Minute)
			a := s.get(t, "/", sess.Token())
			if a.StatusCode != 503 || a.Header.Get("WWW-Authenticate") != "" || strings.Contains(a.body, "WRONGTYPE") {
				t.Errorf("%d %s", a.StatusCode, a.body)
			}
			if n := client.LLen(t.Context(), key).Val(); n != 1 {
				t.Error("the list is gone")
			}
		})
	})
}

func TestRecordOfAnotherStruct(t *testing.T) {
	type other struct{ Name map[string]int }
	eachStore(t, func(t *testing.T, cfg echosession.Config) {
		token := newToken(t, newManager[User](t, cfg), "Ada")
		type counted struct {
			Name map[string]int `json:"name"`
		}
		sess, err := newManager[counted](t, cfg).Open(t.Context(), token)
		if err != nil || !errors.Is(sess.Reason(), echosession.ErrCorrupt) || echosession.CorruptReason(sess.Reason()) != "data" || sess.Exists() {
			t.Error(sess.Reason(), err)
		}
		// A struct without the field reads what it knows.
		if sess, err := newManager[other](t, cfg).Open(t.Context(), token); err != nil || !sess.Exists() {
			t.Error(sess.Reason(), err)
		}
		if sess, err := newManager[User](t, cfg).Open(t.Context(), token); err != nil || sess.Data().Name != "Ada" {
			t.Error(sess.Reason(), err)
		}
	})
}
