package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// mutant is a node that breaks one rule: it lies between clients and a node that breaks
// none.
type mutant struct {
	net.Listener
	node string
	wg   sync.WaitGroup

	mu     sync.Mutex
	breaks rule
}

// rule is how a mutant breaks one. Its functions are called one at a time.
type rule interface {
	// asked takes what a client says, and returns what the node hears of it and what
	// the client is told at once.
	asked(message []byte) (on, back []byte)
	// told takes what the node says and returns what its client hears.
	told(c *mutantConn, message []byte) [][]byte
}

// mutantConn is what a rule may remember of a connection.
type mutantConn struct {
	pushes int
	first  []byte
}

// honest breaks no rule.
type honest struct{}

func (honest) asked(message []byte) (on, back []byte)      { return message, nil }
func (honest) told(_ *mutantConn, message []byte) [][]byte { return [][]byte{message} }

const (
	everyNth = 20 // of the sells
	someMore = 4  // pushes, until one is not as it should be
)

// forgetful acknowledges some sells and does nothing.
type forgetful struct {
	honest
	sells int
}

func (f *forgetful) asked(message []byte) (on, back []byte) {
	if !bytes.Contains(message, []byte(`"op":"sell"`)) {
		return message, nil
	}
	if f.sells++; f.sells%everyNth != 0 {
		return message, nil
	}
	id, _ := scanReply(message)
	return nil, fmt.Appendf(nil, `{"id":%d,"ok":{"items":[]}}`, id)
}

// eager does some sells twice, under two keys.
type eager struct{ sells int }

func (e *eager) asked(message []byte) (on, back []byte) {
	if !bytes.Contains(message, []byte(`"op":"sell"`)) {
		return message, nil
	}
	if e.sells++; e.sells%everyNth != 0 {
		return message, nil
	}
	id, _ := scanReply(message)
	twin := bytes.Replace(message, fmt.Appendf(nil, `"id":%d`, id), []byte(`"id":"twin"`), 1)
	twin = bytes.Replace(twin, []byte(`"key":"`), []byte(`"key":"twin-`), 1)
	return fmt.Appendf(nil, "[%s,%s]", message, twin), nil
}

func (e *eager) told(_ *mutantConn, message []byte) [][]byte {
	if bytes.Contains(message, []byte(`"twin"`)) {
		return nil
	}
	return [][]byte{message}
}

// yielding answers what was refused as if it had been done.
type yielding struct{ honest }

func (yielding) told(_ *mutantConn, message []byte) [][]byte {
	if bytes.Contains(message, []byte(`"insufficient_stock"`)) {
		id, _ := scanReply(message)
		message = fmt.Appendf(nil, `{"id":%d,"ok":{"items":[]}}`, id)
	}
	return [][]byte{message}
}

// refusing says that there is no stock for what is asked by a command of one kind.
type refusing struct {
	honest
	op string
}

func (r refusing) asked(message []byte) (on, back []byte) {
	// The opening stock is not entered in vain.
	if !bytes.Contains(message, []byte(`"op":"`+r.op+`"`)) || bytes.Contains(message, []byte("delivery-")) {
		return message, nil
	}
	id, _ := scanReply(message)
	return nil, fmt.Appendf(nil, `{"id":%d,"error":{"code":"insufficient_stock","details":{"lines":[{"sku":"x","requested":1,"available":0,"elsewhere":3}]}}}`, id)
}

var (
	stockOp    = []byte(`"op":"stock"`)
	isSnapshot = []byte(`"snapshot":true`)
)

// repeating says an old push again.
type repeating struct{ honest }

func (repeating) told(c *mutantConn, message []byte) [][]byte {
	if !bytes.Contains(message, stockOp) || bytes.Contains(message, isSnapshot) {
		return [][]byte{message}
	}
	if c.pushes++; c.first == nil {
		c.first = bytes.Clone(message)
	}
	if c.pushes != someMore {
		return [][]byte{message}
	}
	return [][]byte{message, c.first}
}

// silent keeps pushes to itself, from some moment on.
type silent struct{ honest }

func (silent) told(c *mutantConn, message []byte) [][]byte {
	if bytes.Contains(message, stockOp) && !bytes.Contains(message, isSnapshot) {
		if c.pushes++; c.pushes > someMore {
			return nil
		}
	}
	return [][]byte{message}
}

// startMutant returns the endpoint of a node that breaks a rule.
func startMutant(t *testing.T, node string, breaks rule) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &mutant{Listener: l, node: node, breaks: breaks}
	ctx, cancel := context.WithCancel(t.Context())
	m.wg.Go(func() { m.serve(ctx) })
	t.Cleanup(func() {
		cancel()
		l.Close()
		m.wg.Wait()
	})
	return "ws://" + l.Addr().String() + "/v1/ws"
}

func (m *mutant) serve(ctx context.Context) {
	for {
		client, err := m.Accept()
		if err != nil {
			return // closed
		}
		m.wg.Go(func() {
			node, err := net.Dial("tcp", m.node)
			if err != nil {
				client.Close()
				return
			}
			forget := context.AfterFunc(ctx, func() {
				client.Close()
				node.Close()
			})
			defer forget()
			m.lead(client, node)
		})
	}
}

// lead carries one connection's handshake, then message by message.
func (m *mutant) lead(client, node net.Conn) {
	defer client.Close()
	defer node.Close()
	asks, says := bufio.NewReaderSize(client, 64<<10), bufio.NewReaderSize(node, answerMax)
	if copyHead(node, asks) != nil || copyHead(client, says) != nil {
		return
	}
	var writes sync.Mutex // to the client
	tell := func(messages ...[]byte) error {
		writes.Lock()
		defer writes.Unlock()
		var out []byte
		for _, message := range messages {
			out = appendServerFrame(out, opText, message)
		}
		_, err := client.Write(out)
		return err
	}
	var back sync.WaitGroup
	back.Go(func() {
		defer client.Close()
		m.hear(says, tell)
	})
	m.ask(asks, node, tell)
	node.Close()
	back.Wait()
}

// copyHead passes a request or an answer on, to its empty line.
func copyHead(to io.Writer, from *bufio.Reader) error {
	for {
		line, err := from.ReadBytes('\n')
		if err != nil {
			return err
		}
		if _, err := to.Write(line); err != nil {
			return err
		}
		if len(line) <= len("\r\n") {
			return nil
		}
	}
}

func (m *mutant) ask(from *bufio.Reader, node io.Writer, tell func(...[]byte) error) {
	for {
		message, err := readMasked(from)
		if err != nil {
			return
		}
		m.mu.Lock()
		on, back := m.breaks.asked(message)
		m.mu.Unlock()
		if back != nil {
			err = tell(back)
		}
		if err == nil && on != nil {
			_, err = node.Write(appendClientFrame(nil, opText, [4]byte{}, on))
		}
		if err != nil {
			return
		}
	}
}

func (m *mutant) hear(from *bufio.Reader, tell func(...[]byte) error) {
	c := &mutantConn{}
	for {
		f, err := readFrame(from)
		if err != nil || f.op == opClose {
			return
		}
		if f.op != opText {
			continue // no test takes as long as a heartbeat
		}
		m.mu.Lock()
		messages := m.breaks.told(c, f.payload)
		m.mu.Unlock()
		if tell(messages...) != nil {
			return
		}
	}
}

// startTestNode starts a node that is alone.
func startTestNode(t *testing.T) *node {
	t.Helper()
	n := newNode(t.TempDir(), "bench-1", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
	if err := n.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.stop(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// mutantRound is a round of a scenario at a mutant of a node.
func mutantRound(t *testing.T, n *node, breaks rule, args string) *round {
	t.Helper()
	o, err := parseOptions(strings.Fields(args+" --spawn 1"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	said, err := os.Create(filepath.Join(t.TempDir(), "said"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { said.Close() })
	tg := &target{endpoints: []string{startMutant(t, n.Public, breaks)}, nodes: []*node{n}, each: 1}
	return newRound(o, 1, tg, newProgress(said))
}

// soakAt has a crowd trade with a mutant, without any fault but its own.
func soakAt(ctx context.Context, r *round) error { return soakFor(ctx, r, shownWithin) }

// soakInVain is soakAt for what never comes.
func soakInVain(ctx context.Context, r *round) error { return soakFor(ctx, r, 500*time.Millisecond) }

func soakFor(ctx context.Context, r *round, patience time.Duration) error {
	gen, err := r.newGenerator()
	if err != nil {
		return err
	}
	s := r.newSoak(gen)
	s.gallery.patience = patience
	return errors.Join(s.trade(ctx), s.close())
}

// undisturbed is a trial such as failover's and drain's in which no node ends.
func undisturbed(ctx context.Context, r *round) error {
	return r.withstand(ctx, func(context.Context, *trial) error { return nil })
}

// TestMutantsAreCaught breaks one rule after the other.
func TestMutantsAreCaught(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a node")
	}
	n := startTestNode(t)
	const (
		soakArgs   = "soak --connections 12 --rate 5000 --duration 200ms"
		trialArgs  = "hot-sku --connections 12 --rate 5000 --duration 100ms"
		hotArgs    = "hot-sku --connections 4 --depth 4 --no-half --duration 100ms"
		fanoutArgs = "fanout --subscribers 3 --burst 2 --duration 100ms"
	)
	for _, c := range []struct {
		name   string
		breaks rule
		run    func(context.Context, *round) error
		args   string
		want   string // a violation; "": none
	}{
		{"soak, honest", honest{}, soakAt, soakArgs, ""},
		{"soak, a sell is acknowledged and lost", &forgetful{}, soakAt, soakArgs, "acknowledged units in and"},
		{"soak, a command takes effect twice", &eager{}, soakAt, soakArgs, "acknowledged units in and"},
		{"soak, what was refused is acknowledged", yielding{}, soakAt, soakArgs, "units were sold that were never there"},
		{"soak, a push goes back", repeating{}, soakAt, soakArgs, "it goes back"},
		{"soak, a push is lost for good", silent{}, soakInVain, soakArgs, "has not ended with the final state"},
		{"soak, all reserves are refused", refusing{op: "reserve"}, soakAt, soakArgs, "and not one succeeded"},
		{"soak, what comes in is refused", refusing{op: "adjust"}, soakAt, soakArgs, "were answered with an error"},
		{"failover, honest", honest{}, undisturbed, trialArgs, ""},
		{"failover, a sell is acknowledged and lost", &forgetful{}, undisturbed, trialArgs, "acknowledged units in and"},
		{"failover, a command takes effect twice", &eager{}, undisturbed, trialArgs, "acknowledged units in and"},
		{"failover, what was refused is acknowledged", yielding{}, undisturbed, trialArgs, "units were sold that were never there"},
		{"failover, all sells are refused", refusing{op: "sell"}, undisturbed, trialArgs, "were refused although there was stock"},
		{"failover, what comes in is refused", refusing{op: "adjust"}, undisturbed, trialArgs, "were answered with an error"},
		{"hot-sku, a sell is acknowledged and lost", &forgetful{}, hotSKU, hotArgs, "on_hand is"},
		{"hot-sku, a command takes effect twice", &eager{}, hotSKU, hotArgs, "on_hand is"},
		{"fanout, a push goes back", repeating{}, fanout, fanoutArgs, "was pushed with on_hand"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := mutantRound(t, n, c.breaks, c.args)
			if err := c.run(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			said := strings.Join(r.violations, "\n")
			if (said == "") != (c.want == "") || !strings.Contains(said, c.want) {
				t.Errorf("want a violation that says %q, not:\n%s", c.want, said)
			}
		})
	}
}
