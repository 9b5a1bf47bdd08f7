package verify

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// verifier is one run of Check.
type verifier struct {
	config Config
	found  *findings
	nodes  []*node
	book   *book
	result Result
}

const progressEvery = 250 * time.Millisecond

// Check looks at the nodes once. An error says that they could not be looked at; what is
// wrong with them stands in the result, which is then as far as it came.
func Check(ctx context.Context, c Config) (Result, error) {
	c, err := c.complete()
	if err != nil {
		return Result{}, err
	}
	v := &verifier{config: c, found: &findings{}}
	began := time.Now()
	err = v.run(ctx)
	return v.finish(time.Since(began)), err
}

func (v *verifier) run(ctx context.Context) error {
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: v.config.TLS, Proxy: http.ProxyFromEnvironment}}
	defer client.CloseIdleConnections()
	for _, e := range v.config.Endpoints {
		a, err := parseEndpoint(e)
		if err != nil {
			return err
		}
		n, err := dial(ctx, a, client)
		if err != nil {
			return err
		}
		defer n.close()
		v.nodes = append(v.nodes, n)
	}
	v.name()
	ctx, cancel := context.WithCancelCause(ctx)
	var readers sync.WaitGroup
	defer readers.Wait()
	defer cancel(nil)
	for i, n := range v.nodes {
		if err := n.subscribe(ctx, v.config.Prefixes); err != nil {
			return err
		}
		readers.Go(func() { cancel(n.read(ctx, v.book, i)) })
	}
	return v.steps(ctx)
}

// name gives the nodes names of their own, and the book their number.
func (v *verifier) name() {
	count := make(map[string]int)
	for _, n := range v.nodes {
		n.label = n.hello.Node
		count[n.label]++
	}
	labels := make([]string, len(v.nodes))
	for i, n := range v.nodes {
		if count[n.label] > 1 {
			n.label = n.hello.Region + "/" + n.label
		}
		labels[i] = n.label
		v.result.Nodes = append(v.result.Nodes, Node{Name: n.hello.Node, Region: n.hello.Region, Endpoint: n.shown})
	}
	v.book = newBook(v.found, labels)
}

// steps are what is looked at, one after the other. Meanwhile all that changes is held
// against the promises as it comes.
func (v *verifier) steps(ctx context.Context) error {
	if err := v.fill(ctx); err != nil {
		return err
	}
	if err := v.settle(ctx); err != nil {
		return err
	}
	if err := v.sample(ctx); err != nil {
		return err
	}
	if err := v.meshes(ctx); err != nil {
		return err
	}
	if v.config.Watch == 0 {
		return nil
	}
	if err := v.watch(ctx); err != nil {
		return err
	}
	return v.settle(ctx)
}

func (v *verifier) settle(ctx context.Context) error {
	return v.book.settle(ctx, v.config.Settle, func(left int) {
		v.config.Progress("waiting until all nodes show the same", v.book.len()-left, v.book.len())
	})
}

// fill waits until every node has shown all it has.
func (v *verifier) fill(ctx context.Context) error {
	ticker := time.NewTicker(progressEvery)
	defer ticker.Stop()
	for _, n := range v.nodes {
		for waiting := true; waiting; {
			select {
			case <-n.filled:
				waiting = false
			case <-ticker.C:
				v.config.Progress("reading items", v.shown(), 0)
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	return nil
}

func (v *verifier) shown() (items int) {
	for _, n := range v.nodes {
		items += int(n.heard.Load())
	}
	return items
}

func (v *verifier) watch(ctx context.Context) error {
	for began := time.Now(); time.Since(began) < v.config.Watch; {
		v.config.Progress("watching what changes", int(time.Since(began).Seconds()), int(v.config.Watch.Seconds()))
		if err := pause(ctx, min(progressEvery, v.config.Watch)); err != nil {
			return err
		}
	}
	return nil
}
