package main

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// chronicle is what happened in a round, and when: the charts are drawn from it. A nil
// one keeps nothing. It may be used by several goroutines.
type chronicle struct {
	began time.Time

	mu        sync.Mutex
	events    []*event
	phases    []*event
	names     []string // of timelines, in the order they came
	timelines map[string]*timeline
	spreads   []ageSpread
}

// event is something that was done to the nodes, or a phase of the scenario.
type event struct {
	at, over time.Duration // since the round began; over: when it ended, 0 if it was over at once
	text     string
}

// ageSpread is how the ages of a phase were spread.
type ageSpread struct {
	timeline string // that they are part of
	prefix   string // of the metrics with the same ages
	interval
}

func newChronicle() *chronicle {
	return &chronicle{began: time.Now(), timelines: make(map[string]*timeline)}
}

// happened notes a fault or another step done to the nodes. It is told at once and
// marked in the charts.
func (r *round) happened(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.chronicle.note(text)
	r.progress.note("  %s", text)
}

// happening is happened for what takes a while: until over is called, at most to the
// end of the round.
func (r *round) happening(format string, args ...any) (over func()) {
	text := fmt.Sprintf(format, args...)
	e := r.chronicle.note(text)
	r.progress.note("  %s", text)
	return func() { r.chronicle.end(e) }
}

// timeline returns the one of this name: it is made when it is first asked for.
func (r *round) timeline(name string) *timeline { return r.chronicle.timeline(name) }

func (c *chronicle) note(text string) *event {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e := &event{at: time.Since(c.began), text: text}
	c.events = append(c.events, e)
	return e
}

func (c *chronicle) end(e *event) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e.over = time.Since(c.began)
}

// phase begins a phase and ends the one before.
func (c *chronicle) phase(text string) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Since(c.began)
	if n := len(c.phases); n > 0 {
		c.phases[n-1].over = now
	}
	c.phases = append(c.phases, &event{at: now, text: text})
}

func (c *chronicle) timeline(name string) *timeline {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.timelines[name]
	if t == nil {
		t = newTimeline(c.began)
		c.timelines[name] = t
		c.names = append(c.names, name)
	}
	return t
}

// lines lists the timelines with their names, in the order they were asked for.
func (c *chronicle) lines() (names []string, lines []*timeline) {
	if c == nil {
		return nil, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range c.names {
		lines = append(lines, c.timelines[name])
	}
	return slices.Clone(c.names), lines
}

// keep keeps how ages were spread, with those of the same phase.
func (c *chronicle) keep(s ageSpread) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.spreads {
		if have := &c.spreads[i]; have.timeline == s.timeline && have.prefix == s.prefix {
			have.interval = have.plus(s.interval)
			return
		}
	}
	c.spreads = append(c.spreads, s)
}
