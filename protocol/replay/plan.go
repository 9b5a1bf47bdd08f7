package replay

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// fate is what becomes of an invoice's reservation.
type fate int

const (
	toSell fate = iota
	toRelease
	toExpire
)

const (
	releaseEvery = 20
	expireEvery  = 50
)

// invoice is one invoice of the recording, its lines summed per SKU.
type invoice struct {
	id      string
	at      time.Time
	sales   []protocol.Line
	returns []protocol.Line // quantities as positive numbers
	fate    fate
}

// Plan is what a replay is going to do.
type Plan struct {
	prefix   string    // of all SKUs
	invoices []invoice // in order of time
	skus     []string  // in order
	opening  map[string]int64
}

// Invoices is how many there are.
func (p *Plan) Invoices() int { return len(p.invoices) }

// Lines is how many the invoices have together, sold and returned.
func (p *Plan) Lines() (n int) {
	for i := range p.invoices {
		n += len(p.invoices[i].sales) + len(p.invoices[i].returns)
	}
	return n
}

// selector picks the items of the plan.
func (p *Plan) selector() protocol.Selector {
	if p.prefix == "" {
		return protocol.Selector{All: true}
	}
	return protocol.Selector{Prefixes: []string{p.prefix}}
}

// Shape says what of a recording is played.
type Shape struct {
	Share    float64 // opening stock of a SKU as a share of what is sold of it
	Invoices int     // how many of them, from the first; 0: all
	Prefix   string  // put before each SKU, so that no stock but the replay's is touched
}

// ReadPlan reads a recording: CSV, may be gzipped, with the columns invoiced_at,
// invoice, sku and quantity, where a negative quantity is a return.
func ReadPlan(r io.Reader, shape Shape) (*Plan, error) {
	r, err := gunzip(r)
	if err != nil {
		return nil, err
	}
	rows := csv.NewReader(r)
	rows.ReuseRecord = true
	head, err := rows.Read()
	if err != nil {
		return nil, fmt.Errorf("no header: %w", err)
	}
	columns, err := planColumns(head)
	if err != nil {
		return nil, err
	}
	b := planBuilder{prefix: shape.Prefix, byID: map[string]*invoice{}}
	for {
		row, err := rows.Read()
		if err == io.EOF {
			return b.plan(shape), nil
		}
		if err == nil {
			err = b.add(row, columns)
		}
		if err != nil {
			line, _ := rows.FieldPos(0)
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
	}
}

func gunzip(r io.Reader) (io.Reader, error) {
	b := bufio.NewReader(r)
	if magic, _ := b.Peek(2); !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return b, nil
	}
	return gzip.NewReader(b)
}

func planColumns(head []string) (columns [4]int, err error) {
	for i, name := range []string{"invoiced_at", "invoice", "sku", "quantity"} {
		if columns[i] = slices.Index(head, name); columns[i] < 0 {
			return columns, fmt.Errorf("no column %s", name)
		}
	}
	return columns, nil
}

type planBuilder struct {
	prefix string
	order  []*invoice
	byID   map[string]*invoice
}

func (b *planBuilder) add(row []string, columns [4]int) error {
	at, err := time.Parse(time.DateTime, row[columns[0]])
	if err != nil {
		return err
	}
	quantity, err := strconv.ParseInt(row[columns[3]], 10, 64)
	if err != nil || quantity == 0 || max(quantity, -quantity) > protocol.QuantityMax {
		return fmt.Errorf("quantity %q", row[columns[3]])
	}
	if err := protocol.CheckName("sku", row[columns[2]]); err != nil {
		return err
	}
	sku := b.prefix + row[columns[2]]
	if err := protocol.CheckName("sku", sku); err != nil {
		return err
	}
	v := b.byID[row[columns[1]]]
	if v == nil {
		v = &invoice{id: row[columns[1]], at: at}
		b.byID[v.id] = v
		b.order = append(b.order, v)
	}
	if quantity > 0 {
		addLine(&v.sales, sku, quantity)
	} else {
		addLine(&v.returns, sku, -quantity)
	}
	return nil
}

func addLine(lines *[]protocol.Line, sku string, quantity int64) {
	for i := range *lines {
		if (*lines)[i].SKU == sku {
			(*lines)[i].Quantity += quantity
			return
		}
	}
	*lines = append(*lines, protocol.Line{SKU: sku, Location: protocol.DefaultLocation, Quantity: quantity})
}

func (b *planBuilder) plan(shape Shape) *Plan {
	slices.SortStableFunc(b.order, func(x, y *invoice) int { return x.at.Compare(y.at) })
	if n := shape.Invoices; n > 0 && n < len(b.order) {
		b.order = b.order[:n]
	}
	p := &Plan{prefix: shape.Prefix, opening: map[string]int64{}}
	sales := 0
	sold := map[string]int64{}
	for _, v := range b.order {
		if len(v.sales) > 0 {
			sales++
			v.fate = fateOf(sales)
		}
		for _, l := range v.sales {
			sold[l.SKU] += l.Quantity
		}
		for _, l := range v.returns {
			sold[l.SKU] += 0 // one of the plan's SKUs, sold or not
		}
		p.invoices = append(p.invoices, *v)
	}
	for sku, n := range sold {
		p.skus = append(p.skus, sku)
		p.opening[sku] = int64(math.Round(float64(n) * shape.Share))
	}
	slices.Sort(p.skus)
	return p
}

// fateOf decides by the number of an invoice among those that sell, from 1.
func fateOf(n int) fate {
	switch {
	case n%expireEvery == 0:
		return toExpire
	case n%releaseEvery == 0:
		return toRelease
	}
	return toSell
}

// parts cuts the lines into reservations of allowed size.
func parts(lines []protocol.Line) [][]protocol.Line {
	return slices.Collect(slices.Chunk(lines, protocol.LinesMax))
}
