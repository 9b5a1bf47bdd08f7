package replay

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/stockmesh/stockmesh/protocol"
)

// book keeps what the replay was told, answer by answer, and so what must be
// found on the node at the end. It asks nobody and knows no time.
type book struct {
	prefix string // of every key of this run

	mu       sync.Mutex
	accounts map[string]*account // by SKU
	holds    map[string]string   // reservation -> invoice
	failures []string
	counts   Counts
}

// account is one SKU's part of the book.
type account struct {
	opening, sold, returned int64
	movements               map[movementID]delta
}

// movementID names a movement that must exist once: by the key of its command,
// an expiry by its reservation.
type movementID struct{ kind, by string }

// delta is what a movement must have changed.
type delta struct{ onHand, reserved int64 }

func newBook(prefix string) *book {
	return &book{prefix: prefix, accounts: map[string]*account{}, holds: map[string]string{}}
}

func (b *book) account(sku string) *account {
	a := b.accounts[sku]
	if a == nil {
		a = &account{movements: map[movementID]delta{}}
		b.accounts[sku] = a
	}
	return a
}

// opened: the SKU was counted at n units.
func (b *book) opened(sku string, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.account(sku).opening = n
}

// returned: the line was put back by the command with this key.
func (b *book) returned(l protocol.Line, key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counts.Returns++
	a := b.account(l.SKU)
	a.returned += l.Quantity
	a.movements[movementID{"adjust", key}] = delta{onHand: l.Quantity}
}

// held: the reservation was made for the invoice.
func (b *book) held(r hold) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.holds[r.id] = r.invoice
	for _, l := range r.lines {
		b.account(l.SKU).movements[movementID{"reserve", r.key}] = delta{reserved: l.Quantity}
	}
}

// confirmed: the reservation was sold by the command with this key.
func (b *book) confirmed(r hold, key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range r.lines {
		a := b.account(l.SKU)
		a.sold += l.Quantity
		a.movements[movementID{"confirm", key}] = delta{onHand: -l.Quantity, reserved: -l.Quantity}
	}
}

// released: the reservation was given back by the command with this key.
func (b *book) released(r hold, key string) {
	b.ended(r, movementID{"release", key})
}

// expired: the reservation ends, or has ended, by itself.
func (b *book) expired(r hold) { b.ended(r, movementID{"expire", r.id}) }

func (b *book) ended(r hold, id movementID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range r.lines {
		b.account(l.SKU).movements[id] = delta{reserved: -l.Quantity}
	}
}

// count changes the counts.
func (b *book) count(change func(*Counts)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(&b.counts)
}

// failed: something went wrong that no answer of the contract explains.
func (b *book) failed(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures = append(b.failures, fmt.Sprintf(format, args...))
}

// check compares one SKU with what the node says of it and returns what is
// different. movements are all that the history holds since the opening.
func (b *book) check(sku string, it protocol.Item, movements []protocol.Movement) []string {
	b.mu.Lock()
	a := b.account(sku)
	b.mu.Unlock()
	return append(a.checkStock(sku, it), a.checkMovements(sku, b.ours(movements))...)
}

// checkStock compares what a node shows of an item.
func (a *account) checkStock(sku string, it protocol.Item) []string {
	var diffs []string
	differ := func(format string, args ...any) {
		diffs = append(diffs, sku+": "+fmt.Sprintf(format, args...))
	}
	if want := a.opening + a.returned - a.sold; it.OnHand != want {
		differ("on_hand is %d, want opening %d + returned %d - sold %d = %d", it.OnHand, a.opening, a.returned, a.sold, want)
	}
	if it.Reserved != 0 {
		differ("reserved is %d, want 0", it.Reserved)
	}
	if it.OnHand < 0 || it.Available < 0 {
		differ("negative: on_hand %d, available %d", it.OnHand, it.Available)
	}
	return diffs
}

// checkPicture compares all that a node shows.
func (b *book) checkPicture(p picture) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var diffs []string
	for _, sku := range slices.Sorted(maps.Keys(b.accounts)) {
		k := protocol.ItemKey{SKU: sku, Location: protocol.DefaultLocation}
		diffs = append(diffs, b.accounts[sku].checkStock(sku, p[k])...)
	}
	return diffs
}

// oversold counts the units that were sold and never there.
func (b *book) oversold() (units int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range b.accounts {
		units += max(0, a.sold-a.opening-a.returned)
	}
	return units
}

// ours picks the movements of this run.
func (b *book) ours(movements []protocol.Movement) []protocol.Movement {
	var ours []protocol.Movement
	for _, m := range movements {
		_, held := b.holds[m.Reservation]
		if m.Type != "count" && (strings.HasPrefix(m.Key, b.prefix) || held) {
			ours = append(ours, m)
		}
	}
	return ours
}

func (a *account) checkMovements(sku string, movements []protocol.Movement) []string {
	var diffs []string
	found := map[movementID]int{}
	for _, m := range movements {
		id := movementID{m.Type, m.Key}
		if m.Type == "expire" {
			id.by = m.Reservation
		}
		want, ok := a.movements[id]
		switch found[id]++; {
		case !ok:
			diffs = append(diffs, fmt.Sprintf("%s: the history holds %s %s (%s), which was never acknowledged", sku, m.Type, id.by, m.Sequence))
		case found[id] > 1:
			diffs = append(diffs, fmt.Sprintf("%s: the history holds %s %s %d times", sku, m.Type, id.by, found[id]))
		case want != (delta{m.OnHandDelta, m.ReservedDelta}):
			diffs = append(diffs, fmt.Sprintf("%s: %s %s changed %+d/%+d, want %+d/%+d", sku, m.Type, id.by, m.OnHandDelta, m.ReservedDelta, want.onHand, want.reserved))
		}
	}
	for _, id := range slices.SortedFunc(maps.Keys(a.movements), compareIDs) {
		if found[id] == 0 {
			diffs = append(diffs, fmt.Sprintf("%s: the history lacks %s %s", sku, id.kind, id.by))
		}
	}
	return diffs
}

func compareIDs(a, b movementID) int { return strings.Compare(a.by+a.kind, b.by+b.kind) }

// picture is all items of the plan as somebody was shown them.
type picture map[protocol.ItemKey]protocol.Item

// differences returns where a picture is not what a node has.
func (p picture) differences(name string, node picture) []string {
	var diffs []string
	for _, k := range slices.SortedFunc(maps.Keys(node), protocol.ItemKey.Compare) {
		n := node[k]
		switch s, ok := p[k]; {
		case !ok:
			diffs = append(diffs, fmt.Sprintf("%s never saw %s at %s", name, k.SKU, k.Location))
		case s != n:
			diffs = append(diffs, fmt.Sprintf("%s sees %s at %s as %s, the node has %s", name, k.SKU, k.Location, itemText(s), itemText(n)))
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(p), protocol.ItemKey.Compare) {
		if _, ok := node[k]; !ok {
			diffs = append(diffs, fmt.Sprintf("%s sees %s at %s, the node does not", name, k.SKU, k.Location))
		}
	}
	return diffs
}

func itemText(it protocol.Item) string {
	return fmt.Sprintf("%d/%d/%d (%s)", it.OnHand, it.Reserved, it.Available, it.Version)
}
