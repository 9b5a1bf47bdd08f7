package main

import (
	"fmt"

	"github.com/stockmesh/stockmesh/protocol"
)

// asker is a connection of mixed that sends commands of several kinds. None of them may
// be refused.
type asker struct {
	mixed   *mixed
	conn    *conn
	asked   map[uint64]question
	next    uint64
	act     func(due int64) // sends commands
	backlog []int64         // when acts were due that had to wait
}

// question is a command that waits for its answer.
type question struct {
	due  int64
	ages latencies // that count it
	text []byte
	done func() // called when there is an answer; nil: nobody cares
}

// underWayMax is how many commands of an asker are under way when the next act waits. A
// node takes more, and an act is two commands at most.
const underWayMax = 64

func newAsker(m *mixed) asker {
	return asker{mixed: m, asked: make(map[uint64]question), next: numberMin}
}

// due acts, or remembers to.
func (a *asker) due(at int64) error {
	if len(a.asked) >= underWayMax {
		a.backlog = append(a.backlog, at)
		return nil
	}
	a.act(at)
	return a.conn.flush()
}

// ask sends a command; its id is put before the other fields.
func (a *asker) ask(due int64, ages latencies, op protocol.Op, fields string, done func()) {
	text := fmt.Appendf(nil, `{"op":"%s","id":%d,%s}`, op, a.next, fields)
	a.asked[a.next] = question{due, ages, text, done}
	a.conn.out = appendClientFrame(a.conn.out, opText, a.conn.mask, text)
	a.next++
}

// answered takes a reply.
func (a *asker) answered(id uint64, result outcome, message []byte) {
	q, known := a.asked[id]
	if known && result == refused && a.again(q, message) {
		return
	}
	if result != acked || !known {
		a.mixed.stock.fault("an answer that must not be: %.300s", message)
	}
	if !known {
		return
	}
	delete(a.asked, id)
	if q.done != nil {
		q.done()
	}
	if result == acked {
		a.mixed.acked++
		q.ages.add(a.mixed.gen.now-q.due, 1)
	}
	if len(a.backlog) > 0 && len(a.asked) < underWayMax {
		at := a.backlog[0]
		a.backlog = a.backlog[1:]
		a.act(at)
	}
}

// again says whether a command that was refused is sent once more.
func (a *asker) again(q question, message []byte) bool {
	refusal := readError(message)
	if refusal.Retryable {
		a.mixed.checkout.again.add(refusal, func() error {
			a.conn.out = appendClientFrame(a.conn.out, opText, a.conn.mask, q.text)
			return a.conn.flush()
		})
	}
	return refusal.Retryable
}

// waiting counts commands without an answer, and acts that were not even begun.
func (a *asker) waiting() int64 { return int64(len(a.asked) + len(a.backlog)) }

// keeper takes stock: it adjusts SKUs that are sold and counts the others, in turn.
type keeper struct {
	asker
	taken    int          // so many times
	counting map[int]bool // the SKUs whose count is under way
}

func newKeeper(m *mixed) *keeper {
	k := &keeper{asker: newAsker(m), counting: make(map[int]bool)}
	k.act = k.takeStock
	return k
}

// received implements receiver.
func (k *keeper) received(_ *conn, message []byte) {
	if id, result := scanReply(message); result != push {
		k.answered(id, result, message)
	}
}

// takeStock goes through the assortment, a SKU a time. A count is the only one of its
// SKU under way: sent again after a later one, it would undo that.
func (k *keeper) takeStock(due int64) {
	m := k.mixed
	sku := k.nextSKU()
	if k.counting[sku] {
		sku-- // one that is adjusted
	}
	key := fmt.Sprintf(`"key":"%s-take-%d","sku":"%s"`, m.id, k.taken, m.stock.sku(sku))
	m.stock.changes(sku, due)
	if !isCounted(sku) {
		m.stock.adjusted[sku]++
		k.ask(due, m.counts, protocol.OpAdjust, fmt.Sprintf(`%s,"delta":%d`, key, int64(delivery)), nil)
		return
	}
	m.stock.counted[sku]++
	k.counting[sku] = true
	done := func() { delete(k.counting, sku) }
	k.ask(due, m.counts, protocol.OpCount, fmt.Sprintf(`%s,"on_hand":%d`, key, m.stock.counted[sku]), done)
}

// nextSKU is one that is counted every other time, where there are any.
func (k *keeper) nextSKU() int {
	n, turn := k.mixed.stock.count, k.taken/2
	k.taken++
	if counted := n / countedEvery; k.taken%2 == 0 && counted > 0 {
		return turn%counted*countedEvery + countedEvery - 1
	}
	if sku := turn % n; !isCounted(sku) {
		return sku
	}
	return turn%n - 1
}
