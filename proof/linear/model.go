// Package linear says what a session is to its concurrent users, and checks
// histories of real ones against that: in spite of everything that overlaps,
// sessions behave as if one thing happened after the other (Herlihy and Wing,
// "Linearizability", 1990).
package linear

import (
	"fmt"
	"math"

	"github.com/anishathalye/porcupine"
)

// Data is what the sessions of a history hold. Each write leaves its own mark, so
// that a lost or doubled one shows in the next read.
type Data struct {
	Session int // which session of the history this is
	Count   int // how many updates there were
	Writer  int // the number of the last operation that wrote
}

// Kind is what a client asks for.
type Kind int

const (
	Create Kind = iota
	Update
	Read // Open, Reload or List
	Touch
	Rotate
	Destroy
)

func (k Kind) String() string {
	return [...]string{"Create", "Update", "Read", "Touch", "Rotate", "Destroy"}[k]
}

// Input is an operation as a client began it.
type Input struct {
	Kind    Kind
	Number  int // of the operation, in its history
	Session int
	Token   int // the number of the operation that made the token, or NoToken
}

// NoToken is the Token of an operation that finds the session by its subject.
const NoToken = -1

// Result is how an operation ended.
type Result int

const (
	Done    Result = iota
	Gone           // ErrSessionGone
	Unknown        // ErrIndeterminate: it took effect, or takes effect later, or never
)

// Output is what an operation told its client.
type Output struct {
	Result Result
	Seen   Data // what a Read found, and what an Update's function was handed, without Session
}

// state is one session. The zero state is the one before its Create.
type state struct {
	live  bool
	data  Data
	token int // the one that can be rotated
}

// step tells whether an operation may end so in a state, and what it leaves. With
// grace every token of the session leads to it, else the last one alone does.
//
// An operation whose outcome is unknown does what it can: one that never took
// effect comes last, where nobody sees what it did.
func step(grace bool, s state, in Input, out Output) (bool, state) {
	found := s.live && (grace || in.Token == s.token || in.Token == NoToken)
	if in.Kind == Rotate && in.Token != s.token {
		found = false // it was rotated already: see Session.Rotate
	}
	if in.Kind == Create {
		return !s.live, state{true, Data{Writer: in.Number}, in.Number}
	}
	switch out.Result {
	case Gone:
		return !found, s
	case Unknown:
		if !found || in.Kind == Update && out.Seen != s.data {
			return true, s
		}
	case Done:
		if in.Kind == Destroy && !found {
			return true, s
		}
		if !found || (in.Kind == Read || in.Kind == Update) && out.Seen != s.data {
			return false, s
		}
	}
	switch in.Kind {
	case Update:
		s.data.Count++
		s.data.Writer = in.Number
	case Rotate:
		s.token = in.Number
	case Destroy:
		s = state{}
	}
	return true, s
}

// model is the specification in porcupine's terms. Every session is checked by
// itself: a history is linearizable if that of each object in it is.
func model(grace bool) porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			bySession := make(map[int][]porcupine.Operation)
			for _, op := range history {
				s := op.Input.(Input).Session
				bySession[s] = append(bySession[s], op)
			}
			var parts [][]porcupine.Operation
			for _, part := range bySession {
				parts = append(parts, part)
			}
			return parts
		},
		Init: func() any { return state{} },
		Step: func(s, in, out any) (bool, any) {
			return step(grace, s.(state), in.(Input), out.(Output))
		},
		Hash: func(s any) uint64 {
			st := s.(state)
			return uint64(st.data.Writer)<<32 ^ uint64(st.token)
		},
		DescribeOperation: func(in, out any) string { return describe(in.(Input), out.(Output)) },
		DescribeState: func(s any) string {
			st := s.(state)
			if !st.live {
				return "absent"
			}
			return fmt.Sprintf("count %d by #%d, token #%d", st.data.Count, st.data.Writer, st.token)
		},
	}
}

func describe(in Input, out Output) string {
	text := fmt.Sprintf("#%d %v(session %d", in.Number, in.Kind, in.Session)
	if in.Kind != Create && in.Token != NoToken {
		text += fmt.Sprintf(", token #%d", in.Token)
	}
	text += ")"
	switch {
	case out.Result == Gone:
		return text + " → gone"
	case out.Result == Unknown:
		return text + " → outcome unknown"
	case in.Kind == Update || in.Kind == Read:
		return fmt.Sprintf("%s → saw count %d by #%d", text, out.Seen.Count, out.Seen.Writer)
	}
	return text + " → done"
}

// never is the Return of an operation whose outcome is unknown.
const never = math.MaxInt64
