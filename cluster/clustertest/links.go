package clustertest

import (
	"net"
	"sync"
	"time"
)

// linkNet leads the links between regions through this process. Links may be encrypted,
// so nothing in them is read: each node has one proxy for each region that dials it, and
// is told to name that region this proxy's address.
//
// A cut direction swallows what is sent without closing anything, as a network does that
// has lost its way. What has lost bytes can't go on, so heal closes it.
type linkNet struct {
	wg sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	listeners []net.Listener
	links     map[*link]struct{}
	faults    map[way]fault
	flaps     map[pair]*flap
	passed    map[way]int64 // bytes
}

// way is a direction between two regions.
type way struct{ from, to string }

func (w way) back() way { return way{w.to, w.from} }

// fault is what happens to the bytes of a direction.
type fault struct {
	swallow bool
	refuse  bool // connections are closed, and new ones too
	delay   time.Duration
}

// flap cuts two regions and lets them speak again, in turn. Its end is under linkNet.mu.
type flap struct {
	stop  chan struct{}
	ended bool
}

// link is one connection between nodes of two regions. Its holes are under linkNet.mu.
type link struct {
	dials way // from the region that dialled
	conns [2]net.Conn
	holes [2]bool // of both directions: has swallowed something
	gone  chan struct{}
	end   sync.Once
}

// chunk is a piece of what a side sent, and when it may leave the proxy.
type chunk struct {
	due  time.Time
	data []byte
}

const (
	chunkBytesMax = 32 << 10
	chunksMax     = 1024 // that wait in a slow direction
)

func newLinkNet() *linkNet {
	return &linkNet{
		links: make(map[*link]struct{}), faults: make(map[way]fault),
		flaps: make(map[pair]*flap), passed: make(map[way]int64),
	}
}

// lead opens a proxy on host for those of one region who dial a node of another, which
// listens on target, and returns its address.
func (n *linkNet) lead(host string, dials way, target string) (addr string, err error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0")) // stays open, so any port does
	if err != nil {
		return "", err
	}
	n.mu.Lock()
	n.listeners = append(n.listeners, l)
	n.mu.Unlock()
	n.wg.Go(func() { n.serve(l, dials, target) })
	return l.Addr().String(), nil
}

func (n *linkNet) serve(l net.Listener, dials way, target string) {
	for {
		from, err := l.Accept()
		if err != nil {
			return // closed
		}
		n.wg.Go(func() { n.join(from, dials, target) })
	}
}

// join leads one connection until either side ends it.
func (n *linkNet) join(from net.Conn, dials way, target string) {
	to, err := net.DialTimeout("tcp", target, time.Second)
	if err != nil {
		_ = from.Close() // the node is down; who dials sees that
		return
	}
	l := &link{dials: dials, conns: [2]net.Conn{from, to}, gone: make(chan struct{})}
	if !n.add(l) {
		l.close()
		return
	}
	var sides sync.WaitGroup
	for side := range 2 {
		chunks := make(chan chunk, chunksMax)
		sides.Go(func() { n.read(l, side, chunks) })
		sides.Go(func() { n.write(l, side, chunks) })
	}
	sides.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.links, l)
}

// way is the direction of what the side sends: 0 dialled, 1 was dialled.
func (l *link) way(side int) way {
	if side == 0 {
		return l.dials
	}
	return l.dials.back()
}

func (l *link) close() {
	l.end.Do(func() {
		close(l.gone)
		for _, c := range l.conns {
			_ = c.Close() // either side may have ended it
		}
	})
}

func (n *linkNet) add(l *link) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || n.faults[l.dials].refuse {
		return false
	}
	n.links[l] = struct{}{}
	return true
}

// read takes what a side sends, until it ends.
func (n *linkNet) read(l *link, side int, chunks chan<- chunk) {
	defer close(chunks)
	for {
		buf := make([]byte, chunkBytesMax)
		m, err := l.conns[side].Read(buf)
		if m > 0 {
			select {
			case chunks <- chunk{time.Now().Add(n.delay(l.way(side))), buf[:m]}:
			case <-l.gone:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (n *linkNet) delay(w way) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.faults[w].delay
}

// write passes on what a side sent, each piece when it is due, and ends the link after
// the last one.
func (n *linkNet) write(l *link, side int, chunks <-chan chunk) {
	defer l.close()
	for c := range chunks {
		if wait := time.Until(c.due); wait > 0 {
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-l.gone:
				timer.Stop()
				return
			}
		}
		if n.swallows(l, side, len(c.data)) {
			continue
		}
		if _, err := l.conns[1-side].Write(c.data); err != nil {
			return
		}
	}
}

// swallows tells whether what the side sent is lost. After the first loss all is: later
// bytes would not make sense to the other side.
func (n *linkNet) swallows(l *link, side, size int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	w := l.way(side)
	l.holes[side] = l.holes[side] || n.faults[w].swallow
	if !l.holes[side] {
		n.passed[w] += int64(size)
	}
	return l.holes[side]
}

// change alters what happens to a direction's bytes.
func (n *linkNet) change(w way, change func(f *fault)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.changeLocked(w, change)
}

func (n *linkNet) changeLocked(w way, change func(f *fault)) {
	f := n.faults[w]
	change(&f)
	n.faults[w] = f
}

// cut swallows what one region sends to another.
func (n *linkNet) cut(w way) { n.change(w, func(f *fault) { f.swallow = true }) }

// slow delays what both send.
func (n *linkNet) slow(w way, delay time.Duration) {
	for _, w := range []way{w, w.back()} {
		n.change(w, func(f *fault) { f.delay = delay })
	}
}

// sever closes the connections of two regions, and all that they try.
func (n *linkNet) sever(w way) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range []way{w, w.back()} {
		n.changeLocked(w, func(f *fault) { f.refuse = true })
	}
	for l := range n.links {
		if l.dials == w || l.dials == w.back() {
			l.close()
		}
	}
}

// heal ends all faults. Links that have swallowed something can't go on.
func (n *linkNet) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.faults)
	for _, f := range n.flaps {
		f.endLocked()
	}
	clear(n.flaps)
	for l := range n.links {
		l.closeHoled()
	}
}

func (l *link) closeHoled() {
	if l.holes[0] || l.holes[1] {
		l.close()
	}
}

func (f *flap) endLocked() {
	if !f.ended {
		f.ended = true
		close(f.stop)
	}
}

// flap cuts two regions for a period, lets them speak for one, and so on until heal.
func (n *linkNet) flap(w way, period time.Duration) {
	f := &flap{stop: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	p := pairOf(w.from, w.to)
	if before := n.flaps[p]; before != nil {
		before.endLocked()
	}
	n.flaps[p] = f
	n.wg.Go(func() { n.runFlap(f, w, period) })
}

func (n *linkNet) runFlap(f *flap, w way, period time.Duration) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for cut := true; n.turn(f, w, cut); cut = !cut {
		select {
		case <-tick.C:
		case <-f.stop:
			return
		}
	}
}

// turn cuts or mends two regions, unless the flap has ended.
func (n *linkNet) turn(f *flap, w way, cut bool) (goesOn bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if f.ended {
		return false
	}
	for _, w := range []way{w, w.back()} {
		n.changeLocked(w, func(f *fault) { f.swallow = cut })
	}
	for l := range n.links {
		if !cut && pairOf(l.dials.from, l.dials.to) == pairOf(w.from, w.to) {
			l.closeHoled()
		}
	}
	return true
}

// bytes is what has gone from one region to another.
func (n *linkNet) bytes(w way) int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.passed[w]
}

// standing counts the links of two regions that have lost nothing.
func (n *linkNet) standing(a, b string) (count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for l := range n.links {
		if pairOf(l.dials.from, l.dials.to) == pairOf(a, b) && !l.holes[0] && !l.holes[1] {
			count++
		}
	}
	return count
}

func (n *linkNet) close() {
	n.mu.Lock()
	n.closed = true
	for _, l := range n.listeners {
		_ = l.Close() // nothing to be done about it
	}
	for _, f := range n.flaps {
		f.endLocked()
	}
	for l := range n.links {
		l.close()
	}
	n.mu.Unlock()
	n.wg.Wait()
}
