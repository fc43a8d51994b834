package echosession

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"time"
)

// A Session is a handle on a session whose data is a T. The handle always exists;
// [Session.Exists] tells whether a live session stands behind it. It is safe for
// concurrent use and must not be copied. [Get], [Manager.Create], [Manager.Open],
// [Manager.List] and [Manager.All] return sessions.
//
// A Session shows what the store held when this handle last read or wrote it. Other
// requests may have changed it since; [Session.Reload] reads it again.
type Session[T any] struct{ handle handle }

// Exists reports whether a live session stands behind the handle.
func (s *Session[_]) Exists() bool {
	return s.handle.current() != nil
}

// Reason says why there is no live session: an error that matches [ErrNoToken],
// [ErrAmbiguousToken], [ErrInvalidToken], [ErrSessionGone], [ErrRenewed],
// [ErrCorrupt] or [ErrCrossOrigin]. It is nil when there is one.
func (s *Session[_]) Reason() error {
	return s.handle.why()
}

// ID returns the session ID, a UUID, and "" when there is no live session. It is
// not a credential: without the token it opens nothing.
func (s *Session[_]) ID() string {
	if l := s.handle.current(); l != nil {
		return l.ref.ID
	}
	return ""
}

// LogID returns what stands for the session in logs and in events: see [LogID]. It is ""
// when there is no live session.
func (s *Session[_]) LogID() string {
	if l := s.handle.current(); l != nil {
		return LogID(l.ref.ID)
	}
	return ""
}

// Token returns the token that opened the session, or that [Session.Create],
// [Session.Renew] or [Session.Rotate] made. It is "" when there is no live session, and
// for sessions from [Manager.List] and [Manager.All] and for those that a ticket opened.
func (s *Session[_]) Token() string {
	if l := s.handle.current(); l != nil {
		return l.token
	}
	return ""
}

// Claims returns a copy of the token's claims. It is nil when there is no token.
func (s *Session[_]) Claims() Claims {
	if l := s.handle.current(); l != nil && l.tok != nil {
		return Claims(l.tok.Claims())
	}
	return nil
}

// Subject returns whose session it is, see [WithSubject]. It is "" for a session
// without a subject and when there is no live session.
func (s *Session[_]) Subject() string {
	if l := s.handle.current(); l != nil {
		return l.header.subject
	}
	return ""
}

// Data returns a copy of the struct, and the zero T when there is no live session.
// Changing the copy changes nothing in the store: [Session.Update] does.
func (s *Session[T]) Data() T {
	h := &s.handle
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live == nil {
		var zero T
		return zero
	}
	value := s.decoded()
	if !h.engine.serializer.flat {
		h.value = nil // what it points to is the caller's now
	}
	return *value
}

// decoded returns the record's data. The handle is locked and has a live session.
func (s *Session[T]) decoded() *T {
	h := &s.handle
	if h.value == nil {
		value := new(T)
		// The very same bytes were decoded, or encoded, before.
		_, _ = h.engine.serializer.decode(h.live.ref.ID, h.live.record, value)
		h.value = value
	}
	return h.value.(*T)
}

// CreatedAt returns when the session was created, to the millisecond. [Session.Rotate]
// leaves it as it is, and so does [Session.Renew] where it keeps the data. It is the
// zero time when there is no live session.
func (s *Session[_]) CreatedAt() time.Time {
	if l := s.handle.current(); l != nil {
		return l.header.createdAt
	}
	return time.Time{}
}

// AuthenticatedAt returns when somebody last logged in to the session, to the
// millisecond: the last [Session.Create] or [Session.Renew]. [Fresh] and
// [Config.AbsoluteTimeout] count from it. It is the zero time for a guest of
// [Session.UpdateOrCreate] and when there is no live session.
func (s *Session[_]) AuthenticatedAt() time.Time {
	if l := s.handle.current(); l != nil {
		return l.header.authenticatedAt
	}
	return time.Time{}
}

// LastUsedAt returns when the session was last used, true to [Config.TouchInterval]. For
// a session from [Manager.List] or [Manager.All] it is computed from the lifetime that is
// left, so it is the zero time where the absolute timeout or an exp in [WithClaims] ends
// that lifetime, and where [Config.MaxAge] was lowered meanwhile. It is the zero time when
// there is no live session too.
func (s *Session[_]) LastUsedAt() time.Time {
	if l := s.handle.current(); l != nil && !l.usedAt.IsZero() {
		return l.usedAt.Truncate(time.Millisecond).UTC()
	}
	return time.Time{}
}

// Device returns the name that [WithDevice] gave, and "" without one. Clients can make
// it up: escape it like any text of theirs.
func (s *Session[_]) Device() string {
	if l := s.handle.current(); l != nil {
		return l.header.device
	}
	return ""
}

// Actor returns who acts in the subject's place, see [WithActor], and "" when that is
// nobody.
func (s *Session[_]) Actor() string {
	if l := s.handle.current(); l != nil {
		return l.header.actor
	}
	return ""
}

// ExpiresAt returns when the session ends if it is not used again: the earlier of
// the idle and the absolute timeout, as of the last use that this process knows
// of. It is the zero time when there is no live session.
func (s *Session[_]) ExpiresAt() time.Time {
	if l := s.handle.current(); l != nil {
		return l.expiresAt
	}
	return time.Time{}
}

// Stale reports whether the session is a copy that this process has read before, because the
// store is down: see [ServeStale]. Other requests may have changed or ended it since.
//
// Methods that write return [ErrStoreUnavailable] then, without asking the store. [Take]
// takes nothing. [Session.Check], [Session.Watch] and [Session.Reload] do ask the store, and
// after a Reload that succeeded the session is stale no more.
func (s *Session[_]) Stale() bool { return s.handle.isStale() }

// MarshalJSON encodes the data, for c.JSON(http.StatusOK, sess). The result is null
// when there is no live session.
func (s *Session[T]) MarshalJSON() ([]byte, error) {
	s.handle.mu.Lock()
	defer s.handle.mu.Unlock()
	if s.handle.live == nil {
		return []byte("null"), nil
	}
	return json.Marshal(s.decoded())
}

// Create stores a new session and returns its token. A live session behind the handle
// is destroyed: somebody else may know it from before the login, and must not know
// the session after the login (session fixation). [Session.Renew] keeps what is in it.
//
// With [Config.Cookie] it also sets the cookie, if the request's token came in the
// cookie or the request has none. A client whose token came as a bearer token, in
// another header, in the URL or in the body gets the new one as the result alone. The
// same token in the cookie and in a header counts as one in the cookie, and a token
// that is in the URL too counts as one in the URL. [TokenOnly] sets no cookie.
//
// Where it would set the cookie, a cross-origin request with an unsafe method gets
// [ErrCrossOrigin], whether or not a cookie came along, and nothing is stored: no
// other site can log a visitor in (login CSRF). [Config.TrustedOrigins] and
// [CrossOriginVerified] are the exceptions. A GET is not checked: the handler of a
// login's callback checks its state.
//
// Where the session of the request has ended after [Get], or another request has renewed
// it, the browser may have a newer cookie by now: then only a session with a subject, a
// login, takes its place. Without a subject Create returns [ErrSessionGone] or
// [ErrRenewed].
//
// A request with a ticket, see [Session.Ticket], gets [ErrNoSession]. Create also returns
// [ErrCrossOrigin], [ErrReservedClaim], [ErrTooLarge], [ErrTooManySessions] with
// [RefuseNew], [ErrRequestOver] when the handler has returned or, with a cookie, when the
// answer's header has been sent, and [ErrStoreUnavailable] or [ErrIndeterminate].
func (s *Session[T]) Create(ctx context.Context, data T, opts ...CreateOption) (token string, err error) {
	return s.handle.create(ctx, &data, paramsOf(opts))
}

// Renew carries the session through a login or a gain of rights: it moves what is
// stored to a new ID, lets fn change it, and returns the new token. A nil fn changes
// nothing. [Session.AuthenticatedAt] is now. Call it where somebody has just proved who they are:
//
//	_, err := sess.Renew(ctx, func(u *User) error { u.Name = name; return nil },
//		echosession.WithSubject(name))
//
// The token from before is worth nothing from then on, not even for [Config.RotateGrace]:
// whoever knows the session from before the login does not know the session after it
// (session fixation). Requests with that token get [ErrRenewed], and after a minute
// [ErrSessionGone]. As with [Session.Update], no update by another request is lost, and
// fn may run several times: an update that was stored before the Renew is in what fn is
// handed, and a later one gets ErrRenewed.
//
// The new session is of the same subject unless [WithSubject] names another. fn is
// handed the data of a session without a subject, which counts as a guest's whatever made
// it, or of the same subject: so give every login its subject. For another subject fn is handed a zero T, or one user would inherit the rights
// of another; the old session ends nevertheless. [Session.CreatedAt] stays with
// the data. [Session.Device] always stays. From a session of the same subject that was
// authenticated, claims (but exp and nbf), idle timeout, [Remember] and [Session.Actor]
// stay, unless the options say otherwise. [Config.AbsoluteTimeout] starts anew.
//
// Where the request never had a live session, and WithSubject says whose the new one
// is, Renew creates it as [Session.Create] does, from a zero T. Otherwise it returns
// [ErrNoSession] beside the [Session.Reason], and creates nothing: also when the session
// ended after [Get], and after [ErrAmbiguousToken] or [ErrCrossOrigin]. Only with
// [CrossOriginVerified] it creates after ErrCrossOrigin. A request whose token was
// renewed before it arrived never had a live session: a login goes through, for the answer
// to the login before may have been lost.
//
// It sets the cookie where [Session.Rotate] does, and where it creates as Create does.
// When the answer is lost on its way to the client, the session is lost to the client
// with what was in it.
//
// It returns the errors of Create and Update, [ErrRenewed] when another request renewed
// the session first, and [ErrTooManySessions] where [Config.WhenFull] refuses one more
// session of the new subject; then the old session stays. A session from [Manager.List],
// [Manager.All] or a ticket cannot be renewed.
func (s *Session[T]) Renew(ctx context.Context, fn func(*T) error, opts ...CreateOption) (token string, err error) {
	change := func(v any) error {
		if fn == nil {
			return nil
		}
		return fn(v.(*T))
	}
	return s.handle.renew(ctx, paramsOf(opts), func() any { return new(T) }, s.handle.countOwnWrites(change))
}

// UpdateOrCreate is [Session.Update], and where there is no live session it creates one
// for a guest, from what fn makes of a zero T. Where fn leaves the zero T as it is,
// nothing is created. The options are for the new session.
//
// A guest has no [Session.AuthenticatedAt], so [Require] with [Authenticated] or
// [Fresh] lets no guest in. [Session.Renew] makes a user of the guest and keeps the data.
//
// It sets the cookie where [Session.Create] does. It creates nothing, and returns
// [ErrNoSession] beside the [Session.Reason], after [ErrAmbiguousToken],
// [ErrCrossOrigin] and [ErrCorrupt], for a request with a ticket, and when the session ended
// after [Get]. After
// [ErrRenewed] it returns [ErrConflict], answered with 409: the browser has the cookie
// of the login by now, or is about to get it, and a guest's must not take its place.
//
// Two first requests of a browser at once make two sessions, and the later cookie wins:
// what the other request stored is lost to the browser. Where pages post in parallel, make the
// guest when the page is loaded.
//
// With SameSite=Strict a link from another site arrives without the cookie, and a new one
// would take the place of the cookie that the browser holds back: such a request gets
// ErrCrossOrigin, whatever its method. [CrossOriginVerified] has no effect here.
//
// It returns the errors of Update and Create.
func (s *Session[T]) UpdateOrCreate(ctx context.Context, fn func(*T) error, opts ...CreateOption) error {
	for {
		if s.Exists() {
			err := s.Update(ctx, fn)
			if errors.Is(err, ErrRenewed) {
				err = renewedMeanwhile(err)
			}
			return err
		}
		if err := s.handle.mayMakeGuest(); err != nil {
			return err
		}
		value := new(T)
		if err := fn(value); err != nil {
			return err
		}
		if reflect.ValueOf(value).Elem().IsZero() {
			return nil
		}
		if made, err := s.handle.makeGuest(ctx, value, paramsOf(opts)); made || err != nil {
			return err
		}
	}
}

// Update changes what is stored: it hands fn a copy of the data and stores what fn
// made of it. It is atomic: when another request wrote the session meanwhile, fn is
// called again with the data which that request stored. So fn may run several times:
// let it do nothing but change the data, and keep no pointer into the data. When fn
// returns an error, nothing is stored and Update returns that error.
//
// Update restarts the idle timeout. A canceled ctx does not stop it: a client that
// hangs up does not undo a save that has begun.
//
// fn must not update the session itself, through this handle or another one: then the
// outer Update never comes first, and returns [ErrConflict] after some rounds. The same is
// true of the fn of Renew.
//
// It returns [ErrNoSession], [ErrSessionGone], [ErrRenewed], [ErrCorrupt],
// [ErrTooLarge], [ErrConflict], [ErrStoreUnavailable] or [ErrIndeterminate].
func (s *Session[T]) Update(ctx context.Context, fn func(*T) error) error {
	e := s.handle.engine
	return s.handle.change(func(l *live) (*live, any, error) {
		next, err := e.update(ctx, l, s.handle.take(l),
			func() any { return new(T) },
			s.handle.countOwnWrites(func(v any) error { return fn(v.(*T)) }))
		return next, nil, err
	})
}

// Reload reads the session from the store again, and restarts its idle timeout.
//
// It returns [ErrNoSession], [ErrSessionGone], [ErrRenewed], [ErrCorrupt] or
// [ErrStoreUnavailable].
func (s *Session[T]) Reload(ctx context.Context) error {
	return s.handle.reload(func(l *live) (*live, any, error) {
		value := new(T)
		next, err := s.handle.engine.reload(ctx, l, value)
		return next, value, err
	})
}

// Check asks the store whether the session is still live. It restarts no timeout and
// reads no data, so a stream can ask again and again: [Session.Reload] in its place would
// keep the session alive for ever. [Session.ExpiresAt] and [Session.LastUsedAt] are then
// what the store says.
//
// It goes to the primary and to the subject's index, past caches and replicas. It
// returns nil for a live session, and otherwise [ErrNoSession], [ErrSessionGone],
// [ErrRenewed] or [ErrStoreUnavailable].
func (s *Session[_]) Check(ctx context.Context) error {
	return s.handle.check(ctx)
}

// Watch returns a copy of ctx that is canceled when the session ends, in whichever process
// that happens. It is for what goes on after the answer has begun: server-sent events, a
// WebSocket, a long download. Call the returned function when it is over.
//
//	ctx, stop := sess.Watch(c.Request().Context())
//	defer stop()
//	for {
//		select {
//		case <-ctx.Done():
//			return nil
//		case event := <-events:
//			...
//		}
//	}
//
// [context.Cause] of the copy tells why: [ErrSessionGone] when the session was destroyed,
// revoked or evicted, when its idle timeout or its deadline has passed, and when the handle's
// token was rotated away and its grace is over; [ErrRenewed] after a [Session.Renew]; and
// [ErrClosed], which is no logout, after [Manager.Close]. Where the handle has no live
// session the copy is canceled at once, with [ErrNoSession] beside the [Session.Reason].
//
// Watch restarts no timeout. A [Session.Rotate] of this handle carries the watch on to the
// new token.
//
// With Redis and with [NewMemoryStore] the end of a session is told within milliseconds, and
// within some two seconds after a failure of the network or of Redis. A session that nobody
// ended is never said to have ended: not while Redis is down, either. All watches of a
// Manager share one connection (one for each shard of a Ring, and on a Cluster one more for
// each primary), and a watch has no goroutine of its own. Redis is asked twice a second
// whether that connection works, and every 30 seconds about each watched session.
//
// Where ends cannot be heard of, each watched session is asked about every 5 seconds; with
// more than 16,000 sessions, as often as 3,300 questions a second allow. That is so with a
// client that has no method Subscribe, with a Redis user who must not publish or subscribe,
// and with a Store that is no [Watcher]. The log says so once.
func (s *Session[_]) Watch(ctx context.Context) (context.Context, context.CancelFunc) {
	return s.handle.watch(ctx)
}

// Touch restarts the idle timeout. [Get] does this already, see
// [Config.TouchInterval]: call Touch in a request that lasts long.
//
// It returns [ErrNoSession], [ErrSessionGone], [ErrRenewed] or [ErrStoreUnavailable].
func (s *Session[_]) Touch(ctx context.Context) error {
	return s.handle.touch(ctx)
}

// Rotate moves the session to a new ID and returns its new token. It is for hygiene,
// now and then: the rights stay the same. Where a user gains rights, call
// [Session.Renew], which lets the old token gain none of them. Data, CreatedAt,
// AuthenticatedAt and the absolute timeout stay as they are.
// With [Config.Cookie] it also sets the cookie, if the old token came in the cookie:
// a form or a link with somebody else's token must not put that session into the
// browser. For [Config.RotateGrace] the old token still finds the session, to read
// and to write it, but not to rotate it again.
//
// It returns [ErrNoSession], [ErrSessionGone] (also when another request rotated
// the session first), [ErrRenewed], [ErrConflict], [ErrCrossOrigin] and [ErrRequestOver] as
// [Session.Create] does, and [ErrStoreUnavailable] or [ErrIndeterminate].
func (s *Session[_]) Rotate(ctx context.Context) (token string, err error) {
	return s.handle.rotate(ctx)
}

// Destroy ends the session, at once and everywhere. With [Config.Cookie] it also
// clears the cookie, where [Session.Create] would set it. Without a live session it
// does nothing else, and that is not an error. When the session was found to have
// ended after [Get], the cookie stays as it is: the browser may have a newer one.
//
// Where it would clear the cookie, a cross-origin request with an unsafe method gets
// [ErrCrossOrigin], whether or not a cookie came along: browsers hold a SameSite=Lax
// cookie back and would still obey the answer. A GET is not checked, so let no GET
// log out.
//
// A session that another request has renewed is not ended: who knows it from before the
// login must not end it. Destroy then returns [ErrRenewed].
//
// It returns [ErrRequestOver] when the handler has returned, [ErrCrossOrigin], also
// when that is the [Session.Reason], and [ErrStoreUnavailable] or
// [ErrIndeterminate].
func (s *Session[_]) Destroy(ctx context.Context) error {
	return s.handle.destroy(ctx)
}

// Ticket makes a ticket: it does once, within 30 seconds, what the session's token would
// do, for a request that can send no token but in its URL. That is the request of an
// EventSource, a WebSocket or a download link. The token itself would stay in histories
// and logs, and is good for more than one request:
//
//	ticket, err := sess.Ticket(ctx, "/events")
//	// new EventSource("/events?ticket=" + ticket)
//
// The ticket goes into the query, under the name that [Config.TokenLookup] has for it, as
// in "bearer,cookie,ticket:ticket". It has 22 characters, all of which a URL can have. An
// EventSource connects again to the same URL, so the page makes another ticket for that.
//
// The ticket is good for the path alone: as the server sees it, which is
// [net/url.URL.EscapedPath] of the request that [Get] finds. Where a prefix is cut off
// before, as by [net/http.StripPrefix], or a path is rewritten, it is the path after that.
// [AnyPath] is any path. [TicketOrigin] binds the ticket to an origin too.
//
// The first Get of a request spends the ticket, whatever comes of it: on another path, from
// another origin, after the session has ended, by a HEAD or with a reply of the store that
// was lost, which is [ErrStoreUnavailable]. A ticket excludes every other place for a token.
// What has not the form of a ticket counts as absent; where nothing else has a token, the
// [Session.Reason] is [ErrInvalidToken]. A ticket that is spent, too late or for something
// else is ErrInvalidToken too, and with a session that has ended it is [ErrSessionGone] or
// [ErrRenewed]: all are answered alike.
//
// The session that a ticket opens has no [Session.Token] and no [Session.Claims]. It can be
// read, updated, checked, watched, touched and destroyed, which clears no cookie.
// [Session.Create], [Session.Renew], [Session.Rotate], Ticket and a [Session.UpdateOrCreate]
// without a session return [ErrNoSession]. [Config.Import] imports nothing for a ticket.
//
// The ticket of a token that was rotated away ends with that token, after
// [Config.RotateGrace]. Ticket does not ask whether the session is still there, and restarts
// no timeout; the use of the ticket does both.
//
// It returns [ErrNoSession], also for sessions from [Manager.List], [Manager.All] and a
// ticket, [ErrUnsupported] where the store is no [TicketStore], an error for a path or an
// origin that no request has, and [ErrStoreUnavailable] or [ErrIndeterminate].
func (s *Session[_]) Ticket(ctx context.Context, path string, opts ...TicketOption) (string, error) {
	return s.handle.ticket(ctx, path, opts)
}

// Meets returns nil when there is a live session that meets the options of
// [Require], and otherwise the error that Require answers. It is for adapters, and
// for handlers that decide late.
func (s *Session[_]) Meets(opts ...RequireOption) error {
	return s.handle.meets(requirementOf(opts))
}

// Take returns what is in a field of the data and empties the field, atomically: of
// several requests one gets it. It is for flash messages:
//
//	notes, err := echosession.Take(ctx, sess, func(u *User) *[]string { return &u.Notes })
//
// Where the field is empty, as far as this handle knows, it writes nothing. Without a
// live session there is nothing to take, and that is not an error. From a session that is
// [Session.Stale] nothing is taken, and that is not an error either: what is in the field
// stays for a later request. It returns the errors of [Session.Update].
func Take[T, V any](ctx context.Context, s *Session[T], field func(*T) *V) (V, error) {
	var taken, none V
	data := s.Data()
	if !s.Exists() || s.Stale() || isEmpty(field(&data)) {
		return none, nil
	}
	err := s.Update(ctx, func(data *T) error {
		p := field(data)
		taken, *p = *p, none
		return nil
	})
	if err != nil {
		return none, err
	}
	return taken, nil
}

// isEmpty reports whether p points to a zero value, an empty slice or an empty map.
func isEmpty[V any](p *V) bool {
	v := reflect.ValueOf(p).Elem()
	return v.IsZero() || (v.Kind() == reflect.Slice || v.Kind() == reflect.Map) && v.Len() == 0
}
