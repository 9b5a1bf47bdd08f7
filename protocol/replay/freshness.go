package replay

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/stockmesh/stockmesh/protocol"
)

// sightingsMax bounds what a watcher remembers per item for acknowledgements
// that are overtaken by their push.
const sightingsMax = 8

// freshness measures from sending a command to a watcher seeing its effect. Only
// commands that answer with the item's version can be matched exactly: counts
// and returns.
type freshness struct {
	mu        sync.Mutex
	histogram *hdrhistogram.Histogram
	seen      map[string][]sighting // newest last
	waiting   map[string][]sighting // acknowledged, not seen: at is when it was sent
}

type sighting struct {
	version protocol.Vector
	at      time.Time
}

func newFreshness() *freshness {
	return &freshness{
		histogram: hdrhistogram.New(1, (10 * time.Minute).Microseconds(), 3),
		seen:      map[string][]sighting{},
		waiting:   map[string][]sighting{},
	}
}

// saw: the watcher was shown the item at this version.
func (m *freshness) saw(sku string, version protocol.Vector, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := append(m.seen[sku], sighting{version, at})
	m.seen[sku] = s[max(0, len(s)-sightingsMax):]
	left := m.waiting[sku][:0]
	for _, w := range m.waiting[sku] {
		if version.AtLeast(w.version) {
			m.record(at.Sub(w.at))
		} else {
			left = append(left, w)
		}
	}
	m.waiting[sku] = left
}

// acknowledged: a command sent at the given time led to this version.
func (m *freshness) acknowledged(sku string, version protocol.Vector, sent time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, s := range m.seen[sku] {
		if !s.version.AtLeast(version) {
			continue
		}
		if i > 0 || len(m.seen[sku]) < sightingsMax {
			m.record(s.at.Sub(sent))
		} // else the first sighting may be forgotten
		return
	}
	m.waiting[sku] = append(m.waiting[sku], sighting{version, sent})
}

func (m *freshness) record(d time.Duration) {
	// Beyond ten minutes is as bad as ten minutes.
	m.histogram.RecordValue(min(max(1, d.Microseconds()), m.histogram.HighestTrackableValue()))
}

// Freshness is how long it took from sending a count or a return until a watcher saw
// its effect, over all watchers.
type Freshness struct {
	Samples int64   `json:"push_samples"`
	P50     float64 `json:"push_p50_ms"`
	P99     float64 `json:"push_p99_ms"`
}

func summarize(all []*freshness) Freshness {
	sum := newFreshness().histogram
	for _, m := range all {
		m.mu.Lock()
		sum.Merge(m.histogram)
		m.mu.Unlock()
	}
	ms := func(q float64) float64 { return float64(sum.ValueAtQuantile(q)) / 1000 }
	return Freshness{Samples: sum.TotalCount(), P50: ms(50), P99: ms(99)}
}
