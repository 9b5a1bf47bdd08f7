package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// plan lays out nodes, region by region. With wires, the regions' links lead through
// those.
func plan(dir string, regions, each int, w *wires) ([]*node, error) {
	return planOn(ports{}.pick, dir, regions, each, w)
}

// plan is plan on the run's addresses.
func (o *options) plan(dir string, w *wires) ([]*node, error) {
	pick := o.pick
	if pick == nil {
		pick = ports{}.pick
	}
	return planOn(pick, dir, o.regions, o.each, w)
}

// planOn is plan on addresses that pick hands out.
func planOn(pick picker, dir string, regions, each int, w *wires) ([]*node, error) {
	if regions == 1 {
		return planRegion(dir, "bench", each, pick)
	}
	const own = 2 // addresses of a node: membership between regions, links
	addrs, err := pick(own * regions * each)
	if err != nil {
		return nil, err
	}
	var seeds []string
	for r := range regions {
		seeds = append(seeds, addrs[own*r*each]) // any one node of a region is enough
	}
	var all []*node
	for r, name := range regionNames[:regions] {
		nodes, err := planRegion(dir, name, each, pick)
		if err != nil {
			return nil, err
		}
		for i, n := range nodes {
			at := own * (r*each + i)
			n.join(name, addrs[at], addrs[at+1], slices.Delete(slices.Clone(seeds), r, r+1))
			if err := n.wire(w, r, regions, addrs[at+1]); err != nil {
				return nil, err
			}
		}
		all = append(all, nodes...)
	}
	return all, nil
}

// join makes the node one of a mesh; seeds lead to the other regions.
func (n *node) join(region, wan, link string, seeds []string) {
	n.args = append(n.args, "--region", region, "--wan-gossip", wan, "--link-listen", link,
		"--join-region", strings.Join(seeds, ","), "--drain", drainOver.String(), "--insecure")
}

// wire has each other region told an address of its own for the node's links.
func (n *node) wire(w *wires, region, regions int, link string) error {
	if w == nil {
		return nil
	}
	var told []string
	for from := range regions {
		if from == region {
			continue
		}
		addr, err := w.lead(from, region, link)
		if err != nil {
			return err
		}
		told = append(told, regionNames[from]+"="+addr)
	}
	n.args = append(n.args, "--advertise-link", strings.Join(told, ","))
	return nil
}

// planRegion lays out the nodes of one region.
func planRegion(dir, name string, count int, pick picker) ([]*node, error) {
	if count == 1 {
		return []*node{newNode(dir, name+"-1", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")}, nil
	}
	const each = 4
	addrs, err := pick(each * count)
	if err != nil {
		return nil, err
	}
	var gossip []string
	for i := range count {
		gossip = append(gossip, addrs[each*i+2])
	}
	var nodes []*node
	for i := range count {
		own := addrs[each*i : each*(i+1)]
		n := newNode(dir, fmt.Sprintf("%s-%d", name, i+1),
			"--listen", own[0], "--admin", own[1], "--gossip", own[2], "--cluster-listen", own[3],
			"--expect", strconv.Itoa(count), "--join", strings.Join(gossip, ","),
			"--drain", drainOver.String(), "--insecure") // no certificates: everything stays on loopback
		nodes = append(nodes, n)
	}
	return nodes, nil
}

func newNode(dir, name string, flags ...string) *node {
	args := []string{childNode, dir, "--name", name, "--data", filepath.Join(dir, name)}
	return &node{name: name, args: append(args, flags...), log: filepath.Join(dir, name+".log")}
}
