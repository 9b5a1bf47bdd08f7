package edge_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// BenchmarkFanout pushes one changing item to 1,000 connections; an operation is
// one push that has arrived at one of them.
func BenchmarkFanout(b *testing.B) {
	const connections = 1000
	f := start(b)
	f.ledger.set(0, "hot")
	var arrived, wanted atomic.Int64
	enough := make(chan struct{}, 1)
	var wg sync.WaitGroup
	peers := make([]*peer, connections)
	for i := range peers {
		peers[i] = f.dial()
		peers[i].subscribe(`"skus":["hot"]`)
	}
	for _, p := range peers {
		wg.Go(func() {
			countMessages(p.conn, []byte(`"op":"stock"`), func(n int) {
				if got := arrived.Add(int64(n)); got >= wanted.Load() {
					select {
					case enough <- struct{}{}:
					default:
					}
				}
			})
		})
	}
	b.ReportAllocs()
	b.ResetTimer()
	for n := int64(1); arrived.Load() < int64(b.N); n++ {
		wanted.Store(n * connections)
		f.ledger.set(n, "hot")
		for arrived.Load() < n*connections { // one at a time, as fast as they go
			<-enough
		}
	}
	b.StopTimer()
	for _, p := range peers {
		p.conn.Close()
	}
	wg.Wait()
}

// countMessages counts a word that each message holds once. A message cut in two
// is counted with its second half.
func countMessages(c net.Conn, word []byte, found func(n int)) {
	buf := make([]byte, 64<<10)
	kept := 0
	for {
		m, err := c.Read(buf[kept:])
		if err != nil {
			return
		}
		all := buf[:kept+m]
		if n := bytes.Count(all, word); n > 0 {
			found(n)
			all = all[bytes.LastIndex(all, word)+len(word):]
		}
		kept = copy(buf, all[max(0, len(all)-len(word)+1):])
	}
}

// BenchmarkCommands sends 64 commands at a time over 4 connections to a ledger
// that answers at once; an operation is a command.
func BenchmarkCommands(b *testing.B) {
	const connections, batch = 4, 64
	for name, command := range map[string]string{
		"ping": `{"op":"ping","id":12345}`,
		"sell": `{"op":"adjust","id":12345,"key":"c3-00000012345","sku":"85123A","delta":-1}`,
	} {
		b.Run(name, func(b *testing.B) {
			f := start(b)
			peers := make([]*peer, connections)
			for i := range peers {
				peers[i] = f.dial()
			}
			request := strings.Repeat(frameBytes(fin|text, command), batch)
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for _, p := range peers {
				wg.Go(func() {
					var got atomic.Int64
					word, buf := []byte(`{"id":12345,`), make([]byte, 64<<10)
					for n := 0; n < b.N/connections; n += batch {
						_, _ = io.WriteString(p.conn, request)
						for want := got.Load() + batch; got.Load() < want; {
							m, err := p.in.Read(buf)
							if err != nil {
								b.Error(err)
								return
							}
							got.Add(int64(bytes.Count(buf[:m], word)))
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// BenchmarkIdle reports what an idle connection costs in memory of the process.
func BenchmarkIdle(b *testing.B) {
	const connections = 5000
	f := start(b)
	for range 200 {
		f.dial().conn.Close()
	}
	before := measure(b)
	peers := make([]net.Conn, connections)
	for range b.N {
		for i := range peers {
			c, err := net.Dial("tcp", f.addr)
			if err != nil {
				b.Fatal(err)
			}
			peers[i] = c
			fmt.Fprint(c, handshake(f.addr))
		}
		eventually(b, "all open", func() bool { return f.metric("stockmesh_sessions") == connections })
		both := measure(b).heap - before.heap
		b.ReportMetric(float64(both)/connections, "heap-B/conn")
		for _, c := range peers {
			c.Close()
		}
		eventually(b, "all gone", func() bool { return f.edge.Connections() == 0 })
	}
}
