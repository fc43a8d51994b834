package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// check makes sure that a contender does what is measured: otherwise its figures
// say nothing.
func check(addr string, stateless bool) error {
	c, err := dial(addr)
	if err != nil {
		return err
	}
	defer c.close()
	ans, err := c.do(build("GET", "/me", ""))
	if err != nil {
		return err
	}
	if ans.status != 200 || string(ans.body) != anonymous {
		return fmt.Errorf("anonymous read answered %d %q", ans.status, ans.body)
	}
	if stateless {
		return nil
	}

	alice, bob := newUser("check-alice"), newUser("check-bob")
	asAlice, err := c.login(alice.ID)
	if err != nil {
		return err
	}
	asBob, err := c.login(bob.ID)
	if err != nil {
		return err
	}
	for want := 1; want <= 3; want++ {
		ans, err := c.do(build("POST", "/visit", asAlice))
		if err != nil {
			return err
		}
		if got, err := visits(string(ans.body), alice); err != nil || got != want {
			return fmt.Errorf("write %d answered %d %q", want, ans.status, ans.body)
		}
	}
	if err := c.expectVisits(asAlice, alice, 3); err != nil {
		return err
	}
	if err := c.expectVisits(asBob, bob, 0); err != nil {
		return err
	}

	if ans, err = c.do(build("POST", "/visit", "")); err != nil {
		return err
	}
	if ans.status/100 == 2 {
		return errors.New("a write without a session was accepted")
	}
	if ans, err = c.do(build("GET", "/me", forge(asAlice))); err != nil {
		return err
	}
	if bytes.Contains(ans.body, []byte(alice.ID)) {
		return errors.New("a forged credential was accepted")
	}
	return nil
}

// forge changes one character in the middle of the credential's value.
func forge(cred credential) credential {
	b := []byte(strings.TrimSpace(string(cred)))
	i := len(b) - 10
	if b[i] == 'a' {
		b[i] = 'b'
	} else {
		b[i] = 'a'
	}
	return credential(b) + "\r\n"
}

// expectVisits reads until the session holds the count, for as long as a cache
// may be behind.
func (c *client) expectVisits(cred credential, u User, want int) error {
	got, err := c.visits(cred, u)
	for patience := time.Now().Add(250 * time.Millisecond); err == nil && got != want && time.Now().Before(patience); {
		got, err = c.visits(cred, u)
	}
	if err == nil && got != want {
		err = fmt.Errorf("session of %s holds %d visits, want %d", u.ID, got, want)
	}
	return err
}

func (c *client) visits(cred credential, u User) (int, error) {
	ans, err := c.do(build("GET", "/me", cred))
	if err != nil {
		return 0, err
	}
	return visits(string(ans.body), u)
}

// contest lets several connections write to one session at once.
func contest(addr string) (accepted, lost int, err error) {
	const writers, writes = 8, 25
	u := newUser("contested")
	c, err := dial(addr)
	if err != nil {
		return 0, 0, err
	}
	defer c.close()
	cred, err := c.login(u.ID)
	if err != nil {
		return 0, 0, err
	}
	ok := make([]int, writers)
	errs := make([]error, writers)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() { ok[i], errs[i] = write(addr, cred, writes) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return 0, 0, err
	}
	for _, n := range ok {
		accepted += n
	}
	// What a client-side cache may be behind is not lost.
	if c.expectVisits(cred, u, accepted) == nil {
		return accepted, 0, nil
	}
	got, err := c.visits(cred, u)
	return accepted, accepted - got, err
}

// write returns how many of n writes were accepted.
func write(addr string, cred credential, n int) (accepted int, err error) {
	c, err := dial(addr)
	if err != nil {
		return 0, err
	}
	defer c.close()
	request := build("POST", "/visit", cred)
	for range n {
		ans, err := c.do(request)
		if err != nil {
			return accepted, err
		}
		if ans.status/100 == 2 {
			accepted++
		}
	}
	return accepted, nil
}
