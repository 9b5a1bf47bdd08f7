package cluster

import (
	"testing"

	"github.com/stockmesh/stockmesh/cluster/ledger"
	"github.com/stockmesh/stockmesh/protocol"
	"pgregory.net/rapid"
)

// What other regions are told never claims more than what they were shown, whatever gets
// lost, whoever decides, and however far the mirrored bucket is.
func TestNewsClaimNothingThatWasNotShown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &peer{name: "us", mesh: &mesh{}, chains: make(map[string]*chain), behind: make(map[string][]logPlace)}
		shown := make(map[uint64]bool) // rounds whose rows were shown
		show := func(from, to uint64) {
			for seq := from + 1; seq <= to; seq++ {
				shown[seq] = true
			}
		}
		var head, bucket uint64 // of the log, of what the mirror has shown
		news := ledger.News{Epoch: 1}
		t.Repeat(map[string]func(*rapid.T){
			"rounds": func(t *rapid.T) { head += rapid.Uint64Range(1, 5).Draw(t, "rounds") },
			"news": func(t *rapid.T) {
				parts := rapid.IntRange(1, 3).Draw(t, "parts")
				arrived := 0
				for n := range parts {
					news.N++
					news.Part = uint64(n)
					news.Prev = news.To
					last := n == parts-1
					if last {
						news.To = head
					}
					if rapid.Bool().Draw(t, "lost") {
						continue
					}
					arrived++
					if last && arrived == parts { // each part has rows of every round, say
						show(news.Prev, news.To)
					}
					p.followed(&news)
				}
			},
			"owner": func(t *rapid.T) {
				head++
				news = ledger.News{Epoch: news.Epoch + 1, To: head}
			},
			"mirror": func(t *rapid.T) {
				bucket = rapid.Uint64Range(bucket, head).Draw(t, "bucket")
				show(0, bucket)
				if p.mark("us", bucket) {
					p.join("us")
				}
			},
			"": func(t *rapid.T) {
				for seq := uint64(1); seq <= p.marks().Get("us"); seq++ {
					if !shown[seq] {
						t.Fatalf("marked up to %v, round %d was not shown", p.marks(), seq)
					}
				}
			},
		})
	})
}

// Without losses the news alone are enough once the mirror has caught up.
func TestNewsMoveTheMark(t *testing.T) {
	p := &peer{name: "us", mesh: &mesh{}, chains: make(map[string]*chain), behind: make(map[string][]logPlace)}
	p.mark("us", 10)
	news := ledger.News{Epoch: 3, To: 10}
	for to := uint64(11); to < 20; to++ {
		news.N, news.Prev, news.To = news.N+1, news.To, to
		p.followed(&news)
		if got := p.marks().Get("us"); got != to {
			t.Fatalf("marked %d, want %d", got, to)
		}
	}
}

// A herald tells each changed row once, as it is then, and up to where.
func TestHeraldTellsChanges(t *testing.T) {
	state := ledger.NewState("eu", 0)
	r, draft := newReplica(state), ledger.NewDraft(state)
	var told []ledger.News
	h := newHerald(r, func(data []byte) {
		news, err := ledger.DecodeNews("eu", data)
		if err != nil {
			t.Fatal(err)
		}
		told = append(told, news)
	})
	count := func(key, sku string, n int64) {
		draft.Reset(protocol.Time(1), state.Seq())
		c := &protocol.Call{Command: protocol.Command{Op: protocol.OpCount, Key: key, SKU: sku, Location: "main", OnHand: &n}}
		if draft.Decide(c); c.Err != nil {
			t.Fatal(c.Err)
		}
		changes, err := r.apply(draft.Round(), state.Seq()+1)
		if err != nil {
			t.Fatal(err)
		}
		h.add(changes.Items, state.Seq())
	}
	h.send() // nothing yet
	count("a", "A", 5)
	count("b", "B", 6)
	count("c", "A", 7)
	h.send()
	h.send()
	if len(told) != 1 || len(told[0].Rows) != 2 || told[0].To != 3 || told[0].N != 1 {
		t.Fatalf("told %+v", told)
	}
	if row := told[0].Rows[0]; row.Key.SKU != "A" || row.Row.OnHand() != 7 || row.Row.Version != 2 {
		t.Fatalf("told %+v", row)
	}
}
