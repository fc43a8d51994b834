package redistest

import (
	"bufio"
	"context"
	"net"
	"slices"
	"sync"
	"testing"
)

// Proxy stands between clients and one server. It passes everything on, replies
// and pushes in the order in which they come, except where a [Rule] says
// otherwise. It understands RESP2 and RESP3; a connection that subscribes is only
// passed on from there. Its methods are safe for concurrent use.
//
// A connection whose server cannot be reached is accepted and closed.
type Proxy struct {
	upstream string
	ln       net.Listener
	wg       sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	conns    map[*conn]struct{}
	rules    []*Rule
	commands [][]string
}

// NewProxy starts a proxy in front of the server at upstream, and closes it when
// tb ends.
func NewProxy(tb testing.TB, upstream string) *Proxy {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("redistest: %v", err)
	}
	p := &Proxy{
		upstream: upstream,
		ln:       ln,
		conns:    make(map[*conn]struct{}),
	}
	p.wg.Go(p.accept)
	tb.Cleanup(p.Close)
	return p
}

// Through returns a dialer for the options of a client: it reaches the servers of
// the proxies through them, and others directly. With it Sentinel and cluster
// clients, who learn addresses from the servers, meet the proxies too.
func Through(proxies ...*Proxy) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		for _, p := range proxies {
			if p.upstream == addr {
				addr = p.Addr()
				break
			}
		}
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}
}

// Addr returns the proxy's host and port.
func (p *Proxy) Addr() string { return p.ln.Addr().String() }

// Close refuses new connections and closes those that are open. It returns when
// nothing of the proxy runs any more.
func (p *Proxy) Close() {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		_ = p.ln.Close()
	}
	p.mu.Unlock()
	p.Disconnect()
	p.wg.Wait()
}

// Disconnect closes every connection that is open now.
func (p *Proxy) Disconnect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.close()
	}
}

// A Rule applies an action to the commands that it matches.
type Rule struct {
	proxy  *Proxy
	match  func(cmd []string) bool
	times  int
	count  int
	action Action
}

// On adds a rule: action is applied to the first commands for which match is
// true, as many as times says, and to all with a negative times. The first
// element of cmd is the name in upper case; match runs under a lock and must not
// call the proxy. Of several rules the one that was added first applies.
func (p *Proxy) On(match func(cmd []string) bool, times int, action Action) *Rule {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := &Rule{proxy: p, match: match, times: times, action: action}
	p.rules = append(p.rules, r)
	return r
}

// Named matches the commands with these names, given in upper case.
func Named(names ...string) func(cmd []string) bool {
	return func(cmd []string) bool { return slices.Contains(names, cmd[0]) }
}

// Count returns how many commands the rule was applied to.
func (r *Rule) Count() int {
	r.proxy.mu.Lock()
	defer r.proxy.mu.Unlock()
	return r.count
}

// Remove takes the rule back. An action that has begun goes on.
func (r *Rule) Remove() {
	r.proxy.mu.Lock()
	defer r.proxy.mu.Unlock()
	r.proxy.rules = slices.DeleteFunc(r.proxy.rules, func(other *Rule) bool { return other == r })
}

// setup names the commands that a client sends by itself, to set up a connection
// and to learn what kind of server it talks to.
var setup = Named("HELLO", "AUTH", "SELECT", "CLIENT", "READONLY", "COMMAND", "CLUSTER", "SENTINEL")

// Commands returns the commands seen, in the order in which they came, without
// those by which clients set up their connections.
func (p *Proxy) Commands() [][]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(p.commands), setup)
}

// Count returns how many commands with one of these names were seen; without a
// name, how many there are in [Proxy.Commands].
func (p *Proxy) Count(names ...string) int {
	if len(names) == 0 {
		return len(p.Commands())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	named, n := Named(names...), 0
	for _, cmd := range p.commands {
		if named(cmd) {
			n++
		}
	}
	return n
}

// Reset forgets the commands seen. The rules stay.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.commands = nil
}

// see notes a command and returns what to do with it.
func (p *Proxy) see(cmd []string) Action {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.commands = append(p.commands, cmd)
	for _, r := range p.rules {
		if r.count != r.times && r.match(cmd) {
			r.count++
			return r.action
		}
	}
	return Action{}
}

func (p *Proxy) accept() {
	for {
		client, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(client.(*net.TCPConn)) })
	}
}

func (p *Proxy) serve(client *net.TCPConn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.upstream)
	if err != nil {
		return
	}
	c := &conn{
		proxy:    p,
		client:   client,
		server:   server.(*net.TCPConn),
		done:     make(chan struct{}),
		requests: make(chan Action, 1024),
		replies:  make(chan []byte),
	}
	defer c.close()

	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.conns[c] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.conns, c)
		p.mu.Unlock()
	}()

	var wg sync.WaitGroup
	wg.Go(c.readRequests)
	wg.Go(c.readReplies)
	c.answer()
	wg.Wait()
}

// conn is a client's connection and the one to the server that belongs to it.
type conn struct {
	proxy    *Proxy
	client   *net.TCPConn
	server   *net.TCPConn
	done     chan struct{}
	once     sync.Once
	requests chan Action // of the commands that are not answered, oldest first
	replies  chan []byte // pushes too
}

func (c *conn) close() {
	c.once.Do(func() {
		close(c.done)
		_ = c.client.Close()
		_ = c.server.Close()
	})
}

// readRequests passes commands on until the client has no more. Then the server
// is told so and still answers what it has: a client that went away does not undo
// what it had sent.
func (c *conn) readRequests() {
	defer close(c.requests)
	defer c.server.CloseWrite()
	br := bufio.NewReader(c.client)
	subscribing := Named("SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "MONITOR")
	subscribed, over := false, false
	for {
		raw, cmd, err := readCommand(br)
		if err != nil {
			return
		}
		action := c.proxy.see(cmd)
		switch {
		case over:
			continue
		case !subscribed && subscribing(cmd):
			subscribed = true
			c.requests <- Action{withhold: true, apply: func(*conn, []byte) fate { return stream }}
		case !subscribed:
			c.requests <- action
			over = action.last
			if action.withhold {
				continue
			}
		}
		if _, err := c.server.Write(raw); err != nil {
			return
		}
	}
}

func (c *conn) readReplies() {
	defer close(c.replies)
	br := bufio.NewReader(c.server)
	for {
		frame, err := readFrame(br)
		if err != nil {
			return
		}
		c.replies <- frame
	}
}

// answer gives the client what is due to it, in order. It returns when both sides
// have ended.
func (c *conn) answer() {
	then := c.match()
	requests, replies := c.requests, c.replies
	for requests != nil || replies != nil {
		select {
		case _, ok := <-requests:
			if !ok {
				requests = nil
			}
		case frame, ok := <-replies:
			switch {
			case ok && then == stream:
				_, _ = c.client.Write(frame)
			case !ok:
				replies = nil
				if then == stream {
					_ = c.client.Close()
				}
			}
		}
	}
}

// match pairs replies with requests and does what the rules say, until an action
// ends the pairing.
func (c *conn) match() fate {
	requests := c.requests
	var pending *Action // passed on, its reply not here yet
	take := func(a Action) fate {
		if a.withhold {
			return a.apply(c, nil)
		}
		pending = &a
		return goOn
	}
	for {
		next := requests
		if pending != nil {
			next = nil
		}
		select {
		case a, ok := <-next:
			if !ok {
				requests = nil
				continue
			}
			if then := take(a); then != goOn {
				return then
			}
		case frame, ok := <-c.replies:
			if !ok {
				return stream
			}
			// A request is noted before it is passed on: the one that belongs to
			// this reply is there, perhaps behind others that need no reply.
			for frame[0] != '>' && pending == nil {
				a, ok := <-c.requests
				if !ok {
					return stream
				}
				if then := take(a); then != goOn {
					if then == stream {
						_, _ = c.client.Write(frame)
					}
					return then
				}
			}
			if frame[0] == '>' || pending.apply == nil {
				_, _ = c.client.Write(frame)
			} else if then := pending.apply(c, frame); then != goOn {
				return then
			}
			if frame[0] != '>' {
				pending = nil
			}
		}
	}
}
