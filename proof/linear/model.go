// Package linear says what a session is to its concurrent users, and checks
// histories of real ones against that: in spite of everything that overlaps,
// sessions behave as if one thing happened after the other (Herlihy and Wing,
// "Linearizability", 1990).
package linear

import (
	"fmt"
	"math"
	"strings"

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
	Read  // Open, Reload or List
	Touch // Touch or Check
	Rotate
	Destroy
	Leave // what a Create with a new subject does to the session before: it ends, unless it was renewed
	Renew // in one step

	// Where the keys of a Renew may be on different servers, it takes two steps that
	// others can see: the old session ends, and the new one begins.
	RenewEnd
	RenewBegin

	// Watch is what a canceled watch says: like a Check that found no session, at some time
	// before it was canceled.
	Watch

	// A ticket is an object by itself.
	Redeem
	Waste // a use where the ticket is not valid
)

func (k Kind) String() string {
	return [...]string{"Create", "Update", "Read", "Touch", "Rotate", "Destroy", "Leave", "Renew", "Renew, end", "Renew, begin", "Watch", "Redeem", "Waste"}[k]
}

// renews reports whether an operation ends a session that goes on under another token.
func (k Kind) renews() bool { return k == Renew || k == RenewEnd }

// Input is an operation as a client began it.
type Input struct {
	Kind    Kind
	Number  int // of the operation, in its history
	Session int
	Token   int // the number of the operation that made the token, or NoToken
	Login   int // the number of the Create or Renew that the token comes from
	Ticket  int // the number of the ticket, of a Redeem or a Waste alone

	// Subject is whose session is created, whose it is after a Renew, and without a
	// token by which subject it is looked for.
	Subject string
}

// NoToken is the Token of an operation that finds the session by its subject.
const NoToken = -1

// Result is how an operation ended.
type Result int

const (
	Done    Result = iota
	Gone           // ErrSessionGone
	Renewed        // ErrRenewed
	Unknown        // ErrIndeterminate: it took effect, or takes effect later, or never
)

// Output is what an operation told its client.
type Output struct {
	Result Result
	Seen   Data // what a Read found, and what the function of an Update or a Renew was handed, without Session

	client int   // who was told
	told   int64 // when, also if the outcome is unknown
}

// state is one session. The zero state is the one before its Create.
type state struct {
	live    bool
	data    Data
	token   int // the one that can be rotated
	login   int // the Create or Renew that the session comes from
	subject string
	pending int    // the Renew that has ended the session, and is about to begin the next one
	marks   string // the tokens that were renewed
	made    string // all tokens that there are
	taken   bool   // of a ticket: it was used
}

// renewed reports whether a token was renewed itself. A token that was rotated away
// before only leads to the one that was.
func (s state) renewed(token int) bool { return strings.Contains(s.marks, mark(token)) }

// hasMade reports whether a token exists by now.
func (s state) hasMade(token int) bool { return strings.Contains(s.made, mark(token)) }

func mark(token int) string { return fmt.Sprintf("#%d ", token) }

// find tells what an operation meets: a live session, nothing, or the mark of a Renew.
// With grace every token of a login leads to its session, else the last one alone does.
func (s state) find(grace bool, in Input) Result {
	switch {
	case in.Token == NoToken:
		if s.live && s.subject == in.Subject {
			return Done
		}
	case in.Login != s.login:
		if grace || s.renewed(in.Token) {
			return Renewed
		}
	case s.live && (grace || in.Token == s.token):
		return Done
	}
	return Gone
}

// handed is what the function of an Update or a Renew is handed: one user's data is not
// for another.
func (s state) handed(in Input) Data {
	if in.Kind.renews() && s.subject != "" && s.subject != in.Subject {
		return Data{}
	}
	return s.data
}

// step tells whether an operation may end so in a state, and what it leaves.
//
// An operation whose outcome is unknown does what it can: one that never took
// effect comes last, where nobody sees what it did.
func step(grace bool, s state, in Input, out Output) (bool, state) {
	switch in.Kind {
	case Create:
		created := state{live: true, data: Data{Writer: in.Number}, token: in.Number, login: in.Number, subject: in.Subject, made: mark(in.Number)}
		return s == state{}, created
	case RenewBegin:
		if s.pending != in.Number {
			return out.Result == Unknown, s
		}
		s.live, s.pending = true, 0
		return true, s
	case Redeem:
		return s.redeem(out)
	case Waste:
		return true, state{taken: true}
	case Watch:
		if !s.hasMade(in.Token) {
			return false, s // a watch goes on with the token of a Rotate that was done
		}
	}
	found := s.find(grace, in)
	if in.Kind == Rotate && found != Gone && in.Token != s.token && !s.renewed(in.Token) {
		if out.Result == Gone {
			return true, s // it was rotated already: see Session.Rotate
		}
		if found == Done {
			found = Gone
		}
	}
	hands := in.Kind == Read || in.Kind == Update || in.Kind.renews()
	switch out.Result {
	case Gone, Renewed:
		return found == out.Result, s
	case Unknown:
		if found != Done || hands && out.Seen != s.handed(in) {
			return true, s.withdraw(in)
		}
	case Done:
		if in.Kind == Destroy && found == Gone || in.Kind == Leave && found != Done {
			return true, s.withdraw(in)
		}
		if found != Done || hands && out.Seen != s.handed(in) {
			return false, s
		}
	}
	return true, s.after(in, out)
}

// redeem tells whether the use of a ticket may end so. Of all uses, one gets in. After one
// with an unknown outcome nobody may get in.
func (s state) redeem(out Output) (bool, state) {
	switch out.Result {
	case Done:
		return !s.taken, state{taken: true}
	case Unknown:
		return true, state{taken: true}
	}
	return s.taken, s
}

// withdraw is what a RevokeSubject leaves that comes between the steps of a Renew.
func (s state) withdraw(in Input) state {
	if in.Kind == Destroy && in.Token == NoToken && in.Subject == s.subject && s.pending != 0 {
		s.pending, s.data = 0, Data{}
	}
	return s
}

// after is the state after an operation that took effect.
func (s state) after(in Input, out Output) state {
	switch in.Kind {
	case Update:
		s.data.Count++
		s.data.Writer = in.Number
	case Rotate:
		s.token = in.Number
		s.made += mark(in.Number)
	case Destroy, Leave:
		s.live, s.data = false, Data{}
	case Renew, RenewEnd:
		s.marks += mark(s.token)
		s.made += mark(in.Number)
		s.data = Data{Count: out.Seen.Count + 1, Writer: in.Number}
		s.token, s.login, s.subject = in.Number, in.Number, in.Subject
		if in.Kind == RenewEnd {
			s.live, s.pending = false, in.Number
		}
	}
	return s
}

// model is the specification in porcupine's terms. Every session and every ticket is checked
// by itself: a history is linearizable if that of each object in it is.
func model(grace bool) porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			type object struct{ session, ticket int }
			byObject := make(map[object][]porcupine.Operation)
			for _, op := range history {
				in := op.Input.(Input)
				o := object{in.Session, in.Ticket}
				byObject[o] = append(byObject[o], op)
			}
			var parts [][]porcupine.Operation
			for _, part := range byObject {
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
			switch {
			case st.pending != 0:
				return fmt.Sprintf("ended by Renew #%d, which is under way", st.pending)
			case !st.live:
				return fmt.Sprintf("absent, renewed: %s", st.marks)
			}
			return fmt.Sprintf("count %d by #%d, token #%d of %q, renewed: %s", st.data.Count, st.data.Writer, st.token, st.subject, st.marks)
		},
	}
}

func describe(in Input, out Output) string {
	if in.Ticket != 0 {
		results := [...]string{Done: "let in", Gone: "refused", Unknown: "outcome unknown"}
		return fmt.Sprintf("#%d %v(ticket %d) → %s", in.Number, in.Kind, in.Ticket, results[out.Result])
	}
	text := fmt.Sprintf("#%d %v(session %d", in.Number, in.Kind, in.Session)
	if in.Kind != Create && in.Token != NoToken {
		text += fmt.Sprintf(", token #%d", in.Token)
	}
	if in.Kind.renews() || in.Token == NoToken {
		text += fmt.Sprintf(", subject %q", in.Subject)
	}
	text += ")"
	switch {
	case out.Result == Gone:
		return text + " → gone"
	case out.Result == Renewed:
		return text + " → renewed"
	case out.Result == Unknown:
		return text + " → outcome unknown"
	case in.Kind == Update || in.Kind == Read || in.Kind.renews():
		return fmt.Sprintf("%s → saw count %d by #%d", text, out.Seen.Count, out.Seen.Writer)
	}
	return text + " → done"
}

// never is the Return of an operation whose outcome is unknown.
const never = math.MaxInt64
