package main

import (
	"net"
	"sync"
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
	cut       map[int]bool          // regions
	mute      map[[2]int]bool       // from one region to another no bytes pass
	weather   map[[2]int]conditions // between two regions, the lower first
}

// joint is one connection between two regions.
type joint struct {
	from, to int // who dialled, who listens
	conns    [2]net.Conn
	holes    [2]bool // what each side says has been swallowed, or would have
	ended    chan struct{}
	end      sync.Once
}

// Sides of a joint: what they say goes to the other one.
const (
	dialler = iota
	listener
)

func newWires() *wires {
	return &wires{joints: make(map[*joint]struct{}), cut: make(map[int]bool), mute: make(map[[2]int]bool), weather: make(map[[2]int]conditions)}
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
			w.wg.Go(func() { w.join(&joint{from: from, to: to, ended: make(chan struct{})}, nc, target) })
		}
	})
	return l.Addr().String(), nil
}

// join leads one connection to its target until either side ends it.
func (w *wires) join(j *joint, from net.Conn, target string) {
	to, err := net.DialTimeout("tcp", target, wireDialTimeout)
	if err != nil {
		_ = from.Close() // the node is down; who dials sees that
		return
	}
	j.conns = [2]net.Conn{dialler: from, listener: to}
	defer j.close()
	if !w.add(j) {
		return
	}
	var sides sync.WaitGroup
	sides.Go(func() { w.pass(j, dialler) })
	sides.Go(func() { w.pass(j, listener) })
	sides.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.joints, j)
}

func (w *wires) swallows(j *joint, side int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return j.holes[side]
}

func (w *wires) add(j *joint) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	j.holes = w.severed(j)
	w.joints[j] = struct{}{}
	return !w.closed
}

// severed says which side of a connection is not heard. The caller holds mu.
func (w *wires) severed(j *joint) [2]bool {
	cut := w.cut[j.from] || w.cut[j.to]
	return [2]bool{
		dialler:  cut || w.mute[[2]int{j.from, j.to}],
		listener: cut || w.mute[[2]int{j.to, j.from}],
	}
}

// close ends a connection; also one that is closed.
func (j *joint) close() {
	j.end.Do(func() { close(j.ended) })
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
	return w.bore()
}

// hush lets no bytes pass from one region to another, while those from there do, and
// returns how many connections that hit.
func (w *wires) hush(from, to int) (hit int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mute[[2]int{from, to}] = true
	return w.bore()
}

// bore notes which connections are not whole any more. The caller holds mu.
func (w *wires) bore() (hit int) {
	for j := range w.joints {
		was := j.holes
		for side, severed := range w.severed(j) {
			j.holes[side] = was[side] || severed
		}
		if j.holes != was {
			hit++
		}
	}
	return hit
}

// mend lets everything pass again, on all wires. Connections that have swallowed
// something end.
func (w *wires) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.cut)
	clear(w.mute)
	clear(w.weather)
	w.shed()
}

// rejoin undoes sever for one region.
func (w *wires) rejoin(region int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.cut, region)
	w.shed()
}

// unhush undoes hush.
func (w *wires) unhush(from, to int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.mute, [2]int{from, to})
	w.shed()
}

// shed ends the connections that nothing lies between but what they have swallowed.
// The caller holds mu.
func (w *wires) shed() {
	for j := range w.joints {
		if j.holes != w.severed(j) {
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
