package server

import (
	"errors"
	"net/http"
	"net/http/pprof"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stockmesh/stockmesh/node/token"
	"github.com/stockmesh/stockmesh/protocol"
)

// Readiness is the answer of GET /readyz. Status is ready, or why it isn't:
// starting, catching_up, draining, no_quorum or unhealthy.
type Readiness struct {
	Status   string   `json:"status"`
	Region   string   `json:"region"`
	Node     string   `json:"node"`
	Version  string   `json:"version,omitzero"`
	Problems []string `json:"problems,omitzero"`
	Warnings []string `json:"warnings,omitzero"` // what will be a problem unless it is mended
	Mesh     []string `json:"mesh,omitzero"`     // what is wrong with other regions, or the way to them; this one sells on

	kinds []string // of the problems
}

// adminRoute is one thing the admin port serves.
type adminRoute struct {
	pattern string // as http.ServeMux takes it
	serve   http.HandlerFunc
}

func (s *Server) adminRoutes() []adminRoute {
	metrics := promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{Registry: s.registry})
	return append([]adminRoute{
		{"GET /healthz", alive},
		{"GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
			r := s.readiness()
			writeJSON(w, r.httpStatus(), r)
		}},
		{"GET /metrics", metrics.ServeHTTP},
		{"GET /debug/connections", s.slowest},
		{"GET /debug/pprof/", pprof.Index},
		{"GET /debug/pprof/cmdline", pprof.Cmdline},
		{"GET /debug/pprof/profile", pprof.Profile},
		{"GET /debug/pprof/symbol", pprof.Symbol},
		{"GET /debug/pprof/trace", pprof.Trace},
	}, s.operations()...)
}

func (s *Server) adminHandler() http.Handler {
	mux := http.NewServeMux()
	for _, r := range s.adminRoutes() {
		mux.HandleFunc(r.pattern, r.serve)
	}
	// A page in an operator's browser must not operate the node behind their back.
	return http.NewCrossOriginProtection().Handler(s.guarded(mux))
}

func (r *Readiness) httpStatus() int {
	if r.Status == "ready" {
		return http.StatusOK
	}
	return http.StatusServiceUnavailable
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// A reader that has gone is no news to anybody.
	_, _ = w.Write(append(protocol.AppendJSON(nil, v), '\n'))
}

// beginning is how far the node is with its start.
func (s *Server) beginning() string {
	if phase := *s.phase.Load(); phase != "serving" {
		return phase
	}
	return "starting" // the region serves, but not this node's clients yet
}

func (s *Server) readiness() Readiness {
	r := Readiness{Status: s.beginning(), Region: s.config.Region, Node: s.config.Name, Version: s.config.Version}
	c := s.cluster.Load()
	if c == nil {
		return r
	}
	problem := func(kind string, err error) {
		r.Problems, r.kinds = append(r.Problems, err.Error()), append(r.kinds, kind)
	}
	for _, p := range c.Health() {
		problem(p.Kind, p.Err)
	}
	if s.guard != nil {
		switch err := s.guard.Health(); {
		case errors.Is(err, token.ErrNoKeys):
			problem("tokens", err)
		case err != nil:
			r.Warnings = append(r.Warnings, err.Error())
		}
	}
	for _, err := range c.MeshProblems() {
		r.Mesh = append(r.Mesh, err.Error())
	}
	state := c.State()
	switch {
	case s.front.Load() == nil: // clients are not served yet
	case state != "serving":
		r.Status = state
	case len(r.Problems) > 0:
		r.Status = "unhealthy"
	default:
		r.Status = "ready"
	}
	return r
}
