package api

import (
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
	named, behind, err := a.namedItems(r, q)
	if err != nil {
		return err
	}
	page, err := a.fillPage(r, q, named)
	if err != nil {
		return err
	}
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
func (a *API) namedItems(r *request, q *pageQuery) (items []protocol.Item, behind bool, err *protocol.Error) {
	c := protocol.Command{Op: protocol.OpGet, SKUs: q.SKUs, Locations: q.Locations, AtLeast: q.atLeast}
	if len(q.SKUs) == 0 {
		return nil, false, a.permit(r, &c) // of locations alone
	}
	if err := c.Check(); err != nil {
		return nil, false, err
	}
	if err := checkPicked(&c); err != nil {
		return nil, false, err
	}
	call, err := a.ask(r, c)
	if err != nil {
		return nil, false, err
	}
	return call.Result.Items, call.Result.Behind, nil
}

// fillPage merges the named items with those found by scanning, which end where
// the page does.
func (a *API) fillPage(r *request, q *pageQuery, named []protocol.Item) (page *protocol.Page, err *protocol.Error) {
	var items []protocol.Item
	var more bool
	wide := protocol.Selector{Prefixes: q.Prefixes, Locations: q.Locations}
	if len(q.SKUs) == 0 || len(q.Prefixes) > 0 {
		if items, more, err = a.scan(r, wide, q.after, q.limit); err != nil {
			return nil, err
		}
	}
	scanned := len(items)
	for _, it := range named {
		k := it.Key()
		beyond := more && scanned > 0 && k.Compare(items[scanned-1].Key()) > 0
		if k.Compare(q.after) > 0 && !beyond {
			items = append(items, it)
		}
	}
	slices.SortStableFunc(items, func(x, y protocol.Item) int { return x.Key().Compare(y.Key()) })
	items = slices.CompactFunc(items, func(x, y protocol.Item) bool { return x.Key() == y.Key() })
	if len(items) > q.limit {
		items, more = items[:q.limit], true
	}
	page = &protocol.Page{Items: items}
	if more && len(items) > 0 {
		page.Next = position(items[len(items)-1].Key())
	}
	return page, nil
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
