package echosession

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
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
	refused  string   // the token that came in a cookie from another origin
	verified bool     // the caller has checked where the request came from
	ended    bool     // the session was found to be gone after the first Get
	caching  caching  // what caches are told of the answer
	hooked   bool     // and again just before the header
	err      error    // why it could not be answered
	reason   error    // why there is no live session
	writes   int      // how often the handle changed the record
	live     *live    // nil without a live session
	value    any      // the decoded record, nil when handed out
}

// find looks for the request's token, and reports whether it is to be opened.
// h.mu is held.
func (h *handle) find() (token found, ok bool) {
	x := h.exchange
	r := x.Request()
	token, err := h.engine.lookup.find(x, r)
	h.place = token.place()
	if token.url {
		keepURLPrivate(x.Header())
	}
	if err == nil && token.cookie && !token.other {
		if err = h.engine.origins.refuse(r); err != nil {
			h.refused = token.token
		}
	}
	h.reason = err
	return token, err == nil
}

// openFound opens the session of the request's token. value is a pointer to a
// zero T. An error is a store's failure. h.mu is held.
func (h *handle) openFound(token found, value any) error {
	if err := h.open(h.exchange.Request().Context(), token.token, value); err != nil {
		return err
	}
	if h.live != nil {
		h.live.inCookie = h.place == inCookie
		h.renewCookie(false)
	}
	return nil
}

// open puts the session of a token behind h. value is a pointer to a zero T. An
// error is a store's failure. h.mu is held.
func (h *handle) open(ctx context.Context, token string, value any) error {
	l, err := h.engine.open(ctx, token, value)
	switch {
	case err == nil:
		h.live, h.value, h.reason = l, value, nil
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
		h.caching.mark(h.exchange.Header())
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
		return nil, fmt.Errorf("%w: %w", ErrNoSession, h.reason)
	}
	return h.live, nil
}

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

// A requirement is what the options of Require say.
type requirement struct {
	requestKey string
	fresh      time.Duration // the greatest age, or 0
	only       *engine       // whose sessions, or nil
}

// meets is [Session.Meets].
func (h *handle) meets(r requirement) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live == nil {
		return cmp.Or(h.reason, ErrNoSession) // never nil without a session
	}
	if r.fresh > 0 && h.engine.cfg.Now().Sub(h.live.header.createdAt) > r.fresh {
		return &notFreshError{r.fresh}
	}
	return nil
}

// create is [Session.Create]. value is a *T.
func (h *handle) create(ctx context.Context, value any, opts []CreateOption) (token string, err error) {
	var p createParams
	for _, opt := range opts {
		opt(&p)
	}
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
		if err := h.engine.destroy(ctx, old); err != nil {
			h.engine.discard(ctx, l)
			return "", err
		}
	}
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
	cookie = h.bound && h.engine.cfg.Cookie != nil && h.place != elsewhere && !p.tokenOnly
	if h.exchange != nil && p.crossOriginVerified {
		h.verified = true
	}
	return cookie, h.answerable(cookie)
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

// touch is [Session.Touch].
func (h *handle) touch(ctx context.Context) error {
	err := h.change(func(l *live) (*live, any, error) {
		next, err := h.engine.touch(ctx, l)
		return next, nil, err
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
	l, err := h.engine.rotate(ctx, old)
	if errors.Is(err, ErrSessionGone) {
		h.end(old)
	}
	if err != nil {
		return "", err
	}
	l.inCookie = cookie
	if err := h.adoptNew(l); err != nil {
		return "", err
	}
	return l.token, nil
}

// mayRotate returns what Rotate rotates and whether it writes the cookie, or why it
// must do nothing.
func (h *handle) mayRotate() (old *live, cookie bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	cookie = h.engine.cfg.Cookie != nil && h.live != nil && h.live.inCookie
	if h.live == nil {
		if err := h.answerable(false); err != nil {
			return nil, false, err
		}
		return nil, false, fmt.Errorf("%w: %w", ErrNoSession, h.reason)
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
		if err := h.engine.destroy(ctx, l); err != nil {
			return err
		}
		h.lose(l)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if cookie && h.exchange != nil && !h.exchange.Committed() {
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
	if errors.Is(h.reason, ErrCrossOrigin) {
		return nil, false, h.reason
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
	next, value, err := do(l)
	if errors.Is(err, ErrSessionGone) {
		h.end(l)
		h.lose(l)
	}
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live != nil && h.live.via == l.via {
		if !bytes.Equal(revisionOf(h.live.record), revisionOf(next.record)) {
			h.writes++
		}
		h.live, h.value = next, value
	}
	return nil
}

// countWrites returns how often the handle changed the record.
func (h *handle) countWrites() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.writes
}

// maxOwnWrites is how many rounds in a row an Update lets its own handle write while
// fn runs: another goroutine's Update does it now and then, an Update in fn always.
const maxOwnWrites = 8

var errOwnWrites = fmt.Errorf("%w: while fn ran, this handle wrote the session each time; does fn update the session itself?", ErrConflict)

// lose takes a session that is gone from behind the handle.
func (h *handle) lose(l *live) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live != nil && h.live.via == l.via {
		h.live, h.value, h.reason = nil, nil, ErrSessionGone
	}
}
