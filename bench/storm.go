package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

// guests arrive at a node all at once, as after an outage.
type guests struct {
	poller *poller
	list   []*guest
	open   int // those without a fate
	start  time.Time

	served  latencies // from its arrival to its hello
	told    latencies // to the answer when to come back
	lastAt  time.Duration
	counts  [fates]int
	backMax int      // s: the longest pause that was asked for
	faults  []string // of those broken
}

// guest is one who arrives.
type guest struct {
	at   time.Duration // since the start
	in   []byte
	fate fate
}

// fate is what became of a guest.
type fate int

const (
	hung   fate = iota // nothing yet, and in the end: nothing at all
	served             // has its session
	told               // was told when to come back
	broken             // anything else
	fates
)

func newGuests() (*guests, error) {
	p, err := newPoller()
	return &guests{poller: p, served: newLatencies(), told: newLatencies()}, err
}

// portsOfOne is how many connections come from one address: fewer than it has ports.
const portsOfOne = 20000

// sourceAddress is the loopback address from which the i-th connection comes.
func sourceAddress(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, 0, 0, byte(1 + i/portsOfOne)})
}

// arrive begins all connections before it looks at any.
func (g *guests) arrive(to netip.AddrPort, count int) error {
	greeting := []byte(upgrade(&url.URL{Host: to.String(), Path: "/v1/ws"}, ""))
	g.start = time.Now()
	for i := range count {
		at := time.Since(g.start)
		s, err := connect(sourceAddress(i), to, greeting)
		if err == nil {
			err = g.poller.add(s)
		}
		if err != nil {
			return fmt.Errorf("connection %d of %d: %w", i+1, count, err)
		}
		g.list = append(g.list, &guest{at: at})
		g.open++
	}
	return nil
}

// await waits until everybody has a fate, or patience is over.
func (g *guests) await(ctx context.Context, patience time.Duration, step func(done int)) error {
	for end := time.Now().Add(patience); g.open > 0 && time.Now().Before(end); {
		if err := errors.Join(ctx.Err(), g.poller.wait(flowPause, g.got)); err != nil {
			return err
		}
		step(len(g.list) - g.open)
	}
	g.counts[hung] = g.open
	return nil
}

func (g *guests) got(token int, b []byte, err error) {
	v := g.list[token]
	if v.fate != hung {
		g.leave(v, err)
		return
	}
	v.in = append(v.in, b...)
	f, wait, fault := judge(v.in)
	if f == hung && err != nil {
		f, fault = broken, err
	}
	if f == hung {
		return
	}
	now := time.Since(g.start)
	v.fate, v.in = f, nil
	g.open--
	g.counts[f]++
	switch f {
	case served:
		g.served.add(int64(now-v.at), 1)
		g.lastAt = now
	case told:
		g.told.add(int64(now-v.at), 1)
		g.backMax = max(g.backMax, wait)
	}
	g.fault(fault)
	if err != nil {
		_ = g.poller.remove(g.poller.sockets[token]) // it is of no more use
	}
}

// leave deals with the end of a connection whose fate is known: one that is served
// should stay.
func (g *guests) leave(v *guest, err error) {
	if err == nil {
		return
	}
	if v.fate == served {
		v.fate = broken
		g.counts[served]--
		g.counts[broken]++
		g.fault(fmt.Errorf("after its hello: %w", err))
	}
}

func (g *guests) fault(err error) {
	if err != nil && len(g.faults) < faultsMax {
		g.faults = append(g.faults, err.Error())
	}
}

// judge reads what a node has said so far: hung if that is too little, and for those
// who are told to come back after how many seconds.
func judge(b []byte) (f fate, wait int, err error) {
	head := bytes.Index(b, []byte("\r\n\r\n"))
	if head < 0 {
		return hung, 0, nil
	}
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), nil)
	if err != nil {
		return broken, 0, err
	}
	resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusSwitchingProtocols:
		hello, n, err := nextFrame(b[head+4:])
		if n == 0 && err == nil {
			return hung, 0, nil
		}
		if err == nil && !bytes.Contains(hello.payload, []byte(`"op":"hello"`)) {
			err = fmt.Errorf("no hello: %.200s", hello.payload)
		}
		if err != nil {
			return broken, 0, err
		}
		return served, 0, nil
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		if _, err := fmt.Sscan(resp.Header.Get("Retry-After"), &wait); err != nil {
			return broken, 0, fmt.Errorf("%s without a Retry-After", resp.Status)
		}
		return told, wait, nil
	}
	return broken, 0, errors.New(resp.Status)
}

func (g *guests) close() error { return g.poller.close() }
