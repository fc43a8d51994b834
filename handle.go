package echosession

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
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
	private  bool     // the answer is kept out of caches
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
	if token.url {
		x.Header().Set("Cache-Control", "private, no-store")
	}
	if err == nil && token.cookie {
		err = crossOrigin(h.engine.crossOrigin, r)
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
		h.live.inCookie, h.live.inURL = token.cookie, token.url
		if h.live.touched {
			h.renewCookie()
		}
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
	if h.private && h.exchange != nil && !h.exchange.Committed() {
		// The framework may send this header without a word of the handler, and
		// then knows no "before".
		markPrivate(h.exchange.Header())
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
		return h.reason
	}
	if r.fresh > 0 && h.engine.cfg.Now().Sub(h.live.header.createdAt) > r.fresh {
		return &notFreshError{r.fresh}
	}
	return nil
}

// create is [Session.Create]. value is a *T.
func (h *handle) create(ctx context.Context, value any, opts []CreateOption) (token string, err error) {
	if err := h.answerable(); err != nil {
		return "", err
	}
	var p createParams
	for _, opt := range opts {
		opt(&p)
	}
	old := h.current()
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
	if err := h.adoptNew(l); err != nil {
		h.engine.discard(ctx, l)
		return "", err
	}
	return l.token, nil
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
		h.renewCookie()
	}
	return err
}

// rotate is [Session.Rotate].
func (h *handle) rotate(ctx context.Context) (token string, err error) {
	if err := h.answerable(); err != nil {
		return "", err
	}
	old, err := h.need()
	if err != nil {
		return "", err
	}
	l, err := h.engine.rotate(ctx, old)
	if err != nil {
		return "", err
	}
	l.inURL = old.inURL
	if err := h.adoptNew(l); err != nil {
		return "", err
	}
	return l.token, nil
}

// destroy is [Session.Destroy].
func (h *handle) destroy(ctx context.Context) error {
	if h.isOver() {
		return ErrRequestOver
	}
	if reason := h.why(); errors.Is(reason, ErrCrossOrigin) {
		return reason
	}
	if l := h.current(); l != nil {
		if err := h.engine.destroy(ctx, l); err != nil {
			return err
		}
		h.lose(l)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if cookie := h.engine.cfg.Cookie; cookie != nil && h.exchange != nil && !h.exchange.Committed() {
		cookie.clear(h.exchange.Header())
		h.keepPrivate()
	}
	return nil
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

func (h *handle) isOver() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.bound && h.exchange == nil
}

// answerable reports whether a new token can still reach the client.
func (h *handle) answerable() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.bound {
		return nil
	}
	if h.exchange == nil {
		return ErrRequestOver
	}
	if h.engine.cfg.Cookie != nil && h.exchange.Committed() {
		return fmt.Errorf("%w: the answer's header has been sent, and no cookie can follow", ErrRequestOver)
	}
	return nil
}

// adoptNew puts a session with a new token behind the handle and its cookie into
// the answer.
func (h *handle) adoptNew(l *live) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.bound && h.exchange == nil {
		return ErrRequestOver
	}
	h.live, h.value, h.reason = l, nil, nil
	if h.engine.cfg.Cookie != nil && h.exchange != nil && !l.inURL {
		l.inCookie = true
		h.setCookie()
	}
	return nil
}

// renewCookie prolongs a persistent cookie that carries the token. h.mu is held.
func (h *handle) renewCookie() {
	cookie := h.engine.cfg.Cookie
	if cookie == nil || !cookie.Persistent || h.live == nil || !h.live.inCookie ||
		h.exchange == nil || h.exchange.Committed() {
		return
	}
	h.setCookie()
}

// setCookie puts the live session's token into the answer. h.mu is held.
func (h *handle) setCookie() {
	h.engine.cfg.Cookie.set(h.exchange.Header(), h.live.token, h.engine.left(h.live))
	h.keepPrivate()
}

// keepPrivate keeps an answer that carries the cookie out of every cache, whatever
// the handler says afterwards. h.mu is held.
func (h *handle) keepPrivate() {
	header := h.exchange.Header()
	markPrivate(header)
	if !h.private {
		h.private = true
		h.exchange.BeforeHeader(func() { markPrivate(header) })
	}
}

func markPrivate(header http.Header) {
	const private = "private, no-store"
	if v := header["Cache-Control"]; len(v) != 1 || v[0] != private {
		header.Set("Cache-Control", private)
	}
}
