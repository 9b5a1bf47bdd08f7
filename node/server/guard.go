package server

import (
	"context"
	"crypto/x509"
	"net"
	"net/http"
	"strings"
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
		s.logger.Warn("clients are not authenticated: there is no --jwks", "listen", c.Listen, "insecure", c.Insecure)
		return nil
	}
	if host, _, err := net.SplitHostPort(c.Listen); err == nil && !isLoopback(host) && c.TLSCert == "" && len(c.TrustedProxies) == 0 {
		s.logger.Warn("tokens come to --listen in the clear: use --tls-cert and --tls-key, or a proxy that ends TLS, named by --trusted-proxies")
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
		Evict: func(subject string, connections int) {
			if e := s.edge.Load(); e != nil {
				e.Evict(subject, connections)
			}
		},
		Logger: s.logger.With("part", "quota"), Registerer: s.registry,
	})
	c.OnTold(func(_ string, data []byte) { q.Heard(data) })
	s.quota = q
	stops.push(func() error { q.Close(); return nil })
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

// followRevocations brings what is revoked anywhere to those who let clients in.
func (s *Server) followRevocations(c *cluster.Cluster, e *edge.Edge, a *api.API) {
	if s.guard == nil {
		return
	}
	c.OnRevoked(func(list []cluster.Revocation) {
		revoked := make([]token.Revocation, len(list))
		for i, r := range list {
			revoked[i] = token.Revocation(r)
		}
		s.guard.Revoke(revoked)
		e.Recheck()
		a.Recheck()
	})
}

// adminTimeout bounds how long a token of the admin port waits for keys.
const adminTimeout = 5 * time.Second

// guarded asks requests to the admin port that come from elsewhere for a token which
// grants admin. Probes get through: they learn no more than a status.
func (s *Server) guarded(next http.Handler) http.Handler {
	if s.guard == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fromHere(r) || r.URL.Path == "/healthz" {
			next.ServeHTTP(w, r)
			return
		}
		err := s.admits(r)
		switch {
		case err == nil:
			next.ServeHTTP(w, r)
		case r.URL.Path == "/readyz" && r.Header.Get("Authorization") == "":
			ready := s.readiness()
			writeJSON(w, ready.httpStatus(), map[string]string{"status": ready.Status})
		default:
			if err.Code == protocol.CodeUnauthorized {
				w.Header().Set("WWW-Authenticate", "Bearer")
			}
			writeProblem(w, err.Code.Status(), err.Code, err.Message)
		}
	})
}

// fromHere reports whether a request comes from this machine and for itself.
func fromHere(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	forwarded := r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("Forwarded") != ""
	return err == nil && isLoopback(host) && !forwarded
}

// admits checks the token of a request to the admin port.
func (s *Server) admits(r *http.Request) *protocol.Error {
	scheme, bearer, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || len(r.Header.Values("Authorization")) != 1 {
		return protocol.NewError(protocol.CodeUnauthorized, "the admin port wants a token that grants admin, in the Authorization header")
	}
	ctx, cancel := context.WithTimeout(r.Context(), adminTimeout)
	defer cancel()
	caller, err := s.guard.Token(ctx, strings.TrimSpace(bearer))
	if err != nil {
		return err
	}
	if !caller.Access.May(protocol.RightAdmin) {
		return protocol.NewError(protocol.CodeForbidden, "admin is not granted in region %q", s.config.Region)
	}
	return nil
}
