package linear

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// History is what clients did and saw. It is safe for concurrent use.
type History struct {
	begin time.Time

	mu      sync.Mutex
	numbers int
	ops     []porcupine.Operation
	lanes   int // for the picture: rows of operations that never return
}

// NewHistory returns an empty history.
func NewHistory() *History { return &History{begin: time.Now()} }

// Number returns a number that no other operation has. It is above zero.
func (h *History) Number() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.numbers++
	return h.numbers
}

// Now is the time in a history.
func (h *History) Now() int64 { return int64(time.Since(h.begin)) }

// Add notes an operation of a client that was called at a time and has just
// returned.
func (h *History) Add(client int, call int64, in Input, out Output) {
	h.add(client, call, h.Now(), in, out)
}

func (h *History) add(client int, call, returned int64, in Input, out Output) {
	h.mu.Lock()
	defer h.mu.Unlock()
	out.client, out.told = client, returned
	// Whatever never returned gets a row of its own in the picture.
	if out.Result == Unknown {
		h.lanes++
		client, returned = 100+h.lanes, never
	}
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: returned})
}

// Forget takes all operations of some kinds out of the history.
func (h *History) Forget(kinds ...Kind) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = slices.DeleteFunc(h.ops, func(op porcupine.Operation) bool { return slices.Contains(kinds, op.Input.(Input).Kind) })
}

// Operations returns how many operations there are, and how many of them with an
// unknown outcome.
func (h *History) Operations() (all, unknown int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.ops), h.lanes
}

// checkTimeout bounds the search for an order, which takes milliseconds as a rule.
const checkTimeout = 30 * time.Second

// Check returns an error when no order of the operations explains what the
// clients saw. The error names a file with a picture of the history.
func (h *History) Check(grace bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := model(grace)
	result, info := porcupine.CheckOperationsVerbose(m, h.ops, checkTimeout)
	switch result {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		return fmt.Errorf("undecided after %v: %d operations, %d with an unknown outcome", checkTimeout, len(h.ops), h.lanes)
	}
	f, err := os.CreateTemp("", "linear-*.html")
	if err != nil {
		return fmt.Errorf("not linearizable, and no picture: %w", err)
	}
	defer f.Close()
	if err := porcupine.Visualize(m, info, f); err != nil {
		return fmt.Errorf("not linearizable, and no picture: %w", err)
	}
	return fmt.Errorf("not linearizable: see %s", f.Name())
}

// Linearizable is Check without a picture.
func (h *History) Linearizable(grace bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return porcupine.CheckOperationsTimeout(model(grace), h.ops, checkTimeout) == porcupine.Ok
}
