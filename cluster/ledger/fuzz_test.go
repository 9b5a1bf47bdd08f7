package ledger

import (
	"bytes"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stockmesh/stockmesh/protocol"
)

// seedDesk has lived through every kind of record.
func seedDesk(t testing.TB) *desk {
	k := held(t)
	k.open().Becomes("eu-1")
	k.draft.Rotate(1)
	k.commit()
	k.do(`{"op":"sell","reason":"till 4","reference":"#77","lines":[{"sku":"A","quantity":1}]}`)
	k.do(`{"op":"count","sku":"红色-XL","on_hand":5,"if_version":""}`)
	k.do(`{"op":"move","sku":"A","from":"main","to":"shop","quantity":1}`)
	k.do(`{"op":"configure","sku":"A","safety_stock":1,"low_stock":9007199254740991}`)
	k.do(`{"op":"extend","reservation":"` + firstReservation + `","ttl_ms":9000}`)
	k.do(`{"op":"reserve","user":"u","lines":[{"sku":"A","quantity":1},{"sku":"A","quantity":1}],"ttl_ms":1000}`)
	k.do(on("confirm"))
	k.open().Rotate(0)
	k.commit()
	k.now += 5000
	d := k.open()
	d.Expire(9)
	d.Grant(keyA, "us", 1)
	d.Accept(keyA, "us", 3)
	k.decide(`{"op":"sell","lines":[{"sku":"A","quantity":1}]}`)
	k.commit()
	k.do(`{"op":"reserve","lines":[{"sku":"A","quantity":1}]}`)
	seedOrders(k)
	k.call.Address = "192.0.2.7"
	k.do(adjustA10)
	return k
}

// seedOrders leaves orders over several shards of every kind and in every state.
func seedOrders(k *desk) {
	k.do(adjustA10)
	var ids []string
	for _, id := range []string{"o1", "o2"} {
		part := protocol.Command{Op: protocol.OpReserve, Key: id + "/0", User: "u", Lines: []protocol.Line{lineOf("A", 1)}}
		part.Order = &protocol.Order{ID: id, Home: 1, Part: true}
		decision := orderOf(protocol.OpReserve, id, id+" home", lineOf("A", 1), lineOf("B", 3))
		decision.Order.Parts = []string{"eu.other", "eu.third"}
		k.open()
		for _, c := range []protocol.Command{part, decision} {
			ids = append(ids, k.command(c).Result.Reservation.ID)
		}
		k.commit()
	}
	k.open().Settle(ids[0], true)
	k.decide(`{"op":"confirm","reservation":"` + ids[1] + `"}`)
	k.command(orderOf(protocol.OpSell, "o3", "o3 home", lineOf("A", 1), lineOf("B", 3)))
	k.command(protocol.Command{Op: protocol.OpResolve, Order: &protocol.Order{ID: "o4"}})
	k.commit()
}

// growthMax is how many bytes of memory a byte of input may ask for: a record
// is the largest for what it takes.
const growthMax = 100

// allocated returns the bytes that f asks for.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// FuzzDecode wants no panic, memory in proportion, one form for one round, and
// that applying whatever could be read does not panic either.
func FuzzDecode(f *testing.F) {
	for _, b := range seedDesk(f).log {
		f.Add(b)
	}
	f.Add([]byte{})
	f.Add([]byte{roundFormat})
	f.Add([]byte{roundFormat2})
	f.Add([]byte{3})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r *Round
		var err error
		if n := allocated(func() { r, err = Decode(b) }); n > uint64(len(b))*growthMax+16<<10 {
			t.Fatalf("%d bytes of memory for %d of input", n, len(b))
		}
		if err != nil {
			return
		}
		if again := r.AppendTo(nil); !bytes.Equal(again, b) {
			t.Fatalf("%x was read, %x written", b, again)
		}
		s := NewState("eu", 0)
		if _, err := s.Apply(r, 1); err == nil {
			s.Digest()
			useAll(s, r)
		}
	})
}

// useAll reads everything that a state and a round answer.
func useAll(s *State, r *Round) {
	for i := range s.items {
		s.Item(protocol.ItemID(i))
		row := s.Row(protocol.ItemID(i))
		row.Free()
		for at := row.Last; r != nil && at.Seq == s.Seq(); {
			_, previous, ok := r.Movement("eu", 0, at)
			if !ok || previous.Seq > at.Seq || previous.Index >= at.Index {
				break
			}
			at = previous
		}
	}
	if r != nil {
		for i := range r.Records {
			s.Outcome(r.Records[i].Key)
			s.Reservation(r.Records[i].Reservation)
			if o := r.Records[i].Order; o != nil {
				s.Order(o.ID)
			}
		}
	}
	for id := range s.live {
		s.PartsOf(id)
	}
	d := NewDraft(s)
	d.Reset(s.At(), 0)
	d.Expire(3)
	for _, p := range s.Parts(nil, 3) {
		d.Settle(p.ID, true)
	}
	for order := range s.orders {
		d.Resolve(order)
	}
	s.NextExpiry()
	s.Scan(&protocol.Query{Limit: 10})
}

// FuzzLoad wants no panic, memory in proportion, and that what was loaded can be
// written and loaded again.
func FuzzLoad(f *testing.F) {
	for _, s := range []*State{NewState("eu", 0), held(f).state, seedDesk(f).state} {
		f.Add(snapshotOf(f, s))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var s *State
		var err error
		// The buffers, and a page of keys for each generation, come on top.
		const fixed = entryBytesMax + 3*keyPageBytes
		if n := allocated(func() { s, err = Load(bytes.NewReader(b)) }); n > uint64(len(b))*growthMax+fixed {
			t.Fatalf("%d bytes of memory for %d of input", n, len(b))
		}
		if err != nil {
			return
		}
		useAll(s, nil)
		again, err := Load(bytes.NewReader(snapshotOf(t, s)))
		if err != nil || again.Digest() != s.Digest() || again.Settled() < s.Settled() {
			t.Fatalf("loaded again: %v", err)
		}
	})
}

func snapshotOf(t testing.TB, s *State) []byte {
	var buf bytes.Buffer
	if _, err := s.Snapshot(func(p []byte) error { buf.Write(p); return nil }); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// FuzzOutcome wants no panic, one form for one answer, and that the check of the
// stored form says what decoding says.
func FuzzOutcome(f *testing.F) {
	for _, b := range seedDesk(f).log {
		r, _ := Decode(b)
		for i := range r.Records {
			f.Add(r.Records[i].Outcome)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		res, err := decodeOutcome(b)
		w := writer{}
		w.bytes(b)
		r := reader{b: w.b}
		r.outcome()
		if (r.end() == nil) != (err == nil) {
			t.Fatalf("%x: checked %v, decoded %v", b, r.end(), err)
		}
		if err != nil {
			return
		}
		if again := appendOutcome(nil, &res); !bytes.Equal(again, b) {
			t.Fatalf("%x was read, %x written", b, again)
		}
		protocol.AppendOK(nil, &res)
	})
}

// TestDecodeDamaged cuts and flips real rounds and snapshots: an error or a round,
// never a panic, and never a shorter form of the whole.
func TestDecodeDamaged(t *testing.T) {
	k := seedDesk(t)
	for _, b := range k.log {
		for n := range b {
			if _, err := Decode(b[:n]); err == nil {
				t.Fatalf("%d of %d bytes were read as a round", n, len(b))
			}
		}
		if _, err := Decode(append(bytes.Clone(b), 0)); err == nil {
			t.Fatal("a byte too many was read")
		}
		for i := range len(b) * 8 {
			c := bytes.Clone(b)
			c[i/8] ^= 1 << (i % 8)
			if r, err := Decode(c); err == nil {
				_, _ = NewState("eu", 0).Apply(r, 1)
			}
		}
	}
	snapshot := snapshotOf(t, k.state)
	for n := range snapshot {
		if _, err := Load(bytes.NewReader(snapshot[:n])); err == nil {
			t.Fatalf("%d of %d bytes were read as a snapshot", n, len(snapshot))
		}
	}
}

// TestRoundRoundTrip holds every field of every kind of record through the codec.
func TestRoundRoundTrip(t *testing.T) {
	all := &Round{At: 5, Nonce: 1 << 63, Items: []protocol.ItemKey{{SKU: "红色-XL", Location: "main"}, {SKU: "*", Location: "."}}}
	outcome := appendOutcome(nil, &protocol.Result{Kind: protocol.KindItem, Items: []protocol.Item{{SKU: "s", Version: "eu:1", Low: true}}})
	for typ := TypeAdjust; typ <= TypeAbort; typ++ {
		rec := Record{Type: typ, Epoch: 9, Node: "n"}
		if typ < TypeEpoch {
			rec = Record{
				Type: typ, Key: "k", Print: 7, Reason: "r", Reference: "f", Subject: "s", Address: "::1", Reservation: "eu.X", ExpiresAt: 99,
				User: "u", Lines: []LineRef{{1, 4}, {0, protocol.QuantityMax}}, Outcome: outcome, id: keyID("k"),
				Events: []Event{{Item: 1, Version: 1 << 63, Received: 1 << 62, Removed: -1, Sold: 3, Held: 4, OnHandDelta: -5, ReservedDelta: 6, Previous: Position{7, 8}}},
			}
		}
		switch typ {
		case TypeReserve:
			rec.Order = &protocol.Order{ID: "o", Home: shardsMax - 1, Part: true, Lines: []protocol.Line{}, Parts: []string{}}
		case TypeSell, TypeAbort:
			rec.Order = &protocol.Order{ID: "o", Lines: []protocol.Line{lineOf("红色-XL", 4), lineOf("far", protocol.QuantityMax)}, Parts: []string{"eu.1", "eu.2"}}
		case TypeConfigure:
			rec.Events[0].Safety, rec.Events[0].Backorder, rec.Events[0].Low = 1, 2, -1
		case TypeGrant, TypeAccept:
			rec.Events[0].Peer, rec.Events[0].Total = "us", 11
		}
		all.Records = append(all.Records, rec)
	}
	got, err := Decode(all.AppendTo(nil))
	must(t, err)
	if diff := cmp.Diff(all, got, cmp.AllowUnexported(Round{}, Record{})); diff != "" {
		t.Fatalf("-want +got\n%s", diff)
	}
}
