package edge

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stockmesh/stockmesh/protocol"
)

// permit sets the error of a command that its caller may not give.
func (l *loop) permit(c *conn, call *protocol.Call) {
	if l.config.Guard == nil {
		return
	}
	switch op := call.Command.Op; {
	case !c.known() && op != protocol.OpAuth && op != protocol.OpPing && (op != "" || call.Err == nil):
		// Whoever isn't known is not even told what is wrong with a command.
		call.Err = protocol.NewError(protocol.CodeUnauthorized, "this connection has not said who it is: send auth with a token first")
	case call.Err == nil:
		call.Err = c.access().Check(&call.Command)
	}
	if call.Err != nil {
		l.refused(c, call)
	}
}

// show leaves of an answer what its caller may see.
func (l *loop) show(c *conn, call *protocol.Call) {
	if l.config.Guard == nil {
		return
	}
	if c.access().VisibleReply(call); call.Err != nil {
		l.refused(c, call)
	}
}

// refused takes note of a command that was refused because of who sent it.
func (l *loop) refused(c *conn, call *protocol.Call) {
	code := call.Err.Code
	if code != protocol.CodeForbidden && code != protocol.CodeUnauthorized {
		return
	}
	l.edge.metrics.refused.WithLabelValues(string(code)).Inc()
	if cmd := &call.Command; cmd.Op.IsWrite() && l.audits.line(l) {
		who, subject := c.named(), ""
		if who.caller != nil {
			subject = who.caller.Subject
		}
		// The key of a command that wasn't checked may be of any length.
		key := cmd.Key[:min(len(cmd.Key), protocol.NameBytesMax)]
		l.logger.Info("audit", "subject", subject, "address", who.address, "op", string(cmd.Op), "key", key, "code", string(code))
	}
}

// auditsMax bounds a loop's audit lines in a second.
const auditsMax = 10

// audits bounds audit lines, as whoever is refused may come back as fast as it can.
type audits struct {
	until   int64 // ms: the end of the second
	lines   int   // in it
	leftOut int   // not logged since the last line
}

// line reports whether there is room for one more.
func (a *audits) line(l *loop) bool {
	a.tell(l)
	if a.lines >= auditsMax {
		a.leftOut++
		return false
	}
	a.lines++
	return true
}

// tell begins a new second where the one before is over, and says what was left out of
// that.
func (a *audits) tell(l *loop) {
	if l.now < a.until {
		return
	}
	if a.leftOut > 0 {
		l.logger.Info("audit", "left_out", a.leftOut)
	}
	*a = audits{until: l.now + 1000}
}

func newRefusedCounter() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "stockmesh_edge_refused_total", Help: "WebSocket commands refused because of who sent them, by error code.",
	}, []string{"code"})
}
