package edge_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// follower is a subscriber that checks the order of all it hears.
type follower struct {
	peer    *peer
	pushed  map[string]protocol.Item // the last of each
	replied map[string]uint64        // versions seen in replies
	covers  []covered
	count   int          // snapshot items
	waiting atomic.Int64 // commands not yet answered
}

// covered is what a follower held when it was told a cursor.
type covered struct {
	cursor uint64
	held   map[string]uint64
}

func (w *follower) take(m message) error {
	switch m.Op {
	case "stock":
		for _, it := range m.Items {
			v, name := version(it.Version), it.SKU
			if old := version(w.pushed[name].Version); v < old {
				return fmt.Errorf("%s went from %d back to %d", name, old, v)
			}
			if v < w.replied[name] {
				return fmt.Errorf("%s was pushed at %d after a reply with %d", name, v, w.replied[name])
			}
			w.pushed[name] = it
			if m.Snapshot {
				w.count++
			}
		}
	case "cursor":
		w.cover(m.Cursor)
	}
	if m.Error != nil {
		return m.Error
	}
	return w.reply(m)
}

func (w *follower) cover(cursor string) {
	held := make(map[string]uint64)
	for name, it := range w.pushed {
		held[name] = version(it.Version)
	}
	w.covers = append(w.covers, covered{version(cursor), held})
}

// reply looks at the three kinds of replies that it gets.
func (w *follower) reply(m message) error {
	if m.OK == nil {
		return nil
	}
	if string(m.ID) == `"sub"` {
		var ok subscribed
		if err := json.Unmarshal(m.OK, &ok); err != nil || ok.Items != w.count {
			return fmt.Errorf("%s after %d items, %v", m.raw, w.count, err)
		}
		w.cover(ok.Cursor)
		return nil
	}
	var ok struct {
		Item  *protocol.Item
		Items []protocol.Item
	}
	if err := json.Unmarshal(m.OK, &ok); err != nil {
		return err
	}
	if ok.Item != nil {
		ok.Items = append(ok.Items, *ok.Item)
	}
	for _, it := range ok.Items {
		w.replied[it.SKU] = max(w.replied[it.SKU], version(it.Version))
	}
	return nil
}

// run follows until it holds the final state, asking and changing in between.
func (w *follower) run(skus []string, quiet *atomic.Bool, final *atomic.Pointer[map[string]protocol.Item]) error {
	for n := 0; ; n++ {
		w.peer.setDeadline()
		m, err := w.peer.read()
		if err != nil {
			return err
		}
		if err := w.take(m); err != nil {
			return err
		}
		if want := final.Load(); want != nil && w.holds(*want) {
			return nil
		}
		if string(m.ID) == `"get"` || string(m.ID) == `"set"` {
			w.waiting.Add(-1)
		}
		if n%64 != 0 {
			continue
		}
		if w.waiting.Add(2); quiet.Load() { // counted first, so that no send is overlooked
			w.waiting.Add(-2)
		} else {
			sku := skus[n/64%len(skus)]
			w.peer.sendf(`[{"op":"get","id":"get","skus":["%s"]},{"op":"adjust","id":"set","key":"k","sku":"%s","delta":1}]`, sku, sku)
		}
	}
}

func (w *follower) holds(want map[string]protocol.Item) bool {
	for _, it := range want {
		if w.pushed[it.SKU] != it {
			return false
		}
	}
	return true
}

// Subscribers join all the time while the state changes at full speed. Each must
// end with the state that the ledger ends with, see no item go back, and hold what
// a cursor says it does.
func TestNothingIsMissedAndNothingGoesBack(t *testing.T) {
	f := start(t)
	f.ledger.keepLog = true
	skus := make([]string, 40)
	for i := range skus {
		skus[i] = fmt.Sprintf("sku-%d", i)
	}
	f.ledger.set(0, skus...)
	var final atomic.Pointer[map[string]protocol.Item]
	var quiet atomic.Bool
	var wg sync.WaitGroup
	end := time.Now().Add(1500 * time.Millisecond)
	writing := make(chan struct{})
	go func() {
		defer close(writing)
		for n := int64(0); time.Now().Before(end); n++ {
			f.ledger.set(n, skus[n%int64(len(skus))])
		}
	}()
	var followers []*follower
	for i := 0; time.Now().Before(end); i++ {
		w := &follower{peer: f.dialAs(wireForms[i%len(wireForms)]), pushed: make(map[string]protocol.Item), replied: make(map[string]uint64)}
		followers = append(followers, w)
		all, _ := json.Marshal(skus)
		selector := []string{`"all":true`, `"prefixes":["sku-"]`, `"locations":["main"]`, `"skus":` + string(all), `"all":true,"interval_ms":20`}[i%5]
		w.peer.send(`{"op":"subscribe","id":"sub",` + selector + `}`)
		wg.Go(func() {
			if err := w.run(skus, &quiet, &final); err != nil {
				t.Errorf("follower %d (%s): %v", i, selector, err)
			}
		})
		if i >= 60 {
			break
		}
	}
	<-writing
	quiet.Store(true)
	eventually(t, "all commands answered", func() bool {
		return !slices.ContainsFunc(followers, func(w *follower) bool { return w.waiting.Load() > 0 })
	})
	f.ledger.set(-1, skus...)
	state := f.ledger.all()
	final.Store(&state)
	for _, w := range followers {
		w.peer.send(`{"op":"ping"}`) // so that each looks once more
	}
	wg.Wait()
	checkCursors(t, f.ledger, followers)
	t.Logf("%d followers, %d changes", len(followers), len(f.ledger.log))
}

// checkCursors replays the ledger's log beside what each follower held.
func checkCursors(t *testing.T, l *ledger, followers []*follower) {
	at := make(map[uint64]map[string]uint64)
	for _, w := range followers {
		for _, c := range w.covers {
			at[c.cursor] = nil
		}
	}
	now := make(map[string]uint64)
	for i, id := range l.log {
		now[l.items[id].SKU]++
		if _, wanted := at[uint64(i+1)]; wanted {
			at[uint64(i+1)] = copyOf(now)
		}
	}
	checked := 0
	for i, w := range followers {
		for _, c := range w.covers {
			for sku, v := range at[c.cursor] {
				checked++
				if c.held[sku] < v {
					t.Fatalf("follower %d holds %s at %d, its cursor %d covers %d", i, sku, c.held[sku], c.cursor, v)
				}
			}
		}
	}
	t.Logf("%d versions checked", checked)
}

func copyOf(m map[string]uint64) map[string]uint64 {
	c := make(map[string]uint64, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}
