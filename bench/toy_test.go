package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/stockmesh/stockmesh/protocol"
)

// toy is a node of one lock and two maps, as right as it has to be for the scenarios of
// this folder. Its lies are what those have to notice.
type toy struct {
	lie string

	mu     sync.Mutex
	stock  map[string]*standing
	holds  map[string]*hold
	keys   map[string]string // answers
	asked  int
	pushed int
	seats  map[*seat]bool
}

// seat is a connection with the SKUs that it watches.
type seat struct {
	node    *toy
	watches map[string]bool
	conn    net.Conn
}

// hold is a reservation.
type hold struct {
	state protocol.State
	lines []protocol.Line
}

// What a toy can be told to do wrong.
const (
	noLie        = ""
	noHold       = "says that it holds what it doesn't"
	halfTaken    = "keeps the lines that are there of an order that is refused"
	firstOnly    = "takes the first line of an order only"
	refusesAll   = "refuses whatever is scarce"
	keepsHolding = "does not give back what is released"
	forgets      = "loses a sale now and then"
	forgetsSKU   = "loses a SKU"
	wrongState   = "confirms without saying so"
	goesBack     = "pushes an old state after a new one"
	isBusy       = "asks to send again, and has done it or not" // as a node may
)

// startToy serves a toy and returns its endpoint.
func startToy(t *testing.T, lie string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &toy{lie: lie, stock: make(map[string]*standing), holds: make(map[string]*hold), seats: make(map[*seat]bool), keys: make(map[string]string)}
	done := make(chan error)
	go func() { done <- (&nullServer{session: n.serve, batch: n.batch}).serve(l) }()
	t.Cleanup(func() {
		if err := errors.Join(l.Close(), <-done); err != nil {
			t.Error(err)
		}
	})
	return "ws://" + l.Addr().String() + "/v1/ws"
}

func (n *toy) serve(nc net.Conn, r *bufio.Reader) error {
	me := &seat{node: n, watches: make(map[string]bool), conn: nc}
	n.seated(me, true)
	defer n.seated(me, false)
	for {
		payload, err := readMasked(r)
		if err != nil {
			return err
		}
		if err := me.answer(payload); err != nil {
			return err
		}
	}
}

func (n *toy) seated(s *seat, yes bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if delete(n.seats, s); yes {
		n.seats[s] = true
	}
}

// answer tells everybody what a command has changed, and then the one who sent it.
func (s *seat) answer(payload []byte) error {
	var c toyCommand
	if err := json.Unmarshal(payload, &c); err != nil {
		return err
	}
	n := s.node
	n.mu.Lock()
	defer n.mu.Unlock()
	switch c.Op {
	case protocol.OpSubscribe:
		for _, sku := range c.SKUs {
			s.watches[sku] = true
			s.push(`"snapshot":true,`, n.item(sku))
		}
	case protocol.OpUnsubscribe:
		for _, sku := range c.SKUs {
			delete(s.watches, sku)
		}
	}
	before := make(map[string]string)
	for _, sku := range c.touches(n) {
		before[sku] = n.item(sku)
	}
	reply := appendServerFrame(nil, opText, n.reply(&c))
	for sku, was := range before {
		n.announce(sku, was)
	}
	_, err := s.conn.Write(reply)
	return err
}

// touches lists the SKUs that a command may change.
func (c *toyCommand) touches(n *toy) (skus []string) {
	lines := c.Lines
	if h := n.holds[c.Reservation]; h != nil {
		lines = h.lines
	}
	for _, line := range lines {
		skus = append(skus, line.SKU)
	}
	if c.SKU != "" {
		skus = append(skus, c.SKU)
	}
	return skus
}

// announce pushes a SKU that has changed.
func (n *toy) announce(sku, was string) {
	is := n.item(sku)
	for s := range n.seats {
		if is == was || !s.watches[sku] {
			continue
		}
		n.pushed++
		s.push("", is)
		if n.lie == goesBack && n.pushed%50 == 0 {
			s.push("", was)
		}
	}
}

// push writes at once: nobody reads what is written later to one who says nothing more.
func (s *seat) push(more, item string) {
	_, _ = s.conn.Write(appendServerFrame(nil, opText, fmt.Appendf(nil, `{"op":"stock",%s"items":[%s]}`, more, item))) // who is gone needs none
}

func (n *toy) batch(body []byte) []byte {
	var commands []json.RawMessage
	if err := json.Unmarshal(body, &commands); err != nil {
		return []byte(err.Error())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var results []string
	for _, text := range commands {
		var c toyCommand
		if err := json.Unmarshal(text, &c); err != nil {
			return []byte(err.Error())
		}
		ok, _ := n.do(&c)
		results = append(results, fmt.Sprintf(`{"id":%s,"ok":%s}`, c.ID, ok))
	}
	return fmt.Appendf(nil, `{"results":[%s]}`, strings.Join(results, ","))
}

// toyCommand is what a toy knows of commands.
type toyCommand struct {
	ID          json.RawMessage
	Op          protocol.Op
	Key         string
	SKU         string
	SKUs        []string
	OnHand      int64 `json:"on_hand"`
	Delta       int64
	Lines       []protocol.Line
	Reservation string
}

func (n *toy) reply(c *toyCommand) []byte {
	n.asked++
	busy := n.lie == isBusy && c.Key != "" && n.keys[c.Key] == ""
	if busy && n.asked%10 == 0 {
		return fmt.Appendf(nil, `{"id":%s,"error":{"code":"overloaded","retryable":true}}`, c.ID)
	}
	ok, problem := n.keys[c.Key], ""
	if ok == "" || c.Key == "" {
		ok, problem = n.do(c)
	}
	if n.keys[c.Key] = ok; busy && n.asked%10 == 5 && problem == "" {
		return fmt.Appendf(nil, `{"id":%s,"error":{"code":"unavailable","retryable":true,"details":{"outcome":"unknown"}}}`, c.ID)
	}
	if problem != "" {
		return fmt.Appendf(nil, `{"id":%s,"error":%s}`, c.ID, problem)
	}
	return fmt.Appendf(nil, `{"id":%s,"ok":%s}`, c.ID, ok)
}

func (n *toy) at(sku string) *standing {
	if n.stock[sku] == nil {
		n.stock[sku] = &standing{}
	}
	return n.stock[sku]
}

func (n *toy) do(c *toyCommand) (ok, problem string) {
	switch c.Op {
	case protocol.OpCount:
		n.at(c.SKU).onHand = c.OnHand
	case protocol.OpAdjust:
		n.at(c.SKU).onHand += c.Delta
	case protocol.OpSell:
		for _, line := range c.Lines {
			if n.lie != forgets || len(n.holds)%7 != 3 {
				n.at(line.SKU).onHand -= line.Quantity
			}
		}
		n.holds[fmt.Sprint(len(n.holds))] = nil // counts sales
	case protocol.OpReserve:
		return n.reserve(c)
	case protocol.OpConfirm, protocol.OpRelease:
		return n.end(c)
	case protocol.OpGet:
		return n.get(c), ""
	}
	return `{}`, ""
}

func (n *toy) reserve(c *toyCommand) (ok, problem string) {
	taken, lacks := c.Lines[:0:0], ""
	for _, line := range c.Lines {
		s := n.at(line.SKU)
		free := s.onHand - s.reserved
		short := free < line.Quantity && n.lie != noHold || n.lie == refusesAll && s.onHand < scarceMax
		if !short {
			taken = append(taken, line)
			continue
		}
		lacks = fmt.Sprintf(`{"code":"insufficient_stock","details":{"lines":[{"sku":%q,"requested":%d,"available":0,"elsewhere":0}]}}`, line.SKU, line.Quantity)
	}
	switch {
	case n.lie == noHold, lacks != "" && n.lie != halfTaken:
	case n.lie == firstOnly:
		n.hold(taken[:1])
	default:
		n.hold(taken)
	}
	if lacks != "" {
		return "", lacks
	}
	id := fmt.Sprintf("local.%d", len(n.holds))
	n.holds[id] = &hold{protocol.Held, taken}
	return n.tell(id), ""
}

func (n *toy) hold(lines []protocol.Line) {
	for _, line := range lines {
		n.at(line.SKU).reserved += line.Quantity
	}
}

func (n *toy) tell(id string) string {
	return fmt.Sprintf(`{"reservation":{"id":%q,"state":%q,"lines":[{"sku":"id","quantity":1}]}}`, id, n.holds[id].state)
}

func (n *toy) end(c *toyCommand) (ok, problem string) {
	h := n.holds[c.Reservation]
	if h == nil || h.state != protocol.Held {
		return "", `{"code":"reservation_ended"}`
	}
	lines := h.lines
	if n.lie == firstOnly {
		lines = lines[:1]
	}
	if h.state = protocol.Released; c.Op == protocol.OpConfirm {
		h.state = protocol.Confirmed
	}
	for _, line := range lines {
		s := n.at(line.SKU)
		if n.lie != noHold && (n.lie != keepsHolding || h.state != protocol.Released) {
			s.reserved -= line.Quantity
		}
		if h.state == protocol.Confirmed {
			s.onHand -= line.Quantity
		}
	}
	if n.lie == wrongState {
		h.state = protocol.Held
	}
	return n.tell(c.Reservation), ""
}

func (n *toy) get(c *toyCommand) string {
	var items []string
	for i, sku := range c.SKUs {
		if n.lie == forgetsSKU && i == len(c.SKUs)/2 {
			continue
		}
		items = append(items, n.item(sku))
	}
	return `{"items":[` + strings.Join(items, ",") + `]}`
}

func (n *toy) item(sku string) string {
	s := n.at(sku)
	return fmt.Sprintf(`{"sku":%q,"on_hand":%d,"reserved":%d}`, sku, s.onHand, s.reserved)
}

// lied runs a scenario against a toy and returns what it found wrong.
func lied(t *testing.T, lie string, args ...string) (violations string, err error) {
	t.Helper()
	args = append(args, "--connections", "4", "--depth", "4", "--duration", "100ms", "--endpoints", startToy(t, lie))
	result, err := runScenario(t, args...)
	return fmt.Sprint(result["violations"]), err
}

func testLies(t *testing.T, wants map[string]string, args ...string) {
	for lie, want := range wants {
		name := lie
		if lie == noLie {
			name = "is honest"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			violations, err := lied(t, lie, args...)
			if (err == nil) != (lie == noLie || lie == isBusy) || !strings.Contains(violations, want) {
				t.Errorf("%v; violations %s, want %s", err, violations, want)
			}
		})
	}
}

func TestManySKUsOnALyingNode(t *testing.T) {
	testLies(t, map[string]string{
		noLie:      "[]",
		forgets:    "SKUs wrong after",
		forgetsSKU: "is not there: want",
	}, "many-skus", "--skus", "50", "--no-half")
}

func TestOrdersOnALyingNode(t *testing.T) {
	testLies(t, map[string]string{
		noLie:        "[]",
		isBusy:       "[]",
		noHold:       "units were reserved that were not there",
		halfTaken:    "SKUs wrong after",
		firstOnly:    "SKUs wrong after",
		refusesAll:   "orders were refused although there was stock",
		keepsHolding: "reserved: want",
		forgetsSKU:   "is not there: want",
		wrongState:   "no reservation that is confirmed",
	}, "orders", "--skus", "100")
}

func TestMixedOnALyingNode(t *testing.T) {
	testLies(t, map[string]string{
		noLie:      "[]",
		isBusy:     "[]",
		goesBack:   "was pushed at change",
		wrongState: "no reservation that is confirmed",
		forgetsSKU: "is not there: want",
	}, "mixed", "--skus", "100", "--subscribers", "20", "--rate", "2000")
}
