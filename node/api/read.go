package api

import (
	"net/http"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

// serveItem answers with one item. A long poll is the same, except that a version
// which the client has already is held back until it changes or time is up.
func serveItem(a *API, w http.ResponseWriter, r *request) *protocol.Error {
	c, wait, err := a.itemCommand(r)
	if err != nil {
		return err
	}
	known, err := r.ifNoneMatch()
	if err != nil {
		return err
	}
	if !known.sent {
		wait = 0
	}
	p, err := a.openPoll(w, r, c, wait)
	if err != nil {
		return err
	}
	defer p.leave()
	for {
		call, err := a.ask(r, *c)
		if out := r.turnedOut(w); out != nil {
			return out
		}
		if err != nil {
			return err
		}
		item := pickItem(call, c)
		if !known.sent || !known.holds(item.Version) {
			writeItem(w, item, call.Result.Behind)
			return nil
		}
		if known.any {
			p.unfollow() // an item that exists once does so in all its versions
		}
		if !p.changed(r) {
			if out := r.turnedOut(w); out != nil {
				return out
			}
			writeNotModified(w, item.Version)
			return nil
		}
	}
}

func (a *API) itemCommand(r *request) (*protocol.Command, time.Duration, *protocol.Error) {
	c := &protocol.Command{Op: protocol.OpGet, SKUs: []string{r.params["sku"]}}
	location := ""
	if err := r.ones(map[string]*string{"location": &location, "at_least": &c.AtLeast}); err != nil {
		return nil, 0, err
	}
	if location == "" {
		location = protocol.DefaultLocation
	}
	c.Locations = []string{location}
	ms, err := r.integer("wait_ms", 0, int(a.cfg.WaitMax.Milliseconds()), 0)
	if err != nil {
		return nil, 0, err
	}
	return c, time.Duration(ms) * time.Millisecond, c.Check()
}

// liftDeadlines takes the server's time limits off a request that is meant to
// last. Writers without deadlines are those of tests.
func liftDeadlines(w http.ResponseWriter) {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{})
	_ = rc.SetWriteDeadline(time.Time{})
}

// pickItem returns the item asked for, zero where the answer holds none.
func pickItem(call *protocol.Call, c *protocol.Command) *protocol.Item {
	if len(call.Result.Items) > 0 {
		return &call.Result.Items[0]
	}
	return &protocol.Item{SKU: c.SKUs[0], Location: c.Locations[0]}
}

func writeItem(w http.ResponseWriter, item *protocol.Item, behind bool) {
	w.Header().Set("ETag", etag(item.Version))
	ok := protocol.Result{Kind: protocol.KindItem, Items: []protocol.Item{*item}}
	writeJSON(w, http.StatusOK, mediaJSON, cacheRead, appendBehind(protocol.AppendOK(nil, &ok), behind))
}

func writeNotModified(w http.ResponseWriter, version string) {
	w.Header().Set("ETag", etag(version))
	w.Header().Set("Cache-Control", cacheRead)
	w.WriteHeader(http.StatusNotModified)
}

func serveHistory(a *API, w http.ResponseWriter, r *request) *protocol.Error {
	c := protocol.Command{Op: protocol.OpHistory, SKU: r.params["sku"]}
	err := r.ones(map[string]*string{"location": &c.Location, "region": &c.Region, "before": &c.Before})
	if err != nil {
		return err
	}
	if c.Limit, err = r.integer("limit", 1, protocol.HistoryMax, 0); err != nil {
		return err
	}
	return a.read(w, r, c)
}

func serveReservation(a *API, w http.ResponseWriter, r *request) *protocol.Error {
	return a.read(w, r, protocol.Command{Op: protocol.OpReservation, Reservation: r.params["id"]})
}

func serveOutcome(a *API, w http.ResponseWriter, r *request) *protocol.Error {
	c := protocol.Command{Op: protocol.OpOutcome, Key: r.params["key"]}
	if err := r.ones(map[string]*string{"home": &c.Home}); err != nil {
		return err
	}
	return a.read(w, r, c)
}

// read answers with what a command that changes nothing returns.
func (a *API) read(w http.ResponseWriter, r *request, c protocol.Command) *protocol.Error {
	if err := c.Check(); err != nil {
		return err
	}
	call, err := a.ask(r, c)
	if err != nil {
		return err
	}
	writeOK(w, http.StatusOK, cacheRead, call)
	return nil
}

func serveMesh(a *API, w http.ResponseWriter, _ *request) *protocol.Error {
	mesh := a.ledger.Mesh()
	writeJSON(w, http.StatusOK, mediaJSON, cacheRead, protocol.AppendJSON(nil, &mesh))
	return nil
}

func serveDocument(document func(*API) []byte) handler {
	return func(a *API, w http.ResponseWriter, _ *request) *protocol.Error {
		writeJSON(w, http.StatusOK, mediaJSON, cacheRead, document(a))
		return nil
	}
}
