package main

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// feed leads what a generator's clients measure to a timeline. It takes the time from
// the generator, which has just looked. A nil one takes nothing.
type feed struct {
	chronicle *chronicle
	name      string
	line      *timeline
	gen       *generator
	ahead     time.Duration // the generator was started so long after the round began
}

// newGenerator makes a generator whose clients' latencies are drawn in the charts.
func (r *round) newGenerator() (*generator, error) {
	g, err := newGenerator()
	if err == nil {
		g.chronicle = r.chronicle
	}
	return g, err
}

func (g *generator) newFeed(name string) *feed {
	if g == nil || g.chronicle == nil || name == "" {
		return nil
	}
	return &feed{chronicle: g.chronicle, name: name, line: g.chronicle.timeline(name), gen: g, ahead: g.start.Sub(g.chronicle.began)}
}

func (f *feed) add(ageNS, n int64) {
	if f != nil {
		f.line.addAt(f.ahead+time.Duration(f.gen.now), ageNS, n)
	}
}

// keep keeps how the ages of a phase were spread, under the prefix of its metrics.
func (f *feed) keep(prefix string, h *hdrhistogram.Histogram) {
	if f == nil || h.TotalCount() == 0 {
		return
	}
	var counts [ageBuckets]int64
	for _, bar := range h.Distribution() {
		counts[ageBucket(bar.From*1000)] += bar.Count
	}
	f.chronicle.keep(ageSpread{f.name, prefix, interval{filled(&counts), h.Max() * 1000}})
}
