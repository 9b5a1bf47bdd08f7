package edge_test

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/node/edge"
	"github.com/stockmesh/stockmesh/protocol"
)

// narrow is a connection whose kernel buffers little for its reader.
func (f *fixture) narrow(form form) *peer {
	f.Helper()
	return f.buffering(64 << 10).dialAs(form)
}

// buffering is a fixture whose clients' kernels buffer so many bytes, or about as many.
// They know before they connect: a window that shrinks later makes TCP drop what was
// sent into it and wait for ever longer before it is sent again.
func (f *fixture) buffering(bytes int) *fixture {
	narrow := *f
	narrow.dialer.Control = func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, bytes)
		})
		return errors.Join(err, failed)
	}
	return &narrow
}

// churn changes all SKUs until stopped.
func churn(f *fixture, skus []string) (stop func() int64) {
	quit, ended := make(chan struct{}), make(chan struct{})
	n := int64(0)
	go func() {
		defer close(ended)
		for {
			select {
			case <-quit:
				return
			default:
				n++
				f.ledger.set(n, skus...)
			}
		}
	}()
	return sync.OnceValue(func() int64 {
		close(quit)
		<-ended
		return n
	})
}

func names(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("%s-%04d", strings.Repeat("n", 100), i)
	}
	return list
}

// A reader that stops reading costs little, disturbs nobody, and gets the newest
// state of each item, not all the old ones, once it reads again.
func TestSlowReaderGetsTheNewestState(t *testing.T) {
	// On a busy machine its readers sleep for long: here that is not held against them.
	f := start(t, func(c *edge.Config) { c.SlowTimeout = 5 * time.Minute })
	skus := names(500)
	f.ledger.set(0, skus...)
	sleepers := make([]*peer, 10)
	for i := range sleepers {
		sleepers[i] = f.narrow(wireForms[i%2])
		sleepers[i].subscribe(`"all":true`)
	}
	w := newWitness(f)
	before := measure(t)
	stop := churn(f, skus)
	defer stop()
	eventually(t, "states conflated", func() bool {
		return f.metric("stockmesh_items_conflated_total") > 20*float64(len(sleepers)*len(skus))
	})
	var waits []time.Duration
	for range 50 {
		begin := time.Now()
		w.served()
		waits = append(waits, time.Since(begin))
	}
	slices.Sort(waits)
	if p90 := waits[len(waits)*9/10]; p90 > 500*time.Millisecond {
		t.Errorf("others waited %v", p90)
	}
	last := stop()
	if after := measure(t); after.heap > before.heap+uint64(len(sleepers))<<20 {
		t.Errorf("heap grew from %d to %d bytes", before.heap, after.heap)
	}
	for _, p := range sleepers {
		newest := make(map[string]int64)
		messages := 0
		for held := 0; held < len(skus); {
			for _, it := range p.next().Items {
				if it.OnHand < newest[it.SKU] {
					t.Fatalf("%s went from %d back to %d", it.SKU, newest[it.SKU], it.OnHand)
				}
				if newest[it.SKU] = it.OnHand; it.OnHand == last && strings.HasPrefix(it.SKU, "n") {
					held++
				}
				messages++
			}
		}
		if messages > int(last)*len(skus)*3/4 {
			t.Errorf("%d of %d states were sent", messages, int(last)*len(skus))
		}
	}
}

func TestReaderThatNeverReadsIsClosed(t *testing.T) {
	eachForm(t, func(t *testing.T, form form) {
		if form.deflate {
			// On a busy machine it takes long to fill what the kernel buffers with what
			// is so small, and this reader long to inflate it all.
			t.Skip("what is compressed hardly stalls a reader")
		}
		f := start(t, func(c *edge.Config) { c.SlowTimeout = 400 * time.Millisecond })
		skus := names(500)
		f.ledger.set(0, skus...)
		p := f.narrow(form)
		p.subscribe(`"all":true`)
		stop := churn(f, skus)
		defer stop()
		eventually(t, "given up", func() bool { return f.metric("stockmesh_sessions_closed_total") == 1 })
		stop()
		p.wantClose(protocol.CloseSlowConsumer) // after whole frames only
	})
}

// Who sends commands and reads no answers is not read from, so its answers can't
// pile up; it goes on where it stopped when it reads again.
func TestUnreadRepliesMuteTheirSender(t *testing.T) {
	f := start(t, func(c *edge.Config) { c.OutboxBytes = 16 << 10 })
	p, w := f.narrow(wireForms[0]), newWitness(f)
	before := measure(t)
	const batch = 200
	sent := make(chan int)
	go func() { // until nothing more is taken
		message := "[" + repeat(batch, `{"op":"ping","id":"`+strings.Repeat("i", 250)+`"}`) + "]"
		n := 0
		for {
			_ = p.conn.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			if _, err := p.conn.Write([]byte(frameBytes(fin|text, message))); err != nil {
				break
			}
			n += batch
		}
		sent <- n
	}()
	n := <-sent
	w.served()
	if after := measure(t); after.heap > before.heap+2<<20 {
		t.Errorf("heap grew from %d to %d bytes", before.heap, after.heap)
	}
	for range n {
		p.reply()
	}
}

func TestHeartbeat(t *testing.T) {
	t.Parallel()
	const heartbeat = 150 * time.Millisecond
	f := start(t, func(c *edge.Config) { c.Heartbeat = heartbeat })
	begin := time.Now()
	idle, alive := f.dial(), f.dial()
	done := make(chan error, 1)
	go func() { // reads and so answers pings
		for {
			_ = alive.conn.SetReadDeadline(time.Now().Add(patience))
			if _, err := alive.read(); err != nil {
				done <- err
				return
			}
		}
	}()
	// A silent one is closed after two heartbeats, and was pinged before.
	idle.setDeadline()
	for {
		op, payload, err := idle.readFrame()
		if err != nil {
			t.Fatal(err)
		}
		if op == closeFrame {
			if got := int(payload[0])<<8 | int(payload[1]); got != protocol.CloseIdle {
				t.Fatalf("closed with %d", got)
			}
			break
		}
		if op == pingFrame {
			idle.pings++
		}
	}
	if took := time.Since(begin); idle.pings == 0 || took < 2*heartbeat-20*time.Millisecond || took > 8*heartbeat {
		t.Errorf("closed after %v and %d pings", took, idle.pings)
	}
	// Any traffic counts: one talks all the time and never answers a ping.
	talker := f.dial()
	for begin := time.Now(); time.Since(begin) < 6*heartbeat; {
		talker.send(`{"op":"ping","id":1}`)
		for op := byte(0); op != text; {
			var err error
			if op, _, err = talker.readFrame(); err != nil {
				t.Fatal(err)
			}
			if op == pingFrame {
				talker.pings++
			}
		}
	}
	alive.conn.Close()
	var gone net.Error
	if err := <-done; errors.As(err, &gone) && gone.Timeout() {
		t.Error(err)
	}
	if alive.pings < 3 || talker.pings < 3 {
		t.Errorf("%d and %d pings in 6 heartbeats", alive.pings, talker.pings)
	}
}

// A message may not take for ever either, whatever else arrives meanwhile.
func TestMessageThatNeverEnds(t *testing.T) {
	t.Parallel()
	f := start(t, func(c *edge.Config) { c.Heartbeat = 100 * time.Millisecond })
	p := f.dial()
	p.frame(text, `{"op":`)
	quit := make(chan struct{})
	defer close(quit)
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				if _, err := p.conn.Write([]byte(frameBytes(continued, " "))); err != nil {
					return
				}
			}
		}
	}()
	p.wantClose(protocol.CloseAbuse)
}
