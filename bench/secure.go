package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// secureConn is a TLS connection with a goroutine of its own. It costs us far more than
// one of the generator's, which nobody measures.
type secureConn struct {
	*tls.Conn
	r *bufio.Reader
}

// dialSecure opens a WebSocket over TLS to a node, as the i-th connection.
func dialSecure(ctx context.Context, t *target, i int) (*secureConn, error) {
	addr := t.nodes[i%len(t.nodes)].Public
	dialer := net.Dialer{KeepAlive: -1, LocalAddr: &net.TCPAddr{IP: sourceAddress(i).AsSlice()}}
	nc, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	config := t.secure.Clone()
	config.ServerName = "127.0.0.1"
	s := &secureConn{Conn: tls.Client(nc, config)}
	s.r = bufio.NewReaderSize(s.Conn, 512)
	undo := context.AfterFunc(ctx, func() { nc.Close() })
	defer undo()
	err = errors.Join(nc.(*net.TCPConn).SetLinger(0), nc.SetDeadline(time.Now().Add(stormPatience)))
	if err == nil {
		_, err = greet(s.Conn, s.r, &url.URL{Host: addr, Path: "/v1/ws"})
	}
	if err = errors.Join(err, nc.SetDeadline(time.Time{})); err != nil {
		nc.Close()
		return nil, err
	}
	return s, nil
}

// listen answers pings, and counts them, until the connection ends.
func (s *secureConn) listen(pings *atomic.Int64) error {
	var mask [4]byte
	_, _ = rand.Read(mask[:]) // never fails
	for {
		f, err := readFrame(s.r)
		if err != nil {
			return err
		}
		switch f.op {
		case opPing:
			if _, err := s.Write(appendClientFrame(nil, opPong, mask, f.payload)); err != nil {
				return err
			}
			pings.Add(1)
		case opClose:
			return closedBy(f.payload)
		}
	}
}

// secureCrowd is many of them.
type secureCrowd struct {
	mu      sync.Mutex
	conns   []*secureConn
	closing atomic.Bool
	pings   atomic.Int64 // heard and answered
	wg      sync.WaitGroup
	lost    chan error // how the first one ended that should have stayed
}

func newSecureCrowd() *secureCrowd { return &secureCrowd{lost: make(chan error, 1)} }

func (c *secureCrowd) add(s *secureConn) {
	c.mu.Lock()
	c.conns = append(c.conns, s)
	c.mu.Unlock()
	c.wg.Go(func() {
		if err := s.listen(&c.pings); !c.closing.Load() {
			select {
			case c.lost <- err:
			default:
			}
		}
	})
}

func (c *secureCrowd) close() {
	c.closing.Store(true)
	c.mu.Lock()
	for _, s := range c.conns {
		_ = s.NetConn().Close() // nothing to be done about it
	}
	c.mu.Unlock()
	c.wg.Wait()
}

// fault returns how a connection ended that should have stayed, if one did.
func (c *secureCrowd) fault() error {
	select {
	case err := <-c.lost:
		return fmt.Errorf("a TLS connection: %w", err)
	default:
		return nil
	}
}

const secureRetry = 500 * time.Millisecond // and up to twice that

// secureStorm is a storm over TLS. A node queues handshakes, and closes a connection
// without a word where it has no room for it, as a word would cost the handshake: so who
// is turned away comes again after a while.
func (r *round) secureStorm(ctx context.Context) error {
	r.progress.counted(fmt.Sprintf("%s: %d TLS connections, arriving at once", r.name, r.count), r.count)
	ctx, cancel := context.WithTimeout(ctx, stormPatience)
	defer cancel()
	crowd, ages := newSecureCrowd(), newLatencies()
	defer crowd.close()
	var retries, failed atomic.Int64
	arrived := make(chan time.Duration)
	begin, from := time.Now(), r.times()
	for i := range r.count {
		go func() {
			s, tries, err := dialPatiently(ctx, r.target, i)
			retries.Add(int64(tries))
			if err != nil {
				failed.Add(1)
			} else {
				crowd.add(s)
			}
			arrived <- time.Since(begin)
		}()
	}
	var last time.Duration
	for i := range r.count {
		last = <-arrived
		ages.add(int64(last), 1)
		r.progress.at(int64(i + 1))
	}
	r.putCPU(from, int64(r.count), "handshake")
	ages.put(r.numbers, "handshake_")
	r.numbers["handshakes_per_second"] = float64(r.count) / last.Seconds()
	r.numbers["turned_away"], r.numbers["hung"] = float64(retries.Load()), float64(failed.Load())
	if n := failed.Load(); n > 0 {
		r.violate("%d of %d had no session within %v", n, r.count, stormPatience)
	}
	return crowd.fault()
}

func dialPatiently(ctx context.Context, t *target, i int) (s *secureConn, tries int, err error) {
	for {
		s, err = dialSecure(ctx, t, i)
		if err == nil || ctx.Err() != nil {
			return s, tries, err
		}
		tries++
		if err := pause(ctx, secureRetry+mathrand.N(secureRetry)); err != nil {
			return nil, tries, err
		}
	}
}
