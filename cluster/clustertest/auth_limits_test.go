package clustertest_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/stockmesh/stockmesh/cluster/clustertest"
	"github.com/stockmesh/stockmesh/protocol"
)

const (
	userRate          = 50
	userConnections   = 2
	userSubscriptions = 10
)

// TestLimitsOfUsers: what a user may have and do counts over all nodes of the region.
func TestLimitsOfUsers(t *testing.T) {
	r := clustertest.Start(t, clustertest.Secured(time.Hour), clustertest.Flags(
		"--rate-limit-per-user", fmt.Sprint(userRate), "--max-connections-per-user", fmt.Sprint(userConnections),
		"--max-subscriptions-per-user", fmt.Sprint(userSubscriptions)))
	t.Run("commands", func(t *testing.T) { limitOfCommands(t, r) })
	t.Run("connections", func(t *testing.T) { limitOfConnections(t, r) })
	t.Run("subscriptions", func(t *testing.T) { limitOfSubscriptions(t, r) })
}

// limitOfCommands sends six times as much as is allowed, to all nodes alike: over any five
// seconds after the burst no more than 1.3 times the limit comes through, and soon no less
// than 0.7 times.
func limitOfCommands(t *testing.T, r *clustertest.Region) {
	v, token := newVisitor(t, r.Keys()), r.Keys().Token("greedy", anyStock)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var taken, refused atomic.Int64
	limited := make(chan struct{}, 100)
	var senders sync.WaitGroup
	begun := time.Now()
	for _, n := range r.Nodes() {
		for range 2 {
			senders.Go(func() {
				pace := time.NewTicker(20 * time.Millisecond)
				defer pace.Stop()
				for {
					select {
					case <-ctx.Done():
						return
					case <-pace.C:
					}
					switch status, answer, err := v.ask(http.MethodGet, n.HTTP+"/v1/stock/A", token, ""); {
					case err == nil && status == http.StatusOK:
						taken.Add(1)
					case err == nil && status == http.StatusTooManyRequests:
						refused.Add(1)
						select {
						case limited <- struct{}{}:
						default:
						}
					default:
						t.Errorf("%s: %d %s %v", n, status, answer, err)
						return
					}
				}
			})
		}
	}
	// The burst, a second's worth, is not looked at: it is spent when many are refused.
	timer := time.NewTimer(hang)
	defer timer.Stop()
	for range cap(limited) {
		select {
		case <-limited:
		case <-timer.C:
			t.Fatal("hardly anything was refused")
		}
	}
	// What the nodes let through until they had heard of each other is saved again, over
	// some seconds: so the rate comes up to the limit from below.
	other := r.Keys().Token("modest", anyStock)
	samples := []sample{{time.Now(), taken.Load()}}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for rate := 0.0; rate < 0.7*userRate; {
		<-tick.C
		if err := v.lets(r.Nodes()[len(samples)%3], other); err != nil {
			t.Errorf("another user: %v", err)
		}
		samples = append(samples, sample{time.Now(), taken.Load()})
		last := samples[len(samples)-1]
		for len(samples) > 1 && last.at.Sub(samples[1].at) >= rateWindow {
			samples = samples[1:]
		}
		if window := last.at.Sub(samples[0].at); window >= rateWindow {
			rate = float64(last.taken-samples[0].taken) / window.Seconds()
			if rate > 1.3*userRate {
				t.Fatalf("%.1f commands a second, %d are allowed", rate, userRate)
			}
		}
		if last.at.Sub(begun) > hang {
			t.Fatalf("only %.1f commands a second, %d are allowed", rate, userRate)
		}
	}
	took := time.Since(begun)
	cancel()
	senders.Wait()
	// What node/quota promises from the very first command on.
	most := took.Seconds()*userRate + 4*userRate + 8*userRate
	if got := float64(taken.Load()); got > most {
		t.Errorf("%.0f commands in %v, at most %.0f are promised", got, took, most)
	}
	t.Logf("%d commands in %v, %d refused", taken.Load(), took.Round(time.Millisecond), refused.Load())
}

// rateWindow is the time over which commands are counted.
const rateWindow = 5 * time.Second

// sample is how many commands were let through until then.
type sample struct {
	at    time.Time
	taken int64
}

// tooMany tries a connection at a node until it is refused at the handshake; one that was
// let in before the node had heard of the others is given back.
func (v *visitor) tooMany(n *clustertest.Node, token string) {
	v.t.Helper()
	eventually(v.t, n.Name+" to refuse another connection", hang, func() error {
		s, status := v.dial(n, token)
		switch {
		case s != nil:
			_ = s.conn.CloseNow()
			<-s.ended
			return errors.New("it let one more in")
		case status != http.StatusTooManyRequests:
			v.t.Fatalf("%s: handshake: %d", n, status)
		}
		return nil
	})
}

func limitOfConnections(t *testing.T, r *clustertest.Region) {
	v, nodes, token := newVisitor(t, r.Keys()), r.Nodes(), r.Keys().Token("many", anyStock)
	first, second := v.open(nodes[0], token), v.open(nodes[1], token)
	for _, i := range []int{2, 1, 0} {
		v.tooMany(nodes[i], token)
	}
	for _, s := range []*session{first, second} {
		if code := s.do(`{"op":"get","skus":["A"]}`); code != "ok" {
			t.Errorf("%s: %s", s.node, code)
		}
	}
	// By the auth command it is known only afterwards who comes.
	late := v.open(nodes[2], r.Keys().Token("somebody else", anyStock))
	if code := late.do(`{"op":"auth","token":%q}`, token); code != string(protocol.CodeRateLimited) {
		t.Errorf("auth: %s", code)
	}
	awaitClosed(t, []*session{late}, 4102, goneWithin)

	if err := first.conn.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	var third *session
	eventually(t, "the place of one that has left", 2*time.Second*clustertest.Slow, func() error {
		var status int
		if third, status = v.dial(nodes[2], token); third == nil {
			return fmt.Errorf("handshake: %d", status)
		}
		return nil
	})
	for _, s := range []*session{second, third} {
		if code := s.do(`{"op":"get","skus":["A"]}`); code != "ok" {
			t.Errorf("%s: %s", s.node, code)
		}
	}
	// Many at once, at all nodes: some come in before the others have heard, and have to go.
	crowd := r.Keys().Token("crowd", anyStock)
	var sessions []*session
	for range userConnections {
		for _, n := range nodes {
			if s, _ := v.dial(n, crowd); s != nil {
				sessions = append(sessions, s)
			}
		}
	}
	eventually(t, "the surplus to be closed", hang, func() error {
		open := 0
		for _, s := range sessions {
			select {
			case <-s.ended:
				if s.code != 4102 {
					t.Fatalf("%s: closed with %d", s.node, s.code)
				}
			default:
				open++
			}
		}
		if open > userConnections {
			return fmt.Errorf("%d are open", open)
		}
		return nil
	})
}

func limitOfSubscriptions(t *testing.T, r *clustertest.Region) {
	v, nodes, token := newVisitor(t, r.Keys()), r.Nodes(), r.Keys().Token("curious", anyStock)
	here, there := v.open(nodes[0], token), v.open(nodes[2], token)
	if code := here.do(`{"op":"subscribe","skus":["A","B","C","D","E","F"]}`); code != "ok" {
		t.Fatal(code)
	}
	if code := here.do(`{"op":"subscribe","skus":["G","H","I","J","K"]}`); code != string(protocol.CodeRateLimited) {
		t.Errorf("five more at the same node: %s", code)
	}
	eventually(t, "five more to be refused at another node", hang, func() error {
		code := there.do(`{"op":"subscribe","skus":["G","H","I","J","K"]}`)
		if code == "ok" {
			there.do(`{"op":"unsubscribe"}`)
		}
		if code != string(protocol.CodeRateLimited) {
			return errors.New(code)
		}
		return nil
	})
	if code := there.do(`{"op":"subscribe","skus":["G","H","I","J"]}`); code != "ok" {
		t.Errorf("four more: %s", code)
	}
	if code := there.do(`{"op":"unsubscribe"}`); code != "ok" {
		t.Error(code)
	}
	if code := here.do(`{"op":"unsubscribe"}`); code != "ok" {
		t.Error(code)
	}
	eventually(t, "the other node to hear of it", 2*time.Second*clustertest.Slow, func() error {
		if code := there.do(`{"op":"subscribe","skus":["G","H","I","J","K","L","M","N","O","P"]}`); code != "ok" {
			return errors.New(code)
		}
		return nil
	})
}
