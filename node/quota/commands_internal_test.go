package quota

import (
	"fmt"
	"testing"
)

// steadily is a load that stays as it is.
func steadily(v ...float64) load { return func(int64) []float64 { return v } }

// hopping is one client that sends at a rate, each period at the next node.
func hopping(w *world, rate, period float64) load {
	v := make([]float64, len(w.nodes))
	return func(now int64) []float64 {
		clear(v)
		v[int(float64(now)/1e9/period)%len(v)] = rate
		return v
	}
}

// split divides a load by chance. Some nodes get nothing.
func (w *world) split(rate float64) load {
	v, all := make([]float64, len(w.nodes)), 0.0
	for i := range v {
		if w.rand.IntN(4) > 0 || i == len(v)-1 {
			v[i] = w.rand.ExpFloat64()
			all += v[i]
		}
	}
	for i := range v {
		v[i] *= rate / all
	}
	return steadily(v...)
}

// Once burst and a second's worth are gone, no window of 10 s lets more than 1.05 of
// the limit through, however the load is split; and what there is gets used.
func TestSteadySumIsWithinTheLimit(t *testing.T) {
	const limit = 200
	for _, nodes := range []int{3, 5} {
		for _, loss := range []float64{0, 0.1} {
			for _, part := range []float64{0.8, 1.2, 1.5, 3, 20} {
				for seed := range uint64(2) {
					w := newWorld(t, seed, nodes, Limits{Commands: limit})
					w.loss = loss
					l := w.split(part * limit)
					w.run(20, true, l)
					u := w.run(30, true, l)
					name := fmt.Sprintf("%d nodes, loss %.1f, load %.1f, seed %d", nodes, loss, part, seed)
					if got := peak(u.passed, 10); got > limit*10*105/100 {
						t.Errorf("%s: %d in 10 s", name, got)
					}
					if got, least := total(u.passed), min(part, 1)*limit*30*0.95; float64(got) < least {
						t.Errorf("%s: %d in 30 s, at least %.0f should be", name, got, least)
					}
				}
			}
		}
	}
}

// Whatever clients do, in any window of T seconds no more goes through than
// limit x T + (nodes + 1) x burst + (nodes + 5) x limit, as DESIGN.md has it.
func TestSumIsBounded(t *testing.T) {
	const limit = 100
	for _, nodes := range []int{2, 3, 5} {
		for _, burst := range []int{1, 100, 500} {
			for name, l := range map[string]func(*world) load{
				"flood":      func(w *world) load { return w.pulsing(1e9, 0) },
				"pulses":     func(w *world) load { return w.pulsing(1, 3) },
				"rare":       func(w *world) load { return w.pulsing(2, 10) },
				"round":      func(w *world) load { return hopping(w, -1, 1) },
				"round slow": func(w *world) load { return hopping(w, -1, 3) },
				"random":     (*world).moody,
			} {
				w := newWorld(t, 7, nodes, Limits{Commands: limit, Burst: burst})
				u := w.run(40, false, l(w))
				if got, bound := excess(u.passed, limit), float64((nodes+1)*burst+(nodes+5)*limit); got > bound {
					t.Errorf("%d nodes, burst %d, %s: %.0f above the limit, at most %.0f may be", nodes, burst, name, got, bound)
				}
			}
		}
	}
}

// excess is by how much a window lets more through than the limit, at most.
func excess(steps []int, limit float64) float64 {
	most, sum := 0.0, 0.0
	for _, n := range steps {
		sum = max(0, sum+float64(n)-limit*float64(stepNS)/1e9)
		most = max(most, sum)
	}
	return most
}

// pulsing is clients at all nodes that send what they can for on seconds, and nothing
// for off seconds.
func (w *world) pulsing(on, off float64) load {
	v := make([]float64, len(w.nodes))
	return func(now int64) []float64 {
		at := float64(now) / 1e9
		at -= float64(int(at/(on+off))) * (on + off)
		for i := range v {
			v[i] = 0
			if at < on {
				v[i] = -1
			}
		}
		return v
	}
}

// moody is clients that think anew every other second.
func (w *world) moody() load {
	v, next := make([]float64, len(w.nodes)), int64(0)
	return func(now int64) []float64 {
		if now < next {
			return v
		}
		next = now + int64(w.rand.ExpFloat64()*2e9)
		for i := range v {
			v[i] = []float64{0, -1, w.rand.ExpFloat64() * float64(w.limits.Commands)}[w.rand.IntN(3)]
		}
		return v
	}
}

// A client that goes to another node finds the whole limit there, even without a burst.
func TestMovedClientIsNotRefused(t *testing.T) {
	for _, nodes := range []int{2, 3, 5} {
		for _, burst := range []int{1, 100} {
			for _, period := range []float64{0.3, 1, 5} {
				w := newWorld(t, 3, nodes, Limits{Commands: 100, Burst: burst})
				u := w.run(30, false, hopping(w, 95, period))
				if n := total(u.refused); n != 0 {
					t.Errorf("%d nodes, burst %d: %d refused to a client that moves every %v s", nodes, burst, n, period)
				}
			}
		}
	}
}

// The usual burst makes up for lost messages.
func TestMovedClientAndLostMessages(t *testing.T) {
	for seed := range uint64(5) {
		w := newWorld(t, seed, 3, Limits{Commands: 100})
		w.loss = 0.1
		u := w.run(60, false, hopping(w, 95, 5))
		if n := total(u.refused); n != 0 {
			t.Errorf("seed %d: %d refused", seed, n)
		}
	}
}

// Those that want more than there is get the same, and a small one what it wants.
func TestSharesAreFair(t *testing.T) {
	w := newWorld(t, 1, 3, Limits{Commands: 100})
	l := steadily(-1, 20, -1)
	w.run(30, false, l)
	u := w.run(10, false, l)
	for i, want := range []int{400, 200, 400} {
		if u.each[i] < want*9/10 || u.each[i] > want*11/10 {
			t.Errorf("%s got %d in 10 s, want about %d", w.nodes[i].name, u.each[i], want)
		}
	}
}

// What a dead node used comes back within 3 s, and what it used is not lost meanwhile.
func TestShareOfADeadNodeComesBack(t *testing.T) {
	for seed := range uint64(5) {
		w := newWorld(t, seed, 3, Limits{Commands: 100})
		l := steadily(-1, -1, -1)
		w.run(30, false, l)
		w.nodes[0].dead, w.nodes[2].dead = true, true
		w.run(3, false, l)
		if u := w.run(5, false, l); total(u.passed) < 490 {
			t.Errorf("seed %d: the last one gets %d in 5 s", seed, total(u.passed))
		}
		w.nodes[2] = w.start("eu-3") // another process of that name
		w.run(20, false, l)
		if u := w.run(10, false, l); total(u.passed) > 1050 || total(u.passed) < 950 || u.each[2] < 400 {
			t.Errorf("seed %d: both get %v in 10 s", seed, u.each)
		}
	}
}

// One node alone keeps to rate and burst exactly.
func TestAlone(t *testing.T) {
	w := newWorld(t, 1, 1, Limits{Commands: 100, Burst: 30})
	if u := w.run(20, false, steadily(-1)); total(u.passed) < 2025 || total(u.passed) > 2031 {
		t.Errorf("%d in 20 s", total(u.passed))
	}
}
