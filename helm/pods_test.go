package helm_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/protocol/client"
)

// TestPods starts what the chart renders: the region forms, the chart's own test passes,
// and pods are made anew one by one, moved and killed without a failed command.
func TestPods(t *testing.T) {
	k := newCluster(t, release{values: valuesOpen + "region: eu\ndrain: {delaySeconds: 2, seconds: 1}\nlog: {format: text}"})
	for _, p := range k.pods {
		p.start(t)
	}
	k.await(t, k.pods...)
	for _, p := range k.pods {
		if err := p.probe(k.container.LivenessProbe); err != nil {
			t.Errorf("%s: %v", p.of.name, err)
		}
	}
	k.test(t)

	sellers := sell(t, k)
	for _, p := range k.pods {
		p.stop(t)
		p.start(t)
		k.await(t, p)
	}
	sold := sellers.end(t)
	k.test(t)

	// A machine is lost: its pod comes back elsewhere, with its volume.
	k.pods[1].kill()
	k.move(t, k.pods[1])
	k.pods[1].start(t)
	k.await(t, k.pods...)

	// All are, at once, and nobody is where another one remembers it.
	for _, p := range k.pods {
		p.kill()
	}
	k.move(t, k.pods...)
	for _, p := range k.pods {
		p.start(t)
	}
	k.await(t, k.pods...)
	k.test(t)
	sellers.check(t, k, sold)
}

// test runs the command of the pod that helm test would start.
func (k *cluster) test(t *testing.T) {
	t.Helper()
	c := one(t, k.objects.pods).Spec.Containers[0]
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	words := append(c.Command, c.Args...)
	cmd := k.pods[0].command(ctx, words)
	cmd.Env = nil
	for _, e := range c.Env {
		cmd.Env = append(cmd.Env, e.Name+"="+k.pods[0].here(e.Value))
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v %v: %v\n%s", words, cmd.Env, err, out)
	}
}

const (
	sellersMany  = 8
	callersMany  = 2
	stockOfShirt = 1_000_000
)

// sellers sell one unit after the other until they are told to end.
type sellers struct {
	clients []*client.Client
	stop    context.CancelFunc
	running sync.WaitGroup
	sold    atomic.Int64
	failed  atomic.Int64
	first   atomic.Pointer[error]
}

func sell(t *testing.T, k *cluster) *sellers {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	s := &sellers{stop: stop}
	for range sellersMany {
		c, err := client.Dial(ctx, client.Config{Endpoints: []string{"http://" + k.service.addr}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		s.clients = append(s.clients, c)
	}
	if _, err := s.clients[0].Count(ctx, "shirt", "", stockOfShirt); err != nil {
		t.Fatal(err)
	}
	for _, c := range s.clients {
		s.running.Go(func() {
			for ctx.Err() == nil {
				s.one(c)
			}
		})
	}
	for range callersMany {
		s.running.Go(func() {
			for ctx.Err() == nil {
				s.call("http://" + k.service.addr)
			}
		})
	}
	t.Cleanup(func() { stop(); s.running.Wait() })
	return s
}

// waitsFor is how long a customer would wait.
const waitsFor = 20 * time.Second

// one sells a unit.
func (s *sellers) one(c *client.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), waitsFor)
	defer cancel()
	_, err := c.Adjust(ctx, "shirt", "", -1)
	s.count(err)
}

// call sells a unit as a simple program does: each request by a connection of its own,
// and no second try where the door is closed. What a node asks to send again it does.
func (s *sellers) call(base string) {
	ctx, cancel := context.WithTimeout(context.Background(), waitsFor)
	defer cancel()
	key := rand.Text()
	err := sellOne(ctx, base, key)
	for errors.Is(err, errAgain) {
		select {
		case <-time.After(50 * time.Millisecond):
			err = sellOne(ctx, base, key)
		case <-ctx.Done():
			err = fmt.Errorf("no end of it: %v", err)
		}
	}
	s.count(err)
}

// errAgain is a node's answer that nothing is known to be done, as when the region looks
// for a leader.
var errAgain = errors.New("to be sent again")

func sellOne(ctx context.Context, base, key string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/v1/adjustments", strings.NewReader(`{"sku":"shirt","delta":-1}`))
	if err != nil {
		return err
	}
	request.Header.Set("Idempotency-Key", key)
	request.Close = true
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	switch answer.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusServiceUnavailable:
		return errAgain
	}
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10))
	return fmt.Errorf("%s: %s", answer.Status, text)
}

func (s *sellers) count(err error) {
	if err != nil {
		s.failed.Add(1)
		s.first.CompareAndSwap(nil, &err)
		return
	}
	s.sold.Add(1)
}

// end stops them, and returns how many units are sold.
func (s *sellers) end(t *testing.T) int64 {
	t.Helper()
	s.stop()
	s.running.Wait()
	moved := 0
	for _, c := range s.clients {
		moved += c.Reconnects()
	}
	if failed := s.failed.Load(); failed > 0 {
		t.Fatalf("%d of %d commands failed, the first: %v", failed, failed+s.sold.Load(), *s.first.Load())
	}
	if moved < sellersMany { // each was at some node, and each node was drained
		t.Errorf("%d clients were led elsewhere %d times", sellersMany, moved)
	}
	t.Logf("%d commands, none failed; clients went to another node %d times", s.sold.Load(), moved)
	return s.sold.Load()
}

// check: what was acknowledged is there.
func (s *sellers) check(t *testing.T, k *cluster, sold int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	items, err := s.clients[0].Get(ctx, []string{"shirt"})
	if err != nil || len(items) != 1 || items[0].OnHand != stockOfShirt-sold {
		t.Error(fmt.Errorf("%d units sold of %d, the node shows %v: %w", sold, stockOfShirt, items, err))
	}
}
