package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"github.com/stockmesh/stockmesh/protocol"
)

// node is one of the nodes that are looked at, over one connection.
type node struct {
	address
	http  *http.Client
	hello protocol.Hello
	label string // for people, unlike others'

	conn    *websocket.Conn
	in      bytes.Buffer    // the message at hand
	items   []protocol.Item // of the message at hand, kept for its room
	filled  chan struct{}   // closed when the subscription is
	filling time.Duration   // how long that took
	heard   atomic.Int64    // items, of the snapshot and since

	mu      sync.Mutex
	asked   map[int64]chan<- message // who waits for a reply
	last    int64                    // id
	stopped error                    // the connection ended so
}

const (
	dialTimeout  = 15 * time.Second
	answerMax    = 15 * time.Second
	messageMax   = 64 << 20
	subscription = 1 // id of the subscribe
)

// message is any message of a node.
type message struct {
	Op       string          `json:"op"`
	Snapshot bool            `json:"snapshot"`
	Items    []protocol.Item `json:"items"`

	ID    int64           `json:"id"`
	OK    *answer         `json:"ok"`
	Error *protocol.Error `json:"error"`
}

// answer is what is read of the replies to what is asked here.
type answer struct {
	Items     int                 `json:"items"` // subscribe
	Movements []protocol.Movement `json:"movements"`
	Next      string              `json:"next"`
}

// request is what is asked here.
type request struct {
	Op       protocol.Op `json:"op"`
	ID       int64       `json:"id"`
	All      bool        `json:"all,omitzero"`
	Prefixes []string    `json:"prefixes,omitzero"`
	SKU      string      `json:"sku,omitzero"`
	Location string      `json:"location,omitzero"`
	Region   string      `json:"region,omitzero"`
	Limit    int         `json:"limit,omitzero"`
	Before   string      `json:"before,omitzero"`
}

// dial connects to a node. CBOR takes a sixth fewer bytes than JSON and no longer to read.
func dial(ctx context.Context, a address, client *http.Client) (*node, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	n := &node{address: a, http: client, filled: make(chan struct{}), asked: make(map[int64]chan<- message), last: subscription}
	conn, _, err := websocket.Dial(ctx, a.ws, &websocket.DialOptions{
		HTTPClient: client, HTTPHeader: a.header(), Subprotocols: []string{protocol.SubprotocolCBOR},
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.shown, err)
	}
	conn.SetReadLimit(messageMax)
	n.conn = conn
	if err := n.greeted(ctx); err != nil {
		n.close()
		return nil, fmt.Errorf("%s: %w", a.shown, err)
	}
	return n, nil
}

func (a *address) header() http.Header {
	h := http.Header{}
	if a.token != "" {
		h.Set("Authorization", "Bearer "+a.token)
	}
	return h
}

func (n *node) greeted(ctx context.Context) error {
	if n.conn.Subprotocol() != protocol.SubprotocolCBOR {
		return errors.New("it does not speak " + protocol.SubprotocolCBOR)
	}
	if err := n.next(ctx); err != nil {
		return err
	}
	if err := protocol.CBOR.Unmarshal(n.in.Bytes(), &n.hello); err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	if n.hello.Op != "hello" || n.hello.Node == "" || n.hello.Region == "" {
		return errors.New("it did not begin with a hello")
	}
	return nil
}

// next reads one message.
func (n *node) next(ctx context.Context) error {
	_, r, err := n.conn.Reader(ctx)
	if err != nil {
		return err
	}
	n.in.Reset()
	_, err = io.Copy(&n.in, r)
	return err
}

func (n *node) send(ctx context.Context, r request) error {
	return n.conn.Write(ctx, websocket.MessageBinary, protocol.CBOR.AppendMessage(nil, r))
}

func (n *node) subscribe(ctx context.Context, prefixes []string) error {
	return n.send(ctx, request{Op: protocol.OpSubscribe, ID: subscription, All: len(prefixes) == 0, Prefixes: prefixes})
}

// read enters in the book what the node shows, until the connection or ctx ends.
func (n *node) read(ctx context.Context, b *book, number int) error {
	began, snapshot := time.Now(), 0
	for {
		if err := n.next(ctx); err != nil {
			return n.stop(err)
		}
		clear(n.items[:cap(n.items)]) // what a message leaves out must read as zero
		m := message{Items: n.items[:0]}
		if err := protocol.CBOR.Unmarshal(n.in.Bytes(), &m); err != nil {
			return n.stop(fmt.Errorf("it sent what can't be read: %w", err))
		}
		n.items = m.Items
		switch {
		case m.Op == "stock":
			if m.Snapshot {
				snapshot += len(m.Items)
			}
			b.take(number, m.Items)
			n.heard.Add(int64(len(m.Items)))
		case m.Op == "goaway":
			return n.stop(errors.New("it is leaving"))
		case m.Op == "" && m.ID == subscription && m.OK != nil && n.filling == 0:
			if m.OK.Items != snapshot {
				b.found.fault(checkForm, "%s sent %d items in a snapshot and says it were %d", n.label, snapshot, m.OK.Items)
			}
			n.filling = max(time.Since(began), 1)
			close(n.filled)
		case m.Op == "" && m.ID <= subscription:
			return n.stop(fmt.Errorf("subscribe: %w", refusal(m.Error)))
		case m.Op == "":
			n.hand(m)
		}
	}
}

func refusal(e *protocol.Error) error {
	if e == nil {
		return errors.New("an answer without a meaning")
	}
	return e
}

// hand gives a reply to whoever asked.
func (n *node) hand(m message) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if to, ok := n.asked[m.ID]; ok {
		delete(n.asked, m.ID)
		to <- m // has room
	}
}

// stop tells those who wait that there will be no answer.
func (n *node) stop(err error) error {
	err = fmt.Errorf("%s: %w", n.label, err)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stopped = err
	for _, to := range n.asked {
		close(to)
	}
	clear(n.asked)
	return err
}

// errSilent is how a question ends that a node leaves without an answer.
var errSilent = errors.New("no answer")

// ask sends a request and waits for its reply. A refusal is a *protocol.Error.
func (n *node) ask(ctx context.Context, r request) (*answer, error) {
	reply := make(chan message, 1)
	n.mu.Lock()
	n.last++
	r.ID = n.last
	n.asked[r.ID] = reply
	stopped := n.stopped
	n.mu.Unlock()
	if stopped != nil {
		return nil, stopped
	}
	late := time.NewTimer(answerMax)
	defer late.Stop()
	if err := n.send(ctx, r); err != nil {
		return nil, fmt.Errorf("%s: %w", n.label, err)
	}
	select {
	case m, ok := <-reply:
		switch {
		case !ok:
			return nil, n.stopped // set before the channel was closed
		case m.Error != nil:
			return nil, m.Error
		case m.OK == nil:
			return nil, fmt.Errorf("%s: %s: an answer without a meaning", n.label, r.Op)
		}
		return m.OK, nil
	case <-late.C:
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.asked, r.ID)
		return nil, errSilent
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (n *node) close() { _ = n.conn.CloseNow() } // there is nothing left to be said
