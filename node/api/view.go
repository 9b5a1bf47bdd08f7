package api

import (
	"slices"
	"strings"

	"github.com/stockmesh/stockmesh/protocol"
)

// permit says whether the caller may have a command carried out that has passed Check.
// Whatever is submitted goes through here.
func (a *API) permit(r *request, c *protocol.Command) *protocol.Error {
	err := r.who.Access.Check(c)
	if err != nil && c.Op.IsWrite() {
		a.audit.refused(r.who.Subject, r.address, string(c.Op), c.Key, err.Code)
	}
	return err
}

// show takes out of an answer what its caller may not see. Whatever is answered goes
// through here.
func (r *request) show(call *protocol.Call) {
	r.who.Access.VisibleReply(call)
	if call.Command.Op == protocol.OpGet && call.Err == nil && !r.who.Access.SeesAll() {
		showGet(call, r.who.Access)
	}
}

// showGet makes what is left of a get's answer the one that there would be if nothing
// else existed: a SKU that exists only where the caller sees nothing reads as one that
// doesn't exist, and at_least is reached by what the caller sees or not at all.
func showGet(call *protocol.Call, access *protocol.Access) {
	c, res := &call.Command, &call.Result
	if len(c.Locations) == 0 {
		res.Items = withUnknown(res.Items, c.SKUs, access)
	}
	want, err := protocol.ParseVector(c.AtLeast)
	if err != nil || len(want) == 0 {
		return
	}
	res.Behind = !slices.ContainsFunc(res.Items, func(it protocol.Item) bool {
		have, err := protocol.ParseVector(it.Version)
		return err == nil && have.AtLeast(want)
	})
}

// withUnknown puts zero items where SKUs have none. Items are in the order of skus, and
// so is the result: the place would tell which is which.
func withUnknown(items []protocol.Item, skus []string, access *protocol.Access) []protocol.Item {
	out := make([]protocol.Item, 0, len(items))
	for _, sku := range skus {
		n := 0
		// A SKU that is named twice in a row has its locations twice.
		for last := (protocol.ItemKey{}); n < len(items) && items[n].SKU == sku && keyOf(&items[n]).Compare(last) > 0; n++ {
			last = keyOf(&items[n])
		}
		out, items = append(out, items[:n]...), items[n:]
		if n == 0 && access.Sees(sku, protocol.DefaultLocation) {
			out = append(out, protocol.Item{SKU: sku, Location: protocol.DefaultLocation})
		}
	}
	return append(out, items...)
}

// narrowed returns a selector for looking for what s picks and the caller sees. It may
// pick what they don't see, which is to be left out afterwards.
func narrowed(access *protocol.Access, s protocol.Selector) protocol.Selector {
	narrow, ok := access.Narrow(s)
	if !ok {
		return nothing()
	}
	if s.Wide() || len(s.Prefixes) == 0 {
		return narrow
	}
	view, _ := access.Narrow(protocol.Selector{All: true})
	if view.Wide() {
		return narrow
	}
	narrow.SKUs, narrow.Prefixes = slices.Clone(s.SKUs), nil
	for _, p := range s.Prefixes {
		for _, sku := range view.SKUs {
			if strings.HasPrefix(sku, p) {
				narrow.SKUs = append(narrow.SKUs, sku)
			}
		}
		for _, v := range view.Prefixes {
			if strings.HasPrefix(v, p) {
				narrow.Prefixes = append(narrow.Prefixes, v)
			} else if strings.HasPrefix(p, v) {
				narrow.Prefixes = append(narrow.Prefixes, p)
			}
		}
	}
	if narrow.Wide() {
		return nothing()
	}
	return narrow
}

// nothing picks nothing: no item's SKU is empty. A selector without names would pick all.
func nothing() protocol.Selector { return protocol.Selector{SKUs: []string{""}} }

// scansMax bounds the scans for one page that has something in it already.
const scansMax = 16

// scan returns at most limit items that the caller sees, and whether there are more. A
// page is cut short rather than looked for too long; one without any item goes on, for
// the next page can only begin after an item that the caller knows.
func (a *API) scan(r *request, s protocol.Selector, after protocol.ItemKey, limit int) (items []protocol.Item, more bool, err *protocol.Error) {
	access := r.who.Access
	q := protocol.Query{Selector: s, After: after, Limit: limit}
	if access.SeesAll() {
		items, more = a.ledger.Scan(&q)
		return items, more, nil
	}
	// One more than asked for tells whether the caller sees any after them.
	q.Selector, q.Limit = narrowed(access, s), protocol.PageMax
	for scans, left := 1, true; left; scans++ {
		var found []protocol.Item
		found, left = a.ledger.Scan(&q)
		if len(found) == 0 {
			break
		}
		q.After = keyOf(&found[len(found)-1])
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
