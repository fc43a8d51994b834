package jwt_test

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/echosession/echosession/internal/jwt"
)

// verifiedTokens issues n tokens of the usual size.
func verifiedTokens(t testing.TB, n int) ([]string, []*jwt.Token) {
	t.Helper()
	tokens := secretTokens(t)
	list, verified := make([]string, n), make([]*jwt.Token, n)
	for i := range n {
		token, v, err := tokens.Issue(jwt.Params{
			ID: fmt.Sprintf("%08x-d9cb-469f-a165-70867728950e", i), Now: tokenNow, Subject: "anna", Exp: tokenNow.Add(time.Hour),
		})
		if err != nil {
			t.Fatal(err)
		}
		list[i], verified[i] = token, v
	}
	return list, verified
}

func TestVerifiedCache(t *testing.T) {
	list, verified := verifiedTokens(t, 3)
	t.Run("what was added is found", func(t *testing.T) {
		c := jwt.NewCache(1 << 20)
		if c.Get(list[0]) != nil {
			t.Error("found before it was added")
		}
		added := c.Add(list[0], verified[0])
		if got := c.Get(list[0]); got != added || got.ID != verified[0].ID {
			t.Errorf("got %v", got)
		}
		if c.Get(list[1]) != nil || c.Get("") != nil {
			t.Error("found what was not added")
		}
	})
	t.Run("a token that was tampered with is not found", func(t *testing.T) {
		c := jwt.NewCache(1 << 20)
		c.Add(list[0], verified[0])
		for i := range list[0] {
			if c.Get(list[0][:i]+"~"+list[0][i+1:]) != nil || c.Get(list[0][:i]) != nil {
				t.Fatalf("found with byte %d changed", i)
			}
		}
	})
	t.Run("a token with the hash of another is not taken for it", func(t *testing.T) {
		c := jwt.NewCache(1 << 20)
		c.Collide(list[0], verified[0], list[1])
		if got := c.Get(list[1]); got != nil {
			t.Errorf("found %v", got.ID)
		}
		c.Remove(list[1])
		if n, _ := c.Size(); n != 1 {
			t.Errorf("%d entries: another's was removed", n)
		}
		if got := c.Add(list[1], verified[1]); got.ID != verified[1].ID {
			t.Errorf("added %v", got.ID)
		}
		if got := c.Get(list[1]); got == nil || got.ID != verified[1].ID {
			t.Errorf("found %v", got)
		}
	})
	t.Run("nor in the elder generation", func(t *testing.T) {
		c := jwt.NewCache(1 << 20)
		c.Collide(list[0], verified[0], list[1])
		c.Age()
		if got := c.Get(list[1]); got != nil {
			t.Errorf("found %v", got.ID)
		}
		c.Remove(list[1])
		if n, _ := c.Size(); n != 1 {
			t.Errorf("%d entries: another's was removed", n)
		}
		if got := c.Add(list[1], verified[1]); got.ID != verified[1].ID {
			t.Errorf("added %v", got.ID)
		}
	})
	t.Run("all share the first entry", func(t *testing.T) {
		c := jwt.NewCache(1 << 20)
		first := c.Add(list[0], verified[0])
		first.LastTouch.Store(7)
		if again := c.Add(list[0], verified[1]); again != first {
			t.Error("a second entry")
		}
	})
	t.Run("what was removed is not found", func(t *testing.T) {
		c := jwt.NewCache(1 << 20)
		for i := range list {
			c.Add(list[i], verified[i])
		}
		c.Remove(list[1])
		c.Remove("never added")
		if c.Get(list[1]) != nil || c.Get(list[0]) == nil || c.Get(list[2]) == nil {
			t.Error("another set than 0 and 2 is left")
		}
		if n, _ := c.Size(); n != 2 {
			t.Errorf("%d entries", n)
		}
	})
	t.Run("without room nothing is remembered", func(t *testing.T) {
		for _, size := range []int{0, -1, 1} {
			c := jwt.NewCache(size)
			if e := c.Add(list[0], verified[0]); e == nil || e.ID != verified[0].ID || c.Get(list[0]) != nil {
				t.Errorf("size %d: %v", size, e)
			}
		}
	})
}

func TestVerifiedCacheIsBounded(t *testing.T) {
	const limit = 1 << 20
	list, verified := verifiedTokens(t, 20_000)
	c := jwt.NewCache(limit)
	hot := c.Add(list[0], verified[0])
	most := 0
	for i := 1; i < len(list); i++ {
		c.Add(list[i], verified[i])
		if i%10 == 0 {
			if c.Get(list[0]) != hot {
				t.Fatalf("the token in steady use was dropped after %d others", i)
			}
		}
		if i%1000 == 0 {
			_, bytes := c.Size()
			most = max(most, bytes)
		}
	}
	if most > limit || most < limit/3 {
		t.Errorf("held %d of %d bytes", most, limit)
	}
	if c.Get(list[1]) != nil {
		t.Error("a token that was used once is there for ever")
	}
}

func TestVerifiedCacheRemovesFromBothGenerations(t *testing.T) {
	list, verified := verifiedTokens(t, 4000)
	c := jwt.NewCache(1 << 20)
	for i := range list {
		c.Add(list[i], verified[i])
	}
	for _, token := range list {
		c.Remove(token)
	}
	if n, _ := c.Size(); n != 0 {
		t.Errorf("%d entries are left", n)
	}
	// The bytes are given back too, or the generations would turn over.
	c.Add(list[0], verified[0])
	for range 5 {
		for i := 1; i < len(list); i++ {
			c.Add(list[i], verified[i])
			c.Remove(list[i])
		}
	}
	if c.Get(list[0]) == nil {
		t.Error("a token was dropped with room left")
	}
}

// The bytes counted are those that the heap holds.
func TestVerifiedCacheMemory(t *testing.T) {
	for _, n := range []int{15_000, 20_000, 28_000} {
		tokens := secretTokens(t)
		list, _ := verifiedTokens(t, n)
		c := jwt.NewCache(1 << 30)
		before := heap()
		for _, token := range list {
			v, err := tokens.Verify(token)
			if err != nil {
				t.Fatal(err)
			}
			c.Add(token, v)
		}
		used := heap() - before
		entries, counted := c.Size()
		t.Logf("%d tokens of %d bytes: %d bytes of heap each, counted as %d", entries, len(list[0]), used/uint64(entries), counted/entries)
		if ratio := float64(used) / float64(counted); entries != n || ratio < 0.7 || ratio > 1.1 {
			t.Errorf("%d entries: heap %d, counted %d", entries, used, counted)
		}
		runtime.KeepAlive(list)
		runtime.KeepAlive(c)
	}
}

func TestVerifiedCacheDoesNotPinTheRequest(t *testing.T) {
	list, verified := verifiedTokens(t, 1)
	c := jwt.NewCache(1 << 20)
	before := heap()
	func() {
		request := list[0] + strings.Repeat("x", 64<<20)
		c.Add(request[:len(list[0])], verified[0])
	}()
	if after := heap(); after > before+1<<20 {
		t.Errorf("%d bytes are kept", after-before)
	}
	if c.Get(list[0]) == nil {
		t.Error("not found")
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestVerifiedCacheConcurrently(t *testing.T) {
	list, verified := verifiedTokens(t, 500)
	c := jwt.NewCache(256 << 10) // room for some of them
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for round := range 20 {
				for i := range list {
					i = (i*7 + worker*131) % len(list)
					e := c.Get(list[i])
					if e == nil {
						e = c.Add(list[i], verified[i])
					}
					if e.ID != verified[i].ID {
						t.Errorf("token %d is taken for another", i)
						return
					}
					if (i+round)%50 == 0 {
						c.Remove(list[i])
					}
				}
			}
		})
	}
	wg.Wait()
	if _, bytes := c.Size(); bytes > 256<<10 {
		t.Errorf("%d bytes", bytes)
	}
}

func TestVerifiedCacheGetDoesNotAllocate(t *testing.T) {
	list, verified := verifiedTokens(t, 1)
	c := jwt.NewCache(1 << 20)
	c.Add(list[0], verified[0])
	if n := testing.AllocsPerRun(100, func() { c.Get(list[0]) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkVerifiedCacheGet(b *testing.B) {
	list, verified := verifiedTokens(b, 10_000)
	c := jwt.NewCache(64 << 20)
	for i := range list {
		c.Add(list[i], verified[i])
	}
	tokens := secretTokens(b)
	b.Run("same", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if tokens.CheckTime(c.Get(list[0]).Token, tokenNow) != nil {
				b.Fatal("refused")
			}
		}
	})
	b.Run("10000 tokens", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			if c.Get(list[i%len(list)]) == nil {
				b.Fatal("gone")
			}
			i++
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				if c.Get(list[i%len(list)]) == nil {
					b.Fatal("gone")
				}
			}
		})
	})
}
