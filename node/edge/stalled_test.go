package edge_test

import (
	"bytes"
	"flag"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/node/edge"
	"github.com/stockmesh/stockmesh/protocol"
)

// The long form: go test ./node/edge -run TestStalledReaders -v -readers 9000
//
// Both ends of each connection are in one process, which needs the files for them.
var readersOf = flag.Int("readers", 500, "readers in TestStalledReaders, of which a tenth stalls")

// Readers that stall are closed, cost the node little, hold up nobody, and find the
// right state when they come back.
func TestStalledReaders(t *testing.T) {
	n := *readersOf
	if slower > 1 {
		n = min(n, 100)
	}
	f := start(t, func(c *edge.Config) { c.SlowTimeout = slower * 2 * time.Second })
	skus := names(100)
	f.ledger.set(0, skus...)
	r := &readers{fixture: f, last: fmt.Appendf(nil, `"on_hand":%d`, lastOnHand), want: len(skus)}
	stalled := n / 10
	r.read(n - stalled)
	narrow := &readers{fixture: f.buffering(4 << 10)}
	for range stalled {
		narrow.join()
	}
	before := measure(t)
	gone := func() bool { return f.metric("stockmesh_sessions_closed_total") >= float64(stalled) }
	begin := time.Now()
	heap := r.changeUntil(gone, skus, time.Duration(n)*100*time.Microsecond)
	t.Logf("%d of %d readers closed after %v, heap %d to %d", stalled, n, time.Since(begin).Round(time.Millisecond), before.heap, heap)
	if most := before.heap + uint64(stalled)*256<<10 + 8<<20; heap > most {
		t.Errorf("heap grew from %d to %d", before.heap, heap)
	}
	f.ledger.set(lastOnHand, skus...)
	r.wg.Wait()
	if t.Failed() {
		return
	}
	if got := f.metric("stockmesh_sessions_closed_total"); got != float64(stalled) {
		t.Errorf("%v sessions were closed, %d had stalled", got, stalled)
	}
	back := f.dial()
	snapshot, _ := back.subscribe(`"all":true`)
	if want := fmt.Sprintf("%s@main=%d", skus[0], lastOnHand); len(snapshot) != len(skus) || snapshot[0] != want {
		t.Errorf("who comes back gets %d items, the first %s, want %s", len(snapshot), snapshot[0], want)
	}
}

// lastOnHand is the final state of every item.
const lastOnHand = 987654321

// readers subscribe to everything.
type readers struct {
	*fixture
	last []byte // what a message holds once for each item in its final state
	want int    // items
	wg   sync.WaitGroup
}

func (r *readers) join() *peer {
	r.Helper()
	p := r.dial()
	p.subscribe(`"all":true`)
	return p
}

// read has n of them read until each has the final state of every item.
func (r *readers) read(n int) {
	r.Helper()
	for range n {
		p := r.join()
		r.wg.Go(func() {
			if err := r.readToEnd(p.conn); err != nil {
				r.Error(err)
			}
		})
	}
}

func (r *readers) readToEnd(c net.Conn) error {
	buf := make([]byte, 32<<10)
	kept, found := 0, 0
	for found < r.want {
		if err := c.SetReadDeadline(time.Now().Add(slower * time.Minute)); err != nil {
			return err
		}
		m, err := c.Read(buf[kept:])
		if err != nil {
			return fmt.Errorf("after the final state of %d items: %w", found, err)
		}
		all := buf[:kept+m]
		if n := bytes.Count(all, r.last); n > 0 {
			found += n
			all = all[bytes.LastIndex(all, r.last)+len(r.last):]
		}
		kept = copy(buf, all[max(0, len(all)-len(r.last)+1):])
	}
	return nil
}

// changeUntil changes all items again and again until the condition holds, and returns
// the most heap that was in use meanwhile.
func (r *readers) changeUntil(condition func() bool, skus []string, every time.Duration) (heap uint64) {
	r.Helper()
	tick := time.NewTicker(every)
	defer tick.Stop()
	end := time.Now().Add(slower * 2 * time.Minute)
	for i := int64(1); !condition(); i++ {
		if time.Now().After(end) {
			r.Fatal("stalled readers were not closed with", protocol.CloseSlowConsumer)
		}
		r.ledger.set(i, skus...)
		if i%20 == 10 {
			heap = max(heap, measure(r).heap)
		}
		<-tick.C
	}
	return heap
}
