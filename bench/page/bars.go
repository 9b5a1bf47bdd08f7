package page

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// comparison is a metric of ours beside that of the peers.
type comparison struct {
	Metric string
	Unit   string
	Note   string // how to read it
	Log    bool
	Bars   []bar
	X      []label
}

// bar is the median, with the lowest and highest of all rounds.
type bar struct {
	Name       string
	Durability string
	Ours       bool
	Value      string
	Range      string // "": there is one round
	Wide       string // percent
	From, Span string // of the whisker
	Ratio      string // of ours; "": it is ours
}

// compared are the metrics that are drawn beside the peers' where both have them, in
// this order; the others are in the tables.
var compared = []string{
	"acked_per_second", "orders_per_second", "delivered_per_second", "stream_per_second", "p50_ms", "p99_ms",
	"reserve_p50_ms", "reserve_p99_ms", "order_p50_ms", "order_p99_ms", "many_p99_ms", "half_p99_ms", "rss_bytes_per_connection",
}

const (
	logBeyond     = 30 // times the smallest: then the scale is logarithmic
	comparedAtAll = 3  // where none of those is there
)

// Ours is the name that we have among the peers.
const Ours = "stockmesh"

// comparisons draws what a run and its peers have in common.
func comparisons(run Run) []comparison {
	var metrics []string
	for _, metric := range compared {
		if shared(run, metric) {
			metrics = append(metrics, metric)
		}
	}
	if len(metrics) == 0 {
		for _, metric := range slices.Sorted(maps.Keys(run.Metrics)) {
			if shared(run, metric) && len(metrics) < comparedAtAll {
				metrics = append(metrics, metric)
			}
		}
	}
	var all []comparison
	for i, metric := range metrics {
		c := compare(run, metric)
		for j := range c.Bars {
			if i > 0 { // said once
				c.Bars[j].Durability = ""
			}
		}
		all = append(all, c)
	}
	return all
}

func shared(run Run, metric string) bool {
	if _, ours := run.Metrics[metric]; !ours {
		return false
	}
	for _, peer := range run.Peers {
		if _, theirs := peer[metric]; theirs {
			return true
		}
	}
	return false
}

// side is one row before it is drawn.
type side struct {
	name              string
	median, low, high float64
}

func compare(run Run, metric string) comparison {
	ours := newSide(Ours, run.Metrics[metric], run.Rounds[metric])
	rows := []side{ours}
	for name, peer := range run.Peers {
		if v, ok := peer[metric]; ok {
			rows = append(rows, newSide(name, v, run.PeerRounds[name][metric]))
		}
	}
	better, less := "more is better", lessIsBetter(metric)
	if less {
		better = "less is better"
	}
	slices.SortStableFunc(rows[1:], func(a, b side) int {
		if less {
			return cmp.Or(cmp.Compare(a.median, b.median), strings.Compare(a.name, b.name))
		}
		return cmp.Or(cmp.Compare(b.median, a.median), strings.Compare(a.name, b.name))
	})
	x, log := barScale(rows, metric)
	c := comparison{Metric: metric, Unit: unit(metric), Note: better, Log: log}
	for _, tick := range x.ticks {
		c.X = append(c.X, xLabel(x, tick))
	}
	for _, s := range rows {
		c.Bars = append(c.Bars, s.bar(x, ours, c.Unit, run.Durability))
	}
	return c
}

func newSide(name string, median float64, rounds []float64) side {
	if len(rounds) == 0 {
		return side{name, median, median, median}
	}
	_, low, high := Spread(rounds)
	return side{name, median, low, high}
}

func (s side) bar(x scale, ours side, unit string, durability map[string]string) bar {
	b := bar{Name: s.name, Durability: durability[s.name], Ours: s.name == ours.name, Value: figure(s.median, unit), Wide: percent(x.part(s.median))}
	if s.high > s.low {
		b.Range = figure(s.low, unit) + " – " + figure(s.high, unit)
		b.From, b.Span = percent(x.part(s.low)), percent(x.part(s.high)-x.part(s.low))
	}
	if !b.Ours && s.median > 0 && ours.median > 0 {
		b.Ratio = times(ours.median / s.median)
	}
	return b
}

// times says how many times as much one thing is as another.
func times(ratio float64) string {
	switch {
	case ratio >= 100:
		return fmt.Sprintf("%s×", Readable(math.Round(ratio)))
	case ratio >= 10:
		return fmt.Sprintf("%.1f×", ratio)
	}
	return fmt.Sprintf("%.2f×", ratio)
}

// barScale is logarithmic where the bars of a linear one could not be told apart.
func barScale(rows []side, metric string) (s scale, log bool) {
	low, high := math.Inf(1), 0.0
	for _, r := range rows {
		high = max(high, r.high)
		if r.low > 0 {
			low = min(low, r.low)
		}
	}
	text := compact
	if strings.HasSuffix(metric, "_ms") {
		text = milliseconds
	}
	if high > logBeyond*low {
		return decades(low/2, high, text), true
	}
	return fromZero(high, text), false
}

// lessIsBetter tells by its name which way a metric is good.
func lessIsBetter(metric string) bool {
	for _, suffix := range []string{"_ms", "_bytes", "_bytes_per_connection", "_us_per_command", "_commands", "_units"} {
		if strings.HasSuffix(metric, suffix) {
			return true
		}
	}
	return strings.Contains(metric, "_us_per_") || strings.Contains(metric, "bytes_per_")
}

// unit is what a metric is counted in, by its name; "" if that doesn't say.
func unit(metric string) string {
	for _, u := range []struct{ suffix, unit string }{
		{"_ms", "ms"}, {"_percent", "%"}, {"_per_second", "/s"}, {"_bytes", "bytes"}, {"_ratio", "×"},
		{"_us_per_command", "µs"}, {"_bytes_per_connection", "bytes"},
	} {
		if strings.HasSuffix(metric, u.suffix) {
			return u.unit
		}
	}
	switch {
	case strings.Contains(metric, "_us_per_"):
		return "µs"
	case strings.Contains(metric, "bytes_per_"):
		return "bytes"
	}
	return ""
}
