package server

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
)

// Limits of the port for probes and metrics, which asks nobody who they are.
const (
	probeConnectionsMax = 512
	probeHeaderBytesMax = 16 << 10
	probeTimeout        = 30 * time.Second // of an answer, as a whole
	probeIdle           = 5 * time.Second  // who keeps a connection keeps others, and so probes, out
	scrapesMax          = 4                // at a time; a second one is no use but to a second Prometheus
	scrapeTimeout       = 10 * time.Second

	// farewell is how long the last answers of the admin port may take.
	farewell = time.Second
)

// startMetrics opens the port for probes and metrics, if there is to be one. Nothing can
// be changed by it, and it shows no stock.
func (s *Server) startMetrics(stops *stack) (err error) {
	if s.config.Metrics == "" {
		return nil
	}
	if s.metrics, err = net.Listen("tcp", s.config.Metrics); err != nil {
		return fmt.Errorf("metrics port: %w", err)
	}
	s.serveAside(stops, netutil.LimitListener(s.metrics, probeConnectionsMax), &http.Server{
		Handler: s.probeHandler(), ReadTimeout: readHeaderTimeout, IdleTimeout: probeIdle, WriteTimeout: probeTimeout, MaxHeaderBytes: probeHeaderBytesMax,
	})
	return nil
}

// serveAside serves what isn't for clients, until the node stops.
func (s *Server) serveAside(stops *stack, l net.Listener, srv *http.Server) {
	srv.ReadHeaderTimeout, srv.IdleTimeout = readHeaderTimeout, cmp.Or(srv.IdleTimeout, idleTimeout)
	srv.ErrorLog = slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug)
	go srv.Serve(l) //nolint:errcheck // ends with ErrServerClosed at Close
	stops.push(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), farewell)
		defer cancel()
		if srv.Shutdown(ctx) == nil {
			return nil
		}
		return srv.Close()
	})
}

// MetricsAddr is the address of the port for probes and metrics, "" if there is none;
// only after Ready.
func (s *Server) MetricsAddr() string {
	if s.metrics == nil {
		return ""
	}
	return s.metrics.Addr().String()
}

func (s *Server) probeHandler() http.Handler {
	mux := http.NewServeMux()
	look := glance(s.readiness, time.Now)
	mux.HandleFunc("GET /healthz", alive)
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		r := look()
		writeJSON(w, r.httpStatus(), r.brief())
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{
		Registry: s.registry, MaxRequestsInFlight: scrapesMax, Timeout: scrapeTimeout,
	}))
	return mux
}

// glanceFor is how long a look at the node's readiness is good for: it costs the engine
// something, and anybody may ask as often as they like.
const glanceFor = 100 * time.Millisecond

// glance limits how often look is called.
func glance(look func() Readiness, now func() time.Time) func() Readiness {
	var mu sync.Mutex
	var at time.Time
	var last Readiness
	return func() Readiness {
		mu.Lock()
		defer mu.Unlock()
		if at.IsZero() || now().Sub(at) >= glanceFor {
			last, at = look(), now()
		}
		return last
	}
}

func alive(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "alive"})
}

// Brief is the answer of GET /readyz on the port that asks for no token: what kind of
// problems there are. The admin port tells which, with paths and addresses.
type Brief struct {
	Status   string   `json:"status"`
	Problems []string `json:"problems,omitzero"` // commit, disk, engine, log, name, owner, rows, shard or tokens
}

func (r *Readiness) brief() Brief {
	kinds := slices.Clone(r.kinds)
	slices.Sort(kinds)
	return Brief{Status: r.Status, Problems: slices.Compact(kinds)}
}
