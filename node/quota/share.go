package quota

import (
	"math"
	"slices"
)

const (
	// demandHalfNS is how fast the past is forgotten by a demand: it counts half after
	// so long.
	demandHalfNS = beatNS
	// lagS is how much of use, in seconds' worth of the limit, may be heard of late
	// before it counts as too much: more than a lost message holds.
	lagS = 1
	// repayS is the time in which what was used too much is saved again.
	repayS = 4
	// debtS bounds what is to be saved, for a message may say anything.
	debtS = 20
	// leastPart is what is left of the limit at least while that is going on.
	leastPart = 0.05
	// calmPart is which part of the limit leaves enough for everybody.
	calmPart = 0.9
	// calmBeats is for how long it must be so.
	calmBeats = 4
)

// share is one node's view of how a subject's commands are spent in the region, and
// what follows for this node. It has no clock: beat is told the time.
type share struct {
	at      int64
	used    uint64 // here, until then
	refused uint64
	demand  float64 // here, commands a second lately, refused ones included

	// fill is what a token bucket of the whole region would hold: burst at most, and
	// below zero what was spent too much. What others spend is heard of a beat late on
	// average, so what is spent here is counted a beat late too.
	fill   float64
	before float64 // spent here in the last beat
	heard  float64 // spent elsewhere, heard of since the last beat

	// scarce says that less is left than all want, so each node keeps to its share.
	scarce bool
	calm   int // beats since there was enough for everybody
}

// beat takes what was used until now over and returns which part of the limit this
// node may use until the next one: all of it, unless it is scarce.
func (s *share) beat(now int64, l *Limits, used, refused uint64, demands []float64) (part float64) {
	limit, dt := float64(l.Commands), float64(now-s.at)/1e9
	if dt <= 0 {
		return s.part(limit, demands)
	}
	own, asked := float64(used-s.used), float64(used-s.used+refused-s.refused)
	s.at, s.used, s.refused = now, used, refused

	s.demand += (asked/dt - s.demand) * (1 - math.Exp2(-dt*1e9/float64(demandHalfNS)))
	if asked == 0 && s.demand < limit/256 {
		s.demand = 0
	}
	floor := -debtS*limit - float64(l.Burst)*loudPart
	s.fill = max(floor, min(float64(l.Burst), s.fill+limit*dt-s.before-s.heard))
	s.before, s.heard = own, 0
	s.judge(limit, demands)
	return s.part(limit, demands)
}

// judge decides whether commands are scarce. To begin with it, something must have been
// spent too much: demands alone count a client twice that has just gone elsewhere.
func (s *share) judge(limit float64, demands []float64) {
	switch {
	case s.fill < -lagS*limit:
		s.scarce, s.calm = true, 0
	case s.demand+sum(demands) >= calmPart*limit:
		s.calm = 0
	default:
		if s.calm++; s.calm >= calmBeats {
			s.scarce = false
		}
	}
}

// join is the view of a node where the subject is new, and used elsewhere.
func (s *share) join(now int64, l *Limits, demands []float64) {
	s.at, s.fill = now, float64(l.Burst)
	if sum(demands) >= float64(l.Commands) {
		s.scarce, s.fill = true, 0
	}
}

func (s *share) part(limit float64, demands []float64) float64 {
	if !s.scarce {
		return 1
	}
	left := limit + min(0, s.fill+lagS*limit)/repayS
	return fair(max(left, leastPart*limit), demands) / limit
}

// idle reports whether a new view would not be another.
func (s *share) idle(l *Limits) bool {
	return s.demand == 0 && s.before == 0 && s.heard == 0 && !s.scarce && s.fill >= float64(l.Burst)
}

// fair is what a node may use that would like to have all, beside others with these
// demands: each gets what it wants, or as much as anybody who wants more (max-min
// fairness). The nodes so come to shares that add up to limit without asking each other.
func fair(limit float64, demands []float64) float64 {
	slices.Sort(demands)
	for i, d := range demands {
		n := float64(len(demands) - i + 1)
		if d >= limit/n {
			return limit / n
		}
		limit -= d
	}
	return limit
}

func sum(v []float64) (total float64) {
	for _, x := range v {
		total += x
	}
	return total
}
