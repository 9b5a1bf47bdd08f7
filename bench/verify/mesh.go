package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/stockmesh/stockmesh/protocol"
)

const (
	regionServing = "serving"
	meshBytesMax  = 16 << 20
	meshPoll      = 100 * time.Millisecond
)

// errForbidden says that the token doesn't allow to see the mesh.
var errForbidden = errors.New("not allowed")

// meshes asks every node how it sees the mesh, again for a while where not all is well:
// after a fault regions take a moment to hear of each other.
func (v *verifier) meshes(ctx context.Context) error {
	var regions []string // all that should be known
	for _, n := range v.nodes {
		if !slices.Contains(regions, n.hello.Region) {
			regions = append(regions, n.hello.Region)
		}
	}
	for began := time.Now(); ; {
		views, err := v.views(ctx)
		if err != nil {
			return err
		}
		bad := v.judgeViews(views, regions)
		if len(bad) == 0 || time.Since(began) > v.config.Settle {
			v.reportMesh(views, bad)
			return nil
		}
		v.config.Progress("waiting until every region serves", 0, 0)
		if err := pause(ctx, meshPoll); err != nil {
			return err
		}
	}
}

// view is how a node sees the mesh.
type view struct {
	*protocol.Mesh // nil: it could not be read
	err            error
}

func (v *verifier) views(ctx context.Context) (list []view, err error) {
	for _, n := range v.nodes {
		m, err := n.mesh(ctx)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		list = append(list, view{m, err})
	}
	return list, nil
}

func (v *verifier) judgeViews(views []view, regions []string) (bad []string) {
	for i, n := range v.nodes {
		if views[i].err != nil {
			if v.config.Own || !errors.Is(views[i].err, errForbidden) {
				bad = append(bad, fmt.Sprintf("%s: %v", n.label, views[i].err))
			}
			continue
		}
		known := views[i].Regions
		for _, r := range known {
			if r.State != regionServing {
				bad = append(bad, fmt.Sprintf("%s sees region %s %s, its picture of it is %d ms old", n.label, r.Name, strings.ReplaceAll(r.State, "_", " "), r.LagMS))
			}
		}
		for _, name := range regions {
			if !slices.ContainsFunc(known, func(r protocol.MeshRegion) bool { return r.Name == name }) {
				bad = append(bad, fmt.Sprintf("%s knows of no region %s", n.label, name))
			}
		}
	}
	return bad
}

// reportMesh enters what was seen last.
func (v *verifier) reportMesh(views []view, bad []string) {
	for _, text := range bad {
		v.found.fault(checkMesh, "%s", text)
	}
	var lag int64
	for i, n := range v.nodes {
		if views[i].Mesh == nil {
			if errors.Is(views[i].err, errForbidden) {
				v.found.note(checkMesh, "%s does not let us see it", n.label)
			}
			continue
		}
		for _, r := range views[i].Regions {
			v.found.count(checkMesh, 1)
			lag = max(lag, r.LagMS)
			for _, member := range r.Nodes {
				if member.State != "serving" {
					v.found.note(checkMesh, "%s sees node %s of %s %s", n.label, member.Name, r.Name, strings.ReplaceAll(member.State, "_", " "))
				}
			}
		}
		v.result.Nodes[i].LagMS = peerLag(views[i].Mesh)
	}
	v.found.note(checkMesh, "the oldest picture of a region is %d ms old", lag)
}

// peerLag is the age of a node's oldest picture of another region, in ms.
func peerLag(m *protocol.Mesh) (lag int64) {
	for _, r := range m.Regions {
		lag = max(lag, r.LagMS)
	}
	return lag
}

func (n *node) mesh(ctx context.Context) (*protocol.Mesh, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.address.mesh, nil)
	if err != nil {
		return nil, err
	}
	req.Header = n.header()
	resp, err := n.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden:
		return nil, errForbidden
	default:
		return nil, fmt.Errorf("GET /v1/mesh: %s", resp.Status)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, meshBytesMax))
	if err != nil {
		return nil, fmt.Errorf("GET /v1/mesh: %w", err)
	}
	m := &protocol.Mesh{}
	if err := protocol.UnmarshalJSON(b, m); err != nil {
		return nil, fmt.Errorf("GET /v1/mesh: %w", err)
	}
	return m, nil
}
