package main

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

// plan is what a replay is going to do.
type plan struct {
	invoices []invoice // in order of time
	skus     []string  // in order
	opening  map[string]int64
}

// readPlan reads a recording: CSV, may be gzipped, with the columns invoiced_at,
// invoice, sku and quantity. share is how much of what a SKU sells is there at
// the opening.
func readPlan(r io.Reader, share float64) (*plan, error) {
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
	b := planBuilder{byID: map[string]*invoice{}, sold: map[string]int64{}}
	for {
		row, err := rows.Read()
		if err == io.EOF {
			return b.plan(share), nil
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
	order []*invoice
	byID  map[string]*invoice
	sold  map[string]int64
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
	sku := row[columns[2]]
	if err := protocol.CheckName("sku", sku); err != nil {
		return err
	}
	v := b.byID[row[columns[1]]]
	if v == nil {
		v = &invoice{id: row[columns[1]], at: at}
		b.byID[v.id] = v
		b.order = append(b.order, v)
	}
	b.sold[sku] += max(0, quantity)
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

func (b *planBuilder) plan(share float64) *plan {
	p := &plan{opening: map[string]int64{}}
	for sku, n := range b.sold {
		p.skus = append(p.skus, sku)
		p.opening[sku] = int64(math.Round(float64(n) * share))
	}
	slices.Sort(p.skus)
	slices.SortStableFunc(b.order, func(x, y *invoice) int { return x.at.Compare(y.at) })
	sales := 0
	for _, v := range b.order {
		if len(v.sales) > 0 {
			sales++
			v.fate = fateOf(sales)
		}
		p.invoices = append(p.invoices, *v)
	}
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
