package edge_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stockmesh/stockmesh/node/edge"
	"github.com/stockmesh/stockmesh/protocol"
)

// several sends commands in one message and tells how many went through and how
// many were refused. Refusals come before answers of the ledger.
func (p *peer) several(n int, command string) (ok, refused int, limited *protocol.Error) {
	p.Helper()
	p.send("[" + strings.TrimSuffix(strings.Repeat(command+",", n), ",") + "]")
	for range n {
		m := p.reply()
		switch {
		case m.Error == nil:
			ok++
		case m.Error != nil && m.Error.Code == protocol.CodeRateLimited:
			refused, limited = refused+1, m.Error
		default:
			p.Fatalf("after %d ok and %d refused: %s", ok, refused, m.raw)
		}
	}
	return ok, refused, limited
}

// Commands of one message come in the same moment, so what goes through is exact; for
// what follows, a burst of 100 at 1 per second leaves a slow machine a minute.
func TestRateLimitOfAnAddress(t *testing.T) {
	f := start(t, func(c *edge.Config) { c.CommandsPerIP, c.CommandsBurst = 1, 100 })
	a, b := f.dial(), f.dial() // their handshakes cost nothing
	const adjust = `{"op":"adjust","id":1,"key":"k","sku":"A","delta":1}`
	ok, refused, limited := a.several(150, adjust)
	if ok != 100 || refused != 50 {
		t.Errorf("%d went through", ok)
	}
	if !limited.Retryable || limited.RetryAfterMS <= 0 || limited.RetryAfterMS > 1000 {
		t.Errorf("got %+v", limited)
	}
	if got := f.ledger.all()["A@main"].OnHand; got != 100 {
		t.Errorf("%d on hand: what was refused was done", got)
	}
	if n := f.metric("stockmesh_commands_rate_limited_total"); n != 50 {
		t.Errorf("%v counted", n)
	}
	// Other connections of the address, and HTTP, take from the same budget.
	if ok, _, _ := b.several(100, adjust); ok > 60 {
		t.Errorf("another connection got %d through", ok)
	}
	if allowed, limited := f.edge.Allow(&http.Request{RemoteAddr: a.conn.LocalAddr().String()}, 100); allowed > 60 || limited == nil {
		t.Errorf("%d allowed by HTTP, %v", allowed, limited)
	}
	if allowed, limited := f.edge.Allow(&http.Request{RemoteAddr: "192.0.2.1:99"}, 100); allowed != 100 || limited != nil {
		t.Errorf("%d of another address allowed, %v", allowed, limited)
	}
}

func TestRateLimitOfAConnection(t *testing.T) {
	f := start(t, func(c *edge.Config) { c.CommandsPerConnection, c.CommandsBurst = 1, 100 })
	a, b := f.dial(), f.dial()
	if ok, _, _ := a.several(150, `{"op":"ping","id":7}`); ok != 100 {
		t.Errorf("%d went through", ok)
	}
	if ok, _, _ := b.several(100, `{"op":"ping","id":7}`); ok != 100 {
		t.Errorf("%d of another connection went through", ok)
	}
}

// Refused commands leave what else a connection has alone: its budget comes back with
// time, and pushes go on.
func TestRateLimitEnds(t *testing.T) {
	f := start(t, func(c *edge.Config) { c.CommandsPerIP, c.CommandsBurst = 20, 2 })
	p := f.dial()
	p.subscribe(`"skus":["A"]`)
	refused := 0
	eventually(t, "refused once", func() bool {
		if m := p.do(`{"op":"ping"}`); m.Error != nil {
			refused++
		}
		return refused > 0
	})
	f.ledger.set(5, "A")
	eventually(t, "allowed and pushed", func() bool {
		m := p.do(`{"op":"ping"}`)
		return m.Error == nil && len(p.pushes) > 0
	})
}
