package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/stockmesh/stockmesh/protocol"
)

// fakeNode keeps stock in memory by the rules of the contract, as far as
// stockctl needs them. Its state outlives its connections.
type fakeNode struct {
	server *httptest.Server
	done   chan struct{}

	mu           sync.Mutex
	items        map[protocol.ItemKey]*protocol.Item
	history      map[protocol.ItemKey][]protocol.Movement // oldest first
	reservations map[string]*protocol.Reservation
	applied      map[string]string
	sequence     int
	conns        map[*fakeConn]bool
	wrote        int

	// afterWrite, where set, is told the number of writes so far; true loses the
	// answer and every connection.
	afterWrite func(int) bool
	// forget, where set, keeps a movement out of the history.
	forget func(protocol.Movement) bool
}

type fakeConn struct {
	ws  *websocket.Conn
	all bool
	sel protocol.Selector
}

func newFakeNode(t *testing.T) *fakeNode {
	n := &fakeNode{done: make(chan struct{}), items: map[protocol.ItemKey]*protocol.Item{}, history: map[protocol.ItemKey][]protocol.Movement{},
		reservations: map[string]*protocol.Reservation{}, applied: map[string]string{}, conns: map[*fakeConn]bool{}}
	n.server = httptest.NewServer(n)
	var wg sync.WaitGroup
	wg.Go(n.expireAll)
	t.Cleanup(func() {
		close(n.done)
		wg.Wait()
		n.mu.Lock()
		n.drop()
		n.mu.Unlock()
		n.server.Close()
	})
	return n
}

func (n *fakeNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v1/stock" {
		n.page(w, r)
		return
	}
	if r.URL.Path == "/v1/mesh" {
		fmt.Fprint(w, meshAnswer)
		return
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{protocol.SubprotocolJSON}})
	if err != nil {
		return
	}
	defer ws.CloseNow()
	ws.SetReadLimit(1 << 20)
	c := &fakeConn{ws: ws}
	n.mu.Lock()
	n.conns[c] = true
	c.say(protocol.AppendJSON(nil, protocol.Hello{Op: "hello", Node: "fake", Region: "eu", Protocol: 1, HeartbeatMS: 25000}))
	n.mu.Unlock()
	for {
		_, msg, err := ws.Read(r.Context())
		if err != nil {
			break
		}
		values, refused := protocol.Split(msg, protocol.CommandsMax)
		if refused != nil {
			break
		}
		for _, v := range values {
			call := &protocol.Call{}
			call.Err = call.Command.Decode(v)
			n.serve(c, call)
		}
	}
	n.mu.Lock()
	delete(n.conns, c)
	n.mu.Unlock()
}

func (c *fakeConn) say(msg []byte) { c.ws.Write(context.Background(), websocket.MessageText, msg) }

func (n *fakeNode) drop() {
	for c := range n.conns {
		c.ws.CloseNow()
	}
}

func (n *fakeNode) serve(c *fakeConn, call *protocol.Call) {
	n.mu.Lock()
	defer n.mu.Unlock()
	cmd := &call.Command
	if call.Err == nil {
		if ok, found := n.applied[cmd.Key]; found && cmd.Op.IsWrite() {
			c.say(fmt.Appendf(nil, `{"id":%s,"ok":%s,"replayed":true}`, cmd.ID, ok))
			return
		}
		call.Err = n.apply(c, call)
	}
	if cmd.Op.IsWrite() && call.Err == nil {
		n.applied[cmd.Key] = string(protocol.AppendOK(nil, &call.Result))
		n.wrote++
		if n.afterWrite != nil && n.afterWrite(n.wrote) {
			n.drop()
			return
		}
	}
	c.say(protocol.AppendReply(nil, call))
}

func (n *fakeNode) apply(c *fakeConn, call *protocol.Call) *protocol.Error {
	cmd, r := &call.Command, &call.Result
	key := protocol.ItemKey{SKU: cmd.SKU, Location: cmd.Location}
	switch cmd.Op {
	case protocol.OpGet:
		r.Kind = protocol.KindItems
		for _, sku := range cmd.SKUs {
			r.Items = append(r.Items, *n.item(protocol.ItemKey{SKU: sku, Location: "main"}))
		}
	case protocol.OpAdjust, protocol.OpCount:
		delta := cmd.Delta
		if cmd.Op == protocol.OpCount {
			delta = *cmd.OnHand - n.item(key).OnHand
		}
		if it := n.item(key); it.OnHand+delta < it.Reserved {
			return protocol.NewError(protocol.CodeInsufficientStock, "only %d", it.Available)
		}
		n.move(key, protocol.Movement{Type: string(cmd.Op), OnHandDelta: delta, Key: cmd.Key, Reference: cmd.Reference})
		r.Kind, r.Items = protocol.KindItem, []protocol.Item{*n.item(key)}
	case protocol.OpReserve, protocol.OpSell:
		return n.take(call)
	case protocol.OpConfirm, protocol.OpRelease:
		return n.end(call)
	case protocol.OpHistory:
		r.Kind = protocol.KindMovements
		r.Movements, r.Next = n.historyPage(n.history[key], cmd)
	case protocol.OpSubscribe:
		c.all, c.sel = true, cmd.Selector()
		var out [][]byte
		for k, it := range n.items {
			if c.sel.Match(k) {
				out = append(out, protocol.AppendItem(nil, it))
			}
		}
		c.say(protocol.AppendStock(nil, true, out...))
		r.Kind, r.Count, r.Cursor = protocol.KindSubscribed, len(out), "eu:1"
	case protocol.OpOutcome:
		r.Kind = protocol.KindOutcome
	}
	return nil
}

func (n *fakeNode) take(call *protocol.Call) *protocol.Error {
	cmd, r := &call.Command, &call.Result
	for _, l := range cmd.Lines {
		if it := n.item(protocol.ItemKey{SKU: l.SKU, Location: l.Location}); it.Available < l.Quantity {
			e := protocol.NewError(protocol.CodeInsufficientStock, "not enough")
			e.Details = &protocol.Details{Lines: []protocol.Shortage{{SKU: l.SKU, Location: l.Location, Requested: l.Quantity, Available: it.Available}}}
			return e
		}
	}
	id := "eu.r" + strconv.Itoa(len(n.reservations))
	for _, l := range cmd.Lines {
		m := protocol.Movement{Type: string(cmd.Op), ReservedDelta: l.Quantity, Key: cmd.Key, Reference: cmd.Reference, Reservation: id}
		if cmd.Op == protocol.OpSell {
			m.OnHandDelta, m.ReservedDelta, m.Reservation = -l.Quantity, 0, ""
		}
		n.move(protocol.ItemKey{SKU: l.SKU, Location: l.Location}, m)
		r.Items = append(r.Items, *n.item(protocol.ItemKey{SKU: l.SKU, Location: l.Location}))
	}
	r.Kind = protocol.KindItems
	if cmd.Op == protocol.OpReserve {
		res := &protocol.Reservation{ID: id, State: protocol.Held, Lines: cmd.Lines, User: cmd.User,
			ExpiresAt: protocol.TimeOf(time.Now().Add(time.Duration(*cmd.TTLMS) * time.Millisecond))}
		n.reservations[id] = res
		r.Kind, r.Reservation = protocol.KindReservation, res
	}
	return nil
}

func (n *fakeNode) end(call *protocol.Call) *protocol.Error {
	cmd := &call.Command
	res := n.reservations[cmd.Reservation]
	if res == nil {
		return protocol.NewError(protocol.CodeNotFound, "no such reservation")
	}
	if res.State != protocol.Held {
		e := protocol.NewError(protocol.CodeReservationEnded, "it has ended")
		e.Details = &protocol.Details{State: res.State}
		return e
	}
	n.finish(res, cmd)
	call.Result.Kind, call.Result.Reservation = protocol.KindReservation, res
	return nil
}

func (n *fakeNode) finish(res *protocol.Reservation, cmd *protocol.Command) {
	for _, l := range res.Lines {
		m := protocol.Movement{Type: string(cmd.Op), ReservedDelta: -l.Quantity, Key: cmd.Key, Reference: cmd.Reference, Reservation: res.ID}
		if cmd.Op == protocol.OpConfirm {
			m.OnHandDelta = -l.Quantity
		}
		n.move(protocol.ItemKey{SKU: l.SKU, Location: l.Location}, m)
	}
	res.State = map[protocol.Op]protocol.State{protocol.OpConfirm: protocol.Confirmed, protocol.OpRelease: protocol.Released, "expire": protocol.Expired}[cmd.Op]
}

// expireAll ends reservations whose time is over.
func (n *fakeNode) expireAll() {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-n.done:
			return
		case now := <-tick.C:
			n.mu.Lock()
			for _, res := range n.reservations {
				if res.State == protocol.Held && res.ExpiresAt.Std().Before(now) {
					n.finish(res, &protocol.Command{Op: "expire"})
				}
			}
			n.mu.Unlock()
		}
	}
}

func (n *fakeNode) item(k protocol.ItemKey) *protocol.Item {
	if it := n.items[k]; it != nil {
		return it
	}
	return &protocol.Item{SKU: k.SKU, Location: k.Location}
}

// move makes one movement and pushes the item.
func (n *fakeNode) move(k protocol.ItemKey, m protocol.Movement) {
	it := n.item(k)
	n.items[k] = it
	v, _ := protocol.ParseVector(it.Version)
	it.Version = v.With("eu", v.Get("eu")+1).String()
	it.OnHand += m.OnHandDelta
	it.Reserved += m.ReservedDelta
	it.Available = max(0, it.OnHand-it.Reserved)
	n.sequence++
	m.Sequence, m.Region, m.SKU, m.Location = fmt.Sprintf("eu.0.%d.0", n.sequence), "eu", k.SKU, k.Location
	m.OnHand, m.Reserved = it.OnHand, it.Reserved
	if n.forget == nil || !n.forget(m) {
		n.history[k] = append(n.history[k], m)
	}
	for c := range n.conns {
		if c.all && c.sel.Match(k) {
			c.say(protocol.AppendStock(nil, false, protocol.AppendItem(nil, it)))
		}
	}
}

func (n *fakeNode) historyPage(all []protocol.Movement, cmd *protocol.Command) (page []protocol.Movement, next string) {
	end := len(all)
	if cmd.Before != "" {
		end, _ = strconv.Atoi(cmd.Before)
	}
	start := max(0, end-cmd.Limit)
	page = slices.Clone(all[start:end])
	slices.Reverse(page)
	if start > 0 {
		next = strconv.Itoa(start)
	}
	return page, next
}

// page serves pages of three items, to have several.
func (n *fakeNode) page(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	prefix, after := r.URL.Query().Get("prefix"), r.URL.Query().Get("after")
	var p protocol.Page
	for _, k := range slices.SortedFunc(maps.Keys(n.items), func(a, b protocol.ItemKey) int {
		return cmp.Compare(a.SKU+"\x00"+a.Location, b.SKU+"\x00"+b.Location)
	}) {
		at := k.SKU + "\x00" + k.Location
		if at <= after || !strings.HasPrefix(k.SKU, prefix) {
			continue
		}
		if len(p.Items) == 3 {
			p.Next = p.Items[2].SKU + "\x00" + p.Items[2].Location
			break
		}
		p.Items = append(p.Items, *n.items[k])
	}
	w.Write(protocol.AppendPage(nil, &p))
}
