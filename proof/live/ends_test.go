package live_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

// rotateGrace is short enough to wait for, and long enough to see that it is waited for.
const rotateGrace = time.Second

// pair is two processes, of which the first watches.
type pair struct {
	*testing.T
	watching, ending *process
}

func (f farm) pair(t *testing.T, options ...func(*echosession.Config)) *pair {
	p := &pair{T: t}
	for _, m := range []**process{&p.watching, &p.ending} {
		cfg := f.connect(t)
		cfg.SubjectIndex, cfg.RotateGrace = true, rotateGrace
		cfg.Keyspace += t.Name()
		for _, option := range options {
			option(&cfg)
		}
		*m = newProcess(t, cfg)
	}
	return p
}

func (p *pair) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

// watch creates sessions and watches them, in one process.
func (p *pair) watch(n int, options ...echosession.CreateOption) []*watcher {
	p.Helper()
	return watchMany(p, p.watching, n, options...)
}

// other opens a session in the other process.
func (p *pair) other(w *watcher) *echosession.Session[Data] {
	p.Helper()
	var sess *echosession.Session[Data]
	p.must(insist(func() (err error) { sess, err = p.ending.Open(p.Context(), w.token); return err }))
	if !sess.Exists() {
		p.Fatal(sess.Reason())
	}
	return sess
}

func nothing(*Data) error { return nil }

// kinds are the ways in which sessions end. Each returns the watches that end soon.
var kinds = []struct {
	name   string
	cause  error
	config func(*echosession.Config)
	end    func(p *pair) []*watcher
}{
	{"destroyed", echosession.ErrSessionGone, nil, func(p *pair) []*watcher {
		all := p.watch(5)
		awaitMessages(p, p.watching, p.ending)
		for _, w := range all {
			p.must(p.other(w).Destroy(p.Context()))
		}
		return all
	}},
	{"revoked", echosession.ErrSessionGone, nil, func(p *pair) []*watcher {
		all := p.watch(5, echosession.WithSubject("revoked"))
		awaitMessages(p, p.watching, p.ending)
		if ok, err := p.ending.Revoke(p.Context(), "revoked", all[2].sess.ID()); !ok || err != nil {
			p.Fatal(ok, err)
		}
		for _, i := range []int{0, 1, 3, 4} {
			p.must(all[i].sess.Check(p.Context()))
			all[i].goesOn(p, "another session of the subject")
		}
		return all[2:3]
	}},
	{"10 of a subject", echosession.ErrSessionGone, nil, func(p *pair) []*watcher { return p.revokeSubject(10) }},
	{"300 of a subject", echosession.ErrSessionGone, nil, func(p *pair) []*watcher { return p.revokeSubject(300) }},
	{"evicted", echosession.ErrSessionGone, func(c *echosession.Config) { c.MaxSessions = 3 }, func(p *pair) []*watcher {
		old := p.watch(1, echosession.WithSubject("evicted"))
		awaitMessages(p, p.watching, p.ending)
		for range 3 {
			_, err := p.ending.Create(p.Context(), Data{}, echosession.WithSubject("evicted"))
			p.must(err)
		}
		return old
	}},
	{"renewed", echosession.ErrRenewed, nil, func(p *pair) []*watcher {
		all := append(p.watch(2), p.watch(2, echosession.WithSubject("renewed"))...)
		awaitMessages(p, p.watching, p.ending)
		for _, w := range all {
			_, err := p.other(w).Renew(p.Context(), nothing, echosession.WithSubject("renewed"))
			p.must(err)
		}
		return all
	}},
	{"rotated by another, after the grace", echosession.ErrSessionGone, nil, func(p *pair) []*watcher {
		all := p.watch(3)
		awaitMessages(p, p.watching, p.ending)
		began := time.Now()
		for _, w := range all {
			_, err := p.other(w).Rotate(p.Context())
			p.must(err)
		}
		p.notBefore(all, began.Add(rotateGrace))
		return all
	}},
	{"rotated by another, without a grace", echosession.ErrSessionGone, func(c *echosession.Config) { c.RotateGrace = echosession.NoGrace }, func(p *pair) []*watcher {
		all := p.watch(3)
		awaitMessages(p, p.watching, p.ending)
		for _, w := range all {
			_, err := p.other(w).Rotate(p.Context())
			p.must(err)
		}
		return all
	}},
	{"destroyed by the token after a rotation", echosession.ErrSessionGone, func(c *echosession.Config) { c.RotateGrace = time.Hour }, func(p *pair) []*watcher {
		all := p.watch(3)
		awaitMessages(p, p.watching, p.ending)
		for _, w := range all {
			next := p.other(w)
			_, err := next.Rotate(p.Context())
			p.must(err)
			p.must(next.Destroy(p.Context()))
		}
		return all
	}},
	{"destroyed after its own rotation", echosession.ErrSessionGone, nil, func(p *pair) []*watcher { return p.rotateItself() }},
	{"destroyed after its own rotation without a grace", echosession.ErrSessionGone,
		func(c *echosession.Config) { c.RotateGrace = echosession.NoGrace }, func(p *pair) []*watcher { return p.rotateItself() }},
	{"idle timeout", echosession.ErrSessionGone, func(c *echosession.Config) { c.MaxAge, c.TouchInterval = time.Second, echosession.TouchAlways }, func(p *pair) []*watcher {
		began := time.Now()
		all := p.watch(3)
		for range 3 {
			time.Sleep(400 * time.Millisecond)
			for _, w := range all[:2] {
				p.must(p.other(w).Touch(p.Context()))
			}
		}
		p.notBefore(all[:2], time.Now().Add(600*time.Millisecond))
		p.notBefore(all[2:], began.Add(time.Second-50*time.Millisecond))
		return all
	}},
	{"absolute timeout", echosession.ErrSessionGone, func(c *echosession.Config) { c.AbsoluteTimeout = 2 * time.Second }, func(p *pair) []*watcher {
		all := p.watch(3)
		p.notBefore(all, all[0].sess.ExpiresAt().Add(-50*time.Millisecond))
		return all
	}},
	{"exp", echosession.ErrSessionGone, nil, func(p *pair) []*watcher {
		all := p.watch(3, echosession.WithClaims(echosession.Claims{"exp": time.Now().Add(2 * time.Second).Unix()}))
		p.notBefore(all, all[0].sess.ExpiresAt().Add(-50*time.Millisecond))
		return all
	}},
	{"closed", echosession.ErrClosed, nil, func(p *pair) []*watcher {
		all := p.watch(3)
		p.must(p.watching.Close())
		return all
	}},
}

func (p *pair) revokeSubject(n int) []*watcher {
	p.Helper()
	all := p.watch(n, echosession.WithSubject("many"))
	others := p.watch(3, echosession.WithSubject("few"))
	awaitMessages(p, p.watching, p.ending)
	spared := all[n/2]
	if got, err := p.ending.RevokeSubject(p.Context(), "many", spared.sess.ID()); got != n-1 || err != nil {
		p.Fatal(got, err)
	}
	time.Sleep(200 * time.Millisecond)
	for _, w := range append(others, spared) {
		w.goesOn(p, "a session that was not revoked")
	}
	return append(all[:n/2:n/2], all[n/2+1:]...)
}

// rotateItself rotates watched sessions by their own handles, and then ends them.
func (p *pair) rotateItself() []*watcher {
	p.Helper()
	all := p.watch(3)
	awaitMessages(p, p.watching, p.ending)
	for range 3 {
		for _, w := range all {
			token, err := w.sess.Rotate(p.Context())
			p.must(err)
			w.token = token
		}
		time.Sleep(rotateGrace / 2)
	}
	time.Sleep(rotateGrace)
	for _, w := range all {
		w.goesOn(p, "rotated by its own handle")
		p.must(p.other(w).Destroy(p.Context()))
	}
	return all
}

// notBefore sees that watches go on until a time.
func (p *pair) notBefore(all []*watcher, end time.Time) {
	p.Helper()
	for _, w := range all {
		select {
		case <-w.ctx.Done():
			if early := time.Until(end); early > 0 {
				p.Errorf("canceled %v early: %v", early, context.Cause(w.ctx))
			}
		case <-time.After(time.Until(end)):
		}
	}
}

func TestKindsOfEnd(t *testing.T) {
	server := redistest.Start(t)
	for _, f := range append(farms(t), pipelined(server)) {
		for _, kind := range kinds {
			t.Run(f.name+", "+kind.name, func(t *testing.T) {
				t.Parallel()
				p := f.pair(t, func(c *echosession.Config) {
					if kind.config != nil {
						kind.config(c)
					}
				})
				bystander := p.watch(1, echosession.WithSubject("bystander"), echosession.WithMaxAge(time.Hour))[0]
				for _, w := range kind.end(p) {
					w.ends(p, told, kind.cause)
				}
				if kind.name != "closed" && kind.name != "absolute timeout" {
					bystander.goesOn(p, "another session")
				}
			})
		}
	}
}

// What is no end cancels nothing.
func TestWhatIsNoEnd(t *testing.T) {
	server := redistest.Start(t)
	p := standalone(server).pair(t, func(c *echosession.Config) { c.TouchInterval = echosession.TouchAlways })
	raw := server.Client(t)
	live := append(p.watch(20), p.watch(20, echosession.WithSubject("ann"))...)
	awaitMessages(p, p.watching, p.ending)
	messages := record(t, raw)

	for range 5 {
		for _, w := range live {
			sess := p.other(w)
			p.must(sess.Touch(t.Context()))
			p.must(sess.Check(t.Context()))
			p.must(sess.Reload(t.Context()))
			p.must(sess.Update(t.Context(), func(d *Data) error { d.Number++; return nil }))
			p.must(w.sess.Update(t.Context(), func(d *Data) error { d.Number++; return nil }))
		}
	}
	if said := messages(); len(said) != 0 {
		t.Errorf("reads and writes published %q", said)
	}
	for _, w := range live {
		_, err := w.sess.Rotate(t.Context())
		p.must(err)
		w.token = w.sess.Token()
	}

	// Messages of real ends, again and again, and with the IDs of sessions that live.
	gone := append(p.watch(3), p.watch(3, echosession.WithSubject("ann"))...)
	for _, w := range gone {
		p.must(p.other(w).Destroy(t.Context()))
		w.ends(t, told, echosession.ErrSessionGone)
	}
	said := messages()
	if len(said) < len(gone) {
		t.Fatalf("%d ends were published with %q", len(gone), said)
	}
	before := scripts(t, raw)
	for _, message := range said {
		for range 3 {
			p.must(raw.Publish(t.Context(), message.Channel, message.Payload).Err())
		}
		for _, dead := range gone {
			for _, w := range live {
				if strings.Contains(message.Payload, dead.token) {
					t.Fatal("a message has a token")
				}
				head, _, _ := strings.Cut(message.Payload, ":")
				p.must(raw.Publish(t.Context(), message.Channel, head+":"+w.sess.ID()).Err())
				p.must(raw.Publish(t.Context(), message.Channel, strings.Replace(head, "-", "*", 1)+":").Err())
			}
		}
		for _, garbage := range []string{"", ":", "-", "-:", "*:", "?:", "-:x", strings.Repeat("x", 1<<20), "\x00\xff", "-:" + strings.Repeat(" ", 36)} {
			p.must(raw.Publish(t.Context(), message.Channel, garbage).Err())
		}
	}
	awaitMessages(p, p.watching, p.ending)
	time.Sleep(time.Second)
	if n := scripts(t, raw) - before; n < int64(len(live)) {
		t.Errorf("hints of %d live sessions led to %d checks", len(live), n)
	}
	for _, w := range live {
		w.goesOn(t, "after messages that lie")
	}
}

// record collects what is published. What it returns takes the messages so far, but for those
// with which a process sees that its connection works.
func record(t *testing.T, raw *redis.Client) (take func() []*redis.Message) {
	t.Helper()
	sub := raw.PSubscribe(t.Context(), "*ended")
	t.Cleanup(func() { _ = sub.Close() })
	if _, err := sub.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	heard := sub.Channel(redis.WithChannelSize(100_000))
	return func() (all []*redis.Message) {
		t.Helper()
		time.Sleep(100 * time.Millisecond)
		for {
			select {
			case m := <-heard:
				all = append(all, m)
			default:
				return all
			}
		}
	}
}

// scripts returns how many scripts a server has run.
func scripts(t *testing.T, raw *redis.Client) int64 {
	t.Helper()
	return calls(t, raw, "evalsha", "evalsha_ro")
}

// An ID may be in use again when a message comes that tells of its end.
func TestAnIDInUseAgain(t *testing.T) {
	server := redistest.Start(t)
	p := standalone(server).pair(t, func(c *echosession.Config) { c.SubjectIndex = false })
	raw := server.Client(t)
	messages := record(t, raw)
	all := p.watch(10)
	awaitMessages(p, p.watching, p.ending)
	messages()
	var again []*watcher
	for _, w := range all {
		keys, err := raw.Keys(t.Context(), "*"+w.sess.ID()).Result()
		if err != nil || len(keys) != 1 {
			t.Fatal(keys, err)
		}
		dump, err := raw.Dump(t.Context(), keys[0]).Result()
		p.must(err)
		p.must(p.other(w).Destroy(t.Context()))
		w.ends(t, told, echosession.ErrSessionGone)
		p.must(raw.Restore(t.Context(), keys[0], time.Hour, dump).Err())
		sess, err := p.watching.Open(t.Context(), w.token)
		p.must(err)
		again = append(again, watch(t, sess))
	}
	for _, message := range messages() {
		p.must(raw.Publish(t.Context(), message.Channel, message.Payload).Err())
	}
	time.Sleep(500 * time.Millisecond)
	for _, w := range again {
		w.goesOn(t, "an ID in use again")
		p.must(p.other(w).Destroy(t.Context()))
		w.ends(t, told, echosession.ErrSessionGone)
	}
}

// A Renew whose second step is under way has not begun its session, and a Create whose reply
// was lost tries another ID: no watch of the sessions that come of it is canceled.
func TestWatchBeginsWithTheSession(t *testing.T) {
	server := redistest.Start(t)
	proxy := redistest.NewProxy(t, server.Addr())
	f := standalone(server)
	direct := f.connect
	f.connect = func(t testing.TB) echosession.Config {
		cfg := direct(t)
		cfg.Client = server.Client(t, func(o *redis.Options) { o.Dialer, o.MaxRetries = redistest.Through(proxy), -1 })
		return cfg
	}
	p := f.pair(t)
	awaitMessages(t, p.watching, p.ending)
	var all []*watcher
	created := 0
	for i := range 60 {
		if i%2 == 0 {
			proxy.On(redistest.Named("EVALSHA"), 1, redistest.DropReply())
		} else {
			proxy.On(redistest.Named("EVALSHA"), 1, redistest.DropRequest())
		}
		sess, err := p.watching.Create(t.Context(), Data{i})
		if err != nil && !errors.Is(err, echosession.ErrStoreUnavailable) {
			t.Fatal(err)
		}
		if err != nil {
			continue
		}
		created++
		if _, err = sess.Renew(t.Context(), nothing, echosession.WithSubject("ann")); err == nil {
			all = append(all, watch(t, sess))
		}
	}
	if created < 20 || len(all) < 20 {
		t.Fatalf("%d sessions were created and %d renewed", created, len(all))
	}
	time.Sleep(time.Second)
	for _, w := range all {
		w.goesOn(t, "a session that was created or renewed")
	}
	for _, w := range all {
		p.must(p.other(w).Destroy(t.Context()))
		w.ends(t, told, echosession.ErrSessionGone)
	}
}
