package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// gallery is clients that only watch, over whatever happens to their connections: what
// each connection shows of an item never goes back, and what a client was shown last is
// how the item ends. All but their dials belongs to the crowd's goroutine.
type gallery struct {
	crowd     *crowd
	skus      []string
	onlookers []*onlooker
	patience  time.Duration // with what is not shown in the end
	moves     int
	faults    []string

	dials    sync.WaitGroup
	landings chan newView
}

// onlooker is one of them.
type onlooker struct {
	gallery *gallery
	number  int
	at      int   // the node it is connected to, or was last
	conn    *conn // nil between nodes
	ready   bool  // what it subscribed to has been filled
	everyMS int64 // least time between two pushes of an item

	cursor string
	fresh  map[string]protocol.Item // what this connection has shown last
	last   map[string]protocol.Item // what any has
}

// newView is a new connection of an onlooker.
type newView struct {
	onlooker *onlooker
	node     int
	dialed   *dialed
}

const (
	onlookersEach   = 2  // to a node: one is shown everything, one at most so often
	onlookerEveryMS = 50 // milliseconds
	shownWithin     = 10 * time.Second
)

func newGallery(c *crowd) *gallery { return &gallery{crowd: c, patience: shownWithin} }

// open connects the onlookers and waits until each has been shown everything.
func (g *gallery) open(ctx context.Context, t *target, skus []string) error {
	g.skus = skus
	count := onlookersEach * len(t.endpoints)
	g.landings = make(chan newView, count) // an onlooker makes one connection at a time
	err := dialAll(ctx, t, count, func(i int, d *dialed) error {
		o := &onlooker{gallery: g, number: i, last: make(map[string]protocol.Item)}
		if i >= len(t.endpoints) {
			o.everyMS = onlookerEveryMS
		}
		g.onlookers = append(g.onlookers, o)
		return o.land(newView{o, i % len(t.endpoints), d})
	})
	if err != nil {
		return err
	}
	return g.until(ctx, shownWithin, func(o *onlooker) bool { return o.ready }, "have been shown nothing")
}

// until turns until all onlookers are so, or patience has ended.
func (g *gallery) until(ctx context.Context, patience time.Duration, is func(*onlooker) bool, else1 string) error {
	for late := time.Now().Add(patience); ; {
		left := 0
		for _, o := range g.onlookers {
			if !is(o) {
				left++
			}
		}
		if left == 0 || len(g.faults) > 0 {
			return nil
		}
		if time.Now().After(late) {
			return fmt.Errorf("%w: %d of %d watchers %s", errLate, left, len(g.onlookers), else1)
		}
		g.landAll()
		if err := g.crowd.gen.turn(pace); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// land goes on with a new connection, from where the last one ended.
func (o *onlooker) land(a newView) error {
	c, err := o.gallery.crowd.gen.add(a.dialed, o)
	if err != nil {
		return err
	}
	o.at, o.conn, o.ready, o.fresh = a.node, c, false, make(map[string]protocol.Item)
	return c.subscribe(o.gallery.skus, o.cursor, o.everyMS)
}

// landAll gives connections to those that have moved.
func (g *gallery) landAll() {
	for {
		select {
		case a := <-g.landings:
			g.moves++
			if err := a.onlooker.land(a); err != nil {
				a.onlooker.move() // the node has ended meanwhile
			}
		default:
			return
		}
	}
}

// lost implements mover.
func (o *onlooker) lost(c *conn, _ error) {
	if c == o.conn {
		o.move()
	}
}

// move looks for another node.
func (o *onlooker) move() {
	o.conn, o.ready = nil, false
	g, from := o.gallery, o.at
	g.dials.Go(func() {
		if node, d := g.crowd.find(from, o.number); d != nil {
			g.landings <- newView{o, node, d}
		}
	})
}

// showing is what an onlooker looks at in a message.
type showing struct {
	Op     string          `json:"op"`
	Items  []protocol.Item `json:"items"`
	Cursor string          `json:"cursor"`
	Error  *protocol.Error `json:"error"`
	OK     *struct {
		Cursor string `json:"cursor"`
	} `json:"ok"`
}

// received implements receiver.
func (o *onlooker) received(c *conn, message []byte) {
	var m showing
	if err := protocol.UnmarshalJSON(message, &m); err != nil {
		o.gallery.fault("unreadable: %v: %.200s", err, message)
		return
	}
	if c != o.conn {
		return // of a connection that was left
	}
	switch {
	case m.Error != nil && m.Error.Retryable: // the node has lost its region
		o.gallery.crowd.gen.broken(c, m.Error)
	case m.Error != nil:
		o.gallery.fault("subscribe: %s: %s", m.Error.Code, m.Error.Message)
	case m.OK != nil:
		o.ready, o.cursor = true, m.OK.Cursor
	case m.Op == "cursor":
		o.cursor = m.Cursor
	case m.Op == "stock":
		for _, it := range m.Items {
			o.show(it)
		}
	}
}

// show compares an item with what was shown of it before.
func (o *onlooker) show(it protocol.Item) {
	before, known := o.fresh[it.SKU]
	o.fresh[it.SKU], o.last[it.SKU] = it, it
	switch {
	case !known:
	case !atLeastAsNew(it.Version, before.Version):
		o.gallery.fault("watcher %d was shown %s at version %s after %s: it goes back", o.number+1, it.SKU, it.Version, before.Version)
	case it.Version == before.Version && !sameStock(it, before):
		o.gallery.fault("watcher %d was shown two states of %s at version %s: %d on hand, %d reserved; %d, %d", o.number+1, it.SKU, it.Version, before.OnHand, before.Reserved, it.OnHand, it.Reserved)
	}
}

// atLeastAsNew compares two versions region by region.
func atLeastAsNew(version, than string) bool {
	for part := range strings.SplitSeq(than, ",") {
		region, _, _ := strings.Cut(part, ":")
		if component([]byte(version), region) < component([]byte(than), region) {
			return false
		}
	}
	return true
}

func sameStock(a, b protocol.Item) bool {
	return a.Version == b.Version && a.OnHand == b.OnHand && a.Reserved == b.Reserved && a.Available == b.Available
}

// judge waits until each onlooker was shown how the items have ended, and notes what
// was wrong before.
func (g *gallery) judge(ctx context.Context, r *round, final []protocol.Item) error {
	err := g.until(ctx, g.patience, func(o *onlooker) bool { return o.lacks(final) == "" }, "have not been shown the final state")
	if err != nil && !errors.Is(err, errLate) {
		return err
	}
	for _, fault := range g.faults {
		r.violate("%s", fault)
	}
	for _, o := range g.onlookers {
		if sku := o.lacks(final); sku != "" {
			r.violate("watcher %d has not ended with the final state of %s", o.number+1, sku)
			break // one speaks for all
		}
	}
	return nil
}

// lacks names an item of which an onlooker has seen another state last.
func (o *onlooker) lacks(final []protocol.Item) string {
	for _, it := range final {
		if !sameStock(it, o.last[it.SKU]) {
			return it.SKU
		}
	}
	return ""
}

func (g *gallery) fault(format string, args ...any) {
	if len(g.faults) < faultsMax {
		g.faults = append(g.faults, fmt.Sprintf(format, args...))
	}
}

// close ends what is under way; after the crowd, which its dials look at.
func (g *gallery) close() {
	g.dials.Wait()
	for {
		select {
		case a := <-g.landings:
			a.dialed.Close()
		default:
			return
		}
	}
}
