package cluster

import (
	"sync/atomic"

	"github.com/stockmesh/stockmesh/protocol"
)

// A command about another region's reservation was done there, under its key, though its
// client sent it here. So a key that this region does not know may be known elsewhere:
// where this node knows that it sent it, that region's word counts; else those that can
// be reached are asked.

// askAround makes an outcome that is unknown here be asked for in the other regions that
// can be reached.
func (c *Cluster) askAround(calls []*protocol.Call) {
	for _, call := range calls {
		if call.Command.Op != protocol.OpOutcome || c.isAbroad(call) {
			continue
		}
		done := call.Done
		call.Done = func(call *protocol.Call) {
			call.Done = done
			if call.Err != nil || call.Result.Known || call.Result.Kind != protocol.KindOutcome {
				done(call)
				return
			}
			c.askPeers(call)
		}
	}
}

func (c *Cluster) askPeers(call *protocol.Call) {
	if region, ok := c.mesh.sent.Get(call.Command.Key); ok {
		if p := c.mesh.peer(region); p != nil {
			ask := protocol.Command{Op: protocol.OpOutcome, Key: call.Command.Key, Home: region}
			p.envoy.put(&protocol.Call{Command: ask, Due: call.Due, Subject: call.Subject, Done: func(part *protocol.Call) {
				call.Result, call.Err = part.Result, part.Err
				foundIn(&call.Result, region)
				call.Done(call)
			}})
			return
		}
	}
	var peers []*peer
	for _, p := range c.mesh.all() {
		if c.mesh.reachable(p.name) {
			peers = append(peers, p)
		}
	}
	if len(peers) == 0 {
		call.Done(call)
		return
	}
	var known atomic.Pointer[protocol.Result]
	left := new(atomic.Int32)
	left.Store(int32(len(peers)))
	done := func(part *protocol.Call) {
		if part.Err == nil && part.Result.Known {
			foundIn(&part.Result, part.Command.Home)
			known.Store(new(part.Result))
		}
		if left.Add(-1) > 0 {
			return
		}
		if found := known.Load(); found != nil {
			call.Result = *found
		}
		call.Done(call)
	}
	for _, p := range peers {
		ask := protocol.Command{Op: protocol.OpOutcome, Key: call.Command.Key, Home: p.name}
		p.envoy.put(&protocol.Call{Command: ask, Due: call.Due, Subject: call.Subject, Done: done})
	}
}

// foundIn says of an outcome that it is from another region than the one asked for:
// whether its client may see it is a matter of what is granted there.
func foundIn(r *protocol.Result, region string) {
	if r.Outcome != nil {
		r.Outcome.Region = region
	}
}
