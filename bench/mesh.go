package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

const (
	ownerTimeout = 10 * time.Second
	ownerPoll    = 20 * time.Millisecond
)

// owner finds the node that decides in the first region: the one that all nodes there
// name, as soon as they agree. Each of them must run.
func (t *target) owner(ctx context.Context) (int, error) {
	late := time.Now().Add(ownerTimeout)
	for {
		owner, err := t.agreedOwner(ctx)
		if err == nil {
			return owner, nil
		}
		if time.Now().After(late) {
			return 0, fmt.Errorf("no owner within %v: %w", ownerTimeout, err)
		}
		if err := pause(ctx, ownerPoll); err != nil {
			return 0, err
		}
	}
}

func (t *target) agreedOwner(ctx context.Context) (int, error) {
	agreed := ""
	nodes := t.nodes[:t.each]
	for _, n := range nodes {
		names, err := namedOwners(ctx, n.Public)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", n.name, err)
		}
		if len(names) != 1 || agreed != "" && names[0] != agreed {
			return 0, fmt.Errorf("%s names %q, others %q", n.name, names, agreed)
		}
		agreed = names[0]
	}
	i := slices.IndexFunc(nodes, func(n *node) bool { return n.name == agreed })
	if i < 0 {
		return 0, fmt.Errorf("the nodes name %q, which is none of them", agreed)
	}
	return i, nil
}

// namedOwners lists the nodes that decide for the first shard of a node's own region,
// as that node sees it.
func namedOwners(ctx context.Context, addr string) ([]string, error) {
	m, err := readMesh(ctx, addr)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, region := range m.Regions {
		for _, n := range region.Nodes {
			if region.Name == m.Region && slices.Contains(n.OwnerOf, 0) {
				names = append(names, n.Name)
			}
		}
	}
	return names, nil
}

func readMesh(ctx context.Context, addr string) (*protocol.Mesh, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/v1/mesh", nil)
	if err != nil {
		return nil, err
	}
	req.Close = true // nodes come and go
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	if err != nil {
		return nil, fmt.Errorf("GET /v1/mesh: %w", err)
	}
	var m protocol.Mesh
	return &m, protocol.UnmarshalJSON(b, &m)
}
