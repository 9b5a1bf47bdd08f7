package server

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/stockmesh/stockmesh/node/edge"
	"github.com/stockmesh/stockmesh/protocol"
)

// Readers is the answer of GET /debug/connections.
type Readers struct {
	Connections int           `json:"connections"` // of the public port, HTTP's included
	Slowest     []edge.Reader `json:"slowest"`     // WebSockets, those for which most waits first
}

// inspectTimeout is how long a busy loop has to answer.
const inspectTimeout = 5 * time.Second

// slowest shows ?top= sessions, 20 if not given.
func (s *Server) slowest(w http.ResponseWriter, r *http.Request) {
	const usual, most = "20", 1000
	query := r.URL.Query().Get("top")
	if query == "" {
		query = usual
	}
	top, err := strconv.Atoi(query)
	if err != nil || top < 1 || top > most {
		writeProblem(w, http.StatusBadRequest, protocol.CodeBadRequest, "top must be an integer 1.."+strconv.Itoa(most))
		return
	}
	e := s.edge.Load()
	if e == nil {
		writeProblem(w, http.StatusServiceUnavailable, protocol.CodeUnavailable, "the public port is not open yet")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), inspectTimeout)
	defer cancel()
	list, err := e.Slowest(ctx, top)
	if err != nil {
		writeProblem(w, http.StatusServiceUnavailable, protocol.CodeUnavailable, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, Readers{Connections: e.Connections(), Slowest: list})
}
