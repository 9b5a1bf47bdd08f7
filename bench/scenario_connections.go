package main

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/stockmesh/stockmesh/node/edge/poll"
)

// connections opens idle connections, holds them and looks at what the node pays
// for them.
func connections(ctx context.Context, r *round) (err error) {
	if err := r.checkCount(); err != nil {
		return err
	}
	gen, err := r.newGenerator()
	if err != nil {
		return err
	}
	secure := newSecureCrowd()
	defer func() {
		secure.close()
		err = errors.Join(err, gen.close())
	}()
	before, err := r.settledMemory(ctx, gen)
	if err != nil {
		return err
	}
	own := ownMemory()
	half, err := r.rampUp(ctx, gen, secure)
	if err != nil {
		return err
	}
	after, err := r.settledMemory(ctx, gen)
	if err != nil {
		return err
	}
	if n := r.count - r.count/2; half > 0 {
		// What a node has left over from its start may be enough for the first ones.
		r.numbers["rss_bytes_per_connection_second_half"] = float64(after-half) / float64(n)
	}
	if before > 0 {
		r.numbers["rss_bytes_per_connection"] = float64(after-before) / float64(r.count)
		r.mark("rss_bytes_per_connection", atMost, r.rssMax())
		r.numbers["rss_before_bytes"], r.numbers["rss_after_bytes"] = float64(before), float64(after)
	}
	if err := errors.Join(r.hold(ctx, gen, secure), secure.fault()); err != nil {
		return err
	}
	r.putOwnMemory(own)
	return r.putHeld(before)
}

// Marks of idle connections.
const (
	plainRSSMax  = 0.45 * 1024
	secureRSSMax = 10 * 1024
	idleCPUMaxUS = 1 // per second and connection
)

func (r *round) rssMax() float64 {
	if r.tls {
		return secureRSSMax
	}
	return plainRSSMax
}

// Files that are open besides connections: ours, and what a node keeps back.
const (
	ownFiles  = 32
	nodeFiles = 256
)

// checkCount says what is possible where the count isn't.
func (r *round) checkCount() error {
	files, err := poll.RaiseFileLimit()
	if err != nil {
		return err
	}
	limit := int(min(files, 1<<30))
	room := limit - ownFiles
	if r.spawn != "" {
		room = min(room, (limit-nodeFiles)*r.regions*r.each) // connections are spread over the nodes
	}
	if r.count > room {
		return fmt.Errorf("--count %d: a process may open %d files here, which is room for %d connections; `ulimit -Hn` shows the limit, root and limits.conf(5) raise it", r.count, files, room)
	}
	return nil
}

// rampUp opens the connections, and says how much memory half of them take.
func (r *round) rampUp(ctx context.Context, gen *generator, secure *secureCrowd) (half int64, err error) {
	from := r.times()
	first, err := r.ramp(ctx, gen, secure, 0, r.count/2)
	if err != nil {
		return 0, err
	}
	if half, err = r.settledMemory(ctx, gen); err != nil {
		return 0, err
	}
	second, err := r.ramp(ctx, gen, secure, r.count/2, r.count)
	r.putCPU(from, int64(r.count), "handshake")
	r.numbers["handshakes_per_second"] = float64(r.count) / (first + second).Seconds()
	return half, err
}

// ramp opens the connections of these numbers. Pings are answered on the way.
func (r *round) ramp(ctx context.Context, gen *generator, secure *secureCrowd, from, to int) (time.Duration, error) {
	r.progress.counted(fmt.Sprintf("%s: opening %d connections", r.name, to-from), to-from)
	begin := time.Now()
	if !r.tls {
		err := r.rampPlain(ctx, gen, to-from)
		return time.Since(begin), err
	}
	dial := func(ctx context.Context, i int) (*secureConn, error) { return dialSecure(ctx, r.target, from+i) }
	err := inParallel(ctx, to-from, dial, func(i int, s *secureConn) error {
		secure.add(s)
		r.progress.at(int64(i))
		return nil
	})
	return time.Since(begin), err
}

func (r *round) rampPlain(ctx context.Context, gen *generator, count int) error {
	return dialAll(ctx, r.target, count, func(i int, d *dialed) error {
		if _, err := gen.add(d, deaf{}); err != nil {
			return err
		}
		r.progress.at(int64(i))
		if i%256 > 0 {
			return nil
		}
		return gen.turn(0)
	})
}

// deaf is a receiver that nothing is said to.
type deaf struct{}

func (deaf) received(*conn, []byte) {}

const (
	settleStep  = 250 * time.Millisecond
	settleSteps = 4    // in a row that change little
	settled     = 0.01 // of the memory
	settleMax   = 15 * time.Second
)

// settledMemory waits until the nodes' memory has stopped changing; 0 where it
// can't be read.
func (r *round) settledMemory(ctx context.Context, gen *generator) (int64, error) {
	if len(r.target.pids()) == 0 {
		r.progress.note("memory and CPU time can be read of a spawned node only")
		return 0, nil
	}
	if _, err := r.residentBytes(); errors.Is(err, errors.ErrUnsupported) {
		r.progress.note("%v", err)
		return 0, nil
	}
	r.phase("waiting for the node's memory to settle", settleMax)
	var rss, last int64
	begin := time.Now()
	for calm := 0; calm < settleSteps && time.Since(begin) < settleMax; {
		if err := r.idle(ctx, gen, settleStep, begin); err != nil {
			return 0, err
		}
		var err error
		if rss, err = r.residentBytes(); err != nil {
			return 0, err
		}
		if calm++; float64(max(rss-last, last-rss)) > settled*float64(rss) {
			calm = 0
		}
		last = rss
	}
	return rss, nil
}

// residentBytes is the memory of all nodes together.
func (r *round) residentBytes() (sum int64, err error) {
	for _, pid := range r.target.pids() {
		n, err := residentBytes(pid)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// hold keeps the connections open, answers the node's heartbeats and measures what that
// costs.
func (r *round) hold(ctx context.Context, gen *generator, secure *secureCrowd) error {
	r.phase(fmt.Sprintf("holding %d connections", r.count), r.duration)
	from, heard := r.times(), gen.pings+secure.pings.Load()
	if err := r.profiled(r.duration, func() error { return r.idle(ctx, gen, r.duration, time.Now()) }); err != nil {
		return err
	}
	to := r.times()
	r.numbers["heartbeats_per_second"] = float64(gen.pings+secure.pings.Load()-heard) / to.at.Sub(from.at).Seconds()
	each := func(used time.Duration) float64 {
		return float64(used.Microseconds()) / to.at.Sub(from.at).Seconds() / float64(r.count)
	}
	if to.generator > 0 {
		r.numbers["generator_idle_cpu_us_per_second_per_connection"] = each(to.generator - from.generator)
	}
	if from.known && to.known {
		r.numbers["idle_cpu_us_per_second_per_connection"] = each(to.node - from.node)
		r.mark("idle_cpu_us_per_second_per_connection", atMost, idleCPUMaxUS)
	}
	return nil
}

// putHeld writes what a connection takes once it has been held.
func (r *round) putHeld(before int64) error {
	if before == 0 {
		return nil
	}
	held, err := r.residentBytes()
	if err != nil {
		return err
	}
	r.numbers["held_rss_bytes"], r.numbers["held_rss_bytes_per_connection"] = float64(held), float64(held-before)/float64(r.count)
	return nil
}

// ownMemory is what this process takes without what it could give back; 0 where that
// can't be read.
func ownMemory() int64 {
	debug.FreeOSMemory()
	n, err := residentBytes(ownPID)
	if err != nil {
		return 0
	}
	return n
}

// putOwnMemory writes what a connection takes at our end.
func (r *round) putOwnMemory(before int64) {
	if before > 0 {
		r.numbers["generator_rss_bytes_per_connection"] = float64(ownMemory()-before) / float64(r.count)
	}
}

// idle answers pings for a while. A connection that the node closes is an error.
func (r *round) idle(ctx context.Context, gen *generator, length time.Duration, began time.Time) error {
	for end := time.Now().Add(length); time.Now().Before(end); {
		if err := errors.Join(ctx.Err(), gen.turn(min(50*time.Millisecond, length))); err != nil {
			return err
		}
		r.progress.since(began)
	}
	return nil
}
