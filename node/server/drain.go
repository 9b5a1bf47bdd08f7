package server

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stockmesh/stockmesh/node/api"
	"github.com/stockmesh/stockmesh/node/edge"
	"github.com/stockmesh/stockmesh/protocol"
)

// drainDelayMax bounds how long a drain waits before it sends anybody elsewhere.
const drainDelayMax = time.Minute

// front is what serves clients.
type front struct {
	edge *edge.Edge
	api  *api.API
	http *http.Server
	gone sync.Once // by whoever wanted it first; others wait for it

	hurry  chan struct{} // closed once nobody may wait any longer
	hasten sync.Once

	leaving atomic.Bool // clients shall not count on their connections
}

// drain lets the clients go, once: a second call waits for the end of the first. The node
// says that it is draining from the beginning on. Nobody is sent away before begin gives
// something, nil is at once: whoever leads clients here has time to see it. New
// connections are taken until then, and find a closed door after it, as they will when
// the node is gone. Who has no time ends the wait of a first one too: whatever stops the
// node soon kills it.
func (s *Server) drain(f *front, begin <-chan time.Time) {
	if begin == nil {
		f.hasten.Do(func() { close(f.hurry) })
	}
	f.gone.Do(func() { s.sendAway(f, begin) })
}

// sendAway lets the clients go before what they talk to. First other nodes take over
// what this one decides, then nobody new comes in and everybody is told where to go, one
// after the other, then the requests under way are finished.
func (s *Server) sendAway(f *front, begin <-chan time.Time) {
	s.logger.Info("draining", "connections", f.edge.Connections())
	f.leaving.Store(true)
	c, started := s.cluster.Load(), time.Now()
	handOver, done := context.WithTimeout(context.Background(), stopTimeout)
	c.Drain(handOver)
	done()
	left := s.config.Drain + stopTimeout - time.Since(started)
	select {
	case <-begin:
	case <-f.hurry:
	}
	ctx, cancel := context.WithTimeout(context.Background(), left)
	defer cancel()
	f.api.Drain()
	elsewhere := c.Elsewhere()
	over := s.config.Drain
	if len(elsewhere) == 0 {
		over = 0 // nobody to go to: the sooner they come back the better
	}
	f.edge.Drain(ctx, over, elsewhere)
	if err := f.http.Shutdown(ctx); err != nil {
		s.logger.Warn("not all requests have ended", "error", err)
	}
	s.logger.Info("drained", "connections", f.edge.Connections(), "after", time.Since(started).Round(time.Millisecond))
}

// Drained is the answer of POST /drain.
type Drained struct {
	Status      string `json:"status"`      // drained
	Connections int    `json:"connections"` // of clients that did not go in time
}

// drainNow serves POST /drain?delay=5s: it answers when the clients are gone. The node
// runs on, for its region's quorum and its operators, until it is told to stop, which it
// then does at once. Who asked may go away meanwhile.
func (s *Server) drainNow(w http.ResponseWriter, r *http.Request) {
	delay, err := drainDelay(r.URL.Query().Get("delay"))
	if err != nil {
		s.auditOperation(r, http.StatusBadRequest)
		writeProblem(w, http.StatusBadRequest, protocol.CodeBadRequest, err.Error())
		return
	}
	f := s.front.Load()
	if f == nil {
		s.auditOperation(r, http.StatusServiceUnavailable)
		writeProblem(w, http.StatusServiceUnavailable, protocol.CodeUnavailable, "the node has no clients yet: it is still "+s.beginning())
		return
	}
	s.auditOperation(r, http.StatusOK) // now: what follows takes long, and may be the end of the process
	begin := time.NewTimer(delay)
	defer begin.Stop()
	s.drain(f, begin.C)
	writeJSON(w, http.StatusOK, Drained{Status: "drained", Connections: f.edge.Connections()})
}

func drainDelay(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > drainDelayMax {
		return 0, fmt.Errorf("delay %.40q: want a duration from 0s to %v, as 5s", text, drainDelayMax)
	}
	return d, nil
}
