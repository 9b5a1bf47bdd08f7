package edge_test

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"
)

// pinger is a client that has been there for a while and goes on talking. It runs
// beside the edge, in its process: among the clients of a storm it would measure them.
type pinger struct {
	peer *peer
	wg   sync.WaitGroup

	mu    sync.Mutex // of what follows
	waits []time.Duration
	err   error
}

// pingEvery is often enough to be about in every turn of a busy loop.
const pingEvery = 5 * time.Millisecond

// startPinger has one ping until its connection ends.
func startPinger(t testing.TB, f *fixture) *pinger {
	t.Helper()
	p := &pinger{peer: f.dial()}
	if err := p.peer.conn.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	p.wg.Go(p.run)
	t.Cleanup(func() {
		p.peer.conn.Close()
		p.wg.Wait()
	})
	return p
}

func (p *pinger) run() {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for ; ; <-tick.C {
		begin := time.Now()
		err := p.ping()
		p.mu.Lock()
		p.waits, p.err = append(p.waits, time.Since(begin)), err
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// ping says one and reads as far as its answer.
func (p *pinger) ping() error {
	if _, err := io.WriteString(p.peer.conn, frameBytes(fin|text, `{"op":"ping","id":7}`)); err != nil {
		return err
	}
	for {
		opcode, payload, err := p.peer.readFrame()
		if err != nil {
			return err
		}
		if opcode == text && bytes.Contains(payload, []byte(`"id":7`)) {
			return nil
		}
	}
}

// pingWaits is how long answers took. As text it is for the log.
type pingWaits struct {
	Count            int
	Median, P99, Max time.Duration
	Err              string // why there are no more
}

func (p pingWaits) String() string {
	return fmt.Sprintf("%d pings, median %v, p99 %v, longest %v",
		p.Count, p.Median.Round(10*time.Microsecond), p.P99.Round(10*time.Microsecond), p.Max.Round(10*time.Microsecond))
}

// figures are those since they were last asked for.
func (p *pinger) figures() (sum pingWaits) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		sum.Err = p.err.Error()
	}
	slices.Sort(p.waits)
	if n := len(p.waits); n > 0 {
		sum.Count, sum.Median, sum.P99, sum.Max = n, p.waits[n/2], p.waits[n*99/100], p.waits[n-1]
	}
	p.waits = nil
	return sum
}
