package replay

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/stockmesh/stockmesh/protocol"
)

// shop is just enough of a node to be read: its items have no history.
type shop struct {
	name    string
	items   []protocol.Item
	refuses bool // connections
}

func (s *shop) start(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return strings.Replace(server.URL, "http", "ws", 1)
}

func (s *shop) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path == "/v1/stock" {
		_, _ = w.Write(protocol.AppendPage(nil, &protocol.Page{Items: s.items})) // the client may be gone
		return
	}
	if s.refuses {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	ws, err := websocket.Accept(w, req, &websocket.AcceptOptions{Subprotocols: []string{protocol.SubprotocolJSON}})
	if err != nil {
		return
	}
	defer ws.CloseNow()
	_ = s.serve(req.Context(), ws) // ends with the connection
}

func (s *shop) serve(ctx context.Context, ws *websocket.Conn) error {
	message := protocol.AppendJSON(nil, protocol.Hello{
		Op: "hello", Session: "s", Node: s.name, Region: "eu", Protocol: 1, HeartbeatMS: 25000,
		Limits: protocol.Limits{MessageBytes: 65536, Subscriptions: 100, InFlight: 256},
	})
	for {
		if err := ws.Write(ctx, websocket.MessageText, message); err != nil {
			return err
		}
		_, asked, err := ws.Read(ctx)
		if err != nil {
			return err
		}
		var c protocol.Command
		if err := protocol.JSON.Decode(&c, asked); err != nil {
			return err
		}
		message = fmt.Appendf(nil, `{"id":%s,"ok":%s}`, c.ID, protocol.AppendOK(nil, s.answer(c)))
	}
}

func (s *shop) answer(c protocol.Command) *protocol.Result {
	if c.Op == protocol.OpHistory {
		return &protocol.Result{Kind: protocol.KindMovements}
	}
	r := &protocol.Result{Kind: protocol.KindItems}
	for _, it := range s.items {
		if it.SKU == c.SKUs[0] {
			r.Items = append(r.Items, it)
		}
	}
	return r
}

// startShops returns a replay of opening stock only, over places that all show one SKU
// wrongly. The last may refuse connections.
func startShops(t *testing.T, lastRefuses bool) *replay {
	t.Helper()
	items := []protocol.Item{
		{SKU: "A", Location: "main", OnHand: 10, Available: 10, Version: "eu:1"},
		{SKU: "B", Location: "main", OnHand: 9, Available: 9, Version: "eu:1"},
	}
	p, err := ReadPlan(strings.NewReader("invoiced_at,invoice,sku,quantity\n2011-11-21 08:00:00,1,A,10\n2011-11-21 08:00:00,1,B,10\n"), Shape{Share: 1})
	if err != nil {
		t.Fatal(err)
	}
	r := &replay{Config: Config{Clients: 1, Settle: 50 * time.Millisecond, Progress: silent{}}, plan: p, book: newBook("replay:x:")}
	for i := range 2 {
		s := &shop{name: fmt.Sprint("node-", i+1), items: items, refuses: lastRefuses && i == 1}
		r.Endpoints = append(r.Endpoints, []string{s.start(t)})
	}
	t.Cleanup(r.close)
	if err := r.connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, sku := range p.skus {
		r.book.opened(sku, 10)
	}
	return r
}

// TestCheckOutlastsADifference: what never settles uses up the time of all SKUs, and still
// each node has its turn.
func TestCheckOutlastsADifference(t *testing.T) {
	diffs, err := startShops(t, false).check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(diffs) != 3 {
		t.Errorf("%q", diffs)
	}
	for i, from := range []string{"", "node-1: ", "node-2: "} {
		if want := from + "B: on_hand is 9, want opening 10"; i >= len(diffs) || !strings.HasPrefix(diffs[i], want) {
			t.Errorf("%q lacks %q", diffs, want)
		}
	}
}

// TestWhatWasFoundIsKeptWithAnError breaks a check off at its last node.
func TestWhatWasFoundIsKeptWithAnError(t *testing.T) {
	diffs, err := startShops(t, true).check(t.Context())
	if err == nil {
		t.Error("a node that refuses has been checked")
	}
	if found := strings.Join(diffs, "\n"); !strings.HasPrefix(found, "B: on_hand is 9") || !strings.Contains(found, "node-1: B") {
		t.Errorf("%q with the error %v", diffs, err)
	}
}
