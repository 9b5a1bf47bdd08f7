package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/stockmesh/stockmesh/protocol"
)

// retryPauseMax bounds the pause that a node may ask for.
const retryPauseMax = time.Minute

// call is one command on its way. The client's mu guards all but done, and msg
// and err once done is closed.
type call struct {
	id        uint64
	cmd       protocol.Command
	body      []byte         // cmd as codec has it
	codec     protocol.Codec // of the link it is meant for
	sentTo    string         // region it was first sent to
	only      *link          // meant for this link; nil: for any
	over      *link          // that it was last sent over
	renewals  int            // of that link's token, when it was sent
	abandoned bool           // nobody waits; not to be sent again
	done      chan struct{}
	msg       message // the reply
	err       error
}

func (p *call) finish(msg message, err error) {
	p.msg, p.err = msg, err
	close(p.done)
}

// encode writes the command as it is to be sent next.
func (p *call) encode() {
	if p.codec == protocol.CBOR {
		p.body = appendCommandCBOR(p.body[:0], &p.cmd, p.id)
	} else {
		p.body = appendCommand(p.body[:0], &p.cmd, p.id)
	}
}

// Do sends any command and waits for its answer. A write without Key gets one.
// Errors: a *protocol.Error as the node sent it (or as protocol.Command.Check
// found it, nothing being sent), the context's, ErrClosed, a *CloseError.
func (c *Client) Do(ctx context.Context, cmd protocol.Command) (Reply, error) {
	var r Reply
	err := c.do(ctx, cmd, nil, func(msg message) (err error) {
		r.Replayed, err = decodeReply(msg, &r)
		return err
	})
	return r, err
}

// Submit is Do for those who only need to know that the command was done.
func (c *Client) Submit(ctx context.Context, cmd protocol.Command) error {
	return c.do(ctx, cmd, nil, message.acknowledged)
}

// do sends the command until it is answered for good; read says what an answer
// means. With a link given it goes to that one only.
func (c *Client) do(ctx context.Context, cmd protocol.Command, only *link, read func(msg message) error) error {
	if cmd.Op.IsWrite() && cmd.Key == "" {
		cmd.Key = uuid.NewString()
	}
	if err := check(&cmd); err != nil {
		return err
	}
	backoff := newBackoff(&c.cfg)
	for refusals := 0; ; {
		p := &call{cmd: cmd, only: only, codec: c.cfg.codecs()[0]}
		if err := c.exchange(ctx, p); err != nil {
			return err
		}
		err := read(p.msg)
		var refused *protocol.Error
		if err == nil && cmd.Op != protocol.OpPing { // anybody may ping
			c.trusted()
		}
		if err == nil || !errors.As(err, &refused) {
			return err
		}
		if c.wantsToken(p, refused) && refusals < refusalsMax {
			decided, ended := c.reauthorize(ctx, p)
			if later := retryable(ended); later != nil {
				return later
			}
			if ended != nil {
				return fmt.Errorf("%w (%w)", refused, ended)
			}
			if decided {
				refusals++
			}
			continue
		}
		if !refused.Retryable || c.cfg.FailFast {
			return err
		}
		if refused.Code == protocol.CodeUnavailable {
			c.unserved()
		}
		if cmd.Op == protocol.OpAuth && only != nil {
			return err // the link asks for the token again, and for all who wait
		}
		cmd.Home = homeAfter(p, refused)
		if late := pause(ctx, max(retryPause(refused), backoff.NextBackOff())); late != nil {
			return fmt.Errorf("%w (%w)", refused, late)
		}
	}
}

// unserved tells the present link that its node could not serve.
func (c *Client) unserved() {
	c.mu.Lock()
	l := c.link
	c.mu.Unlock()
	if l != nil {
		l.unserved()
	}
}

// check refuses what a node would refuse, above all text that would break the
// connection under every other call.
func check(cmd *protocol.Command) error {
	for _, s := range []string{cmd.Key, cmd.Before} {
		if !utf8.ValidString(s) {
			return protocol.BadRequest("%.40q is not valid UTF-8", s)
		}
	}
	if !utf8.ValidString(cmd.Token) {
		return protocol.BadRequest("token is not valid UTF-8") // and not quoted
	}
	if err := cmd.Check(); err != nil {
		return err
	}
	return nil
}

// retryPause is how long a node asks to wait; 0 where e is nil.
func retryPause(e *protocol.Error) time.Duration {
	if e == nil {
		return 0
	}
	return time.Duration(min(e.RetryAfterMS, retryPauseMax.Milliseconds())) * time.Millisecond
}

// homeAfter names the region that a refused write must go to next: where it may
// have been applied without our knowing, else anywhere.
func homeAfter(p *call, e *protocol.Error) string {
	if p.cmd.Op.IsWrite() && p.cmd.Home == "" && e.Details != nil && e.Details.Outcome == "unknown" {
		return p.sentTo
	}
	return p.cmd.Home
}

// exchange queues the call and waits for its reply.
func (c *Client) exchange(ctx context.Context, p *call) error {
	p.id = c.lastID.Add(1)
	p.done = make(chan struct{})
	p.encode()
	if err := c.enqueue(p); err != nil {
		return err
	}
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		c.abandon(p)
		return fmt.Errorf("client: %s: %w", p.cmd.Op, ctx.Err())
	case <-c.ctx.Done():
		c.abandon(p)
		return c.reason()
	}
}

func (c *Client) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *Client) enqueue(p *call) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if p.cmd.Op == protocol.OpAuth {
		c.queue = slices.Insert(c.queue, 0, p) // the others may need it
	} else {
		c.queue = append(c.queue, p)
	}
	c.wakeLink()
	return nil
}

// abandon forgets a call. Sent ones keep their place among the pending, for the
// node still has them in flight.
func (c *Client) abandon(p *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.abandoned = true
	if i := slices.Index(c.queue, p); i >= 0 {
		c.queue = slices.Delete(c.queue, i, i+1)
	}
}

// wakeLink makes the link look at the queue. Called with mu held.
func (c *Client) wakeLink() {
	if c.link != nil && len(c.queue) > 0 {
		nudge(c.link.wake)
	}
}

// take moves as many calls as one message and the link's limits allow from the
// queue to the link. It returns the message that sends them, empty if there are
// none, and the buffer that it stands in, to be given again.
func (c *Client) take(l *link, buf []byte) (grown, msg []byte) {
	buf = append(buf[:0], make([]byte, headRoom)...)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link != l || l.pending == nil {
		return buf, nil
	}
	limits := &l.hello.Limits
	taken, count := 0, 0
	for _, p := range c.queue {
		if count == protocol.CommandsMax || len(l.pending) >= limits.InFlight {
			break
		}
		if err := p.prepare(l); err != nil {
			p.finish(message{}, err)
			taken++
			continue
		}
		if count > 0 && len(buf)+len(p.body)+1 > limits.MessageBytes {
			break
		}
		l.pending[p.id] = p
		p.over, p.renewals = l, l.renewals
		buf = appendNext(l.codec, buf, p.body, count)
		taken++
		count++
	}
	c.queue = slices.Delete(c.queue, 0, taken)
	return frame(l.codec, buf, count)
}

// prepare makes the call ready to be sent over l, or says why it can't be.
func (p *call) prepare(l *link) error {
	if p.only != nil && p.only != l {
		return errLinkLost
	}
	stale := p.codec != l.codec
	p.codec = l.codec
	if p.sentTo == "" {
		p.sentTo = l.hello.Region
	} else if p.cmd.Op.IsWrite() && p.cmd.Home == "" {
		p.cmd.Home = p.sentTo
		stale = true
	}
	if stale {
		p.encode()
	}
	if limit := l.hello.Limits.MessageBytes; len(p.body) > limit {
		return protocol.NewError(protocol.CodeTooLarge, "the command takes %d bytes, the node's limit is %d", len(p.body), limit)
	}
	return nil
}

// answer hands a reply to the call it belongs to.
func (c *Client) answer(l *link, id uint64, msg message) {
	c.mu.Lock()
	p := l.pending[id]
	delete(l.pending, id)
	c.wakeLink()
	c.mu.Unlock()
	nudge(l.answered)
	if p != nil {
		p.finish(msg, nil)
	}
}

// answerAll hands an error without id to every call in flight: the node could
// not read the message, so none of them will be answered.
func (c *Client) answerAll(l *link, msg message) error {
	_, refused := decodeReply(msg, &Reply{})
	if refused == nil {
		return errors.New("a reply without id")
	}
	c.mu.Lock()
	lost := l.pending
	l.pending = map[uint64]*call{}
	c.mu.Unlock()
	for _, p := range lost {
		p.finish(message{}, refused)
	}
	return refused
}
