package main

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// freshness follows commits of one region to watchers in the others. A commit is
// known here when it is acknowledged, and shown by the first push whose version is at
// least as high: its age then is what a customer elsewhere waits for it.
type freshness struct {
	gen      *generator
	shop     *shop
	origin   string // the region, as in versions
	watchers []*watcher
	ages     latencies
	faults   []string
}

// watcher is a connection in another region that hears of the whole assortment.
type watcher struct {
	freshness *freshness
	region    string
	ready     bool
	trails    map[string]*trail // by SKU
	waiting   int64             // commits that it has not been shown
}

// trail is one SKU's commits on their way to a watcher.
type trail struct {
	shown   uint64 // the highest version
	waiting []commit
}

type commit struct {
	version uint64
	at      int64 // ns: when it was acknowledged
}

func newFreshness(gen *generator, origin string, s *shop) *freshness {
	return &freshness{gen: gen, shop: s, origin: origin, ages: gen.newLatencies("pushes to other regions")}
}

// openWatchers connects one watcher in each of the other regions.
func (r *round) openWatchers(ctx context.Context, f *freshness) error {
	for region := 1; region < r.regions; region++ {
		d, err := dial(ctx, r.target.endpoint(region*r.target.each))
		if err != nil {
			return err
		}
		w := &watcher{freshness: f, region: regionNames[region], trails: make(map[string]*trail)}
		c, err := f.gen.add(d, w)
		if err != nil {
			return err
		}
		f.watchers = append(f.watchers, w)
		subscribe := protocol.Command{Op: protocol.OpSubscribe, ID: []byte("1"), Prefixes: []string{f.shop.prefix}, Locations: []string{protocol.DefaultLocation}}
		c.out = appendClientFrame(c.out, opText, c.mask, protocol.AppendJSON(nil, &subscribe))
		if err := c.flush(); err != nil {
			return err
		}
	}
	return r.await(ctx, f.gen, func() bool {
		for _, w := range f.watchers {
			if !w.ready {
				return false
			}
		}
		return true
	})
}

// acked takes a success of the shop's.
func (f *freshness) acked(c *client, number uint64, message []byte) {
	f.shop.book(c, number, message)
	eachRow(message, func(sku, version []byte) {
		n := component(version, f.origin)
		if n == 0 {
			f.fault("an answer whose version does not tell of %s: %.300s", f.origin, message)
		}
		for _, w := range f.watchers {
			w.expect(sku, commit{n, f.gen.now})
		}
	})
}

func (f *freshness) fault(format string, args ...any) {
	if len(f.faults) < faultsMax {
		f.faults = append(f.faults, fmt.Sprintf(format, args...))
	}
}

func (w *watcher) trail(sku []byte) *trail {
	t := w.trails[string(sku)]
	if t == nil {
		t = &trail{}
		w.trails[string(sku)] = t
	}
	return t
}

func (w *watcher) expect(sku []byte, c commit) {
	t := w.trail(sku)
	if t.shown >= c.version {
		w.freshness.ages.add(0, 1) // the push was here first
		return
	}
	t.waiting = append(t.waiting, c)
	w.waiting++
}

// received implements receiver.
func (w *watcher) received(_ *conn, message []byte) {
	switch _, result := scanReply(message); result {
	case acked:
		w.ready = true
	case refused, malformed:
		w.freshness.fault("watcher in %s: %.300s", w.region, message)
	case push:
		eachRow(message, func(sku, version []byte) { w.show(sku, component(version, w.freshness.origin)) })
	}
}

// show counts the commits that a push is the first to show.
func (w *watcher) show(sku []byte, version uint64) {
	t := w.trail(sku)
	if version < t.shown {
		w.freshness.fault("%s was pushed to %s at version %d after %d", sku, w.region, version, t.shown)
		return
	}
	t.shown = version
	left := t.waiting[:0]
	for _, c := range t.waiting { // in no order: answers come over many connections
		if c.version > version {
			left = append(left, c)
			continue
		}
		w.freshness.ages.add(w.freshness.gen.now-c.at, 1)
		w.waiting--
	}
	t.waiting = left
}

// awaitShown waits until every commit was shown everywhere.
func (r *round) awaitShown(ctx context.Context, f *freshness) error {
	for end := time.Now().Add(settleMeshMax); f.waiting() > 0 && time.Now().Before(end); {
		if err := f.gen.turn(10 * time.Millisecond); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	for _, w := range f.watchers {
		if w.waiting > 0 {
			r.violate("%d commits were not shown in %s within %v", w.waiting, w.region, settleMeshMax)
		}
	}
	for _, fault := range f.faults {
		r.violate("%s", fault)
	}
	return nil
}

func (f *freshness) waiting() (sum int64) {
	for _, w := range f.watchers {
		sum += w.waiting
	}
	return sum
}

var (
	skuField     = []byte(`"sku":"`)
	versionField = []byte(`"version":"`)
)

// eachRow finds the items of a message, whose SKUs must need no escapes. It looks for
// no more than that: pushes come by the ten thousand.
func eachRow(message []byte, do func(sku, version []byte)) {
	for {
		sku, rest, ok := quoted(message, skuField)
		if !ok {
			return
		}
		version, rest, ok := quoted(rest, versionField)
		if !ok {
			return
		}
		do(sku, version)
		message = rest
	}
}

// quoted is what follows field up to the next quote.
func quoted(b, field []byte) (value, rest []byte, ok bool) {
	_, b, ok = bytes.Cut(b, field)
	if !ok {
		return nil, nil, false
	}
	return bytes.Cut(b, []byte(`"`))
}

// component is a region's part of a version, 0 where it has none: "eu:12,us:4".
func component(version []byte, region string) uint64 {
	for part := range bytes.SplitSeq(version, []byte(",")) {
		name, n, _ := bytes.Cut(part, []byte(":"))
		if string(name) == region {
			number, _ := strconv.ParseUint(string(n), 10, 64) // 0 where it is none
			return number
		}
	}
	return 0
}
