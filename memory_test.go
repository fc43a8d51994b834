package echosession_test

import (
	"testing"

	"github.com/echosession/echosession"
	"github.com/echosession/echosession/storetest"
)

func TestMemoryStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) echosession.Store { return echosession.NewMemoryStore() })
}
