package gossip

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/memberlist"
	"pgregory.net/rapid"
)

func metas() *rapid.Generator[Meta] {
	return rapid.Custom(func(t *rapid.T) Meta {
		text := rapid.StringN(0, 20, 40)
		owns := rapid.SliceOfNDistinct(rapid.IntRange(0, 1023), 0, 300, rapid.ID[int]).Draw(t, "owns")
		return Meta{
			Region:      text.Draw(t, "region"),
			Route:       text.Draw(t, "route"),
			Endpoint:    text.Draw(t, "endpoint"),
			State:       text.Draw(t, "state"),
			Connections: rapid.IntRange(0, 1<<31-1).Draw(t, "connections"),
			Owns:        owns,
			Shards:      rapid.IntRange(0, 1<<31-1).Draw(t, "shards"),
			Founded:     text.Draw(t, "founded"),
			Peers:       text.Draw(t, "peers"),
			WAN:         text.Draw(t, "wan"),
			Links:       text.Draw(t, "links"),
			Batches:     rapid.IntRange(0, 1<<31-1).Draw(t, "batches"),
		}
	})
}

// sorted is what the others see of a Meta.
func sorted(m Meta) Meta {
	m.Owns = slices.Clone(m.Owns)
	slices.Sort(m.Owns)
	if len(m.Owns) == 0 {
		m.Owns = nil
	}
	return m
}

func wantMeta(t rapid.TB, encoded []byte, want Meta, wantLeaving bool) {
	t.Helper()
	got, leaving, err := decodeMeta(encoded)
	if err != nil || leaving != wantLeaving {
		t.Fatalf("leaving %v, error %v", leaving, err)
	}
	if diff := cmp.Diff(sorted(want), got); diff != "" {
		t.Fatal(diff)
	}
}

func TestMetaRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := metas().Draw(t, "meta")
		encoded, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		wantMeta(t, encoded, m, false)
		wantMeta(t, asLeaving(encoded), m, true)
		if n := len(asLeaving(encoded)); n > memberlist.MetaMaxSize {
			t.Fatalf("%d bytes", n)
		}
	})
}

// A newer version adds fields, at any place.
func TestUnknownFieldsAreIgnored(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := metas().Draw(t, "meta")
		encoded, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		tag := rapid.Uint64Range(tagBatches+1, 1<<63).Draw(t, "tag")
		value := rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "value")
		wantMeta(t, appendField(slices.Clone(encoded), tag, value), m, false)
		first := appendField([]byte{metaFormat}, tag, value)
		wantMeta(t, append(first, encoded[1:]...), m, false)
	})
}

func TestMetaRefused(t *testing.T) {
	for name, m := range map[string]Meta{
		"too long":             {Endpoint: strings.Repeat("x", 520)},
		"together too long":    {Region: strings.Repeat("x", 255), Route: strings.Repeat("x", 255)},
		"shard negative":       {Owns: []int{-1}},
		"shard too large":      {Owns: []int{shardMax + 1}},
		"connections negative": {Connections: -1},
		"shards negative":      {Shards: -1},
	} {
		if _, err := m.encode(); !errors.Is(err, ErrMeta) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Two real nodes of different versions must agree on this for ever.
func TestMetaBytes(t *testing.T) {
	got, err := Meta{Region: "eu", Connections: 300, Owns: []int{0, 9}, Shards: 16, Founded: "f"}.encode()
	want := []byte{1, 1, 2, 'e', 'u', 5, 2, 0xac, 2, 6, 2, 1, 2, 7, 1, 16, 8, 1, 'f'}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Fatal(diff, err)
	}
	got, err = Meta{Region: "eu", Peers: "n", WAN: "a:1", Links: "us=b:2"}.encode()
	want = []byte{1, 1, 2, 'e', 'u', 10, 1, 'n', 11, 3, 'a', ':', '1', 12, 6, 'u', 's', '=', 'b', ':', '2'}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Fatal(diff, err)
	}
}

func TestLinkFor(t *testing.T) {
	m := Meta{Route: "all:1", Links: "us=b:2,asia=[::1]:3,odd,=c:4"}
	for region, want := range map[string]string{"us": "b:2", "asia": "[::1]:3", "eu": "all:1", "odd": "all:1", "u": "all:1"} {
		if got := m.LinkFor(region); got != want {
			t.Errorf("%s: %q, want %q", region, got, want)
		}
	}
	if got := (Meta{}).LinkFor("us"); got != "" {
		t.Errorf("%q of nothing", got)
	}
}

func FuzzDecodeMeta(f *testing.F) {
	full, err := Meta{Region: "eu", Route: "a:1", Endpoint: "ws://a", State: "serving", Connections: 7, Owns: []int{1, 8}, Shards: 9, Founded: "x", WAN: "b:2", Links: "us=c:3"}.encode()
	if err != nil {
		f.Fatal(err)
	}
	for _, b := range [][]byte{nil, {0}, {1}, {1, 1}, {1, 1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1}, {1, 5, 0}, {1, 6, 1, 255}, full, asLeaving(full)} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, leaving, err := decodeMeta(b)
		if err != nil {
			if !errors.Is(err, errGarbled) || !cmp.Equal(m, Meta{}) {
				t.Fatalf("%v, %v", m, err)
			}
			return
		}
		// What could be read is a Meta; if it isn't longer than allowed it can be sent.
		again, err := m.encode()
		if err != nil {
			if len(b) > metaBytesMax {
				return
			}
			t.Fatal(err)
		}
		wantMeta(t, again, m, false)
		_ = leaving
	})
}
