package gossip

import (
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Bounds of what is remembered of a member's clock. A member is probed once in the time
// that all others take: in a large mesh that is more than a minute.
const (
	clockSamples = 8
	clockFresh   = 5 * time.Minute
	clockRTTMax  = time.Second // what took longer, as a node stood still, says little

	stampBytes = 8
)

// clocks compares other members' clocks with our own: an answer to a probe says what time
// it is where it comes from. Older nodes say nothing.
type clocks struct {
	now func() time.Time

	mu      sync.Mutex
	members map[string][]clockSample // by name, the newest last
}

// clockSample is what one answered probe showed.
type clockSample struct {
	ahead time.Duration // their clock less ours, when the answer was here: too small by its way
	rtt   time.Duration
	at    time.Time
}

func newClocks(now func() time.Time) *clocks {
	if now == nil {
		now = time.Now
	}
	return &clocks{now: now, members: make(map[string][]clockSample)}
}

// AckPayload implements memberlist.PingDelegate: an answer carries the time in ns since
// 1970, as 8 bytes, big endian. It may become longer.
func (c *clocks) AckPayload() []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(c.now().UnixNano()))
}

// NotifyPingComplete implements memberlist.PingDelegate.
func (c *clocks) NotifyPingComplete(other *memberlist.Node, rtt time.Duration, payload []byte) {
	if len(payload) < stampBytes || rtt < 0 || rtt > clockRTTMax {
		return
	}
	now := c.now()
	theirs := time.Unix(0, int64(binary.BigEndian.Uint64(payload)))
	c.add(other.Name, clockSample{ahead: theirs.Sub(now), rtt: rtt, at: now})
}

func (c *clocks) add(name string, s clockSample) {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := append(c.members[name], s)
	c.members[name] = slices.Clone(list[max(0, len(list)-clockSamples):])
}

// forget drops what was seen of a member.
func (c *clocks) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.members, name)
}

// offset is how far a member's clock is ahead of ours, from the newest probes.
func (c *clocks) offset(name string) (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return offsetOf(c.members[name], c.now())
}

// offsetOf makes one figure of several probes. Whatever held an answer up makes its clock
// look late: so the least late one counts, and the quickest probe says how long the way
// is at least. One probe alone says nothing, as this process may have stood still between
// its answer and the look at the clock.
func offsetOf(samples []clockSample, now time.Time) (time.Duration, bool) {
	fresh := 0
	var ahead, rtt time.Duration
	for _, s := range samples {
		if now.Sub(s.at) > clockFresh {
			continue
		}
		if fresh == 0 {
			ahead, rtt = s.ahead, s.rtt
		}
		ahead, rtt = max(ahead, s.ahead), min(rtt, s.rtt)
		fresh++
	}
	return ahead + rtt/2, fresh >= 2
}

// ClockOffsets returns, by name, how far the clocks of the other members alive are ahead
// of this node's: an estimate that is wrong by less than a probe's way there and back.
// Those whose probes have not been answered lately, or that tell no time, are not in it.
func (g *Gossip) ClockOffsets() map[string]time.Duration {
	offsets := make(map[string]time.Duration)
	for _, m := range g.Members() {
		if !m.Alive || m.Name == g.name {
			continue
		}
		if d, ok := g.clocks.offset(m.Name); ok {
			offsets[m.Name] = d
		}
	}
	return offsets
}
