package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// card says what somebody does next.
type card byte

const (
	cardLook  card = iota // two commands
	cardBuy               // two: a reserve and, when that is answered, a confirm
	cardCount             // one
)

// Of 200 commands 180 are of those who look, 18 of those who buy, 2 take stock.
const (
	pageCards     = 90
	orderCards    = 9
	stockCards    = 2
	commandsADeck = 2*pageCards + 2*orderCards + stockCards
)

// deck is who does something next, over and over.
type deck struct {
	cards           []card
	at              int
	viewers, buyers int // that had a turn
}

func newDeck(random *rand.Rand) *deck {
	d := &deck{}
	for kind, n := range [...]int{cardLook: pageCards, cardBuy: orderCards, cardCount: stockCards} {
		for range n {
			d.cards = append(d.cards, card(kind))
		}
	}
	random.Shuffle(len(d.cards), func(i, j int) { d.cards[i], d.cards[j] = d.cards[j], d.cards[i] })
	return d
}

func (d *deck) draw() card {
	c := d.cards[d.at]
	d.at = (d.at + 1) % len(d.cards)
	return c
}

// act has the next one do something that is due.
func (m *mixed) act(due int64) error {
	d := m.cards
	switch d.draw() {
	case cardLook:
		v := m.viewers[d.viewers%len(m.viewers)]
		d.viewers++
		return v.due(due)
	case cardBuy:
		b := m.checkout.buyers[d.buyers%len(m.checkout.buyers)]
		d.buyers++
		b.due(due)
		return b.conn.flush()
	default:
		return m.keeper.due(due)
	}
}

// offer sends commands at a rate whether answers come or not.
func (m *mixed) offer(ctx context.Context, perSecond float64, length time.Duration, step func()) error {
	acts := perSecond * float64(len(m.cards.cards)) / commandsADeck
	m.gen.tick()
	begin, sent := m.gen.now, 0
	for end := begin + int64(length); m.gen.now < end; m.gen.tick() {
		for due := begin; ; sent++ {
			if due = begin + int64(float64(sent)/acts*1e9); due > m.gen.now {
				break
			}
			m.late.add(m.gen.now-due, 1)
			if err := m.act(due); err != nil {
				return err
			}
		}
		step()
		if err := errors.Join(ctx.Err(), m.checkout.again.sendDue(), m.gen.turn(pace)); err != nil {
			return err
		}
	}
	return nil
}

// flood keeps as many commands under way as the connections' depth allows.
func (m *mixed) flood(ctx context.Context, length time.Duration, step func()) error {
	most := int64(m.connections * m.depth)
	for end := time.Now().Add(length); time.Now().Before(end); {
		m.gen.tick()
		for n := m.waiting(); n < most; n++ {
			if err := m.act(m.gen.now); err != nil {
				return err
			}
		}
		step()
		if err := errors.Join(ctx.Err(), m.checkout.again.sendDue(), m.gen.turn(pace)); err != nil {
			return err
		}
	}
	return nil
}

func (m *mixed) measure(ctx context.Context) error {
	m.phase(fmt.Sprintf("%s commands/s, %d viewers, %d buyers", readable(float64(m.rate)), len(m.viewers), m.connections), warmUp(m.duration)+m.duration)
	began := time.Now()
	step := func() { m.progress.since(began) }
	if err := m.offer(ctx, float64(m.rate), warmUp(m.duration), step); err != nil {
		return err
	}
	m.restart()
	from, acked := m.times(), m.ackedAll()
	err := m.profiled(m.duration, func() error { return m.offer(ctx, float64(m.rate), m.duration, step) })
	if err != nil {
		return err
	}
	m.putRates(from, m.ackedAll()-acked)
	return nil
}

// restart forgets what was measured.
func (m *mixed) restart() {
	m.checkout.restart()
	m.party.restart()
	for _, ages := range []latencies{m.watches, m.counts, m.late} {
		ages.h.Reset()
	}
}

// coresMax is how much of a core the generator, which is one goroutine, may use before
// it may be what is slow.
const coresMax = 0.9

// putRates writes what was done in the phase that ends now.
func (m *mixed) putRates(from processTimes, acked int64) {
	took, n := time.Since(from.at).Seconds(), m.numbers
	n["acked_per_second"] = float64(acked) / took
	n["delivered_per_second"] = float64(m.party.delivered) / took
	n["conflated_percent"] = 100 * float64(m.party.conflated) / float64(max(m.party.delivered+m.party.conflated, 1))
	m.late.put(n, "generator_late_")
	m.putCPU(from, acked, "command")
	if own, known := n["generator_cpu_us_per_command"]; known {
		n["generator_cores"] = own * n["acked_per_second"] / 1e6
	}
	if cores := n["generator_cores"]; cores > coresMax {
		m.progress.note("%s: the generator has used %.2f cores of 1: it may be the limit", m.name, cores)
	}
}

// putAges writes how long everything took, once all is settled: what had to wait until
// after the phase has taken longest.
func (m *mixed) putAges() {
	all := m.gen.newLatencies("commands")
	for prefix, ages := range m.parts() {
		all.h.Merge(ages.h)
		ages.put(m.numbers, prefix)
	}
	all.put(m.numbers, "")
	m.party.ages.put(m.numbers, "push_")
}
