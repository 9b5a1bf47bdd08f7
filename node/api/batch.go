package api

import (
	"bytes"
	"net/http"

	"github.com/stockmesh/stockmesh/protocol"
)

// batchReadsMax bounds what the reads of one batch may ask for together, in items
// and movements: 5,000 small commands could otherwise fill a node's memory.
const batchReadsMax = 100_000

// serveBatch answers each command on its own; only a body that is no batch at all
// fails as a whole.
func serveBatch(a *API, w http.ResponseWriter, r *request) *protocol.Error {
	if key, err := r.idempotencyKey(); err != nil || key != "" {
		return protocol.BadRequest("a batch takes no Idempotency-Key: each of its commands has a key of its own")
	}
	body, err := a.readBody(w, r, protocol.BatchBytesMax)
	if err != nil {
		return err
	}
	b, err := a.decodeBatch(r, body)
	if err != nil {
		return err
	}
	if len(b.calls) > 0 {
		for i, answer := range a.launch(r, b.calls).wait(r.Context(), a.cfg.AnswerTimeout) {
			if answer != nil {
				r.show(answer)
				b.replies[b.place[i]] = answer
			}
		}
	}
	for _, reply := range b.replies {
		if reply.Err != nil {
			a.cfg.Failed(reply.Err.Code)
		}
	}
	writeJSON(w, http.StatusOK, mediaJSON, cacheWrite, appendResults(b.replies))
	return nil
}

type batch struct {
	replies []*protocol.Call // one per command: what holds if the ledger answers nothing
	calls   []*protocol.Call // to submit
	place   []int            // of each call's answer in replies
}

// decodeBatch takes every command but the first, which the request has paid for, from
// what its sender may still ask for. Those beyond that are refused one by one, as are
// those that the sender may not have carried out.
func (a *API) decodeBatch(r *request, body []byte) (*batch, *protocol.Error) {
	if trimmed := bytes.TrimLeft(body, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '[' {
		return nil, protocol.BadRequest("a batch is an array of commands")
	}
	values, err := protocol.Split(body, protocol.BatchMax)
	if err != nil {
		return nil, err
	}
	b := &batch{replies: make([]*protocol.Call, len(values))}
	reads := 0
	allowed, limited := a.allow(r, max(0, len(values)-1))
	for i, v := range values {
		call := new(protocol.Call)
		err := call.Command.Decode(v)
		if err == nil && i > allowed {
			err = limited
		}
		if err == nil {
			err = checkBatched(&call.Command, &reads)
		}
		if err == nil {
			err = a.permit(r, &call.Command)
		}
		if err == nil {
			err = unanswered(call.Command.Op)
			b.calls, b.place = append(b.calls, call), append(b.place, i)
		}
		b.replies[i] = &protocol.Call{Command: protocol.Command{ID: call.Command.ID}, Err: err}
	}
	return b, nil
}

// allow takes n commands from what both the client and the subject may still ask for.
func (a *API) allow(r *request, n int) (allowed int, err *protocol.Error) {
	allowed, err = a.cfg.Allow(r.Request, n)
	granted, ms := r.account.Spend(allowed)
	if granted < allowed {
		return granted, outOfCommands(ms)
	}
	return allowed, err
}

func checkBatched(c *protocol.Command, reads *int) *protocol.Error {
	switch c.Op {
	case protocol.OpAuth, protocol.OpSubscribe, protocol.OpUnsubscribe, protocol.OpPing:
		return protocol.BadRequest("%s belongs to a WebSocket, there is none here", c.Op)
	case protocol.OpHistory:
		*reads += c.Limit
	case protocol.OpGet:
		if err := checkPicked(c); err != nil {
			return err
		}
		*reads += len(c.SKUs) * max(1, len(c.Locations))
	}
	if *reads > batchReadsMax {
		return protocol.NewError(protocol.CodeTooLarge, "the reads of one batch ask for more than %d items and movements", batchReadsMax)
	}
	return nil
}

// checkPicked bounds the zero items that SKUs times locations could ask for.
func checkPicked(c *protocol.Command) *protocol.Error {
	if len(c.SKUs)*len(c.Locations) > protocol.SelectorsMax {
		return protocol.NewError(protocol.CodeTooLarge, "%d SKUs at %d locations, the limit is %d items",
			len(c.SKUs), len(c.Locations), protocol.SelectorsMax)
	}
	return nil
}

func appendResults(replies []*protocol.Call) []byte {
	b := []byte(`{"results":[`)
	for i, reply := range replies {
		if i > 0 {
			b = append(b, ',')
		}
		b = protocol.AppendReply(b, reply)
	}
	return append(b, `]}`...)
}
