package linear

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/echosession/echosession"
)

// TicketLookup is where the sites of a Workload with Tickets look for tokens and tickets.
const TicketLookup = "bearer,ticket:ticket"

const (
	livePath  = "/live"
	otherPath = "/other"
)

// ticket is a ticket that somebody may redeem.
type ticket struct {
	number  int
	text    string
	session *session
	token   token
	made    int64
}

// useBefore is the age at which a ticket is left alone: soon it is too old.
const useBefore = 20 * time.Second

// ticket makes a ticket.
func (c *client) ticket(ctx context.Context, s *session, t token, handle *echosession.Session[Data]) {
	path := livePath
	if c.random.IntN(2) == 0 {
		path = echosession.AnyPath
	}
	made := c.Now()
	text, err := handle.Ticket(ctx, path)
	if result, known := c.outcome(Input{Kind: Touch, Session: s.number, Token: t.number}, err); !known || result != Done {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Figures.Tickets++
	c.tickets = append(c.tickets, ticket{number: len(c.tickets) + 1, text: text, session: s, token: t, made: made})
}

// redeemOne redeems one of the last tickets, so that clients meet.
func (c *client) redeemOne(ctx context.Context) {
	c.mu.Lock()
	n := len(c.tickets)
	if n == 0 {
		c.mu.Unlock()
		return
	}
	t := c.tickets[n-1-c.random.IntN(min(n, 3))]
	c.mu.Unlock()
	c.redeem(ctx, t, c.random.IntN(8) == 0)
}

// redeem uses a ticket. Elsewhere, on a path that not all tickets are for, it is worth
// nothing any more, or was used before.
func (c *client) redeem(ctx context.Context, t ticket, elsewhere bool) {
	call := c.Now()
	if time.Duration(call-t.made) > useBefore {
		return
	}
	path := livePath
	if elsewhere {
		path = otherPath
	}
	p := get(ctx, c.sites[c.process], path+"?ticket="+url.QueryEscape(t.text), func(*http.Request) {})
	in := Input{Kind: Redeem, Number: c.Number(), Ticket: t.number}
	read := c.input(Read, t.session, t.token)
	switch {
	case errors.Is(p.Err, echosession.ErrInvalidToken):
		if elsewhere {
			in.Kind = Waste
		}
		c.Add(c.number, call, in, Output{Result: Gone})
		return
	case errors.Is(p.Err, echosession.ErrStoreUnavailable):
		c.Add(c.number, call, in, Output{Result: Unknown})
		return
	case p.Err == nil || errors.Is(p.Err, echosession.ErrSessionGone) || errors.Is(p.Err, echosession.ErrRenewed):
		c.Add(c.number, call, in, Output{})
		c.mu.Lock()
		c.Figures.Redeemed++
		c.mu.Unlock()
	}
	c.ended(call, read, p.Data, p.Err)
}

// redeemAll tries every ticket once more, and again.
func (c *client) redeemAll(ctx context.Context) {
	c.mu.Lock()
	tickets := c.tickets
	c.mu.Unlock()
	for _, t := range tickets {
		for range 2 {
			c.redeem(ctx, t, false)
		}
	}
}
