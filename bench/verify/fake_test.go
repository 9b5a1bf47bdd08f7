package verify

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stockmesh/stockmesh/protocol"
)

// fake is a node that shows and tells what it is given.
type fake struct {
	node, region string
	items        []protocol.Item
	announced    int               // items of its snapshot; 0: as many as there are
	pushes       [][]protocol.Item // after the snapshot, one after the other
	every        time.Duration     // between pushes; 0: they come before the snapshot's end
	movements    map[string][]protocol.Movement
	mesh         protocol.Mesh
	meshStatus   int
	cutFor       atomic.Int32 // so often us is said to be cut off
	noHistory    *protocol.Error
	leaves       bool   // after its snapshot
	token        string // that clients have to send

	mu       sync.Mutex // guards writes
	requests []request  // what was asked, for the test
}

// start serves the fake and returns its endpoint.
func (f *fake) start(t *testing.T) string {
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/ws", func(w http.ResponseWriter, r *http.Request) {
		if f.token != "" && r.Header.Get("Authorization") != "Bearer "+f.token {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{protocol.SubprotocolCBOR}})
		if err != nil {
			return // the client has gone
		}
		defer c.CloseNow()
		_ = f.serve(t.Context(), c) // ends with the client
	})
	mux.HandleFunc("/v1/mesh", func(w http.ResponseWriter, _ *http.Request) {
		if f.meshStatus != 0 {
			w.WriteHeader(f.meshStatus)
			return
		}
		m := f.mesh
		if f.cutFor.Add(-1) >= 0 {
			m.Regions = []protocol.MeshRegion{m.Regions[0], {Name: "us", State: "cut_off"}}
		}
		_, _ = w.Write(protocol.AppendJSON(nil, m))
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	host := strings.TrimPrefix(s.URL, "http://")
	if f.token != "" {
		host = ":" + f.token + "@" + host
	}
	return "ws://" + host + "/v1/ws"
}

func (f *fake) serve(ctx context.Context, c *websocket.Conn) error {
	if err := f.say(ctx, c, protocol.Hello{Op: "hello", Node: f.node, Region: f.region, Protocol: 1}); err != nil {
		return err
	}
	for {
		_, b, err := c.Read(ctx)
		if err != nil {
			return err
		}
		var r request
		if err := protocol.CBOR.Unmarshal(b, &r); err != nil {
			return err
		}
		f.mu.Lock()
		f.requests = append(f.requests, r)
		f.mu.Unlock()
		switch r.Op {
		case protocol.OpSubscribe:
			if err := f.fill(ctx, c, r); err != nil {
				return err
			}
			if f.leaves {
				if err := f.say(ctx, c, protocol.Goaway{Op: "goaway", Reason: "drain"}); err != nil {
					return err
				}
			}
			if f.every > 0 {
				go func() { _ = f.push(ctx, c) }() // ends with the client
			}
		case protocol.OpHistory:
			if err := f.say(ctx, c, f.history(r)); err != nil {
				return err
			}
		}
	}
}

func (f *fake) say(ctx context.Context, c *websocket.Conn, v any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return c.Write(ctx, websocket.MessageBinary, protocol.CBOR.AppendMessage(nil, v))
}

type fakePush struct {
	Op       string          `json:"op"`
	Snapshot bool            `json:"snapshot,omitzero"`
	Items    []protocol.Item `json:"items"`
}

type fakeReply struct {
	ID    int64           `json:"id"`
	OK    any             `json:"ok,omitzero"`
	Error *protocol.Error `json:"error,omitzero"`
}

// fill sends a snapshot in pages of two.
func (f *fake) fill(ctx context.Context, c *websocket.Conn, r request) error {
	items := slices.DeleteFunc(slices.Clone(f.items), func(it protocol.Item) bool {
		return !r.All && !slices.ContainsFunc(r.Prefixes, func(p string) bool { return strings.HasPrefix(it.SKU, p) })
	})
	for page := range slices.Chunk(items, 2) {
		if err := f.say(ctx, c, fakePush{"stock", true, page}); err != nil {
			return err
		}
	}
	if f.every == 0 {
		if err := f.push(ctx, c); err != nil {
			return err
		}
	}
	n := len(items)
	if f.announced > 0 {
		n = f.announced
	}
	return f.say(ctx, c, fakeReply{ID: r.ID, OK: map[string]any{"items": n, "cursor": ""}})
}

func (f *fake) push(ctx context.Context, c *websocket.Conn) error {
	for _, items := range f.pushes {
		if err := pause(ctx, f.every); err != nil {
			return err
		}
		if err := f.say(ctx, c, fakePush{"stock", false, items}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) history(r request) fakeReply {
	if f.noHistory != nil {
		return fakeReply{ID: r.ID, Error: f.noHistory}
	}
	all := f.movements[r.Region+"/"+r.SKU]
	if r.Before != "" {
		at := slices.IndexFunc(all, func(m protocol.Movement) bool { return m.Sequence == r.Before })
		all = all[at+1:]
	}
	page := all[:min(r.Limit, len(all))]
	next := ""
	if len(page) < len(all) {
		next = page[len(page)-1].Sequence
	}
	return fakeReply{ID: r.ID, OK: map[string]any{"movements": page, "next": next}}
}

// chain is a region's history of a SKU, newest first; changes are of on hand and reserved,
// oldest first.
func chain(region, sku string, changes ...protocol.Movement) (list []protocol.Movement) {
	var onHand, reserved int64
	for i, m := range changes {
		onHand, reserved = onHand+m.OnHandDelta, reserved+m.ReservedDelta
		m.Sequence, m.Region = fmt.Sprintf("%s.0.%d.7", region, 10+i), region
		m.SKU, m.Location, m.At = sku, protocol.DefaultLocation, noon+protocol.Time(i)
		m.OnHand, m.Reserved = onHand, reserved
		list = append(list, m)
	}
	slices.Reverse(list)
	return list
}

const noon = protocol.Time(1767355200000)

func shop(sku string, onHand, reserved int64, version string) protocol.Item {
	return protocol.Item{SKU: sku, Location: protocol.DefaultLocation, OnHand: onHand, Reserved: reserved, Available: max(0, onHand-reserved), Version: version, UpdatedAt: noon}
}

// healthy is a mesh of two regions of one node, at rest.
func healthy() []*fake {
	mesh := protocol.Mesh{Regions: []protocol.MeshRegion{{Name: "eu", State: "serving"}, {Name: "us", State: "serving", LagMS: 40}}}
	movements := map[string][]protocol.Movement{
		"eu/tee": chain("eu", "tee", protocol.Movement{Type: "count", OnHandDelta: 10, Key: "k1"}, protocol.Movement{Type: "sell", OnHandDelta: -1, Key: "k2"}),
		"us/tee": chain("us", "tee", protocol.Movement{Type: "count", OnHandDelta: 5, Key: "k1"}),
		"eu/mug": chain("eu", "mug", protocol.Movement{Type: "adjust", OnHandDelta: 5, Key: "m1"},
			protocol.Movement{Type: "reserve", ReservedDelta: 2, Key: "m2", Reservation: "eu.r1"}, protocol.Movement{Type: "reserve", ReservedDelta: 1, Key: "m3", Reservation: "eu.r2"},
			protocol.Movement{Type: "confirm", OnHandDelta: -2, ReservedDelta: -2, Key: "m4", Reservation: "eu.r1"}, protocol.Movement{Type: "grant"}),
		"us/cap": chain("us", "cap", protocol.Movement{Type: "count", OnHandDelta: 3, Key: "c1"}),
	}
	items := []protocol.Item{shop("cap", 3, 0, "us:1"), shop("mug", 3, 1, "eu:5"), shop("tee", 14, 0, "eu:2,us:1")}
	var nodes []*fake
	for _, region := range []string{"eu", "us"} {
		own := make(map[string][]protocol.Movement)
		for k, list := range movements {
			own[k] = slices.Clone(list)
		}
		m := mesh
		m.Region, m.Regions = region, slices.Clone(mesh.Regions)
		nodes = append(nodes, &fake{node: region + "-1", region: region, items: slices.Clone(items), movements: own, mesh: m})
	}
	return nodes
}

// checked runs Check on fakes; change may alter the config.
func checked(t *testing.T, nodes []*fake, change func(*Config)) (Result, error) {
	t.Helper()
	c := Config{Settle: 300 * time.Millisecond}
	for _, f := range nodes {
		c.Endpoints = append(c.Endpoints, f.start(t))
	}
	if change != nil {
		change(&c)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return Check(ctx, c)
}
