package api

import (
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// Tracer follows some commands, for whoever looks where their time goes. Its methods are
// called from any goroutine and don't block.
type Tracer interface {
	// Drawn tells whether the next command is followed unasked.
	Drawn() bool
	// Begin returns what the stages of a command write to, nil where it is not followed:
	// via is how it came, traceparent what its sender said, drawn what Drawn said, read
	// when it was read.
	Begin(via, traceparent string, drawn bool, read time.Time) *protocol.Trace
	// End takes a command that has its answer. It keeps the Trace, not the call.
	End(call *protocol.Call)
}

// viaHTTP is how commands come here.
const viaHTTP = "http"

// headerTraceparent is W3C's.
const headerTraceparent = "Traceparent"

// follow gives a command a Trace if it is its turn, or its sender asks for it: in the
// command, or in the header, which holds for all commands of a batch.
func (a *API) follow(r *request, c *protocol.Call, read time.Time) {
	t := a.cfg.Tracer
	if t == nil {
		return
	}
	said := c.Command.Traceparent
	if header := r.Header[headerTraceparent]; said == "" && len(header) == 1 {
		said = header[0] // twice is malformed, which is as none
	}
	c.Trace = t.Begin(viaHTTP, said, t.Drawn(), read)
}
