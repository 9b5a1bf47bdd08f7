// Package api serves the ledger over HTTP: resources, server-sent events, long
// polls, problem documents, and the OpenAPI and AsyncAPI documents made from the
// same types.
//
// It decides nothing about stock. A write becomes one protocol.Call and waits
// for its answer; a stream follows the ledger's changes and reads each item's
// newest state when its reader is ready for it. DESIGN.md says why streams and
// cursors work as they do.
package api

import (
	"crypto/x509"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stockmesh/stockmesh/protocol"
)

// Ledger is what the HTTP interface needs from a node. All methods may be called
// from any goroutine.
type Ledger interface {
	// Submit hands over calls; each call's Done is called exactly once, from any
	// goroutine, possibly before Submit returns. It never blocks. It executes
	// every op except auth, subscribe, unsubscribe and ping.
	Submit(calls []*protocol.Call)
	// Scan returns existing items in order and whether others may follow: then next is
	// the After to go on with. It may return fewer than the limit, even none. A query
	// that names SKUs returns only those which exist.
	Scan(q *protocol.Query) (items []protocol.Item, next protocol.ItemKey, more bool)
	// Watch calls fn after each commit, in order, on the ledger's goroutine: fn
	// must not block.
	Watch(fn func(*protocol.Changes)) (stop func())
	// Items appends the present state of items, in order of ids.
	Items(dst []protocol.Item, ids []protocol.ItemID) []protocol.Item
	// Cursor is how far the node's state reaches.
	Cursor() protocol.Vector
	// Mesh is what the node knows of all regions and nodes.
	Mesh() protocol.Mesh
}

// Config is what New needs. Only Ledger is required; a zero duration means its
// default.
type Config struct {
	Ledger     Ledger
	Logger     *slog.Logger          // nil: nothing is logged
	Registerer prometheus.Registerer // nil: metrics are counted but not shown
	Origins    []string              // Origin headers allowed beside the same host, as "https://shop.example"

	Guard        Guard                                      // nil: everybody may do everything
	Quota        Quota                                      // nil, or no Guard: no limits of subjects
	Certificates func(r *http.Request) *x509.Certificate    // a request's verified client certificate; nil: there are none
	Address      func(r *http.Request) (withoutPort string) // where a client is, for the movement history; nil: the connection's other end

	// Allow takes n commands from what a request's client may still ask for, as many
	// as there are; err says why it is not all and when to come again. nil: no limit.
	Allow func(r *http.Request, n int) (allowed int, err *protocol.Error)

	Tracer  Tracer                                   // nil: no command is followed
	Observe func(op protocol.Op, took time.Duration) // hears of each answered command; a batch's all take as long as it does. nil: nobody does
	Failed  func(protocol.Code)                      // hears of each error that is answered, a batch's one by one. nil: nobody does

	AuthTimeout   time.Duration // checking one token; default 5 s
	AnswerTimeout time.Duration // a submitted call without answer is then reported as unknown; default 30 s
	BodyTimeout   time.Duration // reading one request body; default 30 s
	WriteTimeout  time.Duration // one write, of at most 64 items, to a stream's reader, who is left after it; default 10 s
	Heartbeat     time.Duration // between a stream's heartbeats, two of which it takes to notice that a reader has left; default 15 s
	WaitMax       time.Duration // the longest wait_ms of a long poll; default 60 s
}

func (c *Config) setDefaults() {
	if c.Allow == nil {
		c.Allow = func(_ *http.Request, n int) (int, *protocol.Error) { return n, nil }
	}
	if c.Failed == nil {
		c.Failed = func(protocol.Code) {}
	}
	if c.Observe == nil {
		c.Observe = func(protocol.Op, time.Duration) {}
	}
	if c.Address == nil {
		c.Address = peerAddress
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	for _, d := range [...]struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.AuthTimeout, 5 * time.Second},
		{&c.AnswerTimeout, 30 * time.Second},
		{&c.BodyTimeout, 30 * time.Second},
		{&c.WriteTimeout, 10 * time.Second},
		{&c.Heartbeat, 15 * time.Second},
		{&c.WaitMax, 60 * time.Second},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
}

// API is the http.Handler of a node's public port, all but the WebSocket and the
// console. It watches the ledger until Drain.
type API struct {
	cfg     Config
	ledger  Ledger
	log     *slog.Logger
	routes  []route
	origins map[string]bool // lower case
	metrics *metrics
	anybody *protocol.Caller // who sends requests where there is no Guard
	audit   *audit
	guests  *guests
	hub     *hub
	flights atomic.Uint64 // numbers them

	openAPI  func() []byte
	asyncAPI func() []byte
}

// New returns an API that follows the ledger's changes; Drain ends that.
func New(cfg Config) *API {
	cfg.setDefaults()
	visitors := newGuests(cfg.Guard)
	a := &API{
		cfg:     cfg,
		ledger:  cfg.Ledger,
		log:     cfg.Logger,
		routes:  routes(),
		origins: make(map[string]bool),
		metrics: newMetrics(cfg.Registerer),
		anybody: protocol.Anybody(),
		audit:   &audit{log: cfg.Logger},
		guests:  visitors,
		hub:     newHub(cfg.Ledger, visitors, newCrew(cfg.Heartbeat)),
	}
	for _, o := range cfg.Origins {
		a.origins[strings.ToLower(o)] = true
	}
	a.openAPI = sync.OnceValue(func() []byte { return openAPIDocument(a.routes) })
	a.asyncAPI = sync.OnceValue(asyncAPIDocument)
	return a
}

// Drain ends all streams and long polls and stops watching the ledger. Streams have
// ended when it returns, which http.Server.Shutdown would not wait for. Other requests are served as before. A second
// call does nothing.
func (a *API) Drain() { a.hub.close() }

// Recheck ends the streams and long polls of callers who are no longer valid, within
// seconds even where a reader has stalled. It is for revocations; expiry is noticed
// without it.
func (a *API) Recheck() { a.guests.recheck() }

// Evict ends the n streams of a subject that were opened last, and returns how many
// there were. It doesn't wait for their end, which takes seconds at most, and never
// counts a stream twice.
func (a *API) Evict(subject string, n int) (ended int) {
	for _, s := range a.hub.crew.newest(subject) {
		if ended >= n {
			break
		}
		if s.end() {
			ended++
		}
	}
	return ended
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w}
	rt, params, err := a.match(r)
	// The first to be deferred runs last and so sees the answer to a panic.
	defer a.metrics.observe(rt, rec, time.Now())
	defer a.recoverPanic(rec, r, rt)

	cross, originErr := a.checkOrigin(rec, r)
	switch {
	case originErr != nil:
		writeProblem(rec, originErr)
		return
	case cross && isPreflight(r):
		a.servePreflight(rec, r)
		return
	}
	// A request costs one command whatever it is, or a flood of bad ones were free.
	if allowed, limited := a.cfg.Allow(r, 1); allowed == 0 {
		a.fail(rec, limited)
		return
	}
	if err := a.dispatch(rec, r, rt, params, err); err != nil {
		a.fail(rec, err)
	}
}

// fail answers with an error.
func (a *API) fail(w http.ResponseWriter, err *protocol.Error) {
	a.cfg.Failed(err.Code)
	writeProblem(w, err)
}

// dispatch serves a request once it is known who sends it; unmatched is why it has no
// route.
func (a *API) dispatch(w http.ResponseWriter, r *http.Request, rt *route, params map[string]string, unmatched *protocol.Error) *protocol.Error {
	req, err := newRequest(r, params)
	if err != nil {
		return err
	}
	req.address = a.cfg.Address(r)
	if rt == nil || !rt.public {
		if err := a.letIn(w, req, rt); err != nil {
			return err
		}
		defer req.release()
	}
	if unmatched != nil {
		if unmatched.Code == protocol.CodeMethodNotAllowed {
			w.Header().Set("Allow", strings.Join(a.methods(r.URL.EscapedPath()), ", "))
		}
		return unmatched
	}
	return rt.serve(a, w, req)
}

// letIn admits who may use the route at all. Without an error, r's account must be
// released.
func (a *API) letIn(w http.ResponseWriter, r *request, rt *route) *protocol.Error {
	if a.cfg.Guard != nil {
		w.Header().Add("Vary", "Authorization")
	}
	if err := a.admit(r); err != nil {
		if rt.writes() && err.Code == protocol.CodeUnauthorized {
			a.audit.refused("", r.address, rt.doing(), r.Header.Get("Idempotency-Key"), err.Code)
		}
		return err
	}
	if rt != nil && rt.right != "" && !r.who.Access.May(rt.right) {
		r.account.Release()
		return protocol.NewError(protocol.CodeForbidden, "%s is not granted here", rt.right)
	}
	return nil
}

// recoverPanic keeps one broken request from being more than that. The outcome
// of a write is not known then, which is what the client is told.
func (a *API) recoverPanic(w *recorder, r *http.Request, rt *route) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler {
		panic(v)
	}
	a.log.Error("http: panic", "route", rt.label(), "panic", v, "stack", string(debug.Stack()))
	if w.status != 0 {
		// Half an answer is out: only a broken connection tells the reader.
		panic(http.ErrAbortHandler)
	}
	e := protocol.RetryLater(protocol.CodeUnavailable, retrySoonMS, "the node failed to answer")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		e.Details = &protocol.Details{Outcome: "unknown"}
	}
	a.cfg.Failed(e.Code)
	writeProblemStatus(w, e, http.StatusInternalServerError)
}
