//go:build !portable

package edge_test

import (
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/node/edge"
)

// Who has given up while waiting costs no handshake.
func TestHandshakesGivenUp(t *testing.T) {
	g := startGated(t, func(c *edge.Config) { c.HandshakeTimeout = time.Minute })
	hello := clientHello(t)
	for range slotsMax {
		if err := g.say(hello).Close(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all came", func() bool { return g.edge.Connections() >= slotsMax })
	g.open()
	g.dial().ok(`{"op":"ping"}`) // the last in the queue
	if got := int(g.entered.Load()); got != slotsMax+1 {
		t.Errorf("%d handshakes began, want %d", got, slotsMax+1)
	}
}
