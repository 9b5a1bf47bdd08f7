package main

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
)

func TestLyingNodeIsCaught(t *testing.T) {
	for name, c := range map[string]struct{ ok, want string }{
		"stock unchanged": {`{"items":[{"sku":"x","on_hand":1099511627776}]}`, "on_hand is 1099511627776 after"},
		"stock forgotten": {`{"items":[]}`, "0 items for one SKU"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error)
			go func() { done <- serveNull(l, c.ok) }()
			result, err := runScenario(t, "hot-sku", "--connections", "4", "--depth", "4", "--no-half", "--endpoints", "ws://"+l.Addr().String()+"/v1/ws", "--duration", "100ms")
			violations := fmt.Sprint(result["violations"])
			if err == nil || !strings.Contains(violations, c.want) {
				t.Errorf("%v; violations %v", err, violations)
			}
			if err := errors.Join(l.Close(), <-done); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAnswersAreAccountedFor feeds a load with what a node must not say.
func TestAnswersAreAccountedFor(t *testing.T) {
	gen := &generator{}
	l := newLoad(gen)
	c := &client{load: l, slots: make([]slot, 2), next: numberMin, free: []int{0, 1}, template: newTemplate([4]byte{}, `{"id":#}`)}
	l.clients = []*client{c}
	to := &conn{}
	c.send(to, 0)
	c.send(to, 0)
	c.due(to, 5) // no slot is free
	if l.waiting() != 3 || l.sent != 2 {
		t.Fatalf("%+v", l)
	}
	c.received(to, []byte(`{"id":1000000001,"ok":{}}`)) // and what was due is sent
	c.received(to, []byte(`{"id":1000000001,"ok":{}}`)) // answered before
	c.received(to, []byte(`{"id":77,"ok":{}}`))         // never asked
	c.received(to, []byte(`{"id":`))
	c.received(to, []byte(`{"op":"cursor"}`))
	c.received(to, []byte(`{"id":1000000002,"error":{"code":"overloaded"}}`))
	if l.sent != 3 || l.acked != 1 || l.refused != 1 || len(l.faults) != 4 {
		t.Errorf("sent %d, acked %d, refused %d, faults %q", l.sent, l.acked, l.refused, l.faults)
	}
}
