package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stockmesh/stockmesh/cluster/bus"
	"github.com/stockmesh/stockmesh/cluster/ledger"
)

// simFault is what becomes of an append.
type simFault uint8

const (
	simFaultNone        simFault = iota
	simFaultBusy                 // not stored, may be tried again
	simFaultNoLeader             // not stored, may be tried again
	simFaultFull                 // not stored
	simFaultStored               // stored, without an answer
	simFaultLost                 // not stored, without an answer
	simFaultLate                 // without an answer, and stored later if nobody else writes
	simFaultCrashBefore          // the node ends before it is stored
	simFaultCrashAfter           // the node ends after it was stored
	simFaultDeposed              // not stored, and another node is to lead
	simFaultBlind                // the log's end can't be read once
	simFaults
)

func (f simFault) String() string {
	return [...]string{"none", "busy", "no leader", "full", "stored unknown", "lost unknown", "late", "crash before", "crash after", "deposed", "blind"}[f]
}

// simTrap is where a node ends behind the log.
type simTrap uint8

const (
	simNoTrap     simTrap = iota
	simTrapRound          // applied, nothing answered
	simTrapAnswer         // one call answered, the others not
	simTrapDeal           // others not told of rights
	simTraps
)

// simJournal is the region's log as a node sees it.
type simJournal struct{ *simNode }

var errSimBlind = errors.New("the log can't be read now")

func (j simJournal) fault() simFault {
	if len(j.faults) == 0 {
		return simFaultNone
	}
	f := j.faults[0]
	j.simNode.faults = j.faults[1:]
	j.region.world.tell("  append of %s: %v", j.region.name, f)
	return f
}

// simAppendTakes is how long an append takes that goes wrong.
const simAppendTakes = 150 * time.Millisecond

func (j simJournal) Append(_ context.Context, data []byte, last uint64) (uint64, error) {
	r := j.region
	data = r.world.mutant.changed(j.simNode, data)
	if seq, done := r.world.mutant.early(j.simNode, data, last); done {
		return seq, nil
	}
	f := j.fault()
	if f != simFaultNone {
		r.world.now += int64(simAppendTakes)
	}
	switch f {
	case simFaultBusy:
		return 0, bus.ErrBusy
	case simFaultNoLeader:
		return 0, bus.ErrNoLeader
	case simFaultFull:
		return 0, fmt.Errorf("sim: %w", bus.ErrFull)
	case simFaultCrashBefore:
		panic(simCrash{})
	case simFaultDeposed:
		j.simNode.leads = false
		return 0, bus.ErrNoLeader
	case simFaultLost:
		return 0, bus.ErrUnknown
	case simFaultLate:
		r.late = &simLate{append([]byte(nil), data...), last}
		return 0, bus.ErrUnknown
	}
	seq, err := r.store(data, last)
	switch f {
	case simFaultStored:
		return 0, bus.ErrUnknown
	case simFaultCrashAfter:
		panic(simCrash{})
	}
	return seq, err
}

// store puts a round at the log's end, if its author knows the end.
func (r *simRegion) store(data []byte, last uint64) (uint64, error) {
	if last != uint64(len(r.log)) {
		return 0, &bus.SequenceError{Expected: last, Actual: uint64(len(r.log))}
	}
	r.log = append(r.log, append([]byte(nil), data...))
	r.audit.round(data)
	return uint64(len(r.log)), nil
}

// land stores the append that was given up, if it still fits.
func (r *simRegion) land() bool {
	if r.late == nil {
		return false
	}
	l := r.late
	r.late = nil
	_, err := r.store(l.data, l.last)
	r.world.tell("  late append of %s: %v", r.name, err)
	return true
}

func (j simJournal) Bounds(context.Context) (first, last uint64, err error) {
	r := j.region
	if len(j.faults) > 0 && j.faults[0] == simFaultBlind {
		j.fault()
		r.world.now += int64(simAppendTakes)
		return 0, 0, errSimBlind
	}
	last = uint64(len(r.log))
	if r.late != nil && len(r.late.data)%2 == 0 { // between the look and the next try
		r.land()
	}
	return 1, last, nil
}

func (j simJournal) Get(_ context.Context, seq uint64) ([]byte, error) {
	if seq < 1 || seq > uint64(len(j.region.log)) {
		return nil, bus.ErrMissing
	}
	return j.region.log[seq-1], nil
}

func (j simJournal) Leads() bool { return j.leads }

// simMutant breaks one rule of the product's surroundings; the zero value breaks none.
type simMutant struct {
	key     func(c *simCommand) string                                // of a try
	round   func(n *simNode, r *ledger.Round)                         // before it is stored
	tell    func(n *simNode, from string, d *deal)                    // before it is heard
	instead func(n *simNode, data []byte, last uint64) (uint64, bool) // of an append
}

// changed is the round that is stored in another's place.
func (m *simMutant) changed(n *simNode, data []byte) []byte {
	if m.round == nil {
		return data
	}
	m.round(n, n.owner.draft.Round())
	return n.owner.draft.Round().AppendTo(nil)
}

func (m *simMutant) early(n *simNode, data []byte, last uint64) (uint64, bool) {
	if m.instead == nil {
		return 0, false
	}
	return m.instead(n, data, last)
}
