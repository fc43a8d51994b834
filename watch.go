package echosession

import (
	"cmp"
	"container/heap"
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// checkBatch is how many sessions are checked in one round trip.
	checkBatch = 1000

	// sweepRound is how long a sweep of all watched sessions takes, which finds the ends
	// that no message told of.
	sweepRound = 30 * time.Second

	// pollRound is sweepRound where no message comes. A batch takes pollPause at least, so
	// that 100,000 sessions take sweepRound again.
	pollRound = 5 * time.Second
	pollPause = 300 * time.Millisecond

	// recheckAfter is when a session is checked again of which the store could not tell, from
	// the beginning of the check that failed: after a timeout that is at once.
	recheckAfter = time.Second

	// recheckSoonest is when a session is checked again of which nothing is left, for a store
	// may round that. If it goes on all the same, recheckAfter will do: another program may
	// have given it no end.
	recheckSoonest = 10 * time.Millisecond

	// maxChecks is how many batches are under way at once, and maxSweeps how many of them
	// may be those that nobody waits for.
	maxChecks, maxSweeps = 4, 3

	// hubIdle is how long a hub runs on after the last need for it.
	hubIdle = time.Minute

	// resubscribe is the longest pause before the next attempt to hear of ends, and
	// resubscribeUnsupported where the store says that it cannot tell.
	resubscribe            = 500 * time.Millisecond
	resubscribeUnsupported = time.Minute
)

// A hub tells those who watch sessions when these sessions end. It hears of ends from the
// store (see [Watcher]), and has a timer for the end of each lifetime. Both are hints: a
// session has ended when a check says so. So late, repeated and wrong hints end nothing, and
// what no hint tells of is found by a sweep.
//
// It runs while somebody needs it and for hubIdle after that: one goroutine that listens,
// one that decides what to check, and at most maxChecks that check.
type hub struct {
	engine *engine
	used   atomic.Int64 // when use was called last, in nanoseconds since 1970

	mu        sync.Mutex
	closed    bool
	cancel    context.CancelFunc // nil while nothing runs
	work      sync.WaitGroup
	wake      chan struct{}
	concerned map[string][]*target // by the ID of a session: those that its end concerns
	order     list.List            // all targets, the one that was checked longest ago first
	timers    targetHeap
	queues    [urgent + 1][]*target
	listening bool // every end is heard of
	nextSweep time.Time
	round     sweepPlan
	idleSince time.Time // there is no target since
	sweeps    int       // routine batches under way
	checks    int       // all batches under way
	polls     bool      // the log was told that sessions are polled

	// What happened to those who watch while ends were not heard of.
	gone        []*watch  // dropped by a sweep, to be told of
	interrupted time.Time // since when, zero: they are heard of
	behind      int       // targets to be checked since they are heard of again
	missed      int       // how many of them had ended
}

// A sweepPlan divides a sweep of all targets into batches. It stays until the sweep is over,
// or a sweep that finds many ends would slow down.
type sweepPlan struct {
	batches, size int
	left          int // batches to come
}

// A target is what one or more watches wait for: the end of what a ref leads to.
type target struct {
	ref     Ref
	follows string // ID of the session that ref leads to since a rotation, or ""
	watches []*watch
	place   *list.Element // in hub.order, nil when nobody watches any more

	at    time.Time // when to check next
	timer int       // in hub.timers, or noTimer

	queued   urgency // in which of hub.queues, or to be put there after the check
	checking bool
	over     bool  // at the last check nothing was left, and it had not ended
	behind   bool  // it is counted in hub.behind
	ends     int64 // when its time is over, as the last check says, in nanoseconds since 1970
}

const noTimer = -1

// An urgency is how soon a target is to be checked.
type urgency int

const (
	unqueued urgency = iota
	routine          // nobody knows of an end
	urgent           // an end was heard of, or is due
)

// A watch is one [Session.Watch].
type watch struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	ref    Ref
	target *target    // nil before and after
	news   *watchNews // nil: nobody is told
}

// watchNews is what is told of a watch, when it begins and when it is over.
type watchNews struct {
	subject, id string
	over        atomic.Bool // told
}

// checked is what a check says of a ref.
type checked struct {
	left time.Duration
	err  error

	// Where a ref leads that was rotated away, and what is left of its own grace.
	follows string
	grace   time.Duration
}

// A batchChecker is a store that checks many refs in one round trip. The error of each is
// that of [Store.Check].
type batchChecker interface {
	checkMany(ctx context.Context, refs []Ref) []checked
}

func newHub(e *engine) *hub {
	return &hub{engine: e, wake: make(chan struct{}, 1), concerned: make(map[string][]*target)}
}

// use says that the hub is needed although nobody watches: what this process keeps of
// sessions must go when they end.
func (h *hub) use() {
	now := time.Now()
	// In the future: the clock was set back.
	if since := now.UnixNano() - h.used.Load(); since >= 0 && since < int64(time.Second) {
		return
	}
	h.used.Store(now.UnixNano())
	h.mu.Lock()
	defer h.mu.Unlock()
	h.start(now)
}

// start starts what runs in the background. h.mu is held.
func (h *hub) start(now time.Time) {
	if h.closed || h.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel, h.idleSince, h.nextSweep, h.round = cancel, now, now.Add(pollRound), sweepPlan{}
	h.work.Go(func() { h.listen(ctx) })
	h.work.Go(func() { h.run(ctx) })
}

// close ends all watches and what runs in the background.
func (h *hub) close() {
	h.mu.Lock()
	h.closed = true
	var all []*watch
	for h.order.Len() > 0 {
		all = append(all, h.drop(h.order.Front().Value.(*target))...)
	}
	if h.cancel != nil {
		h.cancel()
	}
	h.mu.Unlock()
	for _, w := range all {
		w.cancel(ErrClosed)
	}
	for _, w := range all {
		h.tellEnd(w)
	}
	h.work.Wait()
}

// add begins a watch of ref.
func (h *hub) add(w *watch) {
	h.mu.Lock()
	closed, over := h.closed, w.ctx.Err() != nil
	if !closed && w.target == nil && !over {
		now := time.Now()
		h.start(now)
		w.target = h.targetOf(w.ref)
		w.target.watches = append(w.target.watches, w)
		// What ended before nobody tells again.
		h.queue(w.target, urgent)
	}
	h.mu.Unlock()
	switch {
	case closed:
		w.cancel(ErrClosed)
		h.tellEnd(w)
	case over: // no sweep finds it
		h.tellEnd(w)
	}
}

// tellEnd tells that a watch is over, once.
func (h *hub) tellEnd(w *watch) {
	if w.news == nil || !w.news.over.CompareAndSwap(false, true) {
		return
	}
	reason := "stopped"
	switch cause := context.Cause(w.ctx); {
	case errors.Is(cause, ErrClosed):
		reason = "closed"
	case errors.Is(cause, ErrRenewed):
		reason = "renewed"
	case errors.Is(cause, ErrSessionGone):
		reason = "gone"
	}
	h.engine.happened(context.WithoutCancel(w.ctx), EventWatchEnded, reason, w.news.subject, w.news.id)
}

// tellBegin tells that a watch begins.
func (h *hub) tellBegin(w *watch, subject string) {
	if h.engine.cfg.OnEvent != nil {
		w.news = &watchNews{subject: subject, id: w.ref.ID}
		h.engine.happened(context.WithoutCancel(w.ctx), EventWatchBegan, "", subject, w.ref.ID)
	}
}

// tellNews tells of the watches that nobody has stopped and nobody waits for any more, and
// that all ends were found which nobody was told of.
func (h *hub) tellNews() {
	h.mu.Lock()
	gone := h.gone
	h.gone = nil
	since, missed := h.interrupted, h.missed
	resumed := !since.IsZero() && h.listening && h.behind == 0
	if resumed {
		h.interrupted, h.missed = time.Time{}, 0
	}
	h.mu.Unlock()
	for _, w := range gone {
		h.tellEnd(w)
	}
	if resumed {
		h.engine.observe(context.Background(), Event{Kind: EventWatchResumed, Count: missed, Duration: time.Since(since)})
	}
}

// tellInterrupted tells that ends are not heard of at once.
func (h *hub) tellInterrupted(cause string) {
	h.engine.observe(context.Background(), Event{Kind: EventWatchInterrupted, Reason: cause})
}

// lag notes that a target is to be checked before all ends are found, or is so no more.
// h.mu is held.
func (h *hub) lag(t *target, behind bool) {
	if t.behind == behind {
		return
	}
	t.behind = behind
	if behind {
		h.behind++
	} else {
		h.behind--
	}
}

// remove ends a watch, or interrupts it for another add.
func (h *hub) remove(w *watch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := w.target
	if t == nil {
		return
	}
	w.target = nil
	t.watches = slices.DeleteFunc(t.watches, func(other *watch) bool { return other == w })
	if len(t.watches) == 0 {
		h.drop(t)
	}
}

// targetOf returns the target of a ref, which may be a new one. h.mu is held.
func (h *hub) targetOf(ref Ref) *target {
	for _, t := range h.concerned[ref.ID] {
		// What a check has read by now says nothing to a watch that begins now.
		if t.ref == ref && !t.checking {
			return t
		}
	}
	t := &target{ref: ref, timer: noTimer}
	t.place = h.order.PushBack(t)
	h.concern(ref.ID, t)
	return t
}

// drop forgets a target, and returns who watched it. h.mu is held.
func (h *hub) drop(t *target) []*watch {
	h.order.Remove(t.place)
	t.place = nil
	h.concernNot(t.ref.ID, t)
	h.follow(t, "")
	h.setTimer(t, time.Time{})
	h.lag(t, false)
	watches := t.watches
	t.watches = nil
	for _, w := range watches {
		w.target = nil
	}
	if h.order.Len() == 0 {
		h.idleSince = time.Now()
		// Maps and slices keep the room that they once needed.
		h.concerned, h.timers = make(map[string][]*target), nil
		h.poke()
	}
	return watches
}

func (h *hub) concern(id string, t *target) {
	h.concerned[id] = append(h.concerned[id], t)
}

func (h *hub) concernNot(id string, t *target) {
	left := slices.DeleteFunc(h.concerned[id], func(other *target) bool { return other == t })
	if len(left) == 0 {
		delete(h.concerned, id)
	} else {
		h.concerned[id] = left
	}
}

// follow notes which session a target leads to. h.mu is held.
func (h *hub) follow(t *target, id string) {
	if id == t.follows {
		return
	}
	if t.follows != "" {
		h.concernNot(t.follows, t)
	}
	t.follows = id
	if id != "" {
		h.concern(id, t)
	}
}

// setTimer sets when a target is checked next; the zero time is never. h.mu is held.
func (h *hub) setTimer(t *target, at time.Time) {
	t.at = at
	switch {
	case at.IsZero() && t.timer != noTimer:
		heap.Remove(&h.timers, t.timer)
	case at.IsZero():
	case t.timer != noTimer:
		heap.Fix(&h.timers, t.timer)
	default:
		heap.Push(&h.timers, t)
	}
}

// queue has a target checked. A check that is under way may have read too early: then
// another one follows. h.mu is held.
func (h *hub) queue(t *target, u urgency) {
	if t.queued >= u {
		return
	}
	t.queued = u // in both queues, perhaps: take takes it out of the first one
	if !t.checking {
		h.queues[u] = append(h.queues[u], t)
	}
	h.poke()
}

// poke makes run look again.
func (h *hub) poke() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// tell takes a hint of the store, unless what listens is to stop: another one may run by then.
func (h *hub) tell(ctx context.Context, hint Hint) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	if hint.All {
		h.listening = true
		h.poke()
	}
	if hint.All || hint.Match != nil {
		for e := h.order.Front(); e != nil; e = e.Next() {
			switch t := e.Value.(*target); {
			case hint.Match != nil && hint.Match(t.ref):
				h.lag(t, false)
				h.queue(t, urgent)
			case hint.All:
				h.lag(t, !h.interrupted.IsZero())
				h.queue(t, routine)
			}
		}
	}
	for _, id := range hint.IDs {
		for _, t := range h.concerned[id] {
			h.lag(t, false)
			h.queue(t, urgent)
		}
	}
}

// listen hears from the store which sessions may have ended.
func (h *hub) listen(ctx context.Context) {
	w, ok := h.engine.own.(Watcher)
	if !ok {
		const cause = "the store tells of no ends"
		if h.reportPolling(cause) {
			h.tellInterrupted(cause)
		}
		return
	}
	tell := func(hint Hint) {
		h.engine.stale.hinted(hint)
		h.tell(ctx, hint)
	}
	for pause := time.Duration(0); ; {
		began := time.Now()
		err := recovered(func() error { return w.Watch(ctx, tell) })
		again, first := h.stopListening(ctx)
		if !again {
			return
		}
		if time.Since(began) > resubscribe {
			pause = 0
		}
		pause = min(max(2*pause, 10*time.Millisecond), resubscribe)
		wait, cause := pause, "no error"
		if err != nil {
			cause = causeOf(err)
		}
		if errors.Is(err, errors.ErrUnsupported) {
			h.reportPolling(cause)
			wait = resubscribeUnsupported
		} else {
			h.report("session watch interrupted", cause)
		}
		if first {
			h.tellInterrupted(cause)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// stopListening notes that ends are heard of no more. It reports whether to listen again, and
// whether they were heard of before.
func (h *hub) stopListening(ctx context.Context) (again, first bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ctx.Err() != nil {
		return false, false // another listen may run by now
	}
	if h.listening {
		h.listening = false
		h.nextSweep = time.Now()
		h.poke()
	}
	if first = h.interrupted.IsZero(); first {
		h.interrupted, h.missed = time.Now(), 0
		for e := h.order.Front(); e != nil; e = e.Next() {
			h.lag(e.Value.(*target), true)
		}
	}
	return true, first
}

// reportPolling logs once that ends are found by asking again and again. It reports whether
// that was now.
func (h *hub) reportPolling(cause string) (now bool) {
	h.mu.Lock()
	said := h.polls
	h.polls = true
	h.mu.Unlock()
	if !said {
		h.report("session watch by polling", cause)
	}
	return !said
}

// report logs a failure.
func (h *hub) report(message, cause string) {
	_ = recovered(func() error {
		h.engine.reports.report(slog.LevelWarn, failureKind{message, "watch", cause})
		return nil
	})
}

// recovered runs code of a store or of a logger, whose panic must not end the program from
// a goroutine that the program does not know.
func recovered(run func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = namedError{error: fmt.Errorf("panic: %v", r), name: "panic in the store"}
		}
	}()
	return run()
}

// run has targets checked when it is time.
func (h *hub) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		batch, done, wait := h.next(time.Now())
		h.tellNews()
		switch {
		case batch != nil:
			h.work.Go(func() {
				defer done()
				h.check(ctx, batch)
			})
			continue
		case wait < 0:
			return
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-h.wake:
		case <-timer.C:
		}
	}
}

// next returns a batch to check and what to call afterwards. Or it returns how long there is
// nothing to do, which is below zero when the hub is to stop.
func (h *hub) next(now time.Time) (batch []*target, done func(), wait time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, nil, -1
	}
	for len(h.timers) > 0 && !h.timers[0].at.After(now) {
		t := h.timers[0]
		h.setTimer(t, time.Time{})
		h.queue(t, urgent)
	}
	if n := h.order.Len(); n > 0 && !h.nextSweep.After(now) {
		if h.round.left == 0 {
			batches := (n + checkBatch - 1) / checkBatch
			h.round = sweepPlan{batches: batches, size: (n + batches - 1) / batches, left: batches}
		}
		h.round.left--
		h.sweep(h.round.size)
		h.nextSweep = now.Add(h.sweepPause())
	}
	if batch, done = h.take(); batch != nil {
		return batch, done, 0
	}
	if h.order.Len() == 0 {
		idle := time.Unix(0, h.used.Load())
		if h.idleSince.After(idle) {
			idle = h.idleSince
		}
		wait = idle.Add(hubIdle).Sub(now)
		if wait <= 0 {
			h.cancel()
			h.cancel, h.listening = nil, false
			return nil, nil, -1
		}
		return nil, nil, wait
	}
	wait = h.nextSweep.Sub(now)
	if len(h.timers) > 0 {
		wait = min(wait, h.timers[0].at.Sub(now))
	}
	return nil, nil, max(wait, 0)
}

// sweepPause is the time between two batches of a sweep. h.mu is held.
func (h *hub) sweepPause() time.Duration {
	if h.listening {
		return sweepRound / time.Duration(h.round.batches)
	}
	return max(pollRound/time.Duration(h.round.batches), pollPause)
}

// sweep has n targets checked, those that were checked longest ago, and ends the watches that
// nobody waits for any more. h.mu is held.
func (h *hub) sweep(n int) {
	for range n {
		e := h.order.Front()
		if e == nil {
			return
		}
		h.order.MoveToBack(e)
		t := e.Value.(*target)
		t.watches = slices.DeleteFunc(t.watches, func(w *watch) bool {
			over := w.ctx.Err() != nil
			if over {
				h.gone = append(h.gone, w)
				w.target = nil // or its remove would drop a target that is dropped by then
			}
			return over
		})
		if len(t.watches) == 0 {
			h.drop(t)
		} else {
			h.queue(t, routine)
		}
	}
}

// take returns the next batch and what to call when it was checked. h.mu is held.
func (h *hub) take() ([]*target, func()) {
	if h.checks == maxChecks {
		return nil, nil
	}
	if batch := h.dequeue(urgent); batch != nil {
		return batch, h.checkBegins(0)
	}
	if h.sweeps == maxSweeps {
		return nil, nil
	}
	if batch := h.dequeue(routine); batch != nil {
		return batch, h.checkBegins(1)
	}
	return nil, nil
}

// checkBegins counts a batch, and returns what counts its end.
func (h *hub) checkBegins(sweeps int) (done func()) {
	h.checks++
	h.sweeps += sweeps
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.checks--
		h.sweeps -= sweeps
		h.poke()
	}
}

// dequeue takes a batch out of a queue. h.mu is held.
func (h *hub) dequeue(u urgency) []*target {
	var batch []*target
	queue := h.queues[u]
	for len(queue) > 0 && len(batch) < checkBatch {
		t := queue[0]
		queue = queue[1:]
		if t.place != nil && t.queued != unqueued && !t.checking {
			t.queued, t.checking = unqueued, true
			batch = append(batch, t)
		}
	}
	if len(queue) == 0 {
		queue = nil
	}
	h.queues[u] = queue
	return batch
}

// check asks the store about a batch and ends the watches of what has ended.
func (h *hub) check(ctx context.Context, batch []*target) {
	refs := make([]Ref, len(batch))
	for i, t := range batch {
		refs[i] = t.ref
	}
	began := time.Now()
	answers := h.engine.checkAll(ctx, refs)
	if ctx.Err() != nil {
		return
	}
	type ending struct {
		watches []*watch
		cause   error
		expired string // its ID, if its time was over
	}
	var endings []ending
	now := time.Now()
	h.mu.Lock()
	for i, t := range batch {
		again := t.queued
		t.queued, t.checking = unqueued, false
		if t.place == nil {
			continue
		}
		h.order.MoveToBack(t.place)
		answer := answers[i]
		err := answer.err
		if hasEnded(err) || err == nil && again == unqueued {
			if t.behind && hasEnded(err) {
				h.missed++
			}
			h.lag(t, false)
		}
		switch {
		case err == nil:
			if answer.follows != "" && answer.follows != t.follows {
				again = urgent // what ended before nobody tells again
			}
			h.follow(t, answer.follows)
			pause := max(answer.left+time.Millisecond, recheckSoonest)
			if t.over && answer.left <= 0 {
				pause = recheckAfter
			}
			t.over = answer.left <= 0
			if t.ends = 0; answer.follows == "" { // the end of a grace is no end of the time
				t.ends = now.Add(answer.left).UnixNano()
			}
			h.setTimer(t, now.Add(pause))
		case hasEnded(err):
			h.engine.stale.ended(t.ref.ID)
			expired := ""
			if t.ends > 0 && now.UnixNano() >= t.ends && errors.Is(err, ErrSessionGone) {
				expired = t.ref.ID
			}
			endings = append(endings, ending{h.drop(t), err, expired})
			continue
		default:
			h.setTimer(t, began.Add(recheckAfter))
		}
		if again != unqueued {
			h.queue(t, again)
		}
	}
	h.mu.Unlock()
	for _, e := range endings {
		for _, w := range e.watches {
			w.cancel(e.cause)
		}
	}
	for _, e := range endings { // whoever is told takes their time
		if e.expired != "" && len(e.watches) > 0 && e.watches[0].news != nil {
			h.engine.happened(context.Background(), EventExpired, "", e.watches[0].news.subject, e.expired)
		}
		for _, w := range e.watches {
			h.tellEnd(w)
		}
	}
}

// checkMany checks refs, and follows no rotation. When errors have taken the time of
// a call it asks no more: the others get the last of these errors too.
func (e *engine) checkMany(ctx context.Context, refs []Ref) (answers []checked) {
	if many, ok := e.own.(batchChecker); ok {
		ctx, cancel := context.WithTimeout(ctx, e.cfg.StoreTimeout)
		defer cancel()
		_ = e.told(ctx, "check", func() error {
			answers = many.checkMany(ctx, refs)
			return failureOf(answers)
		})
	} else {
		var failure error
		var failing time.Duration
		for _, ref := range refs {
			answer := checked{err: failure}
			if failure == nil {
				began := time.Now()
				answer.err = recovered(func() (err error) { answer.left, err = e.checkRef(ctx, ref); return err })
				_, rotated := errors.AsType[*RotatedError](answer.err)
				if answer.err != nil && !rotated && !isEnd(answer.err) {
					if failing += time.Since(began); failing >= e.cfg.StoreTimeout {
						failure = answer.err
					}
				}
			}
			answers = append(answers, answer)
		}
	}
	return answers
}

// checkAll checks refs and follows their rotations, those of all refs in one batch: while
// the store is down, each batch takes the time of a call. An answer says what is left of the
// session, or of the grace if that is less. What is no end gets the form of an error of this
// package.
func (e *engine) checkAll(ctx context.Context, refs []Ref) []checked {
	answers := e.checkMany(ctx, refs)
	for range maxRotations {
		var places []int
		var successors []Ref
		for i := range answers {
			if rotated, ok := errors.AsType[*RotatedError](answers[i].err); ok {
				places = append(places, i)
				successors = append(successors, Ref{ID: rotated.To, Subject: refs[i].Subject})
			}
		}
		if len(places) == 0 {
			break
		}
		for i, answer := range e.checkMany(ctx, successors) {
			before := &answers[places[i]]
			answer.follows, answer.grace = successors[i].ID, before.grace
			if before.follows == "" {
				rotated, _ := errors.AsType[*RotatedError](before.err)
				answer.grace = cmp.Or(rotated.Left, recheckAfter)
			}
			answer.left = min(answer.left, answer.grace)
			*before = answer
		}
	}
	for i := range answers {
		if _, ok := errors.AsType[*RotatedError](answers[i].err); ok {
			answers[i].err = unavailable(errTooManyRotations)
		}
		if err := answers[i].err; err != nil && ctx.Err() == nil {
			answers[i].err = recovered(func() error { return e.failed(ctx, "watch", err) }) // it logs
		}
	}
	return answers
}

// targetHeap has the target first whose time comes first.
type targetHeap []*target

func (h targetHeap) Len() int           { return len(h) }
func (h targetHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }

func (h targetHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].timer, h[j].timer = i, j
}

func (h *targetHeap) Push(x any) {
	t := x.(*target)
	t.timer = len(*h)
	*h = append(*h, t)
}

func (h *targetHeap) Pop() any {
	n := len(*h) - 1
	t := (*h)[n]
	(*h)[n] = nil
	*h = (*h)[:n]
	t.timer = noTimer
	return t
}
