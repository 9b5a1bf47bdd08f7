package edge

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestHistogram(t *testing.T) {
	h := newHistogram("test_seconds", "Of a test.", 1e-6, durations)
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(h)
	s := samples{of: h}
	for _, v := range []int64{0, 100, 101, 250, 10_000_000, 10_000_001, 1 << 40} {
		s.observe(v)
	}
	s.flush()
	s.flush() // nothing left
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := families[0].GetMetric()[0].GetHistogram()
	if got.GetSampleCount() != 7 || got.GetSampleSum() < float64(1<<40)*1e-6 {
		t.Errorf("%d values, sum %v", got.GetSampleCount(), got.GetSampleSum())
	}
	want := map[float64]uint64{0.0001: 2, 0.00025: 4, 5: 4, 10: 5}
	for _, b := range got.GetBucket() {
		if n, ok := want[b.GetUpperBound()]; ok && n != b.GetCumulativeCount() {
			t.Errorf("up to %v: %d, want %d", b.GetUpperBound(), b.GetCumulativeCount(), n)
		}
	}
	if len(got.GetBucket()) != len(durations) {
		t.Errorf("%d buckets", len(got.GetBucket()))
	}
}

func BenchmarkSamples(b *testing.B) {
	s := samples{of: newHistogram("test_seconds", "Of a test.", 1e-6, durations)}
	b.ReportAllocs()
	for i := range b.N {
		if s.observe(int64(i % 4000)); i%256 == 0 {
			s.flush()
		}
	}
}
