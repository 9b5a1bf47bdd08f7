package main

import (
	"fmt"
	"strings"
	"time"
)

// live says in a line what is going on: of the last second, how much was answered and
// how soon, and what the nodes take.
func (r *round) live() string {
	var parts []string
	names, lines := r.chronicle.lines()
	for i, t := range lines {
		sum, over := t.last(time.Second)
		if n := sum.total(); n > 0 && over > 0 {
			parts = append(parts, fmt.Sprintf("%s %s/s, p50 %s ms, p99 %s ms", names[i], readable(float64(n)/over.Seconds()), readable(inMS(sum.quantile(0.5))), readable(inMS(sum.quantile(0.99)))))
		}
	}
	if len(parts) == 0 && len(names) > 0 {
		parts = append(parts, names[0]+" 0/s")
	}
	if text := r.taken(); text != "" {
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}

// nodesUsage is the CPU time that nodes had used at a moment.
type nodesUsage struct {
	at   time.Time
	used time.Duration
	pids int
}

// taken says what the nodes take, where that is known here.
func (r *round) taken() string {
	now := nodesUsage{at: time.Now()}
	var resident int64
	for _, n := range r.target.nodes {
		pid := int(n.running.Load())
		if pid == 0 {
			continue
		}
		used, err := cpuTime(pid)
		bytes, failed := residentBytes(pid)
		if err != nil || failed != nil { // it has ended meanwhile, or this is no Linux
			continue
		}
		now.used += used
		now.pids++
		resident += bytes
	}
	before := r.usage
	r.usage = now
	if now.pids == 0 {
		return ""
	}
	text := fmt.Sprintf("nodes %s MiB", readable(float64(resident>>20)))
	// A node that came or went has taken its CPU time along.
	if took := now.at.Sub(before.at).Seconds(); before.pids == now.pids && now.used >= before.used && took > 0 {
		text += fmt.Sprintf(", %.1f cores", (now.used-before.used).Seconds()/took)
	}
	return text
}
