package echosession_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/echosession/echosession"
)

// A tellingStore tells of the ends that a test has it tell of, and of no other.
type tellingStore struct {
	echosession.Store

	mu       sync.Mutex
	tells    []func(echosession.Hint)
	watching int // calls of Watch under way
	watched  int // calls of Watch
	checks   map[string]int

	// Instead of the memory store and of waiting, unless nil.
	check func(ctx context.Context, ref echosession.Ref) (time.Duration, error)
	watch func(ctx context.Context, tell func(echosession.Hint)) error
}

func (s *tellingStore) Watch(ctx context.Context, tell func(echosession.Hint)) error {
	s.mu.Lock()
	s.watching++
	s.watched++
	s.tells = append(s.tells, tell)
	watch := s.watch
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.watching--
		if s.watching == 0 {
			s.tells = nil
		}
	}()
	if watch != nil {
		return watch(ctx, tell)
	}
	tell(echosession.Hint{All: true})
	<-ctx.Done()
	return ctx.Err()
}

// underWay returns how many calls of Watch are under way.
func (s *tellingStore) underWay() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watching
}

// begun returns how many calls of Watch there were.
func (s *tellingStore) begun() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watched
}

func (s *tellingStore) Check(ctx context.Context, ref echosession.Ref) (time.Duration, error) {
	s.mu.Lock()
	s.checks[ref.ID]++
	check := s.check
	s.mu.Unlock()
	if check != nil {
		return check(ctx, ref)
	}
	return s.Store.Check(ctx, ref)
}

// checking has Check call fn from now on.
func (s *tellingStore) checking(fn func(context.Context, echosession.Ref) (time.Duration, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.check = fn
}

// hint tells of the ends of sessions, true or not.
func (s *tellingStore) hint(h echosession.Hint) {
	s.mu.Lock()
	tells := slices.Clone(s.tells)
	s.mu.Unlock()
	for _, tell := range tells {
		tell(h)
	}
}

// count returns how often Check was called with an ID, or with any.
func (s *tellingStore) count(id string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for other, checks := range s.checks {
		if id == "" || other == id {
			n += checks
		}
	}
	return n
}

// bubble is a Manager, and clocks that wait for nobody.
type bubble struct {
	*testing.T
	store *tellingStore
	log   *logBuffer
	m     *echosession.Manager[User]
	idle  int // goroutines before there is a watch
}

// inBubble runs a test over a store of its own. Nothing may be left of it that runs.
func inBubble(t *testing.T, test func(b *bubble), options ...func(*echosession.Config)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{T: t, log: new(logBuffer), store: &tellingStore{Store: echosession.NewMemoryStore(), checks: make(map[string]int)}}
		cfg := echosession.Config{Store: b.store, Secret: testSecret, SubjectIndex: true, Logger: b.log.logger()}
		for _, option := range options {
			option(&cfg)
		}
		b.m = newManager[User](t, cfg)
		b.idle = b.goroutines()
		defer b.m.Close()
		test(b)
	})
}

func (b *bubble) create(options ...echosession.CreateOption) *echosession.Session[User] {
	b.Helper()
	sess, err := b.m.Create(b.Context(), User{Name: "Ann"}, options...)
	b.must(err)
	return sess
}

func (b *bubble) open(token string) *echosession.Session[User] {
	b.Helper()
	sess, err := b.m.Open(b.Context(), token)
	if err != nil || !sess.Exists() {
		b.Fatal(err, sess.Reason())
	}
	return sess
}

func (b *bubble) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// watch begins a watch that ends with the test, and lets all happen that takes no time.
func (b *bubble) watch(sess *echosession.Session[User]) context.Context {
	ctx, stop := sess.Watch(b.Context())
	b.Cleanup(stop)
	synctest.Wait()
	return ctx
}

// goesOn sees that nothing has canceled a context.
func (b *bubble) goesOn(ctx context.Context, when string) {
	b.Helper()
	synctest.Wait()
	if ctx.Err() != nil {
		b.Fatalf("%s: canceled: %v", when, context.Cause(ctx))
	}
}

// ends sees that a context is canceled within a time, and why.
func (b *bubble) ends(ctx context.Context, within time.Duration, cause error) time.Duration {
	b.Helper()
	synctest.Wait()
	began := time.Now()
	select {
	case <-ctx.Done():
	case <-time.After(within):
	}
	synctest.Wait()
	if !errors.Is(context.Cause(ctx), cause) {
		b.Fatalf("the cause is %v after %v, want %v", context.Cause(ctx), time.Since(began), cause)
	}
	return time.Since(began)
}

var bubbleOf = regexp.MustCompile(`(?m)^goroutine .*(synctest bubble \d+)`)

// goroutines returns how many goroutines there are in this bubble.
func (b *bubble) goroutines() int {
	synctest.Wait()
	stacks := make([]byte, 8<<20)
	all := bubbleOf.FindAllStringSubmatch(string(stacks[:runtime.Stack(stacks, true)]), -1)
	if len(all) == 0 {
		b.Fatal("the stacks name no bubble")
	}
	n := 0
	for _, one := range all {
		if one[1] == all[0][1] { // the first one is this goroutine's
			n++
		}
	}
	return n
}

func ids(sessions ...*echosession.Session[User]) (hint echosession.Hint) {
	for _, sess := range sessions {
		hint.IDs = append(hint.IDs, sess.ID())
	}
	return hint
}

func TestWatchIsToldOfEveryKindOfEnd(t *testing.T) {
	for name, test := range map[string]struct {
		end   func(b *bubble, token string)
		cause error
	}{
		"destroyed": {func(b *bubble, token string) {
			b.must(b.open(token).Destroy(b.Context()))
		}, echosession.ErrSessionGone},
		"revoked": {func(b *bubble, token string) {
			if ok, err := b.m.Revoke(b.Context(), "ann", b.open(token).ID()); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}, echosession.ErrSessionGone},
		"all of the subject revoked": {func(b *bubble, token string) {
			if n, err := b.m.RevokeSubject(b.Context(), "ann"); n != 1 || err != nil {
				b.Fatal(n, err)
			}
		}, echosession.ErrSessionGone},
		"evicted": {func(b *bubble, token string) {
			for range 3 {
				b.create(echosession.WithSubject("ann"))
			}
		}, echosession.ErrSessionGone},
		"renewed": {func(b *bubble, token string) {
			_, err := b.open(token).Renew(b.Context(), func(*User) error { return nil })
			b.must(err)
		}, echosession.ErrRenewed},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bubble) {
				sess, other := b.create(echosession.WithSubject("ann")), b.create(echosession.WithSubject("bob"))
				ctx, otherCtx := b.watch(sess), b.watch(other)
				time.Sleep(time.Second)
				test.end(b, sess.Token())
				b.goesOn(ctx, "before the hint")
				b.store.hint(echosession.Hint{IDs: []string{sess.ID(), other.ID()}})
				b.ends(ctx, 0, test.cause)
				b.goesOn(otherCtx, "another session")
			}, func(c *echosession.Config) { c.MaxSessions = 3 })
		})
	}
}

func TestWatchIsToldWhenTheTimeIsOver(t *testing.T) {
	const life = 10 * time.Minute
	exp := func(time.Time) echosession.CreateOption {
		return echosession.WithClaims(echosession.Claims{"exp": time.Now().Add(life).Unix()})
	}
	for name, test := range map[string]struct {
		config  func(*echosession.Config)
		options func(time.Time) echosession.CreateOption
		used    bool // a use prolongs it
	}{
		"idle timeout":                {config: func(c *echosession.Config) { c.MaxAge = life }, used: true},
		"idle timeout of its own":     {options: func(time.Time) echosession.CreateOption { return echosession.WithMaxAge(life) }, used: true},
		"absolute timeout":            {config: func(c *echosession.Config) { c.AbsoluteTimeout = life }},
		"exp":                         {options: exp},
		"idle timeout, store of ours": {config: func(c *echosession.Config) { c.MaxAge, c.Store = life, unwatched{c.Store} }, used: true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bubble) {
				var options []echosession.CreateOption
				if test.options != nil {
					options = append(options, test.options(time.Now()))
				}
				sess := b.create(options...)
				ctx := b.watch(sess)
				left := life
				if time.Sleep(life / 2); test.used {
					b.must(b.open(sess.Token()).Touch(b.Context()))
				} else {
					b.must(b.open(sess.Token()).Touch(b.Context()))
					left -= life / 2
				}
				time.Sleep(left - time.Second)
				b.goesOn(ctx, "a second before")
				if late := b.ends(ctx, 2*time.Second, echosession.ErrSessionGone); late > 1020*time.Millisecond {
					b.Errorf("it took %v longer than the session", late-time.Second)
				}
			}, func(c *echosession.Config) {
				if test.config != nil {
					test.config(c)
				}
			})
		})
	}
}

// unwatched hides that a store is a Watcher.
type unwatched struct{ echosession.Store }

func TestWatchSweepFindsWhatNoMessageToldOf(t *testing.T) {
	for name, test := range map[string]struct {
		config   func(*echosession.Config)
		sessions int
		within   time.Duration
		cost     int // checks of each session in five minutes, at most
	}{
		"a few, with messages": {nil, 10, 30 * time.Second, 12},
		"2,500, with messages": {nil, 2500, 31 * time.Second, 12},
		"polling":              {func(c *echosession.Config) { c.Store = unwatched{c.Store} }, 2500, 6 * time.Second, 62},
		"a store that never hears": {func(c *echosession.Config) {
			c.Store.(*tellingStore).watch = func(ctx context.Context, _ func(echosession.Hint)) error { <-ctx.Done(); return nil }
		}, 10, 5 * time.Second, 62},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bubble) {
				var live, gone []context.Context
				var ended []*echosession.Session[User]
				for i := range test.sessions {
					sess := b.create()
					if i%2 == 0 {
						live = append(live, b.watch(sess))
					} else {
						gone, ended = append(gone, b.watch(sess)), append(ended, sess)
					}
				}
				time.Sleep(time.Minute)
				for _, sess := range ended {
					b.must(sess.Destroy(b.Context()))
				}
				deadline := time.Now().Add(test.within)
				for _, ctx := range gone {
					b.ends(ctx, time.Until(deadline), echosession.ErrSessionGone)
				}
				before := b.store.count("")
				time.Sleep(5 * time.Minute)
				for _, ctx := range live {
					b.goesOn(ctx, "a session that lives")
				}
				if n := b.store.count("") - before; n > test.cost*len(live) || n < len(live) {
					b.Errorf("%d sessions were checked %d times in five minutes", len(live), n)
				}
			}, func(c *echosession.Config) {
				if test.config != nil {
					test.config(c)
				}
			})
		})
	}
}

func TestWatchTakesAHintForNoMore(t *testing.T) {
	inBubble(t, func(b *bubble) {
		sess := b.create(echosession.WithSubject("ann"))
		ctx := b.watch(sess)
		for name, hint := range map[string]echosession.Hint{
			"of a live session": ids(sess),
			"repeated":          ids(sess, sess, sess),
			"of all":            {All: true},
			"of a subject":      {Match: func(ref echosession.Ref) bool { return ref.Subject == "ann" }},
			"of everything":     {All: true, IDs: []string{sess.ID()}, Match: func(echosession.Ref) bool { return true }},
		} {
			before := b.store.count(sess.ID())
			b.store.hint(hint)
			b.goesOn(ctx, name)
			if b.store.count(sess.ID()) == before {
				b.Errorf("%s: nothing was checked", name)
			}
		}
		before := b.store.count("")
		for name, hint := range map[string]echosession.Hint{
			"of another session": {IDs: []string{newID()}},
			"of garbage":         {IDs: []string{"", "\x00\xff", strings.Repeat("x", 1<<20)}},
			"of nothing":         {},
			"of another subject": {Match: func(ref echosession.Ref) bool { return ref.Subject == "bob" }},
		} {
			b.store.hint(hint)
			b.goesOn(ctx, name)
		}
		if n := b.store.count("") - before; n != 0 {
			b.Errorf("hints of what nobody watches led to %d checks", n)
		}
	})
}

// held makes the next check of an ID read what there is, and keep that until release.
func (b *bubble) held(id string, read func(context.Context, echosession.Ref) (time.Duration, error)) (holds <-chan struct{}, release func()) {
	reached, free := make(chan struct{}), make(chan struct{})
	var held atomic.Bool
	b.store.checking(func(ctx context.Context, ref echosession.Ref) (left time.Duration, err error) {
		left, err = b.store.Store.Check(ctx, ref)
		if ref.ID == id && held.CompareAndSwap(false, true) {
			if read != nil {
				left, err = read(ctx, ref)
			}
			close(reached)
			<-free
		}
		return left, err
	})
	return reached, func() { close(free) }
}

func TestWatchChecksAgainWhatWasHintedDuringACheck(t *testing.T) {
	inBubble(t, func(b *bubble) {
		sess := b.create()
		ctx := b.watch(sess)
		holds, release := b.held(sess.ID(), nil)
		b.store.hint(ids(sess))
		<-holds
		b.must(b.open(sess.Token()).Destroy(b.Context()))
		b.store.hint(ids(sess))
		synctest.Wait()
		release() // it has read that the session lives
		b.ends(ctx, 0, echosession.ErrSessionGone)
	})
}

func TestWatchIsNotEndedByAnOlderCheck(t *testing.T) {
	inBubble(t, func(b *bubble) {
		sess := b.create()
		before := b.watch(sess)
		holds, release := b.held(sess.ID(), func(context.Context, echosession.Ref) (time.Duration, error) {
			return 0, echosession.ErrNotFound // and then the ID is in use again
		})
		b.store.hint(ids(sess))
		<-holds
		after := b.watch(b.open(sess.Token()))
		release()
		b.ends(before, 0, echosession.ErrSessionGone)
		b.goesOn(after, "the watch that began after the check")
		time.Sleep(time.Minute)
		b.goesOn(after, "a sweep later")
	})
}

func TestWatchIsNotEndedByErrors(t *testing.T) {
	for name, fail := range map[string]func(context.Context) error{
		"unavailable":         func(context.Context) error { return echosession.ErrStoreUnavailable },
		"conflict":            func(context.Context) error { return echosession.ErrConflict },
		"corrupt":             func(context.Context) error { return echosession.ErrCorrupt },
		"an error of its own": func(context.Context) error { return errors.New("no") },
		"no answer":           func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"a panic":             func(context.Context) error { panic("the store panics") },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bubble) {
				live, gone := b.create(), b.create()
				liveCtx, goneCtx := b.watch(live), b.watch(gone)
				b.store.checking(func(ctx context.Context, ref echosession.Ref) (time.Duration, error) { return 0, fail(ctx) })
				b.store.hint(ids(live))
				time.Sleep(time.Minute)
				hint := ids(live, gone)
				b.must(gone.Destroy(b.Context()))
				b.store.hint(hint)
				time.Sleep(time.Minute)
				b.goesOn(liveCtx, "a live session")
				b.goesOn(goneCtx, "nobody can know that it has ended")
				if name != "conflict" && !strings.Contains(b.log.String(), "session store unavailable") {
					b.Errorf("the log says %q", b.log)
				}
				b.store.checking(nil)
				b.ends(goneCtx, 1100*time.Millisecond, echosession.ErrSessionGone)
				time.Sleep(time.Minute)
				b.goesOn(liveCtx, "afterwards")
			})
		})
	}
}

// One record that no check can read keeps no other session from being checked.
func TestWatchChecksTheRestOfABatch(t *testing.T) {
	inBubble(t, func(b *bubble) {
		var sessions []*echosession.Session[User]
		var contexts []context.Context
		for range 1000 {
			sessions = append(sessions, b.create())
			contexts = append(contexts, b.watch(sessions[len(sessions)-1]))
		}
		bad := sessions[600].ID()
		time.Sleep(time.Second)
		b.store.checking(func(ctx context.Context, ref echosession.Ref) (time.Duration, error) {
			time.Sleep(2 * time.Millisecond) // the batch takes twice the time of a call
			if ref.ID == bad {
				return 0, errors.New("wrong type")
			}
			return b.store.Store.Check(ctx, ref)
		})
		hint := ids(sessions...)
		for _, sess := range sessions {
			b.must(sess.Destroy(b.Context()))
		}
		began := time.Now()
		b.store.hint(hint)
		for i, ctx := range contexts {
			if i != 600 {
				b.ends(ctx, 10*time.Second, echosession.ErrSessionGone)
			}
		}
		if took := time.Since(began); took > 2500*time.Millisecond {
			b.Errorf("it took %v", took)
		}
		b.goesOn(contexts[600], "the one that cannot be read")
	})
}

// While the store does not answer, the successors of a batch are no reason to wait for
// each of them.
func TestWatchWaitsForNoSuccessor(t *testing.T) {
	inBubble(t, func(b *bubble) {
		hint := echosession.Hint{}
		rotated := make(map[string]bool)
		for range 200 {
			sess := b.create()
			b.watch(b.open(sess.Token()))
			rotated[sess.ID()] = true
			hint.IDs = append(hint.IDs, sess.ID())
			_, err := sess.Rotate(b.Context())
			b.must(err)
		}
		gone := b.create()
		ctx := b.watch(gone)
		hint.IDs = append(hint.IDs, gone.ID())
		b.must(gone.Destroy(b.Context()))
		b.store.checking(func(ctx context.Context, ref echosession.Ref) (time.Duration, error) {
			if rotated[ref.ID] || ref.ID == hint.IDs[200] {
				return b.store.Store.Check(ctx, ref)
			}
			<-ctx.Done()
			return 0, ctx.Err()
		})
		b.store.hint(hint)
		b.ends(ctx, 3*time.Second, echosession.ErrSessionGone)
	}, func(c *echosession.Config) { c.RotateGrace = time.Hour })
}

func TestWatchOfARotatedToken(t *testing.T) {
	const grace = 20 * time.Second
	withGrace := func(c *echosession.Config) { c.RotateGrace = grace }
	rotated := func(b *bubble) (old, next *echosession.Session[User], ctx context.Context) {
		old = b.create()
		ctx = b.watch(old)
		next = b.open(old.Token())
		_, err := next.Rotate(b.Context())
		b.must(err)
		return old, next, ctx
	}
	t.Run("ends with the grace", func(t *testing.T) {
		inBubble(t, func(b *bubble) {
			old, _, ctx := rotated(b)
			b.store.hint(ids(old))
			time.Sleep(grace - time.Second)
			b.goesOn(ctx, "in the grace")
			b.ends(ctx, 1010*time.Millisecond, echosession.ErrSessionGone)
		}, withGrace)
	})
	t.Run("ends with the grace, though the store does not know when", func(t *testing.T) {
		inBubble(t, func(b *bubble) {
			b.store.checking(func(ctx context.Context, ref echosession.Ref) (time.Duration, error) {
				left, err := b.store.Store.Check(ctx, ref)
				if rotated, ok := errors.AsType[*echosession.RotatedError](err); ok {
					err = &echosession.RotatedError{To: rotated.To}
				}
				return left, err
			})
			old, _, ctx := rotated(b)
			b.store.hint(ids(old))
			time.Sleep(grace - time.Second)
			b.goesOn(ctx, "in the grace")
			b.ends(ctx, 2100*time.Millisecond, echosession.ErrSessionGone)
		}, withGrace)
	})
	t.Run("ends with its successor", func(t *testing.T) {
		inBubble(t, func(b *bubble) {
			old, next, ctx := rotated(b)
			b.store.hint(ids(old))
			b.goesOn(ctx, "in the grace")
			hint := ids(next)
			b.must(next.Destroy(b.Context()))
			b.store.hint(hint)
			b.ends(ctx, 0, echosession.ErrSessionGone)
		}, withGrace)
	})
	t.Run("ends with its successor, which ends when it is just found", func(t *testing.T) {
		inBubble(t, func(b *bubble) {
			old, next, ctx := rotated(b)
			holds, release := b.held(next.ID(), nil)
			b.store.hint(ids(old))
			<-holds
			hint := ids(next)
			b.must(next.Destroy(b.Context()))
			b.store.hint(hint)
			release()
			b.ends(ctx, 0, echosession.ErrSessionGone)
		}, withGrace)
	})
	t.Run("is renewed with its successor", func(t *testing.T) {
		inBubble(t, func(b *bubble) {
			old, next, ctx := rotated(b)
			b.store.hint(ids(old))
			b.goesOn(ctx, "in the grace")
			hint := ids(next)
			_, err := next.Renew(b.Context(), func(*User) error { return nil }, echosession.WithSubject("ann"))
			b.must(err)
			b.store.hint(hint)
			b.ends(ctx, 0, echosession.ErrRenewed)
		}, withGrace)
	})
	t.Run("ends at once without a grace", func(t *testing.T) {
		inBubble(t, func(b *bubble) {
			old, _, ctx := rotated(b)
			b.store.hint(ids(old))
			b.ends(ctx, 0, echosession.ErrSessionGone)
		}, func(c *echosession.Config) { c.RotateGrace = echosession.NoGrace })
	})
}

func TestWatchGoesOnWithTheOwnRotation(t *testing.T) {
	for name, grace := range map[string]time.Duration{"with a grace": 10 * time.Second, "without": echosession.NoGrace} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bubble) {
				sess := b.create()
				ctx := b.watch(sess)
				for range 3 {
					hint := ids(sess)
					_, err := sess.Rotate(b.Context())
					b.must(err)
					b.store.hint(hint)
					b.store.hint(ids(sess))
					b.goesOn(ctx, "rotated by its handle")
					time.Sleep(time.Minute)
					b.goesOn(ctx, "a minute later")
				}
				hint := ids(sess)
				b.must(b.open(sess.Token()).Destroy(b.Context()))
				b.store.hint(hint)
				b.ends(ctx, 0, echosession.ErrSessionGone)
			}, func(c *echosession.Config) { c.RotateGrace = grace })
		})
	}
	t.Run("of many goroutines", func(t *testing.T) {
		inBubble(t, func(b *bubble) {
			sess := b.create()
			first := sess.ID()
			ctx := b.watch(sess)
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					_, _ = sess.Rotate(b.Context())
					_, stop := sess.Watch(b.Context())
					stop()
				})
			}
			wg.Wait()
			if sess.ID() == first {
				b.Fatal("nothing was rotated")
			}
			b.store.hint(echosession.Hint{All: true})
			time.Sleep(time.Minute)
			b.goesOn(ctx, "rotated by its handle")
		}, func(c *echosession.Config) { c.RotateGrace = echosession.NoGrace })
	})
	t.Run("that fails", func(t *testing.T) {
		inBubble(t, func(b *bubble) {
			sess := b.create()
			ctx := b.watch(sess)
			b.must(b.open(sess.Token()).Destroy(b.Context()))
			if _, err := sess.Rotate(b.Context()); !errors.Is(err, echosession.ErrSessionGone) {
				b.Fatal(err)
			}
			b.ends(ctx, 0, echosession.ErrSessionGone)
		})
	})
}

func TestWatchesOfOneSession(t *testing.T) {
	inBubble(t, func(b *bubble) {
		sess := b.create()
		b.watch(sess)
		before := b.goroutines()
		var contexts []context.Context
		var stops []context.CancelFunc
		for i := range 3000 {
			handle := sess
			if i%2 == 0 {
				handle = b.open(sess.Token())
			}
			ctx, stop := handle.Watch(b.Context())
			contexts, stops = append(contexts, ctx), append(stops, stop)
		}
		if n := b.goroutines(); n != before {
			b.Errorf("%d goroutines with one watch, %d with 3,001", before, n)
		}
		time.Sleep(time.Second)
		checks := b.store.count(sess.ID())
		b.store.hint(ids(sess))
		synctest.Wait()
		if n := b.store.count(sess.ID()) - checks; n > 100 {
			b.Errorf("one session was checked %d times for a hint", n)
		}
		for _, stop := range stops[:1000] {
			stop()
		}
		hint := ids(sess)
		b.must(sess.Destroy(b.Context()))
		b.store.hint(hint)
		for i, ctx := range contexts {
			if i < 1000 {
				b.ends(ctx, 0, context.Canceled)
			} else {
				b.ends(ctx, 0, echosession.ErrSessionGone)
			}
		}
	})
}

func TestWatchCanBeStoppedAtAnyTime(t *testing.T) {
	inBubble(t, func(b *bubble) {
		sess := b.create()

		ctx, stop := sess.Watch(b.Context())
		stop()
		stop()
		b.ends(ctx, 0, context.Canceled)

		parent, cancel := context.WithCancelCause(b.Context())
		ctx, stop = sess.Watch(parent)
		why := errors.New("the client has left")
		cancel(why)
		b.ends(ctx, 0, why)
		time.Sleep(time.Minute) // sweeps find that it is over
		stop()
		stop()
		b.ends(ctx, 0, why)

		checks := b.store.count(sess.ID())
		ctx, stop = sess.Watch(parent)
		b.ends(ctx, 0, why)
		if b.store.count(sess.ID()) != checks {
			b.Error("a session was checked that nobody watches")
		}
		stop()

		parent, cancel = context.WithCancelCause(b.Context())
		_, stop = sess.Watch(parent)
		cancel(why)
		time.Sleep(time.Minute)
		_, err := sess.Rotate(b.Context()) // it interrupts the watches of the handle
		b.must(err)
		stop()

		ctx = b.watch(sess)
		hint := ids(sess)
		b.must(b.open(sess.Token()).Destroy(b.Context()))
		b.store.hint(hint)
		b.ends(ctx, 0, echosession.ErrSessionGone)
	})
}

func TestWatchWithoutASession(t *testing.T) {
	inBubble(t, func(b *bubble) {
		sess, err := b.m.Open(b.Context(), "no token")
		b.must(err)
		ctx, stop := sess.Watch(b.Context())
		defer stop()
		b.ends(ctx, 0, echosession.ErrNoSession)
		b.ends(ctx, 0, echosession.ErrInvalidToken)
		if b.goroutines() != b.idle || b.store.begun() != 0 {
			b.Error("something runs")
		}
	})
}

func TestManagerThatNeverWatchesRunsNothing(t *testing.T) {
	inBubble(t, func(b *bubble) {
		sess := b.create(echosession.WithSubject("ann"))
		for _, call := range apiCalls(b.Context(), b.m, sess) {
			_ = call()
		}
		if n := b.goroutines(); n != b.idle || b.store.begun() != 0 {
			b.Errorf("%d goroutines, %d subscriptions", n, b.store.begun())
		}
		b.watch(b.create())
		if n := b.goroutines(); n != b.idle+2 || b.store.begun() != 1 {
			b.Errorf("with a watch: %d goroutines, %d subscriptions", n, b.store.begun())
		}
	})
}

func TestWatchStopsAMinuteAfterTheLast(t *testing.T) {
	inBubble(t, func(b *bubble) {
		sess := b.create()
		for round := 1; round <= 3; round++ {
			ctx, stop := sess.Watch(b.Context())
			time.Sleep(5 * time.Minute)
			b.goesOn(ctx, "for a long time")
			stop()
			time.Sleep(59 * time.Second)
			if n := b.goroutines(); n != b.idle+2 || b.store.underWay() != 1 {
				b.Fatalf("59 s after the last watch: %d goroutines, %d subscriptions", n, b.store.underWay())
			}
			time.Sleep(2 * time.Second)
			if n := b.goroutines(); n != b.idle || b.store.underWay() != 0 || b.store.begun() != round {
				b.Fatalf("61 s after the last watch: %d goroutines, %d subscriptions of %d", n, b.store.underWay(), b.store.begun())
			}
		}
		ctx := b.watch(sess)
		hint := ids(sess)
		b.must(b.open(sess.Token()).Destroy(b.Context()))
		b.store.hint(hint)
		b.ends(ctx, 0, echosession.ErrSessionGone)
	})
}

func TestWatchBeginsWhenAllIsAboutToStop(t *testing.T) {
	inBubble(t, func(b *bubble) {
		for i := range 200 {
			sess := b.create()
			_, stop := sess.Watch(b.Context())
			stop()
			contexts := make(chan context.Context, 4)
			for j := range cap(contexts) {
				go func() {
					time.Sleep(time.Minute + time.Duration(i%3-1+j-2))
					ctx, stop := sess.Watch(b.Context())
					context.AfterFunc(ctx, stop)
					contexts <- ctx
				}()
			}
			time.Sleep(time.Minute + time.Second)
			b.must(b.open(sess.Token()).Destroy(b.Context()))
			b.store.hint(ids(sess))
			for range cap(contexts) {
				b.ends(<-contexts, 0, echosession.ErrSessionGone)
			}
		}
	})
}

// A subscription that ends late says nothing of the next one.
func TestWatchHearsNoOlderSubscription(t *testing.T) {
	inBubble(t, func(b *bubble) {
		var late func(echosession.Hint)
		end := make(chan struct{})
		b.store.watch = func(ctx context.Context, tell func(echosession.Hint)) error {
			if late == nil {
				late = tell
				<-end // it does not heed its context
			}
			<-ctx.Done()
			return nil
		}
		_, stop := b.create().Watch(b.Context())
		synctest.Wait()
		stop()
		time.Sleep(2 * time.Minute)
		sess := b.create()
		ctx := b.watch(sess) // nothing is sure to be heard
		late(echosession.Hint{All: true})
		close(end)
		time.Sleep(40 * time.Second)
		b.must(b.open(sess.Token()).Destroy(b.Context()))
		b.ends(ctx, 6*time.Second, echosession.ErrSessionGone)
	})
}

func TestCloseEndsWatches(t *testing.T) {
	inBubble(t, func(b *bubble) {
		sess := b.create()
		var contexts []context.Context
		for range 10 {
			contexts = append(contexts, b.watch(sess), b.watch(b.create()))
		}
		for range 2 {
			b.must(b.m.Close())
			if n := b.goroutines(); n != b.idle || b.store.underWay() != 0 {
				b.Errorf("%d goroutines, %d subscriptions", n, b.store.underWay())
			}
		}
		for _, ctx := range contexts {
			b.ends(ctx, 0, echosession.ErrClosed)
		}
		b.ends(b.watch(sess), 0, echosession.ErrClosed)
		if n := b.goroutines(); n != b.idle || b.store.begun() != 1 {
			b.Errorf("after Close: %d goroutines, %d subscriptions", n, b.store.begun())
		}
		b.must(sess.Check(b.Context())) // that is no logout
	})
}

func TestCloseMeetsWatches(t *testing.T) {
	for range 20 {
		store := &tellingStore{Store: echosession.NewMemoryStore(), checks: make(map[string]int)}
		m := newManager[User](t, echosession.Config{Store: store, Secret: testSecret})
		sess, err := m.Create(t.Context(), User{})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				for range 50 {
					ctx, stop := sess.Watch(t.Context())
					if i%2 == 0 {
						stop()
					}
					store.hint(ids(sess))
					stop()
					if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, echosession.ErrClosed) {
						t.Errorf("the cause is %v", cause)
					}
				}
			})
		}
		for range 2 {
			wg.Go(func() {
				time.Sleep(time.Millisecond)
				_ = m.Close()
			})
		}
		wg.Wait()
		if store.underWay() != 0 {
			t.Fatal("a subscription is left")
		}
	}
}

func TestWatchSurvivesASubscriptionThatBreaks(t *testing.T) {
	for name, watch := range map[string]func(tell func(echosession.Hint)) error{
		"an error":      func(func(echosession.Hint)) error { return errors.New("no") },
		"nil":           func(func(echosession.Hint)) error { return nil },
		"a panic":       func(func(echosession.Hint)) error { panic("the store panics") },
		"after a start": func(tell func(echosession.Hint)) error { tell(echosession.Hint{All: true}); return nil },
		"a panic of Match": func(tell func(echosession.Hint)) error {
			tell(echosession.Hint{Match: func(echosession.Ref) bool { panic("Match panics") }})
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bubble) {
				b.store.watch = func(_ context.Context, tell func(echosession.Hint)) error { return watch(tell) }
				gone := b.create()
				live, ctx := b.watch(b.create()), b.watch(gone)
				time.Sleep(10 * time.Second)
				if n := b.store.begun(); n < 10 || n > 30 {
					b.Errorf("%d subscriptions in 10 s", n)
				}
				if n := b.store.count(gone.ID()); n > 40 {
					b.Errorf("a session was checked %d times in 10 s", n)
				}
				b.must(gone.Destroy(b.Context()))
				b.ends(ctx, 6*time.Second, echosession.ErrSessionGone)

				b.store.mu.Lock()
				b.store.watch = nil
				b.store.mu.Unlock()
				time.Sleep(time.Second)
				again := b.create()
				ctx = b.watch(again)
				hint := ids(again)
				b.must(again.Destroy(b.Context()))
				b.store.hint(hint)
				b.ends(ctx, 0, echosession.ErrSessionGone)
				b.goesOn(live, "a live session")
			})
		})
	}
}

// After a connection broke all are checked at once: a message may have been lost.
func TestWatchChecksAllAfterAReconnection(t *testing.T) {
	inBubble(t, func(b *bubble) {
		var broken chan struct{}
		b.store.watch = func(ctx context.Context, tell func(echosession.Hint)) error {
			broken = make(chan struct{})
			tell(echosession.Hint{All: true})
			select {
			case <-ctx.Done():
			case <-broken:
			}
			return nil
		}
		var gone []context.Context
		var sessions []*echosession.Session[User]
		for range 2500 {
			sess := b.create()
			sessions, gone = append(sessions, sess), append(gone, b.watch(sess))
		}
		live := b.watch(b.create())
		time.Sleep(time.Minute)
		for _, sess := range sessions {
			b.must(sess.Destroy(b.Context()))
		}
		close(broken)
		deadline := time.Now().Add(time.Second)
		for _, ctx := range gone {
			b.ends(ctx, time.Until(deadline), echosession.ErrSessionGone)
		}
		b.goesOn(live, "a live session")
	})
}

func TestWatchSaysOnceThatItPolls(t *testing.T) {
	for name, config := range map[string]func(*echosession.Config){
		"a store that is no Watcher": func(c *echosession.Config) { c.Store = unwatched{c.Store} },
		"a store that cannot tell": func(c *echosession.Config) {
			c.Store.(*tellingStore).watch = func(context.Context, func(echosession.Hint)) error {
				return fmt.Errorf("no permission: %w", echosession.ErrUnsupported)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bubble) {
				sess := b.create()
				for range 2 {
					_, stop := sess.Watch(b.Context())
					time.Sleep(10 * time.Minute)
					stop()
					time.Sleep(2 * time.Minute)
				}
				ctx := b.watch(sess)
				time.Sleep(10 * time.Minute)
				b.must(b.open(sess.Token()).Destroy(b.Context()))
				b.ends(ctx, 5*time.Second, echosession.ErrSessionGone)
				if n := strings.Count(b.log.String(), "session watch by polling"); n != 1 {
					b.Errorf("the log says %d times that sessions are polled:\n%s", n, b.log)
				}
				if n := strings.Count(b.log.String(), "\n"); n != 1 {
					b.Errorf("the log says\n%s", b.log)
				}
			}, config)
		})
	}
}

func TestWatchSurvivesALoggerThatPanics(t *testing.T) {
	inBubble(t, func(b *bubble) {
		sess := b.create()
		b.store.watch = func(_ context.Context, tell func(echosession.Hint)) error {
			tell(echosession.Hint{All: true})
			return errors.New("no")
		}
		b.store.checking(func(context.Context, echosession.Ref) (time.Duration, error) { return 0, errors.New("no") })
		ctx := b.watch(sess)
		time.Sleep(10 * time.Second)
		b.goesOn(ctx, "a live session")
		b.store.checking(nil)
		b.must(b.open(sess.Token()).Destroy(b.Context()))
		b.ends(ctx, 6*time.Second, echosession.ErrSessionGone)
	}, func(c *echosession.Config) { c.Logger = slog.New(panickingHandler{slog.DiscardHandler}) })
}

// A store may round what is left to zero.
func TestWatchAsksNotTooOften(t *testing.T) {
	inBubble(t, func(b *bubble) {
		sess := b.create()
		ended := time.Now().Add(time.Second)
		b.store.checking(func(context.Context, echosession.Ref) (time.Duration, error) {
			if time.Now().Before(ended) {
				return 0, nil
			}
			return 0, echosession.ErrNotFound
		})
		b.ends(b.watch(sess), 1100*time.Millisecond, echosession.ErrSessionGone)
		if n := b.store.count(sess.ID()); n > 110 {
			b.Errorf("it was asked %d times in a second", n)
		}
	})
}

// A session without an end, as another program may make one, has nothing left at every check.
func TestWatchOfASessionWithoutAnEnd(t *testing.T) {
	inBubble(t, func(b *bubble) {
		sess := b.create()
		b.store.checking(func(context.Context, echosession.Ref) (time.Duration, error) { return 0, nil })
		ctx := b.watch(sess)
		time.Sleep(time.Minute)
		if n := b.store.count(sess.ID()); n > 70 {
			b.Errorf("it was asked %d times in a minute", n)
		}
		b.store.checking(nil)
		b.must(b.open(sess.Token()).Destroy(b.Context()))
		b.ends(ctx, 2*time.Second, echosession.ErrSessionGone)
	})
}

func TestWatchSaysThatASubscriptionEndsAtOnce(t *testing.T) {
	inBubble(t, func(b *bubble) {
		sess := b.create()
		b.store.watch = func(context.Context, func(echosession.Hint)) error { return nil }
		ctx := b.watch(sess)
		time.Sleep(10 * time.Second)
		if !strings.Contains(b.log.String(), "session watch interrupted") {
			b.Errorf("the log says nothing of it:\n%s", b.log)
		}
		b.must(b.open(sess.Token()).Destroy(b.Context()))
		b.ends(ctx, 5*time.Second, echosession.ErrSessionGone)
	})
}
