package main

import (
	"io"
	"net"
	"sync"
	"time"
)

// wires lead the links between regions through this process. Every node has one for
// each other region, and tells only that region its address: so it is known which
// regions a connection joins.
//
// A cut wire's connections stay open and swallow what they are sent, as a network
// does that has lost its way. Mending closes those, for bytes are missing in them.
type wires struct {
	wg sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	listeners []net.Listener
	joints    map[*joint]struct{}
	cut       map[int]bool // regions
}

// joint is one connection between two regions.
type joint struct {
	from, to int // who dialled, who listens
	conns    [2]net.Conn
	holes    bool // has swallowed something, or would have
}

func newWires() *wires {
	return &wires{joints: make(map[*joint]struct{}), cut: make(map[int]bool)}
}

// lead opens a wire from a region to an address of another, and returns its own.
func (w *wires) lead(from, to int, target string) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // stays open, so any port does
	if err != nil {
		return "", err
	}
	w.mu.Lock()
	w.listeners = append(w.listeners, l)
	w.mu.Unlock()
	w.wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return // closed
			}
			w.wg.Go(func() { w.join(&joint{from: from, to: to}, nc, target) })
		}
	})
	return l.Addr().String(), nil
}

// join leads one connection to its target until either side ends it.
func (w *wires) join(j *joint, from net.Conn, target string) {
	to, err := net.DialTimeout("tcp", target, time.Second)
	if err != nil {
		_ = from.Close() // the node is down; who dials sees that
		return
	}
	j.conns = [2]net.Conn{from, to}
	defer j.close()
	if !w.add(j) {
		return
	}
	var sides sync.WaitGroup
	sides.Go(func() { w.copy(j, to, from) })
	sides.Go(func() { w.copy(j, from, to) })
	sides.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.joints, j)
}

// copy passes on what one side sends.
func (w *wires) copy(j *joint, to io.Writer, from io.Reader) {
	defer j.close() // the other direction too
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && !w.swallows(j) {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (w *wires) swallows(j *joint) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return j.holes
}

func (w *wires) add(j *joint) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	j.holes = w.severed(j)
	w.joints[j] = struct{}{}
	return !w.closed
}

// severed says whether a cut lies between the ends. The caller holds mu.
func (w *wires) severed(j *joint) bool { return w.cut[j.from] || w.cut[j.to] }

func (j *joint) close() {
	for _, c := range j.conns {
		_ = c.Close() // either side may have ended it
	}
}

// sever cuts regions off from all others and returns how many connections that hit.
func (w *wires) sever(regions ...int) (hit int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range regions {
		w.cut[r] = true
	}
	for j := range w.joints {
		if !j.holes && w.severed(j) {
			j.holes = true
			hit++
		}
	}
	return hit
}

// mend lets everything pass again. Connections that have swallowed something end.
func (w *wires) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.cut)
	for j := range w.joints {
		if j.holes {
			j.close()
		}
	}
}

func (w *wires) close() {
	w.mu.Lock()
	w.closed = true
	for _, l := range w.listeners {
		_ = l.Close() // nothing to be done about it
	}
	for j := range w.joints {
		j.close()
	}
	w.mu.Unlock()
	w.wg.Wait()
}
