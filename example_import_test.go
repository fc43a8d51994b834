package echosession_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log"
	"time"

	"github.com/echosession/echosession"
)

// Users of the npm package jwt-redis-session stay logged in: their tokens verify, and
// their sessions become sessions of this package when they are used.
func ExampleConfig_import() {
	secret := []byte("the new secret, 32 random bytes!")
	store := echosession.NewMemoryStore() // Client: rdb, to find what Node has stored
	token := nodeSession(store)

	sessions, err := echosession.New[User](echosession.Config{
		Store: store,
		Keys: []echosession.SigningKey{
			{ID: "2026-11", Algorithm: "HS256", Key: secret},                                  // signs
			{Algorithm: "HS256", Key: []byte("keyboard cat"), VerifyOnly: true, Legacy: true}, // the secret that Node has
		},
		Import: json.Unmarshal,
	})
	if err != nil {
		log.Fatal(err)
	}

	sess, err := sessions.Open(context.Background(), token)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(sess.Data().Name, sess.Subject())
	// Output: Ada 42
}

// nodeSession does what the package does on Node: it stores an object and returns a
// token.
func nodeSession(store echosession.Store) (token string) {
	const id = "0f8fad5b-d9cb-469f-a165-70867728950e"
	_, err := store.Create(context.Background(), echosession.Ref{ID: id}, []byte(`{"name":"Ada","cart":["tea"]}`), 24*time.Hour, echosession.Limit{})
	if err != nil {
		log.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	token = encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode([]byte(`{"jti":"`+id+`","sub":42}`))
	mac := hmac.New(sha256.New, []byte("keyboard cat"))
	mac.Write([]byte(token))
	return token + "." + encode(mac.Sum(nil))
}
