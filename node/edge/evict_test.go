package edge_test

import (
	"testing"

	"github.com/stockmesh/stockmesh/protocol"
)

func TestEvict(t *testing.T) {
	f := startGuarded(t)
	first, other := f.as("tees"), f.as("all")
	second, third := f.as("tees"), f.as("tees")
	if n := f.edge.Evict("clerk", 2); n != 2 {
		t.Fatalf("%d sessions were evicted", n)
	}
	second.wantClose(protocol.CloseTooManyConnections)
	third.wantClose(protocol.CloseTooManyConnections)
	first.ok(`{"op":"ping"}`)
	other.ok(`{"op":"ping"}`)
	if n := f.edge.Evict("clerk", 5); n != 1 {
		t.Fatalf("%d of the one left were evicted", n)
	}
	first.wantClose(protocol.CloseTooManyConnections)
	if n := f.edge.Evict("nobody", 1); n != 0 {
		t.Fatalf("%d of nobody's were evicted", n)
	}
}
