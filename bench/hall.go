package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/stockmesh/stockmesh/protocol"
)

// hall is a board with its readers and what changes it.
type hall struct {
	*round
	gen     *generator
	board   *board
	driver  *driver
	readers []*reader
}

// openHall enters SKUs without stock and connects what changes them.
func (r *round) openHall(ctx context.Context, gen *generator, skus []string) (*hall, error) {
	h := &hall{round: r, gen: gen, board: newBoard(gen, skus)}
	for _, sku := range skus {
		count := protocol.Command{Op: protocol.OpCount, Key: "opening-" + sku, SKU: sku, OnHand: protocol.Ptr(int64(0))}
		if _, err := ask(ctx, r.target.endpoint(0), count); err != nil {
			return nil, err
		}
	}
	var err error
	h.driver, err = r.newDriver(ctx, gen, skus, h.board.fault)
	return h, err
}

// seat connects readers of a party, the i-th to the endpoint that where says.
func (h *hall) seat(ctx context.Context, p *party, count int, where func(i int) string, prepare socketOption, everyMS int64) ([]*reader, error) {
	h.progress.counted(fmt.Sprintf("%s: %d readers", h.name, count), count)
	var seated []*reader
	open := func(ctx context.Context, i int) (*dialed, error) { return dialAs(ctx, where(i), prepare) }
	err := inParallel(ctx, count, open, func(_ int, d *dialed) error {
		r := h.board.newReader(p)
		if err := r.land(d); err != nil {
			return err
		}
		seated = append(seated, r)
		h.progress.at(int64(len(seated)))
		return r.conn.subscribe(h.board.skus, "", everyMS)
	})
	h.readers = append(h.readers, seated...)
	if err != nil {
		return nil, err
	}
	return seated, h.awaitReady(ctx, seated)
}

// awaitReady waits until all of these are subscribed.
func (h *hall) awaitReady(ctx context.Context, readers []*reader) error {
	left := readers
	err := h.await(ctx, h.gen, func() bool {
		for len(left) > 0 && left[0].ready {
			left = left[1:]
		}
		return len(left) == 0 || len(h.board.faults) > 0
	})
	if err != nil {
		return fmt.Errorf("%d of %d readers are not subscribed: %w", len(left), len(readers), err)
	}
	return h.fault()
}

// fault returns what a reader was told that must not be.
func (h *hall) fault() error {
	if len(h.board.faults) > 0 {
		return errors.New(h.board.faults[0])
	}
	return nil
}

// flow changes burst SKUs at a time before a party.
func (h *hall) flow(p *party, burst int) *flow {
	send := func(_ int, due int64) error {
		h.board.note(burst, due)
		return h.driver.change(burst)
	}
	return &flow{
		gen: h.gen, party: p, send: send, each: func(int) int { return burst },
		idle: h.driver.idle, ready: func(int) bool { return h.driver.ready(burst) }, fault: h.fault,
	}
}

// judge notes what was wrong with what the readers saw; in the end, that is.
func (h *hall) judge() {
	for _, fault := range h.board.faults {
		h.violate("%s", fault)
	}
	behind := 0
	for _, r := range h.readers {
		if !r.current() {
			behind++
		}
	}
	if behind > 0 {
		h.violate("%d of %d readers have not ended with the right state", behind, len(h.readers))
	}
}
