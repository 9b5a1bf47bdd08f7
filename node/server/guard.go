package server

import (
	"context"
	"crypto/x509"
	"net"
	"net/http"
	"time"

	"github.com/stockmesh/stockmesh/cluster"
	"github.com/stockmesh/stockmesh/node/api"
	"github.com/stockmesh/stockmesh/node/edge"
	"github.com/stockmesh/stockmesh/node/quota"
	"github.com/stockmesh/stockmesh/node/token"
	"github.com/stockmesh/stockmesh/protocol"
)

// startGuard gets the keys that clients' tokens are checked with. Without --jwks there
// is no guard, and everybody who reaches the ports may do everything.
func (s *Server) startGuard(ctx context.Context, stops *stack) error {
	c := &s.config
	if c.JWKS == "" {
		if !c.Insecure { // else it was warned of
			s.logger.Info("clients are not authenticated, as there is no --jwks", "listen", c.Listen)
		}
		return nil
	}
	g, err := token.New(ctx, token.Config{
		Keys: c.JWKS, Issuer: c.JWTIssuer, Audience: c.JWTAudience, Region: c.Region, ClientCertificates: c.TLSCA != "",
		Logger: s.logger.With("part", "token"), Registerer: s.registry,
	})
	if err != nil {
		return err
	}
	s.guard = g
	stops.push(func() error { g.Close(); return nil })
	return nil
}

// startQuota counts what each subject uses, with what the region's other nodes tell.
func (s *Server) startQuota(c *cluster.Cluster, stops *stack) {
	if !s.config.limitsUsers() {
		return
	}
	q := quota.New(quota.Config{
		Limits: quota.Limits{
			Commands: s.config.RateLimitPerUser, Burst: s.config.RateBurst,
			Connections: s.config.MaxConnectionsPerUser, Subscriptions: s.config.MaxSubscriptionsPerUser,
		},
		Node: s.config.Name, Send: c.Tell,
		Evict:  s.evict,
		Logger: s.logger.With("part", "quota"), Registerer: s.registry,
	})
	c.OnTold(func(_ string, data []byte) { q.Heard(data) })
	s.quota = q
	stops.push(func() error { q.Close(); return nil })
}

// evict closes what a subject has too many of: sessions first, then streams over HTTP.
func (s *Server) evict(subject string, connections int) {
	if e := s.edge.Load(); e != nil {
		connections -= e.Evict(subject, connections)
	}
	if a := s.api.Load(); a != nil && connections > 0 {
		a.Evict(subject, connections)
	}
}

// edgeQuota and apiQuota are the quota as each of those wants it.
type (
	edgeQuota struct{ *quota.Quota }
	apiQuota  struct{ *quota.Quota }
)

// Account implements edge.Quota.
func (q edgeQuota) Account(subject string) edge.Account { return q.Quota.Account(subject) }

// Account implements api.Quota.
func (q apiQuota) Account(subject string) api.Account { return q.Quota.Account(subject) }

// guardEdge sets what the edge authenticates and limits with.
func (s *Server) guardEdge(c *edge.Config) {
	if s.guard != nil {
		c.Guard = s.guard
	}
	if s.localOnly() {
		c.Hosts = s.config.names
	}
	if s.quota != nil {
		c.Quota = edgeQuota{s.quota}
	}
}

// guardAPI sets what the HTTP interface authenticates and limits with.
func (s *Server) guardAPI(c *api.Config) {
	if s.guard != nil {
		c.Guard, c.Certificates = s.guard, certificateOf
	}
	if s.quota != nil {
		c.Quota = apiQuota{s.quota}
	}
}

// connKey is the key of a request's connection in its context.
type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// certificateOf is the verified certificate of a request's client, nil without one.
func certificateOf(r *http.Request) *x509.Certificate {
	c, ok := r.Context().Value(connKey{}).(net.Conn)
	if !ok {
		return nil
	}
	if certs := edge.PeerCertificates(c); len(certs) > 0 {
		return certs[0]
	}
	return nil
}

// followRevocations brings what is revoked anywhere to the guard, before it lets
// anybody in.
func (s *Server) followRevocations(c *cluster.Cluster) {
	if s.guard == nil {
		return
	}
	c.OnRevoked(func(list []cluster.Revocation) {
		revoked := make([]token.Revocation, len(list))
		for i, r := range list {
			revoked[i] = token.Revocation(r)
		}
		s.guard.Revoke(revoked)
	})
}

// recheckRevoked ends what was opened by those who have been revoked since.
func (s *Server) recheckRevoked(c *cluster.Cluster, e *edge.Edge, a *api.API) {
	if s.guard == nil {
		return
	}
	c.OnRevoked(func([]cluster.Revocation) {
		e.Recheck()
		a.Recheck()
	})
}

// adminTimeout bounds how long a token of the admin port waits for keys.
const adminTimeout = 5 * time.Second

// operatorKey is the key of the token's subject in the context of a request to the
// admin port.
type operatorKey struct{}

// guarded asks requests to the admin port that come from elsewhere for a token which
// grants admin. Probes get through: they learn no more than a status.
func (s *Server) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		local := s.fromHere(r)
		switch {
		case tokenInURL(r):
			writeProblem(w, http.StatusBadRequest, protocol.CodeBadRequest, "tokens are not taken in the URL: send Authorization: Bearer")
		case local && !s.config.names(r.Host):
			writeProblem(w, http.StatusForbidden, protocol.CodeForbidden, unknownHost(r.Host))
		case s.guard == nil, local, r.URL.Path == "/healthz":
			next.ServeHTTP(w, r)
		default:
			s.guardOperator(next, w, r)
		}
	})
}

// guardOperator serves who may operate the node, and a probe's wish to know its status.
func (s *Server) guardOperator(next http.Handler, w http.ResponseWriter, r *http.Request) {
	caller, err := s.operator(r)
	if err == nil {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), operatorKey{}, caller.Subject)))
		return
	}
	if r.URL.Path == "/readyz" && r.Header.Get("Authorization") == "" {
		ready := s.readiness()
		writeJSON(w, ready.httpStatus(), map[string]string{"status": ready.Status})
		return
	}
	if err.Code == protocol.CodeUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	s.auditOperation(r, err.Code.Status())
	writeProblem(w, err.Code.Status(), err.Code, err.Message)
}

// fromHere reports whether a request comes from this machine and for itself. Where the
// admin port is open to others none does: a proxy beside the node looks like that too.
func (s *Server) fromHere(r *http.Request) bool {
	listen, _, err := net.SplitHostPort(s.config.Admin)
	if err != nil || !isLoopback(listen) {
		return false
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	forwarded := r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("Forwarded") != ""
	return err == nil && isLoopback(host) && !forwarded
}

// auditOperation says in the log who changed something about the region, or wanted to.
func (s *Server) auditOperation(r *http.Request, status int) {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return
	}
	subject, _ := r.Context().Value(operatorKey{}).(string)
	address, _, _ := net.SplitHostPort(r.RemoteAddr)
	s.logger.Info("audit", "part", "admin", "subject", subject, "address", address, "forwarded", r.Header.Get("X-Forwarded-For"), "method", r.Method, "path", r.URL.Path, "status", status)
}

// tokenInURL reports whether a request has a query parameter that tokens are put into.
func tokenInURL(r *http.Request) bool {
	for name := range r.URL.Query() {
		if protocol.IsTokenParameter(name) {
			return true
		}
	}
	return false
}

// operator is whom the token of a request to the admin port names, if that grants admin.
func (s *Server) operator(r *http.Request) (*protocol.Caller, *protocol.Error) {
	if s.cluster.Load() == nil {
		return nil, protocol.RetryLater(protocol.CodeUnavailable, 1000, "the node doesn't know yet which tokens are revoked")
	}
	bearer, ok := protocol.Bearer(r.Header.Get("Authorization"))
	if !ok || len(r.Header.Values("Authorization")) != 1 {
		return nil, protocol.NewError(protocol.CodeUnauthorized, "the admin port wants a token that grants admin, in the Authorization header")
	}
	ctx, cancel := context.WithTimeout(r.Context(), adminTimeout)
	defer cancel()
	caller, err := s.guard.Token(ctx, bearer)
	if err != nil {
		return nil, err
	}
	if !caller.Access.May(protocol.RightAdmin) {
		return nil, protocol.NewError(protocol.CodeForbidden, "admin is not granted in region %q", s.config.Region)
	}
	return caller, nil
}
