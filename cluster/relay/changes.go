package relay

import "github.com/stockmesh/stockmesh/protocol"

// changes finds calls that were sent and change reservations by their key.
type changes map[string]entry

// entry is the first call with a key; a client may send a key again before the
// first is answered.
type entry struct {
	call   *protocol.Call
	others int // more calls with the key
}

// tracked reports whether changes is about a call.
func tracked(c *protocol.Call) bool {
	switch c.Command.Op {
	case protocol.OpReserve, protocol.OpConfirm, protocol.OpRelease, protocol.OpExtend:
		return c.Command.Key != ""
	}
	return false
}

func (m changes) sent(c *protocol.Call) {
	if !tracked(c) {
		return
	}
	e, ok := m[c.Command.Key]
	if ok {
		e.others++
	} else {
		e.call = c
	}
	m[c.Command.Key] = e
}

// forget takes a call out. It reports whether another one with the key must take
// its place.
func (m changes) forget(c *protocol.Call) (orphaned bool) {
	if !tracked(c) {
		return false
	}
	e := m[c.Command.Key]
	if e.others == 0 {
		delete(m, c.Command.Key)
		return false
	}
	e.others--
	m[c.Command.Key] = e
	return e.call == c
}

// lead makes a call the first with its key.
func (m changes) lead(c *protocol.Call) {
	if c != nil {
		m[c.Command.Key] = entry{call: c, others: m[c.Command.Key].others}
	}
}
