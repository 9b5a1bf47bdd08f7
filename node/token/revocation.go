package token

import (
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// Revocation takes back what was granted: one token by its id, or all that a subject
// was given before a moment. One of TokenID and Subject is set.
type Revocation struct {
	TokenID string // jti, or what Certificate makes of a serial number: cert:1f

	// Subject is refused with tokens issued up to Before, and with those that don't say
	// when they were issued. A zero Before refuses all.
	Subject string
	Before  time.Time

	Until time.Time // from then on it doesn't count; zero: for good
}

// revocations is a list made ready to be asked for each caller. It is not changed once
// made, so that no lock is needed.
type revocations struct {
	tokens   map[string][]Revocation
	subjects map[string][]Revocation
}

func newRevocations(list []Revocation) *revocations {
	r := &revocations{tokens: make(map[string][]Revocation), subjects: make(map[string][]Revocation)}
	for _, v := range list {
		if v.TokenID != "" {
			r.tokens[v.TokenID] = append(r.tokens[v.TokenID], v)
		}
		if v.Subject != "" {
			r.subjects[v.Subject] = append(r.subjects[v.Subject], v)
		}
	}
	return r
}

// covers reports whether a caller is refused now.
func (r *revocations) covers(c *protocol.Caller, now time.Time) bool {
	if c.TokenID != "" {
		for _, v := range r.tokens[c.TokenID] {
			if v.counts(now) {
				return true
			}
		}
	}
	for _, v := range r.subjects[c.Subject] {
		if v.counts(now) && v.precedes(c.IssuedAt) {
			return true
		}
	}
	return false
}

func (v *Revocation) counts(now time.Time) bool { return v.Until.IsZero() || now.Before(v.Until) }

// precedes reports whether what was issued at a moment is among what was taken back. A
// token usually says its second only, so one of the very second that Before is in is
// refused, also where Before is its beginning: it may have been made before the request
// to revoke it was. One that doesn't say it is older than any.
func (v *Revocation) precedes(issued time.Time) bool {
	return v.Before.IsZero() || !issued.After(v.Before)
}
