package echosession

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Cookie carries the token of browsers. It is always HttpOnly, and the zero value
// is the safest: Secure, SameSite=Lax, for this host alone and until the browser
// is closed. It may be copied.
type Cookie struct {
	// Name is the cookie's name. Default "__Host-session", and "session" with
	// Insecure, because browsers accept the prefix only on secure cookies.
	Name string

	// Path is the path that the cookie is sent to. Default "/".
	Path string

	// Domain makes the cookie go to all hosts of a domain. It excludes the prefix
	// __Host- in Name. Default: to the host that set it alone.
	Domain string

	// SameSite is when the cookie goes along with requests from other sites.
	// Default http.SameSiteLaxMode.
	SameSite http.SameSite

	// Persistent lets the cookies of all sessions outlive the browser; [Remember] does it
	// for one. Such a cookie lives as long as the session does if nobody uses it, which
	// is the idle timeout. [Get] sends it again when a
	// tenth of the idle timeout has passed, and [Session.Touch] at once. A token that
	// was rotated away is never sent again. Default false.
	Persistent bool

	// Partitioned gives a page that runs in frames of other sites a cookie of its own for
	// each site around it (CHIPS). Such a cookie reaches the frame only with
	// http.SameSiteNoneMode, and needs a secure cookie. Default false.
	Partitioned bool

	// Insecure lets browsers send the cookie over plain HTTP. It is for development
	// only. Default false.
	Insecure bool
}

// maxCookie is how many bytes of name and value browsers take (RFC 6265bis §5.7).
const maxCookie = 4096

// compiled returns c with its defaults, or its mistakes.
func (c Cookie) compiled() (*Cookie, error) {
	if c.Name == "" {
		c.Name = "__Host-session"
		if c.Insecure {
			c.Name = "session"
		}
	}
	if c.Path == "" {
		c.Path = "/"
	}
	if c.SameSite == 0 || c.SameSite == http.SameSiteDefaultMode {
		c.SameSite = http.SameSiteLaxMode
	}
	var errs []error
	if err := (&http.Cookie{Name: c.Name, Value: "x", Path: c.Path, Domain: c.Domain}).Valid(); err != nil {
		errs = append(errs, err)
	}
	if len(c.Name) > maxCookie/2 {
		errs = append(errs, fmt.Errorf("the name has %d bytes; with a token browsers take %d in all", len(c.Name), maxCookie))
	}
	prefix := strings.ToLower(c.Name)
	host := strings.HasPrefix(prefix, "__host-")
	if host && (c.Domain != "" || c.Path != "/") {
		errs = append(errs, errors.New("a name with the prefix __Host- excludes a Domain and a Path other than /; drop them or the prefix"))
	}
	if c.Insecure && (host || strings.HasPrefix(prefix, "__secure-")) {
		errs = append(errs, errors.New("the prefixes __Host- and __Secure- exclude Insecure; take another name in development"))
	}
	if c.Insecure && c.Partitioned {
		errs = append(errs, errors.New("the attribute Partitioned needs a secure cookie; drop Insecure or Partitioned"))
	}
	if c.Insecure && c.SameSite == http.SameSiteNoneMode {
		errs = append(errs, errors.New("SameSite=None needs a secure cookie; drop Insecure or take http.SameSiteLaxMode"))
	}
	return &c, errors.Join(errs...)
}

// fits reports whether browsers take the cookie with this token.
func (c *Cookie) fits(token string) bool {
	return c == nil || len(c.Name)+len(token) <= maxCookie
}

// set puts the cookie into the answer: until the browser is closed, or for the time
// that the session has left.
func (c *Cookie) set(h http.Header, token string, persistent bool, left time.Duration) {
	maxAge := 0
	if persistent {
		maxAge = max(1, int(left/time.Second))
	}
	c.write(h, token, maxAge)
}

// clear makes the browser forget the cookie.
func (c *Cookie) clear(h http.Header) {
	c.write(h, "", -1)
}

func (c *Cookie) write(h http.Header, value string, maxAge int) {
	// An answer names a cookie once (RFC 6265 §4.1.1): the last value counts.
	c.drop(h)
	cookie := &http.Cookie{
		Name:        c.Name,
		Value:       value,
		Path:        c.Path,
		Domain:      c.Domain,
		MaxAge:      maxAge,
		Secure:      !c.Insecure,
		HttpOnly:    true,
		SameSite:    c.SameSite,
		Partitioned: c.Partitioned,
	}
	h.Add("Set-Cookie", cookie.String())
}

// drop takes the cookie out of the answer: the browser keeps the one that it has.
func (c *Cookie) drop(h http.Header) {
	lines := slices.DeleteFunc(h["Set-Cookie"], func(line string) bool {
		return strings.HasPrefix(line, c.Name+"=")
	})
	if len(lines) == 0 {
		delete(h, "Set-Cookie")
		return
	}
	h["Set-Cookie"] = lines
}
