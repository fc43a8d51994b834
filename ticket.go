package echosession

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/echosession/echosession/internal/jwt"
)

// AnyPath as the path of [Session.Ticket] lets the ticket be used on any path.
const AnyPath = "*"

// A TicketOption is an option of [Session.Ticket].
type TicketOption func(*ticketParams)

type ticketParams struct {
	origin string
	bound  bool // an origin was given
}

// TicketOrigin binds a ticket to an origin as browsers send it, "https://app.example.com":
// it opens the session only in a request with this Origin. A request without Origin will
// do if its Sec-Fetch-Site is same-origin: that is what the EventSource of a page of the
// service itself sends.
func TicketOrigin(origin string) TicketOption {
	return func(p *ticketParams) { p.origin, p.bound = origin, true }
}

const (
	ticketBytes = 16
	ticketLen   = 22 // in base64url
	ticketLife  = 30 * time.Second

	// maxTicketPath keeps what is stored for a ticket small.
	maxTicketPath = 2 << 10
)

var ticketEncoding = base64.RawURLEncoding.Strict()

// errTicketHandle is what a handle returns that came with a ticket.
var errTicketHandle = fmt.Errorf("%w for this: the request came with a ticket, which makes no token, no cookie and no other ticket; send the token itself", ErrNoSession)

// newTicket returns a ticket that nobody can guess.
func newTicket() string {
	var b [ticketBytes]byte
	rand.Read(b[:])
	return ticketEncoding.EncodeToString(b[:])
}

// isTicket reports whether s has the form of a ticket.
func isTicket(s string) bool {
	if len(s) != ticketLen {
		return false
	}
	b, err := ticketEncoding.DecodeString(s) // it skips \r and \n
	return err == nil && len(b) == ticketBytes
}

// ticketKey is what a store keeps a ticket under. It is a hash, so that no ticket can be read
// in the store.
func ticketKey(ticket string) string {
	sum := sha256.Sum256([]byte(ticket))
	return ticketEncoding.EncodeToString(sum[:])
}

// readsTickets reports whether a [Config.TokenLookup] names a place for tickets.
func readsTickets(lookup string) bool {
	for part := range strings.SplitSeq(lookup, ",") {
		if strings.HasPrefix(strings.TrimLeft(part, " "), "ticket:") {
			return true
		}
	}
	return false
}

// findTicket returns the ticket in the request's URL, or [ErrAmbiguousToken]. asked says
// that there is something in the place of a ticket.
func (l *lookup) findTicket(r *http.Request) (ticket string, asked bool, err error) {
	for _, name := range l.tickets {
		value, err := onlyInForm(r.URL.RawQuery, name)
		if err != nil {
			return "", true, err
		}
		asked = asked || value != ""
		if !isTicket(value) {
			continue
		}
		if ticket != "" && ticket != value {
			return "", true, ErrAmbiguousToken
		}
		ticket = value
	}
	return ticket, asked, nil
}

// ticket is [Session.Ticket].
func (h *handle) ticket(ctx context.Context, path string, opts []TicketOption) (string, error) {
	var p ticketParams
	for _, opt := range opts {
		opt(&p)
	}
	if h.engine.tickets == nil {
		return "", h.engine.refused("ticket", fmt.Errorf("%w: it is no TicketStore", ErrUnsupported))
	}
	if err := checkTicketPath(path); err != nil {
		return "", err
	}
	if p.bound {
		if err := checkOrigin(p.origin); err != nil {
			return "", fmt.Errorf("echosession: TicketOrigin: %w", err)
		}
	}
	l, err := h.mayMakeTicket()
	if err != nil {
		return "", err
	}
	return h.engine.makeTicket(ctx, l, path, p.origin)
}

// mayMakeTicket returns the session that a ticket is for, or why there can be none.
func (h *handle) mayMakeTicket() (*live, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.ticketed:
		return nil, errTicketHandle
	case h.live == nil:
		return nil, h.noSession()
	case h.live.stale:
		return nil, errStale
	case h.live.tok == nil:
		return nil, fmt.Errorf("%w with a token: a listed session has none, and a ticket does what its token would", ErrNoSession)
	}
	return h.live, nil
}

// checkTicketPath says what is wrong with a path that no request has.
func checkTicketPath(path string) error {
	if path == AnyPath {
		return nil
	}
	if !strings.HasPrefix(path, "/") {
		return fmt.Errorf("echosession: the path of a ticket begins with a slash, as the server sees it, or is AnyPath: %.40q does not", path)
	}
	if strings.ContainsAny(path, "?#") {
		return errors.New("echosession: the path of a ticket ends before ? and #: hand in the path alone, and put the ticket into the query of the URL")
	}
	if len(path) > maxTicketPath {
		return fmt.Errorf("echosession: the path of a ticket has %d bytes, and at most %d will do: take AnyPath", len(path), maxTicketPath)
	}
	u, err := url.ParseRequestURI(path)
	if err != nil {
		return fmt.Errorf("echosession: the path of a ticket: %w", err)
	}
	if seen := u.EscapedPath(); seen != path {
		return fmt.Errorf("echosession: the server sees the path %.200q as %.200q: hand in that one (url.URL.EscapedPath)", path, seen)
	}
	return nil
}

// makeTicket stores a ticket that does for l, once, what its token would do. After a lost
// reply it makes another one: a write that is repeated late could bring back a ticket that
// was used meanwhile.
func (e *engine) makeTicket(ctx context.Context, l *live, path, origin string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.StoreTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		ticket := newTicket()
		key := ticketKey(ticket)
		t := jwt.Ticket{
			Name: key, ID: l.tok.ID, Subject: l.tok.Subject, Idle: l.tok.Idle,
			Path: path, Origin: origin, End: e.cfg.Now().Add(ticketLife),
		}
		t.Deadline, _ = l.tok.ExpiresAt()
		signed, err := e.tokens.IssueTicket(t)
		if err != nil {
			return "", e.refused("ticket", err)
		}
		value, err := e.serializer.sealTicket(key, signed)
		if err != nil {
			return "", e.refused("ticket", err)
		}
		err = e.tickets.PutTicket(ctx, key, value, ticketLife)
		if err == nil {
			return ticket, nil
		}
		if !errors.Is(err, ErrIndeterminate) || errors.Is(err, ErrNotReplicated) || attempt == maxCreates || ctx.Err() != nil {
			return "", e.ticketFailed(ctx, err)
		}
	}
}

// ticketFailed gives the error of a TicketStore its form. A store that wraps another may
// find out late that the other keeps no tickets.
func (e *engine) ticketFailed(ctx context.Context, err error) error {
	if errors.Is(err, ErrUnsupported) && !errors.Is(err, ErrStoreUnavailable) {
		return e.refused("ticket", ErrUnsupported)
	}
	return e.failed(ctx, "ticket", err)
}

// redeem opens the session of a request's ticket as the token would that the ticket was
// made of, and decodes its data into v. Whatever comes of it, the ticket is spent.
func (e *engine) redeem(ctx context.Context, ticket string, r *http.Request, v any) (*live, error) {
	t, err := e.acceptTicket(ctx, ticket, r)
	if err != nil {
		e.turnedAway(ctx, nil, err)
		return nil, err
	}
	via := e.ref(t.ID, t.Subject)
	l := &live{ref: via, via: via, header: recordHeader{idle: t.Idle, deadline: t.Deadline, subject: t.Subject}}
	// It is always a use that the store is told of: no cache and no replica answers it.
	if err := e.read(ctx, l, true, v); err != nil {
		e.turnedAway(ctx, l, err)
		return nil, err
	}
	e.opened(ctx, "ticket", l)
	return l, nil
}

// acceptTicket takes the ticket of a request from the store, and checks what it is bound to.
func (e *engine) acceptTicket(ctx context.Context, ticket string, r *http.Request) (jwt.Ticket, error) {
	t, err := e.takeTicket(ctx, ticketKey(ticket))
	if err != nil {
		return t, err
	}
	if err := e.tokens.CheckTicketTime(t, e.cfg.Now()); err != nil {
		return t, err
	}
	if t.Path != AnyPath && t.Path != r.URL.EscapedPath() {
		return t, fmt.Errorf("%w: a ticket for another path", ErrInvalidToken)
	}
	if t.Origin != "" && !comesFrom(r.Header, t.Origin) {
		return t, fmt.Errorf("%w: a ticket for another origin", ErrInvalidToken)
	}
	return t, nil
}

// takeTicket takes what the store has under a key, so that nobody finds it there again.
func (e *engine) takeTicket(ctx context.Context, key string) (jwt.Ticket, error) {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.StoreTimeout)
	defer cancel()
	value, err := e.tickets.TakeTicket(ctx, key)
	switch {
	case err == nil:
	case errors.Is(err, ErrNotFound) && !errors.Is(err, ErrStoreUnavailable):
		return jwt.Ticket{}, fmt.Errorf("%w: no such ticket, or it was used", ErrInvalidToken)
	default:
		return jwt.Ticket{}, e.ticketFailed(ctx, err)
	}
	sealed, ours := strings.CutPrefix(string(value), key)
	if !ours {
		return jwt.Ticket{}, e.failed(ctx, "ticket", unavailable(errForeignRecord))
	}
	signed, ok := e.serializer.unsealTicket(key, sealed)
	if !ok {
		return jwt.Ticket{}, fmt.Errorf("%w: a ticket that cannot be read", ErrInvalidToken)
	}
	t, err := e.tokens.VerifyTicket(signed)
	if err != nil {
		return jwt.Ticket{}, err // whoever wrote it has no signing key
	}
	if t.Name != key {
		return jwt.Ticket{}, e.failed(ctx, "ticket", unavailable(errForeignRecord))
	}
	return t, nil
}

// comesFrom reports whether a request comes from a page of this origin. To its own origin a
// browser sends no Origin with a GET; which one that is, only the page and the browser know.
func comesFrom(h http.Header, origin string) bool {
	switch sent := h["Origin"]; len(sent) {
	case 0:
		site := h["Sec-Fetch-Site"]
		return len(site) == 1 && site[0] == "same-origin"
	case 1:
		return sent[0] == origin
	}
	return false
}

// What is stored for a ticket begins with its key, so that another command's reply is known
// for what it is. Then come one of these bytes and the signed ticket. Where there are
// encryption keys it is sealed, for it names the subject; before it comes the fingerprint
// of the key.
const (
	plainTicket  = 'p'
	sealedTicket = 's'
)

// ticketPurpose is what the key of a sealed ticket is derived for. No keyspace makes a
// sealPurpose of it.
const ticketPurpose = "echosession/1/ticket\x00"

// sealTicket returns what is stored for a signed ticket.
func (s *serializer) sealTicket(key, signed string) ([]byte, error) {
	value := append(make([]byte, 0, len(key)+1+fingerprintLen+len(signed)+sealOverhead), key...)
	if len(s.seals) == 0 {
		return append(append(value, plainTicket), signed...), nil
	}
	seal, err := s.seals[0].derive(s.seals[0].tickets + key)
	if err != nil {
		return nil, err
	}
	value = append(append(value, sealedTicket), s.seals[0].fingerprint[:]...)
	return seal.Seal(value, nil, []byte(signed), nil), nil
}

// unsealTicket returns the signed ticket of what is stored behind its key.
func (s *serializer) unsealTicket(key, stored string) (signed string, ok bool) {
	if signed, ok = strings.CutPrefix(stored, string(plainTicket)); ok {
		return signed, true
	}
	sealed, ok := strings.CutPrefix(stored, string(sealedTicket))
	if !ok || len(sealed) < fingerprintLen {
		return "", false
	}
	for i := range s.seals {
		if string(s.seals[i].fingerprint[:]) != sealed[:fingerprintLen] {
			continue
		}
		seal, err := s.seals[i].derive(s.seals[i].tickets + key)
		if err != nil {
			continue
		}
		if opened, err := seal.Open(nil, nil, []byte(sealed[fingerprintLen:]), nil); err == nil {
			return string(opened), true
		}
	}
	return "", false
}
