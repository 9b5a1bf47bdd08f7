package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/cluster/clustertest/loopback"
	"github.com/stockmesh/stockmesh/cluster/ledger"
	"github.com/stockmesh/stockmesh/protocol"
)

// meshPatience bounds every wait of these tests: it is only met where something is broken.
const meshPatience = 30 * time.Second

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), meshPatience)
	defer cancel()
	for !holds() {
		if pause(ctx, 5*time.Millisecond) != nil {
			t.Fatalf("not within %v: %s", meshPatience, what)
		}
	}
}

func freeAddr(t *testing.T) string { return loopback.Addresses(t, 1)[0] }

// meshRegion opens a region of one node until the test ends.
func meshRegion(t *testing.T, name, wan string, change func(*Config), join ...string) *Cluster {
	t.Helper()
	cfg := Config{
		Dir: t.TempDir(), Region: name, Node: name + "-1", KeyWindow: time.Hour, Logger: slog.New(slog.DiscardHandler),
		Mesh: &Mesh{WANGossip: wan, Link: freeAddr(t), JoinRegion: join, RightsTimeout: time.Second},
	}
	if change != nil {
		change(&cfg)
	}
	c, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), meshPatience)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return c
}

// linkedRegions opens regions aa and bb, each of one node, that hear each other. The test
// goes on beside others: it waits more than it works.
func linkedRegions(t *testing.T, change func(*Config)) (aa, bb *Cluster) {
	t.Helper()
	t.Parallel()
	wan := freeAddr(t)
	aa = meshRegion(t, "aa", wan, change)
	bb = meshRegion(t, "bb", freeAddr(t), change, wan)
	eventually(t, "the regions are linked", func() bool {
		return aa.mesh.reachable("bb") && bb.mesh.reachable("aa")
	})
	return aa, bb
}

// begin hands a command over; its answer arrives on the channel.
func begin(t *testing.T, c *Cluster, cmd protocol.Command) <-chan *protocol.Call {
	t.Helper()
	if err := cmd.Check(); err != nil {
		t.Fatal(err)
	}
	answer := make(chan *protocol.Call, 1)
	c.Submit([]*protocol.Call{{Command: cmd, Done: func(call *protocol.Call) { answer <- call }}})
	return answer
}

func await(t *testing.T, answer <-chan *protocol.Call) *protocol.Call {
	t.Helper()
	select {
	case call := <-answer:
		return call
	case <-time.After(meshPatience):
		t.Fatal("never answered")
		return nil
	}
}

func submit(t *testing.T, c *Cluster, cmd protocol.Command) *protocol.Call {
	t.Helper()
	return await(t, begin(t, c, cmd))
}

func mustSubmit(t *testing.T, c *Cluster, cmd protocol.Command) *protocol.Call {
	t.Helper()
	call := submit(t, c, cmd)
	if call.Err != nil {
		t.Fatalf("%s: %v", cmd.Op, call.Err)
	}
	return call
}

func counted(key, sku string, n int64) protocol.Command {
	return protocol.Command{Op: protocol.OpCount, Key: key, SKU: sku, Location: "main", OnHand: &n}
}

func sold(key, sku string, n int64) protocol.Command {
	return protocol.Command{Op: protocol.OpSell, Key: key, Lines: []protocol.Line{{SKU: sku, Location: "main", Quantity: n}}}
}

// adjusted is done by region home, wherever it is sent.
func adjusted(key, sku string, n int64, home string) protocol.Command {
	return protocol.Command{Op: protocol.OpAdjust, Key: key, SKU: sku, Location: "main", Delta: n, Home: home}
}

func mainKey(sku string) protocol.ItemKey { return protocol.ItemKey{SKU: sku, Location: "main"} }

// rowOf is a region's own row of an item; the zero row where it has none.
func rowOf(c *Cluster, sku string) (row ledger.Row) {
	r := c.shardOf(sku).replica
	r.mu.RLock()
	defer r.mu.RUnlock()
	if id, ok := r.state.ID(mainKey(sku)); ok {
		row = r.state.Row(id)
	}
	return row
}

// shownItems is everything that a region shows, of its own and of others.
func shownItems(c *Cluster) []protocol.Item {
	items, _, _ := c.Scan(&protocol.Query{Selector: protocol.Selector{All: true}, Limit: 1 << 10})
	return items
}

// awaitAvailable waits until a region shows that so many units may be sold anywhere.
func awaitAvailable(t *testing.T, c *Cluster, sku string, n int64) {
	t.Helper()
	eventually(t, "the other region's units are shown", func() bool {
		for _, it := range shownItems(c) {
			if it.SKU == sku {
				return it.Available == n
			}
		}
		return n == 0
	})
}

// A region that was removed is not shown any more, whatever still comes in of it; one that
// is taken back is met again though nothing changes that gossip would tell.
func TestRestoredRegionIsMetAgain(t *testing.T) {
	aa, bb := linkedRegions(t, nil)
	mustSubmit(t, bb, counted("c", "x", 100))
	awaitAvailable(t, aa, "x", 100)
	p := aa.mesh.peer("bb")
	if err := aa.RemoveRegion(t.Context(), "bb"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the region is removed", func() bool { return aa.mesh.peer("bb") == nil && isClosed(p.ended) })
	awaitAvailable(t, aa, "x", 0)
	row := ledger.Row{Version: 99, Low: -1, Received: 7}
	p.show([]ledger.PeerRow{{Region: "bb", Key: mainKey("x"), Row: row}})
	awaitAvailable(t, aa, "x", 0)

	awaitQuiet(t, aa.mesh)
	if err := aa.RestoreRegion(t.Context(), "bb"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the region is met again", func() bool { return aa.mesh.reachable("bb") })
	awaitAvailable(t, aa, "x", 100)
}

// awaitQuiet waits until gossip has had nothing to tell for a while: news would make the
// mesh look for regions by itself.
func awaitQuiet(t *testing.T, m *mesh) {
	t.Helper()
	told, since := m.gossip.Members(), time.Now()
	eventually(t, "gossip is quiet", func() bool {
		if now := m.gossip.Members(); !cmp.Equal(told, now) {
			told, since = now, time.Now()
		}
		return time.Since(since) > 3*meshTellEvery
	})
}

// A region that came back from a backup neither sells nor gives away what the one it was
// copied from may have sold; once it is told to, it does.
func TestReadOnlyRegionGivesNoRights(t *testing.T) {
	aa, bb := linkedRegions(t, func(c *Config) { c.Mesh.RightsTimeout = 300 * time.Millisecond })
	mustSubmit(t, bb, counted("c", "x", 100))
	awaitAvailable(t, aa, "x", 100)
	why := "restored from a backup"
	bb.readOnly.Store(&why)
	if call := submit(t, bb, sold("own", "x", 1)); call.Err == nil || call.Err.Code != protocol.CodeUnavailable {
		t.Fatalf("sold in a read-only region: %v", call.Err)
	}
	for _, key := range []string{"s1", "s2", "s3", "s4", "s5"} {
		if call := submit(t, aa, sold(key, "x", 1)); call.Err == nil {
			t.Fatalf("units of a read-only region were sold: %+v", call.Result.Items)
		}
	}
	if granted := rowOf(bb, "x").Granted["aa"]; granted != 0 {
		t.Fatalf("a read-only region gave %d units away", granted)
	}
	bb.readOnly.Store(nil)
	n := 0
	eventually(t, "units are sold once the region is active", func() bool {
		n++
		return submit(t, aa, sold(fmt.Sprint("active", n), "x", 1)).Err == nil
	})
}

// A call that is for a region that can't answer it any more is answered all the same.
func TestCallAfterTheEndIsAnswered(t *testing.T) {
	ends := []struct {
		name string
		end  func(*Cluster)
	}{
		{"the region was removed meanwhile", func(c *Cluster) {
			p := c.mesh.peer("bb")
			p.end()
			<-p.ended
		}},
		{"this node stops", func(c *Cluster) {
			go c.Close(context.Background()) // waited for when the test ends
			p := c.mesh.peer("bb")
			<-p.ended
			p.heard.Store(c.config.elapsed()) // it is not silence that refuses
		}},
	}
	for _, e := range ends {
		t.Run(e.name, func(t *testing.T) {
			aa, _ := linkedRegions(t, nil)
			e.end(aa)
			call := submit(t, aa, adjusted("k", "x", 5, "bb"))
			if call.Err == nil || call.Err.Code != protocol.CodeRegionUnreachable {
				t.Fatalf("got %v", call.Err)
			}
		})
	}
}

// Reads are answered here, also such as name another region's item or place of its log.
func TestReadsStayHere(t *testing.T) {
	aa, bb := linkedRegions(t, nil)
	mustSubmit(t, bb, counted("c", "x", 100))
	awaitAvailable(t, aa, "x", 100)
	t.Run("get ignores home", func(t *testing.T) {
		answer := make(chan *protocol.Call, 1)
		get := protocol.Command{Op: protocol.OpGet, SKUs: []string{"x"}, Home: "bb"}
		aa.Submit([]*protocol.Call{{Command: get, Done: func(c *protocol.Call) { answer <- c }}})
		if call := await(t, answer); call.Err != nil || len(call.Result.Items) != 1 || call.Result.Items[0].Available != 100 {
			t.Fatalf("got %+v, %v", call.Result.Items, call.Err)
		}
	})
	t.Run("a cursor of another life sees everything", func(t *testing.T) {
		q := protocol.Query{Selector: protocol.Selector{All: true}, Limit: 10, Since: protocol.Vector{}.With("bb", 1<<40)}
		if items, _, _ := aa.Scan(&q); len(items) != 1 {
			t.Fatalf("got %+v", items)
		}
	})
	t.Run("a cursor never goes back", func(t *testing.T) {
		told := make(chan protocol.Vector, 1<<10)
		stop := aa.Watch(func(ch *protocol.Changes) { told <- ch.Cursor })
		aa.mesh.marked("bb", 1<<30)
		aa.mesh.marked("bb", 1<<20)
		mustSubmit(t, aa, counted("own", "y", 1))
		stop()
		close(told)
		reached := uint64(0)
		for cursor := range told {
			if n := cursor.Get("bb"); n < reached {
				t.Fatalf("back from %d to %d", reached, n)
			} else {
				reached = n
			}
		}
		if reached != 1<<30 {
			t.Fatalf("reached %d", reached)
		}
	})
}
