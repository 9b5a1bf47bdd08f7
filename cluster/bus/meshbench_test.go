package bus

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestMirrorLatency measures how long a row takes from its Put in one region to the
// follower in another one, and what all of it costs.
func TestMirrorLatency(t *testing.T) {
	if !*long {
		t.Skip("-mesh.long runs it")
	}
	for _, c := range []struct{ nodes, rate int }{{1, 2000}, {1, 10000}, {3, 2000}} {
		t.Run(fmt.Sprintf("%d nodes, %d rows a second", c.nodes, c.rate), func(t *testing.T) {
			a, b := newSite(t, "a", c.nodes), newSite(t, "b", c.nodes)
			meshOf(t, a, b)
			tab := a.table("life")
			var mu sync.Mutex
			var took []time.Duration
			m := must[*Mirror](t)(b.buses[0].Mirror(t.Context(), "a", "stock", lifeKey))
			go m.Follow(t.Context(), func(rows []Row) error {
				now := time.Now().UnixNano()
				mu.Lock()
				defer mu.Unlock()
				for _, r := range rows {
					if len(r.Value) == 200 {
						took = append(took, time.Duration(now-int64(binary.BigEndian.Uint64(r.Value))))
					}
				}
				return nil
			}, nil)
			const seconds = 4
			cpu, start, n := cpuTime(t), time.Now(), 0
			revs := make(map[string]uint64)
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for ; time.Since(start) < seconds*time.Second; <-tick.C {
				rows := make([]Row, c.rate/20)
				for i := range rows {
					key := fmt.Sprintf("k.%d", n%20000)
					n++
					value := make([]byte, 200)
					binary.BigEndian.PutUint64(value, uint64(time.Now().UnixNano()))
					rows[i] = Row{Key: key, Value: value, Revision: revs[key]}
				}
				results, err := tab.Put(t.Context(), rows)
				if err != nil {
					t.Fatal(err)
				}
				for i, r := range results {
					revs[rows[i].Key] = r.Revision
				}
			}
			rate := float64(n) / time.Since(start).Seconds()
			within(t, 20*time.Second, "all rows", func() bool { mu.Lock(); defer mu.Unlock(); return len(took) >= n })
			used := cpuTime(t) - cpu
			slices.Sort(took)
			t.Logf("%.0f rows/s: p50 %v p99 %v max %v, %.2f cores, %d came of %d", rate,
				took[len(took)/2], took[len(took)*99/100], took[len(took)-1], used.Seconds()/time.Since(start).Seconds(), len(took), n)
		})
	}
}

func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
