package redistest

import "time"

// An Action says what becomes of a command. The zero Action passes the command
// and its reply on.
type Action struct {
	withhold bool // the command does not reach the server
	last     bool // no later command of the connection reaches it either
	apply    func(c *conn, reply []byte) fate
}

// fate is what becomes of a connection after an action.
type fate int

const (
	goOn   fate = iota
	mute        // the client gets nothing any more
	stream      // everything is passed on, nothing paired
)

// DropRequest closes the connection before the command is sent: it never runs.
// Replies to earlier commands of the connection arrive.
func DropRequest() Action {
	return Action{withhold: true, last: true, apply: func(c *conn, _ []byte) fate {
		_ = c.client.CloseWrite()
		return mute
	}}
}

// DropReply lets the command run and closes the connection in place of the reply.
// What the client had sent behind it on the connection runs as well.
func DropReply() Action {
	return Action{apply: func(c *conn, _ []byte) fate {
		_ = c.client.CloseWrite()
		return mute
	}}
}

// CutReply lets the command run, delivers the first n bytes of the reply and
// resets the connection. A negative n counts from the reply's end: -1 keeps the
// last byte back.
func CutReply(n int) Action {
	return Action{apply: func(c *conn, reply []byte) fate {
		end := n // of this reply; the next one may be shorter
		if end < 0 {
			end = max(0, len(reply)+end)
		}
		_, _ = c.client.Write(reply[:min(end, len(reply))])
		_ = c.client.SetLinger(0)
		_ = c.client.Close()
		return mute
	}}
}

// Delay lets the command run and holds the reply, and all behind it on the
// connection, for d.
func Delay(d time.Duration) Action {
	return Action{apply: func(c *conn, reply []byte) fate {
		select {
		case <-time.After(d):
		case <-c.done:
		}
		_, _ = c.client.Write(reply)
		return goOn
	}}
}

// Hang never answers, and leaves the connection open. The server gets neither the
// command nor any later one of the connection.
func Hang() Action {
	return Action{withhold: true, last: true, apply: func(*conn, []byte) fate { return mute }}
}

// Reply answers in the server's place with raw, which is a whole frame:
// "-READONLY You can't write against a read only replica.\r\n".
func Reply(raw string) Action {
	return Action{withhold: true, apply: func(c *conn, _ []byte) fate {
		_, _ = c.client.Write([]byte(raw))
		return goOn
	}}
}

// swapWait bounds how long a reply waits for another.
const swapWait = 5 * time.Second

// SwapReply lets commands of two connections run and gives each the reply of the
// other. A command that finds no other for 5 s gets its own.
func SwapReply() Action {
	type offer struct {
		reply  []byte
		answer chan []byte
	}
	offers := make(chan offer)
	return Action{apply: func(c *conn, reply []byte) fate {
		mine := offer{reply, make(chan []byte, 1)}
		select {
		case offers <- mine:
			reply = <-mine.answer
		case theirs := <-offers:
			theirs.answer <- reply
			reply = theirs.reply
		case <-time.After(swapWait):
		case <-c.done:
		}
		_, _ = c.client.Write(reply)
		return goOn
	}}
}
