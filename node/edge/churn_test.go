package edge_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/node/edge"
)

// The long form: go test ./node/edge -run TestChurn -v -churn 100000 -timeout 1h
var churnOf = flag.Int("churn", 5000, "connections that come and go in TestChurn, half of them over TLS")

// Connections that end anywhere in a conversation, in the middle of a TLS record, of a
// request's head or of a frame, in order or not, leave nothing behind: no goroutine, no
// descriptor, no memory.
func TestChurn(t *testing.T) {
	n := *churnOf / 2
	if slower > 1 {
		n = min(n, 500)
	}
	for name, start := range map[string]func(testing.TB, ...func(*edge.Config)) *fixture{"plain": start, "TLS": startTLS} {
		t.Run(name, func(t *testing.T) {
			if name == "plain" {
				plainOnly(t)
			}
			churnFor(t, start(t), n)
		})
	}
}

func churnFor(t *testing.T, f *fixture, n int) {
	f.ledger.set(1, "A")
	v := &visitors{fixture: f}
	v.come(min(n, 500)) // what a process needs at all
	before, rss := v.left()
	begin := time.Now()
	v.come(n)
	took := time.Since(begin)
	before.backTo(t, 1<<20)
	after, rssAfter := v.left()
	t.Logf("%d in %v: %d got through to the end; goroutines %d to %d, files %d to %d, heap %d to %d, RSS %d to %d",
		n, took.Round(time.Millisecond), v.through.Load(), before.goroutines, after.goroutines, before.files, after.files, before.heap, after.heap, rss, rssAfter)
	if rssAfter > rss+slower*16<<20 {
		t.Errorf("RSS grew from %d to %d", rss, rssAfter)
	}
	if v.through.Load() == 0 {
		t.Error("nobody got through to the end")
	}
	if open := f.metric("stockmesh_sessions"); open != 0 {
		t.Errorf("%v sessions are left", open)
	}
}

// visitors come, talk as far as they get, and go.
type visitors struct {
	*fixture
	through atomic.Int64 // got to the end of what they had to say
}

// come has n of them visit, several at a time, and waits until all are gone. Each is
// cut off after some more bytes than the one before, so that every byte of the
// conversation is somebody's last.
func (v *visitors) come(n int) {
	v.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				if err := v.visit(int(i)); err != nil {
					v.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	eventually(v, "all gone", func() bool { return v.edge.Connections() == 0 })
}

// left is what the process holds, once it has given back what it can.
func (v *visitors) left() (footprint, int64) {
	debug.FreeOSMemory()
	return measure(v), residentBytes(v, os.Getpid())
}

// Bytes that a visitor says, at most: over TLS a hello alone is 1.5 KB.
const (
	sayMax    = 900
	sayMaxTLS = 3000
)

func (v *visitors) visit(i int) error {
	tcp, err := net.DialTimeout("tcp", v.addr, patience)
	if err != nil {
		return err
	}
	most := sayMax
	if v.tls != nil {
		most = sayMaxTLS
	}
	cut := &cutConn{TCPConn: tcp.(*net.TCPConn), left: i * 7 % most} // 7 is prime to both: all numbers come up
	defer cut.Close()
	if err := cut.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if i%4 > 0 { // gone without a word; the other fourth ends the stream
		if err := cut.SetLinger(0); err != nil {
			return err
		}
	}
	var c net.Conn = cut
	if v.tls != nil {
		c = tls.Client(c, v.tls)
	}
	talk := v.talk
	if i%5 == 0 {
		talk = v.request
	}
	switch err := talk(c); {
	case errors.Is(err, errCut): // as planned
	case err != nil:
		return fmt.Errorf("visitor %d, cut after %d bytes: %w", i, i*7%most, err)
	default:
		v.through.Add(1)
	}
	return nil
}

// talk is a session in which everything is begun that needs an end.
func (v *visitors) talk(c net.Conn) error {
	in := bufio.NewReaderSize(c, 512)
	if _, err := io.WriteString(c, handshake(v.addr)); err != nil {
		return err
	}
	if res, err := http.ReadResponse(in, nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("handshake: %v, %w", res, err)
	}
	if _, err := io.WriteString(c, frameBytes(fin|text, `{"op":"subscribe","all":true,"skus":["A"],"users":["ann"]}`)); err != nil {
		return err
	}
	// An answer under way, a message in two fragments, of which the second never ends.
	for _, s := range []string{
		frameBytes(fin|text, `{"op":"get","skus":["A"]}`), frameBytes(text, `{"op":`),
		frameBytes(fin|continued, strings.Repeat("x", 100))[:50],
	} {
		if _, err := io.WriteString(c, s); err != nil {
			return err
		}
	}
	return nil
}

// request is net/http's.
func (v *visitors) request(c net.Conn) error {
	if _, err := fmt.Fprintf(c, "GET /somewhere HTTP/1.1\r\nHost: %s\r\nUser-Agent: %s\r\n\r\n", v.addr, strings.Repeat("x", 200)); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReaderSize(c, 512), nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return errors.Join(err, res.Body.Close())
}

var errCut = errors.New("cut off")

// cutConn is closed after so many bytes were written.
type cutConn struct {
	*net.TCPConn
	left int
}

func (c *cutConn) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b[:min(len(b), c.left)])
	if c.left -= n; err != nil || n == len(b) {
		return n, err
	}
	return n, errors.Join(errCut, c.TCPConn.Close())
}
