package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/stockmesh/stockmesh/bench/peer"
)

// Children that run peers.
const (
	childKeeper = "child-keeper"
	childNATS   = "child-nats-server"
)

const peersAll = "all"

// besides says which peers have something to do beside a scenario, and what; false: none.
func besides(scenario string) (beside, bool) {
	b, ok := map[string]beside{
		"hot-sku":     {func(peer.Kind) bool { return true }, (*round).sellBeside},
		"many-skus":   {func(k peer.Kind) bool { return !k.Pushes }, (*round).sellManyBeside},
		"orders":      {func(k peer.Kind) bool { return k.Orders }, (*round).orderBeside},
		"fanout":      {func(k peer.Kind) bool { return k.Pushes }, (*round).fanBeside},
		"connections": {func(k peer.Kind) bool { return k.Pushes }, (*round).connectBeside},
	}[scenario]
	return b, ok
}

type beside struct {
	fits func(peer.Kind) bool // it has something to do there
	run  func(*round, context.Context) error
}

func peerNames() []string {
	var names []string
	for _, k := range peer.Kinds() {
		names = append(names, k.Name)
	}
	return names
}

func (o *options) checkPeers(check func(ok bool, format string, args ...any)) {
	for _, name := range o.peers {
		check(name == peersAll || slices.Contains(peerNames(), name), "--peers %q: there are %s, and all", name, strings.Join(peerNames(), ", "))
	}
	check(len(o.peers) == 0 || !o.tls && !o.grants && !o.observed, "--peers: they know no --tls, no --grants and no --observed")
}

// chosenPeers are those that were asked for and have something to do in this scenario.
func (o *options) chosenPeers() (kinds []peer.Kind) {
	b, ok := besides(o.scenario)
	if !ok {
		return nil
	}
	for _, k := range peer.Kinds() {
		if b.fits(k) && (slices.Contains(o.peers, peersAll) || slices.Contains(o.peers, k.Name)) {
			kinds = append(kinds, k)
		}
	}
	return kinds
}

func (o *options) peerConfig() (peer.Config, error) {
	self, err := os.Executable()
	c := peer.Config{Dir: o.dir, Keeper: []string{self, childKeeper}, Server: []string{self, childNATS}, Ports: ports{}.pick}
	if o.peerModules != "" {
		c.Modules = []string{o.peerModules}
	}
	return c, err
}

// beside has the peers that are asked for do what the nodes have just done. Nodes of our
// own end first: they were alone on the machine too.
func (r *round) beside(ctx context.Context) error {
	b, ok := besides(r.scenario)
	if !ok || len(r.chosenPeers()) == 0 {
		return nil
	}
	if err := r.target.close(); err != nil {
		return err
	}
	return b.run(r, ctx)
}

// peerFound reports whether a peer is installed, and tells if it isn't.
func (r *round) peerFound(k peer.Kind, c peer.Config) bool {
	err := k.Find(c)
	if err != nil {
		r.skip(k.Name, err)
	}
	return err == nil
}

// skip notes a peer that can't be measured here.
func (r *round) skip(name string, why error) {
	r.skipped[name] = firstLine(why.Error())
	r.progress.note("%s: peer %s is left out: %v", r.name, name, why)
}

// besidePeers gives every peer that is asked for by its own protocol the same work,
// and compares what it gets done with our own, a metric that both have.
func (r *round) besidePeers(ctx context.Context, w peer.Work, metric string) error {
	w.ID = r.id
	c, err := r.peerConfig()
	if err != nil {
		return err
	}
	for _, k := range r.chosenPeers() {
		if k.Pushes || !r.peerFound(k, c) {
			continue
		}
		if err := r.besidePeer(ctx, k, c, w, metric); err != nil {
			return fmt.Errorf("peer %s: %w", k.Name, err)
		}
	}
	return nil
}

func (r *round) besidePeer(ctx context.Context, k peer.Kind, c peer.Config, w peer.Work, metric string) error {
	result, err := k.Measure(ctx, c, w, r.duration, r.phase)
	if notStarted(ctx, err) {
		r.skip(k.Name, err)
		return nil
	}
	if err != nil {
		return err
	}
	maps.Copy(r.peer(k.Name), result.Figures)
	if result.Edge {
		r.leaveOut(k.Name, fmt.Sprintf("more than %.0f connections, the most that were tried and its best: its figures are a lower bound", result.Figures["connections"]))
	}
	for _, fault := range result.Faults {
		r.violate("peer %s: %s", k.Name, fault)
	}
	r.compared(k, metric, "ratio")
	return nil
}

// notStarted reports whether a peer did not come up by itself.
func notStarted(ctx context.Context, err error) bool {
	var failed *peer.StartError
	return errors.As(err, &failed) && ctx.Err() == nil
}

// compared writes how many times the peer's figure ours is.
func (r *round) compared(k peer.Kind, metric, as string) {
	r.durability[k.Name] = k.Durability
	theirs := r.peer(k.Name)[metric]
	if ours, known := r.numbers[metric]; known && theirs > 0 {
		r.peer(k.Name)[as] = ours / theirs
	}
}

// besidePusher has a WebSocket peer go through what the nodes went through, where one
// was asked for. ratios name the metrics to compare, and as what.
func (r *round) besidePusher(ctx context.Context, do func(context.Context, *round) error, ratios ...[2]string) error {
	return r.withPusher(ctx, func(k peer.Kind, p *peer.Pusher) error {
		one, err := r.across(p)
		if err != nil {
			return err
		}
		if err := do(ctx, one); err != nil {
			return err
		}
		maps.Copy(r.peer(k.Name), one.numbers)
		for _, v := range one.violations {
			r.violations = append(r.violations, fmt.Sprintf("peer %s: %s", k.Name, v))
		}
		for _, ratio := range ratios {
			r.compared(k, ratio[0], ratio[1])
		}
		return nil
	})
}

// withPusher runs the WebSocket peer while do does something, where one was asked for.
func (r *round) withPusher(ctx context.Context, do func(peer.Kind, *peer.Pusher) error) error {
	c, err := r.peerConfig()
	if err != nil {
		return err
	}
	for _, k := range r.chosenPeers() {
		if !k.Pushes || !r.peerFound(k, c) {
			continue
		}
		p, err := peer.StartPusher(ctx, c)
		if notStarted(ctx, err) {
			r.skip(k.Name, err)
			continue
		}
		if err == nil {
			err = errors.Join(do(k, p), p.Close())
		}
		if err != nil {
			return fmt.Errorf("peer %s: %w", k.Name, err)
		}
	}
	return nil
}

// across is the round on the other side of the street: its numbers and violations are
// those of a WebSocket peer, which stands where the node stands. Its ages are drawn in
// no chart of ours.
func (r *round) across(p *peer.Pusher) (*round, error) {
	pid, _ := p.PIDs()
	server, err := os.FindProcess(pid)
	if err != nil {
		return nil, err
	}
	o := *r.options
	o.regions, o.each, o.profile = 1, 1, ""
	one := *r
	one.options, one.chronicle = &o, nil
	one.name = r.name + ": " + peer.WebSocket
	one.numbers, one.marks, one.violations = numbers{}, map[string]mark{}, nil
	one.target = &target{
		endpoints: []string{p.URL}, each: 1,
		nodes: []*node{{name: peer.WebSocket, process: &process{cmd: &exec.Cmd{Process: server}}}},
	}
	return &one, nil
}
