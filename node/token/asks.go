package token

import (
	"fmt"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	askBurst    = 3           // readings that new key ids may ask for in a row
	askGap      = time.Second // between two of them
	unknownsMax = 1024        // key ids of which is remembered that the source hasn't them
)

// asks says when a token may have the keys read again. Anybody can make up key ids, so
// that readings are few: some in a row, and then one in least. A token whose key id was
// looked for in vain before, or that names none, gets one only where all are left.
// Otherwise whoever sends the same rubbish over and over would use up those that tokens
// signed with a new key need.
//
// It has no clock and no lock: the keeper's counts.
type asks struct {
	least    time.Duration
	unknowns *simplelru.LRU[string, struct{}]
	whole    time.Time // when all readings are left again
	last     time.Time // when the last one was taken
}

func newAsks(least time.Duration) (*asks, error) {
	unknowns, err := simplelru.NewLRU[string, struct{}](unknownsMax, nil)
	if err != nil {
		return nil, fmt.Errorf("token keys: %w", err)
	}
	return &asks{least: least, unknowns: unknowns}, nil
}

// after returns how long a token with a key id, "" for none, has to wait until it may
// have the keys read; 0: it may now.
func (a *asks) after(kid string, now time.Time) time.Duration {
	if a.last.After(now) { // the clock was set back
		a.whole, a.last = now, time.Time{}
	}
	missing := max(0, a.whole.Sub(now))
	if kid != "" && !a.unknowns.Contains(kid) {
		missing -= (askBurst - 1) * a.least
	}
	return max(0, missing, a.gap()-now.Sub(a.last))
}

// take notes that a reading was begun for a token.
func (a *asks) take(now time.Time) {
	if a.whole.Before(now) {
		a.whole = now
	}
	a.whole, a.last = a.whole.Add(a.least), now
}

// missed notes that the source doesn't have a key id.
func (a *asks) missed(kid string) {
	if kid != "" {
		a.unknowns.Add(kid, struct{}{})
	}
}

func (a *asks) gap() time.Duration { return min(askGap, a.least) }
