package main

import (
	"context"
	"errors"
	"time"

	"github.com/stockmesh/stockmesh/bench/peer"
)

// sellBeside has peers sell one SKU.
func (r *round) sellBeside(ctx context.Context) error {
	const metric = "acked_per_second"
	if err := r.besidePeers(ctx, peer.Work{SKUs: 1, Opening: opening}, metric); err != nil {
		return err
	}
	return r.besidePusher(ctx, sellAcross, [2]string{metric, "ratio"})
}

// sellAcross is the first half of hotSKU, for a peer that understands our clients.
func sellAcross(ctx context.Context, r *round) (err error) {
	gen, err := r.newGenerator()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gen.close()) }()
	sku, l := hotPrefix+r.id, newLoad(gen)
	if err := r.openLoad(ctx, l, sku); err != nil {
		return err
	}
	if err := r.measureMaximum(ctx, l); err != nil {
		return err
	}
	return r.checkSales(ctx, l, sku)
}

// sellManyBeside has peers sell many SKUs, all alike.
func (r *round) sellManyBeside(ctx context.Context) error {
	return r.besidePeers(ctx, peer.Work{SKUs: r.assorted, Opening: opening}, "acked_per_second")
}

// orderBeside has peers reserve and confirm. Nothing of theirs is scarce: whom an order
// is refused is quicker done with it.
func (r *round) orderBeside(ctx context.Context) error {
	return r.besidePeers(ctx, peer.Work{SKUs: r.assorted, Opening: opening, Lines: r.lines}, "orders_per_second")
}

// fanBeside has a peer tell as many subscribers.
func (r *round) fanBeside(ctx context.Context) error {
	return r.besidePusher(ctx, fanAcross,
		[2]string{"delivered_per_second", "ratio"}, [2]string{"burst_delivered_per_second", "burst_ratio"},
		[2]string{"stream_per_second", "stream_ratio"}, [2]string{"burst_stream_per_second", "burst_stream_ratio"})
}

// fanAcross is fanout without the floor, for a peer that understands our clients.
func fanAcross(ctx context.Context, r *round) (err error) {
	gen, err := r.newGenerator()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gen.close()) }()
	s, err := r.openNodeStage(ctx, gen)
	if err != nil {
		return err
	}
	for kind, prefix := range kindPrefixes {
		r.phase(r.kindName(kind), r.duration)
		began := time.Now()
		for range phaseSlices {
			if err := r.slice(ctx, s, kind, began); err != nil {
				return err
			}
		}
		r.numbers[prefix+"delivered_per_second"] = s.rate(kind)
		s.kindAges[kind].put(r.numbers, prefix)
	}
	if len(r.violations) > 0 {
		return nil
	}
	return r.late(r.streamAcross(ctx, s))
}

// streamAcross lets changes overlap.
func (r *round) streamAcross(ctx context.Context, s *stage) error {
	flow := r.nodeFlow(s)
	for kind, prefix := range kindPrefixes {
		r.phase(r.kindName(kind)+", overlapping", r.duration)
		began := time.Now()
		rate, err := flow.stream(ctx, kind, r.duration, func() { r.progress.since(began) })
		if err != nil {
			return err
		}
		r.numbers[prefix+"stream_per_second"] = rate
	}
	return nil
}

// connectBeside has a peer hold as many idle connections.
func (r *round) connectBeside(ctx context.Context) error {
	return r.besidePusher(ctx, connections,
		[2]string{"rss_bytes_per_connection", "rss_ratio"}, [2]string{"handshakes_per_second", "ratio"})
}
