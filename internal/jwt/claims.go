package jwt

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// Claims are the members of a token's payload by name (RFC 7519 §4). Numbers are
// float64, as encoding/json decodes them into an any. Anyone who holds the token
// can read them: they are signed, not encrypted.
type Claims map[string]any

// idleClaim is a private claim (RFC 7519 §4.3): the session's own idle timeout in
// milliseconds. 0: the session has no idle timeout and lives until exp.
const idleClaim = "idle"

// actClaim says who acts in the subject's place (RFC 8693 §4.1).
const actClaim = "act"

// NoIdle is the idle timeout of a session that has none.
const NoIdle time.Duration = -1

// maxIdle keeps the sum of a time of this century and an idle timeout within
// int64 nanoseconds.
const maxIdle = 100 * 365 * 24 * time.Hour

// maxNumericDate is the end of the year 9999. What lies beyond was most likely
// given in milliseconds.
const maxNumericDate = 253402300799

// reserved reports whether a claim belongs to the package.
func (t *Keyring) reserved(name string) bool {
	switch name {
	case "jti", "iat", idleClaim, actClaim:
		return true
	case "iss":
		return t.issuer != ""
	case "aud":
		return len(t.audience) > 0
	}
	return false
}

// SplitClaims checks a caller's claims and takes `sub` and `exp` out of them. exp is
// zero when it is not among them. The values of rest are JSON already: what the caller
// changes afterwards has no effect, and they cannot fail to encode. The error matches
// [ErrReserved] when a claim is the package's own.
func (t *Keyring) SplitClaims(c Claims, now time.Time) (rest Claims, subject string, exp time.Time, err error) {
	fail := func(err error) (Claims, string, time.Time, error) {
		return nil, "", time.Time{}, err
	}
	rest = make(Claims, len(c))
	size := 0
	for name, value := range c {
		if t.reserved(name) {
			return fail(fmt.Errorf("%w: %q", ErrReserved, name))
		}
		if !utf8.ValidString(name) {
			return fail(fmt.Errorf("echosession: the name of the claim %q is not valid UTF-8", name))
		}
		switch name {
		case "sub":
			s, ok := value.(string)
			if !ok {
				return fail(fmt.Errorf("echosession: the claim sub must be a string, not %T", value))
			}
			subject = s
			continue
		case "exp", "nbf":
			at, err := toTime(value)
			if err != nil {
				return fail(fmt.Errorf("echosession: the claim %s: %w", name, err))
			}
			if name == "exp" {
				if err := checkExp(at); err != nil {
					return fail(fmt.Errorf("echosession: the claim exp: %w", err))
				}
				if !at.After(now) {
					return fail(errors.New("echosession: the claim exp is not in the future"))
				}
				exp = at
				continue
			}
			value = numericDate(at)
		}
		encoded, err := json.Marshal(value)
		if err != nil {
			return fail(fmt.Errorf("echosession: the claim %q cannot be encoded: %w", name, err))
		}
		if size += len(name) + len(encoded); size > maxTokenLen {
			return fail(errTokenLen(size))
		}
		rest[name] = json.RawMessage(encoded)
	}
	for name, encoded := range rest {
		// A json.Marshaler may produce what verify would refuse.
		if err := scanJSONObject(fmt.Sprintf(`{"":%s}`, encoded), nil); err != nil {
			return fail(fmt.Errorf("echosession: the claim %q cannot be encoded: %w", name, err))
		}
	}
	return rest, subject, exp, nil
}

// CallersClaims returns the claims of a token without those of the package: what
// SplitClaims returned as rest when the token was issued.
func (t *Keyring) CallersClaims(v *Token) Claims {
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(v.payload), &members); err != nil {
		panic("echosession: a verified payload does not decode: " + err.Error())
	}
	rest := make(Claims, len(members))
	for name, value := range members {
		if name != "sub" && name != "exp" && !t.reserved(name) {
			rest[name] = value
		}
	}
	return rest
}

// toTime converts what callers give as a NumericDate (RFC 7519 §2).
func toTime(value any) (time.Time, error) {
	var seconds float64
	switch v := value.(type) {
	case time.Time:
		return v, checkNumericDate(float64(v.Unix()))
	case *time.Time:
		if v == nil {
			return time.Time{}, errors.New("a nil *time.Time is no time")
		}
		return *v, checkNumericDate(float64(v.Unix()))
	case json.Number:
		f, err := v.Float64()
		if err != nil {
			return time.Time{}, errors.New("the json.Number is no finite number")
		}
		seconds = f
	default:
		switch v := reflect.ValueOf(value); {
		case v.CanInt():
			seconds = float64(v.Int())
		case v.CanUint():
			seconds = float64(v.Uint())
		case v.CanFloat():
			seconds = v.Float()
		default:
			return time.Time{}, fmt.Errorf("a %T is no time: give a time.Time or seconds since 1970", value)
		}
	}
	if err := checkNumericDate(seconds); err != nil {
		return time.Time{}, err
	}
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)), nil
}

func checkNumericDate(seconds float64) error {
	if !(math.Abs(seconds) <= maxNumericDate) { // NaN too
		return errors.New("out of range: give seconds since 1970, not milliseconds")
	}
	return nil
}

// checkExp refuses what the times of a [Token] cannot hold: such an exp would count as
// none.
func checkExp(at time.Time) error {
	if err := checkNumericDate(float64(at.Unix())); err != nil {
		return err
	}
	if !at.Before(time.Unix(0, never)) {
		return errors.New("after the year 2262: leave it out, and the session has no end of its own")
	}
	return nil
}

// numericDate is the JSON form of a time: seconds, and three decimal places unless the
// milliseconds are zero.
func numericDate(at time.Time) json.Number {
	ms := at.UnixMilli()
	if ms%1000 == 0 {
		return json.Number(strconv.FormatInt(ms/1000, 10))
	}
	return json.Number(strconv.FormatFloat(float64(ms)/1000, 'f', 3, 64))
}

// The times of a Token are nanoseconds since 1970, so that a use costs a
// comparison. These two stand for a claim that is absent or too far away to matter.
const (
	never  = math.MaxInt64
	always = math.MinInt64
)

// nanoseconds converts a NumericDate. What int64 does not hold, from the year 2262 on or
// before 1678, becomes never or always.
func nanoseconds(seconds float64) int64 {
	switch {
	case seconds >= never/1e9:
		return never
	case seconds <= always/1e9:
		return always
	}
	whole, fraction := math.Modf(seconds)
	return int64(whole)*1e9 + int64(fraction*1e9)
}

// Token is what a good token says. It is immutable.
type Token struct {
	ID      string        // jti
	Subject string        // sub, "" when absent
	Idle    time.Duration // the session's own; 0: none of its own, NoIdle: it has no idle timeout
	exp     int64         // never when absent
	nbf     int64         // always when absent
	iat     int64         // always when absent
	payload string        // the JSON that was signed

	// LogID stands for it in what is told of it, if that is known by now.
	LogID string

	// OldKey says that the key that verified it is not the first one, which signs.
	OldKey bool
}

// Claims decodes the payload anew at each call: the caller may change the result.
func (v *Token) Claims() Claims {
	var c Claims
	if err := json.Unmarshal([]byte(v.payload), &c); err != nil {
		panic("echosession: a verified payload does not decode: " + err.Error())
	}
	return c
}

// ExpiresAt returns the time of exp, or false when the token has no exp.
func (v *Token) ExpiresAt() (time.Time, bool) {
	if v.exp == never {
		return time.Time{}, false
	}
	return time.Unix(0, v.exp), true
}

// IssuedAt returns the time of iat, and the zero time when the token has no iat.
func (v *Token) IssuedAt() time.Time {
	if v.iat == always {
		return time.Time{}
	}
	return time.Unix(0, v.iat)
}

// parsePayload reads the claims that the package knows. It does not look at the
// clock. A legacy token has none of the package's private claims, and its sub may be a
// whole number, as in {sub: user.id}.
func (t *Keyring) parsePayload(payload string, legacy bool) (*Token, error) {
	v := &Token{exp: never, nbf: always, iat: always, payload: payload}
	issued, intended := t.issuer == "", len(t.audience) == 0
	err := scanJSONObject(payload, func(name, value string) error {
		ok := true
		switch name {
		case "jti":
			v.ID, ok = jsonString(value)
			ok = ok && isSessionID(v.ID)
		case "sub":
			v.Subject, ok = jsonString(value)
			if legacy && isWhole(value) {
				v.Subject, ok = value, true
			}
		case "iat":
			v.iat, ok = jsonTime(value)
		case "nbf":
			v.nbf, ok = jsonTime(value)
		case "exp":
			v.exp, ok = jsonTime(value)
			ok = ok && v.exp != never // or it would count as none
		case idleClaim:
			if !legacy {
				v.Idle, ok = jsonIdle(value)
			}
		case "iss":
			ok = t.isIssuer(value)
			issued = ok
		case "aud":
			if len(t.audience) > 0 {
				ok = t.intersects(value)
				intended = ok
			}
		}
		if !ok {
			return errClaim(name)
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, invalidToken(reasonOf(err), "payload: "+err.Error())
	case v.ID == "":
		return nil, invalidToken(badClaims, "payload: no jti")
	case !issued:
		return nil, invalidToken(otherIssuer, "payload: no iss")
	case !intended:
		return nil, invalidToken(otherTarget, "payload: no aud")
	}
	return v, nil
}

// isIssuer reports whether the value of iss is what it must be. Without an issuer it may be
// anything.
func (t *Keyring) isIssuer(value string) bool {
	issuer, ok := jsonString(value)
	return t.issuer == "" || ok && issuer == t.issuer
}

// isWhole reports whether the value of a member is a whole number in its plain form, so
// that no two texts mean one number.
func isWhole(value string) bool {
	n, err := strconv.ParseInt(value, 10, 64)
	return err == nil && strconv.FormatInt(n, 10) == value
}

// errClaim names one of the package's own claims.
type errClaim string

func (e errClaim) Error() string { return string(e) + " is not acceptable" }

// reasonOf returns the word for a payload that cannot be read.
func reasonOf(err error) string {
	switch err {
	case errClaim("iss"):
		return otherIssuer
	case errClaim("aud"):
		return otherTarget
	}
	return badClaims
}

// isSessionID reports whether s is a canonical, lower-case UUIDv4 (RFC 9562 §5.4).
func isSessionID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
			continue
		case 14:
			if c != '4' {
				return false
			}
		case 19:
			if c != '8' && c != '9' && c != 'a' && c != 'b' {
				return false
			}
		}
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func jsonTime(value string) (int64, bool) {
	seconds, ok := jsonNumber(value)
	return nanoseconds(seconds), ok
}

func jsonIdle(value string) (time.Duration, bool) {
	ms, err := strconv.ParseInt(value, 10, 64)
	switch {
	case err != nil || ms < 0 || ms > maxIdle.Milliseconds():
		return 0, false
	case ms == 0:
		return NoIdle, true
	}
	return time.Duration(ms) * time.Millisecond, true
}

// intersects reports whether the value of aud, a string or an array of strings
// (RFC 7519 §4.1.3), holds one of the configured audiences.
func (t *Keyring) intersects(value string) bool {
	if audience, ok := jsonString(value); ok {
		return slices.Contains(t.audience, audience)
	}
	var audiences []any // a null would become "" in a []string
	if json.Unmarshal([]byte(value), &audiences) != nil {
		return false
	}
	found := false
	for _, a := range audiences {
		audience, ok := a.(string)
		if !ok {
			return false
		}
		found = found || slices.Contains(t.audience, audience)
	}
	return found
}
