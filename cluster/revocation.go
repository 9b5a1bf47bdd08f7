package cluster

import (
	"errors"
	"fmt"
	"hash/fnv"
	"time"
	"unicode/utf8"

	"github.com/stockmesh/stockmesh/cluster/bus"
	"github.com/stockmesh/stockmesh/protocol"
)

// Revocation takes back what tokens granted: one token by its id, or all that a subject
// was given before a moment. One of TokenID and Subject is set.
type Revocation struct {
	TokenID string
	Subject string
	Before  time.Time // of a Subject: tokens issued before it; zero: all
	Until   time.Time // from then on it doesn't count; zero: for good
}

// ErrRevocation says that a revocation names nothing that could be revoked. Nothing was
// stored.
var ErrRevocation = errors.New("not a revocation")

// ErrUnavailable says that the region could not store something just now: it has no
// quorum, or no space. It may have been stored all the same; the same call may be made
// again.
var ErrUnavailable = errors.New("the region can't store this now")

// subjectBytesMax bounds a subject, and a token's id.
const subjectBytesMax = 256

// check says what is wrong with a revocation.
func (r *Revocation) check() error {
	name := r.TokenID + r.Subject
	switch {
	case (r.TokenID == "") == (r.Subject == ""):
		return fmt.Errorf("%w: one of token id and subject must be given", ErrRevocation)
	case len(name) > subjectBytesMax:
		return fmt.Errorf("%w: a name of %d bytes, the limit is %d", ErrRevocation, len(name), subjectBytesMax)
	case !utf8.ValidString(name):
		return fmt.Errorf("%w: a name that is not UTF-8", ErrRevocation)
	case !timeFits(r.Before) || !timeFits(r.Until):
		return fmt.Errorf("%w: a time out of range", ErrRevocation)
	}
	return nil
}

// timeFits tells whether a time has a form in JSON.
func timeFits(t time.Time) bool { return t.IsZero() || t.UnixMilli() > 0 && t.Year() <= 9999 }

// key is that of the row which stands for all revocations of one token or subject.
func (r *Revocation) key() string {
	if r.TokenID != "" {
		return bus.EscapeKey("jti:" + r.TokenID)
	}
	return bus.EscapeKey("sub:" + r.Subject)
}

// over tells whether it counts no more.
func (r *Revocation) over(now time.Time) bool { return !r.Until.IsZero() && !now.Before(r.Until) }

// with returns what two revocations of the same key refuse together. It never refuses
// less than one of them, so in whatever order regions hear of them they end the same. It
// may refuse more: what one refuses for longer, and the other more of, is refused for
// that long.
func (r Revocation) with(o Revocation) Revocation {
	r.Before, r.Until = latest(r.Before, o.Before), latest(r.Until, o.Until)
	return r
}

// covers tells whether it refuses all that another one of the same key does.
func (r Revocation) covers(o Revocation) bool {
	both := r.with(o)
	return both.stored() == r.stored()
}

// latest is the later of two times, of which zero is the last.
func latest(a, b time.Time) time.Time {
	if a.IsZero() || b.IsZero() {
		return time.Time{}
	}
	if a.After(b) {
		return a
	}
	return b
}

// print sums it up, to tell lists apart.
func (r *Revocation) print() uint64 {
	h := fnv.New64a()
	h.Write(r.value())
	return h.Sum64()
}

// storedRevocation is a row of the bucket, and what regions tell each other. Times are
// in whole milliseconds, so that a revocation is the same wherever it was written.
type storedRevocation struct {
	TokenID string        `json:"token_id,omitzero"`
	Subject string        `json:"subject,omitzero"`
	Before  protocol.Time `json:"before,omitzero"`
	Until   protocol.Time `json:"until,omitzero"`
}

func (r *Revocation) stored() storedRevocation {
	s := storedRevocation{TokenID: r.TokenID, Subject: r.Subject}
	if !r.Before.IsZero() {
		s.Before = protocol.TimeOf(r.Before)
	}
	if !r.Until.IsZero() {
		s.Until = protocol.TimeOf(r.Until)
	}
	return s
}

func (r *Revocation) value() []byte { return protocol.AppendJSON(nil, r.stored()) }

// revocation reads a stored one, which must be right.
func (s *storedRevocation) revocation() (Revocation, error) {
	r := Revocation{TokenID: s.TokenID, Subject: s.Subject}
	if s.Before != 0 {
		r.Before = s.Before.Std()
	}
	if s.Until != 0 {
		r.Until = s.Until.Std()
	}
	return r, r.check()
}

// whole is the revocation as it is stored. What is refused until a moment or from one on
// within a millisecond is refused for all of it.
func (r Revocation) whole() Revocation {
	up := func(t time.Time) time.Time {
		if t.IsZero() {
			return t
		}
		return t.Add(time.Millisecond - 1).Truncate(time.Millisecond).UTC()
	}
	r.Before, r.Until = up(r.Before), up(r.Until)
	if r.TokenID != "" {
		r.Before = time.Time{} // a token has one time of issue
	}
	return r
}
