package costs_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"net/http"
	"net/http/httptest"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/internal/redistest"
)

var update = flag.Bool("update", false, "write the tables of docs/costs.md anew")

func TestMain(m *testing.M) { redistest.Main(m) }

// Every operation costs what docs/costs.md says, through every kind of client: so
// a change that makes one dearer or cheaper shows it.
func TestCosts(t *testing.T) {
	want := readCosts(t)
	unlike := unlikeTheTables(want.goVersion)
	if unlike != "" {
		t.Logf("allocations are not compared: %s", unlike)
	}
	got := want.clone()
	if unlike == "" {
		got.goVersion = goVersion()
	}
	// Nothing but what is measured runs, and pools keep what they have.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	redisAnswered := false
	t.Run("memory", func(t *testing.T) { got.measure(t, memoryClient(), unlike == "") })
	t.Run("redis", func(t *testing.T) {
		for _, client := range redisClients(t) {
			got.measure(t, client, unlike == "")
		}
		redisAnswered = true
	})
	switch {
	case t.Failed():
	case *update && unlike != "":
		t.Errorf("-update writes allocations, too, and they are not to be had: %s", unlike)
	case *update && !redisAnswered:
		t.Error("-update needs a redis-server")
	case *update:
		got.write(t)
	default:
		got.compare(t)
	}
}

// Every method that takes a context talks to the store, and so has its cost in the
// tables.
func TestEveryOperationHasItsCosts(t *testing.T) {
	takesContext := 0
	for prefix, typ := range map[string]reflect.Type{
		"":         reflect.TypeFor[*accountSession](),
		"Manager.": reflect.TypeFor[*echosession.Manager[account]](),
	} {
		for method := range typ.Methods() {
			if method.Type.NumIn() < 2 || method.Type.In(1) != reflect.TypeFor[context.Context]() {
				continue
			}
			takesContext++
			name := "`" + prefix + method.Name + "`"
			if prefix+method.Name == "Watch" {
				continue // what it costs it costs in the background: the page says it in words
			}
			if !slices.ContainsFunc(operations, func(op operation) bool { return strings.HasPrefix(op.name, name) }) {
				t.Errorf("nothing measures %s; add it to the operations", name)
			}
		}
	}
	if takesContext < 18 {
		t.Errorf("only %d methods take a context", takesContext)
	}
}

// operations are what is measured, in the order of the tables.
var operations = []operation{
	{name: "a request that asks for no session", run: func(r *rig) error {
		return r.request("", func(echo.Context) error { return nil })
	}},
	{name: "`Get`, no token", run: func(r *rig) error {
		return r.get("", echosession.ErrNoToken)
	}},
	{name: "`Get`, forged token", run: func(r *rig) error {
		token := r.session().Token()
		return r.get(token[:len(token)-40]+"forged"+token[len(token)-34:], echosession.ErrInvalidToken)
	}},
	{name: "`Get`, session gone", run: func(r *rig) error {
		sess := r.session()
		token := sess.Token()
		r.must(sess.Destroy(r.ctx))
		return r.get(token, echosession.ErrSessionGone)
	}},
	{name: "`Get`, token new to the process", run: func(r *rig) error {
		return r.get(r.session().Token(), nil)
	}},
	{name: "`Get`, touch due", run: func(r *rig) error {
		token := r.opened()
		r.clock.Advance(2 * time.Minute)
		return r.get(token, nil)
	}},
	{name: "`Get`, no touch due", run: func(r *rig) error {
		return r.get(r.opened(), nil)
	}},
	{name: "`Get`, the first since a touch", run: func(r *rig) error {
		token := r.session().Token()
		r.openUnmeasured(token, 1)
		return r.get(token, nil)
	}},
	{name: "`Get`, rotated token", run: func(r *rig) error {
		return r.get(r.rotated(), nil)
	}},
	{name: "`Get`, renewed token", run: func(r *rig) error {
		return r.get(r.renewed(), echosession.ErrRenewed)
	}},
	{name: "`Get`, ticket", run: func(r *rig) error {
		return r.redeem(r.ticket(), nil)
	}},
	{name: "`Get`, ticket that was used", run: func(r *rig) error {
		ticket := r.ticket()
		if err := r.redeem(ticket, nil); err != nil {
			return err
		}
		return r.redeem(ticket, echosession.ErrInvalidToken)
	}},
	{name: "`Get`, second in a request", run: func(r *rig) error {
		h := r.handler(func(c echo.Context) error {
			first, err := r.m.Get(c)
			r.must(err)
			return r.measure(func() error {
				second, err := r.m.Get(c)
				if second != first {
					return errors.New("it returns another handle")
				}
				return err
			})
		})
		return h(r.context(r.opened()))
	}},
	{name: "`Require`, no touch due", run: func(r *rig) error {
		reached := false
		err := r.request(r.opened(), r.m.Require()(func(echo.Context) error { reached = true; return nil }))
		if !reached {
			return errors.New("it refuses the request")
		}
		return err
	}},
	{name: "`Require`, no token", run: func(r *rig) error {
		err := r.request("", r.m.Require()(func(echo.Context) error { return nil }))
		if answer, ok := errors.AsType[*echo.HTTPError](err); !ok || answer.Code != http.StatusUnauthorized {
			return errors.New("it does not refuse the request")
		}
		return nil
	}},
	{name: "`Data`", run: func(r *rig) error {
		return r.within(r.opened(), nil, func(sess *accountSession) error { r.data = sess.Data(); return nil })
	}},
	{name: "`Data`, once more", run: func(r *rig) error {
		return r.within(r.opened(), func(sess *accountSession) { r.data = sess.Data() },
			func(sess *accountSession) error { r.data = sess.Data(); return nil })
	}},
	{name: "`MarshalJSON`", run: func(r *rig) error {
		return r.within(r.opened(), nil, func(sess *accountSession) (err error) { _, err = sess.MarshalJSON(); return err })
	}},
	{name: "`Claims`", run: func(r *rig) error {
		return r.within(r.opened(), nil, func(sess *accountSession) error { r.claims = sess.Claims(); return nil })
	}},
	{name: "`Create`", run: func(r *rig) error {
		return r.within("", nil, func(sess *accountSession) error { return r.create(sess) })
	}},
	{name: "`Create` over a live session", run: func(r *rig) error {
		return r.within(r.opened(), nil, func(sess *accountSession) error { return r.create(sess) })
	}},
	{name: "`Update`", run: func(r *rig) error {
		return r.within(r.opened(), nil, func(sess *accountSession) error { return sess.Update(r.ctx, countUp) })
	}},
	{name: "`Update`, another came first", run: func(r *rig) error {
		return r.within(r.opened(), func(sess *accountSession) {
			other, err := r.back.Open(r.ctx, sess.Token())
			r.must(err)
			r.must(other.Update(r.ctx, countUp))
		}, func(sess *accountSession) error { return sess.Update(r.ctx, countUp) })
	}},
	{name: "`UpdateOrCreate`", run: func(r *rig) error {
		return r.within(r.opened(), nil, func(sess *accountSession) error { return sess.UpdateOrCreate(r.ctx, countUp) })
	}},
	{name: "`UpdateOrCreate`, no session", run: func(r *rig) error {
		return r.within("", nil, func(sess *accountSession) error { return sess.UpdateOrCreate(r.ctx, fill, r.opts...) })
	}},
	{name: "`UpdateOrCreate`, nothing to keep", run: func(r *rig) error {
		return r.within("", nil, func(sess *accountSession) error {
			return sess.UpdateOrCreate(r.ctx, func(*account) error { return nil }, r.opts...)
		})
	}},
	{name: "`Take`", run: func(r *rig) error {
		return r.within(r.opened(), nil, func(sess *accountSession) error {
			cart, err := echosession.Take(r.ctx, sess, theCart)
			return errors.Join(err, wantTwo(len(cart)))
		})
	}},
	{name: "`Take`, nothing there", run: func(r *rig) error {
		return r.within(r.opened(), func(sess *accountSession) {
			_, err := echosession.Take(r.ctx, sess, theCart)
			r.must(err)
		}, func(sess *accountSession) error {
			_, err := echosession.Take(r.ctx, sess, theCart)
			return err
		})
	}},
	{name: "`Touch`", run: func(r *rig) error {
		return r.within(r.opened(), nil, func(sess *accountSession) error { return sess.Touch(r.ctx) })
	}},
	{name: "`Reload`", run: func(r *rig) error {
		return r.within(r.opened(), nil, func(sess *accountSession) error { return sess.Reload(r.ctx) })
	}},
	{name: "`Check`", run: func(r *rig) error {
		return r.within(r.opened(), nil, func(sess *accountSession) error { return sess.Check(r.ctx) })
	}},
	{name: "`Renew`, same subject", run: func(r *rig) error {
		return r.within(r.opened(), nil, func(sess *accountSession) error { _, err := sess.Renew(r.ctx, countUp); return err })
	}},
	{name: "`Renew` of a guest", run: func(r *rig) error {
		login := echosession.WithSubject(cmp.Or(r.subject, "user"))
		r.opts = nil
		return r.within(r.opened(), nil, func(sess *accountSession) error { _, err := sess.Renew(r.ctx, countUp, login); return err })
	}},
	{name: "`Renew`, no session", run: func(r *rig) error {
		login := echosession.WithSubject(cmp.Or(r.subject, "user"))
		return r.within("", nil, func(sess *accountSession) error { _, err := sess.Renew(r.ctx, fill, login); return err })
	}},
	{name: "`Rotate`", run: func(r *rig) error {
		return r.within(r.opened(), nil, func(sess *accountSession) error { _, err := sess.Rotate(r.ctx); return err })
	}},
	{name: "`Ticket`", run: func(r *rig) error {
		return r.within(r.opened(), nil, func(sess *accountSession) error { _, err := sess.Ticket(r.ctx, "/"); return err })
	}},
	{name: "`Destroy`", run: func(r *rig) error {
		return r.within(r.opened(), nil, func(sess *accountSession) error { return sess.Destroy(r.ctx) })
	}},
	{name: "`Destroy`, rotated token", run: func(r *rig) error {
		return r.within(r.rotated(), nil, func(sess *accountSession) error { return sess.Destroy(r.ctx) })
	}},
	{name: "`Manager.Create`", run: func(r *rig) error {
		return r.measure(func() error { _, err := r.m.Create(r.ctx, anAccount(), r.opts...); return err })
	}},
	{name: "`Manager.Open`, touch due", run: func(r *rig) error {
		token := r.opened()
		r.clock.Advance(2 * time.Minute)
		return r.open(token)
	}},
	{name: "`Manager.Open`, no touch due", run: func(r *rig) error {
		return r.open(r.opened())
	}},
	{name: "`Manager.List` of two", indexed: true, run: func(r *rig) error {
		r.session()
		r.session()
		return r.measure(func() error {
			list, err := r.m.List(r.ctx, r.subject)
			return errors.Join(err, wantTwo(len(list)))
		})
	}},
	{name: "`Manager.RevokeSubject` of two", indexed: true, run: func(r *rig) error {
		r.session()
		r.session()
		return r.measure(func() error {
			n, err := r.m.RevokeSubject(r.ctx, r.subject)
			return errors.Join(err, wantTwo(n))
		})
	}},
	{name: "`Manager.Count` of two", indexed: true, run: func(r *rig) error {
		r.session()
		r.session()
		return r.measure(func() error {
			n, err := r.m.Count(r.ctx, r.subject)
			return errors.Join(err, wantTwo(n))
		})
	}},
	{name: "`Manager.Revoke`", indexed: true, run: func(r *rig) error {
		id := r.session().ID()
		return r.measure(func() error {
			done, err := r.m.Revoke(r.ctx, r.subject, id)
			if err == nil && !done {
				err = errors.New("it does not find the session")
			}
			return err
		})
	}},
	{name: "`Manager.Ping`", run: func(r *rig) error {
		return r.measure(func() error { return r.m.Ping(r.ctx) })
	}},
	{name: "`Manager.All` of two", run: func(r *rig) error {
		r.clean()
		r.session()
		r.session()
		return r.measure(func() error {
			n := 0
			for _, err := range r.m.All(r.ctx) {
				if err != nil {
					return err
				}
				n++
			}
			return wantTwo(n)
		})
	}},
}

// fill makes an account of an empty one.
func fill(a *account) error { *a = anAccount(); return nil }

func theCart(a *account) *[]cartItem { return &a.Cart }

func countUp(a *account) error { a.UserID++; return nil }

func wantTwo(n int) error {
	if n != 2 {
		return errors.New("it does not find the two sessions")
	}
	return nil
}

// A read of a session may cost eight allocations beside what a handler pays that
// sends the same command with the same deadline and decodes the same struct.
func TestAllocationsOfARead(t *testing.T) {
	if builtWith("-race") != "" {
		t.Skip("the race detector makes pools forget")
	}
	const ceiling = 8
	client := redistest.Shared(t).Client(t)
	ctx := t.Context()
	keyspace := "costs-" + rand.Text() + ":"
	m := newManager(t, echosession.Config{Client: client, Secret: testSecret, Keyspace: keyspace})
	sess, err := m.Create(ctx, anAccount())
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := msgpack.Marshal(anAccount())
	if err != nil {
		t.Fatal(err)
	}
	key := keyspace + "bare"
	if err := client.Set(ctx, key, encoded, time.Hour).Err(); err != nil {
		t.Fatal(err)
	}

	e := echo.New()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+sess.Token())
	w := httptest.NewRecorder()
	measure := func(h echo.HandlerFunc) float64 {
		return testing.AllocsPerRun(200, func() {
			c := e.AcquireContext()
			defer e.ReleaseContext(c)
			c.Reset(r, w)
			if err := h(c); err != nil {
				t.Fatal(err)
			}
		})
	}
	bare := measure(func(c echo.Context) error {
		ctx, cancel := context.WithTimeout(c.Request().Context(), time.Second)
		defer cancel()
		data, err := client.Get(ctx, key).Bytes()
		if err != nil {
			return err
		}
		var a account
		return msgpack.Unmarshal(data, &a)
	})
	read := measure(m.Middleware()(func(c echo.Context) error {
		sess, err := m.Get(c)
		if err != nil || !sess.Exists() || sess.Data().Name == "" {
			t.Fatal(err, sess.Reason())
		}
		return nil
	}))
	t.Logf("a bare read %v, a session's %v allocations", bare, read)
	if read > bare+ceiling {
		t.Errorf("a read costs %v allocations, %v more than a bare one; %d are allowed", read, read-bare, ceiling)
	}
}
