package main

import (
	"context"
	"fmt"
	"time"
)

// brokenDisk counts the successes of commands that were due when a disk could not sync
// any more.
type brokenDisk struct {
	node        int
	since       int64 // ns on the generator's clock
	acked, here int64 // here: those that came through the node itself
}

func (b *brokenDisk) count(node int) {
	b.acked++
	if node == b.node {
		b.here++
	}
}

const (
	unreadyWithin = 20 * time.Second // a node whose disk has failed must say so
	brokenFor     = 2 * time.Second  // once the others answer, or less in short runs
)

// failDisk has each sync of one node fail, the one that decides. In a region of others
// those must go on; a node that is alone must not acknowledge anything, and has to say
// that it is not ready. Then the power of all fails, and the disk is replaced by
// another one with the same content.
func (p *powerTrial) failDisk(ctx context.Context) error {
	node, err := p.target.owner(ctx)
	if err != nil {
		return err
	}
	n := p.target.nodes[node]
	what := fmt.Sprintf("the disk of %s fails", n.name)
	if err := p.crowd.call(ctx, func() { p.announce(what, brokenFor) }); err != nil {
		return err
	}
	over := p.happening("%s", what)
	began := time.Now()
	if err := p.disks[node].turn(ctx, diskFailSync, nil); err != nil {
		return err
	}
	b := &brokenDisk{node: node}
	o, err := p.watch(ctx)
	if err == nil {
		err = p.crowd.call(ctx, func() { b.since, p.broken = o.since, b })
	}
	if err != nil {
		return err
	}
	if err := p.awaitWord(ctx, n, began); err != nil {
		return err
	}
	if p.each > 1 {
		if err := p.awaitOthers(ctx, o, began); err != nil {
			return err
		}
	}
	if err := pause(ctx, min(brokenFor, p.duration)); err != nil {
		return err
	}
	over()
	if err := p.crowd.call(ctx, func() { p.putBroken(b) }); err != nil {
		return err
	}
	return p.cutAndRecover(ctx, "power cut after "+what)
}

// awaitWord waits until the node says that it is not ready.
func (p *powerTrial) awaitWord(ctx context.Context, n *node, began time.Time) error {
	for {
		ready, says, err := readiness(ctx, n.Admin)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			says = []byte(err.Error())
		}
		if !ready {
			p.numbers["eio_unready_ms"] = milliseconds(time.Since(began))
			p.note("  after %v %s says: %.200s", time.Since(began).Round(time.Millisecond), n.name, says)
			return nil
		}
		if time.Since(began) > unreadyWithin {
			p.violate("%s is ready still, %v after its disk has failed", n.name, unreadyWithin)
			return nil
		}
		if err := pause(ctx, settleStockPoll); err != nil {
			return err
		}
	}
}

// awaitOthers waits until the others answer.
func (p *powerTrial) awaitOthers(ctx context.Context, o *outageOfAll, began time.Time) error {
	at, err := p.await(ctx, o)
	if err != nil {
		return err
	}
	if at == 0 {
		p.violate("the others have not succeeded with anything within %v after a disk has failed", recoveryWithin)
		return nil
	}
	p.numbers["eio_recovery_ms"] = milliseconds(time.Duration(at) - began.Sub(p.crowd.gen.start))
	return nil
}

// putBroken ends the count; on the crowd's goroutine.
func (p *powerTrial) putBroken(b *brokenDisk) {
	p.broken, p.outage = nil, nil
	p.numbers["acked_after_eio"] = float64(b.acked)
	p.numbers["acked_after_eio_by_node"] = float64(b.here)
	if p.each == 1 && b.here > 0 {
		p.violate("%d commands were acknowledged by a node that could not sync", b.here)
	}
}
