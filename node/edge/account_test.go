package edge_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/stockmesh/stockmesh/node/edge"
	"github.com/stockmesh/stockmesh/protocol"
)

func TestConnectionsOfASubject(t *testing.T) {
	f := startGuarded(t)
	f.quota.limit(usage{connections: 2})
	a, b := f.as("tees"), f.dial()
	b.authAs("tees")
	for range 3 {
		p := f.tcp()
		p.raw(handshake(f.addr, "Authorization: Bearer tees"))
		p.wantStatus(429, protocol.CodeRateLimited)
		p = f.dial()
		p.refused(`{"op":"auth","token":"tees"}`, protocol.CodeRateLimited)
		p.wantClose(protocol.CloseTooManyConnections)
	}
	f.as("all").ok(`{"op":"ping"}`) // another subject
	b.authAs("tees")                // a renewal takes no second one
	if u := f.quota.of("clerk"); u.accounts != 2 || u.connections != 2 {
		t.Errorf("it uses %+v", u)
	}
	a.conn.Close()
	eventually(t, "room again", func() bool { return f.quota.of("clerk").connections == 1 })
	f.as("tees").ok(`{"op":"ping"}`)
}

func TestSelectorsOfASubject(t *testing.T) {
	f := startGuarded(t)
	f.quota.limit(usage{selectors: 10})
	uses := func(want int) {
		t.Helper()
		if got := f.quota.of("boss").selectors; got != want {
			t.Errorf("%d selectors are taken, want %d", got, want)
		}
	}
	a, b := f.as("all"), f.as("all")
	a.subscribe(`"skus":["A","B","A"],"prefixes":["x"],"users":["ann"]`)
	uses(4)
	a.subscribe(`"skus":["A","C"]`)
	uses(5)
	b.subscribe(`"locations":["l1","l2","l3"]`)
	uses(8)
	a.refused(`{"op":"subscribe","skus":["D","E","F"]}`, protocol.CodeRateLimited)
	uses(8)
	a.ok(`{"op":"unsubscribe","skus":["A","never"]}`)
	uses(7)
	b.ok(`{"op":"unsubscribe","locations":["l3","l2","l1"]}`)
	uses(4)
	a.ok(`{"op":"unsubscribe"}`)
	uses(0)
	b.subscribe(`"all":true`)
	b.authAs("tees") // takes it along
	uses(0)
	if u := f.quota.of("clerk"); u.selectors != 1 || u.connections != 1 {
		t.Errorf("it uses %+v", u)
	}
}

// A renewal by another subject that has no room for what the connection holds ends it.
func TestAnotherSubjectWithoutRoom(t *testing.T) {
	f := startGuarded(t)
	f.quota.limit(usage{selectors: 3})
	first := f.as("tees")
	first.subscribe(`"prefixes":["tee-1","tee-2"]`)
	p := f.as("all")
	p.subscribe(`"skus":["A","B"]`)
	p.refused(`{"op":"auth","token":"tees"}`, protocol.CodeRateLimited)
	p.wantClose(protocol.CloseTooManyConnections)
	if u := f.quota.of("clerk"); u.selectors != 2 || u.connections != 1 || u.accounts != 1 {
		t.Errorf("it uses %+v", u)
	}
}

func TestCommandsOfASubject(t *testing.T) {
	f := startGuarded(t, func(c *edge.Config) { c.CommandsPerIP, c.CommandsPerConnection, c.CommandsBurst = 1, 1, 100 })
	f.quota.limit(usage{commands: 50})
	a, b := f.as("all"), f.as("all")
	ok, refused, limited := a.several(60, `{"op":"ping","id":1}`)
	if ok != 50 || refused != 10 || limited.RetryAfterMS != 70 || !limited.Retryable {
		t.Errorf("%d ok, %d refused, %+v", ok, refused, limited)
	}
	if ok, _, _ := b.several(10, `{"op":"ping","id":1}`); ok != 0 {
		t.Errorf("another connection of the subject: %d ok", ok)
	}
	// What was refused for the subject's sake is not taken from the other budgets.
	if ok, _, _ := f.as("tees").several(50, `{"op":"ping","id":1}`); ok != 50 {
		t.Errorf("another subject of the address: %d ok", ok)
	}
}

// However a connection ends, what it took is given back once. That accounts are not used
// after that, the fake sees.
func TestAllIsGivenBack(t *testing.T) {
	plainOnly(t)
	ends := map[string]func(f *guarded, p *peer){
		"the client goes":   func(_ *guarded, p *peer) { p.conn.Close() },
		"is cut off":        func(_ *guarded, p *peer) { _ = p.tcpConn().SetLinger(0); p.conn.Close() },
		"closes in order":   func(_ *guarded, p *peer) { p.frame(fin|closeFrame, "\x03\xe8"); p.wantClose(protocol.CloseNormal) },
		"breaks the rules":  func(_ *guarded, p *peer) { p.frame(fin|binaryFrame, "x"); p.wantClose(protocol.CloseUnsupportedData) },
		"changes subject":   func(_ *guarded, p *peer) { p.authAs("all"); p.conn.Close() },
		"renews":            func(_ *guarded, p *peer) { p.authAs("tees"); p.conn.Close() },
		"renews and leaves": func(_ *guarded, p *peer) { p.send(`{"op":"auth","token":"all"}`); p.conn.Close() },
		"is revoked": func(f *guarded, p *peer) {
			f.guard.revoke("clerk")
			f.edge.Recheck()
			p.wantClose(protocol.CloseUnauthorized)
		},
		"the node drains": func(f *guarded, p *peer) { f.edge.Drain(t.Context(), 0, nil) },
		"the node closes": func(f *guarded, p *peer) {
			if err := f.edge.Close(); err != nil {
				t.Error(err)
			}
		},
		"it closes while a token is checked": func(f *guarded, p *peer) {
			f.guard.holds(t)
			p.send(`{"op":"auth","token":"all"}`)
			q := f.tcp()
			q.raw(handshake(f.addr, "Authorization: Bearer all"))
			eventually(t, "checked", func() bool { return f.guard.held() == 2 })
			if err := f.edge.Close(); err != nil {
				t.Error(err)
			}
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			f := startGuarded(t)
			p := f.as("tees")
			p.TB = t
			p.subscribe(`"all":true,"prefixes":["tee-1","tee-2"]`)
			p.ok(`{"op":"unsubscribe","prefixes":["tee-1"]}`)
			if u := f.quota.of("clerk"); u.accounts != 1 || u.connections != 1 || u.selectors != 2 {
				t.Errorf("it uses %+v", u)
			}
			end(f, p)
			p.conn.Close()
			eventually(t, "given back", func() bool { return f.quota.total() == usage{} })
		})
	}
}

// logged is what a logger writes, for several goroutines.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// audits are the audit lines.
func (l *logged) audits() (lines []string) {
	for line := range strings.Lines(l.String()) {
		if strings.Contains(line, "msg=audit") {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestRefusedWritesAreLogged(t *testing.T) {
	log := &logged{}
	f := startGuarded(t, func(c *edge.Config) { c.Logger, c.Loops = slog.New(slog.NewTextHandler(log, nil)), 1 })
	p, unknown := f.as("tees"), f.dial()
	p.refused(`{"op":"get","skus":["mug"]}`, protocol.CodeForbidden) // no write
	p.refused(`{"op":"adjust","key":"key-1","sku":"mug","delta":1}`, protocol.CodeForbidden)
	unknown.refused(`{"op":"sell","key":"key-2","lines":[{"sku":"A","quantity":1}]}`, protocol.CodeUnauthorized)
	unknown.refused(`{"op":"auth","token":"secret"}`, protocol.CodeUnauthorized)
	lines := log.audits()
	for i, want := range []string{
		`subject=clerk address=127.0.0.1 op=adjust key=key-1 code=forbidden`,
		`subject="" address=127.0.0.1 op=sell key=key-2 code=unauthorized`,
	} {
		if i >= len(lines) || !strings.Contains(lines[i], want) {
			t.Errorf("want %s in\n%s", want, strings.Join(lines, ""))
		}
	}
	if len(lines) != 2 || strings.Contains(log.String(), "secret") {
		t.Errorf("got\n%s", log.String())
	}
	for range 10 { // many: a few lines and then a number, that of those left out
		p.burst(100, `{"op":"adjust","id":1,"key":"key-3","sku":"mug","delta":1}`)
	}
	eventually(t, "told", func() bool {
		left, told := 0, 0
		for _, line := range log.audits() {
			n := 0
			if _, rest, ok := strings.Cut(line, "left_out="); ok {
				if _, err := fmt.Sscan(rest, &n); err != nil {
					t.Fatal(err)
				}
				left += n
			} else {
				told++
			}
		}
		return left+told == 1002 && left > 0
	})
}

// burst sends commands in one message and reads the replies.
func (p *peer) burst(n int, command string) {
	p.Helper()
	p.send("[" + repeat(n, command) + "]")
	for range n {
		p.reply()
	}
}
