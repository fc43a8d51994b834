package redistest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession/internal/redistest"
)

// proxied returns a proxy in front of the shared server, a client that goes
// through it, one that does not, and a key prefix.
func proxied(t *testing.T) (p *redistest.Proxy, through, direct *redis.Client, prefix string) {
	t.Helper()
	s := redistest.Shared(t)
	p = redistest.NewProxy(t, s.Addr())
	through = redis.NewClient(&redis.Options{Addr: p.Addr(), MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true})
	t.Cleanup(func() { _ = through.Close() })
	prefix = t.Name() + ":"
	direct = s.Client(t)
	t.Cleanup(func() {
		for keys := direct.Scan(context.Background(), 0, prefix+"*", 100).Iterator(); keys.Next(context.Background()); {
			direct.Del(context.Background(), keys.Val())
		}
	})
	return p, through, direct, prefix
}

func TestProxyPassesOn(t *testing.T) {
	ctx := t.Context()

	for _, protocol := range []int{2, 3} {
		t.Run(fmt.Sprintf("every type of reply, RESP%d", protocol), func(t *testing.T) { testEveryReply(t, protocol) })
	}

	t.Run("a pipeline in order", func(t *testing.T) {
		p, c, _, prefix := proxied(t)
		pipe := c.Pipeline()
		for i := range 2000 { // more than the proxy remembers unanswered
			pipe.RPush(ctx, prefix+"list", i)
		}
		pipe.PExpire(ctx, prefix+"list", time.Minute)
		cmds, err := pipe.Exec(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for i, cmd := range cmds[:2000] {
			if n := cmd.(*redis.IntCmd).Val(); n != int64(i+1) {
				t.Fatalf("command %d: length %d", i, n)
			}
		}
		if n := p.Count("RPUSH"); n != 2000 {
			t.Errorf("%d RPUSH counted", n)
		}
	})

	t.Run("pushes and attributes, in order with replies", testPushes)

	for _, protocol := range []int{2, 3} {
		t.Run(fmt.Sprintf("published messages, RESP%d", protocol), func(t *testing.T) { testPublished(t, protocol) })
	}

	t.Run("a server that is down as a connection that ends", func(t *testing.T) {
		s := redistest.Start(t)
		p := redistest.NewProxy(t, s.Addr())
		c := redis.NewClient(&redis.Options{Addr: p.Addr(), MaxRetries: -1, DialerRetries: 1})
		defer c.Close()
		if err := c.Ping(ctx).Err(); err != nil {
			t.Fatal(err)
		}
		s.Kill()
		if err := c.Ping(ctx).Err(); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("err = %v", err)
		}
	})
}

func testEveryReply(t *testing.T, protocol int) {
	ctx := t.Context()
	p, _, _, prefix := proxied(t)
	c := redis.NewClient(&redis.Options{Addr: p.Addr(), Protocol: protocol})
	defer c.Close()
	script := `redis.setresp(3)
		local t = {
			map = {map = {a = 1}}, set = {set = {x = true}}, double = {double = 1.5},
			big = {big_number = '12345678901234567890'}, ['true'] = true, ['false'] = false,
			verbatim = {verbatim_string = {format = 'txt', string = 'v'}},
			array = {1, {2, {}}, 'x'}, status = redis.status_reply('FINE'),
		}
		if ARGV[1] == 'null' then return nil end
		return t[ARGV[1]]`
	direct := redis.NewClient(&redis.Options{Addr: redistest.Shared(t).Addr(), Protocol: protocol})
	defer direct.Close()
	for _, kind := range []string{"map", "set", "double", "big", "true", "false", "verbatim", "array", "status", "null"} {
		want, wantErr := direct.Eval(ctx, script, nil, kind).Result()
		got, err := c.Eval(ctx, script, nil, kind).Result()
		if fmt.Sprint(got, err) != fmt.Sprint(want, wantErr) {
			t.Errorf("%s: %v, %v; directly %v, %v", kind, got, err, want, wantErr)
		}
	}
	big := strings.Repeat("\r\n$1", 1<<18)
	if err := c.Set(ctx, prefix+"big", big, time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Get(ctx, prefix+"big").Result(); got != big || err != nil {
		t.Errorf("%d bytes came back, want %d: %v", len(got), len(big), err)
	}
	if err := c.Do(ctx, "nosuchcommand").Err(); err == nil || !strings.Contains(err.Error(), "unknown command") {
		t.Errorf("an error reply: %v", err)
	}
}

func testPublished(t *testing.T, protocol int) {
	ctx := t.Context()
	p, _, direct, prefix := proxied(t)
	c := redis.NewClient(&redis.Options{Addr: p.Addr(), Protocol: protocol})
	defer c.Close()
	sub := c.Subscribe(ctx, prefix+"a", prefix+"b")
	defer sub.Close()
	for range 2 {
		if _, err := sub.Receive(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for _, channel := range []string{"a", "b"} {
		direct.Publish(ctx, prefix+channel, channel)
		if m, err := sub.ReceiveMessage(ctx); err != nil || m.Payload != channel {
			t.Errorf("message %v, %v", m, err)
		}
	}
	if err := sub.Ping(ctx); err != nil {
		t.Error(err)
	}
	if _, err := sub.Receive(ctx); err != nil {
		t.Errorf("PING of a subscriber: %v", err)
	}
}

func testPushes(t *testing.T) {
	ctx := t.Context()
	p, _, direct, prefix := proxied(t)
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	br := bufio.NewReader(conn)
	expect := func(sent, want string) {
		t.Helper()
		_, _ = io.WriteString(conn, sent)
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		var got []byte
		for !strings.HasSuffix(string(got), want) {
			b, err := br.ReadByte()
			if err != nil {
				t.Fatalf("got %q, want an end %q: %v", got, want, err)
			}
			got = append(got, b)
		}
	}
	key := prefix + "k"
	get := fmt.Sprintf("*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", len(key), key)
	push := fmt.Sprintf(">2\r\n$10\r\ninvalidate\r\n*1\r\n$%d\r\n%s\r\n", len(key), key)
	expect("*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n", "modules\r\n*0\r\n")
	expect("*3\r\n$6\r\nCLIENT\r\n$8\r\nTRACKING\r\n$2\r\nON\r\n", "+OK\r\n")
	expect(get, "_\r\n")
	direct.Set(ctx, key, "v", time.Minute)
	expect("", push) // idle
	expect(get, "$1\r\nv\r\n")

	// An attribute belongs to the reply behind it.
	expect("*3\r\n$5\r\nDEBUG\r\n$8\r\nPROTOCOL\r\n$6\r\nATTRIB\r\n", "Some real reply following the attribute\r\n")
	expect(get, "$1\r\nv\r\n")
}

func TestProxyActions(t *testing.T) {
	ctx := t.Context()
	incr := redistest.Named("INCR")

	// ran tells whether the server ran the command on which an action was used.
	tests := []struct {
		name   string
		action redistest.Action
		is     func(error) bool
		ran    bool
	}{
		{"DropRequest", redistest.DropRequest(), isEOF, false},
		{"DropReply", redistest.DropReply(), isEOF, true},
		{"CutReply in the middle", redistest.CutReply(2), isBroken, true},
		{"CutReply before the last byte", redistest.CutReply(-1), isBroken, true},
		{"CutReply of all", redistest.CutReply(-100), isBroken, true},
		{"Hang", redistest.Hang(), isTimeout, false},
		{"Delay beyond the deadline", redistest.Delay(time.Minute), isTimeout, true},
		{"Reply", redistest.Reply("-READONLY You can't write against a read only replica.\r\n"), redis.IsReadOnlyError, false},
		{"Delay", redistest.Delay(20 * time.Millisecond), isNil, true},
		{"the zero Action", redistest.Action{}, isNil, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, c, direct, prefix := proxied(t)
			rule := p.On(incr, 1, tt.action)
			short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
			defer cancel()
			if err := c.Incr(short, prefix+"n").Err(); !tt.is(err) {
				t.Errorf("err = %v (%T)", err, err)
			}
			want := int64(0)
			if tt.ran {
				want = 1
			}
			if n, _ := direct.Get(ctx, prefix+"n").Int64(); n != want {
				t.Errorf("the server ran it %d times, want %d", n, want)
			}
			if n := rule.Count(); n != 1 {
				t.Errorf("the rule was applied %d times", n)
			}
			// The rule is used up, and the client gets over it.
			if n, err := c.Incr(ctx, prefix+"n").Result(); err != nil || n != want+1 {
				t.Errorf("afterwards: %d, %v", n, err)
			}
			if n := p.Count("INCR"); n != 2 {
				t.Errorf("%d INCR counted, want 2", n)
			}
		})
	}

	t.Run("CutReply delivers the first bytes and resets", func(t *testing.T) {
		for n, want := range map[int]string{0: "", 3: "+PO", -1: "+PONG\r", 100: "+PONG\r\n", -100: ""} {
			p, _, _, _ := proxied(t)
			p.On(redistest.Named("PING"), 1, redistest.CutReply(n))
			conn, err := net.Dial("tcp", p.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, "*1\r\n$4\r\nPING\r\n")
			got, err := io.ReadAll(conn)
			if string(got) != want || !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("CutReply(%d): %q, %v", n, got, err)
			}
		}
	})

	t.Run("CutReply cuts every reply by as much", func(t *testing.T) {
		p, c, _, _ := proxied(t)
		p.On(redistest.Named("ECHO"), -1, redistest.CutReply(-1))
		for _, text := range []string{"a long one", "short", "", "the longest of them"} {
			if err := c.Echo(ctx, text).Err(); !isBroken(err) {
				t.Errorf("ECHO %q: %v", text, err)
			}
		}
	})

	t.Run("Delay holds the reply", func(t *testing.T) {
		p, c, _, prefix := proxied(t)
		p.On(incr, 1, redistest.Delay(50*time.Millisecond))
		begin := time.Now()
		if err := c.Incr(ctx, prefix+"n").Err(); err != nil || time.Since(begin) < 50*time.Millisecond {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
	})
}

func TestProxySwapsReplies(t *testing.T) {
	t.Parallel()
	ctx := t.Context()

	t.Run("each gets the other's", func(t *testing.T) {
		p, c, direct, prefix := proxied(t)
		for _, key := range []string{"a", "b"} {
			direct.Set(ctx, prefix+key, "value of "+key, time.Minute)
		}
		rule := p.On(redistest.Named("GET"), 2, redistest.SwapReply())
		var wg sync.WaitGroup
		for key, other := range map[string]string{"a": "b", "b": "a"} {
			wg.Go(func() {
				if got, err := c.Get(ctx, prefix+key).Result(); err != nil || got != "value of "+other {
					t.Errorf("GET %s = %q, %v", key, got, err)
				}
			})
		}
		wg.Wait()
		if n := rule.Count(); n != 2 {
			t.Errorf("the rule was applied %d times", n)
		}
		if got := c.Get(ctx, prefix+"a").Val(); got != "value of a" {
			t.Errorf("afterwards GET a = %q", got)
		}
	})

	t.Run("a command alone gets its own", func(t *testing.T) {
		if testing.Short() {
			t.Skip("-short: waits for 5 s")
		}
		p, _, direct, prefix := proxied(t)
		direct.Set(ctx, prefix+"a", "mine", time.Minute)
		p.On(redistest.Named("GET"), 1, redistest.SwapReply())
		c := redis.NewClient(&redis.Options{Addr: p.Addr(), ReadTimeout: 10 * time.Second, MaxRetries: -1})
		defer c.Close()
		if got, err := c.Get(ctx, prefix+"a").Result(); got != "mine" || err != nil {
			t.Errorf("GET = %q, %v", got, err)
		}
	})
}

func TestProxyInAPipeline(t *testing.T) {
	ctx := t.Context()
	second := func(cmd []string) bool { return cmd[0] == "INCR" && strings.HasSuffix(cmd[1], "2") }
	readOnly := "-READONLY You can't write against a read only replica.\r\n"

	// errs are of the second and the third command: the first one's reply arrives.
	tests := []struct {
		name   string
		action redistest.Action
		errs   [2]func(error) bool
		ran    [3]bool
	}{
		{"DropRequest", redistest.DropRequest(), [2]func(error) bool{isEOF, isEOF}, [3]bool{true, false, false}},
		{"DropReply", redistest.DropReply(), [2]func(error) bool{isEOF, isEOF}, [3]bool{true, true, true}},
		{"CutReply", redistest.CutReply(1), [2]func(error) bool{isBroken, isBroken}, [3]bool{true, true, true}},
		{"Hang", redistest.Hang(), [2]func(error) bool{isTimeout, isTimeout}, [3]bool{true, false, false}},
		{"Reply", redistest.Reply(readOnly), [2]func(error) bool{redis.IsReadOnlyError, isNil}, [3]bool{true, false, true}},
		{"Delay", redistest.Delay(20 * time.Millisecond), [2]func(error) bool{isNil, isNil}, [3]bool{true, true, true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, c, direct, prefix := proxied(t)
			p.On(second, 1, tt.action)
			short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
			defer cancel()
			pipe := c.Pipeline()
			for i := range 3 {
				pipe.Incr(ctx, fmt.Sprint(prefix, i+1))
			}
			cmds, _ := pipe.Exec(short)
			if n := cmds[0].(*redis.IntCmd).Val(); n != 1 {
				t.Error("the first reply did not arrive")
			}
			for i, cmd := range cmds {
				if i > 0 && !tt.errs[i-1](cmd.Err()) {
					t.Errorf("command %d: err = %v", i+1, cmd.Err())
				}
				key := fmt.Sprint(prefix, i+1)
				if tt.ran[i] {
					waitFor(t, key, func() bool { return direct.Get(ctx, key).Val() == "1" })
				} else if n := direct.Exists(ctx, key).Val(); n != 0 {
					t.Errorf("command %d ran", i+1)
				}
			}
		})
	}
}

func TestProxyRules(t *testing.T) {
	ctx := t.Context()
	fail := func(text string) redistest.Action { return redistest.Reply("-" + text + "\r\n") }

	t.Run("the first that matches and is not used up", func(t *testing.T) {
		p, c, _, _ := proxied(t)
		one := p.On(redistest.Named("PING"), 1, fail("ERR one"))
		two := p.On(redistest.Named("PING", "ECHO"), 2, fail("ERR two"))
		always := p.On(redistest.Named("PING"), -1, fail("ERR always"))
		for _, want := range []string{"ERR one", "ERR two", "ERR two", "ERR always", "ERR always"} {
			if err := c.Ping(ctx).Err(); err == nil || err.Error() != want {
				t.Errorf("err = %v, want %s", err, want)
			}
		}
		for rule, want := range map[*redistest.Rule]int{one: 1, two: 2, always: 2} {
			if n := rule.Count(); n != want {
				t.Errorf("count %d, want %d", n, want)
			}
		}
		always.Remove()
		if err := c.Ping(ctx).Err(); err != nil {
			t.Errorf("after Remove: %v", err)
		}
	})

	t.Run("counts, without what clients send by themselves", func(t *testing.T) {
		p, c, _, prefix := proxied(t)
		if n := p.Count(); n != 0 {
			t.Errorf("%d commands before any", n)
		}
		c.Get(ctx, prefix+"k")
		c.Do(ctx, "get", prefix+"k")
		if p.Count("GET") != 2 || p.Count() != 2 || p.Count("GET", "HELLO") != 3 || p.Count("SET") != 0 {
			t.Errorf("counted %v", p.Commands())
		}
		if got := p.Commands(); fmt.Sprint(got[1]) != "[GET "+prefix+"k]" {
			t.Errorf("commands %v", got)
		}
		p.Reset()
		if n := p.Count() + p.Count("HELLO"); n != 0 {
			t.Errorf("%d commands after Reset", n)
		}
	})

	t.Run("Disconnect ends the connections, Close refuses them", func(t *testing.T) {
		p, c, _, _ := proxied(t)
		conn := c.Conn()
		defer conn.Close()
		if err := conn.Ping(ctx).Err(); err != nil {
			t.Fatal(err)
		}
		p.Disconnect()
		if err := conn.Ping(ctx).Err(); err == nil {
			t.Error("the connection is open after Disconnect")
		}
		if err := c.Ping(ctx).Err(); err != nil {
			t.Errorf("a new connection after Disconnect: %v", err)
		}
		p.Close()
		if err := c.Ping(ctx).Err(); !errors.Is(err, syscall.ECONNREFUSED) && !isEOF(err) {
			t.Errorf("after Close: %v", err)
		}
		if _, err := net.Dial("tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial after Close: %v", err)
		}
	})
}

func TestProxyLeavesNoGoroutine(t *testing.T) {
	redistest.Shared(t)
	before := runtime.NumGoroutine()
	t.Run("use", func(t *testing.T) {
		actions := []redistest.Action{
			{}, redistest.DropRequest(), redistest.DropReply(), redistest.CutReply(1),
			redistest.Hang(), redistest.Delay(time.Hour), redistest.SwapReply(), redistest.Reply("+x\r\n"),
		}
		for _, action := range actions {
			p, _, _, _ := proxied(t)
			p.On(redistest.Named("PING"), -1, action)
			// Raw connections: nobody closes them before the proxy does.
			for range 3 {
				conn, err := net.Dial("tcp", p.Addr())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = conn.Close() })
				_, _ = io.WriteString(conn, strings.Repeat("*1\r\n$4\r\nPING\r\n", 3000))
			}
			waitFor(t, "the commands arrive", func() bool { return p.Count("PING") > 0 })
			p.Close()
		}
	})
	waitFor(t, "all goroutines end", func() bool { return runtime.NumGoroutine() <= before })
}

func isNil(err error) bool { return err == nil }

func isEOF(err error) bool { return errors.Is(err, io.EOF) }

// isBroken is what a client sees of a reset, depending on what it does when.
func isBroken(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || isEOF(err) || errors.Is(err, io.ErrUnexpectedEOF)
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}
