package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stockmesh/stockmesh/cluster/bus"
	"github.com/stockmesh/stockmesh/protocol"
)

// described is the other regions as others are told of them.
func (m *mesh) described() (list []protocol.MeshRegion) {
	nodes := make(map[string][]protocol.MeshNode)
	for _, member := range m.gossip.Members() {
		nodes[member.Region] = append(nodes[member.Region], meshNode(member))
	}
	for _, p := range m.all() {
		r := protocol.MeshRegion{Name: p.name, State: p.state(), LagMS: p.lag().Milliseconds(), Nodes: nodes[p.name]}
		if silence := p.silence(); silence < neverHeard {
			r.HeardAt = protocol.TimeOf(m.config.Clock().Add(-silence))
		}
		if r.Nodes == nil {
			r.Nodes = []protocol.MeshNode{}
		}
		list = append(list, r)
	}
	return list
}

// neverHeard is more than any silence of a region that was heard of.
const neverHeard = 365 * 24 * time.Hour

// problems tells what is wrong between this region and others. None of it keeps the node
// from serving.
func (m *mesh) problems() (list []error) {
	for _, p := range m.all() {
		if state := p.state(); state != "serving" {
			list = append(list, fmt.Errorf("region %s: %s, its picture is %v old", p.name, state, p.lag().Round(time.Millisecond)))
		}
		if mirror := p.mirror.Load(); mirror != nil {
			if err := mirror.State().Err; err != nil {
				list = append(list, fmt.Errorf("region %s: mirror: %w", p.name, err))
			}
		}
	}
	return list
}

// MeshProblems returns what is wrong between this region and others: it sells from its
// own share all the same.
func (c *Cluster) MeshProblems() []error {
	if c.mesh == nil {
		return nil
	}
	return c.mesh.problems()
}

// ErrNoMesh says that the region is linked to no other.
var ErrNoMesh = errors.New("this region is linked to no other")

// RemoveRegion takes a region out of the mesh, as this region sees it: its stock is no
// longer counted and its links are refused, on every node and until RestoreRegion. Rights
// that it was given are lost, unless it comes back.
func (c *Cluster) RemoveRegion(ctx context.Context, name string) error {
	return c.markRegion(ctx, name, removedYes)
}

// RestoreRegion takes RemoveRegion back.
func (c *Cluster) RestoreRegion(ctx context.Context, name string) error {
	return c.markRegion(ctx, name, removedNo)
}

func (c *Cluster) markRegion(ctx context.Context, name, mark string) error {
	if c.mesh == nil {
		return ErrNoMesh
	}
	c.mesh.mu.Lock()
	known := c.mesh.peers[name] != nil || c.mesh.removed[name]
	c.mesh.mu.Unlock()
	if !known {
		return fmt.Errorf("%w: no region %q", ErrNoMember, name)
	}
	key := removedKey(name)
	_, rev, err := c.table.Get(ctx, key)
	if err != nil && !errors.Is(err, bus.ErrMissing) {
		return fmt.Errorf("region %s: %w", name, err)
	}
	if _, err := c.table.Put(ctx, []bus.Row{{Key: key, Value: []byte(mark), Revision: rev}}); err != nil {
		return fmt.Errorf("region %s: %w", name, err)
	}
	c.logger.Info("a region's place in the mesh was changed", "region", name, "to", mark)
	return c.mesh.lookRemoved(ctx, []string{name})
}

// rightsMetrics are the figures of what regions give each other.
type rightsMetrics struct {
	asks    *prometheus.CounterVec
	given   *prometheus.CounterVec
	taken   *prometheus.CounterVec
	refused prometheus.Counter
}

func newRightsMetrics(r prometheus.Registerer) *rightsMetrics {
	vec := func(name, help string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"peer"})
		r.MustRegister(c)
		return c
	}
	m := &rightsMetrics{
		asks:  vec("stockmesh_rights_asks_total", "Asks for rights sent to another region."),
		given: vec("stockmesh_rights_given_units_total", "Units of rights given to another region."),
		taken: vec("stockmesh_rights_taken_units_total", "Units of rights taken that another region gave."),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "stockmesh_refused_elsewhere_total", Help: "Commands refused for lack of stock here while other regions seemed to have some.",
		}),
	}
	r.MustRegister(m.refused)
	return m
}

// begin has the figures about a region stand at zero: a rate needs to have seen that.
func (m *rightsMetrics) begin(region string) {
	for _, vec := range []*prometheus.CounterVec{m.asks, m.given, m.taken} {
		vec.WithLabelValues(region)
	}
}

// take counts units that a committed round took, by region.
func (m *rightsMetrics) take(units map[string]int64) {
	for region, n := range units {
		m.taken.WithLabelValues(region).Add(float64(n))
	}
}

// deal counts a message about rights.
func (m *rightsMetrics) deal(region string, d *deal) {
	m.asks.WithLabelValues(region).Add(float64(len(d.Asks)))
	var given int64
	for i := range d.Answers {
		given += d.Answers[i].Granted
	}
	m.given.WithLabelValues(region).Add(float64(given))
}

// refusal counts a command that was refused for lack of units here.
func (m *rightsMetrics) refusal(err *protocol.Error) {
	if err == nil || err.Code != protocol.CodeInsufficientStock || err.Details == nil {
		return
	}
	for i := range err.Details.Lines {
		if l := &err.Details.Lines[i]; l.Available+l.Elsewhere < l.Requested {
			return
		}
	}
	m.refused.Inc()
}

// collector tells how it stands with each other region when somebody asks.
type meshCollector struct {
	mesh                                       *mesh
	lag, silence, links, bytes, behind, mended *prometheus.Desc
}

func newMeshCollector(m *mesh) *meshCollector {
	desc := func(name, help string, more ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, append([]string{"peer"}, more...), nil)
	}
	return &meshCollector{
		mesh:    m,
		lag:     desc("stockmesh_peer_lag_seconds", "Age of the picture that this node has of another region."),
		silence: desc("stockmesh_peer_silence_seconds", "Time since another region was heard of."),
		links:   desc("stockmesh_links", "Connections of this node with another region's nodes."),
		bytes:   desc("stockmesh_link_bytes_total", "Bytes sent to (out) and received from (in) another region.", "direction"),
		behind:  desc("stockmesh_mirror_behind_rows", "Writes of another region's bucket that its mirror here has yet to get."),
		mended:  desc("stockmesh_mirror_mended_total", "Times that a mirror of another region's bucket stood still and was mended."),
	}
}

// Describe implements prometheus.Collector.
func (c *meshCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.lag, c.silence, c.links, c.bytes, c.behind, c.mended} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *meshCollector) Collect(out chan<- prometheus.Metric) {
	links := c.mesh.c.bus.Links()
	for _, p := range c.mesh.all() {
		gauge := func(d *prometheus.Desc, v float64) {
			out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, p.name)
		}
		gauge(c.lag, p.lag().Seconds())
		gauge(c.silence, p.silence().Seconds())
		l := links[p.name]
		gauge(c.links, float64(l.Connected))
		for direction, n := range map[string]uint64{"in": l.BytesIn, "out": l.BytesOut} {
			out <- prometheus.MustNewConstMetric(c.bytes, prometheus.CounterValue, float64(n), p.name, direction)
		}
		if mirror := p.mirror.Load(); mirror != nil {
			s := mirror.State()
			gauge(c.behind, float64(s.Behind))
			out <- prometheus.MustNewConstMetric(c.mended, prometheus.CounterValue, float64(s.Mended), p.name)
		}
	}
}
