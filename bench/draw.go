package main

import (
	"math"
	"time"

	"github.com/stockmesh/stockmesh/bench/page"
)

// draw writes down, for the file and the charts, what happened in a round that is
// over now.
func (c *chronicle) draw(round int, to *page.Run) {
	if c == nil {
		return
	}
	names, lines := c.lines()
	for i, t := range lines {
		if drawn, ok := t.draw(); ok {
			drawn.Round, drawn.Name = round, names[i]
			to.Timelines = append(to.Timelines, drawn)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.events {
		to.Events = append(to.Events, e.draw(round))
	}
	for _, e := range c.phases {
		to.Phases = append(to.Phases, e.draw(round))
	}
	for _, s := range c.spreads {
		h := page.Histogram{Round: round, Name: s.timeline, Prefix: s.prefix}
		for _, b := range s.counts {
			h.AgeMS, h.Count = append(h.AgeMS, inMS(ageOf(b.bucket))), append(h.Count, b.n)
		}
		to.Histograms = append(to.Histograms, h)
	}
}

func (e *event) draw(round int) page.Event {
	return page.Event{Round: round, AtS: inSeconds(e.at), EndS: inSeconds(e.over), Text: e.text}
}

// draw is false where nothing was counted.
func (t *timeline) draw() (drawn page.Timeline, ok bool) {
	width, all := t.intervals()
	drawn.WidthS = width.Seconds()
	for _, in := range all {
		drawn.Count = append(drawn.Count, in.total())
		drawn.P50MS = append(drawn.P50MS, inMS(in.quantile(0.5)))
		drawn.P99MS = append(drawn.P99MS, inMS(in.quantile(0.99)))
		drawn.MaxMS = append(drawn.MaxMS, inMS(in.max))
	}
	return drawn, len(all) > 0
}

func inSeconds(d time.Duration) float64 { return math.Round(d.Seconds()*1000) / 1000 }

// inMS is an age in milliseconds, to the microsecond.
func inMS(ns int64) float64 { return math.Round(float64(ns)/1000) / 1000 }
