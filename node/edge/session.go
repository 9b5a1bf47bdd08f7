package edge

import "github.com/stockmesh/stockmesh/protocol"

// message takes one client message: a command or an array of them.
func (l *loop) message(c *conn, payload []byte) {
	values, err := c.codec.Split(payload, protocol.CommandsMax)
	if err != nil {
		call := l.newCall(c)
		call.Err = err
		l.command(c, call)
		return
	}
	if rest := l.commands(c, values); len(rest) > 0 {
		k := c.who.check
		for _, v := range rest { // the message's memory is used again
			k.rest = append(k.rest, v.Clone())
		}
	}
}

// commands runs commands in order and returns those that must wait, after one by which
// a token is checked.
func (l *loop) commands(c *conn, values []protocol.Raw) (rest []protocol.Raw) {
	for i, v := range values {
		call := l.newCall(c)
		call.Err = c.codec.Decode(&call.Command, v)
		if l.config.Tracer != nil && c.known() {
			l.follow(call)
		}
		l.command(c, call)
		if c.checking() {
			return values[i+1:]
		}
	}
	return nil
}

// command runs what is the session's own and puts the rest on its way to the
// ledger.
func (l *loop) command(c *conn, call *protocol.Call) {
	if err := l.pay(c, call); err != nil {
		call.Err = err
	} else {
		l.permit(c, call)
	}
	if call.Err != nil {
		l.replyNow(c, call)
		return
	}
	switch cmd := &call.Command; cmd.Op {
	case protocol.OpPing:
		l.replyNow(c, call)
	case protocol.OpAuth:
		l.auth(c, call)
	case protocol.OpSubscribe:
		l.hub.subscribe(c, call)
	case protocol.OpUnsubscribe:
		l.hub.unsubscribe(c, cmd)
		l.replyNow(c, call)
	default:
		l.send(c, call)
	}
}

// pay takes a command from the budgets. Renewing a token is not taken from its subject's:
// whoever has used that up would lose the connection besides.
func (l *loop) pay(c *conn, call *protocol.Call) *protocol.Error {
	if call.Err == nil && call.Command.Op == protocol.OpAuth {
		return l.spendOwn(c)
	}
	return l.spend(c)
}

// send queues a call for the ledger, within the session's limit.
func (l *loop) send(c *conn, call *protocol.Call) {
	if c.inFlight >= protocol.InFlightMax {
		call.Err = protocol.RetryLater(protocol.CodeOverloaded, 20, "%d commands of this connection wait for their answers", c.inFlight)
		l.replyNow(c, call)
		return
	}
	asked := asks(&call.Command)
	if before := l.asked[c]; before > 0 && asked > 0 && before+asked > readItemsMax {
		call.Err = protocol.RetryLater(protocol.CodeOverloaded, 20, "reads of this connection that wait for their answers ask for more than %d items", readItemsMax)
		l.replyNow(c, call)
		return
	}
	if asked > 0 {
		l.asked[c] += asked
	}
	who := c.named()
	call.Subject, call.Address = who.caller.Subject, who.address
	call.Ordered = c.inFlight > 0
	c.inFlight++
	l.calls = append(l.calls, call)
}

// submit hands over what the whole pass has decoded, in one go.
func (l *loop) submit() {
	if len(l.calls) == 0 {
		return
	}
	l.config.Ledger.Submit(l.calls)
	clear(l.calls)
	l.calls = l.calls[:0]
}

func (l *loop) newCall(c *conn) *protocol.Call {
	var call *protocol.Call
	if n := len(l.pool); n > 0 {
		call = l.pool[n-1]
		l.pool = l.pool[:n-1]
	} else {
		call = &protocol.Call{}
	}
	call.Session, call.Tag, call.Came, call.Done = c.session, c.token(), l.begun, l.done
	return call
}

// poolMax bounds the calls that are kept for use again.
const poolMax = 4096

// recycle takes a call that nobody needs any more.
func (l *loop) recycle(call *protocol.Call) {
	l.ended(call)
	if len(l.pool) < poolMax {
		*call = protocol.Call{Command: protocol.Command{ID: call.Command.ID[:0]}}
		l.pool = append(l.pool, call)
	}
}

// answer passes the ledger's answer on, if the connection is still there.
func (l *loop) answer(call *protocol.Call) {
	c := l.conn(call.Tag)
	if c == nil || c.state != stateOpen {
		l.recycle(call)
		return
	}
	c.inFlight--
	if asked := asks(&call.Command); asked > 0 {
		if l.asked[c] -= asked; l.asked[c] <= 0 {
			delete(l.asked, c)
		}
	}
	l.show(c, call)
	var made *protocol.Reservation
	if call.Command.Op == protocol.OpReserve && call.Err == nil {
		made = call.Result.Reservation
	}
	l.replyNow(c, call)
	if made != nil {
		l.hub.madeReservation(c, made)
	}
}

// replyNow appends the reply, after what is due to be pushed: no item in a reply
// may be newer than what is pushed after it.
func (l *loop) replyNow(c *conn, call *protocol.Call) {
	l.hub.pushDue(c)
	l.say(c, func(b []byte) []byte { return c.codec.AppendReply(b, call) })
	l.mark(c)
	l.recycle(call)
}

// readItemsMax bounds what the unanswered reads of one connection may ask for, as
// their answers can't be dropped or merged. One read alone is always let through.
const readItemsMax = 20000

// asks is how many items or movements a read may be answered with.
func asks(cmd *protocol.Command) int {
	switch cmd.Op {
	case protocol.OpGet:
		return len(cmd.SKUs) * max(1, len(cmd.Locations))
	case protocol.OpHistory:
		return cmd.Limit
	}
	return 0
}
