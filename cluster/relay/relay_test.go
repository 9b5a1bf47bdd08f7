package relay

import (
	"testing"

	"pgregory.net/rapid"
)

// TestRelay lets a network lose, repeat and reorder, owners change and processes
// die, and wants that each call comes back once, with its own answer, and takes
// effect once and in order.
func TestRelay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { newWorld(t, false).run(t) })
}

// TestRelayRefused wants that what was refused stays refused.
func TestRelayRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { newWorld(t, true).run(t) })
}

func (w *world) run(t *rapid.T) {
	t.Repeat(w.actions())
	w.heal()
	w.check()
}

// pick is the place of a message, mostly the oldest.
func (w *world) pick() int {
	return min(len(w.net)-1, max(0, rapid.IntRange(-6, 8).Draw(w.T, "message")))
}

func (w *world) remove(i int) message {
	m := w.net[i]
	w.net = append(w.net[:i:i], w.net[i+1:]...)
	return m
}

// whileAny is an action upon a message.
func (w *world) whileAny(f func()) func(*rapid.T) {
	return func(t *rapid.T) {
		if len(w.net) == 0 {
			t.Skip("no message")
		}
		f()
	}
}

// actions are what may happen; those that are there twice happen more often.
func (w *world) actions() map[string]func(*rapid.T) {
	deliver := w.whileAny(func() { w.deliver(w.remove(w.pick())) })
	send := func(*rapid.T) { w.send(w.anyNode()) }
	actions := map[string]func(*rapid.T){
		"":         func(*rapid.T) { w.check() },
		"add":      func(*rapid.T) { w.add(w.anyNode()) },
		"send":     send,
		"send2":    send,
		"deliver":  deliver,
		"deliver2": deliver,
		"deliver3": deliver,
		"repeat":   w.whileAny(func() { w.deliver(w.net[w.pick()]) }),
		"lose":     w.whileAny(func() { w.remove(w.pick()) }),
		"astray":   w.whileAny(func() { w.astray(w.pick()) }),
		"pass":     func(*rapid.T) { w.pass() },
		"restart":  func(*rapid.T) { w.anyNode().sender.Restart() },
		"hear":     func(*rapid.T) { w.hear(w.anyNode()) },
		"crash":    func(*rapid.T) { w.crash(w.anyNode()) },
	}
	if !w.settled {
		actions["elect"] = func(*rapid.T) { w.elect(w.anyNode()) }
	}
	return actions
}
