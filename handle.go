package echosession

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
)

// A handle is the half of a [Session] that needs no T: which live session stands
// behind it, and what it may still do to the answer. Its value is a *T.
type handle struct {
	engine *engine

	mu       sync.Mutex
	exchange Exchange // nil outside of a request, and when it is over
	bound    bool     // made for a request
	resolved bool     // the request was asked for its session
	place    place    // where its token is
	ticketed bool     // a ticket stands in its place
	refused  string   // the token that came in a cookie from another origin
	verified bool     // the caller has checked where the request came from
	had      bool     // there was a live session behind the handle
	ended    bool     // the session was found to be gone after the first Get
	caching  caching  // what caches are told of the answer
	hooked   bool     // and again just before the header
	err      error    // why it could not be answered
	missed   *found   // the token whose session an earlier Get could not read, for ServeStale
	unstored bool     // the answer is not for caches, whatever the handler says
	reason   error    // why there is no live session
	writes   int      // how often the handle changed the record
	live     *live    // nil without a live session
	value    any      // the decoded record, nil when handed out
	watches  []*watch // of this handle
	rotating int      // watches begin when these rotations are over
}

// find looks for the request's token, and reports whether it is to be opened.
// h.mu is held.
func (h *handle) find() (token found, ok bool) {
	x := h.exchange
	r := x.Request()
	token, err := h.engine.lookup.find(x, r)
	h.place, h.ticketed = token.place(), token.ticket != ""
	if token.url || token.asked {
		keepURLPrivate(x.Header())
	}
	switch {
	case err == nil && token.cookie && !token.other:
		if err = h.engine.refuseForeign(r); err != nil {
			h.refused = token.token
		}
	case !errors.Is(err, ErrNoToken):
		h.engine.turnedAway(r.Context(), nil, err)
	}
	h.reason = err
	return token, err == nil
}

// context is that of the request, where there is one. h.mu is held.
func (h *handle) context() context.Context {
	if h.exchange == nil {
		return context.Background()
	}
	return h.exchange.Request().Context()
}

// openFound opens the session of the request's token or ticket. fresh makes a *T. An error
// is a store's failure. With stale a copy of a token's session will do where the store is
// down. h.mu is held.
func (h *handle) openFound(token found, fresh func() any, stale bool) error {
	ctx := h.context()
	if h.ticketed {
		value := fresh()
		l, err := h.engine.redeem(ctx, token.ticket, h.exchange.Request(), value)
		return h.opened(l, value, err)
	}
	if stale && h.openStale(token, fresh, false) {
		return nil
	}
	if err := h.open(ctx, token.token, fresh()); err != nil {
		if errors.Is(err, ErrIndeterminate) || errors.Is(ctx.Err(), context.Canceled) {
			return err // the client hung up, or it is unknown what is stored
		}
		if h.engine.stale != nil {
			missed := token // the parameter itself shall not escape
			h.missed = &missed
		}
		if stale && h.openStale(token, fresh, true) {
			return nil
		}
		return err
	}
	if h.live != nil {
		h.live.inCookie = h.place == inCookie
		h.renewCookie(false)
	}
	return nil
}

// mayBeStale reports whether the request may be served a copy of its session. h.mu is held.
func (h *handle) mayBeStale() bool {
	if h.exchange == nil {
		return false
	}
	method := h.exchange.Request().Method
	return method == http.MethodGet || method == http.MethodHead
}

// openStale puts the copy of a session behind h, if there is one that may be served. failed
// says that this request has found the store down. h.mu is held.
func (h *handle) openStale(token found, fresh func() any, failed bool) bool {
	ctx := h.context()
	l, value := h.engine.openStale(ctx, token.token, fresh, failed)
	if l == nil {
		return false
	}
	l.inCookie = h.place == inCookie
	h.live, h.value, h.reason, h.had = l, value, nil, true
	h.unstored = true
	h.tellCaches(0)
	h.engine.happened(ctx, EventStaleServed, "", l.header.subject, l.ref.ID)
	return true
}

// writable returns why a session cannot be written, or nil.
func (l *live) writable() error {
	if l != nil && l.stale {
		return errStale
	}
	return nil
}

// isStale is [Session.Stale].
func (h *handle) isStale() bool {
	l := h.current()
	return l != nil && l.stale
}

// open puts the session of a token behind h. value is a pointer to a zero T. An
// error is a store's failure. h.mu is held.
func (h *handle) open(ctx context.Context, token string, value any) error {
	l, err := h.engine.open(ctx, token, value)
	return h.opened(l, value, err)
}

// opened puts what was opened behind h, or the reason why it was not. h.mu is held.
func (h *handle) opened(l *live, value any, err error) error {
	switch {
	case err == nil:
		h.live, h.value, h.reason, h.had = l, value, nil, true
	case errors.Is(err, ErrStoreUnavailable):
		return err
	default:
		h.reason = err
	}
	return nil
}

// release is [Binding.Release].
func (h *handle) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.exchange != nil && !h.exchange.Committed() {
		// The framework may send this header without a word of the handler, and
		// then knows no "before".
		h.mark(h.exchange.Header())
	}
	h.exchange = nil
}

// current returns what stands behind the handle, or nil.
func (h *handle) current() *live {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.live
}

// need returns what stands behind the handle, or ErrNoSession and the reason.
func (h *handle) need() (*live, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live == nil {
		return nil, h.noSession()
	}
	return h.live, nil
}

// noSession is the error of a method that needs a live session. h.mu is held.
func (h *handle) noSession() error { return fmt.Errorf("%w: %w", ErrNoSession, h.reason) }

func (h *handle) why() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reason
}

// take hands out the decoded record of l if nobody has it yet.
func (h *handle) take(l *live) any {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live != l {
		return nil
	}
	value := h.value
	h.value = nil
	return value
}

// create is [Session.Create]. value is a *T.
func (h *handle) create(ctx context.Context, value any, p createParams) (token string, err error) {
	cookie, err := h.mayCreate(p)
	if err != nil {
		return "", err
	}
	old, err := h.arriving(ctx, p)
	if err != nil {
		return "", err
	}
	l, err := h.engine.create(ctx, value, p)
	if err != nil {
		return "", err
	}
	if old != nil {
		// One that was renewed meanwhile has ended too: see mayCreate.
		if err := h.engine.destroy(ctx, old, "replaced"); err != nil && !(errors.Is(err, ErrRenewed) && p.namesSubject()) {
			h.engine.discard(ctx, l)
			h.foundOut(old, err)
			return "", err
		}
	}
	return h.handOut(ctx, l, cookie)
}

// handOut puts a new session behind the handle and returns its token. Where that cannot be,
// the session is deleted.
func (h *handle) handOut(ctx context.Context, l *live, cookie bool) (token string, err error) {
	l.inCookie = cookie
	if err := h.adoptNew(l); err != nil {
		h.engine.discard(ctx, l)
		return "", err
	}
	return l.token, nil
}

// mayCreate reports whether Create writes the cookie, or why it must do nothing.
func (h *handle) mayCreate(p createParams) (cookie bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ticketed {
		return false, errTicketHandle
	}
	if err := h.live.writable(); err != nil {
		return false, err
	}
	if h.live != nil && h.live.tok == nil {
		return false, fmt.Errorf("%w: a listed session gives way to no other; call Manager.Create", ErrNoSession)
	}
	cookie = h.bound && h.engine.cfg.Cookie != nil && h.place != elsewhere && !p.tokenOnly
	if h.exchange != nil && p.crossOriginVerified {
		h.verified = true
	}
	if err := h.answerable(cookie); err != nil {
		return false, err
	}
	if cookie && !p.namesSubject() && (h.ended || errors.Is(h.reason, ErrRenewed)) {
		// Another request has logged in, and its cookie may be on the way to the browser: a
		// guest's must not take its place.
		return false, fmt.Errorf("echosession: no cookie for a session without a subject in the place of one that ended: %w", h.reason)
	}
	return cookie, nil
}

// mayMakeGuest returns why UpdateOrCreate must not create a session, whatever fn makes.
func (h *handle) mayMakeGuest() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ticketed {
		return errTicketHandle
	}
	for _, reason := range []error{ErrAmbiguousToken, ErrCrossOrigin, ErrCorrupt} {
		if errors.Is(h.reason, reason) {
			return h.noSession()
		}
	}
	switch {
	case errors.Is(h.reason, ErrRenewed):
		return renewedMeanwhile(h.reason)
	case h.ended:
		return h.noSession()
	}
	return nil
}

// renewedMeanwhile is answered with 409: the client has a newer token by now, or is about
// to get it.
func renewedMeanwhile(err error) error { return fmt.Errorf("%w: %w", ErrConflict, err) }

// makeGuest creates a session in which nobody has authenticated, unless another goroutine
// has meanwhile put a session behind the handle.
func (h *handle) makeGuest(ctx context.Context, value any, p createParams) (made bool, err error) {
	p.guest, p.crossOriginVerified = true, false
	cookie, err := h.mayCreate(p)
	if err != nil {
		return false, err
	}
	if cookie && h.cameFromElsewhere() {
		h.engine.turnedAway(ctx, nil, ErrCrossOrigin)
		return false, ErrCrossOrigin
	}
	l, err := h.engine.create(ctx, value, p)
	if err != nil {
		return false, err
	}
	l.inCookie = cookie
	if made, err = h.adoptFirst(l); !made {
		h.engine.discard(ctx, l)
	}
	return made, err
}

// cameFromElsewhere reports whether a browser held the cookie back because another site
// led it here, so that the missing cookie says nothing.
func (h *handle) cameFromElsewhere() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.exchange != nil && h.place == nowhere && h.engine.cfg.Cookie.SameSite == http.SameSiteStrictMode &&
		h.exchange.Request().Header.Get("Sec-Fetch-Site") == "cross-site"
}

// arriving returns the session that a new one takes the place of, or nil. That may
// be the session of a cookie from another origin, if the caller has checked the
// request.
func (h *handle) arriving(ctx context.Context, p createParams) (*live, error) {
	h.mu.Lock()
	l, refused := h.live, h.refused
	h.mu.Unlock()
	if l != nil || refused == "" || !p.crossOriginVerified {
		return l, nil
	}
	l, err := h.engine.open(ctx, refused, nil)
	if errors.Is(err, ErrStoreUnavailable) {
		return nil, err
	}
	return l, nil
}

// check is [Session.Check].
func (h *handle) check(ctx context.Context) error {
	return h.see(func(l *live) (*live, error) { return h.engine.check(ctx, l) })
}

// touch is [Session.Touch].
func (h *handle) touch(ctx context.Context) error {
	err := h.see(func(l *live) (*live, error) {
		if err := l.writable(); err != nil {
			return nil, err
		}
		return h.engine.touch(ctx, l)
	})
	if err == nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.renewCookie(true)
	}
	return err
}

// rotate is [Session.Rotate].
func (h *handle) rotate(ctx context.Context) (token string, err error) {
	old, cookie, err := h.mayRotate()
	if err != nil {
		return "", err
	}
	to := old.via
	h.interruptWatches()
	defer func() { h.resumeWatches(old.via, to) }()
	l, err := h.engine.rotate(ctx, old)
	if err != nil {
		if hasEnded(err) {
			h.end(old)
		}
		return "", err
	}
	l.inCookie = cookie
	if err := h.adoptNew(l); err != nil {
		return "", err
	}
	to = l.via
	return l.token, nil
}

// watch is [Session.Watch].
func (h *handle) watch(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live == nil {
		cancel(h.noSession())
		return ctx, func() {}
	}
	w := &watch{ctx: ctx, cancel: cancel, ref: h.live.via}
	h.watches = append(h.watches, w)
	h.engine.hub.tellBegin(w, h.live.header.subject)
	if h.rotating == 0 {
		h.engine.hub.add(w)
	}
	return ctx, func() {
		cancel(nil)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.engine.hub.remove(w)
		h.watches = slices.DeleteFunc(h.watches, func(other *watch) bool { return other == w })
		h.engine.hub.tellEnd(w)
	}
}

// interruptWatches makes a rotation by the handle itself look like no end.
func (h *handle) interruptWatches() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rotating++
	for _, w := range h.watches {
		h.engine.hub.remove(w)
	}
}

// resumeWatches ends an interruption. The watches of from go on as watches of to.
func (h *handle) resumeWatches(from, to Ref) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rotating--
	for _, w := range h.watches {
		if w.ref == from {
			w.ref = to
		}
		if h.rotating == 0 {
			h.engine.hub.add(w)
		}
	}
}

// renew is [Session.Renew]. fresh makes a *T for fn.
func (h *handle) renew(ctx context.Context, p createParams, fresh func() any, fn func(any) error) (token string, err error) {
	old, cookie, err := h.mayRenew(p)
	if err != nil {
		return "", err
	}
	if old == nil {
		if _, err := h.mayCreate(p); err != nil {
			return "", err
		}
		value := fresh()
		if err := fn(value); err != nil {
			return "", err
		}
		return h.create(ctx, value, p)
	}
	l, err := h.engine.renew(ctx, old, p, fresh, fn)
	if err != nil {
		h.foundOut(old, err)
		return "", err
	}
	return h.handOut(ctx, l, cookie)
}

// mayRenew returns what Renew goes on from, or nil where it creates a session, and
// whether it writes the cookie, or why it must do nothing.
func (h *handle) mayRenew(p createParams) (old *live, cookie bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ticketed {
		return nil, false, errTicketHandle
	}
	if h.exchange != nil && p.crossOriginVerified {
		h.verified = true
	}
	if h.live != nil {
		if err := h.live.writable(); err != nil {
			return nil, false, err
		}
		cookie = h.engine.cfg.Cookie != nil && h.live.inCookie && !p.tokenOnly
		return h.live, cookie, h.answerable(cookie)
	}
	if err := h.answerable(false); err != nil {
		return nil, false, err
	}
	refused := errors.Is(h.reason, ErrAmbiguousToken) || errors.Is(h.reason, ErrCrossOrigin) && !h.verified
	switch {
	case h.had || refused:
		return nil, false, h.noSession()
	case !p.namesSubject():
		return nil, false, fmt.Errorf("%w, and Renew creates one only where WithSubject says whose it is: %w", ErrNoSession, h.reason)
	}
	return nil, false, nil
}

// mayRotate returns what Rotate rotates and whether it writes the cookie, or why it
// must do nothing.
func (h *handle) mayRotate() (old *live, cookie bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ticketed {
		return nil, false, errTicketHandle
	}
	cookie = h.engine.cfg.Cookie != nil && h.live != nil && h.live.inCookie
	if h.live == nil {
		if err := h.answerable(false); err != nil {
			return nil, false, err
		}
		return nil, false, h.noSession()
	}
	if err := h.live.writable(); err != nil {
		return nil, false, err
	}
	return h.live, cookie, h.answerable(cookie)
}

// destroy is [Session.Destroy].
func (h *handle) destroy(ctx context.Context) error {
	l, cookie, err := h.mayDestroy()
	if err != nil {
		return err
	}
	if l != nil {
		if err := h.engine.destroy(ctx, l, "logout"); err != nil {
			h.foundOut(l, err)
			return err
		}
		h.lose(l, ErrSessionGone)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	// Another goroutine may have put a new session behind the handle, and its cookie into
	// the answer.
	if cookie && h.live == nil && h.exchange != nil && !h.exchange.Committed() {
		h.engine.cfg.Cookie.clear(h.exchange.Header())
		h.tellCaches(private)
	}
	return nil
}

// mayDestroy returns what Destroy ends and whether it clears the cookie, or why it
// must do nothing.
func (h *handle) mayDestroy() (l *live, cookie bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.bound && h.exchange == nil {
		return nil, false, ErrRequestOver
	}
	if errors.Is(h.reason, ErrCrossOrigin) || errors.Is(h.reason, ErrRenewed) {
		return nil, false, h.reason // the session lives on
	}
	if err := h.live.writable(); err != nil {
		return nil, false, err
	}
	if h.engine.cfg.Cookie == nil || !h.bound || h.ended {
		return h.live, false, nil
	}
	cookie = h.place != elsewhere
	if h.live != nil {
		cookie = h.live.inCookie
	}
	if cookie {
		err = h.fromHere()
	}
	return h.live, cookie, err
}

// change puts what do makes of the live session behind the handle, unless another
// goroutine has meanwhile put another session there or taken it away. It holds no
// lock while do runs: do may call methods of the handle.
func (h *handle) change(do func(*live) (next *live, value any, err error)) error {
	l, err := h.need()
	if err != nil {
		return err
	}
	if err := l.writable(); err != nil {
		return err
	}
	next, value, err := do(l)
	if err != nil {
		h.foundOut(l, err)
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live != nil && h.live.via == l.via {
		h.put(next, value)
	}
	return nil
}

// put replaces what is behind the handle. h.mu is held.
func (h *handle) put(next *live, value any) {
	if !bytes.Equal(revisionOf(h.live.record), revisionOf(next.record)) {
		h.writes++
	}
	h.live, h.value = next, value
}

// reload is change for what only reads. When another goroutine meanwhile put a newer or an
// older record behind the handle, it is unknown which one this is: it reads again, and after
// some rounds leaves what the others put there.
func (h *handle) reload(read func(*live) (next *live, value any, err error)) error {
	for range maxOwnWrites {
		l, err := h.need()
		if err != nil {
			return err
		}
		next, value, err := read(l)
		if err != nil {
			h.foundOut(l, err)
			return err
		}
		if h.putRead(l, next, value) {
			return nil
		}
	}
	return nil
}

// putRead puts what was read in the place of l, and reports whether the record of l was still
// behind the handle. A session that has taken the place of l's stays.
func (h *handle) putRead(l, next *live, value any) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live == nil || h.live.via != l.via {
		return true
	}
	if !bytes.Equal(revisionOf(h.live.record), revisionOf(l.record)) {
		return false
	}
	h.put(next, value)
	return true
}

// see is change for what learns of the live session's times alone. The data stays what
// another goroutine may meanwhile have read or written.
func (h *handle) see(do func(*live) (*live, error)) error {
	l, err := h.need()
	if err != nil {
		return err
	}
	next, err := do(l)
	if err != nil {
		h.foundOut(l, err)
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live != nil && h.live.via == l.via {
		next.record, next.header, next.stale = h.live.record, h.live.header, h.live.stale
		h.live = next
	}
	return nil
}

// countWrites returns how often the handle changed the record.
func (h *handle) countWrites() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.writes
}

// countOwnWrites makes an fn that ends in errOwnWrites when this handle wrote during too
// many rounds in a row.
func (h *handle) countOwnWrites(fn func(any) error) func(any) error {
	own := 0
	return func(v any) error {
		before := h.countWrites()
		if err := fn(v); err != nil {
			return err
		}
		if h.countWrites() == before {
			own = 0
		} else if own++; own == maxOwnWrites {
			return errOwnWrites
		}
		return nil
	}
}

// maxOwnWrites is how many rounds in a row an Update or a Renew lets its own handle write
// while fn runs: another goroutine's Update does it now and then, an Update in fn always.
const maxOwnWrites = 8

var errOwnWrites = fmt.Errorf("%w: while fn ran, this handle wrote the session each time; does fn update the session itself?", ErrConflict)

// foundOut takes the session from behind the handle where an error says that it has
// ended meanwhile.
func (h *handle) foundOut(l *live, err error) {
	for _, reason := range []error{ErrSessionGone, ErrRenewed} {
		if errors.Is(err, reason) {
			h.engine.stale.ended(l.via.ID)
			h.end(l)
			h.lose(l, reason)
		}
	}
}

// lose takes a session that is gone from behind the handle.
func (h *handle) lose(l *live, reason error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live != nil && h.live.via == l.via {
		h.live, h.value, h.reason = nil, nil, reason
	}
}
