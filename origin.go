package echosession

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// An originGuard tells requests from other origins from those of the service's own.
type originGuard struct {
	protection http.CrossOriginProtection
	reports    *reporter
}

// trust adds an origin. Its error says what is wrong with it.
func (g *originGuard) trust(origin string) error {
	if err := g.protection.AddTrustedOrigin(origin); err != nil {
		return err
	}
	return checkOrigin(origin)
}

// checkOrigin says what is wrong with an origin that no browser sends in this form.
// Browsers send the serialized origin (RFC 6454 §6.1): any other form of it would match
// nothing, without a word.
func checkOrigin(origin string) error {
	u, err := url.Parse(origin)
	if err != nil || u.Scheme == "" || u.Host == "" {
		return fmt.Errorf("%q is no origin; one looks like https://app.example.com", origin)
	}
	if strings.Contains(u.Host, "*") {
		return fmt.Errorf("%q matches nothing: * stands for no part of a host; list each origin", origin)
	}
	host := strings.ToLower(u.Host)
	if port := u.Port(); port == "443" && u.Scheme == "https" || port == "80" && u.Scheme == "http" {
		host = strings.TrimSuffix(host, ":"+port)
	}
	if sent := u.Scheme + "://" + host; sent != origin {
		return fmt.Errorf("%q matches nothing; browsers send %q", origin, sent)
	}
	return nil
}

// check returns ErrCrossOrigin for a request that no page of another origin may
// send.
func (g *originGuard) check(r *http.Request) error {
	websocket := r.Method == http.MethodGet && asksForWebSocket(r.Header)
	if websocket || r.Host == "" {
		strict := *r
		if websocket {
			// A WebSocket begins with a GET, can do anything after it, and is not
			// held back by CORS.
			strict.Method = http.MethodPost
		}
		if r.Host == "" {
			// Origins without a host, such as null, must not match it.
			strict.Host = " "
		}
		r = &strict
	}
	if err := g.protection.Check(r); err != nil {
		return fmt.Errorf("%w: %w", ErrCrossOrigin, err)
	}
	return nil
}

// refuse is check for a request that is then answered with the error: where the
// browser did not say itself that the request is cross-origin, the log gets advice.
func (g *originGuard) refuse(r *http.Request) error {
	err := g.check(r)
	if err != nil && r.Header.Get("Sec-Fetch-Site") == "" {
		g.log(r)
	}
	return err
}

// log tells of a refusal, at most once a second.
func (g *originGuard) log(r *http.Request) {
	const advice = "request refused because its Origin is not its Host; if the origin is this service's own behind a proxy, " +
		"or an app that may use its cookies, list it in Config.TrustedOrigins"
	n := g.reports.due(&failureKind{message: advice})
	if n == 0 {
		return
	}
	const most = 200 // bytes of what a stranger wrote
	clip := func(s string) string { return s[:min(len(s), most)] }
	g.reports.logger.Warn(advice,
		"origin", clip(r.Header.Get("Origin")), "host", clip(r.Host), "refused", n)
}

// asksForWebSocket reports whether a request asks for a WebSocket, however it says
// so (RFC 9110 §7.8: a list of protocols, each perhaps with a version).
func asksForWebSocket(h http.Header) bool {
	for _, line := range h["Upgrade"] {
		for protocol := range strings.SplitSeq(line, ",") {
			name, _, _ := strings.Cut(protocol, "/")
			if strings.EqualFold(strings.TrimSpace(name), "websocket") {
				return true
			}
		}
	}
	return false
}
