package outage_test

import (
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// A client is alone with its session: it knows what the session holds.
type client struct {
	*site
	name   string
	random *rand.Rand
	token  string
	limit  time.Duration // StaleFor, where the store does not come back

	op      int          // number of the last update
	refused map[int]bool // updates that were refused
	done    []int        // updates that were confirmed
	doubt   bool         // since a write of unknown outcome, nothing has succeeded
	over    bool         // the session has ended, and the server said so
	leaving bool         // a logout has been tried, with an unknown outcome
	fresh   interval     // the last read from the store
}

// interval is when a request began, and when its answer was there.
type interval struct{ from, to time.Time }

// act reads, and writes now and then.
func (c *client) act() {
	if c.random.IntN(100) < 95 {
		c.read()
	} else {
		c.write()
	}
}

// leave reads, and tries now and then to log out.
func (c *client) leave() {
	if !c.over && c.random.IntN(4) == 0 {
		c.logout()
	} else {
		c.read()
	}
}

// read reads on a route with ServeStale, and judges the answer.
func (c *client) read() {
	began := time.Now()
	status, body, header := c.send(http.MethodGet, "/session")
	ended := time.Now()
	stale := header.Get(staleHeader) == "true"
	answer := strconv.Itoa(status)
	if stale {
		answer += ", stale"
	}
	// A logout of unknown outcome may have ended the session: 401 then says that it did.
	mayBeGone := c.leaving && status == http.StatusUnauthorized
	kind := "read, live"
	switch {
	case c.over:
		kind = "read, ended"
		if status != http.StatusUnauthorized && status != http.StatusServiceUnavailable {
			c.tally.wrong("%s has logged out and got %s", c.name, answer)
		}
	case c.doubt:
		// Nothing may be served that is older than a write which may have been done.
		kind = "read, after a write of unknown outcome"
		if stale || status != http.StatusOK && status != http.StatusServiceUnavailable && !mayBeGone {
			c.tally.wrong("%s does not know of its last write and got %s", c.name, answer)
		}
	case status == http.StatusOK && c.limit > 0 && stale && began.After(c.fresh.to.Add(c.limit)):
		c.tally.wrong("%s was served %v after its last read of the store", c.name, began.Sub(c.fresh.to))
	case status == http.StatusServiceUnavailable && c.limit > 0 && ended.After(c.fresh.from.Add(c.limit)):
		kind = "read, too late"
	case status != http.StatusOK && !mayBeGone:
		c.tally.wrong("a live session of %s got %s", c.name, answer)
	}
	c.tally.add(kind, answer, began, ended)
	if status == http.StatusOK {
		c.judge(body)
	}
	if status == http.StatusOK && !stale {
		c.fresh, c.doubt = interval{began, ended}, false
	}
	if mayBeGone {
		c.over = true
	}
}

// judge compares what was read with what was written.
func (c *client) judge(body string) {
	var a Account
	if err := json.Unmarshal([]byte(body), &a); err != nil || a.Owner != c.name {
		c.tally.wrong("%s got %s", c.name, body)
		return
	}
	seen := make(map[int]bool)
	for _, op := range a.Ops {
		if seen[op] {
			c.tally.wrong("an update of %s was done twice", c.name)
		}
		if c.refused[op] {
			c.tally.wrong("an update of %s was done that was refused", c.name)
		}
		seen[op] = true
	}
	for _, op := range c.done {
		if !seen[op] {
			c.tally.wrong("a confirmed update of %s is not in what it reads", c.name)
		}
	}
	if a.Count != len(a.Ops) {
		c.tally.wrong("%s has count %d after %d updates", c.name, a.Count, len(a.Ops))
	}
}

// write updates the session.
func (c *client) write() {
	c.op++
	began := time.Now()
	status, body, header := c.send(http.MethodPut, "/session?op="+strconv.Itoa(c.op))
	ended := time.Now()
	answer := strconv.Itoa(status)
	switch {
	case status == http.StatusOK:
		c.done, c.doubt = append(c.done, c.op), false
		c.fresh = interval{began, ended}
		c.judge(body)
	case status == http.StatusServiceUnavailable && header.Get(doubtHeader) == "done":
		answer += ", perhaps done"
		c.doubt = true
	case status == http.StatusServiceUnavailable:
		c.refused[c.op] = true
	default:
		c.tally.wrong("a write of %s got %d %s", c.name, status, body)
	}
	if status == http.StatusServiceUnavailable && header.Get(readHeader) == "true" {
		c.fresh.to = ended // it was read, perhaps as late as that
	}
	c.tally.add("write, live", answer, began, ended)
}

// logout ends the session.
func (c *client) logout() int {
	began := time.Now()
	status, body, header := c.send(http.MethodDelete, "/session")
	answer := strconv.Itoa(status)
	switch {
	case status == http.StatusNoContent:
		c.over = true
	case status == http.StatusServiceUnavailable && header.Get(doubtHeader) == "done":
		answer += ", perhaps done"
		c.doubt, c.leaving = true, true
	case status == http.StatusUnauthorized && c.leaving:
		c.over = true
	case status != http.StatusServiceUnavailable:
		c.tally.wrong("a logout of %s got %d %s", c.name, status, body)
	}
	c.tally.add("logout", answer, began, time.Now())
	return status
}

// account compares in the end what is stored with what was written.
func (c *client) account() {
	status, body, _ := c.send(http.MethodGet, "/fresh")
	for tries := 0; status == http.StatusServiceUnavailable && tries < 50; tries++ {
		time.Sleep(100 * time.Millisecond) // the last of the failover, or a machine that is busy
		status, body, _ = c.send(http.MethodGet, "/fresh")
	}
	switch {
	case c.over && status == http.StatusUnauthorized, c.leaving && status == http.StatusUnauthorized:
	case !c.over && status == http.StatusOK:
		c.judge(body)
	default:
		c.tally.wrong("in the end, %s got %d %s", c.name, status, body)
	}
}

// send sends a request and returns its answer. Status 0 is none.
func (c *client) send(method, path string) (status int, body string, header http.Header) {
	r, err := http.NewRequest(method, c.url+path, nil)
	if err != nil {
		return 0, err.Error(), nil
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	query := r.URL.Query()
	query.Set("owner", c.name)
	r.URL.RawQuery = query.Encode()
	resp, err := c.http.Do(r)
	if err != nil {
		return 0, err.Error(), nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error(), nil
	}
	return resp.StatusCode, string(text), resp.Header
}
