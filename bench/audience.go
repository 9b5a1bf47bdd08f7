package main

import (
	"bytes"
	"fmt"

	"github.com/stockmesh/stockmesh/protocol"
)

// audience is a set of subscribers that all hear the same, and their account of
// it.
type audience struct {
	gen         *generator
	subscribers []*subscriber
	subscribed  int // how many the node has confirmed

	sentAt int64 // ns: when the present change was sent
	fresh  bool  // nobody has heard of it yet
	items  int64 // delivered to all of them together
	ages   latencies
	firsts latencies // of each change's first push: the commit, without the fan-out
	drawn  string    // the timeline of ages; "": none

	// The last push and how many items it holds: it is read once, and whoever
	// gets the same bytes has got the same items.
	last      []byte
	lastItems int64

	expect map[string]int64 // on_hand that the present change leads to; nil: unknown
	faults []string
}

// subscriber is one connection of an audience.
type subscriber struct {
	audience *audience
	conn     *conn
	items    int64
	raw      []byte // what it has heard, while it is asked to keep that
	keep     bool
}

func newAudience(gen *generator) *audience {
	return &audience{gen: gen, ages: newLatencies(), firsts: newLatencies()}
}

func (a *audience) add(d *dialed) (*conn, error) {
	s := &subscriber{audience: a}
	a.subscribers = append(a.subscribers, s)
	var err error
	s.conn, err = a.gen.add(d, s)
	return s.conn, err
}

// received implements receiver.
func (s *subscriber) received(_ *conn, message []byte) {
	a := s.audience
	if !bytes.Equal(message, a.last) && !a.learn(message) {
		return
	}
	a.items += a.lastItems
	s.items += a.lastItems
	a.ages.add(a.gen.now-a.sentAt, a.lastItems)
	if a.fresh {
		a.firsts.add(a.gen.now-a.sentAt, 1)
		a.fresh = false
	}
	if s.keep {
		s.raw = appendServerFrame(s.raw, opText, message)
	}
}

// stockPush is what an audience looks at.
type stockPush struct {
	Op       string `json:"op"`
	Snapshot bool   `json:"snapshot"`
	Items    []struct {
		SKU    string `json:"sku"`
		OnHand int64  `json:"on_hand"`
	} `json:"items"`
	OK    map[string]any  `json:"ok"`
	Error *protocol.Error `json:"error"`
}

// learn reads a message that nobody has got before, and says whether it pushes a
// change.
func (a *audience) learn(message []byte) bool {
	var m stockPush
	if err := protocol.UnmarshalJSON(message, &m); err != nil {
		a.fault("unreadable: %v: %.200s", err, message)
		return false
	}
	switch {
	case m.Error != nil:
		a.fault("subscribe: %s: %s", m.Error.Code, m.Error.Message)
		return false
	case m.OK != nil:
		a.subscribed++
		return false
	case m.Op != "stock" || m.Snapshot:
		return false
	}
	for _, it := range m.Items {
		if want, ok := a.expect[it.SKU]; a.expect != nil && (!ok || it.OnHand != want) {
			a.fault("%s was pushed with on_hand %d, want %d", it.SKU, it.OnHand, want)
		}
	}
	a.last, a.lastItems = append(a.last[:0], message...), int64(len(m.Items))
	return true
}

func (a *audience) fault(format string, args ...any) {
	if len(a.faults) < faultsMax {
		a.faults = append(a.faults, fmt.Sprintf(format, args...))
	}
}
