package page

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Plots are 1000 wide and 100 high, whatever size they are shown in: only their lines
// are drawn in these units, texts are laid over them.
const (
	plotWidth  = 1000
	plotHeight = 100
)

// scale leads from values to parts of a length: 0 to 1.
type scale struct {
	low, high float64
	log       bool
	ticks     []tick
}

type tick struct {
	at    float64
	label string
}

// part is where on the scale a value lies, at its ends if beyond.
func (s scale) part(v float64) float64 {
	low, high := s.low, s.high
	if s.log {
		v, low, high = math.Log(max(v, s.low)), math.Log(low), math.Log(high)
	}
	return min(max((v-low)/(high-low), 0), 1)
}

func (s scale) x(v float64) float64 { return plotWidth * s.part(v) }
func (s scale) y(v float64) float64 { return plotHeight * (1 - s.part(v)) }

// step is the least of 1, 2, 5, 10, ... that needs at most so many steps.
func step(length float64, most int) float64 {
	if length <= 0 {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(length/float64(most))))
	for _, n := range []float64{1, 2, 5, 10} {
		if n*unit*float64(most) >= length*0.999 {
			return n * unit
		}
	}
	return 10 * unit
}

// fromZero is a linear scale with a few ticks.
func fromZero(high float64, label func(float64) string) scale {
	by := step(max(high, 1e-9)*1.02, 4)
	s := scale{high: by * math.Ceil(max(high, 1e-9)*1.02/by)}
	for i := 0; float64(i)*by <= s.high*1.001; i++ {
		s.ticks = append(s.ticks, tick{float64(i) * by, label(float64(i) * by)})
	}
	return s
}

// decades is a logarithmic scale from one of 1, 2, 5, 10, ... to another.
func decades(low, high float64, label func(float64) string) scale {
	low, high = roundTo125(low*1.0001, false), roundTo125(high*0.9999, true)
	if high <= low {
		high = low * 10
	}
	s := scale{low: low, high: high, log: true}
	few := high/low < 50
	for e := math.Floor(math.Log10(low) + 1e-9); math.Pow(10, e) <= high*1.001; e++ {
		for _, n := range []float64{1, 2, 5} {
			v := n * math.Pow(10, e)
			if (n == 1 || few) && v >= low*0.999 && v <= high*1.001 {
				s.ticks = append(s.ticks, tick{v, label(v)})
			}
		}
	}
	return s
}

// roundTo125 is the next of 1, 2, 5, 10, ... up or down.
func roundTo125(v float64, up bool) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(v)))
	best := unit
	for _, n := range []float64{1, 2, 5, 10} {
		switch {
		case !up && n*unit <= v:
			best = n * unit
		case up && n*unit >= v:
			return n * unit
		}
	}
	return best
}

// seconds is a scale of time.
func seconds(from, to float64) scale {
	const most = 8
	s := scale{low: from, high: max(to, from+0.001)}
	by := timeStep((s.high - s.low) / most)
	for at := math.Ceil(from/by) * by; at <= s.high+by*0.001; at += by {
		s.ticks = append(s.ticks, tick{at, clock(at, by)})
	}
	return s
}

func timeStep(least float64) float64 {
	for _, by := range []float64{0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600} {
		if by >= least {
			return by
		}
	}
	return 7200
}

// clock shows a moment, to the unit of its scale.
func clock(s, by float64) string {
	switch {
	case by >= 60:
		return strconv.FormatFloat(s/60, 'f', -1, 64) + " min"
	case s >= 60 && by >= 1:
		return fmt.Sprintf("%d:%02d", int(s)/60, int(math.Round(s))%60)
	case by < 1:
		return strconv.FormatFloat(s, 'f', 1, 64) + " s"
	}
	return strconv.FormatFloat(s, 'f', 0, 64) + " s"
}

// milliseconds labels an age.
func milliseconds(ms float64) string {
	switch {
	case ms == 0:
		return "0"
	case ms >= 1000:
		return short(ms/1000) + " s"
	case ms < 1:
		return short(ms*1000) + " µs"
	}
	return short(ms) + " ms"
}

// compact labels a count.
func compact(v float64) string {
	switch {
	case v >= 1e6:
		return short(v/1e6) + " M"
	case v >= 1e4:
		return short(v/1e3) + " k"
	case v >= 1e3:
		return Readable(v)
	}
	return short(v)
}

// short shows three digits, without zeros that say nothing.
func short(v float64) string {
	digits := 2
	switch {
	case v >= 100:
		digits = 0
	case v >= 10:
		digits = 1
	case v > 0 && v < 0.1:
		digits = 4
	}
	s := strconv.FormatFloat(v, 'f', digits, 64)
	if digits > 0 {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// line draws points, with gaps where there is nothing to show. What stands alone
// between two gaps becomes a dot.
type line struct {
	b, dots strings.Builder
	pen     bool
	alone   bool // the piece has one point so far
	x, y    float64
}

func (l *line) to(x, y float64) {
	switch {
	case !l.pen:
		l.pen, l.alone, l.x, l.y = true, true, x, y
		return
	case l.alone:
		fmt.Fprintf(&l.b, "M%.1f %.2f", l.x, l.y)
		l.alone = false
	}
	fmt.Fprintf(&l.b, "L%.1f %.2f", x, y)
}

// lift ends a piece.
func (l *line) lift() {
	if l.alone {
		fmt.Fprintf(&l.dots, "M%.1f %.2fh0", l.x, l.y)
	}
	l.pen, l.alone = false, false
}

// paths returns the lines and the dots.
func (l *line) paths() (lines, dots string) {
	l.lift()
	return l.b.String(), l.dots.String()
}
