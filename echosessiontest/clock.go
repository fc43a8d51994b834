package echosessiontest

import (
	"sync"
	"time"
)

// A Clock stands still until it is advanced. It begins at the time of [New]. It is
// safe for concurrent use.
type Clock struct {
	moved func() // called after Advance

	mu  sync.Mutex
	now time.Time
}

// Now returns the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the time on by d: the lifetimes of sessions, of tokens and of the
// cookies in a [Browser]. A [echosession.Session.Watch] whose session has expired then is
// canceled at once.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	c.now = c.now.Add(d)
	c.mu.Unlock()
	if c.moved != nil {
		c.moved()
	}
}
