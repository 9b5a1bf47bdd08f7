package page

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// sampleRuns is what bench might have found: something of each kind, the same each
// time.
func sampleRuns() []Run {
	return []Run{sampleSpeed(), sampleFailover(), sampleBroken(), sampleNotRun()}
}

func sampleBase(scenario, about string) Run {
	return Run{
		Scenario: scenario, About: about, Spawn: "3", Where: "a region of 3 nodes, spawned",
		Machine: Machine{CPU: "AMD EPYC 7B13", Cores: 2, Kernel: "6.1.0", OS: "linux/amd64", Go: "go1.26.0", FsyncMS: 0.412},
		Version: Version{Module: "(devel)", Revision: "4f6a1b2c3d4e5f60718293a4b5c6d7e8f9012345"},
		Command: "bench " + scenario + " --spawn=3 --seed=4711", Seed: 4711,
		Began: time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC), TookS: 83.4,
		Metrics: map[string]float64{}, Peers: map[string]map[string]float64{}, Marks: map[string]Mark{},
		Rounds: map[string][]float64{}, PeerRounds: map[string]map[string][]float64{}, Durability: map[string]string{},
	}
}

func (r Run) put(metric string, values ...float64) {
	r.Rounds[metric] = values
	r.Metrics[metric], _, _ = Spread(values)
}

func (r Run) putPeer(name, metric string, values ...float64) {
	if r.Peers[name] == nil {
		r.Peers[name], r.PeerRounds[name] = map[string]float64{}, map[string][]float64{}
	}
	r.PeerRounds[name][metric] = values
	r.Peers[name][metric], _, _ = Spread(values)
}

func sampleSpeed() Run {
	r := sampleBase("hot-sku", "sells of one SKU over pipelined connections, as fast as they are answered and at half of that")
	r.put("acked_per_second", 281433, 264871, 290112)
	r.put("p50_ms", 6.91, 7.4, 6.6)
	r.put("p99_ms", 14.2, 19.75, 13.9)
	r.put("half_p50_ms", 0.931, 0.952, 0.917)
	r.put("half_p99_ms", 3.21, 4.4, 2.97)
	r.put("half_acked_per_second", 140716, 132435, 145056)
	r.put("half_generator_late_p99_ms", 1.02, 1.3, 0.97)
	r.put("node_cpu_us_per_command", 3.51, 3.7, 3.44)
	r.put("generator_share", 0.41, 0.39, 0.42)
	peers := []struct {
		name, promise       string
		acked, p50, p99     float64
		connections, spread float64
	}{
		{"postgres", "one copy, WAL fsynced before the answer", 2931, 5.2, 19, 16, 0.1},
		{"redis", "one copy, append-only file fsynced before the answer", 21844, 2.8, 7.1, 64, 0.05},
		{"redis-pipelined", "one copy, append-only file fsynced before the answer, 16 commands a batch", 88120, 11, 24, 64, 0.07},
		{"nats-kv", "one copy, fsynced before the answer", 1230, 0.79, 3.3, 16, 0.2},
		{"nats-kv-r3", "three copies, a majority fsynced before the answer", 611, 1.55, 6.2, 16, 0.15},
	}
	for _, p := range peers {
		for metric, v := range map[string]float64{"acked_per_second": p.acked, "p50_ms": p.p50, "p99_ms": p.p99, "connections": p.connections, "ratio": 281433 / p.acked} {
			r.putPeer(p.name, metric, v, v*(1+p.spread), v*(1-p.spread))
		}
		r.Durability[p.name] = p.promise
	}
	r.Durability["stockmesh"] = "three copies, a majority fsynced before the answer"
	r.Skipped = []string{"ws: no node on PATH (Debian: nodejs), or npm install ws redis"}
	for round := 1; round <= 3; round++ {
		r.drawSpeed(round)
	}
	return r
}

// drawSpeed draws ten seconds at the maximum and ten at half of that.
func (r *Run) drawSpeed(round int) {
	rng := rand.New(rand.NewPCG(uint64(round), 1))
	t := Timeline{Round: round, Name: "commands", WidthS: 0.1}
	for i := range 262 {
		at := float64(i) * t.WidthS
		switch {
		case at < 0.6 || at > 13.1 && at < 13.6:
			t.add(0, 0, 0, 0)
		case at < 13.2:
			t.add(int64(28000+rng.NormFloat64()*900), 6.8+rng.NormFloat64()*0.3, 14+rng.ExpFloat64()*2, 17+rng.ExpFloat64()*8)
		default:
			t.add(int64(14000+rng.NormFloat64()*80), 0.93+rng.NormFloat64()*0.02, 2.8+rng.ExpFloat64(), 4+rng.ExpFloat64()*4)
		}
	}
	r.Timelines = append(r.Timelines, t)
	r.Phases = append(r.Phases, Event{round, 0.5, 13.2, "64 connections, 32 commands each under way"}, Event{round, 13.2, 0, "open loop at 140,716/s"})
	r.Histograms = append(r.Histograms, sampleHistogram(round, "", 6.9, 0.25), sampleHistogram(round, "half_", 0.93, 0.5))
}

func (t *Timeline) add(n int64, p50, p99, most float64) {
	t.Count, t.P50MS, t.P99MS, t.MaxMS = append(t.Count, n), append(t.P50MS, p50), append(t.P99MS, p99), append(t.MaxMS, max(p99, most))
}

func sampleHistogram(round int, prefix string, median, wide float64) Histogram {
	h := Histogram{Round: round, Name: "commands", Prefix: prefix}
	for age := median / 8; age < median*12; age *= 1.03 {
		d := math.Log(age/median) / wide
		if n := int64(60000 * math.Exp(-d*d/2)); n > 0 || age < median*11 && age > median*10 {
			h.AgeMS, h.Count = append(h.AgeMS, age), append(h.Count, max(n, 1))
		}
	}
	return h
}

func sampleFailover() Run {
	r := sampleBase("failover", "the node that decides is killed under load: time until the others do, and what got lost")
	for metric, v := range map[string]float64{
		"acked_per_second": 1981.2, "p50_ms": 1.31, "p99_ms": 412, "failover_p50_ms": 1460, "failover_p99_ms": 2310, "failover_max_ms": 2310,
		"lost_commands": 0, "oversold_units": 0, "failed_commands": 0, "kills": 5, "longest_gap_ms": 1890, "resent_commands": 312,
	} {
		r.put(metric, v)
	}
	r.Marks["failover_p99_ms"] = Mark{Limit: 5000, AtMost: true, Value: 2310, Met: true}
	r.Marks["longest_gap_ms"] = Mark{Limit: 1500, AtMost: true, Value: 1890}
	rng := rand.New(rand.NewPCG(9, 9))
	t := Timeline{Round: 1, Name: "commands", WidthS: 0.1}
	kills := []float64{12, 20, 28.3, 36.1, 44.6}
	for i := range 600 {
		at, n, slow := float64(i)*0.1, 200.0, 1.0
		for _, k := range kills {
			if at >= k && at < k+1.5 {
				n = 0
			} else if at >= k+1.5 && at < k+1.9 {
				n, slow = 900, 700*(k+2.2-at)
			}
		}
		if n += rng.NormFloat64() * 4; n < 50 {
			t.add(0, 0, 0, 0)
			continue
		}
		t.add(int64(n), 1.3*slow, 4*slow+rng.ExpFloat64(), 5*slow+rng.ExpFloat64()*6)
	}
	r.Timelines = []Timeline{t}
	r.Phases = []Event{{1, 0, 11.9, "2,000 commands/s over 64 connections, before"}, {1, 11.9, 50, "kill 1/5: bench-1, the owner"}, {1, 50, 0, "2,000 commands/s over 64 connections, after"}}
	for i, k := range kills {
		r.Events = append(r.Events, Event{1, k, k + 2.4, fmt.Sprintf("bench-%d killed", i%3+1)})
	}
	r.Histograms = []Histogram{sampleHistogram(1, "", 1.3, 0.4)}
	return r
}

// hostile is a name that would break a page that trusts it.
const hostile = `<script>alert("x")</script>`

func sampleBroken() Run {
	r := sampleBase("soak", `faults of all kinds, drawn from a seed: </script><img src=x onerror=alert(1)> " ' & {{.}}`)
	r.Spawn, r.Where = "3x1", "a mesh of 3 regions of one node, spawned"
	r.Violations = []string{
		"round 1/1: eu-1 has 99 of bench-scarce-x: want 100 after 40 acknowledged units in and 40 out, from 100",
		"round 1/1: " + hostile + "\nits log ends with:\n" + hostile,
	}
	r.put("acked_per_second", 1744.1)
	r.put("p99_ms", 803)
	r.put("lost_commands", 1)
	r.put("oversold_units", 0)
	r.put(hostile, 7)
	r.putPeer(hostile, "acked_per_second", 40)
	r.Durability[hostile] = hostile
	r.Skipped = []string{"disk: this user may not mount " + hostile}
	r.Seed, r.Command = math.MaxUint64, "bench soak --seed=18446744073709551615"
	rng := rand.New(rand.NewPCG(3, 3))
	t := Timeline{Round: 1, Name: "commands " + hostile, WidthS: 0.4}
	for i := range 500 {
		n := max(0, 700+300*math.Sin(float64(i)/30)+rng.NormFloat64()*40)
		t.add(int64(n), 2+rng.ExpFloat64(), 20+rng.ExpFloat64()*100, 100+rng.ExpFloat64()*2000)
	}
	r.Timelines = []Timeline{t}
	kinds := []string{"kill eu-1", "stop us-1 for 3 s", "cut asia", "slow eu-us, +200 ms", "one way us-asia", "clock of eu-1 +5 min", hostile}
	for i := range 28 {
		e := Event{1, 4 + float64(i)*6.7 + rng.Float64()*3, 0, kinds[i%len(kinds)]}
		if i%3 > 0 {
			e.EndS = e.AtS + 1 + rng.Float64()*9
		}
		r.Events = append(r.Events, e)
	}
	return r
}

func sampleNotRun() Run {
	r := sampleBase("power", "all nodes lose power at the same moment, again and again: no acknowledged command may be lost")
	r.NotRun, r.TookS = "/dev/fuse is missing: modprobe fuse", 0.1
	return r
}
