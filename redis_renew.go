package echosession

import (
	"context"
	"errors"
	"strings"
	"time"
)

// Renew of a session whose subject stays is one script, for its keys share a slot.
// Otherwise the keys may be on different servers, and it takes three steps:
//
//  1. A pending value takes the place of to, for a minute. Nothing finds it, but whatever
//     revokes the sessions of its subject deletes it. With [RefuseNew] the limit is
//     checked here.
//  2. A mark takes the place of from, if the record there begins with old. This decides.
//  3. The pending value becomes the record, and sessions beyond the limit give way. If it
//     is not there any more the new session was revoked meanwhile, and stays so.
//
// A mark that names to is proof that step 2 was made, and any other value under from that
// it was not: so a reply that was lost does no harm as long as the mark lives. When the
// steps break off after the second one, both sessions are gone. That is so too when the
// second one gives [ErrNotReplicated]: a failover can then bring from back, and there is
// never a second session beside it.
func (r *redisStore) Renew(ctx context.Context, from, to Ref, old, record []byte, ttl time.Duration, limit Limit) (evicted []string, err error) {
	if err := checkRenew(from, to, old, ttl); err != nil {
		return nil, err
	}
	defer r.recent.writing(r.key(to))()
	args := []any{from.ID, old, markValue.start(from.ID, to.ID), renewedFor.Milliseconds(), r.channel}
	if from.Subject == to.Subject && from.Subject != "" {
		args = append(args, to.ID, record, ttl.Milliseconds())
		reply, lost, err := renewScript.verdict(ctx, r, append(r.keys(from), r.key(to)), args...)
		switch {
		case err != nil:
			return nil, err
		case reply == "ok":
			return nil, nil
		case reply == "gone" && lost:
			return nil, indeterminate(errLostReply) // the mark may have gone too
		}
		return nil, verdictError(reply)
	}

	p := &pendingRenewal{r: r, to: to, pending: pendingValue.start(to.ID, from.ID)}
	if err := p.prepare(ctx, from, limit); err != nil {
		return nil, err
	}
	reply, _, err := renewScript.verdict(ctx, r, r.keys(from), args...)
	switch {
	case errors.Is(err, ErrIndeterminate):
		return nil, err
	case err != nil:
		_, _ = p.withdraw(ctx) // best effort: nobody finds it, and it expires
		return nil, err
	case reply != "ok":
		return nil, p.giveUp(ctx, verdictError(reply))
	}
	return p.complete(ctx, record, ttl, limit)
}

// A pendingRenewal is a Renew that takes three steps.
type pendingRenewal struct {
	r       *redisStore
	to      Ref
	pending string // the value of its key, without the end
}

// prepare is the first step.
func (p *pendingRenewal) prepare(ctx context.Context, from Ref, limit Limit) error {
	refuse := 0
	if limit.WhenFull == RefuseNew {
		refuse = limit.Sessions
	}
	reply := again
	for reply == again {
		var err error
		reply, _, err = prepareScript.verdict(ctx, p.r, p.r.keys(p.to), p.pending, renewedFor.Milliseconds(), p.to.ID, refuse, p.r.bounds.makeRoom)
		if errors.Is(err, ErrIndeterminate) {
			_, _ = p.withdraw(ctx)
			// from is unchanged, whether the pending value is stored or not.
			return unavailable(namedError{error: errors.New("the new session could not be prepared"), name: causeOf(err)})
		}
		if err != nil {
			return err
		}
	}
	switch reply {
	case "ok":
		return nil
	case "full":
		// Another Renew of the same session may have taken the last place.
		if _, err := p.r.Check(ctx, from); isEnd(err) {
			return err
		}
	}
	return verdictError(reply)
}

// complete is the third step.
func (p *pendingRenewal) complete(ctx context.Context, record []byte, ttl time.Duration, limit Limit) (evicted []string, err error) {
	evict := 0
	if limit.WhenFull == EvictOldest {
		evict = limit.Sessions
	}
	reply, lost, err := completeScript.verdict(ctx, p.r, p.r.keys(p.to), ttl.Milliseconds(), p.to.ID, record, evict, p.r.bounds.makeRoom, p.r.channel)
	if err != nil {
		return nil, indeterminate(err)
	}
	gone, ok := strings.CutPrefix(reply, "ok")
	if !ok {
		return nil, verdictError(reply)
	}
	if lost {
		// Nobody knows who gave way.
		p.r.recent.add(everyKey)
	}
	return p.r.evicted(p.to.Subject, gone), nil
}

// giveUp ends a Renew that the second step has refused. Where to was revoked meanwhile,
// nobody may try again.
func (p *pendingRenewal) giveUp(ctx context.Context, refused error) error {
	there, err := p.withdraw(ctx)
	switch {
	case !errors.Is(refused, ErrConflict):
		return refused
	case err != nil:
		return unavailable(namedError{error: errors.New("the pending session could not be withdrawn"), name: causeOf(err)})
	case !there:
		return ErrNotFound
	}
	return refused
}

// withdraw deletes the pending value, and reports whether it was there. It does so for a
// caller that went away too, or with RefuseNew the value would take a place for a minute.
func (p *pendingRenewal) withdraw(ctx context.Context) (there bool, err error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(time.Second)
	}
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	defer cancel()
	reply, lost, err := withdrawScript.verdict(ctx, p.r, p.r.keys(p.to), p.pending, p.to.ID)
	if err == nil && reply != "ok" && lost {
		err = indeterminate(errLostReply)
	}
	return reply == "ok", err
}
