package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// paced is one side of the fan-out while changes overlap.
type paced struct {
	*flow
	rates [kinds][]float64 // of each turn of stream: items per second
	pids  []int            // who delivers
	cpu   [kinds]time.Duration
	items [kinds]int64
	load  [kinds]*party // what offer has found
}

// fanoutOverlapping measures both sides once more as they are used: the next change is on
// its way before everybody has heard of the last one. Then both get changes at half of
// the rate that the node has reached so.
func (r *round) fanoutOverlapping(ctx context.Context, node, floor *stage, texts [kinds][]byte) error {
	if len(r.violations) > 0 {
		return nil
	}
	ours := r.nodeFlow(node)
	ours.pids = r.target.pids()
	bare, err := floorFlow(floor, texts, r.changed)
	if err != nil {
		return err
	}
	bare.pids = floor.pids
	length := 2 * kinds * r.duration
	if err := r.profiled(length, func() error { return r.streamBoth(ctx, ours, bare) }); err != nil {
		return r.late(err)
	}
	r.putStream(ours, bare)
	if err := r.offerBoth(ctx, ours, bare); err != nil {
		return r.late(err)
	}
	r.putHalf(ours, r.numbers)
	r.putHalf(bare, r.peer(bareWrite))
	return nil
}

// late notes pushes that never came; any other error stays one.
func (r *round) late(err error) error {
	if !errors.Is(err, errLate) {
		return err
	}
	r.violate("pushes: %v", err)
	return nil
}

// nodeFlow has the audience of a node keep a board.
func (r *round) nodeFlow(node *stage) *paced {
	b := newBoard(node.gen, r.skus())
	for i, sku := range b.skus {
		b.opening[i] = node.expect[sku]
	}
	p := b.newParty()
	for _, s := range node.subscribers {
		reader := b.newReader(p)
		reader.conn, reader.ready = s.conn, true
		s.conn.receiver = reader
	}
	send := func(kind int, due int64) error {
		b.note(r.changed(kind), due)
		return node.change(kind)
	}
	fault := func() error {
		if faults := append(b.faults, node.faults...); len(faults) > 0 {
			return errors.New(faults[0])
		}
		return nil
	}
	ready := func(kind int) bool { return node.ready(r.changed(kind)) }
	return &paced{flow: &flow{gen: node.gen, party: p, send: send, each: r.changed, idle: node.idle, ready: ready, fault: fault}}
}

// floorReader hears only that something has changed.
type floorReader struct {
	floor  *floorBoard
	frames int // of the change that is being heard
	next   int // the change
}

// floorBoard is what the board is for a node. All that a subscriber of the floor hears
// is one change after the other.
type floorBoard struct {
	gen    *generator
	party  *party
	frames [kinds]int // of a change
	kind   []int8     // of each change
	due    []int64
	each   func(kind int) int
}

// received implements receiver.
func (f *floorReader) received(_ *conn, _ []byte) {
	b := f.floor
	if f.next >= len(b.kind) {
		return
	}
	kind := int(b.kind[f.next])
	if f.frames++; f.frames < b.frames[kind] {
		return
	}
	n := int64(b.each(kind))
	b.party.delivered += n
	b.party.ages.add(b.gen.now-b.due[f.next], n)
	f.frames = 0
	f.next++
}

func floorFlow(floor *stage, texts [kinds][]byte, each func(int) int) (*paced, error) {
	b := &floorBoard{gen: floor.gen, party: &party{ages: floor.gen.newLatencies("bare writes")}, each: each}
	for kind, text := range texts {
		n, err := countFrames(text)
		if err != nil {
			return nil, err
		}
		b.frames[kind] = n
	}
	for _, s := range floor.subscribers {
		s.conn.receiver = &floorReader{floor: b}
		b.party.members++
	}
	send := func(kind int, due int64) error {
		b.kind, b.due = append(b.kind, int8(kind)), append(b.due, due)
		b.party.owed += int64(b.each(kind) * b.party.members)
		return floor.change(kind)
	}
	ready, fault := func(int) bool { return true }, func() error { return nil }
	return &paced{flow: &flow{gen: floor.gen, party: b.party, send: send, each: each, idle: floor.idle, ready: ready, fault: fault}}, nil
}

func countFrames(b []byte) (count int, err error) {
	for ; len(b) > 0; count++ {
		_, n, err := nextFrame(b)
		if err != nil || n == 0 {
			return 0, fmt.Errorf("what was recorded is no row of frames: %w", err)
		}
		b = b[n:]
	}
	return count, nil
}

func (r *round) kindName(kind int) string {
	return []string{"single changes", fmt.Sprintf("bursts of %d", r.burst)}[kind]
}

// turnLength is how long one side runs before the other does: so short that what else
// goes on on the machine falls on both.
const turnLength = 250 * time.Millisecond

// inTurn has both sides run for a part of a phase, again and again.
func (r *round) inTurn(what string, each time.Duration, a, b *paced, run func(*paced, time.Duration, func()) error) error {
	r.phase(what, 2*r.duration)
	begin := time.Now()
	step := func() { r.progress.since(begin) }
	turns := max(phaseSlices, int(r.duration/each))
	for i := range turns {
		for j := range 2 {
			if err := run([2]*paced{a, b}[(i+j)%2], r.duration/time.Duration(turns), step); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *round) streamBoth(ctx context.Context, ours, bare *paced) error {
	for kind := range kinds {
		err := r.inTurn(r.kindName(kind)+", overlapping", turnLength, ours, bare, func(p *paced, length time.Duration, step func()) error {
			used, delivered := cpuTimes(p.pids), p.party.delivered
			rate, err := p.stream(ctx, kind, length, step)
			p.rates[kind] = append(p.rates[kind], rate)
			p.cpu[kind] += cpuTimes(p.pids) - used
			p.items[kind] += p.party.delivered - delivered
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// putStream compares each turn with the other side's next to it.
func (r *round) putStream(ours, bare *paced) {
	for kind, prefix := range kindPrefixes {
		var ratios []float64
		for i, rate := range ours.rates[kind] {
			ratios = append(ratios, rate/max(bare.rates[kind][i], 1))
		}
		r.numbers[prefix+"stream_per_second"] = spreadOf(ours.rates[kind]).median
		r.peer(bareWrite)[prefix+"stream_per_second"] = spreadOf(bare.rates[kind]).median
		r.numbers[prefix+"stream_floor_ratio"] = spreadOf(ratios).median
		ours.putCPU(kind, r.numbers)
		bare.putCPU(kind, r.peer(bareWrite))
		r.mark(prefix+"stream_floor_ratio", atLeast, floorRatioMin)
	}
	r.numbers["stream_conflated_items"] = float64(ours.party.conflated)
	if r.numbers["stream_delivered_items"] = float64(ours.party.delivered); ours.party.delivered == 0 {
		r.violate("nothing was delivered")
	}
}

// putCPU writes what an item has cost whoever delivers it: unlike the rates, that
// doesn't ask who else is at work on the machine.
func (p *paced) putCPU(kind int, to numbers) {
	if p.cpu[kind] > 0 && p.items[kind] > 0 {
		to[kindPrefixes[kind]+"stream_cpu_us_per_item"] = float64(p.cpu[kind].Nanoseconds()) / 1000 / float64(p.items[kind])
	}
}

// cpuTimes is what processes have used together; 0 where that can't be read.
func cpuTimes(pids []int) (sum time.Duration) {
	for _, pid := range pids {
		used, err := cpuTime(pid)
		if err != nil {
			return 0
		}
		sum += used
	}
	return sum
}

// offerBoth sends changes to both sides at half of what the node has delivered.
func (r *round) offerBoth(ctx context.Context, ours, bare *paced) error {
	for kind, prefix := range kindPrefixes {
		perSecond := r.numbers[prefix+"stream_per_second"] / 2 / float64(r.subscribers*r.changed(kind))
		r.numbers[prefix+"half_changes_per_second"] = perSecond
		for _, p := range []*paced{ours, bare} {
			p.party.restart()
			p.load[kind] = &party{ages: p.party.ages.another()}
		}
		err := r.inTurn(r.kindName(kind)+", at half of that rate", r.duration, ours, bare, func(p *paced, length time.Duration, step func()) error {
			p.party.restart()
			if err := errors.Join(p.offer(ctx, kind, perSecond, length, step), p.settle(ctx)); err != nil {
				return err
			}
			p.load[kind].add(p.party)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *party) add(other *party) {
	p.delivered += other.delivered
	p.conflated += other.conflated
	p.ages.h.Merge(other.ages.h)
}

func (r *round) putHalf(p *paced, to numbers) {
	for kind, prefix := range kindPrefixes {
		load := p.load[kind]
		load.ages.put(to, prefix+"half_")
		to[prefix+"half_delivered_items"] = float64(load.delivered)
		to[prefix+"half_conflated_items"] = float64(load.conflated)
	}
	for _, prefix := range kindPrefixes {
		r.mark(prefix+"half_p99_ms", atMost, halfP99MaxMS)
	}
}

var kindPrefixes = [kinds]string{"", "burst_"}

// Marks of a fan-out.
const (
	floorRatioMin = 0.85
	halfP99MaxMS  = 50
)
