package page

import (
	"fmt"
	"math"
	"strings"
)

// histogram is how the ages of a phase were spread, drawn.
type histogram struct {
	Name  string
	Total string
	Path  string
	X     []label
	Marks []label // p50, p99
	Lines []string
	Alt   string
}

const histogramBars = 48

func histograms(run Run, round int) []histogram {
	var all []histogram
	for _, h := range run.Histograms {
		if h.Round == round && len(h.Count) > 0 {
			all = append(all, newHistogram(h))
		}
	}
	return all
}

func newHistogram(h Histogram) histogram {
	low, high, total := math.Inf(1), 0.0, int64(0)
	for i, n := range h.Count {
		low, high, total = min(low, h.AgeMS[i]), max(high, h.AgeMS[i]), total+n
	}
	low = max(low, 0.001)
	x := decades(low, max(high, 2*low), milliseconds)
	drawn := histogram{Name: histogramName(h), Total: Readable(float64(total)), Path: histogramPath(h, x)}
	for _, t := range x.ticks {
		drawn.X = append(drawn.X, xLabel(x, t))
	}
	for _, q := range []struct {
		name  string
		share float64
	}{{"p50", 0.5}, {"p99", 0.99}} {
		age := h.quantile(q.share, total)
		l := label{At: percent(x.part(age)), Text: q.name + " " + milliseconds(age)}
		if x.part(age) > 0.6 {
			l.Edge = "last"
		}
		drawn.Marks = append(drawn.Marks, l)
		drawn.Lines = append(drawn.Lines, fmt.Sprintf("%.1f", x.x(age)))
	}
	drawn.Alt = fmt.Sprintf("%s: %s, %s", drawn.Name, drawn.Marks[0].Text, drawn.Marks[1].Text)
	return drawn
}

// histogramName says what phase it is of, as its metrics do.
func histogramName(h Histogram) string {
	if prefix := strings.ReplaceAll(strings.Trim(h.Prefix, "_"), "_", " "); !strings.HasPrefix(h.Name, prefix) {
		return h.Name + ", " + prefix
	}
	return h.Name
}

func (h Histogram) quantile(share float64, total int64) float64 {
	left := int64(math.Ceil(share * float64(total)))
	for i, n := range h.Count {
		if left -= n; left <= 0 {
			return h.AgeMS[i]
		}
	}
	return 0
}

// histogramPath draws bars of equal width on a logarithmic axis.
func histogramPath(h Histogram, x scale) string {
	var bars [histogramBars]int64
	most := int64(1)
	for i, n := range h.Count {
		b := min(int(x.part(h.AgeMS[i])*histogramBars), histogramBars-1)
		bars[b] += n
		most = max(most, bars[b])
	}
	const wide = float64(plotWidth) / histogramBars
	var path strings.Builder
	for i, n := range bars {
		if n > 0 {
			// A single one of millions is still to be seen.
			high := max(float64(n)/float64(most)*plotHeight*0.94, 0.6)
			fmt.Fprintf(&path, "M%.1f %dv%.2fh%.1fv%.2fz", float64(i)*wide+1, plotHeight, -high, wide-2, high)
		}
	}
	return path.String()
}
