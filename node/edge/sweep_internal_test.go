package edge

import (
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/node/edge/poll"
	"github.com/stockmesh/stockmesh/protocol"
)

func TestSettlerSeesTheEndOfAStorm(t *testing.T) {
	const never = -1
	for name, tc := range map[string]struct {
		windows   []int64 // how many came and went in each
		notBefore int64   // windows
		over      int     // after which window
	}{
		"nothing":             {[]int64{0, 0, 0}, 0, never},
		"a trickle":           {[]int64{40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40}, 0, never},
		"a gust":              {[]int64{900, 0, 0, 900, 0}, 0, never},
		"a storm":             {[]int64{0, 18000, 3, 0}, 0, 2},
		"a long one":          {[]int64{300, 300, 300, 300, 300, 10, 0}, 0, 5},
		"it goes on":          {[]int64{9000, 9000, 9000, 9000, 9000}, 0, never},
		"collected just now":  {[]int64{0, 18000, 0, 0, 0, 0}, 4, 4},
		"another one at once": {[]int64{18000, 9000, 0}, 0, 2},
	} {
		s, churn := settler{notBefore: tc.notBefore * windowMS}, int64(0)
		over := never
		for i, came := range tc.windows {
			churn += came
			if s.over(int64(i)*windowMS, churn) {
				if over != never {
					t.Errorf("%s: over twice", name)
				}
				over = i
			}
		}
		if over != tc.over {
			t.Errorf("%s: over after window %d, want %d", name, over, tc.over)
		}
	}
}

// sleeper is a loop of which nothing but its sleep is looked at.
func sleeper() *loop {
	config := Config{}.withDefaults()
	l := &loop{edge: &Edge{}, config: &config, listener: &poll.Listener{}, listening: true, now: 100_000}
	l.sweepAt = l.now + 125
	return l
}

// A loop sleeps for a whole round where nothing happens, and a stripe where somebody
// counts on it.
func TestLoopSleepsOverStripes(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*loop)
		want   time.Duration
	}{
		"nothing happens":    {func(*loop) {}, time.Second},
		"there were changes": {func(l *loop) { l.hub.changedAt = (l.now - 2500) * 1000 }, time.Second / 8},
		"changes long ago":   {func(l *loop) { l.hub.changedAt = (l.now - 3500) * 1000 }, time.Second},
		"it drains":          {func(l *loop) { l.drained = &draining{} }, time.Second / 8},
		"a fill waits":       {func(l *loop) { l.hub.waiting = map[*conn]struct{}{{}: {}} }, time.Second / 8},
		"it can't listen":    {func(l *loop) { l.listening = false }, time.Second / 8},
		"many arrive":        {func(l *loop) { l.edge.churn.Add(stormyMin) }, time.Second / 8},
	} {
		l := sleeper()
		tc.change(l)
		if got := l.timeout(l.now * 1000); got != tc.want {
			t.Errorf("%s: sleeps for %v, want %v", name, got, tc.want)
		}
	}
}

// After a sleep all stripes are swept that it was slept over, and none twice.
func TestSweepCatchesUp(t *testing.T) {
	for _, late := range []int64{0, 1, 124, 125, 874, 875, 5000} {
		l := newBench(t)
		for range sweepStripes {
			c := l.openConn()
			c.heardAt, c.pingAt = l.moment(), l.moment()
		}
		from := l.now
		for _, c := range l.slots {
			c.own() // taken away by a sweep
		}
		l.sweepAt = l.now
		l.now += late
		l.sweepDue()
		swept := int64(0)
		for _, c := range l.slots {
			if c.rare == nil {
				swept++
			}
		}
		interval := l.sweepInterval()
		if want := min(sweepStripes, late/interval+1); swept != want {
			t.Errorf("%d ms late: %d stripes are swept, want %d", late, swept, want)
		}
		if next := from + swept*interval; l.sweepAt != max(next, l.now) {
			t.Errorf("%d ms late: the next stripe is due at %d, want %d", late, l.sweepAt-from, max(next, l.now)-from)
		}
	}
}

// Sessions that begin together are not pinged together.
func TestFirstPingsAreSpread(t *testing.T) {
	config := Config{}.withDefaults()
	l := &loop{config: &config, now: 1 << 33}
	period := config.Heartbeat.Milliseconds()
	const sessions, parts = 10_000, 25
	var due [parts]int
	for i := range uint64(sessions) {
		ago := l.ago(l.firstPing(&conn{session: i + 1}))
		if ago < 0 || ago >= period {
			t.Fatalf("session %d was pinged %d ms ago", i+1, ago)
		}
		due[ago*parts/period]++
	}
	for i, n := range due {
		if n < sessions/parts/2 || n > sessions/parts*2 {
			t.Errorf("%d of %d sessions are pinged in part %d of %d", n, sessions, i, parts)
		}
	}
}

// A ping waits for its turn behind what a socket didn't take.
func TestPingBehindAnOutbox(t *testing.T) {
	l := newBench(t)
	c := l.openConn()
	l.say(c, func(b []byte) []byte { return c.codec.AppendMessage(b, protocol.Goaway{Op: "goaway"}) })
	said := len(c.out)
	l.ping(c)
	if h, _, ok := parseHeader(c.out[said:]); !ok || byte(h.OpCode) != opPing || !c.queued {
		t.Errorf("% x follows, and it is to be written: %v", c.out[said:], c.queued)
	}
}
