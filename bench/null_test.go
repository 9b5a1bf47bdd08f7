package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A null node says yes to every command and does nothing. It shows what the
// generator could measure at most, and that the checks notice a node that lies.
const childNull = "child-null"

func runNull([]string) error {
	ctx, _, cancel := childContext()
	defer cancel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() {
		<-ctx.Done()
		l.Close()
	}()
	if err := announce(addresses{Public: l.Addr().String()}); err != nil {
		return err
	}
	return serveNull(l, `{"items":[{"sku":"x","location":"main","available":1099511627735,"on_hand":1099511627735,"reserved":0,"version":"local:1234","updated_at":"2026-01-02T03:04:05.678Z"}]}`)
}

// serveNull answers every command with ok until the listener is closed.
func serveNull(l net.Listener, ok string) error {
	for {
		nc, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer nc.Close()
			_ = nullSession(nc, ok) // ends with the client
		}()
	}
}

func nullSession(nc net.Conn, ok string) error {
	r := bufio.NewReaderSize(nc, 64<<10)
	if _, err := http.ReadRequest(r); err != nil {
		return err
	}
	hello := appendServerFrame(nil, opText, []byte(`{"op":"hello","limits":{"in_flight":256}}`))
	if _, err := fmt.Fprintf(nc, "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: %s\r\n\r\n%s", handshakeAnswer, hello); err != nil {
		return err
	}
	var out, message []byte
	for {
		payload, err := readMasked(r)
		if err != nil {
			return err
		}
		id, _ := scanReply(payload)
		message = strconv.AppendUint(append(message[:0], `{"id":`...), id, 10)
		message = append(append(append(message, `,"ok":`...), named(ok, payload)...), '}')
		out = appendServerFrame(out, opText, message)
		if r.Buffered() == 0 {
			if _, err := nc.Write(out); err != nil {
				return err
			}
			out = out[:0]
		}
	}
}

// named puts the SKU that a get asks for in the place of x.
func named(ok string, payload []byte) string {
	_, after, asked := bytes.Cut(payload, []byte(`"skus":[`))
	sku, _, _ := bytes.Cut(after, []byte("]"))
	if !asked {
		return ok
	}
	return strings.ReplaceAll(ok, `"x"`, string(sku))
}

// readMasked reads one short client frame and returns its payload, good until the
// next call.
func readMasked(r *bufio.Reader) ([]byte, error) {
	head, err := r.Peek(2)
	if err != nil {
		return nil, err
	}
	at, n := 2, int(head[1]&^maskBit)
	if n == 126 {
		if head, err = r.Peek(4); err != nil {
			return nil, err
		}
		at, n = 4, int(binary.BigEndian.Uint16(head[2:]))
	}
	b, err := r.Peek(at + 4 + n)
	if err != nil {
		return nil, err
	}
	mask := [4]byte(b[at:])
	payload := b[at+4:]
	for i := range payload {
		payload[i] ^= mask[i&3]
	}
	_, err = r.Discard(len(b))
	return payload, err
}

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

// BenchmarkCeiling is the generator against a null node in another process: the
// most that hot-sku could measure on this machine.
func BenchmarkCeiling(b *testing.B) {
	p, err := startProcess(b.Context(), os.Stderr, childNull)
	if err != nil {
		b.Fatal(err)
	}
	defer p.stop()
	o, err := parseOptions([]string{"hot-sku", "--no-half", "--endpoints", "ws://" + p.Public + "/v1/ws"}, io.Discard)
	if err != nil {
		b.Fatal(err)
	}
	gen, err := newGenerator()
	if err != nil {
		b.Fatal(err)
	}
	defer gen.close()
	l := newLoad(gen)
	r := newRound(o, 1, &target{endpoints: o.endpoints, nodes: []*node{{process: p}}}, newProgress(os.Stderr))
	if err := r.openLoad(b.Context(), l, "x"); err != nil {
		b.Fatal(err)
	}
	r.duration = 2 * time.Second
	for b.Loop() {
		if err := r.measureMaximum(b.Context(), l); err != nil {
			b.Fatal(err)
		}
	}
	for name, v := range r.numbers {
		b.ReportMetric(v, name)
	}
}
