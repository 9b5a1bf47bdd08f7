package ledger

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/protocol"
)

func TestGrant(t *testing.T) {
	for _, tt := range []struct {
		name    string
		given   []string
		n, want int64
	}{
		{"of nothing", nil, 1, 0},
		{"as asked", []string{adjustA10}, 4, 4},
		{"as many as are free", []string{adjustA10}, 11, 10},
		{"not what is held", []string{adjustA10, `{"op":"reserve","lines":[{"sku":"A","quantity":4}]}`}, 11, 6},
		{"not the safety stock", []string{adjustA10, `{"op":"configure","sku":"A","safety_stock":8}`}, 11, 2},
		{"none", []string{adjustA10}, 0, 0},
		{"less than none", []string{adjustA10}, -3, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := newDesk(t)
			for _, c := range tt.given {
				k.do(c)
			}
			if got := k.open().Grant(keyA, "us", tt.n); got != tt.want {
				t.Fatalf("granted %d, want %d", got, tt.want)
			}
			if k.draft.Empty() != (tt.want == 0) {
				t.Fatal("a trace of nothing, or none of something")
			}
			before := k.row("A")
			k.commit()
			after := k.row("A")
			if before.Share()-after.Share() != tt.want || after.Granted["us"] != tt.want {
				t.Fatalf("%+v became %+v", before, after)
			}
		})
	}
}

// TestGrantTotals gives twice, in one round and in the next: totals, and the map
// of a row once read stays as it was.
func TestGrantTotals(t *testing.T) {
	k := newDesk(t)
	k.do(adjustA10)
	d := k.open()
	d.Grant(keyA, "us", 1)
	d.Grant(keyA, "us", 2)
	d.Grant(keyA, "asia", 1)
	k.commit()
	old := k.row("A").Granted
	k.open().Grant(keyA, "us", 4)
	k.commit()
	if diff := cmp.Diff(map[string]int64{"us": 7, "asia": 1}, k.row("A").Granted); diff != "" {
		t.Fatalf("-want +got\n%s", diff)
	}
	if old["us"] != 3 {
		t.Fatalf("a row once read now says %v", old)
	}
	if got := k.open().Grant(keyA, "us", 9); got != 2 {
		t.Fatalf("granted %d, want the last 2", got)
	}
}

func TestAccept(t *testing.T) {
	k := newDesk(t)
	for _, tt := range []struct {
		total int64
		want  bool
		taken int64
	}{{5, true, 5}, {5, false, 0}, {3, false, 0}, {8, true, 3}, {0, false, 0}, {-1, false, 0}} {
		if got := k.open().Accept(keyA, "us", tt.total); got != tt.want || k.draft.Empty() == tt.want {
			t.Fatalf("accepting %d: %v, want %v", tt.total, got, tt.want)
		}
		if got := k.draft.Taken()["us"]; got != tt.taken {
			t.Errorf("accepting %d took %d, want %d", tt.total, got, tt.taken)
		}
		k.commit()
	}
	if row := k.row("A"); row.Share() != 8 || row.OnHand() != 0 || row.Version != 2 {
		t.Fatalf("%+v", row)
	}
	wantAnswer(t, k.do(`{"op":"sell","lines":[{"sku":"A","quantity":8}]}`),
		`{"items":[`+shown("A", `"available":0,"on_hand":-8,"reserved":0,"version":"eu:3"`)+`}]}`)
}

func TestStored(t *testing.T) {
	k := newDesk(t)
	k.do(adjustA10)
	row := k.row("A")
	const head = `{"sku":"A","location":"main","region":"eu","version":`
	got := protocol.AppendJSON(nil, row.Stored("eu", 3, keyA))
	wantAnswer(t, string(got), head+`1,"received":10,"removed":0,"sold":0,"held":0,`+
		`"updated_at":"1970-01-01T00:00:01.000Z","position":"eu.3.1.0"}`)

	k.do(`{"op":"configure","sku":"A","low_stock":0,"safety_stock":1,"backorder_limit":2}`)
	k.open().Grant(keyA, "us", 2)
	k.draft.Accept(keyA, "us", 1)
	k.commit()
	row = k.row("A")
	got = protocol.AppendJSON(nil, row.Stored("eu", 3, keyA))
	wantAnswer(t, string(got), head+`4,"received":10,"removed":0,"sold":0,"held":0,"granted":{"us":2},"accepted":{"us":1},`+
		`"safety_stock":1,"backorder_limit":2,"low_stock":0,"updated_at":"1970-01-01T00:00:01.000Z","position":"eu.3.3.1"}`)
}

func TestParseSequence(t *testing.T) {
	region, shard, at, err := ParseSequence("eu.0.1234.2")
	if region != "eu" || shard != 0 || at != (Position{1234, 2}) || err != nil {
		t.Fatal(region, shard, at, err)
	}
	for _, bad := range []string{"", "eu", "eu.0.1", "eu.0.1.2.3", "eu.-1.1.2", "eu.0.x.2", "eu.0.1.4294967296", "eu.99999.1.1"} {
		if _, _, _, err := ParseSequence(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
