package bus

import (
	"errors"
	"fmt"
	"sync"
	"time"
	_ "unsafe" // for go:linkname
)

// Timers are those of the Raft groups, which decide how soon a lost leader is
// replaced. They hold for a whole process: all its Buses must name the same.
// All servers of a region should have the same too.
type Timers struct {
	Heartbeat   time.Duration // of a leader which has nothing else to send; 0 means 150 ms
	ElectionMin time.Duration // least silence of the leader before an election; 0 means 500 ms, or three heartbeats
	ElectionMax time.Duration // most silence; 0 means twice the least
}

func (t Timers) withDefaults() Timers {
	if t.Heartbeat == 0 {
		t.Heartbeat = 150 * time.Millisecond
	}
	if t.ElectionMin == 0 {
		t.ElectionMin = max(500*time.Millisecond, 3*t.Heartbeat)
	}
	if t.ElectionMax == 0 {
		t.ElectionMax = 2 * t.ElectionMin
	}
	return t
}

func (t Timers) validate() error {
	switch {
	case t.Heartbeat <= 0:
		return fmt.Errorf("Timers.Heartbeat %v is not positive", t.Heartbeat)
	case t.ElectionMin < 3*t.Heartbeat:
		return fmt.Errorf("Timers.ElectionMin %v is less than three heartbeats of %v", t.ElectionMin, t.Heartbeat)
	case t.ElectionMax <= t.ElectionMin:
		return fmt.Errorf("Timers.ElectionMax %v is not above ElectionMin %v", t.ElectionMax, t.ElectionMin)
	}
	return nil
}

// lostQuorum is how long a leader hears nobody before it steps down by itself.
// The server's own figure is ten heartbeats.
func (t Timers) lostQuorum() time.Duration { return max(10*t.Heartbeat, t.ElectionMax) }

// campaign is how long a server waits that may ask for votes again at once, as its log
// is longer than that of the one it has just turned down.
func (t Timers) campaign() (least, most time.Duration) { return t.Heartbeat / 3, 2 * t.Heartbeat }

// The server has no option for these. Its own values mean 4 to 9 s without a
// leader after a crash. The last two are computed from the heartbeat once, when
// the process starts, so they have to follow it by hand.
var (
	//go:linkname minElectionTimeout github.com/nats-io/nats-server/v2/server.minElectionTimeout
	minElectionTimeout time.Duration
	//go:linkname maxElectionTimeout github.com/nats-io/nats-server/v2/server.maxElectionTimeout
	maxElectionTimeout time.Duration
	//go:linkname minCampaignTimeout github.com/nats-io/nats-server/v2/server.minCampaignTimeout
	minCampaignTimeout time.Duration
	//go:linkname maxCampaignTimeout github.com/nats-io/nats-server/v2/server.maxCampaignTimeout
	maxCampaignTimeout time.Duration
	//go:linkname hbInterval github.com/nats-io/nats-server/v2/server.hbInterval
	hbInterval time.Duration
	//go:linkname lostQuorumInterval github.com/nats-io/nats-server/v2/server.lostQuorumInterval
	lostQuorumInterval time.Duration
	//go:linkname lostQuorumCheck github.com/nats-io/nats-server/v2/server.lostQuorumCheck
	lostQuorumCheck time.Duration
)

// timersOfProcess remembers what was set. Running servers read the variables
// above without a lock, so they are written once, before the first server with a
// region starts; a standalone server never reads them.
var timersOfProcess struct {
	sync.Mutex
	set Timers
}

// apply makes t the timers of the process, or finds that they are already.
func (t Timers) apply() error {
	p := &timersOfProcess
	p.Lock()
	defer p.Unlock()
	switch p.set {
	case t:
		return nil
	case Timers{}:
	default:
		return fmt.Errorf("Timers %v differ from those of this process, %v", t, p.set)
	}
	if err := timersLinked(); err != nil {
		return err
	}
	p.set = t
	hbInterval, minElectionTimeout, maxElectionTimeout = t.Heartbeat, t.ElectionMin, t.ElectionMax
	minCampaignTimeout, maxCampaignTimeout = t.campaign()
	lostQuorumInterval, lostQuorumCheck = t.lostQuorum(), t.lostQuorum()
	return nil
}

// timersLinked finds out whether the variables are the server's. One that it no
// longer has would be ours alone, and zero.
func timersLinked() error {
	for _, d := range []time.Duration{
		minElectionTimeout, maxElectionTimeout, minCampaignTimeout, maxCampaignTimeout, hbInterval, lostQuorumInterval, lostQuorumCheck,
	} {
		if d == 0 {
			return errors.New("this version of nats-server keeps its Raft timers elsewhere")
		}
	}
	return nil
}
