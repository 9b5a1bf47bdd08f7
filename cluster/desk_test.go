package cluster

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// deaf is a messenger whose messages get lost.
type deaf struct{}

func (deaf) Publish(string, []byte) error { return nil }

func (deaf) Subscribe(string, func(string, []byte)) (func(), error) { return func() {}, nil }

// memberDesk is the desk of node a in a region, with an owner called b.
func memberDesk(patience time.Duration) (d *desk, c *Config) {
	config := Config{Node: "a", Patience: patience, Members: &Members{}}.withDefaults()
	d = newDesk(&config, 0, deaf{}, newQueue(100), nil)
	d.follow(&frame{epoch: 1, node: "b", seq: 1})
	return d, &config
}

func sale(c *Config, answered chan<- *protocol.Call) *protocol.Call {
	return &protocol.Call{
		Command: protocol.Command{Op: protocol.OpSell, Key: "k", Lines: []protocol.Line{{SKU: "x", Location: "main", Quantity: 1}}},
		Due:     c.elapsed() + int64(c.Patience), Done: func(call *protocol.Call) { answered <- call },
	}
}

// expire lets the desk look until a call is answered.
func expire(t *testing.T, d *desk, answered <-chan *protocol.Call) *protocol.Call {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(10 * time.Second)
	for {
		select {
		case call := <-answered:
			return call
		case <-tick.C:
			d.send()
		case <-limit:
			t.Fatal("never answered")
		}
	}
}

// A command that an owner may have committed is not said to have done nothing, whatever
// short terms of this node come between.
func TestDoubtOutlivesATerm(t *testing.T) {
	d, c := memberDesk(50 * time.Millisecond)
	answered := make(chan *protocol.Call, 1)
	d.put(sale(c, answered))
	d.send() // published to b
	d.enter(2)
	d.leave(nil)
	if err := expire(t, d, answered).Err; err.Details == nil || err.Details.Outcome != "unknown" {
		t.Fatalf("got %+v", err)
	}
}

// One that was never sent to anybody did nothing, and that is said.
func TestUnsentCommandDidNothing(t *testing.T) {
	d, c := memberDesk(50 * time.Millisecond)
	d.mu.Lock()
	d.owner = ""
	d.mu.Unlock()
	answered := make(chan *protocol.Call, 1)
	d.put(sale(c, answered))
	if err := expire(t, d, answered).Err; err.Code != protocol.CodeUnavailable || err.Details != nil {
		t.Fatalf("got %+v", err)
	}
}

func TestWhatIsShownNeverGoesBack(t *testing.T) {
	d, _ := memberDesk(time.Second)
	d.show(11)
	d.show(10)
	if got := d.applied.Load(); got != 11 {
		t.Fatalf("shows %d", got)
	}
}

// An owner that was followed by another is not believed again.
func TestOldOwnersSignOfLife(t *testing.T) {
	d, _ := memberDesk(time.Second)
	d.follow(&frame{epoch: 3, node: "c", seq: 5})
	d.follow(&frame{epoch: 2, node: "b", seq: 4})
	if owner, alive := d.ownerKnown(); owner != "c" || !alive {
		t.Fatalf("owner %q, alive %v", owner, alive)
	}
}

func FuzzFrame(f *testing.F) {
	f.Add((&frame{epoch: 7, node: "eu-1", seq: 1 << 40, round: []byte("round")}).appendTo(nil))
	f.Add((&frame{}).appendTo(nil))
	f.Add([]byte{frameFormat, 1, 1, 200})
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, err := decodeFrame(b)
		if err != nil {
			return
		}
		again, err := decodeFrame(fr.appendTo(nil))
		if err != nil || again.epoch != fr.epoch || again.seq != fr.seq || again.node != fr.node || !bytes.Equal(again.round, fr.round) {
			t.Fatalf("%+v became %+v, %v", fr, again, err)
		}
	})
}

// sealedWith is a backup with something more behind its shards.
func sealedWith(file []byte, more string) []byte {
	content := append(bytes.Clone(file[:len(file)-sha256.Size]), more...)
	sum := sha256.Sum256(content)
	return append(content, sum[:]...)
}

func FuzzBackup(f *testing.F) {
	f.Add([]byte(protocol.BackupMagic + "{}\n"))
	f.Add([]byte(protocol.BackupMagic + `{"region":"eu","shards":1}` + "\n\x01\x00"))
	f.Add([]byte{})
	early, err := os.ReadFile(filepath.Join("testdata", "early.stockmesh"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(early)
	f.Add(sealedWith(early, revokedMark+"\x00"))
	f.Add(sealedWith(early, revokedMark+"\x10{\"token_id\":\"a\"}\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := parseBackup(bytes.NewReader(b), int64(len(b))); err == nil && len(got.states) != got.Shards {
			t.Fatalf("%d states of %d shards", len(got.states), got.Shards)
		}
	})
}
