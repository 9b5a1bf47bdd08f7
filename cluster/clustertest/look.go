package clustertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stockmesh/stockmesh/node/server"
	"github.com/stockmesh/stockmesh/protocol"
)

// await looks again and again until look returns nil. A node that ends by itself, or
// the limit, ends the test.
func (r *Region) await(what string, limit time.Duration, look func(ctx context.Context) error) {
	r.t.Helper()
	await(r.t, r.nodes, what, limit, look)
}

func await(t testing.TB, nodes []*Node, what string, limit time.Duration, look func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := look(ctx)
		if err == nil {
			return
		}
		for _, n := range nodes {
			if gone := n.gone(); gone != nil {
				t.Fatalf("%s: %v", what, gone)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
	}
}

// AwaitReady waits until every running node says that it is ready.
func (r *Region) AwaitReady() {
	r.t.Helper()
	r.await("ready", readyWait, func(ctx context.Context) error {
		var errs []error
		for _, n := range r.Running() {
			if status, err := n.readiness(ctx); err != nil || status.Status != "ready" {
				errs = append(errs, fmt.Errorf("%s is %s %q: %w", n.Name, status.Status, status.Problems, err))
			}
		}
		return errors.Join(errs...)
	})
}

// AwaitStatus waits until the node's readiness is the one named.
func (n *Node) AwaitStatus(want string) {
	n.region.t.Helper()
	n.region.await(n.Name+" "+want, readyWait, func(ctx context.Context) error {
		status, err := n.readiness(ctx)
		if err == nil && status.Status != want {
			err = fmt.Errorf("it is %s %q", status.Status, status.Problems)
		}
		return err
	})
}

// Ready tells whether the node says that it is ready.
func (n *Node) Ready() bool {
	ctx, cancel := context.WithTimeout(context.Background(), lookWait)
	defer cancel()
	status, err := n.readiness(ctx)
	return err == nil && status.Status == "ready"
}

func (n *Node) readiness(ctx context.Context) (status server.Readiness, err error) {
	return status, n.region.fetch(ctx, n.Admin+"/readyz", &status)
}

// AwaitOwner waits until all running nodes name the same running node as the owner of
// the shard.
func (r *Region) AwaitOwner(shard int) (owner *Node) {
	r.t.Helper()
	r.await(fmt.Sprintf("owner of shard %d", shard), readyWait, func(ctx context.Context) (err error) {
		owner, err = r.agreed(ctx, shard)
		return err
	})
	return owner
}

func (r *Region) agreed(ctx context.Context, shard int) (owner *Node, err error) {
	running := r.Running()
	if len(running) == 0 {
		return nil, errors.New("no node runs")
	}
	for _, n := range running {
		names, err := n.owners(ctx, shard)
		if err != nil {
			return nil, err
		}
		if len(names) != 1 {
			return nil, fmt.Errorf("%s names %q", n.Name, names)
		}
		named := r.byName(names[0])
		if named == nil || !named.Up() || owner != nil && owner != named {
			return nil, fmt.Errorf("%s names %s, another one %v", n.Name, names[0], owner)
		}
		owner = named
	}
	return owner, nil
}

func (n *Node) owners(ctx context.Context, shard int) (names []string, err error) {
	var mesh protocol.Mesh
	if err := n.region.fetch(ctx, n.HTTP+"/v1/mesh", &mesh); err != nil {
		return nil, err
	}
	for _, region := range mesh.Regions {
		for _, m := range region.Nodes {
			if region.Name == n.region.Name && slices.Contains(m.OwnerOf, shard) {
				names = append(names, m.Name)
			}
		}
	}
	return names, nil
}

// Stock reads all items of a node, in order.
func (n *Node) Stock(ctx context.Context) (items []protocol.Item, err error) {
	for after := ""; ; {
		var page protocol.Page
		if err := n.region.fetch(ctx, n.HTTP+"/v1/stock?after="+url.QueryEscape(after), &page); err != nil {
			return nil, err
		}
		items = append(items, page.Items...)
		if after = page.Next; after == "" {
			return items, nil
		}
	}
}

// cursor is how far the node's state goes: the first that its stream names.
func (n *Node) cursor(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	res, err := n.region.get(ctx, n.HTTP+"/v1/stream?sku=nothing-of-this-name")
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var read []byte
	for buf := make([]byte, 512); ; {
		m, err := res.Body.Read(buf)
		read = append(read, buf[:m]...)
		for line := range bytes.Lines(read) {
			if id, ok := strings.CutPrefix(string(line), "id:"); ok && strings.HasSuffix(id, "\n") {
				return strings.TrimSpace(id), nil
			}
		}
		if err != nil {
			return "", fmt.Errorf("%s: no cursor in %q: %w", n.Name, read, err)
		}
	}
}

// AwaitConverged waits until every running node shows the same log, and with it the
// same items. Nobody may write meanwhile.
func (r *Region) AwaitConverged() {
	r.t.Helper()
	r.await("converged", convergeWait*Slow, func(ctx context.Context) error {
		running := r.Running()
		var first string
		var stock []protocol.Item
		for i, n := range running {
			cursor, err := n.cursor(ctx)
			if err != nil {
				return err
			}
			items, err := n.Stock(ctx)
			if err != nil {
				return err
			}
			switch {
			case i == 0:
				first, stock = cursor, items
			case cursor != first:
				return fmt.Errorf("%s is at %s, %s at %s", running[0], first, n, cursor)
			case !slices.Equal(items, stock):
				return fmt.Errorf("at %s %s has %v, %s has %v", cursor, running[0], stock, n, items)
			}
		}
		return nil
	})
}

// fetch reads JSON; an answer with another status than 200 is an error, apart from
// that of readiness.
func (r *Region) fetch(ctx context.Context, url string, v any) error {
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	res, err := r.get(ctx, url)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	if res.StatusCode != http.StatusOK && !strings.HasSuffix(url, "/readyz") {
		return fmt.Errorf("%s: %s: %s", url, res.Status, body)
	}
	return protocol.UnmarshalJSON(body, v)
}

// get asks with a token, where the region wants one.
func (r *Region) get(ctx context.Context, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if r.keys != nil {
		req.Header.Set("Authorization", "Bearer "+r.keys.Token("harness", `[{"do":["watch","admin"]}]`))
	}
	return r.http.Do(req)
}
