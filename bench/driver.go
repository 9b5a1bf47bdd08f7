package main

import (
	"context"
	"fmt"

	"github.com/stockmesh/stockmesh/protocol"
)

// driver is the connection that changes stock, each time by one unit.
type driver struct {
	conn      *conn
	skus      []string
	templates map[int]*template // by how many SKUs they change
	key       string            // begins those of its commands
	next      uint64
	limit     int64 // of commands without an answer
	asked     int64
	answered  int64
	fault     func(format string, args ...any)
}

func (r *round) newDriver(ctx context.Context, gen *generator, skus []string, fault func(string, ...any)) (*driver, error) {
	dialed, err := dial(ctx, r.target.endpoint(0))
	if err != nil {
		return nil, err
	}
	d := &driver{skus: skus, limit: int64(slotsFor(dialed.hello, protocol.InFlightMax)), templates: make(map[int]*template), key: r.id, next: numberMin, fault: fault}
	d.conn, err = gen.add(dialed, d)
	return d, err
}

// received implements receiver.
func (d *driver) received(_ *conn, message []byte) {
	switch _, result := scanReply(message); result {
	case acked:
		d.answered++
	case refused, malformed:
		d.answered++
		d.fault("adjust: %.300s", message)
	}
}

// change adds a unit to each of the first n SKUs, with one message.
func (d *driver) change(n int) error {
	t := d.templates[n]
	if t == nil {
		var adjusts []string
		for _, sku := range d.skus[:n] {
			adjusts = append(adjusts, fmt.Sprintf(`{"op":"adjust","id":#,"key":"%s-#","sku":"%s","delta":1}`, d.key, sku))
		}
		t = newTemplate(d.conn.mask, adjusts...)
		d.templates[n] = t
	}
	d.conn.out = t.append(d.conn.out, d.next)
	d.next += uint64(n)
	d.asked += int64(n)
	return d.conn.flush()
}

// idle reports whether every change has been answered.
func (d *driver) idle() bool { return d.answered == d.asked }

// ready reports whether n more commands may be under way.
func (d *driver) ready(n int) bool { return d.asked-d.answered+int64(n) <= d.limit }

// subscribe has the connection hear of SKUs, since a cursor where it has one, each at
// most every so many milliseconds.
func (c *conn) subscribe(skus []string, since string, everyMS int64) error {
	s := protocol.Command{
		Op: protocol.OpSubscribe, ID: []byte("1"), SKUs: skus,
		Locations: []string{protocol.DefaultLocation}, IntervalMS: everyMS,
	}
	if since != "" {
		s.Since = &since
	}
	c.out = appendClientFrame(c.out, opText, c.mask, protocol.AppendJSON(nil, &s))
	return c.flush()
}
