package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	unobserved       = "unobserved"
	observedRatioMin = 0.97
	scrapeEvery      = time.Second
)

// compareObserved sells on a node that is watched as in production, its figures scraped
// each second and its traces sent to a collector, and on one that nobody looks at, by turns.
func (r *round) compareObserved(ctx context.Context, gen *generator) (err error) {
	plain := *r.options
	plain.observed = false
	scraper := r.target.watch(ctx)
	defer func() { err = errors.Join(err, scraper.stop()) }()
	err = r.compareSides(ctx, gen, &plain, comparison{
		labels: [2]string{"observed", "unobserved"}, plain: unobserved, ratio: "observed_ratio", least: observedRatioMin,
	})
	if err != nil {
		return err
	}
	r.numbers["scrapes"], r.numbers["trace_messages"] = float64(scraper.scrapes.Load()), float64(r.target.collector.messages.Load())
	if r.numbers["scrapes"] == 0 || r.numbers["trace_messages"] == 0 {
		r.violate("%v scrapes and %v messages with traces: nobody has looked", r.numbers["scrapes"], r.numbers["trace_messages"])
	}
	return nil
}

// observe has the nodes of a target show their figures to whoever asks and send traces.
func (t *target) observe() (flags []string, err error) {
	if t.collector, err = openCollector(); err != nil {
		return nil, err
	}
	return []string{"--metrics", "127.0.0.1:0", "--trace-endpoint", t.collector.url()}, nil
}

// collector takes traces and throws them away.
type collector struct {
	listener net.Listener
	server   *http.Server
	messages atomic.Int64
	running  sync.WaitGroup
}

func openCollector() (*collector, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("collector of traces: %w", err)
	}
	c := &collector{listener: l}
	c.server = &http.Server{ReadHeaderTimeout: dialTimeout, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if n, err := io.Copy(io.Discard, r.Body); err == nil && n > 0 {
			c.messages.Add(1)
		}
	})}
	c.running.Go(func() { _ = c.server.Serve(l) }) // until close
	return c, nil
}

func (c *collector) url() string { return "http://" + c.listener.Addr().String() }

func (c *collector) close() {
	_ = c.server.Close() // nothing to be done about it
	c.running.Wait()
}

// scraper asks the nodes of a target for their figures, as Prometheus does.
type scraper struct {
	cancel  context.CancelFunc
	running sync.WaitGroup
	scrapes atomic.Int64
	failed  error // of the first that failed; after stop
}

func (t *target) watch(ctx context.Context) *scraper {
	ctx, cancel := context.WithCancel(ctx)
	s := &scraper{cancel: cancel}
	s.running.Go(func() {
		for ctx.Err() == nil {
			for _, n := range t.nodes {
				switch _, err := scrape(ctx, n.Metrics); {
				case err == nil:
					s.scrapes.Add(1)
				case ctx.Err() == nil && s.failed == nil:
					s.failed = err
				}
			}
			_ = pause(ctx, scrapeEvery) // the loop's condition sees its end
		}
	})
	return s
}

func (s *scraper) stop() error {
	s.cancel()
	s.running.Wait()
	return s.failed
}
