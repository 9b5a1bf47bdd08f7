package ledger

import "hash/fnv"

// Digest sums up everything the state holds: two replicas at the same Seq have
// the same digest. It takes the order of nothing into account that a replica may
// hold in another order, and reads the whole state, remembered keys included.
func (s *State) Digest() uint64 {
	var sum uint64
	var w writer
	add := func(write func(*writer)) bool {
		w.b = w.b[:0]
		write(&w)
		h := fnv.New64a()
		h.Write(w.b)
		sum += h.Sum64()
		return true
	}
	add(s.writeHeader)
	s.entries(add)
	return sum
}
