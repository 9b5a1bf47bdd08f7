package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/stockmesh/stockmesh/cluster"
	"github.com/stockmesh/stockmesh/protocol"
)

// operateTimeout bounds what an operator asks of a region.
const operateTimeout = 30 * time.Second

// operation is what an operator asks of a region; its answer is sent as JSON.
type operation func(ctx context.Context, c *cluster.Cluster, r *http.Request) (any, error)

// operations are the routes of the admin port by which a region is looked after;
// `stockctl` uses them.
func (s *Server) operations() []adminRoute {
	return []adminRoute{
		{"GET /backup", s.backup},
		{"POST /drain", s.drainNow},
		{"POST /activate", s.operate(func(ctx context.Context, c *cluster.Cluster, _ *http.Request) (any, error) {
			return map[string]string{"status": "active"}, c.Activate(ctx)
		})},
		{"GET /nodes", s.operate(func(ctx context.Context, c *cluster.Cluster, _ *http.Request) (any, error) {
			nodes, replicas, err := c.Members(ctx)
			return map[string]any{"nodes": nodes, "replicas": replicas}, err
		})},
		{"DELETE /nodes/{name}", s.operate(func(ctx context.Context, c *cluster.Cluster, r *http.Request) (any, error) {
			name := r.PathValue("name")
			return map[string]string{"removed": name}, c.RemoveMember(ctx, name, r.URL.Query().Get("force") == "true")
		})},
		{"PUT /replicas", s.operate(setReplicas)},
		{"GET /revocations", s.operate(revocations)},
		{"POST /revocations", s.operate(s.revoke)},
		{"GET /regions", s.operate(func(_ context.Context, c *cluster.Cluster, _ *http.Request) (any, error) {
			return ledger{c, s}.Mesh(), nil
		})},
		{"DELETE /regions/{name}", s.operate(s.changeRegion("removed", (*cluster.Cluster).RemoveRegion))},
		{"PUT /regions/{name}", s.operate(s.changeRegion("linked", (*cluster.Cluster).RestoreRegion))},
	}
}

func (s *Server) operate(do operation) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c := s.cluster.Load()
		if c == nil {
			writeProblem(w, http.StatusServiceUnavailable, protocol.CodeUnavailable, "the node is still "+s.beginning())
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), operateTimeout)
		defer cancel()
		answer, err := do(ctx, c, r)
		if err != nil {
			status, code := operationStatus(err)
			s.auditOperation(r, status)
			writeProblem(w, status, code, err.Error())
			return
		}
		s.auditOperation(r, http.StatusOK)
		writeJSON(w, http.StatusOK, answer)
	}
}

// changeRegion removes another region or takes it back; state is what it is then.
func (s *Server) changeRegion(state string, change func(c *cluster.Cluster, ctx context.Context, name string) error) operation {
	return func(ctx context.Context, c *cluster.Cluster, r *http.Request) (any, error) {
		name := r.PathValue("name")
		if err := s.checkOtherRegion(name); err != nil {
			return nil, err
		}
		return map[string]string{"region": name, "state": state}, change(c, ctx, name)
	}
}

func (s *Server) checkOtherRegion(name string) error {
	switch err := protocol.CheckRegion("NAME", name); {
	case err != nil:
		return fmt.Errorf("%w: %s, not %q", errBadOperation, err.Message, name)
	case name == s.config.Region:
		return fmt.Errorf("%w: %s is this node's own region", errBadOperation, name)
	}
	return nil
}

func setReplicas(ctx context.Context, c *cluster.Cluster, r *http.Request) (any, error) {
	var body struct {
		Replicas int `json:"replicas"`
	}
	if err := readJSON(r, &body); err != nil {
		return nil, err
	}
	if body.Replicas != 1 && body.Replicas != 3 && body.Replicas != 5 {
		return nil, fmt.Errorf("%w: replicas are 1, 3 or 5, not %d", errBadOperation, body.Replicas)
	}
	nodes, _, err := c.Members(ctx)
	if err != nil {
		return nil, err
	}
	if len(nodes) < body.Replicas {
		return nil, fmt.Errorf("%w: %d copies need as many nodes, there are %d", errNotNow, body.Replicas, len(nodes))
	}
	return body, c.SetReplicas(ctx, body.Replicas)
}

var (
	errBadOperation = errors.New("bad request")
	errNotNow       = errors.New("not possible now")
)

func operationStatus(err error) (int, protocol.Code) {
	switch {
	case errors.Is(err, errBadOperation):
		return http.StatusBadRequest, protocol.CodeBadRequest
	case errors.Is(err, cluster.ErrNoMember):
		return http.StatusNotFound, protocol.CodeNotFound
	case errors.Is(err, errNotNow), errors.Is(err, cluster.ErrAlive), errors.Is(err, cluster.ErrAlone), errors.Is(err, cluster.ErrNoMesh), errors.Is(err, cluster.ErrNotReadOnly):
		return http.StatusConflict, protocol.CodeBadRequest
	}
	return http.StatusServiceUnavailable, protocol.CodeUnavailable
}

func readJSON(r *http.Request, v any) error {
	b, err := io.ReadAll(io.LimitReader(r.Body, 4096))
	if err == nil {
		err = protocol.UnmarshalJSON(b, v)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errBadOperation, err)
	}
	return nil
}

// backup streams the region's state. An error in the middle cuts the connection: without
// its digest the file is no backup.
func (s *Server) backup(w http.ResponseWriter, r *http.Request) {
	c := s.cluster.Load()
	if c == nil {
		writeProblem(w, http.StatusServiceUnavailable, protocol.CodeUnavailable, "the node is still "+s.beginning())
		return
	}
	name := s.config.Region + "-" + strconv.FormatInt(time.Now().Unix(), 10) + ".stockmesh"
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
	w.Header().Set("Cache-Control", "no-store")
	if err := c.Backup(r.Context(), w); err != nil {
		s.logger.Error("backup was cut short", "error", err)
		panic(http.ErrAbortHandler)
	}
}

func writeProblem(w http.ResponseWriter, status int, code protocol.Code, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	body := map[string]any{
		"type": "urn:stockmesh:error:" + string(code), "title": http.StatusText(status),
		"status": status, "detail": detail, "code": code, "message": detail,
	}
	_, _ = w.Write(append(protocol.AppendJSON(nil, body), '\n'))
}
