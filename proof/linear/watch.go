package linear

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/echosession/echosession"
)

// watch is a Session.Watch of one client.
type watch struct {
	client, process int
	session         *session
	handle          *echosession.Session[Data]
	ctx             context.Context
	stop            context.CancelFunc

	began int64
	token token         // the one that the watch is of: a Rotate of the handle changes it
	over  chan struct{} // closed after the watch was canceled
	at    int64         // when it was canceled
	ended bool          // it was canceled because the session had ended
}

// watch begins a watch, or now and then ends one.
func (c *client) watch(ctx context.Context, s *session, t token, handle *echosession.Session[Data]) {
	if n := len(c.watching); n > 0 && c.random.IntN(8) == 0 {
		c.watching[c.random.IntN(n)].stop()
		return
	}
	w := &watch{client: c.number, process: c.process, session: s, handle: handle, began: c.Now(), token: t, over: make(chan struct{})}
	w.ctx, w.stop = handle.Watch(ctx)
	context.AfterFunc(w.ctx, func() {
		w.at = c.Now()
		close(w.over)
	})
	c.watching = append(c.watching, w)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watches = append(c.watches, w)
}

// carryOn lets the watches of a token go on as watches of the next one, which the handle
// made by a Rotate that was called at a time.
func (c *client) carryOn(handle *echosession.Session[Data], from, to token, call int64) {
	for _, w := range c.watching {
		if w.handle == handle && w.token == from {
			w.token, w.began = to, call
		}
	}
}

// isCanceled reports whether the watch was canceled, for whatever reason.
func (w *watch) isCanceled() bool { return w.ctx.Err() != nil }

// finishWatches waits until the watches of all ended sessions were canceled, and adds to
// the history what the watches tell.
func (o *Outcome) finishWatches(ctx context.Context) {
	began := o.Now()
	if o.Workload.Patience > 0 {
		observer := o.Workload.observer(o)
		for _, w := range o.watches {
			o.awaitEnd(ctx, w)
		}
		// What has not ended is not to be canceled later.
		time.Sleep(late)
		for _, w := range o.watches {
			if w.isCanceled() {
				continue
			}
			if handle := observer.open(ctx, w.session, w.token); handle != nil {
				observer.check(ctx, w.session, w.token, handle)
			}
		}
	}
	for _, w := range o.watches {
		o.Figures.Watches++
		if !w.isCanceled() {
			w.stop()
			continue
		}
		<-w.over
		in := Input{Kind: Watch, Number: o.Number(), Session: w.session.number, Token: w.token.number, Login: w.token.login}
		var result Result
		switch cause := context.Cause(w.ctx); {
		case errors.Is(cause, echosession.ErrSessionGone):
			result = Gone
		case errors.Is(cause, echosession.ErrRenewed):
			result = Renewed
		case errors.Is(cause, context.Canceled):
			continue // the client stopped it
		default:
			o.wrong("a watch of session %d was canceled: %w", w.session.number, cause)
			continue
		}
		w.ended = true
		o.Figures.Canceled++
		o.Figures.Latest = max(o.Figures.Latest, time.Duration(w.at-began))
		o.add(w.client, w.began, w.at, in, Output{Result: result})
	}
}

const (
	// late is how long a watch is looked at that is not to be canceled.
	late = 20 * time.Millisecond

	// longest is how long a store may answer nothing after the faults.
	longest = time.Minute
)

// awaitEnd waits for the cancellation of a watch, if its session has ended. While the store
// does not answer in time, as on a busy machine, a watch may go on.
func (o *Outcome) awaitEnd(ctx context.Context, w *watch) {
	patience := o.Workload.Patience
	began := time.Now()
	for deadline := began.Add(patience); !w.isCanceled(); {
		live, err := o.isLive(ctx, w)
		switch {
		case err != nil && time.Since(began) > longest:
			o.wrong("it is unknown whether session %d has ended: %w", w.session.number, err)
			return
		case err != nil:
			deadline = time.Now().Add(patience)
		case live:
			return
		case time.Now().After(deadline):
			o.wrong("session %d has ended, and after %v its watch by client %d with token #%d goes on",
				w.session.number, patience, w.client, w.token.number)
			return
		}
		select {
		case <-w.ctx.Done():
		case <-time.After(late):
		}
	}
}

// isLive looks where the token of a watch leads, past what the process keeps.
func (o *Outcome) isLive(ctx context.Context, w *watch) (bool, error) {
	handle, err := o.Workload.Managers[w.process].Open(ctx, w.token.text)
	if err == nil {
		if err = handle.Reason(); err == nil {
			err = handle.Check(ctx)
		}
	}
	if errors.Is(err, echosession.ErrSessionGone) || errors.Is(err, echosession.ErrRenewed) {
		return false, nil
	}
	return err == nil, err
}

// wasTold reports whether a watch of a process had told before a time that a token leads
// nowhere.
func (o *Outcome) wasTold(process, token int, before int64) bool {
	return slices.ContainsFunc(o.watches, func(w *watch) bool {
		return w.ended && w.process == process && w.token.number == token && w.at < before
	})
}
