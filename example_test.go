package echosession_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	"github.com/echosession/echosession"
	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"
)

// ask sends a request to e and returns the answer's status and body.
func ask(e *echo.Echo, method, path, token string) string {
	r := httptest.NewRequest(method, path, nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	rec := httptest.NewRecorder()
	e.ServeHTTP(rec, r)
	return strings.TrimSpace(fmt.Sprint(rec.Code, " ", rec.Body))
}

// newExampleManager returns a Manager for the examples about its methods.
func newExampleManager() *echosession.Manager[User] {
	sessions, err := echosession.New[User](echosession.Config{
		Store:        echosession.NewMemoryStore(),
		Secret:       testSecret,
		SubjectIndex: true,
	})
	if err != nil {
		panic(err)
	}
	return sessions
}

func Example() {
	type User struct {
		Name   string `json:"name"`
		Visits int    `json:"visits"`
	}

	secret := make([]byte, 32)
	rand.Read(secret) // in production, it comes from your configuration

	e := echo.New()
	e.Use(echosession.Middleware[User](echosession.Config{
		Store:  echosession.NewMemoryStore(), // or Client: rdb
		Secret: secret,
	}))

	e.POST("/login", func(c echo.Context) error {
		sess, err := echosession.Get[User](c)
		if err != nil {
			return err
		}
		token, err := sess.Create(c.Request().Context(), User{Name: "Ada"})
		if err != nil {
			return err
		}
		return c.String(http.StatusOK, token)
	})

	e.GET("/me", func(c echo.Context) error {
		sess, err := echosession.Get[User](c)
		if err != nil {
			return err
		}
		err = sess.Update(c.Request().Context(), func(u *User) error {
			u.Visits++
			return nil
		})
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, sess)
	}, echosession.Require[User]())

	_, token, _ := strings.Cut(ask(e, "POST", "/login", ""), " ")
	fmt.Println(ask(e, "GET", "/me", token))
	fmt.Println(ask(e, "GET", "/me", token))
	fmt.Println(ask(e, "GET", "/me", "another token"))
	// Output:
	// 200 {"name":"Ada","visits":1}
	// 200 {"name":"Ada","visits":2}
	// 401 {"message":"the session is invalid or has ended"}
}

func ExampleMiddleware() {
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:6379", ContextTimeoutEnabled: true})
	secret, err := base64.StdEncoding.DecodeString(os.Getenv("SESSION_SECRET"))
	if err != nil {
		panic(err)
	}

	e := echo.New()
	e.Use(echosession.Middleware[User](echosession.Config{Client: rdb, Secret: secret}))
	e.GET("/", func(c echo.Context) error {
		sess, err := echosession.Get[User](c)
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, sess)
	})
}

func ExampleGet() {
	sessions := newExampleManager()
	e := echo.New()
	e.Use(sessions.Middleware())
	e.GET("/", func(c echo.Context) error {
		sess, err := echosession.Get[User](c)
		if err != nil {
			return err // the store is down: 503, not "logged out"
		}
		if !sess.Exists() {
			return c.String(http.StatusOK, "Hello, stranger.")
		}
		return c.String(http.StatusOK, "Hello, "+sess.Data().Name+".")
	})

	sess, err := sessions.Create(context.Background(), User{Name: "Ada"})
	if err != nil {
		panic(err)
	}
	fmt.Println(ask(e, "GET", "/", ""))
	fmt.Println(ask(e, "GET", "/", sess.Token()))
	// Output:
	// 200 Hello, stranger.
	// 200 Hello, Ada.
}

func ExampleRequire() {
	sessions := newExampleManager()
	e := echo.New()
	e.Use(sessions.Middleware())
	private := e.Group("/private", echosession.Require[User]())
	private.GET("/orders", func(c echo.Context) error {
		return c.String(http.StatusOK, "three orders")
	})

	sess, err := sessions.Create(context.Background(), User{Name: "Ada"})
	if err != nil {
		panic(err)
	}
	fmt.Println(ask(e, "GET", "/private/orders", ""))
	fmt.Println(ask(e, "GET", "/private/orders", sess.Token()))
	// Output:
	// 401 {"message":"authentication is required"}
	// 200 three orders
}

func ExampleFresh() {
	now := time.Now()
	sessions, err := echosession.New[User](echosession.Config{
		Store:  echosession.NewMemoryStore(),
		Secret: testSecret,
		Now:    func() time.Time { return now },
	})
	if err != nil {
		panic(err)
	}
	e := echo.New()
	e.Use(sessions.Middleware())
	e.DELETE("/account", func(c echo.Context) error {
		return c.NoContent(http.StatusNoContent)
	}, echosession.Require[User](echosession.Fresh(5*time.Minute)))

	sess, err := sessions.Create(context.Background(), User{Name: "Ada"})
	if err != nil {
		panic(err)
	}
	now = now.Add(10 * time.Minute)
	fmt.Println(ask(e, "DELETE", "/account", sess.Token()))
	// Output:
	// 401 {"message":"a more recent login is required"}
}

// A login that comes back as another site's POST, as Sign in with Apple does.
func ExampleCrossOriginVerified() {
	sessions, err := echosession.New[User](echosession.Config{
		Store:  echosession.NewMemoryStore(),
		Secret: testSecret,
		Cookie: &echosession.Cookie{},
	})
	if err != nil {
		panic(err)
	}
	e := echo.New()
	e.Use(sessions.Middleware())
	e.POST("/callback", func(c echo.Context) error {
		sess, err := sessions.Get(c)
		if err != nil {
			return err
		}
		// This cookie was set with SameSite=None when the login began.
		state, err := c.Cookie("login-state")
		if err != nil || state.Value == "" || state.Value != c.FormValue("state") {
			return echo.ErrForbidden
		}
		_, err = sess.Create(c.Request().Context(), User{Name: "Ada"}, echosession.CrossOriginVerified())
		if err != nil {
			return err
		}
		return c.Redirect(http.StatusSeeOther, "/")
	})
	for _, state := range []string{"guessed", "4711"} {
		r := httptest.NewRequest(http.MethodPost, "/callback?state="+state, nil)
		r.Header.Set("Origin", "null")
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		r.Header.Set("Cookie", "login-state=4711")
		rec := httptest.NewRecorder()
		e.ServeHTTP(rec, r)
		fmt.Println(rec.Code, len(rec.Result().Cookies()))
	}
	// Output:
	// 403 0
	// 303 1
}

func ExampleSession_Update() {
	ctx := context.Background()
	sess, err := newExampleManager().Create(ctx, User{Name: "Ada"})
	if err != nil {
		panic(err)
	}

	errFull := errors.New("the cart is full")
	add := func(u *User) error {
		if len(u.Cart) == 2 {
			return errFull // nothing is stored
		}
		u.Cart = append(u.Cart, "apple")
		return nil
	}
	for range 3 {
		err := sess.Update(ctx, add)
		fmt.Println(sess.Data().Cart, err)
	}
	// Output:
	// [apple] <nil>
	// [apple apple] <nil>
	// [apple apple] the cart is full
}

func ExampleSession_Create() {
	sessions := newExampleManager()
	login := func(c echo.Context) error {
		sess, err := sessions.Get(c)
		if err != nil {
			return err
		}
		opts := []echosession.CreateOption{
			echosession.WithSubject("user-17"),
			echosession.WithClaims(echosession.Claims{"plan": "pro"}),
		}
		if c.QueryParam("remember") == "me" {
			opts = append(opts, echosession.Remember(90*24*time.Hour))
		}
		if _, err := sess.Create(c.Request().Context(), User{Name: "Ada"}, opts...); err != nil {
			return err
		}
		days := time.Until(sess.ExpiresAt()).Round(time.Hour).Hours() / 24
		return c.String(http.StatusOK, fmt.Sprintf("%s, plan %s, %v days", sess.Subject(), sess.Claims()["plan"], days))
	}

	e := echo.New()
	e.Use(sessions.Middleware())
	e.POST("/login", login)
	fmt.Println(ask(e, "POST", "/login", ""))
	fmt.Println(ask(e, "POST", "/login?remember=me", ""))
	// Output:
	// 200 user-17, plan pro, 1 days
	// 200 user-17, plan pro, 90 days
}

func ExampleSession_Destroy() {
	sessions := newExampleManager()
	e := echo.New()
	e.Use(sessions.Middleware())
	e.POST("/logout", func(c echo.Context) error {
		sess, err := sessions.Get(c)
		if err != nil {
			return err
		}
		if err := sess.Destroy(c.Request().Context()); err != nil {
			return err
		}
		return c.NoContent(http.StatusNoContent)
	})

	sess, err := sessions.Create(context.Background(), User{Name: "Ada"})
	if err != nil {
		panic(err)
	}
	fmt.Println(ask(e, "POST", "/logout", sess.Token()))
	fmt.Println(ask(e, "POST", "/logout", sess.Token())) // a second logout is no error
	fmt.Println(sess.Reload(context.Background()))
	// Output:
	// 204
	// 204
	// echosession: the session is gone
}

func ExampleSession_Rotate() {
	ctx := context.Background()
	sessions := newExampleManager()
	sess, err := sessions.Create(ctx, User{Name: "Ada"})
	if err != nil {
		panic(err)
	}

	id := sess.ID()
	token, err := sess.Rotate(ctx) // from now on the client sends this token
	if err != nil {
		panic(err)
	}
	sess, err = sessions.Open(ctx, token)
	if err != nil {
		panic(err)
	}
	fmt.Println(sess.ID() != id, sess.Data().Name)
	// Output:
	// true Ada
}

func ExampleManager_List() {
	ctx := context.Background()
	sessions := newExampleManager()
	for _, device := range []string{"phone", "laptop"} {
		if _, err := sessions.Create(ctx, User{Name: "Ada on a " + device}, echosession.WithSubject("user-17")); err != nil {
			panic(err)
		}
	}

	list, err := sessions.List(ctx, "user-17")
	if err != nil {
		panic(err)
	}
	for _, sess := range list {
		fmt.Println(sess.Data().Name)
	}
	// Output:
	// Ada on a phone
	// Ada on a laptop
}

func ExampleManager_RevokeSubject() {
	ctx := context.Background()
	sessions := newExampleManager()
	login := func() *echosession.Session[User] {
		sess, err := sessions.Create(ctx, User{Name: "Ada"}, echosession.WithSubject("user-17"))
		if err != nil {
			panic(err)
		}
		return sess
	}
	login()
	login()
	sess := login()

	// Everywhere else: every session of the subject except this one.
	n, err := sessions.RevokeSubject(ctx, sess.Subject(), sess.ID())
	fmt.Println(n, err)
	// Everywhere.
	n, err = sessions.RevokeSubject(ctx, sess.Subject())
	fmt.Println(n, err)
	// Output:
	// 2 <nil>
	// 1 <nil>
}

func ExampleManager_All() {
	ctx := context.Background()
	sessions := newExampleManager()
	for range 3 {
		if _, err := sessions.Create(ctx, User{Cart: []string{"apple"}}); err != nil {
			panic(err)
		}
	}

	apples := 0
	for sess, err := range sessions.All(ctx) {
		if errors.Is(err, echosession.ErrCorrupt) {
			continue // this record cannot be read; the visit continues
		}
		if err != nil {
			panic(err)
		}
		apples += len(sess.Data().Cart)
	}
	fmt.Println(apples, "apples in all carts")
	// Output:
	// 3 apples in all carts
}

func ExampleManager_Open() {
	ctx := context.Background()
	sessions := newExampleManager()
	// authorize returns the user to whom a token belongs. The token comes from gRPC
	// metadata, or from the first message of a WebSocket.
	authorize := func(ctx context.Context, token string) (User, error) {
		sess, err := sessions.Open(ctx, token)
		if err != nil {
			return User{}, err // the store is down
		}
		return sess.Data(), sess.Reason()
	}

	sess, err := sessions.Create(ctx, User{Name: "Ada"})
	if err != nil {
		panic(err)
	}
	token := sess.Token()
	user, err := authorize(ctx, token)
	fmt.Println(user.Name, err)
	if err := sess.Destroy(ctx); err != nil {
		panic(err)
	}
	_, err = authorize(ctx, token)
	fmt.Println(err)
	// Output:
	// Ada <nil>
	// echosession: the session is gone
}

// New reports all mistakes at once.
func ExampleNew_incorrect() {
	_, err := echosession.New[User](echosession.Config{
		Secret:        []byte("password"),
		MaxAge:        time.Minute,
		TouchInterval: time.Hour,
		MaxSessions:   5,
		Cookie:        &echosession.Cookie{SameSite: http.SameSiteNoneMode, Insecure: true},
	})
	fmt.Println(err)
	// Output:
	// echosession: Config.Client: set Client to a go-redis client, or Store to NewMemoryStore()
	// echosession: Config.MaxSessions: it needs SubjectIndex: true
	// echosession: Config.Secret: the secret has 8 bytes: it must have at least 32, from a random source
	// echosession: Config.TouchInterval: 1h0m0s; it must be below MaxAge (1m0s), or sessions end while they are used
	// echosession: Config.Cookie: SameSite=None needs a secure cookie; drop Insecure or take http.SameSiteLaxMode
}

// Three deploys replace a signing key, and nobody is logged out. During a deploy,
// instances of the previous deploy still run: old and new instances accept each
// other's tokens.
func ExampleConfig_keys() {
	oldSecret, newSecret := make([]byte, 32), make([]byte, 32)
	rand.Read(oldSecret)
	rand.Read(newSecret)
	oldKey := echosession.SigningKey{ID: "2025", Algorithm: "HS256", Key: oldSecret}
	newKey := echosession.SigningKey{ID: "2026", Algorithm: "HS256", Key: newSecret}

	deploys := [][]echosession.SigningKey{
		{oldKey},         // before
		{oldKey, newKey}, // 1: the new key verifies
		{newKey, oldKey}, // 2: the new key signs
		{newKey},         // 3: every token of the old key has expired
	}
	for _, keys := range deploys {
		_, err := echosession.New[User](echosession.Config{
			Store: echosession.NewMemoryStore(),
			Keys:  keys,
			// Before deploy 3, wait this long after deploy 2: by then the last token of
			// the old key has expired.
			AbsoluteTimeout: 30 * 24 * time.Hour,
		})
		fmt.Println(keys[0].ID, err)
	}
	// Output:
	// 2025 <nil>
	// 2025 <nil>
	// 2026 <nil>
	// 2026 <nil>
}

// Turn encryption on with AllowPlaintext, and remove AllowPlaintext when no plain
// record is left. Later, replace an encryption key in the same three steps as a
// signing key.
func ExampleConfig_encryption() {
	oldKey, newKey := make([]byte, 32), make([]byte, 32)
	rand.Read(oldKey)
	rand.Read(newKey)

	deploys := []echosession.Config{
		{EncryptionKeys: [][]byte{oldKey}, AllowPlaintext: true},
		{EncryptionKeys: [][]byte{oldKey}},
		{EncryptionKeys: [][]byte{oldKey, newKey}}, // 1: the new key opens
		{EncryptionKeys: [][]byte{newKey, oldKey}}, // 2: the new key encrypts
		{EncryptionKeys: [][]byte{newKey}},         // 3: the old key has encrypted no record
	}
	for _, cfg := range deploys {
		cfg.Store, cfg.Secret = echosession.NewMemoryStore(), testSecret
		_, err := echosession.New[User](cfg)
		fmt.Println(len(cfg.EncryptionKeys), err)
	}
	// Output:
	// 1 <nil>
	// 1 <nil>
	// 2 <nil>
	// 2 <nil>
	// 1 <nil>
}

func ExampleConfig_sentinel() {
	rdb := redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName:            "sessions",
		SentinelAddrs:         []string{"sentinel-1:26379", "sentinel-2:26379", "sentinel-3:26379"},
		ContextTimeoutEnabled: true,
	})
	e := echo.New()
	e.Use(echosession.Middleware[User](echosession.Config{Client: rdb, Secret: testSecret}))
}

func ExampleConfig_cluster() {
	rdb := redis.NewClusterClient(&redis.ClusterOptions{
		Addrs:                 []string{"redis-1:6379", "redis-2:6379", "redis-3:6379"},
		ContextTimeoutEnabled: true,
		ReadOnly:              true, // reads that do not restart the idle timeout go to replicas
	})
	e := echo.New()
	e.Use(echosession.Middleware[User](echosession.Config{Client: rdb, Secret: testSecret}))
}

func ExampleConfig_autoPipeline() {
	rdb := redis.NewClient(&redis.Options{Addr: "redis:6379", ContextTimeoutEnabled: true})
	pipeliner, err := rdb.AutoPipeline()
	if err != nil {
		panic(err)
	}
	e := echo.New()
	e.Use(echosession.Middleware[User](echosession.Config{Client: pipeliner, Secret: testSecret}))
}

func ExampleConfig_clientSideCache() {
	rdb := redis.NewClient(&redis.Options{
		Addr:                  "redis:6379",
		Protocol:              3,
		ContextTimeoutEnabled: true,
		ClientSideCacheConfig: &redis.ClientSideCacheConfig{
			MaxEntries:   10_000,
			MaxStaleness: 5 * time.Second,
		},
	})
	e := echo.New()
	e.Use(echosession.Middleware[User](echosession.Config{Client: rdb, Secret: testSecret}))
}

// Each of several instances has its own request key and its own token name. When
// they share a Redis, each has its own keyspace, too.
func ExampleConfig_instances() {
	type Admin struct{ Name string }
	admins, err := echosession.New[Admin](echosession.Config{
		Store:       echosession.NewMemoryStore(), // or Client and Keyspace: "admin:"
		Secret:      []byte("another secret, at least 32 bytes"),
		RequestKey:  "admin",
		TokenLookup: "header:X-Admin-Token",
	})
	if err != nil {
		panic(err)
	}

	e := echo.New()
	e.Use(newExampleManager().Middleware(), admins.Middleware())
	e.GET("/", func(c echo.Context) error {
		sess, err := echosession.Get[User](c)
		if err != nil {
			return err
		}
		admin, err := echosession.Get[Admin](c, "admin") // or admins.Get(c)
		if err != nil {
			return err
		}
		return c.String(http.StatusOK, fmt.Sprint(sess.Exists(), " ", admin.Exists()))
	})
	e.GET("/admin", func(c echo.Context) error {
		return c.NoContent(http.StatusNoContent)
	}, admins.Require())

	fmt.Println(ask(e, "GET", "/", ""))
	fmt.Println(ask(e, "GET", "/admin", ""))
	// Output:
	// 200 false false
	// 401 {"message":"authentication is required"}
}

func ExampleNewMemoryStore() {
	now := time.Now()
	store := echosession.NewMemoryStore(echosession.WithClock(func() time.Time { return now }))
	defer store.Close()

	ctx := context.Background()
	ref := echosession.Ref{ID: "3f1e0f0e-6c4e-4a57-9d0a-0f3c5d2b8a11", Subject: "ada"}
	if _, err := store.Create(ctx, ref, []byte("record"), time.Hour, echosession.Limit{}); err != nil {
		fmt.Println(err)
		return
	}

	record, err := store.Load(ctx, ref, 0)
	fmt.Printf("%s, %v\n", record, err)

	now = now.Add(time.Hour)
	_, err = store.Load(ctx, ref, 0)
	fmt.Println(errors.Is(err, echosession.ErrNotFound))
	// Output:
	// record, <nil>
	// true
}
