package echosession_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/echosession/echosession"
)

func ExampleNewMemoryStore() {
	now := time.Now()
	store := echosession.NewMemoryStore(echosession.WithClock(func() time.Time { return now }))
	defer store.Close()

	ctx := context.Background()
	ref := echosession.Ref{ID: "3f1e0f0e-6c4e-4a57-9d0a-0f3c5d2b8a11", Subject: "ada"}
	if err := store.Create(ctx, ref, []byte("record"), time.Hour, 0); err != nil {
		fmt.Println(err)
		return
	}

	record, err := store.Load(ctx, ref, 0)
	fmt.Printf("%s, %v\n", record, err)

	now = now.Add(time.Hour)
	_, err = store.Load(ctx, ref, 0)
	fmt.Println(errors.Is(err, echosession.ErrNotFound))
	// Output:
	// record, <nil>
	// true
}
