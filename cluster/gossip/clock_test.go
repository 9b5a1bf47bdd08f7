package gossip

import (
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

func TestOffsetOf(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	at := func(age, ahead, rtt time.Duration) clockSample { return clockSample{ahead, rtt, now.Add(-age)} }
	const s, ms = time.Second, time.Millisecond
	for name, c := range map[string]struct {
		samples []clockSample
		want    time.Duration
		known   bool
	}{
		"nothing":        {},
		"one is no word": {samples: []clockSample{at(s, 90*s, ms)}},
		"half the way":   {[]clockSample{at(s, -20*ms, 40*ms), at(2*s, -20*ms, 40*ms)}, 0, true},
		"ahead":          {[]clockSample{at(s, 90*s-5*ms, 10*ms), at(2*s, 90*s-5*ms, 10*ms)}, 90 * s, true},
		"behind":         {[]clockSample{at(s, -90*s-5*ms, 10*ms), at(2*s, -90*s-5*ms, 10*ms)}, -90 * s, true},
		// A node that stood still, or a full queue, makes a clock look late, never early.
		"held up":           {[]clockSample{at(3*s, -5*ms, 10*ms), at(2*s, -40*s, 900*ms), at(s, -3*s, 10*ms)}, 0, true},
		"old ones are gone": {[]clockSample{at(6*time.Minute, 90*s, 0), at(2*s, -5*ms, 10*ms), at(s, -5*ms, 10*ms)}, 0, true},
		"only one is fresh": {samples: []clockSample{at(6*time.Minute, -5*ms, 10*ms), at(s, -5*ms, 10*ms)}},
	} {
		if got, known := offsetOf(c.samples, now); known != c.known || known && got != c.want {
			t.Errorf("%s: %v %v, want %v %v", name, got, known, c.want, c.known)
		}
	}
}

func TestClocksTakeWhatTheyUnderstand(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	ours := newClocks(func() time.Time { return now })
	theirs := newClocks(func() time.Time { return now.Add(3 * time.Second) })
	other := &memberlist.Node{Name: "b"}
	for _, odd := range []struct {
		payload []byte
		rtt     time.Duration
	}{
		{nil, 0}, {[]byte("1234567"), 0}, // an older node, or none of ours
		{theirs.AckPayload(), -1}, {theirs.AckPayload(), clockRTTMax + 1},
	} {
		for range 2 {
			ours.NotifyPingComplete(other, odd.rtt, odd.payload)
		}
		if d, known := ours.offset("b"); known {
			t.Errorf("%d bytes, %v: %v", len(odd.payload), odd.rtt, d)
		}
	}
	for range 3 * clockSamples {
		ours.NotifyPingComplete(other, 0, append(theirs.AckPayload(), "of a newer node"...))
	}
	if d, known := ours.offset("b"); !known || d != 3*time.Second {
		t.Errorf("%v %v", d, known)
	}
	if n := len(ours.members["b"]); n != clockSamples {
		t.Errorf("%d samples are kept", n)
	}
	ours.forget("b")
	if _, known := ours.offset("b"); known {
		t.Error("forgotten, and known")
	}
}

// Members see how far their clocks are apart, until one goes.
func TestClockOffsets(t *testing.T) {
	t.Parallel()
	const skew, tolerance = 90 * time.Second, 2 * time.Second
	a := node(t, "a")
	b := node(t, "b", joining(a.Addr()), func(c *Config) {
		c.Clock = func() time.Time { return time.Now().Add(skew) }
	})
	near := func(g *Gossip, name string, want time.Duration) func() bool {
		return func() bool {
			d, known := g.ClockOffsets()[name]
			return known && (d-want).Abs() < tolerance
		}
	}
	eventually(t, "b is ahead", near(a, "b", skew))
	eventually(t, "a is behind", near(b, "a", -skew))
	if err := b.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b is gone", func() bool { return len(a.ClockOffsets()) == 0 })
}
