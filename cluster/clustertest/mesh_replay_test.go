package clustertest_test

import (
	"compress/gzip"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/cluster/clustertest"
	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/client"
)

// salesFile is a week of sales of a real shop.
const salesFile = "../../protocol/stockctl/testdata/online-retail-2011-11-21.csv.gz"

// salesRegions are where countries shop.
func salesRegion(country string) string {
	switch country {
	case "United Kingdom":
		return "uk"
	case "USA", "Japan", "Australia", "Unspecified":
		return "world"
	}
	return "europe"
}

// invoice is a real invoice: all or nothing.
type invoice struct {
	id, region string
	sales      []protocol.Line
	returns    []protocol.Line // what came back, as positive quantities
}

// readSales reads the invoices in order of time, those of a customer with many lines too.
func readSales(t *testing.T) (list []*invoice) {
	t.Helper()
	f, err := os.Open(salesFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	plain, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(plain).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	byID := make(map[string]*invoice)
	for _, row := range rows[1:] { // invoiced_at,invoice,sku,quantity,customer,country
		inv := byID[row[1]]
		if inv == nil {
			inv = &invoice{id: row[1], region: salesRegion(row[5])}
			byID[inv.id] = inv
			list = append(list, inv)
		}
		n, err := strconv.ParseInt(row[3], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			inv.sales = summed(inv.sales, row[2], n)
		} else if n < 0 {
			inv.returns = summed(inv.returns, row[2], -n)
		}
	}
	for _, inv := range list {
		// An order of more lines than a command may have is several.
		inv.sales = inv.sales[:min(len(inv.sales), protocol.LinesMax)]
	}
	return list
}

func summed(lines []protocol.Line, sku string, n int64) []protocol.Line {
	for i := range lines {
		if lines[i].SKU == sku {
			lines[i].Quantity += n
			return lines
		}
	}
	return append(lines, protocol.Line{SKU: sku, Location: protocol.DefaultLocation, Quantity: n})
}

// TestMeshSales replays real sales with countries mapped to three regions. All stock is
// entered in one of them. In the middle all regions are cut from each other. The counts
// must be exact; how many sales were refused although there was stock is told.
func TestMeshSales(t *testing.T) {
	m := clustertest.StartMesh(t, clustertest.Regions("europe", "uk", "world"), clustertest.MeshProxies())
	invoices := readSales(t)
	if !*meshLong {
		invoices = spread(invoices, 500)
	}
	run := newSales(t, m, invoices)
	run.open(t, "europe")
	t.Logf("the opening stock was known everywhere after %v", m.AwaitConverged().Round(time.Millisecond))
	length := long(60*time.Second, 8*time.Second)
	cut := long(20*time.Second, 3*time.Second)
	run.play(t, length, length/3, cut)
	t.Logf("equal %v after the last sale", m.AwaitConverged().Round(time.Millisecond))
	run.check(t)
}

// spread takes so many of the invoices, from all of the week.
func spread(all []*invoice, n int) (some []*invoice) {
	for i := range n {
		some = append(some, all[i*len(all)/n])
	}
	return some
}

// sales is a replay and its account.
type sales struct {
	mesh     *clustertest.Mesh
	invoices []*invoice

	mu    sync.Mutex
	cut   bool             // from the cut until all hear each other again
	left  map[string]int64 // by SKU: received, less what is sold or being sold
	sold  int
	tally map[string]int // of refusals
}

func newSales(t *testing.T, m *clustertest.Mesh, invoices []*invoice) *sales {
	t.Helper()
	return &sales{mesh: m, invoices: invoices, left: make(map[string]int64), tally: make(map[string]int)}
}

// scarceEvery is that every so many-th item is short. Of more, hardly an invoice of twenty
// lines could be sold.
const scarceEvery = 100

// open enters the stock in one region: what will be asked for, of some items half.
func (s *sales) open(t *testing.T, region string) {
	t.Helper()
	for _, inv := range s.invoices {
		for _, l := range inv.sales {
			s.left[l.SKU] += l.Quantity
		}
	}
	c := s.mesh.Region(region).Dial()
	var entering sync.WaitGroup
	skus := slices.Sorted(maps.Keys(s.left))
	const callers = 16
	for i := range callers {
		entering.Go(func() {
			for j := i; j < len(skus); j += callers {
				s.enter(t, c, skus[j], j%scarceEvery == 0)
			}
		})
	}
	entering.Wait()
	t.Logf("%d invoices of %d items, all stock in %s", len(s.invoices), len(skus), region)
}

func (s *sales) enter(t *testing.T, c *client.Client, sku string, scarce bool) {
	s.mu.Lock()
	n := s.left[sku]
	if scarce {
		n = (n + 1) / 2
	}
	s.left[sku] = n
	s.mu.Unlock()
	if _, err := c.Count(t.Context(), sku, "", n); err != nil {
		t.Errorf("stock of %s: %v", sku, err)
	}
}

// play sends the invoices at an even rate, each in its region, and cuts all regions from
// each other for a while.
func (s *sales) play(t *testing.T, length, cutAt, cutFor time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), length+2*time.Minute)
	defer cancel()
	queues := make(map[string]chan *invoice)
	var selling sync.WaitGroup
	for _, r := range s.mesh.Regions() {
		queue := make(chan *invoice, len(s.invoices))
		queues[r.Name] = queue
		for range 8 {
			c := r.Dial()
			selling.Go(func() {
				for inv := range queue {
					s.sell(t, ctx, c, inv)
				}
			})
		}
	}
	pace := time.NewTicker(length / time.Duration(len(s.invoices)))
	defer pace.Stop()
	begun := time.Now()
	phase := 0
	for n, inv := range s.invoices {
		switch at := time.Since(begun); {
		case phase == 0 && at > cutAt:
			s.setCut(true)
			s.mesh.CutAll()
			phase++
		case phase == 1 && at > cutAt+cutFor:
			s.mesh.Heal()
			phase++
		case phase == 2 && n%16 == 0 && s.mesh.Linked(ctx) == nil:
			t.Logf("all hear each other %v after healing", (at - cutAt - cutFor).Round(time.Millisecond))
			s.setCut(false)
			phase++
		}
		queues[inv.region] <- inv
		<-pace.C
	}
	for _, q := range queues {
		close(q)
	}
	selling.Wait()
	s.mesh.Heal()
	s.mesh.AwaitLinked()
}

func (s *sales) setCut(cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = cut
}

// sell plays one invoice: what came back is received, the rest is reserved and confirmed.
func (s *sales) sell(t *testing.T, ctx context.Context, c *client.Client, inv *invoice) {
	for i, l := range inv.returns {
		if _, err := c.Adjust(ctx, l.SKU, "", l.Quantity, client.Key(fmt.Sprint("return-", inv.id, "-", i))); err != nil {
			t.Errorf("return %s: %v", inv.id, err)
			return
		}
		s.change([]protocol.Line{l}, 1)
	}
	if len(inv.sales) == 0 {
		return
	}
	enough := s.change(inv.sales, -1) // until it is refused, it is being sold
	held, err := c.Reserve(ctx, inv.sales, client.Key("reserve-"+inv.id))
	if short(err) != nil {
		s.refuse(inv, enough)
		return
	}
	if err == nil {
		_, err = c.Confirm(ctx, held.ID, client.Key("confirm-"+inv.id))
	}
	if err != nil {
		t.Errorf("invoice %s at %s: %v", inv.id, inv.region, err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sold++
}

// change adds the lines to what is left, sign times, and tells whether nothing is below
// zero after it.
func (s *sales) change(lines []protocol.Line, sign int64) (enough bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	enough = true
	for _, l := range lines {
		s.left[l.SKU] += sign * l.Quantity
		enough = enough && s.left[l.SKU] >= 0
	}
	return enough
}

// refuse counts a refusal. There was stock where no other sale under way or done could
// have taken it, neither when the invoice came nor when it was refused.
func (s *sales) refuse(inv *invoice, enough bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range inv.sales {
		enough = enough && s.left[l.SKU] >= 0
		s.left[l.SKU] += l.Quantity
	}
	switch {
	case !enough:
		s.tally["no stock"]++
	case s.cut:
		s.tally["stock existed, regions cut"]++
	default:
		s.tally["stock existed"]++
	}
}

// check compares every node's counts with the account.
func (s *sales) check(t *testing.T) {
	t.Helper()
	t.Logf("%d invoices sold; refused: %d for want of stock, %d although stock existed while regions were cut, %d although stock existed else (%.2f %%)",
		s.sold, s.tally["no stock"], s.tally["stock existed, regions cut"], s.tally["stock existed"],
		100*float64(s.tally["stock existed"])/float64(len(s.invoices)))
	// A machine that is short of time answers late; more than that is a wrong policy.
	if wrong := s.tally["stock existed"]; wrong > len(s.invoices)*clustertest.Slow/20 {
		t.Errorf("%d of %d invoices were refused although stock existed", wrong, len(s.invoices))
	}
	for _, n := range s.mesh.Nodes() {
		items, err := n.Stock(tell(t))
		if err != nil {
			t.Fatal(err)
		}
		var errs []error
		found := 0
		for _, it := range items {
			want, ours := s.left[it.SKU]
			if found++; !ours || it.OnHand != want || it.Reserved != 0 || it.Available != want {
				errs = append(errs, fmt.Errorf("%+v, the account says %d", it, want))
			}
		}
		if found != len(s.left) {
			errs = append(errs, fmt.Errorf("%d of %d items", found, len(s.left)))
		}
		if len(errs) > 0 {
			t.Errorf("%s: %d differences: %v", n, len(errs), errors.Join(errs[:min(len(errs), 5)]...))
		}
	}
}
