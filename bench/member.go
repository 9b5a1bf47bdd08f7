package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/stockmesh/stockmesh/protocol"
)

// member is one client of a crowd. It always sends the same command; its number
// stands for its place in the crowd, a command's for its place among the errands.
type member struct {
	crowd    *crowd
	number   int
	account  *account
	delta    int64  // what one command adds to the account
	does     string // the command's name, where a journal is kept
	template *template

	at     int   // the node it is connected to, or was last
	conn   *conn // nil between nodes
	moving bool  // a new connection is being made

	errands []errand
	free    []int
	next    uint64
	backlog []int64 // when commands were due that found no errand free
}

// errand is a command until it has its last answer.
type errand struct {
	number uint64 // 0: free
	due    int64  // ns: when it should have been sent first
	on     *conn  // where its answer is due; nil: to be sent
	node   int    // that on leads to
	failed bool   // a node has answered with an error that it should not
	had    int64  // units that were there for it and all that took any when it was sent first
	again  bool   // it was sent before
}

// account is a SKU: what should be on hand by the answers.
type account struct {
	sku                  string
	opening, added, sold int64

	asked   int64 // units that were to be taken, sold or reserved
	taken   int64 // of these, those that were
	refused int64 // of these, those that are known not to be
}

func (a *account) onHand() int64 { return a.opening + a.added - a.sold }

func (a *account) book(delta int64) {
	if delta > 0 {
		a.added += delta
	} else {
		a.sold -= delta
	}
}

// newMember makes a client that waits for its first connection.
func newMember(c *crowd, number, errands int, a *account, delta int64, command string) *member {
	m := &member{crowd: c, number: number, account: a, delta: delta, moving: true, errands: make([]errand, errands)}
	m.next = numberMin + uint64(errands) - numberMin%uint64(errands) // a multiple of errands
	for i := range errands {
		m.free = append(m.free, i)
	}
	var mask [4]byte
	_, _ = rand.Read(mask[:]) // never fails
	m.template = newTemplate(mask, command)
	return m
}

// offer sends a command that is due, or remembers it.
func (m *member) offer(due int64) {
	if len(m.free) == 0 {
		m.backlog = append(m.backlog, due)
		return
	}
	i := m.free[len(m.free)-1]
	m.free = m.free[:len(m.free)-1]
	m.errands[i] = errand{number: m.next + uint64(i), due: due}
	m.ask(&m.errands[i])
	m.next += uint64(len(m.errands))
	m.send(i)
}

// send puts an errand on its way, or leaves it to the next connection.
func (m *member) send(i int) {
	e := &m.errands[i]
	if e.on, e.node = m.conn, m.at; m.conn != nil {
		m.conn.out = m.template.append(m.conn.out, e.number)
		m.crowd.journal.sent(m, e)
	}
}

var goawayOp = []byte(`"op":"goaway"`)

// received implements receiver.
func (m *member) received(from *conn, message []byte) {
	id, result := scanReply(message)
	if result == push {
		if bytes.Contains(message, goawayOp) && from == m.conn {
			m.move()
		}
		return
	}
	i := int(id % uint64(len(m.errands)))
	e := &m.errands[i]
	switch {
	case result == malformed || id == 0 || e.number != id || e.on != from:
		m.crowd.fault("an answer to nothing that was asked: %.300s", message)
		return
	case result == refused && !m.declined(i, message):
		return
	case result == acked:
		m.crowd.journal.answered(m, e, journalAcked)
		m.account.book(m.delta)
		if m.takes() {
			m.account.taken++
		}
		m.crowd.count(m, e)
	}
	m.finish(i)
	m.retire(from)
}

// declined says whether an error ends the errand.
func (m *member) declined(i int, message []byte) bool {
	e := &m.errands[i]
	refusal := readError(message)
	m.crowd.journal.answered(m, e, string(refusal.Code))
	if refusal.Code == protocol.CodeInsufficientStock && m.takes() {
		m.refused(e, refusal, message)
		return true
	}
	if m.crowd.patient && refusal.Retryable {
		m.crowd.retried++
	} else if !e.failed {
		e.failed = true
		m.crowd.failed++
		m.crowd.fault("%s: node %d answered after %d ms: %.300s", m.crowd.phase, e.node+1, (m.crowd.gen.now-e.due)/1e6, message)
	}
	if refusal.Retryable {
		e.on = nil
		m.crowd.later(m, i, refusal)
	}
	return !refusal.Retryable
}

// finish frees an errand for what is due.
func (m *member) finish(i int) {
	m.errands[i] = errand{}
	m.free = append(m.free, i)
	if len(m.backlog) > 0 {
		due := m.backlog[0]
		m.backlog = m.backlog[1:]
		m.offer(due)
	}
}

// lost implements mover: what has no answer yet is sent again, under the same key.
func (m *member) lost(c *conn, err error) {
	if !errors.Is(err, errDrained) {
		m.crowd.broken++
	}
	if c == m.conn {
		m.conn = nil
		m.move()
	}
	for i := range m.errands {
		if e := &m.errands[i]; e.number != 0 && e.on == c {
			m.crowd.resent++
			m.send(i)
		}
	}
}

// move looks for another node, unless that is under way. A connection that still
// stands is used until then.
func (m *member) move() {
	if !m.moving {
		m.moving = true
		m.crowd.dial(m)
	}
}

// land goes on with a new connection.
func (m *member) land(node int, c *conn) {
	old := m.conn
	m.at, m.conn, m.moving = node, c, false
	for i := range m.errands {
		if e := &m.errands[i]; e.number != 0 && e.on == nil {
			m.send(i)
		}
	}
	if old == nil {
		return
	}
	if err := old.flush(); err != nil { // what it was given in this turn
		m.crowd.gen.broken(old, err)
	}
	m.retire(old)
}

// retire closes a connection that was left as soon as it owes no answer.
func (m *member) retire(c *conn) {
	if c == m.conn || c.gone {
		return
	}
	for i := range m.errands {
		if e := &m.errands[i]; e.number != 0 && e.on == c {
			return
		}
	}
	m.crowd.gen.drop(c)
}

// waiting counts commands without their last answer, and those not even sent.
func (m *member) waiting() int64 {
	return int64(len(m.errands) - len(m.free) + len(m.backlog))
}

func (m *member) String() string { return fmt.Sprintf("client %d", m.number+1) }
