package clustertest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// network leads the routes between nodes through this process. Each node has a proxy,
// whose address the others are told; who dials says its name in the first bytes.
//
// A cut pair's connections stay open and swallow what they are sent, as a network does
// that has lost its way. Heal closes those, for bytes are missing in them.
type network struct {
	wg sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	listeners []net.Listener
	routes    map[*route]struct{}
	cuts      map[pair]bool
}

// pair is two nodes' names in order.
type pair [2]string

func pairOf(a, b string) pair {
	if a > b {
		a, b = b, a
	}
	return pair{a, b}
}

// route is one connection between two nodes.
type route struct {
	ends  pair // zero until the dialling node has said its name
	conns [2]net.Conn
	holes bool // has swallowed something
}

func newNetwork() *network {
	return &network{routes: make(map[*route]struct{}), cuts: make(map[pair]bool)}
}

// lead opens the proxy of a node that listens on target, and returns its address.
func (n *network) lead(node, target string) (addr string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // stays open, so any port does
	if err != nil {
		return "", err
	}
	n.mu.Lock()
	n.listeners = append(n.listeners, l)
	n.mu.Unlock()
	n.wg.Go(func() { n.serve(l, node, target) })
	return l.Addr().String(), nil
}

func (n *network) serve(l net.Listener, node, target string) {
	for {
		from, err := l.Accept()
		if err != nil {
			return // closed
		}
		n.wg.Go(func() { n.join(from, node, target) })
	}
}

// join leads one connection to the node until either side ends it.
func (n *network) join(from net.Conn, node, target string) {
	to, err := net.DialTimeout("tcp", target, time.Second)
	if err != nil {
		_ = from.Close() // the node is down; who dials sees that
		return
	}
	r := &route{conns: [2]net.Conn{from, to}}
	if !n.add(r) {
		return
	}
	var sides sync.WaitGroup
	sides.Go(func() { n.copy(r, to, from, node) })
	sides.Go(func() { n.copy(r, from, to, "") })
	sides.Wait()
	n.remove(r)
}

// copy passes on what one side sends. Where node is given, that side is the one that
// dialled it and introduces itself.
func (n *network) copy(r *route, to, from net.Conn, node string) {
	defer r.close() // the other direction too
	if node != "" {
		head, name, err := introduction(from)
		if err != nil {
			return
		}
		n.introduce(r, pairOf(name, node))
		if !n.pass(r, to, head) {
			return
		}
	}
	buf := make([]byte, 32<<10)
	for {
		m, err := from.Read(buf)
		if m > 0 && !n.pass(r, to, buf[:m]) || err != nil {
			return
		}
	}
}

// introduction reads until the dialling server has named itself.
func introduction(from io.Reader) (head []byte, name string, err error) {
	const bytesMax = 64 << 10
	buf := make([]byte, 4<<10)
	for len(head) < bytesMax {
		m, err := from.Read(buf)
		head = append(head, buf[:m]...)
		if name, ok := serverName(head); ok {
			return head, name, nil
		}
		if err != nil {
			return nil, "", err
		}
	}
	return nil, "", fmt.Errorf("no server name in %d bytes", bytesMax)
}

func serverName(head []byte) (string, bool) {
	_, rest, found := bytes.Cut(head, []byte(`"server_name":"`))
	name, _, ended := bytes.Cut(rest, []byte(`"`))
	return string(name), found && ended
}

// pass forwards bytes, or swallows them. It reports whether the route still stands.
func (n *network) pass(r *route, to net.Conn, b []byte) bool {
	n.mu.Lock()
	swallow := n.cuts[r.ends]
	r.holes = r.holes || swallow
	holes := r.holes
	n.mu.Unlock()
	if holes {
		return true
	}
	_, err := to.Write(b)
	return err == nil
}

func (n *network) add(r *route) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		r.close()
		return false
	}
	n.routes[r] = struct{}{}
	return true
}

func (n *network) introduce(r *route, ends pair) {
	n.mu.Lock()
	defer n.mu.Unlock()
	r.ends = ends
}

func (n *network) remove(r *route) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.routes, r)
}

func (r *route) close() {
	for _, c := range r.conns {
		_ = c.Close() // either side may have ended it
	}
}

func (n *network) cut(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cuts[pairOf(a, b)] = true
	for r := range n.routes {
		// Routes with an idle moment ahead have holes from here on too.
		r.holes = r.holes || n.cuts[r.ends]
	}
}

// heal lets everything pass again. Connections that swallowed something can't go on.
func (n *network) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cuts)
	for r := range n.routes {
		if r.holes {
			r.close()
		}
	}
}

// pairs counts the connections of each two nodes that have lost nothing.
func (n *network) pairs() map[pair]int {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := make(map[pair]int)
	for r := range n.routes {
		if !r.holes {
			list[r.ends]++
		}
	}
	return list
}

func (n *network) close() {
	n.mu.Lock()
	n.closed = true
	for _, l := range n.listeners {
		_ = l.Close() // nothing to be done about it
	}
	for r := range n.routes {
		r.close()
	}
	n.mu.Unlock()
	n.wg.Wait()
}
