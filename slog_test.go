package echosession_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/echosession/echosession"
)

// A flood of junk tokens takes ten lines a second, and a line that says how many were left out.
func TestSlogEventsSamplesAFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged logBuffer
		log := echosession.SlogEvents(logged.logger())
		junk := echosession.Event{Kind: echosession.EventRefused, Reason: "signature", Count: 1, Err: echosession.ErrInvalidToken}
		lines := func(of string) int { return strings.Count(logged.String(), of) }
		for range 1000 {
			log(t.Context(), junk)
		}
		log(t.Context(), echosession.Event{Kind: echosession.EventRefused, Reason: "gone", Count: 1})
		if lines("reason=signature") != 10 || lines("reason=gone") != 1 || lines("left_out") != 0 {
			t.Errorf("during the second:\n%s", logged.String())
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if !strings.Contains(logged.String(), `level=WARN msg="session events left out" event=refused reason=signature left_out=990`) || lines("left_out") != 1 {
			t.Errorf("after the second:\n%s", logged.String())
		}
		for range 11 {
			log(t.Context(), junk)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if lines(`msg="session refused" event=refused reason=signature`) != 20 || lines("left_out=1\n") != 1 {
			t.Errorf("in the next second:\n%s", logged.String())
		}
	})
}

// The beginning and the end of a session is logged without exception.
func TestSlogEventsSamplesNoLife(t *testing.T) {
	for _, kind := range []echosession.EventKind{
		echosession.EventCreated, echosession.EventRenewed, echosession.EventRotated, echosession.EventImported, echosession.EventDestroyed,
		echosession.EventRevoked, echosession.EventEvicted, echosession.EventExpired, echosession.EventStoreDown, echosession.EventStoreUp,
	} {
		var logged logBuffer
		log := echosession.SlogEvents(logged.logger())
		for range 100 {
			log(t.Context(), echosession.Event{Kind: kind, Subject: "ada", Count: 1})
		}
		if n := strings.Count(logged.String(), "event="+string(kind)+" "); n != 100 {
			t.Errorf("%s: %d lines of 100", kind, n)
		}
	}
}

// What is at a level that is not logged costs no line and is not counted as left out.
func TestSlogEventsHeedsTheLevel(t *testing.T) {
	var logged logBuffer
	logger := slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelInfo}))
	log := echosession.SlogEvents(logger)
	for range 100 {
		log(t.Context(), echosession.Event{Kind: echosession.EventOpened, Reason: "cached", Count: 1})
	}
	if logged.String() != "" {
		t.Error(logged.String())
	}
}

// Whatever the reasons are, memory is bounded.
func TestSlogEventsBoundsItsSamples(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged logBuffer
		log := echosession.SlogEvents(logged.logger())
		for i := range 10_000 {
			log(t.Context(), echosession.Event{Kind: echosession.EventIndeterminate, Reason: fmt.Sprint("refused: ", i)})
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := strings.Count(logged.String(), "\n"); n > 250 || !strings.Contains(logged.String(), "reason=other left_out=") {
			t.Errorf("%d lines", n)
		}
	})
}

// Every kind has a form of its own.
func TestSlogEventsKnowsEveryKind(t *testing.T) {
	messages := make(map[string]bool)
	for _, kind := range eventKinds(t) {
		var logged logBuffer
		echosession.SlogEvents(logged.logger())(t.Context(), echosession.Event{Kind: kind, Count: 1})
		_, message, _ := strings.Cut(logged.String(), "msg=")
		message, _, _ = strings.Cut(message, " event=")
		if messages[message] || strings.Contains(message, `"session event"`) {
			t.Errorf("%s is logged as %s", kind, message)
		}
		messages[message] = true
	}
}

// panickyHandler is a handler of logs that panics at the lines that say what was left out.
type panickyHandler struct{ slog.Handler }

func (h panickyHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "session events left out" {
		panic("a handler of the program")
	}
	return nil
}

func TestSlogEventsSurvivesAPanicOfTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged logBuffer
		log := echosession.SlogEvents(slog.New(panickyHandler{logged.logger().Handler()}))
		for range 20 {
			log(t.Context(), echosession.Event{Kind: echosession.EventRefused, Reason: "signature"})
		}
		time.Sleep(time.Second)
		synctest.Wait()
	})
}

func ExampleSlogEvents() {
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == "session" { // they differ from run to run
				return slog.Attr{}
			}
			return a
		},
	}))
	cfg := echosession.Config{
		Store:   echosession.NewMemoryStore(), // or Client: rdb
		Secret:  []byte("0123456789abcdef0123456789abcdef"),
		OnEvent: echosession.SlogEvents(logger),
	}
	sessions, err := echosession.New[User](cfg)
	if err != nil {
		panic(err)
	}

	ctx := context.Background()
	sess, err := sessions.Create(ctx, User{Name: "Ada"}, echosession.WithSubject("ada"))
	if err != nil {
		panic(err)
	}
	if err := sess.Destroy(ctx); err != nil {
		panic(err)
	}
	// Output:
	// level=INFO msg="session created" event=created reason=login subject=ada
	// level=INFO msg="session destroyed" event=destroyed reason=logout subject=ada
}
