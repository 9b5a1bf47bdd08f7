package relay

import (
	"encoding/binary"

	"github.com/stockmesh/stockmesh/protocol"
)

// ScopeBytesMax bounds what a call's scope takes in a batch: more than the grants of the
// largest token that a node takes. A larger one would make each of its calls cost the
// owner what whole batches do.
const ScopeBytesMax = 16 << 10

// ScopeFits tells whether a call with this scope can be sent.
func ScopeFits(s protocol.Scope) bool {
	if s == nil {
		return true
	}
	n := binary.MaxVarintLen64
	for i := range s {
		for _, list := range listsOf(&s[i]) {
			n++
			for _, name := range *list {
				n += 2 + len(name)
			}
		}
		if n > ScopeBytesMax {
			return false
		}
	}
	return true
}

// grantBytesMin is the least that a grant takes.
const grantBytesMin = 3

// listsOf is what counts of a grant in a scope: for the rest it was chosen by whoever
// made the scope.
func listsOf(g *protocol.Grant) [grantBytesMin]*[]string {
	return [...]*[]string{&g.SKUs, &g.Locations, &g.Users}
}

// appendScope appends a scope that is not nil, but may be empty.
func appendScope(b []byte, s protocol.Scope) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	for i := range s {
		for _, list := range listsOf(&s[i]) {
			b = appendNames(b, *list)
		}
	}
	return b
}

// appendNames appends a list of which nil, for all, and empty, for none, differ.
func appendNames(b []byte, names []string) []byte {
	if names == nil {
		return append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(names))+1)
	for _, name := range names {
		b = appendString(b, name)
	}
	return b
}

func (r *batchReader) scope() protocol.Scope {
	before := len(r.b)
	n := r.count(r.uint(), grantBytesMin)
	if n > ScopeBytesMax/grantBytesMin {
		r.fail("more grants than a scope may have")
		n = 0
	}
	s := protocol.Scope{} // nil would be no limit
	if n > 0 {
		s = carve(&r.grants, n, len(r.b)/grantBytesMin)
	}
	for i := range s {
		for _, list := range listsOf(&s[i]) {
			*list = r.names()
		}
	}
	if before-len(r.b) > ScopeBytesMax {
		r.fail("a scope that is too large")
	}
	return s
}

func (r *batchReader) names() []string {
	n := r.uint()
	switch n {
	case 0:
		return nil
	case 1:
		return []string{} // not nil, which would stand for all
	}
	names := carve(&r.texts, r.count(n-1, 1), len(r.b))
	for i := range names {
		names[i] = r.string()
	}
	return names
}
