package cluster

import (
	"sync"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// inquiries are reads that another region must answer from its own log.
type inquiries struct {
	mu   sync.Mutex
	last uint64
	open map[uint64]*inquiry
}

type inquiry struct {
	call  *protocol.Call
	of    string // the region asked
	timer *time.Timer
}

// inquiryMessage asks another region's node. Reads may be lost, and done twice.
type inquiryMessage struct {
	ID      uint64           `json:"id"`
	Node    string           `json:"node"` // that asks
	Command protocol.Command `json:"command"`
}

// testimony answers one.
type testimony struct {
	ID        uint64              `json:"id"`
	Movements []protocol.Movement `json:"movements,omitzero"`
	Next      string              `json:"next,omitzero"`
	Err       *protocol.Error     `json:"error,omitzero"`
}

// inquire has another region answer a read of history.
func (p *peer) inquire(call *protocol.Call) {
	m := p.mesh
	node := p.anyNode("")
	if node == "" {
		call.Fail(p.envoy.unreachable())
		return
	}
	q := &m.tasks
	q.mu.Lock()
	if q.open == nil {
		q.open = make(map[uint64]*inquiry)
	}
	q.last++
	id := q.last
	q.open[id] = &inquiry{call: call, of: p.name, timer: time.AfterFunc(m.config.Patience, func() {
		if in := q.take(id, p.name); in != nil {
			in.call.Fail(p.envoy.unreachable())
		}
	})}
	q.mu.Unlock()
	p.send("inquiries."+node, protocol.AppendJSON(nil, inquiryMessage{ID: id, Node: m.config.Node, Command: call.Command}))
}

// take ends an inquiry; nil where that region was not asked, or it has ended.
func (q *inquiries) take(id uint64, of string) *inquiry {
	q.mu.Lock()
	defer q.mu.Unlock()
	in := q.open[id]
	if in == nil || in.of != of {
		return nil
	}
	delete(q.open, id)
	return in
}

// inquired answers another region's node.
func (m *mesh) inquired(from, _ string, data []byte) {
	p := m.peer(from)
	var in inquiryMessage
	if p == nil {
		return
	}
	if err := protocol.UnmarshalJSON(data, &in); err != nil {
		m.logger.Error("a question of another region can't be read", "region", from, "error", err)
		return
	}
	answer := func(t testimony) {
		t.ID = in.ID
		p.send("testimonies."+in.Node, protocol.AppendJSON(nil, t))
	}
	if in.Command.Op != protocol.OpHistory || in.Command.Region != m.config.Region {
		answer(testimony{Err: protocol.BadRequest("%s can't be asked of another region", in.Command.Op)})
		return
	}
	if err := in.Command.Check(); err != nil {
		answer(testimony{Err: err})
		return
	}
	m.c.Submit([]*protocol.Call{{Command: in.Command, Done: func(c *protocol.Call) {
		answer(testimony{Movements: c.Result.Movements, Next: c.Result.Next, Err: c.Err})
	}}})
}

// testified takes an answer.
func (m *mesh) testified(from, _ string, data []byte) {
	var t testimony
	if err := protocol.UnmarshalJSON(data, &t); err != nil {
		m.logger.Error("an answer of another region can't be read", "region", from, "error", err)
		return
	}
	in := m.tasks.take(t.ID, from)
	if in == nil {
		return // too late
	}
	in.timer.Stop()
	in.call.Err = t.Err
	if t.Err == nil {
		in.call.Result = protocol.Result{Kind: protocol.KindMovements, Movements: t.Movements, Next: t.Next}
	}
	in.call.Done(in.call)
}
