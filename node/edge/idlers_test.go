package edge_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// idlers are clients of another process that do nothing but answer pings.
type idlers struct {
	testing.TB
	addr  string
	mu    sync.Mutex // of conns
	conns []net.Conn
	wg    sync.WaitGroup
	pings atomic.Int64
}

// dialers is how many connect at a time.
const dialers = 64

func newIdlers(t testing.TB, addr string) *idlers {
	d := &idlers{TB: t, addr: addr}
	t.Cleanup(func() {
		for _, c := range d.conns {
			c.Close()
		}
		d.wg.Wait()
	})
	return d
}

// dial opens n more.
func (d *idlers) dial(n int) {
	d.Helper()
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	for range dialers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := d.one(); err != nil {
					d.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if d.Failed() {
		d.FailNow()
	}
}

func (d *idlers) one() error {
	c, err := net.DialTimeout("tcp", d.addr, patience)
	if err != nil {
		return err
	}
	if *overTLS {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	}
	d.mu.Lock()
	d.conns = append(d.conns, c)
	d.mu.Unlock()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, handshake(d.addr)); err != nil {
		return err
	}
	in := bufio.NewReaderSize(c, 1<<10)
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("handshake: %s", res.Status)
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		return err
	}
	d.wg.Go(func() { d.answer(c, in) })
	return nil
}

// answer answers pings, which are empty, until the connection ends.
func (d *idlers) answer(c net.Conn, in *bufio.Reader) {
	pong := []byte(frameBytes(fin|pongFrame, ""))
	for {
		var head [2]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return
		}
		n := int(head[1])
		if n == 126 {
			var long [2]byte
			if _, err := io.ReadFull(in, long[:]); err != nil {
				return
			}
			n = int(long[0])<<8 | int(long[1])
		}
		if _, err := in.Discard(n); err != nil {
			return
		}
		if head[0] == fin|pingFrame {
			d.pings.Add(1)
			if _, err := c.Write(pong); err != nil {
				return
			}
		}
	}
}

// hold waits: that they are idle is what is measured.
func (d *idlers) hold(length time.Duration) {
	<-time.After(length)
}
