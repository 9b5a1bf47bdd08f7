package edge_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/node/edge"
	"github.com/stockmesh/stockmesh/protocol"
)

func TestTokenAtTheHandshake(t *testing.T) {
	f := startGuarded(t)
	for name, tc := range map[string]struct {
		lines  []string
		path   string
		status int // 0: it succeeds
		code   protocol.Code
	}{
		"good":              {lines: []string{"Authorization: Bearer all"}},
		"lower case":        {lines: []string{"authorization: bearer all"}},
		"spaces":            {lines: []string{"Authorization:   BEARER   all  "}},
		"nothing granted":   {lines: []string{"Authorization: Bearer nothing"}},
		"none":              {},
		"bad":               {lines: []string{"Authorization: Bearer bad"}, status: 401, code: protocol.CodeUnauthorized},
		"empty":             {lines: []string{"Authorization: Bearer"}, status: 401, code: protocol.CodeUnauthorized},
		"another scheme":    {lines: []string{"Authorization: Basic all"}, status: 401, code: protocol.CodeUnauthorized},
		"no scheme":         {lines: []string{"Authorization: all"}, status: 401, code: protocol.CodeUnauthorized},
		"two":               {lines: []string{"Authorization: Bearer all", "Authorization: Bearer all"}, status: 400, code: protocol.CodeBadRequest},
		"in the URL":        {path: "?token=all", status: 400, code: protocol.CodeBadRequest},
		"beside a good one": {lines: []string{"Authorization: Bearer all"}, path: "?x=1&Access_Token=secret", status: 400, code: protocol.CodeBadRequest},
		"escaped":           {path: "?%6Awt=secret", status: 400, code: protocol.CodeBadRequest},
		"no value":          {path: "?a;authorization", status: 400, code: protocol.CodeBadRequest},
		"another parameter": {path: "?tokens=1&x=token"},
		"another site's":    {lines: []string{"Origin: http://evil.example", "Authorization: Bearer all"}, status: 403, code: protocol.CodeForbidden},
		"and a bad one":     {lines: []string{"Origin: http://evil.example", "Authorization: Bearer bad"}, path: "?token=x", status: 403, code: protocol.CodeForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			p := f.tcp()
			p.TB = t
			p.raw(strings.Replace(handshake(f.addr, tc.lines...), "/v1/ws", "/v1/ws"+tc.path, 1))
			if tc.status == 0 {
				p.upgraded()
				p.next()
				p.ok(`{"op":"ping"}`)
				return
			}
			p.wantStatus(tc.status, tc.code)
		})
	}
}

func TestRefusedTokenIsNotTold(t *testing.T) {
	f := startGuarded(t)
	for _, request := range []string{
		handshake(f.addr, "Authorization: Bearer secret"),
		strings.Replace(handshake(f.addr), "/v1/ws", "/v1/ws?token=secret", 1),
	} {
		p := f.tcp()
		p.raw(request)
		res := p.response()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		if text := fmt.Sprint(res.Header) + string(body); strings.Contains(text, "secret") {
			t.Errorf("got %s", text)
		}
		if challenge := res.Header.Get("WWW-Authenticate"); (challenge == "Bearer") != (res.StatusCode == 401) {
			t.Errorf("%d with %q", res.StatusCode, challenge)
		}
	}
}

// A node without keys takes no notice of the header, as some proxies add one.
func TestWithoutGuardEverybodyIsServed(t *testing.T) {
	f := start(t, func(c *edge.Config) { c.AuthTimeout = time.Millisecond })
	for _, line := range []string{"Authorization: Bearer x", "Authorization: Basic x"} {
		p := f.tcp()
		p.raw(handshake(f.addr, line))
		p.upgraded()
		p.next()
		p.ok(`{"op":"adjust","key":"k","sku":"A","delta":1}`)
		p.refused(`{"op":"auth","token":"x"}`, protocol.CodeUnauthorized)
		p.ok(`{"op":"ping"}`)
	}
	f.edge.Recheck()
	f.dial().ok(`{"op":"ping"}`)
}

// What a client sends behind a handshake whose token is being checked isn't lost.
func TestHandshakeWaitsForItsToken(t *testing.T) {
	f := startGuarded(t)
	release := f.guard.holds(t)
	p := f.tcp()
	p.raw(handshake(f.addr, "Authorization: Bearer tees") + frameBytes(fin|text, `{"op":"ping","id":1}`))
	eventually(t, "checked", func() bool { return f.guard.held() == 1 })
	whole := frameBytes(fin|text, `{"op":"ping","id":2}`)
	p.raw(whole[:5])
	p.raw(whole[5:])
	release()
	p.upgraded()
	if m := p.next(); m.Op != "hello" {
		t.Fatal(m.raw)
	}
	for id := 1; id <= 2; id++ {
		if m := p.reply(); string(m.ID) != fmt.Sprint(id) || m.Error != nil {
			t.Fatal(m.raw)
		}
	}
}

func TestHandshakeWithoutKeys(t *testing.T) {
	f := startGuarded(t, func(c *edge.Config) { c.HandshakeTimeout = 100 * time.Millisecond })
	f.guard.holds(t)
	p := f.tcp()
	p.raw(handshake(f.addr, "Authorization: Bearer all"))
	p.wantStatus(503, protocol.CodeUnavailable)
}

// A client that goes away while its token is checked leaves nothing behind.
func TestGoneWhileItsTokenIsChecked(t *testing.T) {
	plainOnly(t)
	f := startGuarded(t, func(c *edge.Config) { c.HandshakeTimeout = time.Hour })
	f.guard.holds(t)
	a := f.tcp()
	a.raw(handshake(f.addr, "Authorization: Bearer all"))
	b := f.dial()
	b.send(`{"op":"auth","token":"all"}`)
	eventually(t, "both checked", func() bool { return f.guard.held() == 2 })
	for _, p := range []*peer{a, b} {
		if err := p.tcpConn().SetLinger(0); err != nil { // so that it is told at once
			t.Fatal(err)
		}
		p.conn.Close()
	}
	eventually(t, "gone, and no check left", func() bool { return f.edge.Connections() == 0 && f.guard.held() == 0 })
}

func TestAuth(t *testing.T) {
	eachForm(t, func(t *testing.T, form form) {
		f := startGuarded(t)
		f.guard.expires("all", time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC))
		p := f.dialAs(form)
		p.ok(`{"op":"ping"}`)
		p.refused(`{"op":"get","skus":["A"]}`, protocol.CodeUnauthorized)
		p.refused(`{"op":"sell"}`, protocol.CodeUnauthorized)
		p.refused(`{"op":"auth"}`, protocol.CodeBadRequest)
		p.refused(`{"op":"auth","token":"bad"}`, protocol.CodeUnauthorized)
		p.refused(`{"op":"adjust","key":"k","sku":"A","delta":1}`, protocol.CodeUnauthorized)
		m := p.ok(`{"op":"auth","token":"all"}`)
		var ok map[string]string
		if err := json.Unmarshal(m.OK, &ok); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(map[string]string{"subject": "boss", "expires_at": "2031-02-03T04:05:06.000Z"}, ok); d != "" {
			t.Error(d)
		}
		p.ok(`{"op":"adjust","key":"k","sku":"A","delta":1}`)
		// A bad one leaves the one before, a good one takes its place.
		p.refused(`{"op":"auth","token":"bad"}`, protocol.CodeUnauthorized)
		p.ok(`{"op":"adjust","key":"k","sku":"A","delta":1}`)
		p.authAs("tees")
		p.refused(`{"op":"adjust","key":"k","sku":"A","delta":1}`, protocol.CodeForbidden)
		p.ok(`{"op":"adjust","key":"k","sku":"tee-1","location":"shop","delta":1}`)
	})
}

// A client need not wait for the answer to auth before it goes on, in one message or
// in several.
func TestCommandsBehindAuthWaitForIt(t *testing.T) {
	eachForm(t, func(t *testing.T, form form) {
		f := startGuarded(t)
		release := f.guard.holds(t)
		p := f.dialAs(form)
		p.send(`{"op":"ping","id":1}`)
		p.send(`[{"op":"auth","id":2,"token":"bad"},{"op":"get","id":3,"skus":["A"]},{"op":"auth","id":4,"token":"all"},{"op":"subscribe","id":5,"skus":["A"]}]`)
		p.send(`{"op":"adjust","id":6,"key":"k","sku":"A","delta":5}`)
		if m := p.reply(); string(m.ID) != "1" {
			t.Fatal(m.raw)
		}
		eventually(t, "checked", func() bool { return f.guard.held() == 1 })
		whole, second := p.form.encode(t, `{"op":"get","id":7,"skus":["A"]}`)
		last := frameBytes(whole, second)
		p.raw(last[:len(last)-2])
		release()
		p.raw(last[len(last)-2:])
		want := map[string]protocol.Code{"2": protocol.CodeUnauthorized, "3": protocol.CodeUnauthorized, "4": "", "5": "", "6": "", "7": ""}
		got := map[string]protocol.Code{}
		order := []string{}
		for range want {
			m := p.reply()
			got[string(m.ID)] = ""
			if m.Error != nil {
				got[string(m.ID)] = m.Error.Code
			}
			order = append(order, string(m.ID))
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff([]string{"2", "3", "4"}, order[:3]); d != "" { // what follows may overtake each other
			t.Error(d)
		}
		if n := f.ledger.all()["A@main"].OnHand; n != 5 {
			t.Errorf("%d on hand", n)
		}
	})
}

func TestNoTokenInTime(t *testing.T) {
	f := startGuarded(t, func(c *edge.Config) { c.AuthTimeout = 100 * time.Millisecond })
	known := f.as("tees")
	silent, wrong, waiting := f.dial(), f.dial(), f.dial()
	wrong.refused(`{"op":"auth","token":"bad"}`, protocol.CodeUnauthorized)
	f.guard.holds(t)
	waiting.send(`{"op":"auth","token":"all"}`)
	for _, p := range []*peer{silent, wrong, waiting} {
		p.wantClose(protocol.CloseUnauthorized)
	}
	known.ok(`{"op":"ping"}`)
}

// A caller that may not stay is gone within two rounds of the sweep, or at once where
// the edge is told to look.
func TestCallerThatMayNotStay(t *testing.T) {
	f := startGuarded(t)
	boss, clerk, second := f.as("all"), f.as("tees"), f.dial()
	second.authAs("tees")
	clerk.subscribe(`"all":true`)
	f.guard.revoke("clerk")
	f.edge.Recheck()
	clerk.wantClose(protocol.CloseUnauthorized)
	second.wantClose(protocol.CloseUnauthorized)
	boss.ok(`{"op":"ping"}`)
	f.guard.revoke("boss")
	boss.wantClose(protocol.CloseUnauthorized)
	p := f.tcp()
	p.raw(handshake(f.addr, "Authorization: Bearer all"))
	p.wantStatus(401, protocol.CodeUnauthorized)
}

// A handshake whose token is found good only when the node drains is turned away, so
// that the drain ends.
func TestDrainWhileATokenIsChecked(t *testing.T) {
	f := startGuarded(t)
	release := f.guard.holds(t)
	p := f.tcp()
	p.raw(handshake(f.addr, "Authorization: Bearer all"))
	eventually(t, "checked", func() bool { return f.guard.held() == 1 })
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		f.edge.Drain(t.Context(), 0, nil)
	}()
	eventually(t, "draining", func() bool {
		c, err := net.Dial("tcp", f.addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	release()
	p.wantStatus(503, protocol.CodeOverloaded)
	<-drained
}

// matrix has for each command one that the token "tees" allows, and those that it
// doesn't. Its other columns are the same for all.
var matrix = map[protocol.Op]struct {
	right string
	wrong []string
}{
	protocol.OpPing:        {right: `{"op":"ping"}`},
	protocol.OpAuth:        {right: `{"op":"auth","token":"tees"}`},
	protocol.OpUnsubscribe: {right: `{"op":"unsubscribe","all":true}`},
	protocol.OpSubscribe: {`{"op":"subscribe","all":true}`, []string{
		`{"op":"subscribe","skus":["mug"]}`, `{"op":"subscribe","locations":["main"]}`, `{"op":"subscribe","skus":["tee-1"],"locations":["main"]}`,
		`{"op":"subscribe","prefixes":["t"],"locations":["shop","main"]}`}},
	protocol.OpGet: {`{"op":"get","skus":["tee-1"]}`, []string{`{"op":"get","skus":["mug"]}`, `{"op":"get","skus":["tee-1"],"locations":["main"]}`}},
	protocol.OpAdjust: {`{"op":"adjust","key":"k","sku":"tee-1","location":"shop","delta":1}`, []string{
		`{"op":"adjust","key":"k","sku":"tee-1","delta":1}`, `{"op":"adjust","key":"k","sku":"mug","location":"shop","delta":1}`,
		`{"op":"adjust","key":"k","home":"us","sku":"mug","location":"shop","delta":1}`}},
	protocol.OpCount:     {`{"op":"count","key":"k","sku":"tee-1","location":"shop","on_hand":1}`, []string{`{"op":"count","key":"k","sku":"tee-1","on_hand":1}`}},
	protocol.OpConfigure: {`{"op":"configure","key":"k","sku":"tee-1","location":"shop","low_stock":1}`, []string{`{"op":"configure","key":"k","sku":"mug","low_stock":1}`}},
	protocol.OpSell: {`{"op":"sell","key":"k","lines":[{"sku":"tee-1","location":"shop","quantity":1}]}`, []string{
		`{"op":"sell","key":"k","lines":[{"sku":"tee-1","location":"shop","quantity":1},{"sku":"mug","location":"shop","quantity":1}]}`}},
	protocol.OpReserve: {`{"op":"reserve","key":"k","lines":[{"sku":"tee-1","location":"shop","quantity":1}]}`, []string{
		`{"op":"reserve","key":"k","lines":[{"sku":"tee-1","quantity":1}]}`}},
	protocol.OpMove: {right: `{"op":"move","key":"k","sku":"tee-1","from":"shop","to":"shop2","quantity":1}`, wrong: []string{
		`{"op":"move","key":"k","sku":"tee-1","from":"shop","to":"main","quantity":1}`}},
	protocol.OpHistory:     {`{"op":"history","sku":"tee-1","location":"shop"}`, []string{`{"op":"history","sku":"mug","location":"shop"}`}},
	protocol.OpConfirm:     {right: `{"op":"confirm","key":"k","reservation":"eu.1"}`},
	protocol.OpRelease:     {right: `{"op":"release","key":"k","reservation":"eu.1"}`},
	protocol.OpExtend:      {right: `{"op":"extend","key":"k","reservation":"eu.1","ttl_ms":5000}`},
	protocol.OpReservation: {right: `{"op":"reservation","reservation":"eu.1"}`},
	protocol.OpOutcome:     {right: `{"op":"outcome","key":"k"}`},
}

// Every command from those who are not known, who are granted nothing, who are granted
// something else, and who may.
func TestWhoMayDoWhat(t *testing.T) {
	for _, op := range protocol.Ops() {
		row, ok := matrix[op]
		if !ok {
			t.Errorf("%s has no row", op)
			continue
		}
		t.Run(string(op), func(t *testing.T) {
			f := startGuarded(t)
			f.guard.knows(t, "tees", "clerk", strings.Replace(onlyTees, `["shop"]`, `["shop","shop2"]`, 1))
			free := op.Right() == ""
			var reached atomic.Bool // the ledger
			f.ledger.setHold(func(*protocol.Call) bool { reached.Store(true); return false })
			outcome := func(p *peer, command string) protocol.Code {
				if m := p.do(command); m.Error != nil {
					return m.Error.Code
				}
				return ""
			}
			denied := func(who string, p *peer, command string, want protocol.Code) {
				t.Helper()
				reached.Store(false)
				if got := outcome(p, command); got != want || reached.Load() {
					t.Errorf("%s, %s: %q, want %q; reached the ledger: %v", who, command, got, want, reached.Load())
				}
			}
			if !free {
				denied("not known", f.dial(), row.right, protocol.CodeUnauthorized)
				denied("nothing granted", f.as("nothing"), row.right, protocol.CodeForbidden)
			}
			for _, command := range row.wrong {
				denied("something else granted", f.as("tees"), command, protocol.CodeForbidden)
				denied("not known", f.dial(), command, protocol.CodeUnauthorized)
			}
			for _, p := range []*peer{f.as("tees"), f.as("all")} {
				// The fake ledger doesn't know them all.
				if got := outcome(p, row.right); got != "" && got != protocol.CodeNotFound {
					t.Errorf("%s: %q", row.right, got)
				}
			}
			refusals := len(row.wrong) * 2
			if !free {
				refusals += 2
			}
			if n := f.metric("stockmesh_edge_refused_total"); n != float64(refusals) {
				t.Errorf("%v refusals counted, want %d", n, refusals)
			}
		})
	}
}

// A client that hasn't said who it is gets no room for large messages, one that has
// does, also in the message after its auth.
func TestLargeMessagesOfStrangers(t *testing.T) {
	f := startGuarded(t)
	large := `{"op":"ping","more":"` + strings.Repeat("x", 5<<10) + `"}`
	stranger := f.dial()
	stranger.send(large)
	stranger.wantClose(protocol.CloseTooLarge)
	p := f.dial()
	p.send(`{"op":"auth","token":"all"}`)
	p.send(large)
	for range 2 {
		if m := p.reply(); m.Error != nil {
			t.Error(m.Error)
		}
	}
}
