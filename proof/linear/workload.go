package linear

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/echosession/echosession"
)

// Workload is what the clients of one history do. They share few sessions, so that
// they meet.
type Workload struct {
	Seed       uint64
	Clients    int
	Operations int // of each client
	Sessions   int // at a time
	Grace      bool
	Indexed    bool // the sessions of each subject are listed and revoked too

	// OneStep says that a Renew takes one step whatever the subjects. Otherwise it does so
	// only with an index and where the subject stays.
	OneStep bool

	Faultless bool // no request and no reply is lost

	// Managers are the processes: clients are spread over them.
	Managers []*echosession.Manager[Data]

	// StaleOpen says that Open may find what was: then it is no part of the
	// history, and is held to what Outcome.checkOpens says.
	StaleOpen bool

	// Watches says that the clients also watch sessions. Patience is how long a watch may
	// go on after its session has ended and everything works. 0 is for ever.
	Watches  bool
	Patience time.Duration

	// Tickets says that the clients also make and redeem tickets.
	Tickets bool

	// StaleFor says that the clients also get pages that may be served from copies: see
	// echosession.Config. Serve, unless it is nil, returns what serves the pages of a process
	// in the place of its own site.
	StaleFor time.Duration
	Serve    func(process int, own Pages) Pages
}

// Outcome is what became of a workload.
type Outcome struct {
	*History
	Refused []string // operations that surely had no effect: they are in no history
	Errors  []error  // what no session may do whatever the order
	Figures Figures

	Workload Workload

	mu       sync.Mutex
	sessions []*session
	opens    []open
	listings []listing
	revokes  []revoke
	renewals []renewal
	watches  []*watch
	tickets  []ticket
	stale    []stalePage
	doubtful []doubt
}

// Figures count what happened beside the operations.
type Figures struct {
	Watches  int           // that began
	Canceled int           // watches whose session ended
	Latest   time.Duration // how long after the last operation the last of them was canceled
	Tickets  int           // that were made
	Stale    int           // pages that were served from a copy
	Redeemed int           // that let somebody in, or would have done so while the session lived
}

// session is a session with all IDs that it ever has.
type session struct {
	number int // of its Create

	mu     sync.Mutex
	ids    map[string]bool // those that a client was told
	tokens []token         // oldest first
	undone bool            // whatever was created may have been taken back
	over   bool            // a client learned that it is gone
}

type token struct {
	number int // of the operation that made it
	text   string

	login   int // the number of the Create or Renew that it comes from
	subject string
}

// open is an Open that may have found what was.
type open struct {
	process        int
	call, returned int64
	in             Input
	out            Output
}

// listing is a List.
type listing struct {
	client         int
	subject        string
	call, returned int64
	found          map[string]Data // by ID
}

// revoke is a RevokeSubject.
type revoke struct {
	client         int
	subject        string
	call, returned int64
	result         Result
}

// meets reports whether a RevokeSubject and a Renew may have met.
func (r revoke) meets(n renewal) bool {
	return r.subject == n.in.Subject && r.call < n.returned && (r.result == Unknown || r.returned > n.call)
}

// renewal is a Renew.
type renewal struct {
	client         int
	call, returned int64
	in             Input
	out            Output
	oneStep        bool
}

// Run is Start and Finish.
func (w Workload) Run(ctx context.Context) *Outcome {
	o := w.Start(ctx)
	o.Finish(ctx)
	return o
}

// Start lets the clients do their work and returns when all are done. Until Finish has
// returned ctx must not be canceled.
func (w Workload) Start(ctx context.Context) *Outcome {
	o := &Outcome{History: NewHistory(), Workload: w}
	slots := make([]slot, w.Sessions)
	var sites []http.Handler
	var pages []Pages
	for i, m := range w.Managers {
		sites = append(sites, newSite(m))
		switch {
		case w.Serve != nil:
			pages = append(pages, w.Serve(i, pagesOf(sites[i])))
		case w.StaleFor > 0:
			pages = append(pages, pagesOf(newSite(m, echosession.ServeStale())))
		}
	}
	var wg sync.WaitGroup
	for i := range w.Clients {
		c := &client{
			Workload: w, Outcome: o, number: i, slots: slots, sites: sites, pages: pages,
			process: w.process(i), manager: w.Managers[w.process(i)],
			random:  rand.New(rand.NewPCG(w.Seed, uint64(i))),
			handles: make(map[int]*echosession.Session[Data]),
		}
		wg.Go(func() {
			for range w.Operations {
				c.act(ctx)
			}
		})
	}
	wg.Wait()
	w.lookAtAll(ctx, o, sites)
	return o
}

// Finish completes the history, for which no fault happens any more: it waits for the
// watches of all sessions that have ended.
func (o *Outcome) Finish(ctx context.Context) {
	o.finishWatches(ctx)
	o.settle(o.Workload.Faultless)
	if o.Workload.StaleOpen {
		o.checkOpens(o.Workload.Grace)
	}
	o.checkPages()
}

// observer is a client that looks at what the others have left.
func (w Workload) observer(o *Outcome) *client {
	return &client{
		Workload: w, Outcome: o, number: w.Clients, manager: w.Managers[0],
		random:  rand.New(rand.NewPCG(w.Seed, uint64(w.Clients))),
		handles: make(map[int]*echosession.Session[Data]),
	}
}

// lookAtAll ends a history: it uses every token and every ticket that there ever was, and looks for
// the sessions of every subject.
func (w Workload) lookAtAll(ctx context.Context, o *Outcome, sites []http.Handler) {
	c := w.observer(o)
	c.sites = sites
	for _, s := range o.all() {
		for _, t := range s.tokens {
			if handle := c.open(ctx, s, t); handle != nil {
				c.check(ctx, s, t, handle)
			}
		}
	}
	c.redeemAll(ctx)
	if !w.Indexed {
		return
	}
	for _, subject := range []string{"alice", "bob"} {
		listed, ok := c.list(ctx, subject)
		n, err := c.manager.Count(ctx, subject)
		// After lost replies, commands may be on the way for a while.
		if ok && err == nil && w.Faultless && n != listed {
			c.wrong("Count of %s is %d, and List finds %d", subject, n, listed)
		}
	}
}

// slot holds one of the sessions that the clients share at a time.
type slot struct {
	mu      sync.Mutex
	session *session
}

func (s *slot) get() *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.session
}

func (s *slot) set(session *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.session = session
}

func (o *Outcome) wrong(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.Errors = append(o.Errors, fmt.Errorf(format, args...))
}

func (o *Outcome) all() []*session {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sessions[:len(o.sessions):len(o.sessions)]
}

// born makes a session that is about to be created.
func (o *Outcome) born() *session {
	s := &session{number: o.Number(), ids: make(map[string]bool)}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sessions = append(o.sessions, s)
	return s
}

func (s *session) add(id string, t token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids[id] = true
	s.tokens = append(s.tokens, t)
}

func (s *session) gone() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
}

// client is one of the users of a history. It does one thing at a time.
type client struct {
	Workload
	*Outcome
	number  int
	slots   []slot
	process int // which of the managers it uses
	manager *echosession.Manager[Data]
	random  *rand.Rand
	handles map[int]*echosession.Session[Data] // by number of the token

	sites    []http.Handler // of all processes
	pages    []Pages
	watching []*watch
}

// act does one thing with one session.
func (c *client) act(ctx context.Context) {
	slot := &c.slots[c.random.IntN(len(c.slots))]
	s := slot.get()
	if s == nil || s.isOver() && c.random.IntN(3) == 0 {
		c.create(ctx, slot)
		return
	}
	if n := c.random.IntN(100); c.Indexed && n < 10 {
		if n < 3 {
			c.revoke(ctx, c.user())
		} else {
			c.list(ctx, c.user())
		}
		return
	}
	if c.Tickets && c.random.IntN(16) == 0 {
		c.redeemOne(ctx)
		return
	}
	t := s.pick(c.random)
	if c.StaleFor > 0 && c.random.IntN(4) == 0 {
		c.page(ctx, s, t)
		return
	}
	handle := c.handles[t.number]
	if handle == nil || c.random.IntN(3) == 0 {
		if handle = c.open(ctx, s, t); handle == nil {
			return
		}
	}
	if c.StaleOpen && c.random.IntN(4) == 0 {
		for range 3 { // the first restarts the lifetime, the second fills the cache
			c.open(ctx, s, t)
		}
		return
	}
	if c.Watches && c.random.IntN(10) == 0 {
		c.watch(ctx, s, t, handle)
		return
	}
	if c.Tickets && c.random.IntN(16) == 0 {
		c.ticket(ctx, s, t, handle)
		return
	}
	switch n := c.random.IntN(100); {
	case n < 35:
		c.update(ctx, s, t, handle)
	case n < 40:
		c.updateOrCreate(ctx, slot, s, t)
	case n < 60:
		c.reload(ctx, s, t, handle)
	case n < 65:
		c.touch(ctx, s, t, handle)
	case n < 70:
		c.check(ctx, s, t, handle)
	case n < 80:
		c.rotate(ctx, s, t, handle)
	case n < 93:
		c.renew(ctx, s, t, handle)
	case n < 97:
		c.destroy(ctx, s, t, handle)
	default:
		c.login(ctx, slot, s, t, handle)
	}
}

func (s *session) isOver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

// pick returns the newest token as a rule.
func (s *session) pick(random *rand.Rand) token {
	s.mu.Lock()
	defer s.mu.Unlock()
	if random.IntN(3) == 0 {
		return s.tokens[random.IntN(len(s.tokens))]
	}
	return s.tokens[len(s.tokens)-1]
}

// outcome says what an error means for an operation. known is false when the
// operation surely had no effect, or when the error is none that it may return.
func (c *client) outcome(in Input, err error) (result Result, known bool) {
	switch {
	case err == nil:
		return Done, true
	case errors.Is(err, echosession.ErrSessionGone):
		return Gone, true
	case errors.Is(err, echosession.ErrRenewed):
		return Renewed, true
	case errors.Is(err, echosession.ErrIndeterminate) && in.Kind != Read && in.Kind != Touch:
		return Unknown, true
	case errors.Is(err, echosession.ErrStoreUnavailable), errors.Is(err, echosession.ErrConflict):
		text := fmt.Sprintf("%v client %d, %s: %s", time.Duration(c.Now()), c.number, describe(in, Output{}), causes(err))
		c.mu.Lock()
		c.Refused = append(c.Refused, text)
		c.mu.Unlock()
		time.Sleep(time.Millisecond) // an outage is not to meet all that is left to do
	default:
		c.wrong("%v: %w", in.Kind, err)
	}
	return 0, false
}

// causes are the texts of an error and of all that it wraps.
func causes(err error) string {
	text := err.Error()
	switch err := err.(type) {
	case interface{ Unwrap() []error }:
		for _, cause := range err.Unwrap() {
			text += " ← " + causes(cause)
		}
	case interface{ Unwrap() error }:
		if cause := err.Unwrap(); cause != nil {
			text += " ← " + causes(cause)
		}
	}
	return text
}

// ended notes an operation with a handle. It returns whether it was done.
func (c *client) ended(call int64, in Input, seen Data, err error) bool {
	result, known := c.outcome(in, err)
	if !known {
		return false
	}
	if result == Renewed || result == Gone && in.Kind != Rotate {
		delete(c.handles, in.Token)
	}
	if result == Gone || result == Renewed {
		seen = Data{}
	} else if seen.Session != 0 && seen.Session != in.Session {
		c.wrong("%v of session %d met the data of session %d", in.Kind, in.Session, seen.Session)
	}
	seen.Session = 0
	c.Add(c.number, call, in, Output{Result: result, Seen: seen})
	return result == Done
}

func (c *client) input(kind Kind, s *session, t token) Input {
	return Input{Kind: kind, Number: c.Number(), Session: s.number, Token: t.number, Login: t.login}
}

// subject is whose session is created: a user's as a rule.
func (c *client) subject() string {
	if c.random.IntN(4) == 0 {
		return ""
	}
	return c.user()
}

// user is one of the two subjects, the first as a rule.
func (c *client) user() string {
	if c.random.IntN(3) == 0 {
		return "bob"
	}
	return "alice"
}

// options are those of a session of a subject.
func options(subject string) (opts []echosession.CreateOption) {
	if subject != "" {
		opts = append(opts, echosession.WithSubject(subject))
	}
	return opts
}

func (c *client) create(ctx context.Context, slot *slot) {
	s, subject := c.born(), c.subject()
	in := Input{Kind: Create, Number: s.number, Session: s.number, Subject: subject}
	call := c.Now()
	handle, err := c.manager.Create(ctx, Data{Session: s.number, Writer: s.number}, options(subject)...)
	if c.ended(call, in, Data{}, err) {
		c.begun(slot, s, subject, handle)
	}
}

// begun notes a session that was created.
func (c *client) begun(slot *slot, s *session, subject string, handle *echosession.Session[Data]) {
	s.add(handle.ID(), token{s.number, handle.Token(), s.number, subject})
	c.handles[s.number] = handle
	slot.set(s)
}

// login creates a session through the handle of another, which ends that one.
func (c *client) login(ctx context.Context, slot *slot, old *session, t token, handle *echosession.Session[Data]) {
	s, subject := c.born(), c.subject()
	leave := c.input(Leave, old, t)
	if subject == "" {
		leave.Kind = Destroy
	}
	in := Input{Kind: Create, Number: s.number, Session: s.number, Subject: subject}
	call := c.Now()
	_, err := handle.Create(ctx, Data{Session: s.number, Writer: s.number}, options(subject)...)
	if c.ended(call, leave, Data{}, err) {
		c.Add(c.number, call, in, Output{})
		delete(c.handles, t.number)
		old.gone()
		c.begun(slot, s, subject, handle)
		return
	}
	s.mu.Lock()
	s.undone = true
	s.mu.Unlock()
	c.Add(c.number, call, in, Output{Result: Unknown})
}

// updateOrCreate is for what a request of a token does: it updates the session that
// it finds, and makes a guest where it finds no session.
func (c *client) updateOrCreate(ctx context.Context, slot *slot, s *session, t token) {
	if c.StaleOpen {
		return // then it is unknown which of the two it does
	}
	handle, err := c.manager.Open(ctx, t.text)
	if err != nil {
		return // it is known from open
	}
	guest := c.born()
	in, create := c.input(Update, s, t), Input{Kind: Create, Number: guest.number, Session: guest.number}
	reason := handle.Reason()
	var seen Data
	call := c.Now()
	err = handle.UpdateOrCreate(ctx, func(d *Data) error {
		seen = *d
		if reason != nil {
			*d = Data{Session: guest.number, Writer: guest.number}
			return nil
		}
		d.Count++
		d.Writer = in.Number
		return nil
	})
	switch {
	case reason == nil:
		c.ended(call, in, seen, err)
	case errors.Is(reason, echosession.ErrRenewed):
		if !errors.Is(err, echosession.ErrConflict) || !errors.Is(err, echosession.ErrRenewed) || handle.Exists() {
			c.wrong("UpdateOrCreate with a renewed token: %w", err)
		}
	default:
		if seen != (Data{}) {
			c.wrong("UpdateOrCreate began a guest's session with %+v", seen)
		}
		if c.ended(call, create, Data{}, err) {
			c.begun(slot, guest, "", handle)
		}
	}
}

func (c *client) open(ctx context.Context, s *session, t token) *echosession.Session[Data] {
	delete(c.handles, t.number)
	in := c.input(Read, s, t)
	call := c.Now()
	handle, err := c.manager.Open(ctx, t.text)
	if err == nil {
		err = handle.Reason()
	}
	if c.StaleOpen {
		c.opened(call, in, dataOf(handle), err)
	} else {
		c.ended(call, in, dataOf(handle), err)
	}
	if err != nil {
		return nil
	}
	c.handles[t.number] = handle
	return handle
}

// opened notes an Open that may have found what was.
func (c *client) opened(call int64, in Input, data Data, err error) {
	if result, known := c.outcome(in, err); known {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.opens = append(c.opens, open{c.process, call, c.Now(), in, Output{Result: result, Seen: data}})
	}
}

// dataOf is the data of a handle, which may be nil.
func dataOf(handle *echosession.Session[Data]) Data {
	if handle == nil {
		return Data{}
	}
	return handle.Data()
}

func (c *client) reload(ctx context.Context, s *session, t token, handle *echosession.Session[Data]) {
	in := c.input(Read, s, t)
	call := c.Now()
	err := handle.Reload(ctx)
	c.ended(call, in, handle.Data(), err)
}

func (c *client) touch(ctx context.Context, s *session, t token, handle *echosession.Session[Data]) {
	in := c.input(Touch, s, t)
	call := c.Now()
	err := handle.Touch(ctx)
	c.ended(call, in, Data{}, err)
}

func (c *client) check(ctx context.Context, s *session, t token, handle *echosession.Session[Data]) {
	in := c.input(Touch, s, t)
	call := c.Now()
	err := handle.Check(ctx)
	c.ended(call, in, Data{}, err)
}

func (c *client) update(ctx context.Context, s *session, t token, handle *echosession.Session[Data]) {
	in := c.input(Update, s, t)
	var seen, left Data
	call := c.Now()
	err := handle.Update(ctx, func(d *Data) error {
		seen = *d
		d.Count++
		d.Writer = in.Number
		left = *d
		return nil
	})
	c.doubts(t, "", err)
	if c.ended(call, in, seen, err) && handle.Data() != left {
		c.wrong("Update stored %+v, and the handle has %+v", left, handle.Data())
	}
}

func (c *client) rotate(ctx context.Context, s *session, t token, handle *echosession.Session[Data]) {
	in := c.input(Rotate, s, t)
	call := c.Now()
	text, err := handle.Rotate(ctx)
	c.doubts(t, "", err)
	if c.ended(call, in, Data{}, err) {
		next := token{in.Number, text, t.login, t.subject}
		s.add(handle.ID(), next)
		delete(c.handles, t.number)
		c.handles[in.Number] = handle
		c.carryOn(handle, t, next, call)
	}
}

// renew is a login: of a guest or of a user, who may be another one then.
func (c *client) renew(ctx context.Context, s *session, t token, handle *echosession.Session[Data]) {
	in := c.input(Renew, s, t)
	in.Subject = t.subject
	var opts []echosession.CreateOption
	if c.random.IntN(3) > 0 {
		in.Subject = c.user()
		opts = options(in.Subject)
	}
	var seen, left Data
	call := c.Now()
	text, err := handle.Renew(ctx, func(d *Data) error {
		seen = *d
		d.Session = s.number
		d.Count++
		d.Writer = in.Number
		left = *d
		return nil
	}, opts...)
	c.doubts(t, "", err)
	result, known := c.outcome(in, err)
	if !known {
		return
	}
	if seen.Session != 0 && seen.Session != s.number {
		c.wrong("Renew of session %d met the data of session %d", s.number, seen.Session)
	}
	seen.Session = 0
	oneStep := c.OneStep || c.Indexed && in.Subject != "" && in.Subject == t.subject
	c.mu.Lock()
	c.renewals = append(c.renewals, renewal{c.number, call, c.Now(), in, Output{Result: result, Seen: seen}, oneStep})
	c.mu.Unlock()
	delete(c.handles, t.number)
	switch result {
	case Renewed, Unknown:
		s.gone() // if it is not, somebody creates another session a little early
	case Done:
		if handle.Data() != left || handle.Subject() != in.Subject {
			c.wrong("Renew stored %+v of %q, and the handle has %+v of %q", left, in.Subject, handle.Data(), handle.Subject())
		}
		s.add(handle.ID(), token{in.Number, text, in.Number, in.Subject})
		c.handles[in.Number] = handle
	}
}

func (c *client) destroy(ctx context.Context, s *session, t token, handle *echosession.Session[Data]) {
	in := c.input(Destroy, s, t)
	call := c.Now()
	err := handle.Destroy(ctx)
	c.doubts(t, "", err)
	if c.ended(call, in, Data{}, err) {
		delete(c.handles, t.number)
		s.gone()
	}
}

// list reads every session of a subject.
func (c *client) list(ctx context.Context, subject string) (n int, ok bool) {
	l := listing{client: c.number, subject: subject, call: c.Now(), found: make(map[string]Data)}
	handles, err := c.manager.List(ctx, subject)
	l.returned = c.Now()
	if _, known := c.outcome(Input{Kind: Read}, err); !known {
		return 0, false
	}
	for _, handle := range handles {
		l.found[handle.ID()] = handle.Data()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listings = append(c.listings, l)
	return len(handles), true
}

// revoke ends every session of a subject.
func (c *client) revoke(ctx context.Context, subject string) {
	r := revoke{client: c.number, subject: subject, call: c.Now()}
	_, err := c.manager.RevokeSubject(ctx, subject)
	c.doubts(token{}, subject, err)
	r.returned = c.Now()
	result, known := c.outcome(Input{Kind: Destroy}, err)
	if !known {
		return
	}
	r.result = result
	c.mu.Lock()
	c.revokes = append(c.revokes, r)
	c.mu.Unlock()
	for _, s := range c.all() {
		s.gone()
	}
}

// settle makes operations on each session of what was done with all of them.
func (o *Outcome) settle(faultless bool) {
	for _, n := range o.renewals {
		o.addRenewal(n, faultless)
	}
	created, found := o.assign()
	for s, began := range created {
		in := Input{Session: s, Token: NoToken}
		for i, l := range o.listings {
			out := Output{Result: Gone}
			if data, ok := found[i][s]; ok {
				out = Output{Result: Done, Seen: data}
			}
			in.Kind, in.Number, in.Subject = Read, o.Number(), l.subject
			if began < l.returned {
				o.add(l.client, l.call, l.returned, in, out)
			}
		}
		for _, r := range o.revokes {
			in.Kind, in.Number, in.Subject = Destroy, o.Number(), r.subject
			// One with an unknown outcome may yet meet whatever is created later.
			if began < r.returned || r.result == Unknown {
				o.add(r.client, r.call, r.returned, in, Output{Result: r.result})
			}
		}
	}
}

// addRenewal adds a Renew in the steps that others can see.
func (o *Outcome) addRenewal(n renewal, faultless bool) {
	if n.oneStep {
		o.add(n.client, n.call, n.returned, n.in, n.out)
		return
	}
	end, begin := n.in, n.in
	end.Kind, begin.Kind = RenewEnd, RenewBegin
	revoked := slices.ContainsFunc(o.revokes, func(r revoke) bool { return r.meets(n) })
	if n.out.Result == Gone && revoked {
		// The session that was about to begin may have been revoked, whether the old one
		// had ended by then or not. Where the reply to its begin was lost, it may even have
		// begun.
		n.out.Result = Unknown
		o.add(n.client, n.call, n.returned, end, n.out)
		if !faultless {
			o.add(n.client, n.call, n.returned, begin, n.out)
		}
		return
	}
	o.add(n.client, n.call, n.returned, end, n.out)
	if n.out.Result == Done || n.out.Result == Unknown {
		o.add(n.client, n.call, n.returned, begin, Output{Result: n.out.Result})
	}
}

// assign returns when the Create of each session began, and what each List found of
// which session. An ID that no client was told belongs to a session that was rotated or
// renewed with an unknown outcome, or else to one that a Create whose reply was lost did
// not hand out: that is a session of its own.
func (o *Outcome) assign() (created map[int]int64, found []map[int]Data) {
	created = make(map[int]int64)
	subjectOf := make(map[int]string)
	rotating := make(map[int]int64) // when the first Rotate with an unknown outcome began
	for _, op := range o.ops {
		switch in := op.Input.(Input); {
		case in.Kind == Create:
			created[in.Session], subjectOf[in.Session] = op.Call, in.Subject
		case in.Kind == Rotate && op.Return == never:
			if began, ok := rotating[in.Session]; !ok || op.Call < began {
				rotating[in.Session] = op.Call
			}
		}
	}
	ids, undone := make(map[string]int), make(map[int]bool)
	for _, s := range o.sessions {
		for id := range s.ids {
			ids[id] = s.number
		}
		undone[s.number] = s.undone
	}
	sessionOf := func(l listing, id string, data Data) int {
		if s, ok := ids[id]; ok {
			return s
		}
		// Nobody can write to a session that was not handed out.
		if began, ok := rotating[data.Session]; data.Count > 0 || ok && began < l.returned {
			return data.Session
		}
		call, ok := created[data.Session]
		if !ok || call > l.returned {
			o.wrong("List found %+v, which nobody had created", data)
		}
		stray := o.Number()
		ids[id], created[stray] = stray, call
		o.add(0, call, never, Input{Kind: Create, Number: data.Session, Session: stray, Subject: subjectOf[data.Session]}, Output{Result: Unknown})
		if undone[data.Session] {
			o.add(0, call, never, Input{Kind: Leave, Number: o.Number(), Session: stray, Token: NoToken, Subject: subjectOf[data.Session]}, Output{Result: Unknown})
		}
		return stray
	}
	found = make([]map[int]Data, len(o.listings))
	for i, l := range o.listings {
		found[i] = make(map[int]Data)
		for id, data := range l.found {
			s := sessionOf(l, id, data)
			if _, twice := found[i][s]; twice {
				o.wrong("List found session %d twice", s)
			}
			data.Session = 0
			found[i][s] = data
		}
	}
	return created, found
}

// checkOpens holds every Open to what a stale read may find: what some operation
// wrote that had begun, nothing only if one had begun that can end the session or take
// the token's power, and the mark of a Renew only if one had begun. What a watch of the
// process was told has ended is not found any more.
func (o *Outcome) checkOpens(grace bool) {
	type version struct{ session, writer, count int }
	written := make(map[version]int64) // when the writer began
	ended := make(map[int]int64)       // when the first operation that can end the session began
	renewed := make(map[int]int64)     // when the first Renew began
	first := func(of map[int]int64, session int, call int64) {
		if began, ok := of[session]; !ok || call < began {
			of[session] = call
		}
	}
	for _, op := range o.ops {
		in, out := op.Input.(Input), op.Output.(Output)
		switch {
		case out.Result == Gone, out.Result == Renewed:
		case in.Kind == Create:
			written[version{in.Session, in.Number, 0}] = op.Call
		case in.Kind == Update || in.Kind.renews():
			written[version{in.Session, in.Number, out.Seen.Count + 1}] = op.Call
			if in.Kind.renews() {
				first(renewed, in.Session, op.Call)
			}
		case in.Kind == Destroy, in.Kind == Leave, in.Kind == Rotate && !grace:
			first(ended, in.Session, op.Call)
		}
	}
	for _, open := range o.opens {
		seen := open.out.Seen
		if open.out.Result == Done && o.wasTold(open.process, open.in.Token, open.call) {
			o.wrong("Open found session %d, whose end a watch of the same process had told", open.in.Session)
		}
		if open.out.Result == Renewed {
			if began, ok := renewed[open.in.Session]; !ok || began > open.returned {
				o.wrong("Open was told that session %d was renewed, and nobody had renewed it", open.in.Session)
			}
			continue
		}
		if open.out.Result == Gone {
			if began, ok := ended[open.in.Session]; !ok || began > open.returned {
				o.wrong("Open did not find session %d, which nobody had ended", open.in.Session)
			}
			continue
		}
		began, ok := written[version{seen.Session, seen.Writer, seen.Count}]
		if seen.Session != open.in.Session || !ok || began > open.returned {
			o.wrong("Open of session %d found %+v, which nobody had written", open.in.Session, seen)
		}
	}
}
