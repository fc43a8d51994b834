package echosession

import "time"

// What the tests of tokens reach in the package.

const NoIdle = noIdle

type Tokens = tokens

type TokenConfig struct {
	Keys     []SigningKey
	WithKid  bool
	Issuer   string
	Audience []string
	Skew     time.Duration
}

func NewTokens(c TokenConfig) (*Tokens, error) {
	return newTokens(tokenConfig{c.Keys, c.WithKid, c.Issuer, c.Audience, c.Skew})
}

type IssueParams struct {
	ID      string
	Now     time.Time
	Subject string
	Idle    time.Duration
	Exp     time.Time
	Claims  Claims
}

func (t *tokens) Issue(p IssueParams) (string, *VerifiedToken, error) {
	return t.issue(issueParams{p.ID, p.Now, p.Subject, p.Idle, p.Exp, p.Claims})
}

func (t *tokens) Verify(token string) (*VerifiedToken, error) { return t.verify(token) }

// Open is the part of Verify that precedes the claims.
func (t *tokens) Open(token string) (payload string, err error) { return t.open(token) }

func (t *tokens) CheckTime(v *VerifiedToken, now time.Time) error { return t.checkTime(v, now) }

func (t *tokens) SplitClaims(c Claims, now time.Time) (Claims, string, time.Time, error) {
	return t.splitClaims(c, now)
}

type VerifiedToken = verifiedToken

func (v *verifiedToken) ID() string                   { return v.id }
func (v *verifiedToken) Subject() string              { return v.subject }
func (v *verifiedToken) Idle() time.Duration          { return v.idle }
func (v *verifiedToken) Claims() Claims               { return v.claims() }
func (v *verifiedToken) ExpiresAt() (time.Time, bool) { return v.expiresAt() }

func ScanJSONObject(src string, member func(name, value string) error) error {
	return scanJSONObject(src, member)
}

type (
	VerifiedCache = verifiedCache
	CachedToken   = cachedToken
)

func NewVerifiedCache(maxBytes int) *VerifiedCache { return newVerifiedCache(maxBytes) }

func (c *verifiedCache) Get(token string) *CachedToken                   { return c.get(token) }
func (c *verifiedCache) Add(token string, v *VerifiedToken) *CachedToken { return c.add(token, v) }
func (c *verifiedCache) Remove(token string)                             { c.remove(token) }

// Size returns the number of entries and the bytes that they are counted as.
func (c *verifiedCache) Size() (entries, bytes int) {
	for i := range c.shards {
		for _, generation := range []map[uint64]*cachedToken{c.shards[i].young, c.shards[i].elder} {
			for _, e := range generation {
				entries++
				bytes += e.size()
			}
		}
	}
	return entries, bytes
}

func (e *cachedToken) LastTouch(ns int64) { e.lastTouch.Store(ns) }

func (e *cachedToken) VerifiedToken() *VerifiedToken { return e.verifiedToken }
