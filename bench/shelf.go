package main

import "fmt"

// shelf is what is ordered, and what must be true of it by the answers so far.
type shelf struct {
	assortment
	lines  int // of an order
	stands []units
}

// units are those of one SKU.
type units struct {
	opening int64
	asked   int64 // in reserves that were sent
	ended   int64 // of these, those that are known to be refused or released
	taken   int64 // acknowledged and not on their way back: never more than the opening ones
	sold    int64
}

const (
	scarceEvery = 20  // one SKU of so many
	scarceMax   = 100 // has fewer units than this
	scarceStep  = 37  // one by one all numbers below the maximum, in no order
)

// orderedOpening leaves some SKUs so few units that orders are refused from the start,
// and more and more of them: the first SKU has none.
func orderedOpening(i int) int64 {
	if i%scarceEvery == 0 {
		return int64(i / scarceEvery * scarceStep % scarceMax)
	}
	return opening
}

func newShelf(a assortment, lines int, opening func(i int) int64) *shelf {
	s := &shelf{assortment: a, lines: lines, stands: make([]units, a.count)}
	for i := range s.stands {
		s.stands[i].opening = opening(i)
	}
	return s
}

// pick is a chooser: the lines of an order are of different SKUs, as each line has a
// part of the assortment to itself.
func (s *shelf) pick(bits uint64, line int) uint64 {
	part := uint64(s.count / s.lines)
	// Without another mix, what one line chooses would tell what the next does.
	bits += uint64(line) * golden
	bits = (bits ^ bits>>29) * golden
	return uint64(line)*part + bits>>32%part
}

// ask notes units that are reserved; it returns how many had ended before.
func (s *shelf) ask(item uint64) (ended int64) {
	u := &s.stands[item]
	u.asked++
	return u.ended
}

// take notes a unit that was reserved, and says whether it can have been there.
func (s *shelf) take(item uint64) bool {
	u := &s.stands[item]
	u.taken++
	return u.taken <= u.opening
}

// giveBack notes a unit on its way back.
func (s *shelf) giveBack(item uint64) { s.stands[item].taken-- }

// end notes a unit that is free again, or was never taken.
func (s *shelf) end(item uint64) { s.stands[item].ended++ }

func (s *shelf) sell(item uint64) { s.stands[item].sold++ }

// wasThere reports whether a unit must have been free when a node refused it: more than
// were asked for by then, but for those that had ended when this one was asked for, can't
// have been taken.
func (s *shelf) wasThere(item uint64, ended int64) bool {
	u := &s.stands[item]
	others := u.asked - 1
	return u.opening-(others-ended) > 0
}

// onHand is what every SKU begins with.
func (s *shelf) onHand() map[string]int64 {
	have := make(map[string]int64)
	for i, u := range s.stands {
		have[s.sku(i)] = u.opening
	}
	return have
}

// want is how every SKU should stand when no order is under way.
func (s *shelf) want() map[string]standing {
	want := make(map[string]standing)
	for i, u := range s.stands {
		want[s.sku(i)] = standing{onHand: u.opening - u.sold}
	}
	return want
}

// indexOf is the number of a SKU.
func (a assortment) indexOf(sku string) (i int, known bool) {
	var n int
	if _, err := fmt.Sscanf(sku, a.prefix+"%d", &n); err != nil || n < 0 || n >= a.count || a.sku(n) != sku {
		return 0, false
	}
	return n, true
}
