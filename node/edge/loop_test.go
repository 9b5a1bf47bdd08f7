package edge

import (
	"net/netip"
	"strings"
	"testing"
	"unsafe"

	"github.com/stockmesh/stockmesh/node/edge/poll"
	"github.com/stockmesh/stockmesh/protocol"
)

func TestConnIsSmall(t *testing.T) {
	const most = 128 // a size class of the allocator; what few connections have belongs into rare
	// The portable twin's socket is a pointer; it doesn't carry load.
	twin := 2 * (unsafe.Sizeof(poll.Socket{}) - 4) // with its alignment
	if size := unsafe.Sizeof(conn{}) - twin; size > most {
		t.Errorf("a connection takes %d bytes, the limit is %d", size, most)
	}
}

func TestFrameEndOfWhatIsNoFrame(t *testing.T) {
	answer := []byte("HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x02{}")
	for sent := range len(answer) {
		if end := frameEnd(answer, sent); end < sent || end > len(answer) {
			t.Errorf("sent %d: the frame ends at %d", sent, end)
		}
	}
}

// growing is a ledger of one item whose quantity is now.
type growing struct {
	silent
	now int64
}

func (g *growing) Items(dst []protocol.Item, ids []protocol.ItemID) []protocol.Item {
	for range ids {
		dst = append(dst, protocol.Item{SKU: "A", Location: "main", OnHand: g.now})
	}
	return dst
}

// openConn is a session without a socket.
func (l *loop) openConn() *conn {
	c := &conn{state: stateOpen}
	l.place(c)
	c.session = uint64(c.slot) + 1
	return c
}

// said is what a connection would be sent.
func (l *loop) said(c *conn) string {
	l.hub.pushDue(c)
	var payloads []string
	for b := c.out; len(b) > 0; {
		h, n, _ := parseHeader(b)
		payloads = append(payloads, string(b[n:n+int(h.Length)]))
		b = b[n+int(h.Length):]
	}
	c.out = nil
	return strings.Join(payloads, "\n")
}

// A state read for a connection that is caught up early in a turn must not be
// pushed after a get of the same turn was answered with a newer one.
func TestStatesReadBeforeTheMailAreForgotten(t *testing.T) {
	l := newBench(t)
	ledger := &growing{now: 1}
	l.config.Ledger = ledger
	c := l.openConn()
	c.sub = &subscriber{entries: make(map[entryID]*entry)}
	c.sub.paced = map[protocol.ItemID]*pace{7: {every: 10, pending: true}}
	l.hub.due(c, 7, 0)
	l.replyNow(c, l.newCall(c)) // reads the state
	l.said(c)
	ledger.now = 2
	get := l.newCall(c)
	get.Result = protocol.Result{Kind: protocol.KindItems, Items: ledger.Items(nil, []protocol.ItemID{7})}
	l.deliver(&mail{answers: []*protocol.Call{get}})
	l.hub.paceDue(c, 7)
	if out := l.said(c); strings.Count(out, `"on_hand":2`) != 2 || strings.Contains(out, `"on_hand":1`) {
		t.Fatalf("a reply with 2, then a push of 1:\n%s", out)
	}
}

// Somebody else may confirm a reservation before its maker's loop has seen the
// answer: then both are in one mail, changes first.
func TestReservationThatEndsBeforeItsMakerKnowsIt(t *testing.T) {
	l := newBench(t)
	maker, other := l.openConn(), l.openConn()
	held := protocol.Reservation{ID: "eu.1", State: protocol.Held}
	confirmed := protocol.Reservation{ID: "eu.1", State: protocol.Confirmed}
	reserve := l.newCall(maker)
	reserve.Command.Op = protocol.OpReserve
	reserve.Result = protocol.Result{Kind: protocol.KindReservation, Reservation: &held}
	l.deliver(&mail{
		changes: []*protocol.Changes{
			{Reservations: []protocol.ReservationChange{{Reservation: held, By: maker.session}}},
			{Reservations: []protocol.ReservationChange{{Reservation: confirmed, By: other.session}}},
		},
		answers: []*protocol.Call{reserve},
	})
	out := l.said(maker)
	if reply, push := strings.Index(out, `"ok"`), strings.Index(out, `"confirmed"`); reply < 0 || push < reply {
		t.Fatalf("want the reply, then the push:\n%s", out)
	}
	if len(l.hub.made)+len(maker.own().made) > 0 {
		t.Fatal("it is still remembered")
	}
}

// A write that fails drops its connection, wherever it was called from.
func TestDroppedTwiceIsForgottenOnce(t *testing.T) {
	l := newBench(t)
	c := l.openConn()
	c.address, c.admitted = netip.MustParseAddr("127.0.0.1").As16(), true
	l.edge.connections.Store(1)
	l.drop(c)
	l.drop(c)
	if n := l.edge.connections.Load(); n != 0 || len(l.free) != 1 {
		t.Fatalf("%d connections, %d free slots", n, len(l.free))
	}
}
