package clustertest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stockmesh/stockmesh/cluster/clustertest"
	"github.com/stockmesh/stockmesh/protocol"
)

// TestMeshCursor: a stream that is broken off in one region goes on in another from its
// cursor, under writes everywhere: no item steps back, none is missed.
func TestMeshCursor(t *testing.T) {
	m := clustertest.StartMesh(t)
	const items = 20
	names := func(i int) string { return fmt.Sprint("item-", i%items) }
	for i := range items {
		if _, err := m.Regions()[i%3].Dial().Adjust(tell(t), names(i), "", 1_000_000); err != nil {
			t.Fatal(err)
		}
	}
	m.AwaitConverged()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writing sync.WaitGroup
	for i, r := range m.Regions() {
		c := r.Dial()
		writing.Go(func() {
			for n := i; ctx.Err() == nil; n++ {
				if _, err := c.Adjust(ctx, names(n*7), "", 1); err != nil && ctx.Err() == nil {
					t.Errorf("%s: %v", r.Name, err)
					return
				}
			}
		})
	}
	seen := &steps{seen: make(map[string]protocol.Vector)}
	cursor := ""
	hops := long(60, 9)
	for hop := range hops {
		r := m.Regions()[hop%3]
		n := r.Nodes()[hop%len(r.Nodes())]
		cursor = seen.stream(t, n, cursor, 3, func() bool { return false })
	}
	stop()
	writing.Wait()
	m.AwaitConverged()
	final, err := m.Region("us").Nodes()[0].Stock(tell(t))
	if err != nil {
		t.Fatal(err)
	}
	// Whatever the stream has passed by, it must not come after the cursor.
	for _, r := range m.Regions() {
		cursor = seen.stream(t, r.Nodes()[0], cursor, -1, func() bool {
			for _, it := range final {
				if !seen.has(it) {
					return false
				}
			}
			return true
		})
	}
	t.Logf("%d hops, %d updates, the last cursor is %s", hops, seen.updates, cursor)
}

func (s *steps) seeEvent(t *testing.T, n *clustertest.Node, data string) {
	t.Helper()
	var it protocol.Item
	if err := protocol.UnmarshalJSON([]byte(data), &it); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	if err := s.see(it); err != nil {
		t.Errorf("at %s: %v", n, err)
	}
}

// stream reads a node's stream after a cursor until some events have told newer cursors,
// or until done, and returns the last cursor.
func (s *steps) stream(t *testing.T, n *clustertest.Node, cursor string, events int, done func() bool) string {
	t.Helper()
	ctx, cancel := context.WithCancel(tell(t))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.HTTP+"/v1/stream?all=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	if cursor != "" {
		req.Header.Set("Last-Event-ID", cursor)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(res.Body)
		t.Fatalf("stream of %s after %q: %s %s", n, cursor, res.Status, b)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	event := make(map[string]string)
	for newer := 0; newer != events && !done() && lines.Scan(); {
		if name, value, field := strings.Cut(lines.Text(), ": "); field {
			event[name] = value
			continue
		}
		// An empty line ends the event; only then does its cursor count.
		if event["event"] == "stock" {
			s.seeEvent(t, n, event["data"])
		}
		if id := event["id"]; id != "" && id != cursor {
			cursor = id
			newer++
		}
		clear(event)
	}
	if err := lines.Err(); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatalf("stream of %s after %q: %v", n, cursor, err)
	}
	return cursor
}
