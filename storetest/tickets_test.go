package storetest_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"strings"
	"sync/atomic"
	"time"

	"github.com/echosession/echosession"
)

func (f *faulty) PutTicket(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return f.putTicket(ctx, key, value, ttl)
}

func (f *faulty) TakeTicket(ctx context.Context, key string) ([]byte, error) {
	return f.takeTicket(ctx, key)
}

// peekTicket returns a ticket and leaves it where it is.
func (f *faulty) peekTicket(ctx context.Context, key string) ([]byte, error) {
	value, err := f.sound.TakeTicket(ctx, key)
	if err == nil {
		err = f.sound.PutTicket(ctx, key, value, time.Hour)
	}
	return value, err
}

var ticketFaults = []fault{
	{
		fault:   "a ticket is read and left",
		breaks:  "a ticket is taken once",
		install: func(f *faulty) { f.takeTicket = f.peekTicket },
	},
	{
		fault:  "a ticket that is taken takes the others along",
		breaks: "a ticket is taken once",
		install: func(f *faulty) {
			var keys []string
			f.putTicket = func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				keys = append(keys, key)
				return f.sound.PutTicket(ctx, key, value, ttl)
			}
			f.takeTicket = func(ctx context.Context, key string) ([]byte, error) {
				value, err := f.sound.TakeTicket(ctx, key)
				for _, other := range keys {
					f.sound.TakeTicket(ctx, other)
				}
				return value, err
			}
		},
	},
	{
		fault:  "nothing is an empty ticket",
		breaks: "a ticket is taken once",
		install: func(f *faulty) {
			f.takeTicket = func(ctx context.Context, key string) ([]byte, error) {
				value, err := f.sound.TakeTicket(ctx, key)
				if errors.Is(err, echosession.ErrNotFound) {
					return nil, nil
				}
				return value, err
			}
		},
	},
	{
		fault:  "a ticket that was taken cannot be made again",
		breaks: "a ticket is taken once",
		install: func(f *faulty) {
			known := make(map[string]bool)
			f.putTicket = func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				if known[key] {
					return nil
				}
				known[key] = true
				return f.sound.PutTicket(ctx, key, value, ttl)
			}
		},
	},
	{
		fault:  "tickets end at a line feed",
		breaks: "a ticket holds any bytes",
		install: func(f *faulty) {
			f.takeTicket = func(ctx context.Context, key string) ([]byte, error) {
				value, err := f.sound.TakeTicket(ctx, key)
				value, _, _ = bytes.Cut(value, []byte("\n"))
				return value, err
			}
		},
	},
	{
		fault:  "put keeps the slice of a ticket",
		breaks: "a ticket holds any bytes",
		install: func(f *faulty) {
			kept := make(map[string][]byte)
			f.putTicket = func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				kept[key] = value
				return f.sound.PutTicket(ctx, key, value, ttl)
			}
			f.takeTicket = func(ctx context.Context, key string) ([]byte, error) {
				_, err := f.sound.TakeTicket(ctx, key)
				return kept[key], err
			}
		},
	},
	{
		fault:  "the first ticket stays",
		breaks: "the last ticket counts",
		install: func(f *faulty) {
			f.putTicket = func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				if first, err := f.sound.TakeTicket(ctx, key); err == nil {
					value = first
				}
				return f.sound.PutTicket(ctx, key, value, ttl)
			}
		},
	},
	{
		fault:  "the longer lifetime stays",
		breaks: "the last ticket counts",
		install: func(f *faulty) {
			longest := make(map[string]time.Duration)
			f.putTicket = func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				longest[key] = max(longest[key], ttl)
				return f.sound.PutTicket(ctx, key, value, longest[key])
			}
		},
	},
	{
		fault:  "tickets have no lifetime",
		breaks: "a ticket's lifetime ends",
		install: func(f *faulty) {
			f.putTicket = func(ctx context.Context, key string, value []byte, _ time.Duration) error {
				return f.sound.PutTicket(ctx, key, value, 1e6*time.Hour)
			}
		},
	},
	{
		fault:  "a ticket lives for whole seconds",
		breaks: "a ticket's lifetime ends",
		install: func(f *faulty) {
			f.putTicket = func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				return f.sound.PutTicket(ctx, key, value, ttl.Truncate(time.Second))
			}
		},
	},
	{
		fault:  "a lifetime below zero is rounded up",
		breaks: "a ticket's lifetime ends",
		install: func(f *faulty) {
			f.putTicket = func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				return f.sound.PutTicket(ctx, key, value, max(ttl, time.Millisecond))
			}
		},
	},
	{
		fault:  "keys of tickets have no case",
		breaks: "keys of tickets are exact",
		install: func(f *faulty) {
			f.putTicket = func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				return f.sound.PutTicket(ctx, strings.ToLower(key), value, ttl)
			}
			f.takeTicket = func(ctx context.Context, key string) ([]byte, error) {
				return f.sound.TakeTicket(ctx, strings.ToLower(key))
			}
		},
	},
	{
		fault:  "an underscore stands for any character",
		breaks: "keys of tickets are exact",
		install: func(f *faulty) {
			var keys []string
			f.putTicket = func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				keys = append(keys, key)
				return f.sound.PutTicket(ctx, key, value, ttl)
			}
			f.takeTicket = func(ctx context.Context, pattern string) ([]byte, error) {
				for _, key := range keys {
					if before, after, ok := strings.Cut(pattern, "_"); ok && strings.HasPrefix(key, before) && strings.HasSuffix(key, after) {
						return f.sound.TakeTicket(ctx, key)
					}
				}
				return f.sound.TakeTicket(ctx, pattern)
			}
		},
	},
	{
		fault:  "scan visits tickets",
		breaks: "tickets are no sessions",
		install: func(f *faulty) {
			values := make(map[string][]byte)
			f.putTicket = func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				values[key] = value
				return f.sound.PutTicket(ctx, key, value, ttl)
			}
			f.scan = func(ctx context.Context) iter.Seq2[echosession.Entry, error] {
				return func(yield func(echosession.Entry, error) bool) {
					for _, value := range values {
						if !yield(echosession.Entry{Record: value, TTL: time.Second}, nil) {
							return
						}
					}
					f.sound.Scan(ctx)(yield)
				}
			}
		},
	},
	{
		fault:  "sessions are taken as tickets",
		breaks: "tickets are no sessions",
		install: func(f *faulty) {
			f.takeTicket = func(ctx context.Context, key string) ([]byte, error) {
				for _, subject := range append([]string{""}, f.subjects()...) {
					if record, err := f.sound.Load(ctx, echosession.Ref{ID: key, Subject: subject}, 0); err == nil {
						return record, nil
					}
				}
				return f.sound.TakeTicket(ctx, key)
			}
			f.create = func(ctx context.Context, ref echosession.Ref, record []byte, ttl time.Duration, limit echosession.Limit) ([]string, error) {
				f.remember(ref)
				return f.sound.Create(ctx, ref, record, ttl, limit)
			}
		},
	},
	{
		fault:  "take does not look at its context",
		breaks: "a cancelled context spends no ticket",
		install: func(f *faulty) {
			f.takeTicket = func(ctx context.Context, key string) ([]byte, error) {
				f.sound.TakeTicket(context.WithoutCancel(ctx), key)
				return f.sound.TakeTicket(ctx, key)
			}
		},
	},
	{
		fault:  "put applies in spite of its context",
		breaks: "a cancelled context spends no ticket",
		install: func(f *faulty) {
			f.putTicket = func(ctx context.Context, key string, value []byte, ttl time.Duration) error {
				f.sound.PutTicket(context.WithoutCancel(ctx), key, value, ttl)
				return f.sound.PutTicket(ctx, key, value, ttl)
			}
		},
	},
	{
		fault:  "take reads first and deletes then",
		breaks: "of many takers one gets the ticket",
		install: func(f *faulty) {
			f.takeTicket = func(ctx context.Context, key string) ([]byte, error) {
				f.mu.Lock()
				value, err := f.peekTicket(ctx, key)
				f.mu.Unlock()
				if err == nil {
					window()
					f.sound.TakeTicket(ctx, key)
				}
				return value, err
			}
		},
	},
	{
		fault:  "nobody gets a ticket that two want",
		breaks: "of many takers one gets the ticket",
		install: func(f *faulty) {
			var taking atomic.Int32
			f.takeTicket = func(ctx context.Context, key string) ([]byte, error) {
				defer taking.Add(-1)
				alone := taking.Add(1) == 1
				window()
				value, err := f.sound.TakeTicket(ctx, key)
				if err == nil && !alone {
					return nil, echosession.ErrNotFound
				}
				return value, err
			}
		},
	},
}

// subjects are those of all refs that f remembers.
func (f *faulty) subjects() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var subjects []string
	for _, ref := range f.refs {
		subjects = append(subjects, ref.Subject)
	}
	return subjects
}
