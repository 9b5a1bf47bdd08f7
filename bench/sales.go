package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/replay"
)

// sales is a replay of recorded sales on its way, and what is done to the nodes
// meanwhile.
type sales struct {
	*round
	plan  *replay.Plan
	token string
	from  processTimes // when the invoices began

	mu    sync.Mutex
	all   latencies                 // of the invoices' commands
	ages  map[protocol.Op]latencies // of those that are told apart
	acked int64

	giveUp  context.CancelFunc // ends the replay
	killed  int
	killing sync.WaitGroup // the kill under way, until all nodes are up again
	gone    chan struct{}  // closed when the owner is dead; nil: none was to be killed yet
	patient int            // invoice that waits for that
	blow    atomic.Pointer[blow]
	took    []float64 // ms: from a kill until the others succeeded
	ready   []float64 // ms: from a node's start until it was ready
	failed  error     // of a kill
}

// blow is the death of the owner, until the others do without it.
type blow struct {
	killed, dead time.Time // just before; from here on nothing is decided there
	once         sync.Once
	over         chan time.Duration
}

// before is called before an invoice is played. Kills are spread over the invoices. Each
// finds all nodes up and leaves invoices to be played without the owner: the replay waits
// where it is too fast. ctx has to last longer than the invoices, until the last node
// that was killed is back.
func (s *sales) before(ctx context.Context, invoice int) error {
	if invoice == 0 {
		s.from = s.times()
	}
	if s.gone != nil && invoice >= s.patient {
		select {
		case <-s.gone:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if s.killed == s.kills || invoice < s.killAt(s.killed) {
		return nil
	}
	if err := s.wait(); err != nil {
		return err
	}
	s.killed++
	number, gone := s.killed, make(chan struct{})
	s.gone, s.patient = gone, (invoice+s.killAt(s.killed))/2
	s.killing.Go(func() {
		if s.failed = s.killOwner(ctx, number, gone); s.failed != nil {
			s.giveUp() // the replay would wait for ever
		}
	})
	return nil
}

// killAt is the invoice before which a kill is due, and the number of all after the last.
func (s *sales) killAt(number int) int { return (number + 1) * s.plan.Invoices() / (s.kills + 1) }

// wait returns when all nodes are up again.
func (s *sales) wait() error {
	s.killing.Wait()
	return s.failed
}

func (s *sales) killOwner(ctx context.Context, number int, gone chan<- struct{}) error {
	owner, err := s.target.owner(ctx)
	if err != nil {
		return err
	}
	n := s.target.nodes[owner]
	back := s.happening("kill %d/%d: %s, the owner", number, s.kills, n.name)
	b := &blow{killed: time.Now(), over: make(chan time.Duration, 1)}
	if err := n.kill(); err != nil {
		return err
	}
	b.dead = time.Now()
	s.blow.Store(b)
	close(gone)
	took := b.await(ctx, restartAfter)
	began := time.Now()
	if err := n.start(ctx); err != nil {
		return fmt.Errorf("starting it again: %w", err)
	}
	s.ready = append(s.ready, milliseconds(time.Since(began)))
	back()
	if took == 0 {
		took = b.await(ctx, recoveryWithin)
	}
	if took == 0 {
		return fmt.Errorf("the others have not succeeded with anything since %s was killed", n.name)
	}
	s.took = append(s.took, milliseconds(took))
	s.progress.note("  others succeed after %v, %s is ready again after %.0f ms", took.Round(time.Millisecond), n.name, s.ready[len(s.ready)-1])
	return nil
}

// await returns how long it took the others, 0 if they don't in time.
func (b *blow) await(ctx context.Context, patience time.Duration) time.Duration {
	select {
	case took := <-b.over:
		return took
	case <-time.After(patience):
	case <-ctx.Done():
	}
	return 0
}

// answered counts an answer of the invoices.
func (s *sales) answered(a replay.Answer) {
	if a.Op == protocol.OpCount {
		return // the opening stock
	}
	s.timeline(string(a.Op)).add(a.Took.Nanoseconds(), 1)
	if b := s.blow.Load(); b != nil && a.Err == nil && a.Sent.After(b.dead) && s.target.region(a.At) == 0 {
		b.once.Do(func() { b.over <- time.Since(b.killed) })
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.Err == nil {
		s.acked++
	}
	s.all.add(a.Took.Nanoseconds(), 1)
	if l, apart := s.ages[a.Op]; apart {
		l.add(a.Took.Nanoseconds(), 1)
	}
}

func (s *sales) putAges() {
	s.all.put(s.numbers, "")
	for op, l := range s.ages {
		l.put(s.numbers, string(op)+"_")
		f := &feed{chronicle: s.chronicle, name: string(op)}
		f.keep(string(op)+"_", l.h)
	}
}

func (s *sales) putKills() {
	n := s.numbers
	n["kills"], n["ready_max_ms"] = float64(s.killed), slices.Max(append(s.ready, 0))
	n["failover_p50_ms"], n["failover_p99_ms"] = quantile(s.took, 0.5), quantile(s.took, 0.99)
	n["failover_max_ms"] = slices.Max(append(s.took, 0))
}

// salesProgress shows one phase of a replay after the other.
type salesProgress struct {
	*round
	done atomic.Int64
}

func (p *salesProgress) Begin(phase string, total int) {
	p.done.Store(0)
	p.chronicle.phase(phase)
	p.progress.counted(fmt.Sprintf("%s: %s (%d)", p.name, phase, total), total)
}

func (p *salesProgress) Add(n int) { p.progress.at(p.done.Add(int64(n))) }

func (p *salesProgress) End() {}
