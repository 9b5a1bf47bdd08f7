package clustertest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// load is what the options of Shop say.
type load struct {
	clients, skus int
	ample         int   // SKUs besides those
	stock         int64 // of each SKU at first, in each region
	stockedIn     string
	pause         time.Duration
	baskets       bool
	expiring      bool
	seed          uint64
}

// ShopOption changes the load of a Shop.
type ShopOption func(*load)

// Clients is how many clients there are, spread over the nodes. Without it 12.
func Clients(n int) ShopOption { return func(l *load) { l.clients = n } }

// SKUs is how many items they fight for. Without it 6.
func SKUs(n int) ShopOption { return func(l *load) { l.skus = n } }

// Seed makes the clients' choices; what they lead to also depends on the nodes.
func Seed(n uint64) ShopOption { return func(l *load) { l.seed = n } }

// Pause is the time between a client's commands. Without it 15 ms.
func Pause(d time.Duration) ShopOption { return func(l *load) { l.pause = d } }

// Baskets lets reserve and sell have several lines. Such a history can't be checked
// for being linearizable item by item.
func Baskets() ShopOption { return func(l *load) { l.baskets = true } }

// Expiring leaves some reservations to their end. Such a history can't be checked for
// being linearizable, as nobody is told when they end.
func Expiring() ShopOption { return func(l *load) { l.expiring = true } }

// Ample adds SKUs whose stock does not run out, and lets a third of the clients sell
// nothing else: they need no other region, see Report.Local.
func Ample(n int) ShopOption { return func(l *load) { l.ample = n } }

// StockedIn gives the items their first stock in one region of a mesh only. Without it
// in each.
func StockedIn(region string) ShopOption { return func(l *load) { l.stockedIn = region } }

// Stock is of each SKU at first. Without it 60.
func Stock(units int64) ShopOption { return func(l *load) { l.stock = units } }

// ampleStock is what nobody can buy in a test.
const ampleStock = 1 << 30

// Shop is a load of clients who sell the same few items, and the account of all that
// they did.
type Shop struct {
	name      string // tells its items and keys from those of other shops
	region    *Region
	load      load
	begun     time.Time
	skus      []string
	ample     []string
	customers []*customer
	ctx       context.Context // of the opening hours
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	shelf     *shelf
	stalls    stallWatch

	mu    sync.Mutex
	marks []Mark
}

// Mark is a moment of a run: a fault that a test made.
type Mark struct {
	Name string
	At   time.Duration
}

// stopWait is how long a client goes on trying to get its last command answered.
const stopWait = 20 * time.Second

// Shop opens the shop: every item gets its stock, then the clients begin.
func (r *Region) Shop(options ...ShopOption) *Shop {
	r.t.Helper()
	r.shops++
	name := fmt.Sprintf("shop%d", r.shops)
	if r.setup.part != nil {
		name = r.Name + "-" + name // not an item of another region's shop
	}
	s := r.shop(name, name, newLoad(12, options), &shelf{}, time.Now())
	s.stockUp()
	s.open()
	return s
}

func newLoad(clients int, options []ShopOption) load {
	l := load{clients: clients, skus: 6, stock: 60, pause: 15 * time.Millisecond, seed: rand.Uint64()}
	for _, o := range options {
		o(&l)
	}
	return l
}

// shop prepares a shop. Shops of the same mesh share their items' names and the shelf;
// their own names make the keys.
func (r *Region) shop(name, items string, l load, shelf *shelf, begun time.Time) *Shop {
	r.t.Helper()
	s := &Shop{name: name, region: r, load: l, begun: begun, shelf: shelf}
	for i := range l.skus {
		s.skus = append(s.skus, fmt.Sprintf("%s-sku-%d", items, i))
	}
	for i := range l.ample {
		s.ample = append(s.ample, fmt.Sprintf("%s-ample-%d", items, i))
	}
	r.t.Logf("%s: seed %d", name, l.seed)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	r.t.Cleanup(s.close)
	for i := range l.clients {
		c, err := newCustomer(s, i)
		if err != nil {
			r.t.Fatalf("client %d: %v", i, err)
		}
		s.customers = append(s.customers, c)
	}
	return s
}

// open lets the clients begin.
func (s *Shop) open() {
	s.region.t.Helper()
	dir := s.region.t.TempDir()
	s.wg.Go(func() { s.stalls.run(s.ctx, dir) })
	for _, c := range s.customers {
		s.wg.Go(func() { c.run(s.ctx) })
	}
}

// stockUp gives every item its first units.
func (s *Shop) stockUp() {
	s.region.t.Helper()
	for _, sku := range s.skus {
		s.give(sku, s.load.stock)
	}
	for _, sku := range s.ample {
		s.give(sku, ampleStock)
	}
}

func (s *Shop) give(sku string, units int64) {
	s.region.t.Helper()
	e := s.customers[0].do(s.ctx, protocol.Command{Op: protocol.OpAdjust, SKU: sku, Delta: units})
	if !e.applied() {
		s.region.t.Fatalf("stock of %s: %v", sku, e.Err)
	}
}

func (s *Shop) now() time.Duration { return time.Since(s.begun) }

// Mark notes the moment of a fault, for the report.
func (s *Shop) Mark(format string, args ...any) {
	m := Mark{fmt.Sprintf(format, args...), s.now()}
	s.region.t.Logf("%s %s", time.Now().UTC().Format("15:04:05.000"), m.Name) // as in the nodes' logs
	s.note(m)
}

func (s *Shop) note(m Mark) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.marks = append(s.marks, m)
}

// AwaitSuccesses waits until n more writes have been acknowledged.
func (s *Shop) AwaitSuccesses(n int) {
	s.region.t.Helper()
	want := s.successes() + n
	s.region.await(fmt.Sprintf("%d more successes", n), readyWait, func(context.Context) error {
		if have := s.successes(); have < want {
			return fmt.Errorf("%d of %d", have, want)
		}
		return nil
	})
}

func (s *Shop) successes() (n int) {
	for _, c := range s.customers {
		n += int(c.acked.Load())
	}
	return n
}

// RunFor lets the shop run on for a while.
func (s *Shop) RunFor(d time.Duration) {
	s.region.t.Helper()
	until := time.Now().Add(d)
	s.region.await("the shop's time", d+lookWait, func(context.Context) error {
		if left := time.Until(until); left > 0 {
			return fmt.Errorf("%v are left", left)
		}
		return nil
	})
}

// Stop closes the shop: the clients get their last commands answered, the region
// converges, and what is still unknown is asked for. All nodes must be up.
func (s *Shop) Stop() *Report {
	s.region.t.Helper()
	s.cancel()
	s.wg.Wait()
	end := s.now()
	s.awaitExpiries()
	s.region.AwaitConverged()
	return s.report(end)
}

// report is what came of the shop, which is closed.
func (s *Shop) report(end time.Duration) *Report {
	s.region.t.Helper()
	r := &Report{shop: s, t: s.region.t, Marks: s.marks, Length: end}
	for _, c := range s.customers {
		c.resolve()
		r.Entries = append(r.Entries, c.entries...)
	}
	r.sum()
	var err error
	if r.Stall, err = s.stalls.result(); err != nil {
		s.region.t.Errorf("watch the machine: %v", err)
	}
	s.close()
	return r
}

// awaitExpiries waits until those reservations have ended which nobody will end, so
// that the items stay as they are.
func (s *Shop) awaitExpiries() {
	s.region.t.Helper()
	for _, c := range s.customers {
		for _, e := range c.entries {
			if e.Command.Op == protocol.OpReserve && e.Command.TTLMS != nil && e.applied() {
				s.awaitEnd(e.Reply.Reservation.ID)
			}
		}
	}
}

func (s *Shop) awaitEnd(id string) {
	s.region.t.Helper()
	node := s.region.Running()[0]
	s.region.await("the end of "+id, convergeWait, func(ctx context.Context) error {
		var answer struct {
			Reservation protocol.Reservation `json:"reservation"`
		}
		err := s.region.fetch(ctx, node.HTTP+"/v1/reservations/"+id, &answer)
		if err == nil && answer.Reservation.State == protocol.Held {
			err = fmt.Errorf("it is held until %v", answer.Reservation.ExpiresAt.Std())
		}
		return err
	})
}

func (s *Shop) close() {
	s.cancel()
	s.wg.Wait()
	for _, c := range s.customers {
		_ = c.client.Close() // closing twice is fine
	}
}

// shelf holds the reservations that may be ended, by whoever takes them.
type shelf struct {
	mu  sync.Mutex
	ids []string
}

func (s *shelf) put(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids = append(s.ids, id)
}

// take returns a reservation. Now and then it leaves it there too, so that two clients
// try to end the same.
func (s *shelf) take(rng *rand.Rand) (id string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ids) == 0 {
		return "", false
	}
	i := rng.IntN(len(s.ids))
	id = s.ids[i]
	if rng.IntN(5) > 0 {
		s.ids[i] = s.ids[len(s.ids)-1]
		s.ids = s.ids[:len(s.ids)-1]
	}
	return id, true
}
