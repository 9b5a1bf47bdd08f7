package rights

import "time"

// Options are the policy's settings. The zero value of each means its default.
type Options struct {
	// Horizon is how much of its demand a region likes to hold ahead, and the time
	// over which demand is averaged. Default 30 s.
	Horizon time.Duration
	// Low is how much of its demand a region holds when it asks ahead of need.
	// Default 2 s; it must cover a few round trips between regions.
	Low time.Duration
	// Timeout is how long an ask waits for its answer before the peer is asked again,
	// until the first answer shows how long the way is. Default 100 ms.
	Timeout time.Duration
	// Probe is how often a peer believed to be empty is asked all the same while
	// commands lack units: its row is old, units may have come. Default 500 ms.
	Probe time.Duration
	// ItemsMax bounds the items remembered. Default 1,048,576 (about 200 bytes each).
	ItemsMax int
}

const (
	// rushTime is the window of the second, quick average. It notices a rush within
	// a round trip, where Horizon's would take seconds.
	rushTime = time.Second
	// rushLow and rushAhead are Low and Horizon for the quick average. They are
	// short, because one sale of a slow item looks like a rush to it.
	rushLow   = time.Second / 2
	rushAhead = 4 * time.Second

	// batchMin is the least that is asked for ahead of need: a message costs the same.
	batchMin = 4

	// rowLag is how long an answer is newer than the peer's mirrored row.
	rowLag = 200 * time.Millisecond
	// newsTime is how long after units came from a peer more are hoped for.
	newsTime = 300 * time.Millisecond
	// askAgain is the pause before a peer that gave less than was needed is asked again.
	askAgain = 100 * time.Millisecond

	// The wait for an answer follows the round trips seen, between these.
	timeoutMin = 20 * time.Millisecond
	timeoutMax = time.Second
	// muteAsks is how many asks a peer leaves unanswered, for longer than timeoutMax,
	// before commands no longer wait for it.
	muteAsks = 3

	// A peer that gave less than was asked ahead of need keeps its fair part; asking
	// again soon is useless. The pause doubles from the first to the second.
	aheadPauseMin = 500 * time.Millisecond
	aheadPauseMax = 8 * time.Second
)

func (o Options) withDefaults() Options {
	o.Horizon = positive(o.Horizon, 30*time.Second)
	o.Low = positive(o.Low, 2*time.Second)
	o.Timeout = positive(o.Timeout, 100*time.Millisecond)
	o.Probe = positive(o.Probe, 500*time.Millisecond)
	o.ItemsMax = positive(o.ItemsMax, 1<<20)
	return o
}

func positive[T ~int | ~int64](v, otherwise T) T {
	if v > 0 {
		return v
	}
	return otherwise
}

// trust is how long a peer's answer that it has nothing counts: until the probe
// after it should have been answered too.
func (o *Options) trust() int64 { return 2 * int64(o.Probe) }

// hungerTime is how long a donor remembers a need it could not meet. It outlasts
// the asker's trust in the answer by the longest way of a message, so at no moment
// does the asker refuse without the donor knowing that it should send units.
func (o *Options) hungerTime() int64 { return o.trust() + int64(timeoutMax)/2 }
