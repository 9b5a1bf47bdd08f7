package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// nullNode is a null node in this process, which can be killed and can ask its
// clients to leave.
type nullNode struct {
	net.Listener
	done chan error

	mu    sync.Mutex
	conns []net.Conn
}

func startNullNode(t *testing.T) *nullNode {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &nullNode{Listener: l, done: make(chan error, 1)}
	go func() { n.done <- serveNull(n, `{"item":{}}`) }()
	t.Cleanup(n.kill)
	return n
}

func (n *nullNode) Accept() (net.Conn, error) {
	nc, err := n.Listener.Accept()
	if err == nil {
		n.mu.Lock()
		n.conns = append(n.conns, nc)
		n.mu.Unlock()
	}
	return nc, err
}

func (n *nullNode) each(do func(net.Conn)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, nc := range n.conns {
		do(nc)
	}
}

func (n *nullNode) kill() {
	n.Close()
	n.each(func(nc net.Conn) { nc.Close() })
}

func (n *nullNode) say(t *testing.T, op byte, text string) {
	n.each(func(nc net.Conn) {
		if _, err := nc.Write(appendServerFrame(nil, op, []byte(text))); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}

const testRate = 2000

// openTestCrowd connects six clients to three null nodes.
func openTestCrowd(t *testing.T) (*crowd, []*nullNode) {
	t.Helper()
	var nodes []*nullNode
	tg := &target{}
	for range 3 {
		n := startNullNode(t)
		nodes = append(nodes, n)
		tg.endpoints = append(tg.endpoints, "ws://"+n.Addr().String()+"/v1/ws")
	}
	gen, err := newGenerator()
	if err != nil {
		t.Fatal(err)
	}
	c := newCrowd(gen, tg.endpoints)
	t.Cleanup(func() {
		c.close()
		if err := gen.close(); err != nil {
			t.Error(err)
		}
	})
	a := &account{sku: "x"}
	c.accounts = []*account{a}
	err = c.open(t.Context(), tg, 6, func(i, errands int) *member {
		return newMember(c, i, errands, a, 1, fmt.Sprintf(`{"id":#,"key":"%d-#"}`, i))
	})
	if err != nil {
		t.Fatal(err)
	}
	c.set(testRate)
	return c, nodes
}

// at lists the nodes of the crowd's clients, in order.
func (c *crowd) at() (list []int) {
	for _, m := range c.members {
		list = append(list, m.at)
	}
	slices.Sort(list)
	return list
}

// until keeps the crowd going until done, which it runs.
func (c *crowd) until(ctx context.Context, done func() bool) error {
	return c.during(ctx, func(ctx context.Context) error {
		for {
			is := false
			if err := errors.Join(c.call(ctx, func() { is = done() }), pause(ctx, time.Millisecond)); err != nil || is {
				return err
			}
		}
	})
}

func TestClientsLeaveADeadNode(t *testing.T) {
	c, nodes := openTestCrowd(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := c.until(ctx, func() bool { return c.acked > 50 }); err != nil {
		t.Fatal(err)
	}
	o := &outage{killed: c.gen.now, dead: c.gen.now, over: make(chan time.Duration, 1)}
	c.outage = o
	nodes[0].kill()
	if err := c.until(ctx, func() bool { return len(o.over) > 0 && !slices.Contains(c.at(), 0) }); err != nil {
		t.Fatal(err, c.at())
	}
	missing, err := c.drain(ctx)
	if err != nil || missing > 0 || len(c.faults) > 0 {
		t.Fatalf("%d missing, faults %q, %v", missing, c.faults, err)
	}
	if at := c.at(); c.moves != 2 || c.broken != 2 || !slices.Equal(at, []int{1, 1, 1, 2, 2, 2}) {
		t.Errorf("%d moves, %d broken, clients at %v", c.moves, c.broken, at)
	}
	if a := c.accounts[0]; a.onHand() != c.acked || c.failed != 0 {
		t.Errorf("%d on hand after %d acknowledged, %d failed", a.onHand(), c.acked, c.failed)
	}
}

func TestClientsLeaveADrainingNode(t *testing.T) {
	c, nodes := openTestCrowd(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	left := func(node int) func() bool {
		return func() bool { return !slices.Contains(c.at(), node) }
	}
	nodes[0].Listener.Close()
	nodes[0].say(t, opText, `{"op":"goaway","reason":"drain","deadline_ms":1000,"endpoints":[]}`)
	if err := c.until(ctx, left(0)); err != nil || c.resent > 0 {
		t.Fatalf("clients at %v, %d resent, %v", c.at(), c.resent, err)
	}
	nodes[1].Listener.Close()
	nodes[1].say(t, opClose, "\x10\x68the node is draining")
	if err := c.until(ctx, left(1)); err != nil {
		t.Fatalf("clients at %v, %v", c.at(), err)
	}
	missing, err := c.drain(ctx)
	if err != nil || missing > 0 || len(c.faults) > 0 || c.broken > 0 {
		t.Fatalf("%d missing, %d broken, faults %q, %v", missing, c.broken, c.faults, err)
	}
	nodes[0].kill()
	nodes[1].kill() // nobody is there
	if err := c.turn(ctx); err != nil || c.broken > 0 {
		t.Errorf("%d were still there, %v", c.broken, err)
	}
}

// TestErrorsOfARegionAreAccountedFor feeds a client with what a node may say.
func TestErrorsOfARegionAreAccountedFor(t *testing.T) {
	c := newCrowd(&generator{}, []string{"a", "b", "c"})
	a := &account{opening: 5}
	m := newMember(c, 0, 4, a, -1, `{"id":#}`)
	c.members = append(c.members, m)
	on := &conn{receiver: m}
	m.land(0, on)
	for range 5 {
		m.offer(0) // one more than errands
	}
	answer := func(id int, rest string) { m.received(on, fmt.Appendf(nil, `{"id":%d,%s}`, id, rest)) }
	// Numbers go up by 4, the number of errands, and the last errand was free first.
	const fourth, third, second, first = numberMin + 4 + 3, numberMin + 8 + 2, numberMin + 12 + 1, numberMin + 16
	answer(fourth, `"ok":{}`) // and the fifth is sent
	answer(third, `"error":{"code":"insufficient_stock"}`)
	answer(second, `"error":{"code":"bad_request"}`)
	answer(first, `"error":{"code":"unavailable","retryable":true,"retry_after_ms":30}`)
	if a.onHand() != 4 || c.refused != 1 || c.failed != 2 || m.waiting() != 2 || len(c.faults) != 2 {
		t.Fatalf("%d on hand, %d refused, %d failed, %d waiting, faults %q", a.onHand(), c.refused, c.failed, m.waiting(), c.faults)
	}
	on.out = nil
	if c.retryDue(); len(on.out) > 0 {
		t.Fatal("sent again too early")
	}
	c.gen.now = int64(time.Second)
	if c.retryDue(); len(on.out) == 0 || len(c.again) > 0 {
		t.Fatalf("sent %d bytes again, %v", len(on.out), c.again)
	}
	answer(first, `"error":{"code":"unavailable","retryable":true}`) // counts once
	c.gen.now *= 2
	c.retryDue()
	answer(first, `"replayed":true,"ok":{}`)
	answer(first, `"ok":{}`) // answered before
	if a.onHand() != 3 || c.failed != 2 || m.waiting() != 1 || len(c.faults) != 3 || !strings.Contains(c.faults[2], "nothing that was asked") {
		t.Errorf("%d on hand, %d failed, %d waiting, faults %q", a.onHand(), c.failed, m.waiting(), c.faults)
	}
}

func TestElsewhere(t *testing.T) {
	for _, n := range []int{3, 5} {
		for from := range n {
			first := make(map[int]int)
			for number := range 12 {
				tried := make(map[int]bool)
				for try := range n {
					tried[elsewhere(from, number, try, n)] = true
				}
				if len(tried) != n || elsewhere(from, number, n-1, n) != from {
					t.Errorf("from %d of %d, client %d: tries %v", from, n, number, tried)
				}
				first[elsewhere(from, number, 0, n)]++
			}
			if len(first) != n-1 || first[from] > 0 {
				t.Errorf("from %d of %d: clients go to %v", from, n, first)
			}
		}
	}
}
