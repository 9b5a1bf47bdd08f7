package api

import (
	"context"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"

	"github.com/stockmesh/stockmesh/protocol"
)

// pageQuery is a parsed GET /v1/stock.
type pageQuery struct {
	protocol.Selector
	atLeast string
	after   protocol.ItemKey
	limit   int
}

func servePage(a *API, w http.ResponseWriter, r *request) *protocol.Error {
	q, err := parsePage(r)
	if err != nil {
		return err
	}
	named, behind, err := a.namedItems(r.Context(), q)
	if err != nil {
		return err
	}
	page := a.fillPage(q, named)
	writeJSON(w, http.StatusOK, mediaJSON, cacheRead, appendBehind(protocol.AppendPage(nil, page), behind))
	return nil
}

func parsePage(r *request) (*pageQuery, *protocol.Error) {
	q := &pageQuery{Selector: r.selector()}
	if err := checkSelector(&q.Selector); err != nil {
		return nil, err
	}
	var after string
	err := r.ones(map[string]*string{"after": &after, "at_least": &q.atLeast})
	if err != nil {
		return nil, err
	}
	if q.atLeast != "" && len(q.SKUs) == 0 {
		return nil, protocol.BadRequest("at_least is a version of the items named by sku, none is named")
	}
	if q.after, err = parsePosition(after); err != nil {
		return nil, err
	}
	q.limit, err = r.integer("limit", 1, protocol.PageMax, protocol.PageMax)
	return q, err
}

// selector reads the parameters that pick items.
func (r *request) selector() protocol.Selector {
	return protocol.Selector{SKUs: r.query["sku"], Prefixes: r.query["prefix"], Locations: r.query["location"]}
}

// checkSelector accepts one that names nothing: it picks everything.
func checkSelector(s *protocol.Selector) *protocol.Error {
	c := protocol.Command{Op: protocol.OpUnsubscribe, SKUs: s.SKUs, Prefixes: s.Prefixes, Locations: s.Locations}
	return c.Check()
}

// namedItems asks for the SKUs that the query names. It is a get, so that unknown
// ones and at_least mean here what they mean there.
func (a *API) namedItems(ctx context.Context, q *pageQuery) (items []protocol.Item, behind bool, err *protocol.Error) {
	if len(q.SKUs) == 0 {
		return nil, false, nil
	}
	c := protocol.Command{Op: protocol.OpGet, SKUs: q.SKUs, Locations: q.Locations, AtLeast: q.atLeast}
	if err := c.Check(); err != nil {
		return nil, false, err
	}
	if err := checkPicked(&c); err != nil {
		return nil, false, err
	}
	call, err := a.ask(ctx, c)
	if err != nil {
		return nil, false, err
	}
	return call.Result.Items, call.Result.Behind, nil
}

// fillPage merges the named items with those found by scanning, which end where
// the page does.
func (a *API) fillPage(q *pageQuery, named []protocol.Item) *protocol.Page {
	var items []protocol.Item
	var more bool
	wide := protocol.Selector{Prefixes: q.Prefixes, Locations: q.Locations}
	if len(q.SKUs) == 0 || len(q.Prefixes) > 0 {
		items, more = a.ledger.Scan(&protocol.Query{Selector: wide, After: q.after, Limit: q.limit})
	}
	scanned := len(items)
	for _, it := range named {
		k := keyOf(&it)
		beyond := more && scanned > 0 && k.Compare(keyOf(&items[scanned-1])) > 0
		if k.Compare(q.after) > 0 && !beyond {
			items = append(items, it)
		}
	}
	slices.SortStableFunc(items, func(x, y protocol.Item) int { return keyOf(&x).Compare(keyOf(&y)) })
	items = slices.CompactFunc(items, func(x, y protocol.Item) bool { return keyOf(&x) == keyOf(&y) })
	if len(items) > q.limit {
		items, more = items[:q.limit], true
	}
	page := &protocol.Page{Items: items}
	if more && len(items) > 0 {
		page.Next = position(keyOf(&items[len(items)-1]))
	}
	return page
}

func keyOf(it *protocol.Item) protocol.ItemKey {
	return protocol.ItemKey{SKU: it.SKU, Location: it.Location}
}

// A position names the last item of a page. Names hold no NUL, so it can stand
// between them.

func position(k protocol.ItemKey) string {
	return base64.RawURLEncoding.EncodeToString([]byte(k.SKU + "\x00" + k.Location))
}

func parsePosition(s string) (protocol.ItemKey, *protocol.Error) {
	if s == "" {
		return protocol.ItemKey{}, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(s)
	sku, location, ok := strings.Cut(string(raw), "\x00")
	if err != nil || !ok || protocol.CheckName("sku", sku) != nil || protocol.CheckName("location", location) != nil {
		return protocol.ItemKey{}, protocol.BadRequest("after is not a page's next")
	}
	return protocol.ItemKey{SKU: sku, Location: location}, nil
}
