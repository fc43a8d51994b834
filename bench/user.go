package main

import (
	"encoding/gob"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// User is the struct that every contender keeps in its sessions: about 250
// bytes encoded.
type User struct {
	ID        string            `json:"id"`
	Name      string            `json:"name"`
	Email     string            `json:"email"`
	Roles     []string          `json:"roles"`
	CreatedAt time.Time         `json:"created_at"`
	Visits    int               `json:"visits"`
	Quota     int64             `json:"quota"`
	Settings  map[string]string `json:"settings"`
}

// scs, gorilla/sessions and Fiber keep values of any type, which gob has to
// know by name.
func init() { gob.Register(User{}) }

func newUser(id string) User {
	return User{
		ID:        id,
		Name:      "Alexandra Featherstonehaugh",
		Email:     "alexandra.featherstonehaugh@example.com",
		Roles:     []string{"member", "editor", "billing"},
		CreatedAt: time.Date(2025, 3, 14, 15, 9, 26, 535_000_000, time.UTC),
		Quota:     5_000_000_000,
		Settings: map[string]string{
			"language": "en-GB",
			"theme":    "dark",
			"timezone": "Europe/London",
			"start":    "/dashboard",
		},
	}
}

// anonymous answers a read without a session.
const anonymous = "anonymous"

// greeting answers a read or a write with a session. It names what the check
// needs to see, and costs next to nothing beside the session.
func greeting(u *User) string {
	return u.ID + " " + u.Name + " " + strconv.Itoa(u.Visits)
}

// visits reads the count out of a greeting for u.
func visits(body string, u User) (int, error) {
	count, found := strings.CutPrefix(body, u.ID+" "+u.Name+" ")
	if !found {
		return 0, fmt.Errorf("answer %q is not for user %s", body, u.ID)
	}
	return strconv.Atoi(count)
}
