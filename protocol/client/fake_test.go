package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/stockmesh/stockmesh/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeNode is just enough of a node: it remembers keys and items, and tests
// replace what it says to single commands.
type fakeNode struct {
	t      *testing.T
	name   string
	server *httptest.Server
	addr   string

	mu       sync.Mutex
	hello    protocol.Hello
	items    map[string]protocol.Item
	applied  map[string]string // key -> ok object
	conns    map[*fakeConn]bool
	commands []protocol.Command
	messages [][]byte
	accepted int
	tokens   []string // Authorization headers

	// answer, where set, may answer instead: it returns the rest of a reply,
	// `"ok":{}` or `"error":{...}`, "-" for no answer, "" for the usual one.
	answer    func(*fakeConn, protocol.Command) string
	handshake func(http.ResponseWriter) bool // true: has been refused
	mute      bool                           // no pings, no hello
	cbor      bool                           // speaks CBOR where that is offered
}

type fakeConn struct {
	node  *fakeNode
	ws    *websocket.Conn
	codec protocol.Codec
	subs  []protocol.Selector
}

func newFakeNode(t *testing.T, name string) *fakeNode {
	n := &fakeNode{t: t, name: name, items: map[string]protocol.Item{}, applied: map[string]string{}, conns: map[*fakeConn]bool{}, cbor: overCBOR}
	n.hello = protocol.Hello{Op: "hello", Session: "s", Node: name, Region: "eu", Protocol: 1, HeartbeatMS: 25000,
		Limits: protocol.Limits{MessageBytes: 65536, Subscriptions: 10000, InFlight: 256}}
	n.start("127.0.0.1:0")
	t.Cleanup(n.stop)
	return n
}

func (n *fakeNode) start(addr string) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		n.t.Fatal(err)
	}
	n.addr = l.Addr().String()
	n.server = httptest.NewUnstartedServer(n)
	n.server.Listener.Close()
	n.server.Listener = l
	n.server.Start()
}

// stop drops every connection as a killed process would.
func (n *fakeNode) stop() {
	n.drop()
	n.server.Close()
}

func (n *fakeNode) drop() { n.each(func(c *fakeConn) { c.ws.CloseNow() }) }

func (n *fakeNode) closeAll(code int, reason string) {
	n.each(func(c *fakeConn) { go c.ws.Close(websocket.StatusCode(code), reason) })
}

func (n *fakeNode) each(f func(*fakeConn)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		f(c)
	}
}

func (n *fakeNode) say(format string, args ...any) {
	n.each(func(c *fakeConn) { c.say(format, args...) })
}

// say sends a message that is given as JSON.
func (c *fakeConn) say(format string, args ...any) {
	kind, msg := websocket.MessageText, fmt.Appendf(nil, format, args...)
	if c.codec == protocol.CBOR {
		kind, msg = websocket.MessageBinary, toCBOR(msg)
	}
	c.ws.Write(context.Background(), kind, msg)
}

func (n *fakeNode) codecs() []string {
	if n.cbor {
		return []string{protocol.SubprotocolCBOR, protocol.SubprotocolJSON}
	}
	return []string{protocol.SubprotocolJSON}
}

func (n *fakeNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	n.tokens = append(n.tokens, r.Header.Get("Authorization"))
	refuse := n.handshake
	n.mu.Unlock()
	if r.URL.Path == "/v1/stock" {
		n.page(w, r)
		return
	}
	if refuse != nil && refuse(w) {
		return
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: n.codecs()})
	if err != nil {
		return
	}
	defer ws.CloseNow()
	ws.SetReadLimit(1 << 20)
	c := &fakeConn{node: n, ws: ws}
	c.codec, _ = protocol.CodecOf(ws.Subprotocol())
	n.mu.Lock() // nothing is said to it before the hello
	n.conns[c] = true
	n.accepted++
	if !n.mute {
		c.say("%s", protocol.AppendJSON(nil, n.hello))
	}
	n.mu.Unlock()
	c.serve(r.Context())
	n.mu.Lock()
	delete(n.conns, c)
	n.mu.Unlock()
}

func (c *fakeConn) serve(ctx context.Context) {
	for {
		kind, msg, err := c.ws.Read(ctx)
		if err != nil {
			return
		}
		if binary := kind == websocket.MessageBinary; binary != (c.codec == protocol.CBOR) {
			c.ws.Close(protocol.CloseUnsupportedData, "")
			return
		}
		c.node.mu.Lock()
		c.node.messages = append(c.node.messages, msg)
		c.node.mu.Unlock()
		values, refused := c.codec.Split(msg, protocol.CommandsMax)
		if refused != nil {
			c.say(`{"id":null,"error":%s}`, protocol.AppendError(nil, refused))
			continue
		}
		for _, v := range values {
			var cmd protocol.Command
			err := c.codec.Decode(&cmd, v)
			cmd.ID = c.idText(cmd.ID)
			if err != nil {
				c.say(`{"id":%s,"error":%s}`, cmd.ID, protocol.AppendError(nil, err))
				continue
			}
			c.handle(cmd)
		}
	}
}

func (c *fakeConn) handle(cmd protocol.Command) {
	n := c.node
	n.mu.Lock()
	n.commands = append(n.commands, cmd)
	answer := n.answer
	n.mu.Unlock()
	rest := ""
	if answer != nil {
		rest = answer(c, cmd)
	}
	if rest == "-" {
		return
	}
	if rest == "" {
		rest = c.usual(cmd)
	}
	c.say(`{"id":%s,%s}`, cmd.ID, rest)
}

func (c *fakeConn) usual(cmd protocol.Command) string {
	n := c.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if ok, found := n.applied[cmd.Key]; found && cmd.Op.IsWrite() {
		return `"ok":` + ok + `,"replayed":true`
	}
	ok := c.apply(cmd)
	if cmd.Op.IsWrite() {
		n.applied[cmd.Key] = ok
	}
	return `"ok":` + ok
}

func (c *fakeConn) apply(cmd protocol.Command) string {
	n := c.node
	switch cmd.Op {
	case protocol.OpAdjust, protocol.OpCount, protocol.OpConfigure:
		it := n.change(cmd.SKU, cmd.Delta)
		return fmt.Sprintf(`{"item":%s}`, protocol.AppendItem(nil, &it))
	case protocol.OpGet, protocol.OpSell, protocol.OpMove:
		r := protocol.Result{Kind: protocol.KindItems, Behind: cmd.AtLeast != ""}
		for _, sku := range cmd.SKUs {
			r.Items = append(r.Items, n.items[sku])
		}
		return string(protocol.AppendOK(nil, &r))
	case protocol.OpReserve, protocol.OpConfirm, protocol.OpRelease, protocol.OpExtend, protocol.OpReservation:
		r := protocol.Reservation{ID: "eu.1", State: protocol.Held, Lines: cmd.Lines, User: cmd.User}
		return fmt.Sprintf(`{"reservation":%s}`, protocol.AppendReservation(nil, &r))
	case protocol.OpHistory:
		r := protocol.Result{Kind: protocol.KindMovements, Next: "n", Movements: []protocol.Movement{{Sequence: "eu.0.1.0", SKU: cmd.SKU}}}
		return string(protocol.AppendOK(nil, &r))
	case protocol.OpOutcome:
		if ok, found := n.applied[cmd.Key]; found {
			return fmt.Sprintf(`{"known":true,"reply":{"ok":%s}}`, ok)
		}
		return `{"known":false}`
	case protocol.OpSubscribe:
		return c.subscribe(cmd)
	}
	return `{}`
}

func (c *fakeConn) subscribe(cmd protocol.Command) string {
	sel := cmd.Selector()
	c.subs = append(c.subs, sel)
	var out [][]byte
	for _, it := range c.node.items {
		if sel.Match(protocol.ItemKey{SKU: it.SKU, Location: it.Location}) {
			out = append(out, protocol.AppendItem(nil, &it))
		}
	}
	c.say("%s", protocol.AppendStock(nil, true, out...))
	return fmt.Sprintf(`{"items":%d,"cursor":"eu:100"}`, len(out))
}

// change adds delta to a SKU and pushes it.
func (n *fakeNode) change(sku string, delta int64) protocol.Item {
	it := n.items[sku]
	v, _ := protocol.ParseVector(it.Version)
	it.SKU, it.Location = sku, "main"
	it.OnHand += delta
	it.Available = it.OnHand
	it.Version = v.With("eu", v.Get("eu")+1).String()
	n.items[sku] = it
	for c := range n.conns {
		for i := range c.subs {
			if c.subs[i].Match(protocol.ItemKey{SKU: sku, Location: "main"}) {
				c.say("%s", protocol.AppendStock(nil, false, protocol.AppendItem(nil, &it)))
				break
			}
		}
	}
	return it
}

func (n *fakeNode) set(sku string, delta int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.change(sku, delta)
}

// page serves the items of SKUs "0".."9" in twos.
func (n *fakeNode) page(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.handshake != nil && n.handshake(w) {
		return
	}
	var p protocol.Page
	after := r.URL.Query().Get("after")
	for i := range 10 {
		it, ok := n.items[fmt.Sprint(i)]
		if !ok || it.SKU <= after {
			continue
		}
		if len(p.Items) == 2 {
			p.Next = p.Items[1].SKU
			break
		}
		p.Items = append(p.Items, it)
	}
	w.Write(protocol.AppendPage(nil, &p))
}

func (n *fakeNode) seen() []protocol.Command {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]protocol.Command(nil), n.commands...)
}

func (n *fakeNode) seenOf(op protocol.Op) (cmds []protocol.Command) {
	for _, c := range n.seen() {
		if c.Op == op {
			cmds = append(cmds, c)
		}
	}
	return cmds
}

func (n *fakeNode) connections() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.accepted
}

func quick(endpoints ...string) Config {
	return Config{Endpoints: endpoints, CBOR: overCBOR, BackoffMin: time.Millisecond, BackoffMax: 20 * time.Millisecond, PauseMin: time.Millisecond}
}

func dial(t *testing.T, cfg Config) *Client {
	t.Helper()
	c, err := Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// within returns a context for something that must come about.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits for a condition that nothing announces.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	late := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("never: %s", what)
		}
	}
}

func wantCode(t *testing.T, err error, code protocol.Code) {
	t.Helper()
	if !errors.Is(err, &protocol.Error{Code: code}) {
		t.Fatalf("error is %v, want %s", err, code)
	}
}

func wantContains(t *testing.T, s, part string) {
	t.Helper()
	if !strings.Contains(s, part) {
		t.Fatalf("%q does not contain %q", s, part)
	}
}
