package api

import (
	"github.com/stockmesh/stockmesh/protocol"
)

// permit says whether the caller may have a command carried out that has passed Check.
// Whatever is submitted goes through here.
func (a *API) permit(r *request, c *protocol.Command) *protocol.Error {
	// A body may have taken its time since the token was checked.
	if a.cfg.Guard != nil && !a.cfg.Guard.Valid(r.who) {
		return protocol.NewError(protocol.CodeUnauthorized, "the token has expired or was revoked")
	}
	err := r.who.Access.Check(c)
	if err != nil && c.Op.IsWrite() {
		a.audit.refused(r.who.Subject, r.address, string(c.Op), c.Key, err.Code)
	}
	return err
}

// show takes out of an answer what its caller may not see. Whatever is answered goes
// through here.
func (r *request) show(call *protocol.Call) { r.who.Access.VisibleReply(call) }

// narrowed returns a selector for looking for what s picks and the caller sees. It may
// pick what they don't see, which is to be left out afterwards.
func narrowed(access *protocol.Access, s protocol.Selector) protocol.Selector {
	if narrow, ok := access.Narrow(s); ok {
		return narrow
	}
	return protocol.Selector{SKUs: []string{""}} // picks nothing: no item's SKU is empty
}

// scansMax bounds the scans for one page that has something in it already.
const scansMax = 16

// scan returns at most limit items that the caller sees, and whether there are more. A
// page is cut short rather than looked for too long; one without any item goes on, for
// the next page can only begin after an item that the caller knows.
func (a *API) scan(r *request, s protocol.Selector, after protocol.ItemKey, limit int) (items []protocol.Item, more bool, err *protocol.Error) {
	access := r.who.Access
	// One more than asked for tells whether the caller sees any after them.
	q := protocol.Query{Selector: narrowed(access, s), After: after, Limit: limit + 1}
	if !access.SeesAll() {
		q.Limit = protocol.PageMax // of which he may see a few
	}
	for scans, left := 1, true; left; scans++ {
		var found []protocol.Item
		found, q.After, left = a.ledger.Scan(&q)
		items = append(items, access.Visible(found)...)
		switch {
		case len(items) > limit:
			return items[:limit], true, nil
		case left && len(items) > 0 && scans >= scansMax:
			return items, true, nil
		case r.Context().Err() != nil:
			return nil, false, unanswered(protocol.OpGet)
		}
	}
	return items, false, nil
}
