package server

import (
	"fmt"

	"github.com/stockmesh/stockmesh/node/api"
	"github.com/stockmesh/stockmesh/node/edge"
	"github.com/stockmesh/stockmesh/node/trace"
	"github.com/stockmesh/stockmesh/protocol"
)

// startTrace follows commands from before there can be any until none is left.
func (s *Server) startTrace(stops *stack) error {
	c := &s.config
	if c.TraceEndpoint == "" {
		return nil
	}
	t, err := trace.Open(trace.Config{
		Endpoint: c.TraceEndpoint, Ratio: c.TraceRatio, Region: c.Region, Node: c.Name, Version: c.Version,
		Logger: s.logger.With("part", "trace"), Registerer: s.registry,
	})
	if err != nil {
		return fmt.Errorf("--trace-endpoint: %w", err)
	}
	s.tracer = t
	stops.push(func() error { t.Close(); return nil })
	return nil
}

// traced hears of other nodes' commands; nil where nobody does.
func (s *Server) traced() func(*protocol.Call) {
	if s.tracer == nil {
		return nil
	}
	return s.tracer.Decided
}

// observeEdge and observeAPI say who hears of commands. An interface that holds no tracer
// is nil only if it was never set.
func (s *Server) observeEdge(c *edge.Config) {
	if s.tracer != nil {
		c.Tracer = s.tracer
	}
}

func (s *Server) observeAPI(c *api.Config, e *edge.Edge) {
	c.Observe, c.Failed = e.Observe, e.Failed // one metric for both
	if s.tracer != nil {
		c.Tracer = s.tracer
	}
}
