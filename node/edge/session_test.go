package edge_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/node/edge"
	"github.com/stockmesh/stockmesh/protocol"
)

func TestHello(t *testing.T) {
	f := start(t)
	sessions := make(map[any]bool)
	for range 3 {
		p := f.tcp()
		p.raw(handshake(f.addr, "Sec-WebSocket-Protocol: stockmesh.v1.json, stockmesh.v1.cbor", "Origin: http://"+f.addr))
		if got := p.upgraded().Header.Get("Sec-WebSocket-Protocol"); got != protocol.SubprotocolJSON {
			t.Fatalf("subprotocol %q", got)
		}
		got := decode(t, p.next().raw)
		sessions[got["session"]] = true
		delete(got, "session")
		want := map[string]any{
			"op": "hello", "node": "eu-1", "region": "eu", "protocol": 1.0, "heartbeat_ms": 25000.0,
			"endpoints": []any{"ws://eu-1/v1/ws"},
			"limits":    map[string]any{"message_bytes": 65536.0, "subscriptions": 10000.0, "in_flight": 256.0},
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
	}
	if len(sessions) != 3 {
		t.Fatalf("sessions are not told apart: %v", sessions)
	}
}

func decode(t *testing.T, s string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(s), &m); err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return m
}

// shape is a reply with every value replaced by the name of its type.
func shape(v any) string {
	switch v := v.(type) {
	case map[string]any:
		var fields []string
		for k, x := range v {
			if k != "updated_at" && k != "expires_at" && k != "id" {
				fields = append(fields, k+":"+shape(x))
			}
		}
		slices.Sort(fields)
		return "{" + strings.Join(fields, " ") + "}"
	case []any:
		if len(v) == 0 {
			return "[]"
		}
		return "[" + shape(v[0]) + "]"
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", v), "float64")
}

func TestEveryCommandsReply(t *testing.T) {
	eachForm(t, func(t *testing.T, form form) {
		const (
			item        = `{available: location:string on_hand: reserved: sku:string version:string}`
			reservation = `{reservation:{lines:[{location:string quantity: sku:string}] state:string user:string}}`
		)
		p := startReal(t).dialAs(form)
		id := ""
		for _, tc := range []struct{ command, want string }{
			{`{"op":"ping"}`, `{}`},
			{`{"op":"count","key":"k1","sku":"A","on_hand":50}`, `{item:` + item + `}`},
			{`{"op":"adjust","key":"k2","sku":"A","delta":-1}`, `{item:` + item + `}`},
			{`{"op":"configure","key":"k3","sku":"A","low_stock":100}`, `{item:{available: location:string low:bool on_hand: reserved: sku:string version:string}}`},
			{`{"op":"configure","key":"k4","sku":"A","low_stock":0}`, `{item:` + item + `}`},
			{`{"op":"reserve","key":"k5","lines":[{"sku":"A","quantity":2}],"user":"ann"}`, reservation},
			{`{"op":"extend","key":"k6","reservation":"$","ttl_ms":700000}`, reservation},
			{`{"op":"reservation","reservation":"$"}`, reservation},
			{`{"op":"confirm","key":"k7","reservation":"$"}`, reservation},
			{`{"op":"reserve","key":"k8","lines":[{"sku":"A","quantity":2}],"user":"ann"}`, reservation},
			{`{"op":"release","key":"k9","reservation":"$"}`, reservation},
			{`{"op":"sell","key":"k10","lines":[{"sku":"A","quantity":2}]}`, `{items:[` + item + `]}`},
			{`{"op":"move","key":"k11","sku":"A","from":"main","to":"shop","quantity":3}`, `{items:[` + item + `]}`},
			{`{"op":"get","skus":["A","nothing"]}`, `{items:[` + item + `]}`},
			{`{"op":"history","sku":"A","limit":1}`, `{movements:[{address:string at:string key:string location:string on_hand: on_hand_delta: region:string reserved: reserved_delta: sequence:string sku:string type:string}] next:string}`},
			{`{"op":"outcome","key":"k1"}`, `{known:bool reply:{ok:{item:` + item + `}}}`},
			{`{"op":"outcome","key":"never"}`, `{known:bool}`},
			{`{"op":"subscribe","skus":["A"]}`, `{cursor:string items:}`},
			{`{"op":"unsubscribe"}`, `{}`},
		} {
			m := p.ok(strings.ReplaceAll(tc.command, "$", id))
			if m.Replayed {
				t.Errorf("%s: replayed", tc.command)
			}
			ok := decode(t, string(m.OK))
			if got := shape(ok); got != tc.want {
				t.Errorf("%s:\ngot  %s\nwant %s", tc.command, got, tc.want)
			}
			if r, isMap := ok["reservation"].(map[string]any); isMap {
				id = r["id"].(string)
			}
		}
		p.refused(`{"op":"auth","token":"x"}`, protocol.CodeUnauthorized)
		if m := p.ok(`{"op":"count","key":"k1","sku":"A","on_hand":50}`); !m.Replayed {
			t.Errorf("not replayed: %s", m.raw)
		}
	})
}

func TestIDsComeBackAsTheyWere(t *testing.T) {
	p := start(t).dial()
	for _, id := range []string{
		`0`, `-1`, `7`, `1e3`, `1.50`, `123456789012345678901234567890`, `""`, `"x"`, `"\u00e9\n"`, `"é漢"`, `null`, `"` + strings.Repeat("i", 254) + `"`,
	} {
		p.send(`{"op":"ping","id":` + id + `}`)
		if m := p.reply(); m.raw != `{"id":`+id+`,"ok":{}}` {
			t.Errorf("id %s: got %s", id, m.raw)
		}
	}
	p.send(`{"op":"ping"}`)
	if m := p.next(); m.raw != `{"id":null,"ok":{}}` {
		t.Errorf("without id: got %s", m.raw)
	}
	p.send(`{"op":"no such","id":"mine"}`)
	if m := p.next(); string(m.ID) != `"mine"` || m.Error.Code != protocol.CodeBadRequest {
		t.Errorf("got %s", m.raw)
	}
}

// pings is an array of so many commands.
func pings(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`{"op":"ping","id":%d}`, i)
	}
	return "[" + strings.Join(list, ",") + "]"
}

func TestArrays(t *testing.T) {
	eachForm(t, func(t *testing.T, form form) {
		p := start(t).dialAs(form)
		for _, n := range []int{1, 2, protocol.CommandsMax} {
			p.send(pings(n))
			for i := range n {
				if m := p.next(); string(m.ID) != fmt.Sprint(i) {
					t.Fatalf("reply %d of %d: %s", i, n, m.raw)
				}
			}
		}
		p.send(pings(protocol.CommandsMax + 1))
		if m := p.next(); string(m.ID) != "null" || m.Error.Code != protocol.CodeTooLarge {
			t.Fatalf("got %s", m.raw)
		}
		if rest := p.settle(); len(rest) > 0 {
			t.Fatalf("something of the array was done: %v", rest)
		}
	})
}

func TestMessageOfExactlyTheLimit(t *testing.T) {
	f := start(t)
	p := f.dial()
	padded := func(n int) string {
		const ping = `{"op":"ping","id":1}`
		return ping + strings.Repeat(" ", n-len(ping))
	}
	p.send(padded(protocol.MessageBytesMax))
	if m := p.next(); m.raw != `{"id":1,"ok":{}}` {
		t.Fatalf("got %s", m.raw)
	}
	p.send(padded(protocol.MessageBytesMax + 1))
	p.wantClose(protocol.CloseTooLarge)
}

func TestCommandsOfOneConnectionKeepTheirOrder(t *testing.T) {
	p := startReal(t).dial()
	const n = 2000
	go func() {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "%s", frameBytes(fin|text, fmt.Sprintf(`{"op":"count","id":%d,"key":"k%d","sku":"A","on_hand":%d}`, i, i, i)))
			if b.Len() > 4096 {
				_, _ = p.conn.Write([]byte(b.String()))
				b.Reset()
			}
		}
		_, _ = p.conn.Write([]byte(b.String()))
	}()
	done := 0
	for seen := 0; seen < n; seen++ {
		m := p.reply()
		if m.Error != nil {
			if m.Error.Code != protocol.CodeOverloaded {
				t.Fatal(m.raw)
			}
			continue // more than 256 at once
		}
		var ok struct{ Item protocol.Item }
		if err := json.Unmarshal(m.OK, &ok); err != nil {
			t.Fatal(err)
		}
		done++
		if got := version(ok.Item.Version); got != uint64(done) {
			t.Fatalf("%s took effect as number %d, answered as %d", m.raw, got, done)
		}
	}
	if done == 0 {
		t.Fatal("nothing was done")
	}
}

// stuck is a ledger's hold that keeps calls until they are let go.
type stuck struct {
	mu    sync.Mutex
	calls []*protocol.Call
}

func (s *stuck) hold(c *protocol.Call) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, c)
	return true
}

func (s *stuck) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.calls)
}

func (s *stuck) release(l *ledger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.calls {
		l.run(c)
	}
	s.calls = nil
}

func TestInFlightLimit(t *testing.T) {
	eachForm(t, func(t *testing.T, form form) {
		var held stuck
		f := start(t)
		f.ledger.setHold(held.hold)
		p, other := f.dialAs(form), f.dialAs(form)
		gets := make([]string, protocol.InFlightMax)
		for i := range gets {
			gets[i] = fmt.Sprintf(`{"op":"get","id":"g%d","skus":["A"]}`, i)
		}
		p.send("[" + strings.Join(gets, ",") + "]")
		eventually(t, "all in the ledger", func() bool { return held.count() == protocol.InFlightMax })
		err := p.refused(`{"op":"get","skus":["A"]}`, protocol.CodeOverloaded)
		if !err.Retryable || err.RetryAfterMS <= 0 {
			t.Errorf("got %+v", err)
		}
		p.ok(`{"op":"ping"}`) // needs no ledger
		other.send(`{"op":"get","id":1,"skus":["A"]}`)
		eventually(t, "the other's command in the ledger", func() bool { return held.count() == protocol.InFlightMax+1 })
		held.release(f.ledger)
		other.reply()
		for range protocol.InFlightMax {
			if m := p.reply(); m.Error != nil {
				t.Fatal(m.raw)
			}
		}
		f.ledger.setHold(nil)
		p.ok(`{"op":"get","skus":["A"]}`)
	})
}

// An answer that comes after its connection has gone must not reach the next one
// in its place.
func TestAnswersDoNotReachStrangers(t *testing.T) {
	var held stuck
	f := start(t, func(c *edge.Config) { c.Loops = 1 })
	f.ledger.setHold(held.hold)
	gone := f.dial()
	gone.send(`[{"op":"get","id":"secret","skus":["A"]},{"op":"reserve","id":"r","key":"k","lines":[{"sku":"A","quantity":1}]}]`)
	eventually(t, "in the ledger", func() bool { return held.count() == 2 })
	gone.conn.Close()
	eventually(t, "gone", func() bool { return f.edge.Connections() == 0 })
	next := f.dial()
	held.release(f.ledger)
	if pushes := next.settle(); len(pushes) > 0 {
		t.Fatalf("got %v", pushes)
	}
}
