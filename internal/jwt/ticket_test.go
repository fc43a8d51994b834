package jwt_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/echosession/echosession/internal/jwt"
)

func aTicket() jwt.Ticket {
	return jwt.Ticket{
		Name: "ticket's name", ID: tokenID, Subject: "ada", Idle: 90 * time.Minute, Path: "/events", Origin: "https://a.example",
		Deadline: tokenNow.Add(time.Hour), End: tokenNow.Add(30 * time.Second),
	}
}

// What is issued verifies as it was, with every algorithm and whatever is left out.
func TestTicketRoundTrip(t *testing.T) {
	least := jwt.Ticket{Name: "n", ID: tokenID, Path: "*", End: tokenNow}
	endless := aTicket()
	endless.Idle, endless.Subject = jwt.NoIdle, "\x00<Zoë>"
	for alg, private := range signers() {
		for name, cfg := range map[string]jwt.Config{
			"a secret or a key": {Keys: []jwt.SigningKey{{Algorithm: alg, Key: private}}},
			"with kid, iss and aud": {
				Keys: []jwt.SigningKey{{ID: "k", Algorithm: alg, Key: private}}, WithKid: true, Issuer: "me", Audience: []string{"a", "b"},
			},
		} {
			tokens := newTokens(t, cfg)
			for _, want := range []jwt.Ticket{aTicket(), least, endless} {
				signed, err := tokens.IssueTicket(want)
				if err != nil {
					t.Fatal(err)
				}
				got, err := tokens.VerifyTicket(signed)
				if err != nil || got != want {
					t.Errorf("%s, %s: %+v, %v, want %+v", alg, name, got, err, want)
				}
			}
		}
	}
}

// No key takes a ticket for a token or a token for a ticket, and no change makes one of the
// other.
func TestTicketIsNoToken(t *testing.T) {
	for _, legacy := range []jwt.SigningKey{legacyKey("HS256", tokenSecret), legacyKey("HS256", legacySecret)} {
		tokens := legacyTokens(t, legacy)
		ticket, err := tokens.IssueTicket(aTicket())
		if err != nil {
			t.Fatal(err)
		}
		token, _, err := tokens.Issue(jwt.Params{ID: tokenID, Now: tokenNow, Claims: jwt.Claims{"sid": tokenID, "path": "*", "jti2": "x"}})
		if err != nil {
			t.Fatal(err)
		}
		refusesTicket := func(name, s string) {
			t.Helper()
			if _, err := tokens.VerifyTicket(s); !errors.Is(err, jwt.ErrInvalid) || jwt.Reason(err) != "ticket" {
				t.Errorf("%s is taken for a ticket: %v, %q", name, err, jwt.Reason(err))
			}
		}
		checkVerify(t, tokens, token, "")
		checkVerify(t, tokens, ticket, "type")
		refusesTicket("a token", token)

		payload := func(s string) string {
			b, err := base64.RawURLEncoding.DecodeString(strings.Split(s, ".")[1])
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		// Whatever the payload, the typ decides; under the secrets of all keys.
		both := `{"jti":"` + tokenID + `","sid":"` + tokenID + `","path":"*","exp":9e9}`
		for _, secret := range [][]byte{tokenSecret, legacySecret} {
			for _, typ := range []string{"session+jwt", "JWT", "", "ticket+jwt", "TICKET+JWT", "application/ticket+jwt", "Ticket+jwt;v=1", "jwt"} {
				header := fmt.Sprintf(`{"alg":"HS256","typ":%q}`, typ)
				if typ == "" {
					header = `{"alg":"HS256"}`
				}
				for _, p := range []string{both, payload(ticket), payload(token)} {
					s := hs256(header, p, secret)
					_, asToken := tokens.Verify(s)
					_, asTicket := tokens.VerifyTicket(s)
					if asToken == nil && asTicket == nil {
						t.Errorf("%s %s is a token and a ticket", header, p)
					}
					isTicket := typ == "ticket+jwt" && string(secret) == string(tokenSecret) && p != payload(token)
					if (asTicket == nil) != isTicket {
						t.Errorf("%s %s as a ticket: %v", header, p, asTicket)
					}
				}
			}
		}
		for i := range len(ticket) {
			changed := []byte(ticket)
			changed[i] ^= 1
			refusesTicket(fmt.Sprintf("a ticket with another byte %d", i), string(changed))
		}
	}
}

// What a signed ticket must say.
func TestTicketPayload(t *testing.T) {
	tokens := newTokens(t, jwt.Config{
		Keys: []jwt.SigningKey{{Algorithm: "HS256", Key: tokenSecret}}, Issuer: "me", Audience: []string{"a", "b"},
	})
	good := map[string]any{"jti": "n", "sid": tokenID, "path": "/", "exp": 1e9, "iss": "me", "aud": "a"}
	for name, tt := range map[string]struct {
		change map[string]any
		ok     bool
	}{
		"as it is":                   {nil, true},
		"another claim":              {map[string]any{"x": 1}, true},
		"no name":                    {map[string]any{"jti": nil}, false},
		"a name that is a number":    {map[string]any{"jti": 1}, false},
		"no session":                 {map[string]any{"sid": nil}, false},
		"a session that is no UUID":  {map[string]any{"sid": "x"}, false},
		"no path":                    {map[string]any{"path": nil}, false},
		"an empty path":              {map[string]any{"path": ""}, false},
		"no end":                     {map[string]any{"exp": nil}, false},
		"an end that is text":        {map[string]any{"exp": "1"}, false},
		"an end that is never":       {map[string]any{"exp": 1e300}, false},
		"a deadline that is never":   {map[string]any{"ends": 1e300}, false},
		"a deadline that is text":    {map[string]any{"ends": "1"}, false},
		"an idle timeout below zero": {map[string]any{"idle": -1}, false},
		"a subject that is a number": {map[string]any{"sub": 1}, false},
		"an origin that is a number": {map[string]any{"origin": 1}, false},
		"another issuer":             {map[string]any{"iss": "you"}, false},
		"no issuer":                  {map[string]any{"iss": nil}, false},
		"another audience":           {map[string]any{"aud": "c"}, false},
		"no audience":                {map[string]any{"aud": nil}, false},
	} {
		t.Run(name, func(t *testing.T) {
			claims := make(map[string]any)
			for _, from := range []map[string]any{good, tt.change} {
				for name, value := range from {
					if claims[name] = value; value == nil {
						delete(claims, name)
					}
				}
			}
			payload, err := json.Marshal(claims)
			if err != nil {
				t.Fatal(err)
			}
			_, err = tokens.VerifyTicket(hs256(`{"alg":"HS256","typ":"ticket+jwt"}`, string(payload), tokenSecret))
			if (err == nil) != tt.ok || err != nil && (!errors.Is(err, jwt.ErrInvalid) || jwt.Reason(err) != "ticket") {
				t.Errorf("%v, %q", err, jwt.Reason(err))
			}
		})
	}
}

// A ticket is over at its very end, by the clock of whoever redeems it and with the skew
// that clocks may have.
func TestTicketTime(t *testing.T) {
	for _, skew := range []time.Duration{0, time.Minute} {
		tokens := newTokens(t, jwt.Config{Keys: []jwt.SigningKey{{Algorithm: "HS256", Key: tokenSecret}}, Skew: skew})
		end := aTicket().End.Add(skew)
		for at, ok := range map[time.Time]bool{end.Add(-time.Millisecond): true, end: false, end.Add(time.Hour): false, tokenNow: true} {
			if err := tokens.CheckTicketTime(aTicket(), at); (err == nil) != ok || err != nil && (!errors.Is(err, jwt.ErrInvalid) || jwt.Reason(err) != "ticket") {
				t.Errorf("skew %v, %v before the end: %v", skew, end.Sub(at), err)
			}
		}
	}
}

// A ticket that would not verify is not issued.
func TestTicketIssueRefuses(t *testing.T) {
	tokens := secretTokens(t)
	for name, change := range map[string]func(*jwt.Ticket){
		"no name":    func(v *jwt.Ticket) { v.Name = "" },
		"no session": func(v *jwt.Ticket) { v.ID = "" },
		"no path":    func(v *jwt.Ticket) { v.Path = "" },
		"too long":   func(v *jwt.Ticket) { v.Path = strings.Repeat("/", 8<<10) },
	} {
		v := aTicket()
		change(&v)
		if signed, err := tokens.IssueTicket(v); err == nil || signed != "" {
			t.Errorf("%s: %q, %v", name, signed, err)
		}
	}
}
