package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/echosession/echosession"
)

var tokenCommand = command{
	name:    "token",
	summary: "decode a token, and say why it would be refused",
	usage:   "[flags] [<file>] [URL]",
	help: `It reads a token from a file, or from the standard input if there is no file or "-". Never
put a token on the command line: every user of the machine can read it there. The header
and the claims are shown, and never the signature, so what it writes opens no session.

With -key-file it says whether a program with these keys would accept the token, in the
words of the library. A key file is a secret, in base64 or as it is; or a private or public
key, or a certificate, in PEM form: Ed25519, ECDSA or RSA. Repeat it for each of
Config.Keys. -kid and -algorithm are then repeated in the same order. For a Config.Secret
leave out -kid.

With a Redis it also says whether the session is there, and restarts no timeout.

Exit codes: 0 the token would be accepted, or was only decoded; 1 its session is not there; 2
it would be refused; 3 it could not be found out.

Rights in Redis: +get +pttl +zscore.

Examples:

	echosession token < token.txt
	echosession token -key-file secret.txt token.txt
	echosession token -key-file ed25519.pem -kid 2026-11 -audience api token.txt redis://localhost:6379
`,
	define: func(fs *flag.FlagSet) func(ctx context.Context, inv *invocation) (int, error) {
		var t tokenReader
		t.target.define(fs)
		fs.Var((*list)(&t.keyFiles), "key-file", "`file` with a key that may have signed the token; may be repeated")
		fs.Var((*list)(&t.kids), "kid", "the `ID` of the key in Config.Keys; may be repeated, in the order of -key-file")
		fs.Var((*list)(&t.algorithms), "algorithm", "the `algorithm` of the key, if it is not HS256, ES256, ES384, ES512, EdDSA or RS256; may be repeated, in the order of -key-file")
		fs.StringVar(&t.issuer, "issuer", "", "Config.Issuer: the `iss` that the token must have")
		fs.Var((*list)(&t.audience), "audience", "Config.Audience: an `aud` that the token may have; may be repeated")
		fs.DurationVar(&t.skew, "skew", 0, "Config.ClockSkew: how far clocks may differ")
		defineJSON(fs, &t.json)
		return t.run
	},
}

type tokenReader struct {
	target     target
	keyFiles   []string
	kids       []string
	algorithms []string
	issuer     string
	audience   []string
	skew       time.Duration
	json       bool
}

// A tokenReport is what is said of a token. It has nothing of the signature.
type tokenReport struct {
	Header    json.RawMessage `json:"header"`
	Claims    json.RawMessage `json:"claims"`
	SessionID string          `json:"session_id,omitempty"`
	LogID     string          `json:"log_id,omitempty"`
	Subject   string          `json:"subject,omitempty"`
	Kid       string          `json:"kid,omitempty"`
	IssuedAt  time.Time       `json:"issued_at,omitzero"`
	NotBefore time.Time       `json:"not_before,omitzero"`
	ExpiresAt time.Time       `json:"expires_at,omitzero"`
	Accepted  *bool           `json:"accepted,omitempty"` // absent: there was no key to tell with
	Reason    string          `json:"reason,omitempty"`
	Hint      string          `json:"hint,omitempty"`
	Session   string          `json:"session,omitempty"` // with a Redis: live, none, rotated, renewed, renewing or unindexed
}

// isFound reports whether a request with the token finds its session, as far as is known.
func (r *tokenReport) isFound() bool {
	return r.Session == "" || r.Session == sessionLive || r.Session == rotated
}

func (t *tokenReader) run(ctx context.Context, inv *invocation) (int, error) {
	text, err := t.read(ctx, inv)
	if err != nil {
		return exitUnknown, err
	}
	if len(t.keyFiles) == 0 && (len(t.kids) > 0 || len(t.algorithms) > 0 || t.issuer != "" || len(t.audience) > 0 || t.skew != 0) {
		return exitUnknown, errUsage("-kid, -algorithm, -issuer, -audience and -skew are for a check: they need -key-file")
	}
	report, err := decodeToken(text)
	if err != nil {
		fmt.Fprintf(inv.stderr, "this is no token of a session: %v\n", err)
		return exitCritical, nil
	}
	if len(t.keyFiles) > 0 {
		if err := t.verify(ctx, text, report); err != nil {
			return exitUnknown, err
		}
	}
	if len(inv.others()) < len(inv.args) {
		if err := t.lookUp(ctx, inv, report); err != nil {
			return exitUnknown, err
		}
	}
	if t.json {
		fmt.Fprintln(inv.stdout, toLine(report))
	} else {
		report.write(inv.stdout, time.Now())
	}
	switch {
	case report.Accepted != nil && !*report.Accepted:
		return exitCritical, nil
	case !report.isFound():
		return exitWarning, nil
	}
	return exitOK, nil
}

// maxInput is more than any token has.
const maxInput = 1 << 20

// read reads the token. No error has a byte of it.
func (t *tokenReader) read(ctx context.Context, inv *invocation) (string, error) {
	args := inv.others()
	if len(args) > 1 {
		return "", errUsage("name one file")
	}
	in := inv.stdin
	if len(args) == 1 && args[0] != "-" {
		file, err := os.Open(args[0])
		switch {
		case err != nil && looksLikeToken(args[0]):
			return "", errUsage("a token does not belong on the command line, where every user of the machine can read it: " +
				"put it into a file or the standard input, as in \"echosession token < file\". End its session if others were logged in")
		case err != nil:
			return "", fmt.Errorf("the file of the token: %w", err)
		}
		defer file.Close()
		in = file
	}
	if isTerminal(in) {
		fmt.Fprintln(inv.stderr, "Paste the token, then press Return and Ctrl-D:")
	}
	text, err := orInterrupted(ctx, func() ([]byte, error) { return io.ReadAll(io.LimitReader(in, maxInput)) })
	if err != nil {
		return "", fmt.Errorf("the token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if rest, ok := strings.CutPrefix(token, "Authorization:"); ok {
		token = strings.TrimSpace(rest)
	}
	if scheme, rest, _ := strings.Cut(token, " "); strings.EqualFold(scheme, "Bearer") {
		token = strings.TrimSpace(rest)
	}
	if token == "" {
		return "", errUsage("there is no token in the input")
	}
	return token, nil
}

var tokenForm = regexp.MustCompile(`^(?i:bearer )?[\w-]{10,}\.[\w-]{10,}(\.[\w-]*)?=*$`)

// looksLikeToken is for arguments that do not belong on a command line, where no message may
// repeat them.
func looksLikeToken(arg string) bool {
	return tokenForm.MatchString(arg) || strings.HasPrefix(arg, "eyJ")
}

// decodeToken takes a token apart, and checks nothing but the form.
func decodeToken(token string) (*tokenReport, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, fmt.Errorf("it has %s, and a token has 3, with dots between them", countOf(len(parts), "part"))
	}
	header, err := decodePart("header", parts[0])
	if err != nil {
		return nil, err
	}
	claims, err := decodePart("payload", parts[1])
	if err != nil {
		return nil, err
	}
	r := &tokenReport{Header: header, Claims: claims}
	var named struct {
		Kid string `json:"kid"`
	}
	_ = json.Unmarshal(header, &named) // another type is for the check to complain about
	r.Kid = named.Kid
	var members map[string]any
	_ = json.Unmarshal(claims, &members)
	r.Subject, _ = members["sub"].(string)
	if id, _ := members["jti"].(string); isID(id) {
		r.SessionID, r.LogID = id, echosession.LogID(id)
	}
	r.IssuedAt, r.NotBefore, r.ExpiresAt = timeIn(members["iat"]), timeIn(members["nbf"]), timeIn(members["exp"])
	return r, nil
}

// decodePart decodes the header or the payload of a token. The error has nothing of it.
func decodePart(name, part string) (json.RawMessage, error) {
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return nil, fmt.Errorf("its %s is not base64url", name)
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(text, &object) != nil || object == nil {
		return nil, fmt.Errorf("its %s is no JSON object", name)
	}
	return text, nil
}

// timeIn reads a NumericDate, and returns the zero time for what is none.
func timeIn(claim any) time.Time {
	seconds, ok := claim.(float64)
	const end = 253402300799 // the year 9999
	if !ok || seconds < 0 || seconds > end {
		return time.Time{}
	}
	whole, part := math.Modf(seconds)
	return time.Unix(int64(whole), int64(part*1e9)).UTC()
}

// verify asks the library whether it would accept the token.
func (t *tokenReader) verify(ctx context.Context, token string, report *tokenReport) error {
	if n := len(t.keyFiles); len(t.kids) > n || len(t.algorithms) > n {
		return errUsage("there is one -kid and one -algorithm for each -key-file, in the same order")
	}
	decoded, asText, err := t.keys()
	if err != nil {
		return err
	}
	reason, err := t.ask(ctx, token, decoded)
	if err != nil {
		return err
	}
	if reason != nil && asText != nil {
		if again, err := t.ask(ctx, token, asText); err == nil && again == nil {
			reason, report.Hint = nil, "the secret is the text of the file itself: the program does not decode its base64"
		}
	}
	accepted := reason == nil
	report.Accepted = &accepted
	if !accepted {
		report.Reason = reasonOf(reason)
		report.Hint = t.hint(report)
	}
	return nil
}

// ask returns why the token would be refused, or nil.
func (t *tokenReader) ask(ctx context.Context, token string, keys []echosession.SigningKey) (reason, err error) {
	sessions, err := echosession.New[stored](echosession.Config{
		Store: noSessions{}, Keys: keys, Issuer: t.issuer, Audience: t.audience, ClockSkew: t.skew,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, t.wrongKeys(err)
	}
	sess, err := sessions.Open(ctx, token)
	if err != nil {
		return nil, err
	}
	// The store has no session: of a token that is good, the session is gone.
	if reason = sess.Reason(); errors.Is(reason, echosession.ErrSessionGone) {
		return nil, nil
	}
	return reason, nil
}

// noSessions is a store in which no token finds its session.
type noSessions struct{ echosession.Store }

func (noSessions) Load(context.Context, echosession.Ref, time.Duration) ([]byte, error) {
	return nil, echosession.ErrNotFound
}

// keys reads the key files. asText has secrets that are base64 as they are: some programs do
// not decode it. It is nil when no file has such a secret.
func (t *tokenReader) keys() (decoded, asText []echosession.SigningKey, err error) {
	// The first key signs. This one signs nothing, and lets the others be public keys.
	unused := make([]byte, 64)
	rand.Read(unused)
	first := echosession.SigningKey{ID: "unused-" + rand.Text(), Algorithm: "HS512", Key: unused}
	decoded, asText = []echosession.SigningKey{first}, []echosession.SigningKey{first}
	texts := 0
	for i, file := range t.keyFiles {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, nil, fmt.Errorf("-key-file: %w", err)
		}
		// Without a kid a key takes the tokens that name none: an ID that no token can name
		// does the same.
		key := echosession.SigningKey{ID: "unnamed-" + rand.Text()}
		if i < len(t.kids) {
			key.ID = cmp.Or(t.kids[i], key.ID)
		}
		if key.Key, key.Algorithm, err = parseKey(content); err != nil {
			return nil, nil, fmt.Errorf("-key-file %s: %w", file, err)
		}
		if i < len(t.algorithms) {
			key.Algorithm = t.algorithms[i]
		}
		decoded = append(decoded, key)
		if text := bytes.TrimSpace(content); isSecret(key.Key) && !bytes.Equal(text, key.Key.([]byte)) {
			key.Key = text
			texts++
		}
		asText = append(asText, key)
	}
	if texts == 0 {
		asText = nil
	}
	return decoded, asText, nil
}

func isSecret(key any) bool {
	_, ok := key.([]byte)
	return ok
}

var keyField = regexp.MustCompile(`^Keys\[(\d+)\]$`)

// wrongKeys says in which file a key is that the library refuses. It has no key.
func (t *tokenReader) wrongKeys(err error) error {
	mistake, ok := errors.AsType[*echosession.ConfigError](err)
	if !ok {
		return err
	}
	switch field := keyField.FindStringSubmatch(mistake.Field); {
	case field != nil:
		if n, _ := strconv.Atoi(field[1]); 1 <= n && n <= len(t.keyFiles) {
			return fmt.Errorf("-key-file %s: %s", t.keyFiles[n-1], mistake.Reason)
		}
	case mistake.Field == "Issuer":
		return errUsage("-issuer: " + mistake.Reason)
	case strings.HasPrefix(mistake.Field, "Audience"):
		return errUsage("-audience: " + mistake.Reason)
	case mistake.Field == "ClockSkew":
		return errUsage("-skew: " + mistake.Reason)
	}
	return err
}

// hint says what to look at when a token is refused.
func (t *tokenReader) hint(r *tokenReport) string {
	switch {
	case strings.Contains(r.Reason, "no key for its"):
		if r.Kid == "" {
			return "compare alg and typ in its header with -algorithm and with \"session+jwt\""
		}
		return fmt.Sprintf("its header names the key %q: is that in Config.Keys, with the algorithm of the header? Then say so with -kid and -algorithm", printable(r.Kid))
	case strings.Contains(r.Reason, "does not verify"):
		return "another key has signed it, or it was changed on the way"
	case strings.Contains(r.Reason, "not yet valid"), strings.Contains(r.Reason, "in the future"):
		return "do the clocks of the machines differ? Config.ClockSkew allows for that"
	}
	return ""
}

// The session of a token that is live, and one that is not there.
const (
	sessionLive = "live"
	sessionNone = "none"
)

// lookUp finds out whether the session is there. It reads, and restarts no timeout.
func (t *tokenReader) lookUp(ctx context.Context, inv *invocation, report *tokenReport) error {
	if report.SessionID == "" {
		report.Session = sessionNone
		return nil
	}
	client, err := t.target.connect(ctx, inv)
	if err != nil {
		return err
	}
	defer client.Close()
	s := &site{client: client, keyspace: t.target.keyspace}
	// Where sessions are not indexed, the subject does not matter.
	p, err := s.find(ctx, report.SessionID, cmp.Or(report.Subject, report.SessionID))
	if err != nil {
		return err
	}
	switch {
	case p == nil:
		report.Session = sessionNone
		return nil
	case p.leadsTo() != nil:
		report.Session = p.leadsTo().state
		return nil
	}
	report.Session = sessionLive
	listed, err := s.isInIndex(ctx, p)
	if !listed {
		report.Session = "unindexed"
	}
	return err
}

// sessionWords say what was found of a token's session.
var sessionWords = map[string]string{
	sessionLive: "is in Redis",
	sessionNone: "is not in Redis: it has ended, or it is of another keyspace",
	rotated:     "was rotated: its old token still finds it for a moment",
	renewed:     "has ended: a login, or a gain of rights, has renewed it",
	renewing:    "is not there yet: a login is under way, or has broken off",
	"unindexed": "is not in the index of its subject: no request finds it",
}

// write writes a report for people.
func (r *tokenReport) write(w io.Writer, now time.Time) {
	fmt.Fprintf(w, "Header:\n%s\nClaims:\n%s\n\n", toBlock(r.Header), toBlock(r.Claims))
	if r.LogID != "" {
		fmt.Fprintf(w, "In logs its session is %s.\n", r.LogID)
	}
	for _, t := range []struct {
		past, future string
		at           time.Time
	}{
		{"It was issued", "Its time of issue is", r.IssuedAt},
		{"It became valid", "It becomes valid", r.NotBefore},
		{"It expired", "It expires", r.ExpiresAt},
	} {
		words := t.past
		if t.at.After(now) {
			words = t.future
		}
		if !t.at.IsZero() {
			fmt.Fprintf(w, "%s %s (%s).\n", words, when(t.at, now), t.at.Format(time.RFC3339))
		}
	}
	if r.Session != "" {
		fmt.Fprintf(w, "Its session %s.\n", sessionWords[r.Session])
	}
	switch {
	case r.Accepted == nil:
		fmt.Fprintln(w, "Nothing of this was checked: use -key-file for that.")
	case *r.Accepted && r.isFound():
		fmt.Fprintln(w, "It would be accepted.")
	case *r.Accepted:
		fmt.Fprintln(w, "The token itself is good. A request with it gets 401: see its session.")
	default:
		fmt.Fprintf(w, "It would be refused: %s.\n", r.Reason)
	}
	if r.Hint != "" {
		fmt.Fprintf(w, "Hint: %s.\n", r.Hint)
	}
}
