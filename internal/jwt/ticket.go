package jwt

import (
	"encoding/json"
	"errors"
	"time"
)

// ticketType is the typ of what is stored for a ticket. No key takes it for the token of
// a session, and no key takes another typ for it (RFC 8725 §3.11 and §3.12).
const ticketType = "ticket+jwt"

// The private claims of a ticket (RFC 7519 §4.3), beside [idleClaim].
const (
	sessionClaim  = "sid"    // the ID in the session's token
	deadlineClaim = "ends"   // the exp of the session's token
	pathClaim     = "path"   // what the ticket is bound to
	originClaim   = "origin" // absent: it is bound to none
)

// A Ticket says what a ticket opens, and where. It is what a store keeps for the ticket,
// signed: whoever writes to the store can make no ticket for a session of their choice.
type Ticket struct {
	Name     string        // jti: what the store keeps it under
	ID       string        // of the session, a canonical UUIDv4
	Subject  string        // of the session's token. Empty: none
	Idle     time.Duration // as in Token
	Deadline time.Time     // the exp of the session's token. Zero: none
	Path     string
	Origin   string    // Empty: none
	End      time.Time // exp: of the ticket itself
}

// IssueTicket signs a ticket with the first key.
func (t *Keyring) IssueTicket(v Ticket) (string, error) {
	claims := Claims{
		"jti": v.Name, sessionClaim: v.ID, pathClaim: v.Path, "exp": numericDate(v.End),
	}
	if v.Subject != "" {
		claims["sub"] = v.Subject
	}
	if v.Idle != 0 {
		claims[idleClaim] = max(0, v.Idle.Milliseconds())
	}
	if !v.Deadline.IsZero() {
		claims[deadlineClaim] = numericDate(v.Deadline)
	}
	if v.Origin != "" {
		claims[originClaim] = v.Origin
	}
	t.address(claims)
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	// What cannot be verified is not issued.
	if _, err := t.parseTicket(string(payload)); err != nil {
		return "", err
	}
	return t.sign(t.keys[0].ticketHeader, payload)
}

// VerifyTicket checks everything about a ticket but the clock. Errors match [ErrInvalid].
func (t *Keyring) VerifyTicket(signed string) (Ticket, error) {
	payload, _, err := t.open(signed, func(k *key, typ string) bool { return !k.legacy && typ == ticketType })
	if err != nil {
		return Ticket{}, invalidTicket(err)
	}
	return t.parseTicket(payload)
}

// CheckTicketTime compares a ticket with the clock. Errors match [ErrInvalid].
func (t *Keyring) CheckTicketTime(v Ticket, now time.Time) error {
	if !now.Add(-t.skew).Before(v.End) {
		return invalidToken(badTicket, "the ticket has expired")
	}
	return nil
}

// parseTicket reads the claims of a ticket.
func (t *Keyring) parseTicket(payload string) (v Ticket, err error) {
	issued, intended := t.issuer == "", len(t.audience) == 0
	err = scanJSONObject(payload, func(name, value string) error {
		ok := true
		switch name {
		case "jti":
			v.Name, ok = jsonString(value)
		case sessionClaim:
			v.ID, ok = jsonString(value)
			ok = ok && isSessionID(v.ID)
		case "sub":
			v.Subject, ok = jsonString(value)
		case idleClaim:
			v.Idle, ok = jsonIdle(value)
		case "exp":
			v.End, ok = jsonDate(value)
		case deadlineClaim:
			v.Deadline, ok = jsonDate(value)
		case pathClaim:
			v.Path, ok = jsonString(value)
		case originClaim:
			v.Origin, ok = jsonString(value)
		case "iss":
			issued = t.isIssuer(value)
			ok = issued
		case "aud":
			intended = len(t.audience) == 0 || t.intersects(value)
			ok = intended
		}
		if !ok {
			return errClaim(name)
		}
		return nil
	})
	if err == nil && (v.Name == "" || v.ID == "" || v.Path == "" || v.End.IsZero() || !issued || !intended) {
		err = errors.New("a claim is missing")
	}
	if err != nil {
		return Ticket{}, invalidToken(badTicket, "ticket: "+err.Error())
	}
	return v, nil
}

// jsonDate returns the time of a value that an int64 of nanoseconds can hold.
func jsonDate(value string) (time.Time, bool) {
	at, ok := jsonTime(value)
	return time.Unix(0, at), ok && at != never && at != always
}
