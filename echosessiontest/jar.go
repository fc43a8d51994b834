package echosessiontest

import (
	"cmp"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// A jar keeps cookies as browsers do (RFC 6265bis). Unlike net/http/cookiejar, it goes
// by the clock of the harness, and knows SameSite and the prefixes of names.
type jar struct {
	now     func() time.Time
	refused func(format string, args ...any) // is told why a cookie is not kept

	mu   sync.Mutex
	kept []keptCookie
}

// A keptCookie is a cookie, and what the browser knows of it.
type keptCookie struct {
	name, value string
	host        string // that set it, or its Domain
	subdomains  bool   // it has a Domain
	path        string
	secure      bool
	sameSite    http.SameSite
	expires     time.Time // zero: when the browser is closed
}

// cookies returns those that go along with a request. An open request is one that
// also takes Lax cookies along from another site: a link that is followed.
func (j *jar) cookies(to *url.URL, from relation, open bool) []*http.Cookie {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := j.now()
	j.kept = slices.DeleteFunc(j.kept, func(c keptCookie) bool { return c.expired(now) })
	var sent []keptCookie
	for _, c := range j.kept {
		if c.goesTo(to) && c.comesFrom(from, open) {
			sent = append(sent, c)
		}
	}
	// Those with a longer path first, then those that were set earlier (§5.8.3).
	slices.SortStableFunc(sent, func(a, b keptCookie) int { return cmp.Compare(len(b.path), len(a.path)) })
	var cookies []*http.Cookie
	for _, c := range sent {
		cookies = append(cookies, &http.Cookie{Name: c.name, Value: c.value})
	}
	return cookies
}

// keep keeps the cookies that an answer sets, and forgets those that it clears.
func (j *jar) keep(from *url.URL, set []*http.Cookie) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, cookie := range set {
		c := j.read(from, cookie)
		if reason := c.forbidden(from, cookie); reason != "" {
			j.refused("echosessiontest: the browser refuses the cookie %s: %s", cookie.Name, reason)
			continue
		}
		i := slices.IndexFunc(j.kept, func(old keptCookie) bool {
			return old.name == c.name && old.host == c.host && old.subdomains == c.subdomains && old.path == c.path
		})
		if i < 0 {
			j.kept = append(j.kept, c)
		} else {
			j.kept[i] = c
		}
	}
}

// reopen forgets the cookies without a lifetime.
func (j *jar) reopen() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.kept = slices.DeleteFunc(j.kept, func(c keptCookie) bool { return c.expires.IsZero() })
}

// read gives a cookie the defaults that its attributes leave open.
func (j *jar) read(from *url.URL, cookie *http.Cookie) keptCookie {
	c := keptCookie{
		name: cookie.Name, value: cookie.Value,
		host: from.Hostname(), path: cookie.Path,
		secure: cookie.Secure, sameSite: cookie.SameSite, expires: cookie.Expires,
	}
	if domain := strings.ToLower(strings.TrimPrefix(cookie.Domain, ".")); domain != "" {
		c.host, c.subdomains = domain, true
	}
	if !strings.HasPrefix(c.path, "/") {
		c.path = path.Dir("/" + strings.TrimPrefix(from.Path, "/"))
	}
	switch {
	case cookie.MaxAge > 0:
		c.expires = j.now().Add(time.Duration(cookie.MaxAge) * time.Second)
	case cookie.MaxAge < 0:
		c.expires = time.Unix(0, 0)
	}
	return c
}

// forbidden says why browsers do not take the cookie, or returns "".
func (c keptCookie) forbidden(from *url.URL, cookie *http.Cookie) string {
	name := strings.ToLower(c.name)
	const most = 4096 // §5.7
	switch {
	case len(c.name)+len(c.value) > most:
		return "it has over 4096 bytes"
	case c.subdomains && !withinDomain(from.Hostname(), c.host):
		return "its Domain is another one than the site's"
	case c.subdomains && c.host != from.Hostname() && !strings.Contains(c.host, "."):
		return "its Domain has room for strangers"
	case c.secure && from.Scheme != "https":
		return "it is Secure, and the site is not"
	case !c.secure && c.sameSite == http.SameSiteNoneMode:
		return "SameSite=None demands Secure"
	case !c.secure && (strings.HasPrefix(name, "__secure-") || strings.HasPrefix(name, "__host-")):
		return "its prefix demands Secure"
	case strings.HasPrefix(name, "__host-") && (c.subdomains || cookie.Path != "/"):
		return "the prefix __Host- demands Path=/ and no Domain"
	default:
		return ""
	}
}

func (c keptCookie) expired(now time.Time) bool {
	return !c.expires.IsZero() && !now.Before(c.expires)
}

func (c keptCookie) goesTo(to *url.URL) bool {
	host, dir := to.Hostname(), strings.TrimSuffix(c.path, "/")+"/"
	return (host == c.host || c.subdomains && withinDomain(host, c.host)) &&
		(to.Path == c.path || strings.HasPrefix(cmp.Or(to.Path, "/"), dir)) &&
		(!c.secure || to.Scheme == "https")
}

// comesFrom reports whether SameSite lets the cookie go along. Without it, browsers
// take it for Lax.
func (c keptCookie) comesFrom(from relation, open bool) bool {
	switch {
	case from != crossSite, c.sameSite == http.SameSiteNoneMode:
		return true
	default:
		return open && c.sameSite != http.SameSiteStrictMode
	}
}

// noneOnly returns the cookies that an answer can set in a page of another site.
func noneOnly(set []*http.Cookie) []*http.Cookie {
	return slices.DeleteFunc(set, func(c *http.Cookie) bool { return c.SameSite != http.SameSiteNoneMode })
}

// withinDomain reports whether a host is the domain or below it.
func withinDomain(host, domain string) bool {
	return host == domain || strings.HasSuffix(host, "."+domain) && net.ParseIP(host) == nil
}
