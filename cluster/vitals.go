package cluster

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// vitals tells, when somebody asks, how the machine of this node does, and the clocks of
// the others.
type vitals struct {
	c                         *Cluster
	bytes, used, clock, nodes *prometheus.Desc
}

func newVitals(c *Cluster) *vitals {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &vitals{
		c:     c,
		bytes: desc("stockmesh_disk_bytes", "Room of the data directory's volume: all that this process could use (total), and what is left of it (free).", "kind"),
		used:  desc("stockmesh_disk_used_ratio", "Fill level of the data directory's volume, 0 to 1: above 0.8 the node is not ready."),
		clock: desc("stockmesh_clock_offset_seconds", "How far another node's clock is ahead of this one's, an estimate by the answers to its probes.", "node", "region"),
		nodes: desc("stockmesh_region_nodes", "Nodes that the region should have (expected: --expect), and those of them that serve as far as this node knows (serving).", "kind"),
	}
}

// Describe implements prometheus.Collector.
func (v *vitals) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{v.bytes, v.used, v.clock, v.nodes} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (v *vitals) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	if disk, err := volumeOf(v.c.dir.path); err == nil { // what is wrong with it shows in health
		gauge(v.bytes, disk.total, "total")
		gauge(v.bytes, disk.free, "free")
		gauge(v.used, disk.used())
	}
	v.c.clockOffsets(func(node, region string, offset time.Duration) { gauge(v.clock, offset.Seconds(), node, region) })
	expected, serving := v.c.headcount()
	gauge(v.nodes, float64(expected), "expected")
	gauge(v.nodes, float64(serving), "serving")
}

// headcount is how many nodes the region should have, and how many of them serve.
func (c *Cluster) headcount() (expected, serving int) {
	expected = 1
	if c.State() == "serving" {
		serving++
	}
	if c.region == nil {
		return expected, serving
	}
	for _, m := range c.region.others() {
		if m.State == "serving" {
			serving++
		}
	}
	return c.config.Members.Expect, serving
}

// clockOffsets tells how far the clocks of the region's other nodes, and of other regions'
// nodes, are ahead of this one's.
func (c *Cluster) clockOffsets(tell func(node, region string, offset time.Duration)) {
	if c.region != nil {
		for node, d := range c.region.gossip.ClockOffsets() {
			tell(node, c.config.Region, d)
		}
	}
	if c.mesh == nil {
		return
	}
	for name, d := range c.mesh.gossip.ClockOffsets() {
		// Of those in the pool between regions the own region's nodes are told of above.
		if region, node, ok := strings.Cut(name, "."); ok && c.mesh.peer(region) != nil {
			tell(node, region, d)
		}
	}
}

// term counts the owners that the shard had so far, as this node knows.
func (d *desk) term() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.epoch
}

// terms sums up the shards' owners.
func (c *Cluster) terms() (n uint64) {
	for _, s := range c.shards {
		n += s.desk.term()
	}
	return n
}

// quorumWatch counts how often it was lost.
type quorumWatch struct {
	losses prometheus.Counter
	lost   bool
}

// look takes the node's state, as State tells it.
func (q *quorumWatch) look(state string) {
	lost := state == "no_quorum"
	if lost && !q.lost {
		q.losses.Inc()
	}
	q.lost = lost
}
