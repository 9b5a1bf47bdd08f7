package bus

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// fillFast appends n messages without waiting for each one.
func fillFast(t testing.TB, l *Log, n uint64, body func(uint64) []byte) {
	t.Helper()
	var acks []jetstream.PubAckFuture
	for seq := uint64(1); seq <= n; seq++ {
		acks = append(acks, must[jetstream.PubAckFuture](t)(l.bus.bulk.js.PublishAsync(l.subject, body(seq))))
		if seq%256 == 0 || seq == n {
			for _, a := range acks {
				select {
				case <-a.Ok():
				case err := <-a.Err():
					t.Fatal(err)
				}
			}
			acks = acks[:0]
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1 << 10, 32 << 10} {
		b.Run(fmt.Sprintf("%dKB", size>>10), func(b *testing.B) {
			l := newLog(b, openBus(b))
			data := make([]byte, size)
			var last uint64
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				last = must[uint64](b)(l.Append(b.Context(), data, last))
			}
		})
	}
}

func BenchmarkLogRead(b *testing.B) {
	l := newLog(b, openBus(b))
	const n = 20_000
	data := make([]byte, 200)
	fillFast(b, l, n, func(uint64) []byte { return data })
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Read(b.Context(), 1, n, func(uint64, []byte) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
}

func BenchmarkLogGet(b *testing.B) {
	l := newLog(b, openBus(b))
	must[uint64](b)(l.Append(b.Context(), make([]byte, 1<<10), 0))
	b.ReportAllocs()
	for b.Loop() {
		must[[]byte](b)(l.Get(b.Context(), 1))
	}
}

// BenchmarkTablePut flushes 256 rows of 200 bytes, alone and while a log is
// appended to as fast as it goes; append_p99_us is what the log sees of it.
func BenchmarkTablePut(b *testing.B) {
	for _, beside := range []bool{false, true} {
		b.Run(map[bool]string{false: "alone", true: "besideAppends"}[beside], func(b *testing.B) {
			bus := openBus(b)
			table := newTable(b, bus)
			stop := func() []time.Duration { return nil }
			if beside {
				stop = appendBeside(b, newLog(b, bus))
			}
			rows := rowsNamed(256, string(make([]byte, 200)))
			for b.Loop() {
				for i, r := range must[[]Result](b)(table.Put(b.Context(), rows)) {
					rows[i].Revision = r.Revision
				}
			}
			b.ReportMetric(256*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
			if took := stop(); len(took) > 0 {
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds()), "append_p50_us")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "append_p99_us")
			}
		})
	}
}

// appendBeside appends 16 KB messages until stop, which returns each one's time.
func appendBeside(b *testing.B, l *Log) (stop func() []time.Duration) {
	var over atomic.Bool
	var wg sync.WaitGroup
	var took []time.Duration
	wg.Go(func() {
		data := make([]byte, 16<<10)
		for last := uint64(0); !over.Load(); {
			start := time.Now()
			seq, err := l.Append(b.Context(), data, last)
			if err != nil {
				b.Error(err)
				return
			}
			last = seq
			took = append(took, time.Since(start))
		}
	})
	return func() []time.Duration {
		over.Store(true)
		wg.Wait()
		return took
	}
}

// BenchmarkRegionAppend appends on the leader's node, three servers and their
// disks being this one process and disk.
func BenchmarkRegionAppend(b *testing.B) {
	for _, size := range []int{1 << 10, 50 << 10} {
		b.Run(fmt.Sprintf("%dKB", size>>10), func(b *testing.B) {
			l, _ := leading(b, newRegion(b, 3).logs("l"))
			data := make([]byte, size)
			var took []time.Duration
			var last uint64
			b.ReportAllocs()
			for b.Loop() {
				start := time.Now()
				last = must[uint64](b)(l.Append(b.Context(), data, last))
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50_us")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99_us")
		})
	}
}
