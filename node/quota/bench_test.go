package quota

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// fast is more than a benchmark spends, so that nothing is refused.
const fast = 1_000_000_000

func BenchmarkSpend(b *testing.B) {
	benchmark := func(name string, config Config) {
		q := start(config, nil, func() {})
		defer q.Close()
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			a := q.Account("ada")
			for b.Loop() {
				a.Spend(1)
			}
		})
		b.Run(name+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(p *testing.PB) {
				a := q.Account("ada")
				for p.Next() {
					a.Spend(1)
				}
			})
		})
	}
	benchmark("allowed", Config{Node: "a", Limits: Limits{Commands: fast}})
	benchmark("refused", Config{Node: "a", Limits: Limits{Commands: 1}})
	benchmark("a clock given", Config{Node: "a", Limits: Limits{Commands: fast}, Now: time.Now})
	benchmark("no limit", Config{Node: "a"})
}

// What of Spend is reading the clock.
func BenchmarkClock(b *testing.B) {
	now, _ := new(Config).clock()
	for b.Loop() {
		now()
	}
}

func BenchmarkConnect(b *testing.B) {
	q := start(Config{Node: "a", Limits: Limits{Connections: 100}}, nil, func() {})
	defer q.Close()
	a := q.Account("ada")
	b.ReportAllocs()
	for b.Loop() {
		a.Connect()
		a.Disconnect()
	}
}

func BenchmarkAccount(b *testing.B) {
	q := start(Config{Node: "a", Limits: Limits{Commands: 100}}, nil, func() {})
	defer q.Close()
	b.ReportAllocs()
	for b.Loop() {
		q.Account("ada").Release()
	}
}

// A beat with 100,000 subjects: idle ones, and ones that matter to the others.
func BenchmarkBeat(b *testing.B) {
	for name, limits := range map[string]Limits{"idle": {Commands: 100, Connections: 100}, "told": {Commands: 100, Connections: 1}} {
		b.Run(name, func(b *testing.B) {
			now := int64(0)
			before := heap()
			t := crowd(&now, limits)
			bytes := float64(heap()-before) / subjectsMax
			for b.Loop() {
				now += beatNS
				t.beat()
			}
			b.ReportMetric(bytes, "B/subject")
		})
	}
}

func crowd(now *int64, limits Limits) *table {
	t := newTestTable("a", now, limits)
	for i := range subjectsMax {
		t.account(fmt.Sprint(i)).Connect()
	}
	return t
}

func BenchmarkHeard(b *testing.B) {
	now := int64(0)
	limits := Limits{Commands: 100, Connections: 1}
	messages, _ := crowd(&now, limits).beat()
	t := newTestTable("b", &now, limits)
	b.SetBytes(int64(len(messages[0])))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		t.heard(messages[i%messagesMax])
		t.peers["a"].sequence = 0 // so that the same can be heard again
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
