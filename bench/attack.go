package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

// The attackers are a process of their own, so that the generator, which measures, has
// its time and memory for itself. Its driver sends one orders as JSON, and then bytes.
const (
	attackGo      = 'g' // attack
	attackPause   = 'p' // end all attacks, and answer with a tally when they have ended
	attackTally   = 'r' // answer with a tally
	attacksAtOnce = 512
)

// orders say what is attacked, and how.
type orders struct {
	Node string `json:"node"` // host:port
	TLS  bool   `json:"tls"`
	Rate int    `json:"rate"` // attacks per second
	Seed uint64 `json:"seed"`

	Kinds []string `json:"kinds"` // none: all
}

// wants reports whether attacks of a kind are asked for, and make sense.
func (o *orders) wants(k *attackKind) bool {
	return (o.TLS || !k.secure) && (len(o.Kinds) == 0 || slices.Contains(o.Kinds, k.name))
}

// attackTallies are what the attackers have done so far.
type attackTallies struct {
	Done   map[string]int64 `json:"done"`   // by kind
	Faults []string         `json:"faults"` // what the node should not have done
}

// attackers run attacks until they are told to pause.
type attackers struct {
	orders
	kinds []attackKind // each as often as its weight
	slots chan struct{}
	bomb  []byte // a message that grows a thousandfold
	next  uint64 // number of the next attack

	mu     sync.Mutex
	tally  attackTallies
	cancel context.CancelFunc // nil: they pause
	wg     sync.WaitGroup
}

// runAttackers serves until its one driver hangs up or the parent ends.
func runAttackers([]string) error {
	ctx, _, cancel := childContext()
	defer cancel()
	if err := stepBack(); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	forget := context.AfterFunc(ctx, func() { os.Exit(0) }) // nothing here is worth tidying
	defer forget()
	if err := announce(addresses{Public: l.Addr().String()}); err != nil {
		return err
	}
	nc, err := l.Accept()
	if err != nil {
		return err
	}
	defer nc.Close()
	return driveAttackers(ctx, nc)
}

func driveAttackers(ctx context.Context, nc net.Conn) error {
	r := bufio.NewReader(nc)
	line, err := r.ReadBytes('\n')
	if err != nil {
		return err
	}
	a := &attackers{slots: make(chan struct{}, attacksAtOnce), tally: attackTallies{Done: make(map[string]int64)}}
	if err := json.Unmarshal(line, &a.orders); err != nil {
		return err
	}
	if a.bomb, err = makeBomb(); err != nil {
		return err
	}
	for _, k := range attackKinds {
		for range k.weight {
			if a.wants(&k) {
				a.kinds = append(a.kinds, k)
			}
		}
	}
	if len(a.kinds) == 0 {
		return errors.New("no attack that makes sense here")
	}
	defer a.pause()
	for {
		what, err := r.ReadByte()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch what {
		case attackGo:
			a.start(ctx)
			continue
		case attackPause:
			a.pause()
		}
		if err := a.report(nc); err != nil {
			return err
		}
	}
}

func (a *attackers) report(w io.Writer) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return json.NewEncoder(w).Encode(&a.tally)
}

func (a *attackers) start(ctx context.Context) {
	ctx, a.cancel = context.WithCancel(ctx)
	a.wg.Go(func() { a.run(ctx) })
}

func (a *attackers) pause() {
	if a.cancel != nil {
		a.cancel()
		a.cancel = nil
	}
	a.wg.Wait()
}

// run begins attacks at their rate, as far as there is room for them.
func (a *attackers) run(ctx context.Context) {
	tick := time.NewTicker(time.Second / time.Duration(a.Rate))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case a.slots <- struct{}{}:
		default:
			continue // as many as may be are under way
		}
		number := a.next
		a.next++
		a.wg.Go(func() {
			defer func() { <-a.slots }()
			a.attack(ctx, number)
		})
	}
}

// attackTime is what an attack may take before it is the node's fault, which has 5 s for
// a handshake and two heartbeats for silence.
const attackTime = 30 * time.Second

// attack runs one attack. Seed and number say all of what it does.
func (a *attackers) attack(ctx context.Context, number uint64) {
	random := rand.New(rand.NewPCG(a.Seed, number))
	kind := a.kinds[random.IntN(len(a.kinds))]
	within, cancel := context.WithTimeout(ctx, attackTime)
	defer cancel()
	t := &thug{orders: &a.orders, bomb: a.bomb, ctx: within, random: random}
	err := kind.run(t)
	t.close()
	a.mu.Lock()
	defer a.mu.Unlock()
	if ctx.Err() != nil {
		return // ended by us: whatever came of it says nothing
	}
	a.tally.Done[kind.name]++
	if err != nil && len(a.tally.Faults) < faultsMax {
		a.tally.Faults = append(a.tally.Faults, fmt.Sprintf("attack %d of seed %d, %s: %v", number, a.Seed, kind.name, err))
	}
}

// thug is one attacker with its connection.
type thug struct {
	*orders
	bomb   []byte
	ctx    context.Context
	random *rand.Rand
	nc     net.Conn
	raw    *net.TCPConn
	r      *bufio.Reader
	undo   func() bool
}

// connect opens a bare connection, which ends with the attack.
func (t *thug) connect() error {
	nc, err := (&net.Dialer{KeepAlive: -1}).DialContext(t.ctx, "tcp", t.Node)
	if err != nil {
		return err
	}
	t.raw, t.nc = nc.(*net.TCPConn), nc
	t.undo = context.AfterFunc(t.ctx, func() { nc.Close() })
	t.r = bufio.NewReader(t.nc)
	return t.raw.SetLinger(0)
}

// secure puts TLS on the connection, where the node wants it.
func (t *thug) secure() error {
	if !t.TLS {
		return nil
	}
	c := tls.Client(t.raw, &tls.Config{InsecureSkipVerify: true}) // whoever it is will be attacked
	t.nc, t.r = c, bufio.NewReader(c)
	return c.HandshakeContext(t.ctx)
}

func (t *thug) reach() error {
	if err := t.connect(); err != nil {
		return err
	}
	return t.secure()
}

func (t *thug) close() {
	if t.raw != nil {
		t.undo()
		_ = t.raw.Close() // reset
	}
}

// send writes as much as the node takes. That it hangs up is what most attacks are for.
func (t *thug) send(b []byte) (ended bool) {
	_, err := t.nc.Write(b)
	return err != nil
}

func (t *thug) mask() (m [4]byte) {
	for i := range m {
		m[i] = byte(t.random.Uint32())
	}
	return m
}

// bytes makes up to most bytes.
func (t *thug) bytes(most int) []byte {
	b := make([]byte, 1+t.random.IntN(most))
	for i := range b {
		b[i] = byte(t.random.Uint32())
	}
	return b
}
