package echosession_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math/big"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
)

// mistaken is a Config that would be good but for what a test changes.
func mistaken(change func(*echosession.Config)) echosession.Config {
	cfg := echosession.Config{Store: echosession.NewMemoryStore(), Secret: testSecret}
	change(&cfg)
	return cfg
}

// weakRSA returns a key that crypto/rsa itself would not make any more.
func weakRSA() *rsa.PublicKey {
	n := new(big.Int).Lsh(big.NewInt(1), 1023)
	return &rsa.PublicKey{N: n.Add(n, big.NewInt(1)), E: 65537}
}

func TestNewRefuses(t *testing.T) {
	type config = echosession.Config
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	secretKey := func(id string) echosession.SigningKey {
		return echosession.SigningKey{ID: id, Algorithm: "HS256", Key: []byte(rand.Text() + rand.Text())}
	}
	key32 := testSecret[:32]
	for name, tt := range map[string]struct {
		change func(*config)
		field  string
		says   string // how to mend it, or what is wrong
	}{
		"no secret":                        {func(c *config) { c.Secret = nil }, "Secret", "32 random bytes"},
		"short secret":                     {func(c *config) { c.Secret = testSecret[:31] }, "Secret", "at least 32"},
		"secret too short for HS384":       {func(c *config) { c.Secret, c.Algorithm = testSecret[:47], "HS384" }, "Secret", "at least 48"},
		"secret too short for HS512":       {func(c *config) { c.Secret, c.Algorithm = testSecret[:63], "HS512" }, "Secret", "at least 64"},
		"PEM file as secret":               {func(c *config) { c.Secret = []byte("-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQY=") }, "Secret", "PEM"},
		"algorithm none":                   {func(c *config) { c.Algorithm = "none" }, "Algorithm", "HS256, HS384 or HS512"},
		"unknown algorithm":                {func(c *config) { c.Algorithm = "hs256" }, "Algorithm", "HS256, HS384 or HS512"},
		"asymmetric algorithm with Secret": {func(c *config) { c.Algorithm = "RS256" }, "Algorithm", "Keys"},
		"unknown algorithm and no secret":  {func(c *config) { c.Secret, c.Algorithm = nil, "none" }, "Algorithm", "HS256"},
		"Algorithm with Keys": {func(c *config) {
			c.Secret, c.Algorithm, c.Keys = nil, "HS256", []echosession.SigningKey{secretKey("a")}
		}, "Algorithm", "Keys names its own"},
		"a legacy key first": {func(c *config) {
			c.Secret, c.Keys = nil, []echosession.SigningKey{{Algorithm: "HS256", Key: legacySecret, VerifyOnly: true, Legacy: true}, secretKey("")}
		}, "Keys[0]", "put the key that signs before it"},
		"a legacy key that may sign": {func(c *config) {
			c.Secret, c.Keys = nil, []echosession.SigningKey{secretKey(""), {Algorithm: "HS256", Key: legacySecret, Legacy: true}}
		}, "Keys[1]", "VerifyOnly: true"},
		"a legacy key and Secret": {func(c *config) {
			c.Keys = []echosession.SigningKey{{Algorithm: "HS256", Key: legacySecret, VerifyOnly: true, Legacy: true}}
		}, "Keys", "the secret is the Key of the first of Keys"},
		"Keys and Secret": {func(c *config) { c.Keys = []echosession.SigningKey{secretKey("a")} }, "Keys", "not both"},
		"duplicate key IDs": {func(c *config) {
			c.Secret, c.Keys = nil, []echosession.SigningKey{secretKey("a"), secretKey("a")}
		}, "Keys[1]", `"a"`},
		"several keys without IDs": {func(c *config) {
			c.Secret, c.Keys = nil, []echosession.SigningKey{secretKey("a"), secretKey("")}
		}, "Keys[1]", "each needs one"},
		"key with algorithm none": {func(c *config) {
			c.Secret, c.Keys = nil, []echosession.SigningKey{{Algorithm: "none", Key: testSecret}}
		}, "Keys[0]", "unsigned"},
		"key without algorithm": {func(c *config) {
			c.Secret, c.Keys = nil, []echosession.SigningKey{{Key: testSecret}}
		}, "Keys[0]", "Algorithm is missing"},
		"short RSA key": {func(c *config) {
			c.Secret, c.Keys = nil, []echosession.SigningKey{secretKey("a"), {ID: "b", Algorithm: "RS256", Key: weakRSA()}}
		}, "Keys[1]", "at least 2048"},
		"key of another kind": {func(c *config) {
			c.Secret, c.Keys = nil, []echosession.SigningKey{{Algorithm: "RS256", Key: p256}}
		}, "Keys[0]", "RSA"},
		"key on another curve": {func(c *config) {
			c.Secret, c.Keys = nil, []echosession.SigningKey{{Algorithm: "ES384", Key: p256}}
		}, "Keys[0]", "P-384"},
		"first key verifies only": {func(c *config) {
			c.Secret, c.Keys = nil, []echosession.SigningKey{{Algorithm: "ES256", Key: p256.Public()}}
		}, "Keys[0]", "public key"},
		"no key material": {func(c *config) {
			c.Secret, c.Keys = nil, []echosession.SigningKey{{Algorithm: "HS256"}}
		}, "Keys[0]", "nil"},
		"one secret under two algorithms": {func(c *config) {
			c.Secret, c.Keys = nil, []echosession.SigningKey{
				{ID: "a", Algorithm: "HS256", Key: testSecret}, {ID: "b", Algorithm: "HS384", Key: testSecret},
			}
		}, "Keys[1]", "another Algorithm"},
		"no store":   {func(c *config) { c.Store = nil }, "Client", "NewMemoryStore"},
		"both":       {func(c *config) { c.Client = newFakeRedis(t) }, "Store", "not both"},
		"nil client": {func(c *config) { c.Store, c.Client = nil, (*redis.Client)(nil) }, "Client", "nil"},
		"pipeline as client": {func(c *config) {
			client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
			t.Cleanup(func() { client.Close() })
			c.Store, c.Client = nil, client.Pipeline().(echosession.RedisClient)
		}, "Client", "AutoPipeline"},
		"negative MaxAge":                     {func(c *config) { c.MaxAge = -time.Hour }, "MaxAge", "at least a millisecond"},
		"MaxAge under a millisecond":          {func(c *config) { c.MaxAge = time.Millisecond - 1 }, "MaxAge", "at least a millisecond"},
		"negative AbsoluteTimeout":            {func(c *config) { c.AbsoluteTimeout = -time.Hour }, "AbsoluteTimeout", "at least a second"},
		"AbsoluteTimeout under a second":      {func(c *config) { c.AbsoluteTimeout = time.Second - 1 }, "AbsoluteTimeout", "at least a second"},
		"AbsoluteTimeout over a century":      {func(c *config) { c.AbsoluteTimeout = 101 * 365 * 24 * time.Hour }, "AbsoluteTimeout", "at most"},
		"negative TouchInterval":              {func(c *config) { c.TouchInterval = -time.Second }, "TouchInterval", "TouchAlways"},
		"TouchInterval equal to MaxAge":       {func(c *config) { c.MaxAge, c.TouchInterval = time.Hour, time.Hour }, "TouchInterval", "below MaxAge"},
		"TouchInterval above MaxAge":          {func(c *config) { c.TouchInterval = 25 * time.Hour }, "TouchInterval", "below MaxAge"},
		"negative RotateGrace":                {func(c *config) { c.RotateGrace = -time.Second }, "RotateGrace", "NoGrace"},
		"RotateGrace under a millisecond":     {func(c *config) { c.RotateGrace = 1 }, "RotateGrace", "at least a millisecond"},
		"negative StoreTimeout":               {func(c *config) { c.StoreTimeout = -time.Second }, "StoreTimeout", "at least a millisecond"},
		"StoreTimeout under a millisecond":    {func(c *config) { c.StoreTimeout = 1 }, "StoreTimeout", "at least a millisecond"},
		"negative ClockSkew":                  {func(c *config) { c.ClockSkew = -1 }, "ClockSkew", "from 0 to 5m"},
		"ClockSkew over 5 minutes":            {func(c *config) { c.ClockSkew = 5*time.Minute + 1 }, "ClockSkew", "from 0 to 5m"},
		"ClockSkew, and no secret":            {func(c *config) { c.Secret, c.ClockSkew = nil, time.Hour }, "ClockSkew", "from 0 to 5m"},
		"negative MaxRecordSize":              {func(c *config) { c.MaxRecordSize = -1 }, "MaxRecordSize", "bytes"},
		"negative MaxSessions":                {func(c *config) { c.SubjectIndex, c.MaxSessions = true, -1 }, "MaxSessions", "sessions"},
		"MaxSessions without SubjectIndex":    {func(c *config) { c.MaxSessions = 1 }, "MaxSessions", "SubjectIndex: true"},
		"negative WaitReplicas":               {func(c *config) { c.WaitReplicas = -1 }, "WaitReplicas", "replicas"},
		"WaitReplicas with Store":             {func(c *config) { c.WaitReplicas = 1 }, "WaitReplicas", "NewRedisStore"},
		"WaitReplicas with another client":    {func(c *config) { c.Store, c.Client, c.WaitReplicas = nil, newFakeRedis(t), 1 }, "WaitReplicas", "*redis.ClusterClient"},
		"short encryption key":                {func(c *config) { c.EncryptionKeys = [][]byte{key32, key32[:16]} }, "EncryptionKeys", "exactly 32"},
		"long encryption key":                 {func(c *config) { c.EncryptionKeys = [][]byte{testSecret[:33]} }, "EncryptionKeys", "exactly 32"},
		"an encryption key twice":             {func(c *config) { c.EncryptionKeys = [][]byte{key32, key32} }, "EncryptionKeys", "the same"},
		"AllowPlaintext without a key":        {func(c *config) { c.AllowPlaintext = true }, "AllowPlaintext", "EncryptionKeys"},
		"the word cookie without a cookie":    {func(c *config) { c.TokenLookup = "bearer,cookie" }, "TokenLookup", "set it or name one"},
		"a partitioned cookie over HTTP":      {func(c *config) { c.Cookie = &echosession.Cookie{Insecure: true, Partitioned: true} }, "Cookie", "drop Insecure or Partitioned"},
		"a WhenFull that is none":             {func(c *config) { c.SubjectIndex, c.MaxSessions, c.WhenFull = true, 3, 7 }, "WhenFull", "EvictOldest or RefuseNew"},
		"a refusal without a limit":           {func(c *config) { c.WhenFull = echosession.RefuseNew }, "WhenFull", "needs MaxSessions"},
		"a refusal with a limit too high":     {func(c *config) { c.SubjectIndex, c.MaxSessions, c.WhenFull = true, 1001, echosession.RefuseNew }, "WhenFull", "lower MaxSessions (1001)"},
		"unknown lookup source":               {func(c *config) { c.TokenLookup = "session:x" }, "TokenLookup", "use bearer, cookie, header"},
		"lookup without a name":               {func(c *config) { c.TokenLookup = "query:" }, "TokenLookup", "no name"},
		"lookup with an impossible header":    {func(c *config) { c.TokenLookup = "header:a b" }, "TokenLookup", "header"},
		"empty entry in the lookup":           {func(c *config) { c.TokenLookup = "query:a,,query:b" }, "TokenLookup", "unknown source"},
		"RequestArg that makes no header":     {func(c *config) { c.RequestArg = "access token" }, "RequestArg", "header"},
		"issuer that is not UTF-8":            {func(c *config) { c.Issuer = "\xff" }, "Issuer", "UTF-8"},
		"empty audience":                      {func(c *config) { c.Audience = []string{"api", ""} }, "Audience[1]", "empty"},
		"__Host- with Domain":                 {func(c *config) { c.Cookie = &echosession.Cookie{Domain: "example.com"} }, "Cookie", "__Host-"},
		"__Host- with Path":                   {func(c *config) { c.Cookie = &echosession.Cookie{Path: "/app"} }, "Cookie", "__Host-"},
		"__HOST- with Domain":                 {func(c *config) { c.Cookie = &echosession.Cookie{Name: "__HOST-x", Domain: "example.com"} }, "Cookie", "__Host-"},
		"__Host- with Insecure":               {func(c *config) { c.Cookie = &echosession.Cookie{Name: "__Host-x", Insecure: true} }, "Cookie", "Insecure"},
		"__Secure- with Insecure":             {func(c *config) { c.Cookie = &echosession.Cookie{Name: "__Secure-x", Insecure: true} }, "Cookie", "Insecure"},
		"SameSite=None with Insecure":         {func(c *config) { c.Cookie = &echosession.Cookie{SameSite: http.SameSiteNoneMode, Insecure: true} }, "Cookie", "SameSite"},
		"cookie name too long":                {func(c *config) { c.Cookie = &echosession.Cookie{Name: strings.Repeat("n", 4000)} }, "Cookie", "4096"},
		"cookie name that is none":            {func(c *config) { c.Cookie = &echosession.Cookie{Name: "a b"} }, "Cookie", "Name"},
		"cookie domain that is none":          {func(c *config) { c.Cookie = &echosession.Cookie{Name: "s", Domain: "a b"} }, "Cookie", "Domain"},
		"lookup that leaves out the cookie":   {func(c *config) { c.Cookie, c.TokenLookup = &echosession.Cookie{}, "header:X-T" }, "TokenLookup", "add the word cookie"},
		"trusted origin without scheme":       {func(c *config) { c.Cookie, c.TrustedOrigins = &echosession.Cookie{}, []string{"a.example"} }, "TrustedOrigins", "a.example"},
		"trusted origin with a path":          {func(c *config) { c.Cookie, c.TrustedOrigins = &echosession.Cookie{}, []string{"https://a.example/"} }, "TrustedOrigins", "path"},
		"trusted origin with a wildcard":      {func(c *config) { c.Cookie, c.TrustedOrigins = &echosession.Cookie{}, []string{"https://*.a.example"} }, "TrustedOrigins", "list each"},
		"trusted origin where no cookie goes": {func(c *config) { c.TrustedOrigins = []string{"https://a.example"} }, "TrustedOrigins", "Cookie"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := echosession.New[User](mistaken(tt.change))
			if err == nil {
				t.Fatal("New takes it")
			}
			prefix := "echosession: Config." + tt.field + ": "
			found := false
			for line := range strings.Lines(err.Error()) {
				if !strings.HasPrefix(line, "echosession: Config.") || strings.Count(line, "echosession: ") != 1 {
					t.Errorf("a line that does not name its field: %s", line)
				}
				found = found || strings.HasPrefix(line, prefix) && strings.Contains(line, tt.says)
			}
			if !found {
				t.Errorf("New says\n%v\nand not %q and %q", err, prefix, tt.says)
			}
		})
	}
}

func TestNewRefusesOnlyWhatIsWrong(t *testing.T) {
	_, err := echosession.New[User](mistaken(func(c *echosession.Config) { c.MaxAge = -time.Hour }))
	if err == nil || strings.Count(err.Error(), "\n") != 0 {
		t.Errorf("one mistake, and New says\n%v", err)
	}
}

func TestNewRefusesTypesThatCannotBeStored(t *testing.T) {
	type inner struct{ Err error }
	type account struct {
		Name   string
		Notify chan int
		Hook   func()
		Inner  []inner
	}
	type secretive struct{ name string }
	_ = secretive{name: ""}.name
	cfg := mistaken(func(*echosession.Config) {})
	_, structErr := echosession.New[account](cfg)
	_, pointerErr := echosession.New[*User](cfg)
	_, interfaceErr := echosession.New[fmt.Stringer](cfg)
	_, unexportedErr := echosession.New[secretive](cfg)
	for _, tt := range []struct {
		err  error
		want []string
	}{
		{structErr, []string{"account.Notify: ", "account.Hook: ", "account.Inner[].Err: "}},
		{pointerErr, []string{"*echosession_test.User: "}},
		{interfaceErr, []string{"fmt.Stringer: "}},
		{unexportedErr, []string{"secretive.name: "}},
	} {
		if tt.err == nil {
			t.Errorf("New takes what has %q", tt.want)
			continue
		}
		if lines := strings.Split(tt.err.Error(), "\n"); len(lines) != len(tt.want) {
			t.Errorf("New says\n%v\nand not %d mistakes", tt.err, len(tt.want))
		}
		for _, path := range tt.want {
			if !strings.Contains(tt.err.Error(), "echosession: T: "+path) {
				t.Errorf("New says\n%v\nand not %q", tt.err, path)
			}
		}
	}
}

// manyMistakes is a Config with one mistake in each of these fields.
func manyMistakes(t *testing.T) (cfg echosession.Config, fields []string) {
	return echosession.Config{
			Client:         newFakeRedis(t),
			Store:          echosession.NewMemoryStore(),
			Secret:         []byte("the secret is short"),
			Algorithm:      "none",
			MaxAge:         -1,
			StoreTimeout:   -1,
			RotateGrace:    -2,
			MaxSessions:    3,
			MaxRecordSize:  -1,
			ClockSkew:      time.Hour,
			Issuer:         "\xff",
			Audience:       []string{""},
			TokenLookup:    "nowhere:x,cookie:__Host-session",
			Cookie:         &echosession.Cookie{Domain: "example.com"},
			TrustedOrigins: []string{"example.com"},
			EncryptionKeys: [][]byte{[]byte("the encryption key")},
		}, []string{
			"Store", "Secret", "Algorithm", "MaxAge", "StoreTimeout", "RotateGrace", "MaxSessions", "MaxRecordSize",
			"ClockSkew", "Issuer", "Audience[0]", "TokenLookup", "Cookie", "TrustedOrigins", "EncryptionKeys",
		}
}

func TestNewNamesEveryMistakeAtOnce(t *testing.T) {
	type unfit struct{ C chan int }
	cfg, fields := manyMistakes(t)
	_, err := echosession.New[unfit](cfg)
	if err == nil {
		t.Fatal("New takes it")
	}
	for _, field := range fields {
		if !strings.Contains("\n"+err.Error(), "\nechosession: Config."+field+": ") {
			t.Errorf("nothing about %s in\n%v", field, err)
		}
	}
	if !strings.Contains(err.Error(), "\nechosession: T: unfit.C: ") {
		t.Errorf("nothing about T in\n%v", err)
	}
	if got, want := strings.Count(err.Error(), "\n")+1, len(fields)+1; got != want {
		t.Errorf("%d mistakes, not %d, in\n%v", got, want, err)
	}
	var named []string
	for _, err := range err.(interface{ Unwrap() []error }).Unwrap() {
		mistake, ok := errors.AsType[*echosession.ConfigError](err)
		if !ok {
			t.Fatalf("%v is a %T", err, err)
		}
		named = append(named, mistake.Field)
	}
	if want := append(fields, "T"); !slices.Equal(slices.Sorted(slices.Values(named)), slices.Sorted(slices.Values(want))) {
		t.Errorf("the fields of the ConfigErrors are %q, not %q", named, want)
	}
	for _, secret := range []string{"the secret is short", "the encryption key"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the text holds %q", secret)
		}
	}
}

func TestMiddlewarePanicsWithTheErrorOfNew(t *testing.T) {
	cfg, _ := manyMistakes(t)
	_, err := echosession.New[User](cfg)
	defer func() {
		if r := recover(); r == nil || fmt.Sprint(r) != err.Error() {
			t.Errorf("the panic says\n%v\nand New\n%v", r, err)
		}
	}()
	echosession.Middleware[User](cfg)
}

func TestNewTalksToNoStore(t *testing.T) {
	fake := newFakeRedis(t)
	m := newManager[User](t, echosession.Config{Client: fake, Secret: testSecret, SubjectIndex: true, MaxSessions: 3})
	m.Middleware()
	m.Require()
	if n := fake.count(""); n != 0 {
		t.Errorf("%d commands", n)
	}
}

func TestNewKeepsNothingOfTheConfig(t *testing.T) {
	secret, key := []byte(string(testSecret)), []byte(string(testSecret[:32]))
	cookie := &echosession.Cookie{Name: "before", Insecure: true}
	cfg := echosession.Config{
		Store: echosession.NewMemoryStore(), Secret: secret, EncryptionKeys: [][]byte{key}, Cookie: cookie, Audience: []string{"api"},
	}
	m := newManager[User](t, cfg)
	sess, err := m.Create(t.Context(), User{Name: "Ada"})
	if err != nil {
		t.Fatal(err)
	}
	clear(secret)
	clear(key)
	cookie.Name, cfg.Audience[0] = "after", "other"
	again, err := m.Open(t.Context(), sess.Token())
	if err != nil || again.Data().Name != "Ada" {
		t.Error(again.Reason(), err)
	}
	rec := httptest.NewRecorder()
	login := m.Middleware()(func(c echo.Context) error {
		sess, err := m.Get(c)
		if err == nil {
			_, err = sess.Create(t.Context(), User{})
		}
		return err
	})
	if err := login(echo.New().NewContext(httptest.NewRequest(http.MethodPost, "/", nil), rec)); err != nil {
		t.Fatal(err)
	}
	if cookies := rec.Result().Cookies(); len(cookies) != 1 || cookies[0].Name != "before" {
		t.Errorf("the cookies are %v", cookies)
	}
}

// TestDefaults compares what the documentation of Config says with what New does.
func TestDefaults(t *testing.T) {
	docs := fieldDocs(t, "echosession.go", "Config")
	for name, doc := range fieldDocs(t, "cookie.go", "Cookie") {
		docs["Cookie."+name] = doc
	}
	cfg := echosession.Effective(mistaken(func(c *echosession.Config) { c.Cookie = &echosession.Cookie{} }))
	plain := echosession.Effective(mistaken(func(*echosession.Config) {}))
	insecure := echosession.Effective(mistaken(func(c *echosession.Config) { c.Cookie = &echosession.Cookie{Insecure: true} }))
	shortLived := echosession.Effective(mistaken(func(c *echosession.Config) { c.MaxAge = 2 * time.Minute }))
	sess, err := newManager[User](t, mistaken(func(*echosession.Config) {})).Create(t.Context(), User{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		field     string
		says      string
		got, want any
	}{
		{"Algorithm", `Default "HS256".`, tokenHeader(t, sess.Token())["alg"], "HS256"},
		{"Keyspace", `Default "sess:".`, cfg.Keyspace, "sess:"},
		{"MaxAge", "Default 24 hours.", cfg.MaxAge, 24 * time.Hour},
		{"AbsoluteTimeout", "Default 0: none.", cfg.AbsoluteTimeout, time.Duration(0)},
		{"TouchInterval", "Default: a twentieth of MaxAge, and at most a minute.", cfg.TouchInterval, time.Minute},
		{"TouchInterval", "Default: a twentieth of MaxAge, and at most a minute.", shortLived.TouchInterval, 6 * time.Second},
		{"RequestKey", `Default "session".`, cfg.RequestKey, "session"},
		{"RequestArg", `Default "accessToken"`, cfg.RequestArg, "accessToken"},
		{"Issuer", `Default "": none.`, sess.Claims()["iss"], nil},
		{"Audience", "Default: none.", sess.Claims()["aud"], nil},
		{"ClockSkew", "Default 0.", cfg.ClockSkew, time.Duration(0)},
		{"Cookie", "Default nil: no cookie.", plain.Cookie, (*echosession.Cookie)(nil)},
		{"SubjectIndex", "Default false.", cfg.SubjectIndex, false},
		{"MaxSessions", "Default 0: any number.", cfg.MaxSessions, 0},
		{"RotateGrace", "Default 10 seconds.", cfg.RotateGrace, 10 * time.Second},
		{"AllowPlaintext", "Default false.", cfg.AllowPlaintext, false},
		{"Import", "Default nil: what is not a record is ErrCorrupt.", cfg.Import == nil, true},
		{"MaxRecordSize", "Default 64 KiB.", cfg.MaxRecordSize, 64 << 10},
		{"StoreTimeout", "Default 1 second.", cfg.StoreTimeout, time.Second},
		{"WaitReplicas", "Default 0: writes do not wait.", cfg.WaitReplicas, 0},
		{"Now", "Default time.Now.", reflect.ValueOf(cfg.Now).Pointer(), reflect.ValueOf(time.Now).Pointer()},
		{"Cookie.Name", `Default "__Host-session", and "session" with Insecure`, cfg.Cookie.Name, "__Host-session"},
		{"Cookie.Name", `Default "__Host-session", and "session" with Insecure`, insecure.Cookie.Name, "session"},
		{"Cookie.Path", `Default "/".`, cfg.Cookie.Path, "/"},
		{"Cookie.Domain", "Default: to the host that set it alone.", cfg.Cookie.Domain, ""},
		{"Cookie.SameSite", "Default http.SameSiteLaxMode.", cfg.Cookie.SameSite, http.SameSiteLaxMode},
		{"Cookie.Persistent", "Default false.", cfg.Cookie.Persistent, false},
	} {
		if !strings.Contains(docs[tt.field], tt.says) {
			t.Errorf("%s: the documentation does not say %q:\n%s", tt.field, tt.says, docs[tt.field])
		}
		if tt.got != tt.want {
			t.Errorf("%s is %v, not %v", tt.field, tt.got, tt.want)
		}
	}
	const lookup = "bearer,header:X-Access-Token,query:accessToken,body:accessToken"
	if got := echosession.DefaultTokenLookup("accessToken"); got != lookup {
		t.Errorf("TokenLookup is %q, not %q", got, lookup)
	}
}

// fieldDocs returns the documentation of a struct's fields, each in one line.
func fieldDocs(t *testing.T, file, typeName string) map[string]string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	docs := make(map[string]string)
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok || spec.Name.Name != typeName {
			return true
		}
		for _, field := range spec.Type.(*ast.StructType).Fields.List {
			docs[field.Names[0].Name] = strings.Join(strings.Fields(field.Doc.Text()), " ")
		}
		return false
	})
	if len(docs) == 0 {
		t.Fatalf("no struct %s in %s", typeName, file)
	}
	return docs
}

// tokenHeader returns the header of a token.
func tokenHeader(t testing.TB, token string) (header map[string]any) {
	t.Helper()
	segment, _, _ := strings.Cut(token, ".")
	if err := json.Unmarshal(unb64(t, segment), &header); err != nil {
		t.Fatal(err)
	}
	return header
}
