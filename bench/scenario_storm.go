package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"
)

const (
	stormPatience = 60 * time.Second // for the last of all; one that takes longer hangs
	crowdedShare  = 2                // the crowded node has room for one in so many
)

// storm lets many connections arrive at once, first at a node that has room for all,
// then at one that has room for half; there, those who were told to come back do so.
func storm(ctx context.Context, r *round) error {
	if err := r.checkCount(); err != nil {
		return err
	}
	if r.tls {
		return r.secureStorm(ctx)
	}
	from := r.times()
	g, err := r.gather(ctx, r.target, r.count, "arriving at once")
	if err != nil {
		return err
	}
	r.putStorm(g, "")
	r.putCPU(from, int64(r.count), "handshake")
	if g.counts[served] != r.count {
		r.violate("%d of %d were served where there is room for all", g.counts[served], r.count)
	}
	if err := g.close(); err != nil {
		return err
	}
	return r.crowdedStorm(ctx)
}

// gather has so many guests arrive at the first node.
func (r *round) gather(ctx context.Context, t *target, count int, what string) (*guests, error) {
	to, err := netip.ParseAddrPort(t.nodes[0].Public)
	if err != nil {
		return nil, err
	}
	g, err := newGuests()
	if err != nil {
		return nil, err
	}
	r.progress.counted(fmt.Sprintf("%s: %d connections, %s", r.name, count, what), count)
	err = g.arrive(to, count)
	if err == nil {
		err = g.await(ctx, stormPatience, func(done int) { r.progress.at(int64(done)) })
	}
	if err != nil {
		return nil, errors.Join(err, g.close())
	}
	if n := g.counts[hung]; n > 0 {
		r.violate("%s: %d of %d had no answer within %v", what, n, count, stormPatience)
	}
	if n := g.counts[broken]; n > 0 {
		r.violate("%s: %d of %d were neither served nor told when to come back: %q", what, n, count, g.faults)
	}
	return g, nil
}

func (r *round) putStorm(g *guests, prefix string) {
	g.served.put(r.numbers, prefix+"handshake_")
	if g.lastAt > 0 {
		r.numbers[prefix+"handshakes_per_second"] = float64(g.counts[served]) / g.lastAt.Seconds()
	}
	r.numbers[prefix+"served"], r.numbers[prefix+"told"] = float64(g.counts[served]), float64(g.counts[told])
	r.numbers[prefix+"hung"] = float64(g.counts[hung])
}

// crowdedStorm is the same before a node with room for a part of them.
func (r *round) crowdedStorm(ctx context.Context) (err error) {
	o := *r.options
	room := max(r.count/crowdedShare, 1)
	o.flags = append(o.flags, "--max-connections", strconv.Itoa(room))
	t, err := spawn(ctx, &o, nil, r.progress)
	if t != nil {
		defer func() { err = errors.Join(err, t.close()) }()
	}
	if err != nil {
		return err
	}
	g, err := r.gather(ctx, t, r.count, fmt.Sprintf("room for %d", room))
	if err != nil {
		return err
	}
	r.putStorm(g, "crowded_")
	g.told.put(r.numbers, "crowded_told_")
	if g.counts[served] != room {
		r.violate("%d were served where there is room for %d", g.counts[served], room)
	}
	back, wait := g.counts[told], time.Duration(g.backMax)*time.Second
	r.numbers["retry_after_max_ms"] = milliseconds(wait)
	if err := g.close(); err != nil || back == 0 {
		return err
	}
	r.phase("those who were told to come back do so", wait)
	if err := pause(ctx, wait); err != nil {
		return err
	}
	again, err := r.gather(ctx, t, min(back, room), "coming back")
	if err != nil {
		return err
	}
	if again.counts[served] != min(back, room) {
		r.violate("%d of %d were served when they came back", again.counts[served], back)
	}
	return again.close()
}
