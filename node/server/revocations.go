package server

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/stockmesh/stockmesh/cluster"
)

// revokedFor is how long a revocation counts whose end isn't given: longer than any
// token should live.
const revokedFor = 365 * 24 * time.Hour

// revocation is one as the admin port takes and shows it.
type revocation struct {
	TokenID string    `json:"token_id,omitzero"`
	Subject string    `json:"subject,omitzero"`
	Before  time.Time `json:"before,omitzero"` // of a subject: tokens issued before it
	Until   time.Time `json:"until,omitzero"`  // when it may be forgotten
}

// revoke makes a token, or all of a subject so far, be refused from now on: by every
// node of every region, which also close what was opened with it.
func (s *Server) revoke(ctx context.Context, c *cluster.Cluster, r *http.Request) (any, error) {
	var body revocation
	if err := readJSON(r, &body); err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	if body.Subject != "" && body.Before.IsZero() {
		body.Before = now
	}
	if body.Until.IsZero() {
		body.Until = now.Add(revokedFor)
	}
	if err := body.check(now); err != nil {
		return nil, err
	}
	if err := c.Revoke(ctx, cluster.Revocation(body)); err != nil {
		return nil, err
	}
	s.logger.Info("revoked", "part", "admin", "token_id", body.TokenID, "of", body.Subject, "before", body.Before, "until", body.Until)
	return body, nil
}

func (v *revocation) check(now time.Time) error {
	switch {
	case (v.TokenID == "") == (v.Subject == ""):
		return fmt.Errorf("%w: a revocation names either token_id or subject", errBadOperation)
	case len(v.TokenID) > 256 || len(v.Subject) > 256:
		return fmt.Errorf("%w: token_id and subject have at most 256 bytes", errBadOperation)
	case v.TokenID != "" && !v.Before.IsZero():
		return fmt.Errorf("%w: before goes with subject; a token is revoked as such", errBadOperation)
	case !v.Until.After(now):
		return fmt.Errorf("%w: until %s is over", errBadOperation, v.Until.Format(time.RFC3339))
	}
	return nil
}

func revocations(_ context.Context, c *cluster.Cluster, _ *http.Request) (any, error) {
	list := []revocation{}
	for _, r := range c.Revocations() {
		list = append(list, revocation(r))
	}
	return map[string]any{"revocations": list}, nil
}
