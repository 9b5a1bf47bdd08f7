package bus

import (
	"net"
	"sync"
	"testing"
)

// relay is a TCP proxy before a node's link, which can swallow what it should carry.
type relay struct {
	t      testing.TB
	to     string
	listen net.Listener
	tasks  sync.WaitGroup

	mu    sync.Mutex
	hole  bool
	tried int
	holed map[net.Conn]bool // connections that have lost bytes
	conns map[net.Conn]bool
}

func newRelay(t testing.TB, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{t: t, to: to, listen: l, holed: make(map[net.Conn]bool), conns: make(map[net.Conn]bool)}
	r.tasks.Go(r.accept)
	t.Cleanup(r.close)
	return r
}

func (r *relay) addr() string { return r.listen.Addr().String() }

func (r *relay) accept() {
	for {
		in, err := r.listen.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", r.to)
		if err != nil {
			in.Close()
			continue
		}
		r.mu.Lock()
		r.tried++
		r.conns[in], r.conns[out] = true, true
		r.mu.Unlock()
		r.tasks.Go(func() { r.carry(in, out) })
		r.tasks.Go(func() { r.carry(out, in) })
	}
}

func (r *relay) carry(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			r.mu.Lock()
			delete(r.conns, from)
			r.mu.Unlock()
			return
		}
		r.mu.Lock()
		hole := r.hole || r.holed[from]
		if hole {
			r.holed[from], r.holed[to] = true, true
		}
		r.mu.Unlock()
		if hole {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// cut swallows all bytes from now on; connections stay open.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hole = true
}

// heal carries again, on new connections: those that have lost bytes are closed.
func (r *relay) heal() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hole = false
	for c := range r.holed {
		c.Close()
	}
	clear(r.holed)
}

// drop closes all connections.
func (r *relay) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		c.Close()
	}
}

// tries is how often somebody has dialled.
func (r *relay) tries() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tried
}

func (r *relay) close() {
	r.listen.Close()
	r.drop()
	r.tasks.Wait()
}
