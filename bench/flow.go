package main

import (
	"context"
	"errors"
	"time"
)

// flow is a source of changes that goes on whether or not everybody has heard of the
// last one, and who hears of them.
type flow struct {
	gen   *generator
	party *party
	send  func(kind int, due int64) error
	each  func(kind int) int  // items of a change
	idle  func() bool         // every change has been answered
	ready func(kind int) bool // one more change may be under way
	fault func() error        // what was heard that must not be
}

const flowPause = 100 * time.Millisecond

// stream sends a change when half of the party has heard of the one before: the next
// is on its way while that one is told. Further ahead, some states would be passed over
// for newer ones, which is counted. It returns how many items a second were delivered.
func (f *flow) stream(ctx context.Context, kind int, length time.Duration, step func()) (float64, error) {
	p := f.party
	begin, delivered := time.Now(), p.delivered
	for time.Since(begin) < length {
		f.gen.tick()
		left := int64(p.members*f.each(kind)) / 2
		if err := f.send(kind, f.gen.now); err != nil {
			return 0, err
		}
		if err := f.until(ctx, func() bool { return p.waiting() <= left }); err != nil {
			return 0, err
		}
		step()
	}
	if err := f.settle(ctx); err != nil {
		return 0, err
	}
	return float64(p.delivered-delivered) / time.Since(begin).Seconds(), nil
}

// offer sends changes at a rate. Ages count from the moment a change was due, so that
// a node that stalls can't hide what piles up.
func (f *flow) offer(ctx context.Context, kind int, perSecond float64, length time.Duration, step func()) error {
	f.gen.tick()
	begin, sent := f.gen.now, 0
	end := begin + int64(length)
	for ; f.gen.now < end; f.gen.tick() {
		for {
			due := begin + int64(float64(sent)/perSecond*1e9)
			if due > f.gen.now || due >= end || !f.ready(kind) {
				break
			}
			if err := f.send(kind, due); err != nil {
				return err
			}
			sent++
		}
		step()
		if err := errors.Join(ctx.Err(), f.fault(), f.gen.turn(pace)); err != nil {
			return err
		}
	}
	return nil
}

// settle waits until all have been shown the newest state.
func (f *flow) settle(ctx context.Context) error {
	return f.until(ctx, func() bool { return f.party.waiting() == 0 && f.idle() })
}

func (f *flow) until(ctx context.Context, done func() bool) error {
	for end := time.Now().Add(awaitTimeout); !done(); {
		if time.Now().After(end) {
			return errLate
		}
		if err := errors.Join(ctx.Err(), f.fault(), f.gen.turn(flowPause)); err != nil {
			return err
		}
	}
	return nil
}
