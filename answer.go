package echosession

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// place is where the token of a request is, as far as that decides whether the
// answer may write the cookie. A token that is in a URL too counts as one from
// elsewhere: a link is no sign that the browser's owner chose the session.
type place int

const (
	nowhere   place = iota // no token: the answer may set the cookie
	inCookie               // in a cookie, and perhaps in a header too
	elsewhere              // the client keeps the token itself, and gets the new one as a value
)

func (f found) place() place {
	switch {
	case f.cookie && !f.url:
		return inCookie
	case f.cookie || f.other:
		return elsewhere
	default:
		return nowhere
	}
}

// answerable reports whether a new token can still reach the client, in the cookie
// if that is where it belongs. h.mu is held.
func (h *handle) answerable(cookie bool) error {
	if !h.bound {
		return nil
	}
	if h.exchange == nil {
		return ErrRequestOver
	}
	if !cookie {
		return nil
	}
	if h.exchange.Committed() {
		return errHeaderSent
	}
	return h.fromHere()
}

var errHeaderSent = fmt.Errorf("%w: the answer's header has been sent, and no cookie can follow", ErrRequestOver)

// fromHere returns ErrCrossOrigin for a request to which no answer may write the
// cookie. h.mu is held.
func (h *handle) fromHere() error {
	if h.verified {
		return nil
	}
	if errors.Is(h.reason, ErrCrossOrigin) { // of which is told
		return h.engine.origins.refuse(h.exchange.Request())
	}
	return h.engine.refuseForeign(h.exchange.Request())
}

// adoptNew puts a session with a new token behind the handle and its cookie into
// the answer.
func (h *handle) adoptNew(l *live) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.adopt(l)
}

// adoptFirst is adoptNew where no session stands behind the handle. It reports whether
// that was so.
func (h *handle) adoptFirst(l *live) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live != nil {
		return false, nil
	}
	err := h.adopt(l)
	return err == nil, err
}

// adopt is adoptNew with h.mu held.
func (h *handle) adopt(l *live) error {
	if h.bound && h.exchange == nil {
		return ErrRequestOver
	}
	if l.inCookie && h.exchange.Committed() {
		return errHeaderSent
	}
	h.live, h.value, h.reason = l, nil, nil
	h.had, h.ended = true, false
	if l.inCookie {
		h.setCookie()
	}
	return nil
}

// renewCookie prolongs a persistent cookie that carries the token: when a tenth of
// the idle timeout has passed since this process last did, or at once. h.mu is held.
func (h *handle) renewCookie(atOnce bool) {
	cookie, l := h.engine.cfg.Cookie, h.live
	if cookie == nil || l == nil || !h.engine.persistent(l) || !l.inCookie || h.exchange == nil || h.exchange.Committed() {
		return
	}
	if l.ref != l.via {
		return // rotated away: arriving last, it would take the place of its successor
	}
	if !atOnce && !h.engine.cookieDue(l) {
		return
	}
	if h.engine.origins.check(h.exchange.Request()) != nil {
		return // a header with the same token let the request in
	}
	l.tok.LastCookie.Store(h.engine.cfg.Now().UnixNano())
	h.setCookie()
}

// persistent reports whether the cookie of a session outlives the browser.
func (e *engine) persistent(l *live) bool { return e.cfg.Cookie.Persistent || l.header.remembered }

// cookieDue reports whether a tenth of the idle timeout has passed since this
// process knows that the client got the cookie.
func (e *engine) cookieDue(l *live) bool {
	idle := l.header.idle
	switch {
	case idle < 0: // jwt.NoIdle
		return false // its end was known when the cookie was made
	case idle == 0:
		idle = e.cfg.MaxAge
	}
	last := l.tok.IssuedAt()
	if sent := time.Unix(0, l.tok.LastCookie.Load()); sent.After(last) {
		last = sent
	}
	since := e.cfg.Now().Sub(last)
	return since >= idle/10 || since < 0 // the clock was set back
}

// setCookie puts the live session's token into the answer. h.mu is held.
func (h *handle) setCookie() {
	h.engine.cfg.Cookie.set(h.exchange.Header(), h.live.token, h.engine.persistent(h.live), h.engine.left(h.live))
	h.tellCaches(private)
}

// end notes that the session was found to be gone. The answer leaves the cookie as
// it is: the browser may hold a newer one by now.
func (h *handle) end(l *live) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live == nil || h.live.via != l.via {
		return
	}
	h.ended = true
	if l.inCookie && h.engine.cfg.Cookie != nil && h.exchange != nil && !h.exchange.Committed() {
		h.engine.cfg.Cookie.drop(h.exchange.Header())
	}
}

// caching is what caches are told of an answer. A higher one includes the lower.
type caching int

const (
	_        caching = iota
	varies           // the session was looked for in a cookie
	personal         // it was found there: not for caches, unless the handler says otherwise
	private          // it carries the cookie: not for caches, whatever the handler says
)

const neverStore = "private, no-store"

// looked tells caches what the first Get found. h.mu is held.
func (h *handle) looked() {
	switch {
	case h.live != nil && h.live.inCookie:
		h.tellCaches(personal)
	case h.engine.lookup.inCookie && h.place != elsewhere:
		h.tellCaches(varies)
	}
}

// tellCaches marks the answer at once, for frameworks that cannot say when the
// header is sent, and again when it is sent. h.mu is held.
func (h *handle) tellCaches(c caching) {
	h.caching = max(h.caching, c)
	if h.exchange.Committed() {
		return
	}
	header := h.exchange.Header()
	h.mark(header)
	if !h.hooked {
		h.hooked = true
		h.exchange.BeforeHeader(func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.mark(header)
		})
	}
}

// mark tells caches what they may do. h.mu is held.
func (h *handle) mark(header http.Header) {
	h.caching.mark(header)
	if h.unstored {
		keepPrivate(header)
	}
}

// mark sets the headers that the caching demands.
func (c caching) mark(h http.Header) {
	if c >= personal && h["Vary"] == nil && h["Cache-Control"] == nil {
		both := []string{neverStore, "Cookie"} // one allocation
		h["Cache-Control"], h["Vary"] = both[:1:1], both[1:]
		return
	}
	if c >= varies && !variesByCookie(h["Vary"]) {
		h.Add("Vary", "Cookie")
	}
	if c == private || c == personal && len(h["Cache-Control"]) == 0 {
		keepPrivate(h)
	}
}

func variesByCookie(vary []string) bool {
	for _, line := range vary {
		for name := range strings.SplitSeq(line, ",") {
			name = strings.TrimSpace(name)
			if name == "*" || strings.EqualFold(name, "Cookie") {
				return true
			}
		}
	}
	return false
}

func keepPrivate(h http.Header) {
	if !slices.Equal(h["Cache-Control"], []string{neverStore}) {
		h.Set("Cache-Control", neverStore)
	}
}

// keepURLPrivate is for answers to a URL with a token in it: nothing stores them,
// and no link in them tells another site the URL.
func keepURLPrivate(h http.Header) {
	h.Set("Cache-Control", neverStore)
	h.Set("Referrer-Policy", "no-referrer")
}
