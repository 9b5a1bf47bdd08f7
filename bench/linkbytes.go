package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// traffic is what a region's nodes have sent over their links and got, in bytes.
type traffic struct {
	in, out float64
	known   bool
}

// linkBytes asks the nodes of the first region. A node that doesn't tell leaves the
// figures out; nothing else depends on them.
func (r *round) linkBytes(ctx context.Context) traffic {
	var sum traffic
	for _, n := range r.target.nodes[:r.target.each] {
		one, err := readTraffic(ctx, n.Admin)
		if err != nil {
			r.progress.note("%s: bytes over the links: %v", n.name, err)
			return traffic{}
		}
		sum = traffic{sum.in + one.in, sum.out + one.out, true}
	}
	return sum
}

// putLinkBytes writes what each of n commands has cost on each link.
func (r *round) putLinkBytes(prefix string, from, to traffic, n int64) {
	if !from.known || !to.known || n == 0 {
		return
	}
	commands := float64(n) * float64(r.regions-1)
	r.numbers[prefix+"link_out_bytes_per_command"] = (to.out - from.out) / commands
	r.numbers[prefix+"link_in_bytes_per_command"] = (to.in - from.in) / commands
}

func readTraffic(ctx context.Context, admin string) (traffic, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/metrics", nil)
	if err != nil {
		return traffic{}, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return traffic{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return traffic{}, fmt.Errorf("GET /metrics: %s", resp.Status)
	}
	return parseTraffic(resp.Body)
}

const linkBytesMetric = "stockmesh_link_bytes_total{"

// parseTraffic adds up a node's links in Prometheus' text format.
func parseTraffic(text io.Reader) (t traffic, err error) {
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		labels, ok := strings.CutPrefix(lines.Text(), linkBytesMetric)
		if !ok {
			continue
		}
		labels, number, _ := strings.Cut(labels, "} ")
		v, err := strconv.ParseFloat(number, 64)
		if err != nil {
			return traffic{}, fmt.Errorf("%s: %w", lines.Text(), err)
		}
		t.known = true
		switch {
		case strings.Contains(labels, `direction="out"`):
			t.out += v
		case strings.Contains(labels, `direction="in"`):
			t.in += v
		}
	}
	if err := lines.Err(); err != nil {
		return traffic{}, err
	}
	if !t.known {
		return traffic{}, fmt.Errorf("no metric %s...}", linkBytesMetric)
	}
	return t, nil
}
