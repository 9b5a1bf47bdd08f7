package ledger

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

// TestSnapshotBeforeSettled writes a snapshot of a state that was itself loaded
// and not yet brought forward: it stands for what it was loaded from.
func TestSnapshotBeforeSettled(t *testing.T) {
	k := held(t)
	s := k.loadedAcross(`{"op":"sell","lines":[{"sku":"A","quantity":1}]}`)
	if s.Seq() != 2 || s.Settled() != 3 {
		t.Fatalf("seq %d, settled %d", s.Seq(), s.Settled())
	}
	again, err := Load(bytes.NewReader(snapshotOf(t, s)))
	must(t, err)
	if again.Settled() != 3 {
		t.Fatalf("settled at %d, want 3", again.Settled())
	}
	must(t, checkReplay(k.state, again, k.log, apply))
}

func TestSnapshotErrors(t *testing.T) {
	k := held(t)
	full := errors.New("disk full")
	if _, err := k.state.Snapshot(func([]byte) error { return full }); !errors.Is(err, full) {
		t.Fatal(err)
	}
	rotate := func([]byte) error {
		k.now++
		k.open().Rotate(1)
		k.commit()
		return nil
	}
	if _, err := k.state.Snapshot(rotate); !errors.Is(err, ErrRotated) {
		t.Fatal(err)
	}
	good := snapshotOf(t, k.state)
	other := bytes.Clone(good)
	other[1]++
	for _, tt := range []struct {
		name, in, want string
	}{
		{"nothing", "", "unexpected EOF"},
		{"another format", string(other), "snapshot of format 2, this version reads 1"},
		{"an entry too large", string(good) + "\xff\xff\xff\xff\x0f", ""},
		{"an entry too large at first", "\xff\xff\xff\xff\x0f", "malformed"},
		{"an unknown entry", string(good[:1+good[0]]) + "\x01?", "unknown entry"},
		{"an unknown generation", string(good[:1+good[0]]) + "\x02e\x02", "unknown generation"},
		{"an order that did not end", string(good[:1+good[0]]) + "\x13o\x00sixteen bytes...\x01", "did not end"},
	} {
		_, err := Load(strings.NewReader(tt.in))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if _, err := Load(io.LimitReader(bytes.NewReader(good), 40)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut off: %v", err)
	}
}

// TestDigest changes one thing at a time.
func TestDigest(t *testing.T) {
	seen := map[uint64]string{seedDesk(t).state.Digest(): "as it is"}
	for name, change := range map[string]func(*State){
		"sequence":   func(s *State) { s.seq++ },
		"time":       func(s *State) { s.at++ },
		"epoch":      func(s *State) { s.epoch++ },
		"generation": func(s *State) { s.generation++ },
		"units":      func(s *State) { s.items[0].row.Sold++ },
		"version":    func(s *State) { s.items[0].row.Version++ },
		"last":       func(s *State) { s.items[0].row.Last.Index++ },
		"granted":    func(s *State) { s.items[0].row.Granted["us"]++ },
		"accepted":   func(s *State) { s.items[0].row.Accepted["us"]++ },
		"an item":    func(s *State) { s.items = s.items[1:] },
		"a hold":     func(s *State) { clear(s.live) },
		"ended":      func(s *State) { clear(s.now.ended) },
		"keys":       func(s *State) { clear(s.past.keys.index) },
		"windows":    func(s *State) { s.now, s.past = s.past, s.now },
		"orders":     func(s *State) { clear(s.now.orders) },
		"an order":   func(s *State) { s.now.orders[keyID("o4")] = OrderSold },
		"a part":     func(s *State) { s.live[s.Parts(nil, 1)[0].ID].tie = nil },
		"its age":    func(s *State) { s.live[s.Parts(nil, 1)[0].ID].tie.since++ },
		"its home":   func(s *State) { s.live[s.Parts(nil, 1)[0].ID].tie.home++ },
		"its order":  func(s *State) { s.live[s.Parts(nil, 1)[0].ID].tie.order += "x" },
		"own lines":  func(s *State) { s.live[s.orders["o2 home"]].tie.own[0].Quantity++ },
		"parts":      func(s *State) { s.live[s.orders["o2 home"]].tie.parts[0] = "" },
	} {
		s := seedDesk(t).state
		change(s)
		if same, ok := seen[s.Digest()]; ok {
			t.Errorf("%s: the same digest as %s", name, same)
		}
		seen[s.Digest()] = name
	}
	if seen[seedDesk(t).state.Digest()] != "as it is" {
		t.Error("equal states, different digests")
	}
}

// TestApplyRefuses what does not follow from what was applied before.
func TestApplyRefuses(t *testing.T) {
	event := func(version uint64) []Record {
		return []Record{{Type: TypeSell, Events: []Event{{Version: version}}}}
	}
	for _, tt := range []struct {
		name, want string
		seq        uint64
		records    []Record
	}{
		{"the same round again", "round 2 applied after round 2", 2, nil},
		{"a gap", "round 4 applied after round 2", 4, nil},
		{"a version left out", "version 4 follows 2", 3, event(4)},
		{"a version again", "version 2 follows 2", 3, event(2)},
		{"the end of nothing", "confirm of \"eu.X\", which is not held", 3, []Record{{Type: TypeConfirm, Reservation: "eu.X"}}},
	} {
		k := held(t)
		r := &Round{Items: k.draft.Round().Items, Records: tt.records}
		if err := apply(k.state, r, tt.seq); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
}

// TestStateKeepsNoRound: names that last must not keep whole rounds in memory,
// nor change with a buffer that is used again.
func TestStateKeepsNoRound(t *testing.T) {
	k := seedDesk(t)
	s := NewState("eu", 0)
	for i, b := range k.log {
		r, err := Decode(b)
		must(t, err)
		must(t, apply(s, r, uint64(i+1)))
		clear(b)
		clear(r.Records)
	}
	if s.Digest() != k.state.Digest() {
		t.Fatal("the state changed with the buffer it was read from")
	}
}
