package clustertest

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/client"
)

// silent is a test that remembers what it was told instead of failing.
type silent struct {
	testing.TB
	said []string
}

func (s *silent) Helper() {}

func (s *silent) Errorf(format string, args ...any) {
	s.said = append(s.said, fmt.Sprintf(format, args...))
}

// history makes up what clients of one item saw: each step one call after the other.
type history struct {
	entries []*Entry
	at      time.Duration
}

func (h *history) add(cmd protocol.Command, reply client.Reply, err error) *Entry {
	cmd.Key = fmt.Sprint("k", len(h.entries))
	e := &Entry{Command: cmd, Call: h.at, Return: h.at + 2, Reply: reply, Err: err}
	h.at += 3
	h.entries = append(h.entries, e)
	return e
}

func shown(onHand, reserved int64, version uint64) client.Reply {
	return client.Reply{Item: &protocol.Item{SKU: "A", OnHand: onHand, Reserved: reserved, Version: fmt.Sprintf("%s:%d", RegionName, version)}}
}

func many(onHand, reserved int64, version uint64) client.Reply {
	return client.Reply{Items: []protocol.Item{*shown(onHand, reserved, version).Item}}
}

func hold(n int64) client.Reply {
	return client.Reply{Reservation: &protocol.Reservation{ID: "eu.1", Lines: lineOf(n)}}
}

func lineOf(n int64) []protocol.Line {
	return []protocol.Line{{SKU: "A", Location: "main", Quantity: n}}
}

func short(requested, available int64) error {
	return &protocol.Error{Code: protocol.CodeInsufficientStock, Details: &protocol.Details{
		Lines: []protocol.Shortage{{SKU: "A", Requested: requested, Available: available}},
	}}
}

var (
	stockOf5  = protocol.Command{Op: protocol.OpAdjust, SKU: "A", Delta: 5}
	sellOf2   = protocol.Command{Op: protocol.OpSell, Lines: lineOf(2)}
	reserve2  = protocol.Command{Op: protocol.OpReserve, Lines: lineOf(2)}
	confirmIt = protocol.Command{Op: protocol.OpConfirm, Reservation: "eu.1"}
	releaseIt = protocol.Command{Op: protocol.OpRelease, Reservation: "eu.1"}
	getIt     = protocol.Command{Op: protocol.OpGet, SKUs: []string{"A"}}
	ended     = &protocol.Error{Code: protocol.CodeReservationEnded, Details: &protocol.Details{State: protocol.Confirmed}}
)

// good is a day in the shop as it should be.
func good() *history {
	h := &history{}
	h.add(stockOf5, shown(5, 0, 1), nil)
	h.add(reserve2, hold(2), nil)
	h.add(sellOf2, many(3, 2, 3), nil)
	h.add(sellOf2, client.Reply{}, short(2, 1))
	h.add(confirmIt, hold(2), nil)
	h.add(releaseIt, client.Reply{}, ended)
	h.add(getIt, many(1, 0, 4), nil)
	return h
}

func linearSays(h *history) []string {
	t := &silent{}
	r := &Report{t: t, Entries: h.entries, shop: &Shop{}}
	r.Linearizable()
	return t.said
}

func TestTheCheckOfOrders(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(h *history)
		holds bool
	}{
		"as it should be":         {func(*history) {}, true},
		"a sale vanished":         {func(h *history) { h.add(getIt, many(3, 2, 3), nil).after = h.entries[6].Call }, false},
		"a get of an older state": {func(h *history) { h.add(getIt, many(3, 2, 3), nil).after = h.entries[2].Call }, true},
		"a get that owns up to it": {func(h *history) {
			e := h.add(getIt, many(3, 2, 3), nil)
			e.after, e.Behind = h.entries[6].Call, true
		}, true},
		"a version twice":          {func(h *history) { h.add(stockOf5, shown(6, 0, 4), nil) }, false},
		"a wrong sum":              {func(h *history) { h.add(stockOf5, shown(7, 0, 5), nil) }, false},
		"oversold":                 {func(h *history) { h.add(sellOf2, many(-1, 0, 5), nil) }, false},
		"refused without need":     {func(h *history) { h.add(sellOf2, client.Reply{}, short(2, 2)) }, false},
		"refused for another sum":  {func(h *history) { h.add(sellOf2, client.Reply{}, short(2, 0)) }, false},
		"ended twice":              {func(h *history) { h.add(releaseIt, hold(2), nil) }, false},
		"never applied, as told":   {func(h *history) { h.add(sellOf2, client.Reply{}, errNeverApplied) }, true},
		"applied late, but in use": {func(h *history) { h.entries[0].Return = 1000 }, true},
		"applied before the call":  {func(h *history) { h.entries[0].Call = 50; h.entries[0].Return = 60 }, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := good()
			c.spoil(h)
			if said := linearSays(h); (len(said) == 0) != c.holds {
				t.Errorf("it says %q", said)
			}
		})
	}
}

// moves are the movements of good, as a node's history tells them.
func moves() []protocol.Movement {
	list := []protocol.Movement{
		{Type: "adjust", Key: "k0", OnHandDelta: 5},
		{Type: "reserve", Key: "k1", ReservedDelta: 2, Reservation: "eu.1"},
		{Type: "sell", Key: "k2", OnHandDelta: -2},
		{Type: "confirm", Key: "k4", OnHandDelta: -2, ReservedDelta: -2, Reservation: "eu.1"},
	}
	return summed(list)
}

func summed(list []protocol.Movement) []protocol.Movement {
	var onHand, reserved int64
	for i := range list {
		m := &list[i]
		onHand, reserved = onHand+m.OnHandDelta, reserved+m.ReservedDelta
		m.SKU, m.OnHand, m.Reserved, m.Sequence = "A", onHand, reserved, fmt.Sprint(i)
	}
	return list
}

func TestTheBook(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(list []protocol.Movement) []protocol.Movement
		want  string // "" for nothing wrong
	}{
		"as it should be": {func(l []protocol.Movement) []protocol.Movement { return l }, ""},
		"lost":            {func(l []protocol.Movement) []protocol.Movement { return summed(append(l[:2], l[3])) }, "k2 was acknowledged and is lost"},
		"twice":           {func(l []protocol.Movement) []protocol.Movement { return summed(slices.Insert(l, 3, l[2])) }, "twice, or nobody sent it"},
		"refused, but done": {func(l []protocol.Movement) []protocol.Movement {
			return summed(slices.Insert(l, 1, protocol.Movement{Type: "sell", Key: "k3", OnHandDelta: -2}))
		}, "which was refused"},
		"another amount": {func(l []protocol.Movement) []protocol.Movement {
			l[2].OnHandDelta = -1
			return summed(l)
		}, "did -1 on hand"},
		"ended twice": {func(l []protocol.Movement) []protocol.Movement {
			return summed(append(l, protocol.Movement{Type: "expire", Reservation: "eu.1"}))
		}, "ended twice"},
		"oversold": {func(l []protocol.Movement) []protocol.Movement {
			l[0].OnHandDelta = 1
			return summed(l)
		}, "oversold"},
		"a gap in the sums": {func(l []protocol.Movement) []protocol.Movement {
			l[2].OnHand++
			return l
		}, "the movements up to it make"},
	} {
		t.Run(name, func(t *testing.T) {
			told := &silent{}
			b := newBook(&Report{t: told, Entries: good().entries})
			b.walk("A", c.spoil(moves()))
			b.missing()
			said := strings.Join(told.said, "\n")
			if c.want == "" && said != "" || !strings.Contains(said, c.want) {
				t.Errorf("it says %q, want %q", said, c.want)
			}
		})
	}
}

func TestExpiryBeforeItsTime(t *testing.T) {
	h := good()
	h.entries[1].Reply.Reservation.ExpiresAt = 100
	told := &silent{}
	b := newBook(&Report{t: told, Entries: h.entries[:2]})
	b.walk("A", summed([]protocol.Movement{
		{Type: "adjust", Key: "k0", OnHandDelta: 5},
		{Type: "reserve", Key: "k1", ReservedDelta: 2, Reservation: "eu.1"},
		{Type: "expire", ReservedDelta: -2, Reservation: "eu.1", At: 99},
	}))
	if len(told.said) != 1 || !strings.Contains(told.said[0], "before its time") {
		t.Errorf("it says %q", told.said)
	}
}

func TestLongestGap(t *testing.T) {
	times := []time.Duration{1, 2, 10, 11, 30}
	for _, c := range []struct{ from, to, want time.Duration }{
		{0, 12, 8}, {2, 9, 7}, {3, 9, 6}, {11, 40, 19}, {30, 45, 15}, {31, 32, 1},
	} {
		if got := longestGap(times, c.from, c.to); got != c.want {
			t.Errorf("%d..%d: %d, want %d", c.from, c.to, got, c.want)
		}
	}
}

func TestBrokenAssertions(t *testing.T) {
	data := `{"antithesis_sdk":{"language":{"name":"Go"}}}
{"antithesis_assert":{"hit":true,"condition":false,"assert_type":"reachability","display_type":"Unreachable","message":"WAL truncate lost commits"}}
{"antithesis_assert":{"hit":true,"condition":true,"assert_type":"reachability","display_type":"Reachable","message":"fine"}}
{"antithesis_assert":{"hit":true,"condition":false,"assert_type":"sometimes","display_type":"Sometimes","message":"fine too"}}
{"antithesis_assert":{"hit":false,"condition":false,"assert_type":"always","display_type":"Always","message":"declared only"}}
{"antithesis_assert":{"hit":tr`
	if got := brokenLines([]byte(data)); len(got) != 1 || !strings.Contains(got[0], "lost commits") {
		t.Errorf("%q", got)
	}
}

// TestProxyCuts: a cut swallows, in both directions, without closing; Heal ends what
// has holes.
func TestProxyCuts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	n := newNetwork()
	defer n.close()
	addr, err := n.lead("n1", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, far := connected(t, addr, l)
	defer near.Close()
	defer far.Close()
	const hello = `INFO {"server_id":"X","server_name":"n2"}`
	send(t, near, hello)
	expect(t, far, hello)
	send(t, far, "welcome")
	expect(t, near, "welcome")

	n.cut("n2", "n1")
	send(t, near, "lost")
	send(t, far, "lost")
	other, otherFar := connected(t, addr, l)
	defer other.Close()
	defer otherFar.Close()
	send(t, other, `INFO {"server_name":"n3"}`)
	expect(t, otherFar, `INFO {"server_name":"n3"}`)

	n.heal()
	for _, c := range []net.Conn{near, far} {
		if b, err := io.ReadAll(c); len(b) > 0 {
			t.Errorf("%q came through a cut (%v)", b, err)
		}
	}
	send(t, other, "still here")
	expect(t, otherFar, "still here")
}

func connected(t *testing.T, addr string, l net.Listener) (near, far net.Conn) {
	t.Helper()
	near, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{near, far} {
		if err := c.SetDeadline(time.Now().Add(lookWait)); err != nil {
			t.Fatal(err)
		}
	}
	return near, far
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, c net.Conn, text string) {
	t.Helper()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("got %q %v, want %q", got, err, text)
	}
}
