package main

import (
	"io"
	"math/rand/v2"
	"sync"
	"time"
)

const wireDialTimeout = time.Second

// conditions are those of the road between two regions; the zero value: it takes no
// time and holds nothing back.
type conditions struct {
	delay     time.Duration // of each byte, one way
	perSecond int           // bytes of a connection, one way; 0: any number
	lossShare float64       // of what is sent in one piece
}

// What a road is like where a plan says that it is slow or loses packets.
var (
	slowRoad  = conditions{delay: 200 * time.Millisecond, perSecond: 1 << 20}
	lossyRoad = conditions{delay: 5 * time.Millisecond, lossShare: 0.05}
)

// resendAfter is how long TCP waits for what was lost, at first; then twice that, and
// so on. All that was sent behind it waits as well.
const (
	resendAfter = 200 * time.Millisecond
	resendMax   = 4
)

// worsen sets the conditions between two regions, for connections that stand too.
func (w *wires) worsen(a, b int, c conditions) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.weather[pair(a, b)] = c
}

// clear sets the conditions back.
func (w *wires) clear(a, b int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.weather, pair(a, b))
}

func (w *wires) between(j *joint) conditions {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.weather[pair(j.from, j.to)]
}

func pair(a, b int) [2]int { return [2]int{min(a, b), max(a, b)} }

// parcel is bytes that travel.
type parcel struct {
	bytes []byte
	at    time.Time // when they were sent
}

const (
	parcelMax  = 32 << 10
	parcelsMax = 64 // on their way; with more, who sends has to wait
)

// pass carries what one side of a connection says to the other.
func (w *wires) pass(j *joint, side int) {
	defer j.close() // the other direction too
	road := make(chan parcel, parcelsMax)
	var arrivals sync.WaitGroup
	arrivals.Go(func() {
		defer j.close() // nobody would take what is sent from here on
		w.deliver(j, side, road)
	})
	w.collect(j, side, j.conns[side], road)
	close(road)
	arrivals.Wait()
}

// collect puts on the road what is said.
func (w *wires) collect(j *joint, side int, from io.Reader, road chan<- parcel) {
	buf := make([]byte, parcelMax)
	for {
		n, err := from.Read(buf)
		if n > 0 && !w.swallows(j, side) {
			select {
			case road <- parcel{append([]byte(nil), buf[:n]...), time.Now()}:
			case <-j.ended:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// deliver writes what comes down the road from a side, each parcel when its time has
// come. What is on its way when the road is cut does not arrive.
func (w *wires) deliver(j *joint, side int, road <-chan parcel) {
	for p := range road {
		c := w.between(j)
		if c != (conditions{}) && !j.await(p.at.Add(c.delay+c.lost()), c.carrying(len(p.bytes))) {
			return
		}
		if w.swallows(j, side) {
			continue
		}
		if _, err := j.conns[1-side].Write(p.bytes); err != nil {
			return
		}
	}
}

// lost is what a parcel takes longer because it was lost on the way.
func (c conditions) lost() (extra time.Duration) {
	wait := resendAfter
	for range resendMax {
		if rand.Float64() >= c.lossShare {
			break
		}
		extra += wait
		wait *= 2
	}
	return extra
}

// carrying is how long so many bytes occupy the road.
func (c conditions) carrying(n int) time.Duration {
	if c.perSecond == 0 {
		return 0
	}
	return time.Duration(n) * time.Second / time.Duration(c.perSecond)
}

// await waits until due, and in any case so long; false: the connection has ended.
func (j *joint) await(due time.Time, atLeast time.Duration) bool {
	timer := time.NewTimer(max(time.Until(due), atLeast))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-j.ended:
		return false
	}
}
