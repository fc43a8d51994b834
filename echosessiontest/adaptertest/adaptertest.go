// Package adaptertest checks that an adapter of a web framework does with
// sessions what the adapters of this module do. One suite serves them all: it
// sends the same requests to each over real connections, and expects the same
// answers, byte for byte, of each.
//
// Whoever writes an adapter describes it with an [Adapter] and calls [Run] in a
// test:
//
//	func TestAdapter(t *testing.T) {
//		adaptertest.Run(t, adaptertest.Adapter[*web.Context, web.Middleware]{ ... })
//	}
//
// The tests of this module show such descriptions: adapter_test.go for Echo v4 and
// for the example of [echosession.Exchange], echov5/echov5_test.go for Echo v5 and
// nethttp/adapter_test.go for net/http.
//
// What the suite expects of errors is Echo's form of them: a JSON object whose
// message is that of the [echosession.Answer], followed by a line feed, with
// Content-Type application/json; and for errors of others status 500 with the
// message "Internal Server Error". The answer to a HEAD has neither the object
// nor its Content-Type.
package adaptertest

import (
	"net/http"
	"testing"

	"github.com/echosession/echosession"
)

// User is the data of most of the suite's sessions.
type User struct {
	Name string
	Cart []string
}

// Staff is the data of the suite's other sessions.
type Staff struct{ Badge string }

// An Adapter describes a web framework and the adapter for it. C is what the
// framework's handlers get, and M is the type of its middleware. Every field is
// required, unless its comment says otherwise.
type Adapter[C, M any] struct {
	// Serve returns a server's handler with one route: any method, on the path
	// /{token}, whose parameter is named "token". It puts middleware before
	// handler, the first one outermost, and where the middleware can see the
	// path's parameters. The framework is as New or its like makes it: nothing
	// recovers from panics, logs go nowhere.
	Serve func(handler func(C) error, middleware ...M) http.Handler

	// Around makes middleware of a function of net/http. The function calls next
	// at most once. What follows sees the request that it hands to next. next
	// returns the error of what follows, or nil where the framework has answered
	// it already. The error that the function returns is that of the middleware.
	Around func(func(w http.ResponseWriter, r *http.Request, next func(*http.Request) error) error) M

	// Request returns the request that the handler sees.
	Request func(C) *http.Request

	// Writer returns the writer that the handler writes to. The suite flushes and
	// hijacks it with an [http.ResponseController].
	Writer func(C) http.ResponseWriter

	// Users and Staff are the same functions of the adapter, for two types.
	Users Sessions[User, C, M]
	Staff Sessions[Staff, C, M]

	// BlindToFlush says that the framework does not notice it when a handler sends
	// the header otherwise than by WriteHeader or Write: with a Flush that comes
	// before both, or with Hijack. Echo's Response is like this. After either, a
	// Create cannot know that its cookie comes too late, and what the handler set
	// Cache-Control to is sent. The suite leaves these two cases out.
	BlindToFlush bool

	// NoEarlyHints says that the framework takes a WriteHeader with an
	// informational status (103 Early Hints) for the answer's own. Echo's Response
	// does. The suite leaves these cases out.
	NoEarlyHints bool
}

// Sessions are the functions of an adapter for sessions whose data is a T.
type Sessions[T, C, M any] struct {
	// Middleware installs the sessions of m.
	Middleware func(m *echosession.Manager[T]) M

	// Require lets only requests pass that have a live session of m and meet opts.
	// It accepts the sessions of m alone: see [echosession.Manager.Only].
	Require func(m *echosession.Manager[T], opts ...echosession.RequireOption) M

	// Get returns the session of a request.
	Get func(c C, requestKey ...string) (*echosession.Session[T], error)

	// With makes a handler of a function that needs the session of m. It is nil when the
	// adapter has no such function.
	With func(m *echosession.Manager[T], h func(C, *echosession.Session[T]) error) func(C) error

	// Configured makes a Manager of cfg, and middleware that installs its sessions
	// as the Options say. It is nil when the adapter has no such options.
	Configured func(cfg echosession.Config, o Options) (*echosession.Manager[T], M, error)
}

// Options are what adapters offer of their own, each in its framework's types.
// Exactly one of them is set.
type Options struct {
	// Skip leaves out requests for which it returns true.
	Skip func(r *http.Request) bool

	// OnError answers the errors of package echosession that handlers return.
	OnError func(w http.ResponseWriter, r *http.Request, err error)
}

// Run checks an adapter. Each case is a subtest whose name is the rule that it
// checks. It starts servers on the loopback interface, and needs no Redis.
func Run[C, M any](t *testing.T, a Adapter[C, M]) {
	s := suite[C, M]{a}
	t.Run("token", s.testTokens)
	t.Run("ambiguous token", s.testAmbiguous)
	t.Run("body", s.testBodies)
	t.Run("request", s.testRequests)
	t.Run("returned error", s.testReturned)
	t.Run("require", s.testRequire)
	t.Run("outage", s.testOutage)
	t.Run("events", s.testEvents)
	t.Run("cookie", s.testCookies)
	t.Run("renewed cookie", s.testRenewal)
	t.Run("private answer", s.testPrivate)
	t.Run("caches", s.testCaches)
	t.Run("cross-origin", s.testCrossOrigin)
	t.Run("flows", s.testFlows)
	t.Run("login", s.testLogin)
	t.Run("login from another site", s.testLoginFromElsewhere)
	t.Run("guest", s.testGuests)
	t.Run("remembered cookie", s.testRemember)
	t.Run("partitioned cookie", s.testPartitioned)
	t.Run("authenticated", s.testAuthenticated)
	t.Run("too many sessions", s.testTooMany)
	t.Run("words of the lookup", s.testWords)
	t.Run("ticket", s.testTickets)
	t.Run("with", s.testWith)
	t.Run("several instances", s.testInstances)
	t.Run("options", s.testOptions)
	t.Run("panic", s.testPanic)
	t.Run("flush", s.testFlush)
	t.Run("stream", s.testStreams)
	t.Run("hijack", s.testHijack)
	t.Run("early hints", s.testEarlyHints)
	t.Run("late use", s.testLateUse)
	t.Run("at the same time", s.testConcurrent)
}
