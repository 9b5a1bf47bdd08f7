package replay

import (
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

func TestFreshness(t *testing.T) {
	v := func(n uint64) protocol.Vector { return protocol.Vector{{Region: "eu", N: n}} }
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	m := newFreshness()
	m.acknowledged("A", v(2), at(0)) // acknowledged first
	m.saw("A", v(1), at(5))
	m.saw("A", v(3), at(10))         // stands for 2 as well: 10 ms
	m.acknowledged("A", v(3), at(7)) // seen first: 3 ms
	m.acknowledged("B", v(1), at(0)) // never seen
	sum := summarize([]*freshness{m})
	if sum.Samples != 2 || sum.P50 < 2.9 || sum.P50 > 3.1 || sum.P99 < 9.9 || sum.P99 > 10.1 {
		t.Errorf("%+v", sum)
	}
	for i := range uint64(20) {
		m.saw("C", v(i+10), at(int(i)))
	}
	m.acknowledged("C", v(10), at(0)) // when it was first seen is forgotten
	if got := summarize([]*freshness{m}); got.Samples != 2 {
		t.Errorf("%+v", got)
	}
}
