package page

import (
	"encoding/json"
	"fmt"
	"math"
)

// panel is a timeline drawn: throughput above latency, on one axis of time, with what
// happened meanwhile.
type panel struct {
	Name  string
	Plots []plot
	X     []label
	Flags []pin
	Bands []band
	Rows  int // of flags
	Data  string
}

// plot is one drawing of a panel.
type plot struct {
	Title  string
	Class  string
	Curves []curve
	Y      []label
	Grid   []string // where lines across are, as on the drawing
	Keys   []key
}

type curve struct{ Class, Path string }

type key struct{ Class, Text string }

// label is a text at a part of an axis, in percent.
type label struct {
	At   string
	Text string
	Edge string // "first", "last" or ""
}

// pin marks what happened, by the number that the list of events has for it.
type pin struct {
	Number     int
	At         string
	From, Wide string // on the drawing; Wide "": it was over at once
	Row        int
	Text       string
	When       string
	Shown      bool // the number is shown: there is room
}

// band is a phase.
type band struct {
	At, Wide string // percent
	Text     string
}

func percent(part float64) string { return fmt.Sprintf("%.3f", 100*part) }

// panels draws the timelines of a round.
func panels(run Run, round int) []panel {
	var drawn []panel
	for _, t := range run.Timelines {
		if from, to, ok := extent(run, t, round); ok {
			drawn = append(drawn, newPanel(run, t, seconds(from, to)))
		}
	}
	return drawn
}

// filledMin is how many intervals make a line.
const filledMin = 5

// lastAfter is how long after the last of a line, in seconds, an event belongs to it.
const lastAfter = 1

// extent is the part of a round that a timeline is about; ok is false where there is
// nothing to be seen.
func extent(run Run, t Timeline, round int) (from, to float64, ok bool) {
	from, to = math.Inf(1), 0
	filled := 0
	for i, n := range t.Count {
		if n > 0 {
			filled++
			from, to = min(from, float64(i)*t.WidthS), float64(i+1)*t.WidthS
		}
	}
	if t.Round != round || filled < filledMin {
		return 0, 0, false
	}
	for _, e := range run.Events {
		if e.Round == round && e.AtS >= to && e.AtS < to+lastAfter {
			to = e.AtS + t.WidthS // what it did is that nothing came any more
		}
	}
	return from, to, true
}

func newPanel(run Run, t Timeline, x scale) panel {
	p := panel{Name: t.Name, Plots: []plot{throughput(t, x), latency(t, x)}}
	for _, tick := range x.ticks {
		p.X = append(p.X, xLabel(x, tick))
	}
	p.flags(run.Events, t.Round, x)
	for _, e := range run.Phases {
		end := e.EndS
		if end == 0 {
			end = x.high
		}
		from, to := x.part(e.AtS), x.part(end)
		if e.Round == t.Round && to-from > bandMin {
			p.Bands = append(p.Bands, band{percent(from), percent(to - from), e.Text})
		}
	}
	p.Data = readings(t, x)
	return p
}

func xLabel(x scale, t tick) label {
	part := x.part(t.at)
	l := label{At: percent(part), Text: t.label}
	switch {
	case part < 0.03:
		l.Edge = "first"
	case part > 0.96:
		l.Edge = "last"
	}
	return l
}

func yLabels(s scale) (labels []label, grid []string) {
	for _, t := range s.ticks {
		labels = append(labels, label{At: percent(1 - s.part(t.at)), Text: t.label})
		grid = append(grid, fmt.Sprintf("%.2f", s.y(t.at)))
	}
	return labels, grid
}

// throughput draws how many there were per second.
func throughput(t Timeline, x scale) plot {
	high := 0.0
	for _, n := range t.Count {
		high = max(high, float64(n)/t.WidthS)
	}
	y := fromZero(high, compact)
	var over line
	first, last := middle(t, 0), 0.0
	for i, n := range t.Count {
		at := middle(t, i)
		if at < x.low || at > x.high {
			continue
		}
		if !over.pen {
			first = at
		}
		over.to(x.x(at), y.y(float64(n)/t.WidthS))
		last = at
	}
	path, _ := over.paths()
	p := plot{Title: t.Name + " per second", Class: "rate"}
	p.Y, p.Grid = yLabels(y)
	area := fmt.Sprintf("%sL%.1f %dL%.1f %dZ", path, x.x(last), plotHeight, x.x(first), plotHeight)
	p.Curves = []curve{{"area", area}, {"rate", path}}
	return p
}

func middle(t Timeline, i int) float64 { return (float64(i) + 0.5) * t.WidthS }

// latency draws how old they were, on a scale that shows all sizes.
func latency(t Timeline, x scale) plot {
	low, high := math.Inf(1), 0.0
	for i, n := range t.Count {
		if n > 0 {
			low, high = min(low, max(t.P50MS[i], 0.001)), max(high, t.MaxMS[i])
		}
	}
	y := decades(low, max(high, low), milliseconds)
	p := plot{Title: "latency", Class: "age", Keys: []key{{"p50", "p50"}, {"p99", "p99"}, {"max", "max"}}}
	p.Y, p.Grid = yLabels(y)
	for _, c := range []struct {
		class  string
		values []float64
	}{{"max", t.MaxMS}, {"p99", t.P99MS}, {"p50", t.P50MS}} {
		var l line
		for i, n := range t.Count {
			if at := middle(t, i); n > 0 && at >= x.low && at <= x.high {
				l.to(x.x(at), y.y(c.values[i]))
			} else {
				l.lift()
			}
		}
		path, dots := l.paths()
		p.Curves = append(p.Curves, curve{c.class, path}, curve{c.class + " dots", dots})
	}
	return p
}

const (
	bandMin   = 0.02 // of the width: less than that has no room for a word
	flagRows  = 3
	flagsMax  = 60    // with a number; of more, only the lines are drawn
	flagApart = 0.055 // of the width: on a phone, a number is as wide
)

// flags marks the events of a round that lie in the part that is drawn. Numbers that would hide each other go to rows.
func (p *panel) flags(events []Event, round int, x scale) {
	ends := make([]float64, flagRows)
	for i := range ends {
		ends[i] = -1
	}
	number := 0
	for _, e := range events {
		if e.Round != round {
			continue
		}
		number++
		end := max(e.EndS, e.AtS)
		if end < x.low || e.AtS > x.high {
			continue
		}
		part := x.part(e.AtS)
		f := pin{Number: number, At: percent(part), From: fmt.Sprintf("%.1f", x.x(e.AtS)), Text: e.Text, When: when(e)}
		if end > e.AtS {
			f.Wide = fmt.Sprintf("%.1f", max(x.x(end)-x.x(e.AtS), 1))
		}
		for row, taken := range ends {
			if part-taken >= flagApart && number <= flagsMax {
				f.Row, f.Shown, ends[row] = row, true, part
				p.Rows = max(p.Rows, row+1)
				break
			}
		}
		p.Flags = append(p.Flags, f)
	}
}

// when says when something happened and how long it took.
func when(e Event) string {
	at := fmt.Sprintf("%.1f s", e.AtS)
	if e.EndS > e.AtS {
		return at + ", for " + milliseconds(1000*(e.EndS-e.AtS))
	}
	return at
}

// readings is what the reader of a chart is told under the pointer: where the drawing
// begins and ends in seconds, how long an interval is, and of each interval the
// moment, the rate, p50, p99 and max.
func readings(t Timeline, x scale) string {
	r := struct {
		From float64      `json:"from"`
		To   float64      `json:"to"`
		Rows [][5]float64 `json:"rows"`
	}{From: x.low, To: x.high}
	for i, n := range t.Count {
		if at := middle(t, i); at >= x.low && at <= x.high {
			r.Rows = append(r.Rows, [5]float64{round3(at), round3(float64(n) / t.WidthS), t.P50MS[i], t.P99MS[i], t.MaxMS[i]})
		}
	}
	b, err := json.Marshal(r)
	if err != nil { // an infinite or missing number: the chart stays, without a reading
		return "{}"
	}
	return string(b)
}

func round3(v float64) float64 { return math.Round(v*1000) / 1000 }
