package echosession

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/echosession/echosession/internal/jwt"
)

// A CreateOption is an option of [Session.Create], [Session.Renew],
// [Session.UpdateOrCreate] and [Manager.Create]. Where two of them say the same thing
// in two ways, the later one counts.
type CreateOption func(*createParams)

// createParams are what the options of Create and Renew say.
type createParams struct {
	subject  string
	named    bool // subject was given
	claims   Claims
	claimed  bool // claims were given
	maxAge   time.Duration
	limited  bool // maxAge was given
	remember bool
	forget   bool // what the session before was remembered for is dropped
	device   string
	actor    string
	acting   bool // actor was given
	guest    bool // nobody has authenticated

	crossOriginVerified bool
	tokenOnly           bool
}

func paramsOf(opts []CreateOption) createParams {
	var p createParams
	for _, opt := range opts {
		opt(&p)
	}
	return p
}

// namesSubject reports whether the options say whose session it is.
func (p createParams) namesSubject() bool {
	_, claimed := p.claims["sub"]
	return p.named || claimed
}

// WithSubject says whose session it is: the sub claim of the token. With
// [Config.SubjectIndex], [Manager.List] and [Manager.RevokeSubject] find the session
// by it; a session without a subject is in no list. From one byte to 1 KiB of valid
// UTF-8, with any characters: the empty string is refused, so that a user without an
// ID is noticed.
func WithSubject(sub string) CreateOption {
	return func(p *createParams) { p.subject, p.named = sub, true }
}

// WithClaims puts claims into the token. Whoever holds the token can read them. The
// package owns jti, iat, act and idle, and iss and aud where they are configured: a
// caller's are refused with [ErrReservedClaim]. A sub is the same as [WithSubject].
//
// An exp (a time.Time, or a number of seconds since 1970) supersedes
// [Config.MaxAge]: the session lives until then, used or not. Together with
// [WithMaxAge] or [Config.AbsoluteTimeout], the earliest of them ends the session.
//
// [Session.Rotate] keeps the claims. [Session.Renew] keeps those of an authenticated
// session of the same subject, but for exp and nbf, unless WithClaims gives others.
func WithClaims(c Claims) CreateOption {
	return func(p *createParams) { p.claims, p.claimed = c, true }
}

// WithMaxAge sets this session's idle timeout instead of [Config.MaxAge]. At least a
// millisecond. It is part of the session: every process heeds it, whatever the Config
// of that process says. [Session.Rotate] keeps it, and [Session.Renew] where it keeps
// the claims.
func WithMaxAge(d time.Duration) CreateOption {
	return func(p *createParams) { p.maxAge, p.limited = d, true }
}

// Remember is "remember me": [WithMaxAge](d), and the cookie of this session outlives
// the browser, as [Cookie.Persistent] has it for all sessions. [Session.Rotate] keeps
// it, and [Session.Renew] where it keeps the claims. Remember(0) makes Renew drop it,
// together with the idle timeout of the session before.
func Remember(d time.Duration) CreateOption {
	return func(p *createParams) {
		if d == 0 {
			p.remember, p.forget = false, true
			return
		}
		p.remember, p.forget = true, false
		p.maxAge, p.limited = d, true
	}
}

// WithDevice names the device or the program that the session is used with, for a list
// of devices: see [Session.Device]. What is over 256 bytes is cut off, and what is not
// UTF-8 is replaced, so that the User-Agent header of a request will do. It says
// nothing that a client could not make up. [Session.Rotate] and [Session.Renew] keep
// it unless Renew is given another.
func WithDevice(name string) CreateOption {
	name = strings.ToValidUTF8(name, "\uFFFD")
	if len(name) > maxDevice {
		end := maxDevice
		for !utf8.RuneStart(name[end]) {
			end--
		}
		name = name[:end]
	}
	return func(p *createParams) { p.device = name }
}

// WithActor says that somebody else acts in the subject's place: a member of the
// support staff who is logged in as a customer. It is the act claim of the token (RFC
// 8693 §4.1) and part of the session: see [Session.Actor]. At most 1 KiB of valid
// UTF-8. [Session.Rotate] keeps it, and [Session.Renew] where it keeps the claims;
// WithActor("") drops it. Such a session counts for [Config.MaxSessions] of the subject
// like any other.
func WithActor(subject string) CreateOption {
	return func(p *createParams) { p.actor, p.acting = subject, true }
}

// CrossOriginVerified makes [Session.Create] and [Session.Renew] set the cookie in the
// answer to a request of another site's page, which is otherwise refused with [ErrCrossOrigin].
// It is for logins that come back as a cross-site POST: Sign in with Apple
// (response_mode=form_post), SAML. Before it calls one of them, the handler must have
// checked the state, nonce or InResponseTo of the answer against a value that only
// this browser has, such as a short-lived cookie with SameSite=None: otherwise any
// site can log a visitor in to the attacker's account.
//
// Nothing of the session that arrived with the request is carried into the new one.
// If its token came in the session cookie, that session ends.
func CrossOriginVerified() CreateOption {
	return func(p *createParams) { p.crossOriginVerified = true }
}

// TokenOnly makes [Session.Create], [Session.Renew] and [Session.UpdateOrCreate] set no
// cookie: the client keeps the token itself. It is for routes that apps and pages of other
// origins call. Such a request is not checked, because nothing in a browser changes. A
// live session behind the handle ends as ever. [Manager.Create] makes a session beside it.
func TokenOnly() CreateOption {
	return func(p *createParams) { p.tokenOnly = true }
}

// begin makes the header and the claims of a new session: what the options say, what
// the Config says, and what is handed on from the session before, if there is one.
func (e *engine) begin(op string, p createParams, before *live, now time.Time) (recordHeader, jwt.Claims, error) {
	claims, sub, exp, err := e.tokens.SplitClaims(jwt.Claims(p.claims), now)
	if err == nil && sub != "" && p.subject != "" && sub != p.subject {
		err = fmt.Errorf("%w: sub differs from WithSubject; give one of them", ErrReservedClaim)
	}
	if err != nil {
		return recordHeader{}, nil, e.refused(op, err)
	}
	h := recordHeader{subject: cmp.Or(p.subject, sub), createdAt: now.Truncate(time.Millisecond).UTC()}
	if !p.guest {
		h.authenticatedAt = h.createdAt
	}
	if p.namesSubject() && h.subject == "" {
		return recordHeader{}, nil, errors.New("echosession: the subject is empty: say whose session it is, or leave WithSubject out")
	}
	if before != nil {
		if !p.namesSubject() {
			h.subject = before.header.subject
		}
		h.device = before.header.device
		if carries(before.header, h.subject) {
			h.createdAt = before.header.createdAt
		}
		if before.header.subject == h.subject && !before.header.authenticatedAt.IsZero() {
			h.handOn(before.header, p)
			if !p.claimed {
				claims = e.tokens.CallersClaims(before.tok.Token)
				delete(claims, "nbf")
			}
		}
	}
	if err := h.apply(p, exp); err != nil {
		return recordHeader{}, nil, err
	}
	h.deadline = exp
	if e.cfg.AbsoluteTimeout > 0 {
		if end := now.Add(e.cfg.AbsoluteTimeout); exp.IsZero() || end.Before(exp) {
			h.deadline = end
		}
	}
	return h, claims, nil
}

// carries reports whether a session of this subject starts from the data of the one
// before it: a guest's, or one of the same subject. Otherwise one user would inherit
// what another one may do.
func carries(before recordHeader, subject string) bool {
	return before.subject == "" || before.subject == subject
}

// handOn takes over what belongs to a login, unless the options drop it. It does not
// take over an end that the claims of the session before had set.
func (h *recordHeader) handOn(before recordHeader, p createParams) {
	if !p.forget {
		h.idle, h.remembered = max(0, before.idle), before.remembered
	}
	h.actor = before.actor
	h.newer = before.newer
}

// apply sets what the options say. exp is the end that claims have set, or zero.
func (h *recordHeader) apply(p createParams, exp time.Time) error {
	if !isSubject(h.subject) {
		return fmt.Errorf("echosession: a subject is valid UTF-8 of at most %d bytes", maxSubject)
	}
	if !isSubject(p.actor) {
		return fmt.Errorf("echosession: an actor is valid UTF-8 of at most %d bytes", maxSubject)
	}
	if p.limited {
		if p.maxAge < time.Millisecond {
			return fmt.Errorf("echosession: WithMaxAge or Remember of %v: an idle timeout is at least a millisecond", p.maxAge)
		}
		h.idle = p.maxAge.Truncate(time.Millisecond) // the token says it in whole milliseconds
	}
	if h.idle == 0 && !exp.IsZero() {
		h.idle = jwt.NoIdle
	}
	h.remembered = h.remembered || p.remember
	h.device = cmp.Or(p.device, h.device)
	if p.acting {
		h.actor = p.actor
	}
	return nil
}

func isSubject(s string) bool { return len(s) <= maxSubject && utf8.ValidString(s) }

// A RequireOption is an option of [Require] and [Manager.Require].
type RequireOption func(requirement) requirement

func requirementOf(opts []RequireOption) requirement {
	r := requirement{requestKey: defaultRequestKey}
	for _, opt := range opts {
		r = opt(r)
	}
	switch {
	case r.stale && r.fresh > 0:
		panic("echosession: ServeStale goes with no Fresh: a copy does not tell whether the login still counts")
	case r.stale && r.only != nil && r.only.stale == nil:
		panic(errNoStaleFor)
	}
	return r
}

var errNoStaleFor = errors.New("echosession: ServeStale has no effect: set Config.StaleFor")

// A requirement is what the options of Require say.
type requirement struct {
	requestKey    string
	fresh         time.Duration // the greatest age, or 0
	authenticated bool
	only          *engine // whose sessions, or nil
	stale         bool    // a copy will do while the store is down
}

// meets is [Session.Meets].
func (h *handle) meets(r requirement) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	err := h.unmet(r)
	// A token that leads to no session was told of when that was found.
	if errors.Is(err, ErrNoToken) || errors.Is(err, ErrNotAuthenticated) || errors.Is(err, ErrNotFresh) {
		h.engine.turnedAway(h.context(), h.live, err)
	}
	return err
}

// unmet returns which requirement the session does not meet, or nil. h.mu is held.
func (h *handle) unmet(r requirement) error {
	if h.live == nil {
		return cmp.Or(h.reason, ErrNoSession) // never nil without a session
	}
	if r.fresh > 0 && h.live.stale {
		return errStale
	}
	login := h.live.header.authenticatedAt
	if login.IsZero() && r.authenticated {
		return ErrNotAuthenticated
	}
	// The zero time is too long ago for any.
	if r.fresh > 0 && h.engine.cfg.Now().Sub(login) > r.fresh {
		return &notFreshError{r.fresh}
	}
	return nil
}

// Authenticated requires a session in which somebody has logged in, with
// [Session.Create] or [Session.Renew]: guests of [Session.UpdateOrCreate] get
// [ErrNotAuthenticated], answered with 401.
func Authenticated() RequireOption {
	return func(r requirement) requirement {
		r.authenticated = true
		return r
	}
}

// Fresh requires a session whose last login is at most maxAge ago, see
// [Session.AuthenticatedAt]: use it where you would ask for the password again, and
// call [Session.Renew] when the password was right. [Session.Rotate] does not make a
// session fresh. Another session gets [ErrNotFresh], answered with 401 and the
// challenge of RFC 9470. Fresh panics if maxAge is under a second.
func Fresh(maxAge time.Duration) RequireOption {
	if maxAge < time.Second {
		panic(fmt.Sprintf("echosession: Fresh(%v): give it at least a second", maxAge))
	}
	return func(r requirement) requirement {
		r.fresh = maxAge
		return r
	}
}

// ServeStale lets a GET or a HEAD go on while the store is down, with what this process has
// read of the session in the last [Config.StaleFor]. It is for pages that one would rather
// show as they were some seconds ago than not at all. [Session.Stale] tells the handler. Any
// other method is answered with 503, as without it.
//
// Such a session cannot be written: Update, Touch, Renew, Rotate, Destroy and their like
// return [ErrStoreUnavailable]. The answer is not for caches: Cache-Control is private,
// no-store, whatever the handler sets it to. A copy is never served where this process knows
// that the session has ended, or has tried to write it and does not know whether it was
// written. But it does not hear of a logout by another process while Redis is down. A Require
// without ServeStale that comes later in the same request lets the copy pass, too, unless it
// demands [Fresh].
//
// [Manager.Require] panics with ServeStale where Config.StaleFor is 0. [Require] cannot know:
// there ServeStale has no effect, and the log says so. Together with [Fresh] it panics.
func ServeStale() RequireOption {
	return func(r requirement) requirement {
		r.stale = true
		return r
	}
}

// RequestKey makes [Require] look for the instance with this
// [Config.RequestKey].
func RequestKey(key string) RequireOption {
	return func(r requirement) requirement {
		r.requestKey = key
		return r
	}
}

// Only makes [Require] and [Find] accept the sessions of this Manager alone. Those
// of another Manager get [ErrNotInstalled]. [Manager.Require] has it built in.
func (m *Manager[_]) Only() RequireOption {
	return func(r requirement) requirement {
		r.only = m.engine
		return r
	}
}
