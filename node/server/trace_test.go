package server_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	free "github.com/stockmesh/stockmesh/cluster/clustertest/loopback"
	"github.com/stockmesh/stockmesh/node/server"
	collected "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// collector keeps the spans that nodes send.
type collector struct {
	url string

	mu    sync.Mutex
	spans []span
}

// span is one with the node that sent it.
type span struct {
	*spans.Span
	node string
}

func newCollector(t *testing.T) *collector {
	c := &collector{}
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var got collected.ExportTraceServiceRequest
		if err = errors.Join(err, proto.Unmarshal(body, &got)); err != nil {
			t.Error(err)
		}
		c.take(&got)
	}))
	t.Cleanup(srv.Close)
	c.url = srv.URL
	return c
}

func (c *collector) take(got *collected.ExportTraceServiceRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range got.ResourceSpans {
		node := ""
		for _, a := range rs.Resource.Attributes {
			if a.Key == "stockmesh.node" {
				node = a.Value.GetStringValue()
			}
		}
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				c.spans = append(c.spans, span{s, node})
			}
		}
	}
}

// tree lists the spans of a trace: the name of each below its parent's, with its node.
func (c *collector) tree(trace string) map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	paths := make(map[string]string)
	var below func(parent []byte, path string)
	below = func(parent []byte, path string) {
		for _, s := range c.spans {
			if hex.EncodeToString(s.TraceId) == trace && bytes.Equal(s.ParentSpanId, parent) {
				name := path + strings.TrimPrefix(s.Name, "stockmesh.")
				paths[name] = s.node
				below(s.SpanId, name+"/")
			}
		}
	}
	caller, _ := hex.DecodeString(callerSpan)
	below(caller, "")
	return paths
}

func (c *collector) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.spans)
}

const callerSpan = "b7ad6b7169203331"

// traceparent is that of a caller's trace, and its ID.
func traceparent(n int) (header, trace string) {
	trace = fmt.Sprintf("0af7651916cd43dd8448eb21%08x", n)
	return "00-" + trace + "-" + callerSpan + "-01", trace
}

// launch runs nodes, which are told of each other beforehand, until stop.
func launch(t *testing.T, configs ...server.Config) (nodes []*server.Server, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(stop)
	failed := make(chan struct{}, len(configs))
	for _, c := range configs {
		s, err := server.New(c)
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			if err := s.Run(ctx); err != nil {
				t.Error(err)
				failed <- struct{}{}
			}
		})
		nodes = append(nodes, s)
	}
	for _, s := range nodes {
		select {
		case <-s.Ready():
		case <-failed: // perhaps one that the others wait for
			t.FailNow()
		}
	}
	return nodes, stop
}

func tracedNode(t *testing.T, collector string, ratio float64) server.Config {
	c := server.Default()
	c.Data, c.Listen, c.Admin = t.TempDir(), "127.0.0.1:0", "127.0.0.1:0"
	c.TraceEndpoint, c.TraceRatio = collector, ratio
	return c
}

// adjust gives a command, with a header if there is a traceparent.
func adjust(t *testing.T, s *server.Server, key, traceparent string) {
	t.Helper()
	if err := tryAdjust(t.Context(), s, key, traceparent); err != nil {
		t.Fatal(err)
	}
}

func tryAdjust(ctx context.Context, s *server.Server, key, traceparent string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.Addr().String()+"/v1/adjustments", strings.NewReader(`{"sku":"A","delta":9}`))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", key)
	if traceparent != "" {
		r.Header.Set("traceparent", traceparent)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != 200 {
		err = fmt.Errorf("adjusting: %d %s", res.StatusCode, b)
	}
	return err
}

func TestTracesOfANode(t *testing.T) {
	t.Parallel()
	to := newCollector(t)
	nodes, stop := launch(t, tracedNode(t, to.url, 0))
	s := nodes[0]
	http1, trace1 := traceparent(1)
	adjust(t, s, "k1", http1)
	adjust(t, s, "k2", "") // nobody asks to follow it
	conn, _, err := websocket.Dial(t.Context(), "ws://"+s.Addr().String()+"/v1/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	ws, trace2 := traceparent(2)
	sell := `{"op":"sell","id":1,"key":"k3","lines":[{"sku":"A","quantity":1}],"traceparent":"` + ws + `"}`
	if err := conn.Write(t.Context(), websocket.MessageText, []byte(sell)); err != nil {
		t.Fatal(err)
	}
	for answered := false; !answered; {
		_, msg, err := conn.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		answered = strings.HasPrefix(string(msg), `{"id":1,"ok"`)
	}
	figures := metricsOf(t, s)
	for _, want := range []string{`stockmesh_command_seconds_count{op="sell"} 1`, `stockmesh_command_seconds_count{op="adjust"} 2`, "stockmesh_traces_dropped_total 0"} {
		if !strings.Contains(figures, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	// Before the end: that gives the collector two seconds only.
	eventually(t, "spans of two commands", time.Minute, func() error {
		if n := to.len(); n < 6 {
			return fmt.Errorf("%d spans", n)
		}
		return nil
	})
	stop()
	for _, trace := range []string{trace1, trace2} {
		got := to.tree(trace)
		if len(got) != 3 || got["command"] == "" || got["command/queue"] == "" || got["command/commit"] == "" {
			t.Errorf("trace %s: %v", trace, got)
		}
	}
	if n := to.len(); n != 6 {
		t.Errorf("%d spans of two commands that are followed", n)
	}
}

func metricsOf(t *testing.T, s *server.Server) string {
	t.Helper()
	res, err := http.Get("http://" + s.AdminAddr() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A command that another node of the region decides has spans of both.
func TestTracesOfARegion(t *testing.T) {
	t.Parallel()
	to := newCollector(t)
	ports := free.Addresses(t, 6)
	var configs []server.Config
	for i := range 3 {
		c := tracedNode(t, to.url, 0)
		c.Name, c.Expect, c.Insecure, c.Drain = fmt.Sprintf("n%d", i), 3, true, 0
		c.Gossip, c.Join, c.ClusterListen = ports[2*i], ports[:1], ports[2*i+1]
		configs = append(configs, c)
	}
	nodes, _ := launch(t, configs...)
	sent := 0
	eventually(t, "a trace over two nodes", time.Minute, func() error {
		for _, s := range nodes {
			header, _ := traceparent(sent)
			sent++
			if err := tryAdjust(t.Context(), s, fmt.Sprint("k", sent), header); err != nil {
				return err // there may be no owner for a moment
			}
		}
		for n := range sent {
			_, trace := traceparent(n)
			got := to.tree(trace)
			own, theirs := got["command"], got["command/handover/commit"]
			if len(got) == 4 && own != "" && own == got["command/handover"] && theirs != "" && theirs != own && theirs == got["command/handover/queue"] {
				return nil
			}
		}
		return fmt.Errorf("not among %d spans", to.len())
	})
}

// Who can't be reached is no reason to be slow, to fail or not to stop.
func TestCollectorThatIsNotThere(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(nil)
	srv.Close()
	nodes, stop := launch(t, tracedNode(t, srv.URL, 1))
	for i := range 50 {
		adjust(t, nodes[0], fmt.Sprint("k", i), "")
	}
	began := time.Now()
	stop()
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("stopping took %v", took)
	}
}
