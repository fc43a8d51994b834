package echosession

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// outageProbeEvery is how often the store is asked at most whether it is back. It is real time:
// a test's clock may stand still.
const outageProbeEvery = 100 * time.Millisecond

// outages know which servers of the store cannot be reached, as far as reads have shown.
type outages struct {
	engine *engine
	server func(Ref) string // which server keeps a session
	down   atomic.Int32     // how many servers are down

	mu      sync.Mutex
	servers map[string]*probing // that are down, or suspected
	ctx     context.Context
	cancel  context.CancelFunc
	work    sync.WaitGroup
}

// probing is whether a server is down, and who asks it.
type probing struct {
	down    bool
	running bool
	last    time.Time // when the last probe began
}

// A serverNamer is a store on several servers of which some may be down.
type serverNamer interface {
	// serverOf names the server that keeps the session of ref.
	serverOf(ref Ref) string
}

func (o *outages) begin(e *engine) {
	o.engine, o.servers = e, make(map[string]*probing)
	o.ctx, o.cancel = context.WithCancel(context.Background())
	o.server = func(Ref) string { return "" }
	if n, ok := e.own.(serverNamer); ok {
		o.server = n.serverOf
	}
}

// close ends the probes and starts no more.
func (s *staleCopies) close() {
	if s == nil {
		return
	}
	o := &s.outages
	o.mu.Lock()
	o.cancel()
	clear(o.servers)
	o.down.Store(0)
	o.mu.Unlock()
	o.work.Wait()
}

// heard notes how a read of ref with ctx ended.
func (s *staleCopies) heard(ctx context.Context, ref Ref, err error) {
	if s == nil {
		return
	}
	o := &s.outages
	_, rotated := errors.AsType[*RotatedError](err)
	if answered := err == nil || rotated || isEnd(err); answered {
		if o.down.Load() > 0 {
			o.set(o.server(ref), false)
		}
	} else if ctx.Err() == nil {
		o.set(o.server(ref), true)
	} else {
		// The request had no time left, or the client hung up. A probe has more time.
		o.probe(ref, false)
	}
}

// set notes whether a server is down.
func (o *outages) set(server string, down bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.servers[server]
	switch {
	case p == nil && (!down || o.ctx.Err() != nil), p != nil && p.down == down:
		return
	case p == nil:
		p = new(probing)
		o.servers[server] = p
	}
	p.down = down
	if down {
		o.down.Add(1)
	} else {
		o.down.Add(-1)
		delete(o.servers, server)
	}
}

// anyDown reports whether some server is known to be down.
func (s *staleCopies) anyDown() bool { return s.outages.down.Load() > 0 }

// isDown reports whether the server of ref is known to be down, and has it asked again.
func (s *staleCopies) isDown(ref Ref) bool {
	return s.anyDown() && s.outages.probe(ref, true)
}

// probe asks the server of ref whether it answers, unless somebody does that or has just
// done it. It reports whether the server is known to be down. Where only servers that are
// down are to be asked, it asks no other.
func (o *outages) probe(ref Ref, onlyDown bool) bool {
	server := o.server(ref)
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.servers[server]
	if p == nil && onlyDown || o.ctx.Err() != nil {
		return false
	}
	if p == nil {
		p = new(probing)
		o.servers[server] = p
	}
	if !p.running && now.Sub(p.last) >= outageProbeEvery {
		p.running, p.last = true, now
		o.work.Go(func() { o.ask(server, p, ref) })
	}
	return p.down
}

// ask is a probe.
func (o *outages) ask(server string, p *probing, ref Ref) {
	ctx, cancel := context.WithTimeout(o.ctx, o.engine.cfg.StoreTimeout)
	defer cancel()
	err := recovered(func() error { _, err := o.engine.store.Load(ctx, ref, 0); return err })
	o.mu.Lock()
	p.running = false
	if !p.down && o.servers[server] == p {
		delete(o.servers, server) // it was suspected
	}
	o.mu.Unlock()
	if o.ctx.Err() == nil {
		o.engine.stale.heard(o.ctx, ref, err)
	}
}
