package main

import "slices"

// mixedStock is a board of an assortment whose SKUs change by different commands at the
// same time, from many connections. Still a state tells how many changes it shows: those
// that buy move a unit from one column to the next, and a delivery is of more units than
// are ever sold.
type mixedStock struct {
	assortment
	*board
	adjusted, counted []int64 // of each SKU: stock-takes so far
}

const (
	countedEvery = 20      // one SKU of so many is counted again and again, the others are sold
	delivery     = 1 << 30 // units that an adjust brings in
)

func newMixedStock(gen *generator, a assortment) *mixedStock {
	skus := make([]string, a.count)
	for i := range skus {
		skus[i] = a.sku(i)
	}
	m := &mixedStock{assortment: a, board: newBoard(gen, skus), adjusted: make([]int64, a.count), counted: make([]int64, a.count)}
	m.decode = mixedChange
	return m
}

// isCounted reports whether a SKU is counted instead of sold.
func isCounted(sku int) bool { return sku%countedEvery == countedEvery-1 }

// mixedOpening is what is on hand of a SKU before the first change.
func mixedOpening(sku int) int64 {
	if isCounted(sku) {
		return 0
	}
	return opening
}

// mixedChange is how many changes a state shows. The n-th count finds n units. Where is
// sold, a delivery, a reserve and its confirm are a change each.
func mixedChange(sku int, onHand, reserved int64) int64 {
	if isCounted(sku) {
		return onHand
	}
	deliveries := (onHand - opening + delivery - 1) / delivery // none of which is sold to the last unit
	sold := opening + deliveries*delivery - onHand
	return deliveries + 2*sold + reserved
}

// changes notes a command that changes a SKU, before it is sent.
func (m *mixedStock) changes(sku int, due int64) { m.due[sku] = append(m.due[sku], due) }

// unchanged takes one back that was refused.
func (m *mixedStock) unchanged(sku int, due int64) {
	if i := slices.Index(m.due[sku], due); i >= 0 {
		m.due[sku] = slices.Delete(m.due[sku], i, i+1)
	}
}

// want is how every SKU should stand in the end, with what was sold of it.
func (m *mixedStock) want(sold func(sku int) int64) map[string]standing {
	want := make(map[string]standing)
	for i, sku := range m.skus {
		want[sku] = standing{onHand: mixedOpening(i) + m.adjusted[i]*delivery + m.counted[i] - sold(i)}
	}
	return want
}
